"""The whole loop, one turn at a time: event → state → decision → outcome → lesson → the next decision."""

from tests.small_engine import SmallEngine, features_of


def offers_of(answer) -> set[str]:
    return {offer.offer_id for offer in answer.offers}


async def test_an_event_becomes_state() -> None:
    """What was published is a feature of the customer as soon as it is folded."""
    engine = SmallEngine()
    await engine.publish("purchase", amount=150.0)
    await engine.fold()
    assert features_of(await engine.customer())["spent_30d"] == 150.0


async def test_state_changes_what_may_be_offered() -> None:
    """A loan is for those who spend: before the purchase it is no candidate, after it is."""
    engine = SmallEngine()
    loan_of = {c.offer_id: c for c in (await engine.explain((await engine.decide()).decision_id)).candidates}
    await engine.publish("purchase", amount=150.0)
    await engine.fold()
    loan_now = {c.offer_id: c for c in (await engine.explain((await engine.decide()).decision_id)).candidates}
    assert (loan_of["loan"].eligible, loan_now["loan"].eligible) == (False, True)


async def test_a_decision_is_found_again_in_every_channel() -> None:
    """What the branch began is among the open offers that the web sees, until the customer answers."""
    engine = SmallEngine()
    begun = await engine.decide(channel="branch")
    offer = begun.offers[0].offer_id
    seen = await engine.decide(channel="web")
    assert (begun.decision_id, offer) in {(found.decision_id, found.offer_id) for found in seen.open_offers}
    await engine.report(begun.decision_id, offer, "declined")
    seen = await engine.decide(channel="web")
    assert (begun.decision_id, offer) not in {(found.decision_id, found.offer_id) for found in seen.open_offers}


async def test_an_outcome_changes_the_policy_of_the_next_decision() -> None:
    """After a hundred customers took the first offer they got, the next one is expected to like it more."""
    engine = SmallEngine()
    before = await engine.decide("bob", limit=3)
    for number in range(100):
        answer = await engine.decide(f"customer-{number}", limit=3)
        for offer in answer.offers:
            stage = "accepted" if offer.offer_id == "helpline" else "declined"
            await engine.report(answer.decision_id, offer.offer_id, stage)
    await engine.learn()
    after = await engine.decide("carl", limit=3)
    assert before.policy_version == 0
    assert after.policy_version > 0
    first = after.offers[0]
    assert first.offer_id == "helpline"
    assert first.acceptance_probability > 0.8


async def test_an_answer_says_how_it_came_about() -> None:
    """Every offer carries the propensity with which it was chosen; silence and rank follow from the same draw."""
    engine = SmallEngine()
    answer = await engine.decide()
    assert [offer.rank for offer in answer.offers] == list(range(1, len(answer.offers) + 1))
    assert all(0.0 < offer.propensity <= 1.0 for offer in answer.offers)
    assert "loan" not in offers_of(answer)


async def test_a_stranger_is_served() -> None:
    """Nobody has heard of this visitor: there is an answer, and it says that nothing was known."""
    answer = await SmallEngine().decide("never-seen-before", "web")
    assert answer.decision_id
    assert not answer.state.known
