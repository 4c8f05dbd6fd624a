"""Records of decisions read many at once: what engine.record and engine.basis read one by one, as columns.

One by one a record takes 6 µs, most of it for objects of which a what-if needs a column each; so it takes 2.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine import basis, record
from engine.basis import Basis, BasisError
from engine.holds import Hold

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_KINDS: Final = {"B": "u1", "H": "<u2", "I": "<u4", "Q": "<u8", "q": "<i8", "d": "<f8", "f": "<f4", "s": "V8"}


def _dtype(form: str, names: str) -> np.dtype[np.void]:
    """A packed struct as a type of numpy."""
    kinds = [_KINDS[kind] for kind in form.replace("8s", "s").removeprefix("<")]
    return np.dtype(list(zip(names.split(), kinds, strict=True)))


_FIXED: Final = _dtype(
    record.FIXED_FORMAT,
    "kind form time seed config transform policy ms seq latest channel placement degraded known limit rows customer "
    "request context x rules nothing",
)
_LENGTHS: Final = ("customer", "request", "context", "x")
_CHOICE: Final = _dtype(record.CHOICE_FORMAT, "key propensity score mean sd end")
_HEADER: Final = _dtype(basis.HEADER_FORMAT, "estimates holds prices parameters seen surcharge gate")
_NOTHING_MORE: Final = Basis()


@dataclass(frozen=True, eq=False, slots=True)
class Records:
    """The decisions of a batch of entries that say what they rest on; n of them."""

    data: Sequence[bytes]
    """Of all entries."""
    entries: Ints
    """(n,) which of the entries they are."""
    fixed: NDArray[np.void]
    slates: Ints
    """(n, K) offer keys in rank order, padded with 0."""
    basis_at: Ints
    """(n,) where in its record the basis begins."""

    @property
    def versions(self) -> list[bytes]:
        """Of the configurations."""
        return [bytes(version) for version in self.fixed["config"].tolist()]

    @property
    def others(self) -> list[int]:
        """The other entries."""
        rest = np.ones(len(self.data), np.bool_)
        rest[self.entries] = False
        found: list[int] = np.flatnonzero(rest).tolist()
        return found

    def people(self, rows: Ints) -> list[str]:
        """Whom these were made for."""
        start = _FIXED.itemsize
        ends = (start + self.fixed["customer"][rows].astype(np.int64)).tolist()
        return [self.data[at][start:end].decode() for at, end in zip(self.entries[rows].tolist(), ends, strict=True)]


@dataclass(frozen=True, eq=False, slots=True)
class Bases:
    """What the decisions of some rows rested on; n of them."""

    good: Ints
    """(n,) the rows of Records that can be read."""
    seen: list[bytes]
    surcharges: Floats
    gates: Floats
    holds: list[tuple[Hold, ...]]
    prices: list[tuple[tuple[int, float], ...]]
    """(offer, shadow price)"""
    answers: list[tuple[tuple[int, float], ...]]

    def only(self, places: Ints) -> "Bases":
        """Those at these places."""
        seen, holds, prices, answers = (
            [some[at] for at in places.tolist()] for some in (self.seen, self.holds, self.prices, self.answers)
        )
        return Bases(self.good[places], seen, self.surcharges[places], self.gates[places], holds, prices, answers)


def read(data: Sequence[bytes]) -> Records:
    """The decisions among entries of the log that say what they rest on."""
    sizes = np.fromiter(map(len, data), np.int64, len(data))
    starts = np.cumsum(sizes) - sizes
    buffer = np.frombuffer(b"".join(data), np.uint8)
    entries = np.flatnonzero(sizes >= _FIXED.itemsize)
    entries = entries[buffer[starts[entries]] == record.DECISION_START]
    entries = entries[buffer[starts[entries] + 1] == record.FORM_BASIS]
    fixed = _gathered(buffer, starts[entries], _FIXED)
    rules = fixed["rules"].astype(np.int64)
    slate_at = _FIXED.itemsize + sum(fixed[name].astype(np.int64) for name in _LENGTHS)
    slate_at += (rules & ~record.FAILED_TOO) * np.where(rules & record.FAILED_TOO, 2, 1)
    rows = fixed["rows"].astype(np.int64)
    basis_at = slate_at + rows * _CHOICE.itemsize
    whole = sizes[entries] > basis_at
    entries, fixed, slate_at, rows, basis_at = (each[whole] for each in (entries, fixed, slate_at, rows, basis_at))
    slates = np.zeros((len(entries), int(rows.max(initial=1))), np.int64)
    for rank in range(slates.shape[1]):
        there = np.flatnonzero(rows > rank)
        at = starts[entries[there]] + slate_at[there] + rank * _CHOICE.itemsize
        slates[there, rank] = _gathered(buffer, at, _CHOICE)["key"]
    return Records(data, entries, fixed, slates, basis_at)


def bases(records: Records, rows: Ints) -> Bases:
    """What the decisions of these rows rested on, as far as it can be read."""
    data = [records.data[at][start:] for at, start in zip(
        records.entries[rows].tolist(), records.basis_at[rows].tolist(), strict=True
    )]  # fmt: skip
    sizes = np.fromiter(map(len, data), np.int64, len(data))
    good = np.flatnonzero(sizes >= _HEADER.itemsize)
    starts = np.cumsum(sizes) - sizes
    head = _gathered(np.frombuffer(b"".join(data), np.uint8), starts[good], _HEADER)
    counts = {name: head[name].astype(np.int64) for name in ("estimates", "holds", "prices", "parameters", "seen")}
    seen_at = _HEADER.itemsize + counts["parameters"]
    for name, size in (
        ("estimates", basis.ESTIMATE_BYTES), ("holds", basis.HOLD_BYTES), ("prices", basis.PRICE_BYTES),
    ):  # fmt: skip
        seen_at += counts[name] * size
    ends = seen_at + counts["seen"]
    readable = (ends == sizes[good]) & (counts["holds"] == 0) & (counts["prices"] == 0)
    # What has more is read one by one.
    more: dict[int, Basis] = {}
    for place in np.flatnonzero(~readable).tolist():
        with suppress(BasisError):
            more[place], readable[place] = Basis.unpack(data[good[place]]), True
    kept = np.flatnonzero(readable)
    spans = zip(good[kept].tolist(), seen_at[kept].tolist(), (seen_at + counts["seen"])[kept].tolist(), strict=True)
    found = [more.get(place, _NOTHING_MORE) for place in kept.tolist()]
    return Bases(
        rows[good[kept]],
        [data[place][start:end] for place, start, end in spans],
        np.ascontiguousarray(head["surcharge"][kept], np.float64),
        np.ascontiguousarray(head["gate"][kept], np.float64),
        [one.holds for one in found],
        [one.prices for one in found],
        [one.values for one in found],
    )


def _gathered(buffer: NDArray[np.uint8], starts: Ints, of: np.dtype[np.void]) -> NDArray[np.void]:
    """(n,) what stands at these places."""
    found: NDArray[np.void] = buffer[starts[:, None] + np.arange(of.itemsize)].view(of).reshape(len(starts))
    return found
