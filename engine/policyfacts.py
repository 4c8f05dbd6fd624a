"""What the head of a policy says that deciding needs beside the beliefs themselves."""

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models import Policy


@dataclass(frozen=True, eq=False, slots=True)
class PolicyFacts:
    """Of one policy; a server swaps it together with the policy. k offers have points."""

    noise: NDArray[np.float64]
    """(k,) variance of targets around their mean; NaN: not told."""
    spread: NDArray[np.float64]
    """(k, d) variance of the weights before any lesson, in units of the noise; without columns: not told."""
    others: NDArray[np.float64]
    """(k, d) expected weights by the lessons of other offers."""
    curve: NDArray[np.float64]
    """What estimates come to, see models.calibration; empty: not told."""
    average: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """(d,) mean of x over the lessons; empty: not told."""
    strength: float = float("nan")
    """Of exploration, where it is tuned; NaN: not told."""
    rivals: Mapping[str, Policy] = field(default_factory=dict)
    """Policies of the challengers that serve (engine.sharing)."""

    @classmethod
    def none(cls, k: int) -> Self:
        """Of a policy that nobody has learnt."""
        return cls(np.full(k, np.nan), np.zeros((k, 0)), np.zeros((k, 0)), np.zeros(0))

    @classmethod
    def read(cls, head: Mapping[str, Any], offers: Sequence[str]) -> Self:
        """From the head of a snapshot; `offers` are those with points.

        What the head of an earlier release lacks counts as not told: then points stand as if nothing had been learnt.
        """
        facts = cls.none(len(offers))
        curve = np.array(head.get("calibration", []), dtype=np.float64)
        average = np.array(head.get("average") or [], dtype=np.float64)
        strength = float(head.get("tuning", {}).get("strength", "nan"))
        told = head.get("points")
        if told is None:
            return replace(facts, curve=curve, average=average, strength=strength)
        if "columns" not in told:  # of a policy kept by an earlier release: one spread for all offers
            told = _with_spread_by_offer(told)
        others, spread = (np.zeros((len(offers), told["columns"])) for _ in range(2))
        for k, offer in enumerate(offers):
            if offer in told["offers"]:
                facts.noise[k], *packed = told["offers"][offer]
                others[k], spread[k] = (np.frombuffer(b64decode(each), np.float32) for each in packed)
        return cls(facts.noise, spread, others, curve, average, strength)


def _with_spread_by_offer(told: Mapping[str, Any]) -> dict[str, Any]:
    spread = np.array(told["spread"], dtype=np.float64)
    offers = {offer: [*each, pack_weights(spread)] for offer, each in told["offers"].items()}
    return {"columns": len(spread), "offers": offers}


def pack_weights(weights: NDArray[np.float64]) -> str:
    """Expected weights, or their variances, as the head has them: a third of what numbers would take."""
    return b64encode(weights.astype("<f4").tobytes()).decode()
