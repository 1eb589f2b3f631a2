"""The rate limit of a car: what passes, what is remembered, what time does to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.rate import BURST_S, MOST_BACKLOG_MS, RateLimit

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


def test_what_comes_first_may_have_waited():
    """Nobody read for five minutes before this limit began; for more than an hour is as for an hour."""
    assert passed(RateLimit(1, away_ms=300_000), "a", T0, 1000) == BURST_S + 310
    assert passed(RateLimit(1, away_ms=10**9), "a", T0, 9000) == BURST_S + MOST_BACKLOG_MS // 1000


def test_after_a_silence_of_all_what_had_to_wait_passes():
    """Kafka was away five minutes: a car's messages of that time come together."""
    limit = RateLimit(1)
    assert limit.admit("a", T0)
    back = T0 + 300_000
    assert passed(limit, "a", back, 300) == 300
    # When as much time has passed again the allowance is over.
    later = back + 400_000
    for second in range(400):
        limit.admit("b", back + second * 1000)
    assert passed(limit, "a", later, 300) == BURST_S


def test_a_silence_counts_as_one_hour_at_most():
    """Brokers keep sessions about as long."""
    limit = RateLimit(1)
    limit.admit("a", T0)
    most = MOST_BACKLOG_MS // 1000 + BURST_S
    assert passed(limit, "a", T0 + 86_400_000, most + 100) == most


def test_without_a_silence_nothing_more_passes():
    """Others were heard all the time, so there is no backlog."""
    limit = RateLimit(1)
    for second in range(100):
        limit.admit("b", T0 + second * 1000)
    assert passed(limit, "a", T0 + 100_000, 100) == BURST_S


def test_a_clock_that_is_set_back_refuses_nobody_for_long():
    """What was to be full in what is now the future is not known any more."""
    limit = RateLimit(1)
    passed(limit, "a", T0, 100)
    assert passed(limit, "a", T0 - 3_600_000, 100) == BURST_S


def test_what_is_remembered_is_bounded():
    """Full buckets are forgotten, and there are never more than two generations."""
    limit = RateLimit(50, most=100)
    for number in range(1000):
        limit.admit(f"car-{number}", T0 + number)
        assert len(limit) <= 200
    limit = RateLimit(50)
    for generation in range(5):
        for number in range(50):
            limit.admit(f"car-{generation}-{number}", T0 + generation * 10_000)
    assert len(limit) == 100


@given(
    st.lists(st.tuples(st.integers(0, 3000), st.sampled_from("ab")), max_size=300),
    st.sampled_from([1, 3, 50]),
)
def test_no_car_gets_more_than_bucket_and_rate_without_a_backlog(steps, rate):
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
