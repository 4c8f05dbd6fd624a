"""Training rows from the decision log: what was known and done, and what came of it.

One row for each offer of a decision's answer; one with rank 0 and no offer where the answer was nothing. Each decision
is read with the configuration that it was made with, so offers, channels and inputs are those of then.

    known     input:<name>  value of an input of the model, restored from the steps that decided: quantised, clipped to
                            its range; null where it was missing
              x:<column>    the steps themselves, -127 to 127: exactly what the policy saw
              context:<name>  the facts as the caller gave them
    done      offer, rank, propensity, score, policy version, …
    outcome   stage, when and what it was worth, and whether its window has closed at the end of the log

A partition of the log is read twice: once for its outcomes and its end, once for its decisions. What is in memory are
the outcomes of one partition and one batch of decisions.

Outcomes are attributed by engine.attribution itself: each decision that has some is followed through it alone, with the
clock of the log as it stood at each outcome.
"""

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet

from engine import limits
from engine.attribution import Attribution
from engine.catalogue import Catalogue
from engine.config import parse
from engine.errors import DataFolderError
from engine.lifecycle import OPEN, Stage
from engine.record import Choice, DecisionRecord, OutcomeRecord, RecordError, decision_id, unpack
from engine.store.base import LogEntry, Store
from features import Offset

BATCH_ENTRIES: Final = 4_096
_TIME: Final = pl.Datetime("ms", "UTC")
_TRIMMED: Final = "the log is as long as it may be: decisions before its beginning are gone"


@dataclass
class Written:
    """What was written, and what could not be."""

    rows: int = 0
    decisions: int = 0
    caveats: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Partition:
    """What the first reading of a partition finds."""

    end: Offset = Offset.ZERO
    clock_ms: int = 0
    outcomes: dict[Offset, list[tuple[int, LogEntry]]] = field(default_factory=dict)
    """By decision: (clock of the log, entry), in order."""
    versions: set[str] = field(default_factory=set)
    entries: int = 0
    unreadable: int = 0
    seeds: set[int] = field(default_factory=set)
    """Of the draws that were read so far, in the second reading."""

    def is_fresh(self, record: DecisionRecord) -> bool:
        """Whether no decision before was drawn by the same dice; see engine.draws."""
        if not record.by_chance:
            return True
        known = len(self.seeds)
        self.seeds.add(record.seed)
        return len(self.seeds) > known


@dataclass(frozen=True, slots=True)
class _Fate:
    """What became of one offer."""

    stage: Stage
    time_ms: int | None
    value: float
    """NaN: the declared one."""
    share: float | None
    """Of the value, that it was worth; None: it teaches nothing."""
    settled: bool
    """Whether no window of it is open any more."""


async def write(store: Store, catalogue: Catalogue, out: Path, from_ms: int | None, until_ms: int | None) -> Written:
    """Write all decisions made in a span of time. Raises StoreError, DataFolderError."""
    written = Written()
    partitions = [await _outcomes(store, partition) for partition in range(store.partitions)]
    # The log ends at one moment, in whichever partition that was heard of.
    clock_ms = max(partition.clock_ms for partition in partitions)
    for partition in partitions:
        partition.clock_ms = clock_ms
    catalogues = await _catalogues(store, catalogue, partitions, written)
    schema = _schema(catalogues)
    part = out.with_name(out.name + ".part")
    arrow = pl.DataFrame(schema=schema).to_arrow().schema
    span = (from_ms or 0, until_ms or limits.TIME_MS_MAX + 1)
    try:
        with pa.parquet.ParquetWriter(part, arrow) as writer:
            for number, partition in enumerate(partitions):
                after = Offset.ZERO
                while entries := await _next(store, number, after, partition.end):
                    after = entries[-1].offset
                    rows = _rows(number, entries, partition, catalogues, span, written)
                    if rows:
                        table = pl.DataFrame(rows, schema=schema).to_arrow()
                        writer.write_table(table.cast(arrow))
                        written.rows += len(rows)
        part.rename(out)
    except OSError as error:
        raise DataFolderError(f"{out}: cannot be written: {error.strerror or error}") from error
    unreadable = sum(partition.unreadable for partition in partitions)
    if unreadable:
        written.caveats.append(f"{unreadable:,} entries of the log cannot be read and are left out")
    if any(partition.entries >= limits.DECISION_LOG_ENTRIES_MAX for partition in partitions):
        written.caveats.append(_TRIMMED)
    return written


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision, the configuration that it was made with if that was kept, and what came of its offers."""

    record: DecisionRecord
    catalogue: Catalogue | None
    offered: Sequence[dict[str, Any]]
    """The columns of each offer's row, in rank order."""
    fresh_draw: bool = True
    """Whether it was drawn by dice of its own, see engine.draws."""

    @property
    def first(self) -> dict[str, Any]:
        """Those of the first offer; empty where the answer was nothing."""
        return self.offered[0] if self.offered else {}


