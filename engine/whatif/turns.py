"""The entries of a log in an order in which everybody's contacts can be walked, many people at a time.

All entries of a person are in one partition, in the order in which they were made. People do not depend on each other.
So of a batch of entries the first decision of each person is one turn, the second one the next, and an outcome is heard
after the turn of the decision that stands before it. Within a turn nobody appears twice, so a turn is decided at once.
Where people do depend on each other, because they draw on the same budgets, turns follow the clock.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.course import Told, tag_of, taken
from engine.record import DecisionRecord, OutcomeRecord, RecordError, unpack
from features import Offset

Position = tuple[int, Offset]
"""(partition, place in its log)"""


class Fact(NamedTuple):
    """A decision that is not made again, and yet a contact: from before the period, or one that cannot be read."""

    person: str
    position: Position
    channel: str
    """"": not known."""
    time_ms: int
    slate: Sequence[int]
    """Offer keys in rank order."""


class Heard(NamedTuple):
    """An outcome, as it is in the log."""

    person: str
    position: Position
    """Of its decision."""
    key: int
    rank: int
    channel: str
    """Of its decision."""
    served_ms: int
    before: Sequence[Told]
    """The course of the offer up to then."""
    after: Sequence[Told]
    time_ms: int


class Turn(NamedTuple):
    """What happens at once; what is heard comes after the decisions."""

    rows: NDArray[np.int64]
    """Of the decisions that are made again."""
    facts: Sequence[Fact]
    heard: Sequence[Heard]


class Order(NamedTuple):
    """The turns of some entries."""

    turn_of: Mapping[Position, int]
    facts: Mapping[int, Sequence[Fact]]
    heard: Mapping[int, Sequence[Heard]]
    """By the turn after which they are heard; -1: before the first."""

    def turns(self, positions: Sequence[Position]) -> Iterator[Turn]:
        """The turns one after the other; `positions` are those of the decisions that are made again, by row."""
        rows: dict[int, list[int]] = {}
        for row, position in enumerate(positions):
            rows.setdefault(self.turn_of[position], []).append(row)
        for at in sorted({*rows, *self.facts, *self.heard}):
            yield Turn(np.array(rows.get(at, ()), np.int64), self.facts.get(at, ()), self.heard.get(at, ()))


class _Made(NamedTuple):
    person: str
    channel: str
    time_ms: int


class Turns:
    """In which turn each entry has its place."""

    def __init__(self, span_ms: int | None = None) -> None:
        """Where people depend on each other, by budgets, a turn is of no longer a time than `span_ms`."""
        self._span_ms = span_ms
        self._now = 0
        """The turn that others are at; without a span they are all at their own."""
        self._since_ms = 0
        self._last = 0
        self._made: dict[Position, _Made] = {}
        self._courses: dict[tuple[Position, int], list[Told]] = {}
        self._next: dict[str, int] = {}
        self._turn_of: dict[Position, int] = {}
        self._facts: dict[int, list[Fact]] = {}
        self._heard: dict[int, list[Heard]] = {}

    def taken(self) -> Order:
        """The order of what came since the last call."""
        order = Order(self._turn_of, self._facts, self._heard)
        self._next, self._turn_of, self._facts, self._heard = {}, {}, {}, {}
        self._now = self._last = 0
        return order

    def _look_at_the_clock(self, ms: int) -> None:
        if self._span_ms is not None and ms - self._since_ms > self._span_ms:
            self._since_ms, self._now = ms, self._last + 1

    def long_ago(
        self, person: str, position: Position, made_with: Catalogue | str, channel: int, time_ms: int
    ) -> None:
        """A decision that is no contact any more, of which there may still be outcomes. `made_with` is its
        configuration, or why there is none."""
        where = "" if isinstance(made_with, str) else made_with.config.channels[channel].id
        self._made[position] = _Made(person, where, time_ms)

    def decision(
        self, person: str, position: Position, made_with: Catalogue | str, channel: int, time_ms: int
    ) -> None:
        """A decision."""
        self.long_ago(person, position, made_with, channel, time_ms)
        self._look_at_the_clock(position[1].ms)
        turn = max(self._now, self._next.get(person, 0))
        self._next[person] = turn + 1
        self._last = max(self._last, turn)
        self._turn_of[position] = turn

    def fact(self, position: Position, slate: Sequence[int]) -> None:
        """The decision of this position, the newest, is not made again."""
        made, turn = self._made[position], self._turn_of[position]
        self._facts.setdefault(turn, []).append(Fact(made.person, position, made.channel, made.time_ms, slate))

    def other(self, position: Position, data: bytes) -> None:
        """An entry that is no decision, or none that says what it rests on."""
        try:
            entry = unpack(data)
        except RecordError:
            return
        if isinstance(entry, DecisionRecord):
            if not entry.resumed:
                self.decision(entry.customer, position, "of an earlier release", entry.channel, entry.time_ms)
                self.fact(position, [choice.key for choice in entry.slate])
        elif isinstance(entry, OutcomeRecord) and (made := self._made.get((position[0], entry.decision))) is not None:
            of = position[0], entry.decision
            before = self._courses.get((of, entry.rank), [])
            after = taken(before, Told(tag_of(entry.outcome_hash, entry.stage)), entry.corrects)
            self._courses[of, entry.rank] = after
            turn = self._next.get(made.person, 0) - 1
            if self._span_ms is not None:
                self._look_at_the_clock(position[1].ms)
                turn = max(self._now, turn)
                self._next[made.person], self._last = turn + 1, max(self._last, turn)
            heard = Heard(
                made.person, of, entry.offer_key, entry.rank, made.channel, made.time_ms, before, after, entry.time_ms
            )
            self._heard.setdefault(turn, []).append(heard)
