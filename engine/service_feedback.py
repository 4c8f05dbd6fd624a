"""The Feedback service: an outcome goes into the ledger and the log in one step, if it may follow what is there."""

import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from engine import metrics
from engine.budgetbooks import Booked, BudgetBooks
from engine.catalogue import Catalogue
from engine.config_schema import Channel, key_of
from engine.contact_rows import Contact
from engine.course import Told, is_known, problem, standing, tag_of, taken
from engine.errors import ConfigError, InvalidArgument, NotAllowed, NotFound, OpportuneError, Unavailable
from engine.gateway import CheckedOutcome, customer_named, outcome_of, shown
from engine.instances import ENDS, answered_beside, open_beside
from engine.ledger import CAS_BYTES, Ledger, LedgerError, hash_of
from engine.lifecycle import NEUTRAL, OPEN, Stage
from engine.limits import DECIDE_CONFLICT_RETRIES_MAX, LATE_OUTCOME_MS_MAX
from engine.linking import identities_of
from engine.lookups import Lookups
from engine.record import DecisionRecord, OutcomeRecord, decision_id
from engine.store.base import Conflict, StoreError
from engine.store_errors import store_errors
from features import Offset
from opportune.v1 import feedback_pb2

if TYPE_CHECKING:
    from engine.service import Service

log = logging.getLogger(__name__)


