"""Ingest: the event log into customer state, exactly once in effect.

One round: read new events of all partitions, fold them into the records of their customers, write the records where
nobody else wrote meanwhile, together with the position reached, in one atomic step a partition. A crash anywhere leaves
either the old position and old records or the new ones; what is read again is behind the records' watermarks. A
customer's timeline is written in the same step as the record, so the same holds for its entries.

Names that were linked to each other have their rules in engine.identity. What one of them tells another is appended to
the log of the other before the records are written: a crash in between repeats it, and it says nothing new then.
Copies of events for what customers belong to go the same way (engine.rollups).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple

import orjson

from engine import metrics
from engine.identity import Advanced, EntityKind, Stored, Taken, advance, concerns, that_count
from engine.limits import INGEST_BATCH_MAX, INGEST_BLOCK_MS, LINK_HOPS_MAX
from engine.linking import links_of
from engine.links import EntityLink, LinksError, moved_to, position_of
from engine.rollups import Rollup, copies, fresh_copies, is_entity, kind_of
from engine.store.base import LINKS, PARTS, TIMELINE, Beside, FeatureWrite, Feed, LogEntry, StoreError
from engine.timeline import Keeper, TimelineError
from features import EVENT_TIME_MS_MAX, HEADER_CAS_BYTES, Event, FoldResult, Layout, Offset, RecordError, VersionError

log = logging.getLogger(__name__)

Plain = float | str | bool
Refuse = Callable[[Sequence[tuple[bytes, str]]], Awaitable[None]]
Send = Callable[[Sequence[tuple[str, bytes]]], Awaitable[Any]]

FOLD_AT_ONCE: Final = 128
"""Customers folded between two turns of the loop."""
_PAUSE_S: Final = 0.2
_U64: Final = 2**64


async def _nothing_to_learn() -> int:
    return 0


def _looked_at(ahead: "asyncio.Task[Mapping[int, list[LogEntry]]]") -> None:
    """Of what is let go nobody asks how it ended."""
    if not ahead.cancelled():
        ahead.exception()


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
    found = orjson.loads(data)
    if found.__class__ is list and len(found) == 5:
        customer, digest, event_type, time_ms, attributes = found
        # A match statement says the same in four times the time, which was a sixth of all that ingest did.
        if (
            customer.__class__ is str
            and digest.__class__ is int
            and event_type.__class__ is str
            and time_ms.__class__ is int
            and attributes.__class__ is dict
            and 0 <= digest < _U64
            and -EVENT_TIME_MS_MAX <= time_ms <= EVENT_TIME_MS_MAX
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
        rollups: Sequence[Rollup] = (),
    ) -> None:
        """`learn` makes the layouts know records of other configurations, and says how many they did not know.

        `entities` are the kinds by the attribute of events that names them, `rollups` the features of some kinds.
        """
        self._rollups = rollups
        self._rolled_types = frozenset[str]().union(*(rollup.types for rollup in rollups))
        self._layout = layout
        self._keeper = keeper
        self._entities = entities or {}
        self._store = store
        self._batch_max = batch_max
        self._learn = learn or _nothing_to_learn
        self._folding = asyncio.Lock()
        self._after: dict[int, Offset] | None = None
        self._ahead: asyncio.Task[Mapping[int, list[LogEntry]]] | None = None
        """What follows full batches is read while these are folded."""
        self._stopping = False

    def stop(self) -> None:
        """End `run` after the batch in hand."""
        self._stopping = True

    async def run(self) -> None:
        """Fold until `stop`. A store that is away is waited for."""
        try:
            while not self._stopping:
                try:
                    await self.round(INGEST_BLOCK_MS)
                except StoreError as error:
                    log.warning("the store is away, trying again: %s", error)
                    self._after = None  # whether the last write took place is not known: ask the store where it stands
                    await asyncio.sleep(_PAUSE_S)
        finally:
            self._read_no_further()

    async def round(self, block_ms: int) -> int:
        """One round; returns how many events were folded. Raises StoreError."""
        if self._after is None:
            self._after = dict(await self._store.folded())
        batches = await self._batches(self._after, block_ms)
        # Side by side, so that one partition is folded while the store reads and writes for the others. Those that
        # could be written are, also if the store refuses one.
        after = self._after
        folded = await asyncio.gather(*(self._fold(*batch) for batch in batches.items()), return_exceptions=True)
        for partition, failure in zip(batches, folded, strict=True):
            if failure is None:
                after[partition] = batches[partition][-1].offset
        for failure in folded:
            if failure is not None:
                self._read_no_further()
                raise failure
        return sum(map(len, batches.values()))

    async def _batches(self, after: Mapping[int, Offset], block_ms: int) -> Mapping[int, list[LogEntry]]:
        """The next batches by partition. Where one is full more follows, which is asked for at once."""
        ahead, self._ahead = self._ahead, None
        batches = dict(await ahead) if ahead is not None else {}
        rest = {partition: offset for partition, offset in after.items() if partition not in batches}
        if rest:  # what came meanwhile to those that were read to their ends does not wait for the others
            batches |= await self._store.read_events(rest, self._batch_max, 0 if batches else block_ms)
        full = {at: entries[-1].offset for at, entries in batches.items() if len(entries) >= self._batch_max}
        if full:
            self._ahead = asyncio.create_task(self._store.read_events(full, self._batch_max, 0))
            self._ahead.add_done_callback(_looked_at)
        return batches

    def _read_no_further(self) -> None:
        """What was read ahead may not follow what is folded any more."""
        if self._ahead is not None:
            self._ahead.cancel()
            self._ahead = None

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
            lambda _: partition,
        )

    async def fold(
        self,
        by_customer: dict[str, list[Logged]],
        write: Callable[[Sequence[FeatureWrite]], Awaitable[list[bool]]],
        refuse: Refuse,
        send: Send,
        home: Callable[[str], int] | None = None,
    ) -> None:
        """Bring customers up to date: all written when it returns. Raises StoreError.

        `write` says which records were still as they had been read; the others are read and folded again. `refuse`
        keeps (payload, reason) of events that cannot be folded. `send` appends (name, entry) to the event log, before
        anything is written that rests on it. `home` is the partition of a customer's log, needed with roll-ups.
        """
        took = _Took() if self._rollups else None
        if took is None and any(map(is_entity, by_customer)):
            # Copies for features that the configuration no longer has.
            by_customer = {name: events for name, events in by_customer.items() if not is_entity(name)}
        while by_customer:
            records = await self._store.read_features(list(by_customer))
            results = await self._results(by_customer, records, refuse, send, took)
            if any(isinstance(result, VersionError) for result in results) and await self._learn():
                took = None if took is None else _Took()
                results = await self._results(by_customer, records, refuse, send, took)
            if took is not None:
                if not await self._send_copies(took, home, send):
                    took = _Took()
                    continue
                took = None  # those who are folded again lost a race: what they sent is sent
            timelines = await self._timelines(self._news(by_customer, records, results))
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
                    if isinstance(result, _Linked) and result.forgotten is not None:
                        after = [event for event in events if event.offset > result.forgotten]
                        takes = self._keeper.takes(after)
                        timelines[customer] = b""
                        beside += (Beside(TIMELINE, self._keeper.extended(None, after) if takes else b""),)
                expected = (record or b"")[:HEADER_CAS_BYTES]
                writes.append(FeatureWrite(customer, expected, following, timelines.get(customer, b""), beside))
            written = await write(writes)
            # Somebody else wrote first: two ingest processes meet only while one takes over from the other.
            by_customer = {
                write.customer: by_customer[write.customer] for write, ok in zip(writes, written, strict=True) if not ok
            }

    async def _results(
        self,
        by_customer: Mapping[str, Sequence[Logged]],
        records: Sequence[bytes | None],
        refuse: Refuse,
        send: Send,
        took: "_Took | None",
    ) -> "list[FoldResult | _Linked | RecordError]":
        """What the events make of each customer, in order; `took` gets what was folded."""
        linked = await self._roll(by_customer, records) if self._rollups else {}
        linked |= await self._advance_linked(by_customer, records, refuse, send, linked, took)
        plain = [
            (events, record)
            for (customer, events), record in zip(by_customer.items(), records, strict=True)
            if customer not in linked
        ]
        folded = iter(await self._folded_in_turn([events for events, _ in plain], [record for _, record in plain]))
        results = [linked[customer] if customer in linked else next(folded) for customer in by_customer]
        if took is not None:
            plainly = {
                customer: record
                for customer, record, result in zip(by_customer, records, results, strict=True)
                if customer not in linked and not isinstance(result, VersionError)
            }
            await self._take_plainly(by_customer, plainly, took)
        return results

    async def _roll(
        self, by_customer: Mapping[str, Sequence[Logged]], records: Sequence[bytes | None]
    ) -> "dict[str, _Linked | VersionError]":
        """What copies make of the entities among these names."""
        layouts = {rollup.kind: rollup.layout for rollup in self._rollups}
        found = {name: old for name, old in zip(by_customer, records, strict=True) if is_entity(name)}
        results: dict[str, _Linked | VersionError] = {}
        by_kind: dict[str, list[tuple[str, list[Logged], Beside]]] = {}
        for name, told in zip(found, await self._store.read_beside(PARTS, list(found)), strict=True):
            fresh, following = fresh_copies(told, by_customer[name])
            beside = Beside(PARTS, following, (told or b"")[:HEADER_CAS_BYTES])
            if kind_of(name) in layouts:
                by_kind.setdefault(kind_of(name), []).append((name, fresh, beside))
            else:
                results[name] = _Linked(found[name] or b"", ())  # of a kind that has no features any more
        for kind, entities in by_kind.items():
            layout = layouts[kind]
            folded = _rows_folded(layout, [fresh for _, fresh, _ in entities], [found[name] for name, _, _ in entities])
            for (name, fresh, beside), result in zip(entities, folded, strict=True):
                if isinstance(result, VersionError):
                    results[name] = result
                    continue
                if isinstance(result, RecordError):
                    log.error("the state of entity %r is damaged and begins anew: %s", name, result)
                    [result] = _rows_folded(layout, [fresh], [None])
                    assert isinstance(result, FoldResult)
                results[name] = _Linked(result.record, (beside,))
        return results

    async def _take_plainly(
        self, by_customer: Mapping[str, Sequence[Logged]], records: Mapping[str, bytes | None], took: "_Took"
    ) -> None:
        """Note what `advance` would have, of those who have nothing to do with links in this batch."""
        names = [name for name in records if not self._rolled_types.isdisjoint(e.type for e in by_customer[name])]
        for name, links in zip(names, await links_of(self._store, names), strict=True):
            counted = that_count(records[name], by_customer[name])
            took.taken.append(Taken(name, "", counted, [links.entities] * len(counted)))
            took.seen[name] = records[name], None

    async def _send_copies(self, took: "_Took", home: Callable[[str], int] | None, send: Send) -> bool:
        """Tell what customers belong to of what was taken, before anything is written.

        False, and nothing is told, if somebody else wrote meanwhile: what was read is then not of one moment.
        """
        assert home is not None, "with roll-ups the partition of a log must be known"
        places = {each.to: each.to for each in took.taken if each.to}
        of_customers: dict[str, Sequence[EntityLink]] = {}
        for _ in range(LINK_HOPS_MAX):
            if not places:
                break
            for (customer, _), links in zip(
                list(places.items()), await links_of(self._store, list(places.values())), strict=True
            ):
                if links.to:
                    places[customer] = links.to  # it belongs to somebody else by now
                else:
                    of_customers[customer] = links.entities
                    del places[customer]
        entries = copies(self._rollups, took.taken, of_customers, home)
        if entries:
            names = list(took.seen)
            records = await self._store.read_features(names)
            pairs = zip(records, await self._store.read_beside(PARTS, names), strict=True)
            if list(pairs) != list(took.seen.values()):
                return False
            await send(entries)
        return True

    async def _advance_linked(
        self,
        by_customer: Mapping[str, Sequence[Logged]],
        records: Sequence[bytes | None],
        refuse: Refuse,
        send: Send,
        done_already: "Mapping[str, _Linked | VersionError]",
        took: "_Took | None",
    ) -> "dict[str, _Linked | VersionError]":
        """What is to be written for all who have to do with links; tells the others what they have to know."""
        all_parts = await self._store.read_beside(PARTS, list(by_customer))
        found = {
            customer: (record, parts)
            for (customer, events), record, parts in zip(by_customer.items(), records, all_parts, strict=True)
            if (parts is not None or concerns(events, self._entities) or moved_to(record))
            and customer not in done_already
        }
        if not found:
            return {}
        results: dict[str, _Linked | VersionError] = {}
        sends: list[tuple[str, bytes]] = []
        refused: list[tuple[bytes, str]] = []
        all_links = await self._store.read_beside(LINKS, list(found))
        for (customer, (record, parts)), links in zip(found.items(), all_links, strict=True):
            stored, fold = Stored(record, parts, links), partial(self._next, customer)
            taken: list[Taken[Logged]] | None = None if took is None else []
            try:
                done = advance(self._layout, fold, customer, stored, by_customer[customer], self._entities, taken)
            except VersionError as error:
                results[customer] = error
                continue
            if took is not None and taken:
                took.taken += taken
                took.seen[customer] = record, parts
            results[customer] = _Linked(done.record, _beside(stored, done), done.forgotten)
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

    async def _folded_in_turn(
        self, events: Sequence[Sequence[Logged]], records: Sequence[bytes | None]
    ) -> list[FoldResult | RecordError]:
        """One partition after the other, a part at a time, so that the store has something to do meanwhile.

        A write of half a megabyte takes several turns of the loop to leave. When all partitions were folded in one, the
        store wrote for all of them afterwards, and ingest waited for it a quarter of its time.
        """
        results: list[FoldResult | RecordError] = []
        async with self._folding:
            for start in range(0, len(events), FOLD_AT_ONCE):
                part = slice(start, start + FOLD_AT_ONCE)
                results += self._folded(events[part], records[part])
                await asyncio.sleep(0)
        return results

    def _folded(
        self, events: Sequence[Sequence[Logged]], records: Sequence[bytes | None]
    ) -> list[FoldResult | RecordError]:
        return _rows_folded(self._layout, events, records)

    def _news(
        self,
        by_customer: Mapping[str, list[Logged]],
        records: Sequence[bytes | None],
        results: "Sequence[FoldResult | _Linked | RecordError]",
    ) -> dict[str, list[Logged]]:
        """Events for timelines, of those of whom nothing is to be forgotten.

        What is behind the watermark of a record was offered to the timeline then. Offered again, it would be there
        again after it was forgotten.
        """
        found: dict[str, list[Logged]] = {}
        for (customer, events), record, result in zip(by_customer.items(), records, results, strict=True):
            if (isinstance(result, _Linked) and result.forgotten is not None) or is_entity(customer):
                continue
            if not self._keeper.takes(events):
                continue
            seen = Offset.ZERO
            if record is not None and not isinstance(result, RecordError):
                with suppress(LinksError):  # of a damaged one nothing is known
                    seen = position_of(record)
            found[customer] = [event for event in events if event.offset > seen]
        return found

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


def _rows_folded(
    layout: Layout, events: Sequence[Sequence[Logged]], records: Sequence[bytes | None]
) -> list[FoldResult | RecordError]:
    rows = layout.rows()
    for of_one in events:
        rows.begin()
        for event in of_one:
            rows.add(*event[:4], event.offset.ms, event.offset.seq)
    return layout.fold_rows(records, rows)


class _Took:
    """What one round of a fold took of its customers, where that has to be copied."""

    def __init__(self) -> None:
        self.taken: list[Taken[Logged]] = []
        self.seen: dict[str, tuple[bytes | None, bytes | None]] = {}
        """Records and parts that it went by."""


class _Linked(NamedTuple):
    """What is to be written for a customer who has to do with links, or for an entity."""

    record: bytes
    beside: tuple[Beside, ...]
    forgotten: Offset | None = None
    """The entry that forgot him."""


def _beside(stored: Stored, done: Advanced) -> tuple[Beside, ...]:
    beside = []
    if done.parts is not None:
        beside.append(Beside(PARTS, done.parts, (stored.parts or b"")[:HEADER_CAS_BYTES]))
    elif done.forgotten is not None and stored.parts is not None:
        beside.append(Beside(PARTS, b"", stored.parts[:HEADER_CAS_BYTES]))
    if done.links is not None:
        beside.append(Beside(LINKS, done.links))
    return tuple(beside)
