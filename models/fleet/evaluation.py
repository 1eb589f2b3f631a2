"""What the fleet's models find before it fails, beside plain detectors on the same cars.

For each seed: a fleet of its own is simulated and trained on as the trainer does it (`fit`, export,
load: what is judged is the served model through the scorer's path), then cars that nothing was
trained, calibrated or chosen on are judged: healthy ones, and failing ones at every severity, both
with parameters from ranges that the training never saw. Our thresholds come from calibration cars of
the training's ranges, the rule has its fixed limits; PCA and boosting get more than a fair chance:
thresholds at which as many of the very cars they are judged on alarm as false alarms are allowed.

A car counts as found when an alarm opens between onset and failure; `lead` is component time from then
to the failure; false alarms are alarms opened in healthy component time, that of failing cars before
their onset included.
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
from models.evaluate import (
    Life,
    Mask,
    Trace,
    alarms,
    chances,
    events,
    first_warning,
    lives_of,
    remaining,
    trace,
)
from models.examples import Data, prepare
from models.features import Features, Index, compute, regimes, windows
from models.fit import DEBOUNCE, STRIDE, fit
from models.fleet.detectors import Boosting, limits
from models.fleet.past import Past, record
from models.fleet.report import ALLOWED_FALSE
from models.simulator import (
    SHIFTED,
    Block,
    Ranges,
    history,
    history_steps,
)
from models.threshold import alarm_level, budgeted
from models.trend import Trends

Floats = NDArray[np.floating[Any]]

DETECTORS: Final = (
    "limits",
    "pca",
    "boosting",
    "boosting_own",
    "autoencoder",
    "lstm",
    "cartwin",
)
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
    acceleration: float
    severities: Sequence[float]
    epochs: int


def evaluate(plan: Plan, form: progress.Form) -> dict[str, Any]:
    """All figures: per seed, and their mean and spread. Raises `NotEnoughData`."""
    runs = [_run(plan, seed, form) for seed in plan.seeds]
    return {"plan": _told(plan), "runs": runs, "summary": summary(runs, plan)}


def _run(plan: Plan, seed: int, form: progress.Form) -> dict[str, Any]:
    steps = history_steps(plan.days, acceleration=plan.acceleration)

    def past(name: str, cars: int, number: int, **how: Any) -> Past:
        def blocks(start_ms: int) -> Iterator[Block]:
            return history(
                cars,
                plan.days,
                seed=1000 * seed + number,
                start_ms=start_ms,
                acceleration=plan.acceleration,
                **how,
            )

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
    horizon_ms = 1000 * HORIZON_S / plan.acceleration
    data = prepare(learnt.columns, learnt.truth, horizon_ms=horizon_ms, seed=seed)
    trained = fit(data, seed=seed, epochs=plan.epochs, form=form)
    with tempfile.TemporaryDirectory(prefix="cartwin-evaluate-") as store:
        made, _ = train.store(
            data, trained, _options(Path(store), seed, plan), {"simulator": seed}, 0
        )
        model = serving.load(made)
    trees = _boosting(data, model, seed)
    judges = _Judges(model, trained.pca, trees, healthy, plan.acceleration)
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
        parquet=None,
        caches=store,
        store=store,
        seed=seed,
        epochs=plan.epochs,
        max_rows=0,
        horizon_s=HORIZON_S,
        acceleration=plan.acceleration,
        promote_anyway=False,
    )


def _boosting(data: Data, model: serving.Loaded, seed: int) -> tuple[Boosting, Boosting]:
    """Trees from the rows the LSTM learnt from: without and with how far the car has left itself."""
    columns = data.columns
    ends, found = windows(data.features, columns.life, columns.event_time, stride=STRIDE)
    alive = data.lives.left > 0
    rows = ((data.of("train") | data.of("validate")) & alive)[ends]
    own = _deviations(model, data.features, columns.life)[ends[rows]]
    labels = data.label[ends[rows]]
    return Boosting(found[rows], labels, seed), Boosting(found[rows], labels, seed, own)


def _deviations(model: serving.Loaded, features: Features, lives: Index) -> Features:
    """What our scorer knows of each valid row's car; NaN without a baseline, which trees can take."""
    return Trends(model.norms).push(lives, regimes(features), model.rows(features)[1])


