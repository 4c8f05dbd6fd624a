"""Off-policy evaluation: how often the intervals of `models.evaluation` hold the truth, which here is known.

A world has customers, a logging policy and a target that is another; the true value of both is their mean over many
more customers. Every run draws a log, learns the reward model from it with cross-fitting as `opportune evaluate` does,
and asks for intervals at 95 %: for the target's value by each estimator, and for what DR says it is above the log.

    dense    nearly every row has a reward of its own; the target is not far from the log
    rare     one decision in a hundred is rewarded
    worth    one in thirty, and what it is worth varies widely
    skewed   the log nearly always takes its favourite
    far      the target prefers what the log avoids
    repeats  customers come back, and what they do is much the same every time
    adapting the log learns as it goes: its policy depends on the rewards before

Bar: coverage of 0.93 to 0.97 for every scenario and estimator, where the answer was not refused.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.report import Report
from models import InputSpec, PosteriorOptions, Transform
from models.crossfit import crossfit, folds_of
from models.evaluation import LEVEL, Sample, evaluate

ACTIONS: Final = 4
INPUTS: Final = 3
FLOOR: Final = 0.02
TRUTH_CUSTOMERS: Final = 1_000_000
ESTIMATORS: Final = ("IPS", "SNIPS", "DR")
LIFT: Final = "lift"
"""Name of the interval of what DR says the target is above the log."""
_TASTES: Final = np.array([[0.5, -0.3, 0.2], [-0.4, 0.6, 0.0], [0.0, 0.2, -0.6], [0.3, 0.3, 0.3]])

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scenario:
    """A world and two policies in it. Policies are softmax over the true tastes, sharper the larger the number."""

    rows: int
    bias: float
    """Log-odds of a reward when tastes are neutral."""
    logging: float
    target: float
    worth_sd: float = 0.0
    """Standard deviation of the log of what a reward is worth."""
    noise_sd: float = 0.0
    """Of what every row earns besides."""
    visits: int = 1
    """Rows a customer."""
    batches: int = 1
    """Of the log; above 1 each is drawn with what the rewards of those before teach about the actions."""


SCENARIOS: Final = {
    "dense": Scenario(1_000, 0.0, 1.0, 2.0, noise_sd=0.5),
    "rare": Scenario(6_000, -4.6, 0.7, 1.2),
    "worth": Scenario(4_000, -3.4, 0.7, 1.2, worth_sd=0.8),
    "skewed": Scenario(3_000, -1.0, 2.5, 0.5),
    "far": Scenario(4_000, -2.0, 1.0, -2.0),
    "repeats": Scenario(3_000, -1.5, 0.7, 1.5, visits=6),
    "adapting": Scenario(3_000, -1.5, 3.0, 1.5, batches=10),
}


@dataclass(frozen=True)
class Held:
    """What came of one scenario."""

    coverage: dict[str, float]
    """By estimator, among the runs that were answered."""
    runs: int
    refused: int
    width: float
    """Mean width of DR's interval as a share of the true value."""
    effective_rows: float


def coverage(seed: int, runs: int, names: tuple[str, ...] = tuple(SCENARIOS)) -> dict[str, Held]:
    """By scenario, how often intervals held. 1,000 runs know it to 0.014 (two standard errors)."""
    return {name: _scenario(SCENARIOS[name], seed, runs) for name in names}


def run(*, small: bool) -> Report:
    """Run it and return what was found."""
    report = Report("ope", "simulation")
    runs = 40 if small else 1_000
    found = coverage(1, runs)
    answered = [share for held in found.values() for share in held.coverage.values()]
    against = f"{LEVEL:g} nominal, bar 0.93 to 0.97; {runs} runs a scenario"
    report.add("learning.ope_coverage", float(np.mean(answered)), "share", against, float(np.mean(answered)) / LEVEL)
    report.add("learning.ope_coverage_least", min(answered), "share", against, min(answered) / LEVEL)
    report.add("learning.ope_coverage_most", max(answered), "share", against, max(answered) / LEVEL)
    for name, held in found.items():
        for estimator, share in held.coverage.items():
            report.add(f"learning.ope_coverage.{name}.{estimator.lower()}", share, "share", against, share / LEVEL)
        width = f"true value; {held.effective_rows:,.0f} of {SCENARIOS[name].rows:,} rows effective"
        report.add(f"learning.ope_width.{name}", held.width, "of the value", width)
        if held.refused:
            report.notes.append(f"{name}: {held.refused} of {held.runs} logs were refused")
    return report


