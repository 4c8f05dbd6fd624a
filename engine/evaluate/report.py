"""What an evaluation came to: tables for people, JSON for programs."""

import math
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from engine.evaluate.log import Log
from engine.evaluate.targets import Target
from models.evaluation import (
    EFFECTIVE_REWARDS_MIN,
    EFFECTIVE_ROWS_MIN,
    LEVEL,
    UNSEEN_SHARE_MAX,
    Estimate,
    Evaluation,
)


class Verdict(IntEnum):
    """What it comes to, and the exit code of the command. 1 and 2 are errors of input and of options."""

    ANSWERED = 0
    REFUSED = 3


@dataclass(frozen=True)
class Report:
    """One target on one log."""

    log: Log
    target: Target
    reward: str
    found: Evaluation
    slates: bool = False
    """Whether it is about whole answers."""

    @property
    def verdict(self) -> Verdict:
        """REFUSED if the log cannot support an answer."""
        return Verdict.REFUSED if self.found.refusals else Verdict.ANSWERED

    @property
    def remarks(self) -> list[str]:
        """What was left out or taken for granted."""
        left = len(self.log) - self.found.support.rows
        lost = [f"left out {left:,} decisions in which {self.target.name} was not possible"] if left else []
        return [*self.log.remarks, *lost]

    def to_json(self) -> bytes:
        """The same for programs. Without an answer there are no estimates; what is not known is null."""
        found = self.found
        answer = found.answer
        content: dict[str, Any] = {
            "log": self.log.title,
            "policy": self.target.name,
            "recomputed": self.target.recomputed,
            "reward": self.reward,
            "level": LEVEL,
            "position": "all" if self.slates else 1,
            "verdict": self.verdict.name.lower(),
            "answer": None if answer is None else asdict(answer),
            "estimates": [] if answer is None else [asdict(estimate) for estimate in found.estimates],
            "logged": {key: value for key, value in asdict(found.logged).items() if not key.startswith("lift")},
            "support": asdict(found.support),
            "refusals": [asdict(refusal) for refusal in found.refusals],
            "remarks": self.remarks,
        }
        return orjson.dumps(_known(content), option=orjson.OPT_INDENT_2)

    def print(self, console: Console) -> None:
        """Estimates or refusals, then the support."""
        found = self.found
        verdict = self.verdict.name.lower()
        console.print(f"[bold]{escape(self.target.name)} on {escape(self.log.title)}: {verdict}[/bold]", soft_wrap=True)
        console.print(f"recomputed: {self.target.recomputed}", markup=False, highlight=False, soft_wrap=True)
        part = "whole answers" if self.slates else "first position"
        table = Table(title=f"{escape(self.reward)} a decision, {part}", title_justify="left")
        for at, heading in enumerate(("estimate", "value", f"{LEVEL:.0%} interval", "above the log", "interval")):
            table.add_column(heading, justify="right" if at else "left")
        table.add_row("logged", _number(found.logged.value), _interval(found.logged.low, found.logged.high), "", "")
        for estimate in found.estimates if found.answer else ():
            table.add_row(*_cells(estimate, answer=estimate is found.answer))
        console.print(table)
        for refusal in found.refusals:
            console.print(f"[bold red]REFUSED[/bold red] {escape(refusal.reason)}", highlight=False, soft_wrap=True)
        console.print(self._support())
        for remark in self.remarks:
            console.print(f"remark: {remark}", markup=False, highlight=False, soft_wrap=True)

    def _support(self) -> Table:
        support = self.found.support
        table = Table(title="What the log knows about this policy", title_justify="left")
        table.add_column("figure")
        table.add_column("value", justify="right")
        table.add_column("expected")
        rows = [
            ("decisions", f"{support.rows:,}", ""),
            ("customers", f"{support.people:,}", ""),
            ("effective rows", f"{support.effective_rows:,.1f}", f"{EFFECTIVE_ROWS_MIN:g} or more"),
            ("effective rewards", f"{support.effective_rewards:,.1f}", f"{EFFECTIVE_REWARDS_MIN:g} or more"),
            ("mean weight", _number(support.weight_mean), "1"),
            (
                "mean weight, 99.9% interval",
                _interval(support.weight_mean_low, support.weight_mean_high),
                "holds 1",
            ),
            ("largest weight", _number(support.weight_max), ""),
            ("weight of the heaviest 1% of rows", f"{support.weight_top_share:.1%}", ""),
            ("choices the log took rarely", f"{support.rare_share:.2%}", ""),
            ("choices the log never took", f"{support.unseen_share:.2%}", f"{UNSEEN_SHARE_MAX:.0%} or less"),
        ]
        for row in rows:
            table.add_row(*row)
        return table


def _cells(estimate: Estimate, *, answer: bool) -> list[str]:
    cells = [
        estimate.name,
        _number(estimate.value),
        _interval(estimate.low, estimate.high),
        _number(estimate.lift),
        _interval(estimate.lift_low, estimate.lift_high),
    ]
    return [f"[bold]{cell}[/bold]" for cell in cells] if answer else cells


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4g}"


def _interval(low: float, high: float) -> str:
    return "none" if math.isnan(low) else f"{low:.4g} to {high:.4g}"


def _known(value: Any) -> Any:
    """The same with null for what is no number."""
    if isinstance(value, dict):
        return {key: _known(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_known(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
