"""What is said where: tokens, fallbacks, formats, placements, and configurations in which that cannot be known."""

import math
import re
from pathlib import Path

import pytest

from engine import answers
from engine.again import made_again
from engine.catalogue import Catalogue
from engine.config import parse, version_of
from engine.drafts import Ask
from engine.errors import ConfigError
from engine.parameters import Quote, pack, unpack
from engine.record import DecisionRecord
from engine.serving import COMMIT_FAILED, Fallback
from engine.tokens import NO_VALUES, Slot, Values, tokens_in, write
from features import Offset
from opportune.v1 import decisions_pb2
from tests.small_engine import CONFIG, PARTITIONS, START_MS, SmallEngine, catalogue_of

BASE = CONFIG.replace(b"limit: 3\n", b"limit: 3\nsilence: false\n").replace(
    b"  - {name: vip, type: flag}", b"  - {name: vip, type: flag}\n  - {name: first_name, type: text}"
)
BASE = BASE.replace(b"text: May we help?", b'text: "May we help, {first_name|please}?"')
CARD = b"treatments: [{text: A card for every day}, {text: Karta, language: cs}]"


def with_card(text: str, *, of: bytes = BASE) -> bytes:
    """The shop with other settings in place of the card's treatments."""
    assert CARD in of
    return of.replace(CARD, text.encode())


def problem(text: bytes) -> str:
    with pytest.raises(ConfigError) as refusal:
        Catalogue.compile(parse(text, "shop.yaml"), version_of(text), text, "shop.yaml")
    return str(refusal.value)


def said(catalogue: Catalogue, channel: str, language: str = "en", placement: str = "", **facts: object) -> str | None:
    at = catalogue.channel_index[channel]
    place = 0 if not placement else catalogue.placement_index[channel, placement]
    return catalogue.treatments.said(at, place, language, 0, Values({}, {}, facts, {}))


def test_the_best_treatment_that_can_be_said_is() -> None:
    catalogue = catalogue_of(
        with_card(
            """treatments:
      - {text: any}
      - {text: "any {first_name}"}
      - {text: cs, language: cs}
      - {text: "web {first_name}", channel: web}
      - {text: "hero {minutes:whole}", placements: [web/hero]}"""
        )
    )
    assert said(catalogue, "branch") == "any"
    assert said(catalogue, "branch", "cs") == "cs"
    assert said(catalogue, "web", "cs", first_name="Ann") == "web Ann", "channel before language"
    assert said(catalogue, "web", "cs") == "cs", "the next one that can be said"
    assert said(catalogue, "web", placement="hero", minutes=1234.0) == "hero 1,234"
    assert said(catalogue, "web", placement="hero", first_name="Ann") == "web Ann"
    assert said(catalogue, "web", placement="footer") == "any"


@pytest.mark.parametrize(
    ("token", "language", "expected"),
    [
        ("{price:EUR}", "en", "€1,234.50"),
        ("{price:EUR}", "cs", "1\xa0234,50\xa0€"),
        ("{price:EUR}", "sr-Latn", "1.234,50\xa0€"),
        ("{price}", "sl", "1.234,5"),
        ("{price:whole}", "bg", "1\xa0234"),
        ("{price:date}", "en", "January 1, 1970"),
        ("{huge:date|soon}", "en", "soon"),
        ("{nan|?}", "en", "?"),
    ],
)
def test_numbers_are_written_as_the_language_has_it(token: str, language: str, expected: str) -> None:
    [piece] = tokens_in(token)
    assert not isinstance(piece, str)
    slot = Slot("fact", piece.name, piece.form or "number", language, "Europe/Prague", piece.fallback)
    values = Values({}, {}, {"price": 1234.5, "huge": 1e300, "nan": math.nan}, {})
    assert write((slot,), values, html=False) == expected


