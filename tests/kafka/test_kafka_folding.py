"""Batches into a store: what is an event, and what becomes of one that cannot be folded."""

import time
from collections.abc import Sequence

import orjson

from engine.kafka.folding import Folder, events_of
from engine.kafka.sequence import Record
from engine.kafka.topics import Incarnation
from engine.store import FeatureWrite, MemoryStore
from features import Event, FeatureSpec, FoldResult, Layout

SPEC = FeatureSpec("calls", "count", "call")
KNOWN = Incarnation("t.events", 1, "id", 1_000)


class Brittle(Layout):
    """A layout that cannot fold one type of event."""

    def fold(self, record: bytes | None, events: Sequence[Event]) -> FoldResult:
        if any(event.type == "poison" for event in events):
            raise TypeError("poison")
        return super().fold(record, events)


class Racing(MemoryStore):
    """A store in which somebody else writes first, once."""

    rival: list[FeatureWrite]

    async def write_records(self, writes: Sequence[FeatureWrite]) -> list[bool]:
        first, self.rival = self.rival, []
        await super().write_records(first)
        return await super().write_records(writes)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def records(*events: tuple[str, str]) -> list[Record]:
    values = [[customer, at + 1, kind, 5_000, {}] for at, (customer, kind) in enumerate(events)]
    return [Record("t.events", 0, at, 0.0, None, orjson.dumps(value)) for at, value in enumerate(values)]


async def test_one_event_that_cannot_be_folded_stops_nobody() -> None:
    layout, store = Brittle.compile([SPEC]), MemoryStore(2, now_ms)
    batch = records(("anna", "call"), ("anna", "poison"), ("bob", "call"), ("anna", "call"), ("carl", "poison"))
    events, dead = events_of(batch, KNOWN)
    assert dead == []
    letters = await Folder(layout, store).fold(events)
    assert [(orjson.loads(payload)[0], reason) for payload, reason in letters] == [
        ("anna", "cannot be folded: TypeError: poison"),
        ("carl", "cannot be folded: TypeError: poison"),
    ]
    anna, bob, carl = await store.read_features(["anna", "bob", "carl"])
    assert [layout.values(record, 6_000)["calls"] for record in (anna, bob)] == [2.0, 1.0]
    assert carl is None


async def test_who_loses_a_race_reads_again() -> None:
    layout, store = Layout.compile([SPEC]), Racing(2, now_ms)
    events, _ = events_of(records(("anna", "call"), ("bob", "call"), ("anna", "call")), KNOWN)
    store.rival = [FeatureWrite("anna", b"", layout.fold(None, events["anna"][:1]).record)]
    assert await Folder(layout, store).fold(dict(events)) == []
    expected = [layout.fold(None, events[customer]).record for customer in ("anna", "bob")]
    assert await store.read_features(["anna", "bob"]) == expected


async def test_a_damaged_record_begins_anew() -> None:
    layout, store = Layout.compile([SPEC]), MemoryStore(2, now_ms)
    await store.write_records([FeatureWrite("anna", b"", b"rubbish")])
    events, _ = events_of(records(("anna", "call")), KNOWN)
    await Folder(layout, store).fold(dict(events))
    assert await store.read_features(["anna"]) == [layout.fold(None, events["anna"]).record]
