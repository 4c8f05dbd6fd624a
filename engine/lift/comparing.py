"""From visits to arms and what they bring. Pure.

A visit counts for an experiment while it ran and was allotted as it is now: a change of salt, layer, people or shares
is another experiment, and people who were moved by it would be in two arms.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from engine.experiments import CHAMPIONS, OUTSIDE, Assignment
from engine.experiments_schema import CHAMPION, Experiment
from engine.lift.reading import COUNTED, Floats, Ints, Visits
from models import lift

NET: Final = "value"
"""Rewards of the offers made less their contact costs."""
GOAL: Final = "goal"


@dataclass(frozen=True)
class Measured:
    """What one arm brings in one measure."""

    arm: str
    over: str
    """The arm that it is compared with."""
    measure: str
    lift: lift.Lift | None
    refusal: str = ""
    """Why there is no lift."""


@dataclass(frozen=True)
class ArmFigures:
    """What happened in one arm."""

    arm: str
    policy: str
    share: float
    """Of the people of the experiment, as configured."""
    people: int
    decisions: int
    counts: Mapping[str, int]
    value: float
    """A person: rewards less contact costs."""
    cost: float
    """A person: contact costs."""
    goal: float | None
    """A person; None where there is none, or it could not be counted."""


@dataclass
class Comparison:
    """One experiment, or one part of its decisions."""

    experiment: str
    part: str
    """ "" for all decisions."""
    arms: list[ArmFigures]
    lifts: list[Measured]
    ratio: float
    """How likely the numbers of people are by chance, see models.lift.sample_ratio."""
    refusals: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def ratio_is_odd(self) -> bool:
        """Whether the numbers of people are not those that chance gives."""
        return self.ratio < lift.RATIO_ALARM


@dataclass(frozen=True)
class Taken:
    """The visits that count for one experiment, and whose they are."""

    assignment: Assignment
    rows: Ints
    """Of the visits."""
    arms: Ints
    """(people,) arm of everybody by number, OUTSIDE for those without visits that count."""
    since_ms: Ints
    """(people,) first visit that counts."""
    remarks: list[str]


def allotted(experiment: Experiment) -> tuple[object, ...]:
    """What decides who is in which arm, and what is done there."""
    pairs = zip(experiment.arms, experiment.spans(), strict=True)
    arms = [(arm.name, arm.policy, arm.spares, span) for arm, span in pairs]
    return experiment.keyed_by, experiment.layer or experiment.keyed_by, experiment.people, tuple(arms)


def taken(visits: Visits, experiment: Experiment) -> Taken:
    """The visits that count for an experiment."""
    assignment = Assignment(experiment)
    same = [
        any(one.name == experiment.name and allotted(one) == allotted(experiment) for one in each.config.experiments)
        for each in visits.catalogues
    ]
    running = (visits.times_ms >= experiment.starts_ms) & (visits.times_ms < experiment.ends_ms)
    as_now = np.array(same, np.bool_)[visits.versions]
    everybody = np.array([assignment.arm(name) for name in visits.names], np.int64)
    rows = np.flatnonzero(running & as_now & (everybody[visits.people] != OUTSIDE))
    remarks = []
    if other := int((running & ~as_now).sum()):
        remarks.append(f"left out {other:,} decisions of configurations with other shares, salt or arms, or without it")
    since_ms = np.full(len(everybody), np.iinfo(np.int64).max)
    np.minimum.at(since_ms, visits.people[rows], visits.times_ms[rows])
    arms = np.where(since_ms < np.iinfo(np.int64).max, everybody, OUTSIDE)
    return Taken(assignment, rows, arms, since_ms, remarks)


def compare(visits: Visits, found: Taken, rows: Ints, part: str, goals: Floats | None) -> Comparison:
    """The arms of an experiment on some of its visits. `goals` (people,) is what each did, None if not counted."""
    experiment = found.assignment.experiment
    people = np.unique(visits.people[rows])
    arms = found.arms[people]
    at = np.searchsorted(people, visits.people[rows])
    cost = np.bincount(at, visits.costs[rows], len(people)).astype(np.float64)
    net = np.bincount(at, visits.values[rows], len(people)) - cost
    of_rows = arms[at]
    codes = [CHAMPIONS] * (experiment.champion_share > 0.0)
    codes += [number for number, arm in enumerate(experiment.arms) if arm.share]
    shares = {CHAMPIONS: experiment.champion_share} | dict(enumerate(arm.share for arm in experiment.arms))
    figures = []
    for code in codes:
        inside, there = arms == code, of_rows == code
        figures.append(
            ArmFigures(
                arm=found.assignment.name(code),
                policy=CHAMPION if code == CHAMPIONS else experiment.arms[code].policy,
                share=shares[code],
                people=int(inside.sum()),
                decisions=int(there.sum()),
                counts=dict(zip(COUNTED, visits.counts[rows[there]].sum(axis=0).tolist(), strict=True)),
                value=_mean(net[inside]),
                cost=_mean(cost[inside]),
                goal=None if goals is None else _mean(goals[people[inside]]),
            )
        )
    ratio = lift.sample_ratio([one.people for one in figures], [one.share for one in figures])
    measures = {NET: net}
    if goals is not None:
        measures[GOAL] = goals[people]
    lifts = [
        measured
        for measure, values in measures.items()
        for measured in _lifts(figures, codes, arms, measure, values)
    ]
    return Comparison(experiment.name, part, figures, lifts, ratio)


def _lifts(
    figures: Sequence[ArmFigures], codes: Sequence[int], arms: Ints, measure: str, values: Floats
) -> list[Measured]:
    """Of each arm over the champion, of the champion over control groups."""
    base = next(at for at, one in enumerate(figures) if one.policy == CHAMPION)
    found = []
    for at, one in enumerate(figures):
        if at == base:
            continue
        over, under = (base, at) if one.policy == "control" else (at, base)
        both = [lift.Arm.of(values[arms == codes[place]]) for place in (over, under)]
        names = figures[over].arm, figures[under].arm, measure
        problems = []
        for place, arm in zip((over, under), both, strict=True):
            # Where nothing was offered nothing can be worth anything: that is known without counting people.
            sure = measure == NET and figures[place].counts["offers"] == 0
            if problem := lift.too_little(arm, sure=sure):
                problems.append(f"{figures[place].arm} has {problem}")
        if problems:
            found.append(Measured(*names, None, "; ".join(problems)))
        else:
            clock = figures[over].decisions + figures[under].decisions
            found.append(Measured(*names, lift.compare(both[0], both[1], clock)))
    return found


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else 0.0
