"""Scripted: sale, service, retention, question and silence in one ranking, as a conversation goes on."""

from typing import Any

import grpc
import numpy as np
import pytest

from engine.catalogue import Catalogue
from engine.config import parse, version_of
from engine.decide import decide
from engine.drafts import Ask, Draft
from engine.learner import prior_policy
from engine.record import DecisionRecord
from engine.rpc import Server
from opportune.v1 import common_pb2, decisions_pb2
from tests.small_engine import START_MS, SmallEngine, value_of

SHOP = b"""
opportune: 1
name: bank
limit: 3
channels: [{id: call_centre}, {id: web}]
context:
  - {name: intent, type: text, values: [pay, borrow, leave, invest]}
  - {name: mood, type: text, values: [calm, angry], default: calm}
  - {name: arrears, type: number, range: [0, 100000], default: 0}
  - {name: vulnerable, type: flag, default: false}
  - {name: consent, type: flag, default: true}
  - {name: busy, type: flag, default: false}
  - {name: debt, type: number, range: [0, 100000], default: 0}
events:
  - type: complaint
    attributes: {status: {type: text, required: true, values: [open, closed]}}
features:
  - {name: last_complaint, event: complaint, function: last, attribute: status}
offers:
  - id: loan
    category: credit
    value: 100
    contact_cost: 1
    levers: [{when: 'intent == "borrow"', factor: 4, name: wants to borrow}]
    risk: {company: 10, rules: [{when: debt > 5000.0, customer: 20, company: 80, name: deep in debt}]}
    treatments: [{text: Borrow for less}]
  - id: card
    category: cards
    value: 80
    contact_cost: 1
    treatments: [{text: A card for every day}]
  - id: fund
    category: savings
    value: 60
    contact_cost: 1
    levers: [{when: 'intent == "invest"', factor: 20, name: wants to invest}]
    treatments: [{text: Let it grow}]
  - id: stay
    kind: retention
    category: care
    value: 80
    contact_cost: 1
    eligibility: ['intent != "borrow"']
    treatments: [{text: Stay with us for less}]
  - id: help
    kind: service
    category: care
    value: 35
    contact_cost: 1
    levers: [{when: 'last_complaint == "open"', factor: 10, name: owes an answer}]
    treatments: [{text: We look into it at once}]
  - id: ask
    kind: question
    category: care
    value: 0
    contact_cost: 2
    asks: {fact: intent, answers: {pay: 0.2, borrow: 0.3, leave: 0.1, invest: 0.3}}
    treatments: [{text: What brings you here today?}]
  - id: thanks
    kind: silence
    category: care
    value: 0.1
    context_weights: [{when: busy, factor: 1000, name: no time}]
    treatments: [{text: 'Leave it, thank them'}]
guard:
  - {name: open complaint, when: 'last_complaint == "open"'}
  - {name: arrears, when: arrears > 0.0}
  - {name: vulnerable, when: vulnerable}
  - {name: no consent, when: '!consent', keeps: {kinds: [sale, retention]}}
exploration: {method: greedy}
learning: {prior_rate: 0.1}
"""


def compiled(text: bytes = SHOP) -> Catalogue:
    return Catalogue.compile(parse(text), version_of(text), text)


def changed(*changes: tuple[str, str], text: bytes = SHOP) -> Catalogue:
    for old, new in changes:
        assert old.encode() in text
        text = text.replace(old.encode(), new.encode(), 1)
    return compiled(text)


def decided(catalogue: Catalogue, *, limit: int = 1, state: bytes | None = None, **context: Any) -> Draft:
    facts = []
    for name, value in context.items():
        fact = catalogue.facts[name]
        number = float(fact.values.index(value)) if isinstance(value, str) else float(value)
        facts.append((catalogue.fact_columns[name], number))
    ask = Ask("ann", 0, 0, tuple(facts), b"{}", limit, START_MS, "en", "", 0)
    [draft] = decide(catalogue, prior_policy(catalogue), [ask], [(state, None)])
    assert isinstance(draft, Draft)
    return draft


def ranking(catalogue: Catalogue, *, limit: int = 7, **context: Any) -> list[str]:
    return [catalogue.offer_ids[pick.offer] for pick in decided(catalogue, limit=limit, **context).picks]


