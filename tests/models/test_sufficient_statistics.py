"""Sums that add, subtract and commute to the last bit, and bytes that are refused when they are not what they claim."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import CheckpointError, Statistics
from models.statistics import HALF_LIVES_MAX, LESSONS_MAX

D = 4
LESSON = st.tuples(
    st.sampled_from(["card", "fund", "loan", "ünïcode"]),
    st.integers(-3, 3),
    st.lists(st.integers(-127, 127), min_size=D, max_size=D),
    st.integers(0, 100),
    st.booleans(),
)
LESSONS = st.lists(LESSON, max_size=25)


def learn(stats: Statistics, lessons, sign: int = 1) -> set[str]:
    """(offer, period, x, target, whether there was a response; no if that is left out) each."""
    return stats.learn(
        [offer for offer, *_ in lessons],
        [period for _, period, *_ in lessons],
        np.array([x for _, _, x, *_ in lessons], np.int8).reshape(-1, D),
        [target for _, _, _, target, *_ in lessons],
        [sign] * len(lessons),
        [response == [True] for _, _, _, _, *response in lessons],
    )


def learnt(lessons, sign: int = 1) -> Statistics:
    stats = Statistics(D, transform_version=77)
    learn(stats, lessons, sign)
    return stats


EMPTY = learnt([]).to_bytes()


@given(LESSONS, st.randoms(use_true_random=False), st.integers(1, 7))
def test_order_and_batches_change_no_bit(lessons, random, batch):
    shuffled = list(lessons)
    random.shuffle(shuffled)
    stats = Statistics(D, 77)
    for start in range(0, len(shuffled), batch):
        learn(stats, shuffled[start : start + batch])
    assert stats.to_bytes() == learnt(lessons).to_bytes()


@given(LESSONS, LESSONS, st.randoms(use_true_random=False))
def test_lessons_taken_back_were_never_learnt_whatever_the_interleaving(kept, erased, random):
    steps = [(lesson, 1) for lesson in kept + erased] + [(lesson, -1) for lesson in erased]
    random.shuffle(steps)
    stats = Statistics(D, 77)
    for lesson, sign in steps:
        learn(stats, [lesson], sign)
    assert stats.to_bytes() == learnt(kept).to_bytes()


@given(LESSONS, LESSONS)
def test_merge_commutes_and_subtract_undoes_it(ours, theirs):
    a, b = learnt(ours), learnt(theirs)
    a.merge(b)
    other = learnt(theirs)
    other.merge(learnt(ours))
    assert a.to_bytes() == other.to_bytes() == learnt(ours + theirs).to_bytes()
    a.subtract(b)
    assert a == learnt(ours)
    a.subtract(a)
    assert a.to_bytes() == EMPTY


@given(LESSONS)
def test_subsets_merge_to_the_whole(lessons):
    stats = learnt(lessons)
    whole = Statistics(D, 77)
    for offer in stats.offers:
        whole.merge(Statistics.from_bytes(stats.subset([offer]).to_bytes()))
    assert whole == stats


@given(LESSONS)
def test_bytes_come_back(lessons):
    stats = learnt(lessons)
    assert Statistics.from_bytes(stats.to_bytes(), transform_version=77).to_bytes() == stats.to_bytes()


def test_large_sums_come_back():
    stats = learnt([("card", 0, [127, 127, -127, 0], 100)])
    for _ in range(20):
        stats.merge(stats)
    n = 2.0**20
    A, b, count, s, *_ = Statistics.from_bytes(stats.to_bytes()).combined("card", 0, None)
    assert (A[0, 0], A[0, 2], b[2], count, s) == (n * 127**2, -n * 127**2, -n * 12700, n, n * 10000)
    assert Statistics.from_bytes(stats.to_bytes()) == stats


@settings(max_examples=30)
@given(LESSONS, st.data())
def test_cut_or_damaged_bytes_are_refused(lessons, data):
    good = learnt(lessons).to_bytes()
    with pytest.raises(CheckpointError):
        Statistics.from_bytes(good[: data.draw(st.integers(0, len(good) - 1))])
    bit = data.draw(st.integers(0, 8 * len(good) - 1))
    bad = bytearray(good)
    bad[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CheckpointError):
        Statistics.from_bytes(bytes(bad))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cut short: 0 bytes do not hold the head"),
        (b"X" + EMPTY[1:], "these are no statistics"),
        (EMPTY[:4] + b"\x09" + EMPTY[5:], "have format 9"),
        (EMPTY[:-1], f"cut short: {len(EMPTY) - 1} of {len(EMPTY)}"),
        (EMPTY + b"x", "too long"),
        (EMPTY[:-1] + b"x", "damaged"),
        (Statistics(D, 0xAB).to_bytes(), "learnt through transform 000000ab, in use is transform 0000004d"),
    ],
)
def test_refusals_say_what_is_wrong(data, message):
    with pytest.raises(CheckpointError, match=message):
        Statistics.from_bytes(data, transform_version=77)


def test_bytes_of_before_responses_were_learnt_are_read():
    """The format before had no responses; what it says is said by the same bytes but for its number and seal."""
    stats = learnt([("card", 0, [127, 1, 2, 3], 50), ("loan", 2, [127, 0, 0, 9], 0)])
    body = bytearray(stats.to_bytes()[:-16])
    assert body[4] == 2
    body[4] = 1
    before = bytes(body) + hashlib.blake2b(body, digest_size=16).digest()
    assert Statistics.from_bytes(before, transform_version=77) == stats


def responses(stats: Statistics, *weighed) -> tuple[list[float], float]:
    found = stats.combined("card", *weighed)
    return found.r.tolist(), found.q


def test_responses_are_summed_and_weighed_as_the_rest_is():
    yes, no = ("card", 0, [127, 1, 2, 3], 40, True), ("card", 0, [127, 9, 9, 9], 70, False)
    stats = learnt([yes, yes, no, ("card", 2, [127, 0, 0, 4], 100, True), ("loan", 0, [127, 1, 1, 1], 50)])
    assert responses(stats, 0, None) == ([381, 2, 4, 10], 180)
    assert responses(stats, 2, 2.0) == ([254, 1, 2, 7], 140)
    assert responses(stats, 2, 2.0, lambda period: float(period > 0)) == ([127, 0, 0, 4], 100)
    assert responses(learnt([("loan", 0, [127, 1, 1, 1], 50)]), 0, None) == ([0] * D, 0)
    assert responses(Statistics.from_bytes(stats.to_bytes()), 0, None) == ([381, 2, 4, 10], 180)
    learn(stats, [yes], -1)
    assert responses(stats, 0, None) == ([254, 1, 2, 7], 140)
    with pytest.raises(ValueError, match="2 offers need as many responses"):
        stats.learn(["card"] * 2, [0] * 2, np.zeros((2, D), np.int8), [0] * 2, [1] * 2, [True])


def test_responses_without_lessons_are_dropped():
    """Taught by terms that told no response, taken back by others that do: nothing of that x may stay."""
    lesson, other = ("card", 0, [127, 5, 6, 7], 40), ("loan", 0, [127, 1, 1, 1], 40, True)
    stats = learnt([lesson, other])
    learn(stats, [(*lesson, True)], -1)
    assert stats.offers == ("card", "loan"), "sums are exact whatever the order, so this might still be added"
    stats.drop_without_lessons()
    assert stats == learnt([other])


def test_statistics_of_two_transforms_do_not_mix():
    with pytest.raises(CheckpointError, match="do not mix"):
        learnt([]).merge(Statistics(D, 78))
    with pytest.raises(CheckpointError, match="do not mix"):
        learnt([]).subtract(Statistics(D + 1, 77))


def test_learning_tells_which_offers_changed():
    lessons = [("card", 0, [127, 0, 0, 0], 0), ("loan", 0, [127, 0, 0, 0], 0), ("card", 1, [127, 0, 0, 0], 0)]
    stats = Statistics(D, 77)
    assert learn(stats, lessons) == {"card", "loan"}
    assert (stats.offers, len(stats)) == (("card", "loan"), 3)
    assert learn(stats, lessons[:1], -1) == {"card"}
    assert len(stats) == 2


def test_half_life_weighs_periods_when_they_are_combined():
    one = ("card", 0, [127, 1, 2, 3], 50)
    stats = learnt([one, ("card", 2, [127, 1, 2, 3], 50)])
    before = stats.to_bytes()
    A, b, n, s, *_ = stats.combined("card", now_period=4, half_life_periods=2.0)
    whole = learnt([one]).combined("card", 0, None)
    assert n == 0.25 + 0.5
    assert (0.75 * whole[0] == A).all() and (b == 0.75 * whole[1]).all() and s == 0.75 * whole[3]
    assert stats.to_bytes() == before


@given(LESSONS, st.integers(-5, 60), st.sampled_from([None, 0.1, 1.0, 2.5]))
def test_pruning_changes_no_result(lessons, now, half_life):
    stats, pruned = learnt(lessons), learnt(lessons)
    touched = pruned.prune(now, half_life)
    for offer in stats.offers:
        for before, after in zip(
            stats.combined(offer, now, half_life), pruned.combined(offer, now, half_life), strict=True
        ):
            assert np.array_equal(before, after)
    assert touched <= set(stats.offers)
    assert (len(pruned) == len(stats)) == (not touched)


def test_pruning_starts_beyond_the_named_limit():
    stats = learnt([("card", 0, [127, 0, 0, 0], 0)])
    assert stats.prune(HALF_LIVES_MAX * 3, 3.0) == set()
    assert stats.prune(HALF_LIVES_MAX * 3 + 1, 3.0) == {"card"}
    assert stats.to_bytes() == EMPTY


@pytest.mark.parametrize(
    "wrong",
    [
        {"targets": [101]},
        {"targets": [-1]},
        {"targets": [0.5]},
        {"signs": [0]},
        {"signs": [2]},
        {"periods": [0, 0]},
        {"periods": [0.9]},
        {"x": np.zeros((1, D + 1), np.int8)},
        {"x": np.zeros((1, D), np.int16)},
    ],
)
def test_wrong_lessons_are_refused_whole(wrong):
    right = {"offers": ["card"], "periods": [0], "x": np.ones((1, D), np.int8), "targets": [1], "signs": [1]}
    stats = Statistics(D, 77)
    with pytest.raises(ValueError):
        stats.learn(**{**right, **wrong})
    assert stats.to_bytes() == EMPTY


def test_capacity_is_what_float64_holds():
    assert LESSONS_MAX * 127**2 <= 2**53 < (LESSONS_MAX + 1) * 127**2
