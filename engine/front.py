"""gRPC on our own HTTP/2: bytes to handlers, and bytes back.

The asyncio servers of gRPC make a task and a context for every call. Decide needs neither: its calls wait in the
decider's queue and are answered from there. So this server has two kinds of handlers:

    direct   (data, call) → None    called at once; answers through `call` whenever it is ready
    async    data → bytes           run as a task, cancelled when the caller's deadline passes or it leaves

Methods that stream, health and reflection are left to a grpcio server on a unix socket, to which calls are handed on.
"""

import asyncio
import logging
import re
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import grpc

from engine import limits
from engine.calls import ENCODINGS, Call, DirectHandler, Route, StreamingCall
from engine.frames import Reason, StreamFailed
from engine.headers import Header
from engine.http2 import Connection

log = logging.getLogger(__name__)

_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_ANY_TIMEOUT: Final = (b"grpc-timeout", b"")
_UNIT_S: Final = {b"H": 3_600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_WITHIN_S_MAX: Final = 10 * 366 * 86_400.0
"""More is as long as it takes, and more than some clocks can hold."""
_NOT_IN_HTTP2: Final = {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
_PSEUDO: Final = {b":method", b":scheme", b":path", b":authority"}
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")

AsyncHandler = Callable[[bytes], Awaitable[bytes]]


class FrontServer:
    """The server. One event loop, that of `start`."""

    def __init__(
        self, direct: dict[str, DirectHandler], tasks: dict[str, AsyncHandler], fallback: grpc.aio.Server
    ) -> None:
        self.connections: set[Connection] = set()
        self.stopping = False
        self.unfinished_bytes = 0
        self._handlers = {path.encode(): handle for path, handle in direct.items()}
        self._handlers |= {path.encode(): partial(_start, handle) for path, handle in tasks.items()}
        self._routes: dict[tuple[Header, ...], Route] = {}
        """By headers but for how long the caller waits, which many callers say anew with each call."""
        self._fallback = fallback
        self._fallback_folder = ""
        self._channel: grpc.aio.Channel | None = None
        self._server: asyncio.Server | None = None
        self._looking: asyncio.Task[None] | None = None

    async def start(self, address: str) -> int:
        """Listen on "host:port", which several servers may share, and return the port. Raises OSError."""
        host, _, port = address.rpartition(":")
        # The port first, for it may be taken; callers are let in when there is somebody to hand them on to.
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self),
            host.strip("[]"),
            int(port),
            backlog=limits.CONNECTION_QUEUE_MAX,
            reuse_port=True,
            start_serving=False,
        )
        self._fallback_folder = tempfile.mkdtemp(prefix="opportune-grpc-")
        path = f"unix:{Path(self._fallback_folder) / 'fallback.sock'}"
        self._fallback.add_insecure_port(path)
        await self._fallback.start()
        self._channel = grpc.aio.insecure_channel(
            path, options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        )
        await self._server.start_serving()
        self._looking = asyncio.create_task(self._look())
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    def look(self) -> None:
        """Cut calls that have not got on since the last look, though it was their callers' turn."""
        for connection in list(self.connections):
            try:
                connection.look()
            except Exception:
                log.exception("a connection was not looked at")  # the others are

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(limits.CALL_STALL_MS_MAX / 1e3)
            self.look()

    async def leave(self) -> None:
        """Take no more calls, as soon as all peers have heard of it: so none fails that could go to another server."""
        if self.stopping:
            return
        self.stopping = True
        if self._server is not None:
            self._server.close()
        for connection in self.connections:
            connection.leave()
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + limits.LEAVE_MS_MAX / 1e3
        while any(not connection.left for connection in self.connections) and loop.time() < deadline_s:
            await asyncio.sleep(0.002)
        for connection in self.connections:
            connection.part()

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, let those under way finish within `grace_s`, then cut them."""
        await self.leave()
        fallback = asyncio.create_task(self._fallback.stop(grace_s))
        deadline_s = asyncio.get_running_loop().time() + grace_s
        while any(connection.calls for connection in self.connections):
            if asyncio.get_running_loop().time() >= deadline_s:
                break
            await asyncio.sleep(0.005)
        for connection in list(self.connections):
            connection.close()
        if self._looking is not None:
            self._looking.cancel()
        await fallback
        if self._channel is not None:
            await self._channel.close(None)
        shutil.rmtree(self._fallback_folder, ignore_errors=True)

    def route(self, headers: Sequence[Header]) -> Route:
        """Where a call with these headers goes. Raises StreamFailed for those that HTTP/2 does not allow."""
        timeout = b""
        others = list(headers)
        for at, (name, value) in enumerate(headers):
            if name == b"grpc-timeout":
                timeout, others[at] = value, _ANY_TIMEOUT
        known = tuple(others)
        route = self._routes.get(known)
        if route is None:
            route = self._route(_checked(headers))
            if len(self._routes) >= limits.ROUTES_KEPT_ENTRIES_MAX:
                self._routes.clear()
            self._routes[known] = route
        if not timeout or route.refusal is not None:
            return route
        parts = _TIMEOUT.fullmatch(timeout)
        if parts is None:
            text = f"grpc-timeout: {timeout!r:.40}, expected up to 8 digits and one of H, M, S, m, u and n"
            return Route(refusal=(grpc.StatusCode.INVALID_ARGUMENT, text))
        within_s = min(int(parts[1]) * _UNIT_S[parts[2]], _WITHIN_S_MAX)
        return Route(route.message, route.stream, None, within_s, route.encoding)

    def _route(self, headers: dict[bytes, bytes]) -> Route:
        """The same of headers by name, for a caller that waits as long as it takes."""
        path = headers[b":path"]
        method, kind = headers[b":method"], headers.get(b"content-type", b"")
        if method != b"POST" or not kind.startswith(b"application/grpc"):
            text = f"{method!r:.20} of {kind!r:.40}, expected POST of application/grpc"
            return Route(refusal=(grpc.StatusCode.INVALID_ARGUMENT, text))
        encoding = headers.get(b"grpc-encoding", b"identity").decode("latin-1")
        if encoding not in ENCODINGS:
            text = f"grpc-encoding: {encoding!r:.40}, expected one of {', '.join(ENCODINGS)}"
            return Route(refusal=(grpc.StatusCode.UNIMPLEMENTED, text))
        handle = self._handlers.get(path)
        if handle is not None:
            return Route(message=handle, encoding=encoding)
        return Route(stream=partial(self._hand_on, path.decode("latin-1")), encoding=encoding)

    def _hand_on(self, path: str, call: StreamingCall) -> None:
        call.task = asyncio.create_task(self._relay(path, call))

    async def _relay(self, path: str, call: StreamingCall) -> None:
        """Have the fallback serve a call."""
        answers: Any = None
        try:
            assert self._channel is not None
            as_it_is = {"request_serializer": bytes, "response_deserializer": bytes}
            answers = self._channel.stream_stream(path, **as_it_is)(call.messages(), timeout=call.within_s)
            async for message in answers:
                await call.write(message)
            call.end()
        except grpc.aio.AioRpcError as error:
            call.refuse(error.code(), error.details() or "")
        except Exception as error:
            call.fail(error)
        finally:
            call.end_of_messages()
            if answers is not None:
                answers.cancel()


def _start(handle: AsyncHandler, data: bytes, call: Call) -> None:
    call.task = asyncio.create_task(_run(handle, data, call))


async def _run(handle: AsyncHandler, data: bytes, call: Call) -> None:
    deadline = asyncio.timeout(call.within_s)
    try:
        async with deadline:
            call.answer(await handle(data))
    except Exception as error:
        if deadline.expired():
            call.refuse(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed before the answer was there")
        else:
            call.fail(error)


def _checked(headers: Sequence[Header]) -> dict[bytes, bytes]:
    """The headers by name. Raises StreamFailed for what HTTP/2 does not allow, or what is no call of gRPC."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        pseudo = name[:1] == b":"
        if pseudo:
            wrong = name not in _PSEUDO or name in found or any(other[:1] != b":" for other in found)
        else:
            wrong = name in _NOT_IN_HTTP2 or not _NAME.fullmatch(name)
        if wrong:
            raise StreamFailed(Reason.PROTOCOL_ERROR, f"the header {name!r}")
        found[name] = value
    if not all(found.get(name) for name in (b":method", b":scheme", b":path")):
        raise StreamFailed(Reason.PROTOCOL_ERROR, "a request without method, scheme or path")
    if found.get(b"te", b"trailers") != b"trailers":
        raise StreamFailed(Reason.PROTOCOL_ERROR, "te is not trailers")
    return found
