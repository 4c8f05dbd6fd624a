"""Features as they would have been at given times: the point-in-time join, on the fold that serves.

A label is a row with a customer and a time. Its features are what the events before that time make: an event of the
very same millisecond is not yet known, so an outcome that is itself an event does not leak into its own features.
Windows are as in service, in whole tiles, at the time of the label.

Events and labels go into the same buckets by customer. Within a bucket each customer's history is folded once, from
label to label, and read at each. Features of what customers belong to are made in the same way, from copies of the
events and of the labels under its name (engine.history.rolling).
"""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet
from pydantic import ValidationError

from engine import limits
from engine.catalogue import Catalogue
from engine.errors import DataFolderError, InvalidArgument
from engine.history.folding import EVENTS_AT_ONCE, EventMaker, folded, folded_on
from engine.history.loading import EVENTS, Told, stage
from engine.history.mapping import File, Reading, Source, format_of, is_key, key_misfits
from engine.history.rolling import COPIES, Roller
from engine.history.rows import Checks, Schema, Span, Tally, schema_of
from engine.history.sources import Batch, columns_of, contents, delimiter_of
from engine.history.staging import Staging, bucket, buckets_for, runs_of, without_duplicates
from engine.rollups import Rollup, entity_name
from features import Layout, shown_hash

Floats = npt.NDArray[np.float64]

LABELS: Final = "labels"
CUSTOMERS_AT_ONCE: Final = 1_024
_ASKED: Final = "asked"
"""Kind of the rows in the buckets: labels under the names of the entities that they are about."""
_ROW: Final = "__row"
_SCHEMA: Final[Schema] = {
    "customer": pl.String(),
    "time_ms": pl.Int64(),
    "file": pl.UInt32(),
    "row": pl.Int64(),
}


class Labels:
    """The labels as they came, and who and when each is about."""

    def __init__(self, frame: pl.DataFrame, keys: pl.DataFrame) -> None:
        self.frame = frame
        self.keys = keys
        self.height = frame.height


def labels_of(
    path: Path, customer: str, time: str, unit: str | None, form: str | None, zone: str, catalogue: Catalogue
) -> Labels:
    """Read labels, all of them. Raises InvalidArgument if a column is missing or any row is wrong."""
    file = _label_file(path, customer, time, unit, form, zone)
    facts = [rollup.fact for rollup in catalogue.rollups if rollup.fact]
    try:
        if file.format == "csv":
            columns_of(file)  # refuses two columns of one name, of which polars would rename one
            # Customers and entities stay texts, whatever they look like.
            texts = dict.fromkeys((customer, time, *facts), pl.String)
            frame = pl.read_csv(
                contents(file), separator=delimiter_of(file), schema_overrides=texts, infer_schema_length=None
            )
        else:
            frame = pl.read_parquet(path) if file.format == "parquet" else pl.read_ndjson(contents(file))
    except (OSError, EOFError, pa.ArrowException, pl.exceptions.PolarsError) as error:
        raise InvalidArgument(f"{path}: cannot be read: {error}") from error
    for what, column in (("--label-customer", customer), ("--label-time", time)):
        if column not in frame.columns:
            raise InvalidArgument(f"{path}: {what}: no column {column!r}; there are {', '.join(frame.columns)}")
    if _ROW in frame.columns:
        raise InvalidArgument(f"{path}: column {_ROW!r} is needed for the order of rows: rename it")
    taken = [name for name in _names(catalogue) if name in frame.columns]
    if taken:
        raise InvalidArgument(f"{path}: column {taken[0]!r} is called like a feature: rename it")
    for fact in facts:
        dtype = frame.schema.get(fact, pl.Null())
        if dtype != pl.Null and not is_key(dtype):
            told = f"holds {dtype}, expected texts or whole numbers: it names an entity"
            raise InvalidArgument(f"{path}: column {fact!r} {told}")
    problems = [f"{path}: {problem}" for problem in key_misfits(file.source, frame.schema, "--label-time-unit")]
    if problems:
        raise InvalidArgument("\n".join(problems))
    first = 2 if file.format == "csv" else 1
    raw = frame if unit is None else frame.with_columns(pl.col(time).cast(pl.String).cast(pl.Binary))
    checks = Checks(Reading(file, (customer, time), {}), Batch(raw, np.arange(first, first + frame.height)))
    customers = checks.customers("customer", customer)
    times = checks.times_ms("time", time, unit, form, zone)
    tally = Tally(frame.height)
    checks.tell(tally)
    if tally.refused:
        more = f"\nand {tally.refused_in_all - 5} more" if tally.refused_in_all > 5 else ""
        raise InvalidArgument("\n".join(line for _, _, line in tally.kept[:5]) + more)
    keys = pl.DataFrame({"customer": customers, "time_ms": times, "file": 0, "row": np.arange(frame.height)})
    return Labels(frame, keys.cast(pl.Schema(_SCHEMA)))


