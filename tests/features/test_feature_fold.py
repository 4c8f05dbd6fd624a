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

from features import (
    EVENT_IDS_REMEMBERED_MAX,
    HEADER_BYTES,
    Event,
    FeatureSpec,
    Layout,
    Offset,
    RecordError,
    value_max,
)
from features.record import ID_BYTES
from features.tables import position

LAYOUT = Layout.compile(SPECS)


def features_of(record: bytes) -> bytes:
    """The groups of a record: what stands behind its counters and ids and before its checksum."""
    at = HEADER_BYTES
    for _ in range(3):
        while record[at] >= 0x80:
            at += 1
        at += 1
    return record[at + 1 + ID_BYTES * record[at] :]


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
    found = row(layout, result.record, now_ms)
    for spec, wanted, given_ in zip(specs, expected, found, strict=True):
        if spec.function == "decayed":  # each event is rounded to the resolution when it is added
            assert given_ == pytest.approx(wanted, rel=1e-9, abs=0.51 * spec.resolution * len(events)), spec
        else:
            np.testing.assert_equal(given_, wanted, err_msg=str(spec))
    assert reference.late(specs, events) == result.late
    assert len(events) == result.applied


@settings(deadline=None)
@given(events=streams(ids=True), cuts=st.lists(st.integers(0, 40)))
def test_where_the_stream_is_cut_changes_no_byte(events: list[Event], cuts: list[int]) -> None:
    whole = LAYOUT.fold(None, events)
    record, late, duplicates = None, 0, 0
    for start, end in pairwise([0, *sorted(cuts), max(40, len(events))]):
        result = LAYOUT.fold(record, events[start:end])
        record, late, duplicates = result.record, late + result.late, duplicates + result.duplicates
    assert whole.record == record
    assert (whole.late, whole.duplicates) == (late, duplicates)


@settings(deadline=None)
@given(events=streams(ids=True), start=st.integers(0, 40), end=st.integers(0, 40))
def test_redelivery_of_any_stretch_changes_no_byte(events: list[Event], start: int, end: int) -> None:
    record = LAYOUT.fold(None, events).record
    again = LAYOUT.fold(record, events[start:end])
    assert record == again.record
    assert len(events[start:end]) == again.redelivered


@settings(deadline=None)
@given(events=streams(ids=True), done=st.integers(0, 40), resumed=st.integers(0, 40))
def test_resuming_earlier_than_one_stopped_changes_no_byte(events: list[Event], done: int, resumed: int) -> None:
    stopped = LAYOUT.fold(None, events[:done]).record
    assert LAYOUT.fold(None, events).record == LAYOUT.fold(stopped, events[min(resumed, done) :]).record


@settings(deadline=None)
@given(events=streams(max_size=20), again=st.lists(st.integers(0, 19), max_size=20))
def test_a_repeat_by_id_changes_only_the_counters(events: list[Event], again: list[int]) -> None:
    events = [replace(event, id_hash=number + 1) for number, event in enumerate(events)]
    once = LAYOUT.fold(None, events).record
    repeats = numbered([events[number] for number in again if number < len(events)], after=len(events))
    twice = LAYOUT.fold(once, repeats)
    assert features_of(once) == features_of(twice.record)
    before, after = LAYOUT.header(once), LAYOUT.header(twice.record)
    watermark = repeats[-1].offset if repeats else before.watermark
    assert replace(before, duplicates=len(repeats), watermark=watermark) == after
    assert len(repeats) == twice.duplicates


@settings(deadline=None)
@given(events=streams(time_ms_max=49), data=st.data())
def test_order_within_the_windows_changes_no_byte_of_a_feature(events: list[Event], data: st.DataObject) -> None:
    layout = Layout.compile([spec for spec in SPECS if not spec.tiles or spec.tiles * spec.tile_width_ms >= 50])
    shuffled = data.draw(st.permutations(events))
    first, second = layout.fold(None, numbered(events)), layout.fold(None, numbered(shuffled))
    assert (first.late, second.late) == (0, 0)
    assert features_of(first.record) == features_of(second.record)


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
    assert features_of(LAYOUT.fold(None, []).record) == features_of(result.record)
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


@pytest.mark.parametrize("at_ms", [0, 1, 4_000, 7_999])
def test_the_bound_of_a_value_that_decays_does_not_depend_on_when_it_came(at_ms: int) -> None:
    layout = Layout.compile([FeatureSpec("warm", "decayed", "purchase", attribute="amount", half_life_ms=1_000)])

    def found(amount: float) -> float:
        record = layout.fold(None, [Event(0, "purchase", at_ms, {"amount": amount}, Offset(1, 0))]).record
        return float(layout.read([record], np.array([at_ms]))[0, 0])

    assert found(value_max("decayed", 1e-6)) == pytest.approx(value_max("decayed", 1e-6), rel=1e-12)
    assert found(1e308) == pytest.approx(2**53 / 1e6, rel=1e-12)


def test_a_tile_has_room_for_a_thousand_of_the_largest_that_is_told() -> None:
    layout = Layout.compile([FeatureSpec("warm", "decayed", "purchase", attribute="amount", half_life_ms=1_000)])
    most = value_max("decayed", 1e-6)
    events = [Event(0, "purchase", 7_999, {"amount": most}, at) for at in offsets(1_000)]
    assert layout.values(layout.fold(None, events).record, 7_999)["warm"] == pytest.approx(1_000 * most, rel=1e-12)


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


