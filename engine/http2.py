"""A connection of HTTP/2 that carries gRPC calls: RFC 9113 from the server's side, on asyncio.

Why not a library: every one for Python makes an event, or a system call, of each frame. Callers of Decide send many
small calls at once, and what comes in one read is taken apart in one loop here, what is answered in one turn of the
event loop leaves in one write. Side by side with 64 in flight it gives 108,000 to 179,000 empty answers a second, where
pygrpc-native in Rust, which served here before, gave 41,000 to 64,000 and left less to decisions. Headers are unpacked
by engine.headers; as the calls of many callers send the same ones, the meaning of a block is kept for as long as the
table of the packing has not changed.

Every message has two ways: one for what is usual (a message in one frame, an answer that flow control lets through),
which `_read` and `respond` go, and one for everything else.

Nothing that a peer sends can grow without bound: headers, calls, messages and answers under way have limits
(engine.limits); who does not read its answers is not read from either; who takes back thousands of calls a
second (CVE-2023-44487), or sends frames without sense, is sent away.
"""

import asyncio
import logging
import socket
from collections.abc import Sequence
from struct import Struct
from typing import Final, Protocol, cast

import grpc

from engine import frames, limits
from engine.calls import PREFIX_BYTES, Call, Route, StreamingCall, Waits
from engine.frames import ConnectionFailed, Reason, StreamFailed, frame
from engine.headers import Header, HeaderReader
from engine.status import refused

log = logging.getLogger(__name__)

_SETTINGS: Final = {
    frames.SETTINGS_MAX_CONCURRENT_STREAMS: limits.CONNECTION_CALL_ENTRIES_MAX,
    frames.SETTINGS_INITIAL_WINDOW_SIZE: limits.CALL_WINDOW_BYTES,
    frames.SETTINGS_MAX_HEADER_LIST_SIZE: limits.HEADER_BYTES_MAX,
}
_STREAM: Final = 0x7FFF_FFFF
_ANSWER: Final = Struct(f">IBI{len(frames.RESPONSE_BLOCK)}sIBIBI")
"""Headers of an answer, of its DATA frame and of the message."""
_RESPONSE: Final = len(frames.RESPONSE_BLOCK) << 8 | frames.HEADERS
_TRAILERS: Final = Struct(f">IBI{len(frames.OK_BLOCK)}s")
_END: Final = frames.END_HEADERS | frames.END_STREAM
_FAREWELL: Final = b"farewell"
_TRAILED: Final = len(frames.OK_BLOCK) << 8 | frames.HEADERS


class Host(Protocol):
    """Whom connections belong to."""

    connections: "set[Connection]"
    stopping: bool
    unfinished_bytes: int
    """Of all connections: parts of messages that have come, and of answers that were not sent."""

    def route(self, headers: Sequence[Header]) -> Route:
        """Where a call with these headers goes. Raises StreamFailed for those that HTTP/2 does not allow."""


