"""One target on one log: what the estimators need, and what they say."""

import numpy as np

from engine.errors import InvalidArgument
from engine.evaluate.log import Bools, Floats, Ints, Log
from engine.evaluate.targets import Target, chunks
from models.crossfit import crossfit
from models.evaluation import Evaluation, Sample, SampleError, evaluate


def could_be_drawn(done: Ints, propensities: Floats, actions: int) -> Bools:
    """(rows, K) whether each action had a chance, by that of what was done: beside what is certain there is none."""
    drawn: Bools = np.arange(actions) == done[:, None]
    return drawn | (propensities < 1.0)[:, None]


def judge(log: Log, target: Target) -> Evaluation:
    """Evaluate. Raises InvalidArgument where the target and the log do not go together."""
    people = np.unique(log.people, return_inverse=True)[1].astype(np.int64)
    if target.shares is None:
        return evaluate(Sample(log.rewards, log.propensities, log.propensities, people))
    models = crossfit(log.x, log.actions, log.rewards, log.folds, log.names, log.options)
    count = len(log)
    chosen, model_logged, model_target, unseen = (np.zeros(count) for _ in range(4))
    for fold, model in enumerate(models):
        mine = log.folds == fold
        for rows in chunks(np.flatnonzero(mine if target.applies is None else mine & target.applies)):
            predicted = model.score(log.x[rows])[0]
            shares = target.shares(rows, fold, predicted)
            each, done = np.arange(len(rows)), log.actions[rows]
            chosen[rows] = np.clip(shares[each, done], 0.0, 1.0)
            model_logged[rows] = predicted[each, done]
            model_target[rows] = np.einsum("ij,ij->i", shares, predicted)
            drawable = log.seen & log.possible(rows) & could_be_drawn(done, log.propensities[rows], len(log.names))
            unseen[rows] = np.where(drawable, 0.0, shares).sum(axis=1)
    kept = np.arange(count) if target.applies is None else np.flatnonzero(target.applies)
    try:
        sample = Sample(
            log.rewards[kept],
            log.propensities[kept],
            chosen[kept],
            people[kept],
            model_logged[kept],
            model_target[kept],
            float(unseen[kept].mean()),
        )
    except SampleError as error:
        raise InvalidArgument(f"{log.title}: decision {kept[error.row] + 1}: {error.field}: {error.problem}") from error
    return evaluate(sample)
