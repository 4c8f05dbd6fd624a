"""What the decision itself costs, and whether it keeps what it promises.

- `policy.throughput_1000_vs_100`: 1,000 offers and 300 distinct rules against 100 offers and 40 rules, otherwise the
  same engine under the same load; rounds take turns.
- `policy.explanation_cost`: processor time that goes into what a record keeps for explaining a decision and making it
  again, as a share of a whole decision on the server.
- `policy.replay_equal`: past decisions, drawn at random from the log of that load, made again: share equal to the bit.
- `policy.whatif_per_s`: decisions of that log decided again under one edited configuration and its original, on one
  core; `policy.whatif_8_per_s` under eight edits at once, counted as decisions times edits.
  `policy.whatif_contacts_per_s` under an edited cap, so that everybody's contacts are walked, and
  `policy.whatif_budgets_per_s` under an edited budget, of which units are counted.
- `policy.flip_rate`: share of customers who get another answer in another channel although nothing has changed.
- `policy.overshoot`, `policy.undershoot`, `policy.lease_return`: see bench.overshoot.
- `policy.pacing_vs_lp` and what stands beside it: see bench.pacing.

Both engines have a contact policy, budgets, a guard and levers by rule (bench.workload).
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import Final

import grpc
import numpy as np
import psutil
from numpy.typing import NDArray
from rich.progress import Progress

from bench.driven import checked, fill_customers
from bench.engine import Running, engine, scratch
from bench.load import HOW_TO_GET_H2LOAD, closed, generator
from bench.overshoot import overshoot_rows
from bench.pacing import pacing_rows
from bench.report import Report
from bench.workload import FULL, SMALL, Size, catalogue, config_text, customer_id, decide_body, events_of
from engine.catalogue import Catalogue
from engine.config import parse, version_of
from engine.decide import decide
from engine.drafts import Ask
from engine.learner import prior_policy
from engine.limits import PARTITIONS
from engine.packing import Asked, Drawn, Extra, Ints, Octets, Rested, pack_records
from engine.repeating import repeat_some
from engine.store.redis import RedisStore
from engine.valuecode import packed_rows
from engine.whatif.command import compared
from models import counting
from opportune.v1 import decisions_pb2, decisions_pb2_grpc

IN_FLIGHT: Final = 64
BATCH: Final = 32
LARGE_OFFERS: Final = 1_000
LARGE_RULES: Final = 300
EDITS: Final = 8
CHANNELS: Final = ("web", "branch")


def run(*, small: bool) -> Report:
    """Run it and return what was found."""
    size = replace(SMALL if small else replace(FULL, customers=20_000), channels=CHANNELS, policy=True)
    requests, rounds, again = (400, 1, 200) if small else (20_000, 3, 10_000)
    report = Report("policy", generator())
    if not report.generator.startswith("h2load"):
        report.notes.append(HOW_TO_GET_H2LOAD)
    large = replace(size, offers=LARGE_OFFERS, rules=LARGE_RULES)
    with (
        Progress(transient=True) as progress,
        scratch() as one,
        scratch() as other,
        engine(size, one) as few,
        engine(large, other) as many,
    ):
        for running, of_size in ((few, size), (many, large)):
            fill_customers(running, of_size, progress)
        task = progress.add_task("1,000 offers against 100", total=2 * rounds)
        cpu_us = _throughput(few, many, requests, rounds, report, lambda: progress.advance(task))
        _explanation(size, cpu_us, 0.5 if small else 3.0, report)
        _flips(few, 50 if small else 2_000, report)
        _again(few, again, report)
        _what_if(few, size, report)
    report.rows += [*overshoot_rows(small), *pacing_rows(small)]
    return report


def _throughput(
    few: Running, many: Running, requests: int, rounds: int, report: Report, advance: Callable[[], object]
) -> float:
    """Compare the two; the processor time of a server a decision with few offers, in microseconds."""
    body = decide_body()
    for running in (few, many):
        closed(running.grpc, body, requests=max(200, requests // 10), in_flight=IN_FLIGHT)
    rates: list[tuple[float, float]] = []
    cpu_us = []
    for _ in range(rounds):
        before = _server_cpu_s(few)
        small = checked(few, requests, IN_FLIGHT).requests_per_s
        cpu_us.append((_server_cpu_s(few) - before) / requests * 1e6)
        advance()
        rates.append((small, checked(many, requests, IN_FLIGHT).requests_per_s))
        advance()
    against = f"100 offers, 40 rules: {median(small for small, _ in rates):,.0f}/s"
    ratio = median(large / small for small, large in rates)
    rate = median(large for _, large in rates)
    report.add("policy.throughput_1000_vs_100", rate, "decisions/s", against, ratio)
    return median(cpu_us)


def _server_cpu_s(running: Running) -> float:
    """Processor time of the process that serves."""
    times = psutil.Process(running.server_pid).cpu_times()
    return float(times.user + times.system)


def _explanation(size: Size, cpu_us: float, seconds: float, report: Report) -> None:
    """What a record keeps beside what learning needs, timed on batches like a server's."""
    compiled = catalogue(size)
    policy = prior_policy(compiled)
    now_ms = time.time_ns() // 1_000_000
    states = [(compiled.layout.fold(None, events_of(number, now_ms)).record, None) for number in range(BATCH)]
    asks = [Ask(customer_id(n), 0, 0, (), b"{}", size.slate, now_ms, "en", "", 0) for n in range(BATCH)]
    decide(compiled, policy, asks, states)
    records = [state for state, _ in states]
    times, channels = np.full(BATCH, now_ms), np.zeros(BATCH, np.int64)
    values = np.tile(compiled.fact_defaults, (BATCH, 1))
    values = np.concatenate([compiled.layout.read(records, times), values], axis=1)
    x = compiled.transform.apply(values)
    mean, sd = policy.score(x)
    verdicts = compiled.rule_batch.evaluate(values)
    score, spread, may, _ = compiled.arbitration.score(mean, sd, verdicts, channels, times)
    limits = np.full(BATCH, size.slate)
    nothing = Drawn(
        np.zeros(BATCH, np.int64),
        np.zeros(BATCH),
        np.zeros((BATCH, 0), np.int16),
        np.zeros((BATCH, 0)),
        np.zeros((BATCH, 0, 4)),
        np.zeros((BATCH, 0), np.int64),
    )
    bare_seen = np.zeros(0, np.uint8), np.zeros(BATCH, np.int64)
    no_columns = np.zeros((BATCH, 0), np.int16), np.zeros(BATCH, np.int64)

    def pack(columns: tuple[NDArray[np.int16], Ints], seen: tuple[Octets, Ints]) -> None:
        pack_records(
            Asked.of(times, channels, [0] * BATCH, limits, [b""] * 3 * BATCH),
            np.zeros(BATCH, np.uint64),
            np.zeros((BATCH, 3), np.int64),
            np.ones(BATCH, np.bool_),
            channels,
            x,
            [verdict.held for verdict in verdicts],
            [verdict.failed for verdict in verdicts],
            nothing,
            compiled.offer_table.keys,
            Rested(*columns, mean, sd),
            seen,
            np.zeros(BATCH),
            np.ones(BATCH),
            Extra.none(BATCH),
            bytes(8),
            0,
            0,
        )

    took_us = 0.0
    # Without what a record keeps beside what learning needs, it would be packed all the same: that does not count.
    works: list[tuple[int, Callable[[], None]]] = [
        (1, lambda: pack(counting(score, spread, may, limits), packed_rows(values))),
        (-1, lambda: pack(no_columns, bare_seen)),
    ]
    for sign, work in works:
        rounds, started, deadline = 0, time.process_time(), time.perf_counter() + seconds / 2
        while time.perf_counter() < deadline:
            work()
            rounds += 1
        took_us += sign * (time.process_time() - started) / rounds / BATCH * 1e6
    against = f"{took_us:.2f} µs of {cpu_us:.1f} µs of processor time that the server takes a decision"
    report.add("policy.explanation_cost", 100 * took_us / cpu_us, "%", against, took_us / cpu_us)


