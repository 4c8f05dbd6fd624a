"""Blocking reads of streams on a cluster.

A cluster refuses an XREAD of streams of several slots, even if one node serves them all. So each stream has a blocking
read of its own, on a connection of its own (a tail), and a call goes like this:

1. read all streams without blocking, one pipeline a node: under load this is all that happens, in full batches;
2. nothing there: have a tail at each stream, and return what the first one brings.

A tail whose stream stayed silent remains at its read when the call returns, and the next call, which asks for the same
position, waits for it on. So an idle stream costs one command for each block, and news of one stream costs nothing on
the others.

Nodes that are away. A failure is raised by the first call that meets it, so that the caller asks the store again where
it stands. After that the streams of a node that is known to be away are passed over and the others go on being read;
only if all streams are on nodes that are away does a call raise again.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from engine.store.base import StoreError, StoreUnavailable
from engine.store.cluster import Cluster, NodeAway
from engine.store.lanes import Lane
from engine.store.readers import READERS_MAX
from engine.store.wire import Command, Reply

_FROM_NOW_ON: Final = b"$"


class Tails:
    """Blocking reads; takes the place of Readers."""

    def __init__(self, cluster: Cluster, answer_wait_s: float) -> None:
        self._cluster = cluster
        self._answer_wait_s = answer_wait_s
        """How long after the end of its block a read may answer."""
        self._glance = Lane(cluster)
        self._turn = 0
        self._all: list[_Tail] = []
        self._idle: dict[bytes, list[_Tail]] = {}
        """By stream. What is done or under way at a tail stays valid: it depends on its position only."""

    async def read(self, starts: Mapping[bytes, bytes], count: int, block_ms: int) -> list[Reply]:
        """[stream, [[id, [field, value, …]], …]] of each stream that has entries after its start.

        [] if there were none within `block_ms`. Raises StoreUnavailable.
        """
        if not starts:
            await asyncio.sleep(block_ms / 1e3)
            return []
        self._raise_failures(starts)
        # Who reads takes the streams in this order and may fail at one: none is always behind it.
        self._turn += 1
        streams = list(starts)
        at = self._turn % len(streams)
        starts = {stream: starts[stream] for stream in streams[at:] + streams[:at]}
        if block_ms <= 0 or _FROM_NOW_ON not in starts.values():
            commands = [_command(stream, start, count, 0) for stream, start in starts.items()]
            found = _news(await self._glance.pipeline(commands, self._answer_wait_s))
            if found or block_ms <= 0:
                return found
        tails: list[_Tail] = []
        try:
            for stream, start in starts.items():
                # One by one: those taken go back if one is refused.
                tails.append(self._take(stream, (start, count)))
            return await self._first_news(tails, list(starts.values()), count, block_ms)
        finally:
            for tail in tails:
                if starts[tail.stream] == _FROM_NOW_ON:
                    tail.reset()  # what comes after it depends on the moment, so nobody else may have it
                self._idle[tail.stream].append(tail)

    async def close(self) -> None:
        """Close all; reads under way raise StoreUnavailable."""
        for tail in self._all:
            tail.reset()
        await self._glance.close()

    def _raise_failures(self, streams: Mapping[bytes, bytes]) -> None:
        """Raise what befell a tail between two calls."""
        for stream in streams:
            for tail in self._idle.get(stream, ()):
                if isinstance(error := tail.result(), StoreError):
                    tail.reset()
                    if not isinstance(error, NodeAway):
                        raise error

    def _take(self, stream: bytes, position: tuple[bytes, int]) -> "_Tail":
        idle = self._idle.setdefault(stream, [])
        for tail in idle:
            if tail.position == position:
                idle.remove(tail)
                return tail
        if idle:
            return idle.pop()
        if sum(tail.stream == stream for tail in self._all) >= READERS_MAX:
            raise StoreUnavailable(f"{self._cluster}: {READERS_MAX} blocking reads are under way")
        tail = _Tail(stream, Lane(self._cluster), self._answer_wait_s)
        self._all.append(tail)
        return tail

    async def _first_news(
        self, tails: Sequence["_Tail"], starts: Sequence[bytes], count: int, block_ms: int
    ) -> list[Reply]:
        loop = asyncio.get_running_loop()
        end_s = loop.time() + block_ms / 1e3
        while True:
            left_s = end_s - loop.time()
            for tail, start in zip(tails, starts, strict=True):
                tail.begin(start, count, max(1, round(left_s * 1e3)))
            results = [tail.result() for tail in tails]
            for tail, result in zip(tails, results, strict=True):
                if isinstance(result, StoreError) and not isinstance(result, NodeAway):
                    tail.reset()
            found = _news(results)
            if found or left_s <= 0:
                return found
            # Not all are errors and none has news: there is one to wait for.
            under_way = [tail.task for tail in tails if tail.task is not None and not tail.task.done()]
            await asyncio.wait(under_way, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)


class _Tail:
    """A blocking read of one stream, and what came of it."""

    def __init__(self, stream: bytes, lane: Lane, answer_wait_s: float) -> None:
        self.stream = stream
        self.task: asyncio.Task[Reply] | None = None
        self.position: tuple[bytes, int] | None = None
        """(start, count) of the read."""
        self._lane = lane
        self._answer_wait_s = answer_wait_s

    def begin(self, start: bytes, count: int, block_ms: int) -> None:
        """Have a read under way from this position, or a result of one that is worth something."""
        if self.position == (start, count) and self.task is not None and (not self.task.done() or self.task.result()):
            return
        self.reset()
        self.position = (start, count)
        self.task = asyncio.create_task(self._read(_command(self.stream, start, count, block_ms), block_ms / 1e3))

    def result(self) -> Reply:
        """Reply or error of the read; None if it is under way or there is none."""
        return self.task.result() if self.task is not None and self.task.done() and not self.task.cancelled() else None

    def reset(self) -> None:
        """Forget the read; one that is under way ends."""
        if self.task is not None and not self.task.done():
            self.task.cancel()
            # The server would still be at this read when the next one comes.
            self._lane.abandon()
        self.task = self.position = None

    async def _read(self, command: Command, block_s: float) -> Reply:
        [reply] = await self._lane.pipeline([command], block_s + self._answer_wait_s)
        return reply


def _command(stream: bytes, start: bytes, count: int, block_ms: int) -> Command:
    # BLOCK 0 would wait for ever.
    block = (b"BLOCK", b"%d" % block_ms) if block_ms > 0 else ()
    return (b"XREAD", b"COUNT", b"%d" % count, *block, b"STREAMS", stream, start)


def _news(replies: Sequence[Reply]) -> list[Reply]:
    """What the replies bring. Raises the first error that is not of a node known to be away, or if all are errors."""
    errors = [reply for reply in replies if isinstance(reply, StoreError)]
    for error in errors:
        if len(errors) == len(replies) or not isinstance(error, NodeAway):
            raise error
    return [log for reply in replies if reply and not isinstance(reply, StoreError) for log in reply]
