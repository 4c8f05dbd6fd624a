"""Governed exploration, pure: by which method, on whom, how often and with which offers.

A slate explores with the chance of its gate, else it is the best one for sure; see `models.exploration`. The gate is

    share of the channel, or 0: where a rule of `never` holds, where the state or the ledger cannot be read,
                             where the customer has had as many answers that explored as the budget has

and an offer other than the best keeps its own share of the chance that the method gives it. The propensities are those
of all this together.

**On whom never.** A rule that cannot be evaluated counts as holding: of whom it is not known, nothing is tried on. The
bits of these rules stand in the record behind those of the offers.

**The budget of a customer** is kept in the ledger: seed and time of each answer that explored. The ledger is read
and written in one compare-and-set with the decision, so it is exact, whichever servers a customer comes to at once. A
state of the customer counts once: until it changes the dice stay, so what was tried is shown again, on every channel;
it does not become something else because the budget is used up. The time of an answer shown again is the latest one.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.config_schema import Config
from engine.ledger import Glance, Trial
from engine.rules import Verdict


class Explorer:
    """What a configuration says of exploration."""

    def __init__(self, config: Config, never: int) -> None:
        """`never` has the bits of the rules of `exploration.never`."""
        exploration = config.exploration
        budget = exploration.budget
        tuned = exploration.strength == "tuned"
        self.grid: tuple[float, ...] = exploration.tuning.strengths if tuned else ()
        """The strengths among which evidence chooses; empty: it is given."""
        self.strength = 1.0 if exploration.strength == "tuned" else exploration.strength
        """Scales the uncertainty, or epsilon; 0 explores nothing but the floor. 1 where it is tuned: see `widen`."""
        self._floor = exploration.floor if exploration.method in ("thompson", "inverse_gap") else 0.0
        self._epsilon = exploration.epsilon if exploration.method == "epsilon_greedy" else 0.0
        # In standard deviations as they are passed, which the strength has scaled.
        optimism = exploration.optimism / self.strength if exploration.optimism else 0.0
        self.race: dict[str, Any] = {"candidates_max": exploration.candidates, "optimism": optimism}
        """Arguments of `models.choose`, and of what goes with it, that say who is in the race and how it is held."""
        self.method = "greedy" if exploration.method == "epsilon_greedy" else exploration.method
        """As models.exploration knows it: epsilon-greedy is greedy with a floor."""
        kept = [budget.offers.get(offer.id, 1.0) if offer.explore else 0.0 for offer in config.offers]
        self.keeps = None if all(share == 1.0 for share in kept) else np.array([*kept, 1.0])
        """(offers and silence,) what each keeps of its chance where it is not the best; None: everything."""
        shares = [budget.share * budget.channels.get(channel.id, 1.0) for channel in config.channels]
        self._shares = np.array(shares)
        self._never = never
        self._per_customer = budget.customer
        self.open = not never and budget.customer is None and all(share == 1.0 for share in shares)
        """Whether everybody may be explored on, always."""

    def widen(self, sd: NDArray[np.float32], strength: float) -> None:
        """Scale standard deviations (B, n) where they stand by a tuned strength; anything but one of the grid counts as
        the largest. The record has them as they were explored with, so that it needs no strength beside them.
        """
        if self.grid:
            sd *= np.float32(strength if strength in self.grid else self.grid[-1])

    def floor(self, strength: float) -> float:
        """Share of the draws that goes to the eligible evenly."""
        return min(1.0, self._epsilon * strength) if self._epsilon else self._floor

    def gates(
        self,
        channels: NDArray[np.int64],
        verdicts: Sequence[Verdict],
        seeds: Sequence[int],
        glances: Sequence[Glance],
        times_ms: NDArray[np.int64],
        sound: Sequence[bool],
    ) -> NDArray[np.float64] | None:
        """(B,) the chance of each slate to explore; None: all may. `sound` says whose state and ledger were read."""
        if self.open:
            return None
        gates: NDArray[np.float64] = self._shares[channels]
        never, customer = self._never, self._per_customer
        for at, verdict in enumerate(verdicts):
            if not sound[at] or (never and never & _bits(verdict)):
                gates[at] = 0.0
            elif customer is not None:
                others = [trial for trial in self._recent(glances[at], int(times_ms[at])) if trial.seed != seeds[at]]
                if len(others) >= customer.answers:
                    gates[at] = 0.0
        return gates

    def closed(self, verdicts: Sequence[Verdict], sound: Sequence[bool]) -> NDArray[np.bool_]:
        """(B,) on whom nothing may be tried, whatever the budgets say."""
        never = self._never
        return np.array([not sound[at] or bool(never and never & _bits(one)) for at, one in enumerate(verdicts)])

    def trials(
        self,
        explored: NDArray[np.bool_],
        seeds: Sequence[int],
        glances: Sequence[Glance],
        times_ms: NDArray[np.int64],
    ) -> list[tuple[Trial, ...]]:
        """What each ledger is to remember after the slates of which `explored` (B, K) tells."""
        if self._per_customer is None:
            return [()] * len(seeds)
        kept: list[tuple[Trial, ...]] = []
        tried: list[bool] = np.any(explored, axis=1).tolist()
        for at, tries in enumerate(tried):
            seen, seed, time_ms = glances[at], seeds[at], int(times_ms[at])
            recent = self._recent(seen, time_ms)
            if tries:
                others = [trial for trial in recent if trial.seed != seed]
                recent = [*others, Trial(seed, _not_before(seen, time_ms))]
            kept.append(tuple(recent))
        return kept

    def _recent(self, seen: Glance, time_ms: int) -> Sequence[Trial]:
        """The answers that explored and still count."""
        if not seen.explored:
            return ()
        assert self._per_customer is not None
        start_ms = _not_before(seen, time_ms) - self._per_customer.within
        return [trial for trial in seen.explored if trial.time_ms > start_ms]


def _not_before(seen: Glance, time_ms: int) -> int:
    """The clock of a budget does not go back: a call that is dated earlier counts as of now."""
    return max([time_ms, *(trial.time_ms for trial in seen.explored)])


def _bits(verdict: Verdict) -> int:
    return int.from_bytes(verdict.held, "little") | int.from_bytes(verdict.failed, "little")
