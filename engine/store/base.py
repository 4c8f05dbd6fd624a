"""What the engine needs of a store, as small protocols, and the keys behind them.

In place of a customer may stand another name: of an identity (engine.identity), of a household (engine.rollups). Every
key of a customer and both logs of its partition share the hash tag `{pN}`, N = crc32(customer) mod partitions.
So a script may touch a customer's ledger and the decision log in one atomic step, on a cluster too.

| key | what | lives |
|---|---|---|
| `{pN}f:<customer>` | features, written only by ingest | CUSTOMER_KEY_TTL_MS |
| `{pN}l:<customer>` | ledger, written by decisions and reports | CUSTOMER_KEY_TTL_MS |
| `{pN}t:<customer>` | timeline, written only by ingest, with the features | CUSTOMER_KEY_TTL_MS after its last entry |
| `{pN}g:<customer>` | parts: of whom a linked record is made, written with the features | CUSTOMER_KEY_TTL_MS |
| `{pN}e:<customer>` | links: identities, entities and lineage, written with the features | CUSTOMER_KEY_TTL_MS |
| `{pN}forgets` | entries that forget: pending, or how many lessons each took back; the newest done | for good |
| `{pN}r:<request>` | receipt of a request to forget, by the hash of its id and the customer | CUSTOMER_KEY_TTL_MS |
| `{pN}events` | log of events, a stream | EVENT_LOG_ENTRIES_MAX |
| `{pN}decisions` | log of decisions and outcomes in causal order, a stream | DECISION_LOG_ENTRIES_MAX |
| `{pN}folded` | position up to which the event log is folded, and how many events that was | for good |
| `{pN}b:<account>` | what is taken of a budget in a period, a hash | CUSTOMER_KEY_TTL_MS; without periods for good |
| `budget:<account>` | leases of its units that servers have, a hash | as long |
| `budgets` | what servers tell each other about budgets, a hash | for good |
| `{pN}marks` | how far work beside the event log has come, such as a backfill, a hash | for good |
| `{pN}leads:<list>` | leads of a list by id, a hash; N = crc32(list) mod partitions | LEAD_LIST_TTL_MS |
| `{pN}queue:<list>/<seller>` | ids of the leads of one seller, or of those for anybody, a set | LEAD_LIST_TTL_MS |
| `dead` | dead letters, a stream; large ones are shortened | DEAD_LETTERS_MAX, of DEAD_LETTER_BYTES_MAX each |
| `policy` | the served policy, a hash: by offer, by `@name/offer` of challengers that serve, `_head` | for good |
| `{policy}:changes` | stream of snapshot versions and the offers each changed | 1,000 entries |
| `{policy}:kept` | weights of earlier policies by version, a hash, to explain with | POLICIES_KEPT_BYTES_MAX |
| `learner` | checkpoint of the learner, a hash | for good |
| `config:<version>` | configuration files by version, for reading old records | for good |
| `versions` | the catalogues and policies by version, with who and when, and which is active, a hash | for good |
| `{versions}:trail` | what was done with them: who, when, what, from, to, a stream | VERSION_TRAIL_ENTRIES_MAX |
| `kafka` | which Kafka topic the events come from, if they do, a hash | for good |
| `leadlists` | lists of leads and when the first of each expires, a hash | LEAD_LISTS_ENTRIES_MAX |
| `layouts` | which configuration a layout of features belongs to, a hash by layout version | for good |
| `meta` | format of the store and number of partitions, a hash | for good |
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol
from zlib import crc32

from engine.store.budgetboard import BudgetBoard, Fenced, Take
from features import Offset

__all__ = [
    "LINKS",
    "PARTS",
    "Beside",
    "Conflict",
    "DecisionCommit",
    "DecisionLog",
    "FeatureWrite",
    "Feed",
    "Forgets",
    "LeadBoard",
    "LeadWrite",
    "LogEntry",
    "Mark",
    "PartlyUnavailable",
    "PolicyBoard",
    "State",
    "Store",
    "StoreError",
    "StoreFull",
    "StoreUnavailable",
    "partition_of",
]


class StoreError(Exception):
    """The store refused something it should have taken: a bug or a damaged store."""


class StoreUnavailable(StoreError):
    """The store did not answer in time, is loading, or is away. Whether a write took place is not known."""


class PartlyUnavailable(StoreUnavailable):
    """Of several nodes, some did not answer: `found` has (features, ledger) of each customer, None where unknown."""

    def __init__(self, message: str, found: "Sequence[tuple[bytes | None, bytes | None] | None]") -> None:
        super().__init__(message)
        self.found = found


class StoreFull(StoreError):
    """The store refused a write for want of memory or disk. Nothing was written."""


class Conflict:
    """Somebody else changed the value first: read it again."""

    def __repr__(self) -> str:
        return "Conflict()"


def partition_of(customer: str, partitions: int) -> int:
    """Partition that a customer's events, decisions and outcomes live in."""
    return crc32(customer.encode()) % partitions


