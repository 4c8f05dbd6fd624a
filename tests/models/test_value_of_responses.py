"""Rewards in two parts: nothing is lost or bent by it, and it tells offers apart sooner."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.terms import OfValue
from models import Beliefs, PosteriorOptions, Statistics, Strengths, Structure, fit, learn_strengths
from models.posterior import LinearBeliefs, combined
from models.strengths import ROUNDS_MAX, learn_linear_strengths

OFFERS = ["card", "fund", "loan"]
OPTIONS = PosteriorOptions(prior_rate=0.1)
VALUED = Structure(valued=frozenset(OFFERS))

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int8]


def told(
    chosen: list[str], x: Rows, targets: npt.NDArray[np.int64], responses: npt.NDArray[np.bool_] | None
) -> Statistics:
    sums = Statistics(x.shape[1], 7)
    sums.learn(chosen, [0] * len(chosen), x, targets, [1] * len(chosen), responses)
    return sums


def rows(rng: np.random.Generator, count: int, columns: int = 3) -> Rows:
    x = rng.integers(-127, 128, (count, columns)).astype(np.int8)
    x[:, 0] = 127
    return x


def shopping(rng: np.random.Generator, visits: dict[str, float], each: int, brings: float = 0.23) -> Statistics:
    """Customers of whom a few visit, and one in fifteen of those buys for very different amounts."""
    chosen = [offer for offer in visits for _ in range(each)]
    visited = rng.random(len(chosen)) < np.array([visits[offer] for offer in chosen])
    bought = visited & (rng.random(len(chosen)) < 1 / 15)
    spent = np.where(bought, rng.gamma(1.0, brings, len(chosen)), 0.0)
    targets = np.floor(np.clip(spent, 0.0, 1.0) * 100 + rng.random(len(chosen))).astype(np.int64)
    targets[~bought] = 0
    return told(chosen, rows(rng, len(chosen), 1), np.minimum(targets, 100), visited)


def test_without_valued_offers_it_is_the_linear_model() -> None:
    rng = np.random.default_rng(1)
    x = rows(rng, 200)
    sums = told(list(rng.choice(OFFERS, 200)), x, rng.integers(0, 2, 200) * 100, None)
    strengths = learn_strengths(sums, 0, OPTIONS)
    every = combined(sums, 0, OPTIONS)
    assert strengths == learn_linear_strengths(every, 3, OPTIONS, Structure(), None, ROUNDS_MAX)
    assert strengths.rest is None
    found = Beliefs(sums, 0, OPTIONS, Structure(), strengths)
    linear = LinearBeliefs(every, sums, OPTIONS, Structure(), strengths)
    for offer, belief in found.of([*OFFERS, "new"]).items():
        expected = linear.of([offer])[offer]
        assert belief.mean.tolist() == expected.mean.tolist()
        assert belief.covariance.tolist() == expected.covariance.tolist()
        assert found.by_others(offer).tolist() == linear.by_others(offer).tolist()
        assert found.prior_spread(offer).tolist() == linear.prior_spread.tolist()


@given(st.integers(0, 2**32), st.floats(0.1, 0.9))
def test_with_next_to_no_prior_it_is_least_squares(seed: int, share: float) -> None:
    """Taking rewards apart and putting the beliefs together again changes no estimate, whatever a response is worth."""
    rng = np.random.default_rng(seed)
    x = rows(rng, 120)
    responses = rng.random(120) < share
    targets = np.where(responses, rng.integers(0, 101, 120), 0)
    options = PosteriorOptions(prior_strength=1e-9)
    weak = Strengths(1e-9, 1e-9, rest=Strengths(1e-9, 1e-9))
    found = fit(told(["card"] * 120, x, targets, responses), ["card"], 0, options, VALUED, weak)["card"]
    expected = np.linalg.lstsq(x / 127.0, targets / 100.0, rcond=None)[0]
    assert found.mean == pytest.approx(expected, abs=1e-6)


def test_offers_are_told_apart_by_who_responds() -> None:
    """Of three offers to which 11, 18 and 15 % respond, with 1,000 lessons each: is the second one seen to be the best?

    What a customer brings is much more uneven than whether one responds, and the same whatever the offer.
    """
    apart, whole = 0, 0
    for seed in range(60):
        sums = shopping(np.random.default_rng(seed), {"card": 0.11, "fund": 0.18, "loan": 0.15}, 1_000)
        for structure in (VALUED, Structure()):
            strengths = learn_strengths(sums, 0, OPTIONS, structure)
            found = fit(sums, OFFERS, 0, OPTIONS, structure, strengths)
            best = max(OFFERS, key=lambda offer: float(found[offer].mean[0])) == "fund"
            apart, whole = apart + (best and structure is VALUED), whole + (best and structure is not VALUED)
    assert apart >= 48
    assert whole <= 40


def test_an_offer_whose_responses_bring_more_is_found() -> None:
    """As many respond to both, but of one they bring four times as much: what is not response comes to be believed."""
    rng = np.random.default_rng(3)
    poor, rich = (shopping(rng, {offer: 0.3}, 6_000, brings) for offer, brings in (("card", 0.06), ("fund", 0.24)))
    poor.merge(rich)
    strengths = learn_strengths(poor, 0, OPTIONS, VALUED)
    found = fit(poor, ["card", "fund"], 0, OPTIONS, VALUED, strengths)
    means = {offer: poor.combined(offer, 0, None)[1][0] / 127 / 100 / 6_000 for offer in ("card", "fund")}
    assert means["fund"] > 2.5 * means["card"]
    for offer, mean in means.items():
        assert found[offer].mean[0] == pytest.approx(mean, rel=0.25)


def test_what_is_believed_is_true_as_often_as_it_says() -> None:
    """Intervals of 95 % hold what an offer brings in 9 of 10 cases or more, once some thirty customers bought."""
    held = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        visits = {offer: float(rng.uniform(0.05, 0.3)) for offer in OFFERS}
        sums = shopping(rng, visits, 2_000)
        strengths = learn_strengths(sums, 0, OPTIONS, VALUED)
        mean_of_bought = float(np.mean(np.minimum(np.random.default_rng(0).gamma(1.0, 0.23, 100_000), 1.0)))
        for offer, belief in fit(sums, OFFERS, 0, OPTIONS, VALUED, strengths).items():
            truth = visits[offer] / 15 * mean_of_bought
            held.append(abs(belief.mean[0] - truth) <= 1.96 * float(np.sqrt(belief.covariance[0, 0])))
    assert np.mean(held) >= 0.9


def test_before_anything_came_only_responses_are_believed_in() -> None:
    """Lessons without a response leave nothing to say of what one is worth; the declared value stands."""
    x = rows(np.random.default_rng(5), 50)
    sums = told(["card"] * 50, x, np.zeros(50, np.int64), np.zeros(50, np.bool_))
    strengths = learn_strengths(sums, 0, OPTIONS, VALUED)
    assert strengths.rest is None
    valued, plain = (fit(sums, ["card"], 0, OPTIONS, of, strengths)["card"] for of in (VALUED, Structure()))
    assert valued.mean.tolist() == plain.mean.tolist()
    assert valued.covariance.tolist() == plain.covariance.tolist()


@pytest.mark.parametrize("share_told", [0.0, 0.5])
def test_rewards_of_which_no_response_was_told_are_learnt_all_the_same(share_told: float) -> None:
    """As checkpoints of before have them: it is then in what is not response, as unsure as it would be by itself."""
    errors = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        rates = dict(zip(OFFERS, (0.1, 0.2, 0.15), strict=True))
        chosen = [offer for offer in OFFERS for _ in range(400)]
        yes = rng.random(1200) < np.array([rates[offer] for offer in chosen])
        sums = told(chosen, rows(rng, 1200, 1), np.where(yes, 80, 0), yes & (rng.random(1200) < share_told))
        found = fit(sums, OFFERS, 0, OPTIONS, VALUED, learn_strengths(sums, 0, OPTIONS, VALUED))
        for offer, belief in found.items():
            errors.append((belief.mean[0] - 0.8 * rates[offer]) / np.sqrt(belief.covariance[0, 0]))
    assert 0.6 <= float(np.sqrt(np.mean(np.square(errors)))) <= 1.3


@pytest.mark.parametrize("rewards", [[0], [0, 0], [100, 0, 100, 0]])
@pytest.mark.parametrize("prior_rate", [0.0, 0.1])
def test_rewards_that_cancel_break_nothing(rewards: list[int], prior_rate: float) -> None:
    """Targets of 0 and 100 are -1 and 1 of the value: what responses bring, the supposed one included, is nothing."""
    sums = told(["card"] * 60, rows(np.random.default_rng(6), 60), np.full(60, 50), np.zeros(60, np.bool_))
    x = rows(np.random.default_rng(7), len(rewards))
    sums.learn(["card"] * len(rewards), [0] * len(rewards), x, rewards, [1] * len(rewards), [True] * len(rewards))
    view = OfValue(sums, {"card": (0.5, 2.0)})
    options = replace(OPTIONS, prior_rate=prior_rate)
    strengths = learn_strengths(view, 0, options, VALUED)
    again = learn_strengths(view, 0, options, VALUED, strengths, rounds=1)
    for belief in fit(view, ["card", "fund"], 0, options, VALUED, again).values():
        assert np.isfinite(belief.mean).all() and np.isfinite(belief.covariance).all()
        assert np.linalg.eigvalsh(belief.covariance).min() > 0.0


def test_a_climb_that_goes_on_believes_what_one_from_the_beginning_does() -> None:
    """It is not learnt how sure the mean of the rest is, and what is declared of that changes with the lessons."""
    rng = np.random.default_rng(11)
    sums, strengths = shopping(rng, {"card": 0.2, "loan": 0.1}, 20), None
    for _ in range(6):
        strengths = learn_strengths(sums, 0, OPTIONS, VALUED, strengths, rounds=1)
        sums.merge(shopping(rng, {"card": 0.2, "loan": 0.1}, 500))
    strengths = learn_strengths(sums, 0, OPTIONS, VALUED, strengths, rounds=1)
    fresh = learn_strengths(sums, 0, OPTIONS, VALUED)
    assert strengths.rest is not None and fresh.rest is not None
    assert strengths.rest.bias == fresh.rest.bias


def test_before_the_first_response_it_is_not_known_what_one_brings() -> None:
    sums = told(["card"] * 50, rows(np.random.default_rng(5), 50), np.zeros(50, np.int64), np.zeros(50, np.bool_))
    declared = Strengths.declared(OPTIONS)
    assert not Beliefs(sums, 0, OPTIONS, VALUED, declared).knows_worth
    assert Beliefs(sums, 0, OPTIONS, Structure(), declared).knows_worth
    sums.learn(["card"], [0], np.full((1, 3), 127, np.int8), [30], [1], [True])
    assert Beliefs(sums, 0, OPTIONS, VALUED, declared).knows_worth


def test_offers_with_and_without_values_learn_from_each_other_who_responds() -> None:
    rng = np.random.default_rng(7)
    x = rows(rng, 400)
    yes = rng.random(400) < 0.4
    sums = told(["card"] * 400, x, yes * 100, None)
    structure = Structure(valued=frozenset(["fund"]))
    new = fit(sums, ["fund"], 0, OPTIONS, structure, Strengths(1.0, 1.0, apart=0.1, rates_apart=0.1))["fund"]
    assert new.mean[0] == pytest.approx(0.4, abs=0.1), "a share of the declared value"


def test_what_others_tell_and_the_prior_are_of_both_parts() -> None:
    """An offer that has no lessons is what others tell of it, and surer than before any lesson of anybody."""
    sums = shopping(np.random.default_rng(8), {"card": 0.2, "loan": 0.1}, 500)
    strengths = replace(learn_strengths(sums, 0, OPTIONS, VALUED), waves=np.inf)
    beliefs = Beliefs(sums, 0, OPTIONS, VALUED, strengths)
    new = beliefs.of(["fund"])["fund"]
    assert beliefs.by_others("fund") == pytest.approx(new.mean)
    spread = beliefs.prior_spread("fund")[0] * new.noise
    assert float(new.covariance[0, 0]) < spread, "others have told something"
    alone = Beliefs(sums.subset([]), 0, OPTIONS, VALUED, Strengths.declared(OPTIONS))
    nothing = alone.of(["fund"])["fund"]
    assert alone.prior_spread("fund") * nothing.noise == pytest.approx(nothing.covariance.diagonal())


def test_strengths_come_back_from_json() -> None:
    sums = shopping(np.random.default_rng(9), {"card": 0.2, "loan": 0.1}, 500)
    strengths = learn_strengths(sums, 0, OPTIONS, VALUED)
    assert strengths.rest is not None
    assert Strengths.from_json(strengths.to_json()) == strengths
    with pytest.raises(TypeError, match="biased"):
        Strengths.from_json({"biased": 1.0})


@given(st.integers(0, 2**32))
def test_lessons_taken_back_that_were_added_elsewhere_break_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rows(rng, 40)
    responses = rng.random(40) < 0.5
    targets = np.where(responses, rng.integers(0, 101, 40), 0)
    signs = rng.choice([-1, 1], 40)
    sums = Statistics(3, 7)
    sums.learn(list(rng.choice(OFFERS, 40)), [0] * 40, x, targets, signs, responses)
    strengths = learn_strengths(sums, 0, OPTIONS, VALUED)
    for belief in fit(sums, [*OFFERS, "new"], 0, OPTIONS, VALUED, strengths).values():
        assert np.isfinite(belief.mean).all()
        assert np.linalg.eigvalsh(belief.covariance).min() > 0.0
