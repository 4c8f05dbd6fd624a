"""Running it: `opportune serve` on one machine, `opportune ingest` on as many more as Kafka needs."""

import asyncio
import logging
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import click

from engine.catalogue import Catalogue
from engine.cli_parts import config_option, given_of, told
from engine.cli_store import check_brokers
from engine.config import load
from engine.datafolder import DataFolder
from engine.diskguard import refuse_full
from engine.embedded import EmbeddedStore
from engine.errors import Unavailable
from engine.limits import STORE_ANSWER_MS_MAX
from engine.rivermodel import check_challengers
from engine.rpc import TRANSPORTS
from engine.signing import KeyFolder
from engine.store.base import StoreError
from engine.store.wire import Address, reach
from engine.supervisor import Supervisor, worker_spec
from engine.worker import main as work

_worker = partial(worker_spec, main=work)

_prefix_option = click.option(
    "--prefix", default="opportune", show_default=True, help="What the names of the Kafka topics begin with."
)
_source_option = click.option(
    "--source", "sources", multiple=True, metavar="TOPIC", help="Take CloudEvents from this topic too; repeat for more."
)
_topic_partitions_option = click.option(
    "--topic-partitions",
    type=click.IntRange(1, 10_000),
    default=32,
    show_default=True,
    help="Partitions of Kafka topics that are not there yet: as many workers can share the work.",
)


def _store_url(_: click.Context, __: click.Parameter, url: str | None) -> str | None:
    """Refuse what names no store before anything is started."""
    try:
        Address.parse_all(url or "unix:///")
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return url


@click.command()
@config_option
@click.option(
    "--data", "data_path", type=click.Path(path_type=Path), required=True, help="Folder of this engine's data."
)
@click.option("--grpc", "grpc_address", default="127.0.0.1:50051", show_default=True, help="HOST:PORT for gRPC.")
@click.option(
    "--http", "http_address", default="127.0.0.1:8080", show_default=True, help='HOST:PORT for HTTP, or "off".'
)
@click.option(
    "--servers", type=click.IntRange(1, 64), default=1, show_default=True, help="Server processes on the port."
)
@click.option(
    "--redis",
    "redis_url",
    callback=_store_url,
    help="Your Redis, Valkey or cluster instead of the private store: redis[s]://HOST:PORT[,HOST:PORT…] or unix://PATH",
)
@click.option("--store-binary", type=click.Path(path_type=Path), help="valkey-server or redis-server to start.")
@click.option("--fsync", type=click.Choice(["everysec", "always"]), default="everysec", show_default=True)
@click.option("--transport", type=click.Choice(TRANSPORTS), default="native", show_default=True)
@click.option("--kafka", help="HOST:PORT[,…] of your Kafka, to be the event log instead of the store's streams.")
@_prefix_option
@_source_option
@_topic_partitions_option
@click.pass_context
def serve(
    context: click.Context,
    config_path: Path,
    data_path: Path,
    grpc_address: str,
    http_address: str,
    servers: int,
    redis_url: str | None,
    store_binary: Path | None,
    fsync: str,
    transport: str,
    kafka: str | None,
    prefix: str,
    sources: tuple[str, ...],
    topic_partitions: int,
) -> None:
    """Run the engine: servers, ingest, learning and the private store, until Ctrl-C or SIGTERM."""
    if redis_url and (named := given_of(context, {"fsync", "store_binary"})):
        raise click.UsageError(f"{named} is about the private store, not --redis")
    if kafka is not None:
        _check_kafka(kafka, prefix, sources)
    elif sources:
        raise click.UsageError("--source is a topic of Kafka: expected --kafka, too")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    with told():
        config, version, text = load(config_path)
        check_challengers(Catalogue.compile(config, version, text, str(config_path)), text, str(config_path))
        with (
            DataFolder(data_path) as folder,
            shared_port(grpc_address) as grpc_at,
            _port_or_off(http_address) as http_at,
        ):
            if redis_url:
                _check_store(redis_url)
            else:
                refuse_full(folder.path)
            KeyFolder(folder.path / "keys").ensure()
            store = None if redis_url else EmbeddedStore(folder, store_binary, fsync=cast(Any, fsync))
            settings: dict[str, Any] = {
                "config": str(config_path.absolute()),
                "version": version,
                "redis": redis_url or (store.url if store else ""),
            }
            if kafka is not None:
                settings |= _kafka_settings(kafka, prefix, sources, topic_partitions, folder)
            serving = settings | {"grpc": grpc_at, "http": http_at, "transport": transport}
            serving["keys"] = str(folder.path / "keys")
            workers = [_worker(f"serve-{n}", "serve", serving, stop_order=0) for n in range(servers)]
            workers += [_worker(role, role, settings, stop_order=1) for role in ("ingest", "learn")]

            def ready() -> None:
                http = f", HTTP on {http_at}" if http_at else ""
                click.echo(f"ready: gRPC on {grpc_at}{http}, configuration {config.name} {version}", err=True)

            sys.exit(Supervisor(folder, store, workers, ready).run())


