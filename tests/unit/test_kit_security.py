"""How Kafka's clients secure their connections, and that nobody waits for Kafka in silence."""

import importlib
import re
import ssl
from pathlib import Path
from types import SimpleNamespace

import faust
import pytest
from confluent_kafka import KafkaError, KafkaException
from structlog.testing import capture_logs

import verdict_read
from twin.app import declare
from twin.kit import kafka
from twin.kit.security import KafkaSecurity
from twin.kit.settings import Settings
from twin.local import plan
from twin.local.errors import LocalError
from twin.local.options import FREE_PORTS, Options
from twin.settings import WorkerSettings
from verdict_sides import Evidence

SASL = {
    "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "KAFKA_SASL_USERNAME": "ann",
    "KAFKA_SASL_PASSWORD": "s3cret",
}


def given(monkeypatch, **values):
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def refused(monkeypatch, capsys, **values):
    """What is said of settings that are not accepted."""
    given(monkeypatch, **values)
    with pytest.raises(SystemExit) as caught:
        Settings.load()
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_without_a_word_a_connection_is_plain(monkeypatch):
    """As it is when every variable is there and empty."""
    plain = {"security.protocol": "plaintext"}
    assert Settings.load().kafka_client() == plain
    given(monkeypatch, **dict.fromkeys([*SASL, "KAFKA_SSL_CA", "KAFKA_SASL_PASSWORD_FILE"], ""))
    found = WorkerSettings.load()
    assert (found.kafka_client(), found.kafka_tls(), found.kafka_user) == (plain, None, None)
    assert declare(found, 4).app.conf.broker_credentials is None


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_librdkafka_and_faust_are_told_the_same_of_a_user(monkeypatch, protocol, mechanism):
    """With the system's authorities where TLS is asked for and none is named."""
    told = {"KAFKA_SECURITY_PROTOCOL": protocol, "KAFKA_SASL_MECHANISM": mechanism}
    given(monkeypatch, **{**SASL, **told})
    settings = WorkerSettings.load()
    assert settings.kafka_client() == {
        "security.protocol": protocol.lower(),
        "sasl.mechanism": mechanism,
        "sasl.username": "ann",
        "sasl.password": "s3cret",
    }
    member = declare(settings, 4).app.conf.broker_credentials
    assert (member.protocol.value, member.mechanism.value) == (protocol, mechanism)
    assert (member.username, member.password) == ("ann", "s3cret")
    assert (member.ssl_context is not None) == (protocol == "SASL_SSL")


def test_tls_alone_checks_whom_it_speaks_to(monkeypatch):
    """Certificate and host name."""
    authorities = ssl.get_default_verify_paths().cafile
    if authorities is None:
        pytest.skip("this system has no file of certificate authorities")
    given(monkeypatch, KAFKA_SECURITY_PROTOCOL="SSL", KAFKA_SSL_CA=authorities)
    settings = WorkerSettings.load()
    assert settings.kafka_client() == {"security.protocol": "ssl", "ssl.ca.location": authorities}
    member = declare(settings, 4).app.conf.broker_credentials
    assert isinstance(member, faust.SSLCredentials)
    assert member.context.check_hostname
    assert member.context.verify_mode == ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("content", "password"),
    [
        (b"s3 cret\n", "s3 cret"),
        (b"s3 cret", "s3 cret"),
        (b" s3\x0bcret \r\nanother\n", " s3\x0bcret "),
        (b"s3\rcret\n", "s3\rcret"),
    ],
)
def test_a_password_can_be_in_a_file(monkeypatch, tmp_path, content, password):
    """The first line of it, without its line break and with all else; and it is shown nowhere."""
    (tmp_path / "password").write_bytes(content)
    given(monkeypatch, **SASL)
    monkeypatch.delenv("KAFKA_SASL_PASSWORD")
    given(monkeypatch, KAFKA_SASL_PASSWORD_FILE=str(tmp_path / "password"))
    assert Settings.load().kafka_user == ("SCRAM-SHA-512", "ann", password)
    assert password not in repr(Settings.load())
    given(monkeypatch, KAFKA_SASL_PASSWORD_FILE="", KAFKA_SASL_PASSWORD="s3cret")
    assert "s3cret" not in repr(Settings.load())


