"""What the decision log holds: one packed record a decision, one entry an outcome, one for each person forgotten.

A record is what was known and done, enough to explain it and to learn from it: the vector x that the model saw, which
rules held, the slate with its propensities, the seed, the versions. Offers appear by key (crc32 of their id, distinct
within a configuration), so a record outlives the order of a catalogue.

    u8 kind (1), u8 form, fixed part, customer, request id, context JSON, x, rules held, rules in error, slate rows

and, in a record of the second form, what else the decision rested on (engine.basis).
"""

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, NamedTuple

from engine.basis import Basis, BasisError
from engine.forget.entry import KIND as FORGET_KIND
from engine.forget.entry import ForgetRecord
from engine.lifecycle import Stage
from engine.limits import SLATE_MAX
from features import Offset

_FIXED: Final = struct.Struct("<BBqQ8sIQQIqHHBBBBBHHHHd")
_CHOICE: Final = struct.Struct("<Idfffq")
_TIME: Final = struct.Struct("<q")
_LENGTHS: Final = struct.Struct("<BBHHHH")
_LENGTHS_AT: Final = _FIXED.size - struct.calcsize("<BBHHHHd")
_OUTCOME: Final = struct.Struct("<BBQIIBBqdQBB")
_OUTCOME_MORE: Final = struct.Struct("<QH")
"""Hash of the outcome corrected, bytes of the rewards: in an outcome of the second form."""
_SLATES: Final = [struct.Struct("<" + "Idfffq" * rows) for rows in range(SLATE_MAX + 1)]
"""All rows of a slate, by their number: one call packs all."""
_DECISION: Final = 1
_DECISION_START: Final = bytes([_DECISION])
_OUTCOME_KIND: Final = 2
_FORGET_START: Final = bytes([FORGET_KIND])
_ID_PART: Final = re.compile("0|[1-9a-f][0-9a-f]*")
_FORM: Final = 1
_FORM_BASIS: Final = 2
_OUTCOME_FORM_2: Final = 2
_FAILED_TOO: Final = 0x8000
"""In the length of the rule bits: there is a second row of them."""


class RecordError(ValueError):
    """The bytes are no log entry."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One offer of the answer."""

    key: int
    propensity: float
    score: float
    mean: float
    """Estimated acceptance probability."""
    sd: float
    """Its standard deviation."""
    window_end_ms: int


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One decision as the log keeps it."""

    time_ms: int
    seed: int
    config_version: str
    transform_version: int
    policy_version: int
    watermark: Offset
    latest_event_ms: int
    channel: int
    placement: int
    degraded: int
    known: bool
    limit: int
    customer: str
    request_id: str
    context: bytes
    """JSON object of the facts that the caller gave."""
    x: bytes
    """int8 steps of the input vector."""
    rules_held: bytes
    """Bit i of byte i // 8: rule i of the configuration held."""
    rules_failed: bytes
    """Likewise: rule i could not be evaluated. Empty if none failed."""
    nothing_propensity: float
    """Propensity with which silence was drawn; 0 if it was not."""
    slate: tuple[Choice, ...]
    basis: Basis | None = None
    """None: of an earlier release."""

    @property
    def resumed(self) -> bool:
        """Whether the caller went on with an open offer: nothing was drawn, there is no slate. The quote of the offer
        (engine.parameters) names the decision that began it."""
        return not self.limit

    @property
    def by_chance(self) -> bool:
        """Whether anything of it was left to the dice."""
        return any(0.0 < p < 1.0 for p in (self.nothing_propensity, *(choice.propensity for choice in self.slate)))

    def pack(self) -> bytes:
        """The bytes that `unpack` reads."""
        return pack_decision(
            time_ms=self.time_ms,
            seed=self.seed,
            config_version=bytes.fromhex(self.config_version),
            transform_version=self.transform_version,
            policy_version=self.policy_version,
            watermark=self.watermark,
            latest_event_ms=self.latest_event_ms,
            channel=self.channel,
            placement=self.placement,
            degraded=self.degraded,
            known=self.known,
            limit=self.limit,
            customer=self.customer.encode(),
            request_id=self.request_id.encode(),
            context=self.context,
            x=self.x,
            rules_held=self.rules_held,
            rules_failed=self.rules_failed,
            nothing_propensity=self.nothing_propensity,
            slate=[(c.key, c.propensity, c.score, c.mean, c.sd, c.window_end_ms) for c in self.slate],
            basis=b"" if self.basis is None else self.basis.pack(),
        )

    @classmethod
    def unpack(cls, data: bytes) -> "DecisionRecord":
        """Read a record. Raises RecordError for anything else."""
        try:
            (kind, form, time_ms, seed, config, transform, policy, ms, seq, latest, channel, placement, degraded, known,
             limit, count, customer_n, request_n, context_n, x_n, rules, nothing,
            ) = _FIXED.unpack_from(data)  # fmt: skip
            if kind != _DECISION or form not in (_FORM, _FORM_BASIS):
                raise RecordError(
                    f"log entry of kind {kind} and form {form}, expected a decision of form {_FORM} or {_FORM_BASIS}"
                )
            at = _FIXED.size
            rules_n = rules & ~_FAILED_TOO
            lengths = (customer_n, request_n, context_n, x_n, rules_n, rules_n if rules & _FAILED_TOO else 0)
            parts = []
            for length in lengths:
                parts.append(data[at : at + length])
                at += length
            customer, request, context, x, held, failed = parts
            end = at + count * _CHOICE.size
            if len(data) < end or (form == _FORM and len(data) != end):
                raise RecordError(f"decision record of {len(data)} bytes is cut short or too long")
            slate = tuple(Choice(*_CHOICE.unpack_from(data, at + row * _CHOICE.size)) for row in range(count))
            basis = Basis.unpack(data[end:]) if form == _FORM_BASIS else None
            return cls(
                time_ms=time_ms,
                seed=seed,
                config_version=config.hex(),
                transform_version=transform,
                policy_version=policy,
                watermark=Offset(ms, seq),
                latest_event_ms=latest,
                channel=channel,
                placement=placement,
                degraded=degraded,
                known=bool(known),
                limit=limit,
                customer=customer.decode(),
                request_id=request.decode(),
                context=context,
                x=x,
                rules_held=held,
                rules_failed=failed,
                nothing_propensity=nothing,
                slate=slate,
                basis=basis,
            )
        except (struct.error, UnicodeDecodeError, BasisError) as error:
            raise RecordError(f"decision record of {len(data)} bytes cannot be read: {error}") from error


