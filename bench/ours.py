"""Our learner as the benchmarks of learning drive it: rows in, actions with propensities out, rewards back.

Only what the engine itself uses takes part: `models.Transform`, `Statistics`, `Beliefs`, `Policy`, `choose`, `Terms`.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from engine.terms import MILLIONTHS, OfValue, Terms
from models import (
    DIMENSION_MAX,
    TARGET_STEPS,
    Beliefs,
    InputSpec,
    Policy,
    PosteriorOptions,
    Statistics,
    Strengths,
    Structure,
    Transform,
    choose,
    dice,
    learn_strengths,
    pack_offer,
)
from models.statistics import Sums

SINGLE_ROWS: Final = 1_000
BATCH_ROWS: Final = 10
"""Cadence of the lessons: that of MABWiser's in `bench.peers.grid`; Vowpal Wabbit and River learn row by row."""
RANGE_SDS: Final = 3.0
"""Standardised values are inputs from -3 to 3."""
WAVES: Final = 192
"""Or as many as there is room for. Configurations have 64 unless they say otherwise; more of them cost memory and time,
as the square."""
CANDIDATES: Final = 32
OPTIONS: Final = PosteriorOptions(prior_strength=0.3, prior_rate=0.3)
"""One configuration for all sets, chosen by their mean loss, as each rival's is: rewards of a few tenths, and inputs
that are known to say something."""
WHOLE_EVERY: Final = 1.1
STRENGTHS_EVERY: Final = 1.25
"""So many times the lessons of the last time."""
NEAREST: Final = 1 << 31
"""Salt by which a target is the nearest hundredth."""

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Decided(NamedTuple):
    """Actions of a batch (B,), each an index, and the probabilities they were drawn with."""

    actions: Ints
    propensities: Floats


class Exploring(NamedTuple):
    """As `exploration` of a configuration."""

    strength: float
    optimism: float = 0.0


OPTIMISTIC: Final = Exploring(0.02, 1.0)
"""For the bake-off, where an answer is clear and known ten rows later at most."""
DRAWN: Final = Exploring(0.3)
"""For campaigns, where many are decided before an outcome is known: with optimism all get the same unsure offer."""


def terms(low: float, high: float, value: float) -> Terms:
    """Of rewards in this range, of which a response is thought to bring `value`."""
    least, most, worth = (round(each * MILLIONTHS) for each in (low, high, value))
    return Terms({}, {}, None, least, most, worth)


class Learner(Protocol):
    """What a benchmark needs of a learner. Rewards are in 0 .. 1; a batch is decided before it is learnt from."""

    def decide(self, x: Floats32) -> Decided:
        """Actions for rows (B, d)."""

    def learn(self, x: Floats32, actions: Ints, rewards: Floats) -> None:
        """The rewards of actions taken for rows (B, d)."""