class FeedbackService:
    """Report."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._lookups: Lookups = service.lookups
        self._books = BudgetBooks(lambda: service.catalogue, service.store)

    async def report(self, request: feedback_pb2.ReportRequest) -> feedback_pb2.ReportResponse:
        """Feedback.Report."""
        if request.customer_id:
            request = await self._addressed(request)
        catalogue = await self._knowing(request)
        outcome = outcome_of(request, catalogue, self._service.clock())
        with self._service.writing():
            partition, position, record = await self._lookups.first(outcome.decision_id)
            rank, window_end_ms = self._place_in(record, outcome)
            if not window_end_ms:
                raise NotAllowed(f"offer_id: {request.offer_id} is of kind silence: nothing was offered")
            if outcome.time_ms < record.time_ms - catalogue.config.clock.future:
                before = record.time_ms - outcome.time_ms
                raise InvalidArgument(f"time_ms: {before} ms before the decision it is about")
            terms = catalogue.terms.get(outcome.offer_key)
            last_ms = window_end_ms if terms is None else max(window_end_ms, terms.waits_until_ms(record.time_ms))
            if outcome.stage in (Stage.FULFILLED, Stage.CANCELLED):
                window_end_ms = last_ms
            if outcome.time_ms >= last_ms + LATE_OUTCOME_MS_MAX:
                raise NotAllowed(
                    f"decision {outcome.decision_id} is too old: its window closed at {last_ms} and outcomes are "
                    f"taken for {LATE_OUTCOME_MS_MAX} ms after that; this one is of {outcome.time_ms}"
                )
            contact = await self._contact_of(record, position, rank, outcome)
            with store_errors():
                booked = await self._books.of(record, outcome.offer_key)
            for _ in range(DECIDE_CONFLICT_RETRIES_MAX):
                response = await self._record_outcome(
                    partition, position, record.customer, rank, window_end_ms, outcome, contact, booked
                )
                if response is not None:
                    if outcome.stage in ENDS:
                        await self._close_beside(partition, position, record.customer, rank, outcome)
                    if self._service.outlet is not None:
                        # Also one that was recorded before: the first time it may not have got as far as here.
                        told = feedback_pb2.ReportRequest()
                        told.CopyFrom(request)
                        told.time_ms = outcome.time_ms
                        with store_errors():
                            await self._service.outlet.outcome(record.customer, told.SerializeToString())
                    return response
        raise Unavailable("the customer's ledger kept changing; report it again with the same outcome_id")

    async def _contact_of(
        self, record: DecisionRecord, position: Offset, rank: int, outcome: CheckedOutcome
    ) -> Contact | None:
        """What the ledger counts of an outcome if it has no contact of its offer; None: nobody counts contacts."""
        contacts = self._service.catalogue.contacts
        if contacts is None:
            return None
        channels: Sequence[Channel] = ()
        with suppress(ConfigError):
            channels = await self._lookups.channels_of(record.config_version)
        return contacts.resumed(
            position,
            rank,
            key=outcome.offer_key,
            channel=channels[record.channel].id if channels else "",
            time_ms=record.time_ms,
            stage=outcome.stage,
            now_ms=outcome.time_ms,
        )

    async def _addressed(self, request: feedback_pb2.ReportRequest) -> feedback_pb2.ReportRequest:
        """A report about a customer's instance of an offer, with the decision that it is of."""
        if request.decision_id:
            raise InvalidArgument("customer_id: the decision_id says whose it is, expected one of them")
        named = feedback_pb2.ReportRequest()
        named.CopyFrom(request)
        named.decision_id = "-"  # for the checks of all other fields, before anything is looked up
        checked = outcome_of(named, self._service.catalogue, self._service.clock())
        with store_errors():
            customer, _ = await self._lookups.whose(customer_named(request.customer_id, "customer_id"))
            names = [customer, *await identities_of(self._service.store, customer)]
            named.decision_id = await self._service.instances.addressed(
                self._service.catalogue, names, checked.offer_id, checked.stage, checked.outcome_hash, checked.time_ms
            )
        return named

    async def _close_beside(
        self, partition: int, position: Offset, customer: str, rank: int, outcome: CheckedOutcome
    ) -> None:
        """Close the other open instances of an offer whose price is held: they were one offer, shown again.

        What fails here fails for nobody: once one of them is answered, no other can be (engine.instances).
        """
        quoting, at = self._service.catalogue.quoting, self._service.catalogue.index_of_key.get(outcome.offer_key)
        if quoting is None or at not in quoting.held:
            return
        try:
            [(_, data)] = await self._service.store.read([customer])
            ledger = Ledger.unpack(data)
            entry = ledger.find(position)
            if entry is None or rank > len(entry.offers) or entry.offers[rank - 1].stage != outcome.stage:
                return
            for other, place in open_beside(ledger, entry, entry.offers[rank - 1], outcome.time_ms):
                named = decision_id(partition, other)
                outcome_id = f"closed-{named}"
                beside = replace(
                    outcome,
                    outcome_id=outcome_id,
                    outcome_hash=hash_of(outcome_id),
                    decision_id=named,
                    stage=Stage.WITHDRAWN,
                    value=math.nan,
                    attributes=b"",
                    corrects=0,
                    corrects_id="",
                    rewards=b"",
                    adds=False,
                )
                record = await self._lookups.record(partition, other)
                if record is None:
                    continue
                contact = await self._contact_of(record, other, place, beside)
                booked = await self._books.of(record, outcome.offer_key)
                what = place, outcome.time_ms + 1, beside, contact, booked  # it is open
                for _ in range(DECIDE_CONFLICT_RETRIES_MAX):
                    if await self._record_outcome(partition, other, customer, *what) is not None:
                        break
                if self._service.outlet is not None:
                    told = feedback_pb2.ReportRequest(
                        outcome_id=outcome_id,
                        decision_id=named,
                        offer_id=outcome.offer_id,
                        stage=int(Stage.WITHDRAWN),  # type: ignore[arg-type]
                        time_ms=outcome.time_ms,
                    )
                    await self._service.outlet.outcome(customer, told.SerializeToString())
        except (OpportuneError, StoreError, LedgerError) as error:
            log.warning("other instances of offer %s were not closed: %s", outcome.offer_id, error)

    async def _knowing(self, request: feedback_pb2.ReportRequest) -> Catalogue:
        """The version that knows the offer of a report: that in service, else the one that decided."""
        now = self._service.catalogue
        if key_of(request.offer_id) in now.index_of_key and (
            not request.channel or request.channel in now.channel_index
        ):
            return now
        try:
            _, _, record = await self._lookups.found(request.decision_id)
            return await self._lookups.catalogue_of(record.config_version)
        except (OpportuneError, ValueError):
            return now  # which says what is wrong with it

    def _place_in(self, record: DecisionRecord, outcome: CheckedOutcome) -> tuple[int, int]:
        for rank, choice in enumerate(record.slate, 1):
            if choice.key == outcome.offer_key:
                return rank, choice.window_end_ms
        there = [self._service.catalogue.index_of_key.get(choice.key) for choice in record.slate]
        names = ", ".join(self._service.catalogue.offer_ids[at] for at in there if at is not None) or "no offers"
        raise NotFound(
            f"offer_id: {shown(outcome.offer_id)} is not in the answer of decision {outcome.decision_id}, "
            f"which had {names}"
        )

    async def _record_outcome(
        self,
        partition: int,
        position: Offset,
        customer: str,
        rank: int,
        window_end_ms: int,
        outcome: CheckedOutcome,
        contact: Contact | None,
        booked: Booked | None,
    ) -> feedback_pb2.ReportResponse | None:
        """One try; None if somebody else changed the ledger meanwhile."""
        with store_errors():
            [(_, data)] = await self._service.store.read([customer])
        try:
            ledger = Ledger.unpack(data)
        except LedgerError as error:
            raise Unavailable(f"the customer's ledger cannot be read: {error}") from error
        late = outcome.time_ms >= window_end_ms
        entry = ledger.find(position)
        new = Told(tag_of(outcome.outcome_hash, outcome.stage))
        told: list[Told] = []
        if entry is None:
            with store_errors():
                await self._service.forgetting.refuse_forgotten(outcome.decision_id, partition, position)
        else:
            offer = entry.offers[rank - 1]
            told = [Told(tag) for tag in offer.outcomes]
            if is_known(told, outcome.outcome_hash):
                metrics.OUTCOMES_DUPLICATE.inc()
                return feedback_pb2.ReportResponse(duplicate=True, stage=int(offer.stage), late=late)  # type: ignore[arg-type]
            now_at = Stage.EXPIRED if late and offer.stage in OPEN else offer.stage
            if now_at in OPEN and outcome.stage not in NEUTRAL:
                other = answered_beside(ledger, entry, offer, self._service.catalogue)
                if other is not None:
                    raise NotAllowed(
                        f"stage: offer {outcome.offer_id} of decision {outcome.decision_id}: it is closed, the offer "
                        f"is {other[1].name} by decision {decision_id(partition, other[0])}"
                    )
            if refusal := problem(told, new, outcome.corrects, now_at, adds=outcome.adds):
                field = f"corrects: {shown(outcome.corrects_id)}" if outcome.corrects else "stage"
                raise NotAllowed(f"{field}: offer {outcome.offer_id} of decision {outcome.decision_id}: {refusal}")
        before, told = told, taken(told, new, outcome.corrects)
        stage = standing(told)
        tags = tuple(tag for tag, _ in told)
        if contact is not None:
            contact = contact._replace(stage=int(stage))
        moved = ledger.moved(position, rank, stage, outcome.time_ms, tags, contact)
        record = OutcomeRecord(
            position,
            outcome.offer_key,
            rank,
            outcome.stage,
            outcome.time_ms,
            outcome.value,
            outcome.outcome_hash,
            outcome.outcome_id,
            outcome.attributes,
            outcome.corrects,
            outcome.rewards,
        )
        expected, entry_bytes = (data or b"")[:CAS_BYTES], record.pack()
        moves = () if booked is None else booked.moves(None if entry is None else before, told)
        written: Offset | Conflict
        with store_errors():
            if moves:
                settled = await self._service.store.settle_outcome(customer, expected, moved.pack(), entry_bytes, moves)
                written = Conflict() if settled is None else settled.position
                metrics.BUDGET_LATE_UNITS.inc(settled.late_units if settled is not None else 0)
            else:
                written = await self._service.store.commit_outcome(customer, expected, moved.pack(), entry_bytes)
        if isinstance(written, Conflict):
            return None
        metrics.OUTCOMES.labels(outcome.stage.name.lower()).inc()
        return feedback_pb2.ReportResponse(
            position=decision_id(partition, written),
            stage=int(stage),  # type: ignore[arg-type]
            late=late,
        )
