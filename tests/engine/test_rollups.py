"""Features of households and products: what they hold, whatever order, crash, repeat or move comes in between."""

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any

import orjson
import pytest
from faulty_store import FaultyStore
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from engine import limits
from engine.config import parse
from engine.errors import ConfigError
from engine.eventlog import StreamLog
from engine.identity import entity_entry, link_entry
from engine.ingest import Ingest
from engine.replay import FeatureReplay
from engine.rollups import copies, entity_name, is_entity
from engine.store import FeatureWrite, MemoryStore, StoreUnavailable
from engine.store.base import PARTS
from features import HEADER_CAS_BYTES, Event, Offset, news
from opportune.v1 import common_pb2, customers_pb2, identities_pb2
from tests.small_engine import CONFIG, SmallEngine, catalogue_of, features_of

HOUR_MS = 3_600_000
NOW_MS = 1_750_000_000_000
ROLLED = b"""
identities: [{kind: cookie}]
entities:
  - {kind: household, attribute: household_id}
  - {kind: product, attribute: product_id, many: true, fact: product}
events:
  - {type: move, attributes: {household_id: {type: text}}}
  - {type: view, attributes: {product_id: {type: text}}}
"""
FEATURES = b"""features:
  - {name: house_spent, entity: household, event: purchase, function: sum, attribute: amount, resolution: 1, default: 0,
     input: {kind: log, range: [0, 10000]}}
  - {name: house_spent_7d, entity: household, event: purchase, function: sum, attribute: amount, window: 7d}
  - {name: house_last, entity: household, event: purchase, function: last, attribute: category}
  - {name: house_complaints, entity: household, event: complaint, function: count}
  - {name: views, entity: product, event: view, function: count, window: 7d}
"""
SHOP = (
    CONFIG.replace(b"events:\n", ROLLED, 1)
    .replace(b"features:\n", FEATURES, 1)
    .replace(b"context:\n", b"context:\n  - {name: product, type: text}\n")
    .replace(b'"complaints_90d == 0.0", ', b'"house_complaints == 0.0", "views < 3.0", ')
)
CATALOGUE = catalogue_of(SHOP)
HOUSEHOLDS, PRODUCTS = CATALOGUE.rollups
MEMBERS = ("ann", "bob", "cat")
KIND = CATALOGUE.entity_kinds["household"]


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


def ingest_of(store: MemoryStore, batch_max: int) -> Ingest:
    return Ingest(
        CATALOGUE.layout,
        store,
        CATALOGUE.keeper,
        batch_max=batch_max,
        entities=CATALOGUE.entity_attributes,
        rollups=CATALOGUE.rollups,
    )


async def drain(store: CrashingStore, dice: Random) -> None:
    """Fold all, by processes that crash, begin anew, now and then at the beginning, and two at a time."""

    async def work() -> None:
        ingest = ingest_of(store, dice.choice((1, 2, 1_000)))
        while True:
            try:
                if not await ingest.round(0):
                    return
            except StoreUnavailable:
                ingest = ingest_of(store, dice.choice((1, 2, 1_000)))
                if dice.random() < 0.2:
                    ingest._after = dict.fromkeys(range(store.partitions), Offset.ZERO)

    rate = store.rate
    await asyncio.gather(*(work() for _ in range(dice.choice((1, 2)))))
    store.rate = 0.0
    await work()
    store.rate = rate


def expected(rollup: Any, events: Sequence[tuple[str, int, dict[str, Any]]]) -> dict[str, Any]:
    numbered = [Event(0, kind, time_ms, told, Offset(1, n)) for n, (kind, time_ms, told) in enumerate(events)]
    numbered.sort(key=lambda event: event.time_ms)
    ordered = [Event(0, e.type, e.time_ms, e.attributes, Offset(1, n)) for n, e in enumerate(numbered)]
    values: dict[str, Any] = rollup.layout.values(rollup.layout.fold(None, ordered).record if ordered else None, NOW_MS)
    return values