class LogEntry(NamedTuple):
    """One entry of a log: its position and its bytes."""

    offset: Offset
    data: bytes


class DecisionCommit(NamedTuple):
    """One decision to be made durable.

    The new ledger is `ledger_head + <position of the log entry> + ledger_tail`, where the position is the 12 bytes
    `<Q ms><I seq>` that the log gave the entry: the ledger names a decision that has its name only once it is written.
    """

    customer: str
    ledger_expected: bytes
    """First ledger.CAS_BYTES bytes of the ledger that the decision was made from; b"" if there was none."""
    ledger_head: bytes
    ledger_tail: bytes
    record: bytes
    takes: tuple[Take, ...] = ()
    """Units that it takes from leases, in the same step."""
    unmoved: bool = False
    """Whether it is a conflict, too, if the customer belongs to another one by now: see MOVED."""


MOVED: Final = b"MV\x01\x00"
"""Begins what stands in place of the features of a name that belongs to a customer (engine.links)."""


PARTS: Final = "g"
LINKS: Final = "e"
TIMELINE: Final = "t"
"""Kinds of values that stand beside a customer's features: the letters of their keys."""
EVENTS_IN_KAFKA: Final = "events"
"""What is noted (`remember`) where events come from Kafka, and not from the store's own log: the topic."""


class Beside(NamedTuple):
    """A further value of a customer, written in the same step as the features or not at all."""

    kind: str
    """PARTS, LINKS or TIMELINE."""
    value: bytes
    """b"": there shall be none."""
    expected: bytes | None = None
    """First bytes of the value that it replaces; b"": there is none; None: whatever is there."""


@dataclass(frozen=True, slots=True)
class FeatureWrite:
    """One customer's features, to be written if its first features.HEADER_CAS_BYTES bytes are still `expected`.

    An empty `record` leaves the customer without features. All of a write takes place or none of it: if what one value
    `beside` expects is not there, nothing of this customer is written.
    """

    customer: str
    expected: bytes
    record: bytes
    timeline: bytes = b""
    """Written together with the features; b"": the timeline stays as it is."""
    beside: tuple[Beside, ...] = ()

    @property
    def values(self) -> tuple[Beside, ...]:
        """All that is written beside the record."""
        return (*self.beside, Beside(TIMELINE, self.timeline)) if self.timeline else self.beside


class Mark(NamedTuple):
    """How far some work has come, to be set to `value` if it is still `expected` (b"": not there)."""

    name: str
    expected: bytes
    value: bytes


class Forgets(NamedTuple):
    """The entries of one partition's decision log that forget somebody."""

    done: Offset = Offset.ZERO
    """The newest whose records are removed: a checkpoint that has not read so far knows too much."""
    pending: tuple[Offset, ...] = ()
    """Those whose records wait for the learner, oldest first."""
    finished: Mapping[Offset, int] = MappingProxyType({})
    """How many lessons were taken back, by entry; the newest FORGETS_KEPT_ENTRIES_MAX."""


class State(Protocol):
    """What a decision reads and writes. Every call is one round trip."""

    async def read(self, customers: Sequence[str]) -> list[tuple[bytes | None, bytes | None]]:
        """(features, ledger) of each customer. Raises StoreUnavailable; PartlyUnavailable if some could be read."""
        ...

    async def commit_decisions(
        self, commits: Sequence[DecisionCommit]
    ) -> list[Offset | Conflict | Fenced | StoreError]:
        """Write each ledger, append its record and take its units in one atomic step a customer.

        Raises StoreUnavailable.
        """
        ...

    async def commit_outcome(
        self, customer: str, ledger_expected: bytes, ledger: bytes, entry: bytes
    ) -> Offset | Conflict:
        """Replace a ledger and append an outcome in one atomic step. Raises StoreUnavailable or StoreFull."""
        ...