@settings(deadline=None)
@given(data=st.data())
def test_many_customers_at_once_are_folded_as_one_by_one(data: st.DataObject) -> None:
    batches = data.draw(st.lists(st.tuples(streams(ids=True), st.integers(0, 40)), max_size=6))
    old = [LAYOUT.fold(None, events[:cut]).record if cut else None for events, cut in batches]
    results = LAYOUT.fold_many(old, [events for events, _ in batches])
    assert results == [LAYOUT.fold(record, events) for record, (events, _) in zip(old, batches, strict=True)]


def test_a_customer_whose_record_is_damaged_disturbs_no_other() -> None:
    events = [Event(0, "visit", 1, {}, at) for at in offsets(2)]
    good = LAYOUT.fold(None, events[:1]).record
    first, wrong, last = LAYOUT.fold_many([good, b"\0" + good[1:], None], [events] * 3)
    assert isinstance(wrong, RecordError)
    assert (first, last) == (LAYOUT.fold(good, events), LAYOUT.fold(None, events))


def test_an_expression_says_what_is_added_and_which_events_count() -> None:
    specs = [
        FeatureSpec("paid", "sum", "purchase", value="amount * count", condition="channel == 'web' && hour < 12"),
        FeatureSpec("mondays", "count", "purchase", condition="weekday == 0"),
        FeatureSpec("large", "count", "purchase", condition="amount > 10.0", window_ms=86_400_000),
    ]
    layout = Layout.compile(specs, "Europe/Prague")
    monday_noon_ms = 1_781_517_600_000  # 2026-06-15 10:00 UTC, noon in Prague
    one = {"amount": 20.0, "count": 3.0, "channel": "web"}
    events = [
        Event(0, "purchase", monday_noon_ms, one, Offset(1, 0)),
        Event(0, "purchase", monday_noon_ms - 3_600_000, one, Offset(2, 0)),
        Event(0, "purchase", monday_noon_ms - 7_200_000, {"amount": 5.0, "channel": "web"}, Offset(3, 0)),
        Event(0, "purchase", monday_noon_ms - 86_400_000, {"amount": "a lot"}, Offset(4, 0)),
    ]
    values = layout.values(layout.fold(None, events).record, monday_noon_ms)
    assert values == {"paid": 60.0, "mondays": 3.0, "large": 2.0}


def test_the_usual_hour_and_weekday() -> None:
    specs = [FeatureSpec("hour", "hour_share", "visit"), FeatureSpec("weekday", "weekday_share", "visit")]
    layout = Layout.compile(specs, "Asia/Tokyo")
    hour_ms = 3_600_000
    # 1970-01-01 was a Thursday; 9 in the morning in Tokyo.
    events = [Event(0, "visit", at * hour_ms, {}, Offset(at + 1, 0)) for at in (0, 1, 24, 48)]
    record = layout.fold(None, events).record
    assert layout.values(record, 48 * hour_ms) == {"hour": 0.75, "weekday": 0.25}
    assert layout.values(record, 0) == {"hour": 0.75, "weekday": 0.5}
    assert layout.values(None, 0) == {"hour": None, "weekday": None}


# --- merging --------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(events=streams(), of=st.lists(st.integers(0, 2), min_size=40, max_size=40), now_ms=st.integers(0, 600))
def test_merging_gives_what_the_union_of_the_events_would_have(
    events: list[Event], of: list[int], now_ms: int
) -> None:
    """In order of time: what is late depends on what came before, and that is another thing in each part."""
    events = numbered(sorted(events, key=lambda event: event.time_ms))
    parts = [[event for event, part in zip(events, of, strict=False) if part == number] for number in range(3)]
    records = [LAYOUT.fold(None, part).record for part in parts]
    merged, union = LAYOUT.merge(records), LAYOUT.fold(None, events).record
    assert features_of(merged) == features_of(union)
    np.testing.assert_array_equal(row(LAYOUT, merged, now_ms), row(LAYOUT, union, now_ms))
    assert LAYOUT.header(merged) == replace(LAYOUT.header(union), watermark=LAYOUT.header(records[0]).watermark)


def test_the_ids_of_the_first_record_are_remembered_longest() -> None:
    def record(numbers: range) -> bytes:
        return LAYOUT.fold(None, [Event(n, "visit", 1, {}, Offset(n, 0)) for n in numbers]).record

    merged = LAYOUT.merge([record(range(1, 31)), record(range(101, 131))])
    again = [Event(n, "visit", 1, {}, Offset(1_000 + n, 0)) for n in (1, 30, 130, 129, 128)]
    assert [LAYOUT.fold(merged, [event]).duplicates for event in again] == [1, 1, 1, 1, 0]


def test_sketches_that_grow_past_their_parts_when_merged() -> None:
    """Sixty positions of one record and another of the next are written as 129 bytes, which were 61 and 2."""
    one = FeatureSpec("", "distinct", "visit", window_ms=256, tile_ms=1)
    layout = Layout.compile([replace(one, name=f"distinct_{n}", attribute=f"a{n}") for n in range(40)])
    words = list({position(f"word {n}"): f"word {n}" for n in range(200)}.values())

    def of(texts: list[str]) -> list[Event]:
        events = [
            Event(0, "visit", time_ms, {f"a{n}": text for n in range(40)}, Offset(0, 0))
            for time_ms in range(256)
            for text in texts
        ]
        return [replace(event, offset=Offset(1, at)) for at, event in enumerate(events)]

    parts = [layout.fold(None, of(some)).record for some in (words[:60], words[60:61])]
    merged = layout.merge(parts)
    assert len(merged) > 2 * sum(map(len, parts))
    assert features_of(merged) == features_of(layout.fold(None, of(words[:61])).record)
