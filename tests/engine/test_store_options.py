"""Commands that read a store refuse the same options in the same words, and tell the same of a store that is away."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from click.testing import CliRunner

from engine.cli import main
from engine.cli_store import in_store, write_report
from engine.errors import InvalidArgument, Unavailable
from engine.store import RedisStore
from engine.store.base import StoreError
from engine.store.wire import Address, reach
from tests.store.conftest import Server

CONFIG = str(Path(__file__).parents[2] / "examples" / "bank" / "opportune.yaml")
BY_STORE = [
    ["budgets", "--config", CONFIG],
    ["drift", "--config", CONFIG],
    ["challengers", "--config", CONFIG],
    ["exploration", "--config", CONFIG],
    ["features", "--config", CONFIG, "--check"],
    ["replay", "--config", CONFIG],
    ["replay", "--decisions", "1"],
    ["versions"],
    ["approve", "0123456789abcdef"],
    ["dataset", "--config", CONFIG, "--out", "x.parquet"],
]
BY_LOG = [
    ["lift", "--config", CONFIG, "--log"],
    ["evaluate", "--config", CONFIG, "--policy", "logged", "--log"],
]


def told(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.output


@pytest.mark.parametrize("command", BY_STORE, ids=lambda command: command[0])
def test_a_store_is_named_once(command: list[str], tmp_path: Path) -> None:
    for options in ([], ["--data", str(tmp_path), "--redis", "unix:///x"]):
        code, output = told(*command, *options)
        assert code == 2 and "expected --data or --redis, one of them" in output
    code, output = told(*command, "--redis", "ftp://nowhere")
    assert code == 2 and "Invalid value for --redis" in output and "ftp" in output
    _, output = told(*command, "--data", str(tmp_path / "none"))
    assert f"data folder {tmp_path / 'none'}: there is none" in output


@pytest.mark.parametrize("command", BY_LOG, ids=lambda command: command[0])
def test_a_log_is_a_store_or_a_folder(command: list[str]) -> None:
    code, output = told(*command, "ftp://nowhere")
    assert code == 2 and "Invalid value for --log" in output and "ftp" in output


async def _fails(store: RedisStore) -> None:
    raise StoreError("no more of it")


def test_a_store_that_is_away_and_one_that_fails_are_told_apart(shared_server: Server) -> None:
    asyncio.run(shared_server.say(b"FLUSHALL"))
    with pytest.raises(Unavailable, match=r"^the store is away: "):
        in_store(nullcontext("unix:///nowhere.sock"), _fails)
    with pytest.raises(Unavailable, match=r"^the store cannot be read: no more of it$"):
        in_store(nullcontext(shared_server.url), _fails)
    with pytest.raises(Unavailable, match=r"^the store did not do it: no more of it$"):
        in_store(nullcontext(shared_server.url), _fails, "the store did not do it")


@pytest.mark.parametrize(
    ("options", "refused"),
    [(["--grpc", "off"], "off"), (["--grpc", "localhost"], "localhost"), (["--http", "OFF"], "OFF")],
)
def test_an_address_that_is_none_is_told(options: list[str], refused: str, tmp_path: Path) -> None:
    beside = ["--http", "off"] if "--grpc" in options else ["--grpc", "127.0.0.1:0"]
    code, output = told("serve", "--config", CONFIG, "--data", str(tmp_path / "data"), *options, *beside)
    assert (code, output) == (1, f"Error: {refused!r} is no address, expected HOST:PORT\n")


@pytest.mark.parametrize("option", [["--fsync", "always"], ["--fsync", "everysec"], ["--store-binary", "/bin/true"]])
def test_what_is_about_the_private_store_does_not_go_with_another(option: list[str], tmp_path: Path) -> None:
    where = ["--config", CONFIG, "--data", str(tmp_path / "data"), "--redis", "redis://127.0.0.1:1"]
    code, output = told("serve", *where, *option)
    assert (code, f"{option[0]} is about the private store, not --redis" in output) == (2, True), output


@pytest.mark.parametrize(
    ("url", "shown"), [("foo", "'foo'"), ("me:secret@foo", "'…@foo'"), ("http://me:secret@foo", "'…@foo'"), ("", "''")]
)
def test_a_url_that_is_none_is_shown_without_its_password(url: str, shown: str) -> None:
    with pytest.raises(ValueError, match=rf"^store URL {shown}: expected one that begins with unix://, redis:// or"):
        Address.parse(url)


@pytest.mark.parametrize("command", [["serve", "--grpc", "127.0.0.1:0", "--http", "off"], ["ingest", "--kafka", "b:1"]])
def test_nothing_is_started_on_a_store_that_is_away(command: list[str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"redis://127.0.0.1:{port}"
    code, output = told(*command, "--config", CONFIG, "--data", str(tmp_path / "data"), "--redis", url)
    assert (code, output) == (1, f"Error: --redis: the store cannot be used: {url}/0: Connection refused\n")


def test_a_store_that_lets_nobody_in_is_told(shared_server: Server) -> None:
    asyncio.run(reach(shared_server.url, 5.0))
    asyncio.run(shared_server.say(b"ACL", b"SETUSER", b"guest", b"on", b">secret", b"-@all"))
    with pytest.raises(StoreError, match=r"NOPERM"):
        asyncio.run(reach(f"unix://guest:secret@{shared_server.socket}", 5.0))


def test_a_worker_that_waits_for_its_store_ends_when_it_is_told_to() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = json.dumps({"config": CONFIG, "redis": f"redis://127.0.0.1:{silent.getsockname()[1]}"})
        arguments = [sys.executable, "-m", "engine.worker", "serve", "--settings", settings]
        with subprocess.Popen(arguments, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as worker:
            silent.accept()
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(4.0) == 0  # the supervisor would kill it after five seconds


def test_a_report_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    write_report(tmp_path / "a.json", b"{}")
    assert (tmp_path / "a.json").read_bytes() == b"{}"
    with pytest.raises(InvalidArgument, match=rf"^{tmp_path}/none/a.json: cannot be written: No such file"):
        write_report(tmp_path / "none" / "a.json", b"{}")


async def test_a_store_that_is_started_meanwhile_is_waited_for(tmp_path: Path) -> None:
    server = Server(tmp_path)

    async def start() -> None:
        await asyncio.sleep(0.5)
        await asyncio.to_thread(server.start)

    starting = asyncio.create_task(start())
    try:
        await reach(server.url, 10.0)
        await starting
        assert await server.say(b"PING") == b"PONG"
    finally:
        server.stop()
