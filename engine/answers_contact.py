"""Contacts of one customer for Customers.Get: how many, caps used, contact pressure, cool-offs in force."""

from collections.abc import Sequence
from typing import Final

from engine.catalogue import Catalogue
from engine.config_schema import key_of
from engine.contact_limits import KINDS
from engine.contact_rows import AGAIN, FIRST
from opportune.v1 import customers_pb2

_DAY_MS: Final = 86_400_000
_DAYS: Final = (1, 7, 30, 90)


def fill_contacts(
    response: customers_pb2.Customer, catalogue: Catalogue, ledgers: Sequence[bytes | None], now_ms: int
) -> None:
    """Tell what contact policy makes of a customer's ledgers, those of linked names among them; nothing without one."""
    policy = catalogue.contacts
    if policy is None:
        return
    rows, clock_ms = policy.contacts_of(ledgers)
    now_ms = max(now_ms, clock_ms)
    channels = {key_of(channel.id): channel.id for channel in catalogue.config.channels}
    counted = [row for row in rows if not row.rank & AGAIN]
    for days in _DAYS:
        if days > 1 and days * _DAY_MS > policy.horizon_ms:
            break
        found: dict[str, tuple[int, int]] = {}
        for row in counted:
            if row.time_ms > now_ms - days * _DAY_MS:
                where = channels.get(row.channel, "")
                contacts, offers = found.get(where, (0, 0))
                found[where] = contacts + (row.number if row.rank & FIRST else 0), offers + row.number
        for where in sorted(found):
            contacts, offers = found[where]
            response.contacts.add(days=days, channel=where, contacts=contacts, offers=offers)
    named = {0: "", **dict(enumerate(KINDS, 1))}
    named |= {key_of(offer.category): offer.category for offer in catalogue.offers}
    named |= {key_of(group.id): group.id for group in catalogue.config.groups}
    named |= {key_of(offer.id): offer.id for offer in catalogue.offers}
    named |= channels
    uses = policy.uses(rows, now_ms)
    for use in sorted(uses, key=lambda use: not use.until_ms):
        if use.cools:
            response.cool_offs.add(name=use.name, of=named.get(use.scope, ""), until_ms=use.until_ms)
        else:
            response.caps.add(
                name=use.name,
                of=named.get(use.scope, ""),
                used=use.used,
                most=use.most,
                free_again_ms=use.until_ms,
            )
    response.contact_pressure, response.contact_surcharge = policy.pressure(rows, now_ms)
