"""Backfill: history from files into the state of customers, once, beside a live engine or without one.

The steps, and why in this order:

1. Everything is read, checked and sorted into buckets on disk. Nothing was written yet: whatever is wrong with the
   files or the mapping is known before it can do harm.
2. The job is claimed: its manifest, then a mark for each file. From now on these files belong to this job; another one
   that names them is refused until this one is finished, and passes over them afterwards.
3. Chunk by chunk, a few hundred customers of one partition each: fold their history, merge it with their live records,
   and write them together with the position of the chunk in one atomic step, if nobody wrote to one of them meanwhile.
   A crash leaves a chunk written and marked, or neither, so it is never done twice and never left out.
4. The manifest says that it is finished.

Which events are in a chunk follows from the files and the mapping alone. So a job that was killed goes on where it was
and leaves the same bytes. What may differ between two runs (the clock: an event may not lie in the future) is kept in
the manifest.

A record keeps its live watermark: history has offsets before all live ones, and merging keeps that of the live record.
So a live writer that read the record before the merge must compare more than its watermark, or it writes over it.

Non-goal: features that are declared later, from the event log that is kept; that is engine.history.fromlog.
"""

import asyncio
import fcntl
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any, Final

import orjson
import polars as pl

from engine import limits, timeline
from engine.catalogue import Catalogue
from engine.errors import DataFolderError, InvalidArgument, NotAllowed, Overloaded, Unavailable
from engine.history.folding import EVENTS_AT_ONCE, EventMaker, TimelineMaker, folded, merged
from engine.history.loading import EVENTS, Told, stage
from engine.history.mapping import Reading
from engine.history.rows import Span, Tally, schema_of
from engine.history.staging import Staging, bucket, buckets_for, groups, runs_of
from engine.identity import Stored, with_history
from engine.links import moved_to
from engine.store.base import (
    LINKS,
    PARTS,
    TIMELINE,
    Beside,
    Conflict,
    FeatureWrite,
    Mark,
    Store,
    StoreError,
    StoreFull,
    StoreUnavailable,
)
from features import RecordError, VersionError

log = logging.getLogger(__name__)

assert limits.BACKFILL_EVENTS_BATCH_MAX <= EVENTS_AT_ONCE, "a chunk of several customers is folded at once"
_PAUSE_S: Final = 0.2
_FORM: Final = 1
_HOME: Final = 0
"""Partition whose marks hold manifests and files."""

Place = tuple[int, int]
"""(bucket of the partition, chunks of it that are done)."""


@dataclass
class Report:
    """What a backfill did."""

    tally: Tally = field(default_factory=Tally)
    passed_over: list[str] = field(default_factory=list)
    """Files that an earlier job has loaded, or that are the same as another one."""
    events: int = 0
    """Events of this job, in this run and before."""
    duplicates: int = 0
    """Rows whose id another row of the same customer had."""
    customers: int = 0
    """Customers whose history this run has written."""
    timelines: int = 0
    """Of these, those who have events on their timelines from it."""
    done_before: int = 0
    """Events that an earlier run of this job had written."""
    damaged: int = 0
    """Live records that could not be read; their customers begin anew."""


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
    return blake2b(orjson.dumps([catalogue.layout.version, *events]), digest_size=8).hexdigest()


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
            report.tally = _staged(folder, store.partitions, job.buckets, job.readings, catalogue, span, told)
            told.events_due(report.tally.read - report.tally.refused_in_all - report.tally.skipped)
            await _claim(store, job, catalogue, span, report.tally)
            for partition in range(store.partitions):
                await _Partition(store, catalogue, job.id, partition, report, told).load(folder, job.buckets)
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


