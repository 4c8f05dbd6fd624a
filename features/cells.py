"""What of the events is kept: cells, in groups.

A *cell* is one small state that events are added to and that two records can be merged in, whatever the order: a count,
a sum, a smallest value, the newest value, a set of bits. Features share cells: sum and mean of one attribute over 7 and
30 days, stepping by a day, are two cells.

A *group* is the cells of one event type and one tile length (0: lifetime). A tile is a stretch of event time, number
floor(time / tile_ms). A group keeps its newest `tiles` tiles, each with those of its cells that saw an event. Its head,
the number of its newest tile, moves with every event of the type.

| kind | words | holds | two of them together |
|---|---|---|---|
| COUNT | 1 | how many | sum |
| SUM | 1 | Σ value in units of the resolution | sum |
| MIN, MAX | 1 | a value | the smaller, the larger |
| LAST, FIRST | 2 | time and value | the newer, the older; of one time the larger, the smaller value |
| NEWEST | 1 | a time | the newer |
| BITS | 16 | DISTINCT_BITS bits | either |

None depends on the order of events, so neither folding nor merging does.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2s
from typing import Final

from features.expression import reads_clock
from features.spec import DISTINCT_BITS, FeatureSpec, validate

COUNT: Final = 0
SUM: Final = 1
MIN: Final = 2
MAX: Final = 3
LAST: Final = 4
FIRST: Final = 5
NEWEST: Final = 6
BITS: Final = 7
WORDS: Final = (1, 1, 1, 1, 2, 2, 1, DISTINCT_BITS // 64)
"""Words of eight bytes of each kind, in the order of their numbers."""

HOURS: Final = 24
WEEKDAYS: Final = 7
CELLS_OF_GROUP_MAX: Final = 512
TILE_WORDS_MAX: Final = 1 << 18
"""Words of all tiles of one layout, were they all full: 2 MiB to work in."""


@dataclass(frozen=True, slots=True)
class Source:
    """A number taken from an event: of an attribute or an expression, or whether a condition holds."""

    form: str
    """number, category, hash, position (in a sketch), condition, hour or weekday."""
    attribute: str | None = None
    expression: str | None = None
    where: tuple[tuple[str, str | float | bool], ...] = ()
    categories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cell:
    """One state, named by all that decides what it holds."""

    kind: int
    value: Source | None
    """None: the event itself counts."""
    condition: Source | None
    resolution: float = 0.0
    """Of SUM."""
    half_life_ms: int = 0
    """Of a SUM that decays: what enters a tile is weighted by 2^(age of the tile's start / half-life)."""
    slot: int = 0
    """Of a COUNT by hour or weekday: which."""


@dataclass(frozen=True, slots=True)
class Group:
    """The cells of one event type and one tile length."""

    event: str
    tile_ms: int
    """0: lifetime."""
    tiles: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Use:
    """Where a feature finds its cells: group, and cells in it."""

    group: int
    cells: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """All groups of a list of features, and what each feature uses (None: a ratio)."""

    specs: tuple[FeatureSpec, ...]
    groups: tuple[Group, ...]
    uses: tuple[Use | None, ...]
    version: int
    """u32 hash of all that decides what the bytes of a record mean.

    Name, default, meaning, unit and owner are read-time matters: a change of one must not cost anybody's past.
    """
    timezone: str


def plan(specs: Sequence[FeatureSpec], timezone: str = "UTC") -> Plan:
    """Give every feature its cells. Raises ValueError as `validate` does, or if they are too many."""
    validate(specs)
    tiles: dict[tuple[str, int], int] = {}
    cells: dict[tuple[str, int], dict[Cell, int]] = {}
    for spec in specs:
        if spec.function != "ratio":
            key = (spec.event, spec.tile_width_ms)
            tiles[key] = max(tiles.get(key, 1), spec.tiles)
            places = cells.setdefault(key, {})
            for cell in _cells(spec):
                places.setdefault(cell, len(places))
    # The order of the declarations does not matter to the bytes.
    order = sorted(tiles)
    groups = []
    for event, tile_ms in order:
        # Hours and weekdays stay side by side, in their order: an event finds its own by counting from the first.
        members = sorted(cells[event, tile_ms], key=lambda cell: (_canonical(replace(cell, slot=0)), cell.slot))
        if len(members) > CELLS_OF_GROUP_MAX:
            raise ValueError(
                f"{len(members)} different things are kept of event {event!r} in tiles of {tile_ms} ms: expected at "
                f"most {CELLS_OF_GROUP_MAX}"
            )
        groups.append(Group(event, tile_ms, tiles[event, tile_ms], tuple(members)))
    words = sum(group.tiles * (1 + sum(WORDS[cell.kind] for cell in group.cells)) for group in groups)
    if words > TILE_WORDS_MAX:
        raise ValueError(f"the tiles of the features have {words} words: expected at most {TILE_WORDS_MAX}; use fewer")
    index = {(group.event, group.tile_ms): at for at, group in enumerate(groups)}
    uses: list[Use | None] = []
    for spec in specs:
        if spec.function == "ratio":
            uses.append(None)
            continue
        at = index[spec.event, spec.tile_width_ms]
        uses.append(Use(at, tuple(groups[at].cells.index(cell) for cell in _cells(spec))))
    return Plan(tuple(specs), tuple(groups), tuple(uses), _version(groups, timezone), timezone)


def scale_of(resolution: float) -> tuple[float, float]:
    """(multiply, divide) that turn a value into units of the resolution: units = value × multiply / divide.

    One of the two is 1, so that 0.1 at a resolution of 1e-6 is 100,000 units and reads as 100,000 / 1,000,000 = 0.1
    to the last bit; a product with 1e-6, itself inexact, would not.

    >>> scale_of(1e-6), scale_of(0.25), scale_of(5.0)
    ((1000000.0, 1.0), (4.0, 1.0), (1.0, 5.0))
    """
    inverse = float(round(1.0 / resolution))
    if resolution <= 1.0 and math.isclose(inverse * resolution, 1.0, rel_tol=1e-15):
        return inverse, 1.0
    return 1.0, resolution


def by_clock(cell: Cell) -> bool:
    """Whether a cell holds something else in another time zone."""
    return any(
        source.form in ("hour", "weekday") or (source.expression is not None and reads_clock(source.expression))
        for source in (cell.value, cell.condition)
        if source is not None
    )


def _cells(spec: FeatureSpec) -> Iterator[Cell]:
    """The cells of a feature; a mean has its sum first, hours and weekdays come in their order."""
    condition = Source("condition", None, spec.condition, spec.where) if spec.where or spec.condition else None

    def taken(form: str, categories: tuple[str, ...] = ()) -> Source | None:
        if spec.attribute is None and spec.value is None:
            return None
        return Source(form, spec.attribute, spec.value, (), categories)

    function = spec.function
    if function == "count":
        yield Cell(COUNT, None, condition)
    elif function in ("sum", "mean"):
        yield Cell(SUM, taken("number"), condition, float(spec.resolution))
        if function == "mean":
            yield Cell(COUNT, taken("number"), condition)
    elif function in ("min", "max"):
        yield Cell(MIN if function == "min" else MAX, taken("number"), condition)
    elif function in ("last", "first"):
        value = taken("category", spec.categories) if spec.categories else taken("hash" if spec.hashed else "number")
        yield Cell(LAST if function == "last" else FIRST, value, condition)
    elif function == "recency":
        yield Cell(NEWEST, None, condition)
    elif function == "distinct":
        yield Cell(BITS, taken("position"), condition)
    elif function == "decayed":
        yield Cell(SUM, taken("number"), condition, float(spec.resolution), spec.half_life_ms or 0)
    else:
        form, slots = ("hour", HOURS) if function == "hour_share" else ("weekday", WEEKDAYS)
        for slot in range(slots):
            yield Cell(COUNT, Source(form), condition, slot=slot)


def _canonical(cell: Cell) -> str:
    def source(of: Source | None) -> object:
        if of is None:
            return None
        pairs = [[name, value if isinstance(value, str | bool) else float(value)] for name, value in sorted(of.where)]
        return [of.form, of.attribute, of.expression, pairs, list(of.categories)]

    parts = [cell.kind, cell.slot, source(cell.value), source(cell.condition), cell.resolution, cell.half_life_ms]
    return json.dumps(parts, separators=(",", ":"), ensure_ascii=True)


def _version(groups: Sequence[Group], timezone: str) -> int:
    parts = [[group.event, group.tile_ms, group.tiles, *map(_canonical, group.cells)] for group in groups]
    # Wider than `by_clock`, and it stays so: another version would send all records through a carrying over.
    zoned = any(cell.value and cell.value.form in ("hour", "weekday") for group in groups for cell in group.cells)
    zoned = zoned or any(
        source is not None and source.expression is not None
        for group in groups
        for cell in group.cells
        for source in (cell.value, cell.condition)
    )
    text = json.dumps([parts, timezone if zoned else ""], separators=(",", ":"), ensure_ascii=True)
    return int.from_bytes(blake2s(text.encode(), digest_size=4).digest(), "little")
