"""Complaint cases: which complaints are one. The rules, one by one, and what holds whatever comes."""

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cases import Case, cases_of, closed_by
from engine.config_schema import OnTimeline
from engine.timeline import Entry

DAY_MS = 86_400_000
SAME = ("topic", "product")
RULE = OnTimeline(kind="complaint", case="case", same=SAME, within="7d", closes={"state": "closed"})


def complaints(*told: tuple[float, dict[str, Any]]) -> list[tuple[Entry, OnTimeline, str]]:
    """Complaints by day; `channel` is where, the rest are attributes."""
    found = []
    for number, (day, facts) in enumerate(told, 1):
        attributes = {name: value for name, value in facts.items() if name != "channel"}
        found.append((Entry(int(day * DAY_MS), number, "complaint", attributes), RULE, facts.get("channel", "")))
    return found


def cases(*told: tuple[float, dict[str, Any]]) -> list[tuple[str, int, bool]]:
    """(id, complaints, open) of each case."""
    return [(case.id, case.complaints, case.closed_ms is None) for case in cases_of(complaints(*told))[0]]


A = {"topic": "fees", "product": "card"}
B = {"topic": "fees", "product": "loan"}
CLOSED = {"state": "closed"}


def test_the_same_id_is_the_same_case_whatever_else_differs() -> None:
    assert cases((0, A | {"case": "7"}), (100, B | {"case": "7"}), (200, {"case": "7"})) == [("7", 3, True)]


def test_the_same_attributes_are_the_same_case_within_the_period() -> None:
    """The period runs from the last complaint: whoever complains every week has one case."""
    assert cases((0, A), (7, A), (14, A), (21.1, A)) == [("#000000000001", 3, True), ("#000000000004", 1, True)]


def test_all_of_the_attributes_must_be_the_same_and_there() -> None:
    assert len(cases((0, A), (1, B))) == 2
    assert len(cases((0, {"topic": "fees"}), (1, {"topic": "fees"}))) == 2, "of which product nobody said"


def test_a_case_gets_the_first_id_that_comes_and_knows_all_of_them() -> None:
    assert cases((0, A), (1, A | {"case": "web-1"}), (2, A | {"case": "crm-9"}), (30, {"case": "crm-9"})) == [
        ("web-1", 4, True)
    ]


def test_a_case_is_closed_by_its_id_or_by_its_attributes_whenever_that_comes() -> None:
    assert cases((0, A | {"case": "7"}), (90, CLOSED | {"case": "7"})) == [("7", 1, False)]
    assert cases((0, A), (90, A | CLOSED)) == [("#000000000001", 1, False)]


def test_what_closes_nothing_is_no_case() -> None:
    assert cases((0, A | CLOSED), (1, CLOSED | {"case": "7"})) == []


def test_it_is_closed_when_it_was_closed_first() -> None:
    [case], _ = cases_of(complaints((0, A), (1, A | CLOSED), (2, A | CLOSED)))
    assert case.closed_ms == DAY_MS, "closing it twice changes nothing"


def test_a_complaint_after_the_end_opens_it_again_with_a_new_age() -> None:
    [case], _ = cases_of(complaints((0, A), (3, A | CLOSED), (5, A)))
    assert (case.closed_ms, case.opened_ms, case.first_ms) == (None, 5 * DAY_MS, 0)
    assert case.age_ms(9 * DAY_MS) == 4 * DAY_MS
    assert case.age_ms(0) == 0


def test_channels_stand_in_the_order_of_their_first_use() -> None:
    web, branch = {"channel": "web"}, {"channel": "branch"}
    [case], of_entry = cases_of(complaints((0, A | web), (1, A), (2, A | branch), (3, A | web)))
    assert case.channels == ["web", "branch"]
    assert of_entry == dict.fromkeys((1, 2, 3, 4), case)


def test_types_of_events_share_their_cases() -> None:
    """The complaint comes from one system, its end from another."""
    ended = OnTimeline(kind="complaint", case="ticket", closes=True)
    [first] = complaints((0, A | {"case": "7"}))
    [case], _ = cases_of([first, (Entry(DAY_MS, 2, "ticket.solved", {"ticket": "7"}), ended, "")])
    assert (case.type, case.closed_ms) == ("complaint", DAY_MS)


@pytest.mark.parametrize(
    ("closes", "attributes", "expected"),
    [
        (True, {}, True),
        (False, {}, False),
        ({"a": 1.0}, {"a": 1.0}, True),
        ({"a": 1.0}, {"a": True}, False),
        ({"a": True}, {"a": 1.0}, False),
        ({"a": "x", "b": "y"}, {"a": "x"}, False),
    ],
)
def test_what_closes(closes: Any, attributes: dict[str, Any], expected: bool) -> None:
    assert closed_by(attributes, OnTimeline(kind="complaint", case="c", closes=closes)) is expected


@given(st.lists(st.integers(0, 60), max_size=40), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_whatever_comes_every_complaint_is_in_one_case(days: list[int], dice: Random) -> None:
    options: list[dict[str, Any]] = [A, B, {}, A | {"case": "1"}, B | {"case": "2"}, {"case": "1"}, A | {"case": "3"}]
    told = [(day, dice.choice(options) | dice.choice([{}, {}, CLOSED])) for day in sorted(days)]
    entries = complaints(*told)
    found, of_entry = cases_of(entries)
    opening = [entry for entry, rule, _ in entries if not closed_by(entry.attributes, rule)]
    assert sum(case.complaints for case in found) == len(opening)
    assert {entry.id for entry in opening} <= set(of_entry)
    assert [case.first_ms for case in found] == sorted(case.first_ms for case in found)
    assert len({case.entry_id for case in found}) == len(found)
    for case in found:
        check(case, [entry for entry, _, _ in entries if of_entry.get(entry.id) is case])


def check(case: Case, entries: list[Entry]) -> None:
    assert entries[0].time_ms == case.first_ms <= case.opened_ms <= case.last_ms
    last = entries[-1]
    if last.attributes.get("state") != "closed":
        assert case.closed_ms is None
    if case.closed_ms is not None:
        assert case.closed_ms >= case.last_ms
    ids = [entry.attributes["case"] for entry in entries if "case" in entry.attributes]
    assert case.id == (ids[0] if ids else f"#{case.entry_id:012x}")
