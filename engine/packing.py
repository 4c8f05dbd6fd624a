"""The bytes of a batch of decisions, read and written in compiled code: ledgers, records, answers.

Formats are those of engine.ledger, engine.record, engine.basis and answers on the wire (opportune.v1); their modules
say what stands where and read or write a single one. With this in Python a decision of three offers and its
answer took 42 µs in a full batch, much of it for taking numbers out of arrays and putting them into structs; now 27.

Texts and other bytes of varying length come joined, with the places where each ends.

All in one file, because what is compiled is kept by the age of its file (models.compiled).
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numba import types
from numpy.typing import NDArray

from models.compiled import BYTES_2D, FLOATS32_2D, FLOATS_1D, INT, INTS, INTS_2D, SEEDS, compiled, inlined, read_only

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Octets = NDArray[np.uint8]
Number = Any
"""Of compiled code, which has its own."""
Floats32 = NDArray[np.float32]

_OCTETS: Final = read_only(types.uint8, 1)
_OCTETS_2D: Final = read_only(types.uint8, 2)
_BOOLS: Final = read_only(types.boolean, 1)
_BOOLS_2D: Final = read_only(types.boolean, 2)
_PICKS: Final = read_only(types.int16, 2)
_FLOATS_2D: Final = read_only(types.float64, 2)
_FLOATS_3D: Final = read_only(types.float64, 3)

# engine.ledger: header, trial, decision, offer; engine.contact_rows: section, row, one without a group, the flag.
HEADER: Final = 16
TRIAL: Final = 16
DECISION: Final = 29
OFFER: Final = 23
SECTION: Final = 10
ROW: Final = 48
FORMER_ROW: Final = 44
GROUPED: Final = 0x8000
_FORM: Final = 1
_FORM_EXPLORED: Final = 2
_FORM_CONTACTS: Final = 3
_SERVED: Final = 1
# Where the phrases of one language stand, see `pack_answers`.
_REASONS: Final = 0
_RUNGS: Final = 4
_NOTHING: Final = 7
PHRASES: Final = 11
_NONE: Final = np.zeros(0, np.uint8)
LOOK_OK: Final = 0
LOOK_EPOCH: Final = 1
LOOK_REPEATED: Final = 2
"""Columns of `look`."""


def joined(parts: Sequence[bytes], columns: int | None = None) -> tuple[Octets, Ints]:
    """Bytes one after the other, and where each ends; with `columns` as a table, row by row."""
    if not any(parts):
        return _NONE, np.zeros(len(parts) if columns is None else (len(parts) // columns, columns), np.int64)
    ends: Ints = np.fromiter(accumulate(map(len, parts)), np.int64, len(parts))
    return np.frombuffer(b"".join(parts), np.uint8), ends if columns is None else ends.reshape(-1, columns)


# --- bytes ----------------------------------------------------------------------------------------------------------


@inlined()
def _put(out: Octets, at: Number, value: Number, size: Number) -> Number:
    for i in range(size):
        out[at + i] = (value >> (8 * i)) & 0xFF
    return at + size


@inlined()
def _got(data: Octets, at: Number, size: Number) -> Number:
    value = np.int64(0)
    for i in range(size):
        value |= np.int64(data[at + i]) << (8 * i)
    return value


@inlined()
def _copied(out: Octets, at: Number, data: Octets, start: Number, end: Number) -> Number:
    # As places that cannot be negative: those are not looked at before each byte. 300 bytes take 10 ns, not 300.
    to, of = np.uint64(at), np.uint64(start)
    for i in range(np.uint64(max(end - start, 0))):
        out[to + i] = data[of + i]
    return at + end - start


@inlined()
def _double(out: Octets, at: Number, value: Number, one: Floats, octets: Octets) -> Number:
    one[0] = value
    for i in range(8):
        out[at + i] = octets[i]
    return at + 8


@inlined()
def _single(out: Octets, at: Number, value: Number, one: NDArray[np.float32], octets: Octets) -> Number:
    one[0] = np.float32(value)
    for i in range(4):
        out[at + i] = octets[i]
    return at + 4


@inlined()
def _digits(out: Octets, at: Number, value: Number, base: Number) -> Number:
    """A number as text, to base 10 or 16."""
    size, rest = 1, value // base
    while rest:
        size, rest = size + 1, rest // base
    for i in range(size):
        digit = value % base
        out[at + size - 1 - i] = 48 + digit if digit < 10 else 87 + digit
        value //= base
    return at + size


@inlined()
def _varint(out: Octets, at: Number, value: Number) -> Number:
    while value >= 0x80:
        out[at] = value & 0x7F | 0x80
        at, value = at + 1, value >> 7
    out[at] = value
    return at + 1


# --- ledgers --------------------------------------------------------------------------------------------------------


@inlined()
def _decisions_at(data: Octets, start: Number) -> Number:
    """Where the decisions of a ledger begin: behind its trials, which form 1 has none of."""
    trials = 0 if data[start] == _FORM else _got(data, start + 2, 2)
    return start + HEADER + trials * TRIAL


@inlined()
def _decision_end(data: Octets, at: Number) -> Number:
    """Where the decision at a place ends."""
    offers = data[at + DECISION - 1]
    at += DECISION
    for _ in range(offers):
        at += OFFER + 8 * data[at + OFFER - 1]
    return at


@inlined()
def _whole(data: Octets, start: Number, end: Number) -> bool:
    """Whether these bytes are a ledger."""
    if end - start < HEADER or not _FORM <= data[start] <= _FORM_CONTACTS:
        return False
    at = _decisions_at(data, start)
    for _ in range(data[start + 1]):
        if at + DECISION > end:
            return False
        offers = data[at + DECISION - 1]
        at += DECISION
        for _ in range(offers):
            if at + OFFER > end:
                return False
            at += OFFER + 8 * data[at + OFFER - 1]
    if data[start] == _FORM_CONTACTS:
        if at + SECTION > end:
            return False
        told = _got(data, at + 8, 2)
        at += SECTION + (ROW if told & GROUPED else FORMER_ROW) * (told & ~GROUPED)
    return bool(at == end)


@compiled(_OCTETS, INTS, INTS)
def look(ledgers: Octets, ends: Ints, hashes: Ints) -> Ints:
    """What must be known of each ledger before it is decided: (B, 5) whether it can be read, its epoch, whether the
    request of this hash was answered before, and where: ms and seq. A ledger of no bytes is an empty one."""
    seen = np.zeros((len(ends), 5), np.int64)
    start = np.int64(0)
    for row in range(len(ends)):
        end = ends[row]
        seen[row, LOOK_OK] = 1
        if start < end:
            seen[row, LOOK_OK] = _whole(ledgers, start, end)
            if seen[row, LOOK_OK]:
                seen[row, LOOK_EPOCH] = _got(ledgers, start + 4, 4)
                at = _decisions_at(ledgers, start)
                for _ in range(ledgers[start + 1] if hashes[row] else 0):
                    if _got(ledgers, at + 12, 8) == hashes[row]:
                        seen[row, LOOK_REPEATED] = 1
                        seen[row, LOOK_REPEATED + 1] = _got(ledgers, at, 8)
                        seen[row, LOOK_REPEATED + 2] = _got(ledgers, at + 8, 4)
                    at = _decision_end(ledgers, at)
        start = end
    return seen


@inlined()
def _is_open(data: Octets, at: Number, now_ms: Number, open_stages: Number) -> bool:
    """Whether the offer at a place is still open; `open_stages` has a bit for each such stage."""
    stage = np.int64(data[at + 4])
    return bool(stage < 63 and (open_stages >> stage) & 1 and now_ms < _got(data, at + 6, 8))


@inlined()
def _keep(
    data: Octets, at: Number, count: Number, most: Number, now_ms: Number, open_stages: Number, keeps: Bools
) -> None:
    """Mark which of the decisions that begin at a place are kept if there may be `most`: those with an open offer
    before others, newer before older."""
    gone = max(0, count - most)
    for number in range(count):
        keeps[number] = True
        is_open = False
        offers = data[at + DECISION - 1]
        at += DECISION
        for _ in range(offers):
            is_open |= _is_open(data, at, now_ms, open_stages)
            at += OFFER + 8 * data[at + OFFER - 1]
        if gone and not is_open:
            keeps[number], gone = False, gone - 1
    for number in range(count):
        if gone and keeps[number]:
            keeps[number], gone = False, gone - 1


@compiled(_OCTETS, INTS, INTS, INTS, INTS, _PICKS, INTS_2D, INTS, _OCTETS, INTS, _OCTETS, INTS, INT, INT)
def pack_ledgers(
    ledgers: Octets,
    ends: Ints,
    times_ms: Ints,
    hashes: Ints,
    counts: Ints,
    picks: NDArray[np.int16],
    window_ends_ms: Ints,
    keys: Ints,
    trials: Octets,
    trial_ends: Ints,
    contacts: Octets,
    contact_ends: Ints,
    decisions_max: int,
    open_stages: int,
) -> tuple[Octets, Ints]:
    """Each ledger with a decision added, around the 12 bytes of the position that it will get.

    `trials` are the answers that explored, packed, as they are after this decision, `contacts` the section of the
    contacts. Returns the bytes of all, and (B, 2) where head and tail of each end.
    """
    rows, places = picks.shape
    out = np.empty(
        len(ledgers) + len(trials) + len(contacts) + rows * (HEADER + DECISION + places * OFFER), np.uint8
    )
    found = np.empty((rows, 2), np.int64)
    keeps = np.empty(256, np.bool_)
    at: Number = 0
    start: Number = 0
    trials_at: Number = 0
    contacts_at: Number = 0
    for row in range(rows):
        end = ends[row]
        count: Number = np.int64(0)
        epoch, revision = np.int64(0), np.int64(0)
        if start < end:
            count = _got(ledgers, start + 1, 1)
            epoch, revision = _got(ledgers, start + 4, 4), _got(ledgers, start + 8, 8)
        tried, counted = trial_ends[row] - trials_at, contact_ends[row] > contacts_at
        form = _FORM_CONTACTS if counted else _FORM_EXPLORED if tried else _FORM
        at = _put(out, at, form, 1)
        at = _put(out, at, min(count, decisions_max - 1) + 1, 1)
        at = _put(out, at, tried // TRIAL, 2)
        at = _put(out, at, epoch, 4)
        at = _put(out, at, revision + 1, 8)
        at = _copied(out, at, trials, trials_at, trial_ends[row])
        if count:
            body = _decisions_at(ledgers, start)
            if count < decisions_max:
                last = body
                for _ in range(count):
                    last = _decision_end(ledgers, last)
                at = _copied(out, at, ledgers, body, last)
            else:
                _keep(ledgers, body, count, decisions_max - 1, times_ms[row], open_stages, keeps)
                for number in range(count):
                    last = _decision_end(ledgers, body)
                    if keeps[number]:
                        at = _copied(out, at, ledgers, body, last)
                    body = last
        found[row, 0] = at
        at = _put(out, at, hashes[row], 8)
        at = _put(out, at, times_ms[row], 8)
        offers_at, rank = at, 0
        at += 1
        for place in range(counts[row]):
            if window_ends_ms[row, place]:
                rank += 1
                at = _put(out, at, keys[picks[row, place]], 4)
                at = _put(out, at, _SERVED, 1)
                at = _put(out, at, rank, 1)
                at = _put(out, at, window_ends_ms[row, place], 8)
                at = _put(out, at, times_ms[row], 8)
                at = _put(out, at, 0, 1)
        out[offers_at] = rank
        at = _copied(out, at, contacts, contacts_at, contact_ends[row])
        found[row, 1] = at
        start, trials_at, contacts_at = end, trial_ends[row], contact_ends[row]
    return out[:at], found


# --- records --------------------------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """Who asked for B decisions, and for what."""

    times_ms: Ints
    channels: Ints
    placements: Ints
    limits: Ints
    texts: Octets
    """Customer, request id and context of each, one after the other."""
    text_ends: Ints
    """(B, 3)"""

    @classmethod
    def of(
        cls, times_ms: Ints, channels: Ints, placements: Sequence[int], limits: Ints, texts: Sequence[bytes]
    ) -> Self:
        """`texts` are customer, request id and context of each."""
        return cls(times_ms, channels, np.array(placements, np.int64), limits, *joined(texts, columns=3))


class Extra(NamedTuple):
    """What some decisions rest on besides, packed as engine.basis has it; (B, 3) ends, (B, 2) numbers of rows."""

    octets: Octets
    ends: Ints
    """Of the holds and prices, of the parameters, of the values of questions."""
    rows: Ints
    """Holds, prices."""

    @classmethod
    def none(cls, rows: int) -> Self:
        """Nothing besides."""
        return cls(np.zeros(0, np.uint8), np.zeros((rows, 3), np.int64), np.zeros((rows, 2), np.int64))


class Drawn(NamedTuple):
    """The slates of B decisions, see engine.drafts.Batch and Places."""

    counts: Ints
    nothing: Floats
    picks: NDArray[np.int16]
    propensities: Floats
    figures: Floats
    window_ends_ms: Ints


class Rested(NamedTuple):
    """Estimates of n offers, and which of them each decision rested on: see models.counting."""

    columns: NDArray[np.int16]
    counts: Ints
    mean: Floats32
    sd: Floats32


def pack_records(
    asked: Asked,
    seeds: NDArray[np.uint64],
    states: Ints,
    known: Bools,
    degraded: Ints,
    x: NDArray[np.int8],
    held: Sequence[bytes],
    failed: Sequence[bytes],
    drawn: Drawn,
    keys: Ints,
    rested: Rested,
    seen: tuple[Octets, Ints],
    surcharges: Floats,
    gates: Floats,
    extra: Extra,
    config_version: bytes,
    transform_version: int,
    policy_version: int,
) -> list[bytes]:
    """The records of B decisions, each with its basis; `seen` are the rows of engine.valuecode and their ends."""
    rows = len(x)
    size = len(held[0])
    none = bytes(size)
    any_failed = np.fromiter(map(bool, failed), np.bool_, rows)
    data, ends = _records(
        *asked,
        seeds,
        states,
        known,
        degraded,
        x,
        np.frombuffer(b"".join(held), np.uint8).reshape(rows, size),
        np.frombuffer(b"".join([bits or none for bits in failed]), np.uint8).reshape(rows, size),
        any_failed,
        *drawn,
        keys,
        *rested,
        *seen,
        surcharges,
        gates,
        *extra,
        np.frombuffer(config_version, np.uint8),
        transform_version,
        policy_version,
    )
    return cut(data, ends)


def cut(data: Octets, ends: Ints) -> list[bytes]:
    """Bytes that stand one after the other, apart."""
    whole = data.tobytes()
    last = ends.tolist()
    return [whole[start:end] for start, end in zip([0, *last], last, strict=False)]


@compiled(
    *(INTS, INTS, INTS, INTS, _OCTETS, INTS_2D, SEEDS, INTS_2D, _BOOLS, INTS),
    *(BYTES_2D, _OCTETS_2D, _OCTETS_2D, _BOOLS),
    *(INTS, FLOATS_1D, _PICKS, _FLOATS_2D, _FLOATS_3D, INTS_2D, INTS),
    *(_PICKS, INTS, FLOATS32_2D, FLOATS32_2D, _OCTETS, INTS, FLOATS_1D, FLOATS_1D, _OCTETS, INTS_2D, INTS_2D),
    *(_OCTETS, INT, INT),
)
def _records(
    times_ms: Any,
    channels: Any,
    placements: Any,
    limits: Any,
    texts: Any,
    text_ends: Any,
    seeds: Any,
    states: Any,
    known: Any,
    degraded: Any,
    x: Any,
    held: Any,
    failed: Any,
    any_failed: Any,
    counts: Any,
    nothing: Any,
    picks: Any,
    propensities: Any,
    figures: Any,
    window_ends_ms: Any,
    keys: Any,
    columns: Any,
    column_counts: Any,
    mean: Any,
    sd: Any,
    seen: Any,
    seen_ends: Any,
    surcharges: Any,
    gates: Any,
    extra: Any,
    extra_ends: Any,
    extra_rows: Any,
    config_version: Any,
    transform_version: int,
    policy_version: int,
) -> Any:
    rows, dimension = x.shape
    rules, places, offers = held.shape[1], picks.shape[1], mean.shape[1]
    out = np.empty(
        len(texts) + len(seen) + len(extra)
        + rows * (160 + dimension + 2 * rules + 36 * places + 10 * columns.shape[1]), np.uint8
    )  # fmt: skip
    ends = np.empty(rows, np.int64)
    one64, one32 = np.zeros(1), np.zeros(1, np.float32)
    octets64, octets32 = one64.view(np.uint8), one32.view(np.uint8)
    steps = x.view(np.uint8)
    at: Number = 0
    text, saw, more = np.int64(0), np.int64(0), np.int64(0)
    for row in range(rows):
        count = counts[row]
        at = _put(out, at, 1, 1)
        at = _put(out, at, 2, 1)
        at = _put(out, at, times_ms[row], 8)
        at = _put(out, at, np.int64(seeds[row]), 8)
        at = _copied(out, at, config_version, 0, 8)
        at = _put(out, at, transform_version, 4)
        at = _put(out, at, policy_version, 8)
        at = _put(out, at, states[row, 0], 8)
        at = _put(out, at, states[row, 1], 4)
        at = _put(out, at, states[row, 2], 8)
        at = _put(out, at, channels[row], 2)
        at = _put(out, at, placements[row], 2)
        at = _put(out, at, degraded[row], 1)
        at = _put(out, at, np.int64(known[row]), 1)
        at = _put(out, at, limits[row], 1)
        at = _put(out, at, count, 1)
        at = _put(out, at, text_ends[row, 0] - text, 1)
        at = _put(out, at, text_ends[row, 1] - text_ends[row, 0], 2)
        at = _put(out, at, text_ends[row, 2] - text_ends[row, 1], 2)
        at = _put(out, at, dimension, 2)
        at = _put(out, at, rules | (0x8000 if any_failed[row] else 0), 2)
        at = _double(out, at, nothing[row], one64, octets64)
        at = _copied(out, at, texts, text, text_ends[row, 2])
        at = _copied(out, at, steps[row], 0, dimension)
        at = _copied(out, at, held[row], 0, rules)
        if any_failed[row]:
            at = _copied(out, at, failed[row], 0, rules)
        for place in range(count):
            at = _put(out, at, keys[picks[row, place]], 4)
            at = _double(out, at, propensities[row, place], one64, octets64)
            for figure in range(3):
                at = _single(out, at, figures[row, place, figure], one32, octets32)
            at = _put(out, at, window_ends_ms[row, place], 8)
        # The basis. Silence is the last column of all, so the last of those that count; what it is worth is known.
        estimates = column_counts[row]
        if estimates and columns[row, estimates - 1] == offers:
            estimates -= 1
        at = _put(out, at, estimates, 2)
        at = _put(out, at, extra_rows[row, 0], 2)
        at = _put(out, at, extra_rows[row, 1], 2)
        at = _put(out, at, extra_ends[row, 1] - extra_ends[row, 0], 2)
        at = _put(out, at, seen_ends[row] - saw, 2)
        at = _double(out, at, surcharges[row], one64, octets64)
        at = _double(out, at, gates[row], one64, octets64)
        for i in range(estimates):
            offer = columns[row, i]
            at = _put(out, at, offer, 2)
            at = _single(out, at, mean[row, offer], one32, octets32)
            at = _single(out, at, sd[row, offer], one32, octets32)
        at = _copied(out, at, extra, more, extra_ends[row, 1])
        at = _copied(out, at, seen, saw, seen_ends[row])
        at = _copied(out, at, extra, extra_ends[row, 1], extra_ends[row, 2])
        ends[row] = at
        text, saw, more = text_ends[row, 2], seen_ends[row], extra_ends[row, 2]
    return out[:at], ends


# --- answers --------------------------------------------------------------------------------------------------------


@inlined()
def _named(out: Octets, at: Number, scratch: Octets, partition: Number, ms: Number, seq: Number) -> Number:
    """The field decision_id: engine.record.decision_id, with its tag and length."""
    size = _digits(scratch, 0, partition, 16)
    scratch[size] = 45
    size = _digits(scratch, size + 1, ms, 16)
    scratch[size] = 45
    size = _digits(scratch, size + 1, seq, 16)
    out[at], out[at + 1] = 0x0A, size
    return _copied(out, at + 2, scratch, 0, size)


@compiled(
    *(INTS, INTS_2D, INTS, INTS, INTS, _OCTETS, INTS, INT, INTS, INTS_2D, _BOOLS, INTS),
    *(INTS, _PICKS, _FLOATS_2D, _FLOATS_3D, _BOOLS_2D, _BOOLS_2D, INTS_2D, INTS_2D, _FLOATS_2D),
    *(_OCTETS, INTS, INT, _OCTETS, INTS_2D, INTS, INTS, INT, _OCTETS, INTS),
)
def pack_answers(
    rows: Any,
    positions: Any,
    partitions: Any,
    offers_of: Any,
    phrases_of: Any,
    customers: Any,
    customer_ends: Any,
    policy_version: int,
    times_ms: Any,
    states: Any,
    known: Any,
    degraded: Any,
    counts: Any,
    picks: Any,
    propensities: Any,
    figures: Any,
    explored: Any,
    cold: Any,
    window_ends_ms: Any,
    rungs: Any,
    evidence: Any,
    ledgers: Any,
    ledger_ends: Any,
    open_stages: int,
    constants: Any,
    offer_starts: Any,
    reserved_ms: Any,
    keys: Any,
    names: int,
    fixed: Any,
    fixed_ends: Any,
) -> Any:
    """DecideResponses of some `rows` of a batch, serialised, and where each ends.

    `positions` (R, 2) and `partitions` (R,) say where each is, `offers_of` (R,) which row of `offer_starts` has what is
    the same of every offer there, in `constants`; -1 - code: there is no offer in it, for this reason. `reserved_ms`
    are for how long units of each offer are kept, or 0. `fixed` are the other parts that are the same in all answers:
    the version, then for each language, `phrases_of` (R,) says where, 4 reasons, 3 rungs and 4 codes of why there is
    nothing; from `names` on the names of the offers, of which `keys` has the keys, ascending.
    """
    widest, room, most = np.int64(0), np.int64(len(customers)), np.int64(0)
    for i in range(len(fixed_ends) - 1):
        widest = max(widest, fixed_ends[i + 1] - fixed_ends[i])
    for i in range(len(rows)):
        row = rows[i]
        in_ledger = (ledger_ends[row] - (ledger_ends[row - 1] if row else 0)) // OFFER
        most = max(most, in_ledger)
        room += 400 + 3 * widest + in_ledger * (120 + widest)
        for place in range(counts[row] if offers_of[i] >= 0 else 0):
            offer = picks[row, place]
            room += 120 + 2 * widest + offer_starts[offers_of[i], offer + 1] - offer_starts[offers_of[i], offer]
    out = np.empty(room, np.uint8)
    ends = np.empty(len(rows), np.int64)
    one64 = np.zeros(1)
    octets64 = one64.view(np.uint8)
    name, scratch = np.empty(64, np.uint8), np.empty(64, np.uint8)
    found = np.empty((most, 2), np.int64)
    at, customer_at = 0, np.int64(0)
    for i in range(len(rows)):
        row = rows[i]
        at = _named(out, at, scratch, partitions[i], positions[i, 0], positions[i, 1])
        out[at] = 0x32
        at = _varint(out, at + 1, customer_ends[i] - customer_at)
        at = _copied(out, at, customers, customer_at, customer_ends[i])
        customer_at = customer_ends[i]
        at = _copied(out, at, fixed, 0, fixed_ends[1])
        out[at] = 0x39
        at = _put(out, at + 1, policy_version, 8)
        out[at] = 0x49
        at = _put(out, at + 1, times_ms[row], 8)
        out[at], out[at + 1] = 0x28, degraded[row]
        at += 2
        for place in range(counts[row] if offers_of[i] >= 0 else 0):
            offer = picks[row, place]
            first, last = offer_starts[offers_of[i], offer], offer_starts[offers_of[i], offer + 1]
            reason = phrases_of[i] + _REASONS + explored[row, place] + 2 * cold[row, place]
            rung = phrases_of[i] + _RUNGS + rungs[row, place]
            size = last - first + 38 + fixed_ends[reason + 1] - fixed_ends[reason]
            if reserved_ms[offer]:
                size += 10
            if window_ends_ms[row, place]:  # of what has no window nothing is estimated
                size += fixed_ends[rung + 1] - fixed_ends[rung] + 9
            out[at] = 0x12
            at = _varint(out, at + 1, size)
            at = _copied(out, at, constants, first, last)
            out[at], out[at + 1], out[at + 2] = 0x10, place + 1, 0x31
            at = _double(out, at + 3, propensities[row, place], one64, octets64)
            out[at] = 0x39
            at = _double(out, at + 1, figures[row, place, 0], one64, octets64)
            out[at] = 0x41
            at = _double(out, at + 1, figures[row, place, 3], one64, octets64)
            out[at] = 0x61
            at = _put(out, at + 1, window_ends_ms[row, place], 8)
            if reserved_ms[offer]:
                out[at], out[at + 1] = 0xA1, 0x01
                at = _put(out, at + 2, times_ms[row] + reserved_ms[offer], 8)
            at = _copied(out, at, fixed, fixed_ends[reason], fixed_ends[reason + 1])
            if window_ends_ms[row, place]:
                at = _copied(out, at, fixed, fixed_ends[rung], fixed_ends[rung + 1])
                out[at] = 0x19
                at = _double(out, at + 1, evidence[row, place], one64, octets64)
        if offers_of[i] < 0:
            why = phrases_of[i] + _NOTHING - 1 - offers_of[i]
            at = _copied(out, at, fixed, fixed_ends[why], fixed_ends[why + 1])
        if known[row]:
            latest_ms = states[row, 2]
            size = _digits(name, 0, states[row, 0], 10)
            name[size] = 45  # a hyphen
            size = _digits(name, size + 1, states[row, 1], 10)
            out[at], out[at + 1], out[at + 2], out[at + 3], out[at + 4] = 0x22, 22 + size, 0x08, 1, 0x19
            at = _put(out, at + 5, latest_ms, 8)
            out[at] = 0x21
            at = _put(out, at + 1, max(0, times_ms[row] - latest_ms) if latest_ms else 0, 8)
            out[at], out[at + 1] = 0x12, size
            at = _copied(out, at + 2, name, 0, size)
        start = ledger_ends[row - 1] if row else 0
        if start < ledger_ends[row]:
            # The open offers, newest first.
            place, opened = _decisions_at(ledgers, start), 0
            for _ in range(ledgers[start + 1]):
                decision = place
                offers = ledgers[place + DECISION - 1]
                place += DECISION
                for _ in range(offers):
                    if _is_open(ledgers, place, times_ms[row], open_stages):
                        found[opened, 0], found[opened, 1] = decision, place
                        opened += 1
                    place += OFFER + 8 * ledgers[place + OFFER - 1]
            for k in range(opened - 1, -1, -1):
                decision, place = found[k]
                key = _got(ledgers, place, 4)
                n = np.searchsorted(keys, key)
                if n == len(keys) or keys[n] != key:
                    continue  # no longer in the catalogue
                which = names + n
                ms, seq = _got(ledgers, decision, 8), _got(ledgers, decision + 8, 4)
                width = _named(name, 0, scratch, partitions[i], ms, seq)
                out[at] = 0x5A
                at = _varint(out, at + 1, width + fixed_ends[which + 1] - fixed_ends[which] + 20)
                at = _copied(out, at, name, 0, width)
                at = _copied(out, at, fixed, fixed_ends[which], fixed_ends[which + 1])
                out[at], out[at + 1], out[at + 2] = 0x18, ledgers[place + 4], 0x21
                at = _put(out, at + 3, _got(ledgers, decision + 20, 8), 8)
                out[at] = 0x29
                at = _put(out, at + 1, _got(ledgers, place + 6, 8), 8)
        ends[i] = at
    return out[:at], ends
