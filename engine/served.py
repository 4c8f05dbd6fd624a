"""What was earned with those whom challengers serve, beside what the champion earned meanwhile with the others. Pure.

Who is served by whom is left to a hash, so the two groups of people are alike, and the difference of their means is the
effect. Each mean has its interval over customers (models.evaluation.interval); that of the difference is put together
from the two by what each end is away from its mean (the method of variance estimates recovery, Zou & Donner 2008).
"""

from math import hypot, isfinite
from typing import Any
from zlib import compress, decompress
from zlib import error as CompressionError

import numpy as np
from numpy.typing import NDArray

from engine.tally import BUCKETS, CUSTOMERS_MIN
from models.evaluation import interval

Floats = NDArray[np.float64]


class Served:
    """Rewards and decisions by customers, of the champion and of each challenger that serves."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = ("", *names)
        self._sums = np.zeros((len(self._names), 2, BUCKETS))

    def count(self, name: str, bucket: int, reward: float) -> None:
        """A decision whose windows have closed; "" is the champion."""
        self._sums[self._names.index(name), :, bucket] += reward, 1.0

    def figures(self, name: str) -> dict[str, Any]:
        """Decisions and mean reward of one challenger, and the difference to the champion with bounds; None: not known.
        """
        own, other = self._sums[self._names.index(name)], self._sums[0]
        decisions = int(own[1].sum())
        told: dict[str, Any] = {"decisions": decisions, "mean": None, "champion": None, "difference": None}
        if decisions and other[1].any():
            mean, low, high = _bounded(own)
            champion, champion_low, champion_high = _bounded(other)
            told |= {"mean": mean, "champion": champion}
            least = mean - champion - hypot(mean - low, champion_high - champion)
            most = mean - champion + hypot(high - mean, champion - champion_low)
            if isfinite(least) and isfinite(most):
                told["difference"] = {"mean": mean - champion, "low": least, "high": most}
        return told

    def to_bytes(self) -> bytes:
        """All sums, compressed."""
        return compress(self._sums.tobytes(), 1)

    def restore(self, data: bytes) -> None:
        """Go on from what `to_bytes` gave. Raises ValueError for anything else."""
        try:
            sums = np.frombuffer(decompress(data))
        except CompressionError as error:
            raise ValueError(f"what challengers served, {len(data)} bytes, is damaged: {error}") from error
        if sums.size != self._sums.size:
            raise ValueError(f"what challengers served, {sums.size} numbers, is of another form")
        self._sums = sums.reshape(self._sums.shape).copy()


def _bounded(sums: Floats) -> tuple[float, float, float]:
    seen = sums[1] > 0.0
    mean = float(sums[0].sum() / sums[1].sum())
    if int(seen.sum()) < CUSTOMERS_MIN:
        return mean, -np.inf, np.inf
    return mean, *interval(sums[0][seen], sums[1][seen])
