"""Sending again is safe: requests, events and outcomes have ids, and the same id is the same thing."""

from tests.small_engine import CONFIG, SmallEngine, features_of


async def test_the_same_request_gets_the_same_decision() -> None:
    """A caller that never saw the answer asks again with the same id and gets it, not a second contact."""
    engine = SmallEngine()
    first = await engine.decide(request_id="call-1")
    again = await engine.decide(request_id="call-1")
    assert again.repeated
    assert again.decision_id == first.decision_id
    assert [(o.offer_id, o.propensity) for o in again.offers] == [(o.offer_id, o.propensity) for o in first.offers]


async def test_an_answer_without_offers_is_repeated_with_its_reason() -> None:
    """Nothing was eligible, or silence was best: the repeat says which, as the first answer did."""
    nobody = CONFIG.replace(b"  - id: card\n", b'  - id: card\n    eligibility: ["vip"]\n')
    costly = CONFIG.replace(b"    value: 40\n", b"    value: 40\n    contact_cost: 39\n")
    for text, reason in ((nobody, "not_eligible"), (costly, "silence")):
        engine = SmallEngine(text)
        first = await engine.decide(channel="web", request_id="call-1")
        again = await engine.decide(channel="web", request_id="call-1")
        assert [first.nothing_reason.code, again.nothing_reason.code] == [reason, reason]


async def test_another_request_is_another_decision() -> None:
    """Without an id, and with another one, each call is a contact of its own."""
    engine = SmallEngine()
    answers = [await engine.decide(request_id=request) for request in ("", "", "call-1", "call-2")]
    assert len({answer.decision_id for answer in answers}) == 4


async def test_a_request_id_belongs_to_a_customer() -> None:
    """Two customers whose callers happen to count alike do not get each other's answers."""
    engine = SmallEngine()
    ann, bob = await engine.decide("ann", request_id="1"), await engine.decide("bob", request_id="1")
    assert (ann.customer_id, bob.customer_id) == ("ann", "bob")
    assert not bob.repeated


async def test_the_same_event_counts_once() -> None:
    """A producer that sends twice is recognised by the id of its event; both sends are acknowledged."""
    engine = SmallEngine()
    for _ in range(2):
        sent = await engine.publish("purchase", event_id="receipt-7", amount=150.0)
        assert sent.accepted == 1
        await engine.fold()
    customer = await engine.customer()
    assert features_of(customer)["spent_30d"] == 150.0
    assert (customer.events, customer.duplicates) == (1, 1)


async def test_the_same_outcome_counts_once() -> None:
    """The second report of an outcome is acknowledged as a duplicate and teaches nothing more."""
    engine = SmallEngine()
    decision = await engine.decide()
    offer = decision.offers[0].offer_id
    first = await engine.report(decision.decision_id, offer, "accepted", "order-9")
    await engine.learn()
    taught = await engine.statistics()
    again = await engine.report(decision.decision_id, offer, "accepted", "order-9")
    await engine.learn()
    assert (first.duplicate, again.duplicate) == (False, True)
    assert again.stage == first.stage
    assert await engine.statistics() == taught


async def test_a_duplicate_is_known_even_after_the_offer_moved_on() -> None:
    """accepted, fulfilled, and the delayed repeat of accepted: nothing happens, and where it stands now is told."""
    engine = SmallEngine()
    decision = await engine.decide()
    offer = decision.offers[0].offer_id
    await engine.report(decision.decision_id, offer, "accepted", "order-9")
    moved = await engine.report(decision.decision_id, offer, "fulfilled", "delivery-9")
    again = await engine.report(decision.decision_id, offer, "accepted", "order-9")
    assert again.duplicate
    assert again.stage == moved.stage
