"""Explanations: by the belief that decided, adding up to the estimate, and plain about what they do not know."""

import dataclasses
import random
from collections import defaultdict

import numpy as np
import pytest

from engine.explain import answer as explaining
from engine.explain.contributions import COMBINED, REST, groups_of
from engine.explain.languages import WORDS
from engine.explain.words import ENGLISH
from engine.service import Service
from engine.store import MemoryStore, StoreError
from models import Policy
from opportune.v1 import decisions_pb2
from tests.small_engine import CONFIG, SmallEngine

RATES = {
    "card": {"pay": 0.5, "borrow": 0.3, "leave": 0.1},
    "loan": {"pay": 0.05, "borrow": 0.6, "leave": 0.1},
    "helpline": {"pay": 0.1, "borrow": 0.1, "leave": 0.7},
}


async def taught(engine: SmallEngine, customers: int = 60, seed: int = 1) -> list[list[int]]:
    """Decide, report and learn; the vector of every lesson."""
    dice = random.Random(seed)
    vectors = []
    for n in range(customers):
        customer = f"{seed}-{n}"
        if dice.random() < 0.5:
            await engine.publish("purchase", customer, amount=dice.choice([20.0, 150.0, 400.0]), category="food")
            await engine.fold()
        intent = dice.choice(["pay", "borrow", "leave"])
        answer = await engine.decide(customer, context={"intent": intent, "minutes": float(dice.randrange(60))})
        steps = [found.steps for found in (await engine.explain(answer.decision_id)).inputs]
        for offer in answer.offers:
            stage = "accepted" if dice.random() < RATES[offer.offer_id][intent] else "declined"
            await engine.report(answer.decision_id, offer.offer_id, stage)
            vectors.append(steps)
        engine.now_ms += 1_000
        if n % 10 == 9:
            await engine.learn()
    return vectors


@pytest.fixture
async def engine() -> SmallEngine:
    engine = SmallEngine()
    await taught(engine)
    return engine


def by_offer(answer: decisions_pb2.ExplainResponse) -> dict[str, decisions_pb2.Candidate]:
    return {candidate.offer_id: candidate for candidate in answer.candidates}


def check_sums(answer: decisions_pb2.ExplainResponse) -> None:
    for candidate in answer.candidates:
        factors = candidate.factors
        added = sum(part.probability for part in candidate.contributions)
        assert candidate.base_rate + added == pytest.approx(factors.estimate, abs=1e-12)
        gain = factors.context_weight * factors.value * factors.lever
        assert factors.worth == pytest.approx(factors.estimate * gain - factors.contact_cost, abs=1e-9)
        for part in candidate.contributions:
            assert part.worth == pytest.approx(part.probability * gain, abs=1e-12)
        sizes = [abs(part.probability) for part in candidate.contributions if part.input != REST]
        assert sizes == sorted(sizes, reverse=True)


# --- contributions ----------------------------------------------------------------------------------------------------


