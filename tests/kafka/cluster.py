"""Worker processes on a broker and a store, what goes into their topics, and what must come out."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from engine.catalogue import Catalogue
from engine.config import load
from engine.ingest import logged_event
from engine.kafka.producer import Outgoing, Producer
from engine.kafka.topics import Brokers, Incarnation, Topics, attach
from engine.ledger import hash_of
from engine.limits import PARTITIONS
from engine.store import LogEntry, RedisStore
from features import Event
from tests.engine_process import CONFIG, ROOT
from tests.waiting import wait_until

STORE_PARTITIONS = PARTITIONS
TOPIC_PARTITIONS = 4
NOW_MS = time.time_ns() // 1_000_000
T = TypeVar("T")


class WorkerProcess:
    """One Faust worker, as the supervisor would start it."""

    def __init__(self, settings: dict[str, Any], log: Path) -> None:
        self.log = log
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "engine.worker", "ingest", "--settings", json.dumps(settings)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self._said = b""

    @property
    def ready(self) -> bool:
        assert self.process.stdout is not None
        self._said += self.process.stdout.read() or b""
        assert self.process.poll() is None, self.words
        return self._said.startswith(b"ready")

    @property
    def words(self) -> str:
        """What it logged."""
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)

    def clean_up(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class Cluster:
    """Topics of one engine, its store and its workers."""

    def __init__(self, kafka: str, redis_url: str, folder: Path, prefix: str) -> None:
        self.kafka = kafka
        self.redis_url = redis_url
        self.folder = folder
        self.topics = Topics(prefix)
        self.config = folder / "config.yaml"
        self.config.write_text(CONFIG)
        config, version, text = load(self.config)
        self.catalogue = Catalogue.compile(config, version, text)
        self._workers: list[WorkerProcess] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.clean_up()

    # --- workers ----------------------------------------------------------------------------------------------------

    def start_worker(self, *sources: str, wait: bool = True, **other: Any) -> WorkerProcess:
        at = len(self._workers)
        settings = {
            "config": str(self.config),
            "redis": self.redis_url,
            "kafka": self.kafka,
            "prefix": self.topics.prefix,
            "topic_partitions": TOPIC_PARTITIONS,
            "sources": list(sources),
            "faust_folder": str(self.folder / f"faust-{at}"),
        } | other
        worker = WorkerProcess(settings, self.folder / f"worker-{at}.log")
        self._workers.append(worker)
        if wait:
            wait_until(lambda: worker.ready, 30, "the worker is ready")
        return worker

    # --- what goes in and what must come out ------------------------------------------------------------------------

    def run(self, work: Callable[["Session"], Awaitable[T]]) -> T:
        """Do something on connections of its own."""

        async def connected() -> T:
            session = await Session.open(self)
            try:
                return await work(session)
            finally:
                await session.close()

        return asyncio.run(connected())

    def check(self, timeout_s: float = 30.0) -> dict[str, bytes]:
        """Wait until all that is in the topic is folded: records byte-equal to those of an undisturbed fold."""

        async def compare(session: "Session") -> dict[str, bytes]:
            expected = await session.expected()
            deadline_s = time.monotonic() + timeout_s
            while True:
                found = dict(zip(expected, await session.store.read_features(list(expected)), strict=True))
                if found == expected:
                    return expected
                wrong = [customer for customer, record in expected.items() if found[customer] != record]
                if time.monotonic() > deadline_s:
                    layout, seen = self.catalogue.layout, wrong[0]
                    told = [
                        record and (layout.values(record, NOW_MS), layout.header(record))
                        for record in (expected[seen], found[seen])
                    ]
                    raise AssertionError(f"{len(wrong)} of {len(expected)} records differ: {seen}: {told}")
                await asyncio.sleep(0.05)

        return self.run(compare)


class Session:
    """Connections to a cluster, of one event loop."""

    def __init__(self, cluster: Cluster, brokers: Brokers, producer: Producer, store: RedisStore, known: Incarnation):
        self.cluster = cluster
        self.brokers = brokers
        self.producer = producer
        self.store = store
        self.known = known

    @classmethod
    async def open(cls, cluster: Cluster) -> "Session":
        brokers, producer = Brokers(cluster.kafka), Producer(cluster.kafka)
        store = await RedisStore.open(cluster.redis_url, STORE_PARTITIONS)
        await brokers.open()
        await producer.open()
        known = await attach(brokers, cluster.topics, store, NOW_MS, TOPIC_PARTITIONS)
        return cls(cluster, brokers, producer, store, known)

    async def close(self) -> None:
        await self.producer.close(5.0)
        await self.brokers.close()
        await self.store.close()

    async def publish(self, events: Sequence[tuple[str, int, float]]) -> None:
        """Append (customer, number, amount): purchases, acknowledged in order."""
        records = []
        for customer, number, amount in events:
            value = [customer, hash_of(f"{customer}/{number}"), "purchase", NOW_MS + number, {"amount": amount}]
            records.append(self.record(customer, orjson.dumps(value)))
        for at in range(0, len(records), 500):
            await self.producer.send(records[at : at + 500], 30_000)

    def record(self, customer: str, value: bytes) -> Outgoing:
        return Outgoing(self.known.topic, self.known.partition_of(customer), customer.encode(), value)

    async def read(self, topic: str) -> list[Any]:
        """All records of a topic, partition by partition, in order."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.cluster.kafka, auto_offset_reset="earliest")
        await consumer.start()
        try:
            partitions = (await self.brokers.look(topic))[topic][0]
            places = [TopicPartition(topic, number) for number in range(partitions)]
            ends = await consumer.end_offsets(places)
            consumer.assign(places)
            found: dict[TopicPartition, list[Any]] = {place: [] for place in places}
            await consumer.seek_to_beginning(*places)
            while [place for place in places if ends[place] > await consumer.position(place)]:
                for place, records in (await consumer.getmany(timeout_ms=500)).items():
                    found[place] += records
            return [record for place in places for record in found[place]]
        finally:
            await consumer.stop()

    async def expected(self) -> dict[str, bytes]:
        """What one fold over the whole topic makes of it."""
        events: dict[str, list[Event]] = {}
        for record in await self.read(self.known.topic):
            try:
                customer, event = logged_event(LogEntry(self.known.position(record.offset), record.value or b""))
            except ValueError:
                continue
            if self.known.partition_of(customer) == record.partition:
                events.setdefault(customer, []).append(event)
        fold = self.cluster.catalogue.layout.fold
        return {customer: fold(None, news).record for customer, news in events.items()}
