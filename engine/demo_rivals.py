"""What the engine is compared with: for every call, whether a simpler policy would have pitched.

Each is a boolean a call, so their value is exact like the engine's: the sum of what pitching is worth in the calls
pitched. None of them is bound by the eligibility rules: of the three customers whom those exclude nobody said yes, so
they cost "always pitch" 3 and change nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.demo_calls import Call

Bools = NDArray[np.bool_]

FITTED_SHARE: Final = 0.1
"""The first part of the calls, on which the logistic regression is fitted."""
_STEPS_MAX: Final = 2_000


@dataclass(frozen=True)
class Rival:
    """A policy and the calls in which it pitches."""

    name: str
    pitched: Bools
    hindsight: bool = False
    """Whether it knows answers that nobody could know at the time."""


def rivals(catalogue: Catalogue, calls: Sequence[Call], gain: NDArray[np.float64]) -> list[Rival]:
    """All rivals; without those that learn where scikit-learn is missing. `gain` is what pitching is worth, a call."""
    count = len(calls)
    always, never = np.ones(count, np.bool_), np.zeros(count, np.bool_)
    fitted, oracle = _regressions(catalogue, calls)
    found = [Rival("always pitch", always), Rival("never pitch", never)]
    if fitted is not None:
        found.append(Rival("logistic regression on 10 %", fitted))
    constant, its_name = (always, "always pitch") if gain.sum() > 0 else (never, "never pitch")
    found.append(Rival(f"best constant: {its_name}", constant, hindsight=True))
    if oracle is not None:
        found.append(Rival("logistic regression on all", oracle, hindsight=True))
    return [*found, Rival("best: exactly the yeses", gain > 0, hindsight=True)]


def head_of(calls: Sequence[Call]) -> int:
    """How many calls the logistic regression is fitted on."""
    return int(len(calls) * FITTED_SHARE)


def _regressions(catalogue: Catalogue, calls: Sequence[Call]) -> tuple[Bools | None, Bools | None]:
    """Pitches of logistic regressions fitted on the first calls and, in hindsight, on all of them.

    Both pitch where probability × value exceeds the cost. The first one needs answers before it can be fitted, so it
    pitches in all of the first calls; where those hold no yes, or nothing but, it is the constant they suggest.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        return None, None
    x = inputs_of(catalogue, calls).astype(np.float64)
    yes = np.array([call.yes for call in calls], np.bool_)
    offer = catalogue.offers[0]

    def pitches(lessons: int) -> Bools:
        if yes[:lessons].all() or not yes[:lessons].any():
            return np.full(len(calls), bool(yes[:lessons].any()))
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=_STEPS_MAX)).fit(x[:lessons], yes[:lessons])
        worth: Bools = model.predict_proba(x)[:, 1] * offer.value > offer.contact_cost
        return worth

    head = head_of(calls)
    fitted = pitches(head)
    fitted[:head] = True
    return fitted, pitches(len(calls))


def inputs_of(catalogue: Catalogue, calls: Sequence[Call]) -> NDArray[np.int8]:
    """What the engine's model sees of these calls, without waves: declared ranges, one column a category.

    With numbers scaled by the first calls alone instead, the regression would fare worse: the Euribor hardly moves in
    them, and the fall that follows would be thousands of standard deviations.
    """
    values = np.full((len(calls), len(catalogue.columns)), np.nan)
    for at, call in enumerate(calls):
        known = {**call.profile, **call.facts}
        for column, declared in enumerate(catalogue.columns):
            value = known.get(declared.name)
            if value is not None:
                values[at, column] = declared.categories.index(value) if isinstance(value, str) else value
    transform = catalogue.transform
    return transform.apply(values)[:, : transform.dimension - transform.waves]
