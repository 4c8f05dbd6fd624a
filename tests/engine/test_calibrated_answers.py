"""A probability that business people read says what such estimates came to; the ranking is the model's."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_governed_exploration import record_of

from engine.arbitration import of_picks
from engine.learner import Learner
from models.calibration import BINS, EDGES, Calibration, read
from tests.small_engine import CONFIG, DAY_MS, PARTITIONS, SmallEngine

REWARDED = CONFIG.replace(b"value: 40\n", b"value: 40\n    rewards: [0, 50]\n")


async def lived(engine: SmallEngine, customers: int = 150, yes_every: int = 10) -> None:
    for n in range(customers):
        answer = await engine.decide(f"customer-{n}", "web", limit=3)
        for ranked in answer.offers:
            await engine.report(answer.decision_id, ranked.offer_id, "declined" if n % yes_every else "accepted")
    await engine.learn()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-0.5, 1.5, width=32), min_size=1, max_size=8), st.integers(0, 1000), st.booleans())
def test_what_is_compiled_reads_the_curve_as_the_library_does(means: list[float], seed: int, plain: bool) -> None:
    curve = np.sort(np.random.default_rng(seed).random(BINS + 1))
    count = len(means)
    mean = np.array([means], np.float32)
    args = np.arange(count, dtype=np.int16)[None], np.zeros((1, count + 1)), mean, mean
    [found] = of_picks(*args, curve, np.full(count, plain))
    expected = read(curve if plain else np.zeros(0), mean[0])
    assert [row[3] for row in found] == pytest.approx(expected.tolist(), abs=1e-12)
    [held] = of_picks(*args, np.zeros(0), np.full(count, plain))
    assert [row[3] for row in held] == np.clip(mean[0], 0, 1).tolist()


async def test_what_is_shown_is_calibrated_and_the_score_is_the_models() -> None:
    engine = SmallEngine()
    await lived(engine, customers=60)
    decider = engine.service.decider
    assert decider.facts.curve.shape == (BINS + 1,)
    assert not np.array_equal(decider.facts.curve, EDGES), "it came with the policy"
    curve = EDGES / 2
    decider.facts = dataclasses.replace(decider.facts, curve=curve)
    decider.kept.keep(decider.policy, [], None, curve)
    answer = await engine.decide("ann", "web", limit=3, request_id="call-1")
    explained = await engine.explain(answer.decision_id)
    candidates = {candidate.offer_id: candidate for candidate in explained.candidates}
    assert answer.offers
    for ranked in answer.offers:
        estimate = (ranked.score + ranked.contact_cost) / ranked.value
        assert ranked.acceptance_probability == pytest.approx(estimate / 2, abs=1e-6)
        candidate = candidates[ranked.offer_id]
        assert candidate.acceptance_probability == pytest.approx(ranked.acceptance_probability, abs=1e-6)
        if candidate.HasField("factors"):
            assert candidate.factors.estimate == pytest.approx(estimate, abs=1e-6)
            assert f"Of customers with such an estimate {estimate / 2:.1%} accepted." in candidate.text
    again = await engine.decide("ann", "web", limit=3, request_id="call-1")
    assert again.repeated
    shown = [[ranked.acceptance_probability for ranked in each.offers] for each in (again, answer)]
    assert shown[0] == pytest.approx(shown[1], abs=1e-6)


async def test_offers_with_rewards_keep_their_share_and_teach_no_curve() -> None:
    engine = SmallEngine(REWARDED)
    await lived(engine, customers=60)
    assert list(engine.catalogue.plain) == [False, True, True]
    for n in range(30):
        answer = await engine.decide(f"other-{n}", "web", limit=3)
        for ranked in answer.offers:
            if ranked.offer_id == "card":
                estimate = (ranked.score + ranked.contact_cost) / ranked.value
                assert ranked.acceptance_probability == pytest.approx(min(max(estimate, 0), 1), abs=1e-6)
    learner = await engine.learning.learner()
    assert not learner.calibration, "only the card is offered on the web, and it has rewards"


async def test_a_cancelled_yes_is_taken_back_with_its_lesson() -> None:
    engine = SmallEngine()
    answer = await engine.decide("ann", "web", limit=1)
    while not answer.offers:
        answer = await engine.decide(f"{answer.customer_id}-", "web", limit=1)
    offer = answer.offers[0].offer_id
    [choice] = (await record_of(engine, answer)).slate

    async def sums() -> bytes:
        await engine.learn()
        return (await engine.learning.learner()).calibration.to_bytes()

    for stage, target in (("accepted", 100), ("cancelled", 0)):
        await engine.report(answer.decision_id, offer, stage)
        expected = Calibration()
        expected.learn([engine.now_ms // DAY_MS], [choice.mean], [target], [1])
        assert await sums() == expected.to_bytes()


async def test_a_learner_that_was_restored_knows_the_same() -> None:
    engine = SmallEngine()
    await lived(engine, customers=40)
    learner = await engine.learning.learner()
    fields, _ = learner.checkpoint()
    restored = Learner.restore(engine.catalogue, PARTITIONS, fields)
    assert restored.calibration.to_bytes() == learner.calibration.to_bytes()
    assert restored.calibration
