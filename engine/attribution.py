"""Attribution: from the log of decisions and outcomes to lessons, by the table of engine.lifecycle. Pure.

One Attribution follows one partition. Its clock is the newest time in the log, so replay equals live: a window closes
when the log has passed its end, and what is still open then becomes a provisional no. A later outcome moves on from
there, and the change of lesson reverses the no exactly. An accepted offer whose terms wait for its delivery teaches
nothing meanwhile; when that window closes it counts as what it is. What was taught is kept with each instance, so it is
taken back as it was taught even if the terms have changed since.

Of every instance with outcomes the course is kept (engine.course): corrections and instalments need it.

Goals: order of the log decides everything, a batch boundary nothing. Entries at or before `offset` change nothing.
Bounded: INSTANCES_TRACKED_MAX offers; the oldest beyond are let go without another lesson, and counted.
"""

import heapq
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final
from zlib import crc32

import numpy as np
import orjson

from engine.course import Told, in_force, is_known, problem, standing, tag_of, taken
from engine.forget.entry import ForgetRecord
from engine.lifecycle import OPEN, TARGET_YES, TEACHES, Stage
from engine.limits import INSTANCES_TRACKED_MAX, LATE_OUTCOME_MS_MAX
from engine.logcolumns import columns_of
from engine.record import OutcomeRecord, RecordError, follow_up
from engine.store.base import LogEntry
from engine.terms import Terms, salt_of
from features import Offset

_ROW: Final = struct.Struct("<IBBq")
"""Offer key, stage, what was taught (and _RESPONSE), end of the window."""
_ROWS: Final = np.dtype([("offer", "<u4"), ("stage", "u1"), ("taught", "u1"), ("end_ms", "<i8")])
"""The same, for many at once."""
_ROW_1: Final = struct.Struct("<IBq")
_COURSE: Final = struct.Struct("<BBB")
"""Rank, stage before the first outcome, outcomes."""
_TOLD: Final = struct.Struct("<Qq")
_NO_PART: Final = -(1 << 63)
_NO_LESSON: Final = 255
_RESPONSE: Final = 128
"""Beside the target: it was taught that the customer responded."""
_STATE: Final = struct.Struct("<BQIqQQQQ")
_ENTRY: Final = struct.Struct("<QIqB")
_SEAL: Final = struct.Struct("<I")
_FORM: Final = 2
_DUE_SPARE_MAX: Final = 1_000


assert _ROWS.itemsize == _ROW.size


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
    old_response: bool = False
    """Whether the customer responded, where that is told beside the target: of offers with terms."""
    new_response: bool = False

    @property
    def changes(self) -> list[tuple[int, bool, int]]:
        """(target, response, sign) of what is taken back and what is taught."""
        both = (self.old, self.old_response, -1), (self.new, self.new_response, 1)
        return [(target, response, sign) for target, response, sign in both if target is not None]

    @classmethod
    def of(cls, decision: Offset, rank: int, offer_key: int, time_ms: int, old: int, new: int) -> "Lesson | None":
        """From what was taught and what is, as the rows of `Attribution` have it; None if that is the same."""
        if old == new:
            return None
        (old_target, old_response), (new_target, new_response) = map(_taught, (old, new))
        return cls(decision, rank, offer_key, time_ms, old_target, new_target, old_response, new_response)

    @property
    def back(self) -> "Lesson":
        """It takes back what this one teaches."""
        return replace(self, old=self.new, old_response=self.new_response, new=None, new_response=False)


@dataclass(frozen=True, slots=True)
class Forgotten:
    """An entry that forgets, taken in."""

    at: Offset
    unfollowed: tuple[Offset, ...]
    """Its decisions that were not followed (any more): what they taught is only in the log."""
    lessons: int
    """Lessons of the others, taken back."""


