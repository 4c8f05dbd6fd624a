"""Lessons from before a change count less: the exact sums stay, and are weighed when they are combined."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from models.statistics import Combined, Sums, SumsView


@dataclass(frozen=True, slots=True)
class Drift:
    """Acceptance of an offer was one thing and then another."""

    offer: str
    period: int
    """Lessons of the periods before this one fade."""
    change_ms: int
    """Decisions from here on are of the new kind."""
    found_ms: int
    """Newest time in the log when it was found."""
    before: float
    """Mean target of the decisions kept from before the change, 0 .. 1."""
    after: float
    lessons: int
    """Lessons from after the change that it was found by."""
    factor: float
    """What lessons from before count."""


class Faded(SumsView):
    """The sums with what drifted faded: a view for `models.fit`, never saved."""

    def __init__(self, sums: Sums, fades: Mapping[str, Sequence[Drift]]) -> None:
        super().__init__(sums)
        self._fades = fades

    def combined(
        self,
        offer: str,
        now_period: int,
        half_life_periods: float | None,
        factor: Callable[[int], float] | None = None,
    ) -> Combined:
        """The offer's sums, see `Statistics.combined`."""
        fades = self._fades.get(offer)
        if not fades:
            return self._sums.combined(offer, now_period, half_life_periods, factor)

        def faded(period: int) -> float:
            own = 1.0 if factor is None else factor(period)
            return own * prod(drift.factor for drift in fades if period < drift.period)

        return self._sums.combined(offer, now_period, half_life_periods, faded)
