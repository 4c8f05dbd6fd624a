"""`opportune leads`: lists of leads for the sales network: making them, handing them out, what came of them."""

import csv
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from engine.cli_leads_make import Made, Planner
from engine.cli_parts import ADDRESS, TEXT, address_option, call, show, told
from engine.cli_plain import plain
from engine.datafolder import read_state
from engine.errors import ConfigError
from engine.leads.lead import ENDS
from engine.leads.people import People, read_people
from engine.leads.places import read_places
from engine.limits import LEAD_CALL_ENTRIES_MAX
from opportune.v1 import common_pb2, leads_pb2, leads_pb2_grpc

_STATES: Final = ("open", "taken", "done", "closed")
_COLUMNS: Final = (
    "seller", "from", "until", "customer", "offer", "treatment", "worth", "acceptance_probability", "expires",
    "reasons", "lead_id", "decision_id",
)  # fmt: skip


@click.group()
def leads() -> None:
    """Make lists of leads within the capacities of sellers, hand them out, and hear what came of them."""


@leads.command()
@click.option("--config", "config_path", type=click.Path(path_type=Path, dir_okay=False), help="For --segment.")
@click.option("--data", "data_path", type=click.Path(path_type=Path, file_okay=False, exists=True),
              help="Data folder of the running engine.")  # fmt: skip
@click.option("--grpc", "address", type=ADDRESS, help="Or where the engine answers.")
@click.option("--redis", "redis_url", help="With --segment and --grpc: the engine's store, redis://… or unix://…")
@click.option("--channel", type=TEXT, required=True, help="Channel of the contacts.")
@click.option("--placement", type=TEXT, default="")
@click.option("--language", type=TEXT, default="")
@click.option("--customers", "customers_path", type=click.Path(path_type=Path, dir_okay=False),
              help="CSV or Parquet with a column `customer`.")  # fmt: skip
@click.option("--segment", type=TEXT, help="Or all customers of a segment of the configuration.")
@click.option("--sellers", "sellers_path", type=click.Path(path_type=Path, dir_okay=False), required=True,
              help="CSV or YAML with seller, capacity and, if you like, from, until and attributes.")  # fmt: skip
@click.option("--limit", type=click.IntRange(min=1), help="At most so many leads.  [default: as capacities allow]")
@click.option("--batch", type=TEXT,
              help="Id of the list; with the same one it goes on where it was.  [default: by the time]")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="CSV, or .parquet.")
@click.option("--dry-run", is_flag=True, help="Only plan: nothing is recorded and no leads are made.")
def make(
    config_path: Path | None,
    data_path: Path | None,
    address: str | None,
    redis_url: str | None,
    channel: str,
    placement: str,
    language: str,
    customers_path: Path | None,
    segment: str | None,
    sellers_path: Path,
    limit: int | None,
    batch: str | None,
    out: Path,
    dry_run: bool,
) -> None:
    """Choose whom to contact so that the expected worth is the greatest that the sellers' capacities allow.

    Only those who get a place become recorded decisions. Exit code 1 if some could not be decided for.
    """
    if (data_path is None) == (address is None):
        raise click.UsageError("expected --data or --grpc, one of them")
    if (customers_path is None) == (segment is None):
        raise click.UsageError("expected --customers or --segment, one of them")
    if out.suffix not in (".csv", ".parquet"):
        raise click.BadParameter(f"{out}: expected a name that ends in .csv or .parquet", param_hint="--out")
    if not out.parent.is_dir():
        raise click.BadParameter(f"{out}: there is no folder {out.parent}", param_hint="--out")
    with told():
        state = _running(data_path) if data_path is not None else {}
        places = read_places(sellers_path)
        url = redis_url or str(state.get("redis", ""))
        people = read_people(customers_path) if customers_path else _segment(config_path, url, segment or "")
        batch = batch or f"leads-{datetime.now(UTC):%Y%m%dT%H%M%S}"
        capacity = sum(place.capacity for place in places)
        click.echo(f"list {batch}: {len(people):,} customers, {capacity:,} places", err=True)
        planner = Planner(address or str(state["grpc"]), batch, channel, placement, language)
        made = planner.make(people, places, limit, record=not dry_run)
        _write(out, made)
    for line in made.told:
        click.echo(line, err=True)
    click.echo(
        f"{out}: {len(made.leads):,} {'planned' if dry_run else 'leads'} of an expected worth of "
        f"{sum(lead.worth for lead in made.leads):,.2f}; {made.without_offer:,} customers have no offer, "
        f"{made.without_place:,} no place, {made.failed:,} could not be decided for"
    )
    if made.failed:
        raise SystemExit(1)


