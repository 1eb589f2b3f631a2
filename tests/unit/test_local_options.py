"""What a user may ask of the embedded stack, and how wrong wishes are answered."""

import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from twin.local import mqtt, plan, probe
from twin.local.errors import LocalError, MissingProgram, PortTaken
from twin.local.options import FREE_PORTS, External, Options
from twin.local.ports import PortPicker

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
        ("mqtt://broker", ("broker", 1883)),
        ("mqtt://127.0.0.1:2000", ("127.0.0.1", 2000)),
        ("mqtt://[::1]:2000", ("::1", 2000)),
    ],
)
def test_mqtt_address_is_read(url, address):
    """Host and port; 1883 when none is given."""
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
