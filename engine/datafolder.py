"""The data folder of one embedded engine: who holds it, what is in it, where its parts lie.

    DIR/            0700, made on the first start
      lock          flock of the engine that runs; says who and since when
      format        what kind of folder this is, its version and the partitions it was made with
      run.json      pids and addresses of the life that runs; gone after a clean stop
      redis.sock    socket of the private store (in a private temporary folder when DIR is too deep)
      store/        append-only files of the private store
      logs/         one file a process

The lock is an flock, not a pid file: the kernel lets go of it however the process ends, so a stale lock cannot exist.
`run.json` that is left over tells the next start what an earlier life may have left running.
"""

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from engine.errors import DataFolderError
from engine.limits import PARTITIONS

FORMAT: Final = {"format": "opportune-data", "version": 1, "partitions": PARTITIONS}
SOCKET_PATH_BYTES_MAX: Final = 103
"""sun_path holds 108 bytes on Linux and 104 on macOS, a NUL included."""
_NOT_FOREIGN: Final = frozenset({"lock", "lost+found"})
_TEMP_PREFIX: Final = "opportune-"


class DataFolder:
    """The folder, held from construction to `close`. Raises DataFolderError when it is in use, foreign or unusable."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._refuse_foreign()
            self._lock_fd = self._take_lock()
        except OSError as error:
            raise DataFolderError(f"data folder {self.path} cannot be used: {error.strerror or error}") from error
        try:
            self._check_format()
            self.store_dir = self._subfolder("store")
            self.logs_dir = self._subfolder("logs")
            self.earlier = read_state(self.path)
            """What run.json says of an earlier life that did not end cleanly; empty otherwise."""
            self.socket = self._choose_socket()
        except BaseException as error:
            os.close(self._lock_fd)
            if isinstance(error, OSError):
                raise DataFolderError(f"data folder {self.path} cannot be used: {error.strerror or error}") from error
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder. Twice is once."""
        if self._lock_fd < 0:
            return
        if self.socket.parent != self.path:
            shutil.rmtree(self.socket.parent, ignore_errors=True)
        os.close(self._lock_fd)
        self._lock_fd = -1

    def log_path(self, name: str) -> Path:
        """Return where the process `name` logs."""
        return self.logs_dir / f"{name}.log"

    def write_state(self, state: dict[str, Any]) -> None:
        """Replace run.json at once: a reader sees the old one or the new one. Raises OSError when the disk is full."""
        _write_atomically(self.path / "run.json", state)

    def clear_state(self) -> None:
        """Remove run.json: nothing of this life runs any more."""
        (self.path / "run.json").unlink(missing_ok=True)

    def forget_earlier(self) -> None:
        """Remove what an earlier life left in the temporary folder. Call when nothing of that life runs any more."""
        old = Path(str(self.earlier.get("socket", ""))).parent
        # run.json could name any folder: only one that this code made, and not the one in use, is removed.
        if old.name.startswith(_TEMP_PREFIX) and old != self.path and old != self.socket.parent and _is_private(old):
            shutil.rmtree(old, ignore_errors=True)

    def _subfolder(self, name: str) -> Path:
        # The parent may be a mounted volume with wider rights; customers' data is for its owner alone.
        folder = self.path / name
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def _refuse_foreign(self) -> None:
        """Refuse a folder of something else before a first byte is written to it."""
        if (self.path / "format").exists():
            return
        strangers = [entry.name for entry in self.path.iterdir() if not _belongs(entry.name)]
        # A start at the same moment may have made it ours since; its lock will answer then.
        if strangers and not (self.path / "format").exists():
            raise DataFolderError(
                f"data folder {self.path} holds other things ({min(strangers)}): choose an empty or a new folder"
            )

    def _take_lock(self) -> int:
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _describe_holder(os.pread(fd, 200, 0))
            os.close(fd)
            raise DataFolderError(
                f"data folder {self.path} is in use by {holder}: stop that engine first, or choose another folder"
            ) from error
        # The text is for people only; a full disk must not keep the engine from starting.
        with contextlib.suppress(OSError):
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps({"pid": os.getpid(), "since_ms": time.time_ns() // 1_000_000}).encode(), 0)
        return fd

    def _check_format(self) -> None:
        file = self.path / "format"
        if not file.exists():
            _write_atomically(file, FORMAT)
        try:
            found = json.loads(file.read_bytes())
        except ValueError:
            found = None
        if found != FORMAT:
            raise DataFolderError(f"data folder {self.path} has format {found}, this engine reads {FORMAT}")

    def _choose_socket(self) -> Path:
        direct = self.path / "redis.sock"
        if len(os.fsencode(direct)) <= SOCKET_PATH_BYTES_MAX:
            return direct
        folder = Path(tempfile.mkdtemp(prefix=_TEMP_PREFIX))  # mode 0700
        short = folder / "redis.sock"
        if len(os.fsencode(short)) > SOCKET_PATH_BYTES_MAX:
            folder.rmdir()
            raise DataFolderError(
                f"data folder {self.path} is too deep for a socket, and so is the temporary folder {folder.parent}: "
                f"a socket path has at most {SOCKET_PATH_BYTES_MAX} bytes; set TMPDIR to a shorter path"
            )
        return short


def read_state(path: str | Path) -> dict[str, Any]:
    """Return run.json of the data folder at `path`, without holding the folder; empty when it is absent or damaged."""
    try:
        state = json.loads((Path(path) / "run.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _belongs(name: str) -> bool:
    return name in _NOT_FOREIGN or name.endswith(".tmp")


def _describe_holder(text: bytes) -> str:
    try:
        holder = json.loads(text)
        since = datetime.fromtimestamp(holder["since_ms"] / 1_000, UTC)
        return f"process {int(holder['pid'])} since {since:%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        return "another process"


def _is_private(folder: Path) -> bool:
    try:
        status = folder.lstat()
    except OSError:
        return False
    return status.st_uid == os.getuid() and status.st_mode & 0o777 == 0o700


def _write_atomically(file: Path, content: dict[str, Any]) -> None:
    temporary = file.with_name(file.name + ".tmp")
    with temporary.open("wb") as out:
        out.write(json.dumps(content, indent=1).encode())
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(file)
