"""What every store promises of budgets, checked on each of them."""

from engine.links import moved
from engine.store import Conflict, DecisionCommit, FeatureWrite, Store, partition_of
from engine.store.budgetboard import Fenced, Leases, Move, PartUse, Take
from features import Offset

ACCOUNT = "sms@2026-11-22"


def taking(customer: str, *takes: Take, expected: bytes = b"") -> DecisionCommit:
    return DecisionCommit(customer, expected, b"head", b"tail", b"record", takes)


async def granted(store: Store, units: int = 10, account: str = ACCOUNT, server: str = "one") -> int:
    lease = await store.new_lease()
    await store.enrol(account, lease)
    assert await store.grant(account, (await store.leases(account)).version, lease, units, server)
    return lease


async def total(store: Store, now_ms: int = 0, account: str = ACCOUNT) -> tuple[int, int, dict[int, int]]:
    """(confirmed, reserved, taken by lease) over all partitions."""
    taken: dict[int, int] = {}
    parts = await store.use(account, now_ms)
    assert len(parts) == store.partitions
    for part in parts:
        for lease, units in part.taken.items():
            taken[lease] = taken.get(lease, 0) + units
    return sum(part.confirmed for part in parts), sum(part.reserved for part in parts), taken


async def test_an_account_that_nobody_used_has_nothing(store: Store) -> None:
    assert await store.use(ACCOUNT, 0) == [PartUse(0, 0, {})] * store.partitions
    assert await store.leases(ACCOUNT) == Leases(0, {})


async def test_a_lease_is_granted_only_if_none_was_since(store: Store) -> None:
    first, second = await store.new_lease(), await store.new_lease()
    assert first != second
    for lease in (first, second):
        await store.enrol(ACCOUNT, lease)
    assert await store.grant(ACCOUNT, 0, first, 7, "one")
    assert not await store.grant(ACCOUNT, 0, second, 7, "two")
    assert await store.leases(ACCOUNT) == Leases(1, {first: (7, "one")})
    assert await store.grant(ACCOUNT, 1, second, 3, "two")
    await store.end_lease(ACCOUNT, first)
    await store.end_lease(ACCOUNT, first)
    assert await store.leases(ACCOUNT) == Leases(2, {second: (3, "two")})


async def test_who_belongs_to_somebody_by_now_takes_nothing_if_that_is_asked(store: Store) -> None:
    lease = await granted(store)
    take = Take(ACCOUNT, lease, 2, 5_000)
    home = partition_of("cookie", store.partitions)
    await store.write_features(home, [FeatureWrite("cookie", b"", moved("ann", Offset(1, 2)))], Offset.ZERO, 0)
    results = await store.commit_decisions([taking(name, take)._replace(unmoved=True) for name in ("cookie", "ann")])
    assert [type(result) for result in results] == [Conflict, Offset]
    assert await total(store) == (0, 2, {lease: 2})


async def test_a_decision_takes_its_units_with_ledger_and_log_or_nothing(store: Store) -> None:
    one, other = await granted(store), await granted(store, account="desk@always")
    takes = (Take(ACCOUNT, one, 2, 5_000), Take("desk@always", other, 1, 0))
    [done] = await store.commit_decisions([taking("anna", *takes)])
    assert isinstance(done, Offset)
    assert await total(store) == (0, 2, {one: 2})
    assert await total(store, account="desk@always") == (1, 0, {other: 1})
    [again] = await store.commit_decisions([taking("anna", *takes)])
    assert isinstance(again, Conflict), "the ledger is another: nothing is taken"
    await store.end_lease("desk@always", other)
    before = await store.read(["bob"])
    [refused, fine] = await store.commit_decisions([taking("bob", *takes), taking("carl", takes[0])])
    assert refused == Fenced(other)
    assert isinstance(fine, Offset)
    assert await store.read(["bob"]) == before
    assert await total(store) == (0, 4, {one: 4})
    found = await store.read_decisions(dict.fromkeys(range(store.partitions), Offset.ZERO), 10, 0)
    assert sum(map(len, found.values())) == 2


