"""The bake-off sets as contextual bandits: rows in an order, and one preparation that every learner is given.

A classification set becomes a bandit as in Bietti, Agarwal and Langford (2021): the row is the context, a guess of its
label the action, the reward 1 for the right one. Everything about a row is known, so the loss of a learner is exact:
its progressive validation loss is the share of rows it answered wrong, each answered before it was learnt from.

The preparation is online: what is made of a row depends on it and the rows before it, never on later ones.

- Numeric columns are standardised by the mean and standard deviation of the rows up to and including this one, and
  clipped to ±`CLIP_SDS`. Missing values, and columns that were constant so far, are 0.
- Categorical columns are one-hot over the values seen so far. Columns of x are handed out in the order in which values
  first appear, over all columns of the set, so a prefix of the rows gives a prefix of the columns. Values beyond the
  first `HOT_COLUMNS_MAX` have no column: all their zeros stay.

No column of ones is added; learners that need an intercept add their own.
"""

import csv
import gzip
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

ROWS_MAX: Final = 20_000
ORDERS: Final = 5
CLIP_SDS: Final = 5.0
HOT_COLUMNS_MAX: Final = 200
DATA: Final = Path(__file__).resolve().parents[2] / "shared" / "data"
MISSING: Final = ("", "?", "<null>")
_FORMAT: Final = 1
"""Part of the name of what is kept: counted up when the preparation changes."""

Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RawSet:
    """A set as its file has it.

    Args:
        name: of the file.
        numeric: (n, columns) float64, NaN for missing and in the columns that are categorical.
        categorical: (n, columns) int64, an index in order of first appearance in the file; -1 for missing and in the
            columns that are numeric.
        is_numeric: (columns,) bool.
        y: (n,) int64, labels as indices in 0 .. classes-1; the order of the label's text.
        classes: how many.
    """

    name: str
    numeric: npt.NDArray[np.float64]
    categorical: Ints
    is_numeric: npt.NDArray[np.bool_]
    y: Ints
    classes: int


@dataclass(frozen=True)
class Prepared:
    """A set in one order, as every learner reads it.

    Args:
        name: of the set.
        order: which shuffle, 0 .. `ORDERS` - 1.
        x: (n, d) float32.
        y: (n,) int64.
        classes: how many actions.
        source: (d,) int64, the column of the file that each column of x comes from.
        hot: (d,) bool, whether a column of x says that a category is there.
        key: hash of all of it.
    """

    name: str
    order: int
    x: Floats32
    y: Ints
    classes: int
    source: Ints
    hot: npt.NDArray[np.bool_]
    key: str


def data_folder() -> Path | None:
    """Where the data is: the folder that `OPPORTUNE_DATA` names, or ../shared/data; None where there is none."""
    folder = Path(os.environ.get("OPPORTUNE_DATA") or DATA)
    return folder if folder.is_dir() else None


