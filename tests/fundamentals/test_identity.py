"""Identity: whoever comes with a cookie, a phone number or an e-mail hash is known by it, before a login and after."""

import pytest

from engine.errors import NotAllowed
from opportune.v1 import common_pb2, decisions_pb2, identities_pb2
from tests.identity_shop import COOKIE, PHONE, SHOP, ask, buys, link, spent, unlink
from tests.small_engine import SmallEngine


async def lineage(engine: SmallEngine, customer: str) -> identities_pb2.LineageResponse:
    return await engine.service.identities.lineage(identities_pb2.LineageRequest(customer_id=customer))


async def test_a_visitor_is_known_by_a_cookie() -> None:
    """Nobody has logged in: the cookie itself is the customer, with a history of its own."""
    engine = SmallEngine(SHOP)
    await buys(engine, 40.0, "", COOKIE)
    answer = await ask(engine, "", COOKIE)
    assert answer.customer_id == "cookie=c7"
    assert answer.state.known
    assert await spent(engine, "", COOKIE) == 40.0


async def test_logging_in_merges_what_was_browsed_before() -> None:
    """The login names customer and cookie in one call. From then on both histories are one, whoever asks how."""
    engine = SmallEngine(SHOP)
    await buys(engine, 40.0, "", COOKIE)
    await buys(engine, 100.0, "ann")
    await ask(engine, "ann", COOKIE)
    assert await spent(engine, "ann") == 140.0
    answer = await ask(engine, "", COOKIE)
    assert answer.customer_id == "ann"
    assert await spent(engine, "", COOKIE) == 140.0


async def test_the_decision_sees_both_histories() -> None:
    """A loan needs more than 100 spent: neither history has that alone."""
    engine = SmallEngine(SHOP)
    await buys(engine, 60.0, "", COOKIE)
    await buys(engine, 70.0, "ann")
    before = await ask(engine, "ann")
    assert "loan" not in eligible(await engine.explain(before.decision_id))
    await ask(engine, "ann", COOKIE)
    after = await ask(engine, "ann")
    assert "loan" in eligible(await engine.explain(after.decision_id))


async def test_an_event_with_both_is_a_login_too() -> None:
    """A till that knows the loyalty card and the customer links them."""
    engine = SmallEngine(SHOP)
    await buys(engine, 40.0, "", PHONE)
    await buys(engine, 100.0, "ann", PHONE)
    assert await spent(engine, "ann") == 140.0
    await buys(engine, 7.0, "", PHONE)
    assert await spent(engine, "ann") == 147.0, "and what comes under the number alone afterwards"


async def test_the_strongest_identity_that_is_linked_says_who_it_is() -> None:
    """The order is that of the configuration, not that of the caller; an unlinked identity says nothing."""
    engine = SmallEngine(SHOP)
    await ask(engine, "ann", COOKIE)
    assert (await ask(engine, "", PHONE, COOKIE)).customer_id == "ann", "nobody knows the number yet"
    await ask(engine, "bob", PHONE)
    assert (await ask(engine, "", COOKIE, PHONE)).customer_id == "bob"


async def test_a_kind_that_is_not_declared_is_never_linked_by_itself() -> None:
    """An address that a whole office shares must not merge the office."""
    engine = SmallEngine(SHOP)
    office = common_pb2.Identity(kind="ip", value="10.0.0.1")
    await ask(engine, "ann", office)
    await ask(engine, "bob", office)
    assert (await ask(engine, "", office)).customer_id == "ip=10.0.0.1"


async def test_a_number_that_changes_its_owner_moves_no_history() -> None:
    """The newest login counts from then on. What happened under the number until then stays where it was."""
    engine = SmallEngine(SHOP)
    await buys(engine, 40.0, "", PHONE)
    await ask(engine, "ann", PHONE)
    await ask(engine, "bob", PHONE)
    await buys(engine, 3.0, "", PHONE)
    assert await spent(engine, "ann") == 40.0
    assert await spent(engine, "bob") == 3.0
    assert (await ask(engine, "", PHONE)).customer_id == "bob"
    phone = identities_pb2.LineageRequest(identity=PHONE)
    steps = (await engine.service.identities.lineage(phone)).steps
    assert [(step.name, step.source) for step in steps] == [("ann", "decide"), ("bob", "decide")]


