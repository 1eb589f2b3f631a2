"""What becomes of rows on their way: some come late, some twice. Seeded and counted.

A late row is overtaken by the next 1 to `LATEST` steps of its fleet; a second copy arrives one step
after the first. Nothing is lost here: `rest` gives what is still on its way.
"""

from collections.abc import Sequence
from typing import Final, Generic, TypeVar

import numpy as np

LATEST: Final = 5
Row = TypeVar("Row")


class Delivery(Generic[Row]):
    """Shares of rows (0 to below 1) that come late, and twice; counters `late`, `repeated`.

    Raises ValueError for a share out of range.
    """

    def __init__(self, *, late: float, repeated: float, seed: int) -> None:
        for name, share in (("late", late), ("repeated", repeated)):
            if not 0 <= share < 1:
                raise ValueError(f"share of {name} rows {share}; from 0 to below 1 is accepted")
        self._shares = (late, repeated)
        self._rng = np.random.default_rng(seed)
        self._held: list[list[Row]] = [[] for _ in range(LATEST + 1)]
        self.late = 0
        self.repeated = 0

    def step(self, rows: Sequence[Row]) -> list[Row]:
        """One step's rows set off: those that arrive now, older ones last."""
        arrives = np.zeros(len(rows), dtype=np.int64)
        chance = self._rng.random((2, len(rows)))
        late = chance[0] < self._shares[0]
        arrives[late] = self._rng.integers(1, LATEST + 1, int(late.sum()))
        repeated = chance[1] < self._shares[1]
        self.late += int(late.sum())
        self.repeated += int(repeated.sum())
        old = self._held.pop(0)
        self._held.append([])
        now = []
        for row, steps, twice in zip(rows, arrives.tolist(), repeated.tolist(), strict=True):
            if steps:
                self._held[steps - 1].append(row)
            else:
                now.append(row)
            if twice:
                self._held[steps].append(row)
        return now + old

    def rest(self) -> list[Row]:
        """What is still on its way, in the order of arrival; nothing is afterwards."""
        rows = [row for held in self._held for row in held]
        self._held = [[] for _ in range(LATEST + 1)]
        return rows
