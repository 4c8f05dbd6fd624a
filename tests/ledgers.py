"""One ledger at a time, by the code that takes a batch of them."""

from collections.abc import Sequence

import numpy as np

from engine.ledgers import Ledgers
from engine.places import Places


def looked(data: bytes | None, request_hash: int, time_ms: int) -> Ledgers:
    """A batch of one."""
    return Ledgers([data], np.array([request_hash], np.uint64).view(np.int64), np.array([time_ms]))


def opened(
    data: bytes | None, request_hash: int, time_ms: int, offers: Sequence[tuple[int, int]]
) -> tuple[bytes, bytes]:
    """The ledger with a decision added, around its position."""
    ledgers = looked(data, request_hash, time_ms)
    assert ledgers.damaged == [False]
    keys = np.array([key for key, _ in offers], np.int64)
    picks = np.arange(len(offers), dtype=np.int16)[None]
    ends = np.array([[end_ms for _, end_ms in offers]], np.int64).reshape(1, -1)
    places = Places.none(1)._replace(counts=np.array([len(offers)]), window_ends_ms=ends)
    [found] = ledgers.opened(places, picks, keys)
    return found
