"""Our learner as the benchmarks of learning drive it: rows in, actions with propensities out, rewards back.

Only what the engine itself uses takes part: `models.Transform`, `Statistics`, `fit`, `Policy`, `choose`.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from bench.bakeoff import CLIP_SDS
from models import InputSpec, Policy, PosteriorOptions, Statistics, Transform, choose, dice, fit, pack_offer

BATCH_ROWS_MAX = 32

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class Decided(NamedTuple):
    """Actions of a batch (B,), each an index, and the probabilities they were drawn with."""

    actions: Ints
    propensities: Floats


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
    """

    def __init__(
        self,
        columns: int,
        hot: npt.NDArray[np.bool_],
        actions: int,
        seed: int,
        options: PosteriorOptions | None = None,
        silence: float | None = None,
    ) -> None:
        names = [f"x{column}" for column in range(columns)]
        ends = [1.0 if is_hot else CLIP_SDS for is_hot in hot.tolist()]
        inputs = [InputSpec(name, "linear", -end, end) for name, end in zip(names, ends, strict=True)]
        self._transform = Transform.compile(inputs, names)
        self._options = options or PosteriorOptions()
        self._offers = [f"{action:03d}" for action in range(actions)]
        self._stats = Statistics(self._transform.dimension, self._transform.version)
        self._policy = Policy.empty(
            self._offers, self._transform.dimension, self._options, self._transform.version
        )
        self._seed = seed
        self._silence = silence
        self._decided = 0
        self.period = 0
        """The period that lessons belong to; whoever drives it counts it up."""

    def expected(self, x: Floats32) -> Floats:
        """Expected rewards (B, actions), held within 0 .. 1."""
        mean, _ = self._policy.score(self._transform.apply(x.astype(np.float64)))
        return np.clip(mean.astype(np.float64), 0.0, 1.0)

    def decide(self, x: Floats32) -> Decided:
        """Thompson sampling, as the engine does it."""
        count = len(x)
        mean, sd = self._policy.score(self._transform.apply(x.astype(np.float64)))
        if self._silence is not None:
            mean = np.hstack([mean, np.full((count, 1), self._silence, mean.dtype)])
            sd = np.hstack([sd, np.zeros((count, 1), sd.dtype)])
        numbers = np.arange(self._decided, self._decided + count, dtype=np.uint64)
        self._decided += count
        uniforms = dice(numbers + np.uint64(self._seed << 40), 1)
        slates = choose(mean, sd, np.ones(mean.shape, bool), np.ones(count, np.int64), uniforms)
        return Decided(slates.picks[:, 0].astype(np.int64), slates.propensities[:, 0])

    def learn(self, x: Floats32, actions: Ints, rewards: Floats) -> None:
        """Lessons of one period; the next decision knows them."""
        if not len(actions):
            return
        vectors = self._transform.apply(x.astype(np.float64))
        offers = [self._offers[action] for action in actions.tolist()]
        targets = np.rint(np.clip(rewards, 0.0, 1.0) * 100).astype(np.int64)
        count = len(offers)
        touched = self._stats.learn(offers, [self.period] * count, vectors, targets, [1] * count)
        self.refit(sorted(touched))

    def refit(self, offers: list[str] | None = None) -> None:
        """Beliefs of these offers anew, or of all."""
        beliefs = fit(self._stats, self._offers if offers is None else offers, self.period, self._options)
        changes = {offer: pack_offer(belief) for offer, belief in beliefs.items()}
        self._policy = self._policy.replaced(changes, version=self._policy.version + 1)


def batches(rows: int) -> Iterator[slice]:
    """How rows are cut: one by one at first, then a twentieth of what was seen, `BATCH_ROWS_MAX` at most.

    >>> [(part.start, part.stop) for part in batches(60)][-3:]
    [(54, 56), (56, 58), (58, 60)]
    """
    at = 0
    while at < rows:
        size = min(max(1, at // 20), BATCH_ROWS_MAX, rows - at)
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
