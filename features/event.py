"""What comes in: an event, and its place in the log."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple

EVENT_TIME_MS_MAX: Final = 2**53
"""Event times lie within ± this (about 285,000 years), so that no arithmetic on them overflows or rounds."""
_U64_MAX: Final = 2**64 - 1
_OFFSET_TEXT: Final = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")


class _Parts(NamedTuple):
    ms: int
    seq: int


class Offset(_Parts):
    """Place of an event in its log: a Redis stream id. Other logs number their entries from Offset(0, 1).

    Both parts are u64. Offset.ZERO stands before every event, so no event may carry it.

    >>> Offset(1718000000000, 2) < Offset(1718000000001, 0)
    True
    >>> str(Offset.parse("1718000000000-2"))
    '1718000000000-2'
    """

    __slots__ = ()

    ZERO: ClassVar["Offset"]

    @classmethod
    def parse(cls, text: str) -> "Offset":
        """Read "ms-seq". Raises ValueError for anything else."""
        match = _OFFSET_TEXT.fullmatch(text)
        if match is None or int(match[1]) > _U64_MAX or int(match[2]) > _U64_MAX:
            raise ValueError(f'offset {text!r}: expected "ms-seq", two decimal numbers below 2^64')
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"


Offset.ZERO = Offset(0, 0)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to one customer. Checked at the gateway, trusted here."""

    id_hash: int
    """u64 hash of source and id, to recognise a producer that sends twice; 0: the event has no id."""
    type: str
    time_ms: int
    """When it happened, ms since 1970 UTC; windows follow this time, not the time of arrival."""
    attributes: Mapping[str, float | str | bool]
    offset: Offset

    def __post_init__(self) -> None:
        # The two numbers that are packed into the record: a wild one must fail here, not in the middle of a fold.
        if not -EVENT_TIME_MS_MAX <= self.time_ms <= EVENT_TIME_MS_MAX:
            raise ValueError(f"event time_ms {self.time_ms}: expected a number within ±2^53")
        if not 0 <= self.id_hash <= _U64_MAX:
            raise ValueError(f"event id_hash {self.id_hash}: expected an unsigned 64-bit number")
