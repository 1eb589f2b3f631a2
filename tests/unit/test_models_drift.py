"""The fleet moved, or one car, or neither; and what too few rows say."""

from collections.abc import Callable

import numpy as np
import pytest

from models.drift import FAR, MIN_CARS, MIN_ROWS, MOVED, NAMES, Drift, Reference
from models.features import INPUTS, compute
from models.simulator import SHIFTED, TRAIN, Cars, Ranges

Touch = Callable[[np.ndarray], None]
COOLANT = INPUTS.index("coolant_temp")


def _driven(
    cars: int, seconds: int, seed: int, ranges: Ranges = TRAIN, touch: Touch = lambda _: None
) -> tuple[np.ndarray, np.ndarray]:
    """Slots and values of healthy cars; `touch` alters the signals. The score is noise."""
    made = Cars(cars, seed=seed, ranges=ranges)
    rng = np.random.default_rng(seed)
    slots, values = [], []
    for _ in range(seconds):
        rows = made.step()
        signals = np.stack([rows[name] for name in INPUTS], axis=1).astype(np.float64)
        touch(signals)
        features, valid = compute(signals)
        score = rng.gumbel(0.4, 0.1, valid.sum())
        slots.append(np.flatnonzero(valid))
        values.append(np.column_stack([features[valid], score]))
    return np.concatenate(slots), np.concatenate(values)


@pytest.fixture(scope="module")
def reference() -> Reference:
    """Of 150 cars."""
    slots, values = _driven(150, 600, 1)
    return Reference.fit(values, slots)


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_the_same_population_stands(reference: Reference, seed: int) -> None:
    """Other cars of the same ranges: no feature moved, no car is outside."""
    drift = Drift(reference)
    drift.push(*_driven(120, 600, seed))
    told = drift.close()
    assert told.psi.max() < MOVED
    assert {change.state for change in told.changes} == {"stable"}
    assert told.cars.size == 0


def test_a_fleet_that_moved_is_told_once_and_its_cars_are_not(reference: Reference) -> None:
    """A batch of sensors that read 6 K too much: one feature, no car; and back again."""

    def warm(signals: np.ndarray) -> None:
        signals[:, COOLANT] += 6

    drift = Drift(reference)
    for _ in range(2):
        drift.push(*_driven(120, 600, 5, touch=warm))
        told = drift.close()
        assert told.cars.size == 0
        moved = [change.name for change in told.changes if change.state == "moved"]
        assert moved == (["coolant_excess"] if _ == 0 else [])
    drift.push(*_driven(120, 600, 5))
    assert ("coolant_excess", "stable") in [(c.name, c.state) for c in drift.close().changes]


def test_another_climate_is_another_population(reference: Reference) -> None:
    """Ranges that the training never saw show in what they move."""
    drift = Drift(reference)
    drift.push(*_driven(120, 600, 6, ranges=SHIFTED))
    psi = dict(zip(NAMES, drift.close().psi.tolist(), strict=True))
    assert psi["supply_sag"] > 0.1 > psi["shake_rear"]


def test_one_car_that_moved_is_that_car(reference: Reference) -> None:
    """Its sensor, while the fleet stands; another car in its slot begins anew."""

    def one(signals: np.ndarray) -> None:
        signals[7, COOLANT] += 25

    drift = Drift(reference)
    slots, values = _driven(120, 600, 5, touch=one)
    drift.push(slots, values)
    told = drift.close()
    assert told.cars.tolist() == [7]
    assert [NAMES[i] for i in told.which] == ["coolant_excess"]
    assert "moved" not in {change.state for change in told.changes}
    drift.forget(np.array([7, 10**6]))
    drift.push(*_driven(120, 600, 8))
    assert drift.close().cars.size == 0


def test_too_little_is_insufficient_and_not_stable(reference: Reference) -> None:
    """Few rows, or many of few cars."""
    slots, values = _driven(MIN_CARS - 1, 200, 2)
    drift = Drift(reference)
    assert not drift.full
    drift.push(slots, values)
    assert drift.full
    told = drift.close()
    assert np.isnan(told.psi).all()
    assert told.changes == []
    drift.push(slots[:100], values[:100])
    assert not drift.full
    assert np.isnan(drift.close().psi).all()


def test_what_was_known_becomes_insufficient(reference: Reference) -> None:
    """A feature that stood says so no longer when the cars are gone."""
    drift = Drift(reference)
    drift.push(*_driven(60, 200, 2))
    drift.close()
    drift.push(np.zeros(MIN_ROWS, np.int64), np.zeros((MIN_ROWS, len(NAMES))))
    assert {change.state for change in drift.close().changes} == {"insufficient"}


def test_batches_make_no_difference_to_the_fleet(reference: Reference) -> None:
    """Row by row or all at once: the same index; no row is no change."""
    slots, values = _driven(30, 100, 3)
    whole, parts = Drift(reference), Drift(reference)
    whole.push(slots, values)
    for begin in range(0, len(slots), 37):
        parts.push(slots[begin : begin + 37], values[begin : begin + 37])
    parts.push(slots[:0], values[:0])
    assert parts.close().psi == pytest.approx(whole.close().psi)


def test_a_constant_feature_moves_when_it_is_no_longer_constant() -> None:
    """All rows of the training in one bin, and a reach of nothing."""
    rng = np.random.default_rng(1)
    slots = np.tile(np.arange(30), 100)
    values = rng.normal(size=(3000, len(NAMES)))
    values[:, 0] = 4.0
    reference = Reference.fit(values, slots)
    drift = Drift(reference)
    drift.push(slots, values)
    told = drift.close()
    assert told.psi[0] == pytest.approx(0, abs=1e-6)
    assert told.cars.size == 0
    values[:, 0] += rng.normal(size=3000)
    drift.push(slots, values)
    assert drift.close().psi[0] > MOVED


def test_a_reference_survives_the_manifest(reference: Reference) -> None:
    """And what is none is refused."""
    again = Reference.from_json(reference.to_json())
    assert np.array_equal(again.edges, reference.edges)
    assert FAR > 1
    told = reference.to_json()
    for hurt in (
        {**told, "edges": told["edges"][:-1]},
        {**told, "edges": [edge[::-1] for edge in told["edges"]]},
        {**told, "reach": [-1.0] * len(NAMES)},
    ):
        with pytest.raises(ValueError, match=r"shapes|rise"):
            Reference.from_json(hurt)
    with pytest.raises(KeyError):
        Reference.from_json({"edges": told["edges"]})
