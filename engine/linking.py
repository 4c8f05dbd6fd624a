"""Identity at the edge: which name a call means, and which links it asks for. Reads the store, decides nothing alone.

What a name belongs to stands in place of its features (engine.links), so it is found by the read that a decision makes
anyway: a call with a customer id, or with one identity, costs no lookup here. Several identities cost one MGET.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from engine import metrics
from engine.errors import NotAllowed
from engine.identity import EntityKind, entity_entry, link_entry, unlink_entry
from engine.limits import CUSTOMER_IDENTITIES_MAX, LINK_HOPS_MAX
from engine.links import Action, Links, LinksError, moved_to
from engine.store.base import LINKS, Feed, Store

log = logging.getLogger(__name__)

BY_DECIDE: Final = "decide"
BY_PUBLISH: Final = "publish"
BY_REQUEST: Final = "api"
"""Who asks for a link."""

Entries = list[tuple[str, bytes]]
"""(name, entry) for Store.append_events."""


class Login(NamedTuple):
    """A customer id that came together with identities."""

    customer: str
    traces: tuple[str, ...]


class Request(NamedTuple):
    """A checked request to link or unlink."""

    request_id: str
    customer: str
    identities: tuple[str, ...]
    """Names of identities."""
    customers: tuple[str, ...]
    """Other customer ids."""
    entities: tuple[tuple[EntityKind, str], ...]


async def targets_of(store: Store, names: Iterable[str]) -> dict[str, str]:
    """The customer that each name belongs to; "" for those that stand for themselves. Raises StoreError."""
    wanted = list(dict.fromkeys(names))
    states = await store.read(wanted)
    return {name: moved_to(features) for name, (features, _) in zip(wanted, states, strict=True)}


async def links_of(store: Feed, names: Sequence[str]) -> list[Links]:
    """Identities, entities and lineage of each name. Raises StoreError."""
    return [_read(name, data) for name, data in zip(names, await store.read_beside(LINKS, names), strict=True)]


async def identities_of(store: Store, customer: str) -> list[str]:
    """Names that belong to a customer now: "kind=value" of identities, and other customer ids. Raises StoreError."""
    [links] = await links_of(store, [customer])
    return links.linked


def _read(name: str, data: bytes | None) -> Links:
    try:
        return Links.unpack(data)
    except LinksError as error:
        log.error("the links of %r: %s", name, error)
        return Links()


def chosen(traces: Sequence[str], targets: Mapping[str, str]) -> str:
    """Of identities, strongest first: the one that says who it is. The strongest that is linked, else the strongest."""
    linked = [trace for trace in traces if targets.get(trace)]
    if len({targets[trace] for trace in linked}) > 1:
        metrics.IDENTITY_CONFLICTS.inc()
        log.info("identities of one call belong to %s; the strongest counts", ", ".join(targets[t] for t in linked))
    return linked[0] if linked else traces[0]


async def login_links(store: Store, logins: Sequence[Login], now_ms: int, source: str) -> Entries:
    """Entries for the links that are not there yet. Raises StoreError."""
    targets = await targets_of(store, (trace for login in logins for trace in login.traces))
    wanted: dict[str, str] = {}
    for login in logins:
        for trace in login.traces:
            if targets[trace] != login.customer and trace != login.customer:
                wanted[trace] = login.customer  # of two in one call the later one wins, as it would in two calls
    if not wanted:
        return []
    customers = list(dict.fromkeys(wanted.values()))
    full = {
        customer
        for customer, links in zip(customers, await links_of(store, customers), strict=True)
        if len(links.identities) >= CUSTOMER_IDENTITIES_MAX
    }
    entries = [link_entry(t, c, now_ms, source=source) for t, c in wanted.items() if c not in full]
    metrics.LINKS_ASKED.inc(len(entries))
    metrics.LINKS_SKIPPED.inc(len(wanted) - len(entries))
    return entries


# --- requests -------------------------------------------------------------------------------------------------------


async def entries_to_link(store: Store, asked: Request, now_ms: int) -> Entries:
    """What has to be recorded for a request to link. Raises NotAllowed, StoreError."""
    names = [*asked.identities, *asked.customers]
    customer = asked.customer
    targets = await targets_of(store, [*names, customer])
    *of_names, mine = await links_of(store, [*names, customer])
    wanted = [
        name
        for name, links in zip(names, of_names, strict=True)
        if targets[name] != customer and not links.knows(asked.request_id, Action.LINKED_TO, Action.LINK_REFUSED)
    ]
    for name in wanted:
        if name in asked.customers and targets[name]:
            raise NotAllowed(
                f"same_customer_ids: {name!r} belongs to {targets[name]!r} already; unlink it there, or link that one"
            )
    above, at = [customer], targets[customer]
    while at:
        above.append(at)
        if len(above) > LINK_HOPS_MAX:
            raise NotAllowed(f"customer_id: {customer!r} belongs to somebody over more than {LINK_HOPS_MAX} others")
        at = (await targets_of(store, [at]))[at]
    for name in wanted:
        if name in above:
            raise NotAllowed(f"{name!r} cannot belong to {customer!r}: that one belongs to {name!r} already")
    if len({*wanted, *(identity.name for identity in mine.identities)}) > CUSTOMER_IDENTITIES_MAX:
        raise NotAllowed(
            f"{customer!r} has {len(mine.identities)} linked names, at most {CUSTOMER_IDENTITIES_MAX} are allowed; "
            f"unlink some first"
        )
    entries = [
        link_entry(
            name, customer, now_ms, source=BY_REQUEST, request_id=asked.request_id, only_free=name in asked.customers
        )
        for name in wanted
    ]
    there = {(entity.kind, entity.id) for entity in mine.entities if not entity.by}
    entries += [
        entity_entry(customer, kind, entity, now_ms)
        for kind, entity in asked.entities
        if (kind.kind, entity) not in there
    ]
    metrics.LINKS_ASKED.inc(len(wanted))
    return entries


async def entries_to_unlink(store: Store, asked: Request, now_ms: int) -> Entries:
    """What has to be recorded for a request to unlink. Raises NotAllowed, StoreError."""
    names = [*asked.identities, *asked.customers]
    customer = asked.customer
    targets = await targets_of(store, names)
    *of_names, mine = await links_of(store, [*names, customer])
    direct = {identity.name for identity in mine.identities if not identity.via}
    entries: Entries = []
    for name, links in zip(names, of_names, strict=True):
        if links.knows(asked.request_id, Action.UNLINKED_FROM):
            continue
        if targets[name] != customer and name not in direct:
            whose = f"it belongs to {targets[name]!r}" if targets[name] else "it stands for itself"
            raise NotAllowed(f"{name!r} is not linked to {customer!r}: {whose}")
        entries.append(unlink_entry(name, customer, now_ms, source=BY_REQUEST, request_id=asked.request_id))
    there = {(entity.kind, entity.id) for entity in mine.entities if not entity.by}
    entries += [
        entity_entry(customer, kind, entity, now_ms, remove=True)
        for kind, entity in asked.entities
        if (kind.kind, entity) in there
    ]
    return entries
