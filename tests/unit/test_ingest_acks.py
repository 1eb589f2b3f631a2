"""Receipts for cars: what a message asks for, and when a car hears of it."""

import orjson
import pytest

from ingest.acks import RUNS, Acks, Asked, Claim, asked
from ingest.packets import Publish
from ingest.uplink import Uplink
from tests.fake_clock import FakeClock


def told(acks):
    return [
        (ack.shard, ack.topic.split("/")[1], *orjson.loads(ack.payload).values())
        for ack in acks.due()
    ]


@pytest.mark.parametrize(
    ("payload", "wanted"),
    [
        (b'{"session":7,"sequence":3,"held_from":2,"speed":1}', Asked(7, 3, 2)),
        (b'{"session":7,"sequence":3.0,"held_from":0}', Asked(7, 3, 0)),
        (b'{"sequence":3,"held_from":0}', None),
        (b'{"session":0,"sequence":3,"held_from":0}', None),
        (b'{"session":7,"sequence":3,"speed":1}', None),
        (b'{"session":7,"held_from":3}', None),
        (b'{"session":"7","sequence":3,"held_from":3}', None),
        (b'{"session":7,"sequence":3,"held_from":"3"}', None),
        (b'{"session":7,"sequence":3,"held_from":true}', None),
        (b'{"session":7,"sequence":3,"held_from":-1}', None),
        (b'{"session":7,"sequence":3,"held_from":9223372036854775808}', None),
        (b'{"session":7,"sequence":3,"held_from":2,"speed":NaN}', Asked(7, 3, 2)),
        (b'{"session":7,"sequence" : 3,\n"held_from": 2, "text":"cut he', Asked(7, 3, 2)),
        (b'{"sequence":3.5,"held_from":2,NaN', None),
        (b'"held_from"', None),
        (b'["held_from"]', None),
    ],
)
def test_what_a_payload_asks_for(payload, wanted):
    """The three numbers, also of bytes that are no JSON: such a message is kept in rejected, too."""
    assert asked(payload) == wanted


def test_acks_are_coalesced_and_told_once():
    """Many messages make one ack; without another message there is no second."""
    acks = Acks()
    for number in range(1, 6):
        acks.safe(b"car-1", Asked(7, number, 1), 2)
    acks.safe(b"car-2", Asked(8, 1, 1), 0)
    assert told(acks) == [(2, "car-1", 7, 5), (0, "car-2", 8, 1)]
    assert told(acks) == []


def test_a_car_that_missed_its_ack_is_told_again():
    """It shows by holding what was told to be covered; one that holds nothing covered is left alone."""
    acks = Acks()
    acks.safe(b"car-1", Asked(7, 1, 1), 0)
    assert told(acks) == [(0, "car-1", 7, 1)]
    acks.safe(b"car-1", Asked(7, 3, 1), 0)
    assert told(acks) == [(0, "car-1", 7, 1)]
    acks.safe(b"car-1", Asked(7, 4, 2), 0)
    assert told(acks) == []
    acks.safe(b"car-1", Asked(7, 2, 2), 0)
    assert told(acks) == [(0, "car-1", 7, 4)]


def test_an_ack_goes_where_the_car_was_heard_last():
    """A car may hold messages of a session that it had at another broker."""
    acks = Acks()
    acks.safe(b"car-1", Asked(7, 1, 1), 0)
    acks.safe(b"car-1", Asked(7, 2, 1), 1)
    assert told(acks) == [(1, "car-1", 7, 2)]


def test_the_car_that_was_silent_longest_is_forgotten():
    """And is told nothing until it sends again; others are as they were."""
    acks = Acks(cars=2)
    for car in (b"a", b"b", b"a", b"c"):
        acks.safe(car, Asked(1, 1, 1), 0)
    assert len(acks) == 2
    assert [name for _, name, _, _ in told(acks)] == ["a", "c"]
    acks.safe(b"b", Asked(1, 2, 1), 0)
    assert told(acks) == []


