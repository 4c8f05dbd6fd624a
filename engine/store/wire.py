"""A connection to Redis or Valkey with nothing between it and the socket.

    pipeline(commands) ──► one write ──► server ──► hiredis.Reader ──► replies to the pipeline that waits first

Why not the client library: of the decision's script with a kilobyte of arguments, redis-py's asyncio client takes 11 to
13 us of Python a command in pipelines of 32 and 32 to 65 us alone (uvloop, asyncio); this takes 2 to 3 us and 9 to 30.

Promises:
1. Replies are never mismatched. A server answers in order; a connection that missed a deadline is closed, so a reply
   that comes late has nobody to go to.
2. Every wait ends: connecting and answering share the timeout of the call.
3. Nothing is sent twice. Whether to repeat a command whose answer was lost is the caller's to know.
4. An error of one command is a value among the replies, because the other commands of the pipeline took place.

Non-goals: RESP3, push messages, pools; redirections of a cluster are errors here, which engine.store.lanes follows.
"""

import asyncio
import os
import re
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

from hiredis import ProtocolError, Reader, pack_command

from engine.store.base import StoreError, StoreFull, StoreUnavailable

Command = tuple[bytes, ...]
Reply = Any
"""bytes, int, None, a StoreError, or a list of these."""

PIPELINES_PENDING_MAX: Final = 8_192
"""Pipelines that wait for replies on one connection. The queues in front of the store are shorter; this is the net."""
LOOK_US_MAX: Final = 300
"""How long a lone decision waits for a store on this machine without going to sleep.

On two cores a read takes 40 to 60 us and a commit 65 to 105: 99 of 100 are there in time. With 100 it was 45 of 100
commits, and a lone decision took 4 % longer.
"""
READ_BYTES_MAX: Final = 256 * 1024
LAST_LOOK_MS: Final = 1
"""Between the end of a wait and giving up."""
_REACH_PAUSE_S: Final = 0.2

_NOTHING: Final = object()
_UNAVAILABLE: Final = frozenset({"BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY", "UNBLOCKED"})


class ScriptMissing(StoreError):
    """The server does not know the script (any more): nothing was done."""


class Redirected(StoreUnavailable):
    """Another node of the cluster has the key: nothing was done.

    >>> error = Redirected("ASK 3999 10.0.0.2:6381")
    >>> error.ask, error.slot, error.host, error.port
    (True, 3999, '10.0.0.2', 6381)
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        kind, slot, address = message.split(" ")[:3]
        host, _, port = address.rpartition(":")
        self.ask = kind == "ASK"
        """Whether it is for this once: the slot is being moved."""
        self.slot, self.host, self.port = int(slot), host, int(port)


class KeysApart(StoreUnavailable):
    """The keys of the command are on two nodes while their slot is being moved: nothing was done."""


def error_of(message: str) -> StoreError:
    """Error that a server's error reply stands for.

    >>> error_of("OOM command not allowed when used memory > 'maxmemory'.")
    StoreFull("OOM command not allowed when used memory > 'maxmemory'.")
    """
    code = message.partition(" ")[0]
    if code == "NOSCRIPT":
        return ScriptMissing(message)
    if code in ("MOVED", "ASK"):
        return Redirected(message)
    if code == "TRYAGAIN":
        return KeysApart(message)
    # Before version 7 an error inside a script comes wrapped into another message; so does one that aborts EXEC.
    if code == "NOREPLICAS":
        # Our own store says this when engine.diskguard found too little room; either way nothing was written.
        return StoreFull(f"the store takes no writes: too little free disk, or too few replicas ({message})")
    if code in ("OOM", "MISCONF") or "OOM command not allowed" in message or "-MISCONF " in message:
        return StoreFull(message)
    if code in _UNAVAILABLE or message.startswith("ERR max number of clients"):
        return StoreUnavailable(message)
    return StoreError(message)


def checked(replies: list[Reply]) -> list[Reply]:
    """The replies, if none of them is an error; else raise the first."""
    for reply in replies:
        if isinstance(reply, StoreError):
            raise reply
    return replies


@dataclass(frozen=True, slots=True)
class Address:
    """Where a store listens; its text leaves the password out."""

    path: str
    """Path of the unix socket; "" for TCP."""
    host: str
    port: int
    tls: bool
    database: int
    username: str
    password: str = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Read `unix:///path.sock?db=0` or `redis[s]://[user:password@]host[:port][/db]`. Raises ValueError.

        >>> str(Address.parse("redis://me:secret@localhost/3"))
        'redis://localhost:6379/3'
        """
        parts = urlsplit(url)
        if "," in parts.netloc.rpartition("@")[2]:
            raise ValueError("store URL names several servers: expected one")
        if parts.scheme not in ("unix", "redis", "rediss"):
            # What stands before the last @ may be a password.
            _, at, shown = url.rpartition("@")
            there = f"…@{shown}" if at else url
            raise ValueError(f"store URL {there!r}: expected one that begins with unix://, redis:// or rediss://")
        local = parts.scheme == "unix"
        query = parse_qs(parts.query).get("db", ["0"])[-1]
        database = query if local else parts.path.strip("/") or query
        if not database.isascii() or not database.isdecimal():
            raise ValueError(f"store URL names database {database!r}: expected a number")
        if local and not parts.path:
            raise ValueError("store URL names no socket: expected unix:///path/of/the.sock")
        return cls(
            path=unquote(parts.path) if local else "",
            host=parts.hostname or "localhost",
            port=parts.port or 6379,
            tls=parts.scheme == "rediss",
            database=int(database),
            username=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
        )

    @classmethod
    def parse_all(cls, url: str) -> "list[Address]":
        """Read a URL that may name several nodes of a cluster, `redis://host:port,host:port`. Raises ValueError.

        >>> [str(address) for address in Address.parse_all("redis://me:secret@a:7000,b")]
        ['redis://a:7000/0', 'redis://b:6379/0']
        """
        parts = urlsplit(url)
        user, at, hosts = parts.netloc.rpartition("@")
        return [cls.parse(urlunsplit(parts._replace(netloc=user + at + host))) for host in hosts.split(",")]

    def __str__(self) -> str:
        if self.path:
            return f"unix://{self.path}?db={self.database}"
        return f"redis{'s' if self.tls else ''}://{self.host}:{self.port}/{self.database}"

    def greeting(self) -> list[Command]:
        """What has to be said first on a new connection."""
        commands: list[Command] = []
        if self.password:
            user = (self.username.encode(),) if self.username else ()
            commands.append((b"AUTH", *user, self.password.encode()))
        if self.database:
            commands.append((b"SELECT", b"%d" % self.database))
        return commands


