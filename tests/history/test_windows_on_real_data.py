"""Every window and function on real event streams, for all customers, against polars and from scratch."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from engine.catalogue import Catalogue
from engine.history import asof, loading
from tests.history.past import (
    HEAD,
    catalogue_of,
    cdnow,
    expected,
    load,
    memory,
    readings_of,
    records,
    same,
    shared,
    starbucks,
)

DAY_MS = 86_400_000
WINDOWS = ("1d, tile: 1h", "7d, tile: 12h", "30d", "90d, tile: 1d", None)


def features(event: str, attribute: str, where: str = "") -> str:
    lines = []
    for at, window in enumerate(WINDOWS):
        rest = f"{f', window: {window}' if window else ''}{where}}}"
        lines.append(f"  - {{name: {event}_count_{at}, event: {event}, function: count{rest}")
        for function in ("min", "max", "first", "last", "distinct"):
            also = f"function: {function}, attribute: {attribute}"
            lines.append(f"  - {{name: {event}_{function}_{at}, event: {event}, {also}{rest}")
        for function in ("sum", "mean"):
            also = f"function: {function}, attribute: {attribute}, resolution: 0.01"
            lines.append(f"  - {{name: {event}_{function}_{at}, event: {event}, {also}{rest}")
    decayed = f"event: {event}, function: decayed, half_life: 14d"
    lines.append(f"  - {{name: {event}_warm, {decayed}{where}}}")
    lines.append(f"  - {{name: {event}_warm_sum, {decayed}, attribute: {attribute}{where}}}")
    ratio = f"function: ratio, numerator: {event}_sum_2, denominator: {event}_sum_4"
    lines.append(f"  - {{name: {event}_share_30d, {ratio}}}")
    lines.append(f"  - {{name: {event}_recency, event: {event}, function: recency}}")
    return "\n".join(lines) + "\n"


def check_state(catalogue: Catalogue, work: Path, source: dict, events: pl.DataFrame, nows_ms: list[int]) -> None:
    """Backfill into a store and read all customers at times after the last event."""
    store = memory()
    report = load(store, catalogue, work, source)
    assert report.events == events.height
    assert not report.tally.refused
    customers = events["customer"].unique().sort()
    found = records(store, customers.to_list())
    assert sum(catalogue.layout.header(record).events for record in found) == events.height
    for now_ms in nows_ms:
        values = catalogue.layout.read(found, np.full(len(customers), now_ms))
        labels = pl.DataFrame({"customer": customers, "now_ms": [now_ms] * len(customers)})
        wanted = expected(catalogue, events, labels)
        for at, spec in enumerate(catalogue.layout.specs):
            made = pl.Series(values[:, at]).fill_nan(None)
            assert same(made, wanted[spec.name], spec.function), f"{spec.name} at {now_ms}"


def check_as_of(
    catalogue: Catalogue, folder: Path, source: dict, events: pl.DataFrame, customers: pl.Series, nows_ms: list[int]
) -> None:
    """Write the features of customers at times within history."""
    labels = pl.DataFrame({"customer": customers}).join(pl.DataFrame({"now_ms": nows_ms}), how="cross")
    given = labels.with_columns(pl.from_epoch("now_ms", time_unit="ms").alias("time"))
    given.write_parquet(folder / "labels.parquet")
    made = folder / "made.parquet"
    read = asof.labels_of(folder / "labels.parquet", "customer", "time", None, None, "UTC", catalogue)
    asof.write(made, read, readings_of(catalogue, source), catalogue, None, None, folder, loading.Told())
    frame = pl.read_parquet(made)
    assert frame.select(given.columns).equals(given), "the labels come out as they went in"
    wanted = expected(catalogue, events, labels)
    assert any(series.sum() for series in wanted.values())
    functions = {spec.name: spec.function for spec in catalogue.layout.specs}
    for name in catalogue.layout.names:
        assert same(frame[name], wanted[name], functions[name]), name


# --- CDNOW: eighteen months of purchases of 23,570 people, by the day ------------------------------------------------

CDNOW = HEAD + "events:\n  - type: purchase\n    attributes: {amount: {type: number}}\nfeatures:\n"


def cdnow_events(path: Path) -> pl.DataFrame:
    frame = pl.read_csv(path, schema_overrides={"customer": pl.String, "date": pl.String}).with_row_index("row")
    time_ms = frame["date"].str.to_datetime("%Y%m%d").dt.epoch("ms")
    return frame.select("customer", "row", pl.col("amount").cast(pl.Float64), type=pl.lit("purchase"), time_ms=time_ms)


@pytest.fixture(scope="module")
def cdnow_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cdnow(tmp_path_factory.mktemp("cdnow"))


CDNOW_SOURCE = {"type": "purchase", "customer": "customer", "time": "date", "time_format": "%Y%m%d"}


def test_cdnow_all_customers_after_the_last_purchase(cdnow_file: Path, tmp_path: Path) -> None:
    catalogue, events = catalogue_of(CDNOW + features("purchase", "amount")), cdnow_events(cdnow_file)
    assert (events.height, events["customer"].n_unique()) == (69_659, 23_570)
    end_ms = int(events["time_ms"].max())  # type: ignore[arg-type]
    nows_ms = [end_ms + 1, end_ms + 5 * DAY_MS + 12_345, end_ms + 45 * DAY_MS]
    check_state(catalogue, tmp_path, CDNOW_SOURCE | {"files": [str(cdnow_file)]}, events, nows_ms)


def test_cdnow_as_of_five_times(cdnow_file: Path, tmp_path: Path) -> None:
    """Midnight too, where a purchase of that very day must not be known, and odd times between tiles."""
    catalogue, events = catalogue_of(CDNOW + features("purchase", "amount")), cdnow_events(cdnow_file)
    begin_ms = int(events["time_ms"].min())  # type: ignore[arg-type]
    nows_ms = [begin_ms + int(days * DAY_MS) for days in (10, 31.37, 90, 200.9, 500)]
    some = events["customer"].unique().sort().gather_every(4)
    check_as_of(catalogue, tmp_path, CDNOW_SOURCE | {"files": [str(cdnow_file)]}, events, some, nows_ms)


# --- Complete Journey: a year of baskets, to the second, with refunds and coupons ------------------------------------

JOURNEY = (
    HEAD
    + "events:\n  - type: item\n    attributes: {sales_value: {type: number}, retail_disc: {type: number}}\nfeatures:\n"
)
JOURNEY_SOURCE = {"type": "item", "customer": "household_id", "time": "transaction_timestamp"}


def journey() -> tuple[Path, pl.DataFrame]:
    path = shared("complete-journey/transactions_sample.csv.gz")
    frame = pl.read_csv(path, schema_overrides={"household_id": pl.String}, infer_schema_length=None).with_row_index(
        "row"
    )
    time_ms = frame["transaction_timestamp"].str.to_datetime("%Y-%m-%dT%H:%M:%S%#z").dt.epoch("ms")
    return path, frame.select(
        "row", "sales_value", "retail_disc", customer="household_id", type=pl.lit("item"), time_ms=time_ms
    )


def test_complete_journey_all_households_after_the_last_basket(tmp_path: Path) -> None:
    path, events = journey()
    catalogue = catalogue_of(JOURNEY + features("item", "sales_value"))
    assert (events.height, round(events["sales_value"].sum(), 2)) == (75_000, 233_935.24)
    end_ms = int(events["time_ms"].max())  # type: ignore[arg-type]
    nows_ms = [end_ms + 1, end_ms + 3 * DAY_MS + 7_777_777]
    check_state(catalogue, tmp_path, JOURNEY_SOURCE | {"files": [str(path)]}, events, nows_ms)


def test_complete_journey_as_of_four_times(tmp_path: Path) -> None:
    path, events = journey()
    catalogue = catalogue_of(JOURNEY + features("item", "sales_value"))
    begin_ms = int(events["time_ms"].min())  # type: ignore[arg-type]
    nows_ms = [begin_ms + int(days * DAY_MS) for days in (1.5, 33.3, 101, 299.99)]
    households = events["customer"].unique().sort().gather_every(2)
    check_as_of(catalogue, tmp_path, JOURNEY_SOURCE | {"files": [str(path)]}, events, households, nows_ms)


# --- Starbucks: offers and transactions, hour by hour, several types in one file of JSON lines -----------------------

STARBUCKS = (
    HEAD
    + """