class _Judges:
    """All detectors, ready: what they make of a past as events."""

    def __init__(
        self,
        model: serving.Loaded,
        pca: Pca,
        trees: tuple[Boosting, Boosting],
        healthy: Past,
        acceleration: float,
    ) -> None:
        self._model = model
        self._pca = pca
        self._trees = trees
        self._acceleration = acceleration
        self._horizon_ms = 1000 * HORIZON_S / acceleration
        lives = lives_of(healthy.columns, healthy.truth.fates)
        allowed = ALLOWED_FALSE / 100 * healthy.component_days * len(lives)
        self._thresholds = [
            budgeted([_level(values[life.rows]) for life in lives], allowed)
            for values in self._plain(healthy)
        ]

    def events(self, past: Past) -> dict[str, dict[str, Any]]:
        """`models.evaluate.events` of every detector, by engine mode."""
        lives = lives_of(past.columns, past.truth.fates)
        traced = trace(self._model, past.columns)
        found = {
            name: events(lives, alarm) | {"modes": _leads(lives, alarm, self._acceleration)}
            for name, alarm in self._alarms(past, lives, traced).items()
        }
        found["lstm"]["remaining"] = remaining(lives, traced, self._acceleration)
        found["lstm"]["ece"] = chances(lives, traced.probability, self._horizon_ms)
        return found

    def _alarms(self, past: Past, lives: Sequence[Life], traced: Trace) -> Mapping[str, Mask]:
        model, columns = self._model, past.columns
        features, valid = compute(np.asarray(columns.signals, dtype=np.float64))

        def stands(values: Floats, threshold: float) -> Mask:
            return alarms(lives, values, threshold, DEBOUNCE)[0]

        pca, boosting, own = map(stands, self._plain(past), self._thresholds)
        return {
            "limits": stands(np.where(valid, limits(features), np.nan), 1.0),
            "pca": pca,
            "boosting": boosting,
            "boosting_own": own,
            "autoencoder": stands(traced.score, model.autoencoder.threshold),
            "lstm": stands(traced.probability, model.lstm.threshold),
            "cartwin": traced.alarm,
        }

    def _plain(self, past: Past) -> tuple[Floats, Floats, Floats]:
        """Scores (rows,) of PCA, and of both trees; NaN where a row or window is not valid."""
        columns = past.columns
        features, valid = compute(np.asarray(columns.signals, dtype=np.float64))
        rows = np.flatnonzero(valid)
        ends, found = windows(features[rows], columns.life[rows], columns.event_time[rows])
        own = _deviations(self._model, features[rows], columns.life[rows])[ends]
        grown = np.full((2, len(columns)), np.nan)
        # Odds: hysteresis needs a share.
        grown[0, rows[ends]] = np.exp(self._trees[0].scores(found))
        grown[1, rows[ends]] = np.exp(self._trees[1].scores(found, own))
        return np.where(valid, self._pca.scores(features), np.nan), grown[0], grown[1]


def _level(values: Floats) -> float:
    return alarm_level(values[~np.isnan(values)], DEBOUNCE.k, DEBOUNCE.n)


def _leads(
    lives: Sequence[Life], alarm: Mask, acceleration: float
) -> dict[str, list[float | None]]:
    """Mode -> component hours between the first alarm and each failure; None where it was missed."""
    leads: dict[str, list[float | None]] = {}
    for life in lives:
        fate = life.fate
        if not fate.failed or fate.mode is None or fate.onset is None or fate.failure is None:
            continue
        found = first_warning(life, alarm[life.rows])
        hours = None if found is None else (fate.failure - found) / 3.6e6 * acceleration
        leads.setdefault(fate.mode, []).append(None if hours is None else round(hours, 1))
    return leads


def summary(runs: Sequence[Mapping[str, Any]], plan: Plan) -> dict[str, Any]:
    """Detector -> severity -> share found (mean, least and most of the seeds), lead, false alarms."""
    table: dict[str, Any] = {}
    for name in DETECTORS:
        false = [
            _per_100_days([one[name] for one in (run["healthy"], *run["failing"].values())], plan)
            for run in runs
        ]
        # Of rows, not of wear: what the same car would raise in as many hours of driving.
        hours = [each * plan.acceleration / 24 for each in false]
        table[name] = {
            "false_per_100_days": _spread(false),
            "false_per_100_hours": _spread(hours),
            "severity": {},
        }
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


def _per_100_days(found: Sequence[Mapping[str, Any]], plan: Plan) -> float:
    days = sum(one["healthy_s"] for one in found) * plan.acceleration / 86_400
    return 100.0 * float(sum(one["false_episodes"] for one in found)) / max(float(days), 1e-9)


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
        "acceleration": plan.acceleration,
        "severities": list(plan.severities),
        "ranges": {"train": repr(Ranges()), "test": repr(SHIFTED)},
    }
