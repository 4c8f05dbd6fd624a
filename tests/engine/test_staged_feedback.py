"""Whatever is told late, wrong and corrected, in parts or twice: what was learnt is what the final truth teaches."""

import math
import struct
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.attribution import Attribution, Lesson
from engine.course import Told, problem, standing, tag_of, taken
from engine.learner import Learner
from engine.ledger import hash_of
from engine.lifecycle import ADDS, NEXT, OPEN, REPORTABLE, TEACHES, Stage
from engine.limits import COURSE_ENTRIES_MAX
from engine.record import Choice, DecisionRecord, OutcomeRecord
from engine.store import LogEntry
from engine.terms import MILLIONTHS, OfValue, Terms
from features import Offset
from models import PosteriorOptions, Statistics, fit
from tests.small_engine import DAY_MS, START_MS, catalogue_of

CATALOGUE = catalogue_of(b"""
opportune: 1
name: stages
channels: [{id: web}]
context: [{name: minutes, type: number, input: {range: [0, 60]}}]
objectives: {revenue: 1, satisfaction: 20}
offers:
  - {id: card, value: 40, window: 2d, treatments: [{text: A card}]}
  - id: loan
    value: 100
    outcomes:
      presented: {reward: 0.031}
      clicked: {reward: 0.1}
      accepted: {window: 2d, reward: 0.25}
      fulfilled: {window: 6d}
    treatments: [{text: A loan}]
  - {id: fund, value: 60, window: 2d, rewards: [-50, 200], treatments: [{text: A fund}]}
""")
CARD, LOAN, FUND = CATALOGUE.offer_keys
WINDOW_MS = 2 * DAY_MS
Report = tuple[Offset, int, Stage, int, dict[str, float], str, str]
"""(decision, rank, stage, time, rewards, id, id of the outcome corrected)"""


def decision(time_ms: int, x: bytes, keys: list[int]) -> bytes:
    slate = tuple(Choice(key, 0.5, 1.0, 0.1, 0.1, time_ms + WINDOW_MS) for key in keys)
    return DecisionRecord(
        time_ms, 1, CATALOGUE.version, CATALOGUE.transform.version, 0, Offset.ZERO, 0, 0, 0, 0, False, 3,
        "ann", "", b"", x, b"\0", b"", 0.0, slate,
    ).pack()  # fmt: skip


def outcome(report: Report, keys: list[int]) -> bytes:
    at, rank, stage, time_ms, rewards, name, corrects = report
    packed = orjson.dumps(rewards) if rewards else b""
    return OutcomeRecord(
        at, keys[rank - 1], rank, stage, time_ms, math.nan, hash_of(name), name, b"", hash_of(corrects), packed
    ).pack()


@dataclass
class Story:
    """The same things as they happened and as they were told."""

    truth: list[LogEntry]
    told: list[LogEntry]


rewards = st.dictionaries(st.sampled_from(["revenue", "satisfaction"]), st.sampled_from([-3.0, 0.1, 1.7, 30.0]))


@st.composite
def stories(draw: st.DrawFn) -> Story:
    made: list[tuple[Offset, int, list[int]]] = []
    start: list[LogEntry] = []
    for seq in range(1, draw(st.integers(1, 3)) + 1):
        at, time_ms = Offset(1, seq), START_MS + draw(st.integers(0, DAY_MS))
        keys = draw(st.permutations([CARD, LOAN, FUND]))
        x = bytes([127, draw(st.integers(0, 127))])
        made.append((at, time_ms, keys))
        start.append(LogEntry(at, decision(time_ms, np.resize(np.frombuffer(x, np.int8), DIMENSION).tobytes(), keys)))
    courses: list[list[tuple[Report, list[int]]]] = []
    sides: list[list[tuple[Report, list[int]]]] = []
    for at, served_ms, keys in made:
        for rank, key in enumerate(keys, 1):
            true_ones, telling = _lives(draw, at, served_ms, rank, key, keys)
            courses.append(true_ones)
            sides.append(telling)
    happened = sorted((entry for course in courses for entry in course), key=lambda entry: entry[0][3])
    last_ms = max([START_MS, *(report[3] for report, _ in happened)])
    end_ms = last_ms + draw(st.sampled_from([0, DAY_MS, 10 * DAY_MS]))
    told: list[bytes] = []
    sent: list[bytes] = []
    while any(sides):
        side = draw(st.sampled_from([side for side in sides if side]))
        told.append(outcome(*side.pop(0)))
        sent.append(told[-1])
        if draw(st.integers(0, 3)) == 0:
            told.append(decision(draw(st.integers(START_MS, end_ms)), bytes(DIMENSION), []))  # time passes
        if draw(st.integers(0, 4)) == 0:
            told.append(draw(st.sampled_from(sent)))  # told twice
    last = decision(end_ms, bytes(DIMENSION), [])

    def log(entries: list[bytes]) -> list[LogEntry]:
        return start + [LogEntry(Offset(2, seq), data) for seq, data in enumerate([*entries, last], 1)]

    return Story(log([outcome(*entry) for entry in happened]), log(told))


