"""Finds what Redis has of some partitions and their owner has not: twins, and commands.

    ids, 1,000 at a time        -> those of the partitions that the owner has no twin of
    lists of commands, by SCAN  -> those of such vehicles, and open ones that are not in the book

Ended commands stay for their 30 days: the owner's book forgets them before. So a fleet may have many
that are not in the book: they are looked at 50 at a time, and other writes get their turn in between.
What is no command of that vehicle is left to `rebuild-view`.
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson

from twin.lifecycle import FINAL
from twin.view import scripts
from twin.view.link import Link
from twin.view.packing import Packing
from twin.view.part import Part
from twin.wire import keys
from twin.wire.errors import Misaddressed
from twin.wire.ids import vehicle_of
from twin.wire.partition import partition_of

_PAGE: Final = 1000
_CHUNK: Final = 50
"""Lists of a step, and entries of one, up to 32 KB each."""
_ENOUGH: Final = 10_000
"""Ids of a step. The list of one vehicle is not parted: 30 days of commands at most."""


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

    edge = b"-"
    while True:
        page = await link.ask("ZRANGEBYLEX", keys.IDS, edge, b"+", "LIMIT", 0, _PAGE)
        unknown = [v for v in map(_text, page) if not any(v in p.twins for p in parts.values())]
        places = {v: place(v) for v in unknown}
        yield Strays(twins={v: p for v, p in places.items() if p is not None})
        if len(page) < _PAGE:
            break
        edge = b"(" + page[-1]
    cursor = b"0"
    while True:
        cursor, found = await link.ask("SCAN", cursor, "MATCH", keys.commands("*"), "COUNT", _PAGE)
        vehicles = [_text(key).partition(":")[2] for key in found]
        ours = [(v, p) for v, p in ((v, place(v)) for v in vehicles) if p is not None]
        yield Strays()
        at = 0
        while at < len(ours):
            asked = [v for v, _ in ours[at : at + _CHUNK]]
            listed = await link.ask("EVAL", scripts.LISTED, 0, _ENOUGH, *asked)
            some = ours[at : at + len(listed)]
            at += len(listed)
            unbooked = {
                f"{v}/{command_id}": p
                for (v, p), ids in zip(some, listed, strict=True)
                for command_id in map(_text, ids)
                if f"{v}/{command_id}" not in parts[p].commands and _is_of(command_id, v)
            }
            yield Strays()
            names = list(unbooked)
            for first in range(0, len(names), _CHUNK):
                chunk = names[first : first + _CHUNK]
                wanted = (keys.command(name.partition("/")[2]) for name in chunk)
                entries = zip(chunk, await link.ask("MGET", *wanted), strict=True)
                yield Strays(
                    commands={
                        name: unbooked[name]
                        for name, entry in entries
                        if name.partition("/")[0] not in parts[unbooked[name]].twins
                        or not _ended(entry)
                    }
                )
        if cursor == b"0":
            break


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")


def _is_of(command_id: str, vehicle_id: str) -> bool:
    try:
        return vehicle_of(command_id) == vehicle_id
    except Misaddressed:
        return False


def _ended(entry: bytes | None) -> bool:
    try:
        return entry is not None and orjson.loads(entry)["state"] in FINAL
    except (ValueError, LookupError, TypeError):
        return False
