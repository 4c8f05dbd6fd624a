"""What other learners did on prepared rows: run once and kept, whatever they did in a file of its own.

A file is named by everything that went in: the rows, the learner and its settings, its batches, and the versions. So a
run that was stopped goes on where it was, and a change of any of it runs what it touches and nothing else.
"""

import hashlib
import json
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.bakeoff import Prepared, cache_folder
from bench.peers.environment import VERSIONS, PeersMissing, interpreter
from bench.peers.grid import MABWISER_BATCH_ROWS, MABWISER_SINGLE_ROWS, Config

JOB_S_MAX: Final = 900
_FORMAT: Final = 1

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Run:
    """A learner on a set in an order."""

    config: Config
    rows: Prepared

    @property
    def file(self) -> Path:
        """Where its actions are, or would be."""
        content = [_FORMAT, self.rows.key, asdict(self.config), MABWISER_SINGLE_ROWS, MABWISER_BATCH_ROWS, VERSIONS]
        key = hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=12).hexdigest()
        return cache_folder() / "peers" / f"{self.rows.name}-{self.rows.order}-{self.config.learner}-{key}.npy"

    def wrong(self) -> Bools | None:
        """Of each row it was run on, whether its action was wrong; None if it was not run yet."""
        if not self.file.exists():
            return None
        actions = np.load(self.file)
        wrong: Bools = actions != self.rows.y[: len(actions)]
        return wrong


def finish(runs: Sequence[Run], *, recompute: bool = False, title: str = "peers") -> None:
    """Do the runs that were not done, showing how far it is. Makes the environment if there is work. Raises
    PeersMissing."""
    open_runs = [run for run in runs if recompute or not run.file.exists()]
    if not open_runs:
        return
    python = interpreter(make=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with _worker(python) as ask, Progress(*columns, TimeRemainingColumn()) as progress:
        task = progress.add_task(title, total=len(open_runs))
        for run in open_runs:
            progress.update(task, description=f"{title}: {run.rows.name} {run.rows.order} {run.config.name}"[:78])
            run.file.parent.mkdir(parents=True, exist_ok=True)
            half = run.file.with_suffix(".half.npy")
            ask(
                {
                    "learner": run.config.learner,
                    "settings": run.config.settings,
                    "set": str(cache_folder() / f"{run.rows.name}-{run.rows.order}.npz"),
                    "classes": run.rows.classes,
                    "rows": run.config.rows,
                    "seed": run.rows.order,
                    "single_rows": MABWISER_SINGLE_ROWS,
                    "batch_rows": MABWISER_BATCH_ROWS,
                    "out": str(half),
                }
            )
            half.replace(run.file)
            progress.advance(task)


@contextmanager
def _worker(python: Path) -> Iterator[Any]:
    script = Path(__file__).with_name("worker.py")
    log = cache_folder() / "worker.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [str(python), "-I", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    assert process.stdin is not None
    assert process.stdout is not None

    def ask(job: dict[str, Any]) -> dict[str, Any]:
        watch = threading.Timer(JOB_S_MAX, process.kill)
        watch.start()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        finally:
            watch.cancel()
        if not line:
            why = (log.read_text(errors="replace").strip().splitlines() or ["no reason given"])[-1]
            raise PeersMissing(f"{job['learner']} {job['settings']} ended on {job['set']}: {why}")
        found: dict[str, Any] = json.loads(line)
        return found

    try:
        yield ask
    finally:
        try:
            process.stdin.close()  # its sign to end
            process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            process.kill()
            process.wait()
        process.stdout.close()
