"""The timeline: one list of what happened with a customer, whatever the channel, and what decisions make of it."""

import pytest

from opportune.v1 import common_pb2, customers_pb2
from tests.small_engine import DAY_MS, SmallEngine, features_of

HOUR_MS = 3_600_000

CONFIG = b"""
opportune: 1
name: bank
silence: false
channels: [{id: branch}, {id: web}, {id: call_centre}]
events:
  - type: visit                     # not on the timeline: there are too many
    attributes: {page: {type: text}}
  - type: call
    attributes: {topic: {type: text}}
    timeline: {kind: contact, channel: call_centre, text: "called about {topic}"}
  - type: complaint
    attributes:
      case: {type: text}
      topic: {type: text}
      channel: {type: text}
      state: {type: text, values: [open, closed]}
    timeline: {kind: complaint, channel: "{channel}", text: "complains about {topic}", case: case, same: [topic],
               within: 7d, closes: {state: closed}}
  - type: note
    attributes: {author: {type: text}, words: {type: text}}
    timeline: {kind: note, author: author, text: "{words}"}
  - type: card.used
    attributes: {amount: {type: number}}
    timeline: true
  - type: survey
    attributes: {score: {type: number}}
    timeline: {kind: satisfaction, channel: web, text: "gives us {score} of 10"}
  - type: stage
    attributes: {to: {type: text, values: [lead, qualified, customer]}}
    timeline: {text: "is now {to}"}
features:
  - {name: complaint_state, event: complaint, function: last, attribute: state}
  - {name: queue_age, event: complaint, function: recency, where: {state: open}, unit: seconds}
  - {name: stage, event: stage, function: last, attribute: to}
  - {name: used_30d, event: card.used, function: count, window: 30d}
  - {name: score, event: survey, function: last, attribute: score, default: 5}
segments:
  - {name: upset, when: 'complaint_state == "open" || score < 3.0'}
  - {name: active_customer, when: 'stage == "customer" && used_30d > 0.0'}
offers:
  - id: loan
    value: 100
    eligibility: ['complaint_state != "open"', 'stage == "customer"']
    treatments: [{text: Borrow for less}]
  - id: first_account
    value: 50
    eligibility: ['complaint_state != "open"', 'stage == "qualified"']
    treatments: [{text: Open your account today}]
  - id: call_back
    kind: service
    value: 20
    eligibility: ['complaint_state == "open"', 'queue_age > 172800.0']
    treatments: [{text: A manager calls you}]
"""


@pytest.fixture
def bank() -> SmallEngine:
    return SmallEngine(CONFIG)


async def told(bank: SmallEngine, **request) -> list[tuple[str, str]]:
    """(channel, text) of the timeline, newest first."""
    await bank.fold()
    customer = await bank.service.customers.get(customers_pb2.GetCustomerRequest(customer_id="ann", **request))
    return [(entry.channel, entry.text) for entry in customer.timeline]


async def offered(bank: SmallEngine) -> list[str]:
    return [offer.offer_id for offer in (await bank.decide(channel="branch")).offers]


async def test_every_channel_stands_in_one_list(bank: SmallEngine) -> None:
    """Contacts, complaints, notes, use of products, satisfaction, and what was offered and answered: newest first."""
    await bank.publish("stage", to="customer")
    await bank.publish("visit", page="/rates")
    bank.now_ms += 1
    await bank.publish("call", topic="a lost card")
    bank.now_ms += 1
    await bank.publish("card.used", amount=12.5)
    bank.now_ms += 1
    await bank.publish("note", author="Eve", words="prefers mornings")
    bank.now_ms += 1
    await bank.publish("survey", score=9.0)
    await bank.fold()
    bank.now_ms += 1
    answer = await bank.decide(channel="branch")
    bank.now_ms += 1
    await bank.report(answer.decision_id, "loan", "accepted")
    assert await told(bank) == [
        ("branch", "loan: accepted"),
        ("branch", "offered loan"),
        ("web", "gives us 9 of 10"),
        ("", "prefers mornings"),
        ("", "card.used: amount 12.5"),
        ("call_centre", "called about a lost card"),
        ("", "is now customer"),
    ]


