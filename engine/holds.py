"""What keeps offers back although their rules hold: contact policy, budgets, a guard, a control group.

Each is a limit with a name. A hold says which limit applies, and to which part of the catalogue: a scope, whose meaning
is the limit's own (a key of engine.config_schema.key_of for one offer or category, 0 for all that it covers). The
decision record keeps the holds, so that "why not" can be told, and the decision made again, years later.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.ledger import Glance
from engine.rules import Verdict

Bools = NDArray[np.bool_]
LAYER: Final = "contact_policy"
"""What limits belong to if they do not say."""


class Hold(NamedTuple):
    """A limit that applies, and to what."""

    limit: int
    """Index of the limit in Holds.names."""
    scope: int
    """32 bits: what of the catalogue it keeps back."""


@dataclass(frozen=True, slots=True)
class Situation:
    """A batch of B decisions, as far as limits may depend on it."""

    customers: Sequence[str]
    glances: Sequence[Glance]
    verdicts: Sequence[Verdict]
    channels: NDArray[np.int64]
    placements: Sequence[int]
    times_ms: NDArray[np.int64]


class Holder(Protocol):
    """A kind of limits of one configuration."""

    @property
    def names(self) -> Sequence[str]:
        """What explanations call its limits."""
        ...

    def holds(self, situation: Situation) -> Sequence[Sequence[tuple[int, int]]] | None:
        """(limit, scope) of each decision, limits counted from 0; None: nothing is kept back from anybody."""
        ...

    def covers(self, limit: int, scope: int) -> Bools:
        """(offers,) what a hold of this limit and scope keeps back."""
        ...


class Holds:
    """All limits of one configuration."""

    def __init__(self, holders: Sequence[Holder]) -> None:
        self._holders = [holder for holder in holders if holder.names]
        self._starts = [0]
        for holder in self._holders:
            self._starts.append(self._starts[-1] + len(holder.names))
        self.names = tuple(name for holder in self._holders for name in holder.names)

    def of(self, situation: Situation) -> list[tuple[Hold, ...]] | None:
        """The holds of each decision; None: there are none."""
        found: list[tuple[Hold, ...]] | None = None
        for start, holder in zip(self._starts, self._holders, strict=False):
            told = holder.holds(situation)
            if told is None:
                continue
            found = found or [()] * len(told)
            for at, some in enumerate(told):
                found[at] += tuple([Hold(start + limit, scope) for limit, scope in some])
        return found

    def limits_of(self, holder: Holder) -> range:
        """The limits of one of the holders, as holds have them."""
        for start, there in zip(self._starts, self._holders, strict=False):
            if there is holder:
                return range(start, start + len(holder.names))
        return range(0)

    def layer(self, hold: Hold) -> str:
        """The layer of "why not" that a hold belongs to: `layer` of its holder, if that has one."""
        at = bisect_right(self._starts, hold.limit) - 1
        return str(getattr(self._holders[at], "layer", LAYER))

    def covers(self, hold: Hold) -> Bools:
        """(offers,) what a hold keeps back. Raises LookupError for one of another configuration."""
        for start, holder in zip(reversed(self._starts[:-1]), reversed(self._holders), strict=True):
            if start <= hold.limit < start + len(holder.names):
                return holder.covers(hold.limit - start, hold.scope)
        raise LookupError(f"limit {hold.limit}: there are {len(self.names)}")

    def keep_back(self, held: Sequence[Sequence[Hold]], may: Bools) -> None:
        """Take what is kept back out of `may` (B, offers and silence)."""
        for at, holds in enumerate(held):
            for hold in holds:
                may[at, :-1] &= ~self.covers(hold)
