"""Files of every kind, and everything that can be wrong with them."""

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.errors import ConfigError, InvalidArgument
from engine.history import loading
from engine.history.mapping import Source, files_of, load_mapping
from tests.history.past import NOW_MS, SHOP, catalogue_of, load, memory, readings_of, records, span

CATALOGUE = catalogue_of()
COLUMNS = {"type": "purchase", "customer": "who", "time": "at"}
DAY = "2024-05-01"
DAY_MS = 1_714_521_600_000


def values(store: Any, customer: str) -> dict[str, Any]:
    [record] = records(store, [customer])
    return CATALOGUE.layout.values(record, DAY_MS + 86_400_000)


def told(folder: Path, name: str, content: str | bytes, **columns: Any) -> loading.Tally:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    readings = readings_of(CATALOGUE, COLUMNS | {"files": [str(path)]} | columns)
    return loading.check(readings, CATALOGUE, span(CATALOGUE), loading.Told())


# --- kinds of files -------------------------------------------------------------------------------------------------


def written(folder: Path, kind: str) -> dict[str, Any]:
    """The same three events in a file of some kind."""
    frame = pl.DataFrame(
        {
            "who": ["ann", "ann", "żółw"],
            "at": [DAY, "2024-05-01T10:00:00Z", "2024-05-01T12:00:00.250+02:00"],
            "amount": [1.5, 2.25, 1000.0],
            "shop": ["north", None, "south"],
            "online": [True, False, None],
        }
    )
    path = folder / f"purchases.{kind}"
    match kind:
        case "csv":
            frame.write_csv(path)
        case "tsv":
            frame.write_csv(path, separator="\t")
        case "csv.gz":
            path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + frame.write_csv().replace("\n", "\r\n").encode()))
        case "jsonl.gz":
            path.write_bytes(gzip.compress(frame.write_ndjson().encode()))
        case "jsonl":
            path.write_text(frame.write_ndjson().replace("\n", "\n\n").rstrip())
        case "parquet":
            frame.write_parquet(path, row_group_size=2)
        case "typed.parquet":
            times = [DAY_MS, DAY_MS + 36_000_000, DAY_MS + 36_000_250]
            typed = frame.with_columns(
                pl.Series("at", times).cast(pl.Datetime("ms")).dt.cast_time_unit("ns").dt.replace_time_zone("UTC"),
                pl.col("who").cast(pl.Categorical),
                pl.col("online").cast(pl.Int8),
            )
            typed.write_parquet(path)
        case "cloudevents.jsonl":
            lines = [
                {"specversion": "1.0", "id": f"e{n}", "source": "till", "type": "purchase", "subject": row["who"],
                 "time": f"{DAY}T00:00:00Z" if row["at"] == DAY else row["at"],
                 "data": {name: row[name] for name in ("amount", "shop", "online")}}
                for n, row in enumerate(frame.rows(named=True))
            ]  # fmt: skip
            path.write_text("\n".join(map(json.dumps, lines)))
            return {"files": [str(path)], "format": "cloudevents"}
    return COLUMNS | {"files": [str(path)]}


@pytest.mark.parametrize(
    "kind", ["csv", "tsv", "csv.gz", "jsonl", "jsonl.gz", "parquet", "typed.parquet", "cloudevents.jsonl"]
)
def test_every_kind_of_file_gives_the_same_state(tmp_path: Path, kind: str) -> None:
    store = memory()
    report = load(store, CATALOGUE, tmp_path / "work", written(tmp_path, kind))
    assert not report.tally.kept
    assert report.events == 3
    ann, turtle = values(store, "ann"), values(store, "żółw")
    assert (ann["spent"], ann["shop"], ann["online_30d"], ann["since"]) == (3.75, "north", 1.0, 50_400.0)
    assert (turtle["spent"], turtle["shop"], turtle["online_30d"], turtle["since"]) == (1000.0, "south", 0.0, 50_399.75)


