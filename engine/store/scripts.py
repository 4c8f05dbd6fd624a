"""The steps that must be atomic, as Lua scripts: each a function that returns the command, its signature the contract.

A script runs on the server with nothing beside it. Redis and Valkey refuse a script for want of memory only at its
first write, so a script that has begun to write ends: all of its writes take place, or none.

The scripts of a decision touch keys of one customer and one partition only, so they run on a cluster too.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1
from struct import Struct
from typing import Final

from engine.limits import INGEST_BATCH_MAX
from engine.store.base import MOVED, Conflict, FeatureWrite, Mark, StoreError
from engine.store.budgetboard import Fenced, Move, Settled, Take
from engine.store.wire import Command, Reply
from features import Offset

TRIM_ENTRIES_MAX: Final = 2 * INGEST_BATCH_MAX
"""Entries that one write of features trims from the event log. More than one batch brings, so the log shrinks."""

_POSITION: Final = Struct("<QI")
_MATCHES: Final = """
local function matches(key, expected)
  if expected == '' then return redis.call('EXISTS', key) == 0 end
  return redis.call('GETRANGE', key, 0, #expected - 1) == expected
end
"""
_WRITE_EACH: Final = """
local function write_each(before, count, at, ttl)
  local written, all, key = {}, true, before + count + 1
  for i = 1, count do
    local name, record, besides = KEYS[before + i], ARGV[at + 1], tonumber(ARGV[at + 2])
    local ok = matches(name, ARGV[at])
    for b = 0, besides - 1 do
      local arg = at + 3 + 3 * b
      ok = ok and (ARGV[arg + 1] == '0' or matches(KEYS[key + b], ARGV[arg + 2]))
    end
    if ok then
      if record == '' then redis.call('DEL', name) else redis.call('SET', name, record, 'PX', ttl) end
      for b = 0, besides - 1 do
        local value = ARGV[at + 3 + 3 * b]
        if value == '' then redis.call('DEL', KEYS[key + b]) else redis.call('SET', KEYS[key + b], value, 'PX', ttl) end
      end
      written[i] = 1
    else
      written[i], all = 0, false
    end
    key, at = key + besides, at + 3 + 3 * besides
  end
  return written, all
end
"""
"""Writes customers whose values are as expected; says which, and whether all."""


@dataclass(frozen=True, slots=True)
class _Script:
    """A script and the name the server keeps it under."""

    source: bytes
    sha: bytes


def _script(source: str) -> _Script:
    text = source.strip().encode()
    return _Script(text, sha1(text, usedforsecurity=False).hexdigest().encode())


# XADD comes first: the ledger names the decision by the position that the log gives it. struct packs numbers exactly up
# to 2^53; a position is milliseconds since 1970 and a sequence number, both far below.
_COMMIT_DECISION_TEXT: Final = """
local expected = ARGV[1]
if expected == '' then
  if redis.call('EXISTS', KEYS[1]) == 1 then return false end
elseif redis.call('GETRANGE', KEYS[1], 0, #expected - 1) ~= expected then return false end
local id = redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[6], '*', 'd', ARGV[4])
local ms, seq = string.match(id, '(%d+)-(%d+)')
local position = struct.pack('<I8I4', ms, seq)
redis.call('SET', KEYS[1], ARGV[2] .. position .. ARGV[3], 'PX', ARGV[5])
return position
"""
_COMMIT_DECISION: Final = _script(_COMMIT_DECISION_TEXT)

# The same, and units are taken from leases (engine.store.budgetboard): all of them, or nothing is written. What would
# end before reservations that were let go is not reserved.
_COMMIT_TAKING_TEXT: Final = (
    _MATCHES
    + """
if not matches(KEYS[1], ARGV[1]) then return false end
for i = 3, #KEYS do
  if redis.call('HEXISTS', KEYS[i], ARGV[4 * i - 5]) == 0 then return i - 3 end
end
local id = redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[6], '*', 'd', ARGV[4])
local ms, seq = string.match(id, '(%d+)-(%d+)')
local position = struct.pack('<I8I4', ms, seq)
redis.call('SET', KEYS[1], ARGV[2] .. position .. ARGV[3], 'PX', ARGV[5])
for i = 3, #KEYS do
  local at = 4 * i - 5
  local units, ends = ARGV[at + 1], ARGV[at + 2]
  redis.call('HINCRBY', KEYS[i], ARGV[at], units)
  if ends == '0' then redis.call('HINCRBY', KEYS[i], 'c', units)
  elseif tonumber(ends) > tonumber(redis.call('HGET', KEYS[i], 's') or 0) then
    redis.call('HINCRBY', KEYS[i], 'r/' .. ends, units)
  end
  if ARGV[at + 3] ~= '0' then redis.call('PEXPIRE', KEYS[i], ARGV[at + 3]) end
