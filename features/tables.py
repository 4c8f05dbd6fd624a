"""A plan as the tables that the compiled functions walk through, and the functions that take numbers from events.

Numbers taken from an event form a row, one row an event: the values and conditions that any cell of its type looks at.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple
from zlib import crc32
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt

from features import kernel
from features.cells import (
    BITS,
    COUNT,
    FIRST,
    HOURS,
    LAST,
    MAX,
    MIN,
    NEWEST,
    SUM,
    WORDS,
    Cell,
    Plan,
    Source,
    by_clock,
    scale_of,
)
from features.expression import Attributes, Scalar, evaluator, number
from features.hashing import shown_hash, text_hash
from features.spec import DISTINCT_BITS

Extract = Callable[[Attributes, int], Sequence[float]]
"""(attributes, time of the event in ms) → its row."""
Clock = Callable[[int], tuple[int, int]]
"""Time in ms → (hour, weekday)."""

UNKNOWN: Final = -1.0
"""A text that is no category is news too: what was known before holds no longer."""

_QUARTER_MS: Final = 900_000
"""Offsets of time zones change at whole quarters of an hour."""


class Tables:
    """What the kernel needs of a plan to fold and merge."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.version = plan.version
        self.clock = clock_of(plan.timezone)
        groups: list[list[int]] = []
        cells: list[list[int]] = []
        slot_at = word_at = 0
        self.first_cell: list[int] = []
        for group in plan.groups:
            mask_words = -(-len(group.cells) // 64)
            width, first = mask_words, len(cells)
            for cell in group.cells:
                cells.append([cell.kind, width, 0, 0])
                width += WORDS[cell.kind]
            groups.append([group.tile_ms, group.tiles, slot_at, word_at, width, first, len(group.cells), mask_words])
            self.first_cell.append(first)
            slot_at += group.tiles
            word_at += group.tiles * width
        self.groups = kernel.array(groups, 8)
        self.cells = kernel.array(cells, 4)
        self.words = word_at
        self.types: dict[str, int] = {}
        self.extract: list[Extract] = []
        self.growth: list[int] = []
        """Bytes that an event of each type can add to a record."""
        self._updates()
        time_cells = sum(kind in (LAST, FIRST, NEWEST) for kind, *_ in cells)
        self.slack = 64 + 8 * 32 + len(groups) * 16 + time_cells * 10
        """Bytes that any event can add: a newer latest time makes every distance to it longer."""
        self.mask_bytes = sum(group.tiles * (1 + len(group.cells) // 8) for group in plan.groups)
        """Of all tiles, were they all there."""

    def _updates(self) -> None:
        updates: list[list[int]] = []
        scales: list[tuple[float, float, float]] = []
        kinds: list[tuple[int, int]] = []
        for event in dict.fromkeys(group.event for group in self.plan.groups):
            sources: dict[Source, int] = {}
            first, growth = len(updates), 0
            for at, group in enumerate(self.plan.groups):
                if group.event != event:
                    continue
                growth += 20 + len(group.cells) // 8
                for place, cell in enumerate(group.cells):
                    growth += 160 if cell.kind == BITS else 22
                    by_slot = cell.value is not None and cell.value.form in ("hour", "weekday")
                    if by_slot and cell.slot:
                        continue
                    value = -1 if cell.value is None else sources.setdefault(cell.value, len(sources))
                    condition = -1 if cell.condition is None else sources.setdefault(cell.condition, len(sources))
                    word = int(self.cells[self.first_cell[at] + place, kernel.C_WORD])
                    kind = kernel.BY_SLOT if by_slot else cell.kind
                    updates.append([at, place, kind, value, condition, word])
                    scales.append((*scale_of(cell.resolution or 1.0), float(cell.half_life_ms)))
            self.types[event] = len(kinds)
            kinds.append((first, len(updates) - first))
            self.extract.append(_extractor(list(sources), self.clock))
            self.growth.append(growth)
        self.updates = kernel.array(updates, 6)
        self.scales = kernel.array(scales, 3, float)
        self.kinds = kernel.array(kinds, 2)


class Views:
    """What the kernel needs to read: where each cell goes, and what each feature makes of it."""

    def __init__(self, tables: Tables) -> None:
        plan = tables.plan
        self._raw: dict[tuple[int, int, int, int], int] = {}
        """Place of (cell, tiles, what is done, extra) in the raw numbers."""
        self._blank: list[float] = []
        self._by_cell: dict[int, list[tuple[list[int], float]]] = {}
        self._sketches = 0
        names = {spec.name: at for at, spec in enumerate(plan.specs)}
        features: list[tuple[int, int, int]] = []
        scales: list[tuple[float, float, float]] = []
        self.by_clock = False
        for spec, use in zip(plan.specs, plan.uses, strict=True):
            if use is None:
                features.append((kernel.RATIO, names[spec.numerator or ""], names[spec.denominator or ""]))
                scales.append((1.0, 1.0, spec.missing))
                continue
            cells = plan.groups[use.group].cells
            first = tables.first_cell[use.group]
            tiles = max(spec.tiles, 1)
            picked = [(first + at, cells[at]) for at in use.cells]
            if spec.function in ("hour_share", "weekday_share"):
                self.by_clock = True
                op = kernel.SHARE_HOUR if spec.function == "hour_share" else kernel.SHARE_WEEKDAY
                target = len(self._blank)
                self._blank += [0.0, 0.0]
                for cell, what in picked:
                    self._by_cell.setdefault(cell, []).append(([target, tiles, op, what.slot], 0.0))
                features.append((kernel.SHARE, target, 0))
                scales.append((1.0, 1.0, spec.missing))
                continue
            targets = [self._view(cell, what, tiles) for cell, what in picked]
            features.append((_feature_op(spec.function), targets[0], targets[1] if len(targets) > 1 else 0))
            if spec.categories:
                features[-1] = (kernel.AS_IT_IS, targets[0], 1)
            divide, multiply = scale_of(spec.resolution) if spec.function in ("sum", "mean", "decayed") else (1.0, 1.0)
            scales.append((multiply, divide, spec.missing))
        views: list[list[int]] = []
        half_lives: list[float] = []
        viewed = tables.cells.copy()
        for cell, rows in self._by_cell.items():
            viewed[cell, kernel.C_VIEW], viewed[cell, kernel.C_VIEWS] = len(views), len(rows)
            views += [row for row, _ in rows]
            half_lives += [half_life for _, half_life in rows]
        self.whole_numbers, self.reals = kernel.flattened(
            tables.groups,
            viewed,
            kernel.array(views, 4),
            kernel.array(features, 3),
            self._sketches,
            np.array(half_lives, float),
            np.array(self._blank, float),
            kernel.array(scales, 3, float),
        )

    def _view(self, cell: int, what: Cell, tiles: int) -> int:
        """Where the raw number of a cell over the newest `tiles` tiles stands."""
        op = kernel.DECAY if what.half_life_ms else what.kind
        key = (cell, tiles, op, 0)
        if key not in self._raw:
            if what.kind == BITS:
                self._raw[key] = self._sketches
                self._sketches += 1
            else:
                self._raw[key] = len(self._blank)
                self._blank.append(_BLANK[what.kind])
            self._by_cell.setdefault(cell, []).append(([self._raw[key], tiles, op, 0], float(what.half_life_ms)))
        return self._raw[key]


_BLANK: Final = {
    COUNT: 0.0,
    SUM: 0.0,
    MIN: math.inf,
    MAX: -math.inf,
    LAST: math.nan,
    FIRST: math.nan,
    NEWEST: float(kernel._NEVER_MS),
}


def _feature_op(function: str) -> int:
    special = {
        "sum": kernel.SCALED,
        "decayed": kernel.SCALED,
        "mean": kernel.MEAN,
        "recency": kernel.RECENCY,
        "distinct": kernel.DISTINCT,
    }
    return special.get(function, kernel.AS_IT_IS)


# --- numbers of an event --------------------------------------------------------------------------------------------


def clock_of(timezone: str) -> Clock:
    """Hour and weekday of a time there. Raises ValueError for an unknown time zone."""
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"timezone {timezone!r}: expected the name of a time zone, such as Europe/Prague") from error

    @lru_cache(maxsize=4_096)
    def of_quarter(quarter: int) -> tuple[int, int]:
        try:
            local = datetime.fromtimestamp(quarter * (_QUARTER_MS // 1_000), UTC).astimezone(zone)
        except (OverflowError, ValueError, OSError):  # beyond the years that a calendar has
            hours = quarter // 4
            return hours % HOURS, (hours // HOURS + 3) % 7
        return local.hour, local.weekday()

    return lambda time_ms: of_quarter(time_ms // _QUARTER_MS)


def position(given: object) -> float:
    """Bit of a value in a sketch of distinct values; NaN for what is no value.

    >>> position("web") == position("web"), position("web") == position("app"), position(1.0) == position(1)
    (True, False, True)
    """
    if isinstance(given, str):
        data = given.encode("utf-8", "surrogatepass")
    else:
        value = number(given)
        if value != value:
            return math.nan
        data = b"\0" + repr(value).encode()
    # The high bits of a product with an odd number depend on all bits of the checksum.
    return float((crc32(data) * 0x9E3779B1 & 0xFFFFFFFF) * DISTINCT_BITS >> 32)


def _extractor(sources: Sequence[Source], clock: Clock) -> Extract:
    """One function over all sources, put together from numbers and names of our own: one call an event."""
    space: dict[str, Any] = {"number": number, "position": position, "clock": clock, "nan": math.nan}
    space["text_hash"] = text_hash
    attributes: dict[str, str] = {}
    lines, terms, timed = [], [], False

    def variable(attribute: str) -> str:
        if attribute not in attributes:
            attributes[attribute] = f"x{len(attributes)}"
            space[f"k{len(attributes)}"] = attribute
            lines.append(f"    {attributes[attribute]} = a.get(k{len(attributes)})")
        return attributes[attribute]

    def value(of: Source) -> str:
        nonlocal timed
        if of.expression is not None:
            timed = True
            name = f"e{len(space)}"
            space[name] = evaluator(of.expression)
            return f"{name}(a, hour, weekday)"
        assert of.attribute is not None
        return variable(of.attribute)

    for at, source in enumerate(sources):
        if source.form in ("hour", "weekday"):
            timed = True
            terms.append(source.form)
        elif source.form == "condition":
            tests = []
            for i, (name, wanted) in enumerate(source.where):
                space[f"w{at}_{i}"] = wanted
                found = variable(name)
                # A boolean equals only a boolean; in Python True == 1.
                tests.append(f"{found} == w{at}_{i} and ({found}.__class__ is bool) is {isinstance(wanted, bool)}")
            if source.expression is not None:
                tests.append(f"{value(source)} is True")
            terms.append(f"1.0 if {' and '.join(tests)} else 0.0")
        elif source.form == "category":
            space[f"c{at}"] = {text: float(place) for place, text in enumerate(source.categories)}
            lines.append(f"    v{at} = {value(source)}")
            terms.append(f"c{at}.get(v{at}, {UNKNOWN}) if v{at}.__class__ is str else nan")
        elif source.form == "hash":
            lines.append(f"    v{at} = {value(source)}")
            terms.append(f"text_hash(v{at}) if v{at}.__class__ is str else nan")
        elif source.form == "position":
            terms.append(f"position({value(source)})")
        else:
            lines.append(f"    v{at} = {value(source)}")
            terms.append(f"v{at} if v{at}.__class__ is float else number(v{at})")
    head = ["def extract(a, time_ms):"]
    if timed:
        head.append("    hour, weekday = clock(time_ms)")
    body = [*head, *lines, f"    return ({', '.join(f'({term})' for term in terms)}{',' if terms else ''})"]
    exec("\n".join(body), space)  # noqa: S102  # names of our own; no text of a configuration
    extract: Extract = space["extract"]
    return extract


_UNSEEN: Final = np.zeros((0, 2), np.int64)


def seasons(clock: Clock, now_ms: npt.NDArray[np.int64], wanted: bool) -> npt.NDArray[np.int64]:
    """(B, 2) hour and weekday of each time; nobody looks at them unless `wanted`."""
    if not wanted:
        return _UNSEEN
    return kernel.array([clock(time_ms) for time_ms in now_ms.tolist()], 2)


def readable(categories: Sequence[str], value: float, hashed: bool = False) -> Scalar | None:
    """A value for people: a category as its text, a hash as such, None where missing."""
    if value != value:
        return None
    if hashed:
        return shown_hash(value) if value >= 0.0 else None
    if not categories:
        return value
    # A default may lie outside the categories.
    return categories[int(value)] if value in range(len(categories)) else None


class CellMap(NamedTuple):
    """Where each group and cell of a layout is found in another one; -1 where it is not."""

    groups: npt.NDArray[np.int64]
    cells: npt.NDArray[np.int64]
    renumbered: npt.NDArray[np.int64]
    """For each cell that holds categories under other numbers there: where in `numbers` those here begin, in the order
    of those there; -1: nothing changes."""
    numbers: npt.NDArray[np.float64]


def cell_map(here: Tables, there: Tables) -> CellMap:
    """Where `here` finds its groups and cells in `there`.

    What depends on hours or weekdays of another time zone is something else, though its declaration is the same. Of one
    text with other values it is the same thing, as far as both know a value.
    """
    moved = here.plan.timezone != there.plan.timezone
    index: Mapping[tuple[str, int], int] = {
        (group.event, group.tile_ms): at for at, group in enumerate(there.plan.groups)
    }
    groups: list[int] = []
    cells: list[int] = []
    renumbered: list[int] = []
    numbers: list[float] = []
    for group in here.plan.groups:
        at = index.get((group.event, group.tile_ms), -1)
        groups.append(at)
        theirs = () if at < 0 else there.plan.groups[at].cells
        first = 0 if at < 0 else there.first_cell[at]
        places = {cell: place for place, cell in enumerate(theirs)}
        for cell in group.cells:
            place = None if moved and by_clock(cell) else places.get(cell, _with_other_categories(cell, theirs))
            cells.append(-1 if place is None else first + place)
            if place is None or cell in places:
                renumbered.append(-1)
                continue
            renumbered.append(len(numbers))
            ours = {text: float(number) for number, text in enumerate(_categories(cell))}
            numbers += [ours.get(text, UNKNOWN) for text in _categories(theirs[place])]
    return CellMap(
        np.array(groups, np.int64), np.array(cells, np.int64), np.array(renumbered, np.int64), np.array(numbers, float)
    )


def _categories(cell: Cell) -> tuple[str, ...]:
    return () if cell.value is None else cell.value.categories


def _with_other_categories(cell: Cell, others: Sequence[Cell]) -> int | None:
    """The place of the cell that has most categories in common with this one and differs in nothing else, if any."""
    if not _categories(cell):
        return None
    common = {
        place: len({*_categories(cell)} & {*_categories(other)})
        for place, other in enumerate(others)
        if _categories(other) and _uncategorised(other) == _uncategorised(cell)
    }
    best = max(common, key=lambda place: common[place], default=None)
    return best if best is not None and common[best] else None


def _uncategorised(cell: Cell) -> Cell:
    assert cell.value is not None
    return replace(cell, value=replace(cell.value, categories=()))
