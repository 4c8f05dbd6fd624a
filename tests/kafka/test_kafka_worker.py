"""Faust workers: whatever happens to them, the records end as those of one undisturbed fold."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from bench.kafka_broker import Broker
from engine.kafka.producer import Outgoing
from engine.store.base import StoreUnavailable
from tests.kafka.cluster import NOW_MS, Cluster, Session
from tests.waiting import wait_until


def headers(record: object) -> dict[str, str]:
    return {name: value.decode() for name, value in record.headers}  # type: ignore[attr-defined]


@contextmanager
def events_coming(cluster: Cluster, customers: int = 40) -> Iterator[list[int]]:
    """Events published one after the other, in the background; how many were acknowledged so far."""
    ending, acknowledged = threading.Event(), [0]

    async def publish(session: Session) -> None:
        dice, number = random.Random(7), 0
        while not ending.is_set():
            news = [(f"c{dice.randrange(customers)}", number + n, 1.0) for n in range(20)]
            while not ending.is_set():
                try:
                    await session.publish(news)
                    acknowledged[0] += 20
                    time.sleep(0.01)  # two thousand a second leave the machine to the workers
                    break
                except StoreUnavailable:
                    continue  # sent again with the same ids
            number += 20

    publishing = threading.Thread(target=cluster.run, args=(publish,))
    publishing.start()
    try:
        yield acknowledged
    finally:
        ending.set()
        publishing.join(60)


def test_events_are_folded_and_delivered_again_without_changing_a_byte(cluster: Cluster) -> None:
    """The offsets of the group, committed when the worker ends, are reset to the beginning."""
    cluster.run(lambda session: session.publish([(f"c{n % 50}", n, 1.0) for n in range(1_000)]))
    first = cluster.start_worker()
    assert len(cluster.check()) == 50
    cluster.run(lambda session: session.publish([(f"c{n % 50}", n, 1.0) for n in range(1_000, 3_000)]))
    before = cluster.check()
    assert first.stop() == 0

    async def reset(session: Session) -> None:
        group, topic = cluster.topics.group, cluster.topics.events
        homes = [record.partition for record in await session.read(topic)]
        for partition in range(session.known.partitions):
            assert await session.brokers.committed(group, topic, partition) == homes.count(partition)
        consumer = AIOKafkaConsumer(bootstrap_servers=cluster.kafka, group_id=group, enable_auto_commit=False)
        await consumer.start()
        places = [TopicPartition(topic, n) for n in range(session.known.partitions)]
        consumer.assign(places)
        await consumer.commit(dict.fromkeys(places, 0))
        await consumer.stop()

    cluster.run(reset)
    cluster.start_worker()
    cluster.run(lambda session: session.publish([("last", 1, 1.0)]))
    assert {customer: record for customer, record in cluster.check().items() if customer != "last"} == before


def test_what_is_no_event_goes_to_the_dead_letters(cluster: Cluster) -> None:
    """With the reason and where it was; a batch of nothing else, and between events, disturbs nothing."""
    foreign: list[Any] = [b"", None, b"\x00\xff\xfe", b"[]", b"{}", b"[1,2,3,4,5]", b'["c",1,"purchase",1]', b"null"]

    async def publish(session: Session) -> None:
        home = session.known.partition_of("c1")
        await session.producer.send([Outgoing(cluster.topics.events, home, b"k", value) for value in foreign * 20])  # type: ignore[arg-type]
        await session.publish([("c1", 1, 1.0)])
        await session.producer.send([session.record("c1", value or b"") for value in foreign])
        await session.publish([("c1", 2, 2.0)])
        await session.producer.send(
            [Outgoing(cluster.topics.events, (home + 1) % 4, b"c1", orjson.dumps(["c1", 9, "purchase", NOW_MS, {}]))]
        )

    cluster.run(publish)
    cluster.start_worker()
    wanted = len(foreign) * 21 + 1

    async def dead(session: Session) -> list[object]:
        return await session.read(cluster.topics.dead)

    letters = wait_until(lambda: found if len(found := cluster.run(dead)) >= wanted else None, 20, "dead letters")
    assert len(letters) == wanted
    reasons = [headers(letter)["reason"] for letter in letters]
    assert all(reason.startswith(f"{cluster.topics.events}[") for reason in reasons)
    assert sum("belongs to partition" in reason for reason in reasons) == 1

    async def spent(session: Session) -> float:
        [record] = await session.store.read_features(["c1"])
        return float(cluster.catalogue.layout.values(record, NOW_MS + 10)["spent"] or 0)

    assert cluster.run(spent) == 3.0


def test_a_hot_customer_does_not_hold_up_the_others(cluster: Cluster) -> None:
    cluster.run(lambda session: session.publish([("hot", n, 1.0) for n in range(20_000)]))

    async def others(session: Session) -> list[str]:
        home = session.known.partition_of("hot")
        names = [f"c{n}" for n in range(40) if session.known.partition_of(f"c{n}") != home]
        await session.publish([(name, 1, 1.0) for name in names])
        return names

    names = cluster.run(others)
    cluster.start_worker()

    async def known(session: Session) -> tuple[bool, int]:
        records = await session.store.read_features([*names, "hot"])
        hot = records.pop()
        return all(records), 0 if hot is None else cluster.catalogue.layout.header(hot).watermark.seq

    everybody, hot = wait_until(lambda: found if (found := cluster.run(known))[0] else None, 20, "the others")
    assert everybody
    assert hot < 20_000, "the hot customer's events were folded before the others'"
    cluster.check()


def test_a_killed_worker_is_followed_by_another(cluster: Cluster) -> None:
    first = cluster.start_worker()
    with events_coming(cluster) as acknowledged:
        wait_until(lambda: acknowledged[0] > 1_000, 20, "events are coming")
        first.kill()
        cluster.start_worker()
        more = acknowledged[0] + 500
        wait_until(lambda: acknowledged[0] > more, 20, "events are coming")
    assert len(cluster.check()) == 40


def test_workers_come_and_go_under_load(cluster: Cluster) -> None:
    """Partitions move with every start and every stop."""
    first = cluster.start_worker()
    with events_coming(cluster) as acknowledged:
        wait_until(lambda: acknowledged[0] > 500, 20, "events are coming")
        second = cluster.start_worker()
        time.sleep(0.5)
        third = cluster.start_worker()
        assert first.stop() == 0
        time.sleep(0.5)
        assert third.stop() == 0
        more = acknowledged[0] + 500
        wait_until(lambda: acknowledged[0] > more, 20, "events are coming")
    cluster.check()
    assert second.stop() == 0


def test_a_broker_that_starts_again_loses_and_doubles_nothing(cluster: Cluster, own_broker: Broker | None) -> None:
    if own_broker is None:
        pytest.skip("the broker is not ours to kill")
    worker = cluster.start_worker()
    with events_coming(cluster) as acknowledged:
        wait_until(lambda: acknowledged[0] > 500, 30, "events are coming")
        own_broker.kill()
        own_broker.start()
        more = acknowledged[0] + 500
        wait_until(lambda: acknowledged[0] > more, 30, "events are coming")
    records = cluster.check()
    counted = sum(cluster.catalogue.layout.values(record, NOW_MS)["purchases"] for record in records.values())  # type: ignore[misc]
    assert acknowledged[0] <= counted <= acknowledged[0] + 20, "those of the last call may not have been acknowledged"
    assert worker.ready


def test_foreign_events_are_checked_and_keyed_by_customer(cluster: Cluster) -> None:
    """CloudEvents on a topic that is keyed in another way, by several workers, one of which is killed."""
    raw = f"{cluster.topics.prefix}.raw"

    def event(number: int, **other: object) -> bytes:
        usual = {"specversion": "1.0", "id": str(number), "source": "/till", "type": "purchase"}
        return orjson.dumps(usual | {"subject": f"c{number % 25}", "data": {"amount": 1}} | other)

    async def fill(session: Session) -> None:
        await session.brokers.make({raw: 3})
        values = [event(n) for n in range(1_500)]
        values[700:700] = [b"\xff", b"[]", event(1, data={"amount": "much"}), event(2, subject=""), event(3, type="no")]
        values.append(b"[" + event(1_500) + b"," + event(1_501, data={}) + b"]")
        await session.producer.send([Outgoing(raw, n % 3, b"till-%d" % (n % 3), v) for n, v in enumerate(values)])

    cluster.run(fill)
    first = cluster.start_worker(raw)
    second = cluster.start_worker(raw)
    first.kill()

    async def state(session: Session) -> tuple[float, list[str]]:
        records = await session.store.read_features([f"c{n}" for n in range(25)])
        values = [cluster.catalogue.layout.values(record, NOW_MS)["purchases"] for record in records]
        letters = await session.read(cluster.topics.dead)
        return sum(float(value or 0) for value in values), sorted({headers(letter)["reason"] for letter in letters})

    wait_until(lambda: (found := cluster.run(state))[0] >= 1_501 and len(found[1]) >= 6, 30, "all are counted")
    time.sleep(0.3)
    counted, reasons = cluster.run(state)
    assert counted == 1_501
    assert [reason.split(":")[0] for reason in reasons] == [
        "0 events, expected 1 to 1000",
        "attributes[amount]",
        "attributes[amount]",
        "not JSON",
        "subject",
        "type",
    ]
    cluster.check()
    assert second.stop() == 0
