"""Tokens of treatments: {first_name|there}, {amount:money}. Reading them, and writing a text with their values. Pure.

    {name}                a value: of a parameter of the offer, a feature, a fact of the conversation
    {name:format}         in a format of engine.formats
    {name|fallback}       what stands there when there is no value
    {offer.id}            a field of the catalogue
    {{ and }}             braces

Values are data of others: what cannot be printed is left out, what is too long is cut, and in a channel of format html
markup is escaped. Texts and fallbacks are the author's and stand as they are.
"""

import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final, NamedTuple

from engine.formats import written
from engine.limits import SAID_TEXT_BYTES_MAX, TREATMENT_TOKEN_ENTRIES_MAX

_PIECE: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_TOKEN: Final = re.compile(r"([a-z][a-z0-9_]*(?:\.[a-z_]+)?)(?::([A-Za-z]+))?(?:\|(.*))?", re.DOTALL)

Scalar = float | str


class Token(NamedTuple):
    """A token as it is written."""

    name: str
    form: str
    """"" if it names none."""
    fallback: str | None


class Slot(NamedTuple):
    """A token, and what it takes to write its value."""

    source: str
    """parameter, feature, fact or moment."""
    name: str
    form: str
    """A format of engine.formats or the code of a currency; "" of a text."""
    language: str
    timezone: str
    fallback: str | None
    values: tuple[str, ...] = ()
    """Of a fact: those declared; another one is none."""
    default: Scalar | None = None
    """Of a fact."""


Text = tuple[str | Slot, ...]
"""A treatment, ready to be written."""


class Values(NamedTuple):
    """What tokens can tell in one answer."""

    parameters: Mapping[str, Scalar]
    features: Mapping[str, Scalar]
    facts: Mapping[str, object]
    moments_ms: Mapping[str, int]


NO_VALUES: Final = Values({}, {}, {}, {})


def tokens_in(text: str) -> list[str | Token]:
    """The text in pieces. Raises ValueError that says what was expected.

    >>> tokens_in("Hi {name|you}, {{braces}}")
    ['Hi ', Token(name='name', form='', fallback='you'), ', ', '{', 'braces', '}']
    """
    pieces: list[str | Token] = []
    at = 0
    for match in _PIECE.finditer(text):
        if match.start() > at:
            pieces.append(text[at : match.start()])
        at = match.end()
        if match[0] in ("{{", "}}"):
            pieces.append(match[0][0])
            continue
        found = None if match[1] is None else _TOKEN.fullmatch(match[1])
        if found is None:
            raise ValueError(
                f"{match[0]!r}: expected a token such as {{name}}, {{name:format}} or {{name|fallback}}; "
                "a brace as such is written twice"
            )
        pieces.append(Token(found[1], found[2] or "", found[3]))
    if text[at:]:
        pieces.append(text[at:])
    if sum(isinstance(piece, Token) for piece in pieces) > TREATMENT_TOKEN_ENTRIES_MAX:
        raise ValueError(f"more than {TREATMENT_TOKEN_ENTRIES_MAX} tokens")
    return pieces


def write(text: Text, values: Values, *, html: bool) -> str | None:
    """The text with its values; None if one is missing that has no fallback.

    >>> hi = ("Hi ", Slot("fact", "name", "", "en", "UTC", None))
    >>> write(hi, Values({}, {}, {"name": "<b>Ann"}, {}), html=True), write(hi, NO_VALUES, html=True)
    ('Hi &lt;b&gt;Ann', None)
    """
    parts = []
    for piece in text:
        if isinstance(piece, str):
            parts.append(piece)
            continue
        told = _told(piece, values)
        if told is not None:
            parts.append(escape(told) if html else told)
        elif piece.fallback is not None:
            parts.append(piece.fallback)
        else:
            return None
    return "".join(parts)


def _told(slot: Slot, values: Values) -> str | None:
    """The value of a token in words; None if there is none."""
    value: object
    if slot.source == "parameter":
        value = values.parameters.get(slot.name)
    elif slot.source == "feature":
        value = values.features.get(slot.name)
    elif slot.source == "fact":
        value = values.facts.get(slot.name)
        if value is None or (slot.values and value not in slot.values):
            value = slot.default
    else:
        value = values.moments_ms.get(slot.name)
    if not slot.form:
        return (printable(value) or None) if isinstance(value, str) else None
    if isinstance(value, bool) or not isinstance(value, float | int) or not math.isfinite(value):
        return None
    return written(float(value), slot.form, slot.language, slot.timezone)


def printable(text: str, bytes_max: int = SAID_TEXT_BYTES_MAX) -> str:
    """A text of somebody else in one line: no control characters, no marks that turn the direction, not too long.

    >>> printable("Ann\\n\\u202eadmin")
    'Ann admin'
    """
    kept = "".join([character if character.isprintable() else " " for character in text])
    kept = " ".join(kept.split())
    return kept if len(kept) * 4 <= bytes_max else kept.encode()[:bytes_max].decode(errors="ignore")


def slots(texts: Sequence[Text]) -> list[Slot]:
    """All tokens of these."""
    return [piece for text in texts for piece in text if isinstance(piece, Slot)]
