"""What commands share that show what the learner told with its policy."""

import asyncio
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
import orjson

from engine import limits
from engine.catalogue import Catalogue
from engine.cli_parts import told
from engine.config import load
from engine.errors import Unavailable
from engine.replaying import store_of
from engine.store.base import StoreError
from engine.store.redis import RedisStore
from engine.store.wire import Address

data_option = click.option(
    "--data", "data_path", type=click.Path(path_type=Path), help="Data folder of an engine, running or not."
)
redis_option = click.option(
    "--redis", "redis_url", help="The store of an engine that has its own: redis://… or unix://…"
)


def catalogue_of(config_path: Path, data_path: Path | None, redis_url: str | None) -> Catalogue:
    """The configuration, once the options are one store's. Raises ClickException for what will not do."""
    if (data_path is None) == (redis_url is None):
        raise click.UsageError("expected --data or --redis, one of them")
    try:
        Address.parse_all(redis_url or "unix:///")
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--redis") from error
    with told():
        config, version, text = load(config_path)
        return Catalogue.compile(config, version, text, str(config_path))


def head_of(data_path: Path | None, redis_url: str | None) -> dict[str, Any]:
    """The head of the policy that was published last: {} before there is one. Raises ClickException."""
    with told(), nullcontext(redis_url or "") if data_path is None else store_of(data_path) as url:
        return asyncio.run(_head_at(url))


async def _head_at(url: str) -> dict[str, Any]:
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
