"""Identity at the edge: what is wrong is refused with what was expected, what belongs together is asked for."""

from typing import Any

import orjson
import pytest
from faulty_store import FaultyStore

from engine.cloudevents import events_in
from engine.errors import InvalidArgument, NotAllowed, Unavailable
from engine.limits import CUSTOMER_IDENTITIES_MAX, LINK_HOPS_MAX
from engine.linking import identities_of
from engine.links import moved
from engine.store import FeatureWrite, StoreUnavailable, partition_of
from features import Offset
from opportune.v1 import common_pb2, customers_pb2, decisions_pb2, events_pb2, feedback_pb2, identities_pb2
from tests.identity_shop import COOKIE, PHONE, SHOP, ask, link, spent, unlink
from tests.small_engine import PARTITIONS, START_MS, SmallEngine, value_of

Identity, Entity = common_pb2.Identity, identities_pb2.Entity
LONG = "x" * 65
TRACES = [Identity(kind="cookie", value=f"c{n}") for n in range(9)]


@pytest.mark.parametrize("method", ["link", "unlink"])
@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"request_id": ""}, "request_id: empty, expected 1 to 64 bytes"),
        ({"request_id": LONG}, "request_id: 65 bytes"),
        ({"customer_id": ""}, "customer_id: empty"),
        ({"customer_id": LONG}, "customer_id: 65 bytes"),
        ({"customer_id": "a\nb"}, "customer_id: 'a\\nb' has U+000A"),
        ({"identities": []}, "identities: empty, expected an entry of identities, same_customer_ids or entities"),
        ({"identities": TRACES}, "identities: 9 entries, at most 8"),
        ({"identities": [Identity(kind="cooky", value="c")]}, "identities[0].kind: no identity kind 'cooky'"),
        ({"identities": [Identity(kind="a=b", value="c")]}, "identities[0].kind: 'a=b' has a '='"),
        ({"identities": [Identity(kind="cookie")]}, "identities[0].value: empty, expected 1 to 128 bytes"),
        ({"identities": [Identity(kind="phone", value="9" * 129)]}, "identities[0].value: 129 bytes"),
        ({"same_customer_ids": ["a"] * 9}, "same_customer_ids: 9 entries, at most 8"),
        ({"same_customer_ids": ["b17", ""]}, "same_customer_ids[1]: empty"),
        ({"same_customer_ids": [LONG]}, "same_customer_ids[0]: 65 bytes"),
        ({"same_customer_ids": ["ann"]}, "customer_id: 'ann' would be linked to itself"),
        ({"customer_id": "cookie=c7"}, "customer_id: 'cookie=c7' would be linked to itself"),
        ({"entities": [Entity(kind="household")]}, "entities[0].id: empty, expected 1 to 128 bytes"),
        ({"entities": [Entity(kind="club", id="1")]}, "entities[0].kind: no entity kind 'club' is declared"),
        ({"entities": [Entity(kind="household", id="h" * 129)]}, "entities[0].id: 129 bytes"),
        ({"entities": [Entity(kind="household", id="h")] * 9}, "entities: 9 entries, at most 8"),
    ],
)
async def test_a_wrong_request_is_refused_whole(method: str, fields: dict[str, Any], told: str) -> None:
    engine = SmallEngine(SHOP)
    good: dict[str, Any] = {"request_id": "r", "customer_id": "ann", "identities": [COOKIE]}
    request = identities_pb2.LinkRequest if method == "link" else identities_pb2.UnlinkRequest
    with pytest.raises(InvalidArgument) as refusal:
        await getattr(engine.service.identities, method)(request(**(good | fields)))
    assert told in str(refusal.value)
    assert await engine.store.backlog() == dict.fromkeys(range(PARTITIONS), 0)


async def test_lineage_of_nobody_is_refused_and_of_a_stranger_is_empty() -> None:
    engine = SmallEngine(SHOP)
    with pytest.raises(InvalidArgument, match="customer_id: empty, expected a customer id or an identity"):
        await engine.service.identities.lineage(identities_pb2.LineageRequest())
    found = await engine.service.identities.lineage(identities_pb2.LineageRequest(identity=PHONE))
    assert found == identities_pb2.LineageResponse(name="phone=+420600111222")


