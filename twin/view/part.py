"""What the view knows of one partition: what its owner holds, what Redis has of it, what is to be shown.

`last` says what was written of a twin last. If it says nothing, or anything but the numbers is another
by now, the twin is written in full. A number is written to its order only when it has moved by more than
its lag (`keys.LAG`); about 400 bytes a twin for four times less work in Redis.
"""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from twin.packed import Packed, Row, Standing, Version
from twin.view.packing import Packing
from twin.view.rows import ending, numbers_of
from twin.wire import keys
from twin.wire.catalogue import INDEXED
from twin.wire.records import Command

_LAGS: Final = tuple(enumerate(keys.LAG[name] for name in (*INDEXED, keys.LAST_SEEN)))
_NOWHERE: Final = float("inf")
"""Farther from every number than any lag."""


@dataclass(slots=True)
class Last:
    """How a twin was written last; `numbers` as they are in the orders."""

    version: Version
    standing: Standing
    ending: bytes
    numbers: "array[float]"


@dataclass(slots=True)
class Part:
    """A claimed partition. `twins` (by vehicle id) and `commands` (by `vehicle/command id`) are live."""

    epoch: int
    twins: Mapping[str, Packed]
    commands: Mapping[str, Command]
    last: dict[str, Last] = field(default_factory=dict)
    pending: dict[str, None] = field(default_factory=dict)
    """Twins not looked at since the partition was claimed or Redis lost it, in order."""
    pending_commands: list[str] = field(default_factory=list)
    swept: bool = False
    """Whether what is not in it any more is gone from Redis."""

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Nothing is known of what Redis has."""
        self.last.clear()
        self.pending = dict.fromkeys(self.twins)
        self.pending_commands = list(self.commands)
        self.swept = False

    def pack(self, packing: Packing, vehicle_id: str, row: Row) -> None:
        """Write a twin, unless a newer state of it is shown already."""
        last = self.last.get(vehicle_id)
        if last is None:
            end = _ending(row.standing)
            self.last[vehicle_id] = Last(row.version, row.standing, end, _scores(row))
            packing.full(vehicle_id, row)
        elif row.version < last.version:
            return
        elif row.standing != last.standing:
            last.version = row.version
            last.standing, last.ending = row.standing, _ending(row.standing)
            last.numbers = _scores(row)
            packing.full(vehicle_id, row)
        else:
            last.version = row.version
            numbers, scores = numbers_of(row), last.numbers
            moved: list[tuple[int, float]] = []
            for place, lag in _LAGS:
                number = numbers[place]
                if number is not None and not -lag <= number - scores[place] <= lag:
                    scores[place] = number
                    moved.append((place, number))
            packing.plain(vehicle_id, row, last.ending, moved)

    def drop(self, packing: Packing, vehicle_id: str) -> None:
        """Take a twin and its commands away."""
        self.last.pop(vehicle_id, None)
        self.pending.pop(vehicle_id, None)
        packing.drop(vehicle_id)


def _scores(row: Row) -> "array[float]":
    return array("d", (_NOWHERE if number is None else number for number in numbers_of(row)))


@lru_cache(maxsize=4096)
def _ending(standing: Standing) -> bytes:
    """One object for the many twins that stand alike."""
    return ending(standing)
