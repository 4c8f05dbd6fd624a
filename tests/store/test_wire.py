"""The connection: order, errors as values, deadlines, addresses."""

import asyncio
import time
from pathlib import Path

import pytest

from engine.store import StoreError, StoreFull, StoreUnavailable
from engine.store.wire import Address, Connection, KeysApart, Redirected, ScriptMissing, error_of


@pytest.fixture
async def connection(server):
    connection = Connection(Address.parse(server.url))
    yield connection
    await connection.close()


async def test_concurrent_pipelines_get_their_own_replies(connection) -> None:
    async def ask(number: int) -> None:
        commands = [(b"ECHO", b"%d:%d" % (number, part)) for part in range(number % 5)]
        assert await connection.pipeline(commands, 5.0) == [echo for _, echo in commands]

    await asyncio.gather(*(ask(number) for number in range(500)))


async def test_an_error_is_a_value_among_the_replies(connection) -> None:
    first, error, last = await connection.pipeline([(b"SET", b"k", b"v"), (b"NONSENSE",), (b"GET", b"k")], 5.0)
    assert (first, last) == (b"OK", b"v")
    assert type(error) is StoreError


async def test_large_values_pass(connection) -> None:
    value = bytes(range(256)) * 40_000
    assert await connection.pipeline([(b"SET", b"k", value), (b"GET", b"k")], 10.0) == [b"OK", value]


async def test_a_cancelled_caller_does_not_shift_the_replies_of_others(connection) -> None:
    await connection.pipeline([(b"PING",)], 5.0)
    # Two commands each: the answer to a lone one may be there before anybody can be cancelled.
    asked = [[(b"ECHO", b"%d" % number), (b"PING",)] for number in range(10)]
    tasks = [asyncio.create_task(connection.pipeline(commands, 5.0)) for commands in asked]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[4].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    answered = [number for number, result in enumerate(results) if result == [b"%d" % number, b"PONG"]]
    assert answered == [1, 2, 3, 5, 6, 7, 8, 9]


async def test_a_late_answer_closes_the_connection_and_the_next_call_opens_another(connection) -> None:
    begin = time.monotonic()
    with pytest.raises(StoreUnavailable, match=r"no answer within \d+ ms"):
        await connection.pipeline([(b"BLPOP", b"nothing", b"0.5")], 0.1)
    assert time.monotonic() - begin < 0.4
    assert await connection.pipeline([(b"ECHO", b"x")], 5.0) == [b"x"]


async def test_a_held_up_process_looks_for_the_answer_before_it_gives_up(connection) -> None:
    await connection.pipeline([(b"PING",)], 5.0)
    asking = asyncio.create_task(connection.pipeline([(b"ECHO", b"x")], 0.05))
    await asyncio.sleep(0)
    time.sleep(0.2)
    assert await asking == [b"x"]


async def test_a_closed_connection_stays_closed(connection) -> None:
    await connection.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await connection.pipeline([(b"PING",)], 5.0)


async def test_something_else_than_redis_is_unavailable(tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("other") / "s"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_unix_server(answer, path):
        connection = Connection(Address.parse(f"unix://{path}"))
        with pytest.raises(StoreUnavailable, match="not the protocol of Redis"):
            await connection.pipeline([(b"PING",)], 5.0)


async def test_a_server_that_never_answers_a_greeting_is_unavailable(tmp_path_factory) -> None:
    path: Path = tmp_path_factory.mktemp("mute") / "s"
    done = asyncio.Event()

    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await done.wait()
        writer.close()

    async with await asyncio.start_unix_server(silence, path):
        connection = Connection(Address.parse(f"unix://{path}?db=3"))
        calls = [connection.pipeline([(b"PING",)], 0.1) for _ in range(20)]
        begin = time.monotonic()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert time.monotonic() - begin < 1.0
        assert {type(result) for result in results} == {StoreUnavailable}
        done.set()


async def test_a_database_and_a_password_are_said_first(own_server) -> None:
    await own_server.say(b"ACL", b"SETUSER", b"me", b"on", b">p@ss", b"~*", b"+@all")
    connection = Connection(Address.parse(f"unix://me:p%40ss@{own_server.socket}?db=3"))
    reply = (await connection.pipeline([(b"CLIENT", b"LIST")], 5.0))[0]
    assert b"db=3" in reply
    assert b"user=me" in reply
    await connection.close()
    stranger = Connection(Address.parse(f"unix://me:wrong@{own_server.socket}"))
    with pytest.raises(StoreError, match="WRONGPASS"):
        await stranger.pipeline([(b"PING",)], 5.0)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("ERR unknown command", StoreError),
        ("WRONGTYPE Operation against a key", StoreError),
        ("NOSCRIPT No matching script", ScriptMissing),
        ("LOADING server is loading the dataset in memory", StoreUnavailable),
        ("MOVED 3999 127.0.0.1:6381", Redirected),
        ("ASK 3999 ::1:6381", Redirected),
        ("TRYAGAIN Multiple keys request during rehashing of slot", KeysApart),
        ("CLUSTERDOWN The cluster is down", StoreUnavailable),
        ("READONLY You can't write against a read only replica.", StoreUnavailable),
        ("ERR max number of clients reached", StoreUnavailable),
        ("OOM command not allowed when used memory > 'maxmemory'.", StoreFull),
        ("MISCONF Errors writing to the AOF file", StoreFull),
        ("EXECABORT Transaction discarded because of: OOM command not allowed when", StoreFull),
        ("ERR Error running script (call to f_1): @user_script:1: -OOM command not allowed when", StoreFull),
        ("ERR Error running script (call to f_1): @user_script:1: -MISCONF Errors writing", StoreFull),
    ],
)
def test_error_replies_become_the_errors_of_the_contract(message: str, expected: type[StoreError]) -> None:
    error = error_of(message)
    assert type(error) is expected
    assert str(error) == message


def test_addresses() -> None:
    local = Address.parse("unix:///data/my%20store.sock?db=2")
    assert (local.path, local.database) == ("/data/my store.sock", 2)
    remote = Address.parse("redis://me:p%40ss@[::1]:7000/4")
    assert (remote.host, remote.port, remote.database) == ("::1", 7000, 4)
    assert (remote.username, remote.password, remote.tls) == ("me", "p@ss", False)
    assert Address.parse("rediss://host").tls
    for text in (str(remote), repr(remote)):
        assert "p@ss" not in text
    for wrong in ("http://host", "unix://", "redis://host/zero", "host:6379", "redis://a,b"):
        with pytest.raises(ValueError, match="store URL"):
            Address.parse(wrong)


def test_addresses_of_several_nodes() -> None:
    found = Address.parse_all("rediss://me:a%2Cb@[::1]:7000,10.0.0.2:7001,name")
    assert [(at.host, at.port) for at in found] == [("::1", 7000), ("10.0.0.2", 7001), ("name", 6379)]
    assert {(at.tls, at.username, at.password) for at in found} == {(True, "me", "a,b")}
    assert Address.parse_all("unix:///a,b/s") == [Address.parse("unix:///a,b/s")]
    with pytest.raises(ValueError, match="store URL"):
        Address.parse_all("http://a,b")
