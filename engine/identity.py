"""Identity: who is who, and what a merged customer's features are. Pure; ingest reads, writes and sends for it.

A *name* is a customer id or an identity such as "cookie=c7". Each has a log of events (in its partition) and a record.
A link says that a name belongs to a customer from now on. It is an entry in the log of the *name*, so it is in order
with the events under that name, and that log alone decides where they count:

    log of cookie=c7     browse   browse   @link → ann   browse   @unlink   browse
    counts for                cookie=c7    └──────── ann ───────┘         cookie=c7, all of it again

    log of cookie=c7                          log of ann
      own record ── @link ──► moved to ann      @part: this is the record of cookie=c7 now
        │ goes on being folded here               │ kept beside ann's own record
        └──────────── @part, after every batch ───┘ features of ann = merge(own, parts)

1. A name that is linked goes on folding its own events, and tells its customer the whole record, a few hundred bytes,
   after every batch that changed it. So nothing is moved by a link but a copy: what came before it is in the copy, what
   comes after it follows the same way, and taking the link back is dropping the copy. Both are then as if the link had
   never been, to the bit.
2. Telling is idempotent: a part carries the position in its own log that it is of, and only a newer one replaces it.
   A crash between telling (append) and writing (compare-and-set) repeats the telling, and changes nothing.
3. Merging customers is the same: what is told is then the merged record, with all names that are in it.
4. A name is linked to one customer at a time; the newest link wins. What counted for the former customer still does
   (it is `kept`): nothing moves silently. `@unlink` of the former one takes it back from there, and it counts for
   whoever the name belongs to now, as it would have without that link.

After a link, events under the name reach the customer's features through two logs instead of one: about a millisecond.
Why not send the events to the customer's log: the two logs would then have to agree on where one ended and the other
began, for every link and its reversal, and a producer's repeats would no longer be seen by one record.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, NamedTuple, TypeVar

import orjson

from engine.limits import CUSTOMER_IDENTITIES_MAX, ENTITY_ENTRIES_MAX
from engine.links import (
    Action,
    EntityLink,
    Lineage,
    Linked,
    Links,
    LinksError,
    Part,
    Parts,
    Status,
    moved,
    moved_to,
    position_of,
)
from engine.timeline import Happened
from features import Layout, Offset, RecordError, VersionError, news

LINK: Final = "@link"
UNLINK: Final = "@unlink"
PART: Final = "@part"
ENTITY: Final = "@entity"
FORGET: Final = "@forget"
"""Types of the entries that are no events. No event type of a configuration begins with @."""

Entry = TypeVar("Entry", bound=Happened)
Fold = Callable[[bytes | None, Sequence[Entry]], bytes]
"""Record and events of one name → its next record."""


class EntityKind(NamedTuple):
    """A kind of entity whose id is an attribute of events."""

    kind: str
    many: bool
    """Whether a customer has several; otherwise the newest replaces the one before."""


class Taken(NamedTuple, Generic[Entry]):
    """Events of one name that count, and what it belonged to at each."""

    name: str
    to: str
    """The customer that the name belonged to; "" if it stood for itself."""
    events: Sequence[Entry]
    entities: Sequence[Sequence[EntityLink]]
    """By event: the entities of the name."""


class Stored(NamedTuple):
    """What the store has of one name."""

    record: bytes | None
    parts: bytes | None
    links: bytes | None


@dataclass(slots=True)
class Advanced:
    """What a batch of entries makes of it."""

    record: bytes
    """b"": the name has no features."""
    parts: bytes | None
    """None: it was never linked."""
    links: bytes | None
    """None: there are none."""
    sends: list[tuple[str, bytes]] = field(default_factory=list)
    """(name, entry) to be appended to the logs of other names, before this is written."""
    refused: list[tuple[bytes, str]] = field(default_factory=list)
    """Dead letters: (entry, why)."""
    damage: list[str] = field(default_factory=list)
    """What could not be read and began anew."""
    forgotten: Offset | None = None
    """The entry that forgot the name: nothing from before it may stay, wherever it is kept."""


def is_control(event_type: str) -> bool:
    """Whether an entry of the event log is about links and no event."""
    return event_type.startswith("@")


# --- entries --------------------------------------------------------------------------------------------------------


def link_entry(
    name: str, customer: str, time_ms: int, *, source: str, request_id: str = "", only_free: bool = False
) -> tuple[str, bytes]:
    """The entry by which a name belongs to a customer; `only_free`: unless it belongs to another one."""
    told = {"to": customer, "source": source, "request": request_id, "only_free": only_free}
    return _entry(name, LINK, time_ms, told)


def unlink_entry(
    name: str,
    customer: str,
    time_ms: int,
    *,
    source: str,
    request_id: str = "",
    reason: str = "",
    link: Offset | None = None,
) -> tuple[str, bytes]:
    """The entry by which a link is taken back; with `link`, only if that entry is the one that made it."""
    told = {"to": customer, "source": source, "request": request_id, "reason": reason}
    if link is not None:
        told["link"] = str(link)
    return _entry(name, UNLINK, time_ms, told)


def entity_entry(
    customer: str, kind: EntityKind, entity_id: str, time_ms: int, *, remove: bool = False
) -> tuple[str, bytes]:
    """The entry by which a customer belongs to an entity, or no longer does."""
    return _entry(customer, ENTITY, time_ms, {"kind": kind.kind, "id": entity_id, "many": kind.many, "remove": remove})


def forget_entry(name: str, time_ms: int, *, of: str = "", kept: bool = False) -> tuple[str, bytes]:
    """The entry by which all before it is forgotten of a name.

    With `of`, the name is linked to that customer: if it belongs to somebody else by now, only what counted for him
    goes. With `kept`, it was linked to him and is no longer: only that goes, unless it is linked to him again.
    """
    return _entry(name, FORGET, time_ms, {"of": of, "kept": kept})


def _entry(name: str, control: str, time_ms: int, told: Mapping[str, Any]) -> tuple[str, bytes]:
    return name, orjson.dumps([name, 0, control, time_ms, told])


# --- one name -------------------------------------------------------------------------------------------------------


def that_count(record: bytes | None, events: Sequence[Entry]) -> Sequence[Entry]:
    """Of events, those that the fold onto a record counts: what a producer sends twice says nothing new of links."""
    try:
        return news(record, events)
    except RecordError:
        return events  # it begins anew with these


def concerns(events: Sequence[Happened], entities: Mapping[str, EntityKind]) -> bool:
    """Whether `advance` has more to do with these entries than to fold them, for a name that was never linked."""
    return any(is_control(event.type) or not entities.keys().isdisjoint(event.attributes) for event in events)


def advance(
    layout: Layout,
    fold: Fold[Entry],
    name: str,
    stored: Stored,
    events: Sequence[Entry],
    entities: Mapping[str, EntityKind],
    taken: list[Taken[Entry]] | None = None,
) -> Advanced:
    """What entries of a name's log, in order, make of what the store has of it.

    `entities` are the kinds by the attribute that names them; `taken`, where it is given, gets what was folded. Where
    the entries are cut into batches changes no byte of record, parts and links. Raises VersionError if a record is of a
    layout that is not known here; nothing of the name is to be written then.
    """
    kept, forgotten = stored, _forgotten_whole(stored, events)
    if forgotten is not None:
        # Not even read: it may be of a configuration that nobody knows any more.
        kept, events = Stored(None, None, None), [event for event in events if event.offset >= forgotten]
    turn = _Turn(layout, fold, name, kept, entities, taken)
    waiting: list[Entry] = []
    for event in events:
        if event.offset <= turn.parts.at and kept.parts is not None:
            continue  # the log repeats itself
        if not is_control(event.type):
            waiting.append(event)
            continue
        turn.take(waiting)
        waiting = []
        turn.control(event)
    turn.take(waiting)
    return turn.result(stored)


def _forgotten_whole(stored: Stored, events: Sequence[Happened]) -> Offset | None:
    """The last of these entries that forgets all of the name, whoever it belongs to; None if there is none."""
    seen = _watermark(stored)
    found = [e.offset for e in events if e.type == FORGET and not e.attributes.get("of") and e.offset > seen]
    return found[-1] if found else None


def _watermark(stored: Stored) -> Offset:
    """Last entry of the log that is in what the store has; Offset.ZERO if it has nothing."""
    for data in (stored.parts, stored.record):
        if data is not None:
            try:
                return position_of(data)  # all of these begin alike
            except LinksError:
                continue
    return Offset.ZERO


def belonging(
    entities: Sequence[EntityLink], kind: EntityKind, entity_id: str, time_ms: int
) -> list[EntityLink] | None:
    """What a name belongs to with one entity more, as far as there is room; None if that changes nothing.

    Of a kind of which there is one, the newest event says which; of two in one millisecond the larger id. Of a kind of
    which there are many, those have room that were named last. So the order of arrival does not matter.

    >>> house = EntityKind("household", False)
    >>> [link.id for link in belonging([EntityLink("household", "h1", 5, "")], house, "h2", 7) or []]
    ['h2']
    """
    same = [
        link
        for link in entities
        if link.kind == kind.kind and not link.by and (not kind.many or link.id == entity_id)
    ]
    if any((one.time_ms, one.id) >= (time_ms, entity_id) for one in same):
        return None
    link = EntityLink(kind.kind, entity_id, time_ms, "")
    following = with_room([*(one for one in entities if one not in same), link])
    return following if same or link in following else None


def with_room(entities: Sequence[EntityLink]) -> list[EntityLink]:
    """Of what a name belongs to, that for which there is room: of each kind the newest ENTITY_ENTRIES_MAX.

    Those of the name itself come before those that a linked name brought: to take a link back leaves the others.
    """
    if len(entities) <= ENTITY_ENTRIES_MAX:
        return list(entities)
    by_kind: dict[str, list[EntityLink]] = {}
    newest_first = sorted(dict.fromkeys(entities), key=lambda one: (not one.by, one.time_ms, one.id), reverse=True)
    for link in newest_first:
        by_kind.setdefault(link.kind, []).append(link)
    held = {link for links in by_kind.values() for link in links[:ENTITY_ENTRIES_MAX]}
    return [link for link in dict.fromkeys(entities) if link in held]


def with_history(
    layout: Layout,
    name: str,
    stored: Stored,
    join: Callable[[bytes | None], bytes],
    belong: Callable[[Sequence[EntityLink]], list[EntityLink]],
) -> Advanced:
    """What a linked name is with events that its log does not have.

    `join` adds them to the record of its own, `belong` what they say it belongs to. Raises what `join` raises, and
    VersionError.
    """
    turn = _Turn[Happened](layout, lambda record, _: record or b"", name, stored, {})
    turn.join(join, belong)
    return turn.result(stored)


class _Turn(Generic[Entry]):
    """One call of `advance`."""

    def __init__(
        self,
        layout: Layout,
        fold: Fold[Entry],
        name: str,
        stored: Stored,
        entities: Mapping[str, EntityKind],
        taken: list[Taken[Entry]] | None = None,
    ) -> None:
        self._layout = layout
        self._fold = fold
        self._name = name
        self._entities = entities
        self._taken = taken
        self._refused: list[tuple[bytes, str]] = []
        self._damage: list[str] = []
        self._sends: list[tuple[str, bytes]] = []
        self._forgotten: Offset | None = None
        self._seen = _watermark(stored)
        self._changed: dict[str, tuple[int, str, str]] = {}
        """Customers who must be told, with time, request and reason of what they are told."""
        self.parts, self._linked = self._open(stored)
        try:
            self._links = Links.unpack(stored.links)
        except LinksError as error:
            self._damage.append(str(error))
            self._links = Links()

    def _open(self, stored: Stored) -> tuple[Parts, bool]:
        if stored.parts is not None:
            try:
                return Parts.unpack(stored.parts), True
            except LinksError as error:
                # Whose the name is stands in the features, too. The customer keeps the part that was told, a new one
                # begins. A customer's features go on as the own record: parts that are told again are in them twice.
                self._damage.append(str(error))
        to = moved_to(stored.record)
        own: dict[str, bytes | None] = {to: None} if to else {"": stored.record}
        return Parts(Offset.ZERO, Offset.ZERO, to, own=own), bool(to) or stored.parts is not None

    # --- events of its own ------------------------------------------------------------------------------------------

    def take(self, events: Sequence[Entry]) -> None:
        """Fold events into the record of whoever they count for."""
        if not events:
            return
        parts = self.parts
        before = parts.own.get(parts.to)
        parts.own[parts.to] = after = self._fold(before, events)
        changed = after != before
        if self._entities or self._taken is not None:
            entities, counted = [], that_count(before, events)
            for event in counted:
                changed |= self._take_entities(event)
                entities.append(tuple(self._links.entities))
            if self._taken is not None:
                self._taken.append(Taken(self._name, parts.to, counted, entities))
        if changed and parts.to:
            self._changed.setdefault(parts.to, (events[-1].time_ms, "", ""))
        parts.at = max(parts.at, events[-1].offset)

    def join(
        self, join: Callable[[bytes | None], bytes], belong: Callable[[Sequence[EntityLink]], list[EntityLink]]
    ) -> None:
        """Change the record of whoever the events count for, and what the name belongs to."""
        parts = self.parts
        self._links.entities = belong(self._links.entities)
        parts.own[parts.to] = join(parts.own.get(parts.to))
        if parts.to:
            self._changed[parts.to] = (parts.since_ms, "", "")

    def _take_entities(self, event: Entry) -> bool:
        changed = False
        for attribute, kind in self._entities.items():
            given = event.attributes.get(attribute)
            if isinstance(given, str) and given:
                changed |= self._add_entity(kind, given, event.time_ms)
        return changed

    def _add_entity(self, kind: EntityKind, entity_id: str, time_ms: int) -> bool:
        """True if that changed anything."""
        following = belonging(self._links.entities, kind, entity_id, time_ms)
        if following is None:
            return False
        self._links.entities = following
        return True

    # --- links ------------------------------------------------------------------------------------------------------

    def control(self, event: Happened) -> None:
        """Carry out one entry that is no event."""
        if event.type == FORGET:
            self._forget(event)
            return
        self.parts.at = event.offset
        if not self._linked:
            self._linked, self.parts.born = True, event.offset
        steps = {LINK: self._link, UNLINK: self._unlink, PART: self._part, ENTITY: self._entity}
        told: Mapping[str, Any] = event.attributes
        try:
            steps[event.type](event, told)
        except (KeyError, ValueError, TypeError) as error:
            # Nothing of ours wrote it, or another release did.
            self._refuse(event, f"entry {event.type} cannot be read: {error!r}")
        if event.type in (LINK, UNLINK):
            self._tell_changed()  # each step by itself, or the other side's lineage would depend on the batches

    def _link(self, event: Happened, told: Mapping[str, Any]) -> None:
        parts, to, request = self.parts, told["to"], told["request"]
        if (to and parts.to == to) or self._links.knows(request, Action.LINKED_TO, Action.LINK_REFUSED):
            return
        problem = self._why_not(to, told["only_free"])
        if problem:
            self._refuse(event, f"{self._name!r} is not linked to {to!r}: {problem}")
            self._tell(event, Action.LINK_REFUSED, to, told["source"], request, problem)
            return
        if parts.to:
            self._changed[parts.to] = (event.time_ms, request, f"linked to {to}")
        parts.own[to] = self._merged([parts.own.get(to), parts.own.pop("", None)])
        parts.to, parts.link, parts.since_ms, parts.source = to, event.offset, event.time_ms, told["source"]
        self._changed[to] = (event.time_ms, request, "")
        self._tell(event, Action.LINKED_TO, to, told["source"], request, "")

    def _why_not(self, to: str, only_free: bool) -> str:
        parts = self.parts
        if not to or to == self._name:
            return "it is the same name"
        if to in parts.names():
            return "that one belongs to this one already"
        if parts.to and (only_free or parts.names()):
            return f"it belongs to {parts.to!r}, which must be taken back first"
        if to not in parts.own and len(parts.own) >= CUSTOMER_IDENTITIES_MAX:
            return f"it was linked to {len(parts.own)} customers, at most {CUSTOMER_IDENTITIES_MAX} are allowed"
        return ""

    def _unlink(self, event: Happened, told: Mapping[str, Any]) -> None:
        parts, to, request = self.parts, told["to"], told["request"]
        stale = "link" in told and (parts.to != to or Offset.parse(told["link"]) != parts.link)
        if to not in parts.own or not to or stale or self._links.knows(request, Action.UNLINKED_FROM):
            return
        back = parts.own.pop(to)
        if parts.to == to:
            parts.to, parts.link, parts.since_ms, parts.source = "", Offset.ZERO, 0, ""
        # Without the link it would have counted for whoever the name belongs to now.
        parts.own[parts.to] = self._merged([parts.own.get(parts.to), back])
        if parts.to:
            self._changed[parts.to] = (event.time_ms, "", "")
        self._changed[to] = (event.time_ms, request, told["reason"])
        self._tell(event, Action.UNLINKED_FROM, to, told["source"], request, told["reason"])

    def _part(self, event: Happened, told: Mapping[str, Any]) -> None:
        parts, name, born = self.parts, told["from"], Offset.parse(told["born"])
        at, status = Offset.parse(told["at"]), Status(told["status"])
        known = parts.others.get((name, born))
        if known is not None and at < known.at:
            return
        if status is Status.LINKED and (problem := self._why_no_part(name, told["names"])):
            reason = f"{name!r} is not linked to {self._name!r}: {problem}"
            self._refuse(event, reason)
            link = Offset.parse(told["link"])
            self._sends.append(
                unlink_entry(name, self._name, event.time_ms, source="engine", reason=problem, link=link)
            )
            return
        gone = status is Status.RELEASED
        record = None if gone or told["record"] is None else base64.b64decode(told["record"])
        names = () if gone else tuple(told["names"])
        since_ms, source = told["since"], told["source"]
        if status is Status.KEPT and known is not None:
            since_ms, source = known.since_ms, known.source  # what was told is about the link to somebody else
        parts.others[name, born] = Part(record, at, status, names, since_ms, source)
        self._forget_released()
        entities = [] if gone else [EntityLink(kind, i, entity_ms, name) for kind, i, entity_ms in told["entities"]]
        self._links.entities = with_room([*(link for link in self._links.entities if link.by != name), *entities])
        before = known.status if known is not None else None
        if status is not before and not (gone and known is None):
            action = {Status.LINKED: Action.GAINED, Status.KEPT: Action.KEPT, Status.RELEASED: Action.LOST}[status]
            self._tell(event, action, name, told["source"], told["request"], told["reason"])
        if parts.to:
            self._changed.setdefault(parts.to, (event.time_ms, "", ""))

    def _why_no_part(self, name: str, names: Sequence[str]) -> str:
        parts = self.parts
        if self._name in names or (parts.to and parts.to in names):
            return "each would belong to the other"
        linked = {other for (key, _), part in parts.others.items() if key != name for other in part.names}
        if len(linked | set(names)) > CUSTOMER_IDENTITIES_MAX:
            return f"the customer has {len(linked)} linked names, at most {CUSTOMER_IDENTITIES_MAX} are allowed"
        return ""

    def _forget_released(self) -> None:
        """What was taken back is remembered, for a late repeat of what was told before; but not without end."""
        others = self.parts.others
        released = [key for key, part in others.items() if part.status is Status.RELEASED]
        for key in released[: max(0, len(released) - CUSTOMER_IDENTITIES_MAX)]:
            del others[key]

    def _entity(self, event: Happened, told: Mapping[str, Any]) -> None:
        kind, entity_id = EntityKind(told["kind"], told["many"]), told["id"]
        if told["remove"]:
            gone = (kind.kind, entity_id, "")
            self._links.entities = [e for e in self._links.entities if (e.kind, e.id, e.by) != gone]
        else:
            self._add_entity(kind, entity_id, event.time_ms)
        if self.parts.to:
            self._changed.setdefault(self.parts.to, (event.time_ms, "", ""))

    def _forget(self, event: Happened) -> None:
        if event.offset <= max(self._seen, self.parts.at):
            return  # the log repeats itself
        of = str(event.attributes.get("of", ""))
        parts = self.parts
        if of and parts.to != of and (parts.to or event.attributes.get("kept")):
            # It is somebody else's, or nobody's, by now. What he hears of it goes with him.
            if self._linked:
                parts.at = event.offset
                parts.own.pop(of, None)
                self._links.lineage = [line for line in self._links.lineage if line.name != of]
            return
        # What still counts for former owners of a trace is theirs, and can be taken back from them as before.
        others = {name: record for name, record in parts.own.items() if of and name not in ("", of)}
        self.parts = Parts(event.offset, parts.born, own={"": None, **others})
        self._linked = bool(others)
        self._links = Links()
        self._changed.clear()
        if of and parts.to == of:
            # He is forgotten after this. Were the log read again from a link on, he would be told of it again.
            self._changed[of] = (event.time_ms, "", "forgotten")
            self._tell_changed()
        self._forgotten = event.offset

    # --- the end ----------------------------------------------------------------------------------------------------

    def result(self, stored: Stored) -> Advanced:
        """What is to be written and told."""
        parts, links = self.parts, self._links
        own, rest = parts.own.get(""), [part.record for part in parts.others.values()]
        record: bytes | None
        if parts.to:
            record = moved(parts.to, parts.at)
        elif any(part is not None for part in rest):
            # The first record lends its header: it has to be of this name's own log.
            record = self._merged([own if own is not None else self._layout.fold(None, []).record, *rest])
        else:
            record = own
        links.to = parts.to
        links.identities = _identities(parts)
        self._tell_changed()
        nothing, there = links == Links(), stored.links is not None
        packed = b"" if nothing and self._forgotten is not None else links.pack()
        return Advanced(
            record or b"",
            parts.pack() if self._linked else None,
            # Written again unchanged, it lives as long as what it tells of.
            packed if there or not nothing else None,
            self._sends,
            self._refused,
            self._damage,
            self._forgotten,
        )

    def _tell_changed(self) -> None:
        self._sends += [self._told(customer) for customer in self._changed]
        self._changed.clear()

    def _told(self, customer: str) -> tuple[str, bytes]:
        """The entry that tells a customer what this name is to it now."""
        parts = self.parts
        time_ms, request, reason = self._changed[customer]
        if customer == parts.to:
            record = self._merged([parts.own[customer], *(part.record for part in parts.others.values())])
            status = Status.LINKED
        else:
            record, status = parts.own.get(customer), Status.KEPT if customer in parts.own else Status.RELEASED
        told = {
            "from": self._name,
            "born": str(parts.born),
            "at": str(parts.at),
            "link": str(parts.link),
            "status": int(status),
            "record": None if record is None else base64.b64encode(record).decode(),
            "names": [self._name, *parts.names()],
            "entities": [(e.kind, e.id, e.time_ms) for e in self._links.entities],
            "since": parts.since_ms,
            "source": parts.source,
            "request": request,
            "reason": reason,
        }
        return _entry(customer, PART, time_ms, told)

    def _merged(self, records: Sequence[bytes | None]) -> bytes | None:
        there = [record for record in records if record is not None]
        if len(there) < 2:
            return there[0] if there else None
        try:
            return self._layout.merge(there)
        except VersionError:
            raise  # nothing is damaged: whoever knows the layout can read it
        except RecordError as error:
            self._damage.append(f"of {len(there)} records to be merged only the first counts: {error}")
            return there[0]

    def _tell(self, event: Happened, action: Action, other: str, source: str, request: str, reason: str) -> None:
        self._links.tell(Lineage(event.time_ms, action, other, source, request, event.offset, reason))

    def _refuse(self, event: Happened, reason: str) -> None:
        self._refused.append((orjson.dumps([self._name, 0, event.type, event.time_ms, event.attributes]), reason))


def _identities(parts: Parts) -> list[Linked]:
    """Names that are or were linked and count; each once, its newest part."""
    found: dict[str, Linked] = {}
    for (name, _), part in parts.others.items():
        if part.status is Status.RELEASED:
            continue
        for other in part.names:
            via = "" if other == name else name
            found[other] = Linked(other, part.since_ms, part.source, via, part.status)
    return list(found.values())
