"""Challengers that serve: whose decisions rest on the beliefs of a challenger and not on those of the champion. Pure.

    u = keyed hash (name of the challenger, customer) in 0 .. 1      served by the first one with u < its share

The share of a later one is taken of those whom no earlier one serves, so that all shares are as declared. The hash
knows neither channel nor time: whoever is served by a challenger is served by it everywhere, for as long as it has its
share, and a share that grows keeps whom it had. Who is in a control group or in an arm of an experiment that decides
otherwise stays with that.

Everything else of a decision is as it is: rules, limits, points, exploration, dice. The record has the estimates that
it was made with, so its propensities are exact, what is learnt from it is as good, and it is made again from it alone.
Until the learner has told a challenger's beliefs, the champion serves its share.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.config_schema import Config
from engine.experiments import Experiments, key_of_hash, uniform
from models import Policy

_FIELD: Final = "@{name}/"
"""Begins the names of its beliefs on the policy board; no id of an offer begins so."""


class Sharing:
    """Who is served by which challenger of a configuration."""

    def __init__(self, config: Config, experiments: Experiments) -> None:
        serving = [one for one in config.challengers if one.serves > 0.0]
        self.names: Final = tuple(one.name for one in serving)
        self._experiments = experiments
        self._spans: list[tuple[str, bytes, float]] = []
        left = 1.0
        for one in serving:
            self._spans.append((one.name, key_of_hash("challenger", one.name), one.serves / left))
            left -= one.serves

    def served_by(self, customer: str, time_ms: int) -> str:
        """The challenger that serves a customer; "" where it is the champion."""
        if not self._spans:
            return ""
        name = customer.encode()
        found = next((one for one, key, share in self._spans if uniform(key, name) < share), "")
        if found:
            standing = self._experiments.of(customer, time_ms)
            if standing.controls or not standing.plain:
                return ""
        return found

    def serve(
        self,
        customers: Sequence[str],
        times_ms: Sequence[int],
        x: NDArray[np.int8],
        mean: NDArray[np.float32],
        sd: NDArray[np.float32],
        rivals: Mapping[str, Policy],
    ) -> None:
        """Put the estimates of challengers in the place of the champion's, (B, n), for whom they serve."""
        names = [self.served_by(*one) for one in zip(customers, times_ms, strict=True)]
        for name in set(names) & rivals.keys():
            rows = [at for at, one in enumerate(names) if one == name]
            mean[rows], sd[rows] = rivals[name].score(np.ascontiguousarray(x[rows]))

    def renewed(self, rivals: Mapping[str, Policy], prior: Policy, fields: Mapping[str, bytes]) -> dict[str, Policy]:
        """The policies of challengers after fields of the policy board were read; `prior` is what one begins with.

        Raises CheckpointError for a belief that is damaged.
        """
        found = {name: rivals[name] for name in self.names if name in rivals}
        for name in self.names:
            own = _FIELD.format(name=name)
            beliefs = {field.removeprefix(own): data for field, data in fields.items() if field.startswith(own)}
            if beliefs:
                found[name] = found.get(name, prior).replaced(beliefs, 1)
        return found


def fields_of(name: str, beliefs: Mapping[str, bytes]) -> dict[str, bytes]:
    """A challenger's beliefs as fields of the policy board."""
    return {f"{_FIELD.format(name=name)}{offer}": data for offer, data in beliefs.items()}
