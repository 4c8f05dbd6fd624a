"""Slates of which not everything may stand beside everything: lawful, as frequent as logged, equal to brute force."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from models import Caps, Slates, choose, counting, dice, first_probabilities, seed_of

METHODS = ["thompson", "inverse_gap", "greedy"]
MEAN = np.array([0.4, 0.9, 0.7, 0.6, 0.5, 0.3, 0.0])
SD = np.array([0.5, 0.3, 0.6, 0.4, 0.2, 0.3, 0.0])
SILENCE, ALONE = 6, 5
GROUPS = [([0, 1, 2], 1), ([2, 3], 1)]


def draws(rows: int, positions: int, seed: int = 0) -> np.ndarray:
    return dice(np.array([seed_of(seed, row) for row in range(rows)], np.uint64), positions)


def crowd(rows: int, **options: object) -> Slates:
    mean, sd = np.tile(MEAN, (rows, 1)), np.tile(SD, (rows, 1))
    eligible, caps = np.ones((rows, 7), bool), Caps.of(7, GROUPS, [ALONE])
    return choose(mean, sd, eligible, np.full(rows, 3), draws(rows, 3), silence=SILENCE, caps=caps, **options)


def allowed(picks: list[int]) -> np.ndarray:
    """What may come next, by looking."""
    may = np.array([column not in picks for column in range(7)])
    for members, most in GROUPS:
        if len(set(members) & set(picks)) >= most:
            may[members] = False
    if picks:
        may[ALONE] = False
    return may & (ALONE not in picks)


@pytest.mark.parametrize(("method", "floor", "gate"), [*product(METHODS, [0.0, 0.3], [None, 0.35])])
def test_slates_are_as_frequent_as_is_logged(method: str, floor: float, gate: float | None) -> None:
    rows = 20_000
    slates = crowd(rows, method=method, floor=floor, gates=None if gate is None else np.full(rows, gate))
    logged: dict[tuple[int, ...], float] = {}
    for picks, p in zip(slates.picks.tolist(), slates.propensities, strict=True):
        whole = float(np.prod(p[p > 0]))
        assert logged.setdefault(tuple(picks), whole) == pytest.approx(whole, rel=1e-12)
    assert 0.98 <= sum(logged.values()) <= 1.0 + 1e-9  # the few never drawn are missing
    for picks in logged:
        before: list[int] = []
        for pick in picks:
            if pick >= 0:
                assert allowed(before)[pick]
                before.append(pick)
    counts = Counter(map(tuple, slates.picks.tolist()))
    common = [slate for slate, p in logged.items() if p * rows >= 5]
    observed = np.array([*(counts[slate] for slate in common), 0.0])
    expected = np.array([*(logged[slate] * rows for slate in common), 0.0])
    observed[-1], expected[-1] = rows - observed.sum(), rows - expected.sum()
    if len(common) > 1:
        kept = expected > 1e-6
        shares = expected[kept] / expected[kept].sum()
        assert scipy_stats.chisquare(observed[kept], shares * observed[kept].sum()).pvalue > 1e-4


def test_each_position_is_the_race_among_those_that_may_still_come() -> None:
    slates = crowd(500)
    for picks, p in zip(slates.picks.tolist(), slates.propensities, strict=True):
        before: list[int] = []
        for position in range(3):
            may = allowed(before)
            if SILENCE in before or not may.any():
                assert p[position] == 0.0
                break
            race = first_probabilities(MEAN[None], SD[None], may[None])[0]
            assert race.sum() == pytest.approx(1.0)
            ended = picks[position] < 0
            assert p[position] == pytest.approx(race[SILENCE if ended else picks[position]], abs=1e-9)
            if ended:
                break
            before.append(picks[position])


@settings(max_examples=120, deadline=None)
@given(st.data(), st.integers(1, 30), st.integers(1, 5), st.sampled_from(METHODS), st.sampled_from([0.0, 0.2]))
def test_any_caps_are_kept_and_the_columns_that_count_tell_all(
    data: st.DataObject, columns: int, positions: int, method: str, floor: float
) -> None:
    column = st.integers(0, columns - 1)
    group = st.tuples(st.lists(column, min_size=1, max_size=8, unique=True), st.integers(1, 3))
    groups = data.draw(st.lists(group, max_size=6))
    alone = data.draw(st.lists(column, max_size=2, unique=True))
    silence = data.draw(st.none() | column)
    caps = Caps.of(columns, groups, alone)
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    mean, sd = rng.normal(size=(3, columns)), rng.uniform(0.0, 1.0, (3, columns))
    eligible, limits = rng.random((3, columns)) < 0.8, np.full(3, positions)
    marks = draws(3, positions, int(rng.integers(1000)))
    options = {"candidates_max": 4, "method": method, "floor": floor, "silence": silence, "caps": caps}
    slates = choose(mean, sd, eligible, limits, marks, **options)
    for row in range(3):
        picks = [pick for pick in slates.picks[row].tolist() if pick >= 0]
        assert len(set(picks)) == len(picks) and eligible[row, picks].all()
        assert all(len(set(members) & set(picks)) <= most for members, most in groups)
        assert not set(alone) & set(picks) or len(picks) == 1
    kept, counts = counting(
        mean, sd, eligible, limits, candidates_max=4, method=method, caps=caps, picks=slates.picks
    )
    for row in range(3):
        known = kept[row, : counts[row]]
        mean[row, np.setdiff1d(np.arange(columns), known)] = -1e30
        sd[row, np.setdiff1d(np.arange(columns), known)] = 0.0
    again = choose(mean, sd, eligible, limits, marks, **options)
    assert (again.picks == slates.picks).all() and (again.propensities == slates.propensities).all()
    assert (again.explored == slates.explored).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["inverse_gap", "greedy"]), st.sampled_from([0.0, 0.3]))
def test_without_groups_they_are_those_of_everybody(seed: int, method: str, floor: float) -> None:
    rng = np.random.default_rng(seed)
    mean, sd, eligible = rng.normal(size=(4, 12)), rng.uniform(0, 1, (4, 12)), rng.random((4, 12)) < 0.8
    given_all = mean, sd, eligible, np.full(4, 3), draws(4, 3, seed)
    plain = choose(*given_all, method=method, floor=floor, silence=11)
    capped = choose(*given_all, method=method, floor=floor, silence=11, caps=Caps.of(12, []))
    assert (plain.picks == capped.picks).all() and (plain.propensities == capped.propensities).all()
    assert (plain.explored == capped.explored).all()


def test_wrong_caps_are_refused() -> None:
    with pytest.raises(ValueError, match="group 0"):
        Caps.of(3, [([3], 1)])
    with pytest.raises(ValueError, match="group 1"):
        Caps.of(3, [([1], 1), ([2], 0)])
    with pytest.raises(ValueError, match="caps of 4 columns"):
        mean = np.zeros((1, 3))
        choose(mean, mean, mean == 0, np.array([1]), np.zeros((1, 1)), caps=Caps.of(4, []))
