"""Time, processes and faults of a simulation: nothing here waits, and a seed decides everything.

An event loop whose clock jumps to the next timer makes hours pass in milliseconds, in an order that only the dice know.
A process is a set of tasks: killing it cancels all of them wherever they stand, and its memory is gone with them.
"""

import asyncio
import contextvars
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from random import Random
from typing import Any

from engine.store import Conflict, DecisionCommit, MemoryStore, StoreFull, StoreUnavailable

START_MS = 1_750_000_000_000
SPAN_S_MAX = 3_600
"""A simulation that takes longer hangs."""

_process: contextvars.ContextVar["Process | None"] = contextvars.ContextVar("process", default=None)


class _NoWaiting(selectors.DefaultSelector):
    """A selector that never sleeps: the time it should have waited has passed at once."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise AssertionError("every task waits for another one: this would hang for ever")
        self.now_s += max(0.0, timeout)
        assert self.now_s < SPAN_S_MAX, f"the simulation did not end within {SPAN_S_MAX} s of its own time"
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on a clock of its own."""

    def __init__(self) -> None:
        self._selector_of_time = _NoWaiting()
        super().__init__(self._selector_of_time)
        self.set_task_factory(_in_its_process)

    def time(self) -> float:
        return self._selector_of_time.now_s

    def clock_ms(self) -> int:
        return START_MS + int(self.time() * 1_000)


def _in_its_process(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> "asyncio.Task[Any]":
    task = asyncio.Task(coro, loop=loop, **options)
    owner = _process.get()
    if owner is not None:
        owner.tasks[task] = None
        task.add_done_callback(lambda done: owner.tasks.pop(done, None))
    return task


class Crashed(Exception):
    """The process died before it answered."""


class Process:
    """Tasks that die together, those that they start included."""

    def __init__(self) -> None:
        self.tasks: dict[asyncio.Task[Any], None] = {}

    def spawn(self, coro: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        context = contextvars.copy_context()
        return context.run(self._start, coro)

    def _start(self, coro: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        _process.set(self)
        return asyncio.get_running_loop().create_task(coro)

    async def call(self, coro: Coroutine[Any, Any, Any]) -> Any:
        """What a call to this process answers. Raises Crashed."""
        task = self.spawn(coro)
        await asyncio.wait([task])
        if task.cancelled():
            raise Crashed
        return task.result()

    async def kill(self) -> None:
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Faults:
    """The dice of the store: how often it fails, and whether it is away altogether."""

    def __init__(self, dice: Random, rate: float) -> None:
        self.dice = dice
        self.rate = rate
        self.away = False

    def end(self) -> None:
        self.rate, self.away = 0.0, False


_CALM = frozenset({"backlog", "ping", "close"})
"""Not failed: `backlog` is asked for by the wall clock, which would bring it into the dice."""


class FaultyStore:
    """A MemoryStore behind a network: calls take time, fail before or after they took place, overtake each other."""

    def __init__(self, store: MemoryStore, faults: Faults) -> None:
        self._store = store
        self._faults = faults
        self.partitions = store.partitions

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._store, name)
        if name in _CALM:
            return method

        async def call(*arguments: Any, **options: Any) -> Any:
            await self._travel()
            if self._faults.away or self._hit():
                raise StoreUnavailable(f"{name} did not reach the store")
            result = await method(*arguments, **options)
            await self._travel()
            if self._faults.away or self._hit():
                raise StoreUnavailable(f"{name} was done, the answer got lost")
            return result

        return call

    async def commit_decisions(self, commits: Sequence[DecisionCommit]) -> list[Any]:
        """A pipeline: some of its commands may take place and others not, and one may find the store full."""
        await self._travel()
        dice = self._faults.dice
        if self._faults.away or self._hit():
            reached = commits[: dice.randrange(len(commits) + 1)] if not self._faults.away else []
            await self._store.commit_decisions(reached)
            raise StoreUnavailable("commit_decisions: the connection broke")
        results: list[Any] = []
        for commit in commits:
            results += [StoreFull("no room")] if self._hit() else await self._store.commit_decisions([commit])
        await self._travel()
        if self._hit():
            raise StoreUnavailable("commit_decisions: the answers got lost")
        return results

    async def commit_outcome(self, customer: str, expected: bytes, ledger: bytes, entry: bytes) -> Any:
        await self._travel()
        if self._hit():
            raise StoreFull("no room")
        if self._faults.away or self._hit():
            raise StoreUnavailable("commit_outcome did not reach the store")
        if self._hit():
            return Conflict()
        written = await self._store.commit_outcome(customer, expected, ledger, entry)
        await self._travel()
        if self._hit():
            raise StoreUnavailable("commit_outcome was done, the answer got lost")
        return written

    def _hit(self) -> bool:
        return self._faults.dice.random() < self._faults.rate

    async def _travel(self) -> None:
        roll = self._faults.dice.random()
        # Mostly a turn of the loop or none, sometimes long enough for everybody else to pass.
        if roll < 0.1:
            await asyncio.sleep(roll)
        elif roll < 0.6:
            await asyncio.sleep(0)