async def decided(
    store: Store, catalogue: Catalogue, from_ms: int | None, until_ms: int | None, written: Written
) -> AsyncIterator[tuple[int, list[Decided]]]:
    """The decisions of a span of time in batches, each with the newest time in the log. Raises StoreError."""
    partitions = [await _outcomes(store, partition) for partition in range(store.partitions)]
    clock_ms = max(partition.clock_ms for partition in partitions)
    catalogues = await _catalogues(store, catalogue, partitions, written)
    if any(partition.entries >= limits.DECISION_LOG_ENTRIES_MAX for partition in partitions):
        written.caveats.append(_TRIMMED)
    span = (from_ms or 0, until_ms or limits.TIME_MS_MAX + 1)
    for number, partition in enumerate(partitions):
        partition.clock_ms = clock_ms
        after = Offset.ZERO
        while entries := await _next(store, number, after, partition.end):
            after = entries[-1].offset
            batch = []
            for entry in entries:
                try:
                    record = unpack(entry.data)
                except RecordError:
                    continue
                if not isinstance(record, DecisionRecord):
                    continue
                fresh = partition.is_fresh(record)
                if not span[0] <= record.time_ms < span[1]:
                    continue
                made_with = catalogues.get(record.config_version)
                fates = _fates(entry, record, partition, made_with)
                pairs = enumerate(zip(record.slate, fates, strict=True), 1)
                offered = [_offered(rank, choice, fate, made_with) for rank, (choice, fate) in pairs]
                batch.append(Decided(record, made_with, offered, fresh))
            yield clock_ms, batch


async def _next(store: Store, partition: int, after: Offset, end: Offset) -> list[LogEntry]:
    entries = (await store.read_decisions({partition: after}, BATCH_ENTRIES, 0)).get(partition, [])
    return [entry for entry in entries if entry.offset <= end]


async def _outcomes(store: Store, number: int) -> _Partition:
    found = _Partition()
    while entries := (await store.read_decisions({number: found.end}, BATCH_ENTRIES, 0)).get(number):
        for entry in entries:
            found.end = entry.offset
            found.entries += 1
            try:
                record = unpack(entry.data)
            except RecordError:
                found.unreadable += 1
                continue
            found.clock_ms = max(found.clock_ms, record.time_ms)
            if isinstance(record, OutcomeRecord):
                found.outcomes.setdefault(record.decision, []).append((found.clock_ms, entry))
            elif isinstance(record, DecisionRecord):
                found.versions.add(record.config_version)
    return found


async def _catalogues(
    store: Store, catalogue: Catalogue, partitions: Sequence[_Partition], written: Written
) -> dict[str, Catalogue]:
    """Catalogues of all decisions, by version; the given one among them."""
    found = {catalogue.version: catalogue}
    for version in sorted(set().union(*(partition.versions for partition in partitions)) - {catalogue.version}):
        text = await store.load_config(version)
        if text is None:
            written.caveats.append(f"configuration {version} was not kept: its decisions have no names and no inputs")
            continue
        found[version] = Catalogue.compile(parse(text, version), version, text)
    return found


