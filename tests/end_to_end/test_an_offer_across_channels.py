"""An offer begun at the call centre is found, resumed and closed at the branch a week later, price held. Over gRPC."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.request import Request, urlopen

import grpc
import pytest

from opportune.v1 import common_pb2, customers_pb2, decisions_pb2, events_pb2, feedback_pb2
from tests.engine_process import Client, EngineProcess
from tests.waiting import wait_until

DAY_MS = 86_400_000

CONFIG = """
opportune: 1
name: bank
limit: 1
silence: false
clock: {future: 90d}
channels:
  - {id: call_centre}
  - {id: branch, placements: [desk, lobby]}
  - {id: web, placements: [hero], format: html}
context:
  - {name: first_name, type: text}
events:
  - type: salary
    attributes: {amount: {type: number, required: true}}
features:
  - {name: income, event: salary, function: last, attribute: amount}
offers:
  - id: loan
    value: 100
    window: 30d
    parameters:
      amount: {type: number, unit: EUR, step: 100, range: [1000, 20000], expression: income * 3.0, default: 1000}
      rate: {type: number, unit: "%", rules: [{when: income >= 2000.0, value: 0.049}], value: 0.069}
      financing: {type: text, rules: [{when: income >= 2000.0, value: 48 months}], value: 24 months}
    price_held_for: 14d
    treatments:
      - {text: "{first_name|You} can borrow {amount:money} at {rate:percent} until {offer.price_held_until}"}
      - {text: "<p>{first_name|You}: {amount:money}</p>", channel: web}
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path_factory.mktemp("instances"), "--servers", "2", config=CONFIG) as engine:
        yield engine.start()
        assert engine.stop() == 0
        engine.replay()


@pytest.fixture(scope="module")
def client(engine: EngineProcess) -> Iterator[Client]:
    with engine.client() as client:
        yield client


def salary(client: Client, customer: str, amount: float) -> None:
    """Paid, and folded into what is known of the customer."""
    event = events_pb2.Event(id=f"{customer}-{amount}", source="core", type="salary", customer_id=customer)
    event.attributes["amount"].number = amount
    assert client.events.Publish(events_pb2.PublishRequest(events=[event]), timeout=5).accepted == 1
    request = customers_pb2.GetCustomerRequest(customer_id=customer)
    wait_until(
        lambda: client.customers.Get(request, timeout=5).features[0].value.number == amount, 10, "it is folded"
    )


def decide(client: Client, customer: str, channel: str, time_ms: int, **fields: object) -> decisions_pb2.DecideResponse:
    request = decisions_pb2.DecideRequest(customer_id=customer, channel=channel, time_ms=time_ms, **fields)  # type: ignore[arg-type]
    answer: decisions_pb2.DecideResponse = client.decisions.Decide(request, timeout=5)
    return answer


def report(client: Client, outcome: str, stage: str, time_ms: int, **fields: str) -> feedback_pb2.ReportResponse:
    request = feedback_pb2.ReportRequest(
        outcome_id=outcome, offer_id="loan", stage=f"STAGE_{stage}", time_ms=time_ms, **fields  # type: ignore[arg-type]
    )
    receipt: feedback_pb2.ReportResponse = client.feedback.Report(request, timeout=5)
    return receipt


