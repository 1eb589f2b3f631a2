"""How components degrade, what that does to the signals, and what the truth says."""

import numpy as np
import pytest

from models.simulator import (
    ENGINE_MODES,
    MODES,
    Cars,
    Fault,
    Mode,
    Ranges,
    draw_faults,
)

N = 60


def times_to_failure(limit: float = 1.0, acceleration: float = 1440.0) -> np.ndarray:
    """Seconds from onset (at 5 s) to failure of N cars with 1 day of life."""
    cars = Cars(
        N,
        seed=4,
        acceleration=acceleration,
        faults=[Fault(car, "battery", 5.0, 1.0) for car in range(N)],
    )
    for _ in range(400):
        cars.step(limit)
    seconds = [truth.failure_s - truth.onset_s for truth in cars.truth()]  # type: ignore[operator]
    assert all(truth.health == 0 for truth in cars.truth())
    return np.array(seconds)


def test_a_day_of_wear_passes_in_its_share_of_the_clock() -> None:
    """One component day at acceleration 1440 is 60 s, scattered by about a tenth."""
    seconds = times_to_failure()
    assert 57 < seconds.mean() < 63
    assert 3 < seconds.std() < 9


def test_acceleration_and_power_limit_set_the_pace() -> None:
    """Half the acceleration or half the power doubles the time to failure."""
    full = times_to_failure().mean()
    assert times_to_failure(acceleration=720.0).mean() == pytest.approx(2 * full, rel=0.1)
    assert times_to_failure(limit=0.5).mean() == pytest.approx(2 * full, rel=0.1)


def test_health_only_falls_and_only_after_onset() -> None:
    """Health is 1 until onset, never rises, and ends at 0."""
    cars = Cars(1, seed=9, faults=[Fault(0, "cooling", 10.0, 0.5)])
    health = []
    for _ in range(80):
        cars.step()
        health.append(cars.truth()[0].health)
    assert health[:10] == [1.0] * 10
    assert health[10] < 1.0
    assert (np.diff(health) <= 0).all()
    assert health[-1] == 0.0


def test_changes_name_onset_and_failure_once() -> None:
    """A degrading car is reported when its fault begins and when it fails, a healthy one never."""
    cars = Cars(3, seed=2, faults=[Fault(1, "air_path", 4.5, 0.3)])
    changes = []
    for _ in range(60):
        cars.step()
        changes += cars.changes()
    onset, failure = changes
    assert (onset.vehicle, onset.mode, onset.onset_s, onset.at_s) == (1, "air_path", 4.5, 5.0)
    assert onset.failure_s > onset.at_s  # type: ignore[operator]
    assert (failure.health, failure.failure_s) == (0.0, failure.at_s)
    healthy, failed, _ = cars.truth()
    assert (healthy.mode, healthy.onset_s, healthy.failure_s, healthy.health) == (None,) * 3 + (1,)
    assert failed.failure_s == failure.failure_s


def test_wear_begins_within_an_interval() -> None:
    """A long interval counts wear from the onset on, and an onset at its edge is not missed."""
    cars = Cars(1, seed=2, interval_s=20.0, faults=[Fault(0, "battery", 39.0, 1.0)])
    cars.step()
    assert cars.changes() == []
    cars.step()
    assert [truth.onset_s for truth in cars.changes()] == [39.0]
    assert 0.9 < cars.truth()[0].health < 1.0
    edge = Cars(1, seed=2, faults=[Fault(0, "battery", 2.0, 1.0)])
    seen = []
    for _ in range(4):
        edge.step()
        seen.append(len(edge.changes()))
    assert seen == [0, 0, 1, 0]


def test_truth_expects_the_failure_that_is_still_to_come() -> None:
    """A car that has not failed yet is expected to fail at its usual pace."""
    cars = Cars(1, seed=2, faults=[Fault(0, "cooling", 0.0, 2.0)])
    for _ in range(60):
        cars.step()
    truth = cars.truth()[0]
    assert truth.failure_s == pytest.approx(60 + truth.health * 120)
    assert 90 < truth.failure_s < 150


