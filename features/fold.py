"""Events into the next record.

What an event does is compiled once an event type: which windows it moves, and for every feature one small function that
knows its bytes. Folding an event then is: advance the windows of its type, and let those functions run.

Rules, in the order in which they apply to an event:

1. Offset not beyond the watermark: the log repeats itself; nothing changes.
2. Otherwise the watermark moves to it.
3. Id among the last EVENT_IDS_REMEMBERED_MAX: the producer repeats itself; the count of duplicates changes, no feature.
4. Otherwise it counts: lifetime features take it whatever its time; a window takes it if its tile is not passed yet.
   An event that some window of its type has passed is late, and counted so.

A feature takes an event if the event's type is its own, `where` holds, and its attribute is there and usable: a finite
number for sum, mean and last (a boolean is 0 or 1), a text for last with categories.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Final, NamedTuple

from features.columns import Columns, Window, scale_of
from features.event import Event
from features.record import EMPTY, EVENT_IDS_REMEMBERED_MAX, U32_MAX, Frame, check_length, open_frame, seal
from features.spec import FeatureSpec

Attributes = Mapping[str, float | str | bool]
Update = Callable[[bytearray, int, Attributes, int], None]
"""(record, start of the region, attributes, event time in ms) → the feature's bytes in that region changed."""
Match = Callable[[Attributes], bool]
Scalar = str | float | bool

INCREMENT_UNITS_MAX: Final = 2**53
"""One value of a sum or mean is clamped to ± this many units of the resolution."""
SUM_UNITS_MAX: Final = 2**63 - 1
"""A sum stops here. Reading is exact up to 2^53 units, a thousandth of this."""
_U32: Final = Struct("<I")
_I64: Final = Struct("<q")
_F64: Final = Struct("<d")


@dataclass(frozen=True)
class FoldResult:
    """The next record and what became of the events: applied + duplicates + redelivered = number of events."""

    record: bytes
    applied: int
    duplicates: int
    late: int
    """Of `applied`, those that came too late for some window."""
    redelivered: int


class _WindowPlan(NamedTuple):
    """What events of one type do to one class of windows."""

    head_at: int
    tile_ms: int
    tiles: int
    slots_at: int
    slot_bytes: int
    updates: tuple[tuple[Match | None, Update], ...]


class _TypePlan(NamedTuple):
    """What events of one type do."""

    lifetime: tuple[tuple[Match | None, Update], ...]
    windows: tuple[_WindowPlan, ...]


