"""Stores: where customers' state, the logs, the policy and the learner's checkpoint live.

    base      the contract: small protocols, what they carry, the keys behind them
    memory    MemoryStore, for tests and simulation
    redis     RedisStore, for service: Redis 6.2 or later, or Valkey; one server or a cluster
    scripts   its atomic steps in Lua; keys its key names; wire its connection; readers its blocking reads
    cluster   which node of a cluster has which slot; lanes a connection to all of them; tails blocking reads there

A store knows bytes and positions, nothing of what is in them but the first bytes that compare-and-set compares. So one
contract suite (tests/store) covers every store.
"""

from engine.store.base import (
    LINKS,
    PARTS,
    Beside,
    Conflict,
    DecisionCommit,
    DecisionLog,
    FeatureWrite,
    Feed,
    Forgets,
    LeadBoard,
    LeadWrite,
    LogEntry,
    Mark,
    PartlyUnavailable,
    PolicyBoard,
    State,
    Store,
    StoreError,
    StoreFull,
    StoreUnavailable,
    partition_of,
)
from engine.store.memory import MemoryStore
from engine.store.redis import RedisStore

__all__ = [
    "LINKS",
    "PARTS",
    "Beside",
    "Conflict",
    "DecisionCommit",
    "DecisionLog",
    "FeatureWrite",
    "Feed",
    "Forgets",
    "LeadBoard",
    "LeadWrite",
    "LogEntry",
    "Mark",
    "MemoryStore",
    "PartlyUnavailable",
    "PolicyBoard",
    "RedisStore",
    "State",
    "Store",
    "StoreError",
    "StoreFull",
    "StoreUnavailable",
    "partition_of",
]
