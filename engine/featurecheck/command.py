"""`opportune features --check`: from its options to its exit code."""

import asyncio
import time
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from engine.catalogue import Catalogue
from engine.cli_store import check_brokers, url_of, write_report
from engine.datafolder import DataFolder
from engine.errors import DataFolderError, OpportuneError

_TABLE_COLUMNS_MIN: Final = 160


def check_features(
    config_path: Path,
    data_path: Path | None,
    redis_url: str | None,
    kafka: str | None,
    json_path: Path | None,
    customers_max: int,
) -> int:
    """Check, print the report, write it as JSON if asked, and return the exit code: that of `Verdict`."""
    source = url_of(data_path, redis_url)
    check_brokers(kafka)
    # They bring river, which takes a second to import and which no other command needs.
    from engine.featurecheck.reading import check_at
    from engine.featurecheck.report import Verdict

    try:
        catalogue = Catalogue.of_file(config_path)
        # Nothing goes silent while an engine is stopped: its time is that of the newest thing it took.
        stopped = data_path is not None and not _runs(data_path)
        with source as url:
            now_ms = None if stopped else time.time_ns() // 1_000_000
            report = asyncio.run(check_at(url, kafka, catalogue, customers_max, now_ms))
        if json_path is not None:
            write_report(json_path, report.to_json())
    except (OpportuneError, OSError) as error:
        click.echo(f"Error: {error}", err=True)
        return Verdict.CANNOT_TELL
    # Tables of ten columns need room: in a pipe or a narrow terminal rich would cut every word of them.
    report.print(Console(width=max(Console().width, _TABLE_COLUMNS_MIN)))
    return report.verdict


def _runs(data_path: Path) -> bool:
    """Whether an engine holds the data folder."""
    if not (data_path / "format").exists():
        return False
    try:
        DataFolder(data_path).close()
    except DataFolderError:
        return True
    return False
