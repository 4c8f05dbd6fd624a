"""What two versions have differently, in words, and for whom that would have changed a real decision."""

from dataclasses import replace

import numpy as np
import pytest

from engine.catalogue import Catalogue
from engine.config import parse
from engine.record import DecisionRecord
from engine.versions_changes import NOTHING, Changes, Recorded, changed_decisions
from engine.versions_diff import differences
from engine.versions_sample import policy_of, sample_of
from models import Policy
from tests.small_engine import CONFIG, SmallEngine, catalogue_of


def told(old: bytes, new: bytes) -> list[str]:
    return [f"{one.what} {': '.join(one.place)}: {one.words}" for one in differences(parse(old), parse(new))]


def test_each_changed_setting_is_told_in_words() -> None:
    new = CONFIG.replace(b"value: 40", b"value: 45.5").replace(b"window: 3d", b"window: 36h")
    new = new.replace(b'"spent_30d > 100.0"', b'"spent_30d > 200.0"').replace(b"text: Karta,", b"text: Karticka,")
    new = new.replace(b"limit: 3", b"limit: 2").replace(b"placements: [desk]", b"placements: [desk, phone]")
    new = new.replace(b"  - id: helpline\n", b"  - id: chat\n").replace(b"limit: 2\n", b"limit: 2\nsilence: false\n")
    assert told(CONFIG, new) == [
        "changed limit: 3 → 2",
        "changed silence: yes → no",
        "added channel branch: placements: phone",
        "removed offer helpline: kind service, value 30, channels [branch], treatments [(text 'May we help?')]",
        "changed offer card: value: 40 → 45.5",
        "changed offer card: treatment (any channel, cs): text: Karta → Karticka",
        "removed offer loan: eligibility: (when 'spent_30d > 100.0')",
        "added offer loan: eligibility: (when 'spent_30d > 200.0')",
        "changed offer loan: window: 3d → 36h",
        "added offer chat: kind service, value 30, channels [branch], treatments [(text 'May we help?')]",
    ]


def test_what_is_the_same_is_not_told() -> None:
    assert told(CONFIG, b"# another text\n" + CONFIG) == []


def test_settings_that_come_and_go_and_lists_in_another_order() -> None:
    new = CONFIG.replace(b"limit: 3\n", b"limit: 3\nlearning: {half_life: 90d}\nexploration: {floor: 0.01}\n")
    new = new.replace(b"value: 40\n", b"value: 40\n    context_weight: {web: 1.5}\n    ends_ms: 1760000000000\n")
    assert told(CONFIG, new) == [
        "added offer card: context_weight: web: 1.5",
        "changed offer card: ends_ms: no end → 2025-10-09 08:53:20 UTC",
        "changed exploration: floor: 0 → 0.01",
        "added learning: half_life: 90d",
    ]
    swapped = CONFIG.replace(b"[hero, footer]", b"[footer, hero]")
    assert told(CONFIG, swapped) == ["changed channel web: placements: another order: footer, hero"]


# --- for whom -------------------------------------------------------------------------------------------------------


async def decided(engine: SmallEngine, count: int = 40) -> list[Recorded]:
    """Real decisions, half of them for customers who may have the loan, in both channels."""
    for number in range(0, count, 2):
        await engine.publish("purchase", f"c{number}", amount=500.0)
    await engine.fold()
    for number in range(count):
        minutes = float(number)
        await engine.decide(f"c{number}", "web" if number % 4 < 2 else "branch", context={"minutes": minutes})
    await engine.store.save_config(engine.catalogue.version, CONFIG)
    records, unread = await sample_of(engine.store, 1_000, engine.now_ms + 1)
    assert len(records) == count and not unread
    return records


def changes(engine: SmallEngine, new: bytes, records: list[Recorded]) -> Changes:
    old, policy = engine.catalogue, engine.service.decider.policy
    return changed_decisions(old, catalogue_of(new), records, policy)


async def test_nothing_changes_for_anybody_under_the_same_rules_and_values() -> None:
    engine = SmallEngine()
    found = changes(engine, CONFIG.replace(b"A card for every day", b"Your card"), await decided(engine))
    assert (found.total.compared, found.total.other_eligible, found.total.other_first) == (40, 0, 0)
    assert not found.left_out and not any(shift.changed for shift in found.offers.values())


