"""Contact policies that differ are walked: a what-if comes to what an engine under the edit would have done."""

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

from engine.config import version_of
from engine.errors import NotAllowed, NotFound
from engine.holds import Hold
from engine.whatif.command import compared
from engine.whatif.period import Left, steps_of
from engine.whatif.walk import Walk, Walked
from tests.small_engine import DAY_MS, START_MS, SmallEngine, catalogue_of

HEAD = """
opportune: 1
name: contacts
timezone: Europe/Prague
limit: 3
channels: [{id: web}, {id: branch}, {id: call}]
context: [{name: mood, type: number, range: [0, 10]}]
exploration: {method: greedy}
groups: [{id: plastic}]
offers:
  - {id: gold, group: plastic, category: cards, value: 90, treatments: [{text: gold}], eligibility: ["mood > 2.0"]}
  - {id: basic, category: cards, value: 80, treatments: [{text: basic}]}
  - {id: loan, group: plastic, category: credit, value: 70, contact_cost: 1, window: 3d, treatments: [{text: loan}]}
  - {id: stay, category: credit, kind: retention, value: 60, treatments: [{text: stay}], eligibility: ["mood < 6.0"]}
  - {id: help, category: care, kind: service, value: 20, contact_cost: 0.5, treatments: [{text: help}]}
"""
POLICY = """
contact_policy:
  outbound: [call]
  while_open_outbound: hide
  caps:
    - {of: category, most: 2, within: 7d, name: category}
    - {of: all, most: 3, per: week, counts: contacts, name: week}
    - {of: channel, most: 4, within: 3d, name: channel}
  cool_off:
    - {after: declined, of: offer, for: 10d, name: declined}
    - {after: accepted, of: category, for: 5d, name: accepted}
  pressure: {half_life: 4d, cost: 0.4, channels: {call: 3}, grace: 1h}
"""
AS_IS = (HEAD + POLICY).encode()
EDITS = {
    "a cap": AS_IS.replace(b"most: 2, within: 7d", b"most: 1, within: 12d"),
    "the calendar": AS_IS.replace(b"most: 3, per: week", b"most: 2, per: day"),
    "a cool-off": AS_IS.replace(b"for: 10d", b"for: 1d").replace(b"after: accepted", b"after: [accepted, ignored]"),
    "pressure": AS_IS.replace(b"cost: 0.4", b"cost: 6"),
    "what is open": AS_IS.replace(b"while_open_outbound: hide", b"while_open: hide\n  while_open_outbound: resume"),
    "one more": AS_IS.replace(
        b"  cool_off:\n", b"    - {of: offers, which: [gold, loan], most: 1, within: 5d}\n  cool_off:\n"
    ),
    "of a group": AS_IS.replace(b"  cool_off:\n", b"    - {of: group, most: 1, within: 5d}\n  cool_off:\n"),
    "none at all": HEAD.encode(),
    "a rule, too": AS_IS.replace(b"mood > 2.0", b"mood > 5.0").replace(b"most: 2, within: 7d", b"most: 1, within: 7d"),
}
PEOPLE, CALLS, DAYS = 7, 170, 24
HALF_MS = START_MS + CALLS // 2 * DAYS * DAY_MS // CALLS
STAGES = ("presented", "declined", "accepted", "ignored", "not_presented")


class Call(NamedTuple):
    decision: str
    slate: list[str]
    reported: bool


