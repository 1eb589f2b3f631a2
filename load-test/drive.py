"""The physics behind a Locust process: all its cars in one array, stepped on the clock's grid.

One step per interval gives one row per car; a car that publishes in between publishes the latest
row under its own time. Which cars degrade, when and how fast is drawn from the seed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from models.simulator import Cars, Rows, Truth, draw_faults

DECIMALS = 4  # finer than any sensor's resolution; float32 noise behind it is not worth its bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """What the cars of one process do.

    `degraded` is a share of `cars`; its faults begin from `onset_s` seconds after the start, spread
    over `onset_spread_s`, and need `life_days` to `life_days + life_spread_days` component days to
    failure, of which `acceleration` pass in one second of the clock divided by 86,400.
    """

    cars: int
    seed: int
    interval_s: float
    acceleration: float
    degraded: float
    onset_s: float
    onset_spread_s: float
    life_days: float
    life_spread_days: float


class Drive:
    """The cars of one process from `start_ms` on. Raises ValueError for a plan out of range."""

    def __init__(self, plan: Plan, start_ms: int) -> None:
        self.start_ms = start_ms
        faults = draw_faults(
            plan.cars,
            share=plan.degraded,
            onset_s=(plan.onset_s, plan.onset_s + plan.onset_spread_s),
            seed=plan.seed,
            days=(plan.life_days, plan.life_days + plan.life_spread_days),
        )
        self._cars = Cars(
            plan.cars,
            seed=plan.seed,
            interval_s=plan.interval_s,
            acceleration=plan.acceleration,
            faults=faults,
        )
        self._limits = np.ones(plan.cars)
        self._rows = _by_car(self._cars.step())
        self._untold = self._cars.changes()

    @property
    def next_ms(self) -> int:
        """When the next row is due."""
        return self.start_ms + round((self._cars.elapsed_s + self._cars.interval_s) * 1000)

    def advance(self, now_ms: int) -> list[Truth]:
        """Step to `now_ms`; the cars in which a fault began or ended in failure meanwhile."""
        changes, self._untold = self._untold, []
        rows: Rows | None = None
        while self.next_ms <= now_ms:
            rows = self._cars.step(self._limits)
            changes += self._cars.changes()
        if rows is not None:
            self._rows = _by_car(rows)
        return changes

    def row(self, car: int) -> Mapping[str, float]:
        """The latest signals of one car (its index)."""
        return self._rows[car]

    def limit(self, car: int, share: float) -> None:
        """Let one car use this share of its power from the next step on."""
        self._limits[car] = share

    def truth(self) -> list[Truth]:
        """What is so about every car now."""
        return self._cars.truth()


def _by_car(rows: Rows) -> list[dict[str, float]]:
    columns = [
        (values if values.dtype.kind == "i" else np.round(values.astype(float), DECIMALS)).tolist()
        for values in rows.values()
    ]
    return [dict(zip(rows, values, strict=True)) for values in zip(*columns, strict=True)]