DIMENSION = CATALOGUE.transform.dimension


def _lives(
    draw: st.DrawFn, at: Offset, served_ms: int, rank: int, key: int, keys: list[int]
) -> tuple[list[tuple[Report, list[int]]], list[tuple[Report, list[int]]]]:
    """What became of an offer, and how it was told: with mistakes that were corrected at once or in the end."""
    true_ones, telling, later = [], [], []
    stage, now_ms = Stage.SERVED, served_ms
    for number in range(draw(st.integers(0, 4))):
        now_ms += draw(st.integers(0, 2 * DAY_MS))
        stands = Stage.EXPIRED if stage in OPEN and now_ms >= served_ms + WINDOW_MS else stage
        may = sorted(NEXT[stands] & REPORTABLE)
        if key == FUND and stage in ADDS:
            may.append(stage)
        if not may:
            break
        new, wrong = draw(st.sampled_from(may)), draw(st.sampled_from(may))
        name = f"{at} {rank} {number}"
        reward = draw(rewards) if key == FUND else {}
        if new == stage:
            reward |= {"revenue": draw(st.sampled_from([-1.3, 7.7]))}
        true_ones.append(((at, rank, new, now_ms, reward, name, ""), keys))
        mistake = draw(st.sampled_from(["none", "stage", "rewards"]))
        if mistake == "none" or (wrong == stage and mistake == "stage"):
            telling.append(true_ones[-1])
        elif mistake == "stage":
            telling.append(((at, rank, wrong, now_ms, {}, f"{name} wrong", ""), keys))
            telling.append(((at, rank, new, now_ms, reward, name, f"{name} wrong"), keys))
        else:
            off = {"revenue": 99.9} if key == FUND else {}
            telling.append(((at, rank, new, now_ms, off, f"{name} wrong", ""), keys))
            later.append(((at, rank, new, now_ms, reward, name, f"{name} wrong"), keys))
        stage = new
    return true_ones, telling + draw(st.permutations(later))


def take_in(learner: Learner, entries: list[LogEntry], log: list[LogEntry]) -> None:
    records = {(0, entry.offset): entry.data for entry in log}
    due = learner.absorb(0, entries)
    learner.teach(due, {item.position: records[item.position] for item in due})


def learnt(log: list[LogEntry], cuts: set[int], restarts: set[int]) -> Learner:
    learner, start = Learner(CATALOGUE, 1), 0
    for at in range(1, len(log)):
        if at in cuts | restarts:
            take_in(learner, log[start:at], log)
            start = at
        if at in restarts:
            learner = Learner.restore(CATALOGUE, 1, learner.checkpoint()[0] | _all(learner))
    take_in(learner, log[start:], log)
    return learner


def _all(learner: Learner) -> dict[str, bytes]:
    """The fields of all offers: a checkpoint has those that changed since the one before."""
    prefix = f"{CATALOGUE.transform.version:08x}:statistics:"
    return {prefix + offer: learner.statistics.subset([offer]).to_bytes() for offer in learner.statistics.offers}


places = st.sets(st.integers(1, 40))


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(stories(), places, places)
def test_what_is_told_late_and_corrected_leaves_the_bytes_of_the_final_truth(
    story: Story, cuts: set[int], restarts: set[int]
) -> None:
    truth, told = learnt(story.truth, set(), set()), learnt(story.told, cuts, restarts)
    assert told.statistics.to_bytes() == truth.statistics.to_bytes()
    for entry in story.truth[:3]:
        assert told.attributions[0].stages(entry.offset) == truth.attributions[0].stages(entry.offset)
    assert truth.attributions[0].refused == 0
    once = learnt(story.told, set(), set())
    assert told.attributions[0].to_bytes() == once.attributions[0].to_bytes()


