"""Train both networks and the baseline on examples, calibrate them on cars they have not seen."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from models import network, progress, rul
from models.baseline import Pca
from models.calibration import platt
from models.conformal import Interval
from models.debounce import Debounce
from models.drift import Reference
from models.errors import NotEnoughData
from models.examples import Data
from models.features import REGIMES, WINDOW, Features, Index, regimes, windows
from models.labels import PARTS, Mask
from models.network import Floats, Scaler, Told
from models.threshold import alarm_level, extreme
from models.trend import Norms, Trends

DEBOUNCE: Final = Debounce(k=8, n=12, calm=60, release=0.8)
"""A worn shaft is silent at a red light: an alarm closes only after a minute of calm at 1 Hz."""
ALARM_SHARE: Final = 3e-4
"""Of healthy cars that may raise an alarm in one history, as the fitted tail says: far less than is
allowed, for the sake of cars from ranges that nothing was calibrated on."""
MIN_PROBABILITY: Final = 0.1
"""No alarm of the LSTM below it, however silent healthy cars are: it would not be believed."""
STRIDE: Final = 4
"""Every so manieth window is trained on; neighbours differ in one row of 32."""
CAP: Final = 3.0
"""Horizons; of longer lives the LSTM only says that they are longer."""
RECIPE: Final = rul.Recipe(
    cap=CAP, horizon=1.0, units=(8,), dropout=0.8, rate=1e-3, batch=network.BATCH, steps=60
)
"""Few units, mostly dropped: with 32 it knew the training cars by their windows (loss 0.05 on them, 0.4
on others), and found 31 instead of 79 of 87 weak faults at equal false alarms."""
HELD: Final = 0.9
"""Of the lives of cars that fail within CAP, the share that the interval is to hold."""

_SCALE_QUANTILE: Final = 0.99
_SIGNAL_SHARE: Final = 1e-3
"""Of healthy cars whose deviation of one signal in one regime reaches 1 in one history."""
_LOGIT_SHARE: Final = 1e-3
"""As ALARM_SHARE, of the LSTM, whose logits have a shorter tail on cars from other ranges."""
_CARS: Final = 3
"""A regime that fewer healthy cars were in is not judged."""


@dataclass(frozen=True, slots=True)
class Trained:
    """Everything that is exported."""

    scaler: Scaler
    autoencoder: keras.Model
    scales: Floats
    norms: Norms
    autoencoder_threshold: float
    lstm: keras.Model
    line: tuple[float, float]
    interval: Interval
    lstm_threshold: float
    pca: Pca
    pca_threshold: float
    drift: Reference


def fit(
    data: Data, *, seed: int, epochs: int, form: progress.Form, board: Path | None = None
) -> Trained:
    """Train and calibrate both networks and the baseline; losses go to TensorBoard's files in `board`.

    Raises `NotEnoughData`.
    """
    network.seed(seed)
    rows = {part: data.features[data.of(part) & data.healthy] for part in PARTS}
    scaler = Scaler.fit(rows["train"])
    with progress.steps("training the autoencoder", epochs, form) as advance:
        autoencoder = network.train_autoencoder(
            rows["train"], rows["validate"], scaler, epochs, _telling(advance, "autoencoder", board)
        )
    with progress.steps("each car's baseline", 1, form) as advance:
        judged = _Judged.by(autoencoder, scaler, data)
        advance(1)
    seen, ends = _seen(data, judged, np.ones(len(data.columns), bool), STRIDE)
    train, validate = (data.of(part)[ends] for part in ("train", "validate"))
    lives = data.lives[ends]
    if not len(seen):
        raise NotEnoughData(f"no vehicle has {WINDOW} rows in a row; simulate more days")
    with progress.steps("training the LSTM", epochs, form) as advance:
        lstm = rul.train(
            seen[train],
            lives[train],
            (seen[validate], lives[validate]) if validate.any() else None,
            scaler,
            replace(RECIPE, epochs=epochs),
            _telling(advance, "lstm", board),
        )
    with progress.steps("calibrating", 1, form) as advance:
        trained = _calibrate(data, rows, scaler, autoencoder, judged, lstm)
        advance(1)
    return trained


@dataclass(frozen=True, slots=True)
class _Judged:
    """What the autoencoder makes of all rows: its scales and norms, and `deviations` (n, FEATURES)."""

    scales: Floats
    norms: Norms
    deviations: Floats

    @classmethod
    def by(cls, autoencoder: keras.Model, scaler: Scaler, data: Data) -> "_Judged":
        residuals = network.evaluate_residuals(autoencoder, scaler, data.features)
        healthy = np.abs(residuals[data.of("calibrate") & data.healthy])
        if not len(healthy):
            raise NotEnoughData("no rows of healthy vehicles to calibrate on; simulate more")
        scales = np.maximum(np.quantile(healthy, _SCALE_QUANTILE, axis=0), 1e-6).astype(np.float32)
        residuals /= scales
        norms = _norms(data, residuals)
        told = Trends(norms).push(data.columns.life, regimes(data.features), residuals)
        return cls(scales, norms, told)


def _seen(data: Data, judged: _Judged, rows: Mask, stride: int) -> tuple[rul.Seen, Index]:
    """What the LSTM sees at the ends of the windows among `rows`, and which rows these ends are.

    Not what a car does after its failure: that needs no forecast, and is easy to tell.
    """
    at = np.flatnonzero(rows & (data.lives.left > 0))
    ends, found = windows(
        data.features[at], data.columns.life[at], data.columns.event_time[at], stride=stride
    )
    known = ~np.isnan(judged.deviations[at[ends], 0])
    ends = at[ends[known]]
    return rul.Seen(found[known], judged.deviations[ends]), ends


def _calibrate(
    data: Data,
    rows: dict[str, Features],
    scaler: Scaler,
    autoencoder: keras.Model,
    judged: _Judged,
    lstm: keras.Model,
) -> Trained:
    part = data.of("calibrate")
    life = data.columns.life[part]
    cars = [
        number
        for number in np.unique(life).tolist()
        if data.truth.fates[data.columns.lives[number]].mode is None
    ]
    if len(cars) < 2:
        raise NotEnoughData(
            f"{len(cars)} healthy vehicles to calibrate on; at least 2 are needed, simulate more"
        )
    pca = Pca.fit(rows["train"], rows["calibrate"])
    seen, ends = _seen(data, judged, part, 1)
    said = rul.forecast(lstm, scaler, seen, CAP)
    known = data.lives[ends].told(1.0)
    line = platt(said.logit[known], data.lives[ends].fails(1.0)[known])

    def levels(values: NDArray[Any], lives: NDArray[np.int64]) -> list[float]:
        told = ~np.isnan(values)
        values, lives = values[told], lives[told]
        found = (alarm_level(values[lives == car], DEBOUNCE.k, DEBOUNCE.n) for car in cars)
        known = [level for level in found if np.isfinite(level)]
        if len(known) < 2:
            raise NotEnoughData(
                f"{len(known)} healthy vehicles to calibrate on have {WINDOW + DEBOUNCE.k} rows;"
                " at least 2 are needed, simulate more days"
            )
        return known

    chance = line[0] * extreme(levels(said.logit, data.columns.life[ends]), _LOGIT_SHARE) + line[1]
    anomaly = levels(judged.deviations[part].max(axis=1), life)
    return Trained(
        scaler=scaler,
        autoencoder=autoencoder,
        scales=judged.scales,
        norms=judged.norms,
        autoencoder_threshold=extreme(anomaly, ALARM_SHARE),
        lstm=lstm,
        line=line,
        interval=_interval(data, said, ends),
        lstm_threshold=max(MIN_PROBABILITY, 1 / (1 + float(np.exp(-np.clip(chance, -30, 30))))),
        pca=pca,
        drift=_reference(data, judged),
        pca_threshold=extreme(levels(pca.scores(data.features[part]), life), ALARM_SHARE),
    )


def _norms(data: Data, residuals: Floats) -> Norms:
    """Spread between healthy cars and what is too much for one, from cars of training and validation.

    A residual hardly knows which cars the autoencoder learnt from, and a tail needs many cars; what
    the fit flatters is made good by the threshold, which calibration cars alone set.
    Each signal in each regime has its own tail: one threshold over all would be ruled by the heaviest
    (a standing car's current, when the fan runs), and hide faults in the others.
    """
    known = data.healthy & ~data.of("test") & ~data.of("calibrate")
    state = regimes(data.features)
    norms = Norms.unscaled(residuals[known], state[known], data.columns.life[known])
    lives, state = data.columns.life[known], state[known]
    each = Trends(norms).walk(lives, state, residuals[known])
    scale = np.full(each.shape[1:], np.inf, np.float32)
    for regime in range(len(REGIMES)):
        there = (state == regime) & ~np.isnan(each[:, regime, 0])
        cars = [each[there & (lives == life), regime] for life in np.unique(lives[there])]
        cars = [car for car in cars if len(car) >= DEBOUNCE.k]
        if len(cars) < _CARS:
            continue
        for feature in range(each.shape[2]):
            levels = [alarm_level(car[:, feature], DEBOUNCE.k, DEBOUNCE.n) for car in cars]
            scale[regime, feature] = extreme(levels, _SIGNAL_SHARE)
    # What never varied in training has no measure: a change of it is not judged.
    scale[:, np.ptp(data.features[known], axis=0) < 1e-6] = np.inf
    if not np.isfinite(scale).any():
        raise NotEnoughData(
            f"no regime was driven by {_CARS} healthy vehicles; simulate more vehicles or more days"
        )
    return norms.scaled(scale)


def _reference(data: Data, judged: _Judged) -> Reference:
    """What healthy cars send, and how they score, of all but the test cars."""
    score = judged.deviations.max(axis=1)
    rows = data.healthy & ~data.of("test") & ~np.isnan(score)
    values = np.column_stack([data.features[rows], score[rows]])
    return Reference.fit(values, data.columns.life[rows])


def _interval(data: Data, said: rul.Forecast, ends: Index) -> Interval:
    """Around lives of calibration cars that are seen to fail within CAP; open, if they are too few.

    The others would make it look good: of a car that lasts, every interval to CAP is right.
    """
    lives = data.lives[ends]
    worn = ~lives.censored & (lives.left < CAP)
    try:
        return Interval.fit(
            said.low[worn],
            said.high[worn],
            lives.left[worn],
            data.columns.life[ends[worn]],
            cap=CAP,
            share=HELD,
        )
    except NotEnoughData:
        return Interval.open(CAP)


def _telling(advance: progress.Advance, network: str, board: Path | None) -> Told:
    """Losses of each epoch as a note beside the bar, and as scalars for TensorBoard."""
    writer = None if board is None else tf.summary.create_file_writer(str(board / network))

    def told(epoch: int, losses: dict[str, float]) -> None:
        advance(1, " ".join(f"{name} {value:.4f}" for name, value in losses.items()))
        if writer is not None:
            with writer.as_default(step=epoch):
                for name, value in losses.items():
                    tf.summary.scalar(name, value)
            writer.flush()

    return told
