"""Calibration by offer: what is skewed by offer is put straight, and little evidence changes nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import CheckpointError
from models.calibration import EDGES, Calibration, read
from models.offercalibration import OfferCalibration, calibrated, common_part, factors_in, with_factors

lessons = st.tuples(st.integers(1, 3), st.integers(-3, 3), st.floats(-0.5, 1.5, width=32), st.integers(0, 100))
Row = tuple[int, int, float, int]


def learnt(rows: list[Row], sign: int = 1, into: OfferCalibration | None = None) -> OfferCalibration:
    found = OfferCalibration() if into is None else into
    if rows:
        found.learn(*zip(*rows, strict=True), [sign] * len(rows))
    return found


class Skewed:
    """Estimates of a model that is off in its own way with each offer: the truth has other odds by a factor."""

    def __init__(self, seed: int, skews: list[float], count: int) -> None:
        rng = np.random.default_rng(seed)
        self.offers = rng.integers(0, len(skews), count)
        self.means = rng.beta(2, 6, count)
        odds = self.means / (1 - self.means) * np.exp(np.array(skews))[self.offers]
        self.truth = odds / (1 + odds)
        self.targets = (rng.random(count) < self.truth).astype(int) * 100

    def curve(self) -> np.ndarray:
        common, own = Calibration(), OfferCalibration()
        rest = [0] * len(self.means), self.means.tolist(), self.targets.tolist(), [1] * len(self.means)
        common.learn(*rest)
        own.learn(self.offers.tolist(), *rest)
        knots = common.curve(0, None)
        return with_factors(knots, own.factors(knots, 0, None))

    def error(self, curve: np.ndarray) -> float:
        """Mean distance of what is shown to the truth."""
        shown = np.array([calibrated(curve, m, o) for m, o in zip(self.means, self.offers.tolist(), strict=True)])
        return float(np.abs(shown - self.truth).mean())


def test_the_error_of_each_offer_falls() -> None:
    skews = [-1.0, -0.5, 0.0, 0.5, 1.0]
    curve, other = Skewed(1, skews, 10_000).curve(), Skewed(2, skews, 3_000)
    assert other.error(curve) < 0.3 * other.error(common_part(curve))
    found = np.log(factors_in(curve, range(5)))
    assert found - found.mean() == pytest.approx(skews, abs=0.2), "but for what the curve has of all of them"
    for offer in range(5):
        mine = other.offers == offer
        of_own = np.array([calibrated(curve, mean, offer) for mean in other.means[mine]])
        of_all = read(common_part(curve), other.means[mine])
        ours, theirs = (abs(float((shown - other.truth[mine]).mean())) for shown in (of_own, of_all))
        assert ours < max(0.02, theirs)


@pytest.mark.parametrize("seed", range(8))
def test_offers_that_do_not_differ_stay_on_the_curve(seed: int) -> None:
    curve = Skewed(seed, [0.0] * 6, 3_000).curve()
    factors = factors_in(curve, range(6))
    assert np.abs(np.log(factors)).max(initial=0.0) < 0.2
    few = Skewed(seed, [0.0] * 6, 60).curve()
    assert len(few) == len(EDGES), "chance explains it: nothing is served that was not served before"


def test_few_lessons_move_little_and_many_all_the_way() -> None:
    """Nine offers are known well and differ; the tenth says the same thing, in few lessons and in many."""
    moved = []
    for own in (4, 40, 400, 4_000):
        rows = [(offer, 0, 0.2, target) for offer in range(9) for target in [100] * (60 + 30 * offer) + [0] * 400]
        rows += [(9, 0, 0.2, 100 if n % 2 else 0) for n in range(own)]
        factors = learnt(rows).factors(EDGES, 0, None)
        moved.append(calibrated(with_factors(EDGES, factors), 0.2, 9))
    assert moved == sorted(moved)
    assert moved[0] < 0.38 and moved[-1] == pytest.approx(0.5, abs=0.01)


def test_it_keeps_the_order_of_estimates_and_the_ends() -> None:
    curve = with_factors(np.array([*EDGES]), {1: 3.0, 2: 0.2})
    for offer in (1, 2, 3):
        shown = [calibrated(curve, mean, offer) for mean in np.linspace(-0.2, 1.2, 50)]
        assert shown == sorted(shown) and shown[0] == 0.0 and shown[-1] == 1.0
    assert [calibrated(np.zeros(0), mean, 1) for mean in (-1.0, 0.3)] == [0.0, 0.3]


def test_lessons_age() -> None:
    rows = [(offer, 0, 0.2, target) for offer in (1, 2) for target in [100 if offer == 1 else 0] * 300]
    assert learnt(rows).factors(EDGES, 0, 1.0)
    assert learnt(rows).factors(EDGES, 30, 1.0) == {}


@settings(max_examples=60, deadline=None)
@given(st.lists(lessons, max_size=30), st.lists(lessons, max_size=30), st.randoms(use_true_random=False))
def test_what_is_taken_back_leaves_no_trace_and_order_none_either(stay: list[Row], go: list[Row], dice: object) -> None:
    expected = learnt(stay).to_bytes()
    mixed = [*stay, *go]
    dice.shuffle(mixed)  # type: ignore[attr-defined]
    found = learnt(go, -1, learnt(mixed))
    assert found.to_bytes() == expected
    assert OfferCalibration.from_bytes(expected).to_bytes() == expected
    assert bool(found) == bool(stay)
    factors = learnt(mixed, -1).factors(EDGES, 0, None)
    assert factors == {}, "more taken back than added counts as nothing"
    for factor in learnt(mixed).factors(EDGES, 0, 2.0).values():
        assert np.isfinite(factor) and factor > 0.0


def test_bytes_that_are_damaged_are_refused() -> None:
    data = learnt([(1, 0, 0.5, 100)]).to_bytes()
    for wrong in (b"", data[:-1], data[:40] + b"\1" + data[41:], b"OPCA" + data[4:]):
        with pytest.raises(CheckpointError):
            OfferCalibration.from_bytes(wrong)
    assert not OfferCalibration.from_bytes(OfferCalibration(whole=False).to_bytes()).whole