class Connection(asyncio.Protocol):
    """One of them."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._rest = b""
        self._greeted = False
        self._leaving = False
        self.left = False
        """Whether it takes no more calls."""
        self._closing = False
        self.calls: dict[int, Call] = {}
        self._last = 0
        """The newest stream that the peer has opened."""
        self._last_said = _STREAM
        """The newest one that is taken, as the peer was told: what is told later may not be more."""
        self._reader = HeaderReader()
        self._known: dict[bytes, Route] = {}
        self._headers: tuple[int, int, bytearray] | None = None
        """Stream, flags and block of headers whose end has not come."""
        self._uncredited = 0
        """Bytes received that the peer was not told it may send again."""
        self._window = frames.WINDOW_BYTES
        self._call_window = frames.WINDOW_BYTES
        self._frame_bytes = frames.FRAME_BYTES
        self._out: list[bytes] = []
        self._flushing = False
        self._paused = False
        self._blocked: dict[int, Call] = {}
        """Calls whose answers wait for the window of the connection, or for the peer to read."""
        self._held_bytes = 0
        """What this connection's calls hold."""
        self._written_bytes = 0
        """Given to the transport."""
        self._held_up = False
        """Whether it was not read from since the last look, as the peer did not read."""
        self._waits: dict[int, Waits] = {}
        """Calls that waited for the peer at the last look, and how far they were."""
        self._headers_awaited = 0
        """Stream of which the end of the headers was awaited at the last look."""
        self._table_due = False
        """Whether the next headers have to say that we keep none for later."""
        self._table_told = False
        self._offences = 0.0
        self._offended_s = 0.0
        """When the last one was, by the loop's clock."""

    # --- asyncio -----------------------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say what is taken here."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by type
        self._host.connections.add(self)
        plug: socket.socket | None = self._transport.get_extra_info("socket")
        if plug is not None:
            # A peer that went without a word is found out by the kernel.
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._patience = self._loop.call_later(limits.PREFACE_MS_MAX / 1e3, self._transport.close)
        settings = b"".join(frames.SETTING.pack(*setting) for setting in _SETTINGS.items())
        more = frames.NUMBER.pack(limits.CONNECTION_WINDOW_BYTES - frames.WINDOW_BYTES)
        self._transport.write(frame(frames.SETTINGS, 0, 0, settings) + frame(frames.WINDOW_UPDATE, 0, 0, more))
        if self._host.stopping:
            self.part()
            self._patience.cancel()
            self._patience = self._loop.call_later(limits.GOODBYE_MS_MAX / 1e3, self.close)

    def connection_lost(self, error: Exception | None) -> None:
        """Drop the calls."""
        self._closing = True
        self._patience.cancel()
        self._host.connections.discard(self)
        for call in list(self.calls.values()):
            self._drop(call)

    def eof_received(self) -> None:
        """The peer hung up."""
        for call in list(self.calls.values()):
            self._drop(call)
        self._hang_up()

    def data_received(self, data: bytes) -> None:
        """Read."""
        if self._closing:
            return
        try:
            self._read(self._rest + data if self._rest else data)
        except ConnectionFailed as failure:
            self._end(failure)

    def pause_writing(self) -> None:
        """The peer does not read: do not read from it either."""
        self._paused = self._held_up = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        self._paused = False
        self._transport.resume_reading()
        self._unblock()

    # --- for the host ------------------------------------------------------------------------------------------------
    def leave(self) -> None:
        """Ask the peer for no more calls. Those that are on their way are taken: it has heard when it echoes."""
        if not self._greeted:
            self.part()  # it may never say a word
        elif not self._closing:
            self._leaving = True
            self._write(frames.goaway(_STREAM, Reason.NO_ERROR) + frame(frames.PING, 0, 0, _FAREWELL))

    def look(self) -> None:
        """Cut what did not get on since the last look, though it was the peer's turn.

        What is held for unfinished calls has a limit that all connections share, so nobody may use it up for good.
        """
        held_up, self._held_up = self._held_up, self._paused
        begun = 0 if self._headers is None or held_up else self._headers[0]
        if begun and begun == self._headers_awaited:
            self._end(ConnectionFailed(Reason.ENHANCE_YOUR_CALM, "the end of the headers does not come"))
            return
        before, self._headers_awaited, self._waits = self._waits, begun, {}
        for stream, call in list(self.calls.items()):
            waits = call.waits()
            if waits is not None and stream in self._blocked:
                # Behind others: they share the window of the connection, or what the peer reads at all.
                read_bytes = self._written_bytes - self._transport.get_write_buffer_size()
                waits = Waits("to read anything", read_bytes, 1)
            elif waits is None or (held_up and not call.unsent):
                continue  # what it has sent may lie here, unread
            if waits.in_vain_since(before.get(stream)):
                self._give_up(call)
            else:
                self._waits[stream] = waits

    def part(self) -> None:
        """Take no more calls, and say which was the last. Clients of gRPC ask another server for those after it."""
        if not self.left and not self._closing:
            self._last_said = self._last
            self._write(frames.goaway(self._last, Reason.NO_ERROR))
        self.left = True

    def close(self) -> None:
        """Cut the calls that are under way, send what is to be sent, and close."""
        for call in list(self.calls.values()):
            call.cut(grpc.StatusCode.UNAVAILABLE, "the server has stopped")
        self._goodbye(Reason.NO_ERROR, "")
        self._hang_up()

    # --- for calls ---------------------------------------------------------------------------------------------------
    def respond(self, call: Call, data: bytes) -> None:
        """Send the one answer of a call, and that all is well."""
        stream, length = call.stream, len(data)
        framed = length + PREFIX_BYTES
        narrow = framed > self._window or framed > call.window or framed > self._frame_bytes
        if narrow or not call.ended or self._table_due:
            self.send(call, data)
            self.finish(call, frames.OK_BLOCK)
            return
        if self.calls.pop(stream, None) is None:
            return  # the connection was lost
        if call.counted:
            self._release(call)
        self._window -= framed
        head = _ANSWER.pack(
            _RESPONSE, frames.END_HEADERS, stream, frames.RESPONSE_BLOCK, framed << 8, 0, stream, 0, length
        )
        self._out += (head, data)
        self._write(_TRAILERS.pack(_TRAILED, _END, stream, frames.OK_BLOCK))

    def send(self, call: Call, data: bytes) -> bool:
        """Send a message of an answer; whether all of it left. Flow control may keep some, the rest follows."""
        if call.stream not in self.calls:
            return True
        if not call.started:
            call.started = True
            self._write_headers(frames.END_HEADERS, call.stream, frames.RESPONSE_BLOCK)
        if call.unsent is None:
            call.unsent = bytearray()
        call.unsent += frames.MESSAGE_HEADER.pack(0, len(data)) + data
        self._pump(call)
        return not call.unsent

    def finish(self, call: Call, block: bytes) -> None:
        """End a call with these trailers, after what is still to be sent."""
        if call.stream in self.calls:
            call.trailers = block if call.started else frames.RESPONSE_BLOCK + block
            if not call.unsent:
                self._conclude(call)

    def credit(self, call: Call, count: int) -> None:
        """Let the peer send so many more bytes in a call."""
        if call.stream not in self.calls:
            return
        self._account(call)
        if not call.ended and count:
            self._write(frame(frames.WINDOW_UPDATE, 0, call.stream, frames.NUMBER.pack(count)))

    # --- out ---------------------------------------------------------------------------------------------------------
    def _write(self, data: bytes) -> None:
        self._out.append(data)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        out, self._out = self._out, []
        if out and not self._transport.is_closing():
            data = b"".join(out)
            self._written_bytes += len(data)
            self._transport.write(data)

    def _write_headers(self, flags: int, stream: int, block: bytes) -> None:
        if self._table_due:
            block, self._table_due, self._table_told = frames.SMALLEST_TABLE + block, False, True
        self._write(frame(frames.HEADERS, flags, stream, block))

    def _pump(self, call: Call) -> None:
        """Send what flow control lets through of what a call has to send."""
        unsent = call.unsent
        while unsent and not self._paused:
            count = min(len(unsent), self._window, call.window, self._frame_bytes)
            if count <= 0:
                break
            self._write(frame(frames.DATA, 0, call.stream, bytes(unsent[:count])))
            del unsent[:count]
            self._window -= count
            call.window -= count
            call.sent_bytes += count
        self._account(call)
        if not unsent:
            self._blocked.pop(call.stream, None)
            if isinstance(call, StreamingCall):
                call.drained()
            if call.trailers is not None:
                self._conclude(call)
        elif self._too_much():
            self._let_go(call)
        elif call.window > 0:
            self._blocked[call.stream] = call
        else:
            self._blocked.pop(call.stream, None)  # it waits for its own window

    def _let_go(self, call: Call) -> None:
        """Drop an answer that is not read. No offence: whoever answers must not hear that the connection ends."""
        self._drop(call)
        self._write(frames.reset(call.stream, Reason.ENHANCE_YOUR_CALM))

    def _give_up(self, call: Call) -> None:
        """Of a call that waits for its peer, and has for too long."""
        if call.unsent:
            self._let_go(call)
        else:
            least = f"less than {limits.CALL_STALL_BYTES_MIN} bytes of it in {limits.CALL_STALL_MS_MAX} ms"
            text = f"the rest of the message did not come: {least}"
            call.cut(*refused(grpc.StatusCode.DEADLINE_EXCEEDED, text))

    def _unblock(self) -> None:
        """Go on with those that waited for the connection: each sends something, or the connection is full again."""
        while self._blocked and self._window > 0 and not self._paused:
            self._pump(next(iter(self._blocked.values())))

    def _conclude(self, call: Call) -> None:
        assert call.trailers is not None
        self._write_headers(_END, call.stream, call.trailers)
        if not call.ended:
            self._write(frames.reset(call.stream, Reason.NO_ERROR))  # the rest of the message is not wanted
        self._remove(call)

    def _remove(self, call: Call) -> None:
        self.calls.pop(call.stream, None)
        self._blocked.pop(call.stream, None)
        call.body = None
        self._release(call)

    def _release(self, call: Call) -> None:
        self._host.unfinished_bytes -= call.counted
        self._held_bytes -= call.counted
        call.counted = 0

    def _account(self, call: Call) -> None:
        """Count what a call that is under way holds."""
        if call.stream in self.calls:
            more = call.held_bytes() - call.counted
            call.counted += more
            self._held_bytes += more
            self._host.unfinished_bytes += more

    def _too_much(self) -> bool:
        return self._held_bytes > limits.HELD_BYTES_MAX or self._host.unfinished_bytes > limits.UNFINISHED_BYTES_MAX

    def _goodbye(self, reason: Reason, text: str) -> None:
        """The last that is said. What is under way is dropped."""
        if self._closing:
            return
        self._closing = self.left = True
        for call in list(self.calls.values()):
            self._drop(call)
        self._write(frames.goaway(min(self._last, self._last_said), reason, text))
        self._flush()

    def _end(self, failure: ConnectionFailed) -> None:
        """Say why, and leave the peer a moment to hear it.

        Closed at once, with bytes of the peer unread, the kernel would take back what was just said.
        """
        log.info("a connection was ended: %s, %s", failure.reason.name, failure)
        self._goodbye(failure.reason, str(failure))
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()
        self._abort_later()

    def _hang_up(self) -> None:
        """Close when everything is sent; a peer that does not read does not keep the connection."""
        self._closing = self.left = True
        self._transport.close()
        self._abort_later()

    def _abort_later(self) -> None:
        self._patience.cancel()
        self._patience = self._loop.call_later(limits.GOODBYE_MS_MAX / 1e3, self._transport.abort)

    # --- in ----------------------------------------------------------------------------------------------------------
    def _read(self, data: bytes) -> None:
        """Take apart what has come; the beginning of a frame is kept. Raises ConnectionFailed."""
        position, end = 0, len(data)
        if not self._greeted:
            if not frames.PREFACE.startswith(data[: len(frames.PREFACE)]):
                raise ConnectionFailed(Reason.PROTOCOL_ERROR, "this is a port for gRPC, expected HTTP/2")
            position = len(frames.PREFACE)
            # SETTINGS follow at once: their head tells that nothing else does.
            if end < position + frames.FRAME_HEADER_BYTES:
                self._rest = data
                return
            if data[position + 3] != frames.SETTINGS or data[position + 4] & frames.ACK:
                raise ConnectionFailed(Reason.PROTOCOL_ERROR, "SETTINGS are expected first")
            self._greeted = True
            self._patience.cancel()
        calls, known = self.calls, self._known
        unpack, unpack_message = frames.FRAME_HEADER.unpack_from, frames.MESSAGE_HEADER.unpack_from
        while end - position >= frames.FRAME_HEADER_BYTES and not self._closing:
            word, flags, stream = unpack(data, position)
            length, kind = word >> 8, word & 0xFF
            if length > frames.FRAME_BYTES:
                text = f"a frame of {length} bytes, at most {frames.FRAME_BYTES} are allowed"
                raise ConnectionFailed(Reason.FRAME_SIZE_ERROR, text)
            start = position + frames.FRAME_HEADER_BYTES
            if start + length > end:
                break
            position = start + length
            if kind == frames.DATA:
                self._uncredited += length
                call = calls.get(stream)
                if (
                    flags == frames.END_STREAM
                    and call is not None
                    and call.route.message is not None
                    and call.body is None
                    and not call.ended
                    and length >= PREFIX_BYTES
                    and unpack_message(data, start) == (0, length - PREFIX_BYTES)
                    and self._headers is None
                ):
                    call.ended = True
                    call.hand_on(data[start + PREFIX_BYTES : position])
                    continue
            elif kind == frames.HEADERS and flags == frames.END_HEADERS and self._is_next(stream):
                route = known.get(data[start:position])
                if route is not None and route.message is not None:
                    self._last = stream
                    calls[stream] = Call(self, stream, route, self._call_window)
                    continue
            try:
                self._frame(kind, flags, stream & _STREAM, data[start:position])
            except StreamFailed as failure:
                self._fail(stream & _STREAM, failure.reason)
        self._rest = data[position:]
        if self._uncredited >= limits.CONNECTION_WINDOW_BYTES // 2:
            self._write(frame(frames.WINDOW_UPDATE, 0, 0, frames.NUMBER.pack(self._uncredited)))
            self._uncredited = 0

    def _is_next(self, stream: int) -> bool:
        """Whether a call may begin in a stream."""
        return (
            stream > self._last
            and stream & ~_STREAM == 0
            and stream & 1 == 1
            and self._headers is None
            and len(self.calls) < limits.CONNECTION_CALL_ENTRIES_MAX
            and not self.left
        )

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """One frame. Raises ConnectionFailed, StreamFailed."""
        if self._headers is not None and (kind != frames.CONTINUATION or stream != self._headers[0]):
            raise ConnectionFailed(Reason.PROTOCOL_ERROR, "the end of the headers is missing")
        if kind == frames.HEADERS:
            self._begin(stream, flags, payload)
        elif kind == frames.DATA:
            self._data(stream, flags, payload)
        elif kind == frames.CONTINUATION:
            self._continue(flags, payload)
        elif kind == frames.WINDOW_UPDATE:
            self._window_update(stream, payload)
        elif kind == frames.RST_STREAM:
            self._reset_by_peer(stream, payload)
        elif kind == frames.SETTINGS:
            self._settings(flags, stream, payload)
        elif kind == frames.PING:
            _expect(len(payload) == 8, Reason.FRAME_SIZE_ERROR, f"PING of {len(payload)} bytes, expected 8")
            _expect(stream == 0, Reason.PROTOCOL_ERROR, "PING in a stream")
            if not flags & frames.ACK:
                self._write(frame(frames.PING, frames.ACK, 0, payload))
            elif self._leaving and payload == _FAREWELL:
                self.part()
        elif kind == frames.PRIORITY:
            _expect(stream != 0, Reason.PROTOCOL_ERROR, "PRIORITY without a stream")
            if len(payload) != 5:
                raise StreamFailed(Reason.FRAME_SIZE_ERROR, "PRIORITY")
        elif kind == frames.GOAWAY:
            _expect(stream == 0, Reason.PROTOCOL_ERROR, "GOAWAY in a stream")  # it will open no more streams
        elif kind == frames.PUSH_PROMISE:
            raise ConnectionFailed(Reason.PROTOCOL_ERROR, "PUSH_PROMISE from a client")

    def _begin(self, stream: int, flags: int, payload: bytes) -> None:
        """HEADERS."""
        _expect(stream & 1 == 1, Reason.PROTOCOL_ERROR, f"a call in stream {stream}, expected an odd one")
        if flags & frames.PADDED:
            payload = _unpadded(payload)
        if flags & frames.WITH_PRIORITY:
            _expect(len(payload) >= 5, Reason.FRAME_SIZE_ERROR, "HEADERS without the priority that they have")
            payload = payload[5:]  # RFC 9113 does away with priorities
        if flags & frames.END_HEADERS:
            self._headers_of(stream, flags, payload)
        else:
            self._headers = stream, flags, bytearray(payload)

    def _continue(self, flags: int, payload: bytes) -> None:
        """CONTINUATION."""
        if self._headers is None:
            raise ConnectionFailed(Reason.PROTOCOL_ERROR, "CONTINUATION of nothing")
        stream, first_flags, block = self._headers
        block += payload
        if len(block) > limits.HEADER_BYTES_MAX or not payload:
            text = f"headers of more than {limits.HEADER_BYTES_MAX} bytes, or in empty pieces"
            raise ConnectionFailed(Reason.ENHANCE_YOUR_CALM, text)
        if flags & frames.END_HEADERS:
            self._headers = None
            self._headers_of(stream, first_flags, bytes(block))

    def _headers_of(self, stream: int, flags: int, block: bytes) -> None:
        """All headers of a call, or its trailers."""
        if stream <= self._last:
            self._decode(block)
            self._trailers_of(stream, flags)
            return
        self._last = stream
        route = self._known.get(block) or self._learn(block)
        if self.left:
            raise StreamFailed(Reason.REFUSED_STREAM, "the server is stopping")
        if len(self.calls) >= limits.CONNECTION_CALL_ENTRIES_MAX:
            raise StreamFailed(Reason.REFUSED_STREAM, "too many calls")
        if route.stream is None:
            call = Call(self, stream, route, self._call_window)
        else:
            call = StreamingCall(self, stream, route, self._call_window)
        self.calls[stream] = call
        if route.refusal is not None:
            call.cut(*refused(*route.refusal))
        elif isinstance(call, StreamingCall) and route.stream is not None:
            route.stream(call)
        if flags & frames.END_STREAM:
            call.ended = True
            call.take(b"")

    def _trailers_of(self, stream: int, flags: int) -> None:
        call = self.calls.get(stream)
        if call is None or call.ended:
            raise StreamFailed(Reason.STREAM_CLOSED, "headers after the end")
        if not flags & frames.END_STREAM:
            raise StreamFailed(Reason.PROTOCOL_ERROR, "headers within a call")
        call.ended = True
        call.take(b"")
        self._account(call)

    def _learn(self, block: bytes) -> Route:
        """What a block says; kept if it always says so: for as long as the table of the packing does not change."""
        changes = self._reader.changes
        headers = self._decode(block)
        route = self._host.route(headers)
        if self._reader.changes == changes and len(block) <= limits.HEADER_BLOCK_KEPT_BYTES_MAX:
            if len(self._known) >= limits.HEADER_BLOCKS_KEPT_ENTRIES_MAX:
                self._known.clear()
            self._known[block] = route
        return route

    def _decode(self, block: bytes) -> Sequence[Header]:
        """The headers of a block; if it changes the table, what is known of blocks is forgotten."""
        changes = self._reader.changes
        headers = self._reader.read(block)
        if self._reader.changes != changes:
            self._known.clear()
        return headers

    def _data(self, stream: int, flags: int, payload: bytes) -> None:
        """DATA."""
        _expect(0 < stream <= self._last, Reason.PROTOCOL_ERROR, f"DATA in stream {stream}, which has not begun")
        received = len(payload)
        if flags & frames.PADDED:
            payload = _unpadded(payload)
        call = self.calls.get(stream)
        if call is None:
            # After an early refusal the rest of a large message is on its way: no offence.
            self._write(frames.reset(stream, Reason.STREAM_CLOSED))
            return
        if call.ended:
            raise StreamFailed(Reason.STREAM_CLOSED, "DATA after the end")
        call.ended = bool(flags & frames.END_STREAM)
        if not payload and not call.ended:
            self._offend()
        call.take(payload)
        self._account(call)
        if not call.ended and self._too_much():
            text = "too much is held of unfinished messages; send it again in a moment"
            call.cut(*refused(grpc.StatusCode.RESOURCE_EXHAUSTED, text))
        self.credit(call, received - len(payload))

    def _window_update(self, stream: int, payload: bytes) -> None:
        _expect(len(payload) == 4, Reason.FRAME_SIZE_ERROR, f"WINDOW_UPDATE of {len(payload)} bytes, expected 4")
        _expect(stream <= self._last, Reason.PROTOCOL_ERROR, f"WINDOW_UPDATE of stream {stream}, which has not begun")
        more = frames.NUMBER.unpack(payload)[0] & _STREAM
        if not stream:
            _expect(more > 0, Reason.PROTOCOL_ERROR, "WINDOW_UPDATE of 0 bytes")
            fits = self._window + more <= frames.WINDOW_BYTES_MAX
            _expect(fits, Reason.FLOW_CONTROL_ERROR, "the window is too large")
            self._window += more
            self._unblock()
            return
        call = self.calls.get(stream)
        if call is None:
            return
        if not more:
            raise StreamFailed(Reason.PROTOCOL_ERROR, "WINDOW_UPDATE of 0 bytes")
        if call.window + more > frames.WINDOW_BYTES_MAX:
            raise StreamFailed(Reason.FLOW_CONTROL_ERROR, "the window is too large")
        call.window += more
        if call.unsent:
            self._pump(call)

    def _settings(self, flags: int, stream: int, payload: bytes) -> None:
        _expect(stream == 0, Reason.PROTOCOL_ERROR, "SETTINGS in a stream")
        if flags & frames.ACK:
            _expect(not payload, Reason.FRAME_SIZE_ERROR, "SETTINGS in an acknowledgement")
            return
        _expect(len(payload) % 6 == 0, Reason.FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes")
        self._offend(limits.SETTINGS_OFFENCE_TIMES)
        window = self._call_window
        for name, value in frames.SETTING.iter_unpack(payload):
            if name == frames.SETTINGS_INITIAL_WINDOW_SIZE:
                _expect(value <= frames.WINDOW_BYTES_MAX, Reason.FLOW_CONTROL_ERROR, f"a window of {value} bytes")
                window = value
            elif name == frames.SETTINGS_MAX_FRAME_SIZE:
                fits = frames.FRAME_BYTES <= value < 1 << 24
                _expect(fits, Reason.PROTOCOL_ERROR, f"frames of up to {value} bytes")
                self._frame_bytes = value
            elif name == frames.SETTINGS_ENABLE_PUSH:
                _expect(value <= 1, Reason.PROTOCOL_ERROR, f"ENABLE_PUSH of {value}, expected 0 or 1")
            elif name == frames.SETTINGS_HEADER_TABLE_SIZE and value < frames.TABLE_BYTES and not self._table_told:
                self._table_due = True
        self._write(frame(frames.SETTINGS, frames.ACK, 0, b""))
        if window != self._call_window:
            self._new_call_window(window)

    def _new_call_window(self, window: int) -> None:
        more, self._call_window = window - self._call_window, window
        for call in list(self.calls.values()):
            fits = call.window + more <= frames.WINDOW_BYTES_MAX
            _expect(fits, Reason.FLOW_CONTROL_ERROR, "the window is too large")
            call.window += more
            if call.unsent:
                self._pump(call)

    def _reset_by_peer(self, stream: int, payload: bytes) -> None:
        _expect(len(payload) == 4, Reason.FRAME_SIZE_ERROR, f"RST_STREAM of {len(payload)} bytes, expected 4")
        _expect(0 < stream <= self._last, Reason.PROTOCOL_ERROR, f"RST_STREAM of {stream}, which has not begun")
        call = self.calls.get(stream)
        if call is not None:
            self._drop(call)
            self._offend()

    def _fail(self, stream: int, reason: Reason) -> None:
        """End one stream whose peer broke the protocol."""
        call = self.calls.get(stream)
        if call is not None:
            self._drop(call)
        self._write(frames.reset(stream, reason))
        self._offend()

    def _offend(self, times: int = 1) -> None:
        """A call was taken back, or something came that makes no sense: nobody does that without end."""
        now_s = self._loop.time()
        forgiven = (now_s - self._offended_s) * limits.OFFENCE_PER_S_ENTRIES_MAX
        self._offences, self._offended_s = max(0.0, self._offences - forgiven) + times, now_s
        text = f"more than {limits.OFFENCE_PER_S_ENTRIES_MAX} calls a second taken back, or frames without sense"
        _expect(self._offences <= limits.OFFENCE_BURST_ENTRIES_MAX, Reason.ENHANCE_YOUR_CALM, text)

    def _drop(self, call: Call) -> None:
        self._remove(call)
        call.dropped()


def _expect(true: bool, reason: Reason, text: str) -> None:
    if not true:
        raise ConnectionFailed(reason, text)


def _unpadded(payload: bytes) -> bytes:
    _expect(len(payload) > 0 and payload[0] < len(payload), Reason.PROTOCOL_ERROR, "more padding than there is")
    return payload[1 : len(payload) - payload[0]]