def _label_file(path: Path, customer: str, time: str, unit: str | None, form: str | None, zone: str) -> File:
    if unit is not None and form is not None:
        raise InvalidArgument("expected --label-time-unit for numbers or --label-time-format for texts, not both")
    named = {"type": "label", "customer": customer, "time": time, "time_unit": unit, "time_format": form}
    try:
        source = Source.model_validate(named | {"files": (str(path),), "time_zone": zone})
    except ValidationError as error:
        problems = [problem["msg"].removeprefix("Value error, ") for problem in error.errors(include_url=False)]
        raise InvalidArgument(f"labels: {'; '.join(problems)}") from error
    return File(path, format_of(path, "csv"), source)


def write(
    out: Path,
    labels: Labels,
    readings: Sequence[Reading],
    catalogue: Catalogue,
    from_ms: int | None,
    until_ms: int | None,
    work: Path | None,
    told: Told,
) -> Tally:
    """Write the labels in their order, with a column a feature, to a Parquet file. Raises OpportuneError.

    Events without a place in the span of time, and rows with something wrong in them, take no part and are counted.
    """
    if not out.parent.is_dir():
        raise DataFolderError(f"{out}: there is no folder {out.parent}")
    span = Span(from_ms or 0, until_ms or limits.TIME_MS_MAX + 1, limits.TIME_MS_MAX)
    part = out.with_name(out.name + ".part")
    try:
        if work is not None:
            work.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="opportune-history-", dir=work))
        try:
            buckets = buckets_for([reading.file.path for reading in readings], 1)
            with Staging(folder, 1, buckets, {EVENTS: schema_of(catalogue), LABELS: _SCHEMA}) as staging:
                staging.add(LABELS, labels.keys)
                tally = stage(staging, readings, catalogue, span, told)
            events = tally.read - tally.refused_in_all - tally.skipped
            told.events_due(events)
            rolled = _rolled(folder, buckets, labels, events, catalogue, told) if catalogue.rollups else ()
            joined = folder / "joined.parquet"
            _join(joined, folder, buckets, labels, rolled, catalogue, told)
            pl.scan_parquet(joined).sort(_ROW).drop(_ROW).sink_parquet(part)
            part.rename(out)
            return tally
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise DataFolderError(f"{error.filename or out}: {error.strerror or error}") from error


def _names(catalogue: Catalogue) -> list[str]:
    """Features, in order of the columns."""
    return [name for layout in catalogue.layouts.values() for name in layout.names]


