"""Every method, thinned and gated: what is logged is how often it happens, and what is closed stays closed."""

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats as scipy_stats

from models import Slates, choose, dice, first_probabilities, seed_of

ANY = st.floats(allow_nan=True, allow_infinity=True, width=32)
METHODS = ["thompson", "inverse_gap", "greedy"]
MEAN = np.array([0.4, 0.9, 0.7, -0.2, 0.0])
SD = np.array([0.5, 0.3, 0.6, 0.4, 0.0])
KEEPS = np.array([1.0, 0.3, 0.5, 0.0, 1.0])
SILENCE = 4


def draws(rows: int, positions: int, seed: int = 0) -> np.ndarray:
    return dice(np.array([seed_of(seed, row) for row in range(rows)], np.uint64), positions)


def crowd(rows: int, positions: int = 3, gate: float | None = None, keeps: Any = None, **options: Any) -> Slates:
    """The slates of so many people alike."""
    mean, sd = np.tile(MEAN, (rows, 1)), np.tile(SD, (rows, 1))
    gates = None if gate is None else np.full(rows, gate)
    eligible, limits = np.ones((rows, 5), bool), np.full(rows, positions)
    marks = draws(rows, positions)
    return choose(mean, sd, eligible, limits, marks, silence=SILENCE, gates=gates, keeps=keeps, **options)


def chances(slates: Slates) -> dict[tuple[int, ...], float]:
    """The propensity of each slate that came up, and that all who got it got it with the same one."""
    found: dict[tuple[int, ...], float] = {}
    for picks, p in zip(slates.picks.tolist(), slates.propensities, strict=True):
        whole = float(np.prod(p[p > 0]))
        assert found.setdefault(tuple(picks), whole) == pytest.approx(whole, rel=1e-12)
    return found


