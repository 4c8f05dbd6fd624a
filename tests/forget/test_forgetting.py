"""A person is forgotten: one engine in one process, whose time the test holds."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import TypeVar

import pytest

from engine.errors import NotFound, Unavailable
from engine.eventlog import StreamLog
from engine.forget import erasing
from engine.history import fromlog
from engine.record import DecisionRecord
from engine.store import LINKS, PARTS, StoreUnavailable, partition_of
from engine.timeline import unpack as unpack_timeline
from features import Offset
from opportune.v1 import common_pb2, customers_pb2
from tests.identity_shop import COOKIE, SHOP, ask, buys, link, spent
from tests.small_engine import CONFIG, DAY_MS, PARTITIONS, SmallEngine

WRITES = ("save_receipt", "commit_forget", "drop_dead_letters", "delete_events")
_Answer = TypeVar("_Answer")


async def beside(engine: SmallEngine, call: Awaitable[_Answer]) -> _Answer:
    """The answer of a call that waits for ingest and the learner, which work meanwhile."""
    answer = asyncio.ensure_future(call)
    while not answer.done():
        await engine.fold()
        await engine.learn()
        await asyncio.sleep(0.001)
    return await answer


async def forget(engine: SmallEngine, customer: str = "ann", request_id: str = "f1") -> customers_pb2.ForgetResponse:
    request = customers_pb2.ForgetRequest(request_id=request_id, customer_id=customer)
    return await beside(engine, engine.service.forgetting.forget(request))


async def live(engine: SmallEngine, *customers: str) -> list[str]:
    """A day of some customers; returns the decisions."""
    decisions = []
    for customer in customers:
        await engine.publish("purchase", customer, f"{customer}-{engine.now_ms}", amount=200.0, category="food")
        await engine.fold()
        answer = await engine.decide(customer)
        decisions.append(answer.decision_id)
        await engine.report(answer.decision_id, answer.offers[0].offer_id, "accepted", f"o-{customer}-{engine.now_ms}")
    engine.now_ms += DAY_MS
    return decisions


async def everything(engine: SmallEngine) -> bytes:
    """All bytes that the store in memory has of anything."""
    return repr([value for name, value in sorted(vars(engine.store).items()) if name != "_arrived"]).encode() + repr(
        [
            vars(found)
            for name in ("_features", "_ledgers", "_timelines", "_receipts")
            for found in [getattr(engine.store, name)]
        ]
        + [vars(log) for logs in ("_events", "_decisions") for log in getattr(engine.store, logs)]
        + [vars(found) for found in getattr(engine.store, "_beside").values()]  # noqa: B009
    ).encode()


async def test_nothing_is_left_of_a_customer_and_the_sums_are_those_of_a_world_without() -> None:
    engine, other = SmallEngine(), SmallEngine()
    for _ in range(3):
        [mine, _, _] = await live(engine, "annabella", "bob", "carl")
        await live(other, "bob", "carl")
    for each in (engine, other):
        await each.learn()
    assert await engine.statistics() != await other.statistics()
    assert b"annabella" in await everything(engine)
    done = await forget(engine, "annabella")
    assert done == customers_pb2.ForgetResponse(
        customer_id="annabella", features=1, events=3, decisions=3, outcomes=3, lessons=done.lessons
    )
    assert done.lessons >= 3
    await forget(other, "nobody")
    assert await engine.statistics() == await other.statistics()
    assert b"annabella" not in await everything(engine)
    assert not (await engine.customer("annabella")).state.known
    with pytest.raises(NotFound):
        await engine.explain(mine)
    with pytest.raises(NotFound):
        await engine.report(mine, "card", "declined")
    assert (await engine.customer("bob")).events == 3


async def test_nobody_known_is_no_error_and_removes_nothing() -> None:
    engine = SmallEngine()
    await live(engine, "bob")
    await engine.learn()
    before = await engine.statistics()
    assert await forget(engine, "nobody") == customers_pb2.ForgetResponse(customer_id="nobody")
    assert await engine.statistics() == before


async def test_the_same_request_forgets_once_and_who_comes_back_is_new() -> None:
    engine = SmallEngine()
    await live(engine, "ann", "bob")
    first = await forget(engine)
    again = await forget(engine)
    first.customer_id = ""
    assert again == first
    await live(engine, "ann")
    assert (await engine.customer()).events == 1
    assert await forget(engine) == again, "what came after it stays"
    assert (await engine.customer()).events == 1
    assert (await forget(engine, request_id="f2")).decisions == 1
    assert not (await engine.customer()).state.known


async def test_events_under_way_are_dropped_and_those_behind_count() -> None:
    engine = SmallEngine()
    await engine.publish("purchase", amount=70.0)
    request = customers_pb2.ForgetRequest(request_id="f", customer_id="ann")
    call = asyncio.ensure_future(engine.service.forgetting.forget(request))
    while not await engine.store.read_events(dict.fromkeys(range(PARTITIONS), Offset.ZERO), 9, 0):
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    await engine.publish("purchase", amount=5.0)  # behind the marker, before anything was folded
    done = await beside(engine, call)
    assert done.events == 1
    assert (await engine.customer()).events == 1
    assert await spent(engine, "ann") == 5


async def test_names_linked_to_a_customer_go_along_and_a_trace_that_moved_on_stays_with_its_owner() -> None:
    engine = SmallEngine(SHOP)
    phone = common_pb2.Identity(kind="phone", value="7")
    await buys(engine, 10, "", COOKIE)
    await buys(engine, 20, "", phone)
    await ask(engine, "", COOKIE)
    await ask(engine, "annabella", COOKIE)
    await ask(engine, "annabella", phone)
    await buys(engine, 40, "annabella")
    await ask(engine, "bob", phone)  # it is his from now on; what came before stays hers
    await buys(engine, 80, "", phone)
    await engine.settle()
    assert (await spent(engine, "annabella"), await spent(engine, "bob")) == (70, 80)
    done = await forget(engine, "annabella")
    assert (done.linked_names, done.features) == (1, 2)
    await engine.settle()
    assert await spent(engine, "bob") == 80
    assert await spent(engine, "annabella") == 0
    assert await spent(engine, "", COOKIE) == 0
    names = ["annabella", "cookie=c7"]
    for kind in (PARTS, LINKS):
        assert await engine.store.read_beside(kind, names) == [None, None]
    assert await engine.store.read(names) == [(None, None), (None, None)]
    assert b"cookie=c7" not in await everything(engine)
    await buys(engine, 3, "annabella", COOKIE)
    await engine.settle()
    assert await spent(engine, "", COOKIE) == 3, "both may come back"
    await link(engine, "l1", "annabella", same_customer_ids=["a17"])
    assert (await forget(engine, "a17", "f2")).customer_id == "annabella", "the person is meant, not the name"
    assert await spent(engine, "annabella") == 0


async def test_timeline_and_dead_letters_go_too() -> None:
    timeline = b"  - {type: complaint, timeline: {kind: note}}"
    text = CONFIG.replace(b"  - type: complaint", timeline)
    engine = SmallEngine(text)
    await engine.publish("complaint", "annabella")
    await engine.fold()
    [kept] = await engine.store.read_timelines(["annabella"])
    assert len(unpack_timeline(kept).entries) == 1
    assert (await engine.publish("purchase", "annabella", amount=-1.0)).rejected
    assert (await engine.publish("purchase", "bella", amount=-1.0)).rejected
    done = await forget(engine, "annabella")
    assert (done.timeline_entries, done.dead_letters) == (1, 1)
    assert await engine.store.read_timelines(["annabella"]) == [None]
    assert len(engine.store.dead) == 1  # type: ignore[attr-defined]


async def test_without_ingest_it_is_said_to_be_not_done_and_goes_on_when_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(erasing, "FORGET_WAIT_MS_MAX", 50)
    engine = SmallEngine()
    await live(engine, "ann")
    request = customers_pb2.ForgetRequest(request_id="f1", customer_id="ann")
    with pytest.raises(Unavailable, match="ask again"):
        await engine.service.forgetting.forget(request)
    await engine.fold()
    hidden = await engine.service.forgetting.forget(request)
    assert hidden.learner_pending
    assert (hidden.decisions, hidden.lessons) == (1, 0)
    await engine.learn()
    done = await engine.service.forgetting.forget(request)
    assert not done.learner_pending
    assert done.lessons >= 1


async def test_a_decision_that_waits_for_the_learner_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasing, "FORGET_WAIT_MS_MAX", 50)
    engine = SmallEngine()
    [decision] = await live(engine, "ann")
    request = customers_pb2.ForgetRequest(request_id="f1", customer_id="ann")
    await asyncio.gather(engine.service.forgetting.forget(request), engine.ingest.round(40))
    home = partition_of("ann", PARTITIONS)
    log = (await engine.store.read_decisions({home: Offset.ZERO}, 10, 0))[home]
    assert DecisionRecord.unpack(log[0].data).customer == "ann", "its record is still there"
    for call in (engine.explain(decision), engine.report(decision, "card", "declined")):
        with pytest.raises(NotFound):
            await call
    assert (await engine.store.read(["ann"]))[0][1] is None


async def test_new_features_are_filled_from_a_log_whose_end_was_of_somebody_forgotten() -> None:
    engine = SmallEngine()
    await live(engine, "bob", "ann")
    await forget(engine)
    report = await fromlog.fill(engine.store, StreamLog(engine.store), engine.catalogue.layout, ["purchases_7d"])
    assert (report.unchanged, report.whole) in ((1, 0), (0, 1))
    assert not (await engine.customer()).state.known
    assert (await engine.customer("bob")).events == 1


async def test_a_server_that_is_killed_leaves_no_name_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at any of its writes; another server is asked with the same request."""
    for killed_at in range(1, 12):
        engine = SmallEngine(SHOP)
        await buys(engine, 10, "", COOKIE)
        await ask(engine, "annabella", COOKIE)
        await buys(engine, 20, "annabella")
        await engine.settle()
        writes = 0

        async def mortal(call: Awaitable[_Answer], killed_at: int = killed_at) -> _Answer:
            nonlocal writes
            writes += 1
            if writes == killed_at:
                await call
                raise StoreUnavailable("killed behind this write")
            return await call

        with monkeypatch.context() as patched:
            server = engine.service.forgetting._erasing
            for of, method in [(server, "_append")] + [(engine.store, name) for name in WRITES]:
                real = getattr(of, method)
                patched.setattr(of, method, lambda *given, real=real: mortal(real(*given)))
            with suppress(Unavailable):
                await forget(engine, "annabella")
        done = await forget(engine, "annabella")
        assert (done.linked_names, done.learner_pending) == (1, False), killed_at
        assert done.decisions <= 1, "what was removed and not noted any more is not counted"
        found = await everything(engine)
        assert (b"annabella" in found, b"cookie=c7" in found) == (False, False), killed_at
