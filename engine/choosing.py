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


class Weighed(NamedTuple):
    """What each of n offers, and silence, is worth in B decisions, and what may be chosen."""

    score: Floats
    """(B, n + 1)"""
    spread: Floats
    may: Bools
    any_eligible: Bools
    """(B,) whether the rules of any offer held."""


class Drawn(NamedTuple):
    """Slates of B decisions."""

    slates: Slates
    picks: NDArray[np.int16]
    """As they were drawn, before limits shortened any slate."""


def weighed(
    catalogue: Catalogue,
    mean: Floats32,
    sd: Floats32,
    verdicts: list[Verdict],
    channels: Ints,
    times_ms: Ints,
    *,
    held: Sequence[Sequence[Hold]] | None = None,
    surcharges: Floats | None = None,
    prices: Floats | None = None,
    arms: BatchArms | None = None,
    unknown: Bools | None = None,
) -> Weighed:
    """Weigh estimates (B, n) with all that stands between them and an answer.

    `unknown` (B, n) are offers of which no estimate was kept, because none of the draws depended on it.
    """
    explorer, offers = catalogue.explorer, len(catalogue.offers)
    score, spread, may, any_eligible = catalogue.arbitration.score(
        mean, sd, verdicts, channels, times_ms, explorer.strength, surcharges=surcharges, prices=prices
    )
    if arms is not None:
        costs = np.broadcast_to(catalogue.costs if prices is None else catalogue.costs + prices, mean.shape)
        if surcharges is not None:
            costs = costs + surcharges[:, None] * catalogue.arbitration.contact
        gains = catalogue.weighing.unweighted(verdicts, channels)
        arms.scores(score, spread, catalogue.arbitration.held(mean), sd, gains, costs, explorer.strength)
    if held is not None:
        catalogue.holds.keep_back(held, may)
    if unknown is not None:
        score[:, :offers][unknown], spread[:, :offers][unknown] = -VALUE_MAX, 0.0
    return Weighed(score, spread, may, any_eligible)


def drawn(
    catalogue: Catalogue,
    weights: Weighed,
    channels: Ints,
    limits: Ints,
    seeds: Sequence[int] | NDArray[np.uint64],
    *,
    held: Sequence[Sequence[Hold]] | None = None,
    gates: Floats | None = None,
    arms: BatchArms | None = None,
) -> Drawn:
    """Draw slates of at most `limits` (B,) places."""
    explorer = catalogue.explorer
    governed = not explorer.open
    how: dict[str, Any] = {
        **explorer.race,
        "floor": explorer.floor(explorer.strength),
        "silence": len(catalogue.offers) if catalogue.config.silence else None,
        "method": explorer.method,
        "keeps": explorer.keeps,
        "caps": catalogue.caps,
    }
    uniforms = dice(np.asarray(seeds, np.uint64), max(limits.tolist(), default=0))
    arguments = weights.score, weights.spread, weights.may, limits, uniforms
    if arms is None:
        slates = choose(*arguments, gates=gates if governed else None, **how)
    else:
        opened = np.ones(len(limits)) if gates is None else gates
        slates = arms.choose(*arguments, gates=opened, governed=governed, **how)
    picks = slates.picks
    if catalogue.contacts is not None:
        # Last: what stays in a slate keeps the propensity that it was drawn with.
        slates = catalogue.holds.trim(slates, held if held is not None else [()] * len(limits), channels)
    return Drawn(slates, picks)
