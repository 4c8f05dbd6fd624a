"""Keeps a process at the version in force: what is applied, approved or gone back to is taken up within a moment."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from engine import metrics
from engine.catalogue import Catalogue
from engine.errors import OpportuneError
from engine.layouts import keep_layout
from engine.store.base import PolicyBoard, StoreError
from engine.versions import History
from engine.versions_check import compiled

log = logging.getLogger(__name__)

_PAUSE_S: Final = 0.2
_BLOCK_MS: Final = 1_000


async def _nobody(_: bool) -> None:
    return None


class VersionWatch:
    """Follows the history of one store for one process."""

    def __init__(self, board: PolicyBoard, version: str, adopt: Callable[[Catalogue], Awaitable[None]]) -> None:
        """`version` is what the process has now; `adopt` takes up another, whole, or raises and has not."""
        self._board = board
        self._adopt = adopt
        self._seen: str | None = None
        self._refused = ""
        self.version = version
        self.on_refused: Callable[[bool], Awaitable[None]] = _nobody
        """Told when the version in force cannot be taken up here, and when that is over."""
        _show(version)

    async def run(self) -> None:
        """Follow until cancelled. A store that is away is waited for; the version in service stays."""
        while True:
            try:
                await self.step(_BLOCK_MS)
            except StoreError as error:
                log.warning("the history of versions is away, trying again: %s", error)
                self._seen = None
                await asyncio.sleep(_PAUSE_S)
            except Exception:
                # Whatever it is, this process must not stay behind for good because of it.
                log.exception("the history of versions could not be followed, trying again")
                self._seen = None
                await asyncio.sleep(_PAUSE_S)

    async def step(self, block_ms: int) -> None:
        """Take up the version in force, if it is another one. Raises StoreError."""
        if self._seen is None:
            changes = await self._board.version_changes("", 0)
            seen = changes[-1][0] if changes else "0-0"
        else:
            changes = await self._board.version_changes(self._seen, block_ms)
            if not changes:
                return
            seen = changes[-1][0]
        active = History.read(await self._board.read_versions()).active
        if active and active != self.version:
            await self._take_up(active)
        elif active and self._refused:
            await self._tell(refused="")  # what cannot be taken up was gone back from
        self._seen = seen

    async def _take_up(self, version: str) -> None:
        if version == self._refused:
            return  # it will not be any better, and was told
        text = await self._board.load_config(version)
        try:
            if text is None:
                raise OpportuneError(f"version {version}: its text is not in the store")
            catalogue = await asyncio.to_thread(compiled, text, f"version {version}")
            for kind, layout in catalogue.layouts.items():
                await keep_layout(self._board, version, text, layout, kind)
            await self._adopt(catalogue)
        except StoreError:
            raise
        except Exception as error:
            # Somebody with another release, or other packages, has put it in force: what serves here goes on.
            log.error("version %s cannot be taken up here, %s stays: %s", version, self.version, error)
            await self._tell(refused=version)
            return
        log.info("version %s of the configuration serves in place of %s", version, self.version)
        self.version = version
        _show(version)
        await self._tell(refused="")

    async def _tell(self, *, refused: str) -> None:
        if refused == self._refused:
            return
        self._refused = refused
        metrics.CONFIG_REFUSED.set(bool(refused))
        await self.on_refused(bool(refused))


def _show(version: str) -> None:
    metrics.CONFIG_ACTIVE.clear()
    metrics.CONFIG_ACTIVE.labels(version).set(1)
    metrics.CONFIG_SWAPPED.set(time.time())


def folding_of(catalogue: Catalogue) -> Any:
    """All that the state of customers depends on: of two versions with the same, one can fold for the other."""
    config = catalogue.config
    return (
        {kind: layout.version for kind, layout in catalogue.layouts.items()},
        catalogue.keeper.shapes,
        config.events,
        config.identities,
        config.entities,
        config.clock,
        config.features,
    )
