"""What the simulated cars emit and how they drive."""

import numpy as np
import pytest

from models.simulator import ENGINE_MODES, LIMP, MODES, SHIFTED, SIGNALS, Cars, Fault, Ranges, Rows
from twin.wire.catalogue import BY_NAME, NAMES

DEMO_SIGNALS = NAMES[:18]


def drive(cars: Cars, steps: int, limit: float | None = None) -> dict[str, np.ndarray]:
    """Rows of all steps, (steps, n) per signal."""
    rows: list[Rows] = [cars.step(limit) for _ in range(steps)]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def worn_fleet(**more: float) -> Cars:
    """40 cars, half of them failing within seconds, all engine modes."""
    faults = [Fault(car, ENGINE_MODES[car % len(ENGINE_MODES)], 1.0, 0.2) for car in range(20)]
    return Cars(40, seed=5, faults=faults, **more)


def test_same_seed_same_rows() -> None:
    """Equal arguments give equal rows, another seed gives others."""
    one, same, other = (drive(Cars(7, seed=seed), 30) for seed in (3, 3, 4))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["speed"], other["speed"])


@pytest.mark.parametrize("interval_s", [0.5, 1.0, 10.0])
def test_every_value_is_possible(interval_s: float) -> None:
    """Healthy, degraded and failed cars stay inside the catalogue's ranges and types."""
    history = drive(worn_fleet(interval_s=interval_s), 60)
    assert set(DEMO_SIGNALS) <= set(history)
    for name, values in history.items():
        signal = BY_NAME[name]
        kind = np.int32 if signal.type == "int" else np.float32
        assert values.dtype == kind, name
        assert np.isfinite(values).all(), name
        assert ((signal.low <= values) & (values <= signal.high)).all(), name


def test_a_cold_engine_warms_up_and_is_then_regulated() -> None:
    """Coolant starts at ambient in some cars and settles where the thermostat holds it."""
    coolant = drive(Cars(60, seed=1), 900)["coolant_temp"]
    cold = coolant[0] < 40
    assert 3 <= cold.sum() <= 30
    assert (np.abs(np.median(coolant[-60:], axis=0) - 89) < 6).all()
    heating = np.diff(coolant[::60, cold], axis=0)
    assert heating[coolant[:-1:60, cold][: len(heating)] < 70].mean() > 2


def test_speed_has_inertia() -> None:
    """No car gains or loses more speed in a second than tyres and engine allow."""
    speed = drive(Cars(50, seed=2), 300)["speed"]
    change = np.diff(speed, axis=0)
    assert change.max() < 4.5
    assert change.min() > -4.5
    assert speed.max() > 25
    assert (speed < 0.5).any()


def test_voltage_sags_under_current() -> None:
    """Within a car, the voltage is lower when more current is drawn."""
    rows = drive(Cars(20, seed=2), 120)
    for volts, amps in zip(rows["battery_voltage"].T, rows["current_draw"].T, strict=True):
        assert np.corrcoef(volts, amps)[0, 1] < -0.5


def test_power_limit_holds() -> None:
    """A limited car slows down to its share of the top speed and does not open the throttle."""
    cars = Cars(30, seed=8)
    drive(cars, 20)
    limited = drive(cars, 90, limit=0.3)
    assert limited["speed"][45:].max() < 0.3 * 40 + 1
    assert limited["throttle_pos"][10:].max() < 0.04 + 0.9 * 0.3 + 0.02


def test_a_failed_car_limps() -> None:
    """After failure a car keeps driving, slowly, whatever limit it was given."""
    rows = drive(worn_fleet(), 240)
    assert rows["speed"][120:, :20].max() < LIMP * 40 + 1
    assert rows["speed"][120:, :20].max() > 5
    assert rows["speed"][120:, 20:].max() > 20
    slower = worn_fleet()
    drive(slower, 60, limit=0.9)
    assert drive(slower, 90, limit=0.2)["speed"][45:, :20].max() < 0.2 * 40 + 1


def test_a_long_interval_is_driven_like_a_short_one() -> None:
    """Rows every 10 s show the same driving as rows every second."""
    fine, coarse = (drive(Cars(200, seed=3, interval_s=i), round(600 / i)) for i in (1.0, 10.0))
    for name in ("speed", "throttle_pos", "coolant_temp"):
        quantiles = [np.quantile(rows[name], [0.3, 0.5, 0.95]) for rows in (fine, coarse)]
        assert quantiles[0] == pytest.approx(quantiles[1], rel=0.15), name


