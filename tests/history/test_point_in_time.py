"""Features as they would have been: nothing of the moment itself or after it, rows as they came."""

import codecs
import gzip
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import polars as pl
import pytest

from engine.errors import InvalidArgument
from engine.history import asof, folding, loading
from engine.links import Links
from engine.rollups import belongs_to, entity_name
from engine.store.base import LINKS
from tests.history.past import NOW_MS, catalogue_of, memory, readings_of
from tests.history.test_backfill_rollups import CATALOGUE as ROLLED
from tests.history.test_backfill_rollups import CUSTOMERS, DAY_MS, ITEMS, file_of, live, rows_of

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
    with pytest.raises(InvalidArgument, match="labels: time_format: 'day' makes no time"):
        joined(tmp_path, "who,when\nann,04.05.2024\n", form="day")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv.gz", "who,when\nann,2024-05-04\n"),
        ("labels.tsv", "who\twhen\nann\t2024-05-04\n"),
        ("labels.jsonl", '{"who": "ann", "when": "2024-05-04"}\n'),
        ("labels.ndjson.gz", '{"who": "ann", "when": "2024-05-04"}\n'),
        ("labels", "who,when\nann,2024-05-04\n"),
    ],
)
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_labels_as_files_of_events_may_be(tmp_path: Path, name: str, text: str, mark: bytes) -> None:
    data = mark + text.encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    read = asof.labels_of(path, "who", "when", None, None, "UTC", CATALOGUE)
    assert read.frame.rows() == [("ann", "2024-05-04")]
    assert read.keys["time_ms"].to_list() == [1_714_780_800_000]


def test_labels_that_are_cut_short_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"who": "ann", "when": "2024-05-04"}\n' * 9)[:-12])
    with pytest.raises(InvalidArgument, match=r"labels\.jsonl\.gz: cannot be read: "):
        asof.labels_of(path, "who", "when", None, None, "UTC", CATALOGUE)


def test_labels_of_customers_that_have_the_name_of_a_trace(tmp_path: Path) -> None:
    name = "email_hash=" + "a" * 64
    history = f"who,at,amount\n{name},2024-05-01,3\n"
    (tmp_path / "history.csv").write_text(history)
    (tmp_path / "labels.csv").write_text(f"who,when\n{name},2024-05-02\n")
    read = asof.labels_of(tmp_path / "labels.csv", "who", "when", None, None, "UTC", CATALOGUE)
    readings = readings_of(CATALOGUE, COLUMNS | {"files": [str(tmp_path / "history.csv")]})
    asof.write(tmp_path / "out.parquet", read, readings, CATALOGUE, None, None, tmp_path / "work", loading.Told())
    assert pl.read_parquet(tmp_path / "out.parquet")["spent"].to_list() == [3.0]


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


# --- households and products ----------------------------------------------------------------------------------------


def rolled(folder: Path, labels: pl.DataFrame, rows: Sequence[Any]) -> pl.DataFrame:
    labels.write_csv(folder / "labels.csv")
    read = asof.labels_of(folder / "labels.csv", "who", "when", "ms", None, "UTC", ROLLED)
    readings = readings_of(ROLLED, file_of(folder / "past.jsonl", rows))
    asof.write(folder / "out.parquet", read, readings, ROLLED, None, None, folder, loading.Told())
    return pl.read_parquet(folder / "out.parquet")


@pytest.mark.parametrize(("seed", "span_ms"), [(0, 40 * DAY_MS), (1, 40), (2, 9 * DAY_MS)])
async def test_what_they_belong_to_is_as_an_engine_would_have_read_it(tmp_path: Path, seed: int, span_ms: int) -> None:
    rows, dice = rows_of(seed, 120, span_ms), Random(seed)
    people = [dice.choice([*CUSTOMERS, "nobody"]) for _ in range(25)]
    moments = [(who, dice.choice(rows)["at"] + dice.choice([0, 0, 1])) for who in people]
    items = [dice.choice([*ITEMS, "p77", ""]) for _ in moments]
    labels = pl.DataFrame({"who": [who for who, _ in moments], "when": [at for _, at in moments], "item": items})
    frame = rolled(tmp_path, labels, rows)
    assert frame.columns == ["who", "when", "item", *(n for layout in ROLLED.layouts.values() for n in layout.names)]
    households, products = ROLLED.rollups
    belonged = False
    for (who, at), item, row in zip(moments, items, frame.iter_rows(named=True), strict=True):
        store = memory()
        await live(store, ROLLED, [one for one in rows if one["at"] < at])
        [links] = await store.read_beside(LINKS, [who])
        home = belongs_to(Links.unpack(links).entities, "household")
        belonged |= bool(home)
        wanted: dict[str, float] = {}
        for rollup, entity in ((households, home), (products, item)):
            [record] = await store.read_features([entity_name(rollup.kind, entity)])
            wanted |= dict(zip(rollup.layout.names, rollup.layout.read([record], np.array([at]))[0], strict=True))
        for name, value in wanted.items():
            assert row[name] == pytest.approx(value, nan_ok=True) or (row[name] is None and np.isnan(value)), name
    assert belonged
    assert frame["house_spent"].sum() > 0
    assert frame["views_30d"].sum() > 0


