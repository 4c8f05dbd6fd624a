"""Where the offers of a decision stand on the cold start ladder. Pure.

What points were awarded follows from the rule bits of the record, and lessons are those of the belief that explains.
How many weigh against points depends on how sure a policy is, and earlier policies are kept without that: the policy
in service says it.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from engine.explain.case import Case
from engine.ladder import Awarded, Rung
from engine.policyfacts import PolicyFacts
from models import Policy


@dataclass(frozen=True)
class Foothold:
    """What the estimate of one offer rests on."""

    rung: Rung
    weight: float
    """Points or lessons, see engine.ladder."""
    own: float
    others: float
    """Lessons of the offer, and of the others of its category."""
    cold: bool
    """Whether there are too few of its own."""
    points: float = 0.0
    rate: float = 0.0
    strength: float = 0.0
    lessons: float = 0.0
    """Points, their rate, the lessons that it weighs and those that weigh against it; of an offer with points."""


@dataclass(frozen=True)
class Standing:
    """By index of the offer."""

    footholds: list[Foothold]
    estimates: dict[int, float]
    """Estimates of the offers with points."""
    policy_version: int

    @classmethod
    def of(cls, case: Case, now: Policy, facts: PolicyFacts) -> Self | None:
        """`now` is in service. None where it or the belief is about other offers or inputs than the decision."""
        catalogue, parts, belief = case.catalogue, case.parts, case.belief
        ladder = catalogue.ladder
        if parts is None or belief is None or belief.lessons is None or belief.offers != catalogue.offer_ids:
            return None
        awarded: Awarded | None = None
        mean = np.zeros((1, len(belief.offers)), np.float32)
        if ladder.offers:
            if now.offers != belief.offers or now.transform_version != belief.transform_version:
                return None
            if len(facts.noise) != len(ladder.offers):
                return None
            x = case.x[None]
            mean, sd = now.score(x)
            for offer, column in case.column_of.items():
                mean[0, catalogue.offer_ids.index(offer)] = parts.estimate[column]
            awarded = ladder.climb(x, mean, sd, [case.record.rules_held], facts)
        record = ladder.resting_on(np.array(belief.lessons))
        rates = None if awarded is None else ladder.rates(awarded.points)
        footholds = []
        for at in range(len(catalogue.offers)):
            rung, weight = ladder.rung(at, 0, awarded, record)
            found = rung, weight, record.own[at], record.category[at], bool(record.cold[at])
            k = ladder.place.get(at)
            if k is None or awarded is None or rates is None:
                footholds.append(Foothold(*found))
            else:
                told = awarded.points[0, k], rates[0, k], ladder.strengths[k], awarded.lessons[0, k]
                footholds.append(Foothold(*found, *map(float, told)))
        return cls(footholds, {at: float(np.float64(mean[0, at])) for at in ladder.offers}, now.version)
