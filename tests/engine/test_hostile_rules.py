"""Rules that would crash a parser, or never end: refused with file and line at once, and nothing else is disturbed."""

import time

import pytest

from engine.catalogue import Catalogue
from engine.config import parse, version_of
from engine.errors import ConfigError
from engine.limits import RULE_WORD_ENTRIES_MAX
from engine.rules import RuleError, Rules

CONFIG = """
opportune: 1
name: shop
channels: [{id: web}]
context: [{name: age, type: number}, {name: job, type: text, values: [clerk, nurse]}, {name: vip, type: flag}]
groups: [{id: all, applicability: [age < 99.0]}]
offers:
  - {id: card, group: all, value: 40, treatments: [{text: A card}]}
  - id: loan
    group: all
    value: 50
    treatments: [{text: A loan}]
    suitability:
      - HOSTILE
"""
LINE = 14
SAMPLES: dict[str, float | str | bool] = {"age": 0.0, "job": "clerk", "vip": False}
DEEP = {
    "a thousand brackets": "(" * 1_000 + "vip" + ")" * 1_000,
    "nine hundred lists": "[" * 900 + "]" * 900,
    "brackets hidden by texts": "vip || " + "(')' == ')' || " * 90 + "vip" + ")" * 90,
    "brackets closed in a text before": "job == '" + ")" * 300 + "' || " + "(" * 300 + "vip" + ")" * 300,
    "brackets closed before": ")" * 500 + "(" * 500,
    "signs with spaces": "! " * 900 + "vip",
    "conditionals": "vip ? vip : " * 160 + "vip",
    "members": "vip" + ".a" * 900,
    "places in lists": "[1]" + "[0]" * 600 + " == 1",
    "calls": "vip" + ".a()" * 400,
    "maps": "{'a':" * 300 + "1" + "}" * 300 + " == 1",
    "brackets never closed in a text never closed": "('" * 800,
}


def refused(rule: str) -> str:
    text = CONFIG.replace("HOSTILE", "'" + rule.replace("'", "''") + "'").encode()
    began = time.process_time()
    with pytest.raises(ConfigError) as refusal:
        Catalogue.compile(parse(text, "shop.yaml"), version_of(text), text, "shop.yaml")
    assert time.process_time() - began < 1.0
    return str(refusal.value)


@pytest.mark.parametrize("name", DEEP)
def test_what_nests_deep_is_a_problem_of_its_line(name: str) -> None:
    [problem] = refused(DEEP[name]).splitlines()
    assert problem.startswith(f"shop.yaml:{LINE}: offers.1.suitability.0: ")


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("[1].all(a, [1].all(b, [1].all(c, vip)))", "all is not allowed: there is nothing to iterate over"),
        ("(" * 1_000 + "vip" + ")" * 1_000, "nested deeper than 32"),
        ("1+" * 900 + "1 == 2", f"a rule of 1803 words and signs, at most {RULE_WORD_ENTRIES_MAX} are allowed"),
        ("job.matches('\\\\w{90}')", "the pattern '\\\\w{90}' takes "),
        ("vip && job.matches('\\\\w{90}')", "the pattern '\\\\w{90}' takes "),
        ("matches(job, '\\\\w{90}')", "the pattern '\\\\w{90}' takes "),
        ("vip && job.matches('a' + 'b')", "matches: expected a pattern that is written out, in one text"),
        ("vip && job.matches(job)", "matches: expected a pattern that is written out, in one text"),
        ("vip && job.matches('(')", "cannot be evaluated"),
        ("vip || job > 1.0", "different types"),
        ("vip || age + 1 > 2.0", "write 1.0 for 1"),
        ("vip || (age > 1.0 && job)", "different types"),
        ("vip", ""),
    ],
)
def test_what_cannot_be_evaluated_in_time_or_at_all_is_told(rule: str, told: str) -> None:
    if not told:
        text = CONFIG.replace("HOSTILE", rule).encode()
        assert len(Catalogue.compile(parse(text), version_of(text), text).rules) == 2
        return
    assert told in refused(rule)


def test_what_is_taken_is_evaluated_in_no_time() -> None:
    """The slowest rules that pass: long texts put together, and patterns that other engines choke on."""
    for rule in ("size(" + " + ".join(["job"] * 330) + ") > 10", "job.matches('(n+)+$') || job.matches('(.*)*x')"):
        rules = Rules([rule], SAMPLES)
        began = time.process_time()
        for _ in range(10):
            rules.evaluate({"age": 1.0, "job": "n" * 64, "vip": True})
        assert time.process_time() - began < 0.5


def test_many_offers_with_one_mistake_in_common_are_refused_at_once_and_it_is_told_once() -> None:
    text = CONFIG.replace("HOSTILE", "vip").replace("age < 99.0", "aeg < 99.0")
    offers = "".join(f"  - {{id: o{n}, group: all, value: 1, treatments: [{{text: x}}]}}\n" for n in range(300))
    data = (text + offers).encode()
    with pytest.raises(ConfigError) as refusal:
        Catalogue.compile(parse(data, "shop.yaml"), version_of(data), data, "shop.yaml")
    [only] = str(refusal.value).splitlines()
    assert only.startswith("shop.yaml:6: groups.0.applicability.0: no feature or fact is called 'aeg'; the nearest is")


def test_an_unknown_name_is_refused_with_what_there_is() -> None:
    with pytest.raises(RuleError, match="no feature or fact is called 'jop'; the nearest is job; there are age, jo"):
        Rules(["jop == 'clerk'"], SAMPLES)
