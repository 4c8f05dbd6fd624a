"""Batches, queues and races: whoever asks is answered or refused at once, and what was answered is in the log."""

import asyncio
from collections.abc import Callable, Sequence

import pytest
from faulty_store import FaultyStore

from engine.errors import Overloaded, Unavailable
from engine.ledger import Ledger
from engine.limits import DECIDE_BATCH_MAX, DECIDE_BATCHES_MAX, DECIDE_QUEUE_MAX, LEDGER_DECISIONS_MAX
from engine.record import DecisionRecord, decision_id
from engine.seldom import Seldom
from engine.store import Conflict, PartlyUnavailable, RedisStore, Store, StoreFull, StoreUnavailable
from engine.store.base import LogEntry
from features import Offset
from opportune.v1 import decisions_pb2
from tests.small_engine import PARTITIONS, SmallEngine
from tests.store.conftest import Server

COMMIT_FAILED = decisions_pb2.DEGRADED_REASON_COMMIT_FAILED


def engine_with_faults() -> tuple[SmallEngine, FaultyStore]:
    store = FaultyStore(PARTITIONS, lambda: engine.now_ms)
    engine = SmallEngine(store=store)
    return engine, store


async def begun(engine: SmallEngine, customers: list[str]) -> list[asyncio.Task[decisions_pb2.DecideResponse]]:
    """Calls under way, each of them waiting in the decider."""
    tasks = [asyncio.create_task(engine.decide(customer)) for customer in customers]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def decisions_in(store: Store) -> dict[str, DecisionRecord]:
    """All decisions of the log by their id."""
    read: dict[int, list[LogEntry]] = {}
    for partition in range(PARTITIONS):
        read |= await store.read_decisions({partition: Offset.ZERO}, 100_000, 0)
    return {
        decision_id(partition, entry.offset): DecisionRecord.unpack(entry.data)
        for partition, entries in read.items()
        for entry in entries
        if entry.data[:1] == b"\1"
    }


async def all_in_flight(engine: SmallEngine) -> list[asyncio.Task[decisions_pb2.DecideResponse]]:
    """As many batches of one as may be in flight: what comes now has to wait."""
    tasks = []
    for number in range(DECIDE_BATCHES_MAX):
        tasks += await begun(engine, [f"first-{number}"])
    return tasks


async def test_the_queue_has_a_bound_and_beyond_it_the_refusal_comes_at_once() -> None:
    engine, store = engine_with_faults()
    store.gate.clear()
    first = await all_in_flight(engine)
    waiting = await begun(engine, [f"customer-{n}" for n in range(DECIDE_QUEUE_MAX)])
    with pytest.raises(Overloaded, match=f"{DECIDE_QUEUE_MAX} decisions are waiting already"):
        await asyncio.wait_for(engine.decide("one-too-many"), 1.0)
    store.gate.set()
    answers = await asyncio.gather(*first, *waiting)
    assert len({answer.decision_id for answer in answers}) == DECIDE_QUEUE_MAX + len(first)
    assert (await engine.decide("one-too-many")).decision_id


async def test_what_arrives_meanwhile_forms_the_next_batch() -> None:
    engine, store = engine_with_faults()
    store.gate.clear()
    tasks = await begun(engine, ["first"])
    tasks += await begun(engine, [f"customer-{n}" for n in range(DECIDE_BATCH_MAX + 10)])
    store.gate.set()
    await asyncio.gather(*tasks)
    assert [len(batch) for batch in store.reads] == [1, DECIDE_BATCH_MAX, 10]


async def test_a_customer_asked_for_twice_at_once_gets_two_decisions() -> None:
    """Both are in the log and in the ledger, and the second one saw the first."""
    engine, store = engine_with_faults()
    store.gate.clear()
    tasks = await begun(engine, ["first"])
    tasks += await begun(engine, ["ann", "ann", "bob", "ann"])
    store.gate.set()
    answers = await asyncio.gather(*tasks)
    ids = [answer.decision_id for answer in answers if answer.customer_id == "ann"]
    assert len(set(ids)) == 3
    [(_, data)] = await store.read(["ann"])
    partition = ids[0].split("-")[0]
    kept = [f"{partition}-{entry.position.ms:x}-{entry.position.seq:x}" for entry in Ledger.unpack(data).decisions]
    assert sorted(kept) == sorted(ids)
    assert set(await decisions_in(store)) == {answer.decision_id for answer in answers}
    seen = [{offer.decision_id for offer in answer.open_offers} for answer in answers if answer.customer_id == "ann"]
    assert [len(before) for before in seen] == [0, 1, 2]


