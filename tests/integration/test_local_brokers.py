"""Each MQTT broker of the embedded stack keeps what uplink, downlink and cars rely on."""

import queue
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from twin.local import mqtt_frame

pytestmark = pytest.mark.integration

DEADLINE_S = 20
CONNACK = b"\x20\x02\x00\x00"


@pytest.fixture(params=["amqtt", "mosquitto", pytest.param("hivemq", marks=pytest.mark.deep)])
def broker(request: pytest.FixtureRequest) -> tuple[str, int]:
    """Host and port of each broker in turn."""
    host, port = request.getfixturevalue(request.param).removeprefix("mqtt://").split(":")
    return host, int(port)


@pytest.fixture
def is_hivemq(request: pytest.FixtureRequest) -> bool:
    return request.node.callspec.params["broker"] == "hivemq"


class Client:
    """A paho client with a loop thread and a queue of what arrives.

    `acknowledge=False` leaves QoS 1 messages unacknowledged, as a bridge does while Kafka is away.
    """

    def __init__(self, broker, client_id="", *, clean=True, acknowledge=True, will=None):
        self.inbox = queue.Queue()
        self._paho = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            clean_session=clean,
            manual_ack=not acknowledge,
            reconnect_on_failure=False,
        )
        if will is not None:
            topic, payload = will
            self._paho.will_set(topic, payload, qos=1, retain=True)
        self._answers = queue.Queue()
        self._paho.on_connect = lambda c, u, flags, code, props: self._answers.put(
            ("connect", flags.session_present, code.value)
        )
        self._paho.on_subscribe = lambda c, u, mid, codes, props: self._answers.put(
            ("subscribe", [code.value for code in codes])
        )
        self._paho.on_message = lambda c, u, message: self.inbox.put(message)
        self._paho.connect(*broker)
        self._paho.loop_start()
        kind, self.session_present, code = self._answers.get(timeout=DEADLINE_S)
        assert (kind, code) == ("connect", 0)

    def subscribe(self, pattern, qos=1):
        self._paho.subscribe(pattern, qos)
        return self._answers.get(timeout=DEADLINE_S)[1]

    def publish(self, topic, payload, qos=1, retain=False):
        """Returns when the broker has acknowledged."""
        self._paho.publish(topic, payload, qos, retain).wait_for_publish(DEADLINE_S)

    def get(self):
        return self.inbox.get(timeout=DEADLINE_S)

    def close(self):
        """Say goodbye."""
        self._paho.disconnect()
        self._paho.loop_stop()

    def vanish(self):
        """End the connection without DISCONNECT."""
        self._paho.loop_stop()
        self._paho.socket().close()


@contextmanager
def client(*args, **options) -> Iterator[Client]:
    connected = Client(*args, **options)
    try:
        yield connected
    finally:
        connected.close()


@pytest.fixture
def name() -> str:
    """A name nobody else uses."""
    return uuid.uuid4().hex


def test_qos_1_arrives_once_and_in_order(broker, name):
    """What is published at QoS 1 reaches a QoS 1 subscriber of a wildcard, in order."""
    with client(broker) as subscriber, client(broker) as publisher:
        assert subscriber.subscribe(f"vehicles/+/{name}") == [1]
        for number in range(300):
            publisher.publish(f"vehicles/car/{name}", b"%d" % number)
        got = [subscriber.get() for _ in range(300)]
    assert [message.payload for message in got] == [b"%d" % number for number in range(300)]
    assert {(message.qos, message.retain) for message in got} == {(1, False)}


def test_delivery_uses_the_lower_qos(broker, name):
    """QoS 0 stays QoS 0 for a QoS 1 subscriber, and the other way round."""
    with client(broker) as high, client(broker) as low, client(broker) as publisher:
        high.subscribe(name, 1)
        low.subscribe(name, 0)
        publisher.publish(name, b"a", qos=0)
        publisher.publish(name, b"b", qos=1)
        assert [(high.get().qos, low.get().qos) for _ in range(2)] == [(0, 0), (1, 0)]


def test_retained_message_greets_a_new_subscriber_only(broker, name):
    """The last retained message of a topic comes with the subscription; an empty one clears it."""
    topic = f"vehicles/{name}/status"
    with client(broker) as publisher:
        publisher.publish(topic, b"old", retain=True)
        publisher.publish(topic, b"new", retain=True)
        with client(broker) as subscriber:
            subscriber.subscribe(f"vehicles/{name}/+")
            message = subscriber.get()
            assert (message.payload, message.retain) == (b"new", True)
            publisher.publish(topic, b"live", retain=True)
            message = subscriber.get()
            assert (message.payload, message.retain) == (b"live", False)
        with client(broker) as stranger:
            stranger.subscribe(f"{name}/own")
            publisher.publish(topic, b"", retain=True)
            stranger.subscribe(topic)
            publisher.publish(f"{name}/own", b"only this")
            assert stranger.get().payload == b"only this"


