"""Estimators of whole slates, held against a simulation whose truth is known by enumeration."""

from itertools import permutations

import numpy as np
import pytest

from models.evaluation import SampleError
from models.slatevalue import SlateSample, evaluate_slates

OFFERS, PLACES, KINDS = 4, 2, 3
Floats = np.ndarray


class World:
    """Three kinds of customers; slates of two of four offers, drawn place by place; who has accepted one wants the next
    less, so that what a place earns depends on the one before it."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.rates = rng.uniform(0.05, 0.6, (KINDS, OFFERS))
        self.after = rng.uniform(0.3, 1.0, (OFFERS, OFFERS))
        """By (first, second): what the first leaves of the second's rate."""
        self.logging = self._policy(rng.uniform(0.5, 2.0, (KINDS, OFFERS)))
        self.target = self._policy(rng.uniform(0.2, 3.0, (KINDS, OFFERS)))

    @staticmethod
    def _policy(weights: Floats) -> tuple[Floats, Floats]:
        """(KINDS, OFFERS) first place, (KINDS, OFFERS, OFFERS) second given the first: Plackett and Luce's."""
        first = weights / weights.sum(axis=1, keepdims=True)
        left = np.repeat(weights[:, None, :], OFFERS, axis=1) * (1 - np.eye(OFFERS))
        return first, left / left.sum(axis=2, keepdims=True)

    def truth(self) -> float:
        first, second = self.target
        pairs = list(permutations(range(OFFERS), 2))
        return float(np.mean([
            sum(
                first[kind, a] * second[kind, a, b] * (self.rates[kind, a] + self.rates[kind, b] * self.after[a, b])
                for a, b in pairs
            )
            for kind in range(KINDS)
        ]))  # fmt: skip

    def sample(self, rng: np.random.Generator, count: int, model: Floats) -> SlateSample:
        kinds = rng.integers(0, KINDS, count)
        (p1, p2), (t1, t2) = self.logging, self.target
        a = (rng.random((count, 1)) > np.cumsum(p1[kinds], axis=1)).sum(axis=1).clip(0, OFFERS - 1)
        b = (rng.random((count, 1)) > np.cumsum(p2[kinds, a], axis=1)).sum(axis=1).clip(0, OFFERS - 1)
        rates = np.stack([self.rates[kinds, a], self.rates[kinds, b] * self.after[a, b]], axis=1)
        return SlateSample(
            (rng.random((count, PLACES)) < rates) * 1.0,
            np.stack([p1[kinds, a], p2[kinds, a, b]], axis=1),
            np.stack([t1[kinds, a], t2[kinds, a, b]], axis=1),
            np.stack([model[kinds, a], model[kinds, b]], axis=1),
            np.stack([(t1[kinds] * model[kinds]).sum(1), (t2[kinds, a] * model[kinds]).sum(1)], axis=1),
            np.arange(count),
        )


def test_intervals_hold_the_truth_and_a_model_makes_them_narrower() -> None:
    """300 logs; a model that knows rates but not what the first place leaves of them, and one that knows nothing."""
    world = World(3)
    truth, rng = world.truth(), np.random.default_rng(4)
    held = dict.fromkeys(("IPS", "SNIPS", "cascade", "DR", "DR of nothing"), 0)
    width = dict.fromkeys(held, 0.0)
    values: dict[str, list[float]] = {name: [] for name in held}
    logs = 300
    for _ in range(logs):
        sample = world.sample(rng, 1_000, world.rates)
        found = {estimate.name: estimate for estimate in evaluate_slates(sample).estimates}
        blind = SlateSample(
            sample.rewards, sample.logged, sample.target, sample.rewards * 0, sample.rewards * 0, sample.people
        )
        found["DR of nothing"] = evaluate_slates(blind).estimates[-1]
        for name, one in found.items():
            held[name] += one.low <= truth <= one.high
            width[name] += one.high - one.low
            values[name].append(one.value)
    for name in held:
        assert 0.91 <= held[name] / logs <= 0.985, (name, held[name])
        error = np.std(values[name]) / np.sqrt(logs)
        assert abs(np.mean(values[name]) - truth) < 3.5 * error, f"{name} is biased"
    assert width["DR"] < width["cascade"] < width["IPS"]
    assert values["DR of nothing"] == pytest.approx(values["cascade"]), "without a model it is the cascade"


def test_a_slate_of_one_place_is_the_plain_evaluation() -> None:
    world = World(1)
    sample = world.sample(np.random.default_rng(1), 2_000, world.rates)
    parts = sample.rewards, sample.logged, sample.target, sample.model_logged, sample.model_target
    one = SlateSample(*(part[:, :1] for part in parts), sample.people)
    found = {estimate.name: estimate for estimate in evaluate_slates(one).estimates}
    assert found["cascade"].value == pytest.approx(found["IPS"].value)
    assert (found["cascade"].low, found["cascade"].high) == pytest.approx((found["IPS"].low, found["IPS"].high))


def test_customers_count_and_not_their_decisions() -> None:
    """The same log ten times over knows no more."""
    world = World(2)
    sample = world.sample(np.random.default_rng(2), 800, world.rates)
    once = evaluate_slates(sample).estimates[-1]
    parts = sample.rewards, sample.logged, sample.target, sample.model_logged, sample.model_target
    tenfold = SlateSample(*(np.repeat(part, 10, axis=0) for part in parts), np.repeat(sample.people, 10))
    again = evaluate_slates(tenfold).estimates[-1]
    assert (again.low, again.high) == pytest.approx((once.low, once.high), rel=1e-6)
    assert (again.lift_low, again.lift_high) == pytest.approx((once.lift_low, once.lift_high), rel=1e-6)


def test_a_log_that_cannot_tell_is_refused() -> None:
    count = 400
    rewards, logged = np.zeros((count, 2)), np.full((count, 2), 0.5)
    rewards[::7] = 1.0
    none, people = np.zeros((count, 2)), np.arange(count)
    seldom = np.where(np.arange(count)[:, None] < 3, 1.0, 0.0) * np.ones(2)
    away = SlateSample(rewards, logged, seldom, none, none, people)
    assert "effective_rows" in {refusal.code for refusal in evaluate_slates(away).refusals}
    wrong = SlateSample(rewards, np.full((count, 2), 0.9), np.full((count, 2), 0.5), none, none, people)
    assert "weight_mean" in {refusal.code for refusal in evaluate_slates(wrong).refusals}
    unseen = SlateSample(rewards, logged, logged, none, none, people, unseen_share=0.5)
    assert "unseen" in {refusal.code for refusal in evaluate_slates(unseen).refusals}
    logged[5, 1] = 0.0
    with pytest.raises((SampleError, FloatingPointError)), np.errstate(divide="ignore", invalid="ignore"):
        evaluate_slates(SlateSample(rewards, logged, logged, none, none, people))
    with pytest.raises(ValueError, match="expected decisions and places"):
        SlateSample(rewards[:, 0], logged, logged, none, none, people)
