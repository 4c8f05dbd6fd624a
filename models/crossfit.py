"""Cross-fitting: beliefs about a row that are learnt without it, nor from anything else of the same person.

A model that saw a row knows its noise, and a policy judged on what it was learnt from looks better than it is. So
people are cut into folds by a hash of their name, and every fold is scored by the beliefs that the others teach.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from zlib import crc32

import numpy as np
import numpy.typing as npt

from models.policy import Policy, pack_offer
from models.posterior import PosteriorOptions
from models.statistics import TARGET_STEPS, Statistics
from models.value import fit

FOLDS = 5


def folds_of(people: Iterable[str]) -> npt.NDArray[np.int64]:
    """The fold of each name, the same one whatever else is in the log.

    >>> folds_of(["ann", "bob", "ann"]).tolist()
    [4, 2, 4]
    """
    return np.fromiter((crc32(b"fold:" + name.encode()) % FOLDS for name in people), np.int64)


def crossfit(
    x: npt.NDArray[np.int8],
    actions: npt.NDArray[np.int64],
    targets: npt.NDArray[np.float64],
    folds: npt.NDArray[np.int64],
    names: Sequence[str],
    options: PosteriorOptions,
) -> list[Policy]:
    """The policy of each of the `FOLDS` folds, learnt from all others; from nothing, it is the prior.

    Args:
        x: (n, d) int8, the vectors decided with.
        actions: (n,) index in `names`.
        targets: (n,) rewards of 0 .. 1; they are rounded to hundredths.
        folds: (n,) from `folds_of`.
        names: the actions, column by column of the policies.
        options: the prior; its rate is replaced by the mean target of the rows learnt from.
    """
    chosen = [names[action] for action in actions.tolist()]
    steps = np.rint(targets * TARGET_STEPS).astype(np.int64)
    parts = []
    for fold in range(FOLDS):
        mine = np.flatnonzero(folds == fold)
        part = Statistics(x.shape[1], 0)
        part.learn([chosen[row] for row in mine.tolist()], [0] * len(mine), x[mine], steps[mine], [1] * len(mine))
        parts.append(part)
    policies = []
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
        policies.append(policy.replaced({name: pack_offer(belief) for name, belief in beliefs.items()}, fold + 1))
    return policies
