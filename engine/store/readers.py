"""Blocking reads of streams.

A blocking read holds up everything behind it on its connection, so each has a connection to itself, kept for the next.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from engine.store.base import StoreUnavailable
from engine.store.wire import Address, Connection, Reply, checked

READERS_MAX: Final = 16
"""Blocking reads under way at once."""


class Readers:
    """Connections for blocking reads."""

    def __init__(self, address: Address, answer_wait_s: float) -> None:
        self._address = address
        self._answer_wait_s = answer_wait_s
        """How long after the end of its block a read may answer."""
        self._all: list[Connection] = []
        self._idle: list[Connection] = []

    async def read(self, starts: Mapping[bytes, bytes], count: int, block_ms: int) -> list[Reply]:
        """[stream, [[id, [field, value, …]], …]] of each stream that has entries after its start.

        [] if there were none within `block_ms`. Raises StoreUnavailable.
        """
        if not starts:
            await asyncio.sleep(block_ms / 1e3)
            return []
        # BLOCK 0 would wait for ever.
        block = (b"BLOCK", b"%d" % block_ms) if block_ms > 0 else ()
        command = (b"XREAD", b"COUNT", b"%d" % count, *block, b"STREAMS", *starts.keys(), *starts.values())
        connection = self._take()
        try:
            [found] = checked(await connection.pipeline([command], block_ms / 1e3 + self._answer_wait_s))
        except BaseException:
            # The server would still be at this read when the next one comes.
            connection.abandon()
            raise
        finally:
            self._idle.append(connection)
        return found or []

    async def close(self) -> None:
        """Close all; reads under way raise StoreUnavailable."""
        for connection in self._all:
            await connection.close()

    def _take(self) -> Connection:
        if self._idle:
            return self._idle.pop()
        if len(self._all) >= READERS_MAX:
            raise StoreUnavailable(f"{self._address}: {READERS_MAX} blocking reads are under way")
        connection = Connection(self._address)
        self._all.append(connection)
        return connection
