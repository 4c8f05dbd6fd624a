"""Attribution: from the log of decisions and outcomes to lessons, by the table of engine.lifecycle. Pure.

One Attribution follows one partition. Its clock is the newest time in the log, so replay equals live: a window closes
when the log has passed its end, and what is still open then becomes a provisional no. A later outcome moves on from
there, and the change of lesson reverses the no exactly.

Goals: order of the log decides everything, a batch boundary nothing. Entries at or before `offset` change nothing.
Bounded: INSTANCES_TRACKED_MAX offers; the oldest beyond are let go without another lesson, and counted.
"""

import heapq
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from engine.lifecycle import NEXT, OPEN, TEACHES, Stage
from engine.limits import INSTANCES_TRACKED_MAX, LATE_OUTCOME_MS_MAX
from engine.record import OutcomeRecord, RecordError, Served, served
from engine.store.base import LogEntry
from features import Offset

_ROW: Final = struct.Struct("<IBq")
_STATE: Final = struct.Struct("<BQIqQQQQ")
_ENTRY: Final = struct.Struct("<QIqB")
_SEAL: Final = struct.Struct("<I")
_FORM: Final = 1
_DUE_SPARE_MAX: Final = 1_000


class AttributionError(ValueError):
    """The bytes are no state of an attribution."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What an offer instance teaches has changed: take `old` back, teach `new`. None is "no lesson"."""

    decision: Offset
    rank: int
    offer_key: int
    time_ms: int
    """Decision time: it decides the period in which the lesson counts, so taking it back finds it again."""
    old: int | None
    new: int | None