class Attribution:
    """Follows the offer instances of one partition.

    Args:
        terms: by offer key, for offers of which a yes is not simply 1 and a no 0.
    """

    def __init__(self, terms: Mapping[int, Terms] | None = None) -> None:
        self._terms = terms or {}
        self.offset = Offset.ZERO
        """Last entry of the log that was taken in."""
        self.clock_ms = 0
        self.refused = 0
        """Outcomes whose move the table does not allow, or whose decision is not followed (any more)."""
        self.overflowed = 0
        """Instances let go because there were too many."""
        self.unreadable = 0
        self.expired = 0
        self.forgotten: list[Forgotten] = []
        """Entries that forget, until the caller has dealt with them; no part of the state."""
        # Rows of _ROW by decision position as one integer: about 300 bytes a decision.
        self._decisions: dict[int, tuple[int, bytearray]] = {}
        # Packed courses of those with outcomes, by decision and rank.
        self._courses: dict[int, dict[int, bytes]] = {}
        self._instances = 0
        self._due: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return self._instances

    def absorb(self, entries: Iterable[LogEntry], instances_max: int = INSTANCES_TRACKED_MAX) -> list[Lesson]:
        """Take in entries in log order and return what they teach, in order."""
        lessons: list[Lesson] = []
        new = list(entries)
        decisions = _decisions_in([entry.data for entry in new])
        for at, entry in enumerate(new):
            if entry.offset <= self.offset:
                continue
            self.offset = entry.offset
            found = decisions.get(at)
            if found is not None:
                time_ms, due_ms, rows = found
                lessons += self._moved_on(time_ms)
                if rows:
                    self._follow(_key(entry.offset), time_ms, bytearray(rows), due_ms)
                    while self._instances > instances_max:
                        self._let_go_oldest()
                continue
            try:
                record = follow_up(entry.data)
            except RecordError:
                self.unreadable += 1
                continue
            lessons += self._moved_on(record.time_ms)
            lessons += self._move(record) if isinstance(record, OutcomeRecord) else self._unlearn(entry.offset, record)
        return lessons

    def _moved_on(self, time_ms: int) -> Iterable[Lesson]:
        """Windows that closed before an entry close first, or an answer after its window would not be late."""
        self.clock_ms = max(self.clock_ms, time_ms)
        return self._close_windows() if self._due and self._due[0][0] <= self.clock_ms else ()

    def stages(self, decision: Offset) -> list[Stage]:
        """Where the offers of a decision stand, in rank order; [] if it is not followed."""
        _, rows = self._decisions.get(_key(decision), (0, bytearray()))
        return [Stage(stage) for _, stage, _, _ in _ROW.iter_unpack(rows)]

    def share(self, decision: Offset, rank: int, stage: Stage) -> float | None:
        """What an offer that is followed is worth in this stage, as a share of its value; None: it teaches nothing."""
        key = _key(decision)
        offer, _, _, _ = _ROW.unpack_from(self._decisions[key][1], (rank - 1) * _ROW.size)
        terms = self._terms.get(offer)
        if terms is None:
            target = TEACHES[stage]
            return None if target is None else target / TARGET_YES
        reward = terms.reward(stage, in_force(self._told(key, rank)))
        return None if reward is None else reward / terms.value

    def _follow(self, key: int, time_ms: int, rows: bytearray, due_ms: int) -> None:
        self._decisions[key] = time_ms, rows
        self._instances += len(rows) // _ROW.size
        heapq.heappush(self._due, (due_ms, key))

    def _told(self, key: int, rank: int) -> list[Told]:
        packed = self._courses.get(key, {}).get(rank)
        return [] if packed is None else _unpacked(packed)[1]

    def _move(self, outcome: OutcomeRecord) -> Iterator[Lesson]:
        key, rank = _key(outcome.decision), outcome.rank
        found = self._decisions.get(key)
        at = (rank - 1) * _ROW.size
        if found is None or not 0 <= at < len(found[1]):
            self.refused += 1
            return
        time_ms, rows = found
        offer, number, taught, end_ms = _ROW.unpack_from(rows, at)
        now_at = Stage(number)
        packed = self._courses.get(key, {}).get(rank)
        base: Stage
        told: list[Told]
        if packed is None:
            base, told = Stage.SERVED if now_at == Stage.EXPIRED else now_at, []
        else:
            base, told = _unpacked(packed)
        terms = self._terms.get(offer)
        part = None if terms is None else terms.part(outcome.value, _rewards(outcome))
        new = Told(tag_of(outcome.outcome_hash, outcome.stage), part)
        # It was open when this happened; other entries have moved the clock on before it was reported.
        in_time = now_at == Stage.EXPIRED and outcome.time_ms < end_ms
        if (
            offer != outcome.offer_key
            or is_known(told, outcome.outcome_hash)
            or problem(told, new, outcome.corrects, now_at, base=base, adds=part is not None, in_time=in_time)
        ):
            self.refused += 1
            return
        told = taken(told, new, outcome.corrects)
        self._courses.setdefault(key, {})[rank] = _packed(rank, base, told)
        stage = standing(told, base)
        if stage in OPEN and end_ms <= self.clock_ms:
            stage = Stage.EXPIRED
        yield from self._stand(key, rank, offer, time_ms, stage, taught, end_ms, rows)

    def _stand(
        self, key: int, rank: int, offer: int, time_ms: int, stage: Stage, taught: int, end_ms: int, rows: bytearray
    ) -> Iterator[Lesson]:
        """An instance now stands here: what it teaches replaces what was taught."""
        new = self._teaches(key, rank, offer, time_ms, stage)
        _ROW.pack_into(rows, (rank - 1) * _ROW.size, offer, stage, new, end_ms)
        lesson = Lesson.of(Offset(key >> 32, key & 0xFFFFFFFF), rank, offer, time_ms, taught, new)
        if lesson is not None:
            yield lesson

    def _teaches(self, key: int, rank: int, offer: int, time_ms: int, stage: Stage) -> int:
        """As a row has it."""
        terms = self._terms.get(offer)
        if terms is None:
            target = TEACHES[stage]
            return _NO_LESSON if target is None else target
        if stage == Stage.ACCEPTED and self._waits_until_ms(offer, time_ms) > self.clock_ms:
            return _NO_LESSON
        told = in_force(self._told(key, rank))
        reward = terms.reward(stage, told)
        if reward is None:
            return _NO_LESSON
        return terms.target(reward, salt_of(key, rank)) | (_RESPONSE if terms.responded(stage, told) else 0)

    def _waits_until_ms(self, offer: int, time_ms: int) -> int:
        terms = self._terms.get(offer)
        return 0 if terms is None else terms.waits_until_ms(time_ms)

    def _unlearn(self, at: Offset, forget: ForgetRecord) -> Iterator[Lesson]:
        """Take back what the decisions of a person teach now, and follow them no longer."""
        unfollowed, lessons = [], 0
        for position in (*forget.decisions, *forget.lost):
            key = _key(position)
            found = self._decisions.get(key)
            if found is None:
                unfollowed.append(position)
                continue
            time_ms, rows = found
            for rank, (offer, _, taught, _) in enumerate(_ROW.iter_unpack(bytes(rows)), 1):
                lesson = Lesson.of(position, rank, offer, time_ms, taught, _NO_LESSON)
                if lesson is not None:
                    lessons += 1
                    yield lesson
            self._forget(key)
        self.forgotten.append(Forgotten(at, tuple(unfollowed), lessons))

    def _close_windows(self) -> Iterator[Lesson]:
        """Whatever waits and is past its end counts as what it is; what is past all use is forgotten."""
        while self._due and self._due[0][0] <= self.clock_ms:
            _, key = heapq.heappop(self._due)
            found = self._decisions.get(key)
            if found is None:
                continue
            time_ms, rows = found
            for rank, (offer, number, taught, end_ms) in enumerate(_ROW.iter_unpack(bytes(rows)), 1):
                stage = Stage(number)
                if end_ms <= self.clock_ms and stage in OPEN:
                    self.expired += 1
                    yield from self._stand(key, rank, offer, time_ms, Stage.EXPIRED, taught, end_ms, rows)
                elif self._is_waiting(stage, taught) and self._waits_until_ms(offer, time_ms) <= self.clock_ms:
                    yield from self._stand(key, rank, offer, time_ms, stage, taught, end_ms, rows)
            due_ms = self._next_due_ms(time_ms, rows)
            if due_ms is None:
                self._forget(key)
            else:
                heapq.heappush(self._due, (due_ms, key))

    @staticmethod
    def _is_waiting(stage: Stage, taught: int) -> bool:
        """Whether it was accepted, and its delivery is waited for."""
        return stage == Stage.ACCEPTED and taught == _NO_LESSON

    def _next_due_ms(self, time_ms: int, rows: bytearray) -> int | None:
        """When the next window of a decision closes, or late outcomes are no longer taken; None if that is past too."""
        ends_ms = [end_ms for _, _, _, end_ms in _ROW.iter_unpack(bytes(rows))]
        if self._terms:
            ends_ms += [self._waits_until_ms(offer, time_ms) for offer, _, _, _ in _ROW.iter_unpack(bytes(rows))]
        late_ms: int = max(ends_ms) + LATE_OUTCOME_MS_MAX
        return min((ms for ms in (*ends_ms, late_ms) if ms > self.clock_ms), default=None)

    def _due_ms(self, time_ms: int, rows: bytearray) -> int:
        """When a decision taken from a checkpoint is to be looked at next."""
        # One that was made in the past of the clock may be overdue: the entry that closes its windows is still to come.
        # So may one that waits for a delivery, if its terms have changed since.
        waiting = []
        for offer, number, taught, end_ms in _ROW.iter_unpack(bytes(rows)):
            if Stage(number) in OPEN:
                waiting.append(end_ms)
            elif self._is_waiting(Stage(number), taught):
                waiting.append(self._waits_until_ms(offer, time_ms))
        overdue_ms = min((end_ms for end_ms in waiting if end_ms <= self.clock_ms), default=None)
        return overdue_ms if overdue_ms is not None else self._next_due_ms(time_ms, rows) or self.clock_ms

    def _forget(self, key: int) -> None:
        found = self._decisions.pop(key, None)
        if found is not None:
            self._instances -= len(found[1]) // _ROW.size
            self._courses.pop(key, None)

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
            courses = self._courses.get(key, {})
            parts.append(bytes([len(courses)]))
            parts += [courses[rank] for rank in sorted(courses)]
        body = b"".join(parts)
        return body + _SEAL.pack(crc32(body))

    def uncounted(self) -> bytes:
        """The state without its counters: what it still knows, and not what it has seen."""
        counters = self.refused, self.overflowed, self.unreadable, self.expired
        self.refused = self.overflowed = self.unreadable = self.expired = 0
        try:
            return self.to_bytes()
        finally:
            self.refused, self.overflowed, self.unreadable, self.expired = counters

    @classmethod
    def from_bytes(cls, data: bytes, terms: Mapping[int, Terms] | None = None) -> "Attribution":
        """The state that `to_bytes` gave, of this form or the one before. Raises AttributionError for other bytes."""
        self = cls(terms)
        data, seal = data[: -_SEAL.size], data[-_SEAL.size :]
        if seal != _SEAL.pack(crc32(data)):
            raise AttributionError(f"attribution of {len(data)} bytes is cut short or damaged: its seal does not fit")
        try:
            form, ms, seq, self.clock_ms, *counters = _STATE.unpack_from(data)
            if form not in (1, _FORM):
                raise AttributionError(f"attribution of form {form}, expected {_FORM}")
            self.offset = Offset(ms, seq)
            self.refused, self.overflowed, self.unreadable, self.expired = counters
            at = _STATE.size
            while at < len(data):
                ms, seq, time_ms, count = _ENTRY.unpack_from(data, at)
                at += _ENTRY.size
                key = ms << 32 | seq
                if form == 1:
                    rows = _rows_of_form_1(data[at : at + count * _ROW_1.size])
                    at += count * _ROW_1.size
                else:
                    rows = bytearray(data[at : at + count * _ROW.size])
                    at = self._read_courses(key, data, at + count * _ROW.size)
                self._follow(key, time_ms, rows, self._due_ms(time_ms, rows))
        except (struct.error, ValueError) as error:
            if isinstance(error, AttributionError):
                raise
            raise AttributionError(f"attribution of {len(data)} bytes cannot be read: {error}") from error
        return self

    def _read_courses(self, key: int, data: bytes, at: int) -> int:
        """Take in the courses of a decision, which begin here; returns where they end."""
        [courses] = struct.unpack_from("<B", data, at)
        at += 1
        for _ in range(courses):
            rank, _, count = _COURSE.unpack_from(data, at)
            end = at + _COURSE.size + count * _TOLD.size
            packed = data[at:end]
            _unpacked(packed)
            self._courses.setdefault(key, {})[rank] = packed
            at = end
        return at


