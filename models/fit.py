"""Train both networks and the baseline on examples, calibrate them on cars they have not seen."""

from dataclasses import dataclass
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from models import network, progress
from models.baseline import Pca
from models.calibration import platt
from models.debounce import Debounce
from models.errors import NotEnoughData
from models.examples import Data
from models.features import REGIMES, WINDOW, Features, regimes, windows
from models.labels import PARTS
from models.network import Floats, Scaler
from models.threshold import alarm_level, extreme
from models.trend import Norms, Trends

DEBOUNCE: Final = Debounce(k=8, n=12, calm=60, release=0.8)
"""A worn shaft is silent at a red light: an alarm closes only after a minute of calm at 1 Hz."""
ALARM_SHARE: Final = 1e-3
"""Of healthy cars that may raise an alarm in one history, as the fitted tail says: far less than is
allowed, for the sake of cars from ranges that nothing was calibrated on."""
MIN_PROBABILITY: Final = 0.7
"""An alarm of the LSTM should be right seven times out of ten at the least."""
STRIDE: Final = 4
"""Every so manieth window is trained on; neighbours differ in one row of 32."""

_SCALE_QUANTILE: Final = 0.99
_SIGNAL_SHARE: Final = 1e-3
"""Of healthy cars whose deviation of one signal in one regime reaches 1 in one history."""
_LOGIT_SHARE: Final = 3e-3
"""As ALARM_SHARE, of the LSTM: a logit's tail reaches far, and beyond this nothing would be found."""
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
    lstm_threshold: float
    pca: Pca
    pca_threshold: float


def fit(data: Data, *, seed: int, epochs: int, form: progress.Form) -> Trained:
    """Train and calibrate both networks and the baseline. Raises `NotEnoughData`."""
    network.seed(seed)
    rows = {part: data.features[data.of(part) & data.healthy] for part in PARTS}
    scaler = Scaler.fit(rows["train"])
    with progress.steps("training the autoencoder", epochs, form) as advance:
        autoencoder = network.train_autoencoder(
            rows["train"], rows["validate"], scaler, epochs, _telling(advance)
        )
    ends, found = windows(data.features, data.columns.life, data.columns.event_time, stride=STRIDE)
    train, validate = (data.of(part)[ends] for part in ("train", "validate"))
    labels = data.label[ends]
    if not (labels[train].any() and (~labels[train]).any()):
        raise NotEnoughData(
            f"{int(train.sum())} windows to train on hold only one class; simulate more vehicles,"
            " more days or another seed"
        )
    with progress.steps("training the LSTM", epochs, form) as advance:
        lstm = network.train_lstm(
            found[train],
            labels[train],
            (found[validate], labels[validate]),
            scaler,
            epochs,
            _telling(advance),
        )
    with progress.steps("calibrating", 1, form) as advance:
        trained = _calibrate(data, rows, scaler, autoencoder, lstm)
        advance(1)
    return trained


def _calibrate(
    data: Data,
    rows: dict[str, Features],
    scaler: Scaler,
    autoencoder: keras.Model,
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
    residuals = network.evaluate_residuals(autoencoder, scaler, data.features)
    healthy = np.abs(residuals[part & data.healthy])
    scales = np.maximum(np.quantile(healthy, _SCALE_QUANTILE, axis=0), 1e-6).astype(np.float32)
    residuals /= scales
    norms = _norms(data, residuals)
    pca = Pca.fit(rows["train"], rows["calibrate"])
    ends, found = windows(data.features[part], life, data.columns.event_time[part])
    logits = network.evaluate_logits(lstm, scaler, found)
    line = platt(logits, data.label[part][ends])

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

    chance = line[0] * extreme(levels(logits, life[ends]), _LOGIT_SHARE) + line[1]
    anomaly = levels(deviations(norms, data.features[part], residuals[part], life), life)
    return Trained(
        scaler=scaler,
        autoencoder=autoencoder,
        scales=scales,
        norms=norms,
        autoencoder_threshold=extreme(anomaly, ALARM_SHARE),
        lstm=lstm,
        line=line,
        lstm_threshold=max(MIN_PROBABILITY, 1 / (1 + float(np.exp(-np.clip(chance, -30, 30))))),
        pca=pca,
        pca_threshold=extreme(levels(pca.scores(data.features[part]), life), ALARM_SHARE),
    )


def _norms(data: Data, residuals: Floats) -> Norms:
    """Spread between healthy cars and what is too much for one, from all but the test cars.

    A residual hardly knows which cars the autoencoder learnt from, and a tail needs many cars; what
    the fit flatters is made good by the threshold, which calibration cars alone set.
    Each signal in each regime has its own tail: one threshold over all would be ruled by the heaviest
    (a standing car's current, when the fan runs), and hide faults in the others.
    """
    known = data.healthy & ~data.of("test")
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
    if not np.isfinite(scale).any():
        raise NotEnoughData(
            f"no regime was driven by {_CARS} healthy vehicles; simulate more vehicles or more days"
        )
    return norms.scaled(scale)


def deviations(
    norms: Norms, features: Features, residuals: Floats, lives: NDArray[np.int64]
) -> Floats:
    """The score (n,) that the scorer gives rows in order of arrival; NaN where it gives none."""
    score: Floats = Trends(norms).push(lives, regimes(features), residuals).max(axis=1)
    return score


def _telling(advance: progress.Advance) -> network.Told:
    def told(_epoch: int, losses: dict[str, float]) -> None:
        advance(1, " ".join(f"{name} {value:.4f}" for name, value in losses.items()))

    return told
