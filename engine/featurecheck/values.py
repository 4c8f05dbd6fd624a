"""What the features of a sample of customers read as, and what their records say of themselves.

The sample is taken in by the batch and read at one time, as a decision would read it. Kept are one float64 a customer
and feature, and the counters of the records' headers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.config_schema import Config, Feature
from engine.featurecheck import thresholds as at
from engine.featurecheck.finding import Finding, Level, graded, number, percent
from features import NEVER_MS, FeatureSpec, Layout, RecordError

_BARS: Final = 12
_NAN: Final = float("nan")


@dataclass(frozen=True, slots=True)
class RecordFigures:
    """What the records of the sample say of themselves."""

    customers: int
    damaged: int
    """Records that are cut short or fail their checksum; they are in no other figure."""
    old_layout: int
    """Records of earlier features; their values are not in the figures of the features."""
    events: int
    duplicates: int
    late: int
    age_ms_median: float
    """Time since a customer's newest event; NaN without customers."""


@dataclass(frozen=True, slots=True)
class FeatureFigures:
    """What one feature reads as. Values of a text are indices of its categories."""

    name: str
    event: str
    customers: int
    missing_share: float
    """Customers for whom it reads as its default, or as nothing; NaN for those that read as 0 then."""
    zero_share: float
    mean: float
    low: float
    """Smallest value."""
    p5: float
    p50: float
    p95: float
    high: float
    """Largest value."""
    bars: tuple[int, ...]
    """Customers in equal steps between p5 and p95 of the values, or by category."""
    categories: tuple[str, ...]
    below_share: float
    """Of the customers with a value, those below `input.range`; NaN without one."""
    above_share: float
    newest_event_ms: int | None
    """Newest event of its type in the event log, of a ratio of the types of its parts; None if there is none."""


class CustomerSample:
    """Records of customers, taken in by the batch."""

    def __init__(self, layout: Layout, as_of_ms: int) -> None:
        self.as_of_ms = as_of_ms
        """The time at which the features are read."""
        self.customers = 0
        self._layout = layout
        self._damaged = self._old = self._events = self._duplicates = self._late = 0
        self._newest_ms: list[int] = []
        self._values: list[NDArray[np.float64]] = []

    def add(self, records: Sequence[bytes]) -> None:
        """Take in records as the store has them."""
        self.customers += len(records)
        current = []
        for record in records:
            try:
                header = self._layout.header(record)
            except RecordError:
                self._damaged += 1
                continue
            self._events += header.events
            self._duplicates += header.duplicates
            self._late += header.late
            if header.latest_event_ms > NEVER_MS:
                self._newest_ms.append(header.latest_event_ms)
            if header.version == self._layout.version:
                current.append(record)
            else:
                self._old += 1
        if current:
            # A record whose checksum is right can be read, unless a bug wrote it: then reading says so.
            now_ms = np.full(len(current), self.as_of_ms, np.int64)
            self._values.append(self._layout.read(current, now_ms))

    def records(self) -> RecordFigures:
        """The figures of the records."""
        ages = self.as_of_ms - np.array(self._newest_ms, np.float64)
        return RecordFigures(
            customers=self.customers,
            damaged=self._damaged,
            old_layout=self._old,
            events=self._events,
            duplicates=self._duplicates,
            late=self._late,
            age_ms_median=float(np.median(ages)) if len(ages) else _NAN,
        )

    def features(self, config: Config, newest_event_ms: Mapping[str, int]) -> list[FeatureFigures]:
        """The figures of each feature; `newest_event_ms` by type of event, of those that the event log has."""
        names = self._layout.names
        matrix = np.concatenate(self._values) if self._values else np.empty((0, len(names)))
        declared = {feature.name: feature for feature in config.all_features}
        newest_ms = _newest(self._layout.specs, newest_event_ms)
        return [
            _figures(spec, declared[spec.name], matrix[:, column], newest_ms[spec.name])
            for column, spec in enumerate(self._layout.specs)
        ]


