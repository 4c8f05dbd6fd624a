"""From a declared rate to what lessons say: by evidence, without a dip, without a jump."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import Beliefs, OfferPosterior, Policy, PosteriorOptions, Statistics, Strengths, Structure, pack_offer
from models.handover import hand_over

OPTIONS = PosteriorOptions(prior_strength=10.0, prior_rate=0.05)
DIMENSION = 3


class World:
    """Offers "new", "sibling" and "stranger"; the new one has a declared rate."""

    def __init__(self, options: PosteriorOptions = OPTIONS) -> None:
        self.options = options
        self.stats = Statistics(DIMENSION, 0)

    def learn(self, offer: str, x: np.ndarray, targets: list[int]) -> None:
        rows = np.tile(x, (len(targets), 1))
        self.stats.learn([offer] * len(targets), [0] * len(targets), rows, targets, [1] * len(targets))

    def handed(
        self, x: np.ndarray, rate: float, strength: float, apart: float = 3.0
    ) -> tuple[float, float, float, OfferPosterior]:
        """(mean, sd, lessons, belief) of the new offer at x."""
        structure = Structure(categories={"new": "a", "sibling": "a", "stranger": "b"})
        strengths = Strengths(20.0, 10.0, apart=apart, rates_apart=apart)
        beliefs = Beliefs(self.stats, 0, self.options, structure, strengths)
        belief = beliefs.of(["new"])["new"]
        policy = Policy.empty(["new"], DIMENSION, self.options).replaced({"new": pack_offer(belief)}, 1)
        mean, sd = policy.score(x[None])
        lessons = hand_over(
            x[None], mean, sd, np.array([0]), np.array([[rate]]), np.array([strength]), np.array([belief.noise]),
            beliefs.prior_spread("new")[None], beliefs.by_others("new")[None],
        )  # fmt: skip
        return float(mean[0, 0]), float(sd[0, 0]), float(lessons[0, 0]), belief


def vector(*steps: int) -> np.ndarray:
    return np.array([127, *steps], np.int8)


steps = st.integers(-127, 127)
rates = st.floats(0.0, 1.0)
strengths = st.floats(0.5, 500.0)


@settings(max_examples=60, deadline=None)
@given(steps, steps, rates, strengths, st.floats(0.0, 1.0))
def test_before_any_lesson_the_declared_rate_counts_alone(
    a: int, b: int, rate: float, strength: float, prior_rate: float
) -> None:
    """Whatever `prior_rate` is, and as unsure as a rate counted on so many lessons."""
    world = World(PosteriorOptions(prior_strength=10.0, prior_rate=prior_rate))
    mean, sd, lessons, _ = world.handed(vector(a, b), rate, strength)
    assert lessons == pytest.approx(0.0, abs=1e-4)
    assert mean == pytest.approx(rate, abs=1e-4)
    assert sd == pytest.approx(np.sqrt(max(rate * (1 - rate), 1e-4) / strength), rel=1e-3, abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(steps, steps, rates, strengths, st.lists(st.tuples(steps, steps, st.integers(0, 100)), max_size=40))
def test_every_lesson_takes_weight_from_the_rate_and_none_gives_it_back(
    a: int, b: int, rate: float, strength: float, taught: list[tuple[int, int, int]]
) -> None:
    """The lessons that speak at one x only grow, whatever they are of, by at most one a lesson of that x."""
    world, x = World(), vector(a, b)
    before = 0.0
    # The strengths of the prior follow all inputs seen: so that they stay, the others have taught already.
    for other_a, other_b, target in taught:
        world.learn("stranger", vector(other_a, other_b), [target] * 200)
    begun = world.handed(x, rate, strength)[2]
    for _ in range(8):
        world.learn("new", x, [100])
        _, _, lessons, _ = world.handed(x, rate, strength)
        assert lessons >= max(before, begun) * (1 - 1e-3) - 1e-3
        assert lessons - max(before, begun) <= 4.0, "a jump"
        before = lessons


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 99), strengths, st.floats(0.0, 1.0), st.sampled_from([0.3, 3.0, 30.0]))
def test_no_dip_where_lessons_say_what_the_rate_said(percent: int, strength: float, prior: float, apart: float) -> None:
    """The prior is not leant on on the way, however far off it is."""
    world, x = World(PosteriorOptions(prior_strength=10.0, prior_rate=prior)), vector(50, -20)
    for round_ in range(12):
        mean, _, _, _ = world.handed(x, percent / 100, strength, apart)
        assert mean == pytest.approx(percent / 100, abs=1e-4), f"after {round_} rounds"
        world.learn("new", x, [percent] * (1 + round_))


@settings(max_examples=60, deadline=None)
@given(rates, strengths, st.integers(0, 100), st.floats(0.0, 1.0), st.sampled_from([0.1, 1.0, 10.0]))
def test_what_the_category_tells_lies_between_its_belief_and_the_rate(
    rate: float, strength: float, percent: int, prior: float, apart: float
) -> None:
    """Lessons of others never push an estimate beyond what they say, however little offers have in common."""
    world, x = World(PosteriorOptions(prior_strength=10.0, prior_rate=prior)), vector(60, 10)
    for count in (1, 10, 100, 1_000):
        world.learn("sibling", x, [percent] * count)
        mean, _, _, belief = world.handed(x, rate, strength, apart)
        told = float(belief.mean @ (x / 127))
        assert min(rate, told) - 1e-3 <= mean <= max(rate, told) + 1e-3


@settings(max_examples=40, deadline=None)
@given(rates, strengths, st.integers(0, 100))
def test_the_mean_moves_from_the_rate_to_the_lessons_one_way(rate: float, strength: float, percent: int) -> None:
    world, x = World(), vector(30, 90)
    means = []
    for _ in range(15):
        means.append(world.handed(x, rate, strength)[0])
        world.learn("new", x, [percent] * 20)
    direction = np.sign(percent / 100 - rate)
    assert (np.diff(means) * direction >= -1e-4).all()
    assert means[0] == pytest.approx(rate, abs=1e-4)


def test_what_is_left_in_the_end_is_the_belief() -> None:
    world, x = World(), vector(30, 90)
    rng = np.random.default_rng(1)
    for _ in range(50):
        world.learn("new", vector(*rng.integers(-127, 128, 2)), (100 * (rng.random(400) < 0.3)).tolist())
    mean, sd, lessons, belief = world.handed(x, 0.9, 20.0)
    u = x / 127
    assert lessons > 500
    assert mean == pytest.approx(float(belief.mean @ u), abs=0.03)
    assert sd == pytest.approx(float(np.sqrt(u @ belief.covariance @ u)), rel=0.05)


def test_the_category_takes_over_before_the_offer_has_a_lesson_where_its_offers_are_alike() -> None:
    """Many alike siblings are worth many lessons; where offers differ much, few."""
    x = vector(0, 0)
    for apart, least, most in ((0.1, 20.0, 200.0), (3.0, 0.5, 20.0)):
        world = World()
        world.learn("sibling", x, [20] * 5_000)
        mean, _, lessons, belief = world.handed(x, 0.01, 20.0, apart)
        assert belief.lessons == 0
        assert least < lessons < most
        assert 0.01 < mean < 0.2


@pytest.mark.parametrize(
    "common",
    [
        {},
        {"loadings": {"sibling": 1.0, "stranger": 1.0, "new": -1.0}},
        {"loadings": {"sibling": 1.0, "stranger": -1.0}},
    ],
    ids=["with", "against", "nobody knows"],
)
def test_what_others_tell_is_what_they_tell_without_the_offer(common: dict[str, Any]) -> None:
    """Taken out of what is known of a category, an offer leaves the very belief of a world without it."""
    rng = np.random.default_rng(5)
    world, without = World(), World()
    for offer, count in (("sibling", 300), ("stranger", 200), ("new", 100)):
        for _ in range(count):
            x, target = vector(*rng.integers(-127, 128, 2)), [int(rng.integers(0, 101))]
            world.learn(offer, x, target)
            if offer != "new":
                without.learn(offer, x, target)
    structure = Structure(categories={"new": "a", "sibling": "a", "stranger": "b"})
    strengths = Strengths(20.0, 10.0, **common)
    found = Beliefs(world.stats, 0, OPTIONS, structure, strengths).by_others("new")
    # The unit of the prior follows the inputs seen, which are not quite the same without those of the offer.
    expected = Beliefs(without.stats, 0, OPTIONS, structure, strengths).by_others("new")
    assert found == pytest.approx(expected, abs=2e-3)
