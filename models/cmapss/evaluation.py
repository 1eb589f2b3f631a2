"""The LSTM and the baselines, once for each seed, on NASA's test engines.

A seed deals the 100 training engines: 80 to train on, 20 that calibrate chance and interval, and
fixes the weights. All choices (inputs, window, network, schedule, boosting's setting) were made on
held-out training engines; the test engines enter here and nowhere else. Errors are of the last
window of each test engine, as everywhere in the literature, with the truth capped as in training
and, beside it, as it is. Chances are of every window of the test engines, an engine one vote.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models import network, progress, rul
from models.calibration import platt
from models.cmapss import baselines
from models.cmapss.reader import BadDataSet, Engine
from models.cmapss.windows import CAP, WINDOW, Fleet, Windows
from models.conformal import Interval
from models.labels import Lives
from models.reliability import Bin, alpha_lambda, bins, expected_calibration_error

HORIZON: Final = 30.0
"""Cycles; the chance is that of a failure within them."""
RECIPE: Final = rul.Recipe(cap=CAP, horizon=HORIZON, units=(64,), dropout=0.1, epochs=20)
STRIDE: Final = 3
"""Every so manieth window is trained on."""
CALIBRATE: Final = 20
"""Training engines that calibrate."""
SHARE: Final = 0.9
"""Of the lives that the interval is to hold."""
ALPHA: Final = 0.2
LAMBDAS: Final = (0.5, 0.7, 0.9)

_DRAWS: Final = 2000

RMSE_LIMIT: Final = 14.5
SCORE_LIMIT: Final = 400.0

Numbers = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Said:
    """What one seed's LSTM says of windows (n,): life, interval, chance within the horizon."""

    windows: Windows
    remaining: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    chance: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Run:
    """One seed: `report` for people and programs, what was `told` of each test engine's end by each
    model, `test` and `calibrated` engines for plots."""

    report: dict[str, Any]
    told: dict[str, NDArray[np.float64]]
    test: Said
    calibrated: Said
    reliability: list[Bin]


def run(
    train: Sequence[Engine], test: Sequence[Engine], seed: int, advance: progress.Advance
) -> Run:
    """Train and measure everything for one seed; `advance` hears of RECIPE.epochs + 1 steps.

    Raises `BadDataSet` when there are too few engines to train on.
    """
    if len(train) < 2 * CALIBRATE:
        raise BadDataSet(f"{len(train)} training engines; at least {2 * CALIBRATE} are needed")
    dealt = np.random.default_rng(seed).permutation(len(train)).tolist()
    kept = [train[place] for place in dealt[:CALIBRATE]]
    ours = [train[place] for place in dealt[CALIBRATE:]]
    fleet = Fleet.fit(ours)
    calibrating, asked = fleet.windows(kept), fleet.windows(test)
    began = time.monotonic()
    model, scaler = _trained(fleet.windows(ours, STRIDE), seed, advance)
    seconds = time.monotonic() - began
    on_calibration, on_test = (
        rul.forecast(model, scaler, rul.Seen.alone(windows.inputs), CAP)
        for windows in (calibrating, asked)
    )
    line = platt(on_calibration.logit, calibrating.left <= HORIZON)
    interval = Interval.fit(
        on_calibration.low,
        on_calibration.high,
        calibrating.left,
        calibrating.engine,
        cap=CAP,
        share=SHARE,
    )
    calibrated = _said(calibrating, on_calibration, line, interval)
    tested = _said(asked, on_test, line, interval)
    last = asked.last
    told = {"lstm": tested.remaining[last]}
    cycles = np.array([len(engine.sensors) for engine in test])
    mean_life = float(np.mean([len(engine.sensors) for engine in ours]))
    ends = Windows(asked.inputs[last], asked.left[last], asked.engine[last], asked.age[last])
    told.update(baselines.predictions(fleet.windows(ours), mean_life, ends, cycles, seed))
    advance(1)
    report = {
        "seed": seed,
        "train_s": round(seconds, 1),
        "errors": {name: errors(lives, ends.left) for name, lives in told.items()},
        "validation_rmse": round(
            _rmse(calibrated.remaining, calibrating.capped, calibrating.weight), 2
        ),
        "interval": coverage(tested, last),
        "chance": chances(tested),
        "alpha_lambda": trajectory(calibrated),
    }
    came = asked.left <= HORIZON
    return Run(report, told, tested, calibrated, bins(tested.chance, came, asked.weight))


