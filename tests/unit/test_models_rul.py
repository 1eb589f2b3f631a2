"""The LSTM of remaining life on parts that wear at rates of their own. Loads TensorFlow."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import network, rul
from models.conformal import Interval
from models.errors import NotEnoughData
from models.labels import Lives
from models.network import Scaler
from models.rul import Recipe, Seen

LENGTH, WIDTH = 8, 3
RECIPE = Recipe(cap=50.0, horizon=10.0, units=(8,), dropout=0.0, rate=2e-2, epochs=15, batch=64)


def _worn(seed: int, count: int) -> tuple[Seen, Lives]:
    """Windows in which the first input tells the life that is left, up to 80."""
    rng = np.random.default_rng(seed)
    left = rng.uniform(0, 80, count).astype(np.float32)
    windows = rng.normal(size=(count, LENGTH, WIDTH)).astype(np.float32)
    windows[:, :, 0] = -left[:, None] / 20 + 0.2 * windows[:, :, 0]
    return Seen.alone(windows), Lives(left, np.zeros(count, dtype=bool))


def _trained(windows: Seen, lives: Lives) -> tuple[keras.Model, Scaler]:
    network.seed(1)
    scaler = Scaler.fit(windows.windows.reshape(-1, WIDTH))
    return rul.train(windows, lives, None, scaler, RECIPE, lambda *_: None), scaler


@pytest.fixture(scope="module")
def trained() -> tuple[keras.Model, Scaler]:
    """A network that has seen 2,000 windows."""
    return _trained(*_worn(1, 2000))


def test_life_and_chance_are_told_of_new_windows(trained: tuple[keras.Model, Scaler]) -> None:
    """Life within a few hours, the nearly dead above the rest, low <= remaining <= high."""
    windows, lives = _worn(2, 500)
    said = rul.forecast(*trained, windows, RECIPE.cap)
    error = said.remaining - np.minimum(lives.left, RECIPE.cap)
    assert np.sqrt(np.mean(np.square(error))) < 5
    fails = lives.fails(RECIPE.horizon)
    assert np.median(said.logit[fails]) > np.quantile(said.logit[~fails], 0.98)
    assert (said.low <= said.remaining).all()
    assert (said.remaining <= said.high).all()
    assert said.low.min() >= 0
    assert said.high.max() <= RECIPE.cap


def test_no_window_gives_no_forecast(trained: tuple[keras.Model, Scaler]) -> None:
    """An empty batch is an empty answer."""
    said = rul.forecast(*trained, _worn(1, 0)[0], RECIPE.cap)
    assert said.remaining.shape == said.logit.shape == (0,)


def test_the_same_seed_gives_the_same_network(trained: tuple[keras.Model, Scaler]) -> None:
    """Nothing but data, recipe and seed decides."""
    windows, _ = _worn(2, 50)
    again = rul.forecast(*_trained(*_worn(1, 2000)), windows, RECIPE.cap)
    first = rul.forecast(*trained, windows, RECIPE.cap)
    assert again.remaining == pytest.approx(first.remaining, abs=1e-3)


def test_what_is_exported_says_what_was_trained(
    trained: tuple[keras.Model, Scaler], tmp_path: Path
) -> None:
    """Raw windows go in; Platt's probability, life and its interval come out, for any batch."""
    windows, _ = _worn(3, 40)
    interval = Interval(2.5, RECIPE.cap)
    rul.export(*trained, (1.5, -0.5), interval, tmp_path / "rul")
    loaded = tf.saved_model.load(str(tmp_path / "rul"))  # its variables live as long as it does
    for count in (1, 40):
        chance, remaining, low, high = (
            part.numpy() for part in loaded.serve(tf.constant(windows.windows[:count]))
        )
        said = rul.forecast(*trained, windows[:count], RECIPE.cap)
        lower, upper = interval(said.remaining, said.low, said.high)
        assert chance == pytest.approx(1 / (1 + np.exp(-(1.5 * said.logit - 0.5))), abs=1e-5)
        assert remaining == pytest.approx(said.remaining, abs=1e-3)
        assert low == pytest.approx(lower, abs=1e-3)
        assert high == pytest.approx(upper, abs=1e-3)


