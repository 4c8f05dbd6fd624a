"""The record: one packed value a customer, little-endian.

    offset  bytes  what
    0       1      magic 0x4F
    1       1      format of this header
    2       2      zero
    4       4      version of the layout of the columns      ┐
    8       8      watermark: ms of the last offset folded   │ a writer compares these first 24 bytes and replaces
    16      8      watermark: seq of it                      ┘ the record only if they are as it read them
    24      8      latest event time, ms
    32      4      events folded
    36      4      duplicates, recognised by id
    40      4      late events, those that some window could no longer take
    44      4      n, event ids remembered
    48      4      zero
    52      4      CRC-32 of everything else
    56      …      columns of the features, see columns.py
    end-8n  8n     ids of the last n events that had one, oldest first

Why the checksum: a fold builds the next record on this one, and its watermark forbids to repeat the past, so damage
that is folded over is damage for good. `fold` and `header` verify it. `read` checks the frame only: it is the hot path,
and a wrong number in one decision passes.
"""

from dataclasses import dataclass
from struct import Struct, pack, unpack_from
from typing import Final, NamedTuple
from zlib import crc32

from features.event import Offset

MAGIC: Final = 0x4F
FORMAT: Final = 1
EVENT_IDS_REMEMBERED_MAX: Final = 32
"""A producer's repeat is recognised if fewer than this many events with ids of the customer came in between."""
NEVER_MS: Final = -(2**62)
"""Time (or tile number) of what never happened: before all times, and far enough from -2^63 to subtract from."""
U32_MAX: Final = 2**32 - 1
"""Counters stop here."""

_HEADER: Final = Struct("<BBHIQQqIIII4xI")
_U32: Final = Struct("<I")
_WATERMARK: Final = Struct("<QQq")
_WATERMARK_AT: Final = 8
_PREFIX: Final = Struct("<BBHI")
HEADER_BYTES: Final = _HEADER.size
HEADER_CAS_BYTES: Final = 24
"""The first bytes of a record, which hold layout version and watermark: they differ whenever an event was folded."""
ID_COUNT_AT: Final = 44
_CHECKSUM_AT: Final = HEADER_BYTES - _U32.size
ID_BYTES: Final = 8

# The header keeps the columns behind it on a multiple of 8 bytes.
assert HEADER_BYTES == 56
# read() looks at the number of ids as one byte.
assert EVENT_IDS_REMEMBERED_MAX < 256


class RecordError(ValueError):
    """The bytes are not a whole, undamaged record. The store's fault, or a bug; never the customer's."""


@dataclass(frozen=True, slots=True)
class RecordHeader:
    """What a record says about itself."""

    version: int
    """Version of the layout it was written with."""
    watermark: Offset
    """Last offset folded."""
    latest_event_ms: int
    """Newest event time; NEVER_MS if there was no event."""
    events: int
    """Events folded, without duplicates."""
    duplicates: int
    """Events ignored because their id had been seen."""
    late: int
    """Of `events`, those that came too late for some window."""


class Frame(NamedTuple):
    """The header as numbers, and the ids; cheap to take apart."""

    version: int
    watermark_ms: int
    watermark_seq: int
    latest_event_ms: int
    events: int
    duplicates: int
    late: int
    ids: list[int]


EMPTY: Final = Frame(0, 0, 0, NEVER_MS, 0, 0, 0, [])


def prefix(version: int) -> bytes:
    """First bytes of every record of a layout version."""
    return _PREFIX.pack(MAGIC, FORMAT, 0, version)


def seal(columns: bytearray, frame: Frame) -> bytes:
    """Write header, ids and checksum around the columns; `columns` has the header's room in front and is changed."""
    ids = frame.ids
    numbers = (*frame[1:4], *(min(counter, U32_MAX) for counter in frame[4:7]))
    _HEADER.pack_into(columns, 0, MAGIC, FORMAT, 0, frame.version, *numbers, len(ids), 0)
    columns += pack(f"<{len(ids)}Q", *ids)
    _U32.pack_into(columns, _CHECKSUM_AT, _checksum(columns))
    return bytes(columns)


def open_frame(record: bytes) -> Frame:
    """Header and ids of a whole, undamaged record of any layout version. Raises RecordError."""
    check_frame(record)
    _, _, _, version, ms, seq, latest_ms, events, duplicates, late, id_count, checksum = _HEADER.unpack_from(record)
    actual = _checksum(record)
    if actual != checksum:
        raise RecordError(f"record is damaged: checksum {actual:#010x}, expected {checksum:#010x}")
    ids = list(unpack_from(f"<{id_count}Q", record, len(record) - ID_BYTES * id_count))
    return Frame(version, ms, seq, latest_ms, events, duplicates, late, ids)


def check_frame(record: bytes) -> None:
    """Whether length, magic and format can be right. Raises RecordError."""
    if len(record) < HEADER_BYTES:
        raise RecordError(f"record has {len(record)} bytes: expected at least the {HEADER_BYTES} of its header")
    if record[0] != MAGIC:
        raise RecordError(f"record starts with byte {record[0]:#04x}: expected {MAGIC:#04x}")
    if record[1] != FORMAT:
        raise RecordError(f"record has format {record[1]}: expected {FORMAT}")
    id_count = _U32.unpack_from(record, ID_COUNT_AT)[0]
    if id_count > EVENT_IDS_REMEMBERED_MAX:
        raise RecordError(f"record has {id_count} event ids: expected at most {EVENT_IDS_REMEMBERED_MAX}")
    if len(record) < HEADER_BYTES + ID_BYTES * id_count:
        raise RecordError(f"record has {len(record)} bytes: too few for its header and {id_count} event ids")


def check_length(record: bytes, fixed_bytes: int) -> None:
    """Whether a record of a known layout has its length. Raises RecordError."""
    expected = fixed_bytes + ID_BYTES * int(record[ID_COUNT_AT])
    if len(record) != expected:
        raise RecordError(f"record has {len(record)} bytes: expected {expected} of its layout")


def watermark(record: bytes) -> tuple[Offset, int]:
    """Last offset folded and newest event time, without a look at the checksum."""
    ms, seq, latest_ms = _WATERMARK.unpack_from(record, _WATERMARK_AT)
    return Offset(ms, seq), latest_ms


def _checksum(record: bytes | bytearray) -> int:
    return crc32(record[HEADER_BYTES:], crc32(record[:_CHECKSUM_AT]))
