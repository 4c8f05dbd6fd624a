"""Contact policy as it stands in a configuration: caps, cool-offs, what is open already, contact pressure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import Field, model_validator

from engine import limits
from engine.config_base import DurationMs, Finite, Id, Part
from features import duration_text

if TYPE_CHECKING:
    from engine.config_schema import Config

WINDOW_MS_MAX: Final = limits.CONTACT_WINDOW_MS_MAX
_Window = Annotated[DurationMs, Field(le=WINDOW_MS_MAX)]
_Label = Annotated[str, Field(min_length=1, max_length=100)]
_PERIOD_NAMES: Final = {"day": "a day", "week": "a week", "month": "a month"}


class Cap(Part):
    """So many contacts of some kind and no more."""

    name: _Label | None = None
    of: Literal["all", "offer", "category", "group", "kind", "channel", "offers"] = "all"
    """Counted in all, for each offer, category, group, kind or channel by itself, or for the offers of `which`
    together. A group has the offers of those that have it as parent, too."""
    which: tuple[Id, ...] = ()
    """Ids of offers, categories or groups, or kinds; empty: all of them."""
    channels: tuple[Id, ...] = ()
    """Counts contacts there and holds there; empty: everywhere."""
    most: Annotated[int, Field(ge=1, le=10_000)]
    within: _Window | None = None
    per: Literal["day", "week", "month"] | None = None
    counts: Literal["served", "presented", "accepted", "declined", "contacts"] = "served"

    @model_validator(mode="after")
    def _fits(self) -> "Cap":
        if (self.within is None) == (self.per is None):
            raise ValueError("expected within or per, one of them")
        if self.of == "offers" and not self.which:
            raise ValueError("which: of: offers counts some offers together: expected their ids")
        if self.of in ("all", "channel") and self.which:
            raise ValueError(f"which: of: {self.of} has no parts; expected of: offers, offer, category, group or kind")
        if self.counts == "contacts" and self.of not in ("all", "channel"):
            raise ValueError("counts: a contact may be of several offers: expected of: all or channel, or served")
        return self

    @property
    def label(self) -> str:
        """What it is called.

        >>> Cap(of="category", which=["cards"], most=3, within="30d").label, Cap(most=1, per="week").label
        ('at most 3 of each category (cards) in 30d', 'at most 1 in all a week')
        """
        if self.name:
            return self.name
        of = {"all": "in all", "offers": "of some offers"}.get(self.of, f"of each {self.of}")
        which = f" ({', '.join(self.which)})" if self.which else ""
        when = _PERIOD_NAMES[self.per] if self.per else f"in {duration_text(self.within or 0)}"
        what = "" if self.counts == "served" else f" {self.counts}"
        where = f" in {', '.join(self.channels)}" if self.channels else ""
        return f"at most {self.most}{what} {of}{which} {when}{where}"


class CoolOff(Part):
    """After an outcome, none of the same for a time."""

    name: _Label | None = None
    after: tuple[Literal["accepted", "declined", "ignored", "clicked", "cancelled", "fulfilled"], ...] = Field(
        min_length=1
    )
    of: Literal["offer", "category", "group", "kind", "all"] = "offer"
    which: tuple[Id, ...] = ()
    """Outcomes of these alone; empty: of any."""
    duration: Annotated[DurationMs, Field(le=WINDOW_MS_MAX)] = Field(alias="for")

    @model_validator(mode="before")
    @classmethod
    def _one_stage(cls, given: object) -> object:
        if isinstance(given, dict) and isinstance(given.get("after"), str):
            return {**given, "after": [given["after"]]}
        return given

    @property
    def label(self) -> str:
        """What it is called.

        >>> CoolOff(**{"after": "declined", "of": "category", "for": "60d"}).label
        'none of the same category for 60d after declined'
        """
        if self.name:
            return self.name
        of = "nothing" if self.of == "all" else f"none of the same {self.of}"
        which = f" ({', '.join(self.which)})" if self.which else ""
        return f"{of}{which} for {duration_text(self.duration)} after {' or '.join(self.after)}"


class Pressure(Part):
    """What one more contact costs whoever had many."""

    half_life: _Window = 14 * 86_400_000
    cost: Annotated[Finite, Field(ge=0)]
    """Of one contact just had, in the catalogue's currency."""
    weight: Annotated[Finite, Field(ge=0, le=1_000)] = 1.0
    """Of a contact in a channel that `channels` does not name."""
    channels: dict[Id, Annotated[Finite, Field(ge=0, le=1_000)]] = Field(default_factory=dict)
    grace: DurationMs = 3_600_000
    """A contact counts from then on: within one conversation the answer stays the same."""


