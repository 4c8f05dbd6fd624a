"""The workload of the benchmark of features: bench/features.yaml, and events drawn for it, seeded.

Customers come by uniform draws, types of events too. Events of a log come in order of their time over SPAN_MS, one in a
hundred up to an hour late; events of state that is filled in are spread over SPAN_MS in the same way.
"""

import random
from collections.abc import AsyncIterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from bench.workload import SEED, customer_id
from engine.catalogue import Catalogue
from engine.config import parse, version_of
from engine.gateway import checked_event
from engine.limits import EVENTS_PER_CALL_MAX
from engine.store.base import FeatureWrite, partition_of
from engine.store.redis import RedisStore
from features import Event, FoldResult, Layout, Offset

SPAN_MS: Final = 90 * 86_400_000
LATE_SHARE: Final = 0.01
LATE_MS_MAX: Final = 3_600_000
_DRAWN: Final = 4_096
_WRITTEN_AT_ONCE: Final = 200
Plain = float | str | bool


@cache
def feature_catalogue() -> Catalogue:
    """bench/features.yaml, compiled."""
    text = Path(__file__).with_name("features.yaml").read_bytes()
    return Catalogue.compile(parse(text), version_of(text), text)


@cache
def drawn() -> Sequence[tuple[str, dict[str, Plain]]]:
    """(type, attributes) of some thousands of events, which the workload takes turns with."""
    dice = random.Random(SEED)
    events = feature_catalogue().config.events
    found = []
    for _ in range(_DRAWN):
        event = dice.choice(events)
        attributes: dict[str, Plain] = {}
        for name, attribute in event.attributes.items():
            if attribute.type == "number":
                low, high = attribute.range or (0, 1)
                attributes[name] = round(dice.uniform(low, high), 2)
            elif attribute.type == "text":
                attributes[name] = dice.choice(attribute.values)
            else:
                attributes[name] = dice.random() < 0.5
        found.append((event.type, attributes))
    return found


class Log:
    """Events for a log of so many customers and so many events, in order, as they come out of the gateway."""

    def __init__(self, customers: int, events: int, now_ms: int) -> None:
        self._dice = random.Random(SEED)
        self._customers = customers
        self._events = events
        self._now_ms = now_ms
        self._at = 0

    async def append(self, store: RedisStore, events: int) -> None:
        """Append the next events to the store's log."""
        for start in range(0, events, EVENTS_PER_CALL_MAX):
            await store.append_events([self._next() for _ in range(min(EVENTS_PER_CALL_MAX, events - start))])

    def _next(self) -> tuple[str, bytes]:
        dice = self._dice
        customer = customer_id(int(dice.random() * self._customers))
        time_ms = self._now_ms - SPAN_MS + SPAN_MS * self._at // self._events
        if dice.random() < LATE_SHARE:
            time_ms -= int(dice.random() * LATE_MS_MAX)
        event_type, attributes = drawn()[int(dice.random() * _DRAWN)]
        self._at += 1
        event = checked_event(
            str(self._at), "/bench", event_type, customer, time_ms, attributes, feature_catalogue(), self._now_ms
        )
        return event.customer, event.data


async def fill(store: RedisStore, customers: int, events_each: int, now_ms: int) -> AsyncIterator[int]:
    """Write the state that the engine's fold makes of drawn events; yields how many customers are written."""
    layout = feature_catalogue().layout
    by_partition: dict[int, list[str]] = {}
    for number in range(customers):
        customer = customer_id(number)
        by_partition.setdefault(partition_of(customer, store.partitions), []).append(customer)
    dice = np.random.default_rng(SEED)
    written = 0
    for partition, names in by_partition.items():
        for start in range(0, len(names), _WRITTEN_AT_ONCE):
            group = names[start : start + _WRITTEN_AT_ONCE]
            records = _folded(layout, len(group), events_each, now_ms, dice)
            writes = [FeatureWrite(name, b"", record) for name, record in zip(group, records, strict=True)]
            done = await store.write_features(partition, writes, Offset.ZERO, 0)
            assert all(done), "the store was not empty"
            written += len(group)
            yield written


def _folded(layout: Layout, count: int, events_each: int, now_ms: int, dice: np.random.Generator) -> list[bytes]:
    times = np.sort(now_ms - dice.integers(SPAN_MS, size=(count, events_each)), axis=1).tolist()
    picked = dice.integers(_DRAWN, size=(count, events_each)).tolist()
    ids = dice.integers(1, 2**63, size=(count, events_each)).tolist()
    pool = drawn()
    events = []
    for row in range(count):
        of_one = []
        for at, (time_ms, draw, digest) in enumerate(zip(times[row], picked[row], ids[row], strict=True)):
            event_type, attributes = pool[draw]
            of_one.append(Event(digest, event_type, time_ms, attributes, Offset(1, at + 1)))
        events.append(of_one)
    results = layout.fold_many([None] * count, events)
    return [result.record for result in results if isinstance(result, FoldResult)]

