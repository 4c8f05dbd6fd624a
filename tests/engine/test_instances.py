"""Offers with parameters through their life: held, found from other channels, resumed, closed once."""

import pytest
from faulty_store import FaultyStore

from engine.again import missing
from engine.errors import InvalidArgument, NotAllowed, NotFound, Unavailable
from engine.record import DecisionRecord, parse_decision_id
from engine.store.base import StoreUnavailable
from opportune.v1 import common_pb2, decisions_pb2, feedback_pb2
from tests.small_engine import CONFIG, DAY_MS, PARTITIONS, START_MS, SmallEngine

LOAN = """  - id: loan
    category: credit
    value: 100
    contact_cost: 1
    window: 30d
    channels: [branch, web]
    parameters:
      amount: {type: number, unit: EUR, range: [500, 10000], step: 100, rules: [{when: vip, value: 8000}],
               expression: "spent_30d * 4.0", default: 1000}
      financing: {type: text, rules: [{when: spent_30d > 1000.0, value: "24 months"}], value: "12 months"}
    price_held_for: 14d
    treatments:
      - {text: "Dear {first_name}, borrow {amount:money} over {financing}"}
      - {text: "Borrow {amount:money|money}"}
      - {text: "<b>{first_name|You}</b>, půjčte si {amount:money|hodně}", channel: web, language: cs}
""".encode()


def held_shop() -> bytes:
    start = CONFIG.index(b"  - id: loan")
    text = CONFIG[:start] + LOAN + CONFIG[CONFIG.index(b"  - id: helpline") :]
    vip = b"  - {name: vip, type: flag}\n"
    text = text.replace(vip, vip + b"  - {name: first_name, type: text}\n")
    text = text.replace(b"limit: 3\n", b"limit: 3\nsilence: false\n")  # all that is eligible is in the answer
    return text.replace(b"{id: web, placements", b"{id: web, format: html, placements")


TEXT = held_shop()


async def begun(engine: SmallEngine, customer: str = "ann") -> decisions_pb2.DecideResponse:
    """A decision with the loan at the branch, for one who spent 750."""
    await engine.publish("purchase", customer, amount=750.0, category="food")
    await engine.fold()
    answer = await engine.decide(customer, "branch", context={"first_name": "Ann"})
    assert "loan" in [offer.offer_id for offer in answer.offers]
    return answer


def loan_of(answer: decisions_pb2.DecideResponse) -> decisions_pb2.RankedOffer:
    [loan] = [offer for offer in answer.offers if offer.offer_id == "loan"]
    return loan


def resume(decision: str, offer: str = "loan") -> decisions_pb2.Resume:
    return decisions_pb2.Resume(decision_id=decision, offer_id=offer)


async def test_parameters_are_worked_out_by_rule_and_said() -> None:
    engine = SmallEngine(TEXT)
    loan = loan_of(await begun(engine))
    assert (loan.parameters["amount"].number, loan.parameters["financing"].text) == (3000.0, "12 months")
    assert loan.price_held_until_ms == START_MS + 14 * DAY_MS
    assert loan.treatment == "Dear Ann, borrow €3,000.00 over 12 months"
    rich = loan_of(await engine.decide("eve", "branch", context={"vip": True}))
    assert rich.parameters["amount"].number == 8000.0, "the first rule that holds"
    assert rich.treatment == "Borrow €8,000.00", "without a name the generic text"
    poor = loan_of(await engine.decide("bob", "branch"))
    assert poor.parameters["amount"].number == 500.0, "0 clipped to the range"


async def test_a_name_cannot_bring_markup() -> None:
    engine = SmallEngine(TEXT)
    answer = await engine.decide("mal", "web", language="cs", context={"first_name": "<script>x</script>&\n\u202eA"})
    assert loan_of(answer).treatment.startswith("<b>&lt;script&gt;x&lt;/script&gt;&amp; A</b>, půjčte si 500,00")


