"""Sorted rows into events, and events into records and timelines: the one place where history meets the layout.

History has offsets of its own, 0-1, 0-2 and so on within a customer: before every offset that a log gives in service.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

import numpy as np
import orjson
import polars as pl

from engine.catalogue import Catalogue
from engine.history.rows import slot_of
from engine.history.staging import runs_of
from engine.ledger import hash_of
from engine.limits import TIMELINE_ENTRIES_MAX
from features import Event, Layout, Offset, RecordError

EVENTS_AT_ONCE: Final = 50_000
"""Events of a batch that are objects at a time."""
_PIECE_ENTRIES: Final = 1_000
"""Events that go into a timeline at a time."""


class EventMaker:
    """Makes events of the rows of a checked frame."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._types = list(catalogue.event_types)
        self._slots = [
            {slot_of(name, attribute): name for name, attribute in declared.items()}
            for declared in catalogue.event_types.values()
        ]

    def events(self, rows: pl.DataFrame, first: Sequence[int]) -> list[Event]:
        """An event a row; `first` is the number of each in its customer's history, from 1."""
        types = rows["type"].to_numpy()
        attributes: list[dict[str, float | str | bool]] = [{}] * len(types)
        for number in np.unique(types).tolist():
            at = np.flatnonzero(types == number)
            slots = self._slots[number]
            part = (rows if len(at) == len(types) else rows[at]).select([pl.col(s).alias(n) for s, n in slots.items()])
            full = [column.name for column in part if not column.null_count()]
            given = part.select(full).rows(named=True) if full else [{} for _ in at]
            for column in part:
                if column.name not in full and column.null_count() < len(at):
                    for row, value in zip(given, column.to_list(), strict=True):
                        if value is not None:
                            row[column.name] = value
            for place, row in zip(at.tolist(), given, strict=True):
                attributes[place] = row
        columns = zip(rows["id"].to_list(), types.tolist(), rows["time_ms"].to_list(), attributes, first, strict=True)
        names = self._types
        return [Event(id_hash, names[t], time_ms, given, Offset(0, n)) for id_hash, t, time_ms, given, n in columns]


class TimelineMaker:
    """Makes timelines of the rows of a checked frame."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._keeper = catalogue.keeper
        self._maker = EventMaker(catalogue)
        self._kept = [number for number, name in enumerate(catalogue.event_types) if name in self._keeper.shapes]

    def timelines(self, rows: pl.DataFrame) -> dict[str, bytes]:
        """By customer, of sorted rows; who has no event that belongs on one is left out."""
        kept = rows.filter(pl.col("type").is_in(self._kept))
        if not kept.height:
            return {}
        times_ms = kept["time_ms"].to_numpy()
        runs = [(customer, _newest(times_ms, start, end), end) for customer, start, end in runs_of(kept["customer"])]
        events = self._events(kept[np.concatenate([np.arange(start, end) for _, start, end in runs])])
        return {customer: self._timeline(islice(events, end - start)) for customer, start, end in runs}

    def _events(self, rows: pl.DataFrame) -> Iterator[Event]:
        for start in range(0, rows.height, EVENTS_AT_ONCE):
            part = rows[start : start + EVENTS_AT_ONCE]
            yield from self._maker.events(part, range(start + 1, start + part.height + 1))

    def _timeline(self, events: Iterator[Event]) -> bytes:
        """Made in pieces: there may be a year of events in one millisecond, where a file has only days."""
        alike: Counter[bytes] = Counter()
        line: bytes | None = None
        while piece := list(islice(events, _PIECE_ENTRIES)):
            line = self._keeper.extended(line, _named(piece, alike))
        assert line is not None, "who has a run has a row"
        return line


def _newest(times_ms: np.ndarray[tuple[int], np.dtype[np.int64]], start: int, end: int) -> int:
    """Row from which on a customer's events matter: one more than a timeline keeps, whatever the order within a ms."""
    if end - start <= TIMELINE_ENTRIES_MAX + 1:
        return start
    oldest = times_ms[end - TIMELINE_ENTRIES_MAX - 1]
    return start + int(np.searchsorted(times_ms[start:end], oldest))


def _named(events: Sequence[Event], alike: Counter[bytes]) -> list[Event]:
    """The same events, those without an id named by what they tell: the order of rows and files makes no difference.

    `alike` counts those that tell the same.
    """
    named = []
    for event in events:
        if not event.id_hash:
            said = orjson.dumps([event.type, event.time_ms, event.attributes], option=orjson.OPT_SORT_KEYS)
            alike[said] += 1
            event = replace(event, id_hash=hash_of(f"history\0{alike[said]}\0{said.decode()}"))
        named.append(event)
    return named


def folded(layout: Layout, records: Sequence[bytes | None], events: Sequence[Sequence[Event]]) -> list[bytes]:
    """The next record of each customer. Raises RecordError if one cannot be folded into."""
    made = []
    for result in layout.fold_many(records, events):
        if isinstance(result, RecordError):
            raise result
        made.append(result.record)
    return made


def merged(layout: Layout, live: bytes | None, history: bytes) -> bytes:
    """The record that live and history events together would have given; its watermark is that of the live one.

    Raises RecordError if the live one is damaged, VersionError if its layout is not known here.
    """
    return layout.merge([live if live is not None else layout.fold(None, []).record, history])


def histories(layout: Layout, maker: EventMaker, rows: pl.DataFrame) -> dict[str, bytes]:
    """Records of the names of sorted rows, from these alone."""
    runs = runs_of(rows["customer"])
    if rows.height > EVENTS_AT_ONCE:  # a chunk is larger only if it is one name
        [(name, _, _)] = runs
        return {name: folded_on(layout, maker, None, rows, 1)}
    events = maker.events(rows, [n for _, start, end in runs for n in range(1, end - start + 1)])
    made = folded(layout, [None] * len(runs), [events[start:end] for _, start, end in runs])
    return {name: record for (name, _, _), record in zip(runs, made, strict=True)}


def folded_on(layout: Layout, maker: EventMaker, record: bytes | None, rows: pl.DataFrame, first: int) -> bytes:
    """The record of one name after sorted rows, however many; `first` is the number of the first one in its history."""
    [record] = folded(layout, [record], [[]])
    for start in range(0, rows.height, EVENTS_AT_ONCE):
        part = rows[start : start + EVENTS_AT_ONCE]
        numbers = range(first + start, first + start + part.height)
        [record] = folded(layout, [record], [maker.events(part, numbers)])
    return record
