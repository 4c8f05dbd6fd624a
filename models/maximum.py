"""Who is the maximum? Winning probabilities of independent Gaussian scores, by one-dimensional quadrature.

Thompson sampling draws a score from every belief and takes the largest; candidate i wins with probability

    p_i = ∫ f_i(t) Π_{j≠i} F_j(t) dt,      f, F density and distribution of N(mean_i, sd_i²).

Written as p_i = ∫ Π_j F_j(t) · d log F_i(t) it asks for one thing a candidate, log F_i on a grid of t that all share.
Between two grid points the mass Δ Π F is split in proportion to the increments Δ log F_i, which is exact where the
log F_i grow in proportion, and sums to one whatever the grid. A matrix of log F_i thus holds everything: taking a
candidate out of the race is leaving out its row, which is how a slate is drawn pick after pick.

With an optimism the race is held as if every mean were so many standard deviations higher.

The grid is the union of `NODES` of every candidate, so narrow candidates are resolved among wide ones. The largest
error of a probability seen in tests, over narrow, wide, many, few and point masses, is below 0.01 (`tests/models`).
That error biases nothing: what is logged is the probability drawn from, see `models.exploration`.

The textbook way, Gauss-Hermite nodes of each candidate against every other, needs twice the evaluations for 10 nodes,
and is off by up to 1/20 wherever a narrow rival is a step between two nodes.

Compiled, row by row (`models.compiled`). Measured for 100 columns, 16 candidates and 3 positions: 3.3 µs a row, of
which 1.2 read log F from its table, 0.4 sort the grid and 0.2 are each position; 3 µs a call besides. With 1,000
columns it is 4.6 µs a row.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
from numba import types

from models.compiled import BOOLS_2D, FLOAT, FLOATS_1D, FLOATS_2D, INT, INTS, compiled, inlined, read_only

NODES: Final = (-1.8, -0.6, 0.4, 1.3, 2.3)
"""Grid points of a candidate in its standard deviations; more lie above, where races are decided."""

Z_MAX: Final = 10.0
"""Distances in standard deviations are cut here; nothing beyond ever wins."""

POINT_MASS: Final = 1e-9
"""A standard deviation under this share of the row's range counts as this share: ties of point masses share equally."""

PROBABILITY_MIN: Final = 1e-5
"""Smaller winning probabilities become 0. The quadrature gives up to 5e-6 to a point mass that has surely lost; and no
importance weight needs to be larger than the inverse."""

BOUND_SDS: Final = 2.0
"""The optimistic bound, by which candidates are found, is the mean plus this many standard deviations, and those of the
optimism."""

VALUE_MAX: Final = 1e30
"""Largest magnitude of a mean or standard deviation."""

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Picks = npt.NDArray[np.int16]

_EACH: Final = len(NODES)
_NODES: Final = np.array(NODES)
_STEPS: Final = 128.0
_MIDDLE: Final = Z_MAX * _STEPS
_END: Final = 2 * Z_MAX * _STEPS
_SLOPE_MIN: Final = 1e-3
_EXP_MAX: Final = 32.0


def log_f_table() -> Floats:
    """-log F of the standard Gaussian from -`Z_MAX` in steps of 1/128, then two zeros.

    Straight lines between its values are off by at most 8e-6, and grow as log F does.
    """
    half = math.sqrt(0.5)
    below = [-math.log(math.erfc(step / _STEPS * half) / 2) for step in range(int(_MIDDLE), 0, -1)]
    above = [-math.log1p(-math.erfc(step / _STEPS * half) / 2) for step in range(int(_MIDDLE))]
    return np.array([*below, *above, 0.0, 0.0])


_LOG_F: Final = log_f_table()


