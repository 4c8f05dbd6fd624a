"""What is true of RedisStore on a cluster only: slots, redirections, nodes that die, and what others notice of it."""

import asyncio
import re
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from redis.crc import key_slot

from engine.store import (
    Conflict,
    DecisionCommit,
    FeatureWrite,
    PartlyUnavailable,
    RedisStore,
    StoreError,
    StoreFull,
    StoreUnavailable,
    partition_of,
)
from engine.store.cluster import NodeAway, _address, slot_of
from engine.store.keys import Keys
from engine.store.wire import Address
from features import Offset
from tests.redis_cluster import ClusterNode, RedisCluster, free_ports

PARTITIONS = 8
"""As many as in service: with them every node has some."""
KEYS = Keys(PARTITIONS)


def commit(customer: str, expected: bytes = b"", record: bytes = b"record") -> DecisionCommit:
    return DecisionCommit(customer, expected, b"head", b"tail", record)


def on(cluster: RedisCluster, node: ClusterNode) -> list[int]:
    """Partitions that live on a node."""
    found = [partition for partition in range(PARTITIONS) if cluster.owner(KEYS.events[partition]) is node]
    assert found, "every node has partitions"
    return found


def customers(count: int, *partitions: int) -> list[str]:
    """Customers who live in these partitions."""
    names = (f"c{number}" for number in range(100_000))
    return [name for name in names if partition_of(name, PARTITIONS) in partitions][:count]


T = TypeVar("T")


async def eventually(what: Callable[[], Awaitable[T]], limit_s: float = 10.0) -> T:
    """What a call gives, as soon as it no longer raises StoreUnavailable."""
    end_s = time.monotonic() + limit_s
    while True:
        try:
            return await what()
        except StoreUnavailable:
            assert time.monotonic() < end_s, "still away"
            await asyncio.sleep(0.02)


async def _until(true: Callable[[], bool], limit_s: float = 20.0) -> None:
    end_s = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end_s, "waited in vain"
        await asyncio.sleep(0.02)


# --- the map ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [b"a", b"{p0}events", b"{p12}f:{x}", b"{}x", b"x{y}z", b"{policy}:changes", b"{a"])
def test_slots_are_those_of_the_client_library(key: bytes) -> None:
    assert slot_of(key) == key_slot(key)


@pytest.mark.parametrize(
    ("master", "expected"),
    [
        ([b"10.0.0.2", 7000, b"id"], ("10.0.0.2", 7000)),
        ([b"redis-2.example", 7000, b"id", [b"ip", b"10.0.0.2"]], ("redis-2.example", 7000)),
        ([None, 7000, b"id", []], ("seed", 7000)),
        ([b"", 7000, b"id"], ("seed", 7000)),
        ([b"?", 7000, b"id", [b"ip", b"10.0.0.2"]], ("10.0.0.2", 7000)),
    ],
)
def test_nodes_are_spoken_to_like_the_one_that_was_named(master: list[object], expected: tuple[str, int]) -> None:
    found = _address(master, Address.parse("rediss://me:secret@seed:6379"))
    assert (found.host, found.port) == expected
    assert (found.tls, found.username, found.password) == (True, "me", "secret")


def test_the_documented_slots_are_the_slots() -> None:
    text = (Path(__file__).parents[2] / "docs" / "store.md").read_text()
    told = dict(re.findall(r"\| `(\S+?)`[^|]*\| (\d+) (?=\|)", text))
    names = [f"{{p{partition}}}…" for partition in range(PARTITIONS)] + ["policy", "learner", "meta", "dead"]
    assert told == {name: str(slot_of(name.encode())) for name in names}


async def test_any_node_leads_to_the_whole_cluster(cluster: RedisCluster) -> None:
    first = await RedisStore.open(cluster.url_of(cluster.masters[0]), PARTITIONS)
    await first.commit_decisions([commit(f"c{n}") for n in range(50)])
    expected = await first.read([f"c{n}" for n in range(50)])
    assert all(ledger for _, ledger in expected)
    await first.close()
    for nodes in (cluster.masters[1:2], cluster.masters[2:], cluster.masters[::-1]):
        store = await RedisStore.open(cluster.url_of(*nodes), PARTITIONS)
        assert await store.read([f"c{n}" for n in range(50)]) == expected
        await store.close()


