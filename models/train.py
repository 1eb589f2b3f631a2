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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from models import artefact as stored
from models import cache, dataset, network, progress, registry, serving
from models.baseline import Pca
from models.calibration import platt
from models.debounce import Debounce
from models.errors import NotEnoughData
from models.evaluate import report
from models.features import FEATURES, WINDOW, Features, compute, feature_hash, windows
from models.labels import PARTS, Split, Truth, read_truth, split
from models.log import Stretch, freeze
from models.network import Mask, Scaler
from models.threshold import above_all, alarm_level, extreme
from twin.kit import logs

log = logs.get(__name__)

DEBOUNCE: Final = Debounce(k=8, n=12, calm=12, release=0.8)
ALARM_SHARE: Final = 1e-5
"""Of healthy cars that may raise an alarm in one history, as the fitted tail says."""
MIN_PROBABILITY: Final = 0.7
"""An alarm of the LSTM should be right seven times out of ten at the least."""
MARGIN_MS: Final = 5_000
"""Rows so close before a fault's onset are called neither healthy nor faulty."""
STRIDE: Final = 4
"""Every so manieth window is trained on; neighbours differ in one row of 32."""

_SCALE_QUANTILE: Final = 0.99
_GOLDEN: Final = 64

# The gate of promotion: a model that misses one of these is stored, and not made champion.
MIN_AUC: Final = 0.8
MIN_DETECTED: Final = 0.5
MAX_FALSE_ALARMS: Final = 0.02


@dataclass(frozen=True, slots=True)
class Options:
    """What to train on and how. `horizon_s` is component time; the clock runs `acceleration` slower."""

    topic: str
    truth_topic: str
    store: Path
    seed: int
    epochs: int
    max_rows: int
    horizon_s: int
    acceleration: float
    promote_anyway: bool

    @property
    def horizon_ms(self) -> float:
        """The horizon on the clock, ms."""
        return 1000 * self.horizon_s / self.acceleration


@dataclass(frozen=True, slots=True)
class Data:
    """A log, ready to learn from: all arrays (rows,), features of valid rows of known lives only."""

    columns: cache.Columns
    truth: Truth
    features: Features
    part: NDArray[np.int8]  # index into PARTS
    healthy: Mask
    label: Mask

    def of(self, part: str) -> Mask:
        """The rows of a part."""
        return self.part == PARTS.index(part)


def prepare(columns: cache.Columns, truth: Truth, options: Options) -> Data:
    """Keep valid rows of cars whose fate is known; label and deal them. Raises `NotEnoughData`."""
    features, valid = compute(np.asarray(columns.signals, dtype=np.float64))
    known = np.array([life in truth.fates for life in columns.lives] or [False])
    kept = valid & ~columns.suspect & known[columns.life]
    if not kept.any():
        raise NotEnoughData(
            f"none of the {len(columns)} rows on {options.topic} belongs to a car whose truth is on"
            f" {options.truth_topic}; write both with: python -m models simulate"
        )
    columns, features = columns.only(kept), features[kept]
    fates = {life: truth.fates[life] for life in columns.lives if life in truth.fates}
    dealt: Split = split(fates.values(), options.seed)
    n = len(columns)
    part, healthy, label = np.zeros(n, np.int8), np.zeros(n, bool), np.zeros(n, bool)
    for number, life in enumerate(columns.lives):
        fate = fates.get(life)
        if fate is None:
            continue
        rows = columns.life == number
        times = columns.event_time[rows]
        part[rows] = [fate.vehicle_id in getattr(dealt, name) for name in PARTS].index(True)
        healthy[rows] = fate.healthy(times, MARGIN_MS)
        label[rows] = fate.label(times, options.horizon_ms)
    return Data(columns, truth, features, part, healthy, label)


@dataclass(frozen=True, slots=True)
class Trained:
    """Everything that is exported."""

    scaler: Scaler
    autoencoder: keras.Model
    scales: network.Floats
    autoencoder_threshold: float
    lstm: keras.Model
    line: tuple[float, float]
    lstm_threshold: float
    pca: Pca
    pca_threshold: float