@inlined()
def _candidates(
    mean: Floats, sd: Floats, eligible: Bools, optimism: float, hoped: Floats, unsure: Floats, found: Ints
) -> tuple[int, int]:
    """Write the columns of the highest optimistic bounds to `found`, ascending; the highest mean is among them.

    `hoped` becomes the means, -inf where a column has no chance, and `unsure` the standard deviations, both finite.
    Returns how many columns have a chance, and how many are candidates.
    """
    columns, most = len(mean), len(found)
    bound_sds = BOUND_SDS + optimism
    left = 0
    for column in range(columns):
        likely, spread = mean[column], sd[column]
        possible = eligible[column] and likely == likely
        hoped[column] = min(max(likely, -VALUE_MAX), VALUE_MAX) if possible else -np.inf
        unsure[column] = min(max(spread, 0.0), VALUE_MAX) if spread == spread else 0.0
        left += possible
    if left <= most:
        count = 0
        for column in range(columns):
            if hoped[column] > -np.inf:
                found[count] = column
                count += 1
        return left, count
    count, greedy = 0, 0
    best = least = -np.inf
    for column in range(columns):  # found holds the best so far, the highest bound first
        if hoped[column] > best:
            best, greedy = hoped[column], column
        bound = hoped[column] + bound_sds * unsure[column]
        if bound > least:
            place = min(count, most - 1)
            while place and hoped[found[place - 1]] + bound_sds * unsure[found[place - 1]] < bound:
                found[place] = found[place - 1]
                place -= 1
            found[place] = column
            count = min(count + 1, most)
            if count == most:
                least = hoped[found[most - 1]] + bound_sds * unsure[found[most - 1]]
    missing = True
    for i in range(most):
        missing &= found[i] != greedy
    if missing:
        found[most - 1] = greedy
    for i in range(1, most):
        column, place = found[i], i
        while place and found[place - 1] > column:
            found[place] = found[place - 1]
            place -= 1
        found[place] = column
    return left, most


@inlined()
def _start(
    hoped: Floats, unsure: Floats, optimism: float, found: Ints, log_f: Floats, total: Floats, scratch: Floats
) -> int:
    """Write -log F of every candidate (rows) at every point of the common grid (columns, then a 0 for infinity).

    Returns how many points the grid has.
    """
    count, cells = len(found), _EACH * len(found)
    nodes, grid = scratch[0], scratch[1]
    best, span = -np.inf, 0.0
    for i in range(count):
        best = max(best, hoped[found[i]] + optimism * unsure[found[i]])
    for i in range(count):
        span = max(span, best - hoped[found[i]] - optimism * unsure[found[i]], unsure[found[i]])
    if span == 0.0:
        span = 1.0
    for i in range(count):
        centre = (hoped[found[i]] + optimism * unsure[found[i]] - best) / span  # at most 0: large values lose no digits
        spread = max(unsure[found[i]] / span, POINT_MASS)
        for k in range(_EACH):
            nodes[_EACH * i + k] = centre + spread * _NODES[k]
    # Sorted by counting who is less: 6,400 comparisons, but in vectors and without a branch to mispredict, take 0.4 µs
    # where a sort of 80 takes 0.7 µs at the least. Equals take the next place that is free.
    grid[:cells] = np.nan
    for g in range(cells):
        less = np.int32(0)
        for h in range(cells):
            less += np.int32(nodes[h] < nodes[g])
        place = int(less)
        while grid[place] == nodes[g]:
            place += 1
        grid[place] = nodes[g]
    total[: cells + 1] = 0.0
    for i in range(count):
        centre = (hoped[found[i]] + optimism * unsure[found[i]] - best) / span
        scale = _STEPS / max(unsure[found[i]] / span, POINT_MASS)
        row = log_f[i]
        for g in range(cells):
            step = min(max((grid[g] - centre) * scale + _MIDDLE, 0.0), _END)
            whole = np.uint32(step)
            low = _LOG_F[whole]
            row[g] = low + (step - whole) * (_LOG_F[whole + np.uint32(1)] - low)
            total[g] += row[g]
        row[cells] = 0.0
    return cells


@inlined(reorders=True)
def _winners(log_f: Floats, total: Floats, racing: Bools, cells: int, scratch: Floats, shares: Floats) -> None:
    """Write the winning probabilities of those racing to `shares`; they sum to 1. Nobody racing is no race."""
    all_below, mass = scratch[0], scratch[1]
    for g in range(cells + 1):
        all_below[g] = _exp_minus(total[g])
    for g in range(cells):  # Δ Π F over Δ log Π F in each cell; a quotient of two small differences has no digits
        growth, right = total[g] - total[g + 1], all_below[g + 1]
        quotient = (right - all_below[g]) / growth
        mass[g] = quotient if growth > _SLOPE_MIN else right * (1.0 - growth * (0.5 - growth / 6.0))
    summed = 0.0
    for i in range(len(racing)):
        shares[i] = 0.0
        if racing[i]:
            row = log_f[i]
            won = 0.0
            for g in range(cells):
                won += (row[g] - row[g + 1]) * mass[g]
            shares[i] = won
            summed += won
    kept = 0.0
    for i in range(len(racing)):
        if shares[i] < PROBABILITY_MIN * summed:
            shares[i] = 0.0
        kept += shares[i]
    for i in range(len(racing)):
        shares[i] /= kept


