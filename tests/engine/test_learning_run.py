"""Learning as a process: what it leaves behind when it stops."""

import asyncio

from faulty_store import FaultyStore

from engine.store import StoreUnavailable
from tests.small_engine import PARTITIONS, SmallEngine


async def test_a_stop_while_the_store_is_away_does_not_serve_an_older_policy() -> None:
    """The learner begins again from its checkpoint then, which knows less than the policy that was pushed since."""
    store = FaultyStore(PARTITIONS, lambda: engine.now_ms)
    engine = SmallEngine(store=store)
    for customer in ("ann", "bob"):
        answer = await engine.decide(customer)
        await engine.report(answer.decision_id, answer.offers[0].offer_id, "accepted")
        await engine.learn()
        if customer == "ann":
            await engine.learning.save()
    served = await store.read_policy()
    store.failing["read_decisions"] = StoreUnavailable("away")
    running = asyncio.create_task(engine.learning.run())
    await asyncio.sleep(0.05)
    engine.learning.stop()
    await running
    assert await store.read_policy() == served
