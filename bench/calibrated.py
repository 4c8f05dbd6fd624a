"""What the engine would show as probabilities, row by row: each estimate is read before its outcome is counted."""

import numpy as np
import numpy.typing as npt

from models.calibration import Calibration, read

Floats = npt.NDArray[np.float64]


class Reading:
    """Reads estimates as `models.calibration` has it, as lessons come.

    >>> reading = Reading()
    >>> reading.learn(0, np.full(1_000, 0.3), np.zeros(1_000))
    >>> reading.shown(0, np.array([0.0, 0.3])).round(2).tolist()
    [0.0, 0.02]
    """

    def __init__(self, half_life_periods: float | None = None) -> None:
        self._seen = Calibration()
        self._half_life_periods = half_life_periods

    def shown(self, period: int, expected: Floats) -> Floats:
        """Probabilities for estimates, by what was learnt so far."""
        return read(self._seen.curve(period, self._half_life_periods), expected)

    def learn(self, period: int, expected: Floats, outcome: Floats) -> None:
        """What became of the estimates (as they were, not as shown) of decisions that were made; outcomes 0 or 1."""
        count = len(expected)
        targets = np.rint(100 * outcome).astype(np.int64).tolist()
        self._seen.learn([period] * count, expected.tolist(), targets, [1] * count)
