"""The whole engine under faults, many times over; `python -m tests.simulation.run` does it as often as you like."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from engine.store import memory
from engine.store.base import FeatureWrite
from features import Offset
from tests.simulation.world import simulate

SEEDS = 200
GROUPS = 8


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of warnings that the store is away would drown what a failure says."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("group", range(GROUPS))
def test_whatever_happens_what_was_acknowledged_is_kept_exactly_once(group: int) -> None:
    told = degraded = refused = 0
    for seed in range(group, SEEDS, GROUPS):
        auditor = simulate(seed).auditor
        told, degraded, refused = told + auditor.outcomes, degraded + auditor.degraded, refused + auditor.refused
    assert told and degraded and refused, "the simulation reaches all kinds of answers"


def test_a_seed_brings_everything_back_to_the_last_byte() -> None:
    first, again = (vars(simulate(seed=5).memory) for _ in range(2))
    for name in ("_checkpoint", "_policy", "_policy_head"):
        assert first[name] == again[name]
    for name in ("_features", "_ledgers", "_timelines"):
        assert vars(first[name])["_values"] == vars(again[name])["_values"]


def _fails(seeds: int) -> bool:
    for seed in range(seeds):
        try:
            simulate(seed)
        except AssertionError:
            return True
    return False


def test_it_notices_a_store_that_does_not_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory._Values, "matches", lambda *_: True)
    assert _fails(seeds=100)


def test_it_notices_a_position_that_runs_ahead_of_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    write = memory.MemoryStore.write_features

    async def ahead(self: Any, partition: int, writes: list[FeatureWrite], folded: Offset, events: int) -> list[bool]:
        await write(self, partition, [], folded, events)
        return await write(self, partition, writes[1:], folded, events) + [True]

    monkeypatch.setattr(memory.MemoryStore, "write_features", ahead)
    assert _fails(seeds=100)


def test_it_notices_a_timeline_that_is_written_without_its_record(monkeypatch: pytest.MonkeyPatch) -> None:
    write = memory.MemoryStore.write_features

    async def apart(self: Any, partition: int, writes: list[FeatureWrite], folded: Offset, events: int) -> list[bool]:
        for entry in writes:
            if entry.timeline:
                self._timelines.put(entry.customer, entry.timeline)
        return await write(self, partition, writes, folded, events)

    monkeypatch.setattr(memory.MemoryStore, "write_features", apart)
    assert _fails(seeds=100)
