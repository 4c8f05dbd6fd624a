"""What an offer says where: its treatments by channel, placement and language, the one that fits best first.

The order: a treatment for the placement before one for the channel before one for any; then the language asked for,
then that of the configuration, then one that names none. The first whose tokens all have a value or a fallback is said.
Among those that fit in a place there is always one that needs no value (checked when the configuration is read), so
whether an offer can be made in a place is known before anybody asks, and texts without tokens are bytes by then.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.config_schema import Config, Offer, Treatment
from engine.formats import FORMATS, is_currency, locale_of, written
from engine.tokens import Slot, Text, Token, Values, slots, tokens_in, write

Place = tuple[str, str]
"""(channel, placement), the latter "" for the channel as a whole."""
Location = tuple[int | str, ...]
MOMENTS: Final = ("offer.expires", "offer.price_held_until")
_FIELDS: Final = ("offer.id", "offer.kind", "offer.category", "offer.value", *MOMENTS)


class Treated(NamedTuple):
    """A treatment, ready to be written."""

    text: Text
    sure: bool
    """Whether no value of it can be missing, unless nothing at all can be read of the customer."""


def places_of(config: Config) -> list[Place]:
    """All places, the channel as a whole before its placements."""
    return [(channel.id, placement) for channel in config.channels for placement in ("", *channel.placements)]


def place_name(channel: str, placement: str) -> str:
    """How a placement is written in a configuration.

    >>> place_name("web", "hero")
    'web/hero'
    """
    return f"{channel}/{placement}"


def is_made(offer: Offer, channel: str, placement: str, limited_to: Mapping[str, str]) -> bool:
    """Whether an offer may be made in a place, as far as its channels and placements say.

    `limited_to` has the channel of each placement that is written as channel/placement.
    """
    if offer.channels and channel not in offer.channels:
        return False
    here = [name for name in offer.placements if limited_to.get(name) == channel]
    return not here or place_name(channel, placement) in here


def fitting(offer: Offer, place: Place, language: str, default: str) -> list[int]:
    """Indices of the treatments that fit, the best first.

    >>> texts = [("Hi", "en", None), ("Ahoj", "cs", None), ("<b>Hi</b>", None, "web")]
    >>> offer = Offer(id="o", value=1, treatments=[Treatment(text=t, language=l, channel=c) for t, l, c in texts])
    >>> [fitting(offer, (c, ""), l, "en") for c, l in (("web", "cs"), ("branch", "cs"), ("branch", "fr"))]
    [[2, 1, 0], [1, 0], [0]]
    """
    channel, placement = place
    wanted = (language, default, None)
    found = []
    for at, treatment in enumerate(offer.treatments):
        if treatment.language not in wanted or treatment.channel not in (None, channel):
            continue
        if treatment.placements and place_name(channel, placement) not in treatment.placements:
            continue
        rank = bool(treatment.placements), treatment.channel == channel, -wanted.index(treatment.language)
        found.append((rank, at))
    found.sort(key=lambda one: (one[0], -one[1]), reverse=True)
    return [at for _, at in found]


class Treatments:
    """The treatments of one configuration."""

    def __init__(self, config: Config, languages: Sequence[str]) -> None:
        """Compile; the configuration must be one in which `problems_of` finds nothing."""
        self._config = config
        resolver = _Resolver(config)
        texts = [[resolver.treated(offer, treatment) for treatment in offer.treatments] for offer in config.offers]
        names = resolver.limited_to
        narrow = {name for offer in config.offers for name in offer.placements}
        narrow |= {name for offer in config.offers for treatment in offer.treatments for name in treatment.placements}
        self._html = [channel.format == "html" for channel in config.channels]
        self._rows: dict[tuple[int, int, str], list[tuple[Text, ...]]] = {}
        self.made: list[list[NDArray[np.bool_]]] = []
        """By channel and placement: (offers,) which can be made there."""
        for number, channel in enumerate(config.channels):
            whole: NDArray[np.bool_] | None = None
            made = []
            for at, placement in enumerate(("", *channel.placements)):
                if at and place_name(channel.id, placement) not in narrow:
                    # Nothing is said of it: all as in the channel as a whole.
                    for language in languages:
                        self._rows[number, at, language] = self._rows[number, 0, language]
                    assert whole is not None
                    made.append(whole)
                    continue
                place, default = (channel.id, placement), config.language
                for language in languages:
                    self._rows[number, at, language] = [
                        _up_to_sure([of_offer[i] for i in fitting(offer, place, language, default)])
                        for offer, of_offer in zip(config.offers, texts, strict=True)
                    ]
                here = np.array(
                    [
                        is_made(offer, *place, names) and bool(fitting(offer, place, default, default))
                        for offer in config.offers
                    ]
                )
                whole = here if whole is None else whole
                made.append(here)
            self.made.append(made)

    @property
    def in_channel(self) -> NDArray[np.bool_]:
        """(channels, offers) whether the offer may be made in some place of the channel."""
        return np.array([np.logical_or.reduce(made) for made in self.made])

    def places(self) -> Iterator[tuple[int, int, str]]:
        """(channel, placement, language) of all places."""
        return iter(self._rows)

    def rows(self, channel: int, placement: int, language: str) -> list[tuple[Text, ...]]:
        """By offer: its treatments there, the best first. The same list for places that do not differ."""
        return self._rows[channel, placement, language]

    def fixed(self, channel: int, placement: int, language: str, offer: int) -> str | None:
        """The text of an offer that is said there whoever asks; None if that depends, "" if there is none."""
        return _fixed(self._rows[channel, placement, language][offer])

    def said(self, channel: int, placement: int, language: str, offer: int, values: Values) -> str | None:
        """What is said of an offer; None if nothing can be said of it there with these values."""
        html = self._html[channel]
        told = (write(text, values, html=html) for text in self._rows[channel, placement, language][offer])
        return next((text for text in told if text is not None), None)

    @cached_property
    def features(self) -> tuple[tuple[str, ...], ...]:
        """By offer: the features that any of its treatments tells."""
        found: list[dict[str, None]] = [{} for _ in self._config.offers]
        for row in {id(row): row for row in self._rows.values()}.values():
            for at, texts in enumerate(row):
                found[at] |= {slot.name: None for slot in slots(texts) if slot.source == "feature"}
        return tuple(tuple(sorted(names)) for names in found)

    @cached_property
    def personal(self) -> tuple[bool, ...]:
        """By offer: whether any of its treatments has tokens."""
        found = [False] * len(self._config.offers)
        for row in {id(row): row for row in self._rows.values()}.values():
            for at, texts in enumerate(row):
                found[at] |= bool(slots(texts))
        return tuple(found)


def _up_to_sure(treated: Sequence[Treated]) -> tuple[Text, ...]:
    """The texts in their order; what stands behind one that can always be said never is."""
    texts = []
    for text, sure in treated:
        texts.append(text)
        # Of a customer whose state cannot be read nothing is known but what the caller said.
        if sure and all(slot.fallback is not None or slot.source == "fact" for slot in slots([text])):
            break
    return tuple(texts)


def _fixed(texts: tuple[Text, ...]) -> str | None:
    if not texts:
        return ""
    return None if slots(texts[:1]) else "".join(str(piece) for piece in texts[0])


class _Resolver:
    """What names in tokens mean in one configuration."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._features = {feature.name: feature for feature in config.all_features}
        self._facts = {fact.name: fact for fact in config.context}
        self.limited_to = {place_name(*place): place[0] for place in places_of(config) if place[1]}

    def treated(self, offer: Offer, treatment: Treatment) -> Treated:
        """A treatment. Raises ValueError that says which token is wrong."""
        language = treatment.language or self._config.language
        pieces = tokens_in(treatment.text)
        text: list[str | Slot] = []
        sure = True
        for piece in pieces:
            if isinstance(piece, str):
                text.append(piece)
                continue
            found, can_miss = self._resolved(offer, piece, language)
            sure = sure and (piece.fallback is not None or not can_miss)
            text.append(found)
        merged: list[str | Slot] = []
        for part in text:
            if isinstance(part, str) and merged and isinstance(merged[-1], str):
                merged[-1] += part
            else:
                merged.append(part)
        return Treated(tuple(merged), sure)

    def missing(self, offer: Offer, treatment: Treatment) -> str:
        """The first token that can be without a value and has no fallback; "" if there is none."""
        language = treatment.language or self._config.language
        for piece in tokens_in(treatment.text):
            if isinstance(piece, Token) and piece.fallback is None and self._resolved(offer, piece, language)[1]:
                return piece.name
        return ""

    def _resolved(self, offer: Offer, token: Token, language: str) -> tuple[str | Slot, bool]:
        """The token, a text where its value stands in the catalogue, and whether it can be without a value."""
        name, zone = token.name, self._config.timezone
        form = unit = ""
        values: tuple[str, ...] = ()
        default: float | str | None = None
        if name.startswith("offer."):
            if name not in _FIELDS:
                raise ValueError(f"{{{name}}}: no such field of an offer; there are {', '.join(_FIELDS)}")
            if name in MOMENTS:
                if name == "offer.price_held_until" and offer.price_held_for is None:
                    raise ValueError(f"{{{name}}}: the offer has no price_held_for")
                form = self._form(token, "number", "", language, "date")
                return Slot("moment", name, form, language, zone, token.fallback), False
            if name == "offer.value":
                form = self._form(token, "number", "", language)
                return written(offer.value, form, language, zone) or "", False
            self._form(token, "text", "", language)
            return {"offer.id": offer.id, "offer.kind": offer.kind, "offer.category": offer.category}[name], False
        if name in offer.parameters:
            parameter = offer.parameters[name]
            source, kind, unit, can_miss = "parameter", str(parameter.type), parameter.unit, not parameter.sure
        elif name in self._features:
            spec = self._config.feature_spec(self._features[name])
            if spec.hashed:
                raise ValueError(f"{{{name}}}: nothing but a hash is kept of this text; expected something else")
            source, kind, unit = "feature", "text" if spec.categories else "number", self._features[name].unit
            can_miss = math.isnan(spec.missing)
        elif name in self._facts:
            fact = self._facts[name]
            source, kind, values, can_miss = "fact", str(fact.type), fact.values, fact.default is None
            default = None if isinstance(fact.default, bool) else fact.default
            if kind == "flag":
                raise ValueError(f"{{{name}}}: a flag says nothing in words; expected a number or a text")
        else:
            there = ", ".join(sorted({*offer.parameters, *self._features, *self._facts})) or "none"
            raise ValueError(
                f"{{{name}}}: no parameter of the offer, feature or fact is called so; there are {there}, and "
                f"{', '.join(_FIELDS)}"
            )
        form = self._form(token, kind, unit, language)
        # Dates far away cannot be written, whatever the value.
        can_miss = can_miss or form in ("date", "time")
        return Slot(source, name, form, language, zone, token.fallback, values, default), can_miss

    def _form(self, token: Token, kind: str, unit: str, language: str, default: str = "number") -> str:
        """The format of a token. Raises ValueError if its value cannot be written so."""
        form, what = token.form, f"{{{token.name}:{token.form}}}"
        if kind == "text":
            if form:
                raise ValueError(f"{what}: a text has no format")
            return ""
        form = form or default
        if form == "money":
            if not is_currency(unit):
                raise ValueError(f"{what}: its unit is {unit or 'nothing'!r}, expected a currency such as EUR")
            form = unit
        if form not in FORMATS and not is_currency(form):
            raise ValueError(f"{what}: no such format; there are {', '.join(FORMATS)} and currencies such as EUR")
        if locale_of(language) is None:
            raise ValueError(f"{what}: nothing is known of how numbers are written in {language!r}")
        return form