@pytest.mark.parametrize(
    ("method", "floor", "gate", "keeps"),
    [*itertools.product(METHODS, [0.0, 0.3], [None, 0.35], [None, KEEPS])],
)
def test_slates_are_as_frequent_as_is_logged(method: str, floor: float, gate: float | None, keeps: Any) -> None:
    """Whole slates of up to three places, χ² over those that are expected at least five times."""
    rows = 30_000
    slates = crowd(rows, method=method, floor=floor, gate=gate, keeps=keeps)
    logged = chances(slates)
    assert sum(logged.values()) == pytest.approx(1.0, abs=0.01)  # the few never drawn are missing
    assert sum(logged.values()) <= 1.0 + 1e-9
    counts = Counter(map(tuple, slates.picks.tolist()))
    common = [slate for slate, p in logged.items() if p * rows >= 5]
    observed = np.array([*(counts[slate] for slate in common), 0.0])
    expected = np.array([*(logged[slate] * rows for slate in common), 0.0])
    observed[-1], expected[-1] = rows - observed.sum(), rows - expected.sum()
    statistic = ((observed - expected) ** 2 / np.maximum(expected, 1.0)).sum()
    assert scipy_stats.chi2.sf(statistic, len(common)) > 1e-3


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("gate", [0.0, 0.1, 0.6, 1.0])
def test_a_gate_mixes_whole_slates(method: str, gate: float) -> None:
    """As if it were rolled who explores: gate times the chance of the slate, and the rest for the best one."""
    rolled = chances(crowd(20_000, method=method, floor=0.2, gate=gate))
    open_, best = chances(crowd(40_000, method=method, floor=0.2)), chances(crowd(1, gate=0.0))
    for slate, p in rolled.items():
        if slate in open_:
            assert p == pytest.approx(gate * open_[slate] + (1.0 - gate) * best.get(slate, 0.0), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("method", METHODS)
def test_no_more_explore_than_the_gate_lets_through(method: str) -> None:
    rows, gate = 20_000, 0.1
    slates = crowd(rows, method=method, floor=1.0 if method == "greedy" else 0.5, gate=gate)
    assert 0.02 < slates.explored.any(axis=1).mean() < gate + 4 * (gate * (1 - gate) / rows) ** 0.5


@pytest.mark.parametrize("method", METHODS)
def test_what_keeps_nothing_is_only_shown_as_the_best(method: str) -> None:
    keeps = np.array([1.0, 0.0, 1.0, 0.0, 1.0])  # 1 is the best of all, 3 the worst
    slates = crowd(5_000, method=method, floor=0.4, keeps=keeps)
    for column in (1, 3):
        assert not (slates.explored & (slates.picks == column)).any()
    assert (slates.picks[:, 0] == 1).any()


def test_inverse_gap_weighting_has_the_closed_form() -> None:
    """1 / (E + γ gap), γ = √E over the root mean square of the standard deviations above 0."""
    mean, sd = np.tile(MEAN, (4_000, 1)), np.tile(SD, (4_000, 1))
    ones, limits = np.ones((4_000, 5), bool), np.ones(4_000, int)
    slates = choose(mean, sd, ones, limits, draws(4_000, 1), method="inverse_gap")
    gamma = np.sqrt(5) / np.sqrt((SD[:4] ** 2).mean())
    p = 1.0 / (5 + gamma * (0.9 - MEAN))
    p[1] = 0.0
    p[1] = 1.0 - p.sum()
    assert set(slates.picks[:, 0].tolist()) == set(range(5))
    np.testing.assert_allclose(slates.propensities[:, 0], p[slates.picks[:, 0]], rtol=1e-12)


def test_inverse_gap_weighting_explores_less_the_more_is_known() -> None:
    """Four times the lessons halve the standard deviations, and double γ."""
    shares = []
    for lessons in (1, 4, 16, 64, 256, 1024):
        mean, sd = np.tile(MEAN, (2_000, 1)), np.tile(SD / lessons**0.5, (2_000, 1))
        marks = draws(2_000, 1)
        slates = choose(mean, sd, np.ones((2_000, 5), bool), np.ones(2_000, int), marks, method="inverse_gap")
        best = slates.picks[:, 0] == 1
        shares.append(1.0 - slates.propensities[best, 0][0])
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 0.15 * shares[0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("constant", [2.0**-40, 1e-3, 7.0, 1e6, 2.0**40])
def test_multiplying_all_values_by_a_constant_changes_nothing(method: str, constant: float) -> None:
    rng = np.random.default_rng(3)
    mean, sd = rng.normal(size=(300, 12)), rng.uniform(0.05, 1.0, (300, 12))
    sd[:, -1] = 0.0
    eligible, marks, gates = rng.random((300, 12)) < 0.8, rng.random((300, 3)), rng.random(300)
    keeps, limits = rng.random(12), np.full(300, 3)
    here, there = (
        choose(mean * k, sd * k, eligible, limits, marks, method=method, floor=0.05, gates=gates, keeps=keeps)
        for k in (1.0, constant)
    )
    assert (here.picks == there.picks).all()
    np.testing.assert_allclose(here.propensities, there.propensities, rtol=1e-6)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(1, 4), st.integers(1, 20), st.integers(1, 4), st.sampled_from([0.0, 0.2, 1.0]))
def test_any_input_gives_lawful_slates_and_a_closed_gate_the_best(
    data: st.DataObject, rows: int, columns: int, positions: int, floor: float
) -> None:
    """NaN, infinities, equal scores, nothing unsure: propensities in (0, 1], each once, and 1 where nobody explores."""
    elements = data.draw(st.sampled_from([ANY, st.sampled_from([0.0, 1.0, 2.0]), st.just(1.0)]))
    mean = data.draw(hnp.arrays(np.float32, (rows, columns), elements=elements))
    sd = data.draw(hnp.arrays(np.float32, (rows, columns), elements=data.draw(st.sampled_from([ANY, st.just(0.0)]))))
    eligible = data.draw(hnp.arrays(bool, (rows, columns)))
    limits = data.draw(hnp.arrays(np.int64, rows, elements=st.integers(0, positions)))
    silence = data.draw(st.none() | st.integers(0, columns - 1))
    shares = st.floats(0, 1)
    gates = data.draw(hnp.arrays(np.float64, rows, elements=st.just(0.0) | shares))
    keeps = data.draw(hnp.arrays(np.float64, columns, elements=shares))
    method = data.draw(st.sampled_from(METHODS))
    marks = draws(rows, positions, data.draw(st.integers(0, 1000)))
    slates = choose(
        mean,
        sd,
        eligible,
        limits,
        marks,
        candidates_max=4,
        floor=floor,
        silence=silence,
        method=method,
        gates=gates,
        keeps=keeps,
    )
    possible = eligible & ~np.isnan(mean)
    for row in range(rows):
        p, shown = slates.propensities[row], [pick for pick in slates.picks[row].tolist() if pick >= 0]
        drawn = int((p > 0).sum())
        assert ((p >= 0) & (p <= 1)).all() and (p[:drawn] > 0).all()
        assert possible[row, shown].all() and len(set(shown)) == len(shown) <= drawn <= len(shown) + 1
        if silence not in shown and drawn == len(shown):
            assert drawn == min(int(limits[row]), int(possible[row].sum()))
        if gates[row] == 0.0:
            assert set(p[:drawn].tolist()) <= {1.0} and not slates.explored[row].any()
            left = np.where(possible[row], np.clip(mean[row].astype(float), -1e30, 1e30), -np.inf)
            for pick in shown:
                assert pick == int(left.argmax())
                left[pick] = -np.inf
        else:
            for place, pick in enumerate(shown):
                assert not slates.explored[row, place] or keeps[pick] > 0


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 8), st.sampled_from(METHODS), st.sampled_from([0.0, 0.3]))
def test_the_first_place_sums_to_one(data: st.DataObject, columns: int, method: str, floor: float) -> None:
    """Dice on a fine grid draw everything that can be drawn: the propensities of all of it add up to 1."""
    mean = data.draw(hnp.arrays(np.float64, columns, elements=st.floats(-2, 2)))
    sd = data.draw(hnp.arrays(np.float64, columns, elements=st.floats(0, 2)))
    keeps = data.draw(hnp.arrays(np.float64, columns, elements=st.floats(0, 1)))
    gate = data.draw(st.floats(0, 1))
    rows = 4_001
    marks = np.linspace(0.0, 1.0 - 2.0**-53, rows)[:, None]
    slates = choose(
        np.tile(mean, (rows, 1)),
        np.tile(sd, (rows, 1)),
        np.ones((rows, columns), bool),
        np.ones(rows, int),
        marks,
        method=method,
        floor=floor,
        gates=np.full(rows, gate),
        keeps=keeps,
    )
    seen = dict(zip(slates.picks[:, 0].tolist(), slates.propensities[:, 0].tolist(), strict=True))
    assert sum(seen.values()) == pytest.approx(1.0, abs=columns / (rows - 1))


