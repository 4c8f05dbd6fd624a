"""What a person taught is taken back to the bit, whatever happens around it, wherever it is interrupted."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from engine.attribution import Attribution
from engine.catalogue import Catalogue
from engine.forget.erasing import Erasing, Receipt
from engine.learning import Learning
from engine.ledger import CAS_BYTES, hash_of
from engine.lifecycle import REPORTABLE, Stage, may_follow
from engine.record import Choice, DecisionRecord, OutcomeRecord
from engine.store import DecisionCommit, MemoryStore, StoreUnavailable, partition_of
from features import Offset
from tests.ledgers import opened
from tests.small_engine import CONFIG, DAY_MS, START_MS, catalogue_of

CATALOGUE = catalogue_of()
PARTITIONS = 2
PEOPLE = ("ann", "bob", "carl", "dora")
GONE = "ann"
Step = tuple[Any, ...]


class Interrupted(MemoryStore):
    """A store whose next call of one method fails, before or after it took place."""

    fails = ""
    after = False

    async def save_checkpoint(self, *given: Any) -> None:
        await self._perhaps("save_checkpoint", super().save_checkpoint(*given))

    async def finish_forget(self, *given: Any) -> None:
        await self._perhaps("finish_forget", super().finish_forget(*given))

    async def publish_policy(self, *given: Any) -> None:
        await self._perhaps("publish_policy", super().publish_policy(*given))

    async def _perhaps(self, name: str, call: Any) -> None:
        hit, self.fails = self.fails == name, "" if self.fails == name else self.fails
        if not hit or self.after:
            await call
        else:
            call.close()
        if hit:
            raise StoreUnavailable("interrupted")


@dataclass
class World:
    """People, decisions, outcomes and a learner, over any number of its lives."""

    catalogue: Catalogue = CATALOGUE
    now_ms: int = START_MS
    decisions: dict[int, tuple[str, Offset, list[int], list[Stage]]] = field(default_factory=dict)
    erased_at: Offset = Offset.ZERO
    older: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = Interrupted(PARTITIONS, lambda: self.now_ms)
        self.learning = self.new_life()

    def new_life(self) -> Learning:
        return Learning(self.catalogue, self.store, now_s=lambda: 0.0)

    async def take(self, step: Step, without: str = "") -> None:
        match step:
            case ("decide", number, person, wait_ms, offers, seed):
                self.now_ms += wait_ms
                if person != without:
                    await self.decide(number, person, offers, seed)
            case ("report", number, rank, stage, wait_ms, *more):
                self.now_ms += wait_ms
                await self.report(number, rank, stage, *more)
            case ("forget",) if not without:
                await self.forget(GONE)
            case ("learn",):
                await self.learn()
            case ("save",):
                await self.trying(self.learning.save())
            case ("crash",):
                self.learning = self.new_life()
            case ("fail", method, after):
                self.store.fails, self.store.after = method, after
            case ("keep",):
                await self.learn()
                await self.trying(self.learning.save())
                self.older = await self.store.load_checkpoint()

    async def trying(self, call: Any) -> None:
        try:
            await call
        except StoreUnavailable:
            self.learning = self.new_life()

    async def learn(self) -> None:
        while True:
            try:
                if not await self.learning.round(0):
                    return
            except StoreUnavailable:
                self.learning = self.new_life()

    async def decide(self, number: int, person: str, offers: list[int], seed: int) -> None:
        catalogue = self.catalogue
        x = np.random.default_rng(seed).integers(-127, 128, catalogue.transform.dimension).astype(np.int8).tobytes()
        ends = [(catalogue.offer_keys[at], self.now_ms + DAY_MS) for at in offers]
        slate = tuple(Choice(key, 0.5, 1.0, 0.1, 0.1, end_ms) for key, end_ms in ends)
        record = DecisionRecord(
            self.now_ms, 1, catalogue.version, catalogue.transform.version, 0, Offset.ZERO, 0, 0, 0, 0, False, 3,
            person, "", b"", x, b"\0", b"", 0.0, slate,
        ).pack()  # fmt: skip
        [(_, ledger)] = await self.store.read([person])
        head, tail = opened(ledger, 0, self.now_ms, ends)
        commit = DecisionCommit(person, (ledger or b"")[:CAS_BYTES], head, tail, record)
        [at] = await self.store.commit_decisions([commit])
        assert isinstance(at, Offset)
        self.decisions[number] = person, at, offers, [Stage.SERVED] * len(offers)

    async def report(
        self, number: int, rank: int, stage: Stage, value: float = 0.0, name: str = "", corrects: str = ""
    ) -> None:
        """As the service would take it, or not at all."""
        if number not in self.decisions:
            return
        person, at, offers, stages = self.decisions[number]
        if rank > len(offers):
            return
        [record] = await self.store.entries([(self.home(person), at)])
        if record is None or (person == GONE and self.gone_before(at)):
            return
        late = DecisionRecord.unpack(record).slate[rank - 1].window_end_ms <= self.now_ms
        now_at = stages[rank - 1]
        if late and now_at in (Stage.SERVED, Stage.PRESENTED, Stage.IGNORED):
            now_at = Stage.EXPIRED
        if not may_follow(now_at, stage) and not corrects:
            return
        stages[rank - 1] = stage
        key = self.catalogue.offer_keys[offers[rank - 1]]
        name = name or f"{number}-{rank}-{stage}-{self.now_ms}"
        digests = hash_of(name), hash_of(corrects)
        entry = OutcomeRecord(at, key, rank, stage, self.now_ms, value, digests[0], name, b"", digests[1]).pack()
        [(_, ledger)] = await self.store.read([person])
        done = await self.store.commit_outcome(person, (ledger or b"")[:CAS_BYTES], ledger or b"", entry)
        assert isinstance(done, Offset)

    def home(self, person: str) -> int:
        return partition_of(person, PARTITIONS)

    def gone_before(self, at: Offset) -> bool:
        return at <= self.erased_at

    async def forget(self, person: str) -> Receipt:
        async def note() -> None:
            pass

        receipt = Receipt(self.now_ms, names=[person])
        erasing = Erasing(self.store, self.store, lambda *_: False)
        await erasing._forget_decisions(receipt, self.now_ms, note)
        if receipt.entries:
            known = (await self.store.forgets())[self.home(person)]
            self.erased_at = max([self.erased_at, *known.pending, *known.finished])
        return receipt

    async def statistics(self) -> bytes:
        await self.learn()
        return (await self.learning.learner()).statistics.to_bytes()


TAUGHT: list[Step] = [("decide", 0, GONE, 0, [0, 1], 1), ("report", 0, 1, Stage.ACCEPTED, 5), ("learn",)]
LATE: list[Step] = [("decide", 1, GONE, 3 * DAY_MS, [1], 2), ("report", 0, 2, Stage.ACCEPTED, 5), ("learn",)]


@st.composite
def lives(draw: st.DrawFn) -> list[Step]:
    steps: list[Step] = []
    made: list[int] = []
    stages = [Stage.ACCEPTED, Stage.DECLINED, *sorted(REPORTABLE)]
    for number in range(draw(st.integers(6, 30))):
        around = ["forget", "learn", "learn", "save", "crash", "fail", "keep"]
        kind = draw(st.sampled_from(["decide"] * 4 + ["report"] * 5 + around))
        wait_ms = draw(st.integers(0, DAY_MS))
        if kind == "decide":
            offers = draw(st.lists(st.integers(0, 2), unique=True, max_size=3))
            made.append(number)
            person = draw(st.sampled_from((GONE, *PEOPLE)))
            steps.append((kind, number, person, wait_ms, offers, draw(st.integers(0, 2**32))))
        elif kind == "report" and made:
            of = draw(st.sampled_from(made))
            steps.append((kind, of, draw(st.integers(1, 3)), draw(st.sampled_from(stages)), wait_ms))
        elif kind == "fail":
            method = draw(st.sampled_from(["save_checkpoint", "finish_forget", "publish_policy"]))
            steps.append((kind, method, draw(st.booleans())))
        elif kind != "report":
            steps.append((kind,))
    return steps


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(lives(), st.booleans())
@example([*TAUGHT, ("keep",)], True)
@example([*TAUGHT, ("keep",), ("fail", "save_checkpoint", False)], False)
@example([*TAUGHT, ("keep",), ("fail", "finish_forget", False)], False)
@example([*TAUGHT, ("forget",), *LATE], False)
def test_the_bytes_are_those_of_a_learner_that_never_saw_them(steps: list[Step], older_checkpoint: bool) -> None:
    async def run() -> None:
        here, there = World(), World()
        for step in steps:
            await here.take(step)
            await there.take(step, without=GONE)
        for world in (here, there):
            world.now_ms += 3 * DAY_MS
        await here.forget(GONE)
        for world in (here, there):
            await world.decide(-1, "zed", [], 0)  # time passes everywhere
        if older_checkpoint and here.older:
            await here.learn()
            here.store._checkpoint, here.store.fails = dict(here.older), ""
            here.learning = here.new_life()
        elif older_checkpoint:
            await here.learn()
            here.store._checkpoint = {}
            here.learning = here.new_life()
        wanted = await there.statistics()
        assert await here.statistics() == wanted
        here.store.fails = ""
        await here.learning.save()
        here.learning = here.new_life()
        assert await here.statistics() == wanted, "the checkpoint says the same"
        forgets = await here.store.forgets()
        assert all(not known.pending for known in forgets.values())
        logs = await here.store.read_decisions(dict.fromkeys(range(PARTITIONS), Offset.ZERO), 1_000, 0)
        assert not any(GONE.encode() in entry.data for log in logs.values() for entry in log)

    asyncio.run(run())


async def test_what_was_let_go_long_ago_is_taken_back_by_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Attribution.absorb, "__defaults__", (2,))
    here, there = World(), World()
    for world, without in ((here, ""), (there, GONE)):
        await world.take(("decide", 0, GONE, 0, [0, 1], 1), without)
        await world.take(("report", 0, 1, Stage.ACCEPTED, 5), without)
        await world.take(("decide", 1, "bob", 0, [1], 2))
        await world.take(("decide", 2, "carl", 0, [2], 3))
        await world.take(("report", 0, 2, Stage.DECLINED, 5), without)  # not followed any more: it taught nothing
        await world.learn()
    assert await here.statistics() != await there.statistics()
    assert (await here.forget(GONE)).removed == (1, 2, 0)
    assert await here.statistics() == await there.statistics()
    here.learning = here.new_life()
    assert await here.statistics() == await there.statistics()


async def test_decisions_that_left_the_log_are_counted_as_out_of_reach() -> None:
    world = World()
    world.store = Interrupted(PARTITIONS, lambda: world.now_ms, decision_log_entries_max=3)
    world.learning = world.new_life()
    await world.take(("decide", 0, GONE, 0, [0], 1))
    await world.take(("report", 0, 1, Stage.ACCEPTED, 5))
    await world.learn()
    others = [name for name in map(str, range(100)) if world.home(name) == world.home(GONE)]
    for number, name in enumerate(others[:3]):
        await world.take(("decide", number + 1, name, 0, [0], 1))
    assert (await world.forget(GONE)).removed == (0, 0, 1)
    await world.learn()
    learner = await world.learning.learner()
    assert learner.lost == 1
    assert learner.statistics.offers == (CATALOGUE.offer_ids[0],), "it says so, and does not pretend"


async def test_the_sums_of_an_offer_that_is_no_longer_offered_lose_the_lesson_too() -> None:
    world = World()
    await world.take(("decide", 0, GONE, 0, [1], 1))
    await world.take(("report", 0, 1, Stage.ACCEPTED, 5))
    await world.learn()
    await world.learning.save()
    fewer = catalogue_of(CONFIG.replace(b"id: loan", b"id: credit"))
    assert fewer.transform.version == CATALOGUE.transform.version
    world.learning = Learning(fewer, world.store, now_s=lambda: 0.0)
    assert (await world.learning.learner()).statistics.offers == ("loan",)
    await world.forget(GONE)
    await world.learn()
    assert (await world.learning.learner()).statistics.offers == ()
