"""The compiled part: records taken apart, changed, put together, read. All that a compiled function calls stands in
this file (see features.compiled); what the tables hold is made in features.tables.

A group within a record (its bit in the head of the record is set):

    head      zigzag varint: tile of the latest event − head   ┐
    n         varint: tiles that hold anything                 │ a lifetime group is one tile and has none of these
    n tiles   gap (varint): how far behind the one before,     ┘
                 the first: behind the head
              mask: a bit for each cell of the group, whether it holds anything; then the values of those cells

    COUNT     varint                       SUM       zigzag varint
    MIN, MAX  number                       NEWEST    time
    LAST, FIRST  time, number              BITS      varint n, n ≤ 60 varint gaps, or 61 and all 128 bytes

    number    hundredths, zigzag, as varint × 2, if that is exact; otherwise the byte 1 and the eight bytes
    time      varint: in a tile ms since its start, in a lifetime group ms before the latest event

To work on, a record is a state: head of each group; for each slot (tile mod tiles) the number of the tile in it; the
words of each slot, a mask first. A slot whose tile has fallen behind the window is empty: passing a tile costs nothing.
"""

# What is an int to the compiler is an int or a numpy integer to the type checker.
# mypy: disable-error-code="arg-type,assignment,return-value,operator"

import sys
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from features.cells import BITS, COUNT, FIRST, LAST, MAX, MIN, NEWEST, SUM
from features.compiled import (
    BYTES,
    BYTES_WRITTEN,
    FLOATS,
    FLOATS_2D,
    INT,
    INTS,
    INTS_2D,
    INTS_2D_WRITTEN,
    UINTS,
    compiled,
    inlined,
)
from features.record import COUNTER_MAX, EVENT_IDS_REMEMBERED_MAX, FORMAT, HEADER_BYTES, ID_BYTES, MAGIC, NEVER_MS
from features.spec import DECAY_TILE_HALF_LIVES, DISTINCT_BITS, VALUE_UNITS_MAX

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

WRONG: Final = 1
"""The record is damaged, or not one of this format and layout: features.record says which."""

# Columns of the tables.
G_TILE_MS, G_TILES, G_SLOT, G_WORD, G_WIDTH, G_CELL, G_CELLS, G_MASK_WORDS = range(8)
C_KIND, C_WORD, C_VIEW, C_VIEWS = range(4)
U_GROUP, U_CELL, U_KIND, U_VALUE, U_CONDITION, U_WORD = range(6)
V_TARGET, V_TILES, V_OP, V_SLOT = range(4)
T_FIRST, T_UPDATES = range(2)
F_OP, F_A, F_B = range(3)

# What an update does: a kind of cell, or this: the value says which of the cells from here on counts.
BY_SLOT: Final = 8

# What a view adds to its raw number. By kind of cell; these are others.
DECAY: Final = 9
SHARE_HOUR: Final = 10
SHARE_WEEKDAY: Final = 11

# What a feature makes of its raw number.
AS_IT_IS, SCALED, MEAN, RECENCY, DISTINCT, SHARE, RATIO = range(7)

# The state of a record, besides groups: scalars.
S_LATEST, S_EVENTS, S_DUPLICATES, S_LATE, S_IDS = range(5)
SCALARS: Final = 5

_COUNT: Final = 0
_SUM: Final = 1
_MIN: Final = 2
_MAX: Final = 3
_LAST: Final = 4
_FIRST: Final = 5
_NEWEST: Final = 6
_BITS: Final = 7
_BITS_WORDS: Final = 16
_NEVER_MS: Final = -(2**62)
_IDS_MAX: Final = 32
_ID_BYTES: Final = 5
_ID_MASK: Final = 2**40 - 1
_HEADER_BYTES: Final = 36
_MAGIC: Final = 0x4F
_FORMAT: Final = 2
_INCREMENT_UNITS_MAX: Final = 2.0**53
"""One value of a sum is clamped to ± this many units of the resolution, times its weight if it decays."""
_SUM_UNITS_MAX: Final = 2**63 - 1
"""A sum stops here. Reading is exact up to 2^53 units, a thousandth of this."""
_COUNTER_MAX: Final = 2**32 - 1
_POSITIONS_MAX: Final = 60
"""Positions of a sketch that are written one by one; beyond, all its bytes are fewer."""
_HUNDREDTHS_MAX: Final = 2.0**50
_MS_PER_SECOND: Final = 1_000.0

# A change elsewhere must reach this file; and numbers are read in place, so the machine's are like the record's.
assert sys.byteorder == "little"
assert (_COUNT, _SUM, _MIN, _MAX, _LAST, _FIRST, _NEWEST, _BITS) == (COUNT, SUM, MIN, MAX, LAST, FIRST, NEWEST, BITS)
assert (_NEVER_MS, _IDS_MAX, _ID_BYTES) == (NEVER_MS, EVENT_IDS_REMEMBERED_MAX, ID_BYTES)
assert (_HEADER_BYTES, _MAGIC, _FORMAT, _COUNTER_MAX) == (HEADER_BYTES, MAGIC, FORMAT, COUNTER_MAX)
assert 64 * _BITS_WORDS == DISTINCT_BITS
assert _INCREMENT_UNITS_MAX == VALUE_UNITS_MAX
assert _INCREMENT_UNITS_MAX * 2**DECAY_TILE_HALF_LIVES < _SUM_UNITS_MAX


