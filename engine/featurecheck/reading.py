"""Reading: what the check looks at, out of a store that may serve meanwhile, and out of Kafka if events are there.

In this order, because the features are read as of the newest thing that the logs hold: decisions, events, dead letters,
customers. Every part is bounded (thresholds.py). A log that is too long is read by whole partitions: these are a
sample of the customers with all that happened to them. Customers are those that SCAN comes upon first, which is as the
hash of their names has it.
"""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final, Protocol

import redis
import redis.asyncio
from rich.console import Console

from engine import limits
from engine.catalogue import Catalogue
from engine.config_base import CUSTOMER
from engine.errors import ConfigError, DataFolderError, Unavailable
from engine.eventlog import EventLog, StreamLog
from engine.featurecheck import thresholds as at
from engine.featurecheck.arrivals import Arrivals, type_findings
from engine.featurecheck.drift import DecisionSample, columns_of, decision_findings, drift_findings
from engine.featurecheck.rejected import Letters, rejected_findings
from engine.featurecheck.report import Report
from engine.featurecheck.values import CustomerSample, feature_findings, record_findings
from engine.gateway_letters import letter_type
from engine.identity import is_control
from engine.links import moved_to
from engine.rollups import is_entity
from engine.store.base import EVENTS_IN_KAFKA, Store, StoreError
from engine.store.keys import DEAD, Keys
from engine.store.redis import RedisStore
from features import Offset

_CUSTOMERS_A_READ: Final = 500
_ENTRIES_A_READ: Final = 1_000
_ANSWER_S_MAX: Final = 10.0
_FEATURES_KEY: Final = re.compile(rb"\{p[0-9]+\}f:(.*)", re.DOTALL)

Client = Any
"""redis.asyncio.Redis or RedisCluster, whose types differ between versions."""


class _Arrived(EventLog, Protocol):
    """The log of what was published."""

    async def lengths(self) -> list[int]:
        """Entries of each partition, at most."""
        ...

    def letters(self) -> AsyncIterator[tuple[int, bytes, str]]:
        """(when it came in ms since 1970 UTC, payload, reason) of what was refused, newest first."""
        ...


class _Streams(StreamLog):
    """That of a store, with what its protocols do not do: lengths and dead letters."""

    def __init__(self, store: Store, client: Client) -> None:
        super().__init__(store)
        self._client = client

    async def lengths(self) -> list[int]:
        return await _lengths(self._client, Keys(self.partitions).events)

    async def letters(self) -> AsyncIterator[tuple[int, bytes, str]]:
        newest, count = b"+", _ENTRIES_A_READ
        while count == _ENTRIES_A_READ:
            batch = await self._client.xrevrange(DEAD, newest, b"-", count=_ENTRIES_A_READ)
            for position, fields in batch:
                yield int(position.partition(b"-")[0]), fields[b"payload"], fields[b"reason"].decode()
                newest = b"(" + position
            count = len(batch)


async def check_at(
    url: str, kafka: str | None, catalogue: Catalogue, customers_max: int, now_ms: int | None
) -> Report:
    """Check what the store at a URL holds; see `check`. Raises OpportuneError if it cannot be read.

    `kafka` names the brokers of its event log, if that is there; without, events are not looked at.
    """
    try:
        async with AsyncExitStack() as closing:
            client = await client_of(url)
            closing.push_async_callback(client.aclose)
            store = await RedisStore.open(url, limits.PARTITIONS)
            closing.push_async_callback(store.close)
            closing.enter_context(Console(stderr=True).status("reading the logs and a sample of the customers"))
            log: _Arrived | None = _Streams(store, client)
            if kafka is not None:
                from engine.kafka.eventlog import TopicLog  # brings the client library, which most have no use for

                log = await closing.enter_async_context(TopicLog.opened(kafka, store))
            elif await store.remember(EVENTS_IN_KAFKA) is not None:
                log = None
            return await check(catalogue, store, client, log, customers_max, now_ms)
    except (StoreError, redis.RedisError) as error:
        raise Unavailable(f"the store cannot be read: {error}") from error
    except ValueError as error:
        raise DataFolderError(f"the store holds what this version cannot read: {error}") from error


