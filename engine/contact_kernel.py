"""Contact policy over the rows of a batch, compiled: what counts where, which limits hold, contact pressure."""

from typing import Any, Final

import numpy as np
from numba import from_dtype, types

from engine.contact_rows import AGAIN, FIRST, ROWS
from engine.lifecycle import OPEN
from models.compiled import BOOLS_2D, FLOAT, FLOATS_1D, INT, INTS, INTS_2D, compiled, inlined

ALL, OFFER, CATEGORY, KIND, CHANNEL, GROUP = range(6)
"""By what a limit counts rows: its mode."""
_FIRST: Final = 64
_AGAIN: Final = 128

_TABLE: Final = types.Array(from_dtype(ROWS), 1, "C", readonly=True)
_STATIC: Final = (
    INTS_2D, BOOLS_2D, BOOLS_2D, INTS_2D, INTS, INTS, INTS, INTS, INTS, INTS, INTS, INTS, INTS,
)  # fmt: skip
"""settings, stages, in_channel, members, starts of groups; then keys of offers, categories, channels and groups of the
configuration, each sorted and with their places."""


@inlined()
def _find(key: Any, keys: Any, order: Any) -> Any:
    """Where a key stands; -1: nowhere."""
    low, high = 0, len(keys)
    while low < high:
        middle = (low + high) // 2
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return order[low] if low < len(keys) and keys[low] == key else -1


@inlined()
def _channel(key: Any, channels: Any, channel_order: Any) -> Any:
    """Index of a row's channel; then one that is not there any more; then one that is not known."""
    if key == 0:
        return len(channels) + 1
    at = _find(key, channels, channel_order)
    return len(channels) if at < 0 else at


@compiled(_TABLE, INTS, INTS, INTS_2D, *_STATIC)
def spans(
    rows: Any, row_starts: Any, here: Any, since: Any, settings: Any, stages: Any, in_channel: Any, members: Any,
    starts: Any, keys: Any, key_order: Any, categories: Any, category_order: Any, channels: Any, channel_order: Any,
    named: Any, named_order: Any,
) -> Any:  # fmt: skip
    """(first, end) in the chain of the groups of each limit in which each row counts, each (rows, limits), and (rows,)
    its offer."""
    limits = len(settings)
    first = np.zeros((len(rows), limits), dtype=np.int64)
    end = np.zeros((len(rows), limits), dtype=np.int64)
    offers = np.empty(len(rows), dtype=np.int64)
    for decision in range(len(here)):
        for at in range(row_starts[decision], row_starts[decision + 1]):
            row = rows[at]
            key, category, kind, stage, rank = row.key, row.category, row.stage >> 4, row.stage & 15, row.rank
            offer = _find(np.int64(key), keys, key_order)
            offers[at] = offer
            of_category = _find(np.int64(category), categories, category_order)
            where = _channel(np.int64(row.channel), channels, channel_order)
            for limit in range(limits):
                time_ms = row.changed if settings[limit, 2] else row.time
                if time_ms < since[decision, limit] or not stages[limit, stage] or not in_channel[limit, where]:
                    continue
                if settings[limit, 3] and not rank & _FIRST:
                    continue
                if rank & _AGAIN and not settings[limit, 5]:
                    continue
                mode, every = settings[limit, 0], False
                place: Any = -1
                if mode == ALL:
                    every = True
                elif mode == CHANNEL:
                    every = where == here[decision] or where > len(channels)
                elif mode == OFFER:
                    place, every = offer, key == 0
                elif mode == CATEGORY:
                    place, every = of_category, category == 0
                elif mode == GROUP:
                    place = offer
                    if offer < 0:
                        place = _find(np.int64(row.group), named, named_order)
                        place = place + len(keys) if place >= 0 else -1
                        every = row.group == 0
                else:
                    place, every = np.int64(kind), kind == 0
                if every:
                    first[at, limit], end[at, limit] = starts[limit], starts[limit + 1]
                elif mode == GROUP:
                    if place >= 0:
                        first[at, limit], end[at, limit] = members[limit, place], members[limit, place + 1]
                elif 0 <= place < members.shape[1] and members[limit, place] >= 0:
                    first[at, limit] = starts[limit] + members[limit, place]
                    end[at, limit] = first[at, limit] + 1
    return first, end, offers


@compiled(_TABLE, INT, INT, INTS_2D, INTS_2D, INTS, INTS)
def counts_of(rows: Any, begin: int, stop: int, first: Any, end: Any, starts: Any, chain: Any) -> Any:
    """(groups,) how much of the rows from `begin` to `stop` counts in each."""
    counts = np.zeros(starts[-1], dtype=np.int64)
    for at in range(begin, stop):
        for limit in range(first.shape[1]):
            for place in range(first[at, limit], end[at, limit]):
                counts[chain[place]] += rows[at].count
    return counts


