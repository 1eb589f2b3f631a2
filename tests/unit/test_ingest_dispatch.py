"""Downlink records: what is read, what is told, and the order in which cars get them."""

import asyncio
import json
from typing import NamedTuple, get_args

import pytest

from ingest import dispatch, downlink
from ingest.downlink import Dispatcher
from ingest.errors import ConnectionLost
from ingest.feed import Taken
from ingest.window import Entry
from tests.fake_clock import FakeClock
from twin.wire.errors import WireError
from twin.wire.records import DownlinkKind

NOW = 1_790_000_000_000
ORDER = {
    "id": "car-1:7:0",
    "kind": "command",
    "vehicle_id": "car-1",
    "ref": "car-1.01K6C3X2J0000000000000000A",
    "shard": 0,
    "session": 5,
    "payload": {
        "id": "car-1.01K6C3X2J0000000000000000A",
        "name": "limit_power",
        "args": {"to": 0.5},
    },
    "expires_at": NOW + 90_500,
}


def read(fields, key=b"car-1"):
    return dispatch.read(key, json.dumps(fields).encode())


def test_a_record_is_read_and_addressed():
    """Commands and cancels go to `commands`, desired states to `desired`, `forget` to `status`."""
    assert read(ORDER) == ORDER
    topics = {kind: dispatch.mqtt_topic({**ORDER, "kind": kind}) for kind in get_args(DownlinkKind)}
    assert topics == {
        "command": "vehicles/car-1/commands",
        "cancel": "vehicles/car-1/commands",
        "desired": "vehicles/car-1/desired",
        "forget": "vehicles/car-1/status",
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        *(({name: None}, "missing_field") for name in ORDER if name != "expires_at"),
        ({"id": 1}, "bad_type"),
        ({"kind": "song"}, "bad_type"),
        ({"shard": "0"}, "bad_type"),
        ({"shard": True}, "bad_type"),
        ({"session": 1.5}, "bad_type"),
        ({"payload": "x"}, "bad_type"),
        ({"expires_at": "soon"}, "bad_type"),
        ({"vehicle_id": "a/b"}, "bad_vehicle_id"),
        ({"vehicle_id": "car-2"}, "identity_mismatch"),
    ],
)
def test_a_record_that_can_never_be_sent_has_a_reason(change, reason):
    """Each wrong field raises a `WireError` with the public code."""
    with pytest.raises(WireError) as caught:
        read({**ORDER, **change})
    assert caught.value.reason == reason
    assert caught.value.detail


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]"])
def test_a_record_that_is_no_json_object_has_a_reason(value):
    """A tombstone or broken bytes raise a `WireError`."""
    with pytest.raises(WireError) as caught:
        dispatch.read(b"car-1", value)
    assert caught.value.reason == "malformed_json"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (0x00, None),
        (0x10, "no_subscriber"),
        (0x87, "not_authorized"),
        (0x90, "topic_name_invalid"),
        (0x95, "packet_too_large"),
        (0x97, "quota_exceeded"),
        (0x80, "broker_0x80"),
        (0xFF, "broker_0xff"),
    ],
)
def test_each_reason_code_of_the_broker_has_a_word(code, reason):
    """Taken is None; no subscriber and every refusal have a stable word."""
    assert dispatch.refusal(code, "command") == reason
    # A broker forgets a status whether anybody is there to hear of it or not.
    assert dispatch.refusal(code, "forget") == (None if code == 0x10 else reason)


def test_a_delivery_tells_what_became_of_the_record():
    """The delivery repeats whose and which it is, and a refusal its reason."""
    sent = dispatch.delivery(ORDER, at=NOW, refused=None)
    assert (sent.topic, sent.key) == ("deliveries", b"car-1")
    told = {name: ORDER[name] for name in ("id", "kind", "vehicle_id", "ref", "session")}
    assert json.loads(sent.value) == {**told, "state": "sent", "at": NOW}
    refused = dispatch.delivery(ORDER, at=NOW, refused="expired")
    assert json.loads(refused.value) == {**told, "state": "refused", "at": NOW, "reason": "expired"}


# --- The dispatcher ------------------------------------------------------------------------------


