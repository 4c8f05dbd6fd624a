"""Looks at partitions beside the consumer group: where it stands, what it left out, where the log ends."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from engine.kafka.sequence import Place, Record
from engine.kafka.topics import REQUEST_MS_MAX, Brokers
from engine.limits import KAFKA_STALL_MS_MAX

log = logging.getLogger(__name__)

_POLL_MS: Final = 200
_RETRY_S: Final = 0.5
T = TypeVar("T")


class PartitionReader:
    """A consumer that is in no group. It waits for a broker that is away, for KAFKA_STALL_MS_MAX at most."""

    def __init__(self, brokers: Brokers, group: str) -> None:
        self._brokers = brokers
        self._group = group
        self._consumer: AIOKafkaConsumer | None = None
        self._in_use = asyncio.Lock()

    async def start_of(self, place: Place) -> int:
        """Offset that the group goes on from, or the first there is. Raises KafkaError, TimeoutError, OSError."""

        async def look() -> int:
            committed = await self._brokers.committed(self._group, *place)
            if committed is not None:
                return committed
            at = TopicPartition(*place)
            return int((await (await self._open()).beginning_offsets([at]))[at])

        return await self._patiently(look)

    async def between(self, place: Place, start: int, end: int, count: int) -> Sequence[Record]:
        """Up to `count` records of [start, end) that exist. Raises KafkaError, TimeoutError, OSError."""

        async def read() -> Sequence[Record]:
            return await self._read(place, start, end, count)

        return await self._patiently(read)

    async def ends(self, places: Iterable[Place]) -> dict[Place, int]:
        """Where partitions end: the offset that comes next. Raises KafkaError, TimeoutError, OSError."""
        async with self._in_use, asyncio.timeout(REQUEST_MS_MAX / 1e3):
            found = await (await self._open()).end_offsets([TopicPartition(*place) for place in places])
        return {(at.topic, at.partition): int(offset) for at, offset in found.items()}

    async def starts(self, places: Iterable[Place]) -> dict[Place, int]:
        """Where partitions begin: the first offset that is left. Raises KafkaError, TimeoutError, OSError."""
        async with self._in_use, asyncio.timeout(REQUEST_MS_MAX / 1e3):
            found = await (await self._open()).beginning_offsets([TopicPartition(*place) for place in places])
        return {(at.topic, at.partition): int(offset) for at, offset in found.items()}

    async def close(self) -> None:
        """Let go of connections."""
        if self._consumer is not None:
            await self._consumer.stop()

    async def _open(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self._brokers.servers,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                request_timeout_ms=REQUEST_MS_MAX,
            )
            try:
                await consumer.start()
            except BaseException:
                await consumer.stop()
                raise
            self._consumer = consumer
        return self._consumer

    async def _read(self, place: Place, start: int, end: int, count: int) -> Sequence[Record]:
        consumer, at = await self._open(), TopicPartition(*place)
        found: list[Record] = []
        try:
            consumer.assign([at])
            consumer.seek(at, start)
            # The position goes on over markers and over what retention deleted.
            while len(found) < count and await consumer.position(at) < end:
                got: dict[Any, Any] = await consumer.getmany(at, timeout_ms=_POLL_MS, max_records=count - len(found))
                found += [
                    Record(r.topic, r.partition, r.offset, r.timestamp / 1e3, r.key, r.value, r.headers)
                    for r in got.get(at, ())
                    if r.offset < end
                ]
            # Not unsubscribe(): before the consumer's own task has seen what was assigned, that ends it for good.
            consumer.pause(at)
        except KafkaError:
            # A consumer whose task has ended answers nothing any more.
            self._consumer = None
            await consumer.stop()
            raise
        return found

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        deadline_s, told = asyncio.get_running_loop().time() + KAFKA_STALL_MS_MAX / 1e3, False
        while True:
            try:
                async with self._in_use, asyncio.timeout(REQUEST_MS_MAX / 1e3):
                    return await ask()
            except (KafkaError, TimeoutError, OSError) as error:
                if asyncio.get_running_loop().time() > deadline_s:
                    raise
                if not told:
                    log.warning("the broker does not answer, trying again: %s", error)
                told = True
            await asyncio.sleep(_RETRY_S)