def test_will_is_sent_and_retained_when_a_car_vanishes(broker, name):
    """A connection that ends without DISCONNECT publishes the will, a polite one does not."""
    topic = f"vehicles/{name}/status"
    with client(broker) as watcher:
        watcher.subscribe(topic)
        Client(broker, f"polite-{name}", will=(topic, b"never")).close()
        Client(broker, f"car-{name}", will=(topic, b"offline")).vanish()
        assert watcher.get().payload == b"offline"
        with client(broker) as late:
            late.subscribe(topic)
            assert (message := late.get()).payload == b"offline"
            assert message.retain


def test_persistent_session_keeps_what_came_while_it_was_away(broker, name):
    """A stopped bridge finds every QoS 1 message of its outage, in order, not marked retained."""
    Client(broker, name, clean=False).close()
    bridge = Client(broker, name, clean=False)
    bridge.subscribe(f"{name}/+")
    bridge.close()
    with client(broker) as publisher:
        for number in range(200):
            publisher.publish(f"{name}/x", b"%d" % number)
    with client(broker, name, clean=False) as bridge:
        assert bridge.session_present
        got = [bridge.get() for _ in range(200)]
    assert [message.payload for message in got] == [b"%d" % number for number in range(200)]
    assert not any(message.retain for message in got)


def test_unacknowledged_messages_come_again_after_a_crash(broker, name, is_hivemq):
    """What a killed bridge had not acknowledged is sent to its successor, marked as duplicate."""
    bridge = Client(broker, name, clean=False, acknowledge=False)
    bridge.subscribe(f"{name}/x")
    with client(broker) as publisher:
        for number in range(50):
            publisher.publish(f"{name}/x", b"%d" % number)
        # As long as nothing is acknowledged, HiveMQ sends one batch and no more.
        sent = 1 if is_hivemq else 50
        for _ in range(sent):
            bridge.get()
        bridge.vanish()
        with client(broker, name, clean=False) as bridge:
            got = [bridge.get() for _ in range(50)]
            publisher.publish(f"{name}/x", b"next")
            assert bridge.get().payload == b"next"
    assert [message.payload for message in got] == [b"%d" % number for number in range(50)]
    assert all(message.dup for message in got[:sent])


def test_second_connection_takes_over_the_session(broker, name):
    """A bridge that starts while its frozen predecessor is still connected gets its messages."""
    first = Client(broker, name, clean=False)
    first.subscribe(f"{name}/x")
    with client(broker, name, clean=False) as second, client(broker) as publisher:
        assert second.session_present
        publisher.publish(f"{name}/x", b"1")
        publisher.publish(f"{name}/x", b"2")
        assert [second.get().payload for _ in range(2)] == [b"1", b"2"]
    assert first.inbox.empty()
    first.close()


def test_tail_of_a_burst_survives_an_immediate_goodbye(broker, name, is_hivemq):
    """What was acknowledged to a publisher that disconnects at once reaches the subscribers."""
    burst = [mqtt_frame.Message(f"{name}/x", b"%d" % number, 1) for number in range(500)]
    with client(broker) as subscriber, socket.create_connection(broker, DEADLINE_S) as car:
        subscriber.subscribe(f"{name}/x")
        car.sendall(mqtt_frame.connect())
        assert car.recv(4) == CONNACK
        packets = [mqtt_frame.publish(message, id_) for id_, message in enumerate(burst, 1)]
        car.sendall(b"".join(packets) + mqtt_frame.frame(mqtt_frame.DISCONNECT))
        acknowledged = b""
        while chunk := car.recv(4096):
            acknowledged += chunk
        # HiveMQ acknowledges nothing more to who has said goodbye, and keeps it all the same.
        assert len(acknowledged) == 4 * len(burst) or is_hivemq
        got = [subscriber.get().payload for _ in burst]
    assert got == [message.data for message in burst]


def test_silent_client_is_cut_off(broker, name):
    """A client that sends nothing for one and a half times its keep alive loses its connection."""
    with socket.create_connection(broker, timeout=DEADLINE_S) as silent:
        silent.sendall(mqtt_frame.connect(keep_alive_s=1))
        assert silent.recv(4) == CONNACK
        began = time.monotonic()
        with suppress(ConnectionResetError):
            assert silent.recv(1) == b""
        assert time.monotonic() - began > 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        mqtt_frame.connect() + b"\x30\x05\x00\x03a/+x",
        mqtt_frame.connect() + b"\x36\x04\x00\x01ax",
        mqtt_frame.connect() + b"\x30\xff\xff\xff\xff\x01",
        mqtt_frame.connect() + b"\x30\x02\x00\x09",
        mqtt_frame.connect() + b"\xf0\x00",
    ],
    ids=["http", "wildcard", "qos3", "length", "cut", "type15"],
)
def test_garbage_ends_its_own_connection_only(broker, name, garbage):
    """A client that breaks the protocol is cut off; the others go on."""
    with client(broker) as other, socket.create_connection(broker, timeout=DEADLINE_S) as bad:
        other.subscribe(name)
        bad.sendall(garbage)
        with suppress(ConnectionResetError):
            while bad.recv(4096):
                pass
        other.publish(name, b"alive")
        assert other.get().payload == b"alive"
