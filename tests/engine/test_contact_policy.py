"""Contact policy: what may be served equals what a reference says that keeps everything and looks at all of it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from struct import error as StructError
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config_schema import key_of
from engine.contact_policy import ContactPolicy
from engine.contact_rows import (
    AGAIN,
    ANY,
    FIRST,
    NO_GROUP,
    RANK,
    SECTION,
    Contact,
    bounded,
    joined,
    placed,
    read,
    section,
    unpacked,
)
from engine.errors import ConfigError, NotAllowed
from engine.ledger import Ledger
from engine.ledgers import Ledgers
from engine.lifecycle import OPEN, Stage
from engine.record import DecisionRecord, parse_decision_id
from engine.replaying import replay
from engine.store import RedisStore
from features import Offset
from models.exploration import Slates
from opportune.v1 import decisions_pb2
from tests.small_engine import DAY_MS, PARTITIONS, SmallEngine, catalogue_of
from tests.store.conftest import Server

ZONE = ZoneInfo("Europe/Prague")
GROUPS = {
    "gold": ("plastic", "family"),
    "basic": ("plastic",),
    "loan": ("money",),
    "stay": ("family",),
    "help": (),
}
LINES = {name: {*groups, *(["money"] if "plastic" in groups else [])} for name, groups in GROUPS.items()}
OFFERS = {
    "gold": ("cards", "sale", 90),
    "basic": ("cards", "sale", 80),
    "loan": ("credit", "sale", 70),
    "stay": ("credit", "retention", 60),
    "help": ("care", "service", 50),
}
WINDOW_MS = 7 * DAY_MS
HEAD = """
opportune: 1
name: contacts
timezone: Europe/Prague
limit: 30
silence: false
exploration: {method: greedy}
weights: {kinds: {retention: 1}}
channels: [{id: web}, {id: branch}, {id: call}]
groups: [{id: family}, {id: plastic, parent: money}, {id: money}]
"""


def config(policy: str, more: str = "") -> bytes:
    offers = "".join(
        f"  - {{id: {name}, category: {category}, kind: {kind}, value: {value}, treatments: [{{text: {name}}}], "
        f"group: [{', '.join(GROUPS[name])}]}}\n"
        for name, (category, kind, value) in OFFERS.items()
    )
    return f"{HEAD}{more}offers:\n{offers}contact_policy:\n{policy}".encode()


# --- the reference --------------------------------------------------------------------------------------------------

COUNTED = {
    "served": set(Stage) - {Stage.NOT_PRESENTED},
    "presented": {
        Stage.PRESENTED, Stage.CLICKED, Stage.IGNORED, Stage.ACCEPTED, Stage.DECLINED, Stage.FULFILLED, Stage.CANCELLED,
    },
    "accepted": {Stage.ACCEPTED, Stage.FULFILLED},
    "declined": {Stage.DECLINED},
    "contacts": set(Stage),
}  # fmt: skip
ANSWERS = {Stage.ACCEPTED, Stage.DECLINED, Stage.FULFILLED, Stage.CANCELLED, Stage.WITHDRAWN}


@dataclass
class Serving:
    decision: str
    offer: str
    channel: str
    time_ms: int
    changed_ms: int
    stage: Stage
    counted: bool
    first: bool


def begin_of(per: str, now_ms: int) -> int:
    local = datetime.fromtimestamp(now_ms / 1e3, ZONE).replace(hour=0, minute=0, second=0, microsecond=0)
    if per == "week":
        local -= timedelta(days=local.weekday())
    elif per == "month":
        local = local.replace(day=1)
    return int(local.replace(tzinfo=ZONE).timestamp() * 1000)


class Reference:
    """Keeps every serving for ever."""

    def __init__(self, catalogue: Any) -> None:
        self.policy = catalogue.config.contact_policy
        self.servings: list[Serving] = []
        self.clock_ms = 0

    def open(self, offer: str) -> bool:
        mine = [s for s in self.servings if s.offer == offer]
        return any(
            s.counted
            and s.stage in OPEN
            and s.time_ms + WINDOW_MS > self.clock_ms
            and not any(o.stage in ANSWERS and o.changed_ms >= s.time_ms for o in mine)
            for s in mine
        )

    def parts(self, of: str, which: Sequence[str], offer: str) -> set[str]:
        """What an offer belongs to, as far as a limit counts it."""
        if of == "offers":
            return {"these"} if offer in which else set()
        if of in ("all", "channel"):
            return {"all"}
        found = {"offer": {offer}, "category": {OFFERS[offer][0]}, "kind": {OFFERS[offer][1]}, "group": LINES[offer]}
        return {part for part in found[of] if not which or part in which}

    def used(self, cap: Any, offer: str, channel: str, at_ms: int, part: str = "") -> int:
        parts = [part] if part else self.parts(cap.of, cap.which, offer)
        return max([self.used_in(cap, one, channel, at_ms) for one in parts], default=0)

    def used_in(self, cap: Any, part: str, channel: str, at_ms: int) -> int:
        since = at_ms - cap.within + 1 if cap.within else begin_of(cap.per, at_ms)
        return sum(
            s.time_ms >= since
            and s.stage in COUNTED[cap.counts]
            and (s.counted or cap.counts not in ("served", "contacts"))
            and (cap.counts != "contacts" or s.first)
            and (not cap.channels or s.channel in cap.channels)
            and (cap.of != "channel" or s.channel == channel)
            and part in self.parts(cap.of, cap.which, s.offer)
            for s in self.servings
        )

    def cooled(self, cool: Any, offer: str, at_ms: int, part: str = "") -> bool:
        which = cool.which if cool.of != "all" else ()
        parts = {part} if part else self.parts(cool.of, which, offer)
        stages = {Stage[stage.upper()] for stage in cool.after}
        stages |= {Stage.FULFILLED} if Stage.ACCEPTED in stages else set()
        return any(
            s.stage in stages
            and s.changed_ms + cool.duration > at_ms
            and (s.offer in cool.which or not cool.which if cool.of == "all" else True)
            and parts & self.parts(cool.of, which, s.offer)
            for s in self.servings
        )

    def held(self, offer: str, channel: str, at_ms: int) -> bool:
        if any(self.cooled(cool, offer, at_ms) for cool in self.policy.cool_off):
            return True
        outbound = channel in self.policy.outbound
        resume = (self.policy.while_open_outbound if outbound else self.policy.while_open) == "resume"
        if self.open(offer):
            if not resume:
                return True
            if not outbound:
                return False
        return any(
            self.used(cap, offer, channel, at_ms) >= cap.most
            for cap in self.policy.caps
            if not cap.channels or channel in cap.channels
        )

    def used_by(self, limit: Any, offer: str, channel: str, at_ms: int, part: str) -> int:
        if hasattr(limit, "most"):
            return self.used(limit, offer, channel, at_ms, part)
        return self.cooled(limit, offer, at_ms, part)

    def decide(self, decision: str, channel: str, time_ms: int) -> list[str]:
        """What is served, and note it."""
        self.clock_ms = max(self.clock_ms, time_ms)
        clock_ms = self.clock_ms  # a call that is dated earlier counts as of the one before
        slate: list[Serving] = []
        outbound = channel in self.policy.outbound
        resume = (self.policy.while_open_outbound if outbound else self.policy.while_open) == "resume"
        before = list(self.servings)
        held = {offer: self.held(offer, channel, self.clock_ms) for offer in OFFERS}
        spared = {offer for offer in OFFERS if resume and not outbound and self.open(offer)}
        served = []
        for offer in OFFERS:  # in the order of their value
            if held[offer]:
                continue
            if offer not in spared:
                self.servings = before + slate
                caps = [c for c in self.policy.caps if c.counts == "served"]
                caps = [c for c in caps if not c.channels or channel in c.channels]
                if any(self.used(cap, offer, channel, self.clock_ms) >= cap.most for cap in caps):
                    continue
                first = not any(s.counted for s in slate)
                slate.append(Serving(decision, offer, channel, clock_ms, clock_ms, Stage.SERVED, True, first))
            else:
                slate.append(Serving(decision, offer, channel, time_ms, time_ms, Stage.SERVED, False, False))
            served.append(offer)
        self.servings = before + slate
        return served

    def pressure(self, time_ms: int) -> float:
        told = self.policy.pressure
        clock_ms = max(self.clock_ms, time_ms)
        if told is None:
            return 0.0
        return sum(
            told.cost * told.channels.get(s.channel, told.weight) * 2.0 ** ((s.time_ms - clock_ms) / told.half_life)
            for s in self.servings
            if s.counted and s.first and clock_ms - s.time_ms >= told.grace
        )

    def outcome(self, decision: str, offer: str, stage: Stage, time_ms: int) -> None:
        [serving] = [s for s in self.servings if (s.decision, s.offer) == (decision, offer)]
        serving.stage, serving.changed_ms = stage, time_ms


# --- any interleaving -----------------------------------------------------------------------------------------------

CAPS = [
    "{of: offer, most: 1, within: 10d}",
    "{of: category, most: 2, within: 30d}",
    "{of: category, which: [cards], most: 1, per: week}",
    "{of: kind, which: [sale], most: 3, per: month}",
    "{of: all, most: 4, per: day}",
    "{of: all, channels: [call], most: 1, within: 14d}",
    "{of: channel, most: 2, within: 20d}",
    "{of: offers, which: [gold, loan], most: 1, within: 5d}",
    "{of: offer, most: 1, within: 60d, counts: accepted}",
    "{of: all, most: 2, within: 40d, counts: declined}",
    "{of: group, most: 2, within: 12d}",
    "{of: group, which: [money], most: 1, per: week}",
    "{of: group, which: [family, plastic], channels: [web], most: 3, within: 30d}",
    "{of: group, which: [plastic], most: 1, within: 30d, counts: accepted}",
    "{of: category, most: 1, within: 3d, counts: presented}",
    "{of: all, most: 3, within: 15d, counts: contacts}",
    "{of: channel, most: 1, per: day, counts: contacts}",
]
COOL_OFFS = [
    "{after: declined, of: category, for: 25d}",
    "{after: [accepted, fulfilled], of: offer, for: 50d}",
    "{after: declined, of: all, which: [help], for: 6d}",
    "{after: ignored, of: kind, for: 4d}",
    "{after: declined, of: group, which: [money, family], for: 9d}",
    "{after: clicked, of: all, for: 1d}",
]
REPORTED = ["presented", "clicked", "ignored", "accepted", "declined", "not_presented", "fulfilled", "cancelled"]
policies = st.builds(
    lambda caps, cools, outbound, inside, outside, pressure: (
        f"  caps: [{', '.join(caps)}]\n  cool_off: [{', '.join(cools)}]\n  outbound: [{', '.join(outbound)}]\n"
        f"  while_open: {inside}\n  while_open_outbound: {outside}\n" + pressure
    ),
    st.lists(st.sampled_from(CAPS), max_size=4, unique=True),
    st.lists(st.sampled_from(COOL_OFFS), max_size=3, unique=True),
    st.lists(st.just("call"), max_size=1),
    st.sampled_from(["resume", "hide"]),
    st.sampled_from(["resume", "hide"]),
    st.sampled_from(["", "  pressure: {cost: 0.001, half_life: 3d, channels: {call: 3, web: 0.5}, grace: 1h}\n"]),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("decide"), st.sampled_from(["web", "branch", "call"]), st.integers(0, 2)),
        st.tuples(st.just("report"), st.integers(0, 40), st.sampled_from(REPORTED)),
        st.tuples(st.just("wait"), st.sampled_from([1, 3_599_999, 3_600_000, DAY_MS, 3 * DAY_MS, 9 * DAY_MS])),
    ),
    max_size=40,
)


async def record_of(engine: SmallEngine, decision: str) -> DecisionRecord:
    place = parse_decision_id(decision, PARTITIONS)
    assert place is not None
    [data] = await engine.store.entries([place])
    assert data is not None
    return DecisionRecord.unpack(data)


def again_from(engine: SmallEngine, record: DecisionRecord) -> list[str]:
    """What a decision served, from its record and the configuration, without the ledger."""
    assert record.basis is not None
    holds, count = engine.catalogue.holds, len(OFFERS)
    may = np.ones((1, count + 1), dtype=np.bool_)
    holds.keep_back([record.basis.holds], may)
    left = [at for at in range(count) if may[0, at]]
    picks = np.full((1, record.limit), -1, dtype=np.int16)
    picks[0, : len(left)] = left
    slates = Slates(picks, np.ones(picks.shape), np.zeros(picks.shape, dtype=np.bool_))
    slates = holds.trim(slates, [record.basis.holds], np.array([record.channel]))
    return [list(OFFERS)[at] for at in slates.picks[0].tolist() if at >= 0]


async def run(text: bytes, script: Sequence[tuple[Any, ...]], policy: str) -> None:
    engine = SmallEngine(text)
    reference = Reference(engine.catalogue)
    answers: list[decisions_pb2.DecideResponse] = []
    for step in script:
        if step[0] == "wait":
            engine.now_ms += step[1]
        elif step[0] == "decide":
            _, channel, back = step
            time_ms = engine.now_ms - back * DAY_MS // 2
            surcharge = reference.pressure(time_ms)
            answer = await engine.decide(channel=channel, time_ms=time_ms)
            answers.append(answer)
            clock_ms = max(reference.clock_ms, time_ms)
            reference.clock_ms = clock_ms
            held = {offer for offer in OFFERS if reference.held(offer, channel, clock_ms)}
            record = await record_of(engine, answer.decision_id)
            assert record.basis is not None
            limits = [*reference.policy.caps, *reference.policy.cool_off]
            for hold in record.basis.holds:
                if hold.limit < len(limits) and not hold.room:
                    limit, at = limits[hold.limit], engine.catalogue.holds.covers(hold).tolist().index(True)
                    most = getattr(limit, "most", 1)
                    part = {key_of(name): name for name in ("plastic", "money", "family")}.get(hold.scope, "")
                    used = [
                        reference.used_by(limit, list(OFFERS)[at], channel, hold.until_ms + more, part)
                        for more in (-1, 0)
                    ]
                    assert used[1] < most <= used[0], "until when it holds is told to the millisecond"
            expected = reference.decide(answer.decision_id, channel, time_ms)
            assert [offer.offer_id for offer in answer.offers] == expected, policy
            assert answer.nothing_reason.code == ("" if expected else "held_back")
            assert again_from(engine, record) == expected, "the record alone says what was kept back"
            assert record.basis.surcharge == pytest.approx(surcharge, abs=1e-8)
            for at, offer in enumerate(engine.catalogue.offer_ids):
                keeping = engine.catalogue.holds.keeping(record.basis.holds, at)
                assert bool(keeping) == (offer in held)
        elif answers:
            _, back, stage = step
            answer = answers[-1 - back % len(answers)]
            if not answer.offers:
                continue
            offer = answer.offers[back % len(answer.offers)].offer_id
            try:
                told = await engine.report(answer.decision_id, offer, stage, time_ms=max(engine.now_ms, answer.time_ms))
            except NotAllowed:
                continue
            reference.outcome(answer.decision_id, offer, Stage(told.stage), max(engine.now_ms, answer.time_ms))
    findings = await replay(engine.catalogue, engine.store, now_ms=engine.now_ms)
    assert findings.differences == []


@settings(max_examples=60, deadline=None)
@given(policies, steps)
def test_what_is_served_is_what_a_reference_says_that_keeps_everything(
    policy: str, script: list[tuple[Any, ...]]
) -> None:
    asyncio.run(run(config(policy), script, policy))


# --- concurrent callers ---------------------------------------------------------------------------------------------

ONE_CARD = config("  caps: [{of: category, which: [cards], most: 1, within: 30d}]\n  while_open: hide\n")


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_64_callers_of_two_servers_against_a_cap_of_one(kind: str, shared_server: Server) -> None:
    stores: list[Any] = []
    if kind == "redis":
        await shared_server.say(b"FLUSHALL")
        stores = [await RedisStore.open(shared_server.url, PARTITIONS) for _ in range(2)]
        engines = [SmallEngine(ONE_CARD, store) for store in stores]
    else:
        one = SmallEngine(ONE_CARD)
        engines = [one, SmallEngine(ONE_CARD, one.store)]
    answers = await asyncio.gather(
        *(engines[n % 2].decide("ann", channel=["web", "branch", "call"][n % 3]) for n in range(64))
    )
    made = [answer for answer in answers if answer.decision_id]
    assert len(made) >= 48, "the others were told that nothing was decided"
    cards = [o.offer_id for answer in made for o in answer.offers if o.category == "cards"]
    assert cards == ["gold"]
    for store in stores:
        await store.close()


# --- the same answer everywhere -------------------------------------------------------------------------------------


async def test_whoever_comes_back_gets_the_same_answer_and_uses_up_nothing() -> None:
    engine = SmallEngine(
        config(
            "  caps: [{of: category, most: 1, within: 30d}, {of: all, most: 3, per: week}]\n"
            "  pressure: {cost: 30, half_life: 30d}\n"
        )
    )
    first = await engine.decide(channel="web")
    assert [offer.offer_id for offer in first.offers] == ["gold", "loan", "help"]
    told = {candidate.offer_id: candidate for candidate in (await engine.explain(first.decision_id)).candidates}
    assert list(told["basic"].held_by) == ["at most 1 of each category in 30d"], "gold has left no room for it"
    assert told["basic"].free_again_ms == 0
    for channel in ("branch", "call", "web"):
        again = await engine.decide(channel=channel)
        assert [(o.offer_id, o.score) for o in again.offers] == [(o.offer_id, o.score) for o in first.offers]
    engine.now_ms += WINDOW_MS
    late = await engine.decide(channel="web")
    assert not late.offers
    assert late.nothing_reason.code == "held_back"


async def test_contact_pressure_lets_silence_win() -> None:
    quiet = config("  pressure: {cost: 3, half_life: 30d, channels: {call: 2, web: 0}}\n")
    engine = SmallEngine(quiet.replace(b"silence: false", b"silence: true"))
    outcome = []
    for _ in range(3):
        answer = await engine.decide(channel="call")
        outcome.append(answer.nothing_reason.code)
        engine.now_ms += 8 * DAY_MS
    assert outcome == ["", "silence", ""], "until the contact has faded"
    customer = await engine.customer()
    assert customer.contact_surcharge == pytest.approx(3 * customer.contact_pressure)
    assert customer.contact_pressure > 1
    calm = SmallEngine(quiet.replace(b"silence: false", b"silence: true"))
    for _ in range(3):
        assert (await calm.decide(channel="web")).offers, "inbound contacts weigh nothing here"
        calm.now_ms += 8 * DAY_MS


# --- telling --------------------------------------------------------------------------------------------------------


async def test_a_rejection_expires_and_is_told() -> None:
    engine = SmallEngine(config("  cool_off: [{after: declined, of: category, for: 60d}]\n"))
    answer = await engine.decide(channel="web")
    await engine.report(answer.decision_id, "gold", "declined")
    held = await engine.decide(channel="branch")
    assert [offer.offer_id for offer in held.offers] == ["loan", "stay", "help"]
    told = {candidate.offer_id: candidate for candidate in (await engine.explain(held.decision_id)).candidates}
    for offer in ("gold", "basic"):
        assert list(told[offer].held_by) == ["none of the same category for 60d after declined"]
        assert told[offer].free_again_ms == engine.now_ms + 60 * DAY_MS
        assert (told[offer].eligible, told[offer].reasons[0].code) == (True, "held_back")
        assert "kept back until" in told[offer].text
    assert not told["loan"].held_by and told["loan"].free_again_ms == 0
    customer = await engine.customer()
    [cool] = customer.cool_offs
    assert (cool.of, cool.until_ms) == ("cards", engine.now_ms + 60 * DAY_MS)
    engine.now_ms += 60 * DAY_MS
    assert "gold" in [offer.offer_id for offer in (await engine.decide(channel="web")).offers]


async def test_when_everything_is_kept_back_the_answer_says_so() -> None:
    engine = SmallEngine(config("  caps: [{of: all, most: 5, within: 30d}]\n  while_open: hide\n"))
    await engine.decide(channel="web")
    answer = await engine.decide(channel="web", request_id="again")
    assert answer.nothing_reason.code == "held_back"
    assert (await engine.decide(channel="web", request_id="again")).nothing_reason == answer.nothing_reason
    assert "All that was eligible was kept back." in (await engine.explain(answer.decision_id)).summary
    [cap] = (await engine.customer()).caps
    assert (cap.used, cap.most, cap.free_again_ms) == (5, 5, engine.now_ms + 30 * DAY_MS)
    assert [(c.days, c.channel, c.contacts, c.offers) for c in (await engine.customer()).contacts] == [
        (1, "web", 1, 5), (7, "web", 1, 5), (30, "web", 1, 5)
    ]  # fmt: skip


# --- ledgers --------------------------------------------------------------------------------------------------------


async def test_a_ledger_from_before_there_was_a_policy_counts() -> None:
    old = SmallEngine(config("").replace(b"contact_policy:\n", b""))
    await old.decide(channel="web", limit=1)
    [(_, data)] = await old.store.read(["ann"])
    assert data is not None and data[0] == 1
    engine = SmallEngine(config("  caps: [{of: category, most: 1, within: 30d}]\n  while_open: hide\n"), old.store)
    answer = await engine.decide(channel="web")
    assert [offer.offer_id for offer in answer.offers] == ["loan", "help"]
    [(_, data)] = await old.store.read(["ann"])
    assert data is not None and data[0] == 3
    assert [row.number for row in Ledger.unpack(data).contacts or ()] == [1, 1, 1]
    # Without the policy the contacts stay, and are there when it is back.
    await old.decide(channel="web")
    [(_, data)] = await old.store.read(["ann"])
    assert data is not None and len(Ledger.unpack(data).contacts or ()) == 3
    assert not (await engine.decide(channel="web")).offers


A_GROUP = "  caps: [{of: group, which: [money], most: 1, within: 30d}]\n  while_open: hide\n"


async def served(engine: SmallEngine, channel: str = "web") -> list[str]:
    return [offer.offer_id for offer in (await engine.decide(channel=channel)).offers]


async def test_a_group_counts_what_was_before_it_was_made() -> None:
    """And the offers of those that have it as parent."""
    whole = config("  caps: [{of: offer, most: 9, within: 30d}]\n")
    ungrouped = b"\n".join(line for line in whole.split(b"\n") if not line.startswith(b"groups"))
    for name in GROUPS:
        ungrouped = ungrouped.replace(f"group: [{', '.join(GROUPS[name])}]".encode(), b"group: []")
    old = SmallEngine(ungrouped)
    assert [offer.offer_id for offer in (await old.decide(channel="web", limit=1)).offers] == ["gold"]
    new = SmallEngine(config(A_GROUP), old.store)
    assert await served(new) == ["stay", "help"]
    [cap] = (await new.customer()).caps
    assert (cap.name, cap.of, cap.used, cap.most) == ("at most 1 of each group (money) in 30d", "money", 1, 1)


async def test_a_group_counts_offers_that_are_not_there_any_more() -> None:
    old = SmallEngine(config(A_GROUP))
    assert [offer.offer_id for offer in (await old.decide(channel="web", limit=1)).offers] == ["gold"]
    without = b"\n".join(line for line in config(A_GROUP).split(b"\n") if b"id: gold" not in line)
    assert await served(SmallEngine(without, old.store)) == ["stay", "help"]
    # The first group that it named still has the parent; after that it has another one.
    elsewhere = without.replace(b"{id: plastic, parent: money}", b"{id: plastic, parent: family}")
    assert "loan" in await served(SmallEngine(elsewhere, old.store))
    await old.report((await old.decide(channel="web", limit=1, customer="bob")).decision_id, "gold", "not_presented")
    assert "basic" in [o.offer_id for o in (await SmallEngine(without, old.store).decide(customer="bob")).offers]


def test_contacts_from_before_rows_had_a_group_are_read() -> None:
    row = Contact(Offset(7, 8), 1, 2, 3, 4, 5, 1, 1, 1 | FIRST)
    former = SECTION.pack(9, 2) + 2 * row.pack()[:-4]
    assert read(former, 0) == (9, 2 * row.pack())
    assert read(section(9, row._replace(group=6).pack()), 0) == (9, row._replace(group=6).pack())
    with pytest.raises(StructError):
        read(former[:-1], 0)
    whole = Ledger(contacts=(row, row), contact_clock_ms=9).pack()
    older = whole[: -len(section(9, 2 * row.pack()))] + former
    found = Ledgers([whole, older, older[:-1], whole[:-4]], np.zeros(4, np.int64), np.full(4, 9, np.int64))
    assert found.damaged == [False, False, True, True]
    assert found[0].contacts == found[1].contacts == 2 * row.pack()
    assert Ledger.unpack(older) == Ledger.unpack(whole)
    # Of an offer that is not there any more it is not known of which group it was: all of them count it.
    policy = ContactPolicy(catalogue_of(config(A_GROUP)).config, ["cards"], [WINDOW_MS] * len(OFFERS))
    assert [use.used for use in policy.uses([row._replace(time_ms=5)], 6)] == [1]
    assert not policy.uses([row._replace(time_ms=5, group=NO_GROUP)], 6)


async def test_a_slate_keeps_to_the_caps_of_all_groups_of_an_offer() -> None:
    engine = SmallEngine(config("  caps: [{of: group, most: 1, within: 30d}]\n  while_open: hide\n"))
    answer = await engine.decide(channel="web")
    assert [offer.offer_id for offer in answer.offers] == ["gold", "help"]
    told = {one.offer_id: list(one.held_by) for one in (await engine.explain(answer.decision_id)).candidates}
    assert told["basic"] == told["loan"] == told["stay"] == ["at most 1 of each group in 30d"]
    assert {(cap.of, cap.used) for cap in (await engine.customer()).caps} == {
        ("plastic", 1), ("money", 1), ("family", 1)
    }  # fmt: skip


async def test_a_cap_of_each_channel_is_told_for_each() -> None:
    engine = SmallEngine(
        config(
            "  caps: [{of: channel, most: 3, within: 30d, channels: [web, call]}, {of: all, most: 50, per: week}]\n"
            "  while_open: hide\n"
        )
    )
    await engine.decide(channel="web", limit=2)
    await engine.decide(channel="branch", limit=1)
    await engine.decide(channel="call", limit=1)
    engine.now_ms += 1
    await engine.decide(channel="web", limit=1)
    caps = (await engine.customer()).caps
    name = "at most 3 of each channel in 30d in web, call"
    assert [(cap.name, cap.of, cap.used, cap.most) for cap in caps] == [
        (name, "web", 3, 3), (name, "call", 1, 3), ("at most 50 in all a week", "", 5, 50),
    ]  # fmt: skip
    assert caps[0].free_again_ms == engine.now_ms - 1 + 30 * DAY_MS


async def test_an_outcome_counts_after_the_ledger_has_let_its_decision_go() -> None:
    engine = SmallEngine(
        config("  cool_off: [{after: declined, for: 90d}]\n  caps: [{of: offer, most: 1, within: 1d}]\n")
    )
    first = await engine.decide(channel="web")
    for _ in range(20):
        engine.now_ms += 8 * DAY_MS
        await engine.decide(channel="web")
    await engine.report(first.decision_id, "loan", "declined")
    assert "loan" not in [offer.offer_id for offer in (await engine.decide(channel="web")).offers]
    assert (await engine.report(first.decision_id, "stay", "declined")).stage == Stage.DECLINED


rows = st.builds(
    Contact,
    st.builds(Offset, st.integers(1, 9), st.integers(0, 9)),
    st.integers(1, 4),
    st.integers(1, 2),
    st.integers(1, 2),
    st.integers(0, 50),
    st.integers(0, 50),
    st.sampled_from([1, 2, 3, 4]),
    st.integers(1, 2),
    st.sampled_from([1, 2, 1 | FIRST, 1 | AGAIN]),
    st.just(1),
    st.integers(0, 2),
)


@given(st.lists(rows, max_size=30), st.integers(0, 60), st.integers(2, 8))
def test_too_many_contacts_count_together_and_never_less(
    contacts: list[Contact], since_ms: int, entries_max: int
) -> None:
    contacts.sort(key=lambda row: row.time_ms)
    packed = b"".join([row.pack() for row in contacts])
    assert unpacked(packed) == contacts
    kept = unpacked(bounded(packed, since_ms, entries_max))
    assert len(kept) <= entries_max
    for start in range(since_ms, 52):
        for key in range(1, 5):
            wanted = [r for r in contacts if r.key == key and r.time_ms >= start]
            found = [r for r in kept if r.key in (key, 0) and r.time_ms >= start]
            assert sum(row.number for row in found) >= len(wanted)
            for stage in range(1, 5):
                had = [r.changed_ms for r in contacts if (r.key, r.stage) == (key, stage) and r.changed_ms >= start]
                has = [r.changed_ms for r in kept if r.key in (key, 0) and r.stage in (stage, ANY)]
                assert max(has, default=0) >= max(had, default=0)
    assert sum(row.number for row in joined(contacts, entries_max)) == len(contacts)


def test_rows_get_the_position_of_their_decision() -> None:
    row = Contact(Offset.ZERO, 1, 2, 3, 4, 5, 1, 1, 1 | FIRST)
    other = row._replace(position=Offset(7, 8))
    packed = other.pack() + row.pack() + row._replace(rank=2).pack()
    assert [r.position for r in unpacked(placed(packed, Offset(9, 1)))] == [Offset(7, 8), Offset(9, 1), Offset(9, 1)]
    assert [r.rank & RANK for r in unpacked(placed(packed, Offset(9, 1)))] == [1, 1, 2]


# --- wrong input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        ("  caps: [{of: offer, most: 1}]\n", "expected within or per"),
        ("  caps: [{of: offer, most: 0, within: 1d}]\n", "greater than or equal to 1"),
        ("  caps: [{of: offer, which: [nothing], most: 1, within: 1d}]\n", "no offer 'nothing'"),
        ("  caps: [{of: category, which: [gold], most: 1, within: 1d}]\n", "no category 'gold'; there are cards, care"),
        ("  caps: [{of: group, which: [gold], most: 1, within: 1d}]\n", "no group 'gold'; there are family, money"),
        ("  caps: [{of: group, counts: contacts, most: 1, within: 1d}]\n", "a contact may be of several offers"),
        ("  cool_off: [{after: declined, of: group, which: [cards], for: 2d}]\n", "no group 'cards'; there are family"),
        ("  caps: [{of: all, channels: [fax], most: 1, within: 1d}]\n", "no channel 'fax'"),
        ("  caps: [{of: offer, counts: contacts, most: 1, within: 1d}]\n", "a contact may be of several offers"),
        ("  caps: [{most: 1, within: 999d}]\n", "less than or equal to"),
        ("  caps: [{most: 1, within: 2d}, {most: 1, within: 2d}]\n", "already there as caps[0]"),
        ("  cool_off: [{after: eaten, for: 2d}]\n", "accepted"),
        ("  outbound: [fax]\n", "no channel 'fax'"),
        ("  pressure: {cost: -1}\n", "greater than or equal to 0"),
    ],
)
def test_a_wrong_policy_is_refused_with_place_and_reason(policy: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        catalogue_of(config(policy))
    assert "contact_policy" in str(caught.value)
    assert problem in str(caught.value)


def test_a_limit_of_groups_needs_groups() -> None:
    none = config("  caps: [{of: group, most: 1, within: 1d}]\n")
    none = b"\n".join(line for line in none.split(b"\n") if not line.startswith(b"groups"))
    for name in GROUPS:
        none = none.replace(f"group: [{', '.join(GROUPS[name])}]".encode(), b"group: []")
    with pytest.raises(ConfigError, match=r"contact_policy\.caps\[0\]\.of: .*there are no groups"):
        catalogue_of(none)
