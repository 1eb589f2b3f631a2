"""Transactions of a bounded size: rows, commands and replies as bytes for one connection.

Within one transaction deletions come first (a twin may have been deleted and made again), replies last
(whoever is told finds the rest in place); over several the order is the caller's.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import orjson

from twin.lifecycle import FINAL
from twin.native.index import before
from twin.packed import Row
from twin.view import scripts
from twin.view.resp import mset, packed, scored, zadd
from twin.view.rows import INDEX, beginning, ending
from twin.wire import keys
from twin.wire.catalogue import INDEXED
from twin.wire.ids import vehicle_of
from twin.wire.records import Command, Reply

FINAL_TTL_S: Final = 30 * 86_400
LONG: Final = 200
"""A vehicle with more commands listed is looked at for some that have ended by themselves."""
LOOKED_AT: Final = 60
"""The oldest so many of them: more than may be open, so that there is always one to go."""
_WORK: Final = 3000
"""About how many microseconds of Redis one transaction may take: meanwhile nobody else is served."""
_BYTES: Final = 1024 * 1024
_PLAIN, _FULL, _DROP, _COMMAND, _REPLY = 20, 40, 40, 20, 4
"""Microseconds of Redis for each."""
_PUT: Final = scripts.sha(scripts.PUT)
_TRIM: Final = scripts.sha(scripts.TRIM)
_DROP_SHA: Final = scripts.sha(scripts.DROP)
_ORDERS: Final = tuple(keys.by(name) for name in (*INDEXED, keys.LAST_SEEN))

Transaction = tuple[list[bytes], int]
"""Packed commands in pieces, so that documents are copied once, and how many commands they are."""


class Packing:
    """Collects writes and hands them out as transactions."""

    def __init__(self) -> None:
        self._done: list[Transaction] = []
        self._begin()

    def _begin(self) -> None:
        self._work = self._bytes = 0
        self._drops: list[str | int] = []
        self._puts: list[str | int | bytes | float] = []
        self._pairs: list[bytes] = []
        self._moves: list[list[str]] = [[] for _ in _ORDERS]
        self._listed: dict[str, None] = {}
        self._others: list[bytes] = []

    def plain(
        self, vehicle_id: str, row: Row, end: bytes, moved: Sequence[tuple[int, float]]
    ) -> None:
        """A twin of which only numbers have changed: its head ends with `end`, those `moved` are told."""
        text = row.text
        size = len(text)
        self._pairs += (before(b"twin:%b" % vehicle_id.encode(), row, end), text)
        if moved:
            scores = scored(vehicle_id, [score for _, score in moved])
            for (place, _), pair in zip(moved, scores, strict=True):
                self._moves[place].append(pair)
        self._count(_PLAIN, size)

    def full(self, vehicle_id: str, row: Row) -> None:
        """A twin with everything that the index has of it."""
        self._puts += put_arguments(vehicle_id, row)
        self._count(_FULL, len(row.document))

    def drop(self, vehicle_id: str) -> None:
        """A deleted twin, its commands with it."""
        self._drops += (vehicle_id, 0, 0, 0)
        self._count(_DROP, 0)

    def command(self, command: Command) -> None:
        """A ledger entry."""
        command_id, vehicle_id = command["id"], command["vehicle_id"]
        entry = orjson.dumps(command)
        life = ("EX", FINAL_TTL_S) if command["state"] in FINAL else ()
        of, recent = keys.commands(vehicle_id), keys.RECENT_COMMANDS
        self._others += (
            packed("SET", keys.command(command_id), entry, *life),
            packed("ZADD", of, command["issued_at"], command_id),
            packed("ZADD", recent, command["updated_at"], command_id),
            packed("ZREMRANGEBYRANK", recent, 0, -keys.RECENT - 1),
        )
        self._listed[vehicle_id] = None
        self._count(_COMMAND, len(entry))

    def remove(self, command_id: str) -> None:
        """A ledger entry that is gone."""
        self._others += (
            packed("DEL", keys.command(command_id)),
            packed("ZREM", keys.commands(vehicle_of(command_id)), command_id),
            packed("ZREM", keys.RECENT_COMMANDS, command_id),
        )
        self._count(_COMMAND, 0)

    def reply(self, reply: Reply) -> None:
        """The owner's answer, and a hint that it is there."""
        answer = orjson.dumps(reply)
        request_id = reply["request_id"]
        # A later refusal under the same id must not hide what was done: a DELETE that was repeated.
        only_first = ("NX",) if reply["status"] >= 400 else ()
        self._others += (
            packed("SET", keys.reply(request_id), answer, "EX", keys.REPLY_TTL_S, *only_first),
            packed("PUBLISH", keys.REPLIES, request_id),
        )
        self._count(_REPLY, len(answer))

    def transactions(self) -> Iterator[Transaction]:
        """All that was collected, in order."""
        self._end()
        yield from self._done

    def _count(self, work: int, size: int) -> None:
        self._work += work
        self._bytes += size
        if self._work >= _WORK or self._bytes >= _BYTES:
            self._end()

    def _end(self) -> None:
        pieces: list[bytes] = []
        count = len(self._others)
        if self._drops:
            pieces.append(packed("EVALSHA", _DROP_SHA, 0, "0", *self._drops))
            count += 1
        if self._puts:
            pieces.append(packed("EVALSHA", _PUT, 0, "0", *self._puts))
            count += 1
        if self._pairs:
            pieces += mset(self._pairs)
            count += 1
        for key, moves in zip(_ORDERS, self._moves, strict=True):
            if moves:
                pieces.append(zadd(key, moves))
                count += 1
        if self._listed:
            self._others.append(packed("EVALSHA", _TRIM, 0, LONG, LOOKED_AT, *self._listed))
            count += 1
        if count:
            self._done.append((pieces + self._others, count))
        self._begin()


def put_arguments(vehicle_id: str, row: Row) -> list[str | int | bytes | float]:
    """What `scripts.PUT` wants to know of a twin."""
    standing = row.standing
    value = beginning(row.version) + ending(standing) + row.text
    numbers = ("" if number is None else repr(number) for number in INDEX.numbers(row))
    return [vehicle_id, *row.version, value, *standing, *numbers]
