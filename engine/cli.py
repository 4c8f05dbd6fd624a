"""The command line. `opportune --help` lists it; docs/commands.md shows each command at work."""

import json
import logging
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

import click
from rich.console import Console
from rich.table import Table

from engine import cli_customer, cli_versions
from engine.catalogue import Catalogue
from engine.cli_budgets import budgets
from engine.cli_challengers import challengers
from engine.cli_defaults import defaults, key
from engine.cli_drift import drift
from engine.cli_exploration import exploration
from engine.cli_forget import forget
from engine.cli_history import backfill, dataset
from engine.cli_identity import identity
from engine.cli_leads import leads
from engine.cli_parts import address_option, call, config_option, show, told
from engine.cli_replay import replay
from engine.config import load
from engine.datafolder import DataFolder
from engine.embedded import EmbeddedStore
from engine.evaluate.command import evaluate
from engine.explain.cli import explain
from engine.featurecheck.command import check_features
from engine.featurecheck.thresholds import CUSTOMERS_SAMPLED, CUSTOMERS_SAMPLED_MAX
from engine.ledger import hash_of
from engine.lifecycle import REPORTABLE
from engine.lift.command import lift
from engine.registry import hashed_into, lacking_told, registry_of
from engine.rivermodel import check_challengers
from engine.rpc import TRANSPORTS
from engine.signing import KeyFolder
from engine.store.wire import Address
from engine.supervisor import Supervisor, worker_spec
from engine.whatif.command import whatif
from opportune.v1 import (
    customers_pb2,
    customers_pb2_grpc,
    decisions_pb2,
    decisions_pb2_grpc,
    feedback_pb2,
    feedback_pb2_grpc,
)

_TABLE_COLUMNS_MIN: Final = 160


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


@click.group()
@click.version_option(package_name="opportune")
def main() -> None:
    """Opportune: the next best offer for this customer now, and why."""


main.add_command(identity)
main.add_command(forget)
main.add_command(leads)
main.add_command(defaults)
main.add_command(key)


# --- running it -----------------------------------------------------------------------------------------------------


@main.command()
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
def serve(
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
            shared_port(http_address) as http_at,
        ):
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
            workers = [worker_spec(f"serve-{n}", "serve", serving, stop_order=0) for n in range(servers)]
            workers += [worker_spec(role, role, settings, stop_order=1) for role in ("ingest", "learn")]

            def ready() -> None:
                http = f", HTTP on {http_at}" if http_at else ""
                click.echo(f"ready: gRPC on {grpc_at}{http}, configuration {config.name} {version}", err=True)

            sys.exit(Supervisor(folder, store, workers, ready).run())


@main.command()
@config_option
@click.option("--kafka", required=True, help="HOST:PORT[,…] of your Kafka.")
@click.option("--redis", "redis_url", required=True, help="The store of the engine: redis://… or unix://…")
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
            settings: dict[str, Any] = {
                "config": str(config_path.absolute()), "version": catalogue.version, "redis": redis_url
            }  # fmt: skip
            settings |= _kafka_settings(kafka, prefix, sources, topic_partitions, folder)
            specs = [worker_spec(f"ingest-{n}", "ingest", settings, stop_order=0) for n in range(workers)]

            def ready() -> None:
                what = f"configuration {catalogue.config.name} {catalogue.version}"
                click.echo(f"ready: {workers} workers on {kafka}, {what}", err=True)

            sys.exit(Supervisor(folder, None, specs, ready).run())


def _check_kafka(kafka: str, prefix: str, sources: tuple[str, ...]) -> None:
    for server in kafka.split(","):
        host, _, port = server.strip().rpartition(":")
        if not host or not port.isdecimal():
            raise click.BadParameter(f"{server.strip()!r}, expected HOST:PORT[,HOST:PORT…]", param_hint="--kafka")
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


@contextmanager
def shared_port(address: str) -> Iterator[str | None]:
    """A "host:port" that several servers can share, with port 0 replaced by a free one that stays reserved meanwhile.

    None for "off". Raises ClickException if it is no address or somebody listens there.
    """
    if address == "off":
        yield None
        return
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


# --- looking at configurations --------------------------------------------------------------------------------------