async def test_an_offer_that_nobody_answered_expires_on_the_timeline(bank: SmallEngine) -> None:
    await bank.publish("stage", to="customer")
    await bank.fold()
    await bank.decide(channel="web")
    bank.now_ms += 8 * DAY_MS
    assert (await told(bank))[:2] == [("web", "loan: expired"), ("web", "offered loan")]


async def test_what_happened_decides_the_order_and_not_what_arrived(bank: SmallEngine) -> None:
    """The call of yesterday is told today, after the survey of today; it stands where it belongs."""
    await bank.publish("survey", score=2.0)
    bank.now_ms -= DAY_MS
    await bank.publish("call", topic="fees")
    bank.now_ms += DAY_MS
    assert [text for _, text in await told(bank)] == ["gives us 2 of 10", "called about fees"]


async def test_an_event_stands_there_once_however_often_it_is_delivered(bank: SmallEngine) -> None:
    for _ in range(3):
        await bank.publish("call", event_id="call-1", topic="fees")
    assert len(await told(bank)) == 1


async def test_pages_go_on_where_they_stopped_whatever_happens_meanwhile(bank: SmallEngine) -> None:
    """A page token is a place in the list: what comes in on top does not push an entry onto the next page again."""
    for number in range(5):
        bank.now_ms += 1
        await bank.publish("note", author="Eve", words=f"note {number}")
    await bank.fold()
    ask = customers_pb2.GetCustomerRequest(customer_id="ann", page_size=2)
    seen = []
    while True:
        page = await bank.service.customers.get(ask)
        seen += [entry.text for entry in page.timeline]
        bank.now_ms += 1
        await bank.publish("note", author="Eve", words="meanwhile")
        await bank.fold()
        if not page.next_page_token:
            break
        ask.page_token = page.next_page_token
    assert seen == ["note 4", "note 3", "note 2", "note 1", "note 0"]


async def test_a_part_of_it_can_be_asked_for(bank: SmallEngine) -> None:
    await bank.publish("call", topic="fees")
    await bank.publish("survey", score=9.0)
    await bank.publish("note", words="calm")
    assert await told(bank, kinds=["TIMELINE_KIND_NOTE"]) == [("", "calm")]
    assert await told(bank, channels=["web"]) == [("web", "gives us 9 of 10")]
    assert await told(bank, until_ms=bank.now_ms) == []


async def complain(bank: SmallEngine, channel: str, topic: str, case: str = "", state: str = "open") -> None:
    given = {"case": case} if case else {}
    await bank.publish("complaint", channel=channel, topic=topic, state=state, **given)
    await bank.fold()


async def test_a_complaint_that_comes_again_is_the_same_case(bank: SmallEngine) -> None:
    """Fees, in the branch and two days later on the web: one case. The card is another one."""
    await complain(bank, "branch", "fees")
    bank.now_ms += 2 * DAY_MS
    await complain(bank, "web", "fees", case="C-17")
    await complain(bank, "web", "card")
    customer = await bank.customer()
    assert [(case.text, case.complaints, list(case.channels), case.open) for case in customer.cases] == [
        ("complains about fees", 2, ["branch", "web"], True),
        ("complains about card", 1, ["web"], True),
    ]
    fees = customer.cases[0]
    assert (fees.case_id, fees.age_ms, fees.last_ms - fees.first_ms) == ("C-17", 2 * DAY_MS, 2 * DAY_MS)
    assert [(entry.case_id, entry.duplicate) for entry in customer.timeline if entry.text == fees.text] == [
        ("C-17", True), ("C-17", False),
    ]  # fmt: skip


async def test_after_the_period_it_is_a_new_case_unless_it_has_the_same_id(bank: SmallEngine) -> None:
    await complain(bank, "branch", "fees", case="C-17")
    bank.now_ms += 8 * DAY_MS
    await complain(bank, "branch", "fees")
    await complain(bank, "web", "fees again", case="C-17")
    assert sorted(case.complaints for case in (await bank.customer()).cases) == [1, 2]


