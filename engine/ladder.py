"""The cold start ladder: points, then what the category teaches, then the offer's own record.

Points are awarded by rules: each that holds for a customer adds its points, and the sum stands for a rate, on a line
through declared places. That rate weighs as many lessons as are declared, in the place of the model's prior, until
lessons weigh more (`models.handover`). The lessons that count are those of the offer, and what its category tells
about it. It changes mean and standard deviation before arbitration, so propensities are exact as ever.

The bits of these rules stand in the record behind those of the offers and of `exploration.never`.

An estimate stands on a rung, and reasons name it:

    points    the declared rate weighs more than the lessons         weight: the points
    category  fewer than COLD_START_LESSONS own lessons              weight: lessons of the others of its category
    own       else                                                   weight: its own lessons
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine.config_schema import Config
from engine.places import Rests
from engine.policyfacts import PolicyFacts
from engine.rules import Rules, Verdict
from models import Policy
from models.handover import hand_over

COLD_START_LESSONS: Final = 30.0
"""Below so many lessons an offer's estimate leans on the others, and the reasons say so."""

Floats = NDArray[np.float64]
_NO_POINTS: Final = np.zeros((0, 0))


class Rung(IntEnum):
    """What an estimate rests on."""

    POINTS = 0
    CATEGORY = 1
    OWN = 2

    @property
    def code(self) -> str:
        """As reasons have it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Awarded:
    """Points of a batch and what weighs against them; arrays (B, k) over the offers that have points."""

    points: Floats
    lessons: Floats
    """That speak about the offer at this x, its own and those of others."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a policy rests on, by offer."""

    own: Floats
    """Lessons of the offer itself, aged ones counting less."""
    category: Floats
    """Lessons of the other offers of its category."""
    cold: NDArray[np.bool_]


class Ladder:
    """What a configuration says of cold starts."""

    def __init__(self, config: Config, rules: Rules) -> None:
        with_points = [(at, offer.points) for at, offer in enumerate(config.offers) if offer.points is not None]
        self.offers: Final = tuple(at for at, _ in with_points)
        """Indices of the k offers with points."""
        self.place: Final = {offer: k for k, offer in enumerate(self.offers)}
        self._place_of = np.full(len(config.offers), -1)
        self._place_of[list(self.offers)] = range(len(self.offers))
        self._columns = np.array(self.offers, dtype=np.int64)
        self.strengths: Final = np.array([points.strength for _, points in with_points], np.float64)
        """(k,) lessons that the points of each weigh."""
        self.ids: Final = tuple(config.offers[at].id for at in self.offers)
        # (rules, k): the points that a rule adds. A rule named twice by an offer adds both times.
        self._awards = np.zeros((len(rules), len(with_points)))
        for k, (_, points) in enumerate(with_points):
            for rule in points.rules:
                self._awards[rules.at(rule.when), k] += rule.points
        self._lines = [
            (np.array([at for at, _ in line]), np.array([rate for _, rate in line]))
            for line in (sorted(points.rate_at.items()) for _, points in with_points)
        ]
        self._bytes = (len(rules) + 7) // 8
        categories = [offer.category for offer in config.offers]
        numbers = {category: at for at, category in enumerate(dict.fromkeys(categories))}
        self._category = np.array([numbers[category] for category in categories])
        self._of_policy: tuple[Any, Record] | None = None

    def points(self, held: Sequence[bytes]) -> Floats:
        """(B, k) points by the rule bits of each decision; a rule that could not be evaluated adds none."""
        packed = np.frombuffer(b"".join(held), np.uint8).reshape(len(held), self._bytes)
        bits = np.unpackbits(packed, axis=1, count=len(self._awards), bitorder="little")
        awarded: Floats = bits @ self._awards
        return awarded

    def rates(self, points: Floats) -> Floats:
        """(B, k) the rate that points stand for: on the line through the declared places, level beyond its ends."""
        return np.column_stack([np.interp(points[:, k], *line) for k, line in enumerate(self._lines)])

    def climb(
        self,
        x: NDArray[np.int8],
        mean: NDArray[np.float32],
        sd: NDArray[np.float32],
        held: Sequence[bytes],
        facts: PolicyFacts,
    ) -> Awarded | None:
        """Let points into `mean` and `sd` (B, offers), which are changed where they stand; None: no offer has any."""
        if not self.offers:
            return None
        points = self.points(held)
        lessons = hand_over(
            np.ascontiguousarray(x),
            mean,
            sd,
            self._columns,
            np.ascontiguousarray(self.rates(points)),
            self.strengths,
            facts.noise,
            facts.spread,
            facts.others,
        )
        return Awarded(points, lessons)

    def record(self, policy: Policy) -> Record:
        """What a policy rests on; worked out once a policy."""
        known = self._of_policy
        if known is None or known[0] is not policy:
            known = self._of_policy = policy, self.resting_on(policy.lessons.astype(np.float64))
        return known[1]

    def resting_on(self, own: Floats) -> Record:
        """The same from the lessons (offers,) of a policy."""
        others = np.bincount(self._category, own)[self._category] - own
        return Record(own, np.maximum(others, 0.0), own < COLD_START_LESSONS)

    def rests(self, awarded: Awarded | None, record: Record) -> Rests:
        """What the estimates of a batch rest on; `rung` says it of one."""
        points, lessons = (_NO_POINTS, _NO_POINTS) if awarded is None else (awarded.points, awarded.lessons)
        return Rests(record.cold, record.own, record.category, self._place_of, points, lessons, self.strengths)

    def rung(self, offer: int, row: int, awarded: Awarded | None, record: Record) -> tuple[Rung, float]:
        """(rung, the number behind it) of an offer in row `row` of a batch."""
        k = None if awarded is None else self.place.get(offer)
        if k is not None and awarded is not None and awarded.lessons[row, k] < self.strengths[k]:
            return Rung.POINTS, float(awarded.points[row, k])
        if record.cold[offer]:
            return Rung.CATEGORY, float(record.category[offer])
        return Rung.OWN, float(record.own[offer])


def held_of(verdicts: Sequence[Verdict]) -> list[bytes]:
    """The bits of the rules that held."""
    return [verdict.held for verdict in verdicts]
