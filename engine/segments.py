"""Segments: names for the customers for whom a rule over their features holds, found when a customer is looked at.

A rule that cannot be evaluated does not hold, as with offers. Pure.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.config_schema import Segment
from engine.rulebatch import Column, RuleBatch
from engine.rules import Rules, Variable


class Segments:
    """The segments of a configuration, compiled."""

    def __init__(
        self, segments: Sequence[Segment], columns: Sequence[Column], samples: Mapping[str, Variable]
    ) -> None:
        """`columns` are those of the features, in the order of the layout. Raises RuleError."""
        rules = Rules([segment.when for segment in segments], samples)
        self._batch = RuleBatch(rules, columns)
        self._masks = [rules.mask([segment.when]) for segment in segments]
        self.names = tuple(segment.name for segment in segments)

    def of(self, values: NDArray[np.float64]) -> list[str]:
        """Segments of one customer, in the order of the configuration; `values` (1, features)."""
        return [name for name, held in zip(self.names, self.held(values)[0].tolist(), strict=True) if held]

    def held(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(n, segments) which of them each customer is in; `values` (n, features)."""
        if not self._masks:
            return np.zeros((len(values), 0), np.bool_)
        held = [int.from_bytes(verdict.held, "little") for verdict in self._batch.evaluate(values)]
        found = [[bool(one & mask) for mask in self._masks] for one in held]
        return np.array(found, np.bool_).reshape(len(values), -1)
