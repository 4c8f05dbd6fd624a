"""What the places of slates say beside offer and propensity: windows, and what each estimate rests on. Compiled."""

from typing import Any, Final, NamedTuple, Self

import numpy as np
from numba import types
from numpy.typing import NDArray

from models.compiled import FLOATS_1D, FLOATS_2D, INTS, compiled, read_only

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_BOOLS: Final = read_only(types.boolean, 1)
_PICKS: Final = read_only(types.int16, 2)


class Places(NamedTuple):
    """What the places of slates (B, K) say beside offer and propensity; K of which the first `counts` do."""

    counts: Ints
    nothing: Floats
    """(B,) propensity with which silence was drawn, 0 if it was not."""
    window_ends_ms: Ints
    cold: Bools
    rungs: Ints
    evidence: Floats

    @classmethod
    def none(cls, rows: int) -> Self:
        """Of slates without places."""
        ints, bools = np.zeros((rows, 0), np.int64), np.zeros((rows, 0), np.bool_)
        return cls(np.zeros(rows, np.int64), np.zeros(rows), ints, bools, ints, np.zeros((rows, 0)))


class Rests(NamedTuple):
    """What estimates of n offers rest on, of which k have points (engine.ladder)."""

    cold: Bools
    own: Floats
    category: Floats
    place_of: Ints
    """(n,) which of the k each is, -1: none."""
    points: Floats
    """(B, k)"""
    lessons: Floats
    """(B, k) those that speak about the offer at this x."""
    strengths: Floats


def placed(
    picks: NDArray[np.int16],
    propensities: Floats,
    times_ms: Ints,
    windows_ms: Ints,
    silent: Bools,
    rests: Rests,
    with_points: Bools,
) -> Places:
    """What slates (B, K) say; `with_points` (B,) are those for whom points count."""
    return Places(*_places(picks, propensities, times_ms, windows_ms, silent, *rests, with_points))


@compiled(
    *(_PICKS, FLOATS_2D, INTS, INTS, _BOOLS, _BOOLS),
    *(FLOATS_1D, FLOATS_1D, INTS, FLOATS_2D, FLOATS_2D, FLOATS_1D, _BOOLS),
)
def _places(
    picks: Any,
    propensities: Any,
    times_ms: Any,
    windows_ms: Any,
    silent: Any,
    cold: Any,
    own: Any,
    category: Any,
    place_of: Any,
    points: Any,
    lessons: Any,
    strengths: Any,
    with_points: Any,
) -> Any:
    rows, most = picks.shape
    counts, nothing = np.zeros(rows, np.int64), np.zeros(rows)
    window_ends_ms, rungs = np.zeros((rows, most), np.int64), np.zeros((rows, most), np.int64)
    is_cold, evidence = np.zeros((rows, most), np.bool_), np.zeros((rows, most))
    for row in range(rows):
        for place in range(most):
            offer = picks[row, place]
            if offer < 0 or offer == len(windows_ms):
                # Silence was drawn, or nothing was left to draw (propensity 0).
                nothing[row] = propensities[row, place]
                break
            counts[row] += 1
            if not silent[offer]:  # else nothing is offered, so nothing is waited for
                window_ends_ms[row, place] = times_ms[row] + windows_ms[offer]
                is_cold[row, place] = cold[offer]
            k = place_of[offer]
            if k >= 0 and with_points[row] and lessons[row, k] < strengths[k]:
                rungs[row, place], evidence[row, place] = 0, points[row, k]
            elif cold[offer]:
                rungs[row, place], evidence[row, place] = 1, category[offer]
            else:
                rungs[row, place], evidence[row, place] = 2, own[offer]
    return counts, nothing, window_ends_ms, is_cold, rungs, evidence
