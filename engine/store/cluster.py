"""Which node of a Redis or Valkey cluster serves which slot, and which nodes are away.

A key belongs to one of 16,384 slots by the hash tag in it, a slot to one master. The map is read with CLUSTER SLOTS and
put right in three ways:

1. a node that says MOVED names the new master of one slot: that is taken at once, and the map is read again behind it;
2. a node that failed a call is asked with PING until it answers, and meanwhile the map is read again and again: once a
   replica was promoted, the slots are the replica's;
3. while a node does not answer PING it counts as away: calls to it fail at once, so that a batch waits for a dead node
   once and not every time.

Non-goals: reading from replicas, and electing masters, which the cluster does itself.
"""

import asyncio
import logging
from binascii import crc_hqx
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from engine.limits import DECIDE_STATE_WAIT_MS_MAX
from engine.store.base import StoreError, StoreUnavailable
from engine.store.wire import Address, Command, Connection, Redirected, Reply, checked

log = logging.getLogger(__name__)

SLOTS: Final = 16_384
NODE_ANSWER_MS_MAX: Final = DECIDE_STATE_WAIT_MS_MAX
"""A node that takes longer for a PING, a connection included, is away: no decision would wait for it."""
NODE_LOOK_MS: Final = 100
"""Between two looks at a node that is away, and between two readings of the map."""
NODE_FORGET_MS: Final = 15_000
"""Connections to a node that left the map are closed after this: longer than any answer under way may take."""

_MAP: Final[Command] = (b"CLUSTER", b"SLOTS")


class NodeAway(StoreUnavailable):
    """The node was known to be away, so it was not asked."""


def slot_of(key: bytes) -> int:
    """Slot of a key: the CRC16 (XMODEM) of its hash tag, or of the whole key if it has none.

    >>> slot_of(b"{p0}f:ann") == slot_of(b"{p0}events") == 15882
    True
    """
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) % SLOTS


