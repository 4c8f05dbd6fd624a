"""How much the prior of each block weighs, which way offers lean, whether they compete: learnt from the lessons.

`models.posterior` says what is believed under given strengths. Here they are found, by the marginal likelihood: how
probable the lessons are before any weight is known. It is what makes waves safe: where they explain nothing the
likelihood switches them off, and an offer's belief then has no more columns than before.

**Which way offers lean** is a sign each, 1 or -1: it begins with those of the first eigenvector of how much the offers
resemble each other, and each that is more probable the other way is turned round. Taken only where the lessons become
that much more probable (`_SIGN_GAIN`); else all are 1, and the belief is as before. Likewise it is tried what lessons
say if offers compete, what speaks for one speaking against the others.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from models.posterior import (
    OfferSums,
    PosteriorOptions,
    Prior,
    Strengths,
    Structure,
    Tree,
    told_by,
)

OFFERS_WEIGHED_MAX: Final = 8
"""Strengths are learnt from the offers with the most lessons: more of them cost time and change nothing."""

LESSONS_WEIGHED_MIN: Final = 30.0
"""With fewer lessons the strengths stay what was declared."""

YESES_WEIGHED_MIN: Final = 20.0
"""With fewer yeses several offers are not taken for more alike, nor inputs for saying less, than was declared, and no
signs are looked for. The likelihood cannot tell yet, and takes what is simpler; but the mistakes do not cost the same.
Who sees differences where there are none tries a few offers in vain; who sees none makes everybody the same offer, and
does not find out. Of 26 offers (keel_letter) with 12 yeses among those weighed, everybody was answered the same, 96 %
wrongly, where what was declared erred with 72 %."""

ROUNDS_MAX: Final = 5

_STEP: Final = 3.0
"""Strengths are tried in steps of so many times: the likelihood is flat on a finer scale."""

STRENGTH_MIN: Final = 1e-3
STRENGTH_MAX: Final = 1e5

_DOUBT: Final = 2.0
"""Standard deviation, of the logarithm, by which a strength is thought to differ from the declared one."""

_WAVES_GAIN: Final = 1.0
"""Waves must add so much likelihood (in nats), or they are left out."""

_SIGN_GAIN: Final = 2.0
"""Each sign must add so much. A choice of signs finds something in offers that have nothing in common, too: 1 in the
median of such, drawn for a test, where offers that do lean against each other gained 5 to 30 each."""

COMPETING_MAX: Final = 32
"""Of more offers one says next to nothing about another. All of them are weighed: eight of many look unrelated."""

_COMPETING_GAIN: Final = 3.0
"""Rivals must add so much, all together. With 2 nats, 2 of 30 pairs drawn with nothing in common seemed to compete."""

_APART_MAX: Final = 3.0
"""Offers that lean against each other seem to have nothing in common; they do, once the signs are right. So the search
for those begins with offers no further apart than this."""

_CLIMBED: Final = ("bias", "rates_apart", "inputs", "apart")
"""Strengths that there always are, in the order in which they are tried."""

Floats = npt.NDArray[np.float64]
Likelihood = Callable[[Strengths], float]


def learn_linear_strengths(
    every: Mapping[str, OfferSums],
    dimension: int,
    options: PosteriorOptions,
    structure: Structure,
    start: Strengths | None,
    rounds: int,
    rest_of: Strengths | None = None,
) -> Strengths:
    """The strengths under which the lessons are most probable: a climb along one strength at a time, signs, rivals.

    A round tries a step up and a step down of each strength; one costs some ten times the inverses of
    `OFFERS_WEIGHED_MAX` offers. Begun where the last climb ended, with one round now and then, it keeps up with lessons
    that come in; begun from what was declared, it is a function of the sums alone.

    Args: as of `models.posterior.LinearBeliefs`, and
        every: sums of the offers with lessons, over x of so many columns (`dimension`).
        start: where to begin; from what was declared if None. Loadings and rivalry are learnt anew.
        rounds: most rounds of each climb.
        rest_of: of what is left of rewards without responses, in place of what options declare. Its mean is 0 by
            definition, so it is not learnt how surely all its rates are; nor how offers relate.
    """
    declared = rest_of or Strengths.declared(options)
    kin, climbed = rest_of is None, _CLIMBED if rest_of is None else _CLIMBED[1:]
    waves = declared.inputs / 3.0
    sums = dict(sorted(every.items(), key=lambda item: (-item[1].n, item[0]))[:OFFERS_WEIGHED_MAX])
    if sum(own.n for own in sums.values()) < LESSONS_WEIGHED_MIN:
        return declared
    alone = len(sums) == 1
    few = kin and not alone and _yeses(sums) < YESES_WEIGHED_MIN
    found: dict[Strengths, float] = {}

    def likelihood_of(some: Mapping[str, OfferSums], strengths: Strengths) -> float:
        tree = Tree.grown(some, options, structure, strengths, dimension)
        return tree.likelihood - _surprise(strengths, declared, waves)

    def likelihood(strengths: Strengths) -> float:
        alike = min(strengths.apart, strengths.rates_apart) < declared.apart
        if few and (alike or strengths.inputs > declared.inputs):
            return -math.inf
        if strengths not in found:
            found[strengths] = likelihood_of(sums, strengths)
        return found[strengths]

    begun = replace(declared if start is None or few else start, loadings={}, competing=0)
    best = _climbed(replace(begun, waves=math.inf), climbed, likelihood, rounds)
    if structure.waves:
        begun = begun if math.isfinite(begun.waves) else replace(begun, waves=waves)
        waved = _climbed(begun, ("waves", *climbed), likelihood, rounds)
        best = waved if likelihood(waved) > likelihood(best) + _WAVES_GAIN else best
    if few or alone or not kin:
        return best
    leant = _leant(best, sums, options, structure, likelihood, rounds)
    gain = likelihood(leant) - likelihood(best) - _SIGN_GAIN * len(sums)
    if len(every) <= COMPETING_MAX:
        begun = replace(best, competing=len(every), apart=declared.apart)
        names = _CLIMBED if math.isinf(best.waves) else (*_CLIMBED, "waves")
        rivals = _climbed(begun, names, likelihood, rounds)
        gained = likelihood_of(every, rivals) - likelihood_of(every, best)
        if gained - _COMPETING_GAIN > max(gain, 0.0):
            return rivals
    return replace(leant, loadings=_signs(every, options, structure, leant)) if gain > 0.0 else best


def _yeses(sums: Mapping[str, OfferSums]) -> float:
    """Lessons in which there was something: the yeses, or as many equal rewards as are as uneven as these."""
    total, squares = sum(own.b[0] for own in sums.values()), sum(own.s for own in sums.values())
    return float(total**2 / squares) if squares > 0.0 else 0.0


def _leant(
    begun: Strengths,
    sums: Mapping[str, OfferSums],
    options: PosteriorOptions,
    structure: Structure,
    likelihood: Likelihood,
    rounds: int,
) -> Strengths:
    """The most probable strengths with signs, near others without."""
    near = replace(begun, apart=min(begun.apart, _APART_MAX))
    strengths = replace(near, loadings=_signs(sums, options, structure, near))
    if len(set(strengths.loadings.values())) == 1:
        return begun  # all lean one way: nothing to look for
    names = ("apart", "inputs") if math.isinf(begun.waves) else ("apart", "waves", "inputs")
    strengths = _climbed(strengths, names, likelihood, rounds)
    for offer in sums:
        turned = replace(strengths, loadings={**strengths.loadings, offer: -strengths.loadings[offer]})
        strengths = max(strengths, turned, key=likelihood)
    return _climbed(strengths, names, likelihood, rounds)


def _signs(
    sums: Mapping[str, OfferSums], options: PosteriorOptions, structure: Structure, strengths: Strengths
) -> dict[str, float]:
    """Signs of all offers, by category. Where some are known, the others go with them or against them."""
    dimension = len(next(iter(sums.values())).b)
    prior = Prior.of(sums, options, structure, strengths, dimension)
    scale = 1.0 / np.sqrt(prior.own[1:])
    pulls = {
        offer: told_by(own.within(len(prior.own), prior.start), prior.own).pull[1:] * scale
        for offer, own in sums.items()
    }
    homes: dict[str, list[str]] = {}
    for offer in sums:
        homes.setdefault(structure.categories.get(offer, ""), []).append(offer)
    found: dict[str, float] = {}
    for offers in homes.values():
        known = [offer for offer in offers if offer in strengths.loadings]
        if known:
            shared: Floats = np.sum([strengths.loadings[offer] * pulls[offer] for offer in known], axis=0)
            along = [strengths.loadings.get(offer, float(pulls[offer] @ shared)) for offer in offers]
        else:
            directions = np.array([pulls[offer] / max(float(np.linalg.norm(pulls[offer])), 1e-12) for offer in offers])
            first = np.linalg.eigh(directions @ directions.T)[1][:, -1]
            # The sign of an eigenvector is anybody's: with most of them rather than against.
            along = (first if first.sum() >= 0.0 else -first).tolist()
        found |= {offer: 1.0 if value >= 0.0 else -1.0 for offer, value in zip(offers, along, strict=True)}
    return dict(sorted(found.items()))


def _climbed(start: Strengths, names: Sequence[str], likelihood: Likelihood, rounds: int) -> Strengths:
    best = start
    for _ in range(rounds):
        before = best
        for name in names:
            for factor in (_STEP, 1.0 / _STEP):
                while True:
                    value = getattr(best, name) * factor
                    tried = replace(best, **{name: value})
                    if not STRENGTH_MIN < value < STRENGTH_MAX or likelihood(tried) <= likelihood(best):
                        break
                    best = tried
        if best == before:
            break
    return best


def _surprise(strengths: Strengths, declared: Strengths, waves: float) -> float:
    """How far strengths are from the declared ones, in nats: so a handful of lessons does not carry them away.

    `waves` is the strength that is supposed of those; they may say odd things, so it is less than that of the inputs.
    """
    pairs = [(getattr(strengths, name), getattr(declared, name)) for name in _CLIMBED]
    if math.isfinite(strengths.waves):
        pairs.append((strengths.waves, waves))
    return sum(math.log(a / b) ** 2 for a, b in pairs) / (2.0 * _DOUBT**2)