async def test_a_case_is_closed_and_may_be_opened_again(bank: SmallEngine) -> None:
    await complain(bank, "branch", "fees", case="C-17")
    bank.now_ms += HOUR_MS
    await complain(bank, "branch", "fees", case="C-17", state="closed")
    [case] = (await bank.customer()).cases
    assert (case.open, case.complaints, case.age_ms, case.closed_ms) == (False, 1, HOUR_MS, bank.now_ms)
    bank.now_ms += DAY_MS
    await complain(bank, "web", "fees")
    bank.now_ms += HOUR_MS
    [case] = (await bank.customer()).cases
    assert (case.open, case.complaints, case.age_ms, case.closed_ms) == (True, 2, HOUR_MS, 0)


async def test_an_open_complaint_blocks_the_sale_and_its_age_escalates_it(bank: SmallEngine) -> None:
    """The story of a complaint, as decisions see it: features over its events are all that the rules need."""
    await bank.publish("stage", to="customer")
    await bank.fold()
    assert await offered(bank) == ["loan"]
    await complain(bank, "call_centre", "fees", case="C-17")
    assert await offered(bank) == [], "nobody is sold a loan while he waits for an answer"
    explained = await bank.explain((await bank.decide(channel="web")).decision_id)
    [loan] = [candidate for candidate in explained.candidates if candidate.offer_id == "loan"]
    assert list(loan.unmet_rules) == ['complaint_state != "open"']
    bank.now_ms += 3 * DAY_MS
    customer = await bank.customer()
    assert features_of(customer)["queue_age"] == 3 * DAY_MS / 1_000
    assert customer.cases[0].age_ms == 3 * DAY_MS
    assert await offered(bank) == ["call_back"], "escalated by rule: it has waited for more than two days"
    await complain(bank, "call_centre", "fees", case="C-17", state="closed")
    assert await offered(bank) == ["loan"]


async def test_stages_of_the_life_cycle_are_state(bank: SmallEngine) -> None:
    """From lead to customer: the stage is a feature, what is offered follows it, and the timeline tells the way."""
    seen = []
    for stage in ("lead", "qualified", "customer"):
        bank.now_ms += DAY_MS
        await bank.publish("stage", to=stage)
        await bank.fold()
        customer = await bank.customer()
        assert {found.name: found.value.text for found in customer.profile}["stage"] == stage
        seen.append(await offered(bank))
    assert seen == [[], ["first_account"], ["loan"]]
    assert await told(bank, kinds=["TIMELINE_KIND_USE"]) == [
        ("", "is now customer"), ("", "is now qualified"), ("", "is now lead"),
    ]  # fmt: skip


async def test_segments_are_rules_with_a_name(bank: SmallEngine) -> None:
    assert list((await bank.customer()).segments) == []
    await bank.publish("stage", to="customer")
    await bank.publish("card.used", amount=3.0)
    await bank.fold()
    assert list((await bank.customer()).segments) == ["active_customer"]
    await complain(bank, "branch", "fees")
    assert list((await bank.customer()).segments) == ["upset", "active_customer"]


async def test_what_is_known_is_told_apart_from_what_is_assumed(bank: SmallEngine) -> None:
    """A value that nobody told is a default and says so; every value says how old the state behind it is."""
    await bank.publish("card.used", amount=3.0)
    await bank.fold()
    bank.now_ms += HOUR_MS
    customer = await bank.customer()
    features = {feature.name: feature for feature in customer.features}
    assert (features["score"].value, features["score"].defaulted) == (common_pb2.Value(number=5.0), True)
    assert (features["used_30d"].value, features["used_30d"].defaulted) == (common_pb2.Value(number=1.0), False)
    assert {feature.age_ms for feature in customer.features} == {HOUR_MS}
    assert [feature.name for feature in customer.profile] == ["complaint_state", "stage", "score"]
