"""The uplink as a process, on real Kafka and three MQTT brokers: what goes in, what comes out."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import paho.mqtt.client as paho
import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from twin.local.ports import PortPicker
from twin.wire import codec
from twin.wire.telemetry import Telemetry

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60
BROKERS = ["amqtt", "mosquitto", "hivemq"]
# What takes long whatever the broker is.
SLOW_ON_BROKERS = ["amqtt", "mosquitto", pytest.param("hivemq", marks=pytest.mark.deep)]


def until(condition, what):
    """Poll until the condition gives something true; fails naming what did not come."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"after {DEADLINE_S} s: {what() if callable(what) else what}")


class Bridge:
    """`python -m ingest ..` (or another command) as a process with a health port and a log."""

    def __init__(self, log, kafka, mqtt, *command, **environment):
        self.health = f"http://127.0.0.1:{PortPicker().free()}"
        self.log = log
        env = {
            **os.environ,
            "KAFKA_BOOTSTRAP": kafka,
            "MQTT_URLS": mqtt,
            "HEALTH_PORT": self.health.rpartition(":")[2],
            "LOG_FORMAT": "json",
            **environment,
        }
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, *command], env=env, cwd=ROOT, stdout=file, stderr=file
            )

    def get(self, path):
        """Status and body; (0, "") while nobody listens."""
        try:
            with urllib.request.urlopen(self.health + path, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def ready(self):
        """Wait until /readyz says so."""
        until(
            lambda: self.get("/readyz")[0] == 200 or self.process.poll() is not None,
            lambda: f"not ready: {self.get('/readyz')}\n{self.log.read_text()[-3000:]}",
        )
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        return self

    def metric(self, name):
        """Sum of a metric over its labels."""
        lines = self.get("/metrics")[1].splitlines()
        return sum(
            float(line.rpartition(" ")[2])
            for line in lines
            if line.startswith((name + "{", name + " "))
        )

    def stop(self):
        """End it by SIGTERM; its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(30)

    def kill(self):
        """End it by SIGKILL."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Tail:
    """Records of some topics from now on."""

    def __init__(self, kafka, *names):
        self.records = {name: [] for name in names}
        self._consumer = Consumer({"bootstrap.servers": kafka, "group.id": "tail"})
        known = self._consumer.list_topics(timeout=30).topics
        places = [
            TopicPartition(name, number) for name in names for number in known[name].partitions
        ]
        for place in places:
            place.offset = until(lambda place=place: self._end(place), f"no end of {place}")[0]
        self._consumer.assign(places)

    def _end(self, place):
        """(end offset,), or nothing before Kafka has chosen a leader for a new partition."""
        try:
            return self._consumer.get_watermark_offsets(place, timeout=30)[1:]
        except KafkaException:
            return None

    def read(self):
        """Take what is there."""
        for message in self._consumer.consume(500, 0.05):
            assert message.error() is None, message.error()
            self.records[message.topic()].append(message)
        return self.records

    def until(self, name, enough):
        """Records of a topic, as soon as `enough(records)`."""
        until(
            lambda: enough(self.read()[name]),
            lambda: f"records: { {n: len(r) for n, r in self.records.items()} }",
        )
        return self.records[name]

    def of(self, name, vehicle_id, count):
        """The first `count` records of a vehicle."""
        key = vehicle_id.encode()
        return [
            message
            for message in self.until(
                name, lambda records: sum(m.key() == key for m in records) >= count
            )
            if message.key() == key
        ]

    def close(self):
        self._consumer.close()


def car(url, client_id, *, version=paho.MQTTv311, will=None, subscribe=()):
    """A connected paho client; what it subscribes to is collected in `client.messages`."""
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id, protocol=version)
    client.messages = []
    ready = threading.Event()

    def connected(client, *_):
        client.subscribe([(topic, 1) for topic in subscribe]) if subscribe else ready.set()

    client.on_connect = connected
    client.on_subscribe = lambda *_: ready.set()
    client.on_message = lambda _client, _data, message: client.messages.append(message)
    if will is not None:
        client.will_set(*will, qos=1, retain=True)
    where = urlsplit(url)
    client.connect(where.hostname, where.port)
    client.loop_start()
    assert ready.wait(DEADLINE_S)
    return client