def fit(data: Data, options: Options, form: progress.Form) -> Trained:
    """Train and calibrate both networks and the baseline. Raises `NotEnoughData`."""
    network.seed(options.seed)
    rows = {part: data.features[data.of(part) & data.healthy] for part in PARTS}
    scaler = Scaler.fit(rows["train"])
    with progress.steps("training the autoencoder", options.epochs, form) as advance:
        autoencoder = network.train_autoencoder(
            rows["train"], rows["validate"], scaler, options.epochs, _telling(advance)
        )
    ends, found = windows(
        data.features, data.columns.life, data.columns.event_time, stride=STRIDE
    )
    train, validate = (data.of(part)[ends] for part in ("train", "validate"))
    labels = data.label[ends]
    if not (labels[train].any() and (~labels[train]).any()):
        raise NotEnoughData(
            f"{int(train.sum())} windows to train on hold only one class; simulate more vehicles,"
            " more days or another seed"
        )
    with progress.steps("training the LSTM", options.epochs, form) as advance:
        lstm = network.train_lstm(
            found[train],
            labels[train],
            (found[validate], labels[validate]),
            scaler,
            options.epochs,
            _telling(advance),
        )
    with progress.steps("calibrating", 1, form) as advance:
        trained = _calibrate(data, rows, scaler, autoencoder, lstm)
        advance(1)
    return trained


def _calibrate(
    data: Data,
    rows: dict[str, Features],
    scaler: Scaler,
    autoencoder: keras.Model,
    lstm: keras.Model,
) -> Trained:
    part = data.of("calibrate")
    life = data.columns.life[part]
    cars = [
        number
        for number in np.unique(life).tolist()
        if data.truth.fates[data.columns.lives[number]].mode is None
    ]
    if len(cars) < 2:
        raise NotEnoughData(
            f"{len(cars)} healthy vehicles to calibrate on; at least 2 are needed, simulate more"
        )
    residuals = network.evaluate_residuals(autoencoder, scaler, data.features[part])
    scales = np.maximum(np.quantile(residuals[data.healthy[part]], _SCALE_QUANTILE, axis=0), 1e-6)
    pca = Pca.fit(rows["train"], rows["calibrate"])
    ends, found = windows(data.features[part], life, data.columns.event_time[part])
    logits = network.evaluate_logits(lstm, scaler, found)
    line = platt(logits, data.label[part][ends])

    def levels(values: NDArray[Any], lives: NDArray[np.int64]) -> list[float]:
        found = (alarm_level(values[lives == car], DEBOUNCE.k, DEBOUNCE.n) for car in cars)
        known = [level for level in found if np.isfinite(level)]
        if len(known) < 2:
            raise NotEnoughData(
                f"{len(known)} healthy vehicles to calibrate on have {WINDOW + DEBOUNCE.k} rows;"
                " at least 2 are needed, simulate more days"
            )
        return known

    chance = line[0] * above_all(levels(logits, life[ends])) + line[1]
    anomaly = levels((residuals / scales).max(axis=1), life)
    return Trained(
        scaler=scaler,
        autoencoder=autoencoder,
        scales=scales.astype(np.float32),
        autoencoder_threshold=extreme(anomaly, ALARM_SHARE),
        lstm=lstm,
        line=line,
        lstm_threshold=max(MIN_PROBABILITY, 1 / (1 + float(np.exp(-np.clip(chance, -30, 30))))),
        pca=pca,
        pca_threshold=extreme(levels(pca.scores(data.features[part]), life), ALARM_SHARE),
    )


