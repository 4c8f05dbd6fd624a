"""With optimism the race is held as if every mean were so many standard deviations higher; all else stays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import choose, dice, first_probabilities
from models.exploration import counting


def race(seed: int, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, columns)), rng.uniform(0, 1, (rows, columns)), rng.random((rows, columns)) < 0.8


@pytest.mark.parametrize("optimism", [0.5, 3.0])
def test_the_race_is_that_of_higher_means(optimism):
    mean, sd, eligible = race(0, 50, 12)
    found = first_probabilities(mean, sd, eligible, optimism=optimism)
    np.testing.assert_allclose(found, first_probabilities(mean + optimism * sd, sd, eligible), atol=1e-9)


def test_what_is_unsure_is_shown_and_counts_as_explored():
    mean, sd = np.array([[0.30, 0.25]]), np.array([[0.01, 0.05]])
    everybody, one = np.ones((1, 2), bool), np.array([1])
    [plain] = first_probabilities(mean, sd, everybody)
    [hopeful] = first_probabilities(mean, sd, everybody, optimism=4.0)
    assert plain[0] > 0.8 and hopeful[1] > 0.98
    slates = choose(mean, sd, everybody, one, np.array([[0.5]]), optimism=4.0)
    assert slates.picks.tolist() == [[1]] and slates.explored.all()


def test_whom_nothing_is_tried_on_gets_the_highest_mean():
    mean, sd = np.array([[0.30, 0.25]]), np.array([[0.01, 0.05]])
    everybody, one = np.ones((1, 2), bool), np.array([1])
    slates = choose(mean, sd, everybody, one, np.array([[0.5]]), optimism=4.0, gates=np.zeros(1))
    assert slates.picks.tolist() == [[0]] and not slates.explored.any()
    greedy = choose(mean, sd, everybody, one, np.array([[0.5]]), optimism=4.0, method="greedy")
    assert greedy.picks.tolist() == [[0]]


def test_a_candidate_whose_bound_is_highest_is_in_the_race():
    mean = np.linspace(1.0, 0.0, 40)[None]
    sd = np.where(np.arange(40) == 39, 0.4, 1e-3)[None]
    found = first_probabilities(mean, sd, np.ones((1, 40), bool), candidates_max=4, optimism=5.0)
    assert found[0, 39] > 0.95


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.2]), st.sampled_from([0.7, 6.0, 1_000.0]))
def test_the_columns_that_count_are_those_that_it_draws_from(seed, floor, optimism):
    mean, sd, eligible = race(seed, 3, 30)
    marks, limits = dice(np.arange(seed, seed + 3, dtype=np.uint64), 3), np.full(3, 3)
    how = {"candidates_max": 4, "floor": floor, "optimism": optimism}
    slates = choose(mean, sd, eligible, limits, marks, **how)
    kept, counts = counting(mean, sd, eligible, limits, candidates_max=4, optimism=optimism)
    for row in range(3):
        others = np.setdiff1d(np.arange(30), kept[row, : counts[row]])
        mean[row, others], sd[row, others] = -1e30, 0.0
    again = choose(mean, sd, eligible, limits, marks, **how)
    assert (again.picks == slates.picks).all() and (again.propensities == slates.propensities).all()
    assert (again.explored == slates.explored).all()


@pytest.mark.parametrize("wrong", [-0.1, 1_001.0, float("nan")])
def test_it_is_held_within_bounds(wrong):
    mean, sd, eligible = race(0, 1, 3)
    with pytest.raises(ValueError, match="optimism"):
        first_probabilities(mean, sd, eligible, optimism=wrong)
