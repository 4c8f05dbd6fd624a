"""Trying it by hand: ask for a decision, report what became of it."""

import json
from typing import Any

import click

from engine.cli_parts import TEXT, address_option, call, show
from engine.lifecycle import REPORTABLE
from engine.limits import SLATE_MAX
from opportune.v1 import decisions_pb2, decisions_pb2_grpc, feedback_pb2, feedback_pb2_grpc


@click.command()
@address_option
@click.option("--customer", type=TEXT, required=True)
@click.option("--channel", type=TEXT, required=True)
@click.option("--placement", type=TEXT, default="")
@click.option(
    "--context",
    type=TEXT,
    multiple=True,
    metavar="NAME=VALUE",
    help="A fact of the conversation; repeat for more. 5 is a number, '\"5\"' a text.",
)
@click.option("--limit", type=click.IntRange(0, SLATE_MAX), default=0, help="Offers at most.  [default: as configured]")
@click.option("--resume", type=TEXT, default="", metavar="DECISION", help="Go on with an open offer of that decision.")
@click.option("--offer", type=TEXT, default="", help="Which, with --resume.  [default: its only one]")
@click.option("--explain", is_flag=True, help="Show why, too: the page of `opportune explain`.")
@click.option("--json", "as_json", is_flag=True, help="With --explain: the message as it came instead of the page.")
def decide(
    address: str,
    customer: str,
    channel: str,
    placement: str,
    context: tuple[str, ...],
    limit: int,
    resume: str,
    offer: str,
    explain: bool,
    as_json: bool,
) -> None:
    """Ask for the next best offer and show it."""
    if offer and not resume:
        raise click.UsageError("--offer says which one is resumed: expected --resume, too")
    if as_json and not explain:
        raise click.UsageError("--json goes with --explain: the answer is JSON anyway")
    request = decisions_pb2.DecideRequest(
        customer_id=customer, channel=channel, placement=placement, limit=limit
    )
    if resume:
        request.resume.CopyFrom(decisions_pb2.Resume(decision_id=resume, offer_id=offer))
    for entry in context:
        name, separator, value = entry.partition("=")
        if not separator:
            raise click.BadParameter(f"{entry!r}, expected NAME=VALUE", param_hint="--context")
        if name in request.context:
            raise click.BadParameter(f"{name!r} is given twice", param_hint="--context")
        _fill(request.context[name], value)
    response = call(address, decisions_pb2_grpc.DecisionsStub, "Decide", request)
    show(response)
    if explain and response.decision_id:
        asked = decisions_pb2.ExplainRequest(decision_id=response.decision_id)
        told = call(address, decisions_pb2_grpc.DecisionsStub, "Explain", asked)
        if as_json:
            show(told)
        else:
            from engine.explain.cli import show_page  # not before it is needed: it brings what draws tables

            click.echo()
            show_page(told)


@click.command()
@address_option
@click.option("--decision", type=TEXT, default="", help="The decision; or --customer.")
@click.option(
    "--customer", type=TEXT, default="", help="Whose open instance of the offer it is about; needs --outcome."
)
@click.option("--offer", type=TEXT, required=True)
@click.option("--stage", required=True, type=click.Choice([stage.name.lower() for stage in sorted(REPORTABLE)]))
@click.option(
    "--outcome",
    type=TEXT,
    help="Id of this outcome; reporting it again changes nothing.  [default: made from the others]",
)
@click.option("--value", type=float, help="What it was worth in the catalogue's currency.  [default: as declared]")
@click.option("--reward", type=(TEXT, float), multiple=True, help="An objective and its reward; may be repeated.")
@click.option(
    "--corrects", type=TEXT, default="", help="Id of an earlier outcome that this one replaces; needs --outcome."
)
def report(
    address: str,
    decision: str,
    customer: str,
    offer: str,
    stage: str,
    outcome: str | None,
    value: float | None,
    reward: tuple[tuple[str, float], ...],
    corrects: str,
) -> None:
    """Report what became of an offer."""
    if bool(decision) == bool(customer):
        raise click.UsageError("expected --decision or --customer, one of them")
    if customer and not outcome:
        raise click.UsageError("--customer: expected --outcome, too: who sends it again must mean the same one")
    if not outcome:
        from engine.ledger import hash_of  # not before it is needed: it brings the compiled kernels along

        outcome = f"{stage}-{hash_of(f'{decision} {offer}'):016x}"
    request = feedback_pb2.ReportRequest(
        outcome_id=outcome,
        decision_id=decision,
        customer_id=customer,
        offer_id=offer,
        stage=f"STAGE_{stage.upper()}",
        value=value,
        rewards=dict(reward),
        corrects=corrects,
    )
    show(call(address, feedback_pb2_grpc.FeedbackStub, "Report", request))


def _fill(value: Any, text: str) -> None:
    if text in ("true", "false"):
        value.flag = text == "true"
        return
    if len(text) > 1 and text[0] == text[-1] == '"':
        value.text = _unquoted(text)
        return
    try:
        value.number = float(text)
    except ValueError:
        value.text = text


def _unquoted(text: str) -> str:
    """The text that a string of JSON stands for. Raises BadParameter if it is none."""
    try:
        return TEXT.convert(json.loads(text), None, None)
    except (ValueError, click.BadParameter) as error:
        message = f"{text}, expected a string of JSON in double quotes"
        raise click.BadParameter(message, param_hint="--context") from error
