"""What the stages of an offer are worth, until when they may follow, and how that becomes a target to learn.

A reward is a whole number of millionths: parts add up exactly, in any order. The target is where it lies in the range
of the offer, [low, high], in hundredths:

    target = floor(100 · (reward − low) / (high − low) + u)        0 ≤ u < 1, fixed by decision and rank

With u spread evenly the target is the exact share in expectation, however coarse the hundredths are, and a lesson taken
back has the u that it was taught with. `OfValue` turns sums of such targets back into shares of the declared value, so
that P × value is the expected reward whatever the range, negative rewards included, and offers stay comparable.
"""

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final
from zlib import crc32

from engine.config_schema import Config, Offer, key_of
from engine.lifecycle import RESPONSES, TEACHES, Stage
from models.statistics import TARGET_STEPS, Combined, Sums, SumsView
from models.transform import STEPS

MILLIONTHS: Final = 1_000_000
_PART_MAX: Final = 10**18
"""What fits eight bytes: 10¹² of a currency."""
_SALT: Final = struct.Struct("<QB")
_SALTS: Final = 1 << 32


@dataclass(frozen=True)
class Terms:
    """The terms of one offer that is not learnt from by its acceptance alone."""

    shares: Mapping[Stage, int | None]
    """What each stage is worth in millionths; None: no lesson."""
    seen: Mapping[Stage, int]
    """What an offer is worth in millionths that was seen or clicked and expired."""
    fulfilled_window_ms: int | None
    """Until when after the decision an accepted offer may be fulfilled before it counts as accepted only."""
    low: int
    high: int
    value: int
    """Of the offer, in the unit of the rewards: what a share of 1 is."""
    weights: Mapping[str, float] | None = None
    """Of the objectives; None: the offer learns from its stages alone."""

    @classmethod
    def of(cls, offer: Offer, objectives: Mapping[str, float]) -> "Terms | None":
        """The terms of an offer; None if a yes is 1 and a no is 0."""
        outcomes = offer.outcomes
        if outcomes.plain and offer.rewards is None:
            return None
        value = MILLIONTHS if offer.rewards is None else round(offer.value * MILLIONTHS)
        low, high = (0, value) if offer.rewards is None else (round(end * MILLIONTHS) for end in offer.rewards)
        shares = {stage: None if target is None else 0 for stage, target in TEACHES.items()}
        seen = shares[Stage.IGNORED] = round(outcomes.presented.reward * value)
        shares[Stage.ACCEPTED] = round(outcomes.accepted.reward * value)
        shares[Stage.FULFILLED] = round(outcomes.fulfilled_reward * value)
        return cls(
            shares=shares,
            seen={Stage.PRESENTED: seen, Stage.IGNORED: seen, Stage.CLICKED: round(outcomes.clicked.reward * value)},
            fulfilled_window_ms=outcomes.fulfilled.window,
            low=low,
            high=high,
            value=value,
            weights=None if offer.rewards is None else dict(objectives),
        )

    def waits_until_ms(self, decision_ms: int) -> int:
        """Until when an accepted offer waits for its delivery; 0 if it does not."""
        return 0 if self.fulfilled_window_ms is None else decision_ms + self.fulfilled_window_ms

    def part(self, value: float, rewards: Mapping[str, float]) -> int | None:
        """What an outcome carries, in millionths; None if nothing that this offer learns from.

        Args:
            value: in the catalogue's currency; NaN if not given.
            rewards: by objective; one that is not declared (any more) weighs nothing.
        """
        if self.weights is None or (math.isnan(value) and not rewards):
            return None
        given = [] if math.isnan(value) else [value]
        given += [self.weights.get(name, 0.0) * reward for name, reward in rewards.items()]
        # fsum: the order of a map must not change a bit.
        return max(-_PART_MAX, min(_PART_MAX, round(math.fsum(given) * MILLIONTHS)))

    def reward(self, stage: Stage, told: Sequence[tuple[Stage, int | None]]) -> int | None:
        """What an offer in this stage was worth, in millionths; None if it teaches nothing.

        `told` are the stages and parts of its outcomes. Parts add up; a cancellation voids what was told before it.
        """
        share = self.shares[stage]
        if share is None:
            return None
        parts = [part for at, part in told if part is not None and (stage != Stage.CANCELLED or at == stage)]
        if parts:
            return sum(parts)
        if stage == Stage.EXPIRED:
            return max((self.seen.get(at, 0) for at, _ in told), default=share)
        return share

    def responded(self, stage: Stage, told: Sequence[tuple[Stage, int | None]]) -> bool:
        """Whether a customer did anything about an offer in this stage, or brought anything; see `models.value`."""
        return stage in RESPONSES or any(at in RESPONSES or part for at, part in told)

    def target(self, reward: int, salt: int) -> int:
        """The target of a reward, clipped to the range. `salt` is that of the instance, see `salt_of`.

        >>> terms = Terms({}, {}, None, low=-50_000_000, high=200_000_000, value=100_000_000)
        >>> terms.target(0, salt=0), terms.target(200_000_000, salt=7), terms.target(10**12, salt=7)
        (20, 100, 100)
        """
        clipped = max(self.low, min(self.high, reward))
        span = self.high - self.low
        return ((clipped - self.low) * TARGET_STEPS * _SALTS + salt * span) // (span * _SALTS)

    @cached_property
    def scale(self) -> tuple[float, float]:
        """(zero, factor): share of the value = factor × (target as 0 .. 1 − zero)."""
        span = self.high - self.low
        return -self.low / span, span / self.value

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the most that a reward can be, as shares of the value."""
        return self.low / self.value, self.high / self.value


def salt_of(decision: int, rank: int) -> int:
    """A number of 32 bits that belongs to an offer instance, evenly spread."""
    return crc32(_SALT.pack(decision & 0xFFFFFFFFFFFFFFFF, rank))


def terms_of(config: Config) -> dict[int, Terms]:
    """The terms by offer key, of the offers that have any."""
    found = {key_of(offer.id): Terms.of(offer, config.objectives) for offer in config.offers}
    return {key: terms for key, terms in found.items() if terms is not None}


class OfValue(SumsView):
    """The sums as if every target had been a share of its offer's value: a view for `models.fit`, never saved.

    Targets are shifted and scaled by offer, and the model is linear with a constant column, so their sums can be
    brought back: b' = f · (b − z · A e₀), s' = f² · (s − 2 z b₀ + z² n), q' = f · (q − z r₀), with the constant column
    first.
    """

    def __init__(self, sums: Sums, scales: Mapping[str, tuple[float, float]]) -> None:
        super().__init__(sums)
        self._scales = scales

    def combined(
        self,
        offer: str,
        now_period: int,
        half_life_periods: float | None,
        factor: Callable[[int], float] | None = None,
    ) -> Combined:
        """The offer's sums, see `Statistics.combined`."""
        found = self._sums.combined(offer, now_period, half_life_periods, factor)
        if offer not in self._scales:
            return found
        A, b, n, s, r, q = found
        zero, span = self._scales[offer]
        shift = zero * TARGET_STEPS
        # The constant column is STEPS in every x: A's first column is STEPS · Σ x, b's first entry STEPS · Σ target.
        shifted = span * (b - shift * A[:, 0] / STEPS)
        squares = span**2 * (s - 2.0 * shift * float(b[0]) / STEPS + shift**2 * n)
        return Combined(A, shifted, n, squares, r, span * (q - shift * float(r[0]) / STEPS))
