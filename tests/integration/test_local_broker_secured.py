"""Brokers with the configuration and certificates that `cartwin broker` makes: who gets in, who may
say what, and how a refusal is told and counted."""

import json
import os
import queue
import shutil
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as paho
import pytest

from tests.processes import Process, until
from tests.stacks import need_mosquitto
from twin.local import ca, jars, mqtt, probe, refusals
from twin.local.access import PROBE
from twin.local.broker_config import BrokerSettings, Need
from twin.local.data import Endpoints
from twin.local.ports import HOST, PortPicker
from twin.local.process import Child, spawn, stop_all

pytestmark = pytest.mark.integration

DEADLINE_S = 20
NOT_AUTHORIZED, NO_SUBSCRIBER = 0x87, 0x10
DENIED = "car-denied"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an authority that knows the broker, the services, and some cars."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed (apt-get install openssl): no certificates.")
    folder = tmp_path_factory.mktemp("authority") / "ca"
    ca.init(folder, [HOST])
    for vehicle_id in ("car-1", "car-2", DENIED):
        ca.issue(folder, vehicle_id)
    # No authority of ours makes such a name, but another might.
    ca._signed(ca._openssl(), folder, "cars", "+", folder / "cars" / "plus.pem", 1)
    return folder


@dataclass
class Secured:
    kind: str
    settings: BrokerSettings
    authority: Path
    child: Child

    @property
    def log(self) -> str:
        return self.child.log.read_text()


@pytest.fixture(
    scope="module", params=["mosquitto", pytest.param("hivemq", marks=pytest.mark.deep)]
)
def secured(
    request: pytest.FixtureRequest, authority: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Secured]:
    """A broker under TLS."""
    kind, picker, found = request.param, PortPicker(), []
    if kind == "mosquitto":
        need_mosquitto()
    else:
        file = jars.class_path_file(os.environ, jars.HIVEMQ)
        jars.resolve(file, jars.HIVEMQ)
        found = jars.read_class_path(file)
    folder = tmp_path_factory.mktemp(kind)
    settings = BrokerSettings(
        Need(rate=100, outage_s=100),
        folder,
        mode="tls",
        port=picker.free(),
        services_port=picker.free(),
        tls=authority / "broker",
        user="root" if os.geteuid() == 0 else None,
        trace=True,
        denied=(DENIED,),
    )
    command = mqtt.start_command(kind, settings, os.environ, found)
    child = spawn(kind, command, os.environ, folder / "log")
    broker = Secured(kind, settings, authority, child)
    try:
        with_certificate = Client(broker, "ready", "services/uplink", connect=False)
        probe.wait_ready(kind, with_certificate.attempt, 60, child=child, watched=[child])
        with_certificate.close()
        yield broker
    finally:
        stop_all([child], 30)


class Client:
    """A paho client under TLS; `certificate`: file of the authority's folder without its end."""

    def __init__(
        self, broker, name, certificate, *, car=False, version=paho.MQTTv5, will=None, connect=True
    ):
        self.inbox = queue.Queue()
        self.refused = 0
        self.ended = threading.Event()
        self._answers = queue.Queue()
        self._acknowledged = queue.Queue()
        settings = broker.settings
        self._address = (HOST, settings.port if car else settings.services_port)
        self._paho = paho.Client(
            paho.CallbackAPIVersion.VERSION2, name, protocol=version, reconnect_on_failure=False
        )
        context = ssl.create_default_context(cafile=broker.authority / "ca.pem")
        if certificate:
            stem = broker.authority / certificate
            context.load_cert_chain(f"{stem}.pem", f"{stem}.key")
        self._paho.tls_set_context(context)
        if will is not None:
            self._paho.will_set(will, b"will", qos=1)
        self._paho.on_connect = lambda _c, _u, _flags, reason, _p: self._answers.put(reason.value)
        self._paho.on_subscribe = lambda *_: self._answers.put("subscribed")
        self._paho.on_message = lambda _c, _u, message: self.inbox.put(message)
        self._paho.on_disconnect = lambda *_: self._end()
        self._paho.on_publish = self._on_publish
        if connect:
            self._paho.connect(*self._address)
            self._paho.loop_start()
            self.answer = self._answers.get(timeout=DEADLINE_S)

    def attempt(self):
        """None when a TCP connection with a TLS handshake is made, else why not."""
        try:
            self._paho.connect(*self._address)
        except OSError as error:
            return str(error)
        return None

    def _on_publish(self, _client, _data, _mid, reason, _properties):
        self.refused += reason.value == NOT_AUTHORIZED
        self._acknowledged.put(reason.value)

    def _end(self):
        self._answers.put("ended")
        self.ended.set()

    def subscribe(self, *patterns):
        self._paho.subscribe([(pattern, 1) for pattern in patterns])
        assert self._answers.get(timeout=DEADLINE_S) == "subscribed"

    def publish(self, topic, payload=b"{}"):
        """The reason code of the broker's PUBACK."""
        self._paho.publish(topic, payload, 1)
        return self._acknowledged.get(timeout=DEADLINE_S)

    def vanish(self):
        """End the connection without DISCONNECT."""
        self._paho.loop_stop()
        if (connection := self._paho.socket()) is not None:
            connection.close()

    def close(self):
        self._paho.disconnect()
        self._paho.loop_stop()


