"""The topic that a store was filled from, and no other."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable

import pytest

from engine.errors import BrokerError
from engine.kafka.topics import Brokers, Topics, attach, check, refuse_other_broker
from engine.store import MemoryStore
from tests.kafka.cluster import NOW_MS, Cluster

Work = Callable[[Brokers, Topics, MemoryStore], Awaitable[None]]


def on_topics(kafka: str, work: Work) -> None:
    async def connected() -> None:
        brokers = Brokers(kafka)
        await brokers.open()
        try:
            store = MemoryStore(4, lambda: time.time_ns() // 1_000_000)
            await work(brokers, Topics(f"t{uuid.uuid4().hex[:8]}"), store)
        finally:
            await brokers.close()

    asyncio.run(connected())


def test_topics_are_made_and_remembered(kafka: str) -> None:
    async def work(brokers: Brokers, topics: Topics, store: MemoryStore) -> None:
        known = await attach(brokers, topics, store, NOW_MS, 3)
        assert (known.topic, known.partitions, known.base_ms) == (topics.events, 3, NOW_MS)
        there = await brokers.look(topics.events, topics.decisions, topics.outcomes, topics.dead)
        assert {name: count for name, (count, _) in there.items()} == {
            topics.events: 3,
            topics.decisions: 3,
            topics.outcomes: 3,
            topics.dead: 1,
        }
        assert await attach(brokers, topics, store, NOW_MS + 1, 9) == known, "the number asked for is for new topics"
        await check(brokers, known)

    on_topics(kafka, work)


def test_of_two_who_come_first_both_get_the_same(kafka: str) -> None:
    async def work(brokers: Brokers, topics: Topics, store: MemoryStore) -> None:
        first, second = await asyncio.gather(*(attach(brokers, topics, store, NOW_MS + n, 2) for n in range(2)))
        assert first == second

    on_topics(kafka, work)


def test_a_topic_that_was_made_again_is_refused(kafka: str) -> None:
    async def work(brokers: Brokers, topics: Topics, store: MemoryStore) -> None:
        known = await attach(brokers, topics, store, NOW_MS, 2)
        await brokers._admin.delete_topics([topics.events])
        while await brokers.look(topics.events):
            await asyncio.sleep(0.02)
        for refused in (lambda: attach(brokers, topics, store, NOW_MS, 2), lambda: check(brokers, known)):
            with pytest.raises(BrokerError, match="is not there any more; nothing was folded"):
                await refused()
        await brokers.make({topics.events: 2})
        for refused in (lambda: attach(brokers, topics, store, NOW_MS, 2), lambda: check(brokers, known)):
            with pytest.raises(BrokerError, match="was deleted and made again"):
                await refused()

    on_topics(kafka, work)


def test_another_topic_is_refused(kafka: str) -> None:
    async def work(brokers: Brokers, topics: Topics, store: MemoryStore) -> None:
        await attach(brokers, topics, store, NOW_MS, 1)
        with pytest.raises(BrokerError, match=f"takes its events from topic {topics.events}, not from "):
            await attach(brokers, Topics(topics.prefix + "x"), store, NOW_MS, 1)

    on_topics(kafka, work)


def test_a_store_is_filled_from_its_streams_or_from_kafka(kafka: str) -> None:
    """Positions of the two would be compared with each other, and events be taken for folded."""

    async def work(brokers: Brokers, topics: Topics, store: MemoryStore) -> None:
        [position] = await store.append_events([("anna", b"[]")])
        with pytest.raises(BrokerError, match="1 events wait in the streams of the store"):
            await attach(brokers, topics, store, 1, 1)
        for partition in range(4):
            await store.write_features(partition, [], position, 1)
        await refuse_other_broker(store)
        known = await attach(brokers, topics, store, 1, 1)
        assert known.position(0) > position, "positions of the topic are beyond those of the streams"
        with pytest.raises(BrokerError, match=f"takes its events from the Kafka topic {topics.events}"):
            await refuse_other_broker(store)

    on_topics(kafka, work)


def test_a_worker_ends_when_the_topic_gets_more_partitions(cluster: Cluster) -> None:
    """One that runs within KAFKA_LOOK_MS, one that starts at once; both say what to do."""
    from aiokafka.admin import NewPartitions

    running = cluster.start_worker()

    async def grow(session: object) -> None:
        brokers = Brokers(cluster.kafka)
        await brokers.open()
        await brokers._admin.create_partitions({cluster.topics.events: NewPartitions(6)})
        await brokers.close()

    cluster.run(grow)
    starting = cluster.start_worker(wait=False)
    for worker in (starting, running):
        assert worker.process.wait(20) == 1
        assert f"topic {cluster.topics.events} has 6 partitions, the store was filled from 4" in worker.words
        assert "To go on with what is there now" in worker.words


def test_sources_that_are_none_are_refused(cluster: Cluster) -> None:
    workers = [
        (cluster.start_worker("nowhere", wait=False), "--source nowhere: there is no such topic at "),
        (cluster.start_worker(cluster.topics.dead, wait=False), "that is a topic of this engine"),
    ]
    for worker, told in workers:
        assert worker.process.wait(20) == 1
        assert told in worker.words
