"""What the view knows of one partition: what its owner holds, what Redis has of it, what is to be shown.

`last` says what was written of a twin last. If it says nothing, or anything but the numbers is another
by now, the twin is written in full. A number is written to its order only when it has moved by more than
its lag (`keys.LAG`); about 400 bytes a twin for four times less work in Redis.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from twin.native.index import Last
from twin.packed import Packed, Row, Standing
from twin.view.packing import Packing
from twin.view.rows import INDEX, ending
from twin.wire.records import Command


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
        if last is not None and last.newer_than(row):
            return
        if last is None or row.standing != last.standing:
            self.last[vehicle_id] = INDEX.last(row, _ending(row.standing))
            packing.full(vehicle_id, row)
        else:
            packing.plain(vehicle_id, row, last.ending, INDEX.moved(row, last))

    def drop(self, packing: Packing, vehicle_id: str) -> None:
        """Take a twin and its commands away."""
        self.last.pop(vehicle_id, None)
        self.pending.pop(vehicle_id, None)
        packing.drop(vehicle_id)


@lru_cache(maxsize=4096)
def _ending(standing: Standing) -> bytes:
    """One object for the many twins that stand alike."""
    return ending(standing)