async def asked(*texts: bytes, log: Sequence[Call] = (), keeps: bool = True) -> tuple[SmallEngine, list[Call]]:
    """An engine to which people came, and its answers; each configuration has its share of the time.

    Outcomes and corrections are those of `log`, where the answer has the same offer; without, its own.
    """
    dice, engine, calls = random.Random(1), SmallEngine(texts[0]), []
    for at in range(CALLS):
        engine.now_ms = START_MS + at * DAYS * DAY_MS // CALLS + dice.randrange(1_000)
        person, channel, mood = dice.randrange(PEOPLE), dice.choice(["web", "branch", "call"]), dice.random() * 10
        limit, rank, stage, luck = dice.choice([1, 2, 3, 5]), dice.randrange(3), dice.choice(STAGES), dice.random()
        text = texts[at * len(texts) // CALLS]
        if engine.catalogue.version != version_of(text):
            now_ms, engine = engine.now_ms, SmallEngine(text, engine.store)
            engine.now_ms = now_ms
        answer = await engine.decide(f"p{person}", channel, context={"mood": mood}, limit=limit)
        shown = [offer.offer_id for offer in answer.offers]
        engine.now_ms += 60_000
        logged = log[at].slate if log else shown
        reported = False
        if keeps and not at % (CALLS // 2):
            await engine.store.save_config(engine.catalogue.version, text)
        if rank < len(logged) and logged[rank] in shown and luck < 0.8 and (not log or log[at].reported):
            reported = await told(engine, answer.decision_id, logged[rank], stage, f"outcome-{at}")
        calls.append(Call(answer.decision_id, shown, reported))
        if luck < 0.2 and at > 4 and calls[at - 4].reported:
            was, corrected = calls[at - 4].decision, f"outcome-{at - 4}"
            for offer in (log or calls)[at - 4].slate:
                await told(engine, was, offer, "declined", f"more-{at}", corrects=corrected)
    return engine, calls


async def told(engine: SmallEngine, decision: str, offer: str, stage: str, outcome: str, **fields: str) -> bool:
    """Whether an outcome was taken."""
    try:
        await engine.report(decision, offer, stage, outcome, **fields)
    except (NotAllowed, NotFound):
        return False
    return True


def of_contacts(catalogue: Any, held: tuple[Hold, ...]) -> set[Hold]:
    names = catalogue.contacts.names
    start = catalogue.holds.names.index(names[0])
    return {hold._replace(limit=hold.limit - start) for hold in held if start <= hold.limit < start + len(names)}


async def test_who_decides_as_the_log_did_has_the_limits_of_the_log() -> None:
    engine, _ = await asked(AS_IS)
    walk, left, seen, kept = Walk(engine.catalogue, Walked(contacts=True)), Left(), 0, 0
    async for _, steps in steps_of(engine.store, engine.catalogue, None, None, left, walk.horizon_ms):
        for step in steps:
            if step.begins:
                walk.begin()
            assert step.order is not None
            for turn in step.order.turns(step.asked.positions):
                now = step.asked.only(turn.rows)
                look = walk.look(now.people, now.channels, now.times_ms, now.limits)
                assert look is not None and look.surcharges is not None
                for at, held in enumerate(now.holds):
                    found = {Hold(*fields) for fields in look.holds[at]}
                    assert found == of_contacts(engine.catalogue, held)
                    seen, kept = seen + 1, kept + len(found)
                assert look.surcharges.tolist() == now.surcharges.tolist()
                index = {**engine.catalogue.index_of_key, 0: -1}
                picks = np.array([[index[key] for key in slate] for slate in now.slates.tolist()], np.int16)
                assert not walk.served(look, now, now.channels, picks.reshape(now.slates.shape))
                assert not turn.facts
                walk.heard(turn.heard)
    assert seen == CALLS and kept > CALLS and not left.counts


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
async def test_an_edit_comes_to_what_an_engine_under_it_does(edit: bytes) -> None:
    engine, calls = await asked(AS_IS)
    _, otherwise = await asked(edit, log=calls)
    found = await report_of(engine, AS_IS, edit)
    assert found["first_offer_as_logged"] == found["decisions"] == CALLS
    came_to(found, calls, otherwise)
    assert found["scenarios"][1]["all"]["other_slate"] > 0
    assert len(found["remarks"]) == 1 and "contact policies differ" in found["remarks"][0]


async def test_what_was_before_the_period_was_as_it_was() -> None:
    """Two logs of which the second half is under another configuration: each tells what the other one has."""
    edit = EDITS["a cap"].replace(b"within: 12d", b"within: 7d")  # no longer than what the ledgers keep
    engine, calls = await asked(AS_IS)
    other, otherwise = await asked(AS_IS, edit, log=calls)
    half = CALLS // 2
    came_to(await report_of(engine, AS_IS, edit, from_ms=HALF_MS), calls[half:], otherwise[half:])
    found = await report_of(other, edit, edit, from_ms=HALF_MS)
    came_to(found, otherwise[half:], otherwise[half:])
    assert not found["remarks"]  # nothing differs, nothing is walked
    # Over the whole log the first half was made with another contact policy than any scenario has.
    found = await report_of(other, edit, edit)
    assert any("contact policies differ" in remark for remark in found["remarks"])


async def test_an_outcome_of_long_ago_still_cools_off() -> None:
    """Of a decision before all that limits ask for: declined two days before the period."""
    long = AS_IS.replace(b"mood > 2.0", b"mood >= 0.0")
    engine = SmallEngine(long)
    first = await engine.decide("ann", "web", context={"mood": 7.0})
    engine.now_ms += 60 * DAY_MS
    await engine.report(first.decision_id, "gold", "declined")
    engine.now_ms += 2 * DAY_MS
    from_ms = engine.now_ms
    after = await engine.decide("ann", "web", context={"mood": 7.0})
    assert "gold" not in [offer.offer_id for offer in after.offers]
    shorter = long.replace(b"for: 10d", b"for: 1d")
    found = await report_of(engine, long, shorter, from_ms=from_ms)
    shown = [each["offers"][0]["shown"] for each in found["scenarios"]]
    assert found["decisions"] == found["first_offer_as_logged"] == 1 and shown == [0, 1]


async def test_a_configuration_of_which_nothing_is_kept_still_made_contacts() -> None:
    edit = EDITS["a cap"]
    engine, calls = await asked(AS_IS, edit, keeps=False)
    found = await report_of(engine, edit, AS_IS)
    half = CALLS // 2
    assert found["decisions"] == half and any(f"left out {half} decisions" in remark for remark in found["remarks"])
    # What they were, and in which channel, is not known, so they count for whatever they may have been.
    served = sum(len(call.slate) for call in calls[half:])
    assert sum(one["shown"] for one in found["scenarios"][0]["offers"]) <= served


async def test_what_a_walk_does_not_know_is_told() -> None:
    engine, _ = await asked(AS_IS)
    looking = EDITS["a cap"].replace(b"mood > 2.0", b"ledger.contacts_7d < 3.0")
    found = await report_of(engine, AS_IS, looking)
    assert "scenario 1: rules that look at the ledger see what they saw in the log" in found["remarks"]


async def report_of(engine: SmallEngine, *texts: bytes, from_ms: int | None = None) -> dict[str, Any]:
    names = [f"scenario {at}" for at in range(len(texts))]
    return (await compared(engine.store, "log", names, [catalogue_of(text) for text in texts], from_ms)).content()


def came_to(found: dict[str, Any], *served: Sequence[Call]) -> None:
    """Each scenario serves what an engine has served."""
    for scenario, calls in zip(found["scenarios"], served, strict=True):
        shown = {one["offer"]: sum(one["offer"] in call.slate for call in calls) for one in scenario["offers"]}
        assert {one["offer"]: one["shown"] for one in scenario["offers"]} == shown
        assert scenario["all"]["silent"] == sum(not call.slate for call in calls)
        others = sum(one.slate != other.slate for one, other in zip(served[0], calls, strict=True))
        assert scenario["all"]["other_slate"] == others