def _newest(specs: Sequence[FeatureSpec], by_type: Mapping[str, int]) -> dict[str, int | None]:
    """The newest event of each feature; what a ratio divides stands before it."""
    found: dict[str, int | None] = {}
    for spec in specs:
        parts = [found[part] for part in (spec.numerator, spec.denominator) if part]
        times = [ms for ms in (*parts, by_type.get(spec.event)) if ms is not None]
        found[spec.name] = max(times, default=None)
    return found


def _reads_as_zero(spec: FeatureSpec) -> bool:
    """Whether the feature of a customer without events is 0 by its nature, and not missing."""
    return spec.missing == 0.0 and spec.default != 0.0


def _figures(
    spec: FeatureSpec, feature: Feature, column: NDArray[np.float64], newest_event_ms: int | None
) -> FeatureFigures:
    if spec.hashed:
        spec, column = _by_column(spec, feature, column)
    absent = np.isnan(column)
    if not _reads_as_zero(spec):
        absent |= column == spec.missing
    values = column[~absent]
    low, p5, p50, p95, high = np.quantile(values, (0, 0.05, 0.5, 0.95, 1)).tolist() if len(values) else [_NAN] * 5
    ends = feature.input.range if feature.input is not None and feature.input.kind in ("linear", "log") else None
    return FeatureFigures(
        name=spec.name,
        event=spec.event,
        customers=len(column),
        missing_share=_NAN if _reads_as_zero(spec) or not len(column) else float(absent.mean()),
        zero_share=float((column == 0.0).mean()) if len(column) else _NAN,
        mean=float(values.mean()) if len(values) else _NAN,
        low=low,
        p5=p5,
        p50=p50,
        p95=p95,
        high=high,
        bars=_bars(spec, values, p5, p95),
        categories=spec.categories,
        below_share=float((values < ends[0]).mean()) if ends and len(values) else _NAN,
        above_share=float((values > ends[1]).mean()) if ends and len(values) else _NAN,
        newest_event_ms=newest_event_ms,
    )


def _by_column(
    spec: FeatureSpec, feature: Feature, hashes: NDArray[np.float64]
) -> tuple[FeatureSpec, NDArray[np.float64]]:
    """A hashed text as the column of the model that it falls into: there is no more to count."""
    assert feature.input is not None and feature.input.columns is not None
    columns = feature.input.columns
    names = tuple(f"#{column}" for column in range(columns))
    known = np.where(hashes >= 0.0, hashes % columns, np.nan)
    default = spec.default % columns if spec.default >= 0.0 else _NAN
    return replace(spec, hashed=False, categories=names, default=default), known


def _bars(spec: FeatureSpec, values: NDArray[np.float64], p5: float, p95: float) -> tuple[int, ...]:
    if not len(values):
        return ()
    if spec.categories:
        counts = np.bincount(values.astype(np.int64).clip(0), minlength=len(spec.categories))
    else:
        counts, _ = np.histogram(values.clip(p5, p95), bins=_BARS if p5 < p95 else 1)
    return tuple(counts.tolist())


# --- judging --------------------------------------------------------------------------------------------------------


def record_findings(figures: RecordFigures) -> list[Finding]:
    """What is wrong with the records."""
    found: list[Finding] = []

    def add(level: Level | None, problem: str, share: float, measured: str, expected: str, advice: str) -> None:
        if level is not None:
            found.append(Finding(level, "records", "records", problem, share, measured, expected, advice))

    customers, events = max(1, figures.customers), max(1, figures.events)
    share = figures.damaged / customers
    add(
        Level.ERROR if figures.damaged else None,
        "damaged",
        share,
        f"{figures.damaged:,} of {figures.customers:,} records are damaged",
        "none",
        "their customers are decided for from defaults: look for the cause in the store, then restore it from a backup",
    )
    share = figures.old_layout / customers
    add(
        graded(share, 1e-9, at.OLD_LAYOUT_SHARE_WARN),
        "old_layout",
        share,
        f"{figures.old_layout:,} of {figures.customers:,} records ({percent(share)}) are of earlier features",
        f"below {percent(at.OLD_LAYOUT_SHARE_WARN)}",
        "each is rewritten at its customer's next event and its new features begin there",
    )
    share = figures.duplicates / (events + figures.duplicates)
    add(
        graded(share, at.DUPLICATE_SHARE_NOTE, at.DUPLICATE_SHARE_WARN),
        "duplicates",
        share,
        f"{percent(share)} of the events came twice",
        f"below {percent(at.DUPLICATE_SHARE_NOTE)}",
        "they counted once, but find the producer that sends again",
    )
    share = figures.late / events
    add(
        graded(share, at.LATE_SHARE_NOTE, at.LATE_SHARE_WARN),
        "late",
        share,
        f"{percent(share)} of {figures.events:,} events folded came too late for some window",
        f"below {percent(at.LATE_SHARE_NOTE)}",
        "those windows miss them: deliver sooner, or use longer windows",
    )
    return found


