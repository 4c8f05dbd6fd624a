"""The answer to a durable decision, written straight to the wire.

As protobuf messages an answer of three offers takes 9 µs to fill and serialise, as bytes 4 µs: what does not change
from call to call (ids, kinds, treatments, reasons) is serialised once a catalogue, and the rest are a few fields of
fixed width. Serialised fields may simply be joined: https://protobuf.dev/programming-guides/encoding/

Where nothing in them was put into words for one customer, the answers of a batch are written together in compiled code
(engine.packing), 1 µs each; the others one by one. Both give the same bytes.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from struct import Struct
from typing import Final, NamedTuple, Self

import numpy as np
import orjson

from engine.answers_quotes import fill_quote, resumed_offer, said
from engine.catalogue import Catalogue
from engine.config_schema import Offer
from engine.drafts import Ask, Draft, Pick
from engine.explain.languages import words_for
from engine.found import NOTHING_FOUND, Begun
from engine.holds import CONTROL_GROUP, HELD_BACK, NOT_ELIGIBLE
from engine.ladder import Rung
from engine.ledgers import OPEN_STAGES
from engine.packing import PHRASES, Ints, Octets, cut, joined, pack_answers
from engine.parameters import Quote
from engine.record import decision_id
from features import Offset
from opportune.v1 import decisions_pb2

# Tags are (field number << 3) | wire type: 0 varint, 1 eight bytes, 2 a length and so many bytes.
_OFFER_NUMBERS: Final = Struct("<BBBdBdBdBq")
"""RankedOffer: rank 2, propensity 6, score 7, acceptance_probability 8, expires_ms 12."""
_RESERVED: Final = Struct("<Hq")
"""RankedOffer: reserved_until_ms 20."""
_ANSWER_NUMBERS: Final = Struct("<BQBqBB")
"""DecideResponse: policy_version 7, time_ms 9, degraded 5."""
_STATE_NUMBERS: Final = Struct("<BBBqBq")
"""StateFreshness: known 1, latest_event_ms 3, age_ms 4."""
_OPEN_NUMBERS: Final = Struct("<BBBqBq")
"""OpenOffer: stage 3, served_ms 4, expires_ms 5."""
_OPEN_OFFER: Final = b"\x5a"
_REASONS: Final = b"\x5a"
_WEIGHT: Final = Struct("<Bd")
"""Reason: weight 3."""
_DECISION_ID: Final = 0x0A
_OFFER: Final = b"\x12"
_STATE: Final = 0x22
_CUSTOMER_ID: Final = b"\x32"
_WATERMARK: Final = 0x12
_PREVIEW: Final = b"\x60\x01"
_WHY_NOTHING: Final = {code: -1 - at for at, code in enumerate(("silence", NOT_ELIGIBLE, HELD_BACK, CONTROL_GROUP))}
"""Why there is nothing in an answer, as compiled code has it."""


def reason(code: str, language: str) -> decisions_pb2.Reason:
    """A reason with its sentence."""
    return decisions_pb2.Reason(code=code, text=words_for(language)[1].in_answers[code])


class _Said(NamedTuple):
    """What answers in one language say in the same words, serialised."""

    reasons: Sequence[bytes]
    """By explored + 2 × cold."""
    rungs: Sequence[bytes]
    """But for their weights, which follow."""
    nothing: Mapping[str, bytes]
    """By code."""

    @classmethod
    def of(cls, language: str) -> Self:
        codes = (["best"], ["explored"], ["best", "cold_start"], ["explored", "cold_start"])
        every = [decisions_pb2.RankedOffer(reasons=[reason(code, language) for code in some]) for some in codes]
        nothing = {
            code: decisions_pb2.DecideResponse(nothing_reason=reason(code, language)).SerializeToString()
            for code in _WHY_NOTHING
        }
        rungs = [_reason_begun(rung.code, language) for rung in Rung]
        return cls([one.SerializeToString() for one in every], rungs, nothing)

    @property
    def words(self) -> list[bytes]:
        """All, in the order in which compiled code has them."""
        return [*self.reasons, *self.rungs, *self.nothing.values()]


class AnswerWriter:
    """Writes the answers of one catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._offers: Mapping[tuple[int, int, str], Sequence[bytes]] = _prepared(catalogue)
        self._offer_names: Final = {
            key: decisions_pb2.OpenOffer(offer_id=offer).SerializeToString()
            for key, offer in zip(catalogue.offer_keys, catalogue.offer_ids, strict=True)
        }
        self._said: Final = {language: _Said.of(language) for language in sorted(catalogue.languages)}
        self._version = decisions_pb2.DecideResponse(config_version=catalogue.version).SerializeToString()
        distinct = {id(row): row for row in self._offers.values()}
        numbers = {row: at for at, row in enumerate(distinct)}
        self._place_at: Final = {place: numbers[id(row)] for place, row in self._offers.items()}
        self._words_at: Final = {language: 1 + PHRASES * at for at, language in enumerate(self._said)}
        self._tables: Final = _tables(
            list(distinct.values()),
            [self._version, *[word for said in self._said.values() for word in said.words]],
            self._offer_names,
        )

    def write_all(self, drafts: Sequence[Draft], positions: Sequence[Offset], partitions: Sequence[int]) -> list[bytes]:
        """Serialised DecideResponses of durable decisions."""
        written = [b""] * len(drafts)
        plain: dict[int, list[int]] = {}
        for at, draft in enumerate(drafts):
            if _is_plain(draft):
                plain.setdefault(id(draft.batch), []).append(at)
            else:
                written[at] = self.write(draft, partitions[at], positions[at])
        for places in plain.values():
            some = [drafts[at] for at in places]
            answers = self._plain(some, [positions[at] for at in places], [partitions[at] for at in places])
            for at, draft, answer in zip(places, some, answers, strict=True):
                written[at] = answer + draft.arms if draft.arms else answer
        return written

    def _plain(self, drafts: Sequence[Draft], positions: Sequence[Offset], partitions: Sequence[int]) -> list[bytes]:
        """Answers of one batch, all but the arms."""
        batch, tables = drafts[0].batch, self._tables
        ledgers, places = batch.ledgers, batch.places
        asks = [draft.ask for draft in drafts]
        offers_of = [
            _WHY_NOTHING[draft.nothing] if draft.nothing else self._place_at[ask.channel, ask.placement, ask.language]
            for draft, ask in zip(drafts, asks, strict=True)
        ]
        data, ends = pack_answers(
            np.fromiter((draft.row for draft in drafts), np.int64, len(drafts)),
            np.fromiter(chain.from_iterable(positions), np.int64, 2 * len(drafts)).reshape(-1, 2),
            np.array(partitions, np.int64),
            np.array(offers_of, np.int64),
            np.array([self._words_at[ask.language] for ask in asks], np.int64),
            *joined([ask.customer.encode() for ask in asks]),
            batch.policy_version,
            batch.times_ms,
            batch.states,
            batch.known,
            batch.degraded,
            places.counts,
            batch.picks,
            batch.propensities,
            batch.figures,
            batch.explored,
            places.cold,
            places.window_ends_ms,
            places.rungs,
            places.evidence,
            ledgers.octets,
            ledgers.ends,
            OPEN_STAGES,
            tables.constants,
            tables.offer_starts,
            self._catalogue.budgets.reserved_ms,
            tables.keys,
            1 + PHRASES * len(self._said),
            tables.fixed,
            tables.fixed_ends,
        )
        return cut(data, ends)

    def write(self, draft: Draft, partition: int, position: Offset, *, reserved: bool = True) -> bytes:
        """A serialised DecideResponse; `reserved` says whether units were taken for it."""
        ask, batch, row = draft.ask, draft.batch, draft.row
        named = decision_id(partition, position).encode()
        customer = ask.customer.encode()
        parts = [
            bytes((_DECISION_ID, len(named))),
            named,
            _CUSTOMER_ID,
            _length(len(customer)),
            customer,
            self._version,
            _ANSWER_NUMBERS.pack(0x39, batch.policy_version, 0x49, ask.time_ms, 0x28, draft.degraded),
        ]
        if draft.resumed:
            parts.append(self._resumed(draft))
        elif picks := draft.picks:
            constants, quotes = self._offers[ask.channel, ask.placement, ask.language], draft.quotes
            said = self._said[ask.language]
            for rank, pick in enumerate(picks, 1):
                fixed, reasons = constants[pick.offer], said.reasons[pick.explored + 2 * pick.cold]
                numbers = _OFFER_NUMBERS.pack(
                    0x10, rank, 0x31, pick.propensity, 0x39, pick.score, 0x41, pick.shown, 0x61, pick.window_end_ms
                )
                if reserved and (kept_ms := int(self._catalogue.budgets.reserved_ms[pick.offer])):
                    numbers += _RESERVED.pack(0x01A1, ask.time_ms + kept_ms)
                # Of what has no window nothing is estimated (engine.silent).
                rung = said.rungs[pick.rung] + _WEIGHT.pack(0x19, pick.evidence) if pick.window_end_ms else b""
                if quotes and (quote := quotes[rank - 1]) is not None:
                    fixed += self._personal(ask, pick, quote)
                size = len(fixed) + len(numbers) + len(reasons) + len(rung)
                parts += (_OFFER, _length(size), fixed, numbers, reasons, rung)
        else:
            parts.append(self._said[ask.language].nothing[draft.nothing])
        if draft.known:
            ms, seq, latest_ms = batch.states[row].tolist()
            parts.append(_state(Offset(ms, seq), latest_ms, ask.time_ms))
        seen = draft.seen
        if seen.open_offers:
            parts += self.open_offers(partition, seen.open_offers, ask, draft.begun)
        for elsewhere, open_offers in seen.linked:
            parts += self.open_offers(elsewhere, open_offers, ask)
        parts.append(draft.arms)
        return b"".join(parts)

    def preview(self, draft: Draft, partition: int) -> bytes:
        """A serialised DecideResponse of what was only looked at: without a decision id."""
        named = decision_id(partition, Offset.ZERO).encode()
        return self.write(draft, partition, Offset.ZERO, reserved=False)[2 + len(named) :] + _PREVIEW

    def _personal(self, ask: Ask, pick: Pick, quote: Quote) -> bytes:
        """What of a RankedOffer depends on who asks."""
        message = decisions_pb2.RankedOffer()
        place = ask.channel, ask.placement, ask.language
        if self._catalogue.treatments.fixed(*place, pick.offer) is None:
            message.treatment = said(self._catalogue, place, pick.offer, quote, ask.context, pick.window_end_ms)
        fill_quote(message, quote)
        return message.SerializeToString()

    def _resumed(self, draft: Draft) -> bytes:
        """The offers of an answer in which an open offer was resumed."""
        [pick], [quote], ask = draft.picks, draft.quotes, draft.ask
        assert quote is not None
        offer = resumed_offer(
            self._catalogue, (ask.channel, ask.placement, ask.language), pick.offer, quote, ask.context
        )
        offer.reasons.append(reason("resumed", ask.language))
        return decisions_pb2.DecideResponse(offers=[offer]).SerializeToString()

    def open_offers(
        self,
        partition: int,
        seen: Sequence[tuple[Offset, int, int, int, int]],
        ask: Ask,
        begun: Mapping[tuple[Offset, int], Begun] = NOTHING_FOUND.begun,
    ) -> list[bytes]:
        """The open_offers of a DecideResponse, newest first, of a Glance's, with what is known of those `begun`."""
        parts: list[bytes] = []
        at, name = None, b""
        for position, key, stage, served_ms, expires_ms in reversed(seen):
            if position != at:
                at, text = position, decision_id(partition, position).encode()
                name = bytes((_DECISION_ID, len(text))) + text
            offer = self._offer_names.get(key)
            if offer is None:
                continue  # no longer in the catalogue
            numbers = _OPEN_NUMBERS.pack(0x18, stage, 0x21, served_ms, 0x29, expires_ms)
            found = begun.get((position, key)) if begun else None
            if found is not None:
                offer += self._as_begun(key, found, ask, expires_ms)
            parts += (_OPEN_OFFER, _length(len(name) + len(offer) + len(numbers)), name, offer, numbers)
        return parts

    def _as_begun(self, key: int, found: Begun, ask: Ask, expires_ms: int) -> bytes:
        """What the record of an open offer adds to it; the facts of this call go before those of that one."""
        message = decisions_pb2.OpenOffer(channel=found.channel)
        at = self._catalogue.index_of_key[key]
        place = ask.channel, ask.placement, ask.language
        if self._catalogue.treatments.made[ask.channel][ask.placement][at]:
            context = orjson.dumps(orjson.loads(found.context or b"{}") | orjson.loads(ask.context or b"{}"))
            message.treatment = said(self._catalogue, place, at, found.quote, context, expires_ms)
        fill_quote(message, found.quote)
        return message.SerializeToString()


