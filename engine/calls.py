"""Calls of gRPC as they come over HTTP/2: their messages, and their answers.

A `Call` takes one message and gives one answer; a `StreamingCall` takes and gives any number. Both are made by the
connection they come on (engine.http2), which is the only one to call what is marked so.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Final, NamedTuple

import grpc

from engine.frames import MESSAGE_HEADER, OK_BLOCK, status_block
from engine.limits import CALL_STALL_BYTES_MIN, CALL_WINDOW_BYTES, MESSAGE_BYTES_MAX
from engine.status import refused, status_of

if TYPE_CHECKING:
    from engine.http2 import Connection

PREFIX_BYTES: Final = MESSAGE_HEADER.size
_ZLIB_WBITS: Final = {"gzip": 31, "deflate": 15}
ENCODINGS: Final = ("identity", *_ZLIB_WBITS)
"""How messages may be compressed. Answers are not: they are small."""

DirectHandler = Callable[[bytes, "Call"], None]
StreamHandler = Callable[["StreamingCall"], None]


class Route(NamedTuple):
    """Where a call goes: what its headers say. One of the first three is there."""

    message: DirectHandler | None = None
    """Gets the one message of the call."""
    stream: StreamHandler | None = None
    """Gets the call when it begins."""
    refusal: tuple[grpc.StatusCode, str] | None = None
    within_s: float | None = None
    """How long the caller waits; None: as long as it takes."""
    encoding: str = "identity"


class _Refused(Exception):
    """What was sent is no message that can be handed on."""

    def __init__(self, text: str, status: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT) -> None:
        super().__init__(text)
        self.status = status


class Waits(NamedTuple):
    """What a call waits for its peer for."""

    what: str
    through_bytes: int
    """How much of it has come, or was sent."""
    least_bytes: int
    """How much more it has to be by the next look."""

    def in_vain_since(self, before: "Waits | None") -> bool:
        """Whether it waited for the same at the look before, and too little got through since."""
        if before is None or before.what != self.what:
            return False
        return self.through_bytes - before.through_bytes < self.least_bytes


class Call:
    """One call that waits for its answer, which it gets once: what comes after the first one is dropped."""

    __slots__ = (
        "body",
        "connection",
        "counted",
        "ended",
        "gone",
        "received_bytes",
        "route",
        "sent_bytes",
        "started",
        "stream",
        "task",
        "trailers",
        "unsent",
        "window",
    )

    def __init__(self, connection: "Connection", stream: int, route: Route, window: int) -> None:
        self.connection = connection
        self.stream = stream
        self.route = route
        self.window = window
        """Bytes that may still be sent on this stream."""
        self.gone = False
        """Nobody waits any more: it was answered, the caller left, or its deadline passed."""
        self.ended = False
        """The caller has sent everything."""
        self.started = False
        """Headers of the answer were sent."""
        self.body: bytearray | None = None
        """What came of messages that are not complete."""
        self.unsent: bytearray | None = None
        """What flow control holds back."""
        self.trailers: bytes | None = None
        """What ends the call when everything is sent."""
        self.received_bytes = self.sent_bytes = 0
        """Of messages that came, or left, in several parts."""
        self.counted = 0
        """Of what it holds in bytes, how much its server knows of."""
        self.task: asyncio.Task[None] | None = None
        """What works for it; cancelled when the caller leaves."""

    @property
    def within_s(self) -> float | None:
        """How long the caller waits, from when the call came; None: as long as it takes."""
        return self.route.within_s

    def answer(self, data: bytes) -> None:
        """Send the response."""
        if not self.gone:
            self.gone = True
            self.connection.respond(self, data)

    def fail(self, error: Exception) -> None:
        """Send the status that an error stands for."""
        if not self.gone:
            self.refuse(*status_of(error))

    def refuse(self, status: grpc.StatusCode, message: str) -> None:
        """Send a status."""
        if not self.gone:
            self.gone = True
            self.connection.finish(self, status_block(status.value[0], message))

    def cut(self, status: grpc.StatusCode, message: str) -> None:
        """Refuse it, and end what works for it or waits to be sent."""
        if not self.gone:
            self.unsent = None
            self.refuse(status, message)
        if self.task is not None:
            self.task.cancel()

    def take(self, payload: bytes) -> None:
        """For the connection: a part of what the caller sends; `ended` says whether it is the last."""
        if self.gone:
            return  # refused: the rest of what is too large is on its way
        self.received_bytes += len(payload)
        if self.body is None:
            self.body = bytearray()
        self.body += payload
        try:
            self._take(self.body)
        except _Refused as refusal:
            self.body = None
            self.cut(*refused(refusal.status, str(refusal)))

    def hand_on(self, data: bytes) -> None:
        """For the connection: the caller's message, complete."""
        assert self.route.message is not None
        try:
            self.route.message(data, self)
        except Exception as error:
            self.fail(error)

    def held_bytes(self) -> int:
        """For the connection: of messages that are not complete, not read or not sent."""
        return len(self.body or b"") + len(self.unsent or b"")

    def waits(self) -> Waits | None:
        """For the connection: what it waits for its peer for, None if it does not."""
        if self.unsent:
            return Waits("to read", self.sent_bytes, 1)
        return None if self.ended or self.gone else Waits("to send", self.received_bytes, CALL_STALL_BYTES_MIN)

    def dropped(self) -> None:
        """For the connection: the caller left."""
        self.gone = True
        self.body = self.unsent = None
        if self.task is not None:
            self.task.cancel()

    def _take(self, body: bytearray) -> None:
        length = _length(body)
        if length is not None and len(body) > PREFIX_BYTES + length:
            raise _Refused(f"{len(body) - PREFIX_BYTES - length} bytes after the message, expected one message a call")
        if self.ended:
            if length is None or len(body) < PREFIX_BYTES + length:
                expected = f"{PREFIX_BYTES} and a message" if length is None else f"{PREFIX_BYTES + length}"
                raise _Refused(f"the call ended after {len(body)} bytes, expected {expected}")
            self.body = None
            data = bytes(memoryview(body)[PREFIX_BYTES : PREFIX_BYTES + length])
            self.hand_on(_inflated(body[0], data, self.route.encoding))


