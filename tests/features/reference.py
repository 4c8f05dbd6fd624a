"""What every feature should be, computed the slow and obvious way: from the list of all events, each time anew."""

import math
from collections.abc import Sequence

from features import Event, FeatureSpec

Scalar = str | float | bool


def value(specs: Sequence[FeatureSpec], spec: FeatureSpec, events: Sequence[Event], now_ms: int) -> float:
    """The feature at `now_ms` after `events`, which are in order of arrival and hold no duplicates."""
    taken = [event for event in events if event.type == spec.event and usable(spec, event)]
    if spec.window_ms is not None:
        taken = [event for event in taken if in_window(specs, spec, events, event.time_ms, now_ms)]
    if spec.function == "count":
        return float(len(taken))
    if spec.function == "sum":
        return total(spec, taken)
    if not taken:
        return spec.default
    if spec.function == "mean":
        return total(spec, taken) / len(taken)
    newest = max(taken, key=lambda event: (event.time_ms, event.offset))
    if spec.function == "recency":
        return max(now_ms - newest.time_ms, 0) / 1000
    found = newest.attributes[spec.attribute]
    if not spec.categories:
        return float(found)
    return float(spec.categories.index(found)) if found in spec.categories else spec.default


def late(specs: Sequence[FeatureSpec], events: Sequence[Event]) -> int:
    """How many events came when some window of their type had passed their tile."""
    return sum(
        any(
            event.time_ms // spec.tile_width_ms <= head(specs, spec, events[:position]) - spec.tiles
            for spec in specs
            if spec.event == event.type and spec.window_ms is not None
        )
        for position, event in enumerate(events)
    )


def in_window(
    specs: Sequence[FeatureSpec], spec: FeatureSpec, events: Sequence[Event], time_ms: int, now_ms: int
) -> bool:
    """Whether the tile of `time_ms` is among the n newest up to now, and the window remembers it."""
    now_tile = now_ms // spec.tile_width_ms
    newest = max(now_tile, head(specs, spec, events))
    return newest - spec.tiles < time_ms // spec.tile_width_ms <= now_tile


def head(specs: Sequence[FeatureSpec], spec: FeatureSpec, events: Sequence[Event]) -> float:
    """The newest tile that the windows of the same tile and length have seen."""
    types = {s.event for s in specs if (s.tile_width_ms, s.tiles) == (spec.tile_width_ms, spec.tiles)}
    return max((e.time_ms // spec.tile_width_ms for e in events if e.type in types), default=-math.inf)


def usable(spec: FeatureSpec, event: Event) -> bool:
    """Whether a feature can take an event of its type."""
    if not all(same(event.attributes.get(name), wanted) for name, wanted in spec.where):
        return False
    if spec.attribute is None:
        return True
    found = event.attributes.get(spec.attribute)
    if spec.categories:
        return isinstance(found, str)
    return found is not None and not isinstance(found, str) and math.isfinite(found)


def same(found: Scalar | None, wanted: Scalar) -> bool:
    return found == wanted and isinstance(found, bool) == isinstance(wanted, bool)


def total(spec: FeatureSpec, taken: Sequence[Event]) -> float:
    units = sum(round(event.attributes[spec.attribute] / spec.resolution) for event in taken)
    return units / round(1 / spec.resolution)
