"""Customers of a segment, found in a store that may serve meanwhile. SCAN comes upon all of them, in no order."""

import re
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import numpy as np
import redis

from engine import limits
from engine.catalogue import Catalogue
from engine.errors import ConfigError, Unavailable
from engine.featurecheck.reading import client_of
from engine.leads.people import People
from engine.links import moved_to
from engine.rolled import EntityReader
from engine.rollups import is_entity
from engine.store.base import StoreError
from engine.store.redis import RedisStore
from features import RecordError

_FEATURES_KEY: Final = re.compile(rb"\{p[0-9]+\}f:(.*)", re.DOTALL)
_AT_ONCE: Final = 500


async def people_in(url: str, catalogue: Catalogue, segment: str) -> People:
    """All customers of a segment in the store at a URL, in order of their ids. Raises OpportuneError."""
    if segment not in {each.name for each in catalogue.config.segments}:
        there = ", ".join(each.name for each in catalogue.config.segments) or "none"
        raise ConfigError(f"no segment {segment!r} is declared; there are {there}")
    found: set[str] = set()
    try:
        store = await RedisStore.open(url, limits.PARTITIONS)
        try:
            async with aclosing(_customers(url)) as batches:
                async for names in batches:
                    found |= await _of_segment(store, catalogue, segment, names)
                    if len(found) > limits.LEAD_CUSTOMERS_ENTRIES_MAX:
                        raise ConfigError(f"segment {segment}: more than {limits.LEAD_CUSTOMERS_ENTRIES_MAX} customers")
        finally:
            await store.close()
    except (StoreError, redis.RedisError) as error:
        raise Unavailable(f"the store cannot be read: {error}") from error
    return {name: {} for name in sorted(found)}


async def _customers(url: str) -> AsyncGenerator[list[str], None]:
    """Names that have features, some at a time; one may come twice."""
    client = await client_of(url)
    try:
        waiting: set[str] = set()
        async for key in client.scan_iter(match=b"{p*}f:*", count=_AT_ONCE):
            match = _FEATURES_KEY.fullmatch(key)
            # Traces that nobody is linked to are nobody whom a seller could visit.
            if match and not is_entity(name := match[1].decode()) and "=" not in name:
                waiting.add(name)
            if len(waiting) >= _AT_ONCE:
                yield list(waiting)
                waiting.clear()
        if waiting:
            yield list(waiting)
    finally:
        await client.aclose()


async def _of_segment(store: RedisStore, catalogue: Catalogue, segment: str, names: list[str]) -> set[str]:
    """Those of a segment, judged as Customers.Get does."""
    states = [state for state, _ in await store.read(names)]
    there = [(name, state) for name, state in zip(names, states, strict=True) if state and not moved_to(state)]
    entities = EntityReader(catalogue.rollups, store)
    now_ms = np.array([time.time_ns() // 1_000_000])
    found = set()
    for name, state in there:
        rolled = await entities.of_customer(name)
        try:
            values = [
                layout.read([data], now_ms)
                for layout, data in zip(catalogue.layouts.values(), (state, *rolled), strict=True)
            ]
        except RecordError:
            continue  # one that cannot be read is in no segment
        if segment in catalogue.segments.of(np.concatenate(values, axis=1)):
            found.add(name)
    return found
