"""A real engine for tests: `opportune serve` in processes of its own, and the commands of `opportune` against it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import grpc
import psutil

from engine.datafolder import read_state
from engine.embedded import find_binary
from engine.limits import STOP_MS_MAX
from opportune.v1 import (
    customers_pb2_grpc,
    decisions_pb2_grpc,
    events_pb2_grpc,
    feedback_pb2_grpc,
)
from tests.waiting import wait_until

ROOT = Path(__file__).parents[1]
READY_S_MAX = 30.0

CONFIG = """
opportune: 1
name: shop
limit: 2
channels: [{id: web}, {id: branch}]
context:
  - {name: minutes, type: number, input: {range: [0, 60]}}
events:
  - type: purchase
    attributes: {amount: {type: number, required: true}}
features:
  - {name: spent, event: purchase, function: sum, attribute: amount, resolution: 1, meaning: money spent}
  - {name: purchases, event: purchase, function: count, input: {kind: log, range: [0, 100]}}
offers:
  - {id: card, value: 40, treatments: [{text: a card}]}
  - {id: loan, value: 90, contact_cost: 1, treatments: [{text: a loan}]}
  - {id: help, kind: service, value: 30, channels: [branch], treatments: [{text: help}]}
fallback: [card]
"""


def free_port() -> int:
    """A port that nobody listens on, for an engine that shall come back on the same one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Client:
    """The four services on one channel that reconnects quickly."""

    def __init__(self, address: str) -> None:
        options = [
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 300),
            ("grpc.use_local_subchannel_pool", 1),  # a connection of its own
        ]
        self.channel = grpc.insecure_channel(address, options)
        self.decisions = decisions_pb2_grpc.DecisionsStub(self.channel)
        self.feedback = feedback_pb2_grpc.FeedbackStub(self.channel)
        self.events = events_pb2_grpc.EventsStub(self.channel)
        self.customers = customers_pb2_grpc.CustomersStub(self.channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()


class EngineProcess:
    """An engine on a data folder, over any number of lives. Leave the `with` block and nothing of it runs."""

    def __init__(self, folder: Path, *options: str, config: str = CONFIG) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.config = folder / "config.yaml"
        self.config.write_text(config)
        self.log = folder / "serve.log"
        self.grpc = f"127.0.0.1:{free_port()}"
        self.http = f"127.0.0.1:{free_port()}"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._seen: dict[int, psutil.Process] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clean_up()

    # --- one life ---------------------------------------------------------------------------------------------------

    def start(self, *options: str) -> Self:
        """Start it and return when all of it can serve."""
        assert self._process is None or self._process.poll() is not None
        addresses = ("--grpc", self.grpc, "--http", self.http)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.argv("serve", "--data", str(self.data)), *addresses, *self._options, *options],
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )
        self.wait_ready()
        return self

    def wait_ready(self, *, replaced: int | None = None) -> None:
        """Wait until all of this life can serve; `replaced` is a process that must not be among them any more."""

        def ready() -> bool:
            assert self._process is not None and self._process.poll() is None, self.last_words()
            state = self.state
            pids = state.get("pids", {})
            mine = pids.get("supervisor") == self._process.pid and replaced not in pids.values()
            return mine and bool(state.get("ready"))

        wait_until(ready, READY_S_MAX, f"the engine is ready; its log ends with\n{self.last_words()}")

    @property
    def state(self) -> dict[str, Any]:
        """run.json, with a note of the processes it names."""
        state = read_state(self.data)
        for pid in state.get("pids", {}).values():
            with contextlib.suppress(psutil.Error):
                self._seen.setdefault(pid, psutil.Process(pid))
        return state

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name: supervisor, store, serve-0, ingest, learn; empty when it is stopped."""
        return dict(self.state.get("pids", {}))

    @property
    def redis_url(self) -> str:
        """Where its store is."""
        if "--redis" in self._options:
            return self._options[self._options.index("--redis") + 1]
        return str(self.state["redis"])

    def last_words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-3_000:] if self.log.exists() else ""

    def client(self) -> Client:
        """A client on a connection of its own."""
        return Client(self.grpc)

    def signal(self, name: str, number: signal.Signals) -> int:
        """Send a signal to one of its processes; returns the process id."""
        pid = self.pids[name]
        os.kill(pid, number)
        return pid

    def stop(self) -> int:
        """SIGTERM, and the exit code; it has to come within STOP_MS_MAX."""
        assert self._process is not None
        _ = self.state
        self._process.terminate()
        return self._process.wait(STOP_MS_MAX / 1e3 + 2)

    def kill_all(self) -> None:
        """kill -9 of all its processes, and wait until they are gone."""
        for pid in self.pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait_gone()

    def wait_gone(self) -> None:
        """Wait until nothing of this life runs."""
        assert self._process is not None
        self._process.wait(READY_S_MAX)
        wait_until(lambda: not self._running(), READY_S_MAX, "all processes are gone")

    def clean_up(self) -> None:
        """End whatever is left of any life."""
        if self._process is not None and self._process.poll() is None:
            _ = self.state
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_MS_MAX / 1e3)
            self._process.kill()
            self._process.wait()
        for process in self._running():
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGCONT)
                process.kill()

    def _running(self) -> list[psutil.Process]:
        # is_running() compares the moment of birth too: a pid may be another program's by now.
        found = []
        for process in self._seen.values():
            with contextlib.suppress(psutil.Error):
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    # --- commands ---------------------------------------------------------------------------------------------------

    def argv(self, command: str, *arguments: str) -> list[str]:
        """A command that takes the configuration."""
        return [sys.executable, "-m", "engine.cli", command, "--config", str(self.config), *arguments]

    def run(self, *argv: str, timeout_s: float = 30.0) -> "subprocess.CompletedProcess[str]":
        """Run `opportune ARGV…` to its end."""
        command = [sys.executable, "-m", "engine.cli", *argv]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)

    def replay(self, *where: str) -> str:
        """Replay everything; fails unless it comes out equal."""
        done = self.run("replay", "--config", str(self.config), *(where or ("--data", str(self.data))))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


class OwnRedis:
    """A server that is not the engine's, for --redis; on a unix socket without a file."""

    def __init__(self, folder: Path) -> None:
        self.url = f"unix://{folder / 's'}"
        arguments = ("--port", "0", "--unixsocket", str(folder / "s"), "--save", "", "--dir", str(folder))
        self._process = subprocess.Popen([str(find_binary()), *arguments], stdout=subprocess.DEVNULL)
        wait_until((folder / "s").exists, 10, "the server listens")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)
