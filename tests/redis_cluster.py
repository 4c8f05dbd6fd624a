"""A real cluster for tests: masters, and replicas if asked for, from the same program as the embedded store."""

import asyncio
import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from engine.embedded import find_binary
from engine.store.cluster import SLOTS, slot_of
from engine.store.wire import Address, Connection, Reply, checked
from tests.waiting import wait_until

T = TypeVar("T")

NODE_TIMEOUT_MS: Final = 1_000
"""After which the others take a node for dead: the least that is sensible on a busy machine."""
BUS: Final = 10_000
"""What the nodes say among themselves is on a port this far up."""


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Run to its end on a loop of its own, also where one runs already."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def free_ports(count: int) -> list[int]:
    """Ports that are free, and the ports of their buses too."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        while len(found) < count:
            probe = held.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            bus = port + BUS if port + BUS < 65_536 else port - BUS
            with contextlib.suppress(OSError):
                held.enter_context(socket.socket()).bind(("127.0.0.1", bus))
                found.append(min(port, bus))
    return found


class ClusterNode:
    """One server of a cluster, over any number of lives."""

    def __init__(self, folder: Path, port: int, options: Sequence[str]) -> None:
        self.folder = folder
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None
        self._options = options

    def start(self) -> None:
        """Start it; it finds the others by itself if it knew them."""
        settings = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self.folder,
            "cluster-enabled": "yes",
            "cluster-node-timeout": NODE_TIMEOUT_MS,
            # The default, yes, makes all nodes refuse everything when one master is away.
            "cluster-require-full-coverage": "no",
            "appendonly": "yes",
            "save": "",
        }
        arguments = [str(part) for name, value in settings.items() for part in (f"--{name}", value)]
        self.process = subprocess.Popen(
            [str(find_binary()), *arguments, *self._options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)


class RedisCluster:
    """Three masters that share the slots, on ports of this machine, and a replica of each of the first `replicas`."""

    def __init__(
        self, folder: Path, *, masters: int = 3, replicas: int = 0, password: str = "", options: Sequence[str] = ()
    ) -> None:
        self.password = password
        if password:
            options = (*options, "--requirepass", password, "--masterauth", password)
        self.nodes: list[ClusterNode] = []
        for port in free_ports(masters + replicas):
            home = folder / str(port)
            home.mkdir(parents=True)
            self.nodes.append(ClusterNode(home, port, options))
        self.masters = self.nodes[:masters]
        self.replicas = self.nodes[masters:]

    @property
    def url(self) -> str:
        """Address of one node: it tells of the others."""
        return self.url_of(self.nodes[0])

    def url_of(self, *nodes: ClusterNode) -> str:
        """Address that names these nodes."""
        user = f":{self.password}@" if self.password else ""
        return f"redis://{user}" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Start all and return when every node knows who has which slot."""
        for node in self.nodes:
            node.start()
        try:
            run_apart(self._form())
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End all that still run; a master that is asked politely waits for replicas that are gone."""
        for node in self.nodes:
            if node.process is not None:
                node.kill()

    async def say(self, node: ClusterNode, *command: bytes) -> Reply:
        """Reply of one command, on a connection of its own. Raises StoreError."""
        connection = Connection(Address.parse(self.url_of(node)))
        try:
            [reply] = checked(await connection.pipeline([command], 5.0))
        finally:
            await connection.close()
        return reply

    async def empty(self) -> None:
        """Take all keys away."""
        for node in self.masters:
            await self.say(node, b"FLUSHALL")

    def owner(self, key: bytes) -> ClusterNode:
        """The master that has the slot of a key, as the slots were dealt at the start."""
        return self.masters[min(slot_of(key) * len(self.masters) // SLOTS, len(self.masters) - 1)]

    async def _form(self) -> None:
        for node in self.nodes:
            await self._until(node, b"PING", lambda reply: reply == b"PONG")
        for at, node in enumerate(self.masters):
            first, end = (-(-SLOTS * part // len(self.masters)) for part in (at, at + 1))
            await self.say(node, b"CLUSTER", b"ADDSLOTS", *(b"%d" % slot for slot in range(first, end)))
            # Nodes that begin alike quarrel about their epochs for a while.
            await self.say(node, b"CLUSTER", b"SET-CONFIG-EPOCH", b"%d" % (at + 1))
        for node in self.nodes[1:]:
            await self.say(node, b"CLUSTER", b"MEET", b"127.0.0.1", b"%d" % self.nodes[0].port)
        for node in self.nodes:
            await self._until(node, b"CLUSTER NODES", lambda reply: reply.count(b" connected") == len(self.nodes))
        for replica, master in zip(self.replicas, self.masters, strict=False):
            name = await self.say(master, b"CLUSTER", b"MYID")
            await self.say(replica, b"CLUSTER", b"REPLICATE", name)
            await self._until(replica, b"INFO replication", lambda reply: b"master_link_status:up" in reply)
        for node in self.nodes:
            await self._until(node, b"CLUSTER INFO", lambda reply: b"cluster_state:ok" in reply)
            await self._until(node, b"CLUSTER SLOTS", lambda ranges: sum(r[1] + 1 - r[0] for r in ranges) == SLOTS)

    async def _until(self, node: ClusterNode, command: bytes, wanted: object) -> None:
        assert callable(wanted)
        end_s = time.monotonic() + 20
        while True:
            with contextlib.suppress(Exception):
                if wanted(await self.say(node, *command.split())):
                    return
            assert time.monotonic() < end_s, f"waited in vain for {command!r} of the node on {node.port}"
            await asyncio.sleep(0.02)

    def wait_served(self, node: ClusterNode) -> None:
        """Return when a node that was started again serves its slots."""
        wait_until(lambda: run_apart(self._serves(node)), 20, "the node serves again")

    async def _serves(self, node: ClusterNode) -> bool:
        with contextlib.suppress(Exception):
            return b"cluster_state:ok" in await self.say(node, b"CLUSTER", b"INFO")
        return False

    # --- moving a slot ----------------------------------------------------------------------------------------------

    async def move_slot(self, slot: int, source: ClusterNode, target: ClusterNode, pause_s: float = 0.0) -> int:
        """Move a slot as `CLUSTER SETSLOT` and MIGRATE do, key by key with a pause between; returns how many keys."""
        name_of = {node.port: await self.say(node, b"CLUSTER", b"MYID") for node in self.masters}
        at = b"%d" % slot
        await self.say(target, b"CLUSTER", b"SETSLOT", at, b"IMPORTING", name_of[source.port])
        await self.say(source, b"CLUSTER", b"SETSLOT", at, b"MIGRATING", name_of[target.port])
        moved = 0
        while keys := await self.say(source, b"CLUSTER", b"GETKEYSINSLOT", at, b"1"):
            to = (b"127.0.0.1", b"%d" % target.port, keys[0], b"0", b"2000")
            await self.say(source, b"MIGRATE", *to)
            moved += 1
            await asyncio.sleep(pause_s)
        for node in (target, source, *self.masters):
            await self.say(node, b"CLUSTER", b"SETSLOT", at, b"NODE", name_of[target.port])
        return moved
