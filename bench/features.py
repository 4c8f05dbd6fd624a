"""What features cost: to fold events into them, to keep them, to read them, each beside what it is held against.

The store is the engine's private one, the fold and the reads are the engine's own code in this process. What is
compared takes turns, so that the machine's drift meets both alike; the figures are medians over the rounds.
"""

import gc
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from statistics import median
from typing import Final, NamedTuple

import numpy as np
import psutil
import redis
import uvloop
from numpy.typing import NDArray
from rich.progress import Progress, TaskID

from bench import feastenv, workload
from bench.engine import scratch
from bench.feastenv import FeastMissing
from bench.featureload import Log, feature_catalogue, fill
from bench.report import Report
from bench.store import private_store, settle, used_memory
from engine.embedded import EmbeddedStore
from engine.ingest import Ingest
from engine.limits import INGEST_BATCH_MAX, PARTITIONS, WRITE_WAIT_MS_MAX
from engine.store.keys import Keys
from engine.store.redis import RedisStore
from engine.store.wire import Address, Connection
from features import Layout, Offset

STATE_EVENTS: Final = 6
"""Events that the state of each customer of cost_10k_to_1m comes from."""
METARANK_BYTES: Final = 0.8 * 2**30 / 1e6
"""What Metarank publishes: 0.8 GiB of Redis for a million users."""
_BATCH: Final = 64


class Amounts(NamedTuple):
    """How much is done."""

    folded: int = 100_000
    """Events of a round of ingest_vs_read …"""
    folded_rounds: int = 5
    customers: int = 10_000
    """… and customers that they belong to; the few customers of cost_10k_to_1m."""
    many: int = 1_000_000
    cost_events: int = 16_000
    """Events of a round of cost_10k_to_1m. Few, because the few customers' state grows with them."""
    cost_rounds: int = 9
    reads: int = 8_000
    read_customers: int = 2_000
    feast_calls: int = 1_000
    feast_rounds: int = 5
    kept: int = 50_000
    """Customers whose memory is measured."""


FULL: Final = Amounts()
SMALL: Final = Amounts(4_000, 2, 500, 2_000, 2_000, 2, 300, 100, 100, 2, 2_000)


def run(*, small: bool) -> Report:
    """Run it and return what was found."""
    amounts = SMALL if small else FULL
    report = Report("features", "the benchmark itself")
    with scratch() as folder, Progress(transient=True, refresh_per_second=2) as progress, _collector_as_in_a_worker():
        _ingest_vs_read(folder / "ingest", amounts, progress, report)
        _cost(folder / "cost", amounts, progress, report)
        _reads(folder / "reads", amounts, progress, report, small=small)
        _bytes(folder / "bytes", amounts, progress, report)
    return report


@contextmanager
def _collector_as_in_a_worker() -> Iterator[None]:
    """The settings of the garbage collector that the engine's processes have."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


# --- ingest ---------------------------------------------------------------------------------------------------------


class Took(NamedTuple):
    """What it took to go through a stretch of the log."""

    events: int
    wall_s: float
    cpu_s: float
    """Of this process, which is the one that reads and folds."""
    store_cpu_s: float
    """Of the store, known to the hundredth of a second."""


def _rate(took: Took) -> float:
    return took.events / took.wall_s


async def _timed(server: EmbeddedStore, work: Awaitable[int]) -> Took:
    store_cpu_s, wall_s, cpu_s = _cpu_s(server), time.perf_counter(), time.process_time()
    events = await work
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    return Took(events, wall_s, cpu_s, _cpu_s(server) - store_cpu_s)


def _cpu_s(server: EmbeddedStore) -> float:
    times = psutil.Process(server.pid).cpu_times()
    return float(times.user + times.system)


async def _read(store: RedisStore, after: Mapping[int, Offset]) -> int:
    """Read the log to its end, as ingest does, and do nothing with it."""
    after, events = dict(after), 0
    while batches := await store.read_events(after, INGEST_BATCH_MAX, 0):
        for partition, entries in batches.items():
            after[partition] = entries[-1].offset
            events += len(entries)
    return events


async def _fold(store: RedisStore) -> int:
    """Fold the log to its end with the engine's ingest."""
    catalogue = feature_catalogue()
    ingest = Ingest(catalogue.layout, store, catalogue.keeper)
    events = 0
    while done := await ingest.round(0):
        events += done
    return events