def _crc_tables() -> npt.NDArray[np.int64]:
    """CRC-32 (that of zlib) of each byte, followed by 0 to 7 zero bytes: eight bytes are then eight look-ups."""
    tables = np.zeros((8, 256), np.int64)
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0xEDB88320 if value & 1 else 0)
        tables[0, byte] = value
    for behind in range(1, 8):
        for byte in range(256):
            value = int(tables[behind - 1, byte])
            tables[behind, byte] = value >> 8 ^ int(tables[0, value & 0xFF])
    return tables


_CRC: Final = _crc_tables()


@inlined()
def _crc(data: Bytes, at: int, end: int, crc: int) -> int:
    """Checksum of a stretch after another, whose checksum is `crc` (0: none)."""
    crc ^= 0xFFFFFFFF
    while end - at >= 8:
        low = crc ^ (data[at] | data[at + 1] << 8 | data[at + 2] << 16 | data[at + 3] << 24)
        crc = (
            _CRC[7, low & 0xFF]
            ^ _CRC[6, low >> 8 & 0xFF]
            ^ _CRC[5, low >> 16 & 0xFF]
            ^ _CRC[4, low >> 24 & 0xFF]
            ^ _CRC[3, data[at + 4]]
            ^ _CRC[2, data[at + 5]]
            ^ _CRC[1, data[at + 6]]
            ^ _CRC[0, data[at + 7]]
        )
        at += 8
    while at < end:
        crc = crc >> 8 ^ _CRC[0, (crc ^ data[at]) & 0xFF]
        at += 1
    return crc ^ 0xFFFFFFFF


# --- numbers in and out ---------------------------------------------------------------------------------------------


@inlined()
def _get(data: Bytes, at: int) -> tuple[int, int]:
    """(varint, where it ends)."""
    value, shift = np.int64(0), np.int64(0)
    while True:
        byte = np.int64(data[at])
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


@inlined()
def _put(data: Bytes, at: int, value: int) -> int:
    while value & ~np.int64(0x7F):
        data[at] = value & 0x7F | 0x80
        at += 1
        value = value >> 7 & 0x01FFFFFFFFFFFFFF
    data[at] = value
    return at + 1


@inlined()
def _zigzag(value: int) -> int:
    return value << 1 ^ value >> 63


@inlined()
def _unzigzag(value: int) -> int:
    return value >> 1 & 0x7FFFFFFFFFFFFFFF ^ -(value & 1)


@inlined()
def _raw(data: Bytes, at: int, width: int) -> int:
    value = np.int64(0)
    for i in range(width):
        value |= np.int64(data[at + i]) << 8 * i
    return value


@inlined()
def _put_raw(data: Bytes, at: int, value: int, width: int) -> int:
    for i in range(width):
        data[at + i] = value >> 8 * i & 0xFF
    return at + width


@inlined()
def _get_value(
    data: Bytes, at: int, kind: int, base: int, forward: bool, words: Integers, floats: Floats, word: int
) -> int:
    """Read the value of a cell to `words[word:]`; times count from `base`. Returns where it ends."""
    if kind <= _SUM:
        value, at = _get(data, at)
        words[word] = value if kind == _COUNT else _unzigzag(value)
        return at
    if kind == _BITS:
        for i in range(_BITS_WORDS):
            words[word + i] = 0
        count, at = _get(data, at)
        if count > _POSITIONS_MAX:
            for i in range(_BITS_WORDS):
                words[word + i] = _raw(data, at, 8)
                at += 8
            return at
        position = np.int64(-1)
        for _ in range(count):
            gap, at = _get(data, at)
            position += gap + 1
            words[word + (position >> 6)] |= np.int64(1) << (position & 63)
        return at
    if kind >= _LAST:
        gap, at = _get(data, at)
        words[word] = base + gap if forward else base - gap
        if kind == _NEWEST:
            return at
        word += 1
    value, at = _get(data, at)
    if value & 1:
        words[word] = _raw(data, at, 8)
        return at + 8
    floats[word] = _unzigzag(value >> 1 & 0x7FFFFFFFFFFFFFFF) / 100.0
    return at


