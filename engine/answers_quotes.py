"""What goes with offers, in messages: parameters, the price held, the text that was made of them."""

from collections.abc import Mapping
from typing import Any

from engine.catalogue import Catalogue
from engine.parameters import Quote, values_of
from opportune.v1 import customers_pb2, decisions_pb2


def fill_quote(message: Any, quote: Quote) -> None:
    """The fields of a RankedOffer or an OpenOffer."""
    for name, value in quote.parameters.items():
        if isinstance(value, str):
            message.parameters[name].text = value
        else:
            message.parameters[name].number = value
    message.price_held_until_ms = quote.held_until_ms
    message.begun_decision_id = quote.began


def fill_instances(
    customer: customers_pb2.Customer,
    places: Mapping[str, tuple[str, str]],
    quotes: Mapping[str, Mapping[str, Quote]],
) -> None:
    """What records say of the offers of a customer: (channel, placement) and quotes by offer id, by decision id."""
    for offer in customer.offers:
        if offer.decision_id in places:
            offer.channel = places[offer.decision_id][0]
        quote = quotes.get(offer.decision_id, {}).get(offer.offer_id)
        if quote is not None:
            fill_quote(offer, quote)


def said(
    catalogue: Catalogue,
    place: tuple[int, int, str],
    offer: int,
    quote: Quote | None,
    context: bytes,
    expires_ms: int,
) -> str:
    """The treatment of an offer in a place (channel, placement, language); "" if it cannot be made there."""
    values = values_of(quote or Quote(), context, expires_ms)
    return catalogue.treatments.said(*place, offer, values) or ""


def resumed_offer(
    catalogue: Catalogue, place: tuple[int, int, str], offer: int, quote: Quote, context: bytes
) -> decisions_pb2.RankedOffer:
    """The answer's one offer where the caller went on with it: nothing was drawn, so its propensity is 1."""
    declared = catalogue.offers[offer]
    message = decisions_pb2.RankedOffer(
        offer_id=declared.id,
        rank=1,
        kind=catalogue.kinds[offer],  # type: ignore[arg-type]
        category=declared.category,
        treatment=said(catalogue, place, offer, quote, context, quote.expires_ms),
        propensity=1.0,
        value=declared.value,
        contact_cost=declared.contact_cost,
        expires_ms=quote.expires_ms,
    )
    fill_quote(message, quote)
    return message
