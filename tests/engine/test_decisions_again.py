"""A decision is made again from its record and its configuration, bit for bit, whatever policy serves by then."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from engine.again import made_again, missing
from engine.cli_replay import CANNOT_TELL, _told
from engine.decide import decide
from engine.drafts import Ask, Draft
from engine.errors import NotFound
from engine.record import DecisionRecord
from engine.repeating import repeat_one
from models import OfferPosterior, Policy, PosteriorOptions, pack_offer
from tests.small_engine import CONFIG, START_MS, SmallEngine, catalogue_of

MANY = 60
SETTINGS = {
    "thompson": b"",
    "floor": b"exploration: {floor: 0.2}\n",
    "optimism": b"exploration: {strength: 0.3, optimism: 1, candidates: 4}\n",
    "few candidates": b"exploration: {candidates: 2}\n",
    "greedy": b"exploration: {method: greedy}\n",
    "epsilon_greedy": b"exploration: {method: epsilon_greedy, epsilon: 0.5}\n",
    "inverse_gap": b"exploration: {method: inverse_gap, floor: 0.1}\n",
    "governed": b"exploration: {budget: {share: 0.4, offers: {o3: 0.1}}, never: ['vip']}\n",
    "no silence": b"silence: false\n",
}


def with_many_offers(setting: bytes) -> bytes:
    """The shop with 60 offers more, of which some depend on the conversation."""
    head, fallback = CONFIG.split(b"fallback:")
    rules = ("minutes > 20.0", "intent == 'borrow'", "spent_30d >= 0.0 || vip")
    more = [
        f"  - {{id: o{n}, value: {5 + n}, contact_cost: {n % 7}, treatments: [{{text: Offer {n}}}]"
        + (f", eligibility: [\"{rules[n % 3]}\"]}}\n" if n % 2 else "}\n")
        for n in range(MANY)
    ]
    return head + "".join(more).encode() + b"fallback:" + fallback + setting


def policy_of(offers: tuple[str, ...], dimension: int, transform: int, seed: int) -> Policy:
    """Beliefs of all widths about the offers."""
    rng = np.random.default_rng(seed)
    packed = {}
    for offer in offers:
        half = rng.normal(size=(dimension, dimension)) * 0.0125 * rng.choice([0.2, 1.0, 4.0])
        belief = OfferPosterior(rng.normal(size=dimension) * 0.3, half @ half.T, 50.0, transform)
        packed[offer] = pack_offer(belief)
    return Policy.empty(offers, dimension, PosteriorOptions(), transform).replaced(packed, 7)


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_every_way_to_decide_is_repeated_bit_for_bit(setting: bytes) -> None:
    catalogue = catalogue_of(with_many_offers(setting))
    policy = policy_of(catalogue.offer_ids, catalogue.transform.dimension, catalogue.transform.version, 1)
    rng = np.random.default_rng(2)
    columns = catalogue.fact_columns
    asks = [
        Ask(
            customer=f"customer-{n}",
            channel=n % 2,
            placement=0,
            facts=(
                (columns["minutes"], float(rng.integers(0, 60)) + 0.1),
                (columns["intent"], float(rng.integers(0, 3))),
                (columns["vip"], float(n % 5 == 0)),
            )[: n % 4],
            context=b"{}",
            limit=(1, 3, 5, 30)[n % 4],
            time_ms=START_MS + n,
            language="en",
            request_id="",
            request_hash=0,
        )
        for n in range(200)
    ]
    kept = []
    for start in range(0, len(asks), 8):
        drafts = decide(catalogue, policy, asks[start : start + 8], [(None, None)] * 8)
        kept += [DecisionRecord.unpack(draft.record) for draft in drafts if isinstance(draft, Draft)]
    assert len(kept) == 200 and len({one.slate[0].key for one in kept if one.slate}) > 2
    assert made_again(catalogue, kept) == [[]] * 200
    # Who is asked about beside whom makes no difference.
    assert [made_again(catalogue, [one]) for one in kept[:20]] == [[[]]] * 20


async def test_what_differs_is_named() -> None:
    engine = SmallEngine()
    for n in range(8):
        await engine.publish("purchase", f"customer-{n}", amount=60.0 * n, category="food")
    await engine.fold()
    answers = await asyncio.gather(*[engine.decide(f"customer-{n}", context={"minutes": 5.0 * n}) for n in range(8)])
    entries = [await engine.service.lookups.found(answer.decision_id) for answer in answers]
    kept = [record for *_, record in entries]
    catalogue = engine.catalogue
    assert made_again(catalogue, kept) == [[]] * 8
    one = next(record for record in kept if record.slate)
    assert one.basis is not None

    def differs(**changed: object) -> list[str]:
        [found] = made_again(catalogue, [replace(one, **changed)])  # type: ignore[arg-type]
        return [difference.what for difference in found]

    assert differs(slate=(replace(one.slate[0], propensity=0.5), *one.slate[1:])) == ["slate"]
    assert differs(x=bytes([one.x[0] ^ 1]) + one.x[1:]) == ["inputs"]
    assert differs(rules_held=bytes([one.rules_held[0] ^ 1]) + one.rules_held[1:])[0] == "rules"
    assert differs(nothing_propensity=one.nothing_propensity + 0.25) == ["propensity of nothing"]
    for wrong, message in (
        (replace(one, config_version="00" * 8), "decided by configuration 0000"),
        (replace(one, basis=None), "of an earlier release"),
        (replace(one, transform_version=1), "transform 0000000000000001"),
        (replace(one, basis=replace(one.basis, seen=b"\0")), "what it saw cannot be read"),
    ):
        assert message in missing(catalogue, wrong)
    assert missing(catalogue, one) == ""


async def test_without_the_configuration_that_decided_it_is_told_and_nothing_else_changes() -> None:
    engine = SmallEngine()
    version = engine.catalogue.version
    answer = await engine.decide()
    lacking = await repeat_one(engine.store, answer.decision_id)
    assert (lacking.missing, lacking.equal) == (f"configuration {version}, which decided, was not kept", False)
    await engine.store.save_config(version, b"opportune: 2")
    assert (await repeat_one(engine.store, answer.decision_id)).missing.startswith(
        f"configuration {version}, which decided, cannot be read any more: {version}:1: opportune: "
    )
    assert _told([lacking], 1, one=True) == CANNOT_TELL
    await engine.store.save_config(version, CONFIG)
    assert (await repeat_one(engine.store, answer.decision_id)).equal
    with pytest.raises(NotFound, match="decision 0-1-0: there is none, or its record was retired"):
        await repeat_one(engine.store, "0-1-0")
    assert (await engine.decide()).config_version == version
