"""Records read many at once say what they say one by one."""

import struct
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.basis import Basis
from engine.holds import Hold
from engine.lifecycle import Stage
from engine.logcolumns import columns_of, kept_back
from engine.record import CHOICE_FORMAT, FAILED_TOO, FIXED_FORMAT, FORM_BASIS, Choice, DecisionRecord, OutcomeRecord
from engine.whatif.records import bases, read
from features import Offset

some_bytes = st.binary(max_size=9)
offers = st.integers(0, 60)
shares = st.floats(0, 1)
basis_of = st.builds(
    Basis,
    estimates=st.integers(0, 4).map(lambda count: bytes(10 * count)),
    holds=st.lists(st.builds(Hold, offers, st.just(2**32 - 1), st.integers(0, 9), offers), max_size=2).map(tuple),
    prices=st.lists(st.tuples(offers, st.floats(0, 9)), max_size=2).map(tuple),
    surcharge=st.floats(0, 9),
    gate=shares,
    parameters=some_bytes,
    seen=some_bytes,
    values=st.lists(st.tuples(offers, st.floats(0, 9)), max_size=2).map(tuple),
)
records_of = st.builds(
    DecisionRecord,
    time_ms=st.integers(0, 2**50),
    seed=st.integers(0, 2**64 - 1),
    config_version=st.sampled_from(["00" * 8, "0123456789abcdef"]),
    transform_version=st.integers(0, 2**32 - 1),
    policy_version=offers,
    watermark=st.builds(Offset, offers, offers),
    latest_event_ms=offers,
    channel=offers,
    placement=offers,
    degraded=st.just(0),
    known=st.booleans(),
    limit=st.integers(0, 30),
    customer=st.text(max_size=6),
    request_id=st.text(max_size=6),
    context=some_bytes,
    x=some_bytes,
    rules_held=st.just(b"\1\2"),
    rules_failed=st.sampled_from([b"", b"\4\0"]),
    nothing_propensity=shares,
    slate=st.lists(
        st.builds(Choice, st.integers(1, 2**32 - 1), shares, st.just(1.0), st.just(0.5), st.just(0.25), offers),
        max_size=4,
    ).map(tuple),
    basis=st.none() | basis_of,
)
OUTCOME = OutcomeRecord(Offset(1, 2), 3, 1, Stage.ACCEPTED, 4, 5.0, 6, "o", b"{}").pack()


@settings(max_examples=100, deadline=None)
@given(st.lists(records_of, max_size=6), st.booleans())
def test_many_records_are_read_as_one_by_one(given_records: list[DecisionRecord], with_others: bool) -> None:
    data = [one.pack() for one in given_records]
    if with_others:
        data = [OUTCOME, b"", b"\1", *data, OUTCOME]
    found = read(data)
    kept = [one for one in given_records if one.basis is not None]
    assert [data[at] for at in found.entries.tolist()] == [one.pack() for one in kept]
    assert sorted([*found.entries.tolist(), *found.others]) == list(range(len(data)))
    rows = np.arange(len(kept))
    assert found.people(rows) == [one.customer for one in kept]
    assert [version.hex() for version in found.versions] == [one.config_version for one in kept]
    for name, values in (
        ("time", [one.time_ms for one in kept]),
        ("seed", [one.seed for one in kept]),
        ("channel", [one.channel for one in kept]),
        ("placement", [one.placement for one in kept]),
        ("limit", [one.limit for one in kept]),
    ):
        assert found.fixed[name].tolist() == values
    slates = [[key for key in slate if key] for slate in found.slates.tolist()]
    assert slates == [[choice.key for choice in one.slate] for one in kept]
    rested = bases(found, rows)
    assert rested.good.tolist() == rows.tolist()
    expected = [one.basis or Basis() for one in kept]
    assert rested.seen == [basis.seen for basis in expected]
    assert rested.holds == [basis.holds for basis in expected]
    assert rested.prices == [basis.prices for basis in expected]
    assert rested.answers == [basis.values for basis in expected]
    assert rested.surcharges.tolist() == [basis.surcharge for basis in expected]
    assert rested.gates.tolist() == [basis.gate for basis in expected]