async def test_what_comes_first_and_who_is_eligible_follows_the_new_version() -> None:
    engine = SmallEngine()
    records = await decided(engine)
    policy = engine.service.decider.policy
    # With the prior, 0.05, the loan (5 − 1) is first for those who may have it, else the card (2).
    dearer = changes(engine, CONFIG.replace(b"value: 40", b"value: 400"), records)
    assert (dearer.total.other_eligible, dearer.total.other_first) == (0, 20)
    assert (dearer.offers["loan"].first_before, dearer.offers["loan"].first_after) == (20, 0)
    assert dearer.offers["card"].first_after == 40
    # A rule less is known from the record; a rule on facts is evaluated again.
    open_to_all = changes(engine, CONFIG.replace(b', "spent_30d > 100.0"', b""), records)
    assert (open_to_all.total.other_eligible, open_to_all.offers["loan"].eligible_after) == (20, 40)
    late = changes(engine, CONFIG.replace(b'"spent_30d > 100.0"', b'"minutes >= 30.0"'), records)
    assert late.offers["loan"].eligible_after == 10
    assert late.channels["web"].compared == late.channels["branch"].compared == 20
    worthless = CONFIG.replace(b"    value: 40", b"    value: 0").replace(b"value: 100", b"value: 1")
    without = changes(engine, worthless, records)
    assert without.offers[NOTHING].first_after + without.offers["helpline"].first_after == 40
    assert policy is engine.service.decider.policy


async def test_the_count_is_that_of_deciding_again() -> None:
    """Against a plain recomputation, decision by decision."""
    engine = SmallEngine()
    records = await decided(engine)
    new = catalogue_of(CONFIG.replace(b"value: 30", b"value: 95").replace(b', "spent_30d > 100.0"', b""))
    policy = engine.service.decider.policy
    found = changed_decisions(engine.catalogue, new, records, policy)
    assert found.total.other_first == sum(first(engine.catalogue, r, policy) != first(new, r, policy) for r in records)


def first(catalogue: Catalogue, recorded: Recorded, policy: Policy) -> str:
    record, made_with = recorded
    held = int.from_bytes(record.rules_held, "little")
    holding = {rule for at, rule in enumerate(made_with.rules.expressions) if held >> at & 1}
    mean, _ = policy.score(np.frombuffer(record.x, np.int8).reshape(1, -1))
    channel = made_with.config.channels[record.channel].id
    worth = {NOTHING: 0.0}
    for at, offer in enumerate(catalogue.offers):
        if {rule.when for rule in offer.eligibility} <= holding and (not offer.channels or channel in offer.channels):
            worth[offer.id] = float(mean[0, at]) * offer.value * offer.lever - offer.contact_cost
    return max(worth, key=lambda name: worth[name])


async def test_what_the_record_does_not_tell_is_left_out_with_the_reason() -> None:
    engine = SmallEngine()
    records = await decided(engine)
    stricter = changes(engine, CONFIG.replace(b'"spent_30d > 100.0"', b'"spent_30d > 1e9"'), records)
    assert stricter.total.compared == 40 and not stricter.left_out
    assert stricter.offers["loan"].eligible_before > 0 == stricter.offers["loan"].eligible_after
    earlier = [Recorded(replace(record, basis=None), catalogue) for record, catalogue in records]
    untold = changes(engine, CONFIG, earlier)
    assert untold.total.compared == 0 and list(untold.left_out.values()) == [40]
    assert "of an earlier release" in next(iter(untold.left_out))
    no_branch = CONFIG.replace(b"  - {id: branch, placements: [desk]}\n", b"")
    left = changes(engine, no_branch.replace(b"channels: [branch]", b"channels: []"), records)
    assert left.total.compared == 20 and list(left.left_out.values()) == [20]
    assert "has no channel 'branch'" in next(iter(left.left_out))


async def test_other_inputs_and_new_offers_are_remarked_on() -> None:
    engine = SmallEngine()
    records = await decided(engine)
    more = CONFIG.replace(b"window: 90d}", b"window: 90d, input: {range: [0, 5]}}")
    more = more.replace(b"offers:\n", b"offers:\n  - {id: gold, value: 900, treatments: [{text: Gold}]}\n")
    found = changes(engine, more, records)
    assert found.offers["gold"].first_after == 40
    assert "the inputs of the model are others" in found.remarks[0] and "gold" in found.remarks[1]
    stranger = [Recorded(_of_transform(record.record, 7), record.catalogue) for record in records]
    assert list(changes(engine, more, stranger).left_out.values()) == [40]


def _of_transform(record: DecisionRecord, transform: int) -> DecisionRecord:
    from dataclasses import replace

    return replace(record, transform_version=transform)


@pytest.mark.parametrize("count", [1, 10, 39])
async def test_a_sample_has_no_more_than_asked_for_and_the_policy_in_service(count: int) -> None:
    engine = SmallEngine()
    await decided(engine)
    records, _ = await sample_of(engine.store, count, engine.now_ms + 1)
    assert 0 < len(records) <= count
    policy = await policy_of(engine.store, engine.catalogue, ("gold",))
    assert policy.offers == (*engine.catalogue.offer_ids, "gold")
