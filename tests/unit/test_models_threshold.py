"""Thresholds from healthy cars."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.debounce import Debounce
from models.threshold import above_all, alarm_level, extreme, gumbel

scores = st.lists(st.floats(0, 100, width=32), min_size=1, max_size=40)
counts = st.integers(1, 6).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n)))


@given(scores, counts, st.floats(0, 100, width=32))
def test_a_car_alarms_exactly_below_its_alarm_level(
    values: list[float], kn: tuple[int, int], threshold: float
) -> None:
    """The debounce opens an alarm at a threshold if and only if it lies below the alarm level."""
    k, n = kn
    state = Debounce(k=k, n=n, calm=1000, release=1.0).start()
    for value in values:
        state.push(value, threshold)
    assert state.alarm == (threshold < alarm_level(np.array(values), k, n))


def test_a_car_with_too_few_rows_has_no_level() -> None:
    """Fewer than k rows cannot raise an alarm at any threshold."""
    assert alarm_level(np.array([9.0, 9.0]), 3, 5) == -math.inf


def test_gumbel_finds_the_distribution_it_was_drawn_from() -> None:
    """Location and scale come back from 20,000 draws to two percent."""
    drawn = np.random.default_rng(1).gumbel(3.0, 0.5, 20_000)
    assert gumbel(drawn.tolist()) == pytest.approx((3.0, 0.5), rel=0.02)


def test_a_rarer_alarm_needs_a_higher_threshold() -> None:
    """The fitted tail rises as the allowed share of cars falls, by the Gumbel's own formula."""
    drawn = np.random.default_rng(2).gumbel(3.0, 0.5, 5_000).tolist()
    rare = extreme(drawn, 1e-5)
    assert rare == pytest.approx(3.0 + 0.5 * math.log(1e5), rel=0.05)
    assert rare > extreme(drawn, 1e-2)


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=30), st.floats(1e-6, 0.5))
def test_no_calibration_car_would_have_alarmed(levels: list[float], share: float) -> None:
    """The threshold is never below the highest level seen, whatever the tail says."""
    assert extreme(levels, share) >= above_all(levels) >= max(levels)
