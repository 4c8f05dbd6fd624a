"""A new offer starts from points, leans on its category, then stands on its own record; the reasons say which."""

from itertools import pairwise

import numpy as np
import pytest
from test_governed_exploration import record_of

from engine.catalogue import Catalogue
from engine.config import parse, version_of
from engine.errors import ConfigError
from engine.policyfacts import PolicyFacts, pack_weights
from models import first_probabilities
from opportune.v1 import decisions_pb2
from tests.small_engine import CONFIG, SmallEngine

POINTS = b"""    points:
      rules:
        - {when: "purchases_7d > 0.0", points: 5}
        - {when: vip, points: 10}
        - {when: "minutes > 100.0", points: 100}
      rate_at: {0: 0.01, 10: 0.05, 20: 0.11}
      strength: 20
"""
WITH_POINTS = CONFIG.replace(b"    channels: [branch]\n", b"").replace(b"    value: 40\n", b"    value: 40\n" + POINTS)


def reasons(answer: decisions_pb2.DecideResponse, offer: str = "card") -> dict[str, float]:
    [found] = [ranked for ranked in answer.offers if ranked.offer_id == offer]
    return {reason.code: reason.weight for reason in found.reasons}


async def card_of(engine: SmallEngine, customer: str, **context: object) -> decisions_pb2.RankedOffer:
    """The card in an answer; customers are asked one after the other until it is in one."""
    for attempt in range(50):
        answer = await engine.decide(f"{customer}-{attempt}", "web", context=context)
        for ranked in answer.offers:
            if ranked.offer_id == "card":
                return ranked
    raise AssertionError("the card is never offered")


@pytest.mark.parametrize(
    ("context", "rate", "points"), [({}, 0.01, 0.0), ({"vip": True}, 0.05, 10.0), ({"minutes": 200}, 0.11, 100.0)]
)
async def test_points_say_what_to_expect_before_there_are_lessons(
    context: dict[str, object], rate: float, points: float
) -> None:
    engine = SmallEngine(WITH_POINTS)
    ranked = await card_of(engine, "ann", **context)
    assert ranked.acceptance_probability == pytest.approx(rate, abs=1e-6)
    codes = [reason.code for reason in ranked.reasons]
    assert codes[1:] == ["cold_start", "points"]
    assert ranked.reasons[-1].weight == points
    assert ranked.reasons[-1].text


async def test_events_add_points_and_the_record_keeps_which_rules_held() -> None:
    engine = SmallEngine(WITH_POINTS)
    for n in range(20):
        await engine.publish("purchase", f"bob-{n}", amount=5.0)
    await engine.fold()
    for n in range(20):
        answer = await engine.decide(f"bob-{n}", "web", context={"vip": True})
        if [ranked for ranked in answer.offers if ranked.offer_id == "card"]:
            break
    assert reasons(answer)["points"] == 15.0
    record = await record_of(engine, answer)
    [choice] = [choice for choice in record.slate if engine.catalogue.offer_name(choice.key) == "card"]
    assert choice.mean == pytest.approx(0.08, abs=1e-6)
    assert engine.catalogue.ladder.points([record.rules_held]).tolist() == [[15.0]]


async def test_offers_without_points_are_as_if_nobody_had_any() -> None:
    plain = SmallEngine(CONFIG.replace(b"    channels: [branch]\n", b""))
    engine = SmallEngine(WITH_POINTS)
    assert plain.catalogue.ladder.offers == ()
    for n in range(10):
        answers = [await each.decide(f"c-{n}", "web", limit=3) for each in (engine, plain)]
        of = [{r.offer_id: r.acceptance_probability for r in answer.offers} for answer in answers]
        for offer in {*of[0], *of[1]} - {"card"}:
            assert of[0].get(offer, of[1].get(offer)) == of[1].get(offer, of[0].get(offer))


async def test_the_rungs_follow_each_other_as_outcomes_come() -> None:
    """Points first; a category with a record, then the offer's own outcomes take over, and never the other way."""
    engine = SmallEngine(WITH_POINTS)
    order = {"points": 0, "category": 1, "own": 2}
    seen: list[int] = []
    means = []
    for n in range(120):
        answer = await engine.decide(f"customer-{n}", "web", limit=3)
        for ranked in answer.offers:
            if ranked.offer_id == "card":
                rung = ranked.reasons[-1]
                seen.append(order[rung.code])
                means.append(ranked.acceptance_probability)
            await engine.report(answer.decision_id, ranked.offer_id, "accepted" if n % 4 == 0 else "declined")
        await engine.learn()
    assert seen[0] == 0 and seen[-1] == 2
    assert all(before <= after for before, after in pairwise(seen))
    assert means[0] == pytest.approx(0.01, abs=1e-6) and means[-1] == pytest.approx(0.25, abs=0.1)
    assert max(abs(after - before) for before, after in pairwise(means)) < 0.12


