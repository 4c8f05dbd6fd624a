"""What a response is worth: offers that bring more from one customer than from another are learnt in two parts.

Of most customers nothing comes, and what a few of them bring is mostly chance: a dollar more an offer cannot be told
from a noise of fifteen for thousands of customers. Whether they respond can, much sooner, and what a response brings
depends little on the offer that led to it. So of a reward t and a response h, 0 or 1,

    t = V h + e

with V the mean reward of a response to any such offer. Both terms are linear in x with a Gaussian belief of their own
(`models.posterior`), as their sums are there: those of h are (A, r), those of e (A, b - V r), and Σ e² is
s - 2 V q + V² Σ h. The belief about t is the sum of both, with the covariance V² C_h + C_e. Whatever V is, nothing is
lost or bent by it; V as the mean makes what is believed of the one independent of the other. What offers differ in by
more than by their responses, and who brings more, is in e, and is believed when the lessons say so.

**Before they do**, a response is thought to be worth the same from whatever offer and whomever: V of an offer scatters
around that of all by `WORTH_SCATTER` of it, which is p times so much in e, with p the share that responds. The V of all
is as good as unknown: e is centred by the very lessons that it is then learnt from, so a prior that says "about 0"
would count them twice.

Taking a reward apart into whether and how much is the two-part model (Cragg 1971), P × V of decisioning; taking what
is told without noise out of what is noisy is the method of control variates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.posterior import (
    NOISE_LESSONS,
    LinearBeliefs,
    OfferPosterior,
    OfferSums,
    PosteriorOptions,
    Strengths,
    Structure,
    combined,
)
from models.statistics import Sums
from models.strengths import ROUNDS_MAX, STRENGTH_MAX, STRENGTH_MIN, learn_linear_strengths

WORTH_LESSONS: Final = 1.0
"""Responses that are supposed before the first, worth the declared value: 1. Few, as they may bring something else."""

WORTH_SCATTER: Final = 0.15
"""By how much of its mean the worth of a response differs between offers, before anything is known."""

WORTH_UNSURE: Final = 10.0
"""Variance of the mean of the rest before its lessons, over that which the mean reward of a response has by them."""

REST_APART: Final = 0.3
"""Who brings more from one offer brings more from another, too: `Strengths.apart` of what is not response."""

_VARIANCE_MIN: Final = 1e-12

_FLAT: Final = Structure()

Floats = npt.NDArray[np.float64]


def _responses(sums: Mapping[str, OfferSums], valued: frozenset[str]) -> dict[str, OfferSums]:
    """Sums of h, where offers are valued, and of the targets of the others, for which a yes is all there is."""
    return {
        offer: replace(own, b=own.r, s=float(own.r[0])) if offer in valued else own for offer, own in sums.items()
    }


def _rest(sums: Mapping[str, OfferSums], valued: frozenset[str], worth: float) -> dict[str, OfferSums]:
    """Sums of e, of the offers that are valued."""
    found = {}
    for offer, own in sums.items():
        if offer in valued:
            squares = own.s + worth * (worth * float(own.r[0]) - 2.0 * own.q)
            found[offer] = replace(own, b=own.b - worth * own.r, s=max(squares, 0.0))
    return found


class _Worth(NamedTuple):
    """What responses are worth: V, and what is then believed of the rest before its lessons."""

    mean: float
    declared: Strengths

    @classmethod
    def of(cls, sums: Mapping[str, OfferSums], options: PosteriorOptions, valued: frozenset[str]) -> _Worth | None:
        """By the lessons of all valued offers; None as long as nothing came of any of them."""
        of_them = [own for offer, own in sums.items() if offer in valued]
        count, brought = sum(own.n for own in of_them), sum(own.q for own in of_them)
        responses, total = sum(float(own.r[0]) for own in of_them), sum(float(own.b[0]) for own in of_them)
        squares = sum(own.s for own in of_them)
        if squares <= 0.0 and responses <= 0.0:
            return None
        # Sums with lessons taken back that were added elsewhere may be of less than nothing.
        responses, squares = max(responses, 0.0), max(squares, 0.0)
        supposed = responses + WORTH_LESSONS
        mean = (brought + WORTH_LESSONS) / supposed
        # Rewards may have been taught before responses were: then as many as it takes for so much to have come.
        seen = max(responses, total**2 / squares if squares > 0.0 else 0.0)
        share = (seen + NOISE_LESSONS * options.prior_rate) / (count + NOISE_LESSONS)
        noise = max(squares + mean * (mean * responses - 2.0 * brought), 0.0) / (count + NOISE_LESSONS)
        noise = max(noise, options.noise_floor)
        # What responses bring may cancel, or nobody be expected to respond: variances of nothing are small ones.
        own = max((WORTH_SCATTER * share * mean) ** 2, _VARIANCE_MIN)
        common = max(WORTH_UNSURE * share**2 * (squares + WORTH_LESSONS) / supposed**2, _VARIANCE_MIN)
        bias, inputs = (min(max(noise / each, STRENGTH_MIN), STRENGTH_MAX) for each in (own + common, own))
        rates_apart = min(max(own / common, STRENGTH_MIN), STRENGTH_MAX)
        return cls(mean, Strengths(bias, inputs, apart=REST_APART, rates_apart=rates_apart))


def _of_rest(options: PosteriorOptions) -> PosteriorOptions:
    """Nothing is expected of the rest."""
    return replace(options, prior_rate=0.0)


def learn_strengths(
    stats: Sums,
    now_period: int,
    options: PosteriorOptions,
    structure: Structure = _FLAT,
    start: Strengths | None = None,
    rounds: int = ROUNDS_MAX,
) -> Strengths:
    """The strengths under which the lessons are most probable, of responses and of what they are worth.

    Args: as of `models.strengths.learn_linear_strengths`.
    """
    sums, dimension = combined(stats, now_period, options), stats.dimension
    own = None if start is None else replace(start, rest=None)
    responses = _responses(sums, structure.valued)
    found = learn_linear_strengths(responses, dimension, options, structure, own, rounds)
    worth = _Worth.of(sums, options, structure.valued)
    if worth is None:
        return found
    rest = _rest(sums, structure.valued, worth.mean)
    # Of the bias it is not learnt how surely it is 0, see `learn_linear_strengths`.
    begun = None if start is None or start.rest is None else replace(start.rest, bias=worth.declared.bias)
    of_rest = _of_rest(options)
    learnt = learn_linear_strengths(rest, dimension, of_rest, structure, begun, rounds, rest_of=worth.declared)
    return replace(found, rest=learnt)


def fit(
    stats: Sums,
    offers: Sequence[str],
    now_period: int,
    options: PosteriorOptions,
    structure: Structure = _FLAT,
    strengths: Strengths | None = None,
) -> dict[str, OfferPosterior]:
    """The posteriors of some offers.

    Fails on nothing it is given: constant or collinear columns, no lessons, one-sided targets, or sums that for the
    moment hold more lessons taken back than added (they count as none) all have a proper posterior.

    Args:
        stats: all that was learnt, also of offers not asked for: they inform the prior.
        offers: the offers to fit; one without lessons gets the prior of its category.
        now_period: the period from which ages are counted.
        options: the prior and the forgetting.
        structure: which columns and which offers belong together.
        strengths: of the prior, from `learn_strengths`; as declared if None.

    >>> from models import Statistics
    >>> stats = Statistics(dimension=1, transform_version=0)
    >>> x = np.full((8, 1), 127, np.int8)
    >>> _ = stats.learn(["card"] * 8, [0] * 8, x, [100] * 4 + [0] * 4, [1] * 8)
    >>> found = fit(stats, ["card", "new"], 0, PosteriorOptions(prior_strength=2.0, prior_rate=0.0))
    >>> [round(float(found[offer].mean[0]), 2) for offer in found]  # 4 of 8, shrunk; a little of it is common
    [0.33, 0.08]
    """
    strengths = strengths or Strengths.declared(options)
    return Beliefs(stats, now_period, options, structure, strengths).of(offers)


class Beliefs:
    """The posterior of all weights at one moment; what offers have in common is worked out once.

    Args: as of `fit`.
    """

    def __init__(
        self,
        stats: Sums,
        now_period: int,
        options: PosteriorOptions,
        structure: Structure,
        strengths: Strengths,
    ) -> None:
        self._now_period = now_period
        self._options = options
        self._valued = structure.valued
        sums = combined(stats, now_period, options)
        worth = _Worth.of(sums, options, self._valued)
        self._responses = LinearBeliefs(_responses(sums, self._valued), stats, options, structure, strengths)
        self._worth = 1.0 if worth is None else worth.mean
        self._rest: LinearBeliefs | None = None
        if worth is not None:
            rest, of_rest = _rest(sums, self._valued, worth.mean), strengths.rest or worth.declared
            self._rest = LinearBeliefs(rest, stats, _of_rest(options), structure, of_rest)

    @property
    def knows_worth(self) -> bool:
        """Whether `renewed` can tell what responses are worth; if not, the first one wants all beliefs made anew."""
        return not self._valued or self._rest is not None

    @property
    def dimension(self) -> int:
        """Columns that the beliefs are about: without the waves where those are left out."""
        rest = 0 if self._rest is None else self._rest.dimension
        return max(self._responses.dimension, rest)

    def of(self, offers: Sequence[str]) -> dict[str, OfferPosterior]:
        """The beliefs about some offers."""
        rest = {} if self._rest is None else self._rest.of(self._with_rest(offers))
        return self._together(self._responses.of(offers), rest)

    def renewed(self, stats: Sums, offers: Sequence[str]) -> dict[str, OfferPosterior]:
        """The beliefs about offers that learnt since, while what offers have in common stays as it was."""
        sums = combined(stats, self._now_period, self._options, offers)
        responses = self._responses.renewed(_responses(sums, self._valued), offers)
        if self._rest is None:
            return responses
        rest = _rest(sums, self._valued, self._worth)
        return self._together(responses, self._rest.renewed(rest, self._with_rest(offers)))

    def _with_rest(self, offers: Sequence[str]) -> list[str]:
        return [offer for offer in offers if offer in self._valued]

    def _together(
        self, responses: dict[str, OfferPosterior], rest: dict[str, OfferPosterior]
    ) -> dict[str, OfferPosterior]:
        worth, found = self._worth, dict(responses)
        for offer, more in rest.items():
            own = responses[offer]
            mean, covariance = worth * own.mean, worth**2 * own.covariance
            found[offer] = replace(
                own,
                mean=_sum(mean, more.mean),
                covariance=_sum(covariance, more.covariance),
                noise=worth**2 * own.noise + more.noise,
            )
        return found

    def by_others(self, offer: str) -> Floats:
        """(dimension,) expected weights of an offer by the lessons of the others alone."""
        found = self._responses.by_others(offer)
        if self._rest is None or offer not in self._valued:
            return _sum(found, np.zeros(self.dimension))
        return _sum(self._worth * found, self._rest.by_others(offer))

    def prior_spread(self, offer: str) -> Floats:
        """(dimension,) variance of the weights of this offer before any lesson of any, in units of its noise."""
        spread = self._responses.prior_spread
        if self._rest is None or offer not in self._valued:
            return _sum(spread, np.zeros(self.dimension))
        own = self._worth**2 * self._responses.of([offer])[offer].noise
        rest = self._rest.of([offer])[offer].noise
        return _sum(own * spread, rest * self._rest.prior_spread) / (own + rest)


def _sum(one: Floats, other: Floats) -> Floats:
    """Of two vectors or two square matrices, of which the smaller one is 0 in the columns that it does not have."""
    if len(one) < len(other):
        one, other = other, one
    total = one.copy()
    total[tuple(slice(0, len(other)) for _ in range(one.ndim))] += other
    return total
