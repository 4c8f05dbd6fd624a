"""Stops writes to the private store before the disk is full, and lets them go on when there is room again.

When a write() of the append-only file fails, the server has already acknowledged that turn's commands. So the disk must
not get that far: below DISK_FREE_BYTES_MIN the store is told to refuse writes, by asking for a replica that it does not
have. Reads go on, callers get RESOURCE_EXHAUSTED, and everything acknowledged before is in the file.
"""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import redis

from engine.errors import DataFolderError
from engine.limits import DISK_FREE_BYTES_MIN

log = logging.getLogger("opportune.store")


def refuse_full(folder: Path, free_bytes_min: int = DISK_FREE_BYTES_MIN) -> None:
    """Raise DataFolderError where an engine would start only to take no writes. One that runs goes on without them."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < free_bytes_min:
        raise DataFolderError(f"data folder {folder}: {free_bytes} bytes free, {free_bytes_min} are needed")


class DiskGuard:
    """Watches the disk of one folder for one store."""

    def __init__(
        self, folder: Path, client: Callable[[], redis.Redis], free_bytes_min: int = DISK_FREE_BYTES_MIN
    ) -> None:
        self._folder = folder
        self._client = client
        self._free_bytes_min = free_bytes_min
        self._refusing = False

    def check(self) -> None:
        """Look once; a store that does not answer is looked at the next time."""
        free_bytes = shutil.disk_usage(self._folder).free
        # Some room more before writes are let in again, or a disk at the limit would switch with every look.
        full = free_bytes < self._free_bytes_min * (1.25 if self._refusing else 1.0)
        if full == self._refusing:
            return
        try:
            with self._client() as client:
                client.config_set("min-replicas-to-write", 1 if full else 0)
        except redis.RedisError as error:
            log.warning("the store could not be told that the disk is %s: %s", "full" if full else "free", error)
            return
        self._refusing = full
        if full:
            log.error(
                "%d bytes free at %s, fewer than %d: the store takes no writes",
                free_bytes,
                self._folder,
                self._free_bytes_min,
            )
        else:
            log.warning("%d bytes free at %s: the store takes writes again", free_bytes, self._folder)

    def forget(self) -> None:
        """The store was started anew: it takes writes until it is told otherwise."""
        self._refusing = False
