"""The served snapshot: all offers' beliefs laid out so that a batch of customers is two matrix products.

With X the batch (B, d) of int8 vectors, an offer's score is Gaussian with

    mean = X W                          W (d, n): weights, the 1/127 of the vector folded in
    variance = xᵀ Σ x = φ(x) · S        φ(x) = all x_i x_j with i ≤ j, S (d(d+1)/2, n): upper triangles of Σ,
                                        off-diagonals doubled, 1/127² folded in

Measured for d = 65, n = 100 and 32 customers a batch: 5.8 µs a customer. The factor form |Lᵀx|² needs as many
multiplications but a reduction a customer and offer, and took twice that. φ(x), made of integers, is exact in float32.

Most customers do most of what can be counted not at all, and are in few of the categories. So the vector u of
somebody of whom nothing is known is worked out beforehand, and of x = u + δ only what differs is looked at:

    mean = u W + δ W
    variance = φ(u) · S + δ · G + φ(δ) · S      G (d, n): slopes of the variance at u

in a compiled loop over the pairs of δ that are not zero, row of S by row. It need not read the rest of S, which is what
a matrix product of one row spends its time on. Small batches always go this way, larger ones where δ is sparse.
Measured for d = 65, n = 100 with all, half, a third and a fifth of δ not zero: 16, 5.3, 2.8 and 1.2 µs a customer, and
2.6 µs a call, where the product takes 5.8 µs. Of customers with eight events in ninety days a third is not zero.

A policy is immutable. New beliefs make a new policy, and the server swaps the reference: a decision sees one version.

Rounding in float32 moves a variance by about 10⁻⁷ of the largest products that cancel in it. Beliefs that rest on
more than some ten million lessons a collinear direction are served slightly too wide or at `SD_FLOOR`; means are not
touched.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import types

from models.compiled import BYTES, BYTES_2D, FLOATS32_2D, compiled, read_only
from models.errors import CheckpointError
from models.posterior import OfferPosterior, PosteriorOptions
from models.statistics import Statistics
from models.transform import STEPS
from models.value import fit

SD_FLOOR = 1e-5
"""Least standard deviation of a score, in targets of 0 .. 1; far below any difference that matters."""

_VARIANCE_MIN = np.float32(SD_FLOOR**2)

CHUNK_CELLS = 8_192
"""Cells of φ(x) worked on at a time: 32 KiB stay in the fastest cache. Three times as many took a quarter longer."""

ROWS_BLOCK = 256
"""Customers scored at a time: of more, a piece that stays in cache would have too few products for a matrix product."""

DENSE_ROWS = 8
"""From so many customers a batch, a matrix product is faster if δ is dense."""

DENSE_SHARE = 0.6
"""Share of δ that is not zero from which it is dense: of φ(δ) that is a third."""

_MAGIC = b"OPOF"
_HEAD = struct.Struct("<4sIIIf")  # magic, CRC-32 of all after these eight bytes, transform version, dimension, lessons

Floats32 = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.int8]
Ints = npt.NDArray[np.intp]

_NOTHING: Final = np.zeros(0, np.int8)


@dataclass(frozen=True, eq=False)
class Policy:
    """Beliefs about an ordered tuple of offers, ready to score.

    Args:
        offers: the n offers; column j of every array is offers[j].
        version: number of the snapshot.
        transform_version: the transform whose vectors it scores.
        mean_weights: (d, n) float32; d may be less than the columns of x, whose last ones are then not looked at.
        cov_weights: (d(d+1)/2, n) float32.
        lessons: (n,) float32, lessons each belief rests on.
        usual: int8, u: the x from which customers differ little; any will do, and columns that it lacks are 0.

    >>> policy = Policy.empty(["card", "loan"], 3, PosteriorOptions(prior_strength=4.0, prior_rate=0.1))
    >>> mean, sd = policy.score(np.array([[127, 0, 0]], np.int8))
    >>> print(mean.round(3), sd.round(3))  # sd = √(0.1 · 0.9 / 8): half of the prior variance is in the bias
    [[0.1 0.1]] [[0.106 0.106]]
    """

    offers: tuple[str, ...]
    version: int
    transform_version: int
    mean_weights: Floats32
    cov_weights: Floats32
    lessons: Floats32
    usual: Bytes = field(default_factory=lambda: _NOTHING)

    def __post_init__(self) -> None:
        dimension, count = self.mean_weights.shape
        assert count == len(self.offers)
        assert self.cov_weights.shape == (_pairs(dimension), count)
        assert self.lessons.shape == (count,)
        assert self.mean_weights.flags.c_contiguous and self.cov_weights.flags.c_contiguous
        rows, columns = np.triu_indices(dimension)
        object.__setattr__(self, "_rows", rows)
        object.__setattr__(self, "_columns", columns)
        usual = np.zeros(dimension, np.int8)
        usual[: len(self.usual)] = self.usual[:dimension]
        object.__setattr__(self, "_at", (usual, *_scored_at(usual, self.mean_weights, self.cov_weights)))
        for array in (self.mean_weights, self.cov_weights, self.lessons):
            array.flags.writeable = False

    _rows = np.zeros(0, np.intp)
    _columns = np.zeros(0, np.intp)
    _at: tuple[Bytes, Floats32, Floats32, Floats32] = field(init=False, repr=False)
    """u, its mean, its variance and the slopes there."""

    @property
    def dimension(self) -> int:
        """d, the columns of x that count."""
        return int(self.mean_weights.shape[0])

    @classmethod
    def empty(
        cls,
        offers: Sequence[str],
        d: int,
        options: PosteriorOptions,
        transform_version: int = 0,
        version: int = 0,
        usual: Bytes = _NOTHING,
    ) -> Policy:
        """The policy before any lesson: every offer has the prior."""
        prior = fit(Statistics(d, transform_version), [""], 0, options)[""]
        mean, cov = (np.tile(column[:, None], len(offers)) for column in _columns(prior))
        return cls(tuple(offers), version, transform_version, mean, cov, np.zeros(len(offers), np.float32), usual)

    def score(self, x: npt.NDArray[np.int8]) -> tuple[Floats32, Floats32]:
        """Mean and standard deviation of every offer's score for every customer of a batch.

        Args:
            x: (B, d or more) int8, from the transform of `transform_version`.

        Returns:
            mean (B, n) and sd (B, n), float32, in targets of 0 .. 1; sd is at least `SD_FLOOR`.

        Raises:
            ValueError: for vectors of fewer columns.
        """
        if x.shape[1] < self.dimension:
            raise ValueError(f"x has shape {x.shape}, not (rows, {self.dimension})")
        x = x[:, : self.dimension]
        if len(x) > ROWS_BLOCK:
            blocks = [self.score(x[start : start + ROWS_BLOCK]) for start in range(0, len(x), ROWS_BLOCK)]
            means, sds = zip(*blocks, strict=True)
            return np.concatenate(means), np.concatenate(sds)
        if len(x) < DENSE_ROWS or np.count_nonzero(x != self._at[0]) < DENSE_SHARE * x.size:
            vectors = np.ascontiguousarray(x, np.int8)
            scores: tuple[Floats32, Floats32] = _score_pairs(vectors, *self._at, self.mean_weights, self.cov_weights)
            return scores
        across = np.ascontiguousarray(x.T, np.float32)  # (d, B): picking whole rows is faster than picking columns
        mean = across.T @ self.mean_weights
        variance = np.zeros_like(mean)
        step = CHUNK_CELLS // len(x)
        for start in range(0, len(self._rows), step):
            pairs = slice(start, start + step)
            products = across.take(self._rows[pairs], axis=0)
            products *= across.take(self._columns[pairs], axis=0)
            variance += products.T @ self.cov_weights[pairs]
        np.maximum(variance, _VARIANCE_MIN, out=variance)
        return mean, np.sqrt(variance, out=variance)

    def replaced(self, changes: Mapping[str, bytes], version: int) -> Policy:
        """A new policy with some offers' beliefs exchanged for packed ones; offers it does not serve are ignored.

        It has as many columns as its widest belief; to the others, more columns mean nothing.

        Raises:
            CheckpointError: for a belief that is damaged or of another transform; nothing changes.
        """
        found = {offer: _read(changes[offer], offer) for offer in self.offers if offer in changes}
        for offer, belief in found.items():
            if belief.transform_version != self.transform_version:
                raise CheckpointError(
                    f"belief about {offer!r} was learnt through transform {belief.transform_version:08x}, "
                    f"the policy serves transform {self.transform_version:08x}"
                )
        widths = {len(belief.mean) for belief in found.values()}
        if len(found) < len(self.offers):
            widths.add(self.dimension)
        dimension = max(widths)
        mean, cov = _widened(self.mean_weights, self.cov_weights, dimension)
        lessons = self.lessons.copy()
        for column, offer in enumerate(self.offers):
            belief_or_none = found.get(offer)
            if belief_or_none is not None:
                wide_mean, wide_cov = _widened(belief_or_none.mean[:, None], belief_or_none.cov[:, None], dimension)
                mean[:, column], cov[:, column] = wide_mean[:, 0], wide_cov[:, 0]
                lessons[column] = belief_or_none.lessons
        return replace(self, version=version, mean_weights=mean, cov_weights=cov, lessons=lessons)


@compiled(BYTES, FLOATS32_2D, FLOATS32_2D)
def _scored_at(u: Bytes, mean_weights: Floats32, cov_weights: Floats32) -> tuple[Floats32, Floats32, Floats32]:
    """Mean (n,) and variance (n,) of an x, and the slopes (d, n) of the variance there."""
    dimension, offers = mean_weights.shape
    mean, variance, slopes = np.zeros(offers), np.zeros(offers), np.zeros((dimension, offers))
    pair = 0
    for i in range(dimension):
        for j in range(i, dimension):
            if u[i] or u[j]:
                for offer in range(offers):
                    slopes[i, offer] += np.float64(u[j]) * cov_weights[pair, offer]
                    slopes[j, offer] += np.float64(u[i]) * cov_weights[pair, offer]
            pair += 1
        for offer in range(offers):
            mean[offer] += np.float64(u[i]) * mean_weights[i, offer]
    for i in range(dimension):
        for offer in range(offers):
            variance[offer] += np.float64(u[i]) * slopes[i, offer] / 2.0
    return mean.astype(np.float32), variance.astype(np.float32), slopes.astype(np.float32)


@compiled(BYTES_2D, BYTES, *[read_only(types.float32, 1)] * 2, *[FLOATS32_2D] * 3, reorders=True)
def _score_pairs(
    x: Bytes,
    usual: Bytes,
    mean_there: Floats32,
    variance_there: Floats32,
    slopes: Floats32,
    mean_weights: Floats32,
    cov_weights: Floats32,
) -> tuple[Floats32, Floats32]:
    """What `Policy.score` returns, from what of x is not as usual."""
    rows, dimension = x.shape
    offers = mean_weights.shape[1]
    mean, sd = np.empty((rows, offers), np.float32), np.empty((rows, offers), np.float32)
    some, values, part = np.empty(dimension, np.int64), np.empty(dimension, np.float32), np.empty(offers, np.float32)
    for row in range(rows):
        likely, variance = mean[row], sd[row]
        likely[:], variance[:] = mean_there, variance_there
        count = 0
        for i in range(dimension):
            if x[row, i] != usual[i]:
                some[count], values[count] = i, np.float32(x[row, i]) - np.float32(usual[i])
                count += 1
        for p in range(count):
            value, weights, slope = values[p], mean_weights[some[p]], slopes[some[p]]
            for offer in range(offers):
                likely[offer] += value * weights[offer]
                variance[offer] += value * slope[offer]
        for p in range(count):
            i = some[p]
            first = i * dimension - i * (i + 1) // 2  # where the pairs (i, j) start, less i
            part[:] = 0.0  # a sum of sums: one of 2,145 terms would lose a digit more
            q = p
            while q + 4 <= count:  # four at a time: the sums are loaded and stored a quarter as often
                a, b, c, d = values[q], values[q + 1], values[q + 2], values[q + 3]
                of_a, of_b = cov_weights[first + some[q]], cov_weights[first + some[q + 1]]
                of_c, of_d = cov_weights[first + some[q + 2]], cov_weights[first + some[q + 3]]
                for offer in range(offers):
                    part[offer] += (a * of_a[offer] + b * of_b[offer]) + (c * of_c[offer] + d * of_d[offer])
                q += 4
            while q < count:
                a, of_a = values[q], cov_weights[first + some[q]]
                for offer in range(offers):
                    part[offer] += a * of_a[offer]
                q += 1
            for offer in range(offers):
                variance[offer] += values[p] * part[offer]
        for offer in range(offers):
            variance[offer] = np.sqrt(max(variance[offer], _VARIANCE_MIN))
    return mean, sd


def pack_offer(posterior: OfferPosterior) -> bytes:
    """The belief about one offer as bytes: what the learner sends to the servers, 8.6 kB at d = 64.

    Layout, little endian: head (magic, CRC-32, transform version, d, lessons), then the offer's columns of
    `Policy.mean_weights` and `Policy.cov_weights` as float32.
    """
    mean, cov = _columns(posterior)
    fields = _HEAD.pack(_MAGIC, 0, posterior.transform_version, len(mean), posterior.lessons)[8:]
    checked = fields + mean.astype("<f4").tobytes() + cov.astype("<f4").tobytes()
    return struct.pack("<4sI", _MAGIC, zlib.crc32(checked)) + checked


def unpack_offer(packed: bytes) -> OfferPosterior:
    """Read what `pack_offer` wrote, to float32 precision.

    Raises:
        CheckpointError: for bytes that are foreign, cut short or damaged.
    """
    belief = _read(packed, "an offer")
    dimension = len(belief.mean)
    covariance = np.zeros((dimension, dimension))
    covariance[np.triu_indices(dimension)] = belief.cov.astype(np.float64) * STEPS**2
    covariance = (covariance + covariance.T) / 2.0
    mean = belief.mean.astype(np.float64) * STEPS
    return OfferPosterior(mean, covariance, belief.lessons, belief.transform_version)


def _columns(posterior: OfferPosterior) -> tuple[Floats32, Floats32]:
    """The columns of mean_weights (d,) and cov_weights (d(d+1)/2,)."""
    doubled = 2.0 * posterior.covariance
    np.fill_diagonal(doubled, posterior.covariance.diagonal())
    upper = doubled[np.triu_indices(len(doubled))]
    return (posterior.mean / STEPS).astype(np.float32), (upper / STEPS**2).astype(np.float32)


class _Packed(NamedTuple):
    """What `pack_offer` packs: columns of mean_weights (d,) and cov_weights (d(d+1)/2,) beside two numbers."""

    transform_version: int
    mean: Floats32
    cov: Floats32
    lessons: float


def _read(packed: bytes, offer: str) -> _Packed:
    if len(packed) < _HEAD.size:
        raise CheckpointError(f"belief about {offer!r} is cut short: {len(packed)} bytes do not hold its head")
    magic, crc, transform_version, dimension, lessons = _HEAD.unpack_from(packed)
    if magic != _MAGIC:
        raise CheckpointError(f"this is no belief about {offer!r}: it starts with {magic!r}, not {_MAGIC!r}")
    size = _HEAD.size + 4 * (dimension + _pairs(dimension))
    if len(packed) != size:
        raise CheckpointError(f"belief about {offer!r} has {len(packed)} bytes, {dimension} columns need {size}")
    if zlib.crc32(packed[8:]) != crc:
        raise CheckpointError(f"belief about {offer!r} is damaged: its CRC-32 does not fit the content")
    weights = np.frombuffer(packed, "<f4", offset=_HEAD.size).astype(np.float32)
    return _Packed(transform_version, weights[:dimension], weights[dimension:], lessons)


def _widened(mean: Floats32, cov: Floats32, dimension: int) -> tuple[Floats32, Floats32]:
    """Copies of mean_weights and cov_weights with so many columns of x: zeros for new ones, the last ones dropped."""
    before = len(mean)
    if before == dimension:
        return mean.copy(), cov.copy()
    kept = min(before, dimension)
    wide_mean = np.zeros((dimension, mean.shape[1]), np.float32)
    wide_cov = np.zeros((_pairs(dimension), mean.shape[1]), np.float32)
    wide_mean[:kept] = mean[:kept]
    rows, columns = np.triu_indices(kept)
    wide_cov[_place(rows, columns, dimension)] = cov[_place(rows, columns, before)]
    return wide_mean, wide_cov


def _place(rows: Ints, columns: Ints, dimension: int) -> Ints:
    """Where the pairs (i, j), i ≤ j, of so many columns stand."""
    return rows * dimension - rows * (rows + 1) // 2 + columns


def _pairs(dimension: int) -> int:
    return dimension * (dimension + 1) // 2
