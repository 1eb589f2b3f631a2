"""A simulated past as columns in memory, as the trainer would read it from Kafka, and its truth.

Times are on the clock; `component days` are what components live through meanwhile
(`simulator.wear`): a car that drives for 6 minutes at an acceleration of 1440 wears for 6 days.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from models.cache import Columns
from models.features import INPUTS
from models.labels import Fate, Truth
from models.simulator import Block

_START_MS = 1_700_000_000_000


@dataclass(frozen=True, slots=True)
class Past:
    """Rows in order of arrival (step by step, car by car) and the fate of each car."""

    columns: Columns
    truth: Truth
    component_days: float


def record(
    blocks: Callable[[int], Iterator[Block]], cars: int, steps: int, *, name: str, days: float
) -> Past:
    """Run `blocks(start_ms)` to its end: `steps` blocks of `cars` rows each, `days` of wear."""
    n = steps * cars
    signals = np.empty((n, len(INPUTS)), np.float32)
    event_time = np.empty(n, np.int64)
    ids = [f"{name}-{car:05d}" for car in range(cars)]
    fates: dict[str, Fate] = {}
    for step, block in enumerate(blocks(_START_MS)):
        part = slice(step * cars, (step + 1) * cars)
        event_time[part] = block.event_time
        for column, signal in enumerate(INPUTS):
            signals[part, column] = block.rows[signal]
        for truth in block.truth:
            told = truth.record(ids[truth.vehicle], _START_MS)
            fates[told["vehicle_id"]] = Fate(
                told["vehicle_id"],
                told["mode"],
                told["onset"],
                told["failure_time"],
                told["health"] <= 0,
            )
    columns = Columns(
        ids, np.tile(np.arange(cars), steps), event_time, np.zeros(n, bool), signals, 0
    )
    return Past(columns, Truth(fates), days)
