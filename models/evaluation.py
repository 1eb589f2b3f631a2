"""`python -m models evaluate --topic`: a stored model on a log with known truth, by the scorer's path.

Cars that it learnt from are left out: what a model makes of those says little about others.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models import artefact, dataset, progress, registry, serving
from models.baseline import Pca
from models.cache import Columns
from models.errors import NotEnoughData
from models.evaluate import report
from models.features import compute
from models.labels import Truth
from models.log import freeze
from models.store import Location


def evaluate(
    bootstrap: str,
    store: Location,
    version: str | None,
    *,
    topic: str,
    truth_topic: str,
    max_rows: int,
    caches: Path,
    form: progress.Form,
) -> dict[str, Any]:
    """Version and metrics; `version` None is the champion. Raises a `CartwinError`."""
    sha256 = None
    if version is None:
        champion = registry.current(bootstrap)
        if champion is None:
            raise NotEnoughData("there is no champion; train one, or name a --version")
        version, sha256 = champion["version"], champion["sha256"]
    made = artefact.verify(store, version, sha256)
    model = serving.load(made)
    pca, limit = Pca.load(made.folder)
    stretch = freeze(bootstrap, topic).newest(max_rows)
    read, truth = dataset.loaded(bootstrap, stretch, freeze(bootstrap, truth_topic), caches, form)
    columns = unseen(read, truth, [made])
    if not len(columns):
        raise NotEnoughData(
            f"no row on {topic} belongs to a car whose truth is on {truth_topic} and that"
            f" {version} did not learn from"
        )
    features, valid = compute(np.asarray(columns.signals, dtype=np.float64))
    plain = np.where(valid & ~columns.suspect, pca.scores(features), np.nan)
    metrics = report(
        model,
        columns,
        truth.fates,
        (plain, limit),
        horizon_ms=1000 * made.manifest["horizon_s"] / made.manifest["acceleration"],
        acceleration=made.manifest["acceleration"],
    )
    return {"version": version, "topic": topic, "metrics": metrics}


def unseen(read: Columns, truth: Truth, models: Sequence[artefact.Artefact]) -> Columns:
    """Rows of cars whose fate is known and that none of the models learnt from."""
    learnt = frozenset[str]().union(*map(artefact.learnt, models))
    known = np.array([life in truth.fates and life not in learnt for life in read.lives] or [False])
    return read.only(known[read.life])
