"""The timeline of one customer: the events that the configuration wants to be seen again, kept as one small value.

    u32 CRC-32 of the rest, then as JSON:
    [form, [floor_ms, floor_id], [[type, attribute, …], …], [[time_ms, id, shape, value, …], …]]

A shape is a type of event and the attributes that are kept of it, named once. Entries come oldest first; `id` is 48
bits of the event's hash and makes the order of one millisecond definite.

Promises, each with a property test against a slow reference:

1. The bytes follow from the set of events alone: neither their order of arrival nor how they were cut into batches, nor
   that some came again, changes one of them. (Of two events with one id the first to arrive counts.)
2. Bounded: the newest TIMELINE_ENTRIES_MAX by event time, or fewer that fit TIMELINE_BYTES_MAX. Whatever is not newer
   than the newest one let go, the floor, is refused: it would have been let go before.
3. Damage raises TimelineError, it is never read as something else.

Pure. It needs no watermark: an event that is there already, or not beyond the floor, changes nothing. Ingest writes it
in one step with the features, so nothing is in one and not in the other.
"""

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from struct import Struct
from typing import Any, Final, NamedTuple, Protocol
from zlib import crc32

import orjson

from engine.ledger import hash_of
from engine.limits import TIMELINE_BYTES_MAX, TIMELINE_ENTRIES_MAX, TIMELINE_ENTRY_BYTES_MAX
from features import Offset

Scalar = float | str | bool


class Happened(Protocol):
    """An event: a features.Event, or one as it stands in the log."""

    @property
    def id_hash(self) -> int:
        """u64 hash of its id, 0 without one."""
        ...

    @property
    def type(self) -> str:
        """Its type."""
        ...

    @property
    def time_ms(self) -> int:
        """When it happened."""
        ...

    @property
    def attributes(self) -> Mapping[str, Scalar]:
        """Its attributes."""
        ...

    @property
    def offset(self) -> Offset:
        """Where it stands in the log."""
        ...


_SEAL: Final = Struct("<I")
_FORM: Final = 1
ID_BITS: Final = 48
_FRAME_BYTES: Final = 40
"""Of an entry, at most: time, id, shape and what stands between them."""
_Row = tuple[int, int, tuple[str, ...], tuple[Scalar | None, ...]]
"""(time_ms, id, shape, values). Ids are distinct, so rows are compared by time and id alone."""
_Floor = tuple[int, int]
_NO_FLOOR: Final[_Floor] = (-(2**53) - 1, 0)
"""Before all event times."""


class Kind(IntEnum):
    """What an entry tells of. The numbers are those of opportune.v1.TimelineKind."""

    CONTACT = 1
    COMPLAINT = 2
    NOTE = 3
    USE = 4
    SATISFACTION = 5
    DECISION = 6
    OUTCOME = 7


class TimelineError(ValueError):
    """The bytes are no timeline."""


class Entry(NamedTuple):
    """One event as the timeline keeps it."""

    time_ms: int
    id: int
    """48 bits, distinct within the timeline."""
    type: str
    attributes: Mapping[str, Scalar]
    """Those that are kept of its type and that it had."""


class Timeline(NamedTuple):
    """What the timeline of a customer holds."""

    entries: tuple[Entry, ...] = ()
    """Oldest first."""
    floor_ms: int | None = None
    """Events up to this time may be missing, they were too many; None: nothing was let go."""


class Keeper:
    """Keeps timelines of the types of events that a configuration marks.

    >>> from features import Event
    >>> keeper = Keeper({"visit": ("page",)})
    >>> late, early = (Event(ms, "visit", ms, {"page": f"/{ms}", "ip": "?"}, Offset(1, ms)) for ms in (20, 10))
    >>> keeper.extended(keeper.extended(None, [late]), [early, late]) == keeper.extended(None, [early, late])
    True
    >>> [entry.attributes for entry in unpack(keeper.extended(None, [late, early])).entries]
    [{'page': '/10'}, {'page': '/20'}]
    """

    def __init__(self, kept: Mapping[str, Sequence[str]]) -> None:
        """`kept` has the attributes to keep, the most important first, by type of event."""
        self.shapes: Final = {event_type: (event_type, *names) for event_type, names in kept.items()}
        """Type and attributes as they are kept, by type."""

    def takes(self, events: Iterable[Happened]) -> bool:
        """Whether any of these events belongs on a timeline."""
        return any(event.type in self.shapes for event in events)

    def extended(self, old: bytes | None, events: Iterable[Happened]) -> bytes:
        """The timeline with these events; None is an empty one. Raises TimelineError if `old` is damaged."""
        floor, rows = _read(old)
        known = {row[1] for row in rows}
        for event in events:
            shape = self.shapes.get(event.type)
            if shape is None:
                continue
            event_id = short_id(event.id_hash or hash_of(str(event.offset)))
            if event_id in known or (event.time_ms, event_id) <= floor:
                continue
            known.add(event_id)
            insort(rows, (event.time_ms, event_id, shape, _values(shape, event.attributes)))
        return _written(floor, rows)