def test_truth_record_is_in_milliseconds() -> None:
    """The record for the topic carries times in ms since 1970 and null for what is not."""
    cars = Cars(2, seed=2, faults=[Fault(1, "battery", 0.25, 90.0, severity=0.4)])
    cars.step()
    healthy, worn = (truth.record(f"car-{truth.vehicle}", 1_000_000) for truth in cars.truth())
    assert healthy == {
        "vehicle_id": "car-0",
        "event_time": 1_001_000,
        "mode": None,
        "onset": None,
        "failure_time": None,
        "remaining_life": None,
        "health": 1.0,
        "severity": None,
    }
    assert (worn["mode"], worn["onset"]) == ("battery", 1_000_250)
    assert worn["failure_time"] > worn["event_time"]
    assert worn["remaining_life"] == worn["failure_time"] - worn["event_time"]
    assert worn["severity"] == 0.4


def test_a_failed_car_has_no_life_left() -> None:
    """Remaining life falls while the car wears and is 0 once it has failed."""
    cars = Cars(1, seed=2, faults=[Fault(0, "ignition", 0.0, 1.0)])
    left = []
    for _ in range(90):
        cars.step()
        left.append(cars.truth()[0].remaining_s)
    assert left[0] == pytest.approx(60, abs=10)
    assert left[30] < left[0]  # type: ignore[operator]
    assert left[-1] == 0.0


def test_wear_scatters_as_its_range_says() -> None:
    """Four times the scatter doubles the deviation of the times to failure."""
    deviations = []
    for scatter in (0.01, 0.04):
        faults = [Fault(car, "battery", 0.0, 1.0) for car in range(300)]
        cars = Cars(300, seed=4, faults=faults, ranges=Ranges(scatter=scatter))
        for _ in range(150):
            cars.step()
        deviations.append(np.std([truth.failure_s for truth in cars.truth()]))
    assert deviations[1] / deviations[0] == pytest.approx(2.0, rel=0.25)