@inlined()
def _put_value(
    data: Bytes, at: int, kind: int, base: int, forward: bool, words: Integers, floats: Floats, word: int
) -> int:
    if kind == _COUNT:
        return _put(data, at, words[word])
    if kind == _SUM:
        return _put(data, at, _zigzag(words[word]))
    if kind == _BITS:
        count = np.int64(0)
        for i in range(_BITS_WORDS):
            count += _ones(words[word + i])
        if count > _POSITIONS_MAX:
            at = _put(data, at, _POSITIONS_MAX + 1)
            for i in range(_BITS_WORDS):
                at = _put_raw(data, at, words[word + i], 8)
            return at
        at = _put(data, at, count)
        before = np.int64(-1)
        for position in range(64 * _BITS_WORDS):
            if words[word + (position >> 6)] >> (position & 63) & 1:
                at = _put(data, at, position - before - 1)
                before = position
        return at
    if kind >= _LAST:
        at = _put(data, at, words[word] - base if forward else base - words[word])
        if kind == _NEWEST:
            return at
        word += 1
    value = floats[word]
    hundredths = np.rint(value * 100.0)
    if abs(hundredths) < _HUNDREDTHS_MAX and hundredths / 100.0 == value:
        return _put(data, at, _zigzag(np.int64(hundredths)) << 1)
    data[at] = 1
    return _put_raw(data, at + 1, words[word], 8)


@inlined()
def _ones(word: int) -> int:
    """How many bits are set."""
    word = word - (word >> 1 & 0x5555555555555555)
    word = (word & 0x3333333333333333) + (word >> 2 & 0x3333333333333333)
    word = word + (word >> 4) & 0x0F0F0F0F0F0F0F0F
    return (word * np.int64(0x0101010101010101)) >> 56 & 0xFF


# --- records and states ---------------------------------------------------------------------------------------------


@inlined()
def _whole(data: Bytes, start: int, end: int, version: int) -> bool:
    """Whether a record of this layout lies here, undamaged."""
    if end - start < _HEADER_BYTES + 4 or data[start] != _MAGIC or data[start + 1] != _FORMAT:
        return False
    if _raw(data, start + 4, 4) != version:
        return False
    return bool(_checksum(data, start, end) == _raw(data, start + 24, 4))


@inlined()
def _checksum(data: Bytes, start: int, end: int) -> int:
    """Checksum of a record: of all but its own four bytes."""
    return _crc(data, start + 28, end, _crc(data, start, start + 24, 0))


@inlined()
def _clear(heads: Integers, slots: Integers, scalars: Integers) -> None:
    heads[:] = _NEVER_MS
    slots[:] = _NEVER_MS
    scalars[:] = 0
    scalars[S_LATEST] = _NEVER_MS


@inlined()
def _unpack(
    data: Bytes,
    start: int,
    groups: Integers,
    cells: Integers,
    heads: Integers,
    slots: Integers,
    words: Integers,
    floats: Floats,
    ids: Integers,
    scalars: Integers,
) -> None:
    """A whole record into a state."""
    _clear(heads, slots, scalars)
    latest = _raw(data, start + 28, 8)
    scalars[S_LATEST] = latest
    at = start + _HEADER_BYTES
    for i in range(S_EVENTS, S_IDS + 1):
        scalars[i], at = _get(data, at)
    for i in range(scalars[S_IDS]):
        ids[i] = _raw(data, at, _ID_BYTES)
        at += _ID_BYTES
    present_at = at
    at += (len(groups) + 7) >> 3
    for g in range(len(groups)):
        if not data[present_at + (g >> 3)] >> (g & 7) & 1:
            continue
        tile_ms, tiles = groups[g, G_TILE_MS], groups[g, G_TILES]
        head, count = np.int64(0), np.int64(1)
        if tile_ms:
            lag, at = _get(data, at)
            head = latest // tile_ms - _unzigzag(lag)
            count, at = _get(data, at)
        heads[g] = head
        tile = head
        for _ in range(count):
            if tile_ms:
                gap, at = _get(data, at)
                tile -= gap
            slot = tile % tiles
            slots[groups[g, G_SLOT] + slot] = tile
            row = groups[g, G_WORD] + slot * groups[g, G_WIDTH]
            mask_words = groups[g, G_MASK_WORDS]
            for i in range(mask_words):
                words[row + i] = 0
            mask_at = at
            at += (groups[g, G_CELLS] + 7) >> 3
            base = tile * tile_ms if tile_ms else latest
            for c in range(groups[g, G_CELLS]):
                if data[mask_at + (c >> 3)] >> (c & 7) & 1:
                    words[row + (c >> 6)] |= np.int64(1) << (c & 63)
                    cell = groups[g, G_CELL] + c
                    word = row + cells[cell, C_WORD]
                    at = _get_value(data, at, cells[cell, C_KIND], base, tile_ms > 0, words, floats, word)


