"""A finding: one thing that is not as expected, said in one sentence, and the words that numbers are said with."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Literal

Section = Literal["records", "features", "events", "rejected", "drift"]


class Level(IntEnum):
    """How bad it is. From WARNING on the exit code is 1."""

    NOTE = 1
    WARNING = 2
    ERROR = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as expected.

    >>> print(Finding(Level.WARNING, "features", "age", "clipped", 0.3, "30 % lie outside 18 to 90", "below 5 %",
    ...               "widen input.range").sentence)
    age: 30 % lie outside 18 to 90, expected below 5 %; widen input.range.
    """

    level: Level
    section: Section
    subject: str
    """The feature, event type or input it is about."""
    problem: str
    """One word, for programs: missing, clipped, constant, …"""
    number: float
    """What was measured, in the unit of the threshold it was held against."""
    measured: str
    expected: str
    advice: str

    @property
    def sentence(self) -> str:
        """The finding for people."""
        return f"{self.subject}: {self.measured}, expected {self.expected}; {self.advice}."


def graded(number: float, note: float, warning: float) -> Level | None:
    """The level of a number that should be small; None below both.

    >>> graded(0.2, 0.1, 0.5), graded(0.05, 0.1, 0.5)
    (<Level.NOTE: 1>, None)
    """
    return Level.WARNING if number >= warning else Level.NOTE if number >= note else None


def percent(share: float) -> str:
    """A share for people.

    >>> percent(0.3125), percent(0.00004), percent(0.0)
    ('31.2 %', 'less than 0.1 %', '0 %')
    """
    return "less than 0.1 %" if 0.0 < share < 0.001 else f"{share * 100:.3g} %"


def number(value: float) -> str:
    """A value for people: four significant digits.

    >>> number(1234567.0), number(0.12344), number(float("nan"))
    ('1,234,567', '0.1234', '–')
    """
    if value != value:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"


def duration(ms: float) -> str:
    """A length of time for people.

    >>> duration(250), duration(90_000), duration(7_200_000), duration(864_000_000)
    ('250 ms', '1.5 min', '2 h', '10 d')
    """
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)):
        if abs(ms) >= size:
            return f"{ms / size:.3g} {unit}" if abs(ms) < 1_000 * size else f"{ms / size:,.0f} {unit}"
    return f"{ms:.3g} ms"


def moment(ms: int) -> str:
    """A time for people.

    >>> moment(1_225_540_800_000)
    '2008-11-01 12:00 UTC'
    """
    return f"{datetime.fromtimestamp(ms / 1e3, UTC):%Y-%m-%d %H:%M} UTC"
