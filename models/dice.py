"""The dice: uniforms that are a pure function of a seed.

A decision stores its seed; the seed brings back every draw. Seeds are hashes of what should share its luck (a person
and the epoch of their state), so all channels see the same draw until the state changes, and draws of different
people are independent.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from models.compiled import INT, SEEDS, compiled

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_BYTES_OF = [b"b" + size.to_bytes(8, "little") for size in range(129)]
_INT_OF = [b"i" + size.to_bytes(8, "little") for size in range(17)]
"""What goes before a part of so many bytes."""


def seed_of(*parts: bytes | int) -> int:
    """64-bit seed of some parts, integers of up to 16 bytes: BLAKE2b over their types, lengths and contents.

    >>> seed_of(b"ann", 7) == seed_of(b"ann", 7), seed_of(b"ann", 7) == seed_of(b"ann7"), seed_of(1, 2) == seed_of(12)
    (True, False, False)
    """
    spelled: list[bytes] = []
    for part in parts:
        if isinstance(part, int):
            content = part.to_bytes(part.bit_length() // 8 + 1, "little", signed=True)
            spelled += _INT_OF[len(content)], content
        else:
            size = len(part)
            spelled += _BYTES_OF[size] if size < len(_BYTES_OF) else b"b" + size.to_bytes(8, "little"), part
    return int.from_bytes(blake2b(b"".join(spelled), digest_size=8).digest(), "little")


def dice(seeds: npt.NDArray[np.uint64], positions: int) -> npt.NDArray[np.float64]:
    """Uniforms in [0, 1) of shape (B, positions), row b being the first outputs of SplitMix64 seeded with seeds[b].

    Output k is the finaliser of seed + (k + 1) · golden (Steele, Lea & Flood 2014); its upper 53 bits make the float.

    >>> dice(np.array([0], np.uint64), 2).round(6).tolist()  # 0xE220A8397B1DCDAF and 0x6E789E6AA1B965F4 over 2⁶⁴
    [[0.883311, 0.431528]]
    """
    uniforms: npt.NDArray[np.float64] = _dice(np.ascontiguousarray(seeds, np.uint64), positions)
    return uniforms


@compiled(SEEDS, INT)
def _dice(seeds: npt.NDArray[np.uint64], positions: int) -> npt.NDArray[np.float64]:
    uniforms = np.empty((len(seeds), positions))
    for row in range(len(seeds)):
        state = seeds[row]
        for position in range(positions):
            state += _GOLDEN
            z = (state ^ (state >> np.uint64(30))) * _FIRST
            z = (z ^ (z >> np.uint64(27))) * _SECOND
            z ^= z >> np.uint64(31)
            uniforms[row, position] = (z >> np.uint64(11)) * 2.0**-53
    return uniforms
