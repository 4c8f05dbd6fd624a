"""A period of the decision log, in columns."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine import limits
from engine.basis import Basis, BasisError
from engine.catalogue import Catalogue
from engine.config import parse
from engine.errors import ConfigError
from engine.holds import Hold
from engine.record import Basics, basics, is_decision
from engine.store.base import Store
from engine.valuecode import ValueCodeError, decoded
from engine.whatif.turns import Order, Turns
from features import Offset

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Located = tuple[Offset, Basics]
_Read = tuple[Offset, Basics, Basis]


@dataclass(frozen=True, eq=False, slots=True)
class Decisions:
    """Some decisions that one configuration made; n of them."""

    made_with: Catalogue
    positions: list[Offset]
    people: list[str]
    channels: Ints
    """(n,) in the numbers of that configuration, as are offers."""
    times_ms: Ints
    limits: Ints
    seeds: list[int]
    slates: list[Sequence[int]]
    """Offer keys in rank order."""
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
            [self.slates[row] for row in at],
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
    """Whether it is the first of a partition: all of a person is in one."""
    asked: Decisions
    order: Order | None
    """In what order, of a walk."""


async def steps_of(
    store: Store, base: Catalogue, from_ms: int | None, until_ms: int | None, left: Left, back_ms: int | None = None
) -> AsyncIterator[tuple[int, list[Step]]]:
    """(entries read, what they are) of a span of time, batch by batch. Raises StoreError.

    `base` is a configuration that need not be looked up. `back_ms` is how far before the span contacts matter, for a
    walk; None: nobody's contacts are walked, and decisions come in any order.
    """
    catalogues: dict[bytes, Catalogue | str] = {bytes.fromhex(base.version): base}
    start, end = from_ms or 0, until_ms or limits.TIME_MS_MAX + 1
    for partition in range(store.partitions):
        after, begins = Offset.ZERO, True
        turns = None if back_ms is None else Turns()
        while entries := (await store.read_decisions({partition: after}, limits.LEARN_BATCH_MAX, 0)).get(partition):
            after = entries[-1].offset
            # In a walk decisions of a configuration are together as long as no other one comes in between.
            groups: list[tuple[bytes, list[Located], Order | None]] = []
            some: dict[bytes, list[Located]] = {}
            for entry in entries:
                at, data = entry.offset, entry.data
                one = basics(data)
                if one is None:
                    left.out("their records do not say what they rest on", int(is_decision(data)))
                    if turns is not None:
                        turns.other(at, data)
                    continue
                within = start <= one.time_ms < end
                # Without a limit an open offer was resumed, nothing decided.
                if not one.limit or not (within or (back_ms is not None and start - back_ms <= one.time_ms < start)):
                    continue
                version = one.config_version
                if version not in catalogues:
                    catalogues[version] = await _catalogue(store, version.hex())
                made_with = catalogues[version]
                again = within and not isinstance(made_with, str)
                if turns is not None:
                    if again and some and version not in some:
                        groups += [(known, located, turns.taken()) for known, located in some.items()]
                        some = {}
                    turns.decision(one.customer.decode(), at, made_with, one.channel, one.time_ms)
                    if not again:
                        turns.fact(at, one.slate)
                if again:
                    some.setdefault(version, []).append((at, one))
                elif isinstance(made_with, str) and within:
                    left.out(made_with)
            if turns is not None:
                some = some or {bytes.fromhex(base.version): []}
            groups += [(version, located, turns.taken() if turns is not None else None) for version, located in some.items()]
            steps = [
                Step(begins and not place, columns_of(catalogues[version], located, left), order)
                for place, (version, located, order) in enumerate(groups)
            ]
            yield len(entries), [step for step in steps if len(step.asked) or step.order is not None]
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


def columns_of(made_with: Catalogue | str, some: Sequence[Located], left: Left) -> Decisions:
    """Decisions of one configuration, those of them that can be read."""
    assert not isinstance(made_with, str)
    columns, offers = len(made_with.rule_columns), len(made_with.offers)
    good: list[_Read] = []
    for at, one in some:
        try:
            basis = Basis.unpack(one.basis)
        except BasisError:
            left.out("their records cannot be read")
            continue
        good.append((at, one, basis))
    try:
        values = decoded([basis.seen for _, _, basis in good], columns)
    except ValueCodeError:
        # Seldom: find those that fit, one by one.
        good, values = _readable(good, columns, left)
    prices = np.zeros((len(good), offers)) if any(basis.prices for _, _, basis in good) else None
    if prices is not None:
        for row, (_, _, basis) in enumerate(good):
            for offer, price in basis.prices:
                prices[row, offer] = price
    return Decisions(
        made_with,
        [at for at, _, _ in good],
        [one.customer.decode() for _, one, _ in good],
        np.array([one.channel for _, one, _ in good], np.int64),
        np.array([one.time_ms for _, one, _ in good], np.int64),
        np.array([one.limit for _, one, _ in good], np.int64),
        [one.seed for _, one, _ in good],
        [one.slate for _, one, _ in good],
        values,
        [basis.holds for _, _, basis in good],
        prices,
        np.array([basis.surcharge for _, _, basis in good]),
        np.array([basis.gate for _, _, basis in good]),
        [one.placement for _, one, _ in good],
        [basis.values for _, _, basis in good],
    )


def _readable(good: list[_Read], columns: int, left: Left) -> tuple[list[_Read], Floats]:
    kept, rows = [], [np.zeros((0, columns))]
    for one in good:
        try:
            rows.append(decoded([one[2].seen], columns))
        except ValueCodeError:
            left.out("their records cannot be read")
        else:
            kept.append(one)
    return kept, np.concatenate(rows)