def test_what_is_cut_short_is_left_out() -> None:
    whole = DecisionRecord(
        1, 2, "00" * 8, 3, 4, Offset.ZERO, 0, 0, 0, 0, True, 1, "ann", "", b"{}", b"x", b"\1", b"", 0.0, (),
        Basis(holds=(Hold(1, 2),), seen=b"seen"),
    )  # fmt: skip
    long = replace(whole, basis=Basis(seen=b"seen")).pack()
    data = [whole.pack(), whole.pack()[:-3], whole.pack() + b"\0", long[:-1], long + b"\1\0", long]
    found = read(data)
    assert bases(found, np.arange(len(data))).good.tolist() == [0, 5]
    # So short that not even its basis begins there.
    assert read([long[:90]]).others == [0]


@settings(max_examples=150, deadline=None)
@given(st.lists(records_of, max_size=6), st.integers(0, 60))
def test_columns_of_decisions_say_what_the_records_say(given_records: list[DecisionRecord], cut: int) -> None:
    whole = [one.pack() for one in given_records]
    data = [OUTCOME, b"", *whole, *[one[: len(one) - 1 - cut] for one in whole if cut], b"\1" * 90]
    found = columns_of(data, bytes.fromhex("0123456789abcdef"), 10)
    # A basis that is cut does not hide the slate before it.
    assert found.entries.tolist() == [at for at, one in enumerate(data) if _has_slate(one)]
    holds, readable = kept_back(data, found)
    for row, one in enumerate(given_records):
        count = len(one.slate)
        assert (found.times_ms[row], found.channels[row], found.placements[row], found.counts[row]) == (
            one.time_ms, one.channel, one.placement, count,
        )  # fmt: skip
        assert found.nothing[row] == one.nothing_propensity
        assert found.keys[row].tolist() == [c.key for c in one.slate] + [-1] * (found.keys.shape[1] - count)
        assert found.propensities[row, :count].tolist() == [choice.propensity for choice in one.slate]
        assert found.ends_ms[row, :count].tolist() == [choice.window_end_ms for choice in one.slate]
        assert found.drawn[row] == (one.limit > 0 and one.config_version == "0123456789abcdef")
        if found.drawn[row]:
            assert found.held[row].tobytes() == one.rules_held
            assert readable[row] and holds[row] == (one.basis.holds if one.basis else ())


@settings(max_examples=300, deadline=None)
@given(records_of, st.integers(0, 90), st.integers(0, 255))
def test_a_damaged_head_reads_as_one_by_one(one: DecisionRecord, at: int, octet: int) -> None:
    """Lengths that lead elsewhere: compiled code reads no other bytes than those of the entry."""
    data = bytearray(one.pack())
    data[min(at, len(data) - 1)] = octet
    found = columns_of([OUTCOME, bytes(data), OUTCOME], bytes.fromhex("0123456789abcdef"), 10)
    assert found.entries.tolist() == ([1] if _has_slate(bytes(data)) else [])
    if len(found.entries):
        assert found.times_ms[0] == struct.unpack_from(FIXED_FORMAT, data)[2]
        count = found.counts[0]
        assert list(zip(found.keys[0, :count], found.ends_ms[0, :count], strict=True)) == _slate(bytes(data))
        kept_back([OUTCOME, bytes(data), OUTCOME], found)


def _slate(data: bytes) -> list[tuple[int, int]] | None:
    """(offer key, end of the window) of each offer of a decision; None of what is none."""
    if len(data) < struct.calcsize(FIXED_FORMAT) or data[0] != 1:
        return None
    *_, count, customer_n, request_n, context_n, x_n, rules, _ = struct.unpack_from(FIXED_FORMAT, data)
    rules_n = 2 * (rules - FAILED_TOO) if rules >= FAILED_TOO else rules
    start = struct.calcsize(FIXED_FORMAT) + customer_n + request_n + context_n + x_n + rules_n
    end = start + count * struct.calcsize(CHOICE_FORMAT)
    if (data[1] == 1 and end == len(data)) or (data[1] == FORM_BASIS and end < len(data)):
        return [(key, end_ms) for key, *_, end_ms in struct.iter_unpack(CHOICE_FORMAT, data[start:end])]
    return None


def _has_slate(data: bytes) -> bool:
    return _slate(data) is not None