def test_a_car_that_did_not_fail_does_not_shorten_lives(
    trained: tuple[keras.Model, Scaler],
) -> None:
    """Lives of which only a part was seen, taken as bounds, leave life as it is; taken as ends, not."""
    windows, lives = _worn(1, 2000)
    # Half of the cars were watched for a third of the life that they had.
    half = np.arange(2000) % 2 == 0
    seen = np.where(half, lives.left / 3, lives.left)
    asked, true = _worn(4, 500)
    truth = np.minimum(true.left, RECIPE.cap)
    bias = {
        censored: float(
            np.mean(
                rul.forecast(
                    *_trained(windows, Lives(seen, half & censored)), asked, RECIPE.cap
                ).remaining
                - truth
            )
        )
        for censored in (True, False)
    }
    assert abs(bias[True]) < 2
    assert bias[False] < -5


def test_a_state_tells_what_windows_do_not(tmp_path: Path) -> None:
    """Life that only the state at the end shows is found, and exported with two inputs."""
    windows, lives = _worn(1, 2000)
    noise = np.random.default_rng(5).normal(size=windows.windows.shape).astype(np.float32)
    seen = Seen(noise, (100 - lives.left[:, None]) / 20)
    model, scaler = _trained(seen, lives)
    said = rul.forecast(model, scaler, seen, RECIPE.cap)
    error = said.remaining - np.minimum(lives.left, RECIPE.cap)
    assert np.sqrt(np.mean(np.square(error))) < 5
    rul.export(model, scaler, (1.0, 0.0), Interval(0, RECIPE.cap), tmp_path / "rul")
    loaded = tf.saved_model.load(str(tmp_path / "rul"))
    told = loaded.serve(tf.constant(seen.windows[:3]), tf.constant(seen.state[:3]))
    assert told[1].numpy() == pytest.approx(said.remaining[:3], abs=1e-3)


def test_a_bound_tells_of_the_class_only_what_is_known() -> None:
    """Beyond the horizon it is no failure; within it nothing is known; inf will not fail."""
    lives = Lives(np.array([5, 15, np.inf, 5], np.float32), np.array([True, True, True, False]))
    assert lives.told(10.0).tolist() == [False, True, True, True]
    assert lives.fails(10.0).tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("left", "censored"),
    [([-1.0], [False]), ([np.nan], [True]), ([np.inf], [False]), ([1.0, 2.0], [False])],
)
def test_lives_that_cannot_be_are_refused(left: list[float], censored: list[bool]) -> None:
    """Negative, NaN, endless though it ended, or not one for each window."""
    with pytest.raises(ValueError, match="accepted"):
        Lives(np.array(left, np.float32), np.array(censored))


@pytest.mark.parametrize("left", [5.0, 40.0])
def test_one_class_is_too_little_to_learn(left: float) -> None:
    """All fail within the horizon, or none: an error says how many windows there were."""
    windows, lives = _worn(1, 10)
    lives = Lives(np.full(10, left, np.float32), lives.censored)
    with pytest.raises(NotEnoughData, match=r"10 windows, (0|10) of which fail"):
        _trained(windows, lives)


def test_validation_is_told_after_each_epoch() -> None:
    """Its loss comes with the number of the epoch, from 1."""
    windows, lives = _worn(1, 200)
    told: list[tuple[int, set[str]]] = []
    rul.train(
        windows,
        lives,
        (windows[:50], lives[:50]),
        Scaler.fit(windows.windows.reshape(-1, WIDTH)),
        Recipe(cap=50.0, horizon=10.0, units=(4, 4), epochs=2, batch=64),
        lambda epoch, losses: told.append((epoch, set(losses))),
    )
    assert told == [(1, {"loss", "val_loss"}), (2, {"loss", "val_loss"})]
