"""Unbiased replay: what a learner would have done, from a log whose actions were drawn at random.

Li, Chu, Langford and Wang (2011): go through the log; where the learner picks the logged action, the event counts and
the learner is told of its reward; otherwise it never happened. If all actions were logged with the same probability,
independent of everything, the events that count are a sample of those that the learner would have met. Where one
action was logged more often than the others, `thinned` drops a random part of it first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bench.ours import Decided

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

Z_95 = 1.96


@dataclass(frozen=True)
class Against:
    """A difference of two mean rewards."""

    difference: float
    shares: Floats
    """(n,) how much each event of the log moves it."""

    @property
    def half_width(self) -> float:
        """Half the width of its 95 % interval."""
        return Z_95 * float(np.sqrt(np.sum(self.shares**2)))

    @property
    def worse(self) -> bool:
        """Whether the difference is below zero beyond noise."""
        return self.difference + self.half_width < 0.0


class Replayed(Protocol):
    """A learner that may be told who responded beside what that brought."""

    def decide(self, x: Floats32) -> Decided:
        """Actions for rows (B, d)."""

    def learn(self, x: Floats32, actions: Ints, rewards: Floats, responses: Bools | None = None) -> None:
        """What came of actions taken for rows (B, d)."""


def thinned(logged: Ints, propensities: Sequence[float], dice: np.random.Generator) -> Bools:
    """Which events to keep so that every action is as likely as the rarest. `propensities` of the actions."""
    keep = min(propensities) / np.asarray(propensities)
    kept: Bools = dice.random(len(logged)) < keep[logged]
    return kept


def replay(
    learner: Replayed, x: Floats32, logged: Ints, rewards: Floats, batch_rows: int, responses: Bools | None = None
) -> Ints:
    """The positions of the events that counted, in order.

    Args:
        learner: decides each batch and learns from what counted in it.
        x: (n, d).
        logged: (n,) actions, drawn evenly.
        rewards: (n,) in 0 .. 1, or as the terms of the learner have it.
        batch_rows: rows of the log a batch.
        responses: (n,) who responded, for a learner that is to be told.
    """
    counted: list[Ints] = []
    for start in range(0, len(x), batch_rows):
        part = slice(start, start + batch_rows)
        at = start + np.flatnonzero(learner.decide(x[part]).actions == logged[part])
        learner.learn(x[at], logged[at], rewards[at], None if responses is None else responses[at])
        counted.append(at)
    return np.concatenate(counted) if counted else np.zeros(0, np.int64)


def decisions_until(is_best: Bools, share: float, window: int) -> int | None:
    """How many decisions it took until the best action had this share of the last `window`; None if it never had.

    >>> decisions_until(np.array([False, True, True, True]), 1.0, 2), decisions_until(np.array([True]), 0.9, 2)
    (3, None)
    """
    if len(is_best) < window:
        return None
    sums = np.concatenate([[0], np.cumsum(is_best)])
    reached = np.flatnonzero(sums[window:] - sums[:-window] >= share * window)
    return int(reached[0]) + window if len(reached) else None


def against_constant(value: Floats, logged: Ints, counted: Ints, best: int) -> Against:
    """Mean value of the events that counted, less that of all events of one action of the same log.

    Most events of a good learner are in both means, so the noise of the difference is summed up event by event.
    """
    ours = np.zeros(len(value), np.bool_)
    ours[counted] = True
    theirs = logged == best
    shares = ours * (value - value[ours].mean()) / ours.sum() - theirs * (value - value[theirs].mean()) / theirs.sum()
    return Against(float(value[ours].mean() - value[theirs].mean()), shares)


def together(replays: Sequence[Against]) -> Against:
    """The mean difference over replays of one log: its noise is that of the log, which all of them share."""
    difference = float(np.mean([each.difference for each in replays]))
    return Against(difference, np.mean([each.shares for each in replays], axis=0))
