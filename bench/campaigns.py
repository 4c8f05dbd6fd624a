"""Logged campaigns for the benchmarks of learning: contexts, what was done, what came of it.

Contexts are prepared as in `bench.bakeoff`: online, in the order of the rows.
"""

import csv
import gzip
import json
import lzma
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.bakeoff import one_hot, standardised

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

HILLSTROM_ARMS: Final = ("No E-Mail", "Mens E-Mail", "Womens E-Mail")
_HILLSTROM: Final = "Kevin_Hillstrom_MineThatData_E-MailAnalytics_DataMiningChallenge_2008.03.20.csv.gz"
STARBUCKS_NONE: Final = 0
STARBUCKS_PROPENSITIES: Final = (0.25, *(0.075,) * 10)
STARBUCKS_WAVES_H: Final = (0, 168, 336, 408, 504, 576)
SPEND_WINDOW_H: Final = 72
SPEND_MAX: Final = 60.0


@dataclass(frozen=True)
class Context:
    """Raw columns of rows: numbers (n, columns), NaN for missing, and category codes (n, columns), -1 for missing."""

    numbers: Floats
    codes: Ints

    def prepared(self, rows: Ints) -> tuple[Floats32, Bools]:
        """x (n, d) of the rows in this order, and which of its columns are 0 or 1."""
        numbers, (hot, _) = standardised(self.numbers[rows]), one_hot(self.codes[rows])
        x = np.ascontiguousarray(np.hstack([numbers, hot]), np.float32)
        return x, np.arange(x.shape[1]) >= numbers.shape[1]


@dataclass(frozen=True)
class Hillstrom:
    """64,000 customers, each sent one of two e-mails or none with the same probability.

    Args:
        context: a row a customer; there is no time, so any order is as good.
        arm: (n,) index in `HILLSTROM_ARMS`.
        visit: (n,) 0 or 1.
        spend: (n,) dollars in two weeks.
    """

    context: Context
    arm: Ints
    visit: Floats
    spend: Floats


@dataclass(frozen=True)
class Starbucks:
    """People in six waves, each given one of ten offers or none.

    Args:
        context: a row a person and wave, in order of the waves; only what was known when the wave went out.
        wave: (n,) index in `STARBUCKS_WAVES_H`.
        arm: (n,) `STARBUCKS_NONE`, or 1 .. 10 in the order of portfolio.json.
        spent: (n,) dollars in the `SPEND_WINDOW_H` after the wave, held to `SPEND_MAX`.
        paid: (n,) dollars of reward for completing the offer.
        paid_h: (n,) when that was paid; infinite where it never was.
    """

    context: Context
    wave: Ints
    arm: Ints
    spent: Floats
    paid: Floats
    paid_h: Floats

    @property
    def net(self) -> Floats:
        """(n,) what a person and wave came to in the end, in dollars."""
        return self.spent - self.paid

    def net_by(self, hour: int) -> Floats:
        """(n,) what was known of that before an hour, of windows that were over: rewards may still have to be paid."""
        return self.spent - np.where(self.paid_h < hour, self.paid, 0.0)


@dataclass(frozen=True)
class Bank:
    """Calls of a bank that sells a deposit, in the order they were made; without `duration`, known only afterwards.

    Args:
        context: a row a call.
        yes: (n,) 0 or 1.
    """

    context: Context
    yes: Floats


def hillstrom(folder: Path) -> Hillstrom:
    """Read the set. Raises FileNotFoundError where it is not."""
    with gzip.open(folder / "hillstrom" / _HILLSTROM, "rt", newline="") as lines:
        rows = list(csv.DictReader(lines))
    history = [float(np.log1p(float(row["history"]))) for row in rows]
    numbers = np.array(
        [[float(row["recency"]), spent, float(row["mens"]), float(row["womens"]), float(row["newbie"])]
         for row, spent in zip(rows, history, strict=True)]
    )
    context = Context(numbers, _coded(rows, ("zip_code", "channel")))
    arm = np.array([HILLSTROM_ARMS.index(row["segment"]) for row in rows])
    visit, spend = (np.array([float(row[name]) for row in rows]) for name in ("visit", "spend"))
    return Hillstrom(context, arm, visit, spend)


