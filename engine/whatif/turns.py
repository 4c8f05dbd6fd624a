"""The entries of a log in an order in which everybody's contacts can be walked, many people at a time.

All entries of a person are in one partition, in the order in which they were made. People do not depend on each other.
So of a batch of entries the first decision of each person is one turn, the second one the next, and an outcome is heard
after the turn of the decision that stands before it. Within a turn nobody appears twice, so a turn is decided at once.
"""

from collections.abc import Sequence
from typing import NamedTuple

from engine.catalogue import Catalogue
from engine.course import Told, standing, tag_of, taken
from engine.record import DecisionRecord, OutcomeRecord, RecordError, unpack
from features import Offset


class Fact(NamedTuple):
    """A decision that is not made again, and yet a contact: from before the period, or one that cannot be read."""

    person: str
    position: Offset
    channel: str
    """"": not known."""
    time_ms: int
    slate: Sequence[int]
    """Offer keys in rank order."""


class Heard(NamedTuple):
    """An outcome, as it is in the log."""

    person: str
    position: Offset
    """Of its decision."""
    key: int
    rank: int
    channel: str
    """Of its decision."""
    served_ms: int
    stage: int
    """Where the offer stands after it."""
    time_ms: int


class _Made(NamedTuple):
    person: str
    channel: str
    time_ms: int


class Turns:
    """Of one partition: in which turn of a batch an entry has its place."""

    def __init__(self) -> None:
        self._made: dict[Offset, _Made] = {}
        self._courses: dict[tuple[Offset, int], list[Told]] = {}
        self._next: dict[str, int] = {}
        self.facts: dict[int, list[Fact]] = {}
        self.heard: dict[int, list[Heard]] = {}
        """By the turn after which they are heard; -1: before the first."""

    def begin(self) -> None:
        """A batch begins."""
        self._next, self.facts, self.heard = {}, {}, {}

    def decision(self, person: str, position: Offset, made_with: Catalogue | str, channel: int, time_ms: int) -> int:
        """The turn of a decision. `made_with` is its configuration, or why there is none."""
        where = "" if isinstance(made_with, str) else made_with.config.channels[channel].id
        self._made[position] = _Made(person, where, time_ms)
        turn = self._next.get(person, 0)
        self._next[person] = turn + 1
        return turn

    def fact(self, turn: int, position: Offset, slate: Sequence[int]) -> None:
        """The decision of this position and turn is not made again."""
        made = self._made[position]
        self.facts.setdefault(turn, []).append(Fact(made.person, position, made.channel, made.time_ms, slate))

    def other(self, position: Offset, data: bytes) -> None:
        """An entry that is no decision, or none that says what it rests on."""
        try:
            entry = unpack(data)
        except RecordError:
            return
        if isinstance(entry, DecisionRecord):
            if not entry.resumed:
                turn = self.decision(entry.customer, position, "of an earlier release", entry.channel, entry.time_ms)
                self.fact(turn, position, [choice.key for choice in entry.slate])
        elif isinstance(entry, OutcomeRecord) and (made := self._made.get(entry.decision)) is not None:
            place = entry.decision, entry.rank
            new = Told(tag_of(entry.outcome_hash, entry.stage))
            told = taken(self._courses.get(place, []), new, entry.corrects)
            self._courses[place] = told
            turn = self._next.get(made.person, 0) - 1
            heard = Heard(
                made.person,
                entry.decision,
                entry.offer_key,
                entry.rank,
                made.channel,
                made.time_ms,
                int(standing(told)),
                entry.time_ms,
            )
            self.heard.setdefault(turn, []).append(heard)