@inlined(reorders=True)
def _exp_minus(t: float) -> float:
    """exp(-t) for t ≥ 0, held at exp(-32): a Taylor series of t/256, squared eight times.

    Off by at most 2e-6 of itself. A call of exp() would take ten times as long, as it keeps a loop from running in
    vectors.
    """
    y = min(t, _EXP_MAX) / -256.0
    e = 1.0 + y * (1.0 + y * (1 / 2 + y * (1 / 6 + y * (1 / 24 + y * (1 / 120)))))
    for _ in range(8):
        e *= e
    return e


@inlined()
def _outside(hoped: Floats, found: Ints, picked: Picks, rank: int) -> int:
    """The column of a rank among those that have a chance, are not in the race and not picked."""
    nearest = 0
    for column in range(len(hoped)):
        if nearest < len(found) and found[nearest] == column:
            nearest += 1
            continue
        free = hoped[column] > -np.inf
        for pick in picked:
            free &= pick != column
        if free:
            if rank == 0:
                return column
            rank -= 1
    return -1


@inlined()
def _better(hoped: Floats, than: float, picked: Picks) -> bool:
    """Whether a column that is not picked yet has a higher mean."""
    better = 0
    for column in range(len(hoped)):
        better += hoped[column] > than
    for pick in picked:
        better -= hoped[pick] > than
    return better > 0


@compiled(FLOATS_2D, FLOATS_2D, BOOLS_2D, FLOAT, INTS, FLOATS_2D, INT, FLOAT, INT)
def draw_slates(
    mean: Floats,
    sd: Floats,
    eligible: Bools,
    optimism: float,
    limits: Ints,
    uniforms: Floats,
    candidates_max: int,
    floor: float,
    silence: int,
) -> tuple[Picks, Floats, Bools]:
    """The picks, propensities and `explored` of `models.exploration.Slates`; silence is -1 for none."""
    rows, columns = mean.shape
    positions = uniforms.shape[1]
    picks = np.full((rows, positions), -1, np.int16)
    propensities = np.zeros((rows, positions))
    explored = np.zeros((rows, positions), np.bool_)
    hoped, unsure = np.empty(columns), np.empty(columns)
    most = min(max(candidates_max, positions), columns)
    room, racing = np.empty(most, np.int64), np.empty(most, np.bool_)
    shares = np.empty(most)
    log_f, scratch = np.empty((most, _EACH * most + 1)), np.empty((2, _EACH * most + 1))
    total = np.empty(_EACH * most + 1)
    for row in range(rows):
        limit = min(limits[row], positions)
        if limit <= 0:
            continue
        # By its own limit, not by that of the batch: who is asked about beside whom changes nothing.
        found = room[: min(max(candidates_max, limit), columns)]
        left, count = _candidates(mean[row], sd[row], eligible[row], optimism, hoped, unsure, found)
        if not left:
            continue
        cells = _start(hoped, unsure, optimism, found[:count], log_f, total, scratch)
        racing[:count] = True
        inside = count
        for position in range(min(limit, left)):
            rest = floor / (left - position)
            others = left - position - inside if rest > 0.0 else 0
            raced = 0.0
            if inside:
                _winners(log_f, total, racing[:count], cells, scratch, shares)
                for i in range(count):
                    if racing[i]:
                        shares[i] = (1.0 - floor) * shares[i] + rest
                        raced += shares[i]
            whole = raced + rest * others
            mark = uniforms[row, position] * whole
            if others and mark >= raced:  # rare: the floor drew none of the race
                rank = int(min((mark - raced) / rest, others - 1.0))
                column = _outside(hoped, found[:count], picks[row, :position], rank)
                propensities[row, position] = rest / whole
            else:
                place, reached = 0, 0.0
                for i in range(count):
                    if racing[i] and shares[i] > 0.0:
                        place = i  # the last possible one, should rounding keep the sum below the mark
                        reached += shares[i]
                        if reached > mark:
                            break
                column = found[place]
                propensities[row, position] = shares[place] / whole
                racing[place] = False
                total[:cells] -= log_f[place, :cells]
                inside -= 1
            if column == silence and position:
                break
            explored[row, position] = _better(hoped, hoped[column], picks[row, :position])
            picks[row, position] = column
            if column == silence:
                break
    return picks, propensities, explored