async def test_every_node_has_keys_and_every_key_is_where_it_belongs(cluster: RedisCluster) -> None:
    store = await RedisStore.open(cluster.url, PARTITIONS)
    names = [f"c{n}" for n in range(30)]
    offsets = await store.append_events([(name, name.encode()) for name in names])
    for partition in range(PARTITIONS):
        placed = zip(names, offsets, strict=True)
        here = {name: at for name, at in placed if partition_of(name, PARTITIONS) == partition}
        writes = [FeatureWrite(name, b"", b"x") for name in here]
        await store.write_features(partition, writes, max(here.values()), len(here))
    await store.commit_decisions([commit(name) for name in names])
    for node in cluster.masters:
        keys = await cluster.say(node, b"KEYS", b"*")
        assert {partition_of(key.split(b":")[1].decode(), PARTITIONS) for key in keys if b"f:" in key} == set(
            on(cluster, node)
        )
        assert all(cluster.owner(key) is node for key in keys)
    assert await store.backlog() == dict.fromkeys(range(PARTITIONS), 0)
    assert all(offset > Offset.ZERO for offset in (await store.folded()).values())
    await store.close()


async def test_a_cluster_made_with_another_number_of_partitions_is_refused(cluster: RedisCluster) -> None:
    store = await RedisStore.open(cluster.url, PARTITIONS)
    await store.close()
    with pytest.raises(StoreError, match=r"made with 8 partitions, not 4; their number is fixed"):
        await RedisStore.open(cluster.url_of(cluster.masters[2]), 4)


async def test_the_first_address_that_answers_is_enough(cluster: RedisCluster) -> None:
    store = await RedisStore.open(f"redis://127.0.0.1:1,127.0.0.1:{cluster.masters[1].port}", PARTITIONS)
    await store.ping()
    await store.close()
    with pytest.raises(StoreUnavailable):
        await RedisStore.open("redis://127.0.0.1:1,127.0.0.1:2", PARTITIONS)


async def test_databases_and_several_single_servers_are_refused(cluster: RedisCluster, own_server) -> None:
    with pytest.raises(StoreError, match=r"^database 3: ERR (DB index is out of range|SELECT is not allowed)"):
        await RedisStore.open(f"{cluster.url}/3", PARTITIONS)
    await own_server.say(b"CONFIG", b"SET", b"port", b"%d" % (port := free_ports(1)[0]))
    with pytest.raises(StoreError, match="names several servers"):
        await RedisStore.open(f"redis://127.0.0.1:{port},127.0.0.1:{port}", PARTITIONS)


def test_a_password_is_said_to_every_node(tmp_path_factory: pytest.TempPathFactory) -> None:
    async def check() -> None:
        store = await RedisStore.open(cluster.url, PARTITIONS)
        results = await store.commit_decisions([commit(f"c{n}") for n in range(20)])
        assert all(isinstance(result, Offset) for result in results)
        await store.close()
        with pytest.raises(StoreError, match="WRONGPASS"):
            await RedisStore.open(cluster.url.replace("pa:ss", "wrong"), PARTITIONS)

    # One node too is a cluster if it says so.
    for masters in (1, 2):
        with RedisCluster(tmp_path_factory.mktemp("secret"), masters=masters, password="pa:ss") as cluster:
            asyncio.run(check())


async def test_scripts_are_taught_to_the_node_that_forgot_them(cluster: RedisCluster) -> None:
    store = await RedisStore.open(cluster.url, PARTITIONS)
    names = [f"c{n}" for n in range(20)]
    assert all(isinstance(result, Offset) for result in await store.commit_decisions([commit(name) for name in names]))
    await cluster.say(cluster.masters[1], b"SCRIPT", b"FLUSH")
    again = await store.commit_decisions([commit(name, b"head") for name in names])
    assert all(isinstance(result, Offset) for result in again)
    assert {type(result) for result in await store.commit_decisions([commit(name) for name in names])} == {Conflict}
    await store.close()


async def blocked_at(cluster: RedisCluster, node: ClusterNode) -> int:
    """Connections of a node that wait for something."""
    told = await cluster.say(node, b"INFO", b"clients")
    assert isinstance(told, bytes)
    [line] = [line for line in told.splitlines() if line.startswith(b"blocked_clients:")]
    return int(line.partition(b":")[2])


