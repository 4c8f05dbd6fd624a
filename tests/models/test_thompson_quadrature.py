"""The computed winning probabilities are those of Thompson sampling, to within `TOLERANCE`."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from models import first_probabilities
from models.maximum import PROBABILITY_MIN, Z_MAX, log_f_table

TOLERANCE = 0.01
"""Largest error of a probability; Monte Carlo of `DRAWS` adds under 0.004 (three standard errors)."""

DRAWS = 150_000


def frequencies(mean: np.ndarray, sd: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    scores = mean + sd * rng.standard_normal((DRAWS, len(mean)))
    best = scores == scores.max(axis=1, keepdims=True)
    return (best / best.sum(axis=1, keepdims=True)).mean(axis=0)  # point masses share their ties


def everyone(mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    return first_probabilities(mean, sd, np.ones(mean.shape, bool))


def cases(seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 17))
    mean = rng.normal(size=count)
    return {
        "alike": (mean, rng.uniform(0.5, 1.5, count)),
        "narrow and wide": (mean, np.exp(rng.normal(-2, 1.5, count))),
        "one wide among sure": (mean, np.where(np.arange(count) == 0, 2.0, 1e-3)),
        "one sure among wide": (mean, np.where(np.arange(count) == 0, 1e-6, 1.0)),
        "point masses": (np.round(mean), np.where(rng.random(count) < 0.5, 0.0, 1.0)),
        "rates": (rng.uniform(0, 0.05, count), rng.uniform(0.001, 0.02, count)),
        "large values": (1e9 + 1e3 * mean, np.full(count, 1e3)),
    }


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", list(cases(0)))
def test_they_match_drawing(name, seed):
    mean, sd = cases(seed)[name]
    drawn = frequencies(mean, sd, np.random.default_rng(seed))
    computed = everyone(mean[None], sd[None])[0]
    np.testing.assert_allclose(computed, drawn, atol=TOLERANCE + 0.004)


def test_two_candidates_match_the_closed_form():
    """P(a wins) = Φ((m_a - m_b) / √(s_a² + s_b²)), over a grid of distances and ratios of widths down to 1 : 10⁻⁶."""
    distance, ratio = (grid.ravel() for grid in np.meshgrid(np.linspace(-4, 4, 161), 10.0 ** -np.arange(7)))
    mean = np.stack([distance, np.zeros_like(distance)], axis=1)
    sd = np.stack([np.ones_like(ratio), ratio], axis=1)
    exact = scipy_stats.norm.cdf(distance / np.sqrt(1 + ratio**2))
    np.testing.assert_allclose(everyone(mean, sd)[:, 0], exact, atol=TOLERANCE)


def test_they_sum_to_one_and_are_never_dust():
    rng = np.random.default_rng(5)
    p = everyone(rng.normal(size=(500, 16)), np.exp(rng.normal(-3, 3, (500, 16))))
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-12)
    assert (p[p > 0] >= PROBABILITY_MIN).all()


def test_equals_share_equally():
    for sd in (0.0, 1e-9, 1.0, 1e20):
        np.testing.assert_allclose(everyone(np.full((1, 7), 3.0), np.full((1, 7), sd)), 1 / 7, rtol=1e-5)


def test_a_sure_best_is_certain():
    assert everyone(np.array([[1.0, 1.0 + 1e-6, -5.0]]), np.zeros((1, 3))).tolist() == [[0.0, 1.0, 0.0]]


def test_nobody_in_the_race_wins():
    nobody = np.zeros((1, 3), bool)
    assert first_probabilities(np.zeros((1, 3)), np.ones((1, 3)), nobody).tolist() == [[0.0, 0.0, 0.0]]


def test_log_f_is_that_of_the_standard_gaussian():
    """Between the values of the table too; the last two stand for infinity."""
    table = log_f_table()
    z = np.linspace(-Z_MAX, Z_MAX, 100_001)[:-1]
    drawn = np.interp(z, np.arange(len(table)) / 128.0 - Z_MAX, table)
    np.testing.assert_allclose(drawn, -scipy_stats.norm.logcdf(z), rtol=0.0, atol=1e-5)
    assert (np.diff(table) <= 0).all() and table[-2:].tolist() == [0.0, 0.0]


def test_scale_and_shift_change_nothing_beyond_rounding():
    rng = np.random.default_rng(8)
    mean, sd = rng.normal(size=(50, 9)), rng.uniform(0.1, 1, (50, 9))
    np.testing.assert_allclose(everyone(mean * 1e6 - 1e7, sd * 1e6), everyone(mean, sd), atol=1e-4)


def test_the_race_may_be_cut_but_keeps_the_greedy_choice():
    """Forty hopeful newcomers outrank the proven column by optimistic bound; it still takes part."""
    mean, sd = np.full((1, 41), 0.05), np.full((1, 41), 0.2)
    mean[0, 17], sd[0, 17] = 0.1, 0.001
    p = first_probabilities(mean, sd, np.ones((1, 41), bool), candidates_max=8)[0]
    assert p[17] > 0 and np.count_nonzero(p) == 8
    assert np.flatnonzero(p).tolist() == [0, 1, 2, 3, 4, 5, 6, 17]  # ties go to the lower column


def test_cutting_the_race_changes_little_when_few_can_win():
    rng = np.random.default_rng(4)
    mean, sd = rng.normal(size=(20, 60)), np.full((20, 60), 0.2)
    full = first_probabilities(mean, sd, np.ones((20, 60), bool), candidates_max=60)
    cut = first_probabilities(mean, sd, np.ones((20, 60), bool))
    np.testing.assert_allclose(cut, full, atol=0.005)
