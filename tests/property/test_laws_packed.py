"""A twin at rest is the twin: whatever comes, it ends as the plain fold of the same log does."""

from collections import Counter

import orjson
from hypothesis import given
from hypothesis import strategies as st

from tests.property.test_laws_telemetry import RECORDS
from tests.twin_builders import CAR, MemoryLedger, World
from tests.twin_logs import CONTEXT, LOGS, do
from twin import document, inputs, packed
from twin.apply import NEW_VALUES, apply
from twin.wire import topics
from twin.wire.telemetry import Sample

STEPS = st.one_of(LOGS.map(lambda log: log[0]), RECORDS)


class Resting:
    """The worker's way: telemetry that is all newer is observed, all else unpacks the twin."""

    def __init__(self):
        self.rest = None
        self.ledger = MemoryLedger()
        self.observed = Counter()

    def feed(self, topic, value, position, at):
        record = inputs.read(topic, CAR.encode(), value)
        if self.rest is not None and isinstance(record, Sample):
            seen = self.rest.observe(record, position["partition"], position["offset"], at)
            if seen is not None:
                self.observed[seen] += 1
                return seen
        twin = None if self.rest is None else packed.unpack(self.rest, CAR)
        after, effects = apply(twin, self.ledger, record, position, at, CONTEXT)
        self.ledger.take(effects)
        self.rest = None if after is None else packed.pack(after)
        return effects


def run(log):
    """A plain world, and the same records for a twin at rest, checked after each."""
    world, resting = World(CONTEXT), Resting()
    for step in log:
        told = world.put(topics.TELEMETRY, step) if not isinstance(step, tuple) else do(world, step)
        if told is None:
            continue
        same = resting.feed(*world.log[-1])
        if isinstance(same, int):
            assert (told is NEW_VALUES) is (same == packed.NEW)
            assert told.repeated is (same == packed.REPEATED)
            assert told.outdated is (same in {packed.LATE, packed.DUPLICATE})
            assert told.duplicate is (same == packed.DUPLICATE)
        else:
            assert [c["id"] for c in same.changes] == [c["id"] for c in told.changes]
            assert (same.late, same.duplicate) == (told.late, told.duplicate)
        check(world, resting.rest)
    return world, resting


def check(world, rest):
    if world.state is None:
        assert rest is None
        return
    shown = rest.dump(CAR)
    assert packed.unpack(rest, CAR) == world.state
    assert orjson.loads(shown) == orjson.loads(document.dump(world.state))
    assert rest.version == (0, world.state["created_at"], world.state["revision"])
    assert rest.seen == world.state["presence"].get("seen")
    loaded, fields = packed.load(shown)
    assert {**fields, "reported": orjson.loads(shown)["reported"]} == orjson.loads(shown)
    assert loaded.dump(CAR) == shown
    assert packed.unpack(loaded, CAR) == world.state
    assert loaded.standing == rest.standing
    assert dict(
        pair for names, values in rest.values_of() for pair in zip(names, values, strict=True)
    ) == {name: entry["v"] for name, entry in world.state["reported"].items()}


@given(st.lists(STEPS, min_size=1, max_size=25))
def test_a_twin_at_rest_ends_as_the_plain_fold_does(log):
    """After every record: document, version, what lists show, and what a restart loads."""
    run(log)


@given(st.lists(RECORDS, min_size=1, max_size=25), st.integers(0, 5))
def test_telemetry_in_any_order_and_repeated_by_offset(log, back):
    """Laws 1 and 2 for signals that come together, apart and in turn."""
    world, resting = run(log)
    before = resting.rest.dump(CAR)
    for record in world.log[-1 - back :]:
        again = resting.feed(*record)
        assert again == packed.REPEATED or again.repeated
    assert resting.rest.dump(CAR) == before


def test_new_telemetry_is_observed():
    """The law above would also hold if nothing ever was."""
    world, resting = World(CONTEXT), Resting()
    world.online(1)
    kinds = [
        {"speed": 1.0, "engine_load": 0.5},
        {"fuel_level": 0.5},
        {"engine_load": 0.7, "fuel_level": 0.6},
    ]
    for signals in kinds * 5:
        world.now += 10
        world.telemetry(session=1, **signals)
    for record in world.log:
        resting.feed(*record)
    assert resting.observed == {packed.NEW: 15}
    check(world, resting.rest)
