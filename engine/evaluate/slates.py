"""Whole answers of an engine's log under another policy, place by place.

At each place the target is asked what it would have drawn next, with what stands before it in the log taken away, as
the engine itself draws. An answer that was ended by silence ended with that action; one that is shorter without it,
because nothing was left or a limit cut it, is taken as cut for the target, too.
"""

from collections.abc import Callable

import numpy as np

from engine.catalogue import Catalogue
from engine.errors import InvalidArgument
from engine.evaluate.enginelog import EngineLog
from engine.evaluate.judging import could_be_drawn
from engine.evaluate.log import NOTHING, Bools, Floats, Ints, Log
from engine.evaluate.targets import Target, chunks, even
from models.crossfit import crossfit
from models.evaluation import Evaluation, Sample, SampleError, evaluate
from models.slatevalue import SlateSample, evaluate_slates

Next = Callable[[Ints, int, Bools], Floats]
"""(rows, K) how likely each action is next; of rows, their fold and what was taken at earlier places."""


def judge_slates(log: Log, target: Target, configuration: Catalogue | None) -> Evaluation:
    """Evaluate whole answers. Raises InvalidArgument where the target and the log do not go together."""
    if not isinstance(log, EngineLog):
        raise InvalidArgument(f"{log.title} is a file: whole answers are evaluated on an engine's own log")
    log.slates = True
    places = _Places(log)
    people = np.unique(log.people, return_inverse=True)[1].astype(np.int64)
    try:
        if target.shares is None:
            logged = places.logged.prod(axis=1)
            return evaluate(Sample(places.rewards.sum(axis=1), logged, logged, people))
        return evaluate_slates(_sample(log, places, _next_of(log, target, configuration), people))
    except SampleError as error:
        raise InvalidArgument(f"{log.title}: decision {error.row + 1}: {error.field}: {error.problem}") from error


class _Places:
    """The actions of a log, (n, places) each; -1 where nothing was drawn any more."""

    def __init__(self, log: EngineLog) -> None:
        count, width = len(log), 1 + max(map(len, log.later), default=0)
        self.actions = np.full((count, width), -1)
        self.logged, self.rewards = np.ones((count, width)), np.zeros((count, width))
        self.accepted = np.zeros((count, width))
        self.actions[:, 0], self.logged[:, 0] = log.actions, log.propensities
        self.rewards[:, 0], self.accepted[:, 0] = log.rewards, log.accepted
        for row, later in enumerate(log.later):
            for place, (action, propensity, reward, accepted) in enumerate(later, 1):
                self.actions[row, place], self.logged[row, place] = action, propensity
                self.rewards[row, place], self.accepted[row, place] = reward, accepted


def _next_of(log: EngineLog, target: Target, configuration: Catalogue | None) -> Next:
    """What the target draws next."""
    catalogues = [*log.catalogues, *([configuration] if configuration is not None else [])]
    for catalogue in catalogues:
        if catalogue.caps is not None:
            raise InvalidArgument(
                f"configuration {catalogue.config.name}: what may stand beside what in its answers (slate, bundles, "
                "offers of kind silence) cannot be recomputed place by place; leave out --slates"
            )
    if configuration is not None:
        return lambda rows, fold, taken: log.configured(configuration, rows, fold, taken=taken)
    if target.name == "uniform":
        return lambda rows, _, taken: even(log.possible(rows, taken))
    if target.name == "greedy":
        newest = log.catalogues[int(log.versions[np.argmax(log.times_ms)])]
        return lambda rows, fold, taken: log.configured(newest, rows, fold, greedy=True, taken=taken)
    if target.name == "nothing":
        silence = log.names.index(NOTHING)

        def nothing(rows: Ints, _: int, __: Bools) -> Floats:
            shares = np.zeros((len(rows), len(log.names)))
            shares[:, silence] = 1.0
            return shares

        return nothing
    raise InvalidArgument(f"--policy {target.name}: says what stands first, not what comes after; leave out --slates")


def _sample(log: EngineLog, places: _Places, draws: Next, people: Ints) -> SlateSample:
    count, width = places.actions.shape
    silence = log.names.index(NOTHING)
    row_of, place_of = np.nonzero(places.actions >= 0)
    done = places.actions[row_of, place_of]
    rewards = places.rewards[row_of, place_of]
    models = crossfit(log.x[row_of], done, rewards, log.folds[row_of], log.names, log.options)
    seen = np.bincount(done, minlength=len(log.names)) > 0
    chosen = np.ones((count, width))
    model_logged, model_target = np.zeros((count, width)), np.zeros((count, width))
    unseen = 0.0
    for fold, model in enumerate(models):
        for part in chunks(np.flatnonzero(log.folds == fold)):
            predicted = model.score(log.x[part])[0]
            predicted[:, silence] = 0.0
            taken = np.zeros((len(part), len(log.names)), np.bool_)
            for place in range(width):
                at = np.flatnonzero(places.actions[part, place] >= 0)
                if not len(at):
                    break
                rows, actions = part[at], places.actions[part[at], place]
                shares = draws(rows, fold, taken[at])
                each = np.arange(len(rows))
                chosen[rows, place] = np.clip(shares[each, actions], 0.0, 1.0)
                model_logged[rows, place] = predicted[at, actions]
                model_target[rows, place] = np.einsum("ij,ij->i", shares, predicted[at])
                drawable = could_be_drawn(actions, places.logged[rows, place], len(log.names))
                drawable &= seen & log.possible(rows, taken[at])
                unseen += float(np.where(drawable, 0.0, shares).sum())
                taken[at, actions] = True
    return SlateSample(
        places.rewards, places.logged, chosen, model_logged, model_target, people, unseen / max(len(row_of), 1)
    )
