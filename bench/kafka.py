"""Events through Kafka: how fast a Faust worker folds them, and how soon they count.

Throughput is held against an empty Faust agent on the same broker, topic and batch settings, in the same run: what an
agent costs that does nothing with what it gets. It takes its batches with Faust's `stream.take`; a second one takes
them as the worker does, which shows what the fold and the store cost alone.

    python -m bench.kafka agent SETTINGS      a process that is measured; prints events and seconds
"""

import asyncio
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import click
import grpc
import numpy as np
import orjson
import uvloop

from bench.engine import Running, engine, scratch
from bench.eventload import EventLoad
from bench.freshness import BACKGROUND_PER_S, Probe
from bench.kafka_broker import NoKafka, broker
from bench.load import HOW_TO_GET_H2LOAD, generator, opened
from bench.report import Report
from bench.store import private_store
from bench.workload import SMALL, Size, config_text, customer_id, decide_body
from engine.catalogue import Catalogue
from engine.config import load
from engine.kafka.producer import Outgoing, Producer
from engine.kafka.topics import Brokers, Topics, attach
from engine.limits import INGEST_BATCH_MAX, KAFKA_LINGER_MS, PARTITIONS
from engine.store.redis import RedisStore
from engine.worker import ingest_of

RUN_S_MAX: Final = 180
KINDS: Final = ("worker", "empty take", "empty")


def run(*, small: bool) -> Report:
    """Run it and return what was found."""
    report = Report("kafka", generator())
    if not report.generator.startswith("h2load"):
        report.notes.append(HOW_TO_GET_H2LOAD)
    logging.getLogger("aiokafka").setLevel(logging.ERROR)  # a topic that was just made has no leader for a moment
    size, events, seconds = (SMALL, 5_000, 4) if small else (Size(customers=10_000), 200_000, 30)
    try:
        with broker() as kafka:
            _throughput(kafka, size, events, report)
            _freshness(kafka, size, seconds, report)
    except NoKafka as error:
        report.notes.append(f"Not measured: {error}")
    return report


# --- throughput -----------------------------------------------------------------------------------------------------


def _throughput(kafka: str, size: Size, events: int, report: Report) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="opportune-bench-", ignore_cleanup_errors=True) as path,
        private_store(Path(path) / "data") as store,
    ):
        config = Path(path) / "config.yaml"
        config.write_bytes(config_text(size))
        settings = {"kafka": kafka, "redis": store.url, "config": str(config), "events": events, "folder": path}
        settings["prefix"] = f"bench-{time.time_ns()}"
        uvloop.run(_fill(settings, size.customers))
        per_s = {kind: _measured(settings | {"kind": kind}) for kind in KINDS}
    what = f"{events:,} events in {PARTITIONS} partitions, batches of up to {INGEST_BATCH_MAX:,}"
    for kind, name, taking in (
        ("empty take", "kafka.ingest_vs_empty_agent", f"stream.take({INGEST_BATCH_MAX}, within={KAFKA_LINGER_MS} ms)"),
        ("empty", "kafka.ingest_vs_empty_reading", "batches taken as the worker takes them"),
    ):
        against = f"empty Faust agent, {taking}: {per_s[kind]:,.0f}/s; {what}"
        report.add(name, per_s["worker"], "events/s", against, per_s["worker"] / per_s[kind])


