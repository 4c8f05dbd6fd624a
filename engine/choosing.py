"""From estimates to slates: arbitration, what is kept back, the draw. One way for deciding, repeating and what-if."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.experiment_arms import BatchArms
from engine.holds import Hold
from engine.rules import Verdict
from models import Slates, choose, dice
from models.exploration import VALUE_MAX

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]


class Chosen(NamedTuple):
    """Slates of B decisions over n offers and silence, and what they were drawn from."""

    slates: Slates
    score: Floats
    """(B, n + 1)"""
    spread: Floats
    may: Bools
    any_eligible: Bools
    """(B,) whether the rules of any offer held."""


def chosen(
    catalogue: Catalogue,
    mean: Floats32,
    sd: Floats32,
    verdicts: list[Verdict],
    channels: Ints,
    times_ms: Ints,
    limits: Ints,
    seeds: Sequence[int],
    *,
    held: Sequence[Sequence[Hold]] | None = None,
    surcharges: Floats | None = None,
    prices: Floats | None = None,
    gates: Floats | None = None,
    arms: BatchArms | None = None,
    unknown: Bools | None = None,
) -> Chosen:
    """Draw slates from estimates (B, n) and all that stands between an estimate and an answer.

    `unknown` (B, n) are offers of which no estimate was kept, because none of the draws depended on it.
    """
    explorer, offers = catalogue.explorer, len(catalogue.offers)
    score, spread, may, any_eligible = catalogue.arbitration.score(
        mean, sd, verdicts, channels, times_ms, explorer.strength, surcharges=surcharges, prices=prices
    )
    if arms is not None:
        costs = catalogue.costs if prices is None else catalogue.costs + prices
        arms.scores(score, spread, mean, sd, catalogue.values, costs, explorer.strength)
    if held is not None:
        catalogue.holds.keep_back(held, may)
    if unknown is not None:
        score[:, :offers][unknown], spread[:, :offers][unknown] = -VALUE_MAX, 0.0
    governed = not explorer.open
    how: dict[str, Any] = {
        "candidates_max": catalogue.config.exploration.candidates,
        "floor": explorer.floor(explorer.strength),
        "silence": offers if catalogue.config.silence else None,
        "method": explorer.method,
        "keeps": explorer.keeps,
    }
    uniforms = dice(np.array(seeds, dtype=np.uint64), int(limits.max(initial=0)))
    arguments = score, spread, may, limits, uniforms
    if arms is None:
        slates = choose(*arguments, gates=gates if governed else None, **how)
    else:
        opened = np.ones(len(limits)) if gates is None else gates
        slates = arms.choose(*arguments, gates=opened, governed=governed, **how)
    if catalogue.contacts is not None:
        # Last: what stays in a slate keeps the propensity that it was drawn with.
        slates = catalogue.holds.trim(slates, held if held is not None else [()] * len(limits), channels)
    return Chosen(slates, score, spread, may, any_eligible)
