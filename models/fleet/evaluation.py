"""What the fleet's models find before it fails, beside plain detectors on the same cars.

For each seed: a fleet of its own is simulated and trained on as the trainer does it (`fit`, export,
load: what is judged is the served model through the scorer's path), then three kinds of cars that
nothing was trained, calibrated or chosen on are judged: healthy ones, and failing ones at every
severity, both with parameters from ranges that the training never saw. Every detector has its
threshold from the same healthy calibration cars, the rule its fixed limits.

A car counts as found when an alarm stands between onset and failure; `lead` is component time from
the first such row to the failure; false alarms are alarms opened in healthy component time.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models import progress, serving, train
from models.baseline import Pca
from models.debounce import Debounce
from models.evaluate import Life, Mask, alarms, events, lives_of, trace
from models.examples import Data, prepare
from models.features import Features, compute, windows
from models.fit import ALARM_SHARE, DEBOUNCE, STRIDE, fit
from models.fleet.detectors import Boosting, limits
from models.fleet.past import Past, record
from models.log import Stretch
from models.simulator import (
    ACCELERATION,
    SHIFTED,
    Block,
    Ranges,
    history,
    history_steps,
)
from models.threshold import alarm_level, extreme

Floats = NDArray[np.floating[Any]]

DETECTORS: Final = ("limits", "pca", "boosting", "autoencoder", "lstm", "cartwin")
"""`cartwin` is what the scorer raises: an alarm of the autoencoder or of the LSTM."""
HORIZON_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is simulated for each seed. `severities`: strength of a fault's signs at failure."""

    seeds: Sequence[int]
    train_cars: int
    failing_cars: int
    healthy_cars: int
    days: float
    severities: Sequence[float]
    epochs: int


def evaluate(plan: Plan, form: progress.Form) -> dict[str, Any]:
    """All figures: per seed, and their mean and spread. Raises `NotEnoughData`."""
    runs = [_run(plan, seed, form) for seed in plan.seeds]
    return {"plan": _told(plan), "runs": runs, "summary": summary(runs, plan)}


def _run(plan: Plan, seed: int, form: progress.Form) -> dict[str, Any]:
    steps = history_steps(plan.days)

    def past(name: str, cars: int, number: int, **how: Any) -> Past:
        def blocks(start_ms: int) -> Iterator[Block]:
            return history(cars, plan.days, seed=1000 * seed + number, start_ms=start_ms, **how)

        return record(blocks, cars, steps, name=name, days=plan.days)

    with progress.steps(f"seed {seed}: simulating", 2 + len(plan.severities), form) as advance:
        learnt = past("train", plan.train_cars, 0)
        advance(1)
        healthy = past("healthy", plan.healthy_cars, 1, ranges=SHIFTED, failure_share=0.0)
        advance(1)
        failing = {}
        for i, severity in enumerate(plan.severities):
            failing[severity] = past(
                f"failing-{severity}",
                plan.failing_cars,
                2 + i,
                ranges=SHIFTED,
                failure_share=1.0,
                severity=severity,
            )
            advance(1)
    data = prepare(
        learnt.columns, learnt.truth, horizon_ms=1000 * HORIZON_S / ACCELERATION, seed=seed
    )
    trained = fit(data, seed=seed, epochs=plan.epochs, form=form)
    with tempfile.TemporaryDirectory(prefix="cartwin-evaluate-") as store:
        made, _ = train.store(
            data, trained, _options(Path(store), seed, plan), Stretch("simulator", ()), 0
        )
        model = serving.load(made)
    judges = _Judges(model, trained.pca, trained.pca_threshold, _boosting(data, seed))
    with progress.steps(f"seed {seed}: judging", 1 + len(failing), form) as advance:
        quiet = judges.events(healthy)
        advance(1)
        found = {}
        for severity, cars in failing.items():
            found[severity] = judges.events(cars)
            advance(1)
    return {
        "seed": seed,
        "healthy": quiet,
        "failing": {str(severity): by for severity, by in found.items()},
    }


def _options(store: Path, seed: int, plan: Plan) -> train.Options:
    return train.Options(
        topic="simulator",
        truth_topic="simulator",
        store=store,
        seed=seed,
        epochs=plan.epochs,
        max_rows=0,
        horizon_s=HORIZON_S,
        acceleration=ACCELERATION,
        promote_anyway=False,
    )


def _boosting(data: Data, seed: int) -> tuple[Boosting, float]:
    """Trees from the rows the LSTM learnt from, and their threshold from calibration cars."""
    columns = data.columns
    ends, found = windows(data.features, columns.life, columns.event_time, stride=STRIDE)
    rows = (data.of("train") | data.of("validate"))[ends]
    trees = Boosting(found[rows], data.label[ends[rows]], seed)
    part = np.flatnonzero(data.of("calibrate"))
    life = columns.life[part]
    ends, found = windows(data.features[part], life, columns.event_time[part])
    values = trees.scores(found)
    levels = [
        alarm_level(values[life[ends] == car], DEBOUNCE.k, DEBOUNCE.n)
        for car in np.unique(life).tolist()
        if data.truth.fates[columns.lives[car]].mode is None
    ]
    return trees, extreme(levels, ALARM_SHARE)


