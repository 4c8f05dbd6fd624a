"""Drift of the model's inputs, on the vectors that decisions saw.

river's ADWIN watches each column of x and says that its mean changed; where, is the split of its window with the
largest difference of means (CUSUM). How much, is told by the population stability index between the values before and
after,

    PSI = Σ_i (q_i − p_i) · ln(q_i / p_i)

with p, q the shares in bins or by category. What two samples of the same population hardly ever exceed is taken off:
divided by 1/n_p + 1/n_q, PSI is then about χ² distributed with bins − 1 degrees of freedom. Only the PSI makes a
finding: with enough decisions ADWIN sees changes that matter to nobody. First and last quarter are compared as well,
which finds a change of shape that moves no mean.

False alarms: ADWIN's confidence is divided by the number of columns, so that all of them together raise one on a
stationary stream about as rarely as one would. Decisions are taken as independent; a caller that asks for one customer
a hundred times in a row looks like a change that comes and goes.

Bifet and Gavaldà (2007), Learning from time-changing data with adaptive windowing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from river.drift import ADWIN

from engine.catalogue import Catalogue
from engine.drafts import STATE_UNREADABLE
from engine.featurecheck import thresholds as at
from engine.featurecheck.finding import Finding, Level, moment, number, percent
from engine.record import DecisionRecord, RecordError, is_decision, unpack
from engine.store.base import LogEntry
from features import Offset
from models.transform import STEPS


@dataclass(frozen=True, slots=True)
class InputColumns:
    """One value of a customer or a conversation and the columns of x that it fills."""

    source: str
    kind: Literal["linear", "log", "one_hot", "hashed"]
    first: int
    """Its first column."""
    names: tuple[str, ...]
    """Of its columns."""
    low: float = 0.0
    high: float = 1.0

    def value(self, steps: float) -> float:
        """The value that a (mean) number of steps stands for; of a category, its share.

        >>> InputColumns("age", "linear", 1, ("age",), 20, 80).value(0.0)
        50.0
        """
        if self.kind in ("one_hot", "hashed"):
            return steps / STEPS
        place = (steps / STEPS + 1.0) / 2.0
        width = self.high - self.low
        return self.low + float(np.expm1(place * np.log1p(width)) if self.kind == "log" else place * width)


@dataclass(frozen=True, slots=True)
class Change:
    """The mean of one column was one thing and then another."""

    column: str
    row: int
    """First decision of the new kind."""
    time_ms: int
    before: float
    """Mean until then, in the unit of the value; of a category its share."""
    after: float
    psi: float
    """Between the decisions since the change before and those until the change after; 0 if these are too few."""


@dataclass(frozen=True, slots=True)
class DriftFigures:
    """How one input moved over the decisions."""

    source: str
    decisions: int
    first: float
    """Mean of the first quarter of the decisions; of a text, the share of the category that moved most."""
    last: float
    """Likewise of the last quarter."""
    moved: str
    """The column that `first` and `last` are of."""
    psi: float
    """Between first and last quarter."""
    changes: tuple[Change, ...]
    """In order of time."""


def columns_of(catalogue: Catalogue) -> list[InputColumns]:
    """The inputs of a catalogue's model, in order of their columns; what is made of other inputs is none."""
    declared = [feature.input for feature in catalogue.config.all_features]
    declared += [fact.input for fact in catalogue.config.context]
    given = {column.name: one for column, one in zip(catalogue.columns, declared, strict=True) if one is not None}
    return [
        InputColumns(
            part.sources[0],
            given[part.sources[0]].kind,
            part.first,
            catalogue.input_names[part.first : part.first + part.width],
            *given[part.sources[0]].range,
        )
        for part in catalogue.transform.parts
        if part.kind not in ("bias", "cross", "waves")
    ]


