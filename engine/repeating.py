"""Past decisions made again, read from a store: one by its id, or so many drawn at random from the log.

Each is made again with the configuration that it names, as the store kept it (engine.again).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from engine import limits
from engine.again import Difference, made_again, missing
from engine.catalogue import Catalogue
from engine.config import parse
from engine.errors import ConfigError, NotFound
from engine.record import DecisionRecord, RecordError, decision_id, is_decision, parse_decision_id
from engine.store.base import Store
from features import Offset

_CHUNK: Final = 256


@dataclass(frozen=True, slots=True)
class Repeated:
    """One decision, made again."""

    decision_id: str
    record: DecisionRecord
    differences: Sequence[Difference]
    missing: str = ""
    """Why it could not be made again; "" if it was."""

    @property
    def equal(self) -> bool:
        """Whether every bit came out as recorded."""
        return not self.missing and not self.differences


@dataclass(slots=True)
class _Versions:
    """The configurations that records name."""

    store: Store
    known: dict[str, Catalogue | str] = field(default_factory=dict)

    async def of(self, version: str) -> Catalogue | str:
        """A configuration, or why there is none."""
        if version not in self.known:
            text = await self.store.load_config(version)
            if text is None:
                self.known[version] = f"configuration {version}, which decided, was not kept"
            else:
                try:
                    self.known[version] = Catalogue.compile(parse(text, version), version, text)
                except ConfigError as error:
                    self.known[version] = f"configuration {version}, which decided, cannot be read any more: {error}"
        return self.known[version]


async def repeat_one(store: Store, decision: str) -> Repeated:
    """Make one decision again. Raises NotFound if there is none of that id, StoreError."""
    place = parse_decision_id(decision, store.partitions)
    [data] = [None] if place is None else await store.entries([place])
    try:
        record = None if data is None or not is_decision(data) else DecisionRecord.unpack(data)
    except RecordError as error:
        raise NotFound(f"decision {decision}: its record cannot be read: {error}") from error
    if record is None:
        raise NotFound(f"decision {decision}: there is none, or its record was retired")
    [again] = await _repeated(_Versions(store), [(decision, record)])
    return again


async def repeat_some(store: Store, count: int, seed: int) -> tuple[list[Repeated], int]:
    """Make so many decisions of the log again, drawn at random; and how many there are. Raises StoreError."""
    dice = Random(seed)
    drawn: list[tuple[int, Offset, bytes]] = []
    seen = 0
    for partition in range(store.partitions):
        after = Offset.ZERO
        while entries := (await store.read_decisions({partition: after}, limits.LEARN_BATCH_MAX, 0)).get(partition):
            after = entries[-1].offset
            for entry in entries:
                if not is_decision(entry.data):
                    continue
                # Each of those seen so far is among the drawn with the same chance (Vitter's algorithm R).
                seen += 1
                if len(drawn) < count:
                    drawn.append((partition, entry.offset, entry.data))
                elif (place := dice.randrange(seen)) < count:
                    drawn[place] = (partition, entry.offset, entry.data)
    versions = _Versions(store)
    found: list[Repeated] = []
    for start in range(0, len(drawn), _CHUNK):
        chunk = drawn[start : start + _CHUNK]
        named = [(decision_id(partition, at), DecisionRecord.unpack(data)) for partition, at, data in chunk]
        # Who went on with an open offer left nothing to make again.
        found += await _repeated(versions, [(name, record) for name, record in named if not record.resumed])
    return found, seen


async def _repeated(versions: _Versions, named: Sequence[tuple[str, DecisionRecord]]) -> list[Repeated]:
    """The same decisions, made again, those of a configuration together."""
    found: dict[str, Repeated] = {}
    able: dict[str, list[tuple[str, DecisionRecord]]] = {}
    for name, record in named:
        catalogue = await versions.of(record.config_version)
        why = catalogue if isinstance(catalogue, str) else missing(catalogue, record)
        if why:
            found[name] = Repeated(name, record, (), why)
        else:
            able.setdefault(record.config_version, []).append((name, record))
    for version, some in able.items():
        catalogue = versions.known[version]
        assert isinstance(catalogue, Catalogue)
        told = made_again(catalogue, [record for _, record in some])
        found |= {name: Repeated(name, record, told[at]) for at, (name, record) in enumerate(some)}
    return [found[name] for name, _ in named]
