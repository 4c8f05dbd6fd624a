"""Offers of kind silence: nothing is offered, and something may be said about it, such as thanks.

They compete like all others, for what they are worth without any acceptance: P is 1 and sure. Nothing is waited for, so
their window ends at 0, no ledger holds them open and nothing is learnt of them. They are made at the first place or not
at all, and nothing beside them.
"""

from typing import Any

from numpy.typing import NDArray

from engine.config_schema import Config


class Silent:
    """The offers of kind silence of one configuration."""

    def __init__(self, config: Config) -> None:
        self.offers = tuple(at for at, offer in enumerate(config.offers) if offer.kind == "silence")
        self._columns = list(self.offers)

    def surely(self, mean: NDArray[Any], sd: NDArray[Any]) -> None:
        """Set what is estimated of them in `mean` and `sd` (B, offers), where they stand."""
        if self._columns:
            mean[:, self._columns] = 1.0
            sd[:, self._columns] = 0.0
