"""How the processes are started: settings, help, exit codes."""

import subprocess

import pytest
from pydantic import ValidationError

from ingest.__main__ import main
from ingest.access import Access
from ingest.errors import AccessUnusable
from ingest.packets import User
from ingest.settings import DownlinkSettings, UplinkSettings, parse_brokers
from ingest.topology import Topology
from twin.kit.mqtt_address import Broker


def test_the_place_in_the_list_is_the_shard():
    """Brokers keep their order; the port may be left out."""
    brokers = parse_brokers("mqtt://a:1, mqtt://b,mqtt://[::1]:18831,mqtts://c,mqtts://d:1")
    assert brokers == (
        Broker("a", 1),
        Broker("b", 1883),
        Broker("::1", 18831),
        Broker("c", 8883, tls=True),
        Broker("d", 1, tls=True),
    )
    assert [str(broker) for broker in brokers[2:4]] == ["mqtt://[::1]:18831", "mqtts://c:8883"]


@pytest.mark.parametrize(
    "urls",
    [
        "",
        "localhost:1883",
        "http://a:1",
        "mqtt://",
        "mqtt://a:port",
        "mqtt://a:99999",
        "mqtt://user:secret@a:1",
        "mqtt://a:1/path",
        "mqtt://a:1?x=1",
        "mqtt://a:1,,mqtt://b:1",
        "mqtt://a:1,mqtt://a:1",
        "mqtt://a:1,mqtts://a:1",
        "mqtts://",
    ],
)
def test_what_is_no_list_of_brokers_is_refused(monkeypatch, urls):
    """Anything else is refused at the start."""
    monkeypatch.setenv("MQTT_URLS", urls)
    with pytest.raises(ValidationError):
        UplinkSettings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VALIDATION", "sometimes"),
        ("UPLINK_WINDOW", "0"),
        ("UPLINK_WINDOW", "many"),
        ("UPLINK_SHARDS", "1"),
        ("UPLINK_SHARDS", "0,0"),
        ("UPLINK_SHARDS", ""),
        ("UPLINK_SHARDS", "-1"),
        ("UPLINK_WORKERS", "0"),
        ("UPLINK_WORKER", "1"),
        ("UPLINK_QUEUE_PROBE", "-1"),
        ("MQTT_CA_FILE", "ca.pem"),
        ("MQTT_KEY_FILE", "client.key"),
        ("MQTT_PASSWORD_FILE", "password"),
    ],
)
def test_a_wrong_setting_ends_with_one_sentence(monkeypatch, capsys, name, value):
    """The process stops with exit code 2 and names the variable, its value and what it is for."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as end:
        main(["uplink"])
    assert end.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert f"{name}={value!r} is not accepted" in lines[0]


@pytest.mark.parametrize(
    ("process", "settings"), [("uplink", UplinkSettings), ("downlink", DownlinkSettings)]
)
def test_help_teaches_every_environment_variable(capsys, process, settings):
    """--help lists each variable of the process with its meaning and default."""
    with pytest.raises(SystemExit) as end:
        main([process, "--help"])
    assert end.value.code == 0
    told = capsys.readouterr().out
    for name, field in settings.model_fields.items():
        assert name.upper() in told
        assert field.description in told
        assert f"[{field.default}]" in told


def test_a_wrong_word_is_a_usage_error(capsys):
    """An unknown process ends with exit code 2 and the words that are accepted."""
    with pytest.raises(SystemExit) as end:
        main(["sidelink"])
    assert end.value.code == 2
    assert "uplink" in capsys.readouterr().err


def test_a_process_reads_its_shards_only(monkeypatch):
    """All brokers, or those whose numbers are told, under the numbers that they have in the list."""
    monkeypatch.setenv("MQTT_URLS", "mqtt://a,mqtt://b,mqtt://c")
    assert list(UplinkSettings().shards) == [0, 1, 2]
    monkeypatch.setenv("UPLINK_SHARDS", "2, 0")
    assert UplinkSettings().shards == {0: Broker("a", 1883), 2: Broker("c", 1883)}


def test_a_worker_knows_its_place(monkeypatch):
    """Numbers begin with 0; one that is not among the workers is refused with what is accepted."""
    monkeypatch.setenv("UPLINK_WORKERS", "3")
    monkeypatch.setenv("UPLINK_WORKER", "2")
    assert UplinkSettings().topology == Topology(2, 3)
    monkeypatch.setenv("UPLINK_WORKER", "3")
    with pytest.raises(ValidationError, match="0 to 2 is accepted"):
        UplinkSettings()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A certificate, its key, the same key with a passphrase, another key, passwords."""
    folder = tmp_path_factory.mktemp("access")

    def openssl(*told):
        subprocess.run(["openssl", *told], check=True, capture_output=True, cwd=folder)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    for name in ("mine", "other"):
        openssl("req", "-x509", *curve, "-nodes", "-subj", "/CN=x", "-days", "2",
                "-keyout", f"{name}.key", "-out", f"{name}.pem")  # fmt: skip
    openssl("ec", "-in", "mine.key", "-aes256", "-passout", "pass:word", "-out", "locked.key")
    (folder / "password").write_bytes(b"pass word\r\nsecond line\n")
    (folder / "empty").write_bytes(b"\n")
    (folder / "nonsense").write_bytes(b"nonsense")
    return folder


