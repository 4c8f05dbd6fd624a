"""What a caller sees of a customer's past: events, decisions and their outcomes as one list in the order of time. Pure.

    timeline (events)  ──► items ──┐
    ledger + records   ──► items ──┴──► filter ──► newest first ──► a page

Events are kept by engine.timeline as they came; how they read is settled here, by the configuration of today. Decisions
and outcomes are kept nowhere twice: they are those of the ledger, with the channel that the decision's record has.

Bounded by what it is made from: TIMELINE_ENTRIES_MAX events, LEDGER_DECISIONS_MAX decisions of SLATE_MAX offers.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Final

from engine.cases import Case, cases_of, closed_by
from engine.config_schema import PLACEHOLDER, OnTimeline
from engine.ledger import Ledger, OfferEntry, hash_of
from engine.lifecycle import OPEN, Stage
from engine.record import decision_id
from engine.timeline import ID_BITS, Entry, Kind, Scalar, Timeline, short_id, text_of

_DECISION_ID: Final = 1 << ID_BITS
_OUTCOME_ID: Final = 2 << ID_BITS
"""Beyond the ids of events: within a millisecond decisions come after events, and outcomes after decisions."""
_UNMARKED: Final = OnTimeline()
"""How an event reads whose type was on the timeline once and is no longer."""
_KINDS: Final = {kind.name.lower(): kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of the list. What does not belong to its kind is empty."""

    time_ms: int
    id: int
    """With the time, its place in the list; distinct within the customer."""
    kind: Kind
    channel: str = ""
    placement: str = ""
    text: str = ""
    type: str = ""
    attributes: Mapping[str, Scalar] = field(default_factory=dict)
    author: str = ""
    case_id: str = ""
    duplicate: bool = False
    """Another complaint of a case that had begun before."""
    decision_id: str = ""
    offer_ids: tuple[str, ...] = ()
    stage: Stage | None = None

    @property
    def place(self) -> tuple[int, int]:
        """Where it stands in time."""
        return self.time_ms, self.id


def of_events(timeline: Timeline, settings: Mapping[str, OnTimeline]) -> tuple[list[Item], list[Case]]:
    """Items of the events, oldest first, and the complaint cases among them; `settings` by type of event."""
    channels = {entry.id: _filled(_of(entry, settings).channel, entry.attributes) for entry in timeline.entries}
    complaints = [
        (entry, _of(entry, settings), channels[entry.id])
        for entry in timeline.entries
        if _of(entry, settings).kind == "complaint"
    ]
    cases, case_of = cases_of(complaints)
    return [_item(entry, _of(entry, settings), channels[entry.id], case_of) for entry in timeline.entries], cases


def of_decisions(
    ledger: Ledger,
    partition: int,
    places: Mapping[str, tuple[str, str]],
    offer_name: Callable[[int], str],
    now_ms: int,
) -> list[Item]:
    """Items of the decisions that the ledger remembers and of what became of their offers.

    `places` has (channel, placement) by decision id, of those whose record is still there; `offer_name` the offer's id
    by its key. An offer whose window has passed unanswered is shown as expired.
    """
    items: list[Item] = []
    for entry in ledger.decisions:
        name = decision_id(partition, entry.position)
        channel, placement = places.get(name, ("", ""))
        offers = tuple(offer_name(offer.key) for offer in entry.offers)
        items.append(
            Item(
                entry.time_ms,
                _DECISION_ID | short_id(hash_of(name)),
                Kind.DECISION,
                channel,
                placement,
                f"offered {', '.join(offers)}" if offers else "nothing offered",
                decision_id=name,
                offer_ids=offers,
            )
        )
        for offer, offer_id in zip(entry.offers, offers, strict=True):
            if (outcome := _outcome(offer, now_ms)) is not None:
                stage, time_ms = outcome
                items.append(
                    Item(
                        time_ms,
                        _OUTCOME_ID | short_id(hash_of(f"{name} {offer.rank}")),
                        Kind.OUTCOME,
                        channel,
                        placement,
                        f"{offer_id}: {stage.name.lower().replace('_', ' ')}",
                        decision_id=name,
                        offer_ids=(offer_id,),
                        stage=stage,
                    )
                )
    return items


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which part of the list a caller wants."""

    kinds: frozenset[Kind] = frozenset()
    """Empty: all."""
    channels: frozenset[str] = frozenset()
    """Empty: all."""
    since_ms: int = 0
    until_ms: int = 0
    """Exclusive; 0: no end."""
    count: int = 1
    """At most so many."""
    before: tuple[int, int] | None = None
    """Only what stands before this place: the last one of the page before."""


def page(items: Iterable[Item], wanted: Wanted) -> tuple[list[Item], tuple[int, int] | None]:
    """(the newest of what is wanted, newest first; the place of the last of them if there is more)."""
    found = sorted((item for item in items if _fits(item, wanted)), key=attrgetter("place"), reverse=True)
    shown = found[: wanted.count]
    return shown, shown[-1].place if len(found) > len(shown) else None


def _fits(item: Item, wanted: Wanted) -> bool:
    return (
        (not wanted.kinds or item.kind in wanted.kinds)
        and (not wanted.channels or item.channel in wanted.channels)
        and wanted.since_ms <= item.time_ms
        and (not wanted.until_ms or item.time_ms < wanted.until_ms)
        and (wanted.before is None or item.place < wanted.before)
    )


def _of(entry: Entry, settings: Mapping[str, OnTimeline]) -> OnTimeline:
    return settings.get(entry.type, _UNMARKED)


def _item(entry: Entry, settings: OnTimeline, channel: str, case_of: Mapping[int, Case]) -> Item:
    case = case_of.get(entry.id)
    attributes = entry.attributes
    if settings.text:
        text = _filled(settings.text, attributes)
    else:
        told = ", ".join(f"{name} {text_of(value)}" for name, value in attributes.items())
        text = f"{entry.type}: {told}" if told else entry.type
    return Item(
        entry.time_ms,
        entry.id,
        _KINDS[settings.kind],
        channel,
        text=text,
        type=entry.type,
        attributes=attributes,
        author=text_of(attributes.get(settings.author or "", "")),
        case_id=case.id if case is not None else "",
        duplicate=case is not None and case.entry_id != entry.id and not closed_by(attributes, settings),
    )


def _outcome(offer: OfferEntry, now_ms: int) -> tuple[Stage, int] | None:
    """(stage, time) of what became of an offer; None while nothing did."""
    if offer.stage in OPEN and offer.window_end_ms <= now_ms:
        return Stage.EXPIRED, offer.window_end_ms
    return None if offer.stage is Stage.SERVED else (offer.stage, offer.changed_ms)


def _filled(text: str, attributes: Mapping[str, Scalar]) -> str:
    """A text with its attributes; one that is missing leaves nothing behind."""
    return PLACEHOLDER.sub(lambda found: text_of(attributes.get(found[1], "")), text)
