"""One configuration, deciding what another one was asked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.bridge import Bridge
from engine.catalogue import Catalogue
from engine.choosing import drawn, weighed
from engine.experiment_arms import arms_of, batch_of
from engine.experiments import Standing
from engine.holds import Situation
from engine.ladder import held_of
from engine.limits import BUDGET_ROUNDS_BATCH_MAX
from engine.policyfacts import PolicyFacts
from engine.rules import Verdict
from engine.whatif.period import Decisions
from engine.whatif.turns import Turn
from engine.whatif.walk import Walk
from models import Policy

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]
Picks = NDArray[np.int16]
Steps = NDArray[np.int8]


@dataclass(frozen=True, eq=False, slots=True)
class Decided:
    """What a scenario does in n decisions, K places each."""

    picks: NDArray[np.int16]
    """(n, K) offers of the scenario, padded with -1; silence is padding too."""
    worth: Floats
    """(n,) expected value of the offers shown, less what it costs to make them."""


class Estimates:
    """What policies expect in one batch: scenarios of the same policy with the same inputs need it once."""

    def __init__(self) -> None:
        self._known: list[tuple[Policy, Steps, Floats32, Floats32]] = []

    def of(self, policy: Policy, x: Steps) -> tuple[Floats32, Floats32]:
        """(mean, sd) of every offer, each (n, offers), the caller's own to change."""
        for other, inputs, mean, sd in self._known:
            if other is policy and np.array_equal(inputs, x):
                return mean.copy(), sd.copy()
        mean, sd = policy.score(x)
        self._known.append((policy, x, mean, sd))
        return mean.copy(), sd.copy()


class _Ready(NamedTuple):
    """Of n decisions, before limits."""

    mean: Floats32
    sd: Floats32
    verdicts: list[Verdict]
    channels: Ints
    standings: Sequence[Standing] | None

    def where(self, asked: Decisions) -> tuple[list[Verdict], Ints, list[int], Ints]:
        """What limits may depend on."""
        return self.verdicts, self.channels, asked.placements, asked.times_ms

    def only(self, rows: Ints) -> "_Ready":
        """Those of these rows."""
        at = rows.tolist()
        return _Ready(
            self.mean[rows],
            self.sd[rows],
            [self.verdicts[row] for row in at],
            self.channels[rows],
            None if self.standings is None else [self.standings[row] for row in at],
        )


