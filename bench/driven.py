"""Driving a running engine: customers with state, and load of which every request is known to be a full decision."""

import asyncio
import time
import urllib.request

from prometheus_client.parser import text_string_to_metric_families
from rich.progress import Progress

from bench.engine import Running
from bench.load import Load, closed
from bench.workload import Size, catalogue, decide_body, fill
from engine.limits import PARTITIONS
from engine.store.redis import RedisStore


def fill_customers(running: Running, size: Size, progress: Progress) -> None:
    """Write the state of all customers into the engine's store."""
    task = progress.add_task(f"{size.customers:,} customers with state", total=size.customers)

    async def work() -> None:
        store = await RedisStore.open(running.redis, PARTITIONS)
        try:
            async for done in fill(store, catalogue(size).layout, size.customers, time.time_ns() // 1_000_000):
                progress.update(task, completed=done)
        finally:
            await store.close()

    asyncio.run(work())


def checked(running: Running, requests: int, in_flight: int) -> Load:
    """Load the engine and make sure that every request was a full decision: HTTP says 200 to a refusal, too."""
    before = decisions(running)
    load = closed(running.grpc, decide_body(), requests=requests, in_flight=in_flight)
    after = decisions(running)
    made, degraded = (after[kind] - before[kind] for kind in ("no", "yes"))
    if load.errors or degraded or made < requests:
        raise RuntimeError(f"of {requests} requests {made:.0f} became decisions, {degraded:.0f} were degraded")
    return load


def decisions(running: Running) -> dict[str, float]:
    """How many decisions were made so far, by whether they were degraded: "no" and "yes"."""
    with urllib.request.urlopen(f"http://{running.http}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    counts = {"no": 0.0, "yes": 0.0}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "opportune_decisions_total":
                counts[sample.labels["degraded"]] = sample.value
    return counts
