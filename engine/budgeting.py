"""Deciding within budgets: the units of a slate are taken before it is committed, and none is promised twice.

All decisions of a batch see the same units left, so more of them may want the last ones than there are. The slates are
made first, then units are taken for one after the other, and who comes too late is decided again, knowing what is left:

- with as many places as the units suffice for, if they suffice for some: the slate itself was too long;
- else without what is not there any more, which is held back like anything else that is not.

The first of each round gets its slate, so the rounds end; after a few of them the rest go without these budgets.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from engine.budgets import Budgets, Claim, Left, Stock
from engine.drafts import Ask, Draft, Repeat
from engine.limits import BUDGET_ROUNDS_BATCH_MAX
from engine.store.budgetboard import Take

Result = Draft | Repeat
Decide = Callable[[Sequence[int], Sequence[Ask], Sequence[Left] | None], Sequence[Result]]
"""Decide for those of a batch: their places in it, what they ask, what runs short for them."""


class Within(NamedTuple):
    """A decision, and the units that are taken for it."""

    result: Result
    takes: tuple[Take, ...] = ()


def decide_within(budgets: Budgets, stock: Stock, asks: Sequence[Ask], now_ms: int, decide: Decide) -> list[Within]:
    """Decide for a batch within the units that are left here; they are taken from the stock."""
    asks = list(asks)
    stock.decisions += len(asks)
    found: list[Within | None] = [None] * len(asks)
    todo = list(range(len(asks)))
    for again in range(BUDGET_ROUNDS_BATCH_MAX + 1):
        some = [asks[at] for at in todo]
        left = budgets.short(stock, [ask.time_ms for ask in some])
        if again == BUDGET_ROUNDS_BATCH_MAX:
            left = [[(at, 0) for at in range(len(budgets.budgets))]] * len(some)
        late = []
        for at, result in zip(todo, decide(todo, some, left), strict=True):
            if isinstance(result, Repeat):
                found[at] = Within(result)
                continue
            claims = budgets.claims([pick.offer for pick in result.picks], result.ask.time_ms)
            takes = stock.take([claim for of_offer in claims for claim in of_offer], now_ms)
            if takes is None:
                late.append(at)
                places = _places(stock, claims)
                if places:
                    asks[at] = asks[at]._replace(limit=places)
            else:
                found[at] = Within(result, takes)
                if takes:
                    budgets.learn_worth(stock, [(pick.offer, pick.score) for pick in result.picks])
        todo = late
        if not todo:
            break
    assert not todo, "what takes nothing always fits"
    return [within for within in found if within is not None]


def _places(stock: Stock, claims: Sequence[Sequence[Claim]]) -> int:
    """How many places of a slate, from the first, the units left suffice for."""
    needed: dict[str, int] = {}
    for place, of_offer in enumerate(claims):
        for claim in of_offer:
            needed[claim.account] = needed.get(claim.account, 0) + claim.units
        if any(stock.left(account) < units for account, units in needed.items()):
            return place
    return len(claims)
