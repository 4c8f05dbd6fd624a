"""Leads are handed out once and come back for others; what came of them is learnt, nothing of those nobody had."""

import asyncio
from typing import Any

import pytest

from engine import limits
from engine.errors import InvalidArgument, NotAllowed, NotFound, Overloaded
from engine.leads.forgetting import forget_leads
from engine.ledger import Ledger
from engine.lifecycle import Stage
from engine.store import MemoryStore, RedisStore, Store
from opportune.v1 import decisions_pb2, leads_pb2
from tests.small_engine import CONFIG, DAY_MS, PARTITIONS, START_MS, SmallEngine
from tests.store.conftest import Server, shared_server

__all__ = ["shared_server"]

OPEN, TAKEN, DONE, CLOSED = leads_pb2.LeadState.values()[1:]
SPEAKING = CONFIG.replace(b"limit: 3", b"limit: 1\nsilence: false")


@pytest.fixture
def engine() -> SmallEngine:
    return SmallEngine(SPEAKING)


async def leads_of(engine: SmallEngine, *planned: tuple[str, str], list_id: str = "may") -> dict[str, leads_pb2.Lead]:
    """Leads by customer; `planned` are (customer, seller)."""
    asked = decisions_pb2.DecideManyRequest(
        batch_id=list_id, channel="branch", customers=[decisions_pb2.BatchCustomer(customer_id=c) for c, _ in planned]
    )
    ids = {a.customer_id: a.answer.decision_id async for a in engine.service.batches.decide_many(asked)}
    new = [leads_pb2.NewLead(decision_id=ids[customer], seller=seller) for customer, seller in planned]
    made = await engine.service.leads.add(leads_pb2.AddLeadsRequest(list_id=list_id, leads=new))
    return {lead.customer_id: lead for lead in made.leads}


async def take(engine: SmallEngine, lead: leads_pb2.Lead, seller: str) -> leads_pb2.LeadResponse:
    return await engine.service.leads.take(leads_pb2.TakeLeadRequest(lead_id=lead.lead_id, seller=seller))


async def back(engine: SmallEngine, lead: leads_pb2.Lead, seller: str, reason: str = "") -> leads_pb2.LeadResponse:
    asked = leads_pb2.ReturnLeadRequest(lead_id=lead.lead_id, seller=seller, reason=reason)
    return await engine.service.leads.give_back(asked)


async def done(
    engine: SmallEngine, lead: leads_pb2.Lead, seller: str, outcome: str = "ACCEPTED", **fields: Any
) -> leads_pb2.LeadResponse:
    asked = leads_pb2.CompleteLeadRequest(lead_id=lead.lead_id, seller=seller, outcome=f"STAGE_{outcome}", **fields)
    return await engine.service.leads.complete(asked)


async def listed(engine: SmallEngine, **fields: Any) -> list[leads_pb2.Lead]:
    return list((await engine.service.leads.listed(leads_pb2.ListLeadsRequest(**fields))).leads)


async def stage_of(engine: SmallEngine, customer: str) -> Stage:
    [(_, data)] = await engine.store.read([customer])
    return Ledger.unpack(data).decisions[-1].offers[0].stage


async def test_a_lead_is_made_of_what_the_record_says(engine: SmallEngine) -> None:
    lead = (await leads_of(engine, ("ann", "eva")))["ann"]
    assert (lead.customer_id, lead.planned_seller, lead.state, lead.seller) == ("ann", "eva", OPEN, "")
    assert lead.lead_id == f"may/{lead.decision_id}" and lead.treatment and lead.worth > 0
    assert lead.expires_ms == START_MS + engine.catalogue.windows_ms[engine.catalogue.offer_ids.index(lead.offer_id)]
    await take(engine, lead, "eva")
    again = (await leads_of(engine, ("ann", "eva")))["ann"]
    assert again.state == TAKEN, "made again, it stands as it stood"


async def test_taken_done_and_learnt_once(engine: SmallEngine) -> None:
    lead = (await leads_of(engine, ("ann", "eva")))["ann"]
    assert (await take(engine, lead, "eva")).lead.seller == "eva"
    assert (await take(engine, lead, "eva")).repeated
    ended = await done(engine, lead, "eva", value=55.0)
    assert (ended.lead.state, ended.lead.outcome, ended.repeated) == (DONE, int(Stage.ACCEPTED), False)
    assert (await done(engine, lead, "eva")).repeated
    assert await stage_of(engine, "ann") is Stage.ACCEPTED
    with pytest.raises(NotAllowed, match="was ended by 'eva' with ACCEPTED"):
        await done(engine, lead, "eva", "DECLINED")
    with pytest.raises(NotAllowed, match="was ended by 'eva'"):
        await take(engine, lead, "bob")


