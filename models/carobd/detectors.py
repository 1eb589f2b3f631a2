"""Detectors of the real car's evaluation: ours, and what others use, fitted alike.

* autoencoder: the network of the fleet (`models.network`) with the layout of this car's `features`, one
  SavedModel for each fold, loaded again; a score is the largest of the folds' mean residuals. It is not
  an artefact that the scorer loads: that one's features need sensors which this car does not have
* mse: a plain autoencoder through a bottleneck, mean squared error of a row
* pca: Hotelling's T2 and Q (`models.baseline`)
* boosting: virtual sensors: coolant, trims and voltage from the signals that are not hidden for them
* limits: a technician's fixed limits; they learn nothing

All but the limits are fitted and scaled by `fitting.crossed`: the same folds, regimes and budget.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf

from models import network
from models.baseline import Pca
from models.carobd.features import FEATURES, LAYOUT, REGIMES, TARGETS, Features, Rows
from models.carobd.fitting import Fitted, Residuals, crossed
from models.carobd.reader import Trip
from models.network import Scaler

NAMES: Final = ("autoencoder", "boosting", "mse", "pca", "limits")
EPOCHS: Final = 12

_SENSED: Final = ("coolant", "fuel_trim", "voltage")
_LIMITS: Final[dict[str, tuple[float, float]]] = {
    "coolant_10": (60.0, 112.0),  # degC, once the engine ought to be warm
    "trim_10": (-25.0, 25.0),  # %, where control units light their lamp
    "voltage_10": (13.0, 15.2),  # V with a running engine
}

Score = Callable[[Rows], Residuals]
"""Score (v,) of the valid rows of a trip; above 1 is too much."""
Told = Callable[[], None]


def build(
    name: str, trips: Sequence[Trip], rows: Mapping[str, Rows], seed: int, folder: Path, told: Told
) -> Score:
    """One detector from healthy trips; SavedModels go to `folder`. `told` after each fit."""
    makers: dict[str, Callable[[], Score]] = {
        "autoencoder": lambda: _served(trips, rows, seed, folder, told),
        "mse": lambda: _fitted(crossed(trips, rows, _mse_fit(seed), _mse, told), _mse),
        "pca": lambda: _fitted(crossed(trips, rows, Pca.fit, _pca, told), _pca),
        "boosting": lambda: _fitted(crossed(trips, rows, _trees_fit(seed), _trees, told), _trees),
        "limits": lambda: _limits,
    }
    return makers[name]()


def _fitted(found: Fitted[Any], evaluate: Callable[[Any, Features], Residuals]) -> Score:
    def score(rows: Rows) -> Residuals:
        valid = rows.features[rows.valid]
        mean = np.mean([evaluate(member, valid) for member in found.members], axis=0)
        ratio: Residuals = (mean / found.scales[rows.regime[rows.valid]]).max(axis=1)
        return ratio

    return score


def _served(
    trips: Sequence[Trip], rows: Mapping[str, Rows], seed: int, folder: Path, told: Told
) -> Score:
    network.seed(seed)

    def fit(train: Features, check: Features) -> tuple[keras.Model, Scaler]:
        scaler = Scaler.fit(train)
        model = network.train_autoencoder(
            train, check, scaler, EPOCHS, lambda *_: None, layout=LAYOUT
        )
        return model, scaler

    def evaluate(member: tuple[keras.Model, Scaler], features: Features) -> Residuals:
        return np.abs(network.evaluate_residuals(*member, features, LAYOUT))

    found = crossed(trips, rows, fit, evaluate, told)
    scales = found.scales.astype(np.float32)
    loaded = []
    for number, (model, scaler) in enumerate(found.members):
        path = folder / f"fold-{number}"
        network.export_autoencoder(model, scaler, scales, path, LAYOUT)
        loaded.append(tf.saved_model.load(str(path)))

    def score(rows: Rows) -> Residuals:
        valid = tf.constant(rows.features[rows.valid])
        signed = np.mean([model.serve(valid)[1].numpy() for model in loaded], axis=0)
        largest: Residuals = np.abs(signed).max(axis=1)
        return largest

    return score


def _mse_fit(seed: int) -> Callable[[Features, Features], tuple[keras.Model, Scaler]]:
    def fit(train: Features, check: Features) -> tuple[keras.Model, Scaler]:
        network.seed(seed)
        scaler = Scaler.fit(train)
        sizes = (32, 8, 32)
        layers = [keras.layers.Dense(units, activation="gelu") for units in sizes]
        model = keras.Sequential([keras.Input((len(FEATURES),)), *layers])
        model.add(keras.layers.Dense(len(FEATURES)))
        model.compile(optimizer=keras.optimizers.Adam(2e-3), loss="mse")
        scaled, checked = scaler(train), scaler(check)
        model.fit(
            scaled,
            scaled,
            validation_data=(checked, checked),
            batch_size=512,
            epochs=EPOCHS,
            verbose=0,
        )
        return model, scaler

    return fit


def _mse(member: tuple[keras.Model, Scaler], features: Features) -> Residuals:
    model, scaler = member
    scaled = np.asarray(scaler(features))
    rebuilt = model.predict(scaled, batch_size=8192, verbose=0)
    error: Residuals = np.square(scaled - rebuilt).mean(axis=1, keepdims=True)
    return error


def _pca(member: Pca, features: Features) -> Residuals:
    return member.scores(features)[:, None]


def _trees_fit(seed: int) -> Callable[[Features, Features], list[Any]]:
    from sklearn.ensemble import HistGradientBoostingRegressor  # noqa: PLC0415

    def fit(train: Features, _check: Features) -> list[Any]:
        return [
            HistGradientBoostingRegressor(
                max_iter=100, min_samples_leaf=100, random_state=seed
            ).fit(train[:, seen], train[:, target])
            for target, seen in _virtual()
        ]

    return fit


def _trees(member: list[Any], features: Features) -> Residuals:
    columns = [
        np.abs(features[:, target] - tree.predict(features[:, seen]))
        for tree, (target, seen) in zip(member, _virtual(), strict=True)
    ]
    return np.stack(columns, axis=1)


def _virtual() -> list[tuple[int, np.ndarray[Any, np.dtype[np.bool_]]]]:
    """Column of each virtual sensor, and the columns that it may see."""
    names = list(TARGETS)
    return [(FEATURES.index(TARGETS[name]), ~LAYOUT.hides[names.index(name)]) for name in _SENSED]


def _limits(rows: Rows) -> Residuals:
    features = rows.features[rows.valid]
    warming = rows.regime[rows.valid] == REGIMES.index("warm_up")
    shares = []
    for name, (low, high) in _LIMITS.items():
        value, middle = features[:, FEATURES.index(name)], (low + high) / 2
        share = np.abs(value - middle) / (high - middle)
        shares.append(np.where(warming & (name == "coolant_10"), 0.0, share))
    largest: Residuals = np.max(shares, axis=0)
    return largest
