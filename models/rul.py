"""The LSTM that says when: the chance of a failure within a horizon, and the life that is left.

windows (n, length, width) -> standardised -> LSTM layers [-> joined with a state] -> four numbers:
  logit       of "fails within the horizon, or has failed"; Platt's line makes it a probability
  remaining   life in shares of `cap`, least squares
  low, high   its 5 % and 95 % quantiles by pinball loss; `conformal` widens them until they hold

Life above `cap` is called `cap`: a part that does not wear yet does not show how long it will last.
Of a car that did not fail it is only known that its life is at least `left`: a prediction above
costs nothing, one below does, and it is an example of "no failure" as far as `left` reaches beyond
the horizon.

The learning rate falls to zero over a fixed number of steps and the weights are averaged on the way
(exponential moving average), which is what keeps one seed from differing from the next. The unit of
`left`, `cap` and `horizon` is the caller's: horizons for the fleet, cycles for C-MAPSS.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from models.conformal import Interval
from models.errors import NotEnoughData
from models.labels import Lives
from models.network import Scaler

Windows = NDArray[np.float32]
Floats = NDArray[np.float32]
Told = Callable[[int, dict[str, float]], None]
"""Told the number of each finished epoch (from 1) and its losses."""

TAIL: Final = 0.05
"""Share of lives that shall end before `low`, and as many after `high`."""

_LIFE: Final = 8.0
_QUANTILE: Final = 1.0
"""What an error of remaining life and of a quantile weigh beside one of the class."""
_MOMENTUM: Final = 0.99  # of the averaged weights: about the last hundred steps count
_AT_ONCE: Final = 2048
_STATE_LIMIT: Final = 100.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What the network sees of n moments: windows (n, length, width), and the state (n, s) at their ends.

    A state is what a window is too short to tell, from 0 up (the fleet: the car's deviations from
    itself); s may be 0.
    """

    windows: Windows
    state: Floats

    @classmethod
    def alone(cls, windows: Windows) -> "Seen":
        """Windows without a state."""
        return cls(windows, np.zeros((len(windows), 0), np.float32))

    def __getitem__(self, chosen: Any) -> "Seen":
        """Some of the moments."""
        return Seen(self.windows[chosen], self.state[chosen])

    def __len__(self) -> int:
        return len(self.windows)

    def inputs(self, scaler: Scaler) -> list[Any]:
        """What goes into the network."""
        return [scaler(self.windows), self.state][: 1 + bool(self.state.shape[1])]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How it is trained: `cap` and `horizon` in the unit of life, `units` of each LSTM layer.

    `head`: units of the layer that joins the state, where there is one.

    `rate` is where the learning rate begins; `dropout` falls on the outputs of each layer; an epoch
    is as many windows, drawn at random, as there are, and at least `steps` batches: averaged weights of
    fewer than some hundred steps are still those of the beginning.
    """

    cap: float
    horizon: float
    units: tuple[int, ...] = (32,)
    head: int = 32
    dropout: float = 0.1
    rate: float = 4e-3
    epochs: int = 20
    batch: int = 256
    steps: int = 1


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the network says of n windows, (n,) each; `remaining`, `low`, `high` in the unit of life."""

    logit: Floats
    remaining: Floats
    low: Floats
    high: Floats


