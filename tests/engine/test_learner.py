"""The learner: the log alone decides what is known; crashes, batches and catalogues that change do not."""

from collections.abc import Set

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.learner import Learner, Position, posterior_options
from engine.ledger import hash_of
from engine.lifecycle import REPORTABLE, Stage
from engine.record import Choice, DecisionRecord, OutcomeRecord
from engine.store import LogEntry
from features import Offset
from models import CheckpointError, Policy
from tests.small_engine import CONFIG, DAY_MS, START_MS, catalogue_of

CATALOGUE = catalogue_of()
PARTITIONS = 2
Log = list[tuple[int, LogEntry]]


def decision(time_ms: int, x: bytes, offers: list[int]) -> bytes:
    slate = tuple(Choice(CATALOGUE.offer_keys[at], 0.5, 1.0, 0.1, 0.1, time_ms + DAY_MS) for at in offers)
    return DecisionRecord(
        time_ms, 1, CATALOGUE.version, CATALOGUE.transform.version, 0, Offset.ZERO, 0, 0, 0, 0, False, 3,
        "ann", "", b"", x, b"\0", b"", 0.0, slate,
    ).pack()  # fmt: skip


@st.composite
def logs(draw: st.DrawFn) -> Log:
    entries: Log = []
    made: list[tuple[int, Offset, list[int]]] = []
    now = START_MS
    for seq in range(1, draw(st.integers(1, 20)) + 1):
        now += draw(st.integers(0, DAY_MS))
        at = Offset(START_MS, seq)
        if not made or draw(st.integers(0, 2)) == 0:
            steps = draw(st.lists(st.integers(-127, 127), min_size=8, max_size=8))
            x = np.array([127, *steps], np.int8)[: CATALOGUE.transform.dimension]
            x = np.resize(x, CATALOGUE.transform.dimension).tobytes()
            offers = draw(st.lists(st.integers(0, 2), unique=True, max_size=3))
            partition = draw(st.integers(0, PARTITIONS - 1))
            made.append((partition, at, offers))
            entries.append((partition, LogEntry(at, decision(now, x, offers))))
        else:
            partition, of, offers = draw(st.sampled_from(made))
            rank = draw(st.integers(1, max(1, len(offers))))
            key = CATALOGUE.offer_keys[offers[rank - 1]] if offers else 7
            stage = draw(st.sampled_from(sorted(REPORTABLE)))
            data = OutcomeRecord(of, key, rank, stage, now, 0.0, hash_of(str(seq)), str(seq), b"").pack()
            entries.append((partition, LogEntry(at, data)))
    return entries


def take_in(learner: Learner, entries: Log, log: Log) -> None:
    records: dict[Position, bytes | None] = {(partition, entry.offset): entry.data for partition, entry in log}
    for partition in range(PARTITIONS):
        own = [entry for home, entry in entries if home == partition]
        due = learner.absorb(partition, own)
        learner.teach(due, {item.position: records[item.position] for item in due})


def learnt(log: Log, cuts: Set[int] = frozenset(), crashes: Set[int] = frozenset()) -> Learner:
    """The learner after the log. At a crash everything since the last checkpoint is forgotten and read again."""
    learner, stored = Learner(CATALOGUE, PARTITIONS), {}
    start = saved = 0
    for at in range(1, len(log) + 1):
        if at in crashes:
            take_in(learner, log[start:at], log)
            learner = Learner.restore(CATALOGUE, PARTITIONS, stored)
            start = saved
        elif at in cuts:
            take_in(learner, log[start:at], log)
            fields, removed = learner.checkpoint()
            stored = {name: data for name, data in stored.items() if name not in removed} | fields
            start = saved = at
    take_in(learner, log[start:], log)
    return learner


places = st.sets(st.integers(1, 20))


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(logs(), places, places)
def test_crashes_and_batches_change_no_bit_of_what_is_learnt(log: Log, cuts: set[int], crashes: set[int]) -> None:
    once, with_crashes = learnt(log), learnt(log, cuts, crashes)
    assert with_crashes.statistics.to_bytes() == once.statistics.to_bytes()
    assert [a.to_bytes() for a in with_crashes.attributions] == [a.to_bytes() for a in once.attributions]
    assert (with_crashes.lessons, with_crashes.lost) == (once.lessons, 0)


