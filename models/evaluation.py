"""Off-policy evaluation: what another policy would have earned, from the log of the one that decided.

A row is one decision: its reward r, the propensity p with which the log took its action, the probability t with which
the target policy takes the same one. With w = t / p, and q the rewards that a model predicts,

    IPS     mean of w·r                               unbiased if p is right; noisy
    SNIPS   Σ w·r / Σ w                               steadier, and a shift of all rewards shifts it likewise
    DM      mean of v,  v = Σ_a t(a) q(a)             as good as the model, and no better
    DR      mean of v + w·(r - q)                     unbiased as IPS is, less noisy the better the model

(Horvitz & Thompson 1952; Hájek 1971; Dudík, Langford & Li 2011.) DM has no interval: its error is that of the model,
which no number of rows shows.

**Intervals.** Every other estimate is Σ a / Σ b over people: rows of one person depend on each other, so they are added
up first and people are what is counted. An interval holds every value θ that a test of "the mean of a - θ·b is 0" lets
stand, so the noise of the denominator is in it (Fieller 1954). Two things make the usual test fail on such logs. Few
rewards and large weights make sums lopsided: the statistic is put straight by its estimated skewness (Hall 1992, the
monotone cubic transformation). And their variance is itself uncertain: the quantile is that of Student's t with the
degrees of freedom that the kurtosis leaves (Satterthwaite 1946). All of it follows from ten moments, without dice.
`python -m bench ope` measures how often the intervals hold.

**Refusals.** An estimate rests on rows where both policies do the same. Where too little of that is left the noise
cannot be told from its own sample, and an interval would be a guess. Then there is a reason instead of a number.

Non-goals: bounds for a finite sample (too wide to act upon at the sizes people have), clipped weights (their bias is
in no interval), slates as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
"""Share of intervals that hold the truth."""

EFFECTIVE_ROWS_MIN = 100.0
"""Below so many effective rows of people a weight that was not drawn yet can turn the estimate over."""

EFFECTIVE_REWARDS_MIN = 10.0
"""Below so many people with another reward than the commonest one, weighted, the variance is not known."""

UNSEEN_SHARE_MAX = 0.01
"""Most of the target's choices that may fall on actions the log never took, or could not take then."""

WEIGHT_LEVEL = 0.999
"""Weights must average 1; the log is doubted when an interval at this level does not hold it."""

RARE_SHARE = 0.1
"""An action is taken rarely if its logged propensity is below a tenth of the target's: its weight is above 10."""

REWARD_MAX = 1e12
"""Largest reward either side of 0, as for values in a configuration."""

PROPENSITY_MIN = 1e-100
"""Below, the square of a weight overflows; whatever has that propensity was not drawn with it."""

PROPENSITY = f"a propensity of {PROPENSITY_MIN:g} to 1"
"""What was expected, in errors."""

_SPREAD_MIN = 1e-12
"""Of the largest terms: a standard deviation below that is rounding."""
_DOUBLINGS_MAX = 40
_HALVINGS = 60

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class SampleError(ValueError):
    """A row that no log can have. `row` counts from 0, `field` is the name in `Sample`."""

    def __init__(self, row: int, field: str, problem: str) -> None:
        super().__init__(f"row {row}: {field}: {problem}")
        self.row = row
        self.field = field
        self.problem = problem


