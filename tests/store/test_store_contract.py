"""What every store promises, checked on each of them."""

import asyncio
import struct
import time
from collections.abc import Awaitable, Callable

import pytest

from engine import limits
from engine.links import moved
from engine.store import (
    LINKS,
    PARTS,
    Beside,
    Conflict,
    DecisionCommit,
    FeatureWrite,
    LeadWrite,
    LogEntry,
    Mark,
    Store,
    StoreFull,
    partition_of,
)
from features import Offset

MakeStore = Callable[..., Awaitable[Store]]
WAIT_MS = 5_000
"""Long enough for a machine under load; what is waited for comes at once."""


def commit(customer: str, expected: bytes = b"", head: bytes = b"head", record: bytes = b"record") -> DecisionCommit:
    return DecisionCommit(customer, expected, head, b"tail", record)


def packed(offset: Offset) -> bytes:
    return struct.pack("<QI", offset.ms, offset.seq)


def same_partition(store: Store, count: int) -> tuple[int, list[str]]:
    """A partition and some customers who live in it."""
    home = partition_of("anna", store.partitions)
    names = (f"c{number}" for number in range(10_000))
    return home, [name for name in names if partition_of(name, store.partitions) == home][:count]


async def start(store: Store) -> dict[int, Offset]:
    return dict.fromkeys(range(store.partitions), Offset.ZERO)


# --- state -----------------------------------------------------------------------------------------------------------


async def test_unknown_customers_have_neither_features_nor_ledger(store: Store) -> None:
    assert await store.read(["anna", "bob"]) == [(None, None), (None, None)]
    assert await store.read([]) == []
    assert await store.commit_decisions([]) == []


async def test_a_read_after_a_commit_sees_the_ledger_with_the_position_of_its_log_entry(store: Store) -> None:
    [offset] = await store.commit_decisions([commit("anna", record=b"\x00\xffdecision")])
    assert isinstance(offset, Offset)
    assert await store.read(["bob", "anna"]) == [(None, None), (None, b"head" + packed(offset) + b"tail")]
    home = partition_of("anna", store.partitions)
    assert await store.entries([(home, offset)]) == [b"\x00\xffdecision"]


async def test_a_commit_from_another_ledger_than_the_stored_one_is_a_conflict_and_writes_nothing(store: Store) -> None:
    await store.commit_decisions([commit("anna", head=b"rev1")])
    before = await store.read(["anna"])
    for expected in (b"", b"rev0", b"rev1" * 100):
        [result] = await store.commit_decisions([commit("anna", expected, head=b"rev2")])
        assert isinstance(result, Conflict)
    [result] = await store.commit_decisions([commit("bob", b"rev1")])
    assert isinstance(result, Conflict), "there is no ledger to compare with"
    assert await store.read(["anna", "bob"]) == [*before, (None, None)]
    found = await store.read_decisions(await start(store), 10, 0)
    assert [len(entries) for entries in found.values()] == [1]


async def test_only_the_expected_bytes_are_compared(store: Store) -> None:
    await store.commit_decisions([commit("anna", head=b"rev1 and more")])
    [result] = await store.commit_decisions([commit("anna", b"rev1", head=b"rev2")])
    assert isinstance(result, Offset)


async def test_a_commit_for_who_belongs_to_somebody_by_now_is_a_conflict_if_that_is_asked(store: Store) -> None:
    for customer, features in (("c1", None), ("c2", b"O and so on"), ("c3", moved("ann", Offset(1, 2)))):
        if features is not None:
            home = partition_of(customer, store.partitions)
            await store.write_features(home, [FeatureWrite(customer, b"", features)], Offset.ZERO, 0)
        [result] = await store.commit_decisions([commit(customer)._replace(unmoved=True)])
        assert isinstance(result, Conflict if customer == "c3" else Offset)
    assert (await store.read(["c3"]))[0] == (features, None)
    assert isinstance((await store.commit_decisions([commit("c3")]))[0], Offset)


async def test_of_two_concurrent_commits_exactly_one_wins(store: Store) -> None:
    for round_number in range(20):
        expected = b"" if round_number == 0 else b"rev%04d" % (round_number - 1)
        rivals = [commit("anna", expected, head=b"rev%04d by %d" % (round_number, rival)) for rival in range(2)]
        results = await asyncio.gather(*(store.commit_decisions([rival]) for rival in rivals))
        winners = [number for number, [result] in enumerate(results) if isinstance(result, Offset)]
        assert len(winners) == 1
        [(_, ledger)] = await store.read(["anna"])
        assert ledger is not None
        assert ledger.startswith(rivals[winners[0]].ledger_head)


