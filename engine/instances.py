"""Offer instances, found from any channel: what goes with open ones, going on with one, reports that name none.

An instance is an offer of one decision (engine.lifecycle). What was said of it stands in the record of that decision,
so it is read from there, in one round trip for a batch, and only for customers who have an offer with parameters open.

Of an offer whose price is held a customer has one, however often it was shown: once one of its instances is answered
the others are closed (`answered_beside`), so that no channel can close it twice.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from engine import ledger
from engine.catalogue import Catalogue
from engine.config_schema import Channel, key_of
from engine.drafts import Ask, State
from engine.errors import ConfigError, NotAllowed, NotFound, OpportuneError, Unavailable
from engine.found import NOTHING_FOUND, Begun, Found, Resume, Resumed
from engine.gateway import shown
from engine.ledger import DecisionEntry, Glance, Ledger, LedgerError, OfferEntry
from engine.lifecycle import OPEN, Stage, may_follow
from engine.links import moved_to
from engine.parameters import NO_QUOTE, Quote, unpack
from engine.record import DecisionRecord, RecordError, decision_id, parse_decision_id
from engine.store.base import Store, partition_of
from features import Offset

Place = tuple[int, Offset]
"""(partition, position) of a decision."""
ChannelsOf = Callable[[str], Awaitable[Sequence[Channel]]]
_ANSWERED: Final = frozenset({Stage.ACCEPTED, Stage.DECLINED})
"""Later stages have another time: by then the instances beside have been withdrawn."""
ENDS: Final = frozenset({Stage.ACCEPTED, Stage.DECLINED, Stage.WITHDRAWN})
"""Reports that end an instance: with it, the others of the same offer are closed."""


def quotes_in(record: DecisionRecord) -> dict[str, Quote]:
    """The quotes of a decision by offer id."""
    return {} if record.basis is None else unpack(record.basis.parameters)


def began_in(record: DecisionRecord) -> tuple[str, Quote] | None:
    """(offer id, quote) of a decision that resumed an offer; None for any other."""
    return next(iter(quotes_in(record).items()), None) if record.resumed else None


class Instances:
    """Reads instances from a store."""

    def __init__(self, store: Store, channels_of: ChannelsOf) -> None:
        """`channels_of` gives the channels of a configuration by its version."""
        self._store = store
        self._channels_of = channels_of

    # --- before a decision ------------------------------------------------------------------------------------------

    async def of(
        self, catalogue: Catalogue, asks: Sequence[Ask], states: Sequence[State]
    ) -> Sequence[Found | OpportuneError]:
        """What a batch needs to know of its customers' open offers; () if that is nothing.

        An error is for the one whose offer cannot be resumed. Raises StoreError.
        """
        quoting = catalogue.quoting
        watched = {catalogue.offer_keys[at] for at in (quoting.with_parameters if quoting is not None else ())}
        if not watched and all(ask.resume is None for ask in asks):
            return ()
        partitions = self._store.partitions
        glances: list[Glance] = []
        for ask, (_, data) in zip(asks, states, strict=True):
            try:
                glances.append(ledger.glance(data, ask.request_hash, ask.time_ms))
            except LedgerError:
                glances.append(Glance(0, None, ()))  # told by the decision
        wanted: dict[Place, None] = {}
        for ask, seen, (_, data) in zip(asks, glances, states, strict=True):
            home = partition_of(ask.customer, partitions)
            places = {(home, position): None for position, key, *_ in seen.open_offers if key in watched}
            if ask.resume is not None and seen.repeated is None:
                places[ask.resume.partition, ask.resume.position] = None
            if places:
                wanted |= places | _without_offers(data, home)
        if not wanted:
            return ()
        records = await self._records(list(wanted))
        found: list[Found | OpportuneError] = []
        for ask, seen, (_, data) in zip(asks, glances, states, strict=True):
            begun = await self._begun(catalogue, ask, seen, records)
            resumed = None
            try:
                if ask.resume is not None and seen.repeated is None:
                    resumed = await self._resumed(catalogue, ask, ask.resume, data, records)
            except OpportuneError as error:
                found.append(error)
                continue
            home = partition_of(ask.customer, partitions)
            found.append(Found(begun, _held(catalogue, ask.time_ms, seen, begun, home), resumed))
        return found

    async def begun(self, catalogue: Catalogue, ask: Ask, seen: Glance) -> Mapping[tuple[Offset, int], Begun]:
        """What is known of the open offers that were seen of a customer. Raises StoreError."""
        if catalogue.quoting is None:
            return NOTHING_FOUND.begun
        watched = {catalogue.offer_keys[at] for at in catalogue.quoting.with_parameters}
        home = partition_of(ask.customer, self._store.partitions)
        wanted = dict.fromkeys((home, position) for position, key, *_ in seen.open_offers if key in watched)
        if not wanted:
            return NOTHING_FOUND.begun
        [(_, data)] = await self._store.read([ask.customer])
        return await self._begun(catalogue, ask, seen, await self._records(list(wanted | _without_offers(data, home))))

    async def _records(self, places: Sequence[Place]) -> dict[Place, DecisionRecord]:
        """The records that are still there and can be read."""
        found = {}
        for place, data in zip(places, await self._store.entries(list(places)), strict=True):
            with suppress(RecordError):
                if data is not None:
                    found[place] = DecisionRecord.unpack(data)
        return found

    async def _begun(
        self, catalogue: Catalogue, ask: Ask, seen: Glance, records: Mapping[Place, DecisionRecord]
    ) -> Mapping[tuple[Offset, int], Begun]:
        home = partition_of(ask.customer, self._store.partitions)
        begun: dict[tuple[Offset, int], Begun] = {}
        renewed = _renewed(ask.customer, records)
        for position, key, *_ in seen.open_offers:
            record, at = records.get((home, position)), catalogue.index_of_key.get(key)
            if record is None or at is None or record.customer != ask.customer:
                continue
            offer_id = catalogue.offer_ids[at]
            quote = renewed.get((decision_id(home, position), offer_id)) or quotes_in(record).get(offer_id)
            if quote is not None:
                begun[position, key] = Begun(quote, await self._channel(catalogue, record), record.context)
        return begun

    async def _channel(self, catalogue: Catalogue, record: DecisionRecord) -> str:
        if record.config_version == catalogue.version:
            return catalogue.config.channels[record.channel].id
        with suppress(ConfigError, OpportuneError):
            channels = await self._channels_of(record.config_version)
            return channels[record.channel].id if record.channel < len(channels) else ""
        return ""

    async def _resumed(
        self,
        catalogue: Catalogue,
        ask: Ask,
        resume: Resume,
        ledger_bytes: bytes | None,
        records: Mapping[Place, DecisionRecord],
    ) -> Resumed:
        """The open offer that a caller goes on with. Raises NotFound, NotAllowed."""
        where, named = "resume", resume.decision_id
        place, offer_id = (resume.partition, resume.position), resume.offer_id
        record = records.get(place)
        unknown = f"{where}: customer {shown(ask.customer)} has no decision {shown(named)}, or its record was retired"
        if record is not None and (before := began_in(record)) is not None:
            # One that resumed it: the same person's, so that what follows is told of the one that began it.
            began = parse_decision_id(before[1].began, self._store.partitions)
            offer_id = offer_id or before[0]
            if began is not None:
                place, named = began, before[1].began
                record = (await self._records([place])).get(place)
        if record is None:
            raise NotFound(unknown)
        if record.customer != ask.customer:
            [(features, ledger_bytes)] = await self._store.read([record.customer])
            if moved_to(features) != ask.customer:
                raise NotFound(unknown)
        there = [catalogue.offer_name(choice.key) for choice in record.slate]
        if not offer_id and len(there) == 1:
            offer_id = there[0]
        if offer_id not in there or (at := catalogue.index_of_key.get(key_of(offer_id))) is None:
            told = f"had {', '.join(there) or 'no offers'}"
            raise NotFound(f"{where}.offer_id: {shown(offer_id)}, expected one of decision {named}, which {told}")
        if not catalogue.treatments.made[ask.channel][ask.placement][at]:
            channel = catalogue.config.channels[ask.channel].id
            raise NotAllowed(f"{where}: offer {offer_id} is not made in this place of channel {channel}")
        try:
            book = Ledger.unpack(ledger_bytes)
        except LedgerError as error:
            raise Unavailable(f"the customer's ledger cannot be read: {error}") from error
        entry = book.find(place[1])
        rank = there.index(offer_id)
        if entry is None or rank >= len(entry.offers):
            raise NotAllowed(f"{where}: decision {named} is no longer among the last ones of the customer")
        offer = entry.offers[rank]
        if refusal := closed(book, entry, offer, ask.time_ms, catalogue, place[0]):
            raise NotAllowed(f"{where}: offer {offer_id} of decision {named}: {refusal}")
        first = decision_id(*place)
        quote = _renewed(ask.customer, records).get((first, offer_id)) or quotes_in(record).get(offer_id, NO_QUOTE)
        return Resumed(at, quote, first, offer.window_end_ms, record.policy_version)

    # --- reports ----------------------------------------------------------------------------------------------------

    async def addressed(
        self, catalogue: Catalogue, names: Sequence[str], offer_id: str, stage: int, outcome_hash: int, time_ms: int
    ) -> str:
        """The decision whose instance of an offer a report is about, by the names of the customer.

        Raises NotFound if there is none, NotAllowed if it is closed or there are several; StoreError.
        """
        key = key_of(offer_id)
        found: list[tuple[DecisionEntry, OfferEntry, Ledger, int]] = []
        for name, (_, data) in zip(names, await self._store.read(list(names)), strict=True):
            try:
                book = Ledger.unpack(data)
            except LedgerError as error:
                raise Unavailable(f"the ledger of {shown(name)} cannot be read: {error}") from error
            home = partition_of(name, self._store.partitions)
            found += [(entry, offer, book, home) for entry in book.decisions for offer in entry.offers]
        same = [one for one in found if one[1].key == key]
        for entry, offer, _, home in same:
            if any((tag ^ outcome_hash) >> 4 == 0 for tag in offer.outcomes):
                return decision_id(home, entry.position)  # sent again
        fits = [
            (entry, home)
            for entry, offer, book, home in same
            if not closed(book, entry, offer, time_ms, catalogue, home)
            or (offer.stage in (Stage.ACCEPTED, Stage.FULFILLED) and may_follow(offer.stage, Stage(stage)))
        ]
        at = catalogue.index_of_key.get(key)
        one = at is not None and catalogue.quoting is not None and at in catalogue.quoting.held
        if len(fits) == 1 or (fits and one):
            entry, home = fits[-1]
            return decision_id(home, entry.position)
        still = [
            f"{catalogue.offer_name(offer.key)} of decision {decision_id(home, entry.position)}"
            for entry, offer, _, home in found
            if offer.open_at(time_ms)
        ]
        told = f"open are {', '.join(still)}" if still else "nothing is open"
        who = f"customer {shown(names[0])}"
        if fits:
            raise NotAllowed(f"offer_id: {who} has {len(fits)} of {shown(offer_id)}, name one by decision_id; {told}")
        if same:
            entry, offer, book, home = same[-1]
            refusal = closed(book, entry, offer, time_ms, catalogue, home) or f"it is {offer.stage.name}"
            named = decision_id(home, entry.position)
            raise NotAllowed(f"stage: offer {offer_id} of decision {named}: {refusal}; {told}")
        raise NotFound(f"offer_id: {who} has no offer {shown(offer_id)}; {told}")


def _without_offers(ledger_bytes: bytes | None, home: int) -> dict[Place, None]:
    """The decisions of a ledger that have no offers: among them are those that resumed one."""
    with suppress(LedgerError):
        return {(home, entry.position): None for entry in Ledger.unpack(ledger_bytes).decisions if not entry.offers}
    return {}  # told by the decision


def _renewed(customer: str, records: Mapping[Place, DecisionRecord]) -> dict[tuple[str, str], Quote]:
    """By decision and offer: the parameters that were promised last, where that was when it was resumed."""
    found: dict[tuple[str, str], Quote] = {}
    for record in records.values():
        told = began_in(record) if record.customer == customer else None
        if told is not None and told[1].held_until_ms:
            offer_id, quote = told
            known = found.get((quote.began, offer_id))
            if known is None or quote.held_until_ms > known.held_until_ms:
                found[quote.began, offer_id] = quote._replace(began="", expires_ms=0)
    return found


def _held(
    catalogue: Catalogue, now_ms: int, seen: Glance, begun: Mapping[tuple[Offset, int], Begun], home: int
) -> Mapping[int, Quote]:
    """By offer: the quote whose parameters are held now, of the newest instance."""
    quoting = catalogue.quoting
    held: dict[int, Quote] = {}
    for position, key, *_ in seen.open_offers:
        found = begun.get((position, key))
        at = catalogue.index_of_key.get(key)
        if found is None or at is None or quoting is None or not found.quote.held_at(now_ms):
            continue
        held[at] = found.quote._replace(began=found.quote.began or decision_id(home, position))
    return held


def closed(
    book: Ledger, entry: DecisionEntry, offer: OfferEntry, now_ms: int, catalogue: Catalogue, partition: int
) -> str:
    """Why an instance cannot be gone on with, in words; "" while it is open."""
    if offer.stage not in OPEN:
        return f"it is {offer.stage.name} since {offer.changed_ms}"
    if now_ms >= offer.window_end_ms:
        return f"it is EXPIRED since {offer.window_end_ms}"
    beside = answered_beside(book, entry, offer, catalogue)
    if beside is not None:
        position, stage = beside
        return f"it is closed: the offer is {stage.name} by decision {decision_id(partition, position)}"
    return ""


def answered_beside(
    book: Ledger, entry: DecisionEntry, offer: OfferEntry, catalogue: Catalogue
) -> tuple[Offset, Stage] | None:
    """(decision, stage) of another instance that was answered while this one was open, if the offer's price is held."""
    at, quoting = catalogue.index_of_key.get(offer.key), catalogue.quoting
    if quoting is None or at not in quoting.held:
        return None
    for other, instance in _beside(book, entry, offer):
        if instance.stage in _ANSWERED and instance.changed_ms >= entry.time_ms:
            return other.position, instance.stage
    return None


def open_beside(book: Ledger, entry: DecisionEntry, offer: OfferEntry, now_ms: int) -> list[tuple[Offset, int]]:
    """(decision, rank) of the other instances of an offer that are open."""
    return [(other.position, one.rank) for other, one in _beside(book, entry, offer) if one.open_at(now_ms)]


def _beside(book: Ledger, entry: DecisionEntry, offer: OfferEntry) -> list[tuple[DecisionEntry, OfferEntry]]:
    return [
        (other, one)
        for other in book.decisions
        for one in other.offers
        if one.key == offer.key and other.position != entry.position
    ]
