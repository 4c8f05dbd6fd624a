"""Which parts of a record a change of the configuration left empty, so that they can be filled from the past.

A record that is carried over to another layout starts with nothing in the cells that only the new layout has, and in
the older tiles of cells that it keeps for longer. From then on they take events like all others. So what is in them is
not wrong, it only begins too late; and what the whole past gives contains it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from features.tables import Tables, cell_map


@dataclass(frozen=True, slots=True)
class Part:
    """Cells that every other layout keeps equally long: in any one record they hold events since the same moment."""

    features: tuple[str, ...]
    """Those that read them and that want more of them than other layouts keep, or that were asked for."""
    cells: tuple[int, ...]
    """Their numbers in the layout."""
    known_to: frozenset[int]
    """Versions of the other layouts that keep any of it."""


def parts_of(here: Tables, others: Mapping[int, Tables], names: Sequence[str]) -> tuple[Part, ...]:
    """The parts of the features named; without names of all that no other layout keeps, or none as far back.

    Nothing is new if there is no other layout. Raises ValueError for a name that is no feature.
    """
    specs = {spec.name: at for at, spec in enumerate(here.plan.specs)}
    unknown = [name for name in names if name not in specs]
    if unknown:
        raise ValueError(f"feature {unknown[0]!r}: there is none; there are {', '.join(specs) or 'none'}")
    tiles = [group.tiles for group in here.plan.groups for _ in group.cells]
    versions = sorted(others)
    # (tiles kept as they should be, tiles of which anything is kept) of each cell, by version.
    kept = list(zip(*(_tiles_kept(here, others[version]) for version in versions), strict=True)) or [()] * len(tiles)
    wanted: dict[int, dict[str, None]] = {}
    """Cells, and the features that want them."""
    if names:
        for name in names:
            for cell, _ in _cells_of(here, specs, name):
                wanted.setdefault(cell, {})[name] = None
    elif others:
        wanted = {cell: {} for cell in range(len(tiles)) if max(kept[cell])[0] < tiles[cell]}
        for name in specs:
            for cell, needed in _cells_of(here, specs, name):
                if cell in wanted and max(kept[cell])[0] < needed:
                    wanted[cell][name] = None
    alike: dict[tuple[tuple[int, int], ...], list[int]] = {}
    for cell in sorted(wanted):
        alike.setdefault(kept[cell], []).append(cell)
    return tuple(
        Part(
            tuple(name for name in specs if any(name in wanted[cell] for cell in cells)),
            tuple(cells),
            frozenset(version for version, (_, some) in zip(versions, counts, strict=True) if some),
        )
        for counts, cells in alike.items()
    )


def _tiles_kept(here: Tables, there: Tables) -> list[tuple[int, int]]:
    """For each cell of a layout how many of its tiles another layout keeps: as they should be, and at all.

    A text with other values is not as it should be: of those that one of the two does not know too little is known.
    """
    found = cell_map(here, there)
    kept: list[tuple[int, int]] = []
    for group, at in zip(here.plan.groups, found.groups.tolist(), strict=True):
        tiles = min(group.tiles, there.plan.groups[at].tiles) if at >= 0 else 0
        for _ in group.cells:
            some = tiles if found.cells[len(kept)] >= 0 else 0
            kept.append((0 if found.renumbered[len(kept)] >= 0 else some, some))
    return kept


def _cells_of(tables: Tables, specs: Mapping[str, int], name: str) -> Iterator[tuple[int, int]]:
    """(number of a cell, tiles of it) of all that a feature reads, a ratio by way of its two features."""
    use, spec = tables.plan.uses[specs[name]], tables.plan.specs[specs[name]]
    if use is not None:
        yield from ((tables.first_cell[use.group] + cell, max(spec.tiles, 1)) for cell in use.cells)
        return
    for part in (spec.numerator, spec.denominator):
        assert part is not None
        yield from _cells_of(tables, specs, part)