async def client_of(url: str) -> Client:
    """A client of the server or the cluster at a URL, of which the first address is asked which of the two it is.

    Raises ConfigError if it is no URL, redis.RedisError if nobody answers there.
    """
    waits: dict[str, Any] = {"socket_timeout": _ANSWER_S_MAX, "socket_connect_timeout": _ANSWER_S_MAX}
    first = re.sub(r",[^/]*", "", url) if url.startswith("redis") else url
    try:
        client = redis.asyncio.Redis.from_url(first, **waits)
    except ValueError as error:
        raise ConfigError(f"the store's URL: {error}") from error
    try:
        clustered = (await client.info("cluster")).get("cluster_enabled")
    except BaseException:
        await client.aclose()
        raise
    if not clustered:
        return client
    await client.aclose()
    return redis.asyncio.RedisCluster.from_url(first, **waits)


async def check(
    catalogue: Catalogue,
    store: Store,
    client: Client,
    log: _Arrived | None,
    customers_max: int,
    now_ms: int | None,
) -> Report:
    """Read, measure and judge.

    `client` is a client of the same server, for what the store's protocols do not do: SCAN and the lengths of logs.
    `log` is where events came in; None: it is not looked at.
    `now_ms` is the time at which features are read and silences measured; None, for an engine that does not run, is the
    time of the newest event or decision.
    """
    caveats: list[str] = []
    decisions = await _decisions(catalogue, store, client, caveats)
    arrivals, read_share = Arrivals(catalogue.config), 1.0
    newest_letter_ms = 0
    if log is not None:
        read_share = await _events(arrivals, log, caveats)
        newest_letter_ms = await _newest_letter_ms(log)
    if now_ms is None:
        now_ms = max([decisions.newest_ms, *arrivals.newest_ms.values()])
    newest_arrival_ms = max(decisions.newest_arrival_ms, arrivals.newest_arrival_ms, newest_letter_ms)
    recent_since_ms = newest_arrival_ms - at.REJECTED_RECENT_MS
    letters = Letters(recent_since_ms)
    if log is not None:
        await _letters(letters, log, caveats)
    sample = await _customers(catalogue, store, client, customers_max, now_ms, caveats)

    features = sample.features(catalogue.config, arrivals.newest_ms)
    types = arrivals.figures(now_ms)
    drift = decisions.drift(columns_of(catalogue))
    if not drift:
        caveats.append(
            f"drift: {decisions.kept:,} decisions with the inputs of this configuration, "
            f"at least {at.DRIFT_DECISIONS_MIN} are needed"
        )
    if log is None:
        caveats.append(
            "event types and refused events: they are in topics of Kafka, name its brokers with --kafka HOST:PORT; the "
            "records of the customers say how many events were folded, late and double"
        )
    elif not arrivals.events:
        caveats.append("event types: the log holds no event")
    groups = letters.figures()
    findings = record_findings(sample.records()) + decision_findings(decisions)
    caveats += [
        f"features of each {rollup.kind} are not looked at: {', '.join(rollup.layout.names)}"
        for rollup in catalogue.rollups
    ]
    of_customers = [feature for feature in catalogue.config.all_features if feature.entity == CUSTOMER]
    for figures, feature in zip(features, of_customers, strict=True):
        findings += feature_findings(figures, feature, looked=log is not None)
    if log is not None:
        for kind in types:
            findings += type_findings(kind, now_ms)
        findings += rejected_findings(groups, arrivals.arrived_since(recent_since_ms) / read_share)
    for moved in drift:
        findings += drift_findings(moved, decisions.newest_ms, catalogue.config.learning.half_life)
    return Report(
        configuration=catalogue.config.name,
        version=catalogue.version,
        now_ms=now_ms,
        records=sample.records(),
        features=features,
        events=None if log is None else types,
        rejected=None if log is None else groups,
        decisions={
            "read": decisions.kept,
            "of_other_inputs": decisions.other_inputs,
            "from_unreadable_features": decisions.unreadable,
            "of_unknown_customers": decisions.unknown,
            "damaged_entries": decisions.damaged,
        },
        drift=drift,
        findings=findings,
        caveats=caveats,
    )