@pytest.mark.parametrize(
    ("text", "options", "ms"),
    [
        ("2024-05-01", {}, DAY_MS),
        ("2024-05-01 10:00", {}, DAY_MS + 36_000_000),
        ("2024-05-01t10:00:00z", {}, DAY_MS + 36_000_000),
        ("2024-10-27 02:30:00", {"time_zone": "Europe/Prague"}, 1_729_989_000_000),  # the first of two
        ("2024-05-01T10:00:00", {"time_zone": "Europe/Prague"}, DAY_MS + 28_800_000),
        ("2024-05-01T10:00:00.5-01:00", {"time_zone": "Europe/Prague"}, DAY_MS + 39_600_500),
        ("01.05.2024", {"time_format": "%d.%m.%Y"}, DAY_MS),
        ("1714521600", {"time_unit": "s"}, DAY_MS),
        ("1714521600.5", {"time_unit": "s"}, DAY_MS + 500),
        ("1714521600000", {"time_unit": "ms"}, DAY_MS),
        ("1714521600000999", {"time_unit": "us"}, DAY_MS),
        ("1714521600000999999", {"time_unit": "ns"}, DAY_MS),
    ],
)
def test_times_as_people_write_them(tmp_path: Path, text: str, options: dict[str, str], ms: int) -> None:
    path = tmp_path / "one.csv"
    path.write_text(f"who,at,amount\nann,{text},1\n")
    store = memory()
    report = load(store, CATALOGUE, tmp_path / "work", COLUMNS | {"files": [str(path)]} | options)
    assert report.events == 1, report.tally.kept
    [record] = records(store, ["ann"])
    assert CATALOGUE.layout.header(record).latest_event_ms == ms


def test_a_time_that_the_clocks_skip_is_told_as_such(tmp_path: Path) -> None:
    zone = {"time_zone": "Europe/Prague"}
    skips = "time: expected a time that there is in Europe/Prague: its clocks skip that one"
    rows = "".join(f"ann,2024-03-31{time},1\n" for time in (" 02:30:00", "T02:30:00Z", " 03:00:00", " 26:00:00", ""))
    other = "time: expected a time like 2026-05-04T09:30:00Z or 2026-05-04"
    assert told(tmp_path, "a.csv", f"who,at,amount\n{rows}", **zone).refused == {skips: 1, other: 1}
    form = {"time_format": "%d.%m.%Y %H:%M"}
    tally = told(tmp_path, "b.csv", "who,at,amount\nann,31.03.2024 02:30,1\nann,31.03.2024,1\n", **zone, **form)
    assert tally.refused == {skips: 1, "time: expected a time like %d.%m.%Y %H:%M": 1}
    path = tmp_path / "c.parquet"
    times = pl.Series(["2024-03-31 02:30:00", "2024-03-31 03:30:00", None]).str.to_datetime()
    pl.DataFrame({"who": "ann", "at": times, "amount": 1}).write_parquet(path)
    readings = readings_of(CATALOGUE, COLUMNS | {"files": [str(path)]} | zone)
    assert loading.check(readings, CATALOGUE, span(CATALOGUE), loading.Told()).refused == {
        skips: 1,
        "time: expected a time": 1,
    }