async def test_a_link_that_is_taken_back_has_never_been() -> None:
    """What came before the link, and what came after it, is the visitor's own again."""
    engine = SmallEngine(SHOP)
    await buys(engine, 40.0, "", COOKIE)
    await buys(engine, 100.0, "ann")
    before = [await engine.store.read_features([name]) for name in ("ann", "cookie=c7")]
    await link(engine, "r1", "ann", identities=[COOKIE])
    assert await spent(engine, "ann") == 140.0
    await unlink(engine, "r2", "ann", identities=[COOKIE])
    assert [await engine.store.read_features([name]) for name in ("ann", "cookie=c7")] == before
    await link(engine, "r3", "ann", identities=[COOKIE])
    await buys(engine, 2.0, "", COOKIE)
    await unlink(engine, "r4", "ann", identities=[COOKIE])
    assert (await spent(engine, "ann"), await spent(engine, "", COOKIE)) == (100.0, 42.0)


async def test_two_ids_of_one_customer_are_merged_with_all_that_is_linked_to_them() -> None:
    """b17 turns out to be ann: the cookie of b17 finds ann as well, and a call for b17 is one for ann."""
    engine = SmallEngine(SHOP)
    await buys(engine, 1.0, "", COOKIE)
    await ask(engine, "b17", COOKIE)
    await buys(engine, 10.0, "b17")
    await buys(engine, 100.0, "ann")
    await link(engine, "r1", "ann", same_customer_ids=["b17"])
    for customer, identities in (("ann", ()), ("b17", ()), ("", (COOKIE,))):
        assert await spent(engine, customer, *identities) == 111.0
        assert (await ask(engine, customer, *identities)).customer_id == "ann"
    found = (await lineage(engine, "ann")).identities
    assert [(link.name, link.via, link.current) for link in found] == [("b17", "", True), ("cookie=c7", "b17", True)]
    await unlink(engine, "r2", "ann", same_customer_ids=["b17"])
    assert (await spent(engine, "ann"), await spent(engine, "b17")) == (100.0, 11.0)


async def test_lineage_tells_both_sides_what_happened() -> None:
    """Who was merged with whom, when, and on whose word."""
    engine = SmallEngine(SHOP)
    await link(engine, "r1", "ann", identities=[COOKIE])
    engine.now_ms += 1_000
    await unlink(engine, "r2", "ann", identities=[COOKIE])
    action = identities_pb2.LineageAction.Name
    for name, other, verbs in (
        ("ann", "cookie=c7", ("GAINED", "LOST")),
        ("cookie=c7", "ann", ("LINKED_TO", "UNLINKED_FROM")),
    ):
        steps = (await lineage(engine, name)).steps
        assert [action(step.action) for step in steps] == [f"LINEAGE_ACTION_{verb}" for verb in verbs]
        assert [step.name for step in steps] == [other, other]
        assert [step.request_id for step in steps] == ["r1", "r2"]
        assert [step.time_ms for step in steps] == [engine.now_ms - 1_000, engine.now_ms]


async def test_the_same_request_is_carried_out_once() -> None:
    """A late repeat of a link that was taken back meanwhile does not make it again."""
    engine = SmallEngine(SHOP)
    assert (await link(engine, "r1", "ann", identities=[COOKIE])).recorded == 1
    assert (await link(engine, "r1", "ann", identities=[COOKIE])).recorded == 0
    assert (await unlink(engine, "r2", "ann", identities=[COOKIE])).recorded == 1
    assert (await unlink(engine, "r2", "ann", identities=[COOKIE])).recorded == 0
    assert (await link(engine, "r1", "ann", identities=[COOKIE])).recorded == 0
    assert (await ask(engine, "", COOKIE)).customer_id == "cookie=c7"


async def test_nobody_belongs_to_himself_over_others() -> None:
    """ann is bob and bob is ann would leave neither."""
    engine = SmallEngine(SHOP)
    await link(engine, "r1", "bob", same_customer_ids=["ann"])
    with pytest.raises(NotAllowed, match="'bob' cannot belong to 'ann': that one belongs to 'bob' already"):
        await link(engine, "r2", "ann", same_customer_ids=["bob"])


async def test_a_customer_belongs_to_a_household_and_has_accounts() -> None:
    """By the attributes of events, or on request. The newest household counts; accounts are many."""
    engine = SmallEngine(SHOP)
    await engine.publish("move", household_id="h1")
    engine.now_ms += 1_000
    await engine.publish("move", household_id="h2")
    entity = identities_pb2.Entity
    accounts = [entity(kind="account", id="a1"), entity(kind="account", id="a2")]
    await link(engine, "r1", "ann", entities=accounts)
    await unlink(engine, "r2", "ann", entities=accounts[:1])
    found = (await lineage(engine, "ann")).entities
    assert [(link.entity.kind, link.entity.id) for link in found] == [("household", "h2"), ("account", "a2")]


def eligible(explained: decisions_pb2.ExplainResponse) -> set[str]:
    return {candidate.offer_id for candidate in explained.candidates if candidate.eligible}
