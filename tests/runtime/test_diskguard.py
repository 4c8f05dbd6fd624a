"""A disk that gets full: writes are refused before the append-only file can fail, and taken again afterwards."""

import shutil
from pathlib import Path

import pytest
import redis

from engine.datafolder import DataFolder
from engine.diskguard import DiskGuard
from engine.embedded import EmbeddedStore
from engine.store.base import StoreFull
from engine.store.wire import error_of


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
