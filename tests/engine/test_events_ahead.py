"""An event that is dated ahead, as far as the clock bounds allow, counts as of its arrival and moves nothing on."""

import orjson
import pytest

from features import Event, FeatureSpec, Layout, Offset
from opportune.v1 import events_pb2
from tests.small_engine import CONFIG, SmallEngine

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
TEXT = CONFIG.replace(b"opportune: 1\n", b"opportune: 1\nclock: {future: 1d}\n", 1).replace(
    b"features:\n",
    b"features:\n"
    b"  - {name: warm, event: purchase, function: decayed, half_life: 1h}\n"
    b"  - {name: last_hour, event: purchase, function: count, window: 1h}\n",
)


async def publish(engine: SmallEngine, event_type: str, event_id: str, time_ms: int) -> None:
    event = events_pb2.Event(id=event_id, source="tests", type=event_type, customer_id="ann", time_ms=time_ms)
    if event_type == "purchase":
        event.attributes["amount"].number = 1.0
    [position] = (await engine.service.events.publish(events_pb2.PublishRequest(events=[event]))).positions
    assert position


async def values(engine: SmallEngine) -> dict[str, float]:
    await engine.settle()
    return {feature.name: feature.value.number for feature in (await engine.customer()).features}


async def test_an_event_ahead_takes_nothing_away_from_those_in_time() -> None:
    engine = SmallEngine(TEXT)
    for minute in range(30):
        await publish(engine, "purchase", f"p{minute}", engine.now_ms - minute * MINUTE_MS)
    before = await values(engine)
    assert before["warm"] == pytest.approx(sum(0.5 ** (minute / 60) for minute in range(30)), rel=1e-6)
    assert before["last_hour"] == 30.0

    await publish(engine, "complaint", "c", engine.now_ms + 12 * HOUR_MS)
    assert (await values(engine))["warm"] == before["warm"], "of a type that the feature does not take"

    await publish(engine, "purchase", "ahead", engine.now_ms + 12 * HOUR_MS)
    await publish(engine, "purchase", "in time", engine.now_ms)
    found = await values(engine)
    assert found["warm"] == pytest.approx(before["warm"] + 2.0, rel=1e-6)
    assert found["last_hour"] == 32.0
    record = (await engine.store.read_features(["ann"]))[0]
    assert record is not None
    header = engine.catalogue.layout.header(record)
    assert (header.late, header.latest_event_ms) == (0, engine.now_ms)


async def test_the_log_has_the_time_that_counts() -> None:
    engine = SmallEngine(TEXT)
    await publish(engine, "complaint", "c", engine.now_ms + HOUR_MS)
    arrived_ms, engine.now_ms = engine.now_ms, engine.now_ms + 5 * HOUR_MS
    found = await engine.store.read_events(dict.fromkeys(range(engine.store.partitions), Offset.ZERO), 10, 0)
    [[entry]] = [entries for entries in found.values() if entries]
    assert orjson.loads(entry.data)[3] == arrived_ms


def test_what_is_in_tiles_before_now_is_read_exactly_though_a_newer_event_lies_ahead() -> None:
    layout = Layout.compile([FeatureSpec("warm", "decayed", "visit", half_life_ms=1_000)])
    events = [Event(0, "visit", 7_500, {}, Offset(1, 0)), Event(0, "call", 900_000, {}, Offset(1, 1))]
    record = layout.fold(None, events).record
    assert layout.values(record, 8_500)["warm"] == pytest.approx(0.5, rel=1e-9)