TLS = {"MQTT_URLS": "mqtts://a"}
CERTIFICATE = {**TLS, "MQTT_CERT_FILE": "mine.pem"}


@pytest.mark.parametrize(
    ("told", "wrong", "words"),
    [
        ({**TLS, "MQTT_CA_FILE": "absent"}, "MQTT_CA_FILE", "no such file or directory"),
        ({**TLS, "MQTT_CA_FILE": "nonsense"}, "MQTT_CA_FILE", "no certificate is in it"),
        (
            {"MQTT_CA_FILE": "mine.pem"},
            "MQTT_CA_FILE",
            "no broker in MQTT_URLS is spoken to in TLS",
        ),
        ({**CERTIFICATE, "MQTT_KEY_FILE": "absent"}, "MQTT_KEY_FILE", "no such file"),
        ({**CERTIFICATE, "MQTT_KEY_FILE": "other.key"}, "MQTT_KEY_FILE", "belongs to the PEM"),
        ({**CERTIFICATE, "MQTT_KEY_FILE": "locked.key"}, "MQTT_KEY_FILE", "without passphrase"),
        (CERTIFICATE, "MQTT_KEY_FILE", "the file of its key is needed"),
        ({**TLS, "MQTT_KEY_FILE": "mine.key"}, "MQTT_KEY_FILE", "certificate is missing"),
        (
            {"MQTT_USERNAME": "u", "MQTT_PASSWORD_FILE": "empty"},
            "MQTT_PASSWORD_FILE",
            "has no bytes",
        ),
        ({"MQTT_USERNAME": "u", "MQTT_PASSWORD_FILE": "absent"}, "MQTT_PASSWORD_FILE", "no such"),
        ({"MQTT_PASSWORD_FILE": "password"}, "MQTT_PASSWORD_FILE", "MQTT_USERNAME"),
    ],
)
def test_a_file_that_lets_nobody_in_ends_with_one_sentence(
    monkeypatch, capsys, files, told, wrong, words
):
    """The sentence names the setting, the file and what is wrong with it."""
    monkeypatch.chdir(files)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as end:
        UplinkSettings.load()
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"setting {wrong}={told.get(wrong, '')!r} is not accepted: " in said
    assert words in said


def test_the_files_that_let_us_in_are_used(monkeypatch, files):
    """A certificate with its key, an authority, a user whose password is the first line of a file."""
    monkeypatch.chdir(files)
    told = {**CERTIFICATE, "MQTT_KEY_FILE": "mine.key", "MQTT_CA_FILE": "other.pem"}
    for name, value in {**told, "MQTT_USERNAME": "u", "MQTT_PASSWORD_FILE": "password"}.items():
        monkeypatch.setenv(name, value)
    access = UplinkSettings().access
    assert access.user() == User("u", b"pass word")
    context = access.context()
    assert context.check_hostname
    assert context.cert_store_stats()["x509_ca"] == 1
    assert Access(username="u").user() == User("u")
    assert Access().user() is None


def test_a_file_that_goes_away_later_is_named(files):
    """What is read at a connect may have changed since the start."""
    with pytest.raises(AccessUnusable, match="MQTT_CERT_FILE '/gone': no such file"):
        Access(cert_file="/gone", key_file=str(files / "mine.key")).context()
