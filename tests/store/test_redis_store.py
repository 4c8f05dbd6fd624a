"""What is true of RedisStore only: its keys, and what it does when the server is new, gone, stuck or full."""

import asyncio
import signal
import time
from collections.abc import Awaitable

import hiredis
import pytest
from redis.crc import key_slot

from engine.limits import CUSTOMER_KEY_TTL_MS
from engine.store import (
    LINKS,
    PARTS,
    Beside,
    Conflict,
    DecisionCommit,
    FeatureWrite,
    Mark,
    RedisStore,
    StoreError,
    StoreFull,
    StoreUnavailable,
    partition_of,
)
from engine.store.base import MOVED
from engine.store.keys import POLICY, POLICY_CHANGES, Keys
from features import Offset

PARTITIONS = 4
KEYS = Keys(PARTITIONS)
FOR_GOOD = {b"dead", b"policy", b"{policy}:changes", b"{policy}:kept", b"learner", b"config:v1", b"meta"}


def commit(customer: str, expected: bytes = b"", record: bytes = b"record") -> DecisionCommit:
    return DecisionCommit(customer, expected, b"head", b"tail", record)


async def fill(store: RedisStore) -> None:
    """Write every kind of key."""
    [offset] = await store.append_events([("anna", b"event")])
    home = partition_of("anna", store.partitions)
    besides = tuple(Beside(kind, b"value") for kind in (PARTS, LINKS))
    await store.write_features(home, [FeatureWrite("anna", b"", b"features", b"timeline", besides)], offset, 1)
    await store.write_marked(home, [], Mark("job", b"", b"1"))
    await store.commit_decisions([commit("anna"), commit("bob")])
    await store.commit_outcome("anna", b"head", b"ledger", b"outcome")
    await store.dead_letters([(b"payload", "reason")])
    await store.publish_policy(b"head", {"gold": b"1"})
    await store.keep_policy(1, b"weights")
    await store.save_checkpoint({"a": b"1"})
    await store.save_config("v1", b"text")


async def within(limit_s: float, call: Awaitable[object]) -> BaseException | None:
    """What the call raised; it may not take longer than the limit."""
    begin = time.monotonic()
    [result] = await asyncio.gather(call, return_exceptions=True)
    assert time.monotonic() - begin < limit_s
    return result if isinstance(result, BaseException) else None


# --- keys ------------------------------------------------------------------------------------------------------------


async def test_every_key_goes_away_in_time_unless_listed(redis_store, server) -> None:
    await fill(redis_store)
    home = b"{p%d}" % partition_of("anna", PARTITIONS)
    names = await server.keys()
    ours = {home + name for name in (b"f:anna", b"l:anna", b"t:anna", b"folded", b"marks")}
    assert ours | set(FOR_GOOD) < set(names)
    assert {home + kind + b":anna" for kind in (b"g", b"e")} < set(names)
    for name in names:
        ttl_ms = await server.say(b"PTTL", name)
        listed = name in FOR_GOOD or name.endswith((b"}events", b"}decisions", b"}folded", b"}marks"))
        if listed:
            assert ttl_ms == -1, name
        else:
            assert CUSTOMER_KEY_TTL_MS - 60_000 < ttl_ms <= CUSTOMER_KEY_TTL_MS, name


async def test_what_changes_in_one_step_lives_in_one_slot() -> None:
    layout = Keys(PARTITIONS)
    for customer in ("anna", "{p3}", "a}b{c}", "żółw", "x" * 64):
        home = partition_of(customer, PARTITIONS)
        ledger, log = layout.ledger_and_log(customer)
        keys = [layout.features(customer), layout.timeline(customer), ledger, log, layout.event_log(customer)]
        keys.append(layout.folded[home])
        keys += [layout.beside(kind, customer) for kind in (PARTS, LINKS)]
        assert {layout.events[home], layout.decisions[home]} == {layout.event_log(customer), log}
        assert layout.state_of([customer]) == [layout.features(customer), ledger]
        assert len({key_slot(key) for key in keys}) == 1
    assert key_slot(POLICY) == key_slot(POLICY_CHANGES)


async def test_dead_letters_are_bounded(server) -> None:
    store = RedisStore(server.url, PARTITIONS, dead_letters_max=100)
    for _ in range(5):
        await store.dead_letters([(b"payload", "reason")] * 100)
    assert 100 <= await server.say(b"XLEN", b"dead") <= 250
    [[_, fields]] = await server.say(b"XRANGE", b"dead", b"-", b"+", b"COUNT", b"1")
    assert fields == [b"payload", b"payload", b"reason", b"reason"]
    await store.close()