async def test_a_repeat_says_the_same_and_keeps_the_parameters() -> None:
    engine = SmallEngine(TEXT)
    await begun(engine)
    for channel, language in (("branch", ""), ("web", "cs")):
        fields = {"request_id": f"call-{channel}", "language": language, "context": {"first_name": "Ann"}}
        first = loan_of(await engine.decide("ann", channel, **fields))
        await engine.publish("purchase", amount=5000.0, category="food")
        await engine.fold()
        again = loan_of(await engine.decide("ann", channel, **fields))
        assert (again.treatment, again.price_held_until_ms) == (first.treatment, first.price_held_until_ms)
        assert again.parameters == first.parameters
        assert again.begun_decision_id == first.begun_decision_id


async def test_the_price_is_held_in_another_channel_and_worked_out_anew_after_its_date() -> None:
    engine = SmallEngine(TEXT)
    first = await begun(engine)
    await engine.publish("purchase", amount=1000.0, category="food")
    await engine.fold()
    engine.now_ms += 7 * DAY_MS
    later = await engine.decide("ann", "web", language="cs")
    [seen] = [offer for offer in later.open_offers if offer.offer_id == "loan"]
    assert (seen.decision_id, seen.channel, seen.parameters["amount"].number) == (first.decision_id, "branch", 3000.0)
    assert seen.price_held_until_ms == START_MS + 14 * DAY_MS
    assert seen.treatment == "<b>Ann</b>, půjčte si 3\xa0000,00\xa0€", "in the channel and language of this call"
    chosen = loan_of(later)
    assert chosen.parameters["amount"].number == 3000.0, "held, although it would be 7,000 by now"
    assert chosen.begun_decision_id == first.decision_id
    assert chosen.price_held_until_ms == START_MS + 14 * DAY_MS, "shown again, not held for longer"
    engine.now_ms += 8 * DAY_MS
    after = loan_of(await engine.decide("ann", "branch"))
    assert (after.parameters["amount"].number, after.begun_decision_id) == (7000.0, "")
    assert after.price_held_until_ms == engine.now_ms + 14 * DAY_MS


async def test_an_offer_is_resumed_without_a_new_contact_or_lesson() -> None:
    engine = SmallEngine(TEXT)
    first = await begun(engine)
    statistics = await engine.statistics()
    engine.now_ms += DAY_MS
    answer = await engine.decide("ann", "web", resume=resume(first.decision_id), request_id="visit")
    [loan] = answer.offers
    assert answer.decision_id not in ("", first.decision_id)
    assert (loan.offer_id, loan.rank, loan.propensity) == ("loan", 1, 1.0)
    assert (loan.parameters["amount"].number, loan.begun_decision_id) == (3000.0, first.decision_id)
    assert [reason.code for reason in loan.reasons] == ["resumed"]
    assert loan.expires_ms == loan_of(first).expires_ms
    again = await engine.decide("ann", "web", resume=resume(first.decision_id), request_id="visit")
    assert again.repeated
    assert (again.offers[0].treatment, again.offers[0].parameters) == (loan.treatment, loan.parameters)
    assert {offer.decision_id for offer in again.open_offers} == {first.decision_id}, "it opened nothing"
    place = parse_decision_id(answer.decision_id, PARTITIONS)
    assert place is not None
    [data] = await engine.store.entries([place])
    assert data is not None
    record = DecisionRecord.unpack(data)
    assert (record.resumed, record.slate) == (True, ())
    assert missing(engine.catalogue, record).startswith("it went on with an open offer")
    # Either id names the one instance, in reports and explanations.
    told = await engine.explain(answer.decision_id)
    assert told.decision_id == first.decision_id
    assert first.offers[0].offer_id == "loan"
    assert "With amount 3000 EUR, financing 12 months. This is promised until 2025-06-29" in told.brief
    nested = await engine.decide("ann", "branch", resume=resume(answer.decision_id, ""))
    assert nested.offers[0].begun_decision_id == first.decision_id
    receipt = await engine.report(answer.decision_id, "loan", "accepted")
    assert receipt.stage == common_pb2.STAGE_ACCEPTED
    known = await engine.customer()
    assert {offer.stage for offer in known.offers if offer.offer_id == "loan"} == {common_pb2.STAGE_ACCEPTED}
    with pytest.raises(NotAllowed, match="it is ACCEPTED since"):
        await engine.decide("ann", "branch", resume=resume(first.decision_id))
    await engine.learn()
    engine.now_ms += 60 * DAY_MS
    await engine.decide("zoe")  # moves the log on
    await engine.learn()
    assert await engine.statistics() != statistics


