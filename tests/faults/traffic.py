"""Callers that do not give up, and the notes by which to check afterwards: what was acknowledged is there, once.

Each caller has customers of its own. Amounts of a customer's events are powers of two, so a sum tells which of them
were counted. A call that fails is sent again with the same ids until it is answered.
"""

import asyncio
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random
from typing import Any, Self

import grpc

from engine.catalogue import Catalogue
from engine.config import load
from engine.learner import Learner
from engine.limits import PARTITIONS
from engine.store import RedisStore
from opportune.v1 import customers_pb2, decisions_pb2, events_pb2, feedback_pb2
from tests.engine_process import Client, EngineProcess
from tests.waiting import wait_until

CALLERS = 3
DEADLINE_S = 4.0
"""Longer than the store may take before the engine says UNAVAILABLE: nothing may run into it."""
GRACE_S = 2.0
"""How much later than its deadline a call may come back on a busy machine."""
EVENTS_MAX = 12
DECISIONS_MAX = 6
STAGES = (("PRESENTED", "ACCEPTED"), ("DECLINED",), ("ACCEPTED", "FULFILLED"), ("ACCEPTED", "CANCELLED"), ())
TARGETS = {"ACCEPTED": 100, "FULFILLED": 100, "DECLINED": 0, "CANCELLED": 0}


@dataclass
class Notes:
    """What one caller was told."""

    spent: Counter[str] = field(default_factory=Counter)
    decisions: dict[str, Any] = field(default_factory=dict)
    """Answers by decision id."""
    stages: dict[tuple[str, str], str] = field(default_factory=dict)
    """Last acknowledged stage by (decision, offer)."""
    statuses: Counter[str] = field(default_factory=Counter)