events:
  - {type: offer_received}
  - {type: offer_viewed}
  - {type: offer_completed, attributes: {reward: {type: number}}}
  - {type: transaction, attributes: {amount: {type: number}}}
features:
  - {name: received_7d, event: offer_received, function: count, window: 7d}
  - {name: since_viewed, event: offer_viewed, function: recency}
"""
)
STARBUCKS_SOURCE = {
    "type_column": "event",
    "customer": "person",
    "time": "at",
    "time_unit": "s",
    "map": {"amount": "value.amount", "reward": "value.reward"},
}


def starbucks_events(path: Path) -> pl.DataFrame:
    raw = pl.read_ndjson(path, infer_schema_length=None).with_row_index("row")
    events = raw.select(
        "row",
        customer="person",
        type="event",
        time_ms=pl.col("at") * 1_000,
        amount=pl.col("value").struct.field("amount").cast(pl.Float64),
        reward=pl.col("value").struct.field("reward").cast(pl.Float64),
    )
    assert events.height == 155_360
    return events


def test_starbucks_all_people_after_the_last_event(tmp_path: Path) -> None:
    path = starbucks(tmp_path)
    events = starbucks_events(path)
    catalogue = catalogue_of(STARBUCKS + features("transaction", "amount"))
    end_ms = int(events["time_ms"].max())  # type: ignore[arg-type]
    check_state(catalogue, tmp_path, STARBUCKS_SOURCE | {"files": [str(path)]}, events, [end_ms + 1])


def test_starbucks_some_people_as_of_three_times(tmp_path: Path) -> None:
    path = starbucks(tmp_path)
    events = starbucks_events(path)
    catalogue = catalogue_of(STARBUCKS + features("transaction", "amount") + features("offer_completed", "reward"))
    begin_ms = int(events["time_ms"].min())  # type: ignore[arg-type]
    some = events["customer"].unique().sort().gather_every(20)
    nows_ms = [begin_ms + hours * 3_600_000 for hours in (24, 169, 500)]
    check_as_of(catalogue, tmp_path, STARBUCKS_SOURCE | {"files": [str(path)]}, events, some, nows_ms)
