"""A sample of real decisions and the policy in service, read from a store."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import orjson

from engine.catalogue import Catalogue
from engine.config import parse
from engine.errors import ConfigError
from engine.learner import posterior_options, prior_policy
from engine.record import DecisionRecord, RecordError, is_decision
from engine.store.base import Store
from engine.versions_changes import Recorded
from features import Offset
from models import CheckpointError, Policy

_SLICES: Final = 16
"""Places of the log that a sample is taken from, of every partition."""


async def sample_of(store: Store, count: int, now_ms: int) -> tuple[list[Recorded], Counter[str]]:
    """(about `count` decisions, spread over the time that the log reaches back; how many more cannot be read, and why).

    Raises StoreError.
    """
    partitions = range(store.partitions)
    begin = await store.read_decisions(dict.fromkeys(partitions, Offset.ZERO), 1, 0)
    if not begin:
        return [], Counter()
    first_ms = min(entries[0].offset.ms for entries in begin.values())
    each = max(1, -(-count // (len(begin) * _SLICES)))
    found: dict[tuple[int, Offset], bytes] = {}
    for part in range(_SLICES):
        start_ms = first_ms + (now_ms - first_ms) * part // _SLICES
        after = dict.fromkeys(partitions, Offset(max(0, start_ms - 1), 0))
        # Outcomes stand between the decisions, about as many.
        for partition, entries in (await store.read_decisions(after, 2 * each, 0)).items():
            found |= {(partition, entry.offset): entry.data for entry in entries if is_decision(entry.data)}
    places = sorted(found)
    step = max(1.0, len(places) / count)
    chosen = [found[places[int(at * step)]] for at in range(int(len(places) / step))]
    return await _read(store, chosen)


async def _read(store: Store, decisions: list[bytes]) -> tuple[list[Recorded], Counter[str]]:
    catalogues: dict[str, Catalogue | None] = {}
    records: list[Recorded] = []
    unread: Counter[str] = Counter()
    for data in decisions:
        try:
            record = DecisionRecord.unpack(data)
        except RecordError:
            unread["their records cannot be read"] += 1
            continue
        version = record.config_version
        if version not in catalogues:
            text = await store.load_config(version)
            try:
                catalogues[version] = None if text is None else Catalogue.compile(parse(text, version), version, text)
            except ConfigError:
                catalogues[version] = None
        made_with = catalogues[version]
        if made_with is None:
            unread[f"version {version}, which made them, was not kept or cannot be read any more"] += 1
        else:
            records.append(Recorded(record, made_with))
    return records, unread


async def policy_of(store: Store, active: Catalogue, offers: Sequence[str]) -> Policy:
    """The policy in service, with what it knows of further offers, such as those that are no longer in force.

    The prior of the configuration in force, if nothing was learnt for it. Raises StoreError.
    """
    names = tuple(dict.fromkeys([*active.offer_ids, *offers]))
    of_active = prior_policy(active)
    version = of_active.transform_version
    prior = Policy.empty(names, of_active.dimension, posterior_options(active), version)
    head, beliefs = await store.read_policy()
    if head is None:
        return prior
    facts = orjson.loads(head)
    try:
        return prior.replaced(beliefs, facts["version"]) if facts["transform"] == prior.transform_version else prior
    except CheckpointError:
        return prior