def test_of_a_product_that_no_label_names_nothing_is_known(tmp_path: Path) -> None:
    rows = rows_of(3, 60)
    labels = pl.DataFrame({"who": ["c0", "c1"], "when": [NOW_MS, rows[0]["at"]]})
    frame = rolled(tmp_path, labels, rows)
    assert frame["views_30d"].to_list() == [0.0, 0.0]
    assert frame["house_buys_7d"].to_list() == [0.0, 0.0]
    assert frame["house_spent"][1] == 0.0


def test_ids_of_products_stay_texts(tmp_path: Path) -> None:
    at = 1_750_000_000_000
    rows = [{"who": "c0", "at": at, "id": "1", "what": "view", "item": "007"}]
    labels = pl.DataFrame({"who": ["c9", "c9"], "when": [at + 1] * 2, "item": ["007", "7"]})
    assert rolled(tmp_path, labels, rows)["views_30d"].to_list() == [1.0, 0.0]


def test_of_two_rows_with_one_id_the_first_says_what_is_belonged_to(tmp_path: Path) -> None:
    at = 1_750_000_000_000
    rows = [
        {"who": "c0", "at": at, "id": "1", "what": "move", "home": "h0"},
        {"who": "c0", "at": at + 1, "id": "1", "what": "move", "home": "h1"},
        {"who": "c1", "at": at + 2, "id": "2", "what": "purchase", "amount": 5.0, "home": "h0"},
    ]
    labels = pl.DataFrame({"": [0], "who": ["c0"], "when": [at + 9]})  # the first column is as pandas writes an index
    assert rolled(tmp_path, labels, rows)["house_spent"].to_list() == [5.0]


@pytest.mark.parametrize(("given", "told"), [([7.0], "Float64"), ([["p1"]], "List"), ([b"p1"], "Binary")])
def test_a_fact_that_names_nothing_is_refused(tmp_path: Path, given: list[Any], told: str) -> None:
    pl.DataFrame({"who": ["c0"], "when": [NOW_MS], "item": given}).write_parquet(tmp_path / "labels.parquet")
    with pytest.raises(InvalidArgument, match=f"column 'item' holds {told}.*, expected texts or whole numbers"):
        asof.labels_of(tmp_path / "labels.parquet", "who", "when", "ms", None, "UTC", ROLLED)


@pytest.mark.parametrize(
    ("columns", "unit", "told"),
    [
        ({"who": [1.5], "when": [NOW_MS]}, "ms", "customer: column 'who' holds Float64, expected texts"),
        ({"who": ["c0"], "when": [True]}, None, "time: column 'when' holds Boolean, expected a time"),
        ({"who": ["c0"], "when": [{"x": 1}]}, None, "time: column 'when' holds Struct.*, expected a time"),
        ({"who": ["c0"], "when": [NOW_MS]}, None, "give --label-time-unit, one of s, ms, us, ns"),
        ({"who": ["c0"], "when": [NOW_MS], "__row": [1]}, "ms", "column '__row' is needed"),
    ],
)
def test_labels_of_other_types_are_refused(
    tmp_path: Path, columns: dict[str, Any], unit: str | None, told: str
) -> None:
    pl.DataFrame(columns).write_parquet(tmp_path / "labels.parquet")
    with pytest.raises(InvalidArgument, match=told):
        asof.labels_of(tmp_path / "labels.parquet", "who", "when", unit, None, "UTC", ROLLED)


def test_events_of_one_name_beyond_what_is_held_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, dice = rows_of(6, 400), Random(6)
    people = [dice.choice(CUSTOMERS) for _ in range(40)]
    labels = pl.DataFrame({
        "who": people, "when": [dice.choice(rows)["at"] for _ in people], "item": [dice.choice(ITEMS) for _ in people],
    })  # fmt: skip
    whole = rolled(tmp_path, labels, rows)
    for module in (asof, folding):
        monkeypatch.setattr(module, "EVENTS_AT_ONCE", 7)
    assert rolled(tmp_path, labels, rows).equals(whole)


def test_a_column_called_like_a_feature_of_a_household_is_refused(tmp_path: Path) -> None:
    labels = pl.DataFrame({"who": ["c0"], "when": [NOW_MS], "house_spent": [1.0]})
    with pytest.raises(InvalidArgument, match="column 'house_spent' is called like a feature"):
        rolled(tmp_path, labels, rows_of(1, 5))
