"""Jobs of a backfill: which files and which span of time they load, and the marks in the store that say so.

    job:<id>     its manifest: what it loads, and whether it is finished
    file:<id>    ids of the jobs that load this file, each a span of its own, with spaces between

A file belongs to an unfinished job alone. Spans that were loaded are never loaded again, and what lies outside of them
is not taken for loaded: a run whose span holds both is refused, and told how to load the rest.

A job of an earlier release did not keep its span; its id says whether it was a span that is asked about.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b, file_digest
from typing import Any, Final

import orjson

from engine import limits
from engine.catalogue import Catalogue
from engine.errors import NotAllowed
from engine.history.mapping import Reading
from engine.history.rows import Span, Tally
from engine.history.staging import BUCKETS_A_PARTITION_MAX, buckets_for
from engine.history.writing import Report
from engine.store.base import Conflict, Mark, Store

_FORM: Final = 1
_ROWS: Final = 2
"""What of a file is an event. A job that was begun with another number may have chunks of other rows."""
_HOME: Final = 0
"""Partition whose marks hold manifests and files."""

Times = tuple[int, int]
"""(from_ms, until_ms) as in Span."""
_JUST_BEGUN: Final = "another backfill has just begun to load one of these files: wait for it"
_ALWAYS: Final[Times] = (0, limits.TIME_MS_MAX + 1)


@dataclass(frozen=True, slots=True)
class Job:
    """Files to be loaded together."""

    id: str
    buckets: int
    readings: tuple[Reading, ...]
    file_ids: tuple[str, ...]
    manifest: Mapping[str, Any] | None
    """What an earlier run left; None if there was none."""
    owners: Mapping[str, bytes]
    """Marks of those files that have any, as they were when the job was made."""


def file_id(reading: Reading) -> str:
    """What makes a file the same file: its bytes, and what its columns mean."""
    with reading.file.path.open("rb") as file:
        content = file_digest(file, "blake2b").digest()
    meaning = reading.file.source.model_dump_json(exclude={"files"})
    return blake2b(content + reading.file.format.encode() + meaning.encode(), digest_size=12).hexdigest()


async def job_of(store: Store, catalogue: Catalogue, readings: Sequence[Reading], span: Span, report: Report) -> Job:
    """The job of those files that no finished job has loaded.

    Raises NotAllowed if an unfinished job has any, or a finished one has loaded a part of the span.
    """
    marks = _Marks(await store.marks(_HOME), store.partitions)
    wanted = (span.from_ms, span.until_ms)
    new: dict[str, Reading] = {}
    for reading in readings:
        name, path = file_id(reading), reading.file.path
        if name in new:
            report.passed_over.append(f"{path}: the same as {new[name].file.path}")
            continue
        loaded = marks.loaded(name, wanted, str(path))
        left = left_of(wanted, loaded)
        if not left:
            report.passed_over.append(f"{path}: loaded before{_but_refused(marks.refused(name))}")
        elif left == [wanted]:
            new[name] = reading
        else:
            before = " and ".join(_shown(times, "").strip() for times in loaded)
            rest = " and then with ".join(_shown(times, "--").strip() for times in left)
            refused = _but_refused(marks.refused(name))
            raise NotAllowed(f"{path}: what happened {before} was loaded before{refused}; load the rest with {rest}")
    # In this order, so that it is the same job however the files are listed.
    new = dict(sorted(new.items()))
    buckets = buckets_for([reading.file.path for reading in new.values()], store.partitions)
    job = _id(store.partitions, buckets, wanted, list(new))
    for name, reading in new.items():
        if others := [other for other in marks.unfinished(name) if other != job]:
            paths = ", ".join(marks.manifest(others[0])["files"])
            raise NotAllowed(
                f"{reading.file.path}: belongs to a backfill that was not finished; run that one again first, with "
                f"the same options and {paths}"
            )
    manifest = marks.manifest(job) if f"job:{job}" in marks.values else None
    if manifest is not None and manifest["meaning"] != _meaning(catalogue):
        raise NotAllowed("events or features have changed since this backfill began: finish it as they were then")
    if manifest is not None and manifest.get("rows", 1) != _ROWS:
        raise NotAllowed("an earlier release, which took other rows, began this backfill: finish it with that release")
    owners = {name: marks.values[f"file:{name}"] for name in new if f"file:{name}" in marks.values}
    return Job(job, buckets, tuple(new.values()), tuple(new), manifest, owners)


async def claim(store: Store, job: Job, catalogue: Catalogue, span: Span, tally: Tally) -> None:
    """Make the files those of this job. Raises NotAllowed if another one has claimed one meanwhile, StoreError."""
    if job.manifest is None:
        letters = [(row.encode(errors="replace"), f"backfill: {told}") for _, row, told in tally.kept]
        await store.dead_letters(letters)
        manifest = {
            "newest_ms": span.newest_ms,
            "meaning": _meaning(catalogue),
            "layout": catalogue.layout.version,
            "files": [str(reading.file.path) for reading in job.readings],
            "span": [span.from_ms, span.until_ms],
            "refused": {name: count for name, count in zip(job.file_ids, tally.refused_of, strict=True) if count},
            "rows": _ROWS,
        }
        mark = Mark(f"job:{job.id}", b"", orjson.dumps(manifest))
        if isinstance(await store.write_marked(_HOME, [], mark), Conflict):
            raise NotAllowed(_JUST_BEGUN)  # with another clock, so maybe with other rows
    mine = job.id.encode()
    for name in job.file_ids:
        before = job.owners.get(name, b"")
        if mine in before.split():
            continue
        await store.write_marked(_HOME, [], Mark(f"file:{name}", before, b" ".join([*before.split(), mine])))
        if mine not in (await store.marks(_HOME)).get(f"file:{name}", b"").split():
            raise NotAllowed(_JUST_BEGUN)


async def finish(store: Store, job: Job, report: Report) -> None:
    """Note that all of a job is loaded. Raises StoreError."""
    now = (await store.marks(_HOME))[f"job:{job.id}"]
    finished = orjson.loads(now) | {"finished": True, "events": report.events}
    await store.write_marked(_HOME, [], Mark(f"job:{job.id}", now, orjson.dumps(finished)))


# --- what the marks say ---------------------------------------------------------------------------------------------


class _Marks:
    """Jobs and files of a store."""

    def __init__(self, values: Mapping[str, bytes], partitions: int) -> None:
        self.values = values
        self._partitions = partitions

    def manifest(self, job: str) -> Any:
        """What a job left."""
        return orjson.loads(self.values[f"job:{job}"])

    def unfinished(self, file: str) -> list[str]:
        """Jobs that have begun to load a file."""
        return [job for job in self._owners(file) if not self.manifest(job).get("finished")]

    def loaded(self, file: str, wanted: Times, path: str) -> list[Times]:
        """Spans of a file that finished jobs have loaded. Raises NotAllowed if one of them cannot be told."""
        begun = self.unfinished(file)
        return [self._times(job, wanted, path) for job in self._owners(file) if job not in begun]

    def refused(self, file: str) -> list[int]:
        """How many rows of a file each job refused that refused any. A row without a time is one of each of them."""
        counts = [self.manifest(job).get("refused", {}).get(file, 0) for job in self._owners(file)]
        return [count for count in counts if count]

    def _owners(self, file: str) -> list[str]:
        return self.values.get(f"file:{file}", b"").decode().split()

    def _times(self, job: str, wanted: Times, path: str) -> Times:
        if "span" in (manifest := self.manifest(job)):
            from_ms, until_ms = manifest["span"]
            return from_ms, until_ms
        files = sorted(
            name.removeprefix("file:")
            for name, value in self.values.items()
            if name.startswith("file:") and job in value.decode().split()
        )
        for times in (_ALWAYS, wanted):
            every = range(1, BUCKETS_A_PARTITION_MAX + 1)
            if any(_id(self._partitions, buckets, times, files) == job for buckets in every):
                return times
        raise NotAllowed(
            f"{path}: an earlier release has loaded a span of it, and has not kept which: give --from and --until as "
            "they were then, or a file of the other rows alone"
        )


def _id(partitions: int, buckets: int, times: Times, files: Sequence[str]) -> str:
    """Id of a job: what decides which chunks it has."""
    cut = [limits.BACKFILL_CUSTOMERS_BATCH_MAX, limits.BACKFILL_EVENTS_BATCH_MAX, partitions, buckets]
    return blake2b(orjson.dumps([_FORM, *cut, *times, *files]), digest_size=8).hexdigest()


def _meaning(catalogue: Catalogue) -> str:
    """What decides which events a file holds and what they do."""
    events = [event.model_dump_json() for event in catalogue.config.events]
    entities = [kind.model_dump_json() for kind in catalogue.config.entities]
    layouts = [layout.version for layout in catalogue.layouts.values()]
    return blake2b(orjson.dumps([*layouts, *events, *entities]), digest_size=8).hexdigest()


# --- spans ----------------------------------------------------------------------------------------------------------


def left_of(wanted: Times, loaded: Sequence[Times]) -> list[Times]:
    """What others leave of a span.

    >>> left_of((0, 10), [(3, 6), (2, 4)]), left_of((0, 10), [(0, 4), (4, 12)]), left_of((5, 10), [(0, 5)])
    ([(0, 2), (6, 10)], [], [(5, 10)])
    """
    left, (at, end) = [], wanted
    for from_ms, until_ms in sorted(loaded):
        if at < min(from_ms, end):
            left.append((at, min(from_ms, end)))
        at = max(at, until_ms)
    return [*left, (at, end)] if at < end else left


def _shown(times: Times, dashes: str) -> str:
    """A span in words, or as options.

    >>> _shown((0, 86_400_000), ""), _shown((86_400_000, 172_800_001), "--")
    ('until 1970-01-02T00:00:00Z', '--from 1970-01-02T00:00:00Z --until 1970-01-03T00:00:00.001Z')
    """
    pairs = zip(("from", "until"), times, _ALWAYS, strict=True)
    return " ".join(f"{dashes}{word} {_instant(ms)}" for word, ms, bound in pairs if ms != bound)


def _instant(ms: int) -> str:
    step = "milliseconds" if ms % 1_000 else "seconds"
    return datetime.fromtimestamp(ms / 1e3, UTC).isoformat(timespec=step).replace("+00:00", "Z")


def _but_refused(counts: Sequence[int]) -> str:
    shown = " and ".join(f"{count:,}" for count in counts) + (" in its runs" if len(counts) > 1 else "")
    told = f", but for rows that were refused ({shown}): correct them and load them from a file of their own"
    return told if counts else ""