async def test_a_batch_reports_each_customer_apart(store: Store) -> None:
    await store.commit_decisions([commit("anna", head=b"rev1")])
    results = await store.commit_decisions([commit("anna", b"old"), commit("bob"), commit("carl"), commit("bob")])
    assert [type(result) for result in results] == [Conflict, Offset, Offset, Conflict]


async def test_an_outcome_replaces_the_ledger_and_is_logged_after_the_decision(store: Store) -> None:
    [decided] = await store.commit_decisions([commit("anna", head=b"rev1", record=b"decision")])
    reported = await store.commit_outcome("anna", b"rev1", b"rev2", b"outcome")
    assert isinstance(decided, Offset)
    assert isinstance(reported, Offset)
    assert reported > decided
    assert await store.read(["anna"]) == [(None, b"rev2")]
    assert isinstance(await store.commit_outcome("anna", b"rev1", b"rev3", b"outcome"), Conflict)
    home = partition_of("anna", store.partitions)
    assert await store.read_decisions({home: Offset.ZERO}, 10, 0) == {
        home: [LogEntry(decided, b"decision"), LogEntry(reported, b"outcome")]
    }


# --- logs ------------------------------------------------------------------------------------------------------------


async def test_entries_that_are_not_there_are_none(store: Store) -> None:
    [offset] = await store.commit_decisions([commit("anna", record=b"decision")])
    assert isinstance(offset, Offset)
    home = partition_of("anna", store.partitions)
    positions = [(home, Offset(1, 1)), (home, offset), ((home + 1) % store.partitions, offset)]
    assert await store.entries(positions) == [None, b"decision", None]
    assert await store.entries([]) == []


async def test_logs_are_read_in_order_and_in_pieces(store: Store) -> None:
    home, customers = same_partition(store, 3)
    events = [(customers[number % 3], b"event %d" % number) for number in range(25)]
    offsets = await store.append_events(events)
    assert offsets == sorted(set(offsets))
    at, got = Offset.ZERO, []
    while found := await store.read_events({home: at}, 10, 0):
        assert len(found[home]) <= 10
        got += found[home]
        at = got[-1].offset
    assert [entry.offset for entry in got] == offsets
    assert [entry.data for entry in got] == [data for _, data in events]


async def test_an_event_goes_to_the_partition_of_its_customer(store: Store) -> None:
    customers = [f"customer {number}" for number in range(20)]
    assert await store.append_events([]) == []
    offsets = await store.append_events([(customer, customer.encode()) for customer in customers])
    found = await store.read_events(await start(store), 100, 0)
    for customer, offset in zip(customers, offsets, strict=True):
        assert LogEntry(offset, customer.encode()) in found[partition_of(customer, store.partitions)]
    assert sum(map(len, found.values())) == len(customers)


async def test_a_read_without_news_returns_nothing_after_its_block(store: Store) -> None:
    after = await start(store)
    begin = time.monotonic()
    assert await store.read_events(after, 10, 0) == {}
    assert await store.read_decisions(after, 10, 0) == {}
    assert await store.policy_changes("", 0) == []
    assert await store.policy_changes("$", 0) == []
    assert time.monotonic() - begin < 1.0, "without a block nothing waits"
    begin = time.monotonic()
    assert await store.read_decisions(after, 10, 50) == {}
    assert await store.policy_changes("$", 50) == []
    assert await store.read_events({}, 10, 50) == {}
    assert time.monotonic() - begin >= 0.12


