"""How long until news counts: an event in the next decision, an outcome in the policy that serves it.

Measured from the moment the caller had the acknowledgement to the moment a decision that shows it had arrived, by
asking again and again: the figures are upper bounds. Meanwhile events and decisions of other customers go on, on a
schedule.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

import grpc
import numpy as np
import uvloop
from rich.progress import Progress

from bench.engine import Running, engine, scratch
from bench.eventload import EventLoad
from bench.load import HOW_TO_GET_H2LOAD, generator, opened
from bench.report import Report
from bench.workload import SMALL, Size, customer_id, decide_body
from engine.limits import PARTITIONS
from engine.record import parse_decision_id
from features import Offset
from opportune.v1 import (
    common_pb2,
    decisions_pb2,
    decisions_pb2_grpc,
    events_pb2,
    events_pb2_grpc,
    feedback_pb2,
    feedback_pb2_grpc,
)

BACKGROUND_PER_S: Final = 1_000
WAIT_S_MAX: Final = 10.0
ASK_AGAIN_S: Final = 0.0005


def run(*, small: bool) -> Report:
    """Run it and return what was found."""
    size = SMALL if small else Size(customers=10_000)
    events, outcomes, seconds = (30, 5, 3) if small else (2_000, 150, 60)
    report = Report("freshness", generator())
    if not report.generator.startswith("h2load"):
        report.notes.append(HOW_TO_GET_H2LOAD)
    with scratch() as folder, Progress(transient=True) as progress, engine(size, folder) as running:
        task = progress.add_task("events and outcomes", total=events + outcomes)
        uvloop.run(_measure(running, events, outcomes, seconds, report, lambda: progress.advance(task)))
    return report


async def _measure(
    running: Running, events: int, outcomes: int, seconds: int, report: Report, advance: Callable[[], None]
) -> None:
    """Events and outcomes one after the other, under the same background, until both counts or the time are reached."""
    loop = asyncio.get_running_loop()
    events_meanwhile = EventLoad(running.grpc, seconds)
    background = loop.run_in_executor(
        None, lambda: opened(running.grpc, decide_body(), per_second=BACKGROUND_PER_S, seconds=seconds)
    )
    await asyncio.sleep(0.5)
    deadline_s = time.monotonic() + seconds - 1.0
    event_ms: list[float] = []
    outcome_ms: list[float] = []
    async with grpc.aio.insecure_channel(running.grpc) as channel:
        probe = Probe(channel)
        while len(outcome_ms) < outcomes and (time.monotonic() < deadline_s or not outcome_ms):
            for _ in range(events // outcomes):
                event_ms.append(await probe.event())
                advance()
            outcome_ms.append(await probe.outcome())
            advance()
    load = await background
    events_per_s = await loop.run_in_executor(None, events_meanwhile.acknowledged_per_s)
    meanwhile = f"{events_per_s:,.0f} other events/s and {load.requests_per_s:,.0f} other decisions/s meanwhile"
    against = f"acknowledged → in a decision, {meanwhile}"
    _add(report, "freshness.event", event_ms, against)
    _add(report, "freshness.outcome", outcome_ms, against.replace("in a decision", "in the policy of a decision"))


def _add(report: Report, name: str, values_ms: Sequence[float], against: str) -> None:
    for percent in (50, 99):
        found = float(np.percentile(np.asarray(values_ms), percent))
        report.add(f"{name}_p{percent}_ms", found, "ms", f"{len(values_ms)} × {against}")


class Probe:
    """Sends news and asks until it shows."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._decisions = decisions_pb2_grpc.DecisionsStub(channel)
        self._events = events_pb2_grpc.EventsStub(channel)
        self._feedback = feedback_pb2_grpc.FeedbackStub(channel)
        self._number = 0

    async def event(self) -> float:
        """Milliseconds from an event's acknowledgement to a decision that was made with it."""
        self._number += 1
        customer = customer_id(1_000_000 + self._number)
        event = events_pb2.Event(id=str(self._number), source="/bench", type="channel.event_0", customer_id=customer)
        event.attributes["amount_0"].number = 1.0
        answer = await self._events.Publish(events_pb2.PublishRequest(events=[event]))
        acknowledged_s = time.perf_counter()
        place = parse_decision_id(answer.positions[0], PARTITIONS)
        assert place is not None
        while True:
            response = await self._decide(customer)
            now_s = time.perf_counter()
            if response.state.known and Offset.parse(response.state.watermark) >= place[1]:
                return (now_s - acknowledged_s) * 1e3
            _check(acknowledged_s, "an event")
            await asyncio.sleep(ASK_AGAIN_S)

    async def outcome(self) -> float:
        """Milliseconds from an outcome's acknowledgement to a decision by a policy that learnt from it.

        There are no other outcomes and none is still to be learnt: the next version of the policy is this one's.
        """
        self._number += 1
        customer = customer_id(1_000_000 + self._number)
        before = await self._settled(customer)
        report = feedback_pb2.ReportRequest(
            outcome_id=f"outcome-{self._number}",
            decision_id=before.decision_id,
            offer_id=before.offers[0].offer_id,
            stage=common_pb2.STAGE_ACCEPTED,
        )
        await self._feedback.Report(report)
        acknowledged_s = time.perf_counter()
        while True:
            response = await self._decide(customer)
            now_s = time.perf_counter()
            if response.policy_version > before.policy_version:
                return (now_s - acknowledged_s) * 1e3
            _check(acknowledged_s, "an outcome")
            await asyncio.sleep(ASK_AGAIN_S * 4)

    async def _settled(self, customer: str) -> decisions_pb2.DecideResponse:
        """A decision with an offer, after the policy has stood still for a while."""
        last = await self._decide(customer)
        since_s = time.perf_counter()
        while time.perf_counter() - since_s < 0.1 or not last.offers:
            response = await self._decide(customer)
            if response.policy_version != last.policy_version:
                since_s = time.perf_counter()
            last = response
            await asyncio.sleep(0.01)
        return last

    async def _decide(self, customer: str) -> decisions_pb2.DecideResponse:
        request = decisions_pb2.DecideRequest(customer_id=customer, channel="web", placement="home")
        response: decisions_pb2.DecideResponse = await self._decisions.Decide(request, timeout=5.0)
        return response


def _check(since_s: float, what: str) -> None:
    if time.perf_counter() - since_s > WAIT_S_MAX:
        raise RuntimeError(f"{what} did not show within {WAIT_S_MAX} s")
