"""Backfilling: the same state as live, exactly once, whatever happens on the way."""

import asyncio
import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import orjson
import pytest

from engine import limits
from engine.catalogue import Catalogue
from engine.errors import NotAllowed, Overloaded, Unavailable
from engine.history import backfill as loader
from engine.history import chunks, folding, loading
from engine.ingest import Ingest
from engine.ledger import hash_of
from engine.replay import Verdict
from engine.replaying import replay
from engine.store import FeatureWrite, Mark, MemoryStore, RedisStore, Store, StoreFull, StoreUnavailable
from engine.versions import Versions
from tests.history.past import (
    NOW_MS,
    PARTITIONS,
    ROOT,
    SHOP,
    catalogue_of,
    cdnow,
    load,
    memory,
    readings_of,
    records,
    span,
    timelines,
)
from tests.store.conftest import Server

DAY_MS = 86_400_000
BEGIN_MS = 1_750_000_000_000
SOURCE = {"type": "purchase", "customer": "who", "time": "at", "time_unit": "ms"}

Row = tuple[str, int, float, str, bool]


def rows_of(seed: int, count: int = 400, customers: int = 40) -> list[Row]:
    """Purchases in order of time."""
    dice = Random(seed)
    times = sorted(BEGIN_MS + dice.randrange(60 * DAY_MS) for _ in range(count))
    return [
        (f"c{dice.randrange(customers)}", at, dice.randrange(100_000) / 100, dice.choice(["north", "south", ""]),
         dice.random() < 0.3)
        for at in times
    ]  # fmt: skip


def file_of(path: Path, rows: Sequence[Row]) -> dict[str, Any]:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["who", "at", "amount", "shop", "online"])
        writer.writerows(rows)
    return SOURCE | {"files": [str(path)]}


def live(store: Store, catalogue: Catalogue, rows: Sequence[Row]) -> None:
    """The same purchases through the event log and the ingest process."""

    async def run() -> None:
        ingest = Ingest(catalogue.layout, store, catalogue.keeper, batch_max=50)
        for who, at, amount, shop, online in rows:
            attributes = {"amount": amount, "online": online} | ({"shop": shop} if shop else {})
            data = orjson.dumps([who, hash_of(f"live\0{who} {at} {amount}"), "purchase", at, attributes])
            await store.append_events([(who, data)])
        while await ingest.round(0):
            pass

    asyncio.run(run())


def everybody(rows: Sequence[Row]) -> list[str]:
    return sorted({row[0] for row in rows})


