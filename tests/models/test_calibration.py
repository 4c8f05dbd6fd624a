"""Calibration: estimates read as what they come to; counted exactly, and few lessons move nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import CheckpointError
from models.calibration import BINS, EDGES, PRIOR_LESSONS, Calibration, read

lessons = st.tuples(st.integers(-3, 3), st.floats(-0.5, 1.5, width=32), st.integers(0, 100))


def learnt(rows: list[tuple[int, float, int]], sign: int = 1, into: Calibration | None = None) -> Calibration:
    found = Calibration() if into is None else into
    if rows:
        periods, means, targets = zip(*rows, strict=True)
        found.learn(periods, means, targets, [sign] * len(rows))
    return found


def error(shown: np.ndarray, outcome: np.ndarray, bins: int = 10) -> float:
    parts = np.array_split(np.argsort(shown, kind="stable"), bins)
    return sum(len(part) * abs(shown[part].mean() - outcome[part].mean()) for part in parts) / len(shown)


@settings(max_examples=60, deadline=None)
@given(st.lists(lessons, max_size=30), st.lists(lessons, max_size=30), st.randoms(use_true_random=False))
def test_what_is_taken_back_leaves_no_trace_and_order_none_either(
    stay: list[tuple[int, float, int]], go: list[tuple[int, float, int]], dice: object
) -> None:
    expected = learnt(stay).to_bytes()
    mixed = [*stay, *go]
    dice.shuffle(mixed)  # type: ignore[attr-defined]
    found = learnt(go, -1, learnt(mixed))
    assert found.to_bytes() == expected
    both = learnt(stay)
    both.merge(learnt(go))
    assert both.to_bytes() == learnt(mixed).to_bytes()
    both.subtract(learnt(go))
    assert both.to_bytes() == expected
    assert Calibration.from_bytes(expected).to_bytes() == expected
    assert bool(found) == bool(stay)


@settings(max_examples=100, deadline=None)
@given(st.lists(lessons, max_size=60), st.sampled_from([None, 0.5, 5.0]), st.lists(st.floats(-1, 2), max_size=20))
def test_a_curve_never_falls_and_stays_within_probabilities(
    rows: list[tuple[int, float, int]], half_life: float | None, means: list[float]
) -> None:
    curve = learnt(rows).curve(3, half_life)
    assert curve.shape == (BINS + 1,)
    assert (np.diff(curve) >= 0).all() and curve[0] >= 0 and curve[-1] <= 1
    shown = read(curve, sorted(means))
    assert (np.diff(shown) >= 0).all()


def test_without_lessons_an_estimate_reads_as_it_is() -> None:
    means = np.linspace(0, 1, 101)
    assert read(Calibration().curve(0, None), means) == pytest.approx(means, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.floats(0, 1), st.integers(0, 100))
def test_few_lessons_move_it_little(count: int, mean: float, target: int) -> None:
    curve = learnt([(0, mean, target)] * count).curve(0, None)
    assert np.abs(curve - EDGES).max() <= count / PRIOR_LESSONS


@pytest.mark.parametrize("wrong", ["half", "double", "shifted", "linear"])
def test_a_miscalibrated_model_becomes_calibrated(wrong: str) -> None:
    """On customers that it was not learnt from. Each way is off by several times the bar of 0.02 before."""
    rng = np.random.default_rng(7)
    score = rng.normal(-2.2, 1.3, 40_000)
    truth = 1 / (1 + np.exp(-score))
    means = {
        "half": truth / 2,
        "double": np.minimum(2 * truth, 1.2),
        "shifted": truth - 0.08,
        "linear": 0.13 + 0.11 * (score + 2.2),
    }[wrong]
    outcome = rng.random(40_000) < truth
    seen = learnt([(0, mean, 100 * yes) for mean, yes in zip(means[:20_000], outcome[:20_000].tolist(), strict=True)])
    held = slice(20_000, None)
    before = error(read(np.zeros(0), means[held]), outcome[held])
    after = error(read(seen.curve(0, None), means[held]), outcome[held])
    assert before > 0.025
    assert after < 0.02
    assert after < before / 2


def test_an_honest_model_stays_honest() -> None:
    rng = np.random.default_rng(8)
    truth = rng.beta(1, 8, 20_000)
    outcome = rng.random(20_000) < truth
    seen = learnt([(0, mean, 100 * yes) for mean, yes in zip(truth[:2_000], outcome[:2_000].tolist(), strict=True)])
    assert error(read(seen.curve(0, None), truth[2_000:]), outcome[2_000:]) < 0.015


def test_old_lessons_count_less() -> None:
    rows = [(0, 0.5, 0)] * 1_000 + [(10, 0.5, 100)] * 1_000
    for half_life, least, most in ((None, 0.4, 0.6), (1.0, 0.9, 1.0)):
        assert least < read(learnt(rows).curve(10, half_life), [0.5])[0] < most
    pruned = learnt(rows)
    pruned.prune(1_000, 1.0)
    assert not pruned


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_damaged_bytes_are_refused(at: int, flip: int) -> None:
    data = bytearray(learnt([(0, 0.3, 100), (2, 0.1, 0)]).to_bytes())
    data[at % len(data)] ^= flip
    with pytest.raises(CheckpointError):
        Calibration.from_bytes(bytes(data))
