"""`opportune budgets`: what of each budget is reserved, confirmed and free, and what a unit costs."""

import time
from pathlib import Path
from typing import Any, Final

import click
import orjson
from rich.console import Console
from rich.table import Table

from engine.budgetkeeper import price_of
from engine.budgets import free_units, leased_units
from engine.catalogue import Catalogue
from engine.cli_parts import config_option, told
from engine.cli_plain import plain
from engine.cli_store import data_option, in_store, redis_option, url_of
from engine.cli_told import catalogue_of
from engine.store.redis import RedisStore

_COUNTS: Final = ("units", "confirmed", "reserved", "leased", "free")


@click.command()
@config_option
@data_option
@redis_option
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def budgets(config_path: Path, data_path: Path | None, redis_url: str | None, as_json: bool) -> None:
    """Show the budgets in their current period: units, what is used, what is free, price and pace.

    `leased` is what servers hold ready and nobody has got yet.
    """
    catalogue = catalogue_of(config_path, data_path, redis_url)
    with told():
        found = in_store(
            url_of(data_path, redis_url), lambda store: _rows(store, catalogue, time.time_ns() // 1_000_000)
        )
    if as_json:
        click.echo(orjson.dumps({"budgets": found}, option=orjson.OPT_INDENT_2))
    elif not found:
        click.echo("the configuration has no budgets")
    else:
        _show(found)


def _show(found: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("budget", "period", *_COUNTS, "used", "price", "pace"):
        table.add_column(name, justify="left" if name in ("budget", "period", "pace") else "right")
    for row in found:
        used = row["confirmed"] + row["reserved"]
        share = f"{used / row['units']:.1%}" if row["units"] else "-"
        pace = row["pace"] + (f", at least {row['minimum']:,}" if row["minimum"] else "")
        counts = [f"{row[name]:,}" for name in _COUNTS]
        table.add_row(plain(row["id"]), row["period"], *counts, share, f"{row['price']:.3g}", pace)
    Console(width=140).print(table)


async def _rows(store: RedisStore, catalogue: Catalogue, now_ms: int) -> list[dict[str, Any]]:
    rows, notes = [], await store.budget_notes()
    for at, budget in enumerate(catalogue.config.budgets):
        account = catalogue.budgets.period(at, now_ms).account
        leases = await store.leases(account)
        parts = await store.use(account, 0)  # looking lets go of nothing: that is for servers, by their clocks
        rows.append(
            {
                "id": budget.id,
                "period": account.rpartition("@")[2],
                "units": budget.units,
                "confirmed": sum(part.confirmed for part in parts),
                "reserved": sum(part.reserved for part in parts),
                "leased": leased_units(leases, parts),
                "free": free_units(budget.units, leases, parts),
                "price": price_of(notes, budget.id),
                "pace": budget.pace,
                "minimum": budget.minimum,
            }
        )
    return rows
