"""A period of the decision log, in columns."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

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
from features import Offset

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False, slots=True)
class Decisions:
    """Some decisions that one configuration made; n of them."""

    made_with: Catalogue
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


async def decisions_of(
    store: Store, base: Catalogue, from_ms: int | None, until_ms: int | None, left: Left
) -> AsyncIterator[tuple[int, list[Decisions]]]:
    """(entries read, decisions by configuration) of a span of time, batch by batch. Raises StoreError.

    `base` is a configuration that need not be looked up.
    """
    catalogues: dict[bytes, Catalogue | str] = {bytes.fromhex(base.version): base}
    start, end = from_ms or 0, until_ms or limits.TIME_MS_MAX + 1
    for partition in range(store.partitions):
        after = Offset.ZERO
        while entries := (await store.read_decisions({partition: after}, limits.LEARN_BATCH_MAX, 0)).get(partition):
            after = entries[-1].offset
            by_version: dict[bytes, list[Basics]] = {}
            for entry in entries:
                one = basics(entry.data)
                if one is None:
                    left.out("their records do not say what they rest on", int(is_decision(entry.data)))
                elif one.limit and start <= one.time_ms < end:  # without: an open offer was resumed, nothing decided
                    by_version.setdefault(one.config_version, []).append(one)
            found = []
            for version, some in by_version.items():
                if version not in catalogues:
                    catalogues[version] = await _catalogue(store, version.hex())
                catalogue = catalogues[version]
                if isinstance(catalogue, str):
                    left.out(catalogue, len(some))
                else:
                    found.append(columns_of(catalogue, some, left))
            yield len(entries), [each for each in found if len(each)]


async def _catalogue(store: Store, version: str) -> Catalogue | str:
    """A configuration, or why there is none."""
    text = await store.load_config(version)
    if text is None:
        return f"configuration {version} was not kept"
    try:
        return Catalogue.compile(parse(text, version), version, text)
    except ConfigError as error:
        return f"configuration {version} cannot be read any more: {error}"


def columns_of(made_with: Catalogue, some: Sequence[Basics], left: Left) -> Decisions:
    """Decisions of one configuration, those of them that can be read."""
    columns, offers = len(made_with.rule_columns), len(made_with.offers)
    good: list[tuple[Basics, Basis]] = []
    for one in some:
        try:
            basis = Basis.unpack(one.basis)
        except BasisError:
            left.out("their records cannot be read")
            continue
        good.append((one, basis))
    try:
        values = decoded([basis.seen for _, basis in good], columns)
    except ValueCodeError:
        # Seldom: find those that fit, one by one.
        good, values = _readable(good, columns, left)
    prices = np.zeros((len(good), offers)) if any(basis.prices for _, basis in good) else None
    if prices is not None:
        for at, (_, basis) in enumerate(good):
            for offer, price in basis.prices:
                prices[at, offer] = price
    return Decisions(
        made_with,
        [one.customer.decode() for one, _ in good],
        np.array([one.channel for one, _ in good], np.int64),
        np.array([one.time_ms for one, _ in good], np.int64),
        np.array([one.limit for one, _ in good], np.int64),
        [one.seed for one, _ in good],
        [one.slate for one, _ in good],
        values,
        [basis.holds for _, basis in good],
        prices,
        np.array([basis.surcharge for _, basis in good]),
        np.array([basis.gate for _, basis in good]),
        [one.placement for one, _ in good],
        [basis.values for _, basis in good],
    )


def _readable(good: list[tuple[Basics, Basis]], columns: int, left: Left) -> tuple[list[tuple[Basics, Basis]], Floats]:
    kept, rows = [], [np.zeros((0, columns))]
    for one, basis in good:
        try:
            rows.append(decoded([basis.seen], columns))
        except ValueCodeError:
            left.out("their records cannot be read")
        else:
            kept.append((one, basis))
    return kept, np.concatenate(rows)
