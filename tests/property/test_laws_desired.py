"""Desired and config: merge patch, difference, and convergence over a bad connection."""

from hypothesis import given
from hypothesis import strategies as st

from tests.twin_builders import World
from twin.patch import difference, equal
from twin.wire.merge import merge_patch

NAMES = st.sampled_from(["a", "b", "c"])
SCALARS = st.one_of(st.booleans(), st.integers(-1, 2), st.sampled_from(["", "x"]))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(NAMES, inner, max_size=2)),
    max_leaves=6,
)
DOCUMENTS = st.dictionaries(NAMES, VALUES, max_size=3)
PATCHES = st.dictionaries(NAMES, st.one_of(st.none(), VALUES), max_size=3)


@given(DOCUMENTS, DOCUMENTS)
def test_the_difference_is_a_patch_that_leaves_none(wanted, actual):
    """A car that applies the delta has what is wanted."""
    after = merge_patch(actual, difference(wanted, actual))
    assert difference(wanted, after) == {}


@given(DOCUMENTS, DOCUMENTS)
def test_there_is_no_difference_only_if_all_that_is_wanted_is_so(wanted, actual):
    """An empty delta is no oversight: every member is there, objects member by member."""

    def holds(want, have):
        if isinstance(want, dict):
            return isinstance(have, dict) and all(
                n in have and holds(want[n], have[n]) for n in want
            )
        return equal(want, have)

    assert (difference(wanted, actual) == {}) is holds(wanted, actual)


@given(DOCUMENTS, PATCHES)
def test_a_patch_applied_twice_is_applied_once(document, patch):
    """RFC 7396 patches repeat without harm."""
    once = merge_patch(document, patch)
    assert merge_patch(once, patch) == once


@given(st.lists(st.tuples(st.sampled_from(["patch", "put"]), PATCHES), min_size=1, max_size=6))
def test_the_version_counts_accepted_requests_and_the_delta_is_computed(asked):
    """One more per request; delta = desired against config at any time."""
    world = World()
    world.reported(1, 1, {"a": 1, "b": {"c": True}})
    for number, (operation, value) in enumerate(asked, 1):
        world.desire(value, op=operation)
        desired = world.twin["desired"]
        assert desired["version"] == number
        assert world.twin["delta"] == difference(desired["properties"], world.twin["config"])
        assert set(desired["status"]) == set(desired["properties"])


class Car:
    """A car that applies the newest delta it hears and confirms its whole configuration."""

    def __init__(self):
        self.config, self.version, self.session, self.sequence = {}, 0, 0, 0

    def hear(self, payload):
        if payload["version"] >= self.version:
            self.version = payload["version"]
            self.config = merge_patch(self.config, payload["delta"])

    def connect(self):
        self.session, self.sequence, self.version = self.session + 1, 0, 0

    def confirmation(self):
        self.sequence += 1
        return self.session, self.sequence, self.config, self.version


@given(st.data())
def test_a_bad_connection_still_converges(data):
    """Downlinks and confirmations dropped, repeated and out of order: after the last session's word
    is confirmed nothing is left to say, and every property is acked."""
    world, car = World(), Car()
    world.telemetry(speed=1.0)
    confirmations = []
    for _ in range(data.draw(st.integers(1, 8))):
        world.now += 1
        step = data.draw(st.sampled_from(["desire", "connect", "confirm", "arrive"]))
        effects = None
        if step == "desire":
            operation = data.draw(st.sampled_from(["patch", "put"]))
            effects = world.desire(data.draw(PATCHES), op=operation)
        elif step == "connect":
            car.connect()
            effects = world.online(car.session)
        elif step == "confirm" and car.session:
            confirmations.append(car.confirmation())
        elif confirmations:
            arrived = data.draw(st.sampled_from(confirmations))
            effects = world.reported(*arrived[:3], desired_version=arrived[3])
        for downlink in effects.downlinks if effects else ():
            if data.draw(st.booleans()):
                car.hear(downlink["payload"])
    car.connect()
    for downlink in world.online(car.session).downlinks:
        car.hear(downlink["payload"])
    session, sequence, config, version = car.confirmation()
    for downlink in world.reported(session, sequence, config, desired_version=version).downlinks:
        # What the car had lost on its own shows with its first word, and is said once more.
        car.hear(downlink["payload"])
    session, sequence, config, version = car.confirmation()
    world.reported(session, sequence, config, desired_version=version)
    assert world.twin["delta"] == {}
    assert {s["state"] for s in world.twin["desired"]["status"].values()} <= {"acked"}
    assert world.online(car.session + 1).downlinks == []
