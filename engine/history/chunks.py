"""The chunks of a partition that a backfill writes: each once, whatever happens on the way.

A chunk is written in one atomic step with the position behind it, if nobody wrote to one of its names meanwhile; those
that somebody did write to are made again. So a crash leaves a chunk written and marked, or neither.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from engine import limits
from engine.store.base import Conflict, FeatureWrite, Mark, Store, StoreUnavailable

log = logging.getLogger(__name__)

_PAUSE_S: Final = 0.2

Place = tuple[int, int]
"""(bucket of the partition, chunks of it that are done); those of entities come behind those of customers."""
Make = Callable[[Sequence[str]], Awaitable[Sequence[FeatureWrite]]]
"""Reads names and makes what is to be written for each, in order."""


class Chunks:
    """Those of one job in one partition. Call `look` first."""

    def __init__(self, store: Store, job: str, partition: int) -> None:
        self._store = store
        self._mark = f"at:{job}"
        self._partition = partition
        self._at = b""

    async def look(self) -> None:
        """Read how far the job has come. Raises StoreError."""
        self._at = (await self._store.marks(self._partition)).get(self._mark, b"")

    def done(self, place: Place) -> bool:
        """Whether this chunk is written."""
        return _place(self._at) >= place

    async def write(self, place: Place, names: Sequence[str], make: Make) -> bool:
        """Write a chunk; False if it turns out to be written already. Raises StoreError.

        StoreUnavailable only after BACKFILL_AWAY_MS_MAX.
        """
        away_since_s = None
        while True:
            try:
                return await self._commit(place, names, make)
            except StoreUnavailable as error:
                # Whether it was written is not known; the mark says so when the store is back.
                away_since_s = away_since_s or time.monotonic()
                if (time.monotonic() - away_since_s) * 1e3 > limits.BACKFILL_AWAY_MS_MAX:
                    raise
                log.warning("the store is away, trying again: %s", error)
                await asyncio.sleep(_PAUSE_S)

    async def _commit(self, place: Place, names: Sequence[str], make: Make) -> bool:
        await self.look()
        mark = Mark(self._mark, self._at, b"%d.%d" % place)
        writes: dict[str, FeatureWrite] = {}
        missing = list(names)
        for _ in range(limits.BACKFILL_CONFLICT_RETRIES_MAX):
            if self.done(place):
                return False
            if missing:
                writes |= {write.customer: write for write in await make(missing)}
            ordered = list(writes.values())
            matching = await self._store.write_marked(self._partition, ordered, mark)
            if isinstance(matching, Conflict):
                await self.look()
                mark = mark._replace(expected=self._at)
                missing = []
                continue
            if all(matching):
                self._at = mark.value
                return True
            missing = [write.customer for write, match in zip(ordered, matching, strict=True) if not match]
        count = f"{len(missing)} of {len(names)}"
        raise StoreUnavailable(f"customers or households are written to all the time, {count} at last")


def _place(mark: bytes) -> Place:
    """What a mark says.

    >>> _place(b""), _place(b"2.17")
    ((-1, 0), (2, 17))
    """
    number, _, chunk = mark.partition(b".")
    return (int(number), int(chunk)) if mark else (-1, 0)
