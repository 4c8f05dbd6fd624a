"""`opportune drift`: whose acceptance has changed, for people and cron jobs."""

import sys
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console
from rich.table import Table

from engine.cli_parts import CANNOT_TELL, config_option
from engine.cli_plain import plain
from engine.cli_store import data_option, redis_option
from engine.cli_told import catalogue_of, head_of
from engine.featurecheck.finding import moment


@click.command()
@config_option
@data_option
@redis_option
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def drift(config_path: Path, data_path: Path | None, redis_url: str | None, as_json: bool) -> None:
    """Tell of which offers the acceptance was found to have changed.

    Exit code 0: of none lately, or it is not known yet. 1: of some, within `learning.drift.recent`.
    2: it cannot be told.
    """
    catalogue = catalogue_of(config_path, data_path, redis_url, CANNOT_TELL)
    head = head_of(data_path, redis_url, CANNOT_TELL)
    config = catalogue.config
    figures = head.get("drift", {})
    known = config.learning.drift is not None and figures.get("config") == catalogue.version
    offers: list[dict[str, Any]] = figures["offers"] if known else []
    if as_json:
        click.echo(orjson.dumps({"known": known, "offers": offers}, option=orjson.OPT_INDENT_2))
    elif config.learning.drift is None:
        click.echo("nothing is watched: the configuration has learning.drift: null")
    elif not known:
        click.echo("not known yet: the learner has not published a policy with this configuration")
    elif not offers:
        click.echo("no offer has drifted")
    else:
        _show(offers)
    if any(found["recent"] for found in offers):
        sys.exit(1)


def _show(offers: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("offer", "", "before", "after", "since", "found", "lessons", "older count", ""):
        table.add_column(name, justify="right" if name in ("before", "after", "lessons", "older count") else "left")
    for found in offers:
        table.add_row(
            plain(found["offer"]),
            "rose" if found["after"] > found["before"] else "fell",
            f"{found['before']:.2%}",
            f"{found['after']:.2%}",
            moment(found["change_ms"]),
            moment(found["found_ms"]),
            f"{found['lessons']:,}",
            f"{found['factor']:.2g}",
            "recent" if found["recent"] else "",
        )
    Console(width=120).print(table)
