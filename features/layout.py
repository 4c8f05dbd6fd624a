"""The one object that the rest of the engine holds: the features of a configuration, compiled."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from features import kernel
from features import record as records
from features.cells import Plan, plan
from features.event import Event, Offset
from features.expression import Scalar
from features.record import RecordError, RecordHeader, VersionError
from features.refill import Part, parts_of
from features.spec import FeatureSpec
from features.tables import CellMap, Tables, Views, cell_map, readable, seasons

_CHUNK_BYTES = 4 * 1024 * 1024
"""Room for the next records of one call of the compiled fold; more records take more calls."""


@dataclass(frozen=True, slots=True)
class FoldResult:
    """The next record and what became of the events: applied + duplicates + redelivered = number of events."""

    record: bytes
    applied: int
    duplicates: int
    late: int
    """Of `applied`, those that came too late for some window."""
    redelivered: int


class LayoutRow(NamedTuple):
    """What a feature keeps, for people."""

    name: str
    function: str
    keeps: str
    """What is kept of its events, and over which tiles."""
    shared: bool
    """Whether other features read the same."""
    bytes_typical: int
    """Of one tile that saw an event, or of the lifetime: about what it adds to the record of a customer."""
    tiles: int
    group: int | None
    """Where in a record: its group, which is a bit in the head. None: a ratio has no place of its own."""
    cells: tuple[int, ...]
    """Its cells in that group, which are bits in the mask of each tile."""


class CellRow(NamedTuple):
    """What stands at one place of a record, for people."""

    group: int
    event: str
    tile_ms: int
    """0: lifetime."""
    tiles: int
    cells: tuple[int, ...]
    """One; of hours and weekdays all, side by side."""
    keeps: str
    bytes_typical: int
    """Of each cell of a tile that saw an event, about."""
    features: tuple[str, ...]
    """Those that read it."""


class Rows:
    """Events of a batch as columns, for `Layout.fold_rows`. The events of one record stand together, in order."""

    __slots__ = ("_types", "counts", "growth", "ids", "kinds", "ms", "seq", "starts", "times", "values")

    def __init__(self, tables: Tables) -> None:
        self._types = {
            event: (at, tables.extract[at], tables.growth[at]) for event, at in tables.types.items()
        }
        self.counts: list[int] = []
        self.growth: list[int] = []
        self.ids: list[int] = []
        self.ms: list[int] = []
        self.seq: list[int] = []
        self.times: list[int] = []
        self.kinds: list[int] = []
        self.starts: list[int] = []
        self.values: list[float] = []

    def begin(self) -> None:
        """The events that follow are those of the next record."""
        self.counts.append(0)
        self.growth.append(0)

    def add(
        self, id_hash: int, event_type: str, time_ms: int, attributes: Mapping[str, Scalar], ms: int, seq: int
    ) -> None:
        """One event, as in features.Event, whose bounds it must keep."""
        self.counts[-1] += 1
        self.ids.append(id_hash)
        self.ms.append(ms)
        self.seq.append(seq)
        self.times.append(time_ms)
        self.starts.append(len(self.values))
        kind = self._types.get(event_type)
        if kind is None:
            self.kinds.append(-1)
        else:
            self.kinds.append(kind[0])
            self.values += kind[1](attributes, time_ms)
            self.growth[-1] += kind[2]


class Layout:
    """Features, compiled: folds events into records and reads numbers from records.

    >>> layout = Layout.compile([FeatureSpec("balance", "last", "statement", attribute="balance")])
    >>> record = layout.fold(None, [Event(0, "statement", 5_000, {"balance": 12.5}, Offset(1, 0))]).record
    >>> layout.read([record, None], np.array([6_000, 6_000]))
    array([[12.5],
           [ nan]])
    """

    def __init__(self, planned: Plan) -> None:
        self._tables = Tables(planned)
        self._views = Views(self._tables)
        self._older: dict[int, Tables] = {}
        self._maps: dict[int, CellMap] = {}
        """Of the layouts from which records were carried over or merged, by version."""
        self.specs: tuple[FeatureSpec, ...] = planned.specs
        self.names: tuple[str, ...] = tuple(spec.name for spec in planned.specs)
        """Names of the columns of `read`, in order."""
        self.version: int = planned.version
        """u32 hash of all that decides what the bytes of a record mean."""

    @classmethod
    def compile(
        cls, specs: Sequence[FeatureSpec], timezone: str = "UTC", older: Iterable[Sequence[FeatureSpec]] = ()
    ) -> "Layout":
        """Check the specs and give each its cells. Raises ValueError naming the feature and what was expected.

        `timezone` decides what an hour and a weekday are. `older` are features of other configurations, whose records
        may still be about: see `learn`.
        """
        layout = cls(plan(specs, timezone))
        for others in older:
            layout.learn(others, timezone)
        return layout

    def learn(self, specs: Sequence[FeatureSpec], timezone: str = "UTC") -> int:
        """Know the records of another layout from now on, and return its version.

        They are carried over: what both keep stays, what only this one keeps starts from nothing, the rest goes.
        """
        tables = Tables(plan(specs, timezone))
        if tables.version != self.version:
            self._older[tables.version] = tables
        return tables.version

    def knows(self, record: bytes) -> bool:
        """Whether a record is of this layout or of one that was learnt."""
        return self.knows_version(records.version_of(record))

    def knows_version(self, version: int) -> bool:
        """The same of records of a layout version."""
        return version == self.version or version in self._older

    def describe(self) -> list[LayoutRow]:
        """One row a feature, in order of the specs."""
        planned = self._tables.plan
        used: dict[tuple[int, int], int] = {}
        for use in planned.uses:
            for cell in use.cells if use else ():
                used[use.group, cell] = used.get((use.group, cell), 0) + 1  # type: ignore[union-attr]
        return [self._row(at, used) for at in range(len(self.specs))]

    def places(self) -> list[CellRow]:
        """What stands where in a record, in the order of its bytes."""
        planned = self._tables.plan
        readers: dict[tuple[int, int], list[str]] = {}
        for spec, use in zip(planned.specs, planned.uses, strict=True):
            for number in use.cells if use else ():
                readers.setdefault((use.group, number), []).append(spec.name)  # type: ignore[union-attr]
        rows: list[CellRow] = []
        for at, group in enumerate(planned.groups):
            for number, cell in enumerate(group.cells):
                names = tuple(readers[at, number])
                if cell.slot and rows[-1].features == names:
                    rows[-1] = rows[-1]._replace(cells=(*rows[-1].cells, number))
                    continue
                keeps, size = _KIND_NAMES[cell.kind], _BYTES_TYPICAL[cell.kind]
                rows.append(CellRow(at, group.event, group.tile_ms, group.tiles, (number,), keeps, size, names))
        return rows

    # --- fold -------------------------------------------------------------------------------------------------------

    def fold(self, record: bytes | None, events: Sequence[Event]) -> FoldResult:
        """The next record of a customer.

        `events` come in order of their offsets; None is a customer not known yet. Events not beyond the record's
        watermark are ignored, and a record that changes by none of them is returned as it was.

        A record of another layout that was learnt is carried over first.

        Raises RecordError if the record is damaged, VersionError if its layout or format is not known here.
        """
        [result] = self.fold_many([record], [events])
        if isinstance(result, RecordError):
            raise result
        return result

    def fold_many(
        self, old: Sequence[bytes | None], events: Sequence[Sequence[Event]]
    ) -> list[FoldResult | RecordError]:
        """The same for many customers at once; where a record cannot be folded, the error instead."""
        rows = self.rows()
        for of_one in events:
            rows.begin()
            for event in of_one:
                rows.add(
                    event.id_hash, event.type, event.time_ms, event.attributes, event.offset.ms, event.offset.seq
                )
        return self.fold_rows(old, rows)

    def rows(self) -> Rows:
        """Empty rows for `fold_rows`."""
        return Rows(self._tables)

    def fold_rows(self, old: Sequence[bytes | None], rows: Rows) -> list[FoldResult | RecordError]:
        """The same for events that come as columns, which is what costs least."""
        assert len(old) == len(rows.counts)
        counts = np.array(rows.counts, np.int64)
        firsts = np.cumsum(counts) - counts
        columns = (
            np.array(rows.ids, np.uint64),
            np.array(rows.ms, np.uint64),
            np.array(rows.seq, np.uint64),
            np.array(rows.times, np.int64),
            np.array(rows.kinds, np.int64),
            np.array(rows.starts, np.int64),
            np.array(rows.values, np.float64),
        )
        results: list[FoldResult | RecordError] = []
        slack = self._tables.slack
        start = room = 0
        for at, record in enumerate(old):
            room += slack + rows.growth[at] + (len(record) if record is not None else 0)
            if room > _CHUNK_BYTES or at + 1 == len(old):
                chunk = slice(start, at + 1)
                results += self._fold(old[chunk], firsts[chunk], counts[chunk], columns, room)
                start, room = at + 1, 0
        return results

    def _fold(
        self,
        old: Sequence[bytes | None],
        firsts: npt.NDArray[np.int64],
        counts: npt.NDArray[np.int64],
        columns: tuple[Any, Any, Any, Any, Any, Any, Any],
        room: int,
    ) -> list[FoldResult | RecordError]:
        tables = self._tables
        given: list[bytes] = []
        errors: dict[int, RecordError] = {}
        carried: set[int] = set()
        for at, record in enumerate(old):
            if record is None:
                given.append(b"")
            elif records.version_of(record) == tables.version:
                given.append(record)
            else:
                try:
                    given.append(self._carried(record))
                    carried.add(at)
                    room += len(given[-1])
                except RecordError as error:
                    errors[at] = error
                    given.append(b"")
        ends = np.cumsum(np.fromiter(map(len, given), np.int64, len(given)))
        starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
        out = np.empty(room, np.uint8)
        found = np.zeros((len(given), 6), np.int64)
        kernel.fold(
            np.frombuffer(b"".join(given), np.uint8),
            starts,
            ends,
            tables.version,
            tables.groups,
            tables.cells,
            tables.kinds,
            tables.updates,
            tables.scales,
            tables.words,
            firsts,
            counts,
            *columns,
            out,
            found,
        )
        block = out[: int(found[-1, 1]) if len(found) else 0].tobytes()
        results: list[FoldResult | RecordError] = []
        before = 0
        for at, (status, end, applied, duplicates, late, redelivered) in enumerate(found.tolist()):
            if at in errors:
                results.append(errors[at])
            elif status:
                results.append(_error_of(given[at]))
            elif end == before:
                unchanged = old[at]
                assert unchanged is not None
                results.append(FoldResult(unchanged, 0, 0, 0, redelivered))
            else:
                results.append(FoldResult(block[before:end], applied, duplicates, late, redelivered))
            before = end
        return results

    # --- merge ------------------------------------------------------------------------------------------------------

    def merge(self, parts: Sequence[bytes]) -> bytes:
        """One record of several: what the union of their events would have given.

        The watermark is that of the first; counters add up; of the event ids the last are kept, the first record's
        before the others'. An event too late in one of them stays out of its windows.

        Raises RecordError if one is damaged, VersionError if its layout is not known here.
        """
        return self._merged([part if self._is_ours(part) else self._carried(part) for part in parts], self._tables)

    def parts(self, names: Iterable[str] = ()) -> tuple[Part, ...]:
        """What is kept for some features, to be filled by `refilled`.

        Without names: what none of the layouts that were learnt keeps, or not as far back. Raises ValueError for a name
        that is no feature.
        """
        return parts_of(self._tables, self._older, tuple(names))

    def refilled(self, record: bytes, fresh: bytes, parts: Iterable[Part]) -> bytes:
        """The record with some parts as `fresh` has them, and nothing of its own in them.

        Its other cells, watermark, counters and ids stay. A record of a layout that was learnt is carried over first.

        Raises RecordError if one of the two is damaged, VersionError if its layout is not known here.
        """
        sources = np.zeros(len(self._tables.cells), np.int64)
        for part in parts:
            sources[list(part.cells)] = 1
        given = [part if self._is_ours(part) else self._carried(part) for part in (record, fresh)]
        return self._merged(given, self._tables, sources)

    def _is_ours(self, record: bytes) -> bool:
        return records.version_of(record) == self.version

    def _carried(self, record: bytes) -> bytes:
        """A record of an older layout as one of this. Raises RecordError, VersionError."""
        records.check(record)
        tables = self._older.get(records.version_of(record))
        if tables is None:
            raise VersionError(
                f"record is of layout {records.version_of(record):#010x}: expected {self.version:#010x} or one of "
                f"{len(self._older)} older ones; it belongs to a configuration that is not known here"
            )
        return self._merged([record], tables)

    def _merged(
        self, parts: Sequence[bytes], of: Tables, sources: npt.NDArray[np.int64] | None = None
    ) -> bytes:
        tables = self._tables
        if of.version not in self._maps:
            self._maps[of.version] = cell_map(tables, of)
        found = self._maps[of.version]
        ends = np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)))
        starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
        # What is merged can be larger than its parts: times are distances to the newest, which the others' newest may
        # push away (the slack), and a sketch of 61 bytes and one of 2 together become one of 129.
        out = np.empty(int(ends[-1]) * 3 + tables.slack + tables.mask_bytes, np.uint8)
        end = kernel.merge(
            np.frombuffer(b"".join(parts), np.uint8),
            starts,
            ends,
            np.full(len(parts), of.version, np.int64),
            tables.groups,
            tables.cells,
            tables.words,
            of.groups,
            of.cells,
            of.words,
            *found,
            np.full(len(tables.cells), -1, np.int64) if sources is None else sources,
            len(parts) if sources is None else 1,
            tables.version,
            out,
        )
        if end < 0:
            raise _error_of(parts[-1 - end])
        return out[:end].tobytes()

    # --- read -------------------------------------------------------------------------------------------------------

    def read(self, found: Sequence[bytes | None], now_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Values of B customers, each at its own time.

        `now_ms` has shape (B,). Returns (B, features), in order of `names`. A missing value is the default of its spec;
        None is a row of defaults. Records of a layout that was learnt are carried over.

        Raises RecordError if a record is damaged, VersionError if its layout is not known here, ValueError if the
        shapes differ.
        """
        now = np.ascontiguousarray(now_ms, np.int64)
        if now.shape != (len(found),):
            raise ValueError(f"now_ms has shape {now.shape}: expected ({len(found)},), one time a record")
        present = [b"" if record is None else record for record in found]
        values, wrong = self._read(present, now)
        if wrong >= 0:
            present = [
                record if not record or self._is_ours(record) else self._carried(record) for record in present
            ]
            values, wrong = self._read(present, now)
            if wrong >= 0:
                raise _error_of(present[wrong])
        return values

    def _read(self, present: Sequence[bytes], now: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float64], int]:
        views = self._views
        result: tuple[npt.NDArray[np.float64], int] = kernel.read(
            np.frombuffer(b"".join(present), np.uint8),
            np.fromiter(map(len, present), np.int64, len(present)),
            now,
            seasons(self._tables.clock, now, views.by_clock),
            self.version,
            views.whole_numbers,
            views.reals,
        )
        return result

    def values(self, record: bytes | None, now_ms: int) -> dict[str, Scalar | None]:
        """The same for one customer and for people: categories as texts, None where missing. Raises RecordError."""
        row: list[float] = self.read([record], np.array([now_ms], dtype=np.int64))[0].tolist()
        rows = zip(self.specs, row, strict=True)
        return {spec.name: readable(spec.categories, value, spec.hashed) for spec, value in rows}

    def header(self, record: bytes) -> RecordHeader:
        """What a record of any layout version says about itself. Raises RecordError."""
        return records.header_of(record)

    def watermark(self, record: bytes) -> tuple[Offset, int]:
        """(last offset folded, newest event time in ms), unverified: after `read` took the record."""
        return records.watermark(record)

    def watermarks(self, found: Sequence[bytes | None]) -> npt.NDArray[np.int64]:
        """(B, 3) the same of many, each as two parts and a time; zeros for None."""
        return records.watermarks(found)

    def _row(self, at: int, used: Mapping[tuple[int, int], int]) -> LayoutRow:
        spec, use = self.specs[at], self._tables.plan.uses[at]
        if use is None:
            return LayoutRow(spec.name, spec.function, f"{spec.numerator} / {spec.denominator}", False, 0, 0, None, ())
        group = self._tables.plan.groups[use.group]
        names = dict.fromkeys(_KIND_NAMES[group.cells[cell].kind] for cell in use.cells)
        size = max(1, sum(_BYTES_TYPICAL[group.cells[cell].kind] for cell in use.cells[:2]))
        shared = any(used[use.group, cell] > 1 for cell in use.cells)
        keeps = " and ".join(names)
        return LayoutRow(spec.name, spec.function, keeps, shared, size, spec.tiles, use.group, use.cells)


_KIND_NAMES = ("count", "sum", "smallest", "largest", "newest value", "oldest value", "newest time", "sketch")
_BYTES_TYPICAL = (1, 4, 3, 3, 8, 8, 5, 12)
"""Of one value of each kind, as records of the benchmark have them."""


def _error_of(record: bytes) -> RecordError:
    """Why a record is not taken."""
    try:
        records.check(record)
    except RecordError as error:
        return error
    return VersionError(f"record is of layout {records.version_of(record):#010x}, which is not known here")
