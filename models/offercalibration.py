"""How far each offer lies beside the common calibration, as far as its lessons tell.

The curve of `models.calibration` is one for all offers. An offer of which 30 % accept where the others say 20 % stays
off by that, within every range of estimates. So the same is counted by offer, in OFFER_BINS bins of the mean a decision
was made with,

    n = Σ 1      m = Σ mean      s = Σ target

in whole numbers, a period each: as everywhere order, batches and corrections change no bit. With c the common curve at
the mean of a bin, the odds of offer o are those of the curve times a factor exp(δ), one number an offer:

    p = σ(logit c + δ_o)        δ_o ~ N(0, τ²)

**Empirical Bayes.** With U = Σ (s − n c) and V = Σ n c (1 − c) over the bins of an offer, U²/V would come to 1 on
average if the curve fitted all k offers. What is beyond that is how far they differ: τ² = (Σ U²/V − k) / Σ V (a method
of moments, DerSimonian & Laird 1986). Where Σ U²/V is within CHANCE standard deviations of k, chance explains it, τ² is
0, and nothing is moved. Otherwise δ_o is the most probable value, by Newton's method: near 0 where there are few
lessons, and what the outcomes say where there are many.

Ranking does not depend on it. Bounded: 24 numbers an offer and period, and one number an offer that is served.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from models.calibration import BINS, MEAN_STEPS, read
from models.errors import CheckpointError
from models.statistics import TARGET_STEPS, weight

OFFER_BINS: Final = 8
CHANCE: Final = 3.0
"""Standard deviations of the misfit that chance may explain."""

_SURE: Final = 1e-3
"""Probabilities are held so far from 0 and 1 where their odds are compared."""
_DELTA_MAX: Final = 5.0
_ROUNDS: Final = 20
_MAGIC: Final = b"OPCO"
_HEAD: Final = struct.Struct("<4sBBI")  # magic, format, whether from the first lesson, rows
_FORMAT: Final = 1
_ROW: Final = struct.Struct(f"<Iq{3 * OFFER_BINS}q")  # offer, period, sums
_SEAL_BYTES: Final = 16

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class OfferCalibration:
    """What estimates were worth, offer by offer, exactly. Offers are numbers of 32 bits.

    >>> seen, rows = OfferCalibration(), 4000
    >>> for offer, yes in ((1, 1200), (2, 400)):
    ...     seen.learn([offer] * rows, [0] * rows, [0.2] * rows, [100] * yes + [0] * (rows - yes), [1] * rows)
    >>> factors = seen.factors(np.zeros(0), 0, None)
    >>> from models.calibration import EDGES
    >>> curve = with_factors(EDGES, factors)
    >>> [round(float(calibrated(curve, 0.2, offer)), 2) for offer in (1, 2, 3)]
    [0.3, 0.1, 0.2]
    """

    def __init__(self, *, whole: bool = True) -> None:
        self.whole = whole
        """Whether it has seen all lessons; otherwise it was begun beside lessons that were there."""
        self._sums: dict[int, dict[int, Ints]] = {}

    def __bool__(self) -> bool:
        return bool(self._sums)

    def learn(
        self,
        offers: Sequence[int],
        periods: Sequence[int],
        means: Sequence[float],
        targets: Sequence[int],
        signs: Sequence[int],
    ) -> None:
        """Add lessons, or take them back; arguments as for `Calibration.learn`, and the offer of each."""
        steps = np.rint(np.clip(np.asarray(means, np.float64), 0.0, 1.0) * MEAN_STEPS).astype(np.int64)
        bins = np.minimum((np.sqrt(steps / MEAN_STEPS) * OFFER_BINS).astype(np.int64), OFFER_BINS - 1)
        rows = zip(offers, periods, bins.tolist(), steps.tolist(), targets, signs, strict=True)
        for offer, period, at, step, target, sign in rows:
            self._of(offer, period)[:, at] += (sign, sign * step, sign * target)
        for offer, period in set(zip(offers, periods, strict=True)):
            if not self._sums[offer][period].any():
                del self._sums[offer][period]
        for offer in set(offers):
            if not self._sums[offer]:
                del self._sums[offer]

    def factors(self, curve: Floats, now_period: int, half_life_periods: float | None) -> dict[int, float]:
        """What to multiply the odds of the common curve by, of the offers that lie beside it; empty if none does."""
        known: list[tuple[int, Floats, Floats, float]] = []
        misfit = information = 0.0
        for offer in sorted(self._sums):
            sums = np.zeros((3, OFFER_BINS))
            for period in sorted(self._sums[offer]):
                sums += weight(now_period - period, half_life_periods) * self._sums[offer][period]
            lessons = sums[0]
            kept = lessons > 0.0  # more taken back than added, for the moment, counts as nothing
            if not kept.any():
                continue
            common = np.clip(read(curve, sums[1, kept] / MEAN_STEPS / lessons[kept]), _SURE, 1.0 - _SURE)
            yes = float(sums[2, kept].sum()) / TARGET_STEPS
            expected = float(lessons[kept] @ common)
            variance = float(lessons[kept] @ (common * (1.0 - common)))
            misfit += (yes - expected) ** 2 / variance
            information += variance
            known.append((offer, lessons[kept], np.log(common / (1.0 - common)), yes))
        if misfit <= len(known) + CHANCE * math.sqrt(2.0 * len(known)):
            return {}
        spread = (misfit - len(known)) / information
        return {
            offer: math.exp(_most_probable(lessons, logits, yes, spread)) for offer, lessons, logits, yes in known
        }

    def to_bytes(self) -> bytes:
        """The one byte string of these sums, however they came about."""
        rows = [
            _ROW.pack(offer, period, *self._sums[offer][period].ravel().tolist())
            for offer in sorted(self._sums)
            for period in sorted(self._sums[offer])
        ]
        body = b"".join([_HEAD.pack(_MAGIC, _FORMAT, self.whole, len(rows)), *rows])
        return body + _seal(body)

    @classmethod
    def from_bytes(cls, data: bytes) -> OfferCalibration:
        """Read what `to_bytes` wrote. Raises CheckpointError for bytes that are foreign, cut short or damaged."""
        body = data[:-_SEAL_BYTES]
        if len(body) < _HEAD.size or data[:4] != _MAGIC or data[-_SEAL_BYTES:] != _seal(body):
            raise CheckpointError(f"these {len(data)} bytes are no calibration of offers, or a damaged one")
        _, form, whole, rows = _HEAD.unpack_from(body)
        if form != _FORMAT or len(body) != _HEAD.size + rows * _ROW.size:
            raise CheckpointError(f"a calibration of offers of format {form} and {len(data)} bytes cannot be read")
        self = cls(whole=bool(whole))
        for at in range(_HEAD.size, len(body), _ROW.size):
            offer, period, *sums = _ROW.unpack_from(body, at)
            self._of(offer, period)[:] = np.array(sums, np.int64).reshape(3, OFFER_BINS)
        return self

    def _of(self, offer: int, period: int) -> Ints:
        periods = self._sums.setdefault(offer, {})
        found = periods.get(period)
        if found is None:
            found = periods[period] = np.zeros((3, OFFER_BINS), np.int64)
        return found


def with_factors(curve: Floats, factors: dict[int, float]) -> Floats:
    """A curve with the factors of offers behind its knots: their offers, ascending, then the factors."""
    offers = sorted(factors)
    return np.concatenate([curve, np.array(offers, np.float64), np.array([factors[offer] for offer in offers])])


def common_part(curve: Floats) -> Floats:
    """The curve for all offers, without factors."""
    return curve[: BINS + 1]


def factors_in(curve: Floats, offers: Iterable[int]) -> Floats:
    """The factors of these offers, 1 of those that have none; empty if nobody has one.

    >>> from models.calibration import EDGES
    >>> factors_in(with_factors(EDGES, {7: 2.0}), [6, 7]).tolist(), factors_in(EDGES, [7]).tolist()
    ([1.0, 2.0], [])
    """
    behind = curve[BINS + 1 :]
    if not len(behind):
        return np.zeros(0)
    count = len(behind) // 2
    known = dict(zip(behind[:count].tolist(), behind[count:].tolist(), strict=True))
    return np.array([known.get(float(offer), 1.0) for offer in offers])


def calibrated(curve: Floats, mean: float, offer: int) -> float:
    """The probability that a curve has for the mean of one offer."""
    common = float(read(common_part(curve), mean))
    [factor] = factors_in(curve, [offer]) if len(curve) > BINS + 1 else (1.0,)
    return common if factor == 1.0 else common * factor / (1.0 - common + common * factor)


def _most_probable(lessons: Floats, logits: Floats, yes: float, spread: float) -> float:
    """δ of which prior and lessons together are most probable; the logarithm is concave, so Newton finds it."""
    delta = 0.0
    for _ in range(_ROUNDS):
        probable = 1.0 / (1.0 + np.exp(-(logits + delta)))
        slope = yes - float(lessons @ probable) - delta / spread
        curvature = float(lessons @ (probable * (1.0 - probable))) + 1.0 / spread
        step = min(max(slope / curvature, -1.0), 1.0)
        delta = min(max(delta + step, -_DELTA_MAX), _DELTA_MAX)
        if abs(step) < 1e-12:
            break
    return delta


def _seal(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_SEAL_BYTES).digest()
