"""What a store keeps of budgets, and why no more can be taken than there is.

An *account* is one budget in one period: `budget@2026-11-22`. It has two kinds of keys.

`budget:<account>`, one hash: `v`, which grows with every lease granted, and `l/<lease>`, "units server", of each lease
that is open.

`{pN}b:<account>`, one hash a partition: `u/<lease>`, units taken under a lease that is valid here; `c`, units consumed;
`r/<end>`, units reserved until then; `s`, up to when reservations have been let go. The script that commits a decision
takes its units here, in the same step as it writes ledger and log, and only if the lease is valid.

So at any time      free ≥ total − Σ over partitions (c + r) − Σ over open leases (units − Σ over partitions u)

A unit that is taken moves from the second sum to the first within one step, so partitions may be read one after the
other, while others decide. Whoever grants reads `budget:<account>` first, then the partitions, and has the grant
refused if somebody else granted meanwhile (`v`). A lease ends by losing its `u` in every partition, then its `l`: from
the first to the last of these steps too little is free, never too much, and whoever dies in between leaves it for the
next one to do again. A lease's number is given once, and its `u` are made before it is granted, so that none can come
late.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol

from features import Offset

LASTING: Final = "@always"
"""How the account of a budget without periods ends; all others go away some time after their last use."""

Standing = Literal["", "r", "c"]
"""What an instance has of a budget: nothing (any more), a reservation, what it consumed."""


class Take(NamedTuple):
    """Units that a decision takes."""

    account: str
    lease: int
    units: int
    end_ms: int
    """Until when they are reserved; 0: they are consumed at once."""


class Move(NamedTuple):
    """What an outcome changes."""

    account: str
    old: Standing
    new: Standing
    units: int
    end_ms: int
    """Until when they were reserved."""


@dataclass(frozen=True, slots=True)
class Fenced:
    """The decision took from a lease that is no longer valid: nothing was written."""

    lease: int


class Settled(NamedTuple):
    """An outcome is written."""

    position: Offset
    late_units: int
    """Of these the reservation had run out before: they may be more than there are."""


class Leases(NamedTuple):
    """The open leases of an account."""

    version: int
    """Grows with every lease granted."""
    by_id: Mapping[int, tuple[int, str]]
    """(units, server)."""


class PartUse(NamedTuple):
    """What one partition has of an account."""

    confirmed: int
    reserved: int
    taken: Mapping[int, int]
    """Units by lease, of those valid here."""


class BudgetBoard(Protocol):
    """Accounts and leases. Every call raises StoreUnavailable if it is not known whether all of it took place."""

    async def settle_outcome(
        self, customer: str, ledger_expected: bytes, ledger: bytes, entry: bytes, moves: Sequence[Move]
    ) -> Settled | None:
        """As commit_outcome, and in the same step what it changes of budgets. None is a conflict: nothing was done."""
        ...

    async def budget_notes(self) -> dict[str, bytes]:
        """What servers noted for each other."""
        ...

    async def note_budgets(self, fields: Mapping[str, bytes], removed: Sequence[str] = ()) -> None:
        """Note something, and remove notes, in one atomic step."""
        ...

    async def new_lease(self) -> int:
        """A number that no lease had."""
        ...

    async def leases(self, account: str) -> Leases:
        """The open leases of an account."""
        ...

    async def use(self, account: str, now_ms: int) -> list[PartUse]:
        """Let go of reservations that ended by now; then what each partition has."""
        ...

    async def enrol(self, account: str, lease: int) -> None:
        """Make a lease valid in every partition, before it is granted; never again afterwards."""
        ...

    async def grant(self, account: str, version: int, lease: int, units: int, server: str) -> bool:
        """Open a lease if none was granted since `version`."""
        ...

    async def end_lease(self, account: str, lease: int) -> None:
        """Make a lease invalid in every partition, then close it. Harmless to repeat."""
        ...
