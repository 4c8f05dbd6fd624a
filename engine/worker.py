"""One worker process: `python -m engine.worker serve|ingest|learn --settings JSON`. The supervisor starts these.

One event loop a process (uvloop where there is one). The word `ready` and its addresses on stdout when it can serve;
SIGTERM or the end of stdin (the supervisor is gone) drains it within DRAIN_MS_MAX.
"""

import asyncio
import ctypes
import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import click
from pydantic import BaseModel, ConfigDict

from engine.catalogue import Catalogue
from engine.children import REFUSED_EXIT, RELOAD_EXIT
from engine.config import load, parse
from engine.errors import BrokerError, NotAllowed, OpportuneError
from engine.ingest import Ingest
from engine.kafka.producer import KafkaLog, Producer
from engine.kafka.topics import Brokers, Incarnation, Topics, attach, refuse_other_broker
from engine.layouts import LayoutWatch, keep_layout, learn_layouts
from engine.learning import Learning
from engine.limits import DRAIN_MS_MAX, PARTITIONS
from engine.policywatch import PolicyWatch
from engine.rpc import Server
from engine.service import Service, wall_clock_ms
from engine.signing import KeyFolder
from engine.store.base import StoreError, StoreUnavailable
from engine.store.redis import RedisStore
from engine.versions import Versions
from engine.versions_watch import VersionWatch, folding_of
from engine.web import WebServer
from models import CheckpointError

log = logging.getLogger("opportune")

T = TypeVar("T")

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_GC_ALLOCATIONS: Final = 50_000
_KEPT_BYTES_MAX: Final = 64 * 1024 * 1024
_OPEN_RETRY_S: Final = 0.1
_LAYOUT_GRACE_S: Final = 1.0
"""Servers follow a version within this time, mostly."""
_OPEN_S_MAX: Final = 30.0
_LEARN_NICE: Final = 5
"""Weighs a third of a process that is not nice."""


class Settings(BaseModel):
    """What the supervisor tells a worker."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    config: Path
    version: str = ""
    """Of the file when the engine was started; "": of the file as it is."""
    redis: str
    partitions: int = PARTITIONS
    grpc: str = "127.0.0.1:0"
    http: str | None = None
    transport: str = "native"
    kafka: str | None = None
    """Brokers, "host:port,…"; None: the store's streams are the event log."""
    prefix: str = "opportune"
    topic_partitions: int = 32
    sources: tuple[str, ...] = ()
    faust_folder: Path = Path()
    """Where Faust may keep files."""
    keys: Path | None = None
    """Folder of the keys that sign (engine.signing)."""


Role = Callable[[Settings, Catalogue, RedisStore, asyncio.Event], Awaitable[None]]


@click.command()
@click.argument("role", type=click.Choice(["serve", "ingest", "learn"]))
@click.option("--settings", "settings_json", required=True)
def main(role: str, settings_json: str) -> None:
    """Run one worker."""
    roles: dict[str, Role] = {"serve": serve, "ingest": ingest, "learn": learn}
    if role == "learn":
        _give_way()
    run(roles[role], settings_json)


def run(role: Role, settings_json: str) -> None:
    """Run a role until it is stopped; exits with 1 and a message if it cannot start."""
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, stream=sys.stderr, force=True)  # the supervisor's may be there
    try:
        _run(_work(role, Settings.model_validate_json(settings_json)))
    except _Reload:
        sys.exit(RELOAD_EXIT)
    except NotAllowed as error:
        log.error("%s", error)
        sys.exit(REFUSED_EXIT)
    except (OpportuneError, StoreError, CheckpointError, OSError) as error:
        log.error("%s", error)
        sys.exit(1)


