"""Merging is exact: whatever is linked and taken back, in whatever batches and with whatever crashes, the features of a
customer are those of the union of the events that count for them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.identity import link_entry, unlink_entry
from engine.ingest import Ingest
from engine.links import Links, moved_to
from engine.store import LINKS, MemoryStore, StoreUnavailable
from engine.timeline import Keeper
from features import Event, FeatureSpec, Layout, Offset, parse_duration_ms

HOUR_MS = 3_600_000
LAYOUT = Layout.compile(
    [
        FeatureSpec("visits", "count", "visit"),
        FeatureSpec("visits_1d", "count", "visit", window_ms=parse_duration_ms("1d")),
        FeatureSpec("spent", "sum", "buy", attribute="amount", resolution=0.01),
        FeatureSpec("spent_7d", "sum", "buy", attribute="amount", resolution=0.01, window_ms=parse_duration_ms("7d")),
        FeatureSpec("mean_7d", "mean", "buy", attribute="amount", resolution=0.01, window_ms=parse_duration_ms("7d")),
        FeatureSpec("last", "last", "buy", attribute="amount"),
        FeatureSpec("since", "recency", "visit"),
        FeatureSpec("least_7d", "min", "buy", attribute="amount", window_ms=parse_duration_ms("7d")),
        FeatureSpec("most", "max", "buy", attribute="amount"),
        FeatureSpec("first", "first", "buy", attribute="amount"),
        FeatureSpec("distinct_7d", "distinct", "buy", attribute="amount", window_ms=parse_duration_ms("7d")),
        FeatureSpec("at_this_hour", "hour_share", "visit", window_ms=parse_duration_ms("7d")),
    ]
)
COOKIES = ("cookie=c1", "phone=p1")
CUSTOMERS = ("ann", "bob")
NOW_MS = 1_750_000_000_000


class CrashingStore(MemoryStore):
    """Fails now and then, before or after it has done what it was asked, and lets others go first."""

    def __init__(self, dice: Random, rate: float) -> None:
        super().__init__(3, lambda: NOW_MS)
        self.dice = dice
        self.rate = rate

    async def _faulty(self, call: Any) -> Any:
        for _ in range(self.dice.randrange(4)):
            await asyncio.sleep(0)
        if self.dice.random() < self.rate:
            call.close()
            raise StoreUnavailable("before")
        result = await call
        if self.dice.random() < self.rate:
            raise StoreUnavailable("after")
        return result

    async def read_features(self, *arguments: Any) -> list[bytes | None]:
        return await self._faulty(super().read_features(*arguments))

    async def read_beside(self, *arguments: Any) -> list[bytes | None]:
        return await self._faulty(super().read_beside(*arguments))

    async def append_events(self, *arguments: Any) -> list[Offset]:
        return await self._faulty(super().append_events(*arguments))

    async def write_features(self, *arguments: Any) -> list[bool]:
        return await self._faulty(super().write_features(*arguments))


async def drain(store: CrashingStore, dice: Random) -> None:
    """Fold all, by processes that crash, begin anew, now and then at the beginning, and two at a time."""

    async def work() -> None:
        ingest = Ingest(LAYOUT, store, Keeper({}), batch_max=dice.choice((1, 2, 1_000)))
        while True:
            try:
                if not await ingest.round(0):
                    return
            except StoreUnavailable:
                ingest = Ingest(LAYOUT, store, Keeper({}), batch_max=dice.choice((1, 2, 1_000)))
                if dice.random() < 0.2:
                    ingest._after = dict.fromkeys(range(store.partitions), Offset.ZERO)

    rate = store.rate
    await asyncio.gather(*(work() for _ in range(dice.choice((1, 2)))))
    # One ends while the other still sends: what is left is done without haste.
    store.rate = 0.0
    await work()
    store.rate = rate


async def append(store: CrashingStore, *entries: tuple[str, bytes]) -> list[Offset]:
    return await MemoryStore.append_events(store, entries)


@dataclass
class Name:
    """What a name should be: its events by whom they count for, and to whom it belongs."""

    events: dict[str, list[Event]] = field(default_factory=lambda: {"": []})
    to: str = ""

    def add(self, event: Event) -> None:
        self.events.setdefault(self.to, []).append(event)

    def link(self, to: str) -> None:
        if not self.to:
            self.events.setdefault(to, []).extend(self.events.pop("", []))
        self.events.setdefault(to, [])
        self.to = to

    def unlink(self, to: str) -> None:
        if to in self.events:
            self.to = "" if self.to == to else self.to
            self.events.setdefault(self.to, []).extend(self.events.pop(to))


def union(names: dict[str, Name], customer: str) -> list[Event]:
    """All events that count for a name that stands for itself."""
    events = list(names[customer].events.get("", []))
    for other in names.values():
        events += other.events.get(customer, [])
    return sorted(events, key=lambda event: event.time_ms)


def folded(events: Sequence[Event]) -> bytes | None:
    numbered = [
        Event(event.id_hash, event.type, event.time_ms, event.attributes, Offset(1, number))
        for number, event in enumerate(events)
    ]
    return LAYOUT.fold(None, numbered).record if numbered else None


step = st.one_of(
    st.tuples(st.just("event"), st.sampled_from(COOKIES + CUSTOMERS), st.integers(0, 300)),
    st.tuples(st.just("event"), st.sampled_from(COOKIES + CUSTOMERS), st.integers(0, 300)),
    st.tuples(st.just("link"), st.sampled_from(COOKIES), st.sampled_from(CUSTOMERS)),
    st.tuples(st.just("unlink"), st.sampled_from(COOKIES), st.sampled_from(CUSTOMERS)),
    st.tuples(st.just("drain"), st.just(""), st.just(0)),
)


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(step, min_size=15, max_size=60), seed=st.integers(0, 10_000), rate=st.sampled_from((0.0, 0.3)))
async def test_the_merged_record_is_that_of_the_union_and_taking_back_restores(
    steps: list[tuple[str, str, Any]], seed: int, rate: float
) -> None:
    dice = Random(seed)
    store = CrashingStore(dice, rate)
    names = {name: Name() for name in COOKIES + CUSTOMERS}
    alone: dict[str, list[Event]] = {name: [] for name in names}
    for number, (what, name, other) in enumerate(steps):
        if what == "event":
            # Times are distinct: which of two events of one millisecond is the last is nobody's promise.
            time_ms, kind = NOW_MS - other * HOUR_MS - number, dice.choice(("visit", "buy"))
            attributes = {"amount": float(number)} if kind == "buy" else {}
            entry = orjson.dumps([name, number + 1, kind, time_ms, attributes])
            [offset] = await append(store, (name, entry))
            names[name].add(event := Event(number + 1, kind, time_ms, attributes, offset))
            alone[name].append(event)
        elif what == "link":
            await append(store, link_entry(name, other, NOW_MS, source="api"))
            names[name].link(other)
        elif what == "unlink":
            await append(store, unlink_entry(name, other, NOW_MS, source="api"))
            names[name].unlink(other)
        else:
            await drain(store, dice)
    await drain(store, dice)
    for name, expected in names.items():
        [(record, _)] = await store.read([name])
        assert moved_to(record) == expected.to
        if not expected.to:
            assert LAYOUT.values(record, NOW_MS) == LAYOUT.values(folded(union(names, name)), NOW_MS)
            own = names[name].events[""]
            if record is not None and name in CUSTOMERS:
                assert LAYOUT.watermark(record)[0] == (own[-1].offset if own else Offset.ZERO)
    for customer in CUSTOMERS:
        data = store._beside[LINKS].get(customer)
        assert sorted(Links.unpack(data).linked) == sorted(name for name in COOKIES if names[name].to == customer)
    # All links taken back: every record is, byte for byte, the one without any of this.
    everything = [unlink_entry(c, to, NOW_MS, source="api") for c in COOKIES for to in CUSTOMERS]
    await append(store, *everything)
    await drain(store, dice)
    for name, events in alone.items():
        [(record, _)] = await store.read([name])
        if len({to for kind, _, to in steps if kind == "link"}) < 2:
            assert record == (LAYOUT.fold(None, events).record if events else None)
        assert LAYOUT.values(record, NOW_MS) == LAYOUT.values(folded(sorted(events, key=by_time)), NOW_MS)


def by_time(event: Event) -> int:
    return event.time_ms
