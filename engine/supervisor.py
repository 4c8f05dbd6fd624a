"""The parent of all processes of an embedded engine: starts them, starts them again, stops them in order.

    store:   down ──start──► starting ──answers──► up          worker:  waiting ──► starting ──"ready"──► ready
              ▲                  │                 │                       ▲            │                  │
              └─────── wait ◄────┴───── dies ──────┘                       └── wait ◄───┴───── dies ───────┘

Rules. Workers are started only while the store is up, so the store always comes back first; workers that live
reconnect by themselves. Waits grow from BACKOFF_MS_MIN to BACKOFF_MS_MAX. After RESTARTS_MAX restarts of one process
within RESTARTS_WINDOW_MS, or FIRST_STARTS_MAX starts of a worker that was never ready, everything is stopped and `run`
returns 1.

Stop. SIGTERM, SIGINT and SIGHUP stop workers by ascending `stop_order`, each turn within DRAIN_MS_MAX, then the store;
all of it within STOP_MS_MAX. A Ctrl-C during the stop kills at once, which loses nothing acknowledged either.

A plain loop on purpose: it waits on the workers' output and on signals, and looks at everything each TICK_MS.
"""

import logging
import os
import re
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from engine.children import (
    REFUSED_EXIT,
    RELOAD_EXIT,
    Restarts,
    Worker,
    WorkerSpec,
    birth,
    end_earlier_workers,
    ended,
    monotonic_ms,
    worker_spec,
)
from engine.datafolder import DataFolder
from engine.embedded import STORE_STOP_MS_MAX, EmbeddedStore
from engine.errors import OpportuneError
from engine.limits import DISK_LOOK_MS, DRAIN_MS_MAX, RESTARTS_MAX, RESTARTS_WINDOW_MS, START_MS_MAX, STOP_MS_MAX
from engine.logfile import LogFile, tail

__all__ = ["Supervisor", "WorkerSpec", "worker_spec"]

log = logging.getLogger("opportune.supervisor")

TICK_MS: Final = 50
STORE_SERIOUS: Final = re.compile(rb" # (?!WARNING Memory overcommit|\w+ is now ready to exit)")
"""How the store marks warnings. Those of each start and each stop stay in its log."""
FIRST_STARTS_MAX: Final = 3
"""Starts of a worker that was never ready. A wrong setting does not mend itself; a store that died meanwhile does."""