async def test_a_returned_lead_says_nothing_and_is_open_for_others(engine: SmallEngine) -> None:
    lead = (await leads_of(engine, ("ann", "eva")))["ann"]
    await take(engine, lead, "eva")
    returned = await back(engine, lead, "eva", "on leave")
    assert (returned.lead.state, returned.lead.planned_seller, returned.lead.seller) == (OPEN, "", "")
    assert [(r.seller, r.reason) for r in returned.lead.returns] == [("eva", "on leave")]
    assert (await back(engine, lead, "eva")).repeated
    assert await stage_of(engine, "ann") is Stage.NOT_PRESENTED
    with pytest.raises(NotAllowed, match="returned by 'eva' before"):
        await take(engine, lead, "eva")
    assert [each.lead_id for each in await listed(engine, seller="bob")] == [lead.lead_id]
    await take(engine, lead, "bob")
    assert await listed(engine, seller="carl") == [], "bob has it"
    assert (await done(engine, lead, "bob", "DECLINED")).lead.state == DONE
    assert await stage_of(engine, "ann") is Stage.DECLINED, "the second seller's word is what counts"


async def test_the_model_learns_the_last_word_and_nothing_of_returns() -> None:
    """To the byte what it would have learnt of a decision without a lead."""
    plain, led, silent, returned = (SmallEngine(SPEAKING) for _ in range(4))
    for engine in (plain, silent):
        asked = decisions_pb2.DecideManyRequest(batch_id="may", channel="branch")
        asked.customers.add(customer_id="ann")
        [made] = [answer.answer async for answer in engine.service.batches.decide_many(asked)]
        said = "declined" if engine is plain else "not_presented"
        await engine.report(made.decision_id, made.offers[0].offer_id, said)
    for engine in (led, returned):
        lead = (await leads_of(engine, ("ann", "eva")))["ann"]
        await take(engine, lead, "eva")
        await back(engine, lead, "eva")
        if engine is led:
            await take(engine, lead, "bob")
            await done(engine, lead, "bob", "DECLINED")
    for engine in (plain, led, silent, returned):
        await engine.learn()
    assert await led.statistics() == await plain.statistics() != await silent.statistics()
    assert await returned.statistics() == await silent.statistics()


async def test_only_its_seller_may_have_it(engine: SmallEngine) -> None:
    lead = (await leads_of(engine, ("ann", "eva")))["ann"]
    with pytest.raises(NotAllowed, match="planned for 'eva'"):
        await take(engine, lead, "bob")
    for refused in (back(engine, lead, "eva"), done(engine, lead, "eva")):
        with pytest.raises(NotAllowed, match="is not with 'eva': it is open"):
            await refused
    await take(engine, lead, "eva")
    with pytest.raises(NotAllowed, match="is not with 'bob': it is with 'eva'"):
        await done(engine, lead, "bob")
    assert await stage_of(engine, "ann") is Stage.SERVED


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_of_many_sellers_who_want_one_lead_one_gets_it(kind: str, shared_server: Server) -> None:
    store: Store
    if kind == "redis":
        await shared_server.say(b"FLUSHALL")
        store = await RedisStore.open(shared_server.url, PARTITIONS)
    else:
        store = MemoryStore(PARTITIONS, lambda: START_MS)
    engines = [SmallEngine(SPEAKING, store), SmallEngine(SPEAKING, store)]
    lead = (await leads_of(engines[0], ("ann", "")))["ann"]
    sellers = [f"s{n}" for n in range(16)]
    came = await asyncio.gather(
        *(take(engines[n % 2], lead, seller) for n, seller in enumerate(sellers)), return_exceptions=True
    )
    [got] = [answer for answer in came if isinstance(answer, leads_pb2.LeadResponse)]
    assert all(isinstance(answer, (NotAllowed, leads_pb2.LeadResponse)) for answer in came)
    [there] = await listed(engines[1], list_id="may")
    assert (there.state, there.seller) == (TAKEN, got.lead.seller)
    for seller in sellers:
        assert [one.lead_id for one in await listed(engines[0], seller=seller)] == (
            [lead.lead_id] if seller == got.lead.seller else []
        )
    await store.close()


async def test_what_expires_is_closed_and_was_not_presented_if_nobody_had_it(engine: SmallEngine) -> None:
    made = await leads_of(engine, ("ann", "eva"), ("bob", "eva"), ("carl", "eva"))
    await take(engine, made["bob"], "eva")
    await take(engine, made["carl"], "eva")
    engine.now_ms = max(lead.expires_ms for lead in made.values())
    assert {lead.state for lead in await listed(engine)} == {CLOSED}, "by the time, before anybody has looked"
    with pytest.raises(NotAllowed, match="its offer expired"):
        await take(engine, made["ann"], "eva")
    assert await engine.service.leads.sweep() == 3
    assert await engine.service.leads.sweep() == 0
    assert await stage_of(engine, "ann") is Stage.NOT_PRESENTED
    assert await stage_of(engine, "bob") is Stage.SERVED, "its seller was silent, which is not known to be no contact"
    assert (await done(engine, made["carl"], "eva")).lead.state == DONE, "told late"
    assert await stage_of(engine, "carl") is Stage.ACCEPTED


async def test_an_answer_in_another_channel_is_not_undone_by_a_return(engine: SmallEngine) -> None:
    lead = (await leads_of(engine, ("ann", "eva")))["ann"]
    await take(engine, lead, "eva")
    await engine.report(lead.decision_id, lead.offer_id, "accepted")
    assert (await back(engine, lead, "eva")).lead.state == OPEN
    assert await stage_of(engine, "ann") is Stage.ACCEPTED