@pytest.mark.parametrize(
    ("customer", "decision", "offer", "error", "told"),
    [
        ("ann", "", "loan", InvalidArgument, "resume.decision_id: empty"),
        ("ann", "0-1-0", "loan", NotFound, "has no decision '0-1-0'"),
        ("ann", "nonsense", "loan", NotFound, "no decision 'nonsense'"),
        ("bob", "FIRST", "loan", NotFound, "customer 'bob' has no decision"),
        ("ann", "FIRST", "moon", NotFound, "'moon', expected one of decision"),
        ("ann", "FIRST", "", NotFound, "expected one of decision"),
    ],
)
async def test_what_cannot_be_resumed_is_told(
    customer: str, decision: str, offer: str, error: type[Exception], told: str
) -> None:
    engine = SmallEngine(TEXT)
    first = await begun(engine)
    with pytest.raises(error, match=told):
        await engine.decide(customer, "web", resume=resume(decision.replace("FIRST", first.decision_id), offer))
    assert (await engine.decide("ann", "web")).decision_id, "nothing else is disturbed"


async def test_what_expired_or_is_not_made_here_cannot_be_resumed() -> None:
    engine = SmallEngine(TEXT)
    first = await begun(engine)
    if any(offer.offer_id == "helpline" for offer in first.offers):
        with pytest.raises(NotAllowed, match="helpline is not made in this place of channel web"):
            await engine.decide("ann", "web", resume=resume(first.decision_id, "helpline"))
    engine.now_ms += 31 * DAY_MS
    with pytest.raises(NotAllowed, match="it is EXPIRED since"):
        await engine.decide("ann", "web", resume=resume(first.decision_id))


def by_customer(customer: str, offer: str, stage: str, outcome: str) -> feedback_pb2.ReportRequest:
    return feedback_pb2.ReportRequest(
        customer_id=customer, offer_id=offer, stage=f"STAGE_{stage}", outcome_id=outcome  # type: ignore[arg-type]
    )


async def test_a_report_finds_the_open_instance_by_customer_and_offer() -> None:
    engine = SmallEngine(TEXT)
    await begun(engine)
    report = engine.service.feedback.report
    with pytest.raises(NotFound, match="customer 'bob' has no offer 'loan'; nothing is open"):
        await report(by_customer("bob", "loan", "ACCEPTED", "o-0"))
    both = by_customer("ann", "loan", "ACCEPTED", "o-0")
    both.decision_id = "0-1-0"
    with pytest.raises(InvalidArgument, match="customer_id: the decision_id says whose it is"):
        await report(both)
    assert (await report(by_customer("ann", "loan", "ACCEPTED", "o-1"))).stage == common_pb2.STAGE_ACCEPTED
    assert (await report(by_customer("ann", "loan", "ACCEPTED", "o-1"))).duplicate
    with pytest.raises(NotAllowed, match="it is ACCEPTED since"):
        await report(by_customer("ann", "loan", "DECLINED", "o-2"))
    assert (await report(by_customer("ann", "loan", "FULFILLED", "o-3"))).stage == common_pb2.STAGE_FULFILLED
    # Of an offer without a price that is held each answer is one of its own.
    await engine.decide("cat", "branch")
    await engine.decide("cat", "branch")
    with pytest.raises(NotAllowed, match="has 2 of 'card', name one by decision_id; open are"):
        await report(by_customer("cat", "card", "ACCEPTED", "o-4"))


