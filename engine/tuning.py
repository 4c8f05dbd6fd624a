"""Exploration strength from evidence: what one step less of it would have learnt and earned, on the engine's own log.

What an engine loses by exploring shows at once, what it wins only in what it knows later. So a single decision cannot
tell whether exploring pays; a second learner can. Beside the one that serves runs another, which starts from a copy of
its sums and lives on the same log as if it explored one step less (at the lowest step: not at all):

1. For every decision it says with which probabilities π' it would have drawn the first offer, from its own beliefs.
   Those of the engine, π, follow from the record.
2. It learns as often as it would have: a lesson whose logged propensity is p counts π'(a) / p times, in whole copies,
   the rest by a die that is a hash of the decision's place in the log. What it would not have tried it does not know.
3. When the windows have closed, the difference in value is estimated doubly robust, with q the engine's estimates,

       Σ (π'(a) − π(a)) q(a)  +  (π'(a) / p − 1) (r − q(a))                       mean: what less would be worth more

An interval over customers bounds the mean. It is looked at after n decisions, then 2 n, 4 n … since the last step; the
k-th look may err with 0.05 / (k (k + 1)), so all looks together with 0.05. Above 0: the strength goes one step down.
Below 0: the last step of exploring pays, and the strength goes one step up, where the same test judges it again. Where
hardly anything would have been done otherwise it stays, as nothing has been seen. After a step, and after LOOKS_MAX
looks without one, the second learner begins anew from what is known by then.

**Replay.** A decision's record has the standard deviations that were explored with, strength included: decisions are
made again from their records whatever the strength was, and is now. The strength in service and the last steps travel
with the policy and come back from it after a restart; the second learner and the evidence since the last step begin
anew then, and when somebody is forgotten.

Bounds: decisions open at once, and places of the log whose copies are remembered. What is beyond is not counted, which
has nothing to do with what came of it. Lessons of the later places of a slate count as often as those of the first.

No clock, no dice.
"""

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from engine.basis import Basis, recorded
from engine.catalogue import Catalogue
from engine.choosing import Weighed, weighed
from engine.draws import Draws
from engine.forget.entry import KIND
from engine.learner import Due, Learner, Position, prior_policy
from engine.limits import CHALLENGER_DECISIONS_MAX, TUNING_COPY_ENTRIES_MAX, TUNING_STEP_ENTRIES_MAX
from engine.record import DecisionRecord, RecordError, is_decision
from engine.rules import Verdict
from engine.store.base import LogEntry
from engine.tally import BUCKETS, CUSTOMERS_MIN
from features import Offset
from models import Beliefs, OfferPosterior, Policy, Statistics, first_probabilities, pack_offer
from models.evaluation import interval
from models.statistics import TARGET_STEPS

LOOKS_MAX: Final = 6
OTHERWISE_MIN: Final = 20.0
"""Decisions that less would not have made, Σ |π'(a) / p − 1|: with fewer a step would rest on what the model thinks."""
_ERROR: Final = 0.05
_COPIES_OF_ONE_MAX: Final = 3
"""A lesson counts so often at most."""

Floats = NDArray[np.float64]


@dataclass(slots=True)
class _Open:
    """A decision whose windows are not all closed."""

    end_ms: int
    bucket: int
    action: int
    base: float
    """Σ (π' − π) q."""
    excess: float
    """π'(a) / p − 1."""
    expected: float
    """q(a)."""
    target: int | None = None


@dataclass
class _Epoch:
    """The second learner, and the evidence since the last step."""

    statistics: Statistics
    beliefs: Beliefs
    policy: Policy
    since: Mapping[int, Offset]
    """Last place of each partition that both have learnt from alike."""
    copies: dict[Position, int] = field(default_factory=dict)
    open: dict[Position, _Open] = field(default_factory=dict)
    ends: dict[int, deque[Position]] = field(default_factory=dict)
    sums: Floats = field(default_factory=lambda: np.zeros((2, BUCKETS)))
    """Differences and decisions, by customers."""
    otherwise: float = 0.0
    """Σ |π'(a) / p − 1|."""
    looks: int = 0
    skipped: int = 0
    changed: set[str] = field(default_factory=set)
    """Offers that learnt since their beliefs were renewed."""


