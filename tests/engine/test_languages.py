"""Explanations in every language: the same placeholders, the numbers as the language writes them."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from string import Formatter

import pytest

from engine.explain.languages import WORDS, words_for
from engine.explain.words import ENGLISH, Words, amount
from tests.small_engine import SmallEngine

OTHERS = [language for language in WORDS if language != "en"]


def templates(words: Words) -> Iterator[tuple[str, str]]:
    """(name, template) of all words."""
    for field in fields(words):
        value = getattr(words, field.name)
        if isinstance(value, Mapping):
            yield from ((f"{field.name}.{key}", text) for key, text in value.items())
        else:
            yield field.name, value


def placeholders(template: str) -> set[tuple[str, str]]:
    return {(name, spec or "") for _, name, spec, _ in Formatter().parse(template) if name is not None}


@pytest.mark.parametrize("language", OTHERS)
def test_every_sentence_has_the_same_placeholders_and_is_translated(language: str) -> None:
    english, words = dict(templates(ENGLISH)), dict(templates(WORDS[language]))
    assert english.keys() == words.keys()
    for name, template in english.items():
        assert placeholders(words[name]) == placeholders(template), name
        wordless = not re.search(r"[a-z]", re.sub(r"\{[^}]*\}", "", template))
        assert words[name] != template or wordless, f"{name} is still English"


def test_cyrillic_languages_have_no_latin_letters_but_names_of_settings() -> None:
    for language in ("sr-cyrl", "bg"):
        for name, template in templates(WORDS[language]):
            plain = re.sub(r"\{[^}]*\}|\w+_\w+", "", template)
            assert not re.search(r"[A-Za-zčćđšž]", plain), (name, plain)


def test_numbers_are_written_as_the_language_writes_them() -> None:
    told = {"estimated": "x", "offer": "card-1.5", "estimate": 0.0123, "worth": amount(-12345.6)}
    assert ENGLISH.estimate_only.format(**told) == "card-1.5: x estimated at 1.2%, expected worth -12,346."
    serbian = WORDS["sr"].estimate_only.format(**told)
    assert "1,2%" in serbian and "-12.346" in serbian and "card-1.5" in serbian
    assert "-12\N{NARROW NO-BREAK SPACE}346" in WORDS["cs"].estimate_only.format(**told)
    assert words_for("sr-Cyrl-BA")[0] == "sr-cyrl"


async def test_a_decision_is_explained_in_every_language() -> None:
    engine = SmallEngine()
    await engine.publish("purchase", "ann", amount=500.0, category="food")
    await engine.fold()
    answer = await engine.decide("ann", context={"minutes": 5.0})
    said = {}
    for language in WORDS:
        found = await engine.explain(answer.decision_id, language)
        assert found.language == language
        said[language] = (found.summary, found.brief, *[candidate.text for candidate in found.candidates])
        assert all(said[language])
    assert len({summary for summary, *_ in said.values()}) == len(WORDS)
    assert said["cs"][1].startswith("Nabídněte")


async def test_answers_give_their_reasons_in_the_language_of_the_treatments() -> None:
    engine = SmallEngine()
    told = {}
    for language in ("en", "cs", "bg"):
        answer = await engine.decide("ann", channel="web", language=language)
        told[language] = [(reason.code, reason.text) for offer in answer.offers for reason in offer.reasons]
        assert told[language]
        words = words_for("cs" if language == "cs" else "en")[1].in_answers
        assert all(text == words[code] for code, text in told[language])
    assert told["cs"] != told["en"] == told["bg"], "the catalogue has no Bulgarian treatments"
