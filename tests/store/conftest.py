"""A real server for the tests of the store, and the stores that the contract is checked on."""

import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from engine.embedded import find_binary
from engine.store import MemoryStore, RedisStore, Store
from engine.store.wire import Address, Connection, Reply
from tests.redis_cluster import RedisCluster, run_apart
from tests.waiting import wait_until

PARTITIONS = 4


class Server:
    """A server with an append-only file, on a unix socket."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "s"
        self.url = f"unix://{self.socket}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        binary = find_binary()
        settings = {"port": 0, "unixsocket": self.socket, "dir": self.folder, "appendonly": "yes", "save": ""}
        arguments = [str(part) for name, value in settings.items() for part in (f"--{name}", value)]
        self.socket.unlink(missing_ok=True)
        self.process = subprocess.Popen([binary, *arguments], stdout=subprocess.DEVNULL)
        wait_until(lambda: run_apart(self._answers()), 20, "the server answers")

    async def _answers(self) -> bool:
        try:
            return await self.say(b"PING") == b"PONG"
        except Exception:
            return False

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            self.process.wait(20)

    async def say(self, *command: bytes) -> Reply:
        """Reply of one command, on a connection of its own."""
        connection = Connection(Address.parse(self.url))
        try:
            [reply] = await connection.pipeline([command], 5.0)
        finally:
            await connection.close()
        return reply

    async def keys(self) -> list[bytes]:
        return sorted(await self.say(b"KEYS", b"*"))


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("shared"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that the test may kill, stop and starve. Its path is short: a socket's may have 107 bytes."""
    server = Server(tmp_path_factory.mktemp("own"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def server(shared_server: Server) -> Server:
    """A server without keys."""
    await shared_server.say(b"FLUSHALL")
    return shared_server


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    with RedisCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
async def cluster(shared_cluster: RedisCluster) -> RedisCluster:
    """A cluster without keys."""
    await shared_cluster.empty()
    return shared_cluster


@pytest.fixture
def own_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """A cluster whose nodes the test may kill and stop, and whose slots it may move."""
    with RedisCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


MakeStore = Callable[..., Awaitable[Store]]


@pytest.fixture(params=["memory", "redis", "cluster"])
async def make_store(request: pytest.FixtureRequest) -> AsyncIterator[MakeStore]:
    """Makes a store with the limits given; further stores see the same data on Redis only."""
    made: list[Store] = []
    if request.param == "cluster":
        cluster: RedisCluster = request.getfixturevalue("shared_cluster")
        await cluster.empty()
    if request.param == "redis":
        server: Server = request.getfixturevalue("shared_server")
        await server.say(b"FLUSHALL")

    async def make(**limits: int) -> Store:
        store: Store
        if request.param == "memory":
            store = MemoryStore(PARTITIONS, lambda: time.time_ns() // 1_000_000, **limits)
        elif request.param == "cluster":
            store = await RedisStore.open(cluster.url, PARTITIONS, **limits)
        else:
            store = RedisStore(server.url, PARTITIONS, **limits)
        made.append(store)
        return store

    yield make
    for store in made:
        await store.close()


@pytest.fixture
async def store(make_store: MakeStore) -> Store:
    return await make_store()


@pytest.fixture
async def redis_store(server: Server) -> AsyncIterator[RedisStore]:
    store = await RedisStore.open(server.url, PARTITIONS)
    yield store
    await store.close()
