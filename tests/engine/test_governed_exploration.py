"""Exploration governed: never on whom it must not be, within budgets, the same answer everywhere, changed live."""

import asyncio
import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from engine.errors import ConfigError
from engine.ledger import Ledger, Trial
from engine.record import DecisionRecord, decision_id
from engine.store import RedisStore, partition_of
from opportune.v1 import decisions_pb2
from tests.small_engine import CONFIG, DAY_MS, PARTITIONS, SmallEngine, catalogue_of
from tests.store.conftest import Server

EVERYWHERE = CONFIG.replace(b"    channels: [branch]\n", b"")
METHODS = ["thompson", "inverse_gap", "epsilon_greedy, epsilon: 0.6", "greedy"]
NEVER = b"never: ['complaints_90d > 0.0', 'vip', 'minutes > 100.0']"


def governed(text: bytes) -> bytes:
    return EVERYWHERE + b"exploration: {" + text + b"}\n"


def explored(answer: decisions_pb2.DecideResponse) -> bool:
    return any(reason.code == "explored" for offer in answer.offers for reason in offer.reasons)


def slate(answer: decisions_pb2.DecideResponse) -> list[tuple[str, float]]:
    return [(offer.offer_id, offer.propensity) for offer in answer.offers]


async def record_of(engine: SmallEngine, answer: decisions_pb2.DecideResponse) -> DecisionRecord:
    partition = partition_of(answer.customer_id, PARTITIONS)
    for at, data in engine.store._decisions[partition].data.items():  # type: ignore[attr-defined]
        if decision_id(partition, at) == answer.decision_id:
            return DecisionRecord.unpack(data)
    raise AssertionError("no record")


async def ledger_of(engine: SmallEngine, customer: str) -> Ledger:
    [(_, ledger)] = await engine.store.read([customer])
    return Ledger.unpack(ledger)


# --- never ----------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["thompson", "inverse_gap", "epsilon_greedy"]),
    st.lists(
        st.tuples(
            st.booleans(),
            st.sampled_from([None, 50.0, 200.0]),
            st.sampled_from([None, True, False]),
            st.integers(1, 3),
        ),
        min_size=1,
        max_size=12,
    ),
)
def test_on_whom_is_never_to_be_explored_gets_the_best(
    method: str, people: list[tuple[bool, float | None, bool | None, int]]
) -> None:
    """Complaints, the vulnerable, and those of whom it is not known: the best for sure, in its order."""

    async def run() -> None:
        engine = SmallEngine(governed(b"method: %s, strength: 5, " % method.encode() + NEVER))
        for n, (complained, _, _, _) in enumerate(people):
            if complained:
                await engine.publish("complaint", f"person-{n}")
        await engine.fold()
        for n, (complained, minutes, vip, limit) in enumerate(people):
            facts = {"minutes": minutes, "vip": vip}
            given_facts = {name: value for name, value in facts.items() if value is not None}
            answer = await engine.decide(f"person-{n}", context=given_facts, limit=limit)
            if complained or vip or minutes is None or minutes > 100.0:
                record = await record_of(engine, answer)
                assert not explored(answer)
                drawn = [choice.propensity for choice in record.slate]
                assert set(drawn) <= {1.0} and record.nothing_propensity in (0.0, 1.0)
                scores = [choice.score for choice in record.slate]
                assert scores == sorted(scores, reverse=True)

    asyncio.run(run())


async def test_others_are_explored_on_beside_them() -> None:
    engine = SmallEngine(governed(NEVER))
    answers = [await engine.decide(f"person-{n}", context={"minutes": 1.0}) for n in range(60)]
    assert any(explored(answer) for answer in answers)


async def test_of_whom_the_state_cannot_be_read_nothing_is_tried() -> None:
    engine = SmallEngine(governed(b"never: ['complaints_90d > 0.0']"))
    for n in range(30):
        await engine.publish("complaint", f"person-{n}")
    await engine.fold()
    for n in range(30):
        engine.store._features.put(f"person-{n}", b"\xff" * 100)  # type: ignore[attr-defined]
        answer = await engine.decide(f"person-{n}")
        assert answer.degraded and not explored(answer)
        assert {choice.propensity for choice in (await record_of(engine, answer)).slate} <= {1.0}