def first(catalogue: Catalogue, **context: Any) -> str:
    return (ranking(catalogue, limit=1, **context) or ["nothing"])[0]


NO_QUESTION = ("contact_cost: 2\n    asks", "contact_cost: 50\n    asks")


def test_all_kinds_compete_in_one_ranking_by_what_they_are_worth() -> None:
    catalogue = changed(NO_QUESTION)
    draft = decided(catalogue, limit=7, intent="pay")
    worth = {catalogue.offer_ids[pick.offer]: pick.score for pick in draft.picks}
    assert list(worth) == ["stay", "loan", "card", "fund", "help"]
    # P × (C × V × L − risk) − contact cost, with P the prior.
    expected = {"stay": 0.1 * 80 * 1.5 - 1, "loan": 0.1 * 90 - 1, "card": 7, "fund": 5, "help": 2.5}
    assert worth == pytest.approx(expected, rel=1e-5)


def test_what_the_customer_says_changes_the_ranking_at_once() -> None:
    catalogue = changed(NO_QUESTION)
    assert [first(catalogue, intent=intent) for intent in ("pay", "borrow", "invest")] == ["stay", "loan", "fund"]


def test_retention_is_worth_more_than_acquisition_by_default() -> None:
    """The loan brings more than the card, the offer to stay as much as the card: it goes first, unless declared."""
    assert first(changed(NO_QUESTION), intent="pay") == "stay"
    declared = changed(NO_QUESTION, ("guard:", "weights: {kinds: {retention: 1}}\nguard:"))
    assert ranking(declared, intent="pay")[:3] == ["loan", "card", "stay"]


@pytest.mark.parametrize("hardship", [{"arrears": 12.5}, {"vulnerable": True}])
def test_hardship_beats_a_sale(hardship: dict[str, Any]) -> None:
    catalogue = changed(NO_QUESTION, ("eligibility: ['intent != \"borrow\"']", "eligibility: ['busy']"))
    assert first(catalogue, intent="borrow") == "loan"
    assert ranking(catalogue, intent="borrow", **hardship) == ["help"]


@pytest.mark.parametrize("method", ["greedy", "thompson, floor: 0.5, strength: 100", "epsilon_greedy, epsilon: 1"])
def test_nothing_gets_past_the_guard(method: str) -> None:
    """Not the largest lever, weight and value, not exploration, not a bundle."""
    catalogue = changed(
        ("method: greedy", f"method: {method}"),
        ("    value: 100\n", "    value: 1000000000000\n    lever: 1000000\n"),
        ("factor: 4,", "factor: 1000000,"),
        ("guard:", "weights: {rules: [{when: 'true', factor: 1000000}]}\nguard:"),
        ("  - id: help", "  - id: both\n    kind: service\n    category: credit\n    value: 900000\n"
         "    bundle: {with: [loan, help]}\n    treatments: [{text: Both}]\n  - id: help"),
    )  # fmt: skip
    for seed in range(40):
        free, guarded = [], []
        for arrears, shown in ((0.0, free), (1.0, guarded)):
            ask = Ask(
                f"person-{seed}", 0, 0, ((catalogue.fact_columns["arrears"], arrears),), b"", 7, START_MS, "en", "", 0
            )
            [draft] = decide(catalogue, prior_policy(catalogue), [ask], [(None, None)])
            assert isinstance(draft, Draft)
            shown += [catalogue.offer_ids[pick.offer] for pick in draft.picks]
            record = DecisionRecord.unpack(draft.record)
            assert record.basis is not None
            names = [catalogue.holds.names[hold.limit] for hold in record.basis.holds]
            assert names == (["guard: arrears"] if arrears else [])
        assert not {"loan", "card", "fund", "both"} & set(guarded)
    if method == "greedy":
        assert free[0] == "loan"


