"""The accounting of budgets by itself: whatever happens, in whatever order, nothing is taken twice, nothing is lost."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.budgetkeeper import BudgetKeeper
from engine.budgets import Budgets, Claim, Stock, bucket_of, free_units
from engine.config import parse
from engine.course import Told, tag_of
from engine.lifecycle import Stage
from engine.store import DecisionCommit, MemoryStore, StoreUnavailable
from engine.store.budgetboard import Fenced, Leases, Move, PartUse, Take
from features import Offset
from tests.small_engine import catalogue_of

CONFIG = b"""
opportune: 1
name: shop
timezone: Europe/Prague
channels: [{id: web}]
budgets:
  - {id: stock, offers: [tv, radio], units: 12, takes: {tv: 3}, reserved: 100s}
offers:
  - {id: tv, value: 90, treatments: [{text: tv}]}
  - {id: radio, value: 50, treatments: [{text: radio}]}
  - {id: hello, value: 1, treatments: [{text: hello}]}
"""
ACCOUNT = "stock@always"
CATALOGUE = catalogue_of(CONFIG)
START_MS = 1_750_000_000_000


# --- one server's stock ----------------------------------------------------------------------------------------------


def test_a_stock_hands_out_what_it_has_and_no_more() -> None:
    stock = Stock()
    stock.add("a", 1, 3, 0)
    stock.add("a", 2, 4, 0)
    first = stock.take([Claim("a", 5, 9)], 0)
    assert first == (Take("a", 1, 3, 9), Take("a", 2, 2, 9))
    assert stock.take([Claim("a", 3, 9)], 0) is None
    assert list(stock.wanted) == ["a"]
    stock.settle(first, done=False)
    assert stock.left("a") == 7
    assert stock.take([Claim("a", 3, 9), Claim("b", 1, 9)], 0) is None, "all claims or none"
    assert stock.left("a") == 7


def test_a_lease_that_is_refused_goes_with_all_that_is_left_of_it() -> None:
    stock = Stock()
    stock.add("a", 1, 3, 0)
    stock.add("a", 2, 4, 0)
    takes = stock.take([Claim("a", 2, 9)], 0)
    assert takes is not None
    stock.settle(takes, done=False)
    stock.drop(1)
    assert stock.left("a") == 4
    stock.drop(1)
    assert stock.left("a") == 4


def test_a_lease_is_ended_only_when_no_commit_is_under_way() -> None:
    stock = Stock()
    stock.add("a", 1, 3, 0)
    takes = stock.take([Claim("a", 1, 9)], 0)
    assert takes is not None
    stock.close("a")
    assert stock.take([Claim("a", 1, 9)], 0) is None
    assert stock.closed() == []
    stock.settle(takes, done=False)
    assert stock.closed() == [("a", 1)]
    assert stock.left("a") == 0, "it is closing"


def test_what_is_free() -> None:
    parts = [PartUse(2, 1, {7: 3}), PartUse(0, 4, {7: 1})]
    assert free_units(20, Leases(1, {7: (10, "one")}), parts) == 20 - 7 - 6
    assert free_units(5, Leases(0, {}), parts) == -2


# --- periods and reservations ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("per", "time", "label", "hours"),
    [
        ("day", 1_774_738_800_000, "2026-03-29", 23),  # the clocks go forward
        ("day", 1_792_879_200_000, "2026-10-25", 25),
        ("week", 1_767_200_000_000, "2026-W01", 7 * 24),
        ("month", 1_767_222_000_000, "2026-01", 31 * 24),  # 2025-12-31 23:00 UTC
        ("null", 1_767_222_000_000, "always", None),
    ],
)
def test_periods_are_those_of_the_time_zone(per: str, time: int, label: str, hours: int | None) -> None:
    text = CONFIG.replace(b"units: 12,", b"units: 12, per: " + per.encode() + b",")
    period = Budgets(parse(text)).period(0, time)
    assert period.account == f"stock@{label}"
    assert period.start_ms <= time < period.end_ms
    if hours is not None:
        assert period.end_ms - period.start_ms == hours * 3_600_000


@given(st.integers(0, 10**13), st.integers(1_000, 10**10))
def test_a_reservation_lasts_as_long_as_it_should_and_a_little_more(time_ms: int, lasts_ms: int) -> None:
    over_ms = bucket_of(time_ms, lasts_ms) - time_ms - lasts_ms
    assert 0 < over_ms <= max(1_000, lasts_ms // 64 + 1)


STAGES = [s for s in Stage if s not in (Stage.SERVED, Stage.EXPIRED)]


@given(st.lists(st.sampled_from(STAGES), max_size=6), st.sampled_from(["accepted", "presented"]))
def test_moves_of_a_course_chain_up(path: list[Stage], consumed: str) -> None:
    """What one outcome leaves is what the next one begins with."""
    budgets = Budgets(parse(CONFIG.replace(b"reserved:", b"consumed: " + consumed.encode() + b", reserved:")))
    told: list[Told] = []
    standing = "r"
    for number, stage in enumerate(path):
        after = [*told, Told(tag_of(16 * (number + 1), stage))]
        for move in budgets.moves_of(0, START_MS, told, after):
            assert (move.old, move.units) == (standing, 3)
            standing = move.new
        told = after
    assert budgets.moves_of(0, START_MS, told, told) == ()
    assert budgets.moves_of(2, START_MS, [], [Told(tag_of(16, Stage.ACCEPTED))]) == (), "it takes nothing"


def test_of_an_instance_that_nobody_remembers_only_its_use_counts() -> None:
    budgets = CATALOGUE.budgets
    for stage, new in ((Stage.ACCEPTED, ["c"]), (Stage.DECLINED, []), (Stage.FULFILLED, []), (Stage.CANCELLED, [])):
        assert [move.new for move in budgets.moves_of(1, START_MS, None, [Told(tag_of(16, stage))])] == new


# --- everybody together ----------------------------------------------------------------------------------------------


@dataclass
class Instance:
    """An offer that was made."""

    customer: str
    units: int
    end_ms: int
    standing: str = "r"


class ShakyBoard:
    """The store as the keepers see it: others come between any two calls, and some calls fail, done or not."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.failing = 0
        """The call that fails, counted from now; 0: none. Negative: it fails after it took place."""

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def call(*arguments: Any) -> Any:
            await asyncio.sleep(0)
            self.failing -= (self.failing > 0) - (self.failing < 0)
            if self.failing == 0 and self._armed > 0:
                self._armed = 0
                raise StoreUnavailable("not done")
            result = await method(*arguments)
            if self.failing == 0 and self._armed < 0:
                self._armed = 0
                raise StoreUnavailable("done")
            await asyncio.sleep(0)
            return result

        return call

    _armed = 0

    def arm(self, calls: int, *, done: bool) -> None:
        """Have one of the next calls fail."""
        self._armed = -1 if done else 1
        self.failing = self._armed * calls