async def test_an_offer_that_is_not_explored_is_only_made_as_the_best() -> None:
    text = governed(b"strength: 5").replace(b"  - id: helpline\n", b"  - id: helpline\n    explore: false\n")
    engine = SmallEngine(text)
    plain = SmallEngine(governed(b"strength: 5"))
    shown = 0
    for n in range(150):
        answer = await engine.decide(f"person-{n}")
        reasons = [reason.code for offer in answer.offers if offer.offer_id == "helpline" for reason in offer.reasons]
        assert "explored" not in reasons
        shown += bool(reasons)
    assert shown, "it comes as the second best"
    offers = [offer for n in range(150) for offer in (await plain.decide(f"person-{n}")).offers]
    assert any(o.offer_id == "helpline" and "explored" in [reason.code for reason in o.reasons] for o in offers)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"never: ['complaint > 0.0']", "exploration.never.0: no feature or fact is called 'complaint'"),
        (b"never: ['spent_30d + 1.0']", "exploration.never.0: expected a rule that is true or false"),
        (b"budget: {channels: {phone: 0.1}}", "exploration.budget.channels.phone: no channel 'phone'"),
        (b"budget: {offers: {car: 0.1}}", "exploration.budget.offers.car: no offer 'car'"),
        (b"budget: {share: 1.5}", "exploration.budget.share: "),
        (b"budget: {customer: {answers: 2}}", "exploration.budget.customer.within: "),
        (b"budget: {customer: {answers: 2, within: 500d}}", "exploration.budget.customer.within: "),
        (b"epsilon: 0.2", "exploration.epsilon: method thompson has none"),
        (b"method: epsilon_greedy, floor: 0.2", "exploration.floor: method epsilon_greedy has epsilon"),
        (b"method: hope", "exploration.method: "),
        (b"method: greedy, optimism: 2", "exploration.optimism: method greedy has none; expected method: thompson"),
        (b"optimism: -1", "exploration.optimism: "),
        (b"strength: 0, optimism: 1", "exploration.strength: 0: expected 0.001 or more with this optimism"),
    ],
)
def test_mistakes_are_told_with_their_line(text: bytes, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        catalogue_of(governed(text))
    line = governed(text).count(b"\n")
    assert f"configuration:{line}: {message}" in str(caught.value)


# --- the same answer everywhere, and true propensities --------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("budget", [b"", b", budget: {share: 0.4, customer: {answers: 1, within: 30d}}"])
async def test_a_person_gets_the_same_answer_on_every_channel_until_his_state_changes(
    method: str, budget: bytes
) -> None:
    """Flip rate 0 with every method, gate and budget; used up or not, what was tried on him stays until then."""
    engine = SmallEngine(governed(b"method: " + method.encode() + budget))
    tried = 0
    for n in range(60):
        first = await engine.decide(f"person-{n}", "branch")
        tried += explored(first)
        for channel in ("web", "branch", "web"):
            engine.now_ms += 1_000
            assert slate(await engine.decide(f"person-{n}", channel)) == slate(first)
    assert bool(tried) == (method != "greedy")


@pytest.mark.parametrize(
    "text",
    [
        b"method: inverse_gap",
        b"method: epsilon_greedy, epsilon: 0.3",
        b"method: epsilon_greedy, strength: 3",
        b"optimism: 0.5",
        b"budget: {share: 0.3}",
        b"method: inverse_gap, floor: 0.1, budget: {channels: {branch: 0.6}, offers: {helpline: 0.5}}",
    ],
)
async def test_propensities_are_how_often_it_happens_under_governance(text: bytes) -> None:
    """3,000 people alike: the first answers fit the logged propensities (χ²), which add up to 1."""
    engine = SmallEngine(governed(text))
    answers: list[decisions_pb2.DecideResponse] = []
    for start in range(0, 3_000, 500):
        calls = [engine.decide(f"someone-{n}", limit=1) for n in range(start, start + 500)]
        answers += await asyncio.gather(*calls)
    counts: dict[str, int] = {}
    chances: dict[str, float] = {}
    for answer in answers:
        name = answer.offers[0].offer_id if answer.offers else ""
        counts[name] = counts.get(name, 0) + 1
        if name not in chances:
            record = await record_of(engine, answer)
            chances[name] = record.slate[0].propensity if record.slate else record.nothing_propensity
    assert sum(chances.values()) == pytest.approx(1.0, rel=1e-6)
    observed = np.array([counts[name] for name in chances])
    expected = 3_000 * np.array(list(chances.values()))
    assert len(counts) >= 3
    assert chi2.sf(float(((observed - expected) ** 2 / expected).sum()), len(counts) - 1) > 0.001


async def test_no_more_answers_of_a_channel_explore_than_its_share() -> None:
    engine = SmallEngine(governed(b"strength: 10, budget: {channels: {web: 0.1, branch: 0}}"))
    for channel, most in (("web", 0.14), ("branch", 0.0)):
        answers = await asyncio.gather(*(engine.decide(f"person-{n}", channel) for n in range(800)))
        assert sum(map(explored, answers)) / 800 <= most
    assert explored(answers[0]) is False
    assert any(map(explored, await asyncio.gather(*(engine.decide(f"p-{n}", "web") for n in range(300)))))


# --- the budget of a customer ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("answers", [0, 1, 3])
async def test_a_customer_is_explored_on_so_often_in_any_window(answers: int) -> None:
    """Calls on channels at random, outcomes and events between them, some dated back: counted from what was said."""
    dice = random.Random(answers)
    within_ms = 5 * DAY_MS
    budget = b"budget: {customer: {answers: %d, within: 5d}}" % answers
    engine = SmallEngine(governed(b"strength: 5, " + budget))
    total = 0
    for n in range(4):
        customer, tries = f"person-{n}", []
        for _ in range(60):
            engine.now_ms += dice.randrange(DAY_MS)
            back_ms = dice.choice([0, 0, 0, dice.randrange(3 * DAY_MS)])
            channel = dice.choice(["branch", "web"])
            answer = await engine.decide(customer, channel, time_ms=engine.now_ms - back_ms)
            if explored(answer):
                tries.append((engine.now_ms - back_ms, (await record_of(engine, answer)).seed))
            if answer.offers and dice.random() < 0.5:
                await engine.report(answer.decision_id, answer.offers[0].offer_id, "ignored")
            if dice.random() < 0.2:
                await engine.publish("complaint", customer)
                await engine.fold()
        for start_ms, _ in tries:
            seeds = {seed for time_ms, seed in tries if start_ms <= time_ms < start_ms + within_ms}
            assert len(seeds) <= answers
        total += len(tries)
        assert len((await ledger_of(engine, customer)).explored) <= answers
    assert bool(total) == bool(answers)


async def test_the_budget_holds_for_servers_that_decide_at_once() -> None:
    """Two servers, one store: who loses the race for the ledger decides again with what the other has used."""
    text = governed(b"strength: 20, budget: {customer: {answers: 1, within: 30d}}")
    one = SmallEngine(text)
    other = SmallEngine(text, store=one.store)
    used = 0
    for n in range(10):
        customer, seeds = f"person-{n}", set()
        for _ in range(6):
            calls = [server.decide(customer, channel) for server in (one, other) for channel in ("web", "branch")]
            answers = await asyncio.gather(*calls)
            assert len({tuple(slate(answer)) for answer in answers}) == 1
            if explored(answers[0]):
                seeds.add((await record_of(one, answers[0])).seed)
            await one.publish("complaint", customer)
            await one.fold()
        assert len(seeds) <= 1
        used += len(seeds)
    assert used > 3


async def test_the_budget_holds_on_a_real_store(tmp_path: Path) -> None:
    """The longer ledger passes through the scripts of Redis, and the second state of a customer finds it used up."""
    server = Server(tmp_path)
    server.start()
    try:
        store = await RedisStore.open(server.url, PARTITIONS)
        text = governed(b"strength: 20, budget: {customer: {answers: 1, within: 30d}}")
        engines = [SmallEngine(text, store=store) for _ in range(2)]
        used = 0
        for n in range(12):
            customer, tried = f"person-{n}", set()
            for _ in range(4):
                calls = [engine.decide(customer, channel) for engine in engines for channel in ("web", "branch")]
                answers = await asyncio.gather(*calls)
                assert not any(answer.degraded for answer in answers)
                assert len({tuple(slate(answer)) for answer in answers}) == 1
                ledger = await ledger_of(engines[0], customer)
                tried.update(trial.seed for trial in ledger.explored)
                assert explored(answers[0]) <= len(ledger.explored) == len(tried) <= 1
                if answers[0].offers:
                    await engines[0].report(answers[0].decision_id, answers[0].offers[0].offer_id, "ignored")
            used += len(tried)
        assert used > 3
        await store.close()
    finally:
        server.stop()


async def test_ledgers_of_before_and_after_a_budget_are_read() -> None:
    """One without a budget has the old form; with one it keeps what counts; without again it is the old form again."""
    plain, budget = governed(b"strength: 5"), governed(b"strength: 5, budget: {customer: {answers: 9, within: 30d}}")
    before = SmallEngine(plain)
    customers = [f"person-{n}" for n in range(20)]
    for customer in customers:
        await before.decide(customer)
    during, after = SmallEngine(budget, store=before.store), SmallEngine(plain, store=before.store)
    kept = 0
    for customer in customers:
        assert (await ledger_of(before, customer)).explored == ()
        answer = await during.decide(customer)
        ledger = await ledger_of(during, customer)
        assert len(ledger.decisions) == 2
        trial = Trial((await record_of(during, answer)).seed, during.now_ms)
        if explored(answer):
            assert ledger.explored == (trial,)
        elif answer.offers:
            assert ledger.explored == ()
        if explored(answer):
            kept += 1
            await during.report(answer.decision_id, answer.offers[0].offer_id, "ignored")
            assert (await ledger_of(during, customer)).explored == ledger.explored
        await after.decide(customer)
        [(_, data)] = await after.store.read([customer])
        assert data is not None and data[0] == 1 and len(Ledger.unpack(data).decisions) == 3
    assert kept > 3


trials = st.lists(st.builds(Trial, st.integers(0, 2**64 - 1), st.integers(0, 2**62)), max_size=5).map(tuple)


@given(trials)
def test_a_ledger_with_explorations_comes_back_as_packed(explored_before: tuple[Trial, ...]) -> None:
    ledger = Ledger(3, 9, explored=explored_before)
    assert Ledger.unpack(ledger.pack()) == ledger
    assert dataclasses.replace(ledger, explored=()).pack()[0] == 1


# --- changed live ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        b"method: greedy",
        b"method: inverse_gap",
        b"strength: 0",
        b"budget: {share: 0.01, customer: {answers: 1, within: 7d}}, never: ['complaints_90d > 0.0']",
    ],
)
async def test_changing_exploration_keeps_what_was_learnt(changed: bytes) -> None:
    """A restart with another method, strength, budget or rules: the same sums, the same policy, another behaviour."""
    before = SmallEngine(governed(b"strength: 1"))
    for n in range(40):
        answer = await before.decide(f"person-{n}")
        for offer in answer.offers:
            await before.report(answer.decision_id, offer.offer_id, ("accepted", "declined")[n % 2])
    await before.learn()
    await before.learning.save()
    served = before.service.decider.policy
    after = SmallEngine(governed(changed), store=before.store)
    await after.watch.step(0)
    assert after.catalogue.version != before.catalogue.version
    assert after.catalogue.transform.version == before.catalogue.transform.version
    assert await after.statistics() == await before.statistics()
    policy = after.service.decider.policy
    assert (policy.version, policy.lessons.tolist()) == (served.version, served.lessons.tolist())
    assert (policy.mean_weights == served.mean_weights).all()
    answers: list[Any] = [await after.decide(f"new-{n}") for n in range(40)]
    if changed in (b"method: greedy", b"strength: 0"):
        assert not any(map(explored, answers))
    outcome = await after.report(answers[0].decision_id, answers[0].offers[0].offer_id, "accepted")
    assert not outcome.duplicate
    lessons = (await after.learning.learner()).lessons
    await after.learn()
    assert (await after.learning.learner()).lessons == lessons + 1


