"""Who gets one of the places that sellers have: the customers with the most worth in all, exactly. Pure.

Candidates are given in order of preference, the most worth first. What a contact is worth does not depend on who
makes it, so the only question is which sets of candidates the places can hold at once. Such sets are the independent
sets of a matroid (a transversal one: candidates are its elements, places its transversals), and on a matroid taking
candidates in order of worth, each one that still fits, is optimal (Rado 1957, Edmonds 1971). At most so many of them is
a truncation, which is a matroid again. So it is the optimum of the transportation problem (tests compare with linear
programming), at the price of a search for each candidate.

"Still fits" is found by an augmenting path: those who have a place may be moved to another one that suits them, and
nobody who has a place loses it. Candidates whom the same places suit are one class, so the search walks over classes
and places rather than candidates. Two facts make it short: a place that is full stays full, and a class for which no
path is found has none ever after, nor has any class that was met on the way.

Among the places that suit, an earlier one goes before a later one, then the one that is filled the least.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import NamedTuple

_Key = tuple[int, ...]
"""The places that suit a class, which is its name."""


class Place(NamedTuple):
    """What one seller can do in one period."""

    seller: str
    capacity: int
    from_ms: int = 0
    until_ms: int = 0
    """0: without an end."""
    suits: tuple[tuple[str, frozenset[str]], ...] = ()
    """(attribute, values) of the customers that it is for; all must hold."""


@dataclass(slots=True)
class _Class:
    """Candidates whom the same places suit."""

    places: tuple[int, ...]
    heap: list[tuple[int, float, int]] = field(default_factory=list)
    """(from_ms, share filled, place) of those that may have room; the share may be of an earlier moment."""
    hopeless: bool = False


class Assignment:
    """Fills places with candidates, who come in order of preference."""

    def __init__(self, places: Sequence[Place], taken: Sequence[int] = ()) -> None:
        """`taken` says how many of each place's capacity are gone before."""
        self._places = places
        self._used = list(taken) or [0] * len(places)
        self._classes: dict[_Key, _Class] = {}
        self._members: list[dict[_Key, list[str]]] = [{} for _ in places]
        """Candidates by class, of each place."""

    def add(self, candidate: str, suiting: Sequence[int]) -> bool:
        """Find a place for a candidate among `suiting`; False if there is none without taking another's."""
        key = tuple(suiting)
        found = self._classes.get(key)
        if found is None:
            heap = [(self._places[at].from_ms, self._share(at), at) for at in key]
            heapify(heap)
            found = self._classes[key] = _Class(key, heap)
        if found.hopeless:
            return False
        # (class, the place of the class before it that one of this class leaves)
        came: dict[_Key, tuple[_Key, int] | None] = {key: None}
        line = deque([key])
        seen: set[int] = set()
        while line:
            at = line.popleft()
            free = self._free(self._classes[at])
            if free is not None:
                self._move(candidate, at, free, came)
                return True
            for place in self._classes[at].places:
                if place not in seen:
                    seen.add(place)
                    for other in self._members[place]:
                        if other not in came:
                            came[other] = (at, place)
                            line.append(other)
        for met in came:
            self._classes[met].hopeless = True
        return False

    def remove(self, candidate: str) -> None:
        """Give the place of a candidate to whom comes next."""
        for place, members in enumerate(self._members):
            for names in members.values():
                if candidate in names:
                    names.remove(candidate)
                    self._used[place] -= 1
                    self._reopen()
                    return
        raise KeyError(candidate)

    def places_of(self) -> dict[str, int]:
        """The place of everybody who has one."""
        return {
            name: place for place, members in enumerate(self._members) for names in members.values() for name in names
        }

    def used(self, place: int) -> int:
        """How much of a place is gone."""
        return self._used[place]

    def _free(self, of: _Class) -> int | None:
        while of.heap:
            from_ms, share, place = of.heap[0]
            if self._used[place] >= self._places[place].capacity:
                heappop(of.heap)
            elif share != self._share(place):
                heappop(of.heap)
                heappush(of.heap, (from_ms, self._share(place), place))
            else:
                return place
        return None

    def _move(self, candidate: str, at: _Key, free: int, came: "dict[_Key, tuple[_Key, int] | None]") -> None:
        """Along the path: one of each class to the place that got free, and the candidate to the last one."""
        self._used[free] += 1
        while (before := came[at]) is not None:
            previous, place = before
            moved = self._members[place][at].pop()
            if not self._members[place][at]:
                del self._members[place][at]
            self._members[free].setdefault(at, []).append(moved)
            at, free = previous, place
        self._members[free].setdefault(at, []).append(candidate)

    def _share(self, place: int) -> float:
        return self._used[place] / max(self._places[place].capacity, 1)

    def _reopen(self) -> None:
        for found in self._classes.values():
            found.hopeless = False
            found.heap = [(self._places[at].from_ms, self._share(at), at) for at in found.places]
            heapify(found.heap)


def suiting(places: Sequence[Place], attributes: dict[str, str], expires_ms: int) -> tuple[int, ...]:
    """The places for a customer with these attributes, whose offer is open until `expires_ms`.

    >>> places = [Place("ann", 5), Place("bob", 5, suits=(("branch", frozenset({"12"})),))]
    >>> suiting(places, {"branch": "12"}, 100), suiting(places, {"branch": "7"}, 100)
    ((0, 1), (0,))
    """
    return tuple(
        at
        for at, place in enumerate(places)
        if place.capacity > 0
        and place.from_ms < expires_ms
        and all(attributes.get(name) in values for name, values in place.suits)
    )