def _decisions_in(data: Sequence[bytes]) -> dict[int, tuple[int, int, bytes]]:
    """Which entries are decisions: when each was made, when the first of its windows closes, and its rows.

    All at once: following a decision of three offers takes 2 µs so, and 5 if each is read alone. What has no window is
    left out: it offers nothing (engine.silent), so nothing is waited for, and nothing learnt.
    """
    columns = columns_of(data)
    offered = columns.ends_ms != 0
    rows = np.empty(offered.shape, _ROWS)
    rows["offer"], rows["stage"], rows["taught"] = columns.keys, Stage.SERVED, _NO_LESSON
    rows["end_ms"] = columns.ends_ms
    due_ms = np.where(offered, columns.ends_ms, np.iinfo(np.int64).max).min(axis=1)
    counts = offered.sum(axis=1)
    packed, width = rows.tobytes(), rows.shape[1] * _ROW.size
    found = {
        entry: (time_ms, due, packed[at * width : at * width + count * _ROW.size])
        for at, (entry, time_ms, due, count) in enumerate(
            zip(columns.entries.tolist(), columns.times_ms.tolist(), due_ms.tolist(), counts.tolist(), strict=True)
        )
    }
    for at in np.flatnonzero(counts < columns.counts).tolist():
        entry = int(columns.entries[at])
        found[entry] = (*found[entry][:2], rows[at][offered[at]].tobytes())
    return found