@settings(deadline=None)
@given(logs())
def test_a_checkpoint_holds_everything(log: Log) -> None:
    """The restored learner has the same sums, goes on at the same place and writes the same snapshot."""
    learner = learnt(log)
    restored = Learner.restore(CATALOGUE, PARTITIONS, learner.checkpoint()[0])
    assert restored.offsets == learner.offsets
    assert restored.snapshot(whole=True) == learner.snapshot(whole=True)


def one_yes(offer: int = 0) -> Log:
    x = np.full(CATALOGUE.transform.dimension, 127, np.int8).tobytes()
    made = LogEntry(Offset(1, 1), decision(START_MS, x, [offer]))
    key = CATALOGUE.offer_keys[offer]
    said = OutcomeRecord(Offset(1, 1), key, 1, Stage.ACCEPTED, START_MS + 1, 0.0, 5, "o", b"")
    return [(0, made), (0, LogEntry(Offset(1, 2), said.pack()))]


def test_an_offer_that_was_removed_teaches_nothing_and_the_others_go_on() -> None:
    smaller = catalogue_of(CONFIG[: CONFIG.index(b"  - id: helpline")] + b"fallback: [card]\n")
    assert smaller.transform.version == CATALOGUE.transform.version
    learner = Learner(smaller, PARTITIONS)
    take_in(learner, one_yes(offer=2), one_yes(offer=2))
    assert (learner.lessons, learner.lost) == (0, 1)
    learner = Learner(smaller, PARTITIONS)
    take_in(learner, one_yes(offer=1), one_yes(offer=1))
    assert (learner.lessons, learner.lost) == (1, 0)


def test_an_offer_that_was_added_starts_from_what_the_others_taught() -> None:
    """A checkpoint of the smaller catalogue is read by the larger one, and its snapshot has the new offer too."""
    fund = b"  - {id: fund, value: 9, treatments: [{text: Fund}]}\n"
    larger = catalogue_of(CONFIG.replace(b"fallback:", fund + b"fallback:"))
    learner = learnt(one_yes())
    restored = Learner.restore(larger, PARTITIONS, learner.checkpoint()[0])
    assert restored.statistics == learner.statistics
    beliefs = restored.snapshot(whole=True)[1]
    assert set(beliefs) == {"card", "loan", "helpline", "fund"}


def test_another_transform_begins_anew() -> None:
    """Sums of two input transforms never mix: the other configuration starts with nothing, at the start of the log."""
    other = catalogue_of(CONFIG.replace(b"range: [0, 60]", b"range: [0, 90]"))
    fields = learnt(one_yes()).checkpoint()[0]
    restored = Learner.restore(other, PARTITIONS, fields)
    assert len(restored.statistics) == 0
    take_in(restored, one_yes(), one_yes())
    assert (restored.lessons, restored.lost) == (0, 1)


def test_a_lesson_whose_record_is_gone_is_counted_as_lost() -> None:
    learner = Learner(CATALOGUE, PARTITIONS)
    due = learner.absorb(0, [entry for _, entry in one_yes()])
    learner.teach(due, {due[0].position: None})
    assert (learner.lessons, learner.lost) == (0, 1)


@pytest.mark.parametrize("part", ["head", "attribution:0", "statistics:card", "calibration"])
@pytest.mark.parametrize("damage", [b"", b"garbage"])
def test_a_damaged_checkpoint_stops_the_learner(part: str, damage: bytes) -> None:
    """Starting afresh silently would forget what was learnt."""
    fields, _ = learnt(one_yes()).checkpoint()
    [name] = [name for name in fields if name.endswith(part)]
    with pytest.raises(CheckpointError, match=rf"^the learner's checkpoint cannot be read: field {name}: \w"):
        Learner.restore(CATALOGUE, PARTITIONS, fields | {name: damage})


def test_a_missing_part_of_a_checkpoint_is_noticed() -> None:
    fields, _ = learnt(one_yes()).checkpoint()
    [name] = [name for name in fields if name.endswith("attribution:1")]
    with pytest.raises(CheckpointError, match=r"cannot be read: field .*: 'attribution:1' is missing"):
        Learner.restore(CATALOGUE, PARTITIONS, {other: data for other, data in fields.items() if other != name})


@pytest.mark.parametrize("part", ["head", "statistics:card", "calibration"])
def test_no_part_of_a_checkpoint_goes_unmissed(part: str) -> None:
    fields, _ = learnt(one_yes()).checkpoint()
    assert [name for name in fields if name.endswith(part)]
    with pytest.raises(CheckpointError, match="cannot be read"):
        Learner.restore(CATALOGUE, PARTITIONS, {n: data for n, data in fields.items() if not n.endswith(part)})


