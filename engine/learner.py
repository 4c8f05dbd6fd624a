"""The learner, pure: entries of the decision log in, beliefs and checkpoints out.

    entries → attribution (a partition each) → lessons → exact sums → beliefs of the offers that changed

A lesson names its decision; the vector comes from that decision's record, so what is learnt is what was decided with.
All that counts is the log: batch size, restarts and the moment of a snapshot change no bit of the sums.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from zlib import compress, decompress
from zlib import error as CompressionError

import numpy as np
import orjson

from engine.attribution import Attribution, AttributionError, Forgotten, Lesson
from engine.catalogue import Catalogue
from engine.cohorts import DriftError
from engine.config_schema import Learning as LearningConfig
from engine.config_schema import key_of
from engine.driftwatch import DriftWatch
from engine.explain.reference import average_input
from engine.policyfacts import pack_weights
from engine.record import DecisionRecord, RecordError
from engine.store.base import LogEntry
from engine.terms import OfValue, Terms
from features import Offset
from models import (
    TARGET_STEPS,
    Beliefs,
    CheckpointError,
    OfferPosterior,
    Policy,
    PosteriorOptions,
    Statistics,
    Strengths,
    learn_strengths,
    pack_offer,
)
from models.calibration import Calibration
from models.offercalibration import OfferCalibration, with_factors
from models.statistics import Sums

Position = tuple[int, Offset]
"""(partition, position) of a decision."""

STRENGTHS_LEARNT_EVERY: Final = 1.05
"""Strengths are looked at again when there are so many times as many lessons."""

OF_SNAPSHOTS: Final = frozenset({"policy_version", "strengths", "lessons_weighed"})
"""What a checkpoint's head has of the snapshots that were made; all else follows from the log."""

_HEAD: Final = "head"
_ATTRIBUTION: Final = "attribution:"
_STATISTICS: Final = "statistics:"
DRIFT: Final = "drift:"
"""Begins the fields of a checkpoint on what drifted: unlike all others, they do not follow from the log to the bit."""
_CALIBRATION: Final = "calibration"
OFFER_CALIBRATION: Final = "calibration_offers"


class Former(NamedTuple):
    """An offer that is not in the configuration any more."""

    name: str
    terms: Terms | None
    """None: a yes is 1 and a no is 0."""


