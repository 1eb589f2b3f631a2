"""What a user may ask of the embedded stack, and how wrong wishes are answered."""

import shlex
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from twin.local import mqtt, plan, probe
from twin.local.errors import LocalError, MissingProgram, NotConfigurable, PortTaken
from twin.local.foreground import by_hand
from twin.local.options import FREE_PORTS, External, Options
from twin.local.ports import PortPicker
from twin.local.stack import Stack

OUTSIDE = External(kafka="k:9092", redis="redis://r:6379/0", mqtt=("mqtt://m:1883",))


def test_environment_names_outside_services():
    """The three variables are read, a comma list of brokers is split, blanks are dropped."""
    assert External.from_environ(
        {
            "KAFKA_BOOTSTRAP": " a:9092,b:9092 ",
            "REDIS_URL": "redis://r:1/0",
            "MQTT_URLS": "mqtt://m:1, mqtt://n:2,",
        }
    ) == External("a:9092,b:9092", "redis://r:1/0", ("mqtt://m:1", "mqtt://n:2"))


@pytest.mark.parametrize(
    "environ", [{}, {"KAFKA_BOOTSTRAP": "", "REDIS_URL": " ", "MQTT_URLS": ","}]
)
def test_empty_variables_mean_nothing_is_outside(environ):
    """An empty value is the same as none."""
    assert External.from_environ(environ) == External()


def test_plan_without_outside_services_gives_every_part_a_port_of_its_own():
    """Free ports differ, and every address names its port."""
    where = plan.make(Options(ports=FREE_PORTS))
    ports = [
        where.kafka_port,
        where.kafka_controller_port,
        where.redis_port,
        where.mqtt_port,
        where.api_port,
        *where.health_ports.values(),
    ]
    assert len(set(ports)) == len(ports) == 9
    assert where.kafka == f"127.0.0.1:{where.kafka_port}"
    assert where.redis == f"redis://127.0.0.1:{where.redis_port}/0"
    assert where.mqtt == (f"mqtt://127.0.0.1:{where.mqtt_port}",)
    assert where.api == where.health["api"] == f"http://127.0.0.1:{where.api_port}"


def test_plan_with_outside_services_starts_none_of_them():
    """Addresses are taken as they are and no port is claimed."""
    where = plan.make(Options(ports=FREE_PORTS, external=OUTSIDE, processes=()))
    assert (where.kafka, where.redis, where.mqtt) == (
        OUTSIDE.kafka,
        OUTSIDE.redis,
        OUTSIDE.mqtt,
    )
    assert (where.kafka_port, where.redis_port, where.mqtt_port, where.api) == (None,) * 4


def test_processes_are_told_where_everything_is():
    """Addresses, model store and a port of its own; the API's port only to the API."""
    options = Options(
        ports=FREE_PORTS, external=replace(OUTSIDE, mqtt=("mqtt://m:1", "mqtt://n:2"))
    )
    where = plan.make(options)
    told = where.environment("worker", Path("/data"))
    assert told["KAFKA_BOOTSTRAP"] == "k:9092"
    assert told["REDIS_URL"] == "redis://r:6379/0"
    assert told["MQTT_URLS"] == "mqtt://m:1,mqtt://n:2"
    assert told["MODEL_STORE"] == "/data/models"
    assert told["HEALTH_PORT"] == str(where.health_ports["worker"])
    assert "API_PORT" not in told
    api = where.environment("api", Path("/data"))
    assert (api["API_HOST"], api["API_PORT"]) == ("127.0.0.1", str(where.api_port))


def test_a_port_is_handed_out_once():
    """Two parts that want the same port cannot both have it."""
    picker = PortPicker()
    port = picker.free()
    with pytest.raises(PortTaken, match=f"Port {port} .* so Redis cannot start there: do this"):
        picker.claim(port, "Redis", "do this")


