"""What the event log says of each type of event: how much comes, how late, what stopped, which values nobody declared.

Times are event times, so that a backfill looks as it would have looked live; only lateness compares them with the time
of arrival, which is the position in the log. Kept are two numbers an event.
"""

from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.config_schema import Config
from engine.featurecheck import thresholds as at
from engine.featurecheck.finding import Finding, Level, duration, graded, moment, percent
from features import Event

_NAN: Final = float("nan")
_DAY_MS: Final = 86_400_000
_DAYS_SHOWN: Final = 14


@dataclass(frozen=True, slots=True)
class TypeFigures:
    """What came of one type of event."""

    type: str
    events: int
    per_day: tuple[int, ...]
    """Events of each of the last 14 days, the newest day last."""
    newest_ms: int
    silent_ms: float
    """From its newest event to the time of the check, at least 0; NaN without events."""
    interval_ms_median: float
    gap_ms: float
    """Longest silence between two events; NaN with fewer than two."""
    gap_ended_ms: int
    long_silence_ms: float
    """Median of its ten longest silences."""
    lateness_ms_p50: float
    """Arrival after event time."""
    lateness_ms_p99: float
    window_ms: int | None
    """Shortest window of a feature on it."""
    late_share: float
    """Events that arrived when that window was over; NaN without a window."""
    ahead_share: float
    """Events of a time after their arrival."""
    unknown: Mapping[str, tuple[float, tuple[str, ...]]]
    """(share of its events, values) of each text attribute whose value was none of the declared ones."""


@dataclass(slots=True)
class _Seen:
    times_ms: "array[int]" = field(default_factory=lambda: array("q"))
    lateness_ms: "array[int]" = field(default_factory=lambda: array("q"))
    unknown: dict[str, Counter[str]] = field(default_factory=dict)


