"""The downlink as a process, on real Kafka and three MQTT brokers: what cars get, what is told of it."""

import contextlib
import json

import paho.mqtt.client as paho
import pytest
from confluent_kafka import Consumer, TopicPartition

from tests.integration.test_ingest_uplink import (
    BROKERS,
    SLOW_ON_BROKERS,
    Bridge,
    Tail,
    car,
    json_of,
    leave,
    ms,
    until,
)
from twin.kit import kafka as kit_kafka
from twin.local.ports import PortPicker
from twin.wire.partition import partition_of

pytestmark = pytest.mark.integration

HOUR_MS = 3_600_000


@pytest.fixture(params=BROKERS)
def broker(request):
    """URL of each broker in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def is_mqtt_5(request):
    return request.node.callspec.params["broker"] != "amqtt"


@pytest.fixture
def start(kafka, broker, tmp_path):
    """Start downlinks that are ended with the test."""
    with contextlib.ExitStack() as started:

        def begin(mqtt=broker):
            bridge = Bridge(tmp_path / "bridge.log", kafka, mqtt, "-m", "ingest", "downlink")
            started.callback(bridge.stop)
            return bridge

        yield begin


@pytest.fixture
def tail(kafka):
    found = Tail(kafka, "deliveries", "rejected")
    yield found
    found.close()


@pytest.fixture
def order(kafka):
    """Put a record on `downlink`: `order(vehicle_id, number, **changes)` returns it."""
    producer = kit_kafka.producer(kafka, "test")

    def put(vehicle_id, number, **changes):
        record = {
            "id": f"{vehicle_id}:{number}:0",
            "kind": "command",
            "vehicle_id": vehicle_id,
            "ref": f"{vehicle_id}.01K6C3X2J0000000000000000A",
            "shard": 0,
            "session": 5,
            "payload": {"id": f"{vehicle_id}.{number}", "name": "limit_power", "args": {"to": 0.5}},
            "expires_at": ms() + HOUR_MS,
            **changes,
        }
        producer.produce("downlink", json.dumps(record), vehicle_id)
        producer.flush(30)
        return record

    put.producer = producer
    return put


def committed(kafka, vehicle_id):
    """(committed offset, end offset) of a vehicle's partition of `downlink`."""
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "cartwin-downlink"})
    try:
        count = len(consumer.list_topics("downlink", timeout=30).topics["downlink"].partitions)
        place = TopicPartition("downlink", partition_of(vehicle_id.encode(), count))
        (found,) = consumer.committed([place], timeout=30)
        return found.offset, consumer.get_watermark_offsets(place, timeout=30)[1]
    finally:
        consumer.close()


def test_a_command_reaches_its_car_and_is_told_as_sent(
    start, broker, tail, order, kafka, is_mqtt_5
):
    """Commands, cancels and desired states arrive unchanged and in order; the offset is committed."""
    downlink = start().ready()
    vehicle_id = f"down-{ms()}"
    base = f"vehicles/{vehicle_id}"
    client = car(
        broker,
        vehicle_id,
        version=paho.MQTTv5 if is_mqtt_5 else paho.MQTTv311,
        subscribe=(f"{base}/commands", f"{base}/desired"),
    )
    sent = [
        order(vehicle_id, 1),
        order(vehicle_id, 2, kind="desired", ref="3", payload={"version": 3, "delta": {"a": 1}}),
        order(vehicle_id, 3, kind="cancel", payload={"id": "x", "cancel": True}),
    ]
    del sent[1]["expires_at"]
    until(lambda: len(client.messages) == 3, "the car did not get three messages")
    assert [message.topic for message in client.messages] == [
        f"{base}/commands",
        f"{base}/desired",
        f"{base}/commands",
    ]
    assert [json.loads(m.payload) for m in client.messages] == [
        record["payload"] for record in sent
    ]
    assert [(m.qos, m.retain) for m in client.messages] == [(1, False)] * 3
    if is_mqtt_5:
        expiry_s = client.messages[0].properties.MessageExpiryInterval
        assert 3000 < expiry_s <= 3600
    told = [json_of(message) for message in tail.of("deliveries", vehicle_id, 3)]
    assert [(t["id"], t["state"], t["ref"]) for t in told] == [
        (record["id"], "sent", record["ref"]) for record in sent
    ]
    until(
        lambda: len(set(committed(kafka, vehicle_id))) == 1,
        lambda: f"not committed: {committed(kafka, vehicle_id)}",
    )
    assert downlink.stop() == 0
    leave(client)


