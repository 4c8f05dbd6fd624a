"""The learner on real campaigns: does it find the best action, never lose to it, and are its probabilities honest?

- Hillstrom: 64,000 customers, three e-mails at random. `learning.hillstrom_decisions_to_90` is how many decisions it
  takes, by unbiased replay on visits, until nine of ten recent ones are the best arm. With what customers spent as the
  reward, `learning.hillstrom_spend_vs_best_arm` holds it against sending everyone the best arm; a visit is a response.
- Starbucks: ten offers or none, in six waves. A lesson comes when the days in which spending counts are over. The
  reward that an offer promises is a cost, and may have to be paid later still: then the lesson is corrected. Buying
  anything is a response. `learning.starbucks_net_told_of_all` is what the same learner would get if it were told of
  everybody in the log, eleven times as many lessons: nobody can be expected to do better by exploring.
- Bank marketing: calls in the order they were made; ringing costs `CALL_COST`, a yes is worth 1, not ringing is worth
  nothing. So what any learner would have earned is known exactly. `learning.bank_value_vs_refit` holds ours, which sees
  the answers of the calls it made, against gradient boosting that is told of all calls and fitted anew every
  `REFIT_CALLS`.

No claim is made here that anything beats the best constant action on Hillstrom or Starbucks: in these data nothing
found so far does.
"""

from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from rich.progress import track

from bench import campaigns
from bench.calibrated import Reading
from bench.ours import DRAWN, Ours, batches, terms
from bench.replay import Against, against_constant, decisions_until, replay, thinned, together
from bench.report import Report
from models import PosteriorOptions

BATCH_ROWS: Final = 64
"""Rows of the log between two refits; a third of them count."""
WINDOW: Final = 500
BEST_SHARE: Final = 0.9
SPEND_TERMS: Final = terms(low=0.0, high=500.0, value=25.0)
"""In dollars: the largest purchase is 499. Who visits the shop is thought to bring 25 before the lessons say."""
SPEND_OPTIONS: Final = PosteriorOptions(prior_strength=1.0, prior_rate=0.1)
BANK_OPTIONS: Final = PosteriorOptions(prior_strength=1.0, prior_rate=0.05, half_life_periods=4.0)
BANK_FLOOR: Final = 0.01
"""As in examples/bank, for the reason given there: who is not called teaches nothing, and the economy changes. A period
is a thousand calls; 30 days there were five thousand at first and a few hundred in the end."""
NET_TERMS: Final = terms(low=-10.0, high=60.0, value=30.0)
"""In dollars, of somebody who buys anything."""
CALL_COST: Final = 0.1
REFIT_CALLS: Final = 1_000
SMALL_CALLS: Final = 2_000
"""The last ones: of the first, hardly any is worth making."""
BINS: Final = 10

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def hillstrom(report: Report, folder: Path, *, small: bool) -> None:
    """Speed to the best arm on visits, and spend against the best arm."""
    try:
        found = campaigns.hillstrom(folder)
    except FileNotFoundError as missing:
        report.notes.append(f"learning.hillstrom_* is left out: {missing}")
        return
    orders, customers = (1, 4_000) if small else (10, len(found.arm))
    arms = len(campaigns.HILLSTROM_ARMS)
    took: list[int] = []
    never = 0
    ratios: list[float] = []
    compared: list[Against] = []
    for order in track(range(orders), "hillstrom", transient=True):
        rows = np.random.default_rng(order).permutation(len(found.arm))[:customers]
        x, hot = found.context.prepared(rows)
        arm, visit, spend = found.arm[rows], found.visit[rows], found.spend[rows]
        best = _best(found.visit, found.arm, arms)
        counted = replay(Ours(x.shape[1], hot, arms, order, exploring=DRAWN), x, arm, visit, BATCH_ROWS)
        until = decisions_until(arm[counted] == best, BEST_SHARE, WINDOW)
        never += until is None
        took.append(len(counted) if until is None else until)
        learner = Ours(x.shape[1], hot, arms, order, SPEND_OPTIONS, exploring=DRAWN, terms=SPEND_TERMS)
        counted = replay(learner, x, arm, spend, BATCH_ROWS, responses=visit > 0.0)
        best = _best(found.spend, found.arm, arms)
        logged = np.full(len(found.arm), -1)  # in the order of the log, so that orders can be compared event by event
        logged[rows] = arm
        compared.append(against_constant(found.spend, logged, rows[counted], best))
        ratios.append(float(spend[counted].mean() / spend[arm == best].mean()))
    which = campaigns.HILLSTROM_ARMS[_best(found.visit, found.arm, arms)]
    against = f"{which} on {BEST_SHARE:.0%} of the last {WINDOW}; median of {orders} orders, {never} never got there"
    report.add("learning.hillstrom_decisions_to_90", float(median(took)), "decisions", against)
    _add_compared(report, "learning.hillstrom_spend_vs_best_arm", "$ a customer less", compared, ratios)