class Folder:
    """Folds records of one layout."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        types = dict.fromkeys(spec.event for spec in columns.specs)
        self._plans = {event_type: _plan(columns, event_type) for event_type in types}

    def fold(self, record: bytes | None, events: Sequence[Event]) -> FoldResult:
        """See Layout.fold."""
        buf, old = self._open(record)
        watermark = (old.watermark_ms, old.watermark_seq)
        ids, latest_ms = old.ids, old.latest_event_ms
        applied = duplicates = late = redelivered = 0
        for event in events:
            position = (event.offset.ms, event.offset.seq)
            if position <= watermark:
                redelivered += 1
                continue
            watermark = position
            if event.id_hash in ids:
                duplicates += 1
                continue
            if event.id_hash:
                ids.append(event.id_hash)
                del ids[:-EVENT_IDS_REMEMBERED_MAX]
            applied += 1
            latest_ms = max(latest_ms, event.time_ms)
            late += self._apply(buf, event)
        if record is not None and not applied and not duplicates:
            return FoldResult(record, 0, 0, 0, redelivered)
        counters = (old.events + applied, old.duplicates + duplicates, old.late + late)
        sealed = seal(buf, Frame(self._columns.version, *watermark, latest_ms, *counters, ids))
        return FoldResult(sealed, applied, duplicates, late, redelivered)

    def _open(self, record: bytes | None) -> tuple[bytearray, Frame]:
        """Columns to write on, and what the record said. Of another layout only the latter is of use."""
        columns = self._columns
        frame = EMPTY._replace(ids=[]) if record is None else open_frame(record)
        if record is None or frame.version != columns.version:
            return bytearray(columns.empty), frame
        check_length(record, columns.fixed_bytes)
        return bytearray(memoryview(record)[: columns.fixed_bytes]), frame

    def _apply(self, buf: bytearray, event: Event) -> bool:
        """Let the features take an event; True if it was late for some window."""
        plan = self._plans.get(event.type)
        if plan is None:
            return False
        attributes, time_ms = event.attributes, event.time_ms
        for match, update in plan.lifetime:
            if match is None or match(attributes):
                update(buf, 0, attributes, time_ms)
        late = False
        for window in plan.windows:
            tile = time_ms // window.tile_ms
            head: int = _I64.unpack_from(buf, window.head_at)[0]
            if tile <= head - window.tiles:
                late = True
                continue
            if tile > head:
                _advance(buf, window, head, tile)
            slot_at = window.slots_at + tile % window.tiles * window.slot_bytes
            for match, update in window.updates:
                if match is None or match(attributes):
                    update(buf, slot_at, attributes, time_ms)
        return late


def _advance(buf: bytearray, window: _WindowPlan, head: int, tile: int) -> None:
    """Make `tile` the newest tile of a window and empty the slots of all tiles after the old head."""
    _I64.pack_into(buf, window.head_at, tile)
    passed = min(tile - head, window.tiles)
    first = (tile - passed + 1) % window.tiles
    before_wrap = min(passed, window.tiles - first)
    for slot, count in ((first, before_wrap), (0, passed - before_wrap)):
        start = window.slots_at + slot * window.slot_bytes
        buf[start : start + count * window.slot_bytes] = bytes(count * window.slot_bytes)


def _plan(columns: Columns, event_type: str) -> _TypePlan:
    members = [index for index, spec in enumerate(columns.specs) if spec.event == event_type]
    windows = (_window_plan(columns, window, members) for window in columns.windows)
    lifetime = [
        (_match(columns.specs[index].where), update) for index in members for update in _lifetime(columns, index)
    ]
    return _TypePlan(tuple(lifetime), tuple(window for window in windows if window.updates))


def _window_plan(columns: Columns, window: Window, members: Sequence[int]) -> _WindowPlan:
    updates = [
        (_match(columns.specs[index].where), update)
        for index in members
        for update in _accumulate(columns.specs[index], window.count_at.get(index), window.sum_at.get(index))
    ]
    return _WindowPlan(window.head_at, window.tile_ms, window.tiles, window.slots_at, window.slot_bytes, tuple(updates))


def _lifetime(columns: Columns, index: int) -> Iterator[Update]:
    spec = columns.specs[index]
    if spec.function == "last":
        yield _last(spec, columns.value_at[index], columns.time_at[index])
    elif spec.function == "recency":
        yield _newest(columns.time_at[index])
    else:
        yield from _accumulate(spec, columns.count_at.get(index), columns.sum_at.get(index))


def _accumulate(spec: FeatureSpec, count_at: int | None, sum_at: int | None) -> Iterator[Update]:
    """The update of a count, sum or mean whose columns are in this region; none if they are elsewhere."""
    if spec.function == "count" and count_at is not None:
        yield _count(count_at)
    elif sum_at is not None:
        assert spec.attribute is not None, "validated: sum and mean have an attribute"
        yield _sum(spec.attribute, spec.resolution, sum_at, count_at)


# --- one small function a feature -----------------------------------------------------------------------------------


def _count(at: int) -> Update:
    read, write = _U32.unpack_from, _U32.pack_into

    def update(buf: bytearray, region: int, _attributes: Attributes, _time_ms: int) -> None:
        count: int = read(buf, region + at)[0]
        if count < U32_MAX:
            write(buf, region + at, count + 1)

    return update


def _sum(attribute: str, resolution: float, sum_at: int, count_at: int | None) -> Update:
    """Update of a sum, and of the count beside it if it is a mean."""
    read, write = _I64.unpack_from, _I64.pack_into
    multiply, divide = scale_of(resolution)
    count = None if count_at is None else _count(count_at)

    def update(buf: bytearray, region: int, attributes: Attributes, time_ms: int) -> None:
        value = _number(attributes.get(attribute))
        if value is None:
            return
        units = value * multiply / divide
        # Clamped before it is rounded: a large value times the scale may have become infinite.
        increment = round(max(-INCREMENT_UNITS_MAX, min(INCREMENT_UNITS_MAX, units)))
        total = read(buf, region + sum_at)[0] + increment
        write(buf, region + sum_at, max(-SUM_UNITS_MAX, min(SUM_UNITS_MAX, total)))
        if count is not None:
            count(buf, region, attributes, time_ms)

    return update


def _last(spec: FeatureSpec, value_at: int, time_at: int) -> Update:
    read_time, write_time, write_value = _I64.unpack_from, _I64.pack_into, _F64.pack_into
    attribute = spec.attribute or ""
    index_of = {category: float(index) for index, category in enumerate(spec.categories)}

    def update(buf: bytearray, region: int, attributes: Attributes, time_ms: int) -> None:
        given = attributes.get(attribute)
        if index_of:
            # A text that is no category is news too: what was known before holds no longer.
            value = index_of.get(given, math.nan) if isinstance(given, str) else None
        else:
            value = _number(given)
        if value is not None and time_ms >= read_time(buf, region + time_at)[0]:
            write_time(buf, region + time_at, time_ms)
            write_value(buf, region + value_at, value)

    return update


def _newest(at: int) -> Update:
    read, write = _I64.unpack_from, _I64.pack_into

    def update(buf: bytearray, region: int, _attributes: Attributes, time_ms: int) -> None:
        if time_ms > read(buf, region + at)[0]:
            write(buf, region + at, time_ms)

    return update


def _number(given: Scalar | None) -> float | None:
    """A finite number, or None."""
    if not isinstance(given, float | int):
        return None
    try:
        value = float(given)
    except OverflowError:  # an integer beyond all floats
        return None
    return value if math.isfinite(value) else None


def _match(where: tuple[tuple[str, Scalar], ...]) -> Match | None:
    """A test whether all of `where` holds; None if empty. A boolean equals only a boolean (in Python True == 1)."""
    if not where:
        return None

    def match(attributes: Attributes) -> bool:
        for name, expected in where:
            given = attributes.get(name)
            if given != expected or isinstance(given, bool) != isinstance(expected, bool):
                return False
        return True

    return match