class _Partition:
    """The chunks of one partition."""

    def __init__(
        self, store: Store, catalogue: Catalogue, job: str, partition: int, report: Report, told: Told
    ) -> None:
        self._store = store
        self._layout = catalogue.layout
        self._maker = EventMaker(catalogue)
        self._timelines = TimelineMaker(catalogue)
        self._mark = f"at:{job}"
        self._at = b""
        self._partition = partition
        self._report = report
        self._told = told

    async def load(self, folder: Path, buckets: int) -> None:
        """Load what is not loaded yet. Raises StoreError."""
        await self._look()
        for number in range(buckets):
            rows = bucket(folder, EVENTS, self._partition * buckets + number)
            if rows is None:
                continue
            rows, duplicates = without_duplicates(rows)
            self._report.duplicates += duplicates
            self._told.events_folded(duplicates)
            for chunk, (start, end) in enumerate(_chunks(rows), 1):
                self._report.events += end - start
                if _place(self._at) >= (number, chunk):
                    self._report.done_before += end - start
                else:
                    await self._write((number, chunk), rows[start:end])
                self._told.events_folded(end - start)

    async def _look(self) -> None:
        self._at = (await self._store.marks(self._partition)).get(self._mark, b"")

    async def _write(self, place: Place, rows: pl.DataFrame) -> None:
        history, timelines = self._folded(rows), self._timelines.timelines(rows)
        away_since_s = None
        while True:
            try:
                return await self._commit(place, history, timelines)
            except StoreUnavailable as error:
                # Whether it was written is not known; the mark says so when the store is back.
                away_since_s = away_since_s or time.monotonic()
                if (time.monotonic() - away_since_s) * 1e3 > limits.BACKFILL_AWAY_MS_MAX:
                    raise
                log.warning("the store is away, trying again: %s", error)
                await asyncio.sleep(_PAUSE_S)

    async def _commit(self, place: Place, history: Mapping[str, bytes], timelines: Mapping[str, bytes]) -> None:
        await self._look()
        mark = Mark(self._mark, self._at, b"%d.%d" % place)
        writes: dict[str, FeatureWrite] = {}
        missing = list(history)
        for _ in range(limits.BACKFILL_CONFLICT_RETRIES_MAX):
            if _place(self._at) >= place:
                return
            all_parts = await self._store.read_beside(PARTS, missing)
            records = await self._store.read_features(missing)
            lines = await self._lines([customer for customer in missing if customer in timelines], timelines)
            for customer, live, parts in zip(missing, records, all_parts, strict=True):
                line = lines.get(customer, ())
                if parts is not None or moved_to(live):
                    writes[customer] = await self._linked(customer, live, parts, history[customer], line)
                else:
                    joined = self._joined(customer, live, history[customer])
                    writes[customer] = FeatureWrite(customer, live or b"", joined, beside=line)
            ordered = list(writes.values())
            matching = await self._store.write_marked(self._partition, ordered, mark)
            if isinstance(matching, Conflict):
                await self._look()
                mark = mark._replace(expected=self._at)
                missing = []
                continue
            if all(matching):
                self._at = mark.value
                self._report.customers += len(history)
                self._report.timelines += len(timelines)
                return
            missing = [write.customer for write, match in zip(ordered, matching, strict=True) if not match]
        raise StoreUnavailable(f"customers are written to all the time, {len(missing)} of {len(history)} at last")

    async def _lines(self, customers: Sequence[str], timelines: Mapping[str, bytes]) -> dict[str, tuple[Beside, ...]]:
        """What stands on the timelines of these customers and comes from history, to be written with the rest."""
        lines: dict[str, tuple[Beside, ...]] = {}
        for customer, live in zip(customers, await self._store.read_timelines(customers), strict=True):
            try:
                both = timeline.merged([live, timelines[customer]])
            except timeline.TimelineError as error:
                log.error("the timeline of customer %r is damaged and begins anew: %s", customer, error)
                both = timelines[customer]
            lines[customer] = (Beside(TIMELINE, both, live or b""),)
        return lines

    async def _linked(
        self, customer: str, live: bytes | None, parts: bytes | None, history: bytes, line: tuple[Beside, ...]
    ) -> FeatureWrite:
        """The same of a name that was linked: its history goes into its own part, and whoever has that is told."""
        [links] = await self._store.read_beside(LINKS, [customer])
        join = partial(self._joined, customer, history=history)
        done = with_history(self._layout, customer, Stored(live, parts, links), join)
        await self._store.append_events(done.sends)
        assert done.parts is not None, "a name with parts keeps them"
        return FeatureWrite(customer, live or b"", done.record, beside=(Beside(PARTS, done.parts, parts or b""), *line))

    def _joined(self, customer: str, live: bytes | None, history: bytes) -> bytes:
        try:
            return merged(self._layout, live, history)
        except VersionError as error:
            raise Unavailable(
                f"the state of customer {customer!r} cannot be read: {error}; what is loaded so far stays loaded, and "
                "the same command goes on from there"
            ) from error
        except RecordError as error:
            # As when live events are folded: damaged bytes cannot be read any better later.
            log.error("the state of customer %r is damaged and begins anew: %s", customer, error)
            self._report.damaged += 1
            return merged(self._layout, None, history)

    def _folded(self, rows: pl.DataFrame) -> dict[str, bytes]:
        """Records of the customers of sorted rows, from their history alone."""
        runs = runs_of(rows["customer"])
        if rows.height <= EVENTS_AT_ONCE:
            events = self._maker.events(rows, [n for _, start, end in runs for n in range(1, end - start + 1)])
            histories = [events[start:end] for _, start, end in runs]
            made = folded(self._layout, [None] * len(runs), histories)
            return {customer: record for (customer, _, _), record in zip(runs, made, strict=True)}
        # A group is larger only if it is one customer.
        [(customer, _, _)] = runs
        record: bytes | None = None
        for start in range(0, rows.height, EVENTS_AT_ONCE):
            part = rows[start : start + EVENTS_AT_ONCE]
            numbers = range(start + 1, start + part.height + 1)
            [record] = folded(self._layout, [record], [self._maker.events(part, numbers)])
        assert record is not None
        return {customer: record}