def say(client, topic, payload, *, qos=1, retain=False, content_type=None):
    """Publish and wait for the broker's PUBACK."""
    said = None
    if content_type is not None:
        said = Properties(PacketTypes.PUBLISH)
        said.ContentType = content_type
    if isinstance(payload, dict):
        payload = json.dumps(payload)
    client.publish(topic, payload, qos, retain, properties=said).wait_for_publish(DEADLINE_S)


def leave(client):
    client.disconnect()
    client.loop_stop()


@pytest.fixture(params=BROKERS)
def broker(request):
    """URL of each broker in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def is_mqtt_5(request):
    return request.node.callspec.params["broker"] != "amqtt"


@pytest.fixture
def is_hivemq(request):
    return request.node.callspec.params["broker"] == "hivemq"


@pytest.fixture
def version(is_mqtt_5):
    return paho.MQTTv5 if is_mqtt_5 else paho.MQTTv311


@pytest.fixture
def start(kafka, broker, tmp_path):
    """Start bridges that are ended with the test: `start("uplink", **environment)`."""
    with contextlib.ExitStack() as started:

        def begin(*command, **environment):
            command = command if len(command) > 1 else ("-m", "ingest", *command)
            bridge = Bridge(tmp_path / "bridge.log", kafka, broker, *command, **environment)
            started.callback(bridge.stop)
            return bridge

        yield begin


@pytest.fixture
def tail(kafka):
    """All topics the uplink writes, from now on."""
    found = Tail(kafka, "telemetry", "presence", "reported", "outcomes", "rejected")
    yield found
    found.close()


def ms():
    return time.time_ns() // 1_000_000


def json_of(message):
    return json.loads(message.value())


def test_what_a_car_says_is_in_kafka_under_its_key(start, broker, tail, version, is_mqtt_5):
    """Every kind of message arrives as its record; the will, too; the account balances."""
    uplink = start("uplink").ready()
    vehicle_id, now = f"up-{ms()}", ms()
    command = f"{vehicle_id}.01K6C3X2J0000000000000000A"
    said = Telemetry(vehicle_id, now, now - 9, 2, {"coolant_temp": 88.5})
    will = (f"vehicles/{vehicle_id}/status", json.dumps({"state": "offline", "session": now - 9}))
    client = car(broker, vehicle_id, version=version, will=will)
    base = f"vehicles/{vehicle_id}"
    birth = {"state": "online", "session": now - 9, "at": now, "attributes": {"fleet": "berlin"}}
    say(client, f"{base}/status", birth, retain=True)
    say(
        client,
        f"{base}/telemetry",
        {"event_time": now, "session": now - 9, "sequence": 1, "speed": 3},
    )
    say(client, f"{base}/telemetry", codec.encode_telemetry(said))
    say(client, f"vehicles/sensor/data/{vehicle_id}", {"coolant_temp": 80}, qos=0)
    reported = {"event_time": now, "session": now - 9, "sequence": 1, "properties": {"a": {"b": 1}}}
    say(client, f"{base}/reported", reported)
    outcome = {"command_id": command, "state": "succeeded", "at": now}
    say(client, f"{base}/outcomes", outcome)

    heard = [codec.decode_telemetry(m.value()) for m in tail.of("telemetry", vehicle_id, 3)]
    # One of QoS 0 may overtake those of QoS 1 (HiveMQ).
    first, second, third = sorted(heard, key=lambda telemetry: telemetry.assigned)
    assert (first.sequence, first.signals) == (1, {"speed": 3.0})
    assert second == said
    assert (third.assigned, third.signals) == (True, {"coolant_temp": 80.0})
    assert json_of(tail.of("reported", vehicle_id, 1)[0]) == {"vehicle_id": vehicle_id, **reported}
    assert json_of(tail.of("outcomes", vehicle_id, 1)[0]) == {"vehicle_id": vehicle_id, **outcome}
    headers = dict(tail.records["telemetry"][-1].headers())
    assert headers["content-type"] == b"avro/binary"
    assert now <= int(headers["ingested-at"]) <= ms()

    # The connection breaks: the broker says the will.
    client._sock.shutdown(2)
    client.loop_stop()
    born, died = map(json_of, tail.of("presence", vehicle_id, 2))
    shared = {"vehicle_id": vehicle_id, "session": now - 9, "shard": 0}
    assert born == {**shared, **birth, "reason": "birth"}
    assert died == {**shared, "state": "offline", "reason": "will", "at": died["at"]}
    assert now <= died["at"] <= ms()

    until(lambda: uplink.metric("cartwin_uplink_in_flight") == 0, "something is in flight for ever")
    assert uplink.metric("cartwin_uplink_received_total") == (
        uplink.metric("cartwin_uplink_produced_total")
        + uplink.metric("cartwin_uplink_rejected_total")
    )
    assert uplink.stop() == 0


@pytest.mark.parametrize("broker", ["mosquitto"], indirect=True)
def test_plain_avro_with_its_content_type_is_accepted(start, broker, tail):
    """MQTT 5 only: the content type tells plain Avro from anything else."""
    start("uplink").ready()
    vehicle_id = f"plain-{ms()}"
    said = Telemetry(vehicle_id, ms(), 5, 2, {"coolant_temp": 88.5})
    client = car(broker, vehicle_id, version=paho.MQTTv5)
    topic = f"vehicles/{vehicle_id}/telemetry"
    say(client, topic, codec.encode_telemetry(said)[5:], content_type=codec.AVRO_BINARY)
    (message,) = tail.of("telemetry", vehicle_id, 1)
    assert codec.decode_telemetry(message.value()) == said
    leave(client)


def test_a_retained_status_is_told_to_a_new_uplink(start, broker, tail, version):
    """A car that was there before the uplink is known to it by its retained birth."""
    vehicle_id, now = f"before-{ms()}", ms()
    client = car(broker, vehicle_id, version=version)
    birth = {"state": "online", "session": now, "at": now}
    say(client, f"vehicles/{vehicle_id}/status", birth, retain=True)
    start("uplink").ready()
    (message, *_) = tail.of("presence", vehicle_id, 1)
    assert json_of(message)["session"] == now
    leave(client)


def test_what_cannot_be_accepted_is_rejected_with_its_bytes(start, broker, tail, version):
    """Each bad message is in `rejected` with reason, source and original bytes; good ones go on."""
    uplink = start("uplink").ready()
    vehicle_id = f"bad-{ms()}"
    base = f"vehicles/{vehicle_id}"
    bad = [
        ("malformed_json", f"{base}/telemetry", b"{nonsense"),
        ("malformed_avro", f"{base}/telemetry", b"\x00\x00\x00\x00\x01\xff"),
        ("unknown_schema", f"{base}/telemetry", b"\x00\x00\x00\x10\x01\xff"),
        ("empty", f"{base}/reported", b""),
        ("out_of_range", f"{base}/telemetry", b'{"coolant_temp":5000}'),
        ("unknown_signal", f"{base}/telemetry", b'{"mood":1}'),
        ("clock_ahead", f"{base}/telemetry", b'{"event_time":99999999999999,"speed":1}'),
        ("identity_mismatch", f"{base}/telemetry", b'{"vehicle_id":"another","speed":1}'),
        ("missing_field", f"{base}/status", b'{"state":"online"}'),
        ("bad_type", f"{base}/outcomes", b'{"command_id":7}'),
        ("too_large", f"{base}/telemetry", b"{" + b" " * codec.MAX_MESSAGE_BYTES + b"}"),
        ("too_large", f"{base}/reported", b"[" + b"x" * 500_000 + b"]"),
        ("bad_vehicle_id", "vehicles/not an id/telemetry", b"{}"),
    ]
    client = car(broker, vehicle_id, version=version)
    for _, topic, payload in bad:
        say(client, topic, payload)
    say(client, f"{base}/telemetry", b'{"speed":7}')
    assert len(tail.of("telemetry", vehicle_id, 1)) == 1
    records = tail.until("rejected", lambda found: len(found) >= len(bad))
    found = {}
    for message in records:
        headers = {name: value.decode() for name, value in message.headers()}
        found[headers["reason"], headers["source"]] = (message, headers)
    for reason, topic, payload in bad:
        message, headers = found[reason, f"mqtt:{topic}"]
        kept = message.value()
        assert kept == payload or (len(payload) > 400_000 and payload.startswith(kept[:200_000]))
        assert message.key() == (None if reason == "bad_vehicle_id" else vehicle_id.encode())
        assert headers["attempts"] == "1"
        assert headers["detail"]
    # What others left in the session of this uplink at the broker is counted, too.
    until(
        lambda: uplink.metric("cartwin_uplink_rejected_total") == len(tail.read()["rejected"]),
        lambda: f"{uplink.metric('cartwin_uplink_rejected_total')} rejected, {len(records)} seen",
    )
    leave(client)


def test_two_brokers_are_two_shards(amqtt, mosquitto, kafka, tail, tmp_path):
    """One uplink reads every broker of the list; presence names the place of the car's broker."""
    both = f"{amqtt},{mosquitto}"
    uplink = Bridge(tmp_path / "log", kafka, both, "-m", "ingest", "uplink")
    try:
        uplink.ready()
        for shard, url in enumerate((amqtt, mosquitto)):
            vehicle_id = f"shard-{shard}-{ms()}"
            client = car(url, vehicle_id)
            status = {"state": "offline", "session": 1, "at": 2}
            say(client, f"vehicles/{vehicle_id}/status", status)
            assert json_of(tail.of("presence", vehicle_id, 1)[0])["shard"] == shard
            leave(client)
    finally:
        assert uplink.stop() == 0


