"""What to offer whom nothing is known of: the fallback lists of a configuration, compiled. Pure.

An offer of the list takes part where it may be made in the channel, has a treatment for it and is valid at the time.
Its rules do not: what they ask for is not known. So only offers that anybody may be shown belong into a fallback.
"""

import numpy as np
from numpy.typing import NDArray

from engine.config_schema import Config


class Fallbacks:
    """The fallback offers of each channel."""

    def __init__(self, config: Config, in_channel: NDArray[np.bool_]) -> None:
        """`in_channel` (channels, offers): where offers may be made."""
        at = {offer.id: index for index, offer in enumerate(config.offers)}
        given = config.fallback
        self._lists: list[tuple[tuple[int, int, int], ...]] = []
        """By channel: (offer, starts_ms, ends_ms), best first."""
        for channel, there in zip(config.channels, in_channel, strict=True):
            named = given.get(channel.id, ()) if isinstance(given, dict) else given
            offers = [at[offer] for offer in named]
            self._lists.append(
                tuple((o, config.offers[o].starts_ms, config.offers[o].ends_ms) for o in offers if there[o])
            )

    def at(self, channel: int, time_ms: int) -> tuple[int, ...]:
        """Offers for a channel at a time, best first."""
        return tuple([offer for offer, starts_ms, ends_ms in self._lists[channel] if starts_ms <= time_ms < ends_ms])

    def between(self, channel: int, from_ms: int, until_ms: int) -> tuple[int, ...]:
        """Offers for a channel that are valid at some time in between, best first."""
        return tuple(
            [o for o, starts_ms, ends_ms in self._lists[channel] if starts_ms < until_ms and from_ms < ends_ms]
        )
