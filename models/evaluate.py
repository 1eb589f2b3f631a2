"""How good a detector is, by events: cars found before they fail, and how long before; cars that
alarmed for nothing.

No point-adjusted F1 (random scores look excellent under it) and no row accuracy: an alert is one
event per car. The same functions judge the served model, each of its halves, and the plain baseline.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.cache import Columns
from models.debounce import Debounce
from models.labels import Fate
from models.reliability import expected_calibration_error
from models.scoring import Batch, Model, Vehicles, assess

Mask = NDArray[np.bool_]
_CHUNK = 8192


@dataclass(frozen=True, slots=True)
class Trace:
    """What a model said of each row of a log: arrays (rows,), NaN where it said nothing."""

    score: NDArray[np.float64]
    probability: NDArray[np.float64]
    remaining: NDArray[np.float64]  # (rows, 3), seconds of component time; `scoring.Verdicts`
    alarm: Mask


def trace(model: Model, columns: Columns) -> Trace:
    """Run the scorer's own path over a log, in order of arrival."""
    n = len(columns)
    score, probability, remaining = (np.full((n, *more), np.nan) for more in ((), (), (3,)))
    alarm = np.zeros(n, dtype=bool)
    vehicles = Vehicles(max(len(columns.lives), 1))
    for begin in range(0, n, _CHUNK):
        part = slice(begin, begin + _CHUNK)
        batch = Batch(
            [columns.lives[i] for i in columns.life[part].tolist()],
            np.asarray(columns.event_time[part]),
            np.asarray(columns.signals[part], dtype=np.float64),
            ~columns.suspect[part],
        )
        for verdict in assess(model, [(vehicles, batch)], 0)[0]:
            row = begin + verdict.row
            alarm[row] = verdict.state == "alarm"
            if verdict.score is not None:
                score[row] = verdict.score
            if verdict.probability is not None:
                probability[row] = verdict.probability
            if verdict.remaining is not None:
                remaining[row] = verdict.remaining
    return Trace(score, probability, remaining, alarm)


def debounced(values: NDArray[np.floating[Any]], threshold: float, policy: Debounce) -> Mask:
    """Where one car's alarm stands, row by row; NaN rows change nothing."""
    state = policy.start()
    alarm = np.zeros(values.size, dtype=bool)
    for i, value in enumerate(values.tolist()):
        if not math.isnan(value):
            state.push(value, threshold)
        alarm[i] = state.alarm
    return alarm


@dataclass(frozen=True, slots=True)
class Life:
    """One car of the log: its fate, and its rows in order of arrival."""

    fate: Fate
    rows: NDArray[np.int64]
    times: NDArray[np.int64]

    @property
    def before_failure(self) -> NDArray[np.int64]:
        """Its rows, but those at and after a failure that came."""
        end = self.fate.failure if self.fate.failed else None
        return self.rows if end is None else self.rows[self.times < end]


def events(lives: Sequence[Life], alarm: Mask) -> dict[str, Any]:
    """Events of one detector, whose `alarm` (all rows of the log) is given.

    A failure counts when it lies within the car's rows; it is detected by an alarm that opens between
    onset and failure (one that stood before was false, whatever came later). `lead_s` is the median
    time on the clock from the first such opening to the failure. A false alarm is a healthy car, or
    one before its onset, that alarmed; `false_episodes` counts every alarm that opened in `healthy_s`
    seconds of such time.
    """
    leads: dict[str, list[float]] = {}
    missed: dict[str, int] = {}
    false_healthy = false_early = healthy = episodes = 0
    healthy_ms = 0
    for life in lives:
        stands = alarm[life.rows]
        fate = life.fate
        sound = fate.healthy(life.times, 0)
        episodes += int((stands & sound & ~np.append(False, stands[:-1])).sum())
        healthy_ms += int(np.ptp(life.times[sound])) if sound.any() else 0
        if fate.mode is None or fate.onset is None or fate.failure is None:
            healthy += 1
            false_healthy += bool(stands.any())
            continue
        false_early += bool(stands[life.times < fate.onset].any())
        if not fate.failed:
            continue
        found = first_warning(life, stands)
        if found is not None:
            leads.setdefault(fate.mode, []).append((fate.failure - found) / 1000)
        else:
            missed[fate.mode] = missed.get(fate.mode, 0) + 1
    by_mode = {
        mode: _found(leads.get(mode, []), missed.get(mode, 0)) for mode in sorted({*leads, *missed})
    }
    return {
        **_found([lead for found in leads.values() for lead in found], sum(missed.values())),
        "healthy": healthy,
        "false_alarms": false_healthy,
        "false_alarms_before_onset": false_early,
        "false_episodes": episodes,
        "healthy_s": round(healthy_ms / 1000),
        "by_mode": by_mode,
    }


def first_warning(life: Life, stands: Mask) -> int | None:
    """When (ms) the first alarm opened between onset and failure; `stands` of its rows."""
    fate = life.fate
    if fate.onset is None or fate.failure is None:
        return None
    opens = stands & ~np.append(False, stands[:-1])
    hits = life.times[opens & (life.times >= fate.onset) & (life.times < fate.failure)]
    return int(hits.min()) if hits.size else None


def auc(values: NDArray[np.floating[Any]], labels: Mask) -> float | None:
    """Area under the ROC curve (rank statistic, ties shared); None without both classes."""
    positives = int(labels.sum())
    negatives = labels.size - positives
    if not positives or not negatives:
        return None
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    area = (ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives)
    return round(float(area), 4)