def pack_decision(
    *,
    time_ms: int,
    seed: int,
    config_version: bytes,
    transform_version: int,
    policy_version: int,
    watermark: Offset,
    latest_event_ms: int,
    channel: int,
    placement: int,
    degraded: int,
    known: bool,
    limit: int,
    customer: bytes,
    request_id: bytes,
    context: bytes,
    x: bytes,
    rules_held: bytes,
    rules_failed: bytes,
    nothing_propensity: float,
    slate: Sequence[tuple[int, float, float, float, float, int]],
    basis: bytes = b"",
) -> bytes:
    """The bytes of a DecisionRecord, without making one: building 20 frozen fields costs more than packing them.

    `slate` has the fields of Choice; `config_version` its eight bytes, `basis` those of a Basis or none.
    """
    fixed = _FIXED.pack(
        _DECISION,
        _FORM_BASIS if basis else _FORM,
        time_ms,
        seed,
        config_version,
        transform_version,
        policy_version,
        watermark.ms,
        watermark.seq,
        latest_event_ms,
        channel,
        placement,
        degraded,
        known,
        limit,
        len(slate),
        len(customer),
        len(request_id),
        len(context),
        len(x),
        len(rules_held) | (_FAILED_TOO if rules_failed else 0),
        nothing_propensity,
    )
    rows = _SLATES[len(slate)].pack(*chain.from_iterable(slate))
    return b"".join((fixed, customer, request_id, context, x, rules_held, rules_failed, rows, basis))


