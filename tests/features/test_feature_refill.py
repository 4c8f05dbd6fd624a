"""Parts of a record that a change of the configuration left empty are filled, and nothing else is touched."""

import pytest
from feature_streams import spec_lists, streams
from hypothesis import given, settings
from hypothesis import strategies as st

from features import Event, FeatureSpec, Layout, Offset, RecordError

WEEK = FeatureSpec("week", "count", "visit", window_ms=70, tile_ms=10)
QUARTER = FeatureSpec("quarter", "count", "visit", window_ms=300, tile_ms=10)
SPENT = FeatureSpec("spent", "sum", "purchase", attribute="amount")
BASKET = FeatureSpec("basket", "mean", "purchase", attribute="amount")
SHARE = FeatureSpec("share", "ratio", numerator="spent", denominator="quarter")
COUNTS = st.integers(0, 40)


def names(layout: Layout, *asked: str) -> list[tuple[str, ...]]:
    return sorted(part.features for part in layout.parts(asked))


@settings(max_examples=300, deadline=None)
@given(before=spec_lists(), after=spec_lists(), events=streams(ids=True), cut=COUNTS, end=COUNTS)
def test_refilled_from_all_events_it_is_as_if_the_layout_had_been_there_from_the_start(
    before: list[FeatureSpec], after: list[FeatureSpec], events: list[Event], cut: int, end: int
) -> None:
    old, new = Layout.compile(before), Layout.compile(after, older=[before])
    changed = new.fold(old.fold(None, events[:cut]).record, events[cut:end]).record
    parts = new.parts()
    always = new.fold(None, events[: max(cut, end)]).record
    filled = new.refilled(changed, always, parts)
    everything = new.parts(new.names) if new.names else ()
    assert new.refilled(filled, always, everything) == filled, "every cell is as it should be"
    header, kept = new.header(filled), new.header(new.merge([changed]))
    assert header == kept, "counters and watermark stay"
    assert new.refilled(filled, always, parts) == filled
    later = new.fold(filled, events[max(cut, end) :]).record
    whole = new.fold(always, events[max(cut, end) :]).record
    assert new.refilled(later, whole, everything) == later, "and so it goes on"


def test_what_is_new_is_what_no_other_layout_keeps_or_not_as_far_back() -> None:
    layout = Layout.compile([WEEK, QUARTER, SPENT, BASKET, SHARE], older=[[WEEK], [SPENT]])
    assert names(layout) == [("basket",), ("quarter", "share")]
    assert names(Layout.compile([WEEK, QUARTER], older=[[QUARTER]])) == []
    assert names(Layout.compile([WEEK, QUARTER])) == [], "nothing is new where nothing was before"


def test_what_looks_at_the_clock_is_new_in_another_time_zone_and_nothing_else_is() -> None:
    specs = [
        FeatureSpec("this_hour", "hour_share", "visit"),
        FeatureSpec("at_night", "count", "visit", condition="hour < 6"),
        FeatureSpec("large", "count", "purchase", condition="amount > 5.0 && 'hour' != 'weekday'"),
        WEEK,
    ]
    before = Layout.compile(specs, "UTC")
    three_at_night = 3 * 3_600_000  # noon in Tokyo
    events = [
        Event(0, "visit", three_at_night, {}, Offset(1, 0)),
        Event(0, "purchase", three_at_night, {"amount": 9.0}, Offset(1, 1)),
    ]
    record = before.fold(None, events).record
    layout = Layout.compile(specs, "Asia/Tokyo")
    layout.learn(specs, "UTC")
    found = {"this_hour": None, "at_night": 0.0, "large": 1.0, "week": 1.0}
    assert layout.values(record, three_at_night) == found
    assert names(layout) == [("this_hour", "at_night")]
    always = layout.fold(None, events).record
    assert layout.refilled(record, always, layout.parts()) == always
    again = Event(0, "visit", three_at_night, {}, Offset(2, 0))
    assert layout.values(layout.fold(record, [again]).record, three_at_night)["this_hour"] == 1.0


def test_a_text_that_gets_another_value_is_filled_with_it() -> None:
    short = FeatureSpec("channel", "last", "visit", attribute="channel", categories=("web",))
    long = FeatureSpec("channel", "last", "visit", attribute="channel", categories=("app", "web"))
    layout = Layout.compile([long, WEEK], older=[[short, WEEK]])
    [part] = layout.parts()
    assert (part.features, part.known_to) == (("channel",), {Layout.compile([short, WEEK]).version})
    events = [Event(0, "visit", 1, {"channel": "app"}, Offset(1, 0))]
    record = Layout.compile([short, WEEK]).fold(None, events).record
    assert layout.values(record, 2)["channel"] is None, "it was not known then"
    assert layout.refilled(record, layout.fold(None, events).record, [part]) == layout.fold(None, events).record


def test_features_can_be_asked_for_whoever_keeps_them() -> None:
    layout = Layout.compile([WEEK, QUARTER, SPENT, SHARE], older=[[WEEK, SPENT]])
    assert names(layout, "spent") == [("spent",)]
    assert names(layout, "share") == [("share",), ("share",)], "kept equally long by others, or not"
    [part] = layout.parts(["spent"])
    assert part.known_to == {Layout.compile([WEEK, SPENT]).version}
    with pytest.raises(ValueError, match="feature 'spend': there is none; there are week, quarter, spent, share"):
        layout.parts(["spend"])


def test_what_is_not_asked_for_stays() -> None:
    layout = Layout.compile([WEEK, SPENT], older=[[]])
    events = [
        Event(0, "visit", 5, {}, Offset(1, 0)),
        Event(0, "purchase", 5, {"amount": 2.0}, Offset(2, 0)),
    ]
    nothing, made = layout.fold(None, []).record, layout.fold(None, events).record
    assert layout.values(layout.refilled(nothing, made, layout.parts(["spent"])), 9) == {"week": 0.0, "spent": 2.0}
    assert layout.values(layout.refilled(made, nothing, layout.parts(["spent"])), 9) == {"week": 1.0, "spent": 0.0}
    assert layout.refilled(made, nothing, ()) == made
    with pytest.raises(RecordError):
        layout.refilled(made[:-1] + b"\0", nothing, ())
