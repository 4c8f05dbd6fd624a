"""Batches of columns into checked events: the same checks as at the gateway, a column at a time.

A checked batch is a frame with one row an event:

    customer  type  time_ms  id  file  row  n:<attribute>  t:<attribute>  f:<attribute>

`type` is the number of the event type in the catalogue, `id` the hash of source and id (0: it has none), `file` and
`row` say where it comes from. An attribute has a column by its name and kind: number, text or flag.

A row with something wrong in it is refused: counted by reason, and the first of each reason are kept to be shown. The
rest goes on.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl

from engine import limits
from engine.catalogue import Catalogue
from engine.cloudevents import event_of, time_ms_of
from engine.config_schema import Attribute
from engine.errors import InvalidArgument
from engine.gateway import shown
from engine.history.mapping import Reading
from engine.history.sources import Batch, Refused, batches, columns_within, json_batches
from engine.ledger import hash_of

_ROW_BYTES_SHOWN_MAX: Final = 4_096
_COLUMNS_SHOWN_MAX: Final = 5

Mask = npt.NDArray[np.bool_]
Schema = dict[str, pl.DataType]

_KINDS: Final[dict[str, pl.DataType]] = {"number": pl.Float64(), "text": pl.String(), "flag": pl.Boolean()}
_TRUE: Final = ("true", "t", "yes", "y", "1")
_FALSE: Final = ("false", "f", "no", "n", "0")
# What str.isprintable() refuses: control, format and unassigned characters, and spaces other than the common one.
_UNPRINTABLE: Final = r"[\p{C}\p{Zl}\p{Zp}]|[\p{Zs}--[ ]]"
_TIME_FORMATS: Final = (
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M%#z",
    "%Y-%m-%d %H:%M",
)
_INT64_MAX: Final = 2**63 - 1
_TO_MS: Final = {"s": (1_000, 1), "ms": (1, 1), "us": (1, 1_000), "ns": (1, 1_000_000)}


def slot_of(name: str, attribute: Attribute) -> str:
    """Column of an attribute in a checked batch."""
    return f"{attribute.type[0]}:{name}"


def schema_of(catalogue: Catalogue) -> Schema:
    """Columns of a checked batch."""
    schema: Schema = {
        "customer": pl.String(),
        "type": pl.UInt16(),
        "time_ms": pl.Int64(),
        "id": pl.UInt64(),
        "file": pl.UInt32(),
        "row": pl.Int64(),
    }
    for attributes in catalogue.event_types.values():
        schema |= {slot_of(name, attribute): _KINDS[attribute.type] for name, attribute in attributes.items()}
    return schema


@dataclass
class Tally:
    """What became of the rows read."""

    read: int = 0
    skipped: int = 0
    """Outside of the span of time that was asked for."""
    refused: dict[str, int] = field(default_factory=dict)
    """Rows refused, by reason."""
    kept: list[tuple[str, str, str]] = field(default_factory=list)
    """(reason, row, what is wrong with it) of the first of each reason."""
    refused_of: list[int] = field(default_factory=list)
    """How many rows of each file were refused, where files are loaded."""

    def refuse(self, reason: str, count: int, sample: Iterator[tuple[str, str]]) -> None:
        """Count rows refused for a reason and keep some of them."""
        before = self.refused.get(reason, 0)
        self.refused[reason] = before + count
        room = limits.BACKFILL_REASON_LETTERS_MAX - before, limits.BACKFILL_LETTERS_MAX - len(self.kept)
        for _ in range(min(*room, count)):
            row, told = next(sample)
            self.kept.append((reason, row[:_ROW_BYTES_SHOWN_MAX], told))

    @property
    def refused_in_all(self) -> int:
        """Rows refused."""
        return sum(self.refused.values())


@dataclass(frozen=True, slots=True)
class Span:
    """Which times to load, ms: from_ms <= time < until_ms. What lies after `newest_ms` has not happened yet."""

    from_ms: int
    until_ms: int
    newest_ms: int


def checked_events(
    reading: Reading, number: int, catalogue: Catalogue, span: Span, tally: Tally, progress: Callable[[int], None]
) -> Iterator[pl.DataFrame]:
    """Checked batches of a file, the `number`th. Raises InvalidArgument where it cannot be read further."""
    file = reading.file
    if file.format == "cloudevents":
        yield from _cloud_events(reading, number, catalogue, span, tally, progress)
        return
    for batch in batches(file, reading.columns, progress):
        tally.read += len(batch.rows) + len(batch.refused)
        _refuse_broken(tally, f"{file.path}", batch.refused)
        events = _Checks(reading, batch, catalogue, span).events(number, tally)
        if events.height:
            yield events


def _refuse_broken(tally: Tally, name: str, refused: list[Refused]) -> None:
    for row, text, why in refused:
        generic = why.partition(":")[0] if why.startswith("not JSON") else why
        tally.refuse(generic, 1, iter([(text, f"{name} row {row}: {why}")]))


class Checks:
    """A column at a time; the first problem of a row is the one that is told."""

    def __init__(self, reading: Reading, batch: Batch) -> None:
        self.name = str(reading.file.path)
        self.csv = reading.file.format == "csv"
        self.batch = batch
        self.frame = batch.frame
        self.problem = np.zeros(len(batch.rows), np.uint16)
        self._reasons: list[tuple[str, str, str]] = []

    def refuse(self, bad: Mask, label: str, column: str, expected: str) -> None:
        """Note what is wrong with the rows that nothing was wrong with before."""
        new = bad & (self.problem == 0)
        if new.any():
            self._reasons.append((label, column, expected))
            self.problem[new] = len(self._reasons)

    def tell(self, tally: Tally) -> None:
        """Count what was refused."""
        for place, (label, column, expected) in enumerate(self._reasons, 1):
            at = np.flatnonzero(self.problem == place)
            if not len(at):
                continue
            sample = ((self._row(i), self._told(i, label, column, expected)) for i in at.tolist())
            tally.refuse(f"{label}: expected {expected}", len(at), sample)

    def _row(self, at: int) -> str:
        return orjson.dumps(self.frame.row(at, named=True), default=_plain).decode()

    def _told(self, at: int, label: str, column: str, expected: str) -> str:
        value = self.frame[at, column]
        value = value.decode(errors="replace") if isinstance(value, bytes) else value
        given = "nothing" if value in (None, "") else shown(value)
        told = f"{self.name} row {self.batch.rows[at]}: {label}: {given}, expected {expected}"
        odd = column in self.batch.odd and self.batch.odd[column][at]
        inner = columns_within(column, value)[:_COLUMNS_SHOWN_MAX] if odd else []
        return f"{told}; there are columns {', '.join(inner)}" if inner else told

    # --- columns ----------------------------------------------------------------------------------------------------

    def texts(self, label: str, column: str) -> pl.Series:
        """A column as texts; a row that is not UTF-8 is refused."""
        series = self.frame[column]
        if series.dtype != pl.Binary:
            return series.cast(pl.String)
        try:
            return series.cast(pl.String)
        except pl.exceptions.ComputeError:
            decoded = [_decoded(value) for value in series.to_list()]
            wrong = np.array([text is None and value is not None for text, value in zip(decoded, series, strict=True)])
            self.refuse(wrong, label, column, "UTF-8")
            return pl.Series(column, decoded, pl.String)

    def words(self, label: str, column: str, mine: Mask | None = None) -> pl.Series:
        """A column of names as texts; what of JSON is neither a text nor a whole number is refused."""
        odd = self.batch.odd.get(column)
        if odd is not None:
            self.refuse(odd if mine is None else odd & mine, label, column, "a text or a whole number")
        return self.texts(label, column)

    def ids(self, label: str, column: str) -> pl.Series:
        """A column of ids; those the gateway would refuse are refused."""
        text = self.words(label, column)
        self._sized(text, label, column, limits.ID_BYTES_MAX, np.ones(len(text), np.bool_))
        return text

    def customers(self, label: str, column: str) -> pl.Series:
        """A column of customers: ids, or names "kind=value", which may be longer (engine.gateway.customer_named)."""
        text = self.words(label, column)
        named = text.str.slice(1, limits.ID_BYTES_MAX).str.contains("=", literal=True).fill_null(value=False).to_numpy()
        self._sized(text, label, column, limits.ID_BYTES_MAX, ~named)
        self._sized(text, label, column, limits.CUSTOMER_BYTES_MAX, named)
        return text

    def _sized(self, text: pl.Series, label: str, column: str, bytes_max: int, mine: Mask) -> None:
        size = text.str.len_bytes().fill_null(0).to_numpy()
        self.refuse(mine & ((size == 0) | (size > bytes_max)), label, column, f"1 to {bytes_max} bytes")
        odd = text.str.contains(_UNPRINTABLE).fill_null(value=False).to_numpy()
        self.refuse(mine & odd, label, column, "printable text")

    def times_ms(self, label: str, column: str, unit: str | None, form: str | None, zone: str) -> pl.Series:
        """A column of times as ms since 1970 UTC; what is no time is refused."""
        series = self.frame[column]
        if series.dtype.is_numeric() or (unit and series.dtype == pl.Binary):
            assert unit is not None, "checked with the mapping"
            text = self.texts(label, column).str.strip_chars()
            multiply, divide = _TO_MS[unit]
            whole = text.cast(pl.Int64, strict=False)
            broken = text.cast(pl.Float64, strict=False)
            # What is beyond all times is cut first: as a whole number it would come round to one that is not.
            rounded = (broken * multiply / divide).round().clip(-1.0, limits.TIME_MS_MAX + 1.0)
            most = min(limits.TIME_MS_MAX * divide // multiply, _INT64_MAX)
            exact = whole.set(whole.abs() > most, None) * multiply // divide
            times = exact.fill_null(rounded.cast(pl.Int64, strict=False))
            expected = f"a number of {unit}"
        elif series.dtype in (pl.Binary, pl.String):
            text = self.texts(label, column).str.strip_chars()
            if form is None:
                times = self._shown_in(zone, label, column, partial(_iso_ms, text))
                expected = "a time like 2026-05-04T09:30:00Z or 2026-05-04"
            else:
                times = self._shown_in(zone, label, column, partial(_parsed_ms, text, form))
                expected = f"a time like {form}"
        else:
            dated = series.cast(pl.Datetime("ms")) if series.dtype == pl.Date else series
            times = self._shown_in(zone, label, column, partial(_zoned_ms, dated))
            expected = "a time"
        self.refuse(times.is_null().to_numpy(), label, column, expected)
        outside = ~times.is_between(1, limits.TIME_MS_MAX).fill_null(value=True).to_numpy()
        self.refuse(outside, label, column, "a time after 1970 and before the year 10000")
        return times

    def _shown_in(self, zone: str, label: str, column: str, made: Callable[[str], pl.Series]) -> pl.Series:
        """Times as `made` makes them of a zone; those that its clocks skip are refused."""
        times = made(zone)
        if zone != "UTC" and times.null_count():
            skipped = (times.is_null() & made("UTC").is_not_null()).to_numpy()
            self.refuse(skipped, label, column, f"a time that there is in {zone}: its clocks skip that one")
        return times

    def values(self, name: str, column: str, attribute: Attribute, mine: Mask) -> pl.Series:
        """A column as values of an attribute, null where missing; `mine` are the rows of its event type."""
        label = f"attributes[{name}]"
        series = self.frame[column]
        if attribute.type == "text":
            text = self.words(label, column, mine)
            if self.csv:
                text = text.set(text == "", None)
            long = (text.str.len_bytes().fill_null(0) > limits.TEXT_BYTES_MAX).to_numpy()
            self.refuse(mine & long, label, column, f"at most {limits.TEXT_BYTES_MAX} bytes")
            given = text.is_not_null().to_numpy()
            value = text
        else:
            if series.dtype in (pl.Binary, pl.String):
                text = self.texts(label, column).str.strip_chars()
                given = (text.is_not_null() & (text != "")).fill_null(value=False).to_numpy()
                value = text.cast(pl.Float64, strict=False) if attribute.type == "number" else _flags(text)
            else:
                given = series.is_not_null().to_numpy()
                value = series.cast(pl.Float64, strict=False) if attribute.type == "number" else _flags(series)
            if attribute.type == "number":
                finite = value.is_finite().fill_null(value=False).to_numpy()
                self.refuse(mine & given & ~finite, label, column, "a finite number")
                if attribute.range:
                    low, high = attribute.range
                    within = value.is_between(low, high).fill_null(value=True).to_numpy()
                    self.refuse(mine & given & ~within, label, column, f"{low} to {high}")
            else:
                self.refuse(mine & given & value.is_null().to_numpy(), label, column, "true or false")
        if attribute.required:
            self.refuse(mine & ~given, label, column, "a value, it is required")
        return value


class _Checks(Checks):
    """The checks of a batch of events."""

    def __init__(self, reading: Reading, batch: Batch, catalogue: Catalogue, span: Span) -> None:
        super().__init__(reading, batch)
        self._reading = reading
        self._catalogue = catalogue
        self._span = span

    def events(self, number: int, tally: Tally) -> pl.DataFrame:
        """The checked events; what is wrong is counted."""
        source, count = self._reading.file.source, len(self.batch.rows)
        assert source.customer is not None, "checked with the mapping"
        assert source.time is not None, "checked with the mapping"
        schema = schema_of(self._catalogue)
        customers = self.customers("customer", source.customer)
        times = self.times_ms("time", source.time, source.time_unit, source.time_format, source.time_zone)
        late = (times > self._span.newest_ms).fill_null(value=False).to_numpy()
        self.refuse(late, "time", source.time, "a time that has come")
        types = self._types(source.type, source.type_column, count)
        columns: dict[str, pl.Series] = {}
        for place, (event_type, declared) in enumerate(self._catalogue.event_types.items()):
            mine = types == place
            if not mine.any():
                continue
            self._attributes(event_type, declared, mine, columns)
        ids = pl.Series("id", [0], pl.UInt64).new_from_index(0, count)
        if source.id is not None:
            texts = self.ids("id", source.id)
            hashes = [hash_of(f"{source.id_source}\0{text}") for text in texts.to_list()]
            ids = pl.Series("id", hashes, pl.UInt64)
        # What is wrong with a row of another span is for the run that loads that.
        known = times.is_between(1, limits.TIME_MS_MAX)
        within = times.is_between(self._span.from_ms, self._span.until_ms, closed="left")
        elsewhere = (known & ~within).fill_null(value=False).to_numpy()
        self.problem[elsewhere] = 0
        self.tell(tally)
        keep = (self.problem == 0) & ~elsewhere
        tally.skipped += int(elsewhere.sum())
        made = {
            "customer": customers,
            "type": pl.Series(types.astype(np.uint16)),
            "time_ms": times,
            "id": ids,
            "file": pl.Series([number], dtype=pl.UInt32).new_from_index(0, count),
            "row": pl.Series(self.batch.rows),
            **columns,
        }
        empty = {name: pl.Series(name, [None], kind).new_from_index(0, count) for name, kind in schema.items()}
        return pl.DataFrame({name: made.get(name, empty[name]) for name in schema}, schema=schema).filter(keep)

    def _types(self, fixed: str | None, column: str | None, count: int) -> npt.NDArray[np.int64]:
        """Number of each row's event type; -1 where it has none."""
        known = {name: place for place, name in enumerate(self._catalogue.event_types)}
        if fixed is not None:
            return np.full(count, known[fixed])
        assert column is not None, "checked with the mapping"
        text = self.texts("type", column)
        types = text.replace_strict(known, default=-1, return_dtype=pl.Int64).to_numpy()
        self.refuse(types < 0, "type", column, f"an event type that is declared: {', '.join(known)}")
        return types

    def _attributes(
        self, event_type: str, declared: Mapping[str, Attribute], mine: Mask, columns: dict[str, pl.Series]
    ) -> None:
        found = self._reading.attributes[event_type]
        for name, attribute in declared.items():
            if name not in found:
                if attribute.required:
                    column = self._reading.file.source.type_column or ""
                    self.refuse(mine, f"attributes[{name}]", column, f"a column for it: {event_type!r} requires it")
                continue
            value, slot = self.values(name, found[name], attribute, mine), slot_of(name, attribute)
            if not mine.all():
                # Of rows of other types the column means something else, or nothing.
                other = columns.get(slot, pl.Series(slot, [None], value.dtype).new_from_index(0, len(value)))
                value = value.zip_with(pl.Series(mine), other)
            columns[slot] = value


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _plain(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _flags(series: pl.Series) -> pl.Series:
    if series.dtype == pl.Boolean:
        return series
    text = series.cast(pl.String).str.to_lowercase()
    known = dict.fromkeys(_TRUE, True) | dict.fromkeys(_FALSE, False)
    return text.replace_strict(known, default=None, return_dtype=pl.Boolean)


def _iso_ms(text: pl.Series, zone: str) -> pl.Series:
    plain = text.str.replace("[Tt]", " ").str.replace("[Zz]$", "+0000")
    times = pl.Series(text.name, [None], pl.Int64).new_from_index(0, len(text))
    for form in _TIME_FORMATS:
        times = times.fill_null(_parsed_ms(plain, form, zone))
        if not times.null_count():
            break
    return times


def _parsed_ms(text: pl.Series, form: str, zone: str) -> pl.Series:
    return _zoned_ms(text.str.to_datetime(form, strict=False, time_unit="us"), zone)


def _zoned_ms(times: pl.Series, zone: str) -> pl.Series:
    """Times that say no zone are of `zone`; of an hour that comes twice the first is meant."""
    dtype = times.dtype
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is None and zone != "UTC":
        times = times.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return times.dt.epoch("ms")


# --- CloudEvents ----------------------------------------------------------------------------------------------------


def _cloud_events(
    reading: Reading, number: int, catalogue: Catalogue, span: Span, tally: Tally, progress: Callable[[int], None]
) -> Iterator[pl.DataFrame]:
    """Lines of CloudEvents through the gate that live ones pass, but for the age that they may have."""
    clock = catalogue.config.clock.model_copy(update={"past": limits.TIME_MS_MAX, "future": 1})
    patient = dataclasses.replace(catalogue, config=catalogue.config.model_copy(update={"clock": clock}))
    schema, types = schema_of(catalogue), {name: place for place, name in enumerate(catalogue.event_types)}
    name = str(reading.file.path)
    for good, refused in json_batches(reading.file, progress):
        tally.read += len(good) + len(refused)
        _refuse_broken(tally, name, refused)
        made: dict[str, list[object]] = {column: [] for column in schema}
        for row, line, value in good:
            try:
                if value.get("time") is None:
                    raise InvalidArgument("time: missing, and only what happens now may leave it out")
                if not span.from_ms <= time_ms_of(value["time"]) < span.until_ms:
                    tally.skipped += 1
                    continue
                event = event_of(value, patient, span.newest_ms)
            except InvalidArgument as error:
                where, _, _ = str(error).partition(":")
                told = f"{name} row {row}: {error}"
                tally.refuse(f"{where}: not as expected", 1, iter([(line.decode(errors="replace"), told)]))
                continue
            customer, digest, event_type, time_ms, attributes = orjson.loads(event.data)
            fixed = (customer, types[event_type], time_ms, digest, number, row)
            declared = catalogue.event_types[event_type]
            given = {slot_of(key, declared[key]): item for key, item in attributes.items()}
            for column, item in zip(schema, fixed, strict=False):
                made[column].append(item)
            for column in list(schema)[len(fixed) :]:
                made[column].append(given.get(column))
        if made["row"]:
            yield pl.DataFrame(made, schema=schema, strict=False)