def short_id(digest: int) -> int:
    """A 64-bit hash cut to what tells the few entries of one customer apart."""
    return digest & ((1 << ID_BITS) - 1)


def text_of(value: Scalar) -> str:
    """A value as people read it.

    >>> text_of(12.0), text_of(0.1), text_of(True), text_of("late")
    ('12', '0.1', 'true', 'late')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else f"{value:.15g}"


def merged(timelines: Iterable[bytes | None]) -> bytes:
    """The timeline that the events of all these would have given. Raises TimelineError."""
    parts = [_read(timeline) for timeline in timelines]
    floor = max((floor for floor, _ in parts), default=_NO_FLOOR)
    rows = {row[1]: row for _, rows in reversed(parts) for row in rows if row[:2] > floor}
    return _written(floor, sorted(rows.values()))


def unpack(data: bytes | None) -> Timeline:
    """Read a timeline; None is an empty one. Raises TimelineError."""
    floor, rows = _read(data)
    entries = tuple(
        Entry(time_ms, event_id, shape[0], {n: v for n, v in zip(shape[1:], values, strict=True) if v is not None})
        for time_ms, event_id, shape, values in rows
    )
    return Timeline(entries, floor[0] if floor > _NO_FLOOR else None)


def _values(shape: tuple[str, ...], attributes: Mapping[str, Scalar]) -> tuple[Scalar | None, ...]:
    """The values of a shape; those that would make the entry too large are left out."""
    values: list[Scalar | None] = []
    size = 0
    for name in shape[1:]:
        value = attributes.get(name)
        size += len(orjson.dumps(value)) + 1
        values.append(value if size <= TIMELINE_ENTRY_BYTES_MAX else None)
    return tuple(values)


def _read(data: bytes | None) -> tuple[_Floor, list[_Row]]:
    if data is None:
        return _NO_FLOOR, []
    body = memoryview(data)[_SEAL.size :]
    if len(data) < _SEAL.size or _SEAL.unpack_from(data) != (crc32(body),):
        raise TimelineError(f"timeline of {len(data)} bytes is cut short or damaged: its seal does not fit")
    try:
        form, [floor_ms, floor_id], names, entries = orjson.loads(body)
        shapes = [tuple(shape) for shape in names]
        rows = [(time_ms, event_id, shapes[shape], tuple(values)) for time_ms, event_id, shape, *values in entries]
    except (ValueError, TypeError, IndexError) as error:
        raise TimelineError(f"timeline of {len(data)} bytes cannot be read: {error}") from error
    if form != _FORM:
        raise TimelineError(f"timeline of form {form!r}, expected {_FORM}")
    return (floor_ms, floor_id), rows


def _written(floor: _Floor, rows: Sequence[_Row]) -> bytes:
    """The bytes of what fits, the newest first."""
    keep = size = 0
    for _, _, _, values in reversed(rows[-TIMELINE_ENTRIES_MAX:]):
        # Not what the row takes as it is written: the number of a shape depends on the rows beside it.
        size += len(orjson.dumps(values)) + _FRAME_BYTES
        if size > TIMELINE_BYTES_MAX:
            break
        keep += 1
    cut = len(rows) - keep
    if cut:
        floor = rows[cut - 1][:2]
    numbers: dict[tuple[str, ...], int] = {}
    packed: list[Any] = [
        (time_ms, event_id, numbers.setdefault(shape, len(numbers)), *values)
        for time_ms, event_id, shape, values in rows[cut:]
    ]
    body = orjson.dumps((_FORM, floor, tuple(numbers), packed))
    return _SEAL.pack(crc32(body)) + body