@dataclass
class World:
    """Some servers on one store; time moves when told."""

    now_ms: int = START_MS
    names: int = 0
    made: list[Instance] = field(default_factory=list)
    hanging: list[tuple[DecisionCommit, int]] = field(default_factory=list)
    """Commits that a dead server had sent: they arrive later."""

    def __post_init__(self) -> None:
        self.store = MemoryStore(3, lambda: self.now_ms)
        self.board = ShakyBoard(self.store)
        self.keepers = [self.keeper() for _ in range(3)]

    def keeper(self) -> BudgetKeeper:
        self.names += 1
        return BudgetKeeper(lambda: CATALOGUE, self.board, f"server-{self.names}", lambda: self.now_ms)

    def commit(self, keeper: BudgetKeeper, units: int) -> DecisionCommit | None:
        self.names += 1
        takes = keeper.stock.take([Claim(ACCOUNT, units, bucket_of(self.now_ms, 100_000))], self.now_ms)
        return None if takes is None else DecisionCommit(f"c{self.names}", b"", b"head", b"", b"record", takes)

    async def arrive(self, commit: DecisionCommit) -> Offset | Fenced | object:
        await asyncio.sleep(0)
        [reply] = await self.store.commit_decisions([commit])
        if isinstance(reply, Offset):
            units = sum(take.units for take in commit.takes)
            self.made.append(Instance(commit.customer, units, commit.takes[0].end_ms))
        return reply

    async def step(self, what: str, which: int, units: int) -> None:
        keeper = self.keepers[which % len(self.keepers)]
        if what == "look":
            with suppress(StoreUnavailable):
                await keeper.step()
        elif what == "together":
            looks = [one.step() for one in self.keepers]
            takes = [self.step("take", at, units) for at in range(3)]
            told = await asyncio.gather(*looks, *takes, return_exceptions=True)
            assert all(error is None or isinstance(error, StoreUnavailable) for error in told), told
        elif what == "shake":
            self.board.arm(which + units, done=units == 1)
        elif what == "time":
            self.now_ms += 400 * units
        elif what == "long":
            self.now_ms += 6_000
        elif what == "expire":
            self.now_ms += 110_000
        elif what == "take" and (commit := self.commit(keeper, units)) is not None:
            reply = await self.arrive(commit)
            keeper.stock.settle(commit.takes, done=isinstance(reply, Offset))
            if isinstance(reply, Fenced):
                keeper.stock.drop(reply.lease)
        elif what == "die":
            if (commit := self.commit(keeper, units)) is not None:
                self.hanging.append((commit, which))
            self.keepers[which % len(self.keepers)] = self.keeper()
        elif what == "late" and self.hanging:
            await self.arrive(self.hanging.pop(which % len(self.hanging))[0])
        elif what == "drain":
            with suppress(StoreUnavailable):
                await keeper.drain()
            self.keepers[which % len(self.keepers)] = self.keeper()
        elif what in ("yes", "no") and self.made:
            instance = self.made[which % len(self.made)]
            new = "c" if what == "yes" else ""
            expired = instance.standing == "r" and instance.end_ms <= self.now_ms
            if instance.standing != new and not (new == "c" and (expired or instance.standing == "")):
                move = Move(ACCOUNT, instance.standing, new, instance.units, instance.end_ms)  # type: ignore[arg-type]
                assert await self.store.settle_outcome(instance.customer, b"head", b"head", b"yes", [move])
                instance.standing = new

    @property
    def used(self) -> int:
        """Counted from what was made, by who knows nothing of leases."""
        return sum(
            made.units
            for made in self.made
            if made.standing == "c" or (made.standing == "r" and made.end_ms > self.now_ms)
        )


