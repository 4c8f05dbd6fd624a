"""History for tests: a small catalogue, files of real data, and the shortest way through a backfill."""

import asyncio
import gzip
import json
import lzma
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.catalogue import Catalogue
from engine.config import parse, version_of
from engine.history import backfill, loading
from engine.history.mapping import Source, files_of
from engine.history.writing import Report
from engine.store import MemoryStore, Store
from features import FeatureSpec

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
NOW_MS = 1_900_000_000_000
PARTITIONS = 4

HEAD = """
opportune: 1
name: past
channels: [{id: web}]
offers:
  - {id: card, value: 40, treatments: [{text: a card}]}
"""

SHOP = (
    HEAD
    + """
events:
  - type: purchase
    timeline: true
    attributes:
      amount: {type: number, required: true, range: [0, 1000]}
      shop: {type: text, values: [north, south]}
      online: {type: flag}
  - type: complaint
    attributes: {about: {type: text, values: [card, loan]}}
features:
  - {name: spent, event: purchase, function: sum, attribute: amount, resolution: 0.01}
  - {name: spent_7d, event: purchase, function: sum, attribute: amount, window: 7d, tile: 1d, resolution: 0.01}
  - {name: purchases_30d, event: purchase, function: count, window: 30d}
  - {name: online_30d, event: purchase, function: count, window: 30d, where: {online: true}}
  - {name: basket, event: purchase, function: mean, attribute: amount, resolution: 0.01}
  - {name: shop, event: purchase, function: last, attribute: shop}
  - {name: since, event: purchase, function: recency}
  - {name: complaints, event: complaint, function: count}
"""
)


def catalogue_of(text: str = SHOP) -> Catalogue:
    return Catalogue.compile(parse(text.encode()), version_of(text.encode()), text.encode())


def readings_of(catalogue: Catalogue, *sources: dict[str, Any]) -> list[loading.Reading]:
    return loading.readings_of(files_of([Source.model_validate(source) for source in sources]), catalogue)


def span(catalogue: Catalogue, from_ms: int | None = None, until_ms: int | None = None) -> backfill.Span:
    return backfill.span_of(catalogue, from_ms, until_ms, NOW_MS)


def load(
    store: Store,
    catalogue: Catalogue,
    work: Path,
    *sources: dict[str, Any],
    from_ms: int | None = None,
    until_ms: int | None = None,
) -> Report:
    readings, times = readings_of(catalogue, *sources), span(catalogue, from_ms, until_ms)
    return asyncio.run(backfill.backfill(store, catalogue, readings, times, work, loading.Told()))


def memory() -> MemoryStore:
    return MemoryStore(PARTITIONS, lambda: NOW_MS)


def records(store: Store, customers: Sequence[str]) -> list[bytes | None]:
    return asyncio.run(store.read_features(list(customers)))


def timelines(store: Store, customers: Sequence[str]) -> list[bytes | None]:
    return asyncio.run(store.read_timelines(list(customers)))


# --- real data ------------------------------------------------------------------------------------------------------


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"the data set {name} is not in ../shared/data beside this repository")
    return path


def cdnow(folder: Path) -> Path:
    """Columns customer, date, cds, amount."""
    path = folder / "cdnow.csv.gz"
    with gzip.open(shared("cdnow/CDNOW_master.txt.gz"), "rt") as given, gzip.open(path, "wt") as made:
        made.write("customer,date,cds,amount\n")
        made.writelines(",".join(line.split()) + "\n" for line in list(given)[1:])
    return path


def starbucks(folder: Path) -> Path:
    """The transcript, with hours since the start as seconds since 2024."""
    path = folder / "transcript.jsonl"
    with lzma.open(shared("starbucks-offers/transcript.json.xz"), "rt") as given, path.open("w") as made:
        for line in given:
            event = json.loads(line)
            event["at"] = 1_704_067_200 + event["time"] * 3_600
            event["event"] = event["event"].replace(" ", "_")
            made.write(json.dumps(event) + "\n")
    return path