class Node:
    """One master, with a connection for each user of it."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.away = False
        self._connections: dict[Hashable, Connection] = {}

    def connection(self, user: Hashable) -> Connection:
        """The connection of a user, made when it is first asked for."""
        found = self._connections.get(user)
        if found is None:
            found = self._connections[user] = Connection(self.address)
        return found

    def release(self, user: Hashable) -> None:
        """Close the connection of a user."""
        if (connection := self._connections.pop(user, None)) is not None:
            connection.abandon()

    def abandon(self) -> None:
        """Close all connections."""
        for user in list(self._connections):
            self.release(user)


class Cluster:
    """The map of one cluster, kept right. Belongs to one event loop."""

    def __init__(self, seeds: Sequence[Address]) -> None:
        self._seeds = tuple(seeds)
        """Asked when no node of the map answers: names may lead to other machines by then."""
        self._nodes: dict[Address, Node] = {}
        self._leaving: set[Node] = set()
        self._owners: list[Node | None] = [None] * SLOTS
        self._looking: dict[Node, asyncio.Task[None]] = {}
        self._reading: asyncio.Task[None] | None = None
        self._closed = False

    def __str__(self) -> str:
        return f"cluster of {self._seeds[0]}"

    @classmethod
    async def find(cls, addresses: Sequence[Address], wait_s: float) -> "Cluster | None":
        """The cluster that the first address that answers belongs to; None if that is a single server.

        Raises StoreUnavailable if none answers in time, StoreError for several addresses of single servers.
        """
        error: StoreError = StoreUnavailable("no address")
        for address in addresses:
            connection = Connection(address)
            try:
                [reply] = await connection.pipeline([_MAP], wait_s / len(addresses))
            except StoreUnavailable as away:
                error = away
                continue
            finally:
                await connection.close()
            if isinstance(reply, StoreUnavailable):
                error = reply
            elif isinstance(reply, list):
                cluster = cls(addresses)
                cluster._take(reply, address)
                log.info("%s: a cluster of %d nodes with slots", address, len(cluster._nodes))
                return cluster
            elif len(addresses) > 1:
                raise StoreError(f"{address} is no node of a cluster, but the store URL names several servers")
            else:
                return None  # cluster support is off, or the server does not know the command
        raise error

    def owner(self, slot: int) -> Node:
        """The node that serves a slot. Raises StoreUnavailable if there is none, NodeAway if it does not answer."""
        node = self._owners[slot]
        if node is None:
            self.reread()
            what = "the store was closed" if self._closed else f"no node has slot {slot}"
            raise StoreUnavailable(f"{self}: {what}")
        if node.away:
            raise NodeAway(f"{node.address}: the node is away")
        return node

    def redirected(self, by: Node, reply: Redirected) -> Node:
        """The node that a redirection names; one for good (MOVED) is noted."""
        # A node that does not know the other's name leaves it out: the map, read again, may have it.
        host = by.address.host if reply.host in ("", "?") else reply.host
        node = self._node(replace(by.address, path="", host=host, port=reply.port))
        if not reply.ask and self._owners[reply.slot] is not node:
            self._owners[reply.slot] = node
            self.reread(node)
        return node

    def suspect(self, node: Node) -> None:
        """A call to the node failed: find out whether it is away, and until when."""
        if node not in self._looking and not self._closed:
            self._looking[node] = asyncio.create_task(self._look_after(node))

    def reread(self, first: Node | None = None) -> None:
        """Read the map again, soon and only once for all who ask meanwhile; `first` is who knows best."""
        if not self._closed and (self._reading is None or self._reading.done()):
            self._reading = asyncio.create_task(self._reread(first))

    def release(self, user: Hashable) -> None:
        """Close all connections of a user."""
        for node in (*self._nodes.values(), *self._leaving):
            node.release(user)

    async def close(self) -> None:
        """Close all connections, for good."""
        self._closed = True
        self._owners = [None] * SLOTS
        tasks = [*self._looking.values(), *([self._reading] if self._reading is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for node in (*self._nodes.values(), *self._leaving):
            node.abandon()
        # The transports close their sockets in the next turn of the loop.
        await asyncio.sleep(0)

    # --- the map ----------------------------------------------------------------------------------------------------

    def _node(self, address: Address) -> Node:
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = Node(address)
        return node

    def _take(self, ranges: list[Reply], asked: Address) -> None:
        owners: list[Node | None] = [None] * SLOTS
        for first, last, master, *_ in ranges:
            owners[first : last + 1] = [self._node(_address(master, asked))] * (last + 1 - first)
        self._owners = owners
        served = set(owners)
        loop = asyncio.get_running_loop()
        for node in [node for node in self._nodes.values() if node not in served]:
            del self._nodes[node.address]
            self._leaving.add(node)
            loop.call_later(NODE_FORGET_MS / 1e3, self._forget, node)

    def _forget(self, node: Node) -> None:
        self._leaving.discard(node)
        node.abandon()

    async def _reread(self, first: Node | None) -> None:
        await self._read_map(first)
        await asyncio.sleep(NODE_LOOK_MS / 1e3)

    async def _read_map(self, first: Node | None = None) -> None:
        """Take the map of the first node that knows a whole one; of a node that lost the others, only if none does."""
        partial: tuple[int, list[Reply], Address] | None = None
        for node in self._who_may_know(first):
            try:
                [ranges] = checked(await node.connection(self).pipeline([_MAP], NODE_ANSWER_MS_MAX / 1e3))
            except StoreError as error:
                log.info("the map of the cluster was not to be had: %s", error)
                continue
            finally:
                if node.address not in self._nodes:
                    node.abandon()
            slots = sum(last + 1 - begin for begin, last, *_ in ranges)
            if slots == SLOTS:
                self._take(ranges, node.address)
                return
            if slots > (partial[0] if partial is not None else 0):
                partial = slots, ranges, node.address
        if partial is not None:
            self._take(*partial[1:])

    def _who_may_know(self, first: Node | None) -> Iterator[Node]:
        if first is not None:
            yield first
        known = list(self._nodes.values())
        yield from (node for node in known if not node.away and node is not first)
        yield from (Node(address) for address in self._seeds if address not in self._nodes)

    async def _look_after(self, node: Node) -> None:
        """Until the node answers or has left the map."""
        try:
            while self._nodes.get(node.address) is node:
                try:
                    checked(await node.connection(self).pipeline([(b"PING",)], NODE_ANSWER_MS_MAX / 1e3))
                except StoreError as error:
                    if not node.away:
                        log.warning("a node of the cluster is away: %s", error)
                    node.away = True
                else:
                    if node.away:
                        log.info("%s: the node answers again", node.address)
                    node.away = False
                    return
                await self._read_map()
                await asyncio.sleep(NODE_LOOK_MS / 1e3)
        finally:
            del self._looking[node]


def _address(master: Sequence[Any], asked: Address) -> Address:
    """Address of a master in the reply of a node: host, port, id and, since version 7, what else is known of it."""
    host, port, *_ = master
    if host == b"?":  # it shall be known by a hostname and has none
        more = master[3] if len(master) > 3 else []
        host = dict(zip(more[::2], more[1::2], strict=False)).get(b"ip")
    # A node that does not know its own address is where it was found.
    return replace(asked, path="", host=host.decode() if host else asked.host, port=port)