@dataclass(frozen=True, eq=False)
class Sample:
    """A log beside a target policy: n rows, each one decision.

    Args:
        rewards: (n,) what came of the action, any unit, -`REWARD_MAX` to `REWARD_MAX`.
        logged: (n,) propensity of the action in the log, above 0 and at most 1.
        target: (n,) probability of the same action under the target policy, 0 .. 1.
        people: (n,) number of whoever the row is about; rows of one number depend on each other. None: all differ.
        model_logged: (n,) reward that a model predicts of the logged action, or None without a model. The model must
            not have seen the row.
        model_target: (n,) the same, expected over the target's actions.
        unseen_share: mean probability of the target for actions that the log never took, or could not take then.

    Raises:
        SampleError: for the first row with a value out of range.
        ValueError: for arrays of different lengths, or none.
    """

    rewards: Floats
    logged: Floats
    target: Floats
    people: Ints | None = None
    model_logged: Floats | None = None
    model_target: Floats | None = None
    unseen_share: float = 0.0

    def __post_init__(self) -> None:
        count = len(self.rewards)
        arrays = [self.logged, self.target]
        arrays += [array for array in (self.model_logged, self.model_target) if array is not None]
        if not count or any(array.shape != (count,) for array in (self.rewards, *arrays)):
            raise ValueError(f"{count} rewards: expected at least one, and as many of everything else")
        if (self.model_logged is None) != (self.model_target is None):
            raise ValueError("expected the model's prediction of both policies or of none")
        if self.people is not None and self.people.shape != (count,):
            raise ValueError(f"{count} rewards: expected as many people")
        _expect(np.abs(self.rewards) <= REWARD_MAX, "rewards", self.rewards, "a number of -1e12 to 1e12")
        possible = (self.logged >= PROPENSITY_MIN) & (self.logged <= 1.0)
        _expect(possible, "logged", self.logged, PROPENSITY)
        _expect((self.target >= 0.0) & (self.target <= 1.0), "target", self.target, "a probability of 0 to 1")
        for name in ("model_logged", "model_target"):
            given = getattr(self, name)
            if given is not None:
                _expect(np.isfinite(given), name, given, "a finite number")


@dataclass(frozen=True)
class Estimate:
    """A value with the interval that holds it, and what it is above the logged policy. NaN: not known."""

    name: str
    value: float
    low: float
    high: float
    lift: float
    lift_low: float
    lift_high: float


@dataclass(frozen=True)
class Support:
    """How much of the log speaks about the target policy."""

    rows: int
    people: int
    effective_rows: float
    """(Σ w)² / Σ w² over people (Kish): an average over so many of equal weight is as noisy."""
    effective_rewards: float
    """Likewise of those with another reward than the commonest."""
    weight_mean: float
    """1 but for chance, if propensities are right and the log could do what the target does."""
    weight_mean_low: float
    weight_mean_high: float
    weight_max: float
    weight_top_share: float
    """Share of all weight that the heaviest hundredth of the rows has."""
    rare_share: float
    """Share of all weight that is in weights above 10: choices that the log took a tenth as often, or less."""
    unseen_share: float
    """Share of the target's choices on actions that the log never took, or could not take then."""


@dataclass(frozen=True)
class Refusal:
    """Why there is no answer."""

    code: str
    """effective_rows, effective_rewards, weight_mean, unseen or interval."""
    reason: str


@dataclass(frozen=True)
class Evaluation:
    """What can be said about a target policy. With refusals there is no answer, and estimates are not to be shown."""

    logged: Estimate
    """The mean reward of the log itself: what the policies that decided earned."""
    estimates: tuple[Estimate, ...]
    support: Support
    refusals: tuple[Refusal, ...] = field(default=())

    @property
    def answer(self) -> Estimate | None:
        """DR if there is a model, otherwise SNIPS; None if refused."""
        found = {estimate.name: estimate for estimate in self.estimates}
        return None if self.refusals else found.get("DR", found["SNIPS"])


def evaluate(sample: Sample) -> Evaluation:
    """Estimate the value of the target policy, with intervals at `LEVEL`, or say why not.

    >>> half = np.full(400, 0.5)  # two actions by the toss of a coin; the target always takes the second
    >>> second = np.arange(400) % 2 == 1
    >>> paid = second & (np.arange(400) % 4 == 1)
    >>> found = evaluate(Sample(paid * 1.0, half, second * 1.0))
    >>> found.logged.value, found.answer.name, found.answer.value, found.support.effective_rows
    (0.25, 'SNIPS', 0.5, 200.0)
    >>> round(found.answer.low, 2), round(found.answer.high, 2)
    (0.43, 0.57)
    """
    rewards, weights = sample.rewards, sample.target / sample.logged
    people = np.arange(len(rewards)) if sample.people is None else np.unique(sample.people, return_inverse=True)[1]
    count = int(people.max()) + 1

    def summed(values: Floats) -> Floats:
        totals: Floats = np.bincount(people, values, count).astype(np.float64, copy=False)
        return totals

    rows, weight, earned = summed(np.ones(len(rewards))), summed(weights), summed(rewards)
    paid = summed(weights * rewards)
    actual = float(rewards.mean())
    logged = Estimate("logged", actual, *interval(earned, rows), 0.0, 0.0, 0.0)

    def estimate(name: str, a: Floats, b: Floats) -> Estimate:
        total = float(b.sum())
        if total <= 0.0:
            return Estimate(name, *[math.nan] * 6)
        value = float(a.sum()) / total
        # What each person adds to the difference, linear in the denominators: exact where both are the rows.
        gain = (a - value * b) * (len(rewards) / total) - (earned - actual * rows) + (value - actual) * rows
        return Estimate(name, value, *interval(a, b), value - actual, *interval(gain, rows))

    estimates = [estimate("IPS", paid, rows), estimate("SNIPS", paid, weight)]
    if sample.model_logged is not None and sample.model_target is not None:
        predicted = float(sample.model_target.mean())
        estimates.append(Estimate("DM", predicted, math.nan, math.nan, predicted - actual, math.nan, math.nan))
        corrected = sample.model_target + weights * (rewards - sample.model_logged)
        estimates.append(estimate("DR", summed(corrected), rows))
    support = _support(sample, weights, weight, rows, summed)
    return Evaluation(logged, tuple(estimates), support, tuple(_refusals(support, estimates)))


