"""A simulated past to learn from: the same cars and physics, faults at random times.

The rows are a pure function of the arguments, one block per interval, so a caller can count them
beforehand, stream them and throw them away.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from models.simulator.arrays import Mask
from models.simulator.cars import ACCELERATION, Cars, Rows
from models.simulator.faults import DAY_S, ENGINE_MODES, Mode, Truth, draw_faults
from models.simulator.ranges import TRAIN, Ranges

FAILURE_SHARE = 0.4
DROPOUT = 0.002
"""Share of single values that do not arrive: of 19 signals that features need, 1 row in 27 lacks one."""


@dataclass(frozen=True, slots=True)
class Block:
    """One row per car at `event_time` (ms since 1970), and what became true since the last block.

    `reporting` (n,): the cars that send their row; the others are parked. The last block tells the
    truth about every car once more.
    """

    event_time: int
    rows: Rows
    truth: list[Truth]
    reporting: Mask


def history_steps(
    days: float, *, interval_s: float = 1.0, acceleration: float = ACCELERATION
) -> int:
    """Blocks in a history of `days` component days; times vehicles = rows. Raises ValueError."""
    if not (days > 0 and interval_s > 0 and acceleration > 0):
        raise ValueError(
            f"{days} days, interval {interval_s} s, acceleration {acceleration};"
            " above 0 is accepted"
        )
    return max(1, round(days * DAY_S / acceleration / interval_s))


def history(
    vehicles: int,
    days: float,
    *,
    seed: int,
    start_ms: int,
    interval_s: float = 1.0,
    acceleration: float = ACCELERATION,
    failure_share: float = FAILURE_SHARE,
    ranges: Ranges = TRAIN,
    severity: float | None = None,
    modes: Sequence[Mode] = ENGINE_MODES,
    parking: bool = False,
    dropout: float = DROPOUT,
) -> Iterator[Block]:
    """`history_steps` blocks of `vehicles` rows, the first one interval after `start_ms`.

    `failure_share` of the vehicles begin to degrade at a random time; most fail before the end, the
    rest later (their last truth says when, were they driven on). `ranges`: what the cars
    are drawn from, with one `severity` for all instead, if given; `parking` and `dropout` as in `Cars`.
    Raises ValueError.
    """
    steps = history_steps(days, interval_s=interval_s, acceleration=acceleration)
    span_s = steps * interval_s
    faults = draw_faults(
        vehicles,
        share=failure_share,
        onset_s=(0.05 * span_s, 0.9 * span_s),
        seed=seed,
        days=ranges.days,
        severity=ranges.severity if severity is None else (severity, severity),
        modes=modes,
    )
    cars = Cars(
        vehicles,
        seed=seed,
        interval_s=interval_s,
        acceleration=acceleration,
        faults=faults,
        ranges=ranges,
        parking=parking,
        dropout=dropout,
    )
    for step in range(1, steps + 1):
        rows = cars.step()
        truth = cars.truth() if step == steps else cars.changes()
        yield Block(start_ms + round(cars.elapsed_s * 1000), rows, truth, cars.reporting)
