"""Households and products of history: what live events would have made of them, whatever came first."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest

from engine import limits
from engine.catalogue import Catalogue
from engine.errors import NotAllowed
from engine.history.rolling import Roller, belonging_after
from engine.history.writing import Report
from engine.identity import entity_entry, link_entry
from engine.ingest import Ingest
from engine.ledger import hash_of
from engine.links import EntityLink, Links, moved_to
from engine.rollups import entity_name
from engine.store import Conflict, MemoryStore, Store
from engine.store.base import LINKS
from tests.history.past import HEAD, NOW_MS, PARTITIONS, catalogue_of, load, memory, same, shared
from tests.history.test_backfill import Crash, Crashing
from tests.small_engine import SmallEngine, features_of

BEGIN_MS = 1_750_000_000_000
DAY_MS = 86_400_000
TEXT = (
    HEAD.replace("offers:\n", "context: [{name: item, type: text}]\noffers:\n")
    + """
identities: [{kind: cookie}]
entities:
  - {kind: household, attribute: home}
  - {kind: product, attribute: item, many: true, fact: item}
  - {kind: account, attribute: account, many: true}
events:
  - {type: move, attributes: {home: {type: text}}}
  - {type: purchase, attributes: {amount: {type: number}, home: {type: text}, account: {type: text}}}
  - {type: view, attributes: {item: {type: text}}}
features:
  - {name: spent, event: purchase, function: sum, attribute: amount}
  - {name: house_spent, entity: household, event: purchase, function: sum, attribute: amount}
  - {name: house_buys_7d, entity: household, event: purchase, function: count, window: 7d}
  - {name: house_last, entity: household, event: purchase, function: last, attribute: amount}
  - {name: house_views, entity: household, event: view, function: count}
  - {name: views_30d, entity: product, event: view, function: count, window: 30d, tile: 1d}
