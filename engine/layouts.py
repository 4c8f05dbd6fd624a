"""Layouts of other configurations: their records are still about after a change, and are carried over as they are met.

A record names its layout by a hash. The store keeps by that hash which configuration it belongs to, and every
configuration that was ever served.
"""

import asyncio
import logging
import time
from typing import Final

from engine.config import parse
from engine.config_base import CUSTOMER
from engine.errors import ConfigError
from engine.store.base import PolicyBoard, StoreError
from features import Layout

log = logging.getLogger(__name__)

_LOOK_AGAIN_S: Final = 1.0


async def keep_layout(
    store: PolicyBoard, config: str, text: bytes, layout: Layout, entity: str = CUSTOMER
) -> None:
    """Have others find a configuration and its layout, and make the layout know theirs. Raises StoreError."""
    await store.save_config(config, text)
    await store.save_layout(layout.version, config)
    await learn_layouts(store, layout, entity)


async def learn_layouts(store: PolicyBoard, layout: Layout, entity: str = CUSTOMER) -> int:
    """Make a layout know the records of all others in the store; returns how many were new to it. Raises StoreError.

    `entity` is the kind whose features it has.
    """
    learnt = 0
    for version, config in (await store.load_layouts()).items():
        if layout.knows_version(version):
            continue
        text = await store.load_config(config)
        try:
            if text is not None:
                other = parse(text, config)
                learnt += layout.learn(other.feature_specs(entity), other.timezone) == version
        except (ConfigError, ValueError) as error:
            log.warning("records of configuration %s cannot be carried over: %s", config, error)
    return learnt


class LayoutWatch:
    """Looks for layouts that came after the start: those of servers that already have another configuration."""

    def __init__(self, store: PolicyBoard, layout: Layout, entity: str = CUSTOMER) -> None:
        self._store = store
        self._layout = layout
        self._entity = entity
        self._looked_s = 0.0
        self._looking: asyncio.Task[None] | None = None

    def look(self) -> None:
        """Look, at most once in _LOOK_AGAIN_S, without waiting for it."""
        if time.monotonic() - self._looked_s > _LOOK_AGAIN_S and self._looking is None:
            self._looked_s = time.monotonic()
            self._looking = asyncio.create_task(self._look())

    async def _look(self) -> None:
        try:
            learnt = await learn_layouts(self._store, self._layout, self._entity)
            log.info("state that cannot be read: learnt %d layouts of other configurations", learnt)
        except StoreError as error:
            log.warning("layouts of other configurations cannot be read: %s", error)
        finally:
            self._looking = None
