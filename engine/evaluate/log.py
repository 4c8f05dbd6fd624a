"""What every log that can be evaluated gives, wherever it was read from."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from models import PosteriorOptions
from models.crossfit import folds_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NOTHING: Final = "(nothing)"
"""The action of saying nothing; no id of an offer has parentheses."""


REPEATED: Final = "left out {:,} decisions that repeated a draw, as nothing had changed since: they were no draws"


@dataclass(eq=False)
class Log:
    """Decisions, one a row; n of them, over K actions."""

    title: str
    names: list[str]
    """The K actions, sorted."""
    actions: Ints
    """(n,) index in `names` of what was done."""
    rewards: Floats
    propensities: Floats
    people: list[str]
    x: npt.NDArray[np.int8]
    """(n, d), the first column being the bias."""
    options: PosteriorOptions
    """The prior of whatever is learnt from it."""
    remarks: list[str] = field(default_factory=list)
    """What was left out or taken for granted, in words."""

    def __len__(self) -> int:
        return len(self.actions)

    @cached_property
    def folds(self) -> Ints:
        """(n,) which part of the customers a row belongs to."""
        return folds_of(self.people)

    @cached_property
    def seen(self) -> Bools:
        """(K,) whether the log ever did it."""
        return np.bincount(self.actions, minlength=len(self.names)) > 0

    def possible(self, rows: Ints) -> Bools:
        """(rows, K) what could have been done then; a file does not say, so everything that it has."""
        return np.broadcast_to(self.seen, (len(rows), len(self.names)))
