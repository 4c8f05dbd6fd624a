"""What a benchmark found: a table for people, a file for machines, each figure beside what it was held against."""

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

PACKAGES = ("opportune", "grpcio", "hpack", "numpy", "redis", "hiredis", "orjson", "uvloop", "protobuf")


@dataclass(frozen=True)
class Row:
    """One figure. `ratio` is what a bar is set on, where there is one; `against` says what it was held against."""

    metric: str
    value: float
    unit: str
    against: str = ""
    ratio: float | None = None


@dataclass
class Report:
    """The figures of one run."""

    name: str
    generator: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    """What the figures are made of, by name; in the file only."""

    def add(self, metric: str, value: float, unit: str, against: str = "", ratio: float | None = None) -> None:
        """Note a figure."""
        self.rows.append(Row(metric, value, unit, against, ratio))

    def as_dict(self) -> dict[str, Any]:
        """The form of the file."""
        found: dict[str, Any] = {
            "machine": machine(),
            "versions": versions() | {"generator": self.generator},
            "rows": [asdict(row) for row in self.rows],
            "notes": self.notes,
        }
        return found | ({"details": self.details} if self.details else {})

    def show(self) -> None:
        """Print the table."""
        table = Table(title=f"{self.name} (load from {self.generator})")
        for heading, justify in (
            ("metric", "left"),
            ("value", "right"),
            ("unit", "left"),
            ("ratio", "right"),
            ("against", "left"),
        ):
            table.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
        for row in self.rows:
            table.add_row(
                row.metric,
                _figure(row.value),
                row.unit,
                "" if row.ratio is None else f"{row.ratio:.3g}",
                row.against,
            )
        console = Console()
        console.print(table)
        for note in self.notes:
            console.print(f"- {note}")

    def write(self, path: Path) -> None:
        """Write the file."""
        path.write_text(json.dumps(self.as_dict(), indent=1) + "\n")


def markdown_rows(found: dict[str, Any]) -> list[str]:
    """The figures of a committed file as rows of README's table, so that a test can hold one against the other."""
    rows = []
    for row in found["rows"]:
        value = _figure(row["value"])
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f} ×"
        rows.append(f"| `{row['metric']}` | {value} {row['unit']} | {ratio} | {row['against']} |")
    return rows


def _figure(value: float) -> str:
    return f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"


def machine() -> dict[str, Any]:
    """What it was measured on."""
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Versions of what has a part in the figures."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
