"""`opportune explain`: why this offer, why not that one, why nothing."""

import sys
from typing import Final

import click
from rich.console import Console

from engine.cli_parts import address_option, call, show
from engine.explain import cli_page
from opportune.v1 import decisions_pb2, decisions_pb2_grpc

_PIPE_COLUMNS: Final = 160
"""In a pipe rich would cut what does not fit 80 columns."""


@click.command()
@address_option
@click.argument("decision", metavar="DECISION_ID")
@click.option("--language", default="", help="Of the words, such as en.")
@click.option("--customer", default="", help="Refuse it if the decision was made for somebody else.")
@click.option("--all", "everything", is_flag=True, help="Every input of every offer, not the largest alone.")
@click.option("--json", "as_json", is_flag=True, help="The message as it came.")
def explain(address: str, decision: str, language: str, customer: str, everything: bool, as_json: bool) -> None:
    """Explain a decision by the policy that made it: what spoke for each offer and against it, and its worth."""
    request = decisions_pb2.ExplainRequest(decision_id=decision, language=language, customer_id=customer)
    found = call(address, decisions_pb2_grpc.DecisionsStub, "Explain", request)
    if as_json:
        show(found)
    else:
        show_page(found, sys.maxsize if everything else cli_page.CONTRIBUTIONS_SHOWN)


def show_page(explained: decisions_pb2.ExplainResponse, contributions: int = cli_page.CONTRIBUTIONS_SHOWN) -> None:
    """Print the page that is read by people, with so many contributions to each offer at most."""
    cli_page.show(Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS), explained, contributions)
