"""The log in Kafka, read again by commands: features are filled from it, goals counted, and the check looks at it."""

import asyncio
import json
import re
import time
from pathlib import Path

import numpy as np
import orjson
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from click.testing import CliRunner, Result

from engine.catalogue import Catalogue
from engine.cli import main
from engine.cli_store import event_log_of
from engine.config import load
from engine.experiments_schema import Goal
from engine.kafka import eventlog
from engine.kafka.eventlog import TopicLog
from engine.kafka.producer import Outgoing, dead_letters
from engine.lift import goals
from engine.store import FeatureWrite
from features import HEADER_CAS_BYTES, Event, Layout, Offset
from tests.engine_process import CONFIG
from tests.kafka.cluster import NOW_MS, TOPIC_PARTITIONS, Cluster, Session

CUSTOMERS = 40
MORE = CONFIG.replace(
    "offers:",
    """  - {name: spent_30d, event: purchase, function: sum, attribute: amount, window: 30d, resolution: 1}
  - {name: dearest, event: purchase, function: max, attribute: amount}
  - {name: days_since, event: purchase, function: recency}
offers:""",
    1,
)


def events(first: int, count: int) -> list[tuple[str, int, float]]:
    return [(f"c{number * 7 % CUSTOMERS}", number, 1.0 + number % 13) for number in range(first, first + count)]


def changed(cluster: Cluster) -> Path:
    """The configuration with more features, in force; workers that start from now on have it."""
    cluster.config.write_text(MORE)
    cluster.catalogue = Catalogue.compile(*load(cluster.config))
    applied = CliRunner().invoke(main, ["apply", str(cluster.config), "--redis", cluster.redis_url, "--by", "ann"])
    assert applied.exit_code == 0, applied.output
    return cluster.config


def fill(cluster: Cluster, config: Path, *more: str) -> Result:
    options = ["--config", str(config), "--redis", cluster.redis_url, "--from-log", *more]
    return CliRunner().invoke(main, ["backfill", *options])


def test_new_features_are_filled_as_if_they_had_been_declared_from_the_start(cluster: Cluster) -> None:
    async def publish(session: Session, first: int, count: int) -> None:
        await session.publish(events(first, count))
        value = orjson.dumps(["c1", 99, "purchase", NOW_MS, {"amount": 1_000.0}])
        elsewhere = (session.known.partition_of("c1") + 1) % TOPIC_PARTITIONS
        misled = Outgoing(session.known.topic, elsewhere, b"c1", value)
        await session.producer.send([misled, session.record("c2", b"\xff\x00 no event"), session.record("c2", b"")])

    cluster.run(lambda session: publish(session, 0, 600))
    worker = cluster.start_worker()
    before = cluster.check()
    assert worker.stop() == 0
    config = changed(cluster)
    refused = fill(cluster, config)
    assert (refused.exit_code, "name its brokers with --kafka HOST:PORT" in refused.output) == (1, True)

    filled = fill(cluster, config, "--kafka", cluster.kafka)
    assert filled.exit_code == 0, filled.output
    # With the three that are none, or not where they belong: workers pass over them, too.
    assert "filled spent_30d, dearest, days_since from 603 events" in filled.output
    assert f"{CUSTOMERS} customers filled from their first event on; 0 had it all already" in filled.output
    after = cluster.check(timeout_s=1)  # byte for byte
    assert before.keys() == after.keys()
    assert all(before[customer] != after[customer] for customer in before)

    again = fill(cluster, config, "--kafka", cluster.kafka)
    assert f"0 customers filled from their first event on; {CUSTOMERS} had it all already" in again.output
    cluster.check(timeout_s=1)


def test_it_may_be_done_while_workers_fold(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "_RECORDS_A_READ", 150)
    cluster.run(lambda session: session.publish(events(0, 2_000)))
    worker = cluster.start_worker()
    cluster.check()
    assert worker.stop() == 0
    config = changed(cluster)
    cluster.start_worker()

    async def both(session: Session) -> Result:
        async def publish() -> None:
            for first in range(2_000, 4_000, 20):
                await session.publish(events(first, 20))

        publishing = asyncio.create_task(publish())
        await asyncio.sleep(0.2)
        result = await asyncio.to_thread(fill, cluster, config, "--kafka", cluster.kafka)
        await publishing
        return result

    filled = cluster.run(both)
    assert filled.exit_code == 0, filled.output
    assert f"{CUSTOMERS} customers filled from their first event on" in filled.output
    cluster.check()


