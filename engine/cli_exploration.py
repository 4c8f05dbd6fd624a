"""`opportune exploration`: whether the engine still explores, for people and cron jobs."""

import sys
from pathlib import Path

import click

from engine.cli_parts import config_option
from engine.cli_store import data_option, redis_option
from engine.cli_told import catalogue_of, head_of


@click.command()
@config_option
@data_option
@redis_option
def exploration(config_path: Path, data_path: Path | None, redis_url: str | None) -> None:
    """Tell whether the policy and each offer are still explored.

    Exit code 0: they are, or it is not known yet. 1: the policy as a whole or an offer has stopped.
    """
    catalogue = catalogue_of(config_path, data_path, redis_url)
    head = head_of(data_path, redis_url)
    config, figures = catalogue.config, head.get("exploration", {})
    click.echo(f"method {config.exploration.method}, strength {config.exploration.strength:g}")
    alarm = config.exploration.alarm
    if alarm is None:
        click.echo("nothing is watched: the configuration has alarm: null")
        return
    if figures.get("config") != catalogue.version or figures["share"] is None:
        click.echo(f"not known yet: it takes {alarm.decisions:,} decisions with this configuration")
    else:
        stopped = " (stopped exploring)" if figures["stopped"] else ""
        click.echo(f"left to chance: {figures['share']:.2%} of the last {alarm.decisions:,} decisions{stopped}")
    if figures.get("config") != catalogue.version:
        return
    for name in figures["offers"]:
        click.echo(f"not explored any more: {name}")
    if figures["stopped"] or figures["offers"]:
        sys.exit(1)