# A process that is an uplink in everything but that its producer keeps records for itself.
HELD = """
import sys
from functools import partial
from ingest import uplink
from ingest.process import run
from ingest.settings import UplinkSettings
from twin.kit import kafka
settings = UplinkSettings.load()
held = {"linger.ms": 900_000, "message.timeout.ms": 0}
producer = kafka.producer(settings.kafka_bootstrap, "held", **held)
sys.exit(run("uplink", settings, partial(uplink.serve, settings, producer)))
"""


def test_without_kafkas_word_the_broker_keeps_the_messages(start, broker, tail, version, is_hivemq):
    """PUBACK follows Kafka: what a killed uplink held is delivered again, and nothing is lost."""
    count, window = 300, 40
    # Without a rate there are no marks, which would take places in the window.
    held = start("-c", HELD, UPLINK_WINDOW=str(window), UPLINK_VEHICLE_RATE="0").ready()
    vehicle_id, now = f"kill-{ms()}", ms()
    client = car(broker, vehicle_id, version=version)
    for number in range(count):
        payload = {"event_time": now, "session": 1, "sequence": number, "speed": 1}
        client.publish(f"vehicles/{vehicle_id}/telemetry", json.dumps(payload), 1)
    # As long as nothing is acknowledged, HiveMQ sends one batch and no more, however large the window.
    enough = 1 if is_hivemq else window
    until(lambda: held.metric("cartwin_uplink_in_flight") >= enough, "the window did not fill")
    # A message of QoS 1 that the broker confirms now is behind the others in its queues.
    say(
        client,
        f"vehicles/{vehicle_id}/telemetry",
        {"sequence": count, "event_time": now, "speed": 1},
    )
    assert held.metric("cartwin_uplink_produced_total") == 0
    assert not any(tail.read().values())
    held.kill()
    start("uplink").ready()

    def sequences(records):
        return {
            codec.decode_telemetry(m.value()).sequence
            for m in records
            if m.key() == vehicle_id.encode()
        }

    tail.until("telemetry", lambda records: len(sequences(records)) == count + 1)
    leave(client)


