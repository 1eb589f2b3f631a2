"""What Redis does in one step: scripts for the writes that must look at what is there (Lua 5.1).

Texts and their counts follow from the head of the document in Redis, not from what the writer thinks
was there: however a writer was killed, the next write of a twin sets all of it right. A count is the
size of the set, so it cannot drift from it. A value that is none of ours counts as absent.

Of two documents of one version the newer is the one that has applied more records: late telemetry and
whatever else changes nothing that is told moves `applied`, not the revision.
"""

import hashlib
from typing import Final

from twin.wire.catalogue import INDEXED
from twin.wire.keys import COUNTED, LAG, LAST_SEEN

_SIGNALS: Final = (*INDEXED, LAST_SEEN)


def _lua(names: tuple[str, ...]) -> str:
    return "{" + ",".join(f"'{name}'" for name in names) + "}"


_COMMON: Final = (
    f"""
local TEXTS, SIGNALS = {_lua(COUNTED)}, {_lua(_SIGNALS)}
"""
    + """
local call = redis.call
local function head(id)
  local key = 'twin:' .. id
  local value = redis.pcall('GETRANGE', key, 0, 511)
  if type(value) ~= 'string' or value == '' then return nil end
  local stop = string.find(value, '\\n', 1, true)
  if not stop then
    value = call('GET', key)
    stop = string.find(value, '\\n', 1, true)
    if not stop then return nil end
  end
  local read, found = pcall(cjson.decode, string.sub(value, 1, stop - 1))
  if not read or type(found) ~= 'table' then return nil end
  for i = 1, 3 + #TEXTS do
    if type(found[i]) ~= (i <= 3 and 'number' or 'string') then return nil end
  end
  return found
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
    + f"local LAGS = {{{','.join(repr(LAG[name]) for name in _SIGNALS)}}}"
    + """
-- ARGV: '1' = not over a newer document; then per twin: id, epoch, created, revision, value, texts,
-- open commands, alarm since, and signals, each '' where there is none.
-- Answers the ids of those that were not written.
-- A number that is within its lag stays when somebody else than the owner writes: the owner knows it, and
-- moves it when the document's has left that one.
local function near(key, id, score, lag)
  local is = call('ZSCORE', key, id)
  return is and math.abs(tonumber(is) - tonumber(score)) <= lag
end
local function applied(value)
  local stop, sum = string.find(value, '\\n', 1, true), 0
  local found = stop and string.match(value, '"applied":(%b{})', stop)
  local read, positions = pcall(cjson.decode, found)
  if not read then return -1 end
  for _, position in pairs(positions) do
    if type(position) == 'table' then sum = sum + (tonumber(position[2]) or 0) end
  end
  return sum
end
local function newer(id, was, at)
  for i = 1, 3 do
    local version = tonumber(ARGV[at + i])
    if was[i] ~= version then return was[i] > version end
  end
  return applied(call('GET', 'twin:' .. id)) > applied(ARGV[at + 4])
end
local careful, at, left = ARGV[1] == '1', 2, {}
local width = 7 + #TEXTS + #SIGNALS
while at <= #ARGV do
  local id = ARGV[at]
  local was = head(id)
  if careful and was and newer(id, was, at) then
    left[#left + 1] = id
  else
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
      local key, score = 'by:' .. field, ARGV[next + 1 + i]
      if score == '' then call('ZREM', key, id)
      elseif not (careful and near(key, id, score, LAGS[i])) then call('ZADD', key, score, id) end
    end
  end
  call('ZADD', 'ids', 0, id)
  at = at + width
end
return left
"""
)

DROP: Final = (
    _COMMON
    + """
-- ARGV: '1' = not when it is of another version; then per twin: id, epoch, created, revision. With all
-- of its commands: whatever Redis has of them is listed. Answers how many were dropped.
local function same(a, b) return a[1] == b[1] and a[2] == b[2] and a[3] == b[3] end
local careful, dropped = ARGV[1] == '1', 0
for at = 2, #ARGV, 4 do
  local id = ARGV[at]
  local was = head(id)
  local version = {tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])}
  if not (careful and was and not same(was, version)) then
    dropped = dropped + 1
    call('DEL', 'twin:' .. id)
    call('ZREM', 'ids', id)
    call('ZREM', 'health:alarm', id)
    call('ZREM', 'by:open_commands', id)
    for _, field in ipairs(SIGNALS) do call('ZREM', 'by:' .. field, id) end
    for i, field in ipairs(TEXTS) do
      if was then leave(field, was[3 + i], id) end
    end
    local listed = call('ZRANGE', 'commands:' .. id, 0, -1)
    for first = 1, #listed, 1000 do
      local names, last = {}, math.min(first + 999, #listed)
      for i = first, last do names[#names + 1] = 'command:' .. listed[i] end
      call('DEL', unpack(names))
      call('ZREM', 'recent_commands', unpack(listed, first, last))
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
-- ARGV: key of a sorted set, 'twin:' or 'command:', then ids in it: those of which there is none go.
local gone = 0
for at = 3, #ARGV do
  if redis.call('EXISTS', ARGV[2] .. ARGV[at]) == 0 then
    gone = gone + redis.call('ZREM', ARGV[1], ARGV[at])
  end
end
return gone
"""

COMMAND: Final = """
-- ARGV: command id, vehicle id, entry, epoch, revision, updated at, issued at, seconds to live ('' =
-- for ever). Not over a newer entry. Answers 1 when it was written.
local key = 'command:' .. ARGV[1]
local read, is = pcall(cjson.decode, redis.pcall('GET', key))
local put = 1
if read and type(is) == 'table' then
  local was = {is.epoch or 0, is.revision or 0, is.updated_at}
  for i = 1, 3 do
    local now = tonumber(ARGV[3 + i])
    if was[i] ~= now then
      if type(was[i]) == 'number' and was[i] > now then put = 0 end
      break
    end
  end
end
if put == 1 then
  if ARGV[8] == '' then redis.call('SET', key, ARGV[3])
  else redis.call('SET', key, ARGV[3], 'EX', ARGV[8]) end
end
redis.call('ZADD', 'commands:' .. ARGV[2], ARGV[7], ARGV[1])
return put
"""

TRIM: Final = """
-- ARGV: how many listed commands make a list long, how many of them to look at, then vehicle ids. Of the
-- oldest in a long list those go that have no entry any more (final ones end after 30 days). Whatever has
-- one stays: it is found by its vehicle, and goes with it.
for at = 3, #ARGV do
  local key = 'commands:' .. ARGV[at]
  if redis.call('ZCARD', key) > tonumber(ARGV[1]) then
    for _, command in ipairs(redis.call('ZRANGE', key, 0, ARGV[2] - 1)) do
      if redis.call('EXISTS', 'command:' .. command) == 0 then redis.call('ZREM', key, command) end
    end
  end
end
"""

UNLIST: Final = """
-- ARGV: vehicle ids: of their commands those that have no entry are not listed any more.
local gone = 0
for at = 1, #ARGV do
  local key = 'commands:' .. ARGV[at]
  for _, command in ipairs(redis.call('ZRANGE', key, 0, -1)) do
    if redis.call('EXISTS', 'command:' .. command) == 0 then
      gone = gone + redis.call('ZREM', key, command)
    end
  end
end
return gone
"""

_DIGEST: Final = """
local function digest(id)
  local entry = redis.pcall('GET', 'command:' .. id)
  return type(entry) == 'string' and redis.sha1hex(entry) or ''
end
"""

DIGESTS: Final = (
    _DIGEST
    + """
-- ARGV: command ids. Answers of each what `REMOVE` asks for.
local found = {}
for at = 1, #ARGV do found[at] = digest(ARGV[at]) end
return found
"""
)

REMOVE: Final = (
    _DIGEST
    + """
-- ARGV: pairs of command id and digest of its entry: those that have another by now stay.
-- Answers how many were removed.
local gone = 0
for at = 1, #ARGV, 2 do
  local id = ARGV[at]
  if digest(id) == ARGV[at + 1] then
    redis.call('ZREM', 'commands:' .. (string.match(id, '^(.*)%.') or ''), id)
    redis.call('ZREM', 'recent_commands', id)
    gone = gone + redis.call('DEL', 'command:' .. id)
  end
end
return gone
"""
)

LISTED: Final = """
-- ARGV: how many ids are enough, then vehicle ids. Answers of each the ids of its commands; of fewer
-- vehicles when these have enough.
local found, count = {}, 0
for at = 2, #ARGV do
  found[at - 1] = redis.call('ZRANGE', 'commands:' .. ARGV[at], 0, -1)
  count = count + #found[at - 1]
  if count >= tonumber(ARGV[1]) then break end
end
return found
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
