"""The registry of features, for programs, and what it lacks: a feature is for those who know what it means."""

from typing import Any

from engine.catalogue import Catalogue
from engine.config_schema import Config, Feature
from engine.recordsize import record_size
from features import FeatureSpec, duration_text


def registry_of(catalogue: Catalogue) -> dict[str, Any]:
    """Every feature: what it means, whose it is, what it is made of, what it costs. Durations are in ms.

    `tile_ms` and `tiles` are those that are kept, the default of a window resolved; `group` and `cells` are the place
    in a record, as `layouts` has them.
    """
    rows = {row.name: row for layout in catalogue.layouts.values() for row in layout.describe()}
    specs = {feature.name: catalogue.config.feature_spec(feature) for feature in catalogue.config.all_features}
    return {
        "configuration": catalogue.config.name,
        "version": catalogue.version,
        "features": [
            feature.model_dump(mode="json", exclude={"window", "tile", "half_life", "by"})
            | {"window_ms": feature.window, "half_life_ms": feature.half_life}
            | {"tile_ms": specs[feature.name].tile_width_ms or None, "tiles": specs[feature.name].tiles or None}
            | {"keeps": rows[feature.name].keeps, "bytes_a_tile": rows[feature.name].bytes_typical}
            | {"group": rows[feature.name].group, "cells": rows[feature.name].cells}
            for feature in catalogue.config.all_features
        ],
        "layouts": {
            entity: {"version": f"{layout.version:08x}", "places": [row._asdict() for row in layout.places()]}
            for entity, layout in catalogue.layouts.items()
        },
        "record": record_size(catalogue)._asdict(),
        "lacking": lacking(catalogue.config),
    }


def taken_of(feature: Feature) -> str:
    """What a feature takes of its events, and of which: attribute or expression, and condition.

    >>> taken_of(Feature(name="a", function="sum", attribute="amount", where={"shop": "web", "gift": True}))
    'amount where shop = web, gift = true'
    >>> taken_of(Feature(name="b", function="ratio", numerator="a", denominator="n"))
    'a / n'
    """
    if feature.numerator or feature.denominator:
        return f"{feature.numerator} / {feature.denominator}"
    taken = (feature.attribute or feature.value or "") + hashed_into(feature)
    where = feature.where
    if not isinstance(where, str):
        where = ", ".join(f"{name} = {_written(value)}" for name, value in where.items())
    return f"{taken} where {where}".strip() if where else taken


def looks_at(spec: FeatureSpec) -> str:
    """Over what of the past a feature looks: a window and its steps, a half-life, or all; "" of a ratio.

    >>> looks_at(FeatureSpec("a", "count", "buy", window_ms=7 * 86_400_000))
    '7d by 14h'
    """
    if spec.function == "ratio":
        return ""
    if spec.half_life_ms is not None:
        return f"half-life {duration_text(spec.half_life_ms)}"
    if spec.window_ms is None:
        return "lifetime"
    return f"{duration_text(spec.window_ms)} by {duration_text(spec.tile_width_ms)}"


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def hashed_into(feature: Feature) -> str:
    """What a table adds to a hashed text; "" of any other feature."""
    given = feature.input
    if given is None or given.kind != "hashed":
        return ""
    return f" (hashed into {given.columns}{' signed' * given.signed} columns)"


def lacking(config: Config) -> dict[str, list[str]]:
    """Names of the features without meaning, unit or owner. A text has no unit."""
    specs = [(feature, config.feature_spec(feature)) for feature in config.all_features]
    return {
        "meaning": [feature.name for feature in config.all_features if not feature.meaning],
        "unit": [feature.name for feature, spec in specs if not (feature.unit or spec.categories or spec.hashed)],
        "owner": [feature.name for feature in config.all_features if not feature.owner],
    }


def lacking_told(config: Config) -> list[str]:
    """The same as sentences, one for each thing that is lacking.

    >>> from engine.config import parse
    >>> text = b"{opportune: 1, name: x, channels: [{id: web}], events: [{type: visit}], offers: [{id: o, value: 1,"
    >>> text += b" treatments: [{text: t}]}], features: [{name: visits, event: visit, function: count, owner: me}]}"
    >>> lacking_told(parse(text))
    ['1 of 1 features without meaning: visits', '1 of 1 features without unit: visits']
    """
    return [
        f"{len(names)} of {len(config.all_features)} features without {what}: {', '.join(names)}"
        for what, names in lacking(config).items()
        if names
    ]
