"""Durations, offsets, events, and what a spec may say."""

import math
from dataclasses import replace

import pytest

from features import FEATURES_MAX, Event, FeatureSpec, Layout, Offset, parse_duration_ms, validate

SUM = FeatureSpec("spent", "sum", "purchase", attribute="amount", window_ms=parse_duration_ms("7d"))
LAST = FeatureSpec("channel", "last", "visit", attribute="channel", categories=("web", "app"))


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [("1ms", 1), ("30s", 30_000), ("15m", 900_000), ("1h", 3_600_000), ("90d", 7_776_000_000), ("2w", 1_209_600_000)],
)
def test_durations(text: str, expected_ms: int) -> None:
    assert expected_ms == parse_duration_ms(text)


@pytest.mark.parametrize("text", ["", "h", "1", "1 h", "-1h", "1.5h", "1y", "0d", "1h\n", "٣h"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration .*: expected"):
        parse_duration_ms(text)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (replace(SUM, name=""), "feature '': expected a name"),
        (replace(SUM, function="median"), "function 'median': expected one of count, sum, mean, min, max, last,"),
        (replace(SUM, event=""), "expected an event type"),
        (replace(SUM, attribute=None), "sum needs an attribute"),
        (replace(SUM, function="count"), "count takes no attribute"),
        (replace(SUM, value="amount * 2.0"), "an attribute and a value: expected one of them"),
        (replace(SUM, attribute=None, value="amount +"), "value: not an expression of CEL: it ends too early"),
        (replace(SUM, condition="[1].exists(x, true)"), "where: exists is not allowed"),
        (replace(SUM, half_life_ms=5), "sum takes no half_life"),
        (replace(SUM, function="decayed", window_ms=None), "decayed needs a half_life"),
        (replace(SUM, function="decayed", half_life_ms=0, window_ms=None), "half-life of 0d"),
        (replace(SUM, numerator="a"), "sum has no numerator and denominator"),
        (FeatureSpec("r", "ratio", numerator="a"), "ratio of 'a': expected a feature that is declared before it"),
        (FeatureSpec("r", "ratio"), "ratio needs a numerator and a denominator"),
        (replace(SUM, function="recency", attribute=None), "recency takes no window"),
        (replace(SUM, window_ms=0), "window of 0d: expected 1ms to 3660d"),
        (replace(SUM, window_ms=-5), "window of -5ms"),
        (replace(SUM, window_ms=10**15), "window of 1000000000000s"),
        (replace(SUM, tile_ms=0), "tile of 0d"),
        (replace(SUM, tile_ms=691_200_000), "tile of 8d: expected 1ms to the window, 7d"),
        (replace(SUM, tile_ms=SUM.window_ms + 1), "tile of 604800001ms: expected 1ms to the window, 7d"),
        (replace(SUM, tile_ms=60_000), "10080 tiles: expected at most 256, so a tile of 2362500ms or more"),
        (replace(SUM, window_ms=None, tile_ms=5), "a tile without a window"),
        (replace(SUM, where=(("", 1.0),)), "where: expected the name"),
        (replace(SUM, where=(("a", 1.0), ("a", 2.0))), "where: an attribute is named twice"),
        (replace(SUM, where=(("a", math.nan),)), "where a: expected a finite number"),
        (replace(SUM, categories=("a",)), "sum takes no categories"),
        (replace(LAST, categories=("a", "a")), "categories: a text is listed twice"),
        (replace(LAST, categories=("",)), "categories: expected texts that are not empty"),
        (replace(LAST, default=math.inf), "default: expected a finite number"),
        (replace(SUM, resolution=0.0), "resolution 0.0: expected"),
        (replace(SUM, resolution=math.nan), "resolution nan: expected"),
    ],
)
def test_what_a_spec_may_not_say(spec: FeatureSpec, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        validate([spec])
    assert str(caught.value).startswith(f"feature {spec.name!r}: ")
    assert message in str(caught.value)


def test_names_are_unique_and_features_limited() -> None:
    with pytest.raises(ValueError, match="feature 'spent': the name is used twice"):
        validate([SUM, SUM])
    with pytest.raises(ValueError, match="1025 features: expected at most 1024"):
        validate([SUM] * (FEATURES_MAX + 1))


def test_a_record_has_a_limit_too() -> None:
    with pytest.raises(ValueError, match="words: expected at most 262144; use fewer"):
        sketch = replace(SUM, function="distinct", tile_ms=SUM.window_ms // 256)
        Layout.compile([replace(sketch, name=str(n), event=str(n)) for n in range(99)])
    with pytest.raises(ValueError, match=r"513 different things are kept of event 'purchase' .*: expected at most 512"):
        Layout.compile([replace(SUM, name=str(n), where=(("shop", str(n)),)) for n in range(513)])


def test_a_ratio_takes_no_events() -> None:
    with pytest.raises(ValueError, match="feature 'r': ratio takes no events"):
        validate([SUM, FeatureSpec("r", "ratio", "purchase", numerator=SUM.name, denominator=SUM.name)])


def test_a_time_zone_must_exist() -> None:
    with pytest.raises(ValueError, match="timezone 'Europe/Nowhere': expected the name of a time zone"):
        Layout.compile([SUM], "Europe/Nowhere")


def test_a_window_that_does_not_divide_has_one_tile_more() -> None:
    assert (
        replace(SUM, window_ms=100, tile_ms=7).tiles,
        replace(SUM, window_ms=100, tile_ms=7).tile_width_ms,
    ) == (15, 7)
    assert (replace(SUM, window_ms=100).tile_width_ms, replace(SUM, window_ms=100).tiles) == (9, 12)


def test_offsets_are_ordered_and_read_back() -> None:
    assert Offset.ZERO < Offset(0, 1) < Offset(1, 0) < Offset(1, 2**64 - 1)
    assert Offset(5, 7) == Offset.parse(str(Offset(5, 7)))


@pytest.mark.parametrize("text", ["", "5", "5-", "a-b", "-1-2", "5-7-9", "18446744073709551616-0", "5-7\n"])
def test_what_is_no_offset(text: str) -> None:
    with pytest.raises(ValueError, match=r"offset .*: expected"):
        Offset.parse(text)


@pytest.mark.parametrize("wild", [{"time_ms": 2**60}, {"time_ms": -(2**60)}, {"id_hash": -1}, {"id_hash": 2**64}])
def test_an_event_with_numbers_that_do_not_fit_is_not_made(wild: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        replace(Event(1, "visit", 0, {}, Offset(1, 0)), **wild)
