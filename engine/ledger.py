"""The ledger of one customer: the last decisions and where each of their offers stands, packed.

    header   u8 form, u8 decisions, u16 explored, u32 epoch, u64 revision
    explored u64 seed, i64 time_ms
    decision u64 ms, u32 seq (its position in the decision log), u64 request hash, i64 time_ms, u8 offers
      offer  u32 key, u8 stage, u8 rank, i64 window_end_ms, i64 changed_ms, u8 outcomes
        outcome  u64 tag: hash of its id, so that a repeated report is known as one, and its stage (engine.course)

`revision` grows with every write and is what compare-and-set compares. `epoch` grows only when an outcome changes the
ledger: the dice are seeded with it, so asking again does not change the answer but an outcome may.

Bounded: LEDGER_DECISIONS_MAX decisions. Decisions with an open offer are kept before others, newer before older.

`explored` are the dice of answers that explored, where the configuration has a budget for that (engine.explorer); such
a ledger has form 2, one without them form 1. They stand apart from the decisions, which may be let go before.

Where there is a contact policy, the ledger has form 3: the contacts that it counts follow the decisions
(engine.contact_rows). A ledger that has them keeps them, also if a configuration has no contact policy any more.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Final, NamedTuple

from engine import contact_rows
from engine.contact_rows import Contact
from engine.lifecycle import OPEN, Stage
from engine.limits import LEDGER_DECISIONS_MAX, SLATE_MAX
from features import Offset

_HEADER: Final = struct.Struct("<BBHIQ")
_DECISION: Final = struct.Struct("<QIQqB")
_OFFER: Final = struct.Struct("<IBBqqB")
_HASH: Final = struct.Struct("<Q")
_TRIAL: Final = struct.Struct("<Qq")
_FORM: Final = 1
_FORM_EXPLORED: Final = 2
FORM_CONTACTS: Final = 3
_OPEN: Final = frozenset(map(int, OPEN))

CAS_BYTES: Final = _HEADER.size
"""Length of the prefix that compare-and-set compares."""
DECISION_BYTES: Final = _DECISION.size
OFFER_BYTES: Final = _OFFER.size
"""Without its outcomes."""

assert SLATE_MAX < 256, "the number of offers of a decision is kept in one byte"
assert LEDGER_DECISIONS_MAX < 256, "the number of decisions is kept in one byte"


class LedgerError(ValueError):
    """The bytes are no ledger."""


def hash_of(text: str) -> int:
    """64-bit hash of a request or outcome id; 0 stands for "none" and is never returned for a text.

    >>> hash_of("") == 0, hash_of("a") != hash_of("b")
    (True, True)
    """
    if not text:
        return 0
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") or 1


@dataclass(frozen=True, slots=True)
class OfferEntry:
    """One offer of a decision and where it stands."""

    key: int
    stage: Stage
    rank: int
    window_end_ms: int
    changed_ms: int
    outcomes: tuple[int, ...] = ()
    """Tags of the outcomes reported, in the order in which they count."""

    def open_at(self, now_ms: int) -> bool:
        """Whether the customer may still answer."""
        return self.stage in OPEN and now_ms < self.window_end_ms


@dataclass(frozen=True, slots=True)
class DecisionEntry:
    """One decision and its offers, first rank first."""

    position: Offset
    request_hash: int
    time_ms: int
    offers: tuple[OfferEntry, ...]


@dataclass(frozen=True, slots=True)
class Ledger:
    """A customer's ledger, oldest decision first."""

    epoch: int = 0
    revision: int = 0
    decisions: tuple[DecisionEntry, ...] = field(default=())
    explored: tuple["Trial", ...] = ()
    contacts: tuple[Contact, ...] | None = None
    """What contact policy counts, oldest first; None: of a ledger that nobody counted contacts in."""
    contact_clock_ms: int = 0
    """Newest time of a decision that was counted."""

    @classmethod
    def unpack(cls, data: bytes | None) -> "Ledger":
        """Read a ledger; None is an empty one. Raises LedgerError for foreign or cut bytes."""
        if data is None:
            return cls()
        try:
            form, count, trials, epoch, revision = _HEADER.unpack_from(data)
            explored, at = _explored(data, form, trials)
            decisions = []
            for _ in range(count):
                ms, seq, request_hash, time_ms, offers_count = _DECISION.unpack_from(data, at)
                at += _DECISION.size
                offers = []
                for _ in range(offers_count):
                    key, stage, rank, end_ms, changed_ms, hashes = _OFFER.unpack_from(data, at)
                    at += _OFFER.size
                    outcomes = tuple(_HASH.unpack_from(data, at + i * _HASH.size)[0] for i in range(hashes))
                    at += hashes * _HASH.size
                    offers.append(OfferEntry(key, Stage(stage), rank, end_ms, changed_ms, outcomes))
                decisions.append(DecisionEntry(Offset(ms, seq), request_hash, time_ms, tuple(offers)))
            if form == FORM_CONTACTS:
                clock_ms, rows = contact_rows.read(data, at)
                newest = decisions[-1].position if decisions else Offset.ZERO
                contacts = tuple(contact_rows.unpacked(contact_rows.placed(rows, newest)))
                return cls(epoch, revision, tuple(decisions), explored, contacts, clock_ms)
        except (struct.error, ValueError) as error:
            raise LedgerError(f"ledger of {len(data)} bytes cannot be read: {error}") from error
        if at != len(data):
            raise LedgerError(f"ledger of {len(data)} bytes ends at {at}")
        return cls(epoch, revision, tuple(decisions), explored)

    def pack(self) -> bytes:
        """The bytes that `unpack` reads."""
        counted = self.contacts is not None
        parts = [_head(len(self.decisions), self.explored, self.epoch, self.revision, counted=counted)]
        parts += [
            _DECISION.pack(entry.position.ms, entry.position.seq, entry.request_hash, entry.time_ms, len(entry.offers))
            + b"".join(
                _OFFER.pack(o.key, o.stage, o.rank, o.window_end_ms, o.changed_ms, len(o.outcomes))
                + b"".join(map(_HASH.pack, o.outcomes))
                for o in entry.offers
            )
            for entry in self.decisions
        ]
        if self.contacts is not None:
            rows = b"".join([contact.pack() for contact in self.contacts])
            parts.append(contact_rows.section(self.contact_clock_ms, rows))
        return b"".join(parts)

    def find(self, position: Offset) -> DecisionEntry | None:
        """The decision at this position of the log."""
        return next((entry for entry in self.decisions if entry.position == position), None)

    def moved(
        self,
        position: Offset,
        rank: int,
        stage: Stage,
        now_ms: int,
        outcomes: tuple[int, ...],
        contact: Contact | None = None,
    ) -> "Ledger":
        """The ledger after an outcome: where the offer stands now and its outcomes.

        A decision that it no longer remembers changes only epoch and revision, and the contacts: `contact` is added
        where none of them is of this offer; None where nobody counts them.
        """
        decisions = tuple(
            entry
            if entry.position != position
            else replace(
                entry,
                offers=tuple(
                    replace(offer, stage=stage, changed_ms=now_ms, outcomes=outcomes)
                    if offer.rank == rank
                    else offer
                    for offer in entry.offers
                ),
            )
            for entry in self.decisions
        )
        contacts = self.contacts
        if contacts is not None:
            found = contact_rows.moved(contacts, position, rank, stage, now_ms)
            if found is None and contact is not None:
                found = contact_rows.joined([*contacts, contact])
            contacts = contacts if found is None else tuple(found)
        return replace(
            self, epoch=self.epoch + 1, revision=self.revision + 1, decisions=decisions, contacts=contacts
        )


