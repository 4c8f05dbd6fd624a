"""`opportune identity`: link, unlink and look at the lineage of customers, by hand."""

from uuid import uuid4

import click
from google.protobuf.message import Message

from engine.cli_parts import TEXT, address_option, call, show
from opportune.v1 import common_pb2, identities_pb2, identities_pb2_grpc


@click.group()
def identity() -> None:
    """Say which identities and ids are one customer, take that back, and see how it came about."""


_customer = click.option("--customer", type=TEXT, required=True, help="The customer id.")
_identities = click.option("--identity", "identities", type=TEXT, multiple=True, metavar="KIND=VALUE", help="A trace.")
_same = click.option(
    "--same-customer", "same", type=TEXT, multiple=True, metavar="ID", help="Another id of the same customer."
)
_entities = click.option(
    "--entity", "entities", type=TEXT, multiple=True, metavar="KIND=ID", help="A household, an account, …"
)
_request = click.option(
    "--request",
    type=TEXT,
    help="Id of this request; asking again with the same one changes nothing.  [default: a new one]",
)


@identity.command()
@address_option
@_customer
@_identities
@_same
@_entities
@_request
def link(
    address: str,
    customer: str,
    identities: tuple[str, ...],
    same: tuple[str, ...],
    entities: tuple[str, ...],
    request: str | None,
) -> None:
    """Say that traces and ids are this customer, and to what the customer belongs."""
    _send(address, "Link", identities_pb2.LinkRequest, customer, identities, same, entities, request)


@identity.command()
@address_option
@_customer
@_identities
@_same
@_entities
@_request
def unlink(
    address: str,
    customer: str,
    identities: tuple[str, ...],
    same: tuple[str, ...],
    entities: tuple[str, ...],
    request: str | None,
) -> None:
    """Take links back: histories are separated again."""
    _send(address, "Unlink", identities_pb2.UnlinkRequest, customer, identities, same, entities, request)


@identity.command()
@address_option
@click.option("--customer", type=TEXT, default="", help="The customer id.")
@click.option("--identity", "trace", type=TEXT, default="", metavar="KIND=VALUE", help="Or a trace.")
def lineage(address: str, customer: str, trace: str) -> None:
    """Show what a customer or a trace is linked to and how that came about."""
    request = identities_pb2.LineageRequest(customer_id=customer)
    if trace:
        request.identity.CopyFrom(common_pb2.Identity(**pair(trace, "--identity", "kind", "value")))
    show(call(address, identities_pb2_grpc.IdentitiesStub, "Lineage", request))


def _send(
    address: str,
    method: str,
    request_type: type[Message],
    customer: str,
    identities: tuple[str, ...],
    same: tuple[str, ...],
    entities: tuple[str, ...],
    request: str | None,
) -> None:
    message = request_type(
        request_id=request or uuid4().hex,
        customer_id=customer,
        identities=[common_pb2.Identity(**pair(given, "--identity", "kind", "value")) for given in identities],
        same_customer_ids=same,
        entities=[identities_pb2.Entity(**pair(given, "--entity", "kind", "id")) for given in entities],
    )
    show(call(address, identities_pb2_grpc.IdentitiesStub, method, message))


def pair(given: str, option: str, first: str, second: str) -> dict[str, str]:
    """The two sides of "first=second" by their names. Raises BadParameter."""
    kind, separator, value = given.partition("=")
    if not separator:
        raise click.BadParameter(f"{given!r}, expected {first.upper()}={second.upper()}", param_hint=option)
    return {first: kind, second: value}