async def test_what_is_not_linked_cannot_be_taken_back() -> None:
    engine = SmallEngine(SHOP)
    with pytest.raises(NotAllowed, match="'cookie=c7' is not linked to 'ann': it stands for itself"):
        await unlink(engine, "r1", "ann", identities=[COOKIE])
    await link(engine, "r2", "bob", identities=[COOKIE])
    with pytest.raises(NotAllowed, match="'cookie=c7' is not linked to 'ann': it belongs to 'bob'"):
        await unlink(engine, "r3", "ann", identities=[COOKIE])
    assert await identities_of(engine.store, "bob") == ["cookie=c7"]


async def test_a_customer_id_is_linked_to_one_customer() -> None:
    engine = SmallEngine(SHOP)
    await link(engine, "r1", "ann", same_customer_ids=["b17"])
    with pytest.raises(NotAllowed, match="same_customer_ids: 'b17' belongs to 'ann' already; unlink it there"):
        await link(engine, "r2", "bob", same_customer_ids=["b17"])


async def test_a_customer_with_too_many_names_is_told_so() -> None:
    engine = SmallEngine(SHOP)
    for start in range(0, CUSTOMER_IDENTITIES_MAX, 8):
        some = [Identity(kind="cookie", value=f"c{start + n}") for n in range(8)]
        await link(engine, f"r{start}", "ann", identities=some)
    with pytest.raises(NotAllowed, match="'ann' has 64 linked names, at most 64 are allowed; unlink some first"):
        await link(engine, "more", "ann", identities=[PHONE])
    await decide(engine, customer_id="ann", identities=[PHONE])
    assert (await decide(engine, identities=[PHONE])).customer_id == "phone=+420600111222", "a login is not refused"


async def test_customers_in_a_row_are_followed_so_far_and_no_further() -> None:
    engine = SmallEngine(SHOP)
    for number in range(LINK_HOPS_MAX):
        await link(engine, f"r{number}", f"c{number + 1}", same_customer_ids=[f"c{number}"])
    assert (await decide(engine, customer_id="c0")).customer_id == f"c{LINK_HOPS_MAX}"
    with pytest.raises(NotAllowed, match="'c0' belongs to somebody over more than 8 others"):
        await link(engine, "last", f"c{LINK_HOPS_MAX + 1}", same_customer_ids=[f"c{LINK_HOPS_MAX}"])
        await link(engine, "visitor", "c0", identities=[COOKIE])
    # Bytes that nobody of ours wrote: two names that belong to each other. The call is answered all the same.
    for name, other in (("x", "y"), ("y", "x")):
        write = FeatureWrite(name, b"", moved(other, Offset(1, 0)))
        await engine.store.write_features(partition_of(name, PARTITIONS), [write], Offset.ZERO, 0)
    answer = await decide(engine, customer_id="x")
    assert answer.degraded == decisions_pb2.DEGRADED_REASON_STATE_UNREADABLE
    with pytest.raises(Unavailable):
        await engine.customer("x")


async def decide(engine: SmallEngine, **fields: Any) -> decisions_pb2.DecideResponse:
    answer = await engine.service.decide(decisions_pb2.DecideRequest(channel="branch", **fields))
    await engine.settle()
    return answer


@pytest.mark.parametrize("identities", [TRACES, [Identity(kind="", value="c")], [Identity(kind="a=b", value="c")]])
async def test_wrong_identities_are_refused_beside_a_customer_id_too(identities: list[Identity]) -> None:
    engine = SmallEngine(SHOP)
    with pytest.raises(InvalidArgument, match="identities"):
        await decide(engine, customer_id="ann", identities=identities)
    event = events_pb2.Event(id="1", source="s", type="complaint", customer_id="ann", identities=identities)
    answer = await engine.service.events.publish(events_pb2.PublishRequest(events=[event]))
    assert "identities" in answer.rejected[0].reason