step = st.one_of(
    st.tuples(st.just("buys"), st.sampled_from(MEMBERS), st.integers(0, 300)),
    st.tuples(st.just("buys"), st.sampled_from(MEMBERS), st.integers(0, 300)),
    st.tuples(st.just("again"), st.sampled_from(MEMBERS), st.just(0)),
    st.tuples(st.just("moves"), st.sampled_from(MEMBERS), st.integers(0, 300)),
    st.tuples(st.just("joins"), st.sampled_from(MEMBERS), st.integers(0, 300)),
    st.tuples(st.just("leaves"), st.sampled_from(MEMBERS), st.just(0)),
    st.tuples(st.just("views"), st.sampled_from(MEMBERS), st.integers(0, 300)),
    st.tuples(st.just("drain"), st.just(""), st.just(0)),
)


@settings(max_examples=40, deadline=None, phases=[Phase.generate])  # shrinking would take minutes
@given(steps=st.lists(step, min_size=15, max_size=60), seed=st.integers(0, 10_000), rate=st.sampled_from((0.0, 0.3)))
async def test_a_household_has_what_its_members_did_while_they_belonged_to_it(
    steps: list[tuple[str, str, int]], seed: int, rate: float
) -> None:
    dice = Random(seed)
    store = CrashingStore(dice, rate)
    of_entity: dict[str, list[tuple[str, int, dict[str, Any]]]] = {}
    home: dict[str, tuple[int, str]] = {}
    last: dict[str, bytes] = {}

    async def append(name: str, data: bytes) -> None:
        await MemoryStore.append_events(store, [(name, data)])

    def belongs(name: str, time_ms: int, household: str) -> None:
        if home.get(name, (-1, "")) < (time_ms, household):
            home[name] = time_ms, household

    for number, (what, name, hours) in enumerate(steps):
        time_ms, household = NOW_MS - hours * HOUR_MS - number, f"h{dice.randrange(2)}"
        if what in ("buys", "moves", "views"):
            kind, told = {
                "buys": ("purchase", {"amount": float(number), "category": dice.choice(("food", "travel"))}),
                "moves": ("move", {"household_id": household}),
                "views": ("view", {"product_id": f"p{hours % 3}"}),
            }[what]
            last[name] = orjson.dumps([name, number + 1, kind, time_ms, told])
            await append(name, last[name])
            if what == "moves":
                belongs(name, time_ms, household)
            elif what == "views":
                of_entity.setdefault(entity_name("product", f"p{hours % 3}"), []).append((kind, time_ms, told))
            elif name in home:
                of_entity.setdefault(entity_name("household", home[name][1]), []).append((kind, time_ms, told))
        elif what == "again" and name in last:
            await append(name, last[name])  # the producer sends it twice: nothing changes
        elif what == "joins":
            await append(*entity_entry(name, KIND, household, time_ms))
            belongs(name, time_ms, household)
        elif what == "leaves" and name in home:
            await append(*entity_entry(name, KIND, home[name][1], time_ms, remove=True))
            del home[name]
        else:
            await drain(store, dice)
    await drain(store, dice)
    await drain(store, dice)
    for rollup, ids in ((HOUSEHOLDS, ("h0", "h1")), (PRODUCTS, ("p0", "p1", "p2"))):
        for each in ids:
            entity = entity_name(rollup.kind, each)
            [(record, _)] = await store.read([entity])
            assert rollup.layout.values(record, NOW_MS) == expected(rollup, of_entity.get(entity, ())), entity
    await replayed(store)


async def replayed(store: CrashingStore) -> None:
    """The log alone makes every record and what stands beside it again, byte for byte."""
    store.rate = 0.0
    for partition, end in (await store.folded()).items():
        again = FeatureReplay(
            CATALOGUE.layout, CATALOGUE.keeper, end, NOW_MS, CATALOGUE.entity_attributes, CATALOGUE.rollups
        )
        after = Offset.ZERO
        while (piece := await StreamLog(store).read(partition, after)) is not None:
            names = again.strangers(piece.arrivals)
            kept = zip(await store.read_features(names), await store.read_beside(PARTS, names), strict=True)
            for name, (record, parts) in zip(names, kept, strict=True):
                again.expect(name, record, parts)
            again.absorb(piece.arrivals)
            after = piece.reached
        assert again.differences() == []


# --- one engine -----------------------------------------------------------------------------------------------------


async def join(engine: SmallEngine, customer: str, household: str, request_id: str) -> None:
    entity = identities_pb2.Entity(kind="household", id=household)
    request = identities_pb2.LinkRequest(request_id=request_id, customer_id=customer, entities=[entity])
    await engine.service.identities.link(request)
    await engine.settle()