def _schema(catalogues: Mapping[str, Catalogue]) -> dict[str, pl.DataType]:
    """Columns of the file; inputs and facts are those of all configurations."""
    schema: dict[str, pl.DataType] = {
        "decision_id": pl.String(),
        "time": _TIME,
        "customer": pl.String(),
        "channel": pl.String(),
        "placement": pl.String(),
        "request_id": pl.String(),
        "offer": pl.String(),
        "offer_key": pl.UInt32(),
        "rank": pl.Int16(),
        "slate_size": pl.Int16(),
        "propensity": pl.Float64(),
        "score": pl.Float64(),
        "acceptance_probability": pl.Float64(),
        "acceptance_probability_sd": pl.Float64(),
        "nothing_propensity": pl.Float64(),
        "policy_version": pl.Int64(),
        "config_version": pl.String(),
        "transform_version": pl.UInt32(),
        "seed": pl.UInt64(),
        "fresh_draw": pl.Boolean(),
        "degraded": pl.Int16(),
        "known": pl.Boolean(),
        "latest_event": _TIME,
        "window_end": _TIME,
        "stage": pl.String(),
        "outcome_time": _TIME,
        "value": pl.Float64(),
        "target": pl.Float64(),
        "reward": pl.Float64(),
        "window_closed": pl.Boolean(),
    }
    for catalogue in catalogues.values():
        for name, fact in catalogue.facts.items():
            kind = {"number": pl.Float64(), "text": pl.String(), "flag": pl.Boolean()}[fact.type]
            # A name that has changed its type keeps its values as texts.
            schema[f"context:{name}"] = kind if schema.get(f"context:{name}", kind) == kind else pl.String()
        for source in _inputs(catalogue):
            kind = pl.String() if catalogue.columns[source].kind in ("text", "hashed") else pl.Float64()
            name = f"input:{catalogue.columns[source].name}"
            schema[name] = kind if schema.get(name, kind) == kind else pl.String()
        schema |= {f"x:{name}": pl.Int8() for name in catalogue.input_names}
    return schema


def _inputs(catalogue: Catalogue) -> list[int]:
    """Columns of the value matrix that are inputs of the model."""
    declared = [feature.input for feature in catalogue.config.all_features]
    declared += [fact.input for fact in catalogue.config.context]
    return [at for at, given in enumerate(declared) if given is not None]


def _never_missing(catalogue: Catalogue) -> list[bool]:
    """By column of the value matrix: whether it always has a value."""
    missing = [spec.missing for layout in catalogue.layouts.values() for spec in layout.specs]
    missing += catalogue.fact_defaults.tolist()
    return [not math.isnan(value) for value in missing]


def _rows(
    partition: int,
    entries: Sequence[LogEntry],
    found: _Partition,
    catalogues: Mapping[str, Catalogue],
    span: tuple[int, int],
    written: Written,
) -> list[dict[str, Any]]:
    rows = []
    for entry in entries:
        try:
            record = unpack(entry.data)
        except RecordError:
            continue
        if not isinstance(record, DecisionRecord):
            continue
        fresh = found.is_fresh(record)
        if not span[0] <= record.time_ms < span[1]:
            continue
        written.decisions += 1
        catalogue = catalogues.get(record.config_version)
        shared = _shared(partition, entry.offset, record, catalogue) | {"fresh_draw": fresh}
        fates = _fates(entry, record, found, catalogue)
        for rank, (choice, fate) in enumerate(zip(record.slate, fates, strict=True), 1):
            rows.append(shared | _offered(rank, choice, fate, catalogue))
        if not record.slate and not record.resumed:
            rows.append(shared | {"rank": 0, "propensity": record.nothing_propensity})
    return rows


def _shared(partition: int, at: Offset, record: DecisionRecord, catalogue: Catalogue | None) -> dict[str, Any]:
    """What all rows of a decision say."""
    shared: dict[str, Any] = {
        "decision_id": decision_id(partition, at),
        "time": record.time_ms,
        "customer": record.customer,
        "request_id": record.request_id or None,
        "slate_size": len(record.slate),
        "nothing_propensity": record.nothing_propensity,
        "policy_version": record.policy_version,
        "config_version": record.config_version,
        "transform_version": record.transform_version,
        "seed": record.seed,
        "degraded": record.degraded,
        "known": record.known,
        "latest_event": record.latest_event_ms if record.known else None,
    }
    facts = orjson.loads(record.context) if record.context else {}
    shared |= {f"context:{name}": value for name, value in facts.items()}
    if catalogue is None:
        return shared
    shared["channel"] = catalogue.config.channels[record.channel].id
    shared["placement"] = catalogue.placement_name(record.channel, record.placement) or None
    if record.transform_version == catalogue.transform.version and len(record.x) == catalogue.transform.dimension:
        x = np.frombuffer(record.x, np.int8)
        shared |= {f"x:{name}": step for name, step in zip(catalogue.input_names, x.tolist(), strict=True)}
        values = catalogue.transform.restore(x[np.newaxis], _never_missing(catalogue))[0].tolist()
        for source in _inputs(catalogue):
            column, value = catalogue.columns[source], values[source]
            given: float | str | None = None if math.isnan(value) else value
            if given is not None and column.categories:
                given = column.categories[int(value)]
            elif given is not None and column.kind == "hashed":
                given = str(facts.get(column.name) or f"#{value:.0f}")
            shared[f"input:{column.name}"] = given
    return shared