@pytest.mark.parametrize(
    ("text", "unit"),
    [("18446745850709552", "s"), ("-18446745850709552", "s"), ("9223372036854775807", "ms"), ("1e300", "us")],
)
def test_a_time_beyond_all_times_does_not_come_round(tmp_path: Path, text: str, unit: str) -> None:
    path = tmp_path / "one.csv"
    path.write_text(f"who,at,amount\nann,{text},1\n")
    report = load(memory(), CATALOGUE, tmp_path / "work", COLUMNS | {"files": [str(path)], "time_unit": unit})
    assert report.events == 0
    [told] = report.tally.refused
    assert told.startswith("time: expected a time")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"who,at\rann,1\r", "row 1: it ends with CR alone, expected lines that end with LF or CRLF"),
        (b'who,"at' + b"x" * 200_000, "row 1: field larger than field limit.*, expected the names of the columns"),
        ("who,at,amount\nann,1,1\n".encode("utf-16"), "row 1: byte 0 is not UTF-8"),
    ],
)
def test_a_header_that_is_none_is_told(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "odd.csv"
    path.write_bytes(content)
    with pytest.raises(InvalidArgument, match=told):
        readings_of(CATALOGUE, COLUMNS | {"files": [str(path)]})


def test_a_type_column_and_columns_of_several_types(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text(
        f"who,at,kind,amount,about\nann,{DAY},purchase,5,\nann,{DAY},complaint,,card\nann,{DAY},visit,,\n"
        f"bob,{DAY},purchase,,card\n"
    )
    store = memory()
    columns = {"customer": "who", "time": "at", "type_column": "kind", "files": [str(path)]}
    report = load(store, CATALOGUE, tmp_path / "work", columns)
    assert report.events == 2
    assert (values(store, "ann")["spent"], values(store, "ann")["complaints"]) == (5.0, 1.0)
    assert report.tally.refused == {
        "type: expected an event type that is declared: purchase, complaint": 1,
        "attributes[amount]: expected a value, it is required": 1,
    }


def test_from_and_until_leave_out(tmp_path: Path) -> None:
    path = tmp_path / "days.csv"
    path.write_text("who,at,amount\n" + "".join(f"ann,2024-05-{day:02d},1\n" for day in range(1, 11)))
    readings = readings_of(CATALOGUE, COLUMNS | {"files": [str(path)]})
    some = span(CATALOGUE, loading.instant_ms("2024-05-03", "--from"), loading.instant_ms("2024-05-06", "--until"))
    tally = loading.check(readings, CATALOGUE, some, loading.Told())
    assert (tally.read, tally.skipped, tally.refused) == (10, 7, {})


# --- rows with something wrong --------------------------------------------------------------------------------------

LONG = "x" * 65
BAD_ROWS = {
    f",{DAY},1,north,1": "customer: expected 1 to 64 bytes",
    f"{LONG},{DAY},1,north,1": "customer: expected 1 to 64 bytes",
    f"a\tb,{DAY},1,north,1": "customer: expected printable text",
    "ann,,1,north,1": "time: expected a time like 2026-05-04T09:30:00Z or 2026-05-04",
    "ann,yesterday,1,north,1": "time: expected a time like 2026-05-04T09:30:00Z or 2026-05-04",
    "ann,2024-02-30,1,north,1": "time: expected a time like 2026-05-04T09:30:00Z or 2026-05-04",
    "ann,1969-12-31,1,north,1": "time: expected a time after 1970 and before the year 10000",
    "ann,2124-05-01,1,north,1": "time: expected a time that has come",
    f"ann,{DAY},,north,1": "attributes[amount]: expected a value, it is required",
    f"ann,{DAY},dear,north,1": "attributes[amount]: expected a finite number",
    f"ann,{DAY},nan,north,1": "attributes[amount]: expected a finite number",
    f'ann,{DAY},"1,5",north,1': "attributes[amount]: expected a finite number",
    f"ann,{DAY},-1,north,1": "attributes[amount]: expected 0.0 to 1000.0",
    f"ann,{DAY},1,{'y' * 257},1": "attributes[shop]: expected at most 256 bytes",
    f"ann,{DAY},1,north,maybe": "attributes[online]: expected true or false",
    f"ann,{DAY}": "expected 5 columns, got 2",
    f"ann,{DAY},1,north,1,1": "expected 5 columns, got 6",
}


def test_every_bad_row_is_told_and_all_others_are_loaded(tmp_path: Path) -> None:
    good = f"ann,{DAY},1,north,1"
    lines = [line for bad in BAD_ROWS for line in (good, bad)] + [good]
    path = tmp_path / "bad.csv"
    path.write_text("who,at,amount,shop,online\n" + "\n".join(lines))
    store = memory()
    report = load(store, CATALOGUE, tmp_path / "work", COLUMNS | {"files": [str(path)]})
    assert report.events == len(BAD_ROWS) + 1
    assert values(store, "ann")["spent"] == len(BAD_ROWS) + 1
    wanted: dict[str, int] = {}
    for reason in BAD_ROWS.values():
        wanted[reason] = wanted.get(reason, 0) + 1
    assert report.tally.refused == wanted
    assert report.tally.read == len(lines)
    told = {line for _, _, line in report.tally.kept}
    for number, bad in enumerate(BAD_ROWS):
        row = 3 + 2 * number
        assert any(line.startswith(f"{path} row {row}: ") for line in told), f"row {row}: {bad[:60]}"
    assert any("row 11: time: 'yesterday', expected a time like" in line for line in told)
    letters = {reason for _, reason in store.dead}
    assert len(letters) == len(BAD_ROWS)
    assert all(reason.startswith("backfill: ") for reason in letters)


def test_bytes_that_are_no_text_spoil_their_row_only(tmp_path: Path) -> None:
    content = f"who,at,amount,shop\nann,{DAY},1,".encode() + b"\xff\xfe\n" + f"ann,{DAY},1,north\n".encode()
    content += b"\xc3," + f"{DAY},1,north\n".encode()
    tally = told(tmp_path, "bytes.csv", content)
    assert (tally.read, tally.refused) == (3, {"attributes[shop]: expected UTF-8": 1, "customer: expected UTF-8": 1})


def test_bad_lines_of_json(tmp_path: Path) -> None:
    lines = [
        json.dumps({"who": "ann", "at": DAY, "amount": 1}),
        '{"who": "ann", "at',
        "[1, 2]",
        json.dumps({"who": "ann", "at": DAY}),
        json.dumps({"who": None, "at": DAY, "amount": 1}),
        json.dumps({"who": "ann", "at": DAY, "amount": {"is": 1}}),
        json.dumps({"who": "ann", "at": DAY, "amount": "NaN"}),
        "",
        json.dumps({"who": 17, "at": DAY, "amount": "1"}),
    ]
    tally = told(tmp_path, "bad.jsonl", "\n".join(lines))
    assert tally.read == 8
    assert tally.refused == {
        "not JSON": 1,
        "expected an object": 1,
        "attributes[amount]: expected a value, it is required": 1,
        "customer: expected 1 to 64 bytes": 1,
        "attributes[amount]: expected a finite number": 2,
    }


def test_names_in_json_are_texts_or_whole_numbers(tmp_path: Path) -> None:
    good = {"who": "ann", "at": DAY, "amount": 1}
    odd = [{"id": "u0", "home": {"zip": 1}}, ["a"], True, 1.5]
    lines = [good | {name: value} for name in ("who", "id", "shop") for value in [*odd, 17, "17"]]
    tally = told(tmp_path, "odd.jsonl", "\n".join(map(json.dumps, [*lines, good | {"id": 1}])), id="id")
    assert tally.refused == {
        "id: expected 1 to 64 bytes": 4,  # of those that have none
        **{f"{name}: expected a text or a whole number": 4 for name in ("customer", "id", "attributes[shop]")},
    }
    [first, second, *_] = [line for why, _, line in tally.kept if why.startswith("customer")]
    assert first.startswith(f"{tmp_path / 'odd.jsonl'} row 1: customer: '{{\"id\":\"u0\",")
    assert first.endswith("expected a text or a whole number; there are columns who.id, who.home, who.home.zip")
    assert second.endswith("""row 2: customer: '["a"]', expected a text or a whole number""")
    rows = [good | {"who": {"id": 7}}, good | {"who": {"id": {}}}]
    tally = told(tmp_path, "within.jsonl", "\n".join(map(json.dumps, rows)), customer="who.id")
    assert tally.refused == {"customer: expected a text or a whole number": 1}


NAMES = {"email_hash=" + "a" * 64: True, "k=" + "v" * 191: True, "k=" + "v" * 192: False, "ż" * 30 + "=v": True,
         "v" * 65 + "=v": False, "=" + "v" * 64: False}  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_customer_may_have_the_name_of_a_trace(tmp_path: Path, kind: str) -> None:
    frame = pl.DataFrame({"who": list(NAMES), "at": DAY, "amount": 1.0})
    path = tmp_path / f"names.{kind}"
    {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}[kind](path)
    store = memory()
    report = load(store, CATALOGUE, tmp_path / "work", COLUMNS | {"files": [str(path)]})
    assert report.tally.refused == {"customer: expected 1 to 64 bytes": 2, "customer: expected 1 to 193 bytes": 1}
    assert [record is not None for record in records(store, list(NAMES))] == list(NAMES.values())


def test_whole_numbers_of_parquet_are_texts_too(tmp_path: Path) -> None:
    text = SHOP.replace("{type: text, values: [north, south]}", '{type: text, values: ["1", "2"]}')
    path = tmp_path / "numbers.parquet"
    pl.DataFrame({"who": [1], "at": [DAY], "amount": [5], "shop": [2]}).write_parquet(path)
    store, catalogue = memory(), catalogue_of(text)
    load(store, catalogue, tmp_path / "work", COLUMNS | {"files": [str(path)]})
    assert catalogue.layout.values(records(store, ["1"])[0], DAY_MS)["shop"] == "2"


def test_bad_cloud_events(tmp_path: Path) -> None:
    event = {
        "specversion": "1.0",
        "id": "1",
        "source": "till",
        "type": "purchase",
        "subject": "ann",
        "data": {"amount": 1},
    }
    dated = event | {"time": f"{DAY}T00:00:00Z"}
    lines = [dated, event, dated | {"type": "visit"}, dated | {"data": {}}, dated | {"subject": ""}]
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    readings = readings_of(CATALOGUE, {"files": [str(path)], "format": "cloudevents"})
    tally = loading.check(readings, CATALOGUE, span(CATALOGUE), loading.Told())
    assert tally.read == 5
    assert tally.refused == {
        "time: not as expected": 1,
        "type: not as expected": 1,
        "attributes[amount]: not as expected": 1,
        "subject: not as expected": 1,
    }
    later = span(CATALOGUE, from_ms=DAY_MS + 1)
    tally = loading.check(readings, CATALOGUE, later, loading.Told())
    assert (tally.refused, tally.skipped) == ({"time: not as expected": 1}, 4), "what is wrong there is not asked"


def test_parquet_with_what_is_no_number(tmp_path: Path) -> None:
    path = tmp_path / "odd.parquet"
    pl.DataFrame(
        {"who": [1, 2, None, 4], "at": [DAY_MS] * 4, "amount": [1.0, float("nan"), 1.0, float("inf")]}
    ).write_parquet(path)
    readings = readings_of(CATALOGUE, COLUMNS | {"files": [str(path)], "time_unit": "ms"})
    tally = loading.check(readings, CATALOGUE, span(CATALOGUE), loading.Told())
    assert tally.refused == {
        "attributes[amount]: expected a finite number": 2,
        "customer: expected 1 to 64 bytes": 1,
    }


def test_of_very_many_bad_rows_a_few_are_kept(tmp_path: Path) -> None:
    tally = told(tmp_path, "many.csv", "who,at,amount\n" + "ann,never,1\n" * 100_000)
    assert tally.refused_in_all == 100_000
    assert len(tally.kept) == 50


def test_a_line_too_deep_to_be_written_is_refused_alone(tmp_path: Path) -> None:
    deep = '{"x":' * 300 + "1" + "}" * 300
    lines = [f'{{"who": "ann", "at": "{DAY}", "amount": {amount}}}' for amount in ("1", deep, "2")]
    assert told(tmp_path, "deep.jsonl", "\n".join(lines)).refused == {"attributes[amount]: expected a finite number": 1}


@pytest.mark.parametrize("name", ["empty.jsonl", "empty.jsonl.gz", "blank.jsonl"])
def test_json_lines_without_a_line_are_no_rows(tmp_path: Path, name: str) -> None:
    text = b"\n\n" if name == "blank.jsonl" else b""
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    store = memory()
    sources = [written(tmp_path, "csv"), COLUMNS | {"files": [str(tmp_path / name)]}]
    report = load(store, CATALOGUE, tmp_path / "work", *sources)
    assert (report.events, report.tally.refused) == (3, {})


def test_what_a_mapping_names_must_be_declared_even_without_a_line(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_bytes(b"")
    with pytest.raises(InvalidArgument, match="no event type 'sale' is declared"):
        readings_of(CATALOGUE, COLUMNS | {"files": [str(tmp_path / "empty.jsonl")], "type": "sale"})


@pytest.mark.parametrize("kind", ["jsonl", "cloudevents.jsonl"])
def test_a_byte_order_mark_before_json_lines_is_passed_over(tmp_path: Path, kind: str) -> None:
    source = written(tmp_path, kind)
    path = tmp_path / f"purchases.{kind}"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    report = load(memory(), CATALOGUE, tmp_path / "work", source)
    assert (report.events, report.tally.refused) == (3, {})


# --- files that cannot be read --------------------------------------------------------------------------------------

PURCHASE = f"ann,{DAY},1\n"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("empty.csv", b"", "expected a first row with the names of the columns"),
        ("twice.csv", b"who,at,amount,who\n", "two columns are called 'who'"),
        ("quote.csv", f'who,at,amount\n{PURCHASE * 3}"ann,{DAY},1\n{PURCHASE}'.encode(), "is never closed"),
        ("cut.csv.gz", gzip.compress(f"who,at,amount\n{PURCHASE * 9_999}".encode())[:-30], "cannot be read"),
        ("no.csv.gz", b"who,at,amount\n", "cannot be read"),
        ("no.parquet", b"PAR1 and so on", "cannot be read"),
        (
            "purchases.xlsx",
            b"PK",
            "its name does not say what it is: give the format, csv, parquet, jsonl, cloudevents",
        ),
    ],
)
def test_a_file_that_cannot_be_read_stops_everything_before_anything_is_written(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    (tmp_path / "good.csv").write_text(f"who,at,amount\n{PURCHASE}")
    (tmp_path / name).write_bytes(content)
    store = memory()
    sources = [COLUMNS | {"files": [str(tmp_path / file)]} for file in ("good.csv", name)]
    with pytest.raises(InvalidArgument, match=expected):
        load(store, CATALOGUE, tmp_path / "work", *sources)
    assert records(store, ["ann"]) == [None]
    assert [asyncio.run(store.marks(partition)) for partition in range(store.partitions)] == [{}] * store.partitions


# --- mappings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"type": "purchse"}, "type: no event type 'purchse' is declared; there are purchase, complaint"),
        ({"customer": "client"}, "column of customer: no column 'client'; there are who, at, amount"),
        ({"map": {"amount": "sum"}}, "column of amount: no column 'sum'; there are who, at, amount"),
        ({"map": {"price": "amount"}}, "map: event type 'purchase' has no attribute 'price'; there are amount, online"),
        ({"files": ["nowhere.csv"]}, "nowhere.csv: there is no such file"),
    ],
)
def test_a_wrong_mapping_is_told_before_a_row_is_read(tmp_path: Path, columns: dict[str, Any], expected: str) -> None:
    path = tmp_path / "purchases.csv"
    path.write_text(f"who,at,amount\n{PURCHASE}")
    with pytest.raises(InvalidArgument) as caught:
        readings_of(CATALOGUE, COLUMNS | {"files": [str(path)]} | columns)
    assert expected in str(caught.value)


