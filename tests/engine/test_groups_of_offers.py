"""Groups: what offers inherit, what adds up, and that mistakes are told where they stand, once."""

import pytest

from engine.catalogue import Catalogue
from engine.config import parse, version_of
from engine.config_schema import Config, Offer
from engine.errors import ConfigError

BASE = """
opportune: 1
name: bank
channels: [{id: web}, {id: branch}]
context: [{name: age, type: number}, {name: vip, type: flag}]
groups:
  - id: all
    contact_cost: 1
    eligibility: [age >= 18.0]
    window: 5d
  - id: cards
    parent: all
    category: credit
    channels: [web]
    value: 50
    lever: 2
    eligibility: [{name: not a VIP, when: "!vip"}]
    suitability: [age < 90.0]
    outcomes: {clicked: {reward: 0.1}}
    context_weight: {web: 0.5}
    treatments: [{text: A card}]
  - id: young
    lever: 3
    contact_cost: 2
    suitability: [age < 30.0]
offers:
  - {id: gold, group: cards, value: 80, eligibility: [age >= 25.0]}
  - {id: student, group: [young, cards]}
  - {id: loan, value: 10, treatments: [{text: A loan}]}
"""


def read(text: str) -> Config:
    return parse(text.encode(), "bank.yaml")


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as refusal:
        data = text.encode()
        Catalogue.compile(parse(data, "bank.yaml"), version_of(data), data, "bank.yaml")
    return str(refusal.value).splitlines()


def line_with(text: str, part: str) -> int:
    [at] = [number for number, line in enumerate(text.splitlines(), 1) if part in line]
    return at


def rules(offer: Offer, layer: str) -> list[str]:
    return [rule.when for rule in getattr(offer, layer)]


def test_an_offer_takes_from_its_groups_what_it_does_not_say_and_rules_add_up() -> None:
    gold, student, loan = read(BASE).offers
    assert (gold.value, gold.contact_cost, gold.lever, gold.category) == (80, 1, 2, "credit")
    assert (gold.channels, gold.context_weight, gold.window) == (("web",), {"web": 0.5}, 5 * 86_400_000)
    assert gold.outcomes.clicked.reward == 0.1
    assert gold.treatments[0].text == "A card"
    assert rules(gold, "eligibility") == ["age >= 18.0", "!vip", "age >= 25.0"]
    assert (student.value, student.contact_cost, student.lever) == (50, 2, 3), "the group that is named first wins"
    assert rules(student, "eligibility") == ["age >= 18.0", "!vip"], "a group reached once counts once"
    assert rules(student, "suitability") == ["age < 90.0", "age < 30.0"]
    assert (loan.channels, rules(loan, "eligibility"), loan.group) == ((), [], ())


def test_every_setting_of_an_offer_can_be_inherited() -> None:
    own = {"id", "group", "value", "treatments"}
    config = read(BASE.replace("  - {id: loan,", "  - {id: x, group: cards}\n  - {id: loan,"))
    given = {name for group in config.groups for name in group.model_fields_set}
    assert given - {"id", "parent"} <= set(Offer.model_fields)
    assert own <= set(Offer.model_fields)


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        ("parent: all", "parent: al", "parent: al", "groups[1].parent: no group 'al'; there are all, cards, young"),
        ("contact_cost: 1\n", "contact_cost: 1\n    parent: cards\n", "parent: all",
         "groups[1].parent: inherits from itself: cards from all from cards"),
        ("contact_cost: 1\n", "contact_cost: 1\n    parent: all\n", "  parent: all\n",
         "groups[0].parent: inherits from itself: all from all"),
        ("group: [young, cards]", "group: [young, card]", "id: student", "offers[1].group[1]: no group 'card'"),
        ("id: young", "id: cards", "", "groups[2].id: group 'cards' is already there as groups[1]"),
        ("lever: 2", "lever: -2", "lever: -2", "groups[1].lever: expected greater than or equal to 0, got -2"),
        ("lever: 2", "colour: red", "colour: red", "groups[1].colour: not a setting that exists here"),
        ("channels: [web]", "channels: [moon]", "channels: [moon]", "groups[1].channels[0]: no channel 'moon'"),
        ("[age >= 18.0]", "[agee >= 18.0]", "agee", "groups.0.eligibility.0: no feature or fact is called 'agee'"),
        ('when: "!vip"', 'when: "!vop"', "!vop", "groups.1.eligibility.0: no feature or fact is called 'vop'; the"),
        ("[age >= 25.0]", "[height >= 25.0]", "height", "offers.0.eligibility.0: no feature or fact is called 'heig"),
        ("  - id: young", "  - {id: idle, kind: gift}\n  - id: young", "id: idle", "groups[2].kind: expected 'sale'"),
        ("group: cards, value: 80", "value: 80", "id: gold", "offers[0].treatments: Field required"),
        ("id: young\n", "id: young\n    group: all\n", "group: all", "groups[2].group: a group has a parent, one"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_where_it_stands_and_once(old: str, new: str, line: str, told: str) -> None:
    text = BASE.replace(old, new)
    assert text != BASE
    found = problems(text)
    matching = [problem for problem in found if told in problem]
    assert len(matching) == 1, found
    if line.strip():
        number = int(matching[0].split(":")[1])
        assert line.strip() in text.splitlines()[number - 1], matching


def test_a_configuration_without_groups_is_read_as_it_stands() -> None:
    text = "opportune: 1\nname: n\nchannels: [{id: web}]\noffers: [{id: a, value: 1, treatments: [{text: t}]}]\n"
    assert read(text).groups == ()
