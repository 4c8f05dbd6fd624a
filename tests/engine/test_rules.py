"""Rules: what CEL means here, what is refused when a configuration is read, and masks that say what a loop would."""

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.arbitration import Arbitration
from engine.catalogue import Column
from engine.config import parse
from engine.limits import RULE_BYTES_MAX, RULES_MAX
from engine.rulebatch import RuleBatch
from engine.rules import RuleError, Rules, Verdict, words_of

SAMPLES: dict[str, float | str | bool] = {"age": 0.0, "job": "clerk", "vip": False}
PERSON: dict[str, float | str | bool] = {"age": 40.0, "job": "nurse", "vip": True}
COLUMNS = [Column("age", "number"), Column("job", "text", ("clerk", "nurse")), Column("vip", "flag")]
ROW = np.array([[40.0, 1.0, 1.0]])
"""PERSON as decisions have it."""
MISSING: dict[str, float | str | bool] = {"age": math.nan, "job": "", "vip": False}


def verdict(expression: str, person: dict[str, float | str | bool]) -> tuple[bool, bool]:
    """(held, failed) of one rule for one person."""
    rules = Rules([expression], SAMPLES)
    found = rules.evaluate({name: person[name] for name in rules.variables})
    return bool(found.held[0]), bool(found.failed and found.failed[0])


@pytest.mark.parametrize(
    ("expression", "held"),
    [
        ("age > 39.0", True),
        ("age > 39", True),  # a whole number is compared with a double by its value
        ("age >= 40.0 && age <= 40.0", True),
        ("age == 40.0", True),
        ("age != 40.0", False),
        ("age + 1.0 > 40.5", True),
        ("age / 2.0 == 20.0", True),
        ("age in [20.0, 40.0]", True),
        ("job == 'nurse'", True),
        ("job in ['nurse', 'clerk']", True),
        ("job.startsWith('nu') && job.endsWith('se')", True),
        ("job.contains('x')", False),
        ("job.matches('^n.*e$')", True),
        ("size(job) == 5", True),
        ("vip", True),
        ("!vip || age < 10.0", False),
        ("vip ? age > 50.0 : age > 10.0", False),
        ("true", True),
        ("job != 'all' && job != \"map\" && job != 'it\\'s all'", True),  # words of the language are words in a text
        ("1.0 / (age - 40.0) > 0.0 || vip", True),  # what holds anyway does not depend on what cannot be evaluated
    ],
)
def test_what_a_rule_means(expression: str, held: bool) -> None:
    assert verdict(expression, PERSON) == (held, False)


@pytest.mark.parametrize(
    "expression", ["age > 39.0", "age <= 39.0", "age == 40.0", "job == 'nurse'", "job in ['nurse']", "vip"]
)
def test_a_rule_about_what_is_missing_does_not_hold(expression: str) -> None:
    """Whichever way it asks: nothing is offered on the strength of a number that nobody knows."""
    assert verdict(expression, MISSING)[0] is False


@pytest.mark.parametrize(
    ("expression", "person"),
    [
        ("1 / int(age - 40.0) == 1", PERSON),
        ("10 % int(age - 40.0) == 1", PERSON),
        ("int(age) > 3", MISSING),
        ("['a', 'b'][int(age)] == job", PERSON),
    ],
)
def test_a_rule_that_cannot_be_evaluated_does_not_hold_and_says_so(
    expression: str, person: dict[str, float | str | bool]
) -> None:
    assert verdict(expression, person) == (False, True)


@pytest.mark.parametrize(
    "expression",
    [
        "1.0 / (age - 40.0) > 1.0",
        "1.0 / (age - 40.0) < 1.0",
        "-1.0 / (age - 40.0) != 1.0",
        "(age - 40.0) / (age - 40.0) == 1.0",
        "1.0 / -(age - 40.0) > 1.0 || job == 'clerk'",
        "1.0 / (2.0 / (1.0 / (age - 40.0))) == 0.0",
        "size(job) > 0 && 1.0 / double(int(age) - 40) > 1.0",
        "size(job) > 0 && [1.0 / // by what\n {'it': age - 40.0}.it, age][0] > 1.0",
        "size(job) > 0 && 8.0 / 2.0 / {'it': [age - 40.0]}['it'][0] * 2.0 > 1.0",
    ],
)
def test_what_divides_by_zero_cannot_be_evaluated(expression: str) -> None:
    """CEL's infinity would be more than anything: nobody gets an offer as he spent 100 times nothing."""
    assert verdict(expression, PERSON) == (False, True)
    assert RuleBatch(Rules([expression], SAMPLES), COLUMNS).evaluate(ROW) == [Verdict(b"\0", b"\1")]