def _is_plain(draft: Draft) -> bool:
    """Whether nothing in the answer was put into words for this customer."""
    if draft.resumed or draft.begun or draft.batch.ledgers.begun_elsewhere(draft.row):
        return False
    return not draft.quotes or all(quote is None for quote in draft.quotes)


class _Tables(NamedTuple):
    """What is the same in all answers, as compiled code takes it: see engine.packing.pack_answers."""

    constants: Octets
    offer_starts: Ints
    """(places, offers + 1)"""
    keys: Ints
    fixed: Octets
    fixed_ends: Ints


def _tables(rows: Sequence[Sequence[bytes]], words: Sequence[bytes], names: Mapping[int, bytes]) -> _Tables:
    constants, ends = joined([part for row in rows for part in row], columns=len(names))
    starts = np.concatenate([[0], ends.ravel()])
    keys = sorted(names)
    fixed, fixed_ends = joined([*words, *[names[key] for key in keys]])
    return _Tables(
        constants,
        starts[np.arange(len(rows))[:, None] * len(names) + np.arange(len(names) + 1)],
        np.array(keys, np.int64),
        fixed,
        np.concatenate([[0], fixed_ends]),
    )


def _prepared(catalogue: Catalogue) -> dict[tuple[int, int, str], list[bytes]]:
    """What is the same of every RankedOffer of a place, by place; places that do not differ share it.

    A treatment with tokens is left out: it is written for each answer.
    """
    shared: dict[int, list[bytes]] = {}
    found = {}
    for place in catalogue.treatments.places():
        row = catalogue.treatments.rows(*place)
        if id(row) not in shared:
            texts = [catalogue.treatments.fixed(*place, at) or "" for at in range(len(row))]
            shared[id(row)] = [_offer_constants(catalogue, at, text) for at, text in enumerate(texts)]
        found[place] = shared[id(row)]
    return found