class DecisionLog(Protocol):
    """The log of decisions and outcomes.

    Of a log on several nodes, a node that stops answering makes one read fail; while it is away, reads of several
    partitions pass over its partitions.
    """

    async def entries(self, positions: Sequence[tuple[int, Offset]]) -> list[bytes | None]:
        """Entries by (partition, offset); None where there is none (any more)."""
        ...

    async def read_decisions(self, after: Mapping[int, Offset], count: int, block_ms: int) -> dict[int, list[LogEntry]]:
        """New entries by partition, in order, at most `count` a partition; {} after `block_ms` without any."""
        ...

    async def commit_forget(self, customer: str, ledger_expected: bytes, entry: bytes) -> Offset | Conflict:
        """Append an entry that forgets, remove the ledger and note the entry as pending, in one atomic step.

        Conflict if the ledger does not begin with `ledger_expected` (b"": there is none). Raises StoreUnavailable or
        StoreFull.
        """
        ...

    async def forgets(self) -> dict[int, Forgets]:
        """The entries that forget, by partition; partitions of nodes that are away are left out."""
        ...

    async def finish_forget(self, partition: int, entry: Offset, positions: Sequence[Offset], lessons: int) -> None:
        """Remove entries of the decision log, and note the one that forgets them as finished, in one atomic step."""
        ...

    async def save_receipt(self, partition: int, request: str, value: bytes) -> None:
        """Keep the receipt of a request to forget."""
        ...

    async def load_receipt(self, partition: int, request: str) -> bytes | None:
        """The receipt of a request to forget."""
        ...


class Feed(Protocol):
    """The log of events and the features folded from it.

    Of several nodes, one that is away takes only its own partitions along: `folded` and `backlog` leave them out,
    `read_events` passes over them as DecisionLog says, and raises StoreUnavailable once they can be read again, because
    their positions may no longer be what they were.
    """

    async def append_events(self, events: Sequence[tuple[str, bytes]]) -> list[Offset]:
        """Append (customer, event bytes); all durable when it returns. Raises StoreUnavailable or StoreFull.

        When it raises, events of other partitions may have been appended: send all again with the same ids.
        """
        ...

    async def backlog(self) -> dict[int, int]:
        """Events of each partition that are not folded yet (an upper bound)."""
        ...

    async def dead_letters(self, letters: Sequence[tuple[bytes, str]]) -> None:
        """Keep (payload, reason) of refused input."""
        ...

    async def drop_dead_letters(self, mentions: Callable[[bytes, str], bool]) -> int:
        """Remove dead letters of whose payload and reason `mentions` says so; returns how many."""
        ...

    async def delete_events(self, partition: int, positions: Sequence[Offset]) -> int:
        """Remove entries of the event log that are folded; returns how many were still there."""
        ...

    async def read_events(self, after: Mapping[int, Offset], count: int, block_ms: int) -> dict[int, list[LogEntry]]:
        """New events by partition, in order, at most `count` a partition; {} after `block_ms` without any."""
        ...

    async def read_features(self, customers: Sequence[str]) -> list[bytes | None]:
        """Features of each customer."""
        ...

    async def read_beside(self, kind: str, customers: Sequence[str]) -> list[bytes | None]:
        """The value of one kind (PARTS or LINKS) of each customer."""
        ...

    async def read_timelines(self, customers: Sequence[str]) -> list[bytes | None]:
        """Timeline of each customer."""
        ...

    async def write_features(
        self, partition: int, writes: Sequence[FeatureWrite], folded: Offset, events: int
    ) -> list[bool]:
        """Write features, and timelines, of customers of one partition and the position folded, in one atomic step.

        False where `expected` no longer matched: that customer was not written, and the position stays where it is
        until a call can write all that it is given. The position only moves forward.
        Entries of the event log that are folded and beyond EVENT_LOG_ENTRIES_MAX are trimmed.
        """
        ...

    async def folded(self) -> dict[int, Offset]:
        """Position up to which each partition of the event log is folded."""
        ...

    async def write_records(self, writes: Sequence[FeatureWrite]) -> list[bool]:
        """Write features and timelines of customers of any partitions where `expected` still matches; False where not.

        For an event log that keeps its own position, such as Kafka's.
        """
        ...

    async def remember(self, name: str, first: bytes | None = None) -> bytes | None:
        """What is noted about the broker under `name`. If nothing is, `first` is noted; of two who come first one is.

        With `first` None nothing is noted, and None is the answer where nothing was.
        """
        ...

    async def write_marked(self, partition: int, writes: Sequence[FeatureWrite], mark: Mark) -> list[bool] | Conflict:
        """Write the features of customers of one partition and set a mark of that partition, all or nothing.

        Conflict if the mark is not as expected. Otherwise whether each `expected` still matches: if all do, everything
        is written; if one does not, nothing is. The position folded stays as it is.
        """
        ...

    async def marks(self, partition: int) -> dict[str, bytes]:
        """All marks of a partition."""
        ...