def _trained(windows: Windows, seed: int, advance: progress.Advance) -> tuple[Any, network.Scaler]:
    network.seed(seed)
    scaler = network.Scaler.fit(windows.inputs.reshape(-1, windows.inputs.shape[-1]))
    lives = Lives(windows.left.astype(np.float32), np.zeros(windows.left.size, dtype=bool))

    def told(_epoch: int, losses: dict[str, float]) -> None:
        advance(1, f"loss {losses['loss']:.4f}")

    return rul.train(rul.Seen.alone(windows.inputs), lives, None, scaler, RECIPE, told), scaler


def _said(
    windows: Windows, forecast: rul.Forecast, line: tuple[float, float], interval: Interval
) -> Said:
    low, high = interval(forecast.remaining, forecast.low, forecast.high)
    logit = line[0] * forecast.logit.astype(np.float64) + line[1]
    return Said(
        windows,
        forecast.remaining.astype(np.float64),
        low,
        high,
        1 / (1 + np.exp(-np.clip(logit, -30, 30))),
    )


def errors(predicted: Numbers, left: Numbers) -> dict[str, float]:
    """RMSE in cycles and NASA's score of one prediction an engine, truth capped and as it is."""
    capped = np.minimum(left, CAP)
    return {
        "rmse": round(_rmse(predicted, capped), 2),
        "score": round(nasa_score(predicted, capped), 1),
        "rmse_uncapped": round(_rmse(predicted, left), 2),
        "score_uncapped": round(nasa_score(predicted, left), 1),
    }


def nasa_score(predicted: Numbers, left: Numbers) -> float:
    """Sum over engines of exp(-d / 13) - 1 when too early, exp(d / 10) - 1 when too late (PHM 2008)."""
    late = np.asarray(predicted, dtype=np.float64) - left
    return float(np.sum(np.expm1(np.where(late < 0, -late / 13, late / 10))))


def coverage(said: Said, chosen: NDArray[np.int64]) -> dict[str, Any]:
    """How often the interval held the truth, and how wide it was (half, in cycles).

    `worn` counts engines with less than CAP left; an interval that reaches CAP has no upper end.
    """
    low, high, left = said.low[chosen], said.high[chosen], said.windows.left[chosen]
    held = (low <= left) & ((left <= high) | (high >= CAP))
    half, worn = (high - low) / 2, left < CAP
    return {
        "promised": SHARE,
        "coverage": round(float(held.mean()), 3),
        "coverage_worn": round(float(held[worn].mean()), 3) if worn.any() else None,
        "half_width": round(float(half.mean()), 1),
        "half_width_worn": round(float(half[worn].mean()), 1) if worn.any() else None,
    }


def chances(said: Said) -> dict[str, Any]:
    """Calibration error and Brier score of the chance, and Brier of always telling the base rate.

    `ece_worn` leaves out windows with CAP or more cycles left, of which it is easy to be right.
    """
    worn = said.windows.left < CAP
    came, weight = said.windows.left <= HORIZON, said.windows.weight
    base = float(np.average(came, weights=weight))
    calibration = expected_calibration_error(said.chance, came, weight)
    calibrated_worn = expected_calibration_error(said.chance[worn], came[worn], weight[worn])
    return {
        "horizon": HORIZON,
        "base_rate": round(base, 4),
        "ece": None if calibration is None else round(calibration, 4),
        "ece_worn": None if calibrated_worn is None else round(calibrated_worn, 4),
        "brier": round(float(np.average(np.square(said.chance - came), weights=weight)), 4),
        "brier_base_rate": round(base * (1 - base), 4),
    }


