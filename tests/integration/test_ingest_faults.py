"""A killed broker under load: what cars lose without a store is counted, with one they lose nothing."""

import json
import time
from urllib.parse import urlsplit

import paho.mqtt.client as paho
import pytest

from tests.ingest_faults import Road, explained, sentence
from tests.processes import Process, until
from tests.stacks import need_mosquitto
from twin.local.data import Endpoints
from twin.local.options import External

pytestmark = pytest.mark.integration

UNREAD = 150
"""Messages that the broker has acknowledged and the uplink has not taken, when it is killed."""


@pytest.mark.parametrize("store", [2000, 0])
def test_a_killed_broker(store, make_stack, kafka, redis_url, tmp_path, record_property):
    """With B lost 0; without B the gaps in Kafka are what the logs of the cars say is lost."""
    need_mosquitto()
    others = External(kafka=kafka, redis=redis_url)
    stack, endpoints = make_stack(mqtt="mosquitto", external=others)
    # A small window, so that what the uplink has not taken is at the broker and not in its socket.
    with Road(
        stack, endpoints, tmp_path, cars=20, interval_s=0.1, store=store, UPLINK_WINDOW="20"
    ) as road:
        road.passes(100)
        road.kill_broker(UNREAD)
        road.passes(200)
        line = road.account()
    record_property("figures", sentence(f"broker killed, store of {store}", line))
    assert explained(line)
    assert line["held"] == line["dropped"] == 0
    if store:
        assert line["lost"] == line["gaps"] == 0
        assert line["again"] >= UNREAD // 2
    else:
        assert line["lost"] == line["gaps"] >= UNREAD // 2
        assert line["acknowledged"] == line["sent"] == line["kafka"] + line["lost"]


@pytest.mark.parametrize("name", ["mosquitto", "amqtt"])
def test_a_car_that_keeps_its_messages_is_told_what_kafka_has(name, request, kafka, tmp_path):
    """Acks never reach beyond a gap, and come again when a car shows that it missed one."""
    url, vehicle_id = request.getfixturevalue(name), f"ack-{time.time_ns()}"
    endpoints = Endpoints(api=None, mqtt=(url,), kafka=kafka, redis="", pid=0)
    uplink = Process(
        "uplink", endpoints, tmp_path, UPLINK_ACK_S="0.1", UPLINK_QUEUE_PROBE="0"
    )  # fmt: skip
    heard, where = [], urlsplit(url)
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, vehicle_id)
    client.on_message = lambda _client, _data, message: heard.append(json.loads(message.payload))
    client.on_connect = lambda client, *_: client.subscribe(f"vehicles/{vehicle_id}/ack", 1)
    subscribed = []
    client.on_subscribe = lambda *_: subscribed.append(True)

    def say(sequence, held_from, **more):
        body = {"session": 7, "sequence": sequence, "held_from": held_from, "speed": 1, **more}
        client.publish(f"vehicles/{vehicle_id}/telemetry", json.dumps(body), 1)

    try:
        uplink.start().ready()
        client.connect(where.hostname, where.port)
        client.loop_start()
        until(lambda: subscribed, "no SUBACK")
        for number in (1, 2, 3, 5):
            say(number, 1)
        until(lambda: {"session": 7, "upto": 3} in heard, lambda: heard)
        assert max(ack["upto"] for ack in heard) == 3
        # Rejected is kept, too; number 4 closes the gap.
        say(6, 4, mood="good")
        say(4, 4)
        until(lambda: {"session": 7, "upto": 6} in heard, lambda: heard)
        told = len(heard)
        say(6, 4)
        until(lambda: len(heard) > told, "a car that missed its ack is left alone")
        assert heard[-1] == {"session": 7, "upto": 6}
        # Another uplink knows nothing of before and says nothing that it has not seen.
        uplink.kill()
        uplink.start().ready()
        told = len(heard)
        say(9, 4)
        say(4, 4)
        until(lambda: len(heard) > told, "the new uplink tells nothing")
        assert heard[-1] == {"session": 7, "upto": 4}
    finally:
        client.disconnect()
        client.loop_stop()
        uplink.stop()
