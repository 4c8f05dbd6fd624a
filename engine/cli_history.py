"""The commands on history: `backfill` and `dataset`. What they do is in engine.history, loaded when they run."""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from engine.catalogue import Catalogue
from engine.cli_parts import config_option, given_of, told
from engine.cli_store import (
    binary_option,
    check_brokers,
    data_option,
    event_log_of,
    in_store,
    redis_option,
    url_of,
)
from engine.config import load_text
from engine.limits import ENTITY_ENTRIES_MAX
from engine.store.redis import RedisStore

if TYPE_CHECKING:
    from engine.history.loading import Told
    from engine.history.mapping import File, Source
    from engine.history.rows import Tally

_STDERR: Final = Console(stderr=True)
_LOG_COLUMNS: Final = (TextColumn("{task.fields[entries]:,}"), TimeElapsedColumn())
_REFUSED_SHOWN_MAX: Final = 3
"""Of each reason."""
_UNITS: Final = ["s", "ms", "us", "ns"]
_OF_A_STORE: Final = ("config_path", "data_path", "redis_url", "store_binary")


def _store_options(command: Callable[..., None]) -> Callable[..., None]:
    return data_option(redis_option(binary_option(command)))


def _source_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options that say what the columns of FILES mean."""
    options = [
        click.option(
            "--mapping",
            "mapping_path",
            type=click.Path(path_type=Path, dir_okay=False),
            help="Files and what their columns mean, in a YAML file, instead of the options below.",
        ),
        click.option(
            "--format",
            "file_format",
            type=click.Choice(["csv", "parquet", "jsonl", "cloudevents"]),
            help="What the files are.  [default: by their names]",
        ),
        click.option("--type", "event_type", help="Type of all events of the files."),
        click.option("--type-column", help="Column that holds the type of each event."),
        click.option("--customer", help="Column of the customer."),
        click.option("--time", "time_column", help="Column of the time of the event."),
        click.option("--time-unit", type=click.Choice(_UNITS), help="Times are numbers: so many of these since 1970."),
        click.option("--time-format", help="Times are texts such as %d.%m.%Y.  [default: ISO 8601]"),
        click.option("--time-zone", default="UTC", show_default=True, help="Of times that name none."),
        click.option("--id", "id_column", help="Column of the event's id; of two with the same the first counts."),
        click.option("--id-source", default="backfill", show_default=True, help="Source that the ids belong to."),
        click.option(
            "--map",
            "mapped",
            multiple=True,
            metavar="ATTRIBUTE=COLUMN",
            help="Column of an attribute, if it has another name; repeat for more.",
        ),
        click.option("--delimiter", help="Between the values of a CSV.  [default: a comma]"),
        click.argument("files", nargs=-1),
    ]
    for option in reversed(options):
        command = option(command)
    return command


_from_option = click.option("--from", "from_text", metavar="TIME", help="Only what happened at that time or later.")
_until_option = click.option("--until", "until_text", metavar="TIME", help="Only what happened before that time.")
_work_option = click.option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for sorting, with room for twice the files unpacked, and once more for each kind of entity with "
    "features.  [default: in the system's temporary folder]",
)


@click.command()
@config_option
@_store_options
@_from_option
@_until_option
@_work_option
@click.option("--check", is_flag=True, help="Read and check everything, load nothing. Exit code 1: rows were refused.")
@click.option("--from-log", is_flag=True, help="Fill new features from the event log of the engine instead of FILES.")
@click.option("--kafka", help="With --from-log: HOST:PORT[,…] of your Kafka, if that is the event log.")
@click.option(
    "--feature",
    "features",
    multiple=True,
    metavar="NAME",
    help="With --from-log: fill this one; repeat for more.  [default: those that no earlier configuration had]",
)
@_source_options
@click.pass_context
def backfill(context: click.Context, /, config_path: Path, **given: Any) -> None:
    """Load history from FILES into the state of customers; a running engine may serve meanwhile.

    Killed and started again with the same files it goes on where it was. Files that were loaded are passed over. A data
    folder that is not there yet is made.

    With --from-log nothing is loaded: features that came with a change of the configuration are made of the events
    that the engine still has. Doing it again changes nothing.
    """
    from engine.history import backfill as loader
    from engine.history import loading
    from engine.history.inforce import keep_layouts
    from engine.history.writing import Report

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    if given["from_log"]:
        _only_from_log(context)
        check_brokers(given["kafka"])
        with told():
            _fill_from_log(config_path, given)
        return
    for option, name in (("--feature", "features"), ("--kafka", "kafka")):
        if given[name]:
            raise click.UsageError(f"{option} goes with --from-log")
    with told():
        catalogue = Catalogue.of_file(config_path)
        files = _files(given)
        readings = loading.readings_of(files, catalogue)
        now_ms = time.time_ns() // 1_000_000
        span = loader.span_of(catalogue, *_span(given), now_ms)
        if given["check"]:
            with _bars(files) as bars:
                tally = loading.check(readings, catalogue, span, bars)
            good = tally.read - tally.refused_in_all - tally.skipped
            click.echo(f"{good:,} of {tally.read:,} rows are good")
            _tell(tally)
            sys.exit(1 if tally.refused else 0)

        async def run(store: RedisStore) -> Report:
            await keep_layouts(store, catalogue, load_text(config_path))
            with _bars(files) as bars:
                return await loader.backfill(store, catalogue, readings, span, given["work"], bars, _where(given))

        report = in_store(_url(given, make=True), run)
    for passed_over in report.passed_over:
        click.echo(f"passed over: {passed_over}")
    before = f", {report.done_before:,} of them in an earlier run" if report.done_before else ""
    click.echo(f"loaded {report.events:,} events{before}; {report.customers:,} customers written")
    if report.timelines:
        click.echo(f"{report.timelines:,} of them have events of these files on their timelines")
    if report.members:
        click.echo(f"{report.members:,} of them belong to something by these files, such as a household")
    if report.entities:
        click.echo(f"{report.entities:,} households and the like written")
    if report.no_room:
        most = f"a customer belongs to {ENTITY_ENTRIES_MAX} things of a kind, the newest"
        click.echo(f"left out {report.no_room:,} memberships: {most}", err=True)
    if report.duplicates:
        click.echo(f"left out {report.duplicates:,} events whose id the customer had already")
    if report.damaged:
        click.echo(f"{report.damaged:,} customers or households had state that could not be read: it began anew")
    _tell(report.tally)


def _only_from_log(context: click.Context) -> None:
    taken = {*_OF_A_STORE, "from_log", "features", "kafka"}
    if named := _other_than(taken, context):
        raise click.UsageError(f"--from-log reads the event log of the engine: expected no {named}")


def _other_than(taken: set[str], context: click.Context) -> str:
    """What the caller gave beside these; "" if nothing."""
    return given_of(context, {parameter.name or "" for parameter in context.command.params} - taken)


def _fill_from_log(config_path: Path, given: dict[str, Any]) -> None:
    from engine.history import fromlog
    from engine.history.inforce import keep_layouts

    catalogue = Catalogue.of_file(config_path)

    async def run(store: RedisStore) -> fromlog.Report:
        await keep_layouts(store, catalogue, load_text(config_path))
        columns = (TextColumn("{task.description}"), BarColumn(), *_LOG_COLUMNS)
        async with event_log_of(store, given["kafka"]) as events:
            with Progress(*columns, console=_STDERR) as bar:
                task = bar.add_task("events of the log", total=events.partitions, entries=0)
                read = 0

                def progress(entries: int) -> None:
                    nonlocal read
                    read += entries
                    bar.update(task, advance=0 if entries else 1, entries=read)

                return await fromlog.fill(store, events, catalogue.layout, given["features"], progress)

    report = in_store(_url(given), run, "the store is away")
    click.echo(f"filled {', '.join(report.features)} from {report.events:,} events")
    for rollup in catalogue.rollups:
        names = ", ".join(rollup.layout.names)
        click.echo(f"features of each {rollup.kind} are not filled from the log: {names}", err=True)
    click.echo(f"{report.whole:,} customers filled from their first event on; {report.unchanged:,} had it all already")
    if report.partly:
        click.echo(
            f"{report.partly:,} customers filled as far back as the log reaches: it does not hold all of their events"
        )
    for reason, count in report.left.most_common():
        click.echo(f"{count:,} customers left alone with some or all of it: {reason}", err=True)


@click.command()
@config_option
@_store_options
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Parquet file to write.")
@_from_option
@_until_option
@click.option(
    "--labels",
    "labels_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Rows of a customer and a time: add the features as they were then, from FILES.",
)
@click.option("--label-customer", default="customer", show_default=True, help="Column of the customer in the labels.")
@click.option("--label-time", default="time", show_default=True, help="Column of the time in the labels.")
@click.option("--label-time-unit", type=click.Choice(_UNITS))
@click.option("--label-time-format")
@_work_option
@_source_options
@click.pass_context
def dataset(context: click.Context, /, config_path: Path, out: Path, labels_path: Path | None, **given: Any) -> None:
    """Write training rows as Parquet: of the decisions that were logged, or with --labels of moments in history."""
    with told():
        catalogue = Catalogue.of_file(config_path)
        from_ms, until_ms = _span(given)
        if labels_path is not None:
            from engine.history import asof, loading

            if given["data_path"] or given["redis_url"]:
                raise click.UsageError("--labels reads history from FILES: expected neither --data nor --redis")
            files = _files(given)
            readings = loading.readings_of(files, catalogue)
            labels = asof.labels_of(
                labels_path,
                given["label_customer"],
                given["label_time"],
                given["label_time_unit"],
                given["label_time_format"],
                given["time_zone"],
                catalogue,
            )
            with _bars(files) as bars:
                tally = asof.write(out, labels, readings, catalogue, from_ms, until_ms, given["work"], bars)
            features = catalogue.feature_count
            click.echo(f"wrote {labels.height:,} rows with {features} features each to {out}")
            _tell(tally)
            return
        if named := _other_than({*_OF_A_STORE, "out", "from_text", "until_text"}, context):
            raise click.UsageError(f"{named} goes with --labels; without it the decision log is read")
        from engine.history import decisions

        written = in_store(_url(given), lambda store: decisions.write(store, catalogue, out, from_ms, until_ms))
    click.echo(f"wrote {written.rows:,} rows of {written.decisions:,} decisions to {out}")
    for line in written.caveats:
        click.echo(line, err=True)


# --- what both need -------------------------------------------------------------------------------------------------


def _url(given: dict[str, Any], *, make: bool = False) -> AbstractContextManager[str]:
    return url_of(given["data_path"], given["redis_url"], given["store_binary"], make=make)


def _where(given: dict[str, Any]) -> str:
    """Which store that is, whether its engine runs or not."""
    return str(given["data_path"].absolute()) if given["data_path"] is not None else given["redis_url"]


def _span(given: dict[str, Any]) -> tuple[int | None, int | None]:
    from engine.history.loading import instant_ms

    from_text, until_text = given["from_text"], given["until_text"]
    return (
        None if from_text is None else instant_ms(from_text, "--from"),
        None if until_text is None else instant_ms(until_text, "--until"),
    )


def _files(given: dict[str, Any]) -> "list[File]":
    from engine.history.mapping import files_of, load_mapping

    if given["mapping_path"] is None:
        return files_of([_source(given)])
    about = "file_format event_type type_column customer time_column time_unit time_format id_column mapped delimiter"
    if given["files"] or any(given[name] for name in about.split()):
        raise click.UsageError("--mapping says what the files are: expected neither FILES nor options about columns")
    return files_of(load_mapping(given["mapping_path"]))


def _source(given: dict[str, Any]) -> "Source":
    from pydantic import ValidationError

    from engine.history.mapping import Source

    mapped = {}
    for entry in given["mapped"]:
        name, separator, column = entry.partition("=")
        if not separator:
            raise click.BadParameter(f"{entry!r}, expected ATTRIBUTE=COLUMN", param_hint="--map")
        if name in mapped:
            raise click.BadParameter(f"{name!r} twice, expected one column of it", param_hint="--map")
        mapped[name] = column
    if not given["files"]:
        raise click.UsageError("expected FILES or --mapping")
    named = {
        "files": given["files"],
        "format": given["file_format"],
        "type": given["event_type"],
        "type_column": given["type_column"],
        "customer": given["customer"],
        "time": given["time_column"],
        "time_unit": given["time_unit"],
        "time_format": given["time_format"],
        "time_zone": given["time_zone"],
        "id": given["id_column"],
        "id_source": given["id_source"],
        "delimiter": given["delimiter"],
        "map": mapped,
    }
    try:
        return Source.model_validate(named)
    except ValidationError as error:
        words = [
            f"{'.'.join(map(str, problem['loc']))}{': ' if problem['loc'] else ''}"
            f"{problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors(include_url=False)
        ]
        raise click.UsageError("; ".join(words)) from error


@contextmanager
def _bars(files: "Sequence[File]") -> "Iterator[Told]":
    from engine.history.loading import Told, size_of

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_STDERR) as bar:
        reading = bar.add_task("bytes read", total=sum(size_of(file.path) for file in files))
        folding = bar.add_task("events folded", total=None, visible=False)  # nothing is, of files that are only checked
        yield Told(
            bytes_read=lambda read: bar.advance(reading, read),
            events_folded=lambda folded: bar.advance(folding, folded),
            events_due=lambda due: bar.update(folding, total=due, visible=True),
        )


def _tell(tally: "Tally") -> None:
    if tally.skipped:
        click.echo(f"left out {tally.skipped:,} events outside of --from and --until")
    if not tally.refused:
        return
    click.echo(f"refused {tally.refused_in_all:,} rows:", err=True)
    for reason, count in sorted(tally.refused.items(), key=lambda item: -item[1]):
        click.echo(f"{count:,} × {reason}", err=True)
        for line in [line for why, _, line in tally.kept if why == reason][:_REFUSED_SHOWN_MAX]:
            click.echo(f"    {line}", err=True)
