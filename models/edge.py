"""The champion as a car gets it: one JSON record, and a model that needs no TensorFlow.

    artefact -> package -> topic models (engine/edge) -> downlink -> MQTT models/engine -> opened -> Edge

It holds both LiteRT files (deflated, base64), thresholds, debounce and the norms of healthy cars, so
that a car judges itself as the scorer would: `Edge` is a `scoring.Model`, and features, windows,
baselines and debounce are the very code of the server. `digest` is the sha256 of all the rest, and
golden vectors prove that this processor computes what the trainer's did. A car takes a package whole or
not at all: on any fault it keeps the model it has.
"""

import base64
import hashlib
import zlib
from typing import Any, Final

import numpy as np
import orjson

from models.artefact import GOLDEN, Artefact
from models.debounce import Debounce
from models.errors import ArtefactRefused
from models.features import Features, feature_hash
from models.lite import AUTOENCODER, LSTM, Lite, LiteLstm
from models.scoring import Floats, Gate, in_seconds
from models.trend import Norms

FORMAT: Final = 2
MOST_BYTES: Final = 512 << 10
"""Of a package: half of what Kafka and our brokers take in one message."""
TOLERANCE: Final = 1e-3
"""Of what LiteRT computes, as a share above 1."""
_MOST_FILE_BYTES: Final = 4 << 20
_GOLDEN: Final = 2

_FILES: Final = (AUTOENCODER, LSTM)


def package(artefact: Artefact) -> bytes:
    """The record for cars. Raises `ArtefactRefused` when files are missing or it is too large."""
    manifest = artefact.manifest
    files = {}
    for name in _FILES:
        try:
            data = (artefact.folder / name).read_bytes()
        except OSError as error:
            raise ArtefactRefused(f"{artefact.version} has no {name} for cars") from error
        files[name] = base64.b64encode(zlib.compress(data, 9)).decode()
    lstm = manifest["lstm"]
    record = {
        "format": FORMAT,
        "name": manifest["name"],
        "version": artefact.version,
        "sha256": artefact.sha256,
        "feature_hash": manifest["features"]["hash"],
        "horizon_s": manifest["horizon_s"],
        "autoencoder": {
            name: manifest["autoencoder"][name] for name in ("threshold", "debounce", "norms")
        },
        "lstm": {
            "threshold": lstm["threshold"],
            "debounce": lstm["debounce"],
            "cap": lstm["remaining"]["cap"],
        },
        "golden": _golden(artefact),
        "files": files,
    }
    data = orjson.dumps({"digest": _digest(record), **record})
    if len(data) > MOST_BYTES:
        raise ArtefactRefused(
            f"{artefact.version} has {len(data)} bytes for cars; at most {MOST_BYTES} are accepted"
        )
    return data


class Edge:
    """Implements `scoring.Model` by LiteRT; not for several threads at once."""

    def __init__(self, record: dict[str, Any], files: dict[str, bytes]) -> None:
        self.name: str = record["name"]
        self.version: str = record["version"]
        self.horizon_s = int(record["horizon_s"])
        self.autoencoder, self.lstm = (
            Gate(float(part["threshold"]), Debounce.from_json(part["debounce"]))
            for part in (record["autoencoder"], record["lstm"])
        )
        self.norms = Norms.from_json(record["autoencoder"]["norms"])
        self._cap = float(record["lstm"]["cap"])
        self._rows = Lite(files[AUTOENCODER])
        self._windows = LiteLstm(files[LSTM])

    def rows(self, features: Features) -> tuple[Floats, Floats]:
        """See `scoring.Model`."""
        if not len(features):
            return np.empty(0, np.float32), np.empty(features.shape, np.float32)
        return self._rows.rows(features)

    def windows(self, windows: Features, deviations: Floats) -> Floats:
        """See `scoring.Model`."""
        return in_seconds(self._windows.windows(windows, deviations), self.horizon_s, self._cap)


def opened(data: bytes) -> Edge:
    """The model of a package; raises `ArtefactRefused` naming what is not as it says."""
    if len(data) > MOST_BYTES:
        raise ArtefactRefused(
            f"{len(data)} bytes are no package; at most {MOST_BYTES} are accepted"
        )
    try:
        record = orjson.loads(data)
        if record["format"] != FORMAT:
            raise ArtefactRefused(f"package of format {record['format']!r}; {FORMAT} is accepted")
        if (theirs := record["feature_hash"]) != feature_hash():
            raise ArtefactRefused(
                f"{record['version']} is for features {theirs}, this car computes {feature_hash()}"
            )
        digest = record.pop("digest")
        if digest != _digest(record):
            raise ArtefactRefused(
                f"{record['version']} was altered on its way (its digest differs)"
            )
        made = Edge(record, {name: _unpacked(record["files"][name]) for name in _FILES})
        _prove(made, record["golden"])
        return made
    except ArtefactRefused:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
        raise ArtefactRefused(f"it is no package of a model ({error!r:.120})") from error


def _golden(artefact: Artefact) -> dict[str, Any]:
    """The first of the artefact's golden vectors."""
    with np.load(artefact.folder / GOLDEN) as golden:
        return {
            name: golden[name][:_GOLDEN].astype(np.float64).tolist()
            for name in ("rows", "scores", "windows", "deviations")
        } | {"chances": golden["forecasts"][:_GOLDEN, 0].astype(np.float64).tolist()}


def _prove(model: Edge, golden: dict[str, Any]) -> None:
    rows, windows, deviations = (
        np.array(golden[name], np.float32) for name in ("rows", "windows", "deviations")
    )
    pairs = (
        (model.rows(rows)[0], golden["scores"]),
        (model.windows(windows, deviations)[:, 0], golden["chances"]),
    )
    for ours, told in pairs:
        theirs = np.array(told, np.float64)
        if not (np.abs(ours - theirs) <= TOLERANCE * np.maximum(1, np.abs(theirs))).all():
            raise ArtefactRefused(
                f"{model.version} computes {ours.tolist()} here where the trainer had {told}"
            )


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(record)).hexdigest()


def _unpacked(packed: str) -> bytes:
    # What is packed small may be large: no more than a model has is unpacked.
    return zlib.decompressobj().decompress(
        base64.b64decode(packed, validate=True), _MOST_FILE_BYTES
    )