def assert_equal_features(catalogue: Catalogue, one: Store, other: Store, rows: Sequence[Row]) -> None:
    customers = everybody(rows)
    first, second = records(one, customers), records(other, customers)
    for after_ms in (0, DAY_MS // 3, 9 * DAY_MS, 100 * DAY_MS):
        now_ms = np.full(len(customers), rows[-1][1] + after_ms)
        assert np.array_equal(
            catalogue.layout.read(first, now_ms), catalogue.layout.read(second, now_ms), equal_nan=True
        )
    for mine, theirs in zip(first, second, strict=True):
        assert mine is not None and theirs is not None
        a, b = catalogue.layout.header(mine), catalogue.layout.header(theirs)
        assert (a.events, a.latest_event_ms, a.late) == (b.events, b.latest_event_ms, b.late)


# --- as live --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_history_and_then_live_is_as_live_all_along(tmp_path: Path, seed: int) -> None:
    catalogue, rows = catalogue_of(), rows_of(seed)
    cut = Random(seed).randrange(len(rows))
    all_live, loaded = memory(), memory()
    live(all_live, catalogue, rows)
    shuffled = Random(seed).sample(rows[:cut], cut)  # the order of a file is nothing
    report = load(loaded, catalogue, tmp_path, file_of(tmp_path / "history.csv", shuffled))
    assert report.events == cut
    live(loaded, catalogue, rows[cut:])
    assert_equal_features(catalogue, all_live, loaded, rows)


@pytest.fixture
def merging() -> Catalogue:
    return catalogue_of()


@pytest.mark.parametrize("seed", range(5))
def test_live_first_and_history_behind_it_is_as_live_all_along(
    tmp_path: Path, seed: int, merging: Catalogue
) -> None:
    rows = rows_of(seed)
    cut = Random(seed).randrange(len(rows))
    all_live, loaded = memory(), memory()
    live(all_live, merging, rows)
    live(loaded, merging, rows[cut:])
    before = {name: data for name, data in zip(everybody(rows), records(loaded, everybody(rows)), strict=True) if data}
    load(loaded, merging, tmp_path, file_of(tmp_path / "one.csv", rows[: cut // 2]))
    load(loaded, merging, tmp_path, file_of(tmp_path / "two.csv", rows[cut // 2 : cut]))
    assert_equal_features(merging, all_live, loaded, rows)
    for name, data in before.items():
        [after] = records(loaded, [name])
        assert after is not None
        assert merging.layout.watermark(after)[0] == merging.layout.watermark(data)[0], "redelivery stays known"


def test_a_customer_whom_an_ingest_process_writes_to_meanwhile_is_merged_again(
    tmp_path: Path, merging: Catalogue
) -> None:
    rows = rows_of(1)
    all_live = memory()
    live(all_live, merging, rows)

    class Busy(MemoryStore):
        """Between a backfill's reading and its writing live events are folded."""

        waiting: Sequence[Row] = rows[300:]

        async def write_marked(self, partition: int, writes: Sequence[FeatureWrite], mark: Mark) -> Any:
            if writes and self.waiting:
                batch, self.waiting = self.waiting[:10], self.waiting[10:]
                await asyncio.to_thread(live, self, merging, batch)
            return await super().write_marked(partition, writes, mark)

    store = Busy(PARTITIONS, lambda: NOW_MS)
    load(store, merging, tmp_path, file_of(tmp_path / "history.csv", rows[:300]))
    assert len(store.waiting) < 60, "there was something in between"
    live(store, merging, store.waiting)
    assert_equal_features(merging, all_live, store, rows)


def test_an_ingest_process_that_read_before_the_merge_does_not_write_over_it(
    tmp_path: Path, merging: Catalogue
) -> None:
    rows = rows_of(1)
    all_live = memory()
    live(all_live, merging, rows)
    history = file_of(tmp_path / "history.csv", rows[:300])

    class Late(MemoryStore):
        """Between an ingest's reading and its writing a whole backfill takes place, once."""

        armed = False

        async def write_features(self, *arguments: Any) -> list[bool]:
            if self.armed:
                self.armed = False
                await asyncio.to_thread(load, self, merging, tmp_path, history)
            return await super().write_features(*arguments)

    store = Late(PARTITIONS, lambda: NOW_MS)
    live(store, merging, rows[300:350])
    store.armed = True
    live(store, merging, rows[350:])
    assert_equal_features(merging, all_live, store, rows)


def test_the_order_and_the_split_of_files_make_no_difference(tmp_path: Path) -> None:
    catalogue, rows = catalogue_of(), rows_of(7)
    whole, parts = memory(), memory()
    load(whole, catalogue, tmp_path, file_of(tmp_path / "all.csv", rows))
    odd, even = (file_of(tmp_path / f"{n}.csv", rows[n::2]) for n in (1, 0))
    report = load(parts, catalogue, tmp_path, odd, even)
    assert report.events == len(rows)
    assert records(whole, everybody(rows)) == records(parts, everybody(rows))
    assert timelines(whole, everybody(rows)) == timelines(parts, everybody(rows))


def test_replay_says_that_history_came_from_elsewhere(tmp_path: Path) -> None:
    catalogue, rows, store = catalogue_of(), rows_of(8), memory()
    live(store, catalogue, rows[:50])
    assert asyncio.run(replay(catalogue, store, now_ms=NOW_MS)).verdict is Verdict.EQUAL
    others = [("x" + row[0], *row[1:]) for row in rows]
    load(store, catalogue, tmp_path, file_of(tmp_path / "history.csv", others))
    live(store, catalogue, others[:3])
    found = asyncio.run(replay(catalogue, store, now_ms=NOW_MS))
    assert found.verdict is Verdict.CANNOT_TELL
    assert found.caveats == ["history was loaded from files: the event log alone does not make those states"]


# --- exactly once ---------------------------------------------------------------------------------------------------


def test_the_same_file_again_changes_nothing_and_a_new_one_is_loaded(tmp_path: Path) -> None:
    catalogue, rows = catalogue_of(), rows_of(2)
    store, once = memory(), memory()
    old = file_of(tmp_path / "old.csv", [row for row in rows if row[0] < "c2"])
    new = file_of(tmp_path / "new.csv", [row for row in rows if row[0] >= "c2"])
    load(once, catalogue, tmp_path, old, new)
    load(store, catalogue, tmp_path, old)
    copy = tmp_path / "copy.csv"
    copy.write_bytes((tmp_path / "old.csv").read_bytes())
    report = load(store, catalogue, tmp_path, old, new, SOURCE | {"files": [str(copy)]})
    assert report.passed_over == [f"{tmp_path / 'old.csv'}: loaded before", f"{copy}: loaded before"]
    assert report.events == sum(row[0] >= "c2" for row in rows)
    assert records(store, everybody(rows)) == records(once, everybody(rows))


def test_each_span_of_a_file_is_loaded_once_and_none_is_taken_for_another(tmp_path: Path) -> None:
    catalogue, rows = catalogue_of(), rows_of(9)
    source = file_of(tmp_path / "history.csv", rows)
    store, once = memory(), memory()
    load(once, catalogue, tmp_path, source)
    one, two = BEGIN_MS + 10 * DAY_MS, BEGIN_MS + 30 * DAY_MS
    first = load(store, catalogue, tmp_path, source, from_ms=one, until_ms=two)
    path, day = tmp_path / "history.csv", "2025-06-25T15:06:40Z"
    again = load(store, catalogue, tmp_path, source, from_ms=one + DAY_MS, until_ms=two)
    assert (again.passed_over, again.events) == ([f"{path}: loaded before"], 0), "all of it was in the first one"
    with pytest.raises(NotAllowed) as caught:
        load(store, catalogue, tmp_path, source)
    assert str(caught.value) == (
        f"{path}: what happened from {day} until 2025-07-15T15:06:40Z was loaded before; load the rest with "
        f"--until {day} and then with --from 2025-07-15T15:06:40Z"
    )
    before = load(store, catalogue, tmp_path, source, until_ms=one)
    after = load(store, catalogue, tmp_path, source, from_ms=two)
    assert before.events + first.events + after.events == len(rows)
    assert load(store, catalogue, tmp_path, source).passed_over == [f"{path}: loaded before"]
    assert_equal_features(catalogue, once, store, rows)


def test_a_span_that_was_not_finished_comes_before_any_other(tmp_path: Path) -> None:
    catalogue, rows, half = catalogue_of(), rows_of(9), BEGIN_MS + 30 * DAY_MS
    source = file_of(tmp_path / "history.csv", rows)
    store, once = Crashing(PARTITIONS, lambda: NOW_MS), memory()
    load(once, catalogue, tmp_path, source)
    store.arm(0, after=False)
    load(store, catalogue, tmp_path, source, until_ms=half)
    store.arm(4, after=True)
    with pytest.raises(Crash):
        load(store, catalogue, tmp_path, source, from_ms=half)
    store.arm(0, after=False)
    with pytest.raises(NotAllowed, match="belongs to a backfill that was not finished"):
        load(store, catalogue, tmp_path, source, from_ms=half + DAY_MS)
    load(store, catalogue, tmp_path, source, from_ms=half)
    assert load(store, catalogue, tmp_path, source).events == 0
    assert_equal_features(catalogue, once, store, rows)


def test_rows_that_were_refused_are_told_again_when_their_file_is_passed_over(tmp_path: Path) -> None:
    store, rows = memory(), [("ann", BEGIN_MS, 5.0, "", False), ("ann", BEGIN_MS + 1, 2_000.0, "", False)]
    wider = catalogue_of(SHOP.replace("range: [0, 1000]", "range: [0, 9000]"))
    good, bad = file_of(tmp_path / "good.csv", rows[:1]), file_of(tmp_path / "bad.csv", rows)
    load(store, catalogue_of(), tmp_path, good, bad)
    said = "loaded before, but for rows that were refused (1): correct them and load them from a file of their own"
    assert load(store, wider, tmp_path, good, bad).passed_over == [
        f"{tmp_path / 'good.csv'}: loaded before",
        f"{tmp_path / 'bad.csv'}: {said}",
    ]
    load(store, wider, tmp_path, file_of(tmp_path / "rest.csv", rows[1:]))
    assert wider.layout.values(records(store, ["ann"])[0], BEGIN_MS + 2)["spent"] == 2_010.0


def test_what_is_wrong_with_a_row_of_another_span_is_for_the_run_that_loads_that(tmp_path: Path) -> None:
    store, half = memory(), BEGIN_MS + 1_000
    wider = catalogue_of(SHOP.replace("range: [0, 1000]", "range: [0, 9000]"))
    rows = [("ann", half - 1, 2_000.0, "", False), ("ann", half, 3_000.0, "", False), ("bob", -1, 1.0, "", False)]
    source, path = file_of(tmp_path / "history.csv", rows), tmp_path / "history.csv"
    first = load(store, catalogue_of(), tmp_path, source, until_ms=half)
    assert (first.tally.skipped, first.tally.refused_in_all) == (1, 2)
    with pytest.raises(NotAllowed, match=r"was loaded before, but for rows that were refused \(2\): "):
        load(store, wider, tmp_path, source)
    second = load(store, wider, tmp_path, source, from_ms=half)
    assert (second.events, second.tally.skipped, second.tally.refused_in_all) == (1, 1, 1)
    [passed_over] = load(store, wider, tmp_path, source).passed_over
    assert passed_over.startswith(f"{path}: loaded before, but for rows that were refused (2 and 1 in its runs): ")
    assert wider.layout.values(records(store, ["ann"])[0], half + 1)["spent"] == 3_000.0


def of_an_earlier_release(store: MemoryStore, *, finished: bool = True) -> None:
    """Leave in the manifests what they had before spans were kept."""
    marks = vars(store)["_marks"][0]
    for name in [name for name in marks if name.startswith("job:")]:
        kept = {key: value for key, value in orjson.loads(marks[name]).items() if key in EARLIER}
        marks[name] = orjson.dumps(kept if finished else {key: kept[key] for key in kept if key != "finished"})


EARLIER = ("newest_ms", "meaning", "layout", "files", "finished", "events")


def test_marks_of_an_earlier_release_are_understood(tmp_path: Path) -> None:
    catalogue, rows, half = catalogue_of(), rows_of(9), BEGIN_MS + 30 * DAY_MS
    one, two = file_of(tmp_path / "one.csv", rows[:200]), file_of(tmp_path / "two.csv", rows[200:])
    whole, part, begun = memory(), memory(), memory()
    load(whole, catalogue, tmp_path, one, two)
    load(part, catalogue, tmp_path, one, until_ms=half)
    load(begun, catalogue, tmp_path, one)
    of_an_earlier_release(whole)
    of_an_earlier_release(part)
    of_an_earlier_release(begun, finished=False)
    passed_over = [f"{tmp_path / 'two.csv'}: loaded before"]
    assert load(whole, catalogue, tmp_path, two).passed_over == passed_over
    assert load(whole, catalogue, tmp_path, two, from_ms=half).passed_over == passed_over
    assert load(part, catalogue, tmp_path, one, until_ms=half).events == 0, "the same span again"
    with pytest.raises(NotAllowed, match="an earlier release has loaded a span of it, and has not kept which"):
        load(part, catalogue, tmp_path, one)
    with pytest.raises(NotAllowed, match="finish it with that release"):
        load(begun, catalogue, tmp_path, one)


def test_events_with_the_same_id_count_once(tmp_path: Path) -> None:
    catalogue = catalogue_of()
    path = tmp_path / "purchases.jsonl"
    lines = [
        {"who": "ann", "at": BEGIN_MS + 1, "amount": 1, "id": "a"},
        {"who": "ann", "at": BEGIN_MS + 2, "amount": 2, "id": "b"},
        *({"who": "ann", "at": BEGIN_MS + 3 + n, "amount": 4, "id": f"x{n}"} for n in range(100)),
        {"who": "ann", "at": BEGIN_MS + 9_000, "amount": 1_000, "id": "a"},
        {"who": "bob", "at": BEGIN_MS + 1, "amount": 8, "id": "a"},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    store = memory()
    report = load(store, catalogue, tmp_path, SOURCE | {"files": [str(path)], "id": "id"})
    assert (report.events, report.duplicates) == (103, 1), "however far apart the two are"
    ann, bob = (
        catalogue.layout.values(record, BEGIN_MS + 10_000)["spent"] for record in records(store, ["ann", "bob"])
    )
    assert (ann, bob) == (403.0, 8.0)


class Crash(Exception):
    """The process is gone."""


class Crashing(MemoryStore):
    """Ends the process at one of its writes, before or after it took place."""

    def arm(self, left: int, after: bool) -> None:
        self.left, self.after = left, after

    async def write_marked(self, partition: int, writes: Sequence[FeatureWrite], mark: Mark) -> Any:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Crash
        result = await super().write_marked(partition, writes, mark)
        if self.left == 0:
            raise Crash
        return result


@pytest.mark.parametrize("after", [False, True], ids=["before a write", "after a write"])
def test_a_crash_at_any_write_leaves_the_same_bytes(tmp_path: Path, after: bool, monkeypatch: Any) -> None:
    monkeypatch.setattr(limits, "BACKFILL_CUSTOMERS_BATCH_MAX", 4)
    catalogue, rows = catalogue_of(), rows_of(3)
    source = file_of(tmp_path / "history.csv", rows)
    undisturbed = memory()
    load(undisturbed, catalogue, tmp_path, source)
    crashes = 0
    for at in range(1, 100):
        store = Crashing(PARTITIONS, lambda: NOW_MS)
        store.arm(at, after)
        try:
            load(store, catalogue, tmp_path, source)
        except Crash:
            crashes += 1
        else:
            break
        store.arm(2 + at // 2, not after)
        try:
            report = load(store, catalogue, tmp_path, source)
        except Crash:
            report = load(store, catalogue, tmp_path, source)
        assert report.events in (0, len(rows))
        assert records(store, everybody(rows)) == records(undisturbed, everybody(rows)), f"crash at write {at}"
        assert timelines(store, everybody(rows)) == timelines(undisturbed, everybody(rows)), f"crash at write {at}"
        for partition in range(PARTITIONS):
            assert asyncio.run(store.marks(partition)) == asyncio.run(undisturbed.marks(partition))
    assert crashes > 8


def test_a_store_that_does_not_answer_is_asked_again_and_nothing_counts_twice(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(limits, "BACKFILL_CUSTOMERS_BATCH_MAX", 4)
    monkeypatch.setattr(chunks, "_PAUSE_S", 0.001)
    catalogue, rows, dice = catalogue_of(), rows_of(4), Random(4)
    undisturbed = memory()
    source = file_of(tmp_path / "history.csv", rows)
    load(undisturbed, catalogue, tmp_path, source)

    class Silent(MemoryStore):
        async def write_marked(self, partition: int, writes: Sequence[FeatureWrite], mark: Mark) -> Any:
            if writes and dice.random() < 0.3:
                raise StoreUnavailable("before")
            result = await super().write_marked(partition, writes, mark)
            if writes and dice.random() < 0.3:
                raise StoreUnavailable("after")
            return result

    store = Silent(PARTITIONS, lambda: NOW_MS)
    load(store, catalogue, tmp_path, source)
    assert records(store, everybody(rows)) == records(undisturbed, everybody(rows))
    assert timelines(store, everybody(rows)) == timelines(undisturbed, everybody(rows))
    monkeypatch.setattr(limits, "BACKFILL_AWAY_MS_MAX", 10)
    gone = memory()
    monkeypatch.setattr(gone, "read_features", _raiser(StoreUnavailable("no answer")))
    with pytest.raises(Unavailable, match="run the same command again"):
        load(gone, catalogue, tmp_path, source)
    full = memory()
    monkeypatch.setattr(full, "write_marked", _raiser(StoreFull("no room")))
    with pytest.raises(Overloaded, match="make room"):
        load(full, catalogue, tmp_path, source)


def _raiser(error: Exception) -> Any:
    async def fail(*_: Any) -> None:
        raise error

    return fail


def test_an_unfinished_job_keeps_its_files_and_its_features(tmp_path: Path) -> None:
    catalogue, rows = catalogue_of(), rows_of(5)
    first = file_of(tmp_path / "first.csv", rows[:200])
    second = file_of(tmp_path / "second.csv", rows[200:])
    store = Crashing(PARTITIONS, lambda: NOW_MS)
    store.arm(4, after=True)
    with pytest.raises(Crash):
        load(store, catalogue, tmp_path, first, second)
    store.arm(0, after=True)
    with pytest.raises(NotAllowed, match=r"first\.csv: belongs to a backfill that was not finished.*second\.csv"):
        load(store, catalogue, tmp_path, first)
    other = catalogue_of(SHOP.replace("window: 30d}", "window: 20d}"))
    with pytest.raises(NotAllowed, match="have changed since"):
        load(store, other, tmp_path, first, second)
    assert load(store, catalogue, tmp_path, second, first).events == 400, "in any order"


def test_a_version_that_is_put_in_force_meanwhile_stops_what_would_write_over_its_features(tmp_path: Path) -> None:
    former, wider = catalogue_of(), SHOP + "  - {name: baskets, event: purchase, function: count}\n"
    rows = rows_of(5)
    source = file_of(tmp_path / "history.csv", rows)

    class Applied(MemoryStore):
        """Another version is in force as soon as the job is claimed."""

        async def write_marked(self, partition: int, writes: Sequence[FeatureWrite], mark: Mark) -> Any:
            result = await super().write_marked(partition, writes, mark)
            if mark.name.startswith("file:"):
                await Versions(self, lambda: NOW_MS).propose(wider.encode(), "ann")
            return result

    store = Applied(PARTITIONS, lambda: NOW_MS)
    with pytest.raises(NotAllowed, match="is in force, with other features"):
        load(store, former, tmp_path, source)
    assert records(store, everybody(rows)) == [None] * len(everybody(rows))


def test_two_at_once_are_one(tmp_path: Path) -> None:
    with (
        loader.work_folder(tmp_path, "job", "one store"),
        loader.work_folder(tmp_path, "job", "another store"),
        pytest.raises(NotAllowed, match="another process"),
        loader.work_folder(tmp_path, "job", "one store"),
    ):
        pass
    assert list(tmp_path.iterdir()) == [], "a folder goes when its block has ended well"


@pytest.mark.parametrize("begun", [False, True], ids=["both begin", "both go on"])
def test_two_that_name_the_same_store_otherwise_load_it_once(
    tmp_path: Path, begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BACKFILL_CUSTOMERS_BATCH_MAX", 4)
    catalogue, rows = catalogue_of(), rows_of(7)
    source = file_of(tmp_path / "history.csv", rows)

    class Slow(Crashing):
        async def marks(self, partition: int) -> dict[str, bytes]:
            found = dict(await super().marks(partition))
            await asyncio.sleep(0)
            return found

    store, once = Slow(PARTITIONS, lambda: NOW_MS), memory()
    load(once, catalogue, tmp_path, source)
    store.arm(5 if begun else 0, after=True)
    if begun:
        with pytest.raises(Crash):
            load(store, catalogue, tmp_path, source)
    readings, whole = readings_of(catalogue, source), span(catalogue)

    async def both() -> list[Any]:
        runs = [loader.backfill(store, catalogue, readings, whole, tmp_path, loading.Told(), name) for name in "ab"]
        return await asyncio.gather(*runs, return_exceptions=True)

    one, other = asyncio.run(both())
    assert one.events == len(rows)
    assert other.events == len(rows) if begun else "has just begun" in str(other)
    assert records(store, everybody(rows)) == records(once, everybody(rows))
    assert timelines(store, everybody(rows)) == timelines(once, everybody(rows))


def test_one_customer_with_more_events_than_are_folded_at_once(tmp_path: Path, monkeypatch: Any) -> None:
    catalogue, rows = catalogue_of(), rows_of(6, customers=2)
    once, pieces = memory(), memory()
    source = file_of(tmp_path / "history.csv", rows)
    load(once, catalogue, tmp_path, source)
    monkeypatch.setattr(limits, "BACKFILL_EVENTS_BATCH_MAX", 10)
    monkeypatch.setattr(folding, "EVENTS_AT_ONCE", 30)
    load(pieces, catalogue, tmp_path, source)
    assert records(once, everybody(rows)) == records(pieces, everybody(rows))
    assert timelines(once, everybody(rows)) == timelines(pieces, everybody(rows))


# --- processes ------------------------------------------------------------------------------------------------------


def test_kill_9_in_the_middle_and_again_is_as_undisturbed_byte_for_byte(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = SHOP.replace("required: true, range: [0, 1000]", "required: true")
    config = tmp_path / "past.yaml"
    config.write_text(text)
    path = cdnow(tmp_path)
    source = {"type": "purchase", "customer": "customer", "time": "date", "time_format": "%Y%m%d"}
    undisturbed = MemoryStore(8, lambda: NOW_MS)
    report = load(undisturbed, catalogue_of(text), tmp_path / "work", source | {"files": [str(path)]})
    server = Server(tmp_path_factory.mktemp("kill"))
    server.start()
    command = [sys.executable, "-m", "engine.cli", "backfill", "--config", str(config), "--redis", server.url]
    command += ["--type", "purchase", "--customer", "customer", "--time", "date", "--time-format", "%Y%m%d"]
    command += ["--work", str(tmp_path / "other"), str(path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    try:
        for chunks in (3, 40):
            child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            deadline_s = time.monotonic() + 60
            while _chunks(server.url) < chunks and time.monotonic() < deadline_s:
                time.sleep(0.005)
            child.send_signal(signal.SIGKILL)
            assert child.wait(10) == -signal.SIGKILL, "it was killed before it had ended"
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=True)
        assert f"loaded {report.events:,} events" in done.stdout
        assert "of them in an earlier run" in done.stdout
        customers = [f"{number:05d}" for number in range(1, 23_571)]
        assert asyncio.run(_read(server.url, customers)) == [
            records(undisturbed, customers),
            timelines(undisturbed, customers),
        ]
        again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=True)
        assert "loaded before" in again.stdout
        assert asyncio.run(_read(server.url, customers))[0] == records(undisturbed, customers)
    finally:
        server.stop()


def _chunks(url: str) -> int:
    """Chunks that are written, in partitions that have one bucket."""

    async def count() -> int:
        store = RedisStore(url, 8)
        try:
            marks = [await store.marks(partition) for partition in range(8)]
        finally:
            await store.close()
        places = [value for found in marks for name, value in found.items() if name.startswith("at:")]
        return sum(int(place.partition(b".")[2]) for place in places)

    return asyncio.run(count())


async def _read(url: str, customers: Sequence[str]) -> list[list[bytes | None]]:
    """Features and timelines."""
    store = RedisStore(url, 8)
    found: list[list[bytes | None]] = [[], []]
    try:
        for at in range(0, len(customers), 1_000):
            found[0] += await store.read_features(customers[at : at + 1_000])
            found[1] += await store.read_timelines(customers[at : at + 1_000])
        return found
    finally:
        await store.close()
