"""The Faust worker: batches of the events topic into the store, and of foreign topics into the events topic.

One batch, step by step:

1. take what the agent's channel holds, up to INGEST_BATCH_MAX; a busy worker lets events gather for KAFKA_LINGER_MS;
2. put it in order, with what the group skipped and without what it repeats (sequence.py);
3. fold and write (folding.py): only then is it done. A store that is away is waited for;
4. refused input to the topic of dead letters, acknowledged;
5. now and then, when partitions move and when the worker stops: commit the offsets of what is done.

Faust does the group, its rebalancing and the fetching; its acknowledgement of every single event is left out, because
offsets are known here without it. Nothing else is asked of it: what it delivers twice or not at all is set right in 2,
and a worker to which it delivers nothing any more ends with an error, to be started again.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import faust
from aiokafka.errors import KafkaError
from faust.types import TP

from engine.catalogue import Catalogue
from engine.errors import BrokerError
from engine.ingest import Ingest
from engine.kafka.folding import Folder, Letter, events_of
from engine.kafka.producer import Outgoing, Producer, dead_letters
from engine.kafka.reader import PartitionReader
from engine.kafka.repartition import Repartitioner
from engine.kafka.sequence import Place, Record, Sequencer
from engine.kafka.topics import REQUEST_MS_MAX, Brokers, Incarnation, Topics, check
from engine.limits import (
    DRAIN_MS_MAX,
    INGEST_BATCH_MAX,
    KAFKA_COMMIT_MS,
    KAFKA_HEARTBEAT_MS,
    KAFKA_LINGER_MS,
    KAFKA_LOOK_MS,
    KAFKA_SESSION_MS_MAX,
    KAFKA_STALL_MS_MAX,
)
from engine.store.base import Store, StoreError, StoreUnavailable

log = logging.getLogger(__name__)

_RETRY_S: Final = 0.2
_BUSY_EVENTS: Final = 4
"""A worker whose last batch had more than this lets the next one gather."""
_BUFFER_EVENTS: Final = 4 * INGEST_BATCH_MAX


def new_app(topics: Topics, servers: str, folder: Path, **settings: Any) -> faust.App:
    """A Faust app without web server, tables and topics of its own; its data folder is made if it is not there."""
    # What an operator should see of its log is a warning; the rest is the chatter of each start.
    for name in ("faust", "mode"):
        logging.getLogger(name).setLevel(logging.WARNING)
    session_s = KAFKA_SESSION_MS_MAX / 1e3
    return faust.App(
        topics.group,
        broker=[f"kafka://{server.strip()}" for server in servers.split(",")],
        datadir=str(folder),
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        stream_buffer_maxsize=_BUFFER_EVENTS,
        stream_wait_empty=False,
        # Faust's own assignment is for tables, and leaves workers idle that get no full share.
        table_standby_replicas=0,
        broker_session_timeout=session_s,
        broker_heartbeat_interval=KAFKA_HEARTBEAT_MS / 1e3,
        broker_request_timeout=REQUEST_MS_MAX / 1e3,
        broker_rebalance_timeout=REQUEST_MS_MAX / 1e3,
        **settings,
    )


class Raw(faust.Schema):  # type: ignore[misc]  # Faust's types are not known to mypy
    """Keys and values as the bytes they are, whatever they are: Faust's own refuses a message without a value."""

    def compile(self, app: faust.App, **_: Any) -> Callable[..., Awaitable[Any]]:
        """The function that makes an event of a message."""

        async def decode(message: Any, *, propagate: bool = False) -> Any:
            return app.create_event(message.key, message.value, message.headers, message)

        return decode


async def batches(channel: Any, count_max: int, linger_ms: int) -> AsyncIterator[list[Record]]:
    """What an agent's channel holds, again and again, until the channel ends."""
    queue, busy = channel.queue, False
    while True:
        try:
            event = await channel.get()
        except StopAsyncIteration:
            return
        if busy:
            await asyncio.sleep(linger_ms / 1e3)
        batch = [event.message]
        while len(batch) < count_max and not queue.empty():
            batch.append(queue.get_nowait().message)
        busy = len(batch) > _BUSY_EVENTS
        yield batch


