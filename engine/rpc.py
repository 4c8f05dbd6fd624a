"""The gRPC edge: the services of engine.service on pygrpc-native or grpcio, with health and reflection.

pygrpc-native answers an empty call at several times the rate of grpc.aio, because HTTP/2 and framing run outside the
GIL; it is the default. It has no TLS, so grpcio serves where that is asked for. Both take the same handlers.

Messages are decoded here rather than by the transport: bytes that are no message are then the caller's error
(INVALID_ARGUMENT, and what was wrong), where a transport would answer INTERNAL.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from engine import metrics
from engine.errors import OpportuneError
from engine.limits import MESSAGE_BYTES_MAX
from engine.service import Service, methods

log = logging.getLogger(__name__)

TRANSPORTS: Final = ("native", "grpcio")

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    # Several servers share one port: the kernel spreads connections over them.
    ("grpc.so_reuseport", 1),
)

Handler = Callable[[bytes, Any], Awaitable[bytes]]


def handler(request_type: Any, call: Callable[[Any], Awaitable[Message]]) -> Handler:
    """A gRPC handler on bytes around a method of the service."""
    parse = request_type.FromString
    name = request_type.DESCRIPTOR.full_name

    async def handle(data: bytes, context: Any) -> bytes:
        try:
            request = parse(data)
        except DecodeError as error:
            metrics.REFUSED.labels("INVALID_ARGUMENT").inc()
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the body is no valid {name} message: {error}")
        try:
            return (await call(request)).SerializeToString()
        except OpportuneError as error:
            metrics.REFUSED.labels(error.grpc_status.name).inc()
            await context.abort(error.grpc_status, str(error))
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception:
            log.exception("%s failed", name)
            await context.abort(grpc.StatusCode.INTERNAL, "an error of the engine; its log has the details")
        raise AssertionError("abort raises")

    return handle


class Server:
    """One gRPC server on the running event loop."""

    def __init__(self, service: Service, transport: str = "native") -> None:
        assert transport in TRANSPORTS, transport
        self._server = new_server(transport)
        # The servicer of grpcio-health-checking for asyncio; Check is all that load balancers and `opportune` ask.
        self.health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # not in the stubs
        services: dict[str, dict[str, Any]] = {}
        for path, request_type, call in methods(service):
            service_name, method = path.split("/")
            services.setdefault(service_name, {})[method] = grpc.unary_unary_rpc_method_handler(
                handler(request_type, call)  # type: ignore[arg-type]  # asyncio handlers are not in the stubs
            )
        for name, handlers in services.items():
            self._server.add_registered_method_handlers(name, handlers)
        self._names: Final = (*services, "")
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        reflection.enable_server_reflection((*services, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)

    async def start(self, address: str) -> int:
        """Listen on "host:port" and return the port. Raises OSError if the address cannot be had."""
        try:
            port: int = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen for gRPC on {address}: {error}") from error
        await self._server.start()
        for name in self._names:
            await self.health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return port

    async def stop(self, grace_s: float) -> None:
        """Tell health checks, let calls under way finish within `grace_s`, then cut them."""
        await self.health.enter_graceful_shutdown()
        await self._server.stop(grace_s)


def new_server(transport: str) -> Any:
    """An asyncio server with the limits of the engine, without services."""
    if transport == "native":
        import pygrpc_native.aio  # only where it is wanted: there are no wheels for every platform

        return pygrpc_native.aio.server(options=_OPTIONS)
    return grpc.aio.server(options=_OPTIONS)