WHAT = ["time", "time", "long", "expire", "die", "late", "drain", "yes", "no", "shake", "shake"]
STEPS = st.tuples(
    st.sampled_from(["look"] * 4 + ["take"] * 5 + ["together"] * 3 + WHAT),
    st.integers(0, 5),
    st.sampled_from([1, 1, 3]),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(STEPS, max_size=60))
def test_whatever_happens_no_more_is_used_than_there_is_and_the_rest_comes_back(
    steps: list[tuple[str, int, int]],
) -> None:
    async def run() -> None:
        world = World()
        for step in steps:
            await world.step(*step)
            assert world.used <= 12
        # Everybody dies. Then one server comes, and all that is not used is there for it.
        world.board.arm(0, done=True)
        world.board._armed = 0
        world.keepers = [world.keeper()]
        world.now_ms += 10_000
        for _ in range(40):
            world.now_ms += 1_100
            await world.keepers[0].step()
            await world.step("take", 0, 1)
        for commit, _ in world.hanging:
            assert not isinstance(await world.arrive(commit), Offset), "a lease that ended is not valid any more"
        assert world.used == 12

    asyncio.run(run())


async def test_a_lease_whose_grant_was_not_answered_is_taken_back() -> None:
    world = World()
    granted = MemoryStore.grant

    async def unanswered(*arguments: Any) -> bool:
        assert await granted(world.store, *arguments)
        raise StoreUnavailable("the answer got lost")

    world.store.grant = unanswered  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        await world.keepers[0].step()
    assert len((await world.store.leases(ACCOUNT)).by_id) == 1
    del world.store.grant  # type: ignore[method-assign]
    for _ in range(20):
        world.now_ms += 300
        await world.keepers[0].step()
        await world.step("take", 0, 3)
    assert world.used == 12
