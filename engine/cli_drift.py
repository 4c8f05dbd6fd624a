"""`opportune drift`: whose acceptance has changed, for people and cron jobs."""

import asyncio
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console
from rich.table import Table

from engine import limits
from engine.catalogue import Catalogue
from engine.cli_parts import config_option, told
from engine.config import load
from engine.errors import Unavailable
from engine.featurecheck.finding import moment
from engine.replaying import store_of
from engine.store.base import StoreError
from engine.store.redis import RedisStore
from engine.store.wire import Address


@click.command()
@config_option
@click.option("--data", "data_path", type=click.Path(path_type=Path), help="Data folder of an engine, running or not.")
@click.option("--redis", "redis_url", help="The store of an engine that has its own: redis://… or unix://…")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def drift(config_path: Path, data_path: Path | None, redis_url: str | None, as_json: bool) -> None:
    """Tell of which offers the acceptance was found to have changed.

    Exit code 0: of none lately, or it is not known yet. 1: of some, within `learning.drift.recent`.
    """
    if (data_path is None) == (redis_url is None):
        raise click.UsageError("expected --data or --redis, one of them")
    try:
        Address.parse_all(redis_url or "unix:///")
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--redis") from error
    with told():
        config, version, text = load(config_path)
        catalogue = Catalogue.compile(config, version, text, str(config_path))
        with nullcontext(redis_url or "") if data_path is None else store_of(data_path) as url:
            head = asyncio.run(head_at(url))
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
            found["offer"],
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


async def head_at(url: str) -> dict[str, Any]:
    """What the learner told last with its policy; {} before there is one. Raises Unavailable."""
    try:
        store = await RedisStore.open(url, limits.PARTITIONS)
    except StoreError as error:
        raise Unavailable(f"the store is away: {error}") from error
    try:
        head, _ = await store.read_policy([])
    except StoreError as error:
        raise Unavailable(f"the store cannot be read: {error}") from error
    finally:
        await store.close()
    facts: dict[str, Any] = {} if head is None else orjson.loads(head)
    return facts
