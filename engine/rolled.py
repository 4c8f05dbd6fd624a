"""Features of what customers belong to, as a decision reads them: from the store, in one round trip more.

Which household a customer belongs to stands in the customer's links, which are read together with the customer's state;
which product a conversation is about is a fact that the caller gives. Then the records of all of them are read at once.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

import orjson

from engine.drafts import Ask
from engine.links import Links, LinksError
from engine.rollups import Rollup, belongs_to, entity_name
from engine.store.base import LINKS, PartlyUnavailable, StoreError

Told = Mapping[str, bytes | StoreError | None]
"""The links of each customer, or why they cannot be read."""
Rolled = Sequence[bytes | None]
"""Records of the entities of one request, by kind, in order of the catalogue's roll-ups; None without one."""


class Reading(Protocol):
    """What of a store is read here."""

    async def read(self, customers: Sequence[str]) -> list[tuple[bytes | None, bytes | None]]:
        """As in engine.store.base."""
        ...

    async def read_beside(self, kind: str, customers: Sequence[str]) -> list[bytes | None]:
        """As in engine.store.base."""
        ...


class EntityReader:
    """Reads the records of entities."""

    def __init__(self, rollups: Sequence[Rollup], store: Reading) -> None:
        self._rollups = rollups
        self._store = store
        self._by_link = any(not rollup.many for rollup in rollups)
        self._by_fact = any(rollup.fact for rollup in rollups)

    async def links(self, customers: Sequence[str]) -> Told:
        """What customers belong to, as far as it can be read; nothing if no feature depends on it."""
        if not self._by_link:
            return {}
        try:
            return dict(zip(customers, await self._store.read_beside(LINKS, customers), strict=True))
        except StoreError:
            pass
        # A node of several may be away: it takes only its own customers along.
        found = await asyncio.gather(*(self._one(customer) for customer in customers))
        return dict(zip(customers, found, strict=True))

    async def of_customer(self, customer: str) -> Rolled:
        """The records of what a customer belongs to, by kind; None where a conversation says it. Raises StoreError."""
        told = await self.links([customer])
        links = told.get(customer)
        if isinstance(links, StoreError):
            raise links
        [records] = await self._of_names([self._names(b"", links)])
        if isinstance(records, StoreError):
            raise records
        return records

    async def _one(self, customer: str) -> bytes | StoreError | None:
        try:
            [links] = await self._store.read_beside(LINKS, [customer])
        except StoreError as error:
            return error
        return links

    async def records(self, asks: Sequence[Ask], told: Told) -> list[Rolled | StoreError]:
        """For each request the records of its entities, or why they cannot be read. Raises nothing."""
        return await self._of_names([self._names(ask.context, told.get(ask.customer)) for ask in asks])

    async def _of_names(self, named: Sequence[list[str] | StoreError]) -> list[Rolled | StoreError]:
        wanted = list(dict.fromkeys(name for names in named if not isinstance(names, StoreError) for name in names))
        wanted = [name for name in wanted if name]
        away: dict[str, StoreError] = {}
        found: dict[str, bytes | None] = {"": None}
        if wanted:
            try:
                states: Sequence[tuple[bytes | None, bytes | None] | None] = await self._store.read(wanted)
            except PartlyUnavailable as error:
                states = error.found
                away = {name: error for name, state in zip(wanted, states, strict=True) if state is None}
            except StoreError as error:
                away, states = dict.fromkeys(wanted, error), ()
            found.update((name, state[0]) for name, state in zip(wanted, states, strict=False) if state is not None)
        results: list[Rolled | StoreError] = []
        for names in named:
            if isinstance(names, StoreError):
                results.append(names)
            else:
                problem = next((away[name] for name in names if name in away), None)
                results.append([found[name] for name in names] if problem is None else problem)
        return results

    def _names(self, context: bytes, links: bytes | StoreError | None) -> list[str] | StoreError:
        """Of each kind the entity that a request is about; "" without one."""
        facts = orjson.loads(context) if self._by_fact and context else {}
        entities = None
        names = []
        for rollup in self._rollups:
            entity = facts.get(rollup.fact, "") if rollup.fact else ""
            if not entity and not rollup.many:
                if isinstance(links, StoreError):
                    return links
                if entities is None:
                    try:
                        entities = Links.unpack(links).entities
                    except LinksError:
                        entities = []  # ingest tells of it, and begins them anew
                entity = belongs_to(entities, rollup.kind)
            names.append(entity_name(rollup.kind, entity) if entity else "")
        return names