@inlined()
def _pack(
    data: Bytes,
    start: int,
    version: int,
    ms: int,
    seq: int,
    groups: Integers,
    cells: Integers,
    heads: Integers,
    slots: Integers,
    words: Integers,
    floats: Floats,
    ids: Integers,
    scalars: Integers,
) -> int:
    """A state into a record; returns where it ends."""
    latest = scalars[S_LATEST]
    data[start], data[start + 1], data[start + 2], data[start + 3] = _MAGIC, _FORMAT, 0, 0
    at = _put_raw(data, start + 4, version, 4)
    at = _put_raw(data, at, ms, 8)
    at = _put_raw(data, at, seq, 8)
    at = _put_raw(data, at + 4, latest, 8)
    for i in range(S_EVENTS, S_LATE + 1):
        at = _put(data, at, min(scalars[i], _COUNTER_MAX))
    at = _put(data, at, scalars[S_IDS])
    for i in range(scalars[S_IDS]):
        at = _put_raw(data, at, ids[i], _ID_BYTES)
    present_at = at
    for _ in range((len(groups) + 7) >> 3):
        data[at] = 0
        at += 1
    for g in range(len(groups)):
        head, tile_ms, tiles = heads[g], groups[g, G_TILE_MS], groups[g, G_TILES]
        if head == _NEVER_MS or (tile_ms == 0 and slots[groups[g, G_SLOT]] != 0):
            continue
        data[present_at + (g >> 3)] |= 1 << (g & 7)
        count_at, count = at, 0
        if tile_ms:
            at = count_at = _put(data, at, _zigzag(latest // tile_ms - head))
            # The count stands before the tiles and is known after them; one byte holds it unless there are many.
            at += 1 if tiles < 128 else 2
        before = head
        # A remainder a tile would be most of the work: slots go down as tiles do, around the ring.
        slot = head % tiles
        for age in range(tiles):
            tile = head - age
            if age:
                slot = slot - 1 if slot else tiles - 1
            if slots[groups[g, G_SLOT] + slot] != tile:
                continue
            row = groups[g, G_WORD] + slot * groups[g, G_WIDTH]
            holds = np.int64(0)
            for i in range(groups[g, G_MASK_WORDS]):
                holds |= words[row + i]
            if holds == 0 and tile_ms:
                continue
            if tile_ms:
                count += 1
                at = _put(data, at, before - tile)
                before = tile
            base = tile * tile_ms if tile_ms else latest
            for i in range((groups[g, G_CELLS] + 7) >> 3):
                data[at] = words[row + (i >> 3)] >> 8 * (i & 7) & 0xFF
                at += 1
            for c in range(groups[g, G_CELLS]):
                if words[row + (c >> 6)] >> (c & 63) & 1:
                    cell = groups[g, G_CELL] + c
                    word = row + cells[cell, C_WORD]
                    at = _put_value(data, at, cells[cell, C_KIND], base, tile_ms > 0, words, floats, word)
        if tile_ms and tiles < 128:
            data[count_at] = count
        elif tile_ms:
            data[count_at], data[count_at + 1] = count & 0x7F | 0x80, count >> 7
    _put_raw(data, start + 24, _checksum(data, start, at), 4)
    return at


@inlined()
def _claim(g: int, tile: int, groups: Integers, slots: Integers, words: Integers) -> int:
    """The words of a tile of a group, its mask first; emptied if another tile was there."""
    slot = tile % groups[g, G_TILES]
    row = groups[g, G_WORD] + slot * groups[g, G_WIDTH]
    if slots[groups[g, G_SLOT] + slot] != tile:
        slots[groups[g, G_SLOT] + slot] = tile
        for i in range(groups[g, G_MASK_WORDS]):
            words[row + i] = 0
    return int(row)


@inlined()
def _width(kind: int) -> int:
    """Words of a cell."""
    if kind == _BITS:
        return _BITS_WORDS
    return 2 if kind in (_LAST, _FIRST) else 1


@inlined()
def _combine(
    kind: int, mine: int, words: Integers, floats: Floats, theirs: int, others: Integers, other_floats: Floats
) -> None:
    """Add a cell to one that holds something. Words and floats are one memory, here and there."""
    if kind == _COUNT:
        words[mine] += others[theirs]
    elif kind == _SUM:
        words[mine] = _added(words[mine], others[theirs])
    elif kind == _MIN:
        floats[mine] = min(floats[mine], other_floats[theirs])
    elif kind == _MAX:
        floats[mine] = max(floats[mine], other_floats[theirs])
    elif kind == _NEWEST:
        words[mine] = max(words[mine], others[theirs])
    elif kind == _BITS:
        for i in range(_BITS_WORDS):
            words[mine + i] |= others[theirs + i]
    else:
        later = others[theirs] > words[mine] if kind == _LAST else others[theirs] < words[mine]
        if others[theirs] == words[mine]:
            a, b = floats[mine + 1], other_floats[theirs + 1]
            later = b > a if kind == _LAST else b < a
        if later:
            words[mine] = others[theirs]
            words[mine + 1] = others[theirs + 1]


@inlined()
def _added(a: int, b: int) -> int:
    """The sum, which stops at ± _SUM_UNITS_MAX."""
    total = a + b
    if (a ^ total) & (b ^ total) < 0 or total < -_SUM_UNITS_MAX:
        return _SUM_UNITS_MAX if a > 0 else -_SUM_UNITS_MAX
    return total


# --- fold -----------------------------------------------------------------------------------------------------------


@inlined()
def _apply(
    event_type: int,
    time: int,
    row: int,
    values: Floats,
    kinds: Integers,
    updates: Integers,
    scales: Floats,
    groups: Integers,
    heads: Integers,
    slots: Integers,
    words: Integers,
    floats: Floats,
    scratch: Integers,
    scratch_floats: Floats,
) -> bool:
    """Let the cells take an event; True if some window had passed it."""
    late, group, place = False, -1, -1
    start = time
    first = kinds[event_type, T_FIRST]
    for u in range(first, first + kinds[event_type, T_UPDATES]):
        g = updates[u, U_GROUP]
        if g != group:
            group, place = g, -1
            tile_ms = groups[g, G_TILE_MS]
            tile = time // tile_ms if tile_ms else 0
            start = tile * tile_ms
            if heads[g] == _NEVER_MS or tile > heads[g]:
                heads[g] = tile
            if tile <= heads[g] - groups[g, G_TILES]:
                late = True
            else:
                place = _claim(g, tile, groups, slots, words)
        if place < 0:
            continue
        if updates[u, U_CONDITION] >= 0 and values[row + updates[u, U_CONDITION]] != 1.0:
            continue
        kind, cell, word = updates[u, U_KIND], updates[u, U_CELL], updates[u, U_WORD]
        value = 1.0
        if updates[u, U_VALUE] >= 0:
            value = values[row + updates[u, U_VALUE]]
            if not np.isfinite(value):
                continue
        if kind == BY_SLOT:
            cell += np.int64(value)
            word += np.int64(value)
            kind = _COUNT
        if kind == _COUNT:
            scratch[0] = 1
        elif kind == _SUM:
            most = _INCREMENT_UNITS_MAX
            if scales[u, 2] > 0.0:
                # The bound grows with the weight: it is one on the value, wherever in its tile the event falls.
                weight = 2.0 ** ((time - start) / scales[u, 2])
                value *= weight
                most *= weight
            # Clamped before it is rounded: a large value times the scale may have become infinite.
            units = value * scales[u, 0] / scales[u, 1]
            scratch[0] = np.int64(np.rint(max(-most, min(most, units))))
        elif kind <= _MAX:
            scratch_floats[0] = value + 0.0
        elif kind == _BITS:
            scratch[:] = 0
            position = np.int64(value)
            scratch[position >> 6] = np.int64(1) << (position & 63)
        else:
            scratch[0] = time
            scratch_floats[1] = value + 0.0
        bit = np.int64(1) << (cell & 63)
        if words[place + (cell >> 6)] & bit:
            _combine(kind, place + word, words, floats, 0, scratch, scratch_floats)
        else:
            words[place + (cell >> 6)] |= bit
            for i in range(_width(kind)):
                words[place + word + i] = scratch[i]
    return late


@compiled(
    *(BYTES, INTS, INTS, INT),
    *(INTS_2D, INTS_2D, INTS_2D, INTS_2D, FLOATS_2D, INT),
    *(INTS, INTS, UINTS, UINTS, UINTS, INTS, INTS, INTS, FLOATS),
    *(BYTES_WRITTEN, INTS_2D_WRITTEN),
)
def fold(
    data: Bytes,
    starts: Integers,
    ends: Integers,
    version: int,
    groups: Integers,
    cells: Integers,
    kinds: Integers,
    updates: Integers,
    scales: Floats,
    words_in_all: int,
    firsts: Integers,
    counts: Integers,
    event_ids: npt.NDArray[np.uint64],
    event_ms: npt.NDArray[np.uint64],
    event_seq: npt.NDArray[np.uint64],
    event_times: Integers,
    event_types: Integers,
    event_rows: Integers,
    values: Floats,
    out: Bytes,
    results: Integers,
) -> None:
    """Fold events firsts[r] … firsts[r] + counts[r] into record r, which lies at starts[r] … ends[r] (empty: none yet).

    Writes the next records one after the other to `out`, and for each (status, end in `out`, applied, duplicates, late,
    redelivered); a record that does not change is not written: its end is that of the one before.
    """
    heads = np.empty(len(groups), np.int64)
    slots = np.empty(groups[:, G_TILES].sum(), np.int64)
    words = np.empty(words_in_all, np.int64)
    ids = np.zeros(_IDS_MAX, np.int64)
    scalars = np.empty(SCALARS, np.int64)
    scratch = np.empty(_BITS_WORDS, np.int64)
    # Made once: a view costs as much as ten numbers do.
    floats, scratch_floats = words.view(np.float64), scratch.view(np.float64)
    at = 0
    for r in range(len(starts)):
        results[r] = 0
        ms, seq = np.uint64(0), np.uint64(0)
        if ends[r] > starts[r]:
            if not _whole(data, starts[r], ends[r], version):
                results[r, 0] = WRONG
                results[r, 1] = at
                continue
            _unpack(data, starts[r], groups, cells, heads, slots, words, floats, ids, scalars)
            ms, seq = np.uint64(_raw(data, starts[r] + 8, 8)), np.uint64(_raw(data, starts[r] + 16, 8))
        else:
            _clear(heads, slots, scalars)
        applied, duplicates, late = 0, 0, 0
        for e in range(firsts[r], firsts[r] + counts[r]):
            if event_ms[e] < ms or (event_ms[e] == ms and event_seq[e] <= seq):
                results[r, 5] += 1
                continue
            ms, seq = event_ms[e], event_seq[e]
            short = np.int64(event_ids[e] & np.uint64(_ID_MASK))
            known = False
            for i in range(scalars[S_IDS]):
                known |= ids[i] == short
            if known and event_ids[e] != 0:
                duplicates += 1
                continue
            if event_ids[e] != 0:
                if scalars[S_IDS] == _IDS_MAX:
                    for i in range(_IDS_MAX - 1):
                        ids[i] = ids[i + 1]
                    scalars[S_IDS] -= 1
                ids[scalars[S_IDS]] = short
                scalars[S_IDS] += 1
            applied += 1
            scalars[S_LATEST] = max(scalars[S_LATEST], event_times[e])
            if event_types[e] >= 0 and _apply(
                event_types[e],
                event_times[e],
                event_rows[e],
                values,
                kinds,
                updates,
                scales,
                groups,
                heads,
                slots,
                words,
                floats,
                scratch,
                scratch_floats,
            ):
                late += 1
        results[r, 2], results[r, 3], results[r, 4] = applied, duplicates, late
        if ends[r] == starts[r] or applied or duplicates:
            scalars[S_EVENTS] += applied
            scalars[S_DUPLICATES] += duplicates
            scalars[S_LATE] += late
            at = _pack(
                out,
                at,
                version,
                np.int64(ms),
                np.int64(seq),
                groups,
                cells,
                heads,
                slots,
                words,
                floats,
                ids,
                scalars,
            )
        results[r, 1] = at


# --- merge ----------------------------------------------------------------------------------------------------------


@compiled(
    *(BYTES, INTS, INTS, INTS),
    *(INTS_2D, INTS_2D, INT, INTS_2D, INTS_2D, INT, INTS, INTS),
    *(INTS, FLOATS, INTS, INT, INT, BYTES_WRITTEN),
)
def merge(
    data: Bytes,
    starts: Integers,
    ends: Integers,
    versions: Integers,
    groups: Integers,
    cells: Integers,
    words_in_all: int,
    other_groups: Integers,
    other_cells: Integers,
    other_words_in_all: int,
    group_map: Integers,
    cell_map: Integers,
    renumbered: Integers,
    numbers: Floats,
    sources: Integers,
    counted: int,
    version: int,
    out: Bytes,
) -> int:
    """One record of records of another layout (or the same): what the union of their events would have given.

    `group_map` and `cell_map` say for each group and cell here which it is there, -1: none; `renumbered` where in
    `numbers` those begin that a cell here has for the categories there, -1: the same; `sources` from which record each
    cell here is taken, -1: from all. Watermark: of the first. Counters of the first `counted` add up; of their ids
    the newest are kept, those of the first record last. Returns the length, or -1 - r if record r is not whole.
    """
    heads = np.empty(len(groups), np.int64)
    slots = np.empty(groups[:, G_TILES].sum(), np.int64)
    words = np.empty(words_in_all, np.int64)
    ids = np.zeros(_IDS_MAX, np.int64)
    scalars = np.empty(SCALARS, np.int64)
    their_heads = np.empty(len(other_groups), np.int64)
    their_slots = np.empty(other_groups[:, G_TILES].sum(), np.int64)
    theirs = np.empty(other_words_in_all, np.int64)
    their_ids = np.zeros(_IDS_MAX, np.int64)
    their_scalars = np.empty(SCALARS, np.int64)
    scratch = np.empty(2, np.int64)
    floats, their_floats, scratch_floats = words.view(np.float64), theirs.view(np.float64), scratch.view(np.float64)
    _clear(heads, slots, scalars)
    for back in range(len(starts)):
        r = len(starts) - 1 - back
        if not _whole(data, starts[r], ends[r], versions[r]):
            return -1 - r
        _unpack(
            *(data, starts[r], other_groups, other_cells, their_heads, their_slots),
            *(theirs, their_floats, their_ids, their_scalars),
        )
        scalars[S_LATEST] = max(scalars[S_LATEST], their_scalars[S_LATEST])
        if r >= counted:
            for i in range(S_EVENTS, S_IDS + 1):
                their_scalars[i] = 0
        for i in range(S_EVENTS, S_LATE + 1):
            scalars[i] += their_scalars[i]
        for i in range(their_scalars[S_IDS]):
            known = False
            for k in range(scalars[S_IDS]):
                if ids[k] == their_ids[i]:
                    known = True
            if known:
                continue
            if scalars[S_IDS] == _IDS_MAX:
                for k in range(_IDS_MAX - 1):
                    ids[k] = ids[k + 1]
                scalars[S_IDS] -= 1
            ids[scalars[S_IDS]] = their_ids[i]
            scalars[S_IDS] += 1
        for g in range(len(groups)):
            o = group_map[g]
            if o < 0 or their_heads[o] == _NEVER_MS:
                continue
            taken = False
            for cell in range(groups[g, G_CELL], groups[g, G_CELL] + groups[g, G_CELLS]):
                taken |= sources[cell] < 0 or sources[cell] == r
            if not taken:
                continue
            heads[g] = max(heads[g], their_heads[o])
            for slot in range(other_groups[o, G_TILES]):
                tile = their_slots[other_groups[o, G_SLOT] + slot]
                if tile == _NEVER_MS or tile <= their_heads[o] - other_groups[o, G_TILES]:
                    continue
                if tile <= heads[g] - groups[g, G_TILES]:
                    continue
                from_row = other_groups[o, G_WORD] + slot * other_groups[o, G_WIDTH]
                row = _claim(g, tile, groups, slots, words)
                for c in range(groups[g, G_CELLS]):
                    cell = groups[g, G_CELL] + c
                    other = cell_map[cell]
                    if other < 0 or (sources[cell] >= 0 and sources[cell] != r):
                        continue
                    k = other - other_groups[o, G_CELL]
                    if not theirs[from_row + (k >> 6)] >> (k & 63) & 1:
                        continue
                    kind = cells[cell, C_KIND]
                    mine, at = row + cells[cell, C_WORD], from_row + other_cells[other, C_WORD]
                    if renumbered[cell] >= 0:
                        # Of a copy: another cell here may be made of the same one.
                        scratch[0], scratch_floats[1] = theirs[at], their_floats[at + 1]
                        if scratch_floats[1] >= 0.0:
                            scratch_floats[1] = numbers[renumbered[cell] + np.int64(scratch_floats[1])]
                        if words[row + (c >> 6)] >> (c & 63) & 1:
                            _combine(kind, mine, words, floats, 0, scratch, scratch_floats)
                        else:
                            words[row + (c >> 6)] |= np.int64(1) << (c & 63)
                            words[mine], words[mine + 1] = scratch[0], scratch[1]
                    elif words[row + (c >> 6)] >> (c & 63) & 1:
                        _combine(kind, mine, words, floats, at, theirs, their_floats)
                    else:
                        words[row + (c >> 6)] |= np.int64(1) << (c & 63)
                        for i in range(_width(kind)):
                            words[mine + i] = theirs[at + i]
    ms, seq = _raw(data, starts[0] + 8, 8), _raw(data, starts[0] + 16, 8)
    return _pack(out, 0, version, ms, seq, groups, cells, heads, slots, words, floats, ids, scalars)


# --- read -----------------------------------------------------------------------------------------------------------


def flattened(
    groups: Integers,
    cells: Integers,
    views: Integers,
    features: Integers,
    sketches: int,
    half_lives: Floats,
    blank: Floats,
    scales: Floats,
) -> tuple[Integers, Floats]:
    """What `read` needs besides records, as two arrays: each that is handed over costs a lone read 0.3 µs."""
    tables = groups, cells, views, features
    head = [*map(len, tables), len(blank), sketches]
    return np.concatenate([head, *map(np.ravel, tables)]), np.concatenate([half_lives, blank, scales.ravel()])


@compiled(BYTES, INTS, INTS, INTS_2D, INT, INTS, FLOATS)
def read(
    data: Bytes, lengths: Integers, now: Integers, clock: Integers, version: int, whole_numbers: Integers, reals: Floats
) -> tuple[Floats, int]:
    """The values of records that stand one after the other (length 0: none), and the first that is not whole, or -1.

    `whole_numbers` and `reals` are those of `flattened`; nobody looks at `clock` where no feature asks for it.
    """
    groups_n, cells_n, views_n, features_n, blank_n, sketches = whole_numbers[:6]
    at = np.int64(6)
    groups = whole_numbers[at : at + 8 * groups_n].reshape((groups_n, 8))
    at += 8 * groups_n
    cells = whole_numbers[at : at + 4 * cells_n].reshape((cells_n, 4))
    at += 4 * cells_n
    views = whole_numbers[at : at + 4 * views_n].reshape((views_n, 4))
    at += 4 * views_n
    features = whole_numbers[at : at + 3 * features_n].reshape((features_n, 3))
    half_lives, blank = reals[:views_n], reals[views_n : views_n + blank_n]
    scales = reals[views_n + blank_n :].reshape((features_n, 3))
    found = np.empty((len(lengths), len(features)))
    raw = np.empty(len(blank))
    bits = np.empty(max(sketches, 1) * _BITS_WORDS, np.int64)
    value = np.empty(_BITS_WORDS, np.int64)
    floats = value.view(np.float64)
    start = 0
    for r in range(len(lengths)):
        raw[:] = blank
        bits[:] = 0
        end = start + lengths[r]
        if end > start:
            if not _whole(data, start, end, version):
                return found, r
            latest = _raw(data, start + 28, 8)
            at = start + _HEADER_BYTES
            ids = np.int64(0)
            for _ in range(4):
                ids, at = _get(data, at)
            at += _ID_BYTES * ids
            present_at = at
            at += (len(groups) + 7) >> 3
            for g in range(len(groups)):
                if not data[present_at + (g >> 3)] >> (g & 7) & 1:
                    continue
                tile_ms = groups[g, G_TILE_MS]
                tile, now_tile, count = np.int64(0), np.int64(0), np.int64(1)
                if tile_ms:
                    lag, at = _get(data, at)
                    tile, now_tile = latest // tile_ms - _unzigzag(lag), now[r] // tile_ms
                    count, at = _get(data, at)
                for _ in range(count):
                    if tile_ms:
                        gap, at = _get(data, at)
                        tile -= gap
                    age = now_tile - tile
                    base = tile * tile_ms if tile_ms else latest
                    mask_at = at
                    at += (groups[g, G_CELLS] + 7) >> 3
                    for c in range(groups[g, G_CELLS]):
                        if not data[mask_at + (c >> 3)] >> (c & 7) & 1:
                            continue
                        cell = groups[g, G_CELL] + c
                        at = _get_value(data, at, cells[cell, C_KIND], base, tile_ms > 0, value, floats, 0)
                        first = cells[cell, C_VIEW]
                        for v in range(first, first + cells[cell, C_VIEWS]):
                            if 0 <= age < views[v, V_TILES]:
                                op, target = views[v, V_OP], views[v, V_TARGET]
                                if op <= _SUM:
                                    raw[target] += value[0]
                                elif op == _MIN:
                                    raw[target] = min(floats[0], raw[target])
                                elif op == _MAX:
                                    raw[target] = max(floats[0], raw[target])
                                elif op == _NEWEST:
                                    raw[target] = max(raw[target], np.float64(value[0]))
                                elif op == _LAST:
                                    # Tiles come newest first.
                                    if np.isnan(raw[target]):
                                        raw[target] = floats[1]
                                elif op == _FIRST:
                                    raw[target] = floats[1]
                                elif op == _BITS:
                                    for i in range(_BITS_WORDS):
                                        bits[target * _BITS_WORDS + i] |= value[i]
                                elif op == DECAY:
                                    # What lies in the tile of now and after now weighs no more than 1.
                                    newest = min(latest, base + tile_ms - 1)
                                    since = np.float64(max(now[r], newest) - base)
                                    raw[target] += value[0] * 2.0 ** (-since / half_lives[v])
                                else:
                                    raw[target] += value[0]
                                    if views[v, V_SLOT] == clock[r, 0 if op == SHARE_HOUR else 1]:
                                        raw[target + 1] += value[0]
            start = end
        for f in range(len(features)):
            op, a, b = features[f, F_OP], features[f, F_A], features[f, F_B]
            if op == RATIO:
                divisor = found[r, b]
                result = found[r, a] / divisor if divisor != 0.0 else np.nan
            elif op == DISTINCT:
                ones = np.int64(0)
                for i in range(_BITS_WORDS):
                    ones += _ones(bits[a * _BITS_WORDS + i])
                # Linear counting (Whang, Vander-Zanden, Taylor 1990): a full sketch says as much as one bit less.
                free = max(64 * _BITS_WORDS - ones, 1) / (64.0 * _BITS_WORDS)
                result = np.rint(64.0 * _BITS_WORDS * np.log(1.0 / free))
            else:
                result = raw[a]
                if op in (SCALED, MEAN):
                    result = result * scales[f, 0] / scales[f, 1]
                if op == MEAN:
                    result = result / raw[b] if raw[b] > 0.0 else np.nan
                elif op == SHARE:
                    result = raw[a + 1] / result if result > 0.0 else np.nan
                elif op == RECENCY:
                    result = max(np.float64(now[r]) - result, 0.0) / _MS_PER_SECOND if result > _NEVER_MS else np.nan
                elif op == AS_IT_IS and (np.isinf(result) or (b == 1 and result < 0.0)):
                    result = np.nan
            found[r, f] = scales[f, 2] if np.isnan(result) else result
    return found, -1


def array(rows: Sequence[Sequence[Any]], columns: int, of: type = np.int64) -> npt.NDArray[Any]:
    """A table of `columns` columns, also if it has no rows."""
    return np.array(list(rows), of).reshape(-1, columns)
