"""One customer with very many events: nobody else waits for him, and his record stays small."""

from engine.limits import INGEST_BATCH_MAX
from engine.store import MemoryStore
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
