"""A log made ready to learn from: valid rows of cars whose fate is known, labelled and dealt."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.cache import Columns
from models.errors import NotEnoughData
from models.features import Features, compute
from models.labels import PARTS, Lives, Mask, Truth, split

MARGIN_MS: Final = 5_000
"""Rows so close before a fault's onset are called neither healthy nor faulty."""


@dataclass(frozen=True, slots=True)
class Data:
    """A log, ready to learn from: all arrays (rows,), features of valid rows of known lives only."""

    columns: Columns
    truth: Truth
    features: Features
    part: NDArray[np.int8]  # index into PARTS
    healthy: Mask
    label: Mask
    lives: Lives
    """Of each row, in horizons."""

    def of(self, part: str) -> Mask:
        """The rows of a part."""
        rows: Mask = self.part == PARTS.index(part)
        return rows


def prepare(columns: Columns, truth: Truth, *, horizon_ms: float, seed: int) -> Data:
    """Keep what can be learnt from; `horizon_ms` is on the clock. Raises `NotEnoughData`."""
    features, valid = compute(np.asarray(columns.signals, dtype=np.float64))
    known = np.array([life in truth.fates for life in columns.lives] or [False])
    kept = valid & ~columns.suspect & known[columns.life]
    if not kept.any():
        raise NotEnoughData(
            f"none of the {len(columns)} rows belongs to a car whose truth is known;"
            " write both with: python -m models simulate"
        )
    columns, features = columns.only(kept), features[kept]
    fates = {life: truth.fates[life] for life in columns.lives if life in truth.fates}
    dealt = split(fates.values(), seed)
    n = len(columns)
    part, healthy, label = np.zeros(n, np.int8), np.zeros(n, bool), np.zeros(n, bool)
    left, censored = np.full(n, np.inf, np.float32), np.ones(n, bool)
    for number, life in enumerate(columns.lives):
        fate = fates.get(life)
        if fate is None:
            continue
        rows = columns.life == number
        times = columns.event_time[rows]
        part[rows] = [fate.vehicle_id in getattr(dealt, name) for name in PARTS].index(True)
        healthy[rows] = fate.healthy(times, MARGIN_MS)
        label[rows] = fate.label(times, horizon_ms)
        left[rows], censored[rows] = fate.left(times, horizon_ms), not fate.failed
    return Data(columns, truth, features, part, healthy, label, Lives(left, censored))
