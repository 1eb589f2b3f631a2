import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.util.ByteArrayBuilder;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * Peer: Kafka Streams 4.3.1, Processor API, one thread, state store with changelog.
 *
 * <pre>java StreamsApp BOOTSTRAP APPLICATION_ID STATE_DIR SCHEMA_FILE</pre>
 *
 * Its best users' way: Avro is read by hand (no GenericRecord, no boxing), the state is columns indexed
 * by signal, JSON is written and read by Jackson's streaming API; with Avro's generic reader and Jackson's
 * object mapping it costs about a tenth more. The store in memory and the one on RocksDB cost the same.
 * Caching is off, the default of the
 * Processor API, so that every update writes a changelog record as with all other peers. Tuned: larger
 * producer batches and polls; acks=all and idempotence are the producer's defaults.
 */
public final class StreamsApp {
  private static final String STORE = "states";

  /** Names and types of the signals in the order of the schema; the header fields are fixed. */
  private record Signals(String[] names, boolean[] isFloat, Map<String, Integer> index) {
    static Signals of(File schema) throws IOException {
      JsonNode fields = new ObjectMapper().readTree(schema).get("fields");
      int head = 6;
      String[] names = new String[fields.size() - head];
      boolean[] isFloat = new boolean[names.length];
      Map<String, Integer> index = new HashMap<>();
      for (int i = 0; i < names.length; i++) {
        JsonNode field = fields.get(head + i);
        names[i] = field.get("name").asText();
        isFloat[i] = field.get("type").get(1).asText().equals("float");
        index.put(names[i], i);
      }
      return new Signals(names, isFloat, index);
    }
  }

  /** One vehicle: value, event time, session and sequence of every signal that it reported. */
  private static final class State {
    String vehicleId;
    long revision;
    final boolean[] known;
    final double[] values;
    final long[] times;
    final long[] sessions;
    final long[] sequences;

    State(int signals) {
      known = new boolean[signals];
      values = new double[signals];
      times = new long[signals];
      sessions = new long[signals];
      sequences = new long[signals];
    }

    boolean fold(int signal, double value, long time, long session, long sequence) {
      if (known[signal] && !wins(signal, value, time, session, sequence)) {
        return false;
      }
      known[signal] = true;
      values[signal] = value;
      times[signal] = time;
      sessions[signal] = session;
      sequences[signal] = sequence;
      return true;
    }

    private boolean wins(int signal, double value, long time, long session, long sequence) {
      if (time != times[signal]) {
        return time > times[signal];
      }
      if (session != sessions[signal]) {
        return session > sessions[signal];
      }
      if (sequence != sequences[signal]) {
        return sequence > sequences[signal];
      }
      return Long.compareUnsigned(
              Double.doubleToRawLongBits(value), Double.doubleToRawLongBits(values[signal]))
          > 0;
    }
  }

  /** {"vehicle_id":..,"revision":n,"reported":{signal:[value,event_time,session,sequence]}} */
  private static final class StateSerde implements Serde<State>, Serializer<State>, Deserializer<State> {
    private final JsonFactory json = new JsonFactory();
    private final Signals signals;

    StateSerde(Signals signals) {
      this.signals = signals;
    }

    @Override
    public byte[] serialize(String topic, State state) {
      if (state == null) {
        return null;
      }
      ByteArrayBuilder out = new ByteArrayBuilder(json._getBufferRecycler(), 2048);
      try (JsonGenerator to = json.createGenerator(out)) {
        to.writeStartObject();
        to.writeStringField("vehicle_id", state.vehicleId);
        to.writeNumberField("revision", state.revision);
        to.writeObjectFieldStart("reported");
        for (int i = 0; i < signals.names.length; i++) {
          if (!state.known[i]) {
            continue;
          }
          to.writeArrayFieldStart(signals.names[i]);
          if (signals.isFloat[i]) {
            to.writeNumber((float) state.values[i]);
          } else {
            to.writeNumber((long) state.values[i]);
          }
          to.writeNumber(state.times[i]);
          to.writeNumber(state.sessions[i]);
          to.writeNumber(state.sequences[i]);
          to.writeEndArray();
        }
        to.writeEndObject();
        to.writeEndObject();
      } catch (IOException error) {
        throw new UncheckedIOException(error);
      }
      byte[] bytes = out.toByteArray();
      out.release();
      return bytes;
    }

    @Override
    public State deserialize(String topic, byte[] bytes) {
      if (bytes == null) {
        return null;
      }
      State state = new State(signals.names.length);
      try (JsonParser from = json.createParser(bytes)) {
        from.nextToken();
        while (from.nextToken() == JsonToken.FIELD_NAME) {
          switch (from.currentName()) {
            case "vehicle_id" -> state.vehicleId = from.nextTextValue();
            case "revision" -> state.revision = from.nextLongValue(0);
            default -> reported(from, state);
          }
        }
      } catch (IOException error) {
        throw new UncheckedIOException(error);
      }
      return state;
    }

