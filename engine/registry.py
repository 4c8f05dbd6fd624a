"""The registry of features, for programs, and what it lacks: a feature is for those who know what it means."""

from typing import Any

from engine.catalogue import Catalogue
from engine.config_schema import Config, Feature
from engine.recordsize import record_size


def registry_of(catalogue: Catalogue) -> dict[str, Any]:
    """Every feature: what it means, whose it is, what it is made of, what it costs. Durations are in ms."""
    places = {row.name: row for layout in catalogue.layouts.values() for row in layout.describe()}
    return {
        "configuration": catalogue.config.name,
        "version": catalogue.version,
        "features": [
            feature.model_dump(mode="json", exclude={"window", "tile", "half_life", "by"})
            | {"window_ms": feature.window, "tile_ms": feature.tile, "half_life_ms": feature.half_life}
            | {"keeps": places[feature.name].keeps, "bytes_a_tile": places[feature.name].bytes_typical}
            for feature in catalogue.config.all_features
        ],
        "record": record_size(catalogue)._asdict(),
        "lacking": lacking(catalogue.config),
    }


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
