"""Contact policies that differ are walked: a what-if comes to what an engine under the edit would have done."""

import random
from typing import Any

import numpy as np
import pytest

from engine.holds import Hold
from engine.whatif.command import compared
from engine.whatif.period import Left, steps_of
from engine.whatif.walk import Walk
from tests.small_engine import DAY_MS, START_MS, SmallEngine, catalogue_of

HEAD = """
opportune: 1
name: contacts
timezone: Europe/Prague
limit: 3
channels: [{id: web}, {id: branch}, {id: call}]
context: [{name: mood, type: number, range: [0, 10]}]
exploration: {method: greedy}
offers:
  - {id: gold, category: cards, value: 90, treatments: [{text: gold}], eligibility: ["mood > 2.0"]}
  - {id: basic, category: cards, value: 80, treatments: [{text: basic}]}
  - {id: loan, category: credit, value: 70, contact_cost: 1, window: 3d, treatments: [{text: loan}]}
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
    "one more": AS_IS.replace(b"  cool_off:\n", b"    - {of: offers, which: [gold, loan], most: 1, within: 5d}\n  cool_off:\n"),
    "none at all": HEAD.encode(),
    "a rule, too": AS_IS.replace(b"mood > 2.0", b"mood > 5.0").replace(b"most: 2, within: 7d", b"most: 1, within: 7d"),
}
PEOPLE, CALLS, DAYS = 7, 170, 24
STAGES = ("presented", "declined", "accepted", "ignored", "not_presented")

Answers = list[tuple[str, list[str]]]


async def asked(text: bytes, as_served: Answers = (), seed: int = 1) -> tuple[SmallEngine, Answers]:  # type: ignore[assignment]
    """An engine to which people came, and its answers; outcomes are those of `as_served`, where it serves the same."""
    dice, engine, answers = random.Random(seed), SmallEngine(text), []
    for call in range(CALLS):
        engine.now_ms = START_MS + call * DAYS * DAY_MS // CALLS + dice.randrange(1_000)
        person, channel, mood = dice.randrange(PEOPLE), dice.choice(["web", "branch", "call"]), dice.random() * 10
        limit, rank, stage = dice.choice([1, 2, 3, 5]), dice.randrange(3), dice.choice(STAGES)
        answer = await engine.decide(f"p{person}", channel, context={"mood": mood}, limit=limit)
        shown = [offer.offer_id for offer in answer.offers]
        answers.append((answer.decision_id, shown))
        logged = as_served[call][1] if as_served else shown
        engine.now_ms += 60_000
        if rank < len(logged) and logged[rank] in shown and dice.random() < 0.8:
            try:
                await engine.report(answer.decision_id, logged[rank], stage, f"outcome-{call}")
            except Exception as error:
                assert "expected" in str(error) or "closed" in str(error), error
        elif rank < len(logged) and logged[rank] not in shown:
            dice.random()
    return engine, answers


def of_contacts(catalogue: Any, held: tuple[Hold, ...]) -> set[Hold]:
    names = catalogue.contacts.names
    start = catalogue.holds.names.index(names[0])
    return {hold._replace(limit=hold.limit - start) for hold in held if start <= hold.limit < start + len(names)}


async def test_who_decides_as_the_log_did_has_the_limits_of_the_log() -> None:
    engine, _ = await asked(AS_IS)
    walk, left, seen, kept = Walk(engine.catalogue), Left(), 0, 0
    async for _, steps in steps_of(engine.store, engine.catalogue, None, None, left, walk.horizon_ms):
        for step in steps:
            if step.begins:
                walk.begin()
            for asked_now in step.decided:
                look = walk.look(asked_now.people, asked_now.channels, asked_now.times_ms, asked_now.limits)
                assert look is not None and look.surcharges is not None
                for at, held in enumerate(asked_now.holds):
                    told = {Hold(*fields) for fields in look.holds[at]}
                    assert told == of_contacts(engine.catalogue, held)
                    seen, kept = seen + 1, kept + len(told)
                assert look.surcharges.tolist() == asked_now.surcharges.tolist()
                keys = [[engine.catalogue.index_of_key[key] for key in slate] for slate in asked_now.slates]
                picks = np.array([offers + [-1] * (5 - len(offers)) for offers in keys], np.int16)
                channels, slates = asked_now.channels, asked_now.slates
                walk.served(look, asked_now.people, asked_now.positions, channels, picks, slates)
            walk.took_place(step.facts)
            walk.heard(step.heard)
    assert seen == CALLS and kept > CALLS and not left.counts


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
async def test_an_edit_comes_to_what_an_engine_under_it_does(edit: bytes) -> None:
    engine, answers = await asked(AS_IS)
    _, otherwise = await asked(edit, answers)
    found = (await compared(engine.store, "log", ["as it is", "edit"], [catalogue_of(AS_IS), catalogue_of(edit)])).content()
    before, after = found["scenarios"]
    assert found["first_offer_as_logged"] == found["decisions"] == CALLS
    for scenario, served in ((before, answers), (after, otherwise)):
        shown = {offer: sum(offer in slate for _, slate in served) for offer in ("gold", "basic", "loan", "stay", "help")}
        assert {one["offer"]: one["shown"] for one in scenario["offers"]} == shown
        assert scenario["all"]["silent"] == sum(not slate for _, slate in served)
    assert after["all"]["other_slate"] == sum(a != b for (_, a), (_, b) in zip(answers, otherwise, strict=True)) > 0
    assert len(found["remarks"]) == 1 and "contact policies differ" in found["remarks"][0]
