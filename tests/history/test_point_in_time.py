"""Features as they would have been: nothing of the moment itself or after it, rows as they came."""

from pathlib import Path

import polars as pl
import pytest

from engine.errors import InvalidArgument
from engine.history import asof, loading
from tests.history.past import catalogue_of, readings_of

CATALOGUE = catalogue_of()
COLUMNS = {"type": "purchase", "customer": "who", "time": "at"}
HISTORY = """who,at,amount,shop,online
ann,2024-05-01T10:00:00Z,10,north,true
ann,2024-05-03T10:00:00Z,20,south,false
bob,2024-05-02T10:00:00Z,5,east,
ann,2024-04-01T10:00:00Z,1,,
broken,never,1,,
"""


def joined(folder: Path, labels: str, **columns: str) -> pl.DataFrame:
    (folder / "history.csv").write_text(HISTORY)
    (folder / "labels.csv").write_text(labels)
    read = asof.labels_of(
        folder / "labels.csv",
        columns.get("customer", "who"),
        columns.get("time", "when"),
        columns.get("unit"),
        columns.get("form"),
        "UTC",
        CATALOGUE,
    )
    readings = readings_of(CATALOGUE, COLUMNS | {"files": [str(folder / "history.csv")]})
    out = folder / "out.parquet"
    tally = asof.write(out, read, readings, CATALOGUE, None, None, folder / "work", loading.Told())
    assert tally.refused_in_all == 1
    assert sorted(path.name for path in folder.iterdir()) == ["history.csv", "labels.csv", "out.parquet", "work"]
    assert list((folder / "work").iterdir()) == []
    return pl.read_parquet(out)


def test_only_what_was_before_is_known(tmp_path: Path) -> None:
    labels = """when,who,bought
2024-05-03T10:00:00Z,ann,1
2024-05-03T10:00:00.001Z,ann,0
2024-05-01T10:00:00Z,ann,1
2024-03-01,ann,0
2024-05-03,nobody,0
2024-05-03,bob,1
2024-05-03T10:00:00Z,ann,2
"""
    frame = joined(tmp_path, labels)
    assert frame.columns == ["when", "who", "bought", *CATALOGUE.layout.names]
    assert frame["bought"].to_list() == [1, 0, 1, 0, 0, 1, 2], "in the order of the labels, and with what they hold"
    assert frame["spent"].to_list() == [11.0, 31.0, 1.0, 0.0, 0.0, 5.0, 11.0]
    assert frame["shop"].to_list() == ["north", "south", None, None, None, None, "north"]
    assert frame["basket"].to_list() == [5.5, 31 / 3, 1.0, None, None, 5.0, 5.5]
    assert frame["since"].to_list() == [172_800.0, 0.001, 2_592_000.0, None, None, 50_400.0, 172_800.0]


def test_no_labels_give_an_empty_file_with_all_columns(tmp_path: Path) -> None:
    frame = joined(tmp_path, "who,when\n")
    assert frame.height == 0
    assert frame.columns == ["who", "when", *CATALOGUE.layout.names]


def test_times_of_labels_in_units_and_formats(tmp_path: Path) -> None:
    assert joined(tmp_path, "who,when\nann,1714730400001\n", unit="ms")["spent"].to_list() == [31.0]
    assert joined(tmp_path, "who,when\nann,04.05.2024\n", form="%d.%m.%Y")["spent"].to_list() == [31.0]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("who,at\nann,2024-05-01\n", "--label-time: no column 'when'; there are who, at"),
        ("who,when\nann,never\n,2024-05-01\n", r"row 3: customer: nothing, expected 1 to 64 bytes"),
        ("who,when\nann,never\n", r"labels.csv row 2: time: 'never', expected a time like"),
        ("who,when,who\nann,2024-05-01,bob\n", "two columns are called 'who'"),
        ("who,when,spent\nann,2024-05-01,1\n", "column 'spent' is called like a feature"),
    ],
)
def test_wrong_labels_stop_it(tmp_path: Path, labels: str, expected: str) -> None:
    with pytest.raises(InvalidArgument, match=expected):
        joined(tmp_path, labels)
    assert not (tmp_path / "out.parquet").exists()
