"""A sensor that says the same again and again while the car moves is broken: nothing is scored from it.

What an accelerometer, a tachometer or an air flow meter says of a moving car is never the same for half a
minute, to the last bit. Of a car that stands it may be, and a thermometer's or a battery's word may be at
any time: these are not asked. The row that ends ROWS equal ones is the first that is not scored. Pure
numpy; what a row gives depends on the rows of its car before it and on nothing else.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.features import INPUTS, WINDOW, Index, rounds

ROWS: Final = WINDOW
LIVELY: Final = (
    "engine_speed",
    "intake_air_flow_speed",
    "engine_vibration_amplitude",
    "accelerometer_1_1_value",
    "accelerometer_1_2_value",
    "accelerometer_2_1_value",
    "accelerometer_2_2_value",
)
_COLUMNS: Final = [INPUTS.index(name) for name in LIVELY]
_SPEED: Final = INPUTS.index("speed")
_MOVES: Final = 0.5  # m/s, from

Mask = NDArray[np.bool_]


class Stuck:
    """How often each lively sensor of the cars in numbered slots has said the same in a row."""

    def __init__(self) -> None:
        self._last = np.zeros((0, len(LIVELY)), np.float64)
        self._same = np.zeros((0, len(LIVELY)), np.int32)

    def push(self, slots: Index, signals: NDArray[np.float64]) -> Mask:
        """Rows (n, INPUTS) in order of arrival, slots not negative: which hold a stuck sensor (n,)."""
        self._room(int(slots.max(initial=-1)) + 1)
        stuck = np.zeros(slots.size, bool)
        values = signals[:, _COLUMNS]
        for rows in rounds(slots):
            at, said = slots[rows], values[rows]
            same = np.where(said == self._last[at], self._same[at] + 1, 1)
            self._last[at], self._same[at] = said, np.minimum(same, 1 << 30)
            stuck[rows] = (same >= ROWS).any(axis=1) & (signals[rows, _SPEED] >= _MOVES)
        return stuck

    def forget(self, slots: Index) -> None:
        """These slots belong to other cars from now on."""
        self._same[slots[slots < len(self._same)]] = 0

    def _room(self, slots: int) -> None:
        missing = slots - len(self._same)
        if missing > 0:
            more = (max(missing, len(self._same)), len(LIVELY))
            self._last = np.concatenate([self._last, np.full(more, np.nan)])
            self._same = np.concatenate([self._same, np.zeros(more, np.int32)])
