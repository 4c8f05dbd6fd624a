"""Pacing against the best plan in hindsight: a synthetic day, several budgets, prices that follow the use.

Customers of some hundred types come in another mix every hour, and more of them at some hours than at others. A type
has a score for every offer. The best plan is the linear program over the types, which knows the whole day:

    max Σ n_t score_to x_to     subject to     minimum_b ≤ Σ n_t units_bo x_to ≤ budget_b,    Σ_o x_to ≤ 1

Its optimum is no less than that of any policy, so `value / optimum` is a lower bound of how well a policy does. The
policy sees one customer at a time: the best offer by score less prices among those whose units are there, or nothing.
The prices are those of engine.pacing, set once a minute as a server would, after a day before of the same shape with
other customers. Whoever comes is drawn; nothing is known of the day but yesterday's traffic and today's use.
"""

import sys
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from bench.report import Row
from engine.budgets_schema import Budget
from engine.pacing import Paced

SEED: Final = 5
TYPES: Final = 300
OFFERS: Final = 12
MINUTES: Final = 1_440
MINIMUM: Final = 0.65
"""Of the decisions: to be delivered of the last budget, more than comes by itself."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Day:
    """Who comes, and what there is for them."""

    scores: Floats
    """(types, offers) of an offer to a customer."""
    arrivals: NDArray[np.int64]
    """(decisions,) type of each."""
    minutes: NDArray[np.int64]
    """(decisions,) when each comes, ascending."""
    units: NDArray[np.int64]
    """(budgets, offers)."""
    budgets: tuple[Budget, ...]


def days(decisions: int, seed: int) -> tuple[Day, Day]:
    """Yesterday and today: the same types, another draw, and some days are busier than others."""
    dice = np.random.default_rng(seed)
    likely = dice.beta(1.2, 18, (TYPES, OFFERS)) * dice.lognormal(0.0, 0.5, (TYPES, 1))
    scores = likely * dice.uniform(20, 200, OFFERS) - dice.uniform(0.2, 1.5, OFFERS)
    hours = np.arange(24)
    busy = 0.15 + np.exp(-(((hours - 11) / 3.0) ** 2)) + 0.8 * np.exp(-(((hours - 19) / 2.5) ** 2))
    favourite = dice.integers(0, 24, TYPES)
    distance = np.minimum((hours[:, None] - favourite) % 24, (favourite - hours[:, None]) % 24)
    mix = np.exp(-((distance / 6.0) ** 2)) + 0.2
    mix /= mix.sum(axis=1, keepdims=True)
    units = np.zeros((4, OFFERS), dtype=np.int64)
    units[0, :6] = 1  # letters
    units[1, 3:9] = dice.integers(1, 4, 6)  # hours of agents
    units[2, 9] = 1  # a stock
    units[3, 10:] = 1  # more than enough, and a part of it is promised to be delivered
    sizes, least = [0.20, 0.30, 0.02, 1.0], [0.0, 0.0, 0.0, MINIMUM]
    budgets = tuple(
        Budget(
            id=f"b{at}",
            units=int(size * decisions),
            per="day",
            consumed="served",
            pace="even",
            minimum=int(minimum * decisions),
        )
        for at, (size, minimum) in enumerate(zip(sizes, least, strict=True))
    )

    def day(many: float) -> Day:
        count = int(decisions * many)
        hour = np.sort(dice.choice(24, count, p=busy / busy.sum()))
        arrivals = np.concatenate([dice.choice(TYPES, int((hour == h).sum()), p=mix[h]) for h in hours])
        minute = hour * 60 + dice.integers(0, 60, count)
        order = np.argsort(minute, kind="stable")
        return Day(scores, arrivals[order], minute[order], units, budgets)

    return day(0.9), day(1.0)


def optimum(day: Day) -> float:
    """Value of the best plan for the whole day."""
    counts = np.bincount(day.arrivals, minlength=TYPES)
    value = (counts[:, None] * day.scores).ravel()
    per_type = np.kron(np.eye(TYPES), np.ones(OFFERS))
    per_budget = np.concatenate([counts[:, None] * row for row in day.units], axis=1).reshape(TYPES, -1, OFFERS)
    use = per_budget.transpose(1, 0, 2).reshape(len(day.units), -1)
    most, least = ([getattr(budget, name) for budget in day.budgets] for name in ("units", "minimum"))
    limits = np.concatenate([most, np.negative(least), np.ones(TYPES)])
    rows = np.concatenate([use, -use, per_type])
    found = linprog(-value, A_ub=rows, b_ub=limits, bounds=(0, None), method="highs")
    assert found.status == 0, found.message
    return float(-found.fun)


@dataclass
class Outcome:
    """What became of a day."""

    value: float
    used: NDArray[np.int64]
    paced: list[Paced]


def served(day: Day, paced: list[Paced] | None, number: int) -> Outcome:
    """Decide for everybody who comes; with `paced` by its prices, without first come, first served."""
    used = np.zeros(len(day.budgets), dtype=np.int64)
    total = np.array([budget.units for budget in day.budgets])
    prices, value, end = np.zeros(OFFERS), 0.0, 0
    worth = np.full(len(day.budgets), float(np.mean(np.maximum(day.scores, 0))))
    ends: list[int] = np.searchsorted(day.minutes, np.arange(1, MINUTES + 1)).tolist()
    for minute in range(MINUTES):
        start, end = end, ends[minute]
        for at in range(start, end):
            score = day.scores[day.arrivals[at]]
            there = ((used + day.units.T) <= total) | (day.units.T == 0)
            net = np.where(there.all(axis=1), score - prices, -1.0)
            best = int(np.argmax(net))
            if net[best] <= 0:
                continue
            value += score[best]
            used += day.units[:, best]
            for at_budget in np.flatnonzero(day.units[:, best]):
                worth[at_budget] += 1e-3 * (score[best] / day.units[at_budget, best] - worth[at_budget])
        if paced is not None:
            for budget, known in enumerate(paced):
                paced[budget] = known.moved(
                    (f"day-{number}", 0, MINUTES),
                    minute + 1,
                    end - start,
                    scale=float(worth[budget]),
                    budget=day.budgets[budget],
                    used=int(used[budget]),
                )
            prices = np.array([known.pace.price for known in paced]) @ day.units
    return Outcome(value, used, paced or [])


def pacing_rows(small: bool) -> list[Row]:
    """policy.pacing_vs_lp, worst of some days, and beside it what first come, first served gets of the same days."""
    decisions, seeds = (4_000, 1) if small else (20_000, 5)
    ratios, greedy, delivered = [], [], []
    for seed in range(SEED, SEED + seeds):
        yesterday, today = days(decisions, seed)
        best = optimum(today)
        paced = [Paced() for _ in today.budgets]
        for number, day in enumerate((yesterday, today)):
            found = served(day, paced, number)
            over = [int(used) - budget.units for used, budget in zip(found.used, day.budgets, strict=True)]
            if max(over) > 0:
                raise RuntimeError(f"budgets exceeded by {over}")
        ratios.append(found.value / best)
        delivered.append(int(found.used[-1]) / today.budgets[-1].minimum)
        greedy.append(served(today, None, 0).value / best)
    of = f"{seeds} days of {decisions:,} customers, 4 budgets, 12 offers; offline optimum by HiGHS"
    return [
        Row("policy.pacing_vs_lp", min(ratios), "of the optimum", f"the worst of {of}", min(ratios)),
        Row("policy.minimum_delivered", min(delivered), "of the minimum", "of the last budget, on the worst of them"),
        Row("policy.unpaced_vs_lp", min(greedy), "of the optimum", "the same days, first come, first served"),
    ]


if __name__ == "__main__":
    for row in pacing_rows("--small" in sys.argv):
        print(f"{row.metric} {row.value:.4f} {row.unit} ({row.against})")
