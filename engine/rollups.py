"""Roll-ups: features of what customers belong to, such as a household, an account or a product. Pure.

An event that counts for a customer counts for the customer's household, too. Ingest of the customer's log knows whose
it is: what a customer belongs to follows from that very log. So it appends a copy to the log of the household, which
has a name, a partition and a record of its own, and is folded like any other:

    log of ann   buys ── @entity household=h1 ── buys ─┐          log of household h1    record of household h1
    log of bob   @entity household=h1 ────── complains ┴ copies ──► buys  complains ──► fold, by features of households

1. Where there is one of a kind, as with a household, all events of a customer count for the one that the customer
   belongs to when the event is folded; one that names another counts for that. Where there are many, as with accounts
   or products, an event counts for the one it names. No history moves when somebody joins or leaves.
2. Copies are sent before the customer's record is written, so a crash in between repeats them, and only in the order in
   which they stand in the log that they come from. A copy carries its place there, and beside the record of an entity
   stands how far it has come in each partition: what is not beyond that was there already. Both are written in one
   atomic step, so a copy counts once. All rests on that order: a broker that takes a later copy and refuses an earlier
   one (Kafka, if a partition has no leader for longer than a request may take) loses the earlier one.
3. What the customer's record ignores, because a producer sent it twice, is not copied (that_count). So an event
   counts for the household if and only if it counts for the customer.

The character between kind and id is one that no name from outside may have: nobody can ask for an entity as a customer.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from struct import Struct
from struct import error as StructError
from typing import Any, Final, NamedTuple
from zlib import crc32

import orjson

from engine.config_schema import Config
from engine.identity import Entry, Taken
from engine.links import EntityLink
from features import HEADER_CAS_BYTES, Layout, Offset

_BETWEEN: Final = "\x1f"
SOURCE: Final = "@from"
"""Attribute of a copy: partition, ms and seq of the event in the log that it comes from. No declared one has an @."""

_HEAD: Final = Struct("<4s4xQQI")
"""As of other values beside a record (engine.links): mark, last entry of the entity's log, CRC-32 of the rest."""
_MARK: Final = b"RS\x01\x00"
_REACHED: Final = Struct("<IQQ")

assert _HEAD.size == HEADER_CAS_BYTES


class Rollup(NamedTuple):
    """The features of one kind of entity."""

    kind: str
    many: bool
    attribute: str
    """Of events: names the entity; "" if none does."""
    fact: str
    """Of conversations: names the entity; "" if none does."""
    layout: Layout
    types: frozenset[str]
    """Of the events that its features take."""


def rollups_of(config: Config) -> tuple[Rollup, ...]:
    """The kinds of entities that have features, in order of the configuration."""
    found = []
    for entity in config.entities:
        specs = config.feature_specs(entity.kind)
        if specs:
            layout = Layout.compile(specs, config.timezone)
            types = frozenset(spec.event for spec in specs if spec.event)
            found.append(Rollup(entity.kind, entity.many, entity.attribute or "", entity.fact or "", layout, types))
    return tuple(found)


def entity_name(kind: str, entity_id: str) -> str:
    """The name of an entity: of its log and of its record."""
    return f"{kind}{_BETWEEN}{entity_id}"


def is_entity(name: str) -> bool:
    """Whether a name is that of an entity and no customer's."""
    return _BETWEEN in name


def kind_of(name: str) -> str:
    """The kind of an entity by its name."""
    return name.partition(_BETWEEN)[0]


def belongs_to(entities: Iterable[EntityLink], kind: str) -> str:
    """The id of the entity that a customer belongs to, of a kind of which there is one: the newest; "" if none.

    >>> belongs_to([EntityLink("household", "h1", 5, ""), EntityLink("household", "h2", 7, "cookie=c")], "household")
    'h2'
    """
    return max(((link.time_ms, link.id) for link in entities if link.kind == kind), default=(0, ""))[1]


# --- copies ---------------------------------------------------------------------------------------------------------


def copies(
    rollups: Sequence[Rollup],
    taken: Iterable[Taken[Entry]],
    of_customers: Mapping[str, Sequence[EntityLink]],
    home: Callable[[str], int],
) -> list[tuple[str, bytes]]:
    """(name, entry) for the logs of entities, in the order of the logs that they come from.

    An event under a linked name counts for what the customer belongs to that it is of: `of_customers` has those.
    `home` is the partition of a name's log.
    """
    found: list[tuple[int, Offset, str, bytes]] = []
    for name, to, events, all_entities in taken:
        partition = home(name)
        for event, entities in zip(events, all_entities, strict=True):
            for rollup in rollups:
                if event.type not in rollup.types:
                    continue
                named = event.attributes.get(rollup.attribute) if rollup.attribute else None
                entity_id = named if isinstance(named, str) else ""
                if not entity_id and not rollup.many:
                    entity_id = belongs_to(of_customers.get(to, ()) if to else entities, rollup.kind)
                if entity_id:
                    entity = entity_name(rollup.kind, entity_id)
                    told = {**event.attributes, SOURCE: (partition, event.offset.ms, event.offset.seq)}
                    # Without id: the customer's record has seen to repeats, and knows them better.
                    data = orjson.dumps([entity, 0, event.type, event.time_ms, told])
                    found.append((partition, event.offset, entity, data))
    found.sort(key=lambda copy: copy[:2])
    return [(entity, data) for _, _, entity, data in found]


# --- the entity's side ----------------------------------------------------------------------------------------------


def fresh_copies(beside: bytes | None, events: Sequence[Entry]) -> tuple[list[Entry], bytes]:
    """Of copies in an entity's log, those that were not there before; and what stands beside the record then.

    Where the copies are cut into batches changes no byte of that. What is no copy is passed over.
    """
    at, reached = _reached(beside)
    fresh = []
    for event in events:
        if event.offset <= at:
            continue
        at = event.offset
        try:
            told: Any = event.attributes[SOURCE]
            partition, ms, seq = map(int, told)
        except (KeyError, TypeError, ValueError):
            continue  # nothing of ours wrote it
        source = Offset(ms, seq)
        if source > reached.get(partition, Offset.ZERO):
            reached[partition] = source
            fresh.append(event)
    body = b"".join(_REACHED.pack(partition, last.ms, last.seq) for partition, last in sorted(reached.items()))
    return fresh, _HEAD.pack(_MARK, at.ms, at.seq, crc32(body)) + body


def _reached(beside: bytes | None) -> tuple[Offset, dict[int, Offset]]:
    if beside is not None:
        try:
            mark, ms, seq, checksum = _HEAD.unpack_from(beside)
            if mark == _MARK and checksum == crc32(beside[_HEAD.size :]):
                rows = _REACHED.iter_unpack(beside[_HEAD.size :])
                return Offset(ms, seq), {partition: Offset(ms, seq) for partition, ms, seq in rows}
        except StructError:
            pass
    return Offset.ZERO, {}
