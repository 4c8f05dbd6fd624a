"""Where the logs hold what is a person's: no key leads there, so they are read through, a batch at a time."""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field

import orjson

from engine.forget.entry import ForgetRecord
from engine.limits import INGEST_BATCH_MAX, LEARN_BATCH_MAX
from engine.record import glimpse
from engine.rollups import SOURCE, is_entity
from engine.store.base import Store
from features import Offset


@dataclass(slots=True)
class Traces:
    """What a decision log holds of one name, as far as it was read."""

    decisions: list[Offset] = field(default_factory=list)
    """With offers."""
    silent: list[Offset] = field(default_factory=list)
    """Without."""
    outcomes: list[Offset] = field(default_factory=list)
    newest_ms: int = 0

    def entry(self, now_ms: int, named: Iterable[Offset], known: set[Offset]) -> ForgetRecord | None:
        """The entry that forgets them; None if there is nothing.

        `named` are the decisions of the ledger, `known` what other entries that are still pending forget.
        """
        all_of_it = {*self.decisions, *self.silent}
        decisions = tuple(at for at in self.decisions if at not in known)
        others = tuple(sorted(at for at in (*self.silent, *self.outcomes) if at not in known))
        lost = tuple(sorted(set(named) - all_of_it))
        if not (decisions or others or lost):
            return None
        return ForgetRecord(max(now_ms, self.newest_ms), decisions, others, lost)


class DecisionSearch:
    """Looks through one partition of the decision log for what belongs to some names."""

    def __init__(self, store: Store, partition: int, names: Iterable[str]) -> None:
        self._store = store
        self._partition = partition
        self._after = Offset.ZERO
        self.found = {name.encode(): Traces() for name in names}
        self._owner: dict[Offset, Traces] = {}

    async def to_the_end(self) -> None:
        """Read what was not read yet. Raises StoreError."""
        at = self._partition
        while batch := (await self._store.read_decisions({at: self._after}, LEARN_BATCH_MAX, 0)).get(at):
            for entry in batch:
                self._look(entry.offset, entry.data)
            self._after = batch[-1].offset

    def _look(self, at: Offset, data: bytes) -> None:
        seen = glimpse(data)
        if seen is None:
            return
        if seen.customer:
            traces = self.found.get(seen.customer)
            if traces is None:
                return
            (traces.decisions if seen.offers else traces.silent).append(at)
            self._owner[at] = traces
        else:
            traces = self._owner.get(seen.decision)
            if traces is None:
                return
            traces.outcomes.append(at)
        traces.newest_ms = max(traces.newest_ms, seen.time_ms)


async def events_of(store: Store, partition: int, up_to: Mapping[str, Offset]) -> list[Offset]:
    """Positions in the event log of the entries of these names, each up to a position. Raises StoreError."""
    heads = tuple(b"[" + orjson.dumps(name) + b"," for name in up_to)
    found, after, end = [], Offset.ZERO, max(up_to.values())
    while after < end and (batch := (await store.read_events({partition: after}, INGEST_BATCH_MAX, 0)).get(partition)):
        found += [
            entry.offset
            for entry in batch
            if entry.data.startswith(heads) and entry.offset <= up_to[orjson.loads(entry.data)[0]]
        ]
        after = batch[-1].offset
    return found


async def copies_of(store: Store, partition: int, originals: Set[tuple[int, int, int]]) -> dict[Offset, str]:
    """Copies that engine.rollups made of events at these (partition, ms, seq), in one partition of the event log.

    By position, with the name of the entity that they count for. Raises StoreError.
    """
    found, after = {}, Offset.ZERO
    mark = b'"' + SOURCE.encode() + b'":['
    while batch := (await store.read_events({partition: after}, INGEST_BATCH_MAX, 0)).get(partition):
        for entry in batch:
            if mark in entry.data and (copy := _copy(entry.data)) is not None and copy[1] in originals:
                found[entry.offset] = copy[0]
        after = batch[-1].offset
    return found


def _copy(data: bytes) -> tuple[str, tuple[int, int, int]] | None:
    """(entity, what it is a copy of) of an entry; None if it is something else."""
    try:
        entity, _, _, _, told = orjson.loads(data)
        partition, ms, seq = told[SOURCE]
    except (ValueError, TypeError, KeyError):
        return None
    return (entity, (partition, ms, seq)) if isinstance(entity, str) and is_entity(entity) else None
