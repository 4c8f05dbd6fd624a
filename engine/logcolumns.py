"""Decisions of the log by column: what those who watch many of them need, without an object for each. Compiled.

engine.record has the format. Two watchers that took entries apart one by one in Python had half of the learner's time.
"""

import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numba import types
from numpy.typing import NDArray

from engine import basis, record
from engine.basis import BasisError, holds_in
from engine.holds import Hold
from engine.packing import joined
from models.compiled import INT, INTS, compiled, inlined, read_only

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Octets = NDArray[np.uint8]

# Where things stand: in compiled code a constant must be in the file that uses it (models.compiled).
_DECISION: Final = 1
_FORM: Final = 1
_FORM_BASIS: Final = 2
_TIME: Final = 2
_CONFIG: Final = 18
_CONFIG_BYTES: Final = 8
_CHANNEL: Final = 58
_PLACEMENT: Final = 60
_LIMIT: Final = 64
_ROWS: Final = 65
_CUSTOMER: Final = 66
_LENGTHS: Final = 67
_RULES: Final = 73
_FAILED_TOO: Final = 0x8000
_NOTHING: Final = 75
_FIXED: Final = 83
_PROPENSITY: Final = 4
_END: Final = 24
_CHOICE: Final = 32
_HOLDS: Final = 2
_HEADER: Final = 26

assert record.FIXED_FORMAT == "<BBqQ8sIQQIqHHBBBBBHHHHd" and struct.calcsize(record.FIXED_FORMAT) == _FIXED
assert record.CHOICE_FORMAT == "<Idfffq" and struct.calcsize(record.CHOICE_FORMAT) == _CHOICE
assert basis.HEADER_FORMAT == "<HHHHHdd" and struct.calcsize(basis.HEADER_FORMAT) == _HEADER
assert (record.DECISION_START, record.FORM_BASIS, record.FAILED_TOO) == (_DECISION, _FORM_BASIS, _FAILED_TOO)

_OCTETS: Final = read_only(types.uint8, 1)


class Columns(NamedTuple):
    """The decisions among some entries; n of them, with slates of up to K."""

    entries: Ints
    """(n,) which of the entries they are."""
    times_ms: Ints
    channels: Ints
    placements: Ints
    drawn: Bools
    """(n,) whether it was drawn, rather than an open offer resumed, under the configuration asked for."""
    nothing: Floats
    """(n,) propensity with which silence was drawn; 0 if it was not."""
    counts: Ints
    """(n,) offers in the slate."""
    keys: Ints
    """(n, K) of the offers in rank order, -1 behind the last one."""
    propensities: Floats
    ends_ms: Ints
    """(n, K) of their windows; 0 for what has none."""
    held: Octets
    """(n, octets) the rules that held, of those drawn under the configuration asked for."""
    basis_at: Ints
    """(n,) where in its entry the holds are told of; -1 where nothing was kept back."""