async def test_units_of_one_account_may_come_from_two_leases(store: Store) -> None:
    one, two = await granted(store, 1), await granted(store, 5)
    takes = (Take(ACCOUNT, one, 1, 5_000), Take(ACCOUNT, two, 2, 5_000))
    await store.commit_decisions([taking("anna", *takes)])
    assert await total(store) == (0, 3, {one: 1, two: 2})


async def test_reservations_end_in_time_and_what_ended_does_not_come_back(store: Store) -> None:
    lease = await granted(store)
    await store.commit_decisions([taking("anna", Take(ACCOUNT, lease, 2, 5_000))])
    home = [name for name in (f"c{n}" for n in range(99)) if same(store, name, "anna")][:2]
    await store.commit_decisions([taking(home[0], Take(ACCOUNT, lease, 3, 9_000))])
    assert await total(store, 4_999) == (0, 5, {lease: 5})
    assert await total(store, 5_000) == (0, 3, {lease: 5})
    await store.commit_decisions([taking(home[1], Take(ACCOUNT, lease, 1, 4_000))])
    assert await total(store, 0) == (0, 3, {lease: 6}), "it had ended before it was made"


def same(store: Store, one: str, other: str) -> bool:
    return partition_of(one, store.partitions) == partition_of(other, store.partitions)


async def test_outcomes_move_units_with_ledger_and_log_or_nothing(store: Store) -> None:
    lease = await granted(store)
    await store.commit_decisions([taking("anna", Take(ACCOUNT, lease, 2, 5_000))])

    async def moved(old: str, new: str, expected: bytes = b"head") -> int | None:
        move = Move(ACCOUNT, old, new, 2, 5_000)  # type: ignore[arg-type]
        settled = await store.settle_outcome("anna", expected, b"head", b"outcome", [move])
        return None if settled is None else settled.late_units

    assert await moved("r", "c", b"old") is None
    assert await total(store) == (0, 2, {lease: 2})
    assert await moved("r", "c") == 0
    assert await total(store) == (2, 0, {lease: 2})
    assert await moved("c", "r") == 0
    assert await total(store) == (0, 2, {lease: 2})
    assert await moved("r", "") == 0
    assert await total(store) == (0, 0, {lease: 2})
    assert await moved("", "c") == 2, "it had let go of them"
    assert await moved("c", "") == 0
    assert await total(store) == (0, 0, {lease: 2})
    [(_, ledger)] = await store.read(["anna"])
    assert ledger == b"head"


async def test_what_is_accepted_after_its_reservation_was_let_go_is_late(store: Store) -> None:
    lease = await granted(store)
    await store.commit_decisions([taking("anna", Take(ACCOUNT, lease, 2, 5_000))])
    assert (await total(store, 6_000))[:2] == (0, 0)
    settled = await store.settle_outcome("anna", b"head", b"head", b"yes", [Move(ACCOUNT, "r", "c", 2, 5_000)])
    assert settled is not None
    assert settled.late_units == 2
    assert (await total(store, 6_000))[:2] == (2, 0)
    await store.settle_outcome("anna", b"head", b"head", b"no", [Move(ACCOUNT, "c", "", 2, 5_000)])
    assert (await total(store, 6_000))[:2] == (0, 0)


async def test_notes_of_servers(store: Store) -> None:
    await store.note_budgets({"server/a": b"5", "server/b": b"6"})
    await store.note_budgets({"server/a": b"7"}, ["server/b", "server/none"])
    await store.note_budgets({}, [])
    assert {name: value for name, value in (await store.budget_notes()).items() if "/" in name} == {"server/a": b"7"}


async def test_large_numbers_stay_exact(store: Store) -> None:
    units = 1_000_000_000_000
    lease = await granted(store, units)
    await store.commit_decisions([taking("anna", Take(ACCOUNT, lease, units - 1, 1_893_456_000_000))])
    move = Move(ACCOUNT, "r", "c", units - 1, 1_893_456_000_000)
    assert await store.settle_outcome("anna", b"head", b"head", b"yes", [move]) is not None
    assert await total(store, 1_893_456_000_001) == (units - 1, 0, {lease: units - 1})
