"""What the store keeps of links between names, as bytes. A name is a customer id, or "kind=value" of an identity.

    moved    {pN}f:<name>  in place of the features: the customer that this name belongs to now
    Parts    {pN}g:<name>  of what the features are made: its own events by the customer for whom they count, and the
                           records of other names that were merged into it. The features follow from it; they are not
                           read again, for their head says nothing of parts that came and went
    Links    {pN}e:<name>  for people: identities, entities and lineage, as JSON

Only a name that was ever linked has the first two. Both begin with HEADER_CAS_BYTES bytes that change whenever
ingest wrote them, as a record does.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from struct import Struct
from struct import error as StructError
from typing import Any, Final, NamedTuple
from zlib import crc32

import orjson

from engine.limits import LINEAGE_ENTRIES_MAX
from engine.store.base import MOVED
from features import HEADER_CAS_BYTES, Offset

_HEAD: Final = Struct("<4s4xQQI")
"""Mark, position of the last entry of the event log that is in it, CRC-32 of the rest."""
_PARTS: Final = b"PT\x01\x00"
_LENGTH: Final = Struct("<I")
_NOTHING: Final = -1
"""In place of the length of a record: there is none."""

# A record begins with 0x4F, so none of these is taken for one, nor one for these.
assert _HEAD.size == HEADER_CAS_BYTES


class LinksError(ValueError):
    """The bytes are damaged, or none of ours."""


def moved_to(features: bytes | None) -> str:
    """The customer that a name belongs to now, by what the store has for its features; "" if it stands for itself.

    >>> moved_to(moved("ann", Offset(1, 0))), moved_to(None)
    ('ann', '')
    """
    if features is None or features[:4] != MOVED:
        return ""
    return features[HEADER_CAS_BYTES:].decode()


def moved(customer: str, at: Offset) -> bytes:
    """What stands in place of the features of a name that belongs to a customer."""
    name = customer.encode()
    return _HEAD.pack(MOVED, at.ms, at.seq, crc32(name)) + name


# --- parts ----------------------------------------------------------------------------------------------------------


class Status(IntEnum):
    """How a name stands to a customer that it was linked to."""

    LINKED = 1
    KEPT = 2
    """It belongs to somebody else by now; what happened under it until then still counts."""
    RELEASED = 3
    """The link was taken back: nothing of it counts."""


@dataclass(frozen=True, slots=True)
class Part:
    """Another name within a customer, as that name last told."""

    record: bytes | None
    at: Offset
    """Position in the log of that name: what was told earlier changes nothing."""
    status: Status
    names: tuple[str, ...]
    """The name, and all that were merged into it before."""
    since_ms: int
    source: str


@dataclass(slots=True)
class Parts:
    """Of what the features of a name are made."""

    at: Offset
    """Last entry of the name's log that is in here."""
    born: Offset
    """First link in the log that this tells of. After state that went away by itself, others begin anew too."""
    to: str = ""
    """The customer that the name belongs to; "" if it stands for itself."""
    link: Offset = Offset.ZERO
    """Entry that made that link."""
    since_ms: int = 0
    source: str = ""
    own: dict[str, bytes | None] = field(default_factory=dict)
    """Records of the name's own events, by the customer for whom they count; "" for the name itself."""
    others: dict[tuple[str, Offset], Part] = field(default_factory=dict)
    """By name and the `born` of its Parts."""

    def names(self) -> list[str]:
        """Names that belong to this one now."""
        return [name for part in self.others.values() if part.status is Status.LINKED for name in part.names]

    def pack(self) -> bytes:
        """As the store keeps it."""
        records: list[bytes] = []

        def length(record: bytes | None) -> int:
            if record is None:
                return _NOTHING
            records.append(record)
            return len(record)

        own = [[customer, length(record)] for customer, record in self.own.items()]
        others = [
            [name, _pair(born), _pair(p.at), int(p.status), p.names, p.since_ms, p.source, length(p.record)]
            for (name, born), p in self.others.items()
        ]
        told = [_pair(self.born), self.to, _pair(self.link), self.since_ms, self.source, own, others]
        meta = orjson.dumps(told)
        body = b"".join((_LENGTH.pack(len(meta)), meta, *records))
        return _HEAD.pack(_PARTS, self.at.ms, self.at.seq, crc32(body)) + body

    @classmethod
    def unpack(cls, data: bytes) -> "Parts":
        """Read it. Raises LinksError."""
        try:
            mark, ms, seq, checksum = _HEAD.unpack_from(data)
            if mark != _PARTS or checksum != crc32(data[_HEAD.size :]):
                raise LinksError(f"parts of {len(data)} bytes are damaged or of another form")
            start = _HEAD.size + _LENGTH.size
            at = start + _LENGTH.unpack_from(data, _HEAD.size)[0]
            born, to, link, since_ms, source, own, others = orjson.loads(data[start:at])
        except (StructError, ValueError) as error:
            raise LinksError(f"parts of {len(data)} bytes cannot be read: {error}") from error
        parts = cls(Offset(ms, seq), Offset(*born), to, Offset(*link), since_ms, source)

        def record(length: int) -> bytes | None:
            nonlocal at
            if length == _NOTHING:
                return None
            at += length
            return data[at - length : at]

        parts.own = {customer: record(length) for customer, length in own}
        for name, its_born, its_at, status, names, its_since_ms, its_source, length in others:
            part = Part(record(length), Offset(*its_at), Status(status), tuple(names), its_since_ms, its_source)
            parts.others[name, Offset(*its_born)] = part
        return parts


