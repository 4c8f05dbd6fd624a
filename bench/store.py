"""A private store for a benchmark, without an engine, and what is asked of any store."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.datafolder import DataFolder
from engine.embedded import EmbeddedStore


@contextmanager
def private_store(folder: Path) -> Iterator[EmbeddedStore]:
    """A store of an engine's own kind, started on a data folder and ended. To be used from the main thread."""
    with DataFolder(folder) as data:
        store = EmbeddedStore(data)
        store.start()
        try:
            store.wait_ready()
            yield store
        finally:
            store.stop()


def used_memory(control: Any) -> int:
    """Bytes that the server's data take, and what it needs to hold them."""
    return int(control.info("memory")["used_memory"])


def settle(control: Any) -> None:
    """Have the store rewrite its file now: after a hundred thousand writes it would do so in the middle of a round."""
    for ask in (lambda: None, control.bgrewriteaof):  # one that is under way has to end first
        ask()
        while any(control.info("persistence")[f"aof_rewrite_{what}"] for what in ("in_progress", "scheduled")):
            time.sleep(0.05)