@pytest.mark.parametrize("value", ["<b>", '" onload="x', "a&b", "'"])
def test_values_are_escaped_in_html_and_are_in_one_line_everywhere(value: str) -> None:
    text = ('<i title="', Slot("fact", "n", "", "en", "UTC", None), '">')
    told = write(text, Values({}, {}, {"n": f"x\n{value}\x1b[2J"}, {}), html=True)
    assert told is not None
    assert not set("<>\"'") & set(told.removeprefix('<i title="').removesuffix('">'))
    plain = write(text, Values({}, {}, {"n": "y" * 10_000 + "\n\x1b\u202e"}, {}), html=False)
    assert plain is not None
    assert len(plain) < 300
    assert plain.isprintable()
    assert write(text, NO_VALUES, html=True) is None


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("treatments: [{text: 'Hi {nobody}'}]", "{nobody}: no parameter of the offer, feature or fact is called so"),
        ("treatments: [{text: 'Hi {first_name}'}]", "{first_name} can be without a value, and then nothing can be"),
        ("treatments: [{text: 'Hi {last_category}'}]", "expected a fallback, as in {last_category|…}"),
        ("treatments: [{text: 'Hi {first_name}', channel: web}, {text: x, channel: branch}]", "said in web in"),
        ("treatments: [{text: 'Hi {first_name|you'}]", "'{': expected a token such as {name}"),
        ("treatments: [{text: 'Hi {First Name}'}]", "expected a token such as"),
        ("treatments: [{text: '{spent_30d:gold}'}]", "{spent_30d:gold}: no such format"),
        ("treatments: [{text: '{purchases_7d:money}'}]", "its unit is 'nothing', expected a currency such as EUR"),
        ("treatments: [{text: '{first_name:whole|x}'}]", "a text has no format"),
        ("treatments: [{text: '{vip}'}]", "a flag says nothing in words"),
        ("treatments: [{text: '{offer.colour}'}]", "no such field of an offer; there are offer.id"),
        ("treatments: [{text: '{offer.price_held_until}'}]", "the offer has no price_held_for"),
        ("treatments: [{text: '{minutes|0}', language: tlh}, {text: x}]", "nothing is known of how numbers are"),
        ("treatments: [{text: x, placements: [web/moon]}]", "no placement 'web/moon'; there are branch/desk, web/hero"),
        ("treatments: [{text: x, channel: branch, placements: [web/hero]}]", "'web/hero' is not in channel 'branch'"),
        ("placements: [hero]\n    treatments: [{text: x}]", "no placement 'hero'"),
        ("price_held_for: 1d\n    treatments: [{text: x}]", "has no parameters that could be held"),
    ],
)
def test_a_treatment_that_cannot_be_said_is_refused_where_it_stands(settings: str, told: str) -> None:
    text = with_card(settings)
    lines = text.decode().splitlines()
    [line] = [n for n, one in enumerate(lines, 1) if settings.splitlines()[0] in one]
    found = problem(text)
    assert found.startswith(f"shop.yaml:{line}: offers[0].")
    assert told in found


@pytest.mark.parametrize(
    ("parameter", "told"),
    [
        ("{type: number}", "expected rules, value or expression: nothing says what it is"),
        ("{type: number, value: lots}", "expected a number, got 'lots'; a formula is an expression"),
        ("{type: text, value: 5}", "expected a text, got 5.0"),
        ("{type: number, expression: 'spent_30d > 1.0'}", "expected an expression that gives a number, this one gives"),
        ("{type: text, expression: 'spent_30d'}", "expected an expression that gives a text, this one gives nan"),
        ("{type: number, expression: 'spent * 2.0'}", "no feature or fact is called 'spent'"),
        ("{type: number, expression: 'spent_30d *'}", "not an expression of CEL"),
        ("{type: number, expression: '[1, 2].map(x, x)[0]'}", "map is not allowed"),
        ("{type: number, rules: [{when: 'spent_30d', value: 1}], value: 2}", "expected a rule that is true or false"),
        ("{type: number, rules: [{when: 'vip'}], value: 2}", "rules[0]: expected value or expression"),
        ("{type: number, range: [0, 10], value: 11}", "11 is outside the range [0.0, 10.0]"),
        ("{type: number, range: [10, 0], value: 1}", "expected [low, high] with low"),
        ("{type: text, step: 5, value: x}", "range and step: only a number has them"),
        ("{type: number, step: 0, value: 1}", "expected greater than 0"),
        ("{type: number, value: 1e308}", "less than or equal to"),
        ("{type: text, value: " + "x" * 129 + "}", "a text of more than 128 bytes"),
    ],
)
def test_a_parameter_that_cannot_be_worked_out_is_refused(parameter: str, told: str) -> None:
    text = with_card(f"parameters: {{amount: {parameter}}}\n    treatments: [{{text: x}}]")
    found = problem(text)
    assert found.startswith("shop.yaml:")
    assert "offers" in found
    assert told in found


def test_a_price_is_held_no_longer_than_the_customer_may_answer() -> None:
    settings = "parameters: {amount: {type: number, value: 1}}\n    price_held_for: 8d\n    treatments: [{text: x}]"
    assert "price_held_for: 691200000 ms is longer than the 604800000 ms in which" in problem(with_card(settings))
    taken = "parameters: {minutes: {type: number, value: 1}}\n    treatments: [{text: x}]"
    assert "the name 'minutes' is already that of a fact" in problem(with_card(taken))


