"""What HTTP/2 (RFC 9113) and gRPC put on the wire: frames, the headers of answers, and what goes wrong.

Answers carry the same few headers always, so their blocks are made once, as literals that are never indexed: such a
block means the same on every connection, whatever was sent before.
"""

from enum import IntEnum
from struct import Struct
from typing import Final
from urllib.parse import quote

from hpack import Encoder, NeverIndexedHeaderTuple

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
WITH_PRIORITY: Final = 0x20

SETTINGS_HEADER_TABLE_SIZE: Final = 1
SETTINGS_ENABLE_PUSH: Final = 2
SETTINGS_MAX_CONCURRENT_STREAMS: Final = 3
SETTINGS_INITIAL_WINDOW_SIZE: Final = 4
SETTINGS_MAX_FRAME_SIZE: Final = 5
SETTINGS_MAX_HEADER_LIST_SIZE: Final = 6

FRAME_BYTES: Final = 16_384
"""The largest frame that is taken, and that is sent unless the peer takes larger ones."""
WINDOW_BYTES: Final = 65_535
"""Of a connection and of a stream, before anything is said of it."""
WINDOW_BYTES_MAX: Final = 2**31 - 1

FRAME_HEADER: Final = Struct(">IBI")
"""Length and kind in one (24 and 8 bits), flags, stream."""
FRAME_HEADER_BYTES: Final = FRAME_HEADER.size
NUMBER: Final = Struct(">I")
SETTING: Final = Struct(">HI")
SMALLEST_TABLE: Final = b"\x20"
"""Begins a block of headers of who keeps none of them for later blocks (RFC 7541, 6.3)."""
TABLE_BYTES: Final = 4_096
"""That may be kept, before anything is said of it."""
MESSAGE_HEADER: Final = Struct(">BI")
"""What gRPC puts before a message: whether it is compressed, and its length in bytes."""

_PRINTABLE: Final = " !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"
"""What may stand in a message beside letters and digits: printable ASCII without the percent sign."""
STATUS_MESSAGE_BYTES_MAX: Final = 4_096
"""Of the message beside a status as it is sent: clients refuse headers of more than 8 KiB together."""


class Reason(IntEnum):
    """Why a stream or a connection ends, RFC 9113, section 7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11


class PeerFailed(Exception):
    """The peer broke the protocol."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class ConnectionFailed(PeerFailed):
    """Nothing that comes after it can be understood: the connection ends."""


class StreamFailed(PeerFailed):
    """It did so in one stream; the others go on."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame as it is sent."""
    return FRAME_HEADER.pack(len(payload) << 8 | kind, flags, stream) + payload


def reset(stream: int, reason: Reason) -> bytes:
    """The frame that ends a stream."""
    return frame(RST_STREAM, 0, stream, NUMBER.pack(reason))


def goaway(last: int, reason: Reason, text: str = "") -> bytes:
    """The frame that ends a connection: the last stream that counts, and why."""
    return frame(GOAWAY, 0, 0, NUMBER.pack(last) + NUMBER.pack(reason) + text.encode()[: FRAME_BYTES - 8])


def block(*headers: tuple[str, str]) -> bytes:
    """A block of headers that does not depend on what was sent before."""
    never_indexed = [NeverIndexedHeaderTuple(name.encode(), value.encode()) for name, value in headers]
    return Encoder().encode(never_indexed)


RESPONSE_BLOCK: Final = block((":status", "200"), ("content-type", "application/grpc"))
OK_BLOCK: Final = block(("grpc-status", "0"))


def status_block(code: int, message: str) -> bytes:
    """Trailers of a call that failed. `message` is percent-encoded as gRPC asks for, and cut if it is long."""
    message = message.strip(" ")  # HTTP/2 allows none at either end
    encoded = quote(message, safe=_PRINTABLE, errors="replace")
    while len(encoded) > STATUS_MESSAGE_BYTES_MAX:
        message = message[: len(message) * (STATUS_MESSAGE_BYTES_MAX - 8) // len(encoded)] + "..."
        encoded = quote(message, safe=_PRINTABLE, errors="replace")
    return block(("grpc-status", str(code)), ("grpc-message", encoded))
