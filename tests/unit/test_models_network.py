"""The networks and what is exported of them. The one unit module that loads TensorFlow."""

import os
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest

from models import artefact, network, rul, serving
from models.conformal import Interval
from models.errors import ArtefactRefused
from models.features import FEATURES, WINDOW, Features, feature_hash
from models.labels import Lives
from models.network import Scaler
from tests.models_builders import norms

RNG = np.random.default_rng(1)
WIDTH = len(FEATURES)


def _related(n: int) -> Features:
    """Rows in which every feature follows from two hidden ones."""
    mix = np.random.default_rng(0).normal(size=(2, WIDTH))
    return (RNG.normal(size=(n, 2)) @ mix + 0.05 * RNG.normal(size=(n, WIDTH))).astype(np.float32)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one small trained model."""
    network.seed(1)
    rows = _related(4096)
    windows = RNG.normal(size=(2048, WINDOW, WIDTH)).astype(np.float32)
    labels = windows[:, -1, 0] > 0.5
    scaler = Scaler.fit(rows)
    autoencoder = network.train_autoencoder(rows, rows[:512], scaler, 6, lambda *_: None)
    seen = rul.Seen(windows, np.abs(windows[:, -1]))
    lives = Lives(np.where(labels, 0.5, 2.5).astype(np.float32), np.zeros(len(labels), bool))
    recipe = rul.Recipe(cap=3.0, horizon=1.0, epochs=2, batch=512)
    lstm = rul.train(seen, lives, None, scaler, recipe, lambda *_: None)
    interval = Interval(0.1, 3.0)
    residuals = network.evaluate_residuals(autoencoder, scaler, rows)
    scales = np.quantile(np.abs(residuals), 0.99, axis=0).astype(np.float32)
    gate = {"threshold": 2.0, "debounce": {"k": 2, "n": 3, "calm": 3, "release": 0.8}}
    manifest = {
        "features": {"hash": feature_hash()},
        "horizon_s": 60,
        "autoencoder": {**gate, "norms": norms(speed=1.0).to_json()},
        "lstm": {**gate, "remaining": {"cap": 3.0}},
        "metrics": {"summary": {}},
    }

    def fill(folder: Path) -> None:
        network.export_autoencoder(autoencoder, scaler, scales, folder / artefact.AUTOENCODER)
        rul.export(lstm, scaler, (1.5, -0.5), interval, folder / artefact.LSTM)
        model = serving.Loaded(artefact.Artefact(folder, {"name": "engine", **manifest}, ""))
        serving.save_golden(model, rows[:8], windows[:8], seen.state[:8], folder)
        scores, _ = model.rows(rows[:8])
        # What is served is what was trained: residuals over scales, Platt's line over logits.
        assert scores == pytest.approx(np.abs(residuals[:8] / scales).max(axis=1), abs=1e-5)
        said = rul.forecast(lstm, scaler, seen[:8], 3.0)
        told = model.windows(windows[:8], seen.state[:8])
        assert told[:, 0] == pytest.approx(1 / (1 + np.exp(-(1.5 * said.logit - 0.5))), abs=1e-5)
        assert told[:, 1] == pytest.approx(60 * said.remaining, abs=1e-3)
        low, high = interval(said.remaining, said.low, said.high)
        assert told[:, 2] == pytest.approx(60 * low, abs=1e-3)
        assert told[:, 3] == pytest.approx(np.where(high < 3.0, 60 * high, np.inf), abs=1e-3)

    folder = tmp_path_factory.mktemp("store")
    artefact.publish(folder, manifest, fill, now_ms=1_790_000_000_000)
    return folder


@pytest.fixture(scope="module")
def model(store: Path) -> serving.Loaded:
    """The model of the store, loaded as a scorer does."""
    return serving.load(artefact.listing(store)[0])


def test_a_residual_tells_above_from_below(store: Path) -> None:
    """Trends live on the sign: more than the rest lets expect is positive, less is negative."""
    model = serving.load(artefact.verify(store, artefact.listing(store)[0].version))
    rows = np.repeat(_related(1), 2, axis=0)
    rows[:, 3] += [5, -5]
    scores, residuals = model.rows(rows)
    assert residuals[0, 3] > 0 > residuals[1, 3]
    assert scores == pytest.approx(np.abs(residuals).max(axis=1))


def test_a_feature_that_leaves_its_relation_stands_out(model: serving.Loaded) -> None:
    """The broken feature has the largest residual, though the network is shown its value."""
    rows = _related(200)
    broken = rows.copy()
    broken[:, 3] += 4 * rows[:, 3].std()
    scores, residuals = model.rows(broken)
    assert (residuals.argmax(axis=1) == 3).mean() > 0.9
    assert np.median(scores) > 3 * np.median(model.rows(rows)[0])


@pytest.mark.parametrize("n", [0, 1, 2, 17, 1024, 1025])
def test_padding_to_buckets_changes_no_value(model: serving.Loaded, n: int) -> None:
    """A row's score is the same alone and in any batch, and as many come out as went in."""
    rows = _related(1025)
    windows = RNG.normal(size=(1025, WINDOW, WIDTH)).astype(np.float32)
    scores, residuals = model.rows(rows[:n])
    said = model.windows(windows[:n], residuals)
    assert (scores.shape, residuals.shape, said.shape) == ((n,), (n, WIDTH), (n, 4))
    if n:
        alone, _ = model.rows(rows[n - 1 : n])
        assert scores[-1] == pytest.approx(alone[0], abs=1e-5)
        alone = model.windows(windows[n - 1 : n], residuals[n - 1 :])
        assert said[-1] == pytest.approx(alone[0], rel=1e-5, abs=1e-5)


def test_another_feature_hash_is_refused(store: Path) -> None:
    """A model of other features computes nonsense on these."""
    made = artefact.listing(store)[0]
    other = replace(made, manifest={**made.manifest, "features": {"hash": "0" * 16}})
    with pytest.raises(ArtefactRefused, match="train again"):
        serving.load(other)


def test_a_model_that_computes_other_values_is_refused(store: Path, tmp_path: Path) -> None:
    """Golden vectors are replayed before a car is scored."""
    made = artefact.listing(store)[0]
    with np.load(made.folder / artefact.GOLDEN) as golden:
        values = dict(golden)
    values["forecasts"] = values["forecasts"] + 0.01
    folder = tmp_path / made.version
    folder.mkdir()
    for part in (artefact.AUTOENCODER, artefact.LSTM):
        (folder / part).symlink_to(made.folder / part)
    np.savez(folder / artefact.GOLDEN, **values)
    with pytest.raises(ArtefactRefused, match=r"golden forecasts differ.* by 0\.01"):
        serving.load(replace(made, folder=folder))


def test_a_folder_without_its_networks_is_refused(store: Path, tmp_path: Path) -> None:
    """A broken SavedModel is a sentence, not a stack trace."""
    made = artefact.listing(store)[0]
    with pytest.raises(ArtefactRefused, match="cannot be loaded"):
        serving.load(replace(made, folder=tmp_path))