async def test_blocked_reads_wake_for_news_and_do_not_hold_up_anybody(store: Store) -> None:
    after = await start(store)
    begin = time.monotonic()
    blocked = [
        asyncio.create_task(store.read_events(after, 10, WAIT_MS)),
        asyncio.create_task(store.read_decisions(after, 10, WAIT_MS)),
        asyncio.create_task(store.read_decisions(after, 10, WAIT_MS)),
        asyncio.create_task(store.policy_changes("$", WAIT_MS)),
    ]
    await asyncio.sleep(0.1)
    assert not any(task.done() for task in blocked)
    [event_offset] = await store.append_events([("anna", b"event")])
    [offset] = await store.commit_decisions([commit("anna")])
    await store.publish_policy(b"head", {"gold": b"1"})
    events, decisions, decisions_too, changes = await asyncio.gather(*blocked)
    assert time.monotonic() - begin < WAIT_MS / 1e3
    home = partition_of("anna", store.partitions)
    assert events == {home: [LogEntry(event_offset, b"event")]}
    assert isinstance(offset, Offset)
    assert decisions == decisions_too == {home: [LogEntry(offset, b"record")]}
    assert [offers for _, offers in changes] == [["gold"]]


async def test_a_cancelled_read_takes_nothing_from_the_next(store: Store) -> None:
    after = await start(store)
    task = asyncio.create_task(store.read_events(after, 10, WAIT_MS))
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await store.append_events([("anna", b"event")])
    begin = time.monotonic()
    found = await store.read_events(after, 10, WAIT_MS)
    assert [entry.data for entries in found.values() for entry in entries] == [b"event"]
    assert time.monotonic() - begin < WAIT_MS / 1e3 / 2


# --- features --------------------------------------------------------------------------------------------------------


async def test_features_are_written_where_expected_and_only_there(store: Store) -> None:
    home, (anna, bob, carl) = same_partition(store, 3)
    assert await store.read_features([]) == []
    first = [FeatureWrite(anna, b"", b"1anna"), FeatureWrite(bob, b"", b"1bob"), FeatureWrite(carl, b"0", b"1carl")]
    assert await store.write_features(home, first, Offset(10, 0), 3) == [True, True, False]
    assert (await store.folded())[home] == Offset.ZERO, "carl's events up to there are in no record"
    second = [FeatureWrite(anna, b"1", b"2anna"), FeatureWrite(bob, b"", b"2bob"), FeatureWrite(carl, b"", b"2carl")]
    assert await store.write_features(home, second, Offset(11, 0), 3) == [True, False, True]
    assert await store.read_features([carl, bob, "nobody", anna]) == [b"2carl", b"1bob", None, b"2anna"]
    assert await store.read([anna]) == [(b"2anna", None)], "a decision reads the same features"


async def test_values_beside_are_written_with_the_features_or_not_at_all(store: Store) -> None:
    home, (anna, bob, carl) = same_partition(store, 3)
    assert await store.read_beside(PARTS, []) == []
    first = [
        FeatureWrite(anna, b"", b"1anna", beside=(Beside(PARTS, b"1parts", b""), Beside(LINKS, b"links"))),
        FeatureWrite(bob, b"", b"1bob", beside=(Beside(LINKS, b"bob's", b"other"),)),
        FeatureWrite(carl, b"", b"1carl"),
    ]
    assert await store.write_features(home, first, Offset(10, 0), 3) == [True, False, True]
    assert await store.read_beside(PARTS, [carl, bob, anna]) == [None, None, b"1parts"]
    assert await store.read_beside(LINKS, [anna, bob]) == [b"links", None]
    assert await store.read_features([anna, bob, carl]) == [b"1anna", None, b"1carl"]
    again = [
        FeatureWrite(carl, b"1", b"2carl", beside=(Beside(LINKS, b"carl's"),)),
        FeatureWrite(anna, b"1", b"lost", beside=(Beside(LINKS, b"lost"), Beside(PARTS, b"lost", b"0"))),
        FeatureWrite(bob, b"", b"1bob", beside=(Beside(PARTS, b"\x00\xff", b""), Beside(LINKS, b"bob's", b""))),
    ]
    assert await store.write_features(home, again, Offset(11, 0), 3) == [True, False, True]
    assert await store.read_features([anna, bob, carl]) == [b"1anna", b"1bob", b"2carl"]
    assert await store.read_beside(PARTS, [anna, bob, carl]) == [b"1parts", b"\x00\xff", None]
    assert await store.read_beside(LINKS, [anna, bob, carl]) == [b"links", b"bob's", b"carl's"]


