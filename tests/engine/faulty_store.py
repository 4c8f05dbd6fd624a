"""A MemoryStore whose calls can be made to fail or to wait. For faults only: everything else is the real thing."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from engine.store import Conflict, DecisionCommit, MemoryStore, StoreError
from engine.store.base import LogEntry
from features import Offset


class FaultyStore(MemoryStore):
    """`failing` maps a method's name to the error it raises; `gate` holds reads until it is set."""

    def __init__(self, partitions: int, clock_ms: Callable[[], int]) -> None:
        super().__init__(partitions, clock_ms)
        self.failing: dict[str, Exception] = {}
        self.refusing: dict[str, StoreError | Conflict] = {}
        """Customers whose commits get this instead of a position."""
        self.gate = asyncio.Event()
        self.gate.set()
        self.reads: list[list[str]] = []

    def _fail(self, method: str) -> None:
        if method in self.failing:
            raise self.failing[method]

    async def read(self, customers: Sequence[str]) -> list[tuple[bytes | None, bytes | None]]:
        self.reads.append(list(customers))
        await self.gate.wait()
        self._fail("read")
        return await super().read(customers)

    async def commit_decisions(self, commits: Sequence[DecisionCommit]) -> list[Offset | Conflict | StoreError]:
        self._fail("commit_decisions")
        good = [commit for commit in commits if commit.customer not in self.refusing]
        positions = iter(await super().commit_decisions(good))
        return [self.refusing.get(commit.customer) or next(positions) for commit in commits]

    async def commit_outcome(self, *arguments: Any) -> Offset | Conflict:
        self._fail("commit_outcome")
        return await super().commit_outcome(*arguments)

    async def append_events(self, events: Sequence[tuple[str, bytes]]) -> list[Offset]:
        self._fail("append_events")
        return await super().append_events(events)

    async def entries(self, positions: Sequence[tuple[int, Offset]]) -> list[bytes | None]:
        self._fail("entries")
        return await super().entries(positions)

    async def read_decisions(self, *arguments: Any) -> dict[int, list[LogEntry]]:
        self._fail("read_decisions")
        return await super().read_decisions(*arguments)

    def log(self) -> list[tuple[int, LogEntry]]:
        """(partition, entry) of all decisions and outcomes."""
        return [
            (partition, LogEntry(at, log.data[at]))
            for partition, log in enumerate(self._decisions)
            for at in log.positions
        ]
