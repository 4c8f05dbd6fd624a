"""The topics of an engine, and whether they are those that its store was filled from.

    <prefix>.events     events, checked; key: customer; partition: crc32(customer) mod partitions
    <prefix>.decisions  decisions as they were answered       same key, same partitions
    <prefix>.outcomes   outcomes as they were reported        same key, same partitions
    <prefix>.dead       refused input, with the reason as a header; one partition

A watermark is a position in one partition of one incarnation of the events topic. Were the topic made again, or the
customers spread over another number of partitions, offsets would be compared that have nothing to do with each other,
and events would be taken for folded that are not. So the store remembers name, partitions and id of the topic, and who
finds another one refuses to go on.

The number of partitions of the topic has nothing to do with that of the store: the watermark is the customer's own, and
no write moves a position of the store's. A topic may have as many as there shall be workers.

Offsets become positions as Offset(base_ms, offset + 1), where base_ms is when the store met the topic. So positions in
it are beyond those of whatever the store was filled from before.
"""

import asyncio
import logging
from dataclasses import asdict, dataclass
from typing import Any, Final
from zlib import crc32

import orjson
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from engine.errors import BrokerError
from engine.kafka.metadata import TopicsRequest, topics_of
from engine.limits import KAFKA_START_MS_MAX
from engine.store.base import EVENTS_IN_KAFKA, Store
from features import Offset

log = logging.getLogger(__name__)

PREFIX: Final = "opportune"
TOPIC_PARTITIONS: Final = 32
"""Partitions of topics that the engine makes: as many workers can share the work."""
REPLICAS_MAX: Final = 3
REQUEST_MS_MAX: Final = 10_000

_RETRY_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Topics:
    """Names of the topics of one engine."""

    prefix: str = PREFIX

    @classmethod
    def of_events(cls, topic: str) -> "Topics":
        """Those that belong to a topic of events.

        >>> Topics.of_events("shop.events").dead
        'shop.dead'
        """
        return cls(topic.removesuffix(".events"))

    @property
    def events(self) -> str:
        """Events, keyed by customer."""
        return f"{self.prefix}.events"

    @property
    def decisions(self) -> str:
        """Decisions as they were answered."""
        return f"{self.prefix}.decisions"

    @property
    def outcomes(self) -> str:
        """Outcomes as they were reported."""
        return f"{self.prefix}.outcomes"

    @property
    def dead(self) -> str:
        """Refused input."""
        return f"{self.prefix}.dead"

    @property
    def group(self) -> str:
        """The consumer group of the ingest workers."""
        return f"{self.prefix}.ingest"


@dataclass(frozen=True, slots=True)
class Incarnation:
    """The events topic that a store is filled from."""

    topic: str
    partitions: int
    id: str
    """The broker's id of the topic: another one if it is deleted and made again."""
    base_ms: int
    """When the store met it, ms since 1970 UTC; the first part of all positions in it."""

    def partition_of(self, customer: str) -> int:
        """Partition of a customer's events.

        >>> Incarnation("t", 8, "", 0).partition_of("anna") == crc32(b"anna") % 8
        True
        """
        return crc32(customer.encode()) % self.partitions

    def position(self, offset: int) -> Offset:
        """Position of the record at an offset.

        >>> Incarnation("t", 8, "", 1_700_000_000_000).position(0)
        Offset(ms=1700000000000, seq=1)
        """
        return Offset(self.base_ms, offset + 1)