def train(bootstrap: str, options: Options, form: progress.Form, *, now_ms: int) -> dict[str, Any]:
    """The whole command; what it prints. Raises a `CartwinError` with one sentence."""
    began = time.monotonic()
    stretch = freeze(bootstrap, options.topic)
    if stretch.rows > options.max_rows:
        stretch = stretch.newest(options.max_rows)
    with loaded(bootstrap, stretch, freeze(bootstrap, options.truth_topic), form) as (columns, truth):
        read_s = time.monotonic() - began
        data = prepare(columns, truth, options)
        trained = fit(data, options, form)
        made, metrics = _store(data, trained, options, stretch, now_ms)
    why = shortcomings(metrics["summary"])
    promoted = not why or options.promote_anyway
    if promoted:
        registry.promote(bootstrap, registry.registration(made))
    return {
        "version": made.version,
        "promoted": promoted,
        "why_not": why,
        "rows": stretch.rows,
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


@contextmanager
def loaded(
    bootstrap: str, stretch: Stretch, truth_stretch: Stretch, form: progress.Form
) -> Iterator[tuple[cache.Columns, Truth]]:
    """Both topics read once through tensorflow-io; the cache lives as long as the block."""
    with progress.steps(f"reading {truth_stretch.topic}", truth_stretch.rows, form) as advance:
        truth = read_truth(
            value
            for batch in dataset.read(bootstrap, truth_stretch, advance=advance)
            for value, _ in batch
        )
    with tempfile.TemporaryDirectory(prefix="cartwin-cache-") as folder:
        with progress.steps(f"reading {stretch.topic}", stretch.rows, form) as advance:
            batches = dataset.read(bootstrap, stretch, advance=advance)
            columns = cache.spool(Path(folder), stretch.rows, batches, truth.life_of)
        yield columns, truth


def _store(
    data: Data, trained: Trained, options: Options, stretch: Stretch, now_ms: int
) -> tuple[stored.Artefact, dict[str, Any]]:
    """Export, measure what was exported on the test cars, publish."""
    test = data.of("test")
    columns = data.columns.only(test)
    manifest = _manifest(trained, options, stretch)
    with tempfile.TemporaryDirectory(prefix="cartwin-export-") as name:
        folder = Path(name)
        network.export_autoencoder(
            trained.autoencoder, trained.scaler, trained.scales, folder / stored.AUTOENCODER
        )
        network.export_lstm(trained.lstm, trained.scaler, trained.line, folder / stored.LSTM)
        trained.pca.save(folder, trained.pca_threshold)
        model = serving.Loaded(stored.Artefact(folder, {"name": stored.NAME, **manifest}, ""))
        ends, found = windows(data.features[test], columns.life, columns.event_time)
        some = np.linspace(0, len(ends) - 1, min(_GOLDEN, len(ends))).astype(int)
        serving.save_golden(model, data.features[test][ends[some]], found[some], folder)
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
            lambda draft: shutil.copytree(folder, draft, dirs_exist_ok=True) and None,
            now_ms=now_ms,
        )
    return made, metrics


def _manifest(trained: Trained, options: Options, stretch: Stretch) -> dict[str, Any]:
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
        },
        "lstm": {
            "threshold": trained.lstm_threshold,
            "debounce": debounce,
            "calibration": list(trained.line),
        },
        "trained_on": {
            "topic": stretch.topic,
            "ranges": [[r.partition, r.start, r.end] for r in stretch.ranges],
            "rows": stretch.rows,
            "truth_topic": options.truth_topic,
        },
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


def shortcomings(summary: dict[str, Any]) -> list[str]:
    """Why a model with these figures is not made champion; empty when it is good enough."""
    why = []
    if summary["auc"] is None or summary["auc"] < MIN_AUC:
        why.append(f"AUC of the LSTM is {summary['auc']}; at least {MIN_AUC} is wanted")
    if summary["detected"] < MIN_DETECTED * summary["failures"] or not summary["failures"]:
        why.append(
            f"{summary['detected']} of {summary['failures']} failures were detected;"
            f" at least {MIN_DETECTED:.0%} are wanted"
        )
    if summary["false_alarms"] > MAX_FALSE_ALARMS * summary["healthy"]:
        why.append(
            f"{summary['false_alarms']} of {summary['healthy']} healthy cars raised an alarm;"
            f" at most {MAX_FALSE_ALARMS:.0%} may"
        )
    return why


def _telling(advance: progress.Advance) -> network.Told:
    def told(_epoch: int, losses: dict[str, float]) -> None:
        advance(1, " ".join(f"{name} {value:.4f}" for name, value in losses.items()))

    return told
