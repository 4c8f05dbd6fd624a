"""What goes into decisions and comes out of them: requests, states, a batch by column, each decision as a draft."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.found import NOTHING_FOUND, Begun, Resume
from engine.ladder import Rung
from engine.ledger import Glance
from engine.parameters import Quote
from engine.places import Places
from features import Offset

if TYPE_CHECKING:
    from engine.ledgers import Ledgers

NOT_DEGRADED: Final = 0
STATE_UNREADABLE: Final = 3
POLICY_UNAVAILABLE: Final = 4
"""Numbers of opportune.v1.DegradedReason."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
State = tuple[bytes | None, bytes | None]
"""(features, ledger) of a customer, None where unknown."""
Linked = Sequence[tuple[int, bytes]]
"""(partition, ledger) of the names linked to a customer."""


class Ask(NamedTuple):
    """One checked request."""

    customer: str
    channel: int
    placement: int
    facts: tuple[tuple[int, float], ...]
    """(column of the value matrix, value) of the facts given."""
    context: bytes
    """The facts as JSON, as the caller gave them."""
    limit: int
    time_ms: int
    language: str
    request_id: str
    request_hash: int
    resume: Resume | None = None
    """The open offer to go on with."""


class Pick(NamedTuple):
    """One offer of the slate."""

    offer: int
    propensity: float
    score: float
    shown: float
    """The estimated acceptance as a probability, calibrated."""
    window_end_ms: int
    explored: bool
    cold: bool
    rung: Rung
    """What the estimate rests on, see engine.ladder."""
    evidence: float
    """The number behind it: points or lessons."""


class Batch(NamedTuple):
    """B decisions by column, with room for K offers each: what compiled code writes answers from."""

    times_ms: Ints
    policy_version: int
    states: Ints
    """(B, 3) watermark, both parts, and the newest event in ms; zeros of whom nothing is known."""
    known: Bools
    degraded: Ints
    ledgers: "Ledgers"
    """Those that were decided with."""
    picks: NDArray[np.int16]
    propensities: Floats
    figures: Floats
    """(B, K, 4) score, mean, standard deviation, the probability that is shown."""
    explored: Bools
    places: Places


class Draft(NamedTuple):
    """A decision that is made and not yet durable."""

    ask: Ask
    batch: Batch
    row: int
    record: bytes
    ledger_expected: bytes
    ledger_head: bytes
    ledger_tail: bytes
    nothing: str = ""
    """Why there is nothing in the answer: the code of the reason."""
    arms: bytes = b""
    """Where the customer stands in experiments, as fields of a DecideResponse."""
    quotes: Sequence[Quote | None] = ()
    """What goes with each pick; empty if nothing goes with any."""
    begun: Mapping[tuple[Offset, int], Begun] = NOTHING_FOUND.begun
    """What is known of the open offers that were seen."""
    resumed: bool = False
    """Whether an open offer was resumed: nothing was drawn."""

    @property
    def picks(self) -> list[Pick]:
        """The slate."""
        batch, row = self.batch, self.row
        places = batch.places
        count = int(places.counts[row])
        columns = (
            batch.picks, batch.propensities, batch.figures, places.window_ends_ms, batch.explored, places.cold,
            places.rungs, places.evidence,
        )  # fmt: skip
        return [
            Pick(offer, propensity, score, shown, end_ms, explored, cold, Rung(rung), evidence)
            for offer, propensity, (score, _, _, shown), end_ms, explored, cold, rung, evidence in zip(
                *[column[row, :count].tolist() for column in columns], strict=True
            )
        ]

    @property
    def degraded(self) -> int:
        """A number of opportune.v1.DegradedReason."""
        return int(self.batch.degraded[self.row])

    @property
    def known(self) -> bool:
        """Whether there is a state of the customer."""
        return bool(self.batch.known[self.row])

    @property
    def seen(self) -> Glance:
        """What was seen of the ledger."""
        return self.batch.ledgers[self.row]


@dataclass(frozen=True, slots=True)
class Repeat:
    """A request whose id has been answered before: the decision is at `position`."""

    ask: Ask
    position: Offset
    seen: Glance
