"""The two Keras networks, and what is exported around them so that serving has nothing to copy.

Autoencoder: it rebuilds each feature of a row from the others (the feature itself is masked), linear
output, trained on healthy rows only. Masked, because a plain bottleneck learns to pass a faulty
sensor through: measured on three seeds, masking found 93 % of the faults and a bottleneck of five
71 %, with 0 and up to 12 false alarms on 1,000 healthy cars. A row's score is its largest residual,
each divided by its own scale from calibration cars: 1 is what a healthy car's feature shows once in
a hundred rows.
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

UNITS: Final = 32
BATCH: Final = 512

_WIDTH: Final = len(FEATURES)
_HIDDEN: Final = (48, 24, 48)
_MASKED: Final = 0.3  # of the other features, besides the one that is always masked
_LIMIT: Final = 10.0  # standard deviations; beyond, a feature says no more

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Told = Callable[[int, dict[str, float]], None]
"""Told the number of each finished epoch (from 1) and its losses."""


@dataclass(frozen=True, slots=True)
class Scaler:
    """Mean and standard deviation of each feature over the training rows."""

    mean: Floats
    std: Floats

    @classmethod
    def fit(cls, rows: Features) -> "Scaler":
        """The scaler of (n, FEATURES) rows."""
        std = rows.std(axis=0, dtype=np.float64)
        mean = rows.mean(axis=0, dtype=np.float64)
        return cls(mean.astype(np.float32), np.maximum(std, 1e-6).astype(np.float32))

    def __call__(self, features: Any) -> Any:
        """Standardised features, cut where they lie absurdly far out; arrays or tensors."""
        return tf.clip_by_value((features - self.mean) / self.std, -_LIMIT, _LIMIT)


def seed(number: int) -> None:
    """Fix every source of randomness of Keras, NumPy and TensorFlow."""
    keras.utils.set_random_seed(number)


def train_autoencoder(
    rows: Features, validation: Features, scaler: Scaler, epochs: int, told: Told
) -> keras.Model:
    """(masked standardised row, mask) -> rebuilt standardised row; from healthy rows."""
    layers = [keras.layers.Dense(width, activation="gelu") for width in _HIDDEN]
    network = keras.Sequential([keras.Input((2 * _WIDTH,)), *layers, keras.layers.Dense(_WIDTH)])

    def loss(target: Any, rebuilt: Any) -> Any:
        row, mask = target[:, :_WIDTH], target[:, _WIDTH:]
        return tf.reduce_sum(mask * tf.square(row - rebuilt)) / tf.reduce_sum(mask)

    def masked(row: Any) -> tuple[Any, Any]:
        shape = tf.shape(row)
        one = tf.one_hot(tf.random.uniform(shape[:1], 0, _WIDTH, tf.int32), _WIDTH)
        more = tf.cast(tf.random.uniform(shape) < _MASKED, tf.float32)
        mask = tf.maximum(one, more)
        return tf.concat([row * (1 - mask), mask], 1), tf.concat([row, mask], 1)

    network.compile(optimizer=keras.optimizers.Adam(3e-3), loss=loss)
    data = _sampled((scaler(rows),)).map(masked)
    # Each feature of each validation row masked once: the same check after every epoch.
    checked = scaler(validation)
    check = tf.data.Dataset.from_tensors(
        (_each_masked(checked), tf.concat([tf.repeat(checked, _WIDTH, 0), _masks(checked)], 1))
    )
    _fit(network, data, len(rows), check, epochs, told)
    return network


def train_lstm(
    windows: Features,
    labels: Mask,
    validation: tuple[Features, Mask],
    scaler: Scaler,
    epochs: int,
    told: Told,
) -> keras.Model:
    """Window of standardised features -> logit."""
    network = keras.Sequential(
        [keras.Input((WINDOW, _WIDTH)), keras.layers.LSTM(UNITS), keras.layers.Dense(1)]
    )
    network.compile(
        optimizer=keras.optimizers.Adam(4e-3),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
    )
    share = min(max(float(labels.mean()), 1e-3), 0.999)

    def weighted(labels: Mask) -> tuple[Floats, Floats]:
        target = labels.astype(np.float32)[:, None]
        return target, np.where(labels, 0.5 / share, 0.5 / (1 - share)).astype(np.float32)

    data = _sampled((scaler(windows), *weighted(labels)))
    check = tf.data.Dataset.from_tensor_slices((scaler(validation[0]), *weighted(validation[1])))
    _fit(network, data, len(windows), check.batch(4 * BATCH), epochs, told)
    return network


def _sampled(arrays: tuple[Any, ...]) -> tf.data.Dataset:
    """Endless batches of rows drawn at random; cheaper than a shuffle buffer."""
    held = tuple(tf.constant(array) for array in arrays)
    rows = len(arrays[0])

    def draw(_: Any) -> Any:
        index = tf.random.uniform((BATCH,), 0, rows, tf.int32)
        drawn = tuple(tf.gather(array, index) for array in held)
        return drawn if len(drawn) > 1 else drawn[0]

    return tf.data.Dataset.counter().map(draw)


def _fit(
    network: keras.Model,
    data: tf.data.Dataset,
    rows: int,
    check: tf.data.Dataset,
    epochs: int,
    told: Told,
) -> None:
    def finished(epoch: int, losses: dict[str, float] | None = None) -> None:
        told(epoch + 1, {name: float(value) for name, value in (losses or {}).items()})

    network.fit(
        data.prefetch(2),
        steps_per_epoch=max(1, rows // BATCH),
        validation_data=check,
        epochs=epochs,
        verbose=0,
        shuffle=False,
        callbacks=[
            keras.callbacks.EarlyStopping(patience=4, restore_best_weights=True),
            keras.callbacks.LambdaCallback(on_epoch_end=finished),
        ],
    )


def _masks(rows: Any) -> Any:
    return tf.tile(tf.eye(_WIDTH), [tf.shape(rows)[0], 1])


def _each_masked(rows: Any) -> Any:
    """(n, FEATURES) -> (n * FEATURES, 2 * FEATURES): every row once for each masked feature."""
    masks = _masks(rows)
    return tf.concat([tf.repeat(rows, _WIDTH, 0) * (1 - masks), masks], 1)


def residuals(network: keras.Model, scaler: Scaler, rows: Any) -> Any:
    """How far each feature (n, FEATURES) lies from what the others let expect, in deviations."""
    scaled = scaler(rows)
    rebuilt = tf.reshape(network(_each_masked(scaled)), (-1, _WIDTH, _WIDTH))
    return tf.abs(scaled - tf.linalg.diag_part(rebuilt))


def evaluate_residuals(network: keras.Model, scaler: Scaler, rows: Features) -> Floats:
    """`residuals` of any number of rows."""
    return _evaluate(lambda part: residuals(network, scaler, part), rows, 4096)


def evaluate_logits(network: keras.Model, scaler: Scaler, windows: Features) -> Floats:
    """Logits (n,) of any number of windows."""
    return _evaluate(lambda part: network(scaler(part))[:, 0], windows, 2048)


def _evaluate(compute: Callable[[Any], Any], inputs: Features, at_once: int) -> Floats:
    shape = (None, *inputs.shape[1:])
    call = tf.function(compute, input_signature=[tf.TensorSpec(shape, tf.float32)])
    parts = [
        call(tf.constant(inputs[begin : begin + at_once])).numpy()
        for begin in range(0, len(inputs), at_once)
    ]
    return np.concatenate(parts)


def export_autoencoder(network: keras.Model, scaler: Scaler, scales: Floats, folder: Path) -> None:
    """SavedModel with `serve(rows [n, FEATURES]) -> (scores [n], residuals [n, FEATURES])`."""

    def serve(rows: Any) -> Any:
        scaled = residuals(network, scaler, rows) / scales
        return tf.reduce_max(scaled, axis=1), scaled

    _export(network, serve, (_WIDTH,), folder)


def export_lstm(
    network: keras.Model, scaler: Scaler, line: tuple[float, float], folder: Path
) -> None:
    """SavedModel with `serve(windows [n, WINDOW, FEATURES]) -> probabilities [n]`."""

    def serve(windows: Any) -> Any:
        return tf.sigmoid(line[0] * network(scaler(windows))[:, 0] + line[1])

    _export(network, serve, (WINDOW, _WIDTH), folder)


def _export(
    network: keras.Model, serve: Callable[[Any], Any], shape: tuple[int, ...], folder: Path
) -> None:
    archive = keras.export.ExportArchive()
    archive.track(network)
    archive.add_endpoint(
        "serve", serve, input_signature=[tf.TensorSpec((None, *shape), tf.float32)]
    )
    archive.write_out(str(folder), verbose=False)
