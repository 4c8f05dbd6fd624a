"""What commands share that read the store of an engine: options, how it is opened and closed, where reports go."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

import click

from engine import limits
from engine.errors import InvalidArgument, NotAllowed, Unavailable
from engine.eventlog import EventLog, StreamLog
from engine.replaying import store_of
from engine.store.base import EVENTS_IN_KAFKA, Store, StoreError
from engine.store.redis import RedisStore
from engine.store.wire import Address

T = TypeVar("T")

data_option = click.option(
    "--data", "data_path", type=click.Path(path_type=Path), help="Data folder of an engine, running or not."
)
redis_option = click.option(
    "--redis", "redis_url", help="The store of an engine that has its own: redis://… or unix://…"
)
binary_option = click.option(
    "--store-binary", type=click.Path(path_type=Path), help="valkey-server or redis-server to start."
)


def check_brokers(kafka: str | None) -> None:
    """Refuse a --kafka that names no brokers. Raises BadParameter."""
    for server in () if kafka is None else kafka.split(","):
        host, _, port = server.strip().rpartition(":")
        if not host or not port.isdecimal():
            raise click.BadParameter(f"{server.strip()!r}, expected HOST:PORT[,HOST:PORT…]", param_hint="--kafka")


def check_store(data_path: Path | None, redis_url: str | None) -> None:
    """Refuse options that name no store, or two. Raises UsageError."""
    if (data_path is None) == (redis_url is None):
        raise click.UsageError("expected --data or --redis, one of them")
    if redis_url is not None:
        _check_url(redis_url, "--redis")


def check_log(log_at: str) -> None:
    """Refuse a --log that is a URL, but of no store. Raises UsageError."""
    if "://" in log_at:
        _check_url(log_at, "--log")


def _check_url(url: str, option: str) -> None:
    try:
        Address.parse_all(url)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from error


def url_of(
    data_path: Path | None, redis_url: str | None, binary: Path | None = None, *, make: bool = False
) -> AbstractContextManager[str]:
    """The URL of the store that --data or --redis name, while the block lasts; `make` makes a data folder of a new one.

    Raises UsageError, DataFolderError.
    """
    check_store(data_path, redis_url)
    return nullcontext(redis_url or "") if data_path is None else store_of(data_path, binary, make=make)


def url_of_log(log_at: str, binary: Path | None = None) -> AbstractContextManager[str]:
    """The URL of the store that --log names, while the block lasts. Raises DataFolderError."""
    return nullcontext(log_at) if "://" in log_at else store_of(Path(log_at), binary)


def in_store(
    at: AbstractContextManager[str],
    work: Callable[[RedisStore], Awaitable[T]],
    failed: str = "the store cannot be read",
) -> T:
    """What `work` makes of a store. Raises Unavailable if the store is away or, with the words of `failed`, fails."""
    with at as url:
        return asyncio.run(_in_store(url, work, failed))


async def _in_store(url: str, work: Callable[[RedisStore], Awaitable[T]], failed: str) -> T:
    try:
        store = await RedisStore.open(url, limits.PARTITIONS)
    except StoreError as error:
        raise Unavailable(f"the store is away: {error}") from error
    try:
        return await work(store)
    except StoreError as error:
        raise Unavailable(f"{failed}: {error}") from error
    finally:
        await store.close()


@asynccontextmanager
async def event_log_of(store: Store, kafka: str | None) -> AsyncIterator[EventLog]:
    """The event log of a store, while the block lasts; `kafka` is what --kafka names.

    Raises NotAllowed if the log is elsewhere, BrokerError if that Kafka has it not, StoreError.
    """
    if kafka is None:
        if await store.remember(EVENTS_IN_KAFKA) is not None:
            raise NotAllowed("the events of this store are in Kafka: name its brokers with --kafka HOST:PORT")
        yield StreamLog(store)
        return
    from engine.kafka.eventlog import TopicLog  # brings the client library, which most have no use for

    async with TopicLog.opened(kafka, store) as log:
        yield log


def write_report(path: Path, report: bytes) -> None:
    """Write what --json asked for. Raises InvalidArgument if it cannot be written there."""
    try:
        path.write_bytes(report)
    except OSError as error:
        raise InvalidArgument(f"{path}: cannot be written: {error.strerror or error}") from error
