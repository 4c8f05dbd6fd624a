"""Replay: the state that a store keeps, made again from its logs and compared byte for byte.

    event log     → fold, timeline      → features and timeline of each customer, up to the watermark of the record kept
    decision log  → attribution, lessons → the learner's checkpoint, up to its offsets
    decision log  → tallies             → ledgers: whose decisions they name, how often they were written

Each line is one class or function: entries go in, differences come out. Pure: engine.replaying reads for them.

Logs are bounded. Where one has reached its bound, or the configuration changed on the way, what differs proves nothing:
that is said, and it is not called a fault.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from struct import Struct
from typing import Final
from zlib import decompress
from zlib import error as CompressionError

import orjson

from engine import limits
from engine.attribution import Attribution, AttributionError
from engine.catalogue import Catalogue
from engine.course import Told, same_id, standing, tag_of, taken
from engine.eventlog import Arrival
from engine.forget.entry import ForgetRecord
from engine.identity import FORGET, EntityKind, Stored, advance, concerns
from engine.learner import DRIFT, OF_SNAPSHOTS, OFFER_CALIBRATION, Learner, checkpoint_prefix
from engine.ledger import Ledger, LedgerError, hash_of
from engine.links import LinksError, position_of
from engine.record import DecisionRecord, OutcomeRecord, RecordError, decision_id, unpack
from engine.rollups import Rollup, fresh_copies, is_entity, kind_of
from engine.store.base import LogEntry
from engine.timeline import Keeper
from features import HEADER_STATE_BYTES, Event, Layout, Offset
from features import RecordError as FeatureRecordError
from models import CheckpointError, seed_of
from models.offercalibration import OfferCalibration

DIFFERENCES_NAMED_MAX: Final = 20
_WATERMARK: Final = Struct("<QQ")


class Verdict(IntEnum):
    """What a replay found; the exit code of `opportune replay`."""

    EQUAL = 0
    DIFFERENT = 1
    CANNOT_TELL = 2
    """Something differs, and the logs or the configuration do not reach back to where it began; or not all of it could
    be compared."""


@dataclass
class Findings:
    """What was compared and what differs."""

    counts: dict[str, int] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    """The first DIFFERENCES_NAMED_MAX."""
    different: int = 0
    caveats: list[str] = field(default_factory=list)
    """Why a difference may prove nothing."""
    gaps: list[str] = field(default_factory=list)
    """Why something was not compared; that is a caveat, too."""

    @property
    def verdict(self) -> Verdict:
        """Equal, different, or not to be told."""
        if self.gaps or (self.different and self.caveats):
            return Verdict.CANNOT_TELL
        return Verdict.DIFFERENT if self.different else Verdict.EQUAL

    def count(self, what: str, more: int = 1) -> None:
        """Add to a count."""
        self.counts[what] = self.counts.get(what, 0) + more

    def add(self, differences: Iterable[str]) -> None:
        """Take note of differences."""
        for difference in differences:
            self.different += 1
            if len(self.differences) < DIFFERENCES_NAMED_MAX:
                self.differences.append(difference)


# --- features -------------------------------------------------------------------------------------------------------


class FeatureReplay:
    """The features of one partition's customers, folded again.

    `folded` must have been read before the records that `expect` is given: what is folded up to there is in them.
    """

    def __init__(
        self,
        layout: Layout,
        keeper: Keeper,
        folded: Offset,
        now_ms: int,
        entities: Mapping[str, EntityKind] | None = None,
        rollups: Sequence[Rollup] = (),
        begins: Offset = Offset.ZERO,
    ) -> None:
        """`begins` is before all positions of the log."""
        self._begins = begins
        self._layout = layout
        self._keeper = keeper
        self._entities = entities or {}
        self._rolled = {rollup.kind: rollup.layout for rollup in rollups}
        self._folded = folded
        self._now_ms = now_ms
        self._kept: dict[str, tuple[Offset, bytes | None]] = {}
        self._kept_parts: dict[str, bytes | None] = {}
        self._made: dict[str, Stored] = {}
        self._timelines_kept: dict[str, bytes | None] = {}
        self._timelines_made: dict[str, bytes] = {}
        self._last_ms: dict[str, int] = {}
        """When the last entry of each came that is folded."""
        self._on_line_ms: dict[str, int] = {}
        """When the last one came that belongs on a timeline."""
        self._lapsed: set[str] = set()
        """Those of whom nothing was heard for so long that state may have gone away and begun anew in between."""
        self._line_lapsed: set[str] = set()
        self._partly: set[str] = set()
        """Entities that got events of people who are forgotten: what is in the log does not make their records."""
        self._missed: dict[str, tuple[int, Offset]] = {}
        """The last event of each that is folded and not in the record, and when it came."""
        self._damaged: list[str] = []
        self._waiting: Counter[str] = Counter()
        self.elsewhere = 0
        """Customers whose record was last written from another log."""

    def strangers(self, arrivals: Sequence[Arrival]) -> list[str]:
        """Customers of these events whose record was not given yet."""
        found = dict.fromkeys(arrival.customer for arrival in arrivals)
        return [customer for customer in found if customer not in self._kept and not self._passed_over(customer)]

    def _passed_over(self, name: str) -> bool:
        """Whether it is an entity of a kind that has no features now: nothing of it is folded."""
        return is_entity(name) and kind_of(name) not in self._rolled

    def expect(self, customer: str, record: bytes | None, parts: bytes | None = None) -> None:
        """Take the record that the store keeps, and the parts of which it is made if the customer was ever linked."""
        watermark = Offset.ZERO
        try:
            if parts is not None:
                watermark = position_of(parts)
            elif record is not None:
                watermark = self._layout.header(record).watermark
        except (FeatureRecordError, LinksError) as error:
            self._damaged.append(f"features of {customer!r}: {error}")
        self.elsewhere += Offset.ZERO < watermark < self._begins
        self._kept[customer] = watermark, record
        self._kept_parts[customer] = parts
        self._made[customer] = Stored(None, None, None)

    def expect_timeline(self, customer: str, timeline: bytes | None) -> None:
        """Take the timeline that the store keeps beside that very record; without, it is not compared."""
        self._timelines_kept[customer] = timeline

    def absorb(self, arrivals: Sequence[Arrival]) -> None:
        """Fold events, in log order; every customer's record must have been given."""
        by_customer: dict[str, list[Event]] = {}
        for customer, event, arrived_ms in arrivals:
            if self._passed_over(customer):
                continue
            if event.type == FORGET and is_entity(customer):
                self._partly.add(customer)
            watermark, _ = self._kept[customer]
            if event.offset <= watermark:
                by_customer.setdefault(customer, []).append(event)
                self._heard(customer, event, arrived_ms)
            elif event.type == FORGET and watermark == Offset.ZERO and event.offset <= self._folded:
                # Nothing was left, so nothing from before is missing.
                self._missed.pop(customer, None)
                self._waiting.pop(customer, None)
            else:
                self._waiting[customer] += 1
                if event.offset <= self._folded:
                    self._missed[customer] = arrived_ms, event.offset
        for customer, events in by_customer.items():
            self._made[customer], forgotten = self._next(customer, events)
            if is_entity(customer):
                continue
            if forgotten is not None:
                self._timelines_made.pop(customer, None)
                events = [event for event in events if event.offset > forgotten]
            if self._keeper.takes(events):
                self._timelines_made[customer] = self._keeper.extended(self._timelines_made.get(customer), events)

    def _heard(self, customer: str, event: Event, arrived_ms: int) -> None:
        if _gone(self._last_ms.get(customer, arrived_ms), arrived_ms):
            self._lapsed.add(customer)
        self._last_ms[customer] = arrived_ms
        if self._keeper.takes((event,)):
            if _gone(self._on_line_ms.get(customer, arrived_ms), arrived_ms):
                self._line_lapsed.add(customer)
            self._on_line_ms[customer] = arrived_ms

    @property
    def waiting(self) -> int:
        """Events that were not folded yet."""
        return self._waiting.total()

    @property
    def lapsed(self) -> int:
        """Customers who are not compared: their state may have gone away and begun anew in between."""
        return len(self._lapsed | self._line_lapsed)

    def _next(self, customer: str, events: Sequence[Event]) -> tuple[Stored, Offset | None]:
        """What events make of a name, and the entry that forgot it, if one did."""
        made = self._made[customer]
        if is_entity(customer):
            fresh, beside = fresh_copies(made.parts, events)
            return Stored(self._rolled[kind_of(customer)].fold(made.record, fresh).record, beside, None), None
        if made.parts is None and not concerns(events, self._entities):
            return made._replace(record=self._fold(made.record, events)), None
        done = advance(self._layout, self._fold, customer, made, events, self._entities)
        return Stored(done.record or None, done.parts, done.links), done.forgotten

    def _fold(self, record: bytes | None, events: Sequence[Event]) -> bytes:
        return self._layout.fold(record, events).record

    def __len__(self) -> int:
        return len(self._kept)

    def differences(self) -> list[str]:
        """What is not as it should be, after the last entry."""
        found = list(self._damaged)
        for customer, (last_ms, last) in self._missed.items():
            if self._kept[customer][1] is not None or not _gone(last_ms, self._now_ms):
                found.append(f"features of {customer!r}: event {last} is folded but not in the record")
        for customer, (watermark, kept) in self._kept.items():
            if customer in self._partly or customer in self._lapsed:
                continue
            made, parts = self._made[customer], self._kept_parts[customer]
            if made.record != kept:
                folded = _shape(made.record)
                found.append(f"features of {customer!r} at {watermark}: {_shape(kept)} kept, {folded} folded")
            if made.parts != parts:
                folded = _shape(made.parts)
                found.append(f"parts of {customer!r} at {watermark}: {_shape(parts)} kept, {folded} folded")
        for customer, timeline in self._timelines_kept.items():
            if customer in self._lapsed or customer in self._line_lapsed:
                continue
            again, last_ms = self._timelines_made.get(customer), self._on_line_ms.get(customer, 0)
            # Without a record nothing says up to where the timeline goes; that it is missing is told above.
            told = self._kept[customer][0] > Offset.ZERO
            if told and timeline != again and not (timeline is None and _gone(last_ms, self._now_ms)):
                found.append(f"timeline of {customer!r}: {_shape(timeline)} kept, {_shape(again)} made again")
        return found


