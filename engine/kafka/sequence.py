"""Records of a partition in order and without a gap, whatever the consumer group skips or repeats.

A watermark forgives what is delivered again and nothing else: an event that was skipped lies behind the next one's
watermark for good. Consumers of a group have skipped records when partitions moved (prefetched ones of before the move
came through). So the offset that must come next is known here for each partition: what lies before it is dropped, and
what is missing before a record is read by a consumer of our own that is in no group.

Gaps that are none, such as the markers of transactions or what retention has deleted, look the same and cost one look.
"""

import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

log = logging.getLogger(__name__)

Place = tuple[str, int]
"""(topic, partition)"""


class Record(NamedTuple):
    """A record. Faust's messages have the same attributes and pass for one."""

    topic: str
    partition: int
    offset: int
    timestamp: float
    """Seconds since 1970 UTC."""
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


class Reader(Protocol):
    """What is known of partitions beside what the group delivers."""

    async def start_of(self, place: Place) -> int:
        """Offset to begin at: the last one committed, or the first there is."""
        ...

    async def between(self, place: Place, start: int, end: int, count: int) -> Sequence[Record]:
        """Up to `count` records of [start, end) that exist, from the first on."""
        ...


class Sequencer:
    """Knows for each partition which offset comes next."""

    def __init__(self, reader: Reader, batch_max: int) -> None:
        self._reader = reader
        self._batch_max = batch_max
        self._next: dict[Place, int] = {}
        self._done: dict[Place, int] = {}

    async def in_order(self, arrived: Iterable[Record]) -> AsyncIterator[list[Record]]:
        """Batches of what arrived and of what is missing in between; who asks for the next is done with the last."""
        batch: list[Record] = []
        for record in arrived:
            place, offset = (record.topic, record.partition), record.offset
            wanted = self._next.get(place)
            if wanted is None:
                wanted = self._next[place] = await self._reader.start_of(place)
            if offset == wanted:
                batch.append(record)
                self._next[place] = offset + 1
                continue
            while wanted < offset:
                missing = await self._reader.between(place, wanted, offset, self._batch_max)
                if not missing:
                    log.warning("offsets %d to %d of %s[%d] are not there any more", wanted, offset - 1, *place)
                    break
                log.info("%d records of %s[%d] from offset %d were skipped and are read", len(missing), *place, wanted)
                batch += missing
                wanted = self._next[place] = missing[-1].offset + 1
                if len(batch) >= self._batch_max:
                    yield batch
                    self.done(batch)
                    batch = []
            if offset >= wanted:
                batch.append(record)
                self._next[place] = offset + 1
        if batch:
            yield batch
            self.done(batch)

    def done(self, batch: Sequence[Record]) -> None:
        """Take note that all effects of these, and of those before them, are durable."""
        for record in batch:
            self._done[record.topic, record.partition] = record.offset + 1

    def committable(self) -> Mapping[Place, int]:
        """Offset to go on from, of each partition."""
        return dict(self._done)

    def expected(self, place: Place) -> int | None:
        """The offset that comes next; None if nothing has come yet."""
        return self._next.get(place)

    def forget(self, places: Iterable[Place]) -> None:
        """Partitions that are somebody else's now."""
        for place in places:
            self._next.pop(place, None)
            self._done.pop(place, None)
