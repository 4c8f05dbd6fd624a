"""DecideMany: each customer a decision like any other, callers of Decide first, nothing lost when it ends early."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from engine import limits
from engine.errors import InvalidArgument, Overloaded, Unavailable
from engine.rpc import Server
from opportune.v1 import decisions_pb2, decisions_pb2_grpc
from tests.small_engine import CONFIG, PARTITIONS, SmallEngine, catalogue_of, value_of

sys.path.append(str(Path(__file__).resolve().parent.parent / "engine"))
from faulty_store import FaultyStore


def request(names: list[str], batch: str = "spring", **fields: Any) -> decisions_pb2.DecideManyRequest:
    customers = [decisions_pb2.BatchCustomer(customer_id=name) for name in names]
    given = {"batch_id": batch, "channel": "branch", "customers": customers} | fields
    return decisions_pb2.DecideManyRequest(**given)


async def many(engine: SmallEngine, names: list[str], **fields: Any) -> dict[str, decisions_pb2.DecideManyResponse]:
    answers = [answer async for answer in engine.service.batches.decide_many(request(names, **fields))]
    assert sorted(answer.index for answer in answers) == list(range(len(names)))
    return {answer.customer_id: answer for answer in answers}


async def logged(engine: SmallEngine) -> int:
    found = await engine.store.read_decisions(dict.fromkeys(range(PARTITIONS), _zero()), 100_000, 0)
    return sum(len(entries) for entries in found.values())


def _zero() -> Any:
    from features import Offset

    return Offset.ZERO


def faulty() -> tuple[SmallEngine, FaultyStore]:
    store = FaultyStore(PARTITIONS, lambda: engine.now_ms)
    engine = SmallEngine(store=store)
    return engine, store


async def test_each_is_a_decision_like_that_of_decide_and_recorded_once() -> None:
    engine, alone = SmallEngine(), SmallEngine()
    names = [f"c{n}" for n in range(200)]
    first = await many(engine, names, limit=2)
    for name in names[:20]:
        expected = await alone.decide(name, limit=2)
        assert [(o.offer_id, o.propensity) for o in first[name].answer.offers] == [
            (o.offer_id, o.propensity) for o in expected.offers
        ]
    assert await logged(engine) == 200
    again = await many(engine, names, limit=2)
    assert await logged(engine) == 200
    assert all(again[name].answer.repeated for name in names)
    assert {n: a.answer.decision_id for n, a in again.items()} == {n: a.answer.decision_id for n, a in first.items()}
    explained = await engine.explain(first["c0"].answer.decision_id)
    assert explained.request_id == "batch/spring"


async def test_a_preview_tells_the_same_and_leaves_no_trace() -> None:
    engine = SmallEngine()
    names = [f"c{n}" for n in range(50)]
    looked = await many(engine, names, preview=True)
    assert await logged(engine) == 0 and await engine.store.read(["c0"]) == [(None, None)]
    assert all(answer.answer.preview and not answer.answer.decision_id for answer in looked.values())
    decided = await many(engine, names)
    for name in names:
        assert [o.offer_id for o in looked[name].answer.offers] == [o.offer_id for o in decided[name].answer.offers]
        assert not decided[name].answer.preview
    known = (await many(engine, names[:1], preview=True))["c0"].answer
    assert known.decision_id == decided["c0"].answer.decision_id and known.repeated, "the batch has decided already"


async def test_what_is_wrong_with_one_does_not_end_the_others() -> None:
    engine = SmallEngine()
    asked = request(["ann", "x" * 65, "bob", "ann"])
    asked.customers.add(customer_id="carl").context["moon"].CopyFrom(value_of(1.0))
    asked.customers.add(customer_id="dora").context["vip"].CopyFrom(value_of(True))
    answers = {answer.index: answer async for answer in engine.service.batches.decide_many(asked)}
    assert [answers[n].error.status for n in (1, 4)] == ["INVALID_ARGUMENT"] * 2
    assert "65 bytes" in answers[1].error.message and "no such fact" in answers[4].error.message
    ids = [answers[n].answer.decision_id for n in (0, 2, 3, 5)]
    assert all(ids) and ids[0] == ids[2], "named twice, decided once"
    assert (await engine.explain(ids[3])).context["vip"].flag


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_id": ""}, "batch_id: empty"),
        ({"batch_id": "a/b"}, "batch_id: 'a/b', expected 1 to 48 of"),
        ({"batch_id": "x" * 49}, "batch_id"),
        ({"customers": []}, "customers: empty"),
        ({"channel": "moon"}, "no channel 'moon'"),
        ({"limit": 31}, "limit: 31"),
        ({"time_ms": 5}, "time_ms"),
        ({"context": {"moon": value_of(1.0)}}, "no such fact"),
    ],
)
async def test_what_concerns_all_is_refused_at_once(fields: dict[str, Any], message: str) -> None:
    engine = SmallEngine()
    with pytest.raises(InvalidArgument, match=message):
        await anext(engine.service.batches.decide_many(request(["ann"], **fields)))


async def test_too_many_customers_and_too_many_batches_are_refused() -> None:
    engine, store = faulty()
    with pytest.raises(InvalidArgument, match="further calls with the same batch_id"):
        await anext(engine.service.batches.decide_many(request(["a"] * (limits.DECIDE_MANY_ENTRIES_MAX + 1))))
    store.gate.clear()
    calls = [asyncio.create_task(many(engine, [f"c{n}"])) for n in range(limits.DECIDE_MANY_BATCHES_MAX)]
    await asyncio.sleep(0.01)
    with pytest.raises(Overloaded, match="batches are under way already"):
        await many(engine, ["late"])
    store.gate.set()
    await asyncio.gather(*calls)
    assert (await many(engine, ["late"]))["late"].answer.decision_id


async def test_callers_of_decide_go_first() -> None:
    """A batch under way is one small batch; whoever asks meanwhile comes before the rest of it."""
    engine, store = faulty()
    store.gate.clear()
    batch = asyncio.create_task(many(engine, [f"c{n}" for n in range(100)]))
    await asyncio.sleep(0.01)
    assert [len(read) for read in store.reads] == [limits.DECIDE_BULK_BATCH_MAX], "one batch, and a small one"
    calls = [asyncio.create_task(engine.decide(f"caller{n}")) for n in range(70)]
    await asyncio.sleep(0.01)
    assert [len(read) for read in store.reads] == [limits.DECIDE_BULK_BATCH_MAX, 64, 6]
    store.gate.set()
    await asyncio.gather(*calls)
    assert len(await batch) == 100
    assert max(len(read) for read in store.reads[3:]) <= limits.DECIDE_BULK_BATCH_MAX


async def test_who_leaves_drops_what_waits() -> None:
    engine, store = faulty()
    store.gate.clear()
    batch = asyncio.create_task(many(engine, [f"c{n}" for n in range(1_000)]))
    await asyncio.sleep(0.01)
    batch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await batch
    store.gate.set()
    await engine.decide("ann")
    await asyncio.sleep(0.01)
    assert await logged(engine) == limits.DECIDE_BULK_BATCH_MAX + 1
    assert len(await many(engine, [f"c{n}" for n in range(1_000)])) == 1_000
    assert await logged(engine) == 1_001, "who was decided for before is not again"


async def test_a_busy_server_tells_so_in_place_of_waiting_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, store = faulty()
    monkeypatch.setattr(limits, "DECIDE_MANY_WAIT_MS_MAX", 20)
    store.gate.clear()
    answers = await many(engine, [f"c{n}" for n in range(70)])
    assert {answer.error.status for answer in answers.values()} == {"RESOURCE_EXHAUSTED"}
    store.gate.set()


async def test_a_stopping_server_answers_what_waits_and_ends_the_stream() -> None:
    engine, store = faulty()
    store.gate.clear()
    answers: list[decisions_pb2.DecideManyResponse] = []

    async def read() -> None:
        async for answer in engine.service.batches.decide_many(request([f"c{n}" for n in range(500)])):
            answers.append(answer)

    reading = asyncio.create_task(read())
    await asyncio.sleep(0.01)
    draining = asyncio.create_task(engine.service.drain())
    await asyncio.sleep(0)
    store.gate.set()
    with pytest.raises(Unavailable, match="the server is stopping"):
        await asyncio.wait_for(reading, 5)
    await draining
    assert len(answers) == limits.DECIDE_MANY_QUEUE_MAX == await logged(engine)
    assert all(answer.answer.decision_id for answer in answers)


async def test_a_configuration_that_comes_meanwhile_means_the_same_channel() -> None:
    """By its name: in the other one it may have another place."""
    engine = SmallEngine()
    channels = (b"  - {id: branch, placements: [desk]}\n", b"  - {id: web, placements: [hero, footer]}\n")
    other = catalogue_of(CONFIG.replace(b"".join(channels), b"".join(reversed(channels))))
    answers = []
    async for answer in engine.service.batches.decide_many(request([f"c{n}" for n in range(200)])):
        answers.append(answer.answer)
        if len(answers) == 1:
            while engine.service.decider._workers:
                await asyncio.sleep(0)
            engine.service.follow(engine.service.prepared(other))
    assert {answer.config_version for answer in answers} == {engine.catalogue.version, other.version}
    for answer in (answers[0], answers[-1]):
        assert (await engine.explain(answer.decision_id)).channel == "branch"


@pytest.fixture(params=["native", "grpcio"])
async def stub(request: pytest.FixtureRequest) -> AsyncIterator[tuple[SmallEngine, FaultyStore, Any]]:
    engine, store = faulty()
    server = Server(engine.service, request.param)
    port = await server.start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield engine, store, decisions_pb2_grpc.DecisionsStub(channel)
    await server.stop(0.5)


async def test_over_grpc_it_streams_and_ends_with_the_callers_deadline(stub: Any) -> None:
    engine, store, decisions = stub
    names = [f"c{n}" for n in range(300)]
    answers = [answer async for answer in decisions.DecideMany(request(names), timeout=10)]
    assert len(answers) == 300
    assert (await decisions.Decide(decisions_pb2.DecideRequest(customer_id="ann", channel="web"))).decision_id
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await decisions.DecideMany(request(names, channel="moon")).read()
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    store.gate.clear()
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await decisions.DecideMany(request(names, batch="other"), timeout=0.2).read()
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    store.gate.set()
    for _ in range(100):
        if not engine.service.batches._under_way:
            break
        await asyncio.sleep(0.02)
    assert engine.service.batches._under_way == 0, "the call ended on the server, too"
    assert await logged(engine) <= 301 + limits.DECIDE_MANY_QUEUE_MAX
