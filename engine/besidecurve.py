"""The factors of a calibration by the place of each offer, worked out once a policy. Pure."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.offercalibration import factors_in

Floats = NDArray[np.float64]


class BesideCurve:
    """How far the offers of one catalogue lie beside the common curve of a policy."""

    def __init__(self, keys: Sequence[int]) -> None:
        self._keys = keys
        self._of: tuple[Floats, Floats] | None = None

    def of(self, curve: Floats) -> Floats:
        """(offers,) what multiplies the odds of the curve; empty if nobody lies beside it."""
        known = self._of
        if known is None or known[0] is not curve:
            known = self._of = curve, factors_in(curve, self._keys)
        return known[1]
