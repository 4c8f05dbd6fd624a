"""The timeline as bytes: equal to a brute-force reference, whatever the order, the batches and the repetitions."""

import json
from collections.abc import Sequence
from random import Random
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import limits
from engine.timeline import Keeper, TimelineError, merged, unpack
from features import Event, Offset

KEPT = {"visit": ("page", "seconds"), "call": ("topic",), "bare": ()}
KEEPER = Keeper(KEPT)

# Texts of some hundred bytes, so that the limit in bytes is met as well as the one in entries.
texts = st.sampled_from(["", "/", "řeka", "x" * 250, '"\\\x07' * 30])
optional = {"page": texts, "seconds": st.integers(-99, 99).map(float), "topic": st.booleans(), "ip": texts}
attributes = st.fixed_dictionaries({}, optional=optional)


@st.composite
def events(draw: st.DrawFn) -> list[Event]:
    """Events with distinct ids in order of arrival; many at the same time, some of types that are not kept."""
    dice = Random(draw(st.integers(0, 2**32)))
    some = draw(st.lists(attributes, min_size=1, max_size=8))
    return [
        Event(dice.getrandbits(64) or 1, dice.choice((*KEPT, "other")), dice.randint(-5, 400), dice.choice(some), at)
        for at in (Offset(1, number) for number in range(1, draw(st.integers(0, 300)) + 1))
    ]


def reference(found: Sequence[Event]) -> list[tuple[int, str, dict[str, object]]]:
    """(time, type, attributes) of what is kept, oldest first: all are sorted, the newest that fit are taken."""
    first = {event.id_hash: event for event in reversed(found) if event.type in KEPT}
    kept: list[tuple[int, str, dict[str, object]]] = []
    size = 0
    for event in sorted(first.values(), key=lambda event: (event.time_ms, event.id_hash % 2**48), reverse=True):
        written = [event.attributes.get(name) for name in KEPT[event.type]]
        size += 40 + len(json.dumps(written, ensure_ascii=False, separators=(",", ":")).encode())
        if size > limits.TIMELINE_BYTES_MAX or len(kept) == limits.TIMELINE_ENTRIES_MAX:
            break
        values = {name: event.attributes[name] for name in KEPT[event.type] if name in event.attributes}
        kept.insert(0, (event.time_ms, event.type, values))
    return kept


def contents(data: bytes) -> list[tuple[int, str, dict[str, object]]]:
    return [(entry.time_ms, entry.type, dict(entry.attributes)) for entry in unpack(data).entries]


@given(events())
@settings(max_examples=150, deadline=None)
def test_it_keeps_what_the_reference_keeps(found: list[Event]) -> None:
    assert contents(KEEPER.extended(None, found)) == reference(found)