def columns_of(data: Sequence[bytes], config: bytes = bytes(8), rules: int = 0) -> Columns:
    """Read entries of the log. What is no decision, or one that cannot be read, is left out.

    `config` is the version of a configuration with so many `rules`.
    """
    assert len(config) == _CONFIG_BYTES
    return Columns(*_read(*joined(data), np.frombuffer(config, np.uint8), (rules + 7) // 8))


class OffersByKey:
    """Places of offers in a configuration by their keys, for many keys at once."""

    def __init__(self, keys: Sequence[int]) -> None:
        """`keys` are those of the offers, in their order; there is one at least."""
        self._places = np.argsort(keys)
        self._keys = np.array(keys, np.int64)[self._places]

    def places(self, keys: Ints) -> Ints:
        """Where the offers of these keys are; -1 for what is none of them."""
        found = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[found] == keys, self._places[found], -1)


def kept_back(data: Sequence[bytes], columns: Columns) -> tuple[list[tuple[Hold, ...]], Bools]:
    """(n,) what was kept back although its rules held, of what was `drawn`, and whether that can be read."""
    holds: list[tuple[Hold, ...]] = [()] * len(columns.entries)
    good = np.ones(len(holds), np.bool_)
    for at in np.flatnonzero(columns.drawn & (columns.basis_at >= 0)).tolist():
        try:
            holds[at] = holds_in(data[columns.entries[at]], int(columns.basis_at[at]))
        except BasisError:
            good[at] = False
    return holds, good


@inlined()
def _got(data: Octets, at: Any, size: Any) -> Any:
    value = np.uint64(0)  # eight bytes may have the sign
    for i in range(size):
        value |= np.uint64(data[at + i]) << np.uint64(8 * i)
    return np.int64(value)


@compiled(_OCTETS, INTS, _OCTETS, INT)
def _read(data: Any, ends: Any, config: Any, octets: int) -> Any:
    count, most = 0, np.int64(1)
    slates, starts = np.empty(len(ends), np.int64), np.empty(len(ends), np.int64)
    entries = np.empty(len(ends), np.int64)
    end = np.int64(0)
    for entry in range(len(ends)):
        start, end = end, ends[entry]
        if end - start < _FIXED or data[start] != _DECISION:
            continue
        at = start + _FIXED + data[start + _CUSTOMER]
        for i in range(3):
            at += _got(data, start + _LENGTHS + 2 * i, 2)
        rules = _got(data, start + _RULES, 2)
        at += (rules & ~_FAILED_TOO) * (2 if rules & _FAILED_TOO else 1)
        slate_end = at + _CHOICE * data[start + _ROWS]
        form = data[start + 1]
        if (form == _FORM and slate_end == end) or (form == _FORM_BASIS and slate_end < end):
            entries[count], starts[count], slates[count] = entry, start, at
            most = max(most, _got(data, start + _ROWS, 1))
            count += 1
    times, channels, placements = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.int64)
    drawn, nothing, counts = np.zeros(count, np.bool_), np.empty(count), np.empty(count, np.int64)
    keys, window_ends = np.full((count, most), -1, np.int64), np.zeros((count, most), np.int64)
    propensities, held = np.zeros((count, most)), np.zeros((count, octets), np.uint8)
    basis_at = np.full(count, -1, np.int64)
    one = np.zeros(1)
    of_one = one.view(np.uint8)
    for row in range(count):
        start, at, end = starts[row], slates[row], ends[entries[row]]
        times[row] = _got(data, start + _TIME, 8)
        channels[row] = _got(data, start + _CHANNEL, 2)
        placements[row] = _got(data, start + _PLACEMENT, 2)
        of_one[:] = data[start + _NOTHING : start + _NOTHING + 8]
        nothing[row] = one[0]
        counts[row] = data[start + _ROWS]
        for rank in range(counts[row]):
            place = at + rank * _CHOICE
            keys[row, rank] = _got(data, place, 4)
            of_one[:] = data[place + _PROPENSITY : place + _PROPENSITY + 8]
            propensities[row, rank] = one[0]
            window_ends[row, rank] = _got(data, place + _END, 8)
        rules = _got(data, start + _RULES, 2)
        same = data[start + _LIMIT] != 0 and (rules & ~_FAILED_TOO) == octets
        for i in range(_CONFIG_BYTES):
            same &= data[start + _CONFIG + i] == config[i]
        if data[start + 1] == _FORM_BASIS:
            after = at + counts[row] * _CHOICE
            if end - after < _HEADER:
                same = False
            elif _got(data, after + _HOLDS, 2):
                basis_at[row] = after - start
        drawn[row] = same
        if same:
            rules_at = at - octets * (2 if rules & _FAILED_TOO else 1)
            held[row] = data[rules_at : rules_at + octets]
    about = entries[:count].copy(), times, channels, placements, drawn, nothing, counts
    return (*about, keys, propensities, window_ends, held, basis_at)
