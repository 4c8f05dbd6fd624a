"""Backfill: history from files into the state of customers, once, beside a live engine or without one.

The steps, and why in this order:

1. Everything is read, checked and sorted into buckets on disk. Nothing was written yet: whatever is wrong with the
   files or the mapping is known before it can do harm. Where there are features of households and the like, each bucket
   is read once more, for copies of its events under the names of these.
2. The job is claimed: its manifest, then a mark for each file (engine.history.jobs). From now on these files belong to
   this job; another one that names them is refused until this one is finished, and afterwards passes over what it
   loaded of them.
3. Chunk by chunk, a few hundred customers of one partition each, then what they belong to: fold their history, merge it
   with their live records (engine.history.writing), and write them together with the position of the chunk in one
   atomic step (engine.history.chunks).
4. The manifest says that it is finished.

Which events are in a chunk follows from the files and the mapping alone. So a job that was killed goes on where it was
and leaves the same bytes. What may differ between two runs (the clock: an event may not lie in the future) is kept in
the manifest.

Non-goal: features that are declared later, from the event log that is kept; that is engine.history.fromlog.
"""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Final

import orjson

from engine import limits
from engine.catalogue import Catalogue
from engine.errors import DataFolderError, InvalidArgument, NotAllowed, Overloaded, Unavailable
from engine.history.chunks import Chunks
from engine.history.inforce import refuse_other_features
from engine.history.jobs import Job, claim, finish, job_of
from engine.history.loading import EVENTS, Told, stage
from engine.history.mapping import Reading
from engine.history.rolling import COPIES, Roller
from engine.history.rows import Span, Tally, schema_of
from engine.history.staging import Staging, bucket, without_duplicates
from engine.history.writing import CustomerWriter, EntityWriter, Report
from engine.store.base import Store, StoreError, StoreFull

_STAGED: Final = 3
"""Form of what lies in a folder for sorting."""


async def backfill(
    store: Store,
    catalogue: Catalogue,
    readings: Sequence[Reading],
    span: Span,
    work: Path | None,
    told: Told,
    where: str = "",
) -> Report:
    """Load files into a store; see the steps above. Raises OpportuneError, after which it can be run again.

    `where` tells the store from others: the same files may be loaded into another one at the same time.
    """
    report = Report()
    try:
        job = await job_of(store, catalogue, readings, span, report)
        if not job.readings:
            return report
        if job.manifest is not None:
            span = Span(span.from_ms, span.until_ms, job.manifest["newest_ms"])
        with work_folder(work, job.id, where) as folder:
            report.tally, copies = _staged(folder, store.partitions, job.buckets, job.readings, catalogue, span, told)
            told.events_due(report.tally.read - report.tally.refused_in_all - report.tally.skipped + copies)
            await claim(store, job, catalogue, span, report.tally)
            for partition in range(store.partitions):
                # Reading took its time: another version may be in force by now.
                await refuse_other_features(store, catalogue)
                await _load(store, catalogue, job, partition, folder, report, told)
            await finish(store, job, report)
    except StoreFull as error:
        raise Overloaded(f"the store is full; make room and run the same command again: {error}") from error
    except StoreError as error:
        raise Unavailable(f"the store is away; run the same command again to go on: {error}") from error
    return report


# --- one partition --------------------------------------------------------------------------------------------------


async def _load(
    store: Store, catalogue: Catalogue, job: Job, partition: int, folder: Path, report: Report, told: Told
) -> None:
    """Load what is not loaded yet of a partition: customers, then what they belong to. Raises StoreError."""
    chunks = Chunks(store, job.id, partition)
    await chunks.look()
    customers, entities = CustomerWriter(store, catalogue, report), EntityWriter(store, catalogue, report)
    for number in range(job.buckets):
        rows = bucket(folder, EVENTS, partition * job.buckets + number)
        if rows is not None:
            rows, duplicates = without_duplicates(rows)
            report.duplicates += duplicates
            told.events_folded(duplicates)
            await customers.load(chunks, number, rows, told)
    for number in range(job.buckets):
        rows = bucket(folder, COPIES, partition * job.buckets + number)
        if rows is not None:
            await entities.load(chunks, job.buckets + number, rows, told)


# --- where the buckets lie ------------------------------------------------------------------------------------------


def _staged(
    folder: Path,
    partitions: int,
    buckets: int,
    readings: Sequence[Reading],
    catalogue: Catalogue,
    span: Span,
    told: Told,
) -> tuple[Tally, int]:
    """Buckets of the job, made now or complete from an earlier run; with how many copies for entities there are."""
    complete = folder / f"complete-{_STAGED}-{span.newest_ms}-{catalogue.version}.json"
    if complete.exists():
        found = orjson.loads(complete.read_bytes())
        return Tally(**found["tally"]), found["copies"]
    for path in folder.iterdir():
        if path.name != "lock":
            path.unlink()
    with Staging(folder, partitions, buckets, {EVENTS: schema_of(catalogue)}) as staging:
        tally = stage(staging, readings, catalogue, span, told)
    copies = 0
    if catalogue.rollups:
        with Staging(folder, partitions, buckets, {COPIES: schema_of(catalogue)}) as staging:
            copies = _stage_copies(staging, folder, range(partitions * buckets), Roller(catalogue))
    part = complete.with_suffix(".part")
    part.write_bytes(orjson.dumps({"tally": asdict(tally), "copies": copies}))
    part.rename(complete)
    return tally, copies


def _stage_copies(staging: Staging, folder: Path, numbers: Iterable[int], roller: Roller) -> int:
    """Put the copies of all events in these buckets into buckets of their own, and return how many there are."""
    count = 0
    for number in numbers:
        rows = bucket(folder, EVENTS, number)
        if rows is not None:
            copies = roller.copies(without_duplicates(rows)[0])
            staging.add(COPIES, copies)
            count += copies.height
    return count


@contextmanager
def work_folder(work: Path | None, job: str, where: str) -> Iterator[Path]:
    """Folder of a job in a store, held for the block; gone after it unless the block failed.

    It keeps two processes from sorting the same twice. That nothing is written twice is for the marks in the store: who
    names the same store otherwise has another folder. Raises DataFolderError if it cannot be used, NotAllowed if
    another process is at the same job.
    """
    root = work or Path(tempfile.gettempdir()) / f"opportune-history-{os.getuid()}"
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = root.stat()
        if work is None and (found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) != 0o700):
            raise DataFolderError(f"{root}: belongs to somebody else, or others may write to it; give --work")
        folder = root / f"{job}-{blake2b(where.encode(), digest_size=4).hexdigest()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        lock = (folder / "lock").open("wb")
    except OSError as error:
        raise DataFolderError(f"{root}: cannot be used: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotAllowed("another process is loading these files") from None
        try:
            yield folder
        except OSError as error:
            raise DataFolderError(f"{folder}: {error.strerror or error}; --work names another folder") from error
        shutil.rmtree(folder, ignore_errors=True)


def span_of(catalogue: Catalogue, from_ms: int | None, until_ms: int | None, now_ms: int) -> Span:
    """Times to load. Raises InvalidArgument for an empty span."""
    span = Span(from_ms or 0, until_ms or limits.TIME_MS_MAX + 1, now_ms + catalogue.config.clock.future)
    if span.from_ms >= span.until_ms:
        raise InvalidArgument("--from: expected a time before --until")
    return span