def position_of(parts: bytes) -> Offset:
    """Last entry of the log that is in Parts, unverified. Raises LinksError for bytes that are too few."""
    try:
        _, ms, seq, _ = _HEAD.unpack_from(parts)
    except StructError as error:
        raise LinksError(f"parts of {len(parts)} bytes cannot be read: {error}") from error
    return Offset(ms, seq)


def _pair(offset: Offset) -> tuple[int, int]:
    return offset.ms, offset.seq


# --- links, for people ----------------------------------------------------------------------------------------------


class Linked(NamedTuple):
    """A name that is or was linked to a customer, and whose events until then count for the customer."""

    name: str
    since_ms: int
    source: str
    """How it was linked: decide, publish, api."""
    via: str
    """The name through which it came: an identity of a customer who was merged; "" if directly."""
    status: Status


class EntityLink(NamedTuple):
    """A household, an account or the like that a customer belongs to."""

    kind: str
    id: str
    time_ms: int
    """Of the newest event that said so."""
    by: str
    """The linked name that brought it; "" for the customer itself."""


class Action(IntEnum):
    """What a line of lineage tells. The numbers are those of opportune.v1.LineageAction."""

    LINKED_TO = 1
    UNLINKED_FROM = 2
    LINK_REFUSED = 3
    GAINED = 4
    KEPT = 5
    LOST = 6


class Lineage(NamedTuple):
    """One line of lineage."""

    time_ms: int
    action: Action
    name: str
    """The other side."""
    source: str
    request_id: str
    position: Offset
    """Of the entry in the log of the name whose lineage this is."""
    reason: str


@dataclass(slots=True)
class Links:
    """Identities, entities and lineage of one name."""

    to: str = ""
    identities: list[Linked] = field(default_factory=list)
    entities: list[EntityLink] = field(default_factory=list)
    lineage: list[Lineage] = field(default_factory=list)
    """Oldest first, the newest LINEAGE_ENTRIES_MAX."""

    @property
    def linked(self) -> list[str]:
        """Names that belong to this customer now, however they came."""
        return [identity.name for identity in self.identities if identity.status is Status.LINKED]

    def knows(self, request_id: str, *actions: Action) -> bool:
        """Whether a request with this id led to one of these; "" never did."""
        return bool(request_id) and any(
            line.request_id == request_id and line.action in actions for line in self.lineage
        )

    def tell(self, line: Lineage) -> None:
        """Add a line of lineage."""
        self.lineage.append(line)
        del self.lineage[:-LINEAGE_ENTRIES_MAX]

    def pack(self) -> bytes:
        """As the store keeps it."""
        lineage = [(*line[:5], _pair(line.position), line.reason) for line in self.lineage]
        # Named tuples are no lists to orjson.
        told = [1, self.to, list(map(tuple, self.identities)), list(map(tuple, self.entities)), lineage]
        return orjson.dumps(told)

    @classmethod
    def unpack(cls, data: bytes | None) -> "Links":
        """Read it; None is a name without links. Raises LinksError."""
        if data is None:
            return cls()
        try:
            form, to, identities, entities, lineage = orjson.loads(data)
            if form != 1:
                raise LinksError(f"links of form {form}, expected 1")
            return cls(
                to,
                [Linked(name, since_ms, source, via, Status(s)) for name, since_ms, source, via, s in identities],
                [EntityLink(*entity) for entity in entities],
                [_line(*line) for line in lineage],
            )
        except (ValueError, TypeError) as error:
            raise LinksError(f"links of {len(data)} bytes cannot be read: {error}") from error


def _line(time_ms: int, action: int, name: str, source: str, request_id: str, at: Any, reason: str) -> Lineage:
    return Lineage(time_ms, Action(action), name, source, request_id, Offset(*at), reason)
