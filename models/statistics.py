"""What the model remembers of all lessons: exact sums, kept per offer and period.

A linear-Gaussian model needs nothing of a lesson (x, target) but its share in four sums,

    A = Σ x xᵀ      b = Σ target · x      n = Σ 1      s = Σ target²

over the lessons of an offer. Of offers that bring more from one customer than from another there are two more, over the
lessons in which the customer responded at all (`models.value`): r = Σ x and q = Σ target. All entries are integers
(`models.transform` quantises x, targets are 0 .. 100), and float64 adds integers without rounding up to 2⁵³. So sums
are not nearly but exactly associative and commutative, and that is what the rest of the system stands on:

- batches, partitions and replay in any order give the same bytes;
- a late positive reverses its provisional negative: subtract (x, 0), add (x, 100), and nothing remembers;
- a customer is erased by subtracting their lessons; an offer whose sums return to zero was never there.

Forgetting would break this if it multiplied the sums. Lessons are therefore kept by period (a day, say) and weighted
only when they are combined.

Capacity: an entry of A grows by at most 127² a lesson, so 2⁵³ / 127² = 5.6 · 10¹¹ lessons fit a period of an offer.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from models.errors import CheckpointError
from models.transform import STEPS

TARGET_STEPS = 100
"""The integer that stands for a target of 1.0."""

LESSONS_MAX = 2**53 // STEPS**2
"""Lessons a block holds exactly; `TARGET_STEPS` is below `STEPS`, so A is the first to reach 2⁵³."""

HALF_LIVES_MAX = 20
"""A period older than this many half-lives weighs under 2⁻²⁰ and counts for nothing."""

assert TARGET_STEPS <= STEPS

_MAGIC = b"OPST"
_FORMAT = 2
_FORMAT_WITHOUT_RESPONSES = 1
_HEAD = struct.Struct("<4sHIIIQ")  # magic, format, transform version, dimension, blocks, bytes in all
_BLOCK = struct.Struct("<HqqqB")  # bytes of the offer's name, period, n, s, bytes an entry (and _RESPONSES)
_RESPONSES = 16
"""Beside the bytes an entry: there was a response, and r and q stand between b and A."""
_SEAL_BYTES = 16

Floats = npt.NDArray[np.float64]
Periods = Sequence[int] | npt.NDArray[np.integer]


@dataclass(slots=True)
class _Block:
    """The sums of one offer in one period."""

    A: Floats
    b: Floats
    r: Floats
    n: int = 0
    s: int = 0
    q: int = 0

    @classmethod
    def of_nothing(cls, dimension: int) -> _Block:
        return cls(np.zeros((dimension, dimension)), np.zeros(dimension), np.zeros(dimension))

    def empty(self) -> bool:
        """Whether nothing is left; n is looked at first because it nearly always decides."""
        return self.without_lessons() and self.q == 0 and not self.r.any()

    def without_lessons(self) -> bool:
        """Whether nothing is left but, perhaps, of responses."""
        return self.n == 0 and self.s == 0 and not self.b.any() and not self.A.any()

    def add(self, other: _Block, sign: int = 1) -> None:
        """Everything of the other, or its opposite."""
        self.A += sign * other.A
        self.b += sign * other.b
        self.r += sign * other.r
        self.n += sign * other.n
        self.s += sign * other.s
        self.q += sign * other.q


class Combined(NamedTuple):
    """The sums of one offer over all periods, in integer units: see the module. A (d, d), b and r (d,)."""

    A: Floats
    b: Floats
    n: float
    s: float
    r: Floats
    q: float


class Sums(Protocol):
    """What beliefs are made from: the sums as they are kept, or a view of them."""

    @property
    def dimension(self) -> int:
        """d, the columns of x."""
        ...

    @property
    def transform_version(self) -> int:
        """Version of the transform that made every x in here."""
        ...

    @property
    def offers(self) -> tuple[str, ...]:
        """The offers with lessons, sorted."""
        ...

    def combined(
        self,
        offer: str,
        now_period: int,
        half_life_periods: float | None,
        factor: Callable[[int], float] | None = None,
    ) -> Combined:
        """The offer's sums, see `Statistics.combined`."""
        ...


class SumsView:
    """Sums seen otherwise than they are kept: a subclass says how in `combined`. To read from, not to learn or save."""

    def __init__(self, sums: Sums) -> None:
        self._sums = sums
        self.dimension = sums.dimension
        self.transform_version = sums.transform_version

    @property
    def offers(self) -> tuple[str, ...]:
        """The offers with lessons, sorted."""
        return self._sums.offers


