"""The entry of the decision log by which a person's decisions are forgotten. Pure.

It names positions and no person: who reads the log later learns that so many decisions were forgotten, not whose.

    u8 kind (3), u8 form, i64 time_ms, u32 decisions, u32 others, u32 lost, then positions of u64 ms and u32 seq each

Its time is no earlier than any that the forgotten entries had: without them the clock of the log does not go back.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from features import Offset

KIND: Final = 3
_FORM: Final = 1
_HEAD: Final = struct.Struct("<BBqIII")
_POSITION: Final = struct.Struct("<QI")


@dataclass(frozen=True, slots=True)
class ForgetRecord:
    """What is forgotten of one name, in one partition."""

    time_ms: int
    decisions: tuple[Offset, ...]
    """Decisions with offers: what they taught is to be taken back."""
    others: tuple[Offset, ...] = ()
    """Outcomes, and decisions without offers: to be removed, they teach nothing by themselves."""
    lost: tuple[Offset, ...] = ()
    """Decisions that the ledger still named and the log no longer had: what they taught cannot be taken back."""

    @property
    def positions(self) -> tuple[Offset, ...]:
        """All that is to be removed from the log."""
        return (*self.decisions, *self.others)

    def pack(self) -> bytes:
        """The bytes that `unpack` reads."""
        groups: Sequence[Sequence[Offset]] = (self.decisions, self.others, self.lost)
        head = _HEAD.pack(KIND, _FORM, self.time_ms, *map(len, groups))
        return head + b"".join(_POSITION.pack(at.ms, at.seq) for at in chain(*groups))

    @classmethod
    def unpack(cls, data: bytes) -> "ForgetRecord":
        """Read an entry. Raises ValueError for anything else.

        >>> entry = ForgetRecord(7, (Offset(1, 2),), (), (Offset(1, 0),))
        >>> ForgetRecord.unpack(entry.pack()) == entry
        True
        """
        try:
            kind, form, time_ms, *counts = _HEAD.unpack_from(data)
            if kind != KIND or form != _FORM or len(data) != _HEAD.size + sum(counts) * _POSITION.size:
                raise ValueError(f"entry of {len(data)} bytes is none that forgets, or is cut short")
        except struct.error as error:
            raise ValueError(f"entry of {len(data)} bytes cannot be read: {error}") from error
        found = [Offset(ms, seq) for ms, seq in _POSITION.iter_unpack(data[_HEAD.size :])]
        decisions, others, _ = counts
        middle = decisions + others
        return cls(time_ms, tuple(found[:decisions]), tuple(found[decisions:middle]), tuple(found[middle:]))