def test_a_csv_with_another_delimiter_is_told_which(tmp_path: Path) -> None:
    path = tmp_path / "purchases.csv"
    path.write_text(f"who;at;amount\nann;{DAY};1\n")
    with pytest.raises(InvalidArgument) as caught:
        readings_of(CATALOGUE, COLUMNS | {"files": [str(path)]})
    last = str(caught.value).splitlines()[2]
    assert last == f"{path}: its first row is one column with ';' in it: give delimiter, or --delimiter, ';'"
    assert readings_of(CATALOGUE, COLUMNS | {"files": [str(path)], "delimiter": ";"})


def test_empty_lines_of_a_csv_are_passed_over(tmp_path: Path) -> None:
    tally = told(tmp_path, "empty.csv", f"who,at,amount\n\nann,{DAY},1\n\r\n\nann,{DAY},bad\n\n")
    assert (tally.read, tally.refused_in_all) == (2, 1)
    assert "row 3: attributes[amount]: 'bad'" in tally.kept[0][2], "they have no number"


def test_a_required_attribute_needs_a_column(tmp_path: Path) -> None:
    path = tmp_path / "purchases.csv"
    path.write_text(f"who,at,total\n{PURCHASE}")
    with pytest.raises(InvalidArgument, match="event type 'purchase' requires attribute 'amount': expected a column"):
        readings_of(CATALOGUE, COLUMNS | {"files": [str(path)]})


