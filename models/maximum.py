"""Who is the maximum? Winning probabilities of independent Gaussian scores, by one-dimensional quadrature.

Thompson sampling draws a score from every belief and takes the largest; candidate i wins with probability

    p_i = ∫ f_i(t) Π_{j≠i} F_j(t) dt,      f, F density and distribution of N(mean_i, sd_i²).

Written as p_i = ∫ Π_j F_j(t) · d log F_i(t) it asks for one thing a candidate, log F_i on a grid of t that all share.
Between two grid points the mass Δ Π F is split in proportion to the increments Δ log F_i, which is exact where the
log F_i grow in proportion, and sums to one whatever the grid. A matrix of increments thus holds everything: taking a
candidate out of the race is zeroing its row, which is how a slate is drawn pick after pick.

The grid is the union of `NODES` of every candidate, so narrow candidates are resolved among wide ones. The largest
error of a probability seen in tests, over narrow, wide, many, few and point masses, is below 0.01 (`tests/models`).
That error biases nothing: what is logged is the probability drawn from, see `models.exploration`.

The textbook way, Gauss-Hermite nodes of each candidate against every other, needs twice the evaluations for 10 nodes,
and is off by up to 1/20 wherever a narrow rival is a step between two nodes. Measured here: 5 µs a customer to start
a race of 16 in batches of 32, and 1 µs for the probabilities of each position of the slate.

F is the logistic approximation 1 / (1 + exp(-(1.5976 z + 0.07056 z³))), off by at most 1.4e-4 (Bowling et al. 2009),
because numpy has vector instructions for exp and log but not for erf.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

NODES = (-1.8, -0.6, 0.4, 1.3, 2.3)
"""Grid points of a candidate in its standard deviations; more lie above, where races are decided."""

Z_MAX = 10.0
"""Distances are cut here: exp() of it stays within float32, and nothing beyond ever wins."""

POINT_MASS = 1e-9
"""A standard deviation under this share of the row's range counts as this share: ties of point masses share equally."""

PROBABILITY_MIN = 1e-5
"""Smaller winning probabilities become 0. The quadrature gives up to 5e-6 to a point mass that has surely lost; and no
importance weight needs to be larger than the inverse."""

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]

_NODES = np.array(NODES)


def race(mean: Floats, sd: Floats, valid: npt.NDArray[np.bool_]) -> Floats32:
    """The increments of log F over the cells of the common grid.

    Args:
        mean: (B, C), finite.
        sd: (B, C), finite and not negative; 0 is a point mass.
        valid: (B, C), who takes part.

    Returns:
        (B, C, 5 C) float32, not negative; zero rows for those who do not take part. The last cell reaches to infinity.
    """
    best = np.where(valid, mean, -np.inf).max(axis=1, keepdims=True)
    best[np.isneginf(best)] = 0.0
    centre = np.where(valid, mean - best, 0.0)  # at most 0: large values lose no digits
    spread = np.where(valid, sd, 0.0)
    span = np.maximum(-centre.min(axis=1, keepdims=True), spread.max(axis=1, keepdims=True))
    span[span == 0.0] = 1.0
    centre /= span
    spread /= span
    np.maximum(spread, POINT_MASS, out=spread)
    grid = (centre[:, :, None] + spread[:, :, None] * _NODES).reshape(len(mean), -1)
    grid.sort(axis=1)
    z = np.empty((*mean.shape, grid.shape[1]), np.float32)
    np.subtract(grid[:, None, :], centre[:, :, None], out=z, casting="same_kind")  # in float64, then rounded
    z *= (1.0 / spread).astype(np.float32)[:, :, None]
    np.clip(z, -Z_MAX, Z_MAX, out=z)
    log_f = z * z  # from here on, -log F
    log_f *= np.float32(-0.07056)
    log_f -= np.float32(1.5976)
    log_f *= z
    np.exp(log_f, out=log_f)
    log_f += np.float32(1.0)
    np.log(log_f, out=log_f)
    increments = z  # the same memory: fresh pages cost as much as the arithmetic
    np.subtract(log_f[:, :, :-1], log_f[:, :, 1:], out=increments[:, :, :-1])
    increments[:, :, -1] = log_f[:, :, -1]
    increments *= valid[:, :, None]
    return increments


def winners(increments: Floats32) -> Floats:
    """Winning probabilities (B, C) of the candidates with rows in `race`; each row sums to 1, or to 0 with nobody in.

    >>> mean, sd = np.array([[0.0, 0.0, 0.0]]), np.array([[1.0, 1.0, 0.0]])
    >>> winners(race(mean, sd, np.array([[True, True, True]]))).round(2).tolist()  # exact: 0.375, 0.375, 0.25
    [[0.37, 0.37, 0.25]]
    """
    everyone = np.ones((1, increments.shape[1]), np.float32)
    slope = np.matmul(everyone, increments)[:, 0]  # (B, G): growth of log Π F in each cell
    log_right = np.zeros_like(slope)
    log_right[:, :-1] = -np.cumsum(slope[:, :0:-1], axis=1)[:, ::-1]
    mass = np.exp(log_right)
    mass *= -np.expm1(-slope)
    mass /= np.maximum(slope, np.float32(1e-30))
    won: Floats = np.matmul(increments, mass[:, :, None])[:, :, 0].astype(np.float64)
    won /= np.maximum(won.sum(axis=1, keepdims=True), 1e-30)
    won *= won >= PROBABILITY_MIN
    won /= np.maximum(won.sum(axis=1, keepdims=True), 1e-30)
    return won
