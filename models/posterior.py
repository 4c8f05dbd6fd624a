"""From sums to belief: the Gaussian posterior of each offer's weights.

The model of an offer is linear: target = w·u + noise, with u = x / 127 and the target between 0 and 1. What offers have
in common is learnt, too: their weights scatter around those of their category, and these around those of all,

    m ~ N(m₀, σ² P₀⁻¹)      m_c ~ N(m, σ² Q⁻¹)      w ~ N(m_c, σ² P⁻¹)

All of it is Gaussian, so everything has a closed form (Lindley & Smith 1972). With A, b the sums of an offer, it tells
its category about m_c with the information P - P(A + P)⁻¹P and P(A + P)⁻¹b; a category tells all about m likewise; and
what is then known of m and m_c comes back down as a prior that has an uncertainty of its own:

    mean = (A + P)⁻¹ (b + P m_c)       covariance = σ² [(A + P)⁻¹ + G V_c Gᵀ],   G = (A + P)⁻¹P

So a new offer starts with what people generally take to in its category, as unsure as offers of it differ, and leaves
that as its own lessons come. An offer with most of the lessons does not count for more than it says about the others:
pooling lessons instead, as if all offers were one, makes a model of the most frequent offer and of nobody else.

**The prior is diagonal in blocks** (bias; inputs and crosses; waves). A block's variance is scaled so that the variance
of w·u at a typical u is σ² / strength: just what a rate counted on so many lessons has. So a strength means the same
whatever the number of columns. m₀ says "everybody takes at `prior_rate`".

**Offers may lean either way.** Whoever takes the one plan leaves the other: such offers share the weights of their
inputs, with opposite signs. So an offer has a loading a, 1 or -1, and w ~ N(L m_c, σ² P⁻¹) with L = 1 for the bias and
a for the rest. It then tells L(P - P(A + P)⁻¹P)L and LP(A + P)⁻¹b, and L m_c comes down. Of a new offer nobody knows
which way it leans. It leans each as often as the others do, so it expects a mean of theirs and is as unsure as that.

**Or they may compete.** Whoever takes one offer leaves the rest: what an input says for one it says against the others,
and the weights of all come to little. As a prior, that is what offers share with a variance below zero,

    w = m + own      var own = D      var m = -D / K′      so  cov(w, w′) = -D / K′

of K offers, with K′ a little more than K, which keeps the covariance of all of them positive. Every formula holds as it
stands; P₀ has negative entries. Rates are shared as ever. An offer without lessons is not among the K: of it is known
which rate others have, not whom it takes.

**Strengths are learnt** (`models.strengths`), and loadings, and whether offers compete, by the marginal likelihood: how
probable the lessons are under a prior before its weights are known.

**The noise is estimated**: the mean squared residual, the offer's pulled towards everybody's with the weight of
`NOISE_LESSONS`, that towards the Bernoulli variance of `prior_rate`. An offer nobody ever took has no residual at all;
it is as noisy as a rate that was counted on its lessons and `NOISE_LESSONS` at `prior_rate`, or a handful of noes would
be taken for certainty and the offer never be tried again. `noise_floor` keeps the rest from zero.

Non-goals: probabilities within 0 .. 1. A linear model may leave that range; who decides by it holds it there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from models.statistics import TARGET_STEPS, Sums
from models.transform import STEPS

Floats = npt.NDArray[np.float64]

APART = 3.0
"""Before anything is known: variance of the weights within a category, over that of what offers have in common."""

COMPETING_SPARE = 1.1
"""K′ over K. From 1.01 to 1.3 no difference is seen; the closer to 1, the more digits a belief loses."""

COMPETING_SCATTER_MIN = 0.05
"""What rivals tell of an offer makes it surer by a factor of 1 + 10 / K at most, as long as they know what they told.
Below this share of its own scatter, somebody does not."""

NOISE_LESSONS = 10.0
"""Lessons that the supposed noise weighs."""


@dataclass(frozen=True)
class PosteriorOptions:
    """What is believed before the first lesson, and how fast lessons age.

    Args:
        prior_strength: lessons that the prior of the inputs weighs to begin with; more means slower, calmer learning.
        prior_rate: mean target believed of an offer nothing is known about, between 0 and 1; of one that is `valued`
            (see `Structure`), how many respond.
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


