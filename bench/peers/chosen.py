"""The best single configuration of a library: the one of least mean loss over the sets, the same for all of them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bench.bakeoff import Prepared
from bench.peers.grid import FINALISTS, Config
from bench.peers.results import Run, finish

Bools = npt.NDArray[np.bool_]


def chosen(
    title: str, configs: Sequence[Config], sets: Sequence[Sequence[Prepared]], *, recompute: bool
) -> tuple[Config, list[list[Bools]]]:
    """The configuration, and of each set and order which rows it answered wrong.

    All configurations are run on the first order of each set, the best `FINALISTS` of them on all orders. So the choice
    is made with the very rows that are then reported, which favours the library, not us.

    Args:
        title: name of the library, for the bar that shows how far it is.
        configs: its part of the grid.
        sets: of each set its orders.
        recompute: whether to run again what is kept.

    Raises:
        PeersMissing: if they had to be run and could not be.
    """
    finish([Run(config, orders[0]) for config in configs for orders in sets], recompute=recompute, title=title)
    by_first = sorted(configs, key=lambda config: _mean(config, [orders[:1] for orders in sets]))
    finalists = by_first[:FINALISTS]
    later = [Run(config, rows) for config in finalists for orders in sets for rows in orders[1:]]
    finish(later, recompute=recompute, title=title)
    best = min(finalists, key=lambda config: _mean(config, sets))
    return best, [[_wrong(best, rows) for rows in orders] for orders in sets]


def _mean(config: Config, sets: Sequence[Sequence[Prepared]]) -> float:
    return float(np.mean([np.mean([_wrong(config, rows).mean() for rows in orders]) for orders in sets]))


def _wrong(config: Config, rows: Prepared) -> Bools:
    wrong = Run(config, rows).wrong()
    assert wrong is not None
    return wrong
