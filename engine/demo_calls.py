"""The calls of the demo: the Bank Marketing file as what a bank's systems would have known, and when.

A row becomes a profile (of the dial list, known the day before), the facts of the call, and the answer that was given.
`duration` is not read: it is known when the call is over.
"""

import csv
import gzip
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Final

MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
FIRST_YEAR: Final = 2008

_PROFILE_TEXTS: Final = {
    "job": "job",
    "marital": "marital",
    "education": "education",
    "default": "credit_default",
    "housing": "housing_loan",
    "loan": "personal_loan",
    "contact": "phone",
    "poutcome": "previous_outcome",
}
_PROFILE_NUMBERS: Final = {"age": "age", "pdays": "previous_days_ago", "previous": "previous_contacts"}
_FACT_TEXTS: Final = {"month": "month", "day_of_week": "day_of_week"}
_FACT_NUMBERS: Final = {
    "campaign": "attempt",
    "emp.var.rate": "employment_variation",
    "cons.price.idx": "consumer_prices",
    "cons.conf.idx": "consumer_confidence",
    "euribor3m": "euribor_3m",
    "nr.employed": "employees_thousands",
}
_NEVER_CONTACTED: Final = "999"

Plain = str | float


@dataclass(frozen=True, slots=True)
class Call:
    """One call: who is on the line, what is known when it begins, and what the customer answered."""

    number: int
    time_ms: int
    month: int
    """Which month with calls it is in, 0 for the first."""
    profile: Mapping[str, Plain]
    facts: Mapping[str, Plain]
    yes: bool

    @property
    def customer(self) -> str:
        """The file does not say who it was; each call is another customer."""
        return f"customer-{self.number:05}"


def read_calls(path: Path) -> list[Call]:
    """All calls of the file, in its order. Raises OSError or ValueError if it is not that file."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    try:
        times = spread(row["month"] for row in rows)
        return [
            Call(number, time_ms, month, _profile(row), _facts(row), row["y"] == "yes")
            for number, (row, (month, time_ms)) in enumerate(zip(rows, times, strict=True))
        ]
    except KeyError as error:
        raise ValueError(f"{path} has no column or month {error}: expected bank-additional-full.csv") from error


def spread(months: Iterable[str]) -> list[tuple[int, int]]:
    """(ordinal of the month, time in ms) of each call, given the months of the calls in order.

    The file is in order of time but names only the month: a month that comes before the last one is of the next year,
    and the calls of a month are spread evenly over it.

    >>> [(at, f"{datetime.fromtimestamp(ms / 1e3, UTC):%Y-%m-%d %H:%M}") for at, ms in spread(["dec", "mar", "mar"])]
    [(0, '2008-12-16 12:00'), (1, '2009-03-08 18:00'), (1, '2009-03-24 06:00')]
    """
    times: list[tuple[int, int]] = []
    year, previous = FIRST_YEAR, 0
    for ordinal, (name, run) in enumerate(groupby(months)):
        month, count = MONTHS.index(name) + 1, sum(1 for _ in run)
        year += month < previous
        previous = month
        start_ms, end_ms = _month_ms(year, month), _month_ms(year + month // 12, month % 12 + 1)
        times += [(ordinal, start_ms + (2 * at + 1) * (end_ms - start_ms) // (2 * count)) for at in range(count)]
    return times


def _month_ms(year: int, month: int) -> int:
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp()) * 1_000


def _profile(row: Mapping[str, str]) -> dict[str, Plain]:
    profile: dict[str, Plain] = {name: row[column] for column, name in _PROFILE_TEXTS.items()}
    for column, name in _PROFILE_NUMBERS.items():
        if column != "pdays" or row[column] != _NEVER_CONTACTED:
            profile[name] = float(row[column])
    return profile


def _facts(row: Mapping[str, str]) -> dict[str, Plain]:
    facts: dict[str, Plain] = {name: row[column] for column, name in _FACT_TEXTS.items()}
    return facts | {name: float(row[column]) for column, name in _FACT_NUMBERS.items()}
