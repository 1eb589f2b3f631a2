"""Faults injected into healthy trips: what a broken sensor or part would have shown. Pure.

A fault changes what the car reports from its first row on and nothing before; the rest of the car
does not react to it, as a wrong sensor would make the control unit do. Begins once the engine is
warm, in the first half of the warm part of the trip, so that as much again remains to find it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.carobd.reader import Signals, column

SHORTEST: Final = 300
"""Rows of a trip that must be warm: a shorter warm part gets no fault."""

_WARM_C: Final = 75.0

Change = Callable[[Signals, NDArray[np.float64]], None]


@dataclass(frozen=True, slots=True)
class Fault:
    """`change(signals, elapsed)` alters the rows after the onset; elapsed is in rows, from 0."""

    name: str
    change: Change
    findable: bool = True


def _stuck(signals: Signals, _elapsed: NDArray[np.float64]) -> None:
    column(signals, "coolant")[:] = 40.0


def _drift(c_per_row: float) -> Change:
    def change(signals: Signals, elapsed: NDArray[np.float64]) -> None:
        # Sensors report whole degrees.
        column(signals, "coolant")[:] += np.floor(c_per_row * elapsed)

    return change


def _lean(signals: Signals, _elapsed: NDArray[np.float64]) -> None:
    # Together half of the 25 % at which control units commonly store a lean-mixture code.
    column(signals, "long_trim")[:] += 8.0
    column(signals, "short_trim")[:] += 4.0


def _alternator(signals: Signals, _elapsed: NDArray[np.float64]) -> None:
    column(signals, "voltage")[:] -= 1.5


def _warmer(signals: Signals, _elapsed: NDArray[np.float64]) -> None:
    column(signals, "coolant")[:] += 15.0


FAULTS: Final = (
    Fault("coolant stuck at 40 C", _stuck),
    Fault("coolant drift 2 C/min", _drift(2 / 60)),
    # The car's clock counts 2.04 rows a second (reader.py): the same drift by that clock.
    Fault("coolant drift 2 C/min, car clock", _drift(2 / 60 / 2.04)),
    Fault("lean trims +8/+4 %", _lean),
    Fault("alternator -1.5 V", _alternator),
    Fault("coolant +15 C", _warmer, findable=False),
)


def onset(signals: Signals, rng: np.random.Generator) -> int | None:
    """A row in the first half of the warm part, drawn; None when that part is too short."""
    warm = np.flatnonzero((column(signals, "coolant") >= _WARM_C) & (column(signals, "rpm") > 0))
    if warm.size < SHORTEST:
        return None
    return int(warm[rng.integers(warm.size // 2)])


def inject(signals: Signals, fault: Fault, at: int) -> Signals:
    """A copy of (n, SIGNALS) with the fault from row `at` on."""
    changed = signals.copy()
    rest = changed[at:]
    fault.change(rest, np.arange(len(rest), dtype=np.float64))
    return changed