def _place(mark: bytes) -> Place:
    """What a mark says.

    >>> _place(b""), _place(b"2.17")
    ((-1, 0), (2, 17))
    """
    number, _, chunk = mark.partition(b".")
    return (int(number), int(chunk)) if mark else (-1, 0)


def _chunks(rows: pl.DataFrame) -> Iterator[tuple[int, int]]:
    return groups(rows["customer"], limits.BACKFILL_CUSTOMERS_BATCH_MAX, limits.BACKFILL_EVENTS_BATCH_MAX)


def without_duplicates(rows: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Sorted rows, of those of one customer with the same id only the first; and how many that left out."""
    if not (rows["id"] != 0).any():
        return rows, 0
    first = rows.select((pl.col("id") == 0) | pl.struct("customer", "id").is_first_distinct()).to_series()
    return rows.filter(first), int((~first).sum())


# --- where the buckets lie ------------------------------------------------------------------------------------------


def _staged(
    folder: Path,
    partitions: int,
    buckets: int,
    readings: Sequence[Reading],
    catalogue: Catalogue,
    span: Span,
    told: Told,
) -> Tally:
    """Buckets of the job, made now or complete from an earlier run."""
    complete = folder / f"complete-{span.newest_ms}-{catalogue.version}.json"
    if complete.exists():
        return Tally(**orjson.loads(complete.read_bytes()))
    for path in folder.iterdir():
        if path.name != "lock":
            path.unlink()
    with Staging(folder, partitions, buckets, {EVENTS: schema_of(catalogue)}) as staging:
        tally = stage(staging, readings, catalogue, span, told)
    part = complete.with_suffix(".part")
    part.write_bytes(orjson.dumps(asdict(tally)))
    part.rename(complete)
    return tally


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
