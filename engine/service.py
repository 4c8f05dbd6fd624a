"""The services, whatever carries them: messages in, messages out, OpportuneErrors for what goes wrong.

gRPC (engine.rpc) and HTTP (engine.web) call the same object.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from google.protobuf.message import Message

from engine import answers, metrics
from engine.answerwire import AnswerWriter
from engine.budgetkeeper import BudgetKeeper
from engine.catalogue import Catalogue
from engine.contact_links import LinkedLedgers
from engine.decide import decide
from engine.decider import Decider
from engine.drafts import Ask, Draft, Repeat
from engine.errors import ConfigError, InvalidArgument, NotFound, OpportuneError, Overloaded, Unavailable
from engine.explain.answer import explained, reasons_again
from engine.explain.finding import BeliefFinder
from engine.gateway import Clock, ask_of, customer_named, linkable, shown, traces_of
from engine.gateway_instances import resume_of
from engine.instances import Instances
from engine.limits import DECIDE_PUBLISH_WAIT_MS_MAX, WRITES_QUEUED_MAX
from engine.linking import BY_DECIDE, Login, chosen, login_links, targets_of
from engine.lookups import CATALOGUES_KEPT_MAX, Lookups, make_room
from engine.outlets import Inlet, Outlet
from engine.record import decision_id
from engine.rolled import EntityReader
from engine.service_batch import BatchService
from engine.service_customers import CustomerService
from engine.service_defaults import DefaultsService
from engine.service_events import EventService
from engine.service_feedback import FeedbackService
from engine.service_forget import ForgetService
from engine.service_identity import IdentityService
from engine.service_leads import LeadService
from engine.service_versions import PoliciesService
from engine.serving import Answer, Decided, Fallback, Previewed, Promise, Serving
from engine.store.base import Store, StoreError, partition_of
from engine.store_errors import store_errors
from features import Offset
from opportune.v1 import (
    customers_pb2,
    decisions_pb2,
    defaults_pb2,
    events_pb2,
    feedback_pb2,
    identities_pb2,
    leads_pb2,
)

log = logging.getLogger(__name__)


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
        self.outlet = outlet
        self.lookups = Lookups(store, catalogue)
        self.entities = EntityReader(catalogue.rollups, store)
        ledgers = LinkedLedgers(store, store.partitions)
        self.keeper = BudgetKeeper(lambda: self.catalogue, store, secrets.token_hex(8), clock)
        self.instances = Instances(store, self.lookups.channels_of)
        announcer = None if outlet is None else self
        self.decider = Decider(
            catalogue, store, self._answers, announcer, self.entities, ledgers, self.keeper, self.instances
        )
        self._beliefs = BeliefFinder(self.decider.kept, store)
        self._prepared = catalogue.version, AnswerWriter(catalogue)
        self._writers = {catalogue.version: AnswerWriter(catalogue)}
        self._tasks: set[asyncio.Future[None]] = set()
        self._writing = 0
        self._linking = 0
        self.feedback = FeedbackService(self)
        self.events = EventService(self)
        self.customers = CustomerService(self)
        self.policies = PoliciesService(self)
        self.identities = IdentityService(self)
        self.forgetting = ForgetService(self)
        self.batches = BatchService(self)
        self.defaults = DefaultsService(self)
        self.leads = LeadService(self)
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
        make_room(self._writers, CATALOGUES_KEPT_MAX, self.catalogue.version, version)
        self._writers[version] = writer
        self.lookups.follow(catalogue)
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
                await self.events.check_backlog()
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
        record = await self.lookups.record(partition, answer.position)
        if record is None:
            raise NotFound(f"request_id {shown(ask.request_id)} was answered before, but its record was retired")
        catalogue = self.catalogue
        with suppress(NotFound, ConfigError):  # with that of now it is not the first answer word for word
            catalogue = await self.lookups.catalogue_of(record.config_version)
        if ask.language not in catalogue.languages:
            ask = ask._replace(language=catalogue.config.language)
        curve = self.decider.kept.curve(record.policy_version, record.transform_version)
        reasons = {}
        if record.config_version == catalogue.version:
            belief, now = await self._beliefs.of(record, catalogue), self.decider.policy
            reasons = reasons_again(catalogue, record, belief, now, self.decider.facts, ask.language)
        response = answers.repeated(catalogue, record, partition, answer.position, ask, curve, reasons)
        with store_errors():
            begun = await self.instances.begun(catalogue, ask, answer.seen)
        writer = self._writers.get(catalogue.version) or self._writers[self.catalogue.version]
        still_open = writer.open_offers(partition, answer.seen.open_offers, ask, begun)
        written = b"".join((response.SerializeToString(), *still_open))
        if self.outlet is not None:
            # The first answer may have got lost between the store and the outlet.
            with store_errors():
                await self.outlet.decisions([(ask.customer, written)], DECIDE_PUBLISH_WAIT_MS_MAX)
        return written

    @property
    def away(self) -> str:
        """Why decisions could not be published a moment ago; "" if nothing is in the way."""
        return "" if self.outlet is None else self.outlet.away

    async def announce(self, decided: Sequence[Decided]) -> None:
        """Publish decisions that are durable, before they are answered. Raises StoreUnavailable."""
        assert self.outlet is not None
        answered = [(each.draft.ask.customer, each.written) for each in decided]
        await self.outlet.decisions(answered, DECIDE_PUBLISH_WAIT_MS_MAX)

    async def explain(self, request: decisions_pb2.ExplainRequest) -> decisions_pb2.ExplainResponse:
        """Decisions.Explain."""
        customer = customer_named(request.customer_id, "customer_id", empty_ok=True)
        partition, position, record = await self.lookups.first(request.decision_id)
        with store_errors():
            if customer and (await self.lookups.whose(customer))[0] != (await self.lookups.whose(record.customer))[0]:
                raise InvalidArgument(
                    f"customer_id: decision {shown(request.decision_id)} was made for somebody else than "
                    f"{shown(customer)}, expected the customer that it was made for, or none"
                )
            await self.forgetting.refuse_forgotten(request.decision_id, partition, position)
        catalogue = await self.lookups.catalogue_of(record.config_version)
        belief = await self._beliefs.of(record, catalogue)
        place = decision_id(partition, position)
        now, facts = self.decider.policy, self.decider.facts
        return await explained(catalogue, record, place, belief, now, request.language, facts)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around a write: counted among those under way, errors of the store in the words of the API."""
        if self._draining:
            raise Unavailable("the server is stopping; send it again with the same id")
        if self._writing >= WRITES_QUEUED_MAX:
            raise Overloaded(f"{WRITES_QUEUED_MAX} writes are under way already; send it again in a moment")
        self._writing += 1
        try:
            with store_errors():
                yield
        finally:
            self._writing -= 1


Method = Callable[[Any], Awaitable[Message]]


def methods(service: Service) -> Sequence[tuple[str, type, Method]]:
    """(full gRPC method name, request type, handler) of every unary method."""
    return (
        ("opportune.v1.Decisions/Decide", decisions_pb2.DecideRequest, service.decide),
        ("opportune.v1.Decisions/Explain", decisions_pb2.ExplainRequest, service.explain),
        ("opportune.v1.Feedback/Report", feedback_pb2.ReportRequest, service.feedback.report),
        ("opportune.v1.Events/Publish", events_pb2.PublishRequest, service.events.publish),
        ("opportune.v1.Customers/Get", customers_pb2.GetCustomerRequest, service.customers.get),
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