class Traffic:
    """Callers in threads, from construction until `stop`."""

    def __init__(self, engine: EngineProcess, seed: int) -> None:
        self._address = engine.grpc
        self._ending = threading.Event()
        self._giving_up = threading.Event()
        self.notes = [Notes() for _ in range(CALLERS)]
        self._pool = ThreadPoolExecutor(CALLERS)
        self._callers = [self._pool.submit(self._run, at, Random(seed * 100 + at)) for at in range(CALLERS)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._giving_up.set()
        self._pool.shutdown()

    def stop(self) -> None:
        """Let every call under way be answered, and end."""
        self._ending.set()
        for caller in self._callers:
            caller.result(timeout=40)

    def give_up(self) -> None:
        """End now: the calls that are not answered yet are not sent again."""
        self._giving_up.set()
        self.stop()

    @property
    def acknowledged(self) -> int:
        return sum(notes.statuses["OK"] for notes in self.notes)

    @property
    def statuses(self) -> Counter[str]:
        return sum((notes.statuses for notes in self.notes), Counter())

    def wait_for_more(self, calls: int = 50) -> None:
        """Until so many more calls were answered."""
        enough = self.acknowledged + calls
        wait_until(lambda: self.acknowledged >= enough, 30, f"{calls} calls are answered")

    # --- a caller ---------------------------------------------------------------------------------------------------

    def _run(self, caller: int, dice: Random) -> None:
        notes = self.notes[caller]
        with Client(self._address) as client:
            for number in range(1_000_000):
                if self._ending.is_set():
                    return
                self._serve(client, f"c{caller}-{number}", dice, notes)

    def _serve(self, client: Client, customer: str, dice: Random, notes: Notes) -> None:
        bit = 0
        for step in range(DECISIONS_MAX):
            if self._ending.is_set():
                return
            request = events_pb2.PublishRequest()
            for _ in range(dice.randint(0, EVENTS_MAX // DECISIONS_MAX)):
                event = request.events.add(id=str(bit), source=customer, type="purchase", customer_id=customer)
                event.attributes["amount"].number = 2**bit
                bit += 1
            if request.events and self._call(client.events.Publish, request, notes):
                notes.spent[customer] += sum(int(event.attributes["amount"].number) for event in request.events)
            asked = decisions_pb2.DecideRequest(
                request_id=f"{customer}-{step}", customer_id=customer, channel=dice.choice(("web", "branch"))
            )
            answer = self._decide(client, asked, notes)
            for offer in answer.offers if answer else ():
                for stage in dice.choice(STAGES):
                    self._report(client, answer.decision_id, offer.offer_id, stage, notes)

    def _decide(self, client: Client, request: Any, notes: Notes) -> Any:
        while (answer := self._call(client.decisions.Decide, request, notes)) is not None:
            if answer.decision_id:
                notes.decisions[answer.decision_id] = answer
                return answer
            assert answer.degraded in (1, 2), answer
            assert [offer.offer_id for offer in answer.offers] == ["card"]
            if self._giving_up.wait(0.1):
                return None
        return None

    def _report(self, client: Client, decision: str, offer: str, stage: str, notes: Notes) -> None:
        request = feedback_pb2.ReportRequest(
            outcome_id=f"{decision}/{offer}/{stage}", decision_id=decision, offer_id=offer, stage=f"STAGE_{stage}"
        )
        if self._call(client.feedback.Report, request, notes):
            notes.stages[decision, offer] = stage

    def _call(self, method: Any, request: Any, notes: Notes) -> Any:
        """The answer, however often it takes; None if the traffic gave up."""
        while True:
            began_s = time.monotonic()
            try:
                answer = method(request, timeout=DEADLINE_S)
            except grpc.RpcError as error:
                notes.statuses[error.code().name] += 1
                assert error.code() in RETRIED, f"{type(request).__name__}: {error.code()}: {error.details()}"
                if self._giving_up.wait(0.05):
                    return None
            else:
                notes.statuses["OK"] += 1
                return answer
            finally:
                took_s = time.monotonic() - began_s
                assert took_s < DEADLINE_S + GRACE_S, f"{type(request).__name__} took {took_s:.1f} s"

    # --- the audit --------------------------------------------------------------------------------------------------

    def check(self, engine: EngineProcess) -> None:
        """After `stop`, on an engine that serves: all that was acknowledged is there and learnt, exactly once."""
        stages = self.check_kept(engine)
        targets = [TARGETS[stage] for stage in stages.values() if stage in TARGETS]
        wait_until(
            lambda: asyncio.run(_learnt(engine)) == (len(targets), sum(t**2 for t in targets)), 20, "all is learnt"
        )

    def check_kept(self, engine: EngineProcess) -> dict[tuple[str, str], str]:
        """As `check`, where others have taught something too; returns the last stage by (decision, offer)."""
        spent = sum((notes.spent for notes in self.notes), Counter())
        decisions = {at: answer for notes in self.notes for at, answer in notes.decisions.items()}
        stages = {place: stage for notes in self.notes for place, stage in notes.stages.items()}
        kept: dict[tuple[str, str], int] = {}
        with engine.client() as client:
            for customer in {answer.customer_id for answer in decisions.values()} | set(spent):
                wanted = spent[customer]
                found = wait_until(lambda: _customer(client, customer, wanted), 20, f"{wanted:b} spent by {customer}")  # noqa: B023
                kept |= {(offer.decision_id, offer.offer_id): offer.stage for offer in found.offers}
            for at, answer in decisions.items():
                told = client.decisions.Explain(decisions_pb2.ExplainRequest(decision_id=at), timeout=5)
                ranked = sorted((c for c in told.candidates if c.rank), key=lambda c: c.rank)
                assert [(c.offer_id, c.propensity) for c in ranked] == [
                    (offer.offer_id, offer.propensity) for offer in answer.offers
                ]
                assert all(0.0 < candidate.propensity <= 1.0 for candidate in ranked)
        assert {decision for decision, _ in kept} <= set(decisions), "a decision nobody was told of"
        for place, stage in stages.items():
            assert kept[place] == feedback_pb2.ReportRequest(stage=f"STAGE_{stage}").stage, (place, stage)
        return stages


RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED)
"""Answers after which a caller tries again. CANCELLED is what a dying server may leave behind."""


def _customer(client: Client, customer: str, spent: int) -> Any:
    found = client.customers.Get(customers_pb2.GetCustomerRequest(customer_id=customer), timeout=5)
    counted = int(next(feature.value.number for feature in found.features if feature.name == "spent"))
    assert counted & ~spent == 0, f"{customer}: counted {counted:b}, acknowledged {spent:b}"
    return found if counted == spent else None


async def _learnt(engine: EngineProcess) -> tuple[int, int]:
    """(lessons, sum of their squared targets) of the last checkpoint."""
    config, version, text = load(engine.config)
    catalogue = Catalogue.compile(config, version, text)
    store = await RedisStore.open(engine.redis_url, PARTITIONS)
    try:
        learner = Learner.restore(catalogue, PARTITIONS, await store.load_checkpoint())
    finally:
        await store.close()
    sums = [learner.statistics.combined(offer, 0, None) for offer in learner.statistics.offers]
    return int(sum(each.n for each in sums)), int(sum(each.s for each in sums))
