"""A whole engine in one process, small enough to read: the real objects on a store, and a clock that the test holds."""

from typing import Any

from engine.catalogue import Catalogue
from engine.config import parse, version_of
from engine.ingest import Ingest
from engine.learning import Learning
from engine.policywatch import PolicyWatch
from engine.service import Service
from engine.store import MemoryStore, Store
from opportune.v1 import common_pb2, customers_pb2, decisions_pb2, events_pb2, feedback_pb2

DAY_MS = 86_400_000
START_MS = 1_750_000_000_000
PARTITIONS = 4

CONFIG = b"""
opportune: 1
name: shop
limit: 3
channels:
  - {id: branch, placements: [desk]}
  - {id: web, placements: [hero, footer]}
context:
  - {name: intent, type: text, values: [pay, borrow, leave], input: {kind: one_hot}}
  - {name: minutes, type: number, range: [0, 600], input: {kind: linear, range: [0, 60]}}
  - {name: vip, type: flag}
events:
  - type: purchase
    attributes:
      amount: {type: number, required: true, range: [0, 100000]}
      category: {type: text, values: [food, travel]}
      abroad: {type: flag}
  - type: complaint
features:
  - {name: spent_30d, event: purchase, function: sum, attribute: amount, window: 30d, unit: EUR,
     meaning: money spent, owner: sales, input: {kind: log, range: [0, 10000]}}
  - {name: purchases_7d, event: purchase, function: count, window: 7d, input: {range: [0, 20]}}
  - {name: complaints_90d, event: complaint, function: count, window: 90d}
  - {name: last_category, event: purchase, function: last, attribute: category, input: {kind: one_hot}}
offers:
  - id: card
    value: 40
    treatments: [{text: A card for every day}, {text: Karta, language: cs}]
  - id: loan
    category: credit
    value: 100
    contact_cost: 1
    window: 3d
    eligibility: ["complaints_90d == 0.0", "spent_30d > 100.0"]
    treatments: [{text: Borrow for less}]
  - id: helpline
    kind: service
    value: 30
    channels: [branch]
    treatments: [{text: May we help?}]
fallback: [card]
"""


def catalogue_of(text: bytes = CONFIG) -> Catalogue:
    return Catalogue.compile(parse(text), version_of(text), text)


def value_of(value: float | str | bool) -> common_pb2.Value:
    if isinstance(value, bool):
        return common_pb2.Value(flag=value)
    return common_pb2.Value(text=value) if isinstance(value, str) else common_pb2.Value(number=value)


class SmallEngine:
    """Servers, ingest and learning of one engine. Time stands still until the test moves `now_ms`."""

    def __init__(self, text: bytes = CONFIG, store: Store | None = None) -> None:
        self.now_ms = START_MS
        self.catalogue = catalogue_of(text)
        self.store = store or MemoryStore(PARTITIONS, self.clock)
        self.service = Service(self.catalogue, self.store, self.clock)
        self.ingest = Ingest(
            self.catalogue.layout,
            self.store,
            self.catalogue.keeper,
            entities=self.catalogue.entity_attributes,
            rollups=self.catalogue.rollups,
        )
        self.learning = Learning(self.catalogue, self.store, now_s=lambda: self.now_ms / 1e3)
        self.watch = PolicyWatch(self.service.decider, self.store)
        self._numbers = iter(range(1, 1_000_000))

    def clock(self) -> int:
        return self.now_ms

    async def decide(
        self, customer: str = "ann", channel: str = "branch", *, context: dict[str, Any] | None = None, **fields: Any
    ) -> decisions_pb2.DecideResponse:
        facts = {name: value_of(value) for name, value in (context or {}).items()}
        request = decisions_pb2.DecideRequest(customer_id=customer, channel=channel, context=facts, **fields)
        return await self.service.decide(request)

    async def report(
        self, decision_id: str, offer_id: str, stage: str, outcome_id: str = "", **fields: Any
    ) -> feedback_pb2.ReportResponse:
        return await self.service.feedback.report(
            feedback_pb2.ReportRequest(
                outcome_id=outcome_id or f"outcome-{next(self._numbers)}",
                decision_id=decision_id,
                offer_id=offer_id,
                stage=f"STAGE_{stage.upper()}",
                **fields,
            )
        )

    async def publish(
        self, event_type: str, customer: str = "ann", event_id: str = "", **attributes: Any
    ) -> events_pb2.PublishResponse:
        event = events_pb2.Event(
            id=event_id or f"event-{next(self._numbers)}",
            source="tests",
            type=event_type,
            customer_id=customer,
            attributes={name: value_of(value) for name, value in attributes.items()},
        )
        return await self.service.events.publish(events_pb2.PublishRequest(events=[event]))

    async def explain(self, decision_id: str, language: str = "") -> decisions_pb2.ExplainResponse:
        return await self.service.explain(decisions_pb2.ExplainRequest(decision_id=decision_id, language=language))

    async def customer(self, customer: str = "ann") -> customers_pb2.Customer:
        return await self.service.customers.get(customers_pb2.GetCustomerRequest(customer_id=customer))

    async def fold(self) -> None:
        """Bring the state up to the last event."""
        while await self.ingest.round(0):
            pass

    async def settle(self) -> None:
        """Let finish what calls do beside their answers, and bring the state up to the last event."""
        await self.service.settled()
        await self.fold()

    async def learn(self) -> None:
        """Bring the served policy up to the last outcome."""
        while await self.learning.round(0):
            pass
        await self.learning.publish()
        await self.watch.step(0)

    async def statistics(self) -> bytes:
        """All that was learnt, as bytes."""
        return (await self.learning.learner()).statistics.to_bytes()


def features_of(customer: customers_pb2.Customer) -> dict[str, float | str | bool | None]:
    """Feature values by name, None where missing."""
    found: dict[str, float | str | bool | None] = {}
    for feature in customer.features:
        kind = feature.value.WhichOneof("kind") if feature.HasField("value") else None
        found[feature.name] = getattr(feature.value, kind) if kind else None
    return found
