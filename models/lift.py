"""What an arm of an experiment brings over another one: differences over people, with intervals that hold.

Whatever happened with one person is added up first, and people are what is counted: decisions about one person depend
on each other, people do not.

    difference   mean of one arm − mean of the other, with the interval of Welch (1947), put straight for the skewness
                 of rare yeses by the transformation of Hall (1992)
    relative     the same as a share of the other, with the interval of Fieller (1954), which knows that what is divided
                 by is uncertain, too
    sequence     an interval for those who look every day: it holds at all looks together
    detectable   what difference would be found with a chance of 80 % by a test at 5 %

**The sequence** is the asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (2024, Annals
of Statistics 52; Robbins' mixture of normals): with SE the standard error and m the clock,

    difference ± SE · √(2 (mρ² + 1) / (mρ²) · log(√(mρ² + 1) / α))

Its clock counts decisions and not people: a fixed panel is looked at again while its people go on deciding. If
decisions about one person vary together, the standardised difference moves more slowly in that clock than the Brownian
motion for which the bound is exact, so it holds with room to spare (Slepian 1962); if each person has one decision, it
is the theorem. It holds for looks from one beginning, and from PEOPLE_MIN people on: it is asymptotic.

Intervals rest on the central limit theorem. Where too few people differ from the rest to know a variance there is no
interval (`too_little`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc, stdtrit

LEVEL = 0.95
"""Share of intervals that hold the truth."""

POWER = 0.8
"""Chance with which a difference of `detectable` is found."""

PEOPLE_MIN = 100
"""Of each arm, for an interval."""

DIFFERING_MIN = 25
"""People of an arm with another value than the commonest one: below, its variance is not known."""

CLOCK_TUNED_TO = 10_000.0
"""Decisions at which the sequence is as narrow as it can be made; fixed, as it must not depend on what was seen."""

_SKEWNESS_MIN = 1e-6
"""Below, the cubic is a straight line but for rounding."""

RATIO_ALARM = 0.001
"""A ratio of people that chance alone gives less often than this is none that chance gave."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Arm:
    """People of an arm, as far as intervals need to know them."""

    people: int
    mean: float
    variance: float
    """Of the mean of a person around that of all; 0 for fewer than two people."""
    differing: int
    """People with another value than the commonest one."""
    third: float = 0.0
    """Third central moment: 0 where large values are as frequent as small ones."""

    @classmethod
    def of(cls, values: Floats) -> Arm:
        """From the value of each person.

        >>> Arm.of(np.array([0.0, 0.0, 3.0]))
        Arm(people=3, mean=1.0, variance=3.0, differing=1, third=2.0)
        """
        if not len(values):
            return cls(0, 0.0, 0.0, 0)
        _, counts = np.unique(values, return_counts=True)
        variance = float(values.var(ddof=1)) if len(values) > 1 else 0.0
        mean = float(values.mean())
        return cls(len(values), mean, variance, len(values) - int(counts.max()), float(((values - mean) ** 3).mean()))


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and what holds it."""

    value: float
    low: float
    high: float

    @property
    def tells(self) -> bool:
        """Whether 0 is outside."""
        return not self.low <= 0.0 <= self.high


@dataclass(frozen=True, slots=True)
class Lift:
    """What one arm brings over another, a person."""

    difference: Interval
    sequence: Interval
    """The same with the interval that holds however often it is looked at."""
    relative: Interval | None
    """As a share of the other arm; None where that cannot be told from 0 or is below."""
    detectable: float


def compare(arm: Arm, base: Arm, clock: int, level: float = LEVEL) -> Lift:
    """What `arm` brings over `base`.

    Args:
        arm: one of them.
        base: the other one.
        clock: decisions of both together.
        level: share of intervals that hold the truth.

    Raises:
        ValueError: for an arm with fewer than two people.

    >>> lift = compare(Arm(100, 2.0, 1.0, 50), Arm(100, 1.0, 1.0, 50), 200)
    >>> round(lift.difference.low, 2), round(lift.difference.high, 2), round(lift.sequence.low, 2)
    (0.72, 1.28, 0.09)
    """
    if min(arm.people, base.people) < 2:
        raise ValueError(f"{arm.people} and {base.people} people, expected two at least")
    ours, theirs = arm.variance / arm.people, base.variance / base.people
    error = math.sqrt(ours + theirs)
    shares = ours**2 / (arm.people - 1) + theirs**2 / (base.people - 1)
    freedom = (ours + theirs) ** 2 / shares if shares else float(arm.people + base.people - 2)
    quantile = float(stdtrit(freedom, (1.0 + level) / 2.0))
    found = arm.mean - base.mean
    wide = error * always_valid(clock, level)
    third = arm.third / arm.people**2 - base.third / base.people**2
    skewness = third / error**3 if error else 0.0
    low, high = (found - error * _straight(side * quantile, skewness) for side in (1.0, -1.0))
    return Lift(
        Interval(found, low, high),
        Interval(found, found - wide, found + wide),
        _relative(arm.mean, ours, base.mean, theirs, quantile),
        (quantile + float(stdtrit(freedom, POWER))) * error,
    )


def always_valid(clock: int, level: float = LEVEL) -> float:
    """Standard errors either side that hold at all looks together.

    >>> [round(always_valid(clock), 2) for clock in (100, 10_000, 1_000_000)]
    [8.68, 3.04, 3.58]
    """
    alpha = 1.0 - level
    wanted = -2.0 * math.log(alpha)
    m = max(clock, 1) * (wanted + math.log(wanted) + 1.0) / CLOCK_TUNED_TO
    return math.sqrt(2.0 * (m + 1.0) / m * math.log(math.sqrt(m + 1.0) / alpha))


def too_little(arm: Arm, *, sure: bool = False) -> str:
    """Why there can be no interval; "" if there can. `sure`: all people of it must have the same value."""
    if arm.people < PEOPLE_MIN:
        return f"{arm.people} people, expected {PEOPLE_MIN} at least"
    if arm.differing < DIFFERING_MIN and not (sure and not arm.differing):
        return f"{arm.differing} people with another value than the rest, expected {DIFFERING_MIN} at least"
    return ""


def sample_ratio(people: list[int], shares: list[float]) -> float:
    """How likely people are spread over arms at least as oddly as this, if their shares are what they should be.

    Pearson's chi-square (1900). 1 where there is nothing to compare.

    >>> round(sample_ratio([510, 490], [0.5, 0.5]), 3), sample_ratio([600, 400], [1.0, 1.0]) < RATIO_ALARM
    (0.527, True)
    """
    pairs = [(count, share) for count, share in zip(people, shares, strict=True) if share > 0.0]
    total, whole = sum(count for count, _ in pairs), sum(share for _, share in pairs)
    if len(pairs) < 2 or not total:
        return 1.0
    expected = [total * share / whole for _, share in pairs]
    odd = sum((count - wanted) ** 2 / wanted for (count, _), wanted in zip(pairs, expected, strict=True))
    return float(chdtrc(len(pairs) - 1, odd))


def _straight(quantile: float, skewness: float) -> float:
    """What a statistic with this skewness is at a quantile of one without: the inverse of Hall's cubic.

    >>> _straight(1.96, 0.0), round(_straight(1.96, 0.3), 2), round(_straight(-1.96, 0.3), 2)
    (1.96, 1.63, -2.65)
    """
    if abs(skewness) < _SKEWNESS_MIN:
        return quantile
    return 3.0 / skewness * (math.cbrt(1.0 + skewness * (quantile - skewness / 6.0)) - 1.0)


def _relative(arm: float, ours: float, base: float, theirs: float, quantile: float) -> Interval | None:
    """All ratios θ − 1 for which the mean of `arm` − θ · `base` can be told from 0 by no test."""
    squared = quantile**2
    a = base**2 - squared * theirs
    if base <= 0.0 or a <= 0.0:
        return None
    b, c = arm * base, arm**2 - squared * ours
    spread = math.sqrt(max(b**2 - a * c, 0.0))
    return Interval(arm / base - 1.0, (b - spread) / a - 1.0, (b + spread) / a - 1.0)
