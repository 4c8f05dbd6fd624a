"""What topics keep and streams do not: events of people who were forgotten, of years, of an earlier topic."""

import asyncio
from collections.abc import Sequence

import orjson
import pytest

from engine.eventlog import Arrival, Piece
from engine.identity import forget_entry
from engine.ingest import Ingest, logged_event
from engine.kafka.folding import Folder, events_of
from engine.kafka.sequence import Record
from engine.kafka.topics import Incarnation
from engine.limits import CUSTOMER_KEY_TTL_MS
from engine.replay import Findings, Verdict
from engine.replaying import replay
from engine.store import LogEntry, MemoryStore
from features import Offset
from tests.history.past import catalogue_of

KNOWN = Incarnation("t.events", 1, "id", 1_700_000_000_000)
CATALOGUE = catalogue_of()
DAY_MS = 86_400_000
BEGIN_MS = 1_700_000_000_000
FORGET = forget_entry("ann", BEGIN_MS)[1]

Entry = tuple[int, bytes]
"""(day on which it came, what it says)."""


def buys(customer: str, number: int, day: int = 0) -> Entry:
    amount = {"amount": float(number)}
    return day, orjson.dumps([customer, number, "purchase", BEGIN_MS + number, amount])


def complains(customer: str, number: int, day: int) -> Entry:
    return day, orjson.dumps([customer, number, "complaint", BEGIN_MS + number, {"about": "card"}])


class Topic:
    """The events topic, of one partition."""

    partitions = 1

    def __init__(self, entries: Sequence[Entry], known: Incarnation = KNOWN) -> None:
        self.known = known
        self.begins = known.position(-1)
        self.records = [
            Record(known.topic, 0, at, (BEGIN_MS + day * DAY_MS) / 1e3, b"", value)
            for at, (day, value) in enumerate(entries)
        ]

    async def folded(self) -> list[Offset]:
        return [self.known.position(len(self.records) - 1)]

    async def read(self, partition: int, after: Offset) -> Piece | None:
        if after > self.begins:
            return None
        entries = [LogEntry(self.known.position(record.offset), record.value or b"") for record in self.records]
        arrived = [int(record.timestamp * 1e3) for record in self.records]
        arrivals = [Arrival(*logged_event(entry), at) for entry, at in zip(entries, arrived, strict=True)]
        return Piece(arrivals, len(entries), entries[-1].offset)

    async def cut(self, partition: int, entries: int) -> bool:
        return False


def replayed(topic: Topic, batch: int = 100, store: MemoryStore | None = None) -> Findings:
    """Fold a topic as a worker does, at the times when its records came, and compare."""
    now_ms = [0]
    store = store or MemoryStore(1, lambda: now_ms[0])

    async def none(entries: Sequence[tuple[str, bytes]]) -> None:
        assert not entries

    async def work() -> Findings:
        folder = Folder(Ingest(CATALOGUE.layout, store, CATALOGUE.keeper), store, none, lambda name: 0)
        for start in range(0, len(topic.records), batch):
            records = topic.records[start : start + batch]
            now_ms[0] = int(records[-1].timestamp * 1e3)
            events, _ = events_of(records, topic.known)
            assert not await folder.fold(events)
        return await replay(CATALOGUE, store, events=topic, now_ms=now_ms[0])

    return asyncio.run(work())


@pytest.mark.parametrize("batch", [1, 2, 100])
@pytest.mark.parametrize("after", [0, 1, 2])
def test_who_was_forgotten_is_as_he_should_be(batch: int, after: int) -> None:
    entries = [buys("ann", 1), buys("bob", 2), buys("ann", 3), (0, FORGET)]
    entries += [buys("ann", 10 + number) for number in range(after)]
    found = replayed(Topic(entries), batch)
    assert (found.verdict, found.caveats) == (Verdict.EQUAL, [])
    assert found.counts["events not folded yet"] == 0


def test_what_is_lost_of_who_was_forgotten_is_found() -> None:
    topic = Topic([buys("ann", 1), (0, FORGET), buys("ann", 2)])
    store = MemoryStore(1, lambda: BEGIN_MS)
    assert replayed(topic, store=store).verdict is Verdict.EQUAL
    store._features.drop("ann")
    found = asyncio.run(replay(CATALOGUE, store, events=topic, now_ms=BEGIN_MS))
    assert found.verdict is Verdict.DIFFERENT
    assert "is folded but not in the record" in found.differences[0]


@pytest.mark.parametrize(
    ("entries", "silent"),
    [
        ([buys("ann", 1), buys("ann", 2, day=399)], 0),
        ([buys("ann", 1), buys("ann", 2, day=401)], 1),
        # The record lives on, the timeline does not: complaints do not stand on it.
        ([buys("ann", 1), complains("ann", 2, day=300), buys("ann", 3, day=500)], 1),
    ],
)
def test_state_that_went_away_in_between_is_not_compared(entries: list[Entry], silent: int) -> None:
    assert CUSTOMER_KEY_TTL_MS == 400 * DAY_MS
    found = replayed(Topic(entries), batch=1)
    assert (found.verdict, found.differences) == (Verdict.EQUAL, [])
    assert found.counts.get("customers not compared, silent for 400 days in between", 0) == silent
    assert found.counts["customers' features compared"] == 1 - silent


def test_states_of_an_earlier_topic_prove_nothing() -> None:
    store = MemoryStore(1, lambda: BEGIN_MS)
    assert replayed(Topic([buys("ann", 1)]), store=store).verdict is Verdict.EQUAL
    later = Incarnation("t.events", 1, "another", KNOWN.base_ms + 1)
    found = asyncio.run(replay(CATALOGUE, store, events=Topic([buys("ann", 1)], later), now_ms=BEGIN_MS))
    assert found.verdict is Verdict.CANNOT_TELL
    assert found.caveats == ["partition 0: 1 customers have states of an earlier log"]