def test_a_password_s_file_is_read_once(monkeypatch, tmp_path):
    """While it is replaced nobody who is at work sees that it is not there, or half of it."""
    path = tmp_path / "password"
    path.write_text("s3 cret\n")
    given(monkeypatch, **{**SASL, "KAFKA_SASL_PASSWORD": ""}, KAFKA_SASL_PASSWORD_FILE=str(path))
    settings = Settings.load()
    path.unlink()
    assert settings.kafka_client()["sasl.password"] == "s3 cret"
    assert KafkaSecurity().kafka_user == settings.kafka_user
    path.write_text("oth")
    assert settings.kafka_client()["sasl.password"] == "s3 cret"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"KAFKA_SECURITY_PROTOCOL": "TLS"},
            "KAFKA_SECURITY_PROTOCOL='TLS' is not accepted: input should be 'PLAINTEXT', 'SSL', ",
        ),
        (
            {"KAFKA_SSL_CA": "/ca"},
            "KAFKA_SSL_CA='/ca' is not accepted: with KAFKA_SECURITY_PROTOCOL PLAINTEXT there is no"
            " TLS; it goes with SSL or SASL_SSL",
        ),
        (
            {**SASL, "KAFKA_SSL_CA": "/ca"},
            "KAFKA_SSL_CA='/ca' is not accepted: with KAFKA_SECURITY_PROTOCOL SASL_PLAINTEXT there",
        ),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CA": "/no/ca"},
            "KAFKA_SSL_CA='/no/ca' is not accepted: no such file or directory; a PEM file",
        ),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CA": __file__},
            "no certificate is in it; a PEM file with certificates is accepted",
        ),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SASL_MECHANISM": "PLAIN"},
            "KAFKA_SASL_MECHANISM='PLAIN' is not accepted: with KAFKA_SECURITY_PROTOCOL SSL there is"
            " no SASL; it goes with SASL_SSL or SASL_PLAINTEXT",
        ),
        (
            {"KAFKA_SASL_USERNAME": "ann"},
            "KAFKA_SASL_USERNAME='ann' is not accepted: with KAFKA_SEC",
        ),
        (
            {"KAFKA_SASL_PASSWORD": "s3cret"},
            "KAFKA_SASL_PASSWORD=*** is not accepted: with KAFKA_S",
        ),
        (
            {"KAFKA_SASL_PASSWORD_FILE": "/password"},
            "KAFKA_SASL_PASSWORD_FILE='/password' is not accepted: with KAFKA_SECURITY_PROTOCOL",
        ),
        (
            {**SASL, "KAFKA_SASL_MECHANISM": "GSSAPI"},
            "KAFKA_SASL_MECHANISM='GSSAPI' is not accepted: input should be 'PLAIN', 'SCRAM-SHA-256'",
        ),
        (
            {**SASL, "KAFKA_SASL_MECHANISM": ""},
            "is not accepted: with KAFKA_SECURITY_PROTOCOL SASL_PLAINTEXT, one of PLAIN, "
            "SCRAM-SHA-256, SCRAM-SHA-512 is needed",
        ),
        (
            {**SASL, "KAFKA_SASL_USERNAME": ""},
            "KAFKA_SASL_USERNAME='' is not accepted: with KAFKA_SECURITY_PROTOCOL SASL_PLAINTEXT, a",
        ),
        (
            {**SASL, "KAFKA_SASL_PASSWORD": ""},
            "KAFKA_SASL_PASSWORD_FILE='' is not accepted: with KAFKA_SECURITY_PROTOCOL SASL_PLAINTEXT,"
            " this or KAFKA_SASL_PASSWORD is needed",
        ),
        (
            {**SASL, "KAFKA_SASL_PASSWORD_FILE": "/password"},
            "is not accepted: beside it there is KAFKA_SASL_PASSWORD; one of the two is accepted",
        ),
        (
            {**SASL, "KAFKA_SASL_PASSWORD": "", "KAFKA_SASL_PASSWORD_FILE": "/password"},
            "KAFKA_SASL_PASSWORD_FILE='/password' is not accepted: no such file or directory; a text",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_named(monkeypatch, capsys, values, said):
    """One line for each: which, what it is, what is accepted; a password is not repeated."""
    line = refused(monkeypatch, capsys, **values)
    assert said in line
    assert "s3cret" not in line


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "its first line is empty"),
        (b"\nsecret\n", "its first line is empty"),
        (b"\xff\xfe", "it is no text"),
        (b"secret" * 1000, "its first line has more than 4096 characters"),
        (None, "is a directory"),
    ],
)
def test_a_file_without_a_password_is_refused(monkeypatch, capsys, tmp_path, content, why):
    """Empty, no text, no password, no file; in one sentence with the setting and the file."""
    path = tmp_path / "password"
    path.mkdir() if content is None else path.write_bytes(content)
    changed = {"KAFKA_SASL_PASSWORD": "", "KAFKA_SASL_PASSWORD_FILE": str(path)}
    said = refused(monkeypatch, capsys, **{**SASL, **changed})
    assert said.startswith(f"setting KAFKA_SASL_PASSWORD_FILE='{path}' is not accepted: {why}; ")
    assert "a text file whose first line is the password is accepted" in said
    assert "secret" not in said
    assert said.count("\n") == 1


