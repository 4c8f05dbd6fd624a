"""`opportune exploration`: whether the engine still explores, for people and cron jobs."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from engine.cli_parts import CANNOT_TELL, config_option
from engine.cli_store import data_option, redis_option
from engine.cli_told import catalogue_of, head_of


@click.command()
@config_option
@data_option
@redis_option
def exploration(config_path: Path, data_path: Path | None, redis_url: str | None) -> None:
    """Tell whether the policy and each offer are still explored.

    Exit code 0: they are, or it is not known yet. 1: the policy as a whole or an offer has stopped.
    2: it cannot be told.
    """
    catalogue = catalogue_of(config_path, data_path, redis_url, CANNOT_TELL)
    head = head_of(data_path, redis_url, CANNOT_TELL)
    config, figures = catalogue.config, head.get("exploration", {})
    strength = config.exploration.strength
    click.echo(f"method {config.exploration.method}, strength {strength if strength == 'tuned' else f'{strength:g}'}")
    if strength == "tuned":
        for line in _tuned(head.get("tuning", {}), catalogue.explorer.grid):
            click.echo(line)
    alarm = config.exploration.alarm
    if alarm is None:
        click.echo("nothing is watched: the configuration has alarm: null")
        return
    decisions, _ = alarm.judged_after
    if figures.get("config") != catalogue.version or figures["share"] is None:
        click.echo(f"not known yet: it takes {decisions:,} decisions with this configuration")
    else:
        stopped = " (stopped exploring)" if figures["stopped"] else ""
        click.echo(f"left to chance: {figures['share']:.2%} of the last {decisions:,} decisions{stopped}")
    if figures.get("config") != catalogue.version:
        return
    for name in figures["offers"]:
        click.echo(f"not explored any more: {name}")
    if figures["stopped"] or figures["offers"]:
        sys.exit(1)


def _tuned(figures: Mapping[str, Any], grid: Sequence[float]) -> Iterator[str]:
    """What the learner's `Tuning.figures` told."""
    if figures.get("strengths") != list(grid):
        yield f"tuned among {', '.join(f'{one:g}' for one in grid)}: nothing is known yet, it begins with {grid[-1]:g}"
        return
    yield f"tuned among {', '.join(f'{one:g}' for one in grid)}: {figures['strength']:g} now"
    for step in figures["steps"]:
        worth = f"{step['mean']:+.4g} a decision, {step['low']:+.4g} to {step['high']:+.4g} at {step['level']:.2%}"
        when = datetime.fromtimestamp(step["time_ms"] / 1e3, UTC)
        yield (
            f"{when:%Y-%m-%d %H:%M} UTC: {step['from']:g} → {step['to']:g}: one step less would earn {worth} "
            f"({step['decisions']:,} decisions)"
        )
    if "decisions" not in figures:
        return
    yield f"since then {figures['decisions']:,} decisions, the next look at {figures['next_look']:,}"
    found = figures["difference"]
    if found is not None:
        yield (
            f"strength {figures['less']:g} would earn {found['mean']:+.4g} a decision "
            f"({found['low']:+.4g} to {found['high']:+.4g} so far)"
        )
    yield f"{figures['otherwise']:.1f} decisions would have been made otherwise; no step is taken on fewer than 20"
