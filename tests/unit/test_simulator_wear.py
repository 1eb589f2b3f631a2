"""How components degrade, what that does to the signals, and what the truth says."""

import numpy as np
import pytest

from models.simulator import MODES, Cars, Fault, Mode, draw_faults

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
    cars = Cars(2, seed=2, faults=[Fault(1, "battery", 0.25, 90.0)])
    cars.step()
    healthy, worn = (truth.record(f"car-{truth.vehicle}", 1_000_000) for truth in cars.truth())
    assert healthy == {
        "vehicle_id": "car-0",
        "event_time": 1_001_000,
        "mode": None,
        "onset": None,
        "failure_time": None,
        "health": 1.0,
    }
    assert (worn["mode"], worn["onset"]) == ("battery", 1_000_250)
    assert worn["failure_time"] > worn["event_time"]


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
            {"intake_air_flow_speed": -1.0, "throttle_pos": 0.02, "coolant_temp": 0.2},
        ),
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


def test_drawn_faults_are_shared_out() -> None:
    """The asked share of the cars gets one fault each, all modes alike, inside the given times."""
    faults = draw_faults(200, share=0.1, onset_s=(20.0, 60.0), seed=3)
    assert faults == draw_faults(200, share=0.1, onset_s=(20.0, 60.0), seed=3)
    assert len({fault.vehicle for fault in faults}) == 20
    assert {mode: sum(fault.mode == mode for fault in faults) for mode in MODES} == dict.fromkeys(
        MODES, 5
    )
    assert all(20 <= fault.onset_s < 60 and 1.5 <= fault.days < 4 for fault in faults)
    with pytest.raises(ValueError, match="share"):
        draw_faults(10, share=1.1, onset_s=(0, 1), seed=1)
