"""`opportune forget`: forget a person."""

from typing import Final
from uuid import uuid4

import click

from engine.cli_identity import pair
from engine.cli_parts import TEXT, address_option, call, show
from opportune.v1 import common_pb2, customers_pb2, customers_pb2_grpc

_WAIT_S: Final = 120.0
"""A log of millions of entries is read through for it."""


@click.command()
@address_option
@click.option("--customer", type=TEXT, default="", help="The customer id.")
@click.option("--identity", "trace", type=TEXT, default="", metavar="KIND=VALUE", help="Or a trace.")
@click.option(
    "--request",
    type=TEXT,
    help="Id of this request; asking again with the same one goes on with it.  [default: a new one]",
)
def forget(address: str, customer: str, trace: str, request: str | None) -> None:
    """Forget a person: state, events, decisions, and what the model learnt from them. Prints what was removed."""
    if bool(customer) == bool(trace):
        raise click.UsageError("expected --customer or --identity, one of them")
    asked = customers_pb2.ForgetRequest(request_id=request or uuid4().hex, customer_id=customer)
    if trace:
        asked.identities.append(common_pb2.Identity(**pair(trace, "--identity", "kind", "value")))
    click.echo(f"request {asked.request_id}", err=True)
    show(call(address, customers_pb2_grpc.CustomersStub, "Forget", asked, timeout_s=_WAIT_S))