@dataclass(frozen=True, slots=True)
class OutcomeRecord:
    """One outcome as the log keeps it. `rank` is the place of the offer in the decision's answer."""

    decision: Offset
    offer_key: int
    rank: int
    stage: Stage
    time_ms: int
    value: float
    """NaN: the declared value."""
    outcome_hash: int
    outcome_id: str
    attributes: bytes
    """JSON object of the facts given with it."""
    corrects: int = 0
    """Hash of the id of the outcome that it corrects; 0: none."""
    rewards: bytes = b""
    """JSON object of the rewards by objective."""

    def pack(self) -> bytes:
        """The bytes that `unpack` reads."""
        outcome = self.outcome_id.encode()
        more = _OUTCOME_MORE.pack(self.corrects, len(self.rewards)) if self.corrects or self.rewards else b""
        return (
            _OUTCOME.pack(
                _OUTCOME_KIND,
                _OUTCOME_FORM_2 if more else _FORM,
                self.decision.ms,
                self.decision.seq,
                self.offer_key,
                self.rank,
                self.stage,
                self.time_ms,
                self.value,
                self.outcome_hash,
                len(outcome),
                0,
            )
            + more
            + outcome
            + self.rewards
            + self.attributes
        )

    @classmethod
    def unpack(cls, data: bytes) -> "OutcomeRecord":
        """Read an outcome. Raises RecordError for anything else."""
        try:
            kind, form, ms, seq, key, rank, stage, time_ms, value, digest, length, _ = _OUTCOME.unpack_from(data)
            if kind != _OUTCOME_KIND or form not in (_FORM, _OUTCOME_FORM_2):
                raise RecordError(
                    f"log entry of kind {kind} and form {form}, expected an outcome of form {_FORM} or "
                    f"{_OUTCOME_FORM_2}"
                )
            at = _OUTCOME.size
            corrects = rewards_n = 0
            if form == _OUTCOME_FORM_2:
                corrects, rewards_n = _OUTCOME_MORE.unpack_from(data, at)
                at += _OUTCOME_MORE.size
            outcome_id = data[at : at + length].decode()
            at += length
            rewards, attributes = data[at : at + rewards_n], data[at + rewards_n :]
            where = Offset(ms, seq), key, rank, Stage(stage), time_ms
            return cls(*where, value, digest, outcome_id, attributes, corrects, rewards)
        except (struct.error, ValueError) as error:
            raise RecordError(f"outcome of {len(data)} bytes cannot be read: {error}") from error


def follow_up(data: bytes) -> OutcomeRecord | ForgetRecord:
    """Read an entry of the log that is no decision. Raises RecordError for one, and for other bytes."""
    return forgets(data) if data[:1] == _FORGET_START else OutcomeRecord.unpack(data)


def forgets(data: bytes) -> ForgetRecord:
    """Read an entry that forgets. Raises RecordError for anything else."""
    try:
        return ForgetRecord.unpack(data)
    except ValueError as error:
        raise RecordError(str(error)) from error


class Glimpse(NamedTuple):
    """What tells whose an entry of the log is."""

    customer: bytes
    """Of a decision; b"" for an outcome, which names its decision."""
    decision: Offset
    """Of an outcome."""
    time_ms: int
    offers: int
    """Of a decision."""


def glimpse(data: bytes) -> Glimpse | None:
    """Whose a decision or an outcome is, without reading the rest; None for anything else."""
    try:
        if data[:1] == _DECISION_START:
            rows, customer_n, *_ = _LENGTHS.unpack_from(data, _LENGTHS_AT)
            [time_ms] = _TIME.unpack_from(data, 2)
            return Glimpse(data[_FIXED.size : _FIXED.size + customer_n], Offset.ZERO, time_ms, rows)
        kind, _, ms, seq, _, _, _, time_ms, *_ = _OUTCOME.unpack_from(data)
        return Glimpse(b"", Offset(ms, seq), time_ms, 0) if kind == _OUTCOME_KIND else None
    except struct.error:
        return None


FIXED_FORMAT: Final = _FIXED.format
CHOICE_FORMAT: Final = _CHOICE.format
DECISION_START: Final = _DECISION
FORM_BASIS: Final = _FORM_BASIS
FAILED_TOO: Final = _FAILED_TOO
"""How decisions are packed, for who reads many at once: engine.logcolumns, engine.whatif.records."""


def is_decision(data: bytes) -> bool:
    """Whether an entry of the decision log begins like a decision."""
    return data[:1] == _DECISION_START


def unpack(data: bytes) -> DecisionRecord | OutcomeRecord | ForgetRecord:
    """Read an entry of the decision log. Raises RecordError."""
    return DecisionRecord.unpack(data) if is_decision(data) else follow_up(data)


def decision_id(partition: int, position: Offset) -> str:
    """The name of a decision: where the log holds it.

    >>> decision_id(3, Offset(1700000000000, 2))
    '3-18bcfe56800-2'
    """
    return f"{partition:x}-{position.ms:x}-{position.seq:x}"


def parse_decision_id(text: str, partitions: int) -> tuple[int, Offset] | None:
    """(partition, position) of a decision id, None if it cannot be one: a decision has no two of them.

    >>> parse_decision_id('3-18bcfe56800-2', 8) == (3, Offset(1700000000000, 2))
    True
    >>> parse_decision_id('nonsense', 8) is None
    True
    """
    parts = text.split("-")
    if len(parts) != 3 or len(text) > 40 or not all(map(_ID_PART.fullmatch, parts)):
        return None
    partition, ms, seq = (int(part, 16) for part in parts)
    # 48 bits of milliseconds and 32 of sequence are what the ledger keeps of a position.
    if partition >= partitions or ms >= 1 << 48 or seq >= 1 << 32:
        return None
    return partition, Offset(ms, seq)