async def test_the_same_request_id_twice_at_once_is_one_decision() -> None:
    engine, store = engine_with_faults()
    store.gate.clear()
    tasks = await begun(engine, ["first"])
    tasks += [asyncio.create_task(engine.decide("ann", request_id="call-1")) for _ in range(5)]
    await asyncio.sleep(0)
    store.gate.set()
    _, *answers = await asyncio.gather(*tasks)
    assert len({answer.decision_id for answer in answers}) == 1
    assert sorted(answer.repeated for answer in answers) == [False, True, True, True, True]


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_servers_that_race_for_one_customer_lose_nothing(kind: str, shared_server: Server) -> None:
    """64 callers, two servers, one store, one ledger: each acknowledged decision is in the log, and no other is."""
    stores: list[Store] = []
    if kind == "redis":
        await shared_server.say(b"FLUSHALL")
        stores = [await RedisStore.open(shared_server.url, PARTITIONS) for _ in range(2)]
        engines = [SmallEngine(store=store) for store in stores]
    else:
        one = SmallEngine()
        engines = [one, SmallEngine(store=one.store)]
    answers = await asyncio.gather(*(engines[n % 2].decide("ann") for n in range(64)))
    made = [answer for answer in answers if answer.decision_id]
    assert len(made) >= 48
    assert {answer.degraded for answer in answers if not answer.decision_id} <= {COMMIT_FAILED}
    log = await decisions_in(engines[0].store)
    assert len(made) == len({answer.decision_id for answer in made})
    assert set(log) == {answer.decision_id for answer in made}
    for answer in made:
        assert [engines[0].catalogue.index_of_key[choice.key] for choice in log[answer.decision_id].slate] == [
            engines[0].catalogue.offer_ids.index(offer.offer_id) for offer in answer.offers
        ]
    [(_, data)] = await engines[0].store.read(["ann"])
    ledger = Ledger.unpack(data)
    assert (ledger.revision, len(ledger.decisions)) == (len(made), LEDGER_DECISIONS_MAX)
    for store in stores:
        await store.close()


async def test_a_caller_that_leaves_does_not_break_the_batch() -> None:
    """Cancelled while its batch is read, and while it waits: the others are answered, the next ones too."""
    engine, store = engine_with_faults()
    store.gate.clear()
    reading = await all_in_flight(engine)
    waiting = await begun(engine, ["bob", "carl"])
    reading[0].cancel()
    waiting[0].cancel()
    await asyncio.sleep(0)
    store.gate.set()
    assert (await waiting[1]).decision_id
    assert (await engine.decide("dora")).decision_id
    asked = [customer for batch in store.reads for customer in batch]
    assert "bob" not in asked, "nobody waits for it any more"


async def test_a_storm_of_fallbacks_is_a_line_of_the_log_for_each_reason(caplog: pytest.LogCaptureFixture) -> None:
    engine, store = engine_with_faults()
    store.failing["read"] = StoreUnavailable("away")
    for _ in range(3):
        await engine.decide()
    store.failing.clear()
    store.failing["commit_decisions"] = StoreUnavailable("gone")
    await engine.decide()
    told = [record.getMessage() for record in caplog.records if "fallback list" in record.getMessage()]
    assert told == [f"1 decisions answered from the fallback list: {why}" for why in ("away", "gone")]


def test_what_was_not_told_at_once_is_counted_and_told_a_second_later() -> None:
    told: list[tuple[int, str]] = []
    waiting: list[Callable[[], None]] = []
    seldom = Seldom(lambda *line: told.append(line), lambda after_s, call: waiting.append(call))
    for number in range(5):
        seldom.add(1, 2, f"late {number}")
    seldom.add(2, 1, "away")
    assert told == [(2, "late 0"), (1, "away")]
    waiting.pop(0)()
    assert told[2:] == [(8, "late 4")]
    while waiting:
        waiting.pop(0)()
    seldom.add(1, 1, "late again")
    assert told[3:] == [(1, "late again")], "at once, after a second without any"


@pytest.mark.parametrize("error", [StoreUnavailable("away"), StoreFull("full")])
async def test_without_the_state_there_is_a_fallback_that_promises_nothing(error: Exception) -> None:
    engine, store = engine_with_faults()
    store.failing["read"] = error
    answer = await engine.decide()
    assert answer.degraded == decisions_pb2.DEGRADED_REASON_STATE_STORE_UNAVAILABLE
    assert (answer.decision_id, [offer.offer_id for offer in answer.offers]) == ("", ["card"])
    assert [reason.code for reason in answer.offers[0].reasons] == ["fallback"]
    assert store.log() == []
    store.failing.clear()
    answer = await engine.decide()
    assert (bool(answer.decision_id), answer.degraded) == (True, 0)