def _gone(last_ms: int, now_ms: int) -> bool:
    """Whether the state of a customer of whom the last entry came then has gone away by itself."""
    return last_ms + limits.CUSTOMER_KEY_TTL_MS <= now_ms


def _shape(data: bytes | None) -> str:
    return "nothing" if data is None else f"{len(data)} bytes ending in {data[-8:].hex()}"


# --- decisions and ledgers ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Tally:
    decisions: int = 0
    outcomes: int = 0
    newest: Offset = Offset.ZERO
    """The newest decision."""
    last: Offset = Offset.ZERO
    """The last entry."""


class DecisionReplay:
    """The decision log of one partition: its records are checked, and the ledgers against it."""

    def __init__(self, catalogue: Catalogue, partition: int, now_ms: int) -> None:
        self._catalogue = catalogue
        self._partition = partition
        self._now_ms = now_ms
        self._head = catalogue.layout.fold(None, []).record[: HEADER_STATE_BYTES - _WATERMARK.size]
        self._owner: dict[Offset, str] = {}
        self._courses: dict[tuple[Offset, int], list[Told]] = {}
        self.tallies: dict[str, _Tally] = {}
        self.configurations: dict[str, int] = {}
        """Decisions by the version of the configuration they were made with."""
        self.found: list[str] = []
        self.seeds: list[str] = []
        """Decisions whose seed is not that of their customer, state and epoch under this catalogue."""

    def absorb(self, entries: Iterable[LogEntry]) -> set[str]:
        """Take in entries in log order; returns their customers."""
        customers = set()
        for entry in entries:
            try:
                record = unpack(entry.data)
            except RecordError as error:
                self.found.append(f"entry {self._name(entry.offset)}: {error}")
                continue
            if isinstance(record, DecisionRecord):
                self._decision(entry.offset, record)
                customers.add(record.customer)
            elif isinstance(record, ForgetRecord):
                self._forget(record)
            elif (owner := self._owner.get(record.decision)) is not None:
                self._outcome(entry.offset, owner, record)
                customers.add(owner)
            else:
                about = self._name(record.decision)
                self.found.append(f"outcome {self._name(entry.offset)}: its decision {about} is not in the log")
        return customers

    def _forget(self, record: ForgetRecord) -> None:
        """What it names may still be there, waiting for the learner; the ledger is not."""
        for position in record.decisions + record.others:
            for rank in range(1, limits.SLATE_MAX + 1):
                self._courses.pop((position, rank), None)
            if (owner := self._owner.pop(position, None)) is not None:
                self.tallies.pop(owner, None)

    def _decision(self, at: Offset, record: DecisionRecord) -> None:
        tally = self.tallies.setdefault(record.customer, _Tally())
        problem = self._problem(record)
        if problem:
            self.found.append(f"decision {self._name(at)}: {problem}")
        if not record.degraded:
            state = self._head + _WATERMARK.pack(record.watermark.ms, record.watermark.seq) if record.known else b""
            if record.seed != seed_of(record.customer.encode(), state, tally.outcomes):
                self.seeds.append(f"decision {self._name(at)}: its seed is not that of its customer, state and epoch")
        self.configurations[record.config_version] = self.configurations.get(record.config_version, 0) + 1
        self._owner[at] = record.customer
        tally.decisions += 1
        tally.newest = tally.last = at

    def _problem(self, record: DecisionRecord) -> str:
        for choice in record.slate:
            if not 0.0 < choice.propensity <= 1.0:
                return f"propensity {choice.propensity} of offer key {choice.key:08x}"
            if choice.window_end_ms <= record.time_ms:
                return f"the window of offer key {choice.key:08x} ends before it begins"
        if not 0.0 <= record.nothing_propensity <= 1.0:
            return f"propensity {record.nothing_propensity} of saying nothing"
        transform = self._catalogue.transform
        if record.transform_version == transform.version and len(record.x) != transform.dimension:
            return f"{len(record.x)} inputs, the model has {transform.dimension}"
        return ""

    def _outcome(self, at: Offset, owner: str, record: OutcomeRecord) -> None:
        tally = self.tallies[owner]
        tally.outcomes += 1
        tally.last = at
        place = record.decision, record.rank
        new = Told(tag_of(record.outcome_hash, record.stage))
        self._courses[place] = taken(self._courses.get(place, []), new, record.corrects)

    def check_ledger(self, customer: str, data: bytes | None, records: Mapping[Offset, bytes | None]) -> list[str]:
        """What a ledger says that the log does not, or the other way round. `records` has those that it names."""
        tally = self.tallies[customer]
        if data is None and _gone(tally.last.ms, self._now_ms):
            return []
        try:
            ledger = Ledger.unpack(data)
        except LedgerError as error:
            return [f"ledger of {customer!r}: {error}"]
        found = []
        if (ledger.revision, ledger.epoch) != (tally.decisions + tally.outcomes, tally.outcomes):
            found.append(
                f"ledger of {customer!r}: written {ledger.revision} times, {ledger.epoch} of them by outcomes; "
                f"the log has {tally.decisions} decisions and {tally.outcomes} outcomes"
            )
        if ledger.find(tally.newest) is None:
            found.append(f"ledger of {customer!r}: does not name the newest decision {self._name(tally.newest)}")
        if len(ledger.decisions) != min(tally.decisions, limits.LEDGER_DECISIONS_MAX):
            found.append(f"ledger of {customer!r}: {len(ledger.decisions)} of {tally.decisions} decisions")
        for entry in ledger.decisions:
            where = f"ledger of {customer!r}: decision {self._name(entry.position)}"
            kept = records.get(entry.position)
            if self._owner.get(entry.position) != customer or kept is None:
                found.append(f"{where} is not in the log")
                continue
            record = DecisionRecord.unpack(kept)
            named = [(offer.key, offer.rank, offer.window_end_ms) for offer in entry.offers]
            logged = [(choice.key, rank, choice.window_end_ms) for rank, choice in enumerate(record.slate, 1)]
            asked = entry.time_ms, entry.request_hash
            if named != logged or asked != (record.time_ms, hash_of(record.request_id)):
                found.append(f"{where} is not what the log has there")
            for offer in entry.offers:
                told = self._courses.get((entry.position, offer.rank), [])
                known = len(told) == len(offer.outcomes) and all(
                    same_id(tag, kept_tag) for (tag, _), kept_tag in zip(told, offer.outcomes, strict=True)
                )
                if not known or (told and standing(told) != offer.stage):
                    found.append(f"{where}, rank {offer.rank}: its outcomes are not those of the log")
        return found

    def _name(self, at: Offset) -> str:
        return decision_id(self._partition, at)