def feature_findings(figures: FeatureFigures, feature: Feature, *, looked: bool = True) -> list[Finding]:
    """What is wrong with one feature. `looked`: whether the log of events was looked at."""
    if _never_written(figures):
        there_is = f"of {figures.event} there is no event in the log and " if looked else ""
        measured = f"never written: {there_is}no customer has a value"
        advice = f"publish {figures.event}, or take the feature out"
        text = (figures.name, "never_written", 1.0, measured, "events of its type", advice)
        return [Finding(Level.WARNING, "features", *text)]
    return [finding for finding in (_missing(figures), _clipped(figures, feature), _constant(figures)) if finding]


def _never_written(figures: FeatureFigures) -> bool:
    empty = figures.zero_share if figures.missing_share != figures.missing_share else figures.missing_share
    return bool(figures.event) and figures.newest_event_ms is None and figures.customers > 0 and empty == 1.0


def _with_value(figures: FeatureFigures) -> int:
    missing = figures.missing_share
    return figures.customers if missing != missing else round(figures.customers * (1.0 - missing))


def _missing(figures: FeatureFigures) -> Finding | None:
    level = graded(figures.missing_share, at.MISSING_SHARE_NOTE, at.MISSING_SHARE_WARN)
    if level is None or figures.customers < at.CUSTOMERS_MIN:
        return None
    return Finding(
        level,
        "features",
        figures.name,
        "missing",
        figures.missing_share,
        f"missing for {percent(figures.missing_share)} of {figures.customers:,} customers",
        f"below {percent(at.MISSING_SHARE_NOTE)}",
        f"see that {figures.event} comes for them and has the attribute",
    )


def _clipped(figures: FeatureFigures, feature: Feature) -> Finding | None:
    if feature.input is None or _with_value(figures) < at.CUSTOMERS_MIN:
        return None
    share = figures.below_share + figures.above_share
    level = graded(share, at.CLIPPED_SHARE_NOTE, at.CLIPPED_SHARE_WARN)
    if level is None:
        return None
    low, high = feature.input.range
    return Finding(
        level,
        "features",
        figures.name,
        "clipped",
        share,
        f"{percent(share)} of the values lie outside its input range {number(low)} to {number(high)} "
        f"(5 % to 95 %: {number(figures.p5)} to {number(figures.p95)})",
        f"below {percent(at.CLIPPED_SHARE_NOTE)}",
        "check the unit of the values, or widen input.range, which begins learning anew",
    )


def _constant(figures: FeatureFigures) -> Finding | None:
    customers = _with_value(figures)
    if customers < at.CUSTOMERS_MIN or figures.low != figures.high:
        return None
    # That nobody has done a thing lately is news at most; that everybody has the same other number is hardly true.
    level = Level.NOTE if figures.low == 0.0 and not figures.categories else Level.WARNING
    value = repr(figures.categories[int(figures.low)]) if figures.categories else number(figures.low)
    return Finding(
        level,
        "features",
        figures.name,
        "constant",
        float(customers),
        f"the same value, {value}, for all {customers:,} customers that have one",
        "values that differ",
        f"see what {figures.event} carries; as it is, the feature tells nothing",
    )
