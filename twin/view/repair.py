"""Writes to the view by somebody who is not the owner: `rebuild-view`, while owners go on writing.

Every write is careful: a script compares versions with what is in Redis and never puts an older
document over a newer one, nor removes one that is newer than the one meant. Of a newer document it
still sees to it that it is in the index. A call is a few milliseconds of Redis.
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
from twin.view.packing import COMMANDS_KEPT, FINAL_TTL_S, put_arguments
from twin.view.rows import Row
from twin.wire import keys
from twin.wire.errors import CartwinError
from twin.wire.ids import vehicle_of
from twin.wire.records import Command

CHUNK: Final = 50
"""Most twins or commands of one write."""
_PAGE: Final = 1000
_CAREFULLY: Final = "1"
_HEAD: Final = keys.HEAD_BYTES - 1

Item = TypeVar("Item")


class RedisUnavailable(CartwinError):
    """Redis does not answer; what was written stays."""


class Repair:
    """Careful writes, and reads of what there is. Raises `RedisUnavailable`."""

    def __init__(self, url: str) -> None:
        self._redis: Redis = Redis.from_url(url, socket_timeout=10, socket_connect_timeout=5)
        script = self._redis.register_script
        self._put, self._drop = script(scripts.PUT), script(scripts.DROP)
        self._command = script(scripts.COMMAND)
        self._tidy, self._orphans = script(scripts.TIDY), script(scripts.ORPHANS)

    async def put(self, rows: Mapping[str, Row]) -> int:
        """Show twins; returns of how many Redis had nothing newer."""
        arguments = [a for vehicle_id, row in rows.items() for a in put_arguments(vehicle_id, row)]
        return int(await _ask(self._put(args=[_CAREFULLY, *arguments])))

    async def drop(self, versions: Mapping[str, Version]) -> int:
        """Remove twins, except those that are newer than this by now; returns how many it removed."""
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
            await self._command(args=[*about, life, COMMANDS_KEPT], client=pipe)
            pipe.zadd(keys.RECENT_COMMANDS, {command["id"]: command["updated_at"]}, gt=True)
        pipe.zremrangebyrank(keys.RECENT_COMMANDS, 0, -keys.RECENT - 1)
        return sum((await _ask(pipe.execute()))[:-1:2])

    async def remove(self, command_ids: Collection[str]) -> None:
        """Remove ledger entries."""
        pipe = self._redis.pipeline(transaction=False)
        for command_id in command_ids:
            pipe.delete(keys.command(command_id))
            pipe.zrem(keys.commands(vehicle_of(command_id)), command_id)
            pipe.zrem(keys.RECENT_COMMANDS, command_id)
        await _ask(pipe.execute())

    async def ids(self) -> AsyncIterator[list[str]]:
        """All vehicle ids, in pages."""
        edge = "-"
        while True:
            page = await _ask(self._redis.zrangebylex(keys.IDS, edge, "+", start=0, num=_PAGE))
            yield [raw.decode() for raw in page]
            if len(page) < _PAGE:
                return
            edge = "(" + page[-1].decode()

    async def versions(self, ids: Sequence[str]) -> list[Version]:
        """Of each the version that is shown; of one that is not there the oldest."""
        pipe = self._redis.pipeline(transaction=False)
        for vehicle_id in ids:
            pipe.getrange(keys.twin(vehicle_id), 0, _HEAD)
        heads = await _ask(pipe.execute())
        return [keys.version_of(head) if head else (0, 0, 0) for head in heads]

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
            async for pairs in self._members(self._redis.zscan, key):
                members = [member for member, _ in pairs]
                gone += await _ask(self._orphans(args=[key, *members]))
        return gone

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def _values(self, field: str) -> set[str]:
        listed = [keys.values(field), keys.count(field)]
        found = [await _ask(self._redis.zrange(key, 0, -1)) for key in listed]
        return {raw.decode() for values in found for raw in values}

    async def _keys(self, pattern: str) -> AsyncIterator[list[str]]:
        cursor = -1
        while cursor:
            found = self._redis.scan(max(cursor, 0), match=pattern, count=_PAGE)
            cursor, page = await _ask(found)
            yield [raw.decode() for raw in page]

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


async def _ask(answer: Awaitable[Any]) -> Any:
    try:
        return await answer
    except (RedisError, OSError) as error:
        raise RedisUnavailable(f"Redis does not answer: {error}") from error