async def test_events_of_one_call_are_merged_with_the_login_among_them() -> None:
    engine = SmallEngine(SHOP)
    events = []
    sent = ((1, "", [COOKIE]), (2, "ann", [COOKIE]), (4, "", [PHONE, COOKIE]), (8, "", [COOKIE]))
    for number, customer, traces in sent:
        event = events_pb2.Event(id=f"{number}", source="s", type="purchase", customer_id=customer, identities=traces)
        event.attributes["amount"].CopyFrom(value_of(float(number)))
        events.append(event)
    answer = await engine.service.events.publish(events_pb2.PublishRequest(events=events))
    assert (answer.accepted, len(answer.positions)) == (4, 4)
    await engine.fold()
    assert await spent(engine, "ann") == 11.0
    assert await spent(engine, "", PHONE) == 4.0, "when it came, nobody was linked and the number was the strongest"
    answer = await engine.service.events.publish(events_pb2.PublishRequest(events=[events[2]]))
    await engine.fold()
    assert await spent(engine, "ann") == 15.0, "by now the cookie is"


async def test_cloud_events_carry_identities() -> None:
    engine = SmallEngine(SHOP)
    body = {"specversion": "1.0", "source": "s", "type": "purchase", "data": {"amount": 5}}
    for extra in (
        {"id": "1", "identities": "cookie=c7"},
        {"id": "2", "subject": "ann", "identities": "phone=%2B420600111222 cookie=c7"},
    ):
        checked = events_in(orjson.dumps(body | extra), "", engine.catalogue, START_MS)
        assert (await engine.service.events.take(checked)).accepted == 1
    await engine.fold()
    assert await spent(engine, "ann") == 10.0
    assert sorted(await identities_of(engine.store, "ann")) == ["cookie=c7", "phone=+420600111222"]
    checked = events_in(orjson.dumps(body | {"id": "3", "identities": "c7"}), "", engine.catalogue, START_MS)
    [refused] = (await engine.service.events.take(checked)).rejected
    assert refused.reason == "identities: 'c7', expected kind=value, several separated by spaces"


@pytest.mark.parametrize(
    ("identities", "told"),
    [
        ("cookie=%FF", "identities: '%FF', expected UTF-8 behind its percent signs"),
        ("cookie=c7 phone=%FE", "identities: '%FE', expected UTF-8 behind its percent signs"),
        ("%C3=c7", "identities: '%C3', expected UTF-8 behind its percent signs"),
        ("cookie=%ED%A0%80", "identities: '%ED%A0%80', expected UTF-8 behind its percent signs"),
        ("cookie=%ZZ", "identities: '%ZZ', expected two hex digits behind each percent sign"),
        ("cookie=100%", "identities: '100%', expected two hex digits behind each percent sign"),
        ("cookie=%+1", "identities: '%+1', expected two hex digits behind each percent sign"),
        ("cookie=%00", "identities[0].value: '\\x00' has U+0000, expected printable text without it"),
    ],
)
async def test_an_identity_that_is_no_text_is_nobodys(identities: str, told: str) -> None:
    engine = SmallEngine(SHOP)
    event = {"specversion": "1.0", "id": "1", "source": "s", "type": "complaint", "identities": identities}
    for subject in ({}, {"subject": "ann"}):
        checked = events_in(orjson.dumps(event | subject), "", engine.catalogue, START_MS)
        assert [bad.reason for bad in (await engine.service.events.take(checked)).rejected] == [told]


async def test_percent_signs_say_what_an_identity_holds() -> None:
    engine = SmallEngine(SHOP)
    event = {"specversion": "1.0", "id": "1", "source": "s", "type": "complaint"}
    for identities, name in (("cookie=%EF%BF%BD", "cookie=\ufffd"), ("cookie=a%20%c3%a9é", "cookie=a éé")):
        [(_, _, check)] = events_in(orjson.dumps(event | {"identities": identities}), "", engine.catalogue, START_MS)
        assert check().customer == name


async def test_a_store_that_fails_costs_the_link_and_not_the_decision() -> None:
    store = FaultyStore(PARTITIONS, lambda: START_MS)
    engine = SmallEngine(SHOP, store)
    store.failing["append_events"] = StoreUnavailable("away")
    answer = await decide(engine, customer_id="ann", identities=[COOKIE])
    assert answer.decision_id and not answer.degraded
    store.failing.clear()
    await decide(engine, customer_id="ann", identities=[COOKIE])
    assert await identities_of(store, "ann") == ["cookie=c7"], "the next call asks again"
    store.failing["read"] = StoreUnavailable("away")
    answer = await decide(engine, identities=[PHONE, COOKIE])
    assert answer.degraded == decisions_pb2.DEGRADED_REASON_STATE_STORE_UNAVAILABLE
    with pytest.raises(Unavailable):
        await engine.service.customers.get(customers_pb2.GetCustomerRequest(identities=[PHONE, COOKIE]))
    with pytest.raises(Unavailable):
        await link(engine, "r1", "ann", identities=[PHONE])


