"""Detectors judged by events."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.debounce import Debounce
from models.evaluate import Life, auc, debounced, events
from models.labels import Fate

TIMES = np.arange(0, 100_000, 1000)
HEALTHY = Fate("h")
BROKEN = Fate("b", "cooling", onset=30_000, failure=80_000, failed=True)


def _life(fate: Fate, place: int = 0) -> Life:
    return Life(fate, np.arange(TIMES.size) + place * TIMES.size, TIMES)


def _alarm(*seconds: int, lives: int = 1) -> np.ndarray:
    alarm = np.zeros(TIMES.size * lives, dtype=bool)
    alarm[list(seconds)] = True
    return alarm


def test_an_alarm_between_onset_and_failure_is_a_detection_with_its_lead() -> None:
    """The lead is counted from the first alarm after the onset to the failure."""
    found = events([_life(BROKEN)], _alarm(50, 51))
    assert (found["failures"], found["detected"], found["lead_s"]) == (1, 1, 30.0)
    assert found["by_mode"] == {"cooling": {"failures": 1, "detected": 1, "lead_s": 30.0}}
    assert found["false_alarms_before_onset"] == 0


@pytest.mark.parametrize("second", [10, 80, 90])
def test_an_alarm_at_another_time_is_no_detection(second: int) -> None:
    """Before the onset it is luck, from the failure on it is too late."""
    found = events([_life(BROKEN)], _alarm(second))
    assert (found["detected"], found["lead_s"]) == (0, None)
    assert found["false_alarms_before_onset"] == int(second < 30)


def test_a_healthy_car_that_alarms_is_one_false_alarm() -> None:
    """However often it alarms."""
    found = events([_life(HEALTHY), _life(HEALTHY, 1)], _alarm(3, 4, 70, lives=2))
    assert (found["healthy"], found["false_alarms"], found["failures"]) == (2, 1, 0)


def test_a_car_that_has_not_failed_yet_counts_neither_way() -> None:
    """Its failure is still to come: no detection, no miss, no false alarm."""
    fate = Fate("d", "battery", onset=30_000, failure=200_000, failed=False)
    found = events([_life(fate)], _alarm(60))
    assert (found["failures"], found["healthy"], found["false_alarms"]) == (0, 0, 0)


def test_rows_without_a_score_leave_the_debounce_alone() -> None:
    """NaN rows neither open nor close an alarm."""
    policy = Debounce(k=2, n=3, calm=2, release=1.0)
    values = np.array([np.nan, 2.0, np.nan, 2.0, np.nan, 0.0, 0.0])
    assert debounced(values, 1.0, policy).tolist() == [False] * 3 + [True] * 3 + [False]


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40))
def test_auc_is_the_share_of_ordered_pairs(pairs: list[tuple[int, bool]]) -> None:
    """Ties count half; without both classes there is no answer."""
    values = np.array([v for v, _ in pairs], dtype=float)
    labels = np.array([label for _, label in pairs])
    high, low = values[labels], values[~labels]
    if not high.size or not low.size:
        assert auc(values, labels) is None
        return
    won = (high[:, None] > low).mean() + (high[:, None] == low).mean() / 2
    assert auc(values, labels) == pytest.approx(won, abs=1e-4)
