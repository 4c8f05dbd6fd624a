"""What decisions are answered with: a version of the catalogue that serves, and the kinds of answers there are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, Self

from engine.catalogue import Catalogue
from engine.drafts import Ask, Draft, Repeat
from engine.learner import prior_policy
from engine.policyfacts import PolicyFacts
from engine.rolled import EntityReader
from features import Offset
from models import Policy

STATE_STORE_UNAVAILABLE: Final = 1
COMMIT_FAILED: Final = 2
DEADLINE_NEAR: Final = 5
"""Numbers of opportune.v1.DegradedReason."""


@dataclass(slots=True, eq=False)
class Serving:
    """One version of the catalogue and what serves with it. A request is answered with the one that it began with."""

    catalogue: Catalogue
    policy: Policy
    facts: PolicyFacts
    """Of the policy; set together with it."""
    entities: EntityReader | None
    """None if no feature is of an entity."""
    policy_known: bool = True
    """False while the policy that was learnt cannot be loaded; decisions are then marked as degraded."""

    @classmethod
    def of(cls, catalogue: Catalogue, entities: EntityReader | None) -> Self:
        """With what is expected before anything was learnt."""
        facts = PolicyFacts.none(len(catalogue.ladder.offers))
        return cls(catalogue, prior_policy(catalogue), facts, entities if catalogue.rollups else None)


class Decided(NamedTuple):
    """A decision that is durable, and where."""

    draft: Draft
    position: Offset
    catalogue: Catalogue
    written: bytes
    """The answer, as Write had it."""


Write = Callable[[Catalogue, Sequence[Draft], Sequence[Offset]], Sequence[bytes]]
"""Writes the answers of decisions that are durable."""


class Previewed(NamedTuple):
    """What would be decided. Nothing was recorded."""

    draft: Draft
    catalogue: Catalogue


@dataclass(frozen=True, slots=True)
class Fallback:
    """No decision could be made durable: offers of the catalogue instead."""

    ask: Ask
    offers: tuple[int, ...]
    degraded: int
    catalogue: Catalogue


Answer = Decided | Previewed | Repeat | Fallback


class Announcer(Protocol):
    """Who tells others of decisions."""

    @property
    def away(self) -> str:
        """Why nobody could be told a moment ago; "" if nothing is known to be in the way."""
        ...

    async def announce(self, decided: Sequence[Decided]) -> None:
        """Tell of decisions that are durable. Raises StoreError if it is not known whether others learnt of them."""
        ...


class Promise(Protocol):
    """Who waits for an answer. An asyncio.Future is one; a call of the native front answers without one."""

    def done(self) -> bool:
        """Whether nobody waits (any more)."""
        ...

    def set_result(self, result: Answer, /) -> None:
        """Take the answer."""
        ...

    def set_exception(self, exception: Exception, /) -> None:
        """Take the error."""
        ...
