import com.hivemq.configuration.service.InternalConfigurations;
import com.hivemq.embedded.EmbeddedExtension;
import com.hivemq.embedded.EmbeddedHiveMQ;
import com.hivemq.extension.sdk.api.ExtensionMain;
import com.hivemq.extension.sdk.api.auth.PublishAuthorizer;
import com.hivemq.extension.sdk.api.auth.SimpleAuthenticator;
import com.hivemq.extension.sdk.api.auth.parameter.PublishAuthorizerInput;
import com.hivemq.extension.sdk.api.auth.parameter.PublishAuthorizerOutput;
import com.hivemq.extension.sdk.api.auth.parameter.SimpleAuthInput;
import com.hivemq.extension.sdk.api.auth.parameter.SimpleAuthOutput;
import com.hivemq.extension.sdk.api.auth.parameter.TopicPermission;
import com.hivemq.extension.sdk.api.auth.parameter.TopicPermission.MqttActivity;
import com.hivemq.extension.sdk.api.auth.parameter.TopicPermission.PermissionType;
import com.hivemq.extension.sdk.api.packets.auth.DefaultAuthorizationBehaviour;
import com.hivemq.extension.sdk.api.packets.connect.ConnackReasonCode;
import com.hivemq.extension.sdk.api.packets.general.Qos;
import com.hivemq.extension.sdk.api.packets.publish.AckReasonCode;
import com.hivemq.extension.sdk.api.parameter.ExtensionStartInput;
import com.hivemq.extension.sdk.api.parameter.ExtensionStartOutput;
import com.hivemq.extension.sdk.api.parameter.ExtensionStopInput;
import com.hivemq.extension.sdk.api.parameter.ExtensionStopOutput;
import com.hivemq.extension.sdk.api.services.Services;
import com.hivemq.extension.sdk.api.services.builder.Builders;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.channels.Channels;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.PosixFilePermission;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.security.spec.InvalidKeySpecException;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.LongAdder;
import java.util.regex.Pattern;
import javax.naming.InvalidNameException;
import javax.naming.ldap.LdapName;

/**
 * HiveMQ CE as a process: {@code HiveMqBroker FOLDER WINDOW [TLS_FOLDER]}.
 *
 * <p>FOLDER has config.xml and, unless everybody may do everything, the file {@code acl} that
 * Mosquitto reads, too. HiveMQ lets nobody in without an extension: ours goes by those rules. A
 * client's name is the CN of its certificate, which has no sign that means something in a topic
 * filter; who comes by the door of the cars must have it as its client id, may do what the patterns
 * say, and nothing else. Who is denied everything is not let in. From the PEM files of TLS_FOLDER the
 * key stores are made that config.xml names, in a folder that nobody else may read. What is refused or
 * dropped is counted and logged, drops are also told under $SYS as Mosquitto does.
 */
public final class HiveMqBroker implements ExtensionMain {
    private static final char[] STORE_PASSWORD = "cartwin".toCharArray();
    private static final String CARS = "cars";
    private static final String EVERYTHING = "#";
    private static final Pattern NAME = Pattern.compile("[A-Za-z0-9._@-]{1,64}");
    private static final String DROPPED = "$SYS/broker/publish/messages/dropped";

    private record Rule(String user, boolean writes, boolean reads, String filter) {
        boolean bars(String name) {
            return !writes && !reads && user.equals(name);
        }
    }

    private final List<Rule> rules;
    private final LongAdder refused = new LongAdder();
    private long told = -1;

    private HiveMqBroker(List<Rule> rules) {
        this.rules = rules;
    }

