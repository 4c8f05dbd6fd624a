"""Leads go where they are worth the most: as linear programming has it, within capacities, the same every time."""

import random

import numpy as np
import pytest
from scipy.optimize import linprog

from engine.leads.assign import Assignment, Place, suiting


def filled(
    places: list[Place], worths: dict[str, float], suits: dict[str, tuple[int, ...]], room: int = 1_000
) -> Assignment:
    assignment = Assignment(places)
    count = 0
    for name in sorted(worths, key=lambda name: (-worths[name], name)):
        if count < room:
            count += assignment.add(name, suits[name])
    return assignment


def best(places: list[Place], worths: dict[str, float], suits: dict[str, tuple[int, ...]], room: int) -> float:
    """The optimum of the transportation problem, whose vertices are whole."""
    pairs = [(name, at) for name in worths for at in suits[name]]
    if not pairs:
        return 0.0
    rows = [[float(name == one) for name, _ in pairs] for one in worths]
    rows += [[float(at == one) for _, at in pairs] for one in range(len(places))]
    rows += [[1.0] * len(pairs)]
    bounds = [1.0] * len(worths) + [float(place.capacity) for place in places] + [float(room)]
    costs = [-worths[name] for name, _ in pairs]
    found = linprog(costs, A_ub=np.array(rows), b_ub=bounds, bounds=(0, 1), method="highs")
    assert found.status == 0
    return float(-found.fun)


@pytest.mark.parametrize("seed", range(40))
def test_the_worth_in_all_is_that_of_linear_programming(seed: int) -> None:
    dice = random.Random(seed)
    places = [Place(f"s{n}", dice.randint(0, 4)) for n in range(dice.randint(1, 6))]
    count = dice.randint(1, 20)
    worths = {f"c{n}": float(dice.randint(1, 12)) for n in range(count)}
    some = [tuple(sorted(dice.sample(range(len(places)), dice.randint(0, len(places))))) for _ in range(4)]
    suits = {name: dice.choice(some) for name in worths}
    room = dice.choice([3, 1_000])
    assignment = filled(places, worths, suits, room)
    placed = assignment.places_of()
    assert all(at in suits[name] for name, at in placed.items())
    for at, place in enumerate(places):
        assert assignment.used(at) == sum(there == at for there in placed.values()) <= place.capacity
    assert sum(worths[name] for name in placed) == pytest.approx(best(places, worths, suits, room))
    assert filled(places, worths, suits, room).places_of() == placed, "the same every time"


def test_whoever_has_a_place_is_moved_but_never_loses_it() -> None:
    places = [Place("ann", 1), Place("bob", 1), Place("carl", 1)]
    assignment = Assignment(places)
    assert assignment.add("flexible", (0, 1)) and assignment.places_of() == {"flexible": 0}
    assert assignment.add("also", (1, 2))
    assert assignment.add("only ann", (0,))
    assert assignment.places_of()["only ann"] == 0 and set(assignment.places_of()) == {"flexible", "also", "only ann"}
    assert not assignment.add("too late", (0, 1))


def test_a_place_that_gets_free_goes_to_the_next_one() -> None:
    assignment = Assignment([Place("ann", 1)])
    assert assignment.add("first", (0,)) and not assignment.add("second", (0,))
    assignment.remove("first")
    assert assignment.add("second", (0,)) and assignment.places_of() == {"second": 0}


def test_earlier_periods_come_first_and_sellers_are_filled_evenly() -> None:
    places = [Place("ann", 4, 200), Place("ann", 4, 100), Place("bob", 2, 100)]
    assignment = Assignment(places)
    for name in "abcdef":
        assert assignment.add(name, (0, 1, 2))
    assert [assignment.used(at) for at in range(3)] == [0, 4, 2]


def test_a_place_suits_by_attribute_and_time() -> None:
    places = [Place("ann", 1, 50, 0, (("branch", frozenset({"12", "14"})),)), Place("bob", 0), Place("carl", 1)]
    assert suiting(places, {"branch": "14"}, 100) == (0, 2)
    assert suiting(places, {"branch": "14"}, 50) == (2,), "the offer expires before ann is there"
    assert suiting(places, {}, 100) == (2,)


def test_a_network_of_thousands_takes_no_time() -> None:
    places = [Place(f"s{n}", 10, suits=(("branch", frozenset({str(n % 200)})),)) for n in range(2_000)]
    by_branch = [suiting(places, {"branch": str(branch)}, 1) for branch in range(200)]
    assignment = Assignment(places)
    placed = sum(assignment.add(f"c{n}", by_branch[n % 200]) for n in range(50_000))
    assert placed == 20_000
