"""Micro-batching: requests that arrive while batches are in flight form the next one.

No timer waits for a batch to fill: an idle server answers a lone request at once, a busy one pays two round trips and a
handful of matrix products for up to DECIDE_BATCH_MAX requests. Several batches are in flight, so that the server
computes one while the store commits another. One batch, step by step:

1. take waiting requests, one a customer of all batches in flight (of two decisions from one ledger one would conflict);
2. read all states in one round trip; whoever turns out to belong to another customer goes into the next batch as that;
   where a configuration has features of entities, read the records of those, in one more (engine.rolled);
3. decide (engine.decide, pure);
4. commit ledger, record and log of each in one round trip: only then is a decision acknowledged;
5. announce them, where others read along (Kafka);
6. answer; whoever lost a race for a ledger goes into the next batch.

If 2, 4 or 5 fail, the answers are the catalogue's fallback offers, marked as degraded, and nothing is promised about
them. On a cluster 2 and 4 may fail for the customers of one node alone; the rest of the batch goes on.

Whoever's deadline is about to pass meanwhile gets the fallback offers, too: late is no better than away. Customers of
DecideMany wait in a line of their own: a batch of them is begun only when nobody waits for Decide, one at a time, and
it is small. A preview ends with step 3: nothing is written.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from engine import metrics
from engine.budgeting import decide_within
from engine.budgetkeeper import BudgetKeeper
from engine.budgets import Left
from engine.catalogue import Catalogue
from engine.contact_links import LinkedLedgers, Named, Unsettled
from engine.deadlines import Deadlines
from engine.decide import decide
from engine.drafts import STATE_UNREADABLE, Ask, Batch, Draft, Linked, Repeat, State
from engine.errors import Overloaded, Unavailable
from engine.explain.kept import KeptBeliefs
from engine.found import Found
from engine.instances import Instances
from engine.limits import (
    DECIDE_BATCH_MAX,
    DECIDE_BATCHES_MAX,
    DECIDE_BULK_BATCH_MAX,
    DECIDE_CONFLICT_RETRIES_MAX,
    DECIDE_QUEUE_MAX,
    LINK_HOPS_MAX,
    LINK_SETTLE_RETRIES_MAX,
)
from engine.links import moved_to
from engine.policyfacts import PolicyFacts
from engine.rolled import EntityReader, Rolled, Told
from engine.seldom import Seldom
from engine.serving import (
    COMMIT_FAILED,
    DEADLINE_NEAR,
    STATE_STORE_UNAVAILABLE,
    Announcer,
    Answer,
    Decided,
    Fallback,
    Previewed,
    Promise,
    Serving,
    Write,
)
from engine.store.base import Conflict, DecisionCommit, PartlyUnavailable, StoreError, StoreFull
from engine.store.base import State as StateStore
from engine.store.budgetboard import Fenced, Take
from features import Offset
from models import Policy

log = logging.getLogger(__name__)

_Each = TypeVar("_Each")


@dataclass(slots=True)
class _Waiting:
    ask: Ask
    answer: Promise
    serving: Serving
    conflicts: int = 0
    unsettled: int = 0
    """Looks at linked names of which one was just about to move."""
    hops: int = 0
    """Customers that it was sent on to, because the one before belongs to them."""
    via: tuple[str, ...] = ()
    """Those before."""
    bulk: bool = False
    """Of a batch: whoever is not goes first."""
    preview: bool = False


@dataclass(frozen=True, slots=True)
class _Rows:
    """Requests of a batch and what was read for each; what nobody asked for is empty."""

    batch: Sequence[_Waiting]
    states: Sequence[State]
    rolled: Sequence[Rolled] = ()
    linked: Sequence[Linked] = ()
    found: Sequence[Found] = ()

    def at(self, places: Sequence[int]) -> "_Rows":
        """Some of them."""
        if len(places) == len(self.batch):
            return self

        def of(column: Sequence[_Each]) -> Sequence[_Each]:
            return [column[place] for place in places] if column else ()

        return _Rows(of(self.batch), of(self.states), of(self.rolled), of(self.linked), of(self.found))


class Decider:
    """Decides for whoever calls `enqueue`, in batches. One event loop."""

    def __init__(
        self,
        catalogue: Catalogue,
        store: StateStore,
        write: Write,
        outlet: Announcer | None = None,
        entities: EntityReader | None = None,
        ledgers: LinkedLedgers | None = None,
        keeper: BudgetKeeper | None = None,
        instances: Instances | None = None,
    ) -> None:
        """`entities` is needed if the catalogue has features of entities, `ledgers` if it has a contact policy and
        names are linked to customers, `keeper` if it has budgets, `instances` if it has offers with parameters or
        callers resume offers."""
        self._write = write
        self._ledgers = ledgers
        assert entities is not None or not catalogue.rollups
        self._instances = instances
        self._keeper = keeper
        self.serving = Serving.of(catalogue, entities)
        """What requests that come from now on are answered with. Exchanged whole; its policy is too, in place."""
        self.kept = KeptBeliefs()
        """Weights of the policies that were in service, for explaining; filled by whoever sets `policy`."""
        self._store = store
        self._outlet = outlet
        self._queue: deque[_Waiting] = deque()
        self._bulk: deque[_Waiting] = deque()
        self._bulk_in_flight = False
        self._deadlines = Deadlines(self._too_late)
        self._workers: dict[int, asyncio.Task[None]] = {}
        self._begun = 0
        self._waking = 0
        """Of these, how many have not looked yet what waits."""
        self._in_flight: set[str] = set()
        """Customers of the batches in flight."""
        self._draining = False
        self._fallen = Seldom(partial(log.warning, "%d decisions answered from the fallback list: %s"))
        """Callers that are too late may be thousands a second."""
        self.on_unreadable: Callable[[], None] = lambda: None
        """Called when a state could not be read: it may be of a configuration that is not known here yet."""

    @property
    def catalogue(self) -> Catalogue:
        """The version in service."""
        return self.serving.catalogue

    @property
    def policy(self) -> Policy:
        """The policy in service."""
        return self.serving.policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        self.serving.policy = policy

    @property
    def facts(self) -> PolicyFacts:
        """Of the policy in service."""
        return self.serving.facts

    @facts.setter
    def facts(self, facts: PolicyFacts) -> None:
        self.serving.facts = facts

    def enqueue(
        self, ask: Ask, answer: Promise, within_s: float | None = None, serving: Serving | None = None
    ) -> None:
        """Have a request answered with what it was checked against, by default what is in service.

        Whoever waits for at most `within_s` gets the fallback offers shortly before that, if nothing else is there.
        Raises Overloaded at once if the queue is full, Unavailable when draining.
        """
        if self._draining:
            raise Unavailable("the server is stopping; ask another one or again in a moment")
        if len(self._queue) >= DECIDE_QUEUE_MAX:
            raise Overloaded(f"{DECIDE_QUEUE_MAX} decisions are waiting already; ask again in a moment")
        waiting = _Waiting(ask, answer, serving or self.serving)
        self._queue.append(waiting)
        if within_s is not None:
            self._deadlines.add(within_s, waiting)
        # Requests come in bursts, and whoever looks first takes up to a whole batch of them.
        if len(self._queue) > self._waking * DECIDE_BATCH_MAX:
            self._wake()

    def enqueue_bulk(self, ask: Ask, answer: Promise, *, preview: bool) -> None:
        """Have a request of a batch answered, after those who wait for `enqueue`. Raises Unavailable when draining.

        The caller bounds how many of its requests wait. A preview decides and records nothing.
        """
        if self._draining:
            raise Unavailable("the server is stopping; send the batch again, to another one or in a moment")
        self._bulk.append(_Waiting(ask, answer, self.serving, bulk=True, preview=preview))
        self._wake()

    def _wake(self) -> None:
        """Have another batch begun, if there may be one more."""
        if len(self._workers) < DECIDE_BATCHES_MAX:
            self._waking += 1
            self._begun += 1
            self._workers[self._begun] = asyncio.create_task(self._run(self._begun))

    def _too_late(self, waiting: Sequence[_Waiting]) -> None:
        """Answer those whose deadlines are near. What is under way for them goes on, and nobody is told of it."""
        late = [each for each in waiting if not each.answer.done()]
        if late:
            self._fall_back(late, DEADLINE_NEAR, TimeoutError("their deadlines are near"))

    async def drain(self) -> None:
        """Refuse new requests and answer those that wait."""
        self._draining = True
        while self._workers:
            await asyncio.wait(self._workers.values())

    def _take(self) -> list[_Waiting]:
        """The next batch: of callers of Decide, or of DecideMany if none of the others waits."""
        batch = self._oldest(self._queue, DECIDE_BATCH_MAX)
        if not batch and self._bulk and not self._bulk_in_flight:
            batch = self._oldest(self._bulk, DECIDE_BULK_BATCH_MAX)
            self._bulk_in_flight = bool(batch)
        return batch

    def _oldest(self, queue: deque[_Waiting], count: int) -> list[_Waiting]:
        """The oldest requests whose callers still wait, one a customer of all batches in flight.

        All of one version of the catalogue.
        """
        batch: list[_Waiting] = []
        customers = self._in_flight
        later: list[_Waiting] = []
        while queue and len(batch) < count:
            waiting = queue.popleft()
            if waiting.answer.done():
                continue  # its deadline passed or its caller left
            if waiting.ask.customer in customers or (batch and waiting.serving is not batch[0].serving):
                later.append(waiting)
                continue
            customers.add(waiting.ask.customer)
            batch.append(waiting)
        queue.extendleft(reversed(later))
        return batch

    async def _run(self, worker: int) -> None:
        self._waking -= 1
        try:
            while batch := self._take():
                started = time.perf_counter()
                try:
                    await self._decide(batch)
                except Exception as error:
                    # A bug must not leave callers hanging nor stop the server: they get it, the next batch goes on.
                    log.exception("a batch of %d decisions failed", len(batch))
                    for waiting in batch:
                        if not waiting.answer.done():
                            waiting.answer.set_exception(error)
                metrics.DECIDE_BATCH_SECONDS.observe(time.perf_counter() - started)
                metrics.DECIDE_BATCH_SIZE.observe(len(batch))
                self._in_flight.difference_update([waiting.ask.customer for waiting in batch])
                if batch[0].bulk:
                    self._bulk_in_flight = False
        finally:
            # Here and not in a callback: between an empty queue and this line nobody can put a request into it.
            del self._workers[worker]

    async def _decide(self, batch: Sequence[_Waiting]) -> None:
        if self._outlet is not None and self._outlet.away:
            # Before anything is committed: nobody shall have an open offer that he is not told of, for long.
            self._fall_back(batch, COMMIT_FAILED, StoreError(self._outlet.away))
            return
        states: Sequence[State]
        serving = batch[0].serving
        entities = serving.entities
        customers = [waiting.ask.customer for waiting in batch]
        # Under way at the same time: one round trip.
        links = None if entities is None else asyncio.ensure_future(entities.links(customers))
        ledgers = None if serving.catalogue.contacts is None else self._ledgers
        names = None if ledgers is None else asyncio.ensure_future(ledgers.names(customers))
        try:
            states = await self._store.read(customers)
        except PartlyUnavailable as error:
            pairs = list(zip(batch, error.found, strict=True))
            self._fall_back([waiting for waiting, state in pairs if state is None], STATE_STORE_UNAVAILABLE, error)
            batch = [waiting for waiting, state in pairs if state is not None]
            states = [state for _, state in pairs if state is not None]
        except StoreError as error:
            self._fall_back(batch, STATE_STORE_UNAVAILABLE, error)
            return
        finally:
            told = {} if links is None else await links
            named = {} if names is None else await names
        rows = self._follow(_Rows(batch, states))
        if entities is not None:
            rows = await self._roll(entities, rows, told)
        if self._instances is not None:
            rows = await self._look(serving.catalogue, self._instances, rows)
        if ledgers is not None:
            rows = await self._linked(ledgers, rows, named)
        if not rows.batch:
            return
        results, takes = self._made(serving, rows)
        if any(STATE_UNREADABLE in drafts.degraded.tolist() for drafts in _batches(results)):
            self.on_unreadable()
        drafted: list[tuple[_Waiting, Draft]] = []
        taken: list[tuple[Take, ...]] = []
        for waiting, result, units in zip(rows.batch, results, takes, strict=True):
            if isinstance(result, Draft):
                if waiting.preview:
                    # Looked at, not made: what it would take stays here.
                    self._settle([units], [Conflict()])
                    _answer(waiting, Previewed(result, serving.catalogue))
                else:
                    drafted.append((waiting, result))
                    taken.append(units)
            else:
                metrics.DECISIONS_REPEATED.inc()
                _answer(waiting, result)
        if not drafted:
            return
        # Contacts of a name that belongs to somebody by now would count for nobody who is deciding for him meanwhile.
        unmoved = ledgers is not None
        commits = [
            DecisionCommit(
                draft.ask.customer,
                draft.ledger_expected,
                draft.ledger_head,
                draft.ledger_tail,
                draft.record,
                units,
                unmoved,
            )
            for (_, draft), units in zip(drafted, taken, strict=True)
        ]
        try:
            positions = await self._store.commit_decisions(commits)
        except StoreError as error:
            self._settle(taken, [error] * len(taken))
            self._fall_back([waiting for waiting, _ in drafted], COMMIT_FAILED, error)
            return
        self._settle(taken, positions)
        durable: list[tuple[_Waiting, Draft, Offset]] = []
        for (waiting, draft), position in zip(drafted, positions, strict=True):
            if isinstance(position, Offset):
                durable.append((waiting, draft, position))
            elif isinstance(position, Conflict | Fenced):
                self._again(waiting)
            else:
                self._fall_back([waiting], COMMIT_FAILED, position)
        catalogue = serving.catalogue
        answers = self._write(catalogue, [draft for _, draft, _ in durable], [position for *_, position in durable])
        decided = [
            (waiting, Decided(draft, position, catalogue, written))
            for (waiting, draft, position), written in zip(durable, answers, strict=True)
        ]
        if self._outlet is not None and decided:
            try:
                await self._outlet.announce([each for _, each in decided])
            except StoreError as error:
                self._fall_back([waiting for waiting, _ in decided], COMMIT_FAILED, error)
                return
        for waiting, each in decided:
            _answer(waiting, each)
        metrics.DECISIONS.labels("no").inc(len(decided))

    def _made(self, serving: Serving, rows: _Rows) -> tuple[Sequence[Draft | Repeat], Sequence[tuple[Take, ...]]]:
        """Decide, and take the units that it needs."""
        catalogue, keeper = serving.catalogue, self._keeper
        budgeted = keeper is not None and bool(catalogue.budgets)
        # Those of another version are of other offers.
        priced = budgeted and serving is self.serving
        asks = [waiting.ask for waiting in rows.batch]

        def made(at: Sequence[int], some: Sequence[Ask], left: Sequence[Left] | None) -> list[Draft | Repeat]:
            here = rows.at(at)
            return decide(
                catalogue,
                serving.policy,
                some,
                here.states,
                rolled=here.rolled,
                linked=here.linked,
                found=here.found,
                policy_known=serving.policy_known,
                facts=serving.facts,
                prices=keeper.prices if keeper is not None and priced else None,
                left=left,
            )

        if keeper is None or not budgeted:
            return made(range(len(asks)), asks, None), [()] * len(asks)
        within = decide_within(catalogue.budgets, keeper.stock, asks, keeper.clock(), made)
        return [each.result for each in within], [each.takes for each in within]

    def _settle(
        self, taken: Sequence[tuple[Take, ...]], replies: Sequence[Offset | Conflict | Fenced | StoreError]
    ) -> None:
        """What became of the units of a batch."""
        if self._keeper is None or not any(taken):
            return
        stock = self._keeper.stock
        for units, reply in zip(taken, replies, strict=True):
            stock.settle(units, done=not isinstance(reply, Conflict | Fenced | StoreFull))
            if isinstance(reply, Fenced):
                stock.drop(reply.lease)

    def _follow(self, rows: _Rows) -> _Rows:
        """Those whose customer stands for itself; the others go into the next batch, for whom theirs belongs to."""
        targets = [moved_to(features) for features, _ in rows.states]
        if not any(targets):
            return rows
        staying: list[int] = []
        for at, (waiting, to) in enumerate(zip(rows.batch, targets, strict=True)):
            if to and waiting.hops < LINK_HOPS_MAX:
                ask = waiting.ask._replace(customer=to)
                via = (*waiting.via, waiting.ask.customer)
                self._first(replace(waiting, ask=ask, hops=waiting.hops + 1, via=via))
            else:
                staying.append(at)
        return rows.at(staying)

    async def _roll(self, entities: EntityReader, rows: _Rows, told: Told) -> _Rows:
        """With the records of what customers belong to; the others, of whom they cannot be read, fall back."""
        rolled = await entities.records([waiting.ask for waiting in rows.batch], told)
        staying: list[int] = []
        read: list[Rolled] = []
        for at, records in enumerate(rolled):
            if isinstance(records, StoreError):
                self._fall_back([rows.batch[at]], STATE_STORE_UNAVAILABLE, records)
            else:
                staying.append(at)
                read.append(records)
        return replace(rows.at(staying), rolled=read)

    async def _look(self, catalogue: Catalogue, instances: Instances, rows: _Rows) -> _Rows:
        """With what is to be known of open offers; who cannot go on with one is told, and the others stay."""
        try:
            looked = await instances.of(catalogue, [waiting.ask for waiting in rows.batch], rows.states)
        except StoreError as error:
            self._fall_back(rows.batch, STATE_STORE_UNAVAILABLE, error)
            return rows.at(())
        if not looked:
            return rows
        staying: list[int] = []
        found: list[Found] = []
        for at, one in enumerate(looked):
            if isinstance(one, Found):
                staying.append(at)
                found.append(one)
            elif not rows.batch[at].answer.done():
                rows.batch[at].answer.set_exception(one)
        return replace(rows.at(staying) if len(found) < len(looked) else rows, found=found)

    async def _linked(self, ledgers: LinkedLedgers, rows: _Rows, named: Named) -> _Rows:
        """With the ledgers of linked names; whoever has some that cannot be read falls back, for a cap holds."""
        # A customer learns of a name from the log, at another moment than the name moves: who came through the name
        # knows of it already, and for a name that has not moved yet decisions may be under way.
        wanted = [(waiting.ask.customer, waiting.via) for waiting in rows.batch]
        read = await ledgers.read(wanted, named)
        if not any(read):
            return rows
        staying: list[int] = []
        linked: list[Linked] = []
        for at, each in enumerate(read):
            waiting = rows.batch[at]
            if isinstance(each, StoreError):
                self._fall_back([waiting], STATE_STORE_UNAVAILABLE, each)
                continue
            if isinstance(each, Unsettled):
                if waiting.unsettled < LINK_SETTLE_RETRIES_MAX:
                    waiting.unsettled += 1
                    self._first(waiting)
                    continue
                each = each.ledgers
            staying.append(at)
            linked.append(each)
        return replace(rows.at(staying), linked=linked)

    def _again(self, waiting: _Waiting) -> None:
        metrics.DECIDE_CONFLICTS.inc()
        waiting.conflicts += 1
        if waiting.conflicts > DECIDE_CONFLICT_RETRIES_MAX:
            error = StoreError(f"the ledger changed {waiting.conflicts} times while it was decided for this customer")
            self._fall_back([waiting], COMMIT_FAILED, error)
        else:
            self._first(waiting)

    def _first(self, waiting: _Waiting) -> None:
        """Into the next batch."""
        (self._bulk if waiting.bulk else self._queue).appendleft(waiting)

    def _fall_back(self, batch: Sequence[_Waiting], degraded: int, error: Exception) -> None:
        self._fallen.add(degraded, len(batch), str(error))
        metrics.DECISIONS.labels("yes").inc(len(batch))
        for waiting in batch:
            ask = waiting.ask
            if ask.resume is not None:
                # Something else in its place would be no answer.
                refused = Unavailable(f"resume: ask again with the same request_id: {error}")
                if not waiting.answer.done():
                    waiting.answer.set_exception(refused)
                continue
            # Nothing is known of the customer, so whoever may have to be left alone is.
            catalogue = waiting.serving.catalogue
            there = catalogue.treatments.made[ask.channel][ask.placement] & ~catalogue.guard.of_unread()
            kept = catalogue.experiments.kept_back(ask.customer, ask.time_ms, ask.channel)
            if kept is not None:
                there = there & ~kept
            listed = catalogue.defaults.at(ask.channel, ask.time_ms)
            offers = tuple(offer for offer in listed if there[offer])[: ask.limit]
            _answer(waiting, Fallback(ask, offers, degraded, catalogue))


def _batches(results: Sequence[Draft | Repeat]) -> list[Batch]:
    """What was decided together."""
    found = {id(result.batch): result.batch for result in results if isinstance(result, Draft)}
    return list(found.values())


def _answer(waiting: _Waiting, answer: Answer) -> None:
    if not waiting.answer.done():
        waiting.answer.set_result(answer)