# --- opening ---------------------------------------------------------------------------------------------------------


async def test_a_store_made_with_another_number_of_partitions_is_refused(redis_store, server) -> None:
    with pytest.raises(StoreError, match=r"made with 4 partitions, not 8; their number is fixed"):
        await RedisStore.open(server.url, 8)
    again = await RedisStore.open(server.url, PARTITIONS)
    await again.close()


async def test_a_store_of_another_format_is_refused(server) -> None:
    await server.say(b"HSET", b"meta", b"format", b"99")
    with pytest.raises(StoreError, match=r"has format '99', this version reads 1"):
        await RedisStore.open(server.url, PARTITIONS)


async def test_a_store_that_is_away_is_unavailable(tmp_path) -> None:
    with pytest.raises(StoreUnavailable):
        await RedisStore.open(f"unix://{tmp_path}/none", PARTITIONS)


def test_it_works_on_uvloop(shared_server) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def once() -> None:
        await shared_server.say(b"FLUSHALL")
        store = await RedisStore.open(shared_server.url, PARTITIONS)
        await fill(store)
        assert await store.read(["anna"]) == [(b"features", b"ledger")]
        assert await store.read_events(await store.folded(), 10, 20) == {}
        await store.close()

    uvloop.run(once())


# --- a server that forgets, dies, hangs, is full ---------------------------------------------------------------------


async def test_scripts_are_taught_again_when_the_server_forgot_them(redis_store, server) -> None:
    await redis_store.commit_decisions([commit("carl")])
    await server.say(b"SCRIPT", b"FLUSH")
    results = await redis_store.commit_decisions([commit("anna"), commit("carl"), commit("bob")])
    assert [type(result) for result in results] == [Offset, Conflict, Offset]
    await server.say(b"SCRIPT", b"FLUSH")
    assert isinstance(await redis_store.commit_outcome("anna", b"head", b"ledger", b"outcome"), Offset)
    await server.say(b"SCRIPT", b"FLUSH")
    home = partition_of("anna", PARTITIONS)
    assert await redis_store.write_features(home, [FeatureWrite("anna", b"", b"1")], Offset(1, 0), 1) == [True]


async def test_a_killed_server_is_unavailable_and_after_its_restart_nothing_acknowledged_is_missing(own_server) -> None:
    await own_server.say(b"CONFIG", b"SET", b"appendfsync", b"always")
    store = await RedisStore.open(own_server.url, PARTITIONS)
    await fill(store)
    before = await store.read(["anna", "bob"])
    # The read was sent before the server dies, so this also breaks a call that is under way.
    blocked = asyncio.create_task(store.read_events({0: Offset(2**50, 0)}, 10, 20_000))
    await asyncio.sleep(0.1)
    await asyncio.to_thread(own_server.kill)
    assert isinstance(await within(1.0, blocked), StoreUnavailable)
    assert isinstance(await within(1.0, store.read(["anna"])), StoreUnavailable)
    assert isinstance(await within(1.0, store.commit_decisions([commit("carl")])), StoreUnavailable)
    await asyncio.to_thread(own_server.start)
    assert await store.read(["anna", "bob"]) == before
    assert [type(result) for result in await store.commit_decisions([commit("carl")])] == [Offset]
    assert await store.load_checkpoint() == {"a": b"1"}
    assert await store.read_events({0: Offset(2**50, 0)}, 10, 1) == {}
    await store.close()


