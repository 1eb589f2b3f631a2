"""Late and duplicate telemetry: counted per car, once each by offset, and without a revision."""

from tests.twin_builders import T0, World, telemetry
from twin.wire import topics


def say(world, event_time, session=1, sequence=1, **signals):
    return world.put(topics.TELEMETRY, telemetry(event_time, session, sequence, **signals))


def counts(world):
    return world.twin.get("counts")


def test_news_are_not_counted():
    """A car whose records come in order has no counts at all."""
    world = World()
    for n in range(3):
        say(world, T0 + n, sequence=n, speed=1.0)
    assert counts(world) is None


def test_an_older_record_is_late():
    """Wholly or in part; the values that are newer still count."""
    world = World()
    say(world, T0, sequence=1, speed=1.0)
    effects = say(world, T0 - 1, sequence=0, speed=2.0)
    assert (effects.late, effects.duplicate, effects.changed) == (1, False, False)
    assert counts(world) == {"late": 1, "duplicates": 0}
    effects = say(world, T0 - 1, sequence=0, speed=2.0, coolant_temp=90.0)
    assert (effects.late, effects.duplicate, effects.changed) == (1, False, True)
    assert counts(world) == {"late": 2, "duplicates": 0}
    assert world.twin["reported"]["coolant_temp"]["v"] == 90.0


def test_the_same_record_at_another_offset_is_a_duplicate():
    """A QoS 1 repetition of what the twin has."""
    world = World()
    for _ in range(3):
        effects = say(world, T0, speed=1.0, coolant_temp=90.0)
    assert (effects.late, effects.duplicate, effects.outdated) == (2, True, True)
    assert counts(world) == {"late": 0, "duplicates": 2}


def test_a_copy_of_an_older_record_counts_as_late():
    """It cannot be told from one that was held up."""
    world = World()
    say(world, T0, sequence=1, speed=1.0)
    say(world, T0 + 1, sequence=2, speed=2.0)
    assert not say(world, T0, sequence=1, speed=1.0).duplicate
    assert counts(world) == {"late": 1, "duplicates": 0}


def test_a_record_of_which_one_value_was_overtaken_is_no_duplicate():
    """Its other value is equal; the record as a whole is late."""
    world = World()
    say(world, T0, sequence=1, speed=1.0, coolant_temp=90.0)
    say(world, T0 + 1, sequence=2, speed=2.0)
    assert not say(world, T0, sequence=1, speed=1.0, coolant_temp=90.0).duplicate
    assert counts(world) == {"late": 1, "duplicates": 0}


def test_a_replayed_record_is_not_counted():
    """Law 2: by its offset it was applied before, counters included."""
    world = World()
    say(world, T0, speed=1.0)
    say(world, T0, speed=1.0)
    revision = world.twin["revision"]
    for record in world.log:
        assert world.feed(*record).repeated
    assert counts(world) == {"late": 0, "duplicates": 1}
    assert world.twin["revision"] == revision


def test_counting_alone_makes_no_revision():
    """Bookkeeping, like `applied`."""
    world = World()
    say(world, T0, speed=1.0)
    revision, updated = world.twin["revision"], world.twin["updated_at"]
    world.now += 5
    say(world, T0, speed=1.0)
    assert (world.twin["revision"], world.twin["updated_at"]) == (revision, updated)


def test_a_stale_car_that_repeats_itself_is_counted():
    """Off the hot path, too; and it stays stale."""
    world = World()
    world.online(1)
    say(world, T0, speed=1.0)
    world.due("presence", "1", T0 + world.context.stale_after_ms)
    say(world, T0, speed=1.0)
    assert world.twin["presence"]["state"] == "stale"
    assert counts(world) == {"late": 0, "duplicates": 1}