def test_what_is_not_known_protects() -> None:
    unknown = ("{name: arrears, type: number, range: [0, 100000], default: 0}", "{name: arrears, type: number}")
    assert "loan" not in ranking(changed(unknown), intent="borrow")
    lets = ("{name: arrears, when: arrears > 0.0}", "{name: arrears, when: arrears > 0.0, unknown: lets}")
    assert "loan" in ranking(changed(unknown, lets), intent="borrow")
    assert "loan" in ranking(changed(unknown), intent="borrow", arrears=0.0)
    # Nor is a state that cannot be read a reason to sell.
    assert "loan" not in [
        compiled().offer_ids[pick.offer] for pick in decided(compiled(), state=b"\xff" * 90, intent="borrow").picks
    ]
    assert compiled().guard.of_unread().tolist() == [True, True, True, True, False, False, False]


def test_a_guard_says_what_it_keeps_and_what_it_lets_through() -> None:
    catalogue = changed(NO_QUESTION)
    assert ranking(catalogue, intent="pay", consent=False) == ["help"]
    lets = changed(NO_QUESTION, ("[sale, retention]}", "[sale, retention]}, lets: {categories: [savings]}"))
    assert ranking(lets, intent="pay", consent=False) == ["fund", "help"]


def test_silence_wins_where_nothing_is_worth_its_contact() -> None:
    dear = compiled(SHOP.replace(b"contact_cost: 1\n", b"contact_cost: 40\n").replace(b"cost: 2", b"cost: 40"))
    draft = decided(dear, intent="pay")
    assert [dear.offer_ids[pick.offer] for pick in draft.picks] == ["thanks"], "worth 0.1, more than nothing at all"
    assert draft.picks[0].score == pytest.approx(0.1) and draft.picks[0].window_end_ms == 0
    plain = compiled(SHOP.replace(b"contact_cost: 1\n", b"contact_cost: 40\n").replace(b"value: 0.1", b"value: -0.1"))
    nothing = decided(plain, intent="pay")
    assert nothing.picks == [] and nothing.batch.places.nothing.tolist() == [1.0]


def test_silence_with_a_text_is_a_contact_of_nobody() -> None:
    catalogue = compiled()
    draft = decided(catalogue, limit=5, intent="pay", busy=True)
    assert [catalogue.offer_ids[pick.offer] for pick in draft.picks] == ["thanks"], "nothing beside it"
    assert draft.picks[0].score == pytest.approx(100.0, rel=1e-6)
    quiet = decided(changed(("value: 0.1", "value: -1")), limit=5, intent="pay", busy=True)
    assert "thanks" not in [catalogue.offer_ids[pick.offer] for pick in quiet.picks]
    # The ledger opened nothing.
    assert draft.ledger_tail[:-1] != quiet.ledger_tail[:-1] and len(draft.ledger_tail) < len(quiet.ledger_tail)


def test_a_question_wins_when_its_answer_is_worth_it_and_not_after_it_is_answered() -> None:
    catalogue = compiled()
    draft = decided(catalogue)
    assert catalogue.offer_ids[draft.picks[0].offer] == "ask"
    # Not known: stay is best (11). Who borrows gets the loan (0.1 × (400 − 10) − 1 = 38) where stay may not be made;
    # who invests the fund (0.1 × 1200 − 1 = 119) instead of stay; for the others nothing changes.
    assert draft.picks[0].score == pytest.approx(0.3 * 38 + 0.3 * (119 - 11) - 2, rel=1e-4)
    record = DecisionRecord.unpack(draft.record)
    assert record.basis is not None and [offer for offer, _ in record.basis.values] == [5]
    for intent, best in (("borrow", "loan"), ("invest", "fund"), ("pay", "stay"), ("leave", "stay")):
        assert "ask" not in ranking(catalogue, intent=intent)
        assert first(catalogue, intent=intent) == best
    assert first(changed(("contact_cost: 2\n    asks", "contact_cost: 60\n    asks"))) == "stay"
    idle = changed(("factor: 4,", "factor: 1,"), ("factor: 20,", "factor: 1,"), ("['intent != \"borrow\"']", "[]"))
    assert first(idle) == "stay", "an answer that changes nothing is worth nothing"


def test_a_question_takes_the_guard_into_account() -> None:
    """Who may not be sold to is not asked what he would buy."""
    assert first(compiled(), vulnerable=True) == "stay"
    assert first(compiled(), consent=False) == "help"


