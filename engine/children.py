"""Worker processes as the supervisor sees them, and how often one may be restarted.

The contract of a worker: one line on stdout when it can serve, the word `ready` and then a JSON object of what it wants
known (its addresses); logs on stderr; on SIGTERM it drains within DRAIN_MS_MAX and exits with 0; it drains and exits as
well when its stdin ends, which is how it learns on every system that the supervisor is gone.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any, Final

import psutil

from engine.datafolder import DataFolder
from engine.forked import Forked, possible
from engine.limits import DRAIN_MS_MAX, RESTARTS_MAX, RESTARTS_WINDOW_MS
from engine.logfile import LogFile, tail

RELOAD_EXIT: Final = 75
"""Exit code of a worker that ends to come back with another version of the configuration: at once, and as often."""
REFUSED_EXIT: Final = 78
"""Exit code of a worker that would only be refused again."""
BACKOFF_MS_MIN: Final = 100
BACKOFF_MS_MAX: Final = 1_000
READY_LINE_BYTES_MAX: Final = 64 * 1024
# With longer waits a worker that always fails could not use up its restarts within the window, and would loop forever.
assert RESTARTS_MAX * BACKOFF_MS_MAX <= RESTARTS_WINDOW_MS // 2


@dataclass(frozen=True)
class WorkerSpec:
    """A process to run: its name in logs and run.json, its command, and its turn when all is stopped (0 first)."""

    name: str
    argv: Sequence[str]
    ready_line: str = "ready"
    stop_order: int = 0
    run: Callable[[], None] | None = None
    """What the command does; the supervisor is forked for it where that is possible, which is faster."""


def worker_spec(
    name: str,
    role: str,
    settings: Mapping[str, Any],
    *,
    stop_order: int,
    main: Callable[[Sequence[str]], None] | None = None,
) -> WorkerSpec:
    """Return the spec of `engine.worker ROLE` in this interpreter; `main` is that of engine.worker."""
    arguments = (role, "--settings", json.dumps(settings))
    run = None if main is None else partial(main, arguments)
    return WorkerSpec(name, (sys.executable, "-m", "engine.worker", *arguments), stop_order=stop_order, run=run)


@dataclass
class Restarts:
    """How long to wait before a process is started again, and when to give up.

    >>> restarts = Restarts(restarts_max=3, window_ms=1_000)
    >>> [restarts.died(now_ms) for now_ms in (0, 100, 300, 400)]
    [100, 200, 400, None]
    >>> restarts.died(5_000)
    100
    """

    restarts_max: int = RESTARTS_MAX
    window_ms: int = RESTARTS_WINDOW_MS
    _at_ms: deque[int] = field(default_factory=deque)

    def died(self, now_ms: int) -> int | None:
        """Return the wait in ms, doubling from BACKOFF_MS_MIN to BACKOFF_MS_MAX; None after too many in the window."""
        while self._at_ms and self._at_ms[0] <= now_ms - self.window_ms:
            self._at_ms.popleft()
        if len(self._at_ms) >= self.restarts_max:
            return None
        self._at_ms.append(now_ms)
        return min(BACKOFF_MS_MIN << (len(self._at_ms) - 1), BACKOFF_MS_MAX)


class Worker:
    """One worker process over all its restarts. Nothing here waits."""

    def __init__(self, spec: WorkerSpec, folder: DataFolder, restarts: Restarts) -> None:
        self.spec = spec
        self.restarts = restarts
        self.log_path = folder.log_path(spec.name)
        self.log = LogFile(self.log_path)
        self.start_at_ms = 0
        """Not to be started before this moment."""
        self.started_ms = 0
        self.ready: dict[str, Any] | None = None
        """What the worker said when it got ready; None while it is not."""
        self.was_ready = False
        self.failed_starts = 0
        """Starts that ended before the worker was ever ready."""
        self._process: subprocess.Popen[bytes] | Forked | None = None
        self._unread = b""
        self._log_from = 0

    @property
    def last_words(self) -> str:
        """The end of what the process of this life logged."""
        return tail(self.log_path, since=self._log_from)

    @property
    def pid(self) -> int | None:
        """The process id while there is a process that was not given up."""
        return self._process.pid if self._process is not None else None

    @property
    def stdout(self) -> IO[bytes]:
        """The stream to wait on; there must be a process."""
        assert self._process is not None and self._process.stdout is not None
        return self._process.stdout

    def start(self, now_ms: int) -> None:
        """Start the process. Raises OSError when the system refuses."""
        assert self._process is None
        with self.log_path.open("ab") as stderr:
            self._log_from = stderr.tell()
            if self.spec.run is not None and possible():
                self._process = Forked(self.spec.run, f"opportune {self.spec.name}", stderr)
            else:
                # A session of its own: Ctrl-C at a terminal reaches the supervisor only, which stops all in order.
                self._process = subprocess.Popen(  # noqa: S603  the caller's own command, no shell
                    self.spec.argv,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    bufsize=0,
                    start_new_session=True,
                )
        os.set_blocking(self.stdout.fileno(), False)
        self.started_ms, self.ready, self._unread = now_ms, None, b""

    def poll(self) -> int | None:
        """Return None while the process runs, else its exit code (0 when there is none)."""
        return self._process.poll() if self._process is not None else 0

    def read(self) -> bool:
        """Take in what the worker wrote; return False at the end of its output."""
        try:
            chunk = os.read(self.stdout.fileno(), READY_LINE_BYTES_MAX)
        except BlockingIOError:
            return True
        if self.ready is not None:
            return bool(chunk)  # after the ready line stdout is only kept from filling up
        *lines, rest = (self._unread + chunk).split(b"\n")
        self._unread = rest[:READY_LINE_BYTES_MAX]
        for line in lines:
            word, _, info = line.decode(errors="replace").strip().partition(" ")
            if word == self.spec.ready_line:
                self.ready, self.was_ready = _parse_info(info), True
        return bool(chunk)

    def terminate(self) -> None:
        """Ask the process to drain and end."""
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None:
            self._process.kill()

    def release(self) -> None:
        """Wait for a process that is dead or killed, and close its pipes."""
        if self._process is None:
            return
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process, self.ready = None, None


def ended(code: int) -> str:
    """How a process ended that has this exit code.

    >>> ended(1), ended(-9), ended(-60)
    ('ended with code 1', 'was killed (SIGKILL)', 'was killed (signal 60)')
    """
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was killed ({signal.Signals(-code).name})"
    except ValueError:  # one of those in real time, which have no names
        return f"was killed (signal {-code})"


def end_earlier_workers(state: Mapping[str, Any]) -> None:
    """End the workers that run.json names and that outlived a killed supervisor.

    Their stdin ended with it, so they drain already and have DRAIN_MS_MAX for that. Two learners must not run at once.
    """
    end_ms = monotonic_ms() + DRAIN_MS_MAX
    pids, born = state.get("pids"), state.get("born")
    if not isinstance(pids, dict) or not isinstance(born, dict):
        return
    for name, pid in pids.items():
        # The store has its own way to end. In a container pids repeat, and an earlier worker's may be ours now.
        if name in ("supervisor", "store") or not isinstance(pid, int) or pid in (os.getpid(), os.getppid()):
            continue
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            # A pid may belong to another program by now. The moment of birth tells, to the clock's adjustments.
            if abs(process.create_time() - float(born.get(name, 0))) > 2:
                continue
            if not wait_gone(process, max(0, end_ms - monotonic_ms())):
                process.kill()
                wait_gone(process, DRAIN_MS_MAX)


def birth(pid: int) -> float:
    """Return when the process began, in seconds since 1970; 0 when it is gone."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return 0.0


def wait_gone(process: psutil.Process, timeout_ms: int) -> bool:
    """Return whether a process that need not be our child ended within `timeout_ms`; a zombie has ended."""
    end_ms = monotonic_ms() + timeout_ms
    try:
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            if monotonic_ms() > end_ms:
                return False
            time.sleep(0.02)
    except psutil.NoSuchProcess:
        pass
    return True


def monotonic_ms() -> int:
    """Return milliseconds of a clock that nobody sets."""
    return time.monotonic_ns() // 1_000_000


def _parse_info(text: str) -> dict[str, Any]:
    try:
        info = json.loads(text)
    except ValueError:
        return {}
    return info if isinstance(info, dict) else {}
