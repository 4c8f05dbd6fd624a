"""Challengers: other models, measured on the champion's own decisions and outcomes, and some on a share of their own.

    decision → what each model thinks of all that was possible, before any outcome → windows close → outcome → tally

A decision is looked at when it is in the log, and counted when all windows of its answer have closed: sooner, the
yeses would be there and the noes not. Two things are counted of each model beside the champion, on the very same rows:

    estimates   Brier score and log-loss of the offers that were made, of before the outcome was known (prequential)
    value       reward a decision if the best choice of the model were made, less that of the champion's best choice:
                doubly robust from the logged propensity p of the logged action a, with the champion's estimates as q,

                    v(c) = q(c) + [a = c] / p · (r − q(a))          difference = v(challenger's) − v(champion's)

Where both choose alike the difference is exactly 0. Of decisions that repeated a draw (engine.draws) the estimates
count, the value does not. Rewards are what `opportune dataset` calls so, less contact costs: share of the value × value
− cost, and 0 for silence. Sums are kept in BUCKETS by a hash of the customer, so that those of one customer are
together, and models.evaluation.interval bounds a mean of independent draws.

An apprentice learns another thing, what was chosen from what was possible; counted is how often it would have chosen
the same.

Bounded: a challenger that has used up its share of the time lets decisions pass, and so do all when
CHALLENGER_DECISIONS_MAX are open; both are counted. Which ones has nothing to do with what came of them. A challenger
that fails is out, and told; the learner goes on. Tallies of the engine's own models are in the checkpoint; what is open
at a restart is not counted, whatever comes of it. Models of river live in memory and begin anew: the only form in which
all of them can be kept runs what it reads as a program.

The clock is an argument: it only measures how long a challenger took.
"""

import logging
import struct
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from engine import rivermodel
from engine.attribution import Lesson
from engine.catalogue import OFFER_KINDS, Catalogue
from engine.config_schema import Challenger
from engine.draws import Draws
from engine.forget.entry import KIND, ForgetRecord
from engine.learner import Due, Learner, Position, posterior_options
from engine.limits import CHALLENGER_DECISIONS_MAX
from engine.record import DecisionRecord, RecordError, is_decision
from engine.rules import Verdict
from engine.served import Served
from engine.sharing import fields_of
from engine.store.base import LogEntry
from engine.tally import BUCKETS, Open, Tally, Thought
from features import Offset
from models import Policy, PosteriorOptions, Strengths, pack_offer
from models.statistics import TARGET_STEPS

SECONDS_AHEAD: Final = 0.5
"""What a challenger that was idle may use at once."""
_TOLD_AT_GROWTH: Final = 1.01
_FIELD: Final = "challenger:"
_SERVED: Final = "served-by-challengers"
_SINCE: Final = struct.Struct("<8sqQ")
"""Configuration, first decision, skipped."""

Floats = NDArray[np.float64]


class _Model:
    """One challenger: estimates of all offers, and what it learns from."""

    def __init__(self, challenger: Challenger, catalogue: Catalogue) -> None:
        self.challenger = challenger
        self.tally = Tally()
        self.skipped = 0
        self.left_s = SECONDS_AHEAD
        """What it may still use."""
        self.seen_s: float | None = None
        self.failed = ""
        self.since_ms = 0
        self._catalogue = catalogue
        self._rate = catalogue.config.learning.prior_rate
        self._river = challenger.model.river
        self._each: dict[int, Any] = {}
        self._inputs = rivermodel.Inputs(catalogue)
        self.options = options_of(challenger, catalogue)
        self._policy = _prior(catalogue, self.options)
        self.strengths: Strengths | None = None
        """None: to be learnt from the sums alone."""

    @property
    def imitates(self) -> bool:
        """Whether it learns what was chosen, not what came of it."""
        return self.challenger.mode == "apprentice"

    @property
    def is_ours(self) -> bool:
        """Whether its beliefs come from the sums that the learner has anyway."""
        return not self._river

    def _of(self, at: int) -> Any:
        if at not in self._each:
            self._each[at] = rivermodel.build(self.challenger.model)
        return self._each[at]

    def means(self, x: NDArray[np.int8], which: Iterable[int]) -> dict[int, float]:
        """Estimates by place in the catalogue: shares of the value for ours, of the target range for others."""
        if self.is_ours:
            row = self._policy.score(x[None])[0][0]
            return {at: float(row[at]) for at in which}
        values = self._inputs.of(x)
        return {at: rivermodel.probability(self._of(at), values, self._rate) for at in which}

    def learn(self, at: int, x: NDArray[np.int8], label: bool) -> None:
        """A yes or a no."""
        self._of(at).learn_one(self._inputs.of(x), label)

    def renew(self, learner: Learner) -> dict[str, bytes]:
        """Ours: believe what the sums say now; returns the beliefs by offer."""
        self.strengths, beliefs = learner.beliefs(self.options, self.strengths)
        packed = {offer: pack_offer(one) for offer, one in beliefs.items()}
        self._policy = self._policy.replaced(packed, learner.policy_version)
        return packed


