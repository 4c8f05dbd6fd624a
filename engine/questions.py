"""The next best question: what the answer would be worth, told before it is asked. Pure.

An offer that `asks` for a fact is worth what the decision would gain by knowing it:

    Σ over the answers a:  p(a) × ( the best score if a were known − the score, if a were known, of what is best now )

Both are scores of the same knowledge, so a question is worth nothing unless some answer would change what is done, and
never less than nothing. What could not be made if a were known is worth nothing then. The best are sought among all
offers that may be made and ask nothing, and silence. p(a) are the declared shares; who gives no answer changes nothing.
Context weights and levers of the question scale it, and it comes on top of P × gain − contact cost.

A question whose fact is given has been answered: it is kept back. Every answer is one more row to think through, so
it is done only for questions that may be asked, all of a batch at once.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.config_schema import Config
from engine.holds import CONTACT_POLICY, Situation
from engine.weights_schema import answer_value

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_ALL = 0


class Question(NamedTuple):
    """An offer that asks for a fact."""

    offer: int
    column: int
    """Of the fact in the value matrix."""
    answers: tuple[float, ...]
    shares: tuple[float, ...]


Think = Callable[[NDArray[np.int64], Floats], tuple[Floats, Bools]]
"""From rows of the batch and their value matrix to (score, may) over the offers and silence."""


class Questions:
    """The questions of one configuration; as a kind of limits, those that are answered."""

    def __init__(self, config: Config, column_of: dict[str, int]) -> None:
        """`column_of` has the column of each fact."""
        facts = {fact.name: fact for fact in config.context}
        found = []
        for at, offer in enumerate(config.offers):
            if offer.asks is not None:
                fact, shares = facts[offer.asks.fact], offer.asks.answers
                values = [answer_value(fact, answer) for answer in shares]
                known = tuple(value for value in values if value is not None)
                found.append(Question(at, column_of[fact.name], known, tuple(shares.values())))
        self.asked: Final = tuple(found)
        self.names: Final = tuple(f"answered: {config.offers[q.offer].id}" for q in found)
        self.layer: Final = CONTACT_POLICY
        self.derived: Final = False
        self._size = len(config.offers)
        self._asking = [question.offer for question in found]

    def holds(self, situation: Situation) -> Sequence[Sequence[tuple[int, int]]] | None:
        """Questions whose facts are given; None: nobody was given any."""
        if not any(situation.facts):
            return None
        return [
            [
                (at, _ALL)
                for at, question in enumerate(self.asked)
                if any(column == question.column and value == value for column, value in facts)
            ]
            for facts in situation.facts
        ]

    def covers(self, limit: int, scope: int) -> Bools:
        """(offers,) the question."""
        covered = np.zeros(self._size, np.bool_)
        covered[self.asked[limit].offer] = True
        return covered

    def worth(
        self, values: Floats, score: Floats, may: Bools, weights: Callable[[int], Floats], think: Think
    ) -> list[tuple[tuple[int, float], ...]]:
        """(offer, what it adds to the score) of the questions that each decision of a batch may ask.

        Args:
            values: (B, columns) the value matrix.
            score: (B, offers and silence), without the worth of answers.
            may: likewise, what may be made.
            weights: of the offers in a row of the batch.
            think: the same for other values.
        """
        found: list[tuple[tuple[int, float], ...]] = [()] * len(values)
        asking = [(row, q) for q in self.asked for row in np.flatnonzero(may[:, q.offer]).tolist()]
        if not asking:
            return found
        others = may.copy()
        others[:, self._asking] = False
        rows = np.array([row for row, q in asking for _ in q.answers], np.int64)
        imagined = values[rows]
        at = 0
        for _, question in asking:
            for value in question.answers:
                imagined[at, question.column] = value
                at += 1
        scores, possible = think(rows, imagined)
        possible[:, self._asking] = False
        now = np.where(others, score, -np.inf).argmax(axis=1)
        best = np.where(possible, scores, -np.inf).max(axis=1)
        best = np.where(possible.any(axis=1), best, 0.0)
        every = np.arange(len(rows))
        # Where nothing may be made now, the first column stands for it, which may not be made either: worth nothing.
        kept = others[rows, now[rows]] & possible[every, now[rows]]
        gained = np.maximum(best - np.where(kept, scores[every, now[rows]], 0.0), 0.0)
        at = 0
        for row, question in asking:
            worth = 0.0
            for share in question.shares:
                worth += share * float(gained[at])
                at += 1
            found[row] += ((question.offer, worth * float(weights(row)[question.offer])),)
        return found

    @staticmethod
    def add(score: Floats, worth: Sequence[Sequence[tuple[int, float]]]) -> None:
        """Add what `worth` found, or a record keeps, to the scores (B, offers and silence) where they stand."""
        for row, some in enumerate(worth):
            for offer, value in some:
                score[row, offer] += value
