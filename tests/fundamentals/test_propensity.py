"""What a propensity is and why it can be trusted, one claim a test."""

import numpy as np

from models import choose, dice, first_probabilities, seed_of


def people(count: int, positions: int = 1) -> np.ndarray:
    return dice(np.array([seed_of(b"person", person) for person in range(count)], np.uint64), positions)


def crowd(count: int, *values: float) -> np.ndarray:
    return np.tile(np.array(values), (count, 1))


def test_the_logged_propensity_is_how_often_it_happens():
    """Of 20,000 customers alike, the share shown an offer is the propensity written down for it."""
    count = 20_000
    mean, sd = crowd(count, 0.10, 0.12, 0.05), crowd(count, 0.02, 0.01, 0.05)
    slates = choose(mean, sd, np.ones((count, 3), bool), np.ones(count, int), people(count))
    for offer in range(3):
        shown = slates.picks[:, 0] == offer
        assert abs(shown.mean() - slates.propensities[shown, 0][0]) < 0.01


def test_it_is_the_chance_to_be_best():
    """Thompson sampling: two offers believed alike share evenly; a worse belief still gets its small chance."""
    mean, sd = np.array([[0.10, 0.10, 0.07]]), np.full((1, 3), 0.02)
    alike, also, worse = first_probabilities(mean, sd, np.ones((1, 3), bool))[0]
    assert abs(alike - also) < 1e-6
    assert 0.0 < worse < 0.15 < alike


def test_what_is_not_eligible_is_never_shown():
    """The best offer by far has no chance where rules forbid it, and the others share all of it."""
    mean, sd = np.array([[9.0, 0.1, 0.1]]), np.full((1, 3), 0.02)
    assert first_probabilities(mean, sd, np.array([[False, True, True]])).round(6).tolist() == [[0.0, 0.5, 0.5]]


def test_a_floor_keeps_every_eligible_offer_alive():
    """With a floor of 3 % each of three offers keeps at least 1 %, however poor it looks."""
    mean, sd = np.array([[0.9, 0.1, 0.1]]), np.zeros((1, 3))
    p = first_probabilities(mean, sd, np.ones((1, 3), bool), floor=0.03)
    assert p.round(6).tolist() == [[0.98, 0.01, 0.01]]


def test_positions_are_drawn_one_after_another():
    """No offer comes twice; each propensity is that of the pick given the picks before it."""
    mean, sd = np.array([[3.0, 2.0, 1.0]]), np.zeros((1, 3))
    slates = choose(mean, sd, np.ones((1, 3), bool), np.array([3]), people(1, 3))
    assert slates.picks.tolist() == [[0, 1, 2]]
    assert slates.propensities.tolist() == [[1.0, 1.0, 1.0]]


def test_silence_competes_and_ends_a_slate():
    """Saying nothing is worth 0; what is worth less is not said."""
    mean, sd = np.array([[0.5, -0.2, 0.0]]), np.zeros((1, 3))
    slates = choose(mean, sd, np.ones((1, 3), bool), np.array([3]), people(1, 3), silence=2)
    assert slates.picks.tolist() == [[0, -1, -1]]


def test_the_same_seed_is_the_same_draw():
    """A seed made of the person and the epoch of their state brings the same answer on every channel."""
    mean, sd, eligible, one = np.zeros((1, 9)), np.ones((1, 9)), np.ones((1, 9), bool), np.array([1])

    def shown(epoch: int) -> int:
        draws = dice(np.array([seed_of(b"ann", epoch)], np.uint64), 1)
        return int(choose(mean, sd, eligible, one, draws).picks[0, 0])

    assert [shown(1) for _ in range(5)] == [shown(1)] * 5
    assert len({shown(epoch) for epoch in range(50)}) > 5
