"""An engine for a benchmark: `opportune serve` with the serve worker of bench.server, in a process of its own."""

import json
import logging
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from bench import peerenv, server
from bench.load import METHOD
from bench.workload import Size, config_text
from engine.children import WorkerSpec
from engine.cli_serve import shared_port
from engine.datafolder import DataFolder, read_state
from engine.embedded import EmbeddedStore
from engine.supervisor import Supervisor, worker_spec
from engine.worker import main as work

START_S_MAX = 90.0
NATIVE_VERSION = "0.5.0"


@dataclass(frozen=True)
class Running:
    """Where a started engine is."""

    folder: Path
    grpc: str
    http: str
    redis: str
    server_pid: int


@contextmanager
def engine(size: Size, folder: Path, **settings: Any) -> Iterator[Running]:
    """Start an engine on a data folder and end it cleanly; `settings` are for its workers."""
    config = folder.with_suffix(".yaml")
    config.write_bytes(config_text(size))
    argv = [sys.executable, "-m", "bench.engine", str(config), str(folder), str(size.customers), json.dumps(settings)]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        yield _wait(process, folder)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _wait(process: "subprocess.Popen[bytes]", folder: Path) -> Running:
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the engine ended with code {process.returncode}")
        state: dict[str, Any] = read_state(folder)
        if state.get("ready"):
            addresses = state["addresses"]["serve-0"]
            return Running(folder, addresses["grpc"], addresses["http"], state["redis"], state["pids"]["serve-0"])
        time.sleep(0.05)
    raise RuntimeError(f"the engine was not ready within {START_S_MAX} s")


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for data that goes away."""
    with tempfile.TemporaryDirectory(prefix="opportune-bench-", ignore_cleanup_errors=True) as path:
        yield Path(path) / "data"


@contextmanager
def empty_server(transport: str) -> Iterator[str]:
    """A server of empty answers; gives its address."""
    with _ready([sys.executable, "-m", "bench.server", "empty", transport], transport) as address:
        yield address


@contextmanager
def native_peer(*, make: bool) -> Iterator[str]:
    """pygrpc-native's server of empty answers; gives its address. Raises PeerMissing."""
    versions = {"pygrpc-native": NATIVE_VERSION, "uvloop": version("uvloop"), "grpcio": version("grpcio")}
    title = f"pygrpc-native {NATIVE_VERSION}"
    python = peerenv.interpreter(f"pygrpc-native-{NATIVE_VERSION}", title, versions, peerenv.PeerMissing, make=make)
    script = Path(__file__).with_name("native_peer.py")
    # -I: its modules are found in its environment, not here.
    with _ready([str(python), "-I", str(script), METHOD], title) as address:
        yield address


@contextmanager
def _ready(argv: list[str], name: str) -> Iterator[str]:
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            word, _, port = process.stdout.readline().partition(" ")
            if word != "ready":
                raise RuntimeError(f"the empty {name} server did not start")
            yield f"127.0.0.1:{int(port)}"
        finally:
            assert process.stdin is not None
            process.stdin.close()  # its sign to end
            process.wait(10)


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("customers", type=int)
@click.argument("settings_json")
def main(config: Path, data: Path, customers: int, settings_json: str) -> None:
    """Supervise an engine whose serve worker draws customers."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    with DataFolder(data) as folder, shared_port("127.0.0.1:0") as grpc_at, shared_port("127.0.0.1:0") as http_at:
        store = EmbeddedStore(folder)
        settings = json.loads(settings_json) | {"config": str(config), "redis": store.url}
        serving = json.dumps(settings | {"grpc": grpc_at, "http": http_at})
        drawn = ("serve", "--customers", str(customers), "--settings", serving)
        argv = (sys.executable, "-m", "bench.server", *drawn)
        workers = [WorkerSpec("serve-0", argv, stop_order=0, run=partial(server.main, drawn))]
        workers += [worker_spec(role, role, settings, stop_order=1, main=work) for role in ("ingest", "learn")]
        sys.exit(Supervisor(folder, store, workers).run())


if __name__ == "__main__":
    main()
