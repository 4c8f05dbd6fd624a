"""What an answer holds: every field as the record has it, treatments that fit, reasons that are so."""

import pytest
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from opportune.v1 import decisions_pb2
from tests.small_engine import CONFIG, DAY_MS, START_MS, SmallEngine, features_of


def messages_in(message: Message) -> list[Message]:
    """A message and all below it."""
    found = [message]
    for field, value in message.ListFields():
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for below in value if isinstance(value, list) or hasattr(value, "append") else [value]:
                found += messages_in(below)
    return found


async def lived() -> SmallEngine:
    """An engine in which ann bought something and has an open offer."""
    engine = SmallEngine()
    await engine.publish("purchase", amount=150.0, category="food")
    await engine.fold()
    await engine.decide()
    engine.now_ms += 60_000
    return engine


async def test_a_repeat_after_a_change_of_configuration_has_the_texts_of_its_channel() -> None:
    """Channels change places in the file, and with them their indices: the branch still gets what is said there."""
    text = CONFIG.replace(b"language: cs}]", b"language: cs}, {text: Click, channel: web}]")
    before = SmallEngine(text)
    first = await before.decide("ann", "branch", request_id="call-1")
    channels = (b"  - {id: branch, placements: [desk]}\n", b"  - {id: web, placements: [hero, footer]}\n")
    swapped = text.replace(b"".join(channels), b"".join(reversed(channels)))
    after = SmallEngine(swapped, before.store)
    assert after.catalogue.channel_index != before.catalogue.channel_index
    again = await after.decide("ann", "branch", request_id="call-1")
    assert again.repeated
    assert [offer.treatment for offer in again.offers] == [offer.treatment for offer in first.offers]
    assert "A card for every day" in [offer.treatment for offer in again.offers]


async def test_an_answer_and_its_repeat_say_the_same() -> None:
    """The first answer is written while the decision is made, the repeat from the record: two ways to one message."""
    engine, seen = await lived(), set[str]()
    for n in range(20):
        customer = "ann" if n % 2 else f"customer-{n}"
        first = await engine.decide(customer, "branch", request_id=f"call-{n}", language="cs", context={"vip": True})
        again = await engine.decide(customer, "branch", request_id=f"call-{n}", language="cs", context={"vip": True})
        assert (first.repeated, again.repeated) == (False, True)
        for one, other in zip(first.offers, again.offers, strict=True):
            seen |= {reason.code for reason in one.reasons}
            # The record keeps it as float32.
            assert other.acceptance_probability == pytest.approx(one.acceptance_probability, rel=1e-6)
            for offer in (one, other):
                offer.ClearField("acceptance_probability")
        # The repeat also shows what the decision itself has opened since.
        opened = {(found.decision_id, found.offer_id) for found in again.open_offers}
        before = {(found.decision_id, found.offer_id) for found in first.open_offers}
        assert opened - before == {(first.decision_id, offer.offer_id) for offer in first.offers}
        for answer in (first, again):
            answer.ClearField("repeated")
            answer.ClearField("open_offers")
        assert first == again
    assert seen == {"best", "explored", "cold_start", "category"}


async def test_an_answer_is_made_of_known_fields_only() -> None:
    engine = await lived()
    answer = await engine.decide()
    parts = messages_in(answer)
    assert len(parts) > 5
    assert [type(part).__name__ for part in parts if len(UnknownFieldSet(part))] == []
    assert decisions_pb2.DecideResponse.FromString(answer.SerializeToString()) == answer


async def test_an_answer_tells_how_fresh_the_state_was() -> None:
    engine = await lived()
    answer = await engine.decide()
    assert (answer.state.known, answer.state.latest_event_ms, answer.state.age_ms) == (True, START_MS, 60_000)
    assert answer.state.watermark == f"{START_MS}-0"
    assert (answer.time_ms, answer.config_version) == (START_MS + 60_000, engine.catalogue.version)


@pytest.mark.parametrize(
    ("language", "text"), [("", "A card for every day"), ("cs", "Karta"), ("fr", "A card for every day")]
)
async def test_the_treatment_is_the_one_that_fits(language: str, text: str) -> None:
    engine = SmallEngine()
    seen: set[str] = set()
    for n in range(10):
        answer = await engine.decide(f"customer-{n}", "web", language=language)
        seen |= {offer.treatment for offer in answer.offers if offer.offer_id == "card"}
    assert seen == {text}


async def test_an_offer_says_when_it_was_explored() -> None:
    """Explored is what was put before an offer that was expected to be worth more."""
    engine = await lived()
    codes: set[str] = set()
    for n in range(50):
        answer = await engine.decide(f"customer-{n}", "branch")
        scores = [offer.score for offer in answer.offers]
        for at, offer in enumerate(answer.offers):
            code = offer.reasons[0].code
            codes.add(code)
            assert [reason.code for reason in offer.reasons[1:]] == ["cold_start", "category"]
            if any(score > scores[at] for score in scores[at + 1 :]):
                assert code == "explored"
            assert offer.score == pytest.approx(
                offer.acceptance_probability * offer.value - offer.contact_cost, rel=1e-5
            )
    assert codes == {"best", "explored"}


async def test_no_offer_begins_before_its_time_or_after_its_end() -> None:
    times = b"    starts_ms: %d\n    ends_ms: %d\n" % (START_MS, START_MS + DAY_MS)
    engine = SmallEngine(CONFIG.replace(b"    value: 40\n", b"    value: 40\n" + times))
    seen = []
    for offset_ms in (-1, 0, DAY_MS - 1, DAY_MS):
        engine.now_ms = START_MS + offset_ms
        explanation = await engine.explain((await engine.decide()).decision_id)
        [card] = [candidate for candidate in explanation.candidates if candidate.offer_id == "card"]
        seen.append(card.eligible)
    assert seen == [False, True, True, False]


async def test_what_is_known_of_a_customer() -> None:
    engine = await lived()
    decision = await engine.decide()
    await engine.report(decision.decision_id, decision.offers[0].offer_id, "presented")
    customer = await engine.customer()
    assert features_of(customer) == {
        "spent_30d": 150.0, "purchases_7d": 1.0, "complaints_90d": 0.0, "last_category": "food",
    }  # fmt: skip
    assert (customer.events, customer.duplicates, customer.late) == (1, 0, 0)
    newest = customer.offers[0]
    assert newest.decision_id == decision.decision_id
    stages = {(o.decision_id, o.offer_id): o.stage for o in customer.offers}
    assert stages[decision.decision_id, decision.offers[0].offer_id] == 2
    assert customer.bytes > 0