def facts_said(config: Config) -> frozenset[str]:
    """Names that tokens use, of whatever kind: a fact among them may be any text."""
    found = set()
    for offer in config.offers:
        for treatment in offer.treatments:
            try:
                found |= {piece.name for piece in tokens_in(treatment.text) if isinstance(piece, Token)}
            except ValueError:
                continue  # told by problems_of
    return frozenset(found)


def problems_of(config: Config) -> list[tuple[Location, str]]:
    """What is wrong with treatments and placements, as (place, what was expected)."""
    found: list[tuple[Location, str]] = []
    resolver = _Resolver(config)
    names = [place_name(*place) for place in places_of(config) if place[1]]
    for number, channel in enumerate(config.channels):
        found += [
            (("channels", number, "placements", at), f"{name!r} is written as a placement of another channel is")
            for at, placement in enumerate(channel.placements)
            if names.count(name := place_name(channel.id, placement)) > 1
            and resolver.limited_to[name] != channel.id
        ]
    there = ", ".join(names) or "none"
    languages = {config.language, *(t.language for offer in config.offers for t in offer.treatments if t.language)}
    for at, offer in enumerate(config.offers):
        named: list[tuple[Location, str]] = [(("placements", i), name) for i, name in enumerate(offer.placements)]
        for i, treatment in enumerate(offer.treatments):
            named += [(("treatments", i, "placements", j), name) for j, name in enumerate(treatment.placements)]
            found += [
                (("offers", at, "treatments", i, "placements", j), f"{name!r} is not in channel {treatment.channel!r}")
                for j, name in enumerate(treatment.placements)
                if treatment.channel and resolver.limited_to.get(name, treatment.channel) != treatment.channel
            ]
        wrong: list[tuple[Location, str]] = [
            (("offers", at, *place), f"no placement {name!r}; there are {there}")
            for place, name in named
            if name not in resolver.limited_to
        ]
        for i, treatment in enumerate(offer.treatments):
            try:
                resolver.treated(offer, treatment)
            except ValueError as error:
                wrong.append((("offers", at, "treatments", i, "text"), str(error)))
        found += wrong or _unsure(config, resolver, at, sorted(languages))
    return found


def _unsure(config: Config, resolver: _Resolver, at: int, languages: Sequence[str]) -> list[tuple[Location, str]]:
    """Where an offer could be made, and nothing could be said of it to some."""
    offer = config.offers[at]
    missing = [resolver.missing(offer, treatment) for treatment in offer.treatments]
    if not any(missing):
        return []
    for channel, placement in places_of(config):
        if not is_made(offer, channel, placement, resolver.limited_to):
            continue
        for language in languages:
            fits = fitting(offer, (channel, placement), language, config.language)
            if fits and all(missing[i] for i in fits):
                where = place_name(channel, placement) if placement else channel
                name = missing[fits[0]]
                return [
                    (
                        ("offers", at, "treatments", fits[0], "text"),
                        f"{{{name}}} can be without a value, and then nothing can be said in {where} in language "
                        f"{language!r}: expected a fallback, as in {{{name}|…}}, or a treatment without it beside it",
                    )
                ]
    return []
