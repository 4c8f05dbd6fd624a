"""The report: figures and findings together, as tables for people and as JSON for programs."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Final

import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from engine.featurecheck.arrivals import TypeFigures
from engine.featurecheck.drift import DriftFigures
from engine.featurecheck.finding import Finding, Level, Section, duration, moment, number, percent
from engine.featurecheck.rejected import RejectedFigures
from engine.featurecheck.values import FeatureFigures, RecordFigures

_SPARKS: Final = "▁▂▃▄▅▆▇█"
_SPARKS_MAX: Final = 24
_ROWS_MAX: Final = 40
"""Rows of a table of dead letters; JSON has all."""
_COLOURS: Final = {Level.ERROR: "bold red", Level.WARNING: "yellow", Level.NOTE: "dim"}


class Verdict(IntEnum):
    """What it comes to, and the exit code of the command."""

    CLEAN = 0
    FINDINGS = 1
    CANNOT_TELL = 2


@dataclass(frozen=True)
class Report:
    """All that was measured and found."""

    configuration: str
    version: str
    now_ms: int
    """The time at which features were read and silences measured."""
    records: RecordFigures
    features: list[FeatureFigures]
    events: list[TypeFigures] | None
    rejected: list[RejectedFigures] | None
    """Both None where the events are in a Kafka that was not named."""
    decisions: dict[str, int]
    """Decisions read for drift, and why some were not compared."""
    drift: list[DriftFigures]
    findings: list[Finding] = field(default_factory=list)
    caveats: list[str] = field(default_factory=list)
    """What could not be judged, or was judged by a part only."""

    @property
    def verdict(self) -> Verdict:
        """FINDINGS from level WARNING on; CANNOT_TELL if there was nothing to look at."""
        if any(finding.level >= Level.WARNING for finding in self.findings):
            return Verdict.FINDINGS
        if not (self.records.customers or self.drift or any(figures.events for figures in self.events or ())):
            return Verdict.CANNOT_TELL
        return Verdict.CLEAN

    def of(self, section: Section) -> list[Finding]:
        """The findings of a section, worst first."""
        found = [finding for finding in self.findings if finding.section == section]
        return sorted(found, key=lambda finding: (-finding.level, -finding.number, finding.subject))

    def to_json(self) -> bytes:
        """The same for programs; what is not known is null."""
        content = asdict(self)
        content["verdict"] = self.verdict.name.lower()
        content["findings"] = [
            asdict(finding) | {"level": finding.level.name.lower(), "sentence": finding.sentence}
            for section in ("records", "features", "events", "rejected", "drift")
            for finding in self.of(section)
        ]
        return orjson.dumps(content, option=orjson.OPT_INDENT_2)

    # --- for people -------------------------------------------------------------------------------------------------

    def print(self, console: Console) -> None:
        """Tables and findings, a section after the other."""
        counted = [(sum(finding.level == level for finding in self.findings), level) for level in reversed(Level)]
        words = [f"{count} {level.name.lower()}{'s' * (count > 1)}" for count, level in counted if count]
        counts = ", ".join(words) or "no findings"
        verdict = self.verdict.name.replace("_", " ").lower()
        console.print(f"[bold]{escape(self.configuration)}: {verdict}[/bold] ({counts}), as of {moment(self.now_ms)}")
        self._section(console, "records", "Records", self._records())
        self._section(console, "features", "Features", self._features())
        self._section(console, "events", "Event types", self._events())
        self._section(console, "rejected", "Refused events", self._rejected())
        self._section(console, "drift", "Inputs of the model over the decisions", self._drift())
        for caveat in self.caveats:
            console.print(f"remark: {caveat}", markup=False, highlight=False, soft_wrap=True)

    def _section(self, console: Console, section: Section, title: str, table: Table) -> None:
        console.print()
        table.title = title
        table.title_justify = "left"
        unknown = section in ("events", "rejected") and getattr(self, section) is None
        words = "not looked at, they are in Kafka" if unknown else "none"
        console.print(table if table.row_count else f"[italic]{title}[/italic]: {words}")
        for finding in self.of(section):
            colour = _COLOURS[finding.level]
            text = escape(finding.sentence)
            console.print(f"[{colour}]{finding.level.name}[/{colour}] {text}", highlight=False, soft_wrap=True)

    def _rank(self, section: Section, subject: str) -> tuple[float, float]:
        """Order of a row: that of its worst finding, or of one of its parts."""
        ranks = [
            (-finding.level, -finding.number)
            for finding in self.findings
            if finding.section == section and f"{finding.subject}.".startswith(f"{subject}.")
        ]
        return min(ranks, default=(0.0, 0.0))

    def _records(self) -> Table:
        figures = self.records
        table = _table("customers", "events", "duplicates", "late", "of earlier features", "damaged", "age (median)")
        counts = [figures.customers, figures.events, figures.duplicates, figures.late]
        counts += [figures.old_layout, figures.damaged]
        table.add_row(*(f"{count:,}" for count in counts), _age(figures.age_ms_median))
        return table

    def _features(self) -> Table:
        table = _table(
            "feature", "missing", "zero", "mean", "min", "5 %", "50 %", "95 %", "max", "values", "clipped",
            "newest event",
        )  # fmt: skip
        for figures in sorted(self.features, key=lambda row: self._rank("features", row.name)):
            numbers = (figures.mean, figures.low, figures.p5, figures.p50, figures.p95, figures.high)
            values = sparks(figures.bars)
            if figures.categories and figures.bars:
                # The index of a category is no number that people could use.
                top = max(range(len(figures.bars)), key=figures.bars.__getitem__)
                share = percent(figures.bars[top] / max(1, sum(figures.bars)))
                values = f"{values} {escape(figures.categories[top])} {share}"
            newest = figures.newest_event_ms
            table.add_row(
                escape(figures.name),
                _share(figures.missing_share),
                "" if figures.categories else _share(figures.zero_share),
                *("" if figures.categories else number(value) for value in numbers),
                values,
                _share(figures.below_share + figures.above_share),
                "none" if newest is None else f"{_age(self.now_ms - newest)} ago",
            )
        return table

    def _events(self) -> Table:
        table = _table(
            "type", "events", "last 14 days", "median interval", "longest silence", "silent for", "late by 50 %",
            "late by 99 %", "too late",
        )  # fmt: skip
        for figures in sorted(self.events or (), key=lambda row: self._rank("events", row.type)):
            times = [figures.interval_ms_median, figures.gap_ms, figures.silent_ms]
            shown = map(_age, [*times, figures.lateness_ms_p50, figures.lateness_ms_p99])
            table.add_row(
                escape(figures.type), f"{figures.events:,}", sparks(figures.per_day), *shown, _share(figures.late_share)
            )
        return table

    def _rejected(self) -> Table:
        table = _table("type", "refused", "recently", "last", "reason")
        table.columns[-1].justify = "left"
        for group in (self.rejected or [])[:_ROWS_MAX]:
            counts = (f"{group.letters:,}", f"{group.recent:,}")
            table.add_row(escape(group.type), *counts, moment(group.newest_ms), escape(group.pattern))
        return table

    def _drift(self) -> Table:
        table = _table("input", "decisions", "first quarter", "last quarter", "PSI", "changes", "last change")
        for figures in sorted(self.drift, key=lambda row: (self._rank("drift", row.source), -row.psi)):
            table.add_row(
                escape(figures.moved),
                f"{figures.decisions:,}",
                number(figures.first),
                number(figures.last),
                f"{figures.psi:.2f}",
                str(len(figures.changes)),
                moment(figures.changes[-1].time_ms) if figures.changes else "",
            )
        return table


def _table(*headings: str) -> Table:
    table = Table()
    for at, heading in enumerate(headings):
        table.add_column(heading, justify="right" if at else "left")
    return table


def _share(share: float) -> str:
    return "–" if share != share else percent(share)


def _age(ms: float) -> str:
    return "–" if ms != ms else duration(ms)


def sparks(counts: Sequence[int]) -> str:
    """Counts as a line of bars, the highest one full; empty places stay low.

    >>> sparks([0, 1, 4, 8])
    '▁▂▅█'
    """
    top = max(counts, default=0)
    return "".join(_SPARKS[round(count / top * (len(_SPARKS) - 1))] if top else _SPARKS[0] for count in _fit(counts))


def _fit(counts: Sequence[int]) -> Iterable[int]:
    return counts if len(counts) <= _SPARKS_MAX else sorted(counts, reverse=True)[:_SPARKS_MAX]

