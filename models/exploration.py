"""Choosing slates: draw from what you computed.

Thompson sampling (Thompson 1933; Agrawal & Goyal 2013) explores as much as the beliefs are unsure and no more. As
usually written it draws scores and takes the largest, and the probability of what it took is unknown. Here it is the
other way round: the winning probabilities are computed first (`models.maximum`), mixed with a uniform floor, and the
action is drawn from that very distribution. The logged propensity is then exact by construction, whatever the error
of the quadrature; that error can only make exploration a little different from Thompson's, never an estimate from the
log biased.

**Slates are drawn one position after another.** Each position holds the same race among those who are left, with its
own propensity, conditional on the picks before it; the propensity of a slate is the product. (Keeping the first
position's distribution and renormalising it would be noise where the first pick was all but certain: 0.999999 leaves
nothing to renormalise, whereas the race among the rest is as clear as any.)

**Candidates.** The race is held among the `candidates_max` best columns by optimistic bound, mean + 2 sd, and always
the one of the highest mean. Ties go to the lower column, so that every machine makes the same choice. The others can
only be reached by the floor.

**Optimism.** Draws of many columns that are all unsure are mostly noise: whoever was lucky in the draw is shown, and
the customers' answers go to whom the dice liked. With `optimism` κ the race is held as if every mean were κ standard
deviations higher, as an upper confidence bound has it (Lai & Robbins 1985; Li et al. 2010): what is unsure is tried
because it is unsure, and with a small sd to draw with, little is left to the dice. What is the best, and so what
explores, stays with the means as they are.

**Other methods**, drawn from in the same way, with E columns left, b the best of them and m the means:

- `inverse_gap` (Foster & Rakhlin 2020): 1 / (E + γ (m_b - m_i)) for i ≠ b, the rest for b. Theory asks for
  γ = √(E / ε²) with ε² the mean squared error of the estimates; the beliefs know theirs, so γ = √E over the root mean
  square of the standard deviations of who is eligible (those of 0 left out: silence is worth 0 for sure). It grows with
  the root of the lessons, it is the customer's own, and multiplying all values by a constant changes nothing. Passing a
  smaller sd explores less, as with Thompson sampling. Nothing unsure is no exploration.
- `greedy`: b for sure, of equal ones the lowest column. With `floor` this is epsilon-greedy.

**Governed.** `gates` is the chance of each row to explore at all and `keeps` what each column keeps of its chance to
be drawn where it is not the best; the best one left has what the others lose. A row explores or it does not, for the
whole slate: with q the method's distribution after thinning, position one is drawn from gate · q + (1 - gate) · [b].
The pick tells something about which it was, and the next position has the gate that follows from it (Bayes): nobody
rolls whether to explore, and the propensities are those of the mixture. So a slate shows something else than the best
with a probability of at most its gate, and never if that is 0. The same dice under another gate show the same offer
first, or the best.

**Silence** is a column like any other: it competes with its value, commonly a point mass at zero. Drawn first, the
slate says nothing; drawn later, the slate ends before it.

**What stands beside what.** `Caps` says how many columns of a group one slate may have, and which stand alone. A pick
shuts others out, and the next position is the choice among those that are left, as if the others were not there: its
own candidates, its own race. So propensities are exact as ever.

Values in are finite or not: NaN in mean takes a column out of the race, NaN in sd counts as 0, and everything is held
within ±`VALUE_MAX`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from models.dice import dice, seed_of
from models.maximum import (
    BOUND_SDS,
    GREEDY,
    INVERSE_GAP,
    THOMPSON,
    VALUE_MAX,
    columns_that_count,
    columns_that_counted,
    draw_capped,
    draw_governed,
    draw_slates,
    first_shares,
)

__all__ = [
    "BOUND_SDS",
    "CANDIDATES_MAX",
    "METHODS",
    "OPTIMISM_MAX",
    "VALUE_MAX",
    "Caps",
    "Slates",
    "choose",
    "counting",
    "dice",
    "first_probabilities",
    "seed_of",
]

METHODS = {"thompson": THOMPSON, "inverse_gap": INVERSE_GAP, "greedy": GREEDY}
"""Names of the methods and the numbers that compiled functions know them by."""

CANDIDATES_MAX = 16
"""Columns in the race unless told otherwise; its work grows with the square."""

OPTIMISM_MAX = 1_000.0
"""With more the dice would have nothing left to say."""

COLUMNS_MAX = 2**15 - 1
"""What fits the int16 of picks."""

Real = npt.NDArray[np.floating]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class Slates(NamedTuple):
    """The slates of a batch.

    Args:
        picks: (B, K) int16, columns in slate order, padded with -1.
        propensities: (B, K) float64, probability of the pick given the picks before it. Where silence ended a slate the
            pick is -1 and the propensity that of ending there; 0 where nothing was drawn. So the propensity of a whole
            slate is the product of those above 0.
        explored: (B, K) bool, whether a column still eligible and not yet picked had a higher mean than the pick.
    """

    picks: npt.NDArray[np.int16]
    propensities: Floats
    explored: Bools


Ints = npt.NDArray[np.int64]


class Caps(NamedTuple):
    """What may not stand beside what in one slate of n columns; made by `of`."""

    of_column: Ints
    """(n + 1,) where the groups of each column begin in `groups_of`."""
    groups_of: Ints
    of_group: Ints
    """(groups + 1,) where the columns of each group begin in `columns_of`."""
    columns_of: Ints
    most: Ints
    """(groups,) how many columns of each a slate may have."""
    alone: Bools
    """(n,) made at the first place or not at all, and nothing beside it."""

    @classmethod
    def of(cls, columns: int, groups: Sequence[tuple[Sequence[int], int]], alone: Sequence[int] = ()) -> Self:
        """Groups as (columns, how many of them). Raises ValueError for columns that are none, or fewer than one.

        >>> mean, sd = np.array([[3.0, 2.0, 1.0]]), np.zeros((1, 3))
        >>> every, three = np.ones((1, 3), bool), np.array([3])
        >>> caps = Caps.of(3, [([0, 1], 1)])
        >>> choose(mean, sd, every, three, np.full((1, 3), 0.5), caps=caps).picks.tolist()
        [[0, 2, -1]]
        """
        belongs: list[list[int]] = [[] for _ in range(columns)]
        for group, (members, most) in enumerate(groups):
            if most < 1 or not all(0 <= column < columns for column in members):
                raise ValueError(f"group {group}: expected columns of {columns} and at least one of them in a slate")
            for column in members:
                belongs[column].append(group)
        single = np.zeros(columns, np.bool_)
        single[list(alone)] = True
        every = [list(members) for members, _ in groups]
        return cls(*_joined(belongs), *_joined(every), np.array([most for _, most in groups], np.int64), single)


def _joined(lists: Sequence[Sequence[int]]) -> tuple[Ints, Ints]:
    """Where each list begins, and all of them joined."""
    starts = np.cumsum([0, *map(len, lists)])
    return starts.astype(np.int64), np.array([one for some in lists for one in some], np.int64)


def choose(
    mean: Real,
    sd: Real,
    eligible: Bools,
    limits: npt.NDArray[np.integer],
    uniforms: Floats,
    *,
    candidates_max: int = CANDIDATES_MAX,
    floor: float = 0.0,
    optimism: float = 0.0,
    silence: int | None = None,
    method: str = "thompson",
    gates: Floats | None = None,
    keeps: Floats | None = None,
    caps: Caps | None = None,
) -> Slates:
    """Draw a slate for every customer of a batch.

    At each position, with E columns eligible and not yet picked, column i is drawn with probability
    (1 - floor) · p_i + floor / E, where p_i is its probability to win the race among the candidates left, or that of
    another method.

    To explore less than Thompson sampling, pass a smaller sd: the propensities are those of what was passed.

    Args:
        mean: (B, n), expected values after arbitration, any unit; taken without a copy if contiguous float64, as sd.
        sd: (B, n), their standard deviations in the same unit; 0 is a point mass.
        eligible: (B, n), what may be shown.
        limits: (B,), most picks of each slate; K at most.
        uniforms: (B, K), numbers in [0, 1), see `dice`.
        candidates_max: columns in the race; at least as many as a slate has places.
        floor: share of the draws that goes to the eligible evenly, 0 .. 1.
        optimism: standard deviations by which every mean counts as higher in the race, `OPTIMISM_MAX` at most.
        silence: column that stands for saying nothing.
        method: one of `METHODS`.
        gates: (B,), chance of each slate to explore at all, 0 .. 1; all of them if None.
        keeps: (n,), what each column keeps of its chance where it is not the best, 0 .. 1; all of it if None.
        caps: what may not stand beside what; everything may if None.

    Returns:
        Picks, propensities and which picks explored. Rows with nothing eligible are all -1.

    Raises:
        ValueError: for shapes that do not fit, shares outside 0 .. 1, a silence that is no column or an
            unknown method.

    >>> mean, sd = np.array([[3.0, 2.0, 1.0]]), np.zeros((1, 3))
    >>> slates = choose(mean, sd, np.array([[True, False, True]]), np.array([3]), np.full((1, 3), 0.5))
    >>> slates.picks.tolist(), slates.propensities.tolist()
    ([[0, 2, -1]], [[1.0, 1.0, 0.0]])
    """
    rows, columns = mean.shape
    positions = uniforms.shape[-1]
    if uniforms.shape != (rows, positions) or limits.shape != (rows,):
        raise ValueError(f"limits {limits.shape} and uniforms {uniforms.shape} do not have {rows} rows")
    if silence is not None and not 0 <= silence < columns:
        raise ValueError(f"silence {silence} is none of the {columns} columns")
    if columns > COLUMNS_MAX:
        raise ValueError(f"{columns} columns do not fit the int16 of picks")
    arguments = (
        *_checked(mean, sd, eligible, floor, optimism),
        np.ascontiguousarray(limits, np.int64),
        np.ascontiguousarray(uniforms, np.float64),
        candidates_max,
        floor,
        -1 if silence is None else silence,
    )
    if method == "thompson" and gates is None and keeps is None and caps is None:
        return Slates(*draw_slates(*arguments))
    if method not in METHODS:
        raise ValueError(f"method {method!r} is none of {', '.join(METHODS)}")
    shares = _shares("gates", gates, rows), _shares("keeps", keeps, columns)
    if caps is not None:
        if len(caps.alone) != columns:
            raise ValueError(f"caps of {len(caps.alone)} columns, there are {columns}")
        lists = caps.of_column, caps.groups_of, caps.of_group, caps.columns_of, caps.most
        return Slates(*draw_capped(*arguments, METHODS[method], *shares, *lists, caps.alone))
    return Slates(*draw_governed(*arguments, METHODS[method], *shares))


def counting(
    mean: Real,
    sd: Real,
    eligible: Bools,
    limits: npt.NDArray[np.integer],
    *,
    candidates_max: int = CANDIDATES_MAX,
    optimism: float = 0.0,
    method: str = "thompson",
    caps: Caps | None = None,
    picks: npt.NDArray[np.int16] | None = None,
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int64]]:
    """The columns on whose means and standard deviations the slates of `choose` depend.

    `choose` gives the same picks and propensities if the means of all other columns are -`VALUE_MAX` and their
    standard deviations 0. Arguments as for `choose`, with slates of max(limits) places. With `caps` they depend on what
    was drawn, so `picks` are needed.

    Returns:
        (B, W) columns, ascending, padded with -1, and (B,) how many there are.

    >>> few, _ = counting(np.arange(100.0)[None], np.zeros((1, 100)), np.ones((1, 100), bool), np.array([1]))
    >>> few[0].tolist()
    [84, 85, 86, 87, 88, 89, 90, 91, 92, 93, 94, 95, 96, 97, 98, 99, -1, -1]
    """
    positions = max(limits.tolist(), default=0)
    most = mean.shape[1] if method == "inverse_gap" else candidates_max
    if caps is not None:
        assert picks is not None
        lists = caps.of_column, caps.groups_of, caps.of_group, caps.columns_of, caps.most
        return columns_that_counted(
            *_checked(mean, sd, eligible, 0.0, optimism),
            np.ascontiguousarray(picks),
            most,
            *lists,
            caps.alone,
        )
    found: tuple[npt.NDArray[np.int16], npt.NDArray[np.int64]] = columns_that_count(
        *_checked(mean, sd, eligible, 0.0, optimism), np.ascontiguousarray(limits, np.int64), positions, most
    )
    return found


def _shares(name: str, given: Floats | None, length: int) -> Floats:
    """What was given, or ones."""
    if given is None:
        return np.ones(length)
    if given.shape != (length,):
        raise ValueError(f"{name} {given.shape} are not {length}")
    if length and not (given.min() >= 0.0 and given.max() <= 1.0):
        raise ValueError(f"{name} must be between 0 and 1")
    return np.ascontiguousarray(given, np.float64)


def first_probabilities(
    mean: Real,
    sd: Real,
    eligible: Bools,
    *,
    candidates_max: int = CANDIDATES_MAX,
    floor: float = 0.0,
    optimism: float = 0.0,
    method: str = "thompson",
    gates: Floats | None = None,
    keeps: Floats | None = None,
    limits: npt.NDArray[np.integer] | None = None,
) -> Floats:
    """The distribution (B, n) from which `choose` draws the first position; for tests, explanations and evaluation.

    Rows sum to 1, or to 0 where nothing is eligible. Arguments and errors as for `choose`; with `limits` of more than
    `candidates_max` places, as many columns are in the race. With `caps` they never are.

    >>> mean, sd = np.array([[0.0, 1.0, 9.0]]), np.ones((1, 3))
    >>> eligible = np.array([[True, True, False]])
    >>> first_probabilities(mean, sd, eligible).round(1).tolist()  # exact: Φ(-1/√2) = 0.24
    [[0.2, 0.8, 0.0]]
    >>> first_probabilities(mean, sd, eligible, gates=np.array([0.5])).round(2).tolist()
    [[0.12, 0.88, 0.0]]
    >>> first_probabilities(mean, sd, eligible, floor=0.1, method="greedy").round(2).tolist()
    [[0.05, 0.95, 0.0]]
    """
    rows, columns = mean.shape
    if method not in METHODS:
        raise ValueError(f"method {method!r} is none of {', '.join(METHODS)}")
    shares: Floats = first_shares(
        *_checked(mean, sd, eligible, floor, optimism),
        np.ones(rows, np.int64) if limits is None else np.ascontiguousarray(limits, np.int64),
        max(candidates_max, 1),
        floor,
        METHODS[method],
        _shares("gates", gates, rows),
        _shares("keeps", keeps, columns),
    )
    return shares


def _checked(
    mean: Real, sd: Real, eligible: Bools, floor: float, optimism: float
) -> tuple[Floats, Floats, Bools, float]:
    """The arrays as compiled functions take them, the same ones if they are so already."""
    if not mean.shape == sd.shape == eligible.shape:
        raise ValueError(f"mean {mean.shape}, sd {sd.shape} and eligible {eligible.shape} differ in shape")
    if not 0.0 <= floor <= 1.0:
        raise ValueError(f"floor {floor} must be between 0 and 1")
    if not 0.0 <= optimism <= OPTIMISM_MAX:
        raise ValueError(f"optimism {optimism} must be between 0 and {OPTIMISM_MAX:g}")
    return (
        np.ascontiguousarray(mean, np.float64),
        np.ascontiguousarray(sd, np.float64),
        np.ascontiguousarray(eligible, np.bool_),
        float(optimism),
    )
