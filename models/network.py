"""The autoencoder, and what is exported around it so that serving has nothing to copy.

It rebuilds each feature of a row from the others (the feature itself is masked), linear
output, trained on healthy rows only. Masked, because a plain bottleneck learns to pass a faulty
sensor through: measured on three seeds, masking found 93 % of the faults and a bottleneck of five
71 %, with 0 and up to 12 false alarms on 1,000 healthy cars. A row's score is its largest residual,
each divided by its own scale from calibration cars: 1 is what a healthy car's feature shows once in
a hundred rows.

A `Layout` says which features are rebuilt and what is hidden meanwhile; today's fleet rebuilds each
of its features and hides that one (`FLEET`).

Scaler and residual scales are constants of the exported graph: raw features go in, scores come out.
The LSTM is in `rul`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from models.features import FEATURES, Features

BATCH: Final = 512

_WIDTH: Final = len(FEATURES)
_LIMIT: Final = 10.0  # standard deviations; beyond, a feature says no more

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Layout:
    """How an autoencoder sees a row of `width` features, and the size of its layers.

    `targets` (t,) are the columns that are rebuilt and `hides` (t, width) what is hidden while each
    of them is: itself, and whatever else was made of the same sensor. `regimes` are the columns, if
    any, that hold a 1 for the row's regime and 0 otherwise; residual scales are then (regimes, t).
    `masked` is the share of other targets hidden as well in training, `rate`
    the learning rate, constant until the check no longer improves, or with `cosine` falling to zero
    over all epochs: with few trips the check is ruled by what no network can predict.
    """

    targets: tuple[int, ...]
    hides: Mask
    regimes: tuple[int, ...] = ()
    hidden: tuple[int, ...] = (48, 24, 48)
    masked: float = 0.3
    rate: float = 3e-3
    cosine: bool = False

    @property
    def width(self) -> int:
        """Features of a row."""
        return self.hides.shape[1]


FLEET: Final = Layout(tuple(range(_WIDTH)), np.eye(_WIDTH, dtype=bool))
"""Every feature is rebuilt, and only it is hidden."""

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
        # What never varied says nothing of how far is far: one unit is one of the signal.
        std = np.where(std < 1e-6, 1.0, std)
        return cls(mean.astype(np.float32), std.astype(np.float32))

    def __call__(self, features: Any) -> Any:
        """Standardised features, cut where they lie absurdly far out; arrays or tensors."""
        return tf.clip_by_value((features - self.mean) / self.std, -_LIMIT, _LIMIT)


def seed(number: int) -> None:
    """Fix every source of randomness of Keras, NumPy and TensorFlow."""
    keras.utils.set_random_seed(number)


def train_autoencoder(
    rows: Features,
    validation: Features,
    scaler: Scaler,
    epochs: int,
    told: Told,
    layout: Layout = FLEET,
) -> keras.Model:
    """(masked standardised row, mask) -> rebuilt standardised row; from healthy rows."""
    width, targets = layout.width, len(layout.targets)
    hides = tf.constant(layout.hides, tf.float32)
    layers = [keras.layers.Dense(units, activation="gelu") for units in layout.hidden]
    network = keras.Sequential([keras.Input((2 * width,)), *layers, keras.layers.Dense(width)])

    def loss(target: Any, rebuilt: Any) -> Any:
        row, mask = target[:, :width], target[:, width:]
        return tf.reduce_sum(mask * tf.square(row - rebuilt)) / tf.reduce_sum(mask)

    def masked(row: Any) -> tuple[Any, Any]:
        rows = tf.shape(row)[0]
        one = tf.one_hot(tf.random.uniform((rows,), 0, targets, tf.int32), targets)
        more = tf.cast(tf.random.uniform((rows, targets)) < layout.masked, tf.float32)
        mask = tf.minimum(tf.maximum(one, more) @ hides, 1)
        return tf.concat([row * (1 - mask), mask], 1), tf.concat([row, mask], 1)

    steps = epochs * max(1, len(rows) // BATCH)
    rate = (
        keras.optimizers.schedules.CosineDecay(layout.rate, steps) if layout.cosine else layout.rate
    )
    network.compile(optimizer=keras.optimizers.Adam(rate), loss=loss)
    data = _sampled((scaler(rows),)).map(masked)
    # Each target of each validation row hidden once: the same check after every epoch.
    checked = scaler(validation)
    check = tf.data.Dataset.from_tensors(
        (
            _each_masked(checked, layout),
            tf.concat([tf.repeat(checked, targets, 0), _masks(checked, layout)], 1),
        )
    )
    _fit(network, data, len(rows), check, epochs, told, stop_early=not layout.cosine)
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
    *,
    stop_early: bool = True,
) -> None:
    def finished(epoch: int, losses: dict[str, float] | None = None) -> None:
        told(epoch + 1, {name: float(value) for name, value in (losses or {}).items()})

    callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=finished)]
    if stop_early:
        callbacks.append(keras.callbacks.EarlyStopping(patience=4, restore_best_weights=True))
    network.fit(
        data.prefetch(2),
        steps_per_epoch=max(1, rows // BATCH),
        validation_data=check,
        epochs=epochs,
        verbose=0,
        shuffle=False,
        callbacks=callbacks,
    )


def _masks(rows: Any, layout: Layout) -> Any:
    return tf.tile(tf.constant(layout.hides, tf.float32), [tf.shape(rows)[0], 1])


def _each_masked(rows: Any, layout: Layout) -> Any:
    """(n, width) -> (n * targets, 2 * width): every row once for each target, hidden."""
    masks = _masks(rows, layout)
    return tf.concat([tf.repeat(rows, len(layout.targets), 0) * (1 - masks), masks], 1)


def residuals(network: keras.Model, scaler: Scaler, rows: Any, layout: Layout = FLEET) -> Any:
    """How far above what the rest let expect each target (n, targets) lies, in deviations."""
    scaled, targets = scaler(rows), len(layout.targets)
    rebuilt = tf.reshape(network(_each_masked(scaled, layout)), (-1, targets, layout.width))
    own = tf.gather(rebuilt, layout.targets, axis=2)
    return tf.gather(scaled, layout.targets, axis=1) - tf.linalg.diag_part(own)


def evaluate_residuals(
    network: keras.Model, scaler: Scaler, rows: Features, layout: Layout = FLEET
) -> Floats:
    """`residuals` of any number of rows."""
    return _evaluate(lambda part: residuals(network, scaler, part, layout), rows, 4096)


def _evaluate(compute: Callable[[Any], Any], inputs: Features, at_once: int) -> Floats:
    shape = (None, *inputs.shape[1:])
    call = tf.function(compute, input_signature=[tf.TensorSpec(shape, tf.float32)])
    parts = [
        call(tf.constant(inputs[begin : begin + at_once])).numpy()
        for begin in range(0, len(inputs), at_once)
    ]
    return np.concatenate(parts)


def export_autoencoder(
    network: keras.Model, scaler: Scaler, scales: Floats, folder: Path, layout: Layout = FLEET
) -> None:
    """SavedModel with `serve(rows [n, width]) -> (scores [n], residuals [n, targets])`.

    A score is the largest residual by amount; residuals keep their sign.
    `scales` is (targets,), or (regimes, targets) for a layout with regimes.
    """

    def serve(rows: Any) -> Any:
        unit = tf.gather(rows, layout.regimes, axis=1) @ scales if layout.regimes else scales
        scaled = residuals(network, scaler, rows, layout) / unit
        return tf.reduce_max(tf.abs(scaled), axis=1), scaled

    archive = keras.export.ExportArchive()
    archive.track(network)
    archive.add_endpoint(
        "serve", serve, input_signature=[tf.TensorSpec((None, layout.width), tf.float32)]
    )
    archive.write_out(str(folder), verbose=False)
