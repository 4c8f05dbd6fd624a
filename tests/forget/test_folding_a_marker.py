"""The marker in the event log: whatever the batches, and whatever is delivered again, what was before it is gone."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.identity import forget_entry, link_entry
from engine.ingest import Ingest, Logged, parsed
from engine.store import LINKS, PARTS, MemoryStore
from engine.store.base import TIMELINE
from features import Offset
from tests.identity_shop import SHOP
from tests.small_engine import START_MS, catalogue_of

CATALOGUE = catalogue_of(SHOP.replace(b"  - type: complaint", b"  - {type: complaint, timeline: {kind: note}}"))
State = tuple[bytes | None, ...]


def log_of(kinds: Sequence[str], name: str) -> list[Logged]:
    """Entries of one name's log: events, its link to bob, markers."""
    found = []
    for number, kind in enumerate(kinds, 1):
        if kind == "forget":
            _, data = forget_entry(name, START_MS + number)
        elif kind == "forget of bob":
            _, data = forget_entry(name, START_MS + number, of="bob")
        else:
            _, data = link_entry(name, "bob", START_MS + number, source="api")
        _, digest, event_type, time_ms, attributes = parsed(data)
        if kind in ("purchase", "complaint"):
            digest, event_type, attributes = number, kind, {"amount": float(number)} if kind == "purchase" else {}
        found.append(Logged(digest, event_type, time_ms, attributes, Offset(7, number), data))
    return found


async def folded(store: MemoryStore, name: str, batches: Sequence[Sequence[Logged]]) -> State:
    """What is kept of the name, delivered as Kafka delivers."""
    ingest = Ingest(CATALOGUE.layout, store, CATALOGUE.keeper, entities=CATALOGUE.entity_attributes)

    async def refuse(letters: Sequence[tuple[bytes, str]]) -> None:
        assert letters == []

    for batch in batches:
        if batch:
            await ingest.fold({name: list(batch)}, store.write_records, refuse, store.append_events)
    features = await store.read_features([name])
    return *features, *[(await store.read_beside(kind, [name]))[0] for kind in (PARTS, LINKS, TIMELINE)]


def new_store() -> MemoryStore:
    return MemoryStore(2, lambda: START_MS)


KINDS = st.sampled_from(["purchase", "purchase", "complaint", "link", "forget", "forget of bob"])
"""Of a link, what comes again tells bob again: what that is worth is his log's to say."""


@settings(deadline=None, max_examples=80)
@given(st.lists(KINDS, max_size=9), st.sets(st.integers(0, 9)), st.integers(0, 9))
def test_batches_and_repeats_change_no_byte(kinds: list[str], cuts: set[int], set_back_to: int) -> None:
    async def run() -> None:
        log = log_of(kinds, "cookie=c7")
        whole = await folded(new_store(), "cookie=c7", [log])
        one_by_one = await folded(new_store(), "cookie=c7", [[entry] for entry in log])
        assert one_by_one == whole
        edges = [0, *sorted(cut for cut in cuts if cut < len(log)), len(log)]
        batches = [log[start:end] for start, end in pairwise(edges)]
        store = new_store()
        assert await folded(store, "cookie=c7", batches) == whole
        again = log[set_back_to:]
        assert await folded(store, "cookie=c7", [[entry] for entry in again]) == whole, "offsets were set back"

    asyncio.run(run())


@settings(deadline=None, max_examples=60)
@given(st.lists(KINDS, max_size=6), st.lists(KINDS.filter(lambda kind: "forget" not in kind), max_size=4))
def test_after_a_marker_all_is_as_if_the_log_began_there(before: list[str], after: list[str]) -> None:
    async def run() -> None:
        log = log_of([*before, "forget", *after], "ann")
        here = await folded(new_store(), "ann", [log])
        there = await folded(new_store(), "ann", [log[len(before) + 1 :]])
        assert here == there
        if not after:
            assert here == (None,) * 4

    asyncio.run(run())
