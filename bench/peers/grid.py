"""Which learners are run, with which settings: the one place that says so.

Vowpal Wabbit is given its strongest form here: `--cb_explore_adf` with the row as shared features, an action each and
their products (`-q sa`), half of the grid with products of two columns as well. The same explorers with
`--cb_explore K`, or under `--cbify`, erred a tenth to two fifths more on the sets tried (phoneme .28 against .25,
vehicle .67 against .48, letter .95 against .78), so they are not in the grid. Its adaptive, normalised and invariant
updates are the default and stay on, as do `power_t` and 18 bits of weights, room enough for all products. Doubly
robust estimates (`--cb_type dr`) are open to the explorers that are not tied to regression.

The learner from MABWiser is taught in batches, because `partial_fit` inverts a matrix for each arm: of one row for the
first `MABWISER_SINGLE_ROWS`, then of `MABWISER_BATCH_ROWS`. River's is run on the first `RIVER_ROWS` rows. Whatever is
held against either is held against it on the same rows.
"""

from dataclasses import dataclass
from typing import Final, Literal

MABWISER_SINGLE_ROWS: Final = 1_000
MABWISER_BATCH_ROWS: Final = 10
RIVER_ROWS: Final = 2_000
ROWS_ALL: Final = 1 << 30
FINALISTS: Final = 3
"""A library's whole grid is run on the first order of each set; so many, those of least mean loss, on all orders."""

Learner = Literal["vw", "mabwiser-lints", "mabwiser-linucb", "river-linucb"]


@dataclass(frozen=True)
class Config:
    """A learner with settings: arguments of its command line, or numbers by name. `rows` bounds what it is run on."""

    learner: Learner
    settings: str
    rows: int = ROWS_ALL

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.learner} {self.settings}"


_EXPLORERS: Final = (
    "--squarecb",
    "--squarecb --gamma_scale 100",
    "--squarecb --gamma_scale 1000",
    "--regcbopt",
    "--regcbopt --mellowness 0.01",
    "--regcbopt --mellowness 0.001",
    "--cover 4 --nounif",
    "--bag 4 --greedify",
    "--epsilon 0.02",
    "--epsilon 0.02 --cb_type dr",
)
_RATES: Final = (0.1, 0.5, 2.0, 8.0)
_QUADRATIC: Final = ("-q sa", "-q sa --interactions ssa")

VW: Final = tuple(
    Config("vw", f"{explorer} -l {rate:g} {products}")
    for products in _QUADRATIC
    for explorer in _EXPLORERS
    for rate in _RATES
)
MABWISER: Final = (
    *(Config("mabwiser-linucb", f"alpha={alpha:g}") for alpha in (0.1, 0.3, 1.0)),
    *(Config("mabwiser-lints", f"alpha={alpha:g}") for alpha in (0.03, 0.1, 0.3)),
)
RIVER: Final = tuple(
    Config("river-linucb", f"alpha={alpha:g} beta={beta:g}", RIVER_ROWS)
    for alpha, beta in ((1.0, 1.0), (0.1, 1.0), (1.0, 10.0), (1.0, 100.0))
)
GRID: Final = VW + MABWISER + RIVER
