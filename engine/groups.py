"""Groups of offers: settings that several offers share, merged into them before anything is checked. Pure.

    offer ← its first group ← the parent of that group … ← its second group …

What an offer does not say itself it takes from the first of these that does. Rules of the layers add up instead, those
of the outermost group first, those of the offer last; a group reached twice counts once. This is done on the mappings
as they stand in the file, so every setting that offers have, now or later, is inherited without a word about it here.
Where each merged part comes from is kept: a mistake is told at the line where it stands, once.

Triggers by events need to know how long ago the last one was: the feature that says so is added here, if there is none.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from engine.config_base import CUSTOMER, Id, Part
from engine.rules_schema import LAYERS

Location = tuple[int | str, ...]
Tree = Mapping[str, Any]
_OWN: Final = frozenset(("id", "parent", "group"))
"""What is nobody else's."""
SINCE: Final = "trigger_since_"


class Group(Part, extra="allow"):
    """Settings for offers: any that an offer may have. They are checked where offers inherit them."""

    id: Id
    parent: Id | None = None


@dataclass(frozen=True)
class Expanded:
    """A configuration with all settings where they count."""

    tree: Tree
    problems: Sequence[tuple[Location, str]] = ()
    origins: Mapping[Location, Location] = field(default_factory=dict)
    """Where in the file a part of the tree stands, if not at its place."""
    unused: Sequence[tuple[Location, Tree]] = ()
    """Groups that no offer inherits from, by their places: nobody else checks what they say."""

    def origin(self, place: Location) -> Location:
        """Where in the file a place of the tree stands."""
        for end in range(len(place), 0, -1):
            if place[:end] in self.origins:
                return self.origins[place[:end]] + place[end:]
        return place


def expanded(tree: Tree) -> Expanded:
    """Let offers inherit. What is not even a mapping stays as it is: the form of the configuration refuses it."""
    problems: list[tuple[Location, str]] = []
    origins: dict[Location, Location] = {}
    groups = _groups(tree.get("groups"), problems)
    if not isinstance(tree.get("offers"), list):
        return Expanded(tree, problems)
    parents = _parents(groups, problems)
    offers: list[Any] = []
    used: set[str] = set()
    for at, offer in enumerate(tree["offers"]):
        if not isinstance(offer, dict):
            offers.append(offer)
            continue
        line = _line_of(offer.get("group"), ("offers", at, "group"), groups, parents, problems)
        used.update(line)
        sources = [(("offers", at), offer), *((("groups", groups[name][0]), groups[name][1]) for name in line)]
        offers.append(_merged(("offers", at), sources, origins) if line else offer)
    unused = [(("groups", at), _without_own(group)) for name, (at, group) in groups.items() if name not in used]
    whole = {**tree, "offers": offers}
    features = _recencies(whole, origins)
    if features:
        whole["features"] = [*(tree.get("features") or ()), *features]
    return Expanded(whole if groups or features else tree, problems, origins, unused)


def lineage(groups: Sequence[Group], names: Sequence[str]) -> tuple[str, ...]:
    """The groups of an offer and their parents, in the order in which they are asked.

    >>> lineage([Group(id="cards", parent="bank"), Group(id="bank")], ["cards"])
    ('cards', 'bank')
    """
    parents = {group.id: group.parent for group in groups}
    found: dict[str, None] = {}
    for name in names:
        at: str | None = name
        while at is not None and at in parents and at not in found:
            found[at] = None
            at = parents[at]
    return tuple(found)


def _groups(given: Any, problems: list[tuple[Location, str]]) -> dict[str, tuple[int, Tree]]:
    found: dict[str, tuple[int, Tree]] = {}
    for at, group in enumerate(given if isinstance(given, list) else ()):
        name = group.get("id") if isinstance(group, dict) else None
        if not isinstance(name, str):
            continue
        if name in found:
            problems.append((("groups", at, "id"), f"group {name!r} is already there as groups[{found[name][0]}]"))
        else:
            found[name] = at, group
        if "group" in group:
            problems.append((("groups", at, "group"), "a group has a parent, one; offers have groups"))
    return found


