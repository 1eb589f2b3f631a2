"""The read model in Redis: what the API and the page see. The only writer, and rebuildable.

One script per twin compares revisions, so a late writer cannot put an older document over a newer
one, and keeps the counts in step with the document in the same atomic step.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson
import redis.asyncio as redis
from redis.exceptions import RedisError

from twin.kit import logs
from twin.lifecycle import FINAL
from twin.wire import keys
from twin.wire.catalogue import INDEXED
from twin.wire.ids import vehicle_of
from twin.wire.records import Command, Reply, Twin

log = logs.get(__name__)

_FINAL_TTL_S: Final = 30 * 86_400
_COMMANDS_KEPT: Final = 200
"""Newest commands listed per vehicle."""

# KEYS: twin hash, ids, alarms, then count hashes in the order of keys.COUNTED.
# ARGV: vehicle id, document or "", revision, index JSON, alarm since (0 = none), created at,
# counted values... A twin that was deleted and made again begins at revision 1: created_at counts first.
_SCRIPT: Final = """
local old = redis.call('HMGET', KEYS[1], 'r', 'x', 'c')
if old[1] and ARGV[2] ~= '' then
  local was, now = tonumber(old[3]), tonumber(ARGV[6])
  if was > now or (was == now and tonumber(old[1]) > tonumber(ARGV[3])) then return 0 end
end
local was = old[2] and cjson.decode(old[2]) or nil
local gone = ARGV[2] == ''
for i = 4, #KEYS do
  local field = string.sub(KEYS[i], 7)
  local before = was and was[field]
  local now = not gone and ARGV[i + 3] or nil
  if before ~= now then
    if before and redis.call('HINCRBY', KEYS[i], before, -1) <= 0 then
      redis.call('HDEL', KEYS[i], before)
    end
    if now then redis.call('HINCRBY', KEYS[i], now, 1) end
  end
end
if gone then
  redis.call('DEL', KEYS[1]); redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('ZREM', KEYS[3], ARGV[1])
  return 1
end
redis.call('HSET', KEYS[1], 'd', ARGV[2], 'r', ARGV[3], 'x', ARGV[4], 'c', ARGV[6])
if not was then redis.call('ZADD', KEYS[2], 0, ARGV[1]) end
if ARGV[5] ~= '0' then redis.call('ZADD', KEYS[3], ARGV[5], ARGV[1])
else redis.call('ZREM', KEYS[3], ARGV[1]) end
return 1
"""


class View:
    """Writes documents, commands and replies; waits while Redis is away, never gives up a write."""

    def __init__(self, url: str) -> None:
        self._redis: redis.Redis = redis.from_url(url, socket_timeout=5, socket_connect_timeout=5)
        self._script = self._redis.register_script(_SCRIPT)
        self.fault: str | None = None
        """Why the view cannot be written right now; None when it can."""

    async def write(
        self,
        twins: Mapping[str, Twin | None],
        commands: Iterable[Command] = (),
        removed: Iterable[str] = (),
        replies: Iterable[Reply] = (),
        deleted: Iterable[str] = (),
    ) -> None:
        """Show a batch, what was `deleted` in it first. Returns when Redis has all of it."""
        delay = 0.05
        while True:
            try:
                await self._write(twins, commands, removed, replies, deleted)
            except (RedisError, OSError) as error:
                if self.fault is None:
                    log.warning("redis does not take writes; waiting", error=str(error))
                self.fault = str(error) or type(error).__name__
                await asyncio.sleep(delay)
                delay = min(delay * 2, 2.0)
            else:
                self.fault = None
                return

    async def _write(
        self,
        twins: Mapping[str, Twin | None],
        commands: Iterable[Command],
        removed: Iterable[str],
        replies: Iterable[Reply],
        deleted: Iterable[str],
    ) -> None:
        pipe = self._redis.pipeline(transaction=False)
        # Deletions first: a twin may have been deleted and made again in the same batch.
        gone = dict.fromkeys(deleted) | {v: None for v, twin in twins.items() if twin is None}
        there = ((v, twin) for v, twin in twins.items() if twin is not None)
        for vehicle_id, twin in (*gone.items(), *there):
            await self._script(
                keys=[
                    keys.twin(vehicle_id),
                    keys.IDS,
                    keys.ALARMS,
                    *(keys.count(field) for field in keys.COUNTED),
                ],
                args=_arguments(vehicle_id, twin),
                client=pipe,
            )
        for command in commands:
            _show_command(pipe, command)
        for command_id in removed:
            vehicle_id = vehicle_of(command_id)
            pipe.delete(keys.command(command_id))
            pipe.zrem(keys.commands(vehicle_id), command_id)
            pipe.zrem(keys.RECENT_COMMANDS, command_id)
        # Replies last: whoever is told finds the rest in place.
        for reply in replies:
            pipe.set(keys.reply(reply["request_id"]), orjson.dumps(reply), ex=keys.REPLY_TTL_S)
            pipe.publish(keys.REPLIES, reply["request_id"])
        if len(pipe):
            await pipe.execute()

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


def index_of(twin: Twin) -> dict[str, Any]:
    """The indexed values of a twin: counted fields as text, signals as numbers."""
    attributes = twin["attributes"]
    index: dict[str, Any] = {
        "presence": twin["presence"]["state"],
        "health": twin["health"]["state"],
        "fleet": attributes.get("fleet", ""),
        "model": attributes.get("model", ""),
        "firmware": attributes.get("firmware", ""),
    }
    reported = twin["reported"]
    for name in INDEXED:
        if name in reported:
            index[name] = reported[name]["v"]
    return index


def _arguments(vehicle_id: str, twin: Twin | None) -> list[str | bytes | int]:
    if twin is None:
        return [vehicle_id, "", 0, "", 0, 0, *("" for _ in keys.COUNTED)]
    index = index_of(twin)
    health = twin["health"]
    return [
        vehicle_id,
        orjson.dumps(twin),
        twin["revision"],
        orjson.dumps(index),
        health["since"] if health["state"] == "alarm" else 0,
        twin["created_at"],
        *(index[field] for field in keys.COUNTED),
    ]


def _show_command(pipe: Any, command: Command) -> None:
    command_id, vehicle_id = command["id"], command["vehicle_id"]
    ttl = _FINAL_TTL_S if command["state"] in FINAL else None
    pipe.set(keys.command(command_id), orjson.dumps(command), ex=ttl)
    pipe.zadd(keys.commands(vehicle_id), {command_id: command["issued_at"]})
    pipe.zremrangebyrank(keys.commands(vehicle_id), 0, -_COMMANDS_KEPT - 1)
    pipe.zadd(keys.RECENT_COMMANDS, {command_id: command["updated_at"]})
    pipe.zremrangebyrank(keys.RECENT_COMMANDS, 0, -keys.RECENT - 1)
