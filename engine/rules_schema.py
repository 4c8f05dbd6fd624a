"""The form of rules in a configuration: rules of three layers, rules for many offers, triggers, and places."""

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, model_validator

from engine.config_base import DurationMs, Id, Name, Part, Rule

Layer = Literal["eligibility", "applicability", "suitability"]
LAYERS: Final = ("eligibility", "applicability", "suitability")
"""May the customer have it, is now the time for it, is it right for them: in the order in which they are told."""
_DAY_MS: Final = 86_400_000


def _rule(value: object) -> object:
    if not isinstance(value, str | dict):
        raise ValueError("expected a rule, or a mapping with name and when")
    return {"when": value} if isinstance(value, str) else value


class LayerRule(Part):
    """A rule of an offer, with the name that people read in "why not"."""

    when: Rule
    name: Annotated[str, Field(max_length=200)] = ""


LayerRules = tuple[Annotated[LayerRule, BeforeValidator(_rule)], ...]
"""Written as expressions, or with names."""


class GlobalRule(LayerRule):
    """A rule for all offers, or for those that it names; in all channels and placements, or in those that it names."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    layer: Layer = "eligibility"
    offers: tuple[Id, ...] = ()
    groups: tuple[Id, ...] = ()
    categories: tuple[Id, ...] = ()
    kinds: tuple[Literal["sale", "service", "retention", "question"], ...] = ()
    channels: tuple[Id, ...] = ()
    placements: tuple[Id, ...] = ()


class Trigger(Part):
    """What makes an offer come up: a date, an event, or that there was none for long. One of an offer's is enough."""

    name: Annotated[str, Field(max_length=200)] = ""
    date: Name | None = None
    """A feature or a fact that is a date."""
    written: Literal["yyyymmdd", "days", "ms"] = "yyyymmdd"
    """The date as a number: 19800517, or days or milliseconds since 1970-01-01."""
    every: Literal["once", "year", "month"] = "once"
    before: DurationMs = 0
    after: DurationMs = 0
    event: Id | None = None
    within: DurationMs | None = None
    dormant: DurationMs | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "Trigger":
        if (self.date is None) == (self.event is None):
            raise ValueError("expected date, or event with within or dormant")
        if self.event is not None and (self.within is None) == (self.dormant is None):
            raise ValueError("event: expected within or dormant beside it, one of them")
        if self.date is not None and (self.within is not None or self.dormant is not None):
            raise ValueError("date: within and dormant are for events; expected before and after")
        if self.event is not None and self.model_fields_set & {"before", "after", "every", "written"}:
            raise ValueError("event: before, after, every and written are for dates")
        if self.before % _DAY_MS or self.after % _DAY_MS:
            raise ValueError("before, after: expected whole days, a date has no hours")
        period = {"year": 365, "month": 28}.get(self.every)
        if period is not None and (self.before + self.after) // _DAY_MS >= period:
            raise ValueError(f"before and after: together a whole {self.every}, so that it would always hold")
        return self


Degrees = Annotated[float, Field(allow_inf_nan=False)]


class Place(Part):
    """A place that rules can name, such as a branch."""

    id: Id
    kind: Id = "place"
    latitude: Annotated[Degrees, Field(ge=-90, le=90)]
    longitude: Annotated[Degrees, Field(ge=-180, le=180)]


class CustomerLocation(Part):
    """The facts of a conversation that say where the customer is. Both need consent."""

    latitude: Name
    longitude: Name
