"""Whether chances and remaining lives mean what they say."""

import numpy as np
import pytest

from models.reliability import Bin, alpha_lambda, bins, expected_calibration_error

RNG = np.random.default_rng(3)


def test_chances_that_come_true_as_often_as_told_have_no_error() -> None:
    """Outcomes drawn from the chances themselves leave only the noise of the draw."""
    chance = RNG.random(200_000)
    error = expected_calibration_error(chance, RNG.random(chance.size) < chance)
    assert error == pytest.approx(0, abs=0.01)


def test_the_error_is_the_mean_gap() -> None:
    """A chance of 0.9 that comes true half of the time is 0.4 too sure."""
    chance, came = np.full(10, 0.9), np.arange(10) % 2 == 0
    assert expected_calibration_error(chance, came) == pytest.approx(0.4)


def test_weights_count_vehicles_instead_of_windows() -> None:
    """Three windows of one vehicle, a third each, weigh as much as one of another."""
    chance = np.array([0.2, 0.2, 0.2, 0.8])
    came = np.array([False, False, False, False])
    weight = np.array([1 / 3, 1 / 3, 1 / 3, 1.0])
    assert bins(chance, came, weight) == [
        Bin(pytest.approx(0.2), 0.0, pytest.approx(0.5)),
        Bin(pytest.approx(0.8), 0.0, pytest.approx(0.5)),
    ]


def test_a_certainty_falls_into_the_last_bin() -> None:
    """0 and 1 are chances, too."""
    assert bins(np.array([0.0, 1.0]), np.array([False, True])) == [
        Bin(0.0, 0.0, 0.5),
        Bin(1.0, 1.0, 0.5),
    ]


def test_nothing_told_has_no_error() -> None:
    """Without a window there is None, not zero."""
    nothing = np.empty(0)
    assert expected_calibration_error(nothing, nothing.astype(bool)) is None
    assert alpha_lambda(nothing, nothing, 0.2) is None


@pytest.mark.parametrize("chance", [-0.1, 1.1, np.nan])
def test_what_is_no_chance_is_refused(chance: float) -> None:
    """Below 0, above 1 and NaN are named."""
    with pytest.raises(ValueError, match="from 0 to 1"):
        bins(np.array([chance]), np.array([True]))


def test_shapes_that_differ_are_refused() -> None:
    """One outcome for each chance."""
    with pytest.raises(ValueError, match="accepted"):
        bins(np.zeros(2), np.zeros(3, dtype=bool))
    with pytest.raises(ValueError, match="accepted"):
        alpha_lambda(np.zeros(2), np.zeros(3), 0.2)


def test_a_life_is_told_well_within_its_share() -> None:
    """80 and 120 are within a fifth of 100, 79 and 121 are not."""
    told = np.array([79.0, 80.0, 120.0, 121.0])
    assert alpha_lambda(told, np.full(4, 100.0), 0.2) == 0.5