def test_what_several_workers_saw_is_one_session():
    """Claims close each other's gaps whatever their order, also over runs that they touch or cover."""
    acks = Acks()
    acks.take(Claim(b"a", 7, 1, ((2, 2), (4, 5), (9, 9))), 0)
    assert told(acks) == []
    acks.take(Claim(b"a", 7, 1, ((6, 8), (12, 15))), 0)
    acks.take(Claim(b"a", 7, 1, ((10, 14), (17, 17))), 0)
    acks.safe(b"a", Asked(7, 1, 1), 0)
    assert told(acks) == [(0, "a", 7, 2)]
    acks.take(Claim(b"a", 7, 1, ((3, 3),)), 0)
    assert told(acks) == [(0, "a", 7, 15)]
    acks.take(Claim(b"a", 7, 17, ()), 0)
    assert told(acks) == [(0, "a", 7, 17)]


def test_numbers_behind_gaps_are_bounded_in_runs():
    """The farthest run is forgotten; what is contiguous costs one however long it is."""
    acks = Acks()
    for number in range(2, 2 * RUNS + 20, 2):
        acks.safe(b"a", Asked(1, number, 1), 0)
    for number in range(1, 2 * RUNS + 20, 2):
        acks.safe(b"a", Asked(1, number, 1), 0)
    assert told(acks) == [(0, "a", 1, 2 * RUNS + 1)]
    for number in range(9000, 20_000):
        acks.safe(b"b", Asked(1, number, 1), 0)
    for number in range(1, 9000):
        acks.safe(b"b", Asked(1, number, 1), 0)
    assert told(acks) == [(0, "b", 1, 19_999)]


class HeldOutbox:
    """An outbox that has Kafka's word only when the test gives it."""

    def __init__(self):
        self.sent = []

    def send(self, record, done):
        self.sent.append((record.topic, done))


class Receipt:
    def ack(self):
        """Nothing to do."""


@pytest.mark.parametrize(
    ("payload", "topic"),
    [
        (b'{"session":7,"sequence":1,"held_from":1,"speed":1}', "telemetry"),
        (b'{"session":7,"sequence":1,"held_from":1,"mood":1}', "rejected"),
        (b'{"session":7,"sequence":1,"held_from":1,"speed":NaN}', "rejected"),
    ],
)
def test_an_ack_waits_for_kafka(payload, topic):
    """Only when the record is there, accepted or rejected, the car may hear of it."""
    acks, outbox = Acks(), HeldOutbox()
    uplink = Uplink(outbox, "enforce", FakeClock(), acks=acks)
    uplink.receive(3, Publish("vehicles/car-1/telemetry", payload), Receipt())
    ((where, done),) = outbox.sent
    assert (where, told(acks)) == (topic, [])
    done()
    assert told(acks) == [(3, "car-1", 7, 1)]


@pytest.mark.parametrize(
    ("topic", "payload", "acks"),
    [
        ("vehicles/car-1/telemetry", b'{"session":7,"sequence":1,"speed":1}', Acks()),
        ("vehicles/car-1/reported", b'{"session":7,"sequence":1,"held_from":1}', Acks()),
        ("vehicles/no id/telemetry", b'{"session":7,"sequence":1,"held_from":1}', Acks()),
        ("vehicles/car-1/telemetry", b'{"session":7,"sequence":1,"held_from":1}', None),
    ],
)
def test_who_is_not_told(topic, payload, acks):
    """Cars that do not ask, other topics, topics of nobody, and any car where nobody tells cars."""
    outbox = HeldOutbox()
    uplink = Uplink(outbox, "enforce", FakeClock(), acks=acks)
    uplink.receive(0, Publish(topic, payload), Receipt())
    outbox.sent[0][1]()
    assert acks is None or (len(acks), told(acks)) == (0, [])