# --- one offer ------------------------------------------------------------------------------------------------------

AT = Offset(1, 1)


def lessons(key: int, *turns: tuple[float, Stage | None, dict[str, float], str, str]) -> list[tuple[Any, Any]]:
    """(old, new) after turns of (days after the decision, stage or None: time passes, rewards, id, corrects)."""
    return [(lesson.old, lesson.new) for lesson in _lessons(key, *turns)]


def responses(key: int, *turns: tuple[float, Stage | None, dict[str, float], str, str]) -> list[tuple[bool, bool]]:
    """Likewise, whether it was and is taught that the customer responded."""
    return [(lesson.old_response, lesson.new_response) for lesson in _lessons(key, *turns)]


def _lessons(key: int, *turns: tuple[float, Stage | None, dict[str, float], str, str]) -> list[Lesson]:
    log = [LogEntry(AT, decision(START_MS, bytes(DIMENSION), [key]))]
    for seq, (days, stage, given_rewards, name, corrects) in enumerate(turns, 1):
        now_ms = START_MS + round(days * DAY_MS)
        data = (
            decision(now_ms, bytes(DIMENSION), [])
            if stage is None
            else outcome((AT, 1, stage, now_ms, given_rewards, name, corrects), [key])
        )
        log.append(LogEntry(Offset(2, seq), data))
    return Attribution(CATALOGUE.terms).absorb(log)


def turn(
    days: float, stage: Stage | None = None, name: str = "", corrects: str = "", **given_rewards: float
) -> tuple[float, Stage | None, dict[str, float], str, str]:
    return days, stage, given_rewards, name or f"{days} {stage}", corrects


def test_who_responded_is_taught_beside_what_it_was_worth() -> None:
    """A click without a yes, an acceptance, or any reward is a response; a no, and no answer, are none."""
    assert responses(FUND, turn(1, Stage.DECLINED)) == [(False, False)]
    assert responses(FUND, turn(1, Stage.PRESENTED), turn(40)) == [(False, False)]
    assert responses(FUND, turn(1, Stage.CLICKED), turn(40)) == [(False, True)]
    assert responses(FUND, turn(1, Stage.CLICKED), turn(2, Stage.DECLINED)) == [(False, True)]
    assert responses(FUND, turn(1, Stage.DECLINED, satisfaction=-1)) == [(False, True)]
    assert responses(FUND, turn(1, Stage.ACCEPTED), turn(2, Stage.CANCELLED)) == [(False, True), (True, True)]
    # The window closes without an answer; then there was one after all, and it was a mistake.
    late = turn(41, Stage.ACCEPTED, "late", revenue=120)
    wrong = turn(42, Stage.DECLINED, "wrong", corrects="late")
    assert responses(FUND, turn(40), late, wrong) == [(False, False), (False, True), (True, False)]
    assert responses(CARD, turn(1, Stage.ACCEPTED)) == [(False, False)], "of an offer without terms a yes says it all"


def test_a_response_survives_the_checkpoint_and_is_taken_back_as_it_was_taught() -> None:
    first = Attribution(CATALOGUE.terms)
    clicked = outcome((AT, 1, Stage.CLICKED, START_MS + DAY_MS, {}, "click", ""), [FUND])
    passed = decision(START_MS + 40 * DAY_MS, bytes(DIMENSION), [])
    opened = decision(START_MS, bytes(DIMENSION), [FUND])
    [taught] = first.absorb([LogEntry(AT, opened), LogEntry(Offset(2, 1), clicked), LogEntry(Offset(2, 2), passed)])
    second = Attribution.from_bytes(first.to_bytes(), CATALOGUE.terms)
    yes = outcome((AT, 1, Stage.ACCEPTED, START_MS + 41 * DAY_MS, {"revenue": 120.0}, "yes", ""), [FUND])
    [moved] = second.absorb([LogEntry(Offset(2, 3), yes)])
    assert (moved.old, moved.old_response) == (taught.new, True)
    assert (moved.new, moved.new_response) == (68, True)
    back = moved.back
    assert (back.old, back.old_response, back.new, back.new_response) == (68, True, None, False)
    assert moved.changes == [(taught.new, True, -1), (68, True, 1)]


