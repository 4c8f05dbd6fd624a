"""The Identities service: messages in, messages out. What it asks for takes place in ingest (engine.identity)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine import limits
from engine.catalogue import Catalogue
from engine.errors import InvalidArgument
from engine.gateway import customer_named, shown, text_id, traces_of
from engine.identity import EntityKind
from engine.linking import Entries, Request, entries_to_link, entries_to_unlink, links_of, targets_of
from engine.links import Links, Status
from engine.record import decision_id
from engine.store.base import partition_of
from engine.store_errors import store_errors
from opportune.v1 import identities_pb2

if TYPE_CHECKING:
    from engine.service import Service


class IdentityService:
    """Link, Unlink and Lineage."""

    def __init__(self, service: "Service") -> None:
        self._service = service

    async def link(self, request: identities_pb2.LinkRequest) -> identities_pb2.LinkResponse:
        """Identities.Link."""
        asked = request_of(request, self._service.catalogue)
        with self._service.writing():
            entries = await entries_to_link(self._service.store, asked, self._service.clock())
            return await self._record(entries)

    async def unlink(self, request: identities_pb2.UnlinkRequest) -> identities_pb2.LinkResponse:
        """Identities.Unlink."""
        asked = request_of(request, self._service.catalogue)
        with self._service.writing():
            entries = await entries_to_unlink(self._service.store, asked, self._service.clock())
            return await self._record(entries)

    async def _record(self, entries: Entries) -> identities_pb2.LinkResponse:
        if not entries:
            return identities_pb2.LinkResponse()
        inlet = self._service.inlet
        await self._service.events.check_backlog()
        positions = await inlet.append_events(entries)
        named = [
            decision_id(partition_of(name, inlet.partitions), position)
            for (name, _), position in zip(entries, positions, strict=True)
        ]
        return identities_pb2.LinkResponse(recorded=len(entries), positions=named)

    async def lineage(self, request: identities_pb2.LineageRequest) -> identities_pb2.LineageResponse:
        """Identities.Lineage."""
        if request.customer_id:
            name = customer_named(request.customer_id, "customer_id")
        elif request.HasField("identity"):
            [name] = traces_of([request.identity], self._service.catalogue, "identity")
        else:
            raise InvalidArgument("customer_id: empty, expected a customer id or an identity")
        store = self._service.store
        with store_errors():
            targets = await targets_of(store, [name])
            [links] = await links_of(store, [name])
        return _lineage(name, targets[name], links, partition_of(name, store.partitions))


def request_of(request: identities_pb2.LinkRequest | identities_pb2.UnlinkRequest, catalogue: Catalogue) -> Request:
    """A checked request to link or unlink. Raises InvalidArgument."""
    request_id = text_id(request.request_id, "request_id")
    customer = text_id(request.customer_id, "customer_id")
    for field, given in (("same_customer_ids", request.same_customer_ids), ("entities", request.entities)):
        if len(given) > limits.IDENTITIES_MAX:
            raise InvalidArgument(f"{field}: {len(given)} entries, at most {limits.IDENTITIES_MAX} are allowed")
    identities = traces_of(request.identities, catalogue) if request.identities else ()
    for at, identity in enumerate(request.identities):
        if identity.kind not in catalogue.identity_strength:
            there = ", ".join(catalogue.identity_strength) or "none"
            raise InvalidArgument(
                f"identities[{at}].kind: no identity kind {shown(identity.kind)} is declared; there are {there}"
            )
    others = tuple(
        dict.fromkeys(text_id(other, f"same_customer_ids[{at}]") for at, other in enumerate(request.same_customer_ids))
    )
    if customer in others or customer in identities:
        raise InvalidArgument(f"customer_id: {shown(customer)} would be linked to itself")
    entities = tuple(_entity(entity, f"entities[{at}]", catalogue) for at, entity in enumerate(request.entities))
    if not (identities or others or entities):
        raise InvalidArgument("identities: empty, expected an entry of identities, same_customer_ids or entities")
    # An identity that is also given as a customer id is one name.
    others = tuple(other for other in others if other not in identities)
    return Request(request_id, customer, identities, others, tuple(dict.fromkeys(entities)))


def _entity(entity: identities_pb2.Entity, field: str, catalogue: Catalogue) -> tuple[EntityKind, str]:
    kind = catalogue.entity_kinds.get(text_id(entity.kind, f"{field}.kind"))
    if kind is None:
        there = ", ".join(catalogue.entity_kinds) or "none"
        raise InvalidArgument(f"{field}.kind: no entity kind {shown(entity.kind)} is declared; there are {there}")
    return kind, text_id(entity.id, f"{field}.id", limits.SOURCE_BYTES_MAX)


def _lineage(name: str, belongs_to: str, links: Links, partition: int) -> identities_pb2.LineageResponse:
    steps: Sequence[identities_pb2.LineageStep] = [
        identities_pb2.LineageStep(
            time_ms=line.time_ms,
            action=int(line.action),  # type: ignore[arg-type]
            name=line.name,
            source=line.source,
            request_id=line.request_id,
            position=decision_id(partition, line.position),
            reason=line.reason,
        )
        for line in links.lineage
    ]
    return identities_pb2.LineageResponse(
        name=name,
        belongs_to=belongs_to,
        identities=[
            identities_pb2.IdentityLink(
                name=found.name,
                since_ms=found.since_ms,
                source=found.source,
                via=found.via,
                current=found.status is Status.LINKED,
            )
            for found in links.identities
        ],
        entities=[
            identities_pb2.EntityLink(
                entity=identities_pb2.Entity(kind=found.kind, id=found.id), time_ms=found.time_ms, via=found.by
            )
            for found in links.entities
        ],
        steps=steps,
    )