async def eligible(engine: SmallEngine, customer: str, **context: Any) -> set[str]:
    answer = await engine.decide(customer, context=context)
    assert not answer.degraded
    told = await engine.explain(answer.decision_id)
    return {candidate.offer_id for candidate in told.candidates if candidate.eligible}


async def test_what_one_member_does_changes_the_decision_of_the_other() -> None:
    engine = SmallEngine(SHOP)
    await join(engine, "ann", "h1", "r1")
    await join(engine, "bob", "h1", "r2")
    await engine.publish("purchase", "ann", amount=500)
    await engine.fold()
    assert "loan" in await eligible(engine, "ann")
    await engine.publish("complaint", "bob")
    await engine.fold()
    assert "loan" not in await eligible(engine, "ann"), "bob complained"
    shown = features_of(await engine.customer("bob"))
    assert (shown["house_spent"], shown["house_complaints"], shown["spent_30d"]) == (500, 1, 0)
    assert features_of(await engine.customer("carl"))["house_spent"] == 0


async def test_a_household_is_an_input_of_the_model() -> None:
    engine = SmallEngine(SHOP)
    assert "log(house_spent)" in engine.catalogue.input_names
    await join(engine, "ann", "h1", "r1")
    await join(engine, "bob", "h1", "r2")
    await engine.publish("purchase", "bob", amount=5_000)
    await engine.fold()
    answers = [await engine.decide(customer) for customer in ("ann", "carl")]
    records = [(await engine.service.lookups.found(answer.decision_id))[2].x for answer in answers]
    at = engine.catalogue.input_names.index("log(house_spent)")
    assert records[0][at] != records[1][at]


async def test_history_stays_where_it_was_when_somebody_moves() -> None:
    engine = SmallEngine(SHOP)
    await engine.publish("purchase", amount=1)
    await engine.publish("move", household_id="h1")
    await engine.publish("purchase", amount=10)
    engine.now_ms += 1
    await engine.publish("move", household_id="h2")
    await engine.publish("purchase", amount=100)
    await engine.publish("move", "bob", household_id="h1")
    await engine.fold()
    assert features_of(await engine.customer("ann"))["house_spent"] == 100
    assert features_of(await engine.customer("bob"))["house_spent"] == 10


async def test_however_many_products_somebody_looks_at_the_household_stays() -> None:
    engine = SmallEngine(SHOP)
    for number in range(limits.ENTITY_ENTRIES_MAX + 8):
        await engine.publish("view", product_id=f"p{number}")
    await engine.publish("move", household_id="h1")
    await engine.publish("purchase", amount=100)
    await engine.fold()
    assert features_of(await engine.customer("ann"))["house_spent"] == 100
    await join(engine, "ann", "h9", "r1")
    await engine.publish("view", product_id="p99")
    await engine.publish("purchase", amount=7)
    await engine.fold()
    assert features_of(await engine.customer("ann"))["house_spent"] == 7
    assert engine.store.dead == []


async def test_what_comes_under_a_cookie_counts_for_the_household_of_whom_it_belongs_to() -> None:
    engine = SmallEngine(SHOP)
    await join(engine, "ann", "h1", "r1")
    await engine.store.append_events([link_entry("cookie=c7", "ann", engine.now_ms, source="api")])
    await engine.fold()
    [offset] = await engine.store.append_events(
        [("cookie=c7", orjson.dumps(["cookie=c7", 9, "purchase", engine.now_ms, {"amount": 70.0}]))]
    )
    await engine.fold()
    cookie = common_pb2.Identity(kind="cookie", value="c7")
    found = await engine.service.customers.get(customers_pb2.GetCustomerRequest(identities=[cookie]))
    assert features_of(found)["house_spent"] == 70
    assert found.customer_id == "ann"
    assert offset > Offset.ZERO


async def test_the_product_of_a_conversation_is_named_by_the_caller() -> None:
    engine = SmallEngine(SHOP)
    await engine.publish("purchase", "ann", amount=500)
    for viewer in ("bob", "carl", "dora"):
        await engine.publish("view", viewer, product_id="tv")
    await engine.fold()
    assert "loan" not in await eligible(engine, "ann", product="tv")
    assert "loan" in await eligible(engine, "ann", product="radio")
    assert "loan" in await eligible(engine, "ann")


