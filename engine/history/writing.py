"""What a backfill writes: the features of customers and of what they belong to, timelines, and who belongs to what.

History is merged with what is there. A record keeps its live watermark: history has offsets before all live ones, and
merging keeps that of the live record. So a live writer that read the record before the merge must compare more than its
watermark, or it writes over it.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import polars as pl

from engine import limits, timeline
from engine.catalogue import Catalogue
from engine.errors import Unavailable
from engine.history.chunks import Chunks, Place
from engine.history.folding import EVENTS_AT_ONCE, EventMaker, TimelineMaker, histories, merged
from engine.history.loading import Told
from engine.history.rolling import Named, Roller, belonging_after
from engine.history.rows import Tally
from engine.history.staging import groups
from engine.identity import Stored, with_history
from engine.links import EntityLink, Links, LinksError, moved_to
from engine.rollups import entity_name
from engine.store.base import LINKS, PARTS, TIMELINE, Beside, FeatureWrite, Store
from features import Layout, RecordError, VersionError

log = logging.getLogger(__name__)

assert limits.BACKFILL_EVENTS_BATCH_MAX <= EVENTS_AT_ONCE, "a chunk of several customers is folded at once"
_NO_PARTS: Final = Beside(PARTS, b"", b"")
"""Whom something was linked to meanwhile, or who joined a household, has parts, and maybe the record of before."""


@dataclass
class Report:
    """What a backfill did."""

    tally: Tally = field(default_factory=Tally)
    passed_over: list[str] = field(default_factory=list)
    """Files that an earlier job has loaded, or that are the same as another one."""
    events: int = 0
    """Events of this job, in this run and before."""
    duplicates: int = 0
    """Rows whose id another row of the same customer had."""
    customers: int = 0
    """Customers whose history this run has written."""
    timelines: int = 0
    """Of these, those who have events on their timelines from it."""
    members: int = 0
    """Of these, those who belong to something, such as a household, by it."""
    no_room: int = 0
    """Entities that customers belong to by it, and that newer ones leave no room: ENTITY_ENTRIES_MAX of a kind have."""
    entities: int = 0
    """Households and the like whose features this run has written."""
    done_before: int = 0
    """Events that an earlier run of this job had written."""
    damaged: int = 0
    """Live records that could not be read, and begin anew."""


class CustomerWriter:
    """Writes the customers of a job: features, timelines, and what they belong to."""

    def __init__(self, store: Store, catalogue: Catalogue, report: Report) -> None:
        self._store = store
        self._layout = catalogue.layout
        self._maker = EventMaker(catalogue)
        self._timelines = TimelineMaker(catalogue)
        self._roller = Roller(catalogue)
        self._report = report
        self._no_room: dict[str, int] = {}
        """Of the chunk at hand, which may be made more than once."""
        self._damaged: set[str] = set()

    async def load(self, chunks: Chunks, number: int, rows: pl.DataFrame, told: Told) -> None:
        """Load what is not loaded yet of sorted rows, a bucket's. Raises StoreError."""
        for chunk, (start, end) in enumerate(_chunks(rows), 1):
            self._report.events += end - start
            if chunks.done((number, chunk)):
                self._report.done_before += end - start
            else:
                await self._write(chunks, (number, chunk), rows[start:end])
            told.events_folded(end - start)

    async def _write(self, chunks: Chunks, place: Place, rows: pl.DataFrame) -> None:
        records = histories(self._layout, self._maker, rows)
        timelines, named = self._timelines.timelines(rows), self._roller.named(rows)

        async def make(customers: Sequence[str]) -> list[FeatureWrite]:
            return await self._made(customers, records, timelines, named)

        self._no_room, self._damaged = {}, set()
        if await chunks.write(place, list(records), make):
            self._report.customers += len(records)
            self._report.timelines += len(timelines)
            self._report.members += len(named)
            self._report.no_room += sum(self._no_room.values())
            self._report.damaged += len(self._damaged)

    async def _made(
        self,
        customers: Sequence[str],
        records: Mapping[str, bytes],
        timelines: Mapping[str, bytes],
        named: Mapping[str, Sequence[Named]],
    ) -> list[FeatureWrite]:
        """What is to be written for these customers now."""
        all_parts = await self._store.read_beside(PARTS, customers)
        live_records = await self._store.read_features(customers)
        lines = await self._lines([customer for customer in customers if customer in timelines], timelines)
        linked = [
            customer
            for customer, live, parts in zip(customers, live_records, all_parts, strict=True)
            if customer in named or parts is not None or moved_to(live)
        ]
        links = dict(zip(linked, await self._store.read_beside(LINKS, linked), strict=True)) if linked else {}
        writes = []
        for customer, live, parts in zip(customers, live_records, all_parts, strict=True):
            beside = lines.get(customer, ())
            if parts is not None or moved_to(live):
                stored = Stored(live, parts, links[customer])
                writes.append(await self._linked(customer, stored, records[customer], named.get(customer, ()), beside))
                continue
            if customer in named:
                beside = (*beside, self._belonging(customer, links[customer], named[customer]))
            joined = _joined(self._layout, customer, live, records[customer], self._damaged)
            writes.append(FeatureWrite(customer, live or b"", joined, beside=(_NO_PARTS, *beside)))
        return writes

    async def _lines(self, customers: Sequence[str], timelines: Mapping[str, bytes]) -> dict[str, tuple[Beside, ...]]:
        """What stands on the timelines of these customers and comes from history, to be written with the rest."""
        lines: dict[str, tuple[Beside, ...]] = {}
        for customer, live in zip(customers, await self._store.read_timelines(customers), strict=True):
            try:
                both = timeline.merged([live, timelines[customer]])
            except timeline.TimelineError as error:
                log.error("the timeline of customer %r is damaged and begins anew: %s", customer, error)
                both = timelines[customer]
            lines[customer] = (Beside(TIMELINE, both, live or b""),)
        return lines

    def _belonging(self, customer: str, stored: bytes | None, named: Sequence[Named]) -> Beside:
        """What a customer belongs to, to be written with the rest."""
        try:
            links = Links.unpack(stored)
        except LinksError as error:
            log.error("the links of customer %r are damaged and begin anew: %s", customer, error)
            links = Links()
        links.entities = self._belong(customer, named, links.entities)
        return Beside(LINKS, links.pack(), stored or b"")

    def _belong(self, customer: str, named: Sequence[Named], entities: Sequence[EntityLink]) -> list[EntityLink]:
        held, self._no_room[customer] = belonging_after(entities, named)
        return held

    async def _linked(
        self, customer: str, stored: Stored, history: bytes, named: Sequence[Named], beside: tuple[Beside, ...]
    ) -> FeatureWrite:
        """The same of a name that was linked: its history goes into its own part, and whoever has that is told."""
        join = partial(_joined, self._layout, customer, history=history, damaged=self._damaged)
        done = with_history(self._layout, customer, stored, join, partial(self._belong, customer, named))
        for damage in done.damage:
            log.error("the links of %r: %s", customer, damage)
        await self._store.append_events(done.sends)
        assert done.parts is not None, "a name with parts keeps them"
        beside = (Beside(PARTS, done.parts, stored.parts or b""), *beside)
        if named and done.links is not None:
            beside = (*beside, Beside(LINKS, done.links, stored.links or b""))
        return FeatureWrite(customer, stored.record or b"", done.record, beside=beside)


