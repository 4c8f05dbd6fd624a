"""The event log in Kafka, read again beside the workers that fold it, and its dead letters. Nothing is written."""

import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import orjson
from aiokafka.errors import KafkaError

from engine.errors import BrokerError, NotAllowed
from engine.eventlog import Arrival, Piece
from engine.ingest import logged_event
from engine.kafka.reader import PartitionReader
from engine.kafka.sequence import Place
from engine.kafka.topics import Brokers, Incarnation, Topics, check
from engine.limits import STORE_ANSWER_MS_MAX
from engine.store.base import EVENTS_IN_KAFKA, Feed, LogEntry
from features import Offset

_RECORDS_A_READ: Final = 10_000
"""Each read asks the broker from where the last one ended, and what was fetched beyond is thrown away."""
_LETTERS_A_READ: Final = 200
"""Their payloads may be long."""


class TopicLog:
    """The topics that a store is filled from. What asks the broker raises BrokerError."""

    def __init__(self, known: Incarnation, reader: PartitionReader) -> None:
        self._known = known
        self._topics = Topics.of_events(known.topic)
        self._reader = reader

    @classmethod
    @asynccontextmanager
    async def opened(cls, servers: str, store: Feed) -> AsyncIterator["TopicLog"]:
        """The log of a store, while the block lasts.

        Raises NotAllowed if its events are not in Kafka, BrokerError if they are not in the Kafka at `servers`.
        """
        note = await store.remember(EVENTS_IN_KAFKA)
        if note is None:
            raise NotAllowed("the events of this store are in its own streams: expected no --kafka")
        known = Incarnation(**orjson.loads(note))
        # While a broker is away aiokafka logs a dozen lines a second. What of it matters is told.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        brokers = Brokers(servers)
        reader = PartitionReader(brokers, Topics.of_events(known.topic).group)
        try:
            with _told():
                await brokers.open(STORE_ANSWER_MS_MAX)
                await check(brokers, known)
            yield cls(known, reader)
        finally:
            await reader.close()
            await brokers.close()

    @property
    def partitions(self) -> int:
        """See EventLog."""
        return self._known.partitions

    @property
    def begins(self) -> Offset:
        """See EventLog."""
        return self._known.position(-1)

    async def folded(self) -> Sequence[Offset]:
        """See EventLog: what the workers committed, which is what they have folded up to half a second ago."""
        with _told():
            starts = [await self._reader.start_of(place) for place in self._places()]
        return [self._known.position(start - 1) for start in starts]

    async def read(self, partition: int, after: Offset) -> Piece | None:
        """See EventLog."""
        known, place = self._known, (self._known.topic, partition)
        start = after.seq if after.ms == known.base_ms else 0  # a position counts from 1
        with _told():
            end = (await self._reader.ends([place]))[place]
            records = await self._reader.between(place, start, end, _RECORDS_A_READ)
        if not records:
            return None
        arrivals = []
        for record in records:
            try:
                customer, event = logged_event(LogEntry(known.position(record.offset), record.value or b""))
            except ValueError:
                continue
            if known.partition_of(customer) == partition:  # the workers refuse others
                arrivals.append(Arrival(customer, event, int(record.timestamp * 1e3)))
        return Piece(arrivals, len(records), known.position(records[-1].offset))

    async def cut(self, partition: int, entries: int) -> bool:
        """See EventLog."""
        place = (self._known.topic, partition)
        with _told():
            return (await self._reader.starts([place]))[place] > 0

    async def lengths(self) -> list[int]:
        """Records of each partition, at most."""
        places = self._places()
        with _told():
            starts, ends = await self._reader.starts(places), await self._reader.ends(places)
        return [ends[place] - starts[place] for place in places]

    async def letters(self) -> AsyncIterator[tuple[int, bytes, str]]:
        """(when it came in ms since 1970 UTC, payload, reason) of dead letters, newest first."""
        place = (self._topics.dead, 0)
        with _told():
            first, end = (await self._reader.starts([place]))[place], (await self._reader.ends([place]))[place]
        while first < end:
            start = max(first, end - _LETTERS_A_READ)
            with _told():
                records = await self._reader.between(place, start, end, _LETTERS_A_READ)
            for record in reversed(records):
                reason = dict(record.headers).get("reason", b"").decode(errors="replace")
                yield int(record.timestamp * 1e3), record.value or b"", reason
            end = start

    def _places(self) -> list[Place]:
        return [(self._known.topic, partition) for partition in range(self.partitions)]


@contextmanager
def _told() -> Iterator[None]:
    """Say what failed in one kind of error."""
    try:
        yield
    except (KafkaError, TimeoutError, OSError) as error:
        raise BrokerError(f"Kafka cannot be read: {error or type(error).__name__}") from error