@compiled(FLOATS_2D, FLOATS_2D, BOOLS_2D, FLOAT, INTS, INT, INT)
def columns_that_count(
    mean: Floats, sd: Floats, eligible: Bools, optimism: float, limits: Ints, positions: int, candidates_max: int
) -> tuple[Picks, Ints]:
    """(B, W) columns, ascending, on which the draws of a slate depend, and (B,) how many there are.

    The candidates of the race, and one more of the highest means than the slate has places. Whatever has a chance
    beside these counts as being there alone: its mean may be replaced by any lower one.
    """
    rows, columns = mean.shape
    most = min(max(candidates_max, positions), columns)
    width = min(columns, most + positions + 1)
    room = np.empty(most, np.int64)
    hoped, unsure = np.empty(columns), np.empty(columns)
    counts = np.zeros(rows, np.int64)
    kept = np.full((rows, width), -1, np.int16)
    chosen = np.empty(columns, np.bool_)
    for row in range(rows):
        limit = min(limits[row], positions)
        if limit <= 0:
            continue
        found = room[: min(max(candidates_max, limit), columns)]
        left, count = _candidates(mean[row], sd[row], eligible[row], optimism, hoped, unsure, found)
        chosen[:] = False
        for i in range(count):
            chosen[found[i]] = True
        if left > count:
            # The highest means, one after the other: few, and seldom others than the candidates.
            for _ in range(limit + 1):
                best, highest = -1, -np.inf
                for column in range(columns):
                    if hoped[column] > highest:
                        best, highest = column, hoped[column]
                if best < 0:
                    break
                chosen[best], hoped[best] = True, -np.inf
        for column in range(columns):
            if chosen[column]:
                kept[row, counts[row]] = column
                counts[row] += 1
    return kept, counts


# --- other methods and governed exploration --------------------------------------------------------------------------

GREEDY: Final = 0
THOMPSON: Final = 1
INVERSE_GAP: Final = 2

_ROUNDING: Final = 2.0**-52


@inlined()
def _best_left(hoped: Floats, taken: Bools) -> int:
    """The lowest column of the highest mean among those left."""
    best, highest = -1, -np.inf
    for column in range(len(hoped)):
        if not taken[column] and hoped[column] > highest:
            best, highest = column, hoped[column]
    return best


@inlined()
def _sharpness(hoped: Floats, unsure: Floats, left: int) -> float:
    """γ of inverse gap weighting, in one over the unit of the means: √left over the root mean square of the sds > 0.

    Infinite where nothing is unsure. Divided by the largest one first: squares neither overflow nor vanish.
    """
    widest = 0.0
    for column in range(len(hoped)):
        if hoped[column] > -np.inf:
            widest = max(widest, unsure[column])
    if widest == 0.0:
        return np.inf
    squares, many = 0.0, 0
    for column in range(len(hoped)):
        if hoped[column] > -np.inf and unsure[column] > 0.0:
            squares += (unsure[column] / widest) ** 2
            many += 1
    return math.sqrt(left * many / squares) / widest


@inlined()
def _spread_out(
    method: int, hoped: Floats, taken: Bools, best: int, left: int, gamma: float, floor: float, shares: Floats
) -> None:
    """Turn `shares` into the method's distribution over those left; of Thompson sampling it has the winners already."""
    rest, others = floor / left, 0.0
    for column in range(len(hoped)):
        share = 0.0
        if column != best and not taken[column] and hoped[column] > -np.inf:
            if method == THOMPSON:
                share = shares[column]
            elif method == INVERSE_GAP and gamma < np.inf:
                share = 1.0 / (left + gamma * (hoped[best] - hoped[column]))
            share = (1.0 - floor) * share + rest
            others += share
        shares[column] = share
    shares[best] = max(1.0 - others, 0.0)


