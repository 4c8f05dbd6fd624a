"""Intervals for what arms bring hold as often as they say, at one look and at many."""

import numpy as np
import pytest
from scipy import stats

from models.lift import Arm, always_valid, compare, sample_ratio, too_little


def worth(rng: np.random.Generator, people: int, rate: float, alike: float) -> np.ndarray:
    """What each of some people brings over about three visits; `alike` small: visits of a person are much alike."""
    own = rng.beta(rate * alike, (1.0 - rate) * alike, people)
    return 40.0 * rng.binomial(rng.poisson(3.0, people), own) - 0.3


@pytest.mark.parametrize(
    ("ours", "theirs", "rate", "alike"), [(1_000, 9_000, 0.05, 2.0), (500, 500, 0.2, 3.0), (1_000, 10_000, 0.03, 5.0)]
)
def test_intervals_hold_as_often_as_they_say(ours: int, theirs: int, rate: float, alike: float) -> None:
    rng = np.random.default_rng(7)
    looks = held = relative_held = 0
    for _ in range(500):
        arm, base = Arm.of(worth(rng, ours, rate, alike)), Arm.of(worth(rng, theirs, rate, alike))
        if too_little(arm):
            continue
        found = compare(arm, base, 3 * (ours + theirs))
        looks += 1
        held += found.difference.low <= 0.0 <= found.difference.high
        relative_held += found.relative is not None and found.relative.low <= 0.0 <= found.relative.high
    assert looks > 450
    assert 0.93 <= held / looks <= 0.97
    assert 0.93 <= relative_held / looks <= 0.97


def test_an_interval_holds_a_difference_that_is_there() -> None:
    rng = np.random.default_rng(11)
    truth = 40.0 * 3.0 * (0.08 - 0.05)
    held = []
    for _ in range(500):
        found = compare(Arm.of(worth(rng, 1_000, 0.08, 4.0)), Arm.of(worth(rng, 4_000, 0.05, 4.0)), 15_000)
        held.append(found.difference.low <= truth <= found.difference.high)
    assert 0.92 <= np.mean(held) <= 0.98


def ever_wrong(rng: np.random.Generator, people: tuple[int, int], days: int, alike: float | None) -> bool:
    """A fixed panel that decides every day, or people who come once, looked at every day. Nothing differs."""
    n = sum(people)
    ours = np.arange(n) < people[0]
    panel = alike is not None
    own = rng.beta(0.05 * (alike or 1.0), 0.95 * (alike or 1.0), n) if panel else np.full(n, 0.05)
    first = np.zeros(n, np.int64) if panel else rng.integers(0, days, n)
    total, clock = np.zeros(n), 0
    for day in range(days):
        here = first <= day if panel else first == day
        total += here * (rng.random(n) < own) * rng.exponential(10.0, n)
        clock += int(here.sum())
        seen = first <= day
        arm, base = Arm.of(total[seen & ours]), Arm.of(total[seen & ~ours])
        if not too_little(arm) and not too_little(base) and compare(arm, base, clock).sequence.tells:
            return True
    return False


@pytest.mark.parametrize(
    ("people", "alike"), [((400, 1_600), 1e6), ((400, 1_600), 5.0), ((1_000, 4_000), None)], ids=str
)
def test_the_sequence_is_hardly_ever_wrong_however_often_it_is_looked_at(
    people: tuple[int, int], alike: float | None
) -> None:
    rng = np.random.default_rng(5)
    runs = 100
    wrong = sum(ever_wrong(rng, people, 40, alike) for _ in range(runs))
    assert wrong <= stats.binom.ppf(0.99, runs, 0.05)


def test_one_look_after_the_other_at_plain_intervals_is_often_wrong() -> None:
    """What the sequence is for: the same data, and intervals that are meant for one look."""
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(200):
        values = rng.normal(size=(2, 3_000))
        for seen in range(200, 3_001, 100):
            if compare(Arm.of(values[0, :seen]), Arm.of(values[1, :seen]), 2 * seen).difference.tells:
                wrong += 1
                break
    assert wrong / 200 > 0.12


def test_welch_is_that_of_scipy_where_nothing_is_skewed() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(1.0, 2.0, 300), rng.normal(0.5, 1.0, 5_000)
    ours, theirs = np.concatenate([ours, 2 * ours.mean() - ours]), np.concatenate([theirs, 2 * theirs.mean() - theirs])
    found = compare(Arm.of(ours), Arm.of(theirs), 1_000)
    expected = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    assert (found.difference.low, found.difference.high) == pytest.approx((expected.low, expected.high), rel=1e-6)


def test_the_detectable_difference_is_detected_four_times_of_five() -> None:
    rng = np.random.default_rng(2)
    found = compare(Arm.of(rng.normal(size=400)), Arm.of(rng.normal(size=400)), 800)
    detected = []
    for _ in range(600):
        ours, theirs = rng.normal(found.detectable, 1.0, 400), rng.normal(size=400)
        detected.append(compare(Arm.of(ours), Arm.of(theirs), 800).difference.tells)
    assert 0.74 <= np.mean(detected) <= 0.86


def test_the_ratio_of_people_is_chi_square() -> None:
    assert sample_ratio([480, 520], [0.5, 0.5]) == pytest.approx(stats.chisquare([480, 520]).pvalue)
    assert sample_ratio([0, 0], [0.5, 0.5]) == 1.0 and sample_ratio([5], [1.0]) == 1.0
    rng = np.random.default_rng(4)
    shares = [0.05, 0.1, 0.85]
    alarms = [sample_ratio(rng.multinomial(20_000, shares).tolist(), shares) < 0.05 for _ in range(1_000)]
    assert 0.03 <= np.mean(alarms) <= 0.07


def test_too_few_people_or_yeses_have_no_interval() -> None:
    assert "99 people" in too_little(Arm.of(np.arange(99.0)))
    few = np.zeros(1_000)
    few[:24] = 1.0
    assert "24 people with another value" in too_little(Arm.of(few))
    assert too_little(Arm.of(np.zeros(1_000))) and not too_little(Arm.of(np.zeros(1_000)), sure=True)
    assert always_valid(10_000) < min(always_valid(1_000), always_valid(1_000_000))


def test_a_share_of_nothing_is_not_told() -> None:
    rng = np.random.default_rng(6)
    assert compare(Arm.of(rng.normal(1.0, 1.0, 500)), Arm.of(rng.normal(0.0, 1.0, 500)), 1_000).relative is None
