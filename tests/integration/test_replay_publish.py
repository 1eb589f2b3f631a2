"""Publishing for many cars: order, lost connections, brokers that are not there."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from twin.client.publish import MqttUnavailable, Publisher

pytestmark = pytest.mark.integration


def client(url: str, client_id: str = "") -> mqtt.Client:
    one = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv311)
    host, port = url.removeprefix("mqtt://").split(":")
    one.connect(host, int(port))
    return one


@contextmanager
def listening(url: str, prefix: str) -> Iterator[list[tuple[str, int]]]:
    """(vehicle, number) of every telemetry message whose vehicle begins with `prefix`."""
    heard: list[tuple[str, int]] = []
    subscribed = threading.Event()

    def on_message(_client: object, _user: object, message: mqtt.MQTTMessage) -> None:
        vehicle_id = message.topic.split("/")[1]
        if vehicle_id.startswith(prefix):
            heard.append((vehicle_id, int(message.payload)))

    one = client(url)
    one.on_message = on_message
    one.on_subscribe = lambda *_: subscribed.set()
    one.subscribe("vehicles/+/telemetry", 1)
    one.loop_start()
    assert subscribed.wait(10)
    yield heard
    one.disconnect()
    one.loop_stop()


def work_until(publisher: Publisher, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline, publisher.faults
        publisher.work()
        time.sleep(0.005)


def test_messages_of_a_car_arrive_once_and_in_order(amqtt):
    """Without a lost connection QoS 1 repeats nothing."""
    with listening(amqtt, "order-") as heard, Publisher([amqtt]) as publisher:
        for number in range(300):
            publisher.telemetry(f"order-{number % 3}", b"%d" % number)
        work_until(publisher, lambda: publisher.acknowledged == 300 == len(heard))
    for car in range(3):
        assert [n for name, n in heard if name == f"order-{car}"] == list(range(car, 300, 3))


def test_what_a_lost_connection_left_unacknowledged_is_sent_again(amqtt):
    """A broker drops the connection whose client id connects again; nothing is lost by that."""
    with listening(amqtt, "lost-") as heard, Publisher([amqtt], client_id="lost") as publisher:
        for number in range(100):
            publisher.telemetry("lost-car", b"%d" % number)
        thief = client(amqtt, "lost-0")
        work_until(publisher, lambda: publisher.faults != [])
        assert "is not connected" in publisher.faults[0]
        for number in range(100, 200):
            publisher.telemetry("lost-car", b"%d" % number)
        work_until(
            publisher,
            lambda: publisher.acknowledged == 200 and len(set(heard)) == 200,
        )
        assert publisher.faults == []
        thief.disconnect()
    # Repeats are allowed; each number is there, and first seen in order.
    assert list(dict.fromkeys(n for _, n in heard)) == list(range(200))


def test_a_car_stays_on_its_shard(amqtt, mosquitto):
    """Several brokers share the cars, and no car is on two of them."""
    with (
        listening(amqtt, "shard-") as first,
        listening(mosquitto, "shard-") as second,
        Publisher([amqtt, mosquitto]) as publisher,
    ):
        for number in range(200):
            publisher.telemetry(f"shard-{number % 20}", b"%d" % number)
        work_until(publisher, lambda: len(first) + len(second) == 200)
    on_first, on_second = ({name for name, _ in heard} for heard in (first, second))
    assert len(on_first) + len(on_second) == 20
    assert on_first
    assert on_second


def test_a_broker_that_is_not_there_is_named(unused_tcp_port):
    """One sentence with address and reason."""
    url = f"mqtt://127.0.0.1:{unused_tcp_port}"
    with pytest.raises(MqttUnavailable, match=rf"127\.0\.0\.1:{unused_tcp_port}"):
        Publisher([url]).__enter__()


@pytest.mark.parametrize("url", ["tcp://a:1", "mqtt://", "mqtt://a:99999", "a:1883", ""])
def test_an_address_that_is_none_is_refused(url):
    """The accepted form is part of the sentence."""
    with pytest.raises(MqttUnavailable, match=r"mqtt://\[user:password@\]host:port"):
        Publisher([url])


@pytest.fixture
def unused_tcp_port() -> int:
    """A port that nobody listens on."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
