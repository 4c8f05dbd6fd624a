"""What keeps offers back although their rules hold: contact policy, budgets, a guard, a control group.

Each is a limit with a name. A hold says which limit applies, and to which part of the catalogue: a scope, whose meaning
is the limit's own (a key of engine.config_schema.key_of for one offer or category, 0 for all that it covers). The
decision record keeps the holds, so that "why not" can be told, and the decision made again, years later.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from engine.ledger import Glance
from engine.rules import Verdict
from models.exploration import Slates

if TYPE_CHECKING:
    from engine.contact_policy import Look

Bools = NDArray[np.bool_]
CONTACT_POLICY: Final = "contact_policy"
"""The layer of caps and cool-offs, and of questions that are answered."""
CONTROL_GROUP: Final = "control_group"
"""The layer of control groups, and why there is nothing in an answer to somebody who is in one."""
HELD_BACK: Final = "held_back"
NOT_ELIGIBLE: Final = "not_eligible"
"""Why there is nothing in an answer: limits keep all of it back; the rules of nothing held."""


class Hold(NamedTuple):
    """A limit that applies, and to what."""

    limit: int
    """Index of the limit in Holds.names."""
    scope: int
    """32 bits: what of the catalogue it keeps back."""
    room: int = 0
    """Of what it covers so many may still be in the answer; 0: it is kept back."""
    until_ms: int = 0
    """When it holds no longer if nothing happens until then; 0: not known."""


class Situation(NamedTuple):
    """A batch of B decisions, as far as limits may depend on it."""

    customers: Sequence[str]
    glances: Sequence[Glance]
    verdicts: Sequence[Verdict]
    channels: NDArray[np.int64]
    placements: Sequence[int]
    times_ms: NDArray[np.int64]
    contacts: "Look | None" = None
    """What contact policy made of the ledgers; None: there is no contact policy."""
    facts: Sequence[tuple[tuple[int, float], ...]] = ()
    """(column of the value matrix, value) of the facts given in each; empty: of none are they told."""
    sound: Sequence[bool] = ()
    """Whose state and ledger could be read; empty: all."""
    left: Sequence[Sequence[tuple[int, int]]] | None = None
    """(budget, units left) of the budgets that run short for each; None: nothing runs short (engine.budgets)."""


class Holder(Protocol):
    """A kind of limits of one configuration."""

    @property
    def names(self) -> Sequence[str]:
        """What explanations call its limits."""
        ...

    @property
    def layer(self) -> str:
        """The layer of "why not" that they belong to."""
        ...

    @property
    def derived(self) -> bool:
        """Whether its holds follow from rules, person and place alone: they are then worked out again, not recalled."""
        ...

    def holds(self, situation: Situation) -> Sequence[Sequence[tuple[int, ...]]] | None:
        """The fields of the holds of each decision, limits counted from 0; None: nothing is kept back from anybody."""
        ...

    def covers(self, limit: int, scope: int) -> Bools:
        """(offers,) what a hold of this limit and scope keeps back."""
        ...


@runtime_checkable
class Sparing(Protocol):
    """A holder of which one hold may let pass what another one keeps back, and that may shorten a slate."""

    @property
    def names(self) -> Sequence[str]:
        """As those of a holder."""
        ...

    def kept_back(self, holds: Sequence[Hold]) -> Bools:
        """(offers,) what holds of this holder, limits counted from 0, keep back together."""
        ...

    def trim(self, slates: Slates, held: Sequence[Sequence[Hold]], channels: NDArray[np.int64]) -> Slates:
        """The slates without the offers for which there was no room beside those before them."""
        ...

    def crowded(self, holds: Sequence[Hold], chosen: Sequence[int], channel: int) -> list[tuple[int, Hold]]:
        """(offer, what left no room for it) of the offers for which an answer of the `chosen` ones left none."""
        ...


class Holds:
    """All limits of one configuration."""

    def __init__(self, holders: Sequence[Holder], bundles: Sequence[tuple[int, Sequence[int]]] = ()) -> None:
        """`bundles` are offers with those that they stand for: what keeps one of these back keeps the bundle back."""
        self._bundles = bundles
        self._holders = [holder for holder in holders if holder.names]
        self._starts = [0]
        for holder in self._holders:
            self._starts.append(self._starts[-1] + len(holder.names))
        self._sparing = [holder if isinstance(holder, Sparing) else None for holder in self._holders]
        self.names = tuple(name for holder in self._holders for name in holder.names)
        self._holder_of = [at for at, holder in enumerate(self._holders) for _ in holder.names]

    def of(self, situation: Situation) -> list[tuple[Hold, ...]] | None:
        """The holds of each decision; None: there are none."""
        found: list[tuple[Hold, ...]] | None = None
        for start, holder in zip(self._starts, self._holders, strict=False):
            told = holder.holds(situation)
            if told is None:
                continue
            found = found or [()] * len(told)
            for at, some in enumerate(told):
                if some:
                    found[at] += tuple([Hold(start + limit, *more) for limit, *more in some])
        return found

    def layer(self, hold: Hold) -> str:
        """The layer of "why not" that a hold belongs to. Raises LookupError for one of another configuration."""
        return self._holders[self._at(hold)].layer

    def covers(self, hold: Hold) -> Bools:
        """(offers,) what a hold keeps back. Raises LookupError for one of another configuration."""
        at = self._at(hold)
        covered = self._holders[at].covers(hold.limit - self._starts[at], hold.scope)
        return covered if not self._bundles else self._spread(covered)

    def kept_back(self, holds: Sequence[Hold]) -> Bools | None:
        """(offers,) what the holds of one decision keep back; None: nothing."""
        back: Bools | None = None
        concerned = {self._holder_of[hold.limit] for hold in holds if hold.limit < len(self._holder_of)}
        for at, holder in enumerate(self._holders):
            if at not in concerned:
                continue
            sparing = self._sparing[at]
            mine = _within(holds, self._starts[at], len(holder.names))
            if sparing is not None:
                masks = [sparing.kept_back(mine)]
            else:
                masks = [holder.covers(hold.limit, hold.scope) for hold in mine if not hold.room]
            for mask in masks:
                back = mask if back is None else back | mask
        return back if back is None or not self._bundles else self._spread(back)

    def _spread(self, covered: Bools) -> Bools:
        covered = covered.copy()
        for bundle, members in self._bundles:
            covered[bundle] |= covered[list(members)].any()
        return covered

    def anew(
        self, held: Sequence[Sequence[Hold]], situation: Situation, others: Sequence[Holder] = ()
    ) -> list[tuple[Hold, ...]]:
        """The holds of decisions with those that follow from rules, person and place worked out again, and those of
        further holders."""
        derived = [holder.derived or holder in others for holder in self._holders]
        again = [derived[at] for at in self._holder_of]
        kept = [tuple([hold for hold in holds if not again[hold.limit]]) if holds else () for holds in held]
        for start, holder, anew in zip(self._starts, self._holders, derived, strict=False):
            told = holder.holds(situation) if anew else None
            for at, some in enumerate(told or ()):
                if some:
                    kept[at] += tuple([Hold(start + limit, *more) for limit, *more in some])
        return kept

    def derived(self, name: str) -> bool:
        """Whether a limit follows from rules, person and place alone."""
        return self._holders[self._at(Hold(self.names.index(name), 0))].derived

    def _at(self, hold: Hold) -> int:
        """The holder that a limit is of."""
        if not 0 <= hold.limit < len(self.names):
            raise LookupError(f"limit {hold.limit}: there are {len(self.names)}")
        return bisect_right(self._starts, hold.limit) - 1

    def keep_back(self, held: Sequence[Sequence[Hold]], may: Bools) -> None:
        """Take what is kept back out of `may` (B, offers and silence)."""
        for at, holds in enumerate(held):
            back = self.kept_back(holds) if holds else None
            if back is not None:
                may[at, :-1] &= ~back

    def keeping(self, holds: Sequence[Hold], offer: int) -> list[Hold]:
        """Those of the holds of one decision that keep an offer back."""
        back = self.kept_back(holds)
        if back is None or not back[offer]:
            return []
        return [hold for hold in holds if not hold.room and self.covers(hold)[offer]]

    def trim(self, slates: Slates, held: Sequence[Sequence[Hold]], channels: NDArray[np.int64]) -> Slates:
        """The slates without the offers for which there was no room beside those before them."""
        for start, sparing in zip(self._starts, self._sparing, strict=False):
            if sparing is not None:
                mine = [_within(holds, start, len(sparing.names)) if holds else () for holds in held]
                slates = sparing.trim(slates, mine, channels)
        return slates

    def crowded(self, holds: Sequence[Hold], chosen: Sequence[int], channel: int) -> list[tuple[int, Hold]]:
        """(offer, what left no room for it) of the offers for which an answer of the `chosen` ones left none."""
        found = []
        for start, sparing in zip(self._starts, self._sparing, strict=False):
            if sparing is not None:
                mine = _within(holds, start, len(sparing.names))
                told = sparing.crowded(mine, chosen, channel)
                found += [(offer, hold._replace(limit=start + hold.limit)) for offer, hold in told]
        return found


def _within(holds: Sequence[Hold], start: int, count: int) -> list[Hold]:
    """Those of one holder, limits counted from 0."""
    if not start:
        return [hold for hold in holds if hold.limit < count]
    end = start + count
    # A third of what _replace takes.
    return [Hold(limit - start, scope, room, until) for limit, scope, room, until in holds if start <= limit < end]
