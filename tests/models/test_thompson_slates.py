"""Slates are drawn from the logged propensities, from the eligible, once each, and end in silence."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats as scipy_stats

from models import choose, dice, first_probabilities, seed_of

ANY = st.floats(allow_nan=True, allow_infinity=True, width=32)


def uniforms(rows: int, positions: int, seed: int = 0) -> np.ndarray:
    return dice(np.random.default_rng(seed).integers(0, 2**63, rows).astype(np.uint64), positions)


def repeated(rows: int, *values: float) -> np.ndarray:
    return np.tile(np.array(values), (rows, 1))


def limits(rows: int, limit: int) -> np.ndarray:
    return np.full(rows, limit)


def assert_frequencies(counts: np.ndarray, p: np.ndarray) -> None:
    assert counts[p == 0].sum() == 0
    assert scipy_stats.chisquare(counts[p > 0], p[p > 0] * counts.sum()).pvalue > 1e-3


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_draws_follow_the_logged_propensities(floor):
    rows, columns = 40_000, 25
    rng = np.random.default_rng(1)
    mean, sd = repeated(rows, *rng.normal(size=columns)), repeated(rows, *rng.uniform(0.1, 1.5, columns))
    eligible = repeated(rows, *(rng.random(columns) < 0.9)).astype(bool)
    slates = choose(mean, sd, eligible, limits(rows, 3), uniforms(rows, 3), floor=floor)
    p = first_probabilities(mean[:1], sd[:1], eligible[:1], floor=floor)[0]
    first = slates.picks[:, 0]
    np.testing.assert_allclose(slates.propensities[:, 0], p[first], rtol=1e-12)
    assert_frequencies(np.bincount(first, minlength=columns), p)
    favourite = np.bincount(first).argmax()  # the second position, given the most frequent first
    given_first = first == favourite
    second = slates.picks[given_first, 1]
    logged = np.zeros(columns)
    logged[second] = slates.propensities[given_first, 1]
    assert logged.sum() == pytest.approx(1.0, abs=0.01)  # the few never drawn are missing
    assert_frequencies(np.bincount(second, minlength=columns), logged / logged.sum())


def test_importance_weights_estimate_every_policy():
    """The weight 1 / propensity of a column's first picks sums to the number of rows: no bias in what is logged."""
    rows = 50_000
    mean, sd = repeated(rows, 0.0, 0.3, 0.6, 0.2), repeated(rows, 1.0, 0.4, 0.2, 0.0)
    slates = choose(mean, sd, np.ones((rows, 4), bool), limits(rows, 1), uniforms(rows, 1), floor=0.05)
    for column in range(4):
        drawn = slates.picks[:, 0] == column
        assert (drawn / slates.propensities[:, 0]).mean() == pytest.approx(1.0, abs=0.04)


def test_the_next_position_is_the_race_among_the_rest():
    rng = np.random.default_rng(2)
    mean, sd, eligible = rng.normal(size=(200, 9)), rng.uniform(0.05, 1, (200, 9)), rng.random((200, 9)) < 0.9
    slates = choose(mean, sd, eligible, limits(200, 2), uniforms(200, 2))
    each = np.arange(200)
    eligible[each, slates.picks[:, 0]] = False
    again = first_probabilities(mean, sd, eligible)
    np.testing.assert_allclose(slates.propensities[:, 1], again[each, slates.picks[:, 1]], atol=0.01)


def test_point_masses_are_ranked():
    mean, sd = np.array([[1.0, 5.0, 3.0, 4.0, 2.0]]), np.zeros((1, 5))
    slates = choose(mean, sd, np.ones((1, 5), bool), limits(1, 6), uniforms(1, 6))
    assert slates.picks.tolist() == [[1, 3, 2, 4, 0, -1]]
    assert slates.propensities.tolist() == [[1.0, 1.0, 1.0, 1.0, 1.0, 0.0]]


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(1, 4), st.integers(1, 24), st.integers(1, 5), st.sampled_from([0.0, 0.2, 1.0]))
def test_any_input_gives_lawful_slates(data, rows, columns, positions, floor):
    mean = data.draw(hnp.arrays(np.float32, (rows, columns), elements=ANY))
    sd = data.draw(hnp.arrays(np.float32, (rows, columns), elements=ANY))
    eligible = data.draw(hnp.arrays(bool, (rows, columns)))
    most = data.draw(hnp.arrays(np.int64, rows, elements=st.integers(0, positions)))
    silence = data.draw(st.none() | st.integers(0, columns - 1))
    draws = uniforms(rows, positions, data.draw(st.integers(0, 1000)))
    slates = choose(mean, sd, eligible, most, draws, candidates_max=4, floor=floor, silence=silence)
    assert slates.picks.shape == slates.propensities.shape == (rows, positions)
    assert slates.picks.dtype == np.int16
    possible = eligible & ~np.isnan(mean)
    for row in range(rows):
        picks = slates.picks[row]
        shown = picks[picks >= 0].tolist()
        p = slates.propensities[row]
        assert (picks[len(shown) :] == -1).all() and len(set(shown)) == len(shown) <= most[row]
        assert possible[row, shown].all()
        assert (p >= 0).all() and (p <= 1 + 1e-12).all() and (p[: len(shown)] > 0).all()
        if silence in shown:
            assert shown == [silence]
        drawn = int((p > 0).sum())  # picks, and perhaps the end in silence
        if drawn > len(shown):
            assert drawn == len(shown) + 1 > 1 and possible[row, silence]
        elif silence not in shown:
            assert drawn == min(int(most[row]), int(possible[row].sum()))
        for position in range(drawn):
            assert p[position] >= floor / (possible[row].sum() - position) * (1 - 1e-9)
    chances = first_probabilities(mean, sd, eligible, candidates_max=4, floor=floor)
    np.testing.assert_allclose(chances.sum(axis=1), possible.any(axis=1), atol=1e-9)
    assert (chances[~possible] == 0).all()
    if floor:
        assert (chances >= possible * floor / np.maximum(possible.sum(axis=1, keepdims=True), 1) * (1 - 1e-9)).all()