def _join(
    path: Path,
    folder: Path,
    buckets: int,
    labels: Labels,
    rolled: Sequence[Floats],
    catalogue: Catalogue,
    told: Told,
) -> None:
    """Labels with their features, bucket by bucket, in no order."""
    maker, layouts = EventMaker(catalogue), list(catalogue.layouts.values())

    def table(values: Sequence[Floats]) -> pl.DataFrame:
        return pl.concat([_table(some, layout) for some, layout in zip(values, layouts, strict=True)], how="horizontal")

    writer: pa.parquet.ParquetWriter | None = None
    try:
        for number in range(buckets):
            keys, rows = bucket(folder, LABELS, number), bucket(folder, EVENTS, number)
            events_read = 0 if rows is None else rows.height
            if keys is not None:
                for start, end in _groups(keys, rows):
                    values = _features(keys[start:end], rows, catalogue.layout, maker)
                    places = keys["row"][start:end]
                    part = table([values, *(some[places.to_numpy()] for some in rolled)])
                    arrow = pl.concat(
                        [labels.frame[places], part, places.alias(_ROW).to_frame()], how="horizontal"
                    ).to_arrow()
                    writer = writer or pa.parquet.ParquetWriter(path, arrow.schema)
                    writer.write_table(arrow)
            told.events_folded(events_read)
        if writer is None:
            nothing = table([np.empty((0, len(layout.names))) for layout in layouts])
            empty = pl.concat([labels.frame, nothing], how="horizontal")
            empty.with_columns(pl.Series(_ROW, [], pl.Int64)).write_parquet(path)
    finally:
        if writer is not None:
            writer.close()


def _rolled(
    folder: Path, buckets: int, labels: Labels, events: int, catalogue: Catalogue, told: Told
) -> list[Floats]:
    """Of each kind of entity the features (labels, features) of the one that each label is about."""
    roller, maker, now_ms = Roller(catalogue), EventMaker(catalogue), labels.keys["time_ms"].to_numpy()
    with Staging(folder, 1, buckets, {COPIES: schema_of(catalogue), _ASKED: _SCHEMA}) as staging:
        for number in range(buckets):
            keys, rows = bucket(folder, LABELS, number), bucket(folder, EVENTS, number)
            if rows is not None:
                rows, _ = without_duplicates(rows)
                made = roller.copies(rows)
                staging.add(COPIES, made)
                events += made.height
            if keys is None:
                continue
            for rollup in catalogue.rollups:
                names = keys.with_columns(_asked(keys, rows, labels, roller, rollup))
                staging.add(_ASKED, names.drop_nulls("customer"))
    told.events_due(events)
    found = [rollup.layout.read([None] * labels.height, now_ms) for rollup in catalogue.rollups]
    for number in range(buckets):
        asked, copies = bucket(folder, _ASKED, number), bucket(folder, COPIES, number)
        told.events_folded(0 if copies is None else copies.height)
        if asked is None or copies is None:
            continue
        for rollup, values in zip(catalogue.rollups, found, strict=True):
            keys = asked.filter(pl.col("customer").str.starts_with(entity_name(rollup.kind, "")))
            for start, end in _groups(keys, copies):
                some = keys[start:end]
                values[some["row"].to_numpy()] = _features(some, copies, rollup.layout, maker)
    return found


def _asked(
    keys: pl.DataFrame, rows: pl.DataFrame | None, labels: Labels, roller: Roller, rollup: Rollup
) -> pl.Series:
    """The name of the entity of a kind that each label is about: of its fact, else what the customer belongs to."""
    given = pl.Series([None], dtype=pl.String).new_from_index(0, keys.height)
    if rollup.fact and rollup.fact in labels.frame.columns:
        given = labels.frame[rollup.fact][keys["row"]].cast(pl.String)
    named = entity_name(rollup.kind, "") + given.set(given == "", None)
    if rollup.many or rows is None:
        return named.alias("customer")
    # Only what was before is known: so the last row of a millisecond, and of one that is over.
    moments = rows.select("customer", "time_ms", roller.belonged(rows, rollup).alias("entity"))
    moments = moments.unique(["customer", "time_ms"], keep="last", maintain_order=True)
    before = keys.select("customer", time_ms=pl.col("time_ms") - 1)
    belonged = before.join_asof(moments, on="time_ms", by="customer", check_sortedness=False)["entity"]
    return named.zip_with(named.is_not_null(), belonged).alias("customer")


