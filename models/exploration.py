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

**Silence** is a column like any other: it competes with its value, commonly a point mass at zero. Drawn first, the
slate says nothing; drawn later, the slate ends before it.

Values in are finite or not: NaN in mean takes a column out of the race, NaN in sd counts as 0, and everything is held
within ±`VALUE_MAX`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.dice import dice, seed_of
from models.maximum import race, winners

__all__ = ["BOUND_SDS", "CANDIDATES_MAX", "VALUE_MAX", "Slates", "choose", "dice", "seed_of", "thompson_probabilities"]

CANDIDATES_MAX = 16
"""Columns in the race unless told otherwise; its work grows with the square."""

BOUND_SDS = 2.0
"""The optimistic bound is the mean plus this many standard deviations."""

VALUE_MAX = 1e30
"""Largest magnitude of a mean or standard deviation; sums of a few still fit float32."""

Real = npt.NDArray[np.floating]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Slates:
    """The slates of a batch.

    Args:
        picks: (B, K) int16, columns in slate order, padded with -1.
        propensities: (B, K) float64, probability of the pick given the picks before it. Where silence ended a slate the
            pick is -1 and the propensity that of ending there; 0 where nothing was drawn. So the propensity of a whole
            slate is the product of those above 0.
    """

    picks: npt.NDArray[np.int16]
    propensities: Floats


def choose(
    mean: Real,
    sd: Real,
    eligible: Bools,
    limits: npt.NDArray[np.integer],
    uniforms: Floats,
    *,
    candidates_max: int = CANDIDATES_MAX,
    floor: float = 0.0,
    silence: int | None = None,
) -> Slates:
    """Draw a slate for every customer of a batch.

    At each position, with E columns eligible and not yet picked, column i is drawn with probability
    (1 - floor) · p_i + floor / E, where p_i is its probability to win the race among the candidates left.

    To explore less than Thompson sampling, pass a smaller sd: the propensities are those of what was passed.

    Args:
        mean: (B, n), expected values after arbitration, any unit.
        sd: (B, n), their standard deviations in the same unit; 0 is a point mass.
        eligible: (B, n), what may be shown.
        limits: (B,), most picks of each slate; K at most.
        uniforms: (B, K), numbers in [0, 1), see `dice`.
        candidates_max: columns in the race; at least K are.
        floor: share of the draws that goes to the eligible evenly, 0 .. 1.
        silence: column that stands for saying nothing.

    Returns:
        Picks and propensities. Rows with nothing eligible are all -1.

    Raises:
        ValueError: for shapes that do not fit, a floor outside 0 .. 1 or a silence that is no column.

    >>> mean, sd = np.array([[3.0, 2.0, 1.0]]), np.zeros((1, 3))
    >>> slates = choose(mean, sd, np.array([[True, False, True]]), np.array([3]), np.full((1, 3), 0.5))
    >>> slates.picks.tolist(), slates.propensities.tolist()
    ([[0, 2, -1]], [[1.0, 1.0, 0.0]])
    """
    rows, columns = mean.shape
    positions = uniforms.shape[-1]
    if not mean.shape == sd.shape == eligible.shape:
        raise ValueError(f"mean {mean.shape}, sd {sd.shape} and eligible {eligible.shape} differ in shape")
    if uniforms.shape != (rows, positions) or limits.shape != (rows,):
        raise ValueError(f"limits {limits.shape} and uniforms {uniforms.shape} do not have {rows} rows")
    if silence is not None and not 0 <= silence < columns:
        raise ValueError(f"silence {silence} is none of the {columns} columns")
    if columns > np.iinfo(np.int16).max:
        raise ValueError(f"{columns} columns do not fit the int16 of picks")
    picks = np.full((rows, positions), -1, np.int16)
    propensities = np.zeros((rows, positions))
    if not picks.size or not columns:
        return Slates(picks, propensities)
    state = _Race.start(mean, sd, eligible, max(candidates_max, positions), floor)
    running = np.ones(rows, np.bool_)
    for position in range(positions):
        running &= (state.left > 0) & (limits > position)
        if not running.any():
            break
        column, propensity = state.draw(uniforms[:, position])
        propensities[:, position] = np.where(running, propensity, 0.0)
        shown = running
        if silence is not None:
            running = running & (column != silence)
            shown = running if position else shown
        picks[:, position] = np.where(shown, column, -1)
    return Slates(picks, propensities)


def thompson_probabilities(
    mean: Real, sd: Real, eligible: Bools, *, candidates_max: int = CANDIDATES_MAX, floor: float = 0.0
) -> Floats:
    """The distribution (B, n) from which `choose` draws the first position; for tests and explanations.

    Rows sum to 1, or to 0 where nothing is eligible. Arguments and errors as for `choose`.

    >>> mean, sd = np.array([[0.0, 1.0, 9.0]]), np.ones((1, 3))
    >>> thompson_probabilities(mean, sd, np.array([[True, True, False]])).round(2).tolist()  # Φ(-1/√2) = 0.24
    [[0.24, 0.76, 0.0]]
    """
    rows, columns = mean.shape
    if not rows or not columns:
        return np.zeros((rows, columns))
    state = _Race.start(mean, sd, eligible, max(candidates_max, 1), floor)
    shares, rest = state.shares()
    spread = np.where(state.eligible, rest[:, None], 0.0)
    np.put_along_axis(spread, state.candidates, shares, axis=1)
    return spread