def test_sigterm_ends_in_order(start, broker, tail, version):
    """What was received is in Kafka and acknowledged; the next uplink gets nothing twice."""
    first = start("uplink").ready()
    vehicle_id = f"term-{ms()}"
    client = car(broker, vehicle_id, version=version)
    for number in range(200):
        payload = {"event_time": ms(), "session": 1, "sequence": number, "speed": 1}
        client.publish(f"vehicles/{vehicle_id}/telemetry", json.dumps(payload), 1)
    until(lambda: first.metric("cartwin_uplink_received_total"), "nothing was received")
    assert first.stop() == 0
    start("uplink").ready()
    records = tail.of("telemetry", vehicle_id, 200)
    say(client, f"vehicles/{vehicle_id}/telemetry", {"sequence": 200, "event_time": 1, "speed": 1})
    records = tail.of("telemetry", vehicle_id, 201)
    assert [codec.decode_telemetry(m.value()).sequence for m in records] == list(range(201))
    leave(client)


def test_a_broker_that_comes_later_is_waited_for(kafka, tmp_path):
    """Without a broker the uplink is alive, not ready, and says why; SIGTERM still ends it."""
    port = PortPicker().free()
    uplink = Bridge(tmp_path / "log", kafka, f"mqtt://127.0.0.1:{port}", "-m", "ingest", "uplink")
    try:
        until(
            lambda: "no TCP connection" in uplink.get("/readyz")[1], lambda: uplink.get("/readyz")
        )
        assert uplink.get("/livez")[0] == 200
    finally:
        assert uplink.stop() == 0


