"""Learning as a process: what it leaves behind when it stops."""

import asyncio
import logging

import pytest
from faulty_store import FaultyStore

from engine.learning import Learning
from engine.store import StoreUnavailable
from models import CheckpointError
from tests.small_engine import CONFIG, DAY_MS, PARTITIONS, SmallEngine, catalogue_of


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


async def test_a_damaged_checkpoint_says_what_can_be_done_and_that_helps() -> None:
    engine = SmallEngine()
    answer = await engine.decide()
    await engine.report(answer.decision_id, "card", "accepted")
    await engine.learn()
    await engine.learning.save()
    learnt = await engine.statistics()
    fields = await engine.store.load_checkpoint()
    [name] = [name for name in fields if name.endswith("statistics:card")]
    await engine.store.save_checkpoint({name: fields[name][:-5]})
    damaged = Learning(engine.catalogue, engine.store)
    with pytest.raises(CheckpointError) as refused:
        await damaged.learner()
    size = len(fields[name])
    what = f"field {name}: statistics are cut short: {size - 5} of {size} bytes"
    done = "restore the store, or delete its key 'learner'"
    assert str(refused.value).startswith(f"the learner's checkpoint cannot be read: {what}; {done}: ")
    await engine.store.save_checkpoint({}, list(fields))
    while await damaged.round(0):
        pass
    assert (await damaged.learner()).statistics.to_bytes() == learnt


async def month(engine: SmallEngine) -> None:
    for number in range(30):
        answer = await engine.decide(f"c{number}")
        for offer in answer.offers:
            await engine.report(answer.decision_id, offer.offer_id, "accepted", f"{number} {offer.offer_id}")
        engine.now_ms += DAY_MS // 5


async def test_with_another_period_the_log_is_learnt_again(caplog: pytest.LogCaptureFixture) -> None:
    halved = CONFIG + b"learning: {half_life: 3d, period: 12h}\n"
    engine, always = SmallEngine(), SmallEngine(halved)
    for one in (engine, always):
        await month(one)
        await one.learn()
    await engine.learning.save()

    async def learnt() -> tuple[int, bytes]:
        learning = Learning(catalogue_of(halved), engine.store, now_s=lambda: engine.now_ms / 1e3)
        while await learning.round(0):
            pass
        await learning.save()
        learner = await learning.learner()
        return learner.lessons, learner.statistics.to_bytes()

    with caplog.at_level(logging.WARNING):
        anew = await learnt()
    assert "another learning.period: learning anew from the log" in caplog.text
    assert anew == ((await always.learning.learner()).lessons, await always.statistics())
    assert anew[0] > 30
    assert await learnt() == anew, "and goes on from its own checkpoint then"
