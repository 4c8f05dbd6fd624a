"""Rules as code say what the CEL library says, whatever the rule and the row."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.catalogue import Column
from engine.geo import distance_km
from engine.rulebatch import RuleBatch
from engine.rulecode import compile_code
from engine.ruleprogram import ROWS_BLOCK
from engine.rules import RuleError, Rules

COLUMNS = [
    Column("a", "number"),
    Column("b", "number"),
    Column("job", "text", ("clerk", "nurse", "night nurse")),
    Column("vip", "flag"),
]
PLACED = {column.name: (at, column) for at, column in enumerate(COLUMNS)}
SAMPLES: dict[str, float | str | bool] = {"a": 0.0, "b": 0.0, "job": "clerk", "vip": False}

numbers = st.sampled_from(["a", "b", "1.0", "2.5", "(a + b)", "(a * 2.0)", "(b - 1.0)", "(a / b)",
                           "(a / -b)", "(1.0 / (b / (a - b)))", "(a / 0.0)", "a / 4.0 / b",
                           "distance_km(a / b, b, 5.0, 1.0)",
                           "distance_km(a, b, 50.0, 14.0)", "distance_km(50.0, 14.0, 49.0, 16.0)"])  # fmt: skip
texts = st.sampled_from(["job", "'nurse'", "'clerk'", "''"])
atoms = st.one_of(
    st.builds("{} {} {}".format, numbers, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), numbers),
    st.builds("{} {} {}".format, texts, st.sampled_from(["==", "!="]), texts),
    st.builds("{} in [{}]".format, texts, st.sampled_from(["'nurse'", "'clerk', 'x'", "''", "'nurse', ''"])),
    st.builds("job.{}({})".format, st.sampled_from(["startsWith", "endsWith", "contains", "matches"]),
              st.sampled_from(["'nu'", "'nurse'", "''", "'n.*e$'", "'^(n|c)'"])),
    st.sampled_from(["vip", "true", "false", "a < 3", "2 >= b"]),
)
rules = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.builds("({} && {})".format, inner, inner),
        st.builds("({} || {})".format, inner, inner),
        st.builds("!({})".format, inner),
        st.builds("({} ? {} : {})".format, inner, inner, inner),
    ),
    max_leaves=8,
)
values = st.tuples(
    st.sampled_from([math.nan, 0.0, 1.0, 2.5, -90.0, 49.9]),
    st.sampled_from([math.nan, 0.0, 1.0, 2.5, 14.0]),
    st.sampled_from([math.nan, 0.0, 1.0, 2.0]),
    st.sampled_from([0.0, 1.0, math.nan]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(rules, min_size=1, max_size=12), st.lists(values, min_size=1, max_size=8))
def test_many_rows_at_once_are_as_one_by_one(expressions: list[str], rows: list[tuple[float, ...]]) -> None:
    try:
        batch = RuleBatch(Rules(expressions, SAMPLES), COLUMNS)
    except RuleError:
        return
    matrix = np.array(rows * ROWS_BLOCK)  # several blocks, the last one part of one
    assert batch.evaluate(matrix[:-1]) == [batch.evaluate(row[None])[0] for row in matrix[:-1]]


@settings(max_examples=400, deadline=None)
@given(st.lists(rules, min_size=1, max_size=4), values)
def test_code_says_what_the_library_says(expressions: list[str], row: tuple[float, ...]) -> None:
    try:
        compiled = Rules(expressions, SAMPLES)
    except RuleError:
        return  # one that can never be evaluated is no rule
    variables = {c.name: c.variable(value) for c, value in zip(COLUMNS, row, strict=True)}
    expected = compiled.evaluate({name: variables[name] for name in compiled.variables})
    assert RuleBatch(compiled, COLUMNS).evaluate(np.array([row])) == [expected]


@pytest.mark.parametrize(
    "expression",
    [
        "'sale' == 'sale' || a > 1.0",
        "'cards' in ['cards', 'all']",
        "40.0 < 50.0 && vip",
        "distance_km(a, b, 50.0, 14) <= 2.0",
        "job.startsWith('night') && job.matches('nurse$')",
    ],
)
def test_what_rules_of_a_catalogue_look_like_needs_no_library(expression: str) -> None:
    assert compile_code(expression, PLACED) is not None


def test_a_distance_is_that_along_the_surface() -> None:
    assert distance_km(0.0, 0.0, 0.0, 180.0) == pytest.approx(math.pi * 6_371.0088)
    assert distance_km(50.0, 14.0, 50.0, 14.0) == 0.0
    assert math.isnan(distance_km(math.nan, 14.0, 50.0, 14.0))
    assert distance_km(90.0, 0.0, -90.0, 77.0) == pytest.approx(math.pi * 6_371.0088)


@pytest.mark.parametrize(
    ("pattern", "held"), [(r"'^\\w+ nurse$'", 2.0), (r"r'^\w+ nurse$'", 2.0), (r'"\\d"', None), (r"'n' + 'u'", None)]
)
def test_patterns_are_found_for_each_value_beforehand(pattern: str, held: float | None) -> None:
    found = compile_code(f"job.matches({pattern})", PLACED)
    assert (found is None) == (" + " in pattern)
    if found is not None:
        assert [eval(found.holds, {"v": [0.0, 0.0, job, 0.0]}) for job in (0.0, 1.0, 2.0, math.nan)] == [
            job == held for job in (0.0, 1.0, 2.0, math.nan)
        ]
