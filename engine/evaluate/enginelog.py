"""A log from the engine's own decision log: each decision with what could have been offered instead.

What could be done follows from the record: which rules held, what was kept back, the channel, the time, and the
configuration that decided. So a target policy chooses among what the log could have chosen, and a policy with another
configuration is recomputed from what each decision saw.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engine.basis import Basis, recorded
from engine.bridge import Bridge
from engine.catalogue import Catalogue
from engine.errors import InvalidArgument
from engine.evaluate.log import NOTHING, REPEATED, Bools, Floats, Ints, Log
from engine.history.decisions import Decided, Written
from engine.holds import Situation
from engine.learner import posterior_options
from engine.rules import Verdict
from engine.valuecode import decoded
from models import first_probabilities
from models.crossfit import Fitted, crossfit

Place = tuple[int, float, float, float]
"""A place of an answer: action, propensity, reward, 1 for a yes."""

_NOTHING_KEPT: Final = Basis()


@dataclass(eq=False)
class EngineLog(Log):
    """Decisions with what the engine kept of them."""

    catalogues: list[Catalogue] = field(default_factory=list)
    versions: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    """(n,) index in `catalogues` of the configuration that decided."""
    channels: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    times_ms: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    held: list[bytes] = field(default_factory=list)
    """(n,) rules that held, as in the record."""
    bases: list[Basis | None] = field(default_factory=list)
    """(n,) what else it rested on; None in records of an earlier release."""
    accepted: Floats = field(default_factory=lambda: np.zeros(0))
    """(n,) 1 for a yes."""
    failed: list[bytes] = field(default_factory=list)
    """(n,) rules that could not be evaluated, likewise."""
    placements: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    later: list[tuple[Place, ...]] = field(default_factory=list)
    """(n,) the places behind the first one; silence, if it was drawn there, is the last."""
    limits: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    """(n,) how many places an answer had."""
    slates: bool = False
    """Whether beliefs are learnt from all places, and not from the first alone."""

    @cached_property
    def beliefs(self) -> list[Fitted]:
        """By fold: what the other customers teach about acceptance, as shares of the value, without forgetting."""
        options = replace(self.options, half_life_periods=None)
        rows, actions, accepted = np.arange(len(self)), self.actions, self.accepted
        if self.slates:
            more = [(row, place[0], place[3]) for row, later in enumerate(self.later) for place in later]
            of_later = np.array(more, np.float64).reshape(-1, 3)
            rows = np.concatenate([rows, of_later[:, 0].astype(np.int64)])
            actions = np.concatenate([actions, of_later[:, 1].astype(np.int64)])
            accepted = np.concatenate([accepted, of_later[:, 2]])
        offered = np.flatnonzero(actions != self.names.index(NOTHING))
        if not len(offered):
            raise InvalidArgument(f"{self.title}: no offer was ever made, so there is nothing to learn from")
        x, folds = self.x[rows[offered]], self.folds[rows[offered]]
        return crossfit(x, actions[offered], accepted[offered], folds, self.names, options, within=(0.0, 1.0))

    def possible(self, rows: Ints, taken: Bools | None = None) -> Bools:
        """(rows, K) what could have been done then, beside what was `taken` (rows, K) at earlier places."""
        may = np.zeros((len(rows), len(self.names)), np.bool_)
        for catalogue, part in self._by_version(rows):
            nought = np.zeros((len(part), len(catalogue.offers)), np.float32)
            _, _, found, _ = catalogue.arbitration.score(
                nought, nought, self._verdicts(rows[part], None, catalogue), *self._where(rows[part], catalogue)
            )
            catalogue.holds.keep_back([basis.holds for basis in self._bases(rows[part])], found)
            may[np.ix_(part, self._columns(catalogue))] = found
        return may if taken is None else may & ~taken

    def configured(
        self, target: Catalogue, rows: Ints, fold: int, *, greedy: bool = False, taken: Bools | None = None
    ) -> Floats:
        """(rows, K) how likely a configuration would have done each action first, with the beliefs of a fold; or next,
        after what was `taken` (rows, K).

        Raises InvalidArgument where the record does not hold what that takes.
        """
        shares = np.zeros((len(rows), len(self.names)))
        exploration, explorer = target.config.exploration, target.explorer
        greedy = greedy or (explorer.method == "greedy" and not explorer.floor(explorer.strength))
        if exploration.budget.customer is not None and not greedy:
            raise InvalidArgument(
                f"configuration {target.config.name}: exploration.budget.customer cannot be recomputed here, as it "
                "depends on what the policy itself would have shown before"
            )
        columns = self._columns(target)
        if target.transform.version != self.catalogues[0].transform.version:
            raise InvalidArgument(
                f"configuration {target.config.name}: its inputs of the model are not those that the log was decided "
                "with, so its beliefs cannot be learnt from it"
            )
        predicted = self.beliefs[fold].score(self.x[rows])
        mean, sd = (np.ascontiguousarray(scores[:, columns[:-1]], np.float32) for scores in predicted)
        for catalogue, part in self._by_version(rows):
            verdicts = self._verdicts(rows[part], target, catalogue)
            where = self._where(rows[part], catalogue, target)
            bridge, bases = Bridge(catalogue, target), self._bases(rows[part])
            _, _, _, prices = recorded(bases, len(catalogue.offers))
            likely, unsure = mean[part], sd[part]
            target.silent.surely(likely, unsure)
            explorer.widen(unsure, float("nan"))
            score, spread, may, _ = target.arbitration.score(
                likely,
                unsure,
                verdicts,
                *where,
                explorer.strength,
                surcharges=np.array([basis.surcharge for basis in bases]),
                prices=bridge.prices(prices),
            )
            bridge.add_values([basis.values for basis in bases], score)
            people = [self.people[row] for row in rows[part].tolist()]
            situation = Situation(people, (), verdicts, where[0], self.placements[rows[part]].tolist(), where[1])
            held = bridge.holds([basis.holds for basis in bases])
            target.holds.keep_back(target.holds.anew(held, situation), may)
            if taken is not None:
                may &= ~taken[np.ix_(part, columns)]
            gates: Floats | None = None
            if not greedy:
                gates = explorer.gates(where[0], verdicts, (), (), where[1], [True] * len(part))
                behind = taken is not None and taken.any()
                if gates is not None and behind and ((gates > 0.0) & (gates < 1.0)).any():
                    raise InvalidArgument(
                        f"configuration {target.config.name}: shares of exploration.budget between 0 and 1 cannot be "
                        "recomputed here for the places behind the first"
                    )
            how: dict[str, Any] = {"method": "greedy"}
            if not greedy:
                how = {**explorer.race, "method": explorer.method, "floor": explorer.floor(explorer.strength)}
                how |= {"gates": gates, "keeps": explorer.keeps}
                how["limits"] = self.limits[rows[part]] if target.caps is None else None
            shares[np.ix_(part, columns)] = first_probabilities(score, spread, may, **how)
        # Where it may offer nothing at all, nothing is what it does.
        shares[:, self.names.index(NOTHING)] += np.maximum(1.0 - shares.sum(axis=1), 0.0)
        return shares

    def _kept_back(self, rows: Ints, catalogue: Catalogue) -> Iterator[tuple[int, Bools]]:
        """(place, offers kept back by what is no rule), of the decisions of which some were."""
        for place, row in enumerate(rows.tolist()):
            basis = self.bases[row]
            back = None if basis is None else catalogue.holds.kept_back(basis.holds)
            if back is not None:
                yield place, back

    def _by_version(self, rows: Ints) -> list[tuple[Catalogue, Ints]]:
        versions = self.versions[rows]
        return [(self.catalogues[at], np.flatnonzero(versions == at)) for at in np.unique(versions).tolist()]

    def _columns(self, catalogue: Catalogue) -> Ints:
        """Of each offer of a configuration, and of silence, the column."""
        index = {name: at for at, name in enumerate(self.names)}
        return np.array([index[offer] for offer in (*catalogue.offer_ids, NOTHING)])

    def _where(self, rows: Ints, catalogue: Catalogue, target: Catalogue | None = None) -> tuple[Ints, Ints]:
        """(channels, times) of decisions, the channels as another configuration numbers them."""
        channels = self.channels[rows]
        if target is not None:
            numbers = []
            for channel in catalogue.config.channels:
                if channel.id not in target.channel_index:
                    raise InvalidArgument(f"configuration {target.config.name}: has no channel {channel.id!r}")
                numbers.append(target.channel_index[channel.id])
            channels = np.array(numbers)[channels]
        return channels, self.times_ms[rows]

    def _bases(self, rows: Ints) -> list[Basis]:
        return [self.bases[row] or _NOTHING_KEPT for row in rows.tolist()]

    def _verdicts(self, rows: Ints, target: Catalogue | None, catalogue: Catalogue) -> list[Verdict]:
        """Which rules of the target held: as recorded, or evaluated on what the decisions saw."""
        if target is None or target.rules.expressions == catalogue.rules.expressions:
            return [Verdict(self.held[row], self.failed[row]) for row in rows.tolist()]
        seen = [basis.seen for basis in self._bases(rows)]
        if not all(seen):
            raise InvalidArgument(
                f"configuration {target.config.name}: its rules are not those of the log, and there are records of an "
                "earlier release, which do not say what their decisions saw"
            )
        values = decoded(seen, len(catalogue.rule_columns))
        return target.rule_batch.evaluate(Bridge(catalogue, target).values(values))


async def read(
    decided: AsyncIterator[tuple[int, list[Decided]]],
    written: Written,
    catalogue: Catalogue,
    target: Catalogue | None,
    reward: str,
    title: str,
) -> EngineLog:
    """The engine's decisions, their first positions and those behind. Raises InvalidArgument if none can be used.

    Args:
        decided: batches from engine.history.decisions.
        written: its caveats.
        catalogue: the configuration whose inputs of the model count.
        target: one whose offers take part, too.
        reward: column of `opportune dataset`: reward or target.
        title: what to call the log.
    """
    catalogues: dict[str, Catalogue] = {}
    people: list[str] = []
    vectors: list[bytes] = []
    held: list[bytes] = []
    failed: list[bytes] = []
    places: list[int] = []
    limits: list[int] = []
    bases: list[Basis | None] = []
    offers: list[str] = []
    numbers: list[tuple[int, int, float, float, float]] = []  # time, channel, propensity, reward, acceptance
    versions: list[str] = []
    later: list[list[tuple[str, float, float, float]]] = []
    unpaid: list[bool] = []
    clock_ms = other = nothing_to_choose = without_chance = again = 0
    async for now_ms, batch in decided:
        clock_ms = now_ms
        for one in batch:
            record, made_with, first = one.record, one.catalogue, one.first
            if made_with is None or record.transform_version != catalogue.transform.version:
                other += 1
                continue
            standing = made_with.experiments.of(record.customer, record.time_ms)
            if standing.controls or standing.greedy:
                # Nothing else could have been done with them. A random share of all: the others stand for them.
                without_chance += 1
                continue
            propensity = record.slate[0].propensity if record.slate else record.nothing_propensity
            if propensity <= 0.0:
                nothing_to_choose += 1
                continue
            if not one.fresh_draw:
                again += 1
                continue
            paid = first.get(reward)
            catalogues.setdefault(made_with.version, made_with)
            versions.append(made_with.version)
            people.append(record.customer)
            vectors.append(record.x)
            held.append(record.rules_held)
            failed.append(record.rules_failed)
            places.append(record.placement)
            limits.append(record.limit)
            bases.append(record.basis)
            offers.append(made_with.offer_name(record.slate[0].key) if record.slate else NOTHING)
            # Silence with a text has no window: nothing was to come of it.
            unpaid.append(paid is None and any(choice.window_end_ms for choice in record.slate[:1]))
            numbers.append((record.time_ms, record.channel, propensity, paid or 0.0, first.get("target") or 0.0))
            behind = [
                (made_with.offer_name(choice.key), choice.propensity, row.get(reward) or 0.0, row.get("target") or 0.0)
                for choice, row in list(zip(record.slate, one.offered, strict=True))[1:]
            ]
            if record.slate and record.nothing_propensity > 0.0:
                behind.append((NOTHING, record.nothing_propensity, 0.0, 0.0))
            later.append(behind)
    remarks = list(written.caveats)
    if other:
        remarks.append(f"left out {other:,} decisions of configurations with other inputs, or that were not kept")
    if without_chance:
        remarks.append(f"left out {without_chance:,} decisions for control groups and arms that are not explored on")
    if nothing_to_choose:
        remarks.append(f"left out {nothing_to_choose:,} decisions in which there was nothing to choose from")
    if again:
        remarks.append(REPEATED.format(again))
    # Every decision within the longest window goes, whatever it offered: what is left must not depend on what was done.
    window_ms = max((ms for each in catalogues.values() for ms in each.windows_ms), default=0)
    kept = [at for at, row in enumerate(numbers) if row[0] + window_ms <= clock_ms]
    if len(kept) < len(numbers):
        remarks.append(f"left out {len(numbers) - len(kept):,} decisions whose windows may still be open")
    if not kept:
        raise InvalidArgument(f"{title}: holds no decision that can be evaluated. {'; '.join(remarks)}".strip(". "))
    if lost := sum(unpaid[at] for at in kept):
        remarks.append(f"{lost:,} offers that were not presented or withdrawn count as a reward of 0")

    def of(values: Sequence[str]) -> list[str]:
        return [values[at] for at in kept]

    done = of(offers)
    used = list(catalogues.values())
    offered = {offer for each in (*used, *([target] if target is not None else [])) for offer in each.offer_ids}
    more = {name for at in kept for name, *_ in later[at]}
    names = sorted({*offered, *done, *more, NOTHING})
    index = {name: at for at, name in enumerate(names)}
    at_version = {version: at for at, version in enumerate(catalogues)}
    table = np.array([numbers[at] for at in kept])
    x: npt.NDArray[np.int8] = np.frombuffer(b"".join([vectors[at] for at in kept]), np.int8).reshape(len(kept), -1)
    return EngineLog(
        title,
        names,
        np.array([index[name] for name in done]),
        table[:, 3].copy(),
        table[:, 2].copy(),
        of(people),
        x,
        posterior_options(catalogue),
        remarks,
        used,
        np.array([at_version[version] for version in of(versions)]),
        table[:, 1].astype(np.int64),
        table[:, 0].astype(np.int64),
        [held[at] for at in kept],
        [bases[at] for at in kept],
        table[:, 4].copy(),
        [failed[at] for at in kept],
        np.array([places[at] for at in kept]),
        [tuple((index[name], p, paid, yes) for name, p, paid, yes in later[at]) for at in kept],
        np.array([limits[at] for at in kept]),
    )
