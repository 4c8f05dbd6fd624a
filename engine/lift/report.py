"""What experiments came to: tables and sentences for people, JSON for programs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from engine.lift.comparing import Comparison, Measured
from models.lift import LEVEL, POWER, Interval


class Verdict(IntEnum):
    """What it comes to, and the exit code of the command. 1 and 2 are errors of input and of options."""

    ANSWERED = 0
    REFUSED = 3


@dataclass(frozen=True)
class Report:
    """All experiments of a configuration on one log."""

    log: str
    by: str | None
    comparisons: Sequence[Comparison]
    remarks: Sequence[str]

    @property
    def verdict(self) -> Verdict:
        """REFUSED if a ratio of people is odd, or something that was asked for cannot be told."""
        refused = any(
            one.ratio_is_odd or one.refusals or any(measured.lift is None for measured in one.lifts)
            for one in self.comparisons
            if not one.part
        )
        return Verdict.REFUSED if refused else Verdict.ANSWERED

    def to_json(self) -> bytes:
        """The same for programs; what is not known is null."""
        content: dict[str, Any] = {
            "log": self.log,
            "by": self.by,
            "level": LEVEL,
            "verdict": self.verdict.name.lower(),
            "experiments": [asdict(one) | {"ratio_is_odd": one.ratio_is_odd} for one in self.comparisons],
            "remarks": list(self.remarks),
        }
        return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)

    def print(self, console: Console) -> None:
        """A table of arms, one of what they bring, and sentences."""
        for one in self.comparisons:
            _print(console, one)
        for remark in self.remarks:
            _say(console, f"remark: {remark}")


def _print(console: Console, one: Comparison) -> None:
    title = one.experiment + (f", {one.part}" if one.part else "")
    table = Table(title=escape(title), title_justify="left")
    goals = any(arm.goal is not None for arm in one.arms)
    for heading in ("arm", "policy"):
        table.add_column(heading)
    for heading in ("people", "expected", "decisions", "offers", "accepted", "fulfilled", "cancelled"):
        table.add_column(heading, justify="right")
    for heading in ("value a person", "cost a person", *(["goal a person"] * goals)):
        table.add_column(heading, justify="right")
    total = sum(arm.people for arm in one.arms)
    for arm in one.arms:
        counts = [f"{arm.counts[name]:,}" for name in ("offers", "accepted", "fulfilled", "cancelled")]
        money = [arm.value, arm.cost, *([arm.goal or 0.0] * goals)]
        table.add_row(
            escape(arm.arm),
            arm.policy,
            f"{arm.people:,}",
            f"{arm.share * total:,.0f}",
            f"{arm.decisions:,}",
            *counts,
            *(f"{number:.4g}" for number in money),
        )
    console.print(table)
    if one.ratio_is_odd:
        alarm = (
            f"[bold red]ALARM[/bold red] {escape(title)}: people are spread over the arms as chance does it in "
            f"{one.ratio:.1e} of cases. Something treats arms differently before a decision is counted: calls that are "
            "not made, lost or repeated, or shares that changed. Differences cannot be trusted until it is found."
        )
        console.print(alarm, highlight=False, soft_wrap=True)
    if one.lifts:
        table = Table(title="what it brings a person", title_justify="left")
        for at, heading in enumerate(("arm", "measure", "difference", f"{LEVEL:.0%}, looked at once")):
            table.add_column(heading, justify="right" if at > 1 else "left")
        for heading in (f"{LEVEL:.0%}, looked at daily", "relative", f"{LEVEL:.0%}", "detectable"):
            table.add_column(heading, justify="right")
        for measured in one.lifts:
            table.add_row(*_cells(measured))
        console.print(table)
    for measured in one.lifts:
        _say(console, sentence(measured))
    for refusal in one.refusals:
        console.print(f"[bold red]REFUSED[/bold red] {escape(refusal)}", highlight=False, soft_wrap=True)
    for remark in one.remarks:
        _say(console, f"remark: {remark}")


def _cells(measured: Measured) -> list[str]:
    found, names = measured.lift, [escape(f"{measured.arm} over {measured.over}"), measured.measure]
    if found is None:
        return [*names, "not known", "", "", "", "", ""]
    relative = ["", ""]
    if found.relative is not None:
        held = found.relative
        relative = [f"{held.value:+.1%}", f"{held.low:+.1%} to {held.high:+.1%}"]
    return [
        *names,
        f"{found.difference.value:+.4g}",
        _interval(found.difference),
        _interval(found.sequence),
        *relative,
        f"{found.detectable:.4g}",
    ]


def sentence(measured: Measured) -> str:
    """One comparison in words."""
    found, what = measured.lift, f"{measured.arm} over {measured.over}, {measured.measure}"
    if found is None:
        return f"{what}: not known, {measured.refusal}."
    if found.sequence.tells:
        told = "more" if found.difference.value > 0.0 else "less"
        return f"{what}: {told}, however often it is looked at."
    if found.difference.tells:
        told = "more" if found.difference.value > 0.0 else "less"
        return f"{what}: {told}, if this is the only look that was planned; not yet for one of many looks."
    return (
        f"{what}: no difference can be told; one of {found.detectable:.3g} a person would be found with a chance of "
        f"{POWER:.0%}."
    )


def _interval(held: Interval) -> str:
    return f"{held.low:+.4g} to {held.high:+.4g}"


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
