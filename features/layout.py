"""The one object that the rest of the engine holds: the features of a configuration, compiled."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from features import record as records
from features.columns import COUNT_BYTES, NUMBER_BYTES, Columns, place
from features.event import Event, Offset
from features.fold import Folder, FoldResult
from features.read import Reader
from features.spec import FeatureSpec


class LayoutRow(NamedTuple):
    """Where a feature lives, for people."""

    name: str
    function: str
    offset: int
    """First byte of its first column; of a window, in its first slot."""
    bytes: int
    """All its bytes, those of all tiles. The head of a window is shared and not counted."""


class Layout:
    """Features, compiled: folds events into records and reads numbers from records.

    >>> layout = Layout.compile([FeatureSpec("balance", "last", "statement", attribute="balance")])
    >>> record = layout.fold(None, [Event(0, "statement", 5_000, {"balance": 12.5}, Offset(1, 0))]).record
    >>> layout.read([record, None], np.array([6_000, 6_000]))
    array([[12.5],
           [ nan]])
    """

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._folder = Folder(columns)
        self._reader = Reader(columns)
        self.specs: tuple[FeatureSpec, ...] = columns.specs
        self.names: tuple[str, ...] = tuple(spec.name for spec in columns.specs)
        """Names of the columns of `read`, in order."""
        self.version: int = columns.version
        """u32 hash of all that decides what the bytes of a record mean."""
        self.fixed_bytes: int = columns.fixed_bytes
        """Length of a record without its ids; a record has at most 8 × EVENT_IDS_REMEMBERED_MAX more."""

    @classmethod
    def compile(cls, specs: Sequence[FeatureSpec]) -> "Layout":
        """Check the specs and give each its bytes. Raises ValueError naming the feature and what was expected."""
        return cls(place(specs))

    def describe(self) -> list[LayoutRow]:
        """One row a feature, in order of the specs."""
        return [self._row(index) for index in range(len(self.specs))]

    def fold(self, record: bytes | None, events: Sequence[Event]) -> FoldResult:
        """The next record of a customer.

        `events` come in order of their offsets; None is a customer not known yet. Events not beyond the record's
        watermark are ignored, and a record that changes by none of them is returned as it was.

        A record of another layout version (the specs changed) hands over its header and ids, and its features start
        from nothing: the past under the new specs is a matter of replaying the log, not of guessing from old sums.

        Raises RecordError if the record is damaged.
        """
        return self._folder.fold(record, events)

    def read(self, records: Sequence[bytes | None], now_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Values of B customers, each at its own time.

        `now_ms` has shape (B,). Returns (B, features), in order of `names`. A missing value is the default of its spec;
        None, and a record of another layout version, is a row of defaults.

        Raises RecordError if a record's frame is wrong, ValueError if the shapes differ.
        """
        return self._reader.read(records, now_ms)

    def values(self, record: bytes | None, now_ms: int) -> dict[str, float | str | None]:
        """The same for one customer and for people: categories as texts, None where missing. Raises RecordError."""
        row: list[float] = self.read([record], np.array([now_ms], dtype=np.int64))[0].tolist()
        return {spec.name: _readable(spec, value) for spec, value in zip(self.specs, row, strict=True)}

    def header(self, record: bytes) -> records.RecordHeader:
        """What a record of any layout version says about itself. Raises RecordError."""
        frame = records.open_frame(record)
        watermark = Offset(frame.watermark_ms, frame.watermark_seq)
        counters = (frame.events, frame.duplicates, frame.late)
        return records.RecordHeader(frame.version, watermark, frame.latest_event_ms, *counters)

    def watermark(self, record: bytes) -> tuple[Offset, int]:
        """(last offset folded, newest event time in ms), unverified: for the hot path, after `read` took the record."""
        return records.watermark(record)

    def _row(self, index: int) -> LayoutRow:
        spec, columns = self.specs[index], self._columns
        for window in columns.windows:
            places = [window.slots_at + at[index] for at in (window.count_at, window.sum_at) if index in at]
            if places:
                size = COUNT_BYTES * (index in window.count_at) + NUMBER_BYTES * (index in window.sum_at)
                return LayoutRow(spec.name, spec.function, min(places), size * window.tiles)
        numbers = [at[index] for at in (columns.sum_at, columns.time_at, columns.value_at) if index in at]
        counts = [columns.count_at[index]] if index in columns.count_at else []
        size = COUNT_BYTES * len(counts) + NUMBER_BYTES * len(numbers)
        return LayoutRow(spec.name, spec.function, min(counts + numbers), size)


def _readable(spec: FeatureSpec, value: float) -> float | str | None:
    if value != value:
        return None
    if not spec.categories:
        return value
    # A default may lie outside the categories.
    return spec.categories[int(value)] if value in range(len(spec.categories)) else None
