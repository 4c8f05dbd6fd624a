"""Headers as they are unpacked: what the package hpack packs and says of them is what we say."""

from typing import Any

import pytest
from hpack import Decoder, Encoder, HeaderTuple, NeverIndexedHeaderTuple
from hpack.exceptions import HPACKError
from hypothesis import given
from hypothesis import strategies as st

from engine.frames import ConnectionFailed, Reason
from engine.headers import HeaderReader
from engine.limits import HEADER_BYTES_MAX

_NAMES = st.sampled_from([b":path", b":method", b"te", b"grpc-timeout"]) | st.binary(min_size=1, max_size=20)
_VALUES = st.sampled_from([b"POST", b"/", b"trailers", b"999874u"]) | st.binary(max_size=300)
_HEADERS = st.builds(
    lambda name, value, secret: (NeverIndexedHeaderTuple if secret else HeaderTuple)(name, value),
    _NAMES,
    _VALUES,
    st.booleans(),
)
_BLOCKS = st.lists(st.tuples(st.lists(_HEADERS, max_size=8), st.booleans(), st.none() | st.integers(0, 4_096)))


@given(_BLOCKS)
def test_what_was_packed_comes_back(blocks: list[tuple[list[HeaderTuple], bool, int | None]]) -> None:
    encoder, reader = Encoder(), HeaderReader()
    for headers, huffman, table_bytes in blocks:
        if table_bytes is not None:
            encoder.header_table_size = table_bytes
        assert reader.read(encoder.encode(headers, huffman=huffman)) == [tuple(header) for header in headers]


def _told(reader: Any, block: bytes) -> list[tuple[bytes, bytes]] | None:
    try:
        found = reader.read(block) if isinstance(reader, HeaderReader) else reader.decode(block, raw=True)
    except (ConnectionFailed, HPACKError):
        return None
    return [tuple(header) for header in found]


@given(st.lists(_HEADERS, max_size=6), st.binary(max_size=12), st.data())
def test_of_any_bytes_the_same_is_said_as_by_hpack(
    headers: list[HeaderTuple], noise: bytes, data: st.DataObject
) -> None:
    packed = Encoder().encode(headers)
    cut = data.draw(st.integers(0, len(packed)))
    damaged = packed[:cut] + noise + packed[cut + data.draw(st.integers(0, 3)) :]
    theirs, ours = Decoder(max_header_list_size=HEADER_BYTES_MAX), HeaderReader()
    for block in (packed, noise, damaged):
        said = _told(theirs, block)
        assert _told(ours, block) == said
        if said is None:
            return  # the connection has ended


_BROKEN = {
    "entry 0 of a table of 61": b"\x80",
    "entry 62 of a table of 61": b"\xbe",
    "entry 2000127 of a table of 61": b"\xff" + bytes([0x80, 0x89, 0x7A]),
    "the block ends too early": b"\x40\x0agrpc-tim",
    "a number that is too large": b"\xff\xff\xff\xff\xff\xff\x01",
    "text that is not packed as it says": b"\x40\x81\xff\x81\xff",
    "a new size of the table amid headers": b"\x82\x20",
    "a table of 4097 bytes, at most 4096 are allowed": b"\x3f\xe2\x1f",
    f"more than {HEADER_BYTES_MAX} bytes of headers": b"\x40\x01a\x7f\xa1\x1e" + b"x" * 4_000 + b"\xbe" * 4,
}


@pytest.mark.parametrize("text", _BROKEN)
def test_what_breaks_the_rules_is_named(text: str) -> None:
    with pytest.raises(ConnectionFailed, match=text) as failed:
        HeaderReader().read(_BROKEN[text])
    assert failed.value.reason is Reason.COMPRESSION_ERROR


def test_a_table_keeps_what_fits_the_newest_first() -> None:
    reader = HeaderReader()
    for number in range(200):
        assert reader.read(b"\x40\x01a\x03%03d" % number) == [(b"a", b"%03d" % number)]
    kept = 4_096 // (32 + 4)
    assert reader.read(bytes([0xBE])) == [(b"a", b"199")]
    last = 61 + kept - 127
    assert reader.read(bytes([0xFF, last])) == [(b"a", b"%03d" % (200 - kept))]
    with pytest.raises(ConnectionFailed, match="entry"):
        reader.read(bytes([0xFF, last + 1]))