class Scenario:
    """A configuration and the model that estimates for it."""

    def __init__(self, name: str, catalogue: Catalogue, policy: Policy, facts: PolicyFacts) -> None:
        """`policy` has the offers of the catalogue, in its order."""
        assert policy.offers == catalogue.offer_ids
        self.name = name
        self.catalogue = catalogue
        self.policy = policy
        self._facts = facts
        self._bridges: dict[str, Bridge] = {}
        self.walk: Walk | None = None
        """The contacts that it makes itself; None: what limits kept back is what they kept back in the log."""

    def bridge(self, made_with: Catalogue) -> Bridge:
        """What of another configuration is what here."""
        found = self._bridges.get(made_with.version)
        if found is None:
            found = self._bridges[made_with.version] = Bridge(made_with, self.catalogue)
        return found

    def decide(self, asked: Decisions, estimates: Estimates, turns: Sequence[Turn] = ()) -> Decided:
        """The slates of decisions all of whose channels it has; `estimates` are those of the batch.

        `turns` are the order in which everybody's contacts are walked, if they are.
        """
        ready = self._ready(asked, estimates)
        if self.walk is None:
            return self._drawn(asked, ready, asked.surcharges, Situation(asked.people, (), *ready.where(asked)))
        picks, worth = np.full((len(asked), int(asked.limits.max(initial=1))), -1, np.int16), np.zeros(len(asked))
        for turn in turns:
            rows = turn.rows
            if len(rows):
                self._take_turn(asked.only(rows), ready.only(rows), rows, picks, worth)
            self.walk.took_place(turn.facts)
            self.walk.heard(turn.heard)
        return Decided(picks, worth)

    def _ready(self, asked: Decisions, estimates: Estimates) -> "_Ready":
        """What is known before anybody's contacts are looked at."""
        bridge, catalogue = self.bridge(asked.made_with), self.catalogue
        values = bridge.values(asked.values)
        x = catalogue.transform.apply(np.ascontiguousarray(values[:, : len(catalogue.columns)]))
        verdicts = catalogue.rule_batch.evaluate(values)
        mean, sd = estimates.of(self.policy, x)
        if catalogue.ladder.offers:
            catalogue.ladder.climb(x, mean, sd, held_of(verdicts), self._facts)
        standings = arms_of(catalogue.experiments, asked.people, asked.times_ms.tolist())
        arms = batch_of(standings)
        if arms is not None:
            arms.estimates(catalogue.neutral, self.policy, self._facts.average, mean, sd)
        catalogue.silent.surely(mean, sd)
        catalogue.explorer.widen(sd, self._facts.strength)
        return _Ready(mean, sd, verdicts, bridge.channels[asked.channels], standings)

    def _take_turn(self, asked: Decisions, ready: "_Ready", places: Ints, picks: Picks, worth: Floats) -> None:
        """Decide a turn of a walk, into these places of `picks` and `worth`.

        Units of budgets are handed out as in engine.budgeting: slates are made first, and who comes too late is decided
        again, knowing what is left.
        """
        walk = self.walk
        assert walk is not None
        last = BUDGET_ROUNDS_BATCH_MAX + len(self.catalogue.budgets.names)
        for again in range(last + 1):
            short = walk.short(asked.times_ms) if again < last else walk.nothing_left(len(asked))
            look = walk.look(asked.people, ready.channels, asked.times_ms, asked.limits)
            surcharges = asked.surcharges
            if walk.walked.contacts:
                told = None if look is None else look.surcharges
                surcharges = np.zeros(len(asked)) if told is None else told
            situation = Situation(asked.people, (), *ready.where(asked), contacts=look, left=short)
            decided = self._drawn(asked, ready, surcharges, situation)
            late = walk.served(look, asked, ready.channels, decided.picks)
            picks[places] = -1
            picks[places, : decided.picks.shape[1]] = decided.picks
            worth[places] = decided.worth
            if not late:
                return
            rows = np.array([row for row, _ in late])
            asked, ready, places = asked.only(rows), ready.only(rows), places[rows]
            shorter = [fewer or limit for (_, fewer), limit in zip(late, asked.limits.tolist(), strict=True)]
            asked = replace(asked, limits=np.array(shorter, np.int64))
        raise AssertionError("what takes nothing always fits")

    def _drawn(self, asked: Decisions, ready: "_Ready", surcharges: Floats, situation: Situation) -> Decided:
        """The slates, with what limits keep back."""
        bridge, catalogue, walk = self.bridge(asked.made_with), self.catalogue, self.walk
        mean, sd, verdicts, channels, standings = ready
        arms = batch_of(standings)
        anew = catalogue.holds.anew(bridge.holds(asked.holds), situation, () if walk is None else walk.holders)
        held = anew if any(anew) else None
        weights = weighed(
            catalogue,
            mean,
            sd,
            verdicts,
            channels,
            asked.times_ms,
            held=held,
            surcharges=surcharges,
            prices=None if asked.prices is None else bridge.prices(asked.prices),
            arms=arms,
        )
        bridge.add_values(asked.answers, weights.score)
        slates, _ = drawn(
            catalogue, weights, channels, asked.limits, asked.seeds, held=held, gates=asked.gates, arms=arms
        )
        offers = len(catalogue.offers)
        picks = np.where(slates.picks == offers, np.int16(-1), slates.picks)
        at = np.maximum(picks, 0).astype(np.intp)
        each = np.clip(np.take_along_axis(mean, at, 1), 0.0, 1.0) * self._declared[at] - catalogue.costs[at]
        return Decided(picks, np.where(picks >= 0, each, 0.0).sum(axis=1))

    @cached_property
    def _declared(self) -> Floats:
        """(offers,) the declared value of an acceptance: without levers and context weights, which are wishes."""
        return np.array([offer.value for offer in self.catalogue.offers])