def test_a_kafka_that_is_not_there_is_waited_for(amqtt, tmp_path):
    """Without Kafka the uplink takes no message, says why it is not ready, and ends when told."""
    address = f"127.0.0.1:{PortPicker().free()}"
    uplink = Bridge(tmp_path / "log", address, amqtt, "-m", "ingest", "uplink")
    try:
        until(
            lambda: "no broker answers" in uplink.get("/readyz")[1], lambda: uplink.get("/readyz")
        )
    finally:
        assert uplink.stop() == 0


def test_messages_wait_at_the_broker_while_kafka_is_away(make_stack, tmp_path):
    """A stopped Kafka stops the intake, not the cars; when it is back everything is in it, in order."""
    stack, endpoints = make_stack(mqtt="mosquitto")
    (server,) = [child for child in stack.children() if child.name == "kafka"]
    uplink = Bridge(
        tmp_path / "log",
        endpoints.kafka,
        endpoints.mqtt[0],
        "-m",
        "ingest",
        "uplink",
        UPLINK_WINDOW="20",
        UPLINK_VEHICLE_RATE="0",
    ).ready()
    tail = Tail(endpoints.kafka, "telemetry")
    client = car(endpoints.mqtt[0], "patient")
    os.kill(server.pid, signal.SIGSTOP)
    try:
        for number in range(200):
            payload = {"event_time": 5, "session": 1, "sequence": number, "speed": 1}
            say(client, "vehicles/patient/telemetry", payload)
        until(lambda: uplink.metric("cartwin_uplink_in_flight") == 20, "the window did not fill")
        assert uplink.metric("cartwin_uplink_received_total") == 20
        until(lambda: uplink.get("/readyz")[0] == 503, "the uplink does not miss Kafka")
        assert "nothing acknowledged for" in json.loads(uplink.get("/readyz")[1])["why"]["kafka"]
    finally:
        os.kill(server.pid, signal.SIGCONT)
    records = tail.of("telemetry", "patient", 200)
    uplink.ready()
    assert [codec.decode_telemetry(m.value()).sequence for m in records] == list(range(200))
    assert uplink.stop() == 0
    leave(client)
    tail.close()