@given(events(), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_order_batches_and_repetitions_change_no_byte(found: list[Event], dice: Random) -> None:
    expected = KEEPER.extended(None, found)
    again = found + dice.sample(found, len(found) // 3)
    dice.shuffle(again)
    data = KEEPER.extended(None, [])
    while again:
        cut = dice.randint(1, 40)
        data, again = KEEPER.extended(data, again[:cut]), again[cut:]
    assert data == expected


@given(events(), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_timelines_that_are_merged_are_that_of_all_events(found: list[Event], dice: Random) -> None:
    parts: list[list[Event]] = [[], [], []]
    for event in found:
        for part in dice.sample(parts, dice.choice((1, 1, 2))):
            part.append(event)
    data = [KEEPER.extended(None, part) if part else None for part in parts]
    assert merged(data) == KEEPER.extended(None, found)


@given(events())
@settings(max_examples=50, deadline=None)
def test_it_is_bounded_and_says_what_it_let_go(found: list[Event]) -> None:
    data = KEEPER.extended(None, found)
    names = sum(len(event_type) + sum(map(len, kept)) + 4 * len(kept) + 8 for event_type, kept in KEPT.items())
    assert len(data) <= limits.TIMELINE_BYTES_MAX + names + 60
    timeline = unpack(data)
    taken = [event for event in found if event.type in KEPT]
    assert (timeline.floor_ms is None) == (len(timeline.entries) == len(taken))
    if timeline.floor_ms is not None:
        assert all(entry.time_ms >= timeline.floor_ms for entry in timeline.entries)
        assert KEEPER.extended(data, [Event(7, "call", timeline.floor_ms - 1, {}, Offset(2, 0))]) == data


def test_the_first_of_two_events_with_one_id_counts() -> None:
    first, again = Event(9, "call", 50, {"topic": True}, Offset(1, 1)), Event(9, "call", 60, {}, Offset(1, 2))
    assert KEEPER.extended(None, [first, again]) == KEEPER.extended(KEEPER.extended(None, [first]), [again, again])
    assert contents(KEEPER.extended(None, [first, again])) == [(50, "call", {"topic": True})]


def test_events_without_an_id_are_told_apart_by_their_place_in_the_log() -> None:
    found = [Event(0, "bare", 5, {}, Offset(1, number)) for number in (1, 2, 2)]
    assert len(contents(KEEPER.extended(None, found))) == 2


def test_what_makes_an_entry_too_large_is_left_out_and_the_rest_stays() -> None:
    """The limit is of the entry, so that no event can drive all others away."""
    wide = Keeper({"wide": tuple(f"a{n}" for n in range(16))})
    given_all = {f"a{n}": "\x01" * 256 for n in range(16)}
    data = wide.extended(None, [Event(n, "wide", n, given_all, Offset(1, n)) for n in range(1, 9)])
    entries = unpack(data).entries
    assert len(entries) >= 4
    assert all(dict(entry.attributes) == {"a0": "\x01" * 256} for entry in entries)


def test_attributes_keep_their_names_when_the_configuration_changes() -> None:
    old = KEEPER.extended(None, [Event(1, "visit", 10, {"page": "/a", "seconds": 2.0}, Offset(1, 1))])
    new = Keeper({"visit": ("seconds", "device")})
    both = new.extended(old, [Event(2, "visit", 20, {"seconds": 3.0, "device": "phone"}, Offset(1, 2))])
    assert contents(both) == [
        (10, "visit", {"page": "/a", "seconds": 2.0}),
        (20, "visit", {"seconds": 3.0, "device": "phone"}),
    ]


@pytest.mark.parametrize("data", [b"", b"{", b"1234", b"\xff" * 30, b"\0" * 100])
def test_what_is_no_timeline_is_refused(data: bytes) -> None:
    for read in (unpack, lambda damaged: KEEPER.extended(damaged, []), lambda damaged: merged([damaged])):
        with pytest.raises(TimelineError, match=f"{len(data)} bytes"):
            read(data)


@pytest.mark.parametrize("body", [b"{}", b"[]", b"[1,[0],[],[]]", b"[1,[0,0],[],[[1,2,0]]]", b"[2,[0,0],[],[]]", b"7"])
def test_a_timeline_of_another_form_is_refused(body: bytes) -> None:
    """The seal fits, the rest is nothing that this version knows."""
    with pytest.raises(TimelineError):
        unpack(crc32(body).to_bytes(4, "little") + body)


def test_cut_and_flipped_bytes_are_refused() -> None:
    data = KEEPER.extended(None, [Event(n, "visit", n, {"page": "/"}, Offset(1, n)) for n in range(1, 20)])
    for at in range(len(data)):
        for damaged in (data[:at], data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]):
            with pytest.raises(TimelineError):
                unpack(damaged)


def test_a_typical_timeline_is_small() -> None:
    """Twenty contacts of a year take less than a kilobyte."""
    times = range(1_750_000_000_000, 1_780_000_000_000, 1_500_000_000)
    found = [Event(~time_ms % 2**64, "call", time_ms, {"topic": "fees"}, Offset(time_ms, 0)) for time_ms in times]
    assert len(found) == 20
    assert len(KEEPER.extended(None, found)) < 1_000