def ratio(name: str, values: Floats, rewards: Floats, people: Ints) -> Estimate:
    """The mean of values (n,), one a decision, beside that of the rewards (n,) of the same decisions."""
    index = np.unique(people, return_inverse=True)[1]
    rows, summed, earned = (
        np.bincount(index, each).astype(np.float64, copy=False) for each in (np.ones(len(rewards)), values, rewards)
    )
    value, actual = float(values.mean()), float(rewards.mean())
    return Estimate(name, value, *interval(summed, rows), value - actual, *interval(summed - earned, rows))


def interval(a: Floats, b: Floats, level: float = LEVEL) -> tuple[float, float]:
    """The interval for Σ a / Σ b, where (a, b) are independent draws (C,) and the sum of b is positive.

    (-inf, inf) for a lone draw or where the sample bounds nothing; a point where nothing varies.

    >>> low, high = interval(np.repeat([0.0, 1.0], 50), np.ones(100))
    >>> round(low, 3), round(high, 3)
    (0.401, 0.599)
    """
    count = len(a)
    if count < 2:
        return -math.inf, math.inf
    unit_a, unit_b = float(np.abs(a).max()) or 1.0, float(np.abs(b).max())
    unit = unit_a / unit_b
    a, b = a / unit_a, b / unit_b  # fourth powers of them neither vanish nor overflow
    mean_a, mean_b = float(a.mean()), float(b.mean())
    value = mean_a / mean_b
    da, db = a - mean_a, b - mean_b
    residual = da - value * db
    squares = residual * residual
    variance = float(squares.mean())
    if math.sqrt(variance) <= _SPREAD_MIN * (1.0 + abs(value)):
        return value * unit, value * unit
    kurtosis = float((squares * squares).mean()) / variance**2
    quantile = _student(0.5 + level / 2.0, max(2.0 * count / (kurtosis - 1.0 + 2.0 / (count - 1)), 4.0))
    seconds = [float(m.mean()) * count / (count - 1) for m in (da * da, da * db, db * db)]
    thirds = [float(m.mean()) for m in (da * da * da, da * da * db, da * db * db, db * db * db)]

    def statistic(theta: float) -> float:
        """Student's statistic of "Σ a / Σ b is theta", put straight by its skewness. It falls as theta grows."""
        spread = seconds[0] - 2.0 * theta * seconds[1] + theta**2 * seconds[2]
        third = thirds[0] - 3.0 * theta * thirds[1] + 3.0 * theta**2 * thirds[2] - theta**3 * thirds[3]
        if spread <= 0.0:
            return math.copysign(math.inf, mean_a - theta * mean_b)
        t = math.sqrt(count / spread) * (mean_a - theta * mean_b)
        skew = third / spread**1.5 / math.sqrt(count)
        straight: float = t + skew * (t * t / 3.0 + 1.0 / 6.0) + skew**2 * t**3 / 27.0
        return straight

    step = math.sqrt(variance / count) / mean_b
    return _root(statistic, quantile, value, -step) * unit, _root(statistic, -quantile, value, step) * unit


