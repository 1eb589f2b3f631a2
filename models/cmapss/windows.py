"""What the networks and the baselines see of an engine: windows of the same 29 inputs.

For each of the 14 sensors that ever move: its value, and how far its running mean lies from where
this engine began, since no two engines are built alike; and, once, the engine's age in cycles.
Chosen on held-out training engines (4 folds, one seed, RMSE in cycles, mean over the folds) with an
LSTM of 32 units: deviations and age 12.1, values and deviations 14.2, all three 9.6 (by boosting:
values alone 13.4, all three 10.3). Then 64 units 8.9, for 30 epochs instead of 20 9.3, on every
second window instead of every third 9.4: differences below half a cycle are noise. Windows of 20, 30
and 50 cycles with 32 units: 9.4, 9.6, 10.0; 30 is what others use.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.cmapss.reader import BadDataSet, Engine

WINDOW: Final = 30
CAP: Final = 125.0
"""Cycles; longer lives are called this long, in training and in what the test is measured by."""

SENSORS: Final = (2, 3, 4, 7, 8, 9, 11, 12, 13, 14, 15, 17, 20, 21)
"""Numbers of the sensors that are not constant in FD001, counted from 1."""

_NEWEST: Final = 0.1  # share of the newest value in the running mean
_BEGIN: Final = 20  # cycles that tell where an engine began
_AGE: Final = 100.0  # cycles that count as one

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of engines, oldest first: `inputs` (n, WINDOW, width), cycles `left` (n,) uncapped,
    `engine` (n,) index into the engines they came from, `age` (n,) share of the engine's windows
    that had passed."""

    inputs: Floats
    left: NDArray[np.float64]
    engine: NDArray[np.int64]
    age: NDArray[np.float64]

    @property
    def capped(self) -> Floats:
        """Cycles left, at most CAP."""
        capped: Floats = np.minimum(self.left, CAP).astype(np.float32)
        return capped

    @property
    def weight(self) -> NDArray[np.float64]:
        """Weights that let every engine count alike; they sum to the number of engines."""
        weight: NDArray[np.float64] = 1 / np.bincount(self.engine)[self.engine]
        return weight

    @property
    def last(self) -> NDArray[np.int64]:
        """Index of each engine's last window."""
        return np.append(np.flatnonzero(np.diff(self.engine)), self.engine.size - 1)


@dataclass(frozen=True, slots=True)
class Fleet:
    """Mean and standard deviation of each sensor over training engines."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    @classmethod
    def fit(cls, engines: Sequence[Engine]) -> "Fleet":
        rows = np.concatenate([_sensors(engine) for engine in engines])
        return cls(rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-9))

    def inputs(self, engine: Engine) -> Floats:
        """(cycles, width); a row knows itself and what came before it, never what came after."""
        rows = (_sensors(engine) - self.mean) / self.std
        cycle = np.arange(1, len(rows) + 1)
        known = np.minimum(cycle, _BEGIN)
        began = np.cumsum(rows, axis=0)[known - 1] / known[:, None]
        age = (cycle - 1) / _AGE - 1
        joined = np.concatenate([rows, running_mean(rows) - began, age[:, None]], axis=1)
        inputs: Floats = joined.astype(np.float32)
        return inputs

    def windows(self, engines: Sequence[Engine], stride: int = 1) -> Windows:
        """Every `stride`-th window of each engine, its last one always. Raises `BadDataSet`."""
        inputs, left, ages, whose = [], [], [], []
        for number, engine in enumerate(engines):
            rows = self.inputs(engine)
            if len(rows) < WINDOW:
                raise BadDataSet(
                    f"engine {engine.unit} has {len(rows)} cycles; at least {WINDOW} are needed"
                )
            ends = np.arange(len(rows) - 1, WINDOW - 2, -stride)[::-1]
            inputs.append(rows[ends[:, None] + np.arange(1 - WINDOW, 1)])
            left.append(engine.life()[ends])
            ages.append((ends - (WINDOW - 1)) / max(1, len(rows) - WINDOW))
            whose.append(np.full(len(ends), number))
        return Windows(*(np.concatenate(parts) for parts in (inputs, left, whose, ages)))


def running_mean(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Exponentially weighted mean of each row (n, width) and those before it; begins unbiased."""
    means = np.empty_like(rows)
    total, weight = np.zeros(rows.shape[1]), 0.0
    for place, row in enumerate(rows):
        total = (1 - _NEWEST) * total + _NEWEST * row
        weight = (1 - _NEWEST) * weight + _NEWEST
        means[place] = total / weight
    return means


def _sensors(engine: Engine) -> NDArray[np.float64]:
    return engine.sensors[:, np.array(SENSORS) - 1]
