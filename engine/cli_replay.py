"""`opportune replay`: all state made again from the logs, or past decisions from their records."""

import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from engine import limits, replaying
from engine.catalogue import Catalogue
from engine.cli_parts import CANNOT_TELL, told
from engine.cli_plain import plain
from engine.cli_store import (
    binary_option,
    check_brokers,
    data_option,
    event_log_of,
    in_store,
    redis_option,
    url_of,
    write_report,
)
from engine.errors import DataFolderError, NotFound
from engine.repeating import Repeated, repeat_one, repeat_some
from engine.replay import Findings
from engine.store.redis import RedisStore
from models import CheckpointError

_COLUMNS_MIN: Final = 110
_TOLD_MAX: Final = 20
"""Decisions of which it is told what differs; --json has all."""
EQUAL, DIFFERS = 0, 1


@click.command()
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration; decisions need none, they name the one that was kept.",
)
@data_option
@redis_option
@binary_option
@click.option("--kafka", help="HOST:PORT[,…] of your Kafka, if that is the event log, to fold it again.")
@click.option("--decision", metavar="ID", help="Make this one decision again instead, from its record.")
@click.option(
    "--decisions",
    "count",
    type=click.IntRange(1, 1_000_000),
    metavar="N",
    help="Make so many decisions again instead, drawn at random from the log.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of that draw.")
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write what differs there.")
def replay(
    config_path: Path | None,
    data_path: Path | None,
    redis_url: str | None,
    store_binary: Path | None,
    kafka: str | None,
    decision: str | None,
    count: int | None,
    seed: int,
    json_path: Path | None,
) -> None:
    """Make all state again from the logs and compare it byte for byte, or past decisions from their records.

    Exit code 0: equal. 1: something differs. 2: it cannot be told: the logs do not reach back far enough, decisions
    were made with a configuration that means something else, or a record or its configuration is gone.
    """
    source = url_of(data_path, redis_url, store_binary)
    if decision is not None and count is not None:
        raise click.UsageError("expected --decision or --decisions, one of them")
    of_decisions = decision is not None or count is not None
    if not of_decisions and config_path is None:
        raise click.UsageError("expected --config, or --decision or --decisions")
    if of_decisions and kafka is not None:
        raise click.UsageError("--kafka has events; decisions are made again from their records")
    if json_path is not None and not of_decisions:
        raise click.UsageError("--json goes with --decision or --decisions")
    check_brokers(kafka)
    with told(CANNOT_TELL):
        if of_decisions:
            try:
                repeated, seen = in_store(source, lambda store: _repeat(store, decision, count or 1, seed))
            except NotFound as error:
                click.echo(str(error), err=True)
                sys.exit(CANNOT_TELL)
            if json_path is not None:
                write_report(json_path, _json(repeated))
            sys.exit(_told(repeated, seen, one=decision is not None))
        assert config_path is not None
        catalogue = Catalogue.of_file(config_path)
        findings = in_store(source, lambda store: _replay(store, catalogue, kafka))
    table = Table(title=plain(f"{catalogue.config.name}: {findings.verdict.name.replace('_', ' ').lower()}"))
    table.add_column("replayed")
    table.add_column("count", justify="right")
    for what, number in (*findings.counts.items(), ("differences", findings.different)):
        table.add_row(what, f"{number:,}")
    # A table of ten columns needs room: in a pipe or a narrow terminal rich would cut every word of it.
    Console(width=max(Console().width, _COLUMNS_MIN)).print(table)
    # Where nothing differs, what would have made a difference prove nothing is only worth a note.
    word = "cannot tell" if findings.different else "note"
    told_too = *(f"cannot tell: {gap}" for gap in findings.gaps), *(f"{word}: {each}" for each in findings.caveats)
    for line in (*findings.differences, *told_too):
        click.echo(line, err=True)
    sys.exit(findings.verdict)


async def _replay(store: RedisStore, catalogue: Catalogue, kafka: str | None) -> Findings:
    """Compare all that the store keeps with its logs, with a bar for each kind. Raises OpportuneError, StoreError."""
    async with AsyncExitStack() as until:
        events = None if kafka is None else await until.enter_async_context(event_log_of(store, kafka))
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[entries]:,}")
        bar = until.enter_context(Progress(*columns, console=Console(stderr=True)))
        totals = {"events": limits.PARTITIONS if events is None else events.partitions, "decisions": limits.PARTITIONS}
        tasks = {what: bar.add_task(what, total=total, entries=0) for what, total in totals.items()}
        read = dict.fromkeys(tasks, 0)

        def progress(what: str, entries: int) -> None:
            read[what] += entries
            bar.update(tasks[what], advance=0 if entries else 1, entries=read[what])

        try:
            return await replaying.replay(catalogue, store, progress, events=events)
        except CheckpointError as error:
            raise DataFolderError(str(error)) from error


async def _repeat(store: RedisStore, decision: str | None, count: int, seed: int) -> tuple[list[Repeated], int]:
    """The decisions asked for, made again, and how many the log has."""
    if decision is not None:
        return [await repeat_one(store, decision)], 1
    return await repeat_some(store, count, seed)


def _told(repeated: list[Repeated], seen: int, *, one: bool) -> int:
    """Print what came out; the exit code."""
    lacking = [each for each in repeated if each.missing]
    different = [each for each in repeated if each.differences]
    verdict = DIFFERS if different else CANNOT_TELL if lacking or not repeated else EQUAL
    console = Console(width=max(Console().width, _COLUMNS_MIN))
    if one:
        words = {EQUAL: "equal to the last bit", DIFFERS: "it differs", CANNOT_TELL: "cannot tell"}[verdict]
        console.print(f"decision {repeated[0].decision_id}, made again: {words}", highlight=False)
    else:
        table = Table(title=f"{len(repeated):,} of {seen:,} decisions made again")
        table.add_column("")
        table.add_column("decisions", justify="right")
        equal = len(repeated) - len(lacking) - len(different)
        rows = ("equal to the last bit", equal), ("differ", len(different)), ("cannot tell", len(lacking))
        for what, number in rows:
            table.add_row(what, f"{number:,}")
        console.print(table)
    for each in different[:_TOLD_MAX]:
        for difference in each.differences:
            click.echo(f"{each.decision_id}: {difference.what}: recorded {difference.recorded}", err=True)
            click.echo(f"{each.decision_id}: {difference.what}: again    {difference.again}", err=True)
    for each in lacking[:_TOLD_MAX]:
        click.echo(f"{each.decision_id}: cannot tell: {each.missing}", err=True)
    return verdict


def _json(repeated: list[Repeated]) -> bytes:
    rows = [
        {
            "decision_id": each.decision_id,
            "customer": each.record.customer,
            "config_version": each.record.config_version,
            "equal": each.equal,
            "differences": [difference._asdict() for difference in each.differences],
            "missing": each.missing,
        }
        for each in repeated
    ]
    return orjson.dumps(rows, option=orjson.OPT_INDENT_2)
