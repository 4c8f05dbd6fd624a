"""Contacts under linked names: the ledgers of a customer's visitors, read with the customer's own.

A name that was linked to a customer keeps its ledger: decisions that were made for it are in there, and their outcomes
come there. Nothing is copied, so nothing can get lost or count twice, whatever crashes when: a decision for the
customer reads which names are linked to him, with his state, and then their ledgers, in one round trip more for those
who have any. From the link on decisions for the name are made for the customer, whose ledger is written with compare-
and-set; so the ledgers of the names stand still but for outcomes. Taking a link back gives the name its own contacts
again, and the customer keeps those that were made for him.

A decision for the name alone that is under way while it moves is not committed: in the step that would write it the
store finds that the name belongs to somebody (DecisionCommit.unmoved), and it is made for the customer. So whoever sees
that a name has moved sees all contacts that were ever made for it alone.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from engine.drafts import Linked
from engine.links import Links, LinksError, moved_to
from engine.store.base import LINKS, PartlyUnavailable, StoreError, partition_of

Named = Mapping[str, Sequence[str] | StoreError]
"""The names linked to each customer, or why it is not known."""


class Unsettled(NamedTuple):
    """A name is known to be linked and does not stand so yet: a decision for it alone may still be committed."""

    ledgers: Linked


class Reading(Protocol):
    """What of a store is read here."""

    async def read(self, customers: Sequence[str]) -> list[tuple[bytes | None, bytes | None]]:
        """As in engine.store.base."""
        ...

    async def read_beside(self, kind: str, customers: Sequence[str]) -> list[bytes | None]:
        """As in engine.store.base."""
        ...


class LinkedLedgers:
    """Reads the ledgers of linked names."""

    def __init__(self, store: Reading, partitions: int) -> None:
        self._store = store
        self._partitions = partitions

    async def names(self, customers: Sequence[str]) -> Named:
        """The names linked to each customer. Raises nothing."""
        try:
            found: Sequence[bytes | StoreError | None] = await self._store.read_beside(LINKS, customers)
        except StoreError:
            # A node of several may be away: it takes only its own customers along.
            found = await asyncio.gather(*(self._one(customer) for customer in customers))
        return {
            customer: data if isinstance(data, StoreError) else _linked(data)
            for customer, data in zip(customers, found, strict=True)
            if data is not None
        }

    async def _one(self, customer: str) -> bytes | StoreError | None:
        try:
            [links] = await self._store.read_beside(LINKS, [customer])
        except StoreError as error:
            return error
        return links

    async def read(
        self, wanted: Sequence[tuple[str, Sequence[str]]], named: Named
    ) -> list[Linked | Unsettled | StoreError]:
        """The ledgers of the names linked to each (customer, names known beside), or why they cannot be read."""
        names: list[Sequence[str] | StoreError] = []
        for customer, known in wanted:
            linked = named.get(customer, ())
            names.append(linked if isinstance(linked, StoreError) else list(dict.fromkeys([*linked, *known])))
        asked = list(dict.fromkeys(name for some in names if not isinstance(some, StoreError) for name in some))
        away: StoreError | None = None
        ledgers: dict[str, bytes | None] = {}
        moved: set[str] = set()
        if asked:
            states: Sequence[tuple[bytes | None, bytes | None] | None]
            try:
                states = await self._store.read(asked)
            except PartlyUnavailable as error:
                states, away = error.found, error
            except StoreError as error:
                states, away = [None] * len(asked), error
            there = {name: state for name, state in zip(asked, states, strict=True) if state is not None}
            ledgers = {name: ledger for name, (_, ledger) in there.items()}
            moved = {name for name, (features, _) in there.items() if moved_to(features)}
        results: list[Linked | Unsettled | StoreError] = []
        for some in names:
            if isinstance(some, StoreError):
                results.append(some)
            elif away is not None and any(name not in ledgers for name in some):
                results.append(away)
            else:
                found = [(partition_of(name, self._partitions), ledgers[name]) for name in some]
                kept = [(partition, data) for partition, data in found if data is not None]
                results.append(kept if moved.issuperset(some) else Unsettled(kept))
        return results


def _linked(data: bytes | None) -> Sequence[str]:
    try:
        return Links.unpack(data).linked
    except LinksError:
        return ()  # ingest tells of it, and begins them anew