def test_an_open_gate_is_thompson_sampling_as_it_was() -> None:
    rng = np.random.default_rng(5)
    mean, sd, eligible = rng.normal(size=(400, 40)), rng.uniform(0.05, 1, (400, 40)), rng.random((400, 40)) < 0.8
    marks, limits = rng.random((400, 3)), np.full(400, 3)
    for floor in (0.0, 0.05):
        plain = choose(mean, sd, eligible, limits, marks, floor=floor)
        governed = choose(mean, sd, eligible, limits, marks, floor=floor, gates=np.ones(400), keeps=np.ones(40))
        np.testing.assert_allclose(
            governed.propensities[:, 0],
            first_probabilities(mean, sd, eligible, floor=floor)[np.arange(400), governed.picks[:, 0]],
            rtol=1e-9,
        )
        if not floor:  # with a floor those outside the race are laid out in another order
            assert (plain.picks == governed.picks).all()
            np.testing.assert_allclose(plain.propensities, governed.propensities, rtol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "hope"}, "method 'hope' is none of thompson, inverse_gap, greedy"),
        ({"gates": np.zeros(3)}, "gates"),
        ({"gates": np.array([0.5, 1.5])}, "between 0 and 1"),
        ({"keeps": np.array([0.5, np.nan, 0.0])}, "between 0 and 1"),
        ({"keeps": np.zeros(2)}, "keeps"),
    ],
)
def test_wrong_shares_are_refused(change: dict[str, Any], message: str) -> None:
    arrays = np.zeros((2, 3)), np.zeros((2, 3)), np.ones((2, 3), bool), np.ones(2, int), np.zeros((2, 1))
    with pytest.raises(ValueError, match=message):
        choose(*arrays, **change)


@pytest.mark.parametrize("method", METHODS)
def test_extreme_dice_draw_nothing_impossible(method: str) -> None:
    """The best by mean is sure and nearly always beaten: what rounding leaves over does not fall to it."""
    mean, sd = np.array([[1.0] + [0.99] * 40]), np.array([[0.0] + [50.0] * 40])
    for mark in (0.0, 0.5, 1.0 - 2.0**-53, 1.0):
        for gate in (0.0, 1e-17, 0.5, 1.0 - 2.0**-53, 1.0):
            slates = choose(
                mean,
                sd,
                np.ones((1, 41), bool),
                np.array([5]),
                np.full((1, 5), mark),
                method=method,
                gates=np.array([gate]),
            )
            p = slates.propensities[0]
            assert ((p > 0) & (p <= 1)).all() and np.isfinite(p).all()


@pytest.mark.parametrize("method", METHODS)
def test_with_less_exploration_the_same_is_shown_or_the_best(method: str) -> None:
    """The same dice under different shares: whoever is explored on under the smaller one gets the same offer."""
    rows = 3_000
    wide = crowd(rows, 1, gate=0.8, method=method, floor=0.4).picks[:, 0]
    narrow = crowd(rows, 1, gate=0.3, keeps=KEEPS, method=method, floor=0.4).picks[:, 0]
    assert ((narrow == wide) | (narrow == 1)).all()
    assert 0 < (narrow != 1).sum() < (wide != 1).sum()


@settings(max_examples=200)
@given(
    mean=hnp.arrays(np.float64, (4, 6), elements=ANY),
    sd=hnp.arrays(np.float64, (4, 6), elements=ANY),
    eligible=hnp.arrays(np.bool_, (4, 6)),
    gates=hnp.arrays(np.float64, 4, elements=st.floats(0, 1)),
    keeps=hnp.arrays(np.float64, 6, elements=st.floats(0, 1)),
    floor=st.sampled_from([0.0, 0.2]),
)
def test_the_distribution_of_the_first_place_is_what_is_drawn_from(
    mean: np.ndarray, sd: np.ndarray, eligible: np.ndarray, gates: np.ndarray, keeps: np.ndarray, floor: float
) -> None:
    governed: dict[str, Any] = {"gates": gates, "keeps": keeps, "floor": floor}
    shares = first_probabilities(mean, sd, eligible, **governed)
    there = (eligible & ~np.isnan(mean)).any(axis=1)
    assert shares.sum(axis=1) == pytest.approx(there.astype(float))
    for seed in range(5):
        slates = choose(mean, sd, eligible, np.ones(4, np.int64), draws(4, 1, seed), **governed)
        for row in np.flatnonzero(there):
            assert slates.propensities[row, 0] == pytest.approx(shares[row, slates.picks[row, 0]], abs=1e-9)
