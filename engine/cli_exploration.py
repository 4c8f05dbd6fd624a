"""`opportune exploration`: whether the engine still explores, for people and cron jobs."""

import asyncio
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
import orjson

from engine import limits
from engine.catalogue import Catalogue
from engine.cli_parts import config_option, told
from engine.config import load
from engine.errors import Unavailable
from engine.replaying import store_of
from engine.store.base import StoreError
from engine.store.redis import RedisStore
from engine.store.wire import Address


@click.command()
@config_option
@click.option("--data", "data_path", type=click.Path(path_type=Path), help="Data folder of an engine, running or not.")
@click.option("--redis", "redis_url", help="The store of an engine that has its own: redis://… or unix://…")
def exploration(config_path: Path, data_path: Path | None, redis_url: str | None) -> None:
    """Tell whether the policy and each offer are still explored.

    Exit code 0: they are, or it is not known yet. 1: the policy as a whole or an offer has stopped.
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
            figures = asyncio.run(_figures(url))
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


async def _figures(url: str) -> dict[str, Any]:
    """What the learner told last."""
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
    figures: dict[str, Any] = orjson.loads(head).get("exploration", {}) if head is not None else {}
    return figures
