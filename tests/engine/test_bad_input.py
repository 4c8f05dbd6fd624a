"""Whatever a caller sends: the refusal has the right status, names the field, says what was expected, harms nobody."""

import itertools
import math

import pytest
from bad_requests import AMOUNT, BAD, BAD_EVENTS, DECIDE, EXPLAIN, GET, PUBLISH, REPORT, Bad, Made, Value, event
from doors import Door

from opportune.v1 import customers_pb2, decisions_pb2, events_pb2, feedback_pb2
from tests.small_engine import START_MS, value_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
numbers = itertools.count()


async def good(door: Door, customer: str, **fields) -> decisions_pb2.DecideResponse:
    """A good request, which must be answered with a full decision."""
    request = decisions_pb2.DecideRequest(customer_id=customer, channel="branch", **fields)
    status, message, answer = await door.call(DECIDE, request)
    assert (status, message) == ("OK", "")
    assert answer.decision_id
    assert not answer.degraded
    return answer


async def prepared(door: Door) -> Made:
    """A decision for a new customer with the card, which was declined, and the helpline."""
    while True:
        answer = await good(door, f"customer-{next(numbers)}")
        if {"card", "helpline"} <= {offer.offer_id for offer in answer.offers}:
            break
    declined = feedback_pb2.ReportRequest(
        outcome_id="no", decision_id=answer.decision_id, offer_id="card", stage="STAGE_DECLINED"
    )
    status, message, _ = await door.call(REPORT, declined)
    assert (status, message) == ("OK", "")
    return Made(answer.decision_id)


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
async def test_a_bad_request_is_refused_with_what_was_expected(door: Door, bad: Bad) -> None:
    status, message, answer = await door.call(bad.method, bad.make(await prepared(door)))
    assert (status, answer) == (bad.status, None)
    assert [word for word in bad.told if word not in message] == [], message
    assert len(message) < 400, "a message for people, not an echo"
    await good(door, "ann")


@pytest.mark.parametrize(("name", "fields", "told"), BAD_EVENTS, ids=[name for name, _, _ in BAD_EVENTS])
async def test_a_bad_event_is_refused_alone(door: Door, name: str, fields: dict, told: tuple[str, ...]) -> None:
    """The events beside it are kept, and the bad one is kept too: as a dead letter with its reason."""
    number = next(numbers)
    events = [event({"id": f"a{number}"}), event(fields), event({"id": f"b{number}"})]
    dead = len(door.engine.store.dead)
    status, message, answer = await door.call(PUBLISH, events_pb2.PublishRequest(events=events))
    assert (status, message) == ("OK", "")
    assert (answer.accepted, len(answer.positions), len(answer.rejected)) == (2, 2, 1)
    [rejected] = answer.rejected
    assert (rejected.index, rejected.id) == (1, events[1].id[:64])
    assert [word for word in told if word not in rejected.reason] == [], rejected.reason
    [(payload, reason)] = door.engine.store.dead[dead:]
    assert (events_pb2.Event.FromString(payload), reason) == (events[1], rejected.reason)
    await good(door, "ann")


async def test_attributes_that_are_not_declared_are_dropped_whatever_they_are(door: Door) -> None:
    """None of them is looked at, however many they are."""
    odd = {"items": Value(), "share": value_of(math.nan), "note": value_of("x" * 257)}
    many = {f"a{n}": value_of(1.0) for n in range(65)}
    events = [event({"id": f"g{next(numbers)}", "attributes": AMOUNT | more}) for more in (odd, many)]
    status, _, answer = await door.call(PUBLISH, events_pb2.PublishRequest(events=events))
    assert (status, answer.accepted, len(answer.rejected)) == ("OK", 2, 0)


async def test_an_unknown_customer_is_served_from_defaults(door: Door) -> None:
    answers = [await good(door, f"stranger-{next(numbers)}") for _ in range(10)]
    assert not any(answer.state.known for answer in answers)
    assert any(answer.offers for answer in answers)  # now and then silence is drawn
    request = customers_pb2.GetCustomerRequest(customer_id=f"stranger-{next(numbers)}")
    status, _, customer = await door.call(GET, request)
    assert (status, customer.state.known, customer.events) == ("OK", False, 0)
    assert [feature.name for feature in customer.features] == [
        "spent_30d", "purchases_7d", "complaints_90d", "last_category",
    ]  # fmt: skip


async def test_the_longest_good_request_is_served(door: Door) -> None:
    answer = await good(
        door,
        "c" * 64,
        request_id="r" * 64,
        placement="desk",
        limit=30,
        language="e" * 16,
        purposes=["p"] * 16,
        time_ms=START_MS + 300_000,
        context={"intent": value_of("x" * 256), "minutes": value_of(600.0), "vip": value_of(False)},
    )
    assert answer.time_ms == START_MS + 300_000


@pytest.mark.parametrize("customer", ["é" * 32, "客户", "a b", "o'brien; DROP TABLE", "{p0}l:a", "../etc", "%00"])
async def test_unusual_names_are_names_like_any_other(door: Door, customer: str) -> None:
    answer = await good(door, customer)
    assert answer.customer_id == customer
    status, _, found = await door.call(GET, customers_pb2.GetCustomerRequest(customer_id=customer))
    assert (status, found.customer_id) == ("OK", customer)
    request = decisions_pb2.ExplainRequest(decision_id=answer.decision_id)
    status, _, explanation = await door.call(EXPLAIN, request)
    assert (status, explanation.customer_id) == ("OK", customer)


async def test_an_outcome_of_a_decision_that_is_too_old_is_refused(door: Door) -> None:
    """Half a year after its window; the refusal says when it closed. Time is put back: others use the engine too."""
    made = await prepared(door)
    door.engine.now_ms += 190 * 86_400_000
    try:
        request = feedback_pb2.ReportRequest(
            outcome_id="late", decision_id=made.decision_id, offer_id="helpline", stage="STAGE_ACCEPTED"
        )
        status, message, _ = await door.call(REPORT, request)
    finally:
        door.engine.now_ms = START_MS
    assert status == "FAILED_PRECONDITION"
    assert f"its window closed at {START_MS + 7 * 86_400_000}" in message
    await good(door, "ann")


async def test_an_outcome_is_no_decision(door: Door) -> None:
    """The position of an outcome in the log looks like a decision id, and names none."""
    made = await prepared(door)
    request = feedback_pb2.ReportRequest(
        outcome_id="seen", decision_id=made.decision_id, offer_id="helpline", stage="STAGE_PRESENTED"
    )
    _, _, receipt = await door.call(REPORT, request)
    request.decision_id = receipt.position
    status, message, _ = await door.call(REPORT, request)
    assert (status, f"no decision '{receipt.position}'" in message) == ("NOT_FOUND", True)