@dataclass(frozen=True)
class Structure:
    """What belongs together.

    Args:
        waves: how many of the columns of x, the last ones, are waves.
        categories: category by offer; those not named are one category.
        valued: offers of which a response is worth more or less, see `models.value`.
    """

    waves: int = 0
    categories: Mapping[str, str] = field(default_factory=dict)
    valued: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Strengths:
    """How many lessons the prior of each block weighs, and what offers have in common.

    Args:
        bias: of the rate itself.
        inputs: of the columns that are inputs or crosses.
        waves: of the waves; infinite where they are left out.
        apart: variance of an offer's weights around its category's, over that of what it shares with others; rivals of
            one category have none.
        rates_apart: the same of the bias.
        loadings: 1 or -1 by offer; those not named have the mean. Empty: all are 1.
        competing: how many offers compete; 0 if what one gains the others need not lose.
        rest: of what responses are worth, see `models.value`; None as long as nothing is known of that.
    """

    bias: float
    inputs: float
    waves: float = math.inf
    apart: float = APART
    rates_apart: float = APART
    loadings: Mapping[str, float] = field(default_factory=dict, hash=False)
    competing: int = 0
    rest: Strengths | None = None

    @classmethod
    def declared(cls, options: PosteriorOptions) -> Strengths:
        """Before anything is learnt: offers differ in their rates, and more by their customers; waves are left out."""
        return cls(2.0 * options.prior_strength, options.prior_strength)

    def loading(self, offer: str) -> float:
        """Of any offer."""
        if not self.loadings:
            return 1.0
        if offer in self.loadings:
            return self.loadings[offer]
        return sum(self.loadings.values()) / len(self.loadings)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads. JSON has no word for what is infinite: left out, as it is the default."""
        told = {name: value for name, value in vars(self).items() if value is not None and value != math.inf}
        return told if self.rest is None else told | {"rest": self.rest.to_json()}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Strengths:
        """The same again. Raises TypeError for what are no strengths."""
        return cls(**told) if "rest" not in told else cls(**{**told, "rest": cls.from_json(told["rest"])})


@dataclass(frozen=True, eq=False)
class OfferPosterior:
    """The belief about one offer's weights, for u = x / 127 and targets in 0 .. 1.

    Args:
        mean: (d,) float64, expected weights. Fewer than x has columns if the last ones are waves that are left out.
        covariance: (d, d) float64, symmetric and positive.
        lessons: how many lessons it rests on, aged ones counting less; the prior is not among them.
        transform_version: the transform that gives the columns their meaning.
        noise: variance of a target around its mean, which the covariance is scaled by; NaN where it is not known.
    """

    mean: Floats
    covariance: Floats
    lessons: float
    transform_version: int = 0
    noise: float = math.nan


class LinearBeliefs:
    """The posterior of the weights of one linear model at one moment; what offers share is worked out once.

    Args: as of `models.value.Beliefs`, of which this is a part or, if no offer is `valued`, the whole; and
        sums: of the offers with lessons.
        of: what these were combined from.
    """

    def __init__(
        self,
        sums: Mapping[str, OfferSums],
        of: Sums,
        options: PosteriorOptions,
        structure: Structure,
        strengths: Strengths,
    ) -> None:
        self._structure = structure
        self._version = of.transform_version
        self._tree = Tree.grown(sums, options, structure, strengths, of.dimension)
        self._sums = sums

    @property
    def dimension(self) -> int:
        """Columns that the beliefs are about: without the waves where those are left out."""
        return len(self._tree.precision)

    @property
    def prior_spread(self) -> Floats:
        """(dimension,) variance of the weights of a new offer before any lesson of any offer, in units of the noise."""
        return self._tree.prior.spread

    def of(self, offers: Sequence[str]) -> dict[str, OfferPosterior]:
        """The beliefs about some offers."""
        return {offer: self._belief(offer, self._sums.get(offer)) for offer in offers}

    def by_others(self, offer: str) -> Floats:
        """(dimension,) expected weights of an offer by the lessons of the others alone: what its category tells of it.

        What is known of the category is the product of what each of its offers told, and of the levels above; the
        offer's own part is taken out of it.
        """
        tree, category = self._tree, self._structure.categories.get(offer, "")
        if offer not in self._sums:
            return tree.shared(offer, category).mean + tree.start
        node, L = tree.categories.get(category, tree.unknown), tree.leaning(offer)
        told = told_by(self._sums[offer].within(len(tree.precision), tree.start), tree.precision)
        left = np.eye(len(tree.precision)) - node.covariance @ (L[:, None] * told.information * L)
        mean: Floats = np.linalg.solve(left, node.mean - node.covariance @ (L * told.pull)).astype(np.float64)
        return L * mean + tree.start

    def renewed(self, sums: Mapping[str, OfferSums], offers: Sequence[str]) -> dict[str, OfferPosterior]:
        """The beliefs about offers that learnt since, while what offers have in common stays as it was."""
        return {offer: self._belief(offer, sums.get(offer)) for offer in offers}

    def _belief(self, offer: str, own: OfferSums | None) -> OfferPosterior:
        mean, covariance, noise = self._tree.weights(offer, self._structure.categories.get(offer, ""), own)
        mean = mean + self._tree.start
        return OfferPosterior(mean, noise * covariance, 0.0 if own is None else own.n, self._version, noise)


@dataclass
class OfferSums:
    """Sums of one offer (see `models.statistics`) in the units of u and targets 0 .. 1."""

    A: Floats
    b: Floats
    n: float
    s: float
    r: Floats
    q: float

    def within(self, columns: int, start: Floats) -> OfferSums:
        """The sums over the first columns, of targets less what `start` expects; those of responses as they are."""
        A, b = self.A[:columns, :columns], self.b[:columns]
        there = A @ start
        s = self.s - 2.0 * float(start @ b) + float(start @ there)
        return OfferSums(A, b - there, self.n, s, self.r, self.q)


def combined(
    stats: Sums, now_period: int, options: PosteriorOptions, offers: Sequence[str] | None = None
) -> dict[str, OfferSums]:
    """Sums of the offers that have lessons left."""
    found = {}
    for offer in stats.offers if offers is None else offers:
        A, b, n, s, r, q = stats.combined(offer, now_period, options.half_life_periods)
        if n > 0.0:
            b, s = b / (STEPS * TARGET_STEPS), s / TARGET_STEPS**2
            found[offer] = OfferSums(A / STEPS**2, b, n, s, r / STEPS, q / TARGET_STEPS)
    return found


class Told(NamedTuple):
    """What the lessons of an offer say about what it shares with others, in units of the noise.

    Args:
        information: (d, d).
        pull: (d,) information times what they say.
        explained: how much of the squares of its targets its weights explain, all else unknown.
        log_root: as of `inverse_of`.
    """

    information: Floats
    pull: Floats
    explained: float
    log_root: float


def told_by(own: OfferSums, precision: Floats) -> Told:
    """What sums tell the level above them, from which they differ with this precision (d,)."""
    inverse, log_root = inverse_of(own.A, precision)
    weights = inverse @ own.b
    information = np.diag(precision) - precision[:, None] * inverse * precision
    return Told(information, precision * weights, float(own.b @ weights), log_root)


class Prior(NamedTuple):
    """Diagonals of the precisions of all levels, and where they begin.

    Args:
        start: (d,) m₀; everything else is relative to it.
        own: (d,) P.
        category: (d,) Q; None if there is only one category.
        top: (d,) P₀; negative but for the bias where offers compete.
    """

    start: Floats
    own: Floats
    category: Floats | None
    top: Floats

    @classmethod
    def of(
        cls,
        sums: Mapping[str, OfferSums],
        options: PosteriorOptions,
        structure: Structure,
        strengths: Strengths,
        dimension: int,
    ) -> Self:
        """The prior of x of so many columns; its own has fewer if waves are left out."""
        columns = dimension - (structure.waves if math.isinf(strengths.waves) else 0)
        start = np.zeros(columns)
        start[0] = options.prior_rate
        block = _precision(sums, columns, dimension - structure.waves, options, strengths)
        named = {structure.categories.get(offer, "") for offer in sums} | set(structure.categories.values())
        # Of what offers share, half is of their category, if there are several.
        several = len(named) > 1
        own = np.full(columns, strengths.apart / (1.0 + strengths.apart))
        own[0] = strengths.rates_apart / (1.0 + strengths.rates_apart)
        top = (1.0 - own) / (2.0 if several else 1.0)
        category = block / top if several else None
        if strengths.competing:
            count = COMPETING_SPARE * max(strengths.competing, len(sums))
            if not several:
                own[1:] = count / (count - 1.0)
            top[1:] = -own[1:] / count
        return cls(start, block / own, category, block / top)

    @property
    def spread(self) -> Floats:
        """(d,) variance of the weights of a new offer, all levels together; it is not among those that compete."""
        variance: Floats = 1.0 / self.own + np.maximum(1.0 / self.top, 0.0)
        return variance if self.category is None else variance + 1.0 / self.category


@dataclass
class Node:
    """What is known of the weights that some offers share: mean and covariance, in units of the noise."""

    mean: Floats
    covariance: Floats


@dataclass
class Tree:
    """All levels, with what the lessons say gathered at the top and brought down again to the categories."""

    prior: Prior
    unknown: Node
    """A category without lessons."""
    categories: dict[str, Node]
    offers: frozenset[str]
    """Those that had lessons."""
    noise: float
    likelihood: float
    """Logarithm of the marginal likelihood of the lessons, but for a constant."""
    options: PosteriorOptions
    strengths: Strengths

    @classmethod
    def grown(
        cls,
        sums: Mapping[str, OfferSums],
        options: PosteriorOptions,
        structure: Structure,
        strengths: Strengths,
        dimension: int,
    ) -> Self:
        """Of the sums of all offers, over x of so many columns."""
        prior = Prior.of(sums, options, structure, strengths, dimension)
        P, Q, columns = prior.own, prior.category, len(prior.own)
        known: dict[str, tuple[Floats, Floats]] = {}
        count = squares = determinant = 0.0
        for offer, given in sums.items():
            own = given.within(columns, prior.start)
            told = told_by(own, P)
            count, squares = count + own.n, squares + own.s - told.explained
            determinant += told.log_root
            category = structure.categories.get(offer, "")
            J, h = known.setdefault(category, (np.zeros((columns, columns)), np.zeros(columns)))
            L = leaning(columns, strengths.loading(offer))
            J += L[:, None] * told.information * L
            h += L * told.pull
        J, h = np.zeros((columns, columns)), np.zeros(columns)
        below: dict[str, tuple[Floats, Floats]] = {}
        for category, (J_c, h_c) in known.items():
            if Q is None:
                J, h = J_c, h_c
                continue
            inverse, log_root = inverse_of(J_c, Q)
            mean = inverse @ h_c
            squares -= float(h_c @ mean)
            determinant += log_root
            J += np.diag(Q) - Q[:, None] * inverse * Q
            h += Q * mean
            below[category] = inverse, h_c
        V, log_root = inverse_of(J, prior.top)
        m = V @ h
        squares -= float(h @ m)
        determinant += log_root

        categories: dict[str, Node] = {}
        weight, doubt = NOISE_LESSONS, options.prior_rate * (1.0 - options.prior_rate)
        noise = max((max(squares, 0.0) + weight * doubt) / (count + weight), _noise_floor(count, options))
        if Q is None:
            unknown = Node(m, V)
        else:
            unknown = Node(m, V + np.diag(1.0 / Q))
            for category, (inverse, h_c) in below.items():
                G = inverse * Q
                categories[category] = Node(inverse @ (h_c + Q * m), _symmetric(inverse + G @ V @ G.T))
        likelihood = -0.5 * ((count + weight) * math.log(noise) + determinant)
        return cls(prior, unknown, categories, frozenset(sums), noise, likelihood, options, strengths)

    @property
    def precision(self) -> Floats:
        """(d,) diagonal of P."""
        return self.prior.own

    @property
    def start(self) -> Floats:
        """(d,) m₀."""
        return self.prior.start

    def leaning(self, offer: str) -> Floats:
        """(d,) diagonal of L."""
        return leaning(len(self.precision), self.strengths.loading(offer))

    def shared(self, offer: str, category: str) -> Node:
        """What is expected of an offer's weights (less the start) by all that was told, without their own scatter."""
        node, L = self.categories.get(category, self.unknown), self.leaning(offer)
        if self.strengths.competing and offer not in self.offers:
            return self._of_rates(node)
        doubt = L[:, None] * node.covariance * L
        if (unsure := 1.0 - float(L[-1]) ** 2) > 0.0:  # it leans one way, and nobody knows which
            rest = slice(1, None)
            doubt[rest, rest] += unsure * (node.covariance + np.outer(node.mean, node.mean) / self.noise)[rest, rest]
        return Node(L * node.mean, doubt)

    def _of_rates(self, node: Node) -> Node:
        """What is known of the bias alone, and of the rest what was before any lesson."""
        mean, covariance = np.zeros_like(node.mean), np.diag(self.prior.spread - 1.0 / self.precision)
        mean[0], covariance[0, 0] = node.mean[0], max(float(node.covariance[0, 0]), 0.0)
        return Node(mean, covariance)

    def weights(self, offer: str, category: str, given: OfferSums | None) -> tuple[Floats, Floats, float]:
        """Mean (less the start), covariance in units of the noise, and noise of an offer."""
        P = self.precision
        own = None if given is None else given.within(len(P), self.start)
        inverse = np.diag(1.0 / P) if own is None else inverse_of(own.A, P)[0]
        G = inverse * P

        def around(node: Node) -> Floats:
            return _symmetric(inverse + (node.covariance if own is None else G @ node.covariance @ G.T))

        node = self.shared(offer, category)
        covariance = around(node)
        if self.strengths.competing and not _is_positive(covariance - COMPETING_SCATTER_MIN * inverse):
            # It told more when this was worked out than it knows now: some of its lessons were taken back.
            node = self._of_rates(node)
            covariance = around(node)
        if own is None:
            return node.mean, covariance, self.noise
        mean = inverse @ (own.b + P * node.mean)
        residual = max(float(own.s - 2.0 * mean @ own.b + mean @ own.A @ mean), 0.0)
        weight = NOISE_LESSONS
        noise = max((residual + weight * self.noise) / (own.n + weight), _noise_floor(own.n, self.options))
        return mean, covariance, noise


