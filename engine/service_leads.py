"""The Leads service: hands leads to sellers, and what came of them to the learner (engine.leads.lead has the moves).

A move is a compare-and-set of the lead as it was read, so of two sellers who want one lead one gets it. What is
reported about the decision is reported before the lead is changed, under an id made of the lead's: if the server dies
in between, the call is made again and the report is known already.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import orjson

from engine import limits
from engine.answers_quotes import said
from engine.errors import CallerError, InvalidArgument, NotAllowed, NotFound, OpportuneError, Overloaded, Unavailable
from engine.gateway import shown, text_id, time_of
from engine.instances import quotes_in
from engine.leads import lead as moves
from engine.leads.lead import ENDS, LIVE, Lead, State
from engine.ledger import hash_of
from engine.lifecycle import Stage, in_words
from engine.record import DecisionRecord, RecordError, parse_decision_id
from engine.service_batch import batch_id_of
from engine.store.base import LeadWrite, StoreFull
from engine.store_errors import store_errors
from opportune.v1 import common_pb2, feedback_pb2, leads_pb2

if TYPE_CHECKING:
    from engine.service import Service

log = logging.getLogger(__name__)

_CLOSING_AT_ONCE: Final = 64
_NOT_PRESENTED: Final = int(Stage.NOT_PRESENTED)


class LeadService:
    """Add, List, Take, Return and Complete."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._store = service.store

    # --- making them ------------------------------------------------------------------------------------------------

    async def add(self, request: leads_pb2.AddLeadsRequest) -> leads_pb2.AddLeadsResponse:
        """Leads.Add."""
        list_id = batch_id_of(request.list_id, "list_id")
        if not 1 <= len(request.leads) <= limits.LEAD_CALL_ENTRIES_MAX:
            raise InvalidArgument(f"leads: {len(request.leads)}, expected 1 to {limits.LEAD_CALL_ENTRIES_MAX}")
        with self._service.writing():
            made = await self._made(list_id, request)
            await self._note(list_id, min(lead.expires_ms for lead in made))
            found = []
            writes = [LeadWrite(lead.lead_id, b"", lead.pack(), enters=lead.queue) for lead in made]
            try:
                written = await self._store.write_leads(list_id, writes)
            except StoreFull as error:
                raise Overloaded(f"list_id: {error}") from error
            there = await self._store.read_leads(list_id, [lead.lead_id for lead in made])
            for lead, new, data in zip(made, written, there, strict=True):
                found.append(lead if new or data is None else Lead.unpack(data))
        now_ms = self._service.clock()
        return leads_pb2.AddLeadsResponse(leads=[_message(lead.at(now_ms)) for lead in found])

    async def _made(self, list_id: str, request: leads_pb2.AddLeadsRequest) -> list[Lead]:
        """The leads as the records of their decisions have them. Raises InvalidArgument, NotFound, NotAllowed."""
        catalogue, now_ms = self._service.catalogue, self._service.clock()
        language = request.language if request.language in catalogue.languages else catalogue.config.language
        places = []
        for at, new in enumerate(request.leads):
            text_id(new.seller, f"leads[{at}].seller", empty_ok=True)
            if new.from_ms < 0 or new.until_ms < 0 or 0 < new.until_ms <= new.from_ms:
                period = f"from_ms {new.from_ms} and until_ms {new.until_ms}"
                raise InvalidArgument(f"leads[{at}]: {period}, expected a period, or 0 for none")
            place = parse_decision_id(new.decision_id, self._store.partitions)
            if place is None:
                raise NotFound(f"leads[{at}].decision_id: no decision {shown(new.decision_id)}")
            places.append(place)
        made = []
        for at, (new, data) in enumerate(zip(request.leads, await self._store.entries(places), strict=True)):
            try:
                record = DecisionRecord.unpack(data or b"")
            except RecordError:
                raise NotFound(f"leads[{at}].decision_id: no decision {new.decision_id}, or it was retired") from None
            if not record.slate:
                raise NotAllowed(f"leads[{at}]: decision {new.decision_id} has no offer")
            first = record.slate[0]
            index = catalogue.index_of_key.get(first.key)
            # The channel of a record is an index of its own configuration.
            same = record.config_version == catalogue.version and index is not None
            text = ""
            if same and index is not None:
                shown_in = record.channel, record.placement, language
                quote = quotes_in(record).get(catalogue.offer_ids[index])
                text = said(catalogue, shown_in, index, quote, record.context, first.window_end_ms)
            made.append(
                Lead(
                    list_id,
                    new.decision_id,
                    record.customer,
                    catalogue.offer_name(first.key),
                    text,
                    first.score,
                    new.seller,
                    new.from_ms,
                    new.until_ms,
                    first.window_end_ms,
                    now_ms,
                )
            )
        return made

    async def _note(self, list_id: str, expires_ms: int) -> None:
        """Have the list looked at when its first lead expires."""
        for _ in range(limits.DECIDE_CONFLICT_RETRIES_MAX):
            lists = await self._store.lead_lists()
            known = lists.get(list_id, b"")
            first_ms = orjson.loads(known) if known else 0
            if first_ms and first_ms <= expires_ms:
                return
            try:
                if await self._store.write_lead_list(list_id, known, orjson.dumps(expires_ms)):
                    return
            except StoreFull:
                over = sorted(name for name, note in lists.items() if not orjson.loads(note))
                if not over:
                    raise Overloaded(
                        f"{limits.LEAD_LISTS_ENTRIES_MAX} lists have leads that are not over; wait for one of them"
                    ) from None
                await self._store.write_lead_list(over[0], lists[over[0]], b"")
        raise Unavailable("the registry of lists kept changing; send it again")

    # --- looking at them --------------------------------------------------------------------------------------------

    async def listed(self, request: leads_pb2.ListLeadsRequest) -> leads_pb2.ListLeadsResponse:
        """Leads.List."""
        wanted = batch_id_of(request.list_id, "list_id") if request.list_id else ""
        seller = text_id(request.seller, "seller", empty_ok=True)
        if request.page_size > limits.LEAD_CALL_ENTRIES_MAX:
            raise InvalidArgument(f"page_size: {request.page_size}, expected 1 to {limits.LEAD_CALL_ENTRIES_MAX}, or 0")
        if request.state not in (0, *State):
            raise InvalidArgument(f"state: {request.state}, expected OPEN, TAKEN, DONE or CLOSED")
        size, after = request.page_size or limits.LEAD_PAGE_ENTRIES, _after(request.page_token)
        now_ms = self._service.clock()
        found: list[Lead] = []
        with store_errors():
            names = [wanted] if wanted else sorted(await self._store.lead_lists())
            for name in names:
                if after and name < after[0]:
                    continue
                leads = [lead.at(now_ms) for lead in await self._of(name, seller)]
                found += moves.sorted_leads(
                    [
                        lead
                        for lead in leads
                        if request.state in (0, lead.state) and (not after or moves.order(lead) > after)
                    ]
                )
                if len(found) > size:
                    break
        token = _token(found[size - 1]) if len(found) > size else ""
        return leads_pb2.ListLeadsResponse(leads=[_message(lead) for lead in found[:size]], next_page_token=token)

    async def _of(self, list_id: str, seller: str) -> Sequence[Lead]:
        if not seller:
            return [Lead.unpack(data) for data in (await self._store.all_leads(list_id)).values()]
        ids = {*await self._store.lead_queue(list_id, seller), *await self._store.lead_queue(list_id, "")}
        found = await self._store.read_leads(list_id, sorted(ids))
        return [Lead.unpack(data) for data in found if data is not None]

    # --- the moves --------------------------------------------------------------------------------------------------

    async def take(self, request: leads_pb2.TakeLeadRequest) -> leads_pb2.LeadResponse:
        """Leads.Take."""
        seller, now_ms = text_id(request.seller, "seller"), self._service.clock()
        return await self._move(request.lead_id, lambda lead: moves.taken(lead, seller, now_ms))

    async def give_back(self, request: leads_pb2.ReturnLeadRequest) -> leads_pb2.LeadResponse:
        """Leads.Return."""
        seller, now_ms = text_id(request.seller, "seller"), self._service.clock()
        reason = request.reason
        if len(reason.encode()) > limits.TEXT_BYTES_MAX:
            raise InvalidArgument(f"reason: {len(reason.encode())} bytes, at most {limits.TEXT_BYTES_MAX} are allowed")
        lead = await self._lead(request.lead_id)
        back = moves.given_back(lead, seller, reason, now_ms)
        told = lead.told or (back is not lead and await self._not_presented(lead))

        def move(lead: Lead) -> Lead:
            back = moves.given_back(lead, seller, reason, now_ms)
            return back if back is lead else replace(back, told=told)

        return await self._move(request.lead_id, move)

    async def complete(self, request: leads_pb2.CompleteLeadRequest) -> leads_pb2.LeadResponse:
        """Leads.Complete."""
        seller, now_ms = text_id(request.seller, "seller"), self._service.clock()
        try:
            outcome = Stage(request.outcome)
        except ValueError:
            outcome = Stage.SERVED
        if outcome not in ENDS:
            came = request.outcome or "missing"
            raise InvalidArgument(f"outcome: {came}, expected one of {in_words(ENDS)}")
        if len(request.attributes) >= limits.CONTEXT_ENTRIES_MAX or "seller" in request.attributes:
            raise InvalidArgument(
                f"attributes: expected at most {limits.CONTEXT_ENTRIES_MAX - 1} entries and none called seller, "
                "which is the call's own"
            )
        time_of(request.time_ms, "time_ms", self._service.catalogue, now_ms)
        lead = await self._lead(request.lead_id)
        moves.ended(lead, seller, outcome, now_ms)
        if not (lead.told and outcome is Stage.NOT_PRESENTED):
            report = self._report(lead, "done", int(outcome))
            report.time_ms = request.time_ms
            if request.HasField("value"):
                report.value = request.value
            for name, value in request.attributes.items():
                report.attributes[name].CopyFrom(value)
            report.attributes["seller"].CopyFrom(common_pb2.Value(text=seller))
            if lead.told:
                report.corrects = _outcome_id(lead, "back")
            await self._service.feedback.report(report)
        return await self._move(request.lead_id, lambda lead: moves.ended(lead, seller, outcome, now_ms))

    async def _move(self, lead_id: str, move: Callable[[Lead], Lead]) -> leads_pb2.LeadResponse:
        with self._service.writing():
            for _ in range(limits.DECIDE_CONFLICT_RETRIES_MAX):
                lead = await self._lead(lead_id)
                moved = move(lead)
                if moved is lead:
                    return leads_pb2.LeadResponse(lead=_message(lead), repeated=True)
                if await self._write(lead, moved):
                    return leads_pb2.LeadResponse(lead=_message(moved))
        raise Unavailable("the lead kept changing; send it again")

    async def _write(self, lead: Lead, moved: Lead) -> bool:
        same = lead.queue == moved.queue
        write = LeadWrite(
            lead.lead_id, lead.pack(), moved.pack(), None if same else lead.queue, None if same else moved.queue
        )
        [written] = await self._store.write_leads(lead.list_id, [write])
        return written

    async def _lead(self, lead_id: str) -> Lead:
        list_id, _, decision = lead_id.partition("/")
        if not decision:
            raise InvalidArgument(f"lead_id: {shown(lead_id)}, expected LIST/DECISION as Add and List return it")
        batch_id_of(list_id, "lead_id")
        with store_errors():
            [data] = await self._store.read_leads(list_id, [lead_id[:256]])
        if data is None:
            raise NotFound(f"lead_id: no lead {shown(lead_id)}")
        return Lead.unpack(data)

    # --- what it says about the customer ----------------------------------------------------------------------------

    def _report(self, lead: Lead, what: str, stage: int) -> feedback_pb2.ReportRequest:
        return feedback_pb2.ReportRequest(
            outcome_id=_outcome_id(lead, what),
            decision_id=lead.decision_id,
            offer_id=lead.offer,
            stage=stage,  # type: ignore[arg-type]
        )

    async def _not_presented(self, lead: Lead) -> bool:
        """Record that nobody brought it to the customer; whether that is recorded now."""
        try:
            await self._service.feedback.report(self._report(lead, "back", _NOT_PRESENTED))
        except CallerError as error:
            # Another channel knows better: the customer has answered there. Or the decision is forgotten.
            log.info("lead %s: not presented, but %s", lead.lead_id, error)
            return False
        return True

    # --- the end of offers ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Close leads whose offers have expired, until cancelled."""
        while True:
            await asyncio.sleep(limits.LEAD_SWEEP_MS / 1e3)
            try:
                await self.sweep()
            except OpportuneError as error:
                log.warning("leads that expired are not closed yet: %s", error)
            except Exception:
                log.exception("leads that expired are not closed yet")

    async def sweep(self) -> int:
        """Close leads whose offers have expired; returns how many. Several servers may do so at once."""
        now_ms, count = self._service.clock(), 0
        with store_errors():
            lists = await self._store.lead_lists()
        for name, note in lists.items():
            first_ms = orjson.loads(note)
            if not first_ms or first_ms > now_ms:
                continue
            with store_errors():
                leads = [Lead.unpack(data) for data in (await self._store.all_leads(name)).values()]
            due = [lead for lead in leads if lead.state in LIVE and now_ms >= lead.expires_ms]
            for start in range(0, len(due), _CLOSING_AT_ONCE):
                count += sum(
                    await asyncio.gather(*(self._close(lead, now_ms) for lead in due[start : start + _CLOSING_AT_ONCE]))
                )
            live = [lead.expires_ms for lead in leads if lead.state in LIVE and now_ms < lead.expires_ms]
            value = orjson.dumps(min(live, default=0)) if leads else b""
            with store_errors():
                await self._store.write_lead_list(name, note, value)
        return count

    async def _close(self, lead: Lead, now_ms: int) -> bool:
        """One that was never taken was not presented. Of one that was, the silence of its seller is no answer."""
        told = lead.told
        if lead.state == State.OPEN and not told:
            told = await self._not_presented(lead)
        with self._service.writing():
            return await self._write(lead, replace(moves.closed(lead, now_ms), told=told))