def test_every_client_is_made_with_the_process_s_security(monkeypatch):
    """Producer, consumer and the one that makes topics."""
    given(monkeypatch, **SASL)
    found, made = KafkaSecurity(), []
    monkeypatch.setattr(kafka, "security", lambda: found)

    class Client:
        def __init__(self, settings):
            made.append(settings)

    for name in ("_Producer", "_Consumer", "AdminClient"):
        monkeypatch.setattr(kafka, name, Client)
    kafka.producer("kafka:1", "a")
    kafka.consumer("kafka:1", "b", "c")
    kafka.admin("kafka:1")
    assert len(made) == 3
    for settings in made:
        assert settings.items() >= {"bootstrap.servers": "kafka:1", **found.kafka_client()}.items()


@pytest.mark.parametrize("module", ["bench_pace", "bench_fresh", "bench_broker"])
def test_benches_are_let_in_alike(monkeypatch, module):
    """What makes clients of its own takes the same settings."""
    given(monkeypatch, **SASL)
    found, made = KafkaSecurity(), []
    monkeypatch.setattr(kafka, "security", lambda: found)

    class Client:
        def __init__(self, settings):
            made.append(settings)
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    there = importlib.import_module(module)
    for name in ("Producer", "Consumer", "AdminClient"):
        if hasattr(there, name):
            monkeypatch.setattr(there, name, Client)
    makers = {
        "bench_pace": lambda: there.Pacer("kafka:1", [], 1),
        "bench_fresh": lambda: there.FreshWrites("kafka:1", frozenset(), {}),
        "bench_broker": lambda: there.Broker("kafka:1"),
    }
    with pytest.raises(KafkaException):
        makers[module]()
    (settings,) = made
    assert settings.items() >= {"bootstrap.servers": "kafka:1", **found.kafka_client()}.items()


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize(
    "values",
    [
        dict.fromkeys([*SASL, "KAFKA_SSL_CA"], ""),
        SASL,
        {**SASL, "KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SSL_CA": "ca"},
        {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CA": "ca"},
        {},
    ],
)
def test_the_checker_is_let_in_alike(monkeypatch, tmp_path, values, in_file):
    """It reads the variables by itself, to the same end."""
    if "ca" in values.values():
        authorities = ssl.get_default_verify_paths().cafile
        if authorities is None:
            pytest.skip("this system has no file of certificate authorities")
        values = {**values, "KAFKA_SSL_CA": authorities}
    if in_file and values.get("KAFKA_SASL_PASSWORD"):
        path = tmp_path / "password"
        path.write_text("s3cret \r\nold\n")
        values = {**values, "KAFKA_SASL_PASSWORD": "", "KAFKA_SASL_PASSWORD_FILE": str(path)}
    given(monkeypatch, **values)
    expected = {"bootstrap.servers": "kafka:1", **KafkaSecurity().kafka_client()}
    assert verdict_read.connection("kafka:1") == expected


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"KAFKA_SASL_PASSWORD_FILE": "/none"}, "KAFKA_SASL_PASSWORD_FILE '/none' cannot be read"),
        ({"KAFKA_SECURITY_PROTOCOL": "TLS"}, "the KAFKA_* settings are not accepted"),
    ],
)
def test_the_checker_says_what_does_not_let_it_in(monkeypatch, values, said):
    """In one sentence."""
    given(monkeypatch, **values)
    with pytest.raises(verdict_read.Unreadable, match=re.escape(said)):
        verdict_read.KafkaLog("kafka:1", None, Evidence(set()))


