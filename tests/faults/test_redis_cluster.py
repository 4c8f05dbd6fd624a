"""A whole engine on a real cluster of three nodes: the loop, a slot that moves, a node that dies."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.limits import DECIDE_COMMIT_WAIT_MS_MAX, DECIDE_STATE_WAIT_MS_MAX, PARTITIONS
from engine.store import partition_of
from engine.store.cluster import slot_of
from engine.store.keys import Keys
from opportune.v1 import customers_pb2, decisions_pb2, events_pb2, feedback_pb2
from tests.engine_process import Client, EngineProcess
from tests.faults.traffic import Traffic
from tests.redis_cluster import RedisCluster
from tests.waiting import wait_until

SLACK_S = 1.0
"""For a busy machine."""
KEYS = Keys(PARTITIONS)


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    # What a killed node has answered is in its file.
    with RedisCluster(tmp_path_factory.mktemp("cluster"), options=("--appendfsync", "always")) as cluster:
        yield cluster


def test_the_loop_closes_on_a_cluster(tmp_path: Path, cluster: RedisCluster) -> None:
    with EngineProcess(tmp_path, "--redis", cluster.url_of(*cluster.masters)) as engine:
        with engine.start("--servers", "2").client() as client:
            customers = [f"c{n}" for n in range(4 * PARTITIONS)]
            assert {partition_of(customer, PARTITIONS) for customer in customers} == set(range(PARTITIONS))
            client.events.Publish(purchases(customers, amount=7), timeout=5)
            for customer in customers:
                known = wait_until(lambda: known_of(client, customer, 7), 10, "the purchase is folded")  # noqa: B023
                answer = decide(client, customer)
                assert answer.decision_id and not answer.degraded
                assert answer.state.watermark == known.state.watermark
                for offer in answer.offers:
                    report(client, answer, offer.offer_id, "ACCEPTED" if offer.offer_id == "loan" else "DECLINED")
                explained = client.decisions.Explain(
                    decisions_pb2.ExplainRequest(decision_id=answer.decision_id), timeout=5
                )
                assert explained.customer_id == customer

            def learnt() -> Any:
                now = decide(client, f"new-{time.monotonic_ns()}")
                return now.policy_version and now.offers and now.offers[0].offer_id == "loan"

            wait_until(learnt, 10, "the policy that was learnt serves")
        assert engine.stop() == 0
        engine.replay("--redis", cluster.url)


def test_slots_that_move_under_traffic_lose_nothing(tmp_path: Path, cluster: RedisCluster) -> None:
    with EngineProcess(tmp_path, "--redis", cluster.url) as engine, Traffic(engine.start(), seed=11) as traffic:
        traffic.wait_for_more(500)
        source, target = cluster.masters[2], cluster.masters[0]
        moved = 0
        for slot in {slot_of(log) for log in KEYS.events if cluster.owner(log) is source}:
            moved += asyncio.run(cluster.move_slot(slot, source, target, 0.005))
            traffic.wait_for_more(100)
        assert moved > 20
        traffic.stop()
        traffic.check(engine)
        assert engine.stop() == 0
        engine.replay("--redis", cluster.url)


def test_a_node_that_dies_takes_along_its_own_customers_alone(tmp_path: Path, cluster: RedisCluster) -> None:
    # The node with neither the policy nor the checkpoint: learning goes on.
    dead = cluster.masters[2]
    gone = {n for n in range(PARTITIONS) if cluster.owner(KEYS.events[n]) is dead}
    assert dead not in {cluster.owner(key) for key in (b"policy", b"learner", b"meta")}
    with (
        EngineProcess(tmp_path, "--redis", cluster.url) as engine,
        Traffic(engine.start(), seed=12) as traffic,
        engine.client() as client,
    ):
        traffic.wait_for_more()
        dead.kill()
        wait_until(lambda: decide(client, customer_in(gone)).degraded, 5, "the node is missed")
        version = decide(client, customer_in(set(range(PARTITIONS)) - gone)).policy_version
        end_s = time.monotonic() + 4
        number = 0
        while time.monotonic() < end_s:
            number += 1
            customer = f"k{number}"
            began_s = time.monotonic()
            answer = decide(client, customer)
            assert time.monotonic() - began_s < (DECIDE_STATE_WAIT_MS_MAX + DECIDE_COMMIT_WAIT_MS_MAX) / 1e3 + SLACK_S
            if partition_of(customer, PARTITIONS) in gone:
                assert answer.degraded and not answer.decision_id
                continue
            assert answer.decision_id and not answer.degraded
            client.events.Publish(purchases([customer], amount=3), timeout=5)
            wait_until(lambda: known_of(client, customer, 3), 5, "events are folded meanwhile")  # noqa: B023
            for offer in answer.offers:
                report(client, answer, offer.offer_id, "ACCEPTED")
        served = decide(client, customer_in(set(range(PARTITIONS)) - gone))
        assert served.policy_version > version, "what the others teach is learnt meanwhile"
        assert number > 5
        dead.start()
        cluster.wait_served(dead)
        wait_until(lambda: decide(client, customer_in(gone)).decision_id, 10, "its customers are served again")
        traffic.wait_for_more()
        traffic.stop()
        assert not traffic.statuses["DEADLINE_EXCEEDED"]
        spend(client, gone)
        traffic.check_kept(engine)
        assert engine.stop() == 0
        engine.replay("--redis", cluster.url)


def customer_in(partitions: set[int]) -> str:
    """A customer of these partitions nobody else asks for."""
    return next(name for n in range(1_000) if partition_of(name := f"probe-{n}", PARTITIONS) in partitions)


def spend(client: Client, partitions: set[int]) -> None:
    """Events of these partitions are taken and folded."""
    for partition in partitions:
        customer = customer_in({partition})
        client.events.Publish(purchases([customer], amount=5), timeout=5)
        wait_until(lambda: known_of(client, customer, 5), 10, "its events are folded again")  # noqa: B023


def decide(client: Client, customer: str) -> Any:
    return client.decisions.Decide(decisions_pb2.DecideRequest(customer_id=customer, channel="branch"), timeout=5)


def purchases(customers: list[str], amount: float) -> events_pb2.PublishRequest:
    request = events_pb2.PublishRequest()
    for customer in customers:
        event = request.events.add(id="1", source=customer, type="purchase", customer_id=customer)
        event.attributes["amount"].number = amount
    return request


def known_of(client: Client, customer: str, spent: float) -> Any:
    known = client.customers.Get(customers_pb2.GetCustomerRequest(customer_id=customer), timeout=5)
    found = {feature.name: feature.value.number for feature in known.features}
    return known if found["spent"] == spent else None


def report(client: Client, answer: Any, offer: str, stage: str) -> None:
    request = feedback_pb2.ReportRequest(
        outcome_id=f"{answer.decision_id}/{offer}",
        decision_id=answer.decision_id,
        offer_id=offer,
        stage=f"STAGE_{stage}",
    )
    client.feedback.Report(request, timeout=5)
