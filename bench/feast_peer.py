"""The Feast side of `features.p99_vs_feast`: run by its path, in an environment that has Feast and nothing of ours.

    python -I feast_peer.py FOLDER SOCKET      FOLDER holds customers.json, names.json and values.npy: a row a customer

Writes the rows through Feast's own API into the Redis server on a unix socket and says `ready`. Then each line on
stdin, "WAY CALLS", is answered by one line of JSON: how long each call took, in µs. Ends with stdin.

What is done for Feast: all features in one feature view, so that a call is one HMGET; a registry that is never read
again; hiredis; the unix socket; a garbage collector that need not look at what was loaded; a warm-up. It says which
ways to ask there are, so that the fastest can be taken. The answer of a call is Feast's; `to_dict`, which makes Python
numbers of it, is not counted.
"""

import gc
import json
import os
import random
import sys
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

os.environ["FEAST_USAGE"] = "False"
warnings.simplefilter("ignore")

import feast  # noqa: E402  after what it reads when it is imported
import hiredis  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from feast.repo_config import RegistryConfig  # noqa: E402
from feast.types import Float64  # noqa: E402

WARM_UP_CALLS = 200
CHECKED_CUSTOMERS = 20
VIEW = "state"
WAYS = {
    "service": "by feature service",
    "references": "by list of references",
    "precomputed": "by feature service with precompute_online",
}


class Peer:
    """A feature store with rows in it."""

    def __init__(self, folder: Path, socket: str) -> None:
        self.customers: list[str] = json.loads((folder / "customers.json").read_text())
        self.names: list[str] = json.loads((folder / "names.json").read_text())
        self._values = np.load(folder / "values.npy")
        self._dice = random.Random(1)
        connection = f"localhost:6379,unix_socket_path={socket}"
        config = feast.RepoConfig(
            project="bench",
            provider="local",
            registry=RegistryConfig(path=str(folder / "registry.db"), cache_ttl_seconds=0),  # 0: for ever
            online_store={"type": "redis", "connection_string": connection},
            offline_store={"type": "file"},
            entity_key_serialization_version=3,
        )
        self._store = feast.FeatureStore(config=config)
        self._define(folder)
        self._write()
        references = [f"{VIEW}:{name}" for name in self.names]
        self._asked: dict[str, Any] = {
            "service": self._store.get_feature_service("plain"),
            "references": references,
            "precomputed": self._store.get_feature_service("whole"),
        }

    def _define(self, folder: Path) -> None:
        # A view must have a source, which is not read here.
        frame = pd.DataFrame({"customer_id": ["none"], "event_timestamp": [datetime.now(UTC)]})
        frame.assign(**dict.fromkeys(self.names, 0.0)).to_parquet(folder / "source.parquet")
        source = feast.FileSource(path=str(folder / "source.parquet"), timestamp_field="event_timestamp")
        customer = feast.Entity(name="customer", join_keys=["customer_id"], value_type=feast.ValueType.STRING)
        view = feast.FeatureView(
            name=VIEW,
            entities=[customer],
            ttl=timedelta(0),
            schema=[feast.Field(name=name, dtype=Float64) for name in self.names],
            source=source,
        )
        plain = feast.FeatureService(name="plain", features=[view])
        whole = feast.FeatureService(name="whole", features=[view], precompute_online=True)
        self._store.apply([customer, view, plain, whole])

    def _write(self) -> None:
        frame = pd.DataFrame(self._values, columns=self.names)
        frame.insert(0, "customer_id", self.customers)
        frame.insert(1, "event_timestamp", datetime.now(UTC))
        self._store.write_to_online_store(VIEW, frame)
        self._store.precompute_feature_service("whole")
        self._store.refresh_registry()

    def ask(self, way: str, customer: str) -> Any:
        """The features of one customer."""
        return self._store.get_online_features(
            features=self._asked[way],
            entity_rows=[{"customer_id": customer}],
            full_feature_names=way == "precomputed",  # it is found by these only
        )

    def check(self, way: str) -> None:
        """That the answers hold the numbers that were written."""
        for at in self._dice.sample(range(len(self.customers)), min(CHECKED_CUSTOMERS, len(self.customers))):
            found = self.ask(way, self.customers[at]).to_dict()
            prefix = f"{VIEW}__" if way == "precomputed" else ""
            if [found[prefix + name][0] for name in self.names] != self._values[at].tolist():
                raise RuntimeError(f"Feast answers {way} with other values than were written")

    def measure(self, way: str, calls: int) -> list[float]:
        """How long each of so many calls took, in µs."""
        ask: Callable[[str, str], Any] = self.ask
        customers = self._dice.choices(self.customers, k=calls)
        clock = time.perf_counter
        took = []
        for customer in customers:
            start_s = clock()
            ask(way, customer)
            took.append((clock() - start_s) * 1e6)
        return took


def main() -> None:
    """Write, say ready, answer lines."""
    peer = Peer(Path(sys.argv[1]), sys.argv[2])
    for way in WAYS:
        peer.check(way)
        peer.measure(way, WARM_UP_CALLS)
    gc.collect()
    gc.freeze()
    print("ready", json.dumps({"feast": feast.__version__, "hiredis": hiredis.__version__, "ways": WAYS}), flush=True)
    for line in sys.stdin:
        way, calls = line.split()
        print(json.dumps(peer.measure(way, int(calls))), flush=True)


if __name__ == "__main__":
    main()
