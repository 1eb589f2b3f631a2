"""The two Keras networks, and what is exported around them so that serving has nothing to copy.

Autoencoder: a row of features is standardised, squeezed and rebuilt with a linear output; trained on
healthy rows only. A row's score is the mean of its TOP largest residuals, each divided by its own
scale from calibration cars (a plain mean square is ruled by the noisiest sensor).
LSTM: a window of features to the logit of "fails within the horizon, or has failed", trained on
labels with class weights; Platt's line turns the logit into a probability that means what it says.

Scaler, residual scales and Platt's line are constants of the exported graph: raw features go in,
scores come out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from models.features import FEATURES, WINDOW, Features

TOP: Final = 2
UNITS: Final = 32
BATCH: Final = 512

_HIDDEN: Final = 24
_CODE: Final = 5
_LIMIT: Final = 10.0  # standard deviations; beyond, a feature says no more

Floats = NDArray[np.float32]
Epochs = Callable[[int, dict[str, float]], None]
"""Told the number of the finished epoch (from 1) and its losses."""


@dataclass(frozen=True, slots=True)
class Scaler:
    """Mean and standard deviation of each feature over the training rows."""

    mean: Floats
    std: Floats

    @classmethod
    def fit(cls, rows: Features) -> "Scaler":
        std = rows.std(axis=0, dtype=np.float64)
        mean = rows.mean(axis=0, dtype=np.float64)
        return cls(mean.astype(np.float32), np.maximum(std, 1e-6).astype(np.float32))

    def layer(self) -> keras.layers.Layer:
        """The same as a layer: standardise, and clip what lies absurdly far out."""
        mean, std = self.mean, self.std

        def scale(x: Any) -> Any:
            return keras.ops.clip((x - mean) / std, -_LIMIT, _LIMIT)

        return keras.layers.Lambda(scale, output_shape=lambda shape: shape)


def threads(intra: int) -> None:
    """Limit TensorFlow's threads; before the first operation."""
    tf.config.threading.set_intra_op_parallelism_threads(intra)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def seed(number: int) -> None:
    """Fix every source of randomness of Keras, NumPy and TensorFlow."""
    keras.utils.set_random_seed(number)


def train_autoencoder(
    rows: Features, validation: Features, scaler: Scaler, epochs: int, told: Epochs
) -> keras.Model:
    """Standardised row -> rebuilt standardised row, from healthy rows."""
    width = len(FEATURES)
    network = keras.Sequential(
        [
            keras.Input((width,)),
            keras.layers.Dense(_HIDDEN, activation="gelu"),
            keras.layers.Dense(_CODE),
            keras.layers.Dense(_HIDDEN, activation="gelu"),
            keras.layers.Dense(width),
        ]
    )
    network.compile(optimizer=keras.optimizers.Adam(3e-3), loss="mse")
    scaled, check = ((x - scaler.mean) / scaler.std for x in (rows, validation))
    _fit(network, scaled, scaled, (check, check), epochs, told)
    return network


def train_lstm(
    windows: Features,
    labels: NDArray[np.bool_],
    validation: tuple[Features, NDArray[np.bool_]],
    scaler: Scaler,
    epochs: int,
    told: Epochs,
) -> keras.Model:
    """Window of raw features -> logit."""
    network = keras.Sequential(
        [
            keras.Input((WINDOW, len(FEATURES))),
            scaler.layer(),
            keras.layers.LSTM(UNITS),
            keras.layers.Dense(1),
        ]
    )
    network.compile(
        optimizer=keras.optimizers.Adam(4e-3),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
    )
    share = max(float(labels.mean()), 1e-3)
    weights = {0: 0.5 / (1 - min(share, 0.999)), 1: 0.5 / share}
    targets = labels.astype(np.float32)[:, None]
    check = (validation[0], validation[1].astype(np.float32)[:, None])
    _fit(network, windows, targets, check, epochs, told, class_weight=weights)
    return network


def _fit(
    network: keras.Model,
    inputs: Floats,
    targets: Floats,
    validation: tuple[Floats, Floats],
    epochs: int,
    told: Epochs,
    **options: Any,
) -> None:
    def finished(epoch: int, losses: dict[str, float] | None = None) -> None:
        told(epoch + 1, {name: float(value) for name, value in (losses or {}).items()})

    data = tf.data.Dataset.from_tensor_slices((inputs, targets))
    data = data.shuffle(len(inputs), reshuffle_each_iteration=True).batch(BATCH).prefetch(2)
    network.fit(
        data,
        validation_data=tf.data.Dataset.from_tensor_slices(validation).batch(4 * BATCH),
        epochs=epochs,
        verbose=0,
        callbacks=[
            keras.callbacks.EarlyStopping(patience=3, restore_best_weights=True),
            keras.callbacks.LambdaCallback(on_epoch_end=finished),
        ],
        **options,
    )


def platt(logits: Floats, labels: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and offset that make sigmoid(slope * logit + offset) a calibrated probability.

    Newton's method on the log loss with Platt's smoothed targets (Lin et al., Machine Learning 2007).
    The slope stays positive: calibration never turns the order round.
    """
    x = np.stack([logits.astype(np.float64), np.ones(logits.size)], axis=1)
    positives = int(labels.sum())
    negatives = labels.size - positives
    target = np.where(labels, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    line = np.array([1.0, 0.0])
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(x @ line, -30, 30)))
        gradient = x.T @ (p - target)
        curvature = (x * (p * (1 - p))[:, None]).T @ x + 1e-6 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        line -= np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-8:
            break
    return max(float(line[0]), 0.05), float(line[1])


def export_autoencoder(network: keras.Model, scaler: Scaler, scales: Floats, folder: Path) -> None:
    """SavedModel with `serve(rows [n, FEATURES]) -> (scores [n], residuals [n, FEATURES])`."""

    def serve(rows: Any) -> Any:
        scaled = tf.clip_by_value((rows - scaler.mean) / scaler.std, -_LIMIT, _LIMIT)
        residuals = tf.abs(network(scaled) - scaled) / scales
        return tf.reduce_mean(tf.math.top_k(residuals, TOP).values, axis=1), residuals

    _export(network, serve, (len(FEATURES),), folder)


def export_lstm(network: keras.Model, line: tuple[float, float], folder: Path) -> None:
    """SavedModel with `serve(windows [n, WINDOW, FEATURES]) -> probabilities [n]`."""

    def serve(windows: Any) -> Any:
        return tf.sigmoid(line[0] * network(windows)[:, 0] + line[1])

    _export(network, serve, (WINDOW, len(FEATURES)), folder)


def _export(
    network: keras.Model, serve: Callable[[Any], Any], shape: tuple[int, ...], folder: Path
) -> None:
    archive = keras.export.ExportArchive()
    archive.track(network)
    archive.add_endpoint("serve", serve, input_signature=[tf.TensorSpec((None, *shape), tf.float32)])
    archive.write_out(str(folder), verbose=False)
