"""Servers that only benchmarks start.

    python -m bench.server empty native|grpcio      answers any Decide with an empty message: the ceiling of a transport
    python -m bench.server serve --settings JSON    the engine's serve worker, drawing the customer of each request

h2load sends the same bytes again and again. So that 100,000 customers take part, the benchmark's serve worker puts a
customer drawn from them into every request it has parsed; all else is the engine's own. It makes the server do a little
more than it has to, never less.
"""

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import click
import grpc
import uvloop

from bench.workload import BODY_CUSTOMER, SEED, customer_id
from engine import worker
from engine.calls import Call
from engine.drafts import Ask
from engine.front import FrontServer
from engine.service import Service
from opportune.v1 import decisions_pb2, decisions_pb2_grpc


@click.group()
def main() -> None:
    """Servers for benchmarks."""


@main.command()
@click.argument("transport", type=click.Choice(["native", "grpcio"]))
def empty(transport: str) -> None:
    """Serve empty answers until stdin ends."""
    uvloop.run(_empty(transport))


async def _empty(transport: str) -> None:
    """The ceilings: the server that the engine serves on and grpcio's, each parsing the request and saying nothing."""
    parse, nothing = decisions_pb2.DecideRequest.FromString, decisions_pb2.DecideResponse()
    server = grpc.aio.server()
    if transport == "native":

        def answer(data: bytes, call: Call) -> None:
            parse(data)
            call.answer(nothing.SerializeToString())

        front = FrontServer({"/opportune.v1.Decisions/Decide": answer}, {}, server)
        port = await front.start("127.0.0.1:0")
        stop: Callable[[float], Awaitable[None]] = front.stop
    else:

        class Nothing(decisions_pb2_grpc.DecisionsServicer):
            async def Decide(self, request: Any, context: Any) -> Any:
                return nothing

            async def Explain(self, request: Any, context: Any) -> Any:
                return decisions_pb2.ExplainResponse()

        decisions_pb2_grpc.add_DecisionsServicer_to_server(Nothing(), server)  # type: ignore[abstract]  # Decide alone
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        stop = server.stop
    print("ready", port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await stop(0)


class DrawnCustomers(Service):
    """The service, with a customer drawn for every Decide."""

    drawn_from: Sequence[str] = ()
    _dice = random.Random(SEED)

    def ask(self, request: decisions_pb2.DecideRequest) -> Ask:
        """Ask for one of the customers, if the request names the one of the load's body."""
        if request.customer_id == BODY_CUSTOMER:
            request.customer_id = self.drawn_from[int(self._dice.random() * len(self.drawn_from))]
        return super().ask(request)


@main.command()
@click.option("--settings", "settings_json", required=True)
@click.option("--customers", type=int, required=True)
def serve(settings_json: str, customers: int) -> None:
    """Run the engine's serve worker."""
    DrawnCustomers.drawn_from = [customer_id(number) for number in range(customers)]
    worker.run(partial(worker.serve, service_type=DrawnCustomers), settings_json)


if __name__ == "__main__":
    main()
