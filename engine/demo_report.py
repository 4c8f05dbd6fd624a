"""What the demo shows: live figures while it runs, then a table, a picture and the speed."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from math import ceil, floor, log10
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from engine.demo_calls import Call
from engine.demo_replay import Replay
from engine.demo_rivals import Rival, head_of

PLOT_ROWS: Final = 16
"""At most; the steps of the axis are round numbers, so it may be fewer."""
MARKS: Final = ("●", "▲", "─", "◆")
COLOURS: Final = ("green", "yellow", "white", "magenta")


def progress_bar(console: Console) -> Progress:
    """A bar with the live figures of `live`."""
    return Progress(
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        console=console,
        refresh_per_second=5,
        expand=True,
    )


def live(progress: Progress, bar: TaskID, replay: Replay) -> None:
    """Bring the bar up to date."""
    rate = replay.decisions / max(replay.running_s, 1e-9)
    [p99_ms] = replay.decide_ms_at(99)
    figures = f"{rate:,.0f}/s · value {replay.value:,.0f} · regret {replay.regret:,.0f} · p99 {p99_ms:.1f} ms"
    progress.update(bar, completed=replay.decisions, figures=figures)


def figures_of(replay: Replay, others: Sequence[Rival], concurrency: int) -> dict[str, Any]:
    """All results, as JSON keeps them and `show` prints them."""
    head = head_of(replay.calls)
    best = float(replay.gain[replay.gain > 0].sum())
    policies = []
    for rival in [Rival("Opportune", replay.pitched), *others]:
        pitched = rival.pitched
        pitches, accepted = int(pitched.sum()), int((pitched & replay.yes).sum())
        value = float(replay.gain[pitched].sum())
        policies.append(
            {
                "name": rival.name,
                "hindsight": rival.hindsight,
                "value": value,
                "pitches": pitches,
                "accepted": accepted,
                "acceptance": accepted / pitches if pitches else None,
                "share_of_best": value / best if best else None,
                "regret": best - value,
                "value_after_head": float(replay.gain[head:][pitched[head:]].sum()),
            }
        )
    handled = {"events": replay.events, "decisions": replay.decisions, "outcomes": replay.outcomes}
    p50, p99, p999 = replay.decide_ms_at(50, 99, 99.9)
    return {
        "calls": len(replay.calls),
        "yeses": int(replay.yes.sum()),
        "head": head,
        "policies": policies,
        "decide_ms": {"p50": p50, "p99": p99, "p99.9": p999},
        "concurrency": concurrency,
        "seconds": replay.seconds,
        "handled": handled,
        "per_second": {name: count / replay.seconds for name, count in handled.items()},
        "unknown": replay.unknown,
        "degraded": replay.degraded,
        "excluded": replay.excluded,
        "pitched": np.flatnonzero(replay.pitched).tolist(),
    }


def show(console: Console, figures: dict[str, Any], replay: Replay, others: Sequence[Rival]) -> None:
    """Print the end of the demo."""
    console.print(_table(figures))
    excluded, head = figures["excluded"], figures["head"]
    notes = f"The logistic regression is fitted on the first {head:,} calls, in all of which it pitches to get answers."
    if excluded:
        notes += f" In {excluded} calls Opportune's rules forbid the pitch (credit in default); they bind nobody else."
    console.print(f"[dim]{notes}[/]", highlight=False)
    if not any("regression" in rival.name for rival in others):
        console.print("[yellow]No logistic regression: scikit-learn is missing (pip install scikit-learn).[/]")
    by_name = {rival.name: rival.pitched for rival in others if not rival.hindsight}
    console.print(plot({"Opportune": replay.pitched, **by_name}, replay.calls, replay.gain))
    console.print(_speed(figures), highlight=False)


def _table(figures: dict[str, Any]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("policy", no_wrap=True)
    for heading in ("value", "of best", "pitches", "accepted", "value in\nlast 90 %"):
        table.add_column(heading, justify="right")
    hindsight = False
    for policy in figures["policies"]:
        if policy["hindsight"] and not hindsight:
            hindsight = True
            table.add_section()
            table.add_row("[dim]known only in hindsight:[/]")
        table.add_row(
            policy["name"],
            f"{policy['value']:,.0f}",
            _share(policy["share_of_best"]),
            f"{policy['pitches']:,}",
            _share(policy["acceptance"]),
            f"{policy['value_after_head']:,.0f}",
            style="bold green" if policy["name"] == "Opportune" else "",
        )
    return table


def _speed(figures: dict[str, Any]) -> Table:
    handled, rate, ms = figures["handled"], figures["per_second"], figures["decide_ms"]
    table = Table.grid(padding=(0, 3))
    table.add_row("decision", f"p50 {ms['p50']:.1f} ms   p99 {ms['p99']:.1f} ms   p99.9 {ms['p99.9']:.1f} ms")
    table.add_row("", f"[dim]seen by the caller, {figures['concurrency']} calls at a time, all on this machine[/]")
    table.add_row("handled", f"{_counts(handled)} in {figures['seconds']:.1f} s")
    table.add_row("a second", f"{_counts(rate)}, all at once")
    table.add_row("states", f"{figures['unknown']:,} decisions without a profile yet, {figures['degraded']:,} degraded")
    return table


def _counts(of: dict[str, float]) -> str:
    return ", ".join(f"{count:,.0f} {name}" for name, count in of.items())


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def plot(pitched: dict[str, NDArray[np.bool_]], calls: Sequence[Call], gain: NDArray[np.float64]) -> Text:
    """Value so far at the end of each month with calls, one mark a policy; the first one is drawn on top."""
    months = np.array([call.month for call in calls])
    ends = [*(np.flatnonzero(np.diff(months)) + 1).tolist(), len(calls)]
    curves = {name: np.concatenate(([0.0], np.cumsum(gain * at)))[ends].tolist() for name, at in pitched.items()}
    values = [0.0, *(value for curve in curves.values() for value in curve)]
    step = _round_step((max(values) - min(values)) / (PLOT_ROWS - 2))
    top, bottom = ceil(max(values) / step), floor(min(values) / step)
    grid: list[list[tuple[str, str]]] = [[(" ", "")] * len(ends) for _ in range(top - bottom + 1)]
    looks = dict(zip(curves, zip(MARKS, COLOURS, strict=True), strict=False))
    for name in reversed(curves):
        for column, value in enumerate(curves[name]):
            grid[top - round(value / step)][column] = looks[name]
    text = Text("\nvalue so far, by month with calls\n")
    for row, cells in enumerate(grid):
        text.append(f"{(top - row) * step:8,.0f} ┤")
        for mark, colour in cells:
            text.append(f" {mark}", colour)
        text.append("\n")
    years = [datetime.fromtimestamp(calls[end - 1].time_ms / 1e3, UTC).year for end in ends]
    starts = [0, *(at for at, (one, two) in enumerate(pairwise(years), 1) if one != two), len(ends)]
    text.append(" " * 10)
    for start, end in pairwise(starts):
        text.append(f"{years[start]}".ljust(2 * (end - start)))
    text.append("\n  ")
    for name, (mark, colour) in looks.items():
        text.append(f"{mark} {name}  ", colour)
    text.append("\n")
    return text


def _round_step(least: float) -> float:
    """The least whole number of the form 1, 2, 2.5 or 5 × 10ⁿ that is no less.

    >>> [_round_step(least) for least in (0.0, 2.3, 2_100.0, 3_100.0)]
    [1.0, 5.0, 2500.0, 5000.0]
    """
    power = 10.0 ** floor(log10(max(least, 1.0)))
    steps = (times * power for times in (1, 2, 2.5, 5, 10))
    return next(step for step in steps if step >= least and step.is_integer())
