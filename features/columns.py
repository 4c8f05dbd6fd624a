"""Where every feature lives in the record.

Behind the header:

    lifetime   counts u32 …  sums i64 …  newest times i64 … (recency first, then last)  last values f64 …
    windows    for every class of windows (same tile length, same number of tiles n):
                   head i64, the number of the newest tile
                   n slots, each: counts u32 …  sums i64 …

A tile is a stretch of event time, number t = floor(time / tile_ms), kept in slot t mod n. All features of a class move
together, so they share one head, passing over a tile is one stretch of zeros, and reading a class is one small matrix
product. Every section starts on a multiple of 8 bytes; a mean keeps a count and a sum.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2s
from struct import Struct
from typing import Final

from features.record import EMPTY, HEADER_BYTES, NEVER_MS, seal
from features.spec import FeatureSpec, validate

COUNT_BYTES: Final = 4
NUMBER_BYTES: Final = 8
RECORD_BYTES_MAX: Final = 256 * 1024
"""Columns of one customer. Reached only by very many tiles; it protects the store and the read."""

_TIME: Final = Struct("<q")
_VALUE: Final = Struct("<d")


@dataclass(frozen=True, slots=True)
class Window:
    """A class of windows: the features that share tile length and number of tiles."""

    tile_ms: int
    tiles: int
    head_at: int
    slots_at: int
    slot_bytes: int
    count_at: dict[int, int]
    """Offset in a slot, by feature; in order of the offsets, as in all maps here."""
    sum_at: dict[int, int]


@dataclass(frozen=True, slots=True)
class Columns:
    """The place of everything, by index of the feature."""

    specs: tuple[FeatureSpec, ...]
    version: int
    fixed_bytes: int
    count_at: dict[int, int]
    sum_at: dict[int, int]
    time_at: dict[int, int]
    value_at: dict[int, int]
    windows: tuple[Window, ...]
    empty: bytes
    """Sealed record of a customer without events."""


def place(specs: Sequence[FeatureSpec]) -> Columns:
    """Give every feature its bytes. Raises ValueError as `validate` does, or if they do not fit."""
    validate(specs)
    life = [index for index, spec in enumerate(specs) if spec.window_ms is None]
    count_at, end = _section(_having(specs, life, "count", "mean"), HEADER_BYTES, COUNT_BYTES)
    sum_at, end = _section(_having(specs, life, "sum", "mean"), end, NUMBER_BYTES)
    times = [*_having(specs, life, "recency"), *_having(specs, life, "last")]
    time_at, end = _section(times, end, NUMBER_BYTES)
    value_at, end = _section(_having(specs, life, "last"), end, NUMBER_BYTES)
    windows: list[Window] = []
    for tile_ms, tiles in sorted({(spec.tile_width_ms, spec.tiles) for spec in specs if spec.window_ms is not None}):
        windows.append(_window(specs, tile_ms, tiles, end))
        end = windows[-1].slots_at + tiles * windows[-1].slot_bytes
    if end > RECORD_BYTES_MAX:
        raise ValueError(
            f"the features need {end} bytes a customer: expected at most {RECORD_BYTES_MAX}; use fewer tiles"
        )
    version = version_of(specs)
    times_at = [*time_at.values(), *(window.head_at for window in windows)]
    empty = _empty(end, version, times_at, value_at.values())
    return Columns(tuple(specs), version, end, count_at, sum_at, time_at, value_at, tuple(windows), empty)


def version_of(specs: Sequence[FeatureSpec]) -> int:
    """u32 hash of all that decides what the bytes mean.

    Name, default, meaning and unit are read-time matters: a change of one must not cost every customer's past.
    """
    canonical = [
        [
            spec.function,
            spec.event,
            spec.attribute,
            spec.tile_width_ms,
            spec.tiles,
            sorted([name, value if isinstance(value, str | bool) else float(value)] for name, value in spec.where),
            list(spec.categories),
            float(spec.resolution) if spec.function in ("sum", "mean") else None,
        ]
        for spec in specs
    ]
    text = json.dumps(canonical, separators=(",", ":"), ensure_ascii=True)
    return int.from_bytes(blake2s(text.encode(), digest_size=4).digest(), "little")


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


def _having(specs: Sequence[FeatureSpec], members: Iterable[int], *functions: str) -> list[int]:
    return [index for index in members if specs[index].function in functions]


def _section(members: Sequence[int], start: int, width: int) -> tuple[dict[int, int], int]:
    """Offsets of columns that stand side by side, and where the next section starts."""
    places = {index: start + position * width for position, index in enumerate(members)}
    return places, -(-(start + len(members) * width) // NUMBER_BYTES) * NUMBER_BYTES


def _window(specs: Sequence[FeatureSpec], tile_ms: int, tiles: int, head_at: int) -> Window:
    members = [
        index
        for index, spec in enumerate(specs)
        if spec.window_ms is not None and (spec.tile_width_ms, spec.tiles) == (tile_ms, tiles)
    ]
    count_at, end = _section(_having(specs, members, "count", "mean"), 0, COUNT_BYTES)
    sum_at, slot_bytes = _section(_having(specs, members, "sum", "mean"), end, NUMBER_BYTES)
    return Window(tile_ms, tiles, head_at, head_at + NUMBER_BYTES, slot_bytes, count_at, sum_at)


def _empty(fixed_bytes: int, version: int, times_at: Iterable[int], values_at: Iterable[int]) -> bytes:
    columns = bytearray(fixed_bytes)
    for at in times_at:
        _TIME.pack_into(columns, at, NEVER_MS)
    for at in values_at:
        _VALUE.pack_into(columns, at, math.nan)
    return seal(columns, EMPTY._replace(version=version))
