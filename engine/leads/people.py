"""Whom leads may be made of: customers of a file, with attributes (engine.leads.segment: those of a segment)."""

import csv
from pathlib import Path
from typing import Final

from engine import limits
from engine.errors import ConfigError
from engine.leads.places import MORE

People = dict[str, dict[str, str]]
"""Attributes by customer, in the order of the file."""
Rows = list[tuple[int, dict[str, str]]]
"""(line or row, columns)"""
_PROBLEMS_MAX: Final = 20


def read_people(path: Path) -> People:
    """The customers of a CSV or Parquet file with a column `customer`. Raises ConfigError with file and line."""
    people: People = {}
    problems: list[str] = []
    try:
        for line, row in _parquet(path) if path.suffix == ".parquet" else _csv(path):
            name = row.pop("customer") or ""
            if not 1 <= len(name.encode()) <= limits.ID_BYTES_MAX or not name.isprintable():
                problems.append(f"{path}:{line}: customer: {name[:80]!r}, expected 1 to {limits.ID_BYTES_MAX} bytes")
            elif name in people:
                problems.append(f"{path}:{line}: customer {name!r} is there twice")
            else:
                people[name] = {key: value for key, value in row.items() if value}
            if len(people) > limits.LEAD_CUSTOMERS_ENTRIES_MAX:
                raise ConfigError(f"{path}: more than {limits.LEAD_CUSTOMERS_ENTRIES_MAX} customers")
            if len(problems) >= _PROBLEMS_MAX:
                break
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error}") from error
    if problems:
        raise ConfigError("\n".join(problems))
    if not people:
        raise ConfigError(f"{path}: no customers, expected a row each")
    return people


def _csv(path: Path) -> Rows:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, restkey=MORE, strict=True)
        try:
            if "customer" not in (reader.fieldnames or ()):
                raise ConfigError(f"{path}:1: no column 'customer'; there are {', '.join(reader.fieldnames or ())}")
            named = list(reader.fieldnames or ())
            if len(set(named)) < len(named):
                twice = next(name for name in named if named.count(name) > 1)
                raise ConfigError(f"{path}:1: two columns are called {twice!r}")
            rows = [(reader.line_num, row) for row in reader]
        except csv.Error as error:
            raise ConfigError(f"{path}:{reader.line_num}: {error}") from error
    for line, row in rows:
        if MORE in row:
            raise ConfigError(f"{path}:{line}: more values than the {len(row) - 1} columns")
    return rows


def _parquet(path: Path) -> Rows:
    import polars  # a second of its own, which no other command needs

    try:
        frame = polars.read_parquet(path)
    except polars.exceptions.PolarsError as error:
        raise ConfigError(f"{path}: no Parquet file: {error}") from error
    if "customer" not in frame.columns:
        raise ConfigError(f"{path}:1: no column 'customer'; there are {', '.join(frame.columns)}")
    try:
        texts = frame.with_columns(polars.all().cast(polars.String))
    except polars.exceptions.PolarsError as error:
        raise ConfigError(f"{path}: expected columns of texts, numbers and the like: {error}") from error
    return list(enumerate(texts.iter_rows(named=True), 1))
