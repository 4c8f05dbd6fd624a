"""What goes into Kafka: acknowledged by all in-sync replicas (acks=all, idempotent) before anybody is told.

The producer sends a batch again until it is acknowledged, in order and without doubling it, also over a restart of the
broker. Callers wait for a bounded time only. After that they are told that it is not known whether their records were
taken; who sends again with the same ids changes nothing.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError

from engine.errors import BrokerError
from engine.gateway_letters import shortened
from engine.kafka.topics import REQUEST_MS_MAX, Brokers, Incarnation, Topics, check
from engine.limits import KAFKA_AWAY_MS, KAFKA_LOOK_MS, KAFKA_START_MS_MAX, TOPIC_LETTER_BYTES_MAX, WRITE_WAIT_MS_MAX
from engine.store.base import StoreUnavailable
from features import Offset

log = logging.getLogger(__name__)

_BATCH_BYTES: Final = 256 * 1024
_RETRY_S: Final = 0.5


class Outgoing(NamedTuple):
    """A record on its way into Kafka."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()


class Producer:
    """An idempotent producer that is replaced when it cannot go on."""

    def __init__(self, servers: str) -> None:
        self._servers = servers
        self._producer: AIOKafkaProducer | None = None
        self._replacing = asyncio.Lock()

    async def open(self) -> None:
        """Connect, waiting for a broker that is away. Raises BrokerError after KAFKA_START_MS_MAX."""
        deadline_s = asyncio.get_running_loop().time() + KAFKA_START_MS_MAX / 1e3
        while True:
            try:
                self._producer = await self._started()
                return
            except (KafkaError, OSError) as error:
                if asyncio.get_running_loop().time() > deadline_s:
                    raise BrokerError(f"no Kafka broker answers at {self._servers}: {error}") from error
            await asyncio.sleep(_RETRY_S)

    async def close(self, wait_s: float) -> None:
        """Send what is on its way, within `wait_s`, and let go of connections."""
        if self._producer is not None:
            await _stop(self._producer, wait_s)

    async def send(self, records: Sequence[Outgoing], wait_ms: int = WRITE_WAIT_MS_MAX) -> list[int]:
        """Offsets of records that all are acknowledged. Raises StoreUnavailable: whether they were taken is not known.

        Records of one partition keep their order. An offset is -1 where the broker had a record already and no longer
        knew where.
        """
        producer = self._producer
        if producer is None:
            raise StoreUnavailable("Kafka is not connected")
        sent: list[asyncio.Future[Any]] = []
        try:
            async with asyncio.timeout(wait_ms / 1e3):
                for topic, partition, key, value, headers in records:
                    sent.append(await producer.send(topic, value, key, partition, headers=list(headers)))
                await asyncio.wait(sent)
            return [int(future.result().offset) for future in sent]
        except (TimeoutError, KafkaTimeoutError) as error:
            for future in sent:
                future.add_done_callback(_look_at)
            raise StoreUnavailable(f"Kafka did not acknowledge within {wait_ms} ms") from error
        except KafkaError as error:
            # Errors that sending again cures do not come out of an idempotent producer. This one will send no more.
            for future in sent:
                future.add_done_callback(_look_at)
            await self._replace(producer)
            raise StoreUnavailable(f"Kafka refused: {error}") from error

    async def _started(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._servers,
            acks="all",
            enable_idempotence=True,
            max_batch_size=_BATCH_BYTES,
            request_timeout_ms=REQUEST_MS_MAX,
        )
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        return producer

    async def _replace(self, old: AIOKafkaProducer) -> None:
        async with self._replacing:
            if self._producer is not old:
                return
            log.warning("the producer cannot go on and is replaced")
            try:
                async with asyncio.timeout(WRITE_WAIT_MS_MAX / 1e3):
                    self._producer = await self._started()
            except (KafkaError, OSError, TimeoutError) as error:
                log.warning("no other producer yet: %s", error)
                return
        await _stop(old, 0.0)