class Attribution:
    """Follows the offer instances of one partition."""

    def __init__(self) -> None:
        self.offset = Offset.ZERO
        """Last entry of the log that was taken in."""
        self.clock_ms = 0
        self.refused = 0
        """Outcomes whose move the table does not allow, or whose decision is not followed (any more)."""
        self.overflowed = 0
        """Instances let go because there were too many."""
        self.unreadable = 0
        self.expired = 0
        # Rows of (offer key, stage, window end) by decision position as one integer: about 300 bytes a decision.
        self._decisions: dict[int, tuple[int, bytearray]] = {}
        self._instances = 0
        self._due: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return self._instances

    def absorb(self, entries: Iterable[LogEntry], instances_max: int = INSTANCES_TRACKED_MAX) -> list[Lesson]:
        """Take in entries in log order and return what they teach, in order."""
        lessons: list[Lesson] = []
        for entry in entries:
            if entry.offset <= self.offset:
                continue
            self.offset = entry.offset
            try:
                record = served(entry.data)
            except RecordError:
                self.unreadable += 1
                continue
            # Windows that closed before this entry close first, or an answer after its window would not be late.
            self.clock_ms = max(self.clock_ms, record.time_ms)
            if self._due and self._due[0][0] <= self.clock_ms:
                lessons += self._close_windows()
            if isinstance(record, OutcomeRecord):
                lessons += self._move(record)
                continue
            self._open(entry.offset, record)
            while self._instances > instances_max:
                self._let_go_oldest()
        return lessons

    def stages(self, decision: Offset) -> list[Stage]:
        """Where the offers of a decision stand, in rank order; [] if it is not followed."""
        _, rows = self._decisions.get(_key(decision), (0, bytearray()))
        return [Stage(stage) for _, stage, _ in _ROW.iter_unpack(rows)]

    def _open(self, position: Offset, decision: Served) -> None:
        offers = decision.offers
        if not offers:
            return
        rows = bytearray(b"".join([_ROW.pack(key, Stage.SERVED, end_ms) for key, end_ms in offers]))
        self._follow(_key(position), decision.time_ms, rows, min([end_ms for _, end_ms in offers]))

    def _follow(self, key: int, time_ms: int, rows: bytearray, due_ms: int) -> None:
        self._decisions[key] = time_ms, rows
        self._instances += len(rows) // _ROW.size
        heapq.heappush(self._due, (due_ms, key))

    def _move(self, outcome: OutcomeRecord) -> Iterator[Lesson]:
        key = _key(outcome.decision)
        found = self._decisions.get(key)
        at = (outcome.rank - 1) * _ROW.size
        if found is None or at >= len(found[1]):
            self.refused += 1
            return
        time_ms, rows = found
        offer, stage, end_ms = _ROW.unpack_from(rows, at)
        allowed = NEXT[Stage(stage)]
        if stage == Stage.EXPIRED and outcome.time_ms < end_ms:
            # It was open when this happened; other entries have moved the clock on before it was reported.
            allowed |= {Stage.WITHDRAWN}
        if offer != outcome.offer_key or outcome.stage not in allowed:
            self.refused += 1
            return
        _ROW.pack_into(rows, at, offer, outcome.stage, end_ms)
        yield from _changed(key, outcome.rank, offer, time_ms, Stage(stage), outcome.stage)

    def _close_windows(self) -> Iterator[Lesson]:
        """Whatever is open and past its end becomes a provisional no; what is past all use is forgotten."""
        while self._due and self._due[0][0] <= self.clock_ms:
            _, key = heapq.heappop(self._due)
            found = self._decisions.get(key)
            if found is None:
                continue
            time_ms, rows = found
            for rank, (offer, stage, end_ms) in enumerate(_ROW.iter_unpack(bytes(rows)), 1):
                if end_ms <= self.clock_ms and Stage(stage) in OPEN:
                    self.expired += 1
                    _ROW.pack_into(rows, (rank - 1) * _ROW.size, offer, Stage.EXPIRED, end_ms)
                    yield from _changed(key, rank, offer, time_ms, Stage(stage), Stage.EXPIRED)
            due_ms = _next_due_ms(rows, self.clock_ms)
            if due_ms is None:
                self._forget(key)
            else:
                heapq.heappush(self._due, (due_ms, key))

    def _forget(self, key: int) -> None:
        found = self._decisions.pop(key, None)
        if found is not None:
            self._instances -= len(found[1]) // _ROW.size

    def _let_go_oldest(self) -> None:
        key = next(iter(self._decisions))
        self.overflowed += len(self._decisions[key][1]) // _ROW.size
        self._forget(key)
        # Its entry in the heap stays until it is due, in a week perhaps: without this the bound would bound nothing.
        if len(self._due) > 2 * len(self._decisions) + _DUE_SPARE_MAX:
            self._due = [due for due in self._due if due[1] in self._decisions]
            heapq.heapify(self._due)

    # --- checkpoint -------------------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """The state, canonical: equal states give equal bytes."""
        counters = (self.refused, self.overflowed, self.unreadable, self.expired)
        parts = [_STATE.pack(_FORM, self.offset.ms, self.offset.seq, self.clock_ms, *counters)]
        for key in sorted(self._decisions):
            time_ms, rows = self._decisions[key]
            parts += [_ENTRY.pack(key >> 32, key & 0xFFFFFFFF, time_ms, len(rows) // _ROW.size), bytes(rows)]
        body = b"".join(parts)
        return body + _SEAL.pack(crc32(body))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Attribution":
        """The state that `to_bytes` gave. Raises AttributionError for cut or foreign bytes."""
        self = cls()
        data, seal = data[: -_SEAL.size], data[-_SEAL.size :]
        if seal != _SEAL.pack(crc32(data)):
            raise AttributionError(f"attribution of {len(data)} bytes is cut short or damaged: its seal does not fit")
        try:
            form, ms, seq, self.clock_ms, *counters = _STATE.unpack_from(data)
            if form != _FORM:
                raise AttributionError(f"attribution of form {form}, expected {_FORM}")
            self.offset = Offset(ms, seq)
            self.refused, self.overflowed, self.unreadable, self.expired = counters
            at = _STATE.size
            while at < len(data):
                ms, seq, time_ms, count = _ENTRY.unpack_from(data, at)
                at += _ENTRY.size
                rows = bytearray(data[at : at + count * _ROW.size])
                at += len(rows)
                self._follow(ms << 32 | seq, time_ms, rows, _due_ms(rows, self.clock_ms))
        except struct.error as error:
            raise AttributionError(f"attribution of {len(data)} bytes cannot be read: {error}") from error
        return self


def _key(position: Offset) -> int:
    return position.ms << 32 | position.seq


def _next_due_ms(rows: bytearray, now_ms: int) -> int | None:
    """When the next window of a decision closes, or late outcomes are no longer taken; None if that is past too."""
    ends_ms = [end_ms for _, _, end_ms in _ROW.iter_unpack(bytes(rows))]
    late_ms: int = max(ends_ms) + LATE_OUTCOME_MS_MAX
    return min((ms for ms in (*ends_ms, late_ms) if ms > now_ms), default=None)


def _due_ms(rows: bytearray, now_ms: int) -> int:
    """When a decision taken from a checkpoint is to be looked at next."""
    # One that was made in the past of the clock may be overdue: the entry that closes its windows is still to come.
    waiting = [end_ms for _, stage, end_ms in _ROW.iter_unpack(bytes(rows)) if Stage(stage) in OPEN]
    overdue_ms = min((end_ms for end_ms in waiting if end_ms <= now_ms), default=None)
    return overdue_ms if overdue_ms is not None else _next_due_ms(rows, now_ms) or now_ms


def _changed(key: int, rank: int, offer: int, time_ms: int, old: Stage, new: Stage) -> Iterator[Lesson]:
    if TEACHES[old] != TEACHES[new]:
        yield Lesson(Offset(key >> 32, key & 0xFFFFFFFF), rank, offer, time_ms, TEACHES[old], TEACHES[new])