def leaning(columns: int, loading: float) -> Floats:
    """(columns,) how an offer takes over what its category shares: the rate as it is, the rest by its loading."""
    L = np.full(columns, loading)
    L[0] = 1.0
    return L


def _noise_floor(lessons: float, options: PosteriorOptions) -> float:
    """Variance of a target where so many lessons were all a no."""
    rate = NOISE_LESSONS * options.prior_rate / (lessons + NOISE_LESSONS)
    return max(rate * (1.0 - rate), options.noise_floor)


def _precision(
    sums: Mapping[str, OfferSums], columns: int, linear: int, options: PosteriorOptions, strengths: Strengths
) -> Floats:
    """(columns,) a block's strength, times its typical total square, in each of its columns.

    That square is E|u|² of the block, measured on all lessons; before there are any, that of inputs spread evenly over
    their ranges, 1/3 each, and of waves, 1/2 each, which then count as `NOISE_LESSONS`.
    """
    lessons = sum(own.n for own in sums.values())
    found = np.empty(columns)
    found[0] = strengths.bias
    for first, last, strength, one in ((1, linear, strengths.inputs, 1 / 3), (linear, columns, strengths.waves, 1 / 2)):
        if last > first:
            measured = sum(float(np.trace(own.A[first:last, first:last])) for own in sums.values())
            supposed = NOISE_LESSONS * (last - first) * one
            square = (max(measured, 0.0) + supposed) / (lessons + NOISE_LESSONS)
            found[first:last] = strength * max(square, 1e-3)
    return found


