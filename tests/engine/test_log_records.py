"""Entries of the decision log: what is packed comes back, and damaged bytes are told as such."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.ledger import hash_of
from engine.lifecycle import Stage
from engine.limits import SLATE_MAX
from engine.record import (
    Choice,
    DecisionRecord,
    OutcomeRecord,
    RecordError,
    decision_id,
    parse_decision_id,
    unpack,
)
from features import Offset

u16, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))
i64 = st.integers(-(2**63), 2**63 - 1)
u8 = st.integers(0, 255)
float32 = st.floats(width=32, allow_nan=False)
ids = st.text(max_size=16)
offsets = st.builds(Offset, u64, u32)
choices = st.builds(Choice, u32, st.floats(allow_nan=False), float32, float32, float32, i64)


@st.composite
def decision_records(draw: st.DrawFn) -> DecisionRecord:
    held = draw(st.binary(max_size=128))
    return DecisionRecord(
        time_ms=draw(i64),
        seed=draw(u64),
        config_version=draw(st.binary(min_size=8, max_size=8)).hex(),
        transform_version=draw(u32),
        policy_version=draw(u64),
        watermark=draw(offsets),
        latest_event_ms=draw(i64),
        channel=draw(u8),
        placement=draw(u8),
        degraded=draw(st.integers(0, 4)),
        known=draw(st.booleans()),
        limit=draw(st.integers(1, SLATE_MAX)),
        customer=draw(ids),
        request_id=draw(ids),
        context=draw(st.binary(max_size=64)),
        x=draw(st.binary(max_size=256)),
        rules_held=held,
        rules_failed=draw(st.sampled_from([b"", b"\1" * len(held)])),
        nothing_propensity=draw(st.floats(0, 1)),
        slate=tuple(draw(st.lists(choices, max_size=SLATE_MAX))),
    )


outcome_records = st.builds(
    OutcomeRecord,
    decision=st.builds(Offset, st.integers(0, 2**48 - 1), u32),
    offer_key=u32,
    rank=st.integers(1, SLATE_MAX),
    stage=st.sampled_from(Stage),
    time_ms=i64,
    value=st.floats(allow_nan=False),
    outcome_hash=u64,
    outcome_id=ids,
    attributes=st.binary(max_size=64),
    corrects=st.one_of(st.just(0), u64),
    rewards=st.one_of(st.just(b""), st.binary(max_size=64)),
)
records = st.one_of(decision_records(), outcome_records)


@given(records)
def test_what_is_packed_comes_back(record: DecisionRecord | OutcomeRecord) -> None:
    assert unpack(record.pack()) == record


@given(records)
def test_reading_and_packing_again_gives_the_same_bytes(record: DecisionRecord | OutcomeRecord) -> None:
    assert unpack(record.pack()).pack() == record.pack()


def test_an_outcome_without_a_value_keeps_that_it_has_none() -> None:
    record = OutcomeRecord(Offset(1, 2), 3, 1, Stage.ACCEPTED, 4, math.nan, hash_of("o"), "o", b"")
    assert math.isnan(OutcomeRecord.unpack(record.pack()).value)


@given(records, st.data())
def test_a_cut_record_is_a_record_error_or_shorter_in_its_last_part(
    record: DecisionRecord | OutcomeRecord, data: st.DataObject
) -> None:
    """Whole rows of the slate and the end of the attributes can go unseen: the log's store checks its own entries."""
    packed = record.pack()
    cut = packed[: data.draw(st.integers(0, len(packed) - 1))]
    try:
        found = unpack(cut)
    except RecordError:
        return
    if isinstance(record, DecisionRecord):
        assert isinstance(found, DecisionRecord)
        assert dataclasses.replace(found, slate=record.slate) == record
        assert found.slate == record.slate[: len(found.slate)]
    else:
        assert isinstance(found, OutcomeRecord)
        assert record.outcome_id.startswith(found.outcome_id)


@given(records, st.data())
def test_flipped_bytes_are_a_record_error_or_another_record(
    record: DecisionRecord | OutcomeRecord, data: st.DataObject
) -> None:
    packed = bytearray(record.pack())
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = unpack(bytes(packed))
    except RecordError:
        return
    # What was read is whole: written and read again it stays the same. (NaN differs from itself, so compare bytes.)
    assert unpack(found.pack()).pack() == found.pack()


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for read in (unpack, DecisionRecord.unpack, OutcomeRecord.unpack):
        try:
            found = read(data)
        except RecordError as error:
            assert str(error)
        else:
            assert read(found.pack()).pack() == found.pack()


@given(st.integers(0, 7), st.integers(0, 2**48 - 1), u32)
def test_a_decision_id_names_its_place(partition: int, ms: int, seq: int) -> None:
    assert parse_decision_id(decision_id(partition, Offset(ms, seq)), 8) == (partition, Offset(ms, seq))


@pytest.mark.parametrize(
    "text",
    [
        "", "-", "--", "1-2", "1-2-3-4", "8-1-1", "0--1", "0-g-1", "0-1000000000000-0", "0-0-100000000", "0-1 -1",
        "٣-1-1", "0-" + "1" * 100 + "-0", "0-1-1\n", "+1-1-1", "0x1-1-1", "0-1_0-1", "-1-1-1",
        "00-1-1", "03-1-1", "3-01-1", "3-1-00", "3-1A-0",
    ],
)  # fmt: skip
def test_what_is_no_decision_id_is_none(text: str) -> None:
    assert parse_decision_id(text, 8) is None