async def test_blocking_reads_are_bounded_and_share_nothing(cluster: RedisCluster) -> None:
    store = await RedisStore.open(cluster.url, PARTITIONS)
    after = dict.fromkeys(range(PARTITIONS), Offset.ZERO)
    blocked = [asyncio.create_task(store.read_events(after, 1, 10_000)) for _ in range(16)]
    async with asyncio.timeout(5):
        while sum([await blocked_at(cluster, node) for node in cluster.masters]) < 16 * PARTITIONS:
            await asyncio.sleep(0.02)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="16 blocking reads"):
            await store.read_events(after, 1, 3_000)
    await store.append_events([("anna", b"event")])
    assert all(await asyncio.gather(*blocked))
    left = asyncio.create_task(store.read_events(dict.fromkeys(after, Offset(2**50, 0)), 1, 20_000))
    await asyncio.sleep(0.1)
    await store.close()
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(left, 2)
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.read(["anna"])


async def test_a_user_who_may_not_see_the_slots_is_told_so(cluster: RedisCluster) -> None:
    node = cluster.masters[0]  # `meta` is on another
    await cluster.say(node, b"ACL", b"SETUSER", b"blind", b"on", b">x", b"~*", b"+@all", b"-cluster")
    try:
        with pytest.raises(StoreError, match="allow its user the command CLUSTER SLOTS") as caught:
            await RedisStore.open(cluster.url.replace("redis://", "redis://blind:x@"), PARTITIONS)
        assert not isinstance(caught.value, StoreUnavailable), "waiting does not help"
    finally:
        await cluster.say(node, b"ACL", b"DELUSER", b"blind")


async def test_a_full_node_refuses_its_own_writes(cluster: RedisCluster) -> None:
    store = await RedisStore.open(cluster.url, PARTITIONS)
    full, other = (customers(3, *on(cluster, node)) for node in (cluster.masters[2], cluster.masters[0]))
    await store.commit_decisions([commit(name) for name in full + other])
    await cluster.say(cluster.masters[2], b"CONFIG", b"SET", b"maxmemory", b"1")
    try:
        results = await store.commit_decisions([commit(name, b"head") for name in full + other])
        assert [type(result) for result in results] == [StoreFull] * 3 + [Offset] * 3
        for count in (1, 2):
            with pytest.raises(StoreFull):
                await store.append_events([(full[0], b"event")] * count)
        assert all(ledger for _, ledger in await store.read(full + other))
        assert await store.backlog() == dict.fromkeys(range(PARTITIONS), 0)
    finally:
        await cluster.say(cluster.masters[2], b"CONFIG", b"SET", b"maxmemory", b"0")
    assert isinstance((await store.commit_decisions([commit(full[0], b"head")]))[0], Offset)
    await store.close()


# --- slots that move -------------------------------------------------------------------------------------------------


async def test_half_moved_slots_are_read_and_appended_to_on_both_sides(own_cluster: RedisCluster) -> None:
    store = await RedisStore.open(own_cluster.url, PARTITIONS)
    source, target, _ = own_cluster.masters
    [partition, *_] = on(own_cluster, source)
    names = customers(6, partition)
    await store.commit_decisions([commit(name) for name in names[:4]])
    [before] = await store.append_events([(names[0], b"0")])
    at = b"%d" % slot_of(KEYS.events[partition])
    ids = [await own_cluster.say(node, b"CLUSTER", b"MYID") for node in (source, target)]
    await own_cluster.say(target, b"CLUSTER", b"SETSLOT", at, b"IMPORTING", ids[0])
    await own_cluster.say(source, b"CLUSTER", b"SETSLOT", at, b"MIGRATING", ids[1])
    there = (b"127.0.0.1", b"%d" % target.port)
    moved = [KEYS.events[partition], KEYS.ledger_and_log(names[0])[0], KEYS.ledger_and_log(names[1])[0]]
    for key in moved:
        await own_cluster.say(source, b"MIGRATE", *there, key, b"0", b"2000")
    # Two ledgers here, two there, two nowhere; the node refuses to read them with one command.
    found = await store.read(names)
    assert [bool(ledger) for _, ledger in found] == [True] * 4 + [False] * 2
    # The log is there: ASK, alone and within MULTI.
    offsets = [before]
    for batch in ([b"1"], [b"2", b"3", b"4"]):
        offsets += await store.append_events([(names[0], data) for data in batch])
    assert offsets == sorted(offsets)
    entries = (await store.read_events({partition: Offset.ZERO}, 10, 0))[partition]
    assert [entry.offset for entry in entries] == offsets
    assert [entry.data for entry in entries] == [b"0", b"1", b"2", b"3", b"4"]
    news = asyncio.create_task(store.read_events({partition: offsets[-1]}, 10, 3_000))
    await asyncio.sleep(0.05)
    [offset] = await store.append_events([(names[0], b"5")])
    assert (await news)[partition][0].offset == offset
    # A ledger there and its log here: no node may run the script. Those whose keys are together go on.
    moved_one, stayed = await store.commit_decisions([commit(names[0], b"head"), commit(names[2], b"head")])
    assert isinstance(moved_one, StoreUnavailable)
    assert isinstance(stayed, Offset)
    assert await store.read(names[:2]) == found[:2], "and nothing was done"
    for node in (target, source):
        await own_cluster.say(node, b"CLUSTER", b"SETSLOT", at, b"STABLE")
    await store.close()


