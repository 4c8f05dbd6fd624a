"""A server on our own HTTP/2 without an engine, and the other end of its connections: the package h2."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings

from engine import frames
from engine.calls import Call
from engine.front import FrontServer
from engine.http2 import Connection

ECHO, LATER, NEVER, WITHIN = "/t.T/Echo", "/t.T/Later", "/t.T/Never", "/t.T/Within"
HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", ECHO),
    (":authority", "test"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]


def to(path: str, **more: str) -> list[tuple[str, str]]:
    """Headers of a call."""
    headers = [(name, path if name == ":path" else value) for name, value in HEADERS]
    return headers + [(name.replace("_", "-"), value) for name, value in more.items()]


def message(data: bytes, flag: int = 0) -> bytes:
    return frames.MESSAGE_HEADER.pack(flag, len(data)) + data


class Site:
    """A server of four methods, without a port: each connection is one of a pair of sockets."""

    def __init__(self) -> None:
        self.waiting: list[Call] = []
        self.later = 0
        """Calls of LATER that were begun."""
        self.cancelled = 0
        direct: dict[str, Callable[[bytes, Call], None]] = {
            ECHO: lambda data, call: call.answer(data),
            NEVER: lambda data, call: self.waiting.append(call),
            WITHIN: lambda data, call: call.answer(repr(call.within_s).encode()),
        }
        self.front = FrontServer(direct, {LATER: self._later}, grpc.aio.server())

    async def _later(self, data: bytes) -> bytes:
        self.later += 1
        try:
            await asyncio.sleep(float(data))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return b"slept"

    async def connect(self) -> "Peer":
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: Connection(self.front), sock=ours)
        reader, writer = await asyncio.open_connection(sock=theirs)
        return Peer(reader, writer, connection)


class Peer:
    """The other end, by the package h2."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: Connection) -> None:
        self.reader, self.writer, self.connection = reader, writer, connection
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.data: dict[int, bytes] = {}
        self.headers: dict[int, dict[str, str]] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.goodbye: tuple[int, bytes] | None = None
        self.closed = False
        self.acknowledged = 0
        self.own_credit = True
        """Whether what came is credited at once."""

    async def begin(self, **own: int) -> None:
        """Say hello, with settings of our own, and hear the server's."""
        self.h2.initiate_connection()
        if own:
            self.h2.update_settings({getattr(h2.settings.SettingCodes, name): value for name, value in own.items()})
        await self.flush()
        expected = 2 if own else 1
        await self.until(lambda: self.acknowledged == expected and self.h2.outbound_flow_control_window > 65_535)

    def call(self, data: bytes, headers: list[tuple[str, str]] = HEADERS, *, end: bool = True) -> int:
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, headers)
        while len(data) > 16_000:
            self.h2.send_data(stream, data[:16_000])
            data = data[16_000:]
        self.h2.send_data(stream, data, end_stream=end)
        return stream

    async def flush(self, cuts: list[int] | None = None) -> None:
        """Send, in pieces of these sizes."""
        data = self.h2.data_to_send()
        for cut in cuts or []:
            self.writer.write(data[:cut])
            data = data[cut:]
            await self.writer.drain()
            await asyncio.sleep(0)
        self.writer.write(data)
        await self.writer.drain()

    async def until(self, true: Callable[[], Any]) -> None:
        """Read until it is so."""
        async with asyncio.timeout(10):
            while not true():
                data = await self.reader.read(65_536)
                if not data:
                    self.closed = True
                    assert true(), "the connection was closed"
                    return
                for event in self.h2.receive_data(data):
                    self._event(event)
                await self.flush()

    def _event(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.DataReceived():
                self.data[event.stream_id] = self.data.get(event.stream_id, b"") + event.data
                if self.own_credit and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                known = self.headers.setdefault(event.stream_id, {})
                known.update({str(name): str(value) for name, value in event.headers})
            case h2.events.SettingsAcknowledged():
                self.acknowledged += 1
            case h2.events.StreamEnded():
                self.ended.add(event.stream_id)
            case h2.events.StreamReset():
                self.resets[event.stream_id] = int(event.error_code)
            case h2.events.ConnectionTerminated():
                self.goodbye = int(event.error_code), event.additional_data or b""
            case _:
                pass

    def status(self, stream: int) -> tuple[int, str]:
        found = self.headers[stream]
        return int(found["grpc-status"]), found.get("grpc-message", "")

    async def end_of(self, stream: int) -> None:
        await self.until(lambda: stream in self.ended)

    async def answer(self, stream: int) -> bytes:
        await self.end_of(stream)
        assert self.status(stream) == (0, "")
        return self.data[stream]


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[Site, Peer]]:
    site = Site()
    peer = await site.connect()
    await peer.begin()
    yield site, peer
    peer.writer.close()
    await asyncio.sleep(0)


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


class Streams(grpc.GenericRpcHandler):  # type: ignore[misc]  # no type
    """For the grpcio server behind ours: a method that sends back what comes, and one that never ends."""

    def __init__(self) -> None:
        self.left = asyncio.Event()

    def service(self, details: Any) -> Any:
        work = {"/t.T/Stream": self.echo, "/t.T/Endless": self.endless}.get(details.method)
        return work and grpc.stream_stream_rpc_method_handler(work)

    async def echo(self, messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for content in messages:
            yield content
        await context.abort(grpc.StatusCode.DATA_LOSS, "é, all of it")

    async def endless(self, messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(100_000)
        finally:
            self.left.set()


@asynccontextmanager
async def streaming() -> AsyncIterator[tuple[Site, Streams, grpc.aio.Channel]]:
    site, streams = Site(), Streams()
    site.front._fallback.add_generic_rpc_handlers((streams,))
    port = await site.front.start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield site, streams, channel
    await site.front.stop(1.0)
    assert (site.front.connections, site.front.unfinished_bytes) == (set(), 0)
