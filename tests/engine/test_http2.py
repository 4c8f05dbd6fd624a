"""Our own HTTP/2, against an independent client (the package h2), over real sockets."""

import asyncio
import gzip
import random
import socket
import zlib
from typing import Any
from urllib.parse import unquote

import grpc
import h2.errors
import h2.settings
import pytest
from hpack import Decoder, Encoder
from http2_peer import ECHO, HEADERS, LATER, NEVER, WITHIN, Site, message, opened, run, streaming, to
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import frames, limits
from engine.frames import frame

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
            await peer.end_of(late)
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
            encoder = Encoder()

            def call(stream: int) -> bytes:
                return frame(1, 4, stream, encoder.encode(to(ECHO))) + frame(0, 1, stream, message(b"late"))

            # The first was on its way when the goodbye was sent, the second comes after it was heard.
            writer.write(call(1) + frame(6, 1, 0, b"farewell") + call(3))
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
        assert frame(7, 0, 0, b"\x7f\xff\xff\xff" + bytes(4)) + frame(6, 0, 0, b"farewell") in told
        assert frame(0, 0, 1, message(b"late")) in told
        assert frame(7, 0, 0, frames.NUMBER.pack(1) + bytes(4)) in told
        assert frame(3, 0, 3, frames.NUMBER.pack(frames.Reason.REFUSED_STREAM)) in told
        assert told.endswith(frame(7, 0, 0, frames.NUMBER.pack(1) + bytes(4))), "what is said of it does not grow"
        assert site.front.connections == set()
        writer.close()

    run(work)


def test_callers_of_a_server_that_leaves_are_served_by_another_and_see_no_error() -> None:
    async def work() -> None:
        first, second = Site(), Site()
        address = f"127.0.0.1:{await first.front.start('127.0.0.1:0')}"
        async with grpc.aio.insecure_channel(address) as channel:
            later = channel.unary_unary(LATER)
            answers = [await later(b"0", timeout=10.0)]
            assert await second.front.start(address) == int(address.rpartition(":")[2])

            async def call() -> None:
                while second.later < 200:
                    answers.append(await later(b"0.002", timeout=10.0))

            callers = [asyncio.create_task(call()) for _ in range(30)]
            while first.later < 200:
                await asyncio.sleep(0.001)
            await first.front.leave()
            await asyncio.gather(*callers)
            await first.front.stop(5.0)
            await second.front.stop(5.0)
        assert set(answers) == {b"slept"}
        assert len(answers) == first.later + second.later, "none was begun twice"

    run(work)


def test_a_peer_that_does_not_hear_the_goodbye_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LEAVE_MS_MAX", 50)

    async def work() -> None:
        async with opened() as (site, peer):
            await site.front.leave()
            late = Encoder().encode(to(ECHO))
            peer.writer.write(frame(1, 4, 1, late) + frame(0, 1, 1, message(b"late")))
            # The package h2 takes nothing after a goodbye.
            told = b""
            async with asyncio.timeout(10):
                while frame(3, 0, 1, frames.NUMBER.pack(frames.Reason.REFUSED_STREAM)) not in told:
                    told += await peer.reader.read(1_000)
            assert frame(7, 0, 0, bytes(4) + bytes(4)) in told, "none was taken"

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


def test_what_a_peer_keeps_of_headers_may_shrink_and_priorities_mean_nothing() -> None:
    async def work() -> None:
        site = Site()
        for size in (0, 2_048):
            peer = await site.connect()
            await peer.begin(HEADER_TABLE_SIZE=size, INITIAL_WINDOW_SIZE=10)
            first, second = peer.call(message(bytes(50))), peer.call(message(b"b"))
            await peer.flush()
            await peer.end_of(second)
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


TEXTS = {"plain": "é 100 %\n", "percent": "%41", "long": "x" * 9_000, "both": "é%" * 3_000, "spaces": " it is: "}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_messages_of_statuses_arrive_as_they_are_or_cut(text: str) -> None:
    headers = dict(Decoder().decode(frames.status_block(3, text)))
    assert len(headers["grpc-message"]) <= frames.STATUS_MESSAGE_BYTES_MAX
    arrived = unquote(headers["grpc-message"], errors="strict")
    cut = arrived.endswith("...") and text.startswith(arrived[:-3]) and len(arrived) > 400
    assert cut or arrived == text.strip(" ")


def test_a_port_that_is_taken_is_told_and_nothing_is_left_behind() -> None:
    async def work() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            site = Site()
            with pytest.raises(OSError, match="in use"):
                await site.front.start(f"127.0.0.1:{taken.getsockname()[1]}")
            assert (site.front._fallback_folder, site.front._channel) == ("", None)

    run(work)
