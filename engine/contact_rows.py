"""Contacts of one customer as rows at the end of the ledger: what contact policy counts, packed small. Pure.

    section  i64 clock_ms, u16 rows + GROUPED
    row      u64 ms, u32 seq (position of its decision in the log; zeros: of the newest decision of the ledger, whose
             position was not known yet when the row was written), u32 offer key, u32 category key, u32 channel key,
             i64 time_ms of the decision, i64 changed_ms, u8 stage + 16 × kind, u8 rank + flags, u16 count,
             u32 key of the first group that the offer named (NO_GROUP: it named none; 0: not known)

A decision adds a row for each offer that it serves anew, an outcome moves the row of its offer; the decisions that the
ledger remembers may be let go before. `clock_ms` is the newest time of a decision: the clock of a limit never goes
back.

Bounded: CONTACTS_ENTRIES_MAX rows. Those beyond the longest time that a limit asks for go first. Are there still too
many, the oldest row joins the next one of the same offer, category, channel and stage: both are counted, as of the
newer one, so a limit may hold for longer than it should and never for less. Where no two rows are alike, the oldest
join in one that counts for every limit (all keys 0, stage ANY).

Rows were once written without a group, and their section without GROUPED: they are read as of a group not known.
"""

from collections.abc import Sequence
from struct import Struct
from struct import error as StructError
from typing import Final, NamedTuple

import numpy as np

from engine.lifecycle import Stage
from engine.limits import CONTACTS_ENTRIES_MAX, SLATE_MAX
from features import Offset

SECTION: Final = Struct("<qH")
ROW: Final = Struct("<QIIIIqqBBHI")
GROUPED: Final = 0x8000
POSITION_BYTES: Final = 12
ROWS: Final = np.dtype(
    [
        ("ms", "<u8"),
        ("seq", "<u4"),
        ("key", "<u4"),
        ("category", "<u4"),
        ("channel", "<u4"),
        ("time", "<i8"),
        ("changed", "<i8"),
        ("stage", "u1"),
        ("rank", "u1"),
        ("count", "<u2"),
        ("group", "<u4"),
    ]
)
"""The same for numpy."""
FORMER_ROWS: Final = np.dtype([(name, ROWS[name]) for name in ROWS.fields or () if name != "group"])
"""Without GROUPED."""
NO_GROUP: Final = 0xFFFF_FFFF

ANY: Final = 15
"""Stage of a row that stands for several: it counts as whatever it may be."""
RANK: Final = 31
FIRST: Final = 64
"""Flag of the first row of a decision: it stands for the contact."""
AGAIN: Final = 128
"""Flag of a row that an outcome brought: its offer was open and resumed, or is known no longer. Not served anew."""
_COUNT_MAX: Final = 0xFFFF
_PENDING: Final = bytes(POSITION_BYTES)

assert ROW.size == ROWS.itemsize
assert max(Stage) < ANY
assert SLATE_MAX <= RANK
assert CONTACTS_ENTRIES_MAX < GROUPED <= _COUNT_MAX


class Contact(NamedTuple):
    """One row."""

    position: Offset
    key: int
    category: int
    channel: int
    time_ms: int
    changed_ms: int
    stage: int
    kind: int
    rank: int
    """With its flags."""
    number: int = 1
    """Contacts that it stands for."""
    group: int = 0

    def pack(self) -> bytes:
        """The bytes of the row."""
        at, stage = self.position, self.stage | self.kind << 4
        return ROW.pack(
            at.ms,
            at.seq,
            self.key,
            self.category,
            self.channel,
            self.time_ms,
            self.changed_ms,
            stage,
            self.rank,
            self.number,
            self.group,
        )


def read(data: bytes, at: int) -> tuple[int, bytes]:
    """(clock_ms, rows) of a section that reaches to the end of `data`. Raises struct.error if it does not."""
    clock_ms, told = SECTION.unpack_from(data, at)
    rows = data[at + SECTION.size :]
    count, size = told & ~GROUPED, ROW.size if told & GROUPED else FORMER_ROWS.itemsize
    if len(rows) != count * size:
        raise StructError(f"{len(rows)} bytes of contacts, expected {count * size}")
    return clock_ms, rows if size == ROW.size else _with_group(rows)


