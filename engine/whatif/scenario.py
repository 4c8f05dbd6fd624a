"""One configuration, deciding what another one was asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.choosing import chosen
from engine.errors import InvalidArgument
from engine.holds import Hold
from engine.ladder import held_of
from engine.policyfacts import PolicyFacts
from engine.whatif.period import Decisions
from models import Policy

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False, slots=True)
class Decided:
    """What a scenario does in n decisions, K places each."""

    picks: NDArray[np.int16]
    """(n, K) offers of the scenario, padded with -1; silence is padding too."""
    worth: Floats
    """(n,) expected value of the offers shown, less what it costs to make them."""


class Scenario:
    """A configuration and the model that estimates for it."""

    def __init__(self, name: str, catalogue: Catalogue, policy: Policy, facts: PolicyFacts) -> None:
        """`policy` has the offers of the catalogue, in its order."""
        assert policy.offers == catalogue.offer_ids
        self.name = name
        self.catalogue = catalogue
        self._policy = policy
        self._facts = facts
        self._bridges: dict[str, Bridge] = {}

    def bridge(self, made_with: Catalogue) -> "Bridge":
        """What of another configuration is what here."""
        found = self._bridges.get(made_with.version)
        if found is None:
            found = self._bridges[made_with.version] = Bridge(made_with, self.catalogue)
        return found

    def decide(self, asked: Decisions) -> Decided:
        """The slates of decisions all of whose channels it has."""
        bridge, catalogue = self.bridge(asked.made_with), self.catalogue
        values = bridge.values(asked.values)
        x = catalogue.transform.apply(values)
        verdicts = catalogue.rule_batch.evaluate(values)
        mean, sd = self._policy.score(x)
        if catalogue.ladder.offers:
            catalogue.ladder.climb(x, mean, sd, held_of(verdicts), self._facts)
        slates = chosen(
            catalogue,
            mean,
            sd,
            verdicts,
            bridge.channels[asked.channels],
            asked.times_ms,
            asked.limits,
            asked.seeds,
            held=bridge.holds(asked.holds),
            surcharges=asked.surcharges,
            prices=bridge.prices(asked.prices),
            gates=asked.gates,
        ).slates
        offers = len(catalogue.offers)
        picks = np.where(slates.picks == offers, np.int16(-1), slates.picks)
        at = np.maximum(picks, 0).astype(np.intp)
        each = np.clip(np.take_along_axis(mean, at, 1), 0.0, 1.0) * self._declared[at] - catalogue.costs[at]
        return Decided(picks, np.where(picks >= 0, each, 0.0).sum(axis=1))

    @cached_property
    def _declared(self) -> Floats:
        """(offers,) the declared value of an acceptance: without levers and context weights, which are wishes."""
        return np.array([offer.value for offer in self.catalogue.offers])


class Bridge:
    """From what a decision of one configuration saw to what another one would have seen."""

    def __init__(self, made_with: Catalogue, catalogue: Catalogue) -> None:
        self._same = made_with.version == catalogue.version
        index = catalogue.channel_index
        self.channels: Ints = np.array([index.get(channel.id, -1) for channel in made_with.config.channels], np.int64)
        """Its number here of each channel there; -1: it is gone."""
        there = {column.name: at for at, column in enumerate(made_with.columns)}
        self._from = np.array([there.get(column.name, -1) for column in catalogue.columns], np.int64)
        self._categories: list[tuple[int, Floats]] = []
        for at, column in enumerate(catalogue.columns):
            if self._from[at] < 0:
                continue
            other = made_with.columns[self._from[at]]
            if other.kind != column.kind:
                raise InvalidArgument(
                    f"{column.name} is a {other.kind} in the configuration of the log and a {column.kind} in "
                    f"{catalogue.config.name}: what it was cannot be told"
                )
            if other.categories != column.categories:
                numbers = [column.categories.index(c) if c in column.categories else np.nan for c in other.categories]
                self._categories.append((at, np.array([*numbers, np.nan])))
        self._defaults = np.array([column.default for column in catalogue.columns])
        self.unseen = [column.name for column, at in zip(catalogue.columns, self._from, strict=True) if at < 0]
        """Names that the log knows nothing of: they have their defaults."""
        self._limits = {at: catalogue.holds.names.index(name) for at, name in enumerate(made_with.holds.names)
                        if name in catalogue.holds.names}  # fmt: skip
        self.lifted = [name for name in made_with.holds.names if name not in catalogue.holds.names]
        """Limits that the other one does not have: what they kept back is free."""
        self.untold = [name for name in catalogue.holds.names if name not in made_with.holds.names]
        """Limits that the log knows nothing of: what they would have kept back is not known."""
        offers = {offer: at for at, offer in enumerate(made_with.offer_ids)}
        self._offers = np.array([offers.get(offer, -1) for offer in catalogue.offer_ids], np.int64)

    def values(self, values: Floats) -> Floats:
        """(n, columns) the value matrix of the other configuration."""
        if self._same:
            return values
        found: Floats = np.ascontiguousarray(values[:, self._from])
        missing = self._from < 0
        found[:, missing] = self._defaults[missing]
        for at, numbers in self._categories:
            column = found[:, at]
            found[:, at] = numbers[np.where(np.isnan(column), len(numbers) - 1, column).astype(np.int64)]
        return found

    def holds(self, held: Sequence[tuple[Hold, ...]]) -> Sequence[tuple[Hold, ...]]:
        """What kept offers back, as far as the other configuration has these limits."""
        if self._same or not any(held):
            return held
        return [
            tuple([Hold(self._limits[limit], scope) for limit, scope in some if limit in self._limits]) for some in held
        ]

    def prices(self, prices: Floats) -> Floats:
        """(n, offers) shadow prices by the numbers of the other configuration."""
        if self._same:
            return prices
        padded = np.concatenate([prices, np.zeros((len(prices), 1))], axis=1)
        found: Floats = np.ascontiguousarray(padded[:, self._offers])
        return found