@pytest.mark.parametrize(
    "expression",
    [
        "size(job) > 0 && 8.0 / 2.0 / 4.0 * 3.0 - 1.0 / -age == 3.025",
        "size(job) > 0 && 8u / 2u == 4u && 7 / 0x2 == 3 && 1.0 / 5e-1 == 2.0",
        "size('1/0') > 0 && 1.0 / double(size('/ 0.0')) == 0.2 // as 1 / 5",
        "age / (age - double(size(job))) < 2.0 && age / (age / 2.0) == 2.0",
    ],
)
def test_other_divisions_are_as_they_were(expression: str) -> None:
    assert verdict(expression, PERSON) == (True, False)


def test_a_difference_of_two_numbers_may_be_divided_by() -> None:
    """When a rule is tried, equal values for both would make it one that always divides by zero."""
    assert len(Rules(["a / (a - b) > 2.0"], {"a": 0.0, "b": 0.0})) == 1


def test_one_rule_that_fails_leaves_the_others_alone() -> None:
    rules = Rules(["vip", "int(age) / int(age) == 1", "job == 'nurse'"], SAMPLES)
    found = rules.evaluate({**PERSON, "age": 0.0})
    assert (found.held, found.failed) == (bytes([0b101]), bytes([0b010]))
    assert [rules.expressions[at] for at in rules.unmet(found.held, 0b111)] == ["int(age) / int(age) == 1"]


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("", "not an expression of CEL"),
        ("age >", "not an expression of CEL"),
        ("age > 1.0)", "not an expression of CEL"),
        ("\x00", "not an expression of CEL"),
        ("age > 99999999999999999999", "not an expression of CEL"),
        ("import os", "not an expression of CEL"),
        ("height > 1.0", "no feature or fact is called 'height'; there are age, job, vip"),
        ("os.system('x') == 0", "no feature or fact is called 'os'"),
        ("age", "expected a rule that is true or false, this one gives"),
        ("'yes'", "expected a rule that is true or false, this one gives 'yes'"),
        ("job > 1", "different types"),
        ("age + 1 > 2.0", "a number is a double: write 1.0 for 1"),
        ("job.size > 1", "different types"),
        ("1 / 0 == 1", "divides by zero, whatever the customer"),
        ("1 % 0 == 1", "divides by zero, whatever the customer"),
        ("1.0 / 0.0 > 1.0", "divides by zero, whatever the customer"),
        ("age / 0.0 > 1.0", "divides by zero, whatever the customer"),
        ("100.0 / (age - age) > 1.0", "divides by zero, whatever the customer"),
        ("[vip][3]", "cannot be evaluated"),
        ("__import__('os')", "cannot be evaluated"),
        ("job.matches('[')", "cannot be evaluated"),
        ("[1, 2].exists(n, n > 1)", "exists is not allowed: there is nothing to iterate over"),
        ("[1] . // a comment\n filter (age, true) == [1]", "filter is not allowed"),
        (r"job == r'\' && [1.0].exists_one(age, true) && job == ''", "exists_one is not allowed"),
        ("['a'].all(job, job == 'a')", "all is not allowed: there is nothing to iterate over"),
        ("[1.0].map(age, age)[0] > 0.0", "map is not allowed"),
    ],
)
def test_what_is_no_rule_is_refused_with_what_was_expected(expression: str, told: str) -> None:
    with pytest.raises(RuleError) as refusal:
        Rules([expression], SAMPLES)
    assert told in str(refusal.value)


