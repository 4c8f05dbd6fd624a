"""Forgetting with Kafka as the event log: the marker stands behind what it forgets, also when all is read again."""

import signal
from pathlib import Path

import grpc
import pytest

from opportune.v1 import customers_pb2, decisions_pb2
from tests.engine_process import Client, EngineProcess
from tests.kafka.cluster import TOPIC_PARTITIONS, Cluster
from tests.kafka.test_kafka_engine import purchase
from tests.waiting import wait_until


def known(client: Client, customer: str) -> int:
    found = client.customers.Get(customers_pb2.GetCustomerRequest(customer_id=customer), timeout=5)
    return int(found.events)


def test_what_was_before_is_gone_and_what_comes_after_counts(cluster: Cluster, tmp_path: Path) -> None:
    options = ("--kafka", cluster.kafka, "--prefix", cluster.topics.prefix, "--redis", cluster.redis_url)
    with EngineProcess(tmp_path, *options, "--topic-partitions", str(TOPIC_PARTITIONS)) as engine:
        with engine.start().client() as client:
            for number in range(3):
                client.events.Publish(purchase("ann", number), timeout=10)
            client.events.Publish(purchase("bob", 9), timeout=10)
            wait_until(lambda: (known(client, "ann"), known(client, "bob")) == (3, 1), 20, "all is folded")
            answer = client.decisions.Decide(decisions_pb2.DecideRequest(customer_id="ann", channel="web"), timeout=5)
            asked = customers_pb2.ForgetRequest(request_id="f1", customer_id="ann")
            done = client.customers.Forget(asked, timeout=20)
            assert (done.features, done.decisions, done.events) == (1, 1, 0)
            assert known(client, "ann") == 0
            with pytest.raises(grpc.RpcError):
                client.decisions.Explain(decisions_pb2.ExplainRequest(decision_id=answer.decision_id), timeout=5)
            engine.replay("--redis", cluster.redis_url, "--kafka", cluster.kafka)
            # Killed before it has told the broker how far it is, perhaps: the events come again, and the marker too.
            pid = engine.signal("ingest", signal.SIGKILL)
            engine.wait_ready(replaced=pid)
            client.events.Publish(purchase("ann", 4), timeout=10)
            wait_until(lambda: known(client, "ann") == 1, 30, "what came after it counts, and nothing else")
            assert known(client, "bob") == 1
            engine.replay("--redis", cluster.redis_url, "--kafka", cluster.kafka)
        assert engine.stop() == 0
