"""The last text of an open vocabulary, kept as its hash."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import Event, FeatureSpec, Layout, Offset, shown_hash, text_hash

LAST = FeatureSpec("city", "last", "visit", attribute="city", hashed=True)
LAYOUT = Layout.compile([LAST, FeatureSpec("home", "first", "visit", attribute="city", hashed=True)])


def visits(*cities: str | float) -> list[Event]:
    return [Event(0, "visit", 1_000 * n, {"city": city}, Offset(n, 0)) for n, city in enumerate(cities, 1)]


def read(layout: Layout, record: bytes | None) -> list[float]:
    found: list[float] = layout.read([record], np.array([10_000_000]))[0].tolist()
    return found


def test_the_hash_is_the_same_for_ever() -> None:
    """Records of customers and lessons rest on it."""
    texts = ["Prague", "prague", "Žižkov", "x" * 256, "\ud800"]
    assert [shown_hash(text_hash(text)) for text in texts] == [
        "#c4f94d425e48", "#a407743d3326", "#b5c5e109ee0d", "#761b8937d574", "#85328210b23e",
    ]
    assert text_hash("") == -1.0


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=12), st.randoms())
def test_newest_and_oldest_text_whatever_the_order(cities: list[str], dice: object) -> None:
    events = visits(*cities)
    expected = [text_hash(cities[-1]), text_hash(cities[0])]
    assert read(LAYOUT, LAYOUT.fold(None, events).record) == expected
    order = list(range(len(events)))
    dice.shuffle(order)  # type: ignore[attr-defined]
    late = [replace(events[n], offset=Offset(place, 0)) for place, n in enumerate(order, 1)]
    assert read(LAYOUT, LAYOUT.fold(None, late).record) == expected


def test_an_empty_text_is_news_and_what_is_no_text_is_none() -> None:
    assert read(LAYOUT, LAYOUT.fold(None, visits("Brno", "")).record)[0] == -1.0
    assert read(LAYOUT, LAYOUT.fold(None, visits("Brno", 3.0)).record)[0] == text_hash("Brno")
    assert np.isnan(read(LAYOUT, None)).all()


def test_people_are_shown_the_hash() -> None:
    record = LAYOUT.fold(None, visits("Brno")).record
    assert LAYOUT.values(record, 10_000_000)["city"] == shown_hash(text_hash("Brno"))
    assert LAYOUT.values(LAYOUT.fold(None, visits("")).record, 10_000_000)["city"] is None


def test_another_layout_carries_it_over() -> None:
    wider = Layout.compile([*LAYOUT.specs, FeatureSpec("visits", "count", "visit")])
    wider.learn(LAYOUT.specs, "UTC")
    found = wider.fold(LAYOUT.fold(None, visits("Brno")).record, [])
    assert read(wider, found.record)[0] == text_hash("Brno")
    plain = Layout.compile([FeatureSpec("city", "last", "visit", attribute="city", categories=("Brno",))])
    assert plain.version != Layout.compile([LAST]).version


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (FeatureSpec("n", "mean", "visit", attribute="city", hashed=True), "mean takes no hash of a text"),
        (FeatureSpec("n", "last", "visit", attribute="city", hashed=True, categories=("a",)), "categories beside a"),
    ],
)
def test_what_cannot_be_hashed(spec: FeatureSpec, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Layout.compile([spec])
