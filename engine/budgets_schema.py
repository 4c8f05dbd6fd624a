"""What a configuration says of budgets: sums of money, stock, appointments, agents' hours, messages a day."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from engine import limits
from engine.config_base import DurationMs, Id, Part

Units = Annotated[int, Field(ge=0, le=limits.BUDGET_UNITS_ENTRIES_MAX)]
"""Whole units: pieces, messages, cents. So sums are exact in every number that a script has."""


class Budget(Part):
    """What offers use up together, and how much of it there is."""

    id: Id
    offers: tuple[Id, ...] = ()
    categories: tuple[Id, ...] = ()
    """With neither, all offers."""
    units: Units
    per: Literal["day", "week", "month"] | None = None
    """Each period, by the time of the decision in the configured time zone, has all units again. None: once and for
    all."""
    takes: dict[Id, Units] = Field(default_factory=dict)
    """Units that an offer takes; without a word 1."""
    consumed: Literal["served", "presented", "accepted"] = "accepted"
    """What uses the units up. Until then they are reserved."""
    reserved: DurationMs | None = None
    """How long after the decision; without a word the window in which the customer may answer."""
    pace: Literal["even", "none"] = "none"
    minimum: Units = 0
    """Units to be used by the end of the period."""

    def covers(self, offer_id: str, category: str) -> bool:
        """Whether an offer uses it up."""
        return (not self.offers and not self.categories) or offer_id in self.offers or category in self.categories


def problems_of(
    budgets: Sequence[Budget], categories: Mapping[str, str]
) -> list[tuple[tuple[int | str, ...], str]]:
    """What does not fit together, as (place, what was expected); `categories` are those of the offers by id."""
    found: list[tuple[tuple[int | str, ...], str]] = []
    first: dict[str, int] = {}
    for at, budget in enumerate(budgets):
        place: tuple[int | str, ...] = ("budgets", at)
        if first.setdefault(budget.id, at) != at:
            found.append(((*place, "id"), f"budget {budget.id!r} is already there as budgets[{first[budget.id]}]"))
        found += [
            ((*place, "offers", i), f"no offer {offer!r}")
            for i, offer in enumerate(budget.offers)
            if offer not in categories
        ]
        there = set(categories.values())
        found += [
            ((*place, "categories", i), f"no offer has the category {category!r}")
            for i, category in enumerate(budget.categories)
            if category not in there
        ]
        for offer, units in budget.takes.items():
            if offer not in categories:
                found.append(((*place, "takes", offer), f"no offer {offer!r}"))
            elif not budget.covers(offer, categories[offer]):
                found.append(((*place, "takes", offer), f"the budget does not cover the offer {offer!r}"))
            elif units > budget.units > 0:
                found.append(((*place, "takes", offer), f"{units} units of {budget.units}: it could never be made"))
        if budget.minimum > budget.units:
            found.append(((*place, "minimum"), f"expected no more than the {budget.units} units that there are"))
        if budget.per is None and (budget.minimum or budget.pace != "none"):
            name = "minimum" if budget.minimum else "pace"
            found.append(((*place, name), "what has no end cannot be paced: expected per: day, week or month"))
        if budget.consumed == "served" and budget.reserved is not None:
            found.append(((*place, "reserved"), "consumed: served uses units up at once; nothing is reserved"))
    return found
