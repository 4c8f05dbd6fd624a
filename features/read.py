"""Records into numbers, a whole batch at once.

The records of a batch, joined, are one block of memory. One compiled function goes over it, record by record:

1. raw numbers: lifetime columns are taken over; a class of windows adds up those of its slots whose tile lies within
   the window at `now`.
2. values = raw numbers picked into the order of the features, over their scale; means over their count.
3. NaN becomes the default.

It also compares every record's first bytes and length with what they should be. Where one differs, the batch is looked
through in Python: customers without a record, or with one of another layout, take part with the empty record and come
out as defaults; a wrong frame is an error.

Measured for 64 features, 48 of them over four windows of twelve tiles: 2.6 µs for a lone record and 0.8 µs for each of
32.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from features.columns import COUNT_BYTES, NUMBER_BYTES, Columns, Window, scale_of
from features.compiled import FLOATS_2D, INT, INTS, INTS_2D, compiled, inlined
from features.record import (
    EVENT_IDS_REMEMBERED_MAX,
    ID_BYTES,
    ID_COUNT_AT,
    NEVER_MS,
    check_frame,
    check_length,
    prefix,
)

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Counts = npt.NDArray[np.uint32]


class _Section(NamedTuple):
    """Columns side by side in the record (or slot), and where they go in raw."""

    at: int
    columns: int
    target: int


class Reader:
    """Reads records of one layout."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._empty = columns.empty[: columns.fixed_bytes]
        self._start = prefix(columns.version)
        self._start_word = int.from_bytes(self._start, "little", signed=True)
        self._width = 0
        self._count_of: dict[int, int] = {}
        self._number_of: dict[int, int] = {}
        recency_at = {index: at for index, at in columns.time_at.items() if index not in columns.value_at}
        sections = [
            self._section(columns.count_at, self._count_of),
            self._section(columns.sum_at, self._number_of),
            self._section(recency_at, self._number_of),
            self._section(columns.value_at, self._number_of),
        ]
        self._lifetime = np.array(sections, np.int64)
        self._windows = np.array([self._window(window) for window in columns.windows], np.int64).reshape(-1, 11)
        self._picks, self._scales = self._finish()

    def read(self, records: Sequence[bytes | None], now_ms: Integers) -> Floats:
        """See Layout.read."""
        now = np.ascontiguousarray(now_ms, np.int64)
        if now.shape != (len(records),):
            raise ValueError(f"now_ms has shape {now.shape}: expected ({len(records)},), one time a record")
        present = [self._empty if record is None else record for record in records]
        block = b"".join(present)
        if not len(block) % NUMBER_BYTES:
            values, wrong = self._run(present, block, now)
            if not wrong:
                return values
        checked = [self._checked(record) for record in present]
        values, wrong = self._run(checked, b"".join(checked), now)
        assert not wrong
        return values

    def _run(self, records: Sequence[bytes], block: bytes, now: Integers) -> tuple[Floats, bool]:
        result: tuple[Floats, bool] = _read(
            np.frombuffer(block, np.int64),
            np.fromiter(map(len, records), np.int64, len(records)),
            now,
            self._columns.fixed_bytes,
            self._start_word,
            self._width,
            self._lifetime,
            self._windows,
            self._picks,
            self._scales,
        )
        return result

    def _checked(self, record: bytes) -> bytes:
        """The record, or the empty one for one of another layout. Raises RecordError if its frame is wrong."""
        check_frame(record)
        if not record.startswith(self._start):
            return self._empty
        check_length(record, self._columns.fixed_bytes)
        return record

    # --- compiled once ----------------------------------------------------------------------------------------------

    def _section(self, places: Mapping[int, int], column_of: dict[int, int]) -> _Section:
        """Give the columns of a section, by feature, their places in raw."""
        first = self._width
        self._width += len(places)
        column_of.update(zip(places, range(first, self._width), strict=True))
        return _Section(min(places.values(), default=0), len(places), first)

    def _window(self, window: Window) -> tuple[int, ...]:
        """A row of the table that `_read` calls windows."""
        counts = self._section(window.count_at, self._count_of)
        sums = self._section(window.sum_at, self._number_of)
        return (window.tile_ms, window.tiles, window.head_at, window.slots_at, window.slot_bytes, *counts, *sums)

    def _finish(self) -> tuple[Integers, Floats]:
        """By feature: (number, count of a mean or -1) in raw, and (what to multiply by, to divide by, default)."""
        picks, scales = [], []
        for index, spec in enumerate(self._columns.specs):
            number = self._number_of[index] if index in self._number_of else self._count_of[index]
            picks.append((number, self._count_of[index] if spec.function == "mean" else -1))
            divide, multiply = scale_of(spec.resolution) if spec.function in ("sum", "mean") else (1.0, 1.0)
            scales.append((multiply, divide, spec.missing))
        return np.array(picks, np.int64).reshape(-1, 2), np.array(scales, np.float64).reshape(-1, 3)


