"""One simulation: a whole engine in one process under faults, callers who do not give up, and an auditor.

    callers ──► two servers ──► store ◄── ingest, learning          chaos kills and restarts all of these,
                    ▲              │                                takes the store away and brings it back
                    └── policy ────┘

Everything follows from the seed. At the end the faults stop, callers get their answers, all windows close, and the
auditor compares what was acknowledged with what is kept.
"""

import asyncio
from collections.abc import Coroutine
from operator import attrgetter
from random import Random
from typing import Any

import orjson

from engine.catalogue import Catalogue
from engine.config import parse, version_of
from engine.errors import NotAllowed, Overloaded, Unavailable
from engine.ingest import Ingest
from engine.learner import Learner
from engine.learning import Learning
from engine.policywatch import PolicyWatch
from engine.replay import Verdict
from engine.replaying import replay
from engine.service import Service
from engine.store import MemoryStore, partition_of
from features import Offset
from opportune.v1 import customers_pb2, decisions_pb2, events_pb2, feedback_pb2
from tests.simulation.auditor import Auditor, DecisionNote, OfferNote
from tests.simulation.scenario import CONFIG, JOURNEYS
from tests.simulation.virtual import Crashed, Faults, FaultyStore, Process, VirtualLoop

PARTITIONS = 3
EVENTS_A_CUSTOMER_MAX = 30
"""Ids of the last 32 events are remembered, and a sum of powers of two has 53 bits."""
DECISIONS_A_CUSTOMER_MAX = 14
"""The ledger remembers 16: a repeated request is always known."""
DEADLINE_S = 3.0


