"""Arbitration: which offers may be made, and what each is worth. Compiled, for a lone request as for a full batch.

    score = P × (C × V × L − risk) − (contact cost + surcharge + shadow price)

P is the model's belief about an acceptance, held within 0 .. 1, or within the range of the offer's rewards over its
value; C the context weight of the channel, V the value, L the lever and all other weights, see engine.weights; of
saying something without an offer (kind silence) P is 1. The surcharge is the customer's, for contacts had; a shadow
price is the offer's, for budgets that run short. One more column stands for silence, which is worth 0 for sure.
Compiled because as a dozen array operations this takes 60 µs for a lone request, and 3 µs so.

Why held: a linear model may think of an offer that fewer than nobody will take it. Where the belief is wrong it would
never be put right, because an offer that is thought to be worse than useless is never made. On one set of the bake-off
a learner chose wrongly for a third of the people, and went on doing so for 3,500 rows.
"""

from typing import Any, Final

import numpy as np
from numba import types
from numpy.typing import NDArray

from engine.config_schema import Config
from engine.rules import Verdict
from engine.weights import Weighing
from models.compiled import BOOLS_2D, FLOAT, FLOATS32_2D, FLOATS_2D, INTS, compiled, read_only
from models.offercalibration import common_part

_WORDS: Final = read_only(types.uint64, 2)
_FLOATS: Final = read_only(types.float64, 1)
_BOOLS: Final = read_only(types.boolean, 1)
_PICKS: Final = read_only(types.int16, 2)


_NO_FACTORS: Final = np.zeros(0)


class Arbitration:
    """The scores of one catalogue's offers."""

    def __init__(
        self,
        config: Config,
        mask_words: NDArray[np.uint64],
        in_channel: NDArray[np.bool_],
        gain: NDArray[np.float64],
        costs: NDArray[np.float64],
        weighing: Weighing | None = None,
        bounds: NDArray[np.float64] | None = None,
    ) -> None:
        """`gain` (channels, offers) are the gains of everybody; `weighing` those by rule, if there are any.

        `bounds` (offers, 2) are those of P, 0 and 1 unless told otherwise.
        """
        self._bounds = np.tile([0.0, 1.0], (len(costs), 1)) if bounds is None else bounds
        self._weighing = weighing
        self._masks = mask_words
        self._in_channel = in_channel
        self._gain = gain
        self._costs = costs[None]
        self._starts_ms = np.array([offer.starts_ms for offer in config.offers], dtype=np.int64)
        self._ends_ms = np.array([offer.ends_ms for offer in config.offers], dtype=np.int64)
        self._silence = config.silence
        self.contact = np.array([float(offer.kind != "silence") for offer in config.offers])
        """(offers,) 1 for what is a contact, 0 for silence with a text."""
        self._rule_bytes = 8 * mask_words.shape[1]

    def score(
        self,
        mean: NDArray[np.float32],
        sd: NDArray[np.float32],
        verdicts: list[Verdict],
        channels: NDArray[np.int64],
        times_ms: NDArray[np.int64],
        strength: float = 1.0,
        *,
        surcharges: NDArray[np.float64] | None = None,
        prices: NDArray[np.float64] | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
        """(score, spread, may, any_eligible) of B decisions over n offers and silence: (B, n + 1) three times, (B,).

        `spread` is the standard deviation of the score times `strength`; `may` says what can be chosen. `surcharges`
        (B,) add to the contact cost of every offer that is a contact, `prices` (n,) or (B, n) to that of each.
        """
        held = b"".join([verdict.held.ljust(self._rule_bytes, b"\0") for verdict in verdicts])
        words = np.frombuffer(held, dtype=np.uint64).reshape(len(verdicts), -1)
        gain, gain_rows = self._gain, channels
        if self._weighing is not None:
            gain, gain_rows = self._weighing.gains(words, verdicts, channels), np.arange(len(verdicts))
        scores: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]] = _score(
            mean,
            sd,
            words,
            self._masks,
            self._in_channel,
            gain,
            gain_rows,
            self._costs if prices is None else self._costs + prices,
            np.zeros(len(verdicts)) if surcharges is None else surcharges,
            self.contact,
            self._bounds,
            self._starts_ms,
            self._ends_ms,
            channels,
            times_ms,
            strength,
            self._silence,
        )
        return scores

    def held(self, mean: NDArray[np.float32]) -> NDArray[np.float64]:
        """Estimates (…, offers) as `score` counts them: within their bounds."""
        found: NDArray[np.float64] = np.clip(mean.astype(np.float64), *self._bounds.T)
        return found


