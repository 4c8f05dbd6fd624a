"""The features of a configuration: what each means and costs, and whether its data is sound."""

import json
import sys
from pathlib import Path
from typing import Final

import click
from rich import box
from rich.console import Console
from rich.table import Table

from engine.catalogue import Catalogue
from engine.cli_parts import config_option, given_of, told
from engine.cli_plain import plain
from engine.config_base import CUSTOMER
from engine.featurecheck.command import check_features
from engine.featurecheck.thresholds import CUSTOMERS_SAMPLED, CUSTOMERS_SAMPLED_MAX
from engine.recordsize import record_size
from engine.registry import lacking_told, looks_at, registry_of, taken_of
from features import Layout, duration_text
from features.record import EVENT_IDS_REMEMBERED_MAX, HEADER_BYTES, ID_BYTES

_TABLE_COLUMNS_MIN: Final = 110


@click.command()
@config_option
@click.option("--check", is_flag=True, help="Report on the quality of the features' data instead of listing them.")
@click.option("--data", "data_path", type=click.Path(path_type=Path), help="To check: data folder, running or not.")
@click.option("--redis", "redis_url", help="To check: the store of an engine that has its own, redis://… or unix://…")
@click.option("--kafka", help="To check: HOST:PORT[,…] of your Kafka, if that is the event log.")
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write the same there.")
@click.option(
    "--sample", type=click.IntRange(1, CUSTOMERS_SAMPLED_MAX), default=CUSTOMERS_SAMPLED, show_default=True,
    help="To check: customers whose features are read.",
)  # fmt: skip
@click.pass_context
def features(
    context: click.Context,
    /,
    config_path: Path,
    check: bool,
    data_path: Path | None,
    redis_url: str | None,
    kafka: str | None,
    json_path: Path | None,
    sample: int,
) -> None:
    """List the features: what each means, where it lies in a customer's record, what it costs.

    With --check: what is wrong with their data. Exit code 0: nothing. 1: something, at the level of a warning or worse.
    2: cannot tell.
    """
    if check:
        sys.exit(check_features(config_path, data_path, redis_url, kafka, json_path, sample))
    if named := given_of(context, {"data_path", "redis_url", "kafka", "sample"}):
        raise click.UsageError(f"{named} belongs to --check")
    with told():
        catalogue = Catalogue.of_file(config_path)
    config = catalogue.config
    # A table of so many columns needs room: in a pipe or a narrow terminal rich would cut every word of it.
    console = Console(width=max(Console().width, _TABLE_COLUMNS_MIN))
    console.print(_features_table(catalogue))
    for entity, layout in catalogue.layouts.items():
        if layout.specs:
            console.print(_layout_table(entity, layout))
    size = record_size(catalogue)
    click.echo(
        f"a customer's record: {size.one_each_bytes:,} bytes after one event of each type, {size.hourly_bytes:,} after "
        f"one an hour for {size.hourly_days:.3g} days; {HEADER_BYTES} of them are its header, "
        f"{ID_BYTES} the id of each of the last {EVENT_IDS_REMEMBERED_MAX} events"
    )
    for line in lacking_told(config):
        click.echo(f"note: {line}", err=True)
    if json_path is not None:
        try:
            json_path.write_text(json.dumps(registry_of(catalogue), indent=2))
        except OSError as error:
            raise click.ClickException(f"{json_path} cannot be written: {error.strerror}") from error


def _features_table(catalogue: Catalogue) -> Table:
    """What each feature is; without the columns in which no feature has anything."""
    config = catalogue.config
    columns: dict[str, list[str]] = {
        "feature": [feature.name for feature in config.all_features],
        "entity": ["" if feature.entity == CUSTOMER else feature.entity for feature in config.all_features],
        "event": [feature.event or "" for feature in config.all_features],
        "function": [feature.function for feature in config.all_features],
        "of": [taken_of(feature) for feature in config.all_features],
        "over": [looks_at(config.feature_spec(feature)) for feature in config.all_features],
        "default": ["" if feature.default is None else _short(feature.default) for feature in config.all_features],
        "unit": [feature.unit for feature in config.all_features],
        "meaning": [feature.meaning for feature in config.all_features],
        "owner": [feature.owner for feature in config.all_features],
    }
    table = Table(title=plain(f"{config.name}: {len(config.all_features)} features"), box=box.SIMPLE_HEAD)
    shown = {heading: cells for heading, cells in columns.items() if any(cells)}
    for heading in shown:
        table.add_column(heading, overflow="fold")
    for cells in zip(*shown.values(), strict=True):
        table.add_row(*map(plain, cells))
    return table


def _layout_table(entity: str, layout: Layout) -> Table:
    """What stands where in a record: a group is a bit in its head, a cell a bit in the mask of each tile."""
    title = f"record of a {entity}: layout {layout.version:08x}"
    table = Table(title=plain(title), box=box.SIMPLE_HEAD)
    for heading in ("group", "event", "tiles", "cells", "keeps", "bytes a tile", "read by"):
        table.add_column(heading, justify="right" if heading == "bytes a tile" else "left", overflow="fold")
    before = -1
    for row in layout.places():
        tiles = f"{row.tiles} of {duration_text(row.tile_ms)}" if row.tile_ms else "lifetime"
        of_group = (str(row.group), row.event, tiles) if row.group != before else ("", "", "")
        before = row.group
        cells = str(row.cells[0]) if len(row.cells) == 1 else f"{row.cells[0]}–{row.cells[-1]}"
        told = (*of_group, cells, row.keeps, str(row.bytes_typical), ", ".join(row.features))
        table.add_row(*map(plain, told))
    return table


def _short(default: float | str) -> str:
    return f"{default:.15g}" if isinstance(default, float) else default
