"""What the record of a customer costs: measured, by folding made up events as ingest folds real ones."""

from typing import Final, NamedTuple

from engine.catalogue import Catalogue
from engine.config_schema import Attribute
from features import Event, Offset

_HOUR_MS: Final = 3_600_000
_EVENTS_MAX: Final = 2_160
"""An hourly event for ninety days."""


class RecordSize(NamedTuple):
    """Bytes of records with the features of a configuration, of so many events."""

    one_each_bytes: int
    """Of a customer with one event of each type."""
    hourly_bytes: int
    """Of one with an event an hour, types in turn, for `hourly_days` days."""
    hourly_days: float


def record_size(catalogue: Catalogue) -> RecordSize:
    """Measure it for a customer's features; those of households and the like have records of their own."""
    types = catalogue.config.events
    windows_ms = [feature.window or 0 for feature in catalogue.config.all_features]
    hours = min(_EVENTS_MAX, max(len(types), max(windows_ms, default=0) // _HOUR_MS))

    def folded(count: int) -> int:
        events = [
            Event(
                # Ids look like hashes: they are kept as they are.
                (at + 1) * 0x9E37_79B9_7F4A_7C15 % 2**64,
                types[at % len(types)].type,
                _HOUR_MS * (at + 1),
                {name: _some(attribute, at) for name, attribute in types[at % len(types)].attributes.items()},
                Offset(_HOUR_MS * (at + 1), 0),
            )
            for at in range(count)
        ]
        return len(catalogue.layout.fold(None, events).record) if events else 0

    return RecordSize(folded(len(types)), folded(hours), hours * _HOUR_MS / 86_400_000)


def _some(attribute: Attribute, at: int) -> float | str | bool:
    """A value of an attribute, not always the same."""
    if attribute.type == "flag":
        return at % 2 == 0
    if attribute.type == "text":
        return attribute.values[at % len(attribute.values)] if attribute.values else f"text {at % 50}"
    low, high = attribute.range or (0.0, 100.0)
    return low + (high - low) * (at % 97) / 96
