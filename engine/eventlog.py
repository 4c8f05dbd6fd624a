"""The event log, read again: the streams of a store here, the topic of Kafka in engine.kafka.eventlog."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from engine.ingest import logged_event
from engine.limits import EVENT_LOG_ENTRIES_MAX, INGEST_BATCH_MAX
from engine.store.base import Store, StoreUnavailable
from features import Event, Offset


class Arrival(NamedTuple):
    """An event of the log."""

    customer: str
    event: Event
    arrived_ms: int
    """When it came into the log, ms since 1970 UTC."""


class Piece(NamedTuple):
    """What one read of a partition gave."""

    arrivals: Sequence[Arrival]
    entries: int
    """How many were read, with those that ingest passes over because they are no events."""
    reached: Offset
    """Position of the last one."""


class EventLog(Protocol):
    """Partitions of events, each in the order in which ingest folds it."""

    @property
    def partitions(self) -> int:
        """Their number."""
        ...

    @property
    def begins(self) -> Offset:
        """Before all positions of this log; those of one that the store was filled from earlier are before it."""
        ...

    async def folded(self) -> Sequence[Offset]:
        """Position of each partition up to which all is folded; more may be."""
        ...

    async def read(self, partition: int, after: Offset) -> Piece | None:
        """What comes after a position, as much as is handy; None if nothing does."""
        ...

    async def cut(self, partition: int, entries: int) -> bool:
        """Whether a partition had more once than the `entries` that can be read of it."""
        ...


class StreamLog:
    """The event log in the streams of a store. What asks the store raises StoreError."""

    def __init__(self, store: Store, entries_max: int = EVENT_LOG_ENTRIES_MAX) -> None:
        """`entries_max` is the length from which a partition may have been trimmed."""
        self._store = store
        self._entries_max = entries_max

    @property
    def partitions(self) -> int:
        """See EventLog."""
        return self._store.partitions

    @property
    def begins(self) -> Offset:
        """See EventLog."""
        return Offset.ZERO

    async def folded(self) -> Sequence[Offset]:
        """See EventLog."""
        folded = await self._store.folded()
        if away := set(range(self._store.partitions)) - set(folded):
            raise StoreUnavailable(f"partitions {sorted(away)} are on nodes of the cluster that are away")
        return [folded[partition] for partition in range(self._store.partitions)]

    async def read(self, partition: int, after: Offset) -> Piece | None:
        """See EventLog."""
        entries = (await self._store.read_events({partition: after}, INGEST_BATCH_MAX, 0)).get(partition)
        if not entries:
            if partition not in await self._store.folded():
                raise StoreUnavailable(f"partition {partition} is on a node of the cluster that is away")
            return None
        arrivals = []
        for entry in entries:
            try:
                arrivals.append(Arrival(*logged_event(entry), entry.offset.ms))
            except ValueError:
                continue
        return Piece(arrivals, len(entries), entries[-1].offset)

    async def cut(self, partition: int, entries: int) -> bool:
        """See EventLog."""
        return entries >= self._entries_max