end
return position
"""
)
_COMMIT_TAKING: Final = _script(_COMMIT_TAKING_TEXT)


def _unmoved(text: str) -> _Script:
    """The same for a customer that stands for itself still: the last key is that of the features."""
    mark = "".join([f"\\{byte:03d}" for byte in MOVED])
    head = f"""
local features = table.remove(KEYS)
if redis.call('GETRANGE', features, 0, {len(MOVED) - 1}) == '{mark}' then return false end
"""
    return _script(head + text)


_COMMIT_DECISION_UNMOVED: Final = _unmoved(_COMMIT_DECISION_TEXT)
_COMMIT_TAKING_UNMOVED: Final = _unmoved(_COMMIT_TAKING_TEXT)

# What was reserved stands in the bucket of its end, unless that was let go. What is consumed without a reservation
# that stands is late: it may be more than there is, and the reply tells.
_SETTLE_OUTCOME: Final = _script(
    _MATCHES
    + """
if not matches(KEYS[1], ARGV[1]) then return false end
local id = redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], '*', 'd', ARGV[3])
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[4])
local late = 0
for i = 3, #KEYS do
  local key, at = KEYS[i], 5 * i - 9
  local old, new, units, ends = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3]
  local bucket = 'r/' .. ends
  local stands = tonumber(ends) > tonumber(redis.call('HGET', key, 's') or 0)
  local there = tonumber(redis.call('HGET', key, bucket) or 0)
  local reserved = old == 'r' and stands and there >= units
  if reserved then
    if there == units then redis.call('HDEL', key, bucket) else redis.call('HINCRBY', key, bucket, -units) end
  elseif old == 'c' then
    local consumed = tonumber(redis.call('HGET', key, 'c') or 0)
    redis.call('HINCRBY', key, 'c', -math.min(units, consumed))
  end
  if new == 'c' then
    redis.call('HINCRBY', key, 'c', units)
    if not reserved then late = late + units end
  elseif new == 'r' and stands then
    redis.call('HINCRBY', key, bucket, units)
  end
  if ARGV[at + 4] ~= '0' then redis.call('PEXPIRE', key, ARGV[at + 4]) end
end
local ms, seq = string.match(id, '(%d+)-(%d+)')
return {struct.pack('<I8I4', ms, seq), late}
"""
)

_SWEEP_ACCOUNT: Final = _script(
    """
local now, newest, all = tonumber(ARGV[1]), 0, redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local ends = tonumber(string.match(all[i], '^r/(%d+)$') or now + 1)
  if ends <= now then
    redis.call('HDEL', KEYS[1], all[i])
    newest = math.max(newest, ends)
  end
end
if newest > tonumber(redis.call('HGET', KEYS[1], 's') or 0) then
  redis.call('HSET', KEYS[1], 's', string.format('%.0f', newest))
end
return redis.call('HGETALL', KEYS[1])
"""
)

_GRANT_LEASE: Final = _script(
    """
