"""How offers are learnt, one claim a test."""

import numpy as np

from models import (
    InputSpec,
    Policy,
    PosteriorOptions,
    Statistics,
    Structure,
    Transform,
    fit,
    learn_strengths,
    pack_offer,
)

TRANSFORM = Transform.compile([InputSpec("age", "linear", 20, 80)], sources=["age"])
OPTIONS = PosteriorOptions(prior_strength=1.0, prior_rate=0.05)


def x_of(*ages: float) -> np.ndarray:
    return TRANSFORM.apply(np.array(ages, float)[:, None])


def learn(stats: Statistics, offer: str, x: np.ndarray, target: int, sign: int = 1) -> None:
    stats.learn([offer] * len(x), [0] * len(x), x, [target] * len(x), [sign] * len(x))


def new_statistics() -> Statistics:
    return Statistics(TRANSFORM.dimension, TRANSFORM.version)


def rate(stats: Statistics, offer: str, age: float) -> float:
    belief = fit(stats, [offer], 0, OPTIONS, strengths=learn_strengths(stats, 0, OPTIONS))[offer]
    return float((x_of(age)[0] / 127) @ belief.mean)


def test_the_order_of_lessons_changes_nothing():
    """Lessons are exact integer sums: the same lessons in any order are the same bytes."""
    forwards, backwards = new_statistics(), new_statistics()
    for age in range(20, 80):
        learn(forwards, "loan", x_of(age), age % 7)
    for age in reversed(range(20, 80)):
        learn(backwards, "loan", x_of(age), age % 7)
    assert forwards.to_bytes() == backwards.to_bytes()


def test_a_late_yes_reverses_its_no():
    """A window that closes without an answer teaches no; when the yes comes late, nothing remembers the no."""
    corrected, hindsight = new_statistics(), new_statistics()
    learn(corrected, "loan", x_of(30), 0)
    learn(corrected, "loan", x_of(30), 0, sign=-1)
    learn(corrected, "loan", x_of(30), 100)
    learn(hindsight, "loan", x_of(30), 100)
    assert corrected.to_bytes() == hindsight.to_bytes()


def test_a_forgotten_customer_was_never_there():
    """Taking back all lessons of a customer leaves the bytes of a world in which they never came."""
    stats = new_statistics()
    learn(stats, "loan", x_of(30, 40), 0)
    without = stats.to_bytes()
    learn(stats, "fund", x_of(55), 100)
    learn(stats, "fund", x_of(55), 100, sign=-1)
    assert stats.to_bytes() == without


def test_partitions_learn_apart_and_add_up():
    """Two learners that share nothing know together what one learner would know."""
    left, right, one = new_statistics(), new_statistics(), new_statistics()
    for stats in (left, one):
        learn(stats, "loan", x_of(25, 35), 100)
    for stats in (right, one):
        learn(stats, "loan", x_of(65, 75), 0)
    left.merge(right)
    assert left.to_bytes() == one.to_bytes()


def test_an_offer_learns_who_takes_it():
    """After some answers the expected rate of a loan is high for the young and low for the old."""
    stats = new_statistics()
    learn(stats, "loan", x_of(*[25] * 200), 100)
    learn(stats, "loan", x_of(*[75] * 200), 0)
    assert rate(stats, "loan", 25) > 0.9
    assert rate(stats, "loan", 75) < 0.1


def test_a_new_offer_starts_from_what_others_taught():
    """An offer without lessons believes what people of that age generally take to."""
    stats = new_statistics()
    assert rate(stats, "new", 25) == 0.05
    for offer in ("loan", "fund", "card", "bond", "plan", "safe"):
        learn(stats, offer, x_of(*[25] * 200), 100)
        learn(stats, offer, x_of(*[75] * 200), 0)
    assert rate(stats, "new", 25) > 0.8
    assert rate(stats, "new", 75) < 0.2


def test_a_new_offer_leans_on_its_category():
    """Where cards go well and loans do not, a new card is expected to go well."""
    stats = new_statistics()
    categories = {"new card": "cards", "new loan": "loans"}
    for number in range(5):
        categories |= {f"card {number}": "cards", f"loan {number}": "loans"}
        learn(stats, f"card {number}", x_of(*range(20, 80)), 100)
        learn(stats, f"loan {number}", x_of(*range(20, 80)), 0)
    structure = Structure(0, categories)
    strengths = learn_strengths(stats, 0, OPTIONS, structure)
    found = fit(stats, ["new card", "new loan", "odd"], 0, OPTIONS, structure, strengths)
    card, loan, odd = (float((x_of(50)[0] / 127) @ found[offer].mean) for offer in found)
    assert loan < 0.3 < odd < 0.7 < card


def test_lessons_make_sure():
    """The standard deviation of a score shrinks as lessons come, and only for the offer that had them."""
    stats = new_statistics()
    learn(stats, "loan", x_of(*[40, 60] * 500), 100)
    learn(stats, "loan", x_of(*[40, 60] * 500), 0)
    beliefs = fit(stats, ["loan", "new"], 0, OPTIONS)
    policy = Policy.empty(["loan", "new"], TRANSFORM.dimension, OPTIONS, TRANSFORM.version)
    policy = policy.replaced({offer: pack_offer(belief) for offer, belief in beliefs.items()}, version=1)
    _, sd = policy.score(x_of(50))
    assert sd[0, 0] < 0.02 < 0.2 < sd[0, 1]
