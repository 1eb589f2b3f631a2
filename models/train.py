"""`python -m models train`: from the Kafka log to a stored, measured and registered model.

log (tensorflow-io) -> cache -> features, labels, split by vehicle -> scaler, autoencoder, LSTM ->
scales, Platt's line and thresholds on calibration cars -> export -> measured on test cars through
the exported files and the scorer's own path -> artefact -> registry, if good enough. Nothing but the
log, the options and the seed decides what comes out.
"""

import platform
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from models import artefact as stored
from models import dataset, edge, lite, network, progress, registry, rul, serving
from models.cache import Columns
from models.evaluate import report
from models.examples import Data, prepare
from models.features import FEATURES, WINDOW, feature_hash, windows
from models.fit import DEBOUNCE, HELD, Trained, fit
from models.labels import Truth
from models.log import freeze
from models.promotion import shortcomings
from models.store import Location

_GOLDEN: Final = 64


@dataclass(frozen=True, slots=True)
class Options:
    """What to train on and how. `horizon_s` is component time; the clock runs `acceleration` slower.

    `parquet`: a folder to read instead of the topics; `board`: one for TensorBoard's files.
    """

    topic: str
    truth_topic: str
    parquet: Path | None
    caches: Path
    store: Location
    seed: int
    epochs: int
    max_rows: int
    horizon_s: int
    acceleration: float
    promote_anyway: bool
    board: Path | None = None

    @property
    def horizon_ms(self) -> float:
        """The horizon on the clock, ms."""
        return 1000 * self.horizon_s / self.acceleration


def train(bootstrap: str, options: Options, form: progress.Form, *, now_ms: int) -> dict[str, Any]:
    """The whole command; what it prints. Raises a `CartwinError` with one sentence."""
    began = time.monotonic()
    columns, truth, source = _read(bootstrap, options, form)
    read_s = time.monotonic() - began
    data = prepare(columns, truth, horizon_ms=options.horizon_ms, seed=options.seed)
    trained = fit(data, seed=options.seed, epochs=options.epochs, form=form, board=options.board)
    made, metrics = store(data, trained, options, source, now_ms)
    why = shortcomings(metrics["summary"])
    promoted = not why or options.promote_anyway
    if promoted:
        registry.promote(bootstrap, registry.registration(made), edge.package(made))
    return {
        "version": made.version,
        "promoted": promoted,
        "why_not": why,
        "rows": source["rows"],
        "unreadable": columns.unreadable + truth.unreadable,
        "thresholds": {
            "autoencoder": round(trained.autoencoder_threshold, 4),
            "lstm": round(trained.lstm_threshold, 4),
        },
        "metrics": metrics,
        "seconds": {
            "read": round(read_s, 1),
            "total": round(time.monotonic() - began, 1),
        },
    }


def _read(
    bootstrap: str, options: Options, form: progress.Form
) -> tuple[Columns, Truth, dict[str, Any]]:
    """Telemetry, truth, and what the manifest says of where they came from."""
    if options.parquet is not None:
        # Who trains from Kafka needs no pyarrow.
        from models import parquet  # noqa: PLC0415

        columns, truth, files = parquet.read(options.parquet, options.max_rows, form)
        return columns, truth, {"parquet": files, "rows": files["rows"]}
    stretch = freeze(bootstrap, options.topic)
    if stretch.rows > options.max_rows:
        stretch = stretch.newest(options.max_rows)
    columns, truth = dataset.loaded(
        bootstrap, stretch, freeze(bootstrap, options.truth_topic), options.caches, form
    )
    source = {
        "topic": stretch.topic,
        "topic_id": stretch.topic_id,
        "ranges": [[r.partition, r.start, r.end] for r in stretch.ranges],
        "rows": stretch.rows,
        "truth_topic": options.truth_topic,
    }
    return columns, truth, source


def store(
    data: Data, trained: Trained, options: Options, source: dict[str, Any], now_ms: int
) -> tuple[stored.Artefact, dict[str, Any]]:
    """Export, measure what was exported on the test cars, publish; `source`: where `data` came from."""
    test = data.of("test")
    columns = data.columns.only(test)
    manifest = _manifest(trained, options, source)
    with tempfile.TemporaryDirectory(prefix="cartwin-export-") as name:
        folder = Path(name)
        network.export_autoencoder(
            trained.autoencoder, trained.scaler, trained.scales, folder / stored.AUTOENCODER
        )
        told = (trained.lstm, trained.scaler, trained.line, trained.interval)
        rul.export(*told, folder / stored.LSTM)
        lite.export_lite(
            trained.autoencoder, trained.scaler, trained.scales, folder / lite.AUTOENCODER
        )
        lite.export_lite_lstm(*told, folder / lite.LSTM)
        trained.pca.save(folder, trained.pca_threshold)
        seen = np.unique(data.columns.life[~test]).tolist()
        learnt = sorted(data.columns.lives[number] for number in seen)
        (folder / stored.CARS).write_bytes(orjson.dumps({"learnt": learnt}))
        model = serving.Loaded(stored.Artefact(folder, {"name": stored.NAME, **manifest}, ""))
        ends, found = windows(data.features[test], columns.life, columns.event_time)
        some = np.linspace(0, len(ends) - 1, min(_GOLDEN, len(ends))).astype(int)
        rows = data.features[test][ends[some]]
        # Any deviations will do; a row's own residuals are of their size.
        deviations = np.abs(model.rows(rows)[1])
        serving.save_golden(model, rows, found[some], deviations, folder)
        metrics = report(
            model,
            columns,
            data.truth.fates,
            (trained.pca.scores(data.features[test]), trained.pca_threshold),
            horizon_ms=options.horizon_ms,
            acceleration=options.acceleration,
        )
        made = stored.publish(
            options.store,
            {**manifest, "metrics": metrics},
            lambda draft: _move(folder, draft),
            now_ms=now_ms,
        )
    return made, metrics


def _move(folder: Path, draft: Path) -> None:
    for part in folder.iterdir():
        shutil.move(part, draft / part.name)


def _manifest(trained: Trained, options: Options, source: dict[str, Any]) -> dict[str, Any]:
    debounce = asdict(DEBOUNCE)
    return {
        "features": {"names": list(FEATURES), "hash": feature_hash(), "window": WINDOW},
        "horizon_s": options.horizon_s,
        "acceleration": options.acceleration,
        "autoencoder": {
            "threshold": trained.autoencoder_threshold,
            "debounce": debounce,
            "scaler": {
                "mean": trained.scaler.mean.tolist(),
                "std": trained.scaler.std.tolist(),
            },
            "residual_scales": trained.scales.tolist(),
            "norms": trained.norms.to_json(),
        },
        "lstm": {
            "threshold": trained.lstm_threshold,
            "debounce": debounce,
            "calibration": list(trained.line),
            "remaining": {**asdict(trained.interval), "holds": HELD, "unit": "horizon"},
        },
        "drift": trained.drift.to_json(),
        "trained_on": source,
        "seed": options.seed,
        "epochs": options.epochs,
        "versions": {
            "python": platform.python_version(),
            **{
                name: version(name)
                for name in ("tensorflow-cpu", "tensorflow-io", "keras", "numpy")
            },
        },
    }