class World:
    """One life of everything, from a seed."""

    def __init__(self, seed: int, loop: VirtualLoop, actions: int) -> None:
        self.dice = Random(seed)
        self.loop = loop
        self.actions = actions
        self.auditor = Auditor()
        self.catalogue = Catalogue.compile(parse(CONFIG), version_of(CONFIG))
        self.memory = MemoryStore(PARTITIONS, loop.clock_ms)
        self.faults = Faults(Random(seed + 1), rate=self.dice.choice((0.0, 0.01, 0.05)))
        self.customers = [f"customer-{n}" for n in range(self.dice.randint(1, 8))]
        self.servers: list[tuple[Process, Service]] = []
        self.ingest = self.learn = Process()
        self.learning: Learning | None = None
        self.failures: list[BaseException] = []
        self.asked: dict[str, int] = {}
        self.journeys: list[asyncio.Task[None]] = []

    # --- processes --------------------------------------------------------------------------------------------------

    def store(self) -> Any:
        return FaultyStore(self.memory, self.faults)

    def background(self, process: Process, coro: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = process.spawn(coro)

        def look(done: "asyncio.Task[None]") -> None:
            if not done.cancelled() and (error := done.exception()) is not None:
                self.failures.append(error)

        task.add_done_callback(look)
        return task

    def start_server(self) -> tuple[Process, Service]:
        process, store = Process(), self.store()
        service = Service(self.catalogue, store, self.loop.clock_ms)
        self.background(process, PolicyWatch(service.decider, store).run())
        return process, service

    def start_ingest(self) -> Process:
        process = Process()
        batch_max = self.dice.choice((1, 3, 1_000))
        worker = Ingest(self.catalogue.layout, self.store(), self.catalogue.keeper, batch_max=batch_max)
        self.background(process, worker.run())
        return process

    def start_learning(self) -> Process:
        process = Process()
        batch_max = self.dice.choice((1, 3, 1_000))
        self.learning = Learning(self.catalogue, self.store(), batch_max=batch_max, now_s=self.loop.time)
        self.background(process, self.learning.run())
        return process

    # --- chaos ------------------------------------------------------------------------------------------------------

    async def chaos(self) -> None:
        while True:
            await asyncio.sleep(self.dice.expovariate(1.0))
            await self.dice.choice(
                (
                    self.crash_server,
                    self.crash_ingest,
                    self.crash_learning,
                    self.overlap,
                    self.overlap,
                    self.outage,
                    self.look,
                )
            )()

    async def crash_server(self) -> None:
        at = self.dice.randrange(len(self.servers))
        dying, _ = self.servers[at]
        await dying.kill()
        self.servers[at] = self.start_server()

    async def crash_ingest(self) -> None:
        await self.ingest.kill()
        await asyncio.sleep(self.dice.random())
        self.ingest = self.start_ingest()

    async def crash_learning(self) -> None:
        if self.learning is not None and self.dice.random() < 0.3:
            self.learning.stop()  # a stop in order now and then
            await asyncio.sleep(self.dice.random())
        await self.learn.kill()
        self.learn = self.start_learning()

    async def overlap(self) -> None:
        """Two ingest processes at once, as when one takes over from another."""
        old, self.ingest = self.ingest, self.start_ingest()
        await asyncio.sleep(self.dice.random() / 2)
        await old.kill()

    async def outage(self) -> None:
        if self.faults.rate:
            self.faults.away = True
            await asyncio.sleep(2 * self.dice.random())
            self.faults.away = False

    async def look(self) -> None:
        """Replay the store while it serves."""
        calm: Any = FaultyStore(self.memory, Faults(self.dice, 0.0))
        findings = await replay(self.catalogue, calm, now_ms=self.loop.clock_ms())
        assert findings.verdict is Verdict.EQUAL, findings

    # --- callers ----------------------------------------------------------------------------------------------------

    async def call(self, method: str, request: Any) -> Any:
        """The answer, asked for again and again with the same ids. Raises CallerError."""
        while True:
            process, service = self.dice.choice(self.servers)
            task = asyncio.ensure_future(process.call(attrgetter(method)(service)(request)))
            try:
                async with asyncio.timeout(DEADLINE_S):
                    return await task
            except (Crashed, TimeoutError, Unavailable, Overloaded):
                await asyncio.sleep(self.dice.random() / 2)

    async def caller(self) -> None:
        for _ in range(self.actions):
            await asyncio.sleep(self.dice.random() / 2)
            customer = self.dice.choice(self.customers)
            if self.dice.random() < 0.5:
                await self.publish(customer)
            else:
                note = await self.decide(customer)
                for offer in note.offers if note else ():
                    self.journeys.append(asyncio.create_task(self.journey(note, offer)))

    async def publish(self, customer: str) -> None:
        request = events_pb2.PublishRequest()
        amounts: dict[str, dict[str, int]] = {}
        for _ in range(self.dice.randint(1, 4)):
            owner = self.dice.choice((customer, self.dice.choice(self.customers)))
            bit = self.asked.setdefault(f"event {owner}", 0)
            if bit >= EVENTS_A_CUSTOMER_MAX:
                continue
            self.asked[f"event {owner}"] += 1
            # Mostly in order, sometimes minutes late and in part too late for the window.
            late_ms = self.dice.choice((0, 0, self.dice.randrange(2_000), self.dice.randrange(300_000)))
            time_ms = self.loop.clock_ms() + 1_000 - late_ms
            event = events_pb2.Event(id=f"{bit}", source=owner, type="purchase", customer_id=owner, time_ms=time_ms)
            event.attributes["amount"].number = 2**bit
            amounts.setdefault(owner, {})[event.id] = 2**bit
            request.events.append(event)
        if not request.events:
            return
        if self.dice.random() < 0.2:
            request.events.append(request.events[0])  # twice in one call
        for _ in range(self.dice.choice((1, 1, 1, 2))):  # and in two calls
            answer = await self.call("events.publish", request)
            assert answer.accepted == len(request.events) == len(answer.positions), answer
        for owner, counted in amounts.items():
            self.auditor.events[owner].update(counted)

    async def decide(self, customer: str, time_ms: int = 0) -> DecisionNote | None:
        number = self.asked.setdefault(f"decision {customer}", 0)
        if number >= DECISIONS_A_CUSTOMER_MAX:
            return None
        self.asked[f"decision {customer}"] += 1
        request = decisions_pb2.DecideRequest(
            request_id=f"{customer}-{number}",
            customer_id=customer,
            channel=self.dice.choice(("web", "branch")),
            time_ms=time_ms or self.loop.clock_ms() + self.dice.randrange(-2_000, 3_000),
            limit=self.dice.choice((0, 1, 3)),
        )
        if self.dice.random() < 0.5:
            request.context["minutes"].number = self.dice.randrange(60)
        if self.dice.random() < 0.2:
            asked = [self.ask(request), self.ask(request)]  # the caller is impatient
            return (await asyncio.gather(*asked))[0]
        return await self.ask(request)

    async def ask(self, request: Any) -> DecisionNote:
        while True:
            was_open = self.auditor.surely_open(request.customer_id)
            note = self.auditor.decided(request, await self.call("decide", request), was_open)
            if note is not None:
                return note
            await asyncio.sleep(0.3)  # a fallback answer: later there will be a real one

    async def journey(self, note: DecisionNote, offer: OfferNote) -> None:
        steps = list(enumerate(self.dice.choice(JOURNEYS)))
        if steps and self.dice.random() < 0.3:
            # Somebody finds out that one of them was wrong; not every correction is allowed.
            wrong = self.dice.randrange(len(steps))
            steps.append((-wrong - 1, self.dice.choice(("DECLINED", "ACCEPTED", "PRESENTED"))))
        last = -1  # the step that its stage is from: a correction of an earlier one leaves it where it is
        for step, stage in steps:
            await asyncio.sleep(self.dice.choice((0.1, 2.0, 15.0)) * self.dice.random())
            now_ms = self.loop.clock_ms()
            happened_ms = self.dice.choice((0, now_ms, now_ms - self.dice.randrange(10_000)))
            request = feedback_pb2.ReportRequest(
                outcome_id=f"{note.id}/{offer.offer}/{step}",
                decision_id=note.id,
                offer_id=offer.offer,
                stage=f"STAGE_{stage}",
                time_ms=max(happened_ms, note.time_ms) if happened_ms else 0,
                corrects=f"{note.id}/{offer.offer}/{-step - 1}" if step < 0 else "",
            )
            offer.reported = True
            for _ in range(self.dice.choice((1, 1, 2))):
                try:
                    await self.call("feedback.report", request)
                except NotAllowed:
                    self.auditor.refused += 1
                    break
            else:
                if step >= 0 or -step - 1 == last:
                    offer.stage = stage
                    last = step
                self.auditor.outcomes += 1

    # --- the whole story --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        publish_policy = self.memory.publish_policy

        async def noted(head: bytes, offers: Any) -> None:
            self.auditor.published(orjson.loads(head)["version"], head)
            await publish_policy(head, offers)

        self.memory.publish_policy = noted  # type: ignore[method-assign]
        await self.memory.save_config(self.catalogue.version, CONFIG)
        self.servers = [self.start_server(), self.start_server()]
        self.ingest, self.learn = self.start_ingest(), self.start_learning()
        chaos = asyncio.create_task(self.chaos())
        await asyncio.gather(*(self.caller() for _ in range(3)))
        chaos.cancel()
        await asyncio.gather(chaos, return_exceptions=True)
        if not chaos.cancelled() and chaos.exception() is not None:
            raise chaos.exception() or AssertionError
        self.faults.end()
        # Chaos may have been interrupted between a death and the next life.
        for process in (self.ingest, self.learn, *(process for process, _ in self.servers)):
            await process.kill()
        self.servers = [self.start_server(), self.start_server()]
        self.ingest, self.learn = self.start_ingest(), self.start_learning()
        await asyncio.gather(*self.journeys)
        await self.close_windows()
        await self.stop()
        assert not self.failures, self.failures
        await self.audit()

    async def close_windows(self) -> None:
        """Events move time: one more decision in every partition, later than all windows."""
        await asyncio.sleep(60)
        left = set(range(PARTITIONS))
        for n in range(1_000):
            if (home := partition_of(f"last-{n}", PARTITIONS)) in left:
                left.remove(home)
                note = await self.decide(f"last-{n}", self.loop.clock_ms())
                assert note is not None
                for offer in note.offers:
                    offer.stage = "WITHDRAWN"  # still open: teaches nothing yet

    async def stop(self) -> None:
        await asyncio.sleep(5)
        assert self.learning is not None
        self.learning.stop()
        await asyncio.sleep(5)
        await self.ingest.kill()
        await self.learn.kill()

    async def audit(self) -> None:
        vectors = {}
        ends = await self.memory.read_decisions(dict.fromkeys(range(PARTITIONS), Offset.ZERO), 10**9, 0)
        for customer in self.customers:
            asked = customers_pb2.GetCustomerRequest(customer_id=customer, page_size=500)
            answer = await self.call("customers.get", asked)
            self.auditor.check_customer(customer, answer)
        for note in self.auditor.decisions.values():
            answer = await self.call("explain", decisions_pb2.ExplainRequest(decision_id=note.id))
            self.auditor.check_explained(note, answer)
            vectors[note.id] = [put.steps for put in answer.inputs]
        learner = Learner.restore(self.catalogue, PARTITIONS, await self.memory.load_checkpoint())
        for partition, entries in ends.items():
            assert learner.offsets[partition] == entries[-1].offset, "the learner has read everything"
        assert learner.lost == 0
        self.auditor.check_learnt(self.catalogue, learner.statistics, vectors)
        for _, service in self.servers:
            assert service.decider.policy.version == max(self.auditor.policies, default=0)
        findings = await replay(self.catalogue, self.memory, now_ms=self.loop.clock_ms())
        assert findings.verdict is Verdict.EQUAL, findings
        decisions = findings.counts["decisions and outcomes read again"]
        assert decisions == len(self.auditor.decisions) + self.auditor.outcomes, "nothing was recorded twice"


def simulate(seed: int, actions: int = 10) -> World:
    """One simulation. Raises whatever it finds, with the seed."""
    loop = VirtualLoop()
    world = World(seed, loop, actions)
    try:
        loop.run_until_complete(world.run())
    except BaseException as error:
        again = f"python -m tests.simulation.run --first {seed} --seeds 1 --actions {actions}"
        error.add_note(f"simulation seed {seed}; once more: {again}")
        raise
    finally:
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        loop.close()
    return world