class Supervisor:
    """Runs the store, if it is ours, and the workers until a signal or a process that keeps failing.

    `run` belongs in the main thread, which alone receives signals. `on_ready` is called once, when all can serve the
    first time.
    """

    def __init__(
        self,
        folder: DataFolder,
        store: EmbeddedStore | None,
        workers: Sequence[WorkerSpec],
        on_ready: Callable[[], None] | None = None,
        *,
        restarts_max: int = RESTARTS_MAX,
        restarts_window_ms: int = RESTARTS_WINDOW_MS,
    ) -> None:
        assert len({spec.name for spec in workers} | {"supervisor", "store"}) == len(workers) + 2, "names are unique"
        # Every turn may take its full bound, and the store still has its own.
        self._turns = sorted({spec.stop_order for spec in workers})
        assert len(self._turns) * DRAIN_MS_MAX + STORE_STOP_MS_MAX <= STOP_MS_MAX
        self._folder = folder
        self._store = store
        self._store_restarts = Restarts(restarts_max, restarts_window_ms)
        self._store_start_at_ms: int | None = None
        """When to start the store again; None while its process is there."""
        self._disk_look_ms = 0
        self._store_up = store is None
        self._store_was_up = False
        self._store_log = LogFile(store.log_path, STORE_SERIOUS) if store is not None else None
        self._workers = [Worker(spec, folder, Restarts(restarts_max, restarts_window_ms)) for spec in workers]
        self._on_ready = on_ready
        self._announced = False
        self._signals: list[int] = []
        self._selector = selectors.DefaultSelector()
        self._state: dict[str, Any] = {}
        self._born: dict[int, float] = {}
        self._since_ms = time.time_ns() // 1_000_000

    def run(self) -> int:
        """Run until stopped. Return 0 after a clean stop, 1 when something kept failing or did not drain (logged)."""
        code = 0
        with self._signal_handlers():
            try:
                end_earlier_workers(self._folder.earlier)
                if self._store is not None:
                    self._store.start()
                self._folder.forget_earlier()
                while not self._signals:
                    self._tend_store()
                    self._tend_workers()
                    self._write_state()
                    self._announce()
                    self._wait()
            except OpportuneError as error:
                log.error("%s", error)
                code = 1
            finally:
                drained = self._stop()
        return code if drained else 1

    # --- while it runs ----------------------------------------------------------------------------------------------
    def _tend_store(self) -> None:
        store, now_ms = self._store, monotonic_ms()
        if store is None:
            return
        if self._store_start_at_ms is not None:
            if now_ms >= self._store_start_at_ms:
                store.start()
                self._store_start_at_ms = None
        elif (code := store.poll()) is not None:
            self._store_up = False
            # A file that cannot be read or a wrong binary stays so: only a store that once worked is started again.
            wait_ms = self._store_restarts.died(now_ms) if self._store_was_up else None
            if wait_ms is None:
                raise store.failure()
            log.warning("the store %s and is started again", ended(code))
            self._store_start_at_ms = now_ms + wait_ms
        elif not self._store_up:
            self._store_up = store.ready()
            self._store_was_up |= self._store_up
            if not self._store_up and store.stuck():
                raise store.failure()
        elif now_ms >= self._disk_look_ms:
            self._disk_look_ms = now_ms + DISK_LOOK_MS
            store.disk.check()

    def _tend_workers(self) -> None:
        for worker in self._workers:
            now_ms = monotonic_ms()
            if worker.pid is None:
                if self._store_up and now_ms >= worker.start_at_ms:
                    self._start(worker, now_ms)
            elif (code := worker.poll()) is not None:
                if code == REFUSED_EXIT and not worker.was_ready:
                    raise OpportuneError(f"{worker.spec.name} does not start: {tail(worker.log_path, 1).strip()}")
                if code == RELOAD_EXIT and worker.was_ready:
                    log.info("%s comes back with another version of the configuration", worker.spec.name)
                    self._release(worker)
                    worker.start_at_ms = now_ms
                else:
                    self._schedule(worker, ended(code), now_ms)
            elif worker.ready is None and now_ms - worker.started_ms > START_MS_MAX:
                log.warning("%s was not ready within %d ms and is killed", worker.spec.name, START_MS_MAX)
                worker.kill()

    def _start(self, worker: Worker, now_ms: int) -> None:
        try:
            worker.start(now_ms)
        except OSError as error:
            self._schedule(worker, f"could not be started ({error})", now_ms)
            return
        self._selector.register(worker.stdout, selectors.EVENT_READ, worker)

    def _schedule(self, worker: Worker, how: str, now_ms: int) -> None:
        """Take note of a worker's death and when it is started again; raise OpportuneError when it died too often."""
        name = worker.spec.name
        self._release(worker)
        wait_ms = worker.restarts.died(now_ms)
        worker.failed_starts += not worker.was_ready
        words = f"; end of {worker.log_path}:\n{worker.last_words}"
        what = f"{name} {how}{words}"
        if worker.failed_starts >= FIRST_STARTS_MAX:
            raise OpportuneError(f"{name} does not start: {FIRST_STARTS_MAX} times in a row, {what}")
        if wait_ms is None:
            raise OpportuneError(f"{name} keeps failing, the engine stops: {what}")
        log.warning("%s %s and is started again%s", name, how, words)
        worker.start_at_ms = now_ms + wait_ms

    def _release(self, worker: Worker) -> None:
        if worker.pid is not None and worker.stdout in self._selector.get_map():
            self._selector.unregister(worker.stdout)
        worker.release()

    def _announce(self) -> None:
        if not self._announced and self._store_up and all(worker.ready is not None for worker in self._workers):
            self._announced = True
            if self._on_ready is not None:
                self._on_ready()

    def _write_state(self) -> None:
        pids = {"supervisor": os.getpid()}
        if self._store is not None and self._store.pid is not None and self._store.poll() is None:
            pids["store"] = self._store.pid
        pids |= {worker.spec.name: worker.pid for worker in self._workers if worker.pid is not None}
        state = {
            "since_ms": self._since_ms,
            "ready": self._store_up and all(worker.ready is not None for worker in self._workers),
            "redis": self._store.url if self._store is not None else None,
            "socket": str(self._folder.socket),
            "pids": pids,
            "addresses": {worker.spec.name: worker.ready for worker in self._workers if worker.ready},
        }
        if state == self._state:
            return
        self._born = {pid: self._born.get(pid) or birth(pid) for pid in pids.values()}
        try:
            self._folder.write_state(state | {"born": {name: self._born[pid] for name, pid in pids.items()}})
        except OSError as error:
            # A full disk must not take the engine down; the file is for people and for the next start.
            if self._state.get("pids") != pids:
                log.warning("run.json of %s is out of date: %s", self._folder.path, error)
        self._state = state

    def _wait(self) -> None:
        """Wait for output or a signal, TICK_MS at most; pass serious log lines on."""
        for key, _ in self._selector.select(TICK_MS / 1_000):
            if isinstance(key.data, Worker):
                if not key.data.read():
                    self._selector.unregister(key.fileobj)
            else:
                key.data.recv(4_096)
        for worker in self._workers:
            for line in worker.log.warnings():
                log.warning("%s: %s", worker.spec.name, line)
        if self._store_log is not None:
            for line in self._store_log.warnings():
                log.warning("store: %s", line)

    # --- the end ----------------------------------------------------------------------------------------------------
    def _stop(self) -> bool:
        """Stop everything within STOP_MS_MAX; return whether all of it ended by itself."""
        drained = True
        for turn in self._turns:
            workers = [worker for worker in self._workers if worker.spec.stop_order == turn and worker.pid is not None]
            for worker in workers:
                worker.terminate()
            self._wait_for_end(workers, DRAIN_MS_MAX)
            for worker in workers:
                if worker.poll() is None:
                    log.warning("%s did not drain in time (%d ms) and is killed", worker.spec.name, DRAIN_MS_MAX)
                    worker.kill()
                    drained = False
                self._release(worker)
        if self._store is not None:
            self._store.terminate()
            self._wait_for_end([self._store], STORE_STOP_MS_MAX)
            if self._store.poll() is None:
                log.warning("the store did not end in time (%d ms) and is killed", STORE_STOP_MS_MAX)
                drained = False
            self._store.kill()
        self._folder.clear_state()
        self._selector.close()
        return drained

    def _wait_for_end(self, processes: Sequence[Worker | EmbeddedStore], timeout_ms: int) -> None:
        end_ms = monotonic_ms() + timeout_ms
        while any(process.poll() is None for process in processes) and monotonic_ms() < end_ms:
            if signal.SIGINT in self._signals[1:]:
                return  # the first signal asked for the stop; this Ctrl-C asks for it now
            self._wait()

    @contextmanager
    def _signal_handlers(self) -> Iterator[None]:
        def note(number: int, _: FrameType | None) -> None:
            self._signals.append(number)

        # The handler only takes note. The wakeup socket ends the wait, which Python would resume after a signal.
        inner, outer = socket.socketpair()
        inner.setblocking(False)
        outer.setblocking(False)
        self._selector.register(inner, selectors.EVENT_READ, inner)
        wakeup = signal.set_wakeup_fd(outer.fileno(), warn_on_full_buffer=False)
        before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(wakeup)
            inner.close()
            outer.close()
