"""Customers.Forget: messages in, messages out. What it does stands in engine.forget."""

from typing import TYPE_CHECKING

from engine.catalogue import Catalogue
from engine.errors import NotFound
from engine.forget.erasing import Erasing
from engine.gateway import customer_of, shown, text_id, traces_of
from engine.gateway_letters import about
from engine.linking import chosen, targets_of
from features import Offset
from opportune.v1 import customers_pb2

if TYPE_CHECKING:
    from engine.service import Service


class ForgetService:
    """Forget, and what the other services ask about those who were forgotten."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._erasing = Erasing(service.store, service.inlet, about, copied=bool(service.catalogue.rollups))

    def follow(self, catalogue: Catalogue) -> None:
        """Another version serves. What was copied for entities is there, also if none of it has any more."""
        self._erasing.copied |= bool(catalogue.rollups)

    async def forget(self, request: customers_pb2.ForgetRequest) -> customers_pb2.ForgetResponse:
        """Customers.Forget."""
        service = self._service
        request_id = text_id(request.request_id, "request_id")
        asked = customer_of(request.customer_id, request.identities, service.catalogue)
        with service.writing():
            if not request.customer_id and len(request.identities) > 1:
                given = traces_of(request.identities, service.catalogue)
                asked = chosen(given, await targets_of(service.store, given))
            receipt = await self._erasing.forget(asked, request_id, service.clock())
        decisions, outcomes, out_of_reach = receipt.removed
        return customers_pb2.ForgetResponse(
            customer_id=receipt.person,
            linked_names=receipt.linked,
            features=receipt.features,
            timeline_entries=receipt.timeline,
            events=receipt.events,
            dead_letters=receipt.letters,
            decisions=decisions,
            outcomes=outcomes,
            decisions_out_of_reach=out_of_reach,
            lessons=receipt.lessons,
            learner_pending=receipt.stage != "done",
        )

    async def refuse_forgotten(self, decision: str, partition: int, position: Offset) -> None:
        """Raise NotFound if a decision is of somebody who was forgotten, StoreError if that cannot be known."""
        if await self._erasing.forgot(partition, position):
            raise NotFound(f"decision_id: no decision {shown(decision)}, or its record was retired")
