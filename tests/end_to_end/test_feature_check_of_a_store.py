"""`opportune features --check` on a real store that was filled through the door, the real fold and real decisions."""

import asyncio
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import redis
import redis.asyncio
from click.testing import CliRunner, Result

from engine.cli import main
from engine.datafolder import DataFolder
from engine.embedded import EmbeddedStore, find_binary
from engine.featurecheck import thresholds
from engine.featurecheck.reading import client_of
from engine.limits import PARTITIONS
from engine.store import FeatureWrite, RedisStore, partition_of
from engine.store.base import EVENTS_IN_KAFKA
from engine.store.keys import Keys
from features import HEADER_CAS_BYTES
from opportune.v1 import events_pb2
from tests.engine_process import EngineProcess, free_port
from tests.small_engine import CONFIG, SmallEngine, value_of
from tests.waiting import wait_until

HOUR_MS = 3_600_000
CUSTOMERS = 150
DECISIONS = 700

Fault = Callable[[events_pb2.Event], events_pb2.Event]


class Filled:
    """A data folder of an engine that has stopped, and the configuration it had."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.config = folder / "shop.yaml"
        self.config.write_bytes(CONFIG)

    @contextmanager
    def store(self) -> Iterator[str]:
        """Its store, running: the URL."""
        with DataFolder(self.data) as folder:
            store = EmbeddedStore(folder)
            store.start()
            try:
                store.wait_ready()
                yield store.url
            finally:
                store.stop()

    def fill(self, fault: Fault = lambda event: event, minutes_at: Callable[[int], float] = lambda at: 20.0) -> None:
        """Two days of purchases and complaints, then decisions in which people talk for `minutes_at`."""
        with self.store() as url:
            asyncio.run(_fill(url, fault, minutes_at))

    def check(self, *options: str) -> tuple[Result, dict[str, Any]]:
        """(what the command said, its JSON)."""
        json_path = self.data.parent / "report.json"
        where = () if "--redis" in options else ("--data", str(self.data))
        words = ["features", "--config", str(self.config), "--check", *where, "--json", str(json_path), *options]
        result = CliRunner().invoke(main, words)
        return result, orjson.loads(json_path.read_bytes()) if json_path.exists() else {}


async def _fill(url: str, fault: Fault, minutes_at: Callable[[int], float]) -> None:
    rng = np.random.default_rng(5)
    store = await RedisStore.open(url, PARTITIONS)
    try:
        engine = SmallEngine(store=store)
        engine.now_ms = time.time_ns() // 1_000_000
        events = [_event(number, engine.now_ms, rng) for number in range(1_500)]
        for start in range(0, len(events), 500):
            batch = [fault(event) for event in events[start : start + 500]]
            await engine.service.events.publish(events_pb2.PublishRequest(events=batch))
        await engine.fold()
        for at in range(DECISIONS):
            minutes = float(np.clip(rng.normal(minutes_at(at), 5), 0, 60))
            engine.now_ms += 1_000
            intent = ("pay", "borrow", "leave")[at % 3]
            await engine.decide(f"customer-{at % CUSTOMERS}", context={"minutes": minutes, "intent": intent})
    finally:
        await store.close()


def _event(number: int, now_ms: int, rng: np.random.Generator) -> events_pb2.Event:
    """Every tenth is a complaint; times are even over two days, up to now."""
    kind = "complaint" if number % 10 == 9 else "purchase"
    amount, category = float(rng.exponential(50)), str(rng.choice(["food", "travel"]))
    attributes = {"amount": value_of(amount), "category": value_of(category)}
    return events_pb2.Event(
        id=f"event-{number}",
        source="tests",
        type=kind,
        customer_id=f"customer-{rng.integers(CUSTOMERS)}",
        time_ms=now_ms - 48 * HOUR_MS * (1_499 - number) // 1_500,
        attributes=attributes if kind == "purchase" else {},
    )


def found_in(report: dict[str, Any]) -> dict[tuple[str, str], str]:
    """Level of each (subject, problem)."""
    return {(found["subject"], found["problem"]): found["level"] for found in report["findings"]}


@pytest.fixture
def filled(tmp_path: Path) -> Filled:
    return Filled(tmp_path)


def test_a_clean_store_is_clean(filled: Filled) -> None:
    filled.fill()
    result, report = filled.check()
    assert (result.exit_code, report["findings"], report["verdict"]) == (0, [], "clean"), result.output
    assert "shop: clean (no findings)" in result.output
    assert report["records"] == report["records"] | {"customers": CUSTOMERS, "events": 1_500, "damaged": 0, "late": 0}
    assert {row["type"]: row["events"] for row in report["events"]} == {"purchase": 1_350, "complaint": 150}
    assert {row["source"]: row["decisions"] for row in report["drift"]} == dict.fromkeys(
        ["spent_30d", "purchases_7d", "last_category", "intent", "minutes"], DECISIONS
    )
    assert report["caveats"] == []


def test_faults_of_the_producers_are_named(filled: Filled) -> None:
    def fault(event: events_pb2.Event) -> events_pb2.Event:
        number = int(event.id.removeprefix("event-"))
        if event.type == "complaint":
            # From the first day on nobody complains any more.
            return event if number < 500 else _purchase(event, 1.0)
        if number % 20 == 0:
            return _purchase(event, -5.0)
        if number % 7 == 0:
            event.attributes["category"].text = "fodo"
        if number % 3 == 0:
            event.attributes["amount"].number = 50_000.0
        return event

    filled.fill(fault)
    result, report = filled.check()
    assert result.exit_code == 1
    found = found_in(report)
    assert found["complaint", "stopped"] == "warning"
    assert found["purchase", "rejected"] == "warning"
    assert found["purchase.category", "unknown_values"] == "warning"
    assert found["spent_30d", "clipped"] == "warning"
    [refused] = report["rejected"]
    assert (refused["type"], refused["pattern"]) == ("purchase", "attributes[amount]: N, expected N to N")
    assert refused["letters"] == sum(number % 20 == 0 and number % 10 != 9 for number in range(1_500))
    assert 'WARNING purchase: 75 events (5 %) were refused within 7 d: "attributes[amount]: -5.0' in result.output


def _purchase(event: events_pb2.Event, amount: float) -> events_pb2.Event:
    event.type = "purchase"
    event.attributes["amount"].number = amount
    return event


def test_what_producers_send_twice_is_counted(filled: Filled) -> None:
    filled.fill()
    with filled.store() as url:

        async def again() -> None:
            store = await RedisStore.open(url, PARTITIONS)
            engine = SmallEngine(store=store)
            engine.now_ms = time.time_ns() // 1_000_000
            rng = np.random.default_rng(5)
            events = [_event(number, engine.now_ms, rng) for number in range(1_500)]
            await engine.service.events.publish(events_pb2.PublishRequest(events=events[-400:]))
            await engine.fold()
            await store.close()

        asyncio.run(again())
    result, report = filled.check()
    assert result.exit_code == 1
    assert found_in(report) == {("records", "duplicates"): "warning"}
    assert report["records"]["duplicates"] == 400


def test_of_events_in_kafka_nothing_is_said_but_that_they_were_not_looked_at(filled: Filled) -> None:
    filled.fill()
    with filled.store() as url, redis.Redis.from_url(url) as client:
        client.hset("kafka", EVENTS_IN_KAFKA, b"{}")
        client.delete(*Keys(PARTITIONS).events)
    result, found = filled.check()
    assert result.exit_code == 0, result.output
    assert "Event types: not looked at, they are in Kafka" in result.output
    assert "name its brokers with --kafka HOST:PORT" in result.output
    assert "Refused events: not looked at, they are in Kafka" in result.output
    assert (found["events"], found["rejected"]) == (None, None)
    assert not any(finding["section"] in ("events", "rejected") for finding in found["findings"])
    assert found["records"]["customers"] == CUSTOMERS


def test_drift_of_what_decisions_saw_is_named(filled: Filled) -> None:
    filled.fill(minutes_at=lambda at: 20.0 if at < 400 else 45.0)
    result, report = filled.check()
    assert (result.exit_code, found_in(report)) == (1, {("minutes", "drift"): "warning"})
    [moved] = [row for row in report["drift"] if row["source"] == "minutes"]
    assert (moved["first"], moved["last"]) == (pytest.approx(20, abs=1.5), pytest.approx(45, abs=1.5))
    assert re.search(r"WARNING minutes: the mean rose from (19|20|21)\S* to (44|45|46)", result.output)


def test_damaged_records_are_an_error(filled: Filled) -> None:
    filled.fill()
    with filled.store() as url:

        async def damage() -> None:
            store = await RedisStore.open(url, PARTITIONS)
            [record] = await store.read_features(["customer-7"])
            assert record is not None
            wrong = FeatureWrite("customer-7", record[:HEADER_CAS_BYTES], record[:-1] + bytes([record[-1] ^ 1]))
            home = partition_of("customer-7", PARTITIONS)
            at = (await store.folded())[home]
            assert await store.write_features(home, [wrong], at, 0) == [True]
            await store.close()

        asyncio.run(damage())
    result, report = filled.check()
    assert (result.exit_code, found_in(report)) == (1, {("records", "damaged"): "error"})
    assert "ERROR records: 1 of 150 records are damaged" in result.output


def test_a_sample_is_a_sample_and_says_so(filled: Filled) -> None:
    filled.fill()
    result, report = filled.check("--sample", "120")
    assert result.exit_code == 0
    assert report["records"]["customers"] == 120
    assert report["caveats"] == ["features: a sample of 120 customers was read, there are more"]


def test_long_logs_are_read_by_partitions_and_said_so(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thresholds, "EVENTS_READ_MAX", 800)
    monkeypatch.setattr(thresholds, "DECISIONS_COMPARED_MAX", 600)
    filled.fill()
    result, report = filled.check()
    assert (result.exit_code, report["findings"]) == (0, [])
    assert 400 < sum(row["events"] for row in report["events"]) <= 800
    assert report["decisions"]["read"] == DECISIONS / 2
    assert any("of 8 partitions of the event log were read" in caveat for caveat in report["caveats"])
    assert any("one in 2 was compared" in caveat for caveat in report["caveats"])


def test_without_anything_to_look_at_it_cannot_tell(filled: Filled) -> None:
    with filled.store() as url:

        async def begin() -> None:
            await (await RedisStore.open(url, PARTITIONS)).close()

        asyncio.run(begin())
    result, report = filled.check()
    assert (result.exit_code, report["verdict"]) == (2, "cannot_tell"), result.output


@pytest.mark.parametrize(("options", "told"), [
    (("--redis", "redis://127.0.0.1:1/0"), "the store cannot be read"),
    (("--redis", "http://127.0.0.1"), "URL"),
    (("--data", "/nowhere/at/all"), "there is none"),
    (("--config", "/nowhere.yaml"), "cannot be read"),
    (("--data", "x", "--redis", "redis://127.0.0.1:1/0"), "one of them"),
    (("--sample", "0"), "--sample"),
])  # fmt: skip
def test_what_cannot_be_read_is_exit_code_2(filled: Filled, options: tuple[str, ...], told: str) -> None:
    result, report = filled.check(*options)
    assert (result.exit_code, report) == (2, {})
    assert told in result.output


def test_neither_a_store_nor_a_folder_is_a_wrong_use(filled: Filled) -> None:
    result = CliRunner().invoke(main, ["features", "--config", str(filled.config), "--check"])
    assert result.exit_code == 2
    for option in (["--data", str(filled.data)], ["--sample", "9"]):
        result = CliRunner().invoke(main, ["features", "--config", str(filled.config), *option])
        assert (result.exit_code, f"{option[0]} belongs to --check" in result.output) == (2, True)


async def test_the_client_reaches_a_cluster_by_the_first_of_its_addresses(tmp_path: Path) -> None:
    port = free_port()
    settings = {"port": port, "bind": "127.0.0.1", "cluster-enabled": "yes", "dir": tmp_path, "save": ""}
    settings["cluster-port"] = free_port()  # 10,000 above the other, where it lies by default, there may be none
    words = [str(part) for name, value in settings.items() for part in (f"--{name}", value)]
    server = subprocess.Popen([find_binary(), *words], stdout=subprocess.DEVNULL)
    try:
        plain = redis.Redis(port=port)
        wait_until(lambda: answers(plain), 20, "the server answers")
        plain.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        wait_until(lambda: plain.cluster("INFO")["cluster_state"] == "ok", 20, "the cluster is whole")
        client = await client_of(f"redis://127.0.0.1:{port},127.0.0.1:1/0")
        assert isinstance(client, redis.asyncio.RedisCluster)
        for partition in range(PARTITIONS):
            await client.set(b"{p%d}f:ann" % partition, b"")
        assert len([key async for key in client.scan_iter(match=b"{p*}f:*", count=100)]) == PARTITIONS
        assert (await client.xlen(b"{p0}events"), await client.xrevrange(b"dead", b"+", b"-", count=1)) == (0, [])
        await client.aclose()
    finally:
        server.terminate()
        server.wait(20)


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def test_a_running_engine_is_checked_without_being_disturbed(tmp_path: Path) -> None:
    with EngineProcess(tmp_path) as engine, engine.start().client() as client:
        events = [
            events_pb2.Event(id=str(at), source="tests", type="purchase", customer_id="ann",
                             attributes={"amount": value_of(float(at))})
            for at in range(10)
        ]  # fmt: skip
        client.events.Publish(events_pb2.PublishRequest(events=events), timeout=5)
        words = ("features", "--config", str(engine.config), "--check", "--data", str(engine.data))
        done = engine.run(*words, timeout_s=60)
        assert (done.returncode, "shop: clean" in done.stdout) == (0, True), done.stderr
        again = client.events.Publish(events_pb2.PublishRequest(events=events), timeout=5)
        assert again.accepted == 10