def _outcome_id(lead: Lead, what: str) -> str:
    return f"lead/{hash_of(lead.lead_id):016x}/{what}"


def _message(lead: Lead) -> leads_pb2.Lead:
    return leads_pb2.Lead(
        lead_id=lead.lead_id,
        list_id=lead.list_id,
        decision_id=lead.decision_id,
        customer_id=lead.customer,
        offer_id=lead.offer,
        treatment=lead.treatment,
        worth=lead.worth,
        planned_seller=lead.planned,
        state=int(lead.state),  # type: ignore[arg-type]
        seller=lead.seller,
        from_ms=lead.from_ms,
        until_ms=lead.until_ms,
        expires_ms=lead.expires_ms,
        changed_ms=lead.changed_ms,
        outcome=lead.outcome,  # type: ignore[arg-type]
        returns=[leads_pb2.LeadReturn(seller=r.seller, reason=r.reason, time_ms=r.time_ms) for r in lead.returns],
    )


def _token(lead: Lead) -> str:
    return orjson.dumps(moves.order(lead)).hex()


def _after(token: str) -> tuple[str, float, str] | None:
    if not token:
        return None
    try:
        list_id, worth, decision = orjson.loads(bytes.fromhex(token))
        return str(list_id), float(worth), str(decision)
    except (ValueError, TypeError):
        raise InvalidArgument(f"page_token: {shown(token)}, expected the next_page_token of an answer") from None