def _taught(row: int) -> tuple[int | None, bool]:
    """(target, response) as a row has them."""
    return (None, False) if row == _NO_LESSON else (row & ~_RESPONSE, bool(row & _RESPONSE))


def _key(position: Offset) -> int:
    return position.ms << 32 | position.seq


def _packed(rank: int, base: Stage, told: list[Told]) -> bytes:
    entries = [_TOLD.pack(tag, _NO_PART if part is None else part) for tag, part in told]
    return b"".join((_COURSE.pack(rank, base, len(told)), *entries))


def _unpacked(packed: bytes) -> tuple[Stage, list[Told]]:
    _, base, _ = _COURSE.unpack_from(packed)
    told = [Told(tag, None if part == _NO_PART else part) for tag, part in _TOLD.iter_unpack(packed[_COURSE.size :])]
    return Stage(base), told


def _rows_of_form_1(data: bytes) -> bytearray:
    """Rows that did not say what was taught: it was what the stage teaches."""
    rows = bytearray()
    for offer, stage, end_ms in _ROW_1.iter_unpack(data):
        target = TEACHES[Stage(stage)]
        rows += _ROW.pack(offer, stage, _NO_LESSON if target is None else target, end_ms)
    return rows


def _rewards(outcome: OutcomeRecord) -> dict[str, float]:
    try:
        found: dict[str, float] = orjson.loads(outcome.rewards) if outcome.rewards else {}
    except orjson.JSONDecodeError:
        return {}
    return found
