"""From sums to belief: the Gaussian posterior of each offer's weights.

The model of an offer is linear: target = w·u + noise, with u = x / 127 and the target between 0 and 1. Given the sums
of its lessons the posterior of w is exact and closed (Lindley & Smith 1972; Agrawal & Goyal 2013 sample from it):

    Λ = P + A        mean = m + Λ⁻¹ (b - A m)        covariance = σ² Λ⁻¹

**The prior is learnt from all offers** (hierarchical, two levels: all offers → offer). Its mean m is the posterior
mean of one model fitted to everybody's lessons, whose own prior is "every offer takes at `prior_rate`, whoever the
customer". So a new offer starts with what people generally take to, and leaves that as its own lessons come.

**The prior weighs `prior_strength` lessons.** Its precision P is diagonal and scaled so that the prior variance of
w·u at a typical u is σ² / prior_strength, just what a rate counted on so many lessons has; half of it lies in the
bias (offers differ in their rates), half in all other columns together. So the strength means the same whatever the
number of columns; with P = I a cold offer of 60 columns would believe rates of -2 and +3 possible.

**The noise is estimated**: the mean squared residual, the offer's pulled towards everybody's with the weight of
`prior_strength` lessons, that towards the Bernoulli variance of `prior_rate`. An offer nobody ever took has no
residual of its own; what is pulled in then keeps its uncertainty at that of a counted rate, about σ₀·√strength /
lessons, and `noise_floor` keeps it from zero.

Every lesson also counts in the pooled mean (empirical Bayes): for an offer that makes up most lessons the prior
agrees with its data and adds nothing new, which errs towards a firmer belief by `prior_strength` lessons at most.

Non-goals: probabilities within 0 .. 1 (a linear model may leave that range; arbitration orders, it does not bet), and
correlation between offers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.statistics import TARGET_STEPS, Statistics
from models.transform import STEPS

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PosteriorOptions:
    """What is believed before the first lesson, and how fast lessons age.

    Args:
        prior_strength: how many lessons the prior weighs; more means slower, calmer learning.
        prior_rate: mean target believed of an offer nothing is known about, between 0 and 1.
        half_life_periods: age in periods at which a lesson counts half; None to never forget.
        noise_floor: least variance of a target around its mean.

    Raises:
        ValueError: for values out of range.
    """

    prior_strength: float = 1.0
    prior_rate: float = 0.05
    half_life_periods: float | None = None
    noise_floor: float = 1e-4

    def __post_init__(self) -> None:
        if not 0.0 < self.prior_strength < math.inf:
            raise ValueError(f"prior_strength {self.prior_strength} must be positive and finite")
        if not 0.0 <= self.prior_rate <= 1.0:
            raise ValueError(f"prior_rate {self.prior_rate} must be between 0 and 1")
        if self.half_life_periods is not None and not 0.0 < self.half_life_periods < math.inf:
            raise ValueError(f"half_life_periods {self.half_life_periods} must be positive and finite, or None")
        if not 0.0 < self.noise_floor < math.inf:
            raise ValueError(f"noise_floor {self.noise_floor} must be positive and finite")


@dataclass(frozen=True, eq=False)
class OfferPosterior:
    """The belief about one offer's weights, for u = x / 127 and targets in 0 .. 1.

    Args:
        mean: (d,) float64, expected weights.
        covariance: (d, d) float64, symmetric and positive.
        lessons: how many lessons it rests on, aged ones counting less; the prior is not among them.
        transform_version: the transform that gives the columns their meaning.
    """

    mean: Floats
    covariance: Floats
    lessons: float
    transform_version: int = 0


def fit(
    stats: Statistics, offers: Sequence[str], now_period: int, options: PosteriorOptions
) -> dict[str, OfferPosterior]:
    """The posteriors of some offers, with the prior pooled from all lessons.

    Fails on nothing it is given: constant or collinear columns, no lessons, one-sided targets, or sums that for the
    moment hold more lessons taken back than added (they count as none) all have a proper posterior.

    Args:
        stats: all that was learnt, also of offers not asked for: they inform the prior.
        offers: the offers to fit; one without lessons gets the prior.
        now_period: the period from which ages are counted.
        options: the prior and the forgetting.

    >>> stats = Statistics(dimension=1, transform_version=0)
    >>> x = np.full((8, 1), 127, np.int8)
    >>> _ = stats.learn(["card"] * 8, [0] * 8, x, [100] * 4 + [0] * 4, [1] * 8)
    >>> found = fit(stats, ["card", "new"], 0, PosteriorOptions(prior_strength=2.0, prior_rate=0.0))
    >>> [round(float(found[offer].mean[0]), 3) for offer in found]  # pooled 4/10; card (4 + 2 · 0.4) / (8 + 2)
    [0.48, 0.4]
    """
    pooled = _Sums.zeros(stats.dimension)
    known: dict[str, _Sums] = {}
    wanted = set(offers)
    for offer in stats.offers:
        sums = _Sums.scaled(*stats.combined(offer, now_period, options.half_life_periods))
        pooled.add(sums)
        if offer in wanted:
            known[offer] = sums
    precision = _prior_precision(pooled, options)
    rate = np.zeros(stats.dimension)
    rate[0] = options.prior_rate
    doubt = options.prior_rate * (1.0 - options.prior_rate)
    prior_mean, _, noise = _posterior(pooled, rate, precision, doubt, options)
    cold = OfferPosterior(prior_mean, np.diag(noise / precision), 0.0, stats.transform_version)
    found = {}
    for offer in offers:
        sums_or_none = known.get(offer)
        if sums_or_none is None or sums_or_none.n <= 0.0:
            found[offer] = cold
            continue
        mean, covariance, _ = _posterior(sums_or_none, prior_mean, precision, noise, options)
        found[offer] = OfferPosterior(mean, covariance, sums_or_none.n, stats.transform_version)
    return found


@dataclass
class _Sums:
    """Sums in the units of u and targets 0 .. 1."""

    A: Floats
    b: Floats
    n: float
    s: float

    @classmethod
    def zeros(cls, dimension: int) -> _Sums:
        return cls(np.zeros((dimension, dimension)), np.zeros(dimension), 0.0, 0.0)

    @classmethod
    def scaled(cls, A: Floats, b: Floats, n: float, s: float) -> _Sums:
        return cls(A / STEPS**2, b / (STEPS * TARGET_STEPS), n, s / TARGET_STEPS**2)

    def add(self, other: _Sums) -> None:
        self.A += other.A
        self.b += other.b
        self.n += other.n
        self.s += other.s


def _prior_precision(pooled: _Sums, options: PosteriorOptions) -> Floats:
    """The diagonal of P: half the prior variance in the bias, half in the others at their typical total square.

    That square is E|u|² without bias, measured on all lessons; before there are any, that of inputs spread evenly over
    their ranges, 1/3 each, which then counts as `prior_strength` lessons.
    """
    others = len(pooled.b) - 1
    if others == 0:
        return np.full(1, options.prior_strength)
    lessons = max(pooled.n, 0.0)
    measured = max(float(np.trace(pooled.A)) - float(pooled.A[0, 0]), 0.0) if lessons else 0.0
    square = (measured + options.prior_strength * others / 3.0) / (lessons + options.prior_strength)
    precision = np.full(1 + others, 2.0 * options.prior_strength * max(square, 1.0))
    precision[0] = 2.0 * options.prior_strength
    return precision


def _posterior(
    sums: _Sums, prior_mean: Floats, precision: Floats, prior_noise: float, options: PosteriorOptions
) -> tuple[Floats, Floats, float]:
    """Mean (d,), covariance (d, d) and noise variance of one model."""
    n = max(sums.n, 0.0)
    A, b = (sums.A, sums.b) if n > 0.0 else (np.zeros_like(sums.A), np.zeros_like(sums.b))
    inverse = _inverse(A + np.diag(precision), precision)
    mean = prior_mean + inverse @ (b - A @ prior_mean)
    residual = max(float(sums.s - 2.0 * mean @ b + mean @ A @ mean), 0.0) if n > 0.0 else 0.0
    noise = (residual + options.prior_strength * prior_noise) / (n + options.prior_strength)
    noise = max(noise, options.noise_floor)
    return mean, noise * inverse, noise


def _inverse(matrix: Floats, precision: Floats) -> Floats:
    """Inverse of a symmetric matrix that is at least diag(precision), by Cholesky; exactly symmetric.

    Only sums with lessons taken back that were added elsewhere can make it less; those directions get the prior.
    """
    try:
        half = np.linalg.inv(np.linalg.cholesky(matrix))
    except np.linalg.LinAlgError:
        root = np.sqrt(precision)
        values, vectors = np.linalg.eigh(matrix / np.outer(root, root))
        half = (vectors / np.sqrt(np.maximum(values, 1.0))).T / root
    inverse: Floats = half.T @ half
    return inverse
