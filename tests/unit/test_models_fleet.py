"""The fleet's evaluation: pasts, plain detectors, and what a summary falls short of."""

from typing import Any

import numpy as np
import pytest

from models.features import FEATURES, INPUTS, WINDOW, compute
from models.fleet.detectors import LIMITS, Boosting, limits, statistics
from models.fleet.past import Past, record
from models.fleet.report import BASELINES, hard, shortcomings, text
from models.simulator import SHIFTED, Cars, Fault, history, history_steps

CARS, DAYS = 6, 1.0


def _past(**how: Any) -> Past:
    steps = history_steps(DAYS)
    return record(
        lambda start_ms: history(CARS, DAYS, seed=4, start_ms=start_ms, **how),
        CARS,
        steps,
        name="car",
        days=DAYS,
    )


def test_a_past_is_what_the_simulator_said() -> None:
    """Every row of every car in order of time, as float32 signals, and a fate for each car."""
    past = _past(failure_share=0.5)
    assert len(past.columns) == CARS * history_steps(DAYS)
    assert set(past.truth.fates) == set(past.columns.lives)
    assert sum(fate.mode is not None for fate in past.truth.fates.values()) <= CARS // 2
    cars = Cars(CARS, seed=4)
    row = cars.step()
    assert pytest.approx(np.stack([row[n] for n in INPUTS])) == past.columns.signals[:CARS].T
    times = past.columns.event_time.reshape(-1, CARS)
    assert (np.diff(times, axis=0) == 1000).all()


def test_a_weak_fault_shows_in_proportion() -> None:
    """Severity scales what the sensors see, not when the car fails."""
    shown, failed = [], []
    sound = Cars(40, seed=1)
    plain = np.array([sound.step()["engine_vibration_amplitude"] for _ in range(85)])
    for severity in (1.0, 0.5):
        faults = [Fault(car, "drive_shaft", 1.0, days=1.5, severity=severity) for car in range(40)]
        sick = Cars(40, seed=1, faults=faults)
        felt = np.array([sick.step()["engine_vibration_amplitude"] for _ in range(85)])
        shown.append(np.mean(felt[60:75] / plain[60:75]) - 1)
        failed.append([truth.failure_s for truth in sick.truth()])
    assert shown[0] > 0.1
    assert shown[1] == pytest.approx(shown[0] / 2, rel=0.25)
    assert failed[0] == failed[1]
    with pytest.raises(ValueError, match="severity 0"):
        Cars(1, seed=1, faults=[Fault(0, "cooling", 1.0, 1.0, severity=0.0)])


def test_shifted_cars_go_beyond_what_was_learnt() -> None:
    """Another climate, not only other numbers of the same."""
    intake = INPUTS.index("intake_air_temp")
    learnt, shifted = (
        _past(failure_share=0.0, **how).columns.signals[:, intake]
        for how in ({}, {"ranges": SHIFTED})
    )
    assert not np.array_equal(learnt, shifted)


def test_limits_are_those_of_a_technician() -> None:
    """1 is reached when one feature is at its limit, whatever the others say."""
    rows = np.zeros((2, len(FEATURES)), np.float32)
    rows[1, FEATURES.index("pack_sag")] = LIMITS["pack_sag"]
    assert limits(rows).tolist() == [0.0, 1.0]
    features, valid = compute(np.asarray(_past(failure_share=0.0).columns.signals, np.float64))
    assert np.quantile(limits(features[valid]), 0.99) < 1


def test_boosting_learns_what_a_window_shows() -> None:
    """Log-odds are higher for windows like those it was told fail."""
    rng = np.random.default_rng(3)
    windows = rng.normal(size=(400, WINDOW, len(FEATURES))).astype(np.float32)
    labels = np.arange(400) % 2 == 0
    windows[labels, :, 2] += np.linspace(0, 2, WINDOW, dtype=np.float32)
    trees = Boosting(windows, labels, seed=1)
    scores = trees.scores(windows)
    assert scores[labels].mean() > scores[~labels].mean() + 1
    assert statistics(windows[:1]).shape == (1, 6 * len(FEATURES))


def _cell(found: float, lead: float | None = 20.0) -> dict[str, Any]:
    spread = {"mean": found, "least": found, "most": found}
    return {"found": spread, "lead_h": lead, "modes": {"cooling": found}}


def _summary(ours: float, *, false: float = 0.0, lead: float = 20.0) -> dict[str, Any]:
    def row(strong: float, weak: float, lead: float | None = 20.0) -> dict[str, Any]:
        return {
            "false_per_100_days": {"mean": false, "least": false, "most": false},
            "false_per_100_hours": {"mean": false, "least": false, "most": false},
            "severity": {"1.0": _cell(strong), "0.5": _cell(weak, lead)},
        }

    others = {name: row(0.9, 0.3) for name in ("limits", *BASELINES)}
    return {**others, "cartwin": row(0.1, ours, lead)}


def test_only_what_the_rule_misses_is_asked_of_the_models() -> None:
    """Severity 1.0, which the rule finds, is not judged; 0.5 is."""
    assert hard(_summary(0.97)) == ["0.5"]
    assert shortcomings(_summary(0.97)) == []


def test_every_shortcoming_is_named() -> None:
    """Too few found, too late, too many false alarms, worse than a baseline."""
    missed = " ".join(shortcomings(_summary(0.25, false=2.0, lead=3.0)))
    for part in ("25.0% found", "lead 3.0 h", "2.00 false alarms", "pca finds 30.0%"):
        assert part in missed


def test_the_table_has_a_line_for_each_detector() -> None:
    """Markdown, with spread and lead."""
    table = text(_summary(0.97)).splitlines()
    assert sum(line.startswith("| ") for line in table) == 6
    assert "97% (97%-97%), 20 h" in "".join(table)
