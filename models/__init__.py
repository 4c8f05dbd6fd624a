"""Lessons in, policy out: the learning core of Opportune. Pure: no clock, no dice of its own, no input or output.

The path of one decision and what it teaches:

1. `Transform` turns a customer's values into a small integer vector x (`models.transform`).
2. `Policy` scores all offers for a batch of x: mean and standard deviation of each (`models.policy`).
3. `choose` draws slates from the Thompson probabilities of those scores and says with which propensity
   (`models.exploration`, the race in `models.maximum`, the dice in `models.dice`).
4. The outcome becomes a lesson (offer, period, x, target). `Statistics` adds it to exact sums, or takes it back
   (`models.statistics`).
5. `fit` turns the sums into beliefs, `pack_offer` into bytes, `Policy.replaced` into the next policy
   (`models.posterior`, `models.strengths`, `models.policy`).

One idea carries the rest: x and targets are integers, so the sums are exact. Order, batches, partitions, corrections
and erasure change no bit, and whatever was learnt can be recomputed from the log and compared byte for byte.

>>> import numpy as np
>>> transform = Transform.compile([InputSpec("age", "linear", 20, 80)], sources=["age"])
>>> young, old = transform.apply(np.array([[25.0], [75.0]]))
>>> stats = Statistics(transform.dimension, transform.version)
>>> lessons = [("loan", young, 100), ("loan", old, 0), ("fund", young, 0), ("fund", old, 100)] * 50
>>> offers, x, targets = zip(*lessons)
>>> touched = stats.learn(offers, [0] * 200, np.array(x), targets, [1] * 200)
>>> options = PosteriorOptions()
>>> beliefs = fit(stats, sorted(touched), 0, options)
>>> policy = Policy.empty(["fund", "loan"], transform.dimension, options, transform.version)
>>> policy = policy.replaced({offer: pack_offer(belief) for offer, belief in beliefs.items()}, version=1)
>>> mean, sd = policy.score(np.array([young, old]))
>>> slates = choose(mean, sd, np.ones((2, 2), bool), np.array([1, 1]), dice(np.array([1, 2], np.uint64), 1))
>>> [policy.offers[column] for column in slates.picks[:, 0]]
['loan', 'fund']
"""

from models.errors import CheckpointError
from models.exploration import OPTIMISM_MAX, Caps, Slates, choose, counting, dice, first_probabilities, seed_of
from models.policy import Policy, pack_offer, unpack_offer
from models.posterior import OfferPosterior, PosteriorOptions, Strengths, Structure
from models.statistics import TARGET_STEPS, Statistics
from models.transform import DIMENSION_MAX, HASHED_COLUMNS_MAX, STEPS, InputSpec, Transform
from models.value import Beliefs, fit, learn_strengths

__all__ = [
    "DIMENSION_MAX",
    "HASHED_COLUMNS_MAX",
    "OPTIMISM_MAX",
    "STEPS",
    "TARGET_STEPS",
    "Beliefs",
    "Caps",
    "CheckpointError",
    "InputSpec",
    "OfferPosterior",
    "Policy",
    "PosteriorOptions",
    "Slates",
    "Statistics",
    "Strengths",
    "Structure",
    "Transform",
    "choose",
    "counting",
    "dice",
    "first_probabilities",
    "fit",
    "learn_strengths",
    "pack_offer",
    "seed_of",
    "unpack_offer",
]