async def test_a_lead_that_goes_round_is_closed_in_the_end(engine: SmallEngine) -> None:
    lead = (await leads_of(engine, ("ann", "")))["ann"]
    for n in range(limits.LEAD_RETURNS_ENTRIES_MAX):
        await take(engine, lead, f"s{n}")
        state = (await back(engine, lead, f"s{n}")).lead.state
    assert state == CLOSED


async def test_lists_come_in_pages_the_most_worth_first(engine: SmallEngine) -> None:
    await leads_of(engine, *((f"c{n}", "eva" if n % 2 else "") for n in range(25)))
    await leads_of(engine, *((f"d{n}", "bob") for n in range(5)), list_id="june")
    found, token = [], ""
    while True:
        page = await engine.service.leads.listed(leads_pb2.ListLeadsRequest(page_size=7, page_token=token))
        found += list(page.leads)
        token = page.next_page_token
        if not token:
            break
    assert len({lead.lead_id for lead in found}) == len(found) == 30
    assert found == sorted(found, key=lambda lead: (lead.list_id, -lead.worth, lead.decision_id))
    assert len(await listed(engine, seller="eva")) == 25 and len(await listed(engine, seller="bob")) == 13 + 5
    assert len(await listed(engine, list_id="june", seller="eva")) == 0
    assert len(await listed(engine, state=TAKEN)) == 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: s.add(leads_pb2.AddLeadsRequest(list_id="may")), InvalidArgument, "leads: 0, expected 1 to 1000"),
        (lambda s: s.add(leads_pb2.AddLeadsRequest(list_id="a/b")), InvalidArgument, "list_id"),
        (lambda s: s.add(_new("nonsense")), NotFound, r"leads\[0\].decision_id: no decision 'nonsense'"),
        (lambda s: s.add(_new("0-1-0")), NotFound, "or it was retired"),
        (lambda s: s.add(_new("0-1-0", from_ms=5, until_ms=5)), InvalidArgument, "expected a period"),
        (lambda s: s.take(leads_pb2.TakeLeadRequest(lead_id="may/1-2-3", seller="eva")), NotFound, "no lead"),
        (lambda s: s.take(leads_pb2.TakeLeadRequest(lead_id="may", seller="eva")), InvalidArgument, "LIST/DECISION"),
        (lambda s: s.take(leads_pb2.TakeLeadRequest(lead_id="may/1-2-3")), InvalidArgument, "seller: empty"),
        (lambda s: s.listed(leads_pb2.ListLeadsRequest(page_token="zz")), InvalidArgument, "page_token"),
        (lambda s: s.listed(leads_pb2.ListLeadsRequest(page_size=5_000)), InvalidArgument, "page_size"),
        (lambda s: s.complete(leads_pb2.CompleteLeadRequest(lead_id="m/1-2", seller="e")), InvalidArgument, "outcome"),
        (
            lambda s: s.complete(
                leads_pb2.CompleteLeadRequest(lead_id="may/1-2-3", seller="e", outcome="STAGE_PRESENTED")
            ),
            InvalidArgument,
            "outcome: 2, expected one of STAGE_ACCEPTED, STAGE_DECLINED",
        ),
    ],
)
async def test_what_is_wrong_is_told(engine: SmallEngine, call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        await call(engine.service.leads)


def _new(decision: str, **fields: int) -> leads_pb2.AddLeadsRequest:
    return leads_pb2.AddLeadsRequest(list_id="may", leads=[leads_pb2.NewLead(decision_id=decision, **fields)])


async def test_a_decision_for_silence_is_no_lead() -> None:
    engine = SmallEngine(CONFIG.replace(b"value: 40", b"value: -40").replace(b"value: 30", b"value: -30"))
    silent = await engine.decide("ann")
    assert not silent.offers
    with pytest.raises(NotAllowed, match="has no offer"):
        await engine.service.leads.add(_new(silent.decision_id))


async def test_the_registry_of_lists_has_a_bound(engine: SmallEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LEAD_LISTS_ENTRIES_MAX", 2)
    first = await leads_of(engine, ("ann", "eva"), list_id="one")
    await leads_of(engine, ("ann", "eva"), list_id="two")
    with pytest.raises(Overloaded, match="lists have leads that are not over"):
        await leads_of(engine, ("ann", "eva"), list_id="three")
    engine.now_ms = first["ann"].expires_ms
    await engine.service.leads.sweep()
    assert await leads_of(engine, ("bob", "eva"), list_id="three")


async def test_whoever_is_forgotten_leaves_the_lists(engine: SmallEngine) -> None:
    await leads_of(engine, ("ann", "eva"), ("bob", "eva"))
    assert await forget_leads(engine.store, ["ann"]) == 1
    assert await forget_leads(engine.store, ["ann"]) == 0
    assert [lead.customer_id for lead in await listed(engine)] == ["bob"]
    engine.now_ms += 40 * DAY_MS
    assert await engine.service.leads.sweep() == 1