async def test_what_stands_beside_is_written_with_a_mark_or_nothing_is(store: Store) -> None:
    home, (anna, bob) = same_partition(store, 2)
    parts = (Beside(PARTS, b"1parts", b""),)
    first = [FeatureWrite(anna, b"", b"1anna", beside=parts), FeatureWrite(bob, b"", b"1bob")]
    assert await store.write_marked(home, first, Mark("job", b"", b"1")) == [True, True]
    assert await store.read_beside(PARTS, [anna, bob]) == [b"1parts", None]
    again = [FeatureWrite(bob, b"1", b"2bob"), FeatureWrite(anna, b"1", b"2anna", beside=(Beside(PARTS, b"2", b"0"),))]
    assert await store.write_marked(home, again, Mark("job", b"1", b"2")) == [True, False]
    assert await store.read_features([anna, bob]) == [b"1anna", b"1bob"]
    assert (await store.read_beside(PARTS, [anna]), await store.marks(home)) == ([b"1parts"], {"job": b"1"})


async def test_an_empty_record_leaves_a_customer_without_features(store: Store) -> None:
    home, [anna] = same_partition(store, 1)
    assert await store.write_features(home, [FeatureWrite(anna, b"", b"")], Offset(10, 0), 1) == [True]
    assert await store.read_features([anna]) == [None]
    assert await store.write_features(home, [FeatureWrite(anna, b"", b"1anna")], Offset(11, 0), 1) == [True]
    gone = FeatureWrite(anna, b"1", b"", beside=(Beside(PARTS, b"parts", b""),))
    assert await store.write_features(home, [gone], Offset(12, 0), 1) == [True]
    assert await store.read([anna]) == [(None, None)]
    assert await store.read_beside(PARTS, [anna]) == [b"parts"]


async def test_a_timeline_is_written_with_the_features_or_not_at_all(store: Store) -> None:
    """What arrives together is seen together: entries of a customer whose features were not written stay away, too."""
    home, (anna, bob, carl) = same_partition(store, 3)
    assert await store.read_timelines([]) == []
    first = [
        FeatureWrite(anna, b"", b"1anna", b"anna's"),
        FeatureWrite(bob, b"0", b"1bob", b"bob's"),
        FeatureWrite(carl, b"", b"1carl"),
    ]
    assert await store.write_features(home, first, Offset(10, 0), 3) == [True, False, True]
    assert await store.read_timelines([carl, bob, anna]) == [None, None, b"anna's"]
    second = [
        FeatureWrite(carl, b"1", b"2carl", b"carl's"),
        FeatureWrite(anna, b"1", b"2anna"),
        FeatureWrite(bob, b"", b"1bob", b"bob's"),
    ]
    assert await store.write_features(home, second, Offset(10, 0), 3) == [True, True, True]
    assert await store.read_timelines([anna, bob, carl]) == [b"anna's", b"bob's", b"carl's"], "b'' leaves it as it is"
    again = [FeatureWrite(anna, b"1", b"3anna", b"lost"), FeatureWrite(bob, b"1", b"2bob", b"bob's\x00\xff")]
    assert await store.write_features(home, again, Offset(11, 0), 2) == [False, True]
    assert await store.read_timelines([anna, bob]) == [b"anna's", b"bob's\x00\xff"]
    assert await store.read([anna]) == [(b"2anna", None)]


async def test_the_position_folded_only_moves_forward(store: Store) -> None:
    assert await store.folded() == await start(store)
    for wrote, expected in (
        (Offset(10, 2), Offset(10, 2)),
        (Offset(9, 7), Offset(10, 2)),
        (Offset(10, 1), Offset(10, 2)),
        (Offset(10, 10), Offset(10, 10)),
        (Offset(1_718_000_000_000, 0), Offset(1_718_000_000_000, 0)),
    ):
        assert await store.write_features(2, [], wrote, 0) == []
        assert (await store.folded())[2] == expected
    assert (await store.folded())[1] == Offset.ZERO


async def test_the_backlog_is_what_is_appended_and_not_folded(store: Store) -> None:
    home, [anna] = same_partition(store, 1)
    empty = dict.fromkeys(range(store.partitions), 0)
    assert await store.backlog() == empty
    offsets = await store.append_events([(anna, b"event")] * 10)
    assert await store.backlog() == {**empty, home: 10}
    await store.write_features(home, [], offsets[3], 4)
    assert await store.backlog() == {**empty, home: 6}
    await store.write_features(home, [], offsets[3], 4)
    assert await store.backlog() == {**empty, home: 6}, "what is folded twice counts once"
    offsets += await store.append_events([(anna, b"event")] * 5)
    assert await store.backlog() == {**empty, home: 11}
    await store.write_features(home, [], offsets[-1], 11)
    assert await store.backlog() == empty


