"""Records of the events topic into the store.

The batch is folded customer by customer, and each record of state is replaced only if nobody else replaced it
meanwhile; who lost a race reads again. Nothing else is written, so there is nothing that could be half done: a crash
leaves some customers with the batch and some without, and the next who gets it ignores what is behind a watermark.
"""

import logging
from collections.abc import Sequence

import orjson

from engine.ingest import logged_event
from engine.kafka.sequence import Record
from engine.kafka.topics import Incarnation
from engine.store.base import FeatureWrite, LogEntry, Store
from features import HEADER_CAS_BYTES, Event, Layout, RecordError

log = logging.getLogger(__name__)

Letter = tuple[bytes, str]
"""(payload, reason)"""


def events_of(batch: Sequence[Record], known: Incarnation) -> tuple[dict[str, list[Event]], list[Letter]]:
    """Events of a batch by customer, in order, and what is no event, with the reason."""
    events: dict[str, list[Event]] = {}
    dead: list[Letter] = []
    for record in batch:
        where = f"{record.topic}[{record.partition}] offset {record.offset}"
        try:
            customer, event = logged_event(LogEntry(known.position(record.offset), record.value or b""))
        except ValueError as error:
            dead.append((record.value or b"", f"{where}: no event of this engine: {error}"))
            continue
        home = known.partition_of(customer)
        if home != record.partition:
            # Folded here, it would race with the customer's events in the right partition for one watermark.
            dead.append((record.value or b"", f"{where}: customer {customer!r} belongs to partition {home}"))
            continue
        events.setdefault(customer, []).append(event)
    return events, dead


class Folder:
    """Folds batches into one store."""

    def __init__(self, layout: Layout, store: Store) -> None:
        self._layout = layout
        self._store = store

    async def fold(self, events: dict[str, list[Event]]) -> list[Letter]:
        """Bring the records of these customers up to date; all written when it returns. Raises StoreError.

        Returns events that cannot be folded: of the right form and yet nothing that the gateway would have let in.
        """
        dead: list[Letter] = []
        while events:
            old = await self._store.read_features(list(events))
            new = self._folded(events, old, dead)
            writes = [
                FeatureWrite(customer, (before or b"")[:HEADER_CAS_BYTES], after)
                for customer, before, after in zip(events, old, new, strict=True)
                if after is not None and after != before
            ]
            written = await self._store.write_records(writes)
            # Somebody else wrote first: two workers meet only while one takes over from the other.
            lost = [write.customer for write, ok in zip(writes, written, strict=True) if not ok]
            events = {customer: events[customer] for customer in lost}
        return dead

    def _folded(
        self, events: dict[str, list[Event]], records: Sequence[bytes | None], dead: list[Letter]
    ) -> list[bytes | None]:
        """The next record of each customer. Events that cannot be folded are taken out and added to `dead`."""
        return [
            self._next(customer, record, events[customer], dead)
            for customer, record in zip(events, records, strict=True)
        ]

    def _next(self, customer: str, record: bytes | None, news: list[Event], dead: list[Letter]) -> bytes | None:
        try:
            return self._layout.fold(record, news).record
        except RecordError as error:
            # Damaged bytes cannot be read any better later. Starting anew keeps the customer served, and is told.
            log.error("the state of customer %r is damaged and begins anew: %s", customer, error)
            return self._next(customer, None, news, dead)
        except Exception as error:
            # Who may write to the topic may write anything, and one event must not stop a partition.
            if len(news) == 1:
                dead.append((_payload(customer, news[0]), f"cannot be folded: {type(error).__name__}: {error}"))
                news.clear()
                return record
        for event in list(news):
            one = [event]
            record = self._next(customer, record, one, dead)
            if not one:
                news.remove(event)
        return record


def _payload(customer: str, event: Event) -> bytes:
    return orjson.dumps([customer, event.id_hash, event.type, event.time_ms, dict(event.attributes)])