async def _decisions(catalogue: Catalogue, store: Store, client: Client, caveats: list[str]) -> DecisionSample:
    lengths = await _lengths(client, Keys(store.partitions).decisions)
    partitions = _partitions(lengths, at.DECISIONS_READ_MAX)
    entries = sum(lengths[partition] for partition in partitions)
    stride = max(1, -(-entries // at.DECISIONS_COMPARED_MAX))
    sample = DecisionSample(catalogue, stride)
    for partition in partitions:
        after, left = Offset.ZERO, lengths[partition]
        while left > 0:
            count = min(left, _ENTRIES_A_READ)
            batch = (await store.read_decisions({partition: after}, count, 0)).get(partition)
            if not batch:
                break
            for entry in batch:
                sample.add(entry)
            after, left = batch[-1].offset, left - len(batch)
    if stride > 1 or len(partitions) < len(lengths):
        caveats.append(
            f"decisions: one in {stride} was compared, of {len(partitions)} of {len(lengths)} partitions, evenly in "
            f"order of the log"
        )
    if sample.other_inputs:
        caveats.append(f"drift: {sample.other_inputs:,} decisions were made with other inputs of the model")
    return sample


async def _events(arrivals: Arrivals, log: _Arrived, caveats: list[str]) -> float:
    """The share of the log that was read."""
    lengths = await log.lengths()
    partitions = _partitions(lengths, at.EVENTS_READ_MAX)
    foreign = 0
    for partition in partitions:
        after, left = Offset.ZERO, lengths[partition]
        while left > 0 and (piece := await log.read(partition, after)) is not None:
            for customer, event, arrived_ms in piece.arrivals:
                if not is_control(event.type) and not is_entity(customer):
                    arrivals.add(event, arrived_ms)
            foreign += piece.entries - len(piece.arrivals)
            after, left = piece.reached, left - piece.entries
    if len(partitions) < len(lengths):
        caveats.append(f"event types: {len(partitions)} of {len(lengths)} partitions of the event log were read")
    if foreign:
        caveats.append(f"event types: {foreign:,} entries of the event log are no events")
    read = sum(lengths[partition] for partition in partitions)
    return read / sum(lengths) if read else 1.0


async def _letters(letters: Letters, log: _Arrived, caveats: list[str]) -> None:
    async for arrived_ms, payload, reason in log.letters():
        if letters.letters >= at.LETTERS_READ_MAX:
            caveats.append(f"refused events: only the newest {letters.letters:,} were read")
            break
        letters.add(arrived_ms, letter_type(payload), reason)


async def _newest_letter_ms(log: _Arrived) -> int:
    async for arrived_ms, _, _ in log.letters():
        return arrived_ms
    return 0


async def _customers(
    catalogue: Catalogue, store: Store, client: Client, customers_max: int, now_ms: int, caveats: list[str]
) -> CustomerSample:
    sample = CustomerSample(catalogue.layout, now_ms)
    waiting: set[str] = set()
    seen: set[str] = set()
    more = False
    async for key in client.scan_iter(match=b"{p*}f:*", count=_ENTRIES_A_READ):
        match = _FEATURES_KEY.fullmatch(key)
        if match is None:
            continue
        if len(seen) >= customers_max:
            more = True
            break
        # SCAN may come upon a key twice while the server's table grows.
        customer = match[1].decode()
        if customer not in seen and not is_entity(customer):
            seen.add(customer)
            waiting.add(customer)
        if len(waiting) >= _CUSTOMERS_A_READ:
            await _read(sample, store, list(waiting))
            waiting.clear()
    await _read(sample, store, list(waiting))
    if more:
        caveats.append(f"features: a sample of {sample.customers:,} customers was read, there are more")
    if sample.customers < at.CUSTOMERS_MIN:
        caveats.append(
            f"features: {sample.customers:,} customers, at least {at.CUSTOMERS_MIN} are needed to judge values"
        )
    return sample


async def _read(sample: CustomerSample, store: Store, customers: list[str]) -> None:
    # A customer may have gone since SCAN named it, or be a name that belongs to another one.
    records = await store.read_features(customers)
    sample.add([record for record in records if record is not None and not moved_to(record)])


async def _lengths(client: Client, logs: Sequence[bytes]) -> list[int]:
    return [int(await client.xlen(log)) for log in logs]


def _partitions(lengths: Sequence[int], entries_max: int) -> list[int]:
    """The first partitions that hold so many entries at most together, but one at least."""
    chosen: list[int] = []
    for partition, length in enumerate(lengths):
        if not chosen or sum(lengths[at] for at in chosen) + length <= entries_max:
            chosen.append(partition)
    return chosen

