"""How fast a full decision is, against empty calls in the same run.

A full decision reads packed state, fills 64 features, evaluates 40 rules over 100 offers, scores, explores with exact
propensities, and has ledger, record and log written before it answers. Rounds take turns, so that the machine's drift
meets all servers alike; the figures are medians over the rounds.
"""

from dataclasses import replace
from statistics import median
from typing import Any

import redis
from rich.progress import Progress

from bench.driven import checked, decisions, fill_customers
from bench.engine import Running, empty_server, engine, native_peer, scratch
from bench.load import HOW_TO_GET_H2LOAD, closed, generator, opened
from bench.peerenv import PeerMissing
from bench.report import Report
from bench.store import settle, used_memory
from bench.workload import FULL, SMALL, Size, catalogue, decide_body
from models import PosteriorOptions, Statistics, fit, pack_offer

IN_FLIGHT = 64


def run(*, small: bool) -> Report:
    """Run it and return what was found."""
    size = SMALL if small else FULL
    requests, rounds, seconds = (600, 1, 2) if small else (30_000, 3, 10)
    report = Report("decide", generator())
    if not report.generator.startswith("h2load"):
        report.notes.append(HOW_TO_GET_H2LOAD)
    with scratch() as folder, Progress(transient=True) as progress:
        with engine(size, folder) as running:
            _fill(running, size, progress, report)
            task = progress.add_task("100 offers against empty calls", total=rounds * 5)
            throughput = _compare(running, requests, rounds, report, lambda: progress.advance(task))
            try:
                with native_peer(make=not small) as peer:
                    _against_peer(running, peer, requests, rounds, report)
            except PeerMissing as error:
                report.notes.append(f"decide.throughput_vs_pygrpc_native_empty is left out: {error}")
            _half_load(running, throughput, seconds, report)
            _ledger_bytes(running, size, report)
        many = replace(size, offers=1_000)
        with engine(many, folder) as running:
            task = progress.add_task("1,000 offers", total=1)
            _many_offers(running, requests // 3, throughput, report)
            progress.advance(task)
    return report


def _fill(running: Running, size: Size, progress: Progress, report: Report) -> None:
    control = redis.Redis.from_url(running.redis)
    before = used_memory(control)
    fill_customers(running, size, progress)
    features = (used_memory(control) - before) / size.customers
    settle(control)
    report.add("decide.feature_bytes_per_customer", features, "bytes", "Redis memory after against before filling")
    control.close()


def _compare(running: Running, requests: int, rounds: int, report: Report, advance: Any) -> float:
    body = decide_body()
    full, native, grpcio, lone, lone_native = [], [], [], [], []
    lone_requests = max(200, requests // 15)
    with empty_server("native") as at_native, empty_server("grpcio") as at_grpcio:
        for address in (at_native, at_grpcio, running.grpc):
            closed(address, body, requests=requests // 10, in_flight=IN_FLIGHT)
        for _ in range(rounds):
            native.append(closed(at_native, body, requests=requests, in_flight=IN_FLIGHT))
            advance()
            full.append(checked(running, requests, IN_FLIGHT))
            advance()
            grpcio.append(closed(at_grpcio, body, requests=requests // 2, in_flight=IN_FLIGHT))
            advance()
            lone_native.append(closed(at_native, body, requests=lone_requests, in_flight=1))
            advance()
            lone.append(checked(running, lone_requests, 1))
            advance()
    rate: float = median(load.requests_per_s for load in full)
    for name, against in (("transport", native), ("grpcio", grpcio)):
        ceiling = median(load.requests_per_s for load in against)
        ratio = median(a.requests_per_s / b.requests_per_s for a, b in zip(full, against, strict=True))
        what = f"empty call on {'the transport served on' if name == 'transport' else 'grpc.aio'}: {ceiling:,.0f}/s"
        report.add(f"decide.throughput_vs_{name}_empty", rate, "decisions/s", what, ratio)
    p50 = median(load.percentile_ms(50) for load in lone)
    ceiling_ms = median(load.percentile_ms(50) for load in lone_native)
    ratio = median(a.percentile_ms(50) / b.percentile_ms(50) for a, b in zip(lone, lone_native, strict=True))
    report.add("decide.p50_vs_transport_empty", p50, "ms", f"empty call, one caller: {ceiling_ms:.3g} ms", ratio)
    for percent in (50, 99, 99.9):
        value = median(load.percentile_ms(percent) for load in full)
        report.add(f"decide.p{percent:g}_ms_full_load", value, "ms", f"{IN_FLIGHT} in flight, all the time")
    return rate


def _against_peer(running: Running, peer: str, requests: int, rounds: int, report: Report) -> None:
    """Against the empty call of the transport that served here before our own, and that bars were set with."""
    body = decide_body()
    closed(peer, body, requests=requests // 10, in_flight=IN_FLIGHT)
    pairs = []
    for _ in range(rounds):
        full = checked(running, requests // 2, IN_FLIGHT)
        pairs.append((full.requests_per_s, closed(peer, body, requests=requests, in_flight=IN_FLIGHT).requests_per_s))
    rate, ceiling = (median(column) for column in zip(*pairs, strict=True))
    ratio = median(full / empty for full, empty in pairs)
    what = f"empty call on pygrpc-native's asyncio server: {ceiling:,.0f}/s"
    report.add("decide.throughput_vs_pygrpc_native_empty", rate, "decisions/s", what, ratio)


def _half_load(running: Running, throughput: float, seconds: int, report: Report) -> None:
    before = decisions(running)
    load = opened(running.grpc, decide_body(), per_second=throughput / 2, seconds=seconds)
    after = decisions(running)
    against = f"{load.requests_per_s:,.0f} decisions/s on a fixed schedule, half of the throughput"
    for percent in (50, 99, 99.9):
        report.add(f"decide.p{percent:g}_ms_half_load", load.percentile_ms(percent), "ms", against)
    if load.errors:
        report.notes.append(f"half load: {load.errors} requests failed")
    answers, made, degraded = len(load.latencies_ms), *(after[kind] - before[kind] for kind in ("no", "yes"))
    if degraded or made < answers:
        report.notes.append(f"half load: of {answers} answers {made:.0f} were decisions, {degraded:.0f} were degraded")


def _many_offers(running: Running, requests: int, throughput: float, report: Report) -> None:
    closed(running.grpc, decide_body(), requests=max(200, requests // 10), in_flight=IN_FLIGHT)
    load = checked(running, requests, IN_FLIGHT)
    against = f"with 100 offers: {throughput:,.0f} decisions/s"
    fall = throughput / load.requests_per_s
    report.add("decide.fall_100_to_1000_offers", load.requests_per_s, "decisions/s", against, fall)


def _ledger_bytes(running: Running, size: Size, report: Report) -> None:
    with redis.Redis.from_url(running.redis) as control:
        sample = [key for _, key in zip(range(500), control.scan_iter("*l:customer-*", count=1_000), strict=False)]
        ledger = sum(int(control.memory_usage(key) or 0) for key in sample) / max(1, len(sample))
        memory = used_memory(control)
    features = next(row.value for row in report.rows if row.metric == "decide.feature_bytes_per_customer")
    against = f"features {features:,.0f} + ledger {ledger:,.0f} of those decided for; {memory / 2**20:,.0f} MiB in all"
    report.add("decide.bytes_per_customer", features + ledger, "bytes", against)
    transform = catalogue(size).transform
    plain = transform.dimension - transform.waves
    belief, waved = (_belief_bytes(columns) for columns in (plain, transform.dimension))
    against = (
        f"the served belief about one offer, {plain} inputs; {waved:,} where {transform.waves} waves say something; "
        f"held by the store and by every server"
    )
    report.add("decide.bytes_per_offer", belief, "bytes", against)


def _belief_bytes(columns: int) -> int:
    return len(pack_offer(fit(Statistics(columns, 0), ["any"], 0, PosteriorOptions())["any"]))
