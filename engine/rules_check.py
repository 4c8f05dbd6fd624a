"""What must hold between rules, triggers, places and the rest of a configuration, before anything is compiled."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from engine.groups import Location

if TYPE_CHECKING:
    from engine.config_schema import Config


def rule_problems(config: "Config") -> list[tuple[Location, str]]:
    """What is wrong with what rules name, as (place, what was expected)."""
    return [*_of_rules(config), *_of_triggers(config), *_of_places(config), *_of_consent(config)]


def nearest(name: str, there: Iterable[str]) -> str:
    """What was meant, perhaps, in words that go behind a refusal; "" if nothing is near.

    >>> nearest("spend_30d", ["spent_30d", "age"])
    '; the nearest is spent_30d'
    """
    close = get_close_matches(name, list(there), 1, 0.6)
    return f"; the nearest is {close[0]}" if close else ""


def _of_rules(config: "Config") -> Iterable[tuple[Location, str]]:
    known = {
        "offers": [offer.id for offer in config.offers],
        "groups": [group.id for group in config.groups],
        "categories": [offer.category for offer in config.offers],
        "channels": [channel.id for channel in config.channels],
        "placements": [place for channel in config.channels for place in channel.placements],
    }
    words = {"offers": "offer", "groups": "group", "categories": "offer of category", "channels": "channel"}
    for at, rule in enumerate(config.rules):
        for part, there in known.items():
            names: Sequence[str] = getattr(rule, part)
            for i, name in enumerate(names):
                if name not in there:
                    what = f"no {words.get(part, 'placement')} {name!r}{nearest(name, there)}"
                    yield ("rules", at, part, i), what
    first: dict[str, int] = {}
    for at, rule in enumerate(config.rules):
        if first.setdefault(rule.name, at) != at:
            yield ("rules", at, "name"), f"rule {rule.name!r} is already there as rules[{first[rule.name]}]"


def _of_triggers(config: "Config") -> Iterable[tuple[Location, str]]:
    texts = {fact.name for fact in config.context if fact.type != "number"}
    numbers = {fact.name for fact in config.context} - texts
    for feature in config.all_features:
        spec = config.feature_spec(feature)
        (texts if spec.categories or spec.hashed else numbers).add(feature.name)
    for at, offer in enumerate(config.offers):
        for i, trigger in enumerate(offer.triggers):
            if trigger.date in texts:
                yield ("offers", at, "triggers", i, "date"), f"{trigger.date!r} is no number, expected a date as one"
            elif trigger.date is not None and trigger.date not in numbers:
                what = f"no feature or fact is called {trigger.date!r}{nearest(trigger.date, numbers)}"
                yield ("offers", at, "triggers", i, "date"), what


def _of_places(config: "Config") -> Iterable[tuple[Location, str]]:
    first: dict[str, int] = {}
    kinds = {place.kind for place in config.places}
    for at, place in enumerate(config.places):
        if first.setdefault(place.id, at) != at:
            yield ("places", at, "id"), f"place {place.id!r} is already there as places[{first[place.id]}]"
        if place.id in kinds:
            yield ("places", at, "id"), f"{place.id!r} is a kind of places, too; near() would not know which is meant"
    facts = {fact.name: fact for fact in config.context}
    if config.location is None:
        return
    for part, name in (("latitude", config.location.latitude), ("longitude", config.location.longitude)):
        fact = facts.get(name)
        if fact is None or fact.type != "number":
            yield ("location", part), f"context has no number fact {name!r}"
        elif fact.consent is None:
            at = config.context.index(fact)
            what = f"{name!r} says where the customer is: expected consent, with the flag that gives it"
            yield ("context", at), what


def _of_consent(config: "Config") -> Iterable[tuple[Location, str]]:
    flags = {fact.name for fact in config.context if fact.type == "flag" and fact.consent is None}
    for at, fact in enumerate(config.context):
        if fact.consent is not None and fact.consent not in flags:
            yield ("context", at, "consent"), f"context has no flag {fact.consent!r} that is given without consent"
        elif fact.consent is not None and fact.default is not None:
            yield ("context", at, "default"), "without consent nothing is known: expected no default"
