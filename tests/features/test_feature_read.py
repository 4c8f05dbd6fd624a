"""Reading a batch, records that are damaged, and records of other layouts."""

import math
from dataclasses import replace

import numpy as np
import pytest
from feature_streams import SPECS, spec_lists, streams
from hypothesis import given, settings
from hypothesis import strategies as st

from features import (
    EVENT_IDS_REMEMBERED_MAX,
    HEADER_CAS_BYTES,
    NEVER_MS,
    Event,
    FeatureSpec,
    Layout,
    Offset,
    RecordError,
)
from features.record import EMPTY, U32_MAX, seal

LAYOUT = Layout.compile(SPECS)
OTHER = Layout.compile(SPECS[:-1])
RECORD = LAYOUT.fold(
    None,
    [
        Event(1, "visit", 5, {"channel": "app"}, Offset(1, 0)),
        Event(2, "purchase", 9, {"amount": 2.5, "channel": "web"}, Offset(1, 1)),
    ],
).record
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
    assert LAYOUT.values(RECORD, 10) == AT_TEN
    unknown = LAYOUT.values(None, 10)
    assert tuple(unknown[name] for name in ("channel", "amount", "basket_50", "spent_50")) == (None, None, -1.0, 0.0)


def test_a_category_never_heard_of_makes_the_feature_missing() -> None:
    record = LAYOUT.fold(RECORD, [Event(0, "visit", 6, {"channel": "fax"}, Offset(2, 0))]).record
    assert LAYOUT.values(record, 10)["channel"] is None


def test_customers_unknown_or_of_another_layout_read_as_defaults() -> None:
    foreign = OTHER.fold(None, [Event(0, "visit", 5, {}, Offset(1, 0))]).record
    rows = LAYOUT.read([None, foreign, RECORD], np.array([10, 10, 10]))
    np.testing.assert_array_equal([spec.missing for spec in SPECS], rows[0])
    np.testing.assert_array_equal(rows[0], rows[1])
    assert rows[2][LAYOUT.names.index("spent_50")] == 2.5


def test_nobody_is_no_rows() -> None:
    assert LAYOUT.read([], np.zeros(0, np.int64)).shape == (0, len(SPECS))


@pytest.mark.parametrize("damaged", [b"", b"\0" * len(RECORD), RECORD[:-8], RECORD + RECORD, RECORD[:40], RECORD[:-3]])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_wrong_frame_among_others_is_refused(damaged: bytes, place: int) -> None:
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
def test_fold_refuses_a_record_with_any_bit_flipped(bit: int) -> None:
    damaged = bytearray(RECORD)
    damaged[bit // 8] ^= 1 << bit % 8
    for refuses in (lambda: LAYOUT.fold(bytes(damaged), []), lambda: LAYOUT.header(bytes(damaged))):
        with pytest.raises(RecordError):
            refuses()


@given(length=st.integers(0, len(RECORD) - 1))
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
        (b"", "record has 0 bytes: expected at least the 56 of its header"),
        (b"\0" + RECORD[1:], "record starts with byte 0x00: expected 0x4f"),
        (b"\x4f\x09" + RECORD[2:], "record has format 9: expected 1"),
        (RECORD + b"\0", f"record has {len(RECORD) + 1} bytes: expected {len(RECORD)} of its layout"),
        (RECORD[:44] + b"\x21" + RECORD[45:], "record has 33 event ids: expected at most 32"),
    ],
)
def test_the_message_says_what_is_wrong(record: bytes, message: str) -> None:
    with pytest.raises(RecordError) as caught:
        LAYOUT.values(record, 0)
    assert message == str(caught.value)


def test_a_whole_record_of_a_wrong_length_is_refused_by_fold() -> None:
    with pytest.raises(RecordError, match="of its layout"):
        LAYOUT.fold(seal(bytearray(LAYOUT.fixed_bytes + 8), EMPTY._replace(version=LAYOUT.version)), [])


def test_a_new_layout_keeps_header_and_ids_and_starts_features_from_nothing() -> None:
    repeat = Event(2, "purchase", 9, {"amount": 2.5}, Offset(2, 0))
    new = Event(3, "purchase", 11, {"amount": 4.0}, Offset(2, 1))
    result = OTHER.fold(RECORD, [Event(1, "visit", 5, {}, Offset(1, 0)), repeat, new])
    assert (result.redelivered, result.duplicates, result.applied) == (1, 1, 1)
    header = OTHER.header(result.record)
    assert (OTHER.version, Offset(2, 1), 11, 3, 1) == (
        header.version,
        header.watermark,
        header.latest_event_ms,
        header.events,
        header.duplicates,
    )
    assert tuple(OTHER.values(result.record, 12)[name] for name in ("spent_50", "visits")) == (4.0, 0.0)


def test_the_compared_prefix_changes_with_watermark_and_version() -> None:
    later = LAYOUT.fold(RECORD, [Event(1, "visit", 5, {}, Offset(1, 2))]).record
    prefixes = {record[:HEADER_CAS_BYTES] for record in (RECORD, later, OTHER.fold(RECORD, []).record, RECORD)}
    assert len(prefixes) == 2, "a fold of nothing does not touch the record"
    assert len({LAYOUT.fold(None, []).record[:HEADER_CAS_BYTES], OTHER.fold(None, []).record[:HEADER_CAS_BYTES]}) == 2


def test_a_customer_without_events() -> None:
    record = LAYOUT.fold(None, []).record
    header = LAYOUT.header(record)
    assert (header.watermark, header.latest_event_ms, header.events) == (Offset.ZERO, NEVER_MS, 0)
    assert LAYOUT.fixed_bytes == len(record)


def test_a_record_has_a_largest_size() -> None:
    events = [Event(number, "visit", number, {}, Offset(number, 0)) for number in range(1, 200)]
    assert LAYOUT.fixed_bytes + 8 * EVENT_IDS_REMEMBERED_MAX == len(LAYOUT.fold(None, events).record)


def test_counters_stop_at_their_end() -> None:
    layout = Layout.compile([FeatureSpec("visits", "count", "visit")])
    columns = bytearray(layout.fixed_bytes)
    columns[56:60] = U32_MAX.to_bytes(4, "little")
    full = seal(columns, EMPTY._replace(version=layout.version, events=U32_MAX))
    record = layout.fold(full, [Event(0, "visit", 1, {}, Offset(1, 0))]).record
    assert (layout.header(record).events, layout.values(record, 1)["visits"]) == (U32_MAX, U32_MAX)


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
    assert Layout.compile(SPECS).version == 581107431


def test_describe_accounts_for_every_feature() -> None:
    rows = LAYOUT.describe()
    assert LAYOUT.names == tuple(row.name for row in rows)
    assert (rows[0].name, rows[0].function, rows[0].bytes) == ("visits_50", "count", 10 * 4)
    assert {"spent_50": 80, "basket_50": 120, "channel": 16, "since_call": 8, "basket": 12}.items() <= {
        row.name: row.bytes for row in rows
    }.items()
    assert all(row.offset >= 56 and row.offset + row.bytes <= LAYOUT.fixed_bytes for row in rows)
