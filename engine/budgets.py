"""Budgets, stock and capacity, pure: what an offer takes of which, what is left here, what an outcome changes.

    grant   a server leases units of an account ahead of need                      engine.budgetkeeper
    hold    an offer that takes more than is left here is kept back                Budgets as a Holder
    take    the units of a slate, in the step that commits the decision            Stock, engine.budgeting
    settle  an outcome turns a reservation into use, or lets go of it              moves_of
    expire  a reservation whose time has come is free again, without a job         the next who counts

An account is a budget in a period; engine.store.budgetboard has its keys, and why no more is taken than there is.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from engine.config_schema import Config
from engine.course import Told, in_force
from engine.holds import Bools, Situation
from engine.lifecycle import Stage
from engine.limits import BUDGET_BUCKETS_ENTRIES_MAX, BUDGET_WANTED_ENTRIES_MAX, TIME_MS_MAX
from engine.store.budgetboard import LASTING, Leases, Move, PartUse, Standing, Take

SCOPE_MAX: Final = (1 << 32) - 1
"""A hold says how many units were left, in 32 bits."""
BUCKET_MS_MIN: Final = 1_000
WORTH_STEP: Final = 1e-3

Left = Sequence[tuple[int, int]]
"""(budget, units left), of the budgets that run short for one decision."""

_TAKEN_BACK: Final = frozenset({Stage.DECLINED, Stage.NOT_PRESENTED, Stage.WITHDRAWN, Stage.CANCELLED})
_NEVER_SEEN: Final = frozenset({Stage.NOT_PRESENTED, Stage.WITHDRAWN})
_SEEN: Final = frozenset(Stage) - _NEVER_SEEN - {Stage.SERVED, Stage.EXPIRED}


class Period(NamedTuple):
    """A budget in a period."""

    account: str
    start_ms: int
    end_ms: int


class Claim(NamedTuple):
    """What a pick takes of one account."""

    account: str
    units: int
    end_ms: int
    """As of Take."""


class _Cover(NamedTuple):
    budget: int
    units: int
    lasts_ms: int
    """0: consumed at once."""


class Budgets:
    """The budgets of a configuration, and what keeps offers back for want of them."""

    def __init__(self, config: Config) -> None:
        self.budgets = config.budgets
        self.names = tuple(f"budget {budget.id}" for budget in config.budgets)
        self.layer = "budget"
        self.derived = False
        self._zone = ZoneInfo(config.timezone)
        units = np.zeros((len(config.budgets), len(config.offers)), dtype=np.int64)
        covers: list[list[_Cover]] = [[] for _ in config.offers]
        for at, budget in enumerate(config.budgets):
            for place, offer in enumerate(config.offers):
                taken = budget.takes.get(offer.id, 1) if budget.covers(offer.id, offer.category) else 0
                taken = 0 if offer.kind == "silence" else taken
                if taken:
                    units[at, place] = taken
                    lasts_ms = 0 if budget.consumed == "served" else budget.reserved or offer.answer_window
                    covers[place].append(_Cover(at, taken, lasts_ms))
        self.units: NDArray[np.int64] = units
        """(budgets, offers) what an offer takes."""
        self._of_offer = tuple(map(tuple, covers))
        kept_ms = [[cover.lasts_ms for cover in of_offer if cover.lasts_ms] for of_offer in covers]
        self.reserved_ms: NDArray[np.int64] = np.array([min(some, default=0) for some in kept_ms], np.int64)
        """(offers,) for how long units of an offer are kept; 0: nothing is reserved."""
        self.most = tuple(int(row.max(initial=0)) for row in units)
        """Units of the offer that takes most, by budget."""
        gains = [offer.value * offer.lever for offer in config.offers]
        rate = config.learning.prior_rate
        self.scales = tuple(
            max((rate * gain / int(taken) for gain, taken in zip(gains, row, strict=True) if taken), default=0.0)
            for row in units
        )
        """What a unit is worth, about, before anything was decided."""
        self.covers = lru_cache(maxsize=256)(self._covers)
        """(offers,) what a hold of (budget, units left) keeps back."""
        self._periods: list[Period] = [Period("", 0, 0)] * len(config.budgets)

    def __bool__(self) -> bool:
        return bool(self.budgets)

    def period(self, at: int, time_ms: int) -> Period:
        """The period of a budget that a time is in."""
        known = self._periods[at]
        if known.start_ms <= time_ms < known.end_ms:
            return known
        budget = self.budgets[at]
        label, start_ms, end_ms = _period(budget.per, self._zone, time_ms)
        found = Period(f"{budget.id}@{label}", start_ms, end_ms)
        self._periods[at] = found
        return found

    def short(self, stock: "Stock", times_ms: Sequence[int]) -> list[Left] | None:
        """What runs short for each decision of a batch; None: for all of them there is enough of everything."""
        first_ms, last_ms = min(times_ms), max(times_ms)
        for at, most in enumerate(self.most):
            period = self.period(at, last_ms)
            if first_ms < period.start_ms or stock.left(period.account) < most:
                break
        else:
            return None
        found: list[Left] = []
        for time_ms in times_ms:
            lacking = []
            for at, most in enumerate(self.most):
                account = self.period(at, time_ms).account
                if (left := stock.left(account)) < most:
                    stock.want(account)
                    lacking.append((at, left))
            found.append(lacking)
        return found

    def claims(self, offers: Sequence[int], time_ms: int) -> list[list[Claim]]:
        """What each offer of a slate takes."""
        return [[self._claim(cover, time_ms) for cover in self._of_offer[offer]] for offer in offers]

    def learn_worth(self, stock: "Stock", picks: Sequence[tuple[int, float]]) -> None:
        """Follow what units are worth, by (offer, score) of what was decided."""
        for offer, score in picks:
            for cover in self._of_offer[offer]:
                name = self.budgets[cover.budget].id
                known = stock.worth.get(name, self.scales[cover.budget])
                stock.worth[name] = known + WORTH_STEP * (max(score, 0.0) / cover.units - known)

    def _claim(self, cover: _Cover, time_ms: int) -> Claim:
        end_ms = bucket_of(time_ms, cover.lasts_ms) if cover.lasts_ms else 0
        return Claim(self.period(cover.budget, time_ms).account, cover.units, end_ms)

    # --- a Holder ---------------------------------------------------------------------------------------------------

    def holds(self, situation: Situation) -> Sequence[Sequence[tuple[int, int]]] | None:
        """(budget, units left) of each decision: what takes more is kept back."""
        if situation.left is None:
            return None
        return [[(at, min(left, SCOPE_MAX)) for at, left in lacking] for lacking in situation.left]

    def _covers(self, limit: int, scope: int) -> Bools:
        covered: Bools = self.units[limit] > scope
        return covered

    # --- outcomes ---------------------------------------------------------------------------------------------------

    def moves_of(
        self, offer: int, decided_ms: int, before: Sequence[Told] | None, after: Sequence[Told]
    ) -> tuple[Move, ...]:
        """What an outcome of an offer changes. `before` is its course up to then; None if nobody knows it any more.

        Of an instance that the ledger has let go of only its use is counted, on top: whether its reservation still
        stands is not known, and what is reserved runs out by itself.
        """
        moves = []
        for cover in self._of_offer[offer]:
            consumed = self.budgets[cover.budget].consumed
            if consumed == "served":
                continue
            stages = [stage for stage, _ in in_force(after)]
            new = standing_of(consumed, stages)
            if before is None:
                first = Stage.ACCEPTED if consumed == "accepted" else Stage.PRESENTED
                if stages != [first]:
                    continue
                old: Standing = ""
            else:
                old = standing_of(consumed, [stage for stage, _ in in_force(before)])
            if old != new:
                claim = self._claim(cover, decided_ms)
                moves.append(Move(claim.account, old, new, claim.units, claim.end_ms))
        return tuple(moves)


def standing_of(consumed: str, stages: Sequence[Stage]) -> Standing:
    """What an instance has of a budget after these outcomes: "r" a reservation, "c" what it consumed, "" nothing.

    >>> [standing_of("accepted", path) for path in ([], [Stage.ACCEPTED], [Stage.ACCEPTED, Stage.CANCELLED])]
    ['r', 'c', '']
    >>> [standing_of("presented", [stage]) for stage in (Stage.DECLINED, Stage.NOT_PRESENTED)]
    ['c', '']
    """
    last = stages[-1] if stages else Stage.SERVED
    if consumed == "presented":
        return "c" if _SEEN.intersection(stages) else "" if last in _NEVER_SEEN else "r"
    if last in (Stage.ACCEPTED, Stage.FULFILLED):
        return "c"
    return "" if last in _TAKEN_BACK else "r"


def bucket_of(time_ms: int, lasts_ms: int) -> int:
    """When a reservation made then runs out: no earlier than it lasts, in few steps, so that they can be summed.

    >>> bucket_of(1_000_000, 64_000), bucket_of(1_000_999, 64_000)
    (1065000, 1065000)
    """
    width = max(BUCKET_MS_MIN, -(-lasts_ms // BUDGET_BUCKETS_ENTRIES_MAX))
    return ((time_ms + lasts_ms) // width + 1) * width


def free_units(total: int, leases: Leases, parts: Sequence[PartUse]) -> int:
    """Units that nobody has: neither used nor reserved nor leased. Below zero where late acceptances took more.

    `leases` were read before `parts`.
    """
    used = sum(part.confirmed + part.reserved for part in parts)
    return total - used - leased_units(leases, parts)


def leased_units(leases: Leases, parts: Sequence[PartUse]) -> int:
    """Units in open leases that were not taken yet."""
    return sum(
        max(0, units - sum(part.taken.get(lease, 0) for part in parts)) for lease, (units, _) in leases.by_id.items()
    )


@lru_cache(maxsize=1_024)
def _day(zone: ZoneInfo, day: date) -> int:
    return round(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp() * 1e3)


def _period(per: str | None, zone: ZoneInfo, time_ms: int) -> tuple[str, int, int]:
    """(name, start, end) of the period that a time is in."""
    if per is None:
        return LASTING[1:], 0, TIME_MS_MAX + 1
    today = datetime.fromtimestamp(time_ms / 1e3, UTC).astimezone(zone).date()
    if per == "day":
        first, label = today, today.isoformat()
        after = first + timedelta(days=1)
    elif per == "week":
        first = today - timedelta(days=today.weekday())
        year, week, _ = today.isocalendar()
        label, after = f"{year}-W{week:02d}", first + timedelta(days=7)
    else:
        first, label = today.replace(day=1), f"{today.year}-{today.month:02d}"
        after = (first + timedelta(days=31)).replace(day=1)
    return label, _day(zone, first), _day(zone, after)


# --- what one server has --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Lease:
    """Units of an account that one server may take."""

    number: int
    units: int
    left: int
    under_way: int = 0
    """Takes whose commits are not answered."""
    closing: bool = False


@dataclass(slots=True)
class _Account:
    left: int = 0
    """Of all leases that are not closing."""
    leases: list[Lease] = field(default_factory=list)
    taken_ms: int = 0
    """When something was last asked of it."""


class Stock:
    """What one server has leased, and hands out: no unit twice, whatever becomes of a commit."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self.wanted: dict[str, None] = {}
        """Accounts that ran short for somebody since the keeper last looked, in order."""
        self.decisions = 0
        """Made here since the keeper last looked."""
        self.worth: dict[str, float] = {}
        """Score of a unit by budget, a mean that follows: what prices are measured in."""

    def left(self, account: str) -> int:
        """Units that may be taken here."""
        found = self._accounts.get(account)
        return 0 if found is None else found.left

    def want(self, account: str) -> None:
        """Note that it ran short."""
        if len(self.wanted) < BUDGET_WANTED_ENTRIES_MAX:
            self.wanted[account] = None

    def add(self, account: str, number: int, units: int, now_ms: int) -> None:
        """A lease was granted."""
        held = self._accounts.setdefault(account, _Account(taken_ms=now_ms))
        held.leases.append(Lease(number, units, units))
        held.left += units

    def take(self, claims: Sequence[Claim], now_ms: int) -> tuple[Take, ...] | None:
        """Take the units of all claims, or of none (None)."""
        if not claims:
            return ()
        # One take for all offers of a slate that draw on the same account until the same time.
        together: dict[tuple[str, int], int] = {}
        needed: dict[str, int] = {}
        for account, units, end_ms in claims:
            together[account, end_ms] = together.get((account, end_ms), 0) + units
            needed[account] = needed.get(account, 0) + units
        for account, units in needed.items():
            if self.left(account) < units:
                self.want(account)
                return None
        return tuple(
            [
                piece
                for (account, end_ms), units in together.items()
                for piece in self._pieces(account, units, end_ms, now_ms)
            ]
        )

    def _pieces(self, account: str, units: int, end_ms: int, now_ms: int) -> Iterator[Take]:
        held = self._accounts[account]
        held.taken_ms = now_ms
        held.left -= units
        for lease in held.leases:
            part = 0 if lease.closing else min(units, lease.left)
            if part:
                lease.left -= part
                lease.under_way += 1
                units -= part
                yield Take(account, lease.number, part, end_ms)
            if not units:
                return

    def settle(self, takes: Sequence[Take], *, done: bool) -> None:
        """The commit that these were for is answered: done, or it is known that nothing was written.

        One of which it is not known counts as done: what it did not take comes back when the lease ends.
        """
        for take in takes:
            held = self._accounts.get(take.account)
            for lease in held.leases if held is not None else ():
                if lease.number == take.lease:
                    assert held is not None
                    lease.under_way -= 1
                    if not done:
                        lease.left += take.units
                        held.left += 0 if lease.closing else take.units

    def drop(self, number: int) -> None:
        """A lease is not valid any more."""
        for held in self._accounts.values():
            for lease in [lease for lease in held.leases if lease.number == number]:
                self._without(held, lease)

    def close(self, account: str) -> None:
        """Take nothing more from the leases of an account."""
        if (held := self._accounts.get(account)) is not None:
            for lease in held.leases:
                lease.closing = True
            held.left = 0

    def closed(self) -> list[tuple[str, int]]:
        """(account, number) of leases that are closing and of which no take is under way, and of those used up."""
        return [
            (account, lease.number)
            for account, held in self._accounts.items()
            for lease in held.leases
            if not lease.under_way and (lease.closing or not lease.left)
        ]

    def numbers(self, account: str) -> set[int]:
        """The leases of an account."""
        found = self._accounts.get(account)
        return set() if found is None else {lease.number for lease in found.leases}

    def idle_since_ms(self, account: str) -> int:
        """When something was last taken of an account, or it was leased."""
        return self._accounts[account].taken_ms

    @property
    def accounts(self) -> Mapping[str, int]:
        """Units left by account."""
        return {account: held.left for account, held in self._accounts.items() if held.leases}

    @staticmethod
    def _without(held: _Account, lease: Lease) -> None:
        held.leases.remove(lease)
        held.left -= 0 if lease.closing else lease.left