@compiled(_TABLE, INT, INT, INT, INT, INTS_2D, INTS_2D, INTS_2D, INTS)
def freed(
    rows: Any, begin: int, stop: int, limit: int, group: int, first: Any, end: Any, settings: Any, chain: Any
) -> Any:
    """The time of the contact of a full group with whose end it is full no longer."""
    times = np.empty(stop - begin, dtype=np.int64)
    weights = np.empty(stop - begin, dtype=np.int64)
    count, left = 0, 0
    for at in range(begin, stop):
        counted = False
        for place in range(first[at, limit], end[at, limit]):
            counted = counted or chain[place] == group
        if counted:
            times[count] = rows[at].changed if settings[limit, 2] else rows[at].time
            weights[count] = rows[at].count
            left += weights[count]
            count += 1
    most = settings[limit, 1]
    if count == 1:
        return times[0]
    for place in np.argsort(times[:count]):
        left -= weights[place]
        if left < most:
            return times[place]
    return 0


@inlined()
def _is_open(stage: int) -> Any:
    return stage in (1, 2, 5, 11)  # engine.lifecycle.OPEN


@inlined()
def _is_answer(stage: int) -> Any:
    return stage in (3, 4, 7, 8, 10)


@compiled(_TABLE, INTS, INTS, INTS, INTS, INTS_2D, INTS_2D, INTS, INTS_2D, BOOLS_2D, INTS, INTS, INTS)
def look(
    rows: Any, row_starts: Any, here: Any, clocks: Any, asked: Any, first: Any, end: Any, offers: Any, settings: Any,
    in_channel: Any, starts: Any, chain: Any, windows: Any,
) -> Any:  # fmt: skip
    """(decision, group, room, time that frees it) of each group that is full or nearly, and (decision, offer, until) of
    each offer that is open."""
    found = np.empty((16, 4), dtype=np.int64)
    opened = np.empty((len(rows), 3), dtype=np.int64)
    holds, waiting = 0, 0
    for at in range(len(here)):
        begin, stop = row_starts[at], row_starts[at + 1]
        if begin == stop:
            continue
        counts = counts_of(rows, begin, stop, first, end, starts, chain)
        for limit in range(len(settings)):
            if not in_channel[limit, here[at]]:
                continue
            most = settings[limit, 1]
            for group in range(starts[limit], starts[limit + 1]):
                count = counts[group]
                if count == 0 or (count < most and (not settings[limit, 4] or most - count >= asked[at])):
                    continue
                if holds == len(found):
                    more = np.empty((2 * holds, 4), dtype=np.int64)
                    more[:holds] = found
                    found = more
                found[holds, 0], found[holds, 1], found[holds, 2], found[holds, 3] = at, group, 0, 0
                if count < most:
                    found[holds, 2] = most - count
                else:
                    found[holds, 3] = freed(rows, begin, stop, limit, group, first, end, settings, chain)
                holds += 1
        for place in range(begin, stop):
            row, offer = rows[place], offers[place]
            if offer < 0 or row.rank & _AGAIN or not _is_open(row.stage & 15):
                continue
            if row.time + windows[offer] <= clocks[at]:
                continue
            answered = False
            for other in range(begin, stop):
                if offers[other] == offer and rows[other].changed >= row.time:
                    answered = answered or _is_answer(rows[other].stage & 15)
            if not answered:
                opened[waiting, 0], opened[waiting, 1] = at, offer
                opened[waiting, 2] = row.time + windows[offer]
                waiting += 1
    return found[:holds], opened[:waiting]


@compiled(_TABLE, INTS, INTS, INTS, INTS, FLOATS_1D, FLOAT, INT)
def pressure(
    rows: Any, row_starts: Any, clocks: Any, channels: Any, channel_order: Any, weights: Any, half_life: float,
    grace: int,
) -> Any:  # fmt: skip
    """(B,) contact pressure."""
    pressure = np.zeros(len(clocks))
    for at in range(len(clocks)):
        for place in range(row_starts[at], row_starts[at + 1]):
            row = rows[place]
            age = clocks[at] - row.time
            if row.rank & _FIRST and not row.rank & _AGAIN and age >= grace:
                weight = weights[_channel(np.int64(row.channel), channels, channel_order)]
                pressure[at] += weight * row.count * 2.0 ** (-age / half_life)
    return pressure


# What is compiled reads constants of this file only (models.compiled).
assert (_FIRST, _AGAIN) == (FIRST, AGAIN)
assert frozenset({1, 2, 5, 11}) == OPEN, "_is_open says the same"
