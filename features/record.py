"""The record: one packed value a customer, little-endian.

    offset  bytes  what
    0       1      magic 0x4F
    1       1      format of the record
    2       2      zero
    4       4      version of the layout                     ┐
    8       8      watermark: ms of the last offset folded   │ a writer compares these first 28 bytes and replaces
    16      8      watermark: seq of it                      │ the record only if they are as it read them
    24      4      CRC-32 of everything else                 ┘
    28      8      latest event time, ms
    36      …      events folded, duplicates, late events, n: varints
    …       5n     ids of the last n events that had one, 40 bits each, oldest first
    …       …      a bit for each group of cells (cells.py): whether an event of its type was ever folded
    …       …      those groups, see kernel.py

Only what holds something is written: a customer costs what happened, not what could have.

Why the checksum: a fold builds the next record on this one, and its watermark forbids to repeat the past, so damage
that is folded over is damage for good. Every reader verifies it; only `watermark` does not.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Final, Protocol, TypeVar
from zlib import crc32

import numpy as np
import numpy.typing as npt

from features.event import Offset

MAGIC: Final = 0x4F
FORMAT: Final = 2
EVENT_IDS_REMEMBERED_MAX: Final = 32
"""A producer's repeat is recognised if fewer than this many events with ids of the customer came in between."""
ID_BYTES: Final = 5
"""40 bits of an id: of 3 × 10^10 events one is taken for another among the 32 before it."""
NEVER_MS: Final = -(2**62)
"""Time (or tile number) of what never happened: before all times, and far enough from -2^63 to subtract from."""
COUNTER_MAX: Final = 2**32 - 1
"""Counters stop here."""

_HEADER: Final = Struct("<BBBBIQQIq")
_WATERMARK: Final = Struct("<QQ4xq")
_WATERMARK_AT: Final = 8
_WATERMARKS: Final = np.dtype([("ms", "<i8"), ("seq", "<i8"), ("checksum", "<u4"), ("latest", "<i8")])
_NO_WATERMARK: Final = bytes(_WATERMARK.size)
_VERSION: Final = Struct("<I")
HEADER_BYTES: Final = _HEADER.size
HEADER_STATE_BYTES: Final = 24
"""The first bytes of a record, which hold layout version and watermark: they differ whenever an event was folded."""
HEADER_CAS_BYTES: Final = 28
"""These hold the checksum too: they differ whenever anything does."""
_CHECKSUM: Final = Struct("<I")
_ID_MASK: Final = 2 ** (8 * ID_BYTES) - 1
_LEAST_BYTES: Final = HEADER_BYTES + 4

assert HEADER_BYTES == 36
assert HEADER_STATE_BYTES + _CHECKSUM.size == HEADER_CAS_BYTES


class _Numbered(Protocol):
    """An event by its position and its id."""

    @property
    def id_hash(self) -> int: ...
    @property
    def offset(self) -> Offset: ...


Numbered = TypeVar("Numbered", bound=_Numbered)


class RecordError(ValueError):
    """The bytes are not a whole, undamaged record. The store's fault, or a bug; never the customer's."""


class VersionError(RecordError):
    """The record is whole, and of a layout or format that is not known here: one of another configuration or release.

    It must not be overwritten: whoever knows its layout can read it.
    """


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


def header_of(record: bytes) -> RecordHeader:
    """Header of a whole, undamaged record of any layout version. Raises RecordError."""
    check(record)
    _, _, _, _, version, ms, seq, _, latest_ms = _HEADER.unpack_from(record)
    (events, duplicates, late, _), _ = _counters(record)
    return RecordHeader(version, Offset(ms, seq), latest_ms, events, duplicates, late)


def _counters(record: bytes) -> tuple[list[int], int]:
    """Events, duplicates, late events and number of ids, and where the ids begin."""
    at = HEADER_BYTES
    counters = []
    for _ in range(4):
        value = shift = 0
        while True:
            byte = record[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        counters.append(value)
    return counters, at


def news(record: bytes | None, events: Iterable[Numbered]) -> list[Numbered]:
    """Those of some events, in order of their offsets, that a fold onto this record counts: neither redelivered, nor
    sent twice. Raises RecordError.
    """
    done, ids = Offset.ZERO, deque[int](maxlen=EVENT_IDS_REMEMBERED_MAX)
    if record is not None:
        done = header_of(record).watermark
        (*_, count), at = _counters(record)
        ids += [int.from_bytes(record[i : i + ID_BYTES], "little") for i in range(at, at + count * ID_BYTES, ID_BYTES)]
    counted = []
    for event in events:
        if event.offset <= done:
            continue
        if event.id_hash:
            short = event.id_hash & _ID_MASK
            if short in ids:
                continue
            ids.append(short)
        counted.append(event)
    return counted


def check(record: bytes) -> None:
    """Whether magic, format, length and checksum are right. Raises RecordError, VersionError for a newer format."""
    if len(record) < _LEAST_BYTES:
        raise RecordError(f"record has {len(record)} bytes: expected at least {_LEAST_BYTES}")
    if record[0] != MAGIC:
        raise RecordError(f"record starts with byte {record[0]:#04x}: expected {MAGIC:#04x}")
    if record[1] != FORMAT:
        whose = "it was written by a newer release" if record[1] > FORMAT else "it was written by an older release"
        raise VersionError(f"record has format {record[1]}: expected {FORMAT}; {whose}")
    view = memoryview(record)
    actual = crc32(view[HEADER_CAS_BYTES:], crc32(view[:HEADER_STATE_BYTES]))
    [told] = _CHECKSUM.unpack_from(record, HEADER_STATE_BYTES)
    if actual != told:
        raise RecordError(f"record is damaged: checksum {actual:#010x}, expected {told:#010x}")


def version_of(record: bytes) -> int:
    """Layout version of a record, unverified; -1 for what is too short to have one."""
    return int(_VERSION.unpack_from(record, 4)[0]) if len(record) >= HEADER_BYTES else -1


def watermark(record: bytes) -> tuple[Offset, int]:
    """Last offset folded and newest event time, without a look at the checksum."""
    ms, seq, latest_ms = _WATERMARK.unpack_from(record, _WATERMARK_AT)
    return Offset(ms, seq), latest_ms


def watermarks(found: Sequence[bytes | None]) -> npt.NDArray[np.int64]:
    """The same of many records: (B, 3) ms and seq of the last offset folded, newest event time; zeros for None."""
    heads = b"".join([_NO_WATERMARK if record is None else record[_WATERMARK_AT:HEADER_BYTES] for record in found])
    table = np.frombuffer(heads, _WATERMARKS)
    read = np.empty((len(found), 3), np.int64)
    read[:, 0], read[:, 1], read[:, 2] = table["ms"], table["seq"], table["latest"]
    return read
