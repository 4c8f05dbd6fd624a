"""One customer with very many events: nobody else waits for him, and his record stays small."""

from typing import Any

import pytest

from engine.limits import INGEST_BATCH_MAX
from engine.store import MemoryStore, StoreUnavailable
from engine.store.base import partition_of
from tests.small_engine import PARTITIONS, START_MS, SmallEngine

HOT_EVENTS = 20 * INGEST_BATCH_MAX


async def test_a_hot_customer_starves_nobody_and_costs_no_more_than_others() -> None:
    engine = SmallEngine()
    store = engine.store
    assert isinstance(store, MemoryStore)
    purchase = b'["ann",%d,"purchase",%d,{"amount":1.0,"category":"food"}]'
    await store.append_events([("ann", purchase % (n, START_MS + n)) for n in range(1, HOT_EVENTS + 1)])
    others = [f"customer-{n}" for n in range(50)]
    elsewhere = [c for c in others if partition_of(c, PARTITIONS) != partition_of("ann", PARTITIONS)]
    beside = [c for c in others if c not in elsewhere]
    assert elsewhere
    assert beside
    one = '["%s",1,"purchase",%d,{"amount":5.0}]'
    await store.append_events([(customer, (one % (customer, START_MS)).encode()) for customer in others])

    assert await engine.ingest.round(0) == INGEST_BATCH_MAX + len(elsewhere)
    assert None not in await store.read_features(elsewhere), "those of other partitions do not wait at all"

    rounds = 1
    while await engine.ingest.round(0):
        rounds += 1
    assert rounds == HOT_EVENTS // INGEST_BATCH_MAX + 1, "those of his partition wait for what came before theirs"
    assert None not in await store.read_features(beside)
    [record] = await store.read_features(["ann"])
    assert record is not None
    assert len(record) < 400
    assert engine.catalogue.layout.values(record, START_MS + HOT_EVENTS)["spent_30d"] == HOT_EVENTS


async def test_what_was_read_ahead_is_read_again_if_what_came_before_it_could_not_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = SmallEngine()
    store = engine.store
    assert isinstance(store, MemoryStore)
    purchase = b'["ann",%d,"purchase",%d,{"amount":1.0,"category":"food"}]'
    events = 2 * INGEST_BATCH_MAX + 1
    await store.append_events([("ann", purchase % (n, START_MS + n)) for n in range(1, events + 1)])
    write, failures = store.write_features, [StoreUnavailable("away for a moment")]

    async def once_away(*given: Any) -> list[bool]:
        if failures:
            raise failures.pop()
        return await write(*given)

    monkeypatch.setattr(store, "write_features", once_away)
    with pytest.raises(StoreUnavailable):
        await engine.ingest.round(0)
    folded = [await engine.ingest.round(0) for _ in range(4)]
    assert folded == [INGEST_BATCH_MAX, INGEST_BATCH_MAX, 1, 0]
    [record] = await store.read_features(["ann"])
    assert engine.catalogue.layout.values(record, START_MS + events)["spent_30d"] == events


async def test_news_of_others_do_not_wait_for_what_was_read_ahead() -> None:
    engine = SmallEngine()
    store = engine.store
    assert isinstance(store, MemoryStore)
    purchase = b'["ann",%d,"purchase",%d,{"amount":1.0,"category":"food"}]'
    await store.append_events([("ann", purchase % (n, START_MS + n)) for n in range(1, 3 * INGEST_BATCH_MAX)])
    names = [f"customer-{n}" for n in range(50)]
    other = next(name for name in names if partition_of(name, PARTITIONS) != partition_of("ann", PARTITIONS))
    assert await engine.ingest.round(0) == INGEST_BATCH_MAX
    await store.append_events([(other, (f'["{other}",1,"purchase",{START_MS},{{"amount":5.0}}]').encode())])
    assert await engine.ingest.round(0) == INGEST_BATCH_MAX + 1
    assert await store.read_features([other]) != [None]
