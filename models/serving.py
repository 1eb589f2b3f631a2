"""A stored model in memory, ready to score: loaded from its artefact, checked, warmed up.

Calls go through the exported `tf.function`s in fixed batch sizes (padded), because every new shape
costs a trace or a plan, and `model.predict` has a floor of 40 ms. Loading replays the golden vectors:
a model that does not compute here what it computed at the trainer (other build, other processor) is
refused before it scores a car.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import tensorflow as tf

from models import artefact as stored
from models.artefact import Artefact
from models.debounce import Debounce
from models.drift import Reference
from models.errors import ArtefactRefused
from models.features import FEATURES, WINDOW, Features, feature_hash
from models.scoring import Floats, Gate, in_seconds
from models.trend import Norms

BUCKETS: Final = (1, 16, 64, 128, 256, 512, 1024)
TOLERANCE: Final = 1e-4

_WIDTH: Final = len(FEATURES)


def threads(intra: int) -> None:
    """Limit TensorFlow's threads; before its first operation."""
    tf.config.threading.set_intra_op_parallelism_threads(intra)
    tf.config.threading.set_inter_op_parallelism_threads(1)


class Loaded:
    """Implements `scoring.Model` by two SavedModels."""

    def __init__(self, artefact: Artefact) -> None:
        manifest = artefact.manifest
        self.name: str = manifest["name"]
        self.version = artefact.version
        self.horizon_s = int(manifest["horizon_s"])
        self.autoencoder = _gate(manifest["autoencoder"])
        self.lstm = _gate(manifest["lstm"])
        self.norms = Norms.from_json(manifest["autoencoder"]["norms"])
        self.drift = Reference.from_json(manifest["drift"]) if "drift" in manifest else None
        self._cap = float(manifest["lstm"]["remaining"]["cap"])
        # The loaded objects own the variables: they must live as long as their functions.
        self._saved = [
            tf.saved_model.load(str(artefact.folder / part))
            for part in (stored.AUTOENCODER, stored.LSTM)
        ]
        self._rows, self._windows = (saved.serve for saved in self._saved)

    def rows(self, features: Features) -> tuple[Floats, Floats]:
        """Anomaly scores (n,) and residuals per feature (n, FEATURES)."""
        parts = _in_buckets((features,), self._rows)
        if not parts:
            return np.empty(0, np.float32), np.empty((0, _WIDTH), np.float32)
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    def windows(self, windows: Features, deviations: Features) -> Floats:
        """(k, 4): see `scoring.Model`."""
        parts = _in_buckets((windows, deviations), self._windows)
        if not parts:
            return np.empty((0, 4), np.float32)
        said = np.stack([np.concatenate(part) for part in zip(*parts, strict=True)], axis=1)
        return in_seconds(said, self.horizon_s, self._cap)


def load(artefact: Artefact) -> Loaded:
    """Load a verified artefact, warm up every bucket, replay the golden vectors.

    Raises `ArtefactRefused` when its features are not this program's, or when it computes other
    values than at the trainer.
    """
    if (theirs := artefact.manifest["features"]["hash"]) != feature_hash():
        raise ArtefactRefused(
            f"{artefact.version} was trained on features {theirs}, this program computes"
            f" {feature_hash()}; train again"
        )
    try:
        model = Loaded(artefact)
    except (OSError, ValueError, KeyError, AttributeError, tf.errors.OpError) as error:
        raise ArtefactRefused(f"{artefact.version} cannot be loaded: {error!r:.200}") from error
    for bucket in BUCKETS:
        model.rows(np.zeros((bucket, _WIDTH), np.float32))
        model.windows(
            np.zeros((bucket, WINDOW, _WIDTH), np.float32), np.zeros((bucket, _WIDTH), np.float32)
        )
    _replay(artefact, model)
    return model


def save_golden(
    model: Loaded, rows: Features, windows: Features, deviations: Features, folder: Any
) -> None:
    """Write inputs and this model's outputs as golden vectors."""
    scores, residuals = model.rows(rows)
    np.savez(
        folder / stored.GOLDEN,
        rows=rows,
        windows=windows,
        deviations=deviations,
        scores=scores,
        residuals=residuals,
        forecasts=model.windows(windows, deviations),
    )


def _replay(artefact: Artefact, model: Loaded) -> None:
    with np.load(artefact.folder / stored.GOLDEN) as golden:
        scores, residuals = model.rows(golden["rows"])
        pairs = {
            "scores": scores,
            "residuals": residuals,
            "forecasts": model.windows(golden["windows"], golden["deviations"]),
        }
        for name, values in pairs.items():
            # A residual of 30 may differ in the same digits as one of 1.
            if not np.allclose(values, golden[name], rtol=TOLERANCE, atol=TOLERANCE):
                far = np.abs(values - golden[name])
                raise ArtefactRefused(
                    f"{artefact.version}: golden {name} differ from the trainer's by"
                    f" {float(np.nanmax(far)):.2g}; at most {TOLERANCE} is accepted"
                )


def _in_buckets(
    inputs: tuple[Features, ...], call: Callable[..., tuple[Any, ...]]
) -> list[tuple[Floats, ...]]:
    parts = []
    rows = len(inputs[0])
    for begin in range(0, rows, BUCKETS[-1]):
        taken = min(BUCKETS[-1], rows - begin)
        bucket = next(size for size in BUCKETS if size >= taken)
        padded = [np.zeros((bucket, *one.shape[1:]), np.float32) for one in inputs]
        for room, one in zip(padded, inputs, strict=True):
            room[:taken] = one[begin : begin + taken]
        outputs = call(*map(tf.constant, padded))
        parts.append(tuple(output.numpy()[:taken] for output in outputs))
    return parts


def _gate(part: dict[str, Any]) -> Gate:
    return Gate(float(part["threshold"]), Debounce.from_json(part["debounce"]))