def _flips(running: Running, customers: int, report: Report) -> None:
    """Ask for the same people in one channel after the other."""
    flipped = 0
    with grpc.insecure_channel(running.grpc) as channel:
        stub = decisions_pb2_grpc.DecisionsStub(channel)
        for number in range(customers):
            # The server of a benchmark draws a customer for the one that loads name; others it leaves alone.
            answers = [
                stub.Decide(decisions_pb2.DecideRequest(customer_id=customer_id(number), channel=where), timeout=10)
                for where in (*CHANNELS, CHANNELS[0])
            ]
            first, *others = [[(offer.offer_id, offer.propensity) for offer in answer.offers] for answer in answers]
            flipped += any(other != first for other in others)
    against = f"{customers:,} customers, asked for in {', '.join(CHANNELS)} and {CHANNELS[0]} again"
    report.add("policy.flip_rate", flipped / customers, "of customers", against)


def _again(running: Running, count: int, report: Report) -> None:
    async def work() -> tuple[int, int, int]:
        store = await RedisStore.open(running.redis, PARTITIONS)
        try:
            found, seen = await repeat_some(store, count, seed=1)
            return sum(each.equal for each in found), len(found), seen
        finally:
            await store.close()

    equal, made, seen = asyncio.run(work())
    report.add("policy.replay_equal", 100 * equal / made, "%", f"{made:,} decisions drawn from {seen:,}", equal / made)


def _what_if(running: Running, size: Size, report: Report) -> None:
    base = catalogue(size)
    edits = [_edited(size, number) for number in range(EDITS)]
    cap = _with(config_text(size), b"most: 20", b"most: 1")
    budget = _with(config_text(size), b"units: 1000000000", b"units: 10000")

    async def work(edited: Sequence[Catalogue]) -> tuple[int, float]:
        store = await RedisStore.open(running.redis, PARTITIONS)
        try:
            started = time.process_time()
            found = await compared(store, "log", [str(n) for n in range(1 + len(edited))], [base, *edited])
            return int(found.tally.decisions[0]), time.process_time() - started
        finally:
            await store.close()

    for metric, edited, what in (
        ("policy.whatif_per_s", edits[:1], "1 edited configuration"),
        ("policy.whatif_8_per_s", edits, f"{EDITS} edited configurations"),
        ("policy.whatif_contacts_per_s", [cap], "an edited cap"),
        ("policy.whatif_budgets_per_s", [budget], "an edited budget"),
    ):
        decisions, took_s = asyncio.run(work(edited))
        against = f"{decisions:,} decisions under {what} and the original"
        report.add(metric, len(edited) * decisions / took_s, "decisions/s of processor time", against)


def _edited(size: Size, number: int) -> Catalogue:
    """The configuration with a rule and a value changed."""
    text = config_text(size).replace(b"value: ", b"value: 1", 1 + number).replace(b"< 5", b"< 6", 1 + number)
    return Catalogue.compile(parse(text), version_of(text), text)


def _with(text: bytes, old: bytes, new: bytes) -> Catalogue:
    """The configuration with one of its limits changed."""
    assert old in text
    text = text.replace(old, new, 1)
    return Catalogue.compile(parse(text), version_of(text), text)