@pytest.mark.parametrize("extreme", [0.0, 1.0, 1.0 - 2.0**-53])
def test_the_extremes_of_the_dice_draw_something_possible(extreme):
    mean, sd = np.array([[0.0, 1.0, 9.0, 0.0]]), np.array([[1.0, 1.0, 0.0, 0.0]])
    eligible = np.array([[True, True, False, False]])
    for floor in (0.0, 0.3, 1.0):
        slates = choose(mean, sd, eligible, limits(1, 2), np.full((1, 2), extreme), floor=floor, candidates_max=2)
        assert sorted(slates.picks[0].tolist()) == [0, 1]


def test_the_floor_reaches_columns_outside_the_race():
    rows, columns = 20_000, 30
    mean, sd = repeated(rows, *range(columns)), np.zeros((rows, columns))
    eligible = np.ones((rows, columns), bool)
    slates = choose(mean, sd, eligible, limits(rows, 2), uniforms(rows, 2), floor=0.3, candidates_max=4)
    p = np.full(columns, 0.3 / columns)
    p[-1] += 0.7
    assert_frequencies(np.bincount(slates.picks[:, 0], minlength=columns), p)
    np.testing.assert_allclose(slates.propensities[:, 0], p[slates.picks[:, 0]])
    after = slates.picks[:, 0] == columns - 1
    rest = np.full(columns, 0.3 / (columns - 1))
    rest[-2:] += [0.7, 0.0]
    rest[-1] = 0.0
    assert_frequencies(np.bincount(slates.picks[after, 1], minlength=columns), rest)


def test_silence_first_is_the_whole_slate_and_later_ends_it():
    eligible = np.ones((1, 3), bool)
    for best, picks, p in [(2.0, [[2, -1, -1]], [[1.0, 0.0, 0.0]]), (0.5, [[0, -1, -1]], [[1.0, 1.0, 0.0]])]:
        mean = np.array([[1.0, 0.2, best]])
        slates = choose(mean, np.zeros((1, 3)), eligible, limits(1, 3), uniforms(1, 3), silence=2)
        assert (slates.picks.tolist(), slates.propensities.tolist()) == (picks, p)


def test_a_pick_explores_if_something_left_was_expected_to_be_better():
    """The best first, then the third before the second; what is not eligible or already picked counts for nothing."""
    mean = np.array([[1.0, 3.0, 2.0, np.nan, 9.0]])
    may = np.array([[True, True, True, True, False]])
    flat = np.full((1, 5), 1e-3)
    for marks, picks, explored in [
        ((0.5, 0.5, 0.5), [1, 2, 0], [False, False, False]),
        ((0.0, 0.99, 0.5), [0, 2, 1], [True, True, False]),
        ((0.5, 0.0, 0.5), [1, 0, 2], [False, True, False]),
    ]:
        slates = choose(mean, flat, may, limits(1, 4), np.array([[*marks, 0.5]]), floor=1.0)
        assert (slates.picks[0, :3].tolist(), slates.explored[0].tolist()) == (picks, [*explored, False])


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 30), st.integers(1, 4), st.sampled_from([0.0, 0.5]))
def test_explored_is_what_a_search_of_the_rest_finds(data, columns, positions, floor):
    mean = data.draw(hnp.arrays(np.float64, (3, columns), elements=st.integers(0, 5).map(float)))
    eligible = data.draw(hnp.arrays(bool, (3, columns)))
    draws = uniforms(3, positions, data.draw(st.integers(0, 1000)))
    slates = choose(mean, np.ones((3, columns)), eligible, limits(3, positions), draws, floor=floor, candidates_max=4)
    left = np.where(eligible, mean, -np.inf)
    for row in range(3):
        for pick, explored in zip(slates.picks[row].tolist(), slates.explored[row].tolist(), strict=True):
            assert explored == (pick >= 0 and left[row].max() > mean[row, pick])
            left[row, pick] = -np.inf