@dataclass
class _Race:
    """A batch of races while slates are drawn from them."""

    candidates: Indices  # (B, C) columns, ascending
    valid: Bools  # (B, C) which of them are in the race
    increments: npt.NDArray[np.float32]  # (B, C, G), see models.maximum
    eligible: Bools  # (B, n) less those picked; exact only where a floor needs it
    left: npt.NDArray[np.int64]  # (B,) how many are eligible and not picked
    floor: float

    @classmethod
    def start(cls, mean: Real, sd: Real, eligible: Bools, candidates_max: int, floor: float) -> _Race:
        if not 0.0 <= floor <= 1.0:
            raise ValueError(f"floor {floor} must be between 0 and 1")
        mean, sd, eligible = _finite(mean, sd, eligible)
        candidates = _candidates(mean, sd, eligible, candidates_max)
        valid = np.take_along_axis(eligible, candidates, axis=1)
        centre = np.take_along_axis(mean, candidates, axis=1).astype(np.float64)
        spread = np.take_along_axis(sd, candidates, axis=1).astype(np.float64)
        left = eligible.sum(axis=1)
        if floor > 0.0:
            eligible = eligible.copy()
        return cls(candidates, valid, race(centre, spread, valid), eligible, left, floor)

    def shares(self) -> tuple[Floats, Floats]:
        """Probability of each candidate (B, C), and of each other eligible column (B,)."""
        shares = winners(self.increments)
        if self.floor == 0.0:
            return shares, np.zeros(len(shares))
        rest = self.floor / np.maximum(self.left, 1)
        shares *= 1.0 - self.floor
        shares += rest[:, None] * self.valid
        return shares, rest

    def draw(self, uniform: Floats) -> tuple[Indices, Floats]:
        """Draw a column in every row and take it out of the race; rows without any give nonsense."""
        shares, rest = self.shares()
        cumulative = np.cumsum(shares, axis=1)
        raced = cumulative[:, -1]
        others = self.left - self.valid.sum(axis=1) if self.floor > 0.0 else None
        total = raced if others is None else raced + rest * others
        mark = np.minimum(uniform * total, np.nextafter(total, 0.0))[:, None]
        each = np.arange(len(shares))
        place = np.minimum((cumulative <= mark).sum(axis=1), shares.shape[1] - 1)
        column = self.candidates[each, place]
        with np.errstate(invalid="ignore"):
            propensity = shares[each, place] / total
        if others is not None:
            for row in np.flatnonzero((mark[:, 0] >= raced) & (others > 0)):  # rare: the floor drew none of the race
                outside = self.eligible[row].copy()
                outside[self.candidates[row]] = False
                rank = int((mark[row, 0] - raced[row]) / rest[row])
                column[row] = np.flatnonzero(outside)[min(rank, int(others[row]) - 1)]
                propensity[row] = rest[row] / total[row]
            self.eligible[each, column] = False
        taken = self.candidates[each, place] == column
        self.increments[each[taken], place[taken]] = 0.0
        self.valid[each[taken], place[taken]] = False
        self.left -= 1
        return column, propensity


def _finite(mean: Real, sd: Real, eligible: Bools) -> tuple[Real, Real, Bools]:
    """Values within ±VALUE_MAX, standard deviations not negative, NaN dealt with; untouched where all is well."""
    if not (mean.min() >= -VALUE_MAX and mean.max() <= VALUE_MAX):  # also when one is NaN
        eligible = eligible & ~np.isnan(mean)
        mean = np.clip(np.where(eligible, mean, 0.0), -VALUE_MAX, VALUE_MAX).astype(mean.dtype)
    if not (sd.min() >= 0.0 and sd.max() <= VALUE_MAX):
        sd = np.clip(np.where(np.isnan(sd), 0.0, sd), 0.0, VALUE_MAX).astype(sd.dtype)
    return mean, sd, eligible


def _candidates(mean: Real, sd: Real, eligible: Bools, candidates_max: int) -> Indices:
    """Columns (B, C), ascending, of the highest optimistic bounds; the highest mean is always among them."""
    rows, columns = mean.shape
    if columns <= candidates_max:
        return np.broadcast_to(np.arange(columns), (rows, columns))
    each = np.arange(rows)
    hoped = np.where(eligible, mean, -np.inf)
    greedy = hoped.argmax(axis=1)
    bound = sd * np.float32(BOUND_SDS)
    bound += hoped
    bound[each, greedy] = np.inf
    cut = columns - candidates_max
    threshold = np.partition(bound, cut, axis=1)[:, cut, None]
    chosen = bound >= threshold
    if np.count_nonzero(chosen) > rows * candidates_max:  # ties at the threshold
        above = bound > threshold
        tied = chosen ^ above
        room = candidates_max - above.sum(axis=1, keepdims=True)
        chosen = above | (tied & (np.cumsum(tied, axis=1) <= room))
    found: Indices = np.flatnonzero(chosen).reshape(rows, candidates_max) - (each * columns)[:, None]
    return found
