"""Intervals of remaining life that hold the truth as often as they say."""

import numpy as np
import pytest

from models.conformal import Interval
from models.errors import NotEnoughData

CAP = 100.0


def _vehicles(seed: int, count: int) -> tuple[np.ndarray, ...]:
    """(left, told, vehicles): each vehicle errs in its own way, at 5 to 60 moments."""
    rng = np.random.default_rng(seed)
    windows = rng.integers(5, 60, count)
    vehicles = np.repeat(np.arange(count), windows)
    left = rng.uniform(0, 90, vehicles.size)
    told = left + rng.normal(0, 6, count)[vehicles] + rng.normal(0, 2, vehicles.size)
    return left, np.clip(told, 0, CAP), vehicles


def test_new_vehicles_are_held_as_often_as_promised() -> None:
    """Fitted on 60 vehicles, over 40 deals, it holds 90 % of the moments of others, and few more."""
    held = []
    for deal in range(40):
        left, told, vehicles = _vehicles(2 * deal, 60)
        interval = Interval.fit(told, told, left, vehicles, cap=CAP, share=0.9)
        left, told, vehicles = _vehicles(2 * deal + 1, 200)
        low, high = interval(told, told, told)
        inside = (low <= left) & ((left <= high) | (high >= CAP))
        held.append(np.average(inside, weights=1 / np.bincount(vehicles)[vehicles]))
    assert 0.89 < np.mean(held) < 0.95


def test_a_vehicle_has_one_vote_however_many_windows_it_has() -> None:
    """A thousand perfect windows of one vehicle do not outvote nine others that are 10 off."""
    left = np.full(1009, 50.0)
    vehicles = np.concatenate([np.zeros(1000, int), np.arange(1, 10)])
    told = np.where(vehicles == 0, 50.0, 40.0)
    assert Interval.fit(told, told, left, vehicles, cap=CAP, share=0.9).widen == 10.0


def test_quantiles_that_are_too_wide_are_narrowed() -> None:
    """What the network says too carefully is taken back, yet the prediction stays inside."""
    left = np.full(20, 50.0)
    interval = Interval.fit(left - 30, left + 30, left, np.arange(20), cap=CAP, share=0.9)
    assert interval.widen == -30.0
    low, high = interval(np.array([50.0]), np.array([45.0]), np.array([55.0]))
    assert (low[0], high[0]) == (50.0, 50.0)


def test_an_interval_stays_within_life_and_cap() -> None:
    """It begins at 0 and ends at the cap, where it is open."""
    low, high = Interval(20.0, CAP)(
        np.array([5.0, 95.0]), np.array([3.0, 90.0]), np.array([9.0, 97])
    )
    assert low.tolist() == [0.0, 70.0]
    assert high.tolist() == [29.0, CAP]


def test_life_beyond_the_cap_is_held_by_an_open_end() -> None:
    """A vehicle that lasts far longer than the cap is no error of a prediction at the cap."""
    left = np.full(20, 1000.0)
    told = np.full(20, CAP)
    assert Interval.fit(told, told, left, np.arange(20), cap=CAP, share=0.9).widen == 0.0


@pytest.mark.parametrize("vehicles", [0, 8])
def test_too_few_vehicles_promise_nothing(vehicles: int) -> None:
    """90 % need nine vehicles, and the error says so."""
    left = np.full(vehicles, 50.0)
    with pytest.raises(NotEnoughData, match="needs 9"):
        Interval.fit(left, left, left, np.arange(vehicles), cap=CAP, share=0.9)
    left = np.full(9, 50.0)
    assert Interval.fit(left, left, left, np.arange(9), cap=CAP, share=0.9).widen == 0.0
