"""`opportune lift`: from its options to its exit code."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from rich.console import Console

from engine import limits
from engine.catalogue import Catalogue
from engine.cli_parts import config_option, told
from engine.cli_store import (
    binary_option,
    check_brokers,
    check_log,
    event_log_of,
    in_store,
    url_of_log,
    write_report,
)
from engine.errors import InvalidArgument
from engine.eventlog import EventLog
from engine.store.base import EVENTS_IN_KAFKA, Store

if TYPE_CHECKING:
    from engine.lift.comparing import Comparison
    from engine.lift.report import Report

_COLUMNS_MIN: Final = 140


@click.command()
@config_option
@click.option("--log", "log_at", required=True, metavar="LOG", help="Data folder, or URL of the store.")
@click.option("--experiment", "names", multiple=True, metavar="NAME", help="Only these; repeat for more.")
@click.option("--from", "from_text", metavar="TIME", help="Only decisions at that time or later.")
@click.option("--to", "to_text", metavar="TIME", help="Only decisions, and goals, before that time.")
@click.option("--by", metavar="NAME", help="Also apart by channel, by segment, or by a fact of the context.")
@click.option("--kafka", help="HOST:PORT[,…] of your Kafka, if that is the event log, which goals are counted in.")
@binary_option
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write the same there.")
def lift(
    config_path: Path,
    log_at: str,
    names: tuple[str, ...],
    from_text: str | None,
    to_text: str | None,
    by: str | None,
    kafka: str | None,
    store_binary: Path | None,
    json_path: Path | None,
) -> None:
    """Tell what experiments and control groups brought, a person, with intervals.

    Exit code 0: answered. 1: log or configuration cannot be read. 2: wrong options. 3: answered in part or with an
    alarm: too few people, a log that does not reach back, or people spread over the arms as chance does not.
    """
    check_log(log_at)
    check_brokers(kafka)
    from engine.history.loading import instant_ms

    with told():
        from_ms = None if from_text is None else instant_ms(from_text, "--from")
        to_ms = None if to_text is None else instant_ms(to_text, "--to")
        catalogue = Catalogue.of_file(config_path)
        check(catalogue, names, by)

        async def run(store: Store) -> "Report":
            asked = catalogue, names, from_ms, to_ms, by, log_at
            if kafka is None and await store.remember(EVENTS_IN_KAFKA) is not None:
                return await report(store, None, *asked)
            async with event_log_of(store, kafka) as events:
                return await report(store, events, *asked)

        found = in_store(url_of_log(log_at, store_binary), run)
        if json_path is not None:
            write_report(json_path, found.to_json())
    found.print(Console(width=max(Console().width, _COLUMNS_MIN)))
    sys.exit(found.verdict)


def check(catalogue: Catalogue, names: tuple[str, ...], by: str | None) -> None:
    """Refuse what the configuration does not have. Raises InvalidArgument."""
    there = [experiment.name for experiment in catalogue.config.experiments]
    if not there:
        raise InvalidArgument(f"configuration {catalogue.config.name}: has no experiments")
    for name in names:
        if name not in there:
            raise InvalidArgument(f"--experiment {name}: there are {', '.join(there)}")
    if by == "segment" and not catalogue.segments.names:
        raise InvalidArgument(f"--by segment: configuration {catalogue.config.name} has no segments")
    if by not in (None, "channel", "segment", *catalogue.facts):
        facts = ", ".join(catalogue.facts) or "none"
        raise InvalidArgument(f"--by {by}: expected channel, segment or a fact: {facts}")


async def report(
    store: Store,
    events: EventLog | None,
    catalogue: Catalogue,
    names: tuple[str, ...],
    from_ms: int | None,
    to_ms: int | None,
    by: str | None,
    title: str,
) -> "Report":
    """What a store tells about the experiments of a configuration. Raises InvalidArgument, BrokerError, StoreError.

    `events` is its event log; None if that is in a Kafka that was not named: goals are refused.
    """
    # They bring polars, which other commands need not wait for.
    import numpy as np

    from engine.experiments import OUTSIDE
    from engine.history import decisions
    from engine.lift import comparing, goals, insegments, reading
    from engine.lift.report import Report

    written = decisions.Written()
    segments = insegments.InSegments(catalogue) if by == insegments.SEGMENT else None
    batches = decisions.decided(store, catalogue, from_ms, to_ms, written)
    visits = await reading.read(
        batches, written, None if segments else by, title, segments.of if segments else None
    )
    groups = np.array(visits.groups)
    found = []
    for experiment in catalogue.config.experiments:
        if names and experiment.name not in names:
            continue
        took = comparing.taken(visits, experiment)
        counted, refusals = None, []
        if experiment.goal is not None and len(took.rows):
            until_ms = min(to_ms or limits.TIME_MS_MAX, experiment.ends_ms)
            since_ms = np.where(took.arms == OUTSIDE, limits.TIME_MS_MAX, took.since_ms)
            try:
                counted = await goals.count(store, events, experiment.goal, visits.names, since_ms, until_ms)
            except goals.NotCovered as error:
                refusals.append(f"goal {experiment.goal.event}: {error}")
        whole = comparing.compare(visits, took, took.rows, "", counted)
        whole.refusals = refusals
        whole.remarks = [*took.remarks, *_remarks(whole, experiment.goal is None)]
        found.append(whole)
        if segments is not None:
            # Whoever is in a segment is in it with all visits, so what they did counts as theirs, too.
            for name, rows in insegments.parts(segments.names, visits, took):
                found.append(comparing.compare(visits, took, rows, f"{by} {name}", counted))
            continue
        for part in sorted(set(groups[took.rows].tolist())) if by is not None else ():
            rows = took.rows[groups[took.rows] == part]
            found.append(comparing.compare(visits, took, rows, f"{by} {part}", None))
    return Report(title, by, found, visits.remarks)


def _remarks(one: "Comparison", without_goal: bool) -> list[str]:
    if without_goal and any(arm.policy == "control" for arm in one.arms):
        return [
            "without a goal it is not seen what the control group does on its own: the value that the champion brings "
            "over it counts every accepted offer as brought by the engine"
        ]
    return []
