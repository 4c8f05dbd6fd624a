"""Cross-fitting: beliefs about a row that are learnt without it, nor from anything else of the same person.

A model that saw a row knows its noise, and a policy judged on what it was learnt from looks better than it is. So
people are cut into folds by a hash of their name, and every fold is scored by the beliefs that the others teach.

Rewards are in any unit. Each action has a scale of its own, what the log has seen of it: one that brings a billion
would otherwise leave no digits for one that brings forty.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np
import numpy.typing as npt

from models.policy import Policy, pack_offer
from models.posterior import PosteriorOptions
from models.statistics import TARGET_STEPS, Statistics
from models.value import fit

FOLDS = 5
Floats = npt.NDArray[np.float64]


def folds_of(people: Iterable[str]) -> npt.NDArray[np.int64]:
    """The fold of each name, the same one whatever else is in the log.

    >>> folds_of(["ann", "bob", "ann"]).tolist()
    [4, 2, 4]
    """
    return np.fromiter((crc32(b"fold:" + name.encode()) % FOLDS for name in people), np.int64)


@dataclass(frozen=True)
class Fitted:
    """What one fold is scored with."""

    policy: Policy
    """Of rewards as shares of each action's scale."""
    low: Floats
    """(K,) where the scales begin."""
    span: Floats
    """(K,) how long they are."""

    def score(self, x: npt.NDArray[np.int8]) -> tuple[Floats, Floats]:
        """(n, K) means and standard deviations of the reward of each action at vectors (n, d)."""
        mean, sd = self.policy.score(x)
        return self.low + self.span * mean, self.span * sd


def crossfit(
    x: npt.NDArray[np.int8],
    actions: npt.NDArray[np.int64],
    rewards: Floats,
    folds: npt.NDArray[np.int64],
    names: Sequence[str],
    options: PosteriorOptions,
    within: tuple[float, float] | None = None,
) -> list[Fitted]:
    """What each of the `FOLDS` folds is scored with, learnt from all others; from nothing, it is the prior.

    Args:
        x: (n, d) int8, the vectors decided with.
        actions: (n,) index in `names`.
        rewards: (n,), they are rounded to hundredths of their action's scale.
        folds: (n,) from `folds_of`.
        names: the K actions, column by column.
        options: the prior; its rate is replaced by the mean of the rows learnt from, as a share of their scales.
        within: what every scale has in it, seen or not. An action whose rewards were all the same is sure without.
    """
    low, high = (np.full(len(names), end) for end in (within or (np.inf, -np.inf)))
    np.minimum.at(low, actions, rewards)
    np.maximum.at(high, actions, rewards)
    seen = low <= high
    low, span = np.where(seen, low, 0.0), np.where(seen, high - low, 1.0)
    targets = (rewards - low[actions]) / np.where(span > 0.0, span, 1.0)[actions]
    chosen = [names[action] for action in actions.tolist()]
    steps = np.rint(targets * TARGET_STEPS).astype(np.int64)
    parts = []
    for fold in range(FOLDS):
        mine = np.flatnonzero(folds == fold)
        part = Statistics(x.shape[1], 0)
        part.learn([chosen[row] for row in mine.tolist()], [0] * len(mine), x[mine], steps[mine], [1] * len(mine))
        parts.append(part)
    fitted = []
    for fold in range(len(parts)):
        others = Statistics(x.shape[1], 0)
        for at, part in enumerate(parts):
            if at != fold:
                others.merge(part)
        learnt = targets[folds != fold]
        rate = min(max(float(learnt.mean()), 0.0), 1.0) if len(learnt) else options.prior_rate
        prior = replace(options, prior_rate=rate)
        beliefs = fit(others, names, 0, prior)
        policy = Policy.empty(names, x.shape[1], prior)
        learned = policy.replaced({name: pack_offer(belief) for name, belief in beliefs.items()}, fold + 1)
        fitted.append(Fitted(learned, low, span))
    return fitted