async def test_moving_slots_in_the_middle_of_traffic_loses_nothing(own_cluster: RedisCluster) -> None:
    store = await RedisStore.open(own_cluster.url, PARTITIONS)
    source, target, _ = own_cluster.masters
    moving = on(own_cluster, source)
    names = customers(60, *moving) + customers(10, *on(own_cluster, target))
    ending = asyncio.Event()
    appended: dict[Offset, tuple[int, bytes]] = {}
    unanswered: set[bytes] = set()
    decided: dict[str, int] = dict.fromkeys(names, 0)
    unsure: set[str] = set()
    """Those whose last decision had no answer: it took place or it did not."""
    seen: dict[int, list[bytes]] = {partition: [] for partition in range(PARTITIONS)}
    refused = 0

    def know(name: str, ledger: bytes | None) -> None:
        # A ledger is the number of decisions: one that is lost or counted twice would show.
        found = int(ledger[:6]) if ledger else 0
        assert found - decided[name] in ((0, 1) if name in unsure else (0,)), name
        decided[name] = found
        unsure.discard(name)

    async def append() -> None:
        number = 0
        while not ending.is_set():
            batch = [(names[(number + at) % len(names)], b"%d" % (number + at)) for at in range(7)]
            number += 7
            try:
                offsets = await store.append_events(batch)
            except StoreUnavailable:  # a read that waited too long takes its connection along
                unanswered.update(data for _, data in batch)
            else:
                for offset, (name, data) in zip(offsets, batch, strict=True):
                    appended[offset, partition_of(name, PARTITIONS)] = data  # type: ignore[index]
            await asyncio.sleep(0.001)

    async def decide(mine: list[str]) -> None:
        nonlocal refused
        while not ending.is_set():
            try:
                states = await store.read(mine)
            except StoreUnavailable:  # where the machine stands still for longer than a read waits
                refused += 1
                continue
            commits = []
            for name, (_, ledger) in zip(mine, states, strict=True):
                know(name, ledger)
                head = b"%06d" % (decided[name] + 1)
                commits.append(DecisionCommit(name, (ledger or b"")[:6], head, b"", head))
            for name, result in zip(mine, await store.commit_decisions(commits), strict=True):
                assert not isinstance(result, Conflict), "one writer a customer, and a refusal is no write"
                if isinstance(result, Offset):
                    decided[name] += 1
                else:
                    assert isinstance(result, StoreUnavailable), result
                    unsure.add(name)
                    refused += 1
            await asyncio.sleep(0.001)

    async def follow() -> None:
        after = dict.fromkeys(range(PARTITIONS), Offset.ZERO)
        silent = 0
        while not (ending.is_set() and silent):
            found = await store.read_events(after, 100, 50)
            silent = not found
            for partition, entries in found.items():
                seen[partition] += [entry.data for entry in entries]
                after[partition] = entries[-1].offset

    following = asyncio.create_task(follow())
    traffic = [asyncio.create_task(append())]
    traffic += [asyncio.create_task(decide(names[at::4])) for at in range(4)]

    def going_on() -> bool:
        for task in traffic:
            if task.done():
                task.result()  # or it would be waited for in vain
        return True

    await _until(lambda: going_on() and all(decided.values()) and len(appended) > 100)
    slots = {slot_of(KEYS.events[partition]) for partition in moving}
    for slot in slots:
        assert await own_cluster.move_slot(slot, source, target, 0.005) > 10
        await asyncio.sleep(0.1)
    before, events = dict(decided), len(appended)
    await _until(
        lambda: (
            going_on()
            and all(decided[name] > before[name] for name in names)
            and len(appended) > events + 100
        )
    )
    ending.set()
    await asyncio.gather(*traffic, following)
    there = sorted(data for log in seen.values() for data in log if data not in unanswered)
    assert there == sorted(appended.values())
    assert len(unanswered) < len(appended)
    for name, (_, ledger) in zip(names, await store.read(names), strict=True):
        know(name, ledger)
    log = await store.read_decisions(dict.fromkeys(range(PARTITIONS), Offset.ZERO), 100_000, 0)
    assert sum(map(len, log.values())) == sum(decided.values())
    assert not await own_cluster.say(source, b"KEYS", b"{p3}*")
    assert refused < sum(decided.values()), "refused are those whose keys were apart for a moment"
    await store.close()


