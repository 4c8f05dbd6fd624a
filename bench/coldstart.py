"""A new offer among mature ones: how soon it gets its right share, and what that costs.

Twenty offers of four categories have lessons. A new one comes; for how many customers it is the best one is known,
because the world is made: acceptance is logistic in four inputs, offers of a category are alike, and the new one is
made such that it is the best for `RIGHT_SHARE` of all. Four engines serve the same customers, all by Thompson sampling
over the engine's own beliefs with their categories:

- without points: the new offer starts from what its category tells (`learning.cold_start_*`);
- with points: rules about two inputs give points, and a line from points to rates that is off by a factor of
  `POINTS_OFF`, up or down by seed (`learning.cold_start_points_*`); the engine's own hand-over (`models.handover`);
- one that knows: the new offer is as mature as the others. The share of the new offer there is its right share: a
  linear model of logistic acceptance does not give it to quite `RIGHT_SHARE`, and new lessons would not change that;
- one that never gets it.

Value is the sum of the true acceptance probabilities of what was offered, so no luck of outcomes is in it; the dice
and the outcomes that are learnt from are those of the seed.
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.progress import track

from bench.report import Report
from models import Beliefs, Policy, PosteriorOptions, Statistics, Structure, choose, dice, learn_strengths, pack_offer
from models.handover import hand_over
from models.transform import STEPS

MATURE: Final = 20
CATEGORIES: Final = 4
INPUTS: Final = 4
LESSONS: Final = 2_000
"""Of each mature offer, of customers at random."""
RIGHT_SHARE: Final = 0.15
POINTS_OFF: Final = 1.3
POINTS_STRENGTH: Final = 20.0
DECISIONS: Final = 6_000
BATCH: Final = 50
"""Decisions between two snapshots."""
WINDOW: Final = 1_000
REACHED: Final = 0.9
T_95: Final = {2: 12.706, 3: 4.303, 10: 2.262}
"""Student's t for 95 % two-sided intervals of the mean of so many seeds."""

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.int8]


class World(NamedTuple):
    """True weights (INPUTS + 1, offers) of log odds, the intercept first; the new offer is the last."""

    weights: Floats

    def customers(self, count: int, generator: np.random.Generator) -> Bytes:
        """(count, INPUTS + 1) vectors."""
        x = generator.integers(-STEPS, STEPS + 1, (count, INPUTS + 1)).astype(np.int8)
        x[:, 0] = STEPS
        return x

    def rates(self, x: Bytes) -> Floats:
        """(rows, offers) true probability of an acceptance."""
        rates: Floats = 1.0 / (1.0 + np.exp(-(x / STEPS) @ self.weights))
        return rates


def world_of(generator: np.random.Generator) -> World:
    """Offers of a category differ as much as categories do."""
    categories = generator.normal(0.0, 0.5, (INPUTS + 1, CATEGORIES))
    own = generator.normal(0.0, 0.5, (INPUTS + 1, MATURE + 1))
    weights = categories[:, np.arange(MATURE + 1) % CATEGORIES] + own
    weights[0] -= 2.5
    world = World(weights)
    x = world.customers(20_000, generator)
    rates = world.rates(x)
    best = rates[:, :-1].max(axis=1)
    # What must be added to its log odds at each customer to make it the best; the right share is a quantile of that.
    lacking = np.log(best / (1 - best)) - np.log(rates[:, -1] / (1 - rates[:, -1]))
    weights[0, -1] += float(np.quantile(lacking, RIGHT_SHARE))
    return world


class Run(NamedTuple):
    """What one engine did: per decision whether it was the new offer, and the true rate of what was offered."""

    new: npt.NDArray[np.bool_]
    value: Floats


def served(world: World, seed: int, offers: int, *, knows: bool, points: bool, decisions: int) -> Run:
    """One engine over the customers of a seed; `offers` are the first so many of the world."""
    options = PosteriorOptions(prior_strength=10.0)
    names = [f"{offer:03d}" for offer in range(MATURE + 1)]
    structure = Structure(categories={name: str(at % CATEGORIES) for at, name in enumerate(names)})
    stats = Statistics(INPUTS + 1, 1)
    past = np.random.default_rng([seed, 1])
    for offer in range(MATURE + 1):
        x = world.customers(LESSONS, past)
        yes = past.random(LESSONS) < world.rates(x)[:, offer]
        if offer < MATURE or knows:
            _learn(stats, [names[offer]] * LESSONS, x, yes)
    names = names[:offers]
    strengths = learn_strengths(stats, 0, options, structure)
    rate_of = _declared(world, np.random.default_rng([seed, 2]), POINTS_OFF if seed % 2 else 1 / POINTS_OFF)
    generator = np.random.default_rng([seed, 3])
    x = world.customers(decisions, generator)
    luck = generator.random(decisions)
    rates = world.rates(x)
    new, value = np.zeros(decisions, np.bool_), np.zeros(decisions)
    policy = Policy.empty(names, INPUTS + 1, options, 1)
    beliefs = Beliefs(stats, 0, options, structure, strengths)
    for start in range(0, decisions, BATCH):
        part = slice(start, start + BATCH)
        found = beliefs.of(names)
        policy = policy.replaced({name: pack_offer(belief) for name, belief in found.items()}, start + 1)
        mean, sd = policy.score(x[part])
        if points:
            last = names[-1]
            noise, others = np.array([found[last].noise]), beliefs.by_others(last)[None]
            spread = beliefs.prior_spread(last)[None]
            given = np.array([POINTS_STRENGTH])
            hand_over(
                x[part], mean, sd, np.array([offers - 1]), rate_of(x[part]), given, noise, spread, others
            )
        count = len(mean)
        seeds = np.arange(start, start + count, dtype=np.uint64) + np.uint64(seed << 40)
        slates = choose(mean, sd, np.ones(mean.shape, bool), np.ones(count, np.int64), dice(seeds, 1))
        picks = slates.picks[:, 0].astype(np.int64)
        new[part] = picks == MATURE
        value[part] = rates[part][np.arange(count), picks]
        _learn(stats, [names[pick] for pick in picks.tolist()], x[part], luck[part] < value[part])
        beliefs = Beliefs(stats, 0, options, structure, strengths)
    return Run(new, value)