def test_nobody_else_says_where_the_brokers_are():
    """Only `connection` builds what a client is let in by, and the checker, which shares no code with it.

    A client made by hand would be left out.
    """
    root = Path(__file__).parents[2]
    folders = ("twin", "ingest", "models", "load-test", "scripts")
    sources = [p for folder in folders for p in (root / folder).rglob("*.py")]
    # Peers run in an environment of their own, on a Kafka that their bench starts.
    sources = [p for p in sources if "peers" not in p.parts]
    named = [path for path in sources if '"bootstrap.servers"' in path.read_text("utf-8")]
    found = {path.relative_to(root).as_posix() for path in named}
    assert found == {"twin/kit/kafka.py", "load-test/verdict_read.py"}


def test_a_stack_that_starts_its_own_kafka_takes_no_security(monkeypatch, tmp_path):
    """It would speak past it; which variable to unset is said before anything starts."""
    given(monkeypatch, **SASL)
    found = KafkaSecurity()
    monkeypatch.setattr(plan, "security", lambda: found)
    with pytest.raises(LocalError, match="KAFKA_SECURITY_PROTOCOL is SASL_PLAINTEXT"):
        plan.make(Options(data_dir=tmp_path, ports=FREE_PORTS))


class Away:
    """A client whose broker does not answer; a call takes as long as it may."""

    address = "kafka:9092"

    def __init__(self):
        self.now = 0.0
        self.polls = 0

    def list_topics(self, timeout):
        self.now += timeout
        raise KafkaException(KafkaError(KafkaError._TRANSPORT, "broker transport failure"))

    def poll(self, _timeout):
        self.polls += 1

    def sleep(self, seconds):
        self.now += seconds


@pytest.mark.parametrize("timeout_s", [60, 10])
def test_who_waits_for_kafka_is_told_for_what_and_until_when(monkeypatch, timeout_s):
    """After two seconds and once; the wait lasts as long as before."""
    client = Away()
    time = SimpleNamespace(monotonic=lambda: client.now, sleep=client.sleep)
    monkeypatch.setattr(kafka, "time", time)
    with capture_logs() as lines, pytest.raises(kafka.KafkaUnavailable, match="at kafka:9092"):
        kafka.wait_for_topics(client, ["a"], timeout_s)
    (line,) = lines
    assert (line["event"], line["log_level"]) == ("waiting for Kafka", "warning")
    assert "no broker answers at kafka:9092" in line["why"]
    assert line["until"].endswith("+00:00")
    assert timeout_s < client.now <= timeout_s + 5.2
    assert client.polls > 1


def test_who_waits_shortly_gets_the_error_alone(monkeypatch):
    """It tries again by itself, and says so."""
    client = Away()
    time = SimpleNamespace(monotonic=lambda: client.now, sleep=client.sleep)
    monkeypatch.setattr(kafka, "time", time)
    with capture_logs() as lines, pytest.raises(kafka.KafkaUnavailable, match="after 2 s"):
        kafka.wait_for_topics(client, ["a"], 2)
    assert lines == []
