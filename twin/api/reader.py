"""The API's only speaker of Redis: reads what the worker's view wrote (keys: `twin.wire.keys`).

Documents stay bytes here: a twin that is asked for whole goes out as it was stored. Redis may be
away; then every read raises `StoreUnavailable` soon, and the next one tries again.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Final, NamedTuple, cast

import orjson
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import RedisError

from twin.wire import keys
from twin.wire.errors import CartwinError
from twin.wire.records import Reply

_CONNECTIONS: Final = 64


class StoreUnavailable(CartwinError):
    """Redis does not answer."""


class Document(NamedTuple):
    """A twin as stored: its revision and the JSON text."""

    revision: int
    body: bytes


class Entry(NamedTuple):
    """One vehicle of a scan: id and indexed values (empty when not asked for)."""

    vehicle_id: str
    values: dict[str, Any]


class Reader:
    """Reads of the view; safe for concurrent use within one event loop."""

    def __init__(self, url: str) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=2,
            socket_connect_timeout=1,
            socket_timeout=2,
            retry=Retry(ConstantBackoff(0.05), 1),
        )
        self._redis: Redis = Redis.from_pool(pool)

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()

    async def ping(self) -> None:
        """Raises `StoreUnavailable` when Redis does not answer."""
        await _ask(self._redis.ping())

    # --- twins ---------------------------------------------------------------------------------

    async def twin(self, vehicle_id: str) -> Document | None:
        """The stored twin, or None."""
        found = await _ask(self._redis.hmget(keys.twin(vehicle_id), ["r", "d"]))
        revision, body = found
        return None if body is None or revision is None else Document(int(revision), body)

    async def revision(self, vehicle_id: str) -> int | None:
        """The revision of the stored twin, or None."""
        found = await _ask(self._redis.hget(keys.twin(vehicle_id), "r"))
        return None if found is None else int(found)

    async def documents(self, ids: Sequence[str]) -> list[bytes]:
        """The documents of `ids`, in order, leaving out those that are gone meanwhile."""
        pipe = self._redis.pipeline(transaction=False)
        for vehicle_id in ids:
            pipe.hget(keys.twin(vehicle_id), "d")
        return [body for body in await _ask(pipe.execute()) if body is not None]

    async def ids(self, after: str | None, count: int, *, descending: bool) -> list[str]:
        """Up to `count` vehicle ids behind `after`, in lexical order or against it."""
        edge = f"({after}" if after is not None else "+" if descending else "-"
        if descending:
            found = self._redis.zrevrangebylex(keys.IDS, edge, "-", start=0, num=count)
        else:
            found = self._redis.zrangebylex(keys.IDS, edge, "+", start=0, num=count)
        return [raw.decode() for raw in await _ask(found)]

    async def indexes(self, ids: Sequence[str]) -> list[Entry]:
        """The indexed values of `ids`, in order, leaving out those that are gone meanwhile."""
        pipe = self._redis.pipeline(transaction=False)
        for vehicle_id in ids:
            pipe.hget(keys.twin(vehicle_id), "x")
        found = await _ask(pipe.execute())
        return [
            Entry(vehicle_id, orjson.loads(raw))
            for vehicle_id, raw in zip(ids, found, strict=True)
            if raw is not None
        ]

    async def counts(self) -> tuple[int, dict[str, dict[str, int]]]:
        """Number of twins, and twins by value of each counted field; one consistent moment."""
        pipe = self._redis.pipeline(transaction=True)
        pipe.zcard(keys.IDS)
        for field in keys.COUNTED:
            pipe.hgetall(keys.count(field))
        total, *hashes = await _ask(pipe.execute())
        return total, {
            field: {value.decode(): int(n) for value, n in sorted(found.items()) if int(n) > 0}
            for field, found in zip(keys.COUNTED, hashes, strict=True)
        }

    async def alarms(self, count: int | None = None) -> list[tuple[str, int]]:
        """Vehicles in alarm and since when (ms), the newest first; all or `count` of them."""
        end = -1 if count is None else count - 1
        found = await _ask(self._redis.zrevrange(keys.ALARMS, 0, end, withscores=True))
        return [(raw.decode(), int(since)) for raw, since in found]

    # --- commands ------------------------------------------------------------------------------

    async def command(self, command_id: str) -> bytes | None:
        """One ledger entry as stored, or None."""
        return cast(bytes | None, await _ask(self._redis.get(keys.command(command_id))))

    async def commands_of(
        self, vehicle_id: str, after: str | None, count: int
    ) -> tuple[list[bytes], str | None]:
        """Up to `count` entries of a vehicle, the newest first, and the id to continue behind."""
        key = keys.commands(vehicle_id)
        start = 0
        if after is not None:
            rank = await _ask(self._redis.zrevrank(key, after))
            if rank is None:
                return [], None
            start = rank + 1
        ids = await _ask(self._redis.zrevrange(key, start, start + count))
        entries = await self._entries(ids[:count])
        return entries, ids[count - 1].decode() if len(ids) > count else None

    async def recent_commands(self, count: int) -> list[bytes]:
        """The entries of all vehicles that changed last, the newest first."""
        ids = await _ask(self._redis.zrevrange(keys.RECENT_COMMANDS, 0, count - 1))
        return await self._entries(ids)

    async def _entries(self, ids: Sequence[bytes]) -> list[bytes]:
        if not ids:
            return []
        found = await _ask(self._redis.mget([keys.command(raw.decode()) for raw in ids]))
        return [entry for entry in found if entry is not None]

    # --- replies -------------------------------------------------------------------------------

    async def replies(self, request_ids: Iterable[str]) -> list[Reply]:
        """Those replies that are there."""
        wanted = [keys.reply(request_id) for request_id in request_ids]
        found = await _ask(self._redis.mget(wanted)) if wanted else []
        return [orjson.loads(raw) for raw in found if raw is not None]

    async def hints(self) -> AsyncIterator[str]:
        """Request ids whose reply was just stored; may miss any. Raises `StoreUnavailable`."""
        async with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
            await _ask(channel.subscribe(keys.REPLIES))
            while True:
                message = await _ask(channel.get_message(timeout=1.0))
                if message is not None:
                    yield message["data"].decode()


async def _ask(answer: Any) -> Any:
    try:
        return await answer
    except (RedisError, OSError) as error:
        raise StoreUnavailable(f"Redis does not answer: {error}") from error
