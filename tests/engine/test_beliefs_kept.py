"""What is kept of earlier policies: bounded, shared where nothing changed, complete where it is recent."""

import random

import numpy as np
import pytest

from engine.explain import archive
from engine.explain.archive import keep_in_store
from engine.explain.kept import KeptBeliefs, pack_belief, surplus, unpack_belief
from engine.learner import Learner
from engine.store import MemoryStore
from models import CheckpointError, Policy, PosteriorOptions
from tests.small_engine import catalogue_of

OFFERS = tuple(f"offer {n}" for n in range(10))
DIMENSION = 6
TRANSFORM = 7


def policy_of(version: int, weights: np.ndarray, transform: int = TRANSFORM) -> Policy:
    empty = Policy.empty(OFFERS, DIMENSION, PosteriorOptions(), transform)
    return Policy(
        OFFERS, version, transform, np.ascontiguousarray(weights, np.float32), empty.cov_weights, empty.lessons
    )


def lived(versions: int, bytes_max: int = 10**9, seed: int = 1) -> tuple[KeptBeliefs, dict[int, np.ndarray]]:
    """A server that saw so many versions, each with a few offers that changed."""
    dice = random.Random(seed)
    kept = KeptBeliefs(bytes_max)
    weights = np.zeros((DIMENSION, len(OFFERS)), np.float32)
    truth = {}
    for version in range(1, versions + 1):
        changed = dice.sample(range(len(OFFERS)), dice.choice([1, 2, 10]))
        weights = weights.copy()
        for at in changed:
            weights[:, at] = np.random.default_rng(version).normal(size=DIMENSION)
        truth[version] = weights
        kept.keep(policy_of(version, weights), {OFFERS[at] for at in changed}, [127.0, *[version] * (DIMENSION - 1)])
    return kept, truth


def test_every_version_has_the_weights_it_had() -> None:
    kept, truth = lived(50)
    for version, weights in truth.items():
        found = kept.nearest(version, TRANSFORM)
        assert found is not None
        assert (found.version, found.offers) == (version, OFFERS)
        assert found.average == (127.0, *[version] * (DIMENSION - 1))
        assert (found.weights == weights).all()


def test_what_is_kept_stays_within_its_bytes_and_thins_out_with_age() -> None:
    kept, truth = lived(2_000, bytes_max=60_000)
    whole, _ = lived(2_000)
    assert kept.bytes <= 60_000 < whole.bytes
    # The running count is that of a count from the start.
    assert kept.bytes == sum(kept._cost(at) for at in range(len(kept)))
    versions = kept.versions
    assert versions[-1] == 2_000
    half = versions[-(len(versions) // 2) :]
    assert half == list(range(half[0], 2_001)), "the newest half is complete"
    gaps = np.diff(versions)
    assert (gaps[: len(gaps) // 4].mean() > gaps[len(gaps) // 4 : len(gaps) // 2].mean()) and gaps.max() > 1
    for version in versions:
        found = kept.nearest(version, TRANSFORM)
        assert found is not None
        assert (found.weights == truth[version]).all()


def test_the_nearest_is_told_by_its_own_number() -> None:
    kept, _ = lived(2_000, bytes_max=60_000)
    versions = kept.versions
    for wanted in (1, 2, 77, 500, 1_999, 5_000):
        found = kept.nearest(wanted, TRANSFORM)
        assert found is not None
        assert abs(found.version - wanted) == min(abs(version - wanted) for version in versions)


def test_other_inputs_start_anew_and_the_last_ones_stay_until_the_next() -> None:
    kept, _ = lived(5)
    assert kept.nearest(3, TRANSFORM + 1) is None
    before = kept.nearest(3, TRANSFORM)
    kept.keep(policy_of(6, np.ones((DIMENSION, len(OFFERS))), TRANSFORM + 1), set(), None)
    earlier = kept.nearest(3, TRANSFORM)
    assert kept.versions == [6] and before is not None and earlier is not None
    assert earlier.version == 3 and (earlier.weights == before.weights).all()
    kept.keep(policy_of(7, np.ones((DIMENSION, len(OFFERS))), TRANSFORM + 2), set(), None)
    assert kept.nearest(3, TRANSFORM) is None
    kept.keep(policy_of(8, np.ones((DIMENSION, len(OFFERS))), TRANSFORM + 1), set(), None)
    kept.keep(policy_of(6, np.ones((DIMENSION, len(OFFERS))), TRANSFORM + 1), set(), None)
    found = kept.nearest(6, TRANSFORM + 1)
    assert found is not None
    assert (found.weights == 1.0).all()


def test_a_board_that_was_set_back_takes_its_numbers_again() -> None:
    kept, _ = lived(5)
    kept.keep(policy_of(3, np.ones((DIMENSION, len(OFFERS)))), OFFERS, None)
    assert kept.versions == [1, 2, 3]
    found = kept.nearest(3, TRANSFORM)
    assert found is not None
    assert (found.weights == 1.0).all()
    assert kept.bytes == sum(kept._cost(at) for at in range(len(kept)))


def test_surplus_never_takes_the_newest_half_nor_the_ends() -> None:
    dice = random.Random(3)
    for _ in range(200):
        versions = sorted(dice.sample(range(1_000), dice.randrange(3, 40)))
        at = surplus(versions)
        assert 1 <= at < max(2, len(versions) // 2)


def test_a_packed_belief_reads_back_and_damage_is_seen() -> None:
    weights = np.arange(DIMENSION * len(OFFERS), dtype=np.float32).reshape(DIMENSION, -1)
    for average in ([127.0, 1.5, 0.0, 0.0, 0.0, 0.0], None):
        data = pack_belief(policy_of(12, weights), average)
        found = unpack_belief(data)
        assert (found.version, found.transform_version, found.offers) == (12, TRANSFORM, OFFERS)
        assert found.average == (None if average is None else tuple(average))
        assert (found.weights == weights).all()
        for at in range(0, len(data), 7):
            damaged = bytearray(data)
            damaged[at] ^= 0x40
            with pytest.raises(CheckpointError):
                unpack_belief(bytes(damaged))
        for size in (0, 3, 11, 12, 40, len(data) - 1):
            with pytest.raises(CheckpointError):
                unpack_belief(data[:size])


async def test_the_store_keeps_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "POLICIES_KEPT_ENTRIES_MAX", 6)
    catalogue = catalogue_of()
    store = MemoryStore(4, lambda: 0)
    learner = Learner(catalogue, 4)
    for _ in range(40):
        head, beliefs = learner.snapshot(whole=True)
        await keep_in_store(store, catalogue, head, beliefs)
        assert len(await store.kept_policies()) <= 6
    versions = await store.kept_policies()
    assert (len(versions), versions[0], versions[-3:]) == (6, 1, [38, 39, 40])
    data = await store.kept_policy(40)
    assert data is not None
    assert unpack_belief(data).offers == catalogue.offer_ids
