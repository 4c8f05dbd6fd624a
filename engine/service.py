"""The services, whatever carries them: messages in, messages out, OpportuneErrors for what goes wrong.

gRPC (engine.rpc) and HTTP (engine.web) call the same object.
"""

import asyncio
import logging
import math
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np
from google.protobuf.message import Message

from engine import answers, answers_contact, answers_timeline, metrics
from engine.answers_quotes import fill_instances
from engine.answerwire import AnswerWriter
from engine.budgetbooks import Booked, BudgetBooks
from engine.budgetkeeper import BudgetKeeper
from engine.catalogue import Catalogue
from engine.config import parse
from engine.config_schema import Channel, key_of
from engine.contact_links import LinkedLedgers
from engine.contact_rows import Contact
from engine.course import Told, is_known, problem, standing, tag_of, taken
from engine.decide import decide
from engine.decider import Answer, Decided, Decider, Fallback, Previewed, Promise, Serving
from engine.drafts import Ask, Draft, Repeat, State
from engine.errors import (
    CallerError,
    ConfigError,
    InvalidArgument,
    NotAllowed,
    NotFound,
    OpportuneError,
    Overloaded,
    Unavailable,
)
from engine.explain.answer import explained
from engine.explain.finding import BeliefFinder
from engine.gateway import (
    CheckedEvent,
    CheckedOutcome,
    Clock,
    ask_of,
    customer_of,
    event_of,
    linkable,
    outcome_of,
    shown,
    text_id,
    time_of,
    traces_of,
)
from engine.gateway_instances import resume_of
from engine.gateway_timeline import token_of, wanted_of
from engine.instances import ENDS, Instances, answered_beside, began_in, open_beside, quotes_in
from engine.ledger import CAS_BYTES, Ledger, LedgerError, hash_of
from engine.lifecycle import NEUTRAL, OPEN, Stage
from engine.limits import (
    DECIDE_CONFLICT_RETRIES_MAX,
    DECIDE_PUBLISH_WAIT_MS_MAX,
    EVENT_BACKLOG_MAX,
    EVENTS_PER_CALL_MAX,
    LATE_OUTCOME_MS_MAX,
    LINK_HOPS_MAX,
    WRITES_QUEUED_MAX,
)
from engine.linking import BY_DECIDE, BY_PUBLISH, Entries, Login, chosen, identities_of, login_links, targets_of
from engine.links import moved_to
from engine.outlets import Inlet, Outlet
from engine.parameters import Quote
from engine.record import DecisionRecord, OutcomeRecord, RecordError, decision_id, parse_decision_id
from engine.rolled import EntityReader
from engine.service_batch import BatchService
from engine.service_defaults import DefaultsService
from engine.service_forget import ForgetService
from engine.service_identity import IdentityService
from engine.service_leads import LeadService
from engine.service_versions import PoliciesService
from engine.store.base import Conflict, Store, StoreError, StoreFull, StoreUnavailable, partition_of
from engine.timeline import TimelineError
from engine.timeline import merged as merged_timeline
from engine.timeline import unpack as unpack_timeline
from engine.timelineview import of_decisions, of_events, page
from features import Offset
from features import RecordError as FeatureRecordError
from opportune.v1 import (
    common_pb2,
    customers_pb2,
    decisions_pb2,
    defaults_pb2,
    events_pb2,
    feedback_pb2,
    identities_pb2,
    leads_pb2,
)

log = logging.getLogger(__name__)

_BACKLOG_FRESH_S: Final = 0.2
_CATALOGUES_KEPT_MAX: Final = 16
_CHANNELS_KEPT_MAX: Final = 256

RejectedEvent = tuple[bytes, str]
"""(payload, reason)"""