async def _stop(producer: AIOKafkaProducer, wait_s: float) -> None:
    stopping = asyncio.ensure_future(producer.stop())
    stopping.add_done_callback(_look_at)
    await asyncio.wait([stopping], timeout=wait_s)


def _look_at(future: "asyncio.Future[Any]") -> None:
    """Nobody waits for this any more: asyncio shall not complain that nobody looked."""
    if not future.cancelled():
        future.exception()


def dead_letters(topics: Topics, letters: Sequence[tuple[bytes, str]], source: str) -> list[Outgoing]:
    """Records of the topic of dead letters for (payload, reason); `source` says where they came from."""
    return [
        Outgoing(
            topics.dead,
            0,
            None,
            shortened(payload, TOPIC_LETTER_BYTES_MAX),
            [("reason", reason.encode()), ("source", source.encode()), ("bytes", b"%d" % len(payload))],
        )
        for payload, reason in letters
    ]


class KafkaLog:
    """The topics of an engine as a server writes them: events, dead letters, and what it decided and was told."""

    def __init__(self, brokers: Brokers, producer: Producer, topics: Topics, known: Incarnation) -> None:
        self._brokers = brokers
        self._producer = producer
        self._topics = topics
        self._known = known
        self._refusal = ""
        """Why nothing may be written: the topic is another one."""
        self._away = ""
        self._ask_again_s = 0.0

    @property
    def partitions(self) -> int:
        """Partitions of the topics."""
        return self._known.partitions

    async def watch(self) -> None:
        """See to it that nothing is written when the topic has become another one. Runs until it is cancelled."""
        answers = True
        while True:
            await asyncio.sleep(KAFKA_LOOK_MS / 1e3)
            try:
                await check(self._brokers, self._known)
                self._refusal = ""
            except BrokerError as error:
                if not self._refusal:
                    log.error("events are refused: %s", error)
                self._refusal = str(error)
            except (KafkaError, TimeoutError, OSError) as error:
                if answers:
                    log.warning("Kafka does not answer, so neither events nor decisions are acknowledged: %s", error)
                answers = False
                continue
            if not answers:
                log.warning("Kafka answers again")
            answers = True

    async def append_events(self, events: Sequence[tuple[str, bytes]]) -> list[Offset]:
        """Positions of (customer, event bytes), all acknowledged. Raises StoreUnavailable."""
        self._may_write()
        records = [self._record(self._topics.events, customer, data) for customer, data in events]
        return [self._known.position(offset) for offset in await self._producer.send(records)]

    async def backlog(self) -> dict[int, int]:
        """Nothing is dropped: Kafka keeps what waits for as long as it is told to keep it."""
        return {}

    async def dead_letters(self, letters: Sequence[tuple[bytes, str]]) -> None:
        """Keep (payload, reason) of refused input. Raises StoreUnavailable."""
        await self._producer.send(dead_letters(self._topics, letters, "publish"))

    @property
    def away(self) -> str:
        """Why decisions could not be published, for KAFKA_AWAY_MS after that was seen; then the next batch tries."""
        return self._away if time.monotonic() < self._ask_again_s else ""

    async def decisions(self, answers: Sequence[tuple[str, bytes]], wait_ms: int) -> None:
        """Publish (customer, DecideResponse bytes). Raises StoreUnavailable."""
        try:
            self._may_write()
            records = [self._record(self._topics.decisions, customer, data) for customer, data in answers]
            await self._producer.send(records, wait_ms)
        except StoreUnavailable as error:
            self._away, self._ask_again_s = str(error), time.monotonic() + KAFKA_AWAY_MS / 1e3
            raise

    async def outcome(self, customer: str, report: bytes) -> None:
        """Publish a ReportRequest, as bytes. Raises StoreUnavailable."""
        self._may_write()
        await self._producer.send([self._record(self._topics.outcomes, customer, report)])

    def _record(self, topic: str, customer: str, data: bytes) -> Outgoing:
        return Outgoing(topic, self._known.partition_of(customer), customer.encode(), data)

    def _may_write(self) -> None:
        if self._refusal:
            raise StoreUnavailable(self._refusal)