class Ours:
    """The learning core with an offer an action.

    Args:
        columns: d of the rows it will be given, prepared as in `bench.bakeoff`.
        hot: (d,) bool, columns that are 0 or 1.
        actions: how many.
        seed: of its dice.
        options: prior and forgetting.
        silence: expected reward of doing nothing, as one more action after the others; None if there is no such action.
        floor: share of the actions that is drawn evenly.
        exploring: how it explores.
        terms: what rewards stand for, in millionths, if they are not shares of 1.
    """

    def __init__(
        self,
        columns: int,
        hot: npt.NDArray[np.bool_],
        actions: int,
        seed: int,
        options: PosteriorOptions = OPTIONS,
        silence: float | None = None,
        floor: float = 0.0,
        exploring: Exploring = OPTIMISTIC,
        terms: Terms | None = None,
    ) -> None:
        names = [f"x{column}" for column in range(columns)]
        ends = [1.0 if is_hot else RANGE_SDS for is_hot in hot.tolist()]
        inputs = [InputSpec(name, "linear", -end, end) for name, end in zip(names, ends, strict=True)]
        waves = max(0, min(WAVES, DIMENSION_MAX - 1 - columns))
        self._transform = Transform.compile(inputs, names, waves=waves)
        self._offers = [f"{action:03d}" for action in range(actions)]
        self._terms = terms
        self._structure = Structure(waves, valued=frozenset() if terms is None else frozenset(self._offers))
        self._options = options
        self._strengths = Strengths.declared(options)
        self._stats = Statistics(self._transform.dimension, self._transform.version)
        self._policy = Policy.empty(self._offers, 1 + columns, self._options, self._transform.version)
        self._beliefs: Beliefs | None = None
        self._seed = seed
        self._silence = silence
        self._floor = floor
        self._exploring = exploring
        self._decided = self._learnt = self._made_whole = self._strengthened = 0
        self.period = 0
        """The period that lessons belong to; whoever drives it counts it up."""

    def expected(self, x: Floats32) -> Floats:
        """Expected rewards (B, actions), held within what they can be."""
        mean, _ = self._believed(x)
        return mean.astype(np.float64)

    def decide(self, x: Floats32) -> Decided:
        """Thompson sampling, as the engine does it."""
        count = len(x)
        mean, sd = self._believed(x)
        if self._silence is not None:
            mean = np.hstack([mean, np.full((count, 1), self._silence, mean.dtype)])
            sd = np.hstack([sd, np.zeros((count, 1), sd.dtype)])
        numbers = np.arange(self._decided, self._decided + count, dtype=np.uint64)
        self._decided += count
        uniforms = dice(numbers + np.uint64(self._seed << 40), 1)
        slates = choose(
            mean.astype(np.float64),
            self._exploring.strength * sd.astype(np.float64),
            np.ones(mean.shape, bool),
            np.ones(count, np.int64),
            uniforms,
            candidates_max=CANDIDATES,
            floor=self._floor,
            optimism=self._exploring.optimism / self._exploring.strength,
        )
        return Decided(slates.picks[:, 0].astype(np.int64), slates.propensities[:, 0])

    def learn(self, x: Floats32, actions: Ints, rewards: Floats, responses: Bools | None = None) -> None:
        """Lessons of one period; the next decision knows them. With `terms` it has to be told who responded."""
        if len(actions):
            self._learnt += len(actions)
            self._refit(self._add(x, actions, rewards, 1, responses))

    def correct(self, x: Floats32, actions: Ints, told: Floats, rewards: Floats, responses: Bools) -> None:
        """Other rewards of lessons of this period than were told before."""
        if len(actions):
            touched = self._add(x, actions, told, -1, responses)
            self._add(x, actions, rewards, 1, responses)
            self._refit(touched)

    def _add(self, x: Floats32, actions: Ints, rewards: Floats, weight: int, responses: Bools | None) -> list[str]:
        """Offers whose sums changed."""
        offers = [self._offers[action] for action in actions.tolist()]
        vectors = self._transform.apply(x.astype(np.float64))
        count = len(offers)
        periods, signs = [self.period] * count, [weight] * count
        return sorted(self._stats.learn(offers, periods, vectors, self._targets(rewards), signs, responses))

    def _targets(self, rewards: Floats) -> Ints:
        if self._terms is None:
            return np.rint(np.clip(rewards, 0.0, 1.0) * TARGET_STEPS).astype(np.int64)
        return np.array([self._terms.target(round(one * MILLIONTHS), NEAREST) for one in rewards.tolist()], np.int64)

    @property
    def _sums(self) -> Sums:
        terms = self._terms
        return self._stats if terms is None else OfValue(self._stats, dict.fromkeys(self._offers, terms.scale))

    def _believed(self, x: Floats32) -> tuple[Floats32, Floats32]:
        """Means, held within what can be as in arbitration, and standard deviations: (B, actions) each."""
        mean, sd = self._policy.score(self._transform.apply(x.astype(np.float64)))
        least, most = (0.0, 1.0) if self._terms is None else self._terms.bounds
        return np.clip(mean, least, most), sd

    def _refit(self, touched: list[str]) -> None:
        """Beliefs of these offers anew, and of all where there are so many more lessons, as the engine does it."""
        beliefs = self._beliefs
        if beliefs is None or self._learnt >= WHOLE_EVERY * self._made_whole:
            if self._learnt >= STRENGTHS_EVERY * self._strengthened:
                self._strengths = learn_strengths(self._sums, self.period, self._options, self._structure)
                self._strengthened = self._learnt
            beliefs = Beliefs(self._sums, self.period, self._options, self._structure, self._strengths)
            self._beliefs, self._made_whole = beliefs, self._learnt
            found = beliefs.of(self._offers)
        else:
            found = beliefs.renewed(self._sums, touched)
        changes = {offer: pack_offer(belief) for offer, belief in found.items()}
        self._policy = self._policy.replaced(changes, version=self._policy.version + 1)


def batches(rows: int) -> Iterator[slice]:
    """How rows are cut: the first `SINGLE_ROWS` one by one, then `BATCH_ROWS` at a time.

    >>> [(part.start, part.stop) for part in batches(1_012)][-3:]
    [(999, 1000), (1000, 1010), (1010, 1012)]
    """
    at = 0
    while at < rows:
        size = 1 if at < SINGLE_ROWS else min(BATCH_ROWS, rows - at)
        yield slice(at, at + size)
        at += size


def actions_of(learner: Learner, x: Floats32, y: Ints) -> Ints:
    """What a learner does on a set, told of each row whether its action was the label, in mini-batches."""
    taken = np.empty(len(y), np.int64)
    for part in batches(len(y)):
        actions, _ = learner.decide(x[part])
        taken[part] = actions
        learner.learn(x[part], actions, (actions == y[part]).astype(np.float64))
    return taken
