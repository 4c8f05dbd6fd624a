"""The served snapshot says what the posterior says, and is replaced whole."""

import numpy as np
import pytest

from models import CheckpointError, OfferPosterior, Policy, PosteriorOptions, pack_offer, unpack_offer
from models.policy import DENSE_ROWS, SD_FLOOR

D, OPTIONS = 7, PosteriorOptions()


def belief(seed: int, d: int = D, transform_version: int = 3) -> OfferPosterior:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(d, d))
    return OfferPosterior(rng.normal(size=d), root @ root.T + 0.1 * np.eye(d), float(seed), transform_version)


def vectors(count: int, d: int = D) -> np.ndarray:
    return np.random.default_rng(9).integers(-127, 128, (count, d)).astype(np.int8)


@pytest.mark.parametrize("like_usual", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("usual", [0, 2, 64, 70])
@pytest.mark.parametrize("rows", [1, 2, 33])
@pytest.mark.parametrize("d", [1, 2, 64])
def test_scores_equal_the_dense_form(rows, d, usual, like_usual):
    """Whatever is taken as usual, be it of more columns than count, and however many columns are as usual."""
    beliefs = [belief(seed, d) for seed in range(5)]
    offers = [f"offer{seed}" for seed in range(5)]
    packed = {offer: pack_offer(one) for offer, one in zip(offers, beliefs, strict=True)}
    usually = vectors(1, usual)[0]
    policy = Policy.empty(offers, d, OPTIONS, 3, usual=usually).replaced(packed, 1)
    x = np.random.default_rng(8).integers(-127, 128, (rows, d)).astype(np.int8)
    known = min(usual, d)
    as_usual = np.random.default_rng(7).random((rows, known)) < like_usual
    x[:, :known] = np.where(as_usual, usually[:known], x[:, :known])
    mean, sd = policy.score(x)
    assert mean.dtype == sd.dtype == np.float32 and mean.shape == sd.shape == (rows, 5)
    u = x / 127
    for column, one in enumerate(beliefs):
        np.testing.assert_allclose(mean[:, column], u @ one.mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            sd[:, column] ** 2, np.einsum("bi,ij,bj->b", u, one.covariance, u), rtol=1e-4, atol=SD_FLOOR**2
        )


@pytest.mark.parametrize("usual", [0, -127])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7, 1.0])
def test_sparse_and_dense_vectors_and_small_and_large_batches_score_alike(share, usual):
    """The two ways to score meet: whatever is not as usual, and however many customers are asked about at once."""
    beliefs = {f"offer{seed}": pack_offer(belief(seed, 40)) for seed in range(9)}
    policy = Policy.empty(list(beliefs), 40, OPTIONS, 3, usual=np.full(40, usual, np.int8)).replaced(beliefs, 1)
    x = vectors(DENSE_ROWS, 40)
    x[np.random.default_rng(1).random(x.shape) >= share] = usual
    together = policy.score(x)
    for row in range(len(x)):
        for alone, batch in zip(policy.score(x[row : row + 1]), together, strict=True):
            np.testing.assert_allclose(alone[0], batch[row], rtol=1e-5, atol=1e-5)


def test_vectors_of_fewer_columns_are_refused():
    for rows in (1, DENSE_ROWS):
        with pytest.raises(ValueError, match="not \\(rows, 7\\)"):
            Policy.empty(["a"], D, OPTIONS).score(vectors(rows, D - 1))


def test_columns_that_no_belief_is_about_are_not_looked_at():
    beliefs = {"a": pack_offer(belief(1)), "b": pack_offer(belief(2))}
    policy = Policy.empty(["a", "b"], D, OPTIONS, 3).replaced(beliefs, 1)
    for rows in (1, DENSE_ROWS):
        x = vectors(rows, D + 5)
        for wide, narrow in zip(policy.score(x), policy.score(np.ascontiguousarray(x[:, :D])), strict=True):
            np.testing.assert_array_equal(wide, narrow)


def test_beliefs_about_fewer_columns_stand_beside_wider_ones():
    """As if their other columns said nothing; and the policy is narrow again when all of them are."""
    narrow = {offer: pack_offer(belief(seed)) for seed, offer in enumerate("ab")}
    wide = {offer: pack_offer(belief(seed, D + 4)) for seed, offer in enumerate("ab", 7)}
    policy = Policy.empty(["a", "b"], D, OPTIONS, 3).replaced(narrow, 1)
    x = vectors(5, D + 4)
    mixed = policy.replaced({"b": wide["b"]}, 2)
    assert mixed.dimension == D + 4
    before, after = policy.score(x), mixed.score(x)
    all_wide = policy.replaced(wide, 3)
    for one, two, three in zip(before, after, all_wide.score(x), strict=True):
        np.testing.assert_allclose(two[:, 0], one[:, 0], rtol=1e-5)
        np.testing.assert_allclose(two[:, 1], three[:, 1], rtol=1e-5)
    again = all_wide.replaced(narrow, 4)
    assert again.dimension == D
    for one, two in zip(before, again.score(x), strict=True):
        np.testing.assert_array_equal(one, two)


def test_the_prior_policy_scores_every_offer_the_same():
    mean, sd = Policy.empty(["a", "b"], D, OPTIONS).score(vectors(4))
    assert (mean[:, 0] == mean[:, 1]).all() and (sd[:, 0] == sd[:, 1]).all()


def test_a_sure_belief_is_served_at_the_floor():
    sure = OfferPosterior(np.zeros(D), np.zeros((D, D)), 1.0, 0)
    _, sd = Policy.empty(["a"], D, OPTIONS).replaced({"a": pack_offer(sure)}, 1).score(vectors(3))
    assert (sd == np.float32(SD_FLOOR)).all()


def test_replacing_makes_a_new_policy_and_ignores_foreign_offers():
    old = Policy.empty(["a", "b"], D, OPTIONS, 3)
    before = old.mean_weights.copy()
    new = old.replaced({"b": pack_offer(belief(4)), "unknown": b"whatever"}, version=8)
    assert (old.version, new.version, new.offers) == (0, 8, ("a", "b"))
    assert (old.mean_weights == before).all() and (new.mean_weights[:, 0] == before[:, 0]).all()
    assert new.lessons.tolist() == [0.0, 4.0]
    with pytest.raises(ValueError, match="read-only"):
        new.mean_weights[0, 0] = 1.0


def test_beliefs_come_back():
    one = belief(5)
    back = unpack_offer(pack_offer(one))
    np.testing.assert_allclose(back.mean, one.mean, rtol=1e-6)
    np.testing.assert_allclose(back.covariance, one.covariance, rtol=1e-6)
    assert (back.lessons, back.transform_version) == (5.0, 3)
    assert pack_offer(back) == pack_offer(one)


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (b"OP", "cut short"),
        (pack_offer(belief(1))[:-4], "bytes, 7 columns need"),
        (b"XXXX" + pack_offer(belief(1))[4:], "no belief"),
        (pack_offer(belief(1))[:-1] + b"\x55", "CRC-32"),
        (pack_offer(belief(1, transform_version=4)), "learnt through transform 00000004"),
    ],
)
def test_unusable_bytes_are_refused(packed, message):
    with pytest.raises(CheckpointError, match=message):
        Policy.empty(["a", "b"], D, OPTIONS, 3).replaced({"a": packed}, 1)


def test_every_flipped_bit_is_noticed():
    good = pack_offer(belief(1, d=2))
    policy = Policy.empty(["a"], 2, OPTIONS, 3)
    for bit in range(8 * len(good)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CheckpointError):
            policy.replaced({"a": bytes(bad)}, 1)