def options_of(challenger: Challenger, catalogue: Catalogue) -> PosteriorOptions:
    """The learning options of a challenger: those of the configuration, and what it has of its own."""
    options, ours = posterior_options(catalogue), challenger.model.ours
    if ours is None:
        return options
    rate = options.prior_rate if ours.prior_rate is None else ours.prior_rate
    strength = options.prior_strength if ours.prior_strength is None else ours.prior_strength
    half_life = options.half_life_periods
    if "half_life" in ours.model_fields_set:
        half_life = None if ours.half_life is None else ours.half_life / catalogue.config.learning.period
    return replace(options, prior_rate=rate, prior_strength=strength, half_life_periods=half_life)


def _prior(catalogue: Catalogue, options: PosteriorOptions) -> Policy:
    transform = catalogue.transform
    return Policy.empty(
        catalogue.offer_ids, transform.dimension, options, transform.version, usual=catalogue.unknown
    )


class Challengers:
    """All challengers of a configuration, beside one learner."""

    def __init__(self, catalogue: Catalogue, now_s: Callable[[], float]) -> None:
        self._catalogue = catalogue
        self._now_s = now_s
        self._models = {one.name: _Model(one, catalogue) for one in catalogue.config.challengers}
        self._champion = _prior(catalogue, posterior_options(catalogue))
        self._served = Served(catalogue.sharing.names)
        self._scales = [(0.0, 1.0)] * len(catalogue.offers)
        for key, terms in catalogue.terms.items():
            self._scales[catalogue.index_of_key[key]] = terms.scale
        self._values = np.array([offer.value for offer in catalogue.offers])
        self._values[list(catalogue.silent.offers)] = 0.0  # nothing comes of them
        self._costs = np.array([offer.contact_cost for offer in catalogue.offers])
        self._open: dict[Position, Open] = {}
        self._draws = Draws()
        self._ends: dict[int, deque[Position]] = {}
        """By partition, in order of decisions."""
        self._offsets: dict[int, Offset] = {}
        self._figures: dict[str, dict[str, Any]] = {}
        self._told_failures: list[str] = []
        self._gone: list[str] = []

    # --- decisions --------------------------------------------------------------------------------------------------

    def observe(self, partition: int, entries: Sequence[LogEntry]) -> None:
        """Let the models think about new decisions of the log, in its order."""
        if not self._models:
            return
        last = self._offsets.get(partition, Offset.ZERO)
        for entry in entries:
            if entry.offset <= last:
                continue
            last = entry.offset
            try:
                if is_decision(entry.data):
                    self._think((partition, entry.offset), DecisionRecord.unpack(entry.data))
                elif entry.data[:1] == bytes([KIND]):
                    for at in ForgetRecord.unpack(entry.data).positions:
                        self._open.pop((partition, at), None)
            except ValueError:  # a damaged entry; RecordError is one
                continue
        self._offsets[partition] = last

    def _think(self, position: Position, record: DecisionRecord) -> None:
        catalogue = self._catalogue
        fresh = self._draws.is_fresh(record)  # of all, counted or not
        offers = tuple(catalogue.index_of_key.get(choice.key, -1) for choice in record.slate)
        propensity = record.slate[0].propensity if record.slate else record.nothing_propensity
        other = record.config_version != catalogue.version or record.transform_version != catalogue.transform.version
        if other or record.degraded or propensity <= 0.0 or -1 in offers:
            return
        standing = catalogue.experiments.of(record.customer, record.time_ms)
        if standing.controls or not standing.plain:
            return  # not the champion's decision: an experiment's
        served_by = catalogue.sharing.served_by(record.customer, record.time_ms)
        if len(self._open) >= CHALLENGER_DECISIONS_MAX:
            for model in self._models.values():
                model.skipped += 1
            return
        x = np.frombuffer(record.x, np.int8)
        silence = len(catalogue.offers)
        mean = self._champion.score(x[None])[0]
        may = self._possible(record, mean)
        scores = self._scores(record, mean[0])
        choice = _best(scores, may)
        worth = np.append(mean[0] * self._values - self._costs, 0.0)
        action = offers[0] if offers else silence
        thoughts = {}
        # What the record estimates is the champion's only where it served.
        for name, model in self._models.items() if not served_by else ():
            model.since_ms = model.since_ms or record.time_ms
            thought = self._timed(model, self._thought, model, record, x, may, offers, action, worth)
            if thought is not None:
                thoughts[name] = thought
        if thoughts or catalogue.sharing.names:
            ends_ms = [one.window_end_ms for one in record.slate]
            self._open[position] = Open(
                end_ms=max(ends_ms, default=record.time_ms) + self._waits_ms(offers),
                bucket=crc32(record.customer.encode()) % BUCKETS,
                action=action,
                propensity=propensity,
                expected=float(worth[action]),
                choice=choice,
                choice_value=float(worth[choice]),
                offers=offers,
                estimates=tuple(self._as_target(at, one.mean) for at, one in zip(offers, record.slate, strict=True)),
                thoughts=thoughts,
                served_by=served_by,
                fresh_draw=fresh,
            )
            self._ends.setdefault(position[0], deque()).append(position)

    def _waits_ms(self, offers: Iterable[int]) -> int:
        """How long after the answer's window a delivery may still change what is learnt."""
        terms = [self._catalogue.terms.get(self._catalogue.offer_keys[at]) for at in offers]
        return max((one.fulfilled_window_ms or 0 for one in terms if one is not None), default=0)

    def _possible(self, record: DecisionRecord, mean: NDArray[np.float32]) -> NDArray[np.bool_]:
        verdict = Verdict(record.rules_held, record.rules_failed)
        _, _, may, _ = self._catalogue.arbitration.score(
            mean, mean, [verdict], np.array([record.channel]), np.array([record.time_ms])
        )
        if record.basis is not None and record.config_version == self._catalogue.version:
            self._catalogue.holds.keep_back([record.basis.holds], may)
        found: NDArray[np.bool_] = may[0]
        return found

    def _scores(self, record: DecisionRecord, mean: NDArray[np.float32]) -> Floats:
        catalogue, basis = self._catalogue, record.basis
        mean = mean.copy()
        mean[list(catalogue.silent.offers)] = 1.0
        gain, _ = catalogue.weighing.row(Verdict(record.rules_held, record.rules_failed), record.channel)
        scores = np.append(catalogue.arbitration.held(mean) * gain - self._costs, 0.0)
        if basis is not None:
            scores[:-1] -= np.where(np.array(catalogue.kinds) == OFFER_KINDS["silence"], 0.0, basis.surcharge)
            for offer, price in basis.prices:
                scores[offer] -= price
            for offer, value in basis.values:
                scores[offer] += value
        return scores

    def _thought(
        self,
        model: _Model,
        record: DecisionRecord,
        x: NDArray[np.int8],
        may: NDArray[np.bool_],
        offers: tuple[int, ...],
        action: int,
        worth: Floats,
    ) -> Thought:
        silence = len(self._catalogue.offers)
        places = np.flatnonzero(may).tolist()
        means = model.means(x, {*places, *offers} if model.imitates else {*places, *offers} - {silence})
        if model.imitates:
            choice = max(places, key=lambda at: (means[at], -at)) if places else silence
            for at in places:
                model.learn(at, x, at == action)
        else:
            shares = np.zeros(silence, np.float32)
            for at, mean in means.items():
                shares[at] = mean if model.is_ours else self._as_share(at, mean)
            choice = _best(self._scores(record, shares), may)
        estimates = [self._as_target(at, means[at]) if model.is_ours else means[at] for at in offers]
        return Thought(choice, tuple(estimates), float(worth[choice]))

    def _as_target(self, at: int, share: float) -> float:
        zero, factor = self._scales[at]
        return share / factor + zero

    def _as_share(self, at: int, target: float) -> float:
        zero, factor = self._scales[at]
        return factor * (target - zero)

    # --- outcomes ---------------------------------------------------------------------------------------------------

    def learn(self, due: Sequence[Due], records: Mapping[Position, bytes | None]) -> None:
        """What outcomes taught, in order: for the estimates to be compared with, and for the models to learn from."""
        for item in due if self._models else ():
            one, lesson = self._open.get(item.position), item.lesson
            if one is not None and 0 < lesson.rank <= len(one.offers):
                if lesson.new is None:
                    one.targets.pop(lesson.rank, None)
                else:
                    one.targets[lesson.rank] = lesson.new
            self._teach(lesson, one, records.get(item.position))

    def _teach(self, lesson: Lesson, one: Open | None, data: bytes | None) -> None:
        at = self._catalogue.index_of_key.get(lesson.offer_key)
        if lesson.new in (None, lesson.old) or data is None or at is None or one is None:
            return  # the same target with another response is no news for models that know no responses
        thinking = [self._models[name] for name in one.thoughts]
        learning = [model for model in thinking if not model.is_ours and not model.imitates]
        if not learning:
            return
        try:
            record = DecisionRecord.unpack(data)
        except RecordError:
            return
        x = np.frombuffer(record.x, np.int8)
        # Part of a yes is a yes with that chance: the estimate is then the expected target.
        salt = crc32(f"{lesson.decision} {lesson.rank}".encode()) % TARGET_STEPS
        label = lesson.new > salt
        for model in learning:
            self._timed(model, model.learn, at, x, label)

    def judge(self, clocks_ms: Sequence[int]) -> None:
        """Count the decisions whose windows have closed.

        Args:
            clocks_ms: newest time in each partition of the log. All lessons up to there were given to `learn`.
        """
        for partition, ends in self._ends.items():
            # In order of decisions: those behind wait for the longest window before them.
            while ends:
                one = self._open.get(ends[0])
                if one is not None and one.end_ms >= clocks_ms[partition]:
                    break
                self._open.pop(ends.popleft(), None)
                if one is not None:  # those of people who were forgotten are gone
                    self._count(one)

    def _count(self, one: Open) -> None:
        reward = 0.0
        if one.offers:
            at = one.offers[0]
            share = self._as_share(at, one.targets[1] / TARGET_STEPS) if 1 in one.targets else 0.0
            reward = share * float(self._values[at]) - float(self._costs[at])
        if self._catalogue.sharing.names:
            self._served.count(one.served_by, one.bucket, reward)
        for name, thought in one.thoughts.items():
            self._models[name].tally.count(one, thought, reward)

    # --- beliefs and what is told -----------------------------------------------------------------------------------

    def publish(self, learner: Learner, offers: Mapping[str, bytes], *, whole: bool) -> dict[str, bytes]:
        """The champion has new beliefs; with all of them, ours are renewed, too. Returns those of challengers that
        serve, as fields of the policy board.
        """
        serving: dict[str, bytes] = {}
        if not self._models:
            return serving
        self._champion = self._champion.replaced(offers, learner.policy_version)
        for name, model in self._models.items():
            if whole and name in self._catalogue.sharing.names:
                # Whatever time it takes: people are served with it.
                serving |= fields_of(name, model.renew(learner))
            elif whole and model.is_ours and model.strengths is None:
                model.renew(learner)  # what was forgotten leaves it with the others, whatever time it takes
            elif whole and model.is_ours:
                self._timed(model, model.renew, learner)
        return serving

    def believe_anew(self) -> None:
        """Have the beliefs of ours made from the sums alone: lessons were taken back that must leave nothing behind."""
        for model in self._models.values():
            model.strengths = None

    def _timed(self, model: _Model, work: Callable[..., Any], *arguments: Any) -> Any:
        """What the work gives; None if the model is out, or has used up its time."""
        if model.failed:
            return None
        now_s = self._now_s()
        earned_s = 0.0 if model.seen_s is None else model.challenger.time * (now_s - model.seen_s)
        model.left_s, model.seen_s = min(SECONDS_AHEAD, model.left_s + earned_s), now_s
        if model.left_s <= 0.0:
            model.skipped += 1
            return None
        try:
            return work(*arguments)
        except Exception as error:  # foreign code: whatever it is, learning goes on
            model.failed = f"{type(error).__name__}: {error}"[:500]
            self._told_failures.append(f"challenger {model.challenger.name} is out: {model.failed}")
            return None
        finally:
            model.left_s -= self._now_s() - now_s

    # --- checkpoint -------------------------------------------------------------------------------------------------

    def checkpoint(self) -> tuple[dict[str, bytes], list[str]]:
        """(fields to replace, fields to drop) of the learner's checkpoint."""
        version = bytes.fromhex(self._catalogue.version)
        fields = {
            _FIELD + name: _SINCE.pack(version, model.since_ms, model.skipped) + model.tally.to_bytes()
            for name, model in self._models.items()
            if model.is_ours
        }
        if self._catalogue.sharing.names:
            fields[_SERVED] = version + self._served.to_bytes()
        gone, self._gone = self._gone, []
        return fields, gone

    def restore(self, fields: Mapping[str, bytes]) -> None:
        """Go on from a checkpoint, if nothing was observed yet. What is of another configuration says nothing."""
        if self._offsets:
            return
        if self._catalogue.sharing.names and fields.get(_SERVED, b"")[:8] == bytes.fromhex(self._catalogue.version):
            try:
                self._served.restore(fields[_SERVED][8:])
            except ValueError as error:
                self._told_failures.append(f"{error}; it begins anew")
        elif _SERVED in fields:
            self._gone.append(_SERVED)
        for field_name, data in fields.items():
            if not field_name.startswith(_FIELD):
                continue
            model = self._models.get(field_name.removeprefix(_FIELD))
            if model is None or not model.is_ours:
                self._gone.append(field_name)
                continue
            try:
                version, since_ms, skipped = _SINCE.unpack_from(data)
                if version == bytes.fromhex(self._catalogue.version):
                    model.tally = Tally.from_bytes(data[_SINCE.size :])
                    model.since_ms, model.skipped = since_ms, skipped
            except (struct.error, ValueError) as error:
                # Nothing that serves depends on it: it begins anew.
                self._told_failures.append(f"challenger {model.challenger.name}: {error}; it begins anew")

    def lines(self) -> list[tuple[int, str]]:
        """(level, line) for the log of what has failed since the last call."""
        told, self._told_failures = self._told_failures, []
        return [(logging.WARNING, line) for line in told]

    def figures(self) -> dict[str, Any]:
        """What travels with the policy."""
        if not self._models:
            return {}
        for name, model in self._models.items():
            known = self._figures.get(name, {}).get("decisions", -1)
            if known < 0 or model.tally.rows.sum() > max(known * _TOLD_AT_GROWTH, known):
                self._figures[name] = model.tally.figures()
        return {
            "config": self._catalogue.version,
            "open": len(self._open),
            "models": [
                {
                    "name": name,
                    "mode": model.challenger.mode,
                    "model": "ours" if model.is_ours else " | ".join(s.river for s in model.challenger.model.river),
                    "since_ms": model.since_ms,
                    "skipped": model.skipped,
                    "failed": model.failed,
                    **self._figures[name],
                    **self._served_by(name, model),
                }
                for name, model in self._models.items()
            ],
        }

    def _served_by(self, name: str, model: _Model) -> dict[str, Any]:
        """What is told of a challenger that serves."""
        if name not in self._catalogue.sharing.names:
            return {}
        return {"serves": model.challenger.serves, "served": self._served.figures(name)}


def _best(scores: Floats, may: NDArray[np.bool_]) -> int:
    """The best of what is possible, silence if nothing is."""
    return int(np.where(may, scores, -np.inf).argmax()) if may.any() else len(scores) - 1