def test_risk_by_rule_lowers_what_an_acceptance_is_worth_on_both_sides() -> None:
    catalogue = changed(NO_QUESTION)
    gains = [
        DecisionRecord.unpack(decided(catalogue, limit=7, intent="borrow", debt=debt).record) for debt in (0.0, 9000.0)
    ]
    scores = [{catalogue.offer_name(choice.key): choice.score for choice in record.slate} for record in gains]
    assert scores[0]["loan"] == pytest.approx(0.1 * (400 - 10) - 1, rel=1e-5)
    assert scores[1]["loan"] == pytest.approx(0.1 * (400 - 110) - 1, rel=1e-5)
    # A risk that may be there is there.
    known = "{name: debt, type: number, range: [0, 100000], default: 0}"
    unknown = decided(changed(NO_QUESTION, (known, "{name: debt, type: number}")), intent="borrow")
    assert unknown.picks[0].score == pytest.approx(0.1 * (400 - 110) - 1, rel=1e-5)


def test_few_of_a_kind_and_no_bundle_beside_its_parts() -> None:
    bundle = ("  - id: help", "  - id: both\n    category: cards\n    value: 150\n    contact_cost: 1\n"
              "    bundle: {with: [card, fund]}\n    treatments: [{text: Both}]\n  - id: help")  # fmt: skip
    plain = changed(NO_QUESTION, bundle)
    assert ranking(plain, intent="pay") == ["both", "stay", "loan", "help"]
    shaped = changed(NO_QUESTION, bundle, ("guard:", "slate: {most_per: {category: 1, kind: 2}}\nguard:"))
    assert ranking(shaped, intent="pay") == ["both", "stay", "loan"]
    # A part that may not be made takes the bundle with it, by whichever rule, channel or guard.
    gone = changed(NO_QUESTION, bundle, ("    category: savings\n", "    category: savings\n    eligibility: [busy]\n"))
    assert ranking(gone, intent="pay") == ["stay", "loan", "card", "help"]
    on_web = ("    category: savings\n", "    category: savings\n    channels: [web]\n")
    elsewhere = changed(NO_QUESTION, bundle, on_web)
    assert "both" not in ranking(elsewhere, intent="pay")


