"""Feast beside ours: an environment of its own, and a process in it."""

import json
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench import peerenv

FEAST_VERSION: Final = "0.67.0"
ANSWER_S_MAX: Final = 300
"""For the rows to be written, and for one round of calls."""


class FeastMissing(peerenv.PeerMissing):
    """There is no Feast to measure, for a reason that its text tells."""


def interpreter(*, make: bool) -> Path:
    """Python of the environment; made if `make`. Raises FeastMissing."""
    name, title = f"feast-{FEAST_VERSION}", f"Feast {FEAST_VERSION}"
    return peerenv.interpreter(name, title, {"feast[redis]": FEAST_VERSION}, FeastMissing, make=make)


class Peer:
    """The process: what it found out about itself, and its measurements."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        self._process = process
        self._log = log
        found = self._line()
        if not found.startswith("ready "):
            raise FeastMissing(f"Feast did not start: {self._why()}")
        told = json.loads(found.removeprefix("ready "))
        self.version: str = told["feast"]
        self.ways: dict[str, str] = told["ways"]
        """Its ways to ask for features: name, and what it is in words."""

    def measure(self, way: str, calls: int) -> list[float]:
        """How long each of so many calls took, in µs. Raises FeastMissing if the process died."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{way} {calls}\n")
            self._process.stdin.flush()
        except OSError as error:
            raise FeastMissing(f"Feast ended: {self._why()}") from error
        found = self._line()
        if not found:
            raise FeastMissing(f"Feast ended: {self._why()}")
        took: list[float] = json.loads(found)
        return took

    def _line(self) -> str:
        assert self._process.stdout is not None
        watch = threading.Timer(ANSWER_S_MAX, self._process.kill)
        watch.start()
        try:
            return self._process.stdout.readline()
        finally:
            watch.cancel()

    def _why(self) -> str:
        return (self._log.read_text(errors="replace").strip().splitlines() or ["no reason given"])[-1]


@contextmanager
def peer(
    python: Path, folder: Path, socket: Path, customers: Sequence[str], names: Sequence[str], values: NDArray[Any]
) -> Iterator[Peer]:
    """Feast with these values of customers in the server behind a socket. Raises FeastMissing."""
    folder.mkdir(parents=True)
    (folder / "customers.json").write_text(json.dumps(list(customers)))
    (folder / "names.json").write_text(json.dumps(list(names)))
    np.save(folder / "values.npy", values)
    log = folder / "peer.log"
    script = Path(__file__).with_name("feast_peer.py")
    # -I: its modules are found in its environment, not here; bench/features.py is none of Feast's business.
    command = [str(python), "-I", str(script), str(folder), str(socket)]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=folder
        )
    try:
        yield Peer(process, log)
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.close()  # its sign to end
            process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            process.kill()
            process.wait()
        process.stdout.close()


