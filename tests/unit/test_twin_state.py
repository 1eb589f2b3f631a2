"""The twin document: telemetry per signal by event time, and records applied once."""

import pytest

from tests.twin_builders import T0, World, kinds, sample, telemetry
from twin import state
from twin.apply import NEW_VALUES
from twin.wire import topics
from twin.wire.records import Position


def folded(*records):
    twin = state.create("car-1", T0)
    for offset, record in enumerate(records):
        state.fold(twin, sample(record), offset)
    return twin["reported"]


def test_a_value_keeps_when_and_from_which_record_it_came():
    """An entry holds value, event time, session, sequence and offset."""
    reported = folded(telemetry(5, session=7, sequence=9, speed=1.5))
    assert reported == {"speed": {"v": 1.5, "t": 5, "n": 7, "s": 9, "o": 0}}


@pytest.mark.parametrize(
    ("first", "second", "winner"),
    [
        pytest.param((10, 1, 1, 1.0), (9, 9, 9, 9.0), 1.0, id="later event time wins"),
        pytest.param((10, 2, 1, 1.0), (10, 1, 9, 9.0), 1.0, id="then the later session"),
        pytest.param((10, 1, 2, 1.0), (10, 1, 1, 9.0), 1.0, id="then the higher sequence"),
        pytest.param((10, 1, 1, 2.0), (10, 1, 1, 1.0), 2.0, id="then the greater bytes"),
        pytest.param((10, 1, 1, -1.0), (10, 1, 1, 1.0), -1.0, id="the sign is the first bit"),
    ],
)
def test_the_greater_of_two_values_stays_in_both_orders(first, second, winner):
    """(event_time, session, sequence, bytes) decides, not arrival."""
    a, b = (telemetry(t, n, s, speed=v) for t, n, s, v in (first, second))
    assert folded(a, b)["speed"]["v"] == winner
    assert folded(b, a)["speed"]["v"] == winner


def test_signals_are_judged_one_by_one():
    """A late record still brings the signals that the newer one did not have."""
    reported = folded(telemetry(10, speed=2.0), telemetry(9, speed=1.0, coolant_temp=90.0))
    assert reported["speed"]["v"] == 2.0
    assert reported["coolant_temp"]["t"] == 9


def test_a_suspect_value_is_kept_with_its_mark_and_loses_it_with_the_next():
    """`q` follows the value, not the signal."""
    bad = telemetry(1, suspect=["speed"], speed=500.0, coolant_temp=90.0)
    reported = folded(bad)
    assert reported["speed"]["q"] == "suspect"
    assert "q" not in reported["coolant_temp"]
    assert "q" not in folded(bad, telemetry(2, speed=5.0))["speed"]
    assert folded(telemetry(0, speed=5.0), bad)["speed"]["q"] == "suspect"


def test_of_equal_values_the_trusted_one_stays():
    """The same value, once suspect and once not, is trusted in both orders."""
    good, bad = telemetry(1, speed=5.0), telemetry(1, suspect=["speed"], speed=5.0)
    assert "q" not in folded(good, bad)["speed"]
    assert "q" not in folded(bad, good)["speed"]


def test_late_values_are_counted_and_leave_the_revision():
    """A wholly late record changes nothing but `applied`."""
    world = World()
    world.put(topics.TELEMETRY, telemetry(10, speed=2.0, coolant_temp=1.0))
    before = world.twin["revision"], world.twin["updated_at"]
    world.now += 5
    effects = world.put(topics.TELEMETRY, telemetry(9, speed=1.0, coolant_temp=2.0))
    assert (effects.late, effects.changed, effects.outdated) == (2, False, True)
    assert (world.twin["revision"], world.twin["updated_at"]) == before
    assert world.twin["applied"]["telemetry"] == [3, 1]