async def test_an_explanation_names_the_rung_and_what_points_added() -> None:
    engine = SmallEngine(WITH_POINTS)
    decision = await engine.decide("ann", "web", context={"vip": True}, limit=3)
    answer = await engine.explain(decision.decision_id)
    candidates = {candidate.offer_id: candidate for candidate in answer.candidates}
    card = candidates["card"]
    rungs = {name: found.reasons[-1].code for name, found in candidates.items() if found.eligible}
    assert rungs == {"card": "points", "helpline": "category"}
    assert card.acceptance_probability == pytest.approx(0.05, abs=1e-6)
    assert card.reasons[-1].weight == 10.0
    assert "10 of them stand for 5.0%, which weighs 20 lessons against 0 so far" in card.text
    assert "The estimate rests on points" in answer.summary
    assert answer.exact


async def test_what_points_added_is_a_contribution_and_nothing_is_left_over() -> None:
    engine = SmallEngine(WITH_POINTS)
    for n in range(30):
        answer = await engine.decide(f"customer-{n}", "web", limit=3)
        for ranked in answer.offers:
            await engine.report(answer.decision_id, ranked.offer_id, "accepted" if n % 4 == 0 else "declined")
        await engine.learn()
    decision = await engine.decide("ann", "web", context={"vip": True, "minutes": 200}, limit=3)
    answer = await engine.explain(decision.decision_id)
    [card] = [candidate for candidate in answer.candidates if candidate.offer_id == "card"]
    parts = {part.input: part.probability for part in card.contributions}
    if answer.explained_by_policy_version:
        assert parts["cold_start_points"] != 0.0
        assert card.base_rate + sum(parts.values()) == pytest.approx(card.factors.estimate, abs=1e-6)
        assert card.factors.worth == pytest.approx(card.score, rel=1e-5)
    [ranked] = [found for found in decision.offers if found.offer_id == "card"] or [card]
    assert ranked.acceptance_probability == pytest.approx(card.acceptance_probability, abs=1e-6)


async def test_the_propensity_is_that_of_the_race_with_points() -> None:
    """Recomputed from means and deviations as the points made them, it is the one in the record."""
    engine = SmallEngine(WITH_POINTS + b"silence: false\n")
    for n in range(12):
        answer = await engine.decide(f"customer-{n}", "web", context={"vip": n % 2 == 0}, limit=2)
        record = await record_of(engine, answer)
        offers = [engine.catalogue.index_of_key[choice.key] for choice in record.slate]
        assert len(offers) == 2, "card and helpline"
        worth = np.array([[choice.score for choice in record.slate]])
        sd = np.array([[choice.sd * engine.catalogue.gain[record.channel, at] for choice, at in zip(
            record.slate, offers, strict=True)]])
        [chances] = first_probabilities(worth, sd, np.ones((1, 2), bool))
        assert record.slate[0].propensity == pytest.approx(chances[0], rel=1e-4)
        assert record.slate[1].propensity == pytest.approx(1.0)


async def test_a_policy_of_which_nothing_is_told_leaves_the_points() -> None:
    """A learner of an earlier release sends no noise: the points stand, and nothing fails."""
    facts = PolicyFacts.read({"version": 3}, ["card", "loan"])
    assert np.isnan(facts.noise).all() and not facts.spread.size


async def test_a_policy_kept_by_an_earlier_release_has_one_spread_for_all_offers() -> None:
    others = pack_weights(np.array([0.25, 0.5]))
    told = {"points": {"spread": [1.0, 0.125], "offers": {"loan": [0.5, others]}}}
    facts = PolicyFacts.read(told, ["card", "loan"])
    assert facts.noise[1] == 0.5 and np.isnan(facts.noise[0])
    assert facts.spread[1].tolist() == [1.0, 0.125]
    assert facts.others[1].tolist() == [0.25, 0.5]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (b"10: 0.05", b"10: 0.5", "offers[0].points: rate_at {0: 0.01, 10: 0.5, 20: 0.11}: expected no smaller rate"),
        (b"{0: 0.01, 10: 0.05, 20: 0.11}", b"{0: 0.01}", "offers[0].points: rate_at: expected two places or more"),
        (b"strength: 20", b"strength: 0", "offers[0].points.strength: expected greater than 0"),
        (b"when: vip", b"when: vipp", "offers.0.points.rules.1.when: no feature or fact is called 'vipp'"),
        (b"points: 100}", b"points: many}", "offers[0].points.rules[2].points: expected a valid number"),
    ],
)
def test_wrong_points_are_refused_with_their_place(old: bytes, new: bytes, told: str) -> None:
    text = WITH_POINTS.replace(old, new)
    with pytest.raises(ConfigError) as refusal:
        Catalogue.compile(parse(text, "shop.yaml"), version_of(text), text, "shop.yaml")
    assert told in str(refusal.value)
    assert str(refusal.value).startswith(("shop.yaml:2", "shop.yaml:3"))
