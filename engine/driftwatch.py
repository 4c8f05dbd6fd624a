"""Whether customers still take to each offer as they did: drift of what the model does not explain. Pure.

Watched is the residual, target − estimate at decision time, of each offer's lessons. The estimate is the record's, so
nothing is scored again, and what the model knew already is no news.

    lessons → cohorts by decision time → river's ADWIN, in order of decisions → change → older lessons fade

**Cohorts.** A yes is told within minutes, a no when the window closes. In the order in which lessons are taught, a day
with less traffic would look like one with less acceptance, and a new offer like one that everybody takes. So residuals
are gathered by the time of the decision, and a cohort is judged when its windows have closed, or as soon as
`ANSWERED` of its offers were answered. Cohorts are sums: a lesson taken back before that was never there, one
taught twice counts once, and order and batches change nothing. After it was judged, lessons are taken out
of a cohort, of people who are forgotten, but none come in.

**What counts as drift.** ADWIN says that the mean of the residual changed; where, is the split of the cohorts kept that
is least likely by chance (CUSUM). That happens too when the model learns: an estimate that moves to the truth moves the
residual. It is drift if at least half of the change is one of the acceptance itself.

**Which detector.** Simulated with 0/1 targets and residuals against a rate that is known, 40 streams each of 10,000
lessons before and 5,000 after a change; false alarms before it, and the median number of lessons until it was found:

    acceptance     ADWIN δ = 0.002    δ = 0.0001       PageHinkley λ = 20    λ = 50
    30 % → 10 %      0       176       0     240         287       79         17     192
     5 % → 15 %      0       208       0     272          21      162          0     472
     5 % →  1 %      0       848       0    1200          16      439          0    1328
     1 % →  3 %      0      1008       0    1488           0     1111          0    3550

PageHinkley needs a threshold that fits the rate of each offer, and missed 7 changes of 320. ADWIN missed none: it
measures the variance, and its confidence is the only thing to choose. With 0.002 no false alarm in 1,600,000 lessons.

**What follows.** Lessons of the periods before the one of the change count for no more than `keeps` times those since.
The factor is worked out when the drift is found and stays; exact sums are not touched, it weighs them when they are
combined (`Faded`). So a false alarm costs what is older, and leaves what was learnt since: no offer begins anew.

Bounded: COHORTS_OPEN_MAX and COHORTS_KEPT_MAX of an offer, older ones joined two by two; FADES_MAX changes. It is part
of the learner's checkpoint; a detector is made again from the cohorts kept. When partitions of the log are read
unevenly, after a crash say, some lessons may come too late for their cohort: unlike the sums, a drift does not follow
from the log to the bit.

Non-goals: drift that leaves an offer's mean as it was, such as an interest that moves from the young to the old.

Bifet and Gavaldà (2007), Learning from time-changing data with adaptive windowing.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from math import isfinite
from typing import Any, Final

import numpy as np

from engine.attribution import Lesson
from engine.catalogue import Catalogue
from engine.cohorts import (
    COHORTS_OPEN_MAX,
    FADES_MAX,
    MILLIONTHS,
    Change,
    Cohort,
    Watched,
    join,
    judged,
    pack_watched,
    unpack_watched,
)
from engine.drafts import STATE_UNREADABLE
from engine.fading import Drift, Faded
from engine.logcolumns import OffersByKey, columns_of
from engine.record import DecisionRecord
from engine.store.base import LogEntry
from models.statistics import Sums

ANSWERED: Final = 0.95
"""Share of the offers of a cohort with a lesson at which the rest is not waited for."""

_COHORTS_A_PERIOD: Final = 16
_COHORTS_A_WINDOW: Final = 64
_LOOKS_A_COHORT: Final = 4
_ESTIMATE_MAX: Final = 10.0
"""A linear model may leave 0 .. 1, but not that far."""
_TOGETHER: Final = 1_000
"""Entries that wait to be counted together."""
_NAMES_MAX: Final = 10
"""Offers that the log is told of at a time."""

Weigher = Callable[[str, int], tuple[float, float]]
"""(offer, period) → lessons that count from before the period, and since."""


class DriftWatch:
    """Watches the offers of one configuration."""

    def __init__(self, catalogue: Catalogue) -> None:
        learning = catalogue.config.learning
        self._catalogue = catalogue
        self._config = learning.drift
        self._period_ms = learning.period
        self._scales = {catalogue.index_of_key[key]: terms.scale for key, terms in catalogue.terms.items()}
        self._offers: dict[int, Watched] = {}
        self._places = OffersByKey(catalogue.offer_keys)
        self._widths_ms = np.array([self._width_ms(at) for at in range(len(catalogue.offers))])
        self._seen: list[bytes] = []
        """Entries that no cohort has counted yet."""
        self._touched: set[int] = set()
        self._told: list[Drift] = []
        self._look_ms = 0
        """Before this nothing new is complete."""

    # --- cohorts ----------------------------------------------------------------------------------------------------

    def observe(self, entries: Iterable[LogEntry]) -> None:
        """Take in new entries of the log: which offers were made, and when."""
        if self._config is not None:
            self._seen += [entry.data for entry in entries]
            if len(self._seen) >= _TOGETHER:
                self._count()

    def _count(self) -> None:
        """Let the cohorts count what was observed: by the thousand it costs a tenth of what it does one by one."""
        if not self._seen:
            return
        columns = columns_of(self._seen)
        self._seen = []
        offers = self._places.places(columns.keys)
        # Without a window nobody is asked for anything.
        made = (offers >= 0) & (columns.ends_ms != 0)
        at = offers[made]
        numbers = np.broadcast_to(columns.times_ms[:, None], offers.shape)[made] // self._widths_ms[at]
        for (offer, number), count in Counter(zip(at.tolist(), numbers.tolist(), strict=True)).items():
            self._cohort(offer, number).served += count

    def learn(self, lesson: Lesson, record: DecisionRecord) -> None:
        """Take in what a lesson changes. The cohort of its decision has it, unless it was judged before."""
        at = self._catalogue.index_of_key.get(lesson.offer_key)
        if self._config is None or at is None or record.degraded == STATE_UNREADABLE:
            return  # what was decided from defaults says nothing about the estimate
        self._count()
        watched = self._offers.get(at)
        cohort = None if watched is None else watched.cohort_of(record.time_ms, judged_too=lesson.new is None)
        if cohort is None or not 0 < lesson.rank <= len(record.slate):
            return
        mean = record.slate[lesson.rank - 1].mean
        if not isfinite(mean):
            return
        zero, factor = self._scales.get(at, (0.0, 1.0))
        estimate = round(max(-_ESTIMATE_MAX, min(_ESTIMATE_MAX, mean / factor + zero)) * MILLIONTHS)
        for target, _, sign in lesson.changes:
            cohort.lessons += sign
            cohort.targets += sign * target
            cohort.estimates += sign * estimate
        self._touched.add(at)

    def _cohort(self, at: int, number: int) -> Cohort:
        watched = self._offers.get(at)
        if watched is None:
            watched = self._offers[at] = Watched(self._catalogue.windows_ms[at], self._width_ms(at))
        self._touched.add(at)
        cohort = watched.open.get(number)
        if cohort is None:
            cohort = watched.open[number] = Cohort(number * watched.width_ms)
        return cohort

    def _width_ms(self, at: int) -> int:
        return max(self._period_ms // _COHORTS_A_PERIOD, self._catalogue.windows_ms[at] // _COHORTS_A_WINDOW, 1)

    # --- judging ----------------------------------------------------------------------------------------------------

    def judge(self, clock_ms: int, weigh: Weigher) -> set[str]:
        """Judge the cohorts that are complete; returns the offers of which less is believed than before.

        Args:
            clock_ms: newest time in the log. All lessons up to it have been given to `learn`.
            weigh: counts lessons, see `Weigher`.
        """
        self._count()
        found: set[str] = set()
        if clock_ms < self._look_ms or not self._offers:
            return found
        self._look_ms = clock_ms + min(watched.width_ms for watched in self._offers.values()) // _LOOKS_A_COHORT
        for at, watched in sorted(self._offers.items()):
            complete = self._complete(watched, clock_ms)
            if not complete:
                continue
            change = judged(watched, complete, self._detector)
            if change is not None:
                drift = self._drift(at, watched, change, clock_ms, weigh)
                # What was before the change, or learnt since, is no measure for the next one.
                del watched.kept[: change.at]
                watched.detector = None
                if drift is not None:
                    watched.drifts = [*watched.drifts[1 - FADES_MAX :], drift]
                    self._told.append(drift)
                    found.add(drift.offer)
            join(watched.kept)
            self._touched.add(at)
        return found

    def _complete(self, watched: Watched, clock_ms: int) -> list[Cohort]:
        """The oldest open cohorts that are complete, taken out. In order: a later one waits for those before it."""
        complete = []
        for number in sorted(watched.open):
            cohort, end_ms = watched.open[number], (number + 1) * watched.width_ms
            answered = cohort.lessons >= ANSWERED * cohort.served and clock_ms >= end_ms
            closed = clock_ms >= end_ms + watched.window_ms + watched.width_ms
            if not answered and not closed and len(watched.open) <= COHORTS_OPEN_MAX:
                break
            del watched.open[number]
            if cohort.lessons > 0:
                complete.append(cohort)
        return complete

    def _detector(self) -> Any:
        # It comes with SciPy and takes a second: only the learner's process needs it, and when there is something.
        from river.drift import ADWIN

        assert self._config is not None
        return ADWIN(delta=self._config.delta)

    def _drift(self, at: int, watched: Watched, change: Change, clock_ms: int, weigh: Weigher) -> Drift | None:
        moved = change.after - change.before
        if moved * change.residual <= 0.0 or abs(moved) < 0.5 * abs(change.residual):
            return None  # it is the estimate that moved
        assert self._config is not None
        offer, change_ms = self._catalogue.offer_ids[at], watched.kept[change.at].start_ms
        period = change_ms // self._period_ms
        before, since = weigh(offer, period)
        factor = min(1.0, self._config.keeps * max(since, 1.0) / before) if before > 0.0 else 1.0
        return Drift(offer, period, change_ms, clock_ms, change.before, change.after, change.lessons, factor)

    # --- what is told -----------------------------------------------------------------------------------------------

    def faded(self, sums: Sums) -> Sums:
        """The sums with the lessons from before a drift faded."""
        fades = {self._catalogue.offer_ids[at]: w.drifts for at, w in self._offers.items() if w.drifts}
        return Faded(sums, fades) if fades else sums

    def figures(self, clock_ms: int) -> dict[str, Any]:
        """What travels with the policy: the last drift of each offer, newest first; a yes is a share of the value."""
        if self._config is None:
            return {}
        last = [w.drifts[-1] for w in self._offers.values() if w.drifts]
        last.sort(key=lambda drift: (-drift.found_ms, drift.offer))
        return {
            "config": self._catalogue.version,
            "offers": [
                {
                    "offer": drift.offer,
                    "change_ms": drift.change_ms,
                    "found_ms": drift.found_ms,
                    "before": self._share(drift, drift.before),
                    "after": self._share(drift, drift.after),
                    "lessons": drift.lessons,
                    "factor": drift.factor,
                    "recent": drift.found_ms + self._config.recent > clock_ms,
                }
                for drift in last
            ],
        }

    def _share(self, drift: Drift, target: float) -> float:
        zero, factor = self._scales.get(self._catalogue.offer_ids.index(drift.offer), (0.0, 1.0))
        return factor * (target - zero)

    def lines(self) -> list[tuple[int, str]]:
        """(level, line) for the log of the drifts found since the last call."""
        told, self._told = self._told, []
        lines = [
            (
                logging.WARNING,
                f"drift: acceptance of {drift.offer} {'fell' if drift.after < drift.before else 'rose'} from "
                f"{self._share(drift, drift.before):.2%} to {self._share(drift, drift.after):.2%}, as "
                f"{drift.lessons:,} lessons tell; older ones count {drift.factor:.2g} of what they did",
            )
            for drift in told[:_NAMES_MAX]
        ]
        if len(told) > _NAMES_MAX:
            lines.append((logging.WARNING, f"drift: {len(told) - _NAMES_MAX} more offers at the same time"))
        return lines

    # --- checkpoint -------------------------------------------------------------------------------------------------

    def checkpoint(self) -> dict[str, bytes]:
        """State by offer, of those that changed since the last call."""
        self._count()
        fields = {self._catalogue.offer_ids[at]: pack_watched(self._offers[at]) for at in sorted(self._touched)}
        self._touched.clear()
        return fields

    def replace(self, other: "DriftWatch") -> None:
        """Begin anew, and let the next checkpoint say so of all that another watch knew."""
        other._count()
        for at in other._offers:
            self._offers[at] = Watched(self._catalogue.windows_ms[at], self._width_ms(at))
            self._touched.add(at)

    def restore(self, fields: Mapping[str, bytes]) -> None:
        """Take in what `checkpoint` gave; offers that are gone are passed over. Raises DriftError.

        Cohorts of another width, the period or the window having changed, begin anew; what has faded stays so.
        """
        if self._config is None:
            return
        for offer, data in fields.items():
            if offer in self._catalogue.offer_ids:
                at = self._catalogue.offer_ids.index(offer)
                self._offers[at] = unpack_watched(data, offer, self._catalogue.windows_ms[at], self._width_ms(at))
