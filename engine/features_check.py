"""What is asked of the features of a configuration that is to be put in force, and what is noted of them.

Not of one that was in force: refused, it would take the state with it that was computed under it.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from engine.config_schema import Attribute, Config, Feature
from engine.groups import Location
from features import CLOCK_NAMES, NEVER_MISSING, ExpressionError, FeatureSpec, compile_cel, duration_text, value_max

_RESOLUTION_EXPONENTS: Final = range(-6, 7)
"""Powers of ten that are proposed as a resolution: from the default one to the largest."""


def problems_of_new(config: Config) -> list[tuple[Location, str]]:
    """What is wrong with features that would not be refused if they were in force, as (place, what was expected)."""
    events = {event.type: event.attributes for event in config.events}
    specs = {feature.name: config.feature_spec(feature) for feature in config.all_features}
    found: list[tuple[Location, str]] = []
    for at, feature in enumerate(config.features):
        attributes = events.get(feature.event or "", {})
        problems = [*_too_large(feature, attributes), *_hidden(feature, attributes), *_meaningless(feature, specs)]
        found += [(("features", at, *place), told) for place, told in problems]
    return found


def _too_large(feature: Feature, attributes: Mapping[str, Attribute]) -> Iterable[tuple[Location, str]]:
    """A range that the function cannot hold."""
    attribute = attributes.get(feature.attribute or "")
    if attribute is None or attribute.range is None:
        return
    largest = max(map(abs, attribute.range))
    most = value_max(feature.function, feature.resolution)
    if largest > most:
        fits = [10.0**e for e in _RESOLUTION_EXPONENTS if value_max(feature.function, 10.0**e) >= largest]
        expected = f"resolution: {fits[0]:g}" if fits else "a smaller range"
        cut = f"{feature.function} holds values up to {most:g} at a resolution of {feature.resolution:g}"
        yield ("resolution",), f"{cut}, and {feature.attribute} has a range up to {largest:g}: expected {expected}"


def _hidden(feature: Feature, attributes: Mapping[str, Attribute]) -> Iterable[tuple[Location, str]]:
    """An attribute that an expression seems to name, and does not see."""
    for place, expression in (("value", feature.value), ("where", feature.where)):
        if not isinstance(expression, str):
            continue
        try:
            used = compile_cel(expression).variables()
        except ExpressionError:
            continue  # told already
        for name in CLOCK_NAMES:
            if name in used and name in attributes:
                of_time = f"{name!r} in an expression is that of the event's time, and {feature.event!r} has"
                yield (place,), f"{of_time} an attribute {name!r}, too: expected another name for the attribute"


def _meaningless(feature: Feature, specs: Mapping[str, FeatureSpec]) -> Iterable[tuple[Location, str]]:
    """What can be computed, and says nothing."""
    for place, name in (("numerator", feature.numerator), ("denominator", feature.denominator)):
        part = specs.get(name or "")
        if feature.function == "ratio" and part is not None and (part.categories or part.hashed):
            yield (place,), f"{name!r} is a text, which cannot be divided: expected a feature that is a number"
    if feature.function in NEVER_MISSING and feature.default and not isinstance(feature.default, str):
        yield ("default",), f"{feature.function} is 0 without events: expected no default, got {feature.default:g}"


def windows_told(config: Config) -> list[str]:
    """Windows that reach further back than they say, a sentence each.

    >>> from engine.config import parse
    >>> text = b"{opportune: 1, name: x, channels: [{id: web}], events: [{type: visit}], offers: [{id: o, value: 1,"
    >>> text += b" treatments: [{text: t}]}], features: [{name: visits, event: visit, function: count, window: 7d,"
    >>> windows_told(parse(text + b" tile: 2d}]}"))
    ["'visits': a window of 7d in tiles of 2d covers up to 8d; expected a tile that divides it"]
    """
    told = []
    for feature in config.features:
        if feature.window is None or feature.tile is None or feature.window % feature.tile == 0:
            continue
        covered = -(-feature.window // feature.tile) * feature.tile
        window, tile = duration_text(feature.window), duration_text(feature.tile)
        told.append(
            f"{feature.name!r}: a window of {window} in tiles of {tile} covers up to {duration_text(covered)}; "
            "expected a tile that divides it"
        )
    return told