def test_while_a_delivery_is_waited_for_the_acceptance_teaches_nothing() -> None:
    assert lessons(LOAN, turn(1, Stage.ACCEPTED), turn(5.9)) == []


def test_when_the_window_of_the_delivery_ends_the_acceptance_counts_for_what_it_is() -> None:
    assert lessons(LOAN, turn(1, Stage.ACCEPTED), turn(6)) == [(None, 25)]


def test_a_late_delivery_takes_that_back() -> None:
    assert lessons(LOAN, turn(1, Stage.ACCEPTED), turn(6), turn(60, Stage.FULFILLED)) == [(None, 25), (25, 100)]


def test_a_delivery_or_a_cancellation_in_time_teaches_at_once() -> None:
    assert lessons(LOAN, turn(1, Stage.ACCEPTED), turn(2, Stage.FULFILLED)) == [(None, 100)]
    assert lessons(LOAN, turn(1, Stage.ACCEPTED), turn(2, Stage.CANCELLED)) == [(None, 0)]
    after = turn(3, Stage.CANCELLED)
    assert lessons(LOAN, turn(1, Stage.ACCEPTED), turn(2, Stage.FULFILLED), after) == [(None, 100), (100, 0)]


def test_what_was_clicked_and_expired_counts_as_clicked() -> None:
    assert lessons(LOAN, turn(1, Stage.CLICKED), turn(2)) == [(None, 10)]
    # Told after the window had closed, but it happened before.
    assert lessons(LOAN, turn(3), turn(1, Stage.CLICKED)) == [(None, 0), (0, 10)]


def test_what_was_not_delivered_teaches_nothing_whatever_its_terms() -> None:
    for key in (LOAN, FUND):
        assert [new for _, new in lessons(key, turn(1, Stage.NOT_PRESENTED), turn(9))] == []
        assert lessons(key, turn(3), turn(4, Stage.NOT_PRESENTED))[-1][1] is None


def test_the_wrong_person_was_spoken_to() -> None:
    """It was told as a no; corrected, it says nothing about the customer."""
    turns = turn(1, Stage.PRESENTED), turn(1, Stage.DECLINED, "no"), turn(1, Stage.NOT_PRESENTED, "who", "no")
    assert lessons(LOAN, *turns) == [(None, 0), (0, None)]


def test_parts_of_a_reward_add_up() -> None:
    """Of a range from −50 to 200: 75 is half of it, and 75 + 62.5 three quarters."""
    first = turn(1, Stage.ACCEPTED, revenue=75)
    assert lessons(FUND, first) == [(None, 50)]
    assert lessons(FUND, first, turn(2, Stage.ACCEPTED, revenue=62.5)) == [(None, 50), (50, 75)]
    assert lessons(FUND, first, turn(2, Stage.FULFILLED, revenue=22.5, satisfaction=2)) == [(None, 50), (50, 75)]


def test_a_cancellation_voids_what_was_earned_and_may_cost() -> None:
    sold = turn(1, Stage.ACCEPTED, revenue=75), turn(2, Stage.FULFILLED)
    assert lessons(FUND, *sold, turn(3, Stage.CANCELLED))[-1] == (50, 20)
    assert lessons(FUND, *sold, turn(3, Stage.CANCELLED, revenue=-25))[-1] == (50, 10)


def test_a_reward_beyond_the_range_is_clipped() -> None:
    assert lessons(FUND, turn(1, Stage.ACCEPTED, revenue=10**9)) == [(None, 100)]
    assert lessons(FUND, turn(1, Stage.DECLINED, satisfaction=-10**9)) == [(None, 0)]


def test_an_acceptance_without_rewards_is_worth_the_declared_value() -> None:
    """60 of −50 to 200 is 44 of 100."""
    assert lessons(FUND, turn(1, Stage.ACCEPTED)) == [(None, 44)]