def fleets(mode: Mode) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The same drive with and without a fault that begins at 100 s and is nearly done at 220 s."""
    rows = []
    for faults in ([], [Fault(car, mode, 100.0, 2.5) for car in range(N)]):
        cars = Cars(N, seed=6, faults=faults)
        steps = [cars.step() for _ in range(220)]
        rows.append({name: np.stack([step[name] for step in steps]) for name in steps[0]})
    return rows[0], rows[1]


@pytest.mark.parametrize(
    ("mode", "effects"),
    [
        (
            "cooling",
            {"coolant_temp": 5.0, "intake_air_temp": 0.3, "current_draw": 0.3},
        ),
        (
            "drive_shaft",
            {
                "engine_vibration_amplitude": 150.0,
                "accelerometer_1_1_value": 0.05,
                "accelerometer_2_1_value": 0.1,
                "current_draw": 0.05,
            },
        ),
        (
            "battery",
            {"battery_voltage": -7.0, "battery_percentage": -0.001, "current_draw": 2.0},
        ),
        (
            "air_path",
            {
                "intake_air_flow_speed": -1.0,
                "throttle_pos": 0.02,
                "coolant_temp": 0.2,
                "long_fuel_trim": -0.03,
            },
        ),
        (
            "lubrication",
            {
                "engine_vibration_amplitude": 80.0,
                "engine_load": 0.05,
                "throttle_pos": 0.02,
                "intake_air_flow_speed": 1.0,
                "coolant_temp": 1.0,
            },
        ),
        (
            "ignition",
            {
                "long_fuel_trim": 0.04,
                "short_fuel_trim": 0.01,
                "timing_advance": -3.0,
                "engine_vibration_amplitude": 30.0,
                "throttle_pos": 0.008,
            },
        ),
        ("alternator", {"control_module_voltage": -0.6, "engine_load": -0.002}),
        ("shock_absorber", {"accelerometer_2_1_value": 0.04, "accelerometer_1_2_value": 0.02}),
        ("tyres", {"tire_pressure_1_1": -1.5, "manifold_pressure": 0.1}),
    ],
)
def test_a_fault_shows_in_several_signals(mode: Mode, effects: dict[str, float]) -> None:
    """Against the same drive without a fault: nothing before onset, then more, the right way."""
    healthy, worn = fleets(mode)
    for name in healthy:
        assert np.array_equal(healthy[name][:100], worn[name][:100]), name
    for name, effect in effects.items():
        difference = (worn[name].astype(float) - healthy[name]) * np.sign(effect)
        early, late = difference[100:130].mean(), difference[190:220].mean()
        assert late > abs(effect), name
        assert late > early, name


@pytest.mark.parametrize(
    ("mode", "signal"),
    [
        ("cooling", "coolant_temp"),
        ("drive_shaft", "engine_vibration_amplitude"),
        ("battery", "current_draw"),
        ("air_path", "intake_air_flow_speed"),
        ("lubrication", "engine_vibration_amplitude"),
        ("ignition", "timing_advance"),
        ("alternator", "control_module_voltage"),
    ],
)
def test_severity_scales_the_signs_and_not_the_failure(mode: Mode, signal: str) -> None:
    """A third of the severity shows at most half as much, and the car fails at the same second."""
    shown, ends = [], []
    for severity in (None, 1.0, 1 / 3):
        faults = [] if severity is None else [Fault(c, mode, 20.0, 1.5, severity) for c in range(N)]
        cars = Cars(N, seed=6, faults=faults)
        shown.append(np.stack([cars.step()[signal] for _ in range(80)])[65:].astype(float).mean())
        for _ in range(70):
            cars.step()
        ends.append([truth.failure_s for truth in cars.truth()])
    healthy, strong, weak = shown
    assert 0.02 < (weak - healthy) / (strong - healthy) < 0.5
    assert ends[1] == ends[2]


def test_only_engine_faults_end_in_limp_mode() -> None:
    """A car with a failed engine mode is slow; one with a flat tyre or a worn damper drives on."""
    slow = {}
    for mode in MODES:
        cars = Cars(20, seed=3, faults=[Fault(car, mode, 0.0, 0.1) for car in range(20)])
        speeds = np.stack([cars.step()["speed"] for _ in range(180)])
        slow[mode] = speeds[90:].max() < 15
    assert {mode for mode, is_slow in slow.items() if is_slow} == set(ENGINE_MODES)


def test_a_parked_car_does_not_wear() -> None:
    """Health stands still while the engine is off, and falls again afterwards."""
    ranges = Ranges(trip_s=1.0, off_s=(100.0, 101.0), cold_share=1.0)
    faults = [Fault(car, "cooling", 0.0, 50.0) for car in range(N)]
    cars = Cars(N, seed=1, faults=faults, ranges=ranges, parking=True)
    health, off = [], []
    for _ in range(600):
        off.append(~cars.reporting)
        cars.step()
        health.append([truth.health for truth in cars.truth()])
    parked = np.array(off)[1:]
    wear = -np.diff(np.array(health), axis=0)
    assert parked.sum() > 20 * N
    assert (wear[parked] == 0).all()
    again = parked.any(axis=0) & ~parked[-1]
    assert again.any()
    for car in np.flatnonzero(again):
        assert wear[np.flatnonzero(parked[:, car])[-1] + 1 :, car].sum() > 0


def test_drawn_faults_are_shared_out() -> None:
    """The asked share of the cars gets one fault each, all modes alike, inside the given times."""
    faults = draw_faults(350, share=0.1, onset_s=(20.0, 60.0), seed=3)
    assert faults == draw_faults(350, share=0.1, onset_s=(20.0, 60.0), seed=3)
    assert len({fault.vehicle for fault in faults}) == 35
    drawn = {mode: sum(fault.mode == mode for fault in faults) for mode in MODES}
    assert drawn == {mode: 5 * (mode in ENGINE_MODES) for mode in MODES}
    flat = draw_faults(10, share=1.0, onset_s=(0, 1), seed=1, modes=["tyres"])
    assert {fault.mode for fault in flat} == {"tyres"}
    assert all(20 <= fault.onset_s < 60 and 1.5 <= fault.days < 4 for fault in faults)
    with pytest.raises(ValueError, match="share"):
        draw_faults(10, share=1.1, onset_s=(0, 1), seed=1)
