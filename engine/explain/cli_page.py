"""An explanation as a page in a terminal."""

from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.cli_plain import plain
from engine.explain.words import amount
from opportune.v1 import decisions_pb2

_BAR_CELLS: Final = 20
"""On either side of the middle."""
CONTRIBUTIONS_SHOWN: Final = 8
"""Of each offer, unless all are asked for."""


def show(console: Console, explained: decisions_pb2.ExplainResponse, contributions: int = CONTRIBUTIONS_SHOWN) -> None:
    """Print the summary, a table of all offers and the contributions to those that were eligible."""
    console.print(plain(explained.summary))
    console.print(plain(explained.brief), style="bold")
    how = "exactly" if explained.exact else "approximately"
    console.print(
        f"policy {explained.policy_version}, explained {how} by policy {explained.explained_by_policy_version}; "
        f"configuration {explained.config_version}"
    )
    table = Table()
    for heading in ("rank", "offer", "why", "acceptance", "× (value", "× weight", "− risk)", "− cost", "= worth"):
        table.add_column(heading, justify="left" if heading in ("offer", "why") else "right")
    table.add_column("propensity", justify="right")
    for candidate in explained.candidates:
        table.add_row(*map(plain, _row(candidate)))
    console.print(table)
    for candidate in explained.candidates:
        if candidate.HasField("factors") and candidate.eligible:
            _bars(console, candidate, contributions)


def _row(candidate: decisions_pb2.Candidate) -> tuple[str, ...]:
    why = candidate.reasons[0].code if candidate.reasons else ""
    if candidate.unmet:
        told = [f"{one.layer}: {one.name or one.expression or one.text}" for one in candidate.unmet]
        why = f"{why}: {'; '.join(told)}"
    numbers = ["", "", "", "", "", ""]
    if candidate.HasField("factors"):
        factors = candidate.factors
        sd = f" ± {candidate.acceptance_probability_sd:.1%}" if candidate.acceptance_probability_sd else ""
        numbers = [
            f"{factors.estimate:.1%}{sd}",
            amount(factors.value),
            f"{factors.weight:g}",
            amount(factors.risk_customer + factors.risk_company),
            # What an answer would add costs less than nothing.
            amount(factors.contact_cost + factors.surcharge + factors.shadow_price - factors.information),
            amount(factors.worth),
        ]
    elif candidate.rank:
        numbers[0], numbers[-1] = f"{candidate.acceptance_probability:.1%}", amount(candidate.score)
    propensity = f"{candidate.propensity:.3g}" if candidate.rank else ""
    return str(candidate.rank or "–"), candidate.offer_id, why, *numbers, propensity


def _bars(console: Console, candidate: decisions_pb2.Candidate, most: int) -> None:
    """From the base rate to the estimate, an input a line."""
    table = Table(title=candidate.offer_id, title_justify="left", title_style="bold", show_header=False, box=None)
    table.add_column()
    table.add_column()
    table.add_column(justify="right")
    table.add_column(no_wrap=True)
    table.add_row("base rate", "", f"{candidate.base_rate:.1%}", "")
    parts = list(candidate.contributions)
    largest = max((abs(part.probability) for part in parts), default=0.0)
    for part in parts[:most]:
        points = f"{100 * part.probability:+.2f}"
        table.add_row(plain(part.input), plain(part.value), points, _bar(part.probability, largest))
    if len(parts) > most:
        rest = sum(part.probability for part in parts[most:])
        table.add_row(f"{len(parts) - most} more", "", f"{100 * rest:+.2f}", _bar(rest, largest))
    table.add_row("estimate", "", f"{candidate.factors.estimate:.1%}", "")
    console.print(table)


def _bar(value: float, largest: float) -> Text:
    """A bar from the middle, to the right for the offer and to the left against it.

    >>> _bar(-1.0, 2.0).plain
    '          ██████████|                    '
    """
    cells = min(round(_BAR_CELLS * abs(value) / largest), _BAR_CELLS) if largest else 0
    full = "█" * cells
    if value < 0.0:
        return Text(f"{full:>{_BAR_CELLS}}|{'':{_BAR_CELLS}}", style="red")
    return Text(f"{'':{_BAR_CELLS}}|{full:<{_BAR_CELLS}}", style="green")