async def test_an_offer_shown_twice_is_closed_once() -> None:
    engine = SmallEngine(TEXT)
    first = await begun(engine)
    engine.now_ms += DAY_MS
    second = await engine.decide("ann", "web")
    loan_of(second)
    await engine.report(second.decision_id, "loan", "accepted")
    known = await engine.customer()
    stages = {offer.decision_id: offer.stage for offer in known.offers if offer.offer_id == "loan"}
    assert stages == {
        first.decision_id: common_pb2.STAGE_WITHDRAWN, second.decision_id: common_pb2.STAGE_ACCEPTED,
    }  # fmt: skip
    with pytest.raises(NotAllowed, match="it is WITHDRAWN"):
        await engine.report(first.decision_id, "loan", "accepted")
    assert "loan" not in [offer.offer_id for offer in (await engine.decide("ann", "branch")).open_offers]


async def test_records_are_read_only_for_those_who_have_such_an_offer_open() -> None:
    clock = [START_MS]
    store = FaultyStore(PARTITIONS, lambda: clock[0])
    engine = SmallEngine(TEXT, store)
    first = await begun(engine)
    store.failing["entries"] = StoreUnavailable("away")
    assert (await engine.decide("bob", "web")).decision_id, "nothing is open: nothing is read"
    answer = await engine.decide("ann", "web")
    assert answer.degraded == decisions_pb2.DEGRADED_REASON_STATE_STORE_UNAVAILABLE
    assert [offer.offer_id for offer in answer.offers] == ["card"]
    with pytest.raises(Unavailable, match="resume: ask again with the same request_id"):
        await engine.decide("ann", "web", resume=resume(first.decision_id))
    plain = SmallEngine(CONFIG, FaultyStore(PARTITIONS, lambda: START_MS))
    assert isinstance(plain.store, FaultyStore)
    plain.store.failing["entries"] = StoreUnavailable("away")
    for _ in range(2):
        assert (await plain.decide("ann", "branch")).decision_id


async def test_a_promise_outlives_a_change_of_the_configuration() -> None:
    before = SmallEngine(TEXT)
    first = await begun(before)
    changed = TEXT.replace(b"spent_30d * 4.0", b"spent_30d * 5.0").replace(b"branch, placements", b"office, placements")
    changed = changed.replace(b"channels: [branch, web]", b"channels: [web]")
    changed = changed.replace(b"channels: [branch]", b"channels: [web]")
    after = SmallEngine(changed, before.store)
    answer = await after.decide("ann", "web")
    [seen] = [offer for offer in answer.open_offers if offer.offer_id == "loan"]
    assert (seen.channel, seen.parameters["amount"].number) == ("", 3000.0), "its configuration was not kept"
    assert loan_of(answer).parameters["amount"].number == 3000.0
    assert loan_of(answer).begun_decision_id == first.decision_id
    gone = SmallEngine(changed.replace(b"id: loan", b"id: credit"), before.store)
    with pytest.raises(NotFound, match="expected one of decision"):
        await gone.decide("ann", "web", resume=resume(first.decision_id))


async def test_what_was_begun_before_the_login_is_gone_on_with_after_it() -> None:
    text = TEXT.replace(b"events:\n", b"identities: [{kind: cookie}]\nevents:\n", 1)
    engine = SmallEngine(text)
    cookie = common_pb2.Identity(kind="cookie", value="c7")
    first = await engine.decide("", "web", identities=[cookie])
    await engine.decide("ann", "web", identities=[cookie])
    await engine.settle()
    answer = await engine.decide("ann", "branch", resume=resume(first.decision_id))
    assert answer.customer_id == "ann"
    assert answer.offers[0].parameters == loan_of(first).parameters
    receipt = await engine.service.feedback.report(by_customer("ann", "loan", "DECLINED", "o-1"))
    assert receipt.stage == common_pb2.STAGE_DECLINED