def test_lessons_are_taken_back_as_they_were_taught_though_the_terms_have_changed() -> None:
    log = [LogEntry(AT, decision(START_MS, bytes(DIMENSION), [LOAN]))]
    log.append(LogEntry(Offset(2, 1), outcome((AT, 1, Stage.ACCEPTED, START_MS, {}, "yes", ""), [LOAN])))
    before = Attribution()
    assert [(one.old, one.new) for one in before.absorb(log)] == [(None, 100)]
    after = Attribution.from_bytes(before.to_bytes(), CATALOGUE.terms)
    cancelled = outcome((AT, 1, Stage.CANCELLED, START_MS, {}, "no", ""), [LOAN])
    assert [(one.old, one.new) for one in after.absorb([LogEntry(Offset(2, 2), cancelled)])] == [(100, 0)]


def test_one_that_waited_under_terms_that_are_gone_is_taught_with_the_next_entry() -> None:
    log = [LogEntry(AT, decision(START_MS, bytes(DIMENSION), [LOAN]))]
    log.append(LogEntry(Offset(2, 1), outcome((AT, 1, Stage.ACCEPTED, START_MS, {}, "yes", ""), [LOAN])))
    waiting = Attribution(CATALOGUE.terms)
    assert waiting.absorb(log) == []
    plain = Attribution.from_bytes(waiting.to_bytes())
    entry = LogEntry(Offset(2, 2), decision(START_MS, bytes(DIMENSION), []))
    assert [(one.old, one.new) for one in plain.absorb([entry])] == [(None, 100)]


def test_a_checkpoint_of_the_form_before_is_read() -> None:
    """Rows without what was taught, and no courses: an offer goes on from where it stood."""
    head = struct.pack("<BQIqQQQQ", 1, 2, 7, START_MS, 0, 0, 0, 0)
    rows = b"".join(
        struct.pack("<IBq", CARD, stage, START_MS + WINDOW_MS)
        for stage in (Stage.ACCEPTED, Stage.SERVED, Stage.EXPIRED)
    )
    body = head + struct.pack("<QIqB", 1, 1, START_MS, 3) + rows
    attribution = Attribution.from_bytes(body + struct.pack("<I", crc32(body)), CATALOGUE.terms)
    assert attribution.stages(AT) == [Stage.ACCEPTED, Stage.SERVED, Stage.EXPIRED]
    turns = [(1, Stage.CANCELLED), (2, Stage.ACCEPTED), (3, Stage.ACCEPTED)]
    log = [
        LogEntry(Offset(3, rank), outcome((AT, rank, stage, START_MS, {}, f"{rank}", ""), [CARD] * 3))
        for rank, stage in turns
    ]
    assert [(one.old, one.new) for one in attribution.absorb(log)] == [(100, 0), (None, 100), (0, 100)]
    assert Attribution.from_bytes(attribution.to_bytes()).to_bytes() == attribution.to_bytes()


# --- rewards as targets ---------------------------------------------------------------------------------------------

TERMS = CATALOGUE.terms[FUND]


@given(st.integers(-50 * MILLIONTHS, 200 * MILLIONTHS))
def test_the_target_is_the_exact_share_in_expectation(reward: int) -> None:
    """Over all dice of 32 bits: as many are rounded up as the share says, to one in 2³²."""
    shares = (reward - TERMS.low) * 100
    whole, rest = divmod(shares, TERMS.high - TERMS.low)
    first_up = next(
        (salt for salt in _around(rest, TERMS.high - TERMS.low) if TERMS.target(reward, salt) > whole), 1 << 32
    )
    share_up = ((1 << 32) - first_up) / (1 << 32)
    assert share_up == pytest.approx(rest / (TERMS.high - TERMS.low), abs=2**-31)


def _around(rest: int, span: int) -> list[int]:
    """Salts about the one from which on the share is rounded up."""
    at = (1 << 32) - rest * (1 << 32) // span
    return [salt for salt in range(at - 2, at + 3) if 0 <= salt < 1 << 32]