def test_columns_of_types_that_cannot_fit_are_all_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "odd.parquet"
    pl.DataFrame(
        {"who": [1.5], "at": [DAY_MS], "amount": [True], "shop": [1.5], "online": ["yes"]},
    ).write_parquet(path)
    with pytest.raises(InvalidArgument) as caught:
        readings_of(CATALOGUE, COLUMNS | {"files": [str(path)]})
    assert str(caught.value).splitlines() == [
        f"{path}: attribute 'amount': column 'amount' holds Boolean, expected a number",
        f"{path}: attribute 'shop': column 'shop' holds Float64, expected a text or a whole number",
        f"{path}: customer: column 'who' holds Float64, expected texts or whole numbers",
        f"{path}: time: column 'at' holds Int64: give time_unit, one of s, ms, us, ns",
    ]


def test_a_mapping_file_names_files_beside_it_and_its_problems_by_line(tmp_path: Path) -> None:
    (tmp_path / "a1.csv").write_text(f"who,at,amount\n{PURCHASE}")
    (tmp_path / "a2.csv").write_text(f"who,at,amount\nbob,{DAY},1\n")
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("sources:\n  - {files: [a*.csv], type: purchase, customer: who, time: at}\n")
    assert [file.path.name for file in files_of(load_mapping(mapping))] == ["a1.csv", "a2.csv"]
    mapping.write_text("sources:\n  - files: [a*.csv]\n    type: purchase\n    custmer: who\n    time_unit: h\n")
    with pytest.raises(ConfigError) as caught:
        load_mapping(mapping)
    assert f"{mapping}:4: sources[0].custmer: not a setting that exists here" in str(caught.value)
    assert f"{mapping}:5: sources[0].time_unit: " in str(caught.value)
    mapping.write_text("sources:\n  - {files: [a*.csv], type: purchase, customer: who, time: at, time_zone: Mars}\n")
    with pytest.raises(ConfigError, match="'Mars' is no time zone"):
        load_mapping(mapping)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"customer": "who", "time": "at"}, "expected type, an event type, or type_column"),
        ({"type": "purchase", "time": "at"}, "customer: expected the name of a column"),
        (COLUMNS | {"time_unit": "s", "time_format": "%Y"}, "not both"),
        (COLUMNS | {"time_format": "nonsense"}, "time_format: 'nonsense' makes no time, expected one like %d.%m.%Y"),
        (COLUMNS | {"time_format": "%Q"}, "time_format: '%Q' makes no time"),
        (COLUMNS | {"time_format": "%d.%m.%Y %H"}, "makes no time"),
        (COLUMNS | {"format": "cloudevents"}, "type, customer, time: a CloudEvent says that itself"),
    ],
)
def test_a_source_that_makes_no_sense_is_refused(columns: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        Source.model_validate(columns | {"files": ["a.csv"]})


def test_the_clock_of_these_tests_is_behind_the_years_they_use() -> None:
    assert DAY_MS < NOW_MS


def test_rows_are_numbered_over_blocks_and_behind_bad_ones(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("engine.limits.HISTORY_BLOCK_BYTES", 4_096)
    lines = ["who,at,amount"]
    for row in range(2, 3_000):
        lines.append(f"ann,{DAY},{row}" if row % 7 else f"ann,{DAY}" if row % 2 else f"ann,{DAY},bad{row}")
    tally = told(tmp_path, "long.csv", "\n".join(lines))
    above = sum(row % 7 > 0 for row in range(1_001, 3_000))  # out of the range of the attribute
    assert (tally.read, tally.refused_in_all) == (2_998, 428 + above)
    numbers = [int(line.split(" row ")[1].split(":")[0]) for _, _, line in tally.kept if "bad" in line]
    assert numbers == [int(line.split("bad")[1].split("'")[0]) for _, _, line in tally.kept if "bad" in line]
    short = [int(line.split(" row ")[1].split(":")[0]) for why, _, line in tally.kept if "got 2" in why]
    assert short == list(range(7, 3_000, 14))[: len(short)]
    assert len(short) == 50