async def test_a_loading_server_is_unavailable(tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("loading") / "s"

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands = hiredis.Reader()
        while data := await reader.read(65_536):
            commands.feed(data)
            while commands.gets():
                writer.write(b"-LOADING server is loading the dataset in memory\r\n")
        writer.close()

    async with await asyncio.start_unix_server(refuse, path):
        store = RedisStore(f"unix://{path}", PARTITIONS)
        for call in (
            store.ping(),
            store.read(["anna"]),
            store.commit_decisions([commit("anna"), commit("bob")]),
            store.commit_outcome("anna", b"", b"ledger", b"outcome"),
            store.append_events([("anna", b"event"), ("bob", b"event")]),
            store.read_events({0: Offset.ZERO}, 10, 1_000),
        ):
            assert isinstance(await within(1.0, call), StoreUnavailable)
        await store.close()


async def test_a_stuck_server_is_unavailable_within_the_timeout_and_late_answers_reach_nobody(own_server) -> None:
    store = RedisStore(own_server.url, PARTITIONS, read_wait_ms=100, commit_wait_ms=200, write_wait_ms=300)
    await fill(store)
    before = await store.read(["anna", "bob"])
    own_server.signal(signal.SIGSTOP)
    calls = {
        store.read(["anna"]): 0.1,
        store.commit_decisions([commit("dora")]): 0.2,
        store.append_events([("anna", b"event")]): 0.3,
        store.read_events({0: Offset(2**50, 0)}, 10, 100): 0.4,
        store.policy_changes("$", 100): 0.4,
        store.backlog(): 0.3,
        store.ping(): 0.1,
    }
    for call, limit_s in calls.items():
        assert isinstance(await within(limit_s + 0.5, call), StoreUnavailable)
    results = await asyncio.gather(*(store.read(["anna"]) for _ in range(50)), return_exceptions=True)
    assert {type(result) for result in results} == {StoreUnavailable}
    own_server.signal(signal.SIGCONT)
    assert await store.read(["anna", "bob"]) == before
    assert (await store.read(["bob"])) == before[1:]
    await store.close()


async def test_a_full_server_refuses_writes_whole_and_still_answers_reads(own_server) -> None:
    store = await RedisStore.open(own_server.url, PARTITIONS)
    await fill(store)
    state, backlog = await store.read(["anna", "bob"]), await store.backlog()
    names = await own_server.keys()
    await own_server.say(b"CONFIG", b"SET", b"maxmemory-policy", b"noeviction")
    await own_server.say(b"CONFIG", b"SET", b"maxmemory", b"1")
    home = partition_of("anna", PARTITIONS)
    writes = [FeatureWrite("anna", b"features", b"features 2"), FeatureWrite("anna", b"no", b"")]
    results = await store.commit_decisions([commit("carl"), commit("anna", b"nothing like it"), commit("anna", b"led")])
    assert [type(result) for result in results] == [StoreFull, Conflict, StoreFull]
    for call in (
        store.commit_outcome("anna", b"ledger", b"other", b"outcome"),
        store.append_events([("anna", b"event")]),
        store.append_events([("anna", b"event"), ("bob", b"event")]),
        store.write_features(home, writes, Offset(2**50, 0), 1),
        store.dead_letters([(b"payload", "reason")]),
        store.publish_policy(b"head 2", {"gold": b"2"}),
        store.save_checkpoint({"a": b"2"}, removed=["a"]),
        store.save_config("v2", b"text"),
    ):
        assert isinstance(await within(2.0, call), StoreFull)
    assert await store.read(["anna", "bob"]) == state
    assert await store.backlog() == backlog
    assert await store.read_policy() == (b"head", {"gold": b"1"})
    assert await store.load_checkpoint() == {"a": b"1"}
    assert await own_server.keys() == names
    again = await RedisStore.open(own_server.url, PARTITIONS)
    assert await again.read(["anna", "bob"]) == state, "a full store can be opened"
    await again.close()
    await own_server.say(b"CONFIG", b"SET", b"maxmemory", b"0")
    assert [type(result) for result in await store.commit_decisions([commit("carl")])] == [Offset]
    await store.close()


async def test_a_decision_that_cannot_be_written_takes_none_of_its_batch_along(redis_store, server) -> None:
    names = [next(f"c{n}" for n in range(99) if partition_of(f"c{n}", PARTITIONS) == home) for home in (0, 1, 2)]
    await server.say(b"SET", KEYS.decisions[1], b"no log")
    results = await redis_store.commit_decisions([commit(name) for name in names])
    assert [type(result) for result in results] == [Offset, StoreError, Offset]
    assert "WRONGTYPE" in str(results[1])
    ledgers = [ledger for _, ledger in await redis_store.read(names)]
    assert ledgers[1] is None
    assert all(ledger.startswith(b"head") for ledger in (ledgers[0], ledgers[2]))


async def test_decisions_of_every_kind_in_one_batch_have_their_own_replies(redis_store, server) -> None:
    await server.say(b"SET", KEYS.features("moved"), MOVED + b"ann")
    kinds = [("a", False), ("moved", True), ("b", True), ("moved", False), ("c", False)]
    results = await redis_store.commit_decisions([commit(name)._replace(unmoved=unmoved) for name, unmoved in kinds])
    assert [type(result) for result in results] == [Offset, Conflict, Offset, Offset, Offset]


async def test_blocking_reads_are_bounded(redis_store) -> None:
    after = dict.fromkeys(range(PARTITIONS), Offset.ZERO)
    blocked = [asyncio.create_task(redis_store.read_events(after, 1, 2_000)) for _ in range(16)]
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable, match="16 blocking reads"):
        await redis_store.read_events(after, 1, 2_000)
    await redis_store.append_events([("anna", b"event")])
    assert all(await asyncio.gather(*blocked))
