"""Backfill: history from files into the state of customers, once, beside a live engine or without one.

The steps, and why in this order:

1. Everything is read, checked and sorted into buckets on disk. Nothing was written yet: whatever is wrong with the
   files or the mapping is known before it can do harm. Where there are features of households and the like, each bucket
   is read once more, for copies of its events under the names of these.
2. The job is claimed: its manifest, then a mark for each file. From now on these files belong to this job; another one
   that names them is refused until this one is finished, and passes over them afterwards.
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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any, Final

import orjson

from engine import limits
from engine.catalogue import Catalogue
from engine.errors import DataFolderError, InvalidArgument, NotAllowed, Overloaded, Unavailable
from engine.history.chunks import Chunks
from engine.history.inforce import refuse_other_features
from engine.history.loading import EVENTS, Told, stage
from engine.history.mapping import Reading
from engine.history.rolling import COPIES, Roller
from engine.history.rows import Span, Tally, schema_of
from engine.history.staging import Staging, bucket, buckets_for, without_duplicates
from engine.history.writing import CustomerWriter, EntityWriter, Report
from engine.store.base import Mark, Store, StoreError, StoreFull

_FORM: Final = 1
_STAGED: Final = 2
"""Form of what lies in a folder for sorting."""
_HOME: Final = 0
"""Partition whose marks hold manifests and files."""


@dataclass(frozen=True, slots=True)
class Job:
    """Files to be loaded together."""

    id: str
    buckets: int
    readings: tuple[Reading, ...]
    file_ids: tuple[str, ...]
    manifest: Mapping[str, Any] | None
    """What an earlier run left; None if there was none."""


def file_id(reading: Reading) -> str:
    """What makes a file the same file: its bytes, and what its columns mean."""
    with reading.file.path.open("rb") as file:
        content = file_digest(file, "blake2b").digest()
    meaning = reading.file.source.model_dump_json(exclude={"files"})
    return blake2b(content + reading.file.format.encode() + meaning.encode(), digest_size=12).hexdigest()


async def job_of(store: Store, catalogue: Catalogue, readings: Sequence[Reading], span: Span, report: Report) -> Job:
    """The job of those files that no finished job has loaded. Raises NotAllowed if an unfinished one has any."""
    marks = await store.marks(_HOME)
    new: dict[str, Reading] = {}
    owners: dict[str, str] = {}
    for reading in readings:
        name = file_id(reading)
        owner = marks.get(f"file:{name}")
        if name in new:
            report.passed_over.append(f"{reading.file.path}: the same as {new[name].file.path}")
        elif owner is not None and _manifest(marks, owner.decode()).get("finished"):
            report.passed_over.append(f"{reading.file.path}: loaded before")
        else:
            new[name] = reading
            if owner is not None:
                owners[name] = owner.decode()
    # In this order, so that it is the same job however the files are listed.
    new = dict(sorted(new.items()))
    buckets = buckets_for([reading.file.path for reading in new.values()], store.partitions)
    cut = [limits.BACKFILL_CUSTOMERS_BATCH_MAX, limits.BACKFILL_EVENTS_BATCH_MAX, store.partitions, buckets]
    canonical = [_FORM, *cut, span.from_ms, span.until_ms, *new]
    job = blake2b(orjson.dumps(canonical), digest_size=8).hexdigest()
    for name, owner_id in owners.items():
        if owner_id != job:
            paths = ", ".join(_manifest(marks, owner_id)["files"])
            raise NotAllowed(
                f"{new[name].file.path}: belongs to a backfill that was not finished; run that one again first, with "
                f"the same options and {paths}"
            )
    manifest = _manifest(marks, job) if f"job:{job}" in marks else None
    if manifest is not None and manifest["meaning"] != _meaning(catalogue):
        raise NotAllowed("events or features have changed since this backfill began: finish it as they were then")
    return Job(job, buckets, tuple(new.values()), tuple(new), manifest)


def _meaning(catalogue: Catalogue) -> str:
    """What decides which events a file holds and what they do."""
    events = [event.model_dump_json() for event in catalogue.config.events]
    entities = [kind.model_dump_json() for kind in catalogue.config.entities]
    layouts = [layout.version for layout in catalogue.layouts.values()]
    return blake2b(orjson.dumps([*layouts, *events, *entities]), digest_size=8).hexdigest()


def _manifest(marks: Mapping[str, bytes], job: str) -> Any:
    return orjson.loads(marks[f"job:{job}"])


async def backfill(
    store: Store, catalogue: Catalogue, readings: Sequence[Reading], span: Span, work: Path | None, told: Told
) -> Report:
    """Load files into a store; see the steps above. Raises OpportuneError, after which it can be run again."""
    report = Report()
    try:
        job = await job_of(store, catalogue, readings, span, report)
        if not job.readings:
            return report
        if job.manifest is not None:
            span = Span(span.from_ms, span.until_ms, job.manifest["newest_ms"])
        with work_folder(work, job.id) as folder:
            report.tally, copies = _staged(folder, store.partitions, job.buckets, job.readings, catalogue, span, told)
            told.events_due(report.tally.read - report.tally.refused_in_all - report.tally.skipped + copies)
            await _claim(store, job, catalogue, span, report.tally)
            for partition in range(store.partitions):
                # Reading took its time: another version may be in force by now.
                await refuse_other_features(store, catalogue)
                await _load(store, catalogue, job, partition, folder, report, told)
            await _finish(store, job, report)
    except StoreFull as error:
        raise Overloaded(f"the store is full; make room and run the same command again: {error}") from error
    except StoreError as error:
        raise Unavailable(f"the store is away; run the same command again to go on: {error}") from error
    return report


# --- the job's own marks --------------------------------------------------------------------------------------------


async def _claim(store: Store, job: Job, catalogue: Catalogue, span: Span, tally: Tally) -> None:
    manifest = {
        "newest_ms": span.newest_ms,
        "meaning": _meaning(catalogue),
        "layout": catalogue.layout.version,
        "files": [str(reading.file.path) for reading in job.readings],
    }
    if job.manifest is None:
        letters = [(row.encode(errors="replace"), f"backfill: {told}") for _, row, told in tally.kept]
        await store.dead_letters(letters)
        # Somebody who claims it at this moment has read the same files.
        await store.write_marked(_HOME, [], Mark(f"job:{job.id}", b"", orjson.dumps(manifest)))
    for name in job.file_ids:
        await store.write_marked(_HOME, [], Mark(f"file:{name}", b"", job.id.encode()))
        owner = (await store.marks(_HOME)).get(f"file:{name}")
        if owner != job.id.encode():
            raise NotAllowed("another backfill has just begun to load one of these files: wait for it")


async def _finish(store: Store, job: Job, report: Report) -> None:
    now = (await store.marks(_HOME))[f"job:{job.id}"]
    finished = orjson.loads(now) | {"finished": True, "events": report.events}
    await store.write_marked(_HOME, [], Mark(f"job:{job.id}", now, orjson.dumps(finished)))


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
def work_folder(work: Path | None, job: str) -> Iterator[Path]:
    """Folder of a job, held for the block; gone after it unless the block failed.

    Raises DataFolderError if it cannot be used, NotAllowed if another process is at the same job.
    """
    root = work or Path(tempfile.gettempdir()) / f"opportune-history-{os.getuid()}"
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = root.stat()
        if work is None and (found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) != 0o700):
            raise DataFolderError(f"{root}: belongs to somebody else, or others may write to it; give --work")
        folder = root / job
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
