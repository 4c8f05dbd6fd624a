"""Files in batches: the columns that are wanted, every value a text where the file has no types, and row numbers.

CSV is read with pyarrow, because it goes on behind a row of the wrong length and says which one that was, and reads
compressed files as a stream. All its columns stay texts: what they should be is for rows.py to say. JSON lines are
parsed one by one, for the same reason.

A row is numbered as an editor numbers it if no value holds a line break and no line of a CSV is empty: such a line is
passed over and has no number. The first row after the header of a CSV is 2.
"""

import codecs
import contextlib
import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from engine import limits
from engine.deepjson import written
from engine.errors import InvalidArgument
from engine.history.mapping import File

BATCH_ROWS: Final = 65_536
SAMPLE_ROWS: Final = 1_000
"""Of JSON lines that are looked through for the names of columns, and more until all that are named were seen."""
_LAST: Final = "\x02the last row\x03"

_ODD: Final = (bool, float, list, dict)
"""Of the types of JSON, those that are no name of anything."""

Refused = tuple[int, str, str]
"""(row, what it holds, why)."""


@dataclass
class Batch:
    """Some rows of a file."""

    frame: pl.DataFrame
    """The columns wanted. Of CSV and JSON lines they are binary texts; null where JSON has none."""
    rows: npt.NDArray[np.int64]
    refused: list[Refused] = field(default_factory=list)
    """Rows that could not even be taken apart."""
    odd: dict[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    """Of JSON lines, by column: where it holds neither a text nor a whole number."""


def columns_of(file: File) -> dict[str, pl.DataType] | None:
    """Columns of a file and what they hold; None of JSON lines without a line, which have no columns and need none.

    Raises InvalidArgument if it cannot be read.
    """
    try:
        if file.format == "parquet":
            return dict(pl.read_parquet_schema(file.path))
        if file.format == "csv":
            names = _csv_names(file)
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise InvalidArgument(f"{file.path}: two columns are called {twice[0]!r}")
            return {name: pl.String() for name in names}
        found: dict[str, pl.DataType] = {}
        lines = 0
        for number, (_, value) in enumerate(_json_lines(file)):
            lines += value is not None
            if isinstance(value, dict):
                found |= dict.fromkeys(_paths(value), pl.String())
            # A column may be there for rare events only; one that is nowhere costs a whole reading, and an error.
            if number >= SAMPLE_ROWS and file.source.columns <= found.keys():
                break
        return found if lines else None
    except csv.Error as error:
        told = f"{error}, expected the names of the columns"
        if "new-line" in str(error):  # the advice of Python is for programmers
            told = "it ends with CR alone, expected lines that end with LF or CRLF"
        raise InvalidArgument(f"{file.path} row 1: {told}") from error
    except (OSError, pa.ArrowException, pl.exceptions.PolarsError, EOFError) as error:
        raise InvalidArgument(f"{file.path}: cannot be read: {error}") from error


def contents(file: File) -> bytes:
    """A file of text whole: unpacked, and without the mark that some programs begin it with. Raises OSError."""
    stream, _ = _opened(file, lambda read: None)
    with stream:
        data: bytes = stream.read()
    return data.removeprefix(codecs.BOM_UTF8)


def batches(file: File, columns: Sequence[str], progress: Callable[[int], None]) -> Iterator[Batch]:
    """The wanted columns of a file, in order of its rows. Raises InvalidArgument where it cannot be read further.

    `progress` is told how many bytes of the file were read since it was last told.
    """
    read = {"csv": _csv, "parquet": _parquet, "jsonl": _jsonl}[file.format]
    try:
        yield from read(file, columns, progress)
    except (OSError, pa.ArrowException, pl.exceptions.PolarsError, EOFError) as error:
        raise InvalidArgument(f"{file.path}: cannot be read: {error}") from error


# --- CSV ------------------------------------------------------------------------------------------------------------


class _Tail:
    """A file with one row more at its end. If that row does not come out, a quotation mark was never closed."""

    def __init__(self, source: Any, tail: bytes, told: Callable[[], None]) -> None:
        self._source = source
        self._tail = tail
        self._told = told
        self.closed = False
        self.ended = False
        """Set to be asked for nothing more."""

    def read(self, size: int = -1) -> bytes:
        if self.ended:
            return b""
        data: bytes = self._source.read(size)
        self._told()
        if not data:
            data, self._tail = self._tail, b""
        return data

    def close(self) -> None:
        self.closed = True
        self._source.close()

    readable = staticmethod(lambda: True)
    writable = staticmethod(lambda: False)
    seekable = staticmethod(lambda: False)


def _opened(file: File, progress: Callable[[int], None]) -> tuple[Any, Callable[[], None]]:
    """(stream of the unpacked file, what to call when something was read of it)."""
    raw = file.path.open("rb")
    at = 0

    def told() -> None:
        nonlocal at
        if not raw.closed:
            progress(raw.tell() - at)
            at = raw.tell()

    packing = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}.get(file.path.suffix.lower())
    stream = pa.PythonFile(raw, "r")
    return (pa.CompressedInputStream(stream, packing) if packing else stream), told