# --- compiled: all that it reads stands here, see features.compiled ---------------------------------------------------

_MS_PER_SECOND: Final = 1_000.0
_NEVER_MS: Final = -(2**62)
_IDS_MAX: Final = 32
_ID_COUNT_WORD: Final = 5
"""The number of ids is the upper half of this word of a record."""

# A change of the record must reach this file; and records are read in place, so the machine's numbers are like theirs.
assert sys.byteorder == "little"
assert (_NEVER_MS, _IDS_MAX) == (NEVER_MS, EVENT_IDS_REMEMBERED_MAX)
assert NUMBER_BYTES * _ID_COUNT_WORD + 4 == ID_COUNT_AT
assert ID_BYTES == NUMBER_BYTES == 8
assert COUNT_BYTES == 4


@inlined()
def _read_window(window: Integers, counts: Counts, numbers: Integers, now: int, raw: Floats) -> None:
    """Add up the tiles t with now_tile - n < t <= now_tile, where t = head - age and 0 <= age < n."""
    tile_ms, tiles, head_at, slots_at, slot_bytes = window[0], window[1], window[2], window[3], window[4]
    counts_at, count_columns, count_target = window[5], window[6], window[7]
    sums_at, sum_columns, sum_target = window[8], window[9], window[10]
    raw[count_target : count_target + count_columns] = 0.0
    raw[sum_target : sum_target + sum_columns] = 0.0
    head = numbers[head_at // 8]
    lead = head - now // tile_ms
    for age in range(max(lead, 0), min(lead, 0) + tiles):
        slot = slots_at + (head - age) % tiles * slot_bytes
        for i in range(count_columns):
            raw[count_target + i] += counts[(slot + counts_at) // 4 + i]
        for i in range(sum_columns):
            raw[sum_target + i] += numbers[(slot + sums_at) // 8 + i]


@compiled(INTS, INTS, INTS, INT, INT, INT, INTS_2D, INTS_2D, INTS_2D, FLOATS_2D)
def _read(
    words: Integers,
    lengths: Integers,
    now: Integers,
    fixed_bytes: int,
    start_word: int,
    width: int,
    lifetime: Integers,
    windows: Integers,
    picks: Integers,
    scales: Floats,
) -> tuple[Floats, bool]:
    """The values of records that stand one after the other, and whether one of them is not what it should be.

    Records are made of eight-byte numbers; a pair of counts shares one, the first in its lower half.
    """
    values = np.empty((len(lengths), len(picks)))
    raw = np.empty(width)
    at = 0
    for row in range(len(lengths)):
        if lengths[row] < fixed_bytes or words[at] != start_word:
            return values, True
        ids = words[at + _ID_COUNT_WORD] >> 32
        if not 0 <= ids <= _IDS_MAX or lengths[row] != fixed_bytes + 8 * ids:
            return values, True
        record = words[at : at + fixed_bytes // 8]
        at += lengths[row] // 8
        counts, numbers, floats = record.view(np.uint32), record, record.view(np.float64)
        place, columns, target = lifetime[0]
        for i in range(columns):
            raw[target + i] = counts[place // 4 + i]
        place, columns, target = lifetime[1]
        for i in range(columns):
            raw[target + i] = numbers[place // 8 + i]
        place, columns, target = lifetime[2]
        for i in range(columns):
            time = numbers[place // 8 + i]
            raw[target + i] = np.nan if time == _NEVER_MS else max(now[row] - time, 0) / _MS_PER_SECOND
        place, columns, target = lifetime[3]
        for i in range(columns):
            raw[target + i] = floats[place // 8 + i]
        for w in range(len(windows)):
            _read_window(windows[w], counts, numbers, now[row], raw)
        for i in range(len(picks)):
            number, count = picks[i]
            value = raw[number] * scales[i, 0] / scales[i, 1]
            if count >= 0:
                value = value / raw[count] if raw[count] > 0.0 else np.nan
            values[row, i] = scales[i, 2] if np.isnan(value) else value
    return values, False
