"""A stream of events beside what is measured: `python -m bench.eventload ADDRESS SECONDS`, a process of its own.

Events come on a schedule, EVENTS_PER_S a second, in calls of EVENTS_A_CALL, for customers in turn.
"""

import asyncio
import subprocess
import sys
import time
from typing import Final

import click
import grpc
import uvloop

from bench.workload import customer_id
from opportune.v1 import events_pb2, events_pb2_grpc

EVENTS_PER_S: Final = 2_000
EVENTS_A_CALL: Final = 20
CUSTOMERS: Final = 10_000


class EventLoad:
    """The process, started."""

    def __init__(self, address: str, seconds: float) -> None:
        argv = [sys.executable, "-m", "bench.eventload", address, str(seconds)]
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)

    def acknowledged_per_s(self) -> float:
        """Wait for its end; the events that were acknowledged, a second."""
        out, _ = self._process.communicate(timeout=600)
        return float(out)


async def _publish(address: str, seconds: float) -> None:
    accepted = 0
    async with grpc.aio.insecure_channel(address) as channel:
        stub = events_pb2_grpc.EventsStub(channel)

        async def call(number: int) -> None:
            nonlocal accepted
            request = events_pb2.PublishRequest()
            for n in range(number, number + EVENTS_A_CALL):
                customer = customer_id(n * 7919 % CUSTOMERS)
                event = request.events.add(
                    id=str(n), source="/load", type=f"channel.event_{n % 8}", customer_id=customer
                )
                event.attributes["amount_0"].number = n % 100
            accepted += (await stub.Publish(request, timeout=10.0)).accepted

        began_s = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(0, int(EVENTS_PER_S * seconds), EVENTS_A_CALL):
                await asyncio.sleep(max(0.0, began_s + number / EVENTS_PER_S - time.perf_counter()))
                group.create_task(call(number))
        print(accepted / (time.perf_counter() - began_s), flush=True)


@click.command()
@click.argument("address")
@click.argument("seconds", type=float)
def main(address: str, seconds: float) -> None:
    """Publish events, and print how many were acknowledged a second."""
    uvloop.run(_publish(address, seconds))


if __name__ == "__main__":
    main()