class Worker:
    """One member of the group of workers. `run` it once."""

    def __init__(
        self,
        catalogue: Catalogue,
        ingest: Ingest,
        store: Store,
        brokers: Brokers,
        topics: Topics,
        known: Incarnation,
        folder: Path,
        sources: Sequence[str] = (),
    ) -> None:
        self._brokers = brokers
        self._topics = topics
        self._known = known
        self._store = store
        self._folder = Folder(ingest, store, self._append, known.partition_of)
        self._producer = Producer(brokers.servers)
        self._reader = PartitionReader(brokers, topics.group)
        self._sequencer = Sequencer(self._reader, INGEST_BATCH_MAX)
        self._repartitioner = Repartitioner(catalogue, topics, known, lambda: time.time_ns() // 1_000_000)
        self._app = new_app(topics, brokers.servers, folder)
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._assigned = asyncio.Event()
        self._stopping = False
        self.stuck = False
        """After `run`: Faust did not end in time. Nothing is left to do, but its tasks and thread are there."""
        self._committed: dict[Place, int] = {}
        self._starts: dict[Place, int] = {}
        self._in_hand: set[str] = set()
        """Topics of which a batch is being dealt with."""
        self._app.on_partitions_assigned.connect(self._on_assigned)
        self._app.on_partitions_revoked.connect(self._on_revoked)
        self._agent(topics.events, self._fold)
        self._sources = sources
        for source in sources:
            self._agent(source, self._repartition)

    async def run(self, stop: asyncio.Event, ready: Callable[[], None]) -> None:
        """Work until `stop`; `ready` is called when partitions were assigned first.

        Raises BrokerError if the topic becomes another one or nothing is delivered any more.
        """
        await self._check_sources()
        await self._producer.open()
        stopping: asyncio.Future[Any] = asyncio.create_task(stop.wait())
        assigned: asyncio.Future[Any] = asyncio.create_task(self._assigned.wait())
        tasks: list[asyncio.Future[Any]] = []
        try:
            await self._app.start()
            tasks = [asyncio.create_task(work) for work in (self._commit_now_and_then(), self._look_now_and_then())]
            await asyncio.wait((assigned, stopping, self._failed, *tasks), return_when=asyncio.FIRST_COMPLETED)
            if self._assigned.is_set():
                ready()
            await asyncio.wait((stopping, self._failed, *tasks), return_when=asyncio.FIRST_COMPLETED)
            for task in (self._failed, *tasks):
                if not task.done():
                    continue
                if stopping.done() and (failure := task.exception()) is not None:
                    # It ends anyway, and what is not committed is read again by the next one.
                    log.warning("while stopping: %r", failure)
                else:
                    task.result()
        except (KafkaError, TimeoutError) as error:
            raise BrokerError(f"the broker failed: {error!r}") from error
        finally:
            for task in (stopping, assigned, *tasks):
                task.cancel()
            await self._stop()

    async def _check_sources(self) -> None:
        own = {self._topics.events, self._topics.decisions, self._topics.outcomes, self._topics.dead}
        there = await self._brokers.look(*self._sources) if self._sources else {}
        for source in self._sources:
            if source in own:
                raise BrokerError(f"--source {source}: that is a topic of this engine, expected one of others")
            if source not in there:
                raise BrokerError(f"--source {source}: there is no such topic at {self._brokers.servers}")

    # --- the agents -------------------------------------------------------------------------------------------------

    def _agent(self, topic: str, work: Callable[[list[Record]], Awaitable[None]]) -> None:
        channel = self._app.topic(topic, schema=Raw(), acks=False)

        async def agent(stream: Any) -> None:
            try:
                async for batch in batches(stream.channel, INGEST_BATCH_MAX, KAFKA_LINGER_MS):
                    if self._stopping:
                        return
                    self._in_hand.add(topic)
                    try:
                        await work(batch)
                    finally:
                        self._in_hand.discard(topic)
            except Exception as error:
                # Faust would start the agent again behind the batch that failed. Ending here loses nothing.
                if not self._failed.done():
                    self._failed.set_exception(error)

        self._app.agent(channel, name=topic)(agent)

    async def _fold(self, arrived: list[Record]) -> None:
        async for batch in self._sequencer.in_order(arrived):
            events, dead = events_of(batch, self._known)
            dead += await self._waiting_for_store(lambda: self._folder.fold(events))  # noqa: B023  # awaited here
            if dead:
                await self._send(dead_letters(self._topics, dead, "ingest"))

    async def _append(self, entries: Sequence[tuple[str, bytes]]) -> None:
        known, topic = self._known, self._topics.events
        await self._send([Outgoing(topic, known.partition_of(name), name.encode(), data) for name, data in entries])

    async def _repartition(self, arrived: list[Record]) -> None:
        async for batch in self._sequencer.in_order(arrived):
            for outgoing, part in self._repartitioner.parts(batch):
                await self._send(outgoing)
                self._sequencer.done(part)
                await self._commit()

    async def _waiting_for_store(self, work: Callable[[], Awaitable[list[Letter]]]) -> list[Letter]:
        while True:
            try:
                return await work()
            except StoreError as error:
                if self._stopping:
                    raise
                log.warning("the store is away, trying again: %s", error)
                await asyncio.sleep(_RETRY_S)

    async def _send(self, records: Sequence[Outgoing]) -> None:
        while True:
            try:
                await self._producer.send(records)
                return
            except StoreUnavailable as error:
                if self._stopping:
                    raise
                log.warning("the broker does not take records, trying again: %s", error)
                await asyncio.sleep(_RETRY_S)

    # --- offsets ----------------------------------------------------------------------------------------------------

    async def _commit(self) -> None:
        done = self._sequencer.committable()
        news = {TP(*place): offset for place, offset in done.items() if self._committed.get(place) != offset}
        if news and await self._app.consumer._commit(news):
            self._committed |= {(tp.topic, tp.partition): offset for tp, offset in news.items()}

    async def _commit_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(KAFKA_COMMIT_MS / 1e3)
            if not self._app.rebalancing:
                await self._commit()

    async def _on_assigned(self, _: faust.App, assigned: Any, **__: Any) -> None:
        log.info("%d partitions are this worker's", len(assigned))
        self._assigned.set()

    async def _on_revoked(self, _: faust.App, revoked: Any, **__: Any) -> None:
        """Finish what is in hand, so that the next owner need not do it again; correct without it, too."""
        await self._finish(KAFKA_SESSION_MS_MAX / 3e3)
        places = [(tp.topic, tp.partition) for tp in revoked]
        self._sequencer.forget(places)
        for place in places:
            self._committed.pop(place, None)
            self._starts.pop(place, None)

    async def _finish(self, wait_s: float) -> None:
        deadline_s = time.monotonic() + wait_s
        while self._in_hand and time.monotonic() < deadline_s:
            await asyncio.sleep(0.005)
        try:
            async with asyncio.timeout(max(0.1, deadline_s - time.monotonic())):
                await self._commit()
        except (TimeoutError, KafkaError) as error:
            log.warning("offsets were not committed, so some events are read again: %s", error)

    # --- what may go wrong ------------------------------------------------------------------------------------------

    async def _look_now_and_then(self) -> None:
        """Raise BrokerError when the topic is another one, or when events wait and none has come for too long."""
        moved_s = time.monotonic()
        last: dict[Place, int | None] = {}
        while True:
            await asyncio.sleep(KAFKA_LOOK_MS / 1e3)
            if self._app.crashed:
                raise BrokerError(f"the Faust app crashed: {self._app.crash_reason!r}")
            try:
                await check(self._brokers, self._known)
                places = [(tp.topic, tp.partition) for tp in self._app.consumer.assignment()]
                ends = await self._reader.ends(places) if places else {}
            except (KafkaError, TimeoutError, OSError) as error:
                log.warning("the broker does not answer: %s", error)
                moved_s = time.monotonic()
                continue
            now = {place: self._sequencer.expected(place) for place in places}
            waiting = []
            for place, at in now.items():
                if at is None:
                    # Nothing came of it yet, so it stands where the group stood when it became this worker's.
                    at = self._starts[place] = self._starts.get(place) or await self._reader.start_of(place)
                if at < ends[place]:
                    waiting.append(place)
            if now != last or self._in_hand or not waiting:
                last, moved_s = now, time.monotonic()
            elif time.monotonic() - moved_s > KAFKA_STALL_MS_MAX / 1e3:
                raise BrokerError(
                    f"events wait in {len(waiting)} partitions of this worker and none has come for "
                    f"{KAFKA_STALL_MS_MAX} ms: the worker ends, to be started again"
                )

    async def _stop(self) -> None:
        self._stopping = True
        if self._app.started and not self._app.crashed:
            await self._finish(DRAIN_MS_MAX / 4e3)
        stopping = asyncio.ensure_future(self._app.stop())
        await asyncio.wait([stopping], timeout=DRAIN_MS_MAX / 4e3)
        self.stuck = not stopping.done()
        await self._producer.close(DRAIN_MS_MAX / 8e3)
        try:
            async with asyncio.timeout(DRAIN_MS_MAX / 8e3):
                await self._reader.close()
        except (TimeoutError, KafkaError, OSError) as error:
            log.warning("not ended in time: %r", error)
