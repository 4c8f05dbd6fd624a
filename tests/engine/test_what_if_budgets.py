"""Budgets that differ are counted: a what-if comes to what an engine with the edited budgets would have done."""

import random
from collections.abc import Sequence
from typing import NamedTuple

import pytest

from engine.errors import NotAllowed
from engine.whatif.command import compared
from engine.whatif.period import _together
from tests.small_engine import START_MS, SmallEngine, catalogue_of

AS_IS = b"""
opportune: 1
name: shop
limit: 2
timezone: Europe/Prague
silence: false
channels: [{id: web}]
context: [{name: mood, type: number, range: [0, 10]}]
budgets:
  - {id: stock, offers: [tv], units: 20, takes: {tv: 2}}
  - {id: letters, offers: [letter], units: 6, per: day, consumed: served}
  - {id: shown, categories: [ads], units: 4, per: week, consumed: presented, reserved: 5h}
offers:
  - {id: tv, value: 900, window: 1d, treatments: [{text: tv}], eligibility: ["mood < 7.0"]}
  - {id: letter, value: 40, treatments: [{text: letter}], eligibility: ["mood > 1.0"]}
  - {id: banner, value: 30, category: ads, treatments: [{text: banner}]}
  - {id: hello, value: 2, treatments: [{text: hello}]}
  - {id: bye, value: 1, treatments: [{text: bye}]}
exploration: {method: greedy}
"""
EDITS = {
    "fewer units": AS_IS.replace(b"units: 20", b"units: 4"),
    "more units": AS_IS.replace(b"units: 20", b"units: 200").replace(b"units: 6", b"units: 9"),
    "another period": AS_IS.replace(b"units: 6, per: day", b"units: 6, per: week"),
    "used up by another stage": AS_IS.replace(b"per: day, consumed: served", b"per: day, consumed: presented"),
    "a shorter reservation": AS_IS.replace(b"reserved: 5h", b"reserved: 1h"),
    "what it takes": AS_IS.replace(b"takes: {tv: 2}", b"takes: {tv: 5}"),
    "one more": AS_IS.replace(b"budgets:\n", b"budgets:\n  - {id: greetings, offers: [hello], units: 7}\n"),
    "none": AS_IS[: AS_IS.index(b"budgets:")] + AS_IS[AS_IS.index(b"offers:\n") :],
}
EDITS["and contacts"] = EDITS["fewer units"] + b"""
contact_policy:
  caps: [{of: offer, most: 1, within: 20h}]
  cool_off: [{after: declined, of: offer, for: 2d}]
"""
CALLS, PEOPLE, STEP_MS = 110, 30, 2_400_000


class Call(NamedTuple):
    decision: str
    slate: list[str]
    told: str


async def asked(text: bytes, log: Sequence[Call] = ()) -> tuple[SmallEngine, list[Call]]:
    """An engine to which people came one by one; outcomes are those of `log`, where the answer has the same offer."""
    dice, engine, calls = random.Random(3), SmallEngine(text), []
    for at in range(CALLS):
        engine.now_ms = START_MS + at * STEP_MS
        for _ in range(8):  # what is free is leased
            engine.now_ms += 300
            await engine.service.keeper.step()
        mood, person, back = dice.random() * 10, dice.randrange(PEOPLE), dice.randrange(1, 9)
        stage = dice.choice(["accepted", "declined", "presented", "not_presented"])
        answer = await engine.decide(f"p{person}", "web", context={"mood": mood})
        calls.append(Call(answer.decision_id, [offer.offer_id for offer in answer.offers], ""))
        if at >= back and (slate := (log or calls)[at - back].slate):
            offer = slate[0] if not log else log[at].told
            told = False
            if offer and offer in calls[at - back].slate:
                try:
                    await engine.report(calls[at - back].decision, offer, stage, f"outcome-{at}")
                    told = True
                except NotAllowed:
                    assert not log
            calls[-1] = calls[-1]._replace(told=offer if told else "")
    return engine, calls


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
async def test_an_edit_comes_to_what_an_engine_under_it_does(edit: bytes) -> None:
    engine, calls = await asked(AS_IS)
    _, otherwise = await asked(edit, calls)
    catalogues = [catalogue_of(AS_IS), catalogue_of(edit)]
    found = (await compared(engine.store, "log", ["as it is", "edit"], catalogues)).content()
    assert found["first_offer_as_logged"] == found["decisions"] == CALLS
    for scenario, served in zip(found["scenarios"], (calls, otherwise), strict=True):
        shown = {one["offer"]: sum(one["offer"] in call.slate for call in served) for one in scenario["offers"]}
        assert {one["offer"]: one["shown"] for one in scenario["offers"]} == shown
    others = sum(one.slate != other.slate for one, other in zip(calls, otherwise, strict=True))
    assert found["scenarios"][1]["all"]["other_slate"] == others > 0
    told = [remark.partition(",")[0] for remark in found["remarks"]]
    assert told == ["contact policies differ"] * (b"contact_policy" in edit) + ["budgets differ"]


async def test_the_last_units_go_to_who_came_first() -> None:
    """All within a second: no more than there is, and a slate that is too long is made shorter."""
    as_it_is = AS_IS.replace(b"units: 20", b"units: 2000").replace(b"units: 6", b"units: 600")
    engine = SmallEngine(as_it_is)
    for _ in range(40):
        engine.now_ms += 300
        await engine.service.keeper.step()
    for person in range(40):
        engine.now_ms += 1
        answer = await engine.decide(f"p{person}", "web", context={"mood": 5.0})
        assert [offer.offer_id for offer in answer.offers] == ["tv", "letter"]
    few = as_it_is.replace(b"units: 2000", b"units: 7")
    both = few.replace(b"budgets:\n", b"budgets:\n  - {id: both, offers: [tv, letter], units: 5}\n")
    catalogues = [catalogue_of(text) for text in (as_it_is, few, both)]
    found = (await compared(engine.store, "log", ["as it is", "few", "both"], catalogues)).content()
    shown = [{one["offer"]: one["shown"] for one in each["offers"]} for each in found["scenarios"]]
    assert shown[0] == {"tv": 40, "letter": 40, "banner": 0, "hello": 0, "bye": 0}
    # Three sets of two units each; banners are four a week.
    assert shown[1] == {"tv": 3, "letter": 40, "banner": 4, "hello": 33, "bye": 0}
    # [tv, letter] twice, then one place for the last unit, then nothing of both.
    assert shown[2]["tv"] + shown[2]["letter"] == 5 and shown[2]["tv"] == 3


async def test_partitions_are_read_in_the_order_of_time() -> None:
    engine, _ = await asked(AS_IS)
    seen = []
    async for begins, partitions, entries in _together(engine.store):
        assert begins == (not seen)
        seen += [(entry.offset, partition, entry.data) for partition, entry in zip(partitions, entries, strict=True)]
    assert seen == sorted(seen) and len({partition for _, partition, _ in seen}) > 1
    apart = []
    for partition in range(engine.store.partitions):
        log = await engine.store.read_decisions({partition: type(seen[0][0])(0, 0)}, 10_000, 0)
        apart += [(entry.offset, partition, entry.data) for entry in log.get(partition, ())]
    assert sorted(apart) == seen
