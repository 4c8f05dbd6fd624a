"""Batches into a store: what is an event, and what becomes of one that cannot be folded."""

import time
from collections.abc import Sequence

import orjson

from engine.catalogue import Catalogue
from engine.config import parse, version_of
from engine.ingest import Ingest, Logged
from engine.kafka.folding import Folder, events_of
from engine.kafka.sequence import Record
from engine.kafka.topics import Incarnation
from engine.store import FeatureWrite, MemoryStore, Store
from features import Event, FoldResult, RecordError
from tests.engine_process import CONFIG

CATALOGUE = Catalogue.compile(parse(CONFIG.encode()), version_of(CONFIG.encode()), CONFIG.encode())
LAYOUT = CATALOGUE.layout
KNOWN = Incarnation("t.events", 1, "id", 1_000)


class Brittle(Ingest):
    """A fold that fails on one type of event."""

    def _folded(
        self, events: Sequence[Sequence[Logged]], records: Sequence[bytes | None]
    ) -> list[FoldResult | RecordError]:
        if any(event.type == "poison" for of_one in events for event in of_one):
            raise TypeError("poison")
        return super()._folded(events, records)


def folder(store: Store, kind: type[Ingest] = Ingest) -> Folder:
    return Folder(kind(LAYOUT, store, CATALOGUE.keeper), store, store.append_events)


class Racing(MemoryStore):
    """A store in which somebody else writes first, once."""

    rival: list[FeatureWrite]

    async def write_records(self, writes: Sequence[FeatureWrite]) -> list[bool]:
        first, self.rival = self.rival, []
        await super().write_records(first)
        return await super().write_records(writes)


def folded(events: Sequence[Logged]) -> bytes:
    return LAYOUT.fold(None, [Event(*event[:5]) for event in events]).record


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def records(*events: tuple[str, str]) -> list[Record]:
    values = [[customer, at + 1, kind, 5_000, {"amount": 1}] for at, (customer, kind) in enumerate(events)]
    return [Record("t.events", 0, at, 0.0, None, orjson.dumps(value)) for at, value in enumerate(values)]


async def test_one_event_that_cannot_be_folded_stops_nobody() -> None:
    store = MemoryStore(2, now_ms)
    kinds = ("purchase", "poison", "purchase", "purchase", "poison")
    batch = records(*zip(("anna", "anna", "bob", "anna", "carl"), kinds, strict=True))
    events, dead = events_of(batch, KNOWN)
    assert dead == []
    letters = await folder(store, Brittle).fold(events)
    assert [(orjson.loads(payload)[0], reason) for payload, reason in letters] == [
        ("anna", "cannot be folded: TypeError: poison"),
        ("carl", "cannot be folded: TypeError: poison"),
    ]
    anna, bob, carl = await store.read_features(["anna", "bob", "carl"])
    assert [LAYOUT.values(record, 6_000)["purchases"] for record in (anna, bob)] == [2.0, 1.0]
    assert carl is None


async def test_who_loses_a_race_reads_again() -> None:
    store = Racing(2, now_ms)
    events, _ = events_of(records(("anna", "purchase"), ("bob", "purchase"), ("anna", "purchase")), KNOWN)
    store.rival = [FeatureWrite("anna", b"", folded(events["anna"][:1]))]
    assert await folder(store).fold(dict(events)) == []
    expected = [folded(events[customer]) for customer in ("anna", "bob")]
    assert await store.read_features(["anna", "bob"]) == expected


async def test_a_damaged_record_begins_anew() -> None:
    store = MemoryStore(2, now_ms)
    await store.write_records([FeatureWrite("anna", b"", b"rubbish")])
    events, _ = events_of(records(("anna", "purchase")), KNOWN)
    await folder(store).fold(dict(events))
    assert await store.read_features(["anna"]) == [folded(events["anna"])]
