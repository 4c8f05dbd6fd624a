"""Log files of child processes: they append, this side keeps them small and reads what is new.

A file rather than a pipe: a child that logs never waits for the supervisor, and its last words survive both.
"""

import contextlib
import os
import re
import shutil
from pathlib import Path
from typing import Final

LOG_BYTES_MAX: Final = 16 * 1024 * 1024
"""Size of one log file; one older file of the same size is kept beside it."""
READ_BYTES_MAX: Final = 64 * 1024
"""Read at most this much in one go, so a chatty child cannot hold up the supervisor."""
SERIOUS: Final = re.compile(rb"\b(WARNING|ERROR|CRITICAL)\b")
"""How Python's logging marks lines that an operator should see."""


class LogFile:
    """The supervisor's side of a file that a child appends to. Starts at the end of what is already there."""

    def __init__(self, path: Path, serious: re.Pattern[bytes] = SERIOUS, bytes_max: int = LOG_BYTES_MAX) -> None:
        self.path = path
        self._serious = serious
        self._bytes_max = bytes_max
        self._read_to = self._size()

    def warnings(self) -> list[str]:
        """Return the new lines of level WARNING or worse, and roll the file over when it has grown too large.

        Never raises OSError: a full disk must not end the one who watches.
        """
        size = self._size()
        self._read_to = min(self._read_to, size)
        found = []
        with contextlib.suppress(OSError):
            if size > self._read_to:
                lines = self._read_lines()
                found = [line.decode(errors="replace") for line in lines if self._serious.search(line)]
            if size > self._bytes_max:
                self._roll_over()
        return found

    def _read_lines(self) -> list[bytes]:
        with self.path.open("rb") as file:
            file.seek(self._read_to)
            chunk = file.read(READ_BYTES_MAX)
        # Half a line is left for the next time, unless it is longer than one read.
        end = chunk.rfind(b"\n") + 1 or (len(chunk) if len(chunk) == READ_BYTES_MAX else 0)
        self._read_to += end
        return chunk[:end].splitlines()

    def _roll_over(self) -> None:
        # Copied and cut rather than renamed, because the child keeps its descriptor. The few lines that it may
        # write in between are lost to the log; nothing else depends on them.
        with contextlib.suppress(OSError):
            shutil.copyfile(self.path, self.path.with_suffix(".log.1"))
        os.truncate(self.path, 0)
        self._read_to = 0

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError:
            return 0


def tail(path: Path, lines: int = 10, since: int = 0) -> str:
    """Return the last `lines` lines of the file at `path`, indented; a placeholder when there are none.

    Those behind byte `since`, unless the file has been cut since then.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            file.seek(max(since if since <= size else 0, size - 8_192))
            text = file.read().decode(errors="replace")
    except OSError:
        text = ""
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:]) or "    (nothing was logged)"