# --- what every feature should be, by polars and from scratch ---------------------------------------------------------


def expected(
    catalogue: Catalogue, events: pl.DataFrame, labels: pl.DataFrame, *, before: bool = True
) -> dict[str, pl.Series]:
    """Features of all labels (customer, now_ms), in their order, from events (customer, type, time_ms, row, …).

    A window of n tiles covers the tiles t with now_tile - n < t <= now_tile. Only what happened before `now_ms` counts.
    """
    labels = labels.with_row_index("label")
    pairs = labels.join(events, on="customer", how="inner").sort("label", "time_ms", "row")
    if before:
        pairs = pairs.filter(pl.col("time_ms") < pl.col("now_ms"))
    found = {}
    for spec in catalogue.layout.specs:
        if spec.function == "ratio":
            above, below = found[spec.numerator or ""], found[spec.denominator or ""]
            found[spec.name] = pl.select(pl.when(below != 0).then(above / below)).to_series()
            continue
        taken = pairs.filter(pl.col("type") == spec.event)
        for name, value in spec.where:
            taken = taken.filter(pl.col(name) == value)
        if spec.attribute:
            taken = taken.filter(pl.col(spec.attribute).is_not_null())
        if spec.tiles:
            width, tiles = spec.tile_width_ms, spec.tiles
            tile, now = pl.col("time_ms") // width, pl.col("now_ms") // width
            taken = taken.filter((tile > now - tiles) & (tile <= now))
        how = _aggregate(spec)
        values = labels.join(taken.group_by("label").agg(how.alias("value")), on="label", how="left").sort("label")
        series = values["value"]
        found[spec.name] = series if math.isnan(spec.missing) else series.fill_null(0.0)
    return found


def _aggregate(spec: FeatureSpec) -> pl.Expr:
    """What a feature makes of the events that it takes."""
    number = pl.col(spec.attribute) if spec.attribute else pl.lit(1.0)
    per_unit = round(1 / spec.resolution)
    if spec.function == "count":
        return pl.len().cast(pl.Float64)
    if spec.function in ("sum", "mean"):
        total = (number * per_unit).round().sum() / per_unit
        return total if spec.function == "sum" else total / pl.len()
    if spec.function in ("last", "first"):
        # Of one time the larger value is the last, the smaller the first; texts are in the order of their categories.
        order = number.replace_strict(list(spec.categories), range(len(spec.categories))) if spec.categories else number
        ordered = number.sort_by("time_ms", order)
        return ordered.last() if spec.function == "last" else ordered.first()
    if spec.function == "recency":
        return (pl.col("now_ms").last() - pl.col("time_ms").max()) / 1_000
    if spec.function == "decayed":
        age = (pl.col("now_ms") - pl.col("time_ms")) / (spec.half_life_ms or 1)
        return (number * 2.0 ** -age).sum()
    simple = {"min": number.min(), "max": number.max(), "distinct": number.n_unique().cast(pl.Float64)}
    return simple[spec.function]


def same(made: pl.Series, wanted: pl.Series, function: str = "") -> bool:
    """Equal, null where null, to a relative 1e-12; a sketch of distinct values to three and five in a hundred."""
    if function == "distinct":
        return bool(((made - wanted).abs() <= 3 + 0.05 * wanted).all())
    if function == "decayed":  # every event is rounded to the resolution when it is added
        return bool(((made - wanted).abs() <= 1e-3 + 1e-9 * wanted.abs()).all())
    if made.dtype == pl.String or wanted.dtype == pl.String:
        return bool((made.eq_missing(wanted)).all())
    close = (made - wanted).abs() <= 1e-12 * wanted.abs() + 1e-12
    return bool((close.fill_null(value=False) | (made.is_null() & wanted.is_null())).all())
