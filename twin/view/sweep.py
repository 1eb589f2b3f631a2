"""Finds what Redis has of some partitions and their owner has not: twins, and commands.

    ids, 1,000 at a time        -> those of the partitions that the owner has no twin of
    lists of commands, by SCAN  -> those of such vehicles, and open ones that are not in the book

Ended commands stay for their 30 days: the owner's book forgets them after one.
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson

from twin.lifecycle import FINAL
from twin.view.link import Link
from twin.view.packing import Packing
from twin.view.part import Part
from twin.wire import keys
from twin.wire.partition import partition_of

_PAGE: Final = 1000


@dataclass(slots=True)
class Strays:
    """What seems to be too much; judged once more when it is removed. Partition by vehicle id."""

    twins: dict[str, int] = field(default_factory=dict)
    commands: dict[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.twins or self.commands)

    def pack(self, parts: Mapping[int, Part], packing: Packing) -> None:
        """Remove what the owner still has not."""
        for vehicle_id, partition in self.twins.items():
            if vehicle_id not in parts[partition].twins:
                parts[partition].drop(packing, vehicle_id)
        for key, partition in self.commands.items():
            if key not in parts[partition].commands:
                packing.remove(key.partition("/")[2])


async def steps(
    link: Link, parts: Mapping[int, Part], partitions: int
) -> AsyncGenerator[Strays, None]:
    """Strays of `parts`, found in steps of some milliseconds."""

    def place(vehicle_id: str) -> int | None:
        partition = partition_of(vehicle_id.encode(), partitions)
        return partition if partition in parts else None

    edge = "-"
    while True:
        page = await link.ask("ZRANGEBYLEX", keys.IDS, edge, "+", "LIMIT", 0, _PAGE)
        unknown = [
            v for v in map(bytes.decode, page) if not any(v in p.twins for p in parts.values())
        ]
        places = {v: place(v) for v in unknown}
        yield Strays(twins={v: p for v, p in places.items() if p is not None})
        if len(page) < _PAGE:
            break
        edge = "(" + page[-1].decode()
    cursor = b"0"
    while True:
        cursor, found = await link.ask("SCAN", cursor, "MATCH", keys.commands("*"), "COUNT", _PAGE)
        strays = Strays()
        for key in found:
            vehicle_id = key.decode().partition(":")[2]
            partition = place(vehicle_id)
            if partition is None:
                continue
            for command_id in map(bytes.decode, await link.ask("ZRANGE", key, 0, -1)):
                name = f"{vehicle_id}/{command_id}"
                if name in parts[partition].commands:
                    continue
                entry = await link.ask("GET", keys.command(command_id))
                known = vehicle_id in parts[partition].twins and entry is not None
                if not known or orjson.loads(entry)["state"] not in FINAL:
                    strays.commands[name] = partition
        yield strays
        if cursor == b"0":
            break
