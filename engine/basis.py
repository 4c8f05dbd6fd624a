"""What a decision rested on besides inputs and rules: enough to make it again, bit for bit, without the policy.

    header    u16 estimates, u16 holds, u16 prices, u16 bytes of the parameters, f64 surcharge, f64 gate
    estimate  u16 offer, by its place in the configuration, f32 mean, f32 sd
    hold      u16 limit, u32 scope (engine.holds)
    price     u16 offer, f64 shadow price of the budgets that it draws on
    JSON of the parameters of the offers in the answer, by offer id; empty if they have none

The estimates are those of the offers that could have been drawn: the candidates of the race, and as many of the highest
means as the slate has places and one more, for whoever is given the best one that is left. Of all others the draw needs
only that they were there. With inverse gap weighting every offer that may be made counts, so all are kept.
"""

import struct
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from engine.holds import Hold

_HEADER: Final = struct.Struct("<HHHHdd")
_ESTIMATE: Final = struct.Struct("<Hff")
_HOLD: Final = struct.Struct("<HI")
_PRICE: Final = struct.Struct("<Hd")

GATE_OPEN: Final = 1.0


class BasisError(ValueError):
    """The bytes are no basis of a decision."""


@dataclass(frozen=True, slots=True)
class Basis:
    """What a decision rested on."""

    estimates: tuple[tuple[int, float, float], ...] = ()
    """(offer, mean, sd), offers ascending."""
    holds: tuple[Hold, ...] = ()
    prices: tuple[tuple[int, float], ...] = ()
    """(offer, shadow price), of those that had one."""
    surcharge: float = 0.0
    """Added to the contact cost of every offer: contact pressure."""
    gate: float = GATE_OPEN
    """The chance to explore at all."""
    parameters: bytes = b""
    """JSON object by offer id."""

    def pack(self) -> bytes:
        """The bytes that `unpack` reads."""
        rows = [_ESTIMATE.pack(*row) for row in self.estimates]
        return packed(len(rows), b"".join(rows), self.holds, self.prices, self.surcharge, self.gate, self.parameters)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read a basis. Raises BasisError."""
        try:
            estimates, holds, prices, parameters_n, surcharge, gate = _HEADER.unpack_from(data)
            first = _HEADER.size
            second = first + estimates * _ESTIMATE.size
            third = second + holds * _HOLD.size
            fourth = third + prices * _PRICE.size
            if len(data) != fourth + parameters_n:
                raise BasisError(f"{len(data)} bytes, expected {fourth + parameters_n}")
            return cls(
                tuple(_ESTIMATE.iter_unpack(data[first:second])),
                tuple([Hold(*row) for row in _HOLD.iter_unpack(data[second:third])]),
                tuple(_PRICE.iter_unpack(data[third:fourth])),
                surcharge,
                gate,
                data[fourth:],
            )
        except struct.error as error:
            raise BasisError(str(error)) from error


_ROW: Final = np.dtype([("offer", "<u2"), ("mean", "<f4"), ("sd", "<f4")])

assert _ROW.itemsize == _ESTIMATE.size


def estimates_of(
    columns: NDArray[np.int16], counts: NDArray[np.int64], mean: NDArray[np.float32], sd: NDArray[np.float32]
) -> list[tuple[int, bytes]]:
    """How many estimates each decision rested on, and their bytes.

    `columns` (B, W) and `counts` (B,) are those of models.counting over n offers and silence; mean and sd are (B, n).
    """
    offers = mean.shape[1]
    # Silence is the last column of all, so it is the last of those that count; what it is worth is known.
    last = columns[np.arange(len(counts)), np.maximum(counts - 1, 0)]
    counts = counts - ((counts > 0) & (last == offers))
    at = np.clip(columns, 0, offers - 1).astype(np.intp)
    rows = np.empty(columns.shape, _ROW)
    rows["offer"] = columns
    rows["mean"] = np.take_along_axis(mean, at, 1)
    rows["sd"] = np.take_along_axis(sd, at, 1)
    data, width = rows.tobytes(), columns.shape[1] * _ROW.itemsize
    return [
        (count, data[row * width : row * width + count * _ROW.itemsize]) for row, count in enumerate(counts.tolist())
    ]


def packed(
    count: int,
    estimates: bytes,
    holds: tuple[Hold, ...] = (),
    prices: tuple[tuple[int, float], ...] = (),
    surcharge: float = 0.0,
    gate: float = GATE_OPEN,
    parameters: bytes = b"",
) -> bytes:
    """The bytes of a Basis, whose `count` estimates are packed already."""
    head = _HEADER.pack(count, len(holds), len(prices), len(parameters), surcharge, gate)
    if not holds and not prices:
        return b"".join((head, estimates, parameters))
    rows = [_HOLD.pack(*hold) for hold in holds] + [_PRICE.pack(*price) for price in prices]
    return b"".join((head, estimates, *rows, parameters))
