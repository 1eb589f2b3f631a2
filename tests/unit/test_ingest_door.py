"""A door that rejects everything is not ready, by totals at given times."""

from ingest.door import ENOUGH, MINUTE_S, Door


def looks(door, *totals):
    """Look at (second, received, rejected); the fault after each."""
    faults = []
    for at_s, received, rejected in totals:
        door.look(at_s, received, rejected)
        faults.append(door.fault)
    return faults


def test_a_door_that_rejects_everything_names_the_most_frequent_reason():
    """With how many there were."""
    first, second = looks(Door(), (0, 0, {}), (5, ENOUGH, {"empty": 40, "unknown_schema": 60}))
    assert first == ""
    assert f"{ENOUGH} messages" in second
    assert "60 of them unknown_schema" in second


def test_one_that_is_accepted_makes_it_ready():
    """At once, though nearly everything is rejected."""
    faults = looks(
        Door(),
        (0, 0, {}),
        (5, 200, {"empty": 200}),
        (6, 301, {"empty": 300}),
        (7, 400, {"empty": 399}),
    )
    assert [bool(fault) for fault in faults] == [False, True, False, False]


def test_few_messages_say_nothing():
    """One car's mistake is no fault of the door."""
    assert looks(Door(), (0, 0, {}), (1, ENOUGH - 1, {"empty": ENOUGH - 1}))[1] == ""


def test_it_recovers_when_nothing_comes_any_more():
    """What was more than a minute ago does not count."""
    faults = looks(
        Door(),
        *((second, 500, {"empty": 500}) if second else (0, 0, {}) for second in range(0, 70, 1)),
    )
    assert faults[1]
    assert faults[int(MINUTE_S)]
    assert faults[-1] == ""


def test_what_was_accepted_long_ago_does_not_help():
    """Only the last minute counts, and it begins where the looks began."""
    faults = looks(
        Door(),
        *((second, 1000 + 10 * second, {"empty": 10 * second}) for second in range(0, 200)),
    )
    assert faults[5] == ""
    assert faults[10]
    assert faults[-1]


def test_looks_are_bounded_and_may_pause():
    """Looked at a thousand times a second it remembers no more; after a pause it begins anew."""
    door = Door()
    for number in range(10_000):
        door.look(number / 1000, number, {"empty": number})
    assert door.fault
    door.look(500.0, 10_000, {"empty": 10_000})
    assert door.fault == ""