@click.command()
@config_option
@click.option("--kafka", required=True, help="HOST:PORT[,…] of your Kafka.")
@click.option("--redis", "redis_url", required=True, callback=_store_url, help="The store of the engine: redis://… or unix://…")
@click.option(
    "--data",
    "data_path",
    type=click.Path(path_type=Path),
    default=Path("opportune-ingest"),
    show_default=True,
    help="Folder for logs and Faust's files, one for each `ingest`.",
)
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes to start.")
@_prefix_option
@_source_option
@_topic_partitions_option
def ingest(
    config_path: Path,
    kafka: str,
    redis_url: str,
    data_path: Path,
    workers: int,
    prefix: str,
    sources: tuple[str, ...],
    topic_partitions: int,
) -> None:
    """Fold events from Kafka into the store, on as many machines as you like, until Ctrl-C or SIGTERM."""
    _check_kafka(kafka, prefix, sources)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    with told():
        catalogue = Catalogue.of_file(config_path)
        with DataFolder(data_path) as folder:
            _check_store(redis_url)
            settings: dict[str, Any] = {
                "config": str(config_path.absolute()), "version": catalogue.version, "redis": redis_url
            }  # fmt: skip
            settings |= _kafka_settings(kafka, prefix, sources, topic_partitions, folder)
            specs = [_worker(f"ingest-{n}", "ingest", settings, stop_order=0) for n in range(workers)]

            def ready() -> None:
                what = f"configuration {catalogue.config.name} {catalogue.version}"
                click.echo(f"ready: {workers} workers on {kafka}, {what}", err=True)

            sys.exit(Supervisor(folder, None, specs, ready).run())


def _check_store(url: str) -> None:
    """Before there are workers that would all wait for it. Raises Unavailable."""
    try:
        asyncio.run(reach(url, STORE_ANSWER_MS_MAX / 1e3))
    except StoreError as error:
        raise Unavailable(f"--redis: the store cannot be used: {error}") from error


def _check_kafka(kafka: str, prefix: str, sources: tuple[str, ...]) -> None:
    check_brokers(kafka)
    for option, name in (("--prefix", prefix), *(("--source", source) for source in sources)):
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,200}", name):
            message = f"{name!r} is no name of a topic, expected letters, digits, '.', '_' and '-'"
            raise click.BadParameter(message, param_hint=option)


def _kafka_settings(
    kafka: str, prefix: str, sources: tuple[str, ...], topic_partitions: int, folder: DataFolder
) -> dict[str, Any]:
    return {
        "kafka": kafka,
        "prefix": prefix,
        "topic_partitions": topic_partitions,
        "sources": sources,
        "faust_folder": str(folder.path / "faust"),
    }


def _port_or_off(address: str) -> AbstractContextManager[str | None]:
    """As shared_port does; None for "off"."""
    return nullcontext() if address == "off" else shared_port(address)


@contextmanager
def shared_port(address: str) -> Iterator[str]:
    """A "host:port" that several servers can share, with port 0 replaced by a free one that stays reserved meanwhile.

    Raises ClickException if it is no address or somebody listens there.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise click.ClickException(f"{address!r} is no address, expected HOST:PORT")
    try:
        # Without SO_REUSEPORT this fails if anybody listens there; with it, the servers could not tell a second engine.
        socket.create_server((host.strip("[]"), int(port)), family=_family(host)).close()
        holder = socket.socket(_family(host), socket.SOCK_STREAM)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((host.strip("[]"), int(port)))
    except OSError as error:
        raise click.ClickException(f"cannot listen on {address}: {error.strerror or error}") from error
    with holder:
        yield f"{host}:{holder.getsockname()[1]}"


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
