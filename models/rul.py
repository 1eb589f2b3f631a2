"""The LSTM that says when: the chance of a failure within a horizon, and the life that is left.

windows (n, length, width) -> standardised -> LSTM layers -> four numbers a window:
  logit       of "fails within the horizon, or has failed"; Platt's line makes it a probability
  remaining   life in shares of `cap`, least squares
  low, high   its 5 % and 95 % quantiles by pinball loss; `conformal` widens them until they hold

Life above `cap` is called `cap`: a part that does not wear yet does not show how long it will last.
Of a car that did not fail it is only known that its life is at least `left`: a prediction above
costs nothing, one below does, and it is an example of "no failure" as far as `left` reaches beyond
the horizon.

The learning rate falls to zero over a fixed number of steps and the weights are averaged on the way
(exponential moving average), which is what keeps one seed from differing from the next. The unit of
`left`, `cap` and `horizon` is the caller's: hours for the fleet, cycles for C-MAPSS.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from models.conformal import Interval
from models.errors import NotEnoughData
from models.network import Scaler

Windows = NDArray[np.float32]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Told = Callable[[int, dict[str, float]], None]
"""Told the number of each finished epoch (from 1) and its losses."""

TAIL: Final = 0.05
"""Share of lives that shall end before `low`, and as many after `high`."""

_LIFE: Final = 8.0
_QUANTILE: Final = 1.0
"""What an error of remaining life and of a quantile weigh beside one of the class."""
_MOMENTUM: Final = 0.99  # of the averaged weights: about the last hundred steps count
_AT_ONCE: Final = 2048


@dataclass(frozen=True, slots=True)
class Lives:
    """What is known of the life that is left at the end of each window, (n,) each.

    `left` is the time to the failure, zero behind it. Where `censored`, no failure was seen: life
    lasts at least `left`, which is inf for a car that will not fail.
    """

    left: Floats
    censored: Mask

    def __post_init__(self) -> None:
        if self.left.shape != self.censored.shape or self.left.ndim != 1:
            raise ValueError(
                f"lives of shapes {self.left.shape} and {self.censored.shape}; (n,) is accepted"
            )
        if np.isnan(self.left).any() or (self.left < 0).any():
            raise ValueError("a life that is negative or NaN; hours or cycles from 0 are accepted")
        if not np.isfinite(self.left[~self.censored]).all():
            raise ValueError("an endless life that is not censored; a finite number is accepted")

    def __getitem__(self, chosen: Any) -> "Lives":
        """The lives of some windows."""
        return Lives(self.left[chosen], self.censored[chosen])

    def fails(self, horizon: float) -> Mask:
        """Which are known to fail within the horizon."""
        return ~self.censored & (self.left <= horizon)

    def told(self, horizon: float) -> Mask:
        """Of which it is known whether they fail within the horizon."""
        return ~self.censored | (self.left > horizon)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How it is trained: `cap` and `horizon` in the unit of life, `units` of each LSTM layer.

    `rate` is where the learning rate begins; `dropout` falls on the outputs of each layer; an epoch
    is as many windows, drawn at random, as there are.
    """

    cap: float
    horizon: float
    units: tuple[int, ...] = (32,)
    dropout: float = 0.1
    rate: float = 4e-3
    epochs: int = 20
    batch: int = 256


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the network says of n windows, (n,) each; `remaining`, `low`, `high` in the unit of life."""

    logit: Floats
    remaining: Floats
    low: Floats
    high: Floats


def train(
    windows: Windows,
    lives: Lives,
    validation: tuple[Windows, Lives] | None,
    scaler: Scaler,
    recipe: Recipe,
    told: Told,
) -> keras.Model:
    """(standardised windows) -> (n, 4). With `validation` the loss on it is told, too.

    Raises `NotEnoughData` when no window, or every window, is known to fail within the horizon.
    """
    fails, known = lives.fails(recipe.horizon), lives.told(recipe.horizon)
    if not fails.any() or not (known & ~fails).any():
        raise NotEnoughData(
            f"{int(known.sum())} windows, {int(fails.sum())} of which fail within the horizon of"
            f" {recipe.horizon:g}; windows of both kinds are needed"
        )
    model = _network(windows.shape[1:], recipe)
    steps = max(1, len(windows) // recipe.batch)
    model.compile(
        optimizer=keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(recipe.rate, steps * recipe.epochs),
            clipnorm=1.0,
            use_ema=True,
            ema_momentum=_MOMENTUM,
        ),
        loss=_loss,
    )
    # Both classes weigh the same in training; calibration gives the rare one its true share back.
    share = float(fails.sum() / known.sum())
    held = tf.constant(scaler(windows)), tf.constant(_targets(lives, recipe, share))
    check = None
    if validation is not None:
        check = tf.data.Dataset.from_tensor_slices(
            (scaler(validation[0]), _targets(validation[1], recipe, share))
        ).batch(_AT_ONCE)

    def draw(_: Any) -> tuple[Any, Any]:
        index = tf.random.uniform((recipe.batch,), 0, len(windows), tf.int32)
        return tf.gather(held[0], index), tf.gather(held[1], index)

    def finished(epoch: int, losses: dict[str, float] | None = None) -> None:
        told(epoch + 1, {name: float(value) for name, value in (losses or {}).items()})

    model.fit(
        tf.data.Dataset.counter().map(draw).prefetch(2),
        steps_per_epoch=steps,
        validation_data=check,
        epochs=recipe.epochs,
        verbose=0,
        shuffle=False,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=finished)],
    )
    return model


def _network(shape: tuple[int, ...], recipe: Recipe) -> keras.Model:
    model = keras.Sequential([keras.Input(shape)])
    for place, units in enumerate(recipe.units, 1):
        model.add(keras.layers.LSTM(units, return_sequences=place < len(recipe.units)))
        model.add(keras.layers.Dropout(recipe.dropout))
    model.add(keras.layers.Dense(4))
    return model


def _targets(lives: Lives, recipe: Recipe, share: float) -> Floats:
    """(n, 4): class, its weight (0 where unknown), capped share of life, whether that is a bound."""
    fails = lives.fails(recipe.horizon)
    weight = np.where(fails, 0.5 / share, 0.5 / (1 - share)) * lives.told(recipe.horizon)
    bound = lives.censored & (lives.left < recipe.cap)
    life = np.minimum(lives.left, recipe.cap) / recipe.cap
    targets: Floats = np.stack([fails, weight, life, bound], axis=1).astype(np.float32)
    return targets


def _loss(target: Any, said: Any) -> Any:
    fails, weight, life, bound = tf.unstack(target, axis=1)
    chance = weight * tf.nn.sigmoid_cross_entropy_with_logits(fails, said[:, 0])
    # How far life lies above each prediction; below a bound nothing is known.
    above = life[:, None] - said[:, 1:]
    above = tf.where(bound[:, None] > 0, tf.maximum(above, 0), above)
    tails = tf.constant([TAIL, 1 - TAIL])
    pinball = tf.reduce_sum(tf.maximum(tails * above[:, 1:], (tails - 1) * above[:, 1:]), axis=1)
    return tf.reduce_mean(chance + _LIFE * tf.square(above[:, 0]) + _QUANTILE * pinball)


def forecast(model: keras.Model, scaler: Scaler, windows: Windows, cap: float) -> Forecast:
    """What the network says of any number of windows; lives lie within 0 and `cap`."""
    said = np.zeros((0, 4), np.float32)
    if len(windows):
        said = model.predict(scaler(windows), batch_size=_AT_ONCE, verbose=0)
    return Forecast(*(np.asarray(part) for part in _told(said, cap)))


def _told(said: Any, cap: float) -> tuple[Any, Any, Any, Any]:
    """Logit, remaining, low <= remaining, high >= remaining of the network's (n, 4)."""
    lives = tf.clip_by_value(said[:, 1:], 0, 1) * cap
    remaining, low, high = lives[:, 0], lives[:, 1], lives[:, 2]
    return said[:, 0], remaining, tf.minimum(low, remaining), tf.maximum(high, remaining)


def export(
    model: keras.Model,
    scaler: Scaler,
    line: tuple[float, float],
    interval: Interval,
    folder: Path,
) -> None:
    """SavedModel with `serve(windows [n, length, width]) -> (probability, remaining, low, high)`.

    Each [n]; `line` is Platt's, and lives are in the unit that `interval` was fitted in.
    """

    def serve(windows: Any) -> Any:
        logit, remaining, low, high = _told(model(scaler(windows)), interval.cap)
        lower = tf.clip_by_value(tf.minimum(low - interval.widen, remaining), 0, interval.cap)
        upper = tf.clip_by_value(tf.maximum(high + interval.widen, remaining), 0, interval.cap)
        return tf.sigmoid(line[0] * logit + line[1]), remaining, lower, upper

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serve", serve, input_signature=[tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)]
    )
    archive.write_out(str(folder), verbose=False)
