"""A customer as a page in a terminal."""

import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from engine.cli_parts import TEXT, address_option, call
from engine.cli_parts import show as show_message
from engine.cli_plain import plain
from engine.lifecycle import OPEN, Stage
from engine.timeline import Kind, text_of
from opportune.v1 import common_pb2, customers_pb2, customers_pb2_grpc, decisions_pb2

_KIND_NAMES: Final[dict[int, str]] = {kind: kind.name.lower() for kind in Kind}
KINDS: Final = tuple(_KIND_NAMES.values())
_UNITS: Final = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000))
_TABLE_COLUMNS_MIN: Final = 160


@click.command()
@address_option
@click.option("--customer", type=TEXT, required=True)
@click.option(
    "--kind", "kinds", multiple=True, type=click.Choice(KINDS), help="Only these entries; repeat for more."
)
@click.option("--channel", "channels", type=TEXT, multiple=True, help="Only entries of this channel; repeat for more.")
@click.option(
    "--page-size", type=click.IntRange(0, 2**31 - 1), default=0, help="Entries of the timeline.  [default: 50]"
)
@click.option("--page", "page_token", type=TEXT, default="", help="Token of the next page, as the page before told it.")
@click.option("--json", "as_json", is_flag=True, help="The message as it came.")
def customer(
    address: str,
    customer: str,
    kinds: tuple[str, ...],
    channels: tuple[str, ...],
    page_size: int,
    page_token: str,
    as_json: bool,
) -> None:
    """Show what the engine knows of a customer: profile, features, complaint cases, timeline."""
    request = customers_pb2.GetCustomerRequest(
        customer_id=customer,
        kinds=[f"TIMELINE_KIND_{kind.upper()}" for kind in kinds],
        channels=channels,
        page_size=page_size,
        page_token=page_token,
    )
    found = call(address, customers_pb2_grpc.CustomersStub, "Get", request)
    if as_json:
        show_message(found)
    else:
        # In a pipe rich would cut what does not fit 80 columns.
        console = Console(width=None if sys.stdout.isatty() else _TABLE_COLUMNS_MIN)
        show(console, found, time.time_ns() // 1_000_000)


def show(console: Console, customer: customers_pb2.Customer, now_ms: int) -> None:
    """Print profile, features, offers that are open, cases and one page of the timeline."""
    state = customer.state
    known = f"{customer.events:,} events, the newest {_ago(state.age_ms)} old" if state.known else "nothing is known"
    console.print(plain(customer.customer_id), style="bold", end="")
    console.print(f" · {known} · {customer.bytes:,} bytes")
    for what, values in (
        ("segments", customer.segments),
        ("identities", [f"{identity.kind} {identity.value}" for identity in customer.identities]),
    ):
        if values:
            console.print(plain(f"{what}: {', '.join(values)}"))
    for title, features in (("profile", customer.profile), ("features", customer.features)):
        names = {feature.name for feature in customer.profile} if title == "features" else set()
        rows = [_feature_row(feature) for feature in features if feature.name not in names]
        _table(console, title, ("name", "value", "unit", "as of"), rows)
    open_offers = [offer for offer in customer.offers if Stage(offer.stage) in OPEN and offer.expires_ms > now_ms]
    _table(console, "open offers", _OFFER_HEADINGS, [_offer_row(offer) for offer in open_offers])
    show_contacts(console, customer)
    _table(console, "complaint cases", _CASE_HEADINGS, [_case_row(case) for case in customer.cases])
    _table(console, "timeline", _ENTRY_HEADINGS, [_entry_row(entry) for entry in customer.timeline])
    if customer.next_page_token:
        console.print(f"older entries: --page {customer.next_page_token}")
    elif customer.timeline_floor_ms:
        console.print(f"events up to {_time(customer.timeline_floor_ms)} may be missing")


def show_contacts(console: Console, customer: customers_pb2.Customer) -> None:
    """Print what contact policy says of a customer; nothing where there is none."""
    rows = [(f"{c.days} d", c.channel or "–", str(c.contacts), str(c.offers)) for c in customer.contacts]
    _table(console, "contacts", ("within", "channel", "contacts", "offers"), rows)
    caps = [(c.name, c.of, f"{c.used} of {c.most}", _time(c.free_again_ms)) for c in customer.caps]
    _table(console, "caps", ("cap", "of", "used", "free again (UTC)"), caps)
    cools = [(c.name, c.of, _time(c.until_ms)) for c in customer.cool_offs]
    _table(console, "cool-offs", ("cool-off", "of", "until (UTC)"), cools)
    if customer.contact_pressure:
        told = f"{customer.contact_pressure:.2f}, which adds {customer.contact_surcharge:.2f} to the cost of a contact"
        console.print(f"contact pressure: {told}")


_OFFER_HEADINGS: Final = ("offer", "stage", "channel", "served", "expires", "parameters", "held until", "decision")
_CASE_HEADINGS: Final = ("case", "state", "age", "complaints", "channels", "first", "last", "what")
_ENTRY_HEADINGS: Final = ("time (UTC)", "kind", "channel", "what", "author", "case")


def _feature_row(feature: customers_pb2.Feature) -> tuple[str, ...]:
    value = _value(feature.value) if feature.HasField("value") else "–"
    as_of = "default" if feature.defaulted else _time(feature.latest_event_ms)
    return feature.name, value, feature.unit, as_of


def _offer_row(offer: decisions_pb2.OpenOffer) -> tuple[str, ...]:
    parameters = ", ".join(f"{name} {_value(value)}" for name, value in sorted(offer.parameters.items()))
    times = _time(offer.served_ms), _time(offer.expires_ms)
    held = _time(offer.price_held_until_ms)
    return offer.offer_id, Stage(offer.stage).name.lower(), offer.channel, *times, parameters, held, offer.decision_id


def _case_row(case: customers_pb2.ComplaintCase) -> tuple[str, ...]:
    return (
        case.case_id,
        "open" if case.open else "closed",
        _ago(case.age_ms),
        str(case.complaints),
        ", ".join(case.channels),
        _time(case.first_ms),
        _time(case.last_ms),
        case.text,
    )


def _entry_row(entry: customers_pb2.TimelineEntry) -> tuple[str, ...]:
    case = f"{entry.case_id} (again)" if entry.duplicate else entry.case_id
    channel = f"{entry.channel}/{entry.placement}" if entry.placement else entry.channel
    kind = _KIND_NAMES.get(entry.kind, str(entry.kind))  # a newer engine may know more kinds
    return _time(entry.time_ms), kind, channel, entry.text, entry.author, case


def _table(console: Console, title: str, headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    if not rows:
        return
    table = Table(title=title, title_justify="left", title_style="bold")
    for heading in headings:
        table.add_column(heading)
    for row in rows:
        table.add_row(*map(plain, row))
    console.print(table)


def _value(value: common_pb2.Value) -> str:
    held: Any = getattr(value, value.WhichOneof("kind") or "text")
    return text_of(held)


def _time(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1e3, UTC).strftime("%Y-%m-%d %H:%M:%S") if time_ms else ""


def _ago(age_ms: int) -> str:
    """A length of time in its largest whole unit.

    >>> _ago(0), _ago(90_000), _ago(3 * 86_400_000 + 5)
    ('0 s', '1 min', '3 d')
    """
    unit, unit_ms = next(((unit, ms) for unit, ms in _UNITS if age_ms >= ms), _UNITS[-1])
    return f"{age_ms // unit_ms} {unit}"