def report(
    model: Model,
    columns: Columns,
    fates: Mapping[str, Fate],
    baseline: tuple[NDArray[np.floating[Any]], float],
    *,
    horizon_ms: float,
    acceleration: float,
) -> dict[str, Any]:
    """All metrics of a model on a log whose lives have known fates; `baseline` = scores, threshold.

    The baseline's scores (rows,) are NaN where a row is not valid.
    """
    traced = trace(model, columns)
    lives = lives_of(columns, fates)
    labels = np.zeros(len(columns), dtype=bool)
    for life in lives:
        labels[life.rows] = life.fate.label(life.times, horizon_ms)
    # What a car does after its failure is easy to tell, and is nobody's forecast.
    known = np.concatenate([life.before_failure for life in lives] or [np.empty(0, np.int64)])
    judged = known[~np.isnan(traced.probability[known])]
    scores, limit = baseline
    detectors = {
        "scorer": (traced.alarm, None),
        "autoencoder": alarms(
            lives, traced.score, model.autoencoder.threshold, model.autoencoder.debounce
        ),
        "lstm": alarms(lives, traced.probability, model.lstm.threshold, model.lstm.debounce),
        "pca": alarms(lives, scores, limit, model.autoencoder.debounce),
    }
    found: dict[str, Any] = {}
    for name, (alarm, values) in detectors.items():
        found[name] = events(lives, alarm)
        if values is not None:
            found[name]["auc"] = auc(values[judged], labels[judged])
    scorer = found["scorer"]
    lead = scorer["lead_s"]
    return {
        "rows": int(known.size),
        "vehicles": len(lives),
        "detectors": found,
        "remaining": remaining(lives, traced, acceleration),
        "summary": {
            "auc": found["lstm"]["auc"],
            "failures": scorer["failures"],
            "detected": scorer["detected"],
            "lead_s": lead,
            "lead_component_s": None if lead is None else round(lead * acceleration),
            "healthy": scorer["healthy"],
            "false_alarms": scorer["false_alarms"],
            "brier": _brier(traced.probability[judged], labels[judged]),
            "ece": chances(lives, traced.probability, horizon_ms),
        },
    }


def remaining(lives: Sequence[Life], traced: Trace, acceleration: float) -> dict[str, Any]:
    """What was told of the life left, from the onset on, of cars that failed: one vote a car.

    `coverage`: share of moments at which the interval held the truth; `error_h` and `half_width_h`
    (of intervals with an upper end): medians in hours of component time.
    """
    held, errors, widths = [], [], []
    for life in lives:
        fate = life.fate
        if not fate.failed or fate.failure is None or fate.onset is None:
            continue
        during = (life.times >= fate.onset) & (life.times < fate.failure)
        said = traced.remaining[life.rows[during]]
        left = (fate.failure - life.times[during]) / 1000 * acceleration
        known = ~np.isnan(said[:, 0])
        if not known.any():
            continue
        (told, low, high), left = said[known].T, left[known]
        held.append(float(np.mean((low <= left) & (left <= high))))
        errors.append(float(np.median(np.abs(told - left))))
        widths += ((high - low)[np.isfinite(high)] / 2).tolist()
    return {
        "cars": len(held),
        "coverage": round(float(np.mean(held)), 3) if held else None,
        "error_h": round(float(np.median(errors)) / 3600, 1) if held else None,
        "half_width_h": round(float(np.median(widths)) / 3600, 1) if widths else None,
    }


def chances(
    lives: Sequence[Life], probability: NDArray[np.float64], horizon_ms: float
) -> float | None:
    """Expected calibration error of the chance to fail within the horizon, every car one vote."""
    told, came, weight = [], [], []
    for life in lives:
        end = life.fate.failure if life.fate.failed else None
        alive = np.ones(life.rows.size, bool) if end is None else life.times < end
        chance = probability[life.rows]
        known = ~np.isnan(chance) & alive
        told.append(chance[known])
        came.append(life.fate.label(life.times[known], horizon_ms))
        weight.append(np.full(told[-1].size, 1 / max(told[-1].size, 1)))
    if not told:
        return None
    error = expected_calibration_error(
        np.concatenate(told), np.concatenate(came), np.concatenate(weight)
    )
    return None if error is None else round(error, 4)


def alarms(
    lives: Sequence[Life], values: NDArray[np.floating[Any]], threshold: float, policy: Debounce
) -> tuple[Mask, NDArray[np.floating[Any]]]:
    alarm = np.zeros(values.size, dtype=bool)
    for life in lives:
        alarm[life.rows] = debounced(values[life.rows], threshold, policy)
    return alarm, values


def lives_of(columns: Columns, fates: Mapping[str, Fate]) -> list[Life]:
    order = np.argsort(columns.life, kind="stable")
    bounds = np.searchsorted(columns.life[order], np.arange(len(columns.lives) + 1))
    lives = []
    for number, name in enumerate(columns.lives):
        rows = order[bounds[number] : bounds[number + 1]]
        if name in fates and rows.size:
            lives.append(Life(fates[name], rows, np.asarray(columns.event_time[rows])))
    return lives


def _found(leads: list[float], missed: int) -> dict[str, Any]:
    return {
        "failures": len(leads) + missed,
        "detected": len(leads),
        "lead_s": round(float(np.median(leads)), 1) if leads else None,
    }


def _brier(probability: NDArray[np.floating[Any]], labels: Mask) -> float | None:
    if not labels.size:
        return None
    return round(float(np.mean(np.square(probability - labels))), 4)
