"""What history tells of households and the like: who belonged to one when, and copies of events for their features.

The rules are those of the live engine (engine.rollups, engine.identity), for rows in order of time: an event counts for
the entity that it names, and without one for that which its customer belonged to by then, as the rows before it say.
"""

from collections.abc import Sequence
from typing import Final

import polars as pl

from engine.catalogue import Catalogue
from engine.config_schema import Attribute
from engine.history.rows import slot_of
from engine.identity import EntityKind, belonging
from engine.links import EntityLink
from engine.rollups import Rollup, entity_name

COPIES: Final = "copies"
"""Kind of the rows in the buckets: as of events, under the names of entities."""

Named = tuple[EntityKind, str, int]
"""An entity that a customer belongs to, and when an event said so, ms."""


class Roller:
    """Reads sorted rows of whole customers for what they say of entities."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._rollups = catalogue.rollups
        self._types = list(catalogue.event_types)
        self._kinds = {_slot(attribute): kind for attribute, kind in catalogue.entity_attributes.items()}

    def named(self, rows: pl.DataFrame) -> dict[str, list[Named]]:
        """What customers belong to, in order of the newest event that says so; who belongs to nothing is left out."""
        found: dict[str, list[Named]] = {}
        for slot, kind in self._kinds.items():
            there = rows.select("customer", "time_ms", slot).filter(pl.col(slot).is_not_null() & (pl.col(slot) != ""))
            if not kind.many:  # of two in one millisecond the larger id
                there = there.sort("customer", "time_ms", slot)
            there = there.unique(["customer", slot] if kind.many else "customer", keep="last", maintain_order=True)
            for customer, time_ms, entity_id in there.iter_rows():
                found.setdefault(customer, []).append((kind, entity_id, time_ms))
        return {customer: sorted(each, key=lambda named: named[2]) for customer, each in found.items()}

    def copies(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows that count for an entity, once for each, with its name in place of the customer's."""
        made = [rows.clear()]
        for rollup in self._rollups:
            types = [number for number, name in enumerate(self._types) if name in rollup.types]
            copied = rows.with_columns(self.counts_for(rows, rollup)).filter(
                pl.col("type").is_in(types) & pl.col("customer").is_not_null()
            )
            # Without id: who sent one twice was found out before.
            made.append(copied.with_columns(pl.lit(0, pl.UInt64).alias("id")))
        return pl.concat(made)

    def counts_for(self, rows: pl.DataFrame, rollup: Rollup) -> pl.Series:
        """The name of the entity that each row counts for, null without one."""
        named = self._ids(rows, rollup)
        return _names(rollup, named if rollup.many else named.zip_with(named.is_not_null(), _belonged(rows, named)))

    def belonged(self, rows: pl.DataFrame, rollup: Rollup) -> pl.Series:
        """The name of the entity that the customer of each row belongs to behind it, null without one.

        Of a kind of which there is one.
        """
        return _names(rollup, _belonged(rows, self._ids(rows, rollup)))

    def _ids(self, rows: pl.DataFrame, rollup: Rollup) -> pl.Series:
        """The entity that each row names."""
        if not rollup.attribute:
            return pl.Series([None], dtype=pl.String).new_from_index(0, rows.height)
        slot = _slot(rollup.attribute)
        return rows[slot].set(rows[slot] == "", None)


def _belonged(rows: pl.DataFrame, named: pl.Series) -> pl.Series:
    """Of two in one millisecond the larger id is the one belonged to."""
    # Worked out of the few rows that name one: of three million rows in one expression it takes a hundred times longer.
    at = named.is_not_null().arg_true()
    ids = named.gather(at).unique().sort()
    few = rows.select("customer", "time_ms").select(pl.all().gather(at)).with_columns(
        number=named.gather(at).replace_strict(ids, range(len(ids)), return_dtype=pl.Int64)
    )
    newest = few.select(pl.col("number").cum_max().over("customer", "time_ms")).to_series()
    numbers = pl.Series("number", [None], pl.Int64).new_from_index(0, rows.height).scatter(at, newest)
    filled = rows.select("customer", numbers).select(pl.col("number").forward_fill().over("customer"))
    return ids.gather(filled.to_series())


def _names(rollup: Rollup, ids: pl.Series) -> pl.Series:
    return (entity_name(rollup.kind, "") + ids).alias("customer")


def belonging_after(entities: Sequence[EntityLink], named: Sequence[Named]) -> tuple[list[EntityLink], int]:
    """What a customer belongs to with what history says; and of how much of that newer ones have taken the room."""
    held = list(entities)
    for kind, entity_id, time_ms in named:
        held = belonging(held, kind, entity_id, time_ms) or held
    there = {(link.kind, link.id) for link in held if not link.by}
    return held, sum(kind.many and (kind.kind, entity_id) not in there for kind, entity_id, _ in named)


def _slot(attribute: str) -> str:
    return slot_of(attribute, Attribute(type="text"))
