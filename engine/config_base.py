"""What every part of a configuration is made of: names, times, shares, numbers."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from engine import limits
from features import parse_duration_ms

NAME_PATTERN = r"^[a-z][a-z0-9_]{0,63}$"
LANGUAGE_PATTERN = r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$"


def _duration(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("expected a duration like 1d")  # a number alone could be anything: 86400 are no seconds here
    return parse_duration_ms(value)


Name = Annotated[str, Field(pattern=NAME_PATTERN)]
"""Lower-case name of a feature or a fact: it is a variable in rules."""
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/-]*$", max_length=limits.ID_BYTES_MAX)]
"""Id of a channel, placement, offer, category or event type."""
Language = Annotated[str, Field(pattern=LANGUAGE_PATTERN)]
"""Tag of a language, with a country or without."""
DurationMs = Annotated[int, BeforeValidator(_duration), Field(gt=0, le=limits.TIME_MS_MAX)]
"""Written as 30s, 5m, 2h or 7d."""
TimeMs = Annotated[int, Field(ge=0, le=limits.TIME_MS_MAX)]
Finite = Annotated[float, Field(allow_inf_nan=False, ge=-1e12, le=1e12)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
"""From nothing to all: of an offer's value, of decisions."""
Rule = Annotated[str, Field(min_length=1)]
"""An expression in CEL that is true or false."""
ValueKind = Literal["number", "text", "flag"]
CUSTOMER: Final = "customer"
"""The entity of a feature that says nothing of entities."""


class Part(BaseModel):
    """A part of a configuration: nothing may stand in it that it does not know, and nothing changes it."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)