class DecisionSample:
    """Decisions of the log, taken in entry by entry, partition by partition; every `stride`-th is kept."""

    def __init__(self, catalogue: Catalogue, stride: int = 1) -> None:
        self.kept = 0
        """Decisions looked at, those of other inputs included."""
        self.damaged = 0
        """Entries that are no decision and no outcome."""
        self.other_inputs = 0
        """Decisions whose vector has another meaning: the inputs of the model were changed since."""
        self.unreadable = 0
        """Decisions from defaults because the customer's features could not be read."""
        self.unknown = 0
        """Decisions for customers of whom nothing was known."""
        self.newest_ms = 0
        """Time of the newest decision kept; 0 if there is none."""
        self.newest_arrival_ms = 0
        self._transform = catalogue.transform
        self._stride = stride
        self._seen = 0
        self._rows: list[tuple[Offset, int, bytes]] = []

    def add(self, entry: LogEntry) -> None:
        """Take in an entry of the decision log; outcomes are passed over."""
        self.newest_arrival_ms = max(self.newest_arrival_ms, entry.offset.ms)
        # Outcomes are not counted: where each decision has one, every other entry would be an outcome.
        if is_decision(entry.data):
            self._seen += 1
            if (self._seen - 1) % self._stride:
                return
        try:
            record = unpack(entry.data)
        except RecordError:
            self.damaged += 1
            return
        if not isinstance(record, DecisionRecord):
            return
        self.kept += 1
        self.newest_ms = max(self.newest_ms, record.time_ms)
        self.unknown += not record.known
        if record.degraded == STATE_UNREADABLE:
            self.unreadable += 1
        elif record.transform_version != self._transform.version or len(record.x) != self._transform.dimension:
            self.other_inputs += 1
        else:
            self._rows.append((entry.offset, record.time_ms, record.x))

    def drift(self, inputs: Sequence[InputColumns]) -> list[DriftFigures]:
        """How each input moved over the decisions kept, in order of the log."""
        self._rows.sort(key=lambda row: row[0])
        x = np.frombuffer(b"".join(x for _, _, x in self._rows), np.int8).reshape(-1, self._transform.dimension)
        return drift_of(x, np.array([time_ms for _, time_ms, _ in self._rows], np.int64), inputs)


def drift_of(
    x: NDArray[np.int8], times_ms: NDArray[np.int64], inputs: Sequence[InputColumns]
) -> list[DriftFigures]:
    """How each input moved.

    `x` has shape (decisions, columns), rows in the order in which they were made; `times_ms` (decisions,). Fewer than
    DRIFT_DECISIONS_MIN are not judged: [].
    """
    if len(x) < at.DRIFT_DECISIONS_MIN:
        return []
    delta = at.DRIFT_DELTA / sum(len(given.names) for given in inputs)
    return [_drift(given, x[:, given.first : given.first + len(given.names)], times_ms, delta) for given in inputs]


def _drift(given: InputColumns, x: NDArray[np.int8], times_ms: NDArray[np.int64], delta: float) -> DriftFigures:
    if given.kind == "hashed":
        x = np.abs(x)  # how often a column is met, whatever the sign
    codes = _codes(given, x)
    changes: list[Change] = []
    for column, name in enumerate(given.names):
        steps = x[:, column].astype(np.float64)
        rows = change_rows(steps / (2.0 * STEPS) + 0.5, delta)
        ends = [0, *rows, len(x)]
        for before, row, after in zip(ends, ends[1:], ends[2:], strict=False):
            old, new = steps[before:row], steps[row:after]
            enough = min(len(old), len(new)) >= at.PSI_DECISIONS_MIN
            psi = psi_of(codes[before:row], codes[row:after]) if enough else 0.0
            means = given.value(float(old.mean())), given.value(float(new.mean()))
            changes.append(Change(name, row, int(times_ms[row]), *means, psi))
    part = int(len(x) * at.PSI_PART)
    first, last = x[:part].mean(axis=0), x[-part:].mean(axis=0)
    moved = int(np.abs(last - first).argmax())
    return DriftFigures(
        source=given.source,
        decisions=len(x),
        first=given.value(float(first[moved])),
        last=given.value(float(last[moved])),
        moved=given.names[moved],
        psi=psi_of(codes[:part], codes[-part:]),
        changes=tuple(sorted(changes, key=lambda change: change.row)),
    )


def _codes(given: InputColumns, x: NDArray[np.int8]) -> NDArray[np.int64]:
    """One number a decision: the steps, or which category, the number of categories if none."""
    if given.kind not in ("one_hot", "hashed"):
        return x[:, 0].astype(np.int64)
    codes: NDArray[np.int64] = np.where(x.any(axis=1), x.argmax(axis=1), x.shape[1])
    return codes


def change_rows(values: NDArray[np.float64], delta: float) -> list[int]:
    """Rows at which the mean of values in 0 .. 1 became another one, found by ADWIN with this confidence.

    After a change the detector begins anew at it, so that one change is told once.
    """
    if values.min() == values.max():
        return []
    plain = values.tolist()
    found: list[int] = []
    start = row = 0
    detector = ADWIN(delta=delta)
    while row < len(plain) and len(found) < at.DRIFT_CHANGES_MAX:
        detector.update(plain[row])
        row += 1
        if detector.drift_detected:
            start += split_of(values[start:row])
            found.append(start)
            row, detector = start, ADWIN(delta=delta)
    return found


