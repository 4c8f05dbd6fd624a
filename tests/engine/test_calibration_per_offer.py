"""Probabilities by offer: served, explained and repeated alike, kept over restarts, taken back exactly."""

import numpy as np
import pytest

from engine.learner import OFFER_CALIBRATION, Learner
from engine.replay import learning_differences
from models.calibration import EDGES
from models.offercalibration import OfferCalibration, calibrated, common_part
from tests.small_engine import CONFIG, PARTITIONS, SmallEngine, catalogue_of

PER_OFFER = CONFIG + b"learning: {calibration: per_offer}\nexploration: {floor: 0.3}\n"
ALWAYS = {"card": 1, "helpline": 5, "loan": 2}
"""Of so many customers one accepts."""


async def lived(engine: SmallEngine, customers: int = 80) -> None:
    for n in range(customers):
        answer = await engine.decide(f"customer-{n}", limit=3)
        for ranked in answer.offers:
            stage = "declined" if n % ALWAYS[ranked.offer_id] else "accepted"
            await engine.report(answer.decision_id, ranked.offer_id, stage)
        if n % 20 == 19:
            await engine.learn()


def differing(kept: dict[str, bytes], made: Learner) -> list[str]:
    return [line for line in learning_differences(kept, made) if "calibration" in line]


async def test_what_is_shown_is_that_of_the_offer_everywhere() -> None:
    engine = SmallEngine(PER_OFFER)
    await lived(engine)
    learner = await engine.learning.learner()
    assert learner.offer_calibration and learner.offer_calibration.whole
    curve = engine.service.decider.facts.curve
    assert len(curve) > len(EDGES), "its factors came with the policy"
    keys = dict(zip(engine.catalogue.offer_ids, engine.catalogue.offer_keys, strict=True))
    answer = await engine.decide("ann", limit=3, request_id="call-1")
    explained = {c.offer_id: c for c in (await engine.explain(answer.decision_id)).candidates}
    assert answer.offers
    for ranked in answer.offers:
        estimate = (ranked.score + ranked.contact_cost) / ranked.value
        shown = ranked.acceptance_probability
        assert shown == pytest.approx(calibrated(curve, estimate, keys[ranked.offer_id]), abs=1e-6)
        assert explained[ranked.offer_id].acceptance_probability == pytest.approx(shown, abs=1e-6)
    again = await engine.decide("ann", limit=3, request_id="call-1")
    assert again.repeated
    both = [[ranked.acceptance_probability for ranked in each.offers] for each in (again, answer)]
    assert both[0] == pytest.approx(both[1], abs=1e-6)
    other = calibrated(curve, 0.3, keys["card"]) - calibrated(common_part(curve), 0.3, keys["card"])
    assert other > 0.0, "all took the card"


async def test_it_is_kept_and_begun_later_it_says_so() -> None:
    engine = SmallEngine(PER_OFFER)
    await lived(engine, 40)
    learner = await engine.learning.learner()
    fields, _ = learner.checkpoint()
    restored = Learner.restore(engine.catalogue, PARTITIONS, fields)
    assert restored.offer_calibration is not None and learner.offer_calibration is not None
    assert restored.offer_calibration.to_bytes() == learner.offer_calibration.to_bytes()
    assert differing(fields, restored) == []
    # Wanted no more, it goes; wanted again, it begins anew, and a replay from the log's beginning does not miss it.
    plain = Learner.restore(catalogue_of(CONFIG), PARTITIONS, fields)
    _, removed = plain.checkpoint()
    assert plain.offer_calibration is None and [name for name in removed if name.endswith(OFFER_CALIBRATION)]
    without = {name: data for name, data in fields.items() if not name.endswith(OFFER_CALIBRATION)}
    late = Learner.restore(engine.catalogue, PARTITIONS, without)
    assert late.offer_calibration is not None and not late.offer_calibration.whole
    assert differing(late.checkpoint()[0], restored) == []
    damaged = {name: data[:-4] if name.endswith(OFFER_CALIBRATION) else data for name, data in fields.items()}
    assert len(differing(damaged, restored)) == 1


async def test_without_it_nothing_is_counted_or_served() -> None:
    engine = SmallEngine(CONFIG)
    await lived(engine, 40)
    learner = await engine.learning.learner()
    assert learner.offer_calibration is None
    assert not [name for name in learner.checkpoint()[0] if name.endswith(OFFER_CALIBRATION)]
    assert len(engine.service.decider.facts.curve) == len(EDGES)


async def test_a_cancelled_yes_is_taken_back() -> None:
    engine = SmallEngine(PER_OFFER)
    answer = await engine.decide("ann", limit=1)
    while not answer.offers:
        answer = await engine.decide(f"{answer.customer_id}-", limit=1)
    offer = answer.offers[0].offer_id
    await engine.report(answer.decision_id, offer, "accepted")
    await engine.learn()
    await engine.report(answer.decision_id, offer, "cancelled")
    await engine.learn()
    found = (await engine.learning.learner()).offer_calibration
    [choice] = (await engine.service.lookups.found(answer.decision_id))[-1].slate
    expected = OfferCalibration()
    expected.learn([choice.key], [engine.now_ms // 86_400_000], [choice.mean], [0], [1])
    assert found is not None and found.to_bytes() == expected.to_bytes()
    assert np.isfinite(choice.mean)