def _with_group(rows: bytes) -> bytes:
    """Rows that were written before they had a group."""
    former = np.frombuffer(rows, FORMER_ROWS)
    table = np.zeros(len(former), ROWS)
    for name in FORMER_ROWS.fields or ():
        table[name] = former[name]
    return table.tobytes()


def section(clock_ms: int, rows: bytes) -> bytes:
    """What `read` reads."""
    return SECTION.pack(clock_ms, len(rows) // ROW.size | GROUPED) + rows


def unpacked(rows: bytes) -> list[Contact]:
    """The rows one by one."""
    return [
        Contact(
            Offset(ms, seq), key, category, channel, time_ms, changed_ms, stage & 15, stage >> 4, rank, count, group
        )
        for ms, seq, key, category, channel, time_ms, changed_ms, stage, rank, count, group in ROW.iter_unpack(rows)
    ]


def placed(rows: bytes, newest: Offset) -> bytes:
    """Rows of which the last ones get the position of the newest decision, where they have none yet."""
    at = len(rows)
    while at and rows[at - ROW.size : at - ROW.size + POSITION_BYTES] == _PENDING:
        at -= ROW.size
    if at == len(rows):
        return rows
    position = newest.ms.to_bytes(8, "little") + newest.seq.to_bytes(4, "little")
    parts = [rows[:at]]
    for start in range(at, len(rows), ROW.size):
        parts += (position, rows[start + POSITION_BYTES : start + ROW.size])
    return b"".join(parts)


def bounded(rows: bytes, since_ms: int, entries_max: int = CONTACTS_ENTRIES_MAX) -> bytes:
    """Rows without what is older than any limit asks for, and no more of them than there may be."""
    if not rows:
        return rows
    # The oldest stand first, or nearly: while the first one counts there is little to let go.
    if ROW.unpack_from(rows)[6] < since_ms:
        table = np.frombuffer(rows, ROWS)
        rows = table[(table["time"] >= since_ms) | (table["changed"] >= since_ms)].tobytes()
    if len(rows) > entries_max * ROW.size:
        rows = b"".join([contact.pack() for contact in joined(unpacked(rows), entries_max)])
    return rows


def joined(rows: Sequence[Contact], entries_max: int = CONTACTS_ENTRIES_MAX) -> list[Contact]:
    """No more rows than there may be."""
    left = list(rows)
    while len(left) > entries_max:
        at, other = _alike(left)
        if other < 0:
            at, other = 0, 1
        old, new = left[at], left[other]
        count = min(_COUNT_MAX, old.number + new.number)
        if _class(old) == _class(new):
            joint = new._replace(number=count)
        else:
            joint = Contact(new.position, 0, 0, 0, new.time_ms, new.changed_ms, ANY, 0, FIRST, count)
        left[other] = joint._replace(
            time_ms=max(old.time_ms, new.time_ms), changed_ms=max(old.changed_ms, new.changed_ms)
        )
        del left[at]
    return left


def _class(contact: Contact) -> tuple[int, ...]:
    flags = contact.rank & ~RANK
    return contact.key, contact.category, contact.group, contact.channel, contact.kind, contact.stage, flags


def _alike(rows: Sequence[Contact]) -> tuple[int, int]:
    """The oldest row that has another of its class behind it, and that one; (0, -1) if all are different."""
    behind: dict[tuple[int, ...], int] = {}
    found = (0, -1)
    for at in range(len(rows) - 1, -1, -1):
        if rows[at].position == Offset.ZERO:
            continue  # its outcomes are still to find it
        other = behind.get(_class(rows[at]))
        if other is not None:
            found = (at, other)
        behind[_class(rows[at])] = at
    return found


def moved(rows: Sequence[Contact], position: Offset, rank: int, stage: int, now_ms: int) -> list[Contact] | None:
    """The rows after an outcome; None if none of them is of its offer."""
    for at, contact in enumerate(rows):
        if contact.position == position and contact.rank & RANK == rank:
            if contact.number > 1:
                return None  # it stands for several
            return [*rows[:at], contact._replace(stage=stage, changed_ms=now_ms), *rows[at + 1 :]]
    return None
