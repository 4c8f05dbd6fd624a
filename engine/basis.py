"""What a decision rested on besides inputs and rules: enough to make it again, bit for bit, without the policy.

    header    u16 estimates, u16 holds, u16 prices, u16 bytes of the parameters, u16 bytes of what was seen,
              f64 surcharge, f64 gate
    estimate  u16 offer, by its place in the configuration, f32 mean, f32 sd
    hold      u16 limit, u32 scope, u8 room, i64 until_ms (engine.holds)
    price     u16 offer, f64 shadow price of the budgets that it draws on
    JSON of the parameters of the offers in the answer, by offer id; empty if they have none
    what was seen: the row of the value matrix, as engine.valuecode has it
    and, if any question might be asked: u16 values
    value     u16 offer, f64 what knowing its answer added to its score (engine.questions)

The estimates are those of the offers that could have been drawn: the candidates of the race, and as many of the highest
means as the slate has places and one more, for whoever is given the best one that is left. Of all others the draw needs
only that they were there. With inverse gap weighting every offer that may be made counts, so all are kept.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from engine.holds import Hold

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]

_HEADER: Final = struct.Struct("<HHHHHdd")
_ESTIMATE: Final = struct.Struct("<Hff")
_HOLD: Final = struct.Struct("<HIBq")
_PRICE: Final = struct.Struct("<Hd")
_VALUES: Final = struct.Struct("<H")

GATE_OPEN: Final = 1.0
HEADER_FORMAT: Final = _HEADER.format
ESTIMATE_BYTES: Final = _ESTIMATE.size
HOLD_BYTES: Final = _HOLD.size
PRICE_BYTES: Final = _PRICE.size
"""For who reads many at once: engine.logcolumns, engine.whatif.records."""


class BasisError(ValueError):
    """The bytes are no basis of a decision."""


@dataclass(frozen=True, slots=True)
class Basis:
    """What a decision rested on."""

    estimates: bytes = b""
    """(offer, mean, sd) packed, offers ascending."""
    holds: tuple[Hold, ...] = ()
    prices: tuple[tuple[int, float], ...] = ()
    """(offer, shadow price), of those that had one."""
    surcharge: float = 0.0
    """Added to the contact cost of every offer: contact pressure."""
    gate: float = GATE_OPEN
    """The chance to explore at all."""
    parameters: bytes = b""
    """JSON object by offer id."""
    seen: bytes = b""
    """The values that rules and inputs saw, see engine.valuecode."""
    values: tuple[tuple[int, float], ...] = ()
    """(offer, what knowing the answer added to its score), of the questions that might have been asked."""

    def pack(self) -> bytes:
        """The bytes that `unpack` reads."""
        return packed(
            len(self.estimates) // _ESTIMATE.size,
            self.estimates,
            self.holds,
            self.prices,
            self.surcharge,
            self.gate,
            self.parameters,
            self.seen,
            self.values,
        )

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read a basis. Raises BasisError."""
        try:
            estimates, holds, prices, parameters_n, seen_n, surcharge, gate = _HEADER.unpack_from(data)
            first = _HEADER.size
            second = first + estimates * _ESTIMATE.size
            third = second + holds * _HOLD.size
            fourth = third + prices * _PRICE.size
            last = fourth + parameters_n
            end = last + seen_n
            values: tuple[tuple[int, float], ...] = ()
            if rest := data[end:]:
                [count] = _VALUES.unpack_from(rest)
                values = tuple(_PRICE.iter_unpack(rest[_VALUES.size :]))
                end += _VALUES.size + count * _PRICE.size
            if len(data) != end:
                raise BasisError(f"{len(data)} bytes, expected {end}")
            return cls(
                data[first:second],
                tuple([Hold(*row) for row in _HOLD.iter_unpack(data[second:third])]),
                tuple(_PRICE.iter_unpack(data[third:fourth])),
                surcharge,
                gate,
                data[fourth:last],
                data[last : last + seen_n],
                values,
            )
        except struct.error as error:
            raise BasisError(str(error)) from error


def holds_in(data: bytes, at: int) -> tuple[Hold, ...]:
    """The holds of the basis that begins at a place of `data`, without the rest. Raises BasisError."""
    try:
        estimates, holds, *_ = _HEADER.unpack_from(data, at)
        at += _HEADER.size + estimates * _ESTIMATE.size
        return tuple([Hold(*_HOLD.unpack_from(data, at + row * _HOLD.size)) for row in range(holds)])
    except struct.error as error:
        raise BasisError(str(error)) from error


_ROW: Final = np.dtype([("offer", "<u2"), ("mean", "<f4"), ("sd", "<f4")])

assert _ROW.itemsize == _ESTIMATE.size


def recorded(bases: Sequence[Basis], offers: int) -> tuple[Floats32, Floats32, NDArray[np.bool_], Floats]:
    """(mean, sd, unknown, prices) of n offers, each (B, n); unknown are those of which no estimate was kept."""
    mean, sd = np.zeros((len(bases), offers), np.float32), np.zeros((len(bases), offers), np.float32)
    unknown, prices = np.ones((len(bases), offers), np.bool_), np.zeros((len(bases), offers))
    for at, basis in enumerate(bases):
        rows = np.frombuffer(basis.estimates, _ROW)
        offer = rows["offer"]
        mean[at, offer], sd[at, offer], unknown[at, offer] = rows["mean"], rows["sd"], False
        for priced, price in basis.prices:
            prices[at, priced] = price
    return mean, sd, unknown, prices


def packed(
    count: int,
    estimates: bytes,
    holds: tuple[Hold, ...] = (),
    prices: tuple[tuple[int, float], ...] = (),
    surcharge: float = 0.0,
    gate: float = GATE_OPEN,
    parameters: bytes = b"",
    seen: bytes = b"",
    values: tuple[tuple[int, float], ...] = (),
) -> bytes:
    """The bytes of a Basis, whose `count` estimates are packed already."""
    head = _HEADER.pack(count, len(holds), len(prices), len(parameters), len(seen), surcharge, gate)
    more = packed_values(values) if values else b""
    return b"".join((head, estimates, packed_holds(holds), packed_prices(prices), parameters, seen, more))


def packed_holds(holds: Sequence[Hold]) -> bytes:
    """The rows of holds."""
    return b"".join([_HOLD.pack(*hold) for hold in holds])


def packed_prices(prices: Sequence[tuple[int, float]]) -> bytes:
    """The rows of prices."""
    return b"".join([_PRICE.pack(*price) for price in prices])


def packed_values(values: Sequence[tuple[int, float]]) -> bytes:
    """What knowing answers added: the end of a basis where any question might be asked."""
    return _VALUES.pack(len(values)) + packed_prices(values)