def cache_folder() -> Path:
    """Where prepared sets and what peers found is kept."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "opportune" / "bench-learning"


def set_names(folder: Path) -> list[str]:
    """The sets there are, those with fewest rows first."""
    with (folder / "cb-bakeoff-suite" / "INDEX.csv").open() as lines:
        rows = {row["name"]: int(row["rows"]) for row in csv.DictReader(lines)}
    return sorted(rows, key=lambda name: (rows[name], name))


def load(folder: Path, name: str) -> RawSet:
    """Read a set. A column is numeric if every value that is not missing is a number.

    Raises:
        FileNotFoundError: if there is no such set.
    """
    with gzip.open(folder / "cb-bakeoff-suite" / f"{name}.csv.gz", "rt", newline="") as lines:
        reader = csv.reader(lines)
        header = next(reader)
        rows = [row for row in reader if row]
    assert header[-1] == "label"
    labels = sorted({row[-1] for row in rows})
    index = {label: at for at, label in enumerate(labels)}
    columns = len(header) - 1
    numeric = np.full((len(rows), columns), np.nan)
    categorical = np.full((len(rows), columns), -1, np.int64)
    is_numeric = np.zeros(columns, np.bool_)
    for column in range(columns):
        values = [row[column].strip() for row in rows]
        numbers = _numbers(values)
        if numbers is not None:
            numeric[:, column], is_numeric[column] = numbers, True
        else:
            seen: dict[str, int] = {}
            categorical[:, column] = [-1 if v in MISSING else seen.setdefault(v, len(seen)) for v in values]
    return RawSet(name, numeric, categorical, is_numeric, np.array([index[row[-1]] for row in rows]), len(labels))


def order_of(raw: RawSet, order: int) -> Ints:
    """The rows of an order: shuffled by a seed made of name and order; a stream keeps its own. `ROWS_MAX` at most."""
    rows = np.arange(len(raw.y))
    if not raw.name.startswith("stream_"):
        seed = int.from_bytes(hashlib.blake2b(f"{raw.name} {order}".encode(), digest_size=8).digest(), "little")
        np.random.default_rng(seed).shuffle(rows)
    return rows[:ROWS_MAX]


def prepare(raw: RawSet, order: int) -> Prepared:
    """The set in an order, prepared online."""
    rows = order_of(raw, order)
    numeric_at = np.flatnonzero(raw.is_numeric)
    numbers = standardised(raw.numeric[np.ix_(rows, numeric_at)])
    codes_at = np.flatnonzero(~raw.is_numeric)
    hot, hot_source = one_hot(raw.categorical[np.ix_(rows, codes_at)])
    x = np.ascontiguousarray(np.hstack([numbers, hot]), np.float32)
    y = raw.y[rows]
    source = np.concatenate([numeric_at, codes_at[hot_source]]).astype(np.int64)
    is_hot = np.arange(len(source)) >= len(numeric_at)
    digest = hashlib.blake2b(f"{_FORMAT} {raw.name} {order} {raw.classes} {x.shape}".encode(), digest_size=12)
    for array in (x, y, source, is_hot):
        digest.update(array.tobytes())
    return Prepared(raw.name, order, x, y, raw.classes, source, is_hot, digest.hexdigest())


def standardised(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Columns standardised by what was known up to and including each row; NaN becomes 0, see the module.

    >>> standardised(np.array([[4.0], [6.0], [np.nan], [5.0]])).ravel().round(2).tolist()
    [0.0, 1.0, 0.0, 0.0]
    """
    if not values.size:
        return np.zeros(values.shape)
    known = np.isfinite(values)
    # Sums of differences to the first value of the column: large offsets must not eat the digits.
    first = values[np.argmax(known, axis=0), np.arange(values.shape[1])]
    shifted = np.where(known, values - np.where(np.isfinite(first), first, 0.0), 0.0)
    count = np.maximum(np.cumsum(known, axis=0), 1)
    mean = np.cumsum(shifted, axis=0) / count
    square = np.cumsum(shifted**2, axis=0) / count
    variance = square - mean**2
    varied = known & (variance > 1e-12 * np.maximum(square, 1e-300))
    scaled = np.where(varied, (shifted - mean) / np.sqrt(np.where(varied, variance, 1.0)), 0.0)
    return np.clip(scaled, -CLIP_SDS, CLIP_SDS)


def one_hot(codes: Ints) -> tuple[npt.NDArray[np.float64], Ints]:
    """Columns for (column, value) in order of first appearance, and the column of `codes` each stands for.

    >>> x, source = one_hot(np.array([[7, -1], [3, 0], [7, 0]]))
    >>> x.tolist(), source.tolist()
    ([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [1.0, 0.0, 1.0]], [0, 0, 1])
    """
    at: dict[tuple[int, int], int] = {}
    cells: list[tuple[int, int]] = []
    for row, values in enumerate(codes.tolist()):
        for column, value in enumerate(values):
            key = (column, value)
            if value >= 0 and (key in at or len(at) < HOT_COLUMNS_MAX):
                cells.append((row, at.setdefault(key, len(at))))
    x = np.zeros((len(codes), len(at)))
    if cells:
        x[tuple(np.array(cells).T)] = 1.0
    return x, np.array([column for column, _ in at], np.int64)


def prepared(folder: Path, name: str, order: int) -> Prepared:
    """A prepared set from what is kept, made and kept if it is not there: an .npz of the fields of `Prepared`."""
    kept = cache_folder() / f"{name}-{order}.npz"
    stamp = _stamp(folder, name)
    if kept.exists():
        with np.load(kept) as found:
            told = json.loads(str(found["told"]))
            if told["stamp"] == stamp:
                arrays = (found["x"], found["y"], told["classes"], found["source"], found["hot"], told["key"])
                return Prepared(name, order, *arrays)
    made = prepare(load(folder, name), order)
    kept.parent.mkdir(parents=True, exist_ok=True)
    told = json.dumps({"stamp": stamp, "classes": made.classes, "key": made.key})
    half = kept.with_suffix(f".{os.getpid()}.half.npz")
    np.savez(half, x=made.x, y=made.y, source=made.source, hot=made.hot, told=told)
    half.replace(kept)
    return made


def _stamp(folder: Path, name: str) -> str:
    data = (folder / "cb-bakeoff-suite" / f"{name}.csv.gz").read_bytes()
    settings = f"{_FORMAT} {ROWS_MAX} {CLIP_SDS} {HOT_COLUMNS_MAX}"
    return settings + " " + hashlib.blake2b(data, digest_size=12).hexdigest()


def _numbers(values: Sequence[str]) -> npt.NDArray[np.float64] | None:
    try:
        numbers = np.array([float("nan") if v in MISSING else float(v) for v in values])
    except ValueError:
        return None
    return numbers
