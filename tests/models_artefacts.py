"""Small trained models in a store, for tests that load and serve them. Loads TensorFlow."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from models import artefact, lite, network, rul, serving
from models.conformal import Interval
from models.features import FEATURES, INPUTS, WINDOW, Features, compute, feature_hash
from models.labels import Lives
from models.network import Scaler
from models.simulator import Cars
from models.store import Location
from tests.models_builders import norms

Touch = Callable[[Path], None]
SUMMARY = {"auc": 0.9, "detected": 3, "failures": 4, "false_alarms": 0, "healthy": 5}


def driven(cars: int, seconds: int, seed: int) -> Features:
    """Features of simulated healthy cars, (cars * seconds, FEATURES), by second."""
    made = Cars(cars, seed=seed)
    signals = []
    for _ in range(seconds):
        rows = made.step()
        signals.append(np.stack([rows[name] for name in INPUTS], axis=1))
    return compute(np.concatenate(signals).astype(np.float64))[0]


def publish_small(
    store: Location,
    seed: int,
    *,
    now_ms: int,
    threshold: float = 1e6,
    touch: Touch = lambda _: None,
    **manifest: Any,
) -> artefact.Artefact:
    """Train for a moment on a few rows, and store what comes of it.

    `touch` may alter the files before they are hashed; `manifest` overrides parts of it.
    """
    network.seed(seed)
    cars, seconds = 20, 64
    rows = driven(cars, seconds, seed)
    by_car = rows.reshape(seconds, cars, len(FEATURES)).transpose(1, 0, 2)
    windows = np.ascontiguousarray(
        np.concatenate([by_car[:, i : i + WINDOW] for i in range(0, seconds - WINDOW, 4)])
    )
    labels = windows[:, -1, 0] > np.median(windows[:, -1, 0])
    scaler = Scaler.fit(rows)
    autoencoder = network.train_autoencoder(rows, rows, scaler, 1, lambda *_: None)
    rebuilt = network.evaluate_residuals(autoencoder, scaler, windows[:, -1])
    seen = rul.Seen(windows, np.abs(rebuilt))
    lives = Lives(np.where(labels, 0.5, 2.5).astype(np.float32), np.zeros(len(labels), bool))
    recipe = rul.Recipe(cap=3.0, horizon=1.0, epochs=1, batch=64)
    lstm = rul.train(seen, lives, None, scaler, recipe, lambda *_: None)
    told = (lstm, scaler, (1.0, 0.0), Interval(0.1, 3.0))
    residuals = network.evaluate_residuals(autoencoder, scaler, rows)
    scales = np.quantile(np.abs(residuals), 0.99, axis=0).astype(np.float32)
    gate = {"threshold": threshold, "debounce": {"k": 2, "n": 3, "calm": 3, "release": 0.8}}
    made = {
        "features": {"hash": feature_hash(), "names": list(FEATURES), "window": WINDOW},
        "horizon_s": 60,
        "acceleration": 1440.0,
        "autoencoder": {**gate, "norms": norms(**dict.fromkeys(FEATURES, 1.0)).to_json()},
        "lstm": {**gate, "threshold": 1.0, "remaining": {"cap": 3.0}},
        "metrics": {"summary": SUMMARY},
        **manifest,
    }

    def fill(folder: Path) -> None:
        network.export_autoencoder(autoencoder, scaler, scales, folder / artefact.AUTOENCODER)
        rul.export(*told, folder / artefact.LSTM)
        lite.export_lite(autoencoder, scaler, scales, folder / lite.AUTOENCODER)
        lite.export_lite_lstm(*told, folder / lite.LSTM)
        model = serving.Loaded(artefact.Artefact(folder, {"name": "engine", **made}, ""))
        serving.save_golden(model, rows[:64], windows[:64], seen.state[:64], folder)
        touch(folder)

    return artefact.publish(store, made, fill, now_ms=now_ms)
