"""The ledger: what is packed comes back, the quick look sees what the whole sees, and it stays small."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.contact_rows import Contact
from engine.ledger import CAS_BYTES, DecisionEntry, Ledger, LedgerError, OfferEntry, glance, hash_of
from engine.lifecycle import Stage
from engine.limits import LEDGER_DECISIONS_MAX, SLATE_MAX
from features import Offset
from tests.ledgers import looked, opened

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
times = st.integers(0, 1_000)
outcomes = st.lists(st.integers(1, 2**64 - 1), max_size=3).map(tuple)


@st.composite
def decisions(draw: st.DrawFn) -> DecisionEntry:
    offers = tuple(
        OfferEntry(draw(u32), draw(st.sampled_from(Stage)), rank, draw(times), draw(times), draw(outcomes))
        for rank in range(1, draw(st.integers(0, 4)) + 1)
    )
    position = Offset(draw(st.integers(0, 2**48)), draw(u32))
    return DecisionEntry(position, draw(st.sampled_from([0, 1, 2, 3])), draw(times), offers)


contacts = st.builds(
    Contact,
    st.builds(Offset, st.integers(1, 2**48), u32),
    u32,
    u32,
    u32,
    times,
    times,
    st.integers(1, 15),
    st.integers(0, 15),
    st.integers(1, 255),
    st.integers(1, 2**16 - 1),
    u32,
)


@st.composite
def ledgers_of(draw: st.DrawFn) -> Ledger:
    entries = tuple(draw(st.lists(decisions(), max_size=LEDGER_DECISIONS_MAX)))
    ledger = Ledger(draw(u32), draw(st.integers(0, 2**63)), entries)
    if draw(st.booleans()):
        return ledger
    return replace(ledger, contacts=tuple(draw(st.lists(contacts, max_size=5))), contact_clock_ms=draw(times))


ledgers = ledgers_of()


@given(ledgers)
def test_what_is_packed_comes_back(ledger: Ledger) -> None:
    assert Ledger.unpack(ledger.pack()) == ledger


@given(ledgers, st.sampled_from([0, 1, 2, 3]), times)
def test_a_glance_sees_what_the_whole_ledger_shows(ledger: Ledger, request_hash: int, now_ms: int) -> None:
    seen = glance(ledger.pack(), request_hash, now_ms)
    same = [entry.position for entry in ledger.decisions if request_hash and entry.request_hash == request_hash]
    still_open = [
        (entry.position, offer.key, offer.stage, entry.time_ms, offer.window_end_ms)
        for entry in ledger.decisions
        for offer in entry.offers
        if offer.open_at(now_ms)
    ]
    assert seen.epoch == ledger.epoch
    assert seen.repeated == (same[-1] if same else None)
    assert list(seen.open_offers) == still_open


def add(
    data: bytes | None, position: Offset, request_hash: int, time_ms: int, offers: list[tuple[int, int]]
) -> tuple[bytes, bytes]:
    """(prefix to compare with, the whole ledger after the store put the position between head and tail)."""
    head, tail = opened(data, request_hash, time_ms, offers)
    place = position.ms.to_bytes(8, "little") + position.seq.to_bytes(4, "little")
    return (data or b"")[:CAS_BYTES], head + place + tail


@given(ledgers, times, st.lists(st.tuples(u32, st.integers(1, 1_000)), max_size=4))
def test_a_new_decision_is_the_newest_and_the_rest_keeps_its_order(
    ledger: Ledger, now_ms: int, offers: list[tuple[int, int]]
) -> None:
    before, after = add(ledger.pack(), Offset(2**48 - 1, 7), 9, now_ms, offers)
    grown = Ledger.unpack(after)
    expected = DecisionEntry(
        Offset(2**48 - 1, 7),
        9,
        now_ms,
        tuple(OfferEntry(key, Stage.SERVED, rank, end, now_ms) for rank, (key, end) in enumerate(offers, 1)),
    )
    assert grown.decisions[-1] == expected
    kept = iter(ledger.decisions)
    assert all(any(entry is not None and entry == old for old in kept) for entry in grown.decisions[:-1])
    assert after[:CAS_BYTES] != before, "whoever compares must see the change"
    assert (grown.epoch, grown.revision) == (ledger.epoch, ledger.revision + 1)
    assert grown.contacts == ledger.contacts, "also without a contact policy"


@given(ledgers, times)
def test_a_full_ledger_lets_go_of_what_is_closed_and_old_first(ledger: Ledger, now_ms: int) -> None:
    def is_open(entry: DecisionEntry) -> bool:
        return any(offer.open_at(now_ms) for offer in entry.offers)

    _, after = add(ledger.pack(), Offset(2**48 - 1, 7), 9, now_ms, [])
    kept = Ledger.unpack(after).decisions[:-1]
    room = LEDGER_DECISIONS_MAX - 1
    assert len(kept) == min(len(ledger.decisions), room)
    assert sum(map(is_open, kept)) == min(sum(map(is_open, ledger.decisions)), room)


@given(ledgers, times, st.data())
def test_whatever_a_glance_can_read_takes_another_decision(ledger: Ledger, now_ms: int, data: st.DataObject) -> None:
    """A stage that does not exist, say: it is not open, and no reason to refuse the customer for good."""
    packed = bytearray(ledger.pack())
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        glance(bytes(packed), 9, now_ms)
    except LedgerError:
        assert looked(bytes(packed), 9, now_ms).damaged == [True]
        return
    head, tail = opened(bytes(packed), 9, now_ms, [])
    assert glance(head + bytes(12) + tail, 9, now_ms).repeated == Offset(0, 0)


def test_a_damaged_stage_in_a_full_ledger_is_let_go_in_its_turn() -> None:
    entry = DecisionEntry(Offset(1, 1), 0, 5, (OfferEntry(1, Stage.SERVED, 1, 100, 5),))
    packed = bytearray(Ledger(decisions=(entry,) * LEDGER_DECISIONS_MAX).pack())
    packed[CAS_BYTES + 29 + 4] = 77  # the stage of the oldest
    _, after = add(bytes(packed), Offset(2, 2), 0, 6, [])
    assert len(Ledger.unpack(after).decisions) == LEDGER_DECISIONS_MAX


def test_a_customer_who_comes_for_ever_keeps_a_small_ledger() -> None:
    """100 decisions of the longest answer: at most 16 of them are kept, and the open one of the first day is."""
    data: bytes | None = None
    for day in range(100):
        end = 10_000 if day == 0 else day
        _, data = add(data, Offset(day + 1, 0), 0, day, [(key, end) for key in range(SLATE_MAX)])
    ledger = Ledger.unpack(data)
    assert [entry.time_ms for entry in ledger.decisions] == [0, *range(85, 100)]
    assert len(data or b"") < 16 * (30 * 23 + 29) + CAS_BYTES + 1


@given(ledgers, st.data())
def test_an_outcome_moves_one_offer_and_the_epoch(ledger: Ledger, data: st.DataObject) -> None:
    places = [(entry.position, offer.rank) for entry in ledger.decisions for offer in entry.offers]
    position, rank = data.draw(st.sampled_from([*places, (Offset(1, 1), 1)]))
    moved = ledger.moved(position, rank, Stage.ACCEPTED, 5, (66, 77))
    assert (moved.epoch, moved.revision) == (ledger.epoch + 1, ledger.revision + 1)
    for old, new in zip(ledger.decisions, moved.decisions, strict=True):
        for before, after in zip(old.offers, new.offers, strict=True):
            if (old.position, before.rank) == (position, rank):
                assert (after.stage, after.changed_ms, after.outcomes) == (Stage.ACCEPTED, 5, (66, 77))
            else:
                assert after == before


@given(ledgers, st.data())
def test_cut_bytes_are_refused(ledger: Ledger, data: st.DataObject) -> None:
    packed = ledger.pack()
    cut = packed[: data.draw(st.integers(0, len(packed) - 1))]
    for read in (Ledger.unpack, lambda bytes_: glance(bytes_, 1, 0)):
        with pytest.raises(LedgerError):
            read(cut)


@given(ledgers, st.data())
def test_flipped_bytes_never_raise_anything_else(ledger: Ledger, data: st.DataObject) -> None:
    packed = bytearray(ledger.pack())
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    for read in (Ledger.unpack, lambda bytes_: glance(bytes_, 1, 0)):
        try:
            found = read(bytes(packed))
        except LedgerError:
            continue
        assert found.epoch >= 0


@given(st.text(min_size=1), st.text(min_size=1))
def test_ids_are_told_apart_by_their_hash(one: str, other: str) -> None:
    assert (hash_of(one) == hash_of(other)) == (one == other)
    assert hash_of(one) != 0
