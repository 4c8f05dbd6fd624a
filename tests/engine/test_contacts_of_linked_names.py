"""A visitor's contacts count for the customer that he turns out to be, and are his own again when the link goes."""

import asyncio
from collections.abc import Sequence
from typing import Any

from engine.limits import LINK_SETTLE_RETRIES_MAX
from engine.store import DecisionCommit
from opportune.v1 import common_pb2, customers_pb2
from tests.identity_shop import COOKIE, SHOP, ask, link, unlink
from tests.small_engine import DAY_MS, SmallEngine

POLICY = b"""
silence: false
exploration: {method: greedy}
contact_policy:
  caps: [{of: category, most: 1, within: 30d}]
  while_open: hide
"""
OTHER = common_pb2.Identity(kind="cookie", value="c8")


def engine_of() -> SmallEngine:
    return SmallEngine(SHOP + POLICY)


async def offers(engine: SmallEngine, customer: str = "", *identities: common_pb2.Identity) -> list[str]:
    return [offer.offer_id for offer in (await ask(engine, customer, *identities)).offers]


async def test_the_contacts_of_a_visitor_count_for_the_customer() -> None:
    engine = engine_of()
    begun = await ask(engine, "", COOKIE)
    assert [offer.offer_id for offer in begun.offers] == ["card"]
    await link(engine, "l1", "ann", identities=[COOKIE])
    answer = await ask(engine, "ann")
    assert (list(answer.offers), answer.nothing_reason.code) == ([], "held_back")
    assert [(offer.decision_id, offer.offer_id) for offer in answer.open_offers] == [(begun.decision_id, "card")]
    assert (await ask(engine, "", COOKIE)).customer_id == "ann"
    assert (await engine.customer()).caps[0].used == 1
    # What comes of it counts too, although it is reported for a decision of the visitor.
    await engine.report(begun.decision_id, "card", "not_presented")
    assert await offers(engine, "ann") == ["card"]


async def test_taking_a_link_back_gives_each_its_own() -> None:
    engine = engine_of()
    assert await offers(engine, "", COOKIE) == ["card"]
    await link(engine, "l1", "ann", identities=[COOKIE])
    assert await offers(engine, "ann") == []
    await unlink(engine, "u1", "ann", identities=[COOKIE])
    assert await offers(engine, "ann") == ["card"], "the visitor's contact is not hers any more"
    assert await offers(engine, "", COOKIE) == [], "but still the visitor's"
    engine.now_ms += 30 * DAY_MS
    assert await offers(engine, "", COOKIE) == ["card"]


async def test_whoever_comes_through_the_name_knows_it_before_ingest_has_told() -> None:
    engine = engine_of()
    assert await offers(engine, "", COOKIE) == ["card"]
    await link(engine, "l1", "ann", identities=[COOKIE])

    async def not_told_yet(kind: str, customers: Sequence[str]) -> list[bytes | None]:
        return [None] * len(customers)

    engine.store.read_beside = not_told_yet  # type: ignore[method-assign]
    answer = await ask(engine, "", COOKIE)
    assert (answer.customer_id, list(answer.offers)) == ("ann", [])


async def test_a_decision_under_way_while_its_visitor_is_linked_is_made_for_the_customer() -> None:
    engine = engine_of()
    commit, asked, go_on = engine.store.commit_decisions, asyncio.Event(), asyncio.Event()

    async def held(commits: Sequence[DecisionCommit]) -> Sequence[Any]:
        if commits[0].customer == "cookie=c7":
            asked.set()
            await go_on.wait()
        return await commit(commits)

    engine.store.commit_decisions = held  # type: ignore[method-assign, assignment]
    under_way = asyncio.create_task(ask(engine, "", COOKIE))
    await asked.wait()
    await link(engine, "l1", "ann", identities=[COOKIE])
    assert await offers(engine, "ann") == ["card"], "nothing was ever made for the visitor"
    go_on.set()
    answer = await under_way
    assert (answer.customer_id, list(answer.offers)) == ("ann", [])
    assert (await engine.store.read(["cookie=c7"]))[0][1] is None


async def test_a_name_that_is_about_to_move_is_waited_for_and_not_for_ever() -> None:
    engine = engine_of()
    await link(engine, "l1", "ann", identities=[COOKIE])
    read, looks = engine.store.read, 0

    async def not_moved_yet(customers: Sequence[str]) -> list[tuple[bytes | None, bytes | None]]:
        nonlocal looks
        looks += "cookie=c7" in customers
        return [(None, kept) if name == "cookie=c7" else (features, kept)
                for name, (features, kept) in zip(customers, await read(customers), strict=True)]  # fmt: skip

    engine.store.read = not_moved_yet  # type: ignore[method-assign]
    assert await offers(engine, "ann") == ["card"]
    assert looks == 1 + LINK_SETTLE_RETRIES_MAX


async def test_contacts_of_two_merged_customers_count_together() -> None:
    engine = engine_of()
    assert await offers(engine, "", COOKIE) == ["card"]
    await link(engine, "l1", "old", identities=[COOKIE])
    await link(engine, "l2", "ann", same_customer_ids=["old"])
    assert await offers(engine, "ann") == []
    assert await offers(engine, "ann", OTHER) == []


async def test_who_is_forgotten_leaves_no_contacts() -> None:
    engine = engine_of()
    await ask(engine, "", COOKIE)
    await link(engine, "l1", "ann", identities=[COOKIE])
    await ask(engine, "ann")
    forgetting = engine.service.forgetting.forget(customers_pb2.ForgetRequest(request_id="f1", customer_id="ann"))
    task = asyncio.ensure_future(forgetting)
    while not task.done():
        await engine.fold()
        await engine.learn()
        await asyncio.sleep(0.01)
    assert task.result().linked_names == 1
    states = await engine.store.read(["ann", "cookie=c7"])
    assert [ledger for _, ledger in states] == [None, None]
    assert await offers(engine, "ann") == ["card"]
