"""Load on a gRPC method: h2load where it is installed, a generator of our own (marked as such) where it is not.

h2load (package nghttp2-client) is written in C: it costs little beside the server, so the server is the limit.
"""

import asyncio
import re
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import numpy as np
import uvloop

METHOD: Final = "opportune.v1.Decisions/Decide"
HOW_TO_GET_H2LOAD: Final = "h2load was not found: apt install nghttp2-client. The figures are of the slower generator."
RUN_S_MAX: Final = 180
_APART: Final = 8
_H2LOAD_WAKES_MS: Final = 10


@dataclass(frozen=True)
class Load:
    """What a run measured."""

    requests_per_s: float
    latencies_ms: Sequence[float]
    errors: int

    def percentile_ms(self, percent: float) -> float:
        """A percentile of the latencies."""
        return float(np.percentile(np.asarray(self.latencies_ms), percent))


def generator() -> str:
    """Which generator runs will use."""
    path = shutil.which("h2load")
    if path is None:
        return "python (h2load not found)"
    shown = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    return shown.strip() or "h2load"


def closed(address: str, body: bytes, *, requests: int, in_flight: int) -> Load:
    """As many requests as are answered with so many in flight."""
    if shutil.which("h2load") is None:
        return uvloop.run(_python_load(address, body, requests=requests, in_flight=in_flight))
    clients = min(4, in_flight)
    return _h2load(address, body, ["-n", str(requests), "-c", str(clients), "-m", str(max(1, in_flight // clients))])


def opened(address: str, body: bytes, *, per_second: float, seconds: int) -> Load:
    """Requests sent on a fixed schedule, whether or not earlier ones are answered: no coordinated omission.

    Latencies count from the moment the schedule wanted the request sent; h2load's from the moment it sent it, which is
    up to 10 ms later but does not wait for answers.
    """
    if shutil.which("h2load") is None:
        requests = int(per_second * seconds)
        return uvloop.run(_python_load(address, body, requests=requests, in_flight=1_000, per_second=per_second))
    # All clients of an h2load wake together, every 10 ms at best, and send what is due: one alone sends bursts of a
    # hundredth of the rate, which wait for each other. Several, started apart, spread the moments.
    rate = max(1, round(per_second / (_APART * 2)))
    return _h2load(address, body, ["-D", str(seconds), "-c", "2", "-m", "512", f"--rps={rate}"], processes=_APART)


def _h2load(address: str, body: bytes, arguments: list[str], processes: int = 1) -> Load:
    with tempfile.TemporaryDirectory(prefix="opportune-load-") as folder:
        data = Path(folder) / "body.bin"
        data.write_bytes(b"\0" + struct.pack(">I", len(body)) + body)
        logs = [Path(folder) / f"log-{number}.tsv" for number in range(processes)]
        commands = [
            [
                "h2load", *arguments, "-H", "content-type: application/grpc", "-H", "te: trailers",
                "-d", str(data), f"--log-file={log}", f"http://{address}/{METHOD}",
            ]
            for log in logs
        ]  # fmt: skip
        running: list[subprocess.Popen[str]] = []
        try:
            for command in commands:
                running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
                if processes > 1:
                    time.sleep(_H2LOAD_WAKES_MS / 1e3 / processes)
            told = [process.communicate(timeout=RUN_S_MAX)[0] for process in running]
        finally:
            for process in running:
                process.kill()  # does nothing to one that has ended
        rows = [line.split("\t") for log in logs if log.exists() for line in log.read_text().splitlines()]
    rates = [re.search(r"finished in [^,]+, ([\d.]+) req/s", text) for text in told]
    failures = [re.search(r"(\d+) failed, (\d+) errored, (\d+) timeout", text) for text in told]
    if not rows or any(process.returncode for process in running) or not all(rates) or not all(failures):
        raise RuntimeError("h2load said nothing that can be read:\n" + "\n".join(told))
    return Load(
        sum(float(rate[1]) for rate in rates if rate),
        [int(row[2]) / 1e3 for row in rows],
        sum(int(number) for failed in failures if failed for number in failed.groups()),
    )


async def _python_load(
    address: str, body: bytes, *, requests: int, in_flight: int, per_second: float | None = None
) -> Load:
    latencies: list[float] = []
    errors = 0
    slots = asyncio.Semaphore(in_flight)
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(f"/{METHOD}", request_serializer=bytes, response_deserializer=bytes)

        async def one(wanted_s: float) -> None:
            nonlocal errors
            try:
                await call(body, timeout=10.0)
                latencies.append((time.perf_counter() - wanted_s) * 1e3)
            except grpc.RpcError:
                errors += 1
            finally:
                slots.release()

        started_s = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(requests):
                wanted_s = time.perf_counter()
                if per_second is not None:
                    wanted_s = started_s + number / per_second
                    await asyncio.sleep(max(0.0, wanted_s - time.perf_counter()))
                await slots.acquire()
                group.create_task(one(time.perf_counter() if per_second is None else wanted_s))
        took_s = time.perf_counter() - started_s
    return Load(len(latencies) / took_s, latencies, errors)