def _run(work: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ImportError:  # Windows has none
        asyncio.run(work)
    else:
        uvloop.run(work)


async def _work(role: Role, settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_reader(sys.stdin.fileno(), _parent_gone, loop, stop)
    store = await _unless(stop, _open(settings))
    if store is None:
        return
    try:
        started = settings.version or load(settings.config)[1]
        versions = Versions(store, wall_clock_ms)
        version, text, said = await versions.settle(started, lambda: load(settings.config)[2])
        if said:
            log.log(logging.WARNING if role is serve and version != started else logging.INFO, "%s", said)
        name = str(settings.config) if version == started else f"version {version}"
        catalogue = Catalogue.compile(parse(text, name), version, text, name)
        for kind, layout in catalogue.layouts.items():
            await keep_layout(store, version, text, layout, kind)
        if settings.kafka is None:
            await refuse_other_broker(store)
        # What was made so far lives as long as the process: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        # A batch makes thousands of short-lived tuples and no cycles; looking for cycles every 700 of them costs 4 µs a
        # decision.
        gc.set_threshold(_GC_ALLOCATIONS, 50, 50)
        await role(settings, catalogue, store, stop)
    finally:
        await store.close()


async def _open(settings: Settings) -> RedisStore:
    """The store, waited for while it loads its files."""
    deadline = asyncio.get_running_loop().time() + _OPEN_S_MAX
    while True:
        try:
            return await RedisStore.open(settings.redis, settings.partitions)
        except StoreUnavailable:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(_OPEN_RETRY_S)


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """What becomes of the work; None if it is stopped before."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not working.done():
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working
        return None
    return working.result()


def _parent_gone(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 1024):
        loop.remove_reader(sys.stdin.fileno())
        stop.set()


def _give_way() -> None:
    """Let callers go first: where the cores are short, lessons may wait, answers may not.

    On two cores a server that is asked without a pause then makes a tenth more decisions. More would starve the learner
    where everything is busy: as it is, it gets a quarter of a core beside two processes that want all of two.
    """
    with suppress(AttributeError, OSError):  # Windows has none
        level = os.nice(_LEARN_NICE)
        if os.getsid(0) == os.getpid():
            # Linux may weigh sessions before it weighs the processes in each, and this one has a session of its own.
            Path("/proc/self/autogroup").write_text(str(level))


def _keep_memory() -> None:
    """Have glibc keep the memory of a batch's arrays: giving it back and faulting it in again costs 5 µs a decision."""
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            mallopt(parameter, _KEPT_BYTES_MAX)


def _ready(**facts: Any) -> None:
    print("ready", json.dumps(facts), flush=True)  # noqa: T201  # the contract with the supervisor


async def serve(
    settings: Settings,
    catalogue: Catalogue,
    store: RedisStore,
    stop: asyncio.Event,
    service_type: type[Service] = Service,
) -> None:
    """Answer Decide, Report, Publish and the rest, over gRPC and HTTP."""
    _keep_memory()
    async with AsyncExitStack() as closing:
        log_of_kafka = None if settings.kafka is None else await _kafka_log(settings, store, closing)
        service = service_type(catalogue, store, inlet=log_of_kafka, outlet=log_of_kafka)
        watches = [LayoutWatch(store, layout, kind) for kind, layout in catalogue.layouts.items()]

        def look() -> None:
            for watch in watches:
                watch.look()

        service.decider.on_unreadable = look
        service.defaults.key_folder = KeyFolder(settings.keys) if settings.keys else None
        policy = PolicyWatch(service.decider, store)

        async def adopt(found: Catalogue) -> None:
            serving = await asyncio.to_thread(service.prepared, found)
            watches[:] = [LayoutWatch(store, layout, kind) for kind, layout in found.layouts.items()]
            await policy.follow(serving, lambda: service.follow(serving))

        await _serve(settings, service, store, stop, policy, VersionWatch(store, catalogue.version, adopt))


async def _serve(
    settings: Settings,
    service: Service,
    store: RedisStore,
    stop: asyncio.Event,
    watch: PolicyWatch,
    versions: VersionWatch,
) -> None:
    with suppress(StoreUnavailable):
        await watch.step(0)
    watching = [asyncio.create_task(work) for work in (watch.run(), versions.run(), service.leads.run())]
    with suppress(StoreError):
        await service.keeper.step()
    keeping = asyncio.create_task(service.keeper.run())
    server = Server(service, settings.transport)
    versions.on_refused = server.refuses_versions
    host = settings.grpc.rpartition(":")[0]
    facts = {"grpc": f"{host}:{await server.start(settings.grpc)}"}
    web = WebServer(service) if settings.http else None
    if web is not None and settings.http:
        host, _, port = settings.http.rpartition(":")
        facts["http"] = f"{host}:{await web.start(host, int(port))}"
    _ready(**facts)
    await stop.wait()
    keeping.cancel()
    # Callers go elsewhere first, while their calls are not begun; then what is under way; then the transports.
    await server.leave()
    with suppress(TimeoutError):
        await asyncio.wait_for(service.drain(), DRAIN_MS_MAX / 2e3)
    await server.stop(DRAIN_MS_MAX / 4e3)
    if web is not None:
        await web.stop()
    for task in watching:
        task.cancel()


def ingest_of(catalogue: Catalogue, store: RedisStore) -> Ingest:
    """The fold of a configuration on a store."""

    async def learn() -> int:
        return sum([await learn_layouts(store, layout, kind) for kind, layout in catalogue.layouts.items()])

    return Ingest(
        catalogue.layout,
        store,
        catalogue.keeper,
        learn=learn,
        entities=catalogue.entity_attributes,
        rollups=catalogue.rollups,
    )


async def _kafka_log(settings: Settings, store: RedisStore, closing: AsyncExitStack) -> KafkaLog:
    """The topics as a server writes them, until `closing` closes. Raises BrokerError."""
    brokers, topics, known = await _attached(settings, store, closing)
    producer = Producer(brokers.servers)
    await producer.open()
    closing.push_async_callback(producer.close, DRAIN_MS_MAX / 8e3)
    found = KafkaLog(brokers, producer, topics, known)
    watching = asyncio.create_task(found.watch())
    closing.callback(watching.cancel)
    return found


async def _attached(
    settings: Settings, store: RedisStore, closing: AsyncExitStack
) -> tuple[Brokers, Topics, Incarnation]:
    assert settings.kafka is not None
    # While a broker is away aiokafka logs a dozen lines a second. What of it matters is told by those who call it.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    brokers, topics = Brokers(settings.kafka), Topics(settings.prefix)
    closing.push_async_callback(brokers.close)
    await brokers.open()
    known = await attach(brokers, topics, store, wall_clock_ms(), settings.topic_partitions)
    return brokers, topics, known


async def ingest(settings: Settings, catalogue: Catalogue, store: RedisStore, stop: asyncio.Event) -> None:
    """Fold events into state."""
    if settings.kafka is not None:
        # Faust takes a second to load, and the other roles have no use for it.
        from engine.kafka import worker as faust_worker

        with suppress(ImportError):
            # Faust's consumer makes a loop of its own, in a thread; this one runs on uvloop already.
            import uvloop

            asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
        async with AsyncExitStack() as closing:
            attached = await _attached(settings, store, closing)
            ingesting = ingest_of(catalogue, store)
            member = faust_worker.Worker(
                catalogue, ingesting, store, *attached, settings.faust_folder, settings.sources
            )
            failure, reload = None, False

            async def come_back(found: Catalogue) -> None:
                # Faust runs once in a process: the supervisor starts another at once.
                nonlocal reload
                if folding_of(found) != folding_of(catalogue):
                    reload = True
                    stop.set()

            watching = asyncio.create_task(VersionWatch(store, catalogue.version, come_back).run())
            closing.callback(watching.cancel)
            try:
                await member.run(stop, _ready)
            except BrokerError as error:
                failure = error
            if member.stuck:
                # All that is done is written, and Faust may wait for a broker that is away for as long as it likes.
                if failure is not None:
                    log.error("%s", failure)
                logging.shutdown()
                os._exit((RELOAD_EXIT if reload else 0) if failure is None else 1)
            if failure is not None:
                raise failure
            if reload:
                raise _Reload
        return

    async def folding(found: Catalogue) -> Ingest:
        return ingest_of(found, store)

    await _until(stop, store, catalogue, folding)


async def learn(_: Settings, catalogue: Catalogue, store: RedisStore, stop: asyncio.Event) -> None:
    """Learn from outcomes."""

    async def learning(found: Catalogue) -> Learning:
        worker = Learning(found, store)
        await worker.learner()
        return worker

    await _until(stop, store, catalogue, learning)


class _Reload(Exception):
    """The process ends to come back with another version of the configuration."""


class _Worker(Protocol):
    def stop(self) -> None: ...

    async def run(self) -> None: ...


async def _until(
    stop: asyncio.Event, store: RedisStore, catalogue: Catalogue, make: Callable[[Catalogue], Awaitable[_Worker]]
) -> None:
    """Run a worker of each version of the catalogue, one after the other, until `stop`."""
    found: list[Catalogue] = []
    changed = asyncio.Event()

    async def adopt(next_one: Catalogue) -> None:
        if isinstance(worker, Ingest) and folding_of(next_one) != folding_of(catalogue):
            # What it writes then can be read by servers that have the new version only, or have learnt its layout.
            await asyncio.sleep(_LAYOUT_GRACE_S)
        found[:] = [next_one]
        changed.set()

    worker = await make(catalogue)
    _ready()
    following = asyncio.create_task(VersionWatch(store, catalogue.version, adopt).run())
    stopping = asyncio.create_task(stop.wait())
    try:
        while True:
            changing = asyncio.create_task(changed.wait())
            running = asyncio.create_task(worker.run())
            await asyncio.wait((running, stopping, changing), return_when=asyncio.FIRST_COMPLETED)
            changing.cancel()
            worker.stop()
            await running
            if stop.is_set() or not changed.is_set():
                return
            changed.clear()
            # What the last one knew stands in the store, and this one begins there.
            [catalogue] = found
            worker = await _made(make, catalogue, stop)
            log.info("version %s is followed from here on", catalogue.version)
    finally:
        following.cancel()
        stopping.cancel()


async def _made(make: Callable[[Catalogue], Awaitable[_Worker]], catalogue: Catalogue, stop: asyncio.Event) -> _Worker:
    """The worker of another version, once the store lets it be made."""
    while True:
        try:
            return await make(catalogue)
        except StoreUnavailable:
            if stop.is_set():
                raise
            await asyncio.sleep(_OPEN_RETRY_S)


if __name__ == "__main__":
    main()
