"""Reading a batch, records that are damaged, and records of other layouts."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from feature_streams import SPECS, spec_lists, streams
from hypothesis import given, settings
from hypothesis import strategies as st

from features import (
    HEADER_CAS_BYTES,
    NEVER_MS,
    Event,
    FeatureSpec,
    Layout,
    Offset,
    RecordError,
    VersionError,
)
from features.record import COUNTER_MAX

LAYOUT = Layout.compile(SPECS)
OTHER = Layout.compile(SPECS[:6])
RECORD = LAYOUT.fold(
    None,
    [
        Event(1, "visit", 5, {"channel": "app"}, Offset(1, 0)),
        Event(2, "purchase", 9, {"amount": 2.5, "channel": "web"}, Offset(1, 1)),
    ],
).record
MERGE: Callable[[bytes], bytes] = lambda record: LAYOUT.merge([record])  # noqa: E731
AT_TEN = {
    "visits_50": 1.0,
    "spent_50": 2.5,
    "basket_50": 2.5,
    "calls_100": 0.0,
    "angry_100": 0.0,
    "visits_20": 1.0,
    "visits": 1.0,
    "spent_web": 2.5,
    "basket": 2.5,
    "channel": "app",
    "amount": 2.5,
    "since_call": 9.0,
    "least_50": 2.5,
    "most_100": 2.5,
    "first_amount": 2.5,
    "last_80": 2.5,
    "channels_100": 1.0,
    "amounts": 1.0,
    "warm": 2 ** (-5 / 9),
    "warm_spent": 2.5 * 2 ** (-1 / 30),
    "this_hour": 1.0,
    "basket_share": 1.0,
}


@settings(max_examples=100, deadline=None)
@given(
    specs=st.just(list(SPECS)) | spec_lists(),
    batch=st.lists(
        st.tuples(st.none() | st.just([]) | streams(ids=True, max_size=15), st.integers(0, 500)), max_size=5
    ),
)
def test_a_batch_reads_as_its_customers_one_by_one(
    specs: list[FeatureSpec], batch: list[tuple[list[Event] | None, int]]
) -> None:
    layout = Layout.compile(specs)
    records = [None if events is None else layout.fold(None, events).record for events, _ in batch]
    matrix = layout.read(records, np.array([now_ms for _, now_ms in batch], dtype=np.int64))
    assert (len(batch), len(specs)) == matrix.shape
    for record, (_, now_ms), row in zip(records, batch, matrix, strict=True):
        for spec, found in zip(specs, row.tolist(), strict=True):
            human = layout.values(record, now_ms)[spec.name]
            if human is None:
                assert math.isnan(found) or (spec.categories and found == spec.default)
            else:
                assert found == (spec.categories.index(human) if isinstance(human, str) else human)


def test_values_are_for_people() -> None:
    assert LAYOUT.values(RECORD, 10) == pytest.approx(AT_TEN)
    unknown = LAYOUT.values(None, 10)
    assert tuple(unknown[name] for name in ("channel", "amount", "basket_50", "spent_50")) == (None, None, -1.0, 0.0)


def test_a_category_never_heard_of_makes_the_feature_missing() -> None:
    record = LAYOUT.fold(RECORD, [Event(0, "visit", 6, {"channel": "fax"}, Offset(2, 0))]).record
    assert LAYOUT.values(record, 10)["channel"] is None


def test_an_unknown_customer_reads_as_defaults() -> None:
    rows = LAYOUT.read([None, RECORD], np.array([10, 10]))
    np.testing.assert_array_equal([spec.missing for spec in SPECS], rows[0])
    assert rows[1][LAYOUT.names.index("spent_50")] == 2.5


def test_nobody_is_no_rows() -> None:
    assert LAYOUT.read([], np.zeros(0, np.int64)).shape == (0, len(SPECS))


@pytest.mark.parametrize("damaged", [b"x", b"\0" * len(RECORD), RECORD[:-8], RECORD + RECORD, RECORD[:40], RECORD[:-3]])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_damaged_record_among_others_is_refused(damaged: bytes, place: int) -> None:
    """Records are read as one block: a wrong length must not shift the others."""
    records: list[bytes | None] = [RECORD, None, RECORD]
    records.insert(place, damaged)
    with pytest.raises(RecordError):
        LAYOUT.read(records, np.full(4, 10))


def test_lengths_that_make_up_for_each_other_are_refused() -> None:
    with pytest.raises(RecordError):
        LAYOUT.read([RECORD[:-8], RECORD + RECORD[-8:]], np.array([10, 10]))


def test_one_time_a_record_is_required() -> None:
    with pytest.raises(ValueError, match=r"now_ms has shape \(1,\): expected \(2,\)"):
        LAYOUT.read([None, None], np.array([1]))


@given(bit=st.integers(0, 8 * len(RECORD) - 1))
def test_a_record_with_any_bit_flipped_is_refused(bit: int) -> None:
    damaged = bytearray(RECORD)
    damaged[bit // 8] ^= 1 << bit % 8
    record = bytes(damaged)
    for refuses in (LAYOUT.header, partial(LAYOUT.fold, events=[]), partial(LAYOUT.values, now_ms=0), MERGE):
        with pytest.raises(RecordError):
            refuses(record)


@given(length=st.integers(1, len(RECORD) - 1))
def test_a_record_cut_short_is_refused(length: int) -> None:
    for refuses in (lambda: LAYOUT.fold(RECORD[:length], []), lambda: LAYOUT.values(RECORD[:length], 0)):
        with pytest.raises(RecordError):
            refuses()


@given(data=st.binary(max_size=200))
def test_bytes_from_elsewhere_are_refused(data: bytes) -> None:
    with pytest.raises(RecordError):
        LAYOUT.fold(data, [])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"x", "record has 1 bytes: expected at least 40"),
        (b"\0" + RECORD[1:], "record starts with byte 0x00: expected 0x4f"),
        (b"\x4f\x09" + RECORD[2:], "record has format 9: expected 2; it was written by a newer release"),
        (b"\x4f\x01" + RECORD[2:], "record has format 1: expected 2; it was written by an older release"),
    ],
)
def test_the_message_says_what_is_wrong(record: bytes, message: str) -> None:
    with pytest.raises(RecordError) as caught:
        LAYOUT.values(record, 0)
    assert message == str(caught.value)


# --- other layouts --------------------------------------------------------------------------------------------------


def test_a_record_of_a_layout_that_is_not_known_is_refused_and_stays() -> None:
    for refuses in (lambda: OTHER.fold(RECORD, []), lambda: OTHER.values(RECORD, 0), lambda: OTHER.merge([RECORD])):
        with pytest.raises(VersionError, match=f"record is of layout {LAYOUT.version:#010x}"):
            refuses()
    assert not OTHER.knows(RECORD)


def test_a_record_of_an_older_layout_is_carried_over() -> None:
    """What both keep stays, what only the new one keeps starts from nothing, header and ids stay."""
    new_specs = [*SPECS[6:-1], FeatureSpec("visits_by_web", "count", "visit", where=(("channel", "web"),))]
    layout = Layout.compile(new_specs, older=[SPECS])
    assert layout.knows(RECORD)
    expected = {name: value for name, value in LAYOUT.values(RECORD, 10).items() if name in layout.names}
    expected |= {"visits_by_web": 0.0}
    assert layout.values(RECORD, 10) == expected
    rows = layout.read([RECORD, None, layout.fold(RECORD, []).record], np.full(3, 10))
    np.testing.assert_array_equal(rows[0], rows[2])
    repeat = Event(2, "purchase", 9, {"amount": 2.5}, Offset(2, 0))
    new = Event(3, "visit", 11, {"channel": "web"}, Offset(2, 1))
    result = layout.fold(RECORD, [Event(1, "visit", 5, {}, Offset(1, 0)), repeat, new])
    assert (result.redelivered, result.duplicates, result.applied) == (1, 1, 1)
    header = layout.header(result.record)
    assert (layout.version, Offset(2, 1), 11, 3, 1) == (
        header.version,
        header.watermark,
        header.latest_event_ms,
        header.events,
        header.duplicates,
    )
    found = layout.values(result.record, 12)
    assert (found["visits_by_web"], found["visits"], found["amount"]) == (1.0, 2.0, 2.5)


def of_values(values: Sequence[str], **more: Any) -> list[FeatureSpec]:
    return [
        FeatureSpec(function, function, "visit", attribute="channel", categories=tuple(values), **more)
        for function in ("last", "first")
    ]


@pytest.mark.parametrize("more", [{}, {"window_ms": 50}])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (("web", "app", "fax"), ("app", "web")),
        (("app", "web"), ("app", "web")),
        (("fax", "app"), ("app", None)),
        (("fax",), (None, None)),
    ],
)
def test_a_text_that_gets_other_values_keeps_those_that_both_know(
    values: Sequence[str], expected: Sequence[str | None], more: dict[str, int]
) -> None:
    before = of_values(("web", "app"), **more)
    layout = Layout.compile(of_values(values, **more), older=[before])
    heard = [Event(0, "visit", at, {"channel": text}, Offset(1, at)) for at, text in enumerate(("web", "app"))]
    record = Layout.compile(before).fold(None, heard).record
    assert layout.values(record, 9) == dict(zip(("last", "first"), expected, strict=True))
    fax = Event(0, "visit", 30, {"channel": values[0]}, Offset(2, 0))
    assert layout.values(layout.fold(record, [fax]).record, 31)["last"] == values[0]


def test_of_several_lists_of_values_the_one_with_most_in_common_is_carried_over() -> None:
    less, more = of_values(("web",))[0], of_values(("app", "web"))[0]
    before = [replace(less, name="less"), replace(more, name="more")]
    heard = Event(0, "visit", 1, {"channel": "app"}, Offset(1, 0))
    record = Layout.compile(before).fold(None, [heard]).record
    layout = Layout.compile(of_values(("web", "app", "fax")), older=[before])
    assert layout.values(record, 9) == {"last": "app", "first": None}


@settings(max_examples=100, deadline=None)
@given(before=spec_lists(), after=spec_lists(), events=streams(max_size=25), now_ms=st.integers(0, 500))
def test_carrying_over_and_back_loses_only_what_was_not_kept(
    before: list[FeatureSpec], after: list[FeatureSpec], events: list[Event], now_ms: int
) -> None:
    old, new = Layout.compile(before), Layout.compile([*before, *(replace(s, name=f"new_{s.name}") for s in after)])
    new.learn(before)
    old.learn(new.specs)
    record = old.fold(None, events).record
    there = new.merge([record])
    for name, value in old.values(record, now_ms).items():
        # A longer window of the same tiles may drop less than a shorter one did, never more.
        assert new.values(there, now_ms)[name] == value
    assert old.merge([there]) == record


def test_the_compared_prefix_changes_with_watermark_and_version() -> None:
    later = LAYOUT.fold(RECORD, [Event(1, "visit", 5, {}, Offset(1, 2))]).record
    other = Layout.compile(SPECS[:-5], older=[SPECS]).merge([RECORD])
    assert len({record[:HEADER_CAS_BYTES] for record in (RECORD, later, other)}) == 3


def test_a_customer_without_events() -> None:
    header = LAYOUT.header(LAYOUT.fold(None, []).record)
    assert (header.watermark, header.latest_event_ms, header.events) == (Offset.ZERO, NEVER_MS, 0)


def test_a_customer_costs_what_happened() -> None:
    assert len(LAYOUT.fold(None, []).record) < 45
    assert len(RECORD) < 150


def test_counters_stop_at_their_end() -> None:
    layout = Layout.compile([FeatureSpec("visits", "count", "visit")])
    record = layout.fold(None, [Event(0, "visit", 1, {}, Offset(1, 0))]).record
    for _ in range(33):  # 2^33 events
        record = layout.merge([record, record])
    assert layout.header(record).events == COUNTER_MAX
    assert layout.values(record, 1)["visits"] == 2**33


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"name": "renamed", "meaning": "m", "unit": "EUR", "default": 3.0}, True),
        ({"tile_ms": 5}, True),  # the default, spelled out
        ({"tile_ms": 10}, False),
        ({"window_ms": 60}, False),
        ({"event": "call"}, False),
        ({"attribute": "price"}, False),
        ({"resolution": 0.1}, False),
        ({"function": "mean"}, False),
        ({"where": (("channel", "web"),)}, False),
    ],
)
def test_the_version_follows_what_the_bytes_mean(change: dict[str, object], same: bool) -> None:
    changed = replace(SPECS[1], **change)
    assert same == (Layout.compile([SPECS[1]]).version == Layout.compile([changed]).version)


def test_the_version_is_the_same_on_every_machine() -> None:
    assert Layout.compile(SPECS).version == 4058995393


def test_describe_accounts_for_every_feature() -> None:
    rows = {row.name: row for row in LAYOUT.describe()}
    assert LAYOUT.names == tuple(rows)
    assert (rows["visits_50"].keeps, rows["visits_50"].tiles, rows["visits_50"].shared) == ("count", 10, False)
    assert (rows["basket_50"].keeps, rows["basket_50"].shared) == ("sum and count", True)
    assert (rows["basket_share"].keeps, rows["basket_share"].bytes_typical) == ("spent_50 / spent_web", 0)


@pytest.mark.parametrize(("size", "deviation"), [(15, 0.5), (50, 1.3), (500, 13.0)])
def test_how_far_a_count_of_distinct_values_is_off(size: int, deviation: float) -> None:
    """The documents tell the standard deviation over two hundred sets: a little less than this."""
    layout = Layout.compile([FeatureSpec("different", "distinct", "visit", attribute="page")])
    found = []
    for number in range(60):
        events = [Event(0, "visit", 5, {"page": f"{number}/{at}"}, Offset(at + 1, 0)) for at in range(size)]
        found.append(layout.values(layout.fold(None, events).record, 5)["different"])
    errors = np.array(found, np.float64) - size
    assert np.sqrt((errors**2).mean()) < deviation
    assert abs(errors.mean()) < 0.02 * size