def bank(folder: Path) -> Bank:
    """Read the set. Raises FileNotFoundError where it is not."""
    with gzip.open(folder / "bank-marketing" / "bank-additional-full.csv.gz", "rt", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter=";"))
    measured = ("age", "campaign", "previous", "emp.var.rate", "cons.price.idx", "cons.conf.idx", "euribor3m")
    numbers = np.array([[float(row[name]) for name in (*measured, "nr.employed", "pdays")] for row in rows])
    numbers[numbers[:, -1] == 999, -1] = np.nan  # never contacted before; poutcome says so
    named = ("job", "marital", "education", "default", "housing", "loan", "contact", "month", "day_of_week", "poutcome")
    return Bank(Context(numbers, _coded(rows, named)), np.array([float(row["y"] == "yes") for row in rows]))


def starbucks(folder: Path) -> Starbucks:
    """Read the set. Raises FileNotFoundError where it is not."""
    place = folder / "starbucks-offers"
    portfolio = [json.loads(line) for line in (place / "portfolio.json").read_text().splitlines() if line.strip()]
    arm_of = {offer["id"]: at for at, offer in enumerate(portfolio, start=1)}
    with gzip.open(place / "profile.json.gz", "rt") as lines:
        profiles = {found["id"]: found for found in map(json.loads, filter(str.strip, lines))}
    spent: dict[str, list[tuple[int, float]]] = defaultdict(list)
    received: dict[tuple[str, int], int] = {}
    completed: dict[str, list[tuple[int, int]]] = defaultdict(list)
    people: dict[str, None] = {}
    with lzma.open(place / "transcript.json.xz", "rt") as lines:
        for line in filter(str.strip, lines):
            event = json.loads(line)
            person, kind, value, time_h = event["person"], event["event"], event["value"], event["time"]
            people[person] = None
            if kind == "transaction":
                spent[person].append((time_h, value["amount"]))
            elif kind == "offer received":
                received[person, time_h] = arm_of[value["offer id"]]
            elif kind == "offer completed":
                completed[person].append((time_h, arm_of[value["offer_id"]]))
    numbers, genders, wave, arm, spending, paid, paid_h = [], [], [], [], [], [], []
    for index, start_h in enumerate(STARBUCKS_WAVES_H):
        for person in people:
            given = received.get((person, start_h), STARBUCKS_NONE)
            offer = portfolio[given - 1] if given else None
            open_h = int(offer["duration"] * 24) if offer else 0
            window = [amount for at_h, amount in spent[person] if start_h <= at_h < start_h + SPEND_WINDOW_H]
            done = [at_h for at_h, it in completed[person] if it == given and start_h <= at_h <= start_h + open_h]
            before = [(at_h, amount) for at_h, amount in spent[person] if at_h < start_h]
            profile = profiles[person]
            numbers.append(
                [
                    float(profile["age"]) if profile["age"] != 118 else np.nan,  # 118 stands for not known
                    float(profile["income"]) if profile["income"] is not None else np.nan,
                    float(profile["became_member_on"][:4]),
                    float(len(before)),
                    float(np.log1p(sum(amount for _, amount in before))),
                    float(start_h - before[-1][0]) if before else np.nan,
                ]
            )
            genders.append({"gender": profile["gender"] or "not known"})
            wave.append(index)
            arm.append(given)
            spending.append(min(sum(window), SPEND_MAX))
            paid.append(float(offer["reward"]) if offer and done else 0.0)
            paid_h.append(float(min(done, default=np.inf)))
    context = Context(np.array(numbers), _coded(genders, ("gender",)))
    return Starbucks(context, *(np.array(column) for column in (wave, arm, spending, paid, paid_h)))


def _coded(rows: list[dict[str, str]], names: tuple[str, ...]) -> Ints:
    """Codes of categories, in order of first appearance."""
    codes = np.empty((len(rows), len(names)), np.int64)
    for column, name in enumerate(names):
        seen: dict[str, int] = {}
        codes[:, column] = [seen.setdefault(row[name], len(seen)) for row in rows]
    return codes