async def _fill(settings: dict[str, Any], customers: int) -> None:
    """Events as the gateway would have let them in, round all customers."""
    brokers, producer = Brokers(settings["kafka"]), Producer(settings["kafka"])
    store = await RedisStore.open(settings["redis"], PARTITIONS)
    await brokers.open()
    await producer.open()
    now_ms = time.time_ns() // 1_000_000
    known = await attach(brokers, Topics(settings["prefix"]), store, now_ms, PARTITIONS)
    dice = np.random.default_rng(1)
    for start in range(0, settings["events"], 2_000):
        batch = []
        for number, who in enumerate(dice.integers(customers, size=2_000).tolist(), start):
            customer = customer_id(who)
            kind, attributes = f"channel.event_{number % 8}", {"amount_0": number / 7, "amount_1": 2.5}
            value = orjson.dumps([customer, number + 1, kind, now_ms + number // 10, attributes])
            batch.append(Outgoing(known.topic, known.partition_of(customer), customer.encode(), value))
        await producer.send(batch[: settings["events"] - start], 30_000)
    await producer.close(5.0)
    await brokers.close()
    await store.close()


def _measured(settings: dict[str, Any]) -> float:
    argv = [sys.executable, "-m", "bench.kafka", "agent", json.dumps(settings)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=RUN_S_MAX, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{settings['kind']} ended with {done.returncode}:\n{done.stderr[-2_000:]}")
    events, seconds = map(float, done.stdout.split())
    return events / seconds


class _Meter:
    """Events from the end of the first batch to that of the last."""

    def __init__(self, events: int) -> None:
        self._left = events
        self._first = 0
        self._began_s = 0.0
        self.done = asyncio.Event()

    def count(self, events: int) -> None:
        """A batch is dealt with."""
        if not self._began_s:
            self._began_s, self._first = time.perf_counter(), self._left - events
        self._left -= events
        if self._left <= 0:
            print(self._first, time.perf_counter() - self._began_s, flush=True)
            self.done.set()


async def _agent(settings: dict[str, Any]) -> None:
    from engine.kafka import worker

    meter, folder = _Meter(settings["events"]), Path(settings["folder"]) / settings["kind"]
    topics = Topics(settings["prefix"])
    if settings["kind"] == "worker":
        config, version, text = load(Path(settings["config"]))
        brokers, store = Brokers(settings["kafka"]), await RedisStore.open(settings["redis"], PARTITIONS)
        await brokers.open()
        known = await attach(brokers, topics, store, 0, PARTITIONS)
        catalogue = Catalogue.compile(config, version, text)
        member = worker.Worker(catalogue, ingest_of(catalogue, store), store, brokers, topics, known, folder)
        fold = member._folder.fold

        async def counted(events: dict[str, Any]) -> Any:
            count = sum(map(len, events.values()))
            dead = await fold(events)
            meter.count(count)
            return dead

        member._folder.fold = counted  # type: ignore[method-assign]
        await member.run(meter.done, lambda: None)
        await _check(known, settings)
        return
    group = Topics(f"{settings['prefix']}-{settings['kind'].replace(' ', '-')}")
    app = worker.new_app(group, settings["kafka"], folder)
    own_reading = settings["kind"] == "empty"

    async def agent(stream: Any) -> None:
        if own_reading:
            async for batch in worker.batches(stream.channel, INGEST_BATCH_MAX, KAFKA_LINGER_MS):
                meter.count(len(batch))
        else:
            async for batch in stream.take(INGEST_BATCH_MAX, within=KAFKA_LINGER_MS / 1e3):
                meter.count(len(batch))

    channel = app.topic(topics.events, schema=worker.Raw(), acks=not own_reading)
    app.agent(channel, name="empty")(agent)
    await app.start()
    await meter.done.wait()
    await app.stop()


async def _check(known: Any, settings: dict[str, Any]) -> None:
    """The figure is worth something only if every event is folded."""
    brokers = Brokers(settings["kafka"])
    await brokers.open()
    committed = [await brokers.committed(f"{settings['prefix']}.ingest", known.topic, p) for p in range(PARTITIONS)]
    await brokers.close()
    assert sum(at or 0 for at in committed) == settings["events"], "all was folded and committed"


# --- freshness ------------------------------------------------------------------------------------------------------


def _freshness(kafka: str, size: Size, seconds: int, report: Report) -> None:
    settings = {"kafka": kafka, "prefix": f"bench-{time.time_ns()}", "topic_partitions": PARTITIONS}
    with scratch() as folder:
        settings["faust_folder"] = str(folder.parent / "faust")
        with engine(size, folder, **settings) as running:
            uvloop.run(_probe(running, seconds, report))


async def _probe(running: Running, seconds: int, report: Report) -> None:
    loop = asyncio.get_running_loop()
    events = EventLoad(running.grpc, seconds)
    background = loop.run_in_executor(
        None, lambda: opened(running.grpc, decide_body(), per_second=BACKGROUND_PER_S, seconds=seconds)
    )
    await asyncio.sleep(1.0)
    found: list[float] = []
    deadline_s = time.monotonic() + seconds - 2.0
    async with grpc.aio.insecure_channel(running.grpc) as channel:
        probe = Probe(channel)
        while time.monotonic() < deadline_s:
            found.append(await probe.event())
    load = await background
    events_per_s = await loop.run_in_executor(None, events.acknowledged_per_s)
    against = (
        f"{len(found)} × acknowledged → in a decision, {events_per_s:,.0f} other events/s and "
        f"{load.requests_per_s:,.0f} other decisions/s meanwhile"
    )
    for percent in (50, 99):
        report.add(f"kafka.event_p{percent}_ms", float(np.percentile(np.asarray(found), percent)), "ms", against)


@click.group()
def main() -> None:
    """The processes of this benchmark."""


def _run(work: Callable[[], Awaitable[None]]) -> None:
    # Faust's consumer makes a loop of its own, in a thread, by the policy.
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

    async def main() -> None:
        await work()

    asyncio.run(main())


@main.command()
@click.argument("settings_json")
def agent(settings_json: str) -> None:
    """Measure one agent."""
    _run(lambda: _agent(json.loads(settings_json)))


if __name__ == "__main__":
    main()