class _Judges:
    """All detectors, ready: what they make of a past as events."""

    def __init__(
        self,
        model: serving.Loaded,
        pca: Pca,
        pca_threshold: float,
        boosting: tuple[Boosting, float],
    ) -> None:
        self._model = model
        self._pca = (pca, pca_threshold)
        self._boosting = boosting

    def events(self, past: Past) -> dict[str, dict[str, Any]]:
        """`models.evaluate.events` of every detector, by engine mode."""
        lives = lives_of(past.columns, past.truth.fates)
        return {
            name: events(lives, alarm) | {"modes": _leads(lives, alarm)}
            for name, alarm in self._alarms(past, lives).items()
        }

    def _alarms(self, past: Past, lives: Sequence[Life]) -> Mapping[str, Mask]:
        model, columns = self._model, past.columns
        traced = trace(model, columns)
        features, valid = compute(np.asarray(columns.signals, dtype=np.float64))
        trees, trees_threshold = self._boosting
        pca, pca_threshold = self._pca

        def stands(values: Floats, threshold: float, policy: Debounce = DEBOUNCE) -> Mask:
            return alarms(lives, values, threshold, policy)[0]

        return {
            "limits": stands(np.where(valid, limits(features), np.nan), 1.0),
            "pca": stands(np.where(valid, pca.scores(features), np.nan), pca_threshold),
            "boosting": stands(_of_windows(trees, columns, features, valid), trees_threshold),
            "autoencoder": stands(traced.score, model.autoencoder.threshold),
            "lstm": stands(traced.probability, model.lstm.threshold),
            "cartwin": traced.alarm,
        }


def _of_windows(trees: Boosting, columns: Any, features: Features, valid: Mask) -> Floats:
    rows = np.flatnonzero(valid)
    ends, found = windows(features[rows], columns.life[rows], columns.event_time[rows])
    values = np.full(len(columns), np.nan)
    values[rows[ends]] = trees.scores(found)
    return values


def _leads(lives: Sequence[Life], alarm: Mask) -> dict[str, list[float | None]]:
    """Mode -> component hours between the first alarm and each failure; None where it was missed."""
    leads: dict[str, list[float | None]] = {}
    for life in lives:
        fate = life.fate
        if not fate.failed or fate.mode is None or fate.onset is None or fate.failure is None:
            continue
        stands = alarm[life.rows]
        hits = life.times[stands & (life.times >= fate.onset) & (life.times < fate.failure)]
        hours = (fate.failure - int(hits.min())) / 3.6e6 * ACCELERATION if hits.size else None
        leads.setdefault(fate.mode, []).append(None if hours is None else round(hours, 1))
    return leads


def summary(runs: Sequence[Mapping[str, Any]], plan: Plan) -> dict[str, Any]:
    """Detector -> severity -> share found (mean, least and most of the seeds), lead, false alarms."""
    table: dict[str, Any] = {}
    for name in DETECTORS:
        false = [_per_100_days(run["healthy"][name]) for run in runs]
        table[name] = {"false_per_100_days": _spread(false), "severity": {}}
        for severity in map(str, plan.severities):
            shares, hours = [], []
            for run in runs:
                leads = [x for one in run["failing"][severity][name]["modes"].values() for x in one]
                known = [x for x in leads if x is not None]
                shares.append(len(known) / max(len(leads), 1))
                hours += known
            table[name]["severity"][severity] = {
                "found": _spread(shares),
                "lead_h": round(float(np.median(hours)), 1) if hours else None,
                "modes": _by_mode(runs, severity, name),
            }
    return table


def _by_mode(runs: Sequence[Mapping[str, Any]], severity: str, name: str) -> dict[str, float]:
    leads: dict[str, list[float | None]] = {}
    for run in runs:
        for mode, found in run["failing"][severity][name]["modes"].items():
            leads.setdefault(mode, []).extend(found)
    return {
        mode: round(sum(x is not None for x in found) / len(found), 3)
        for mode, found in sorted(leads.items())
    }


def _per_100_days(found: Mapping[str, Any]) -> float:
    days = found["healthy_s"] * ACCELERATION / 86_400
    return 100.0 * int(found["false_episodes"]) / max(float(days), 1e-9)


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "mean": round(float(np.mean(values)), 4),
        "least": round(min(values), 4),
        "most": round(max(values), 4),
    }


def _told(plan: Plan) -> dict[str, Any]:
    return {
        "seeds": list(plan.seeds),
        "train_cars": plan.train_cars,
        "failing_cars": plan.failing_cars,
        "healthy_cars": plan.healthy_cars,
        "days": plan.days,
        "severities": list(plan.severities),
        "ranges": {"train": repr(Ranges()), "test": repr(SHIFTED)},
    }
