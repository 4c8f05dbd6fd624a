"""A visitor browses, logs in, and is known: over gRPC, with real processes and a real store."""

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from opportune.v1 import common_pb2, customers_pb2, decisions_pb2, events_pb2, identities_pb2, identities_pb2_grpc
from tests.engine_process import CONFIG, Client, EngineProcess
from tests.waiting import wait_until

KNOWN_BY = "identities: [{kind: email_hash}, {kind: cookie}]\nentities: [{kind: household}]\nevents:\n"
LOYAL = CONFIG.replace("events:\n", KNOWN_BY).replace("value: 90, ", 'value: 90, eligibility: ["spent > 100.0"], ')


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path_factory.mktemp("identity"), config=LOYAL) as engine:
        yield engine.start()
        assert engine.stop() == 0
        engine.replay()


@pytest.fixture(scope="module")
def client(engine: EngineProcess) -> Iterator[Client]:
    with engine.client() as client:
        yield client


def test_a_visitor_browses_logs_in_and_the_decision_sees_both_histories(client: Client) -> None:
    cookie = common_pb2.Identity(kind="cookie", value="c7")
    publish(client, 60, "1", identities=[cookie])
    publish(client, 70, "2", customer_id="anna")
    wait_until(lambda: spent(client, identities=[cookie]) == 60, 5, "the visit is folded")
    visitor = decide(client, identities=[cookie])
    assert visitor.customer_id == "cookie=c7"
    assert visitor.state.known
    assert "loan" not in eligible(client, visitor), "60 is not enough for it"
    decide(client, customer_id="anna", identities=[cookie])
    wait_until(lambda: spent(client, customer_id="anna") == 130, 5, "both histories are one")
    known = decide(client, identities=[cookie])
    assert known.customer_id == "anna", "the cookie alone finds her"
    assert "loan" in eligible(client, known)
    publish(client, 5, "3", identities=[cookie])
    wait_until(lambda: spent(client, customer_id="anna") == 135, 5, "what comes under the cookie is hers")


def test_a_link_is_made_looked_at_and_taken_back_on_the_command_line(engine: EngineProcess, client: Client) -> None:
    publish(client, 10, "4", identities=[common_pb2.Identity(kind="email_hash", value="e1")])
    publish(client, 20, "5", customer_id="b17")
    publish(client, 40, "6", customer_id="bob")
    at = ("--grpc", engine.grpc)
    both = ("--customer", "bob", "--identity", "email_hash=e1", "--same-customer", "b17")
    done = engine.run("identity", "link", *at, *both, "--entity", "household=h1")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["recorded"] == 3
    wait_until(lambda: spent(client, customer_id="bob") == 70, 5, "three histories are one")
    shown = json.loads(engine.run("identity", "lineage", *at, "--customer", "bob").stdout)
    assert sorted(found["name"] for found in shown["identities"]) == ["b17", "email_hash=e1"]
    assert shown["entities"][0]["entity"] == {"kind": "household", "id": "h1"}
    assert {step["action"] for step in shown["steps"]} == {"LINEAGE_ACTION_GAINED"}
    assert engine.run("identity", "unlink", *at, *both).returncode == 0
    wait_until(lambda: spent(client, customer_id="bob") == 40, 5, "they are apart again")
    assert spent(client, customer_id="b17") == 20
    refused = engine.run("identity", "unlink", *at, *both)
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: FAILED_PRECONDITION: 'email_hash=e1' is not linked to 'bob'")
    traced = json.loads(engine.run("identity", "lineage", *at, "--identity", "email_hash=e1").stdout)
    actions = [step["action"] for step in traced["steps"]]
    assert actions == ["LINEAGE_ACTION_LINKED_TO", "LINEAGE_ACTION_UNLINKED_FROM"]


def test_killing_ingest_while_many_log_in_loses_and_doubles_nothing(engine: EngineProcess, client: Client) -> None:
    visitors, killed = range(40), None
    for number in visitors:
        cookie = common_pb2.Identity(kind="cookie", value=f"v{number}")
        publish(client, 1, f"a{number}", identities=[cookie])
        publish(client, 10, f"b{number}", customer_id=f"carl-{number}", identities=[cookie])
        publish(client, 100, f"c{number}", identities=[cookie])
        if number % 10 == 5:
            if killed is not None:
                engine.wait_ready(replaced=killed)
            killed = engine.signal("ingest", signal.SIGKILL)
    for number in visitors:
        wait_until(lambda n=number: spent(client, customer_id=f"carl-{n}") == 111, 20, "all of it is merged")
    stub = identities_pb2_grpc.IdentitiesStub(client.channel)
    for number in visitors:
        found = stub.Lineage(identities_pb2.LineageRequest(customer_id=f"carl-{number}"), timeout=5)
        assert [(link.name, link.current) for link in found.identities] == [(f"cookie=v{number}", True)]


def publish(client: Client, amount: int, event_id: str, **who: Any) -> None:
    event = events_pb2.Event(id=event_id, source="test", type="purchase", **who)
    event.attributes["amount"].number = amount
    assert client.events.Publish(events_pb2.PublishRequest(events=[event]), timeout=5).accepted == 1


def decide(client: Client, **who: Any) -> Any:
    answer = client.decisions.Decide(decisions_pb2.DecideRequest(channel="web", **who), timeout=5)
    assert not answer.degraded
    return answer


def spent(client: Client, **who: Any) -> float:
    found = client.customers.Get(customers_pb2.GetCustomerRequest(**who), timeout=5)
    return next(float(feature.value.number) for feature in found.features if feature.name == "spent")


def eligible(client: Client, answer: Any) -> set[str]:
    told = client.decisions.Explain(decisions_pb2.ExplainRequest(decision_id=answer.decision_id), timeout=5)
    return {candidate.offer_id for candidate in told.candidates if candidate.eligible}