def test_a_partly_late_record_counts_what_was_late():
    """One of two values newer: one late, and the revision grows."""
    world = World()
    world.put(topics.TELEMETRY, telemetry(10, speed=2.0))
    effects = world.put(topics.TELEMETRY, telemetry(9, speed=1.0, coolant_temp=2.0))
    assert (effects.late, effects.changed) == (1, True)
    assert world.twin["revision"] == 2


def test_a_record_of_known_signals_takes_their_group_whole():
    """The usual case: all values new, one origin; of an older record nothing."""
    both = {"speed": 1.0, "coolant_temp": 90.0}
    twin = state.create("car-1", T0)
    counts = [
        state.fold(twin, sample(telemetry(*order, **both)), offset)
        for offset, order in enumerate([(5, 1, 1), (5, 1, 2), (5, 2, 1), (4, 9, 9), (5, 2, 0)])
    ]
    assert counts == [2, 2, 2, 0, 0]
    (group,) = twin["reported"].groups
    assert (group.t, group.n, group.s, group.o) == (5, 2, 1, 2)


def test_signals_of_other_records_stay_in_their_own_columns():
    """A car may send position and engine apart: neither record touches the other's group."""
    reported = folded(
        telemetry(1, speed=1.0, coolant_temp=90.0),
        telemetry(2, engine_load=0.5),
        telemetry(3, speed=3.0, coolant_temp=91.0),
    )
    assert [group.names for group in reported.groups] == [
        ("coolant_temp", "speed"),
        ("engine_load",),
    ]
    assert {name: entry["t"] for name, entry in reported.items()} == {
        "coolant_temp": 3,
        "speed": 3,
        "engine_load": 2,
    }


def test_reported_reads_like_the_mapping_of_the_document():
    """get, in, [], len and == of a plain object; a value alone for the index."""
    reported = folded(telemetry(1, speed=1.0, coolant_temp=90.0), telemetry(2, speed=2.0))
    assert reported.get("warp") is None
    assert "speed" in reported
    assert "warp" not in reported
    assert len(reported) == 2
    assert (reported.value("speed"), reported.value("warp")) == (2.0, None)
    assert reported == dict(reported)
    assert reported != {}
    with pytest.raises(KeyError):
        reported["warp"]


def test_the_effects_of_plain_telemetry_are_shared_and_cannot_be_filled():
    """A shell that wrote into them would write into those of every car."""
    world = World()
    world.telemetry(speed=1.0)
    world.now += 1
    effects = world.telemetry(speed=2.0)
    assert effects is NEW_VALUES
    with pytest.raises(AttributeError):
        effects.changes.append({})


def test_the_first_message_makes_the_twin():
    """Creation is told, and is revision 1; of presence nothing is known yet."""
    world = World()
    effects = world.telemetry(speed=1.0)
    assert kinds(effects) == ["created"]
    assert world.twin["revision"] == 1
    assert world.twin["presence"]["state"] == "unknown"
    assert (world.twin["created_at"], world.twin["updated_at"]) == (T0, T0)


def test_a_record_is_applied_once_by_its_offset():
    """At or below the last offset of the partition a record is skipped whole (law 2)."""
    world = World()
    world.put(topics.TELEMETRY, telemetry(1, speed=1.0))
    world.put(topics.TELEMETRY, telemetry(2, speed=2.0))
    for topic, value, position, at in world.log:
        effects = world.feed(topic, value, position, at)
        assert effects.repeated
        assert not effects.changed
        assert not effects.late
    assert world.twin["revision"] == 2


def test_offsets_of_another_partition_do_not_compare():
    """After the topic was made anew with other partitions its offsets begin again."""
    twin = state.create("car-1", T0)
    twin["applied"]["telemetry"] = [3, 100]
    position = Position(topic="telemetry", partition=3, offset=100)
    assert state.was_applied(twin, position)
    assert not state.was_applied(twin, {**position, "offset": 101})
    assert not state.was_applied(twin, {**position, "partition": 4})
    assert not state.was_applied(twin, {**position, "topic": "scores"})