@inlined()
def _drawn(shares: Floats, mark: float, best: int, gate: float, keeps: Floats) -> int:
    """The column drawn: whose interval the mark is in, if in the part that it may keep, else the best one.

    So whoever is given an offer with one gate gets the same or the best one with another.
    """
    column, start, reached = best, 0.0, 0.0
    for at in range(len(shares)):
        if shares[at] > 0.0:
            column, start = at, reached  # the last possible one, should rounding keep the sum below the mark
            reached += shares[at]
            if reached > mark:
                break
    inside = min(mark - start, shares[column] * (1.0 - _ROUNDING))
    return column if inside < gate * keeps[column] * shares[column] else best


@inlined()
def _kept(shares: Floats, best: int, keeps: Floats) -> float:
    """The chance that something else than the best one is drawn, were the gate open."""
    kept = 0.0
    for column in range(len(shares)):
        if column != best:
            kept += keeps[column] * shares[column]
    return kept


@compiled(FLOATS_2D, FLOATS_2D, BOOLS_2D, FLOAT, INTS, INT, FLOAT, INT, FLOATS_1D, FLOATS_1D)
def first_shares(
    mean: Floats,
    sd: Floats,
    eligible: Bools,
    optimism: float,
    limits: Ints,
    candidates_max: int,
    floor: float,
    method: int,
    gates: Floats,
    keeps: Floats,
) -> Floats:
    """The distribution (B, n) of the first position of `draw_governed`."""
    rows, columns = mean.shape
    result = np.zeros((rows, columns))
    hoped, unsure, dense = np.empty(columns), np.empty(columns), np.empty(columns)
    taken = np.zeros(columns, np.bool_)
    most = candidates_max
    for limit in limits:
        most = max(most, limit)
    most = min(most, columns)
    room, racing = np.empty(most, np.int64), np.ones(most, np.bool_)
    shares = np.empty(most)
    log_f, scratch = np.empty((most, _EACH * most + 1)), np.empty((2, _EACH * most + 1))
    total = np.empty(_EACH * most + 1)
    for row in range(rows):
        found = room[: min(max(candidates_max, limits[row]), columns)]
        left, count = _candidates(mean[row], sd[row], eligible[row], optimism, hoped, unsure, found)
        if not left:
            continue
        gamma, best = 0.0, _best_left(hoped, taken)
        dense[:] = 0.0
        if method == THOMPSON:
            cells = _start(hoped, unsure, optimism, found[:count], log_f, total, scratch)
            _winners(log_f, total, racing[:count], cells, scratch, shares)
            for i in range(count):
                dense[found[i]] = shares[i]
        elif method == INVERSE_GAP:
            gamma = _sharpness(hoped, unsure, left)
        _spread_out(method, hoped, taken, best, left, gamma, floor, dense)
        others = 0.0
        for column in range(columns):
            if column != best:
                result[row, column] = gates[row] * keeps[column] * dense[column]
                others += result[row, column]
        result[row, best] = max(1.0 - others, 0.0)
    return result


