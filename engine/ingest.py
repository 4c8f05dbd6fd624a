"""Ingest: the event log into customer state, exactly once in effect.

One round: read new events of all partitions, fold them into the records of their customers, write the records where
nobody else wrote meanwhile, together with the position reached, in one atomic step a partition. A crash anywhere leaves
either the old position and old records or the new ones; what is read again is behind the records' watermarks.

Names that were linked to each other have their rules in engine.identity. What one of them tells another is appended to
the log of the other before the records are written: a crash in between repeats it, and it says nothing new then.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import orjson

from engine import metrics
from engine.identity import Advanced, EntityKind, Stored, advance, concerns
from engine.limits import INGEST_BATCH_MAX, INGEST_BLOCK_MS
from engine.links import moved_to
from engine.store.base import LINKS, PARTS, Beside, FeatureWrite, Feed, LogEntry, StoreError
from features import HEADER_CAS_BYTES, Event, Layout, Offset, RecordError

log = logging.getLogger(__name__)

_PAUSE_S: Final = 0.2


class Ingest:
    """Folds one store's event log."""

    def __init__(
        self,
        layout: Layout,
        store: Feed,
        batch_max: int = INGEST_BATCH_MAX,
        *,
        entities: Mapping[str, EntityKind] | None = None,
    ) -> None:
        """`entities` are the kinds by the attribute of events that names them."""
        self._layout = layout
        self._entities = entities or {}
        self._store = store
        self._batch_max = batch_max
        self._after: dict[int, Offset] | None = None
        self._stopping = False

    def stop(self) -> None:
        """End `run` after the batch in hand."""
        self._stopping = True

    async def run(self) -> None:
        """Fold until `stop`. A store that is away is waited for."""
        while not self._stopping:
            try:
                await self.round(INGEST_BLOCK_MS)
            except StoreError as error:
                log.warning("the store is away, trying again: %s", error)
                self._after = None  # whether the last write took place is not known: ask the store where it stands
                await asyncio.sleep(_PAUSE_S)

    async def round(self, block_ms: int) -> int:
        """One round; returns how many events were folded. Raises StoreError."""
        if self._after is None:
            self._after = dict(await self._store.folded())
        batches = await self._store.read_events(self._after, self._batch_max, block_ms)
        for partition, entries in batches.items():
            await self._fold(partition, entries)
            self._after[partition] = entries[-1].offset
        return sum(map(len, batches.values()))

    async def _fold(self, partition: int, entries: Sequence[LogEntry]) -> None:
        by_customer: dict[str, list[Event]] = {}
        for entry in entries:
            try:
                customer, event = logged_event(entry)
            except ValueError as error:
                # Nothing of ours wrote it. It cannot be read any better later, and those behind it must not wait.
                log.error("entry %s of partition %d is no event and is passed over: %s", entry.offset, partition, error)
                continue
            by_customer.setdefault(customer, []).append(event)
        while by_customer:
            records = await self._store.read_features(list(by_customer))
            linked = await self._advance_linked(by_customer, records)
            writes = []
            for (customer, events), record in zip(by_customer.items(), records, strict=True):
                if customer in linked:
                    following, beside = linked[customer]
                else:
                    following, beside = self._next(customer, record, events), ()
                writes.append(FeatureWrite(customer, (record or b"")[:HEADER_CAS_BYTES], following, beside))
            written = await self._store.write_features(partition, writes, entries[-1].offset, len(entries))
            # Somebody else wrote first: two ingest processes meet only while one takes over from the other.
            by_customer = {
                write.customer: by_customer[write.customer] for write, ok in zip(writes, written, strict=True) if not ok
            }

    async def _advance_linked(
        self, by_customer: Mapping[str, Sequence[Event]], records: Sequence[bytes | None]
    ) -> dict[str, tuple[bytes, tuple[Beside, ...]]]:
        """The next record, and what is to be written beside it, of all who have to do with links; tells the others."""
        all_parts = await self._store.read_beside(PARTS, list(by_customer))
        found = {
            customer: (record, parts)
            for (customer, events), record, parts in zip(by_customer.items(), records, all_parts, strict=True)
            if parts is not None or concerns(events, self._entities) or moved_to(record)
        }
        if not found:
            return {}
        results: dict[str, tuple[bytes, tuple[Beside, ...]]] = {}
        sends: list[tuple[str, bytes]] = []
        refused: list[tuple[bytes, str]] = []
        for (customer, (record, parts)), links in zip(
            found.items(), await self._store.read_beside(LINKS, list(found)), strict=True
        ):
            stored, fold = Stored(record, parts, links), partial(self._next, customer)
            done = advance(self._layout, fold, customer, stored, by_customer[customer], self._entities)
            results[customer] = done.record, _beside(stored, done)
            sends += done.sends
            refused += done.refused
            for damage in done.damage:
                log.error("the links of %r: %s", customer, damage)
        if refused:
            metrics.LINKS_REFUSED.inc(len(refused))
            await self._store.dead_letters(refused)
        await self._store.append_events(sends)
        return results

    def _next(self, customer: str, record: bytes | None, events: Sequence[Event]) -> bytes:
        try:
            result = self._layout.fold(record, events)
        except RecordError as error:
            # Damaged bytes cannot be read any better later. Starting anew keeps the customer served, and is told.
            log.error("the state of customer %r is damaged and begins anew: %s", customer, error)
            result = self._layout.fold(None, events)
        return result.record


def _beside(stored: Stored, done: Advanced) -> tuple[Beside, ...]:
    beside = []
    if done.parts is not None:
        beside.append(Beside(PARTS, done.parts, (stored.parts or b"")[:HEADER_CAS_BYTES]))
    if done.links is not None:
        beside.append(Beside(LINKS, done.links))
    return tuple(beside)


def logged_event(entry: LogEntry) -> tuple[str, Event]:
    """(customer, event) of an entry of the event log. Raises ValueError if it is none."""
    match orjson.loads(entry.data):
        case [str(customer), int(digest), str(event_type), int(time_ms), dict(attributes)]:
            return customer, Event(digest, event_type, time_ms, attributes, entry.offset)
    raise ValueError("expected customer, id hash, type, time and attributes")