def _scenario(scenario: Scenario, seed: int, runs: int) -> Held:
    dice = np.random.default_rng([seed, 0])
    truth, logged = np.mean([_truths(scenario, dice, TRUTH_CUSTOMERS // 10) for _ in range(10)], axis=0).tolist()
    hits: dict[str, list[bool]] = {name: [] for name in (*ESTIMATORS, LIFT)}
    widths, effective, refused = [], [], 0
    for number in range(runs):
        found = evaluate(_draw(scenario, np.random.default_rng([seed, 1 + number])))
        effective.append(found.support.effective_rows)
        if found.answer is None:
            refused += 1
            continue
        widths.append((found.answer.high - found.answer.low) / truth)
        for estimate in found.estimates:
            if estimate.name in hits:
                hits[estimate.name].append(estimate.low <= truth <= estimate.high)
        if scenario.batches == 1:  # otherwise every log has another policy, and another value
            hits[LIFT].append(found.answer.lift_low <= truth - logged <= found.answer.lift_high)
    shares = {name: float(np.mean(held)) for name, held in hits.items() if held}
    return Held(shares, runs, refused, float(np.mean(widths)) if widths else float("nan"), float(np.mean(effective)))


def _tastes(dice: np.random.Generator, scenario: Scenario, customers: int) -> tuple[Floats, Floats]:
    """What is known of customers (n, INPUTS), and the log-odds (n, ACTIONS) beyond the bias."""
    known = dice.normal(size=(customers, INPUTS))
    return known, known @ _TASTES.T


def _softmax(scores: Floats) -> Floats:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: Floats = (1.0 - FLOOR) * powers / powers.sum(axis=1, keepdims=True) + FLOOR / ACTIONS
    return shares


def _rates(scenario: Scenario, tastes: Floats, habit: Floats) -> Floats:
    rates: Floats = 1.0 / (1.0 + np.exp(-(scenario.bias + tastes + habit)))
    return rates


def _habits(dice: np.random.Generator, scenario: Scenario, customers: int) -> Floats:
    """What customers do whatever is offered (n, 1): it ties the rows of one together."""
    return dice.normal(size=(customers, 1)) if scenario.visits > 1 else np.zeros((customers, 1))


def _truths(scenario: Scenario, dice: np.random.Generator, customers: int) -> tuple[float, float]:
    """The true values of the target and of the logging policy, on some customers."""
    _, tastes = _tastes(dice, scenario, customers)
    rates = _rates(scenario, tastes, _habits(dice, scenario, customers))
    worth = float(np.exp(scenario.worth_sd**2 / 2.0))
    target, logging = (
        float((_softmax(sharpness * tastes) * rates).sum(axis=1).mean()) * worth
        for sharpness in (scenario.target, scenario.logging)
    )
    return target, logging


def _draw(scenario: Scenario, dice: np.random.Generator) -> Sample:
    """A log of the scenario, beside what its target would have done."""
    customers = scenario.rows // scenario.visits
    known, tastes = _tastes(dice, scenario, customers)
    habits = _habits(dice, scenario, customers)
    people = np.repeat(np.arange(customers), scenario.visits)
    known, tastes, habits = known[people], tastes[people], habits[people]
    count, each = len(people), np.arange(len(people))
    shares, wanted = _softmax(scenario.logging * tastes), _softmax(scenario.target * tastes)
    rates = _rates(scenario, tastes, habits)
    done, rewards = np.zeros(count, np.int64), np.zeros(count)
    for batch, part in enumerate(np.array_split(each, scenario.batches)):
        if batch:
            means = [rewards[: part[0]][done[: part[0]] == action].sum() for action in range(ACTIONS)]
            seen = np.bincount(done[: part[0]], minlength=ACTIONS)
            learnt = np.log((np.array(means) + 1.0) / (seen + 5.0))
            shares[part] = _softmax(np.tile(scenario.logging * learnt, (len(part), 1)))
        lots = dice.random(len(part))[:, None]
        done[part] = (lots > shares[part].cumsum(axis=1)).sum(axis=1).clip(0, ACTIONS - 1)
        paid = dice.random(len(part)) < rates[part, done[part]]
        rewards[part] = paid * np.exp(scenario.worth_sd * dice.normal(size=len(part)))
    rewards += scenario.noise_sd * dice.normal(size=count)
    predicted = _predicted(known, done, rewards, people)
    return Sample(
        rewards,
        shares[each, done],
        wanted[each, done],
        people,
        predicted[each, done],
        np.einsum("ij,ij->i", wanted, predicted),
    )


def _predicted(known: Floats, done: npt.NDArray[np.int64], rewards: Floats, people: npt.NDArray[np.int64]) -> Floats:
    """Rewards (n, ACTIONS) that a model predicts which was taught by other customers."""
    names = [f"action {number}" for number in range(ACTIONS)]
    inputs = [InputSpec(f"known {number}", "linear", -3.0, 3.0) for number in range(INPUTS)]
    x = Transform.compile(inputs, [spec.source for spec in inputs]).apply(known)
    folds = folds_of(str(number) for number in people.tolist())
    models = crossfit(x, done, rewards, folds, names, PosteriorOptions(prior_strength=10.0))
    predicted = np.zeros((len(x), ACTIONS))
    for fold, model in enumerate(models):
        predicted[folds == fold] = model.score(x[folds == fold])[0]
    return predicted