@compiled(FLOATS_2D, FLOATS_2D, BOOLS_2D, FLOAT, INTS, FLOATS_2D, INT, FLOAT, INT, INT, FLOATS_1D, FLOATS_1D)
def draw_governed(
    mean: Floats,
    sd: Floats,
    eligible: Bools,
    optimism: float,
    limits: Ints,
    uniforms: Floats,
    candidates_max: int,
    floor: float,
    silence: int,
    method: int,
    gates: Floats,
    keeps: Floats,
) -> tuple[Picks, Floats, Bools]:
    """`draw_slates` for any method, with the chance of each row to explore at all and what each column keeps.

    Every position is a distribution over all columns, not over the candidates alone: the best one left has all that
    the others are not given, and it may be no candidate. 1.5 µs a row more than `draw_slates` for 100 columns.
    """
    rows, columns = mean.shape
    positions = uniforms.shape[1]
    picks = np.full((rows, positions), -1, np.int16)
    propensities = np.zeros((rows, positions))
    explored = np.zeros((rows, positions), np.bool_)
    hoped, unsure, dense = np.empty(columns), np.empty(columns), np.empty(columns)
    taken = np.empty(columns, np.bool_)
    most = min(max(candidates_max, positions), columns)
    room, racing = np.empty(most, np.int64), np.empty(most, np.bool_)
    shares = np.empty(most)
    log_f, scratch = np.empty((most, _EACH * most + 1)), np.empty((2, _EACH * most + 1))
    total = np.empty(_EACH * most + 1)
    for row in range(rows):
        limit = min(limits[row], positions)
        if limit <= 0:
            continue
        # By its own limit, not by that of the batch: who is asked about beside whom changes nothing.
        found = room[: min(max(candidates_max, limit), columns)]
        left, count = _candidates(mean[row], sd[row], eligible[row], optimism, hoped, unsure, found)
        if not left:
            continue
        gate, cells, gamma = gates[row], 0, 0.0
        races = method == THOMPSON and gate > 0.0
        if races:
            cells = _start(hoped, unsure, optimism, found[:count], log_f, total, scratch)
        elif method == INVERSE_GAP:
            gamma = _sharpness(hoped, unsure, left)
        racing[:count] = True
        taken[:] = False
        for position in range(min(limit, left)):
            best = _best_left(hoped, taken)
            dense[:] = 0.0
            if races:
                _winners(log_f, total, racing[:count], cells, scratch, shares)
                for i in range(count):
                    dense[found[i]] = shares[i]
            _spread_out(method, hoped, taken, best, left - position, gamma, floor, dense)
            column = _drawn(dense, uniforms[row, position], best, gate, keeps)
            if column == best:
                # Whoever was given another than the best one explores; whoever was given it may, by so much (Bayes).
                kept = _kept(dense, best, keeps)
                propensities[row, position] = max(1.0 - gate * kept, _ROUNDING)
                gate = gate * max(1.0 - kept, 0.0) / propensities[row, position]
            else:
                propensities[row, position] = gate * keeps[column] * dense[column]
                gate = 1.0
            taken[column] = True
            if races:
                for i in range(count):
                    if found[i] == column:
                        racing[i] = False
                        total[:cells] -= log_f[i, :cells]
            if column == silence and position:
                break
            explored[row, position] = _better(hoped, hoped[column], picks[row, :position])
            picks[row, position] = column
            if column == silence:
                break
    return picks, propensities, explored


# --- slates of which not everything may stand beside everything -------------------------------------------------------


BOOLS_1D: Final = read_only(types.boolean, 1)
_PICKS: Final = read_only(types.int16, 2)


@inlined()
def _shut_out(
    column: int,
    first: bool,
    of_column: Ints,
    groups_of: Ints,
    of_group: Ints,
    columns_of: Ints,
    room: Ints,
    alone: Bools,
    hoped: Floats,
) -> None:
    """Take a pick out of `hoped`, and with it whatever may not stand beside it."""
    hoped[column] = -np.inf
    if first:
        for other in range(len(hoped)):
            if alone[other] or alone[column]:
                hoped[other] = -np.inf
    for at in range(of_column[column], of_column[column + 1]):
        group = groups_of[at]
        room[group] -= 1
        if room[group] <= 0:
            for place in range(of_group[group], of_group[group + 1]):
                hoped[columns_of[place]] = -np.inf