class _Link(asyncio.Protocol):
    """One open socket: it lives until the first thing goes wrong."""

    def __init__(self, address: Address) -> None:
        self.closed = False
        self._address = address
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = Reader(replyError=error_of, notEnoughData=_NOTHING)
        self._waiting: deque[tuple[int, asyncio.Future[list[Reply]]]] = deque()
        self._replies: list[Reply] = []
        self._fd = -1
        """Socket of a store on this machine; others answer too late to wait for."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of asyncio.Transport but are none.
        self._transport = cast(asyncio.Transport, transport)
        if self._address.path:
            self._fd = transport.get_extra_info("socket").fileno()

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(f"connection lost: {exc}" if exc else "connection closed by the store")

    def data_received(self, data: bytes) -> None:
        reader, replies, waiting = self._reader, self._replies, self._waiting
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not _NOTHING:
                if not waiting:
                    # Nothing was asked: the server says why it hangs up.
                    return self.fail(str(reply))
                replies.append(reply)
                if len(replies) == waiting[0][0]:
                    _, future = waiting.popleft()
                    # A caller that was cancelled no longer waits; its replies are taken off the line all the same.
                    if not future.done():
                        future.set_result(replies)
                    replies = self._replies = []
        except ProtocolError as error:
            self.fail(f"not the protocol of Redis: {error}")

    async def send(self, commands: Sequence[Command], timeout_s: float, *, look: bool = False) -> list[Reply]:
        """Write all, wait for all replies; with `look`, for the first LOOK_US_MAX without going to sleep."""
        if self.closed or self._transport is None:
            raise StoreUnavailable(f"{self._address}: connection is closed")
        if len(self._waiting) >= PIPELINES_PENDING_MAX:
            raise StoreUnavailable(f"{self._address}: {PIPELINES_PENDING_MAX} calls wait for the store")
        future: asyncio.Future[list[Reply]] = self._loop.create_future()
        self._waiting.append((len(commands), future))
        self._transport.write(b"".join(map(pack_command, commands)))
        if look and self._fd >= 0 and len(self._waiting) == 1:
            self._look(time.perf_counter() + LOOK_US_MAX / 1e6)
            if future.done():
                return future.result()
        # A bare timer: asyncio.timeout() would cost as much as the rest of this method.
        timer = self._loop.call_later(timeout_s, self._late, future, timeout_s)
        try:
            return await future
        finally:
            timer.cancel()

    def _look(self, until_s: float) -> None:
        """Wait for a quick answer with open eyes: being put to sleep and woken costs a lone decision 80 us."""
        while self._waiting and time.perf_counter() < until_s:
            try:
                data = os.read(self._fd, READ_BYTES_MAX)
            except BlockingIOError:
                os.sched_yield()
                continue
            except OSError:
                return  # the loop finds out what is wrong
            if not data:
                return  # closed by the store: the loop sees that, too
            self.data_received(data)

    def _late(self, future: asyncio.Future[list[Reply]], timeout_s: float) -> None:
        # If this process was held up, the answer may lie in the socket: the loop looks there before the next timer.
        if not future.done():
            self._loop.call_later(LAST_LOOK_MS / 1e3, self._give_up, future, timeout_s)

    def _give_up(self, future: asyncio.Future[list[Reply]], timeout_s: float) -> None:
        if not future.done():
            self.fail(f"no answer within {timeout_s * 1e3:.0f} ms")

    def fail(self, reason: str) -> None:
        """Close, and tell everybody who waits."""
        if self.closed:
            return
        self.closed = True
        self._fd = -1
        if self._transport is not None:
            self._transport.abort()
        for _, future in self._waiting:
            if not future.done():
                future.set_exception(StoreUnavailable(f"{self._address}: {reason}"))
        self._waiting.clear()


class Connection:
    """One connection that any number of tasks may use at once; it is opened, and opened again, when needed."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._link: _Link | None = None
        self._connecting = asyncio.Lock()
        self._closed = False

    async def pipeline(self, commands: Sequence[Command], timeout_s: float, *, look: bool = False) -> list[Reply]:
        """Replies of the commands, in order; an error reply is a StoreError among them. Raises StoreUnavailable.

        `look` is for a lone decision: see LOOK_US_MAX.

        After a StoreUnavailable it is not known which of the commands took place.
        """
        if not commands:
            return []
        link = self._link
        if link is None or link.closed:
            loop = asyncio.get_running_loop()
            deadline_s = loop.time() + timeout_s
            link = await self._connect(timeout_s)
            timeout_s = max(0.0, deadline_s - loop.time())
        return await link.send(commands, timeout_s, look=look)

    def abandon(self) -> None:
        """Close the socket now; replies under way are lost. The next call opens another one."""
        if self._link is not None:
            self._link.fail("connection given up")
            self._link = None

    async def close(self) -> None:
        """Close for good."""
        self._closed = True
        self.abandon()
        # The transport closes its socket in the next turn of the loop.
        await asyncio.sleep(0)

    async def _connect(self, timeout_s: float) -> _Link:
        try:
            async with asyncio.timeout(timeout_s), self._connecting:
                # Those who waited for the lock find the link that the first one made.
                if self._link is None or self._link.closed:
                    if self._closed:
                        raise StoreUnavailable(f"{self.address}: the store was closed")
                    self._link = await _dial(self.address, timeout_s)
                return self._link
        except TimeoutError:
            raise StoreUnavailable(f"{self.address}: no connection within {timeout_s * 1e3:.0f} ms") from None
        except OSError as error:
            raise StoreUnavailable(f"{self.address}: {_reason(error)}") from error


