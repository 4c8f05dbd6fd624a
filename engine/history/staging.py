"""An external sort: events into buckets on disk by their customer, then each bucket sorted in memory.

A bucket holds whole customers of one partition of the store. Their number follows from the size of the files alone, so
the same files give the same buckets, and the same buckets the same chunks of work: that is what makes resuming exact.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self
from zlib import crc32

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from engine import limits
from engine.history.rows import Schema

BUCKETS_A_PARTITION_MAX: Final = 128
_PACKED_FACTOR: Final = 8
_ORDER: Final = ["customer", "time_ms", "file", "row"]


def buckets_for(paths: list[Path], partitions: int) -> int:
    """How many buckets a partition of the store gets."""
    size = 0
    for path in paths:
        loose = path.suffix.lower() in (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson")
        size += path.stat().st_size * (1 if loose else _PACKED_FACTOR)
    return min(BUCKETS_A_PARTITION_MAX, 1 + size // (limits.HISTORY_BUCKET_BYTES * partitions))


class Staging:
    """Writes buckets into a folder, several kinds of rows side by side if there are: events, labels."""

    def __init__(self, folder: Path, partitions: int, buckets: int, schemas: dict[str, Schema]) -> None:
        self._partitions = partitions
        self._buckets = buckets
        self._folder = folder
        self._open = ExitStack()
        self._schemas = {
            kind: pl.DataFrame(schema=schema).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
            for kind, schema in schemas.items()
        }
        self._writers: dict[tuple[str, int], pa.RecordBatchStreamWriter] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, kind: str, frame: pl.DataFrame) -> None:
        """Put rows into the buckets of their customers."""
        bucket = pl.Series("bucket", buckets_of(frame["customer"], self._partitions, self._buckets))
        for (number,), rows in frame.with_columns(bucket).partition_by("bucket", as_dict=True).items():
            writer = self._writer(kind, int(str(number)))
            table = rows.drop("bucket").to_arrow(compat_level=pl.CompatLevel.oldest())
            for batch in table.combine_chunks().to_batches():
                writer.write_batch(batch)

    def _writer(self, kind: str, bucket: int) -> pa.RecordBatchStreamWriter:
        found = self._writers.get((kind, bucket))
        if found is None:
            file = self._open.enter_context(_path(self._folder, kind, bucket).open("wb"))
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            found = self._open.enter_context(pa.ipc.new_stream(file, self._schemas[kind], options=options))
            self._writers[kind, bucket] = found
        return found


def buckets_of(customers: pl.Series, partitions: int, buckets: int) -> npt.NDArray[np.int64]:
    """Bucket of each customer: the partition of the store times `buckets`, plus which of its buckets."""
    sums = np.fromiter(map(crc32, customers.cast(pl.Binary)), np.int64, len(customers))
    return sums % partitions * buckets + sums // partitions % buckets


def bucket(folder: Path, kind: str, number: int) -> pl.DataFrame | None:
    """Rows of a bucket in order of customer, time, file and row; None if it has none."""
    path = _path(folder, kind, number)
    if not path.exists():
        return None
    return pl.read_ipc_stream(path).sort(_ORDER)


def without_duplicates(rows: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Sorted rows, of those of one customer with the same id only the first; and how many that left out."""
    if not (rows["id"] != 0).any():
        return rows, 0
    first = rows.select((pl.col("id") == 0) | pl.struct("customer", "id").is_first_distinct()).to_series()
    return rows.filter(first), int((~first).sum())


def groups(customers: pl.Series, most: int, rows_max: int) -> Iterator[tuple[int, int]]:
    """(start, end) of groups of whole customers in a sorted column: at most `most`, at most `rows_max` rows."""
    start = stop = count = 0
    for _, begin, end in runs_of(customers):
        if count and (count >= most or end - start > rows_max):
            yield start, begin
            start, count = begin, 0
        stop = end
        count += 1
    if count:
        yield start, stop


def runs_of(customers: pl.Series) -> list[tuple[str, int, int]]:
    """(customer, first row, row behind the last) of each customer of a sorted column."""
    runs = customers.rle()
    ends: list[int] = runs.struct.field("len").cast(pl.Int64).cum_sum().to_list()
    return list(zip(runs.struct.field("value").to_list(), [0, *ends[:-1]], ends, strict=True)) if ends else []


def _path(folder: Path, kind: str, number: int) -> Path:
    return folder / f"{kind}-{number:05d}.arrow"
