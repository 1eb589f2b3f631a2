"""A sensor that says the same of a moving car again and again is not scored from."""

import numpy as np

from models.features import INPUTS
from models.simulator import Cars
from models.stuck import LIVELY, ROWS, Stuck

SPEED = INPUTS.index("speed")


def driving(rows: int, seed: int = 1) -> np.ndarray:
    """Signals (rows, INPUTS) of a car whose every sensor moves, at 10 m/s and more."""
    signals = np.random.default_rng(seed).normal(10.0, 1.0, (rows, len(INPUTS)))
    signals[:, SPEED] = np.abs(signals[:, SPEED]) + 1
    return signals


def pushed(stuck: Stuck, signals: np.ndarray, slot: int = 0) -> list[bool]:
    return stuck.push(np.full(len(signals), slot), signals).tolist()


def test_each_lively_sensor_is_found_at_the_row_that_ends_so_many_equal_ones() -> None:
    """And is trusted again with its next other word."""
    for name in LIVELY:
        signals = driving(2 * ROWS)
        signals[4 : 4 + ROWS, INPUTS.index(name)] = 7.0
        told = pushed(Stuck(), signals)
        assert np.flatnonzero(told).tolist() == [4 + ROWS - 1], name


def test_a_standing_car_and_a_quiet_thermometer_are_let_alone() -> None:
    """What may be the same for long is not asked."""
    standing = np.repeat(driving(1), 3 * ROWS, axis=0)
    standing[:, SPEED] = 0.0
    assert not any(pushed(Stuck(), standing))
    quiet = driving(3 * ROWS)
    for name in (
        "speed",
        "coolant_temp",
        "intake_air_temp",
        "battery_percentage",
        "long_fuel_trim",
    ):
        quiet[:, INPUTS.index(name)] = 20.0
    assert not any(pushed(Stuck(), quiet))


def test_cars_and_batches_do_not_matter() -> None:
    """Each car for itself, however its rows are cut into batches; a slot that is handed over is new."""
    one, other = driving(60), driving(60, seed=2)
    one[:, INPUTS.index("engine_speed")] = 900.0
    both = np.stack([one, other], axis=1).reshape(-1, len(INPUTS))
    slots = np.tile([3, 5], 60)
    whole = Stuck().push(slots, both)
    cut = Stuck()
    parts = [cut.push(slots[i : i + 7], both[i : i + 7]) for i in range(0, 120, 7)]
    assert np.concatenate(parts).tolist() == whole.tolist()
    assert np.flatnonzero(whole).tolist() == list(range(2 * (ROWS - 1), 120, 2))
    cut.forget(np.array([3, 900]))
    assert not any(pushed(cut, one[: ROWS - 1], slot=3))
    assert pushed(cut, one[:1], slot=3) == [True]


def test_no_simulated_car_is_called_stuck() -> None:
    """Healthy ones, over trips and stops."""
    cars, stuck = Cars(40, seed=3), Stuck()
    for _ in range(400):
        rows = cars.step()
        signals = np.stack([rows[name] for name in INPUTS], axis=1).astype(np.float64)
        assert not stuck.push(np.arange(40), signals).any()
