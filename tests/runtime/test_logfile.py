from pathlib import Path

from engine.logfile import LogFile, tail


def test_only_new_and_serious_lines_are_told_once(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("ERROR of an earlier life\n")
    log = LogFile(path)
    with path.open("a") as file:
        file.write("INFO fine\nWARNING one\nERROR ha")
    assert log.warnings() == ["WARNING one"]
    with path.open("a") as file:
        file.write("lf\n")
    assert [log.warnings(), log.warnings()] == [["ERROR half"], []]


def test_a_large_file_is_rolled_over_under_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    with path.open("a") as file:
        log = LogFile(path, bytes_max=100)
        for number in range(20):
            file.write(f"WARNING {number:03} of a chatty child\n")
            file.flush()
            assert log.warnings() == [f"WARNING {number:03} of a chatty child"]
            assert path.stat().st_size <= 100
    assert path.with_suffix(".log.1").stat().st_size <= 140


def test_a_file_that_is_gone_or_replaced_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("x" * 100)
    log = LogFile(path)
    path.unlink()
    assert log.warnings() == []
    path.write_text("ERROR new\n")
    assert log.warnings() == ["ERROR new"]


def test_the_tail_is_the_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    assert tail(path) == "    (nothing was logged)"
    path.write_text("\n".join(map(str, range(100))))
    assert tail(path, 2) == "    98\n    99"
