"""The posterior is the textbook's, and nothing it is given makes it fail."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import OfferPosterior, PosteriorOptions, Statistics, fit
from models.posterior import _prior_precision, _Sums

OPTIONS = PosteriorOptions(prior_strength=2.0, prior_rate=0.1)


def lessons(rng: np.random.Generator, count: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    x = rng.integers(-127, 128, (count, d)).astype(np.int8)
    x[:, 0] = 127
    return x, rng.integers(0, 101, count)


def learnt(d: int, **offers: tuple[np.ndarray, np.ndarray]) -> Statistics:
    stats = Statistics(d, 5)
    for offer, (x, targets) in offers.items():
        stats.learn([offer] * len(x), [0] * len(x), x, targets, [1] * len(x))
    return stats


def assert_proper(posterior: OfferPosterior) -> None:
    assert np.isfinite(posterior.mean).all() and np.isfinite(posterior.covariance).all()
    assert (posterior.covariance == posterior.covariance.T).all()
    assert np.linalg.eigvalsh(posterior.covariance).min() > 0


def test_equals_the_direct_solution():
    """Two ridge regressions solved as least squares with the prior as extra rows: everybody's, then the offer's."""
    rng, d = np.random.default_rng(1), 6
    card, loan = lessons(rng, 40, d), lessons(rng, 25, d)

    def ridge(u, y, precision, centre):
        extra = np.diag(np.sqrt(precision))
        return np.linalg.lstsq(np.vstack([u, extra]), np.concatenate([y, extra @ centre]), rcond=None)[0]

    u_card, u_all = card[0] / 127, np.vstack([card[0], loan[0]]) / 127
    y_card, y_all = card[1] / 100, np.concatenate([card[1], loan[1]]) / 100
    square = (np.square(u_all[:, 1:]).sum() + 2.0 * (d - 1) / 3) / (65 + 2.0)
    precision = np.array([4.0] + [4.0 * square] * (d - 1))
    pooled = ridge(u_all, y_all, precision, np.array([0.1] + [0.0] * (d - 1)))
    noise_all = (np.square(y_all - u_all @ pooled).sum() + 2.0 * 0.1 * 0.9) / (65 + 2.0)
    mean = ridge(u_card, y_card, precision, pooled)
    noise = (np.square(y_card - u_card @ mean).sum() + 2.0 * noise_all) / (40 + 2.0)

    found = fit(learnt(d, card=card, loan=loan), ["card", "new"], 0, OPTIONS)
    np.testing.assert_allclose(found["card"].mean, mean, rtol=1e-9)
    covariance = noise * np.linalg.inv(u_card.T @ u_card + np.diag(precision))
    np.testing.assert_allclose(found["card"].covariance, covariance, rtol=1e-9)
    np.testing.assert_allclose(found["new"].mean, pooled, rtol=1e-9)
    np.testing.assert_allclose(found["new"].covariance, np.diag(noise_all / precision), rtol=1e-9)
    assert (found["card"].lessons, found["new"].lessons, found["new"].transform_version) == (40.0, 0.0, 5)


def test_before_any_lesson_every_offer_has_the_configured_rate():
    found = fit(Statistics(3, 0), ["card"], 0, OPTIONS)["card"]
    assert found.mean.tolist() == [0.1, 0.0, 0.0]
    assert found.lessons == 0.0


def test_the_prior_is_as_sure_as_a_rate_of_so_many_lessons():
    for d in (2, 20, 200):
        found = fit(Statistics(d, 0), ["card"], 0, OPTIONS)["card"]
        u = np.array([1.0] + [np.sqrt(1 / 3)] * (d - 1))
        assert u @ found.covariance @ u == pytest.approx(0.1 * 0.9 / 2.0, rel=0.5)


def test_without_a_customer_the_posterior_is_a_counted_rate():
    """With only a bias, no residual and a rare event, the uncertainty is that of Beta(strength · rate, ...)."""
    x = np.full((1000, 1), 127, np.int8)
    found = fit(learnt(1, card=(x, np.zeros(1000, int))), ["card"], 0, PosteriorOptions(noise_floor=1e-12))["card"]
    assert 0.0 < found.mean[0] < 1e-3
    assert 0.0 < np.sqrt(found.covariance[0, 0]) < 1e-3


@pytest.mark.parametrize("d", [1, 5])
@pytest.mark.parametrize("target", [0, 100])
def test_one_sided_and_constant_lessons_have_a_proper_posterior(d, target):
    x = np.full((500, d), 127, np.int8)
    assert_proper(fit(learnt(d, card=(x, np.full(500, target))), ["card"], 0, OPTIONS)["card"])


def test_collinear_inputs_have_a_proper_posterior_at_any_scale():
    x = np.array([[127, 127, 0], [127, 0, 127]] * 50, np.int8)
    stats = learnt(3, card=(x, np.array([100, 0] * 50)))
    for _ in range(26):
        stats.merge(stats)  # 6.7 billion lessons
    found = fit(stats, ["card"], 0, OPTIONS)["card"]
    assert_proper(found)
    np.testing.assert_allclose((x[:2] / 127) @ found.mean, [1.0, 0.0], atol=1e-3)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.integers(0, 30))
def test_lessons_taken_back_elsewhere_are_survived(seed, added, removed):
    """For a moment a partition may hold more taken back than added; beliefs stay proper."""
    rng, d = np.random.default_rng(seed), 4
    stats = learnt(d, card=lessons(rng, added, d))
    x, targets = lessons(rng, removed, d)
    stats.learn(["card"] * removed, [0] * removed, x, targets, [-1] * removed)
    for posterior in fit(stats, ["card", "new"], 0, OPTIONS).values():
        assert_proper(posterior)


def test_a_late_positive_equals_hindsight_to_the_last_bit():
    rng, d = np.random.default_rng(3), 5
    x, _ = lessons(rng, 30, d)
    late = np.arange(30) % 7 == 0
    lived, hindsight = learnt(d, card=(x, np.zeros(30, int))), learnt(d, card=(x, late * 100))
    offers, count = ["card"] * int(late.sum()), int(late.sum())
    lived.learn(offers, [0] * count, x[late], [0] * count, [-1] * count)
    lived.learn(offers, [0] * count, x[late], [100] * count, [1] * count)
    a, b = (fit(stats, ["card"], 0, OPTIONS)["card"] for stats in (lived, hindsight))
    assert a.mean.tobytes() == b.mean.tobytes() and a.covariance.tobytes() == b.covariance.tobytes()


def test_forgetting_follows_a_change():
    x = np.full((1000, 1), 127, np.int8)
    stats = learnt(1, card=(x, np.zeros(1000, int)))
    stats.learn(["card"] * 100, [10] * 100, x[:100], [100] * 100, [1] * 100)
    forgetful = PosteriorOptions(half_life_periods=1.0)
    assert fit(stats, ["card"], 10, OPTIONS)["card"].mean[0] < 0.1
    assert fit(stats, ["card"], 10, forgetful)["card"].mean[0] > 0.9
    assert fit(stats, ["card"], 10_000, forgetful)["card"].lessons == 0.0


def test_the_prior_precision_measures_the_typical_customer():
    sums = _Sums(np.diag([1000.0, 1000.0, 1000.0, 1000.0]), np.zeros(4), 1000.0, 0.0)
    assert _prior_precision(sums, PosteriorOptions(prior_strength=1.0))[:2] == pytest.approx([2.0, 6.0], rel=0.01)


@pytest.mark.parametrize(
    "wrong",
    [{"prior_strength": 0.0}, {"prior_rate": 1.5}, {"half_life_periods": 0.0}, {"noise_floor": float("nan")}],
)
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PosteriorOptions(**wrong)
