"""The welfare guard: who is not to be sold to, whatever that is worth.

A rule of the guard that holds keeps offers back: sales, unless it says otherwise. It acts on what may be chosen at all,
after every lever and weight, and before anything is drawn, so neither worth nor exploration gets past it. A bundle is
kept back with any of its offers (engine.holds). A rule that cannot be evaluated counts as holding, and of whom the
state cannot be read all rules do, unless the guard declares that it then lets offers through.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.config_schema import Config
from engine.holds import Hold, Holds, Situation
from engine.rules import Rules, Verdict

_ALL = 0
"""A guard has one scope: all that it keeps back."""


class WelfareGuard:
    """The guards of one configuration, as limits of engine.holds."""

    def __init__(self, config: Config, rules: Rules) -> None:
        self.names = tuple(f"guard: {guard.name}" for guard in config.guard)
        self.layer = "guard"
        self.derived = True
        self._offers = len(config.offers)
        self._guards = [(rules.mask([guard.when]), guard.unknown == "keeps") for guard in config.guard]
        self._covers = [np.array([guard.covers(offer) for offer in config.offers]) for guard in config.guard]
        self._unread = {at for at, (_, keeps) in enumerate(self._guards) if keeps}

    def holds(self, situation: Situation) -> Sequence[Sequence[tuple[int, int]]] | None:
        """Which guards keep something back from whom; None: from nobody."""
        found: list[Sequence[tuple[int, int]]] = []
        if not self._guards:
            return None
        some = False
        every = 0
        for mask, _ in self._guards:
            every |= mask
        for at, verdict in enumerate(situation.verdicts):
            sound = situation.sound[at] if situation.sound else True
            if sound and not verdict.failed and not int.from_bytes(verdict.held, "little") & every:
                found.append(())
                continue
            told = [(limit, _ALL) for limit in self.of(verdict, sound)]
            some |= bool(told)
            found.append(told)
        return found if some else None

    def of(self, verdict: Verdict, sound: bool = True) -> list[int]:
        """The guards that hold where these rules do; `sound` says whether state and ledger could be read."""
        if not sound:
            return sorted({*self.of(verdict), *self._unread})
        holding = int.from_bytes(verdict.held, "little")
        if not verdict.failed:
            return [at for at, (mask, _) in enumerate(self._guards) if holding & mask]
        unknown = holding | int.from_bytes(verdict.failed, "little")
        return [at for at, (mask, keeps) in enumerate(self._guards) if (unknown if keeps else holding) & mask]

    def anew(self, holds: Holds, held: Sequence[Hold], verdict: Verdict, sound: bool = True) -> tuple[Hold, ...]:
        """The holds of a decision, with those of the guard as these rules would have them."""
        others = [hold for hold in held if holds.names[hold.limit] not in self.names]
        mine = [Hold(holds.names.index(self.names[limit]), _ALL) for limit in self.of(verdict, sound)]
        return (*others, *mine)

    def covers(self, limit: int, scope: int) -> NDArray[np.bool_]:
        """(offers,) what a guard keeps back."""
        return self._covers[limit]

    def of_unread(self) -> NDArray[np.bool_]:
        """(offers,) what is kept back from whom nothing could be read."""
        kept = np.zeros(self._offers, np.bool_)
        for at in self._unread:
            kept |= self._covers[at]
        return kept
