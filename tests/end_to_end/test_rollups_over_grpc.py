"""What one member of a household does changes what the other is offered: over gRPC, with real processes and a store."""

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from opportune.v1 import customers_pb2, decisions_pb2, events_pb2, identities_pb2, identities_pb2_grpc
from tests.engine_process import CONFIG, Client, EngineProcess
from tests.waiting import wait_until

HOUSEHOLDS = (
    CONFIG.replace("events:\n", "entities: [{kind: household, attribute: home}]\nevents:\n", 1)
    .replace("{amount: {type: number, required: true}}", "{amount: {type: number, required: true}, home: {type: text}}")
    .replace(
        "features:\n",
        "features:\n  - {name: house_spent, entity: household, event: purchase, function: sum, attribute: amount,\n"
        "     resolution: 1, meaning: spent by all, input: {kind: log, range: [0, 1000]}}\n",
    )
    .replace("value: 90, ", 'value: 90, eligibility: ["house_spent > 100.0"], ')
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path_factory.mktemp("rollups"), config=HOUSEHOLDS) as engine:
        yield engine.start()
        assert engine.stop() == 0
        engine.replay()


@pytest.fixture(scope="module")
def client(engine: EngineProcess) -> Iterator[Client]:
    with engine.client() as client:
        yield client


def test_what_one_member_buys_is_offered_upon_to_the_other(engine: EngineProcess, client: Client) -> None:
    stub = identities_pb2_grpc.IdentitiesStub(client.channel)
    entity = identities_pb2.Entity(kind="household", id="h1")
    stub.Link(identities_pb2.LinkRequest(request_id="r1", customer_id="bob", entities=[entity]), timeout=5)
    assert not offered(client, "bob")
    publish(client, "anna", 70, "1", "h1")
    publish(client, "anna", 60, "2")
    publish(client, "anna", 60, "2")  # the producer sends it twice
    wait_until(lambda: house_spent(client, "bob") == 130, 5, "what anna bought counts for the household")
    assert offered(client, "bob")
    assert not offered(client, "carl"), "he is of no household"
    [entity_link] = stub.Lineage(identities_pb2.LineageRequest(customer_id="anna"), timeout=5).entities
    assert entity_link.entity.id == "h1"


def test_it_is_there_after_a_restart(engine: EngineProcess, client: Client) -> None:
    before = house_spent(client, "bob")
    engine.stop()
    engine.start()
    wait_until(lambda: house_spent(client, "bob") == before, 5, "nothing is lost")
    assert offered(client, "bob")


def test_killing_ingest_loses_and_doubles_nothing(engine: EngineProcess, client: Client) -> None:
    killed = None
    for number in range(60):
        publish(client, f"member-{number % 7}", 1, f"k{number}", "h9")
        if number % 25 == 12:
            if killed is not None:
                engine.wait_ready(replaced=killed)
            killed = engine.signal("ingest", signal.SIGKILL)
    publish(client, "member-0", 100, "last", "h9")
    wait_until(lambda: house_spent(client, "member-3") == 160, 20, "all of it is counted once")


def test_the_features_of_households_are_listed(engine: EngineProcess, client: Client) -> None:
    report = engine.folder / "features.json"
    done = engine.run("features", "--config", str(engine.config), "--json", str(report))
    assert done.returncode == 0, done.stderr
    assert "household" in done.stdout
    found = {feature["name"]: feature["entity"] for feature in json.loads(report.read_text())["features"]}
    assert found == {"spent": "customer", "purchases": "customer", "house_spent": "household"}
    checked = engine.run("features", "--config", str(engine.config), "--check", "--data", str(engine.data))
    assert checked.returncode in (0, 1), checked.stderr
    assert "features of each household are not looked at: house_spent" in " ".join(checked.stdout.split())


def publish(client: Client, customer: str, amount: int, event_id: str, home: str = "") -> None:
    event = events_pb2.Event(id=event_id, source="test", type="purchase", customer_id=customer)
    event.attributes["amount"].number = amount
    if home:
        event.attributes["home"].text = home
    assert client.events.Publish(events_pb2.PublishRequest(events=[event]), timeout=5).accepted == 1


def house_spent(client: Client, customer: str) -> float:
    found = client.customers.Get(customers_pb2.GetCustomerRequest(customer_id=customer), timeout=5)
    return next(float(feature.value.number) for feature in found.features if feature.name == "house_spent")


def offered(client: Client, customer: str) -> bool:
    """Whether the loan was eligible."""
    answer: Any = client.decisions.Decide(decisions_pb2.DecideRequest(customer_id=customer, channel="web"), timeout=5)
    assert not answer.degraded
    told = client.decisions.Explain(decisions_pb2.ExplainRequest(decision_id=answer.decision_id), timeout=5)
    return "loan" in {candidate.offer_id for candidate in told.candidates if candidate.eligible}