@main.command()
@config_option
@click.option("--check", is_flag=True, help="Report on the quality of the features' data instead of listing them.")
@click.option("--data", "data_path", type=click.Path(path_type=Path), help="To check: data folder, running or not.")
@click.option("--redis", "redis_url", help="To check: the store of an engine that has its own, redis://… or unix://…")
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write the same there.")
@click.option(
    "--sample", type=click.IntRange(1, CUSTOMERS_SAMPLED_MAX), default=CUSTOMERS_SAMPLED, show_default=True,
    help="To check: customers whose features are read.",
)  # fmt: skip
def features(
    config_path: Path, check: bool, data_path: Path | None, redis_url: str | None, json_path: Path | None, sample: int
) -> None:
    """List the features: what each means, where it lies in a customer's record, what it costs.

    With --check: what is wrong with their data. Exit code 0: nothing. 1: something, at the level of a warning or worse.
    2: cannot tell.
    """
    if check:
        sys.exit(check_features(config_path, data_path, redis_url, json_path, sample))
    if data_path or redis_url:
        raise click.UsageError("--data and --redis belong to --check")
    with told():
        catalogue = Catalogue.of_file(config_path)
    config = catalogue.config
    table = Table(title=f"{config.name}: {len(config.features)} features, layout {catalogue.layout.version:08x}")
    headings = ("feature", "entity", "function", "event", "value", "window", "keeps", "tiles", "bytes a tile")
    for heading in (*headings, "unit", "meaning", "owner"):
        table.add_column(heading, justify="right" if heading in ("tiles", "bytes a tile") else "left")
    rows = {row.name: row for layout in catalogue.layouts.values() for row in layout.describe()}
    for feature in config.all_features:
        row = rows[feature.name]
        window = "lifetime" if feature.window is None else f"{feature.window / 3_600_000:g} h"
        table.add_row(
            feature.name,
            feature.entity,
            feature.function,
            feature.event or "",
            (feature.attribute or feature.value or "") + hashed_into(feature),
            window,
            row.keeps + (" (shared)" if row.shared else ""),
            str(row.tiles or ""),
            str(row.bytes_typical),
            feature.unit,
            feature.meaning,
            feature.owner,
        )
    # A table of ten columns needs room: in a pipe or a narrow terminal rich would cut every word of it.
    Console(width=max(Console().width, _TABLE_COLUMNS_MIN)).print(table)
    for line in lacking_told(config):
        click.echo(f"note: {line}", err=True)
    if json_path is not None:
        try:
            json_path.write_text(json.dumps(registry_of(catalogue), indent=2))
        except OSError as error:
            raise click.ClickException(f"{json_path} cannot be written: {error.strerror}") from error


# --- trying it by hand ----------------------------------------------------------------------------------------------


@main.command()
@address_option
@click.option("--customer", required=True)
@click.option("--channel", required=True)
@click.option("--placement", default="")
@click.option("--context", multiple=True, metavar="NAME=VALUE", help="A fact of the conversation; repeat for more.")
@click.option("--limit", type=int, default=0)
@click.option("--resume", default="", metavar="DECISION", help="Go on with an open offer of that decision.")
@click.option("--offer", default="", help="Which, with --resume.  [default: its only one]")
@click.option("--explain", is_flag=True, help="Show the whole record behind the answer, too.")
def decide(
    address: str,
    customer: str,
    channel: str,
    placement: str,
    context: tuple[str, ...],
    limit: int,
    resume: str,
    offer: str,
    explain: bool,
) -> None:
    """Ask for the next best offer and show it."""
    if offer and not resume:
        raise click.UsageError("--offer says which one is resumed: expected --resume, too")
    request = decisions_pb2.DecideRequest(
        customer_id=customer, channel=channel, placement=placement, limit=max(limit, 0)
    )
    if resume:
        request.resume.CopyFrom(decisions_pb2.Resume(decision_id=resume, offer_id=offer))
    for entry in context:
        name, separator, value = entry.partition("=")
        if not separator:
            raise click.BadParameter(f"{entry!r}, expected NAME=VALUE", param_hint="--context")
        _fill(request.context[name], value)
    response = call(address, decisions_pb2_grpc.DecisionsStub, "Decide", request)
    show(response)
    if explain and response.decision_id:
        asked = decisions_pb2.ExplainRequest(decision_id=response.decision_id)
        show(call(address, decisions_pb2_grpc.DecisionsStub, "Explain", asked))


