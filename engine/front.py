"""gRPC on pygrpc-native's front: Rust speaks HTTP/2, this hands bytes to handlers and bytes back.

The package's own asyncio server makes a task and a context for every call. Decide needs neither: its calls wait in the
decider's queue and are answered from there, which saves 25 µs a decision. So this server has two kinds of handlers:

    direct   (data, call) → None    called at once; answers through `call` whenever it is ready
    async    data → bytes           run as a task, cancelled when the caller's deadline passes or it leaves

Methods that stream (health Watch, reflection) are left to a grpcio server on a unix socket, to which the front hands
them on. Messages larger than MESSAGE_BYTES_MAX are refused before a handler sees them.
"""

import asyncio
import logging
import shutil
import tempfile
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import grpc
from pygrpc_native import EVENT_CANCEL, NativeGrpcFront

from engine import metrics
from engine.errors import OpportuneError
from engine.limits import MESSAGE_BYTES_MAX

log = logging.getLogger(__name__)

_EVENTS_AT_ONCE: Final = 256
_IO_THREADS: Final = 1
"""Threads that speak HTTP/2. One keeps up with several times what Python answers, and leaves the core to Python."""

AsyncHandler = Callable[[bytes], Awaitable[bytes]]


class Call:
    """One call that waits for its answer, which it gets once: what comes after the first one is dropped."""

    __slots__ = ("_calls", "_front", "_id", "gone", "within_s")

    def __init__(
        self,
        front: NativeGrpcFront,
        call_id: int,
        calls: "dict[int, Call | asyncio.Task[None]]",
        within_s: float | None = None,
    ) -> None:
        self._front = front
        self._id = call_id
        self._calls = calls
        self.gone = False
        """Nobody waits any more: it was answered, the caller left, or its deadline passed."""
        self.within_s = within_s
        """How long the caller waits, from when the call came; None: as long as it takes."""

    def answer(self, data: bytes) -> None:
        """Send the response."""
        if not self.gone:
            self._end()
            self._front.respond(self._id, data)

    def fail(self, error: Exception) -> None:
        """Send the status that an error stands for."""
        if not self.gone:
            self._end()
            status, message = status_of(error)
            self._front.fail(self._id, status.value[0], message)

    def _end(self) -> None:
        self.gone = True
        self._calls.pop(self._id, None)


DirectHandler = Callable[[bytes, Call], None]


def status_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    """Status and message of an error; what is not an error of ours is logged and told as INTERNAL."""
    if isinstance(error, OpportuneError):
        metrics.REFUSED.labels(error.grpc_status.name).inc()
        return error.grpc_status, str(error)
    log.error("a call failed", exc_info=error)
    metrics.REFUSED.labels("INTERNAL").inc()
    return grpc.StatusCode.INTERNAL, "an error of the engine; its log has the details"


class FrontServer:
    """The server. One event loop, that of `start`."""

    def __init__(
        self, direct: dict[str, DirectHandler], tasks: dict[str, AsyncHandler], fallback: grpc.aio.Server
    ) -> None:
        self._direct = direct
        self._tasks = tasks
        self._fallback = fallback
        self._fallback_folder = ""
        self._front: NativeGrpcFront | None = None
        self._calls: dict[int, Call | asyncio.Task[None]] = {}
        self._methods: list[DirectHandler | None] = []
        self._handlers: list[AsyncHandler | None] = []
        self._stopping = False

    async def start(self, address: str) -> int:
        """Listen on "host:port", which several servers may share, and return the port. Raises OSError."""
        front = NativeGrpcFront(address, [], io_threads=_IO_THREADS, reuse_port=True, call_details=True)
        self._fallback_folder = tempfile.mkdtemp(prefix="opportune-grpc-")
        path = str(Path(self._fallback_folder) / "fallback.sock")
        self._fallback.add_insecure_port(f"unix:{path}")
        await self._fallback.start()
        front.set_fallback(path)
        paths = [*self._direct, *self._tasks]
        front.add_methods([(path, False) for path in paths])
        self._methods = [self._direct.get(path) for path in paths]
        self._handlers = [self._tasks.get(path) for path in paths]
        self._front = front
        front.start()
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._receive, args=(front, loop), name="grpc-front", daemon=True).start()
        return int(front.bound_port)

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, let those under way finish within `grace_s`, then cut them."""
        self._stopping = True
        fallback = asyncio.create_task(self._fallback.stop(grace_s))
        deadline_s = asyncio.get_running_loop().time() + grace_s
        while self._calls and asyncio.get_running_loop().time() < deadline_s:
            await asyncio.sleep(0.005)
        for call in self._calls.values():
            if isinstance(call, asyncio.Task):
                call.cancel()
        await fallback
        if self._front is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._front.close)
        shutil.rmtree(self._fallback_folder, ignore_errors=True)

    def _receive(self, front: NativeGrpcFront, loop: asyncio.AbstractEventLoop) -> None:
        """Runs in a thread of its own: waits without the GIL, and wakes the loop once for all calls that have come."""
        while (events := front.recv_batch_details(_EVENTS_AT_ONCE)) is not None:
            try:
                loop.call_soon_threadsafe(self._take, front, events)
            except RuntimeError:  # the loop was closed without a stop
                front.close()
                return

    def _take(self, front: NativeGrpcFront, events: list[tuple[Any, ...]]) -> None:
        for kind, call_id, method, data, _, details in events:
            if kind == EVENT_CANCEL:
                self._cancel(call_id)
            elif self._stopping:
                front.fail(call_id, grpc.StatusCode.UNAVAILABLE.value[0], "the server is stopping; ask another one")
            elif len(data) > MESSAGE_BYTES_MAX:
                metrics.REFUSED.labels("RESOURCE_EXHAUSTED").inc()
                message = f"a message of {len(data)} bytes, at most {MESSAGE_BYTES_MAX} are allowed"
                front.fail(call_id, grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], message)
            else:
                call = Call(front, call_id, self._calls, details[2] if details is not None else None)
                direct = self._methods[method]
                if direct is None:
                    self._calls[call_id] = asyncio.create_task(self._run(call, method, data))
                    continue
                self._calls[call_id] = call
                try:
                    direct(data, call)
                except Exception as error:
                    call.fail(error)

    async def _run(self, call: Call, method: int, data: bytes) -> None:
        handler = self._handlers[method]
        assert handler is not None
        try:
            call.answer(await handler(data))
        except Exception as error:
            call.fail(error)
        finally:
            self._calls.pop(call._id, None)

    def _cancel(self, call_id: int) -> None:
        found = self._calls.pop(call_id, None)
        if isinstance(found, Call):
            found.gone = True
        elif found is not None:
            found.cancel()