if (redis.call('HGET', KEYS[1], 'v') or '0') ~= ARGV[1] then return 0 end
redis.call('HINCRBY', KEYS[1], 'v', 1)
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
if ARGV[4] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
return 1
"""
)

_COMMIT_OUTCOME: Final = _script(
    _MATCHES
    + """
if not matches(KEYS[1], ARGV[1]) then return false end
local id = redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], '*', 'd', ARGV[3])
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[4])
local ms, seq = string.match(id, '(%d+)-(%d+)')
return struct.pack('<I8I4', ms, seq)
"""
)

_COMMIT_FORGET: Final = _script(
    _MATCHES
    + """
if not matches(KEYS[1], ARGV[1]) then return false end
local id = redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 'd', ARGV[2])
redis.call('HSET', KEYS[3], id, '')
redis.call('DEL', KEYS[1])
local ms, seq = string.match(id, '(%d+)-(%d+)')
return struct.pack('<I8I4', ms, seq)
"""
)

# `events` counts what is folded of what is there: what goes away goes from both, and the backlog stays what it is.
_DELETE_EVENTS: Final = _script(
    """
local deleted = redis.call('XDEL', KEYS[2], unpack(ARGV))
if deleted > 0 then redis.call('HINCRBY', KEYS[1], 'events', -deleted) end
return deleted
"""
)

# The position moves only when all were written: it says that everything before it is in the records, so one that moved
# while a record was still to be written would lose that customer's events in a crash.
#
# Two counters give the backlog without a walk, and on versions that do not count what was ever added to a stream:
# `events` that were folded and entries that were `trimmed`, so the backlog is XLEN + trimmed - events. `events` is what
# callers said; were one of them wrong, or two of them folding the same events during a takeover, it is put right
# whenever the fold has reached the end of the log.
_WRITE_FEATURES: Final = _script(
    _MATCHES
    + _WRITE_EACH
    + """