@compiled(
    FLOATS_2D,
    FLOATS_2D,
    BOOLS_2D,
    FLOAT,
    INTS,
    FLOATS_2D,
    INT,
    FLOAT,
    INT,
    INT,
    FLOATS_1D,
    FLOATS_1D,
    INTS,
    INTS,
    INTS,
    INTS,
    INTS,
    BOOLS_1D,
)
def draw_capped(
    mean: Floats,
    sd: Floats,
    eligible: Bools,
    optimism: float,
    limits: Ints,
    uniforms: Floats,
    candidates_max: int,
    floor: float,
    silence: int,
    method: int,
    gates: Floats,
    keeps: Floats,
    of_column: Ints,
    groups_of: Ints,
    of_group: Ints,
    columns_of: Ints,
    caps: Ints,
    alone: Bools,
) -> tuple[Picks, Floats, Bools]:
    """`draw_governed` where a pick shuts others out, see `models.exploration.Caps`.

    Whom it shuts out differs from pick to pick, and so do the candidates: each position holds a race of its own.
    """
    rows, columns = mean.shape
    positions = uniforms.shape[1]
    picks = np.full((rows, positions), -1, np.int16)
    propensities = np.zeros((rows, positions))
    explored = np.zeros((rows, positions), np.bool_)
    hoped, unsure, dense = np.empty(columns), np.empty(columns), np.empty(columns)
    left_over, possible = np.empty(columns), np.empty(columns, np.bool_)
    taken = np.zeros(columns, np.bool_)  # who is taken has no hope any more
    most = min(candidates_max, columns)
    found, racing = np.empty(most, np.int64), np.ones(most, np.bool_)
    shares = np.empty(most)
    log_f, scratch = np.empty((most, _EACH * most + 1)), np.empty((2, _EACH * most + 1))
    total, room = np.empty(_EACH * most + 1), np.empty(len(caps), np.int64)
    for row in range(rows):
        gate, gamma = gates[row], 0.0
        possible[:] = eligible[row]
        room[:] = caps
        for position in range(min(limits[row], positions)):
            left, count = _candidates(mean[row], sd[row], possible, optimism, hoped, unsure, found)
            if not left:
                break
            if method == INVERSE_GAP and not position:
                gamma = _sharpness(hoped, unsure, left)
            best = _best_left(hoped, taken)
            dense[:] = 0.0
            if method == THOMPSON and gate > 0.0:
                cells = _start(hoped, unsure, optimism, found[:count], log_f, total, scratch)
                _winners(log_f, total, racing[:count], cells, scratch, shares)
                for i in range(count):
                    dense[found[i]] = shares[i]
            _spread_out(method, hoped, taken, best, left, gamma, floor, dense)
            column = _drawn(dense, uniforms[row, position], best, gate, keeps)
            if column == best:
                kept = _kept(dense, best, keeps)
                propensities[row, position] = max(1.0 - gate * kept, _ROUNDING)
                gate = gate * max(1.0 - kept, 0.0) / propensities[row, position]
            else:
                propensities[row, position] = gate * keeps[column] * dense[column]
                gate = 1.0
            if column == silence and position:
                break
            for other in range(columns):
                explored[row, position] |= hoped[other] > hoped[column]
            picks[row, position] = column
            if column == silence:
                break
            left_over[:] = hoped
            _shut_out(column, position == 0, of_column, groups_of, of_group, columns_of, room, alone, left_over)
            for other in range(columns):
                possible[other] = left_over[other] > -np.inf
    return picks, propensities, explored


@compiled(FLOATS_2D, FLOATS_2D, BOOLS_2D, FLOAT, _PICKS, INT, INTS, INTS, INTS, INTS, INTS, BOOLS_1D)
def columns_that_counted(
    mean: Floats,
    sd: Floats,
    eligible: Bools,
    optimism: float,
    picks: Picks,
    candidates_max: int,
    of_column: Ints,
    groups_of: Ints,
    of_group: Ints,
    columns_of: Ints,
    caps: Ints,
    alone: Bools,
) -> tuple[Picks, Ints]:
    """(B, n) columns, ascending, on which the draws of these slates depended, and (B,) how many there are.

    The candidates of every position up to the one after the last pick: the best one left is always among them.
    """
    rows, columns = mean.shape
    positions = picks.shape[1]
    found = np.empty(min(candidates_max, columns), np.int64)
    hoped, unsure = np.empty(columns), np.empty(columns)
    possible, chosen = np.empty(columns, np.bool_), np.empty(columns, np.bool_)
    room = np.empty(len(caps), np.int64)
    counts = np.zeros(rows, np.int64)
    kept = np.full((rows, columns), -1, np.int16)
    for row in range(rows):
        possible[:] = eligible[row]
        chosen[:] = False
        room[:] = caps
        for position in range(positions):
            left, count = _candidates(mean[row], sd[row], possible, optimism, hoped, unsure, found)
            if not left:
                break
            for i in range(count):
                chosen[found[i]] = True
            column = picks[row, position]
            if column < 0:
                break
            _shut_out(int(column), position == 0, of_column, groups_of, of_group, columns_of, room, alone, hoped)
            for other in range(columns):
                possible[other] = hoped[other] > -np.inf
        for column in range(columns):
            if chosen[column]:
                kept[row, counts[row]] = column
                counts[row] += 1
    return kept, counts
