"""What every store promises of forgetting, checked on each of them."""

from collections.abc import Awaitable, Callable

from engine import limits
from engine.store import LINKS, PARTS, Beside, Conflict, DecisionCommit, FeatureWrite, Forgets, Store, partition_of
from engine.store.base import TIMELINE
from features import Offset

MakeStore = Callable[..., Awaitable[Store]]


def home_of(store: Store, customer: str = "anna") -> int:
    return partition_of(customer, store.partitions)


async def decided(store: Store, customer: str = "anna", expected: bytes = b"", head: bytes = b"head") -> Offset:
    [at] = await store.commit_decisions([DecisionCommit(customer, expected, head, b"tail", b"record")])
    assert isinstance(at, Offset)
    return at


async def log_of(store: Store, partition: int) -> list[bytes]:
    found = await store.read_decisions({partition: Offset.ZERO}, 100, 0)
    return [entry.data for entry in found.get(partition, [])]


async def test_the_entry_and_the_end_of_the_ledger_are_one_step(store: Store) -> None:
    home = home_of(store)
    await decided(store)
    assert isinstance(await store.commit_forget("anna", b"", b"forget"), Conflict), "there is a ledger"
    assert isinstance(await store.commit_forget("anna", b"other", b"forget"), Conflict)
    assert (await store.forgets())[home] == Forgets()
    at = await store.commit_forget("anna", b"head", b"forget")
    assert isinstance(at, Offset)
    assert await store.read(["anna"]) == [(None, None)]
    assert await log_of(store, home) == [b"record", b"forget"]
    assert (await store.forgets())[home] == Forgets(pending=(at,))
    assert sorted(await store.forgets()) == list(range(store.partitions))
    assert isinstance(await store.commit_forget("anna", b"head", b"forget"), Conflict), "not a second time"
    assert isinstance(await store.commit_forget("anna", b"", b"again"), Offset), "without a ledger, too"


async def test_what_is_finished_is_gone_from_the_log_and_remembered_as_done(store: Store) -> None:
    home = home_of(store)
    first = await decided(store)
    second = await decided(store, "anna", b"head")
    entries = []
    for expected in (b"head", b"", b""):
        at = await store.commit_forget("anna", expected, b"forget")
        assert isinstance(at, Offset)
        entries.append(at)
    await store.finish_forget(home, entries[1], [first, second], 7)
    assert await log_of(store, home) == [b"forget"] * 3
    await store.finish_forget(home, entries[0], [first, second], 2)  # removed already: nothing happens
    assert (await store.forgets())[home] == Forgets(entries[1], (entries[2],), {entries[0]: 2, entries[1]: 7})
    assert await decided(store) > entries[2], "positions are not given twice"


async def test_so_many_finished_entries_are_remembered(store: Store) -> None:
    home, many = home_of(store), limits.FORGETS_KEPT_ENTRIES_MAX + 2
    for number in range(1, many + 1):
        await store.finish_forget(home, Offset(5, number), [], number)
    [*finished] = (await store.forgets())[home].finished.values()
    assert len(finished) in (many - 2, many - 1)
    assert max(finished) == many


async def test_receipts_are_kept_by_partition_and_request(store: Store) -> None:
    assert await store.load_receipt(1, "r") is None
    await store.save_receipt(1, "r", b"one")
    await store.save_receipt(1, "r", b"two")
    assert await store.load_receipt(1, "r") == b"two"
    assert await store.load_receipt(2, "r") is None


async def test_events_are_deleted_and_the_backlog_stays_what_it_is(store: Store) -> None:
    home = home_of(store)
    positions = await store.append_events([("anna", b"%d" % number) for number in range(5)])
    assert await store.write_features(home, [], positions[2], 3) == []
    assert (await store.backlog())[home] == 2
    assert await store.delete_events(home, [positions[0], positions[2]]) == 2
    assert await store.delete_events(home, [positions[0]]) == 0
    assert await store.delete_events(home, []) == 0
    assert (await store.backlog())[home] == 2
    found = (await store.read_events({home: Offset.ZERO}, 10, 0))[home]
    assert [entry.data for entry in found] == [b"1", b"3", b"4"]
    await store.write_features(home, [], positions[4], 2)
    assert (await store.backlog())[home] == 0


async def test_dead_letters_are_dropped_by_what_they_say(store: Store) -> None:
    await store.dead_letters([(b"p%d" % number, f"r{number % 2}") for number in range(2_500)])
    assert await store.drop_dead_letters(lambda payload, reason: payload == b"p7" or reason == "r0") == 1_251
    assert await store.drop_dead_letters(lambda payload, _: payload == b"p7") == 0
    assert await store.drop_dead_letters(lambda *_: True) == 1_249


async def test_an_empty_value_beside_the_features_removes_what_was_there(store: Store) -> None:
    kinds = (PARTS, LINKS, TIMELINE)
    first = FeatureWrite("anna", b"", b"features", beside=tuple(Beside(kind, b"old" + kind.encode()) for kind in kinds))
    assert await store.write_features(home_of(store), [first], Offset(1, 1), 0) == [True]
    gone = FeatureWrite("anna", b"features", b"", beside=tuple(Beside(kind, b"", b"old") for kind in kinds))
    assert await store.write_records([gone]) == [True]
    assert await store.read(["anna"]) == [(None, None)]
    assert [await store.read_beside(kind, ["anna"]) for kind in kinds] == [[None]] * 3