class StreamingCall(Call):
    """A call with any number of messages either way."""

    __slots__ = ("_drained", "_received", "_unread")

    def __init__(self, connection: "Connection", stream: int, route: Route, window: int) -> None:
        super().__init__(connection, stream, route, window)
        self._received: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        """Flags and messages as they came: one that is compressed is inflated when it is read."""
        self._unread = 0
        self._drained: asyncio.Event | None = None

    async def messages(self) -> AsyncIterator[bytes]:
        """What the caller sends. As it is read, the caller may send more."""
        while (received := await self._received.get()) is not None:
            flag, data = received
            size = PREFIX_BYTES + len(data)
            try:
                message = _inflated(flag, data, self.route.encoding)
            except _Refused as refusal:
                self.cut(*refused(refusal.status, str(refusal)))
                return
            self._unread -= size
            yield message
            self.connection.credit(self, size)

    def end_of_messages(self) -> None:
        """Nobody reads any more: whoever waits for a message gets none."""
        self._received.put_nowait(None)

    async def write(self, message: bytes) -> None:
        """Send one, and wait until flow control has let all of it through."""
        if self.connection.send(self, message):
            return
        self._drained = asyncio.Event()
        await self._drained.wait()

    def end(self) -> None:
        """All is well and sent."""
        if not self.gone:
            self.gone = True
            self.connection.finish(self, OK_BLOCK)

    def held_bytes(self) -> int:
        """For the connection: of messages that are not complete, not read or not sent."""
        return super().held_bytes() + self._unread

    def waits(self) -> Waits | None:
        """For the connection: what it waits for its peer for, None if it does not."""
        # Between messages a caller may take its time, and of messages that are not read yet it may have no credit left.
        return super().waits() if self.unsent or (self.body and not self._unread) else None

    def drained(self) -> None:
        """For the connection: everything was sent."""
        if self._drained is not None:
            self._drained.set()

    def _take(self, body: bytearray) -> None:
        while (length := _length(body)) is not None and len(body) >= PREFIX_BYTES + length:
            self._unread += PREFIX_BYTES + length
            self._received.put_nowait((body[0], bytes(memoryview(body)[PREFIX_BYTES : PREFIX_BYTES + length])))
            del body[: PREFIX_BYTES + length]
        if self._unread > CALL_WINDOW_BYTES:
            raise _Refused("more messages than flow control allows", grpc.StatusCode.RESOURCE_EXHAUSTED)
        if self.ended:
            if body:
                raise _Refused(f"the call ended {len(body)} bytes into a message")
            self._received.put_nowait(None)


def _length(body: bytearray) -> int | None:
    """Of the first message in bytes, as soon as it is known. Raises _Refused if it is too large."""
    if len(body) < PREFIX_BYTES:
        return None
    length: int = MESSAGE_HEADER.unpack_from(body)[1]
    if length > MESSAGE_BYTES_MAX:
        raise _too_large(f"{length}")
    return length


def _inflated(flag: int, data: bytes, encoding: str) -> bytes:
    """A message as it was before it was compressed. Raises _Refused."""
    if not flag:
        return data
    if flag != 1 or encoding == "identity":
        raise _Refused(f"flag {flag} before a message of grpc-encoding {encoding}, expected 0")
    inflating = zlib.decompressobj(_ZLIB_WBITS[encoding])
    try:
        data = inflating.decompress(data, MESSAGE_BYTES_MAX + 1)
    except zlib.error as error:
        raise _Refused(f"the message is no {encoding}: {error}") from error
    if len(data) > MESSAGE_BYTES_MAX:
        raise _too_large(f"more than {MESSAGE_BYTES_MAX}")
    if not inflating.eof:
        raise _Refused(f"the message is no {encoding}: it ends too early")
    return data


def _too_large(size: str) -> _Refused:
    text = f"a message of {size} bytes, at most {MESSAGE_BYTES_MAX} are allowed"
    return _Refused(text, grpc.StatusCode.RESOURCE_EXHAUSTED)