    public static void main(String[] arguments) throws Exception {
        Path folder = Path.of(arguments[0]);
        // 50 by default, for every client, whatever it announces as its receive maximum.
        InternalConfigurations.MAX_INFLIGHT_WINDOW_SIZE_MESSAGES = Integer.parseInt(arguments[1]);
        if (arguments.length > 2) {
            makeStores(Path.of(arguments[2]), folder);
        }
        Path data = Files.createDirectories(folder.resolve("data"));
        Path none = Files.createDirectories(folder.resolve("extensions"));
        EmbeddedExtension access = EmbeddedExtension.builder()
                .withId("cartwin").withName("cartwin").withVersion("1")
                .withExtensionMain(new HiveMqBroker(readRules(folder.resolve("acl")))).build();
        EmbeddedHiveMQ broker = EmbeddedHiveMQ.builder()
                .withConfigurationFolder(folder).withDataFolder(data).withExtensionsFolder(none)
                .withEmbeddedExtension(access).withoutLoggingBootstrap().build();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> broker.stop().join()));
        broker.start().join();
    }

    @Override
    public void extensionStart(ExtensionStartInput input, ExtensionStartOutput output) {
        SimpleAuthenticator door = rules == null
                ? (asked, answer) -> answer.authenticateSuccessfully()
                : this::letIn;
        Services.securityRegistry().setAuthenticatorProvider(asked -> door);
        if (rules != null) {
            PublishAuthorizer writing = this::judge;
            Services.securityRegistry().setAuthorizerProvider(asked -> writing);
        }
        Services.extensionExecutorService()
                .scheduleAtFixedRate(this::tellDrops, 1, 2, TimeUnit.SECONDS);
    }

    @Override
    public void extensionStop(ExtensionStopInput input, ExtensionStopOutput output) {}

    private void letIn(SimpleAuthInput asked, SimpleAuthOutput answer) {
        String door = asked.getConnectionInformation().getListener().orElseThrow().getName();
        String name = asked.getConnectionInformation().getClientTlsInformation()
                .flatMap(tls -> tls.getClientCertificate()).map(HiveMqBroker::commonName).orElse("");
        boolean isCar = door.equals(CARS);
        if (!NAME.matcher(name).matches()) {
            answer.failAuthentication(ConnackReasonCode.NOT_AUTHORIZED,
                    "the name in the certificate must be 1 to 64 of A-Z a-z 0-9 . _ @ -");
            return;
        }
        if (isCar && !name.equals(asked.getClientInformation().getClientId())) {
            answer.failAuthentication(ConnackReasonCode.NOT_AUTHORIZED,
                    "the client id must be the name in the certificate");
            return;
        }
        if (rules.stream().anyMatch(rule -> rule.bars(name))) {
            answer.failAuthentication(ConnackReasonCode.NOT_AUTHORIZED,
                    "this name is denied everything");
            return;
        }
        String user = isCar ? CARS : name;
        var known = asked.getConnectionInformation().getConnectionAttributeStore();
        known.putAsString("user", user);
        known.putAsString("name", name);
        var permissions = answer.getDefaultPermissions();
        permissions.setDefaultBehaviour(DefaultAuthorizationBehaviour.DENY);
        for (Rule rule : rules) {
            if (rule.user().equals(user)) {
                String filter = rule.filter().replace("%u", name);
                if (rule.reads()) {
                    permissions.add(permission(filter, MqttActivity.SUBSCRIBE));
                }
                if (rule.writes()) {
                    permissions.add(permission(filter, MqttActivity.PUBLISH));
                }
            }
        }
        answer.authenticateSuccessfully();
    }

    private static TopicPermission permission(String filter, MqttActivity activity) {
        return Builders.topicPermission().topicFilter(filter).activity(activity)
                .type(PermissionType.ALLOW).build();
    }

    private void judge(PublishAuthorizerInput asked, PublishAuthorizerOutput answer) {
        String topic = asked.getPublishPacket().getTopic();
        var known = asked.getConnectionInformation().getConnectionAttributeStore();
        String user = known.getAsString("user").orElse("");
        String name = known.getAsString("name").orElse("");
        for (Rule rule : rules) {
            if (rule.writes() && rule.user().equals(user)
                    && covers(rule.filter().replace("%u", name), topic)) {
                answer.authorizeSuccessfully();
                return;
            }
        }
        refused.increment();
        String id = asked.getClientInformation().getClientId();
        System.err.printf("refused: %s wrote %s (%d so far)%n", id, topic, refused.sum());
        answer.failAuthorization(AckReasonCode.NOT_AUTHORIZED, "not a topic of this client");
    }

    private static boolean covers(String filter, String topic) {
        String[] wanted = filter.split("/", -1);
        String[] given = topic.split("/", -1);
        for (int place = 0; place < wanted.length; place++) {
            if (wanted[place].equals("#")) {
                return true;
            }
            if (place == given.length
                    || !(wanted[place].equals("+") || wanted[place].equals(given[place]))) {
                return false;
            }
        }
        return wanted.length == given.length;
    }

    private void tellDrops() {
        var counter = Services.metricRegistry().getCounters().get("com.hivemq.messages.dropped.count");
        long dropped = counter == null ? 0 : counter.getCount();
        if (dropped == told) {
            return;
        }
        told = dropped;
        byte[] text = Long.toString(dropped).getBytes(StandardCharsets.US_ASCII);
        Services.publishService().publish(Builders.publish().topic(DROPPED).qos(Qos.AT_MOST_ONCE)
                .retain(true).payload(ByteBuffer.wrap(text)).build());
    }

    /** The rules of a file in Mosquitto's form; null when there is none. */
    private static List<Rule> readRules(Path file) throws IOException {
        if (!Files.exists(file)) {
            return null;
        }
        List<Rule> found = new ArrayList<>();
        String user = null;
        for (String line : Files.readAllLines(file)) {
            String[] words = line.strip().split(" ", 3);
            if (words[0].equals("user") && words.length == 2) {
                user = words[1];
            } else if ((words[0].equals("topic") || words[0].equals("pattern")) && words.length == 3) {
                String whose = words[0].equals("pattern") ? CARS : user;
                if (words[1].equals("deny") && !words[2].equals(EVERYTHING)) {
                    throw new IOException(file + ": only everything can be denied: " + line);
                }
                found.add(new Rule(whose, words[1].endsWith("write"), words[1].startsWith("read"),
                        words[2]));
            } else if (!words[0].isEmpty() && !words[0].startsWith("#")) {
                throw new IOException(file + ": a line that is no rule: " + line);
            }
        }
        return found;
    }

    private static String commonName(X509Certificate certificate) {
        try {
            return new LdapName(certificate.getSubjectX500Principal().getName()).getRdns().stream()
                    .filter(part -> part.getType().equalsIgnoreCase("CN"))
                    .map(part -> part.getValue().toString()).findFirst().orElse("");
        } catch (InvalidNameException error) {
            return "";
        }
    }

    private static void makeStores(Path pem, Path config) throws Exception {
        Set<PosixFilePermission> ours = PosixFilePermissions.fromString("rwx------");
        Path folder = Files.createDirectories(
                config.resolve("stores"), PosixFilePermissions.asFileAttribute(ours));
        Files.setPosixFilePermissions(folder, ours);
        Certificate[] own = certificates(pem.resolve("server.pem"));
        KeyStore server = emptyStore();
        server.setKeyEntry("server", privateKey(pem.resolve("server.key")), STORE_PASSWORD, own);
        store(server, folder.resolve("server.p12"));
        for (String door : List.of(CARS, "services")) {
            KeyStore trusted = emptyStore();
            int number = 0;
            for (Certificate authority : certificates(pem.resolve(door + "-ca.pem"))) {
                trusted.setCertificateEntry("ca" + number++, authority);
            }
            store(trusted, folder.resolve(door + ".p12"));
        }
    }

    private static KeyStore emptyStore() throws Exception {
        KeyStore made = KeyStore.getInstance("PKCS12");
        made.load(null, STORE_PASSWORD);
        return made;
    }

    private static void store(KeyStore keys, Path file) throws Exception {
        // The password is public: what keeps the key is that nobody else may ever open the file.
        Files.deleteIfExists(file);
        var own = PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rw-------"));
        var made = Files.newByteChannel(
                file, Set.of(StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE), own);
        try (OutputStream out = Channels.newOutputStream(made)) {
            keys.store(out, STORE_PASSWORD);
        }
    }

    private static Certificate[] certificates(Path file) throws Exception {
        try (var in = Files.newInputStream(file)) {
            return CertificateFactory.getInstance("X.509").generateCertificates(in)
                    .toArray(new Certificate[0]);
        }
    }

    private static PrivateKey privateKey(Path file) throws Exception {
        String text = Files.readString(file).replaceAll("-----[^-]+-----", "");
        var key = new PKCS8EncodedKeySpec(Base64.getMimeDecoder().decode(text));
        for (String kind : List.of("EC", "RSA")) {
            try {
                return KeyFactory.getInstance(kind).generatePrivate(key);
            } catch (InvalidKeySpecException error) {
                // Of the other kind.
            }
        }
        throw new IOException(file + ": no private key in PKCS#8 form (EC or RSA)");
    }
}