_NONE: Final[Mapping[int, Former]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Due:
    """A lesson and the partition it comes from."""

    partition: int
    lesson: Lesson

    @property
    def position(self) -> Position:
        """Where the record of its decision is."""
        return self.partition, self.lesson.decision


def posterior_options(catalogue: Catalogue) -> PosteriorOptions:
    """The prior and the forgetting that a configuration declares."""
    learning = catalogue.config.learning
    half_life = learning.half_life
    return PosteriorOptions(
        prior_strength=learning.prior_strength,
        prior_rate=learning.prior_rate,
        half_life_periods=None if half_life is None else half_life / learning.period,
    )


def checkpoint_prefix(catalogue: Catalogue) -> str:
    """Begins the fields of the learner's checkpoints: sums of other inputs or of other periods never mix."""
    period_ms = catalogue.config.learning.period
    of_period = "" if period_ms == LearningConfig.model_fields["period"].default else f"-{period_ms}"
    return f"{catalogue.transform.version:08x}{of_period}:"


@contextmanager
def _reading(field: str) -> Iterator[None]:
    """Say of which field of the checkpoint it is that something cannot be read."""
    errors = orjson.JSONDecodeError, KeyError, TypeError, AttributionError, DriftError, CompressionError
    try:
        yield
    except (CheckpointError, *errors) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else error
        raise CheckpointError(f"the learner's checkpoint cannot be read: field {field}: {what}") from error


def prior_policy(catalogue: Catalogue) -> Policy:
    """What serves before anything was learnt. Waves are left out: they are for lessons to speak for."""
    transform = catalogue.transform
    columns = transform.dimension - transform.waves
    return Policy.empty(
        catalogue.offer_ids, columns, posterior_options(catalogue), transform.version, usual=catalogue.unknown
    )


class Learner:
    """All that the learner knows."""

    def __init__(self, catalogue: Catalogue, partitions: int, former: Mapping[int, Former] = _NONE) -> None:
        """`former` are offers that earlier configurations had, by key: their outcomes still come in."""
        self.catalogue = catalogue
        self.former = former
        self.terms = {key: offer.terms for key, offer in former.items() if offer.terms is not None}
        """What stages and rewards are worth, by offer key, of offers that are gone, too."""
        self.terms |= catalogue.terms
        self.statistics = Statistics(catalogue.transform.dimension, catalogue.transform.version)
        self.calibration = Calibration()
        per_offer = catalogue.config.learning.calibration == "per_offer"
        self.offer_calibration = OfferCalibration() if per_offer else None
        """None: the configuration wants one curve for all."""
        self.attributions = [Attribution(self.terms) for _ in range(partitions)]
        self.policy_version = 0
        self.lessons = 0
        """Lessons taught or taken back."""
        self.lost = 0
        """Lessons that could not be taught: record gone or damaged, offer removed, another transform."""
        self.drift = DriftWatch(catalogue)
        self.forgot = 0
        """Entries that forget somebody, taken in since this object was made."""
        self._options = posterior_options(catalogue)
        named = {
            former[key].name if key in former else catalogue.offer_ids[catalogue.index_of_key[key]]: terms
            for key, terms in self.terms.items()
        }
        self._scales = {offer: terms.scale for offer, terms in named.items() if terms.scale != (0.0, 1.0)}
        self._structure = replace(catalogue.structure, valued=frozenset(named))
        self._weighed: dict[str, list[float | str]] = {}
        """Noise, expected weights by others and their variance before any lesson, of offers with points."""
        self._snapshot_period: int | None = None
        self._beliefs: Beliefs | None = None
        """Of the last whole snapshot."""
        self._strengths = Strengths.declared(self._options)
        self._lessons_weighed = 0
        """Lessons when the strengths were learnt last."""
        self._average: list[float] | None = None
        self._averaged_lessons = 0
        self._weighs_anew = False
        """Whether the strengths are to be those that the sums say, whatever they were."""
        self._changed: set[str] = set()
        self._unsaved: set[str] = set()
        self._saved_offers: set[str] = set()
        self._calibration_saved = False
        self._offer_calibration_saved = False

    @property
    def clock_ms(self) -> int:
        """The newest time in the log."""
        return max(attribution.clock_ms for attribution in self.attributions)

    @property
    def offsets(self) -> dict[int, Offset]:
        """Last entry taken in, by partition."""
        return {at: attribution.offset for at, attribution in enumerate(self.attributions)}

    def absorb(self, partition: int, entries: Sequence[LogEntry]) -> list[Due]:
        """Take in log entries; what they teach still needs the records of its decisions: see `teach`."""
        attribution = self.attributions[partition]
        self.drift.observe(entry for entry in entries if entry.offset > attribution.offset)
        before = len(attribution.forgotten)
        due = [Due(partition, lesson) for lesson in attribution.absorb(entries)]
        self.forgot += len(attribution.forgotten) - before
        return due

    def teach(self, due: Sequence[Due], records: Mapping[Position, bytes | None]) -> None:
        """Teach what is due. `records` has the record of every decision named, None where the log lost it."""
        offers: list[str] = []
        keys: list[int] = []
        times: list[int] = []
        vectors: list[bytes] = []
        targets: list[int] = []
        signs: list[int] = []
        responses: list[bool] = []
        means: list[float | None] = []
        for item in due:
            lesson = item.lesson
            found = self._input(records.get(item.position), lesson)
            if found is None:
                self.lost += 1
                continue
            self.lessons += 1
            self.drift.learn(lesson, found[1])
            for target, response, sign in lesson.changes:
                offers.append(found[0])
                keys.append(lesson.offer_key)
                vectors.append(found[1].x)
                times.append(lesson.time_ms // self.catalogue.config.learning.period)
                targets.append(target)
                signs.append(sign)
                responses.append(response)
                means.append(found[2])
        if not offers:
            return
        x = np.frombuffer(b"".join(vectors), dtype=np.int8).reshape(len(offers), -1)
        touched = self.statistics.learn(offers, times, x, targets, signs, responses)
        served = touched.intersection(self.catalogue.offer_ids)
        self._changed |= served | self.drift.judge(self.clock_ms, self._lessons_around)
        self._unsaved |= touched
        self._calibrate(keys, times, means, targets, signs)

    def _calibrate(
        self,
        keys: Sequence[int],
        times: Sequence[int],
        means: Sequence[float | None],
        targets: Sequence[int],
        signs: Sequence[int],
    ) -> None:
        """Count what estimates came to; None where the target is no acceptance."""
        rows = [row for row in zip(keys, times, means, targets, signs, strict=True) if row[2] is not None]
        if rows:
            offers, periods, known, came, added = zip(*rows, strict=True)
            self.calibration.learn(periods, known, came, added)
            if self.offer_calibration is not None:
                self.offer_calibration.learn(offers, periods, known, came, added)

    def _lessons_around(self, offer: str, period: int) -> tuple[float, float]:
        """Lessons that count from before a period, and since."""
        now, half_life = self._now_period, self._options.half_life_periods
        faded = self.drift.faded(self.statistics)
        counted = faded.combined(offer, now, half_life)[2]
        since = faded.combined(offer, now, half_life, lambda of: float(of >= period))[2]
        return counted - since, since

    def _input(self, data: bytes | None, lesson: Lesson) -> tuple[str, DecisionRecord, float | None] | None:
        """(offer, record, what was estimated if that is a probability) of a lesson; None if it cannot be taught."""
        at = self.catalogue.index_of_key.get(lesson.offer_key)
        gone = self.former.get(lesson.offer_key) if at is None else None
        offer = self.catalogue.offer_ids[at] if at is not None else gone.name if gone is not None else None
        if offer is None and lesson.new is None:
            # What an offer has learnt that is no longer in the configuration can be taken back all the same.
            offer = next((o for o in self.statistics.offers if key_of(o) == lesson.offer_key), None)
        if data is None or offer is None:
            return None
        try:
            record = DecisionRecord.unpack(data)
        except RecordError:
            return None
        if record.transform_version != self.catalogue.transform.version:
            return None  # sums of two transforms never mix
        # Of an offer of which nothing is known any more, not what its targets were either: a yes or no looks like one.
        plain = lesson.old in (0, TARGET_STEPS) if at is None else self.catalogue.plain[at]
        plain = gone.terms is None if gone is not None else plain
        mean = next((choice.mean for choice in record.slate if choice.key == lesson.offer_key), None)
        # An estimate that is not the customer's own says nothing about what such estimates come to.
        own = self.catalogue.experiments.of(record.customer, record.time_ms).model
        own = own and not self.catalogue.sharing.served_by(record.customer, record.time_ms)
        return offer, record, mean if plain and own else None

    def taken_forgotten(self) -> list[tuple[int, Forgotten]]:
        """(partition, entry) of those that forget and were taken in since the last call."""
        found = [(at, entry) for at, attribution in enumerate(self.attributions) for entry in attribution.forgotten]
        for attribution in self.attributions:
            attribution.forgotten = []
        return found

    # --- policy -----------------------------------------------------------------------------------------------------

    @property
    def has_news(self) -> bool:
        """Whether a snapshot would differ from the last one: something was learnt, or has grown older by a period."""
        return bool(self._changed) or self._grown_older

    @property
    def _now_period(self) -> int:
        return self.clock_ms // self.catalogue.config.learning.period

    @property
    def _grown_older(self) -> bool:
        # An engine that says nothing gets no outcomes. Did it not forget either, it would stay silent for good.
        forgets = self._options.half_life_periods is not None
        return forgets and self._snapshot_period not in (None, self._now_period) and bool(self.statistics.offers)

    def snapshot(self, *, whole: bool = False) -> tuple[bytes, dict[str, bytes]]:
        """(head, beliefs of the offers that changed since the last snapshot, or of all).

        The prior of an offer leans on all others, so an offer that did not change is only refreshed by a whole one.
        """
        whole = whole or self._grown_older or self._beliefs is None or not self._beliefs.knows_worth
        if whole or self.lessons > 1.05 * self._averaged_lessons:
            # As dear as a fit, and the average of all lessons moves slowly: not with every snapshot.
            self._averaged_lessons = self.lessons
            self._average = average_input(self.statistics, self._now_period, self._options.half_life_periods)
        if whole or self._beliefs is None:
            beliefs = self._whole()
        else:
            beliefs = self._beliefs.renewed(self._sums, sorted(self._changed))
        self._changed.clear()
        self.policy_version += 1
        head: dict[str, Any] = {
            "version": self.policy_version,
            "transform": self.catalogue.transform.version,
            "average": self._average,
            "clock_ms": self.clock_ms,
            "lessons": self.lessons,
            "lost": self.lost,
            "let_go": sum(attribution.overflowed for attribution in self.attributions),
            "offsets": {str(at): str(offset) for at, offset in self.offsets.items()},
            "drift": self.drift.figures(self.clock_ms),
        }
        if self.calibration:
            aging = self._now_period, self._options.half_life_periods
            curve = self.calibration.curve(*aging)
            if self.offer_calibration is not None:
                curve = with_factors(curve, self.offer_calibration.factors(curve, *aging))
            head["calibration"] = curve.tolist()
        if self.catalogue.ladder.offers:
            head["points"] = self._beside_points(beliefs, whole)
        return orjson.dumps(head), {offer: pack_offer(belief) for offer, belief in beliefs.items()}

    def beliefs(
        self, options: PosteriorOptions, start: Strengths | None
    ) -> tuple[Strengths, dict[str, OfferPosterior]]:
        """What would be believed now about all offers under other options, with the strengths learnt a step further.

        Without strengths to start from, those that the sums say, whatever was believed before.
        """
        now_period, structure = self._now_period, self._structure
        if not self.statistics.offers:
            strengths = Strengths.declared(options)
        elif start is None:
            strengths = learn_strengths(self._sums, now_period, options, structure)
        else:
            strengths = learn_strengths(self._sums, now_period, options, structure, start, rounds=1)
        return strengths, Beliefs(self._sums, now_period, options, structure, strengths).of(self.catalogue.offer_ids)

    def beliefs_of(self, statistics: Statistics) -> Beliefs:
        """What would be believed now, had these sums been learnt; the prior is the one in service."""
        sums = self.shared(statistics)
        return Beliefs(sums, self._now_period, self._options, self._structure, self._strengths)

    def _beside_points(self, beliefs: Mapping[str, OfferPosterior], whole: bool) -> dict[str, Any]:
        """From this servers know how many lessons a belief weighs, and what the offer's category tells."""
        assert self._beliefs is not None, "a first snapshot is whole"
        for offer in self.catalogue.ladder.ids:
            if whole:
                others, spread = self._beliefs.by_others(offer), self._beliefs.prior_spread(offer)
                self._weighed[offer] = [0.0, pack_weights(others), pack_weights(spread)]
            if offer in beliefs:
                self._weighed[offer][0] = beliefs[offer].noise
        return {"columns": self._beliefs.dimension, "offers": self._weighed}

    @property
    def _sums(self) -> Sums:
        return self.shared(self.statistics)

    def shared(self, statistics: Statistics) -> Sums:
        """Sums in shares of what each offer is worth, with what drifted faded."""
        sums = self.drift.faded(statistics)
        return OfValue(sums, self._scales) if self._scales else sums

    def _whole(self) -> dict[str, OfferPosterior]:
        """The beliefs about all offers. What the prior is gets learnt on the way, a step at a time."""
        now_period, structure = self._now_period, self._structure
        if self._weighs_anew:
            self._strengths = learn_strengths(self._sums, now_period, self._options, structure)
            self._lessons_weighed, self._weighs_anew = self.lessons, False
        elif self.lessons >= self._lessons_weighed * STRENGTHS_LEARNT_EVERY:
            self._strengths = learn_strengths(
                self._sums, now_period, self._options, structure, self._strengths, rounds=1
            )
            self._lessons_weighed = self.lessons
        self._snapshot_period = now_period
        self._beliefs = Beliefs(self._sums, now_period, self._options, structure, self._strengths)
        return self._beliefs.of(self.catalogue.offer_ids)

    def believe_anew(self) -> None:
        """Make the next snapshot from the sums alone: lessons were taken back that must leave nothing behind."""
        self.statistics.drop_without_lessons()
        self._beliefs, self._average, self._weighs_anew = None, None, True

    def anew(self) -> "Learner":
        """A learner that knows nothing and whose checkpoint replaces that of this one."""
        fresh = Learner(self.catalogue, len(self.attributions), self.former)
        fresh.policy_version = self.policy_version
        fresh.drift.replace(self.drift)
        fresh._saved_offers = set(self._saved_offers)
        fresh._unsaved = set(self._saved_offers)
        fresh._changed = set(self._saved_offers)
        fresh._calibration_saved = self._calibration_saved
        fresh._offer_calibration_saved = self._offer_calibration_saved
        return fresh

    # --- checkpoint -------------------------------------------------------------------------------------------------

    def checkpoint(self) -> tuple[dict[str, bytes], list[str]]:
        """(fields to replace, fields to drop) since the last checkpoint; together with the older fields, the state."""
        prefix = checkpoint_prefix(self.catalogue)
        fields = {}
        for at, attribution in enumerate(self.attributions):
            # Rows repeat each other: a quarter is left, and the store, where others wait, has less to take.
            fields[f"{prefix}{_ATTRIBUTION}{at}"] = compress(attribution.to_bytes(), 1)
        fields |= {f"{prefix}{DRIFT}{offer}": compress(data, 1) for offer, data in self.drift.checkpoint().items()}
        removed = []
        if self.calibration:
            fields[prefix + _CALIBRATION] = compress(self.calibration.to_bytes(), 1)
        elif self._calibration_saved:
            removed.append(prefix + _CALIBRATION)
        self._calibration_saved = bool(self.calibration)
        if self.offer_calibration is not None:
            fields[prefix + OFFER_CALIBRATION] = compress(self.offer_calibration.to_bytes(), 1)
        elif self._offer_calibration_saved:
            removed.append(prefix + OFFER_CALIBRATION)
        self._offer_calibration_saved = self.offer_calibration is not None
        alive = set(self.statistics.offers)
        for offer in sorted(self._unsaved):
            name = f"{prefix}{_STATISTICS}{offer}"
            if offer in alive:
                fields[name] = self.statistics.subset([offer]).to_bytes()
                self._saved_offers.add(offer)
            elif offer in self._saved_offers:
                removed.append(name)
                self._saved_offers.discard(offer)
        self._unsaved.clear()
        head: dict[str, Any] = {
            "policy_version": self.policy_version,
            "lessons": self.lessons,
            "lost": self.lost,
            "strengths": self._strengths.to_json(),
            "lessons_weighed": self._lessons_weighed,
            # Whoever reads it again knows by these whether it is whole.
            "offers": len(self._saved_offers),
            "calibration": self._calibration_saved,
        }
        return fields | {prefix + _HEAD: orjson.dumps(head)}, removed

    @classmethod
    def restore(
        cls,
        catalogue: Catalogue,
        partitions: int,
        fields: Mapping[str, bytes],
        former: Mapping[int, Former] = _NONE,
    ) -> "Learner":
        """The learner that a checkpoint describes; a new one where there is none of these inputs and this period.

        Raises CheckpointError if the checkpoint is damaged: starting afresh silently would forget what was learnt.
        """
        self = cls(catalogue, partitions, former)
        prefix = checkpoint_prefix(catalogue)
        own = {name.removeprefix(prefix): data for name, data in fields.items() if name.startswith(prefix)}
        if not own:
            return self
        with _reading(prefix + _HEAD):
            head = orjson.loads(own[_HEAD])
            if head.get("calibration", _CALIBRATION in own) != (_CALIBRATION in own):
                raise CheckpointError(f"{_CALIBRATION} is missing")
            self.policy_version, self.lessons, self.lost = head["policy_version"], head["lessons"], head["lost"]
            if "strengths" in head:  # a checkpoint of 0.0 has none
                self._strengths = Strengths.from_json(head["strengths"])
                self._lessons_weighed = head["lessons_weighed"]
        for at in range(partitions):
            name = f"{_ATTRIBUTION}{at}"
            with _reading(prefix + name):
                self.attributions[at] = Attribution.from_bytes(decompress(own[name]), self.terms)
        drifts: dict[str, bytes] = {}
        for name, data in own.items():
            if name.startswith(DRIFT):
                with _reading(prefix + name):
                    drifts[name.removeprefix(DRIFT)] = decompress(data)
        with _reading(prefix + DRIFT):
            self.drift.restore(drifts)
        if _CALIBRATION in own:
            with _reading(prefix + _CALIBRATION):
                self.calibration = Calibration.from_bytes(decompress(own[_CALIBRATION]))
            self._calibration_saved = True
        self._offer_calibration_saved = OFFER_CALIBRATION in own
        if self.offer_calibration is not None and self._offer_calibration_saved:
            with _reading(prefix + OFFER_CALIBRATION):
                self.offer_calibration = OfferCalibration.from_bytes(decompress(own[OFFER_CALIBRATION]))
        elif self.offer_calibration is not None:
            # Wanted from now on: what was learnt before is not among it.
            self.offer_calibration = OfferCalibration(whole=not self.lessons)
        for name, data in sorted(own.items()):
            if name.startswith(_STATISTICS):
                with _reading(prefix + name):
                    of_one = Statistics.from_bytes(data)
                    if list(of_one.offers) != [name.removeprefix(_STATISTICS)]:
                        raise CheckpointError(f"it is of {of_one.offers}")
                    self.statistics.merge(of_one)
        self._saved_offers = set(self.statistics.offers)
        with _reading(prefix + _HEAD):
            if head.get("offers", len(self._saved_offers)) != len(self._saved_offers):
                there = len(self._saved_offers)
                raise CheckpointError(f"there are the sums of {there} offers, not of {head['offers']}")
        # Whatever the servers have, they get it whole after a restart.
        self._changed = set(self.statistics.offers)
        return self
