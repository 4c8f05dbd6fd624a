"""Attribution: whatever is reported, however the log is cut into batches, each offer teaches its final word once."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.attribution import Attribution, AttributionError, Lesson
from engine.ledger import hash_of
from engine.lifecycle import NEXT, OPEN, TEACHES, Stage
from engine.limits import LATE_OUTCOME_MS_MAX
from engine.record import Choice, DecisionRecord, OutcomeRecord
from engine.store import LogEntry
from features import Offset

KEYS = (11, 22, 33)


def decision(time_ms: int, windows: tuple[int, ...]) -> bytes:
    slate = tuple(Choice(KEYS[rank], 0.5, 1.0, 0.1, 0.1, time_ms + window) for rank, window in enumerate(windows))
    return DecisionRecord(
        time_ms, 1, "00" * 8, 1, 0, Offset.ZERO, 0, 0, 0, 0, False, 3, "ann", "", b"", b"\0", b"", b"", 0.0, slate
    ).pack()


def outcome(of: Offset, rank: int, stage: Stage, time_ms: int, key: int | None = None) -> bytes:
    key = KEYS[(rank - 1) % 3] if key is None else key
    name = f"{of} {rank} {stage} {time_ms}"
    return OutcomeRecord(of, key, rank, stage, time_ms, 0.0, hash_of(name), name, b"").pack()


@st.composite
def logs(draw: st.DrawFn) -> list[LogEntry]:
    """Decisions and outcomes as they might come: times out of order, moves that are not allowed, unknown decisions."""
    entries: list[LogEntry] = []
    made: list[Offset] = [Offset(900, 9)]
    now = 0
    for seq in range(1, draw(st.integers(0, 25)) + 1):
        at = Offset(1_000, seq)
        now = max(0, now + draw(st.integers(-5, 30)))
        kind = draw(st.sampled_from(["decision", "outcome", "outcome", "outcome", "garbage"]))
        if kind == "decision":
            data = decision(now, draw(st.lists(st.integers(1, 60), max_size=3).map(tuple)))
            made.append(at)
        elif kind == "outcome":
            rank = draw(st.integers(1, 4))
            data = outcome(draw(st.sampled_from(made)), rank, draw(st.sampled_from(Stage)), now)
        else:
            data = draw(st.binary(max_size=20))
        entries.append(LogEntry(at, data))
    return entries


def run(entries: list[LogEntry], cuts: set[int], restarts: set[int]) -> tuple[list[Lesson], bytes]:
    attribution, lessons, batch = Attribution(), [], []
    for at, entry in enumerate(entries):
        if at in cuts:
            lessons += attribution.absorb(batch)
            batch = []
        if at in restarts:
            attribution = Attribution.from_bytes(attribution.to_bytes())
            batch = entries[:at] if at in cuts else batch  # what was read before may be read again
        batch.append(entry)
    lessons += attribution.absorb(batch)
    return lessons, attribution.to_bytes()


positions = st.sets(st.integers(0, 25))


@given(logs(), positions, positions)
def test_batches_and_restarts_change_no_lesson_and_no_byte(
    entries: list[LogEntry], cuts: set[int], restarts: set[int]
) -> None:
    assert run(entries, cuts, restarts) == run(entries, set(), set())


def test_a_restart_forgets_no_window_that_had_passed_before_its_decision_came() -> None:
    data = [decision(100, (50,)), decision(10, (5, 200)), decision(101, (9,))]
    data.append(outcome(Offset(1_000, 2), 2, Stage.PRESENTED, 150))
    entries = [LogEntry(Offset(1_000, seq), made) for seq, made in enumerate(data, 1)]
    lessons, state = run(entries, set(), set())
    assert (lessons[0].decision.seq, lessons[0].rank) == (2, 1)
    for at in range(1, 4):
        assert run(entries, {at}, {at}) == (lessons, state)


def simple(entries: list[LogEntry]) -> dict[tuple[Offset, int], Stage]:
    """Where every offer stands at the end of the log, by a slow scan in the fewest words."""
    stands: dict[tuple[Offset, int], Stage] = {}
    ends: dict[tuple[Offset, int], int] = {}
    clock = 0
    for entry in entries:
        try:
            record = DecisionRecord.unpack(entry.data) if entry.data[:1] == b"\1" else OutcomeRecord.unpack(entry.data)
        except ValueError:
            continue
        clock = max(clock, record.time_ms)
        for instance, stage in stands.items():
            if stage in OPEN and ends[instance] <= clock:
                stands[instance] = Stage.EXPIRED
        if isinstance(record, DecisionRecord):
            for rank, choice in enumerate(record.slate, 1):
                stands[entry.offset, rank] = Stage.SERVED
                ends[entry.offset, rank] = choice.window_end_ms
        else:
            instance = (record.decision, record.rank)
            if instance not in stands:
                continue
            # What was withdrawn while it was open was withdrawn, even if the clock had moved on when the report came.
            in_time = stands[instance] == Stage.EXPIRED and record.time_ms < ends[instance]
            if record.stage in NEXT[stands[instance]] or (in_time and record.stage == Stage.WITHDRAWN):
                stands[instance] = record.stage
    return stands


@given(logs())
def test_the_lessons_of_an_offer_add_up_to_its_last_word(entries: list[LogEntry]) -> None:
    lessons, data = run(entries, set(), set())
    taught: Counter[tuple[Offset, int, int]] = Counter()
    for lesson in lessons:
        assert lesson.old != lesson.new
        for target, sign in ((lesson.old, -1), (lesson.new, 1)):
            if target is not None:
                taught[lesson.decision, lesson.rank, target] += sign
                assert taught[lesson.decision, lesson.rank, target] in (0, 1), "taken back before it was taught"
    stands = simple(entries)
    expected = {(*at, TEACHES[stage]) for at, stage in stands.items() if TEACHES[stage] is not None}
    assert {place for place, count in taught.items() if count} == expected
    attribution = Attribution.from_bytes(data)
    for (position, rank), stage in stands.items():
        assert attribution.stages(position)[rank - 1] == stage


FIRST, SECOND, THIRD = Offset(1, 1), Offset(1, 2), Offset(1, 3)


def absorb(*entries: tuple[Offset, bytes], attribution: Attribution | None = None) -> list[tuple[int | None, ...]]:
    attribution = Attribution() if attribution is None else attribution
    lessons = attribution.absorb([LogEntry(at, data) for at, data in entries])
    return [(lesson.rank, lesson.old, lesson.new) for lesson in lessons]


@pytest.mark.parametrize(("seen_ms", "lessons"), [(109, []), (110, [(1, None, 0)])])
def test_a_window_closes_in_the_time_of_the_log(seen_ms: int, lessons: list[tuple[int | None, ...]]) -> None:
    """A decision at 100 with a window of 10 is open until the log itself has reached 110."""
    assert absorb((FIRST, decision(100, (10,))), (SECOND, decision(seen_ms, ()))) == lessons


def test_time_does_not_go_back() -> None:
    """An entry with an older time opens no window again and closes none."""
    entries = ((FIRST, decision(100, (10,))), (SECOND, decision(50, ())), (THIRD, decision(109, ())))
    assert absorb(*entries) == []


def test_a_late_yes_takes_the_provisional_no_back() -> None:
    late = outcome(FIRST, 1, Stage.ACCEPTED, 200)
    assert absorb((FIRST, decision(100, (10,))), (SECOND, late)) == [(1, None, 0), (1, 0, 100)]


def test_an_answer_of_the_last_moment_is_not_late() -> None:
    assert absorb((FIRST, decision(100, (10,))), (SECOND, outcome(FIRST, 1, Stage.ACCEPTED, 109))) == [(1, None, 100)]


@pytest.mark.parametrize(
    "move",
    [
        pytest.param(outcome(FIRST, 1, Stage.FULFILLED, 101), id="nothing was accepted yet"),
        pytest.param(outcome(FIRST, 2, Stage.ACCEPTED, 101), id="the answer had one offer"),
        pytest.param(outcome(FIRST, 1, Stage.ACCEPTED, 101, key=99), id="another offer was in that place"),
        pytest.param(outcome(THIRD, 1, Stage.ACCEPTED, 101), id="there is no such decision"),
    ],
)
def test_a_move_that_is_not_allowed_teaches_nothing_and_is_counted(move: bytes) -> None:
    attribution = Attribution()
    assert absorb((FIRST, decision(100, (10,))), (SECOND, move), attribution=attribution) == []
    assert (attribution.refused, attribution.stages(FIRST)) == (1, [Stage.SERVED])


def test_what_cannot_be_read_is_counted_and_passed_over() -> None:
    attribution = Attribution()
    entries = ((FIRST, b"garbage"), (SECOND, decision(100, (10,))), (THIRD, outcome(SECOND, 1, Stage.DECLINED, 101)))
    assert absorb(*entries, attribution=attribution) == [(1, None, 0)]
    assert attribution.unreadable == 1


def test_the_oldest_are_let_go_when_there_are_too_many() -> None:
    """Of four decisions of two offers each, six instances at most are followed; the oldest decision is given up."""
    attribution = Attribution()
    entries = [LogEntry(Offset(1, seq), decision(100, (10, 20))) for seq in range(1, 5)]
    assert attribution.absorb(entries, instances_max=6) == []
    assert (len(attribution), attribution.overflowed) == (6, 2)
    assert attribution.stages(Offset(1, 1)) == []
    late = [LogEntry(Offset(1, 9), outcome(Offset(1, 1), 1, Stage.ACCEPTED, 101))]
    assert attribution.absorb(late) == []
    assert attribution.refused == 1


def test_what_was_let_go_leaves_nothing_behind() -> None:
    """Windows of a day and room for ten: ten thousand decisions later there is not a window to close for each."""
    attribution = Attribution()
    entries = [LogEntry(Offset(1, seq), decision(seq, (86_400_000,))) for seq in range(1, 10_001)]
    assert attribution.absorb(entries, instances_max=10) == []
    assert (len(attribution), attribution.overflowed) == (10, 9_990)
    assert len(attribution._due) < 2_000
    closed = [LogEntry(Offset(2, 0), decision(2 * 86_400_000, ()))]
    assert [lesson.decision.seq for lesson in attribution.absorb(closed)] == list(range(9_991, 10_001))


def test_a_decision_is_forgotten_when_no_outcome_of_it_is_taken_any_more() -> None:
    """Half a year after the last of its windows, not after the first one: until then a late yes still counts."""
    attribution = Attribution()
    last_ms = 100 + 500 + LATE_OUTCOME_MS_MAX
    absorb((FIRST, decision(100, (10, 500))), (SECOND, decision(last_ms - 1, ())), attribution=attribution)
    assert len(attribution) == 2
    absorb((THIRD, decision(last_ms, ())), attribution=attribution)
    assert len(attribution) == 0


@given(logs(), st.data())
def test_a_cut_checkpoint_is_refused_or_is_one_of_fewer_decisions(entries: list[LogEntry], data: st.DataObject) -> None:
    packed = run(entries, set(), set())[1]
    cut = packed[: data.draw(st.integers(0, len(packed) - 1))]
    try:
        found = Attribution.from_bytes(cut)
    except AttributionError:
        return
    assert packed.startswith(found.to_bytes())


@given(logs(), st.data())
def test_a_damaged_checkpoint_never_raises_anything_else(entries: list[LogEntry], data: st.DataObject) -> None:
    packed = bytearray(run(entries, set(), set())[1])
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = Attribution.from_bytes(bytes(packed))
    except AttributionError as error:
        assert str(error)
    else:
        assert Attribution.from_bytes(found.to_bytes()).to_bytes() == found.to_bytes()