def test_sums_under_another_name_are_noticed() -> None:
    fields, _ = learnt(one_yes()).checkpoint()
    moved = {name.replace("statistics:card", "statistics:loan"): data for name, data in fields.items()}
    with pytest.raises(CheckpointError, match="statistics:loan: it is of"):
        Learner.restore(CATALOGUE, PARTITIONS, moved)


def test_sums_of_another_period_are_left_alone_and_found_again() -> None:
    """The number of a period means another time then: what was taught in one would be taken back in another."""
    log = one_yes()
    fields, _ = learnt(log).checkpoint()
    halved = catalogue_of(CONFIG + b"learning: {period: 12h}\n")
    anew = Learner.restore(halved, PARTITIONS, fields)
    assert (anew.lessons, anew.offsets) == (0, Learner(halved, PARTITIONS).offsets)
    take_in(anew, log, log)
    others, _ = anew.checkpoint()
    assert not fields.keys() & others.keys()
    assert Learner.restore(CATALOGUE, PARTITIONS, fields | others).checkpoint()[0].keys() <= fields.keys()
    assert Learner.restore(halved, PARTITIONS, fields | others).statistics.to_bytes() == anew.statistics.to_bytes()


def test_who_begins_anew_leaves_nothing_of_the_old_checkpoint() -> None:
    stored, _ = learnt(one_yes()).checkpoint()
    fields, removed = Learner.restore(CATALOGUE, PARTITIONS, stored).anew().checkpoint()
    empty, _ = Learner(CATALOGUE, PARTITIONS).checkpoint()
    assert {name for name in stored if name not in removed} == fields.keys()
    assert {name for name in fields if "drift:" not in name} == empty.keys(), "of drift it is said that there is none"


def test_a_taken_back_lesson_leaves_the_checkpoint_as_if_it_never_was() -> None:
    """ignored, then withdrawn: the no is taken back, and what was counted of it is removed from the store."""
    log = one_yes()[:1]
    key = CATALOGUE.offer_keys[0]

    def said(seq: int, stage: Stage) -> tuple[int, LogEntry]:
        record = OutcomeRecord(Offset(1, 1), key, 1, stage, START_MS + seq, 0.0, hash_of(str(seq)), str(seq), b"")
        return 0, LogEntry(Offset(1, seq), record.pack())

    learner = Learner(CATALOGUE, PARTITIONS)
    take_in(learner, [*log, said(2, Stage.IGNORED)], log)
    stored, _ = learner.checkpoint()
    names = [name for name in stored if name.endswith(("calibration", "statistics:card"))]
    take_in(learner, [said(3, Stage.WITHDRAWN)], log)
    fields, removed = learner.checkpoint()
    assert not fields.keys() & set(names)
    assert (len(removed), sorted(removed)) == (2, sorted(names))


def test_a_snapshot_is_what_the_servers_can_load() -> None:
    learner = learnt(one_yes())
    beliefs = learner.snapshot()[1]
    transform = CATALOGUE.transform
    empty = Policy.empty(CATALOGUE.offer_ids, transform.dimension, posterior_options(CATALOGUE), transform.version)
    served = empty.replaced(beliefs, 1)
    x = np.full((1, CATALOGUE.transform.dimension), 127, np.int8)
    assert served.score(x)[0][0, 0] > empty.score(x)[0][0, 0]
    assert not learner.has_news


def test_a_lesson_counts_in_the_period_of_its_decision() -> None:
    """Two decisions a day apart, both answered five days later: two periods, which forgetting weighs apart."""
    x = np.full(CATALOGUE.transform.dimension, 127, np.int8).tobytes()
    key = CATALOGUE.offer_keys[0]
    log: Log = [(0, LogEntry(Offset(1, day), decision(START_MS + day * DAY_MS, x, [0]))) for day in (1, 2)]
    for day in (1, 2):
        said = OutcomeRecord(Offset(1, day), key, 1, Stage.ACCEPTED, START_MS + 5 * DAY_MS, 0.0, day, str(day), b"")
        log.append((0, LogEntry(Offset(2, day), said.pack())))
    learner = learnt(log)
    assert len(learner.statistics) == 2
    period = START_MS // DAY_MS + 1
    weighed = {now: learner.statistics.combined("card", period + now, 1.0)[2] for now in (1, 2)}
    assert weighed == {1: 1.5, 2: 0.75}