@main.command()
@address_option
@click.option("--customer", required=True)
@click.option(
    "--kind", "kinds", multiple=True, type=click.Choice(cli_customer.KINDS), help="Only these entries; repeat for more."
)
@click.option("--channel", "channels", multiple=True, help="Only entries of this channel; repeat for more.")
@click.option("--page-size", type=click.IntRange(min=0), default=0, help="Entries of the timeline.  [default: 50]")
@click.option("--page", "page_token", default="", help="Token of the next page, as the page before told it.")
@click.option("--json", "as_json", is_flag=True, help="The message as it came.")
def customer(
    address: str,
    customer: str,
    kinds: tuple[str, ...],
    channels: tuple[str, ...],
    page_size: int,
    page_token: str,
    as_json: bool,
) -> None:
    """Show what the engine knows of a customer: profile, features, complaint cases, timeline."""
    request = customers_pb2.GetCustomerRequest(
        customer_id=customer,
        kinds=[f"TIMELINE_KIND_{kind.upper()}" for kind in kinds],
        channels=channels,
        page_size=page_size,
        page_token=page_token,
    )
    found = call(address, customers_pb2_grpc.CustomersStub, "Get", request)
    if as_json:
        show(found)
    else:
        # In a pipe rich would cut what does not fit 80 columns.
        console = Console(width=None if sys.stdout.isatty() else _TABLE_COLUMNS_MIN)
        cli_customer.show(console, found, time.time_ns() // 1_000_000)


@main.command()
@address_option
@click.option("--decision", default="", help="The decision; or --customer.")
@click.option("--customer", default="", help="Whose open instance of the offer it is about; needs --outcome.")
@click.option("--offer", required=True)
@click.option("--stage", required=True, type=click.Choice([stage.name.lower() for stage in sorted(REPORTABLE)]))
@click.option(
    "--outcome", help="Id of this outcome; reporting it again changes nothing.  [default: made from the others]"
)
@click.option("--value", type=float, help="What it was worth in the catalogue's currency.  [default: as declared]")
@click.option("--reward", type=(str, float), multiple=True, help="An objective and its reward; may be repeated.")
@click.option("--corrects", default="", help="Id of an earlier outcome that this one replaces; needs --outcome.")
def report(
    address: str,
    decision: str,
    customer: str,
    offer: str,
    stage: str,
    outcome: str | None,
    value: float | None,
    reward: tuple[tuple[str, float], ...],
    corrects: str,
) -> None:
    """Report what became of an offer."""
    if bool(decision) == bool(customer):
        raise click.UsageError("expected --decision or --customer, one of them")
    if customer and not outcome:
        raise click.UsageError("--customer: expected --outcome, too: who sends it again must mean the same one")
    request = feedback_pb2.ReportRequest(
        outcome_id=outcome or f"{stage}-{hash_of(f'{decision} {offer}'):016x}",
        decision_id=decision,
        customer_id=customer,
        offer_id=offer,
        stage=f"STAGE_{stage.upper()}",
        value=value,
        rewards=dict(reward),
        corrects=corrects,
    )
    show(call(address, feedback_pb2_grpc.FeedbackStub, "Report", request))


def _fill(value: Any, text: str) -> None:
    if text in ("true", "false"):
        value.flag = text == "true"
        return
    try:
        value.number = float(text)
    except ValueError:
        value.text = text


# --- seeing it ------------------------------------------------------------------------------------------------------


@main.command()
@click.option("--calls", type=click.IntRange(min=1), help="Only the first so many calls.  [default: all 41,188]")
@click.option("--data", "data_path", type=click.Path(path_type=Path), help="Empty folder to keep the engine's data in.")
@click.option(
    "--concurrency", type=click.IntRange(1, 256), default=8, show_default=True, help="Calls under way at a time."
)
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write the results there.")
def demo(calls: int | None, data_path: Path | None, concurrency: int, json_path: Path | None) -> None:
    """Replay a bank's real call log through an engine of its own and show what that was worth."""
    from engine import demo as bank  # nothing else needs it, and it loads the asyncio client of gRPC

    console = Console(width=None if sys.stdout.isatty() else 110)
    with told():
        sys.exit(bank.run(console, calls, data_path, concurrency, json_path))


main.add_command(explain)
main.add_command(backfill)
main.add_command(dataset)
main.add_command(challengers)
main.add_command(budgets)
main.add_command(drift)
main.add_command(exploration)
main.add_command(evaluate)
main.add_command(replay)
main.add_command(whatif)
main.add_command(lift)
for command in cli_versions.COMMANDS:
    main.add_command(command)


if __name__ == "__main__":
    main()
