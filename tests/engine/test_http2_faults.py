"""Our own HTTP/2 against who breaks the protocol, sends no messages, takes nothing or goes on without end."""

import asyncio
import gc
import logging
import zlib
from collections.abc import Callable
from typing import Any, cast

import grpc
import pytest
from hpack import Encoder
from http2_peer import ECHO, HEADERS, NEVER, Site, message, opened, run, streaming, to
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import frames, limits
from engine.calls import Call, Route, StreamingCall
from engine.frames import Reason, frame
from engine.front import FrontServer

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
            for n in range(1, 8 * limits.OFFENCE_BURST_ENTRIES_MAX, 2)
        ),
        Reason.ENHANCE_YOUR_CALM,
    ),
    "empty data without end": (
        FIRST + frame(0, 0, 1, b"") * (4 * limits.OFFENCE_BURST_ENTRIES_MAX),
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
            await peer.end_of(stream)
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
            await other.end_of(refused)
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


async def _soon(true: Callable[[], Any]) -> None:
    """Until it is so, without reading."""
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.001)


def test_a_message_that_does_not_come_is_not_waited_for_for_ever() -> None:
    async def work() -> None:
        async with opened() as (site, peer):
            half = peer.call(message(bytes(60_000))[:30_000], end=False)
            nothing = peer.call(b"", end=False)
            moving = peer.call(message(bytes(60_000))[:30_000], end=False)
            await peer.flush()
            await _soon(lambda: len(peer.connection.calls) == 3 and site.front.unfinished_bytes == 60_000)
            site.front.look()
            assert len(peer.connection.calls) == 3
            peer.h2.send_data(moving, bytes(15_000))
            peer.h2.send_data(moving, bytes(15_005), end_stream=True)
            await peer.flush()
            assert await peer.answer(moving) == message(bytes(60_000))
            site.front.look()
            for stream in (half, nothing):
                await peer.end_of(stream)
                assert peer.status(stream)[0] == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
            assert (site.front.unfinished_bytes, peer.connection.calls) == (0, {})

    run(work)


def test_who_waits_for_the_engine_is_waited_with() -> None:
    async def work() -> None:
        async with opened() as (site, peer):
            never = peer.call(message(b""), to(NEVER))
            await peer.flush()
            await _soon(lambda: site.waiting)
            for _ in range(3):
                site.front.look()
            assert peer.connection.calls.keys() == {never}
            site.waiting[0].answer(b"at last")
            assert await peer.answer(never) == message(b"at last")

    run(work)


def test_messages_of_a_stream_may_take_their_time_but_none_of_them_half() -> None:
    call = StreamingCall(cast(Any, None), 1, Route(), 65_535)
    assert call.waits() is None
    call.take(message(b"abc")[:6])
    half = call.waits()
    assert half is not None
    assert half.in_vain_since(half)
    call.take(message(b"abc")[6:])
    assert call.waits() is None
    call.take(message(b"abc")[:6])
    assert call.waits() is None, "the first message is not read yet, and it may have no credit left"


def test_what_gets_on_is_waited_for_however_long_it_takes() -> None:
    async def work() -> None:
        async with opened() as (site, _):
            peer = await site.connect()
            await peer.begin(INITIAL_WINDOW_SIZE=1_000_000)
            peer.own_credit = False
            upload = message(bytes(100_000))
            sending = peer.call(upload[:20_000], end=False)
            # The second answer waits behind the first for the window of the connection.
            reading = [peer.call(message(b""), to(NEVER)) for _ in range(2)]
            await peer.flush()
            await _soon(lambda: len(site.waiting) == 2)
            for call in site.waiting:
                call.answer(bytes(200_000))
            connection = peer.connection
            for sent in range(20_000, len(upload), 20_000):
                site.front.look()
                assert {sending, reading[1]} <= connection.calls.keys()
                there = connection._written_bytes
                peer.h2.send_data(sending, upload[sent : sent + 10_000])
                end = sent + 20_000 >= len(upload)
                peer.h2.send_data(sending, upload[sent + 10_000 : sent + 20_000], end_stream=end)
                peer.h2.increment_flow_control_window(20_000)
                await peer.flush()
                await _soon(lambda before=there: connection._written_bytes >= before + 20_000)
            assert connection.calls[reading[1]].sent_bytes == 0, "it waited all the time"
            site.front.look()
            peer.h2.increment_flow_control_window(1_000_000)
            await peer.flush()
            for stream in reading:
                assert await peer.answer(stream) == message(bytes(200_000))
            assert await peer.answer(sending) == upload
            assert peer.resets == {}

    run(work)


