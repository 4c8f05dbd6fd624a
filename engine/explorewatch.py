"""Whether the engine still explores, as the decision log tells: a watch beside the learner, which reads the log anyway.

Drawn with propensity p, an answer was left to chance by 1 − p. On average that is Σ p (1 − p), 0 where everything is
certain, whatever the method and its budgets; nothing else about a decision needs to be known.

    policy   mean of 1 − p of the first place, over the decisions that had something to choose from
    offer    sum of 1 − p where it was shown, over the decisions at which it was eligible

Each is judged at the end of so many such decisions that chance cannot mislead, and begins anew. Sums of numbers between
0 and 1 scatter at most as counts do (Poisson): what is surely below the floor of the configuration has stopped, what is
surely above it explores, and where it is neither, what was known before stands. An offer that is tried once in ten
thousand decisions is often not tried in ten thousand: it takes 46,052 of them until none says anything.

Decisions of other configurations are passed over, as their rules are others. An offer that is not to be explored is not
missed.

The figures travel with the policy to the servers, whose metrics show them. A restarted learner counts anew, from what
was known last.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv

from engine.catalogue import Catalogue
from engine.config_schema import ALARM_SURE
from engine.holds import Hold
from engine.logcolumns import Columns, OffersByKey, columns_of, kept_back
from engine.store.base import LogEntry
from features import Offset

Ints = NDArray[np.int64]

_ROWS_MAX: Final = 256
"""Decisions looked at together: with a thousand offers a matrix of this height has two megabytes."""
_NAMES_MAX: Final = 10
"""Offers that a line of the log names."""


class ExplorationWatch:
    """Follows one configuration's decisions in the log."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._alarm = catalogue.config.exploration.alarm
        self._version = bytes.fromhex(catalogue.version)
        self._offsets: dict[int, Offset] = {}
        self._seen: list[bytes] = []
        """Entries that were not counted yet."""
        count = len(catalogue.offers)
        keeps = catalogue.explorer.keeps
        self._watched = np.ones(count, bool) if keeps is None else keeps[:count] > 0.0
        self._starts_ms = np.array([offer.starts_ms for offer in catalogue.offers])
        self._ends_ms = np.array([offer.ends_ms for offer in catalogue.offers])
        self._offers = OffersByKey(catalogue.offer_keys)
        self._choices = 0
        self._chance = 0.0
        self._eligible = np.zeros(count, np.int64)
        self._tried = np.zeros(count)
        self.share: float | None = None
        """Of the policy, when it was judged last."""
        self.stopped = False
        """Whether the policy as a whole has stopped exploring."""
        self.offers_stopped: NDArray[np.bool_] = np.zeros(count, bool)
        self.has_news = False
        """Whether `figures` differ from those asked for last."""
        self._told = False, frozenset[str]()

    def observe(self, partition: int, entries: Sequence[LogEntry]) -> None:
        """Take in entries of the log in their order; what was seen before, after a new start, is passed over."""
        if self._alarm is None:
            return
        last = self._offsets.get(partition, Offset.ZERO)
        fresh = [entry.data for entry in entries if entry.offset > last]
        if fresh:
            self._offsets[partition] = entries[-1].offset
            self._seen += fresh

    def judge(self) -> None:
        """Count what was observed, of all partitions at once: one of hundreds costs half of what one of ten does."""
        data, self._seen = self._seen, []
        if not data:
            return
        columns = columns_of(data, self._version, len(self._catalogue.rules))
        holds, readable = kept_back(data, columns)
        rows = np.flatnonzero(columns.drawn & readable)
        for start in range(0, len(rows), _ROWS_MAX):
            self._count(columns, holds, rows[start : start + _ROWS_MAX])
            self._conclude()

    def _count(self, columns: Columns, holds: Sequence[Sequence[Hold]], rows: Ints) -> None:
        eligible = self._eligible_at(columns, holds, rows)
        choices = eligible.sum(axis=1) + self._catalogue.config.silence > 1
        first = np.where(columns.counts[rows] > 0, columns.propensities[rows, 0], columns.nothing[rows])
        self._choices += int(choices.sum())
        self._chance += float((1.0 - first[choices]).sum())
        self._eligible += eligible.sum(axis=0)
        offers = self._offers.places(columns.keys[rows])
        shown = offers >= 0
        self._tried += np.bincount(offers[shown], 1.0 - columns.propensities[rows][shown], len(self._tried))

    def _eligible_at(self, columns: Columns, holds: Sequence[Sequence[Hold]], rows: Ints) -> NDArray[np.bool_]:
        """(B, offers) which could have been shown."""
        masks = self._catalogue.mask_words
        held = np.zeros((len(rows), 8 * masks.shape[1]), np.uint8)
        held[:, : columns.held.shape[1]] = columns.held[rows]
        words, times_ms = held.view(np.uint64), columns.times_ms[rows, None]
        made = self._catalogue.treatments.made
        where = zip(columns.channels[rows].tolist(), columns.placements[rows].tolist(), strict=True)
        eligible: NDArray[np.bool_] = np.array([made[channel][placement] for channel, placement in where])
        eligible &= (self._starts_ms <= times_ms) & (times_ms < self._ends_ms)
        for word in range(masks.shape[1]):
            eligible &= (words[:, word, None] & masks[:, word]) == masks[:, word]
        some = [holds[row] for row in rows.tolist()]
        if any(some):
            may = np.column_stack([eligible, np.ones(len(rows), np.bool_)])
            self._catalogue.holds.keep_back(some, may)
            eligible = may[:, :-1]
        return eligible

    def _conclude(self) -> None:
        assert self._alarm is not None
        policy, offer = self._alarm.judged_after
        if self._choices >= policy:
            self.share = self._chance / self._choices
            self.stopped = bool(_stopped(self._chance, self._alarm.policy * self._choices, before=self.stopped))
            self._choices, self._chance = 0, 0.0
            self.has_news = True
        full = self._eligible >= offer
        if full.any():
            dead = _stopped(self._tried, self._alarm.offer * self._eligible, before=self.offers_stopped) & self._watched
            self.has_news |= bool((full & (dead != self.offers_stopped)).any())
            self.offers_stopped = np.where(full, dead, self.offers_stopped)
            self._tried[full], self._eligible[full] = 0.0, 0

    @property
    def names(self) -> list[str]:
        """Offers that are not explored any more."""
        return [self._catalogue.offer_ids[at] for at in np.flatnonzero(self.offers_stopped)]

    def figures(self) -> dict[str, Any]:
        """What travels with the policy."""
        self.has_news = False
        return {
            "config": self._catalogue.version,
            "share": self.share,
            "stopped": self.stopped,
            "offers": self.names,
        }

    def resume(self, figures: Mapping[str, Any]) -> None:
        """Go on from figures that were told last; those of another configuration say nothing."""
        if self._alarm is None or figures.get("config") != self._catalogue.version or self.share is not None:
            return
        self.share, self.stopped = figures["share"], figures["stopped"]
        for name in figures["offers"]:
            self.offers_stopped[self._catalogue.offer_ids.index(name)] = True
        self._told = self.stopped, frozenset(self.names)

    def lines(self) -> list[tuple[int, str]]:
        """(level, line) for the log of what has changed since the last call."""
        (stopped, before), names = self._told, self.names
        lines: list[tuple[int, str]] = []
        if self.stopped and not stopped:
            lines.append((logging.WARNING, f"the policy has stopped exploring: a share of {self.share:.1e} is chance"))
        if stopped and not self.stopped:
            lines.append((logging.INFO, "the policy explores again"))
        if gone := [name for name in names if name not in before]:
            lines.append((logging.WARNING, f"offers that are not explored any more: {_some(gone)}"))
        if back := sorted(before - set(names)):
            lines.append((logging.INFO, f"offers that are explored again: {_some(back)}"))
        self._told = self.stopped, frozenset(names)
        return lines


def _stopped(tried: Any, floor: Any, *, before: Any) -> Any:
    """Whether sums are surely below what they must be; where they are neither below nor above, as before.

    The bounds are those of a Poisson mean (Garwood 1936).
    """
    below = gammaincinv(np.add(tried, 1.0), ALARM_SURE) < floor
    above = gammaincinv(np.maximum(tried, 1e-9), 1.0 - ALARM_SURE) > floor
    return below | (before & ~above)


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_MAX
    return ", ".join(names[:_NAMES_MAX]) + (f" and {more} more" if more > 0 else "")