def _groups(keys: pl.DataFrame, rows: pl.DataFrame | None) -> Iterator[tuple[int, int]]:
    """(start, end) of labels read together: of few customers, with few events unless it is one customer."""
    events = {} if rows is None else {customer: end - start for customer, start, end in runs_of(rows["customer"])}
    begin = count = held = 0
    for customer, start, end in runs_of(keys["customer"]):
        more = events.get(customer, 0) + end - start
        if count and (count >= CUSTOMERS_AT_ONCE or held + more > EVENTS_AT_ONCE):
            yield begin, start
            begin, count, held = start, 0, 0
        count, held = count + 1, held + more
    if count:
        yield begin, keys.height


@dataclass(slots=True)
class _Queue:
    """The labels of one customer that are still to be read."""

    first: int
    """Row of the first one."""
    done: int
    """Events up to here are folded."""
    cuts: list[int]
    """For each label, the first event that it must not know."""
    turn: int = 0

    @property
    def at(self) -> int:
        """Row of the next one."""
        return self.first + self.turn


def _features(keys: pl.DataFrame, rows: pl.DataFrame | None, layout: Layout, maker: EventMaker) -> Floats:
    """Features (labels, features) in order of customer and time, from the sorted events of their bucket."""
    now_ms = keys["time_ms"].to_numpy()
    records: list[bytes | None] = [None] * keys.height
    if rows is not None:
        rows = rows.join(keys.select(pl.col("customer").unique()), on="customer", how="semi", maintain_order="left")
        rows, _ = without_duplicates(rows)
        times = rows["time_ms"].to_numpy()
        if rows.height > EVENTS_AT_ONCE:  # of one customer
            record, done = None, 0
            for at, cut in enumerate(np.searchsorted(times, now_ms, side="left").tolist()):
                record = folded_on(layout, maker, record, rows[done:cut], done + 1)
                records[at], done = record, cut
            return layout.read(records, now_ms)
        runs = runs_of(rows["customer"])
        events = maker.events(rows, [n for _, start, end in runs for n in range(1, end - start + 1)])
        spans = {customer: (start, end) for customer, start, end in runs}
        queues = [
            _Queue(first, start, (start + np.searchsorted(times[start:end], now_ms[first:last], side="left")).tolist())
            for customer, first, last in runs_of(keys["customer"])
            for start, end in [spans.get(customer, (0, 0))]
        ]
        # All customers advance together, label by label: that keeps the batches of the fold large.
        while queues:
            before = [records[queue.at - 1] if queue.turn else None for queue in queues]
            histories = [events[queue.done : queue.cuts[queue.turn]] for queue in queues]
            for queue, record in zip(queues, folded(layout, before, histories), strict=True):
                records[queue.at] = record
                queue.done = queue.cuts[queue.turn]
                queue.turn += 1
            queues = [queue for queue in queues if queue.turn < len(queue.cuts)]
    return layout.read(records, now_ms)


def _table(values: Floats, layout: Layout) -> pl.DataFrame:
    """A column a feature: numbers, and texts for categories; null where missing."""
    columns = []
    for at, spec in enumerate(layout.specs):
        column = pl.Series(spec.name, np.ascontiguousarray(values[:, at])).fill_nan(None)
        if spec.hashed:
            texts = [shown_hash(value) if value >= 0.0 else None for value in values[:, at].tolist()]
            column = pl.Series(spec.name, texts, pl.String)
        elif spec.categories:
            names = dict(enumerate(spec.categories))
            column = column.cast(pl.Int64).replace_strict(names, default=None, return_dtype=pl.String)
        columns.append(column.alias(spec.name))
    return pl.DataFrame(columns)
