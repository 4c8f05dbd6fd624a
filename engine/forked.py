"""A worker process that begins with what its supervisor has loaded.

A new interpreter needs two to three seconds of processor time before a worker of the engine can begin, most of it for
the compiled kernels and numba; a fork needs milliseconds. So a server that was killed answers again at once, an engine
starts in a third of the time, and its processes share the memory of all that they loaded.

A fork copies one thread, whatever locks the others hold: see `possible`. Nothing of the supervisor goes on in the copy.
It keeps no file but its own three, and ends without Python's clean-up, which would close the supervisor's files by
numbers that mean others by then.
"""

import gc
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from fcntl import F_DUPFD, fcntl
from typing import IO, Final, NoReturn

import psutil
from setproctitle import setproctitle

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


def possible() -> bool:
    """Whether this process may be forked: on Linux, while it has no threads but Python's.

    Those wait at a system call while another one of them forks, as the one does that flushes the store's files. What
    threads of libraries are doing nobody knows, and elsewhere those of the system are not even seen.
    """
    return sys.platform == "linux" and psutil.Process().num_threads() == threading.active_count()


class Forked:
    """The process, with what the supervisor needs of subprocess.Popen. In a session of its own."""

    def __init__(self, run: Callable[[], None], title: str, stderr: IO[bytes]) -> None:
        """Start it. It calls `run`, and ends with the code of its SystemExit, 0 without one.

        Raises OSError if the system refuses.
        """
        stdin, own_stdin = os.pipe()
        own_stdout, stdout = os.pipe()
        self.stdin: IO[bytes] = os.fdopen(own_stdin, "wb", buffering=0)
        self.stdout: IO[bytes] = os.fdopen(own_stdout, "rb", buffering=0)
        self._code: int | None = None
        # A collection in the copy would write to all that is here, and what is written to is not shared any more.
        gc.freeze()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self.pid = os.fork()
            if not self.pid:
                _become(run, title, (stdin, stdout, stderr.fileno()), before)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(stdin)
            os.close(stdout)

    def poll(self) -> int | None:
        """Return None while it runs, else its exit code, or less than 0 for the signal that ended it."""
        return self._look(os.WNOHANG)

    def wait(self) -> int | None:
        """Wait for its end."""
        return self._look(0)

    def terminate(self) -> None:
        """Ask it to end."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._send(signal.SIGKILL)

    def _look(self, options: int) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def _send(self, number: signal.Signals) -> None:
        if self.poll() is None:  # its pid is not another's before it was waited for
            os.kill(self.pid, number)


def _become(
    run: Callable[[], None], title: str, files: tuple[int, int, int], signals: set[int | signal.Signals]
) -> NoReturn:
    """Be the new process: standard input, output and errors are `files`, and nothing else is open."""
    code = 1
    try:
        os.setsid()  # Ctrl-C at a terminal reaches the supervisor only, which stops the workers in order
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        # In two steps: who starts an engine with its standard files closed has others by their numbers.
        for to, file in enumerate([fcntl(file, F_DUPFD, 3) for file in files]):
            os.dup2(file, to)
        os.closerange(3, 1 + max(map(int, os.listdir("/proc/self/fd"))))  # noqa: PTH208  names are numbers
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115  to the end
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        setproctitle(title)
        run()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        # Whatever fails here, a full disk or a supervisor that is gone: what is behind this call is the supervisor's.
        try:
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
