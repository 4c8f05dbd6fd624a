"""Replaying: what engine.replay compares, read from a store.

The store may serve meanwhile. Logs only grow; records, ledgers and the checkpoint are read before the entries that they
are compared with are looked for; and a customer whose ledger was written in between is passed over.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from engine import limits
from engine.catalogue import Catalogue
from engine.children import end_earlier_workers
from engine.config import parse
from engine.datafolder import DataFolder, read_state
from engine.embedded import EmbeddedStore, find_binary
from engine.errors import DataFolderError
from engine.eventlog import EventLog, StreamLog
from engine.learner import Learner, Position
from engine.ledger import DecisionEntry, Ledger, LedgerError
from engine.replay import DecisionReplay, FeatureReplay, Findings, learning_differences
from engine.store.base import EVENTS_IN_KAFKA, PARTS, Store
from engine.versions_former import former_offers
from features import Offset

_CUSTOMERS_A_READ: Final = 500
_READS_MAX: Final = 20
_ELSEWHERE: Final = "data folder {} holds no store: its engine was given one of its own, so give its URL with --redis"

Progress = Callable[[str, int], None]
"""Called with what was read and how many entries it was; 0 when a partition is done."""


async def replay(
    catalogue: Catalogue,
    store: Store,
    progress: Progress = lambda what, entries: None,
    *,
    events: EventLog | None = None,
    event_log_entries_max: int = limits.EVENT_LOG_ENTRIES_MAX,
    decision_log_entries_max: int = limits.DECISION_LOG_ENTRIES_MAX,
    now_ms: int | None = None,
) -> Findings:
    """Compare all that a store keeps with its logs; `events` is the log of events if that is not in the store.

    Raises StoreError, BrokerError, CheckpointError for an unreadable checkpoint.
    """
    findings = Findings()
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    streams = StreamLog(store, event_log_entries_max)
    if events is not None:
        if any(position > Offset.ZERO for position in await streams.folded()):
            findings.gaps.append("events came by the streams of the store before Kafka: those were not folded again")
    elif await store.remember(EVENTS_IN_KAFKA) is not None:
        findings.gaps.append("the events are in Kafka: without --kafka state is not folded again")
    events = events or streams
    folded = await events.folded()
    for partition in range(events.partitions):
        again = FeatureReplay(
            catalogue.layout,
            catalogue.keeper,
            folded[partition],
            now_ms,
            catalogue.entity_attributes,
            catalogue.rollups,
            events.begins,
        )
        read = await _features(store, events, partition, again, findings, progress)
        if await events.cut(partition, read):
            findings.caveats.append(_trimmed("event", partition, read))
        if again.elsewhere:
            findings.caveats.append(f"partition {partition}: {again.elsewhere} customers have states of an earlier log")
    if any(name.startswith("job:") for name in await store.marks(0)):
        findings.caveats.append("history was loaded from files: the event log alone does not make those states")
    kept = await store.load_checkpoint()
    read_up_to = Learner.restore(catalogue, store.partitions, kept).offsets
    learner = Learner(catalogue, store.partitions, await former_offers(store, catalogue))
    configurations: dict[str, int] = {}
    seeds: list[str] = []
    for partition in range(store.partitions):
        audit = DecisionReplay(catalogue, partition, now_ms)
        entries = await _decisions(store, partition, audit, learner, read_up_to[partition], findings, progress)
        if entries >= decision_log_entries_max:
            findings.caveats.append(_trimmed("decision", partition, entries))
        for version, count in audit.configurations.items():
            configurations[version] = configurations.get(version, 0) + count
        seeds += audit.seeds
        findings.add(audit.found)
    findings.count("lessons learnt again", learner.lessons)
    findings.add(learning_differences(kept, learner))
    for version, count in sorted(configurations.items()):
        if version != catalogue.version and (what := await _changed(catalogue, store, version)):
            # Their seeds are not compared, nor what was learnt from them where the inputs were others.
            findings.gaps.append(f"{count} decisions were made with configuration {version}: {what}")
    if set(configurations) <= {catalogue.version}:
        findings.add(seeds)
    return findings


def _trimmed(log: str, partition: int, entries: int) -> str:
    return (
        f"the {log} log of partition {partition} has {entries} entries: it may no longer reach back to the beginning"
    )


async def _changed(catalogue: Catalogue, store: Store, version: str) -> str:
    """What another configuration means differently; "" if nothing that replay depends on."""
    text = await store.load_config(version)
    if text is None:
        return "it was not kept"
    other = Catalogue.compile(parse(text, version), version, text)
    pairs = {
        "features": (_versions(other), _versions(catalogue)),
        "attributes on the timeline": (other.keeper.shapes, catalogue.keeper.shapes),
        "model inputs": (other.transform.version, catalogue.transform.version),
        "offers": (set(other.offer_ids) - set(catalogue.offer_ids), set()),
        "learning period": (other.config.learning.period, catalogue.config.learning.period),
    }
    names = [name for name, (theirs, ours) in pairs.items() if theirs != ours]
    return f"other {', '.join(names)}" if names else ""


def _versions(catalogue: Catalogue) -> dict[str, int]:
    return {kind: layout.version for kind, layout in catalogue.layouts.items()}


async def _kept(store: Store, customers: Sequence[str]) -> dict[str, tuple[bytes | None, bytes | None]]:
    """(features, parts) of each customer, of one moment: read again where somebody wrote in between."""
    found: dict[str, tuple[bytes | None, bytes | None]] = {}
    left = list(customers)
    for _ in range(_READS_MAX):
        before = await store.read_beside(PARTS, left)
        records = await store.read_features(left)
        after = await store.read_beside(PARTS, left)
        found.update((name, (record, parts)) for name, record, parts in zip(left, records, after, strict=True))
        left = [name for name, old, new in zip(left, before, after, strict=True) if old != new]
        if not left:
            break
    return found


async def _features(
    store: Store, events: EventLog, partition: int, again: FeatureReplay, findings: Findings, progress: Progress
) -> int:
    after, read = Offset.ZERO, 0
    while (piece := await events.read(partition, after)) is not None:
        for start in range(0, len(piece.arrivals), limits.INGEST_BATCH_MAX):
            batch = piece.arrivals[start : start + limits.INGEST_BATCH_MAX]
            customers = again.strangers(batch)
            earlier = await _kept(store, customers)
            timelines = dict(zip(customers, await store.read_timelines(customers), strict=True))
            for customer, kept in (await _kept(store, customers)).items():
                again.expect(customer, *kept)
                if kept == earlier[customer]:  # else an event came in between, and they are of different moments
                    again.expect_timeline(customer, timelines[customer])
            again.absorb(batch)
        after, read = piece.reached, read + piece.entries
        progress("events", piece.entries)
    progress("events", 0)
    findings.count("events folded again", read - again.waiting)
    findings.count("events not folded yet", again.waiting)
    findings.count("customers' features compared", len(again) - again.lapsed)
    if again.lapsed:
        findings.count("customers not compared, silent for 400 days in between", again.lapsed)
    findings.add(again.differences())
    return read


async def _decisions(
    store: Store,
    partition: int,
    audit: DecisionReplay,
    learner: Learner,
    up_to: Offset,
    findings: Findings,
    progress: Progress,
) -> int:
    after, read = Offset.ZERO, 0

    async def to_the_end() -> set[str]:
        nonlocal after, read
        touched = set()
        while batch := (await store.read_decisions({partition: after}, limits.LEARN_BATCH_MAX, 0)).get(partition):
            touched |= audit.absorb(batch)
            due = learner.absorb(partition, [entry for entry in batch if entry.offset <= up_to])
            places: list[Position] = list(dict.fromkeys(item.position for item in due))
            learner.teach(due, dict(zip(places, await store.entries(places), strict=True)))
            after, read = batch[-1].offset, read + len(batch)
            progress("decisions", len(batch))
        return touched

    await to_the_end()
    customers = list(audit.tallies)
    for start in range(0, len(customers), _CUSTOMERS_A_READ):
        chunk = customers[start : start + _CUSTOMERS_A_READ]
        ledgers = dict(zip(chunk, [ledger for _, ledger in await store.read(chunk)], strict=True))
        # Of a customer who was decided for meanwhile, log and ledger are of different moments.
        moving = await to_the_end()
        named = [entry.position for data in ledgers.values() for entry in _named(data)]
        records = dict(zip(named, await store.entries([(partition, at) for at in named]), strict=True))
        for customer, data in ledgers.items():
            if customer not in moving:
                findings.add(audit.check_ledger(customer, data, records))
                findings.count("ledgers compared")
    progress("decisions", 0)
    findings.count("decisions and outcomes read again", read)
    return read


def _named(data: bytes | None) -> Sequence[DecisionEntry]:
    try:
        return Ledger.unpack(data).decisions
    except LedgerError:
        return ()


# --- the store to read ----------------------------------------------------------------------------------------------


@contextmanager
def store_of(data_path: Path, binary: Path | None = None, *, make: bool = False) -> Iterator[str]:
    """URL of the store of a data folder: the one that runs, else one that is started until the end of the block.

    With `make` one that is not there yet is made. Raises DataFolderError if there is none otherwise, or its engine has
    its store elsewhere, ConfigError if there is no server to start.
    """
    new = not (data_path / "format").exists()
    if new and not make:
        raise DataFolderError(f"data folder {data_path}: there is none, or no engine has used it")
    if new:
        binary = find_binary(binary)  # without one no folder is made
    try:
        folder = DataFolder(data_path)
    except DataFolderError:
        # In use: by an engine that says where its store is, or by something that does not.
        state = read_state(data_path)
        if not state:
            raise
        if not state.get("redis"):
            raise DataFolderError(_ELSEWHERE.format(data_path)) from None
        yield str(state["redis"])
        return
    with folder:
        if not new and not any(folder.store_dir.iterdir()):
            raise DataFolderError(_ELSEWHERE.format(data_path))
        end_earlier_workers(folder.earlier)
        store = EmbeddedStore(folder, binary)
        store.start()
        try:
            store.wait_ready()
            folder.forget_earlier()
            yield store.url
        finally:
            store.stop()
            folder.clear_state()
