"""What each input added to an estimate. Pure.

    estimate = w·x = w·r + Σ_inputs Σ_columns w_j (x_j − r_j)

r is the average customer: w·r is what the offer's acceptance would be estimated at for somebody of whom all inputs are
average (the base rate), and an input contributes what its columns add beside that. The model is linear in x, so
these are also its Shapley values (independent inputs), and nothing is left over. Where no average is known yet, r is
zero but for the bias: the middle of every range, and no category.

An input fills one column, or one a category; they are one contribution. Columns that two inputs fill together (crosses)
belong to none of them alone: all such are one contribution, `COMBINED`.

A wave is a cosine of all inputs. On the straight way from the average customer to this one, each input turns its angle
by a share of the whole, and is given that share of what the wave changed (Aumann and Shapley's values, the integrated
gradients of Sundararajan et al. 2017, in closed form). The base rate is then that of the average inputs.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from models import STEPS

COMBINED: Final = "combined_effects"
POINTS: Final = "cold_start_points"
"""What points moved an estimate by, see engine.ladder."""
REST: Final = "remaining_inputs"
"""All that is not named one by one where there is much to name."""

_TURN_MIN: Final = 1e-3
"""Radians."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Decomposition:
    """The parts of estimates for n offers; `base + parts.sum(axis=0)` is `estimate`.

    Args:
        names: the g inputs.
        base: (n,) the estimate for the average customer.
        parts: (g, n) what each input added.
        estimate: (n,) the model's mean.
    """

    names: tuple[str, ...]
    base: Floats
    parts: Floats
    estimate: Floats


def groups_of(columns: Sequence[str], sources: Collection[str]) -> tuple[str, ...]:
    """Of each column of x but the first, which is the bias, the input that it belongs to.

    >>> groups_of(["bias", "age", "log(amount)", "job[0]", "job[1]", "age*job[1]"], {"age", "amount", "job"})
    ('age', 'amount', 'job', 'job', 'combined_effects')
    """
    return tuple(_group(column, sources) for column in columns[1:])


def _group(column: str, sources: Collection[str]) -> str:
    if column in sources:
        return column
    found = {name for name in _NAME.findall(column) if name in sources}
    # A feature may be called like a function that stands around another one: log(log).
    inside = found - {"log"} or found
    return inside.pop() if len(inside) == 1 else COMBINED


def decompose(
    x: npt.NDArray[np.int8],
    weights: npt.NDArray[np.float32],
    average: Sequence[float] | None,
    groups: Sequence[str],
    angles: tuple[Floats, Floats] | None = None,
) -> Decomposition:
    """Take the estimates of all offers apart.

    Args:
        x: (d,) the vector decided with.
        weights: (d, n) what a step of each column adds to each offer's estimate.
        average: (d,) the reference; None: zero but for the bias.
        groups: (d − 1,) the input of each column but the bias, from `groups_of`; of the columns without the waves.
        angles: of the waves, the last columns of x, from `Transform.angles`; None if there are none.

    >>> parts = decompose(np.array([127, 100, -20], np.int8), np.array([[0.001], [0.002], [0.003]], np.float32),
    ...                   [127.0, 50.0, 0.0], ("age", "income"))
    >>> parts.base.round(3).tolist(), parts.parts.round(3).tolist(), parts.estimate.round(3).tolist()
    ([0.227], [[0.1], [-0.06]], [0.267])
    """
    wide = weights.astype(np.float64)
    reference = np.zeros(len(x)) if average is None else np.array(average, np.float64)
    reference[0] = STEPS
    names = tuple(dict.fromkeys(groups))
    parts = np.zeros((len(names), wide.shape[1]))
    index = {name: at for at, name in enumerate(names)}
    plain = 1 + len(groups)
    away = x - reference
    members = np.array([index[group] for group in groups], np.intp)
    np.add.at(parts, members, (away[:, None] * wide)[1:plain])
    if angles is not None:
        turning, start = angles
        inputs = len(turning)
        turned = away[1 : 1 + inputs, None] * turning  # (inputs, waves)
        from_angle, whole = start + reference[1 : 1 + inputs] @ turning, turned.sum(axis=0)
        changed = STEPS * (np.cos(from_angle + whole) - np.cos(from_angle))
        # Where the inputs turn it there and back, the slope at the average says what each of them does.
        little = np.abs(whole) < _TURN_MIN
        slope = np.where(little, -STEPS * np.sin(from_angle), changed / np.where(little, 1.0, whole))
        shares = turned * slope
        np.add.at(parts, members[:inputs], shares @ wide[plain:])
        reference[plain:] = x[plain:] - shares.sum(axis=0)  # what the wave was rounded by stays with the base
    base = reference @ wide
    return Decomposition(names, base, parts, base + parts.sum(axis=0))
