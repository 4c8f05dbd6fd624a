"""Shadow prices of budgets, pure: what a unit is worth to those who come later.

A budget that would be gone by noon goes to whoever comes first. In the best plan for the whole day each unit has a
price λ, and an offer is made where it is worth more than the units it takes: that is the dual of the linear program

    max Σ score · x     subject to     Σ units · x ≤ budget,    0 ≤ x,  Σ over offers x ≤ 1

Nobody knows who will come, so λ follows the use: with u the share of the budget that is used and s the share of the
period's traffic that has been,

    λ = scale · (I + KP · (u − s)),    I ← I + KI · (u − s) · Δs     not below 0

and, where a minimum m of the budget is to be delivered, the same with the lag behind m · s as a bonus, at most `scale`
(the largest score that an offer of the budget has). I stays for the next period: tomorrow begins with today's price.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Final

import orjson

from engine.budgets_schema import Budget

KP: Final = 6.0
KI: Final = 12.0
PRICE_MAX: Final = 4.0
"""Of the scale: more than any offer is worth, levers included."""
BINS: Final = 48
"""Steps in which a period's traffic is remembered."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The price of one budget."""

    price: float = 0.0
    """In units of the score, for one unit of the budget."""
    rise: float = 0.0
    """I of the price, in scales."""
    push: float = 0.0
    """I of the bonus for the minimum, in scales."""
    share: float = 0.0
    """s when it was last computed."""

    def moved(
        self, *, scale: float, units: int, used: int, share: float, even: bool, minimum: int = 0
    ) -> "Pace":
        """The price when `used` of `units` are used and `share` of the traffic has been."""
        if units <= 0:
            return replace(self, price=0.0, share=share)
        step = max(0.0, share - self.share)  # a new period begins with no step
        use = used / units
        rise, push, price = 0.0, 0.0, 0.0
        if even:
            rise = min(max(self.rise + KI * (use - share) * step, 0.0), PRICE_MAX)
            price = min(max(rise + KP * (use - share), 0.0), PRICE_MAX)
        if minimum:
            lag = minimum / units * share - use
            push = min(max(self.push + KI * lag * step, 0.0), 1.0)
            price -= min(max(push + KP * lag, 0.0), 1.0)
        return Pace(price * scale, rise, push, share)


class Traffic:
    """How the decisions of a period spread over it: those of the period before, and evenly where there was none."""

    def __init__(self, before: Sequence[float] = (), counts: Sequence[float] = ()) -> None:
        self.before = list(before) if len(before) == BINS and sum(before) > 0 else [1.0] * BINS
        self.counts = list(counts) if len(counts) == BINS else [0.0] * BINS
        """Of this period."""
        even = sum(self.before) / BINS
        # A little of an even spread: in an hour in which nobody came yesterday somebody may come today.
        self._sums = list(accumulate((0.95 * count + 0.05 * even for count in self.before), initial=0.0))

    def next(self) -> "Traffic":
        """That of the next period."""
        return Traffic(self.counts if sum(self.counts) > 0 else self.before)

    def add(self, elapsed: float, decisions: float) -> None:
        """Count decisions made when this share of the period's time was over."""
        self.counts[min(int(elapsed * BINS), BINS - 1)] += decisions

    def share(self, elapsed: float) -> float:
        """Share of the traffic that comes before.

        >>> Traffic().share(0.25)
        0.25
        """
        at = min(max(elapsed, 0.0), 1.0) * BINS
        whole = min(int(at), BINS - 1)
        sums = self._sums
        return (sums[whole] + (at - whole) * (sums[whole + 1] - sums[whole])) / sums[-1]


@dataclass(frozen=True, slots=True)
class Paced:
    """What is known of one budget's pace. It is in the store: whoever computes the price next goes on with it."""

    account: str = ""
    pace: Pace = Pace()
    traffic: Traffic = field(default_factory=Traffic)

    @classmethod
    def unpack(cls, data: bytes | None) -> "Paced":
        """Read what `pack` wrote; None is nothing yet."""
        if data is None:
            return cls()
        found = orjson.loads(data)
        return cls(found["account"], Pace(*found["pace"]), Traffic(found["before"], found["counts"]))

    def pack(self) -> bytes:
        """The bytes that `unpack` reads."""
        pace, traffic = self.pace, self.traffic
        fields = {"account": self.account, "pace": [pace.price, pace.rise, pace.push, pace.share]}
        return orjson.dumps(fields | {"before": traffic.before, "counts": traffic.counts})

    def moved(
        self, period: tuple[str, int, int], now_ms: int, decisions: float, *, scale: float, budget: Budget, used: int
    ) -> "Paced":
        """As of now, after so many more decisions; `period` is (account, start, end) of the budget."""
        account, start_ms, end_ms = period
        same = account == self.account
        traffic = self.traffic if same else self.traffic.next()
        before = self.pace if same else replace(self.pace, share=0.0)
        elapsed = (now_ms - start_ms) / (end_ms - start_ms)
        traffic.add(elapsed, decisions)
        even, share = budget.pace == "even", traffic.share(elapsed)
        pace = before.moved(
            scale=scale, units=budget.units, used=used, share=share, even=even, minimum=budget.minimum
        )
        return Paced(account, pace, traffic)