def train(
    seen: Seen,
    lives: Lives,
    validation: tuple[Seen, Lives] | None,
    scaler: Scaler,
    recipe: Recipe,
    told: Told,
) -> keras.Model:
    """(standardised windows[, state]) -> (n, 4). With `validation` the loss on it is told, too.

    Raises `NotEnoughData` when no window, or every window, is known to fail within the horizon.
    """
    fails, known = lives.fails(recipe.horizon), lives.told(recipe.horizon)
    if not fails.any() or not (known & ~fails).any():
        raise NotEnoughData(
            f"{int(known.sum())} windows, {int(fails.sum())} of which fail within the horizon of"
            f" {recipe.horizon:g}; windows of both kinds are needed"
        )
    model = _network(seen, recipe)
    steps = max(recipe.steps, len(seen) // recipe.batch)
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
    held = [tf.constant(part) for part in (*seen.inputs(scaler), _targets(lives, recipe, share))]
    check = None
    if validation is not None:
        check = tf.data.Dataset.from_tensor_slices(
            (_bundle(validation[0].inputs(scaler)), _targets(validation[1], recipe, share))
        ).batch(_AT_ONCE)

    def draw(_: Any) -> tuple[Any, Any]:
        index = tf.random.uniform((recipe.batch,), 0, len(seen), tf.int32)
        *inputs, target = (tf.gather(part, index) for part in held)
        return _bundle(inputs), target

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


def _network(seen: Seen, recipe: Recipe) -> keras.Model:
    window = told = keras.Input(seen.windows.shape[1:])
    for place, units in enumerate(recipe.units, 1):
        told = keras.layers.LSTM(units, return_sequences=place < len(recipe.units))(told)
        told = keras.layers.Dropout(recipe.dropout)(told)
    if not seen.state.shape[1]:
        return keras.Model(window, keras.layers.Dense(4)(told))
    state = keras.Input(seen.state.shape[1:])
    # Ten times too much says hardly more than three times.
    squeezed = keras.ops.log1p(keras.ops.minimum(state, _STATE_LIMIT))
    told = keras.layers.Concatenate()([told, squeezed])
    told = keras.layers.Dense(recipe.head, activation="gelu")(told)
    return keras.Model((window, state), keras.layers.Dense(4)(told))


def _bundle(inputs: Sequence[Any]) -> Any:
    """As Keras wants them: one input bare, several as a tuple."""
    return inputs[0] if len(inputs) == 1 else tuple(inputs)


def _targets(lives: Lives, recipe: Recipe, share: float) -> Floats:
    """(n, 4): class, its weight (0 where unknown), capped share of life, whether that is a bound."""
    fails = lives.fails(recipe.horizon)
    weight = np.where(fails, 0.5 / share, 0.5 / (1 - share)) * lives.told(recipe.horizon)
    bound = lives.censored & (lives.left < recipe.cap)
    life = np.minimum(lives.left, recipe.cap) / recipe.cap
    targets: Floats = np.stack([fails, weight, life, bound], axis=1).astype(np.float32)
    return targets


@keras.saving.register_keras_serializable("cartwin")  # type: ignore[untyped-decorator]
def _loss(target: Any, said: Any) -> Any:
    fails, weight, life, bound = tf.unstack(target, axis=1)
    chance = weight * tf.nn.sigmoid_cross_entropy_with_logits(fails, said[:, 0])
    # How far life lies above each prediction; below a bound nothing is known.
    above = life[:, None] - said[:, 1:]
    above = tf.where(bound[:, None] > 0, tf.maximum(above, 0), above)
    tails = tf.constant([TAIL, 1 - TAIL])
    pinball = tf.reduce_sum(tf.maximum(tails * above[:, 1:], (tails - 1) * above[:, 1:]), axis=1)
    return tf.reduce_mean(chance + _LIFE * tf.square(above[:, 0]) + _QUANTILE * pinball)


def forecast(model: keras.Model, scaler: Scaler, seen: Seen, cap: float) -> Forecast:
    """What the network says of any number of moments; lives lie within 0 and `cap`."""
    call = tf.function(model.__call__, reduce_retracing=True)
    said = [np.zeros((0, 4), np.float32)]
    for begin in range(0, len(seen), _AT_ONCE):
        part = seen[begin : begin + _AT_ONCE].inputs(scaler)
        said.append(call(_bundle([tf.constant(one) for one in part])).numpy())
    return Forecast(*(np.asarray(part) for part in _told(np.concatenate(said), cap)))


def _told(said: Any, cap: float) -> tuple[Any, Any, Any, Any]:
    """Logit, remaining, low <= remaining, high >= remaining of the network's (n, 4)."""
    lives = tf.clip_by_value(said[:, 1:], 0, 1) * cap
    remaining, low, high = lives[:, 0], lives[:, 1], lives[:, 2]
    return said[:, 0], remaining, tf.minimum(low, remaining), tf.maximum(high, remaining)


def served(
    model: keras.Model, scaler: Scaler, line: tuple[float, float], interval: Interval, inputs: Any
) -> tuple[Any, Any, Any, Any]:
    """Probability, remaining, low, high, (n,) each, of raw windows (and states): what is exported.

    `line` is Platt's; lives are in the unit that `interval` was fitted in.
    """
    window, *state = inputs
    logit, remaining, low, high = _told(model(_bundle([scaler(window), *state])), interval.cap)
    lower = tf.clip_by_value(tf.minimum(low - interval.widen, remaining), 0, interval.cap)
    upper = tf.clip_by_value(tf.maximum(high + interval.widen, remaining), 0, interval.cap)
    return tf.sigmoid(line[0] * logit + line[1]), remaining, lower, upper


def export(
    model: keras.Model,
    scaler: Scaler,
    line: tuple[float, float],
    interval: Interval,
    folder: Path,
) -> None:
    """SavedModel with `serve(windows[, state])`: `served` of any number of moments."""

    def serve(*inputs: Any) -> tuple[Any, Any, Any, Any]:
        return served(model, scaler, line, interval, inputs)

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serve",
        serve,
        input_signature=[tf.TensorSpec(one.shape, tf.float32) for one in model.inputs],
    )
    archive.write_out(str(folder), verbose=False)