def test_what_a_record_keeps_is_bounded() -> None:
    many = ", ".join(f"text_{n}: {{type: text, expression: 'last_category'}}" for n in range(8))
    found = problem(with_card(f"parameters: {{{many}}}\n    treatments: [{{text: x}}]"))
    assert "bytes in a record, at most 960 are allowed" in found


def test_quotes_come_back_as_they_were() -> None:
    quotes = {"loan": Quote({"amount": 0.1 + 0.2, "way": "ř\"\\"}, 5, "0-1-0", {"spent": 3.0}, 9), "card": Quote()}
    assert unpack(pack(quotes)) == quotes
    assert unpack(b"") == unpack(b"nonsense") == unpack(b"[1]") == unpack(b'{"loan": {"who": 1}}') == {}


async def test_an_offer_is_made_in_its_placements_alone() -> None:
    text = with_card("placements: [web/hero]\n    treatments: [{text: A card}]")
    engine = SmallEngine(text)
    places = {("web", "hero"): True, ("web", "footer"): False, ("web", ""): False, ("branch", "desk"): True}
    for (channel, placement), there in places.items():
        answer = await engine.decide("ann", channel, placement=placement, request_id=f"{channel}-{placement}")
        assert ("card" in [offer.offer_id for offer in answer.offers]) == there, (channel, placement)
        again = await engine.decide("ann", channel, placement=placement, request_id=f"{channel}-{placement}")
        assert again.nothing_reason == answer.nothing_reason
        told = await engine.explain(answer.decision_id)
        [card] = [candidate for candidate in told.candidates if candidate.offer_id == "card"]
        assert card.eligible == there
        if not there:
            assert f"offered in placement {placement or 'none'}, with a treatment for it" in card.unmet_rules
    log = await engine.store.read_decisions(dict.fromkeys(range(PARTITIONS), Offset.ZERO), 99, 0)
    records = [DecisionRecord.unpack(entry.data) for entries in log.values() for entry in entries]
    assert made_again(engine.catalogue, records) == [[]] * len(places), "what was kept back is in the record"
    plain = SmallEngine(BASE)
    assert plain.catalogue.holds.names == ()


def test_a_treatment_for_a_placement_alone_is_nowhere_else() -> None:
    catalogue = catalogue_of(with_card("treatments: [{text: Big, placements: [web/hero]}]"))
    made = {
        (channel, placement): bool(catalogue.treatments.made[catalogue.channel_index[channel]][at][0])
        for (channel, placement), at in catalogue.placement_index.items()
    }
    assert [place for place, there in made.items() if there] == [("web", "hero")]
    assert catalogue.in_channel[:, 0].tolist() == [False, True]


@pytest.mark.parametrize(
    ("treatments", "texts"),
    [
        ("[{text: 'You bought {purchases_7d:whole} times'}, {text: 'A card'}]", ["A card"]),
        ("[{text: 'You bought {purchases_7d:whole|some} times'}]", ["You bought some times"]),
        ("[{text: 'Hi {first_name}'}, {text: 'A card'}]", ["Hi Ann"]),
        ("[{text: 'You bought {purchases_7d:whole} times'}]", []),
    ],
)
def test_a_fallback_answer_says_only_what_needs_no_state(treatments: str, texts: list[str]) -> None:
    catalogue = catalogue_of(with_card(f"treatments: {treatments}"))
    ask = Ask("ann", 1, 0, (), b'{"first_name": "Ann"}', 3, START_MS, "en", "", 0)
    answer = answers.fallen_back(catalogue, Fallback(ask, catalogue.defaults.at(1, START_MS), COMMIT_FAILED, catalogue))
    assert [offer.treatment for offer in answer.offers] == texts
    assert bool(answer.nothing_reason.code) == (not texts)


async def test_braces_and_fields_of_the_catalogue() -> None:
    text = "{{{offer.id}}} {offer.value:CZK} until {offer.expires}"
    engine = SmallEngine(with_card(f"treatments: [{{text: '{text}'}}, {{text: x}}]"))
    answer: decisions_pb2.DecideResponse = await engine.decide("ann", "branch")
    [card] = [offer for offer in answer.offers if offer.offer_id == "card"]
    assert card.treatment == "{card} CZK40.00 until June 22, 2025"


def test_the_example_of_the_documents_compiles() -> None:
    page = (Path(__file__).parents[2] / "docs" / "treatments.md").read_text()
    [example] = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    catalogue = catalogue_of(example.encode())
    assert said(catalogue, "web", first_name="Ann") is None, "the amount is a parameter, which is not worked out here"
    assert catalogue.quoting is not None
    assert catalogue.quoting.held == {0}