def _ingest_vs_read(folder: Path, amounts: Amounts, progress: Progress, report: Report) -> None:
    with private_store(folder) as server:
        folds, reads = uvloop.run(_take_turns(server, amounts, progress))
    rate, ceiling = median(map(_rate, folds)), median(map(_rate, reads))
    ratio = median(_rate(fold) / _rate(read) for fold, read in zip(folds, reads, strict=True))
    against = f"merely read, in the same batches of {INGEST_BATCH_MAX:,} a partition: {ceiling:,.0f}/s"
    report.add("features.ingest_vs_read", rate, "events/s", against, ratio)
    events = sum(took.events for took in folds)
    beside_us = sum(took.store_cpu_s for took in folds) / events * 1e6
    first, last = (amounts.folded * rounds // amounts.customers for rounds in (1, len(folds) + 1))
    against = f"CPU time of ingest: {events:,} events, {amounts.customers:,} customers of {first} to {last} events, "
    against += f"40 features, 12 windows; the store takes {beside_us:.2g} µs an event beside it"
    per_core = median(took.events / took.cpu_s for took in folds)
    report.add("features.ingest_events_per_core", per_core, "events/s", against)


async def _take_turns(server: EmbeddedStore, amounts: Amounts, progress: Progress) -> tuple[list[Took], list[Took]]:
    """Each round brings new events of customers who have state; they are folded and merely read, or the reverse."""
    rounds = amounts.folded_rounds + 1
    task = progress.add_task("events folded, events merely read", total=rounds)
    store = await RedisStore.open(server.url, PARTITIONS)
    try:
        log = Log(amounts.customers, amounts.folded * rounds, _now_ms())
        folds, reads = [], []
        for number in range(rounds):
            await log.append(store, amounts.folded)
            start = await store.folded()
            if number % 2:
                reads.append(await _timed(server, _read(store, start)))
            folds.append(await _timed(server, _fold(store)))
            if not number % 2:
                reads.append(await _timed(server, _read(store, start)))
            progress.advance(task)
        assert [took.events for took in folds] == [took.events for took in reads] == [amounts.folded] * rounds
        return folds[1:], reads[1:]  # the first round gives the customers their state
    finally:
        await store.close()


# --- cost by number of customers ------------------------------------------------------------------------------------


def _cost(folder: Path, amounts: Amounts, progress: Progress, report: Report) -> None:
    with private_store(folder / "few") as few, private_store(folder / "many") as many:
        rounds = uvloop.run(_few_and_many(few, many, amounts, progress))[1:]  # the first warms up
    wall = [(of_few.wall_s / of_few.events * 1e6, of_many.wall_s / of_many.events * 1e6) for of_few, of_many in rounds]
    ratio = median(many_us / few_us for few_us, many_us in wall)
    few_us, many_us = map(median, zip(*wall, strict=True))
    among = [f"{_different(count):.0f}" for count in (amounts.customers, amounts.many)]
    against = f"an event with {amounts.customers:,} customers: {few_us:.3g} µs; of {INGEST_BATCH_MAX:,} events in a "
    against += f"batch {among[0]} are of different customers there, {among[1]} here"
    report.add("features.cost_10k_to_1m", many_us, "µs", against, ratio)
    events = len(rounds) * amounts.cost_events
    ours, stores = (
        [sum(getattr(took[at], part) for took in rounds) / events * 1e6 for at in (0, 1)]
        for part in ("cpu_s", "store_cpu_s")
    )
    against = f"CPU time of ingest and store: {ours[1]:.3g} + {stores[1]:.2g} µs; "
    against += f"with {amounts.customers:,} customers {ours[0]:.3g} + {stores[0]:.2g} µs"
    cost, before = ours[1] + stores[1], ours[0] + stores[0]
    report.add("features.cost_10k_to_1m_cpu", cost, "µs", against, cost / before)


def _different(customers: int) -> float:
    """How many customers the events of a full batch are expected to be of, by uniform draws."""
    in_partition = customers / PARTITIONS
    return float(in_partition * (1 - (1 - 1 / in_partition) ** INGEST_BATCH_MAX))


async def _few_and_many(
    few: EmbeddedStore, many: EmbeddedStore, amounts: Amounts, progress: Progress
) -> list[tuple[Took, Took]]:
    """Rounds of the same number of events on a store of few customers and on one of many, all of whom have state.

    The few have new state for each round: it would grow with the rounds, and the many's would not.
    """
    filling = progress.add_task(f"{amounts.many:,} customers with state", total=amounts.many)
    task = progress.add_task("events folded beside few customers and many", total=amounts.cost_rounds + 1)
    stores = [await RedisStore.open(server.url, PARTITIONS) for server in (few, many)]
    events = amounts.cost_events * (amounts.cost_rounds + 1)
    counts = (amounts.customers, amounts.many)
    now_ms = _now_ms()
    logs = [Log(count, events, now_ms) for count in counts]
    few_keys = [Keys(PARTITIONS).features(workload.customer_id(number)) for number in range(amounts.customers)]
    try:
        async for done in fill(stores[1], amounts.many, STATE_EVENTS, now_ms):
            progress.update(filling, completed=done)
        with redis.Redis.from_url(many.url) as control:
            settle(control)
        rounds = []
        for number in range(amounts.cost_rounds + 1):
            with redis.Redis.from_url(few.url) as control:
                for start in range(0, len(few_keys), 1_000):
                    control.delete(*few_keys[start : start + 1_000])
            async for _ in fill(stores[0], amounts.customers, STATE_EVENTS, now_ms):
                pass
            found: dict[int, Took] = {}
            for at in (0, 1) if number % 2 else (1, 0):
                await logs[at].append(stores[at], amounts.cost_events)
                found[at] = await _timed((few, many)[at], _fold(stores[at]))
            rounds.append((found[0], found[1]))
            progress.advance(task)
        return rounds
    finally:
        for store in stores:
            await store.close()


# --- reads ----------------------------------------------------------------------------------------------------------


def _reads(folder: Path, amounts: Amounts, progress: Progress, report: Report, *, small: bool) -> None:
    with private_store(folder) as server:
        layout = workload.catalogue(workload.FULL).layout
        now_ms = _now_ms()
        uvloop.run(_read_and_mget(server, layout, amounts, now_ms, progress, report))
        try:
            python = feastenv.interpreter(make=not small)
            _feast(server, folder / "feast", python, layout, amounts, now_ms, progress, report)
        except FeastMissing as error:
            report.notes.append(f"features.p99_vs_feast is left out: {error}")


async def _read_and_mget(
    server: EmbeddedStore, layout: Layout, amounts: Amounts, now_ms: int, progress: Progress, report: Report
) -> None:
    """The state read of a decision against the MGET in it, for one customer and for a full batch of decisions."""
    store = await RedisStore.open(server.url, PARTITIONS)
    plain = Connection(Address.parse(server.url))
    keys = Keys(PARTITIONS)
    wait_s = WRITE_WAIT_MS_MAX / 1e3
    try:
        async for _ in workload.fill(store, layout, amounts.read_customers, now_ms):
            pass

        async def read(customers: list[str]) -> None:
            found = await store.read(customers)
            layout.read([features for features, _ in found], np.full(len(found), now_ms))

        async def mget(customers: list[str]) -> None:
            command = (b"MGET", *keys.state_of(customers))
            await plain.pipeline((command,), wait_s, look=len(customers) == 1)

        for size, name in ((1, "features.read_vs_mget"), (_BATCH, "features.read_vs_mget_batch")):
            calls = amounts.reads if size == 1 else max(20, amounts.reads // 16)
            task = progress.add_task(f"state reads, {size} at once", total=calls)
            dice = Random(workload.SEED)
            took_us: dict[Callable[[list[str]], Awaitable[None]], list[float]] = {read: [], mget: []}
            for number in range(calls + 100):
                drawn = [workload.customer_id(dice.randrange(amounts.read_customers)) for _ in range(size)]
                for work in (read, mget) if number % 2 else (mget, read):
                    start_s = time.perf_counter()
                    await work(drawn)
                    if number >= 100:
                        took_us[work].append((time.perf_counter() - start_s) * 1e6)
                if number % 100 == 0:
                    progress.update(task, completed=number)
            value, against_us = median(took_us[read]) / size, median(took_us[mget]) / size
            each = "" if size == 1 else f" a customer, {size} at once"
            against = f"plain MGET of the same keys (features, ledger): {against_us:.3g} µs{each}; 64 features"
            report.add(name, value, "µs", against, value / against_us)
    finally:
        await plain.close()
        await store.close()


def _feast(
    server: EmbeddedStore,
    folder: Path,
    python: Path,
    layout: Layout,
    amounts: Amounts,
    now_ms: int,
    progress: Progress,
    report: Report,
) -> None:
    """The same features of the same customers from the same server, by us and by Feast in turn."""
    customers = [workload.customer_id(number) for number in range(amounts.read_customers)]
    task = progress.add_task("the same features by Feast", total=amounts.feast_rounds + 1)
    values = uvloop.run(_values(server, layout, customers, now_ms))
    with feastenv.peer(python, folder, server.socket, customers, layout.names, values) as peer:
        # Which of its ways is the fastest differs by release.
        trial = {way: median(peer.measure(way, amounts.feast_calls // 2)) for way in peer.ways}
        way = min(trial, key=trial.__getitem__)
        progress.advance(task)
        rounds = []
        for _ in range(amounts.feast_rounds):
            theirs_us = peer.measure(way, amounts.feast_calls)
            ours_us = uvloop.run(_our_calls(server, layout, customers, now_ms, amounts.feast_calls))
            rounds.append((theirs_us, ours_us))
            progress.advance(task)
    for percent in (50, 99):
        theirs, ours = ([float(np.percentile(found[at], percent)) for found in rounds] for at in (0, 1))
        ratio = median(their_us / our_us for their_us, our_us in zip(theirs, ours, strict=True))
        against = f"get_online_features of Feast {peer.version} on the same server ({peer.ways[way]}): "
        against += f"{median(theirs):,.0f} µs; one customer, 64 features"
        report.add(f"features.p{percent}_vs_feast", median(ours), "µs", against, ratio)


async def _values(server: EmbeddedStore, layout: Layout, customers: list[str], now_ms: int) -> NDArray[np.float64]:
    store = await RedisStore.open(server.url, PARTITIONS)
    try:
        return layout.read(await store.read_features(customers), np.full(len(customers), now_ms))
    finally:
        await store.close()


async def _our_calls(
    server: EmbeddedStore, layout: Layout, customers: list[str], now_ms: int, calls: int
) -> list[float]:
    """How long each of so many reads of one customer's features took, in µs."""
    store = await RedisStore.open(server.url, PARTITIONS)
    dice = Random(workload.SEED)
    took_us = []
    try:
        for number in range(calls + 100):
            customer = dice.choice(customers)
            start_s = time.perf_counter()
            [(record, _)] = await store.read([customer])
            [row] = layout.read([record], np.array([now_ms]))
            if number >= 100:  # after a warm-up, as there
                took_us.append((time.perf_counter() - start_s) * 1e6)
            assert len(row) == len(layout.names)
    finally:
        await store.close()
    return took_us


# --- memory ---------------------------------------------------------------------------------------------------------


def _bytes(folder: Path, amounts: Amounts, progress: Progress, report: Report) -> None:
    with private_store(folder) as server, redis.Redis.from_url(server.url) as control:
        uvloop.run(_fill(server, 100, 1, progress, progress.add_task("warm-up", total=100)))  # scripts, buffers
        for events_each, name in ((30, "features.bytes_per_customer"), (8, "features.bytes_per_customer_8_events")):
            control.execute_command("FLUSHALL", "SYNC")  # otherwise some of it would be let go later
            before = used_memory(control)
            task = progress.add_task(f"{amounts.kept:,} customers of {events_each} events", total=amounts.kept)
            uvloop.run(_fill(server, amounts.kept, events_each, progress, task))
            value = (used_memory(control) - before) / amounts.kept
            sample = [key for _, key in zip(range(500), control.scan_iter("*f:*", count=1_000), strict=False)]
            own = sum(control.memory_usage(key) for key in sample) / len(sample)
            record = sum(control.strlen(key) for key in sample) / len(sample)
            against = f"{events_each} events each over 90 days, 40 features, 12 windows; record {record:.0f}, its "
            against += f"MEMORY USAGE {own:.0f}; Metarank publishes 0.8 GiB for a million users: {METARANK_BYTES:.0f}"
            report.add(name, value, "bytes", against)


async def _fill(
    server: EmbeddedStore, customers: int, events_each: int, progress: Progress, task: TaskID
) -> None:
    store = await RedisStore.open(server.url, PARTITIONS)
    try:
        async for done in fill(store, customers, events_each, _now_ms()):
            progress.update(task, completed=done)
    finally:
        await store.close()
