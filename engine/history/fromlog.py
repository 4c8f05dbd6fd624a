"""Filling from the log: features that came with a change of the configuration, from the events of before.

A record that is carried over to a new layout begins with nothing in what is new there, and ingest goes on from then.
What is new is made again here from the retained event log, and *replaces* what the record has in those cells; all else
in the record stays. Replacing is what makes it harmless to do again, and to do while events come in.

One partition after the other, beside a running engine:

1. The log is folded from its start up to the position that ingest has reached: a fresh record for every customer in it.
2. Each customer's record is read. If it has taken no event since, the new cells of the fresh record go into it, and it
   is written unless somebody wrote to it meanwhile.
3. Whoever has moved on is given the events up to the watermark that was read, and it is their turn again, until nobody
   is left. A record never gets an event that it has not folded itself, so none is counted twice.

**Whose log is not whole.** Old entries of the log are trimmed, and history from files was never in it. Whether a
customer is concerned is seen by the counters: the fresh record has as many events and duplicates as the kept one, or
not. If not, what the new cells hold already may be more than the log has. Both are newest events of the same customer,
so one contains the other. The new cells are replaced only if they hold nothing, or exactly what some number of the
newest events of the log give: then the log has these, and what came before them too. Otherwise they are left alone.
Nothing is ever taken away. Where history from files went into the new cells, that cannot be told, and only those that
hold nothing are filled.

With Kafka as the log it is the same: ingest stands where its workers committed.

Names that were linked (engine.identity) are left alone: their state is made of more than their own events.

Non-goals: resuming (it is read again from the start, and what is filled is not written again); events that the log no
longer has, or attributes that were not declared when they came.
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import orjson

from engine import limits
from engine.errors import InvalidArgument, NotAllowed, Overloaded, Unavailable
from engine.eventlog import Arrival, EventLog
from engine.links import moved_to
from engine.rollups import is_entity
from engine.store.base import PARTS, FeatureWrite, Store, StoreError, StoreFull, StoreUnavailable
from features import HEADER_CAS_BYTES, Event, FoldResult, Layout, Offset, Part, RecordError, RecordHeader, VersionError

log = logging.getLogger(__name__)

Told = Callable[[int], None]
"""Called with the number of entries that were read; 0 when a partition is done."""

BEYOND: Final = "what they hold already began before the log does"
HISTORY: Final = "they hold history from files already"
MORE: Final = "the log has events that their state has not: it began anew, or refused some"
LINKED: Final = "they were linked to others, and their state is made of several names"
UNREADABLE: Final = "their state is damaged, or of a configuration that is not known"


@dataclass
class Report:
    """What was filled."""

    features: tuple[str, ...]
    events: int = 0
    """Entries of the log, each counted once."""
    whole: int = 0
    """Customers written whose events are all in the log."""
    partly: int = 0
    """Customers written as far back as the log reaches."""
    unchanged: int = 0
    """Customers who had it all already."""
    left: Counter[str] = field(default_factory=Counter)
    """Customers some or all of whose new features were left alone, by reason."""


async def fill(
    store: Store, events: EventLog, layout: Layout, names: Collection[str], told: Told = lambda entries: None
) -> Report:
    """Fill the features named, or those that no other configuration in the store has, from the event log of the store.

    The layouts of all those must have been learnt (engine.layouts). Raises OpportuneError: InvalidArgument for a name
    that is no feature, NotAllowed if nothing is new, BrokerError, Unavailable and Overloaded when it can be run again.
    """
    try:
        parts = layout.parts(names)
    except ValueError as error:
        raise InvalidArgument(f"--feature: {error}") from error
    if not parts:
        raise NotAllowed(
            "no feature is new: the store knows no other configuration, or another one that keeps all of them; name "
            "with --feature which to fill"
        )
    report = Report(tuple(dict.fromkeys(name for part in parts for name in part.features)))
    try:
        with_history = await _with_history(store, layout, parts)
        for partition, end in enumerate(await events.folded()):
            await _Partition(store, events, layout, parts, with_history, partition, report, told).fill(end)
            told(0)
    except StoreFull as error:
        raise Overloaded(f"the store is full; make room and run the same command again: {error}") from error
    except StoreError as error:
        raise Unavailable(f"not all is filled; run the same command again: {error}") from error
    return report


async def _with_history(store: Store, layout: Layout, parts: Sequence[Part]) -> frozenset[Part]:
    """Those parts that some backfill from files may have written to."""
    marks = await store.marks(0)
    wrote = {orjson.loads(value).get("layout") for name, value in marks.items() if name.startswith("job:")}
    unknown = any(version is None or not layout.knows_version(version) for version in wrote)
    return frozenset(part for part in parts if unknown or wrote & {layout.version, *part.known_to})


# --- what the log gives ---------------------------------------------------------------------------------------------


class _Fresh:
    """Records made of the log alone."""

    def __init__(self, layout: Layout, only: Collection[str] | None = None) -> None:
        """With `only`, those customers alone, and their events are kept."""
        self._layout = layout
        self._only = only
        self.records: dict[str, bytes] = {}
        self.events: dict[str, list[Event]] = {}

    def absorb(self, arrivals: Sequence[Arrival], until: Mapping[str, Offset] | None = None) -> None:
        """Fold events, in log order; with `until`, only of those customers and up to there."""
        by_customer: dict[str, list[Event]] = {}
        for customer, event, _ in arrivals:
            if is_entity(customer):
                continue  # a copy: its original is in the log of a customer
            if self._only is not None and customer not in self._only:
                continue
            if until is not None and (customer not in until or event.offset > until[customer]):
                continue
            if customer in self.records and event.offset <= self._layout.watermark(self.records[customer])[0]:
                continue
            by_customer.setdefault(customer, []).append(event)
        results = self._layout.fold_many([self.records.get(name) for name in by_customer], list(by_customer.values()))
        for (customer, events), result in zip(by_customer.items(), results, strict=True):
            assert isinstance(result, FoldResult), "a record that was just made"
            if self._only is not None:
                self.events.setdefault(customer, []).extend(events)
            self.records[customer] = result.record


# --- one partition --------------------------------------------------------------------------------------------------


class _Filled(NamedTuple):
    """What becomes of one customer."""

    record: bytes
    whole: bool
    reason: str = ""
    """Why something was left alone; "": nothing was."""


class _Partition:
    """The customers of one partition."""

    def __init__(
        self,
        store: Store,
        events: EventLog,
        layout: Layout,
        parts: Sequence[Part],
        with_history: frozenset[Part],
        partition: int,
        report: Report,
        told: Told,
    ) -> None:
        self._store = store
        self._events = events
        self._layout = layout
        self._parts = parts
        self._with_history = with_history
        self._partition = partition
        self._report = report
        self._told = told
        self._nothing = layout.fold(None, []).record
        self._everything = layout.parts(layout.names)
        self._ids = Layout.compile([])

    async def fill(self, end: Offset) -> None:
        """Fill everybody who has an event up to `end`, where ingest stands. Raises StoreError."""
        fresh = _Fresh(self._layout)
        self._report.events += await self._read(fresh, Offset.ZERO, end)
        doubtful = await self._settle(fresh, end)
        counts = {customer: self._layout.header(fresh.records[customer]).events for customer in doubtful}
        del fresh
        for group in _groups(counts):
            fresh = _Fresh(self._layout, only=group)
            await self._read(fresh, Offset.ZERO, end)
            await self._settle(fresh, end)

    async def _read(
        self, fresh: _Fresh, after: Offset, end: Offset, until: Mapping[str, Offset] | None = None
    ) -> int:
        """Fold the log after a position up to another one; returns how many entries that were."""
        count = 0
        # It may end before `end`, where what stood there was of people who are forgotten.
        while after < end and (piece := await self._events.read(self._partition, after)) is not None:
            arrivals = [arrival for arrival in piece.arrivals if arrival.event.offset <= end]
            fresh.absorb(arrivals, until)
            after = piece.reached
            read = piece.entries if after <= end else len(arrivals)
            count += read
            self._told(read)
        return count

    async def _settle(self, fresh: _Fresh, reached: Offset) -> list[str]:
        """Write everybody of whom the log gives a record; returns those for whom their events are needed."""
        doubtful: list[str] = []
        up_to = dict.fromkeys(fresh.records, reached)
        pending = list(fresh.records)
        for _ in range(limits.BACKFILL_CONFLICT_RETRIES_MAX):
            moved: dict[str, Offset] = {}
            again: list[str] = []
            for start in range(0, len(pending), limits.BACKFILL_CUSTOMERS_BATCH_MAX):
                chunk = pending[start : start + limits.BACKFILL_CUSTOMERS_BATCH_MAX]
                writes: list[tuple[FeatureWrite, _Filled]] = []
                records = await self._store.read_features(chunk)
                linked = await self._store.read_beside(PARTS, chunk)
                for customer, record, parts in zip(chunk, records, linked, strict=True):
                    if record is None:
                        continue  # it has gone away, and what is new in it too
                    if parts is not None or moved_to(record):
                        self._report.left[LINKED] += 1
                        continue
                    header = self._header(customer, record)
                    if header is None:
                        continue
                    if header.watermark > up_to[customer]:
                        moved[customer] = header.watermark
                        continue
                    filled = self._filled(record, header, fresh.records[customer], fresh.events.get(customer))
                    if filled is None:
                        doubtful.append(customer)
                    elif filled.record == record:
                        self._report.unchanged += not filled.reason
                        self._tell(filled)
                    else:
                        writes.append((FeatureWrite(customer, record[:HEADER_CAS_BYTES], filled.record), filled))
                again += await self._write(writes)
            if not moved and not again:
                return doubtful
            if moved:
                await self._read(fresh, min(up_to[customer] for customer in moved), max(moved.values()), moved)
                up_to.update(moved)
            pending = [*again, *moved]
        raise StoreUnavailable(f"customers are written to all the time, {len(pending)} of them at last")

    async def _write(self, writes: Sequence[tuple[FeatureWrite, _Filled]]) -> list[str]:
        """Write where nobody else wrote; returns those where somebody did. The position of ingest stays."""
        if not writes:
            return []
        done = await self._store.write_records([write for write, _ in writes])
        for (_, filled), written in zip(writes, done, strict=True):
            if written:
                self._report.whole += filled.whole
                self._report.partly += not filled.whole
                self._tell(filled)
        return [write.customer for (write, _), written in zip(writes, done, strict=True) if not written]

    def _tell(self, filled: _Filled) -> None:
        if filled.reason:
            self._report.left[filled.reason] += 1

    def _header(self, customer: str, record: bytes) -> RecordHeader | None:
        """Header of a record that can be filled; otherwise it is told why not."""
        try:
            header = self._layout.header(record)
            if not self._layout.knows(record):
                raise VersionError(f"layout {header.version:#010x} is not known")
        except RecordError as error:
            log.warning("the state of customer %r is left alone: %s", customer, error)
            self._report.left[UNREADABLE] += 1
            return None
        return header

    def _filled(
        self, record: bytes, header: RecordHeader, made: bytes, events: Sequence[Event] | None
    ) -> _Filled | None:
        """The record as it should be; None if that takes the events of the log."""
        layout, theirs = self._layout, self._layout.header(made)
        if (theirs.events, theirs.duplicates) == (header.events, header.duplicates):
            filled = layout.refilled(record, made, self._parts)
            if theirs.watermark == header.watermark and layout.refilled(filled, made, self._everything) == filled:
                filled = made  # in all that it keeps; so it is that record, its count of late events too
            return _Filled(filled, whole=True)
        if theirs.events + theirs.duplicates > header.events + header.duplicates:
            return _Filled(record, whole=False, reason=MORE)
        ours = layout.refilled(record, made, ())
        chosen, reason = [], ""
        for part in self._parts:
            if layout.refilled(ours, made, (part,)) == ours:
                continue
            if layout.refilled(ours, self._nothing, (part,)) == ours:
                chosen.append(part)
            elif part in self._with_history:
                reason = HISTORY
            elif events is None:
                return None
            elif self._in_log(ours, part, events):
                chosen.append(part)
            else:
                reason = BEYOND
        return _Filled(layout.refilled(ours, made, chosen) if chosen else record, whole=False, reason=reason)

    def _in_log(self, record: bytes, part: Part, events: Sequence[Event]) -> bool:
        """Whether a part of a record holds what some number of the newest events of the log give."""
        layout, newest = self._layout, self._nothing
        # Of those that are not too late the order makes no difference, so each step adds the one before.
        for number, event in enumerate(reversed(self._without_repeats(events)), 1):
            newest = layout.fold(newest, [replace(event, id_hash=0, offset=Offset(0, number))]).record
            if layout.refilled(record, newest, (part,)) == record:
                return True
        return False

    def _without_repeats(self, events: Sequence[Event]) -> list[Event]:
        record, taken = None, []
        for event in events:
            result = self._ids.fold(record, [event])
            record = result.record
            if result.applied:
                taken.append(event)
        return taken


def _groups(counts: Mapping[str, int]) -> Iterator[set[str]]:
    """Customers, as many at a time as may be held with that many events each."""
    group: set[str] = set()
    events = 0
    for customer, count in counts.items():
        if group and events + count > limits.FROM_LOG_ENTRIES_MAX:
            yield group
            group, events = set(), 0
        group.add(customer)
        events += count
    if group:
        yield group