def starbucks(report: Report, folder: Path, *, small: bool) -> None:
    """Net value of offers that cost something and whose outcome comes late, against the best constant offer."""
    try:
        found = campaigns.starbucks(folder)
    except FileNotFoundError as missing:
        report.notes.append(f"learning.starbucks_* is left out: {missing}")
        return
    x, hot = found.context.prepared(np.arange(len(found.arm)))
    best = _best(found.net, found.arm, len(campaigns.STARBUCKS_PROPENSITIES))
    later = found.wave > 0  # of the first wave nothing is known to anybody
    logged = np.where(later, found.arm, -1)
    theirs = float(found.net[logged == best].mean())
    orders = 1 if small else 10

    def replays(what: str, *, told_all: bool) -> tuple[list[Against], list[Ints]]:
        every = [
            _starbucks_replay(found, x, hot, order, told_all=told_all)
            for order in track(range(orders), f"starbucks, {what}", transient=True)
        ]
        return [against_constant(found.net, logged, counted[later[counted]], best) for counted in every], every

    compared, every = replays("told of its own", told_all=False)
    ratios = [1.0 + each.difference / theirs for each in compared]
    _add_compared(report, "learning.starbucks_net_vs_best_arm", "$ a person and wave less", compared, ratios)
    if not small:
        ceiling, _ = replays("told of all", told_all=True)
        ratios = [1.0 + each.difference / theirs for each in ceiling]
        _add_compared(report, "learning.starbucks_net_told_of_all", "$ a person and wave less", ceiling, ratios)
    wave = found.wave == len(campaigns.STARBUCKS_WAVES_H) - 1
    theirs = float(found.net[wave & (found.arm == best)].mean())
    value = float(np.mean([found.net[counted[wave[counted]]].mean() for counted in every]))
    against = f"the best constant offer: {theirs:.2f}; mean of {orders} replays"
    report.add("learning.starbucks_last_wave_net", value, "$ a person", against, value / theirs)


def _starbucks_replay(
    found: campaigns.Starbucks, x: npt.NDArray[np.float32], hot: Bools, order: int, *, told_all: bool
) -> Ints:
    """Who was given what our learner would have given, in order; `told_all` tells it of everybody else, too."""
    arms = len(campaigns.STARBUCKS_PROPENSITIES)
    starts_h, bought = np.array(campaigns.STARBUCKS_WAVES_H), found.spent > 0.0
    kept = thinned(found.arm, campaigns.STARBUCKS_PROPENSITIES, np.random.default_rng(order))
    learner = Ours(x.shape[1], hot, arms, order, exploring=DRAWN, terms=NET_TERMS)
    pending, learnt, counted = (np.zeros(0, np.int64) for _ in range(3))
    told = np.zeros(len(found.arm))
    for wave, start_h in enumerate(campaigns.STARBUCKS_WAVES_H):
        rewards = found.net_by(start_h)
        changed = learnt[rewards[learnt] != told[learnt]]
        learner.correct(x[changed], found.arm[changed], told[changed], rewards[changed], bought[changed])
        over = starts_h[found.wave[pending]] + campaigns.SPEND_WINDOW_H <= start_h
        known = pending[over]
        learner.learn(x[known], found.arm[known], rewards[known], bought[known])
        learnt, pending = np.concatenate([learnt, known]), pending[~over]
        told[learnt] = rewards[learnt]
        rows = np.flatnonzero(kept & (found.wave == wave))
        at = rows[learner.decide(x[rows]).actions == found.arm[rows]]
        pending, counted = np.concatenate([pending, rows if told_all else at]), np.concatenate([counted, at])
    return counted