async def test_a_damaged_record_of_a_household_is_told_and_begins_anew() -> None:
    engine = SmallEngine(SHOP)
    await join(engine, "ann", "h1", "r1")
    await engine.publish("purchase", amount=5)
    await engine.fold()
    name = entity_name("household", "h1")
    [record] = await engine.store.read_features([name])
    assert record is not None
    damaged = FeatureWrite(name, record[:HEADER_CAS_BYTES], record[:-1] + b"?")
    assert await engine.store.write_records([damaged]) == [True]
    assert (await engine.decide()).degraded
    await engine.publish("purchase", amount=7)
    await engine.fold()
    assert not (await engine.decide()).degraded
    assert features_of(await engine.customer())["house_spent"] == 7


async def test_without_the_records_of_households_decisions_fall_back() -> None:
    engine = SmallEngine(SHOP, FaultyStore(4, lambda: NOW_MS))
    await join(engine, "ann", "h1", "r1")
    store = engine.store
    assert isinstance(store, FaultyStore)
    whole = store.read

    async def read(customers: Sequence[str]) -> list[tuple[bytes | None, bytes | None]]:
        if any(map(is_entity, customers)):
            raise StoreUnavailable("away")
        return await whole(customers)

    store.read = read  # type: ignore[method-assign]  # as if its node were away
    answers = await asyncio.gather(engine.decide("ann"), engine.decide("bob"))
    assert [bool(answer.degraded) for answer in answers] == [True, False], "bob belongs to no household"


async def test_without_roll_ups_a_decision_reads_once_and_copies_left_over_change_nothing() -> None:
    engine = SmallEngine(CONFIG, FaultyStore(4, lambda: NOW_MS))
    store = engine.store
    assert isinstance(store, FaultyStore)
    name = entity_name("household", "h1")
    copy = [name, 0, "purchase", NOW_MS, {"amount": 1.0, "@from": [0, 1, 1]}]
    await store.append_events([(name, orjson.dumps(copy))])
    await engine.fold()
    assert await store.read_features([name]) == [None]
    store.reads.clear()
    await engine.decide()
    assert len(store.reads) == 1


async def test_nobody_outside_can_ask_for_an_entity_as_a_customer() -> None:
    engine = SmallEngine(SHOP)
    with pytest.raises(Exception, match=r"customer_id: .* has U\+"):
        await engine.decide(entity_name("household", "h1"))


# --- parts ----------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, 40), max_size=120), cut=st.integers(0, 120))
def test_news_are_what_a_fold_counts(ids: list[int], cut: int) -> None:
    layout = CATALOGUE.layout
    events = [Event(digest, "complaint", NOW_MS, {}, Offset(1, n + 1)) for n, digest in enumerate(ids)]
    before = layout.fold(None, events[:cut]).record if events[:cut] else None
    counted = news(before, events)
    done = layout.header(before).events if before is not None else 0
    whole = layout.fold(before, events).record
    assert layout.header(whole).events - done == len(counted)


def test_without_events_nothing_is_copied() -> None:
    assert copies(CATALOGUE.rollups, (), {}, lambda _: 0) == []


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (b"household, event: complaint", b"house, event: complaint", "features[3].entity: no entity kind 'house'"),
        (b"household, event: complaint", b"house, event: complaint", "there are customer, household, product"),
        (b", fact: product}", b"}", "entities[1]: a customer has many, a feature is of one: expected fact, by which"),
        (b"product_id, many", b"product, many", "entities[1].attribute: no event type has a text attribute"),
        (b"fact: product}", b"fact: minutes}", "entities[1].fact: context has no text fact 'minutes'"),
        (b"product, event: view", b"product, event: move", "features[4].event: event 'move' has no attribute"),
        (b"kind: household,", b"kind: customer,", "entities[0].kind: 'customer' is whose features"),
        (b"product, type: text}", b"product, type: text, input: {kind: one_hot}}", "context[0]: a text fact needs"),
        (
            b"  - {name: views,",
            b"  - {name: x, entity: product, function: ratio, numerator: house_spent, denominator: house_spent_7d}\n"
            b"  - {name: views,",
            "features[4]: feature 'x': ",
        ),
    ],
)
def test_a_wrong_roll_up_is_refused(old: bytes, new: bytes, told: str) -> None:
    assert SHOP.count(old) == 1
    with pytest.raises(ConfigError) as refusal:
        parse(SHOP.replace(old, new), "shop.yaml")
    assert told in str(refusal.value)
