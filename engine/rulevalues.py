"""Columns behind those of features and facts that only rules see: request, ledger, triggers, distances. Pure.

Only what rules name is worked out; a configuration whose rules name none of it pays nothing.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.dates import Moment, day_of, is_due, moments
from engine.geo import Nearest
from engine.ledger import Glance
from engine.ledgervalues import Told, ledger_values, never, only_a_glance
from engine.rulenames import LEDGER, NEAR, OF_OFFER, REQUEST, TRIGGER

_NAN: Final = math.nan
Coordinates = tuple[float, float]


@dataclass(frozen=True, slots=True)
class DateTrigger:
    """A date to wait for."""

    column: int
    """Of the value matrix."""
    written: str
    every: str
    before_days: int
    after_days: int


@dataclass(frozen=True)
class Surroundings:
    """What of a configuration the columns are made from."""

    timezone: str
    channels: Sequence[str]
    placements: Sequence[Sequence[str]]
    """By channel; the first is "", the channel as a whole."""
    triggers: Sequence[DateTrigger] = ()
    near: Sequence[Sequence[Coordinates]] = ()
    """By number: the places that it is about."""
    location: tuple[int, int] | None = None
    """Columns of the customer's latitude and longitude."""

    @property
    def placement_names(self) -> tuple[str, ...]:
        """All placements, each once."""
        return tuple(dict.fromkeys(name for names in self.placements for name in names if name))


@dataclass(frozen=True, slots=True)
class _Row:
    """One decision, as the columns see it."""

    channel: int
    placement: int
    moment: Moment
    told: Told
    values: NDArray[np.float64]


class RuleValues:
    """Fills the columns that rules name."""

    def __init__(self, names: Iterable[str], around: Surroundings) -> None:
        """`names` are the engine's own among those that rules refer to."""
        self.names: Final = tuple(names)
        self._around = around
        self._moment = moments(around.timezone)
        places = around.placement_names
        self._placement = [[places.index(n) if n else _NAN for n in names] for names in around.placements]
        self._fill = [self._filler(name) for name in self.names]
        asked = frozenset(
            name.removeprefix(LEDGER) if name.startswith(LEDGER) else name.removeprefix(OF_OFFER).rpartition("_")[0]
            for name in self.names
            if name.startswith((LEDGER, OF_OFFER))
        )
        self._reads_ledger = bool(asked)
        self._whole_ledger = not only_a_glance(asked)

    def extended(
        self,
        values: NDArray[np.float64],
        channels: Sequence[int],
        placements: Sequence[int],
        times_ms: Sequence[int],
        glances: Sequence[Glance],
        ledgers: Sequence[bytes | None],
    ) -> NDArray[np.float64]:
        """The value matrix (B, columns) with the columns of `names` behind its own."""
        if not self.names:
            return values
        more = np.empty((len(values), len(self.names)))
        for at, own in enumerate(values):
            now_ms = times_ms[at]
            told = _NOTHING
            if self._reads_ledger:
                told = ledger_values(glances[at], now_ms, ledgers[at] if self._whole_ledger else None)
            row = _Row(channels[at], placements[at], self._moment(now_ms), told, own)
            more[at] = [fill(row) for fill in self._fill]
        return np.concatenate([values, more], axis=1)

    def _filler(self, name: str) -> Callable[[_Row], float]:
        if name.startswith(REQUEST):
            return self._of_request(name.removeprefix(REQUEST))
        if name.startswith(LEDGER):
            value = name.removeprefix(LEDGER)
            without = never(value)
            return lambda row: row.told.values.get(value, without)
        if name.startswith(OF_OFFER):
            value, _, key = name.removeprefix(OF_OFFER).rpartition("_")
            offer, missing = int(key), never(value)
            return lambda row: row.told.offers.get(offer, _NO_VALUES).get(value, missing)
        if name.startswith(NEAR):
            return self._distance(self._around.near[int(name.removeprefix(NEAR))])
        return self._trigger(self._around.triggers[int(name.removeprefix(TRIGGER))])

    def _of_request(self, name: str) -> Callable[[_Row], float]:
        if name == "channel":
            return lambda row: float(row.channel)
        if name == "placement":
            return lambda row: self._placement[row.channel][row.placement]
        at = Moment._fields.index(name)
        return lambda row: float(row.moment[at])

    def _distance(self, places: Sequence[Coordinates]) -> Callable[[_Row], float]:
        assert self._around.location is not None
        latitude, longitude = self._around.location
        among = Nearest(places)

        def nearest(row: _Row) -> float:
            here = float(row.values[latitude]), float(row.values[longitude])
            return among.km(*here) if math.isfinite(here[0]) and math.isfinite(here[1]) else _NAN

        return nearest

    def _trigger(self, trigger: DateTrigger) -> Callable[[_Row], float]:
        def due(row: _Row) -> float:
            day = day_of(float(row.values[trigger.column]), trigger.written, self._moment)
            if day is None:
                return _NAN
            return float(is_due(day, row.moment.today, trigger.every, trigger.before_days, trigger.after_days))

        return due


_NOTHING: Final = Told({})
_NO_VALUES: Final[Mapping[str, float]] = {}


def kind_of(name: str) -> str:
    """number, text or flag: of a column in RuleValues.names."""
    if name in (f"{REQUEST}channel", f"{REQUEST}placement"):
        return "text"
    return "flag" if name.startswith(f"{OF_OFFER}open_") else "number"
