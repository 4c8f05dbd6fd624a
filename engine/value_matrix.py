"""The value matrix of a batch: what inputs and rules see of each customer, a row each."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.drafts import Ask
from features import Layout, RecordError


def value_matrix(
    catalogue: Catalogue,
    asks: Sequence[Ask],
    records: list[bytes | None],
    rolled: Sequence[Sequence[bytes | None]],
    times: NDArray[np.int64],
) -> tuple[NDArray[np.float64], list[bool]]:
    """The value matrix, and which records could not be read: those become None, decided from defaults."""
    values = np.empty((len(asks), len(catalogue.columns)))
    unreadable = [False] * len(asks)
    start = len(catalogue.layout.names)
    values[:, :start] = _read(catalogue.layout, records, times, unreadable)
    for kind, rollup in enumerate(catalogue.rollups):
        end = start + len(rollup.layout.names)
        of_kind: list[bytes | None] = [entities[kind] for entities in rolled] if rolled else [None] * len(asks)
        values[:, start:end] = _read(rollup.layout, of_kind, times, unreadable)
        start = end
    values[:, start:] = catalogue.fact_defaults
    for at, ask in enumerate(asks):
        for column, value in ask.facts:
            values[at, column] = value
    return values, unreadable


def _read(
    layout: Layout, records: list[bytes | None], times: NDArray[np.int64], unreadable: list[bool]
) -> NDArray[np.float64]:
    """Values of the features of a layout; records that cannot be read become None and are marked."""
    try:
        return layout.read(records, times)
    except RecordError:
        for at, data in enumerate(records):
            try:
                layout.read([data], times[at : at + 1])
            except RecordError:
                records[at], unreadable[at] = None, True
        return layout.read(records, times)