def _offered(rank: int, choice: Choice, fate: _Fate, catalogue: Catalogue | None) -> dict[str, Any]:
    """What the row of one offer says."""
    at = None if catalogue is None else catalogue.index_of_key.get(choice.key)
    declared = catalogue.offers[at].value if catalogue is not None and at is not None else None
    worth = declared if math.isnan(fate.value) else fate.value
    terms = None if catalogue is None else catalogue.terms.get(choice.key)
    # Where rewards are learnt from, the value that was reported is in the share already.
    unit = worth if terms is None or terms.weights is None else declared
    reward = None if fate.share is None else fate.share * unit if fate.share and unit is not None else 0.0
    return {
        "offer": catalogue.offer_ids[at] if catalogue is not None and at is not None else None,
        "offer_key": choice.key,
        "rank": rank,
        "propensity": choice.propensity,
        "score": choice.score,
        "acceptance_probability": min(max(choice.mean, 0.0), 1.0),
        "acceptance_probability_sd": choice.sd,
        "window_end": choice.window_end_ms,
        "stage": fate.stage.name.lower(),
        "outcome_time": fate.time_ms,
        "value": worth,
        "target": fate.share,
        "reward": reward,
        "window_closed": fate.settled,
    }


def _fates(entry: LogEntry, record: DecisionRecord, found: _Partition, catalogue: Catalogue | None) -> list[_Fate]:
    """What became of each offer of a decision, at the end of the log."""
    if any(not choice.window_end_ms for choice in record.slate):
        # Nothing was offered (engine.silent), so nothing comes of it.
        return [_Fate(Stage.SERVED, None, math.nan, None, True)] * len(record.slate)
    terms = {} if catalogue is None else catalogue.terms
    stages = [Stage.SERVED] * len(record.slate)
    told: list[tuple[int | None, float]] = [(None, math.nan)] * len(record.slate)
    waits_ms = [0 if (own := terms.get(c.key)) is None else own.waits_until_ms(record.time_ms) for c in record.slate]
    ends_ms = [max(choice.window_end_ms, until_ms) for choice, until_ms in zip(record.slate, waits_ms, strict=True)]
    attribution = Attribution(terms)
    attribution.absorb([entry])
    for clock_ms, outcome in found.outcomes.get(entry.offset, []):
        if clock_ms >= max(ends_ms, default=0) + limits.LATE_OUTCOME_MS_MAX:
            break  # it was no longer followed
        attribution.clock_ms = clock_ms
        attribution.absorb([outcome])
        after = attribution.stages(entry.offset)
        item = OutcomeRecord.unpack(outcome.data)
        at = item.rank - 1
        if after and 0 <= at < len(after) and after[at] == item.stage and stages[at] != item.stage:
            told[at] = item.time_ms, item.value if not math.isnan(item.value) else told[at][1]
        stages = after or stages
    fates = []
    for rank, (stage, choice) in enumerate(zip(stages, record.slate, strict=True), 1):
        closed = Stage.EXPIRED if stage in OPEN and choice.window_end_ms <= found.clock_ms else stage
        share = attribution.share(entry.offset, rank, closed)
        end_ms = ends_ms[rank - 1] if stage == Stage.ACCEPTED else choice.window_end_ms
        settled = end_ms <= found.clock_ms
        fates.append(_Fate(closed, *told[rank - 1], share, settled))
    return fates
