"""The API's only speaker of Redis: reads what the worker's view wrote (keys: `twin.wire.keys`).

Documents stay bytes here: a twin that is asked for whole goes out as it was stored. Redis may be
away; then every read raises `StoreUnavailable` soon, and the next one tries again. Needs Redis 6.2.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Final, NamedTuple, cast

import orjson
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import RedisError

from twin.api.selectors import Having, Selector
from twin.wire import keys
from twin.wire.errors import CartwinError
from twin.wire.records import Reply

_CONNECTIONS: Final = 64

# KEYS: sorted set. ARGV: low, high, score and id to go on behind ("" = none), "+" or "-", count.
# Of equal scores the ids are in the order of their bytes; Lua's own < would go by the locale.
_RANKED: Final = """
local key, score, id, count = KEYS[1], ARGV[3], ARGV[4], tonumber(ARGV[6])
local function below(text) return redis.call('ZCOUNT', key, '-inf', text) end
local function before(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end
local first, last = below('(' .. ARGV[1]), below(ARGV[2])
if score ~= '' then
  local low, high = below('(' .. score), below(score)
  while low < high do
    local middle = math.floor((low + high) / 2)
    local there = redis.call('ZRANGE', key, middle, middle)[1]
    if before(there, id) or (ARGV[5] == '+' and there == id) then low = middle + 1
    else high = middle end
  end
  if ARGV[5] == '+' then first = math.max(first, low) else last = math.min(last, low) end
end
if ARGV[5] == '+' then
  last = math.min(last, first + count)
  if first >= last then return {} end
  return redis.call('ZRANGE', key, first, last - 1, 'WITHSCORES')
end
first = math.max(first, last - count)
if first >= last then return {} end
local size = redis.call('ZCARD', key)
return redis.call('ZREVRANGE', key, size - last, size - first - 1, 'WITHSCORES')
"""
# KEYS: sorted sets. ARGV: percents. Of each: size, then the scores at those ranks.
_PERCENTILES: Final = """
local answer = {}
for i, key in ipairs(KEYS) do
  local size = redis.call('ZCARD', key)
  local found = {size}
  if size > 0 then
    for _, percent in ipairs(ARGV) do
      local rank = math.max(math.ceil(tonumber(percent) * size / 100), 1) - 1
      found[#found + 1] = redis.call('ZRANGE', key, rank, rank, 'WITHSCORES')[2]
    end
  end
  answer[i] = found
end
return answer
"""


class StoreUnavailable(CartwinError):
    """Redis does not answer."""


class Document(NamedTuple):
    """A twin as stored: its revision and the JSON text."""

    revision: int
    body: bytes


class Ranked(NamedTuple):
    """Where a twin stands in the order of a number."""

    score: float
    vehicle_id: str


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
        self._ranked = self._redis.register_script(_RANKED)
        self._percentiles = self._redis.register_script(_PERCENTILES)

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()

    async def ping(self) -> None:
        """Raises `StoreUnavailable` when Redis does not answer."""
        await _ask(self._redis.ping())

    # --- twins ---------------------------------------------------------------------------------

    async def twin(self, vehicle_id: str) -> Document | None:
        """The stored twin, or None."""
        value = await _ask(self._redis.get(keys.twin(vehicle_id)))
        if value is None:
            return None
        return Document(keys.version_of(value)[2], keys.document_of(value))

    async def revision(self, vehicle_id: str) -> int | None:
        """The revision of the stored twin, or None."""
        head = await _ask(self._redis.getrange(keys.twin(vehicle_id), 0, keys.HEAD_BYTES - 1))
        return keys.version_of(head)[2] if head else None

    async def documents(self, ids: Sequence[str]) -> list[bytes | None]:
        """The documents of `ids`, in order; None where one is gone meanwhile."""
        found = await _ask(self._redis.mget(map(keys.twin, ids))) if ids else []
        return [None if value is None else keys.document_of(value) for value in found]

    # --- the index -----------------------------------------------------------------------------

    async def total(self) -> int:
        """How many twins there are."""
        return int(await _ask(self._redis.zcard(keys.IDS)))

    async def ids(self, after: str | None, count: int, *, descending: bool) -> list[str]:
        """Up to `count` vehicle ids behind `after`, in lexical order or against it."""
        edge = f"({after}" if after is not None else "+" if descending else "-"
        if descending:
            found = self._redis.zrevrangebylex(keys.IDS, edge, "-", start=0, num=count)
        else:
            found = self._redis.zrangebylex(keys.IDS, edge, "+", start=0, num=count)
        return [raw.decode() for raw in await _ask(found)]

    async def sizes(self, selectors: Sequence[Selector]) -> list[int]:
        """How many twins each of them names."""
        pipe = self._redis.pipeline(transaction=False)
        for selector in selectors:
            if isinstance(selector, Having):
                pipe.scard(keys.having(*selector))
            else:
                pipe.zcount(keys.by(selector.field), selector.low, selector.high)
        return list(await _ask(pipe.execute())) if selectors else []

    async def members(self, selector: Selector) -> list[str]:
        """The ids that it names, in no order; ask for its size before."""
        if isinstance(selector, Having):
            found = await _ask(self._redis.smembers(keys.having(*selector)))
        else:
            key = keys.by(selector.field)
            found = await _ask(self._redis.zrangebyscore(key, selector.low, selector.high))
        return [raw.decode() for raw in found]

    async def among(self, selectors: Sequence[Selector], ids: Sequence[str]) -> list[str]:
        """Those of `ids`, in order, that every selector names."""
        if not selectors or not ids:
            return list(ids)
        pipe = self._redis.pipeline(transaction=False)
        for selector in selectors:
            if isinstance(selector, Having):
                pipe.execute_command("SMISMEMBER", keys.having(*selector), *ids)
            else:
                pipe.zmscore(keys.by(selector.field), list(ids))
        kept = list(ids)
        found = await _ask(pipe.execute())
        for selector, answers in zip(selectors, found, strict=True):
            fits = dict(zip(ids, (selector.fits(answer) for answer in answers), strict=True))
            kept = [vehicle_id for vehicle_id in kept if fits[vehicle_id]]
        return kept

    async def ranked(
        self,
        field: str,
        low: float,
        high: float,
        after: Ranked | None,
        count: int,
        *,
        descending: bool,
    ) -> list[Ranked]:
        """Up to `count` twins behind `after` by (score, id), scores from `low` to `high`."""
        place = ("", "") if after is None else (repr(after.score), after.vehicle_id)
        way = "-" if descending else "+"
        found = await _ask(
            self._ranked(keys=[keys.by(field)], args=[repr(low), repr(high), *place, way, count])
        )
        return [
            Ranked(float(score), raw.decode())
            for raw, score in zip(found[::2], found[1::2], strict=True)
        ]

    async def scores(self, field: str, ids: Sequence[str]) -> list[float | None]:
        """The numbers of `ids`, in order, as the index has them."""
        return list(await _ask(self._redis.zmscore(keys.by(field), list(ids)))) if ids else []

    async def texts(self, field: str, ids: Sequence[str]) -> list[str | None]:
        """The texts of `ids`, in order; None where a twin is gone meanwhile."""
        found = await _ask(self._redis.mget(map(keys.twin, ids))) if ids else []
        place = keys.Head._fields.index(field)
        return [None if value is None else str(keys.head_of(value)[place]) for value in found]

    async def values(self, field: str) -> list[str]:
        """The values of a text field that occur, in lexical order."""
        found = await _ask(self._redis.zrange(keys.values(field), 0, -1))
        return [raw.decode() for raw in found]

    # --- the fleet -----------------------------------------------------------------------------

    async def counts(self, most: int) -> tuple[int, dict[str, dict[str, int]]]:
        """Number of twins, and twins by value of each counted field (the `most` frequent values).

        Of values that are equally frequent the last by their bytes. One consistent moment.
        """
        pipe = self._redis.pipeline(transaction=True)
        pipe.zcard(keys.IDS)
        for field in keys.COUNTED:
            pipe.zrevrange(keys.count(field), 0, most - 1, withscores=True)
        total, *found = await _ask(pipe.execute())
        return total, {
            field: {value.decode(): int(count) for value, count in sorted(pairs)}
            for field, pairs in zip(keys.COUNTED, found, strict=True)
        }

    async def percentiles(
        self, fields: Sequence[str], percents: Sequence[int]
    ) -> dict[str, tuple[int, list[float]]]:
        """Of each field how many twins have it, and its percentiles (none when no twin has it).

        The percentile is the smallest number that at least so many percent do not exceed.
        """
        found = await _ask(self._percentiles(keys=[keys.by(f) for f in fields], args=percents))
        return {
            field: (count, [float(score) for score in scores])
            for field, (count, *scores) in zip(fields, found, strict=True)
        }

    async def alarms(self, count: int) -> list[tuple[str, int]]:
        """Vehicles in alarm and since when (ms), the newest `count`."""
        found = await _ask(self._redis.zrevrange(keys.ALARMS, 0, count - 1, withscores=True))
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

    async def hints(self) -> AsyncIterator[str | None]:
        """Request ids whose reply was just stored, None when it begins to listen.

        Before a None any may have been missed. Raises `StoreUnavailable`.
        """
        async with self._redis.pubsub() as channel:
            await _ask(channel.subscribe(keys.REPLIES))
            while True:
                message = await _ask(channel.get_message(timeout=1.0))
                if message is not None:
                    yield message["data"].decode() if message["type"] == "message" else None


async def _ask(answer: Any) -> Any:
    try:
        return await answer
    except (RedisError, OSError) as error:
        raise StoreUnavailable(f"Redis does not answer: {error}") from error