local written, all = write_each(2, tonumber(ARGV[7]), 8, ARGV[4])
if not all then return written end
local old = redis.call('HMGET', KEYS[1], 'ms', 'seq', 'events', 'trimmed')
local ms, seq = tonumber(old[1] or 0), tonumber(old[2] or 0)
local events, trimmed = tonumber(old[3] or 0), tonumber(old[4] or 0)
local new_ms, new_seq = tonumber(ARGV[1]), tonumber(ARGV[2])
if new_ms > ms or (new_ms == ms and new_seq > seq) then
  local folded = ARGV[1] .. '-' .. ARGV[2]
  local length = redis.call('XLEN', KEYS[2])
  local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
  events = math.min(events + tonumber(ARGV[3]), length + trimmed)
  if last and last[1] == folded then events = length + trimmed end
  local excess = math.min(length - tonumber(ARGV[5]), tonumber(ARGV[6]))
  if excess > 0 then
    local oldest = redis.call('XRANGE', KEYS[2], '-', folded, 'COUNT', excess)
    if #oldest > 0 then
      local end_ms, end_seq = string.match(oldest[#oldest][1], '(%d+)-(%d+)')
      local first_kept = end_ms .. '-' .. string.format('%.0f', end_seq + 1)
      trimmed = trimmed + redis.call('XTRIM', KEYS[2], 'MINID', first_kept)
    end
  end
  redis.call('HSET', KEYS[1], 'ms', ARGV[1], 'seq', ARGV[2], 'events', events, 'trimmed', trimmed)
end
return written
"""
)

_WRITE_RECORDS: Final = _script(
    _MATCHES
    + _WRITE_EACH
    + """
return (write_each(0, tonumber(ARGV[2]), 3, ARGV[1]))
"""
)

# All or nothing: what is written twice counts twice, and one mark cannot say which half was written.
_WRITE_MARKED: Final = _script(
    _MATCHES
    + """
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return false end
local matching, all = {}, true
for i = 2, #KEYS do
  if matches(KEYS[i], ARGV[2 * i + 1]) then matching[i - 1] = 1 else matching[i - 1], all = 0, false end
end
if not all then return matching end
for i = 2, #KEYS do
  if ARGV[2 * i + 2] == '' then redis.call('DEL', KEYS[i])
  else redis.call('SET', KEYS[i], ARGV[2 * i + 2], 'PX', ARGV[4]) end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return matching
"""
)

_CHANGE_VERSIONS: Final = _script(
    """
if (redis.call('HGET', KEYS[1], '_revision') or '') ~= ARGV[1] then return 0 end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', 'e', ARGV[3])
for i = 4, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
return 1
"""
)

# Two sellers who want one lead both expect it to be open: the first one changes it, the other finds it changed.
_WRITE_LEAD: Final = _script(
    """
local now = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if now ~= ARGV[2] then return 0 end
if now == '' and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[5]) then return 2 end
if ARGV[3] == '' then redis.call('HDEL', KEYS[1], ARGV[1]) else redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
if ARGV[4] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
if ARGV[6] == '1' then redis.call('SREM', KEYS[2], ARGV[1]) end
if ARGV[7] == '1' then
  redis.call('SADD', KEYS[3], ARGV[1])
  redis.call('PEXPIRE', KEYS[3], ARGV[4])
end
return 1
"""
)

LOAD: Final[tuple[Command, ...]] = tuple(
    (b"SCRIPT", b"LOAD", script.source)
    for script in (
        _COMMIT_DECISION,
        _COMMIT_TAKING,
        _COMMIT_DECISION_UNMOVED,
        _COMMIT_TAKING_UNMOVED,
        _COMMIT_OUTCOME,
        _SETTLE_OUTCOME,
        _SWEEP_ACCOUNT,
        _GRANT_LEASE,
        _COMMIT_FORGET,
        _DELETE_EVENTS,
        _WRITE_FEATURES,
        _WRITE_RECORDS,
        _WRITE_MARKED,
        _CHANGE_VERSIONS,
        _WRITE_LEAD,
    )
)
"""Commands that teach a server all scripts; it forgets them when it restarts."""


def commit_decision(
    ledger: bytes,
    log: bytes,
    expected: bytes,
    head: bytes,
    tail: bytes,
    record: bytes,
    ttl_ms: bytes,
    log_max: bytes,
    features: bytes | None = None,
) -> Command:
    """If the ledger begins with `expected` (b"": does not exist), append `record` and write head + position + tail.

    The decimal `ttl_ms` is the life of the ledger, `log_max` the number of entries that the log keeps, or a few more.
    With `features`, the key of the customer's features, only if the customer belongs to nobody else. Reply: see
    `position`.
    """
    values = expected, head, tail, record, ttl_ms, log_max
    if features is not None:
        return (b"EVALSHA", _COMMIT_DECISION_UNMOVED.sha, b"3", ledger, log, features, *values)
    return (b"EVALSHA", _COMMIT_DECISION.sha, b"2", ledger, log, *values)


def commit_taking(
    ledger: bytes,
    log: bytes,
    accounts: Sequence[tuple[bytes, bytes]],
    values: Sequence[bytes],
    takes: Sequence[Take],
    features: bytes | None = None,
) -> Command:
    """As commit_decision, and units are taken.

    `accounts` are (key, decimal life in ms, b"0" for good) of the takes, in the partition of the ledger; `values` are
    the arguments of commit_decision from `expected` on. Reply: see `taken`.
    """
    names = [ledger, log, *(key for key, _ in accounts), *([] if features is None else [features])]
    script = _COMMIT_TAKING if features is None else _COMMIT_TAKING_UNMOVED
    command = [b"EVALSHA", script.sha, b"%d" % len(names), *names, *values]
    for (_, life_ms), take in zip(accounts, takes, strict=True):
        command += (b"u/%d" % take.lease, b"%d" % take.units, b"%d" % take.end_ms, life_ms)
    return tuple(command)


def taken(reply: Reply, takes: Sequence[Take]) -> Offset | Conflict | Fenced | StoreError:
    """What came of a commit_taking.

    >>> taken(0, [Take("sms@always", 7, 1, 0)])
    Fenced(lease=7)
    """
    return Fenced(takes[reply].lease) if isinstance(reply, int) else position(reply)


def settle_outcome(
    ledger: bytes,
    log: bytes,
    accounts: Sequence[tuple[bytes, bytes]],
    values: Sequence[bytes],
    moves: Sequence[Move],
) -> Command:
    """As commit_outcome, and units move; arguments as those of commit_taking. Reply: see `settled`."""
    command = [b"EVALSHA", _SETTLE_OUTCOME.sha, b"%d" % (2 + len(moves)), ledger, log, *(key for key, _ in accounts)]
    command += values
    for (_, life_ms), move in zip(accounts, moves, strict=True):
        command += (move.old.encode(), move.new.encode(), b"%d" % move.units, b"%d" % move.end_ms, life_ms)
    return tuple(command)


def settled(reply: Reply) -> Settled | None:
    """What came of a settle_outcome; None is a conflict. Raises StoreError."""
    if reply is None:
        return None
    if isinstance(reply, StoreError):
        raise reply
    where, late = reply
    ms, seq = _POSITION.unpack(where)
    return Settled(Offset(ms, seq), late)


def sweep_account(key: bytes, now_ms: int) -> Command:
    """Let go of reservations that ended. Reply: the fields that are left, as of HGETALL."""
    return (b"EVALSHA", _SWEEP_ACCOUNT.sha, b"1", key, b"%d" % now_ms)


def grant_lease(key: bytes, version: int, lease: int, units: int, server: str, life_ms: bytes) -> Command:
    """Open a lease if the version is still this one. Reply: 1 if it was."""
    words = b"%d %s" % (units, server.encode())
    return (b"EVALSHA", _GRANT_LEASE.sha, b"1", key, b"%d" % version, b"l/%d" % lease, words, life_ms)


def commit_outcome(
    ledger: bytes, log: bytes, expected: bytes, value: bytes, entry: bytes, ttl_ms: bytes, log_max: bytes
) -> Command:
    """If the ledger begins with `expected` (b"": does not exist), append `entry` and write `value`.

    Reply: see `position`.
    """
    return (b"EVALSHA", _COMMIT_OUTCOME.sha, b"2", ledger, log, expected, value, entry, ttl_ms, log_max)


def commit_forget(
    ledger: bytes, log: bytes, forgets: bytes, expected: bytes, entry: bytes, log_max: bytes
) -> Command:
    """If the ledger begins with `expected` (b"": does not exist), append `entry`, note it as pending, drop the ledger.

    Reply: see `position`.
    """
    return (b"EVALSHA", _COMMIT_FORGET.sha, b"3", ledger, log, forgets, expected, entry, log_max)


def delete_events(folded: bytes, log: bytes, positions: Sequence[Offset]) -> Command:
    """Remove folded entries of the event log, at least one. Reply: how many were there."""
    return (b"EVALSHA", _DELETE_EVENTS.sha, b"2", folded, log, *(str(at).encode() for at in positions))


def position(reply: Reply) -> Offset | Conflict | StoreError:
    """What came of a commit_decision or commit_outcome: position of the entry, or why there is none.

    >>> position(bytes([1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0])), position(None)
    (Offset(ms=1, seq=2), Conflict())
    """
    if reply is None:
        return Conflict()
    if isinstance(reply, StoreError):
        return reply
    ms, seq = _POSITION.unpack(reply)
    return Offset(ms, seq)


def write_features(
    folded_key: bytes,
    log: bytes,
    keys: Sequence[bytes],
    beside_keys: Sequence[bytes],
    writes: Sequence[FeatureWrite],
    folded: Offset,
    events: int,
    ttl_ms: bytes,
    log_max: bytes,
) -> Command:
    """Write each record whose key begins with `expected`; move the position forward; trim what is folded and too much.

    `keys` are those of the customers of `writes`, `beside_keys` those of all values beside them, in order; `events`
    counts the entries from the old position to `folded`. Reply: a list, 1 where written and 0 where not.
    """
    all_keys = (folded_key, log, *keys, *beside_keys)
    command = [b"EVALSHA", _WRITE_FEATURES.sha, b"%d" % len(all_keys), *all_keys]
    command += [b"%d" % folded.ms, b"%d" % folded.seq, b"%d" % events, ttl_ms, log_max, b"%d" % TRIM_ENTRIES_MAX]
    command.append(b"%d" % len(writes))
    return (*command, *_values(writes))


def write_marked(
    marks: bytes, values: Sequence[tuple[bytes, bytes, bytes]], mark: Mark, ttl_ms: bytes
) -> Command:
    """If the mark is as expected and every key begins with what is expected, write all values and set the mark.

    `values` are (key, expected, value), all of the slot of `marks`; an empty value removes the key. Reply: nil if the
    mark is another; else a list, 1 where the key was as expected and 0 where not; with a 0 in it nothing was written.
    """
    command = [b"EVALSHA", _WRITE_MARKED.sha, b"%d" % (len(values) + 1), marks, *(key for key, _, _ in values)]
    command += [mark.name.encode(), mark.expected, mark.value, ttl_ms]
    for _, expected, value in values:
        command += (expected, value)
    return tuple(command)


def change_versions(
    versions: bytes, trail: bytes, revision: bytes, fields: Mapping[str, bytes], entry: bytes, trail_max: bytes
) -> Command:
    """If the field "_revision" is as expected (b"": not there), set fields and append to the trail. Reply: 1 or 0."""
    flat = [part for name, value in fields.items() for part in (name.encode(), value)]
    return (b"EVALSHA", _CHANGE_VERSIONS.sha, b"2", versions, trail, revision, trail_max, entry, *flat)


def write_records(
    keys: Sequence[bytes], beside_keys: Sequence[bytes], writes: Sequence[FeatureWrite], ttl_ms: bytes
) -> Command:
    """Write each record whose key begins with `expected`, and what stands beside it; keys as in write_features.

    Reply: a list, 1 where written and 0 where not.
    """
    all_keys = (*keys, *beside_keys)
    command = [b"EVALSHA", _WRITE_RECORDS.sha, b"%d" % len(all_keys), *all_keys, ttl_ms, b"%d" % len(writes)]
    return (*command, *_values(writes))


def write_lead(
    leads: bytes,
    leaves: bytes | None,
    enters: bytes | None,
    lead: bytes,
    expected: bytes,
    value: bytes,
    ttl_ms: bytes,
    entries_max: bytes,
) -> Command:
    """If field `lead` of the hash is `expected` (b"": not there), set it to `value` (b"": remove it), and move the name
    from one set to another. `ttl_ms` b"0": the hash stays for good. Reply: 1 done, 0 not as expected, 2 no room."""
    names = (leads, leaves or leads, enters or leads)
    flags = (b"0" if leaves is None else b"1", b"0" if enters is None else b"1")
    return (b"EVALSHA", _WRITE_LEAD.sha, b"3", *names, lead, expected, value, ttl_ms, entries_max, *flags)


def _values(writes: Sequence[FeatureWrite]) -> Iterator[bytes]:
    """Arguments of `write_each`."""
    for write in writes:
        yield write.expected
        yield write.record
        yield b"%d" % len(write.values)
        for beside in write.values:
            yield beside.value
            yield b"0" if beside.expected is None else b"1"
            yield beside.expected or b""