def _root(statistic: Callable[[float], float], wanted: float, start: float, step: float) -> float:
    """Where a falling statistic is `wanted`, looked for from `start` in the direction of `step`."""
    direction = math.copysign(1.0, step)
    near = far = start
    for _ in range(_DOUBLINGS_MAX):
        near, far = far, far + step
        if (statistic(far) - wanted) * direction < 0.0:
            break
        step *= 2.0
    else:
        return direction * math.inf
    for _ in range(_HALVINGS):
        middle = (near + far) / 2.0
        if (statistic(middle) - wanted) * direction < 0.0:
            far = middle
        else:
            near = middle
    return (near + far) / 2.0


def _student(share: float, freedom: float) -> float:
    """Quantile of Student's t, by the expansion of Cornish and Fisher: to a thousandth from 8 degrees of freedom.

    >>> round(_student(0.975, 10.0), 3), round(_student(0.975, 1e9), 3)
    (2.228, 1.96)
    """
    z: float = NormalDist().inv_cdf(share)
    first, second = (z**3 + z) / 4.0, (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0
    third = (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0
    expanded: float = z + first / freedom + second / freedom**2 + third / freedom**3
    return expanded


def _support(
    sample: Sample, weights: Floats, weight: Floats, rows: Floats, summed: Callable[[Floats], Floats]
) -> Support:
    values, counts = np.unique(sample.rewards, return_counts=True)
    telling = summed(weights * (sample.rewards != values[counts.argmax()]))
    top = np.sort(weights)[-max(1, len(weights) // 100) :]
    total = float(weights.sum())
    low, high = interval(weight, rows, WEIGHT_LEVEL)
    return Support(
        rows=len(weights),
        people=len(rows),
        effective_rows=_effective(weight),
        effective_rewards=_effective(telling),
        weight_mean=total / len(weights),
        weight_mean_low=low,
        weight_mean_high=high,
        weight_max=float(weights.max()),
        weight_top_share=float(top.sum()) / total if total else 0.0,
        rare_share=float(weights[weights * RARE_SHARE > 1.0].sum()) / total if total else 0.0,
        unseen_share=sample.unseen_share,
    )


def _refusals(support: Support, estimates: list[Estimate]) -> list[Refusal]:
    found = []
    if support.unseen_share > UNSEEN_SHARE_MAX:
        found.append(
            Refusal(
                "unseen",
                f"{support.unseen_share:.1%} of the policy's choices are actions that the log never took, or could not "
                f"take then; at most {UNSEEN_SHARE_MAX:.0%} may be: nothing is known of what they earn",
            )
        )
    if not support.weight_mean_low - 1e-6 <= 1.0 <= support.weight_mean_high + 1e-6:
        found.append(
            Refusal(
                "weight_mean",
                f"the weights average {support.weight_mean:.3g} ({support.weight_mean_low:.3g} to "
                f"{support.weight_mean_high:.3g}), expected 1: the logged propensities are not those that the log was "
                "drawn with, or the policy chooses what the log could not",
            )
        )
    if support.effective_rows < EFFECTIVE_ROWS_MIN:
        found.append(
            Refusal(
                "effective_rows",
                f"the log is worth {support.effective_rows:.1f} rows for this policy, expected "
                f"{EFFECTIVE_ROWS_MIN:g} at least: it seldom did what the policy does",
            )
        )
    if support.effective_rewards < EFFECTIVE_REWARDS_MIN:
        found.append(
            Refusal(
                "effective_rewards",
                f"rewards that differ from the usual one are worth {support.effective_rewards:.1f} rows for this "
                f"policy, expected {EFFECTIVE_REWARDS_MIN:g} at least",
            )
        )
    answering = estimates[-1]
    if not found and not math.isfinite(answering.high - answering.low):
        found.append(Refusal("interval", "the noise of the weights leaves the value without bounds"))
    return found


def _effective(weight: Floats) -> float:
    square = float(weight @ weight)
    return float(weight.sum()) ** 2 / square if square else 0.0


def _expect(good: npt.NDArray[np.bool_], name: str, given: Floats, expected: str) -> None:
    if not good.all():
        row = int(np.argmin(good))
        raise SampleError(row, name, f"{given[row]:g}, expected {expected}")
