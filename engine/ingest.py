"""Ingest: the event log into customer state, exactly once in effect.

One round: read new events of all partitions, fold them into the records of their customers, write the records where
nobody else wrote meanwhile, together with the position reached, in one atomic step a partition. A crash anywhere leaves
either the old position and old records or the new ones; what is read again is behind the records' watermarks. A
customer's timeline is written in the same step as the record, so the same holds for its entries.

Names that were linked to each other have their rules in engine.identity. What one of them tells another is appended to
the log of the other before the records are written: a crash in between repeats it, and it says nothing new then.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import orjson

from engine import metrics
from engine.identity import Advanced, EntityKind, Stored, advance, concerns
from engine.limits import INGEST_BATCH_MAX, INGEST_BLOCK_MS
from engine.links import moved_to
from engine.store.base import LINKS, PARTS, Beside, FeatureWrite, Feed, LogEntry, StoreError
from engine.timeline import Keeper, TimelineError
from features import EVENT_TIME_MS_MAX, HEADER_CAS_BYTES, Event, FoldResult, Layout, Offset, RecordError, VersionError

log = logging.getLogger(__name__)

Plain = float | str | bool
Refuse = Callable[[Sequence[tuple[bytes, str]]], Awaitable[None]]
Send = Callable[[Sequence[tuple[str, bytes]]], Awaitable[Any]]

_PAUSE_S: Final = 0.2


async def _nothing_to_learn() -> int:
    return 0


class Logged(NamedTuple):
    """An event of the log, as it stands there."""

    id_hash: int
    type: str
    time_ms: int
    attributes: dict[str, Plain]
    offset: Offset
    data: bytes


def parsed(data: bytes) -> tuple[str, int, str, int, dict[str, Plain]]:
    """(customer, id hash, type, time in ms, attributes) of an event's bytes. Raises ValueError if it is none."""
    match orjson.loads(data):
        case [str(customer), int(digest), str(event_type), int(time_ms), dict(attributes)] if (
            0 <= digest < 2**64 and abs(time_ms) <= EVENT_TIME_MS_MAX
        ):
            return customer, digest, event_type, time_ms, attributes
    raise ValueError("expected customer, id hash, type, time and attributes")


def logged_event(entry: LogEntry) -> tuple[str, Event]:
    """(customer, event) of an entry of the event log. Raises ValueError if it is none."""
    customer, digest, event_type, time_ms, attributes = parsed(entry.data)
    return customer, Event(digest, event_type, time_ms, attributes, entry.offset)