async def test_a_wrong_count_of_events_is_put_right_at_the_end_of_the_log(store: Store) -> None:
    home, [anna] = same_partition(store, 1)
    offsets = await store.append_events([(anna, b"event")] * 10)
    await store.write_features(home, [], offsets[4], 9)
    await store.write_features(home, [], offsets[-1], 1)
    await store.append_events([(anna, b"event")] * 3)
    assert (await store.backlog())[home] == 3


# --- marks -----------------------------------------------------------------------------------------------------------


async def test_features_and_a_mark_are_written_together_or_not_at_all(store: Store) -> None:
    home, (anna, bob) = same_partition(store, 2)
    assert await store.marks(home) == {}
    first = [FeatureWrite(anna, b"", b"1anna"), FeatureWrite(bob, b"", b"1bob")]
    assert await store.write_marked(home, first, Mark("job", b"", b"1")) == [True, True]
    assert await store.marks(home) == {"job": b"1"}
    again = [FeatureWrite(anna, b"1anna", b"2anna")]
    assert isinstance(await store.write_marked(home, again, Mark("job", b"", b"1")), Conflict), "it was done before"
    stale = [FeatureWrite(anna, b"1anna", b"2anna"), FeatureWrite(bob, b"0", b"2bob")]
    assert await store.write_marked(home, stale, Mark("job", b"1", b"2")) == [True, False]
    assert await store.read_features([anna, bob]) == [b"1anna", b"1bob"], "one is not as expected: nothing is written"
    assert await store.marks(home) == {"job": b"1"}
    assert await store.write_marked(home, again, Mark("job", b"1", b"2")) == [True]
    assert await store.write_marked(home, [], Mark("other", b"", b"\xff")) == []
    assert await store.read_features([anna, bob]) == [b"2anna", b"1bob"]
    assert await store.marks(home) == {"job": b"2", "other": b"\xff"}
    assert await store.marks((home + 1) % store.partitions) == {}, "a mark belongs to its partition"
    assert (await store.folded())[home] == Offset.ZERO


# --- limits ----------------------------------------------------------------------------------------------------------


async def test_the_event_log_loses_what_is_folded_and_beyond_its_limit_and_nothing_else(make_store: MakeStore) -> None:
    store = await make_store(event_log_entries_max=5)
    home, [anna] = same_partition(store, 1)
    offsets = await store.append_events([(anna, b"%d" % number) for number in range(12)])

    async def kept() -> list[Offset]:
        found = await store.read_events({home: Offset.ZERO}, 100, 0)
        return [entry.offset for entry in found[home]]

    assert await kept() == offsets, "nothing is folded"
    await store.write_features(home, [], offsets[2], 3)
    assert await kept() == offsets[3:], "the limit asks for seven, three are folded"
    assert (await store.backlog())[home] == 9
    await store.write_features(home, [], offsets[-1], 9)
    assert await kept() == offsets[-5:], "all are folded, the limit keeps five"
    assert (await store.backlog())[home] == 0
    await store.append_events([(anna, b"event")])
    assert (await store.backlog())[home] == 1


async def test_the_decision_log_is_bounded(make_store: MakeStore) -> None:
    store = await make_store(decision_log_entries_max=100)
    home, [anna] = same_partition(store, 1)
    ledger = b""
    for number in range(400):
        offset = await store.commit_outcome(anna, ledger, b"%04d" % number, b"x" * 100)
        assert isinstance(offset, Offset)
        ledger = b"%04d" % number
    found = await store.read_decisions({home: Offset.ZERO}, 1_000, 0)
    assert 100 <= len(found[home]) <= 250, "streams are trimmed by whole nodes of up to 100 entries"
    assert found[home][-1].offset == offset


async def test_policy_changes_are_bounded(store: Store) -> None:
    for number in range(1_010):
        await store.publish_policy(b"%d" % number, {})
    changes = await store.policy_changes("", 0)
    assert len(changes) == 1_000
    assert all(offers == [] for _, offers in changes)


