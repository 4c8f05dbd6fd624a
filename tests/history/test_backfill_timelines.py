"""Timelines of history: those that live events would have made, whatever came first."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest

from engine import limits
from engine.catalogue import Catalogue
from engine.history.writing import Report
from engine.ingest import Ingest
from engine.ledger import hash_of
from engine.links import moved_to
from engine.store import MemoryStore
from engine.timeline import unpack
from tests.history.past import SHOP, catalogue_of, load, memory, timelines
from tests.identity_shop import COOKIE, buys, link
from tests.identity_shop import SHOP as IDENTITIES
from tests.small_engine import SmallEngine

BEGIN_MS = 1_750_000_000_000
TEXT = SHOP.replace("  - type: complaint\n", "  - type: complaint\n    timeline: {kind: complaint, same: [about]}\n")
SOURCE = {"type_column": "what", "customer": "who", "time": "at", "time_unit": "ms"}
CUSTOMERS = [f"c{number}" for number in range(4)]

Row = dict[str, Any]


def rows_of(seed: int, count: int = 900) -> list[Row]:
    """Events in order of time, many of one moment: more of a customer than a timeline keeps."""
    dice = Random(seed)
    times = sorted(BEGIN_MS + dice.randrange(300) for _ in range(count))
    return [
        {"who": dice.choice(CUSTOMERS), "at": at, "id": str(n)}
        | (
            {"what": "complaint", "about": dice.choice(["card", "loan"])}
            if dice.random() < 0.3
            else {"what": "purchase", "amount": dice.randrange(900)}
        )
        for n, at in enumerate(times)
    ]


def file_of(path: Path, rows: Sequence[Row], **named: str) -> dict[str, Any]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return SOURCE | named | {"files": [str(path)]}


async def live(store: MemoryStore, catalogue: Catalogue, rows: Sequence[Row]) -> None:
    ingest = Ingest(catalogue.layout, store, catalogue.keeper, batch_max=50)
    for row in rows:
        told = {name: row[name] for name in ("amount", "about") if name in row}
        told = {name: float(value) if name == "amount" else value for name, value in told.items()}
        data = orjson.dumps([row["who"], hash_of(f"live\0{row['id']}"), row["what"], row["at"], told])
        await store.append_events([(row["who"], data)])
    while await ingest.round(0):
        pass


async def _load(store: MemoryStore, catalogue: Catalogue, work: Path, source: dict[str, Any]) -> Report:
    return await asyncio.to_thread(load, store, catalogue, work, source)


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_comes_first_it_is_that_of_all_events(tmp_path: Path, seed: int) -> None:
    catalogue, rows = catalogue_of(TEXT), rows_of(seed)
    cut = Random(seed).randrange(len(rows))
    all_live, before, after = memory(), memory(), memory()
    await live(all_live, catalogue, rows)
    past = file_of(tmp_path / "past.jsonl", Random(seed).sample(rows[:cut], cut), id="id", id_source="live")
    report = await _load(before, catalogue, tmp_path, past)
    assert report.timelines == len({row["who"] for row in rows[:cut]})
    await live(before, catalogue, rows[cut:])
    await live(after, catalogue, rows[cut:])
    await _load(after, catalogue, tmp_path, past)
    wanted = await all_live.read_timelines(CUSTOMERS)
    assert await before.read_timelines(CUSTOMERS) == wanted
    assert await after.read_timelines(CUSTOMERS) == wanted
    kept = [unpack(timeline) for timeline in wanted]
    assert all(len(each.entries) == limits.TIMELINE_ENTRIES_MAX and each.floor_ms for each in kept)


@pytest.mark.parametrize("seed", range(3))
def test_rows_without_ids_are_named_by_what_they_tell(tmp_path: Path, seed: int) -> None:
    catalogue, rows = catalogue_of(TEXT), [row | {"id": None} for row in rows_of(seed, 600)]
    whole, split, apart = memory(), memory(), memory()
    load(whole, catalogue, tmp_path, file_of(tmp_path / "all.jsonl", rows))
    mixed = Random(seed).sample(rows, len(rows))
    halves = [file_of(tmp_path / f"{n}.jsonl", mixed[n::2]) for n in (0, 1)]
    load(split, catalogue, tmp_path, *halves)
    assert timelines(whole, CUSTOMERS) == timelines(split, CUSTOMERS)
    for file in (file_of(tmp_path / "old.jsonl", rows[:300]), file_of(tmp_path / "new.jsonl", rows[300:])):
        load(apart, catalogue, tmp_path, file)
    told = [[entry[:1] + entry[2:] for entry in unpack(line).entries] for line in timelines(whole, CUSTOMERS)]
    assert [len(entries) for entries in told] == [limits.TIMELINE_ENTRIES_MAX] * len(CUSTOMERS)
    if rows[299]["at"] < rows[300]["at"]:
        again = [[entry[:1] + entry[2:] for entry in unpack(line).entries] for line in timelines(apart, CUSTOMERS)]
        assert again == told


def test_two_equal_rows_are_two_entries(tmp_path: Path) -> None:
    catalogue, store = catalogue_of(TEXT), memory()
    row = {"who": "c0", "at": BEGIN_MS, "what": "purchase", "amount": 7}
    load(store, catalogue, tmp_path, file_of(tmp_path / "twice.jsonl", [row, row]))
    [line] = timelines(store, ["c0"])
    assert [entry.attributes for entry in unpack(line).entries] == [{"amount": 7.0}] * 2


def test_who_has_nothing_that_belongs_there_gets_none(tmp_path: Path) -> None:
    catalogue, store = catalogue_of(SHOP), memory()  # complaints are not marked in it
    rows = [
        {"who": "c0", "at": BEGIN_MS, "what": "complaint", "about": "card"},
        {"who": "c1", "at": BEGIN_MS, "what": "purchase", "amount": 7},
    ]
    report = load(store, catalogue, tmp_path, file_of(tmp_path / "past.jsonl", rows))
    assert (report.customers, report.timelines) == (2, 1)
    first, second = timelines(store, ["c0", "c1"])
    assert first is None
    assert len(unpack(second).entries) == 1


def test_a_damaged_timeline_begins_anew_with_history(tmp_path: Path) -> None:
    catalogue, store, whole = catalogue_of(TEXT), memory(), memory()
    past = file_of(tmp_path / "past.jsonl", rows_of(1, 20))
    store._timelines.put("c0", b"no timeline")
    for each in (store, whole):
        load(each, catalogue, tmp_path, past)
    assert timelines(store, CUSTOMERS) == timelines(whole, CUSTOMERS)


async def test_history_of_a_linked_name_stands_with_that_name(tmp_path: Path) -> None:
    engine = SmallEngine(IDENTITIES.replace(b"- type: purchase\n", b"- type: purchase\n    timeline: true\n", 1))
    assert "purchase" in engine.catalogue.keeper.shapes
    await buys(engine, 30, "", COOKIE)
    await link(engine, "r1", "ann", identities=[COOKIE])
    name = "cookie=c7"
    path = tmp_path / "past.jsonl"
    path.write_text(json.dumps({"who": name, "at": 1_600_000_000_000, "amount": 12}))
    source = {"type": "purchase", "customer": "who", "time": "at", "time_unit": "ms", "files": [str(path)]}
    await _load(engine.store, engine.catalogue, tmp_path, source)
    [line] = await engine.store.read_timelines([name])
    assert [entry.attributes["amount"] for entry in unpack(line).entries] == [12.0, 30.0]
    assert moved_to((await engine.store.read_features([name]))[0]) == "ann"