@contextmanager
def client(*args, **options) -> Iterator[Client]:
    made = Client(*args, **options)
    try:
        yield made
    finally:
        made.close()


def car(secured, name, **options):
    return client(secured, name, f"cars/{name}", car=True, **options)


def uplink(secured, name="cartwin-uplink-0"):
    return client(secured, name, "services/uplink")


def downlink(secured):
    return client(secured, "cartwin-downlink-0", "services/downlink")


def test_a_car_says_everything_of_its_own_and_the_uplink_hears_it(secured):
    """Telemetry, status, reported, outcomes and the demo's topic; shared subscriptions, too."""
    topics = [f"vehicles/car-1/{leaf}" for leaf in ("status", "reported", "outcomes", "telemetry")]
    topics.append("vehicles/sensor/data/car-1")
    with uplink(secured) as service, car(secured, "car-1") as vehicle:
        service.subscribe("vehicles/+/status", "vehicles/+/reported", "vehicles/+/outcomes")
        service.subscribe("$share/cartwin-uplink/vehicles/+/telemetry", "vehicles/sensor/data/+")
        for topic in topics:
            assert vehicle.publish(topic) == 0
            assert service.inbox.get(timeout=DEADLINE_S).topic == topic


def test_a_car_on_another_cars_topic_is_refused_and_counted(secured):
    """MQTT 5 says 0x87 to the car; the broker's log has it for both versions; nobody hears it."""
    before = refusals.count(secured.log.splitlines())
    with uplink(secured) as service:
        service.subscribe("vehicles/+/telemetry", "vehicles/+/status", "vehicles/sensor/data/+")
        for topic in (
            "vehicles/car-2/telemetry",
            "vehicles/car-2/status",
            "vehicles/sensor/data/car-2",
            "vehicles/car-1/commands",
            "anything",
        ):
            with car(secured, "car-1") as vehicle:
                assert vehicle.publish(topic) == NOT_AUTHORIZED
                assert vehicle.refused == 1
        with car(secured, "car-1") as vehicle:
            assert vehicle.publish("vehicles/car-1/telemetry", b"own") == 0
        assert service.inbox.get(timeout=DEADLINE_S).payload == b"own"
        assert service.inbox.empty()
    until(
        lambda: refusals.count(secured.log.splitlines())["car-1"] == before["car-1"] + 5,
        lambda: refusals.count(secured.log.splitlines()),
    )


def test_a_will_on_another_cars_topic_is_not_said(secured):
    """A car cannot declare another one offline by dying; HiveMQ does not even let it in."""
    with uplink(secured) as service:
        service.subscribe("vehicles/+/status")
        for vehicle_id in ("car-2", "car-1"):
            vehicle = Client(
                secured, "car-1", "cars/car-1", car=True, will=f"vehicles/{vehicle_id}/status"
            )
            vehicle.vanish()
        assert service.inbox.get(timeout=DEADLINE_S).topic == "vehicles/car-1/status"
        assert service.inbox.empty()


def test_a_car_hears_what_is_for_it_and_nothing_else(secured):
    """Whatever it subscribes to: commands of others and telemetry do not reach it."""
    with (
        car(secured, "car-1") as vehicle,
        car(secured, "car-2") as other,
        downlink(secured) as sender,
    ):
        vehicle.subscribe("vehicles/+/commands", "vehicles/#")
        vehicle.subscribe("vehicles/car-1/commands")
        other.publish("vehicles/car-2/telemetry")
        sender.publish("vehicles/car-2/commands", b"for the other")
        sender.publish("vehicles/car-1/commands", b"for it")
        heard = vehicle.inbox.get(timeout=DEADLINE_S)
        assert (heard.topic, heard.payload) == ("vehicles/car-1/commands", b"for it")


def test_without_the_right_certificate_there_is_no_connection(secured):
    """None, a car's at the door of services, a service's at the door of cars."""
    for certificate, at_the_cars in (
        (None, True),
        (None, False),
        ("cars/car-1", False),
        ("services/uplink", True),
    ):
        stranger = Client(secured, "x", certificate, car=at_the_cars, connect=False)
        # Under TLS 1.3 the client may hear of it only when it waits for an answer.
        if stranger.attempt() is None:
            stranger._paho.loop_start()
            assert stranger.ended.wait(DEADLINE_S)
            assert stranger._answers.get() == "ended"
        stranger.close()


