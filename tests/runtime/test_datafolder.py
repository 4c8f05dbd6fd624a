import json
import os
import stat
from pathlib import Path

import pytest

from engine.datafolder import SOCKET_PATH_BYTES_MAX, DataFolder, read_state
from engine.errors import DataFolderError


def test_a_new_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    with DataFolder(tmp_path / "a" / "data") as folder:
        assert [stat.S_IMODE(path.stat().st_mode) for path in (folder.path, folder.store_dir, folder.logs_dir)] == [
            0o700
        ] * 3


def test_a_second_holder_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    with DataFolder(tmp_path / "data") as folder, pytest.raises(DataFolderError) as refusal:
        DataFolder(folder.path)
    assert f"{folder.path} is in use by process {os.getpid()} since 20" in str(refusal.value)


def test_a_closed_folder_can_be_held_again(tmp_path: Path) -> None:
    for _ in range(2):
        with DataFolder(tmp_path / "data"):
            pass


def test_a_folder_of_something_else_is_left_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(DataFolderError, match=r"holds other things \(thesis.tex\)"):
        DataFolder(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_empty_volume_with_lost_and_found_is_taken(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    DataFolder(tmp_path).close()


@pytest.mark.parametrize("content", [b"", b"nonsense", b'{"format": "opportune-data", "version": 99, "partitions": 8}'])
def test_an_unknown_format_is_refused_and_the_lock_let_go(tmp_path: Path, content: bytes) -> None:
    DataFolder(tmp_path).close()
    good = (tmp_path / "format").read_bytes()
    (tmp_path / "format").write_bytes(content)
    with pytest.raises(DataFolderError, match="this engine reads"):
        DataFolder(tmp_path)
    (tmp_path / "format").write_bytes(good)
    DataFolder(tmp_path).close()


def test_a_file_in_place_of_the_folder_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(DataFolderError, match="cannot be used: File exists"):
        DataFolder(tmp_path / "data")


def test_a_folder_too_deep_for_a_socket_gets_one_elsewhere_for_its_life(tmp_path: Path) -> None:
    with DataFolder(tmp_path / ("deep" * 30)) as folder:
        assert len(os.fsencode(folder.socket)) <= SOCKET_PATH_BYTES_MAX
        assert stat.S_IMODE(folder.socket.parent.stat().st_mode) == 0o700
        assert folder.socket.parent != folder.path
    assert not folder.socket.parent.exists()


def test_the_socket_folder_of_a_killed_life_is_removed_and_no_other(tmp_path: Path) -> None:
    deep = tmp_path / ("deep" * 30)
    with DataFolder(deep) as first:
        first.write_state({"socket": str(first.socket)})
        # As after kill -9: the socket folder stays behind.
        left_behind = first.socket.parent
        first.socket = first.path / "redis.sock"
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o700)
    with DataFolder(deep) as second:
        second.forget_earlier()
        assert not left_behind.exists()
        second.earlier = {"socket": str(precious / "redis.sock")}
        second.forget_earlier()
        assert precious.exists()


def test_a_damaged_run_file_reads_as_empty(tmp_path: Path) -> None:
    for content in ("", "{", "[1]", json.dumps("x")):
        (tmp_path / "run.json").write_text(content)
        assert read_state(tmp_path) == {}
