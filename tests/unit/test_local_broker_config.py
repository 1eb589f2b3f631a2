"""What brokers are told: queues that hold an outage, doors that go by certificates, who may what."""

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin.local import access, mqtt
from twin.local.amqtt_broker import Limits
from twin.local.broker_config import BrokerSettings, Need, files, hivemq, mosquitto
from twin.local.errors import NotConfigurable
from twin.wire import topics
from twin.wire.errors import Misaddressed
from twin.wire.ids import check_vehicle_id

PLAIN = BrokerSettings(Need(rate=5_000, outage_s=600, message_bytes=500), Path("/etc/broker"))
SECURE = replace(PLAIN, mode="tls", host="0.0.0.0", port=8883, tls=Path("/etc/broker/tls"))


def lines_of(settings):
    """mosquitto.conf as (name, value) pairs in order, without comments."""
    text = mosquitto(settings).splitlines()
    return [tuple(line.split(" ", 1)) for line in text if line and not line.startswith("#")]


def test_a_queue_holds_rate_times_outage_on_every_broker():
    """The limit in messages, and where a broker counts bytes, in bytes of so many messages."""
    conf = dict(lines_of(PLAIN))
    assert int(conf["max_queued_messages"]) == 3_000_000
    assert int(conf["max_queued_bytes"]) == 1_500_000_000
    queued = ET.fromstring(hivemq(PLAIN)).find("mqtt/queued-messages")
    assert queued.findtext("max-queue-size") == "3000000"
    options = json.loads(files("amqtt", PLAIN)["amqtt.json"])
    assert options["outbox_bytes"] >= 3_000_000 * 500


def test_a_small_fleets_queue_still_holds_the_uplinks_probe():
    """2,000 messages are what the uplink tries by default."""
    small = replace(PLAIN, need=Need(rate=1, outage_s=10))
    assert int(dict(lines_of(small))["max_queued_messages"]) >= 2 * 2_000


@given(
    rate=st.floats(min_value=0.1, max_value=1e6),
    outage_s=st.floats(min_value=1, max_value=86_400),
    size=st.integers(min_value=1, max_value=131_072),
)
def test_no_message_of_an_outage_is_beyond_the_limit(rate, outage_s, size):
    """Whatever the figures: never less than what comes in meanwhile."""
    need = Need(rate, outage_s, size)
    assert need.messages >= rate * outage_s
    assert need.payload_bytes == need.messages * size


def test_loopback_lets_in_everybody_of_this_machine_only():
    """Anonymous, on 127.0.0.1; any other address is refused."""
    conf = lines_of(PLAIN)
    assert ("listener", "1883 127.0.0.1") in conf
    assert ("allow_anonymous", "true") in conf
    assert not {"acl_file", "cafile"} & {name for name, _ in conf}
    assert list(files("mosquitto", PLAIN)) == ["mosquitto.conf"]
    with pytest.raises(NotConfigurable, match=r"listens on 127.0.0.1 only, not on 0.0.0.0"):
        replace(PLAIN, host="0.0.0.0")


def test_tls_has_a_door_for_cars_and_one_for_services():
    """Each with its authority; a car's client id is the name of its certificate."""
    conf = lines_of(SECURE)
    doors = [number for number, (name, _) in enumerate(conf) if name == "listener"]
    cars, services = conf[doors[0] : doors[1]], conf[doors[1] :]
    assert cars[0] == ("listener", "8883 0.0.0.0")
    assert services[0] == ("listener", "8884 0.0.0.0")
    for door in (cars, services):
        assert ("require_certificate", "true") in door
        assert ("use_identity_as_username", "true") in door
    assert ("cafile", "/etc/broker/tls/cars-ca.pem") in cars
    assert ("cafile", "/etc/broker/tls/services-ca.pem") in services
    assert ("use_username_as_clientid", "true") in cars
    assert ("use_username_as_clientid", "true") not in services
    assert ("allow_anonymous", "false") in conf[: doors[0]]
    assert ("acl_file", "/etc/broker/acl") in conf[: doors[0]]
    assert list(files("mosquitto", SECURE)) == ["mosquitto.conf", "acl"]


def test_hivemq_has_the_same_doors():
    """Named as its extension expects them; no certificate, no connection."""
    found = ET.fromstring(hivemq(SECURE)).findall("listeners/tls-tcp-listener")
    assert [(door.findtext("name"), door.findtext("port")) for door in found] == [
        ("cars", "8883"),
        ("services", "8884"),
    ]
    assert {door.findtext("tls/client-authentication-mode") for door in found} == {"REQUIRED"}
    assert not ET.fromstring(hivemq(SECURE)).findall("listeners/tcp-listener")


def test_a_path_with_signs_of_xml_is_still_xml():
    """What a folder is called does not break the file."""
    odd = replace(SECURE, folder=Path("/a&b/<c>"))
    found = ET.fromstring(hivemq(odd)).findtext("listeners/tls-tcp-listener/tls/keystore/path")
    assert found == "/a&b/<c>/stores/server.p12"


def test_passwords_are_for_mosquitto():
    """Two doors, a password file, the same rules; HiveMQ CE and amqtt know nothing of it."""
    named = replace(PLAIN, mode="password", host="0.0.0.0")
    conf = lines_of(named)
    assert ("password_file", "/etc/broker/users") in conf
    assert ("allow_anonymous", "false") in conf
    # A car cannot take the session of a service; services, who have several, come in from here only.
    doors = [number for number, (name, _) in enumerate(conf) if name == "listener"]
    cars, services = conf[doors[0] : doors[1]], conf[doors[1] :]
    assert cars == [("listener", "1883 0.0.0.0"), ("use_username_as_clientid", "true")]
    assert services[0] == ("listener", "8884 127.0.0.1")
    assert ("use_username_as_clientid", "true") not in services
    assert "acl" in files("mosquitto", named)
    for kind in ("hivemq", "amqtt"):
        with pytest.raises(NotConfigurable, match="mosquitto"):
            files(kind, named)


