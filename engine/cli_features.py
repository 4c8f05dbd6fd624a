"""The features of a configuration: what each means and costs, and whether its data is sound."""

import json
import sys
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.table import Table

from engine.catalogue import Catalogue
from engine.cli_parts import config_option, given_of, told
from engine.cli_plain import plain
from engine.featurecheck.command import check_features
from engine.featurecheck.thresholds import CUSTOMERS_SAMPLED, CUSTOMERS_SAMPLED_MAX
from engine.recordsize import record_size
from engine.registry import hashed_into, lacking_told, registry_of
from features.record import EVENT_IDS_REMEMBERED_MAX, HEADER_BYTES, ID_BYTES

_TABLE_COLUMNS_MIN: Final = 160


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
    title = f"{config.name}: {len(config.all_features)} features, layout {catalogue.layout.version:08x}"
    table = Table(title=plain(title))
    headings = ("feature", "entity", "function", "event", "value", "window", "keeps", "tiles", "bytes a tile")
    for heading in (*headings, "unit", "meaning", "owner"):
        table.add_column(heading, justify="right" if heading in ("tiles", "bytes a tile") else "left")
    rows = {row.name: row for layout in catalogue.layouts.values() for row in layout.describe()}
    for feature in config.all_features:
        row = rows[feature.name]
        window = "lifetime" if feature.window is None else f"{feature.window / 3_600_000:g} h"
        cells = (
            feature.name,
            feature.entity,
            feature.function,
            feature.event or "",
            (feature.attribute or feature.value or "") + hashed_into(feature),
            window,
            row.keeps + (" (shared)" if row.shared else ""),
            str(row.tiles or ""),
            str(row.bytes_typical),
            feature.unit,
            feature.meaning,
            feature.owner,
        )
        table.add_row(*map(plain, cells))
    # A table of ten columns needs room: in a pipe or a narrow terminal rich would cut every word of it.
    Console(width=max(Console().width, _TABLE_COLUMNS_MIN)).print(table)
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