async def test_a_request_is_repeated_by_its_id_after_the_customer_was_resolved() -> None:
    engine = SmallEngine(SHOP)
    await link(engine, "r1", "ann", identities=[COOKIE])
    first = await decide(engine, identities=[COOKIE], request_id="call-1")
    again = await decide(engine, identities=[COOKIE], request_id="call-1")
    by_id = await decide(engine, customer_id="ann", request_id="call-1")
    assert first.decision_id == again.decision_id == by_id.decision_id
    assert again.repeated and by_id.repeated


async def test_a_customer_is_shown_with_all_that_happened_under_linked_names() -> None:
    """Events of both, and what was decided for the visitor, which can still be reported on."""
    engine = SmallEngine(SHOP.replace(b"  - type: purchase\n", b"  - type: purchase\n    timeline: true\n"))
    for number, who in ((1, {"identities": [COOKIE]}), (2, {"customer_id": "ann"})):
        event = events_pb2.Event(id=f"{number}", source="s", type="purchase", **who)
        event.attributes["amount"].CopyFrom(value_of(float(number)))
        await engine.service.events.publish(events_pb2.PublishRequest(events=[event]))
    await engine.settle()
    visited = await decide(engine, identities=[COOKIE])
    await decide(engine, customer_id="ann", identities=[COOKIE])
    await link(engine, "r1", "ann", same_customer_ids=["b17"])
    found = await engine.customer("ann")
    assert list(found.identities) == [COOKIE], "another customer id is no trace"
    kinds = [customers_pb2.TimelineKind.Name(entry.kind) for entry in found.timeline]
    assert kinds.count("TIMELINE_KIND_USE") == 2
    assert visited.decision_id in {entry.decision_id for entry in found.timeline}
    receipt = await engine.report(visited.decision_id, visited.offers[0].offer_id, "accepted")
    assert not receipt.duplicate
    assert (await engine.customer("b17")).customer_id == "ann"


async def test_a_decision_is_not_explained_to_whom_it_is_not_about() -> None:
    engine = SmallEngine(SHOP)
    hers, visitors = await ask(engine, "ann"), await ask(engine, "", COOKIE)

    async def explained(decision_id: str, customer: str) -> str:
        request = decisions_pb2.ExplainRequest(decision_id=decision_id, customer_id=customer)
        return (await engine.service.explain(request)).customer_id

    assert await explained(hers.decision_id, "ann") == await explained(hers.decision_id, "") == "ann"
    for decision, customer in ((hers, "bob"), (visitors, "ann")):
        with pytest.raises(InvalidArgument, match=f"customer_id: .*for somebody else than '{customer}'"):
            await explained(decision.decision_id, customer)
    with pytest.raises(InvalidArgument, match="customer_id: 65 bytes, expected 1 to 64"):
        await explained(hers.decision_id, "c" * 65)
    await link(engine, "l1", "ann", identities=[COOKIE])
    assert await explained(visitors.decision_id, "ann") == "cookie=c7", "the visitor was she"
    assert await explained(hers.decision_id, "cookie=c7") == "ann"


async def test_the_name_that_an_answer_gives_is_taken_everywhere() -> None:
    """A kind and a value may be longer together than the id of a customer."""
    engine = SmallEngine(SHOP)
    first = await ask(engine, "", Identity(kind="email_sha256", value="2d" * 32))
    name = first.customer_id
    assert name == "email_sha256=" + "2d" * 32
    assert (await engine.customer(name)).customer_id == name
    explain = decisions_pb2.ExplainRequest(decision_id=first.decision_id, customer_id=name)
    assert (await engine.service.explain(explain)).customer_id == name
    offer = first.offers[0].offer_id
    report = feedback_pb2.ReportRequest(outcome_id="o1", customer_id=name, offer_id=offer, stage="STAGE_ACCEPTED")
    assert not (await engine.service.feedback.report(report)).duplicate
    assert (await ask(engine, name)).customer_id == name
    with pytest.raises(InvalidArgument, match="customer_id: 194 bytes, expected 1 to 193"):
        await ask(engine, "k=" + "v" * 192)