def wall_clock_ms() -> int:
    """Milliseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000_000


class Service:
    """All services on one catalogue, which can be exchanged, and one store."""

    def __init__(
        self,
        catalogue: Catalogue,
        store: Store,
        clock: Clock = wall_clock_ms,
        *,
        inlet: Inlet | None = None,
        outlet: Outlet | None = None,
    ) -> None:
        self.catalogue = catalogue
        self.store = store
        self.clock = clock
        self.inlet: Inlet = inlet or store
        self._outlet = outlet
        self.entities = EntityReader(catalogue.rollups, store)
        ledgers = LinkedLedgers(store, store.partitions)
        self.keeper = BudgetKeeper(lambda: self.catalogue, store, secrets.token_hex(8), clock)
        self.instances = Instances(store, self._channels_of)
        announcer = None if outlet is None else self
        self.decider = Decider(
            catalogue, store, self._answers, announcer, self.entities, ledgers, self.keeper, self.instances
        )
        self._books = BudgetBooks(lambda: self.catalogue, store)
        self._beliefs = BeliefFinder(self.decider.kept, store)
        self._prepared = catalogue.version, AnswerWriter(catalogue)
        self._writers = {catalogue.version: AnswerWriter(catalogue)}
        self._catalogues = {catalogue.version: catalogue}
        self._channels: dict[str, Sequence[Channel]] = {catalogue.version: catalogue.config.channels}
        self._tasks: set[asyncio.Future[None]] = set()
        self._writing = 0
        self._linking = 0
        self.policies = PoliciesService(self)
        self.identities = IdentityService(self)
        self.forgetting = ForgetService(self)
        self.batches = BatchService(self)
        self.defaults = DefaultsService(self)
        self.leads = LeadService(self)
        self._backlog_read_s = 0.0
        self._backlog = 0
        self._draining = False

    def prepared(self, catalogue: Catalogue) -> Serving:
        """What serves another version of the catalogue, tried out: as long as it takes, beside what serves now.

        May run in another thread. Raises whatever goes wrong when a decision is made with it.
        """
        serving = Serving.of(catalogue, EntityReader(catalogue.rollups, self.store))
        channel = catalogue.config.channels[0].id
        ask = ask_of(decisions_pb2.DecideRequest(customer_id="-", channel=channel), catalogue, self.clock())
        rolled = [[None] * len(catalogue.rollups)] if catalogue.rollups else ()
        # What is compiled or laid out at the first use is, before somebody waits for it.
        [draft] = decide(catalogue, serving.policy, [ask], [(None, None)], rolled=rolled, facts=serving.facts)
        writer = AnswerWriter(catalogue)
        assert isinstance(draft, Draft)
        writer.write_all([draft], [Offset.ZERO], [0])
        self._prepared = catalogue.version, writer
        return serving

    def follow(self, serving: Serving) -> None:
        """Serve another version from the next request on. Requests under way are answered with the one they began with.

        `serving` is what `prepared` returned.
        """
        catalogue = serving.catalogue
        version, writer = self._prepared
        assert version == catalogue.version, "one is prepared at a time"
        for versions in (self._writers, self._catalogues):
            while len(versions) >= _CATALOGUES_KEPT_MAX:
                versions.pop(next(other for other in versions if other not in (self.catalogue.version, version)))
        self._writers[version], self._catalogues[version] = writer, catalogue
        self._channels[version] = catalogue.config.channels
        self.entities = serving.entities or EntityReader((), self.store)
        self.forgetting.follow(catalogue)
        self.catalogue = catalogue
        self.decider.serving = serving

    def keep(self, task: "asyncio.Future[None]") -> None:
        """Hold on to a task until it is done: the event loop itself does not."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settled(self) -> None:
        """When all that is kept now is done."""
        await asyncio.gather(*self._tasks)

    async def drain(self) -> None:
        """Answer what is under way and refuse what comes."""
        self._draining = True
        await self.decider.drain()
        with suppress(StoreError):
            await self.keeper.drain()
        await self.settled()
        while self._writing:
            await asyncio.sleep(0.005)

    # --- Decisions --------------------------------------------------------------------------------------------------

    async def decide(
        self, request: decisions_pb2.DecideRequest, within_s: float | None = None
    ) -> decisions_pb2.DecideResponse:
        """Decisions.Decide, for a caller that waits for at most `within_s`."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.enqueue(request, answer, within_s)
        return decisions_pb2.DecideResponse.FromString(await self.written(await answer))

    def enqueue(
        self, request: decisions_pb2.DecideRequest, answer: Promise, within_s: float | None = None
    ) -> None:
        """Have a Decide request answered. Raises as `ask` and Decider.enqueue do."""
        ask, serving = self.ask(request), self.decider.serving
        if not request.identities:
            self.decider.enqueue(ask, answer, within_s)
            return
        traces = traces_of(request.identities, self.catalogue)
        if request.customer_id:
            self.decider.enqueue(ask, answer, within_s)
            if known := linkable(traces, self.catalogue):
                self._link_meanwhile(Login(ask.customer, known))
        elif len(traces) == 1:
            self.decider.enqueue(ask, answer, within_s)  # whether it belongs to somebody is found with its state
        else:
            self.keep(asyncio.ensure_future(self._resolve(ask, traces, answer, within_s, serving)))

    async def _resolve(
        self, ask: Ask, traces: Sequence[str], answer: Promise, within_s: float | None, serving: Serving
    ) -> None:
        """Decide for the strongest trace that is linked. Half of the time that there is may go into finding it."""
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(None if within_s is None else within_s / 2):
                ask = ask._replace(customer=chosen(traces, await targets_of(self.store, traces)))
        except (StoreError, TimeoutError) as error:
            log.warning("identities could not be looked up, the strongest counts: %s", error or "too late")
        left_s = None if within_s is None else max(0.0, within_s - (time.monotonic() - began_s))
        try:
            self.decider.enqueue(ask, answer, left_s, serving)
        except OpportuneError as error:
            answer.set_exception(error)

    def _link_meanwhile(self, login: Login) -> None:
        """Link beside the decision, which does not wait for it. What fails now is asked for again by the next call."""
        if self._linking >= WRITES_QUEUED_MAX:
            metrics.LINKS_SKIPPED.inc()
            return
        self._linking += 1
        self.keep(asyncio.ensure_future(self._link(login)))

    async def _link(self, login: Login) -> None:
        try:
            entries = await login_links(self.store, [login], self.clock(), BY_DECIDE)
            if entries:
                await self.check_backlog()
                await self.inlet.append_events(entries)
        except (StoreError, Overloaded) as error:
            metrics.LINKS_SKIPPED.inc()
            log.warning("the identities of a decision were not linked: %s", error)
        finally:
            self._linking -= 1

    def ask(self, request: decisions_pb2.DecideRequest) -> Ask:
        """A checked Decide request. Raises InvalidArgument."""
        ask = ask_of(request, self.catalogue, self.clock())
        if not request.HasField("resume"):
            return ask
        return ask._replace(resume=resume_of(request.resume, self.store.partitions))

    def _answers(self, catalogue: Catalogue, drafts: Sequence[Draft], positions: Sequence[Offset]) -> Sequence[bytes]:
        """The serialised responses of decisions that are durable."""
        homes = [partition_of(draft.ask.customer, self.store.partitions) for draft in drafts]
        return self._writers[catalogue.version].write_all(drafts, positions, homes)

    def written_now(self, answer: Answer) -> bytes | None:
        """The serialised response, if nothing has to be looked up for it."""
        if isinstance(answer, Decided):
            return answer.written
        if isinstance(answer, Fallback):
            return answers.fallen_back(answer.catalogue, answer).SerializeToString()
        if isinstance(answer, Previewed):
            home = partition_of(answer.draft.ask.customer, self.store.partitions)
            return self._writers[answer.catalogue.version].preview(answer.draft, home)
        return None

    async def written(self, answer: Answer) -> bytes:
        """The serialised response."""
        written = self.written_now(answer)
        if written is not None:
            return written
        assert isinstance(answer, Repeat)
        ask = answer.ask
        partition = partition_of(ask.customer, self.store.partitions)
        record = await self._record(partition, answer.position)
        if record is None:
            raise NotFound(f"request_id {shown(ask.request_id)} was answered before, but its record was retired")
        catalogue = self.catalogue
        with suppress(NotFound, ConfigError):  # with that of now it is not the first answer word for word
            catalogue = await self._catalogue_of(record.config_version)
        if ask.language not in catalogue.languages:
            ask = ask._replace(language=catalogue.config.language)
        curve = self.decider.kept.curve(record.policy_version, record.transform_version)
        response = answers.repeated(catalogue, record, partition, answer.position, ask, curve)
        with _store_errors():
            begun = await self.instances.begun(catalogue, ask, answer.seen)
        writer = self._writers.get(catalogue.version) or self._writers[self.catalogue.version]
        still_open = writer.open_offers(partition, answer.seen.open_offers, ask, begun)
        written = b"".join((response.SerializeToString(), *still_open))
        if self._outlet is not None:
            # The first answer may have got lost between the store and the outlet.
            with _store_errors():
                await self._outlet.decisions([(ask.customer, written)], DECIDE_PUBLISH_WAIT_MS_MAX)
        return written

    @property
    def away(self) -> str:
        """Why decisions could not be published a moment ago; "" if nothing is in the way."""
        return "" if self._outlet is None else self._outlet.away

    async def announce(self, decided: Sequence[Decided]) -> None:
        """Publish decisions that are durable, before they are answered. Raises StoreUnavailable."""
        assert self._outlet is not None
        answered = [(each.draft.ask.customer, each.written) for each in decided]
        await self._outlet.decisions(answered, DECIDE_PUBLISH_WAIT_MS_MAX)

    async def explain(self, request: decisions_pb2.ExplainRequest) -> decisions_pb2.ExplainResponse:
        """Decisions.Explain."""
        customer = text_id(request.customer_id, "customer_id", empty_ok=True)
        partition, position, record = await self._first(request.decision_id)
        with _store_errors():
            if customer and (await self._whose(customer))[0] != (await self._whose(record.customer))[0]:
                raise InvalidArgument(
                    f"customer_id: decision {shown(request.decision_id)} was made for somebody else than "
                    f"{shown(customer)}, expected the customer that it was made for, or none"
                )
            await self.forgetting.refuse_forgotten(request.decision_id, partition, position)
        catalogue = await self._catalogue_of(record.config_version)
        belief = await self._beliefs.of(record, catalogue)
        place = decision_id(partition, position)
        now, facts = self.decider.policy, self.decider.facts
        return await explained(catalogue, record, place, belief, now, request.language, facts)

    async def _whose(self, name: str) -> tuple[str, State]:
        """The customer that a name belongs to now, itself if to nobody, and the customer's state."""
        [state] = await self.store.read([name])
        for _ in range(LINK_HOPS_MAX):
            if not (to := moved_to(state[0])):
                break
            name = to
            [state] = await self.store.read([name])
        return name, state

    async def _found(self, text: str) -> tuple[int, Offset, DecisionRecord]:
        if not text:
            raise InvalidArgument("decision_id: empty, expected an id that Decide returned")
        place = parse_decision_id(text, self.store.partitions)
        record = None if place is None else await self._record(*place)
        if place is None or record is None:
            raise NotFound(f"decision_id: no decision {shown(text)}, or its record was retired")
        return *place, record

    async def _first(self, text: str) -> tuple[int, Offset, DecisionRecord]:
        """The decision of an id, or the one that began what it resumed."""
        found = await self._found(text)
        began = began_in(found[2])
        return found if began is None else await self._found(began[1].began)

    async def _record(self, partition: int, position: Offset) -> DecisionRecord | None:
        with _store_errors():
            [data] = await self.store.entries([(partition, position)])
        try:
            return None if data is None else DecisionRecord.unpack(data)
        except RecordError:
            return None  # an outcome's position, guessed: not a decision

    async def _catalogue_of(self, version: str) -> Catalogue:
        """The configuration that an old record was made with."""
        found = self._catalogues.get(version)
        if found is None:
            with _store_errors():
                text = await self.store.load_config(version)
            if text is None:
                raise NotFound(f"configuration {version} of this decision was not kept")
            # Beside what is served: of a large one it takes a second.
            found = await asyncio.to_thread(lambda: Catalogue.compile(parse(text, version), version, text))
            while len(self._catalogues) >= _CATALOGUES_KEPT_MAX:
                self._catalogues.pop(next(v for v in self._catalogues if v != self.catalogue.version))
            self._catalogues[version] = found
        return found

    # --- Feedback ---------------------------------------------------------------------------------------------------

    async def report(self, request: feedback_pb2.ReportRequest) -> feedback_pb2.ReportResponse:
        """Feedback.Report."""
        if request.customer_id:
            request = await self._addressed(request)
        catalogue = await self._knowing(request)
        outcome = outcome_of(request, catalogue, self.clock())
        with self._write():
            partition, position, record = await self._first(outcome.decision_id)
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
            with _store_errors():
                booked = await self._books.of(record, outcome.offer_key)
            for _ in range(DECIDE_CONFLICT_RETRIES_MAX):
                response = await self._record_outcome(
                    partition, position, record.customer, rank, window_end_ms, outcome, contact, booked
                )
                if response is not None:
                    if outcome.stage in ENDS:
                        await self._close_beside(partition, position, record.customer, rank, outcome)
                    if self._outlet is not None:
                        # Also one that was recorded before: the first time it may not have got as far as here.
                        told = feedback_pb2.ReportRequest()
                        told.CopyFrom(request)
                        told.time_ms = outcome.time_ms
                        with _store_errors():
                            await self._outlet.outcome(record.customer, told.SerializeToString())
                    return response
        raise Unavailable("the customer's ledger kept changing; report it again with the same outcome_id")

    async def _contact_of(
        self, record: DecisionRecord, position: Offset, rank: int, outcome: CheckedOutcome
    ) -> Contact | None:
        """What the ledger counts of an outcome if it has no contact of its offer; None: nobody counts contacts."""
        contacts = self.catalogue.contacts
        if contacts is None:
            return None
        channels: Sequence[Channel] = ()
        with suppress(ConfigError):
            channels = await self._channels_of(record.config_version)
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
        checked = outcome_of(named, self.catalogue, self.clock())
        with _store_errors():
            customer, _ = await self._whose(text_id(request.customer_id, "customer_id"))
            names = [customer, *await identities_of(self.store, customer)]
            named.decision_id = await self.instances.addressed(
                self.catalogue, names, checked.offer_id, checked.stage, checked.outcome_hash, checked.time_ms
            )
        return named

    async def _close_beside(
        self, partition: int, position: Offset, customer: str, rank: int, outcome: CheckedOutcome
    ) -> None:
        """Close the other open instances of an offer whose price is held: they were one offer, shown again.

        What fails here fails for nobody: once one of them is answered, no other can be (engine.instances).
        """
        quoting, at = self.catalogue.quoting, self.catalogue.index_of_key.get(outcome.offer_key)
        if quoting is None or at not in quoting.held:
            return
        try:
            [(_, data)] = await self.store.read([customer])
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
                record = await self._record(partition, other)
                if record is None:
                    continue
                contact = await self._contact_of(record, other, place, beside)
                booked = await self._books.of(record, outcome.offer_key)
                what = place, outcome.time_ms + 1, beside, contact, booked  # it is open
                for _ in range(DECIDE_CONFLICT_RETRIES_MAX):
                    if await self._record_outcome(partition, other, customer, *what) is not None:
                        break
                if self._outlet is not None:
                    told = feedback_pb2.ReportRequest(
                        outcome_id=outcome_id,
                        decision_id=named,
                        offer_id=outcome.offer_id,
                        stage=int(Stage.WITHDRAWN),  # type: ignore[arg-type]
                        time_ms=outcome.time_ms,
                    )
                    await self._outlet.outcome(customer, told.SerializeToString())
        except (OpportuneError, StoreError, LedgerError) as error:
            log.warning("other instances of offer %s were not closed: %s", outcome.offer_id, error)

    async def _knowing(self, request: feedback_pb2.ReportRequest) -> Catalogue:
        """The version that knows the offer of a report: that in service, else the one that decided."""
        now = self.catalogue
        if key_of(request.offer_id) in now.index_of_key and (
            not request.channel or request.channel in now.channel_index
        ):
            return now
        try:
            _, _, record = await self._found(request.decision_id)
            return await self._catalogue_of(record.config_version)
        except (OpportuneError, ValueError):
            return now  # which says what is wrong with it

    def _place_in(self, record: DecisionRecord, outcome: CheckedOutcome) -> tuple[int, int]:
        for rank, choice in enumerate(record.slate, 1):
            if choice.key == outcome.offer_key:
                return rank, choice.window_end_ms
        there = [self.catalogue.index_of_key.get(choice.key) for choice in record.slate]
        names = ", ".join(self.catalogue.offer_ids[at] for at in there if at is not None) or "no offers"
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
        with _store_errors():
            [(_, data)] = await self.store.read([customer])
        try:
            ledger = Ledger.unpack(data)
        except LedgerError as error:
            raise Unavailable(f"the customer's ledger cannot be read: {error}") from error
        late = outcome.time_ms >= window_end_ms
        entry = ledger.find(position)
        new = Told(tag_of(outcome.outcome_hash, outcome.stage))
        told: list[Told] = []
        if entry is None:
            with _store_errors():
                await self.forgetting.refuse_forgotten(outcome.decision_id, partition, position)
        else:
            offer = entry.offers[rank - 1]
            told = [Told(tag) for tag in offer.outcomes]
            if is_known(told, outcome.outcome_hash):
                metrics.OUTCOMES_DUPLICATE.inc()
                return feedback_pb2.ReportResponse(duplicate=True, stage=int(offer.stage), late=late)  # type: ignore[arg-type]
            now_at = Stage.EXPIRED if late and offer.stage in OPEN else offer.stage
            if now_at in OPEN and outcome.stage not in NEUTRAL:
                other = answered_beside(ledger, entry, offer, self.catalogue)
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
        with _store_errors():
            if moves:
                settled = await self.store.settle_outcome(customer, expected, moved.pack(), entry_bytes, moves)
                written = Conflict() if settled is None else settled.position
                metrics.BUDGET_LATE_UNITS.inc(settled.late_units if settled is not None else 0)
            else:
                written = await self.store.commit_outcome(customer, expected, moved.pack(), entry_bytes)
        if isinstance(written, Conflict):
            return None
        metrics.OUTCOMES.labels(outcome.stage.name.lower()).inc()
        return feedback_pb2.ReportResponse(
            position=decision_id(partition, written),
            stage=int(stage),  # type: ignore[arg-type]
            late=late,
        )

    # --- Events -----------------------------------------------------------------------------------------------------

    async def publish(self, request: events_pb2.PublishRequest) -> events_pb2.PublishResponse:
        """Events.Publish."""
        if not request.events:
            raise InvalidArgument(f"events: empty, expected 1 to {EVENTS_PER_CALL_MAX} events")
        if len(request.events) > EVENTS_PER_CALL_MAX:
            raise InvalidArgument(
                f"events: {len(request.events)}, at most {EVENTS_PER_CALL_MAX} are allowed in one call"
            )
        now_ms = self.clock()
        return await self.take_events(
            (event.id, event.SerializeToString, partial(event_of, event, self.catalogue, now_ms))
            for event in request.events
        )

    async def take_events(
        self, events: Iterable[tuple[str, Callable[[], bytes], Callable[[], CheckedEvent]]]
    ) -> events_pb2.PublishResponse:
        """Record the good ones and keep the bad ones as dead letters; each is (id, payload, check)."""
        response = events_pb2.PublishResponse()
        good: list[CheckedEvent] = []
        bad: list[RejectedEvent] = []
        for index, (event_id, payload, check) in enumerate(events):
            try:
                good.append(check())
            except CallerError as error:
                reason = str(error)
                response.rejected.add(index=index, id=event_id[:64], reason=reason)
                bad.append((payload(), reason))
        with self._write(), _store_errors():
            if good:
                await self.check_backlog()
                links, entries = await self._placed(good)
                positions = await self.inlet.append_events([*links, *entries])
                response.positions.extend(
                    decision_id(partition_of(name, self.inlet.partitions), position)
                    for (name, _), position in zip(entries, positions[len(links) :], strict=True)
                )
            if bad:
                metrics.EVENTS_REJECTED.inc(len(bad))
                await self.inlet.dead_letters(bad)
        response.accepted = len(good)
        metrics.EVENTS.labels("all").inc(len(good))
        return response

    async def _placed(self, events: Sequence[CheckedEvent]) -> tuple[Entries, Entries]:
        """Links that the events ask for, and the events, each under the name whose log it belongs to."""
        logins = [Login(event.customer, event.traces) for event in events if event.named and event.traces]
        links = await login_links(self.store, logins, self.clock(), BY_PUBLISH) if logins else []
        anonymous = [trace for event in events if not event.named for trace in event.traces]
        targets = await targets_of(self.store, anonymous) if anonymous else {}
        return links, [
            event.under(event.customer if event.named or not event.traces else chosen(event.traces, targets))
            for event in events
        ]

    async def check_backlog(self) -> None:
        """Refuse events that the log might have to drop before they are folded."""
        if time.monotonic() - self._backlog_read_s > _BACKLOG_FRESH_S:
            self._backlog = max((await self.inlet.backlog()).values(), default=0)
            self._backlog_read_s = time.monotonic()
            metrics.EVENTS_WAITING.set(self._backlog)
        if self._backlog > EVENT_BACKLOG_MAX:
            raise Overloaded(f"{self._backlog} events of a partition wait to be folded; publish again in a moment")

    # --- Customers --------------------------------------------------------------------------------------------------

    async def get_customer(self, request: customers_pb2.GetCustomerRequest) -> customers_pb2.Customer:
        """Customers.Get."""
        catalogue, entities = self.catalogue, self.entities
        customer = customer_of(request.customer_id, request.identities, catalogue)
        now_ms = time_of(request.time_ms, "time_ms", catalogue, self.clock())
        with _store_errors():
            if not request.customer_id and len(request.identities) > 1:
                given = traces_of(request.identities, catalogue)
                customer = chosen(given, await targets_of(self.store, given))
            customer, (record, ledger_bytes) = await self._whose(customer)
            wanted = wanted_of(request, customer)
            rolled = await entities.of_customer(customer)
            linked = await identities_of(self.store, customer)
            timelines = await self.store.read_timelines([customer, *linked])
            others = await self.store.read(linked)
        header = None
        try:
            if record is not None:
                header = catalogue.layout.header(record)
                record = catalogue.layout.merge([record])  # one of an older configuration, as one of this
            ledger = Ledger.unpack(ledger_bytes)
            # What was decided under a linked name is the customer's, too; it stays in the ledger of that name.
            ledgers = [(customer, ledger)]
            ledgers += [(name, Ledger.unpack(data)) for name, (_, data) in zip(linked, others, strict=True) if data]
            timeline = unpack_timeline(merged_timeline(timelines))
        except (FeatureRecordError, LedgerError, TimelineError) as error:
            raise Unavailable(f"the state of customer {shown(customer)} cannot be read: {error}") from error
        partition = partition_of(customer, self.store.partitions)
        try:
            response = answers.customer(
                catalogue, customer, (record, ledger_bytes), header, ledger, partition, now_ms, rolled
            )
            values = [
                layout.read([found], np.array([now_ms]))
                for layout, found in zip(catalogue.layouts.values(), (record, *rolled), strict=True)
            ]
        except FeatureRecordError as error:
            raise Unavailable(f"what customer {shown(customer)} belongs to cannot be read: {error}") from error
        response.bytes += sum(len(data or b"") for data in timelines)
        answers_timeline.fill_profile(response, [feature.function for feature in catalogue.config.all_features])
        traces = [name.partition("=") for name in linked if "=" in name]
        response.identities.extend(common_pb2.Identity(kind=kind, value=value) for kind, _, value in traces)
        response.segments.extend(catalogue.segments.of(np.concatenate(values, axis=1)))
        events, cases = of_events(timeline, catalogue.on_timeline)
        decisions = []
        for name, of_name in ledgers:
            home = partition_of(name, self.store.partitions)
            places, quotes = await self._places(home, of_name)
            fill_instances(response, places, quotes)
            decisions += of_decisions(of_name, home, places, catalogue.offer_name, now_ms)
        shown_items, place = page([*events, *decisions], wanted)
        answers_timeline.fill_timeline(response, shown_items)
        response.next_page_token = token_of(request, customer, place)
        answers_timeline.fill_cases(response, cases, events, now_ms)
        response.timeline_floor_ms = timeline.floor_ms or 0
        answers_contact.fill_contacts(response, catalogue, [ledger_bytes, *(data for _, data in others)], now_ms)
        return response

    async def _places(
        self, partition: int, ledger: Ledger
    ) -> tuple[dict[str, tuple[str, str]], dict[str, Mapping[str, Quote]]]:
        """(channel, placement) and quotes of the ledger's decisions, by id, as far as their records are still there."""
        positions = [entry.position for entry in ledger.decisions]
        with _store_errors():
            found = await self.store.entries([(partition, position) for position in positions])
        places: dict[str, tuple[str, str]] = {}
        quotes: dict[str, Mapping[str, Quote]] = {}
        for position, data in zip(positions, found, strict=True):
            # What cannot be found or read is left out: it is shown without a channel.
            with suppress(RecordError, ConfigError):
                if data is not None:
                    record = DecisionRecord.unpack(data)
                    quotes[decision_id(partition, position)] = quotes_in(record)
                    if channels := await self._channels_of(record.config_version):
                        channel = channels[record.channel]
                        placement = ("", *channel.placements)[record.placement]
                        places[decision_id(partition, position)] = channel.id, placement
        return places, quotes

    async def _channels_of(self, version: str) -> Sequence[Channel]:
        """Channels of a configuration; () if it was not kept. Raises ConfigError if it cannot be read any more.

        Not from a catalogue: a customer's decisions may be of many configurations, and compiling one takes long.
        """
        found = self._channels.get(version)
        if found is None:
            with _store_errors():
                text = await self.store.load_config(version)
            found = () if text is None else (await asyncio.to_thread(parse, text, version)).channels
            while len(self._channels) >= _CHANNELS_KEPT_MAX:
                self._channels.pop(next(v for v in self._channels if v != self.catalogue.version))
            self._channels[version] = found
        return found

    # --- limits -----------------------------------------------------------------------------------------------------

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around a write: counted among those under way, errors of the store in the words of the API."""
        with self._write(), _store_errors():
            yield

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Around a read: errors of the store in the words of the API."""
        with _store_errors():
            yield

    @contextmanager
    def _write(self) -> Iterator[None]:
        if self._draining:
            raise Unavailable("the server is stopping; send it again with the same id")
        if self._writing >= WRITES_QUEUED_MAX:
            raise Overloaded(f"{WRITES_QUEUED_MAX} writes are under way already; send it again in a moment")
        self._writing += 1
        try:
            yield
        finally:
            self._writing -= 1