def trajectory(said: Said) -> dict[str, float | None]:
    """Share of engines that were told within ALPHA of the capped truth, at each of LAMBDAS.

    On the calibration engines: no test engine ran to failure.
    """
    windows = said.windows
    found = {}
    for point in LAMBDAS:
        away = np.abs(windows.age - point)
        nearest = [
            int(rows[np.argmin(away[rows])])
            for rows in (
                np.flatnonzero(windows.engine == engine) for engine in np.unique(windows.engine)
            )
        ]
        share = alpha_lambda(said.remaining[nearest], windows.capped[nearest], ALPHA)
        found[f"{point:g}"] = None if share is None else round(share, 3)
    return found


def against(runs: Sequence[Run], rival: str) -> dict[str, float]:
    """RMSE of the LSTM less that of `rival` (below 0: better), with a 95 % interval by engine.

    Paired bootstrap over the test engines; an engine's squared error is its mean over the seeds.
    """
    left = runs[0].test.windows.capped[runs[0].test.windows.last]
    squares = np.array(
        [
            np.mean([np.square(run.told[name] - left) for run in runs], axis=0)
            for name in ("lstm", rival)
        ]
    )
    drawn = np.random.default_rng(0).integers(0, left.size, (_DRAWS, left.size))
    rmse = np.sqrt(squares[:, drawn].mean(axis=2))
    low, high = np.quantile(rmse[0] - rmse[1], [0.025, 0.975])
    whole = np.sqrt(squares.mean(axis=1))
    return {
        "rmse": round(float(whole[0] - whole[1]), 2),
        "low": round(float(low), 2),
        "high": round(float(high), 2),
    }


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """Mean, spread and worst over the seeds, what was promised, and which promises were missed."""
    reports = [run.report for run in runs]
    models = {
        name: {
            figure: _spread([report["errors"][name][figure] for report in reports])
            for figure in reports[0]["errors"][name]
        }
        for name in reports[0]["errors"]
    }
    lstm, boosting = models["lstm"], models["boosting"]
    promises = {
        f"RMSE <= {RMSE_LIMIT:g}": lstm["rmse"]["mean"] <= RMSE_LIMIT,
        f"score <= {SCORE_LIMIT:g}": lstm["score"]["mean"] <= SCORE_LIMIT,
        "RMSE not above boosting": lstm["rmse"]["mean"] <= boosting["rmse"]["mean"],
    }
    return {
        "data": "C-MAPSS FD001",
        "engines": int(runs[0].test.windows.last.size),
        "cap": CAP,
        "window": WINDOW,
        "models": models,
        "interval": _figures([report["interval"] for report in reports]),
        "chance": _figures([report["chance"] for report in reports]),
        "alpha_lambda": {
            "alpha": ALPHA,
            "lambda": _figures([report["alpha_lambda"] for report in reports]),
        },
        "validation_rmse": _spread([report["validation_rmse"] for report in reports]),
        "train_s": _spread([report["train_s"] for report in reports]),
        "against_boosting": against(runs, "boosting"),
        "promises": promises,
        "missed": [promise for promise, kept in promises.items() if not kept],
        "seeds": reports,
    }


def _rmse(predicted: Numbers, left: Numbers, weight: Numbers | None = None) -> float:
    return float(np.sqrt(np.average(np.square(predicted - left), weights=weight)))


def _figures(reports: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: _spread([report[name] for report in reports]) for name in reports[0]}


def _spread(values: list[float | None]) -> dict[str, Any]:
    known = np.array([value for value in values if value is not None])
    if not known.size:
        return {"mean": None, "lowest": None, "highest": None, "deviation": None}
    deviation = float(known.std(ddof=1)) if known.size > 1 else 0.0
    return {
        "mean": round(float(known.mean()), 4),
        "lowest": float(known.min()),
        "highest": float(known.max()),
        "deviation": round(deviation, 4),
    }
