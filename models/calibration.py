"""From estimates to probabilities that can be read: of all customers shown 30 %, 30 of 100 should accept.

The model is linear, so where acceptance is near 0 or 1 its means are off, and some lie beyond. What an estimate was
worth is counted: by bins of the mean that a decision was made with,

    n = Σ 1      m = Σ mean      s = Σ target

in whole numbers, a period each. As with `models.statistics` order, batches and corrections change no bit, and what is
taken back leaves nothing.

**The curve** has a knot at each edge of a bin, at (e / BINS)², so that rates of a percent have bins of their own.
There it lies beside the diagonal by what the two bins at that edge missed by, as if PRIOR_LESSONS more had come out as
expected: few lessons move it little, none not at all. Knots are then pooled until none is below the one before
(isotonic regression, Ayer et al. 1955): a larger estimate never reads as a smaller probability. Between them it
is straight, so without lessons it is the diagonal exactly.

Non-goals: ranking. Arbitration orders by the model's means, which tell customers apart; the curve is one for all offers
and says what they come to. An offer that is off in its own way, within the same range of means, stays off.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from models.errors import CheckpointError
from models.statistics import TARGET_STEPS, weight

BINS: Final = 32
MEAN_STEPS: Final = 1 << 16
"""Steps of a mean between 0 and 1."""
PRIOR_LESSONS: Final = 50.0
"""Lessons at each knot that count as come out as expected."""

EDGES: Final[npt.NDArray[np.float64]] = (np.arange(BINS + 1) / BINS) ** 2
"""(BINS + 1,) the means at which the curve has its knots."""
EDGES.flags.writeable = False

_MAGIC: Final = b"OPCA"
_HEAD: Final = struct.Struct("<4sBI")  # magic, format, periods
_FORMAT: Final = 1
_ROW: Final = struct.Struct(f"<q{3 * BINS}q")
_SEAL_BYTES: Final = 16

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Calibration:
    """What estimates were worth, exactly.

    >>> seen = Calibration()
    >>> seen.learn([0] * 400, [0.5] * 400, [100] * 100 + [0] * 300, [1] * 400)
    >>> read(seen.curve(0, None), [0.3, 0.5, 0.7]).round(2).tolist()  # 400 say 0.25 of 0.5, and 50 say 0.5
    [0.25, 0.28, 0.7]
    """

    def __init__(self) -> None:
        self._periods: dict[int, Ints] = {}

    def __bool__(self) -> bool:
        return bool(self._periods)

    def learn(
        self, periods: Sequence[int], means: Sequence[float], targets: Sequence[int], signs: Sequence[int]
    ) -> None:
        """Add lessons, or take them back.

        Args:
            periods: of each lesson.
            means: estimated when its decision was made; beyond 0 .. 1 they count as that.
            targets: what came of it, 0 .. TARGET_STEPS.
            signs: 1 to add, -1 to take back.
        """
        steps = np.rint(np.clip(np.asarray(means, np.float64), 0.0, 1.0) * MEAN_STEPS).astype(np.int64)
        bins = np.minimum((np.sqrt(steps / MEAN_STEPS) * BINS).astype(np.int64), BINS - 1)
        for period, at, step, target, sign in zip(periods, bins.tolist(), steps.tolist(), targets, signs, strict=True):
            self._of(period)[:, at] += (sign, sign * step, sign * target)
        self._tidy(set(periods))

    def merge(self, other: Calibration) -> None:
        """Add everything that another has seen."""
        self._combine(other, 1)

    def subtract(self, other: Calibration) -> None:
        """Take back everything that another has seen, the exact inverse of `merge`."""
        self._combine(other, -1)

    def prune(self, now_period: int, half_life_periods: float | None) -> None:
        """Drop the periods that weigh nothing any more."""
        for period in list(self._periods):
            if weight(now_period - period, half_life_periods) == 0.0:
                del self._periods[period]

    def curve(self, now_period: int, half_life_periods: float | None) -> Floats:
        """(BINS + 1,) the probability at each of `EDGES`, not falling; lessons age as those of `Statistics`."""
        sums = np.zeros((3, BINS))
        for period in sorted(self._periods):
            sums += weight(now_period - period, half_life_periods) * self._periods[period]
        at_edges = np.zeros((3, BINS + 1))
        at_edges[:, :-1] += sums
        at_edges[:, 1:] += sums
        # More taken back than added, for the moment, counts as nothing.
        lessons = np.maximum(at_edges[0], 0.0)
        missed = np.where(lessons > 0.0, at_edges[2] / TARGET_STEPS - at_edges[1] / MEAN_STEPS, 0.0)
        raw = EDGES + missed / (lessons + PRIOR_LESSONS)
        # Knots without lessons follow those that have some, and do not hold them.
        return np.clip(_pooled(raw, lessons + 1.0), 0.0, 1.0)

    def to_bytes(self) -> bytes:
        """The one byte string of these sums, however they came about."""
        parts = [_HEAD.pack(_MAGIC, _FORMAT, len(self._periods))]
        parts += [_ROW.pack(period, *self._periods[period].ravel().tolist()) for period in sorted(self._periods)]
        body = b"".join(parts)
        return body + _seal(body)

    @classmethod
    def from_bytes(cls, data: bytes) -> Calibration:
        """Read what `to_bytes` wrote. Raises CheckpointError for bytes that are foreign, cut short or damaged."""
        body = data[:-_SEAL_BYTES]
        if len(body) < _HEAD.size or data[:4] != _MAGIC or data[-_SEAL_BYTES:] != _seal(body):
            raise CheckpointError(f"these {len(data)} bytes are no calibration, or a damaged one")
        _, form, periods = _HEAD.unpack_from(body)
        if form != _FORMAT or len(body) != _HEAD.size + periods * _ROW.size:
            raise CheckpointError(f"a calibration of format {form} and {len(data)} bytes cannot be read")
        self = cls()
        for at in range(_HEAD.size, len(body), _ROW.size):
            period, *sums = _ROW.unpack_from(body, at)
            self._periods[period] = np.array(sums, np.int64).reshape(3, BINS)
        return self

    def _combine(self, other: Calibration, sign: int) -> None:
        for period, sums in list(other._periods.items()):
            self._of(period)[:] += sign * sums
        self._tidy(set(other._periods))

    def _of(self, period: int) -> Ints:
        found = self._periods.get(period)
        if found is None:
            found = self._periods[period] = np.zeros((3, BINS), np.int64)
        return found

    def _tidy(self, touched: set[int]) -> None:
        for period in touched:
            if period in self._periods and not self._periods[period].any():
                del self._periods[period]


def read(curve: npt.NDArray[np.float64], means: npt.ArrayLike) -> Floats:
    """The probabilities that a curve has for means; without a curve (it is empty), the means within 0 .. 1.

    >>> read(EDGES, [-0.1, 0.3, 1.2]).round(12).tolist(), read(np.zeros(0), [-0.1, 0.3]).tolist()
    ([0.0, 0.3, 1.0], [0.0, 0.3])
    """
    held = np.clip(np.asarray(means, np.float64), 0.0, 1.0)
    return np.interp(held, EDGES, curve) if len(curve) else held


def _pooled(values: Floats, weights: Floats) -> Floats:
    """The values closest to these, by weighted squares, of which none is below the one before."""
    means: list[float] = []
    sizes: list[float] = []
    counts: list[int] = []
    for value, size in zip(values.tolist(), weights.tolist(), strict=True):
        count = 1
        while means and means[-1] >= value:
            before = sizes.pop()
            value = (means.pop() * before + value * size) / (before + size)
            size += before
            count += counts.pop()
        means.append(value)
        sizes.append(size)
        counts.append(count)
    return np.repeat(means, counts)


def _seal(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_SEAL_BYTES).digest()