# --- nodes that die --------------------------------------------------------------------------------------------------


async def test_a_killed_node_takes_its_own_partitions_along_and_comes_back(own_cluster: RedisCluster) -> None:
    store = await RedisStore.open(own_cluster.url, PARTITIONS)
    # Not the first node: `meta` and the policy are on the second, the checkpoint is on the first.
    dead = own_cluster.masters[2]
    gone = on(own_cluster, dead)
    there = [partition for partition in range(PARTITIONS) if partition not in gone]
    lost, kept = customers(10, *gone), customers(10, *there)
    mixed = [name for pair in zip(lost, kept, strict=True) for name in pair]
    await store.commit_decisions([commit(name) for name in mixed])
    await store.append_events([(name, b"event") for name in mixed])
    before = dict(zip(mixed, await store.read(mixed), strict=True))
    after = await store.folded()
    positions = {partition: Offset(2**50, 0) for partition in after}
    blocked = asyncio.create_task(store.read_events(positions, 10, 20_000))
    await asyncio.sleep(0.1)
    await asyncio.to_thread(dead.kill)
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(blocked, 2)

    for _ in range(20):
        begin = time.monotonic()
        with pytest.raises(PartlyUnavailable) as caught:
            await store.read(mixed)
        assert [state is not None for state in caught.value.found] == [name in kept for name in mixed]
        results = await store.commit_decisions([commit(name, b"head") for name in mixed])
        assert all(isinstance(result, Offset) == (name in kept) for name, result in zip(mixed, results, strict=True))
        assert {type(result) for result in results} <= {Offset, StoreUnavailable, NodeAway}
        assert time.monotonic() - begin < 0.5
    with pytest.raises(StoreUnavailable):
        await store.read(lost)
    with pytest.raises(StoreUnavailable):
        await store.commit_outcome(lost[0], b"head", b"x", b"outcome")
    assert isinstance(await store.commit_outcome(kept[0], b"head", b"head2", b"outcome"), Offset)
    with pytest.raises(StoreUnavailable):
        await store.append_events([(lost[0], b"event"), (kept[0], b"event")])

    # Who follows the logs goes on with what is there: nothing is raised, and nothing waits for the dead node.
    assert set(await store.backlog()) == set(await store.folded()) == set(there)
    at = await store.folded()
    found = await store.read_events(at, 100, 1_000)
    assert set(found) <= set(there) and found
    news = asyncio.create_task(store.read_decisions(dict.fromkeys(range(PARTITIONS), Offset(2**50, 0)), 9, 300))
    assert await news == {}
    with pytest.raises(StoreUnavailable):
        await store.read_events(dict.fromkeys(gone, Offset.ZERO), 10, 1_000)

    dead.start()
    await asyncio.to_thread(own_cluster.wait_served, dead)
    await eventually(lambda: store.read(mixed))
    assert [state for name, state in zip(lost, await store.read(lost), strict=True)] == [before[name] for name in lost]
    # What was left out is told of once, so that its position is asked for again.
    with pytest.raises(StoreUnavailable, match=r"can be read again"):
        await store.read_events(at, 10, 10)
    assert set(await store.folded()) == set(range(PARTITIONS))
    # A blocked read may have failed meanwhile: that is told once, too.
    found = await eventually(lambda: store.read_events(dict.fromkeys(range(PARTITIONS), Offset.ZERO), 100, 1_000))
    assert {data for entries in found.values() for data in (entry.data for entry in entries)} == {b"event"}
    results = await store.commit_decisions([commit(name, b"head") for name in lost])
    assert all(isinstance(result, Offset) for result in results)
    await store.close()


