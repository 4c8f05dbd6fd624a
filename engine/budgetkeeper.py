"""Keeps a server in units: leases ahead of need, returns what others need more, takes back what the dead had.

    every BUDGET_LOOK_MS     lease where little is left, or somebody wanted some; end leases that are used up
    every heartbeat          tell that this server lives, and read what the others tell

The living server of the smallest name does for all, once a heartbeat: end the leases of servers that were not heard of
for BUDGET_LEASE_MS, count what is used, set the prices. So all channels have the same prices.

A lease is a quarter of what is free, divided by the servers: large while there is much, small towards the end, so the
last units are near whoever needs them. A server that finds nothing free says so, and others return what lies idle.

Clocks decide only who counts as dead. One who is taken for dead and is not has its next decision refused by the
store and decides again: nothing is taken twice (engine.store.budgetboard).
"""

import asyncio
import logging
from collections.abc import Callable, Container, Mapping
from typing import Final

import numpy as np
import orjson
from numpy.typing import NDArray

from engine import metrics
from engine.budgets import Budgets, Period, Stock, free_units, leased_units
from engine.catalogue import Catalogue
from engine.limits import (
    BUDGET_DRY_MS,
    BUDGET_DRY_MS_MAX,
    BUDGET_HEARTBEAT_MS,
    BUDGET_IDLE_MS,
    BUDGET_LEASE_MS,
    BUDGET_LOOK_MS,
)
from engine.pacing import Paced
from engine.store.base import StoreError
from engine.store.budgetboard import BudgetBoard, Leases, PartUse

log = logging.getLogger(__name__)

_SERVER: Final = "server/"
_DRY: Final = "dry/"
_PACE: Final = "pace/"
_USE: Final = "use/"
_GONE_MS: Final = 3_600_000
"""Notes of a server that was not heard of for so long are removed."""
_GRANT_TRIES_MAX: Final = 5
_PARTS_OF_FREE: Final = 4
_LOW_WATER: Final = 0.5
"""Of the last lease: with less than this left, the next one is fetched."""


