"""Properties of the fold, on random streams that come out of order."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import reference
from feature_streams import SPECS, offsets, spec_lists, streams
from hypothesis import given, settings
from hypothesis import strategies as st

from features import EVENT_IDS_REMEMBERED_MAX, HEADER_BYTES, Event, FeatureSpec, Layout, Offset

LAYOUT = Layout.compile(SPECS)


def columns(layout: Layout, record: bytes) -> bytes:
    return record[HEADER_BYTES : layout.fixed_bytes]


def row(layout: Layout, record: bytes | None, now_ms: int) -> np.ndarray:
    return layout.read([record], np.array([now_ms]))[0]


def numbered(events: Sequence[Event], after: int = 0) -> list[Event]:
    return [replace(event, offset=at) for event, at in zip(events, offsets(len(events), after), strict=True)]


@settings(max_examples=400, deadline=None)
@given(specs=st.just(list(SPECS)) | spec_lists(), events=streams(), now_ms=st.integers(-50, 600))
def test_equals_the_reference(specs: list[FeatureSpec], events: list[Event], now_ms: int) -> None:
    layout = Layout.compile(specs)
    result = layout.fold(None, events)
    expected = [reference.value(specs, spec, events, now_ms) for spec in specs]
    np.testing.assert_array_equal(expected, row(layout, result.record, now_ms))
    assert reference.late(specs, events) == result.late
    assert len(events) == result.applied


@given(events=streams(ids=True), cuts=st.lists(st.integers(0, 40)))
def test_where_the_stream_is_cut_changes_no_byte(events: list[Event], cuts: list[int]) -> None:
    whole = LAYOUT.fold(None, events)
    record, late, duplicates = None, 0, 0
    for start, end in pairwise([0, *sorted(cuts), max(40, len(events))]):
        result = LAYOUT.fold(record, events[start:end])
        record, late, duplicates = result.record, late + result.late, duplicates + result.duplicates
    assert whole.record == record
    assert (whole.late, whole.duplicates) == (late, duplicates)


@given(events=streams(ids=True), start=st.integers(0, 40), end=st.integers(0, 40))
def test_redelivery_of_any_stretch_changes_no_byte(events: list[Event], start: int, end: int) -> None:
    record = LAYOUT.fold(None, events).record
    again = LAYOUT.fold(record, events[start:end])
    assert record == again.record
    assert len(events[start:end]) == again.redelivered


@given(events=streams(ids=True), done=st.integers(0, 40), resumed=st.integers(0, 40))
def test_resuming_earlier_than_one_stopped_changes_no_byte(events: list[Event], done: int, resumed: int) -> None:
    stopped = LAYOUT.fold(None, events[:done]).record
    assert LAYOUT.fold(None, events).record == LAYOUT.fold(stopped, events[min(resumed, done) :]).record


@given(events=streams(max_size=20), again=st.lists(st.integers(0, 19), max_size=20))
def test_a_repeat_by_id_changes_only_the_counters(events: list[Event], again: list[int]) -> None:
    events = [replace(event, id_hash=number + 1) for number, event in enumerate(events)]
    once = LAYOUT.fold(None, events).record
    repeats = numbered([events[number] for number in again if number < len(events)], after=len(events))
    twice = LAYOUT.fold(once, repeats)
    assert columns(LAYOUT, once) == columns(LAYOUT, twice.record)
    before, after = LAYOUT.header(once), LAYOUT.header(twice.record)
    watermark = repeats[-1].offset if repeats else before.watermark
    assert replace(before, duplicates=len(repeats), watermark=watermark) == after
    assert len(repeats) == twice.duplicates


@given(events=streams(time_ms_max=49), data=st.data())
def test_order_within_the_windows_changes_no_byte_of_a_column(events: list[Event], data: st.DataObject) -> None:
    layout = Layout.compile([spec for spec in SPECS if spec.window_ms is None or spec.window_ms >= 50])
    # Of two values at the same time the later offset wins, so `last` is given distinct times.
    events = list({(event.type, event.time_ms): event for event in events}.values())
    shuffled = data.draw(st.permutations(events))
    first, second = layout.fold(None, numbered(events)), layout.fold(None, numbered(shuffled))
    assert (first.late, second.late) == (0, 0)
    assert columns(layout, first.record) == columns(layout, second.record)


def test_an_id_is_forgotten_after_as_many_others() -> None:
    events = [Event(number, "visit", 10, {}, Offset(number, 0)) for number in range(1, EVENT_IDS_REMEMBERED_MAX + 1)]
    first = replace(events[0], offset=Offset(1_000, 0))
    assert LAYOUT.fold(None, [*events, first]).duplicates == 1
    one_more = Event(999, "visit", 10, {}, Offset(999, 0))
    assert LAYOUT.fold(None, [*events, one_more, first]).duplicates == 0


def test_events_without_id_are_never_duplicates() -> None:
    assert LAYOUT.fold(None, [Event(0, "visit", 1, {}, at) for at in offsets(3)]).applied == 3


def test_an_event_of_an_unknown_type_moves_the_header_only() -> None:
    result = LAYOUT.fold(None, [Event(7, "sneeze", 123, {}, Offset(5, 1))])
    assert columns(LAYOUT, LAYOUT.fold(None, []).record) == columns(LAYOUT, result.record)
    header = LAYOUT.header(result.record)
    assert (Offset(5, 1), 123, 1) == (header.watermark, header.latest_event_ms, header.events)


@pytest.mark.parametrize(
    ("amounts", "expected"),
    [
        ([0.1, 0.2, 0.3], 0.6),  # binary floats would make it 0.6000000000000001
        ([1e308], 2**53 / 1e6),  # clamped
        ([-1e308, 1e308], 0.0),
        ([10**400, 1.0], 1.0),  # an integer beyond all floats is of no use
        ([1e308] * 2_000, (2**63 - 1) / 1e6),  # the sum stops at the end of its column
    ],
)
def test_sums_are_exact_and_bounded(amounts: list[float], expected: float) -> None:
    layout = Layout.compile([FeatureSpec("spent", "sum", "purchase", attribute="amount")])
    events = [Event(0, "purchase", 0, {"amount": a}, at) for a, at in zip(amounts, offsets(len(amounts)), strict=True)]
    assert layout.values(layout.fold(None, events).record, 0) == {"spent": expected}


@pytest.mark.parametrize("resolution", [1e-12, 1e-6, 0.01, 0.25, 0.3, 1.0, 5.0, 1e12])
def test_a_multiple_of_the_resolution_reads_as_itself(resolution: float) -> None:
    layout = Layout.compile([FeatureSpec("spent", "sum", "purchase", attribute="amount", resolution=resolution)])
    event = Event(0, "purchase", 0, {"amount": 7 * resolution}, Offset(1, 0))
    assert layout.values(layout.fold(None, [event]).record, 0)["spent"] == pytest.approx(7 * resolution, rel=1e-15)


def test_times_before_1970_have_tiles_too() -> None:
    layout = Layout.compile([FeatureSpec("visits", "count", "visit", window_ms=100, tile_ms=10)])
    record = layout.fold(
        None, [Event(0, "visit", -1, {}, Offset(1, 0)), Event(0, "visit", -95, {}, Offset(2, 0))]
    ).record
    assert [row(layout, record, now)[0] for now in (-1, 0, 90)] == [2.0, 1.0, 0.0]
