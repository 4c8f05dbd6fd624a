"""The timeline of a running engine: events by every way in, processes that die meanwhile, pages, the command line."""

import json
import signal
import time
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

import grpc
import pytest

from opportune.v1 import customers_pb2, decisions_pb2, events_pb2, feedback_pb2
from tests.engine_process import Client, EngineProcess
from tests.waiting import wait_until

CONFIG = """
opportune: 1
name: bank
silence: false
channels: [{id: web, placements: [hero]}, {id: branch}]
events:
  - type: call
    attributes: {topic: {type: text}}
    timeline: {kind: contact, channel: call_centre, text: "called about {topic}"}
  - type: complaint
    attributes: {case: {type: text}, topic: {type: text}, channel: {type: text}, state: {type: text}}
    timeline: {kind: complaint, channel: "{channel}", text: "{topic}", case: case, same: [topic],
               closes: {state: closed}}
  - {type: visit}
features:
  - {name: calls, event: call, function: count}
  - {name: visits, event: visit, function: count}
segments:
  - {name: caller, when: calls > 0.0}
offers:
  - {id: card, value: 40, treatments: [{text: a card}]}
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path_factory.mktemp("timeline"), config=CONFIG) as engine:
        yield engine.start()
        assert engine.stop() == 0
        engine.replay()


@pytest.fixture(scope="module")
def client(engine: EngineProcess) -> Iterator[Client]:
    with engine.client() as client:
        yield client


def publish(client: Client, customer: str, kind: str, event_id: str, time_ms: int = 0, **attributes: str) -> None:
    event = events_pb2.Event(id=event_id, source="test", type=kind, customer_id=customer, time_ms=time_ms)
    for name, value in attributes.items():
        event.attributes[name].text = value
    assert client.events.Publish(events_pb2.PublishRequest(events=[event]), timeout=5).accepted == 1


def get(client: Client, customer: str, **fields: Any) -> customers_pb2.Customer:
    request = customers_pb2.GetCustomerRequest(customer_id=customer, **fields)
    found: customers_pb2.Customer = client.customers.Get(request, timeout=5)
    return found


def when_folded(client: Client, customer: str, events: int) -> None:
    wait_until(lambda: get(client, customer).events == events, 10, f"{events} events of {customer} are folded")


def texts(client: Client, customer: str, size: int) -> list[str]:
    """All pages of the timeline, newest first."""
    found, token = [], ""
    while True:
        page = get(client, customer, page_size=size, page_token=token)
        found += [entry.text for entry in page.timeline]
        token = page.next_page_token
        if not token:
            return found


def test_events_decisions_and_outcomes_are_one_list(client: Client) -> None:
    now_ms = int(time.time() * 1_000)
    publish(client, "anna", "call", "2", now_ms - 1_000, topic="fees")
    publish(client, "anna", "call", "1", now_ms - 60_000, topic="a lost card")  # told late
    publish(client, "anna", "call", "2", now_ms - 1_000, topic="fees")  # and twice
    publish(client, "anna", "visit", "3", now_ms - 500)  # not on the timeline
    when_folded(client, "anna", 3)
    asked = decisions_pb2.DecideRequest(customer_id="anna", channel="web", placement="hero")
    decided = client.decisions.Decide(asked, timeout=5)
    outcome = feedback_pb2.ReportRequest(
        outcome_id="1", decision_id=decided.decision_id, offer_id="card", stage="STAGE_DECLINED"
    )
    client.feedback.Report(outcome, timeout=5)
    found = get(client, "anna")
    assert [(entry.channel, entry.placement, entry.text) for entry in found.timeline] == [
        ("web", "hero", "card: declined"),
        ("web", "hero", "offered card"),
        ("call_centre", "", "called about fees"),
        ("call_centre", "", "called about a lost card"),
    ]
    assert list(found.segments) == ["caller"]
    assert texts(client, "anna", 1) == [entry.text for entry in found.timeline]


def test_ingest_may_die_and_no_entry_is_lost_or_doubled(engine: EngineProcess, client: Client) -> None:
    """A hundred calls while ingest is killed again and again; the timeline is that of the calls, in their order."""
    begin_ms = int(time.time() * 1_000) - 200_000
    for number in range(100):
        if number % 25 == 10:
            engine.wait_ready(replaced=engine.signal("ingest", signal.SIGKILL))
        for _ in range(1 + number % 2):
            # In an order that is not that of time: 37 and 100 have no common factor.
            place = number * 37 % 100
            publish(client, "bob", "call", f"call-{place}", begin_ms + place * 1_000, topic=f"{place:02}")
    when_folded(client, "bob", 100)
    expected = [f"called about {place:02}" for place in reversed(range(100))]
    assert texts(client, "bob", 7) == texts(client, "bob", 500) == expected


def test_a_complaint_in_two_channels_is_one_case(engine: EngineProcess, client: Client) -> None:
    publish(client, "carl", "complaint", "1", topic="fees", channel="branch")
    event = {"specversion": "1.0", "id": "2", "source": "web", "type": "complaint", "subject": "carl"}
    body = json.dumps(event | {"data": {"topic": "fees", "channel": "web", "case": "C-1"}}).encode()
    request = Request(f"http://{engine.http}/v1/events", body, {"Content-Type": "application/cloudevents+json"})
    with urlopen(request, timeout=5) as response:
        assert json.loads(response.read())["accepted"] == 1
    when_folded(client, "carl", 2)
    [case] = get(client, "carl").cases
    assert (case.case_id, case.complaints, list(case.channels), case.open) == ("C-1", 2, ["branch", "web"], True)
    publish(client, "carl", "complaint", "3", case="C-1", state="closed")
    when_folded(client, "carl", 3)
    with urlopen(f"http://{engine.http}/v1/customers/carl?kinds=TIMELINE_KIND_COMPLAINT", timeout=5) as response:
        told = json.loads(response.read())
    assert [("open" in case, case["complaints"]) for case in told["cases"]] == [(False, 2)]
    assert len(told["timeline"]) == 3


def test_wrong_pages_are_refused_on_the_wire(client: Client) -> None:
    for fields in ({"page_size": 501}, {"page_token": "x"}, {"kinds": [99]}):
        with pytest.raises(grpc.RpcError) as caught:
            get(client, "anna", **fields)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert next(iter(fields)) in caught.value.details()


def test_the_command_shows_a_page(engine: EngineProcess, client: Client) -> None:
    publish(client, "dora", "call", "1", topic="[bold]\x1b[31mred")
    publish(client, "dora", "complaint", "2", topic="fees", channel="branch")
    when_folded(client, "dora", 2)
    shown = engine.run("customer", "--grpc", engine.grpc, "--customer", "dora")
    assert shown.returncode == 0, shown.stderr
    for part in ("dora · 2 events", "segments: caller", "calls", "complaint cases", "open", "branch"):
        assert part in shown.stdout, shown.stdout
    assert "called about [bold]�[31mred" in shown.stdout, "a customer's words are shown and not obeyed"
    first = engine.run("customer", "--grpc", engine.grpc, "--customer", "dora", "--page-size", "1", "--json")
    token = json.loads(first.stdout)["next_page_token"]
    rest = engine.run(
        "customer", "--grpc", engine.grpc, "--customer", "dora", "--page-size", "1", "--page", token, "--kind", "note"
    )
    assert rest.returncode == 1
    assert rest.stderr.startswith("Error: INVALID_ARGUMENT: page_token: of another request")
    nobody = engine.run("customer", "--grpc", engine.grpc, "--customer", "nobody")
    assert (nobody.returncode, "nothing is known" in nobody.stdout) == (0, True)
