"""Decisions of one offer by time, with what they taught, and where among them a change lies. For engine.driftwatch."""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import Any, Final, NamedTuple
from zlib import crc32

import numpy as np

from engine.fading import Drift
from models.statistics import TARGET_STEPS

COHORTS_OPEN_MAX: Final = 256
COHORTS_KEPT_MAX: Final = 64
FADES_MAX: Final = 8
LESSONS_FED_MAX: Final = 20_000
"""Of a larger cohort a part of the same mean is given to the detector."""

MILLIONTHS: Final = 1_000_000

_FORM: Final = 1
_HEAD: Final = struct.Struct("<BqHHB")
"""Form, width of a cohort, open cohorts, cohorts kept, drifts."""
_COHORT: Final = struct.Struct("<qqqqq")
_DRIFT: Final = struct.Struct("<qqqddqd")
_SEAL: Final = struct.Struct("<I")


class DriftError(ValueError):
    """The bytes are no state of an offer's watch."""


@dataclass(slots=True)
class Cohort:
    """Decisions of one span of time that made an offer, and what they taught. All whole numbers, so exact."""

    start_ms: int
    served: int = 0
    lessons: int = 0
    targets: int = 0
    """Sum, in hundredths."""
    estimates: int = 0
    """Sum, in millionths of a target of 1."""


@dataclass(slots=True)
class Watched:
    """What is watched of one offer."""

    window_ms: int
    width_ms: int
    open: dict[int, Cohort] = field(default_factory=dict)
    kept: list[Cohort] = field(default_factory=list)
    drifts: list[Drift] = field(default_factory=list)
    detector: Any = None

    def cohort_of(self, time_ms: int, *, judged_too: bool) -> Cohort | None:
        """Where a decision of this time was counted; None if that is no longer kept."""
        found = self.open.get(time_ms // self.width_ms)
        if found is None and judged_too:
            found = next((cohort for cohort in reversed(self.kept) if cohort.start_ms <= time_ms), None)
        return found


class Change(NamedTuple):
    """The split of the cohorts kept."""

    at: int
    """First cohort of the new kind."""
    before: float
    after: float
    residual: float
    """Of after, less that of before."""
    lessons: int


def judged(watched: Watched, cohorts: Sequence[Cohort], make: Callable[[], Any]) -> Change | None:
    """Give cohorts to the detector; where the change is, if it found one."""
    if watched.detector is None:
        watched.detector = make()
        for cohort in watched.kept:
            _feed(watched.detector, cohort)
    found = False
    for cohort in cohorts:
        watched.kept.append(cohort)
        found |= _feed(watched.detector, cohort)
    watched.kept = [cohort for cohort in watched.kept if cohort.lessons > 0]  # all of some may have been taken back
    return _split(watched.kept) if found else None


def _feed(detector: Any, cohort: Cohort) -> bool:
    """Residuals with the mean of the cohort and 0/1 targets; whether the detector found a change.

    Noes and yeses are spread evenly: their order within a cohort means nothing.
    """
    if cohort.lessons <= 0:
        return False
    lessons = min(cohort.lessons, LESSONS_FED_MAX)
    estimate = cohort.estimates / MILLIONTHS / cohort.lessons
    rate = min(1.0, max(0.0, cohort.targets / TARGET_STEPS / cohort.lessons))
    yeses = np.floor(np.arange(1, lessons + 1) * rate + 1e-9)
    found = False
    for target in np.diff(yeses, prepend=0.0).tolist():
        detector.update(target - estimate)
        found |= bool(detector.drift_detected)
    return found


def _split(cohorts: Sequence[Cohort]) -> Change | None:
    """The split with the largest difference of the residual's means, measured by what chance would make of it."""
    table = np.array([(c.lessons, c.targets / TARGET_STEPS, c.estimates / MILLIONTHS) for c in cohorts])
    sums = np.cumsum(table, axis=0)
    total = sums[-1]
    best, found = 0.0, None
    for at in range(1, len(cohorts)):
        old, new = sums[at - 1], total - sums[at - 1]
        residual = float((new[1] - new[2]) / new[0] - (old[1] - old[2]) / old[0])
        strength = abs(residual) * sqrt(float(old[0] * new[0] / total[0]))
        if strength > best:
            best = strength
            found = Change(at, float(old[1] / old[0]), float(new[1] / new[0]), residual, int(new[0]))
    return found


def join(cohorts: list[Cohort]) -> None:
    """Keep the number bounded: of the older half, two neighbours at a time become one."""
    if len(cohorts) <= COHORTS_KEPT_MAX:
        return
    half = COHORTS_KEPT_MAX // 2
    older = cohorts[: len(cohorts) - half]
    joined = []
    for at in range(0, len(older), 2):
        first, *second = older[at : at + 2]
        for other in second:
            first = replace(
                first,
                served=first.served + other.served,
                lessons=first.lessons + other.lessons,
                targets=first.targets + other.targets,
                estimates=first.estimates + other.estimates,
            )
        joined.append(first)
    cohorts[: len(older)] = joined


def pack_watched(watched: Watched) -> bytes:
    """The state of an offer that `unpack_watched` reads."""
    cohorts = [*(watched.open[number] for number in sorted(watched.open)), *watched.kept]
    parts = [_HEAD.pack(_FORM, watched.width_ms, len(watched.open), len(watched.kept), len(watched.drifts))]
    parts += [_COHORT.pack(c.start_ms, c.served, c.lessons, c.targets, c.estimates) for c in cohorts]
    parts += [
        _DRIFT.pack(d.period, d.change_ms, d.found_ms, d.before, d.after, d.lessons, d.factor) for d in watched.drifts
    ]
    body = b"".join(parts)
    return body + _SEAL.pack(crc32(body))


def unpack_watched(data: bytes, offer: str, window_ms: int, width_ms: int) -> Watched:
    """What `pack_watched` gave; cohorts of another width are left out. Raises DriftError for other bytes."""
    body = data[: -_SEAL.size]
    if data[-_SEAL.size :] != _SEAL.pack(crc32(body)):
        raise DriftError(f"drift of offer {offer!r}: {len(data)} bytes are cut short or damaged, the seal does not fit")
    form, width, opened, kept, drifts = _HEAD.unpack_from(body)
    if form != _FORM:
        raise DriftError(f"drift of offer {offer!r}: form {form}, expected {_FORM}")
    at = _HEAD.size + (opened + kept) * _COHORT.size
    cohorts = [Cohort(*row) for row in _COHORT.iter_unpack(body[_HEAD.size : at])]
    watched = Watched(window_ms, width_ms)
    watched.drifts = [Drift(offer, *row) for row in _DRIFT.iter_unpack(body[at : at + drifts * _DRIFT.size])]
    if width == width_ms:
        watched.open = {cohort.start_ms // width_ms: cohort for cohort in cohorts[:opened]}
        watched.kept = cohorts[opened:]
    return watched
