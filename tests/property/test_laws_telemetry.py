"""Law 1: event time per signal. The last state does not depend on order or repetition."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from tests.twin_builders import T0, World, sample
from twin import state
from twin.document import dump, load
from twin.wire import topics
from twin.wire.telemetry import Telemetry

# Few times, sessions, sequences and values, so that ties of every kind are common.
FEW = st.integers(0, 2)
VALUES = st.sampled_from([-1.0, -0.0, 0.0, 1.0, 2.5])
SIGNALS = st.dictionaries(
    st.sampled_from(["speed", "coolant_temp", "engine_load", "fuel_level"]), VALUES, min_size=1
)
RECORDS = st.builds(
    lambda time, session, sequence, signals, suspect: Telemetry(
        "car-1", time, session, sequence, signals, False, tuple(suspect)
    ),
    FEW,
    FEW,
    FEW,
    SIGNALS,
    st.sets(st.sampled_from(["speed", "coolant_temp"])),
)
LOGS = st.lists(RECORDS, min_size=1, max_size=12)


def shuffled(draw, log):
    """A permutation of `log` with some records more than once."""
    repeated = draw(st.lists(st.sampled_from(log), max_size=6))
    return draw(st.permutations(log + repeated))


def final(log):
    """What the log ends in, without the offsets, which are the order's to say."""
    twin = state.create("car-1", T0)
    for offset, record in enumerate(log):
        state.fold(twin, sample(record), offset)
    return {
        name: repr({field: value for field, value in entry.items() if field != "o"})
        for name, entry in twin["reported"].items()
    }


def by_definition(log):
    """The fold of law 1 signal by signal, in plain dicts, and how many values were newer each time."""
    reported, counts = {}, []
    for offset, record in enumerate(log):
        newer = 0
        for name, value in record.signals.items():
            suspect = name in record.suspect
            rank = (
                (record.event_time, record.session, record.sequence),
                struct.pack(">d", value),
                not suspect,
            )
            entry = reported.get(name)
            if entry and rank <= (
                (entry["t"], entry["n"], entry["s"]),
                struct.pack(">d", entry["v"]),
                "q" not in entry,
            ):
                continue
            newer += 1
            reported[name] = {
                "v": value, "t": record.event_time, "n": record.session, "s": record.sequence,
                "o": offset,
            } | ({"q": "suspect"} if suspect else {})  # fmt: skip
        counts.append(newer)
    return reported, counts


@given(LOGS, st.data(), st.booleans())
def test_columns_are_folded_as_the_law_says_of_each_signal(log, data, stored):
    """Values, origins, marks and counts are those of the definition, for any order and repetition;
    also of a twin that is stored and loaded between records."""
    log = shuffled(data.draw, log)
    twin = state.create("car-1", T0)
    counts = []
    for offset, record in enumerate(log):
        counts.append(state.fold(twin, sample(record), offset))
        if stored:
            twin = load(dump(twin))
        names = [name for group in twin["reported"].groups for name in group.names]
        assert len(names) == len(set(names))
    expected, expected_counts = by_definition(log)
    assert {name: repr(entry) for name, entry in twin["reported"].items()} == {
        name: repr(entry) for name, entry in expected.items()
    }
    assert counts == expected_counts


@given(LOGS, st.data())
def test_any_order_and_repetition_ends_in_the_same_values(log, data):
    """Value, event time, session, sequence and mark are equal, to the sign of zero."""
    assert final(shuffled(data.draw, log)) == final(log)


@given(LOGS)
def test_every_value_comes_from_the_log_and_is_the_greatest(log):
    """Against the definition: the maximum of (event_time, session, sequence) has the value."""
    for name, entry in final(log).items():
        times = [(r.event_time, r.session, r.sequence) for r in log if name in r.signals]
        newest = max(times)
        assert all(part in entry for part in (f"'t': {newest[0]}", f"'n': {newest[1]}"))
        candidates = [
            r.signals[name]
            for r in log
            if name in r.signals and (r.event_time, r.session, r.sequence) == newest
        ]
        assert any(f"'v': {value!r}," in entry for value in candidates)


@given(LOGS, st.data())
def test_a_late_or_repeated_record_leaves_the_revision(log, data):
    """The revision counts the records that brought something, whatever else arrives again."""
    world = World()
    for record in log:
        world.put(topics.TELEMETRY, record)
    before = world.twin["revision"], dict(world.twin["reported"])
    for record in shuffled(data.draw, log):
        effects = world.put(topics.TELEMETRY, record)
        assert effects.late == len(record.signals)
        assert not effects.changed
    assert (world.twin["revision"], world.twin["reported"]) == before
