"""Records into numbers, a whole batch at once.

The fixed parts of the records, joined, are one block of memory with a constant stride, so every section of columns is a
view on it. A batch takes the same two dozen array operations whether it holds one customer or a hundred:

1. raw (B, accumulators): lifetime sections are copied in; a class of windows adds its slots, each weighted 1 or 0 by
   whether its tile lies within the window at `now`.
2. values (B, features) = raw numbers picked into the order of the features, over their scale; means over their count.
3. NaN becomes the default.

Customers without a record, or with one of another layout, take part with the empty record and come out as defaults.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from features.columns import Columns, Window, scale_of
from features.record import ID_BYTES, ID_COUNT_AT, NEVER_MS, check_frame, check_length, prefix

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

MS_PER_SECOND: Final = 1_000.0
_U32: Final = np.dtype("<u4")
_I64: Final = np.dtype("<i8")
_F64: Final = np.dtype("<f8")


class _Section(NamedTuple):
    """Columns side by side in the record (or slot), and where they go in raw."""

    at: int
    columns: int
    target: slice


class _WindowReader(NamedTuple):
    """A class of windows and its columns."""

    window: Window
    counts: _Section
    sums: _Section
    age: Integers
    """(n, n): by head mod n and slot, how many tiles before the head the slot's tile is."""


class Reader:
    """Reads records of one layout."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._prefix = prefix(columns.version)
        self._empty = columns.empty[: columns.fixed_bytes]
        self._width = 0
        self._count_of: dict[int, int] = {}
        self._number_of: dict[int, int] = {}
        recency_at = {index: at for index, at in columns.time_at.items() if index not in columns.value_at}
        self._counts = self._section(columns.count_at, self._count_of)
        self._sums = self._section(columns.sum_at, self._number_of)
        self._recencies = self._section(recency_at, self._number_of)
        self._values = self._section(columns.value_at, self._number_of)
        self._windows = [self._window_reader(window) for window in columns.windows]
        self._compile_finish()

    def read(self, records: Sequence[bytes | None], now_ms: Integers) -> Floats:
        """See Layout.read."""
        now = np.asarray(now_ms, dtype=np.int64)
        if now.shape != (len(records),):
            raise ValueError(f"now_ms has shape {now.shape}: expected ({len(records)},), one time a record")
        raw = np.empty((len(records), self._width))
        if records:
            block = self._join(records)
            self._read_lifetime(block, now, raw)
            for reader in self._windows:
                self._read_window(reader, block, now, raw)
        return self._finish(raw)

    # --- compiled once ----------------------------------------------------------------------------------------------

    def _section(self, places: Mapping[int, int], column_of: dict[int, int]) -> _Section:
        """Give the columns of a section, by feature, their places in raw."""
        first = self._width
        self._width += len(places)
        column_of.update(zip(places, range(first, self._width), strict=True))
        return _Section(min(places.values(), default=0), len(places), slice(first, self._width))

    def _window_reader(self, window: Window) -> _WindowReader:
        counts = self._section(window.count_at, self._count_of)
        sums = self._section(window.sum_at, self._number_of)
        slots = np.arange(window.tiles)
        return _WindowReader(window, counts, sums, (slots[:, None] - slots[None, :]) % window.tiles)

    def _compile_finish(self) -> None:
        specs = self._columns.specs
        scales = [scale_of(spec.resolution) if spec.function in ("sum", "mean") else (1.0, 1.0) for spec in specs]
        means = [index for index, spec in enumerate(specs) if spec.function == "mean"]
        numbers = [
            self._number_of[index] if index in self._number_of else self._count_of[index] for index in range(len(specs))
        ]
        self._numbers = np.array(numbers, dtype=np.intp)
        self._up = np.array([divide for _, divide in scales])
        self._down = np.array([multiply for multiply, _ in scales])
        self._means = np.array(means, dtype=np.intp)
        self._mean_counts = np.array([self._count_of[index] for index in means], dtype=np.intp)
        self._defaults = np.array([spec.missing for spec in specs])

    # --- run for every batch ----------------------------------------------------------------------------------------

    def _join(self, records: Sequence[bytes | None]) -> bytes:
        """The fixed parts, one after the other. Raises RecordError if a frame is wrong."""
        fixed, start = self._columns.fixed_bytes, self._prefix
        parts = []
        for record in records:
            if record is None:
                parts.append(self._empty)
            elif (
                record.startswith(start)
                and len(record) >= fixed
                and len(record) == fixed + ID_BYTES * record[ID_COUNT_AT]
            ):
                parts.append(record[:fixed])
            else:
                check_frame(record)
                if record.startswith(start):
                    check_length(record, fixed)
                parts.append(self._empty)
        return b"".join(parts)

    def _read_lifetime(self, block: bytes, now: Integers, raw: Floats) -> None:
        stride = self._columns.fixed_bytes
        for section, dtype in ((self._counts, _U32), (self._sums, _I64), (self._values, _F64)):
            if section.columns:
                shape = (len(now), section.columns)
                raw[:, section.target] = np.ndarray(shape, dtype, block, section.at, (stride, dtype.itemsize))
        section = self._recencies
        if section.columns:
            times = np.ndarray((len(now), section.columns), _I64, block, section.at, (stride, _I64.itemsize))
            since_ms = np.maximum(now[:, None] - times, 0)
            raw[:, section.target] = np.where(times == NEVER_MS, np.nan, since_ms / MS_PER_SECOND)

    def _read_window(self, reader: _WindowReader, block: bytes, now: Integers, raw: Floats) -> None:
        """Sum the tiles t with now_tile - n < t <= now_tile, where t = head - age."""
        window, batch, stride = reader.window, len(now), self._columns.fixed_bytes
        heads = np.ndarray((batch,), _I64, block, window.head_at, (stride,))
        age = reader.age[heads % window.tiles]
        lead = (heads - now // window.tile_ms)[:, None]
        weights = ((age >= lead) & (age < lead + window.tiles)).astype(np.float64)[:, None, :]
        for section, dtype in ((reader.counts, _U32), (reader.sums, _I64)):
            if section.columns:
                shape = (batch, window.tiles, section.columns)
                strides = (stride, window.slot_bytes, dtype.itemsize)
                tiles = np.ndarray(shape, dtype, block, window.slots_at + section.at, strides)
                raw[:, section.target] = (weights @ tiles.astype(np.float64))[:, 0]

    def _finish(self, raw: Floats) -> Floats:
        values = raw.take(self._numbers, axis=1)
        values *= self._up
        values /= self._down
        if self._means.size:
            counts = raw.take(self._mean_counts, axis=1)
            counts[counts == 0.0] = np.nan
            values[:, self._means] /= counts
        np.copyto(values, self._defaults, where=np.isnan(values))
        return values