class Record(NamedTuple):
    """What the dispatcher needs of a Kafka message."""

    held_key: bytes | None
    held_value: bytes | None

    def key(self):
        return self.held_key

    def value(self):
        return self.held_value

    def topic(self):
        return "downlink"

    def partition(self):
        return 3

    def offset(self):
        return 42

    def headers(self):
        return [("traceparent", b"t"), ("odd", None)]


class Broker:
    """A client that answers as the test says: codes, or `ConnectionLost`."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.published = []
        self.retained = []
        self.away_s = 0.0
        self.up = asyncio.Event()
        self.up.set()

    async def connected(self):
        await self.up.wait()

    async def publish(self, topic, payload, *, expiry_s=None, retain=False):
        self.published.append((topic, json.loads(payload) if payload else None, expiry_s))
        self.retained.append(retain)
        answer = self.answers.pop(0) if self.answers else 0
        if isinstance(answer, asyncio.Event):
            await answer.wait()
            answer = 0
        if isinstance(answer, Exception):
            raise answer
        return answer


class Kept:
    """An outbox whose records are in Kafka when the test says `deliver`."""

    def __init__(self):
        self.records = []
        self.done = []
        self.crowded = False

    def send(self, record, done):
        self.records.append(record)
        self.done.append(done)

    def told(self):
        return [
            (json.loads(record.value)["id"], json.loads(record.value).get("reason", "sent"))
            for record in self.records
        ]


def taken(fields, key=b"car-1"):
    value = json.dumps(fields).encode() if isinstance(fields, dict) else fields
    return Taken(Record(key, value), Entry(42))


def playing(play, *brokers):
    async def run():
        outbox = Kept()
        clock = FakeClock(NOW)
        clients = tuple(Broker(*answers) for answers in brokers)
        dispatcher = Dispatcher(outbox, clients, clock, lambda: outbox.crowded)
        await play(dispatcher, outbox, clock, *clients)

    asyncio.run(run())


async def turns():
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_message_is_published_unchanged_and_done_when_its_delivery_is_in_kafka():
    """The payload goes out as it is, with its expiry; the offset is free after the delivery record."""

    async def play(dispatcher, outbox, clock, broker):
        record = taken(ORDER)
        dispatcher.take(record)
        await asyncio.wait_for(dispatcher.idle(), 5)
        assert broker.published == [("vehicles/car-1/commands", ORDER["payload"], 91)]
        assert broker.retained == [False]
        assert outbox.told() == [("car-1:7:0", "sent")]
        assert not record.entry.done
        outbox.done[0]()
        assert record.entry.done

    playing(play, ())


def test_a_broker_is_told_to_forget_a_status_by_an_empty_retained_message():
    """It needs nobody who hears it, and a refusal is told like any other."""
    forget = {**ORDER, "kind": "forget", "ref": "5", "payload": {}, "expires_at": None}

    async def play(dispatcher, outbox, clock, broker):
        for name in ("one", "two"):
            dispatcher.take(taken({**forget, "id": name}))
        await asyncio.wait_for(dispatcher.idle(), 5)
        assert broker.published == [("vehicles/car-1/status", None, None)] * 2
        assert broker.retained == [True, True]
        assert outbox.told() == [("one", "sent"), ("two", "not_authorized")]

    playing(play, (0x10, 0x87))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"expires_at": NOW}, "expired"),
        ({"shard": 1}, "unknown_shard"),
        ({"shard": -1}, "unknown_shard"),
    ],
)
def test_what_cannot_be_sent_is_refused_without_publishing(change, reason):
    """Expired, or a shard that nobody has: the delivery says so and the car hears nothing."""

    async def play(dispatcher, outbox, clock, broker):
        dispatcher.take(taken({**ORDER, **change}))
        await asyncio.wait_for(dispatcher.idle(), 5)
        assert broker.published == []
        assert outbox.told() == [("car-1:7:0", reason)]

    playing(play, ())


def test_a_refusal_of_the_broker_is_told():
    """A reason code from 0x80 on is a refused delivery with its word."""

    async def play(dispatcher, outbox, clock, broker):
        dispatcher.take(taken(ORDER))
        await asyncio.wait_for(dispatcher.idle(), 5)
        assert outbox.told() == [("car-1:7:0", "not_authorized")]

    playing(play, (0x87,))


def test_a_lost_connection_is_tried_again_and_not_dropped():
    """Without PUBACK the message is published again when the broker is back."""

    async def play(dispatcher, outbox, clock, broker):
        dispatcher.take(taken(ORDER))
        await asyncio.wait_for(dispatcher.idle(), 5)
        assert len(broker.published) == 3
        assert outbox.told() == [("car-1:7:0", "sent")]

    playing(play, (ConnectionLost("gone"), ConnectionLost("gone")))


def test_what_expires_while_the_broker_is_away_is_refused():
    """Waiting for a broker ends when the message expires."""

    async def play(dispatcher, outbox, clock, broker):
        broker.up.clear()
        dispatcher.take(taken({**ORDER, "expires_at": NOW + 5}))
        await asyncio.wait_for(dispatcher.idle(), 5)
        assert outbox.told() == [("car-1:7:0", "expired")]

    playing(play, ())


def test_a_broker_that_stays_away_does_not_hold_up_the_others_for_ever(monkeypatch):
    """What never expires waits for it; but not when so much waits that nobody is served."""
    monkeypatch.setattr(downlink, "_LOOK_S", 0.01)

    async def play(dispatcher, outbox, clock, broker):
        broker.up.clear()
        dispatcher.take(taken({**ORDER, "expires_at": None}))
        broker.away_s = downlink.AWAY_S
        await asyncio.sleep(0.05)
        assert outbox.told() == []
        broker.away_s, outbox.crowded = downlink.AWAY_S - 1, True
        await asyncio.sleep(0.05)
        assert outbox.told() == []
        broker.away_s = downlink.AWAY_S
        await asyncio.wait_for(dispatcher.idle(), 5)
        assert outbox.told() == [("car-1:7:0", "broker_away")]
        assert broker.published == []

    playing(play, ())


def test_order_is_kept_per_vehicle_and_vehicles_do_not_wait_for_each_other():
    """The second message of a car waits for its first; another car's passes, another broker's too."""

    async def play(dispatcher, outbox, clock, first, second):
        gate = first.answers[0]
        dispatcher.take(taken({**ORDER, "id": "one"}))
        dispatcher.take(taken({**ORDER, "id": "two"}))
        dispatcher.take(
            taken({**ORDER, "id": "other", "vehicle_id": "car-2", "shard": 1}, key=b"car-2")
        )
        await turns()
        assert outbox.told() == [("other", "sent")]
        assert len(first.published) == 1
        gate.set()
        await asyncio.wait_for(dispatcher.idle(), 5)
        assert [name for name, _ in outbox.told()] == ["other", "one", "two"]

    playing(play, (asyncio.Event(),), ())


def test_a_poison_record_is_rejected_and_the_next_goes_on():
    """Broken bytes become a rejected record with their source; the car's next message is sent."""

    async def play(dispatcher, outbox, clock, broker):
        dispatcher.take(taken(b"{broken"))
        dispatcher.take(taken(ORDER))
        await asyncio.wait_for(dispatcher.idle(), 5)
        poison, delivery = outbox.records
        assert (poison.topic, poison.key, poison.value) == ("rejected", b"car-1", b"{broken")
        headers = dict(poison.headers)
        assert headers["reason"] == b"malformed_json"
        assert headers["source"] == b"kafka:downlink/3/42"
        assert headers["original-traceparent"] == b"t"
        assert headers["original-odd"] == b""
        assert delivery.topic == "deliveries"

    playing(play, ())


def test_a_poison_record_without_a_vehicle_is_rejected_without_a_key():
    """A key that is no vehicle id is not passed on as one."""

    async def play(dispatcher, outbox, clock, broker):
        dispatcher.take(taken(ORDER, key=b"\xff/"))
        dispatcher.take(taken(ORDER, key=None))
        await asyncio.wait_for(dispatcher.idle(), 5)
        assert [(record.topic, record.key) for record in outbox.records] == [("rejected", None)] * 2

    playing(play, ())


def test_a_fault_in_a_lane_is_shown_and_not_swallowed():
    """What goes wrong inside ends the process through `failed`."""

    async def play(dispatcher, outbox, clock, broker):
        dispatcher.take(taken(ORDER))
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(dispatcher.failed, 5)

    playing(play, (ZeroDivisionError("ours"),))
