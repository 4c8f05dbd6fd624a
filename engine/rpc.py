"""The gRPC edge: the services of engine.service on our own HTTP/2 or on grpcio, with health and reflection.

Our own ("native", engine.front) answers an empty call at some twenty times the rate of grpc.aio; it is the default.
grpcio serves where it is asked for.

Messages are decoded here rather than by the transport: bytes that are no message are then the caller's error
(INVALID_ARGUMENT, and what was wrong), where a transport would answer INTERNAL.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from engine.calls import Call, DirectHandler
from engine.errors import InvalidArgument
from engine.front import AsyncHandler, FrontServer
from engine.limits import MESSAGE_BYTES_MAX
from engine.service import Service, methods, streams
from engine.serving import Answer
from engine.status import status_of
from opportune.v1 import decisions_pb2

TRANSPORTS: Final = ("native", "grpcio")
POLICIES: Final = "opportune.v1.Policies"
_DECIDE: Final = "opportune.v1.Decisions/Decide"
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    # Several servers share one port: the kernel spreads connections over them.
    ("grpc.so_reuseport", 1),
)


def parsed(request_type: Any, data: bytes) -> Any:
    """The message. Raises InvalidArgument for bytes that are none."""
    try:
        return request_type.FromString(data)
    except DecodeError as error:
        name = request_type.DESCRIPTOR.full_name
        raise InvalidArgument(f"the body is no valid {name} message: {error}") from error


def handler(request_type: Any, call: Callable[[Any], Awaitable[Message]]) -> AsyncHandler:
    """A handler on bytes around a method of the service."""

    async def handle(data: bytes) -> bytes:
        return (await call(parsed(request_type, data))).SerializeToString()

    return handle


class _DecideCall:
    """A Decide call on the native front, answered by the decider without a task of its own."""

    __slots__ = ("_call", "_looking_up", "_service")

    def __init__(self, service: Service, call: Call) -> None:
        self._service = service
        self._call = call
        self._looking_up = False

    def done(self) -> bool:
        return self._looking_up or self._call.gone

    def set_result(self, answer: Answer) -> None:
        written = self._service.written_now(answer)
        if written is not None:
            self._call.answer(written)
        else:
            self._looking_up = True
            self._service.keep(asyncio.ensure_future(self._look_up(answer)))

    def set_exception(self, error: Exception) -> None:
        self._call.fail(error)

    async def _look_up(self, answer: Answer) -> None:
        try:
            self._call.answer(await self._service.written(answer))
        except Exception as error:
            self._call.fail(error)


def _decide_directly(service: Service) -> DirectHandler:
    parse, enqueue = decisions_pb2.DecideRequest, service.enqueue

    def decide(data: bytes, call: Call) -> None:
        enqueue(parsed(parse, data), _DecideCall(service, call), call.within_s)

    return decide


class Server:
    """One gRPC server on the running event loop."""

    def __init__(self, service: Service, transport: str = "native") -> None:
        assert transport in TRANSPORTS, transport
        # The servicer of grpcio-health-checking for asyncio.
        self.health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # not in the stubs
        handlers = {path: handler(request_type, call) for path, request_type, call in methods(service)}
        self._names: Final = (*dict.fromkeys(path.split("/")[0] for path in handlers), "")
        self._grpcio = grpc.aio.server(options=_OPTIONS)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._grpcio)
        names = (*self._names[:-1], health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._grpcio, _Symbols())  # type: ignore[arg-type]  # passes for one
        self._front: FrontServer | None = None
        if transport == "native":
            tasks = {f"/{path}": handle for path, handle in handlers.items() if path != _DECIDE}
            self._front = FrontServer({f"/{_DECIDE}": _decide_directly(service)}, tasks, self._grpcio)
            handlers = {}
        _register(self._grpcio, service, handlers)

    async def refuses_versions(self, refused: bool) -> None:
        """Tell health checks of Policies that the version in force is not the one that serves here, or is again."""
        status = health_pb2.HealthCheckResponse
        await self.health.set(POLICIES, status.NOT_SERVING if refused else status.SERVING)

    async def start(self, address: str) -> int:
        """Listen on "host:port" and return the port. Raises OSError if the address cannot be had."""
        if self._front is not None:
            port = await self._front.start(address)
        else:
            try:
                port = self._grpcio.add_insecure_port(address)
            except RuntimeError as error:
                raise OSError(f"cannot listen for gRPC on {address}: {error}") from error
            await self._grpcio.start()
        for name in self._names:
            await self.health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return port

    async def leave(self) -> None:
        """Tell health checks, and take no more calls; those under way go on."""
        await self.health.enter_graceful_shutdown()
        if self._front is not None:
            await self._front.leave()

    async def stop(self, grace_s: float) -> None:
        """Leave, let calls under way finish within `grace_s`, then cut them."""
        await self.leave()
        await (self._front or self._grpcio).stop(grace_s)


class _Symbols:
    """The descriptors that reflection looks things up in: protobuf's own does not know methods by their names."""

    def __init__(self) -> None:
        self._pool: Any = descriptor_pool.Default()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> Any:
        """Descriptor of the file that declares it. Raises KeyError."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            declared = self._pool.FindServiceByName(service)
            if method not in declared.methods_by_name:
                raise
            return declared.file


def _register(server: grpc.aio.Server, service: Service, handlers: Mapping[str, AsyncHandler]) -> None:
    """Have grpcio serve these, and what streams: the native front hands that on."""
    found: dict[str, Any] = {
        path: grpc.unary_unary_rpc_method_handler(
            _decide_within(service) if path == _DECIDE else _with_context(handle)
        )
        for path, handle in handlers.items()
    }
    found |= {
        path: grpc.unary_stream_rpc_method_handler(_streaming(request_type, call))
        for path, request_type, call in streams(service)
    }
    services: dict[str, dict[str, Any]] = {}
    for path, method_handler in found.items():
        name, method = path.split("/")
        services.setdefault(name, {})[method] = method_handler
    for name, methods_of in services.items():
        server.add_registered_method_handlers(name, methods_of)  # type: ignore[attr-defined]  # not in the stubs


def _with_context(handle: AsyncHandler) -> Any:
    async def call(data: bytes, context: Any) -> bytes:
        try:
            return await handle(data)
        except Exception as error:
            status, message = status_of(error)
            await context.abort(status, message)
            raise AssertionError("abort raises") from error

    return call


def _decide_within(service: Service) -> Any:
    """Decide, with the deadline of the call."""

    async def decide(data: bytes, context: Any) -> bytes:
        async def handle(data: bytes) -> bytes:
            request = parsed(decisions_pb2.DecideRequest, data)
            return (await service.decide(request, context.time_remaining())).SerializeToString()

        answer: bytes = await _with_context(handle)(data, context)
        return answer

    return decide


def _streaming(request_type: Any, call: Callable[[Any], AsyncIterator[Message]]) -> Any:
    async def stream(data: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            async for message in call(parsed(request_type, data)):
                yield message.SerializeToString()
        except Exception as error:
            status, why = status_of(error)
            await context.abort(status, why)

    return stream
