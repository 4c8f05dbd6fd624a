"""Classifiers of river, or with its methods, as estimates of acceptance, made from a configuration.

river takes a long time to load and is only needed where a challenger is made of it, so it is loaded then.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.config import line_of
from engine.config_schema import ChallengerModel
from engine.errors import ConfigError

Values = dict[str, float | str | bool]
"""Inputs by name: numbers, texts and flags as they were known. What was missing is not in it."""

_METHODS = ("learn_one", "predict_proba_one")


def build(model: ChallengerModel) -> Any:
    """The estimator that a configuration describes, untrained. Raises ValueError that says what is wrong."""
    steps = [_built(step.river, step.parameters) for step in model.river]
    if len(steps) == 1:
        estimator = steps[0]
    else:
        pipeline = import_module("river.compose").Pipeline
        estimator = pipeline(*steps)
    lacking = [method for method in _METHODS if not callable(getattr(estimator, method, None))]
    if lacking:
        what = " | ".join(step.river for step in model.river)
        raise ValueError(f"{what} has no {' and no '.join(lacking)}: expected a classifier")
    return estimator


def _built(path: str, parameters: Mapping[str, Any]) -> Any:
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(import_module(module), name)
    except ImportError as error:
        raise ValueError(f"{path}: cannot be imported: {error}") from error
    except AttributeError as error:
        raise ValueError(f"{path}: {module} has no {name}") from error
    given = {key: _value(value) for key, value in parameters.items()}
    try:
        return kind(**given)
    except Exception as error:  # whatever the class makes of its parameters
        raise ValueError(f"{path}: cannot be made with {sorted(given)}: {error}") from error


def _value(value: Any) -> Any:
    """A parameter; a mapping with `river` is an estimator of its own."""
    if isinstance(value, Mapping) and "river" in value and set(value) <= {"river", "parameters"}:
        return _built(str(value["river"]), value.get("parameters") or {})
    return [_value(each) for each in value] if isinstance(value, list) else value


class Inputs:
    """Brings x back to values by name."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        used = {source for part in catalogue.transform.parts for source in part.sources}
        missing = [spec.missing for layout in catalogue.layouts.values() for spec in layout.specs]
        self._always = [value == value for value in (*missing, *catalogue.fact_defaults.tolist())]
        self._columns = [(at, column) for at, column in enumerate(catalogue.columns) if column.name in used]

    def of(self, x: NDArray[np.int8]) -> Values:
        """The values that a vector (d,) stands for."""
        row = self._catalogue.transform.restore(x[None], self._always)[0]
        return {column.name: column.variable(float(row[at])) for at, column in self._columns if row[at] == row[at]}

    def sample(self) -> Values:
        """Values of the right kinds."""
        return {
            column.name: column.variable(0.0 if column.kind != "number" else 0.5) for _, column in self._columns
        }


def probability(estimator: Any, values: Values, otherwise: float) -> float:
    """Estimated probability of True; `otherwise` while the estimator knows nothing of it."""
    told = estimator.predict_proba_one(values)
    found = float(told.get(True, otherwise if not told else 0.0))
    return min(1.0, max(0.0, found)) if found == found else otherwise


def check_challengers(catalogue: Catalogue, text: bytes, name: str = "configuration") -> None:
    """Make each challenger once and try it on the inputs of this configuration. Raises ConfigError naming the line."""
    problems = []
    for at, challenger in enumerate(catalogue.config.challengers):
        if not challenger.model.river:
            continue
        place = ("challengers", at, "model")
        try:
            estimator = build(challenger.model)
            sample = Inputs(catalogue).sample()
            try:
                for label in (True, False):
                    estimator.learn_one(sample, label)
                probability(estimator, sample, 0.5)
            except Exception as error:  # foreign code on values that it may not be made for
                raise ValueError(f"cannot learn from the inputs {sorted(sample)}: {error!r}") from error
        except ValueError as error:
            line = line_of(text, place)
            problems.append(f"{name}:{line}: challengers[{at}].model: {error}")
    if problems:
        raise ConfigError("\n".join(problems))
