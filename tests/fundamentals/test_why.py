"""Why this offer, why not that one, why nothing: the record behind a decision answers, long after it was made."""

import pytest

from tests.small_engine import CONFIG, SmallEngine


async def explained(engine: SmallEngine, **asked):
    decision = await engine.decide(**asked)
    explanation = await engine.explain(decision.decision_id)
    return decision, explanation, {candidate.offer_id: candidate for candidate in explanation.candidates}


async def test_why_not_names_the_rules_that_did_not_hold() -> None:
    """Each rule that kept an offer away is quoted as the configuration has it."""
    engine = SmallEngine()
    await engine.publish("complaint")
    await engine.fold()
    _, _, candidates = await explained(engine)
    assert list(candidates["loan"].unmet_rules) == ["complaints_90d == 0.0", "spent_30d > 100.0"]
    assert list(candidates["card"].unmet_rules) == []


async def test_why_not_names_the_channel() -> None:
    """The helpline is for the branch; on the web the record says so."""
    _, _, candidates = await explained(SmallEngine(), channel="web")
    assert list(candidates["helpline"].unmet_rules) == ["offered in channel web, with a treatment for it"]


async def test_why_this_one_gives_its_numbers() -> None:
    """Propensity, estimate and expected worth of the record are those of the answer."""
    decision, _, candidates = await explained(SmallEngine(), limit=2)
    for offer in decision.offers:
        candidate = candidates[offer.offer_id]
        assert (candidate.rank, candidate.propensity) == (offer.rank, offer.propensity)
        # The log keeps score and estimate as float32.
        assert candidate.score == pytest.approx(offer.score, rel=1e-6)
        assert candidate.acceptance_probability == pytest.approx(offer.acceptance_probability, rel=1e-6)
        assert candidate.acceptance_probability_sd > 0.0


async def test_the_inputs_are_those_that_the_model_saw() -> None:
    """30 of 0 to 60 minutes is the middle of its range: 0 of −127 to 127 steps; the intent is one column a value."""
    _, explanation, _ = await explained(SmallEngine(), context={"minutes": 30.0, "intent": "borrow"})
    steps = {found.name: found.steps for found in explanation.inputs}
    assert steps["minutes"] == 0
    assert (steps["intent[pay]"], steps["intent[borrow]"], steps["intent[leave]"]) == (0, 127, 0)
    assert explanation.context["intent"].text == "borrow"


async def test_why_nothing() -> None:
    """When no offer may be made the answer says so, and the record too."""
    text = CONFIG.replace(b"  - id: card\n", b'  - id: card\n    eligibility: ["vip"]\n')
    decision, explanation, candidates = await explained(SmallEngine(text), channel="web")
    assert not decision.offers
    assert decision.nothing_reason.code == "not_eligible"
    assert list(candidates["card"].unmet_rules) == ["vip"]
    assert "There was nothing to choose from." in explanation.summary


async def test_silence_has_a_propensity_too() -> None:
    """Saying nothing competes with the offers; when it is drawn, the record keeps with which probability."""
    costly = CONFIG.replace(b"    value: 40\n", b"    value: 40\n    contact_cost: 39\n")
    decision, explanation, _ = await explained(SmallEngine(costly), channel="web")
    assert not decision.offers
    assert decision.nothing_reason.code == "silence"
    assert 0.9 < explanation.nothing_propensity <= 1.0


async def test_the_story_is_told_in_words() -> None:
    """Who, where, how many could be offered, and what came first with which estimate."""
    decision, explanation, _ = await explained(SmallEngine())
    assert "For customer ann, of whom nothing was known, 2 of 3 offers were eligible" in explanation.summary
    assert f"Rank 1: {decision.offers[0].offer_id}" in explanation.summary


async def test_what_each_input_added_is_told_and_nothing_is_left_over() -> None:
    """From the rate of the average customer, input by input, to the estimate; from there, by factors, to the worth."""
    engine = SmallEngine()
    for n in range(40):
        pays = bool(n % 2)
        decision = await engine.decide(f"customer-{n}", "web", context={"intent": "pay" if pays else "leave"})
        for offer in decision.offers:
            await engine.report(decision.decision_id, offer.offer_id, "accepted" if pays else "declined")
    await engine.learn()
    _, explanation, candidates = await explained(engine, channel="web", context={"intent": "pay"})
    card = candidates["card"]
    assert explanation.exact
    assert card.contributions[0].input == "intent"
    added = sum(part.probability for part in card.contributions)
    assert card.base_rate + added == pytest.approx(card.factors.estimate, abs=1e-12)
    assert card.factors.estimate == pytest.approx(card.acceptance_probability, abs=1e-6)
    assert card.factors.worth == pytest.approx(card.factors.estimate * 40, abs=1e-9)
    assert "For it: intent (pay, +" in card.text


async def test_the_belief_that_decided_explains_not_the_one_of_today() -> None:
    """What was learnt since does not change why it was decided."""
    engine = SmallEngine()
    decision = await engine.decide("ann", "web", context={"intent": "pay"})
    before = await engine.explain(decision.decision_id)
    for n in range(40):
        later = await engine.decide(f"customer-{n}", "web", context={"intent": "pay"})
        for offer in later.offers:
            await engine.report(later.decision_id, offer.offer_id, "accepted")
    await engine.learn()
    after = await engine.explain(decision.decision_id)
    assert (after.explained_by_policy_version, after.exact) == (decision.policy_version, True)
    assert [c.text for c in after.candidates] == [c.text for c in before.candidates]