def test_what_cannot_be_sent_is_refused_with_its_reason(start, tail, order, is_mqtt_5):
    """Expired, unknown shard, nobody there (MQTT 5 can tell), too large for the broker."""
    start().ready()
    vehicle_id = f"refused-{ms()}"
    order(vehicle_id, 1, expires_at=ms() - 1)
    order(vehicle_id, 2, shard=7)
    order(vehicle_id, 3)
    told = [json_of(message) for message in tail.of("deliveries", vehicle_id, 3)]
    absent = ("refused", "no_subscriber") if is_mqtt_5 else ("sent", None)
    assert [(t["state"], t.get("reason")) for t in told] == [
        ("refused", "expired"),
        ("refused", "unknown_shard"),
        absent,
    ]


# A record of nearly all that Kafka takes by default (1,048,588 bytes): the reason does not fit, too.
@pytest.mark.parametrize(
    ("poison", "reason"),
    [(b"{poison", b"malformed_json"), (b"{" * 1_048_400, b"too_large")],
    ids=["short", "largest"],
)
def test_a_poison_record_is_rejected_and_its_partition_goes_on(
    start, broker, tail, order, poison, reason
):
    """Bytes that are no record go to `rejected` as they are; the next record of the car is sent."""
    start().ready()
    vehicle_id = f"poison-{ms()}"
    client = car(broker, vehicle_id, subscribe=(f"vehicles/{vehicle_id}/commands",))
    order.producer.produce("downlink", poison, vehicle_id, headers=[("traceparent", b"t")])
    order(vehicle_id, 1)
    (rejected,) = tail.of("rejected", vehicle_id, 1)
    headers = dict(rejected.headers())
    assert rejected.value() == poison
    assert headers["reason"] == reason
    assert headers["source"].startswith(b"kafka:downlink/")
    assert headers["original-traceparent"] == b"t"
    assert json_of(tail.of("deliveries", vehicle_id, 1)[0])["state"] == "sent"
    until(lambda: client.messages, "the car did not get its command")
    leave(client)


@pytest.mark.parametrize("broker", SLOW_ON_BROKERS, indirect=True)
def test_a_command_survives_a_killed_downlink(start, broker, tail, order):
    """What a killed downlink had not told is sent by the next one: at least once, never lost."""
    vehicle_id = f"killed-{ms()}"
    client = car(broker, vehicle_id, subscribe=(f"vehicles/{vehicle_id}/commands",))
    first = start().ready()
    for number in range(50):
        order(vehicle_id, number)
        if number == 25:
            first.kill()
    start().ready()
    wanted = {f"{vehicle_id}.{number}" for number in range(50)}
    until(
        lambda: {json.loads(message.payload)["id"] for message in client.messages} == wanted,
        lambda: f"the car got {len(client.messages)} messages",
    )
    told = tail.until(
        "deliveries",
        lambda records: (
            len({json_of(m)["id"] for m in records if m.key() == vehicle_id.encode()}) == 50
        ),
    )
    assert {json_of(m)["state"] for m in told if m.key() == vehicle_id.encode()} == {"sent"}
    leave(client)


