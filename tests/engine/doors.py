"""Three doors to one service: the object itself and real gRPC over both transports."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message

from engine.errors import OpportuneError
from engine.rpc import Server
from engine.service import Service, methods
from opportune.v1 import customers_pb2, decisions_pb2, events_pb2, feedback_pb2
from tests.small_engine import SmallEngine

ANSWERS: dict[str, Any] = {
    "Decisions/Decide": decisions_pb2.DecideResponse,
    "Decisions/Explain": decisions_pb2.ExplainResponse,
    "Feedback/Report": feedback_pb2.ReportResponse,
    "Events/Publish": events_pb2.PublishResponse,
    "Customers/Get": customers_pb2.Customer,
}


@dataclass
class Door:
    """A way in. `call` returns (status, message, answer); status "OK" comes with the answer."""

    engine: SmallEngine
    service: Service
    channel: grpc.aio.Channel | None = None

    async def call(self, method: str, request: Message) -> tuple[str, str, Any]:
        _, request_type, call = self._method(method)
        if self.channel is not None:
            return await self.send(method, request.SerializeToString())
        try:
            return "OK", "", await call(request_type.FromString(request.SerializeToString()))
        except OpportuneError as error:
            return error.grpc_status.name, str(error), None

    async def send(self, method: str, data: bytes) -> tuple[str, str, Any]:
        """Send bytes as they are, whether they are a message or not."""
        assert self.channel is not None
        try:
            answer = await self.channel.unary_unary(f"/opportune.v1.{method}")(data, timeout=20.0)
        except grpc.aio.AioRpcError as error:
            return error.code().name, error.details() or "", None
        return "OK", "", ANSWERS[method].FromString(answer)

    def _method(self, name: str) -> Any:
        [found] = [entry for entry in methods(self.service) if entry[0] == f"opportune.v1.{name}"]
        return found


async def doors(kind: str) -> AsyncIterator[Door]:
    engine = SmallEngine()
    if kind == "direct":
        yield Door(engine, engine.service)
        return
    server = Server(engine.service, kind)
    port = await server.start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Door(engine, engine.service, channel)
    await server.stop(1.0)
