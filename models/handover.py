"""Cold start: a rate that people declare stands where the prior was, and lessons take over from it. Compiled.

The belief about an offer at one x is Gaussian. In lessons, which is σ² over a variance, it weighs N = σ² / sd²,
and before any lesson of any offer it weighed N₀ = 1 / Σ s_i u_i². So n = N − N₀ lessons speak about this x: those of
the offer itself, and what the others of its category, and all others, tell about it. With m the mean of the belief and
m_c the mean by the lessons of others alone, a declared rate r that weighs S lessons takes the prior's place by

    mean = (S r + N m − N₀ m_c) / (S + n) = (S r + n_c m_c + n_o e) / (S + n_c + n_o)

    sd² = (S r (1 − r) + n σ²) / (S + n)²

where n_c of the n lessons are what others tell, n_o are the offer's own, and e is what those alone say: of Gaussians
this is exact, as N m = (N₀ + n_c) m_c + n_o e. At n = 0 it is the rate; its share S / (S + n) only falls as lessons
come, without a step; where an offer's lessons say what the rate said, the mean does not move; what is left in the end
is the belief. A mean of r and m instead would lean, on the way, to a prior that both of them deny: that is the dip
of a hand-over.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import types

from models.compiled import BYTES_2D, FLOATS_1D, FLOATS_2D, INTS, compiled

_WRITTEN: Final = types.Array(types.float32, 2, "C")
_NOISE_MIN: Final = 1e-4
"""Variance of a declared rate of 0 or 1."""


def hand_over(
    x: npt.NDArray[np.int8],
    mean: npt.NDArray[np.float32],
    sd: npt.NDArray[np.float32],
    columns: npt.NDArray[np.int64],
    rates: npt.NDArray[np.float64],
    strengths: npt.NDArray[np.float64],
    noise: npt.NDArray[np.float64],
    spread: npt.NDArray[np.float64],
    others: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Put declared rates in the place of the prior of k of n offers; `mean` and `sd` are changed where they stand.

    Args:
        x: (B, d or more) int8.
        mean: (B, n) float32, from `Policy.score`.
        sd: (B, n) float32, likewise.
        columns: (k,) which offers have a declared rate.
        rates: (B, k) what is declared for each customer, 0 .. 1.
        strengths: (k,) lessons that it weighs.
        noise: (k,) σ² of each offer, `OfferPosterior.noise`; NaN: nothing was learnt yet.
        spread: (k, d) `Beliefs.prior_spread`; without columns: nothing was learnt yet.
        others: (k, d) expected weights by the lessons of others, `Beliefs.by_others`.

    Returns:
        (B, k) n, the lessons that speak at this x, at least 0.

    >>> x, mean, sd = np.array([[127]], np.int8), np.array([[0.04]], np.float32), np.array([[0.1]], np.float32)
    >>> lessons = hand_over(x, mean, sd, np.array([0]), np.array([[0.02]]), np.array([20.0]), np.array([0.3]),
    ...                     np.array([[0.1]]), np.array([[0.01]]))  # the belief weighs 30 lessons, 10 of them its prior
    >>> lessons.round(2), mean.round(4)  # the lessons say 0.055: (30 · 0.04 − 10 · 0.01) / 20
    (array([[20.]]), array([[0.0375]], dtype=float32))
    """
    found: npt.NDArray[np.float64] = _hand_over(x, mean, sd, columns, rates, strengths, noise, spread, others)
    return found


@compiled(BYTES_2D, _WRITTEN, _WRITTEN, INTS, FLOATS_2D, FLOATS_1D, FLOATS_1D, FLOATS_2D, FLOATS_2D)
def _hand_over(
    x: Any,
    mean: Any,
    sd: Any,
    columns: Any,
    rates: Any,
    strengths: Any,
    noise: Any,
    spread: Any,
    others: Any,
) -> Any:
    rows, count = rates.shape
    lessons = np.zeros((rows, count))
    for row in range(rows):
        for k in range(count):
            width = 0.0
            for i in range(spread.shape[1]):
                u = x[row, i] / 127.0
                width += spread[k, i] * u * u
            offer, rate, strength = columns[k], rates[row, k], strengths[k]
            belief, variance = np.float64(mean[row, offer]), np.float64(sd[row, offer]) ** 2
            told = pull = 0.0
            if width > 0.0 and noise[k] > 0.0 and variance > 0.0:
                expected = 0.0
                for i in range(spread.shape[1]):
                    expected += others[k, i] * (x[row, i] / 127.0)
                told = max(noise[k] / variance - 1.0 / width, 0.0)
                pull = told * belief + (belief - expected) / width
            weight = strength + told
            own = max(rate * (1.0 - rate), _NOISE_MIN)
            mean[row, offer] = (strength * rate + pull) / weight
            spare = strength * own + (told * noise[k] if told > 0.0 else 0.0)
            sd[row, offer] = np.sqrt(spare) / weight
            lessons[row, k] = told
    return lessons
