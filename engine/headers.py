"""Headers of HTTP/2, unpacked: RFC 7541 from the reader's side.

Why not the package hpack, whose tables this reads and against which it is tested: many callers (grpc-go, grpc-java)
send another grpc-timeout with each call, so each block is a new one. hpack takes 20 µs for it, a sixth of what a
decision costs; this takes 5, as nearly all fields of such a block are one byte that names an entry of a table.
"""

from collections import deque
from typing import Final

from hpack.exceptions import HPACKDecodingError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from engine.frames import TABLE_BYTES, ConnectionFailed, Reason
from engine.limits import HEADER_BYTES_MAX

Header = tuple[bytes, bytes]
"""Name and value."""

_STATIC: Final[tuple[Header, ...]] = HeaderTable.STATIC_TABLE
_OVERHEAD_BYTES: Final = 32
"""What RFC 7541 counts for a header beside its name and value."""
_NUMBER_BITS_MAX: Final = 28
"""Of the part of a number that does not fit its first byte; more than any length or index that makes sense."""


class HeaderReader:
    """Unpacks the blocks of one peer, in the order in which they come."""

    def __init__(self) -> None:
        self._entries: deque[Header] = deque()
        """What the peer may refer to, the newest first."""
        self._bytes = 0
        self._bytes_max = TABLE_BYTES
        self.changes = 0
        """How often the table has changed. As long as it does not, the same block says the same."""

    def read(self, block: bytes) -> list[Header]:
        """The headers of a block.

        Raises ConnectionFailed for one that breaks the rules: those after it could not be understood either.
        """
        try:
            return self._read(block)
        except IndexError:
            raise _failed("the block ends too early") from None

    def _read(self, block: bytes) -> list[Header]:
        headers: list[Header] = []
        at, end, unpacked_bytes = 0, len(block), 0
        while at < end:
            first = block[at]
            if first & 0x80:
                if first == 0xFF:
                    index, at = _number(block, at, 0x7F)
                else:
                    index, at = first & 0x7F, at + 1
                header = self._entry(index)
            elif first & 0x40:
                header, at = self._literal(block, at, 0x3F)
                self._keep(header)
            elif first & 0x20:
                if headers:
                    raise _failed("a new size of the table amid headers")
                size, at = _number(block, at, 0x1F)
                self._resize(size)
                continue
            else:
                header, at = self._literal(block, at, 0x0F)
            unpacked_bytes += _size(header)
            if unpacked_bytes > HEADER_BYTES_MAX:
                raise _failed(f"more than {HEADER_BYTES_MAX} bytes of headers")
            headers.append(header)
        return headers

    def _entry(self, index: int) -> Header:
        own = index - len(_STATIC) - 1
        if own >= len(self._entries) or not index:
            raise _failed(f"entry {index} of a table of {len(_STATIC) + len(self._entries)}")
        return self._entries[own] if own >= 0 else _STATIC[index - 1]

    def _literal(self, block: bytes, at: int, mask: int) -> tuple[Header, int]:
        index, at = _number(block, at, mask)
        if index:
            name = self._entry(index)[0]
        else:
            name, at = _text(block, at)
        value, at = _text(block, at)
        return (name, value), at

    def _keep(self, header: Header) -> None:
        self.changes += 1
        self._entries.appendleft(header)
        self._bytes += _size(header)
        self._shrink()

    def _resize(self, size: int) -> None:
        if size > TABLE_BYTES:
            raise _failed(f"a table of {size} bytes, at most {TABLE_BYTES} are allowed")
        self.changes += 1
        self._bytes_max = size
        self._shrink()

    def _shrink(self) -> None:
        while self._bytes > self._bytes_max:
            self._bytes -= _size(self._entries.pop())


def _size(header: Header) -> int:
    return _OVERHEAD_BYTES + len(header[0]) + len(header[1])


def _number(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """A number whose first byte has it under `mask`, or the beginning of it; and where the next byte is."""
    number, at = block[at] & mask, at + 1
    if number < mask:
        return number, at
    for shift in range(0, _NUMBER_BITS_MAX, 7):
        byte, at = block[at], at + 1
        number += (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise _failed("a number that is too large")


def _text(block: bytes, at: int) -> tuple[bytes, int]:
    """A name or a value; and where the next byte is."""
    packed = block[at] & 0x80
    length, start = _number(block, at, 0x7F)
    at = start + length
    if at > len(block):
        raise _failed("the block ends too early")
    text = block[start:at]
    if packed:
        try:
            text = decode_huffman(text)
        except HPACKDecodingError as error:
            raise _failed(f"text that is not packed as it says: {error}") from error
    return text, at


def _failed(text: str) -> ConnectionFailed:
    return ConnectionFailed(Reason.COMPRESSION_ERROR, f"headers that cannot be unpacked: {text}")
