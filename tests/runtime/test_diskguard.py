"""A disk that gets full: writes are refused before the append-only file can fail, and taken again afterwards."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis
from click.testing import CliRunner

from engine.cli import main
from engine.datafolder import DataFolder
from engine.diskguard import DiskGuard, refuse_full
from engine.embedded import EmbeddedStore
from engine.errors import DataFolderError
from engine.limits import DISK_FREE_BYTES_MIN
from engine.store.base import StoreFull
from engine.store.wire import error_of

CONFIG = Path(__file__).parents[2] / "examples" / "bank" / "opportune.yaml"


@pytest.fixture
def store(tmp_path: Path):
    with DataFolder(tmp_path / "data") as folder:
        store = EmbeddedStore(folder)
        store.start()
        try:
            store.wait_ready()
            yield store
        finally:
            store.stop()


def test_too_little_room_refuses_writes_and_keeps_reads(store: EmbeddedStore) -> None:
    free_bytes = shutil.disk_usage(store.folder.store_dir).free
    with redis.Redis.from_url(store.url) as client:
        client.set("kept", "yes")
        full = DiskGuard(store.folder.store_dir, store._client, free_bytes_min=free_bytes * 10)
        full.check()
        with pytest.raises(redis.ResponseError, match="NOREPLICAS") as caught:
            client.set("refused", "yes")
        assert isinstance(error_of(str(caught.value)), StoreFull)
        assert client.get("kept") == b"yes"
        assert client.get("refused") is None

        full._free_bytes_min = 1
        full.check()
        client.set("taken again", "yes")
        assert client.get("taken again") == b"yes"


def test_an_engine_does_not_start_where_it_could_write_nothing(tmp_path: Path) -> None:
    refuse_full(tmp_path, free_bytes_min=1)
    with pytest.raises(DataFolderError, match=rf"^data folder {tmp_path}: \d+ bytes free, {1 << 62} are needed$"):
        refuse_full(tmp_path, free_bytes_min=1 << 62)


def test_serve_says_in_one_line_that_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.diskguard.shutil.disk_usage", lambda _: SimpleNamespace(free=4_096))
    options = ["--config", str(CONFIG), "--data", str(tmp_path / "data"), "--grpc", "127.0.0.1:0", "--http", "off"]
    result = CliRunner().invoke(main, ["serve", *options])
    told = f"Error: data folder {tmp_path / 'data'}: 4096 bytes free, {DISK_FREE_BYTES_MIN} are needed\n"
    assert (result.exit_code, result.output) == (1, told)


def test_a_store_that_started_anew_is_told_again(store: EmbeddedStore) -> None:
    guard = DiskGuard(store.folder.store_dir, store._client, free_bytes_min=1 << 62)
    guard.check()
    store.kill()
    store.start()
    store.wait_ready()
    guard.forget()
    guard.check()
    with redis.Redis.from_url(store.url) as client, pytest.raises(redis.ResponseError, match="NOREPLICAS"):
        client.set("refused", "yes")


def test_a_store_that_is_away_is_told_when_it_is_back(store: EmbeddedStore) -> None:
    guard = DiskGuard(store.folder.store_dir, store._client, free_bytes_min=1 << 62)
    store.kill()
    guard.check()
    store.start()
    store.wait_ready()
    guard.check()
    with redis.Redis.from_url(store.url) as client, pytest.raises(redis.ResponseError, match="NOREPLICAS"):
        client.set("refused", "yes")
