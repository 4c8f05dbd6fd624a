import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from engine.datafolder import read_state
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]


class Engine:
    """A handle on one life of tests.runtime.program."""

    def __init__(self, data: Path, journal: Path, **options: Any) -> None:
        self.data = data
        self.stderr_path = journal.with_suffix(".stderr")
        self._seen: set[int] = set()
        options |= {"data": str(data), "journal": str(journal)}
        with self.stderr_path.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.runtime.program", json.dumps(options)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )

    @property
    def state(self) -> dict[str, Any]:
        state = read_state(self.data)
        pids = state.get("pids", {})
        if pids.get("supervisor") == self.process.pid:
            self._seen |= set(pids.values())
        return state

    @property
    def stderr(self) -> str:
        return self.stderr_path.read_text()

    def pid(self, name: str) -> int:
        return int(self.state["pids"][name])

    def wait_ready(self) -> "Engine":
        def ready() -> bool:
            assert self.process.poll() is None, self.stderr
            state = self.state
            return bool(state.get("ready")) and state["pids"]["supervisor"] == self.process.pid

        wait_until(ready, 20, "the engine is ready")
        return self

    def wait_end(self, timeout_s: float = 20) -> int:
        return self.process.wait(timeout_s)

    def kill(self, name: str) -> int:
        """kill -9 one process; return its pid."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        return pid

    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.state["redis"], socket_timeout=2)

    def clean_up(self) -> None:
        _ = self.state  # takes note of the last pids
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        for pid in self._seen:
            # Only what this life started: a pid may belong to another program by now.
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                if str(self.stderr_path.parent) in " ".join([process.cwd(), *process.cmdline()]):
                    process.kill()


@pytest.fixture
def start_engine(tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    lives: list[Engine] = []

    def start(**options: Any) -> Engine:
        options.setdefault("workers", {"serve-0": "good", "learn": "good"})
        lives.append(Engine(options.pop("data", tmp_path / "data"), tmp_path / f"journal{len(lives)}", **options))
        return lives[-1]

    yield start
    for life in lives:
        life.clean_up()


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