@contextmanager
def _store_errors() -> Iterator[None]:
    """Errors of the store in the words of the API."""
    try:
        yield
    except StoreFull as error:
        raise Overloaded(f"the store is out of memory or disk, nothing was recorded: {error}") from error
    except StoreUnavailable as error:
        raise Unavailable(f"the store did not answer; send it again with the same id: {error}") from error
    except StoreError as error:
        log.exception("the store refused a command")
        raise Unavailable(f"the store refused: {error}") from error


Method = Callable[[Any], Awaitable[Message]]


def methods(service: Service) -> Sequence[tuple[str, type, Method]]:
    """(full gRPC method name, request type, handler) of every unary method."""
    return (
        ("opportune.v1.Decisions/Decide", decisions_pb2.DecideRequest, service.decide),
        ("opportune.v1.Decisions/Explain", decisions_pb2.ExplainRequest, service.explain),
        ("opportune.v1.Feedback/Report", feedback_pb2.ReportRequest, service.report),
        ("opportune.v1.Events/Publish", events_pb2.PublishRequest, service.publish),
        ("opportune.v1.Customers/Get", customers_pb2.GetCustomerRequest, service.get_customer),
        ("opportune.v1.Customers/Forget", customers_pb2.ForgetRequest, service.forgetting.forget),
        *service.policies.methods(),
        ("opportune.v1.Identities/Link", identities_pb2.LinkRequest, service.identities.link),
        ("opportune.v1.Identities/Unlink", identities_pb2.UnlinkRequest, service.identities.unlink),
        ("opportune.v1.Identities/Lineage", identities_pb2.LineageRequest, service.identities.lineage),
        ("opportune.v1.Decisions/Defaults", defaults_pb2.DefaultsRequest, service.defaults.defaults),
        ("opportune.v1.Decisions/DefaultKeys", defaults_pb2.DefaultKeysRequest, service.defaults.keys),
        ("opportune.v1.Leads/Add", leads_pb2.AddLeadsRequest, service.leads.add),
        ("opportune.v1.Leads/List", leads_pb2.ListLeadsRequest, service.leads.listed),
        ("opportune.v1.Leads/Take", leads_pb2.TakeLeadRequest, service.leads.take),
        ("opportune.v1.Leads/Return", leads_pb2.ReturnLeadRequest, service.leads.give_back),
        ("opportune.v1.Leads/Complete", leads_pb2.CompleteLeadRequest, service.leads.complete),
    )


def streams(service: Service) -> Sequence[tuple[str, type, Callable[[Any], AsyncIterator[Message]]]]:
    """(full gRPC method name, request type, handler) of every method that streams its answers."""
    return (("opportune.v1.Decisions/DecideMany", decisions_pb2.DecideManyRequest, service.batches.decide_many),)