class _Declared(NamedTuple):
    """Two rules of ten points each, and a rate for each sum of points."""

    rates: Floats

    def __call__(self, x: Bytes) -> Floats:
        """(rows, 1) the declared rate of the new offer."""
        points = (x[:, 1] > 0).astype(np.int64) + (x[:, 2] > 0)
        return np.ascontiguousarray(self.rates[points][:, None])


def _declared(world: World, generator: np.random.Generator, off: float) -> _Declared:
    x = world.customers(20_000, generator)
    points, rates = (x[:, 1] > 0).astype(np.int64) + (x[:, 2] > 0), world.rates(x)[:, -1]
    return _Declared(np.array([min(off * float(rates[points == at].mean()), 1.0) for at in range(3)]))


def _learn(stats: Statistics, offers: Sequence[str], x: Bytes, yes: npt.NDArray[np.bool_]) -> None:
    count = len(offers)
    stats.learn(offers, [0] * count, x, np.where(yes, 100, 0), [1] * count)


def decisions_to_share(new: npt.NDArray[np.bool_], share: float, window: int = WINDOW) -> int | None:
    """How many decisions until the share of the last `window` is so large; None if it never is.

    >>> decisions_to_share(np.array([False, False, True, True]), 0.5, window=2)
    3
    """
    within = np.convolve(new, np.ones(window), "valid") / window
    reached = np.flatnonzero(within >= share)
    return int(reached[0]) + window if len(reached) else None


def run(report: Report, *, small: bool) -> None:
    """Add what was found."""
    seeds, decisions = (2, 2_000) if small else (10, DECISIONS)
    took: dict[str, list[float]] = {"": [], "points_": []}
    starved = dict.fromkeys(took, 0)
    lost: dict[str, list[float]] = {"": [], "points_": []}
    gained: dict[str, list[float]] = {"": [], "points_": []}
    shares: list[float] = []
    for seed in track(range(seeds), "cold start", transient=True):
        world = world_of(np.random.default_rng([seed, 0]))
        known = served(world, seed, MATURE + 1, knows=True, points=False, decisions=decisions)
        never = served(world, seed, MATURE, knows=False, points=False, decisions=decisions)
        shares.append(float(known.new.mean()))
        for name in took:
            found = served(world, seed, MATURE + 1, knows=False, points=name != "", decisions=decisions)
            until = decisions_to_share(found.new, REACHED * shares[-1])
            starved[name] += until is None
            took[name].append(float(decisions if until is None else until))
            lost[name].append(float(found.value.sum() / known.value.sum()))
            gained[name].append(float(found.value.sum() / never.value.sum()))
    told = f"mean of {seeds} seeds, {decisions:,} decisions"
    for name, how in (("", "from its category"), ("points_", f"from points off by a factor of {POINTS_OFF:g}")):
        metric = f"learning.cold_start_{name}"
        against = (
            f"{how}, until {REACHED:.0%} of the share that one that knows gives it ({np.mean(shares):.1%}) in the last "
            f"{WINDOW:,}; {told} ± {_half(took[name]):.0f}, {starved[name]} of them never"
        )
        report.add(f"{metric}decisions_to_90", float(np.mean(took[name])), "decisions", against)
        for what, values, whom in (
            ("value_vs_known", lost[name], "one that knows it"),
            ("value_vs_never", gained[name], "one that never gets it"),
        ):
            value = float(np.mean(values))
            report.add(metric + what, value, "of its value", f"{whom}; {how}; {told} ± {_half(values):.4f}", value)


def _half(values: list[float]) -> float:
    """Half the width of the 95 % interval of the mean."""
    return T_95[len(values)] * float(np.std(values, ddof=1)) / math.sqrt(len(values))