def test_while_the_server_does_not_read_nobody_is_blamed_for_what_does_not_come() -> None:
    async def work() -> None:
        async with opened() as (site, _):
            peer = await site.connect()
            await peer.begin(INITIAL_WINDOW_SIZE=16_000_000)
            peer.h2.increment_flow_control_window(16_000_000)
            large = peer.call(message(b""), to(NEVER))
            upload = peer.call(message(b"late")[:3], end=False)
            await peer.flush()
            await _soon(lambda: site.waiting and upload in peer.connection.calls)
            site.waiting[0].answer(bytes(3_000_000))
            await _soon(lambda: peer.connection._paused)
            peer.h2.send_data(upload, message(b"late")[3:], end_stream=True)
            await peer.flush()
            for _ in range(3):
                site.front.look()
            assert upload in peer.connection.calls
            assert await peer.answer(large) == message(bytes(3_000_000))
            assert await peer.answer(upload) == message(b"late")

    run(work)


def test_a_connection_that_cannot_be_looked_at_takes_none_along(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def look(self) -> None:
            raise RuntimeError("a bug")

    async def work() -> None:
        async with opened() as (site, peer):
            half = peer.call(message(bytes(10))[:7], end=False)
            await peer.flush()
            await _soon(lambda: half in peer.connection.calls)
            broken = cast(Any, Broken())
            site.front.connections.add(broken)
            site.front.look()
            site.front.look()
            site.front.connections.discard(broken)
            await peer.end_of(half)
            assert peer.status(half)[0] == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]

    run(work)
    assert "a bug" in caplog.text


def test_an_answer_that_is_not_read_is_not_kept_for_ever() -> None:
    async def work() -> None:
        async with opened() as (site, usual):
            peer = await site.connect()
            await peer.begin(INITIAL_WINDOW_SIZE=1_000)
            peer.own_credit = False
            stream, other = (peer.call(message(bytes(5_000))) for _ in range(2))
            await peer.flush()
            await peer.until(lambda: all(len(peer.data.get(each, b"")) == 1_000 for each in (stream, other)))
            site.front.look()
            peer.h2.increment_flow_control_window(500, other)
            await peer.flush()
            await peer.until(lambda: len(peer.data[other]) == 1_500)
            site.front.look()
            await peer.until(lambda: stream in peer.resets)
            assert peer.resets == {stream: Reason.ENHANCE_YOUR_CALM}
            assert site.front.unfinished_bytes == 5_005 - 1_500
            echo = usual.call(message(b"read"))
            await usual.flush()
            assert await usual.answer(echo) == message(b"read")

    run(work)


def test_headers_whose_end_does_not_come_end_the_connection() -> None:
    async def work() -> None:
        async with opened() as (site, _):
            wild = await site.connect()
            wild.writer.write(frames.PREFACE + frame(4, 0, 0, b"") + frame(1, 0, 1, BLOCK))
            await wild.writer.drain()
            await _soon(lambda: wild.connection._headers)
            site.front.look()
            assert wild.connection in site.front.connections
            site.front.look()
            async with asyncio.timeout(10):
                heard = await wild.reader.read()
            assert b"the end of the headers does not come" in heard

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
        await peer.end_of(stream)
        assert peer.status(stream) == (13, "an error of the engine; its log has the details")
        peer.writer.close()

    with caplog.at_level(logging.ERROR):
        run(work)
    assert "a bug" in caplog.text


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
                    await peer.end_of(stream)
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
