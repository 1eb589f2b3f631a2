"""Baselines and means of residuals: what makes a car differ from itself and its fleet."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.features import FEATURES, REGIMES
from models.trend import BOUND, MEMORY, WARM_UP, Norms, Trends

SHAPE = (len(REGIMES), len(FEATURES))
FAST, SLOW = REGIMES.index("fast"), REGIMES.index("slow")


def _norms(*, noise: float = 1.0, spread: float = 0.0, scale: float = 1.0) -> Norms:
    return Norms(*(np.full(SHAPE, value, np.float32) for value in (noise, spread, scale)))


def _rows(*values: float) -> np.ndarray:
    """One row for each value, the same in every feature."""
    return np.repeat(np.array(values, np.float32)[:, None], len(FEATURES), axis=1)


def _push(trends: Trends, values: list[float], regime: int = FAST, slot: int = 0) -> np.ndarray:
    n = len(values)
    return trends.push(np.full(n, slot), np.full(n, regime), _rows(*values))[:, 0]


def test_nothing_is_said_without_a_baseline() -> None:
    """WARM_UP - 1 rows of a regime say nothing, the next one does."""
    said = _push(Trends(_norms()), [0.5] * WARM_UP)
    assert np.isnan(said[:-1]).all()
    assert said[-1] == pytest.approx(0.5)


def test_what_a_healthy_car_always_had_is_taken_out() -> None:
    """An offset within the spread of the fleet goes; a later change stays."""
    trends = Trends(_norms(noise=0.01, spread=1.0))
    assert _push(trends, [1.5] * (2 * WARM_UP))[-1] == pytest.approx(0, abs=0.01)
    assert _push(trends, [2.5] * 100)[-1] == pytest.approx(1.0, abs=0.02)


def test_a_car_that_begins_degraded_is_not_taken_for_normal() -> None:
    """The baseline moves by BOUND of the cars' deviations at the most."""
    said = _push(Trends(_norms(noise=0.01, spread=1.0)), [10.0] * (2 * WARM_UP))
    assert said[-1] == pytest.approx(10.0 - BOUND)


def test_a_baseline_of_noise_is_not_believed() -> None:
    """Where cars do not differ, an odd beginning teaches nothing."""
    assert _push(Trends(_norms(noise=1.0, spread=0.001)), [3.0] * WARM_UP)[-1] == pytest.approx(
        3.0, abs=0.01
    )


def test_a_regime_keeps_its_last_word() -> None:
    """A fault that shows at speed still stands at a red light."""
    trends = Trends(_norms())
    _push(trends, [5.0] * WARM_UP, FAST)
    assert _push(trends, [0.0] * WARM_UP, SLOW).tolist() == pytest.approx([5.0] * WARM_UP)


def test_what_is_not_judged_never_scores() -> None:
    """An infinite scale silences a signal, and survives the artefact's JSON."""
    scale = np.full(SHAPE, np.inf, np.float32)
    norms = Norms.from_json(_norms().scaled(scale).to_json())
    assert _push(Trends(norms), [1e6] * WARM_UP)[-1] == 0


def test_norms_of_another_program_are_refused() -> None:
    """Other constants or shapes would give other scores than at the trainer."""
    told = _norms().to_json()
    with pytest.raises(ValueError, match="another rule"):
        Norms.from_json(told | {"memory": MEMORY + 1})
    with pytest.raises(ValueError, match="shape"):
        Norms.from_json(told | {"noise": [[1.0]]})


def test_noise_and_spread_are_told_apart() -> None:
    """Within a car it is noise, between cars it is spread."""
    rng = np.random.default_rng(7)
    cars, rows = 200, 100
    offset = np.repeat(rng.normal(0, 0.5, cars), rows)
    residuals = _rows(*(offset + rng.normal(0, 1.0, cars * rows)))
    lives = np.repeat(np.arange(cars), rows)
    norms = Norms.unscaled(residuals, np.full(cars * rows, FAST), lives)
    assert norms.noise[FAST, 0] == pytest.approx(1.0, rel=0.05)
    assert norms.spread[FAST, 0] == pytest.approx(0.5, rel=0.2)
    assert norms.spread[SLOW, 0] == 0


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats(-5, 5, width=32)),
        min_size=1,
        max_size=200,
    ),
    st.lists(st.integers(0, 200), max_size=4),
)
def test_how_rows_are_batched_changes_nothing(
    rows: list[tuple[int, int, float]], cuts: list[int]
) -> None:
    """Cut anywhere, the same rows give the same deviations."""
    slots, regimes, values = (np.array(column) for column in zip(*rows, strict=True))
    residuals = _rows(*values.tolist())
    whole = Trends(_norms(spread=0.5)).push(slots, regimes, residuals)
    trends = Trends(_norms(spread=0.5))
    parts = [
        trends.push(slots[begin:end], regimes[begin:end], residuals[begin:end])
        for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(rows)], strict=True)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_a_kept_baseline_shows_wear_that_one_learnt_anew_takes_for_the_cars_own() -> None:
    """After a restart the same deviation, once MEMORY rows came; learnt anew that of a healthy car."""
    shape = (len(REGIMES), len(FEATURES))
    norms = Norms(*(np.full(shape, x, np.float32) for x in (0.1, 5.0, 1.0)))
    rng = np.random.default_rng(1)

    def driven(trends: Trends, level: float, rows: int) -> float:
        residuals = rng.normal(level, 0.1, (rows, len(FEATURES))).astype(np.float32)
        found = trends.push(np.zeros(rows, np.int64), np.full(rows, 2), residuals)
        return float(found[-1].max())

    running = Trends(norms)
    driven(running, 1.0, 60)
    cars, there, base = running.fresh(np.array([0]))
    assert there.tolist() == [[False, False, True, False]]
    kept, anew = Trends(norms), Trends(norms)
    kept.restore(cars, there, base)
    assert np.isnan(driven(kept, 4.0, MEMORY - 1))
    assert driven(kept, 4.0, 60) == pytest.approx(driven(running, 4.0, 120), abs=0.3)
    assert driven(kept, 4.0, 1) > 2.5
    assert driven(anew, 4.0, 120) < 0.5
    # What it has learnt of another regime since is told together with what was kept.
    kept.push(
        np.zeros(WARM_UP, np.int64),
        np.full(WARM_UP, 1),
        np.ones((WARM_UP, len(FEATURES)), np.float32),
    )
    _, there, told = kept.fresh(np.array([0]))
    assert there.tolist() == [[False, True, True, False]]
    assert told[0, 2] == pytest.approx(base[0, 2])