class BudgetKeeper:
    """The units of one server."""

    def __init__(self, catalogue: Callable[[], Catalogue], board: BudgetBoard, server: str, clock: Callable[[], int]):
        """`server` is a name that no other server has or had."""
        self._catalogue = catalogue
        self._board = board
        self.server = server
        self.clock = clock
        self.stock = Stock()
        self._prices: tuple[str, NDArray[np.float64]] | None = None
        """Version of the configuration that they are of, and (offers,) shadow prices; None: nothing has one."""
        self._beaten_ms = -BUDGET_HEARTBEAT_MS
        self._notes: Mapping[str, bytes] = {}
        self._last_units: dict[str, int] = {}
        self._dry: dict[str, tuple[int, int]] = {}
        """When to ask again for an account of which nothing was free, and how long that wait is, in ms."""

    @property
    def prices(self) -> NDArray[np.float64] | None:
        """(offers,) shadow prices of the configuration in service; None: nothing has one."""
        if self._prices is None or self._prices[0] != self._catalogue().version:
            return None
        return self._prices[1]

    # --- its life ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look again and again until it is cancelled."""
        while True:
            try:
                await self.step()
            except StoreError as error:
                log.warning("budgets could not be looked after: %s", error)
            except Exception:
                log.exception("budgets could not be looked after")
            await asyncio.sleep(BUDGET_LOOK_MS / 1e3)

    async def step(self) -> None:
        """One look. Raises StoreError."""
        budgets, now_ms = self._catalogue().budgets, self.clock()
        if not budgets and not self.stock.accounts:
            return
        current = [budgets.period(at, now_ms) for at in range(len(budgets.budgets))]
        if now_ms - self._beaten_ms >= BUDGET_HEARTBEAT_MS:
            await self._beat(budgets, current, now_ms)
        # Shortly before the end of a period units of the next one are fetched, too.
        soon_ms = now_ms + 2 * BUDGET_HEARTBEAT_MS
        fetched = {period.account: at for at, period in enumerate(current)}
        fetched |= {budgets.period(at, soon_ms).account: at for at in range(len(current))}
        self._return_idle(fetched, now_ms)
        await self._end_closed()
        wanted, self.stock.wanted = self.stock.wanted, {}
        by_id = {budget.id: at for at, budget in enumerate(budgets.budgets)}
        for account in wanted:  # of decisions with a time of their own
            if (own := by_id.get(account.rpartition("@")[0])) is not None:
                fetched.setdefault(account, own)
        for account, place in fetched.items():
            units, most = budgets.budgets[place].units, budgets.most[place]
            await self._fill(account, units, most, now_ms, account in wanted)

    async def drain(self) -> None:
        """Return everything, after the last decision. Raises StoreError: what is left runs out with the heartbeat."""
        for account in list(self.stock.accounts):
            self.stock.close(account)
        await self._end_closed()
        if self._notes or self._beaten_ms > 0:
            await self._board.note_budgets({}, [_SERVER + self.server])

    # --- leases -----------------------------------------------------------------------------------------------------

    async def _fill(self, account: str, total: int, most: int, now_ms: int, wanted: bool) -> None:
        """Lease if little is left here."""
        left = self.stock.left(account)
        if left >= max(most, int(self._last_units.get(account, 1) * _LOW_WATER)) or not most:
            return
        again_ms, wait_ms = self._dry.get(account, (0, BUDGET_DRY_MS // 2))
        if now_ms < again_ms:
            return
        if not wanted and left == 0 and self._others_dry(account, now_ms):
            return  # there is somebody who needs the last units now
        units = await self._lease(account, total, most, now_ms)
        if units:
            self._last_units[account] = units
            self._dry.pop(account, None)
            return
        wait_ms = min(2 * wait_ms, BUDGET_DRY_MS_MAX)
        self._dry[account] = now_ms + wait_ms, wait_ms
        if left < most and wanted:
            await self._board.note_budgets({_DRY + account: b"%d %s" % (now_ms, self.server.encode())})

    async def _lease(self, account: str, total: int, most: int, now_ms: int) -> int:
        """Units of a new lease; 0: nothing is free."""
        for _ in range(_GRANT_TRIES_MAX):
            leases, parts = await self.read(account, now_ms)
            free = free_units(total, leases, parts)
            if free <= 0:
                return 0
            part = -(-free // (_PARTS_OF_FREE * len(self._living(now_ms))))
            units = min(free, -(-part // most) * most)
            number = await self._board.new_lease()
            await self._board.enrol(account, number)
            if await self._board.grant(account, leases.version, number, units, self.server):
                self.stock.add(account, number, units, now_ms)
                return units
            await self._board.end_lease(account, number)
        return 0

    async def read(self, account: str, now_ms: int) -> tuple[Leases, list[PartUse]]:
        """What is leased and used; leases of the dead are ended first, and own ones whose grant was not answered."""
        leases = await self._board.leases(account)
        mine = self.stock.numbers(account)
        if any(server != self.server and not self._lives(server, now_ms) for _, server in leases.by_id.values()):
            self._notes = await self._board.budget_notes()  # one that has just begun is in no older ones
        dead = [
            lease
            for lease, (_, server) in leases.by_id.items()
            if (lease not in mine if server == self.server else not self._lives(server, now_ms))
        ]
        for lease in dead:
            await self._board.end_lease(account, lease)
            metrics.BUDGET_LEASES_RECLAIMED.inc()
        if dead:
            leases = await self._board.leases(account)
        return leases, await self._board.use(account, now_ms)

    def _return_idle(self, current: Container[str], now_ms: int) -> None:
        for account in list(self.stock.accounts):
            idle_ms = now_ms - self.stock.idle_since_ms(account)
            gone = account not in current and idle_ms >= BUDGET_IDLE_MS
            if gone or (idle_ms >= BUDGET_IDLE_MS and self._others_dry(account, now_ms)):
                self.stock.close(account)

    async def _end_closed(self) -> None:
        for account, number in self.stock.closed():
            await self._board.end_lease(account, number)
            self.stock.drop(number)

    def _others_dry(self, account: str, now_ms: int) -> bool:
        """Whether another server found nothing a moment ago."""
        when, _, server = self._notes.get(_DRY + account, b"").decode().partition(" ")
        return bool(when) and server != self.server and now_ms - int(when) < 2 * BUDGET_HEARTBEAT_MS

    # --- who lives --------------------------------------------------------------------------------------------------

    def _lives(self, server: str, now_ms: int) -> bool:
        return now_ms < int(self._notes.get(_SERVER + server, b"0"))

    def _living(self, now_ms: int) -> list[str]:
        names = [name[len(_SERVER) :] for name in self._notes if name.startswith(_SERVER)]
        return sorted({self.server, *(name for name in names if self._lives(name, now_ms))})

    async def _beat(self, budgets: Budgets, current: list[Period], now_ms: int) -> None:
        await self._board.note_budgets({_SERVER + self.server: b"%d" % (now_ms + BUDGET_LEASE_MS)})
        self._notes = await self._board.budget_notes()
        gone = [name for name, value in self._notes.items() if _stale(name, value, now_ms)]
        if gone:
            await self._board.note_budgets({}, gone)
        self._beaten_ms = now_ms
        if self._living(now_ms)[0] == self.server:
            await self._look_over(budgets, current, now_ms)
        self._told(budgets)

    async def _look_over(self, budgets: Budgets, current: list[Period], now_ms: int) -> None:
        """What one server does for all: end the leases of the dead, count what is used, set the prices."""
        noted = {}
        for at, period in enumerate(current):
            budget = budgets.budgets[at]
            leases, parts = await self.read(period.account, now_ms)
            confirmed, reserved = sum(part.confirmed for part in parts), sum(part.reserved for part in parts)
            free = free_units(budget.units, leases, parts)
            use = {"confirmed": confirmed, "reserved": reserved, "leased": leased_units(leases, parts), "free": free}
            noted[_USE + budget.id] = orjson.dumps(use)
            if budget.pace == "even" or budget.minimum:
                known = Paced.unpack(self._notes.get(_PACE + budget.id))
                scale = self.stock.worth.get(budget.id) or budgets.scales[at]
                decided = self.stock.decisions  # of this server: the shape over the day is that of all
                used = confirmed + reserved
                known = known.moved(period, now_ms, decided, scale=scale, budget=budget, used=used)
                noted[_PACE + budget.id] = known.pack()
        await self._board.note_budgets(noted)
        self._notes = {**self._notes, **noted}
        self.stock.decisions = 0

    def _told(self, budgets: Budgets) -> None:
        """Take over the prices that were set, and tell what is used."""
        prices = np.zeros(budgets.units.shape[1])
        for at, budget in enumerate(budgets.budgets):
            price = price_of(self._notes, budget.id) if budget.pace == "even" or budget.minimum else 0.0
            prices += price * budgets.units[at]
            metrics.BUDGET_PRICE.labels(budget.id).set(price)
            use = orjson.loads(self._notes.get(_USE + budget.id, b"{}"))
            for state, units in use.items():
                metrics.BUDGET_UNITS.labels(budget.id, state).set(units)
            metrics.BUDGET_OVER.labels(budget.id).set(
                max(0, use.get("confirmed", 0) + use.get("reserved", 0) - budget.units)
            )
        self._prices = (self._catalogue().version, prices) if prices.any() else None


def price_of(notes: Mapping[str, bytes], budget: str) -> float:
    """The price of a unit of a budget, as it stands in the notes."""
    return Paced.unpack(notes.get(_PACE + budget)).pace.price


def _stale(name: str, value: bytes, now_ms: int) -> bool:
    """Whether a note is of a server, or of a budget run dry, that nobody asks for any more."""
    return name.startswith((_SERVER, _DRY)) and int(value.split()[0]) < now_ms - _GONE_MS