async def test_records_of_any_partitions_are_written_where_they_are_as_expected(store: Store) -> None:
    """For a log that keeps its own position: nothing moves but the records."""
    customers = [f"c{number}" for number in range(20)]
    before = await store.folded()
    assert await store.write_records([]) == []
    assert await store.write_records([FeatureWrite(name, b"", b"1st " + name.encode()) for name in customers]) == [
        True
    ] * len(customers)
    expected = [b"1st" if number % 2 else b"else" for number in range(20)]
    writes = [FeatureWrite(name, e, b"2nd " + name.encode()) for name, e in zip(customers, expected, strict=True)]
    assert await store.write_records([*writes, FeatureWrite("new", b"1st", b"?")]) == [*([False, True] * 10), False]
    assert await store.read_features([*customers, "new"]) == [
        *((b"2nd " if number % 2 else b"1st ") + name.encode() for number, name in enumerate(customers)),
        None,
    ]
    assert await store.folded() == before
    both = [FeatureWrite("c1", b"2nd", b"3rd", b"timeline"), FeatureWrite("c2", b"?", b"3rd", b"timeline")]
    assert await store.write_records(both) == [True, False]
    assert await store.read_timelines(["c1", "c2"]) == [b"timeline", None]


async def test_of_two_concurrent_writers_of_a_record_one_wins(store: Store) -> None:
    rivals = [[FeatureWrite("anna", b"", b"%d" % rival)] for rival in range(3)]
    results = await asyncio.gather(*(store.write_records(rival) for rival in rivals))
    assert sorted(results) == [[False], [False], [True]]
    assert await store.read_features(["anna"]) == [b"%d" % results.index([True])]


async def test_the_first_note_about_the_broker_stays(store: Store) -> None:
    assert await store.remember("events") is None
    assert await store.remember("events", b"one") == b"one"
    assert await store.remember("events", b"two") == b"one"
    assert await store.remember("events") == b"one"
    assert await store.remember("other") is None


# --- policy, checkpoint, configurations ------------------------------------------------------------------------------


async def test_a_policy_is_replaced_offer_by_offer(store: Store) -> None:
    assert await store.read_policy() == (None, {})
    assert await store.read_policy(["gold"]) == (None, {})
    await store.publish_policy(b"v1", {"gold": b"g1", "silver": b"s1"})
    await store.publish_policy(b"v2", {"gold": b"g2"})
    assert await store.read_policy() == (b"v2", {"gold": b"g2", "silver": b"s1"})
    assert await store.read_policy(["gold", "bronze"]) == (b"v2", {"gold": b"g2"})
    assert await store.read_policy([]) == (b"v2", {})


async def test_a_policy_is_never_seen_half_published(store: Store) -> None:
    offers = [f"offer {number}" for number in range(20)]
    await store.publish_policy(b"0", dict.fromkeys(offers, b"0"))

    async def publish() -> None:
        for version in range(1, 30):
            await store.publish_policy(b"%d" % version, dict.fromkeys(offers, b"%d" % version))

    publishing = asyncio.create_task(publish())
    while not publishing.done():
        head, values = await store.read_policy()
        assert {head} == set(values.values())
        await asyncio.sleep(0)
    await publishing


async def test_policy_changes_are_told_in_order_after_a_position(store: Store) -> None:
    await store.publish_policy(b"v1", {"gold": b"1", "silver": b"1"})
    await store.publish_policy(b"v2", {"gold": b"2"})
    changes = await store.policy_changes("", 0)
    assert [offers for _, offers in changes] == [["gold", "silver"], ["gold"]]
    assert await store.policy_changes(changes[0][0], 0) == changes[1:]
    assert await store.policy_changes(changes[1][0], 0) == []


async def test_policies_are_kept_by_version_until_they_are_let_go(store: Store) -> None:
    assert await store.kept_policies() == []
    assert await store.kept_policy(1) is None
    for version in (9, 10, 2):
        await store.keep_policy(version, b"\x00%d" % version)
    assert await store.kept_policies() == [2, 9, 10]
    await store.keep_policy(11, b"eleven", let_go=[9, 2, 777])
    await store.keep_policy(11, b"again", let_go=[])
    assert await store.kept_policies() == [10, 11]
    assert (await store.kept_policy(10), await store.kept_policy(11)) == (b"\x0010", b"again")
    assert await store.kept_policy(9) is None


