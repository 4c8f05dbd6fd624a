"""The small shop with identities declared, and what its visitors do."""

from opportune.v1 import common_pb2, customers_pb2, decisions_pb2, events_pb2, identities_pb2
from tests.small_engine import CONFIG, SmallEngine, features_of, value_of

KNOWN_BY = b"""
identities: [{kind: email_hash}, {kind: phone}, {kind: cookie}]
entities:
  - {kind: household, attribute: household_id}
  - {kind: account, many: true}
"""
SHOP = CONFIG.replace(b"events:\n", KNOWN_BY + b"events:\n  - {type: move, attributes: {household_id: {type: text}}}\n")
COOKIE = common_pb2.Identity(kind="cookie", value="c7")
PHONE = common_pb2.Identity(kind="phone", value="+420600111222")


async def buys(engine: SmallEngine, amount: float, customer: str = "", *identities: common_pb2.Identity) -> None:
    """A purchase, folded."""
    event = events_pb2.Event(
        id=f"purchase-{amount}", source="tests", type="purchase", customer_id=customer, identities=identities
    )
    event.attributes["amount"].CopyFrom(value_of(amount))
    response = await engine.service.events.publish(events_pb2.PublishRequest(events=[event]))
    assert response.accepted == 1
    await engine.fold()


async def ask(
    engine: SmallEngine, customer: str = "", *identities: common_pb2.Identity, request_id: str = ""
) -> decisions_pb2.DecideResponse:
    """A decision, and whatever it asked for beside it carried out."""
    request = decisions_pb2.DecideRequest(
        customer_id=customer, identities=identities, channel="branch", request_id=request_id
    )
    answer = await engine.service.decide(request)
    await engine.settle()
    return answer


async def spent(engine: SmallEngine, customer: str = "", *identities: common_pb2.Identity) -> float:
    """What the engine knows that they spent."""
    request = customers_pb2.GetCustomerRequest(customer_id=customer, identities=identities)
    found = features_of(await engine.service.customers.get(request))["spent_30d"]
    assert isinstance(found, float)
    return found


async def link(engine: SmallEngine, request_id: str, customer: str, **fields: object) -> identities_pb2.LinkResponse:
    request = identities_pb2.LinkRequest(request_id=request_id, customer_id=customer, **fields)  # type: ignore[arg-type]
    response = await engine.service.identities.link(request)
    await engine.settle()
    return response


async def unlink(engine: SmallEngine, request_id: str, customer: str, **fields: object) -> identities_pb2.LinkResponse:
    request = identities_pb2.UnlinkRequest(request_id=request_id, customer_id=customer, **fields)  # type: ignore[arg-type]
    response = await engine.service.identities.unlink(request)
    await engine.settle()
    return response
