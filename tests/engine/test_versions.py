"""Versions: what may be put in force, by whom, what can be gone back to, and what is refused with which words."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from engine.config import parse, version_of
from engine.drafts import Draft
from engine.errors import ConfigError, InvalidArgument, NotAllowed, NotFound
from engine.layouts import keep_layout
from engine.learning import Learning
from engine.serving import Answer, Decided
from engine.store import MemoryStore
from engine.versions import Versions
from engine.versions_check import compiled
from engine.versions_watch import VersionWatch
from opportune.v1 import decisions_pb2, policies_pb2
from tests.small_engine import CONFIG, PARTITIONS, START_MS, SmallEngine, catalogue_of

STRICT = CONFIG.replace(b"limit: 3\n", b"limit: 3\ngovernance: {approvals: 1}\n")
STRICTER = STRICT.replace(b"approvals: 1", b"approvals: 2")
DEARER = CONFIG.replace(b"value: 40", b"value: 400")
STRICT_DEARER = STRICT.replace(b"value: 40", b"value: 400")
WITHOUT_LOAN = CONFIG.replace(CONFIG[CONFIG.index(b"  - id: loan") : CONFIG.index(b"  - id: helpline")], b"")
GOLD_FIRST = CONFIG.replace(b"offers:\n", b"offers:\n  - {id: gold, value: 500, treatments: [{text: Gold}]}\n")


class Clock:
    def __init__(self) -> None:
        self.now_ms = START_MS

    def __call__(self) -> int:
        self.now_ms += 1
        return self.now_ms


@pytest_asyncio.fixture
async def versions() -> AsyncIterator[Versions]:
    clock = Clock()
    yield Versions(MemoryStore(PARTITIONS, clock), clock)


# --- what is put in force -------------------------------------------------------------------------------------------


async def test_a_range_that_a_sum_cannot_hold_is_refused_but_not_where_it_is_in_force(versions: Versions) -> None:
    wide = CONFIG.replace(b"range: [0, 100000]", b"range: [0, 100000000000]")
    with pytest.raises(ConfigError, match=r"features\[0\]\.resolution: sum holds .*: expected resolution: 0\.0001"):
        await versions.propose(wide, "ann")
    # An engine of an earlier release may have put it in force: its state is still read, and it can be gone back to.
    await versions.settle(version_of(wide), lambda: wide)
    await versions.propose(CONFIG, "ann")
    assert (await versions.rollback("", "bob")).version == version_of(wide)


async def test_a_file_is_applied_at_once_where_nobody_must_approve(versions: Versions) -> None:
    first = await versions.propose(CONFIG, "ann", "the first")
    assert (first.state, first.before) == ("active", "")
    second = await versions.propose(DEARER, "ann")
    assert (second.state, second.before, second.version) == ("active", first.version, version_of(DEARER))
    assert (await versions.propose(DEARER, "bob")).state == "unchanged"
    history = await versions.history()
    assert history.active == second.version
    assert [history.state_of(row) for row in history.versions.values()] == ["kept", "active"]
    trail = [(step.who, step.what, step.before, step.after) for step in await versions.trail()]
    assert trail == [("ann", "apply", "", first.version), ("ann", "apply", first.version, second.version)]


async def test_a_dry_run_changes_nothing(versions: Versions) -> None:
    would = await versions.propose(CONFIG, "ann", dry_run=True)
    assert would.state == "active"
    assert not (await versions.history()).versions
    assert not await versions.trail()


async def test_the_author_alone_cannot_approve(versions: Versions) -> None:
    await versions.propose(STRICT, "ann")
    proposed = await versions.propose(STRICT_DEARER, "Ann", "dearer cards")
    assert (proposed.state, proposed.missing) == ("proposed", 1)
    for alias in ("Ann", " ann ", "ANN"):
        with pytest.raises(NotAllowed, match=r"proposed it and cannot approve it.*1 approval by others"):
            await versions.approve(proposed.version, alias)
    assert (await versions.history()).active == version_of(STRICT), "what runs is untouched"
    approved = await versions.approve(proposed.version[:6], "bob")
    assert (approved.state, approved.before) == ("active", version_of(STRICT))
    assert (await versions.history()).versions[proposed.version].approved_by == ("bob",)


async def test_as_many_approve_as_the_version_in_force_says(versions: Versions) -> None:
    await versions.propose(STRICTER, "ann")
    proposed = await versions.propose(CONFIG, "ann")
    assert (await versions.approve(proposed.version, "bob")).missing == 1
    with pytest.raises(NotAllowed, match="bob has approved it already"):
        await versions.approve(proposed.version, "bob")
    assert (await versions.approve(proposed.version, "eva")).state == "active"


async def test_a_proposal_on_top_of_something_else_is_not_approved(versions: Versions) -> None:
    await versions.propose(STRICT, "ann")
    stale = await versions.propose(STRICT_DEARER, "ann")
    other = await versions.propose(STRICTER, "eva")
    await versions.approve(other.version, "bob")
    with pytest.raises(NotAllowed, match=f"in place of {version_of(STRICT)}, but {other.version} is in force"):
        await versions.approve(stale.version, "bob")
    with pytest.raises(NotAllowed, match="is kept, expected one that is proposed"):
        await versions.approve(version_of(STRICT), "bob")


async def test_a_file_that_does_not_validate_changes_nothing_and_tells_all(versions: Versions) -> None:
    await versions.propose(CONFIG, "ann")
    before = await versions.history()
    wrong = CONFIG.replace(b"id: loan", b"id: card").replace(b"value: 40", b"value: 40\n    lever: 1e308")
    wrong = wrong.replace(b'"complaints_90d == 0.0"', b'"complains == 0.0"')
    with pytest.raises(ConfigError) as told:
        await versions.propose(wrong, "ann", name="shop.yaml")
    lines = str(told.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["shop.yaml"] * 3
    assert [int(line.split(":")[1]) for line in lines] == sorted(int(line.split(":")[1]) for line in lines)
    for part in ("lever: ", "offers[1].id", "complains"):
        assert any(part in line for line in lines), (part, lines)
    assert await versions.history() == before


async def test_of_two_who_change_at_once_both_are_in_the_history(versions: Versions) -> None:
    await versions.propose(CONFIG, "ann")
    await asyncio.gather(versions.propose(DEARER, "ann"), versions.propose(WITHOUT_LOAN, "bob"))
    steps = await versions.trail()
    assert len(steps) == 3
    assert steps[2].before == steps[1].after, "the second has seen the first"


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 65])
async def test_who_does_it_must_have_a_name(versions: Versions, name: str) -> None:
    with pytest.raises(InvalidArgument, match="by: "):
        await versions.propose(CONFIG, name)


# --- going back -----------------------------------------------------------------------------------------------------


async def test_going_back_step_by_step_and_to_a_version(versions: Versions) -> None:
    for text in (CONFIG, DEARER, WITHOUT_LOAN):
        await versions.propose(text, "ann")
    assert (await versions.rollback("", "bob")).version == version_of(DEARER)
    assert (await versions.rollback("", "bob")).version == version_of(CONFIG)
    with pytest.raises(NotAllowed, match="replaced no other: name the one"):
        await versions.rollback("", "bob")
    assert (await versions.rollback(version_of(WITHOUT_LOAN), "bob")).state == "active"
    assert [step.what for step in await versions.trail()] == ["apply"] * 3 + ["rollback"] * 3


async def test_what_cannot_be_gone_back_to_is_refused_with_the_reason(versions: Versions) -> None:
    await versions.propose(CONFIG, "ann")
    await versions.propose(STRICT, "ann")
    await versions.propose(STRICT_DEARER, "ann")
    before = await versions.history()
    with pytest.raises(NotFound, match="version 'ffffff': no such version is known here"):
        await versions.rollback("ffffff", "bob")
    with pytest.raises(NotAllowed, match="was never in force"):
        await versions.rollback(version_of(STRICT_DEARER), "bob")
    with pytest.raises(NotAllowed, match=r"asks for fewer approvals \(0\) than the one in force \(1\)"):
        await versions.rollback(version_of(CONFIG), "bob")
    with pytest.raises(NotAllowed, match="is in force; put another"):
        await versions.retire(version_of(STRICT), "bob")
    assert await versions.history() == before
    assert len(await versions.trail()) == 3


async def test_a_retired_version_one_that_is_gone_and_one_of_another_release() -> None:
    clock = Clock()
    store = MemoryStore(PARTITIONS, clock)
    versions = Versions(store, clock)
    for text in (CONFIG, DEARER, WITHOUT_LOAN, GOLD_FIRST):
        await versions.propose(text, "ann")
    await versions.retire(version_of(CONFIG), "bob")
    with pytest.raises(NotAllowed, match="was retired"):
        await versions.rollback(version_of(CONFIG), "bob")
    del store._configs[version_of(DEARER)]
    with pytest.raises(NotFound, match="text is no longer in the store"):
        await versions.rollback(version_of(DEARER), "bob")
    await store.save_config(version_of(WITHOUT_LOAN), b"opportune: 9\n")
    with pytest.raises(ConfigError, match=r"cannot be read by this release any more:\n.*:1: opportune"):
        await versions.rollback(version_of(WITHOUT_LOAN), "bob")
    assert (await versions.history()).active == version_of(GOLD_FIRST)
    # Applying the file of a retired one brings it back.
    assert (await versions.propose(CONFIG, "ann")).state == "active"


# --- starting -------------------------------------------------------------------------------------------------------


async def test_a_new_file_is_in_force_at_the_start_and_an_old_one_turns_nothing_back(versions: Versions) -> None:
    assert (await versions.settle(version_of(CONFIG), lambda: CONFIG))[0] == version_of(CONFIG)
    version, text, said = await versions.settle(version_of(DEARER), lambda: DEARER)
    assert (version, text) == (version_of(DEARER), DEARER) and "in force from now on" in said
    version, text, said = await versions.settle(version_of(CONFIG), lambda: CONFIG)
    assert (version, text) == (version_of(DEARER), DEARER)
    assert f"version {version_of(DEARER)} is in force: to serve with the file, apply it" in said
    with pytest.raises(NotAllowed, match="has changed since"):
        await versions.settle(version_of(STRICT), lambda: DEARER)


async def test_a_new_file_is_refused_at_the_start_where_others_must_approve(versions: Versions) -> None:
    await versions.settle(version_of(STRICT), lambda: STRICT)
    with pytest.raises(NotAllowed, match="nobody has proposed"):
        await versions.settle(version_of(DEARER), lambda: DEARER)
    await versions.propose(DEARER, "ann")
    version, _, said = await versions.settle(version_of(DEARER), lambda: DEARER)
    assert version == version_of(STRICT) and "proposed, 0 of 1 approvals" in said


# --- following ------------------------------------------------------------------------------------------------------


def watch_of(engine: SmallEngine) -> VersionWatch:
    """As engine.worker follows."""
    return VersionWatch(engine.store, engine.catalogue.version, lambda found: adopt(engine, found))


async def adopt(engine: SmallEngine, found: object) -> None:
    serving = await asyncio.to_thread(engine.service.prepared, found)  # type: ignore[arg-type]
    await engine.watch.follow(serving, lambda: engine.service.follow(serving))


async def test_a_request_is_answered_with_the_version_that_it_began_with() -> None:
    engine = SmallEngine()
    versions = Versions(engine.store, engine.clock)
    await versions.settle(engine.catalogue.version, lambda: CONFIG)
    watch = watch_of(engine)
    await watch.step(0)
    before: list[asyncio.Future[Answer]] = []
    for number in range(100):
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        engine.service.enqueue(decisions_pb2.DecideRequest(customer_id=f"c{number}", channel="web"), future)
        before.append(future)
    new = catalogue_of(GOLD_FIRST)
    serving = engine.service.prepared(new)
    await engine.watch.follow(serving, lambda: engine.service.follow(serving))
    after = await engine.decide("dan", "web")
    for answer in await asyncio.gather(*before):
        assert isinstance(answer, Decided) and isinstance(answer.draft, Draft)
        told = decisions_pb2.DecideResponse.FromString(await engine.service.written(answer))
        assert told.config_version == engine.catalogue.version
        assert all((offer.offer_id, offer.treatment) == ("card", "A card for every day") for offer in told.offers)
        assert told.offers or told.nothing_reason.code == "silence"
    assert after.config_version == new.version
    assert {offer.offer_id for offer in after.offers} <= {"gold", "card"}


async def test_servers_follow_and_keep_what_they_have_where_they_cannot() -> None:
    engine = SmallEngine()
    versions = Versions(engine.store, engine.clock)
    await versions.settle(engine.catalogue.version, lambda: CONFIG)
    watch = watch_of(engine)
    told: list[bool] = []

    async def note(refused: bool) -> None:
        told.append(refused)

    watch.on_refused = note
    first = await engine.decide("ann", "web", request_id="r1")
    await versions.propose(DEARER, "ann")
    await watch.step(0)
    assert (await engine.decide("bob", "web")).config_version == version_of(DEARER)
    repeated = await engine.decide("ann", "web", request_id="r1")
    assert repeated.repeated and repeated.config_version == first.config_version
    assert repeated.offers[0].value == first.offers[0].value == 40
    # Another release, or other packages, have put something in force that cannot be taken up here.
    changed = await versions.propose(WITHOUT_LOAN, "ann")
    await engine.store.save_config(changed.version, b"opportune: 9\n")
    await watch.step(0)
    assert (await engine.decide("eva", "web")).config_version == version_of(DEARER)
    assert told == [True]
    await versions.rollback(version_of(DEARER), "bob")
    await watch.step(0)
    assert told == [True, False]


async def test_an_offer_that_is_brought_back_has_its_lessons() -> None:
    engine = SmallEngine(GOLD_FIRST)
    learning, versions = engine.learning, Versions(engine.store, engine.clock)
    await versions.settle(engine.catalogue.version, lambda: GOLD_FIRST)
    watch = watch_of(engine)
    for number in range(12):
        answer = await engine.decide(f"c{number}", "web")
        for offer in answer.offers:
            await engine.report(answer.decision_id, offer.offer_id, "accepted" if number % 2 else "declined")
    await engine.learn()
    lessons = dict(zip(engine.service.decider.policy.offers, engine.service.decider.policy.lessons, strict=True))
    assert lessons["gold"] > 0
    for text in (CONFIG, GOLD_FIRST):
        await versions.propose(text, "ann")
        await watch.step(0)
        await learning.publish()
        await learning.save()
        learning = Learning(catalogue_of(text), engine.store, now_s=lambda: engine.now_ms / 1e3)
        answer = await engine.decide(f"then-{len(text)}", "web")
        await engine.report(answer.decision_id, answer.offers[0].offer_id, "accepted")
        while await learning.round(0):
            pass
        await learning.publish()
        await engine.watch.step(0)
    again = dict(zip(engine.service.decider.policy.offers, engine.service.decider.policy.lessons, strict=True))
    assert again["gold"] >= lessons["gold"]
    assert sum(again.values()) > sum(lessons.values()), "and it went on to learn"
    # What was decided with offers that went is still explained by the belief that decided.
    assert (await engine.explain(answer.decision_id)).config_version == version_of(GOLD_FIRST)


async def test_what_comes_of_an_offer_that_is_gone_is_taken_and_learnt() -> None:
    """With rewards: what its outcomes are worth stands in the version that decided."""
    paid = CONFIG.replace(b"offers:\n", b"objectives: {revenue: 1}\noffers:\n", 1)
    gold = b"  - {id: gold, value: 500, rewards: [0, 1000], channels: [web], treatments: [{text: Gold}]}\n"
    with_gold = paid.replace(b"offers:\n", b"offers:\n" + gold, 1)
    engine = SmallEngine(with_gold)
    versions = Versions(engine.store, engine.clock)
    await versions.settle(engine.catalogue.version, lambda: with_gold)
    watch = watch_of(engine)
    answers = [await engine.decide(f"c{number}", "web") for number in range(8)]
    offered = [answer for answer in answers if any(offer.offer_id == "gold" for offer in answer.offers)]
    assert len(offered) > 1
    await versions.propose(paid, "ann")
    await watch.step(0)
    assert (await engine.decide("now", "web")).config_version == version_of(paid)
    for answer in offered:
        told = await engine.report(answer.decision_id, "gold", "accepted", rewards={"revenue": 800.0})
        assert not told.duplicate
    with pytest.raises(InvalidArgument, match="no such objective"):
        await engine.report(offered[0].decision_id, "gold", "accepted", rewards={"fame": 1.0})
    learning = Learning(catalogue_of(paid), engine.store, now_s=lambda: engine.now_ms / 1e3)
    while await learning.round(0):
        pass
    learner = await learning.learner()
    assert (learner.lessons, learner.lost) == (len(offered), 0)
    await learning.save()
    await versions.propose(with_gold, "ann")
    back = await Learning(catalogue_of(with_gold), engine.store, now_s=lambda: engine.now_ms / 1e3).learner()
    beliefs = back.snapshot(whole=True)[1]
    assert "gold" in set(back.statistics.offers)
    # The same as if it had never been gone.
    always = SmallEngine(with_gold, engine.store)
    never_gone = Learning(always.catalogue, _Blank(engine.store), now_s=lambda: engine.now_ms / 1e3)  # type: ignore[arg-type]
    while await never_gone.round(0):
        pass
    assert (await never_gone.learner()).statistics == back.statistics
    assert "gold" in beliefs


class _Blank:
    """A store whose checkpoint and history nobody has written."""

    def __init__(self, store: object) -> None:
        self._store = store

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def load_checkpoint(self) -> dict[str, bytes]:
        return {}

    async def read_versions(self) -> dict[str, bytes]:
        return {}


async def test_the_api_says_the_same_as_the_commands() -> None:
    engine = SmallEngine(STRICT)
    policies = engine.service.policies
    await Versions(engine.store, engine.clock).settle(engine.catalogue.version, lambda: STRICT)
    wrong = await policies.validate(policies_pb2.ValidateRequest(text=b"opportune: 1\nname: x\n"))
    assert any(problem.startswith("text:1: offers") for problem in wrong.problems)
    right = await policies.validate(policies_pb2.ValidateRequest(text=DEARER))
    assert not right.problems and right.contents[0].what == "offers" and right.contents[0].count == 3
    with pytest.raises(InvalidArgument, match="text:1: offers"):
        await policies.propose(policies_pb2.ProposeRequest(text=b"opportune: 1\nname: x\n", by="ann"))
    engine.now_ms += 1
    proposed = await policies.propose(policies_pb2.ProposeRequest(text=DEARER, by="ann", note="why"))
    assert (proposed.state, proposed.approvals_missing) == ("proposed", 1)
    with pytest.raises(NotAllowed, match="cannot approve"):
        await policies.approve(policies_pb2.ApproveRequest(version=proposed.version, by="ann"))
    approved = await policies.approve(policies_pb2.ApproveRequest(version=proposed.version, by="bob"))
    assert approved.state == "active"
    back = await policies.rollback(policies_pb2.RollbackRequest(by="bob"))
    assert (back.state, back.version) == ("active", version_of(STRICT))
    listed = await policies.list(policies_pb2.ListVersionsRequest())
    assert listed.active == version_of(STRICT)
    assert [(row.version, row.state, row.by, list(row.approved_by)) for row in listed.versions] == [
        (version_of(DEARER), "kept", "ann", ["bob"]),
        (version_of(STRICT), "active", "start", []),
    ]


def test_everything_that_is_wrong_is_told_at_once() -> None:
    text = CONFIG.replace(b"fallback: [card]", b"fallback: [nobody]").replace(b"window: 3d", b"window: -3d")
    with pytest.raises(ConfigError) as told:
        compiled(text, "f")
    assert [line.split(": ")[1] for line in str(told.value).splitlines()] == ["offers[1].window", "fallback[0]"]
    assert compiled(CONFIG).version == version_of(CONFIG)
    assert parse(STRICT).governance.approvals == 1


async def test_layouts_of_a_proposal_are_known_before_it_is_in_force() -> None:
    clock = Clock()
    store = MemoryStore(PARTITIONS, clock)
    await keep_layout(store, version_of(CONFIG), CONFIG, catalogue_of().layout)
    more = CONFIG.replace(b"events:\n", b"events:\n  - {type: visit}\n", 1)
    more = more.replace(b"features:\n", b"features:\n  - {name: visits, event: visit, function: count}\n", 1)
    await Versions(store, clock).propose(more, "ann")
    assert catalogue_of(more).layout.version in await store.load_layouts()
