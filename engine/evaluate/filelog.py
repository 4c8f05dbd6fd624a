"""A log from a file: as `opportune dataset` writes it, or any other with columns of action, reward and propensity."""

import math
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from engine.errors import InvalidArgument
from engine.evaluate.log import NOTHING, REPEATED, Floats, Log
from models import DIMENSION_MAX, InputSpec, PosteriorOptions, Transform
from models.evaluation import PROPENSITY, PROPENSITY_MIN, REWARD_MAX
from models.transform import STEPS

PRIOR: Final = PosteriorOptions(prior_strength=10.0)
CATEGORIES_MAX: Final = 32
"""Of a text among the context; rarer values count as missing."""
_OF_DATASET: Final = {"decision_id", "offer", "offer_key", "rank", "propensity", "window_closed"}
_FRACTION: Final = re.compile(r"-?\d{1,20}/\d{1,20}")
_RANGE: Final = (0.01, 0.99)
"""Quantiles between which a number among the context counts."""


class Table:
    """The rows of a file, with words for what is wrong in them."""

    def __init__(self, path: Path) -> None:
        """Read it, Parquet or CSV by its name. Raises InvalidArgument."""
        self.path = path
        self.csv = path.suffix != ".parquet"
        try:
            # Everything of a CSV is a text: a column that turns out not to be numbers is told by row and value.
            self.frame = pl.read_csv(path, infer_schema=False) if self.csv else pl.read_parquet(path)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise InvalidArgument(f"{path}: cannot be read as {'CSV' if self.csv else 'Parquet'}: {error}") from error
        if not self.frame.height:
            raise InvalidArgument(f"{path}: has no rows")
        self.numbers = np.arange(self.frame.height) + (2 if self.csv else 1)
        """Of the rows, as an editor numbers them."""

    def keep(self, condition: pl.Expr) -> int:
        """Keep the rows for which it holds; returns how many went."""
        kept = self.frame.select(condition.fill_null(value=False).alias("kept"))["kept"].to_numpy()
        self.frame, self.numbers = self.frame.filter(kept), self.numbers[kept]
        return int(len(kept) - kept.sum())

    def column(self, name: str, option: str) -> pl.Series:
        """A column. Raises InvalidArgument if there is none."""
        if name not in self.frame.columns:
            there = ", ".join(self.frame.columns[:20])
            raise InvalidArgument(f"{self.path}: has no column {name!r} ({option}), expected one of: {there}")
        return self.frame[name]

    def wrong(self, at: int, column: str, expected: str) -> InvalidArgument:
        """The error about one value; `at` counts the rows that were kept."""
        value = self.frame[column][at]
        found = "nothing" if value is None else repr(value)
        return InvalidArgument(f"{self.path} row {self.numbers[at]}: {column}: {found}, expected {expected}")

    def floats(self, name: str, option: str, expected: str, low: float = -math.inf, high: float = math.inf) -> Floats:
        """A column of finite numbers between two others, flags counting as 0 and 1. Raises InvalidArgument."""
        column = self.column(name, option)
        if column.dtype == pl.String:
            column = column.str.strip_chars().str.to_lowercase().replace({"true": "1", "false": "0"})
        if not (column.dtype.is_numeric() or column.dtype in (pl.String, pl.Boolean, pl.Null)):
            raise InvalidArgument(f"{self.path}: column {name} ({option}) holds {column.dtype}, expected numbers")
        values = column.cast(pl.Float64, strict=False).fill_null(math.nan).to_numpy()
        good = np.isfinite(values) & (values >= low) & (values <= high)
        if not good.all():
            raise self.wrong(int(np.argmin(good)), name, expected)
        return values

    def rewards(self, name: str) -> Floats:
        """The column of rewards."""
        return self.floats(name, "--reward", "a number of -1e12 to 1e12", -REWARD_MAX, REWARD_MAX)

    def propensities(self, given: str) -> Floats:
        """Column of propensities, or one number for all rows."""
        if given not in self.frame.columns:
            try:
                # A fraction of digits alone: one with an exponent could have more digits than there is memory.
                share = float(Fraction(given)) if _FRACTION.fullmatch(given) else float(given)
            except (ValueError, OverflowError, ZeroDivisionError):
                self.column(given, "--propensity")
            else:
                if not PROPENSITY_MIN <= share <= 1.0:
                    raise InvalidArgument(f"--propensity {given}, expected a column, or {PROPENSITY}")
                return np.full(self.frame.height, share)
        return self.floats(given, "--propensity", PROPENSITY, PROPENSITY_MIN, 1.0)

    def texts(self, name: str, option: str) -> list[str]:
        """A column of names. Raises InvalidArgument where one is missing."""
        column = self.column(name, option).cast(pl.String)
        missing = (column.is_null() | (column == "")).to_numpy()
        if missing.any():
            raise self.wrong(int(np.argmax(missing)), name, "a value")
        return column.to_list()


def foreign(path: Path, action: str, reward: str, propensity: str, customer: str | None, context: Sequence[str]) -> Log:
    """Any log with a row a decision. Raises InvalidArgument naming row and column."""
    table = Table(path)
    done = table.texts(action, "--action")
    log = _log(table, done, table.rewards(reward), table.propensities(propensity))
    if customer is None:
        log.remarks.append("every row counts as a customer of its own: name their column with --customer if it has one")
    else:
        log.people = table.texts(customer, "--customer")
    log.x = _vectors(table, context)
    return log


