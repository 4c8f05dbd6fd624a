"""History of customers who are one: it counts for all of them while they are linked, and for each alone afterwards."""

import asyncio
from pathlib import Path

import pytest

from engine.catalogue import Catalogue
from engine.identity import link_entry, unlink_entry
from engine.ingest import Ingest
from engine.links import moved_to
from engine.store import Store
from tests.history.past import memory, records
from tests.history.test_backfill import assert_equal_features, catalogue_of, everybody, file_of, live, load, rows_of


def tell(store: Store, catalogue: Catalogue, *entries: tuple[str, bytes]) -> None:
    """Append entries and fold all there is."""

    async def run() -> None:
        await store.append_events(entries)
        ingest = Ingest(catalogue.layout, store, catalogue.keeper)
        while await ingest.round(0):
            pass

    asyncio.run(run())


@pytest.mark.parametrize("live_share", [0.0, 0.5])
def test_history_behind_a_link_is_as_live_all_along(tmp_path: Path, live_share: float) -> None:
    catalogue, rows = catalogue_of(), rows_of(3)
    one, other, third = everybody(rows)[:3]
    links = [link_entry(one, other, 1, source="api"), link_entry(third, other, 1, source="api")]
    cut = int(len(rows) * (1 - live_share))
    loaded, together, apart = memory(), memory(), memory()
    live(loaded, catalogue, rows[cut:])
    tell(loaded, catalogue, *links)
    load(loaded, catalogue, tmp_path, file_of(tmp_path / "history.csv", rows[:cut]))
    tell(loaded, catalogue)
    live(apart, catalogue, rows)
    live(together, catalogue, [(other if row[0] in (one, third) else row[0], *row[1:]) for row in rows])
    assert [moved_to(record) for record in records(loaded, [one, third])] == [other, other]
    assert_equal_features(catalogue, loaded, together, [row for row in rows if row[0] not in (one, third)])
    tell(loaded, catalogue, unlink_entry(one, other, 2, source="api"), unlink_entry(third, other, 2, source="api"))
    assert_equal_features(catalogue, loaded, apart, rows)