def test_what_retention_deleted_is_said(cluster: Cluster) -> None:
    cluster.run(lambda session: session.publish(events(0, 400)))
    worker = cluster.start_worker()
    cluster.check()
    assert worker.stop() == 0

    async def cut(session: Session) -> list[int]:
        places = {TopicPartition(session.known.topic, at): RecordsToDelete(50) for at in range(TOPIC_PARTITIONS)}
        await session.brokers._admin.delete_records(places)
        async with TopicLog.opened(cluster.kafka, session.store) as log:
            left = await log.lengths()
            pieces = [await log.read(partition, Offset.ZERO) for partition in range(log.partitions)]
            assert [piece.entries if piece else 0 for piece in pieces] == left
            return left

    left = cluster.run(cut)
    assert sum(left) == 400 - 50 * TOPIC_PARTITIONS
    filled = fill(cluster, changed(cluster), "--kafka", cluster.kafka)
    assert filled.exit_code == 0, filled.output
    assert f"from {sum(left)} events" in filled.output
    assert "customers filled as far back as the log reaches: it does not hold all of their events" in filled.output

    async def compare(session: Session) -> None:
        layout: Layout = cluster.catalogue.layout
        expected = await session.expected()  # of what is left
        for customer, record in zip(expected, await session.store.read_features(list(expected)), strict=True):
            made, kept = layout.values(expected[customer], NOW_MS), layout.values(record, NOW_MS)
            assert kept["dearest"] == made["dearest"]
            assert kept["purchases"] == 10, "what there was stays"

    cluster.run(compare)


def replay(cluster: Cluster, *more: str) -> Result:
    return CliRunner().invoke(main, ["replay", "--config", str(cluster.config), "--redis", cluster.redis_url, *more])


def folded_again(result: Result) -> int:
    found = re.search(r"events folded again\W+([0-9,]+)", result.output)
    assert found is not None, result.output
    return int(found[1].replace(",", ""))


def test_state_is_folded_again_and_compared_byte_for_byte(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "_RECORDS_A_READ", 150)

    async def publish(session: Session) -> None:
        await session.publish(events(0, 600))
        # Workers pass over it, as it is none.
        await session.producer.send([session.record("c2", b"\xff\x00 no event")])

    cluster.run(publish)
    cluster.start_worker()
    cluster.check()
    without = replay(cluster)
    assert (without.exit_code, "without --kafka state is not folded again" in without.output) == (2, True)
    assert folded_again(without) == 0

    async def meanwhile(session: Session) -> Result:
        async def publish() -> None:
            for first in range(600, 1_600, 20):
                await session.publish(events(first, 20))

        publishing = asyncio.create_task(publish())
        await asyncio.sleep(0.1)
        result = await asyncio.to_thread(replay, cluster, "--kafka", cluster.kafka)
        await publishing
        return result

    beside = cluster.run(meanwhile)
    assert beside.exit_code == 0, beside.output
    cluster.check()
    again = replay(cluster, "--kafka", cluster.kafka)
    assert again.exit_code == 0, again.output
    assert folded_again(again) == 1_601

    async def spoil(session: Session) -> None:
        [record] = await session.store.read_features(["c7"])
        other = cluster.catalogue.layout.fold(record, [Event(1, "purchase", NOW_MS, {"amount": 5.0}, Offset(2**50, 1))])
        kept = record[:HEADER_CAS_BYTES]
        assert await session.store.write_records([FeatureWrite("c7", kept, kept + other.record[HEADER_CAS_BYTES:])])

    cluster.run(spoil)
    different = replay(cluster, "--kafka", cluster.kafka)
    assert different.exit_code == 1, different.output
    assert "features of 'c7'" in different.output


def test_what_is_no_longer_there_proves_nothing(cluster: Cluster) -> None:
    cluster.run(lambda session: session.publish(events(0, 400)))
    worker = cluster.start_worker()
    cluster.check()
    assert worker.stop() == 0

    async def cut(session: Session) -> None:
        places = {TopicPartition(session.known.topic, at): RecordsToDelete(50) for at in range(TOPIC_PARTITIONS)}
        await session.brokers._admin.delete_records(places)

    cluster.run(cut)
    found = replay(cluster, "--kafka", cluster.kafka)
    assert found.exit_code == 2, found.output
    assert "it may no longer reach back to the beginning" in found.output
    asked = replay(cluster, "--kafka", cluster.kafka, "--decisions", "3")
    assert (asked.exit_code, "decisions are made again from their records" in asked.output) == (2, True)


