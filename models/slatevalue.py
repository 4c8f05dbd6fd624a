"""What another policy would have earned with whole answers, from a log of slates drawn place by place.

A slate a_1, a_2 … was drawn with p_k(a_k | a_1 … a_{k-1}) at each place; the target would have drawn the same with π_k.
Ending a slate is an action like any other. Rewards come place by place, and a slate is worth their sum. With
w_k = Π_{j ≤ k} π_j / p_j:

| estimate | value | assumes |
|---|---|---|
| IPS, SNIPS | mean of w_K Σ_k r_k; the same over Σ w_K | nothing |
| cascade | mean of Σ_k w_k r_k | what a place earns depends on itself and those before it alone |
| DR | mean of Σ_k w_{k-1} E_π[q_k] + w_k (r_k − q_k(a_k)) | the same |

`cascade` is the reward interaction estimator of McInerney et al. (2020), DR the doubly robust form of it (after
Kiyohara et al. 2022, with q of each place alone). Both are as unbiased as the propensities are right, whatever q is: a
place of the log is weighed by what led there and by itself. Weights of later places are products, so they say less than
the first one does.

Not here: the estimator for places that are independent of each other. It needs how likely an action is at a place
whatever stands before it, and the log knows it only given what did.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from models.evaluation import Evaluation, Refusal, Sample, evaluate, ratio

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SlateSample:
    """A log of slates beside a target policy: n decisions of up to K places.

    Args:
        rewards: (n, K) what came of each place; 0 where nothing was drawn any more.
        logged: (n, K) propensity of the action at each place given those before it; 1 where nothing was drawn any more.
        target: (n, K) probability of the same under the target given the same; likewise 1.
        model_logged: (n, K) reward that a model predicts of the action; 0 where nothing was drawn any more.
        model_target: (n, K) the same, expected over what the target would draw there; likewise 0.
        people: (n,) number of whoever the decision is about.
        unseen_share: mean probability of the target for actions that the log could not take then, over the places.
    """

    rewards: Floats
    logged: Floats
    target: Floats
    model_logged: Floats
    model_target: Floats
    people: Ints
    unseen_share: float = 0.0

    def __post_init__(self) -> None:
        shape = self.rewards.shape
        if len(shape) != 2 or any(
            array.shape != shape for array in (self.logged, self.target, self.model_logged, self.model_target)
        ):
            raise ValueError(f"rewards {shape}: expected decisions and places, and as many of everything else")


def evaluate_slates(sample: SlateSample) -> Evaluation:
    """Estimate the value of whole slates, with intervals, or say why not.

    Raises:
        SampleError: for the first decision whose rewards or propensities no log can have.

    >>> logged = np.full((400, 2), 0.5)  # two places, each by the toss of a coin; the target takes heads at both
    >>> heads = np.stack([np.arange(400) % 2 == 0, np.arange(400) // 2 % 2 == 0], axis=1)
    >>> none = np.zeros((400, 2))
    >>> found = evaluate_slates(SlateSample(heads * 1.0, logged, heads * 1.0, none, none, np.arange(400)))
    >>> found.logged.value, {estimate.name: estimate.value for estimate in found.estimates}
    (1.0, {'IPS': 2.0, 'SNIPS': 2.0, 'cascade': 2.0, 'DR': 2.0})
    """
    total = sample.rewards.sum(axis=1)
    whole = Sample(
        total,
        sample.logged.prod(axis=1),
        sample.target.prod(axis=1),
        sample.people,
        unseen_share=sample.unseen_share,
    )
    found = evaluate(whole)
    so_far = np.cumprod(sample.target / sample.logged, axis=1)
    before = np.column_stack([np.ones(len(total)), so_far[:, :-1]])
    cascade = (so_far * sample.rewards).sum(axis=1)
    corrected = (before * sample.model_target + so_far * (sample.rewards - sample.model_logged)).sum(axis=1)
    estimates = (
        *found.estimates,
        ratio("cascade", cascade, total, sample.people),
        ratio("DR", corrected, total, sample.people),
    )
    refusals = [one for one in found.refusals if one.code != "interval"]
    if not refusals and not np.isfinite(estimates[-1].high - estimates[-1].low):
        refusals.append(Refusal("interval", "the noise of the weights leaves the value without bounds"))
    return replace(found, estimates=estimates, refusals=tuple(refusals))
