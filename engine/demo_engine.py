"""The engine that the demo starts for itself, as anybody would start it: `opportune serve` in a process of its own.

It ends with the demo: on success, on an error and on Ctrl-C, and its folder goes with it.
"""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from engine.datafolder import read_state
from engine.errors import OpportuneError
from engine.limits import START_MS_MAX, STOP_MS_MAX
from engine.logfile import tail

_POLL_S: Final = 0.05


class Engine:
    """A running engine."""

    def __init__(self, process: subprocess.Popen[bytes], data: Path, log: Path) -> None:
        self._process = process
        self._data = data
        self._log = log

    def wait_ready(self) -> str:
        """Where it answers gRPC, once it does. Raises OpportuneError if it does not start."""
        deadline_s = time.monotonic() + START_MS_MAX / 1e3
        while self._process.poll() is None:
            state = read_state(self._data)
            if state.get("ready"):
                return str(state["addresses"]["serve-0"]["grpc"])
            if time.monotonic() > deadline_s:
                raise OpportuneError(f"the engine was not ready within {START_MS_MAX} ms:\n{self.last_words()}")
            time.sleep(_POLL_S)
        raise OpportuneError(f"the engine did not start:\n{self.last_words()}")

    def last_words(self) -> str:
        """The end of its log."""
        return tail(self._log)

    def stop(self) -> None:
        """Stop it and wait for its end. Ctrl-C meanwhile makes it hurry."""
        end_s = time.monotonic() + STOP_MS_MAX / 1e3 + 5
        how = signal.SIGTERM
        while self._process.poll() is None:
            try:
                self._process.send_signal(how)
                self._process.wait(max(end_s - time.monotonic(), 0.0))
            except KeyboardInterrupt:
                how = signal.SIGINT  # after SIGTERM it means "now"
            except subprocess.TimeoutExpired:
                self._process.kill()


@contextmanager
def running_engine(config: Path, data: Path | None) -> Iterator[Engine]:
    """An engine on `config` with its data in `data`, or in a folder that goes away with it."""
    with tempfile.TemporaryDirectory(prefix="opportune-demo-", ignore_cleanup_errors=True) as folder:
        data = data or Path(folder) / "data"
        log = Path(folder) / "engine.log"
        command = (sys.executable, "-m", "engine.cli", "serve", "--config", str(config), "--data", str(data))
        with log.open("wb") as stderr:
            # A session of its own: Ctrl-C at a terminal reaches the demo only, which then stops the engine in order.
            process = subprocess.Popen(  # noqa: S603  our own command, no shell
                (*command, "--grpc", "127.0.0.1:0", "--http", "off"),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
        engine = Engine(process, data, log)
        try:
            yield engine
        finally:
            engine.stop()