def delimiter_of(file: File) -> str:
    """What stands between the values of a CSV."""
    return file.source.delimiter or ("\t" if ".tsv" in file.path.suffixes else ",")


def _csv_names(file: File) -> list[str]:
    stream, _ = _opened(file, lambda read: None)
    with stream:
        text = stream.read(limits.HISTORY_BLOCK_BYTES)
    try:
        names = next(csv.reader(io.StringIO(text.decode("utf-8-sig", "strict")), delimiter=delimiter_of(file)), [])
    except UnicodeDecodeError:
        # Of rows it is told row by row.
        try:
            text.partition(b"\n")[0].decode()
        except UnicodeDecodeError as error:
            raise InvalidArgument(f"{file.path} row 1: byte {error.start} is not UTF-8") from error
        names = next(csv.reader(io.StringIO(text.decode("utf-8-sig", "replace")), delimiter=delimiter_of(file)), [])
    if not any(names):
        raise InvalidArgument(f"{file.path}: expected a first row with the names of the columns")
    return names


def _csv(file: File, columns: Sequence[str], progress: Callable[[int], None]) -> Iterator[Batch]:
    names = _csv_names(file)
    bad: list[tuple[int, str, str]] = []

    def wrong_length(row: Any) -> str:
        why = f"expected {row.expected_columns} columns, got {row.actual_columns}"
        bad.append((row.number, row.text, why))
        return "skip"

    source, told = _opened(file, progress)
    tail = ("\n" + delimiter_of(file).join([_LAST] * len(names)) + "\n").encode()
    # One column is always read, so that the last row is seen.
    wanted = list(columns) or names[:1]
    stream = _Tail(source, tail, told)
    reader = pa.csv.open_csv(
        pa.PythonFile(stream, "r"),
        # With threads the numbers of bad rows would not be known.
        read_options=pa.csv.ReadOptions(block_size=limits.HISTORY_BLOCK_BYTES, use_threads=False),
        parse_options=pa.csv.ParseOptions(
            delimiter=delimiter_of(file), newlines_in_values=True, invalid_row_handler=wrong_length
        ),
        convert_options=pa.csv.ConvertOptions(
            include_columns=wanted, column_types=dict.fromkeys(wanted, pa.binary()), strings_can_be_null=False
        ),
    )
    next_row, ended = 2, False
    try:
        for part in reader:
            assert not ended, "nothing stands behind the last row"
            frame = pl.DataFrame(pl.from_arrow(part))
            ended = frame.height > 0 and frame[-1, 0] == _LAST.encode()
            if ended:
                frame = frame[:-1]
            numbers, taken = _numbers(next_row, frame.height, [number for number, _, _ in bad])
            refused, bad[:] = bad[:taken], bad[taken:]
            next_row += frame.height + taken
            yield Batch(frame, numbers, refused)
    finally:
        # It reads ahead in a thread; left alone in the middle of that, it takes the process down at its end.
        stream.ended = True
        with contextlib.suppress(pa.ArrowException):
            for _ in reader:
                pass
        reader.close()
    if not ended:
        raise InvalidArgument(f"{file.path}: a quotation mark opened in row {next_row} or behind it is never closed")
    if bad:
        yield Batch(pl.DataFrame(schema=dict.fromkeys(wanted, pl.Binary)), np.empty(0, np.int64), bad)


def _numbers(first: int, count: int, bad: Sequence[int]) -> tuple[npt.NDArray[np.int64], int]:
    """Numbers of the next `count` good rows, and how many of the bad ones stand among them."""
    taken = 0
    while taken < len(bad) and bad[taken] < first + count + taken:
        taken += 1
    every = np.arange(first, first + count + taken)
    return np.setdiff1d(every, np.array(bad[:taken], np.int64), assume_unique=True)[:count], taken