def _running(data_path: Path) -> dict[str, Any]:
    state = read_state(data_path)
    served = [ready["grpc"] for ready in state.get("addresses", {}).values() if "grpc" in ready]
    if not served:
        raise ConfigError(f"no engine runs on {data_path}: start it with opportune serve, or give --grpc")
    return {"grpc": served[0], "redis": state.get("redis") or ""}


def _segment(config_path: Path | None, url: str, segment: str) -> People:
    if config_path is None or not url:
        raise click.UsageError("--segment needs --config, and --data or --redis")
    # They bring river and redis, which take a second to import and which no other command here needs.
    import asyncio

    from engine.catalogue import Catalogue
    from engine.leads.segment import people_in

    return asyncio.run(people_in(url, Catalogue.of_file(config_path), segment))


def _write(out: Path, made: Made) -> None:
    """The file, whole or not at all."""
    rows = [
        (
            lead.seller, _said(lead.from_ms), _said(lead.until_ms), lead.customer, lead.offer, lead.treatment,
            lead.worth, lead.acceptance_probability, _said(lead.expires_ms), lead.reasons, lead.lead_id,
            lead.decision_id,
        )
        for lead in made.leads
    ]  # fmt: skip
    temporary = out.with_name(f".{out.name}.tmp")
    try:
        if out.suffix == ".csv":
            with temporary.open("w", newline="") as file:
                csv.writer(file).writerows([_COLUMNS, *rows])
        else:
            import polars  # it takes as long to load as all else, and only this needs it

            numbers = ("worth", "acceptance_probability")
            schema = [(name, polars.Float64 if name in numbers else polars.String) for name in _COLUMNS]
            polars.DataFrame(rows, schema=schema, orient="row").write_parquet(temporary)
        temporary.replace(out)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigError(f"{out} cannot be written: {error.strerror or error}") from error


def _said(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1e3, UTC):%Y-%m-%dT%H:%M:%SZ}" if time_ms else ""


# --- handing them out -----------------------------------------------------------------------------------------------

_lead_argument = click.argument("lead", type=TEXT)
_seller_option = click.option("--seller", type=TEXT, required=True, help="Who it is.")
_list_option = click.option("--list", "list_id", type=TEXT, default="", help="The list.  [default: all]")