async def test_a_decision_that_cannot_be_made_durable_is_not_given() -> None:
    engine, store = engine_with_faults()
    store.failing["commit_decisions"] = StoreUnavailable("away")
    answer = await engine.decide(limit=1)
    assert answer.degraded == COMMIT_FAILED
    assert (answer.decision_id, [offer.offer_id for offer in answer.offers]) == ("", ["card"])


async def test_one_commit_that_fails_leaves_the_others_of_its_batch_alone() -> None:
    engine, store = engine_with_faults()
    store.refusing["bob"] = StoreFull("no room")
    store.gate.clear()
    tasks = await begun(engine, ["first", "ann", "bob", "carl"])
    store.gate.set()
    _, ann, bob, carl = await asyncio.gather(*tasks)
    assert (bool(ann.decision_id), bool(bob.decision_id), bool(carl.decision_id)) == (True, False, True)
    assert bob.degraded == COMMIT_FAILED


async def test_a_state_that_cannot_be_read_leaves_the_others_of_its_batch_alone(monkeypatch) -> None:
    engine, store = engine_with_faults()
    whole = store.read

    async def partly(customers: Sequence[str]) -> list[tuple[bytes | None, bytes | None]]:
        found = await whole(customers)
        if "bob" in customers:
            pairs = zip(customers, found, strict=True)
            raise PartlyUnavailable("away", [None if name == "bob" else state for name, state in pairs])
        return found

    monkeypatch.setattr(store, "read", partly)
    store.gate.clear()
    tasks = await begun(engine, ["first", "ann", "bob", "carl"])
    store.gate.set()
    _, ann, bob, carl = await asyncio.gather(*tasks)
    assert ["first", "ann", "bob", "carl"] in store.reads, "they were one batch"
    assert bob.degraded == decisions_pb2.DEGRADED_REASON_STATE_STORE_UNAVAILABLE
    assert (bob.decision_id, [offer.offer_id for offer in bob.offers]) == ("", ["card"])
    for answer, customer in ((ann, "ann"), (carl, "carl")):
        assert answer.decision_id and not answer.degraded
        assert answer.customer_id == customer


async def test_a_ledger_that_never_stands_still_ends_in_a_fallback() -> None:
    engine, store = engine_with_faults()
    store.refusing["ann"] = Conflict()
    answer = await asyncio.wait_for(engine.decide("ann"), 5.0)
    assert answer.degraded == COMMIT_FAILED


async def test_a_stopping_server_answers_what_waits_and_refuses_what_comes() -> None:
    engine, store = engine_with_faults()
    store.gate.clear()
    tasks = await begun(engine, ["ann", "ann", "bob"])
    draining = asyncio.create_task(engine.service.drain())
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="the server is stopping"):
        await engine.decide("late")
    with pytest.raises(Unavailable, match="the server is stopping"):
        await engine.publish("complaint")
    assert not draining.done()
    store.gate.set()
    answers = await asyncio.gather(*tasks)
    await draining
    assert all(answer.decision_id for answer in answers)


async def test_outcomes_and_events_are_refused_when_they_cannot_be_kept() -> None:
    """Nothing was recorded, and the refusal says whether to send it again."""
    engine, store = engine_with_faults()
    decision = await engine.decide()
    offer = decision.offers[0].offer_id
    for error, refusal in ((StoreUnavailable("away"), Unavailable), (StoreFull("full"), Overloaded)):
        store.failing = {"commit_outcome": error, "append_events": error}
        with pytest.raises(refusal):
            await engine.report(decision.decision_id, offer, "accepted", "order-1")
        with pytest.raises(refusal):
            await engine.publish("complaint")
    store.failing = {"entries": StoreUnavailable("away")}
    with pytest.raises(Unavailable, match="send it again with the same id"):
        await engine.report(decision.decision_id, offer, "accepted", "order-1")
    store.failing = {}
    assert not (await engine.report(decision.decision_id, offer, "accepted", "order-1")).duplicate


@pytest.mark.parametrize("which", ["features", "ledger"])
async def test_damaged_state_is_decided_over_and_told(which: str) -> None:
    """The customer is served from defaults, the decision is recorded, and the answer says that something was wrong."""
    engine, store = engine_with_faults()
    await engine.publish("purchase", amount=150.0)
    await engine.fold()
    await engine.decide()
    values = store._features if which == "features" else store._ledgers
    values.put("ann", b"\xff" + (values.get("ann") or b"")[1:])
    answer = await engine.decide()
    assert answer.degraded == decisions_pb2.DEGRADED_REASON_STATE_UNREADABLE
    assert answer.decision_id in await decisions_in(store)
