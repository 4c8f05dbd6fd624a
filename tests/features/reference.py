"""What every feature should be, computed the slow and obvious way: from the list of all events, each time anew."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime

from features import Event, FeatureSpec
from features.spec import DISTINCT_BITS
from features.tables import position

Scalar = str | float | bool


def value(specs: Sequence[FeatureSpec], spec: FeatureSpec, events: Sequence[Event], now_ms: int) -> float:
    """The feature at `now_ms` after `events`, which are in order of arrival and hold no duplicates."""
    if spec.function == "ratio":
        by_name = {other.name: other for other in specs}
        parts = [value(specs, by_name[name], events, now_ms) for name in (spec.numerator, spec.denominator)]
        return or_default(spec, parts[0] / parts[1] if parts[1] else math.nan)
    taken = [event for event in events if event.type == spec.event and usable(spec, event)]
    if spec.function == "decayed":
        return decayed(specs, spec, events, taken, now_ms)
    if spec.window_ms is not None:
        taken = [event for event in taken if in_window(specs, spec, events, event.time_ms, now_ms)]
    if spec.function == "count":
        return float(len(taken))
    if spec.function == "sum":
        return total(spec, taken)
    if spec.function == "distinct":
        free = max(DISTINCT_BITS - len({position(raw(spec, event)) for event in taken}), 1) / DISTINCT_BITS
        return float(round(-DISTINCT_BITS * math.log(free)))
    if not taken:
        return spec.default
    if spec.function == "mean":
        return total(spec, taken) / len(taken)
    if spec.function in ("min", "max"):
        return float((min if spec.function == "min" else max)(raw(spec, event) for event in taken))
    if spec.function.endswith("_share"):
        slots = [clock(spec, event.time_ms) for event in taken]
        return slots.count(clock(spec, now_ms)) / len(slots)
    if spec.function == "recency":
        return max(now_ms - max(event.time_ms for event in taken), 0) / 1000
    # Of two values of one time the larger is the last, the smaller the first; what is no category is smaller than all.
    timed = [(event.time_ms, number(spec, event)) for event in taken]
    _, found = max(timed) if spec.function == "last" else min(timed)
    return spec.default if spec.categories and found < 0 else found


def or_default(spec: FeatureSpec, found: float) -> float:
    return spec.default if math.isnan(found) else found


def number(spec: FeatureSpec, event: Event) -> float:
    found = raw(spec, event)
    if not spec.categories:
        return float(found)
    return float(spec.categories.index(found)) if found in spec.categories else -1.0


def decayed(
    specs: Sequence[FeatureSpec], spec: FeatureSpec, events: Sequence[Event], taken: Sequence[Event], now_ms: int
) -> float:
    """Every event by its own age, without what fell out of the tiles or lies in a tile after now."""
    now_tile = now_ms // spec.tile_width_ms
    kept = [
        event
        for event in taken
        if now_tile - spec.tiles < event.time_ms // spec.tile_width_ms <= now_tile
        and event.time_ms // spec.tile_width_ms > head(spec, events) - spec.tiles
    ]
    latest = max((event.time_ms for event in events), default=now_ms)

    def age_ms(time_ms: int) -> int:
        tile_end = (time_ms // spec.tile_width_ms + 1) * spec.tile_width_ms
        return max(now_ms, min(latest, tile_end - 1)) - time_ms

    weigh = [2.0 ** (-age_ms(event.time_ms) / (spec.half_life_ms or 1)) for event in kept]
    return sum(w * (float(raw(spec, e)) if spec.attribute else 1.0) for w, e in zip(weigh, kept, strict=True))


def clock(spec: FeatureSpec, time_ms: int) -> int:
    local = datetime.fromtimestamp(time_ms // 1000, UTC)
    return local.hour if spec.function == "hour_share" else local.weekday()


def late(specs: Sequence[FeatureSpec], events: Sequence[Event]) -> int:
    """How many events came when some window of their type had passed their tile."""
    return sum(
        any(
            event.time_ms // spec.tile_width_ms <= head(spec, events[:position]) - kept_tiles(specs, spec)
            for spec in specs
            if spec.event == event.type and spec.tiles
        )
        for position, event in enumerate(events)
    )


def in_window(
    specs: Sequence[FeatureSpec], spec: FeatureSpec, events: Sequence[Event], time_ms: int, now_ms: int
) -> bool:
    """Whether the tile of `time_ms` is among the n newest up to now, and is still kept."""
    now_tile, tile = now_ms // spec.tile_width_ms, time_ms // spec.tile_width_ms
    return now_tile - spec.tiles < tile <= now_tile and tile > head(spec, events) - kept_tiles(specs, spec)


def kept_tiles(specs: Sequence[FeatureSpec], spec: FeatureSpec) -> int:
    """Tiles that are kept of an event type at one tile length: those of the longest window."""
    return max(s.tiles for s in specs if (s.event, s.tile_width_ms) == (spec.event, spec.tile_width_ms))


def head(spec: FeatureSpec, events: Sequence[Event]) -> float:
    """The newest tile that the windows of the same event type have seen."""
    return max((e.time_ms // spec.tile_width_ms for e in events if e.type == spec.event), default=-math.inf)


def usable(spec: FeatureSpec, event: Event) -> bool:
    """Whether a feature can take an event of its type."""
    if not all(same(event.attributes.get(name), wanted) for name, wanted in spec.where):
        return False
    if spec.attribute is None:
        return True
    found = raw(spec, event)
    if spec.categories:
        return isinstance(found, str)
    if spec.function == "distinct" and isinstance(found, str):
        return True
    return found is not None and not isinstance(found, str) and math.isfinite(found)


def raw(spec: FeatureSpec, event: Event) -> Scalar | None:
    return event.attributes.get(spec.attribute or "")


def same(found: Scalar | None, wanted: Scalar) -> bool:
    return found == wanted and isinstance(found, bool) == isinstance(wanted, bool)


def total(spec: FeatureSpec, taken: Sequence[Event]) -> float:
    units = sum(round(event.attributes[spec.attribute] / spec.resolution) for event in taken)
    return units / round(1 / spec.resolution)
