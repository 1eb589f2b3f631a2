"""Features of known rows, of healthy and of failing cars; the window store's bounds."""

import numpy as np
import pytest

from models import features
from models.features import (
    FEATURES,
    INPUTS,
    MAX_GAP_MS,
    SIGNAL_OF,
    WINDOW,
    WindowStore,
    compute,
    feature_hash,
    signal_matrix,
)
from models.simulator import MODES, Cars, Fault, Mode
from twin.wire.catalogue import BY_NAME

IDLE = {
    "coolant_temp": 90.0,
    "intake_air_temp": 20.0,
    "intake_air_flow_speed": 2.6,
    "battery_percentage": 0.5,
    "battery_voltage": 219.4,
    "current_draw": 4.0,
    "speed": 0.0,
    "engine_vibration_amplitude": 99.0,
    "throttle_pos": 0.04,
    "accelerometer_1_1_value": 0.1,
    "accelerometer_1_2_value": 0.1,
    "accelerometer_2_1_value": 0.1,
    "accelerometer_2_2_value": 0.1,
    "engine_speed": 780.0,
    "engine_load": 0.12,
    "control_module_voltage": 14.2,
    "long_fuel_trim": 0.0,
    "short_fuel_trim": 0.0,
    "timing_advance": 8.6,
}


def features_of(**changed: float) -> dict[str, float]:
    """Features of an idling car with some signals changed."""
    row, valid = compute(signal_matrix([{**IDLE, **changed}]))
    assert valid.all()
    return dict(zip(FEATURES, row[0].tolist(), strict=True))


def simulated(n: int, steps: int, faults: list[Fault] | None = None) -> np.ndarray:
    """Features (steps, n, FEATURES) of simulated cars."""
    cars = Cars(n, seed=77, faults=faults or [])
    rows = [cars.step() for _ in range(steps)]
    found = [
        compute(np.stack([row[name] for name in INPUTS], axis=1).astype(float)) for row in rows
    ]
    assert all(valid.all() for _, valid in found)
    return np.stack([values for values, _ in found])


def test_every_input_is_a_signal_and_every_feature_names_one() -> None:
    """Inputs are in the catalogue and evidence names an input."""
    assert set(INPUTS) <= set(BY_NAME)
    assert set(SIGNAL_OF.values()) <= set(INPUTS)


def test_an_idling_healthy_car_has_nothing_to_say() -> None:
    """On data-sheet values all excesses are about zero."""
    expected = dict.fromkeys(FEATURES, 0.0) | {"coolant_excess": 2.0}
    assert features_of() == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize(
    ("changed", "feature", "change"),
    [
        ({"coolant_temp": 100.0}, "coolant_excess", 10.0),
        ({"coolant_temp": 10.0}, "coolant_excess", -5.0),
        ({"battery_voltage": 211.4}, "pack_sag", 8.0),
        ({"current_draw": 24.0}, "current_excess", 20.0),
        ({"current_draw": 24.0, "battery_voltage": 216.4}, "pack_sag", 0.0),
        ({"engine_vibration_amplitude": 208.0}, "vibration_excess", np.log(2)),
        ({"intake_air_flow_speed": 0.0}, "air_excess", -np.log(5.6 / 3)),
        ({"accelerometer_2_1_value": 0.9}, "shake_rear", 0.4),
        ({"accelerometer_2_1_value": 0.9}, "shake_excess", 0.2),
        ({"control_module_voltage": 12.7}, "supply_sag", 1.5),
        ({"long_fuel_trim": 0.1, "short_fuel_trim": -0.02}, "fuel_trim", 0.08),
        ({"timing_advance": 3.6}, "spark_late", 5.0),
        ({"engine_speed": 1780.0, "timing_advance": 14.6}, "spark_late", 0.0),
    ],
)
def test_a_feature_is_what_its_sensor_says_beyond_the_expected(
    changed: dict[str, float], feature: str, change: float
) -> None:
    """One changed sensor moves its feature by the physics of the data sheet."""
    moved = features_of(**changed)[feature] - features_of()[feature]
    assert moved == pytest.approx(change, abs=0.02)


def test_absent_signal_makes_a_row_invalid() -> None:
    """A row without one input is not valid and its neighbours are; other signals do not matter."""
    row = {name: value for name, value in IDLE.items() if name != "battery_voltage"}
    values, valid = compute(signal_matrix([IDLE, row, {**IDLE, "fuel_level": 0.4}]))
    assert valid.tolist() == [True, False, True]
    assert (values[1] == 0).all()
    assert (values[0] == values[2]).all()


def test_no_rows_give_no_features() -> None:
    """An empty batch is accepted."""
    values, valid = compute(signal_matrix([]))
    assert (values.shape, valid.shape) == ((0, len(FEATURES)), (0,))


def test_other_columns_are_refused() -> None:
    """A matrix that cannot be a signal matrix is an error, not a guess."""
    with pytest.raises(ValueError, match="shape"):
        compute(np.zeros((3, len(INPUTS) + 1)))


