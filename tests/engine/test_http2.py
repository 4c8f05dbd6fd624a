"""Our own HTTP/2, against an independent client (the package h2) and byte by byte, over real sockets."""

import asyncio
import gc
import gzip
import logging
import random
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote

import grpc
import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import pytest
from hpack import Decoder, Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import frames, limits
from engine.calls import Call
from engine.frames import Reason, frame
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
        self.cancelled = 0
        direct: dict[str, Callable[[bytes, Call], None]] = {
            ECHO: lambda data, call: call.answer(data),
            NEVER: lambda data, call: self.waiting.append(call),
            WITHIN: lambda data, call: call.answer(repr(call.within_s).encode()),
        }
        self.front = FrontServer(direct, {LATER: self._later}, grpc.aio.server())

    async def _later(self, data: bytes) -> bytes:
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
                self.headers.setdefault(event.stream_id, {}).update(dict(event.headers))  # type: ignore[arg-type]
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

    async def answer(self, stream: int) -> bytes:
        await self.until(lambda: stream in self.ended)
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


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(work())  # type: ignore[arg-type]


# --- what is right ----------------------------------------------------------------------------------------------------
SIZES = st.one_of(st.integers(0, 300), st.integers(16_000, 17_000), st.integers(60_000, 70_000))


@settings(max_examples=60)
@given(
    sizes=st.lists(SIZES, min_size=1, max_size=8),
    cuts=st.lists(st.integers(0, 9_000), max_size=30),
    window=st.sampled_from([0, 1, 7, 5_000, 65_535, 2**20]),
    frame_bytes=st.sampled_from([16_384, 16_385, 2**24 - 1]),
    seed=st.integers(0, 2**16),
)
def test_any_messages_in_any_pieces_through_any_windows_come_back(
    sizes: list[int], cuts: list[int], window: int, frame_bytes: int, seed: int
) -> None:
    contents = [random.Random(seed + n).randbytes(size) for n, size in enumerate(sizes)]

    async def work() -> None:
        site = Site()
        peer = await site.connect()
        peer.own_credit = False
        await peer.begin(INITIAL_WINDOW_SIZE=window, MAX_FRAME_SIZE=frame_bytes)
        await peer.flush()
        streams = []
        for content in contents:
            streams.append(peer.call(message(content)))
            await peer.flush(cuts)
        received: dict[int, int] = {}

        def credited() -> bool:
            """Credit what came, and the windows that were too small to begin with."""
            for stream in streams:
                if stream not in peer.ended:
                    new = len(peer.data.get(stream, b"")) - received.get(stream, 0)
                    if stream not in received:
                        peer.h2.increment_flow_control_window(65_540, stream)
                    if new:
                        peer.h2.increment_flow_control_window(new, stream)
                    received[stream] = len(peer.data.get(stream, b""))
            new = sum(map(len, peer.data.values())) - received.get(0, 0)
            if new:
                peer.h2.increment_flow_control_window(new)
                received[0] = received.get(0, 0) + new
            peer.writer.write(peer.h2.data_to_send())
            return peer.ended == set(streams)

        await peer.until(credited)
        assert [peer.data[stream] for stream in streams] == [message(content) for content in contents]
        assert {peer.status(stream) for stream in streams} == {(0, "")}
        assert (site.front.unfinished_bytes, peer.connection.calls) == (0, {})
        peer.writer.close()

    run(work)


