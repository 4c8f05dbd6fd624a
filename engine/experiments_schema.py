"""The form of experiments in a configuration, and what must hold between their fields.

An arm is a span of the line from 0 to 1 on which a keyed hash puts every person. Spans must grow without pushing each
other: the first arm grows from 0 upwards, the second from 1 downwards, and each further one from a place of its own,
1/2, 1/4, 3/4, 1/8, …, or from where it says. What no arm covers is the champion's.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from engine import limits
from engine.config_base import Id, Name, Part, Share, TimeMs

Kind = Literal["sale", "service", "retention", "question"]
ArmPolicy = Literal["champion", "control", "no_levers", "no_model", "eligibility_only", "greedy"]
Span = tuple[float, float]
"""From, inclusive, and to, exclusive, on the line from 0 to 1."""
Location = tuple[int | str, ...]

CHAMPION: Final = "champion"
"""The arm of whoever is in no other one."""
_ROUNDING: Final = 1e-9
"""Shares that are written with a few digits may overlap by so much."""


class Spares(Part):
    """What a control group is not offered. What is left empty is no restriction: all of it is spared."""

    kinds: tuple[Kind, ...] = ()
    categories: tuple[Id, ...] = ()
    channels: tuple[Id, ...] = ()
    exempt: tuple[Kind, ...] = ()


class Arm(Part):
    """Some of the people, and what is done otherwise for them."""

    name: Name
    share: Share
    policy: ArmPolicy
    at: Share | None = None
    spares: Spares = Spares()

    @model_validator(mode="after")
    def _fits(self) -> "Arm":
        if self.policy != "control" and self.spares != Spares():
            raise ValueError("spares: only an arm with policy: control has it")
        if self.at is not None and self.at + self.share > 1.0 + _ROUNDING:
            raise ValueError(f"at {self.at:g} and share {self.share:g} reach beyond 1")
        return self


class Goal(Part):
    """An event that counts as success whether something was offered or not."""

    event: Id
    value: Name | None = None


class Experiment(Part):
    """A control group, or other policies beside the one that serves, each for a share of the people."""

    name: Name
    salt: Annotated[str, Field(min_length=1, max_length=limits.ID_BYTES_MAX)] | None = None
    layer: Name | None = None
    people: tuple[Share, Share] = (0.0, 1.0)
    starts_ms: TimeMs = 0
    ends_ms: TimeMs = limits.TIME_MS_MAX
    arms: Annotated[tuple[Arm, ...], Field(min_length=1, max_length=limits.EXPERIMENT_ARM_ENTRIES_MAX)]
    goal: Goal | None = None

    @property
    def keyed_by(self) -> str:
        """What the hash of its arms is keyed by: as long as it stays, so does everybody."""
        return self.salt or self.name

    def spans(self) -> list[Span]:
        """Where each arm lies. It depends on the place of the arm in the list and on its own share alone.

        >>> arms = [Arm(name=name, share=0.1, policy="greedy") for name in "abcd"]
        >>> Experiment(name="x", arms=arms).spans()
        [(0.0, 0.1), (0.9, 1.0), (0.5, 0.6), (0.25, 0.35)]
        """
        spans = []
        for place, arm in enumerate(self.arms):
            if arm.at is None and place == 1:
                spans.append((1.0 - arm.share, 1.0))
            else:
                start = _place(place) if arm.at is None else arm.at
                spans.append((start, start + arm.share))
        return spans

    @property
    def champion_share(self) -> float:
        """What no arm covers."""
        rest = 1.0 - sum(arm.share for arm in self.arms)
        return rest if rest > _ROUNDING else 0.0


def _place(place: int) -> float:
    """Where an arm grows from: 0 for the first, then 1/2, 1/4, 3/4, 1/8, 5/8, … from the third on."""
    number, start, step = max(place - 1, 0), 0.0, 0.5
    while number:
        start += step * (number & 1)
        number >>= 1
        step /= 2
    return start


def problems(
    experiments: tuple[Experiment, ...],
    channels: set[str],
    categories: set[str],
    events: Mapping[str, Mapping[str, str]],
) -> list[tuple[Location, str]]:
    """Everything that needs more than one field, as (place, what was expected).

    Args:
        experiments: those of the configuration.
        channels: ids.
        categories: of the offers.
        events: the type of each attribute, by type of event.
    """
    found: list[tuple[Location, str]] = []
    names: dict[str, int] = {}
    salts: dict[str, int] = {}
    for at, one in enumerate(experiments):
        place: Location = ("experiments", at)
        if names.setdefault(one.name, at) != at:
            there = f"experiments[{names[one.name]}]"
            found.append(((*place, "name"), f"experiment {one.name!r} is already there as {there}"))
        elif salts.setdefault(one.keyed_by, at) != at:
            other = f"experiments[{salts[one.keyed_by]}] has the salt {one.keyed_by!r}, too"
            found.append(((*place, "salt"), f"{other}: both would have the same people; expected another one"))
        if one.starts_ms >= one.ends_ms:
            found.append(((*place, "ends_ms"), "expected a time after starts_ms"))
        if not one.people[0] < one.people[1]:
            found.append(((*place, "people"), f"{list(one.people)}: expected [from, to] with from < to"))
        found += [((*place, *where), problem) for where, problem in _arms(one)]
        for i, arm in enumerate(one.arms):
            for name, named, known in (
                ("channels", arm.spares.channels, channels),
                ("categories", arm.spares.categories, categories),
            ):
                what = f"expected one of {', '.join(sorted(known))}"
                found += [
                    ((*place, "arms", i, "spares", name, n), f"there is no {one_of!r}; {what}")
                    for n, one_of in enumerate(named)
                    if one_of not in known
                ]
        if one.goal is not None:
            found += [((*place, "goal", *where), problem) for where, problem in _goal(one.goal, events)]
    return found + _layers(experiments)


def _arms(one: Experiment) -> list[tuple[Location, str]]:
    found: list[tuple[Location, str]] = []
    first: dict[str, int] = {}
    for at, arm in enumerate(one.arms):
        if arm.name == CHAMPION:
            found.append((("arms", at, "name"), f"{CHAMPION!r} is the arm of all others; choose another name"))
        if first.setdefault(arm.name, at) != at:
            found.append((("arms", at, "name"), f"arm {arm.name!r} is already there as arms[{first[arm.name]}]"))
    together = sum(arm.share for arm in one.arms)
    if together > 1.0 + _ROUNDING:
        return [*found, (("arms",), f"the shares add up to {together:g}, expected at most 1")]
    if not one.champion_share and all(arm.policy != "champion" for arm in one.arms):
        found.append((("arms",), "nobody is left to compare with: expected shares below 1 in all, or a champion arm"))
    spans = sorted((span, at) for at, span in enumerate(one.spans()) if span[0] < span[1])
    for ((_, end), left), ((start, _), right) in pairwise(spans):
        if start < end - _ROUNDING:
            names = f"{one.arms[left].name} and {one.arms[right].name}"
            problem = f"arms {names} both cover {start:g} to {end:g} of the people: expected `at` for one of them"
            found.append((("arms", max(left, right)), problem))
    return found


def _goal(goal: Goal, events: Mapping[str, Mapping[str, str]]) -> list[tuple[Location, str]]:
    if goal.event not in events:
        return [(("event",), f"no event type {goal.event!r}; there are {', '.join(sorted(events)) or 'none'}")]
    if goal.value is not None and events[goal.event].get(goal.value) != "number":
        return [(("value",), f"event {goal.event!r} has no number {goal.value!r}")]
    return []


def _layers(experiments: tuple[Experiment, ...]) -> list[tuple[Location, str]]:
    """Experiments of a layer exclude each other: nobody may be in two of them."""
    found: list[tuple[Location, str]] = []
    for at, one in enumerate(experiments):
        for before, other in enumerate(experiments[:at]):
            together = one.layer is not None and one.layer == other.layer
            start, end = max(one.people[0], other.people[0]), min(one.people[1], other.people[1])
            if together and start < end - _ROUNDING:
                problem = f"experiments[{before}] is in layer {one.layer!r}, too: both cover {start:g} to {end:g} of it"
                found.append((("experiments", at, "people"), problem))
    return found
