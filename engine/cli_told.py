"""What commands share that show what the learner told with its policy."""

from pathlib import Path
from typing import Any

import orjson

from engine.catalogue import Catalogue
from engine.cli_parts import told
from engine.cli_store import check_store, in_store, url_of
from engine.store.redis import RedisStore


def catalogue_of(config_path: Path, data_path: Path | None, redis_url: str | None, exit_code: int = 1) -> Catalogue:
    """The configuration, once the options are one store's. Raises ClickException for what will not do."""
    check_store(data_path, redis_url)
    with told(exit_code):
        return Catalogue.of_file(config_path)


def head_of(data_path: Path | None, redis_url: str | None, exit_code: int = 1) -> dict[str, Any]:
    """The head of the policy that was published last: {} before there is one. Raises ClickException."""
    with told(exit_code):
        return in_store(url_of(data_path, redis_url), _head)


async def _head(store: RedisStore) -> dict[str, Any]:
    head, _ = await store.read_policy([])
    facts: dict[str, Any] = {} if head is None else orjson.loads(head)
    return facts
