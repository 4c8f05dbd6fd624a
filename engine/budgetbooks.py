"""Which budgets an old decision drew on: those of the configuration that it was made with, as it was then."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from engine.budgets import Budgets
from engine.catalogue import Catalogue
from engine.config import parse
from engine.config_schema import key_of
from engine.course import Told
from engine.record import DecisionRecord
from engine.store.base import PolicyBoard
from engine.store.budgetboard import Move

_KEPT_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Booked:
    """An offer of a decision, as far as budgets are concerned."""

    budgets: Budgets
    offer: int
    decided_ms: int

    def moves(self, before: Sequence[Told] | None, after: Sequence[Told]) -> tuple[Move, ...]:
        """What an outcome changes; see Budgets.moves_of."""
        return self.budgets.moves_of(self.offer, self.decided_ms, before, after)


class BudgetBooks:
    """Budgets by the version of their configuration."""

    def __init__(self, catalogue: Callable[[], Catalogue], board: PolicyBoard) -> None:
        self._catalogue = catalogue
        self._board = board
        self._kept: dict[str, tuple[Budgets, dict[int, int]]] = {}

    async def of(self, record: DecisionRecord, offer_key: int) -> Booked | None:
        """What an offer of a decision drew on; None if on nothing. Raises StoreError, ConfigError."""
        budgets, places = await self._of(record.config_version)
        at = places.get(offer_key)
        return Booked(budgets, at, record.time_ms) if budgets and at is not None else None

    async def _of(self, version: str) -> tuple[Budgets, dict[int, int]]:
        found = self._kept.get(version)
        if found is None:
            catalogue = self._catalogue()
            config = catalogue.config
            if version != catalogue.version:
                # Not compiled: that takes long, and budgets need no rules.
                text = await self._board.load_config(version)
                if text is None:
                    return catalogue.budgets, {}
                config = await asyncio.to_thread(parse, text, version)
            found = Budgets(config), {key_of(offer.id): at for at, offer in enumerate(config.offers)}
            while len(self._kept) >= _KEPT_MAX:
                del self._kept[next(iter(self._kept))]
            self._kept[version] = found
        return found