async def reach(url: str, wait_s: float) -> None:
    """Wait until a store answers at a URL, be it that it is loading its files, and lets us in.

    Of several nodes one is enough. Raises StoreError, StoreUnavailable if none answers in time, ValueError.
    """
    addresses = Address.parse_all(url)
    end_s = time.monotonic() + wait_s
    while True:
        error: StoreError = StoreUnavailable("no address")
        for address in addresses:
            connection = Connection(address)
            try:
                [reply] = await connection.pipeline([(b"PING",)], wait_s / len(addresses))
            except StoreUnavailable as away:
                error = away
                continue
            finally:
                await connection.close()
            if isinstance(reply, StoreError) and not isinstance(reply, StoreUnavailable):
                raise StoreError(f"{address}: {reply}")
            return
        if time.monotonic() >= end_s:
            raise error
        await asyncio.sleep(_REACH_PAUSE_S)  # it may be started at this moment, as the engine is


def _reason(error: OSError) -> str:
    """Why there is no connection: asyncio's own words leave out that it was refused.

    >>> _reason(OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 111] Connect call failed"))
    'Connection refused'
    """
    numbers = re.findall(r"\[Errno (\d+)\]", str(error))
    return os.strerror(int(numbers[0])) if numbers else str(error)


async def _dial(address: Address, timeout_s: float) -> _Link:
    loop = asyncio.get_running_loop()
    link = _Link(address)
    if address.path:
        await loop.create_unix_connection(lambda: link, address.path)
    else:
        await loop.create_connection(lambda: link, address.host, address.port, ssl=address.tls or None)
    try:
        if greeting := address.greeting():
            replies = await link.send(greeting, timeout_s)
            if address.database and type(replies[-1]) is StoreError:
                raise StoreError(f"database {address.database}: {replies[-1]}")
            checked(replies)
    except BaseException:
        link.fail("the greeting failed")
        raise
    return link