def test_a_car_cannot_take_over_the_session_of_a_service(secured):
    """Its client id is its certificate's name, whatever it says."""
    with uplink(secured) as service:
        service.subscribe("vehicles/+/telemetry")
        thief = Client(secured, "cartwin-uplink-0", "cars/car-1", car=True)
        if thief.answer == 0:  # under its own name
            assert thief.publish("vehicles/car-1/telemetry") == 0
        else:
            assert thief.answer == NOT_AUTHORIZED
            with car(secured, "car-1") as vehicle:
                assert vehicle.publish("vehicles/car-1/telemetry") == 0
        thief.close()
        assert service.inbox.get(timeout=DEADLINE_S).topic == "vehicles/car-1/telemetry"
        assert not service.ended.is_set()


@pytest.mark.parametrize("name", [DENIED, "+"])
def test_a_denied_car_and_one_that_is_named_like_a_filter_may_do_nothing(secured, name):
    """HiveMQ does not let them in; Mosquitto takes nothing from them, and gives them nothing."""
    certificate = f"cars/{DENIED if name == DENIED else 'plus'}"
    with (
        client(secured, name, certificate, car=True) as vehicle,
        car(secured, "car-1") as other,
        downlink(secured) as sender,
    ):
        if secured.kind == "hivemq":
            assert vehicle.answer == NOT_AUTHORIZED
            return
        vehicle.subscribe(f"vehicles/{name}/commands", "vehicles/#")
        for vehicle_id in (name, "car-1") if name != "+" else ("car-1",):
            assert vehicle.publish(f"vehicles/{vehicle_id}/telemetry") == NOT_AUTHORIZED
        other.subscribe("vehicles/car-1/commands")
        for vehicle_id in (DENIED, "car-1"):
            sender.publish(f"vehicles/{vehicle_id}/commands", b"for one")
        assert other.inbox.get(timeout=DEADLINE_S).payload == b"for one"
        # What is behind it in the same connection says that nothing came before.
        assert vehicle.publish("anything") == NOT_AUTHORIZED
        assert vehicle.inbox.empty()


def test_the_brokers_key_is_nobody_elses(secured):
    """In the authority's folder, and in the stores that are made of it for HiveMQ."""
    keys = [secured.settings.tls / "server.key"]
    if secured.kind == "hivemq":
        stores = secured.settings.folder / "stores"
        assert stores.stat().st_mode & 0o777 == 0o700
        keys += stores.iterdir()
        assert len(keys) == 4
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}


def test_services_may_do_their_part_only(secured):
    """The uplink acknowledges and probes, the downlink commands and makes brokers forget a status; else
    neither speaks for a car."""
    with uplink(secured) as up, downlink(secured) as down, car(secured, "car-1") as vehicle:
        vehicle.subscribe("vehicles/car-1/ack", "vehicles/car-1/desired")
        up.subscribe(PROBE)
        assert up.publish("vehicles/car-1/ack") == 0
        assert down.publish("vehicles/car-1/desired") == 0
        assert up.publish("cartwin/probe/x") == 0
        assert [vehicle.inbox.get(timeout=DEADLINE_S).topic for _ in range(2)] == [
            "vehicles/car-1/ack",
            "vehicles/car-1/desired",
        ]
        assert up.inbox.get(timeout=DEADLINE_S).topic == "cartwin/probe/x"
        assert down.publish("vehicles/car-1/status", b"") in (0, NO_SUBSCRIBER)
        assert up.publish("vehicles/car-1/commands") == NOT_AUTHORIZED
        assert down.publish("vehicles/car-1/telemetry") == NOT_AUTHORIZED


def test_uplink_and_downlink_work_with_what_was_made_for_them(secured, kafka, tmp_path):
    """With their certificates they become ready: rights, queue and probe are as they want them."""
    url = f"mqtts://{HOST}:{secured.settings.services_port}"
    endpoints = Endpoints(api=None, mqtt=(url,), kafka=kafka, redis="", pid=0)
    services = secured.authority / "services"
    started = []
    try:
        for name in ("uplink", "downlink"):
            secrets = {
                "MQTT_CA_FILE": str(services / "ca.pem"),
                "MQTT_CERT_FILE": str(services / f"{name}.pem"),
                "MQTT_KEY_FILE": str(services / f"{name}.key"),
            }
            started.append(Process(name, endpoints, tmp_path, **secrets).start())
        for process in started:
            process.ready()
        with car(secured, "car-1") as vehicle:
            said = {"event_time": time.time_ns() // 1_000_000, "speed": 3}
            assert vehicle.publish("vehicles/car-1/telemetry", json.dumps(said).encode()) == 0
        until(
            lambda: started[0].metrics()["cartwin_uplink_produced_total"] >= 1,
            "the uplink took nothing",
        )
    finally:
        assert [process.stop() for process in started] == [0] * len(started)
