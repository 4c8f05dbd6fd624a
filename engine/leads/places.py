"""Files of sellers: what each can do in which period, and for which customers.

CSV with a row a seller and period, or YAML with a list of the same:

    seller,capacity,from,until,branch          - {seller: ann, capacity: 20, branch: [12, 14]}
    ann,20,2026-05-04,2026-05-09,12|14         - {seller: bob, capacity: 30, from: 2026-05-04, until: 2026-05-09}

`from` and `until` may be left out. Any further column is an attribute of customers: its values, separated by "|", are
those whom the row is for; an empty one is for all. A seller with two periods has two rows.
"""

import csv
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from engine.errors import ConfigError
from engine.leads.assign import Place
from engine.limits import ID_BYTES_MAX, LEAD_SELLERS_ENTRIES_MAX, TIME_MS_MAX

MORE: Final = "\0"
"""In place of the name of a column: values behind the last one. No column is called so."""
_OWN: Final = ("seller", "capacity", "from", "until")
_CAPACITY_MAX: Final = 1_000_000

Row = tuple[int, Mapping[str, Any]]
"""(line, columns)"""


def read_places(path: Path) -> list[Place]:
    """The places of a file. Raises ConfigError with file, line and what was expected, all problems at once."""
    try:
        rows = list(_rows(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error}") from error
    places: list[Place] = []
    problems: list[str] = []
    seen: dict[tuple[str, int, int, object], int] = {}
    if len(rows) > LEAD_SELLERS_ENTRIES_MAX:
        raise ConfigError(f"{path}: {len(rows)} rows, at most {LEAD_SELLERS_ENTRIES_MAX} are allowed")
    for line, row in rows:
        try:
            place = _place(row)
            key = (place.seller, place.from_ms, place.until_ms, place.suits)
            if (first := seen.setdefault(key, line)) != line:
                raise ValueError(f"seller: {place.seller!r} is there for the same in line {first}")
            places.append(place)
        except ValueError as error:
            problems.append(f"{path}:{line}: {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    if not places:
        raise ConfigError(f"{path}:1: no sellers, expected a row each with seller and capacity")
    return places


def _rows(path: Path) -> Iterator[Row]:
    if path.suffix in (".yaml", ".yml"):
        try:
            tree = YAML(typ="rt").load(path.read_text())
        except MarkedYAMLError as error:
            mark = error.problem_mark
            raise ConfigError(f"{path}:{mark.line + 1 if mark else 1}: {error.problem}") from error
        except YAMLError as error:
            raise ConfigError(f"{path}:1: {error}") from error
        if not isinstance(tree, list):
            raise ConfigError(f"{path}:1: expected a list of sellers")
        for at, row in enumerate(tree):
            line = tree.lc.item(at)[0] + 1  # type: ignore[attr-defined]  # ruamel's lists carry their lines
            if not isinstance(row, dict):
                raise ConfigError(f"{path}:{line}: expected a mapping with seller and capacity")
            yield line, row
        return
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, restkey=MORE, strict=True)
        try:
            missing = [name for name in ("seller", "capacity") if name not in (reader.fieldnames or ())]
            if missing:
                raise ConfigError(f"{path}:1: no column {missing[0]!r}, expected seller, capacity, from, until, …")
            for row in reader:
                if MORE in row:
                    raise ConfigError(f"{path}:{reader.line_num}: more values than the {len(row) - 1} columns")
                yield reader.line_num, row
        except csv.Error as error:
            raise ConfigError(f"{path}:{reader.line_num}: {error}") from error


def _place(row: Mapping[str, Any]) -> Place:
    seller = str(row.get("seller") or "").strip()
    if not 1 <= len(seller.encode()) <= ID_BYTES_MAX or not seller.isprintable():
        raise ValueError(f"seller: {seller!r}, expected 1 to {ID_BYTES_MAX} bytes of printable text")
    text = str(row.get("capacity") if row.get("capacity") is not None else "").strip()
    if not text.isascii() or not text.isdecimal() or int(text) > _CAPACITY_MAX:
        raise ValueError(f"capacity: {text!r}, expected a whole number of 0 to {_CAPACITY_MAX}")
    from_ms, until_ms = _time(row.get("from"), "from"), _time(row.get("until"), "until")
    if until_ms and until_ms <= from_ms:
        raise ValueError(f"until: {row['until']}, expected a time after from")
    suits = []
    for name, given in row.items():
        if name in _OWN:
            continue
        values = given if isinstance(given, list) else str(given if given is not None else "").split("|")
        wanted = frozenset(str(value).strip() for value in values) - {""}
        if wanted:
            suits.append((str(name), wanted))
    return Place(seller, int(text), from_ms, until_ms, tuple(sorted(suits, key=lambda suit: suit[0])))


def _time(given: Any, column: str) -> int:
    """Milliseconds of a date or a time; of one without a zone, UTC. 0 if there is none."""
    text = str(given if given is not None else "").strip()
    if not text:
        return 0
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{column}: {text!r}, expected a date or a time as 2026-05-04 or 2026-05-04T08:00Z") from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    time_ms = int(found.timestamp() * 1e3)
    if not 0 < time_ms <= TIME_MS_MAX:
        raise ValueError(f"{column}: {text!r}, expected a time after 1970 and before the year 10000")
    return time_ms
