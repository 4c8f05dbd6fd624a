"""The average customer: whom contributions are measured against."""

import numpy as np

from models import STEPS, Statistics


def average_input(statistics: Statistics, now_period: int, half_life_periods: float | None) -> list[float] | None:
    """(d,) mean of x over all lessons, older ones weighing less; None before there are any.

    The bias column of x is always `STEPS`, so its row of A = Σ x xᵀ is `STEPS` · Σ x.

    >>> statistics = Statistics(dimension=2, transform_version=0)
    >>> x = np.array([[127, 100], [127, 0]], np.int8)
    >>> _ = statistics.learn(["card", "loan"], [0, 0], x, [100, 0], [1, 1])
    >>> average_input(statistics, 0, None)
    [127.0, 50.0]
    """
    total, lessons = np.zeros(statistics.dimension), 0.0
    for offer in statistics.offers:
        A, _, n, *_ = statistics.combined(offer, now_period, half_life_periods)
        total += A[0] / STEPS
        lessons += n
    if lessons <= 0.0:
        return None
    # Sums for the moment may hold more taken back than added; an input is never outside its steps.
    mean = np.clip(total / lessons, -STEPS, STEPS)
    return [round(value, 3) for value in mean.tolist()]