def _symmetric(matrix: Floats) -> Floats:
    half: Floats = (matrix + matrix.T) / 2.0
    return half


def _is_positive(matrix: Floats) -> bool:
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True


def inverse_of(matrix: Floats, diagonal: Floats) -> tuple[Floats, float]:
    """Inverse of matrix + diag(diagonal), exactly symmetric; and log |diag⁻¹ (matrix + diag)|.

    Only sums with lessons taken back that were added elsewhere can make it less than a positive diagonal; those
    directions get the prior.
    """
    root = np.sqrt(np.abs(diagonal))
    scaled = matrix / np.outer(root, root)
    scaled[np.diag_indices(len(root))] += np.sign(diagonal)
    if diagonal[-1] < 0.0:  # of rivals, who tell less than it takes to reach 0
        return _symmetric(np.linalg.inv(scaled) / np.outer(root, root)), float(np.linalg.slogdet(scaled)[1])
    try:
        lower = np.linalg.cholesky(scaled)
        half = np.linalg.inv(lower)
        log_determinant = 2.0 * float(np.log(lower.diagonal()).sum())
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(scaled)
        values = np.maximum(values, 1.0)
        half = (vectors / np.sqrt(values)).T
        log_determinant = float(np.log(values).sum())
    inverse: Floats = half.T @ half
    inverse /= np.outer(root, root)
    return _symmetric(inverse), log_determinant