def test_hash_follows_names_figures_and_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash is stable and changes with a figure, the window and the formulas."""
    hashes = {feature_hash()}
    assert hashes == {feature_hash()}
    with monkeypatch.context() as patch:
        patch.setitem(features.NOMINAL, "pack_ohm", 0.16)
        hashes.add(feature_hash())
    with monkeypatch.context() as patch:
        patch.setattr(features, "WINDOW", WINDOW + 1)
        hashes.add(feature_hash())
    with monkeypatch.context() as patch:
        original = features._features
        patch.setattr(features, "_features", lambda column: original(column)[::-1])
        hashes.add(feature_hash())
    assert len(hashes) == 4


def test_healthy_cars_are_near_what_is_expected() -> None:
    """In every regime the excesses of healthy simulated cars are small in the middle."""
    middle = np.median(simulated(60, 240).reshape(-1, len(FEATURES)), axis=0)
    near = dict(zip(FEATURES, np.abs(middle).tolist(), strict=True))
    bounds = {
        "coolant_excess": 2.0,
        "air_excess": 0.05,
        "current_excess": 3.0,
        "pack_sag": 1.0,
        "vibration_excess": 0.05,
        "shake_excess": 0.1,
        "shake_rear": 0.05,
    }
    assert all(near[name] < bound for name, bound in bounds.items()), near


@pytest.mark.parametrize(
    ("mode", "feature", "sign"),
    [
        ("cooling", "coolant_excess", 1),
        ("drive_shaft", "vibration_excess", 1),
        ("battery", "pack_sag", 1),
        ("air_path", "air_excess", -1),
    ],
)
def test_a_failing_car_leaves_the_healthy_range(mode: Mode, feature: str, sign: int) -> None:
    """Shortly before failure a car's feature is mostly beyond 99 % of the healthy rows."""
    assert mode in MODES
    column = FEATURES.index(feature)
    healthy = simulated(60, 240)[:, :, column] * sign
    worn = simulated(60, 240, [Fault(car, mode, 60.0, 3.1) for car in range(60)])[:, :, column]
    beyond = worn[220:] * sign > np.quantile(healthy, 0.99)
    assert np.median(beyond.mean(axis=0)) > 0.8


def rows_of(store: WindowStore, vehicle: str, times: list[int], now_ms: int = 0) -> tuple:
    """Push one vehicle's rows at `times`; late rows and ends as lists."""
    slots = store.index([vehicle] * len(times), now_ms)
    values = np.arange(len(times) * len(FEATURES), dtype=np.float32)
    pushed = store.push(slots, values.reshape(-1, len(FEATURES)), np.array(times, dtype=np.int64))
    return pushed.late.tolist(), pushed.ends.tolist()


def test_a_window_needs_its_rows() -> None:
    """The first window is complete with row WINDOW, then every row completes one."""
    _, ends = rows_of(WindowStore(max_vehicles=1), "a", list(range(0, 1000 * (WINDOW + 2), 1000)))
    assert ends == [WINDOW - 1, WINDOW, WINDOW + 1]


def test_late_and_repeated_rows_are_ignored_and_counted() -> None:
    """A row no newer than the newest taken one does not enter a window."""
    store = WindowStore(max_vehicles=1)
    late, _ = rows_of(store, "a", [1000, 2000, 2000, 1500, 3000])
    assert late == [False, False, True, True, False]
    assert store.late == 2
    assert rows_of(store, "a", [3000])[0] == [True]


def test_a_gap_begins_a_new_window() -> None:
    """After a hole the old rows are forgotten; at the bound they are not."""
    full = list(range(0, 1000 * WINDOW, 1000))
    for hole, complete in ((MAX_GAP_MS, True), (MAX_GAP_MS + 1, False)):
        store = WindowStore(max_vehicles=1)
        rows_of(store, "a", full)
        assert bool(rows_of(store, "a", [full[-1] + hole])[1]) is complete


def test_the_store_grows_to_its_bound_and_keeps_what_it_has() -> None:
    """Vehicles beyond the bound find no room, and growing loses no row."""
    store = WindowStore(max_vehicles=600)
    rows_of(store, "first", list(range(0, 1000 * (WINDOW - 1), 1000)))
    slots = store.index([f"car-{i}" for i in range(700)], 0)
    assert (slots >= 0).sum() == 599
    assert (store.refused, len(store)) == (101, 600)
    row = np.full((1, len(FEATURES)), -1.0, dtype=np.float32)
    pushed = store.push(store.index(["first"], 0), row, np.array([1000 * WINDOW]))
    assert pushed.windows[0, :, 0].tolist() == [
        *(float(i * len(FEATURES)) for i in range(WINDOW - 1)),
        -1.0,
    ]


def test_a_full_store_gives_the_slots_of_silent_vehicles() -> None:
    """A newcomer gets a slot, without the old rows, once its owner has been silent for a gap."""
    store = WindowStore(max_vehicles=2)
    rows_of(store, "quiet", list(range(0, 1000 * WINDOW, 1000)), now_ms=0)
    rows_of(store, "busy", [0], now_ms=0)
    rows_of(store, "busy", [1000], now_ms=MAX_GAP_MS)
    assert store.index(["new"], MAX_GAP_MS).tolist() == [-1]
    assert rows_of(store, "new", [1000 * WINDOW], now_ms=MAX_GAP_MS + 1) == ([False], [])
    assert store.index(["busy", "quiet"], MAX_GAP_MS + 1).tolist() == [1, -1]
    with pytest.raises(ValueError, match="max_vehicles"):
        WindowStore(max_vehicles=0)
