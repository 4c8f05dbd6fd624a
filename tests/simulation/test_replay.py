"""Replay finds what is not as the logs say, names it, and says so when the logs cannot tell."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from engine.catalogue import Catalogue
from engine.config import parse, version_of
from engine.learner import Learner
from engine.limits import CUSTOMER_KEY_TTL_MS, PARTITIONS
from engine.replay import DIFFERENCES_NAMED_MAX, Findings, Verdict
from engine.replaying import replay
from engine.store import FeatureWrite, MemoryStore, RedisStore, partition_of
from features import Offset
from tests.engine_process import CONFIG as SHOP
from tests.engine_process import EngineProcess, OwnRedis
from tests.simulation.scenario import CONFIG
from tests.simulation.virtual import START_MS
from tests.simulation.world import World, simulate

NOW_MS = START_MS + 600_000


@pytest.fixture
def world() -> Iterator[World]:
    logging.disable(logging.CRITICAL)
    try:
        yield simulate(seed=3)
    finally:
        logging.disable(logging.NOTSET)


def again(world: World, config: bytes = CONFIG, now_ms: int = NOW_MS, **limits: int) -> Findings:
    catalogue = Catalogue.compile(parse(config), version_of(config), config)
    return asyncio.run(replay(catalogue, world.memory, now_ms=now_ms, **limits))


def put(world: World, what: str, customer: str, change: Callable[[bytes], bytes]) -> None:
    values: Any = vars(world.memory)[what]
    values.put(customer, change(values.get(customer)))


def last_bit_flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def a_customer(world: World) -> str:
    return next(customer for customer, amounts in world.auditor.events.items() if amounts)


def test_an_undisturbed_store_is_equal(world: World) -> None:
    found = again(world)
    assert found.verdict is Verdict.EQUAL
    assert not found.differences and not found.caveats
    events = sum(map(len, world.auditor.events.values()))
    assert found.counts["events folded again"] >= events > 0
    assert found.counts["events not folded yet"] == 0
    assert found.counts["lessons learnt again"] > 0


def test_a_changed_feature_is_named(world: World) -> None:
    customer = a_customer(world)
    put(world, "_features", customer, last_bit_flipped)
    found = again(world)
    assert found.verdict is Verdict.DIFFERENT
    assert any(f"features of {customer!r}" in difference for difference in found.differences)


def test_a_lost_event_is_named(world: World) -> None:
    customer = a_customer(world)
    vars(world.memory)["_features"]._values.pop(customer)
    [difference] = again(world).differences
    assert difference.startswith(f"features of {customer!r}: event ")
    assert "is folded but not in the record" in difference


def test_a_changed_timeline_is_named(world: World) -> None:
    customer = a_customer(world)
    put(world, "_timelines", customer, last_bit_flipped)
    [difference] = again(world).differences
    assert difference.startswith(f"timeline of {customer!r}: ")
    vars(world.memory)["_timelines"]._values.pop(customer)
    [difference] = again(world).differences
    assert difference.startswith(f"timeline of {customer!r}: nothing kept, ")


def test_another_timeline_on_the_way_cannot_tell(world: World) -> None:
    found = again(world, CONFIG.replace(b"timeline: true", b'timeline: {text: "bought"}'))
    assert found.verdict is Verdict.CANNOT_TELL
    [gap] = found.gaps
    assert gap.endswith(": other attributes on the timeline")


def test_a_customer_of_whom_nothing_was_heard_for_long_is_no_difference(world: World) -> None:
    vars(world.memory)["_features"]._values.clear()
    vars(world.memory)["_ledgers"]._values.clear()
    assert again(world).verdict is Verdict.DIFFERENT
    assert again(world, now_ms=NOW_MS + CUSTOMER_KEY_TTL_MS).verdict is Verdict.EQUAL


def test_a_ledger_that_is_not_what_the_log_says_is_named(world: World) -> None:
    customer = next(note.customer for note in world.auditor.decisions.values() if note.offers)
    put(world, "_ledgers", customer, lambda data: data[:4] + bytes([data[4] ^ 1]) + data[5:])
    assert any(f"ledger of {customer!r}: written" in difference for difference in again(world).differences)
    put(world, "_ledgers", customer, lambda data: data[:10])
    assert any(f"ledger of {customer!r}: ledger of 10 bytes" in difference for difference in again(world).differences)


def test_a_changed_checkpoint_is_named(world: World) -> None:
    checkpoint: dict[str, bytes] = vars(world.memory)["_checkpoint"]
    learner = Learner.restore(world.catalogue, world.memory.partitions, checkpoint)
    offer = learner.statistics.offers[0]
    x = learner.statistics.combined(offer, 0, None)[0][:1] * 0
    learner.statistics.learn([offer], [0], x.astype("int8"), [100], [1])
    name = next(name for name in checkpoint if name.endswith(f"statistics:{offer}"))
    checkpoint[name] = learner.statistics.subset([offer]).to_bytes()
    head = next(name for name in checkpoint if name.endswith("head"))
    checkpoint[head] = orjson.dumps(orjson.loads(checkpoint[head]) | {"lessons": -1})
    first, second = again(world).differences
    assert first.startswith("learner's checkpoint, head: ")
    assert second.startswith(f"learner's checkpoint, statistics:{offer}: ")


def test_a_decision_that_the_log_lost_is_named(world: World) -> None:
    log = vars(world.memory)["_decisions"][0]
    gone = log.positions.pop(0)
    log.data.pop(gone)
    found = again(world)
    assert found.verdict is Verdict.DIFFERENT
    assert any("is not in the log" in difference for difference in found.differences)


def test_a_log_that_may_not_reach_back_cannot_tell(world: World) -> None:
    full = {"event_log_entries_max": 5, "decision_log_entries_max": 5}
    assert again(world, **full).verdict is Verdict.EQUAL, "equal is equal, whatever the log may have lost"
    memory: MemoryStore = world.memory
    for log in (*vars(memory)["_events"], *vars(memory)["_decisions"]):
        log.trim(5, log.last)
    found = again(world, **full)
    assert found.verdict is Verdict.CANNOT_TELL
    assert any("may no longer reach back to the beginning" in caveat for caveat in found.caveats)


def test_another_configuration_on_the_way_cannot_tell(world: World) -> None:
    other = CONFIG.replace(b"tile: 10s", b"tile: 5s").replace(b"period: 15s", b"period: 20s")
    found = again(world, other)
    assert found.verdict is Verdict.CANNOT_TELL
    [gap] = found.gaps
    assert gap.endswith(f"configuration {version_of(CONFIG)}: other features, learning period")


def test_only_the_first_differences_are_named_and_all_are_counted() -> None:
    found = Findings()
    found.add(map(str, range(100)))
    assert len(found.differences) == DIFFERENCES_NAMED_MAX
    assert found.different == 100


def test_the_command_names_the_difference_and_exits_with_1(tmp_path: Path) -> None:
    catalogue = Catalogue.compile(parse(SHOP.encode()), version_of(SHOP.encode()))

    async def fill(url: str) -> None:
        store = await RedisStore.open(url, PARTITIONS)
        [at] = await store.append_events([("anna", orjson.dumps(["anna", 1, "purchase", START_MS, {"amount": 5}]))])
        wrong = catalogue.layout.fold(None, []).record[:8] + at.ms.to_bytes(8, "little") + at.seq.to_bytes(8, "little")
        home = partition_of("anna", PARTITIONS)
        assert await store.write_features(home, [FeatureWrite("anna", b"", wrong)], Offset(at.ms, at.seq), 1) == [True]
        await store.close()

    with OwnRedis(tmp_path) as redis, EngineProcess(tmp_path) as engine:
        asyncio.run(fill(redis.url))
        done = engine.run("replay", "--config", str(engine.config), "--redis", redis.url)
    assert done.returncode == Verdict.DIFFERENT
    assert "features of 'anna': record has 24 bytes" in done.stderr
    assert "different" in done.stdout