class Tuning:
    """Tunes the exploration strength of one configuration; idle where it is a number."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        exploration = catalogue.config.exploration
        self.grid: Final = catalogue.explorer.grid
        self.active: Final = bool(self.grid)
        self._decisions = exploration.tuning.decisions
        self._at = len(self.grid) - 1
        self._epoch: _Epoch | None = None
        self._draws = Draws()
        self._steps: list[dict[str, Any]] = []
        self._lines: list[tuple[int, str]] = []
        self.has_news = False
        """Whether the strength is another one than `figures` told last."""
        self._scales = [(0.0, 1.0)] * len(catalogue.offers)
        for key, terms in catalogue.terms.items():
            self._scales[catalogue.index_of_key[key]] = terms.scale
        self._values = np.array([offer.value for offer in catalogue.offers])
        self._values[list(catalogue.silent.offers)] = 0.0  # nothing comes of them

    @property
    def strength(self) -> float:
        """In service."""
        return self.grid[self._at]

    @property
    def less(self) -> float:
        """What it is held against: one step less."""
        return self.grid[self._at - 1] if self._at else 0.0

    # --- the second learner -----------------------------------------------------------------------------------------

    def begin(self, learner: Learner) -> None:
        """Copy what is known, if the last step is done: all of the log that was read has been taught."""
        if self.active and self._epoch is None:
            statistics = Statistics(learner.statistics.dimension, learner.statistics.transform_version)
            statistics.merge(learner.statistics)
            beliefs = learner.beliefs_of(statistics)
            policy = _served(prior_policy(self._catalogue), beliefs.of(self._catalogue.offer_ids), learner)
            self._epoch = _Epoch(statistics, beliefs, policy, learner.offsets)

    def drop(self) -> None:
        """Forget the second learner and its evidence: the first is another one."""
        self._epoch = None

    def renew(self, learner: Learner, *, whole: bool) -> None:
        """Let the second learner believe what its sums say now, of all offers or of those that learnt: as the first."""
        epoch = self._epoch
        if epoch is None or not (whole or epoch.changed):
            return
        if whole or not epoch.beliefs.knows_worth:
            epoch.beliefs = learner.beliefs_of(epoch.statistics)
            renewed = epoch.beliefs.of(self._catalogue.offer_ids)
        else:
            renewed = epoch.beliefs.renewed(learner.shared(epoch.statistics), sorted(epoch.changed))
        epoch.policy = _served(epoch.policy, renewed, learner)
        epoch.changed.clear()

    # --- decisions --------------------------------------------------------------------------------------------------

    def observe(self, partition: int, entries: Sequence[LogEntry]) -> None:
        """Let the second learner decide what the log decided, in its order."""
        epoch = self._epoch
        if epoch is None:
            return
        rows: list[tuple[Position, DecisionRecord, Basis]] = []
        for entry in entries:
            position = partition, entry.offset
            if entry.offset <= epoch.since[partition] or position in epoch.copies:
                continue
            if entry.data[:1] == bytes([KIND]):
                self.drop()  # it may have learnt from who is to leave nothing behind
                return
            try:
                record = DecisionRecord.unpack(entry.data) if is_decision(entry.data) else None
            except RecordError:
                continue
            if record is None:
                continue
            epoch.copies[position] = 1
            if len(epoch.copies) > TUNING_COPY_ENTRIES_MAX:
                del epoch.copies[next(iter(epoch.copies))]
            fresh = self._draws.is_fresh(record)
            if len(epoch.open) + len(rows) >= CHALLENGER_DECISIONS_MAX:
                epoch.skipped += 1
            elif fresh and self._counts(record) and record.basis is not None:
                rows.append((position, record, record.basis))
        for start in range(0, len(rows), 256):
            self._think(epoch, rows[start : start + 256])

    def _counts(self, record: DecisionRecord) -> bool:
        """Whether the engine's own exploration made this decision with this configuration."""
        catalogue = self._catalogue
        if record.config_version != catalogue.version or record.transform_version != catalogue.transform.version:
            return False
        if catalogue.sharing.served_by(record.customer, record.time_ms):
            return False
        standing = catalogue.experiments.of(record.customer, record.time_ms)
        drawn = record.slate[0].propensity if record.slate else record.nothing_propensity
        return not (record.degraded or record.resumed or standing.controls) and standing.plain and drawn > 0.0

    def _think(self, epoch: _Epoch, rows: Sequence[tuple[Position, DecisionRecord, Basis]]) -> None:
        catalogue = self._catalogue
        records, bases = [record for _, record, _ in rows], [basis for *_, basis in rows]
        offers = len(catalogue.offers)
        x = np.frombuffer(b"".join(record.x for record in records), np.int8).reshape(len(rows), -1)
        mean, sd, unknown, prices = recorded(bases, offers)
        actions = np.full(len(rows), offers)
        for at, record in enumerate(records):
            for place, choice in enumerate(record.slate):
                offer = catalogue.index_of_key[choice.key]
                mean[at, offer], sd[at, offer], unknown[at, offer] = choice.mean, choice.sd, False
                if not place:
                    actions[at] = offer
        with_points = catalogue.ladder.offers
        theirs, unsure = epoch.policy.score(x)
        theirs, unsure = np.array(theirs), np.array(unsure) * np.float32(self.less)
        for offer in with_points:
            # What points say needs no learner: they are those of the record.
            theirs[:, offer] = np.where(unknown[:, offer], theirs[:, offer], mean[:, offer])
            scaled = sd[:, offer] * np.float32(self.less / self.strength)
            unsure[:, offer] = np.where(unknown[:, offer], unsure[:, offer], scaled)
        q = np.column_stack([np.where(unknown, theirs, mean) * self._values - catalogue.costs, np.zeros(len(rows))])
        gates = np.array([basis.gate for basis in bases])
        limits = np.array([record.limit for record in records])
        now = self._shares(self._weighed(records, bases, mean, sd, prices, unknown), gates, limits)
        then = self._shares(self._weighed(records, bases, theirs, unsure, prices, None), gates, limits)
        base = np.einsum("ij,ij->i", then - now, q)
        each = np.arange(len(rows))
        expected, wanted = q[each, actions], then[each, actions]
        for at, (position, record, _) in enumerate(rows):
            propensity = record.slate[0].propensity if record.slate else record.nothing_propensity
            ratio = float(wanted[at]) / propensity
            epoch.copies[position] = min(_COPIES_OF_ONE_MAX, int(ratio + _die(position)))
            waits_ms = self._waits_ms([catalogue.index_of_key[one.key] for one in record.slate])
            epoch.open[position] = _Open(
                end_ms=max((one.window_end_ms for one in record.slate), default=record.time_ms) + waits_ms,
                bucket=crc32(record.customer.encode()) % BUCKETS,
                action=int(actions[at]),
                base=float(base[at]),
                excess=ratio - 1.0,
                expected=float(expected[at]),
            )
            epoch.ends.setdefault(position[0], deque()).append(position)

    def _weighed(
        self,
        records: Sequence[DecisionRecord],
        bases: Sequence[Basis],
        mean: NDArray[np.float32],
        sd: NDArray[np.float32],
        prices: Floats,
        unknown: NDArray[np.bool_] | None,
    ) -> Weighed:
        catalogue = self._catalogue
        catalogue.silent.surely(mean, sd)
        weights = weighed(
            catalogue,
            mean,
            sd,
            [Verdict(record.rules_held, record.rules_failed) for record in records],
            np.array([record.channel for record in records], np.int64),
            np.array([record.time_ms for record in records], np.int64),
            held=[basis.holds for basis in bases],
            surcharges=np.array([basis.surcharge for basis in bases]),
            prices=prices,
            unknown=unknown,
        )
        for at, basis in enumerate(bases):
            for offer, value in basis.values:
                if unknown is None or not unknown[at, offer]:
                    weights.score[at, offer] += value
        return weights

    def _shares(self, weights: Weighed, gates: Floats, limits: NDArray[np.int64]) -> Floats:
        """(B, offers and silence) how likely each is drawn first, governed as it was."""
        catalogue = self._catalogue
        return first_probabilities(
            weights.score,
            weights.spread,
            weights.may,
            **catalogue.explorer.race,
            floor=catalogue.config.exploration.floor,
            gates=gates,
            keeps=catalogue.explorer.keeps,
            limits=limits if catalogue.caps is None else None,
        )

    def _waits_ms(self, offers: Sequence[int]) -> int:
        """How long after the answer's window a delivery may still change what is learnt."""
        terms = [self._catalogue.terms.get(self._catalogue.offer_keys[at]) for at in offers]
        return max((one.fulfilled_window_ms or 0 for one in terms if one is not None), default=0)

    # --- outcomes ---------------------------------------------------------------------------------------------------

    def learn(self, due: Sequence[Due], records: Mapping[Position, bytes | None]) -> None:
        """What outcomes taught: to the second learner as often as it would have asked for them."""
        epoch = self._epoch
        if epoch is None:
            return
        catalogue = self._catalogue
        rows: list[tuple[str, int, bytes, int, bool, int]] = []
        for item in due:
            position, lesson = item.position, item.lesson
            one = epoch.open.get(position)
            if one is not None and lesson.rank == 1:
                one.target = lesson.new
            copies = 1 if position[1] <= epoch.since[position[0]] else epoch.copies.get(position, 0)
            data, at = records.get(position), catalogue.index_of_key.get(lesson.offer_key)
            if not copies or data is None or at is None:
                continue
            try:
                record = DecisionRecord.unpack(data)
            except RecordError:
                continue
            if record.transform_version != catalogue.transform.version:
                continue
            period = lesson.time_ms // catalogue.config.learning.period
            for change in lesson.changes:
                rows += [(catalogue.offer_ids[at], period, record.x, *change)] * copies
        if rows:
            offers, periods, vectors, targets, responses, signs = zip(*rows, strict=True)
            x = np.frombuffer(b"".join(vectors), np.int8).reshape(len(rows), -1)
            epoch.statistics.learn(offers, periods, x, targets, signs, responses)
            epoch.changed.update(offers)

    def judge(self, clocks_ms: Sequence[int]) -> None:
        """Count the decisions whose windows have closed, and step if the evidence says so.

        Args:
            clocks_ms: newest time in each partition of the log. All lessons up to there were given to `learn`.
        """
        epoch = self._epoch
        if epoch is None:
            return
        for partition, ends in epoch.ends.items():
            while ends:
                one = epoch.open[ends[0]]
                if one.end_ms >= clocks_ms[partition]:
                    break
                del epoch.open[ends.popleft()]
                epoch.otherwise += abs(one.excess)
                epoch.sums[:, one.bucket] += one.base + one.excess * (self._reward(one) - one.expected), 1.0
        if epoch.sums[1].sum() >= self._decisions << epoch.looks:
            self._look(epoch, max(clocks_ms))

    def _reward(self, one: _Open) -> float:
        if one.action == len(self._values):
            return 0.0
        zero, factor = self._scales[one.action]
        share = 0.0 if one.target is None else factor * (one.target / TARGET_STEPS - zero)
        return share * float(self._values[one.action]) - float(self._catalogue.costs[one.action])

    def _look(self, epoch: _Epoch, now_ms: int) -> None:
        epoch.looks += 1
        level = 1.0 - _ERROR / (epoch.looks * (epoch.looks + 1))
        mean, low, high = _bounded(epoch.sums, level)
        step = -1 if low > 0.0 and self._at > 0 else 1 if high < 0.0 and self._at + 1 < len(self.grid) else 0
        if epoch.otherwise < OTHERWISE_MIN:
            step = 0
        if step:
            before = self.strength
            self._at += step
            told = {
                "time_ms": now_ms,
                "from": before,
                "to": self.strength,
                "decisions": int(epoch.sums[1].sum()),
                "customers": int((epoch.sums[1] > 0.0).sum()),
                "level": level,
                "mean": mean,
                "low": low,
                "high": high,
            }
            self._steps = [*self._steps, told][-TUNING_STEP_ENTRIES_MAX:]
            found = f"one step less would earn {mean:+.4g} a decision ({low:+.4g} to {high:+.4g})"
            self._lines.append((logging.INFO, f"exploration strength {before:g} → {self.strength:g}: {found}"))
            self.has_news = True
        if step or epoch.looks == LOOKS_MAX:
            self._epoch = None

    # --- what is told -----------------------------------------------------------------------------------------------

    def lines(self) -> list[tuple[int, str]]:
        """(level, line) for the log of the steps since the last call."""
        lines, self._lines = self._lines, []
        return lines

    def figures(self) -> dict[str, Any]:
        """What travels with the policy."""
        if not self.active:
            return {}
        self.has_news = False
        found: dict[str, Any] = {
            "strengths": list(self.grid),
            "strength": self.strength,
            "less": self.less,
            "steps": self._steps,
        }
        if self._epoch is not None:
            mean, low, high = _bounded(self._epoch.sums, 1.0 - _ERROR)
            known = low > -np.inf and high < np.inf
            found |= {
                "decisions": int(self._epoch.sums[1].sum()),
                "next_look": self._decisions << self._epoch.looks,
                "otherwise": self._epoch.otherwise,
                "difference": {"mean": mean, "low": low, "high": high} if known else None,
                "skipped": self._epoch.skipped,
            }
        return found

    def resume(self, figures: Mapping[str, Any]) -> None:
        """Go on from figures that were told last; those of other strengths say nothing."""
        if self.active and figures.get("strengths") == list(self.grid) and not self._steps:
            self._at = self.grid.index(figures["strength"])
            self._steps = list(figures["steps"])


def _served(policy: Policy, beliefs: Mapping[str, OfferPosterior], learner: Learner) -> Policy:
    return policy.replaced({offer: pack_offer(one) for offer, one in beliefs.items()}, learner.policy_version)


def _bounded(sums: Floats, level: float) -> tuple[float, float, float]:
    """Mean difference with its bounds, infinite where too few customers were seen."""
    seen = sums[1] > 0.0
    if not seen.any():
        return 0.0, -np.inf, np.inf
    mean = float(sums[0].sum() / sums[1].sum())
    if int(seen.sum()) < CUSTOMERS_MIN:
        return mean, -np.inf, np.inf
    low, high = interval(sums[0][seen], sums[1][seen], level)
    return mean, low, high


def _die(position: Position) -> float:
    """A number in [0, 1) that depends on a place of the log only."""
    digest = blake2b(f"tuning {position[0]} {position[1]}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "little") / (1 << 48)
