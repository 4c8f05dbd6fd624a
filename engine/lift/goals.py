"""What people did on their own: events of one type from the event log, counted for each person.

Only the log can tell what happens without an offer. Where it does not reach back to the first decision that counts,
what is missing is not known, and there is a refusal instead of a count.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

import numpy as np

from engine import limits
from engine.eventlog import Arrival, EventLog
from engine.experiments_schema import Goal
from engine.lift.reading import Floats, Ints
from engine.links import moved_to
from engine.rollups import is_entity
from engine.store.base import Store
from features import Offset

_NAMES_A_READ: Final = 500


class NotCovered(Exception):
    """The event log does not tell what was asked for; the message says why."""


async def count(
    store: Store,
    events: EventLog | None,
    goal: Goal,
    names: Sequence[str],
    since_ms: Ints,
    until_ms: int,
) -> Floats:
    """(people,) sum of the goal's value, or number of its events, of each person.

    Events count from the first decision of a person on, by the time at which they happened. Those under another name
    that belongs to a person now count for that person, unless the name has decisions of its own.

    Args:
        store: where names and people are.
        events: its event log; None if that is in a Kafka that was not named.
        goal: the type of event and its attribute.
        names: of the people.
        since_ms: (people,) first decision of each.
        until_ms: end of the period.

    Raises:
        NotCovered: if the log cannot tell.
        StoreError, BrokerError: if the store or Kafka is away.
    """
    if events is None:
        raise NotCovered("the events of this store are in Kafka: name its brokers with --kafka HOST:PORT")
    number = {name: at for at, name in enumerate(names)}
    found = np.zeros(len(names))
    others: dict[str, list[tuple[int, float]]] = {}
    first_ms = int(since_ms.min(initial=limits.TIME_MS_MAX))

    def add(at: int, time_ms: int, value: float) -> None:
        if since_ms[at] <= time_ms < until_ms:
            found[at] += value

    for partition in range(events.partitions):
        after, read = Offset.ZERO, 0
        begins_ms = 0
        seen: set[tuple[str, int]] = set()
        while (piece := await events.read(partition, after)) is not None:
            if piece.arrivals:
                begins_ms = begins_ms or piece.arrivals[0].arrived_ms
            after, read = piece.reached, read + piece.entries
            for name, time_ms, value in _goals(piece.arrivals, goal, seen):
                if name in number:
                    add(number[name], time_ms, value)
                else:
                    others.setdefault(name, []).append((time_ms, value))
        if begins_ms > first_ms and await events.cut(partition, read):
            raise NotCovered(
                f"the event log of partition {partition} lacks older entries and begins at {_moment(begins_ms)}, "
                f"after the first decision counted, of {_moment(first_ms)}; expected --from that time or later"
            )
    for name, owner in (await _owners(store, list(others))).items():
        for time_ms, value in others[name] if owner in number else ():
            add(number[owner], time_ms, value)
    return found


def _goals(
    arrivals: Sequence[Arrival], goal: Goal, seen: set[tuple[str, int]]
) -> Iterator[tuple[str, int, float]]:
    """(name, time, value) of the events that count; one that a producer sent twice counts once."""
    for name, event, _ in arrivals:
        if event.type != goal.event or is_entity(name) or (event.id_hash and (name, event.id_hash) in seen):
            continue
        seen.add((name, event.id_hash))
        value = 1.0 if goal.value is None else event.attributes.get(goal.value, 0.0)
        if isinstance(value, float | int):
            yield name, event.time_ms, float(value)


async def _owners(store: Store, names: Sequence[str]) -> dict[str, str]:
    """To whom names belong now, of those that belong to somebody else."""
    found: dict[str, str] = {}
    left = {name: name for name in names}
    for _ in range(limits.LINK_HOPS_MAX):
        asked = list(left)
        moved: dict[str, str] = {}
        for start in range(0, len(asked), _NAMES_A_READ):
            part = asked[start : start + _NAMES_A_READ]
            records = await store.read_features([left[name] for name in part])
            moved |= {name: to for name, to in zip(part, map(moved_to, records), strict=True) if to}
        found |= moved
        left = moved
        if not left:
            break
    return found


def _moment(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1e3, UTC).isoformat(timespec="seconds")
