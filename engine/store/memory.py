"""The store in memory, for tests and simulation: the contract in the fewest words, nothing survives the object.

Time comes from the clock that is passed in; only waiting for a log (`block_ms`) takes real time.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from engine import limits
from engine.store.base import (
    LINKS,
    MOVED,
    PARTS,
    TIMELINE,
    Conflict,
    DecisionCommit,
    FeatureWrite,
    Forgets,
    LeadWrite,
    LogEntry,
    Mark,
    StoreError,
    StoreFull,
    partition_of,
)
from engine.store.budgetboard import Fenced, Leases, Move, PartUse, Settled, Take
from features import Offset

POLICY_CHANGES_MAX: Final = 1_000

_Found = TypeVar("_Found", bound="dict[int, list[LogEntry]] | list[tuple[str, list[str]]] | list[tuple[str, bytes]]")


class _Values:
    """Values that go away when nobody wrote them for CUSTOMER_KEY_TTL_MS."""

    def __init__(self, clock_ms: Callable[[], int]) -> None:
        self._clock_ms = clock_ms
        self._values: dict[str, tuple[int, bytes]] = {}

    def get(self, name: str) -> bytes | None:
        ends_ms, value = self._values.get(name, (0, b""))
        return value if self._clock_ms() < ends_ms else None

    def put(self, name: str, value: bytes) -> None:
        self._values[name] = (self._clock_ms() + limits.CUSTOMER_KEY_TTL_MS, value)

    def drop(self, name: str) -> None:
        self._values.pop(name, None)

    def matches(self, name: str, expected: bytes) -> bool:
        """Whether the value begins with `expected`; for b"", whether there is none."""
        value = self.get(name)
        if value is None or not expected:
            return value is None and not expected
        return value.startswith(expected)


class _Log:
    """A log with positions as a stream gives them; one that is older than the clock says gets the next number."""

    def __init__(self, clock_ms: Callable[[], int]) -> None:
        self.data: dict[Offset, bytes] = {}
        self.positions: list[Offset] = []
        """Keys of `data`, in order."""
        self._clock_ms = clock_ms
        self.last = Offset.ZERO

    def append(self, data: bytes) -> Offset:
        now_ms = self._clock_ms()
        self.last = Offset(now_ms, 0) if now_ms > self.last.ms else Offset(self.last.ms, self.last.seq + 1)
        self.data[self.last] = data
        self.positions.append(self.last)
        return self.last

    def after(self, offset: Offset, count: int) -> list[LogEntry]:
        start = bisect_right(self.positions, offset)
        return [LogEntry(at, self.data[at]) for at in self.positions[start : start + count]]

    def delete(self, positions: Sequence[Offset]) -> int:
        gone = [at for at in positions if self.data.pop(at, None) is not None]
        left = set(self.positions).difference(gone) if gone else ()
        self.positions = sorted(left) if gone else self.positions
        return len(gone)

    def trim(self, entries_max: int, up_to: Offset) -> None:
        """Drop the oldest beyond `entries_max`, but none after `up_to`."""
        excess = len(self.data) - entries_max
        if excess > 0:
            excess = min(excess, bisect_right(self.positions, up_to))
            for at in self.positions[:excess]:
                del self.data[at]
            del self.positions[:excess]


class Account:
    """What one partition has of a budget in a period."""

    def __init__(self) -> None:
        self.confirmed = 0
        self.reserved: dict[int, int] = {}
        self.taken: dict[int, int] = {}
        self.swept_ms = 0

    def take(self, take: Take) -> None:
        """Units that a decision takes."""
        self.taken[take.lease] += take.units
        if not take.end_ms:
            self.confirmed += take.units
        elif take.end_ms > self.swept_ms:
            self.reserved[take.end_ms] = self.reserved.get(take.end_ms, 0) + take.units

    def move(self, move: Move) -> int:
        """Units that are late."""
        stands, there = move.end_ms > self.swept_ms, self.reserved.get(move.end_ms, 0)
        reserved = move.old == "r" and stands and there >= move.units
        if reserved:
            self.reserved[move.end_ms] -= move.units
        elif move.old == "c":
            self.confirmed = max(0, self.confirmed - move.units)
        if move.new == "c":
            self.confirmed += move.units
            return 0 if reserved else move.units
        if move.new == "r" and stands:
            self.reserved[move.end_ms] = self.reserved.get(move.end_ms, 0) + move.units
        return 0

    def sweep(self, now_ms: int) -> PartUse:
        """What it has, without reservations that have ended."""
        ended = [end_ms for end_ms in self.reserved if end_ms <= now_ms]
        for end_ms in ended:
            del self.reserved[end_ms]
        self.swept_ms = max([self.swept_ms, *ended])
        return PartUse(self.confirmed, sum(self.reserved.values()), dict(self.taken))


class MemoryStore:
    """Store in the memory of this process."""

    def __init__(
        self,
        partitions: int,
        clock_ms: Callable[[], int],
        *,
        event_log_entries_max: int = limits.EVENT_LOG_ENTRIES_MAX,
        decision_log_entries_max: int = limits.DECISION_LOG_ENTRIES_MAX,
        dead_letters_max: int = limits.DEAD_LETTERS_MAX,
    ) -> None:
        assert partitions > 0
        self.partitions = partitions
        self.dead: list[tuple[bytes, str]] = []
        self._limits = (event_log_entries_max, decision_log_entries_max, dead_letters_max)
        self._features = _Values(clock_ms)
        self._ledgers = _Values(clock_ms)
        self._timelines = _Values(clock_ms)
        self._beside = {PARTS: _Values(clock_ms), LINKS: _Values(clock_ms), TIMELINE: self._timelines}
        self._events = [_Log(clock_ms) for _ in range(partitions)]
        self._decisions = [_Log(clock_ms) for _ in range(partitions)]
        self._folded = [Offset.ZERO] * partitions
        self._marks: list[dict[str, bytes]] = [{} for _ in range(partitions)]
        self._forgets = [Forgets() for _ in range(partitions)]
        self._receipts = _Values(clock_ms)
        self._policy_head: bytes | None = None
        self._policy: dict[str, bytes] = {}
        self._policies_kept: dict[int, bytes] = {}
        self._changes = _Log(clock_ms)
        self._checkpoint: dict[str, bytes] = {}
        self._configs: dict[str, bytes] = {}
        self._notes: dict[str, bytes] = {}
        self._layouts: dict[int, str] = {}
        self._accounts: list[dict[str, Account]] = [{} for _ in range(partitions)]
        self._leases: dict[str, tuple[int, dict[int, tuple[int, str]]]] = {}
        self._budget_notes: dict[str, bytes] = {}
        self._leases_made = 0
        self._versions: dict[str, bytes] = {}
        self._trail = _Log(clock_ms)
        self._leads: dict[str, dict[str, bytes]] = {}
        self._queues: dict[tuple[str, str], set[str]] = {}
        self._lead_lists: dict[str, bytes] = {}
        self._arrived = asyncio.Event()

    # --- State ------------------------------------------------------------------------------------------------------

    async def read(self, customers: Sequence[str]) -> list[tuple[bytes | None, bytes | None]]:
        """(features, ledger) of each customer."""
        return [(self._features.get(customer), self._ledgers.get(customer)) for customer in customers]

    async def commit_decisions(
        self, commits: Sequence[DecisionCommit]
    ) -> list[Offset | Conflict | Fenced | StoreError]:
        """Write each ledger, append its record and take its units."""
        results: list[Offset | Conflict | Fenced | StoreError] = []
        for commit in commits:
            if commit.unmoved and (self._features.get(commit.customer) or b"").startswith(MOVED):
                results.append(Conflict())
                continue
            accounts = [self._account(commit.customer, take.account) for take in commit.takes]
            pairs = list(zip(accounts, commit.takes, strict=True))
            invalid = [take.lease for account, take in pairs if take.lease not in account.taken]
            if invalid and self._ledgers.matches(commit.customer, commit.ledger_expected):
                results.append(Fenced(invalid[0]))
                continue
            result = self._commit(commit.customer, commit.ledger_expected, commit.record)
            if isinstance(result, Offset):
                position = result.ms.to_bytes(8, "little") + result.seq.to_bytes(4, "little")
                self._ledgers.put(commit.customer, commit.ledger_head + position + commit.ledger_tail)
                for account, take in pairs:
                    account.take(take)
            results.append(result)
        return results

    def _account(self, customer: str, account: str) -> Account:
        return self._accounts[partition_of(customer, self.partitions)].setdefault(account, Account())

    async def commit_outcome(
        self, customer: str, ledger_expected: bytes, ledger: bytes, entry: bytes
    ) -> Offset | Conflict:
        """Replace a ledger and append an outcome."""
        result = self._commit(customer, ledger_expected, entry)
        if isinstance(result, Offset):
            self._ledgers.put(customer, ledger)
        return result

    def _commit(self, customer: str, expected: bytes, entry: bytes) -> Offset | Conflict:
        if not self._ledgers.matches(customer, expected):
            return Conflict()
        log = self._decisions[partition_of(customer, self.partitions)]
        offset = log.append(entry)
        log.trim(self._limits[1], offset)
        self._wake()
        return offset

    # --- DecisionLog ------------------------------------------------------------------------------------------------

    async def entries(self, positions: Sequence[tuple[int, Offset]]) -> list[bytes | None]:
        """Entries by (partition, offset)."""
        return [self._decisions[partition].data.get(offset) for partition, offset in positions]

    async def read_decisions(self, after: Mapping[int, Offset], count: int, block_ms: int) -> dict[int, list[LogEntry]]:
        """New entries of the decision log by partition."""
        return await self._wait(lambda: _after(self._decisions, after, count), block_ms)

    async def commit_forget(self, customer: str, ledger_expected: bytes, entry: bytes) -> Offset | Conflict:
        """Append an entry that forgets and remove the ledger."""
        result = self._commit(customer, ledger_expected, entry)
        if isinstance(result, Offset):
            self._ledgers.drop(customer)
            home = partition_of(customer, self.partitions)
            known = self._forgets[home]
            self._forgets[home] = known._replace(pending=(*known.pending, result))
        return result

    async def forgets(self) -> dict[int, Forgets]:
        """The entries that forget, by partition."""
        return dict(enumerate(self._forgets))

    async def finish_forget(self, partition: int, entry: Offset, positions: Sequence[Offset], lessons: int) -> None:
        """Remove entries of the decision log; the one that forgets them is finished."""
        self._decisions[partition].delete(positions)
        done, pending, finished = self._forgets[partition]
        kept = dict(sorted({**finished, entry: lessons}.items())[-limits.FORGETS_KEPT_ENTRIES_MAX :])
        left = tuple(at for at in pending if at != entry)
        self._forgets[partition] = Forgets(max(done, entry), left, kept)

    async def save_receipt(self, partition: int, request: str, value: bytes) -> None:
        """Keep the receipt of a request to forget."""
        self._receipts.put(f"{partition}:{request}", value)

    async def load_receipt(self, partition: int, request: str) -> bytes | None:
        """The receipt of a request to forget."""
        return self._receipts.get(f"{partition}:{request}")

    # --- Feed -------------------------------------------------------------------------------------------------------

    async def append_events(self, events: Sequence[tuple[str, bytes]]) -> list[Offset]:
        """Append all events."""
        offsets = [self._events[partition_of(customer, self.partitions)].append(data) for customer, data in events]
        self._wake()
        return offsets

    async def backlog(self) -> dict[int, int]:
        """Events of each partition that are not folded yet."""
        pairs = enumerate(zip(self._events, self._folded, strict=True))
        return {n: len(log.positions) - bisect_right(log.positions, folded) for n, (log, folded) in pairs}

    async def dead_letters(self, letters: Sequence[tuple[bytes, str]]) -> None:
        """Keep (payload, reason) of refused input."""
        self.dead += letters
        del self.dead[: max(0, len(self.dead) - self._limits[2])]

    async def drop_dead_letters(self, mentions: Callable[[bytes, str], bool]) -> int:
        """Remove those dead letters."""
        before = len(self.dead)
        self.dead = [letter for letter in self.dead if not mentions(*letter)]
        return before - len(self.dead)

    async def delete_events(self, partition: int, positions: Sequence[Offset]) -> int:
        """Remove entries of the event log."""
        return self._events[partition].delete(positions)

    async def read_events(self, after: Mapping[int, Offset], count: int, block_ms: int) -> dict[int, list[LogEntry]]:
        """New events by partition."""
        return await self._wait(lambda: _after(self._events, after, count), block_ms)

    async def read_features(self, customers: Sequence[str]) -> list[bytes | None]:
        """Features of each customer."""
        return [self._features.get(customer) for customer in customers]

    async def read_beside(self, kind: str, customers: Sequence[str]) -> list[bytes | None]:
        """The value of one kind of each customer."""
        return [self._beside[kind].get(customer) for customer in customers]

    async def read_timelines(self, customers: Sequence[str]) -> list[bytes | None]:
        """Timeline of each customer."""
        return [self._timelines.get(customer) for customer in customers]

    async def write_features(
        self, partition: int, writes: Sequence[FeatureWrite], folded: Offset, events: int
    ) -> list[bool]:
        """Write features, timelines and the position folded; trim the log."""
        written = [self._as_expected(write) for write in writes]
        for write, matches in zip(writes, written, strict=True):
            if matches:
                self._write(write)
        if all(written) and folded > self._folded[partition]:
            self._folded[partition] = folded
            self._events[partition].trim(self._limits[0], folded)
        return written

    def _write(self, write: FeatureWrite) -> None:
        if write.record:
            self._features.put(write.customer, write.record)
        else:
            self._features.drop(write.customer)
        for beside in write.values:
            if beside.value:
                self._beside[beside.kind].put(write.customer, beside.value)
            else:
                self._beside[beside.kind].drop(write.customer)

    def _as_expected(self, write: FeatureWrite) -> bool:
        return self._features.matches(write.customer, write.expected) and all(
            self._beside[beside.kind].matches(write.customer, beside.expected)
            for beside in write.values
            if beside.expected is not None
        )

    async def folded(self) -> dict[int, Offset]:
        """Position up to which each partition of the event log is folded; Offset.ZERO where nothing is."""
        return dict(enumerate(self._folded))

    async def write_records(self, writes: Sequence[FeatureWrite]) -> list[bool]:
        """Write features of customers of any partitions, and what stands beside them."""
        written = []
        for write in writes:
            written.append(self._as_expected(write))
            if written[-1]:
                self._write(write)
        return written

    async def remember(self, name: str, first: bytes | None = None) -> bytes | None:
        """What is noted about the broker under a name."""
        return self._notes.get(name) if first is None else self._notes.setdefault(name, first)

    async def write_marked(self, partition: int, writes: Sequence[FeatureWrite], mark: Mark) -> list[bool] | Conflict:
        """Write features and a mark, all or nothing."""
        if self._marks[partition].get(mark.name, b"") != mark.expected:
            return Conflict()
        matching = [self._as_expected(write) for write in writes]
        if all(matching):
            for write in writes:
                self._write(write)
            self._marks[partition][mark.name] = mark.value
        return matching

    async def marks(self, partition: int) -> dict[str, bytes]:
        """All marks of a partition."""
        return dict(self._marks[partition])

    # --- LeadBoard --------------------------------------------------------------------------------------------------

    async def write_leads(self, list_id: str, writes: Sequence[LeadWrite]) -> list[bool]:
        """Write each lead and move it between queues."""
        leads = self._leads.setdefault(list_id, {})
        written = []
        for write in writes:
            written.append(_swap(leads, write.lead_id, write.expected, write.value, limits.LEAD_LIST_ENTRIES_MAX))
            if written[-1]:
                if write.leaves is not None:
                    self._queues.setdefault((list_id, write.leaves), set()).discard(write.lead_id)
                if write.enters is not None:
                    self._queues.setdefault((list_id, write.enters), set()).add(write.lead_id)
        return written

    async def read_leads(self, list_id: str, lead_ids: Sequence[str]) -> list[bytes | None]:
        """Leads by id."""
        return [self._leads.get(list_id, {}).get(lead_id) for lead_id in lead_ids]

    async def all_leads(self, list_id: str) -> dict[str, bytes]:
        """All leads of a list."""
        return dict(self._leads.get(list_id, {}))

    async def lead_queue(self, list_id: str, seller: str) -> list[str]:
        """Ids in one queue of a list."""
        return list(self._queues.get((list_id, seller), ()))

    async def write_lead_list(self, list_id: str, expected: bytes, value: bytes) -> bool:
        """Note something of a list."""
        return _swap(self._lead_lists, list_id, expected, value, limits.LEAD_LISTS_ENTRIES_MAX)

    async def lead_lists(self) -> dict[str, bytes]:
        """The notes of all lists."""
        return dict(self._lead_lists)

    # --- PolicyBoard ------------------------------------------------------------------------------------------------

    async def publish_policy(self, head: bytes, offers: Mapping[str, bytes]) -> None:
        """Replace the head and the offers given, and tell which changed."""
        self._policy_head = head
        self._policy.update(offers)
        self._changes.append("\0".join(offers).encode())
        self._changes.trim(POLICY_CHANGES_MAX, self._changes.last)
        self._wake()

    async def read_policy(self, offers: Sequence[str] | None = None) -> tuple[bytes | None, dict[str, bytes]]:
        """(head, offers); all offers if None."""
        wanted = self._policy if offers is None else offers
        return self._policy_head, {offer: self._policy[offer] for offer in wanted if offer in self._policy}

    async def policy_changes(self, after: str, block_ms: int) -> list[tuple[str, list[str]]]:
        """(position, changed offers) of each snapshot after `after`."""
        start = self._changes.last if after == "$" else Offset.parse(after or "0-0")
        return await self._wait(lambda: _changes(self._changes.after(start, POLICY_CHANGES_MAX)), block_ms)

    async def keep_policy(self, version: int, data: bytes, let_go: Sequence[int] = ()) -> None:
        """Keep a policy by its version for explaining, and let go of others."""
        for old in let_go:
            self._policies_kept.pop(old, None)
        self._policies_kept[version] = data

    async def kept_policies(self) -> list[int]:
        """Versions of the policies kept, oldest first."""
        return sorted(self._policies_kept)

    async def kept_policy(self, version: int) -> bytes | None:
        """A policy kept earlier."""
        return self._policies_kept.get(version)

    async def save_checkpoint(self, fields: Mapping[str, bytes], removed: Sequence[str] = ()) -> None:
        """Replace fields of the learner's checkpoint, and drop others."""
        for name in removed:
            self._checkpoint.pop(name, None)
        self._checkpoint.update(fields)

    async def load_checkpoint(self) -> dict[str, bytes]:
        """All fields of the learner's checkpoint."""
        return dict(self._checkpoint)

    async def save_config(self, version: str, text: bytes) -> None:
        """Keep a configuration by its version."""
        self._configs[version] = text

    async def save_layout(self, layout: int, config: str) -> None:
        """Keep which configuration has a layout."""
        self._layouts[layout] = config

    async def load_layouts(self) -> dict[int, str]:
        """Versions of configurations by the version of their layout."""
        return dict(self._layouts)

    async def load_config(self, version: str) -> bytes | None:
        """A configuration kept earlier."""
        return self._configs.get(version)

    # --- BudgetBoard ------------------------------------------------------------------------------------------------

    async def settle_outcome(
        self, customer: str, ledger_expected: bytes, ledger: bytes, entry: bytes, moves: Sequence[Move]
    ) -> Settled | None:
        """Replace a ledger, append an outcome and move units."""
        result = self._commit(customer, ledger_expected, entry)
        if isinstance(result, Conflict):
            return None
        self._ledgers.put(customer, ledger)
        return Settled(result, sum(self._account(customer, move.account).move(move) for move in moves))

    async def budget_notes(self) -> dict[str, bytes]:
        """What servers noted for each other."""
        return dict(self._budget_notes)

    async def note_budgets(self, fields: Mapping[str, bytes], removed: Sequence[str] = ()) -> None:
        """Note something, and remove notes."""
        for name in removed:
            self._budget_notes.pop(name, None)
        self._budget_notes.update(fields)

    async def new_lease(self) -> int:
        """A number that no lease had."""
        self._leases_made += 1
        return self._leases_made

    async def leases(self, account: str) -> Leases:
        """The open leases of an account."""
        version, by_id = self._leases.get(account, (0, {}))
        return Leases(version, dict(by_id))

    async def use(self, account: str, now_ms: int) -> list[PartUse]:
        """What each partition has, without the reservations that ended."""
        return [accounts.setdefault(account, Account()).sweep(now_ms) for accounts in self._accounts]

    async def enrol(self, account: str, lease: int) -> None:
        """Make a lease valid in every partition."""
        for accounts in self._accounts:
            accounts.setdefault(account, Account()).taken[lease] = 0

    async def grant(self, account: str, version: int, lease: int, units: int, server: str) -> bool:
        """Open a lease if none was granted since."""
        now_at, by_id = self._leases.get(account, (0, {}))
        if now_at != version:
            return False
        self._leases[account] = version + 1, {**by_id, lease: (units, server)}
        return True

    async def end_lease(self, account: str, lease: int) -> None:
        """Make a lease invalid in every partition, then close it."""
        for accounts in self._accounts:
            accounts.setdefault(account, Account()).taken.pop(lease, None)
        version, by_id = self._leases.get(account, (0, {}))
        self._leases[account] = version, {at: held for at, held in by_id.items() if at != lease}

    async def read_versions(self) -> dict[str, bytes]:
        """The history of configurations."""
        return dict(self._versions)

    async def change_versions(self, revision: bytes, fields: Mapping[str, bytes], entry: bytes) -> bool:
        """Replace fields of the history and append to its trail, if the revision is as expected."""
        if self._versions.get("_revision", b"") != revision:
            return False
        self._trail.append(entry)
        self._trail.trim(limits.VERSION_TRAIL_ENTRIES_MAX, self._trail.last)
        self._versions.update(fields)
        self._wake()
        return True

    async def version_changes(self, after: str, block_ms: int) -> list[tuple[str, bytes]]:
        """(position, entry) of the trail after a position."""
        start = Offset.parse(after or "0-0")

        def look() -> list[tuple[str, bytes]]:
            found = self._trail.after(start, limits.VERSION_TRAIL_ENTRIES_MAX)
            return [(str(entry.offset), entry.data) for entry in found]

        return await self._wait(look, block_ms)

    # --- the object itself ------------------------------------------------------------------------------------------

    async def ping(self) -> None:
        """Always answers."""

    async def close(self) -> None:
        """Nothing to let go of."""

    def _wake(self) -> None:
        self._arrived.set()
        self._arrived = asyncio.Event()

    async def _wait(self, look: Callable[[], _Found], block_ms: int) -> _Found:
        """What `look` finds, as soon as it finds something, at the latest after `block_ms`."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + block_ms / 1e3
        while not (found := look()) and (left_s := deadline_s - loop.time()) > 0:
            try:
                async with asyncio.timeout(left_s):
                    await self._arrived.wait()
            except TimeoutError:
                return look()
        return found


def _swap(values: dict[str, bytes], name: str, expected: bytes, value: bytes, entries_max: int) -> bool:
    """Replace a value if it is as expected, b"" meaning none in both. Raises StoreFull."""
    if values.get(name, b"") != expected:
        return False
    if not expected and len(values) >= entries_max:
        raise StoreFull(f"{entries_max} entries are there already")
    if value:
        values[name] = value
    else:
        values.pop(name, None)
    return True


def _after(logs: Sequence[_Log], after: Mapping[int, Offset], count: int) -> dict[int, list[LogEntry]]:
    found = {partition: logs[partition].after(offset, count) for partition, offset in after.items()}
    return {partition: entries for partition, entries in found.items() if entries}


def _changes(entries: Sequence[LogEntry]) -> list[tuple[str, list[str]]]:
    return [(str(entry.offset), entry.data.decode().split("\0") if entry.data else []) for entry in entries]
