"""Batches into a store: what is an event, and what becomes of one that cannot be folded."""

import time
from collections.abc import Sequence

import orjson

from engine.catalogue import Catalogue
from engine.config import parse, version_of
from engine.ingest import Ingest, Logged
from engine.kafka.folding import Folder, events_of
from engine.kafka.repartition import Repartitioner
from engine.kafka.sequence import Record
from engine.kafka.topics import Incarnation, Topics
from engine.rollups import entity_name
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


HOUSEHOLDS = (
    CONFIG.replace("events:\n", "entities: [{kind: household, attribute: home}]\nevents:\n", 1)
    .replace("required: true}}", "required: true}, home: {type: text}}")
    .replace(
        "features:\n",
        "features:\n  - {name: house_spent, entity: household, event: purchase, function: sum, attribute: amount}\n",
    )
)


async def test_copies_for_a_household_count_once_however_often_a_batch_is_folded_or_cut() -> None:
    catalogue = Catalogue.compile(parse(HOUSEHOLDS.encode()), "00")
    [rollup] = catalogue.rollups
    topic = Incarnation("t.events", 3, "id", 1_000)
    log: dict[int, list[bytes]] = {0: [], 1: [], 2: []}

    async def send(entries: Sequence[tuple[str, bytes]]) -> None:
        for name, data in entries:
            log[topic.partition_of(name)].append(data)

    def batch(partition: int) -> list[Record]:
        return [Record("t.events", partition, at, 0.0, None, data) for at, data in enumerate(log[partition])]

    store = MemoryStore(2, now_ms)
    for number, (customer, kind) in enumerate(
        (("anna", "purchase"), ("bob", "purchase"), ("anna", "poison"), ("bob", "purchase"), ("anna", "purchase"))
    ):
        attributes = {"amount": 10.0**number, "home": "h1"}
        await send([(customer, orjson.dumps([customer, number + 1, kind, 5_000, attributes]))])

    def worker() -> Folder:
        ingest = Brittle(
            catalogue.layout,
            store,
            catalogue.keeper,
            entities=catalogue.entity_attributes,
            rollups=catalogue.rollups,
        )
        return Folder(ingest, store, send, topic.partition_of)

    for _ in range(3):  # as after workers that died before they could commit an offset
        for partition in (2, 1, 0, 1, 2):
            events, dead = events_of(batch(partition), topic)
            assert dead == []
            for _, reason in await worker().fold(events):
                assert reason == "cannot be folded: TypeError: poison"
    [household] = await store.read_features([entity_name("household", "h1")])
    assert rollup.layout.values(household, 6_000) == {"house_spent": 11_011.0}


def test_a_foreign_event_too_deep_to_be_written_is_refused_alone() -> None:
    """What its type does not declare is dropped there as over HTTP, and never looked at."""
    usual = b'{"specversion": "1.0", "source": "till", "type": "purchase", "subject": "c1", "id": "%d", "data": %s}'
    deep = b'{"x":' * 300 + b"1" + b"}" * 300
    values = (usual % (1, b'{"amount": 1, "more": %s}' % deep), usual % (2, b'{"amount": %s}' % deep))
    batch = [Record("raw", 0, 0, now_ms() / 1e3, None, b"[%s,%s]" % values)]
    [(outgoing, _)] = Repartitioner(CATALOGUE, Topics(), KNOWN, now_ms).parts(batch)
    event, letter = outgoing
    assert (event.topic, event.key, orjson.loads(event.value)[4]) == (Topics().events, b"c1", {"amount": 1.0})
    assert (letter.topic, orjson.loads(letter.value)["id"]) == (Topics().dead, "2")