class EntityWriter:
    """Writes the features of what customers belong to, from the copies of their events."""

    def __init__(self, store: Store, catalogue: Catalogue, report: Report) -> None:
        self._store = store
        self._rollups = catalogue.rollups
        self._maker = EventMaker(catalogue)
        self._report = report

    async def load(self, chunks: Chunks, number: int, rows: pl.DataFrame, told: Told) -> None:
        """Load what is not loaded yet of sorted copies, a bucket's. Raises StoreError."""
        chunk = 0
        for rollup in self._rollups:
            mine = rows.filter(pl.col("customer").str.starts_with(entity_name(rollup.kind, "")))
            for start, end in _chunks(mine):
                chunk += 1
                if not chunks.done((number, chunk)):
                    await self._write(chunks, (number, chunk), rollup.layout, mine[start:end])
                told.events_folded(end - start)

    async def _write(self, chunks: Chunks, place: Place, layout: Layout, rows: pl.DataFrame) -> None:
        records = histories(layout, self._maker, rows)
        damaged: set[str] = set()

        async def make(names: Sequence[str]) -> list[FeatureWrite]:
            # How far an entity got in the logs of its members stands beside its record: history is in none of them.
            return [
                FeatureWrite(name, live or b"", _joined(layout, name, live, records[name], damaged))
                for name, live in zip(names, await self._store.read_features(names), strict=True)
            ]

        if await chunks.write(place, list(records), make):
            self._report.entities += len(records)
            self._report.damaged += len(damaged)


def _joined(layout: Layout, name: str, live: bytes | None, history: bytes, damaged: set[str]) -> bytes:
    """The record of a name with its history; `damaged` gets the name of one that begins anew.

    Raises Unavailable if the live one cannot be read here.
    """
    try:
        return merged(layout, live, history)
    except VersionError as error:
        raise Unavailable(
            f"the state of {name!r} cannot be read: {error}; what is loaded so far stays loaded, and the same command "
            "goes on from there"
        ) from error
    except RecordError as error:
        # As when live events are folded: damaged bytes cannot be read any better later.
        log.error("the state of %r is damaged and begins anew: %s", name, error)
        damaged.add(name)
        return merged(layout, None, history)


def _chunks(rows: pl.DataFrame) -> Iterator[tuple[int, int]]:
    return groups(rows["customer"], limits.BACKFILL_CUSTOMERS_BATCH_MAX, limits.BACKFILL_EVENTS_BATCH_MAX)
