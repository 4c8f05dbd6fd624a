"""Configurations change: their features carry over, and records of one that is not known are left alone."""

import asyncio
from functools import partial

from engine.layouts import LayoutWatch, keep_layout, learn_layouts
from engine.store import MemoryStore
from features import Layout
from opportune.v1 import decisions_pb2
from tests.small_engine import CONFIG, SmallEngine

NEXT = CONFIG.replace(
    b"features:\n",
    b"features:\n  - {name: last_amount, event: purchase, function: last, attribute: amount}\n",
).replace(b"name: purchases_7d", b"name: purchases_week")


async def started(text: bytes, store: MemoryStore | None = None) -> SmallEngine:
    engine = SmallEngine(text, store)
    await keep_layout(engine.store, engine.catalogue.version, text, engine.catalogue.layout)
    return engine


def values(engine: SmallEngine, record: bytes | None) -> dict[str, float | str | bool | None]:
    return engine.catalogue.layout.values(record, engine.now_ms)


async def test_after_a_change_what_was_known_is_known_and_what_is_new_begins() -> None:
    before = await started(CONFIG)
    await before.publish("purchase", amount=150.0, category="travel")
    await before.fold()
    assert isinstance(before.store, MemoryStore)
    after = await started(NEXT, before.store)
    [record] = await after.store.read_features(["ann"])
    assert values(after, record) == {
        "last_amount": None,
        "spent_30d": 150.0,
        "purchases_week": 1.0,
        "complaints_90d": 0.0,
        "last_category": "travel",
    }
    await after.publish("purchase", event_id="later", amount=50.0, category="food")
    await after.fold()
    [record] = await after.store.read_features(["ann"])
    assert (values(after, record)["spent_30d"], values(after, record)["last_amount"]) == (200.0, 50.0)
    # And back again: nobody has to wait for anybody in a rolling change.
    assert await learn_layouts(before.store, before.catalogue.layout) == 1
    assert values(before, record)["spent_30d"] == 200.0


async def test_a_server_that_meets_a_newer_layout_says_so_and_learns_it() -> None:
    old = await started(CONFIG)
    assert isinstance(old.store, MemoryStore)
    new = await started(NEXT, old.store)
    await new.publish("purchase", amount=150.0)
    await new.fold()
    watch = LayoutWatch(old.store, old.catalogue.layout)
    old.service.decider.on_unreadable = watch.look
    first = await old.decide()
    assert first.degraded == decisions_pb2.DEGRADED_REASON_STATE_UNREADABLE
    assert first.offers
    [record] = await old.store.read_features(["ann"])
    assert record is not None
    async with asyncio.timeout(5):
        while not old.catalogue.layout.knows(record):
            await asyncio.sleep(0.001)
    assert not (await old.decide(channel="web")).degraded


async def test_events_on_a_record_of_an_unknown_layout_are_told_and_the_record_stays() -> None:
    stranger = SmallEngine(NEXT)  # its configuration never reached the store
    await stranger.publish("purchase", "ann", amount=150.0)
    await stranger.fold()
    assert isinstance(stranger.store, MemoryStore)
    [before] = await stranger.store.read_features(["ann"])
    engine = await started(CONFIG, stranger.store)
    await engine.publish("purchase", "ann", "later", amount=1.0)
    await engine.publish("purchase", "bob", amount=2.0)
    await engine.fold()
    [ann, bob] = await engine.store.read_features(["ann", "bob"])
    assert ann == before
    assert values(engine, bob)["spent_30d"] == 2.0
    [(payload, reason)] = stranger.store.dead
    assert b'"ann"' in payload
    version = stranger.catalogue.layout.version
    assert reason.startswith(f"the state of customer 'ann' cannot be written: record is of layout {version:#010x}")


async def test_ingest_learns_a_layout_that_came_after_its_start() -> None:
    engine = await started(CONFIG)
    assert isinstance(engine.store, MemoryStore)
    engine.ingest._learn = partial(learn_layouts, engine.store, engine.catalogue.layout)
    newer = await started(NEXT, engine.store)
    await newer.publish("purchase", amount=150.0)
    await newer.fold()
    await engine.publish("purchase", event_id="later", amount=50.0)
    await engine.fold()
    [record] = await engine.store.read_features(["ann"])
    assert values(engine, record)["spent_30d"] == 200.0
    assert engine.store.dead == []


async def test_a_configuration_that_cannot_be_read_any_more_is_passed_over() -> None:
    engine = await started(CONFIG)
    await engine.store.save_config("broken", b"offers: [")
    await engine.store.save_layout(1, "broken")
    await engine.store.save_layout(2, "gone")
    assert await learn_layouts(engine.store, Layout.compile([])) == 1


async def test_a_customer_whose_record_is_of_an_earlier_configuration_is_shown() -> None:
    before = await started(CONFIG)
    await before.publish("purchase", amount=150.0, category="travel")
    await before.fold()
    assert isinstance(before.store, MemoryStore)
    for text in (NEXT, NEXT.replace(b"limit: 3", b"limit: 3\ntimezone: Europe/Prague")):
        after = await started(text, before.store)
        found = {feature.name: feature.value.number for feature in (await after.customer()).features}
        assert (found["spent_30d"], found["last_amount"]) == (150.0, 0.0)