def refusal(call: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()  # type: ignore[operator]
    return caught.value.code(), caught.value.details()


def test_begun_at_the_call_centre_closed_at_the_branch_a_week_later(engine: EngineProcess, client: Client) -> None:
    salary(client, "ann", 1500)
    monday = int(time.time() * 1_000)
    begun = decide(client, "ann", "call_centre", monday, context={"first_name": common_pb2.Value(text="Ann")})
    [loan] = begun.offers
    assert loan.parameters["amount"].number == 4500.0
    assert loan.price_held_until_ms == monday + 14 * DAY_MS
    assert loan.treatment.startswith("Ann can borrow €4,500.00 at 6.9% until ")
    report(client, "heard", "PRESENTED", monday + 1, decision_id=begun.decision_id)

    # A week later the salary is another one, and so would be the offer.
    salary(client, "ann", 3000)
    week = monday + 7 * DAY_MS
    other = decide(client, "bob", "branch", week).offers[0]
    assert other.parameters["amount"].number == 1000.0, "of whom nothing is known: the default"
    page = engine.run("customer", "--customer", "ann", "--grpc", engine.grpc)
    assert "open offers" in page.stdout, page.stderr
    assert "amount 4500" in page.stdout

    # The web sees it without knowing of the call centre; the branch goes on with it.
    [seen] = [offer for offer in decide(client, "ann", "web", week).open_offers if offer.channel == "call_centre"]
    assert (seen.decision_id, seen.stage) == (begun.decision_id, common_pb2.STAGE_PRESENTED)
    assert (seen.parameters["financing"].text, seen.treatment) == ("24 months", "<p>Ann: €4,500.00</p>")
    resume = decisions_pb2.Resume(decision_id=seen.decision_id, offer_id=seen.offer_id)
    resumed = decide(client, "ann", "branch", week + 1, placement="desk", resume=resume)
    [again] = resumed.offers
    assert dict(again.parameters) == dict(loan.parameters)
    assert again.price_held_until_ms == loan.price_held_until_ms
    assert again.begun_decision_id == begun.decision_id != resumed.decision_id
    assert again.treatment.startswith("You can borrow €4,500.00 at 6.9%"), "the branch did not say the name"

    # What is not hers, or not there, is refused, and nothing else is disturbed.
    code, told = refusal(lambda: decide(client, "eve", "branch", week, resume=resume))
    assert (code, "customer 'eve' has no decision" in told) == (grpc.StatusCode.NOT_FOUND, True)

    # Two channels close it at the same moment: one wins, whichever id it uses.
    def close(way: int) -> bool:
        ids = begun.decision_id, resumed.decision_id
        named = {"decision_id": ids[way % 2]} if way % 3 else {"customer_id": "ann"}
        stage, channel = ("ACCEPTED", "branch") if way % 2 else ("DECLINED", "web")
        try:
            report(client, f"close-{way}", stage, week + 2, channel=channel, **named)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION, error.details()
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(close, range(8))) == 1
    known = client.customers.Get(customers_pb2.GetCustomerRequest(customer_id="ann"), timeout=5)
    closed = {common_pb2.STAGE_ACCEPTED, common_pb2.STAGE_DECLINED}
    assert len([offer for offer in known.offers if offer.stage in closed]) == 1
    for channel in ("call_centre", "branch", "web"):
        code, told = refusal(lambda at=channel: decide(client, "ann", at, week + 3, resume=resume))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "it is ACCEPTED" in told or "it is DECLINED" in told or "it is WITHDRAWN" in told
    wrong = engine.run("report", "--customer", "ann", "--offer", "loan", "--stage", "accepted", "--outcome", "late",
                       "--grpc", engine.grpc)  # fmt: skip
    assert (wrong.returncode, "nothing is open" in wrong.stderr) == (1, True), wrong.stderr
    answer = decide(client, "ann", "call_centre", week + 4)
    assert answer.open_offers == [], "every channel sees it closed"


def test_after_its_date_the_price_is_worked_out_anew(engine: EngineProcess, client: Client) -> None:
    salary(client, "cat", 1500)
    start = int(time.time() * 1_000)
    begun = decide(client, "cat", "call_centre", start)
    salary(client, "cat", 3000)
    resume = decisions_pb2.Resume(decision_id=begun.decision_id)
    last = decide(client, "cat", "branch", start + 14 * DAY_MS - 1, resume=resume).offers[0]
    assert last.parameters["amount"].number == 4500.0
    late = start + 14 * DAY_MS
    anew = decide(client, "cat", "branch", late, resume=resume).offers[0]
    assert (anew.parameters["amount"].number, anew.parameters["financing"].text) == (9000.0, "48 months")
    assert anew.price_held_until_ms == late + 14 * DAY_MS
    assert anew.expires_ms == begun.offers[0].expires_ms, "the same offer, and it expires when it did"
    # What is promised then is held in its turn.
    salary(client, "cat", 5000)
    held = decide(client, "cat", "web", late + DAY_MS, resume=resume).offers[0]
    assert (held.parameters["amount"].number, held.price_held_until_ms) == (9000.0, late + 14 * DAY_MS)
    body = {"customer_id": "cat", "channel": "web", "resume": {"decision_id": begun.decision_id}}
    asked = Request(f"http://{engine.http}/v1/decide", json.dumps(body | {"time_ms": late + DAY_MS}).encode())
    with urlopen(asked, timeout=5) as response:
        [over_http] = json.load(response)["offers"]
    assert over_http["parameters"]["rate"] == {"number": 0.049}
    assert over_http["price_held_until_ms"] == str(late + 14 * DAY_MS)
    [seen] = decide(client, "cat", "branch", late + DAY_MS, resume=resume).open_offers
    assert (seen.decision_id, seen.parameters["amount"].number) == (begun.decision_id, 9000.0)