"""
)
CATALOGUE = catalogue_of(TEXT)
HOUSEHOLDS, PRODUCTS = CATALOGUE.rollups
CUSTOMERS = [f"c{number}" for number in range(6)]
HOMES = [f"h{number}" for number in range(3)]
ITEMS = [f"p{number}" for number in range(5)]
SOURCE = {"type_column": "what", "customer": "who", "time": "at", "time_unit": "ms", "id": "id", "id_source": "live"}

Row = dict[str, Any]


def rows_of(seed: int, count: int = 300, span_ms: int = 40 * DAY_MS) -> list[Row]:
    """Events in order of time; with a short span many of one moment."""
    dice, rows = Random(seed), []
    for number, at in enumerate(sorted(BEGIN_MS + dice.randrange(span_ms) for _ in range(count))):
        what = dice.choice(["move", "purchase", "purchase", "view"])
        said: dict[str, Row] = {
            "purchase": {"amount": float(dice.randrange(500))},
            "view": {"item": dice.choice(ITEMS)},
            "move": {},
        }
        told = said[what]
        if what == "move" or (what == "purchase" and dice.random() < 0.2):
            told["home"] = dice.choice(HOMES)
        if what == "purchase" and dice.random() < 0.3:
            told["account"] = dice.choice("xyz")
        rows.append({"who": dice.choice(CUSTOMERS), "at": at, "id": str(number), "what": what, **told})
    return rows


def file_of(path: Path, rows: Sequence[Row]) -> dict[str, Any]:
    columns = {"home": None, "account": None, "item": None, "amount": None}  # a column is one if any row has it
    path.write_text("".join(json.dumps(columns | row) + "\n" for row in rows))
    return SOURCE | {"files": [str(path)]}


async def live(store: Store, catalogue: Catalogue, rows: Sequence[Row], *entries: tuple[str, bytes]) -> None:
    ingest = Ingest(
        catalogue.layout,
        store,
        catalogue.keeper,
        batch_max=20,
        entities=catalogue.entity_attributes,
        rollups=catalogue.rollups,
    )
    if entries:
        await store.append_events(list(entries))
    for row in rows:
        told = {name: row[name] for name in ("home", "account", "item", "amount") if name in row}
        data = orjson.dumps([row["who"], hash_of(f"live\0{row['id']}"), row["what"], row["at"], told])
        await store.append_events([(row["who"], data)])
    while await ingest.round(0):
        pass


async def _load(store: Store, work: Path, source: dict[str, Any]) -> Report:
    return await asyncio.to_thread(load, store, CATALOGUE, work, source)


async def state_of(store: Store) -> dict[str, Any]:
    """What can be read of every entity at several times, and what the customers belong to."""
    state: dict[str, Any] = {}
    for rollup, ids in ((HOUSEHOLDS, HOMES), (PRODUCTS, ITEMS)):
        names = [entity_name(rollup.kind, each) for each in ids]
        found = await store.read_features(names)
        for after_ms in (0, 3 * DAY_MS, 20 * DAY_MS):
            now_ms = np.full(len(names), BEGIN_MS + 40 * DAY_MS + after_ms)
            state[f"{rollup.kind} {after_ms}"] = rollup.layout.read(found, now_ms).tolist()
        state[f"{rollup.kind} events"] = [r and rollup.layout.header(r).events for r in found]
    links = [Links.unpack(each) for each in await store.read_beside(LINKS, CUSTOMERS)]
    state["links"] = [sorted(each.entities) for each in links]
    return state


@pytest.mark.parametrize(("seed", "span_ms"), [(0, 40 * DAY_MS), (1, 40 * DAY_MS), (2, 40), (3, 40), (4, 9 * DAY_MS)])
async def test_history_and_then_live_is_as_live_all_along(tmp_path: Path, seed: int, span_ms: int) -> None:
    rows = rows_of(seed, span_ms=span_ms)
    cut = Random(seed).randrange(len(rows))
    all_live, loaded = memory(), memory()
    await live(all_live, CATALOGUE, rows)
    report = await _load(loaded, tmp_path, file_of(tmp_path / "past.jsonl", rows[:cut]))
    assert report.entities > 0
    await live(loaded, CATALOGUE, rows[cut:])
    assert await state_of(loaded) == await state_of(all_live)


@pytest.mark.parametrize("seed", range(3))
async def test_live_events_that_know_their_household_may_come_first(tmp_path: Path, seed: int) -> None:
    rows = rows_of(seed)
    cut = len(rows) // 2
    for at, name in enumerate(CUSTOMERS):  # who has moved before his first live event needs no history for it
        rows.insert(cut + at, {"who": name, "at": rows[cut]["at"], "id": f"m{name}", "what": "move", "home": "h1"})
    all_live, loaded = memory(), memory()
    await live(all_live, CATALOGUE, rows)
    await live(loaded, CATALOGUE, rows[cut:])
    await _load(loaded, tmp_path, file_of(tmp_path / "past.jsonl", rows[:cut]))
    assert await state_of(loaded) == await state_of(all_live)


async def test_an_event_of_two_rows_with_one_id_counts_once_for_the_household(tmp_path: Path) -> None:
    rows: list[Row] = [
        {"who": "c0", "at": BEGIN_MS, "id": "1", "what": "move", "home": "h0"},
        {"who": "c0", "at": BEGIN_MS + 1, "id": "2", "what": "purchase", "amount": 5.0},
        {"who": "c0", "at": BEGIN_MS + 1, "id": "2", "what": "purchase", "amount": 5.0},
        {"who": "c1", "at": BEGIN_MS + 2, "id": "2", "what": "purchase", "amount": 7.0, "home": "h0"},
        {"who": "c2", "at": BEGIN_MS + 3, "id": "3", "what": "purchase", "amount": 9.0, "home": ""},
    ]
    store = memory()
    report = await _load(store, tmp_path, file_of(tmp_path / "past.jsonl", rows))
    assert (report.customers, report.members, report.entities, report.duplicates) == (3, 2, 1, 1)
    [record] = await store.read_features([entity_name("household", "h0")])
    assert HOUSEHOLDS.layout.values(record, NOW_MS)["house_spent"] == 12.0


@pytest.mark.parametrize("after", [False, True], ids=["before a write", "after a write"])
def test_a_crash_at_any_write_leaves_the_same_bytes(tmp_path: Path, after: bool, monkeypatch: Any) -> None:
    monkeypatch.setattr(limits, "BACKFILL_CUSTOMERS_BATCH_MAX", 2)
    source, undisturbed = file_of(tmp_path / "past.jsonl", rows_of(7)), memory()
    load(undisturbed, CATALOGUE, tmp_path, source)
    names = [*(entity_name("household", each) for each in HOMES), *(entity_name("product", each) for each in ITEMS)]

    def bytes_of(store: Store) -> list[Any]:
        return [
            asyncio.run(store.read_features(names)),
            asyncio.run(store.read_features(CUSTOMERS)),
            asyncio.run(store.read_beside(LINKS, CUSTOMERS)),
            [asyncio.run(store.marks(partition)) for partition in range(PARTITIONS)],
        ]

    crashes = 0
    for at in range(1, 100):
        store = Crashing(PARTITIONS, lambda: NOW_MS)
        store.arm(at, after)
        try:
            load(store, CATALOGUE, tmp_path, source)
            break
        except Crash:
            crashes += 1
        load(store, CATALOGUE, tmp_path, source)
        assert bytes_of(store) == bytes_of(undisturbed), f"crash at write {at}"
    assert crashes > 8


class Interfering(MemoryStore):
    """Something is told to the engine at the moment at which the chunk of c0 is to be written."""

    def __init__(self, catalogue: Catalogue, *entries: tuple[str, bytes]) -> None:
        super().__init__(PARTITIONS, lambda: NOW_MS)
        self.catalogue = catalogue
        self.entries = entries

    async def write_marked(self, partition: int, writes: Any, mark: Any) -> list[bool] | Conflict:
        if self.entries and any(write.customer == "c0" for write in writes):
            entries, self.entries = self.entries, ()
            await live(self, self.catalogue, [], *entries)
        return await super().write_marked(partition, writes, mark)


@pytest.mark.parametrize("home", ["h0", ""])
async def test_who_joins_a_household_meanwhile_stays_in_it_and_keeps_the_history(tmp_path: Path, home: str) -> None:
    store = Interfering(CATALOGUE, entity_entry("c0", CATALOGUE.entity_kinds["household"], "h2", NOW_MS - 5))
    rows: list[Row] = [
        {"who": "c0", "at": BEGIN_MS, "id": "1", "what": "move", "home": home},
        {"who": "c0", "at": BEGIN_MS + 1, "id": "2", "what": "purchase", "amount": 5.0},
    ]
    await _load(store, tmp_path, file_of(tmp_path / "past.jsonl", rows))
    assert not store.entries
    await live(store, CATALOGUE, [{"who": "c0", "at": NOW_MS - 1, "id": "3", "what": "purchase", "amount": 1.0}])
    [links] = await store.read_beside(LINKS, ["c0"])
    assert [link[:2] for link in Links.unpack(links).entities] == [("household", "h2")]
    found = await store.read_features(["c0", *(entity_name("household", each) for each in ("h0", "h2"))])
    assert CATALOGUE.layout.values(found[0], NOW_MS)["spent"] == 6.0
    spent = [HOUSEHOLDS.layout.values(each, NOW_MS)["house_spent"] for each in found[1:]]
    assert spent == [5.0 if home else 0.0, 1.0]


async def test_whom_a_name_is_linked_to_meanwhile_keeps_the_history(tmp_path: Path) -> None:
    store = Interfering(CATALOGUE, link_entry("cookie=c7", "c0", NOW_MS - 9, source="api"))
    rows: list[Row] = [{"who": "c0", "at": BEGIN_MS, "id": "1", "what": "purchase", "amount": 5.0}]
    await _load(store, tmp_path, file_of(tmp_path / "past.jsonl", rows))
    assert not store.entries
    await live(store, CATALOGUE, [{"who": "cookie=c7", "at": NOW_MS - 5, "id": "9", "what": "purchase", "amount": 1.0}])
    [record] = await store.read_features(["c0"])
    assert CATALOGUE.layout.values(record, NOW_MS)["spent"] == 6.0


async def test_what_found_no_room_counts_once_however_often_it_is_tried(tmp_path: Path) -> None:
    accounts = [
        {"who": "c0", "at": BEGIN_MS + n, "id": str(n), "what": "purchase", "amount": 1.0, "account": f"a{n}"}
        for n in range(1, limits.ENTITY_ENTRIES_MAX + 4)
    ]
    rows: list[Row] = [
        {"who": "c0", "at": BEGIN_MS, "id": "0", "what": "move", "home": "h0"},
        *accounts,
        {"who": "c0", "at": BEGIN_MS + 98, "id": "98", "what": "purchase", "amount": 1.0, "account": "a1"},
        {"who": "c0", "at": BEGIN_MS + 99, "id": "99", "what": "move", "home": "h1"},
    ]
    all_live = memory()
    await live(all_live, CATALOGUE, rows)
    store = Interfering(CATALOGUE, link_entry("cookie=c7", "c0", NOW_MS - 9, source="api"))
    report = await _load(store, tmp_path, file_of(tmp_path / "past.jsonl", rows))
    assert report.no_room == 3
    [links] = await store.read_beside(LINKS, ["c0"])
    [wanted] = await all_live.read_beside(LINKS, ["c0"])
    assert sorted(Links.unpack(links).entities) == sorted(Links.unpack(wanted).entities)
    ids = [link.id for link in Links.unpack(links).entities]
    assert ids == [*(f"a{n}" for n in range(5, limits.ENTITY_ENTRIES_MAX + 4)), "a1", "h1"]


async def test_damaged_links_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = memory()
    await live(store, CATALOGUE, [{"who": "c0", "at": NOW_MS - 9, "id": "1", "what": "move", "home": "h1"}])
    await live(store, CATALOGUE, [], link_entry("cookie=c7", "c1", NOW_MS - 8, source="api"))
    for name in ("c0", "cookie=c7"):
        values = store._beside[LINKS]._values
        values[name] = (values[name][0], b"damaged")
    rows: list[Row] = [
        {"who": who, "at": BEGIN_MS, "id": who, "what": "move", "home": "h0"} for who in ("c0", "cookie=c7")
    ]
    await _load(store, tmp_path, file_of(tmp_path / "past.jsonl", rows))
    assert {message.split(": ")[0] for message in caplog.messages} == {
        "the links of customer 'c0' are damaged and begin anew",
        "the links of 'cookie=c7'",
    }


def test_entities_may_not_change_in_the_middle(tmp_path: Path) -> None:
    text = TEXT.split("features:\n")[0] + "features: []\n"
    catalogue = catalogue_of(text)
    other = catalogue_of(text.replace("household, attribute: home", "household"))
    source, store = file_of(tmp_path / "past.jsonl", rows_of(3, 50)), Crashing(PARTITIONS, lambda: NOW_MS)
    store.arm(4, after=False)
    with pytest.raises(Crash):
        load(store, catalogue, tmp_path, source)
    with pytest.raises(NotAllowed, match="events or features have changed"):
        load(store, other, tmp_path, source)
    load(store, catalogue, tmp_path, source)


async def test_history_of_a_linked_name_says_what_that_name_belongs_to(tmp_path: Path) -> None:
    store = memory()
    seen = [{"who": "cookie=c7", "at": NOW_MS - 9, "id": "1", "what": "purchase", "amount": 1.0}]
    await live(store, CATALOGUE, seen)
    await live(store, CATALOGUE, [], link_entry("cookie=c7", "c0", NOW_MS - 8, source="api"))
    rows: list[Row] = [
        {"who": "cookie=c7", "at": BEGIN_MS, "id": "2", "what": "move", "home": "h0"},
        {"who": "cookie=c7", "at": BEGIN_MS + 1, "id": "3", "what": "purchase", "amount": 5.0},
    ]
    await _load(store, tmp_path, file_of(tmp_path / "past.jsonl", rows))
    await live(store, CATALOGUE, [])
    [record, household] = await store.read_features(["c0", entity_name("household", "h0")])
    assert moved_to((await store.read_features(["cookie=c7"]))[0]) == "c0"
    assert CATALOGUE.layout.values(record, NOW_MS)["spent"] == 6.0
    assert HOUSEHOLDS.layout.values(household, NOW_MS)["house_spent"] == 5.0
    [links] = await store.read_beside(LINKS, ["c0"])
    assert Links.unpack(links).entities == [EntityLink("household", "h0", BEGIN_MS, "cookie=c7")]


async def test_what_the_history_of_one_member_says_is_shown_of_the_other(tmp_path: Path) -> None:
    engine = SmallEngine(TEXT.encode())
    rows: list[Row] = [
        {"who": "c0", "at": BEGIN_MS - DAY_MS, "id": "1", "what": "move", "home": "h0"},
        {"who": "c1", "at": BEGIN_MS - DAY_MS, "id": "2", "what": "purchase", "amount": 5.0, "home": "h0"},
    ]
    await _load(engine.store, tmp_path, file_of(tmp_path / "past.jsonl", rows))
    assert features_of(await engine.customer("c0"))["house_spent"] == 5.0


def test_what_finds_no_room_is_counted() -> None:
    kind = CATALOGUE.entity_kinds["account"]
    named = [(kind, f"a{number}", BEGIN_MS + number) for number in range(limits.ENTITY_ENTRIES_MAX + 3)]
    held, left_out = belonging_after([EntityLink("household", "h0", 1, "")], named)
    assert left_out == 3
    assert [link.id for link in held] == ["h0", *(f"a{number}" for number in range(3, 35))]
    newer = [EntityLink("account", f"b{number}", BEGIN_MS + 99, "") for number in range(limits.ENTITY_ENTRIES_MAX)]
    assert belonging_after(newer, named) == (newer, len(named))


def test_a_kind_that_no_event_names_has_no_copies() -> None:
    catalogue = catalogue_of(TEXT.replace("{kind: household, attribute: home}", "{kind: household}"))
    schema = {"customer": pl.String, "type": pl.UInt16, "time_ms": pl.Int64, "id": pl.UInt64, "t:item": pl.String}
    rows = pl.DataFrame({"customer": ["c0"], "type": [1], "time_ms": [5], "id": [9], "t:item": [None]}, schema=schema)
    assert Roller(catalogue).copies(rows).height == 0


def test_products_of_a_year_of_real_baskets(tmp_path: Path) -> None:
    """Units and baskets of each product, by all households, against polars."""
    text = HEAD.replace("offers:\n", "context: [{name: item, type: text}]\noffers:\n") + (
        "entities: [{kind: product, attribute: product_id, many: true, fact: item}]\n"
        "events:\n  - type: item\n    attributes: {product_id: {type: text}, quantity: {type: number}}\n"
        "features:\n"
        "  - {name: units, entity: product, event: item, function: sum, attribute: quantity}\n"
        "  - {name: sold_30d, entity: product, event: item, function: count, window: 30d, tile: 1d}\n"
    )
    path = shared("complete-journey/transactions_sample.csv.gz")
    source = {"type": "item", "customer": "household_id", "time": "transaction_timestamp", "files": [str(path)]}
    store, catalogue = memory(), catalogue_of(text)
    report = load(store, catalogue, tmp_path, source)
    frame = pl.read_csv(path, schema_overrides={"product_id": pl.String}, infer_schema_length=None)
    at = frame["transaction_timestamp"].str.to_datetime("%Y-%m-%dT%H:%M:%S%#z").dt.epoch("ms")
    now_ms = int(at.max())  # type: ignore[arg-type]
    recent = (at // DAY_MS).is_between(now_ms // DAY_MS - 29, now_ms // DAY_MS)
    wanted = frame.select("product_id", "quantity", recent=recent).group_by("product_id", maintain_order=True)
    products = wanted.agg(units=pl.col("quantity").sum().cast(pl.Float64), sold=pl.col("recent").sum().cast(pl.Float64))
    assert report.entities == products.height > 10_000
    [rollup] = catalogue.rollups
    names = [entity_name("product", each) for each in products["product_id"]]
    made = rollup.layout.read(asyncio.run(store.read_features(names)), np.full(len(names), now_ms))
    assert same(pl.Series(made[:, 0]), products["units"])
    assert same(pl.Series(made[:, 1]), products["sold"])