# --- learning -------------------------------------------------------------------------------------------------------


def learning_differences(kept: Mapping[str, bytes], made: Learner) -> list[str]:
    """Where the checkpoint that is kept is not that of the learner that read the log again up to its offsets."""
    wanted, _ = made.checkpoint()
    prefix = checkpoint_prefix(made.catalogue)
    if not any(name.startswith(prefix) for name in kept):
        return []  # none was written yet
    found = []
    followed = (name for name in {*wanted, *kept} if name.startswith(prefix) and not name.startswith(prefix + DRIFT))
    for name in sorted(followed):
        old, new, what = kept.get(name), wanted.get(name), name.removeprefix(prefix)
        if what == OFFER_CALIBRATION and not _is_whole(old):
            continue  # it was wanted later than the log begins
        if made.forgot and what == "head":
            continue  # it has counted lessons of people who are not in the log any more
        if made.forgot and what.startswith("attribution:"):
            old, new = (data and _uncounted(data) for data in (old, new))
        if what == "head":
            # Snapshots are paced by the clock, and with them their number and the learning of the prior's strengths:
            # only the rest follows from the log.
            old, new = (_of_the_log(head or b"{}") for head in (old, new))
        if old != new:
            found.append(f"learner's checkpoint, {what}: {_shape(old)} kept, {_shape(new)} learnt")
    return found


def _is_whole(data: bytes | None) -> bool:
    try:
        return data is None or OfferCalibration.from_bytes(decompress(data)).whole
    except (CheckpointError, CompressionError):
        return True  # it is told that it differs


def _uncounted(data: bytes) -> bytes:
    """An attribution without its counters."""
    try:
        return Attribution.from_bytes(decompress(data)).uncounted()
    except (AttributionError, CompressionError):
        return data


def _of_the_log(head: bytes) -> bytes:
    facts = orjson.loads(head)
    return orjson.dumps({name: facts[name] for name in sorted(facts) if name not in OF_SNAPSHOTS})
