"""The rate limit of a car: what passes, what is remembered, what time does to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.rate import BURST_S, RateLimit

T0 = 1_700_000_000_000


def passed(limit, topic, at_ms, count):
    """How many of `count` messages at once pass."""
    return sum(limit.admit(topic, at_ms) for _ in range(count))


def test_what_comes_in_ten_seconds_may_come_at_once():
    """A car that kept its messages for a while loses none; one more does not pass."""
    assert passed(RateLimit(50), "a", T0, 600) == 50 * BURST_S


def test_over_longer_times_nobody_is_above_the_rate():
    """A car that floods for an hour gets its rate, and what a bucket holds once."""
    limit = RateLimit(2)
    through = sum(passed(limit, "a", T0 + second * 1000, 10) for second in range(3600))
    assert through == pytest.approx(2 * 3600 + 2 * BURST_S, abs=2)


def test_a_car_at_the_rate_is_never_refused():
    """However long it goes on."""
    limit = RateLimit(4)
    assert all(limit.admit("a", T0 + tick * 250) for tick in range(4000))


def test_cars_and_topics_do_not_share():
    """A flood on one topic costs no other one anything."""
    limit = RateLimit(1)
    assert passed(limit, "vehicles/a/telemetry", T0, 100) == BURST_S
    assert limit.admit("vehicles/a/status", T0)
    assert limit.admit("vehicles/b/telemetry", T0)


def test_a_rate_below_one_in_ten_seconds_still_lets_one_through():
    """The next one when its time has come."""
    limit = RateLimit(0.01)
    assert passed(limit, "a", T0, 3) == 1


def test_what_waited_passes_and_counts_nothing():
    """A backlog of any length; the message after it finds the bucket as it was before."""
    limit = RateLimit(1)
    assert passed(limit, "a", T0, 4) == 4
    assert all(limit.admit("a", T0 + number, backlog=True) for number in range(5_000))
    assert len(limit) == 1
    assert passed(limit, "a", T0, 100) == BURST_S - 4


def test_nobody_gets_a_second_bucket_by_waiting():
    """After any pause a flooding car has what has filled meanwhile, and no more."""
    for pause_s in range(1, 3 * BURST_S):
        limit = RateLimit(1)
        assert passed(limit, "a", T0, 100) == BURST_S
        assert limit.admit("b", T0 + pause_s * 500)
        assert passed(limit, "a", T0 + pause_s * 1000, 100) == min(pause_s, BURST_S)


def test_several_processes_share_the_rate():
    """Each admits its part, however few that is; a part below one in ten seconds lets one through."""
    limit = RateLimit(50)
    assert sum(limit.admit("a", T0, sharers=4) for _ in range(1000)) == 50 * BURST_S // 4
    slow = RateLimit(1)
    steps = [slow.admit("a", T0 + second * 1000, sharers=64) for second in range(256)]
    assert sum(steps) == 4


def test_a_clock_that_is_set_back_refuses_nobody_for_long():
    """What was to be full in what is now the future is not known any more."""
    limit = RateLimit(1)
    passed(limit, "a", T0, 100)
    assert passed(limit, "a", T0 - 3_600_000, 100) == BURST_S


def test_only_full_buckets_are_forgotten():
    """However many cars come, one that has flooded stays held."""
    limit = RateLimit(1)
    assert passed(limit, "flood", T0, 100) == BURST_S
    for number in range(20_000):
        limit.admit(f"car-{number}", T0 + number // 4)
    assert passed(limit, "flood", T0 + 4_999, 100) == 4
    assert len(limit) <= 10_000, "a bucket is full a second after its only message"


def test_what_is_remembered_is_bounded():
    """Where there is no room a newcomer passes, those that are held stay so, and full ones make room."""
    limit = RateLimit(1, most=100)
    for number in range(100):
        assert passed(limit, f"car-{number}", T0, 20) == BURST_S
    assert passed(limit, "new", T0, 1000) == 1000
    assert len(limit) == 100
    assert passed(limit, "car-0", T0, 1) == 0
    assert passed(limit, "new", T0 + 500, 100) == 100
    assert passed(limit, "new", T0 + BURST_S * 1000, 100) == BURST_S
    assert len(limit) == 1


@given(
    st.lists(st.tuples(st.integers(0, 3000), st.sampled_from("ab")), max_size=300),
    st.sampled_from([1, 3, 50]),
)
def test_no_car_gets_more_than_bucket_and_rate(steps, rate):
    """Whatever the rhythm: over any time at most the rate and one bucket."""
    limit = RateLimit(rate)
    now, through = T0, {"a": [], "b": []}
    for wait, car in steps:
        now += wait
        if limit.admit(car, now):
            through[car].append(now)
    for times in through.values():
        for first in range(0, len(times), 7):
            span = (times[-1] - times[first]) / 1000
            assert len(times) - first <= rate * (span + BURST_S) + 1