TEN = "[1,1,1,1,1,1,1,1,1,1]"
HOSTILE = {
    "loops in loops": "".join(f"{TEN}.all(n{n}, " for n in range(20)) + "true" + ")" * 20,
    "brackets": "(" * 900 + "vip" + ")" * 900,
    "lists": "[" * 900 + "]" * 900,
    "signs": "!" * 2_000 + "vip",
    "minuses": "-" * 2_000 + "age > 0.0",
    "conditionals": "vip ? vip : " * 160 + "vip",
    "too long": "vip && " * 292 + "vip_",
    "too long in bytes": "job == '" + "é" * 1_025 + "'",
    "open brackets": "(" * 2_000,
    "macros in macros": "[1].all(age, " * 30 + "vip" + ")" * 30,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_rule_is_refused_at_once(name: str) -> None:
    began = time.monotonic()
    with pytest.raises(RuleError):
        Rules([HOSTILE[name]], SAMPLES)
    assert time.monotonic() - began < 2.0


@pytest.mark.parametrize(
    "expression",
    [
        " && ".join(["vip"] * 250),
        " || ".join(["age > 1.0"] * 150),
        "age" + " + age" * 300 + " > 0.0",
        "job" + " + job" * 300 + " == ''",
        "job.matches('(n+)+$')",
        "job.matches('(.*)(.*)(.*)(.*)(.*)(.*)(.*)x')",
    ],
)
def test_the_largest_rules_that_are_taken_are_evaluated_at_once(expression: str) -> None:
    began = time.monotonic()
    assert verdict(expression, {**PERSON, "job": "n" * 256})[1] is False
    assert time.monotonic() - began < 2.0


@pytest.mark.parametrize(
    ("expression", "held"),
    [
        (" || ".join(["age > 90.0"] * 140 + ["vip"]), True),
        (" && ".join(["vip"] * 250), True),
        ("||".join(["job=='x'"] * 200), False),
        ("(" * 15 + "vip" + " ? vip : age > 1.0)" * 15, True),
    ],
)
def test_the_largest_rules_are_part_of_a_batch(expression: str, held: bool) -> None:
    """As Python they would need more brackets than it reads, or double with every condition in a condition."""
    began = time.monotonic()
    columns = [Column("age", "number"), Column("job", "text", ("clerk", "nurse")), Column("vip", "flag")]
    batch = RuleBatch(Rules([expression], SAMPLES), columns)
    assert batch.evaluate(np.array([[40.0, 1.0, 1.0]])) == [Verdict(bytes([held]), b"")]
    assert time.monotonic() - began < 2.0


def test_the_longest_rule_has_as_many_bytes_as_the_limit_says() -> None:
    filler = RULE_BYTES_MAX - len("job == ''")
    assert verdict(f"job == '{'x' * filler}'", PERSON) == (False, False)
    with pytest.raises(RuleError, match=f"a rule of {RULE_BYTES_MAX + 1} bytes, at most {RULE_BYTES_MAX}"):
        Rules([f"job == '{'x' * (filler + 1)}'"], SAMPLES)


def test_there_is_a_most_of_rules() -> None:
    with pytest.raises(RuleError, match=f"at most {RULES_MAX} are allowed"):
        Rules([f"age > {n}.0" for n in range(RULES_MAX + 1)], SAMPLES)


def test_the_same_rule_is_evaluated_once() -> None:
    rules = Rules(["vip", "age > 1.0", "vip"], SAMPLES)
    assert len(rules) == 2
    assert [rules.mask(asked) for asked in ((), ("vip",), ("age > 1.0",), ("vip", "age > 1.0", "vip"))] == [0, 1, 2, 3]
    assert rules.variables == ("age", "vip")


@given(st.data(), st.integers(0, 200), st.integers(1, 20), st.integers(1, 10))
def test_arbitration_finds_eligible_what_a_loop_finds(data: st.DataObject, rules: int, offers: int, rows: int) -> None:
    bits = st.integers(0, 2**rules - 1)
    masks = data.draw(st.lists(bits, min_size=offers, max_size=offers))
    held = data.draw(st.lists(bits, min_size=rows, max_size=rows))
    size = (rules + 7) // 8
    text = [f"{{id: o{at}, value: 2, contact_cost: 0.5, treatments: [{{text: t}}]}}" for at in range(offers)]
    config = parse(f"opportune: 1\nname: n\nchannels: [{{id: web}}]\noffers: [{', '.join(text)}]\n".encode())
    everywhere, worth = np.ones((1, offers), bool), np.full((1, offers), 2.0)
    arbitration = Arbitration(config, words_of(masks, rules), everywhere, worth, np.full(offers, 0.5))
    believed = np.full((rows, offers), 0.25, np.float32)
    verdicts = [Verdict(row.to_bytes(size, "little"), b"") for row in held]
    zeros = np.zeros(rows, np.int64)
    score, spread, may, any_eligible = arbitration.score(believed, believed, verdicts, zeros, zeros)
    expected = [[mask & ~row == 0 for mask in masks] for row in held]
    assert may[:, :-1].tolist() == expected
    assert any_eligible.tolist() == [any(row) for row in expected]
    assert may[:, -1].all(), "silence is always possible unless it is switched off"
    assert (score[:, :-1] == 0.0).all(), "0.25 x 2 - 0.5"
    assert (spread == [0.5] * offers + [0.0]).all()
