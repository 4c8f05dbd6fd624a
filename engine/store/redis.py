"""The store on Redis (6.2 or later) or Valkey.

Three kinds of connections, so that nobody stands in line behind something slow:

    hot      decisions, reports and appended events: small commands, many at once
    bulk     features, policy, checkpoint: large values
    readers  one for each blocking read under way

What must be atomic is a script (scripts.py) or MULTI … EXEC. A command whose answer was lost is never sent again; only
NOSCRIPT, which says that nothing was done, is answered by loading the scripts and sending those commands once more.

One server or a cluster; `open` finds out which. On a cluster a lane (lanes.py) is in the place of a connection, and
tails (tails.py) are in that of the readers. What spans partitions is then cut into one command a slot: MGET, and MULTI,
which holds together what is of one partition and no more.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import orjson

from engine import limits
from engine.store import keys, scripts
from engine.store.base import (
    Conflict,
    DecisionCommit,
    FeatureWrite,
    Forgets,
    LeadWrite,
    LogEntry,
    Mark,
    PartlyUnavailable,
    StoreError,
    StoreFull,
    StoreUnavailable,
    partition_of,
)
from engine.store.budgetboard import LASTING, Fenced, Leases, Move, PartUse, Settled, Take
from engine.store.cluster import Cluster
from engine.store.lanes import Lane
from engine.store.readers import Readers
from engine.store.tails import Tails
from engine.store.wire import Address, Command, Connection, Redirected, Reply, ScriptMissing, checked
from features import Offset

FORMAT: Final = 1
"""Changes when the meaning of a key does; a store of another format is refused."""
BULK_WAIT_MS_MAX: Final = 10_000
"""Wait for a policy or a checkpoint of some ten megabytes."""
POLICY_CHANGES_MAX: Final = 1_000

_CUSTOMER_TTL_MS: Final = b"%d" % limits.CUSTOMER_KEY_TTL_MS


class RedisStore:
    """Store on a Redis or Valkey server, or on a cluster of them. Made with `open`; without, on one server."""

    def __init__(
        self,
        url: str,
        partitions: int,
        *,
        read_wait_ms: int = limits.DECIDE_STATE_WAIT_MS_MAX,
        commit_wait_ms: int = limits.DECIDE_COMMIT_WAIT_MS_MAX,
        write_wait_ms: int = limits.WRITE_WAIT_MS_MAX,
        event_log_entries_max: int = limits.EVENT_LOG_ENTRIES_MAX,
        decision_log_entries_max: int = limits.DECISION_LOG_ENTRIES_MAX,
        dead_letters_max: int = limits.DEAD_LETTERS_MAX,
        cluster: Cluster | None = None,
    ) -> None:
        self.partitions = partitions
        self._address = Address.parse_all(url)[0]
        self._keys = keys.Keys(partitions)
        self._read_s, self._commit_s, self._write_s = (
            wait_ms / 1e3 for wait_ms in (read_wait_ms, commit_wait_ms, write_wait_ms)
        )
        self._event_log_max = b"%d" % event_log_entries_max
        self._decision_log_max = b"%d" % decision_log_entries_max
        self._dead_letters_max = b"%d" % dead_letters_max
        self._cluster = cluster
        self._unknown: list[int] = []
        """Partitions that `folded` left out the last time."""
        self._hot: Connection | Lane
        self._bulk: Connection | Lane
        self._readers: Readers | Tails
        if cluster is None:
            self._hot, self._bulk = Connection(self._address), Connection(self._address)
            self._readers = Readers(self._address, self._write_s)
        else:
            self._hot, self._bulk = Lane(cluster), Lane(cluster)
            self._readers = Tails(cluster, self._write_s)

    @classmethod
    async def open(cls, url: str, partitions: int, **settings: int) -> "RedisStore":
        """A store whose format and number of partitions are what is expected, or set on the first use.

        The URL is of one server or of any node of a cluster, or names several nodes: `redis://host:port,host:port`.
        Raises StoreError if they differ, StoreUnavailable if the store is away, ValueError if the URL is none.
        """
        wait_ms = settings.get("write_wait_ms", limits.WRITE_WAIT_MS_MAX)
        cluster = await Cluster.find(Address.parse_all(url), wait_ms / 1e3)
        store = cls(url, partitions, **settings, cluster=cluster)
        try:
            await store._check_meta()
            if cluster is None:  # a lane teaches a node what it does not know
                checked(await store._hot.pipeline(scripts.LOAD, store._write_s))
        except BaseException:
            await store.close()
            raise
        return store

    async def _check_meta(self) -> None:
        wanted = {b"format": b"%d" % FORMAT, b"partitions": b"%d" % self.partitions}
        read = (b"HMGET", keys.META, *wanted)
        try:
            [values] = checked(await self._hot.pipeline([read], self._write_s))
        except Redirected as error:
            # Not known for a cluster when it was asked for its slots, and yet it is one.
            raise StoreError(
                f"{self._address} is a node of a cluster but does not tell who its nodes are: "
                f"allow its user the command CLUSTER SLOTS"
            ) from error
        if None in values:
            # Of two who come first, one sets a field and both read it.
            claims: list[Command] = [(b"HSETNX", keys.META, name, value) for name, value in wanted.items()]
            *_, values = checked(await self._hot.pipeline([*claims, read], self._write_s))
        found = dict(zip(wanted, values, strict=True))
        if found[b"format"] != wanted[b"format"]:
            raise StoreError(
                f"{self._address}: the store has format {found[b'format'].decode()!r}, this version reads {FORMAT}"
            )
        if found[b"partitions"] != wanted[b"partitions"]:
            raise StoreError(
                f"{self._address}: the store was made with {found[b'partitions'].decode()} partitions, "
                f"not {self.partitions}; their number is fixed when a store is made"
            )

    # --- State ------------------------------------------------------------------------------------------------------

    async def read(self, customers: Sequence[str]) -> list[tuple[bytes | None, bytes | None]]:
        """(features, ledger) of each customer."""
        if not customers:
            return []
        if self._cluster is not None:
            return await self._read_apart(customers)
        command = (b"MGET", *self._keys.state_of(customers))
        [values] = checked(await self._hot.pipeline((command,), self._read_s, look=len(customers) == 1))
        return list(zip(values[: len(customers)], values[len(customers) :], strict=True))

    async def _read_apart(self, customers: Sequence[str]) -> list[tuple[bytes | None, bytes | None]]:
        """`read` on a cluster."""
        assert isinstance(self._hot, Lane)
        values = await self._hot.mget(self._keys.state_of(customers), self._read_s)
        pairs = list(zip(values[: len(customers)], values[len(customers) :], strict=True))
        errors = [value for value in values if isinstance(value, StoreError)]
        if not errors:
            return pairs
        found = [None if any(isinstance(value, StoreError) for value in pair) else pair for pair in pairs]
        error = next((error for error in errors if not isinstance(error, StoreUnavailable)), errors[0])
        if not any(found):
            raise error
        raise PartlyUnavailable(str(error), found) from error

    async def commit_decisions(
        self, commits: Sequence[DecisionCommit]
    ) -> list[Offset | Conflict | Fenced | StoreError]:
        """Write each ledger, append its record and take its units in one atomic step, all in one round trip."""
        place, ttl_ms, log_max = self._keys.ledger_and_log, _CUSTOMER_TTL_MS, self._decision_log_max
        commands = [
            scripts.commit_taking(
                *place(commit.customer),
                self._accounts_of(commit.customer, commit.takes),
                (commit.ledger_expected, commit.ledger_head, commit.ledger_tail, commit.record, ttl_ms, log_max),
                commit.takes,
                self._keys.features(commit.customer) if commit.unmoved else None,
            )
            if commit.takes
            else scripts.commit_decision(
                *place(commit.customer),
                commit.ledger_expected,
                commit.ledger_head,
                commit.ledger_tail,
                commit.record,
                ttl_ms,
                log_max,
                self._keys.features(commit.customer) if commit.unmoved else None,
            )
            for commit in commits
        ]
        replies = await self._run(self._hot, commands, self._commit_s, look=len(commands) == 1)
        results = [scripts.taken(reply, commit.takes) for reply, commit in zip(replies, commits, strict=True)]
        # A server that is loading refuses all: that is the store being away, not something about a decision.
        if results and all(isinstance(result, StoreUnavailable) for result in results):
            checked(replies)
        return results

    def _accounts_of(self, customer: str, uses: Sequence[Take | Move]) -> list[tuple[bytes, bytes]]:
        return [(self._keys.account_of(customer, use.account), _life_ms(use.account)) for use in uses]

    async def commit_outcome(
        self, customer: str, ledger_expected: bytes, ledger: bytes, entry: bytes
    ) -> Offset | Conflict:
        """Replace a ledger and append an outcome in one atomic step."""
        key, log = self._keys.ledger_and_log(customer)
        command = scripts.commit_outcome(
            key, log, ledger_expected, ledger, entry, _CUSTOMER_TTL_MS, self._decision_log_max
        )
        [reply] = await self._run(self._hot, [command], self._write_s)
        result = scripts.position(reply)
        if isinstance(result, StoreError):
            raise result
        return result

    # --- DecisionLog ------------------------------------------------------------------------------------------------

    async def entries(self, positions: Sequence[tuple[int, Offset]]) -> list[bytes | None]:
        """Entries by (partition, offset)."""
        commands: list[Command] = []
        for partition, offset in positions:
            at = str(offset).encode()
            commands.append((b"XRANGE", self._keys.decisions[partition], at, at))
        replies = checked(await self._hot.pipeline(commands, self._write_s))
        return [reply[0][1][1] if reply else None for reply in replies]

    async def read_decisions(self, after: Mapping[int, Offset], count: int, block_ms: int) -> dict[int, list[LogEntry]]:
        """New entries of the decision log by partition."""
        return await self._read_log(self._keys.decisions, after, count, block_ms)

    async def commit_forget(self, customer: str, ledger_expected: bytes, entry: bytes) -> Offset | Conflict:
        """Append an entry that forgets, remove the ledger and note the entry as pending, in one atomic step."""
        key, log = self._keys.ledger_and_log(customer)
        forgets = self._keys.forgets[partition_of(customer, self.partitions)]
        command = scripts.commit_forget(key, log, forgets, ledger_expected, entry, self._decision_log_max)
        [reply] = await self._run(self._hot, [command], self._write_s)
        result = scripts.position(reply)
        if isinstance(result, StoreError):
            raise result
        return result

    async def forgets(self) -> dict[int, Forgets]:
        """The entries that forget, by partition."""
        commands: list[Command] = [(b"HGETALL", name) for name in self._keys.forgets]
        replies = self._answered([(reply,) for reply in await self._hot.pipeline(commands, self._write_s)])
        return {partition: _forgets(flat) for partition, (flat,) in replies.items()}

    async def finish_forget(self, partition: int, entry: Offset, positions: Sequence[Offset], lessons: int) -> None:
        """Remove entries of the decision log, and note the one that forgets them as finished, in one atomic step."""
        log, forgets = self._keys.decisions[partition], self._keys.forgets[partition]
        [flat] = checked(await self._bulk.pipeline([(b"HGETALL", forgets)], self._write_s))
        known = _forgets(flat)
        done = str(max(known.done, entry)).encode()
        commands: list[Command] = [
            (b"XDEL", log, *(str(at).encode() for at in positions[start : start + limits.LEARN_BATCH_MAX]))
            for start in range(0, len(positions), limits.LEARN_BATCH_MAX)
        ]
        commands.append((b"HSET", forgets, b"done", done, str(entry).encode(), b"%d" % lessons))
        if stale := sorted(known.finished)[: -limits.FORGETS_KEPT_ENTRIES_MAX]:
            commands.append((b"HDEL", forgets, *(str(at).encode() for at in stale)))
        await self._atomic(self._bulk, commands, self._write_s)

    async def save_receipt(self, partition: int, request: str, value: bytes) -> None:
        """Keep the receipt of a request to forget."""
        key = self._keys.receipt(partition, request)
        checked(await self._hot.pipeline([(b"SET", key, value, b"PX", _CUSTOMER_TTL_MS)], self._write_s))

    async def load_receipt(self, partition: int, request: str) -> bytes | None:
        """The receipt of a request to forget."""
        [value] = checked(await self._hot.pipeline([(b"GET", self._keys.receipt(partition, request))], self._write_s))
        return value if value is None else bytes(value)

    # --- Feed -------------------------------------------------------------------------------------------------------

    async def append_events(self, events: Sequence[tuple[str, bytes]]) -> list[Offset]:
        """Append all events, or none if the store is full."""
        commands = [(b"XADD", self._keys.event_log(customer), b"*", b"d", data) for customer, data in events]
        return [_offset(reply) for reply in await self._atomic(self._hot, commands, self._write_s)]

    async def backlog(self) -> dict[int, int]:
        """Events of each partition that are not folded yet."""
        # Not in MULTI, which a full server refuses even for reads. In this order a fold or a trim between two of these
        # commands makes the result too large, never too small.
        commands: list[Command] = []
        for folded, log in zip(self._keys.folded, self._keys.events, strict=True):
            commands += [(b"HGET", folded, b"events"), (b"XLEN", log), (b"HGET", folded, b"trimmed")]
        replies = await self._hot.pipeline(commands, self._write_s)
        parts = self._answered(list(zip(replies[::3], replies[1::3], replies[2::3], strict=True)))
        return {
            n: max(0, length + int(trimmed or 0) - int(events or 0)) for n, (events, length, trimmed) in parts.items()
        }

    async def dead_letters(self, letters: Sequence[tuple[bytes, str]]) -> None:
        """Keep (payload, reason) of refused input, all or none."""
        add = (b"XADD", keys.DEAD, b"MAXLEN", b"~", self._dead_letters_max, b"*")
        commands = [(*add, b"payload", payload, b"reason", reason.encode()) for payload, reason in letters]
        await self._atomic(self._bulk, commands, self._write_s)

    async def drop_dead_letters(self, mentions: Callable[[bytes, str], bool]) -> int:
        """Remove those dead letters."""
        dropped, start = 0, b"-"
        while True:
            command = (b"XRANGE", keys.DEAD, start, b"+", b"COUNT", b"%d" % limits.LEARN_BATCH_MAX)
            [found] = checked(await self._bulk.pipeline([command], self._write_s))
            if not found:
                return dropped
            gone = [at for at, (_, payload, _, reason) in found if mentions(payload, reason.decode())]
            if gone:
                [count] = checked(await self._bulk.pipeline([(b"XDEL", keys.DEAD, *gone)], self._write_s))
                dropped += count
            start = b"(" + found[-1][0]

    async def delete_events(self, partition: int, positions: Sequence[Offset]) -> int:
        """Remove entries of the event log that are folded."""
        folded, log, step = self._keys.folded[partition], self._keys.events[partition], limits.INGEST_BATCH_MAX
        commands = [
            scripts.delete_events(folded, log, positions[start : start + step])
            for start in range(0, len(positions), step)
        ]
        return sum(checked(await self._run(self._bulk, commands, self._write_s))) if commands else 0

    async def read_events(self, after: Mapping[int, Offset], count: int, block_ms: int) -> dict[int, list[LogEntry]]:
        """New events by partition."""
        if self._unknown:
            await self._look_for_unknown()
        return await self._read_log(self._keys.events, after, count, block_ms)

    async def read_features(self, customers: Sequence[str]) -> list[bytes | None]:
        """Features of each customer."""
        return await self._read_values(list(map(self._keys.features, customers)))

    async def read_timelines(self, customers: Sequence[str]) -> list[bytes | None]:
        """Timeline of each customer."""
        return await self._read_values(list(map(self._keys.timeline, customers)))

    async def read_beside(self, kind: str, customers: Sequence[str]) -> list[bytes | None]:
        """The value of one kind of each customer."""
        return await self._read_values([self._keys.beside(kind, customer) for customer in customers])

    async def _read_values(self, names: list[bytes]) -> list[bytes | None]:
        if not names:
            return []
        if isinstance(self._bulk, Lane):
            return checked(await self._bulk.mget(names, self._write_s))
        [values] = checked(await self._bulk.pipeline(((b"MGET", *names),), self._write_s))
        return list(values)

    async def write_features(
        self, partition: int, writes: Sequence[FeatureWrite], folded: Offset, events: int
    ) -> list[bool]:
        """Write features, timelines and the position folded in one atomic step; trim the log."""
        command = scripts.write_features(
            self._keys.folded[partition],
            self._keys.events[partition],
            [self._keys.features(write.customer) for write in writes],
            [self._keys.beside(beside.kind, write.customer) for write in writes for beside in write.values],
            writes,
            folded,
            events,
            _CUSTOMER_TTL_MS,
            self._event_log_max,
        )
        [written] = checked(await self._run(self._bulk, [command], self._write_s))
        return [done == 1 for done in written]

    async def folded(self) -> dict[int, Offset]:
        """Position up to which each partition of the event log is folded; Offset.ZERO where nothing is."""
        commands = [(b"HMGET", folded, b"ms", b"seq") for folded in self._keys.folded]
        found = self._answered([(reply,) for reply in await self._bulk.pipeline(commands, self._write_s)])
        self._unknown = [partition for partition in range(self.partitions) if partition not in found]
        return {partition: Offset(int(ms or 0), int(seq or 0)) for partition, ((ms, seq),) in found.items()}

    async def _look_for_unknown(self) -> None:
        """Raise StoreUnavailable when a partition that `folded` left out can be read again."""
        commands = [(b"EXISTS", self._keys.folded[partition]) for partition in self._unknown]
        replies = await self._bulk.pipeline(commands, self._write_s)
        back = [n for n, reply in zip(self._unknown, replies, strict=True) if not isinstance(reply, StoreError)]
        if back:
            self._unknown = []
            raise StoreUnavailable(f"{self._cluster}: partitions {back} can be read again: ask for their positions")

    def _answered(self, replies: Sequence[tuple[Reply, ...]]) -> dict[int, tuple[Reply, ...]]:
        """Replies by partition. On a cluster those of nodes that are away are left out, unless that is all of them."""
        found = {
            partition: parts
            for partition, parts in enumerate(replies)
            if not any(isinstance(part, StoreUnavailable) for part in parts)
        }
        for parts in replies if self._cluster is None or not found else found.values():
            checked(list(parts))
        return found

    async def write_marked(self, partition: int, writes: Sequence[FeatureWrite], mark: Mark) -> list[bool] | Conflict:
        """Write features, values beside them and a mark in one atomic step, all or nothing."""
        values = [(self._keys.features(write.customer), write.expected, write.record) for write in writes]
        of = list(range(len(writes)))
        for at, write in enumerate(writes):
            for beside in write.beside:
                assert beside.expected is not None, "what is written beside a mark is compared"
                values.append((self._keys.beside(beside.kind, write.customer), beside.expected, beside.value))
                of.append(at)
        command = scripts.write_marked(self._keys.marks[partition], values, mark, _CUSTOMER_TTL_MS)
        [matching] = checked(await self._run(self._bulk, [command], self._write_s))
        if matching is None:
            return Conflict()
        result = [True] * len(writes)
        for at, match in zip(of, matching, strict=True):
            result[at] &= match == 1
        return result

    async def marks(self, partition: int) -> dict[str, bytes]:
        """All marks of a partition."""
        [flat] = checked(await self._bulk.pipeline([(b"HGETALL", self._keys.marks[partition])], self._write_s))
        return {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}

    async def write_records(self, writes: Sequence[FeatureWrite]) -> list[bool]:
        """Write features and what stands beside them: one atomic step a partition, all in one round trip."""
        homes: dict[int, list[int]] = {}
        for at, write in enumerate(writes):
            homes.setdefault(partition_of(write.customer, self.partitions), []).append(at)
        commands = []
        for home in homes.values():
            group = [writes[at] for at in home]
            features = [self._keys.features(write.customer) for write in group]
            besides = [self._keys.beside(value.kind, write.customer) for write in group for value in write.values]
            commands.append(scripts.write_records(features, besides, group, _CUSTOMER_TTL_MS))
        replies = checked(await self._run(self._bulk, commands, self._write_s)) if commands else []
        written = [False] * len(writes)
        for home, reply in zip(homes.values(), replies, strict=True):
            for at, done in zip(home, reply, strict=True):
                written[at] = done == 1
        return written

    async def remember(self, name: str, first: bytes | None = None) -> bytes | None:
        """What is noted about the broker under a name."""
        read = (b"HGET", keys.KAFKA, name.encode())
        claim: list[Command] = [] if first is None else [(b"HSETNX", keys.KAFKA, name.encode(), first)]
        *_, note = checked(await self._hot.pipeline([*claim, read], self._write_s))
        return None if note is None else bytes(note)

    # --- LeadBoard --------------------------------------------------------------------------------------------------

    async def write_leads(self, list_id: str, writes: Sequence[LeadWrite]) -> list[bool]:
        """Write each lead and move it between queues, all in one round trip."""
        leads, queue = self._keys.leads(list_id), self._keys.queue
        commands = [
            scripts.write_lead(
                leads,
                None if write.leaves is None else queue(list_id, write.leaves),
                None if write.enters is None else queue(list_id, write.enters),
                write.lead_id.encode(),
                write.expected,
                write.value,
                b"%d" % limits.LEAD_LIST_TTL_MS,
                b"%d" % limits.LEAD_LIST_ENTRIES_MAX,
            )
            for write in writes
        ]
        replies = checked(await self._run(self._hot, commands, self._write_s)) if commands else []
        if 2 in replies:
            raise StoreFull(f"list {list_id} has {limits.LEAD_LIST_ENTRIES_MAX} leads already")
        return [reply == 1 for reply in replies]

    async def read_leads(self, list_id: str, lead_ids: Sequence[str]) -> list[bytes | None]:
        """Leads by id."""
        if not lead_ids:
            return []
        command = (b"HMGET", self._keys.leads(list_id), *(lead_id.encode() for lead_id in lead_ids))
        [values] = checked(await self._bulk.pipeline([command], self._write_s))
        return list(values)

    async def all_leads(self, list_id: str) -> dict[str, bytes]:
        """All leads of a list, some hundreds a round trip: the server serves others in between."""
        found: dict[str, bytes] = {}
        cursor = b"0"
        while True:
            command = (b"HSCAN", self._keys.leads(list_id), cursor, b"COUNT", b"%d" % limits.LEAD_CALL_ENTRIES_MAX)
            [(cursor, flat)] = checked(await self._bulk.pipeline([command], self._write_s))
            found |= {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}
            if cursor == b"0":
                return found

    async def lead_queue(self, list_id: str, seller: str) -> list[str]:
        """Ids in one queue of a list."""
        [names] = checked(await self._bulk.pipeline([(b"SMEMBERS", self._keys.queue(list_id, seller))], self._write_s))
        return [name.decode() for name in names]

    async def write_lead_list(self, list_id: str, expected: bytes, value: bytes) -> bool:
        """Note something of a list."""
        lists_max = b"%d" % limits.LEAD_LISTS_ENTRIES_MAX
        command = scripts.write_lead(keys.LEAD_LISTS, None, None, list_id.encode(), expected, value, b"0", lists_max)
        [reply] = checked(await self._run(self._hot, [command], self._write_s))
        if reply == 2:
            raise StoreFull(f"{limits.LEAD_LISTS_ENTRIES_MAX} lists of leads are known already")
        return bool(reply == 1)

    async def lead_lists(self) -> dict[str, bytes]:
        """The notes of all lists."""
        [flat] = checked(await self._bulk.pipeline([(b"HGETALL", keys.LEAD_LISTS)], self._write_s))
        return {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}

    # --- PolicyBoard ------------------------------------------------------------------------------------------------

    async def publish_policy(self, head: bytes, offers: Mapping[str, bytes]) -> None:
        """Replace the head and the offers given, and tell which changed."""
        fields = [part for offer, value in offers.items() for part in (_policy_field(offer), value)]
        changes = (b"XADD", keys.POLICY_CHANGES, b"MAXLEN", b"%d" % POLICY_CHANGES_MAX, b"*")
        commands = [
            (b"HSET", keys.POLICY, keys.POLICY_HEAD, head, *fields),
            (*changes, b"offers", orjson.dumps(list(offers))),
        ]
        await self._atomic(self._bulk, commands, BULK_WAIT_MS_MAX / 1e3)

    async def read_policy(self, offers: Sequence[str] | None = None) -> tuple[bytes | None, dict[str, bytes]]:
        """(head, offers); all offers if None."""
        if offers is None:
            command: Command = (b"HGETALL", keys.POLICY)
            [flat] = checked(await self._bulk.pipeline([command], BULK_WAIT_MS_MAX / 1e3))
            found = {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}
            return found.pop(keys.POLICY_HEAD.decode(), None), found
        command = (b"HMGET", keys.POLICY, keys.POLICY_HEAD, *map(_policy_field, offers))
        [(head, *values)] = checked(await self._bulk.pipeline([command], BULK_WAIT_MS_MAX / 1e3))
        return head, {offer: value for offer, value in zip(offers, values, strict=True) if value is not None}

    async def policy_changes(self, after: str, block_ms: int) -> list[tuple[str, list[str]]]:
        """(position, changed offers) of each snapshot after `after`."""
        found = await self._readers.read({keys.POLICY_CHANGES: (after or "0-0").encode()}, POLICY_CHANGES_MAX, block_ms)
        return [(at.decode(), orjson.loads(offers)) for _, log in found for at, (_, offers) in log]

    async def keep_policy(self, version: int, data: bytes, let_go: Sequence[int] = ()) -> None:
        """Keep a policy by its version for explaining, and let go of others, in one atomic step."""
        commands: list[Command] = [(b"HSET", keys.POLICY_KEPT, b"%d" % version, data)]
        if let_go:
            commands.insert(0, (b"HDEL", keys.POLICY_KEPT, *(b"%d" % old for old in let_go)))
        await self._atomic(self._bulk, commands, BULK_WAIT_MS_MAX / 1e3)

    async def kept_policies(self) -> list[int]:
        """Versions of the policies kept, oldest first."""
        [names] = checked(await self._bulk.pipeline([(b"HKEYS", keys.POLICY_KEPT)], BULK_WAIT_MS_MAX / 1e3))
        return sorted(map(int, names))

    async def kept_policy(self, version: int) -> bytes | None:
        """A policy kept earlier."""
        read = (b"HGET", keys.POLICY_KEPT, b"%d" % version)
        [data] = checked(await self._bulk.pipeline([read], BULK_WAIT_MS_MAX / 1e3))
        return None if data is None else bytes(data)

    async def save_checkpoint(self, fields: Mapping[str, bytes], removed: Sequence[str] = ()) -> None:
        """Replace fields of the learner's checkpoint, and drop others, in one atomic step."""
        commands: list[Command] = []
        if removed:
            commands.append((b"HDEL", keys.LEARNER, *(name.encode() for name in removed)))
        if fields:
            flat = [part for name, value in fields.items() for part in (name.encode(), value)]
            commands.append((b"HSET", keys.LEARNER, *flat))
        await self._atomic(self._bulk, commands, BULK_WAIT_MS_MAX / 1e3)

    async def load_checkpoint(self) -> dict[str, bytes]:
        """All fields of the learner's checkpoint."""
        [flat] = checked(await self._bulk.pipeline([(b"HGETALL", keys.LEARNER)], BULK_WAIT_MS_MAX / 1e3))
        return {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}

    async def save_config(self, version: str, text: bytes) -> None:
        """Keep a configuration by its version."""
        checked(await self._bulk.pipeline([(b"SET", keys.config_key(version), text)], BULK_WAIT_MS_MAX / 1e3))

    async def save_layout(self, layout: int, config: str) -> None:
        """Keep which configuration has a layout."""
        command = (b"HSET", keys.LAYOUTS, b"%08x" % layout, config.encode())
        checked(await self._bulk.pipeline([command], BULK_WAIT_MS_MAX / 1e3))

    async def load_layouts(self) -> dict[int, str]:
        """Versions of configurations by the version of their layout."""
        [flat] = checked(await self._bulk.pipeline([(b"HGETALL", keys.LAYOUTS)], BULK_WAIT_MS_MAX / 1e3))
        return {int(layout, 16): config.decode() for layout, config in zip(flat[::2], flat[1::2], strict=True)}

    async def load_config(self, version: str) -> bytes | None:
        """A configuration kept earlier."""
        [text] = checked(await self._bulk.pipeline([(b"GET", keys.config_key(version))], BULK_WAIT_MS_MAX / 1e3))
        return text if text is None else bytes(text)

    # --- BudgetBoard ------------------------------------------------------------------------------------------------

    async def settle_outcome(
        self, customer: str, ledger_expected: bytes, ledger: bytes, entry: bytes, moves: Sequence[Move]
    ) -> Settled | None:
        """Replace a ledger, append an outcome and move units in one atomic step."""
        key, log = self._keys.ledger_and_log(customer)
        values = (ledger_expected, ledger, entry, _CUSTOMER_TTL_MS, self._decision_log_max)
        command = scripts.settle_outcome(key, log, self._accounts_of(customer, moves), values, moves)
        [reply] = await self._run(self._hot, [command], self._write_s)
        return scripts.settled(reply)

    async def budget_notes(self) -> dict[str, bytes]:
        """What servers noted for each other."""
        [flat] = checked(await self._hot.pipeline([(b"HGETALL", keys.BUDGETS)], self._write_s))
        return {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}

    async def note_budgets(self, fields: Mapping[str, bytes], removed: Sequence[str] = ()) -> None:
        """Note something, and remove notes."""
        commands: list[Command] = []
        if removed:
            commands.append((b"HDEL", keys.BUDGETS, *(name.encode() for name in removed)))
        if fields:
            flat = [part for name, value in fields.items() for part in (name.encode(), value)]
            commands.append((b"HSET", keys.BUDGETS, *flat))
        if commands:
            await self._atomic(self._hot, commands, self._write_s)

    async def new_lease(self) -> int:
        """A number that no lease had."""
        [number] = checked(await self._hot.pipeline([(b"HINCRBY", keys.BUDGETS, b"leases", b"1")], self._write_s))
        return int(number)

    async def leases(self, account: str) -> Leases:
        """The open leases of an account."""
        [flat] = checked(await self._hot.pipeline([(b"HGETALL", keys.budget_key(account))], self._write_s))
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        version = int(fields.pop(b"v", 0))
        found = {int(name[2:]): value.decode().split(" ", 1) for name, value in fields.items()}
        return Leases(version, {lease: (int(units), server) for lease, (units, server) in found.items()})

    async def use(self, account: str, now_ms: int) -> list[PartUse]:
        """What each partition has, without the reservations that ended."""
        commands = [scripts.sweep_account(key, now_ms) for key in self._keys.accounts(account)]
        replies = checked(await self._run(self._hot, commands, self._write_s))
        return [_part_use(flat) for flat in replies]

    async def enrol(self, account: str, lease: int) -> None:
        """Make a lease valid in every partition."""
        life_ms = _life_ms(account)
        commands: list[Command] = []
        for key in self._keys.accounts(account):
            commands.append((b"HSET", key, b"u/%d" % lease, b"0"))
            if life_ms != b"0":
                commands.append((b"PEXPIRE", key, life_ms))
        checked(await self._hot.pipeline(commands, self._write_s))

    async def grant(self, account: str, version: int, lease: int, units: int, server: str) -> bool:
        """Open a lease if none was granted since."""
        key = keys.budget_key(account)
        command = scripts.grant_lease(key, version, lease, units, server, _life_ms(account))
        [done] = checked(await self._run(self._hot, [command], self._write_s))
        return bool(done)

    async def end_lease(self, account: str, lease: int) -> None:
        """Make a lease invalid in every partition, then close it."""
        fences = [(b"HDEL", key, b"u/%d" % lease) for key in self._keys.accounts(account)]
        checked(await self._hot.pipeline(fences, self._write_s))
        close = (b"HDEL", keys.budget_key(account), b"l/%d" % lease)
        checked(await self._hot.pipeline([close], self._write_s))

    async def read_versions(self) -> dict[str, bytes]:
        """The history of configurations."""
        [flat] = checked(await self._bulk.pipeline([(b"HGETALL", keys.VERSIONS)], BULK_WAIT_MS_MAX / 1e3))
        return {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}

    async def change_versions(self, revision: bytes, fields: Mapping[str, bytes], entry: bytes) -> bool:
        """Replace fields of the history and append to its trail, if the revision is as expected."""
        where, kept = (keys.VERSIONS, keys.VERSIONS_TRAIL), b"%d" % limits.VERSION_TRAIL_ENTRIES_MAX
        command = scripts.change_versions(*where, revision, fields, entry, kept)
        [done] = checked(await self._run(self._bulk, [command], self._write_s))
        return bool(done == 1)

    async def version_changes(self, after: str, block_ms: int) -> list[tuple[str, bytes]]:
        """(position, entry) of the trail after a position."""
        start = {keys.VERSIONS_TRAIL: (after or "0-0").encode()}
        # XADD with "~" keeps a few more than it is told to.
        found = await self._readers.read(start, 2 * limits.VERSION_TRAIL_ENTRIES_MAX, block_ms)
        return [(at.decode(), entry) for _, log in found for at, (_, entry) in log]

    # --- connections ------------------------------------------------------------------------------------------------

    async def ping(self) -> None:
        """Raise StoreUnavailable unless the store answers; on a cluster, every node that has a partition."""
        # A lane sends by keys.
        keyed: list[Command] = [(b"EXISTS", log) for log in self._keys.events]
        checked(await self._hot.pipeline([(b"PING",)] if self._cluster is None else keyed, self._read_s))

    async def close(self) -> None:
        """Let go of connections."""
        if self._cluster is not None:
            await self._cluster.close()
        await self._readers.close()
        await self._hot.close()
        await self._bulk.close()

    async def _run(
        self, connection: Connection | Lane, commands: list[Command], wait_s: float, *, look: bool = False
    ) -> list[Reply]:
        """Replies of script commands; those that a restarted server does not know are taught and sent again."""
        replies = await connection.pipeline(commands, wait_s, look=look)
        if self._cluster is not None:
            return replies  # a lane has taught the nodes already
        missing = [index for index, reply in enumerate(replies) if reply.__class__ is ScriptMissing]
        if missing:
            again = [*scripts.LOAD, *(commands[index] for index in missing)]
            retried = await connection.pipeline(again, wait_s)
            checked(retried[: len(scripts.LOAD)])
            for index, reply in zip(missing, retried[len(scripts.LOAD) :], strict=True):
                replies[index] = reply
        return replies

    async def _atomic(self, connection: Connection | Lane, commands: Sequence[Command], wait_s: float) -> list[Reply]:
        """Replies of commands that all take place, or none of them if the store refuses one for want of memory.

        On a cluster that is promised for those of one slot.
        """
        if len(commands) < 2:
            return checked(await connection.pipeline(commands, wait_s))
        if isinstance(connection, Lane):
            return checked(await connection.atomic(commands, wait_s))
        replies = checked(await connection.pipeline([(b"MULTI",), *commands, (b"EXEC",)], wait_s))
        results: list[Reply] = replies[-1]
        return checked(results)

    async def _read_log(
        self, logs: list[bytes], after: Mapping[int, Offset], count: int, block_ms: int
    ) -> dict[int, list[LogEntry]]:
        partitions = {logs[partition]: partition for partition in after}
        starts = {logs[partition]: str(offset).encode() for partition, offset in after.items()}
        found = await self._readers.read(starts, count, block_ms)
        return {partitions[log]: [LogEntry(_offset(at), data) for at, (_, data) in entries] for log, entries in found}


def _forgets(flat: Sequence[bytes]) -> Forgets:
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    done = fields.pop(b"done", b"0-0")
    pending = sorted(_offset(at) for at, lessons in fields.items() if not lessons)
    finished = {_offset(at): int(lessons) for at, lessons in fields.items() if lessons}
    return Forgets(_offset(done), tuple(pending), finished)


def _life_ms(account: str) -> bytes:
    return b"0" if account.endswith(LASTING) else _CUSTOMER_TTL_MS


def _part_use(flat: Sequence[bytes]) -> PartUse:
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    reserved = sum(int(units) for name, units in fields.items() if name.startswith(b"r/"))
    taken = {int(name[2:]): int(units) for name, units in fields.items() if name.startswith(b"u/")}
    return PartUse(int(fields.get(b"c", 0)), reserved, taken)


def _offset(reply: bytes) -> Offset:
    ms, _, seq = reply.partition(b"-")
    return Offset(int(ms), int(seq))


def _policy_field(offer: str) -> bytes:
    field = offer.encode()
    assert field != keys.POLICY_HEAD, "no offer may be called like the head"
    return field
