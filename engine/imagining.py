"""Questions thought through: what each answer would change, by deciding again as if it were known."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.holds import Hold, Situation
from engine.ladder import held_of
from engine.policyfacts import PolicyFacts
from models import Policy


def imagine(
    catalogue: Catalogue,
    policy: Policy,
    situation: Situation,
    held: Sequence[tuple[Hold, ...]] | None,
    values: NDArray[np.float64],
    score: NDArray[np.float64],
    may: NDArray[np.bool_],
    *,
    facts: PolicyFacts,
    prices: NDArray[np.float64] | None = None,
    surcharges: NDArray[np.float64] | None = None,
) -> list[tuple[tuple[int, float], ...]]:
    """What knowing the answers would add to the scores of questions (engine.questions): the decision, thought through.

    `values` is the value matrix of the batch; the rest is as it was arbitrated: `score` and `may` over the offers and
    silence, after what was `held`. Limits stay as they are, but for the guard: an answer may tell whom to leave alone.
    """

    def think(
        rows: NDArray[np.int64], imagined: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        x = catalogue.transform.apply(np.ascontiguousarray(imagined[:, : len(catalogue.columns)]))
        verdicts = catalogue.rule_batch.evaluate(imagined)
        mean, sd = policy.score(x)
        if catalogue.sharing.names:
            asking = [situation.customers[row] for row in rows.tolist()]
            catalogue.sharing.serve(asking, situation.times_ms[rows].tolist(), x, mean, sd, facts.rivals)
        if catalogue.ladder.offers:
            catalogue.ladder.climb(x, mean, sd, held_of(verdicts), facts)
        catalogue.silent.surely(mean, sd)
        scores, _, possible, _ = catalogue.arbitration.score(
            mean,
            sd,
            verdicts,
            situation.channels[rows],
            situation.times_ms[rows],
            surcharges=None if surcharges is None else surcharges[rows],
            prices=prices,
        )
        guard, holds = catalogue.guard, catalogue.holds
        anew = [
            guard.anew(holds, held[row] if held is not None else (), verdict, situation.sound[row])
            for row, verdict in zip(rows.tolist(), verdicts, strict=True)
        ]
        holds.keep_back(anew, possible)
        return scores, possible

    def weights(row: int) -> NDArray[np.float64]:
        return catalogue.weighing.row(situation.verdicts[row], int(situation.channels[row]))[1]

    return catalogue.questions.worth(values, score, may, weights, think)
