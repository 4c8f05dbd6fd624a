"""From customer values to the integer vector x that decides and learns.

Every input becomes a small integer: clipped to its range, then cut into 127 steps either side of the middle. That
costs nothing in practice (a step is under one percent of the range) and buys exactness: each product x_i·x_j is an
integer of at most 127², so sums of up to `LESSONS_MAX` of them are exact in float64, whatever their order. See
`models.statistics` for what follows from that.

A linear model of the inputs sees no "young and married", and no "neither low nor high". Two kinds of further columns
let it: **crosses**, products of two inputs that somebody declared, and **waves**, cosines of random projections of all
inputs (random Fourier features, Rahimi & Recht 2007). Enough waves add up to any smooth function. Whether they help is
not for the transform to know: `models.posterior` finds out, and leaves them out where they do not.

A transform has a version, a hash of everything that gives x its meaning. Vectors, statistics and policies of two
versions never mix.

Non-goal: learning the ranges. They are configuration; a range that moved by itself would change what old lessons
mean.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from models.compiled import BYTES, FLOATS_2D, INT, INTS32, INTS32_2D, INTS_2D, compiled

STEPS = 127
"""The integer that stands for 1.0 in x: the largest of an int8 with a mirror image."""

DIMENSION_MAX = 256
"""Most columns of x, bias included: a decision costs d²/2 multiplications an offer, a lesson d²."""

_FORMAT = "opportune-transform-1"

HASHED_COLUMNS_MAX = 128
"""Most columns of a hashed input: half of x."""

HASH_BITS = 48
"""Hashes of texts are whole numbers of so many bits. The lowest say the column, the highest the sign."""

_PHASES: Final = 1 << 16
"""Phases of a full turn: projections are sums of integers, so that a wave is the same to the bit on every machine."""

_COSINES: Final = np.array([round(STEPS * math.cos(2.0 * math.pi * at / 4096)) for at in range(4096)], np.int8)

_HASHES: Final = float(1 << HASH_BITS)

_NUMBER_FREQUENCY: Final = 3.0
"""Numbers spread by about a third of the half of their range, categories by one: then they weigh alike in a wave."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class InputSpec:
    """One input of the model: which value it reads and how it becomes columns of x.

    Args:
        source: name of the value.
        kind: ``linear`` and ``log`` give one column, ``one_hot`` gives one a category, ``hashed`` as many as
            `categories` says, each shared by all values whose hashes fall there.
        low: lower end of the range of ``linear`` and ``log``, in the unit of the value; lower values are clipped. What
            is standardised elsewhere is ``linear`` from -3 to 3 or so.
        high: upper end of that range.
        categories: how many categories ``one_hot`` has; the value is then an index in 0 .. categories-1. Of ``hashed``
            how many columns there are, a power of two from 2 to `HASHED_COLUMNS_MAX`; the value is a hash then, a whole
            number of `HASH_BITS` bits.
        signed: of ``hashed``, whether the hash also says if the column is 127 or -127.

    Raises:
        ValueError: for a range that is empty or not finite, a count of categories below one, or columns of a hashed
            input that are no power of two or too many.

    >>> InputSpec("age", "linear", 80, 20)
    Traceback (most recent call last):
    ValueError: input 'age': low 80 must be below high 20
    """

    source: str
    kind: Literal["linear", "log", "one_hot", "hashed"]
    low: float = 0.0
    high: float = 1.0
    categories: int = 0
    signed: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ("linear", "log", "one_hot", "hashed"):
            raise ValueError(f"input {self.source!r}: kind {self.kind!r} is none of linear, log, one_hot, hashed")
        if self.kind == "hashed":
            count = self.categories
            if not 2 <= count <= HASHED_COLUMNS_MAX or count & (count - 1):
                expected = f"expected columns by a power of two from 2 to HASHED_COLUMNS_MAX={HASHED_COLUMNS_MAX}"
                raise ValueError(f"input {self.source!r}: {expected}, not {count}")
            return
        if self.kind == "one_hot":
            if self.categories < 1:
                raise ValueError(f"input {self.source!r}: one_hot needs at least one category, not {self.categories}")
            return
        if not math.isfinite(2.0 * self.high - 2.0 * self.low):
            raise ValueError(f"input {self.source!r}: range {self.low} to {self.high} is not finite")
        if not (self.low < self.high and math.isfinite(_scale(self))):
            raise ValueError(f"input {self.source!r}: low {self.low} must be below high {self.high}")

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of x this input fills."""
        if self.kind == "one_hot":
            return tuple(f"{self.source}[{category}]" for category in range(self.categories))
        if self.kind == "hashed":
            return tuple(f"{self.source}[#{column}]" for column in range(self.categories))
        return (f"log({self.source})",) if self.kind == "log" else (self.source,)


@dataclass(frozen=True)
class Part:
    """Columns of x that come from the same inputs.

    Args:
        sources: names of the values: one of an input, two of a cross, none of the bias; all inputs of the waves.
        kind: ``bias``, a kind of InputSpec, ``cross`` or ``waves``.
        first: the first column.
        width: how many there are.
    """

    sources: tuple[str, ...]
    kind: str
    first: int
    width: int


class Transform:
    """Inputs compiled against the order in which values arrive; immutable.

    The columns of x, with clip(v) the value held within low .. high and rint rounding halves to even:

    - bias: 127, always the first column;
    - linear: rint(127 · (2 · (clip(v) - low) / (high - low) - 1)), so low is -127 and high is 127;
    - log: the same on log(1 + clip(v) - low), whose range is 0 .. log(1 + high - low);
    - one_hot: 127 in the column of the category, 0 in its others;
    - hashed: ±127 in the column that the lowest bits of the hash name, 0 in its others; 127 unless it is signed and
      the highest of the 48 bits is set. Without signs, values that share a column count as one value; with signs, half
      of them count against each other, so that over many values a column's errors cancel instead of adding up
      (Weinberger et al. 2009), and a product of two customers' columns is unbiased;
    - missing (NaN, ±inf, an index that is no category, or what is no hash): 0, which is also the middle of a range.
      Where being missing tells something, give the value a category of its own;
    - cross: rint(x_i · x_j / 127) for every column i of one input and j of the other;
    - wave: rint(127 · cos(w · x + phase)), w and phase drawn from a hash of the names of the columns.

    >>> transform = Transform.compile(
    ...     [InputSpec("age", "linear", 20, 80), InputSpec("job", "one_hot", categories=3)], sources=["job", "age"])
    >>> transform.names
    ('bias', 'age', 'job[0]', 'job[1]', 'job[2]')
    >>> transform.apply(np.array([[2.0, 80.0], [0.0, 50.0], [np.nan, np.inf]])).tolist()
    [[127, 127, 0, 0, 127], [127, 0, 127, 0, 0], [127, 0, 0, 0, 0]]
    """

    __slots__ = (
        "_crossed",
        "_frequencies",
        "_hashed",
        "_hot",
        "_numeric",
        "_phases",
        "_ranges",
        "_sources",
        "dimension",
        "names",
        "parts",
        "version",
        "waves",
    )

    dimension: int
    version: int
    names: tuple[str, ...]
    parts: tuple[Part, ...]
    """The columns by where they come from, in order."""
    waves: int
    """How many of the columns, the last ones, are waves."""

    def __init__(
        self,
        inputs: Sequence[InputSpec],
        sources: Sequence[str],
        crosses: Sequence[tuple[str, str]],
        waves: int,
    ) -> None:
        position = {name: index for index, name in enumerate(sources)}
        if len(position) != len(sources):
            raise ValueError("sources hold a name twice")
        names = ["bias"]
        parts = [Part((), "bias", 0, 1)]
        placed: dict[str, Part] = {}
        numeric: list[tuple[int, InputSpec]] = []
        hot: list[tuple[int, InputSpec]] = []
        hashed: list[tuple[int, InputSpec]] = []
        by_kind = {"one_hot": hot, "hashed": hashed}
        for spec in inputs:
            if spec.source not in position:
                raise ValueError(f"input {spec.source!r} reads no known source")
            by_kind.get(spec.kind, numeric).append((len(names), spec))
            placed[spec.source] = Part((spec.source,), spec.kind, len(names), len(spec.columns))
            parts.append(placed[spec.source])
            names.extend(spec.columns)
        crossed: list[tuple[int, int, int]] = []
        for pair in crosses:
            if len(set(pair)) != 2 or not set(pair) <= set(placed):
                raise ValueError(f"cross of {' and '.join(map(repr, pair))}: expected two different inputs")
            a, b = (placed[name] for name in pair)
            parts.append(Part(pair, "cross", len(names), a.width * b.width))
            for i in range(a.first, a.first + a.width):
                for j in range(b.first, b.first + b.width):
                    crossed.append((len(names), i, j))
                    names.append(f"{names[i]}×{names[j]}")
        if waves < 0 or (waves and not placed):
            raise ValueError(f"{waves} waves of {len(placed)} inputs: expected none, or some of at least one input")
        if waves:
            parts.append(Part(tuple(placed), "waves", len(names), waves))
        inner = [(name, part.kind) for part in placed.values() for name in names[part.first : part.first + part.width]]
        names.extend(f"wave {number}" for number in range(1, waves + 1))
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"two inputs fill the same column {twice!r}")
        if len(names) > DIMENSION_MAX:
            raise ValueError(f"{len(names)} columns, bias included, are more than DIMENSION_MAX={DIMENSION_MAX}")
        self.names = tuple(names)
        self.parts = tuple(parts)
        self.dimension = len(names)
        self.waves = waves
        self.version = _version(inputs, crosses, waves)
        self._sources = len(sources)
        self._numeric = _table([(column, position[spec.source], spec.kind == "log") for column, spec in numeric])
        self._ranges = np.array([(spec.low, spec.high, _scale(spec)) for _, spec in numeric]).reshape(-1, 3)
        self._hot = _table([(column, position[spec.source], spec.categories) for column, spec in hot])
        # A sign is asked for by a negative number of columns.
        self._hashed = _table(
            [(column, position[spec.source], spec.categories * (-1 if spec.signed else 1)) for column, spec in hashed]
        )
        self._crossed = _table(crossed)
        self._frequencies = np.array([_frequencies(*column, len(inner), waves) for column in inner], np.int32)
        self._frequencies = self._frequencies.reshape(len(inner), waves)
        self._phases = np.array(_draws("phase", waves), np.int64).astype(np.int32)

    @classmethod
    def compile(
        cls,
        inputs: Sequence[InputSpec],
        sources: Sequence[str],
        *,
        crosses: Sequence[tuple[str, str]] = (),
        waves: int = 0,
    ) -> Transform:
        """Bind inputs to the positions of their values.

        Args:
            inputs: the model's inputs; their order is the order of the columns of x.
            sources: names of the values in the order `apply` receives them.
            crosses: pairs of inputs, by source, whose products are columns too.
            waves: how many cosines of all inputs are columns too.

        Raises:
            ValueError: for an input without source, a cross of what is no input, waves without inputs, two inputs that
                fill one column, or more than `DIMENSION_MAX` columns.

        >>> transform = Transform.compile([InputSpec("age", "linear", 20, 80)], ["age"], waves=2)
        >>> transform.names, transform.apply(np.array([[80.0]])).shape
        (('bias', 'age', 'wave 1', 'wave 2'), (1, 4))
        """
        return cls(inputs, sources, [(a, b) for a, b in crosses], waves)

    def apply(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.int8]:
        """The vectors x of shape (B, d), int8, of values of shape (B, sources).

        Raises:
            ValueError: when values have another number of columns than there are sources.
        """
        if values.ndim != 2 or values.shape[1] != self._sources:
            raise ValueError(f"values have shape {values.shape}, not (rows, {self._sources})")
        dense = np.ascontiguousarray(values, np.float64)
        x: npt.NDArray[np.int8] = _apply(
            dense,
            self._numeric,
            self._ranges,
            self._hot,
            self._hashed,
            self._crossed,
            self._frequencies,
            self._phases,
            _COSINES,
            self.dimension,
        )
        return x

    def angles(self) -> tuple[Floats, Floats]:
        """What the waves are cosines of: (inputs' columns, waves) radians a step, and (waves,) radians at 0.

        The inputs' columns are those that follow the bias. Within rounding, wave i of x is 127 · cos(angle i).
        """
        radian = 2.0 * math.pi / _PHASES
        return self._frequencies.astype(np.float64) * radian, self._phases.astype(np.float64) * radian

    def restore(self, x: npt.NDArray[np.int8], always: Sequence[bool] = ()) -> npt.NDArray[np.float64]:
        """Values of shape (B, sources) that x of shape (B, d) stands for: each the middle of its step, clipped values
        the end of their range. NaN for sources that are no input and where x is 0, which says missing or the middle of
        the range; `always`, of shape (sources,), says of which sources it is the middle because they are never missing.
        Of a hashed source nothing but its column is known: that is what stands there, from 0 on.

        >>> transform = Transform.compile(
        ...     [InputSpec("age", "linear", 20, 80), InputSpec("job", "one_hot", categories=3)], sources=["job", "age"])
        >>> transform.restore(transform.apply(np.array([[2.0, 90.0], [1.0, np.nan]]))).tolist()
        [[2.0, 80.0], [1.0, nan]]

        Raises:
            ValueError: when x has another number of columns than the transform.
        """
        if x.ndim != 2 or x.shape[1] != self.dimension:
            raise ValueError(f"x has shape {x.shape}, not (rows, {self.dimension})")
        values = np.full((len(x), self._sources), np.nan)
        for (column, source, log), (low, _, scale) in zip(self._numeric.tolist(), self._ranges.tolist(), strict=True):
            scaled = (x[:, column] + float(STEPS)) / scale
            values[:, source] = low + (np.expm1(scaled) if log else scaled)
            if not (always and always[source]):
                values[x[:, column] == 0, source] = np.nan
        for column, source, categories in self._hot.tolist():
            hot = x[:, column : column + categories] == STEPS
            values[:, source] = np.where(hot.any(axis=1), hot.argmax(axis=1), np.nan)
        for column, source, columns in self._hashed.tolist():
            hot = x[:, column : column + abs(columns)] != 0
            values[:, source] = np.where(hot.any(axis=1), hot.argmax(axis=1), np.nan)
        return values


@compiled(FLOATS_2D, INTS_2D, FLOATS_2D, INTS_2D, INTS_2D, INTS_2D, INTS32_2D, INTS32, BYTES, INT)
def _apply(
    values: Floats,
    numeric: Ints,
    ranges: Floats,
    hot: Ints,
    hashed: Ints,
    crossed: Ints,
    frequencies: npt.NDArray[np.int32],
    phases: npt.NDArray[np.int32],
    cosines: npt.NDArray[np.int8],
    dimension: int,
) -> npt.NDArray[np.int8]:
    """A lone row of 64 inputs takes 1 µs, where array operations took 17 µs."""
    x = np.zeros((len(values), dimension), np.int8)
    inputs, waves = frequencies.shape
    turned = np.empty(waves, np.int32)
    for i in range(len(hashed)):
        for row in range(len(values)):
            value = values[row, hashed[i, 1]]
            if 0 <= value < _HASHES and value == np.trunc(value):
                bits, columns, sign = np.int64(value), hashed[i, 2], 1
                if columns < 0:
                    columns = -columns
                    sign = -1 if bits >> (HASH_BITS - 1) else 1
                x[row, hashed[i, 0] + (bits & (columns - 1))] = np.int8(sign * STEPS)
    for row in range(len(values)):
        x[row, 0] = STEPS
        for i in range(len(numeric)):
            value = values[row, numeric[i, 1]]
            if np.isfinite(value):
                scaled = min(max(value, ranges[i, 0]), ranges[i, 1]) - ranges[i, 0]
                if numeric[i, 2]:
                    scaled = math.log1p(scaled)
                x[row, numeric[i, 0]] = np.int8(np.rint(scaled * ranges[i, 2] - STEPS))
        for i in range(len(hot)):
            value = values[row, hot[i, 1]]
            if 0 <= value < hot[i, 2] and value == np.trunc(value):
                x[row, hot[i, 0] + int(value)] = STEPS
        for i in range(len(crossed)):
            product = float(x[row, crossed[i, 1]]) * float(x[row, crossed[i, 2]])
            x[row, crossed[i, 0]] = np.int8(np.rint(product / STEPS))
        if waves:
            turned[:] = phases
            for i in range(inputs):  # the inputs follow the bias; a step of zero turns nothing
                step = np.int32(x[row, 1 + i])
                if step:
                    for wave in range(waves):
                        turned[wave] += step * frequencies[i, wave]
            for wave in range(waves):
                x[row, dimension - waves + wave] = cosines[(turned[wave] >> 4) & 4095]
    return x


def _table(rows: list[tuple[int, int, int]]) -> Ints:
    return np.array(rows, np.int64).reshape(-1, 3)


def _scale(spec: InputSpec) -> float:
    """Steps a unit of the value, or of its log."""
    width = spec.high - spec.low
    span = float(np.log1p(width) if spec.kind == "log" else width)
    return 2.0 * STEPS / span if span > 2.0 * STEPS / sys.float_info.max else math.inf


def _draws(name: str, count: int) -> list[int]:
    """So many numbers in 0 .. 65,535 that depend on a name only. Not NumPy's: its streams may change by release."""
    numbers: list[int] = []
    for block in range((count + 31) // 32):
        digest = hashlib.blake2b(f"{block} {name}".encode()).digest()
        numbers += [int.from_bytes(digest[at : at + 2], "little") for at in range(0, 64, 2)]
    return numbers[:count]


def _frequencies(name: str, kind: str, columns: int, waves: int) -> list[int]:
    """Phases that a step of a column turns each wave by: Gaussian, and less the more columns there are.

    So the projection of a customer has the same spread whatever the number of columns, about one radian.
    """
    spread = (1.0 if kind in ("one_hot", "hashed") else _NUMBER_FREQUENCY) / math.sqrt(columns)
    a_step = spread * _PHASES / (2.0 * math.pi * STEPS)
    gauss = NormalDist()
    return [round(a_step * gauss.inv_cdf((draw + 0.5) / 65536)) for draw in _draws(name, waves)]


def _version(inputs: Sequence[InputSpec], crosses: Sequence[tuple[str, str]], waves: int) -> int:
    """Stable 32-bit hash of what gives the columns their meaning; the order of the sources is no part of it."""
    digest = hashlib.blake2b(f"{_FORMAT} steps={STEPS}".encode(), digest_size=4)
    for spec in inputs:
        if spec.kind == "one_hot":
            meaning = f"one_hot {spec.categories}"
        elif spec.kind == "hashed":
            meaning = f"hashed {spec.categories}{' signed' if spec.signed else ''}"
        else:
            meaning = f"{spec.kind} {float(spec.low).hex()} {float(spec.high).hex()}"
        digest.update(f"\n{len(spec.source)} {spec.source} {meaning}".encode())
    for a, b in crosses:
        digest.update(f"\ncross {len(a)} {a} {b}".encode())
    if waves:
        digest.update(f"\nwaves {waves} of {_NUMBER_FREQUENCY}".encode())
    return int.from_bytes(digest.digest(), "little")