class Brokers:
    """The cluster behind `--kafka HOST:PORT[,…]`, for looking at topics and making them."""

    def __init__(self, servers: str) -> None:
        self.servers = servers
        self._admin = AIOKafkaAdminClient(bootstrap_servers=servers, request_timeout_ms=REQUEST_MS_MAX)

    async def open(self, wait_ms: int = KAFKA_START_MS_MAX) -> None:
        """Connect, waiting for a broker that is away. Raises BrokerError after `wait_ms`."""
        deadline_s = asyncio.get_running_loop().time() + wait_ms / 1e3
        while True:
            try:
                await self._admin.start()
                return
            except (KafkaError, OSError) as error:
                if asyncio.get_running_loop().time() > deadline_s:
                    raise BrokerError(f"no Kafka broker answers at {self.servers}: {error}") from error
            await asyncio.sleep(_RETRY_S)

    async def close(self) -> None:
        """Let go of connections."""
        await self._admin.close()

    async def look(self, *names: str) -> dict[str, tuple[int, str]]:
        """(partitions, id) of those topics that exist. Raises KafkaError, TimeoutError."""
        return topics_of(await self._ask(*names))

    async def _ask(self, *names: str) -> Any:
        async with asyncio.timeout(REQUEST_MS_MAX / 1e3):
            return await self._admin._send_request(TopicsRequest(list(names)))

    async def make(self, partitions: dict[str, int]) -> None:
        """Make topics on up to REPLICAS_MAX brokers. Those that exist stay as they are. Raises BrokerError."""
        if not partitions:
            return
        replicas = min(REPLICAS_MAX, len((await self._ask()).brokers))
        # acks=all waits for the replicas in sync. With fewer than two of three, one broken disk would lose what was
        # acknowledged.
        configs = {"min.insync.replicas": "2"} if replicas > 2 else {}
        new = [NewTopic(name, count, replicas, topic_configs=configs) for name, count in partitions.items()]
        answer = await self._admin.create_topics(new)
        for name, code, *message in answer.topic_errors:
            if code and for_code(code) is not TopicAlreadyExistsError:
                reason = " ".join(map(str, message)) or for_code(code).__name__
                raise BrokerError(f"topic {name} cannot be made: {reason}")
        deadline_s = asyncio.get_running_loop().time() + REQUEST_MS_MAX / 1e3
        while len(await self.look(*partitions)) < len(partitions):
            if asyncio.get_running_loop().time() > deadline_s:
                raise BrokerError(f"topics {', '.join(partitions)} were made but do not show up at {self.servers}")
            await asyncio.sleep(0.05)

    async def committed(self, group: str, topic: str, partition: int) -> int | None:
        """Offset that a group goes on from; None if it never committed one. Raises KafkaError, TimeoutError."""
        async with asyncio.timeout(REQUEST_MS_MAX / 1e3):
            found: dict[Any, Any] = await self._admin.list_consumer_group_offsets(group)
        for (name, number), at in found.items():
            if (name, number) == (topic, partition) and at.offset >= 0:
                return int(at.offset)
        return None


async def attach(brokers: Brokers, topics: Topics, store: Store, now_ms: int, partitions: int) -> Incarnation:
    """The events topic of the store. Topics that are not there are made, with `partitions` of them.

    Raises BrokerError if the topic is another one than the store was filled from, StoreError if the store is away.
    """
    note = await store.remember(EVENTS_IN_KAFKA)
    known = None if note is None else Incarnation(**orjson.loads(note))
    there = await brokers.look(topics.events, topics.decisions, topics.outcomes, topics.dead)
    if known is not None:
        _compare(known, topics.events, there.get(known.topic))
        partitions = known.partitions
    wanted = {topics.events: partitions, topics.decisions: partitions, topics.outcomes: partitions, topics.dead: 1}
    await brokers.make({name: count for name, count in wanted.items() if name not in there})
    if known is None:
        waiting = sum((await store.backlog()).values())
        if waiting:
            raise BrokerError(
                f"{waiting} events wait in the streams of the store: let an engine without --kafka fold them first"
            )
        count, topic_id = (await brokers.look(topics.events))[topics.events]
        folded_ms = max(position.ms for position in (await store.folded()).values())
        met = Incarnation(topics.events, count, topic_id, max(now_ms, folded_ms + 1))
        note = await store.remember(EVENTS_IN_KAFKA, orjson.dumps(asdict(met)))
        assert note is not None
        known = Incarnation(**orjson.loads(note))
        _compare(known, topics.events, (count, topic_id))
    return known


async def check(brokers: Brokers, known: Incarnation) -> None:
    """Raise BrokerError if the topic is another one by now, KafkaError or TimeoutError if the broker is away."""
    _compare(known, known.topic, (await brokers.look(known.topic)).get(known.topic))


async def refuse_other_broker(store: Store) -> None:
    """Raise BrokerError if the store takes its events from Kafka: its streams must not be folded beside that."""
    note = await store.remember(EVENTS_IN_KAFKA)
    if note is not None:
        raise BrokerError(
            f"this store takes its events from the Kafka topic {Incarnation(**orjson.loads(note)).topic}: start with "
            f"--kafka. To go back to the streams of the store, stop everything when all events are folded and delete "
            f"the field {EVENTS_IN_KAFKA!r} of the hash 'kafka' in the store"
        )


_REMEDY: Final = (
    "nothing was folded. Offsets of the two cannot be compared. To go on with what is there now: stop all servers and "
    f"workers cleanly, delete the field {EVENTS_IN_KAFKA!r} of the hash 'kafka' in the store, and start again"
)


def _compare(known: Incarnation, topic: str, found: tuple[int, str] | None) -> None:
    if known.topic != topic:
        raise BrokerError(
            f"the store takes its events from topic {known.topic}, not from {topic}: start with the same --prefix; "
            f"{_REMEDY}"
        )
    if found is None:
        raise BrokerError(f"topic {topic}, which the store takes its events from, is not there any more; {_REMEDY}")
    count, topic_id = found
    if count != known.partitions:
        raise BrokerError(
            f"topic {topic} has {count} partitions, the store was filled from {known.partitions}: their number is "
            f"fixed, because a customer's events must stay in one of them; {_REMEDY}"
        )
    if topic_id != known.id:
        raise BrokerError(
            f"topic {topic} was deleted and made again (id {topic_id}, the store was filled from {known.id}); {_REMEDY}"
        )