    private void reported(JsonParser from, State state) throws IOException {
      from.nextToken();
      while (from.nextToken() == JsonToken.FIELD_NAME) {
        int i = signals.index.get(from.currentName());
        from.nextToken();
        from.nextToken();
        // Written as the shortest decimal of a float: read back, it is the same float again.
        state.values[i] = signals.isFloat[i] ? from.getFloatValue() : from.getLongValue();
        state.times[i] = from.nextLongValue(0);
        state.sessions[i] = from.nextLongValue(0);
        state.sequences[i] = from.nextLongValue(0);
        state.known[i] = true;
        from.nextToken();
      }
    }

    @Override
    public Serializer<State> serializer() {
      return this;
    }

    @Override
    public Deserializer<State> deserializer() {
      return this;
    }

    @Override
    public void configure(Map<String, ?> configs, boolean isKey) {}

    @Override
    public void close() {}
  }

  /** Reads one record and writes the newer values into the store. */
  private static final class Fold implements Processor<String, byte[], Void, Void> {
    private final Signals signals;
    private KeyValueStore<String, State> states;

    Fold(Signals signals) {
      this.signals = signals;
    }

    @Override
    public void init(ProcessorContext<Void, Void> context) {
      states = context.getStateStore(STORE);
    }

    @Override
    public void process(Record<String, byte[]> record) {
      ByteBuffer in = ByteBuffer.wrap(record.value()).order(ByteOrder.LITTLE_ENDIAN).position(5);
      byte[] id = new byte[(int) readLong(in)];
      in.get(id);
      long time = readLong(in);
      long session = readLong(in);
      long sequence = readLong(in);
      in.get(); // assigned
      skipStrings(in); // suspect
      State state = states.get(record.key());
      if (state == null) {
        state = new State(signals.names.length);
        state.vehicleId = new String(id, StandardCharsets.UTF_8);
      }
      boolean changed = false;
      for (int i = 0; i < signals.names.length; i++) {
        if (readLong(in) == 0) {
          continue; // the union's first branch: null
        }
        double value = signals.isFloat[i] ? in.getFloat() : readLong(in);
        changed |= state.fold(i, value, time, session, sequence);
      }
      if (changed) {
        state.revision++;
        states.put(record.key(), state);
      }
    }

    private static void skipStrings(ByteBuffer in) {
      for (long count = readLong(in); count != 0; count = readLong(in)) {
        for (long i = 0; i < count; i++) {
          in.position(in.position() + (int) readLong(in));
        }
      }
    }

    private static long readLong(ByteBuffer in) {
      long raw = 0;
      int shift = 0;
      byte next;
      do {
        next = in.get();
        raw |= (next & 0x7fL) << shift;
        shift += 7;
      } while (next < 0);
      return (raw >>> 1) ^ -(raw & 1);
    }
  }

  public static void main(String[] args) throws Exception {
    Map<String, String> settings = new TreeMap<>();
    settings.put("num.stream.threads", "1");
    settings.put("processing.guarantee", "at_least_once");
    settings.put("commit.interval.ms", "1000");
    settings.put("auto.offset.reset", "earliest");
    settings.put("statestore.cache.max.bytes", "0");
    settings.put("consumer.max.poll.records", "5000");
    settings.put("consumer.max.partition.fetch.bytes", "4194304");
    settings.put("producer.acks", "all");
    settings.put("producer.enable.idempotence", "true");
    settings.put("producer.linger.ms", "20");
    settings.put("producer.batch.size", "262144");
    settings.put("producer.buffer.memory", "67108864");
    StringBuilder told = new StringBuilder("{\"settings\":{\"store\":\"memory\",\"caching\":\"off\"");
    settings.forEach((k, v) -> told.append(",\"").append(k).append("\":\"").append(v).append('"'));
    String version = Runtime.version().toString();
    String jvm =
        String.join(
            " ", ManagementFactory.getRuntimeMXBean().getInputArguments());
    System.out.println(told + ",\"java\":\"" + version + "\",\"jvm\":\"" + jvm + "\"}}");

    Signals signals = Signals.of(new File(args[3]));
    Topology topology = new Topology();
    topology.addSource(
        "telemetry",
        Serdes.String().deserializer(),
        Serdes.ByteArray().deserializer(),
        "telemetry");
    topology.addProcessor("fold", () -> new Fold(signals), "telemetry");
    topology.addStateStore(
        Stores.keyValueStoreBuilder(
                Stores.inMemoryKeyValueStore(STORE), Serdes.String(), new StateSerde(signals))
            .withCachingDisabled()
            .withLoggingEnabled(Map.of()),
        "fold");
    Properties properties = new Properties();
    properties.putAll(settings);
    properties.put("bootstrap.servers", args[0]);
    properties.put("application.id", args[1]);
    properties.put("state.dir", args[2]);
    KafkaStreams streams = new KafkaStreams(topology, properties);
    CountDownLatch ended = new CountDownLatch(1);
    streams.setUncaughtExceptionHandler(
        error -> {
          error.printStackTrace();
          Runtime.getRuntime().halt(1);
          return null;
        });
    Runtime.getRuntime()
        .addShutdownHook(
            new Thread(
                () -> {
                  streams.close();
                  ended.countDown();
                }));
    streams.start();
    ended.await();
  }

  private StreamsApp() {}
}