@pytest.mark.parametrize("amounts", [[-30.0, 12.5, 0.0, -7.5], [180.0, 60.0, -50.0], [33.3] * 5])
def test_belief_times_value_is_the_mean_reward(amounts: list[float]) -> None:
    """Worked: a range of −50 to 200 and a value of 60. Many customers bring these amounts; P × 60 is their mean."""
    sums = Statistics(1, 7)
    targets = [
        TERMS.target(TERMS.part(math.nan, {"revenue": amount}) or 0, salt)
        for salt in range(0, 1 << 32, 1 << 25)
        for amount in amounts
    ]
    x = np.full((len(targets), 1), 127, np.int8)
    sums.learn(["fund"] * len(targets), [0] * len(targets), x, targets, [1] * len(targets))
    options = PosteriorOptions(prior_strength=1e-9)
    belief = fit(OfValue(sums, {"fund": TERMS.scale}), ["fund"], 0, options)["fund"]
    assert belief.mean[0] * 60 == pytest.approx(sum(amounts) / len(amounts), abs=0.02)
    # The spread is that of the amounts, too, so exploration is in the same unit.
    spread = math.sqrt(belief.covariance[0, 0] * len(targets)) * 60
    assert spread == pytest.approx(np.std(amounts), abs=2.0), "rounding, and the least noise that is believed"


def test_an_offer_with_rewards_starts_where_the_others_do() -> None:
    """Its range is its own affair: before its first lesson it is expected to bring what the others bring of theirs."""
    sums = Statistics(1, 7)
    x = np.full((40, 1), 127, np.int8)
    sums.learn(["card"] * 40, [0] * 40, x, [100] * 10 + [0] * 30, [1] * 40)
    view = OfValue(sums, {"fund": TERMS.scale})
    found = fit(view, ["fund", "new", "card"], 0, PosteriorOptions(prior_strength=4.0))
    assert found["fund"].mean[0] == found["new"].mean[0] > 0.06


def test_terms_of_offers_of_which_a_yes_is_a_yes_are_not_kept() -> None:
    assert set(CATALOGUE.terms) == {LOAN, FUND}


def test_terms_agree_with_the_table_where_they_say_nothing_else() -> None:
    plain = Terms.of(CATALOGUE.offers[2], {})
    assert plain is not None
    for stage, target in TEACHES.items():
        share = plain.shares[stage]
        assert share == (None if target is None else target * 60 * MILLIONTHS // 100)


# --- the course -----------------------------------------------------------------------------------------------------


def told(*stages: Stage) -> list[Told]:
    return [Told(tag_of(hash_of(str(n)), stage)) for n, stage in enumerate(stages)]


def refusal(course: list[Told], stage: Stage, corrects: str = "", *, adds: bool = False) -> str:
    return problem(course, Told(tag_of(hash_of("new"), stage)), hash_of(corrects), standing(course), adds=adds)


@pytest.mark.parametrize(
    ("course", "stage", "corrects", "words"),
    [
        pytest.param([Stage.ACCEPTED], Stage.ACCEPTED, "", "with rewards STAGE_ACCEPTED again with", id="twice"),
        pytest.param([Stage.DECLINED], Stage.ACCEPTED, "", "expected nothing more, got ACCEPTED", id="after a no"),
        pytest.param([Stage.ACCEPTED], Stage.DECLINED, "7", "no outcome of that id", id="unknown"),
        pytest.param(
            [Stage.ACCEPTED, Stage.FULFILLED], Stage.DECLINED, "0", "FULFILLED, told later, cannot follow DECLINED",
            id="what came after does not fit",
        ),
        pytest.param([Stage.PRESENTED, Stage.ACCEPTED], Stage.FULFILLED, "1", "before that outcome it was PRESENTED",
                     id="what came before does not fit"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_refused_in_words(course: list[Stage], stage: Stage, corrects: str, words: str) -> None:
    assert words in refusal(told(*course), stage, corrects)


def test_what_was_corrected_cannot_be_corrected_again_but_its_correction_can() -> None:
    course = taken(told(Stage.ACCEPTED), Told(tag_of(hash_of("second"), Stage.DECLINED)), hash_of("0"))
    assert standing(course) == Stage.DECLINED
    assert "corrected before" in refusal(course, Stage.ACCEPTED, "0")
    assert refusal(course, Stage.ACCEPTED, "second") == ""


def test_an_offer_has_a_bounded_course() -> None:
    course = told(*[Stage.ACCEPTED] * COURSE_ENTRIES_MAX)
    assert "no more are taken" in refusal(course, Stage.ACCEPTED, adds=True)
    assert refusal(course[:-1], Stage.ACCEPTED, adds=True) == ""
