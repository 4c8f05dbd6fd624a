"""From what a decision of one configuration saw to what another one would have seen."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.errors import InvalidArgument
from engine.holds import Hold

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Bridge:
    """One configuration seen by another. Raises InvalidArgument where a name means another kind of value in each."""

    def __init__(self, made_with: Catalogue, catalogue: Catalogue) -> None:
        self._same = made_with.version == catalogue.version
        index = catalogue.channel_index
        self.channels: Ints = np.array([index.get(channel.id, -1) for channel in made_with.config.channels], np.int64)
        """Its number here of each channel there; -1: it is gone."""
        there = {column.name: at for at, column in enumerate(made_with.rule_columns)}
        self._from = np.array([there.get(column.name, -1) for column in catalogue.rule_columns], np.int64)
        self._categories: list[tuple[int, Floats]] = []
        for at, column in enumerate(catalogue.rule_columns):
            if self._from[at] < 0:
                continue
            other = made_with.rule_columns[self._from[at]]
            if other.kind != column.kind:
                raise InvalidArgument(
                    f"{column.name} is a {other.kind} in the configuration of the log and a {column.kind} in "
                    f"{catalogue.config.name}: what it was cannot be told"
                )
            if other.categories != column.categories:
                numbers = [column.categories.index(c) if c in column.categories else np.nan for c in other.categories]
                self._categories.append((at, np.array([*numbers, np.nan])))
        self._defaults = np.array([column.default for column in catalogue.rule_columns])
        self.unseen = [column.name for column, at in zip(catalogue.rule_columns, self._from, strict=True) if at < 0]
        """Names that the log knows nothing of: they have their defaults."""
        self._limits = {at: catalogue.holds.names.index(name) for at, name in enumerate(made_with.holds.names)
                        if name in catalogue.holds.names}  # fmt: skip
        self._same_limits = made_with.holds.names == catalogue.holds.names
        self.lifted = [name for name in made_with.holds.names if name not in catalogue.holds.names]
        """Limits that the other one does not have: what they kept back is free."""
        self.untold = [
            name
            for name in catalogue.holds.names
            if name not in made_with.holds.names and not catalogue.holds.derived(name)
        ]
        """Limits that the log knows nothing of: what they would have kept back is not known."""
        offers = {offer: at for at, offer in enumerate(made_with.offer_ids)}
        self._offers = np.array([offers.get(offer, -1) for offer in catalogue.offer_ids], np.int64)

    def values(self, values: Floats) -> Floats:
        """(n, columns) the value matrix of the other configuration."""
        if self._same:
            return values
        found: Floats = np.ascontiguousarray(values[:, self._from])
        missing = self._from < 0
        found[:, missing] = self._defaults[missing]
        for at, numbers in self._categories:
            column = found[:, at]
            found[:, at] = numbers[np.where(np.isnan(column), len(numbers) - 1, column).astype(np.int64)]
        return found

    def holds(self, held: Sequence[tuple[Hold, ...]]) -> Sequence[tuple[Hold, ...]]:
        """What kept offers back, as far as the other configuration has these limits."""
        if self._same_limits or not any(held):
            return held
        return [
            tuple([Hold(self._limits[limit], *more) for limit, *more in some if limit in self._limits]) for some in held
        ]

    def prices(self, prices: Floats) -> Floats:
        """(n, offers) shadow prices by the numbers of the other configuration."""
        if self._same:
            return prices
        padded = np.concatenate([prices, np.zeros((len(prices), 1))], axis=1)
        found: Floats = np.ascontiguousarray(padded[:, self._offers])
        return found

    def add_values(self, values: Sequence[Sequence[tuple[int, float]]], score: Floats) -> None:
        """Add to scores (n, offers …) what knowing the answers to questions was worth."""
        for row, some in enumerate(values):
            for offer, value in some:
                for here in np.flatnonzero(self._offers == offer).tolist():
                    score[row, here] += value
