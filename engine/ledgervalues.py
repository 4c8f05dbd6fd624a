"""What rules see of a customer's ledger. Pure.

Counts and days are those of the decisions that the ledger remembers (LEDGER_DECISIONS_MAX, open offers first).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from engine.ledger import Glance, LedgerError, scan
from engine.lifecycle import Stage

DAY_MS: Final = 86_400_000
NEVER_DAYS: Final = 1_000_000.0
"""Days since what never was."""
LEDGER_VALUES: Final = (
    "open_offers",
    "contacts_7d",
    "contacts_30d",
    "days_since_contact",
    "days_since_accepted",
    "days_since_declined",
)
"""Of the customer: contacts are decisions with an offer."""
OFFER_VALUES: Final = ("open", "days_since_offered", "days_since_accepted", "days_since_declined")
"""Of one offer with this customer; `open` is a flag."""
_AT_A_GLANCE: Final = frozenset(("open_offers", "open"))
_ANSWERS: Final = {int(Stage.ACCEPTED): "days_since_accepted", int(Stage.DECLINED): "days_since_declined"}


@dataclass(frozen=True)
class Told:
    """What a ledger tells."""

    values: Mapping[str, float]
    """Of LEDGER_VALUES those that were asked for, and perhaps more."""
    offers: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """Of OFFER_VALUES, by offer key; an offer that the ledger does not know has none."""


def only_a_glance(names: frozenset[str]) -> bool:
    """Whether a glance tells all of these; else the whole ledger has to be read."""
    return names <= _AT_A_GLANCE


def ledger_values(seen: Glance, now_ms: int, data: bytes | None = None) -> Told:
    """What rules see of a ledger at a time; without its bytes, what a glance tells.

    >>> from features import Offset
    >>> ledger_values(Glance(0, None, [(Offset.ZERO, 7, 1, 0, 9)]), 5)
    Told(values={'open_offers': 1.0}, offers={7: {'open': 1.0}})
    """
    values = {"open_offers": float(len(seen.open_offers))}
    offers: dict[int, dict[str, float]] = {key: {"open": 1.0} for _, key, *_ in seen.open_offers}
    if data is None:
        return Told(values, offers)
    try:
        rows = scan(data)
    except LedgerError:  # a damaged one is replaced: nothing is known of the past
        rows = []
    week = month = 0
    week_ms, month_ms = now_ms - 7 * DAY_MS, now_ms - 30 * DAY_MS
    contact_ms: int | None = None
    offered: dict[int, int] = {}
    answered: dict[tuple[int, int], int] = {}
    for key, stage, rank, served_ms, changed_ms in rows:
        offered[key] = served_ms
        if rank == 1:  # of each decision with an offer there is one
            contact_ms = served_ms
            if served_ms > month_ms:
                month += 1
                week += served_ms > week_ms
        if stage in _ANSWERS:
            answered[key, stage] = max(changed_ms, answered.get((key, stage), 0))
    values["contacts_7d"], values["contacts_30d"] = float(week), float(month)
    if contact_ms is not None:
        values["days_since_contact"] = _days(now_ms, contact_ms)
    for key, served_ms in offered.items():
        offers.setdefault(key, {})["days_since_offered"] = _days(now_ms, served_ms)
    for (key, stage), changed_ms in answered.items():
        name, days = _ANSWERS[stage], _days(now_ms, changed_ms)
        offers[key][name] = days
        values[name] = min(days, values.get(name, days))
    return Told(values, offers)


def never(name: str) -> float:
    """What a value is where the ledger tells nothing."""
    return NEVER_DAYS if name.startswith("days_since") else 0.0


def _days(now_ms: int, then_ms: int) -> float:
    return max(0, now_ms - then_ms) / DAY_MS