def test_the_check_reads_events_and_dead_letters_where_they_are(cluster: Cluster, tmp_path: Path) -> None:
    now_ms = time.time_ns() // 1_000_000

    async def publish(session: Session) -> None:
        await session.publish(events(0, 300))
        late = orjson.dumps(["c1", 77, "purchase", now_ms - 3 * 86_400_000, {"amount": 2.0}])
        refused = "attributes[amount]: -{}.0, expected 0 or more"
        letters = [(b'{"type": "purchase"}', refused.format(number)) for number in range(9)]
        await session.producer.send(
            [session.record("c1", late), session.record("c3", b"?"), *dead_letters(cluster.topics, letters, "publish")]
        )

    cluster.run(publish)
    cluster.start_worker()
    cluster.check()
    report = tmp_path / "report.json"
    options = ["--config", str(cluster.config), "--check", "--redis", cluster.redis_url, "--json", str(report)]
    checked = CliRunner().invoke(main, ["features", *options, "--kafka", cluster.kafka])
    assert checked.exit_code == 1, checked.output
    found = json.loads(report.read_bytes())
    [purchases] = found["events"]
    assert (purchases["type"], purchases["events"]) == ("purchase", 301)
    # From the moment the broker had it, which the positions do not tell.
    assert abs(purchases["lateness_ms_p50"] - (now_ms - NOW_MS)) < 30_000
    groups = {(group["type"], group["pattern"]): group["letters"] for group in found["rejected"]}
    assert groups.pop(("purchase", "attributes[amount]: N, expected N or more")) == 9
    assert sum(groups.values()) == 1, "the worker's own"
    assert "event types: 1 entries of the event log are no events" in checked.output
    assert "WARNING purchase: 9 events (2.89 %) were refused within 7 d" in checked.output


def test_goals_of_experiments_are_counted_there(cluster: Cluster) -> None:
    sent = events(0, 500)
    names = [f"c{number}" for number in range(10)]
    since_ms = np.array([NOW_MS + 10 * number for number in range(10)])
    until_ms = NOW_MS + 400

    async def count(session: Session) -> list[float]:
        async with event_log_of(session.store, cluster.kafka) as log:
            goal = Goal(event="purchase", value="amount")
            return list(await goals.count(session.store, log, goal, names, since_ms, until_ms))

    async def publish(session: Session) -> None:
        await session.publish(sent)
        await session.publish(sent[:100])  # twice is once

    cluster.run(publish)
    expected = [
        sum(amount for name, at, amount in sent if name == person and since <= NOW_MS + at < until_ms)
        for person, since in zip(names, since_ms, strict=True)
    ]
    assert cluster.run(count) == expected

    async def cut(session: Session) -> None:
        await session.brokers._admin.delete_records({TopicPartition(session.known.topic, 1): RecordsToDelete(20)})
        await count(session)

    with pytest.raises(goals.NotCovered, match="partition 1 lacks older entries and begins at"):
        cluster.run(cut)


@pytest.mark.parametrize(
    ("servers", "told"),
    [
        ("nowhere", "'nowhere', expected HOST:PORT[,HOST:PORT…]"),
        ("127.0.0.1:1", "no Kafka broker answers at 127.0.0.1:1"),
    ],
)
def test_brokers_that_are_none(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, servers: str, told: str) -> None:
    monkeypatch.setattr(eventlog, "STORE_ANSWER_MS_MAX", 300)
    cluster.run(lambda session: session.publish(events(0, 10)))
    config = ["--config", str(changed(cluster)), "--kafka", servers]
    for command in (["backfill", "--from-log", "--redis"], ["features", "--check", "--redis"]):
        options = [*command, cluster.redis_url, *config]
        result = CliRunner().invoke(main, options)
        assert (result.exit_code in (1, 2), told in result.output) == (True, True), result.output


def test_a_store_that_is_not_fed_from_there_is_refused(cluster: Cluster) -> None:
    def check() -> Result:
        options = ["--check", "--config", str(cluster.config), "--redis", cluster.redis_url, "--kafka", cluster.kafka]
        return CliRunner().invoke(main, ["features", *options])

    in_streams = "the events of this store are in its own streams: expected no --kafka"
    found = check()
    assert (found.exit_code, in_streams in found.output) == (2, True), found.output
    filled = fill(cluster, cluster.config, "--feature", "spent", "--kafka", cluster.kafka)
    assert (filled.exit_code, in_streams in filled.output) == (1, True), filled.output

    async def delete(session: Session) -> None:
        await session.brokers._admin.delete_topics([session.known.topic])
        while await session.brokers.look(session.known.topic):
            await asyncio.sleep(0.05)

    cluster.run(delete)
    found = check()
    assert (found.exit_code, "is not there any more" in found.output) == (2, True), found.output


def test_kafka_goes_with_what_reads_it(cluster: Cluster) -> None:
    result = CliRunner().invoke(main, ["features", "--config", str(cluster.config), "--kafka", cluster.kafka])
    assert (result.exit_code, "--kafka belongs to --check" in result.output) == (2, True)
    options = ["--config", str(cluster.config), "--redis", cluster.redis_url, "--kafka", cluster.kafka, "x.csv"]
    result = CliRunner().invoke(main, ["backfill", *options])
    assert (result.exit_code, "--kafka goes with --from-log" in result.output) == (2, True)
