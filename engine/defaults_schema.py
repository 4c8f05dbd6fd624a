"""The part of a configuration that says what to offer whom nothing is known of, and for how long that holds."""

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Discriminator, Field, Tag

from engine import limits
from engine.config_base import DurationMs, Id, Part

if TYPE_CHECKING:
    from engine.config_schema import Config

_Offers = Annotated[tuple[Id, ...], Field(max_length=limits.SLATE_MAX)]


def _form(given: Any) -> str:
    return "channels" if isinstance(given, dict) else "list"


FallbackOffers = Annotated[
    Annotated[_Offers, Tag("list")] | Annotated[dict[Id, _Offers], Tag("channels")], Discriminator(_form)
]
"""Offers for when a customer's state cannot be had, best first: one list for all channels, or one for each."""


class SignedDefaults(Part):
    """The signed list of the fallback offers that callers may keep."""

    valid_for: DurationMs = 7 * 86_400_000


def fallback_problems(config: "Config") -> list[tuple[tuple[int | str, ...], str]]:
    """Offers and channels that the fallback names and that are not there, offers twice."""
    offers, channels = {offer.id for offer in config.offers}, {channel.id for channel in config.channels}
    lists: list[tuple[tuple[int | str, ...], tuple[str, ...]]]
    found: list[tuple[tuple[int | str, ...], str]] = []
    if isinstance(config.fallback, dict):
        lists = [(("fallback", channel), given) for channel, given in config.fallback.items()]
        there = ", ".join(sorted(channels))
        unknown = [channel for channel in config.fallback if channel not in channels]
        found += [(("fallback", channel), f"no channel {channel!r}; there are {there}") for channel in unknown]
    else:
        lists = [(("fallback",), config.fallback)]
    for place, given in lists:
        for at, offer in enumerate(given):
            if offer not in offers:
                found.append(((*place, at), f"no offer {offer!r}"))
            elif offer in given[:at]:
                found.append(((*place, at), f"offer {offer!r} is already there"))
    return found
