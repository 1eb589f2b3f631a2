"""Writes to the view by somebody who is not the owner: `rebuild-view`, while owners go on writing.

Every write is careful: a script compares with what is in Redis and never puts an older document or entry
over a newer one, nor removes another one than was seen. A call is a few milliseconds of Redis. What is in
Redis and is none of ours, bytes that are no text among it, is as good as absent.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final, TypeVar

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from twin.lifecycle import FINAL
from twin.packed import Version
from twin.view import scripts
from twin.view.packing import FINAL_TTL_S, put_arguments
from twin.view.rows import Row
from twin.wire import keys
from twin.wire.errors import CartwinError
from twin.wire.records import Command

CHUNK: Final = 50
"""Most twins or commands of one write."""
_PAGE: Final = 1000
_CAREFULLY: Final = "1"
_HEAD: Final = keys.HEAD_BYTES - 1
_ABSENT: Final[Version] = (0, 0, 0)
_UNDECODED: Final = "surrogateescape"
"""Names in Redis that are no UTF-8 can be named again."""

Item = TypeVar("Item")


class RedisUnavailable(CartwinError):
    """Redis does not answer; what was written stays."""


class Repair:
    """Careful writes, and reads of what there is. Raises `RedisUnavailable`."""

    def __init__(self, url: str) -> None:
        self._redis: Redis = Redis.from_url(
            url, socket_timeout=10, socket_connect_timeout=5, encoding_errors=_UNDECODED
        )
        script = self._redis.register_script
        self._put, self._drop = script(scripts.PUT), script(scripts.DROP)
        self._command = script(scripts.COMMAND)
        self._digests, self._remove = script(scripts.DIGESTS), script(scripts.REMOVE)
        self._tidy, self._orphans = script(scripts.TIDY), script(scripts.ORPHANS)
        self._unlist = script(scripts.UNLIST)

    async def put(self, rows: Mapping[str, Row]) -> list[str]:
        """Show twins; returns the ids of those of which Redis has a newer state."""
        arguments = [a for vehicle_id, row in rows.items() for a in put_arguments(vehicle_id, row)]
        return [_text(raw) for raw in await _ask(self._put(args=[_CAREFULLY, *arguments]))]

    async def drop(self, versions: Mapping[str, Version]) -> int:
        """Remove twins that are still of these versions; returns how many it removed."""
        arguments = [a for vehicle_id, version in versions.items() for a in (vehicle_id, *version)]
        return int(await _ask(self._drop(args=[_CAREFULLY, *arguments])))

    async def put_commands(self, commands: Collection[Command]) -> int:
        """Show ledger entries; returns of how many Redis had nothing newer."""
        pipe = self._redis.pipeline(transaction=False)
        for command in commands:
            order = (command.get("epoch", 0), command.get("revision", 0), command["updated_at"])
            left = FINAL_TTL_S - (time.time() - command["updated_at"] / 1000)
            life = max(1, int(left)) if command["state"] in FINAL else ""
            entry = orjson.dumps(command)
            about = (command["id"], command["vehicle_id"], entry, *order, command["issued_at"])
            await self._command(args=[*about, life], client=pipe)
            pipe.zadd(keys.RECENT_COMMANDS, {command["id"]: command["updated_at"]}, gt=True)
        pipe.zremrangebyrank(keys.RECENT_COMMANDS, 0, -keys.RECENT - 1)
        return sum((await _ask(pipe.execute()))[:-1:2])

    async def digests(self, command_ids: Sequence[str]) -> list[str]:
        """Of each command what tells its entry from any other."""
        return [raw.decode() for raw in await _ask(self._digests(args=command_ids))]

    async def remove(self, digests: Mapping[str, str]) -> int:
        """Remove ledger entries that are still the same; returns how many it removed."""
        arguments = [argument for pair in digests.items() for argument in pair]
        return int(await _ask(self._remove(args=arguments)))

    async def ids(self) -> AsyncIterator[list[str]]:
        """All vehicle ids that are listed, in pages."""
        edge = b"-"
        while True:
            page = await _ask(self._redis.zrangebylex(keys.IDS, edge, b"+", start=0, num=_PAGE))
            yield [_text(raw) for raw in page]
            if len(page) < _PAGE:
                return
            edge = b"(" + page[-1]

    async def documents(self) -> AsyncIterator[list[str]]:
        """All vehicle ids that have a document, in pages."""
        async for page in self._keys(keys.twin("*")):
            yield [key.partition(":")[2] for key in page]

    async def versions(self, ids: Sequence[str]) -> list[Version]:
        """Of each the version that is shown; of one that is not there the oldest."""
        return [_version(head) for head in await self._beginnings(ids, _HEAD)]

    async def values(self, ids: Sequence[str]) -> list[bytes]:
        """Of each what is shown; nothing of one that is not there."""
        return await self._beginnings(ids, -1)

    async def commands(self) -> AsyncIterator[list[str]]:
        """All command ids, in pages."""
        async for page in self._keys(keys.command("*")):
            yield [key.partition(":")[2] for key in page]

    async def tidy(self) -> int:
        """Take out of the index what the documents do not say, and set the counts; returns how many."""
        sets = {(field, value) for field in keys.COUNTED for value in await self._values(field)}
        async for page in self._keys(keys.having("*", "*")):
            sets |= {(field, value) for _, field, value in (key.split(":", 2) for key in page)}
        gone = 0
        for field, value in sorted(sets):
            key, tidy = keys.having(field, value), self._tidy
            gone += await _ask(tidy(args=[field, value]))
            async for members in self._members(self._redis.sscan, key):
                gone += await _ask(tidy(args=[field, value, *members]))
        for key in (keys.ALARMS, *map(keys.by, keys.NUMBERS)):
            gone += await self._tidy_order(key, keys.twin(""))
        gone += await self._tidy_order(keys.RECENT_COMMANDS, keys.command(""))
        async for page in self._keys(keys.commands("*")):
            for part in chunks([key.partition(":")[2] for key in page]):
                gone += await _ask(self._unlist(args=part))
        return gone

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def _tidy_order(self, key: str, prefix: str) -> int:
        gone = 0
        async for pairs in self._members(self._redis.zscan, key):
            members = [member for member, _ in pairs]
            gone += await _ask(self._orphans(args=[key, prefix, *members]))
        return gone

    async def _beginnings(self, ids: Sequence[str], last: int) -> list[bytes]:
        pipe = self._redis.pipeline(transaction=False)
        for vehicle_id in ids:
            pipe.getrange(keys.twin(vehicle_id), 0, last)
        found = await _ask(pipe.execute(raise_on_error=False))
        return [value if isinstance(value, bytes) else b"" for value in found]

    async def _values(self, field: str) -> set[str]:
        listed = [keys.values(field), keys.count(field)]
        found = [await _ask(self._redis.zrange(key, 0, -1)) for key in listed]
        return {_text(raw) for values in found for raw in values}

    async def _keys(self, pattern: str) -> AsyncIterator[list[str]]:
        cursor = -1
        while cursor:
            found = self._redis.scan(max(cursor, 0), match=pattern, count=_PAGE)
            cursor, page = await _ask(found)
            yield [_text(raw) for raw in page]

    async def _members(
        self, scan: Callable[..., Awaitable[Any]], key: str
    ) -> AsyncIterator[list[Any]]:
        cursor = -1
        while cursor:
            cursor, members = await _ask(scan(key, max(cursor, 0), count=_PAGE // 2))
            if members:
                yield members


def chunks(items: Sequence[Item]) -> list[Sequence[Item]]:
    """Parts of at most CHUNK."""
    return [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]


def _text(raw: bytes) -> str:
    return raw.decode(errors=_UNDECODED)


def _version(value: bytes) -> Version:
    try:
        return keys.version_of(value)
    except ValueError:
        return _ABSENT


async def _ask(answer: Awaitable[Any]) -> Any:
    try:
        return await answer
    except (RedisError, OSError) as error:
        raise RedisUnavailable(f"Redis does not answer: {error}") from error