def split_of(values: NDArray[np.float64]) -> int:
    """Where two or more values are best cut into two parts of different mean: first index of the second part.

    >>> split_of(np.array([0.0, 0.1, 0.0, 0.9, 1.0]))
    3
    """
    n = len(values)
    k = np.arange(1, n)
    sums = np.cumsum(values)
    # Difference of the means over its standard error, up to a constant.
    score = np.abs(sums[:-1] * n - k * sums[-1]) / np.sqrt(k * (n - k))
    return int(score.argmax()) + 1


def psi_of(before: NDArray[np.int64], after: NDArray[np.int64]) -> float:
    """Population stability index of two samples of whole numbers beyond what chance gives, at least 0.

    >>> psi_of(np.arange(1000) % 7, np.arange(900) % 7)
    0.0
    """
    both = np.concatenate([before, after])
    edges = np.unique(both)
    if len(edges) > 2 * at.PSI_BINS_MAX:
        edges = np.unique(np.quantile(both, np.arange(at.PSI_BINS_MAX) / at.PSI_BINS_MAX))
    bins = len(edges)
    p, q = (
        (np.bincount(np.searchsorted(edges, part, side="right") - 1, minlength=bins) + 0.5) / (len(part) + 0.5 * bins)
        for part in (before, after)
    )
    psi = float(((q - p) * np.log(q / p)).sum())
    return max(0.0, psi - _chance(bins - 1) * (1.0 / len(before) + 1.0 / len(after)))


def _chance(freedom: int) -> float:
    """What a χ² variable exceeds hardly ever, by the approximation of Wilson and Hilferty (1931)."""
    if freedom == 0:
        return 0.0
    spread = 2.0 / (9.0 * freedom)
    return float(freedom * (1.0 - spread + at.PSI_CHANCE_SIGMAS * spread**0.5) ** 3)


# --- judging --------------------------------------------------------------------------------------------------------


def decision_findings(sample: DecisionSample) -> list[Finding]:
    """What is wrong with the decisions themselves."""
    counts = {
        "damaged": (sample.damaged, "entries of the decision log cannot be read", "look for the cause in the store"),
        "unreadable": (
            sample.unreadable,
            "decisions were made from defaults because the customer's features could not be read",
            "see the findings about records; those decisions were recorded as degraded",
        ),
    }
    return [
        Finding(
            Level.ERROR if problem == "damaged" else Level.WARNING,
            "drift",
            "decisions",
            problem,
            float(count),
            f"{count:,} {what}",
            "none",
            advice,
        )
        for problem, (count, what, advice) in counts.items()
        if count
    ]


def drift_findings(figures: DriftFigures, newest_ms: int, half_life_ms: int | None) -> list[Finding]:
    """What drifted, one finding an input at most: the largest recent change, else the largest one.

    `newest_ms` is the time of the newest decision, `half_life_ms` that of the lessons.
    """
    recent_ms = at.DRIFT_RECENT_MS if half_life_ms is None else at.DRIFT_HALF_LIVES * half_life_ms
    large = [change for change in figures.changes if change.psi >= at.PSI_NOTE]
    recent = [change for change in large if newest_ms - change.time_ms <= recent_ms]
    worst = max(recent or large, key=lambda change: change.psi, default=None)
    if worst is None:
        return [_slow(figures)] if figures.psi >= at.PSI_NOTE else []
    level = Level.WARNING if worst in recent and worst.psi >= at.PSI_WARN else Level.NOTE
    more = f", one of {len(large)} such changes" if len(large) > 1 else ""
    what = _named(figures.source, worst.column, worst.before, worst.after)
    measured = f"{what} on {moment(worst.time_ms)} (PSI {worst.psi:.2f}{more})"
    return [_drifted(figures, level, worst.psi, measured)]


def _slow(figures: DriftFigures) -> Finding:
    level = Level.WARNING if figures.psi >= at.PSI_WARN else Level.NOTE
    what = _named(figures.source, figures.moved, figures.first, figures.last)
    measured = f"{what} from the first to the last quarter of {figures.decisions:,} decisions (PSI {figures.psi:.2f})"
    return _drifted(figures, level, figures.psi, measured)


def _drifted(figures: DriftFigures, level: Level, psi: float, measured: str) -> Finding:
    return Finding(
        level,
        "drift",
        figures.source,
        "drift",
        psi,
        measured,
        f"a PSI below {at.PSI_NOTE}",
        "see whether its source changed or the world did; old lessons fade with learning.half_life",
    )


def _named(source: str, column: str, before: float, after: float) -> str:
    verb = "rose" if after > before else "fell" if after < before else "stayed"
    if column in (source, f"log({source})"):
        return f"the mean {verb} from {number(before)} to {number(after)}"
    return f"the share of {column} {verb} from {percent(before)} to {percent(after)}"
