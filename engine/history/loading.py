"""Files to sorted buckets: what backfilling and point-in-time features have in common."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from engine.catalogue import Catalogue
from engine.errors import InvalidArgument
from engine.history.mapping import File, Reading, reading_of
from engine.history.rows import Span, Tally, checked_events
from engine.history.sources import columns_of
from engine.history.staging import Staging

EVENTS = "events"
"""Kind of the rows in the buckets."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a command shows while it works: parts of the whole, as they are done."""

    bytes_read: Callable[[int], None] = lambda read: None
    events_folded: Callable[[int], None] = lambda folded: None
    events_due: Callable[[int], None] = lambda due: None
    """How many there are in all, once that is known."""


def readings_of(files: Sequence[File], catalogue: Catalogue) -> list[Reading]:
    """Check all files against mapping and catalogue. Raises InvalidArgument with all problems, one a line."""
    readings, problems = [], []
    for file in files:
        try:
            readings.append(reading_of(file, columns_of(file), catalogue))
        except InvalidArgument as error:
            problems.append(str(error))
    if problems:
        raise InvalidArgument("\n".join(problems))
    return readings


def check(readings: Sequence[Reading], catalogue: Catalogue, span: Span, told: Told) -> Tally:
    """Read and check everything, keep nothing. Raises InvalidArgument for a file that cannot be read to its end."""
    tally = Tally()
    for number, reading in enumerate(readings):
        for _ in checked_events(reading, number, catalogue, span, tally, told.bytes_read):
            pass
    return tally


def stage(staging: Staging, readings: Sequence[Reading], catalogue: Catalogue, span: Span, told: Told) -> Tally:
    """Put all events into buckets. Raises InvalidArgument for a file that cannot be read to its end."""
    tally = Tally()
    for number, reading in enumerate(readings):
        refused_before = tally.refused_in_all
        for events in checked_events(reading, number, catalogue, span, tally, told.bytes_read):
            staging.add(EVENTS, events)
        tally.refused_of.append(tally.refused_in_all - refused_before)
    return tally


def size_of(path: Path) -> int:
    """Bytes of a file. Raises InvalidArgument if it is gone."""
    try:
        return path.stat().st_size
    except OSError as error:
        raise InvalidArgument(f"{path}: {error.strerror}") from error


def instant_ms(text: str, what: str) -> int:
    """A time of the command line, such as 2026-05-04 or 2026-05-04T09:30:00Z; UTC if it names no zone.

    >>> instant_ms("1970-01-02", "--from"), instant_ms("1970-01-01T01:00:01+01:00", "--from")
    (86400000, 1000)
    """
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidArgument(f"{what}: {text!r}, expected a time like 2026-05-04T09:30:00Z or 2026-05-04") from error
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when
    return int(when.timestamp() * 1000)
