"""What the arms of experiments change in a batch of decisions. Pure.

    no_model          estimates are those for the average customer: what each offer comes to over everybody
    no_levers         the score is P × (V − risk) − cost
    greedy            the best offer for sure
    eligibility_only  every offer that may be made is equally likely, silence only where none may

Control groups are holds (engine.experiments). Each arm draws from a distribution that is known, so its propensities are
as exact as the champion's, and its lessons as good. On whom `exploration.never` forbids to try anything, or whose state
cannot be read, an arm that draws evenly gives the best offer, too: the gate is closed.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine.experiments import Experiments, Standing
from models import STEPS, Caps, Policy, Slates, choose

Floats = NDArray[np.float64]


class Neutral:
    """What a policy expects of the average customer; worked out once a policy."""

    def __init__(self) -> None:
        self._of: tuple[Policy, Floats, NDArray[np.float32], NDArray[np.float32]] | None = None

    def of(self, policy: Policy, average: Floats) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(offers,) mean and standard deviation. `average` (d,) is the mean of x; empty: the middle of all ranges."""
        known = self._of
        if known is None or known[0] is not policy or known[1] is not average:
            mean, sd = policy.score(neutral_input(policy.dimension, average)[None])
            known = self._of = policy, average, mean[0].copy(), sd[0].copy()
        return known[2], known[3]


def neutral_input(dimension: int, average: Floats) -> NDArray[np.int8]:
    """The average customer as an input of the model, in whole steps.

    >>> neutral_input(3, np.array([127.0, 50.4, -3.6, 1.0])).tolist(), neutral_input(2, np.zeros(0)).tolist()
    ([127, 50, -4], [127, 0])
    """
    x = np.zeros(dimension, np.int8)
    x[0] = STEPS
    known = np.round(average[:dimension]).astype(np.int8)
    x[: len(known)] = known
    return x


class BatchArms:
    """The arms of a batch of B decisions, of whom at least one is decided differently."""

    def __init__(self, standings: Sequence[Standing]) -> None:
        self.standings: Final = standings
        self._impersonal = _rows([not one.model for one in standings])
        self._without_levers = _rows([not one.levers for one in standings])
        self._uniform = _rows([one.uniform for one in standings])
        self._greedy = _rows([one.greedy and not one.uniform for one in standings])

    def estimates(
        self,
        neutral: Neutral,
        policy: Policy,
        average: Floats,
        mean: NDArray[np.float32],
        sd: NDArray[np.float32],
    ) -> None:
        """Replace estimates (B, offers) of arms without a model where they stand."""
        if len(self._impersonal):
            mean[self._impersonal], sd[self._impersonal] = neutral.of(policy, average)

    def scores(
        self,
        score: Floats,
        spread: Floats,
        mean: Floats,
        sd: NDArray[np.float32],
        gains: Floats,
        costs: Floats,
        strength: float,
    ) -> None:
        """Replace scores (B, offers and silence) of arms without levers.

        `mean` (B, offers) are held within their bounds, `gains` (B, offers) are value − risk, `costs` (B, offers) are
        with shadow prices and surcharges.
        """
        rows = self._without_levers
        if len(rows):
            score[rows, :-1] = mean[rows] * gains[rows] - costs[rows]
            spread[rows, :-1] = sd[rows].astype(np.float64) * np.abs(gains[rows]) * strength

    def gates(self, gates: Floats | None, closed: NDArray[np.bool_]) -> Floats:
        """The gates, which budgets of exploration do not close for arms that draw evenly; `closed` (B,) stays so."""
        gates = np.ones(len(self.standings)) if gates is None else gates
        gates[self._uniform] = np.where(closed[self._uniform], 0.0, 1.0)
        return gates

    def choose(
        self,
        score: Floats,
        spread: Floats,
        may: NDArray[np.bool_],
        limits: NDArray[np.int64],
        uniforms: Floats,
        *,
        gates: Floats,
        governed: bool,
        silence: int | None,
        candidates_max: int,
        caps: Caps | None,
        **champion: Any,
    ) -> Slates:
        """models.choose, each row by the rules of its arm; rows do not depend on who else is in the batch.

        `governed` says whether the gates (B,) count for the champion, too.
        """
        slates = Slates(
            np.full(uniforms.shape, -1, np.int16), np.zeros(uniforms.shape), np.zeros(uniforms.shape, np.bool_)
        )
        rest = np.ones(len(limits), np.bool_)
        rest[self._greedy] = rest[self._uniform] = False

        def draw(rows: NDArray[np.intp], allowed: NDArray[np.bool_], **how: Any) -> None:
            if not len(rows):
                return
            args = score[rows], spread[rows], allowed, limits[rows], uniforms[rows]
            drawn = choose(*args, silence=silence, candidates_max=candidates_max, caps=caps, **how)
            slates.picks[rows], slates.propensities[rows], slates.explored[rows] = drawn

        others = np.flatnonzero(rest)
        draw(others, may[others], gates=gates[others] if governed else None, **champion)
        draw(self._greedy, may[self._greedy], method="greedy", floor=0.0)
        evenly = may[self._uniform]
        evenly[:, -1] &= ~evenly[:, :-1].any(axis=1)
        draw(self._uniform, evenly, method="greedy", floor=1.0, gates=gates[self._uniform])
        return slates


def arms_of(experiments: Experiments, customers: Sequence[str], times_ms: Sequence[int]) -> list[Standing] | None:
    """Where each of a batch stands; None: the configuration has no experiments."""
    if not len(experiments):
        return None
    return [experiments.of(customer, time_ms) for customer, time_ms in zip(customers, times_ms, strict=True)]


def batch_of(standings: Sequence[Standing] | None) -> BatchArms | None:
    """The arms of a batch; None if all are decided as without experiments."""
    return None if standings is None or all(one.plain for one in standings) else BatchArms(standings)


def _rows(which: Sequence[bool]) -> NDArray[np.intp]:
    return np.flatnonzero(np.array(which))
