"""What Redis does in one step: scripts for the writes that must look at what is there (Lua 5.1).

Texts and their counts follow from the head of the document in Redis, not from what the writer thinks
was there: however a writer was killed, the next write of a twin sets all of it right. A count is the
size of the set, so it cannot drift from it.
"""

import hashlib
from typing import Final

from twin.wire.catalogue import INDEXED
from twin.wire.keys import COUNTED


def _lua(names: tuple[str, ...]) -> str:
    return "{" + ",".join(f"'{name}'" for name in names) + "}"


_COMMON: Final = (
    f"""
local TEXTS, SIGNALS = {_lua(COUNTED)}, {_lua((*INDEXED, "last_seen"))}
"""
    + """
local call = redis.call
local function head(id)
  local key = 'twin:' .. id
  local value = call('GETRANGE', key, 0, 511)
  if value == '' then return nil end
  local stop = string.find(value, '\\n', 1, true)
  if not stop then
    value = call('GET', key)
    stop = string.find(value, '\\n', 1, true)
  end
  return cjson.decode(string.sub(value, 1, stop - 1))
end
local function newer(a, b)
  for i = 1, 3 do
    if a[i] ~= b[i] then return a[i] > b[i] end
  end
  return false
end
local function count(field, value)
  local n = call('SCARD', 'is:' .. field .. ':' .. value)
  if n > 0 then
    call('ZADD', 'count:' .. field, n, value); call('ZADD', 'values:' .. field, 0, value)
  else
    call('ZREM', 'count:' .. field, value); call('ZREM', 'values:' .. field, value)
  end
end
local function enter(field, value, id)
  if call('SADD', 'is:' .. field .. ':' .. value, id) == 1 then count(field, value) end
end
local function leave(field, value, id)
  if call('SREM', 'is:' .. field .. ':' .. value, id) == 1 then count(field, value) end
end
local function place(key, score, id)
  if score == '' or score == '0' then call('ZREM', key, id) else call('ZADD', key, score, id) end
end
"""
)

PUT: Final = (
    _COMMON
    + """
-- ARGV: '1' = not over a newer document; then per twin: id, epoch, created, revision, value, texts,
-- open commands, alarm since, and signals, each '' where there is none.
-- Answers how many were written.
local careful, at, put = ARGV[1] == '1', 2, 0
local width = 7 + #TEXTS + #SIGNALS
while at <= #ARGV do
  local id = ARGV[at]
  local was = head(id)
  local version = {tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])}
  if careful and was and newer(was, version) then
    for i, field in ipairs(TEXTS) do enter(field, was[3 + i], id) end
  else
    put = put + 1
    call('SET', 'twin:' .. id, ARGV[at + 4])
    for i, field in ipairs(TEXTS) do
      local text = ARGV[at + 4 + i]
      if was and was[3 + i] ~= text then leave(field, was[3 + i], id) end
      enter(field, text, id)
    end
    local next = at + 5 + #TEXTS
    place('by:open_commands', ARGV[next], id)
    place('health:alarm', ARGV[next + 1], id)
    for i, field in ipairs(SIGNALS) do
      local score = ARGV[next + 1 + i]
      if score == '' then call('ZREM', 'by:' .. field, id)
      else call('ZADD', 'by:' .. field, score, id) end
    end
  end
  call('ZADD', 'ids', 0, id)
  at = at + width
end
return put
"""
)

DROP: Final = (
    _COMMON
    + """
-- ARGV: '1' = not when it is newer; then per twin: id, epoch, created, revision. With its commands.
-- Answers how many were dropped.
local careful, dropped = ARGV[1] == '1', 0
for at = 2, #ARGV, 4 do
  local id = ARGV[at]
  local was = head(id)
  local version = {tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])}
  if not (careful and was and newer(was, version)) then
    dropped = dropped + 1
    call('DEL', 'twin:' .. id)
    call('ZREM', 'ids', id)
    call('ZREM', 'health:alarm', id)
    call('ZREM', 'by:open_commands', id)
    for _, field in ipairs(SIGNALS) do call('ZREM', 'by:' .. field, id) end
    for i, field in ipairs(TEXTS) do
      if was then leave(field, was[3 + i], id) end
    end
    for _, command in ipairs(call('ZRANGE', 'commands:' .. id, 0, -1)) do
      call('DEL', 'command:' .. command)
      call('ZREM', 'recent_commands', command)
    end
    call('DEL', 'commands:' .. id)
  end
end
return dropped
"""
)

DIFFERS: Final = """
-- ARGV: pairs of vehicle id and the first bytes that its value should have.
-- Answers the ids of those that have others.
local other = {}
for at = 1, #ARGV, 2 do
  local wanted = ARGV[at + 1]
  if redis.call('GETRANGE', 'twin:' .. ARGV[at], 0, #wanted - 1) ~= wanted then
    other[#other + 1] = ARGV[at]
  end
end
return other
"""

TIDY: Final = (
    _COMMON
    + """
-- ARGV: field, value, then ids of its set: those whose twin says otherwise go, and the count is set.
local field, value = ARGV[1], ARGV[2]
local index
for i, name in ipairs(TEXTS) do if name == field then index = 3 + i end end
local gone = 0
for at = 3, #ARGV do
  local is = head(ARGV[at])
  if not is or is[index] ~= value then
    gone = gone + call('SREM', 'is:' .. field .. ':' .. value, ARGV[at])
  end
end
count(field, value)
return gone
"""
)

ORPHANS: Final = """
-- ARGV: key of a sorted set, then ids in it: those without a twin go.
local gone = 0
for at = 2, #ARGV do
  if redis.call('EXISTS', 'twin:' .. ARGV[at]) == 0 then
    gone = gone + redis.call('ZREM', ARGV[1], ARGV[at])
  end
end
return gone
"""

COMMAND: Final = """
-- ARGV: command id, vehicle id, entry, epoch, revision, updated at, issued at, seconds to live ('' =
-- for ever), how many to keep of a vehicle. Not over a newer entry. Answers 1 when it was written.
local key = 'command:' .. ARGV[1]
local old = redis.call('GET', key)
local is = old and cjson.decode(old) or nil
local put = 1
if is then
  local was = {is.epoch or 0, is.revision or 0, is.updated_at}
  for i = 1, 3 do
    local now = tonumber(ARGV[3 + i])
    if was[i] ~= now then
      if was[i] > now then put = 0 end
      break
    end
  end
end
if put == 1 then
  if ARGV[8] == '' then redis.call('SET', key, ARGV[3])
  else redis.call('SET', key, ARGV[3], 'EX', ARGV[8]) end
end
redis.call('ZADD', 'commands:' .. ARGV[2], ARGV[7], ARGV[1])
redis.call('ZREMRANGEBYRANK', 'commands:' .. ARGV[2], 0, -tonumber(ARGV[9]) - 1)
return put
"""

CLAIM: Final = """
-- ARGV: 'claim' or 'renew', then pairs of partition and epoch. Setting the key, to whatever, ends every
-- transaction that another connection has begun under it.
for at = 2, #ARGV, 2 do
  local key, epoch = 'owner:' .. ARGV[at], tonumber(ARGV[at + 1])
  local is = redis.call('GET', key)
  if (is and tonumber(is) == epoch) or (ARGV[1] == 'claim' and not (is and tonumber(is) > epoch)) then
    redis.call('SET', key, ARGV[at + 1])
  end
end
"""


def sha(script: str) -> str:
    """What EVALSHA calls a script."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