@pytest.mark.parametrize(
    "change", [lambda a: a.astype(np.float32), lambda a: np.asfortranarray(a), lambda a: a[:, ::1]]
)
def test_arrays_of_other_types_and_orders_are_converted(change):
    rng = np.random.default_rng(3)
    mean, sd = rng.normal(size=(5, 40)).astype(np.float32), rng.uniform(0, 1, (5, 40)).astype(np.float32)
    eligible, draws = np.ones((5, 40), bool), uniforms(5, 3)
    plain = choose(mean.astype(float), sd.astype(float), eligible, limits(5, 3), draws)
    other = choose(change(mean), change(sd), change(eligible), limits(5, 3).astype(np.int32), draws)
    assert (plain.picks == other.picks).all() and (plain.propensities == other.propensities).all()


def test_limits_are_per_row():
    mean = repeated(3, 3.0, 2.0, 1.0)
    slates = choose(mean, np.zeros((3, 3)), np.ones((3, 3), bool), np.array([0, 1, 3]), uniforms(3, 3))
    assert slates.picks.tolist() == [[-1, -1, -1], [0, -1, -1], [0, 1, 2]]


@pytest.mark.parametrize("shape", [(0, 5), (3, 0)])
def test_nothing_to_choose_from(shape):
    slates = choose(
        np.zeros(shape), np.zeros(shape), np.ones(shape, bool), limits(shape[0], 2), np.zeros((shape[0], 2))
    )
    assert (slates.picks == -1).all() and (slates.propensities == 0).all()
    assert first_probabilities(np.zeros(shape), np.zeros(shape), np.ones(shape, bool)).shape == shape


def test_a_row_is_chosen_the_same_alone_and_in_a_batch():
    rng = np.random.default_rng(6)
    mean, sd = rng.normal(size=(20, 50)).astype(np.float32), rng.uniform(0, 1, (20, 50)).astype(np.float32)
    eligible, draws = rng.random((20, 50)) < 0.7, uniforms(20, 3)
    batch = choose(mean, sd, eligible, limits(20, 3), draws, floor=0.1)
    for row in range(20):
        one = slice(row, row + 1)
        alone = choose(mean[one], sd[one], eligible[one], limits(1, 3), draws[one], floor=0.1)
        assert (alone.picks == batch.picks[one]).all()
        assert (alone.propensities == batch.propensities[one]).all()


def test_inputs_are_left_alone():
    rng = np.random.default_rng(6)
    arrays = [rng.normal(size=(4, 30)), rng.uniform(0, 1, (4, 30)), rng.random((4, 30)) < 0.7]
    before = [array.copy() for array in arrays]
    choose(*arrays, limits(4, 3), uniforms(4, 3), floor=0.2, silence=1)
    assert all((a == b).all() for a, b in zip(arrays, before, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"floor": 1.5}, "floor"),
        ({"silence": 3}, "silence 3"),
        ({"sd": np.zeros((2, 2))}, "differ in shape"),
        ({"uniforms": np.zeros((3, 1))}, "do not have 2 rows"),
        ({"limits": np.zeros(3, int)}, "do not have 2 rows"),
    ],
)
def test_wrong_arguments_are_refused(change, message):
    arguments = {
        "mean": np.zeros((2, 3)),
        "sd": np.zeros((2, 3)),
        "eligible": np.ones((2, 3), bool),
        "limits": limits(2, 1),
        "uniforms": np.zeros((2, 1)),
    }
    with pytest.raises(ValueError, match=message):
        choose(**{**arguments, **change})


def test_dice_are_uniform_and_a_function_of_the_seed():
    seeds = np.array([seed_of(b"person", person) for person in range(20_000)], np.uint64)
    draws = dice(seeds, 3)
    assert (draws == dice(seeds, 5)[:, :3]).all() and (draws >= 0).all() and (draws < 1).all()
    assert scipy_stats.kstest(draws.ravel(), "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(draws, rowvar=False) - np.eye(3)).max() < 0.03


def test_seeds_tell_parts_apart():
    parts = [(), (b"",), (0,), (b"", b""), (b"ab",), (b"a", b"b"), (1, 2), (12,), (-1,), (255,), (2**64,), (b"1",)]
    assert len({seed_of(*part) for part in parts}) == len(parts)
    assert all(0 <= seed_of(*part) < 2**64 for part in parts)
