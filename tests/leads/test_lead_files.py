"""Files of sellers and customers: what is wrong with them is told with file and line, all of it at once."""

from pathlib import Path

import polars
import pytest

from engine.errors import ConfigError
from engine.leads.assign import Place
from engine.leads.people import read_people
from engine.leads.places import read_places

MAY_MS = 1_777_852_800_000
"""2026-05-04, UTC."""


def test_csv_and_yaml_say_the_same(tmp_path: Path) -> None:
    table, tree = tmp_path / "sellers.csv", tmp_path / "sellers.yaml"
    table.write_text("seller,capacity,from,until,branch\nann,20,2026-05-04,2026-05-05,12|14\nbob,0,,,\n")
    tree.write_text(
        "- {seller: ann, capacity: 20, from: 2026-05-04, until: 2026-05-05T00:00:00Z, branch: [12, 14]}\n"
        "- {seller: bob, capacity: 0}\n"
    )
    day_ms = 86_400_000
    ann = Place("ann", 20, MAY_MS, MAY_MS + day_ms, (("branch", frozenset({"12", "14"})),))
    assert read_places(table) == read_places(tree) == [ann, Place("bob", 0)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seller,branch\nann,1\n", "sellers.csv:1: no column 'capacity'"),
        ("seller,capacity\n", "sellers.csv:1: no sellers"),
        ("seller,capacity\nann,-1\n", "sellers.csv:2: capacity: '-1', expected a whole number of 0 to 1000000"),
        ("seller,capacity\nann,1.5\n,3\n", "sellers.csv:3: seller: ''"),
        ("seller,capacity\nann,1\nann,2\n", "sellers.csv:3: seller: 'ann' is there for the same in line 2"),
        ("seller,capacity,from\nann,1,soon\n", "sellers.csv:2: from: 'soon', expected a date"),
        ("seller,capacity,from,until\nann,1,2026-05-04,2026-05-04\n", "sellers.csv:2: until: .*after from"),
        ("seller,capacity\nann,1,2\n", "sellers.csv:2: more values than the 2 columns"),
        ("seller,capacity,until\nann,1,9999-12-31T23:59-14:00\n", "sellers.csv:2: until: .*before the year 10000"),
        (b"seller,capacity\n\xff,1\n", "not UTF-8"),
    ],
)
def test_wrong_sellers_are_told_by_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "sellers.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=message):
        read_places(path)


def test_files_as_spreadsheets_write_them(tmp_path: Path) -> None:
    sellers, customers = tmp_path / "sellers.csv", tmp_path / "customers.csv"
    sellers.write_bytes("\ufeffseller,capacity,\nann,3,\n".encode())
    customers.write_bytes("\ufeffcustomer,\nc1,\n".encode())
    assert read_places(sellers) == [Place("ann", 3)]
    assert list(read_people(customers)) == ["c1"]
    customers.write_text("customer,customer\nc1,c2\n")
    with pytest.raises(ConfigError, match=r"customers\.csv:1: two columns are called 'customer'"):
        read_people(customers)


def test_columns_that_are_no_texts_are_told(tmp_path: Path) -> None:
    path = tmp_path / "customers.parquet"
    polars.DataFrame({"customer": ["c1"], "odd": [b"\xff"]}).write_parquet(path)
    with pytest.raises(ConfigError, match=r"customers\.parquet: expected columns of texts"):
        read_people(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{a: 1}", "sellers.yaml:1: expected a list"),
        ("- a: [", "sellers.yaml:"),
        ("- ann", "sellers.yaml:1: expected a map"),
    ],
)
def test_wrong_yaml_is_told(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "sellers.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_places(path)


def test_customers_come_with_attributes_from_csv_and_parquet(tmp_path: Path) -> None:
    table, columns = tmp_path / "c.csv", tmp_path / "c.parquet"
    table.write_text("customer,branch\nann,12\nbob,\n")
    polars.DataFrame({"customer": ["ann", "bob"], "branch": [12, None]}).write_parquet(columns)
    assert read_people(table) == read_people(columns) == {"ann": {"branch": "12"}, "bob": {}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name\nann\n", "c.csv:1: no column 'customer'; there are name"),
        ("customer\n", "no customers"),
        ("customer,b\nann,1\n,2\nann,3\n", "(?s)c.csv:3: customer: ''.*c.csv:4: customer 'ann' is there twice"),
        (f"customer\n{'x' * 65}\n", "c.csv:2"),
    ],
)
def test_wrong_customers_are_told_by_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_people(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_people(tmp_path / "none.csv")
    (tmp_path / "c.parquet").write_text("nothing")
    with pytest.raises(ConfigError, match="no Parquet file"):
        read_people(tmp_path / "c.parquet")