def test_the_product_of_all_weights_is_bounded() -> None:
    most = changed(
        ("    value: 100\n", "    value: 100\n    lever: 1000000\n"), ("factor: 4,", "factor: 1000000,")
    )
    record = DecisionRecord.unpack(decided(most, intent="borrow").record)
    assert record.slate[0].score == pytest.approx(0.1 * (100 * 1e6 - 10), rel=1e-4)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("factor: 4,", "factor: 1e308,", "less than or equal to 1000000"),
        ("factor: 4,", "factor: .inf,", "expected"),
        ("factor: 4,", "factor: -1,", "greater than or equal to 0"),
        ("    value: 100\n", "    value: 100\n    lever: 1e308\n", "less than or equal to 1000000"),
        ("guard:", "weights: {kinds: {sale: 1000000}}\nguard:", None),
        ("    value: 100\n", "    value: 100\n    lever: 1000\n    context_weight: {web: 1001}\n", "1.001e+06 times"),
        ("company: 10", "company: -1", "greater than or equal to 0"),
        ("arrears > 0.0}", "arrears > 0}", None),
        ("arrears > 0.0}", "arears > 0.0}", "no feature or fact is called 'arears'"),
        ("factor: 4, name: wants", "factr: 4, name: wants", "factr"),
        ("invest: 0.3}", "invest: 0.7}", "shares of at most 1"),
        ("invest: 0.3}", "sing: 0.3}", "'sing' is no value of intent"),
        ("asks: {fact: intent,", "asks: {fact: intents,", "no fact 'intents'"),
        ("    value: 0.1\n", "    value: 0.1\n    window: 3d\n", "nothing comes of silence"),
        ("kind: question", "kind: service", "asks nothing: expected kind: question"),
        ("name: arrears, when", "name: vulnerable, when", "guard 'vulnerable' is already there"),
        ("[sale, retention]}", "[sale], categories: [boats]}", "no offer is of category 'boats'"),
        ("{name: vulnerable, when: vulnerable}", "{name: v, when: vulnerable, keeps: {}}", "keeps no offer"),
        ("    value: 80\n", "    value: 80\n    bundle: {with: [card, moon]}\n", "no offer 'moon'"),
        ("    value: 80\n", "    value: 80\n    bundle: {with: [loan]}\n", "at least 2"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_where_it_is(old: str, new: str, told: str | None) -> None:
    if told is None:
        changed((old, new))
        return
    with pytest.raises(Exception, match=r"\d+: ") as error:
        changed((old, new))
    assert told in str(error.value)


async def test_over_grpc_a_conversation_from_complaint_to_sale() -> None:
    engine = SmallEngine(SHOP)
    server = Server(engine.service, "grpcio")
    port = await server.start("127.0.0.1:0")
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary(
                "/opportune.v1.Decisions/Decide",
                request_serializer=decisions_pb2.DecideRequest.SerializeToString,
                response_deserializer=decisions_pb2.DecideResponse.FromString,
            )

            async def ask(**context: Any) -> decisions_pb2.DecideResponse:
                given = {name: value_of(value) for name, value in context.items()}
                request = decisions_pb2.DecideRequest(
                    customer_id="ann", channel="call_centre", context=given, limit=1
                )
                return await call(request, timeout=10.0)

            await engine.publish("complaint", status="open")
            await engine.fold()
            complained = await ask(intent="borrow")
            assert [offer.offer_id for offer in complained.offers] == ["help"]
            explained = await engine.explain(complained.decision_id)
            of = {candidate.offer_id: candidate for candidate in explained.candidates}
            assert of["loan"].eligible and of["loan"].held_by == ["guard: open complaint"]
            assert "kept back: guard: open complaint" in of["loan"].text
            factors = {one.name: one.amount for one in of["loan"].factors.factors}
            assert factors == {"wants to borrow": 4.0, "risk": 10.0}
            assert of["loan"].factors.weight == 4.0 and of["help"].factors.weight == 10.0
            for candidate in explained.candidates:
                told = candidate.factors
                risk = told.risk_customer + told.risk_company
                worth = told.estimate * (told.value * told.weight - risk) + told.information - told.contact_cost
                assert told.worth == pytest.approx(worth, abs=1e-9)
            await engine.publish("complaint", status="closed")
            await engine.fold()
            question = await ask()
            assert [offer.kind for offer in question.offers] == [common_pb2.OFFER_KIND_QUESTION]
            asked = (await engine.explain(question.decision_id)).candidates[0]
            assert asked.factors.information == pytest.approx(0.3 * 38 + 0.3 * 108, rel=1e-4)
            assert asked.score == pytest.approx(asked.factors.information - 2, rel=1e-5)
            assert "Knowing the answer is worth 43.80." in asked.text
            assert question.offers[0].asks.fact == "intent"
            assert list(question.offers[0].asks.answers) == ["pay", "borrow", "leave", "invest"]
            answered = await ask(intent="borrow", debt=0.0)
            assert [offer.offer_id for offer in answered.offers] == ["loan"]
            text = (await engine.explain(answered.decision_id)).candidates[0].text
            assert "Weighed: wants to borrow × 4, risk of the company 10.00 (risk)." in text
            busy = await ask(busy=True, intent="pay")
            assert [offer.treatment for offer in busy.offers] == ["Leave it, thank them"]
            assert busy.offers[0].kind == common_pb2.OFFER_KIND_SILENCE and busy.offers[0].expires_ms == 0
            told = (await engine.explain(busy.decision_id)).candidates[0].factors
            assert told.worth == pytest.approx(100.0, rel=1e-5)
    finally:
        await server.stop(1.0)
    # Of silence nothing is learnt, of the others that nobody answered them.
    engine.now_ms += 8 * 86_400_000
    await engine.decide("ann", "web")
    await engine.learn()
    lessons = dict(zip(engine.catalogue.offer_ids, engine.service.decider.policy.lessons.tolist(), strict=True))
    assert lessons["thanks"] == 0.0 and lessons["loan"] > 0.0 and lessons["ask"] > 0.0
    assert np.isfinite(list(lessons.values())).all()
