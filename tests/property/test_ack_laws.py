"""Promise B: what the uplink tells a car is true whatever happens, and a car that goes on gets there."""

import random
from collections import defaultdict

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.acks import RUNS, Acks, Asked, asked
from twin.client.car import Car
from twin.client.store import Store

CARS = [b"a", b"b", b"c"]
NUMBERS = st.integers(0, 60)
MESSAGES = st.builds(Asked, st.integers(0, 2), NUMBERS, NUMBERS)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("safe"), st.sampled_from(CARS), MESSAGES),
        st.tuples(st.just("due"), st.none(), st.none()),
        st.tuples(st.just("restart"), st.none(), st.none()),
    ),
    max_size=150,
)


def told(acks):
    for ack in acks.due():
        body = orjson.loads(ack.payload)
        yield (ack.topic.split("/")[1].encode(), body["session"]), body["upto"]


class Naive:
    """All that is safe, and all that the cars said is covered, since ever."""

    def __init__(self):
        self.safe = defaultdict(set)
        self.said = defaultdict(int)

    def add(self, key, message):
        self.safe[key].add(message.sequence)
        self.said[key] = max(self.said[key], message.held_from)

    def allows(self, key, upto):
        return all(n in self.safe[key] for n in range(self.said[key], upto + 1))


@settings(deadline=None)
@given(STEPS, st.integers(1, 9))
def test_upto_covers_only_what_is_safe_or_said_to_be_covered(steps, cars):
    """Any order, duplicates, forgotten cars and restarts: no ack names a number beyond a gap."""
    acks, naive = Acks(cars), Naive()
    for what, car, message in steps:
        if what == "safe":
            acks.safe(car, message, 0)
            naive.add((car, message.session), message)
        elif what == "restart":
            acks = Acks(cars)
        for key, upto in told(acks) if what == "due" else ():
            assert naive.allows(key, upto)
        assert len(acks) <= cars
    for key, upto in told(acks):
        assert naive.allows(key, upto)


@settings(deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=120), st.integers(0, 10))
def test_one_session_is_told_exactly_what_has_no_gap(numbers, held_from):
    """With few gaps nothing is forgotten: `upto` is the naive answer after every message."""
    acks, safe = Acks(), set()
    for number in numbers:
        acks.safe(b"a", Asked(1, number, held_from), 0)
        safe.add(number)
        behind = sorted(n for n in safe if n >= held_from)
        gaps = sum(1 for n in behind if n > held_from and n - 1 not in safe)
        if gaps > RUNS:
            return
        upto = held_from - 1
        while upto + 1 in safe:
            upto += 1
        assert [found for _, found in told(acks)] == ([upto] if upto >= held_from else [])


@settings(deadline=None)
@given(st.permutations(range(100)))
def test_a_car_that_sends_again_what_it_holds_is_covered(order):
    """However many gaps were forgotten, one pass over all that is held, in order, ends it."""
    acks = Acks()
    for number in order[:70]:
        acks.safe(b"a", Asked(1, number, 0), 0)
    for number in range(100):
        acks.safe(b"a", Asked(1, number, 0), 0)
    assert list(told(acks))[-1][1] == 99


class Broker:
    """Loses, doubles and reorders what passes; an uplink behind it, which may be restarted."""

    def __init__(self, chance):
        self.chance = chance
        self.acks = Acks(2)
        self.kafka = set()
        self.under_way = []

    def take(self, messages):
        for message in messages:
            self.under_way += [message] * self.chance.choice((0, 1, 1, 1, 2))

    def deliver(self):
        self.chance.shuffle(self.under_way)
        for message in self.under_way:
            body = orjson.loads(message.payload)
            self.kafka.add((body["session"], body["sequence"]))
            self.acks.safe(b"a", asked(message.payload), 0)
        self.under_way = []


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 400))
def test_a_car_loses_nothing_but_what_its_store_had_no_room_for(seed, capacity):
    """Kills of broker and uplink, lost acks: at last all is in Kafka that was not dropped and counted."""
    chance = random.Random(seed)
    events = defaultdict(set)
    store = Store(
        capacity, silence_ms=100, note=lambda what, session, n: events[what].add((session, n))
    )
    car, broker, made, now = Car("a", {}, store=store), Broker(chance), set(), 0

    def turn(faults):
        nonlocal now
        now += 20
        online = not faults or chance.random() < 0.8
        if faults and chance.random() < 0.1:
            car.connect(now)
            car.connected(now)
        if faults and chance.random() < 0.1:
            broker.under_way.clear()
        if faults and chance.random() < 0.1:
            broker.acks = Acks(2)
        if faults:
            made.add((car.numbered, (sample := car.telemetry(now, {"speed": 1})).sequence))
            broker.take([sample] if online else [])
        if online:
            broker.take(car.again(now, 10))
        broker.deliver()
        for ack in broker.acks.due():
            if not faults or chance.random() < 0.5:
                car.receive(ack.topic, ack.payload, now)

    car.connect(now)
    car.connected(now)
    for _ in range(100):
        turn(faults=True)
        assert len(store) <= capacity
    for _ in range(20_000):
        if not len(store):
            break
        turn(faults=False)
    assert len(store) == 0
    assert made - broker.kafka <= events["dropped"]
    assert len(events["dropped"]) == store.dropped