def test_amqtt_has_no_tls():
    """It is for one machine, and says what to use instead."""
    with pytest.raises(NotConfigurable, match="use mosquitto or hivemq"):
        files("amqtt", SECURE)


@pytest.mark.parametrize("change", [{"mode": "tls"}, {"tls": Path("x")}])
def test_mode_and_certificates_belong_together(change):
    """One without the other is refused."""
    with pytest.raises(NotConfigurable, match="folder of certificates belongs to mode tls"):
        replace(PLAIN, **change)


def test_an_outage_longer_than_a_session_is_refused():
    """The queue would be gone with the session."""
    with pytest.raises(NotConfigurable, match=r"outage of 100000 s is longer than sessions live"):
        replace(PLAIN, need=Need(rate=1, outage_s=100_000))


def test_a_car_may_what_design_says_and_nothing_else():
    """Writes four topics of its own and the demo's, reads three, and the model for all."""
    written = [rule.filter for rule in access.CAR if rule.verb == "write"]
    read = [rule.filter for rule in access.CAR if rule.verb == "read"]
    assert len(written) + len(read) == len(access.CAR)
    assert sorted(written) == [
        "vehicles/%u/outcomes",
        "vehicles/%u/reported",
        "vehicles/%u/status",
        "vehicles/%u/telemetry",
        "vehicles/sensor/data/%u",
    ]
    assert sorted(read) == [
        "models/engine",
        "vehicles/%u/ack",
        "vehicles/%u/commands",
        "vehicles/%u/desired",
    ]


def test_what_cars_write_the_uplink_reads():
    """No filter that it subscribes to is missing, and it writes nothing that speaks for a car."""
    rules = access.SERVICES[access.UPLINK]
    assert {rule.filter for rule in rules if rule.verb == "read"} == {*topics.UP_FILTERS, "$SYS/#"}
    assert [rule.filter for rule in rules if "write" in rule.verb] == [
        "vehicles/+/ack",
        "cartwin/probe/#",
    ]


@pytest.mark.parametrize("name", list(access.SERVICES))
def test_no_car_can_be_named_like_a_service(name):
    """Else its rules would be the car's."""
    with pytest.raises(Misaddressed):
        check_vehicle_id(name)


def test_the_acl_file_has_every_rule_once():
    """Patterns for cars, then a paragraph for each service."""
    text = access.acl_file()
    patterns = [line for line in text.splitlines() if line.startswith("pattern ")]
    assert patterns == [f"pattern {rule.verb} {rule.filter}" for rule in access.CAR]
    for name, rules in access.SERVICES.items():
        _, _, paragraph = text.partition(f"user {name}\n")
        assert paragraph.split("\n\n")[0].splitlines() == [
            f"topic {rule.verb} {rule.filter}" for rule in rules
        ]


def test_what_the_downlink_writes_is_for_cars_or_makes_a_broker_forget():
    """Commands, desired states, the status of a deleted twin, the model; it reads nothing."""
    assert access.SERVICES[access.DOWNLINK] == (
        access.Rule("write", "vehicles/+/desired"),
        access.Rule("write", "vehicles/+/commands"),
        access.Rule("write", "vehicles/+/status"),
        access.Rule("write", "models/engine"),
    )


def test_a_denied_vehicle_has_a_paragraph_of_its_own():
    """Everything is denied to it by name, behind the rules of all."""
    settings = replace(SECURE, denied=("car-7", "car-8"))
    for kind in ("mosquitto", "hivemq"):
        text = files(kind, settings)["acl"]
        assert text == access.acl_file() + (
            "\nuser car-7\ntopic deny #\n\nuser car-8\ntopic deny #\n"
        )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"denied": ("car 7\nuser x",)}, "vehicle id 'car 7"),
        ({"denied": ("uplink@cartwin",)}, "vehicle id 'uplink@cartwin'"),
    ],
)
def test_only_vehicles_can_be_denied(change, said):
    """Whatever else is no id and would be another line of the file."""
    with pytest.raises(NotConfigurable, match=said):
        replace(SECURE, **change)


def test_loopback_cannot_deny_anybody():
    """It knows nobody by name."""
    with pytest.raises(NotConfigurable, match="use mode password or tls"):
        replace(PLAIN, denied=("car-7",))


@pytest.mark.parametrize("kind", ["mosquitto", "amqtt", "hivemq"])
def test_the_local_stacks_brokers_are_made_by_the_same_generator(tmp_path, kind):
    """Loopback, room for minutes of a fleet, a packet limit above that of messages."""
    settings = mqtt.local_settings(kind, tmp_path, 1234)
    assert (settings.mode, settings.host, settings.port) == ("loopback", "127.0.0.1", 1234)
    assert settings.need.messages >= 100_000
    assert settings.max_packet_bytes > 128 * 1024
    command = mqtt.prepare(kind, tmp_path / "made", 1234, {"PATH": ""})
    made = files(kind, mqtt.local_settings(kind, tmp_path / "made", 1234))
    assert {name: (tmp_path / "made" / name).read_text() for name in made} == made
    assert any(str(tmp_path / "made") in argument for argument in command)


def test_amqtt_understands_its_options():
    """Every option is one of its limits, or the address."""
    options = json.loads(files("amqtt", PLAIN)["amqtt.json"])
    assert (options.pop("host"), options.pop("port")) == ("127.0.0.1", 1883)
    assert Limits(**options).window == PLAIN.window
