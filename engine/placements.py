"""Offers that are made in some placements of a channel alone: elsewhere they are kept back."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.config_schema import Config, key_of
from engine.holds import Situation
from engine.treatments import place_name

PLACEMENT: Final = "placement"


class Placements:
    """The holder (engine.holds.Holder) of one configuration; without names where nothing is limited to a placement.

    The scope of a hold is the key of the place as it is written: channel/placement, or the channel's id.
    """

    def __init__(self, config: Config, made: Sequence[Sequence[NDArray[np.bool_]]]) -> None:
        """`made` says by channel and placement which of the offers can be made there."""
        self._covers: dict[int, NDArray[np.bool_]] = {}
        self._scopes: list[list[int | None]] = []
        for channel, places in zip(config.channels, made, strict=True):
            anywhere = np.logical_or.reduce(places)
            scopes: list[int | None] = []
            for placement, there in zip(("", *channel.placements), places, strict=True):
                lacking = anywhere & ~there
                scope = key_of(place_name(channel.id, placement) if placement else channel.id)
                scopes.append(scope if lacking.any() else None)
                if lacking.any():
                    self._covers[scope] = lacking
            self._scopes.append(scopes)
        self.names: Final[Sequence[str]] = (PLACEMENT,) if self._covers else ()
        self.layer: Final = PLACEMENT
        self.derived: Final = True

    def holds(self, situation: Situation) -> list[list[tuple[int, int]]] | None:
        """The place of each decision in which not all offers of its channel are made."""
        places = zip(situation.channels.tolist(), situation.placements, strict=True)
        scopes = [self._scopes[channel][placement] for channel, placement in places]
        if not any(scope is not None for scope in scopes):
            return None
        return [[] if scope is None else [(0, scope)] for scope in scopes]

    def covers(self, limit: int, scope: int) -> NDArray[np.bool_]:
        """(offers,) what is not made in the place."""
        return self._covers[scope]
