"""Up to when everything that arrived on a partition's inputs is told."""

import pytest
from faust.types import TP

from twin.stream.horizon import LOST_S, SETTLE_S, Horizon

TELEMETRY, OUTCOMES, OTHER = TP("telemetry", 0), TP("outcomes", 0), TP("telemetry", 1)
NOW = 1_000_000


class Looked:
    """A horizon that is looked at five times a second."""

    def __init__(self, **held):
        self.horizon = Horizon()
        self.horizon.place({TELEMETRY: 10, OUTCOMES: 5, OTHER: 0})
        self.ends = {TELEMETRY: 10, OUTCOMES: 5, OTHER: 0, **held}
        self.s = 100.0

    def after(self, seconds):
        """The horizons after so long."""
        end = self.s + seconds
        while self.s < end:
            self.s += 0.2
            found = self.look()
        return found

    def look(self):
        return self.horizon.look(self.ends.get, NOW + round(1000 * (self.s - 100)), self.s)

    @property
    def now(self):
        return NOW + round(1000 * (self.s - 100))


@pytest.fixture
def looked():
    """Three inputs of two partitions, of which everything is told."""
    return Looked()


def test_it_is_now_where_kafka_has_no_more(looked):
    """But not at once: what Kafka answered last may be of long ago."""
    assert looked.after(SETTLE_S - 0.4) == {0: 0, 1: 0}
    assert looked.after(1) == {0: looked.now, 1: looked.now}


def test_it_stays_where_it_was_while_something_is_unread(looked):
    """Of that partition alone, whichever of its inputs it is."""
    before = looked.after(5)[0]
    looked.ends[OUTCOMES] = 6
    assert looked.after(5) == {0: before, 1: looked.now}


def test_it_follows_what_is_told(looked):
    """With the arrival of the newest record told, and never back when a clock was behind."""
    looked.after(5)
    looked.ends[TELEMETRY] = 100
    looked.after(5)
    looked.horizon.told({TELEMETRY: 20}, {TELEMETRY: looked.now - 700})
    assert looked.look()[0] == looked.now - 700
    looked.horizon.told({TELEMETRY: 30}, {TELEMETRY: looked.now - 900})
    assert looked.look()[0] == looked.now - 700
    looked.horizon.told({TELEMETRY: 100}, {TELEMETRY: looked.now - 100})
    assert looked.look()[0] == looked.now


def test_a_record_of_the_future_is_no_more_than_now(looked):
    """A bridge whose clock is ahead makes nothing due before its time."""
    looked.after(5)
    looked.ends[TELEMETRY] = 100
    looked.horizon.told({TELEMETRY: 20}, {TELEMETRY: looked.now + 60_000})
    assert looked.look()[0] == looked.now


def test_after_a_stand_still_kafkas_last_answer_is_not_believed(looked):
    """Woken after minutes, it knows what Kafka had before; only after a while what it has now."""
    before = looked.after(5)[0]
    looked.s += 180
    assert looked.look()[0] == before
    looked.ends[TELEMETRY] = 5_000
    assert looked.after(SETTLE_S + LOST_S)[0] == before


def test_where_kafka_has_not_answered_nothing_is_known(looked):
    """None is not: nothing more."""
    looked.ends[OTHER] = None
    assert looked.after(5) == {0: looked.now, 1: 0}


def test_a_new_place_begins_anew(looked):
    """After a rebalance nothing is known of what is held now, nor of what is not."""
    looked.after(5)
    looked.horizon.place({TELEMETRY: 10})
    assert looked.look() == {0: 0}