async def test_contributions_are_those_of_a_reckoning_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Input by input, column by column, beside the mean of all lessons; over what the policy in service believes.

    Of the waves: what they do on the way from the mean to the customer, walked in small steps.
    """
    # The waves shall take part, whatever they are worth, and from the second snapshot on.
    monkeypatch.setattr("models.strengths._WAVES_GAIN", -1e9)
    monkeypatch.setattr("engine.learning._WHOLE_EVERY", 1)
    engine = SmallEngine()
    vectors = await taught(engine)
    average = [sum(column) / len(vectors) for column in zip(*vectors, strict=True)]
    decision = await engine.decide("2-1", context={"intent": "borrow", "minutes": 12.0})
    answer = await engine.explain(decision.decision_id)
    policy = engine.service.decider.policy
    assert (answer.explained_by_policy_version, answer.exact, answer.caveat) == (policy.version, True, "")
    check_sums(answer)
    transform = engine.service.catalogue.transform
    turning, start = transform.angles()
    plain, inputs = transform.dimension - transform.waves, len(turning)
    assert policy.dimension == transform.dimension, "the waves take part"
    mean, _ = policy.score(np.array([[found.steps for found in answer.inputs]], np.int8))
    away = np.array([found.steps for found in answer.inputs])[1 : 1 + inputs] - average[1 : 1 + inputs]
    turned = away[:, None] * turning
    from_angle = start + np.array(average[1 : 1 + inputs]) @ turning
    steps = (np.arange(2_000) + 0.5) / 2_000
    slope = -127.0 * np.sin(from_angle + steps[:, None] * turned.sum(axis=0)).mean(axis=0)
    for at, offer in enumerate(policy.offers):
        candidate = by_offer(answer)[offer]
        expected: dict[str, float] = defaultdict(float)
        base = 0.0
        own = policy.mean_weights[plain:, at]
        for column, found in enumerate(answer.inputs[:plain]):
            weight = float(policy.mean_weights[column, at])
            base += average[column] * weight
            name = found.name.partition("[")[0].removeprefix("log(").removesuffix(")")
            expected[name] += (found.steps - average[column]) * weight
            if 1 <= column <= inputs:
                expected[name] += float((turned[column - 1] * slope) @ own)
        base += float(127.0 * np.cos(from_angle) @ own)
        assert expected.pop("bias") == pytest.approx(0.0, abs=1e-6)
        # The average is kept to a thousandth of a step, a wave to one step.
        assert {part.input: part.probability for part in candidate.contributions} == pytest.approx(expected, abs=2e-3)
        assert candidate.base_rate == pytest.approx(base, abs=2e-3)
        assert candidate.factors.estimate == pytest.approx(float(mean[0, at]), abs=1e-6)


async def test_what_helps_is_told_as_helping(engine: SmallEngine) -> None:
    """Who wants to leave takes the helpline, who wants to pay does not: the world of this test is made so."""
    for intent, sign in (("leave", 1), ("pay", -1)):
        decision = await engine.decide(f"3-{intent}", context={"intent": intent})
        helpline = by_offer(await engine.explain(decision.decision_id))["helpline"]
        [part] = [part for part in helpline.contributions if part.input == "intent"]
        assert part.value == intent
        assert sign * part.probability > 0.02
        assert f"intent ({intent}, {100 * part.probability:+.1f} points)" in helpline.text


async def test_an_input_says_what_it_was() -> None:
    engine = SmallEngine()
    await taught(engine, 20)
    await engine.publish("purchase", "ann", amount=500.0, category="travel")
    await engine.fold()
    decision = await engine.decide("ann", context={"minutes": 12.0})
    values = {
        part.input: part.value
        for candidate in (await engine.explain(decision.decision_id)).candidates
        for part in candidate.contributions
    }
    assert values == {
        "minutes": "about 12.0", "intent": "not known", "last_category": "travel", "purchases_7d": "about 1.0",
        "spent_30d": "about 490 EUR",
    }  # fmt: skip


def test_columns_of_several_inputs_are_told_together() -> None:
    """Whatever the transform calls them: bases of one input are part of it, crosses of two belong to neither."""
    columns = ["bias", "age", "age^2", "hinge(age, 40)", "age*income", "job[0]*job[1]", "log(log)", "?"]
    groups = groups_of(columns, {"age", "income", "job", "log"})
    assert groups == ("age", "age", "age", COMBINED, "job", "log", COMBINED)


async def test_where_there_is_much_the_small_ones_are_told_together(
    engine: SmallEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explaining, "EXPLAIN_ENTRIES_MAX", 0)
    monkeypatch.setattr(explaining, "EXPLAIN_OFFER_ENTRIES_MIN", 2)
    answer = await engine.explain((await engine.decide("4-1", limit=1)).decision_id)
    check_sums(answer)
    for candidate in answer.candidates:
        names = [part.input for part in candidate.contributions]
        assert (len(names) == 3 and names[2] == REST) != (candidate.rank == 1)


# --- reasons ----------------------------------------------------------------------------------------------------------


async def test_an_explored_offer_says_over_what_it_was_drawn() -> None:
    engine = SmallEngine()
    await taught(engine, 10)
    found = 0
    for n in range(60):
        decision = await engine.decide(f"5-{n}", limit=1)
        answer = await engine.explain(decision.decision_id)
        [offer] = decision.offers
        reason, rung = by_offer(answer)[offer.offer_id].reasons
        assert (rung.code, rung.weight) == (offer.reasons[-1].code, offer.reasons[-1].weight)
        assert reason.code == offer.reasons[0].code
        rivals = [(c.score, c.offer_id) for c in answer.candidates if c.eligible and not c.rank]
        worth, rival = max(rivals)
        if reason.code == "explored":
            found += 1
            assert reason.weight == pytest.approx(worth - offer.score, rel=1e-4)
            assert f"{rival} was expected to be worth" in reason.text
            assert f"drawn with propensity {offer.propensity:.3g}" in reason.text
            assert by_offer(answer)[rival].reasons[0].code == "not_drawn"
            assert f"It is being tried out: {rival}" in answer.brief
        else:
            assert (reason.code, worth <= offer.score) == ("best", True)
            assert {c.reasons[0].code for c in answer.candidates if c.eligible and not c.rank} == {"not_chosen"}
    assert 0 < found < 60


async def test_a_refused_offer_says_which_rule_and_what_it_would_have_been_worth(engine: SmallEngine) -> None:
    await engine.publish("complaint", "ann")
    await engine.fold()
    decision = await engine.decide("ann", "web", context={"intent": "borrow"})
    loan = by_offer(await engine.explain(decision.decision_id))["loan"]
    assert (loan.eligible, loan.rank, loan.reasons[0].code) == (False, 0, "not_eligible")
    assert loan.text == (
        "loan: not eligible, because complaints_90d == 0.0 did not hold; spent_30d > 100.0 did not hold."
    )
    assert loan.factors.worth == pytest.approx(loan.score, abs=1e-9)
    assert loan.score != 0.0
    assert loan.acceptance_probability_sd > 0.0


async def test_a_rule_that_failed_is_told_as_that() -> None:
    text = CONFIG.replace(b'"spent_30d > 100.0"', b'"100 / int(purchases_7d) > 1"')
    engine = SmallEngine(text)
    loan = by_offer(await engine.explain((await engine.decide()).decision_id))["loan"]
    assert "100 / int(purchases_7d) > 1 could not be evaluated" in loan.text


async def test_silence_that_was_best_and_silence_that_was_explored(engine: SmallEngine) -> None:
    costly = CONFIG.replace(b"    value: 40\n", b"    value: 40\n    contact_cost: 39\n")
    quiet = SmallEngine(costly)
    decision = await quiet.decide("ann", "web")
    answer = await quiet.explain(decision.decision_id)
    assert not decision.offers
    assert "No eligible offer was expected to be worth its contact." in answer.summary
    assert answer.brief == "Offer nothing now. No eligible offer was expected to be worth its contact."
    assert by_offer(answer)["card"].reasons[0].code == "not_chosen"
    assert "less than saying nothing" in by_offer(answer)["card"].text
    # At a rate of 0.05, 40 times it is 2: worth a contact of 1.9, and drawn as often as not.
    even = SmallEngine(CONFIG.replace(b"    value: 40\n", b"    value: 40\n    contact_cost: 1.9\n"))
    seen = set()
    for n in range(40):
        answer = await even.explain((await even.decide(f"6-{n}", "web")).decision_id)
        card = by_offer(answer)["card"]
        seen.add((card.rank, card.reasons[0].code))
        if not card.rank:
            assert "Explored: card was expected to be worth 0.1" in answer.summary
            assert card.reasons[0].weight == pytest.approx(0.1, rel=1e-4)
    assert seen == {(0, "not_drawn"), (1, "best")}


async def test_words_come_from_the_table_of_the_language_asked_for(
    engine: SmallEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(WORDS, "cs", dataclasses.replace(ENGLISH, brief_offer="Nabídněte {offer}."))
    decision = await engine.decide()
    for asked, language, word in (("cs-CZ", "cs", "Nabídněte"), ("fr", "en", "Offer"), ("", "en", "Offer")):
        request = decisions_pb2.ExplainRequest(decision_id=decision.decision_id, language=asked)
        answer = await engine.service.explain(request)
        assert (answer.language, answer.brief.split()[0]) == (language, word)


# --- the belief that decided ------------------------------------------------------------------------------------------


async def test_a_decision_is_explained_by_its_own_policy_after_others_came(engine: SmallEngine) -> None:
    decision = await engine.decide("7-1", context={"intent": "pay"})
    before = await engine.explain(decision.decision_id)
    await taught(engine, 40, seed=8)
    assert engine.service.decider.policy.version > decision.policy_version
    after = await engine.explain(decision.decision_id)
    assert (after.explained_by_policy_version, after.exact) == (decision.policy_version, True)
    for answer in (before, after):
        for candidate in answer.candidates:
            if not candidate.rank:
                candidate.ClearField("acceptance_probability_sd")  # as the policy in service has it
    assert before == after


async def test_another_server_explains_by_the_nearest_that_the_store_has_and_says_so(engine: SmallEngine) -> None:
    """The learner leaves one a minute there: the first one, and the one after the decision."""
    decision = await engine.decide("9-1", context={"intent": "pay"})
    own = await engine.explain(decision.decision_id)
    await taught(engine, 40, seed=10)
    other = SmallEngine(store=engine.store)
    other.now_ms = engine.now_ms
    answer = await other.explain(decision.decision_id)
    versions = await engine.store.kept_policies()
    nearest = min(versions, key=lambda version: (abs(version - decision.policy_version), version))
    assert len(versions) == 2
    assert (answer.explained_by_policy_version, answer.exact) == (nearest, False)
    assert answer.caveat.startswith(f"Policy {decision.policy_version}, which decided, is no longer kept;")
    assert answer.caveat in answer.summary
    check_sums(answer)
    for candidate, as_decided in zip(
        (c for c in answer.candidates if c.rank), (c for c in own.candidates if c.rank), strict=True
    ):
        for field in ("offer_id", "score", "acceptance_probability_sd", "propensity"):
            assert getattr(candidate, field) == getattr(as_decided, field)
        # What estimates come to is that of the nearest policy, too.
        assert candidate.acceptance_probability == pytest.approx(as_decided.acceptance_probability, abs=0.05)


async def test_a_policy_in_the_store_explains_exactly(engine: SmallEngine) -> None:
    """A minute later the learner keeps one more; who decided with it is explained by it, on any server."""
    engine.now_ms += 60_000
    await taught(engine, 10, seed=11)
    version = engine.service.decider.policy.version
    assert version in await engine.store.kept_policies()
    decision = await engine.decide("12-1", context={"intent": "pay"})
    own = await engine.explain(decision.decision_id)
    other = SmallEngine(store=engine.store)
    answer = await other.explain(decision.decision_id)
    assert (answer.explained_by_policy_version, answer.exact, answer.caveat) == (version, True, "")
    assert [c.contributions for c in answer.candidates] == [c.contributions for c in own.candidates]


async def test_the_prior_explains_itself_for_good(engine: SmallEngine) -> None:
    """Version 0 is in the configuration: every offer alike, no input says anything."""
    other = SmallEngine(store=MemoryStore(4, engine.clock))
    decision = await other.decide()
    await taught(other, 20)
    answer = await other.explain(decision.decision_id)
    assert (answer.policy_version, answer.explained_by_policy_version, answer.exact) == (0, 0, True)
    for candidate in answer.candidates:
        assert candidate.base_rate == pytest.approx(0.05, rel=1e-6)
        assert not candidate.contributions


async def test_an_offer_that_came_and_one_that_went(engine: SmallEngine) -> None:
    """The inputs are the same, so policies are comparable; of the offer that left the kept ones know nothing."""
    await engine.store.save_config(engine.catalogue.version, CONFIG)
    decision = await engine.decide("13-1", context={"intent": "leave"})
    own = await engine.explain(decision.decision_id)
    text = CONFIG.replace(b"id: helpline", b"id: branch_talk")
    after = SmallEngine(text, engine.store)
    after.now_ms = engine.now_ms
    await after.learn()
    for version in await engine.store.kept_policies():
        await engine.store.keep_policy(0, b"", let_go=[version])
    await engine.store.keep_policy(1, b"", let_go=[0])
    after.service.decider.kept.keep(
        after.service.decider.policy.replaced({}, decision.policy_version), set(), [127.0] + [0.0] * 8
    )
    answer = await after.explain(decision.decision_id)
    assert not answer.exact
    assert "does not know helpline" in answer.caveat
    assert not by_offer(answer)["helpline"].HasField("factors")
    assert by_offer(answer)["card"].HasField("factors")
    helped = by_offer(own)["helpline"]
    assert by_offer(answer)["helpline"].propensity == helped.propensity


async def test_inputs_that_no_kept_policy_saw(engine: SmallEngine) -> None:
    """The configuration has other inputs since: nothing is compared that does not mean the same."""
    await engine.store.save_config(engine.catalogue.version, CONFIG)
    decision = await engine.decide("14-1", limit=1)
    for version in await engine.store.kept_policies():
        await engine.store.keep_policy(version, b"damaged")
    after = SmallEngine(CONFIG.replace(b"input: {range: [0, 20]}", b"input: {range: [0, 30]}"), engine.store)
    after.now_ms = engine.now_ms
    await taught(after, 10, seed=15)
    answer = await after.explain(decision.decision_id)
    assert (answer.exact, answer.explained_by_policy_version) == (False, 0)
    assert answer.caveat == ENGLISH.no_belief
    for candidate in answer.candidates:
        assert not candidate.HasField("factors")
        assert not candidate.contributions
    first, *others = answer.candidates
    assert (first.rank, first.propensity) == (1, decision.offers[0].propensity)
    assert f"Rank 1: {decision.offers[0].offer_id}, acceptance estimated at" in first.text
    eligible = [candidate for candidate in others if candidate.eligible]
    assert [c.text for c in eligible] == [f"{c.offer_id}: eligible, but not chosen." for c in eligible]


async def test_a_record_whose_columns_this_release_reads_otherwise(engine: SmallEngine) -> None:
    decision = await engine.decide("16-1")
    partition, position, record = await engine.service.lookups.found(decision.decision_id)
    changed = dataclasses.replace(record, transform_version=record.transform_version ^ 1, x=record.x[:-1])
    policy = engine.service.decider.policy
    belief = await engine.service._beliefs.of(changed, engine.catalogue)
    assert belief is None
    answer = await explaining.explained(engine.catalogue, changed, f"{partition}{position}", belief, policy)
    assert [found.name for found in answer.inputs] == [f"column {at}" for at in range(len(record.x) - 1)]
    assert answer.caveat == ENGLISH.no_belief
    assert answer.candidates[0].propensity == decision.offers[0].propensity


async def test_a_policy_that_does_not_give_the_estimates_of_the_record_is_not_called_exact(engine: SmallEngine) -> None:
    decision = await engine.decide("17-1")
    policy = engine.service.decider.policy
    wrong = Policy(
        policy.offers,
        policy.version,
        policy.transform_version,
        policy.mean_weights * np.float32(1.01),
        policy.cov_weights,
        policy.lessons,
    )
    engine.service.decider.kept.keep(wrong, policy.offers, None)
    answer = await engine.explain(decision.decision_id)
    assert (answer.explained_by_policy_version, answer.exact) == (decision.policy_version, False)
    assert "does not give the estimates of the record" in answer.caveat
    assert "For a customer in the middle of all ranges" in answer.summary


async def test_a_store_that_cannot_be_asked_leaves_what_is_in_memory(
    engine: SmallEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    decision = await engine.decide("18-1")
    await taught(engine, 20, seed=19)
    other = SmallEngine(store=engine.store)
    await other.learn()

    async def away() -> list[int]:
        raise StoreError("away")

    monkeypatch.setattr(engine.store, "kept_policies", away)
    answer = await other.explain(decision.decision_id)
    assert answer.explained_by_policy_version == other.service.decider.policy.version
    assert not answer.exact


async def test_learning_goes_on_where_no_policy_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = SmallEngine()

    async def full(*_: object) -> None:
        raise StoreError("full")

    monkeypatch.setattr(engine.store, "keep_policy", full)
    await taught(engine, 20)
    assert engine.service.decider.policy.version == 2
    assert await engine.store.kept_policies() == []
    answer = await engine.explain((await engine.decide("21-1")).decision_id)
    assert answer.exact, "this server has it in memory"


async def test_explaining_is_not_on_the_way_of_a_decision(engine: SmallEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decide touches nothing that is kept for explaining."""
    monkeypatch.setattr(engine.service.decider, "kept", None)
    monkeypatch.setattr(Service, "explain", None)
    assert (await engine.decide("20-1")).offers