class Trial(NamedTuple):
    """An answer that explored."""

    seed: int
    """Of its dice: whoever asks again before anything has changed gets the same answer, and it counts once."""
    time_ms: int


def _head(count: int, explored: Sequence[Trial], epoch: int, revision: int, *, counted: bool = False) -> bytes:
    """All before the decisions."""
    form = FORM_CONTACTS if counted else _FORM_EXPLORED if explored else _FORM
    header = _HEADER.pack(form, count, len(explored), epoch, revision)
    return b"".join([header, *(_TRIAL.pack(*trial) for trial in explored)])


def _explored(data: bytes, form: int, count: int) -> tuple[tuple[Trial, ...], int]:
    """The answers that explored, and where the decisions begin."""
    if form == _FORM:
        return (), _HEADER.size
    if form not in (_FORM_EXPLORED, FORM_CONTACTS):
        raise LedgerError(f"ledger of form {form}, expected {_FORM} to {FORM_CONTACTS}")
    end = _HEADER.size + count * _TRIAL.size
    if len(data) < end:
        raise LedgerError(f"ledger of {len(data)} bytes is cut short")
    return tuple([Trial(*fields) for fields in _TRIAL.iter_unpack(data[_HEADER.size : end])]), end


class Glance(NamedTuple):
    """What a decision needs to know of a ledger."""

    epoch: int
    repeated: Offset | None
    """Position of the decision that an earlier call with the same request id got."""
    open_offers: Sequence[tuple[Offset, int, int, int, int]]
    """(position, offer key, stage, served_ms, window_end_ms) of each offer still open, oldest first."""
    explored: tuple[Trial, ...] = ()
    contacts: bytes | None = None
    """Rows of engine.contact_rows; None: of a ledger that nobody counted contacts in."""
    contact_clock_ms: int = 0
    newest: Offset = Offset.ZERO
    """Position of the newest decision."""
    linked: tuple[tuple[int, Sequence[tuple[Offset, int, int, int, int]]], ...] = ()
    """(partition, open offers) of names linked to the customer: begun under them."""