class Arrivals:
    """Events of the log, taken in one by one in any order."""

    def __init__(self, config: Config) -> None:
        self.events = 0
        self.newest_arrival_ms = 0
        self._seen: dict[str, _Seen] = {event.type: _Seen() for event in config.events}
        self._recent: Counter[int] = Counter()
        self._values = {
            event.type: [(name, frozenset(a.values)) for name, a in event.attributes.items() if a.values]
            for event in config.events
        }
        self._windows: dict[str, int] = {}
        for feature in config.all_features:
            if feature.window is not None and feature.event:
                self._windows[feature.event] = min(feature.window, self._windows.get(feature.event, feature.window))

    def add(self, event: Event, arrival_ms: int) -> None:
        """Take in one event of the log. A type that the configuration no longer declares is counted as well."""
        seen = self._seen.get(event.type)
        if seen is None:
            seen = self._seen[event.type] = _Seen()
        self.events += 1
        self.newest_arrival_ms = max(self.newest_arrival_ms, arrival_ms)
        self._recent[arrival_ms // _DAY_MS] += 1
        seen.times_ms.append(event.time_ms)
        seen.lateness_ms.append(arrival_ms - event.time_ms)
        for name, declared in self._values.get(event.type, ()):
            value = event.attributes.get(name)
            if value is not None and value not in declared:
                counts = seen.unknown.setdefault(name, Counter())
                shown = str(value)[:40]
                counts[shown if shown in counts or len(counts) < at.UNKNOWN_VALUES_MAX else "others"] += 1

    @property
    def newest_ms(self) -> dict[str, int]:
        """Newest event time by type, of the types that came."""
        return {name: max(seen.times_ms) for name, seen in self._seen.items() if seen.times_ms}

    def arrived_since(self, since_ms: int) -> int:
        """Events that arrived on the day of `since_ms` or later."""
        return sum(count for day, count in self._recent.items() if day >= since_ms // _DAY_MS)

    def figures(self, now_ms: int) -> list[TypeFigures]:
        """The figures of each type, as of `now_ms`."""
        return [self._figures(name, seen, now_ms) for name, seen in self._seen.items()]

    def _figures(self, name: str, seen: _Seen, now_ms: int) -> TypeFigures:
        times = np.sort(np.array(seen.times_ms, np.int64))
        lateness = np.array(seen.lateness_ms, np.int64)
        window = self._windows.get(name)
        gaps = np.diff(times)
        longest = int(gaps.argmax()) if len(gaps) else 0
        return TypeFigures(
            type=name,
            events=len(times),
            per_day=_per_day(times, now_ms),
            newest_ms=int(times[-1]) if len(times) else 0,
            silent_ms=float(max(0, now_ms - int(times[-1]))) if len(times) else _NAN,
            interval_ms_median=float(np.median(gaps)) if len(gaps) else _NAN,
            gap_ms=float(gaps[longest]) if len(gaps) else _NAN,
            gap_ended_ms=int(times[longest + 1]) if len(gaps) else 0,
            long_silence_ms=float(np.median(np.sort(gaps)[-at.GAP_LONGEST_COMPARED :])) if len(gaps) else _NAN,
            lateness_ms_p50=float(np.quantile(lateness, 0.5)) if len(lateness) else _NAN,
            lateness_ms_p99=float(np.quantile(lateness, 0.99)) if len(lateness) else _NAN,
            window_ms=window,
            late_share=float((lateness > window).mean()) if window is not None and len(lateness) else _NAN,
            ahead_share=float((lateness < -at.AHEAD_MS).mean()) if len(lateness) else _NAN,
            unknown={
                attribute: (
                    counts.total() / len(times),
                    tuple(value for value, _ in counts.most_common(at.VALUES_NAMED_MAX)),
                )
                for attribute, counts in seen.unknown.items()
            },
        )


def _per_day(times: NDArray[np.int64], now_ms: int) -> tuple[int, ...]:
    first = now_ms // _DAY_MS - _DAYS_SHOWN + 1
    days = times // _DAY_MS - first
    counts = np.bincount(days[(days >= 0) & (days < _DAYS_SHOWN)], minlength=_DAYS_SHOWN)
    return tuple(counts.tolist())


# --- judging --------------------------------------------------------------------------------------------------------


def type_findings(figures: TypeFigures, now_ms: int) -> list[Finding]:
    """What is wrong with one type of event."""
    if not figures.events:
        return []
    found = [_unknown(figures, attribute) for attribute in figures.unknown]
    if figures.events >= at.EVENTS_MIN:
        found += [_stopped(figures) or _gap(figures, now_ms), _late(figures), _ahead(figures)]
    return [finding for finding in found if finding is not None]


def _stopped(figures: TypeFigures) -> Finding | None:
    usual_ms = max(
        at.SILENCE_TIMES_LONGEST * figures.gap_ms,
        at.SILENCE_TIMES_USUAL * figures.interval_ms_median,
        at.SILENCE_MS_MIN,
    )
    if figures.silent_ms <= usual_ms:
        return None
    return Finding(
        Level.WARNING,
        "events",
        figures.type,
        "stopped",
        figures.silent_ms,
        f"no event for {duration(figures.silent_ms)}, since {moment(figures.newest_ms)}; usually one every "
        f"{duration(figures.interval_ms_median)} and never a silence of more than {duration(figures.gap_ms)}",
        f"one within {duration(usual_ms)}",
        "see that its producer runs",
    )


def _gap(figures: TypeFigures, now_ms: int) -> Finding | None:
    if figures.gap_ms < max(at.GAP_TIMES_LONG * figures.long_silence_ms, at.SILENCE_MS_MIN):
        return None
    recent = now_ms - figures.gap_ended_ms <= at.GAP_RECENT_MS
    return Finding(
        Level.WARNING if recent else Level.NOTE,
        "events",
        figures.type,
        "gap",
        figures.gap_ms,
        f"none came for {duration(figures.gap_ms)} before {moment(figures.gap_ended_ms)}",
        f"silences like its other long ones, {duration(figures.long_silence_ms)}",
        "if its producer was away, publish what is missing; events keep their own time",
    )


def _late(figures: TypeFigures) -> Finding | None:
    level = graded(figures.late_share, at.LATE_ARRIVAL_SHARE_NOTE, at.LATE_ARRIVAL_SHARE_WARN)
    if level is None or figures.window_ms is None:
        return None
    if figures.lateness_ms_p50 > figures.window_ms:
        # Most of it was published long after it happened: history that was loaded, not a slow producer.
        level = Level.NOTE
    return Finding(
        level,
        "events",
        figures.type,
        "late",
        figures.late_share,
        f"{percent(figures.late_share)} arrived later than {duration(figures.window_ms)}, the shortest window on it "
        f"(half within {duration(figures.lateness_ms_p50)}, 99 % within {duration(figures.lateness_ms_p99)})",
        f"below {percent(at.LATE_ARRIVAL_SHARE_NOTE)}",
        "deliver sooner, or use a longer window; history that was loaded looks like this too",
    )


def _ahead(figures: TypeFigures) -> Finding | None:
    if figures.ahead_share < at.AHEAD_SHARE_NOTE:
        return None
    return Finding(
        Level.NOTE,
        "events",
        figures.type,
        "ahead",
        figures.ahead_share,
        f"{percent(figures.ahead_share)} are of a time more than {duration(at.AHEAD_MS)} after their arrival",
        f"below {percent(at.AHEAD_SHARE_NOTE)}",
        "set the clocks of the servers that took them",
    )


def _unknown(figures: TypeFigures, attribute: str) -> Finding | None:
    share, values = figures.unknown[attribute]
    level = graded(share, at.UNKNOWN_SHARE_NOTE, at.UNKNOWN_SHARE_WARN)
    if level is None:
        return None
    return Finding(
        level,
        "events",
        f"{figures.type}.{attribute}",
        "unknown_values",
        share,
        f"{percent(share)} have a value that is not declared, most often {', '.join(map(repr, values))}",
        f"below {percent(at.UNKNOWN_SHARE_NOTE)}",
        "they count as missing: add them to `values`, or mend the producer",
    )
