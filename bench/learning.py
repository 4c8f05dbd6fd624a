"""How well the learner learns: on classification sets as bandits, and on real campaigns.

- `learning.bakeoff_*`: progressive validation loss on the sets of `bench.bakeoff`, every learner on the same prepared
  rows in the same orders. Ours runs with one configuration (`bench.ours`); of each other library the best single
  configuration of a grid counts (`bench.peers`). A loss is a mean over sets of means over orders; a ratio below 1 means
  that ours errs less.
- `learning.hillstrom_*`, `learning.starbucks_*`, `learning.bank_*`: see `bench.learning_campaigns`.
- `learning.cold_start_*`: a new offer among mature ones, see `bench.coldstart`.

The small run cuts sets, rows and orders, and leaves the other libraries out.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench import coldstart, learning_campaigns
from bench.bakeoff import ORDERS, Prepared, data_folder, prepared, set_names
from bench.ours import Ours, actions_of
from bench.peers.chosen import chosen
from bench.peers.environment import PeersMissing
from bench.peers.grid import MABWISER, RIVER, VW, Config
from bench.report import Report

SMALL_SETS: Final = 3
SMALL_ROWS: Final = 200
SMALL_ORDERS: Final = 2
T_95: Final = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""Student's t for 95 % two-sided intervals of the mean of so many orders."""

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

LIBRARIES: Final[dict[str, tuple[str, tuple[Config, ...]]]] = {
    "vw": ("Vowpal Wabbit", VW),
    "mabwiser": ("MABWiser", MABWISER),
    "river": ("River", RIVER),
}


@dataclass(frozen=True)
class Held:
    """Ours against another learner on one set, over the same orders and rows. Losses are (orders,)."""

    ours: Floats
    theirs: Floats

    @property
    def not_worse(self) -> bool:
        """Whether the paired difference is not above zero beyond noise."""
        difference = self.ours - self.theirs
        return bool(difference.mean() - half_width(difference) <= 0.0)


def half_width(values: Floats) -> float:
    """Half the width of the 95 % interval of the mean.

    >>> round(half_width(np.array([1.0, 2.0, 3.0])), 3)
    2.484
    """
    return T_95[len(values)] * float(values.std(ddof=1)) / math.sqrt(len(values))


def run(*, small: bool, recompute: bool = False) -> Report:
    """Run it and return what was found. `recompute`: run other learners again, although what they did is kept."""
    report = Report("learning", "rows of data sets")
    folder = data_folder()
    if folder is None:
        report.notes.append("everything is left out: the data sets are not in ../shared/data, nor in OPPORTUNE_DATA")
        return report
    names, orders = set_names(folder), range(ORDERS)
    if small:
        names, orders = names[:SMALL_SETS], range(SMALL_ORDERS)
    sets = [[prepared(folder, name, order) for order in orders] for name in names]
    if small:
        sets = [[_cut(rows) for rows in each] for each in sets]
    _bakeoff(report, sets, peers=not small, recompute=recompute)
    learning_campaigns.hillstrom(report, folder, small=small)
    learning_campaigns.starbucks(report, folder, small=small)
    learning_campaigns.bank(report, folder, small=small)
    coldstart.run(report, small=small)
    return report


def _cut(rows: Prepared) -> Prepared:
    return replace(rows, x=rows.x[:SMALL_ROWS], y=rows.y[:SMALL_ROWS])


def _bakeoff(report: Report, sets: Sequence[Sequence[Prepared]], *, peers: bool, recompute: bool) -> None:
    ours = _ours_wrong(sets)
    losses = [np.array([wrong.mean() for wrong in orders]) for orders in ours]
    against = f"{len(sets)} sets, {len(sets[0])} orders each, wrong answers"
    report.add("learning.bakeoff_loss", float(np.mean([loss.mean() for loss in losses])), "share", against)
    held: dict[str, list[Held]] = {}
    for name, (title, configs) in LIBRARIES.items() if peers else ():
        try:
            config, theirs = chosen(title, configs, sets, recompute=recompute)
        except PeersMissing as missing:
            report.notes.append(f"learning.bakeoff_vs_{name} is left out: {missing}")
            continue
        held[name] = [_held(mine, other) for mine, other in zip(ours, theirs, strict=True)]
        _add(report, name, title, config, held[name])
    if not peers:
        report.notes.append("other learners are left out: the full benchmark runs them")
    _show(sets, losses, held)
    report.details["bakeoff"] = {
        orders[0].name: {"ours": loss.tolist()} | {name: found[at].theirs.tolist() for name, found in held.items()}
        for at, (orders, loss) in enumerate(zip(sets, losses, strict=True))
    }


def _ours_wrong(sets: Sequence[Sequence[Prepared]]) -> list[list[Bools]]:
    """Wrong answers of ours by set and order, as many at once as there are cores: no two share anything."""
    with ProcessPoolExecutor() as pool:
        # The last sets have the most rows: begun first, or one core would be busy with them at the end.
        jobs = [[pool.submit(_our_wrong, rows) for rows in orders] for orders in reversed(sets)]
        found = [[job.result() for job in orders] for orders in track(jobs, "ours", transient=True)]
    return found[::-1]


def _our_wrong(rows: Prepared) -> Bools:
    learner = Ours(rows.x.shape[1], rows.hot, rows.classes, rows.order)
    wrong: Bools = actions_of(learner, rows.x, rows.y) != rows.y
    return wrong


def _held(ours: list[Bools], theirs: list[Bools]) -> Held:
    """On the rows that the other was run on."""
    mine = [wrong[: len(other)].mean() for wrong, other in zip(ours, theirs, strict=True)]
    return Held(np.array(mine), np.array([other.mean() for other in theirs]))


def _add(report: Report, name: str, title: str, config: Config, held: list[Held]) -> None:
    mine, theirs = (float(np.mean([getattr(each, side).mean() for each in held])) for side in ("ours", "theirs"))
    bound = f", first {config.rows:,} rows" if config.rows < 1 << 29 else ""
    against = f"{title}, best of its grid over all sets ({config.name}){bound}: {theirs:.4f}"
    report.add(f"learning.bakeoff_vs_{name}", mine, "share", against, mine / theirs)
    if name == "vw":
        share = sum(each.not_worse for each in held) / len(held)
        report.add("learning.bakeoff_share_not_worse", share, "share", "sets; Vowpal Wabbit, paired over orders, 95 %")


def _show(sets: Sequence[Sequence[Prepared]], losses: list[Floats], held: dict[str, list[Held]]) -> None:
    table = Table(title="progressive validation loss: mean and 95 % interval over orders")
    for heading in ("set", "rows", "actions", "ours", *(LIBRARIES[name][0] for name in held)):
        table.add_column(heading, justify="left" if heading == "set" else "right")
    for at, (orders, loss) in enumerate(zip(sets, losses, strict=True)):
        cells = [orders[0].name, f"{len(orders[0].y):,}", str(orders[0].classes), _interval(loss)]
        for found in held.values():
            same_rows = np.array_equal(found[at].ours, loss)
            ours_there = "" if same_rows else f" (ours there {found[at].ours.mean():.3f})"
            cells.append(_interval(found[at].theirs) + ours_there)
        table.add_row(*cells)
    Console().print(table)


def _interval(losses: Floats) -> str:
    return f"{losses.mean():.3f} ± {half_width(losses):.3f}"