class Statistics:
    """The exact sums of all offers, by period; the only mutable thing in this package.

    Args:
        dimension: d, the columns of x.
        transform_version: version of the transform that made every x in here.

    >>> stats = Statistics(dimension=2, transform_version=7)
    >>> x = np.array([[127, 64], [127, -64]], np.int8)
    >>> sorted(stats.learn(["card", "loan"], [0, 0], x, [100, 0], [1, 1]))
    ['card', 'loan']
    >>> A, b, n, s, *_ = stats.combined("card", now_period=0, half_life_periods=None)
    >>> A.tolist(), b.tolist(), n, s
    ([[16129.0, 8128.0], [8128.0, 4096.0]], [12700.0, 6400.0], 1.0, 10000.0)
    >>> stats.learn(["loan"], [0], x[1:], [0], [-1])  # taken back: as if it had never been
    {'loan'}
    >>> stats.offers
    ('card',)
    """

    def __init__(self, dimension: int, transform_version: int) -> None:
        self.dimension = dimension
        self.transform_version = transform_version
        self._blocks: dict[str, dict[int, _Block]] = {}

    @property
    def offers(self) -> tuple[str, ...]:
        """The offers with lessons, sorted."""
        return tuple(sorted(self._blocks))

    def __len__(self) -> int:
        """How many blocks (offer, period) are kept."""
        return sum(len(periods) for periods in self._blocks.values())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Statistics) and self.to_bytes() == other.to_bytes()

    __hash__ = None  # type: ignore[assignment]  # mutable

    def learn(
        self,
        offers: Sequence[str],
        periods: Periods,
        x: npt.NDArray[np.int8],
        targets: Sequence[int] | npt.NDArray[np.integer],
        signs: Sequence[int] | npt.NDArray[np.integer],
        responses: Sequence[bool] | npt.NDArray[np.bool_] | None = None,
    ) -> set[str]:
        """Add or take back N lessons; the lessons of an offer and period are one matrix product.

        Args:
            offers: the offer of each lesson, N names.
            periods: the period each lesson belongs to, N integers; a lesson is taken back in its own period.
            x: the vectors decided with, int8 of shape (N, d).
            targets: N integers in 0 .. `TARGET_STEPS`, the unit being a hundredth.
            signs: N integers, +1 to add the lesson and -1 to take it back. Taking back may come first.
            responses: N, whether the customer responded; None: that is not counted of these lessons.

        Returns:
            The offers whose sums were touched.

        Raises:
            ValueError: for shapes that do not fit, targets out of range or other signs. Nothing is learnt then.
        """
        period = np.asarray(periods)
        if period.size and not np.issubdtype(period.dtype, np.integer):
            raise ValueError(f"periods are {period.dtype}, expected integers")
        period = period.astype(np.int64)
        target = np.asarray(targets, np.float64)
        sign = np.asarray(signs, np.float64)
        count = len(offers)
        if x.dtype != np.int8 or x.shape != (count, self.dimension):
            raise ValueError(f"x is {x.dtype} of shape {x.shape}, not int8 of shape {(count, self.dimension)}")
        if not period.shape == target.shape == sign.shape == (count,):
            raise ValueError(f"{count} offers need as many periods, targets and signs")
        responded = None if responses is None else np.asarray(responses, np.float64)
        if responded is not None and responded.shape != (count,):
            raise ValueError(f"{count} offers need as many responses")
        if not ((target >= 0) & (target <= TARGET_STEPS) & (target == np.trunc(target))).all():
            raise ValueError(f"targets must be integers in 0 .. {TARGET_STEPS}")
        if not (np.abs(sign) == 1.0).all():
            raise ValueError("signs must be +1 or -1")
        groups: dict[tuple[str, int], list[int]] = {}
        for index, key in enumerate(zip(offers, period.tolist(), strict=True)):
            groups.setdefault(key, []).append(index)
        rows = x.astype(np.float64)
        signed = rows * sign[:, None]
        squares = sign * target * target
        for (offer, when), members in groups.items():
            weighted = signed[members]
            block = _Block(
                weighted.T @ rows[members],
                target[members] @ weighted,
                np.zeros(self.dimension) if responded is None else responded[members] @ weighted,
                int(sign[members].sum()),
                int(squares[members].sum()),
                0 if responded is None else int((sign * target * responded)[members].sum()),
            )
            self._add(offer, when, block)
        return {offer for offer, _ in groups}

    def merge(self, other: Statistics) -> set[str]:
        """Add everything another partition learnt; returns the offers touched.

        Raises:
            CheckpointError: when the other was learnt through another transform.
        """
        return self._combine(other, 1)

    def subtract(self, other: Statistics) -> set[str]:
        """Take back everything the other learnt, the exact inverse of `merge`; returns the offers touched.

        Raises:
            CheckpointError: when the other was learnt through another transform.
        """
        return self._combine(other, -1)

    def subset(self, offers: Iterable[str]) -> Statistics:
        """A copy of the sums of some offers: with `merge` and `to_bytes`, a checkpoint an offer at a time."""
        part = Statistics(self.dimension, self.transform_version)
        for offer in set(offers):
            for period, block in self._blocks.get(offer, {}).items():
                part._add(offer, period, block)
        return part

    def combined(
        self,
        offer: str,
        now_period: int,
        half_life_periods: float | None,
        factor: Callable[[int], float] | None = None,
    ) -> Combined:
        """The offer's sums over all periods, older ones weighing less.

        The weight of period p is 0.5 ** ((now - p) / half_life); 1 without half-life and for periods to come; 0 beyond
        `HALF_LIVES_MAX` half-lives, so that `prune` changes no result. Periods are added oldest first: the bits of the
        result do not depend on the order of learning either.

        Args:
            offer: its name.
            now_period: the period from which ages are counted.
            half_life_periods: age at which a period counts half; None: all count the same.
            factor: of a period, what its weight is multiplied by; None: 1.

        Returns:
            The sums; zeros for an unknown offer.
        """
        A, b, r = np.zeros((self.dimension, self.dimension)), np.zeros(self.dimension), np.zeros(self.dimension)
        n = s = q = 0.0
        blocks = self._blocks.get(offer, {})
        for period in sorted(blocks):
            block, w = blocks[period], weight(now_period - period, half_life_periods)
            if factor is not None:
                w *= factor(period)
            if w == 1.0:
                A += block.A
                b += block.b
                r += block.r
            elif w > 0.0:
                A += w * block.A
                b += w * block.b
                r += w * block.r
            n += w * block.n
            s += w * block.s
            q += w * block.q
        return Combined(A, b, n, s, r, q)

    def prune(self, now_period: int, half_life_periods: float | None) -> set[str]:
        """Drop the periods that weigh nothing any more; returns the offers that lost one.

        A lesson taken back after its period was dropped opens that period again; it weighs nothing and goes next time.
        """
        touched = set()
        for offer, blocks in list(self._blocks.items()):
            old = [period for period in blocks if weight(now_period - period, half_life_periods) == 0.0]
            for period in old:
                del blocks[period]
                touched.add(offer)
            if not blocks:
                del self._blocks[offer]
        return touched

    def drop_without_lessons(self) -> None:
        """Drop what has no lesson left. Responses may be left of one that was taught and taken back by other rules.

        Not for sums of which lessons were taken back before they were added.
        """
        for offer, blocks in list(self._blocks.items()):
            for period in [period for period, block in blocks.items() if block.without_lessons()]:
                del blocks[period]
            if not blocks:
                del self._blocks[offer]

    def to_bytes(self) -> bytes:
        """The one byte string of these sums: equal sums, however they came about, give equal bytes.

        Layout, little endian: head; blocks sorted by offer and period, each with b, r and q if there is any, and the
        upper triangle of A as integers of 4 bytes, or 8 where a sum needs them; a BLAKE2b seal over all before it.
        """
        upper = np.triu_indices(self.dimension)
        parts = [b""]
        for offer, period, block in self._sorted():
            name = offer.encode()
            responded = block.q != 0 or bool(block.r.any())
            vectors = [block.b, block.r, [block.q]] if responded else [block.b]
            sums = np.concatenate([*vectors, block.A[upper]]).astype("<i8")
            narrow = bool((np.abs(sums) < 2**31).all())
            form = (4 if narrow else 8) | (_RESPONSES if responded else 0)
            parts.append(_BLOCK.pack(len(name), period, block.n, block.s, form))
            parts.append(name)
            parts.append((sums.astype("<i4") if narrow else sums).tobytes())
        total = _HEAD.size + sum(map(len, parts)) + _SEAL_BYTES
        parts[0] = _HEAD.pack(_MAGIC, _FORMAT, self.transform_version, self.dimension, len(self), total)
        body = b"".join(parts)
        return body + _seal(body)

    @classmethod
    def from_bytes(cls, data: bytes, transform_version: int | None = None) -> Statistics:
        """Read what `to_bytes` wrote.

        Args:
            data: the bytes.
            transform_version: the version in use; when given, statistics of another one are refused.

        Raises:
            CheckpointError: for bytes that are foreign, cut short, damaged, or of another transform.
        """
        if len(data) < _HEAD.size:
            raise CheckpointError(f"statistics are cut short: {len(data)} bytes do not hold the head of {_HEAD.size}")
        magic, form, version, dimension, blocks, total = _HEAD.unpack_from(data)
        if magic != _MAGIC:
            raise CheckpointError(f"these are no statistics: they start with {magic!r}, not {_MAGIC!r}")
        if form not in (_FORMAT, _FORMAT_WITHOUT_RESPONSES):
            raise CheckpointError(f"statistics have format {form}; this release reads format {_FORMAT}")
        if len(data) != total:
            what = "cut short" if len(data) < total else "too long"
            raise CheckpointError(f"statistics are {what}: {len(data)} of {total} bytes")
        body = data[:-_SEAL_BYTES]
        if data[-_SEAL_BYTES:] != _seal(body):
            raise CheckpointError("statistics are damaged: the seal does not fit the content")
        if transform_version is not None and version != transform_version:
            raise CheckpointError(
                f"statistics were learnt through transform {version:08x}, in use is transform {transform_version:08x}"
            )
        stats = cls(dimension, version)
        upper = np.triu_indices(dimension)
        at = _HEAD.size
        for _ in range(blocks):
            name_bytes, period, n, s, width = _BLOCK.unpack_from(body, at)
            at += _BLOCK.size
            offer = body[at : at + name_bytes].decode()
            at += name_bytes
            responded, width = bool(width & _RESPONSES), width & ~_RESPONSES
            entries = dimension + len(upper[0]) + (dimension + 1 if responded else 0)
            sums = np.frombuffer(body, f"<i{width}", entries, at).astype(np.float64)
            at += entries * width
            block = _Block.of_nothing(dimension)
            block.n, block.s, block.b = n, s, sums[:dimension].copy()
            if responded:
                block.r, block.q = sums[dimension : 2 * dimension].copy(), int(sums[2 * dimension])
            block.A[upper] = block.A.T[upper] = sums[-len(upper[0]) :]
            stats._blocks.setdefault(offer, {})[period] = block
        assert at == len(body)
        return stats

    def _sorted(self) -> Iterator[tuple[str, int, _Block]]:
        for offer in sorted(self._blocks):
            for period in sorted(self._blocks[offer]):
                yield offer, period, self._blocks[offer][period]

    def _combine(self, other: Statistics, sign: int) -> set[str]:
        if (self.dimension, self.transform_version) != (other.dimension, other.transform_version):
            raise CheckpointError(
                f"statistics of transform {other.transform_version:08x} ({other.dimension} columns) do not mix with "
                f"those of transform {self.transform_version:08x} ({self.dimension} columns)"
            )
        blocks = list(other._sorted())  # a copy: the other may be this very object
        for offer, period, block in blocks:
            self._add(offer, period, block, sign)
        return {offer for offer, _, _ in blocks}

    def _add(self, offer: str, period: int, more: _Block, sign: int = 1) -> None:
        """Add sums to a block. It starts from +0.0, so no -0.0 ever stays, and it goes when nothing is left."""
        periods = self._blocks.setdefault(offer, {})
        block = periods.get(period)
        if block is None:
            block = periods[period] = _Block.of_nothing(self.dimension)
        block.add(more, sign)
        assert abs(block.n) <= LESSONS_MAX, "more lessons than float64 sums hold exactly: use shorter periods"
        if block.empty():
            del periods[period]
            if not periods:
                del self._blocks[offer]


def weight(age_periods: int, half_life_periods: float | None) -> float:
    """What a lesson of this age counts: 0.5 ** (age / half-life), see `Statistics.combined`.

    >>> weight(3, None), weight(3, 3.0), weight(-1, 3.0), weight(61, 3.0)
    (1.0, 0.5, 1.0, 0.0)
    """
    if half_life_periods is None or age_periods <= 0:
        return 1.0
    half_lives = age_periods / half_life_periods
    return 0.0 if half_lives > HALF_LIVES_MAX else float(0.5**half_lives)


def _seal(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_SEAL_BYTES).digest()
