"""The replay: calls as a call centre would send them over gRPC, in the order of the file, several at a time.

Nobody peeks. A call's profile is published when the dial list reaches it, a second or two before; its facts go with the
question; its answer is looked at only after the engine chose to pitch, and reported at once. Calls start in order and
up to `concurrency` of them are under way at a time, so the policy in service has not heard of the newest answers. That
lag depends on the machine, so the value differs by a few per cent from run to run.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

import grpc
import numpy as np

from engine.answers import plain_value
from engine.demo_calls import Call
from engine.errors import OpportuneError
from opportune.v1 import (
    customers_pb2,
    customers_pb2_grpc,
    decisions_pb2,
    decisions_pb2_grpc,
    events_pb2,
    events_pb2_grpc,
    feedback_pb2,
    feedback_pb2_grpc,
)
from opportune.v1.common_pb2 import STAGE_ACCEPTED, STAGE_DECLINED

CHANNEL: Final = "call_centre"
PLACEMENT: Final = "outbound"
SOURCE: Final = "crm"
PROFILE: Final = "crm.profile"

AHEAD: Final = 2_000
"""Calls by which the dial list is ahead of the one that starts."""
PUBLISH_BATCH: Final = 200
DIAL_LIST_BEFORE_MS: Final = 86_400_000
"""A profile is of the day before the call."""
_TIMEOUT_S: Final = 10.0
_FOLDED_S_MAX: Final = 10.0
_POLL_S: Final = 0.01

assert PUBLISH_BATCH <= AHEAD


class Replay:
    """One replay and its figures, which may be read while it runs."""

    def __init__(self, calls: Sequence[Call], value: float, contact_cost: float) -> None:
        self.calls = calls
        self.yes = np.array([call.yes for call in calls], np.bool_)
        self.gain = np.where(self.yes, value, 0.0) - contact_cost
        """What pitching is worth in each call; leaving the customer alone is worth 0."""
        self.pitched = np.zeros(len(calls), np.bool_)
        self.decide_ms = np.full(len(calls), np.nan)
        """How long each decision took, seen from the caller; NaN while it is not made."""
        self.started = 0
        self.decisions = 0
        self.events = 0
        self.outcomes = 0
        self.unknown = 0
        """Decisions for which the engine had no profile yet."""
        self.degraded = 0
        self.excluded = 0
        """Decisions in which the rules allowed no pitch."""
        self.seconds = 0.0
        """From the first call to the end of the last one."""
        self._published = 0
        self._publish_more = asyncio.Event()
        self._published_more = asyncio.Event()
        self._started_s: float | None = None

    @property
    def running_s(self) -> float:
        """Seconds since the first call."""
        return self.seconds or (0.0 if self._started_s is None else time.perf_counter() - self._started_s)

    @property
    def value(self) -> float:
        """What the pitches so far were worth."""
        return float(self.gain[self.pitched].sum())

    @property
    def regret(self) -> float:
        """How much more pitching to exactly those who say yes would have been worth in the calls decided so far."""
        decided = ~np.isnan(self.decide_ms)
        return float(self.gain[decided & (self.gain > 0)].sum()) - self.value

    def decide_ms_at(self, *percentiles: float) -> list[float]:
        """Percentiles of the time a decision took."""
        made = self.decide_ms[~np.isnan(self.decide_ms)]
        return [float(at) for at in np.percentile(made, percentiles)] if len(made) else [0.0] * len(percentiles)

    async def run(self, address: str, concurrency: int) -> None:
        """Replay all calls. Raises grpc.RpcError or OpportuneError when the engine fails."""
        async with grpc.aio.insecure_channel(address) as channel:
            client = _Client(channel)
            under_way = asyncio.Semaphore(concurrency)
            try:
                async with asyncio.TaskGroup() as tasks:
                    dial_list = tasks.create_task(self._publish(client))
                    await self._first_profiles(client)
                    self._started_s = time.perf_counter()
                    for call in self.calls:
                        while call.number >= self._published:
                            self._published_more.clear()
                            await self._published_more.wait()
                        await under_way.acquire()
                        self.started = call.number + 1
                        self._publish_more.set()
                        tasks.create_task(self._one(client, call)).add_done_callback(lambda _: under_way.release())
                    await dial_list
            except BaseExceptionGroup as group:
                raise group.exceptions[0] from group  # the others were cancelled or failed for the same reason
            finally:
                self.seconds = self.running_s

    async def _publish(self, client: "_Client") -> None:
        """Keep the dial list ahead of the calls."""
        for first in range(0, len(self.calls), PUBLISH_BATCH):
            while first >= self.started + AHEAD:
                self._publish_more.clear()
                await self._publish_more.wait()
            batch = self.calls[first : first + PUBLISH_BATCH]
            request = events_pb2.PublishRequest(events=[profile_event(call) for call in batch])
            receipt = await client.publish(request, timeout=_TIMEOUT_S)
            for refused in receipt.rejected:
                raise OpportuneError(f"the engine refused event {refused.id}: {refused.reason}")
            self.events += receipt.accepted
            self._published = first + len(batch)
            self._published_more.set()

    async def _first_profiles(self, client: "_Client") -> None:
        """Wait until the engine knows the first customers: their list was there the day before."""
        last = self.calls[min(PUBLISH_BATCH, len(self.calls)) - 1]
        request = customers_pb2.GetCustomerRequest(customer_id=last.customer, time_ms=last.time_ms)
        deadline_s = time.monotonic() + _FOLDED_S_MAX
        while not (await client.get_customer(request, timeout=_TIMEOUT_S)).state.known:
            if time.monotonic() > deadline_s:
                raise OpportuneError(f"the first profiles did not reach the engine's state within {_FOLDED_S_MAX:g} s")
            await asyncio.sleep(_POLL_S)

    async def _one(self, client: "_Client", call: Call) -> None:
        request = decide_request(call)
        asked_s = time.perf_counter()
        decision = await client.decide(request, timeout=_TIMEOUT_S)
        self.decide_ms[call.number] = (time.perf_counter() - asked_s) * 1e3
        self.decisions += 1
        self.unknown += not decision.state.known
        self.degraded += decision.degraded != 0
        self.excluded += decision.nothing_reason.code == "not_eligible"
        # The caller pitches what it is told to pitch. What cannot be reported on is not pitched.
        if decision.offers and decision.decision_id:
            self.pitched[call.number] = True
            await client.report(report_request(call, decision), timeout=_TIMEOUT_S)
            self.outcomes += 1


class _Client:
    """The calls that the replay makes."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        # The stubs are typed for the blocking API; on an asyncio channel their methods are awaitable.
        self.publish: Any = events_pb2_grpc.EventsStub(channel).Publish
        self.decide: Any = decisions_pb2_grpc.DecisionsStub(channel).Decide
        self.report: Any = feedback_pb2_grpc.FeedbackStub(channel).Report
        self.get_customer: Any = customers_pb2_grpc.CustomersStub(channel).Get


def profile_event(call: Call) -> events_pb2.Event:
    """What the dial list says of a customer."""
    return events_pb2.Event(
        id=f"profile-{call.number}",
        source=SOURCE,
        type=PROFILE,
        customer_id=call.customer,
        time_ms=call.time_ms - DIAL_LIST_BEFORE_MS,
        attributes={name: plain_value(value) for name, value in call.profile.items()},
    )


def decide_request(call: Call) -> decisions_pb2.DecideRequest:
    """What the agent's desktop asks when the call begins."""
    return decisions_pb2.DecideRequest(
        request_id=f"call-{call.number}",
        customer_id=call.customer,
        channel=CHANNEL,
        placement=PLACEMENT,
        context={name: plain_value(value) for name, value in call.facts.items()},
        time_ms=call.time_ms,
    )


def report_request(call: Call, decision: decisions_pb2.DecideResponse) -> feedback_pb2.ReportRequest:
    """What the customer answered to the pitch."""
    return feedback_pb2.ReportRequest(
        outcome_id=f"answer-{call.number}",
        decision_id=decision.decision_id,
        offer_id=decision.offers[0].offer_id,
        stage=STAGE_ACCEPTED if call.yes else STAGE_DECLINED,
        time_ms=call.time_ms,
    )