WhileOpen = Literal["resume", "hide"]


class ContactPolicy(Part):
    """How often who may be contacted."""

    caps: tuple[Cap, ...] = Field(default=(), max_length=limits.CONTACT_RULES_MAX)
    cool_off: tuple[CoolOff, ...] = Field(default=(), max_length=limits.CONTACT_RULES_MAX)
    pressure: Pressure | None = None
    outbound: tuple[Id, ...] = ()
    """Channels in which the contact is ours."""
    while_open: WhileOpen = "resume"
    """Inbound: an offer that waits for an answer is served again as what it is, or not at all."""
    while_open_outbound: WhileOpen = "hide"


def problems_of_contacts(config: "Config") -> list[tuple[tuple[str | int, ...], str]]:
    """Where a contact policy names what is not there, as (place, what was expected)."""
    policy = config.contact_policy
    if policy is None:
        return []
    found: list[tuple[tuple[str | int, ...], str]] = []
    channels = {channel.id for channel in config.channels}
    offers = {offer.id for offer in config.offers}
    kinds = ("sale", "service", "retention", "question")
    known = {
        "offer": offers,
        "offers": offers,
        "category": {offer.category for offer in config.offers},
        "group": {group.id for group in config.groups},
        "kind": set(kinds),
        "all": offers,
    }

    def no_channel(names: Sequence[str], *place: str | int) -> None:
        found.extend(
            (("contact_policy", *place), f"no channel {name!r}; there are {', '.join(sorted(channels))}")
            for name in names
            if name not in channels
        )

    def nothing_such(of: str, names: Sequence[str], *place: str | int) -> None:
        what = "offer" if of in ("offers", "all") else of
        there = "" if what == "offer" else f"; there are {', '.join(sorted(known[of])) or 'none'}"
        found.extend(
            (("contact_policy", *place, "which", at), f"no {what} {name!r}{there}")
            for at, name in enumerate(names)
            if name not in known[of]
        )

    def no_groups(of: str, *place: str | int) -> None:
        if of == "group" and not config.groups:
            found.append((("contact_policy", *place, "of"), "of: group: there are no groups; expected some in groups"))

    labels: dict[str, str] = {}
    for at, cap in enumerate(policy.caps):
        no_channel(cap.channels, "caps", at, "channels")
        no_groups(cap.of, "caps", at)
        if cap.which:
            nothing_such(cap.of, cap.which, "caps", at)
        _once(labels, cap.label, f"caps[{at}]", ("contact_policy", "caps", at), found)
    for at, cool in enumerate(policy.cool_off):
        no_groups(cool.of, "cool_off", at)
        nothing_such(cool.of, cool.which, "cool_off", at)
        _once(labels, cool.label, f"cool_off[{at}]", ("contact_policy", "cool_off", at), found)
    if policy.pressure is not None:
        no_channel(list(policy.pressure.channels), "pressure", "channels")
    no_channel(policy.outbound, "outbound")
    return found


def _once(
    labels: dict[str, str],
    label: str,
    here: str,
    place: tuple[str | int, ...],
    found: list[tuple[tuple[str | int, ...], str]],
) -> None:
    """Explanations tell limits apart by what they are called."""
    other = labels.setdefault(label, here)
    if other != here:
        found.append((place, f"{label!r} is already there as {other}; give one of them another name"))
