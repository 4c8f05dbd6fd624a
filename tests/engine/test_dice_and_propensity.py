"""A decision is a function of what it was made from; its dice belong to the person; its propensities are true."""

import asyncio
import dataclasses

import numpy as np
import pytest
from scipy.stats import chi2

from engine.record import DecisionRecord
from engine.store import partition_of
from tests.small_engine import CONFIG, PARTITIONS, SmallEngine

EVERYWHERE = CONFIG.replace(b"    channels: [branch]\n", b"")
CONTEXTS = [{}, {"intent": "borrow"}, {"minutes": 30.0, "vip": True}, {"intent": "leave", "minutes": 600.0}]


async def history(engine: SmallEngine) -> None:
    """Purchases of some customers and a few outcomes, so that states, ledgers and policy are not empty."""
    for n in range(20):
        await engine.publish("purchase", f"customer-{n}", amount=40.0 * n, category=("food", "travel")[n % 2])
    await engine.fold()
    for n in range(30):
        answer = await engine.decide(f"customer-{n}")
        for offer in answer.offers:
            await engine.report(answer.decision_id, offer.offer_id, ("accepted", "declined", "ignored")[n % 3])
    await engine.learn()


async def log_of(together: bool) -> dict[str, bytes]:
    """Records of 60 decisions by customer, made one by one or all at once."""
    engine = SmallEngine()
    await history(engine)
    engine.now_ms += 1
    channels = ("branch", "web")
    calls = [engine.decide(f"customer-{n}", channels[n % 2], context=CONTEXTS[n % 4], limit=n % 4) for n in range(60)]
    if together:
        answers = await asyncio.gather(*calls)
    else:
        answers = [await call for call in calls]
    records = {}
    for answer in answers:
        partition, ms, seq = (int(part, 16) for part in answer.decision_id.split("-"))
        log = engine.store._decisions[partition]
        [records[answer.customer_id]] = [data for at, data in log.data.items() if (at.ms, at.seq) == (ms, seq)]
    return records


@pytest.mark.parametrize("together", [False, True])
async def test_the_same_inputs_make_the_same_bytes(together: bool) -> None:
    """Two engines with the same history and the same requests write the same records, to the last bit."""
    first, second = await log_of(together), await log_of(together)
    assert len(first) == 60
    assert first == second


async def test_who_shares_a_batch_with_whom_changes_no_answer() -> None:
    """One by one or all at once: the same offers in the same order. Only float32 sums may round in another place."""
    one_by_one, together = await log_of(together=False), await log_of(together=True)
    for customer, data in one_by_one.items():
        alone, shared = DecisionRecord.unpack(data), DecisionRecord.unpack(together[customer])
        assert [choice.key for choice in alone.slate] == [choice.key for choice in shared.slate]
        of_floats = {"slate": (), "nothing_propensity": 0.0, "basis": None}
        assert dataclasses.replace(alone, **of_floats) == dataclasses.replace(shared, **of_floats)
        assert alone.nothing_propensity == pytest.approx(shared.nothing_propensity, rel=1e-5)
        for one, other in zip(alone.slate, shared.slate, strict=True):
            assert dataclasses.astuple(one) == pytest.approx(dataclasses.astuple(other), rel=1e-5)


async def test_a_person_gets_the_same_answer_on_every_channel_until_an_outcome() -> None:
    """Flip rate 0 while nothing is reported; after an outcome somebody gets another answer."""
    engine = SmallEngine(EVERYWHERE)
    flips = changed = 0
    for n in range(100):
        customer = f"customer-{n}"
        first = await engine.decide(customer, "branch")
        engine.now_ms += 1_000
        again = await engine.decide(customer, "web")
        answers = [[(offer.offer_id, offer.propensity) for offer in answer.offers] for answer in (first, again)]
        flips += answers[0] != answers[1]
        if first.offers:
            await engine.report(first.decision_id, first.offers[0].offer_id, "ignored")
            after = await engine.decide(customer, "branch")
            changed += [offer.offer_id for offer in after.offers] != [offer.offer_id for offer in first.offers]
    assert flips == 0
    assert changed > 10


async def test_an_event_rolls_the_dice_anew() -> None:
    engine = SmallEngine(EVERYWHERE)
    changed = 0
    for n in range(60):
        before = await engine.decide(f"customer-{n}")
        await engine.publish("complaint", f"customer-{n}")
        await engine.fold()
        after = await engine.decide(f"customer-{n}")
        changed += [offer.offer_id for offer in before.offers] != [offer.offer_id for offer in after.offers]
    assert changed > 10


async def first_offers(engine: SmallEngine, count: int) -> tuple[dict[str, int], dict[str, float]]:
    """How often each offer came first (or silence, "") among new customers, and its propensity where it did."""
    answers = await asyncio.gather(*(engine.decide(f"person-{n}", limit=1) for n in range(count)))
    shown: dict[str, int] = {}
    propensities: dict[str, float] = {}
    for answer in answers:
        name = answer.offers[0].offer_id if answer.offers else ""
        shown[name] = shown.get(name, 0) + 1
        if name not in propensities:
            explained = await engine.explain(answer.decision_id)
            propensities[name] = answer.offers[0].propensity if answer.offers else explained.nothing_propensity
    return shown, propensities


@pytest.mark.parametrize("floor", [0.0, 0.2])
async def test_propensities_are_how_often_it_happens(floor: float) -> None:
    """2,000 people of whom nothing is known: the shares shown fit the logged propensities (χ², p > 0.001).

    Ids are fixed and so are the dice: this passes always or never.
    """
    text = EVERYWHERE + b"exploration: {floor: %.1f}\n" % floor
    shown, propensities = await first_offers(SmallEngine(text), 1_000)
    more, _ = await first_offers(SmallEngine(text.replace(b"name: shop", b"name: shop2")), 1_000)
    assert more == shown, "the name of a configuration rolls no dice"
    engine = SmallEngine(text)
    answers = []
    for start in range(0, 2_000, 500):
        answers += await asyncio.gather(*(engine.decide(f"someone-{n}", limit=1) for n in range(start, start + 500)))
    names = sorted(propensities)
    observed = np.array([sum((a.offers[0].offer_id if a.offers else "") == name for a in answers) for name in names])
    expected = 2_000 * np.array([propensities[name] for name in names])
    assert expected.sum() == pytest.approx(2_000, rel=1e-6), "the propensities of all that may happen add up to 1"
    assert observed.sum() == 2_000
    assert len(names) >= 3
    statistic = float(((observed - expected) ** 2 / expected).sum())
    assert chi2.sf(statistic, len(names) - 1) > 0.001


def test_partitions_of_the_small_engine_are_several() -> None:
    """The tests above cross partitions."""
    assert len({partition_of(f"customer-{n}", PARTITIONS) for n in range(60)}) == PARTITIONS