class LeadWrite(NamedTuple):
    """One lead, to be written if it is still as expected."""

    lead_id: str
    expected: bytes
    """All of the value that it replaces; b"": there is none."""
    value: bytes
    """b"": there shall be none."""
    leaves: str | None = None
    """Queue that it is taken out of, by seller; "" is the one for anybody."""
    enters: str | None = None
    """Queue that it is put into."""


class LeadBoard(Protocol):
    """Leads of the sales network: lists of them, and a queue of each list for every seller and for anybody."""

    async def write_leads(self, list_id: str, writes: Sequence[LeadWrite]) -> list[bool]:
        """Write each lead and move it between queues in one atomic step a lead; False where it was not as expected.

        Raises StoreUnavailable, and StoreFull if the list has LEAD_LIST_ENTRIES_MAX leads; then some may be written.
        """
        ...

    async def read_leads(self, list_id: str, lead_ids: Sequence[str]) -> list[bytes | None]:
        """Leads by id."""
        ...

    async def all_leads(self, list_id: str) -> dict[str, bytes]:
        """All leads of a list, read piece by piece: one that changes meanwhile may be as before or after."""
        ...

    async def lead_queue(self, list_id: str, seller: str) -> list[str]:
        """Ids in one queue of a list, in no order."""
        ...

    async def write_lead_list(self, list_id: str, expected: bytes, value: bytes) -> bool:
        """Note something of a list if the note is still as expected; b"" in either: there is none.

        Raises StoreFull if LEAD_LISTS_ENTRIES_MAX lists are known.
        """
        ...

    async def lead_lists(self) -> dict[str, bytes]:
        """The notes of all lists."""
        ...


class PolicyBoard(Protocol):
    """Where the learner leaves its policy and its checkpoint and the servers find the policy."""

    async def publish_policy(self, head: bytes, offers: Mapping[str, bytes]) -> None:
        """Replace the head and the offers given in one atomic step, and tell the servers which offers changed."""
        ...

    async def read_policy(self, offers: Sequence[str] | None = None) -> tuple[bytes | None, dict[str, bytes]]:
        """(head, offers), read in one atomic step; all offers if None."""
        ...

    async def policy_changes(self, after: str, block_ms: int) -> list[tuple[str, list[str]]]:
        """(position, changed offers) of each snapshot after `after` ("$": from now on; "": from the oldest kept)."""
        ...

    async def keep_policy(self, version: int, data: bytes, let_go: Sequence[int] = ()) -> None:
        """Keep a policy by its version for explaining, and let go of others, in one atomic step."""
        ...

    async def kept_policies(self) -> list[int]:
        """Versions of the policies kept, oldest first."""
        ...

    async def kept_policy(self, version: int) -> bytes | None:
        """A policy kept earlier."""
        ...

    async def save_checkpoint(self, fields: Mapping[str, bytes], removed: Sequence[str] = ()) -> None:
        """Replace fields of the learner's checkpoint, and drop others, in one atomic step."""
        ...

    async def load_checkpoint(self) -> dict[str, bytes]:
        """All fields of the learner's checkpoint; {} if there is none."""
        ...

    async def save_config(self, version: str, text: bytes) -> None:
        """Keep a configuration by its version; writing it again is harmless."""
        ...

    async def save_layout(self, layout: int, config: str) -> None:
        """Keep which configuration has a layout of features; writing it again is harmless."""
        ...

    async def load_layouts(self) -> dict[int, str]:
        """Versions of configurations by the version of their layout."""
        ...

    async def load_config(self, version: str) -> bytes | None:
        """A configuration kept earlier."""
        ...

    async def read_versions(self) -> dict[str, bytes]:
        """The history of configurations, as `change_versions` left it; {} at first."""
        ...

    async def change_versions(self, revision: bytes, fields: Mapping[str, bytes], entry: bytes) -> bool:
        """If the field "_revision" is still `revision` (b"": not there), replace fields and append to the trail.

        All of it in one atomic step, or nothing and False. `fields` has the next revision, too.
        """
        ...

    async def version_changes(self, after: str, block_ms: int) -> list[tuple[str, bytes]]:
        """(position, entry) of the trail after a position ("": from the oldest kept); [] after `block_ms` without."""
        ...


class Store(State, DecisionLog, Feed, LeadBoard, PolicyBoard, BudgetBoard, Protocol):
    """All of it: RedisStore for service, MemoryStore for tests and simulation, one contract suite for both."""

    partitions: int

    async def ping(self) -> None:
        """Raise StoreUnavailable unless the store answers."""
        ...

    async def close(self) -> None:
        """Let go of connections. The data stays."""
        ...
