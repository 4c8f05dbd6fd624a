"""When a part is away or late: fallback offers that fit channel and time, each with its reason, before the deadline."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from engine.config import parse
from engine.deadlines import Deadlines
from engine.errors import ConfigError
from engine.rpc import Server
from engine.store import StoreUnavailable
from opportune.v1 import decisions_pb2, decisions_pb2_grpc
from tests.small_engine import CONFIG, DAY_MS, PARTITIONS, START_MS, SmallEngine

sys.path.append(str(Path(__file__).resolve().parent.parent / "engine"))
from faulty_store import FaultyStore

NEAR = decisions_pb2.DEGRADED_REASON_DEADLINE_NEAR
BY_CHANNEL = CONFIG.replace(b"fallback: [card]", b"fallback: {branch: [helpline, card], web: [helpline, card]}")
DATES = b"    value: 40\n    starts_ms: %d\n    ends_ms: %d\n" % (START_MS, START_MS + DAY_MS)
DATED = CONFIG.replace(b"    value: 40\n", DATES)


def faulty(text: bytes = CONFIG) -> tuple[SmallEngine, FaultyStore]:
    store = FaultyStore(PARTITIONS, lambda: engine.now_ms)
    engine = SmallEngine(text, store)
    return engine, store


async def test_each_channel_has_its_own_list() -> None:
    engine, store = faulty(BY_CHANNEL)
    store.failing["read"] = StoreUnavailable("away")
    assert [offer.offer_id for offer in (await engine.decide(channel="branch")).offers] == ["helpline", "card"]
    web = await engine.decide(channel="web", language="cs")
    assert [(o.offer_id, o.treatment) for o in web.offers] == [("card", "Karta")], "the helpline is not made on the web"
    one = BY_CHANNEL.replace(b", web: [helpline, card]", b"")
    engine, store = faulty(one)
    store.failing["read"] = StoreUnavailable("away")
    nothing = await engine.decide(channel="web")
    assert (nothing.offers, nothing.nothing_reason.code) == ([], "fallback")
    assert "no fallback offer may be made in this channel" in nothing.nothing_reason.text


async def test_the_fallback_keeps_to_the_dates_of_its_offers() -> None:
    engine, store = faulty(DATED)
    store.failing["read"] = StoreUnavailable("away")
    assert [offer.offer_id for offer in (await engine.decide()).offers] == ["card"]
    engine.now_ms += DAY_MS
    assert not (await engine.decide()).offers
    engine.now_ms = START_MS - 1
    assert not (await engine.decide()).offers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"fallback: {moon: [card]}", r"fallback\.moon: no channel 'moon'; there are branch, web"),
        (b"fallback: {web: [card, moon]}", r"fallback\.web\[1\]: no offer 'moon'"),
        (b"fallback: [card, card]", r"fallback\[1\]: offer 'card' is already there"),
        (b"fallback: {web: card}", r"fallback\.web: expected a list"),
        (b"fallback: card", r"fallback: expected a list"),
        (b"fallback: [card]\ndefaults: {valid_for: 0d}", r"defaults\.valid_for"),
    ],
)
def test_a_wrong_fallback_is_told_by_line(text: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(CONFIG.replace(b"fallback: [card]", text))


@pytest.mark.parametrize(
    ("failing", "words"),
    [("read", "state was not available in time"), ("commit_decisions", "could not be recorded in time")],
)
async def test_every_reason_has_its_words(failing: str, words: str) -> None:
    engine, store = faulty()
    store.failing[failing] = StoreUnavailable("away")
    answer = await engine.decide()
    assert answer.degraded and words in answer.offers[0].reasons[0].text


@pytest.fixture(params=["native", "grpcio"])
async def stub(request: pytest.FixtureRequest) -> AsyncIterator[tuple[SmallEngine, FaultyStore, Any]]:
    engine, store = faulty()
    server = Server(engine.service, request.param)
    port = await server.start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield engine, store, decisions_pb2_grpc.DecisionsStub(channel)
    await server.stop(0.5)


async def test_a_late_store_costs_the_answer_its_best_but_not_the_caller_its_time(
    stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deadlines shorter than the store's own bound: answered from the fallback, within them."""
    _engine, store, decisions = stub
    monkeypatch.setattr("engine.deadlines._MARGIN_S", 0.5)  # on a machine that is busy with other tests
    asked = decisions_pb2.DecideRequest(customer_id="ann", channel="branch", request_id="call-1")
    assert (await decisions.Decide(asked, timeout=5)).decision_id
    store.gate.clear()
    for timeout_s in (0.6, 0.9):
        answers = await asyncio.gather(
            *(
                decisions.Decide(decisions_pb2.DecideRequest(customer_id=f"c{n}", channel="branch"), timeout=timeout_s)
                for n in range(10)
            )
        )
        assert {answer.degraded for answer in answers} == {NEAR}
        assert [offer.offer_id for offer in answers[0].offers] == ["card"] and not answers[0].decision_id
        assert "not ready before the caller's deadline" in answers[0].offers[0].reasons[0].text
    store.gate.set()
    again = await decisions.Decide(asked, timeout=5)
    assert again.repeated and not again.degraded
    bob = decisions_pb2.DecideRequest(customer_id="bob", channel="branch")
    assert (await decisions.Decide(bob, timeout=1.9)).decision_id


async def test_a_commit_that_is_late_may_still_be_asked_for() -> None:
    engine, store = faulty()
    committing = asyncio.Event()
    commit = store.commit_decisions

    async def slowly(commits: Any) -> Any:
        await committing.wait()
        return await commit(commits)

    store.commit_decisions = slowly  # type: ignore[method-assign]
    request = decisions_pb2.DecideRequest(customer_id="ann", channel="branch", request_id="call-1")
    late = await engine.service.decide(request, 0.05)
    assert (late.degraded, late.decision_id) == (NEAR, "")
    committing.set()
    await asyncio.sleep(0.01)
    known = await engine.service.decide(request, 0.05)
    assert known.repeated and known.decision_id


async def test_a_late_search_for_who_it_is_costs_no_more_than_half_of_the_time() -> None:
    engine, store = faulty()
    store.gate.clear()
    request = decisions_pb2.DecideRequest(channel="branch")
    for kind, value in (("cookie", "c7"), ("phone", "p1")):
        request.identities.add(kind=kind, value=value)
    answer = await asyncio.wait_for(engine.service.decide(request, 0.2), 1.0)
    assert (answer.degraded, answer.customer_id) == (NEAR, "cookie=c7")
    store.gate.set()


async def test_deadlines_are_looked_at_before_they_pass_and_far_ones_not_at_all() -> None:
    due: list[tuple[float, str]] = []
    loop = asyncio.get_running_loop()
    began = loop.time()
    deadlines = Deadlines(lambda items: due.extend((loop.time() - began, item) for item in items))
    deadlines.add(0.08, "soon")
    deadlines.add(0.004, "at once")
    deadlines.add(60.0, "far")
    await asyncio.sleep(0.1)
    assert [item for _, item in due] == ["at once", "soon"]
    assert due[1][0] >= 0.05, "not earlier than it must be"
    assert not deadlines._steps
