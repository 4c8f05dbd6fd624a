"""The whole engine with Kafka as its event log: one command, and what it promises."""

import signal
import subprocess
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest

from bench.kafka_broker import Broker
from features import Offset
from opportune.v1 import (
    customers_pb2,
    decisions_pb2,
    events_pb2,
    feedback_pb2,
    policies_pb2,
    policies_pb2_grpc,
)
from tests.engine_process import CONFIG, ROOT, EngineProcess, OwnRedis
from tests.faults.traffic import Traffic
from tests.kafka.cluster import TOPIC_PARTITIONS, Cluster, Session
from tests.small_engine import features_of
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnRedis]:
    with OwnRedis(tmp_path_factory.mktemp("r")) as server:
        yield server


@pytest.fixture(scope="module")
def cluster(kafka: str, redis: OwnRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(kafka, redis.url, tmp_path_factory.mktemp("c"), prefix=f"t{uuid.uuid4().hex[:8]}") as made:
        yield made


@pytest.fixture(scope="module")
def engine(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """One engine for all tests of this file: its start takes the longest."""
    options = ("--kafka", cluster.kafka, "--prefix", cluster.topics.prefix, "--redis", cluster.redis_url)
    folder = tmp_path_factory.mktemp("e")
    with EngineProcess(folder, *options, "--topic-partitions", str(TOPIC_PARTITIONS)) as made:
        yield made.start()
        assert made.stop() == 0


def serving(engine: EngineProcess) -> set[str]:
    """Versions that answer, asked on connections of their own so that all servers are."""
    found = set()
    for number in range(6):
        with engine.client() as client:
            request = decisions_pb2.DecideRequest(customer_id=f"probe-{number}", channel="web")
            found.add(client.decisions.Decide(request, timeout=20, wait_for_ready=True).config_version)
    return found


def purchase(customer: str, number: int, amount: float = 1.0) -> events_pb2.PublishRequest:
    request = events_pb2.PublishRequest()
    event = request.events.add(id=str(number), source="/till", type="purchase", customer_id=customer)
    event.attributes["amount"].number = amount
    return request


def test_nothing_acknowledged_is_lost_or_doubled_when_anything_is_killed(
    engine: EngineProcess, cluster: Cluster, own_broker: Broker | None
) -> None:
    with Traffic(engine, seed=5) as traffic:
        for name in ("ingest", "serve-0"):
            traffic.wait_for_more(30)
            pid = engine.signal(name, signal.SIGKILL)
            engine.wait_ready(replaced=pid)
        if own_broker is not None:
            traffic.wait_for_more(30)
            own_broker.stop()
            own_broker.start()
        traffic.wait_for_more(50)
        traffic.stop()
        traffic.check(engine)
        cluster.check()
        again = engine.replay("--redis", cluster.redis_url, "--kafka", cluster.kafka)
        assert "events folded again" in again

        async def published(session: Session) -> tuple[set[str], dict[tuple[str, str], int]]:
            decisions = await session.read(cluster.topics.decisions)
            outcomes = await session.read(cluster.topics.outcomes)
            reports = [feedback_pb2.ReportRequest.FromString(record.value) for record in outcomes]
            return (
                {decisions_pb2.DecideResponse.FromString(record.value).decision_id for record in decisions},
                {(report.decision_id, report.offer_id): int(report.stage) for report in reports},
            )

        decisions, stages = cluster.run(published)
        answered = {at for notes in traffic.notes for at in notes.decisions}
        assert answered <= decisions
        reported = {place: stage for notes in traffic.notes for place, stage in notes.stages.items()}
        assert {place: f"STAGE_{stage}" for place, stage in reported.items()} == {
            place: feedback_pb2.ReportRequest(stage=stages[place]).DESCRIPTOR.fields_by_name["stage"]
            .enum_type.values_by_number[stages[place]].name
            for place in reported
        }  # fmt: skip


def test_an_event_counts_in_the_next_decision_and_others_learn_of_all(engine: EngineProcess, cluster: Cluster) -> None:
    with engine.client() as client:
        request = purchase("anna", 1)
        request.events.add(id="2", source="/till", type="nothing", customer_id="anna")
        published = client.events.Publish(request, timeout=5)
        assert (published.accepted, len(published.rejected)) == (1, 1)
        position = Offset.parse("-".join(str(int(part, 16)) for part in published.positions[0].split("-")[1:]))

        def decided() -> Any:
            answer = client.decisions.Decide(decisions_pb2.DecideRequest(customer_id="anna", channel="web"), timeout=5)
            seen = answer.state.known and Offset.parse(answer.state.watermark) >= position
            return answer if seen else None

        answer = wait_until(decided, 5, "a decision that knows of the event")
        report = feedback_pb2.ReportRequest(
            outcome_id="o1",
            decision_id=answer.decision_id,
            offer_id=answer.offers[0].offer_id,
            stage="STAGE_ACCEPTED",
        )
        for duplicate in (False, True):
            assert client.feedback.Report(report, timeout=5).duplicate == duplicate

    async def topics(session: Session) -> list[list[Any]]:
        topics = cluster.topics
        return [await session.read(name) for name in (topics.events, topics.decisions, topics.outcomes, topics.dead)]

    events, decisions, outcomes, dead = (
        [record for record in records if record.key in (None, b"anna")] for records in cluster.run(topics)
    )
    assert [orjson.loads(event.value)[0] for event in events] == ["anna"]
    assert {record.key for record in (*events, *decisions, *outcomes)} == {b"anna"}
    assert len({record.partition for record in (*events, *decisions, *outcomes)}) == 1
    assert answer in [decisions_pb2.DecideResponse.FromString(record.value) for record in decisions]
    told = feedback_pb2.ReportRequest.FromString(outcomes[0].value)
    assert (told.outcome_id, told.decision_id, told.offer_id) == ("o1", answer.decision_id, answer.offers[0].offer_id)
    assert told.time_ms > 0
    [letter] = dead
    assert dict(letter.headers)["reason"].startswith(b"type: no event type 'nothing' is declared")


def test_without_workers_decisions_go_on_and_events_wait_for_some(
    engine: EngineProcess, cluster: Cluster, tmp_path: Path
) -> None:
    with engine.client() as client:
        stopped = engine.signal("ingest", signal.SIGSTOP)
        client.events.Publish(purchase("bob", 1), timeout=5)
        answer = client.decisions.Decide(decisions_pb2.DecideRequest(customer_id="bob", channel="web"), timeout=5)
        assert answer.decision_id
        assert not answer.state.known
        assert engine.pids["ingest"] == stopped
        engine.signal("ingest", signal.SIGKILL)
    options = ("--kafka", cluster.kafka, "--redis", cluster.redis_url, "--prefix", cluster.topics.prefix)
    log = tmp_path / "ingest.log"
    with log.open("wb") as stderr:
        elsewhere = subprocess.Popen(
            engine.argv("ingest", *options, "--data", str(tmp_path / "data"), "--workers", "2"), cwd=ROOT, stderr=stderr
        )
    try:
        wait_until(lambda: b"ready: 2 workers on " in log.read_bytes(), 40, "the workers are ready")
        assert "bob" in cluster.check()
    finally:
        elsewhere.terminate()
    assert elsewhere.wait(15) == 0
    assert {path.name for path in (tmp_path / "data" / "logs").iterdir()} == {"ingest-0.log", "ingest-1.log"}


def test_a_publisher_is_told_when_kafka_is_away(engine: EngineProcess, own_broker: Broker | None) -> None:
    if own_broker is None:
        pytest.skip("the broker is not ours to stop")
    with engine.client() as client:
        client.events.Publish(purchase("anna", 1), timeout=5)
        own_broker.kill()
        try:
            with pytest.raises(grpc.RpcError) as told:
                client.events.Publish(purchase("anna", 2), timeout=5)
            assert told.value.code() == grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
            assert "send it again with the same id" in told.value.details()  # type: ignore[attr-defined]
            answer = client.decisions.Decide(decisions_pb2.DecideRequest(customer_id="a", channel="web"), timeout=5)
            assert answer.degraded == decisions_pb2.DegradedReason.Value("DEGRADED_REASON_COMMIT_FAILED")
        finally:
            own_broker.start()

        def published() -> Any:
            try:
                return client.events.Publish(purchase("anna", 2), timeout=5)
            except grpc.RpcError:
                return None

        assert wait_until(published, 20, "Kafka takes events again").accepted == 1


def test_without_kafka_a_store_that_is_filled_from_it_is_refused(engine: EngineProcess, cluster: Cluster) -> None:
    worker = cluster.start_worker(wait=False, kafka=None)
    assert worker.process.wait(20) == 1
    assert f"takes its events from the Kafka topic {cluster.topics.events}: start with --kafka" in worker.words


def test_workers_follow_a_version_that_folds_otherwise_and_lose_nothing(engine: EngineProcess) -> None:
    """Of all acknowledged events each counts once. The last test of this file: others compare records to the byte."""
    largest = "  - {name: largest, event: purchase, function: max, attribute: amount, meaning: in one go}\n"
    more = CONFIG.replace("offers:\n", largest + "offers:\n")
    dearer = CONFIG.replace("value: 40", "value: 45")
    published: Counter[str] = Counter()
    with engine.client() as client:
        policies = policies_pb2_grpc.PoliciesStub(client.channel)

        def put(*names: str) -> None:
            for name in names:
                published[name] += 1
                client.events.Publish(purchase(name, published[name], 2.0), timeout=10)

        def folded(name: str) -> dict[str, Any]:
            found = client.customers.Get(customers_pb2.GetCustomerRequest(customer_id=name), timeout=5)
            return features_of(found)

        def follow(change: policies_pb2.ChangeResponse, *, reloads: bool) -> None:
            """Publish until the version is followed by all, and until what was published is in the state."""
            before = engine.pids["ingest"]
            assert change.state == "active"

            def followed() -> bool:
                put("dora", f"new-{change.version}")
                return engine.pids.get("ingest", before) != before or not reloads

            wait_until(lambda: serving(engine) == {change.version}, 10, "the servers follow")
            wait_until(followed, 30, "the worker follows")
            engine.wait_ready(replaced=before if reloads else None)
            put("dora", f"new-{change.version}")
            for name, count in published.items():
                wait_until(lambda n=name, c=count: folded(n).get("purchases") == c, 20, f"all of {name} counts")  # type: ignore[misc]
                assert folded(name)["spent"] == 2.0 * count
            assert engine.pids["ingest"] != before if reloads else engine.pids["ingest"] == before

        put("dora")
        first = client.decisions.Decide(decisions_pb2.DecideRequest(customer_id="p", channel="web"), timeout=5)
        propose = policies_pb2.ProposeRequest(text=dearer.encode(), by="ann")
        follow(policies.Propose(propose, timeout=20), reloads=False)
        propose = policies_pb2.ProposeRequest(text=more.encode(), by="ann")
        changed = policies.Propose(propose, timeout=20)
        follow(changed, reloads=True)
        put("eve")
        wait_until(lambda: folded("eve").get("largest") == 2.0, 10, "the new feature counts")
        rollback = policies_pb2.RollbackRequest(version=first.config_version, by="bob")
        follow(policies.Rollback(rollback, timeout=20), reloads=True)
        assert "largest" not in folded("eve")
