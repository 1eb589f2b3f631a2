"""`python -m models compare`: champion and challenger on the same stretch of the log, offline.

Both take the scorer's own path over the same rows of cars that neither learnt from, one after the
other; then `paired` judges. Their cost is the CPU of that path, features and windows included.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np

from models import artefact, dataset, progress, registry, serving
from models.cache import Columns
from models.errors import NoSuchModel, NotEnoughData
from models.evaluate import lives_of, trace
from models.evaluation import unseen
from models.labels import Truth
from models.log import freeze
from models.paired import Levels, difference, levels, verdict
from models.scoring import Model, Role
from models.store import Location


def compare(
    bootstrap: str,
    store: Location,
    versions: dict[Role, str | None],
    *,
    topic: str,
    truth_topic: str,
    max_rows: int,
    caches: Path,
    budget: float,
    seed: int,
    form: progress.Form,
) -> dict[str, Any]:
    """Figures of both and the verdict; a version that is None is the one with that role.

    `budget`: share of healthy cars that may alarm. Raises a `CartwinError`.
    """
    made = {
        role: artefact.verify(store, *_named(bootstrap, role, version))
        for role, version in versions.items()
    }
    models = {role: serving.load(one) for role, one in made.items()}
    stretch = freeze(bootstrap, topic).newest(max_rows)
    read, truth = dataset.loaded(bootstrap, stretch, freeze(bootstrap, truth_topic), caches, form)
    columns = unseen(read, truth, list(made.values()))
    with progress.steps("scoring by both models", 2, form) as advance:
        found = {}
        for role, model in models.items():
            found[role] = judged(model, columns, truth)
            advance(1, role)
    some = found["champion"]
    if not (some.healthy.size and some.failing.size):
        raise NotEnoughData(
            f"{some.healthy.size} healthy and {some.failing.size} failed cars with known truth, which"
            f" neither model learnt from, are on {topic}; at least one of each is needed"
        )
    result = difference(found["champion"], found["challenger"], budget, seed=seed)
    return {
        "champion": models["champion"].version,
        "challenger": models["challenger"].version,
        "topic": topic,
        "rows": len(columns),
        "verdict": verdict(result),
        **result,
    }


def judged(model: Model, columns: Columns, truth: Truth) -> Levels:
    """One model over the rows in order of arrival."""
    began = time.process_time()
    traced = trace(model, columns)
    spent = time.process_time() - began
    danger = np.fmax(
        traced.score / model.autoencoder.threshold, traced.probability / model.lstm.threshold
    )
    return levels(
        lives_of(columns, truth.fates),
        danger,
        traced.alarm,
        model.autoencoder.debounce,
        1e6 * spent / max(len(columns), 1),
    )


def _named(bootstrap: str, role: Role, version: str | None) -> tuple[str, str | None]:
    if version is not None:
        return version, None
    record = registry.roles(bootstrap).get(role)
    if record is None:
        raise NoSuchModel(f"there is no {role}; name a version with --{role}")
    return record["version"], record["sha256"]
