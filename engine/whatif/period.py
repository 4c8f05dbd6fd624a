"""A period of the decision log, in columns."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine import limits
from engine.catalogue import Catalogue
from engine.config import parse
from engine.errors import ConfigError
from engine.holds import Hold
from engine.record import is_decision
from engine.store.base import LogEntry, Store
from engine.valuecode import ValueCodeError, decoded
from engine.whatif.records import Records, bases, read
from engine.whatif.turns import Order, Position, Turns
from features import Offset

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_TOGETHER_ENTRIES_MAX: Final = 250
_SPAN_MS: Final = 1_000
"""What comes back to a budget within so long a time is there for others after it."""


@dataclass(frozen=True, eq=False, slots=True)
class Decisions:
    """Some decisions that one configuration made; n of them."""

    made_with: Catalogue
    positions: list[Position]
    people: list[str]
    channels: Ints
    """(n,) in the numbers of that configuration, as are offers."""
    times_ms: Ints
    limits: Ints
    seeds: list[int]
    slates: Ints
    """(n, K) offer keys in rank order, padded with 0."""
    values: Floats
    """(n, columns) what they saw."""
    holds: list[tuple[Hold, ...]]
    prices: Floats | None
    """(n, offers); None: nothing has any."""
    surcharges: Floats
    gates: Floats
    placements: list[int]
    answers: list[tuple[tuple[int, float], ...]]
    """(offer, what knowing the answer to it was worth) of questions."""

    def __len__(self) -> int:
        return len(self.people)

    def only(self, rows: Ints) -> "Decisions":
        """Those of these rows."""
        at = rows.tolist()
        return Decisions(
            self.made_with,
            [self.positions[row] for row in at],
            [self.people[row] for row in at],
            self.channels[rows],
            self.times_ms[rows],
            self.limits[rows],
            [self.seeds[row] for row in at],
            self.slates[rows],
            self.values[rows],
            [self.holds[row] for row in at],
            None if self.prices is None else self.prices[rows],
            self.surcharges[rows],
            self.gates[rows],
            [self.placements[row] for row in at],
            [self.answers[row] for row in at],
        )


@dataclass(slots=True)
class Left:
    """Decisions that are left out, by why."""

    counts: dict[str, int] = field(default_factory=dict)

    def out(self, why: str, count: int = 1) -> None:
        """Leave some out."""
        if count:
            self.counts[why] = self.counts.get(why, 0) + count

    def told(self) -> list[str]:
        """In words, the most first."""
        ranked = sorted(self.counts.items(), key=lambda entry: (-entry[1], entry[0]))
        return [f"left out {count:,} decisions: {why}" for why, count in ranked]


class Step(NamedTuple):
    """Some decisions of one configuration. In a walk there may be none, and yet something happens."""

    begins: bool
    """Whether nobody is in it, or later, who was before."""
    asked: Decisions
    order: Order | None
    """In what order, of a walk."""


async def steps_of(
    store: Store,
    base: Catalogue,
    from_ms: int | None,
    until_ms: int | None,
    left: Left,
    back_ms: int | None = None,
    *,
    together: bool = False,
) -> AsyncIterator[tuple[int, list[Step]]]:
    """(entries read, what they are) of a span of time, batch by batch. Raises StoreError.

    `base` is a configuration that need not be looked up. `back_ms` is how far before the span contacts matter, for a
    walk; None: nobody's contacts are walked, and decisions come in any order. Partitions come one after the other, or
    `together`, in the order of time.
    """
    home = bytes.fromhex(base.version)
    catalogues: dict[bytes, Catalogue | str] = {home: base}
    start, end, reach_ms = from_ms or 0, until_ms or limits.TIME_MS_MAX + 1, back_ms or 0
    first = start if back_ms is None else 0  # of what is long ago there may still be outcomes
    turns: Turns | None = None
    async for begins, partitions, entries in _together(store) if together else _apart(store):
        if begins:
            turns = None if back_ms is None else Turns(_SPAN_MS if together else None)
        places = [(partition, entry.offset) for partition, entry in zip(partitions, entries, strict=True)]
        records = read([entry.data for entry in entries])
        lacking = sum(is_decision(records.data[at]) for at in records.others)
        left.out("their records do not say what they rest on", lacking)
        times_ms, versions = records.fixed["time"], records.versions
        # Without a limit an open offer was resumed, nothing decided.
        rows = np.flatnonzero((records.fixed["limit"] > 0) & (first <= times_ms) & (times_ms < end))
        for version in {versions[row] for row in rows.tolist()}.difference(catalogues):
            catalogues[version] = await _catalogue(store, version.hex())
        again: dict[int, bytes] = {}
        for row in rows[times_ms[rows] >= start].tolist():
            catalogue = catalogues[versions[row]]
            if isinstance(catalogue, str):
                left.out(catalogue)
            else:
                again[row] = versions[row]
        if turns is None:
            groups = _by_version(again)
        else:
            groups = _in_order(turns, places, records, rows, again, catalogues, start - reach_ms)
            groups = groups or [(home, [], turns.taken())]
        steps = [
            Step(begins and not place, columns_of(catalogues[version], records, places, some, left), order)
            for place, (version, some, order) in enumerate(groups)
        ]
        yield len(entries), [step for step in steps if len(step.asked) or step.order is not None]


_Group = tuple[bytes, list[int], Order | None]


def _by_version(again: Mapping[int, bytes]) -> list[_Group]:
    """Rows by the configuration that decided."""
    groups: dict[bytes, list[int]] = {}
    for row, version in again.items():
        groups.setdefault(version, []).append(row)
    return [(version, rows, None) for version, rows in groups.items()]


def _in_order(
    turns: Turns,
    places: Sequence[Position],
    records: Records,
    rows: Ints,
    again: Mapping[int, bytes],
    catalogues: Mapping[bytes, Catalogue | str],
    since_ms: int,
) -> list[_Group]:
    """The same for a walk: those of a configuration are together as long as no other one comes in between. What was
    before `since_ms` is no contact any more."""
    groups: list[_Group] = []
    some: list[int] = []
    row_of = dict(zip(records.entries[rows].tolist(), rows.tolist(), strict=True))
    people = dict(zip(rows.tolist(), records.people(rows), strict=True))
    times_ms, channels, slates = (
        each.tolist() for each in (records.fixed["time"], records.fixed["channel"], records.slates)
    )
    others, versions = set(records.others), records.versions
    for place, at in enumerate(places):
        if place in others:
            turns.other(at, records.data[place])
        row = row_of.get(place)
        if row is None:
            continue
        made = people[row], at, catalogues[versions[row]], channels[row], times_ms[row]
        if times_ms[row] < since_ms:
            turns.long_ago(*made)
            continue
        if row in again and some and again[row] != again[some[0]]:
            groups.append((again[some[0]], some, turns.taken()))
            some = []
        turns.decision(*made)
        if row in again:
            some.append(row)
        else:
            turns.fact(at, [key for key in slates[row] if key])
    return [*groups, (again[some[0]], some, turns.taken())] if some else groups


_Batch = tuple[bool, Sequence[int], Sequence[LogEntry]]
"""(whether others begin, partition of each entry, entries)"""


async def _apart(store: Store) -> AsyncIterator[_Batch]:
    """The log, one partition after the other."""
    for partition in range(store.partitions):
        after, begins = Offset.ZERO, True
        while entries := (await store.read_decisions({partition: after}, limits.LEARN_BATCH_MAX, 0)).get(partition):
            yield begins, [partition] * len(entries), entries
            after, begins = entries[-1].offset, False


async def _together(store: Store) -> AsyncIterator[_Batch]:
    """The log in the order of time."""
    after = dict.fromkeys(range(store.partitions), Offset.ZERO)
    waiting: dict[int, list[LogEntry]] = {}
    begins = True
    while True:
        if hungry := {partition: at for partition, at in after.items() if not waiting.get(partition)}:
            found = await store.read_decisions(hungry, _TOGETHER_ENTRIES_MAX, 0)
            for partition in hungry:
                if entries := found.get(partition):
                    waiting[partition], after[partition] = entries, entries[-1].offset
                else:
                    del after[partition]  # it ends there
                    waiting.pop(partition, None)
        if not waiting:
            return
        # What comes later in any of them is later than this.
        known = min([waiting[partition][-1].offset for partition in after] or [Offset(limits.TIME_MS_MAX, 0)])
        some = sorted(
            (entry.offset, partition, entry.data)
            for partition, entries in waiting.items()
            for entry in entries
            if entry.offset <= known
        )
        waiting = {
            partition: left
            for partition, entries in waiting.items()
            if (left := [entry for entry in entries if entry.offset > known])
        }
        for start in range(0, len(some), _TOGETHER_ENTRIES_MAX):
            part = some[start : start + _TOGETHER_ENTRIES_MAX]
            yield begins, [partition for _, partition, _ in part], [LogEntry(at, data) for at, _, data in part]
            begins = False


async def _catalogue(store: Store, version: str) -> Catalogue | str:
    """A configuration, or why there is none."""
    text = await store.load_config(version)
    if text is None:
        return f"configuration {version} was not kept"
    try:
        return Catalogue.compile(parse(text, version), version, text)
    except ConfigError as error:
        return f"configuration {version} cannot be read any more: {error}"


def columns_of(
    made_with: Catalogue | str, records: Records, places: Sequence[Position], rows: Sequence[int], left: Left
) -> Decisions:
    """Decisions of one configuration, those of these rows that can be read."""
    assert not isinstance(made_with, str)
    columns, offers = len(made_with.rule_columns), len(made_with.offers)
    found = bases(records, np.array(rows, np.int64))
    try:
        values = decoded(found.seen, columns)
    except ValueCodeError:
        # Seldom: find those that fit, one by one.
        values, there = _readable(found.seen, columns)
        found = found.only(there)
    good = found.good
    left.out("their records cannot be read", len(rows) - len(good))
    prices = None
    if any(found.prices):
        prices = np.zeros((len(good), offers))
        for place, some in enumerate(found.prices):
            for offer, price in some:
                prices[place, offer] = price
    fixed = records.fixed[good]
    return Decisions(
        made_with,
        [places[at] for at in records.entries[good].tolist()],
        records.people(good),
        fixed["channel"].astype(np.int64),
        fixed["time"].astype(np.int64),
        fixed["limit"].astype(np.int64),
        fixed["seed"].tolist(),
        records.slates[good],
        values,
        found.holds,
        prices,
        found.surcharges,
        found.gates,
        fixed["placement"].tolist(),
        found.answers,
    )


def _readable(seen: Sequence[bytes], columns: int) -> tuple[Floats, Ints]:
    """The values of the rows that can be read, and which they are."""
    there, values = [], [np.zeros((0, columns))]
    for place, one in enumerate(seen):
        with suppress(ValueCodeError):
            values.append(decoded([one], columns))
            there.append(place)
    return np.concatenate(values), np.array(there, np.int64)