def _offer_constants(catalogue: Catalogue, at: int, treatment: str) -> bytes:
    offer = catalogue.offers[at]
    return decisions_pb2.RankedOffer(
        offer_id=offer.id,
        kind=catalogue.kinds[at],  # type: ignore[arg-type]
        category=offer.category,
        treatment=treatment,
        value=offer.value,
        contact_cost=offer.contact_cost,
        asks=asked(offer),
        bundles=offer.bundle.offers if offer.bundle is not None else (),
    ).SerializeToString()


def asked(offer: Offer) -> decisions_pb2.AskedFact | None:
    """What a question asks for."""
    return None if offer.asks is None else decisions_pb2.AskedFact(fact=offer.asks.fact, answers=[*offer.asks.answers])


def _reason_begun(code: str, language: str) -> bytes:
    """A reason of a RankedOffer but for its weight, which follows."""
    inner = reason(code, language).SerializeToString()
    return _REASONS + _length(len(inner) + _WEIGHT.size) + inner


def _state(watermark: Offset, latest_event_ms: int, now_ms: int) -> bytes:
    text = f"{watermark.ms}-{watermark.seq}".encode()
    age_ms = max(0, now_ms - latest_event_ms) if latest_event_ms else 0
    numbers = _STATE_NUMBERS.pack(0x08, 1, 0x19, latest_event_ms, 0x21, age_ms)
    inner = len(numbers) + 2 + len(text)
    return b"".join((bytes((_STATE, inner)), numbers, bytes((_WATERMARK, len(text))), text))


def _length(size: int) -> bytes:
    """A length as a varint."""
    if size < 0x80:
        return bytes((size,))
    if size < 0x4000:
        return bytes((size & 0x7F | 0x80, size >> 7))
    return bytes((size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14))