def test_a_listening_server_takes_its_port():
    """A port somebody listens on is refused, also when he listens on every address."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortTaken):
            PortPicker().claim(port, "Kafka", "move")
    assert PortPicker().claim(port, "Kafka", "move") == port


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mqtt://broker", ("broker", 1883, False)),
        ("mqtt://127.0.0.1:2000", ("127.0.0.1", 2000, False)),
        ("mqtt://[::1]:2000", ("::1", 2000, False)),
        ("mqtts://broker", ("broker", 8883, True)),
    ],
)
def test_mqtt_address_is_read(url, address):
    """Host, port, TLS; 1883 or 8883 when no port is given."""
    assert probe.mqtt_address(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "broker:1883",
        "http://b:1883",
        "mqtt://",
        "mqtt://b:0",
        "mqtt://b:99999",
        "mqtt://b:x",
        "mqtt://u:p@b:1883",
        "mqtt://b:1883/path",
        "mqtt://b?x=1",
        "mqtt://[::1",
    ],
)
def test_what_is_no_mqtt_address_is_refused_with_an_example(url):
    """The error shows the input and the form that is accepted."""
    with pytest.raises(LocalError, match="is no MQTT address: mqtt://host:port") as caught:
        probe.mqtt_address(url)
    assert repr(url) in str(caught.value)


def test_passwords_are_not_shown():
    """An address in a message hides its password and nothing else."""
    shown = probe.url_without_password("redis://user:secret@host:6379/0")
    assert shown == "redis://user:***@host:6379/0"
    assert probe.url_without_password("redis://host:6379/0") == "redis://host:6379/0"


@pytest.mark.parametrize(
    ("wanted", "installed", "chosen"),
    [
        ("auto", True, "mosquitto"),
        ("auto", False, "amqtt"),
        ("amqtt", True, "amqtt"),
        ("mosquitto", True, "mosquitto"),
        ("hivemq", True, "hivemq"),
    ],
)
def test_broker_is_chosen(monkeypatch, wanted, installed, chosen):
    """auto takes Mosquitto where it is installed."""
    found = "/usr/sbin/mosquitto" if installed else None
    monkeypatch.setattr(mqtt, "mosquitto_binary", lambda environ: found)
    assert mqtt.choose(wanted, {}) == chosen


def test_missing_mosquitto_is_an_error_only_when_asked_for(monkeypatch):
    """The error names the ways out."""
    monkeypatch.setattr(mqtt, "mosquitto_binary", lambda environ: None)
    with pytest.raises(MissingProgram, match="--mqtt amqtt, or set MQTT_URLS"):
        mqtt.choose("mosquitto", {})


def test_under_tls_services_have_a_door_and_certificates_of_their_own(monkeypatch):
    """Cars are told one address, uplink and downlink the other, with their files; others neither."""
    monkeypatch.setenv("MQTT_USERNAME", "somebody")
    where = plan.make(Options(ports=FREE_PORTS, tls=True))
    assert where.mqtt == (f"mqtts://127.0.0.1:{where.mqtt_port}",)
    assert where.mqtt_services_port != where.mqtt_port
    told = where.environment("downlink", Path("/data"))
    assert told["MQTT_URLS"] == f"mqtts://127.0.0.1:{where.mqtt_services_port}"
    assert told["MQTT_CA_FILE"] == "/data/ca/services/ca.pem"
    assert told["MQTT_CERT_FILE"] == "/data/ca/services/downlink.pem"
    assert told["MQTT_KEY_FILE"] == "/data/ca/services/downlink.key"
    assert told["MQTT_USERNAME"] == ""
    assert where.environment("worker", Path("/data"))["MQTT_KEY_FILE"] == ""


def test_a_broker_of_our_own_is_met_without_the_environment_s_files(tmp_path):
    """They are for brokers of others, whose stack is told none."""
    plain = plan.make(Options(ports=FREE_PORTS)).environment("uplink", tmp_path)
    assert {name: value for name, value in plain.items() if name.startswith("MQTT_")} == {
        "MQTT_URLS": plain["MQTT_URLS"],
        **dict.fromkeys(
            (
                "MQTT_CA_FILE",
                "MQTT_CERT_FILE",
                "MQTT_KEY_FILE",
                "MQTT_USERNAME",
                "MQTT_PASSWORD_FILE",
            ),
            "",
        ),
    }
    outside = plan.make(Options(ports=FREE_PORTS, external=OUTSIDE)).environment("uplink", tmp_path)
    assert [name for name in outside if name.startswith("MQTT_")] == ["MQTT_URLS"]


def test_tls_is_for_the_broker_that_we_start():
    """One of others is named with its files."""
    with pytest.raises(LocalError, match="MQTT_URLS names another: unset it, or"):
        plan.make(Options(ports=FREE_PORTS, external=OUTSIDE, tls=True))


def test_files_for_a_broker_of_others_are_checked_before_it_is_asked(tmp_path):
    """mqtts:// with a CA that is none; mqtt:// needs nothing."""
    assert probe.mqtt_secured("mqtt://b", {"MQTT_CA_FILE": "/absent"}) is None
    with pytest.raises(LocalError, match=r"MQTT_CA_FILE, .*: /absent: No such file"):
        probe.mqtt_secured("mqtts://b", {"MQTT_CA_FILE": "/absent"})


def test_amqtt_has_no_tls(tmp_path):
    """One sentence, and no authority is made."""
    others = External(kafka="127.0.0.1:1", redis="redis://127.0.0.1:1/0")
    asked = Options(
        data_dir=tmp_path / "d",
        ports=FREE_PORTS,
        external=others,
        mqtt="amqtt",
        tls=True,
        processes=(),
    )
    with pytest.raises(NotConfigurable, match="amqtt has no mode tls"):
        Stack(asked).start()
    assert not (tmp_path / "d" / plan.AUTHORITY).exists()


def test_how_a_car_connects_by_hand_is_a_command_line():
    """Its words are what mosquitto_pub takes, whatever is in the folder's name."""
    said = by_hand("mqtts://127.0.0.1:8883", Path("/my data/ca"))
    words = shlex.split(said.partition("a car by hand: ")[2].splitlines()[0])
    assert words[0] == "mosquitto_pub"
    assert dict(zip(words[1::2], words[2::2], strict=True)) == {
        "--cafile": "/my data/ca/ca.pem",
        "--cert": "/my data/ca/cars/car-000001.pem",
        "--key": "/my data/ca/cars/car-000001.key",
        "-h": "127.0.0.1", "-p": "8883", "-i": "car-000001", "-q": "1",
        "-t": "vehicles/car-000001/telemetry", "-m": '{"speed": 30}',
    }  # fmt: skip


def test_unknown_broker_is_refused():
    """The error lists what is accepted."""
    with pytest.raises(LocalError, match="'emqx' is unknown: auto, amqtt, mosquitto or hivemq"):
        mqtt.choose("emqx", {})


def test_two_processes_do_not_pick_the_same_port():
    """A picked port stays picked until its server has had time to bind it."""
    script = "from twin.local.ports import _picked_first\nprint(_picked_first({port}))"
    port = PortPicker().free()
    done = subprocess.run(
        [sys.executable, "-c", script.format(port=port)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