async def test_a_checkpoint_is_replaced_and_removed_field_by_field(store: Store) -> None:
    assert await store.load_checkpoint() == {}
    await store.save_checkpoint({})
    await store.save_checkpoint({"a": b"1", "b": b"1"})
    await store.save_checkpoint({"a": b"2", "c": b"\x00"}, removed=["b", "never there"])
    assert await store.load_checkpoint() == {"a": b"2", "c": b"\x00"}
    await store.save_checkpoint({}, removed=["a"])
    assert await store.load_checkpoint() == {"c": b"\x00"}


async def test_configurations_are_kept_by_version(store: Store) -> None:
    assert await store.load_config("1") is None
    await store.save_config("1", b"offers: []")
    await store.save_config("1", b"offers: []")
    assert await store.load_config("1") == b"offers: []"


async def test_a_store_answers_and_closes(store: Store) -> None:
    await store.ping()
    await store.dead_letters([])
    await store.close()


async def test_the_history_of_versions_is_changed_by_whoever_saw_it_last(store: Store) -> None:
    assert await store.read_versions() == {}
    assert await store.version_changes("", 0) == []
    assert await store.change_versions(b"", {"_revision": b"1", "_active": b"a", "a": b"{}"}, b"first")
    assert not await store.change_versions(b"", {"_revision": b"1", "_active": b"b"}, b"too late")
    waiting = asyncio.create_task(store.version_changes((await store.version_changes("", 0))[0][0], WAIT_MS))
    await asyncio.sleep(0.01)
    assert await store.change_versions(b"1", {"_revision": b"2", "_active": b"b"}, b"second")
    assert [entry for _, entry in await waiting] == [b"second"]
    assert await store.read_versions() == {"_revision": b"2", "_active": b"b", "a": b"{}"}
    assert [entry for _, entry in await store.version_changes("", 0)] == [b"first", b"second"]


# --- leads -----------------------------------------------------------------------------------------------------------


async def test_a_lead_is_written_only_over_what_was_expected_and_moves_between_queues(store: Store) -> None:
    assert await store.write_leads("may", [LeadWrite("may/1", b"", b"open", enters="eva")]) == [True]
    assert await store.write_leads("may", [LeadWrite("may/1", b"", b"open", enters="bob")]) == [False]
    wrong, right = LeadWrite("may/1", b"taken", b"x"), LeadWrite("may/1", b"open", b"free", "eva", "")
    assert await store.write_leads("may", [wrong, right, LeadWrite("may/2", b"", b"open", enters="")]) == [
        False,
        True,
        True,
    ]
    assert (await store.lead_queue("may", "eva"), await store.lead_queue("may", "bob")) == ([], [])
    assert sorted(await store.lead_queue("may", "")) == ["may/1", "may/2"]
    assert await store.read_leads("may", ["may/2", "may/3", "may/1"]) == [b"open", None, b"free"]
    assert await store.read_leads("may", []) == [] == await store.write_leads("may", [])
    assert await store.write_leads("may", [LeadWrite("may/2", b"open", b"", leaves="")]) == [True]
    assert (await store.all_leads("may"), await store.all_leads("june")) == ({"may/1": b"free"}, {})
    assert await store.lead_queue("may", "") == ["may/1"]


async def test_all_leads_of_a_long_list_are_found(store: Store) -> None:
    writes = [LeadWrite(f"may/{n}", b"", b"%d" % n, enters="eva") for n in range(2_500)]
    assert all(await store.write_leads("may", writes))
    assert await store.all_leads("may") == {write.lead_id: write.value for write in writes}


async def test_lists_of_leads_are_noted_within_their_bound(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LEAD_LISTS_ENTRIES_MAX", 2)
    monkeypatch.setattr(limits, "LEAD_LIST_ENTRIES_MAX", 1)
    assert await store.write_lead_list("may", b"", b"1") and await store.write_lead_list("june", b"", b"2")
    assert not await store.write_lead_list("may", b"2", b"3") and await store.write_lead_list("may", b"1", b"3")
    with pytest.raises(StoreFull):
        await store.write_lead_list("july", b"", b"1")
    assert await store.write_lead_list("june", b"2", b"")
    assert await store.lead_lists() == {"may": b"3"}
    with pytest.raises(StoreFull):
        await store.write_leads("may", [LeadWrite("may/1", b"", b"open"), LeadWrite("may/2", b"", b"open")])
    assert await store.write_leads("may", [LeadWrite("may/1", b"open", b"taken")]) == [True], "no more than before"
