"""What requests name, found in the store: customers, decisions, the configurations that these were made with."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from engine.catalogue import Catalogue
from engine.config import parse
from engine.config_schema import Channel
from engine.drafts import State
from engine.errors import InvalidArgument, NotFound
from engine.gateway import shown
from engine.instances import began_in
from engine.limits import LINK_HOPS_MAX
from engine.links import moved_to
from engine.record import DecisionRecord, RecordError, parse_decision_id
from engine.store.base import Store
from engine.store_errors import store_errors
from features import Offset

CATALOGUES_KEPT_MAX: Final = 16
_CHANNELS_KEPT_MAX: Final = 256


def make_room(kept: dict[str, Any], most: int, *needed: str) -> None:
    """For one more: let go of the oldest versions, but for those needed."""
    while len(kept) >= most:
        kept.pop(next(version for version in kept if version not in needed))


class Lookups:
    """Finds what requests name, and keeps the configurations that it needed."""

    def __init__(self, store: Store, catalogue: Catalogue) -> None:
        self._store = store
        self._served = catalogue.version
        self._catalogues = {catalogue.version: catalogue}
        self._channels: dict[str, Sequence[Channel]] = {catalogue.version: catalogue.config.channels}

    def follow(self, catalogue: Catalogue) -> None:
        """Another version is served."""
        make_room(self._catalogues, CATALOGUES_KEPT_MAX, self._served, catalogue.version)
        self._served = catalogue.version
        self._catalogues[catalogue.version] = catalogue
        self._channels[catalogue.version] = catalogue.config.channels

    async def whose(self, name: str) -> tuple[str, State]:
        """The customer that a name belongs to now, itself if to nobody, and the customer's state."""
        [state] = await self._store.read([name])
        for _ in range(LINK_HOPS_MAX):
            if not (to := moved_to(state[0])):
                break
            name = to
            [state] = await self._store.read([name])
        return name, state

    async def found(self, text: str) -> tuple[int, Offset, DecisionRecord]:
        """Partition, position and record of a decision by its id. Raises InvalidArgument and NotFound."""
        if not text:
            raise InvalidArgument("decision_id: empty, expected an id that Decide returned")
        place = parse_decision_id(text, self._store.partitions)
        record = None if place is None else await self.record(*place)
        if place is None or record is None:
            raise NotFound(f"decision_id: no decision {shown(text)}, or its record was retired")
        return *place, record

    async def first(self, text: str) -> tuple[int, Offset, DecisionRecord]:
        """The decision of an id, or the one that began what it resumed."""
        found = await self.found(text)
        began = began_in(found[2])
        return found if began is None else await self.found(began[1].began)

    async def record(self, partition: int, position: Offset) -> DecisionRecord | None:
        """The record of a decision; None if it was retired, or there is something else."""
        with store_errors():
            [data] = await self._store.entries([(partition, position)])
        try:
            return None if data is None else DecisionRecord.unpack(data)
        except RecordError:
            return None  # an outcome's position, guessed: not a decision

    async def catalogue_of(self, version: str) -> Catalogue:
        """The configuration that an old record was made with."""
        found = self._catalogues.get(version)
        if found is None:
            with store_errors():
                text = await self._store.load_config(version)
            if text is None:
                raise NotFound(f"configuration {version} of this decision was not kept")
            # Beside what is served: of a large one it takes a second.
            found = await asyncio.to_thread(lambda: Catalogue.compile(parse(text, version), version, text))
            make_room(self._catalogues, CATALOGUES_KEPT_MAX, self._served)
            self._catalogues[version] = found
        return found

    async def channels_of(self, version: str) -> Sequence[Channel]:
        """Channels of a configuration; () if it was not kept. Raises ConfigError if it cannot be read any more.

        Not from a catalogue: a customer's decisions may be of many configurations, and compiling one takes long.
        """
        found = self._channels.get(version)
        if found is None:
            with store_errors():
                text = await self._store.load_config(version)
            found = () if text is None else (await asyncio.to_thread(parse, text, version)).channels
            make_room(self._channels, _CHANNELS_KEPT_MAX, self._served)
            self._channels[version] = found
        return found