@leads.command("list")
@address_option
@_list_option
@click.option("--seller", type=TEXT, default="", help="Theirs, and those for anybody.  [default: all]")
@click.option("--state", type=click.Choice(_STATES), help="Only those in this state.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=100, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def list_leads(address: str, list_id: str, seller: str, state: str | None, limit: int, as_json: bool) -> None:
    """List leads, the most worth first."""
    found = []
    for lead in _all(address, list_id, seller, state):
        found.append(lead)
        if len(found) >= limit:
            break
    if as_json:
        show(leads_pb2.ListLeadsResponse(leads=found))
        return
    table = Table(title=f"{len(found)} leads")
    for heading in ("lead", "customer", "offer", "worth", "state", "seller", "from", "expires"):
        table.add_column(heading, justify="right" if heading == "worth" else "left")
    for lead in found:
        who = lead.seller or (f"({lead.planned_seller})" if lead.planned_seller else "anybody")
        how = _state_of(lead) + (f": {common_pb2.Stage.Name(lead.outcome)[6:].lower()}" if lead.outcome else "")
        row = (lead.lead_id, lead.customer_id, lead.offer_id, f"{lead.worth:,.2f}", how, who)
        table.add_row(*map(plain, row), _said(lead.from_ms), _said(lead.expires_ms))
    Console(width=max(Console().width, 160)).print(table)


@leads.command()
@address_option
@_lead_argument
@_seller_option
def take(address: str, lead: str, seller: str) -> None:
    """Take an open lead: nobody else can from then on."""
    request = leads_pb2.TakeLeadRequest(lead_id=lead, seller=seller)
    show(call(address, leads_pb2_grpc.LeadsStub, "Take", request))


@leads.command("return")
@address_option
@_lead_argument
@_seller_option
@click.option("--reason", type=TEXT, default="", help="Why.")
def give_back(address: str, lead: str, seller: str, reason: str) -> None:
    """Give a lead back for other sellers."""
    request = leads_pb2.ReturnLeadRequest(lead_id=lead, seller=seller, reason=reason)
    show(call(address, leads_pb2_grpc.LeadsStub, "Return", request))


@leads.command()
@address_option
@_lead_argument
@_seller_option
@click.option("--outcome", required=True, type=click.Choice(sorted(stage.name.lower() for stage in ENDS)))
@click.option("--value", type=float, help="What it was worth.  [default: the declared value]")
@click.option(
    "--attribute", "attributes", type=TEXT, multiple=True, metavar="NAME=TEXT", help="To keep with it; repeat for more."
)
def done(
    address: str, lead: str, seller: str, outcome: str, value: float | None, attributes: tuple[str, ...]
) -> None:
    """End a lead with what the customer said: it is recorded as the outcome."""
    request = leads_pb2.CompleteLeadRequest(
        lead_id=lead, seller=seller, outcome=f"STAGE_{outcome.upper()}", value=value
    )
    for given in attributes:
        name, separator, text = given.partition("=")
        if not separator:
            raise click.BadParameter(f"{given!r}, expected NAME=TEXT", param_hint="--attribute")
        request.attributes[name].text = text
    show(call(address, leads_pb2_grpc.LeadsStub, "Complete", request))


@leads.command()
@address_option
@_list_option
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write it there as CSV, too.")
def report(address: str, list_id: str, out: Path | None) -> None:
    """Show by list and seller where leads stand and what came of them."""
    rows = _counts(_all(address, list_id, "", None))
    headings = ("list", "seller", "leads", *_STATES, "accepted", "declined", "other", "returned", "worth of accepted")
    table = Table(title="leads")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("list", "seller") else "right")
    for row in rows:
        table.add_row(*(plain(f"{value:,.2f}" if isinstance(value, float) else str(value)) for value in row))
    Console(width=max(Console().width, 160)).print(table)
    if out is not None:
        try:
            with out.open("w", newline="") as file:
                csv.writer(file).writerows([headings, *rows])
        except OSError as error:
            raise click.ClickException(f"{out} cannot be written: {error.strerror}") from error


def _counts(found: Iterator[leads_pb2.Lead]) -> Sequence[tuple[str | int | float, ...]]:
    """A row a list and seller; leads for anybody stand under "anybody", returns under who returned them."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    worth: Counter[tuple[str, str]] = Counter()
    for lead in found:
        key = lead.list_id, lead.seller or lead.planned_seller or "anybody"
        of_seller = counts.setdefault(key, Counter())
        of_seller.update(["leads", _state_of(lead)])
        if lead.outcome:
            outcome = common_pb2.Stage.Name(lead.outcome)[6:].lower()
            of_seller.update([outcome if outcome in ("accepted", "declined") else "other"])
            if outcome == "accepted":
                worth[key] += lead.worth  # type: ignore[assignment]  # counters count in any number
        for one in lead.returns:
            counts.setdefault((lead.list_id, one.seller), Counter()).update(["returned"])
    columns = ("leads", *_STATES, "accepted", "declined", "other", "returned")
    return [(*key, *(counts[key][name] for name in columns), float(worth[key])) for key in sorted(counts)]


def _state_of(lead: leads_pb2.Lead) -> str:
    return leads_pb2.LeadState.Name(lead.state)[len("LEAD_STATE_") :].lower()


def _all(address: str, list_id: str, seller: str, state: str | None) -> Iterator[leads_pb2.Lead]:
    wanted = None if state is None else f"LEAD_STATE_{state.upper()}"
    request = leads_pb2.ListLeadsRequest(
        list_id=list_id, seller=seller, state=wanted, page_size=LEAD_CALL_ENTRIES_MAX
    )
    deadline_s = time.monotonic() + 120
    while True:
        page = call(address, leads_pb2_grpc.LeadsStub, "List", request, timeout_s=30)
        yield from page.leads
        request.page_token = page.next_page_token
        if not page.next_page_token or time.monotonic() > deadline_s:
            return
