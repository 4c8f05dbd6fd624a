"""One decision with its numbers: what the sentences are made from. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from engine.catalogue import Catalogue
from engine.experiment_arms import neutral_input
from engine.experiments import Standing
from engine.explain.contributions import POINTS, Decomposition, decompose, groups_of
from engine.explain.kept import Belief
from engine.holds import Hold
from engine.placements import PLACEMENT
from engine.record import Choice, DecisionRecord
from engine.rules import Verdict
from engine.whynot import Unmet, WhyNot
from models.offercalibration import calibrated

_AGREES = 1e-5
"""Float32 sums differ by so much of the size of their terms, whatever the order of the inputs."""


@dataclass(frozen=True)
class Case:
    """A decision, the configuration it was made with, and the belief that explains it, if any is kept."""

    catalogue: Catalogue
    record: DecisionRecord
    belief: Belief | None
    with_points: Mapping[int, float] = field(default_factory=dict)
    """Estimates of offers with points, see engine.explain.standing."""
    points_version: int | None = None
    """The policy that they are of."""

    @cached_property
    def readable(self) -> bool:
        """Whether the columns of the record mean what the configuration says now: a release may read it otherwise."""
        return (
            self.record.transform_version == self.catalogue.transform.version
            and len(self.record.x) == self.catalogue.transform.dimension
        )

    @cached_property
    def x(self) -> np.ndarray[tuple[int], np.dtype[np.int8]]:
        """(d,) the vector decided with."""
        return np.frombuffer(self.record.x, np.int8)

    @cached_property
    def unmet(self) -> list[list[Unmet]]:
        """By offer: what kept it away."""
        why_not = WhyNot(self.catalogue, self.record)
        return [why_not.of(at) for at in range(len(self.catalogue.offers))]

    @cached_property
    def standing(self) -> Standing:
        """Where the customer stood in experiments."""
        return self.catalogue.experiments.of(self.record.customer, self.record.time_ms)

    @cached_property
    def scored(self) -> np.ndarray[tuple[int], np.dtype[np.int8]]:
        """(d,) the vector that was scored: the customer's, or the average one where that is the arm."""
        if self.standing.model or self.belief is None:
            return self.x
        average = () if self.belief.average is None else self.belief.average
        return neutral_input(len(self.x), np.array(average, np.float64))

    @cached_property
    def held(self) -> list[list[Hold]]:
        """By offer: what kept it back although its rules held, or left no room for it beside what was chosen."""
        holds, basis = self.catalogue.holds, self.record.basis
        found: list[list[Hold]] = [[] for _ in self.catalogue.offers]
        if basis is None:
            return found
        back = holds.kept_back(basis.holds)
        if back is not None:
            for at in np.flatnonzero(back).tolist():
                keeping = holds.keeping(basis.holds, at)
                found[at] = [hold for hold in keeping if holds.layer(hold) != PLACEMENT]
        for at, hold in holds.crowded(basis.holds, list(self.chosen), self.record.channel):
            if not found[at]:
                found[at] = [hold]
        return found

    @cached_property
    def chosen(self) -> Mapping[int, tuple[int, Choice]]:
        """(rank, choice) by index of the offer, in the order of the ranks."""
        index = self.catalogue.index_of_key
        return {index[choice.key]: (rank, choice) for rank, choice in enumerate(self.record.slate, 1)}

    @cached_property
    def parts(self) -> Decomposition | None:
        """The estimates taken apart, over the offers of the belief; None where no belief fits."""
        belief = self.belief
        if belief is None or not self.readable or belief.transform_version != self.record.transform_version:
            return None
        columns = len(belief.weights)  # without the waves, where they are left out
        if columns > len(self.x):
            return None
        names = {column.name for column in self.catalogue.columns}
        transform = self.catalogue.transform
        plain = transform.dimension - transform.waves
        groups = groups_of(transform.names[:plain], names)
        average = None if belief.average is None else belief.average[:columns]
        waving = columns > plain
        return decompose(
            self.scored[:columns], belief.weights, average, groups, transform.angles() if waving else None
        )

    @cached_property
    def column_of(self) -> Mapping[str, int]:
        """Column of each offer in `parts`; an offer may be missing that the policy does not have."""
        return {} if self.parts is None or self.belief is None else {o: at for at, o in enumerate(self.belief.offers)}

    def estimate(self, at: int) -> float | None:
        """The estimated acceptance of an offer: of the record if it was chosen, else by the belief."""
        if at in self.chosen:
            return self.chosen[at][1].mean
        if at in self.catalogue.silent.offers:
            return 1.0
        if at in self.with_points:
            return self.with_points[at]
        return self.believed(at)

    def shown(self, at: int) -> float | None:
        """The estimate as a probability that can be read: what such estimates came to."""
        estimate = self.estimate(at)
        if estimate is None:
            return None
        curve = np.array(() if self.belief is None or not self.catalogue.plain[at] else self.belief.curve)
        return calibrated(curve, estimate, self.catalogue.offer_keys[at])

    def believed(self, at: int) -> float | None:
        """What the belief alone estimates, without points."""
        column = self.column_of.get(self.catalogue.offer_ids[at])
        return None if column is None or self.parts is None else float(self.parts.estimate[column])

    def worth(self, at: int) -> float | None:
        """What an offer was expected to be worth: of the record if it was chosen, else by the belief."""
        if at in self.chosen:
            return self.chosen[at][1].score
        estimate = self.estimate(at)
        return None if estimate is None else self.worth_of(at, estimate)

    def worth_of(self, at: int, estimate: float) -> float:
        """What an offer is worth by an estimate, which is held within its bounds, as in arbitration."""
        return float(np.clip(estimate, *self.catalogue.estimate_bounds[at])) * self.gain(at) + self.added(at)

    def gain(self, at: int) -> float:
        """What one sure acceptance adds: value × weight − risk."""
        return float(self._weighed[0][at])

    def weight(self, at: int) -> float:
        """All weights of an offer together."""
        return float(self._weighed[1][at])

    @cached_property
    def verdict(self) -> Verdict:
        """Which rules held."""
        return Verdict(self.record.rules_held, self.record.rules_failed)

    @cached_property
    def _weighed(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        weighing, channel = self.catalogue.weighing, self.record.channel
        if self.standing.levers:
            return weighing.row(self.verdict, channel)
        [gains] = weighing.unweighted([self.verdict], np.array([channel], np.int64))
        return gains, np.ones(len(gains))

    def added(self, at: int) -> float:
        """What an offer is worth whether it is accepted or not."""
        cost = float(self.catalogue.costs[at]) + self.shadow_price(at) + self.surcharge(at)
        return self.information(at) - cost

    def information(self, at: int) -> float:
        """What knowing the answer to a question adds."""
        return 0.0 if self.record.basis is None else dict(self.record.basis.values).get(at, 0.0)

    def shadow_price(self, at: int) -> float:
        """What the budgets that an offer draws on cost then."""
        return 0.0 if self.record.basis is None else dict(self.record.basis.prices).get(at, 0.0)

    def surcharge(self, at: int) -> float:
        """What contacts had cost then; silence is none."""
        silent = at in self.catalogue.silent.offers
        return 0.0 if silent or self.record.basis is None else self.record.basis.surcharge

    def base_rate(self, at: int) -> float | None:
        """What the acceptance of an offer is estimated at for the average customer; of silence it is sure."""
        if at in self.catalogue.silent.offers:
            return None if self.parts is None else 1.0
        column = self.column_of.get(self.catalogue.offer_ids[at])
        return None if column is None or self.parts is None else float(self.parts.base[column])

    def contributions(self, at: int) -> list[tuple[str, float]]:
        """(input, what it added to the estimate), the largest first; those that added nothing are left out."""
        column = self.column_of.get(self.catalogue.offer_ids[at])
        if column is None or self.parts is None or at in self.catalogue.silent.offers:
            return []
        own = self.parts.parts[:, column]
        points = self._of_points(at)
        names, values = self.parts.names, own.tolist()
        found = [(names[group], values[group]) for group in np.argsort(-np.abs(own), kind="stable").tolist()]
        told = [(name, value) for name, value in found if value]
        return sorted([*told, (POINTS, points)], key=lambda part: -abs(part[1])) if points else told

    def _of_points(self, at: int) -> float:
        """What points moved an estimate by; 0 for an offer that has none."""
        estimate, believed = self.estimate(at), self.believed(at)
        if at not in self.with_points or estimate is None or believed is None:
            return 0.0
        return estimate - believed

    @cached_property
    def unknown_offers(self) -> list[str]:
        """Offers of which the belief says nothing."""
        return [] if self.parts is None else [o for o in self.catalogue.offer_ids if o not in self.column_of]

    @cached_property
    def agrees(self) -> bool:
        """Whether the belief gives the estimates of the record: a check on what was kept."""
        if self.parts is None or self.belief is None:
            return False
        for at, (_, choice) in self.chosen.items():
            column = self.column_of.get(self.catalogue.offer_ids[at])
            if column is None:
                return False
            if at in self.catalogue.ladder.place or at in self.catalogue.silent.offers:
                continue  # weights alone do not give it
            own = self.belief.weights[:, column]
            size = float(np.abs(self.scored[: len(own)] * own).sum())
            if abs(float(self.parts.estimate[column]) - choice.mean) > _AGREES * (size + 0.01):
                return False
        return True

    @cached_property
    def points_approximate(self) -> bool:
        """Whether points of an offer that was not chosen are weighed by another policy than decided."""
        rest = [at for at in self.catalogue.ladder.offers if at not in self.chosen]
        return self.standing.model and bool(rest) and self.points_version != self.record.policy_version

    @cached_property
    def exact(self) -> bool:
        """Whether the belief is the one that decided."""
        same = self.belief is not None and self.belief.version == self.record.policy_version
        return same and not self.points_approximate and self.agrees and not self.unknown_offers

    def better(self, at: int) -> tuple[int | None, float] | None:
        """(offer, how much more it was expected to be worth) of the best that a choice was preferred to.

        None if nothing left at its rank was expected to be worth more; the offer is None where silence was.
        """
        rank, choice = self.chosen[at]
        before = {other for other, (place, _) in self.chosen.items() if place <= rank}
        left: list[tuple[float, int | None]] = [(0.0, None)] if self.catalogue.config.silence else []
        for other, unmet in enumerate(self.unmet):
            worth = None if unmet or self.held[other] or other in before else self.worth(other)
            if worth is not None:
                left.append((worth, other))
        if not left:
            return None
        worth, other_or_none = max(left, key=lambda pair: pair[0])
        more = worth - choice.score
        # The record keeps the score as float32.
        return (other_or_none, more) if more > _AGREES * (abs(worth) + abs(choice.score)) else None