_NOTHING: Final = Glance(0, None, ())


def glance(data: bytes | None, request_hash: int, now_ms: int) -> Glance:
    """Read what a decision needs, without building the whole ledger: 2 µs for four decisions of three offers, where
    `Ledger.unpack` takes 30. Raises LedgerError for foreign or cut bytes."""
    if data is None:
        return _NOTHING
    try:
        form, count, trials, epoch, _ = _HEADER.unpack_from(data)
        explored, at = _explored(data, form, trials)
        repeated = None
        open_offers = []
        position = Offset.ZERO
        for _ in range(count):
            ms, seq, asked, time_ms, offers_count = _DECISION.unpack_from(data, at)
            at += _DECISION.size
            position = Offset(ms, seq)
            if request_hash and asked == request_hash:
                repeated = position
            for _ in range(offers_count):
                key, stage, _, end_ms, _, hashes = _OFFER.unpack_from(data, at)
                at += _OFFER.size + hashes * _HASH.size
                if now_ms < end_ms and stage in _OPEN:
                    open_offers.append((position, key, stage, time_ms, end_ms))
        if form == FORM_CONTACTS:
            clock_ms, rows = contact_rows.read(data, at)
            return Glance(epoch, repeated, open_offers, explored, rows, clock_ms, position)
    except struct.error as error:
        raise LedgerError(f"ledger of {len(data)} bytes cannot be read: {error}") from error
    if at != len(data):
        raise LedgerError(f"ledger of {len(data)} bytes ends at {at}")
    return Glance(epoch, repeated, open_offers, explored, newest=position)


def scan(data: bytes) -> list[tuple[int, int, int, int, int]]:
    """(offer key, stage, rank, served_ms, changed_ms) of every offer of a ledger, oldest decision first.

    For rules about what was: 5 µs where `Ledger.unpack` takes 60. Raises LedgerError for foreign or cut bytes.
    """
    found = []
    try:
        form, count, trials, _, _ = _HEADER.unpack_from(data)
        _, at = _explored(data, form, trials)
        for _ in range(count):
            _, _, _, time_ms, offers_count = _DECISION.unpack_from(data, at)
            at += _DECISION.size
            for _ in range(offers_count):
                key, stage, rank, _, changed_ms, hashes = _OFFER.unpack_from(data, at)
                at += _OFFER.size + hashes * _HASH.size
                found.append((key, stage, rank, time_ms, changed_ms))
    except struct.error as error:
        raise LedgerError(f"ledger of {len(data)} bytes cannot be read: {error}") from error
    return found