class Ingest:
    """Folds one store's event log."""

    def __init__(
        self,
        layout: Layout,
        store: Feed,
        keeper: Keeper,
        batch_max: int = INGEST_BATCH_MAX,
        learn: Callable[[], Awaitable[int]] | None = None,
        entities: Mapping[str, EntityKind] | None = None,
    ) -> None:
        """`learn` makes the layout know records of other configurations, and says how many it did not know.

        `entities` are the kinds by the attribute of events that names them.
        """
        self._layout = layout
        self._keeper = keeper
        self._entities = entities or {}
        self._store = store
        self._batch_max = batch_max
        self._learn = learn or _nothing_to_learn
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
        by_customer: dict[str, list[Logged]] = {}
        for entry in entries:
            try:
                customer, digest, event_type, time_ms, attributes = parsed(entry.data)
            except ValueError as error:
                # Nothing of ours wrote it. It cannot be read any better later, and those behind it must not wait.
                log.error("entry %s of partition %d is no event and is passed over: %s", entry.offset, partition, error)
                continue
            event = Logged(digest, event_type, time_ms, attributes, entry.offset, entry.data)
            by_customer.setdefault(customer, []).append(event)
        last = entries[-1].offset
        await self.fold(
            by_customer,
            lambda writes: self._store.write_features(partition, writes, last, len(entries)),
            self._store.dead_letters,
            self._store.append_events,
        )

    async def fold(
        self,
        by_customer: dict[str, list[Logged]],
        write: Callable[[Sequence[FeatureWrite]], Awaitable[list[bool]]],
        refuse: Refuse,
        send: Send,
    ) -> None:
        """Bring customers up to date: all written when it returns. Raises StoreError.

        `write` says which records were still as they had been read; the others are read and folded again. `refuse`
        keeps (payload, reason) of events that cannot be folded. `send` appends (name, entry) to the event log, before
        anything is written that rests on it.
        """
        while by_customer:
            records = await self._store.read_features(list(by_customer))
            results = await self._results(by_customer, records, refuse, send)
            if any(isinstance(result, VersionError) for result in results) and await self._learn():
                results = await self._results(by_customer, records, refuse, send)
            timelines = await self._timelines(by_customer)
            writes = []
            beside: tuple[Beside, ...]
            for (customer, events), record, result in zip(by_customer.items(), records, results, strict=True):
                if isinstance(result, VersionError):
                    # Whoever knows its layout can read it: it stays, and the events are told to be lost on it.
                    log.error("the state of customer %r stays as it is: %s", customer, result)
                    reason = f"the state of customer {customer!r} cannot be written: {result}"
                    await refuse([(event.data, reason) for event in events])
                    continue
                if isinstance(result, RecordError):
                    following, beside = self._anew(customer, events, result), ()
                else:
                    following, beside = result.record, result.beside if isinstance(result, _Linked) else ()
                expected = (record or b"")[:HEADER_CAS_BYTES]
                writes.append(FeatureWrite(customer, expected, following, timelines.get(customer, b""), beside))
            written = await write(writes)
            # Somebody else wrote first: two ingest processes meet only while one takes over from the other.
            by_customer = {
                write.customer: by_customer[write.customer] for write, ok in zip(writes, written, strict=True) if not ok
            }

    async def _results(
        self, by_customer: Mapping[str, Sequence[Logged]], records: Sequence[bytes | None], refuse: Refuse, send: Send
    ) -> "list[FoldResult | _Linked | RecordError]":
        """What the events make of each customer, in order."""
        linked = await self._advance_linked(by_customer, records, refuse, send)
        plain = [
            (events, record)
            for (customer, events), record in zip(by_customer.items(), records, strict=True)
            if customer not in linked
        ]
        folded = iter(self._folded([events for events, _ in plain], [record for _, record in plain]))
        return [linked[customer] if customer in linked else next(folded) for customer in by_customer]

    async def _advance_linked(
        self, by_customer: Mapping[str, Sequence[Logged]], records: Sequence[bytes | None], refuse: Refuse, send: Send
    ) -> "dict[str, _Linked | VersionError]":
        """What is to be written for all who have to do with links; tells the others what they have to know."""
        all_parts = await self._store.read_beside(PARTS, list(by_customer))
        found = {
            customer: (record, parts)
            for (customer, events), record, parts in zip(by_customer.items(), records, all_parts, strict=True)
            if parts is not None or concerns(events, self._entities) or moved_to(record)
        }
        if not found:
            return {}
        results: dict[str, _Linked | VersionError] = {}
        sends: list[tuple[str, bytes]] = []
        refused: list[tuple[bytes, str]] = []
        all_links = await self._store.read_beside(LINKS, list(found))
        for (customer, (record, parts)), links in zip(found.items(), all_links, strict=True):
            stored, fold = Stored(record, parts, links), partial(self._next, customer)
            try:
                done = advance(self._layout, fold, customer, stored, by_customer[customer], self._entities)
            except VersionError as error:
                results[customer] = error
                continue
            results[customer] = _Linked(done.record, _beside(stored, done))
            sends += done.sends
            refused += done.refused
            for damage in done.damage:
                log.error("the links of %r: %s", customer, damage)
        if refused:
            metrics.LINKS_REFUSED.inc(len(refused))
            await refuse(refused)
        if sends:
            await send(sends)
        return results

    def _next(self, customer: str, record: bytes | None, events: Sequence[Logged]) -> bytes:
        """The next record of one customer. Raises VersionError."""
        [result] = self._folded([events], [record])
        if isinstance(result, VersionError):
            raise result
        return self._anew(customer, events, result) if isinstance(result, RecordError) else result.record

    def _anew(self, customer: str, events: Sequence[Logged], error: RecordError) -> bytes:
        """The record of a customer whose own is damaged, from these events on."""
        # Damaged bytes cannot be read any better later. Starting anew keeps the customer served, and is told.
        log.error("the state of customer %r is damaged and begins anew: %s", customer, error)
        [result] = self._folded([events], [None])
        assert isinstance(result, FoldResult)
        return result.record

    def _folded(
        self, events: Sequence[Sequence[Logged]], records: Sequence[bytes | None]
    ) -> list[FoldResult | RecordError]:
        rows = self._layout.rows()
        for of_one in events:
            rows.begin()
            for event in of_one:
                rows.add(*event[:4], event.offset.ms, event.offset.seq)
        return self._layout.fold_rows(records, rows)

    async def _timelines(self, by_customer: Mapping[str, Sequence[Logged]]) -> dict[str, bytes]:
        """The next timelines of those who get an entry.

        To be read after the records: if somebody writes in between, the record is no longer the one that was read, and
        neither is written.
        """
        customers = [customer for customer, events in by_customer.items() if self._keeper.takes(events)]
        if not customers:
            return {}
        found = zip(customers, await self._store.read_timelines(customers), strict=True)
        return {customer: self._extended(customer, old, by_customer[customer]) for customer, old in found}

    def _extended(self, customer: str, old: bytes | None, events: Sequence[Logged]) -> bytes:
        try:
            return self._keeper.extended(old, events)
        except TimelineError as error:
            log.error("the timeline of customer %r is damaged and begins anew: %s", customer, error)
            return self._keeper.extended(None, events)


class _Linked(NamedTuple):
    """What is to be written for a customer who has to do with links."""

    record: bytes
    beside: tuple[Beside, ...]


def _beside(stored: Stored, done: Advanced) -> tuple[Beside, ...]:
    beside = []
    if done.parts is not None:
        beside.append(Beside(PARTS, done.parts, (stored.parts or b"")[:HEADER_CAS_BYTES]))
    if done.links is not None:
        beside.append(Beside(LINKS, done.links))
    return tuple(beside)