def bank(report: Report, folder: Path, *, small: bool) -> None:
    """What calling whom it chose earned, and whether a call expected to succeed with 30 % does so in 30 of 100."""
    try:
        found = campaigns.bank(folder)
    except FileNotFoundError as missing:
        report.notes.append(f"learning.bank_* is left out: {missing}")
        return
    rows = np.arange(len(found.yes))[-SMALL_CALLS if small else 0 :]
    calls, yes = len(rows), found.yes[rows]
    x, hot = found.context.prepared(rows)
    values: list[float] = []
    errors: list[float] = []
    made: list[int] = []
    for seed in track(range(1 if small else 5), "bank", transient=True):
        learner = Ours(
            x.shape[1], hot, 1, seed, BANK_OPTIONS, silence=CALL_COST, floor=BANK_FLOOR, exploring=DRAWN
        )
        pitched, shown = _pitched(learner, x, yes)
        values.append(float(np.sum(yes[pitched] - CALL_COST)))
        errors.append(calibration_error(shown[pitched], yes[pitched]))
        made.append(int(pitched.sum()))
    value = float(np.mean(values))
    try:
        theirs = _refit_value(found.context, rows, yes)
    except ImportError:
        report.notes.append("learning.bank_value_vs_refit is left out: scikit-learn is not installed (extra dev)")
    else:
        against = (
            f"gradient boosting told of all calls, refitted every {REFIT_CALLS:,}: {theirs:.0f}; mean of {len(values)} "
            f"runs, {min(values):.0f} to {max(values):.0f}"
        )
        report.add("learning.bank_value_vs_refit", value, f"at {CALL_COST:g} a call", against, value / theirs)
    everyone = float(np.sum(yes - CALL_COST))
    report.notes.append(f"bank: {np.mean(made):,.0f} of {calls:,} calls made; all of them are worth {everyone:.0f}")
    against = f"{BINS} bins of as many calls; shown probability against found share of yes, of calls made"
    report.add("learning.bank_calibration", float(np.mean(errors)), "share", against)


def _pitched(learner: Ours, x: npt.NDArray[np.float32], yes: Floats) -> tuple[Bools, Floats]:
    """Which calls were made, and the probability of a yes that was shown of each when it was decided."""
    pitched, shown = np.zeros(len(yes), np.bool_), np.zeros(len(yes))
    reading = Reading(BANK_OPTIONS.half_life_periods)
    for part in batches(len(yes)):
        period = learner.period = part.start // REFIT_CALLS
        expected = learner.expected(x[part])[:, 0]
        shown[part] = reading.shown(period, expected)
        pitched[part] = learner.decide(x[part]).actions == 0
        made = np.flatnonzero(pitched[part])
        at = part.start + made
        learner.learn(x[at], np.zeros(len(at), np.int64), yes[at])
        reading.learn(period, expected[made], yes[at])
    return pitched, shown


def calibration_error(expected: Floats, outcome: Floats, bins: int = BINS) -> float:
    """Expected calibration error over bins of equal count, in order of what was expected.

    0 of nothing.

    >>> calibration_error(np.array([0.1, 0.1, 0.9, 0.9]), np.array([0.0, 0.0, 1.0, 1.0]), bins=2)
    0.1
    """
    if not len(expected):
        return 0.0
    parts = np.array_split(np.argsort(expected, kind="stable"), bins)
    gaps = [len(part) * abs(float(expected[part].mean() - outcome[part].mean())) for part in parts if len(part)]
    return round(sum(gaps) / len(expected), 12)


def _refit_value(context: campaigns.Context, rows: Ints, yes: Floats) -> float:
    """What calling earned whoever the boosting expected to be worth it; all of the first `REFIT_CALLS`."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    numbers = np.nan_to_num(context.numbers[rows], nan=-1.0)  # a column of nothing but NaN is refused
    values: npt.NDArray[Any] = np.hstack([numbers, context.codes[rows]])
    named = np.arange(values.shape[1]) >= numbers.shape[1]
    value = float(np.sum(yes[:REFIT_CALLS] - CALL_COST))
    for start in track(range(REFIT_CALLS, len(yes), REFIT_CALLS), "bank, refits", transient=True):
        part = slice(start, start + REFIT_CALLS)
        model = HistGradientBoostingClassifier(categorical_features=named, random_state=0)
        model.fit(values[:start], yes[:start])
        calls = model.predict_proba(values[part])[:, 1] > CALL_COST
        value += float(np.sum(yes[part][calls] - CALL_COST))
    return value


def _best(value: Floats, arm: Ints, arms: int) -> int:
    return int(np.argmax([value[arm == each].mean() for each in range(arms)]))


def _add_compared(report: Report, metric: str, unit: str, compared: list[Against], ratios: list[float]) -> None:
    """The mean over replays of ours as a ratio, and how many of them lost beyond noise."""
    mean = together(compared)
    worse = sum(each.worse for each in compared)
    against = (
        f"the best constant arm; mean difference {mean.difference:+.3f} ± {mean.half_width:.3f} "
        f"{unit.removesuffix(' less')}, "
        f"{worse} of {len(compared)} replays worse beyond noise"
    )
    report.add(metric, float(np.mean(ratios)), "of its value", against, float(np.mean(ratios)))
