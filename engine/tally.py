"""What is counted of one challenger: sums by customers, from which means with bounds follow. For engine.challengers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from zlib import compress, decompress
from zlib import error as CompressionError

import numpy as np
from numpy.typing import NDArray

from models.evaluation import EFFECTIVE_ROWS_MIN, interval
from models.statistics import TARGET_STEPS

BUCKETS: Final = 1_024
CUSTOMERS_MIN: Final = 100
"""Fewer buckets with decisions give no bound."""

_SURE: Final = 1e-3
"""Estimates are held so far from 0 and 1: one that is sure and wrong would be infinitely so."""
_BY_BUCKET: Final = ("rows", "value", "best", "agreed", "offers", "brier", "surprise")
_SCALARS: Final = ("own_brier", "own_surprise", "weights", "squares")

Floats = NDArray[np.float64]


@dataclass(slots=True)
class Thought:
    """What one challenger thought of a decision."""

    choice: int
    """Place of its choice in the catalogue; the number of offers for silence."""
    estimates: tuple[float, ...]
    """Of the offers that were made, as shares of the target range."""
    value: float
    """What the champion's estimates make of its choice."""


@dataclass(slots=True)
class Open:
    """A decision whose windows are not all closed."""

    end_ms: int
    bucket: int
    action: int
    propensity: float
    expected: float
    """What the champion's estimates make of the logged action."""
    choice: int
    """The champion's best."""
    choice_value: float
    offers: tuple[int, ...]
    estimates: tuple[float, ...]
    """The champion's, as in the record."""
    thoughts: dict[str, Thought]
    targets: dict[int, int] = field(default_factory=dict)
    """By rank."""
    served_by: str = ""
    """The challenger whose decision it is; "" the champion's."""
    fresh_draw: bool = True
    """Whether it was drawn by dice of its own: else its propensity says nothing of its value."""


class Tally:
    """Sums of one challenger, by bucket."""

    def __init__(self) -> None:
        self.rows, self.value, self.best, self.agreed = (np.zeros(BUCKETS) for _ in range(4))
        self.offers, self.brier, self.surprise = (np.zeros(BUCKETS) for _ in range(3))
        self.own_brier = self.own_surprise = self.weights = self.squares = 0.0

    def count(self, one: Open, thought: Thought, reward: float) -> None:
        """A decision whose windows have closed."""
        if one.fresh_draw:
            self._value(one, thought, reward)
        at = one.bucket
        for rank, target in one.targets.items():
            truth = target / TARGET_STEPS
            ours, theirs = one.estimates[rank - 1], thought.estimates[rank - 1]
            self.offers[at] += 1.0
            self.brier[at] += (ours - truth) ** 2 - (theirs - truth) ** 2
            self.surprise[at] += _log_loss(ours, truth) - _log_loss(theirs, truth)
            self.own_brier += (theirs - truth) ** 2
            self.own_surprise += _log_loss(theirs, truth)

    def _value(self, one: Open, thought: Thought, reward: float) -> None:
        at = one.bucket

        def worth(choice: int, value: float) -> float:
            return value + (reward - one.expected) / one.propensity * (choice == one.action)

        best = worth(one.choice, one.choice_value)
        self.rows[at] += 1.0
        self.best[at] += best
        self.value[at] += worth(thought.choice, thought.value) - best
        self.agreed[at] += thought.choice == one.action
        if thought.choice != one.choice and one.action in (thought.choice, one.choice):
            self.weights += 1.0 / one.propensity
            self.squares += 1.0 / one.propensity**2

    def figures(self) -> dict[str, Any]:
        """What the sums say, differences in favour of the challenger above 0."""
        decisions, offers = int(self.rows.sum()), int(self.offers.sum())
        effective = self.weights**2 / self.squares if self.squares else 0.0
        return {
            "decisions": decisions,
            "offers": offers,
            "value": _bounded(self.value, self.rows),
            "champion_value": float(self.best.sum()) / decisions if decisions else None,
            "effective_rows": effective,
            "agreement": _bounded(self.agreed, self.rows),
            "brier": {"own": self.own_brier / offers if offers else None, **_bounded(self.brier, self.offers)},
            "log_loss": {"own": self.own_surprise / offers if offers else None, **_bounded(self.surprise, self.offers)},
        }

    def to_bytes(self) -> bytes:
        """All sums, compressed."""
        scalars = np.array([getattr(self, name) for name in _SCALARS])
        return compress(np.concatenate([*(getattr(self, name) for name in _BY_BUCKET), scalars]).tobytes(), 1)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Tally":
        """What `to_bytes` gave. Raises ValueError for anything else."""
        try:
            sums = np.frombuffer(decompress(data))
        except CompressionError as error:
            raise ValueError(f"tally of {len(data)} bytes is damaged: {error}") from error
        if len(sums) != len(_BY_BUCKET) * BUCKETS + len(_SCALARS):
            raise ValueError(f"tally of {len(sums)} numbers is of another form")
        tally = cls()
        for at, name in enumerate(_BY_BUCKET):
            setattr(tally, name, sums[at * BUCKETS : (at + 1) * BUCKETS].copy())
        for name, value in zip(_SCALARS, sums[len(_BY_BUCKET) * BUCKETS :].tolist(), strict=True):
            setattr(tally, name, value)
        return tally


def _bounded(sums: Floats, counts: Floats) -> dict[str, float | None]:
    """Mean with the ends of its 95 % interval; None: not known."""
    seen = counts > 0.0
    if not seen.any():
        return {"mean": None, "low": None, "high": None}
    low, high = interval(sums[seen], counts[seen]) if seen.sum() >= CUSTOMERS_MIN else (-math.inf, math.inf)
    mean = float(sums.sum() / counts.sum())
    return {"mean": mean, "low": low if math.isfinite(low) else None, "high": high if math.isfinite(high) else None}


def _log_loss(estimate: float, truth: float) -> float:
    sure = min(1.0 - _SURE, max(_SURE, estimate))
    return -truth * math.log(sure) - (1.0 - truth) * math.log(1.0 - sure)


def shortfall(figures: Mapping[str, Any]) -> str:
    """Why a challenger may not be promoted; "" if its lower bound is above 0."""
    value = figures["value"]
    if figures["failed"]:
        return f"it is out: {figures['failed']}"
    if figures["effective_rows"] < EFFECTIVE_ROWS_MIN:
        return (
            f"where it would choose otherwise the log is worth {figures['effective_rows']:.1f} decisions, expected "
            f"{EFFECTIVE_ROWS_MIN:g} at least"
        )
    served = (figures.get("served") or {}).get("difference") if "served" in figures else {"low": 1.0}
    if served is None:
        return "of those whom it serves too few are known yet"
    if served["low"] <= 0.0:
        return (
            f"with those whom it serves the lower bound of its difference is {served['low']:+.4g} a decision, expected "
            "above 0"
        )
    if value["low"] is None:
        return "its difference has no bound yet: too few customers"
    if value["low"] <= 0.0:
        return (
            f"the lower bound of its difference is {value['low']:+.4g} a decision, expected above 0: "
            f"it misses by {-value['low']:.4g}"
        )
    return ""
