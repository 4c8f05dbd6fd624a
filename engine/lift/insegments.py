"""Which segments people were in when they were decided for: the rules of a configuration, on what each decision saw.

People count in the segments that they were in at their first decision of an experiment. What they became later may be
what the arm has made of them: comparing those would compare different people.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.bridge import Bridge
from engine.catalogue import Catalogue
from engine.history.decisions import Decided
from engine.lift.comparing import Taken
from engine.lift.reading import Ints, Visits
from engine.valuecode import ValueCodeError, decoded

SEGMENT: Final = "segment"
"""What --by calls them."""
_NONE: Final = "(none)"
_NOT_TOLD: Final = "(not told)"


class InSegments:
    """Finds the segments of decisions, of whatever configuration."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._bridges: dict[str, Bridge] = {}
        self.names = (*catalogue.segments.names, _NONE, _NOT_TOLD)

    def of(self, batch: Sequence[Decided]) -> list[bytes]:
        """A bit for each of `names`, the first one in the lowest bit of the first byte. Raises InvalidArgument where a
        name means another kind of value in the configuration that decided."""
        found = np.zeros((len(batch), len(self.names)), np.bool_)
        found[:, -1] = True
        by_version: dict[str, list[int]] = {}
        for at, one in enumerate(batch):
            # Without the state of a person it is not known what the rules would have said of it.
            if one.catalogue is not None and one.record.basis is not None and not one.record.degraded:
                by_version.setdefault(one.catalogue.version, []).append(at)
        for places in by_version.values():
            seen, values = self._values([batch[at] for at in places])
            if seen:
                rows = [places[at] for at in seen]
                held = self._catalogue.segments.held(values)
                found[rows] = np.column_stack([held, ~held.any(axis=1), np.zeros(len(rows), np.bool_)])
        return [row.tobytes() for row in np.packbits(found, axis=1, bitorder="little")]

    def _values(self, some: Sequence[Decided]) -> tuple[list[int], NDArray[np.float64]]:
        """Those of the decisions of one configuration that can be read, and what they saw of the features."""
        made_with = some[0].catalogue
        assert made_with is not None
        if made_with.version not in self._bridges:
            self._bridges[made_with.version] = Bridge(made_with, self._catalogue)
        columns = len(made_with.rule_columns)
        rows = [one.record.basis.seen if one.record.basis is not None else b"" for one in some]
        places = list(range(len(rows)))
        try:
            values = decoded(rows, columns)
        except ValueCodeError:
            places = [at for at, row in enumerate(rows) if _readable(row, columns)]
            values = decoded([rows[at] for at in places], columns)
        features = self._bridges[made_with.version].values(values)[:, : self._catalogue.feature_count]
        return places, np.ascontiguousarray(features)


def _readable(row: bytes, columns: int) -> bool:
    try:
        decoded([row], columns)
    except ValueCodeError:
        return False
    return True


def parts(names: Sequence[str], visits: Visits, found: Taken) -> Iterator[tuple[str, Ints]]:
    """(segment, visits of an experiment) of the people who were in it when they first came; empty ones are left out."""
    rows = found.rows[np.argsort(visits.times_ms[found.rows], kind="stable")]
    people, first = np.unique(visits.people[rows], return_index=True)
    at_first = np.zeros((len(visits.names), visits.segments.shape[1]), np.uint8)
    at_first[people] = visits.segments[rows[first]]
    for number, name in enumerate(names):
        inside = (at_first[:, number // 8] >> (number % 8) & 1).astype(np.bool_)
        own = found.rows[inside[visits.people[found.rows]]]
        if len(own):
            yield name, own