async def test_a_stuck_node_holds_up_a_batch_once_and_not_every_time(own_cluster: RedisCluster) -> None:
    store = await RedisStore.open(own_cluster.url, PARTITIONS, read_wait_ms=200, commit_wait_ms=300, write_wait_ms=400)
    stuck = own_cluster.masters[2]
    gone = on(own_cluster, stuck)
    names = customers(5, *gone) + customers(5, *on(own_cluster, own_cluster.masters[0]))
    await store.commit_decisions([commit(name) for name in names])
    stuck.signal(signal.SIGSTOP)
    try:
        begin = time.monotonic()
        with pytest.raises(PartlyUnavailable):
            await store.read(names)
        assert time.monotonic() - begin < 0.2 + 0.5
        await asyncio.sleep(0.5)
        begin = time.monotonic()
        for _ in range(50):
            with pytest.raises(PartlyUnavailable, match="the node is away"):
                await store.read(names)
        assert time.monotonic() - begin < 1.0, "a node known to be away is not waited for"
    finally:
        stuck.signal(signal.SIGCONT)
    await eventually(lambda: store.read(names))
    await store.close()


async def test_a_cluster_that_wants_all_its_slots_is_away_as_a_whole_and_comes_back(own_cluster: RedisCluster) -> None:
    store = await RedisStore.open(own_cluster.url, PARTITIONS)
    for node in own_cluster.masters:
        await own_cluster.say(node, b"CONFIG", b"SET", b"cluster-require-full-coverage", b"yes")
    dead, other, _ = own_cluster.masters
    names = customers(5, *on(own_cluster, other))
    await asyncio.to_thread(dead.kill)
    end_s = time.monotonic() + 10
    with pytest.raises(StoreUnavailable, match="CLUSTERDOWN"):
        while time.monotonic() < end_s:
            await store.read(names)
            await asyncio.sleep(0.02)
    for call in (store.read_events(dict.fromkeys(range(PARTITIONS), Offset.ZERO), 1, 1_000), store.folded()):
        begin = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await call
        assert time.monotonic() - begin < 1.0
    dead.start()
    await eventually(lambda: store.read(names), 20)
    await eventually(lambda: store.read(customers(20, *range(PARTITIONS))), 20)
    await store.close()


async def test_a_replica_that_is_promoted_is_found(tmp_path_factory: pytest.TempPathFactory) -> None:
    with RedisCluster(tmp_path_factory.mktemp("cluster"), replicas=1) as cluster:
        store = await RedisStore.open(cluster.url, PARTITIONS)
        dead = cluster.masters[0]
        names = customers(10, *on(cluster, dead))
        await store.commit_decisions([commit(name) for name in names])
        before = await store.read(names)
        await eventually(lambda: _replicated(cluster))
        await asyncio.to_thread(dead.kill)
        await eventually(lambda: store.read(names), 20)
        assert await store.read(names) == before
        results = await store.commit_decisions([commit(name, b"head") for name in names])
        assert all(isinstance(result, Offset) for result in results)
        # The old master comes back as a replica and sends whoever asks it to the new one.
        dead.start()
        await asyncio.to_thread(cluster.wait_served, dead)
        again = await RedisStore.open(cluster.url_of(dead), PARTITIONS)
        assert len(await again.read(names)) == 10
        await again.close()
        await store.close()


async def _replicated(cluster: RedisCluster) -> None:
    """Raises StoreUnavailable unless the replica has all that its master has."""
    told = [await cluster.say(node, b"INFO", b"replication") for node in (cluster.masters[0], cluster.replicas[0])]
    positions = {line for text in told for line in text.split() if line.startswith(b"master_repl_offset:")}
    if len(positions) > 1:
        raise StoreUnavailable("behind")
