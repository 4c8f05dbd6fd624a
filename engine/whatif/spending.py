"""Budgets as a scenario itself would have used them up, counted over the whole log in its order.

What is taken, reserved, used up and let go of follows engine.budgets and the accounts of a store. Other than servers,
which lease units ahead of need, a scenario knows of every unit: it runs short exactly when there is none left.
"""

from collections.abc import Sequence
from typing import Final

from engine.budgets import Budgets, Left, Stock
from engine.catalogue import Catalogue
from engine.course import Told
from engine.store.budgetboard import Take
from engine.store.memory import Account

_LEASE: Final = 0


def budgets_apart(one: Catalogue, other: Catalogue) -> bool:
    """Whether budgets differ in two configurations, so that what ran short in one tells nothing of the other."""
    if not one.budgets and not other.budgets:
        return False
    offers, others = (
        {
            offer.id: (offer.category, offer.kind, window)
            for offer, window in zip(each.config.offers, each.windows_ms, strict=True)
        }
        for each in (one, other)
    )
    heads = [(each.config.budgets, each.config.timezone) for each in (one, other)]
    return heads[0] != heads[1] or any(offers[offer] != others[offer] for offer in offers.keys() & others.keys())


class Spending(Stock):
    """What is left of the budgets of one scenario, as the stock of a server that has leased all of it."""

    def __init__(self, budgets: Budgets) -> None:
        super().__init__()
        self._budgets = budgets
        self._units = {budget.id: budget.units for budget in budgets.budgets}
        self._used: dict[str, Account] = {}
        self._now_ms = 0

    def left(self, account: str) -> int:
        """Units that are neither used up nor reserved; below zero where outcomes came late."""
        used = self._of(account).sweep(self._now_ms)
        return self._units[account.rpartition("@")[0]] - used.confirmed - used.reserved

    def short(self, times_ms: Sequence[int]) -> list[Left] | None:
        """As engine.budgets has it, at the first of these times."""
        self._now_ms = max(self._now_ms, min(times_ms))
        return self._budgets.short(self, times_ms)

    def spend(self, offers: Sequence[int], time_ms: int, *, anyhow: bool = False) -> int | None:
        """Take what the offers of a slate take, all of it or nothing; None: it is taken.

        Else how many places there are units for, if the slate itself is too long; 0 if units of an offer are gone, so
        that it is to be decided again without them.
        """
        claims = self._budgets.claims(offers, time_ms)
        needed: dict[str, int] = {}
        for place, claim in [] if anyhow else [(place, one) for place, some in enumerate(claims) for one in some]:
            left = self.left(claim.account)
            needed[claim.account] = needed.get(claim.account, 0) + claim.units
            if left < needed[claim.account]:
                return 0 if left < claim.units else place
        for of_offer in claims:
            for claim in of_offer:
                self._of(claim.account).take(Take(claim.account, _LEASE, claim.units, claim.end_ms))
        return None

    def heard(self, offer: int, decided_ms: int, before: Sequence[Told], after: Sequence[Told]) -> None:
        """An outcome of an offer that was served."""
        for move in self._budgets.moves_of(offer, decided_ms, before, after):
            self._of(move.account).move(move)

    def _of(self, account: str) -> Account:
        if account not in self._used:
            self._used[account] = Account()
            self._used[account].taken[_LEASE] = 0
        return self._used[account]
