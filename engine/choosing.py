"""From estimates to slates: arbitration, what is kept back, the draw. One way for deciding, repeating and what-if."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import Catalogue
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
    unknown: Bools | None = None,
) -> Chosen:
    """Draw slates from estimates (B, n) and all that stands between an estimate and an answer.

    `unknown` (B, n) are offers of which no estimate was kept, because none of the draws depended on it.
    """
    explorer, offers = catalogue.explorer, len(catalogue.offers)
    score, spread, may, any_eligible = catalogue.arbitration.score(
        mean, sd, verdicts, channels, times_ms, explorer.strength, surcharges=surcharges, prices=prices
    )
    if held is not None:
        catalogue.holds.keep_back(held, may)
    if unknown is not None:
        score[:, :offers][unknown], spread[:, :offers][unknown] = -VALUE_MAX, 0.0
    slates = choose(
        score,
        spread,
        may,
        limits,
        dice(np.array(seeds, dtype=np.uint64), int(limits.max(initial=0))),
        candidates_max=catalogue.config.exploration.candidates,
        floor=explorer.floor(explorer.strength),
        silence=offers if catalogue.config.silence else None,
        method=explorer.method,
        gates=None if explorer.open else gates,
        keeps=explorer.keeps,
    )
    return Chosen(slates, score, spread, may, any_eligible)
