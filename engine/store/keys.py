"""The names of the keys (table in base.py), built once where they do not depend on a customer."""

from collections.abc import Sequence
from typing import Final
from zlib import crc32

from engine.store.base import LINKS, PARTS, TIMELINE

DEAD: Final = b"dead"
POLICY: Final = b"policy"
POLICY_CHANGES: Final = b"{policy}:changes"
"""The braces put it into the slot of `policy`, so that both change in one atomic step on a cluster too."""
POLICY_KEPT: Final = b"{policy}:kept"
POLICY_HEAD: Final = b"_head"
LEARNER: Final = b"learner"
KAFKA: Final = b"kafka"
LAYOUTS: Final = b"layouts"
LEAD_LISTS: Final = b"leadlists"
META: Final = b"meta"
BUDGETS: Final = b"budgets"
VERSIONS: Final = b"versions"
VERSIONS_TRAIL: Final = b"{versions}:trail"
"""In the slot of `versions`, so that both change in one atomic step on a cluster too."""


def config_key(version: str) -> bytes:
    """Key of a configuration."""
    return b"config:" + version.encode()


def budget_key(account: str) -> bytes:
    """Key of the leases of a budget in a period."""
    return b"budget:" + account.encode()


class Keys:
    """Keys that carry the hash tag of a partition."""

    def __init__(self, partitions: int) -> None:
        assert partitions > 0
        tags = [b"{p%d}" % partition for partition in range(partitions)]
        self.events = [tag + b"events" for tag in tags]
        self.decisions = [tag + b"decisions" for tag in tags]
        self.folded = [tag + b"folded" for tag in tags]
        self.marks = [tag + b"marks" for tag in tags]
        self.forgets = [tag + b"forgets" for tag in tags]
        self._leads = [tag + b"leads:" for tag in tags]
        self._queues = [tag + b"queue:" for tag in tags]
        self._partitions = partitions
        self._features = [tag + b"f:" for tag in tags]
        self._receipts = [tag + b"r:" for tag in tags]
        self._ledger = [tag + b"l:" for tag in tags]
        self._accounts = [tag + b"b:" for tag in tags]
        self._beside = {kind: [tag + kind.encode() + b":" for tag in tags] for kind in (PARTS, LINKS, TIMELINE)}

    # These spell partition_of() out, so that a name is encoded once on the hot path.

    def features(self, customer: str) -> bytes:
        """Key of a customer's features."""
        name = customer.encode()
        return self._features[crc32(name) % self._partitions] + name

    def beside(self, kind: str, customer: str) -> bytes:
        """Key of a value beside a customer's features."""
        name = customer.encode()
        return self._beside[kind][crc32(name) % self._partitions] + name

    def timeline(self, customer: str) -> bytes:
        """Key of a customer's timeline."""
        return self.beside(TIMELINE, customer)

    def ledger_and_log(self, customer: str) -> tuple[bytes, bytes]:
        """Key of a customer's ledger and key of the decision log of the same partition."""
        name = customer.encode()
        partition = crc32(name) % self._partitions
        return self._ledger[partition] + name, self.decisions[partition]

    def accounts(self, account: str) -> list[bytes]:
        """Keys of what is taken of a budget in a period, by partition."""
        return [prefix + account.encode() for prefix in self._accounts]

    def account_of(self, customer: str, account: str) -> bytes:
        """The one of these in a customer's partition."""
        return self._accounts[crc32(customer.encode()) % self._partitions] + account.encode()

    def event_log(self, customer: str) -> bytes:
        """Key of the event log of a customer's partition."""
        return self.events[crc32(customer.encode()) % self._partitions]

    def receipt(self, partition: int, request: str) -> bytes:
        """Key of the receipt of a request to forget."""
        return self._receipts[partition] + request.encode()

    def leads(self, list_id: str) -> bytes:
        """Key of the leads of a list."""
        name = list_id.encode()
        return self._leads[crc32(name) % self._partitions] + name

    def queue(self, list_id: str, seller: str) -> bytes:
        """Key of a seller's queue of a list, which has no '/' in its name; "": the queue for anybody."""
        name = list_id.encode()
        return self._queues[crc32(name) % self._partitions] + name + b"/" + seller.encode()

    def state_of(self, customers: Sequence[str]) -> list[bytes]:
        """Keys of the features of all customers, then keys of the ledgers of all."""
        partitions, features, ledger = self._partitions, self._features, self._ledger
        names = [customer.encode() for customer in customers]
        homes = [crc32(name) % partitions for name in names]
        keys = [features[home] + name for home, name in zip(homes, names, strict=True)]
        keys += [ledger[home] + name for home, name in zip(homes, names, strict=True)]
        return keys