@compiled(
    FLOATS32_2D,
    FLOATS32_2D,
    _WORDS,
    _WORDS,
    BOOLS_2D,
    FLOATS_2D,
    INTS,
    FLOATS_2D,
    _FLOATS,
    _FLOATS,
    FLOATS_2D,
    INTS,
    INTS,
    INTS,
    INTS,
    FLOAT,
    types.boolean,
)
def _score(
    mean: Any,
    sd: Any,
    words: Any,
    masks: Any,
    in_channel: Any,
    gain: Any,
    gain_rows: Any,
    costs: Any,
    surcharges: Any,
    contact: Any,
    bounds: Any,
    starts_ms: Any,
    ends_ms: Any,
    channels: Any,
    times_ms: Any,
    strength: float,
    silence: bool,
) -> Any:
    rows, offers = mean.shape
    score = np.zeros((rows, offers + 1))
    spread = np.zeros((rows, offers + 1))
    may = np.zeros((rows, offers + 1), dtype=np.bool_)
    any_eligible = np.zeros(rows, dtype=np.bool_)
    for row in range(rows):
        channel, now_ms = channels[row], times_ms[row]
        cost = costs[min(row, len(costs) - 1)]
        for offer in range(offers):
            worth = gain[gain_rows[row], offer]
            likely = np.float64(mean[row, offer])
            if likely < bounds[offer, 0]:  # as comparisons, so that what is no number stays none
                likely = bounds[offer, 0]
            elif likely > bounds[offer, 1]:
                likely = bounds[offer, 1]
            score[row, offer] = likely * worth - (cost[offer] + surcharges[row] * contact[offer])
            spread[row, offer] = sd[row, offer] * abs(worth) * strength
            eligible = in_channel[channel, offer] and starts_ms[offer] <= now_ms < ends_ms[offer]
            for word in range(masks.shape[1]):
                mask = masks[offer, word]
                eligible = eligible and (words[row, word] & mask) == mask
            may[row, offer] = eligible
            any_eligible[row] |= eligible
        may[row, offers] = silence
    return score, spread, may, any_eligible


def of_picks(
    picks: NDArray[np.int16],
    score: NDArray[np.float64],
    mean: NDArray[np.float32],
    sd: NDArray[np.float32],
    curve: NDArray[np.float64],
    plain: NDArray[np.bool_],
    factors: NDArray[np.float64] = _NO_FACTORS,
) -> NDArray[np.float64]:
    """(B, K, 4) score, mean, sd, shown of every pick (B, K); of silence and of what was not picked they mean nothing.

    `shown` is the mean as a probability: by the curve (models.calibration, empty if there is none) for offers that are
    `plain` (offers,), learnt by their acceptance alone; within 0 .. 1 for all. `factors` (offers,) multiply the odds of
    the curve (models.offercalibration); empty if there are none.
    """
    figures: NDArray[np.float64] = _of_picks(picks, score, mean, sd, common_part(curve), plain, factors)
    return figures


@compiled(_PICKS, FLOATS_2D, FLOATS32_2D, FLOATS32_2D, _FLOATS, _BOOLS, _FLOATS)
def _of_picks(picks: Any, score: Any, mean: Any, sd: Any, curve: Any, plain: Any, factors: Any) -> Any:
    rows, places = picks.shape
    offers, bins = mean.shape[1], len(curve) - 1
    found = np.zeros((rows, places, 4))
    for row in range(rows):
        for place in range(places):
            pick = picks[row, place]
            if 0 <= pick < offers:
                # As the record keeps it: an answer that is repeated says the same number.
                found[row, place, 0] = np.float32(score[row, pick])
                found[row, place, 1] = mean[row, pick]
                found[row, place, 2] = sd[row, pick]
                shown = min(max(np.float64(mean[row, pick]), 0.0), 1.0)
                if bins > 0 and plain[pick]:
                    # The knots are at (e / bins)²: which two are next to a mean needs no search.
                    e = min(int(np.sqrt(shown) * bins), bins - 1)
                    low, high = (e / bins) ** 2, ((e + 1) / bins) ** 2
                    shown = curve[e] + (shown - low) / (high - low) * (curve[e + 1] - curve[e])
                    if len(factors) and factors[pick] != 1.0:
                        odds = shown * factors[pick]
                        shown = odds / (1.0 - shown + odds)
                found[row, place, 3] = shown
    return found
