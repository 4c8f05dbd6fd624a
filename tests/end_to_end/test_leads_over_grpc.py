"""A batch, leads and signed lists of a running engine: over gRPC, HTTP and the command line."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import polars
import pytest
from click.testing import CliRunner, Result

from engine.cli import main
from opportune.v1 import decisions_pb2, events_pb2, leads_pb2, leads_pb2_grpc
from tests.engine_process import Client, EngineProcess
from tests.waiting import wait_until

CONFIG = """
opportune: 1
name: bank
silence: false
channels: [{id: branch_call}, {id: web}]
events: [{type: visit}, {type: move, attributes: {branch_id: {type: text}}}]
entities: [{kind: branch, attribute: branch_id}]
features:
  - {name: visits, event: visit, function: count, input: {range: [0, 10]}}
segments:
  - {name: visitor, when: visits > 0.0}
offers:
  - {id: card, value: 40, window: 3d, treatments: [{text: a card}, {text: karta, language: cs}]}
  - {id: loan, value: 90, window: 3d, eligibility: ["visits > 1.0"], treatments: [{text: a loan}]}
fallback: {branch_call: [card]}
"""
CUSTOMERS = [f"c{n:03}" for n in range(120)]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path_factory.mktemp("leads"), config=CONFIG) as engine:
        yield engine.start()
        assert engine.stop() == 0
        engine.replay()


@pytest.fixture(scope="module")
def client(engine: EngineProcess) -> Iterator[Client]:
    with engine.client() as client:
        events = []
        for at, name in enumerate(CUSTOMERS[:60]):
            visits = [f"v{at}-{n}" for n in range(at % 3)]
            events += [events_pb2.Event(id=visit, source="t", type="visit", customer_id=name) for visit in visits]
            move = events_pb2.Event(id=f"m{at}", source="t", type="move", customer_id=name)
            move.attributes["branch_id"].text = str(at % 2)
            events.append(move)
        assert client.events.Publish(events_pb2.PublishRequest(events=events), timeout=5).accepted == len(events)
        newest = CUSTOMERS[59]
        wait_until(lambda: _visits(client, newest) == 2, 10, "the events are folded")
        yield client


def _visits(client: Client, name: str) -> float:
    from opportune.v1 import customers_pb2

    found = client.customers.Get(customers_pb2.GetCustomerRequest(customer_id=name), timeout=5)
    return float(found.features[0].value.number)


def run(*argv: str) -> Result:
    """`opportune ARGV…`, in this process: to start another one for each takes seconds."""
    return CliRunner().invoke(main, argv)


def said(done: Result) -> str:
    assert done.exit_code == 0, done.output
    return done.stdout


def posted(engine: EngineProcess, path: str, body: dict[str, Any]) -> bytes:
    data: bytes = urlopen(Request(f"http://{engine.http}{path}", json.dumps(body).encode()), timeout=20).read()
    return data


def decisions_of(client: Client, names: list[str], **fields: Any) -> dict[str, decisions_pb2.DecideResponse]:
    request = decisions_pb2.DecideManyRequest(channel="branch_call", **fields)
    for name in names:
        request.customers.add(customer_id=name)
    return {answer.customer_id: answer.answer for answer in client.decisions.DecideMany(request, timeout=20)}


def test_a_batch_over_grpc_and_http_is_one_batch(engine: EngineProcess, client: Client) -> None:
    names = [f"b{n}" for n in range(300)]
    made = decisions_of(client, names, batch_id="first")
    assert len(made) == 300 and all(answer.decision_id for answer in made.values())
    customers = [{"customer_id": name} for name in [*names, ""]]
    body = {"batch_id": "first", "channel": "branch_call", "customers": customers}
    lines = [json.loads(line) for line in posted(engine, "/v1/decide-many", body).splitlines()]
    assert len(lines) == 301
    assert [line["error"]["status"] for line in lines if "error" in line] == ["INVALID_ARGUMENT"]
    again = {line["customer_id"]: line["answer"] for line in lines if "answer" in line}
    assert {name: answer["decision_id"] for name, answer in again.items()} == {
        name: answer.decision_id for name, answer in made.items()
    }


def test_from_a_list_of_customers_to_what_they_said(engine: EngineProcess, client: Client, tmp_path: Path) -> None:
    """The best ones get the places, only they are decided for, and it goes on where it was."""
    people, sellers, out = tmp_path / "people.csv", tmp_path / "sellers.csv", tmp_path / "leads.csv"
    people.write_text("customer\n" + "\n".join(CUSTOMERS) + "\n")
    sellers.write_text("seller,capacity,branch\nann,5,0\nbob,4,1\ncarl,3,\n")
    make = ["leads", "make", "--data", str(engine.data), "--channel", "branch_call", "--customers", str(people)]
    make += ["--sellers", str(sellers), "--batch", "may"]
    planned = run(*make, "--out", str(out), "--dry-run")
    assert "12 planned of an expected worth of" in said(planned) and "108 no place" in planned.stdout
    looked = decisions_of(client, CUSTOMERS, batch_id="may", preview=True, limit=1)
    assert not any(answer.decision_id for answer in looked.values()), "nobody was decided for by looking"

    assert "12 leads of an expected worth" in said(run(*make, "--out", str(out)))
    rows = list(csv.DictReader(out.open()))
    assert [row["seller"] for row in rows] == ["ann"] * 5 + ["bob"] * 4 + ["carl"] * 3
    chosen = {row["customer"] for row in rows}
    worths = {name: answer.offers[0].score for name, answer in looked.items()}
    assert min(worths[name] for name in chosen) >= sorted(worths.values())[-24], "of the best"
    for row in rows:
        at = int(row["customer"][1:])
        assert row["seller"] == "carl" or (at < 60 and at % 2 == (row["seller"] == "bob")), "sellers of their branch"
    looked = decisions_of(client, CUSTOMERS, batch_id="may", preview=True, limit=1)
    assert {name for name, answer in looked.items() if answer.decision_id} == chosen, "only they are recorded"

    again = tmp_path / "again.parquet"
    said(run(*make, "--out", str(again)))
    assert polars.read_parquet(again)["lead_id"].sort().to_list() == sorted(row["lead_id"] for row in rows)

    first = rows[0]["lead_id"]
    with_address = ("--grpc", engine.grpc)
    said(run("leads", "take", first, "--seller", "ann", *with_address))
    refused = run("leads", "take", first, "--seller", "bob", *with_address)
    assert refused.exit_code == 1 and "is with 'ann'" in refused.stderr
    said(run("leads", "return", first, "--seller", "ann", "--reason", "on leave", *with_address))
    said(run("leads", "take", first, "--seller", "bob", *with_address))
    ended = ("leads", "done", first, "--seller", "bob", "--outcome", "accepted", "--value", "70", *with_address)
    assert json.loads(said(run(*ended)))["lead"]["state"] == "LEAD_STATE_DONE"
    listed = json.loads(said(run("leads", "list", "--seller", "bob", "--list", "may", "--json", *with_address)))
    assert {lead["lead_id"]: lead["state"] for lead in listed["leads"]}[first] == "LEAD_STATE_DONE"
    table = said(run("leads", "report", "--list", "may", "--out", str(tmp_path / "r.csv"), *with_address))
    assert "worth of accepted" in table
    counts = {row["seller"]: row for row in csv.DictReader((tmp_path / "r.csv").open())}
    assert (counts["bob"]["accepted"], counts["ann"]["returned"], counts["ann"]["open"]) == ("1", "1", "4")
    stub = leads_pb2_grpc.LeadsStub(client.channel)
    page = stub.List(leads_pb2.ListLeadsRequest(list_id="may", state="LEAD_STATE_OPEN"), timeout=5)
    assert len(page.leads) == 11


def test_from_a_segment_and_with_wrong_files(engine: EngineProcess, client: Client, tmp_path: Path) -> None:
    sellers, out = tmp_path / "sellers.yaml", tmp_path / "leads.csv"
    sellers.write_text("- {seller: ann, capacity: 1000}\n")
    make = ["leads", "make", "--data", str(engine.data), "--channel", "branch_call", "--sellers", str(sellers)]
    make += ["--out", str(out)]
    segment = ["--segment", "visitor", "--config", str(engine.config)]
    assert "40 planned" in said(run(*make, *segment, "--dry-run"))
    none = run(*make, "--segment", "moon", "--config", str(engine.config))
    assert none.exit_code == 1 and "no segment 'moon' is declared; there are visitor" in none.stderr
    sellers.write_text("- {seller: ann}\n")
    wrong = run(*make, *segment)
    assert wrong.exit_code == 1 and "sellers.yaml:1: capacity: ''" in wrong.stderr


def test_a_signed_list_can_be_kept_and_verified(engine: EngineProcess, client: Client, tmp_path: Path) -> None:
    kept = tmp_path / "defaults.json"
    get = ("defaults", "get", "--grpc", engine.grpc, "--channel", "branch_call", "--language", "cs", "--out", str(kept))
    assert run(*get).exit_code == 0
    shown = said(run("defaults", "verify", str(kept), "--grpc", engine.grpc))
    assert "genuine: version" in shown and "1. card: karta" in shown
    with urlopen(f"http://{engine.http}/v1/defaults?channel=branch_call&language=cs", timeout=5) as answer:
        assert json.loads(answer.read())["key_id"] == json.loads(kept.read_text())["key_id"]
    before = json.loads(said(run("key", "show", "--grpc", engine.grpc)))["keys"]
    said(run("key", "rotate", "--data", str(engine.data)))
    after = json.loads(said(run("key", "show", "--data", str(engine.data))))["keys"]
    assert len(before) == 1 and [key["key_id"] for key in after][1] == before[0]["key_id"]
    said(run("defaults", "verify", str(kept), "--grpc", engine.grpc))
    fresh = json.loads(posted_get(engine, "/v1/defaults?channel=branch_call"))
    assert fresh["key_id"] == after[0]["key_id"], "the running server signs with the new key"
    kept.write_text(kept.read_text().replace("karta", "zlato"))
    tampered = run("defaults", "verify", str(kept), "--data", str(engine.data))
    assert tampered.exit_code == 1 and "one of the two was changed" in tampered.stderr


def posted_get(engine: EngineProcess, path: str) -> bytes:
    data: bytes = urlopen(f"http://{engine.http}{path}", timeout=5).read()
    return data