def test_a_seed_gives_the_same_bytes_with_everything_switched_on() -> None:
    """All modes, parking and drop-outs: two runs agree in every bit, NaN included."""

    def run(seed: int) -> bytes:
        faults = [Fault(car, mode, 2.0, 0.5, 0.7) for car, mode in enumerate(MODES)]
        cars = Cars(20, seed=seed, faults=faults, ranges=SHIFTED, parking=True, dropout=0.05)
        rows = [cars.step() for _ in range(60)]
        return b"".join(row[name].tobytes() for row in rows for name in SIGNALS)

    assert run(3) == run(3)
    assert run(3) != run(4)


def test_dropped_values_are_missing_in_their_share() -> None:
    """The asked share of values is NaN, sensors apart from one another; the rest is what it was."""
    plain, holed = (drive(Cars(100, seed=3, dropout=share), 50) for share in (0.0, 0.02))
    missing = np.stack([np.isnan(holed[name]) for name in holed])
    floats = np.array([holed[name].dtype.kind == "f" for name in holed])
    assert missing[floats].mean() == pytest.approx(0.02, rel=0.1)
    assert not missing[~floats].any()
    assert missing[floats].any(axis=0).mean() > 0.25
    for name in plain:
        there = ~np.isnan(holed[name])
        assert np.array_equal(plain[name][there], holed[name][there]), name


def parked_fleet() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Rows of cars that park at every stop, and when they report, each (steps, n)."""
    ranges = Ranges(trip_s=1.0, off_s=(60.0, 240.0))
    cars = Cars(60, seed=4, ranges=ranges, parking=True)
    rows, reports = [], []
    for _ in range(900):
        rows.append(cars.step())
        reports.append(cars.reporting)
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}, np.stack(reports)


def test_a_parked_car_is_silent_and_starts_again() -> None:
    """Engine off: no value; afterwards the engine runs since seconds, standing, and drives off."""
    rows, reports = parked_fleet()
    assert 0.05 < (~reports).mean() < 0.9
    for name in ("coolant_temp", "engine_speed", "speed"):
        assert np.array_equal(np.isnan(rows[name]), ~reports), name
    starts = np.argwhere(reports[1:] & ~reports[:-1]) + np.array([1, 0])
    starts = starts[starts[:, 0] < 700]
    assert len(starts) > 20
    step, car = starts.T
    assert rows["engine_run_time"][step, car].max() <= 1
    assert rows["speed"][step, car].max() < 0.5
    assert rows["engine_speed"][step, car].max() < 1000
    later = np.nanmax(rows["speed"][step[:, None] + np.arange(200), car[:, None]], axis=1)
    assert (later > 3).mean() > 0.9


def test_a_fleet_that_does_not_park_always_reports() -> None:
    """Without parking every car sends every row."""
    cars = Cars(30, seed=1)
    for _ in range(300):
        assert not any(np.isnan(values).any() for values in cars.step().values())
        assert cars.reporting.all()


def test_shifted_ranges_reach_beyond_the_training_ranges() -> None:
    """Climate, traffic and noise of the held-out fleet are not those of training."""
    learnt, shifted = (drive(Cars(300, seed=5, ranges=r), 120) for r in (Ranges(), SHIFTED))
    for name, low in (("intake_air_temp", True), ("intake_air_temp", False)):
        ends = [np.min(rows[name]) if low else -np.max(rows[name]) for rows in (learnt, shifted)]
        assert ends[1] < ends[0] - 3, name
    noise = [np.diff(rows["control_module_voltage"], axis=0).std() for rows in (learnt, shifted)]
    assert noise[1] > 1.1 * noise[0]
    fast = [(rows["speed"] > 20).mean() for rows in (learnt, shifted)]
    assert fast[1] < fast[0] - 0.03


@pytest.mark.parametrize("limit", [0.0, 1.01, -1.0, float("nan")])
def test_impossible_power_limit_is_refused(limit: float) -> None:
    """A power limit outside (0, 1] is an error."""
    with pytest.raises(ValueError, match="power limit"):
        Cars(2, seed=1).step(limit)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"n": 0}, "0 cars"),
        ({"interval_s": 0.0}, "interval"),
        ({"acceleration": -1.0}, "acceleration"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": -0.1}, "dropout"),
        ({"faults": [Fault(9, "battery", 0, 1)]}, "car 9"),
        ({"faults": [Fault(0, "battery", 0, 1), Fault(0, "cooling", 0, 1)]}, "two faults"),
        ({"faults": [Fault(0, "rust", 0, 1)]}, "rust"),  # type: ignore[arg-type]
        ({"faults": [Fault(0, "battery", -1, 1)]}, "onset"),
        ({"faults": [Fault(0, "battery", 0, 0)]}, "days"),
    ],
)
def test_impossible_fleet_is_refused(arguments: dict, says: str) -> None:
    """Arguments out of range are named."""
    with pytest.raises(ValueError, match=says):
        Cars(**{"n": 3, "seed": 1, **arguments})