# --- Parquet --------------------------------------------------------------------------------------------------------


def _parquet(file: File, columns: Sequence[str], progress: Callable[[int], None]) -> Iterator[Batch]:
    row = 1
    size = file.path.stat().st_size
    with pa.parquet.ParquetFile(file.path) as parquet:
        total = max(1, parquet.metadata.num_rows)
        for part in parquet.iter_batches(BATCH_ROWS, columns=list(columns)):
            frame = pl.DataFrame(pl.from_arrow(part))
            yield Batch(frame, np.arange(row, row + frame.height))
            row += frame.height
            progress(size * frame.height // total)


# --- JSON lines -----------------------------------------------------------------------------------------------------


def _json_lines(file: File, progress: Callable[[int], None] = lambda read: None) -> Iterator[tuple[bytes, Any]]:
    """(line, what it holds or the error). Empty lines are None."""
    source, told = _opened(file, progress)
    rest, begun = b"", False
    with source:
        while block := source.read(limits.HISTORY_BLOCK_BYTES):
            told()
            if not begun:
                block, begun = block.removeprefix(codecs.BOM_UTF8), True
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                yield line, _parsed(line)
            if len(rest) > limits.HISTORY_BLOCK_BYTES:
                raise InvalidArgument(f"{file.path}: a line of more than {limits.HISTORY_BLOCK_BYTES} bytes")
    yield rest, _parsed(rest)


def _parsed(line: bytes) -> Any:
    if not line.strip():
        return None
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return error


def json_batches(
    file: File, progress: Callable[[int], None]
) -> Iterator[tuple[list[tuple[int, bytes, Any]], list[Refused]]]:
    """(row, line, object) of each line that holds an object, and the lines that hold none, in batches."""
    good: list[tuple[int, bytes, Any]] = []
    refused: list[Refused] = []
    try:
        for row, (line, value) in enumerate(_json_lines(file, progress), 1):
            if isinstance(value, dict):
                good.append((row, line, value))
            elif isinstance(value, orjson.JSONDecodeError):
                refused.append((row, line.decode(errors="replace"), f"not JSON: {value}"))
            elif value is not None:
                refused.append((row, line.decode(errors="replace"), "expected an object"))
            if len(good) + len(refused) >= BATCH_ROWS:
                yield good, refused
                good, refused = [], []
    except (OSError, pa.ArrowException, EOFError) as error:
        raise InvalidArgument(f"{file.path}: cannot be read: {error}") from error
    yield good, refused


def _jsonl(file: File, columns: Sequence[str], progress: Callable[[int], None]) -> Iterator[Batch]:
    steps = {column: tuple(column.split(".")) for column in columns}
    for good, refused in json_batches(file, progress):
        texts: dict[str, list[bytes | None]] = {column: [] for column in columns}
        odd: dict[str, list[bool]] = {column: [] for column in columns}
        for _, _, value in good:
            for column, path in steps.items():
                found = _at(value, column, path)
                texts[column].append(_text(found))
                odd[column].append(type(found) in _ODD)
        frame = pl.DataFrame(texts, schema=dict.fromkeys(columns, pl.Binary))
        numbers = np.array([row for row, _, _ in good], np.int64)
        yield Batch(frame, numbers, refused, {column: np.array(marks, np.bool_) for column, marks in odd.items()})


def _at(value: Any, column: str, path: tuple[str, ...]) -> Any:
    if column in value:
        return value[column]
    for step in path:
        if not isinstance(value, dict):
            return None
        value = value.get(step)
    return value


def _text(value: Any) -> bytes | None:
    if isinstance(value, str):
        return value.encode(errors="surrogatepass")
    return None if value is None else written(value)


def columns_within(column: str, text: str) -> list[str]:
    """The columns that can be named instead of one that holds an object.

    >>> columns_within("user", '{"id": "u0", "home": {"zip": 1}}'), columns_within("user", "[1]")
    (['user.id', 'user.home', 'user.home.zip'], [])
    """
    value = orjson.loads(text)
    return list(_paths(value, f"{column}.")) if isinstance(value, dict) else []


def _paths(value: dict[str, Any], above: str = "") -> Iterator[str]:
    for name, inner in value.items():
        yield above + name
        if isinstance(inner, dict):
            yield from _paths(inner, f"{above}{name}.")