@settings(max_examples=40)
@given(
    calls=st.lists(
        st.tuples(
            st.sampled_from([ECHO, WITHIN]),
            st.sampled_from([None, "1S", "250m", "99999999u", "2H", "7M", "5n", "99999999H", "1234m", "1235m"]),
            st.sampled_from([None, "a", "b", "c" * 200, "d" * 1_500, "e" * 3_000]),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_headers_mean_what_they_say_however_their_packing_changes(
    calls: list[tuple[str, str | None, str | None]],
) -> None:
    """Blocks are remembered by their bytes; the same bytes mean something else once the packing's table has moved."""
    unit_s = {"H": 3_600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}

    async def work() -> None:
        async with opened() as (_, peer):
            for path, timeout, more in calls:
                extra = {"grpc_timeout": timeout, "x_more": more}
                headers = to(path, **{name: value for name, value in extra.items() if value is not None})
                stream = peer.call(message(b"x"), headers)
                await peer.flush()
                found = (await peer.answer(stream))[5:]
                said_s = None if timeout is None else int(timeout[:-1]) * unit_s[timeout[-1]]
                within_s = said_s and min(said_s, 10 * 366 * 86_400.0)
                assert found == (b"x" if path == ECHO else repr(within_s).encode())

    run(work)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_messages_may_be_compressed(encoding: str) -> None:
    async def work() -> None:
        async with opened() as (_, peer):
            content = b"to be or not to be " * 100
            packed = gzip.compress(content) if encoding == "gzip" else zlib.compress(content)
            stream = peer.call(message(packed, 1), to(ECHO, grpc_encoding=encoding))
            plain = peer.call(message(b"plain"), to(ECHO, grpc_encoding=encoding))
            await peer.flush()
            assert (await peer.answer(stream), await peer.answer(plain)) == (message(content), message(b"plain"))

    run(work)


def test_a_call_that_leaves_or_whose_time_is_over_is_not_worked_for() -> None:
    async def work() -> None:
        async with opened() as (site, peer):
            left = peer.call(message(b"30"), to(LATER))
            late = peer.call(message(b"30"), to(LATER, grpc_timeout="50m"))
            waiting = peer.call(message(b""), to(NEVER))
            await peer.flush()
            await peer.until(lambda: late in peer.ended)
            assert peer.status(late)[0] == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
            [call] = site.waiting
            assert (site.cancelled, call.gone, set(peer.connection.calls)) == (1, False, {left, waiting})
            peer.h2.reset_stream(left, h2.errors.ErrorCodes.CANCEL)
            peer.h2.reset_stream(waiting, h2.errors.ErrorCodes.CANCEL)
            echo = peer.call(message(b"here"))
            await peer.flush()
            assert await peer.answer(echo) == message(b"here")
            assert (site.cancelled, call.gone, peer.connection.calls) == (2, True, {})
            call.answer(b"too late")  # changes nothing
            assert peer.goodbye is None

    run(work)


def test_what_is_under_way_is_finished_when_the_server_stops_and_nothing_else_begins() -> None:
    async def work() -> None:
        site = Site()
        port = await site.front.start("127.0.0.1:0")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(frames.PREFACE + frame(4, 0, 0, b""))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            echo, later, never = (channel.unary_unary(path) for path in (ECHO, LATER, NEVER))
            assert await echo(b"before") == b"before"
            under_way, waiting = later(b"0.2", timeout=10.0), never(b"", timeout=10.0)
            while not site.waiting:
                await asyncio.sleep(0.001)
            stopping = asyncio.create_task(site.front.stop(0.5))
            await asyncio.sleep(0.01)
            late = Encoder().encode(to(ECHO))  # was on its way when the goodbye was sent
            writer.write(frame(1, 4, 1, late) + frame(0, 1, 1, message(b"late")))
            assert await under_way == b"slept"
            with pytest.raises(grpc.aio.AioRpcError) as cut:
                await waiting
            with pytest.raises(grpc.aio.AioRpcError) as gone:
                await echo(b"after", timeout=1.0)
            await stopping
        assert (cut.value.code(), cut.value.details()) == (grpc.StatusCode.UNAVAILABLE, "the server has stopped")
        assert gone.value.code() == grpc.StatusCode.UNAVAILABLE
        async with asyncio.timeout(10):
            told = await reader.read(-1)
        assert frame(7, 0, 0, b"\x7f\xff\xff\xff" + bytes(4)) in told
        assert frames.status_block(14, "the server is stopping; ask another one") in told
        assert site.front.connections == set()
        writer.close()

    run(work)


def test_who_does_not_read_is_not_read_from_and_holds_up_nobody() -> None:
    async def work() -> None:
        async with opened() as (site, peer):
            peer.h2.increment_flow_control_window(2**31 - 1 - 65_535)
            peer.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1})
            content = message(bytes(60_000))
            for _ in range(200):
                peer.call(content)
                await asyncio.wait_for(peer.flush(), 5)
                if peer.connection._paused:
                    break
            assert peer.connection._paused
            other = await site.connect()
            await other.begin()
            stream = other.call(message(b"me too"))
            await other.flush()
            assert await other.answer(stream) == message(b"me too")
            await peer.until(lambda: len(peer.ended) == peer.h2.highest_outbound_stream_id // 2 + 1)
            assert (peer.connection._paused, site.front.unfinished_bytes) == (False, 0)
            other.writer.close()

    run(work)


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


def test_streams_carry_more_than_any_window() -> None:
    contents = [random.Random(n).randbytes(1_000_000) for n in range(2 * limits.CALL_WINDOW_BYTES // 1_000_000)]

    async def work() -> None:
        async with streaming() as (_, _, channel):
            call = channel.stream_stream("/t.T/Stream")()
            reading = asyncio.create_task(_all(call))
            for content in contents:
                await call.write(content)
            await call.done_writing()
            async with asyncio.timeout(20):
                assert await reading == contents
            assert (await call.code(), await call.details()) == (grpc.StatusCode.DATA_LOSS, "é, all of it")

    run(work)


async def _all(call: Any) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(await call.read())
        except grpc.aio.AioRpcError:
            return found


def test_a_stream_whose_caller_reads_slowly_or_leaves_holds_little_and_ends() -> None:
    async def work() -> None:
        async with streaming() as (site, streams, channel):
            call = channel.stream_stream("/t.T/Endless")()
            await call.read()
            await asyncio.sleep(0.3)
            assert site.front.unfinished_bytes <= 1_000_000
            assert await channel.unary_unary(ECHO)(b"beside it", timeout=5.0) == b"beside it"
            call.cancel()
            async with asyncio.timeout(5):
                await streams.left.wait()

    run(work)


# --- what is wrong ----------------------------------------------------------------------------------------------------
BLOCK = Encoder().encode(HEADERS)
FIRST = frame(frames.HEADERS, 4, 1, BLOCK)
WRONG_FOR_ALL: dict[str, tuple[bytes, Reason]] = {
    "another protocol": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", Reason.PROTOCOL_ERROR),
    "no settings first": (frames.PREFACE + frame(6, 0, 0, bytes(8)), Reason.PROTOCOL_ERROR),
    "a frame too large": (frame(0, 0, 1, bytes(16_385)), Reason.FRAME_SIZE_ERROR),
    "data in stream 0": (frame(0, 0, 0, b"x"), Reason.PROTOCOL_ERROR),
    "data before a call": (frame(0, 0, 1, b"x"), Reason.PROTOCOL_ERROR),
    "a call in an even stream": (frame(1, 4, 2, BLOCK), Reason.PROTOCOL_ERROR),
    "a call in stream 0": (frame(1, 4, 0, BLOCK), Reason.PROTOCOL_ERROR),
    "headers that cannot be unpacked": (frame(1, 4, 1, b"\xff\xff\xff\xff"), Reason.COMPRESSION_ERROR),
    "an index beyond the table": (frame(1, 4, 1, b"\xfe"), Reason.COMPRESSION_ERROR),
    "more padding than headers": (frame(1, 4 | 8, 1, b"\xff" + BLOCK), Reason.PROTOCOL_ERROR),
    "padding without its length": (frame(1, 4 | 8, 1, b""), Reason.PROTOCOL_ERROR),
    "more padding than data": (FIRST + frame(0, 8, 1, b"\x05abcd"), Reason.PROTOCOL_ERROR),
    "a priority cut short": (frame(1, 4 | 0x20, 1, b"abc"), Reason.FRAME_SIZE_ERROR),
    "headers that do not end": (frame(1, 0, 1, BLOCK) + frame(6, 0, 0, bytes(8)), Reason.PROTOCOL_ERROR),
    "a message amid headers": (FIRST + frame(1, 0, 3, BLOCK) + frame(0, 1, 1, message(b"")), Reason.PROTOCOL_ERROR),
    "a continuation of nothing": (frame(9, 4, 1, BLOCK), Reason.PROTOCOL_ERROR),
    "a continuation elsewhere": (frame(1, 0, 1, BLOCK) + frame(9, 4, 3, BLOCK), Reason.PROTOCOL_ERROR),
    "headers in empty pieces": (frame(1, 0, 1, BLOCK) + frame(9, 0, 1, b""), Reason.ENHANCE_YOUR_CALM),
    "headers without end": (
        frame(1, 0, 1, BLOCK) + frame(9, 0, 1, bytes(16_384)) + frame(9, 0, 1, bytes(16_384)),
        Reason.ENHANCE_YOUR_CALM,
    ),
    "a promise": (frame(5, 4, 1, BLOCK), Reason.PROTOCOL_ERROR),
    "a ping of 7 bytes": (frame(6, 0, 0, bytes(7)), Reason.FRAME_SIZE_ERROR),
    "a ping in a stream": (frame(6, 0, 1, bytes(8)), Reason.PROTOCOL_ERROR),
    "settings of 5 bytes": (frame(4, 0, 0, bytes(5)), Reason.FRAME_SIZE_ERROR),
    "settings in a stream": (frame(4, 0, 1, b""), Reason.PROTOCOL_ERROR),
    "an acknowledgement with settings": (frame(4, 1, 0, bytes(6)), Reason.FRAME_SIZE_ERROR),
    "a push of 2": (frame(4, 0, 0, frames.SETTING.pack(2, 2)), Reason.PROTOCOL_ERROR),
    "a window too large": (frame(4, 0, 0, frames.SETTING.pack(4, 2**31)), Reason.FLOW_CONTROL_ERROR),
    "frames too small": (frame(4, 0, 0, frames.SETTING.pack(5, 16_383)), Reason.PROTOCOL_ERROR),
    "credit of nothing": (frame(8, 0, 0, bytes(4)), Reason.PROTOCOL_ERROR),
    "credit of 3 bytes": (frame(8, 0, 0, bytes(3)), Reason.FRAME_SIZE_ERROR),
    "credit beyond all": (frame(8, 0, 0, b"\x7f\xff\xff\xff"), Reason.FLOW_CONTROL_ERROR),
    "credit before a call": (frame(8, 0, 1, b"\0\0\0\1"), Reason.PROTOCOL_ERROR),
    "a reset of 3 bytes": (FIRST + frame(3, 0, 1, bytes(3)), Reason.FRAME_SIZE_ERROR),
    "a reset before a call": (frame(3, 0, 1, bytes(4)), Reason.PROTOCOL_ERROR),
    "a priority of stream 0": (frame(2, 0, 0, bytes(5)), Reason.PROTOCOL_ERROR),
    "a goodbye in a stream": (frame(7, 0, 1, bytes(8)), Reason.PROTOCOL_ERROR),
    "calls taken back without end": (
        b"".join(
            frame(1, 4, n, Encoder().encode(to(NEVER))) + frame(3, 0, n, bytes(4))
            for n in range(1, 8 * limits.OFFENCE_ENTRIES_MAX, 2)
        ),
        Reason.ENHANCE_YOUR_CALM,
    ),
    "empty data without end": (
        FIRST + frame(0, 0, 1, b"") * (4 * limits.OFFENCE_ENTRIES_MAX),
        Reason.ENHANCE_YOUR_CALM,
    ),
}


@pytest.mark.parametrize("name", WRONG_FOR_ALL)
def test_who_breaks_the_protocol_is_told_why_and_nobody_else_notices(name: str) -> None:
    data, reason = WRONG_FOR_ALL[name]

    async def work() -> None:
        async with opened() as (site, peer):
            waiting = peer.call(message(b""), to(NEVER))
            await peer.flush()
            wrong = await site.connect()
            greeted = data[:3] in (b"GET", b"PRI")
            wrong.writer.write(data if greeted else frames.PREFACE + frame(4, 0, 0, b"") + data)
            wrong.h2.initiate_connection()  # for its state alone
            wrong.h2.send_headers(1, HEADERS)
            wrong.h2.data_to_send()
            await wrong.until(lambda: wrong.closed)
            assert wrong.goodbye is not None
            assert (Reason(wrong.goodbye[0]), bool(wrong.goodbye[1])) == (reason, True)
            wrong.writer.close()
            echo = peer.call(message(b"still here"))
            await peer.flush()
            assert await peer.answer(echo) == message(b"still here")
            assert (set(peer.connection.calls), site.front.connections) == ({waiting}, {peer.connection})
            assert site.front.unfinished_bytes == 0

    run(work)


def malformed(*headers: tuple[str, str]) -> bytes:
    return frame(1, 5, 1, Encoder().encode(headers))


PATH, METHOD, SCHEME = (":path", ECHO), (":method", "POST"), (":scheme", "http")
WRONG_FOR_ONE: dict[str, tuple[bytes, Reason]] = {
    "capitals": (malformed(METHOD, SCHEME, PATH, ("X-A", "b")), Reason.PROTOCOL_ERROR),
    "a name of nothing": (malformed(METHOD, SCHEME, PATH, ("", "b")), Reason.PROTOCOL_ERROR),
    "no path": (malformed(METHOD, SCHEME), Reason.PROTOCOL_ERROR),
    "an empty path": (malformed(METHOD, SCHEME, (":path", "")), Reason.PROTOCOL_ERROR),
    "two paths": (malformed(METHOD, SCHEME, PATH, PATH), Reason.PROTOCOL_ERROR),
    "a path after a header": (malformed(METHOD, SCHEME, ("a", "b"), PATH), Reason.PROTOCOL_ERROR),
    "a status": (malformed(METHOD, SCHEME, PATH, (":status", "200")), Reason.PROTOCOL_ERROR),
    "a header of connections": (malformed(METHOD, SCHEME, PATH, ("connection", "close")), Reason.PROTOCOL_ERROR),
    "te": (malformed(METHOD, SCHEME, PATH, ("te", "gzip")), Reason.PROTOCOL_ERROR),
    "a priority of 4 bytes": (FIRST + frame(2, 0, 1, bytes(4)), Reason.FRAME_SIZE_ERROR),
    "credit of nothing": (FIRST + frame(8, 0, 1, bytes(4)), Reason.PROTOCOL_ERROR),
    "credit beyond all": (FIRST + frame(8, 0, 1, b"\x7f\xff\xff\xff"), Reason.FLOW_CONTROL_ERROR),
    "headers within a call": (FIRST + frame(1, 4, 1, BLOCK), Reason.PROTOCOL_ERROR),
    "data after the end": (FIRST + frame(0, 1, 1, message(b"")) + frame(0, 1, 1, b"x"), Reason.STREAM_CLOSED),
}


@pytest.mark.parametrize("name", WRONG_FOR_ONE)
def test_a_call_that_breaks_the_protocol_is_reset_and_the_others_go_on(name: str) -> None:
    data, reason = WRONG_FOR_ONE[name]

    async def work() -> None:
        site = Site()
        peer = await site.connect()
        again = frame(1, 4, 3, Encoder().encode(to(ECHO))) + frame(0, 1, 3, message(b"next"))
        peer.writer.write(frames.PREFACE + frame(4, 0, 0, b"") + data + again)
        answer = b""
        async with asyncio.timeout(10):
            while frame(1, 5, 3, frames.OK_BLOCK) not in answer:
                answer += await peer.reader.read(65_536)
        assert frame(3, 0, 1, frames.NUMBER.pack(reason)) in answer
        assert message(b"next") in answer
        assert peer.connection.calls == {}
        peer.writer.close()

    run(work)


HALF = zlib.compress(b"abc")[:-5]
BOMB = zlib.compress(bytes(limits.MESSAGE_BYTES_MAX + 1))
LARGE = limits.MESSAGE_BYTES_MAX + 1
REFUSED: dict[str, tuple[bytes, dict[str, str], str, str]] = {
    "too large": (message(bytes(LARGE)), {}, "RESOURCE_EXHAUSTED", f"a message of {LARGE} bytes, at most"),
    "too large, inflated": (message(BOMB, 1), {"grpc_encoding": "deflate"}, "RESOURCE_EXHAUSTED", "more than 4194304"),
    "nothing": (b"", {}, "INVALID_ARGUMENT", "ended after 0 bytes"),
    "half a prefix": (b"\0\0", {}, "INVALID_ARGUMENT", "ended after 2 bytes"),
    "half a message": (message(b"abcdef")[:-2], {}, "INVALID_ARGUMENT", "ended after 9 bytes, expected 11"),
    "two messages": (message(b"a") * 2, {}, "INVALID_ARGUMENT", "6 bytes after the message, expected one"),
    "compressed, it says": (message(b"a", 1), {}, "INVALID_ARGUMENT", "grpc-encoding identity, expected 0"),
    "a strange flag": (message(b"a", 7), {}, "INVALID_ARGUMENT", "flag 7 before a message"),
    "no gzip": (message(b"abc", 1), {"grpc_encoding": "gzip"}, "INVALID_ARGUMENT", "the message is no gzip"),
    "half a deflate": (message(HALF, 1), {"grpc_encoding": "deflate"}, "INVALID_ARGUMENT", "ends too"),
    "an unknown encoding": (
        message(b"a"), {"grpc_encoding": "br"}, "UNIMPLEMENTED", "'br', expected one of identity, gzip, deflate",
    ),
    "a strange timeout": (message(b"a"), {"grpc_timeout": "soon"}, "INVALID_ARGUMENT", "expected up to 8 digits"),
    "another type": (message(b"a"), {"content_type": "text/html"}, "INVALID_ARGUMENT", "POST of application/grpc"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_message_is_refused_with_a_reason(name: str) -> None:
    data, more, status, why = REFUSED[name]

    async def work() -> None:
        async with opened() as (site, peer):
            headers = to(ECHO, **more)
            if "content_type" in more:
                headers.remove(("content-type", "application/grpc"))
            stream = peer.call(data, headers)
            await peer.flush()
            await peer.until(lambda: stream in peer.ended)
            code, text = peer.status(stream)
            assert code == getattr(grpc.StatusCode, status).value[0]
            assert why in text
            echo = peer.call(message(b"next"))
            await peer.flush()
            assert await peer.answer(echo) == message(b"next")
            assert site.front.unfinished_bytes == 0

    run(work)


def test_calls_beyond_the_limit_wait_at_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CONNECTION_CALL_ENTRIES_MAX", 3)

    async def work() -> None:
        async with opened() as (site, peer):
            streams = [peer.call(message(b""), to(NEVER)) for _ in range(5)]
            await peer.flush()
            await peer.until(lambda: len(peer.resets) == 2)
            assert peer.resets == dict.fromkeys(streams[3:], Reason.REFUSED_STREAM)
            site.waiting[0].answer(b"")
            after = peer.call(message(b"now"))
            await peer.flush()
            assert await peer.answer(after) == message(b"now")

    run(work)


def test_parts_of_messages_are_held_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UNFINISHED_BYTES_MAX", 110_000)

    async def work() -> None:
        async with opened() as (site, peer):
            part = message(bytes(60_000))[:30_000]
            streams = [peer.call(part, end=False) for _ in range(2)]
            await peer.flush()
            other = await site.connect()
            await other.begin()
            streams.append(other.call(part, end=False))
            refused = other.call(part, end=False)
            await other.flush()
            await other.until(lambda: refused in other.ended)
            assert other.status(refused)[0] == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
            assert site.front.unfinished_bytes == 90_000
            other.writer.close()
            peer.h2.send_data(streams[0], bytes(5_000))
            peer.h2.send_data(streams[0], bytes(12_005))
            peer.h2.send_data(streams[0], bytes(13_000), end_stream=True)
            await peer.flush()
            assert await peer.answer(streams[0]) == message(bytes(60_000))
            assert site.front.unfinished_bytes == 30_000

    run(work)


def test_a_connection_that_never_says_a_word_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PREFACE_MS_MAX", 50)

    async def work() -> None:
        async with opened() as (site, peer):
            mute = await site.connect()
            mute.writer.write(frames.PREFACE[:7])
            await mute.until(lambda: mute.closed)
            echo = peer.call(message(b"spoken"))
            await peer.flush()
            assert await peer.answer(echo) == message(b"spoken")

    run(work)


@settings(max_examples=150)
@given(
    pieces=st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.builds(
                frame, st.integers(0, 10), st.integers(0, 255), st.integers(0, 9), st.one_of(st.binary(max_size=30))
            ),
            st.sampled_from([FIRST, frame(1, 4, 3, BLOCK), frame(0, 1, 1, message(b"abc")), frame(1, 0, 5, BLOCK)]),
        ),
        max_size=12,
    )
)
def test_no_bytes_are_an_error_of_ours(pieces: list[bytes]) -> None:
    """Whatever comes: the loop's handler of errors hears nothing, and others are served."""

    async def work() -> None:
        heard: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
        async with opened() as (site, peer):
            wild = await site.connect()
            wild.writer.write(frames.PREFACE + frame(4, 0, 0, b"") + b"".join(pieces))
            wild.writer.write_eof()
            async with asyncio.timeout(10):
                while await wild.reader.read(65_536):
                    pass
            wild.writer.close()
            echo = peer.call(message(b"served"))
            await peer.flush()
            assert await peer.answer(echo) == message(b"served")
            assert (heard, site.front.unfinished_bytes, len(site.front.connections)) == ([], 0, 1)

    run(work)


def test_an_error_of_a_handler_is_told_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        def broken(data: bytes, call: Call) -> None:
            raise RuntimeError("a bug")

        site = Site()
        site.front = FrontServer({ECHO: broken}, {}, grpc.aio.server())
        peer = await site.connect()
        await peer.begin()
        stream = peer.call(message(b""))
        await peer.flush()
        await peer.until(lambda: stream in peer.ended)
        assert peer.status(stream) == (13, "an error of the engine; its log has the details")
        peer.writer.close()

    with caplog.at_level(logging.ERROR):
        run(work)
    assert "a bug" in caplog.text


def test_what_a_peer_keeps_of_headers_may_shrink_and_priorities_mean_nothing() -> None:
    async def work() -> None:
        site = Site()
        for size in (0, 2_048):
            peer = await site.connect()
            await peer.begin(HEADER_TABLE_SIZE=size, INITIAL_WINDOW_SIZE=10)
            first, second = peer.call(message(bytes(50))), peer.call(message(b"b"))
            await peer.flush()
            await peer.until(lambda: second in peer.ended)  # noqa: B023  run here
            # What was held back follows the acknowledgement of the window that lets it go.
            peer.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 65_535})
            await peer.flush()
            assert (await peer.answer(first), await peer.answer(second)) == (message(bytes(50)), message(b"b"))
            depends = b"\0\0\0\5\x10"  # on itself
            block = peer.h2.encoder.encode(HEADERS)
            peer.h2.get_next_available_stream_id()
            peer.writer.write(frame(1, 4 | 0x20, 5, depends + block) + frame(0, 1, 5, message(b"c")))
            got = b""
            while message(b"c") not in got:
                got += await asyncio.wait_for(peer.reader.read(65_536), 5)
            peer.writer.close()

    run(work)


def test_headers_are_read_anew_when_trailers_or_a_new_size_have_moved_the_table() -> None:
    async def work() -> None:
        async with opened() as (_, peer):
            encoder = Encoder()
            indexed = encoder.encode(to(ECHO))
            again = encoder.encode(to(ECHO))  # by their numbers
            trailers = encoder.encode([("x-new", "1")])  # moves the numbers by one
            within = encoder.encode(to(WITHIN))
            data = frame(1, 4, 1, indexed) + frame(0, 1, 1, message(b"1"))
            data += frame(1, 4, 3, again) + frame(0, 1, 3, message(b"2"))
            data += frame(1, 4, 5, again) + frame(0, 0, 5, message(b"3")) + frame(1, 5, 5, trailers)
            data += frame(1, 4, 7, within) + frame(0, 1, 7, message(b"4"))
            moved = encoder.encode(to(ECHO))
            assert moved != again
            data += frame(1, 4, 9, moved) + frame(0, 1, 9, message(b"5"))
            encoder.header_table_size = 0
            none = encoder.encode(to(ECHO))
            encoder.header_table_size = 4_096
            data += frame(1, 4, 11, none) + frame(0, 1, 11, message(b"6"))
            back = encoder.encode(to(ECHO))
            data += frame(1, 4, 13, back) + frame(0, 1, 13, message(b"7"))
            last = encoder.encode(to(ECHO))
            data += frame(1, 4, 15, last) + frame(0, 1, 15, message(b"8"))
            peer.writer.write(data)
            got = b""
            while message(b"8") not in got:
                got += await asyncio.wait_for(peer.reader.read(65_536), 5)
            order = [got.index(message(content)) for content in (b"1", b"2", b"3", b"None", b"5", b"6", b"7", b"8")]
            assert order == sorted(order)

    run(work)


@pytest.mark.parametrize("how", ["flag", "bomb", "reset", "close"])
def test_streams_that_go_wrong_leave_nothing_behind(how: str, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with streaming() as (site, _, _):
            before = len(asyncio.all_tasks())
            for _ in range(5):
                peer = await site.connect()
                await peer.begin()
                path = "/t.T/Endless" if how == "flag" else "/t.T/Stream"
                stream = peer.call(message(bytes(9_000)) * 3, to(path, grpc_encoding="deflate"), end=False)
                await peer.flush()
                if how == "flag":
                    peer.h2.send_data(stream, message(b"x", 7))
                elif how == "bomb":
                    peer.h2.send_data(stream, message(BOMB, 1))
                elif how == "reset":
                    peer.h2.reset_stream(stream)
                await peer.flush()
                if how in ("flag", "bomb"):
                    await peer.until(lambda: stream in peer.ended)  # noqa: B023  run here
                    assert peer.status(stream)[0] == (3 if how == "flag" else 8)
                peer.writer.close()
            async with asyncio.timeout(5):
                while len(asyncio.all_tasks()) > before or site.front.unfinished_bytes or site.front.connections:
                    await asyncio.sleep(0.01)

    with caplog.at_level(logging.WARNING):
        run(work)
    gc.collect()
    assert "pending" not in caplog.text


def test_who_takes_no_answers_holds_no_more_than_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HELD_BYTES_MAX", 100_000)

    async def work() -> None:
        async with opened() as (site, other):
            peer = await site.connect()
            await peer.begin(INITIAL_WINDOW_SIZE=0)
            streams = [peer.call(message(bytes(15_000))) for _ in range(8)]
            await peer.flush()
            await peer.until(lambda: len(peer.resets) == 2)
            assert peer.resets == dict.fromkeys(streams[6:], Reason.ENHANCE_YOUR_CALM)
            assert site.front.unfinished_bytes == 6 * 15_005
            # None of it counts as an offence: who gives an answer must not be told that the connection ends.
            assert peer.connection._offences <= 2 * limits.SETTINGS_OFFENCE_TIMES
            large = other.call(message(bytes(40_000)))
            await other.flush()
            assert await other.answer(large) == message(bytes(40_000))
            peer.writer.close()
            while site.front.unfinished_bytes:
                await asyncio.sleep(0.01)

    run(work)


def test_many_small_credits_are_not_a_walk_over_all_that_waits() -> None:
    """As many steps as there are answers that can go on, not as there are that wait for themselves."""

    async def work() -> None:
        async with opened() as (site, _):
            peer = await site.connect()
            await peer.begin(INITIAL_WINDOW_SIZE=0)
            for _ in range(200):
                peer.call(message(b"waits"))
            await peer.flush()
            while len(peer.connection.calls) < 200:
                await asyncio.sleep(0.001)
            assert peer.connection._blocked == {}
            peer.h2.increment_flow_control_window(5, 1)
            await peer.flush()
            await peer.until(lambda: len(peer.data.get(1, b"")) == 5)
            assert (len(peer.connection.calls), peer.connection._blocked) == (200, {})
            peer.writer.close()

    run(work)


def test_who_broke_the_protocol_and_does_not_read_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GOODBYE_MS_MAX", 50)

    async def work() -> None:
        async with opened() as (site, peer):
            mute = await site.connect()
            await mute.begin(INITIAL_WINDOW_SIZE=2**24)
            mute.h2.increment_flow_control_window(2**24)
            for _ in range(2):
                mute.call(message(bytes(60_000)))
            mute.writer.write(mute.h2.data_to_send() + frame(6, 0, 0, b"short"))
            async with asyncio.timeout(5):
                while site.front.connections != {peer.connection}:
                    await asyncio.sleep(0.01)
            mute.writer.close()

    run(work)


TEXTS = {"plain": "é 100 %\n", "percent": "%41", "long": "x" * 9_000, "both": "é%" * 3_000, "spaces": " it is: "}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_messages_of_statuses_arrive_as_they_are_or_cut(text: str) -> None:
    headers = dict(Decoder().decode(frames.status_block(3, text)))
    assert len(headers["grpc-message"]) <= frames.STATUS_MESSAGE_BYTES_MAX
    arrived = unquote(headers["grpc-message"], errors="strict")
    cut = arrived.endswith("...") and text.startswith(arrived[:-3]) and len(arrived) > 400
    assert cut or arrived == text.strip(" ")