def is_dataset(path: Path) -> bool:
    """Whether a file has the columns that `opportune dataset` writes."""
    try:
        schema = pl.read_parquet_schema(path) if path.suffix == ".parquet" else pl.read_csv(path, n_rows=0).schema
    except (OSError, pl.exceptions.PolarsError):
        return False
    return set(schema) >= _OF_DATASET


def of_dataset(path: Path, reward: str) -> Log:
    """The first positions of a file of `opportune dataset`. Raises InvalidArgument naming row and column."""
    table = Table(path)
    remarks = []
    whole = pl.col("rank").cast(pl.Int64, strict=False) <= 1
    table.keep(whole)
    if lost := table.keep(pl.col("propensity").cast(pl.Float64, strict=False).fill_null(1.0) != 0.0):
        remarks.append(f"left out {lost:,} decisions in which there was nothing to choose from")
    if "fresh_draw" in table.frame.columns:  # not in files of an earlier release
        fresh = pl.col("fresh_draw").cast(pl.String).str.to_lowercase()
        if lost := table.keep((fresh != "false").fill_null(value=True)):
            remarks.append(REPEATED.format(lost))
    closed = pl.col("window_closed").cast(pl.String).str.to_lowercase()
    # All decisions from the first open one on go: without the open ones alone, offers with short windows would be
    # favoured.
    times = table.column("time", "of a dataset")
    still_open = table.frame.select((closed == "false").fill_null(value=False))["window_closed"]
    if still_open.any():
        lost = table.keep(pl.col("time") < times.filter(still_open).min())
        remarks.append(f"left out {lost:,} decisions since the first whose window is still open")
    inputs = [name for name in table.frame.columns if name.startswith("x:")]
    if inputs and (lost := table.keep(pl.all_horizontal([pl.col(name).is_not_null() for name in inputs]))):
        remarks.append(f"left out {lost:,} decisions of configurations with other inputs")
    if not table.frame.height:
        raise InvalidArgument(f"{path}: no decision is left: {'; '.join(remarks)}")
    offered = pl.coalesce(pl.col("offer").cast(pl.String), pl.format("key {}", pl.col("offer_key").cast(pl.String)))
    offered = pl.when(pl.col("rank").cast(pl.Int64) == 0).then(pl.lit(NOTHING)).otherwise(offered)
    done = table.frame.select(offered.alias("offer"))["offer"].to_list()
    table.column(reward, "--reward")
    unpaid = int(table.frame[reward].null_count() - done.count(NOTHING))
    if unpaid > 0:
        remarks.append(f"{unpaid:,} offers that were not presented or withdrawn count as a reward of 0")
    nought = "0" if table.frame[reward].dtype == pl.String else 0
    table.frame = table.frame.with_columns(pl.col(reward).fill_null(nought))
    log = _log(table, done, table.rewards(reward), table.propensities("propensity"))
    log.people = table.texts("customer", "of a dataset")
    if inputs:
        log.x = np.column_stack(
            [table.floats(name, "of a dataset", "a whole number of -127 to 127", -127, 127) for name in inputs]
        ).astype(np.int8)
    remarks.append("what else could have been offered is not in the file: taken to be all its offers, always")
    log.remarks += remarks
    return log


def _log(table: Table, done: list[str], rewards: Floats, propensities: Floats) -> Log:
    names = sorted(set(done))
    index = {name: at for at, name in enumerate(names)}
    actions = np.array([index[name] for name in done])
    people = [str(number) for number in table.numbers.tolist()]
    x = np.full((len(done), 1), STEPS, np.int8)
    return Log(str(table.path), names, actions, rewards, propensities, people, x, PRIOR)


def _vectors(table: Table, context: Sequence[str]) -> "np.typing.NDArray[np.int8]":
    """x of the context: numbers within most of their range, texts as their commonest values."""
    specs, values = [], []
    for name in dict.fromkeys(context):
        column = table.column(name, "--context")
        numbers = column.cast(pl.Float64, strict=False)
        if column.dtype.is_temporal() or column.dtype.is_nested():
            raise InvalidArgument(
                f"{table.path}: column {name} (--context) holds {column.dtype}, expected numbers or texts"
            )
        if numbers.null_count() == column.null_count():
            known = numbers.filter(numbers.is_finite())
            ends = [known.quantile(share) for share in _RANGE]
            if ends[0] == ends[1]:
                ends = [known.min(), known.max()]  # type: ignore[list-item]
            low, high = ends
            if low is None or high is None or low == high:
                continue  # always the same: it tells nothing
            try:
                specs.append(InputSpec(name, "linear", low, high))
            except ValueError as error:
                raise InvalidArgument(f"{table.path}: column {name} (--context): {error}") from error
            values.append(numbers.fill_null(math.nan).to_numpy())
            continue
        counts = column.drop_nulls().value_counts(sort=True)
        top = {value: at for at, value in enumerate(sorted(counts[name].cast(pl.String).to_list()[:CATEGORIES_MAX]))}
        specs.append(InputSpec(name, "one_hot", categories=len(top)))
        texts = column.cast(pl.String).to_list()
        values.append(np.array([top.get(text, math.nan) for text in texts], np.float64))
    try:
        transform = Transform.compile(specs, [spec.source for spec in specs])
    except ValueError as error:
        raise InvalidArgument(f"--context: {error} (at most {DIMENSION_MAX} columns)") from error
    stacked = np.column_stack(values) if values else np.zeros((table.frame.height, 0))
    return transform.apply(stacked)