def _parents(groups: Mapping[str, tuple[int, Tree]], problems: list[tuple[Location, str]]) -> dict[str, str]:
    """The parent of each group; without those that are unknown, or would lead back."""
    parents: dict[str, str] = {}
    for name, (at, group) in groups.items():
        parent = group.get("parent")
        if not isinstance(parent, str):
            continue
        if parent not in groups:
            problems.append((("groups", at, "parent"), _unknown(parent, groups)))
            continue
        path = [name, parent]
        while path[-1] != name and path[-1] in parents:
            path.append(parents[path[-1]])
        if path[-1] == name:
            problems.append((("groups", at, "parent"), f"inherits from itself: {' from '.join(path)}"))
        else:
            parents[name] = parent
    return parents


def _line_of(
    given: Any,
    place: Location,
    groups: Mapping[str, tuple[int, Tree]],
    parents: Mapping[str, str],
    problems: list[tuple[Location, str]],
) -> list[str]:
    """The groups that an offer inherits from, the nearest first."""
    found: list[str] = []
    for i, name in enumerate([given] if isinstance(given, str) else given if isinstance(given, list) else ()):
        if not isinstance(name, str):
            continue
        if name not in groups:
            problems.append(((*place, i) if isinstance(given, list) else place, _unknown(name, groups)))
            continue
        at: str | None = name
        while at is not None and at not in found:
            found.append(at)
            at = parents.get(at)
    return found


def _unknown(name: str, groups: Mapping[str, tuple[int, Tree]]) -> str:
    return f"no group {name!r}; there are {', '.join(sorted(groups)) or 'none'}"


def _without_own(group: Tree) -> Tree:
    return {name: value for name, value in group.items() if name not in _OWN}


def _merged(
    place: Location, sources: Sequence[tuple[Location, Tree]], origins: dict[Location, Location]
) -> dict[str, Any]:
    """The settings of an offer; `sources` are itself and its groups, the nearest first."""
    merged = dict(sources[0][1])
    for origin, source in sources[1:]:
        for name, value in _without_own(source).items():
            if name not in merged:
                merged[name] = value
                origins[(*place, name)] = (*origin, name)
    for layer in LAYERS:
        saying = [(origin, source[layer]) for origin, source in reversed(sources) if layer in source]
        if len(saying) > 1 and all(isinstance(rules, list) for _, rules in saying):
            origins.pop((*place, layer), None)
            merged[layer] = []
            for origin, rules in saying:
                for i, rule in enumerate(rules):
                    origins[(*place, layer, len(merged[layer]))] = (*origin, layer, i)
                    merged[layer].append(rule)
    return merged


def _recencies(tree: Tree, origins: dict[Location, Location]) -> list[Tree]:
    """Features that triggers need and that are not there; a mistake in one is told at the trigger."""
    given = tree.get("features")
    features = given if isinstance(given, list) else []
    there = {feature.get("event") for feature in features if isinstance(feature, dict) and _tells_since(feature)}
    added: list[Tree] = []
    for at, offer in enumerate(tree["offers"]):
        triggers = offer.get("triggers") if isinstance(offer, dict) else None
        for i, trigger in enumerate(triggers if isinstance(triggers, list) else ()):
            event = trigger.get("event") if isinstance(trigger, dict) else None
            if isinstance(event, str) and event not in there:
                there.add(event)
                own: Location = ("offers", at, "triggers", i)
                place: Location = ("features", len(features) + len(added))
                origins[place] = Expanded({}, origins=origins).origin(own)
                name = (SINCE + re.sub(r"[^a-z0-9]+", "_", event.lower()).strip("_"))[:64]
                meaning = f"time since the last {event}, for triggers"
                added.append({"name": name, "event": event, "function": "recency", "meaning": meaning, "unit": "s"})
    return added


def _tells_since(feature: Tree) -> bool:
    """Whether a feature says how long ago the last event of a type was, and of nothing else."""
    plain = feature.get("entity", CUSTOMER) == CUSTOMER and not feature.get("where") and not feature.get("by")
    return plain and feature.get("function") == "recency" and feature.get("default") is None


def since_feature(features: Sequence[Any], event: str) -> str:
    """The feature that says how long ago the last event of a type was."""
    found = (f for f in features if f.event == event and _tells_since(f.model_dump(include=_TOLD)))
    return str(next(found).name)


_TOLD: Final = {"entity", "where", "by", "function", "default"}