@pytest.mark.parametrize("broker", SLOW_ON_BROKERS, indirect=True)
def test_a_broker_that_is_away_holds_up_its_own_cars_only(start, broker, tail, order, tmp_path):
    """Shard 1 is down: its command waits and expires, a command of shard 0 passes it meanwhile."""
    nobody = f"mqtt://127.0.0.1:{PortPicker().free()}"
    downlink = start(f"{broker},{nobody}")
    waiting, passing = f"waits-{ms()}", f"passes-{ms()}"
    client = car(broker, passing, subscribe=(f"vehicles/{passing}/commands",))
    order(waiting, 1, shard=1, expires_at=ms() + 5_000)
    order(passing, 1)
    assert json_of(tail.of("deliveries", passing, 1)[0])["state"] == "sent"
    until(
        lambda: "no TCP connection" in downlink.get("/readyz")[1], lambda: downlink.get("/readyz")
    )
    told = json_of(tail.of("deliveries", waiting, 1)[0])
    assert (told["state"], told["reason"]) == ("refused", "expired")
    assert client.messages
    leave(client)


@pytest.mark.parametrize("broker", ["mosquitto"], indirect=True)
def test_two_downlinks_share_the_cars_and_one_goes_on_alone(start, broker, tail, order):
    """Partitions are shared out, given back in order at the end of one, and nothing is lost."""
    first, second = start().ready(), start().ready()
    stamp = ms()
    cars = [f"shared-{stamp}-{number}" for number in range(24)]
    client = car(broker, f"all-{stamp}", subscribe=[f"vehicles/{name}/commands" for name in cars])

    def told(count):
        tail.until(
            "deliveries",
            lambda found: sum(m.key().decode() in cars for m in found) >= count,
        )
        return {json_of(m)["id"] for m in tail.records["deliveries"] if m.key().decode() in cars}

    def sent(bridge):
        return bridge.metric("cartwin_downlink_sent_total")

    def both_share():
        for name in cars:
            order(name, sent(first) + sent(second))
        return sent(first) and sent(second)

    until(both_share, "one downlink does everything")
    assert first.stop() == 0
    for name in cars:
        order(name, "last")
    until(
        lambda: {f"{name}:last:0" for name in cars} <= told(24),
        lambda: f"{len(told(24))} were told",
    )
    assert len(client.messages) >= 48
    assert second.stop() == 0
    leave(client)


def test_the_model_for_cars_is_retained_at_the_broker(start, broker, kafka, is_mqtt_5):
    """Who comes later gets it; another takes its place, also for a downlink that starts anew; an
    empty record takes it away; other records on the topic are nothing to cars."""
    producer = kit_kafka.producer(kafka, "test")
    version = paho.MQTTv5 if is_mqtt_5 else paho.MQTTv311

    def put(value, key="engine/edge"):
        producer.produce("models", value, key)
        assert producer.flush(30) == 0

    def retained(number):
        return car(broker, f"edge-{number}-{ms()}", version=version, subscribe=("models/engine",))

    package = json.dumps({"version": f"one-{ms()}", "data": "x" * 100_000}).encode()
    put(package)
    put(b'{"version":"not for cars"}', "engine/champion")
    downlink = start().ready()
    watching = retained(0)
    until(lambda: [m.payload for m in watching.messages][-1:] == [package], "no model came")
    late = retained(1)
    until(lambda: [m.payload for m in late.messages] == [package], "it is not retained")
    assert late.messages[0].retain
    other = json.dumps({"version": f"two-{ms()}"}).encode()
    put(other)
    until(lambda: [m.payload for m in watching.messages][-1:] == [other], "no other model came")
    downlink.stop()
    last = json.dumps({"version": f"three-{ms()}"}).encode()
    put(last)
    start().ready()
    until(lambda: [m.payload for m in watching.messages][-1:] == [last], "the last did not come")
    put(None)
    until(lambda: [m.payload for m in watching.messages][-1:] == [b""], "it was not taken away")
    never = retained(2)
    leave(watching)
    leave(late)
    leave(never)
    assert never.messages == []
