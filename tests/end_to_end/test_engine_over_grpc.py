"""The engine as its callers see it: started by `opportune serve`, asked over gRPC, HTTP and the command line."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import grpc
import psutil
import pytest

from opportune.v1 import common_pb2, customers_pb2, decisions_pb2, events_pb2, feedback_pb2
from tests.engine_process import CONFIG, Client, EngineProcess
from tests.waiting import wait_until

SHORT_WINDOWS = CONFIG.replace("value: 30,", "value: 30, window: 1s,")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path_factory.mktemp("engine"), config=SHORT_WINDOWS) as engine:
        yield engine.start()
        assert engine.stop() == 0
        engine.replay()


@pytest.fixture(scope="module")
def client(engine: EngineProcess) -> Iterator[Client]:
    with engine.client() as client:
        yield client


def test_an_event_is_in_the_next_decision(client: Client) -> None:
    publish(client, "anna", amount=40, event_id="1")
    publish(client, "anna", amount=2, event_id="2")
    publish(client, "anna", amount=2, event_id="2")  # twice is once
    wait_until(lambda: known_of(client, "anna", events=2), 5, "both events are folded")
    wait_until(lambda: known_of(client, "anna", events=2).duplicates, 5, "and so is the repeat")
    known = known_of(client, "anna", events=2)
    assert {feature.name: feature.value.number for feature in known.features} == {"spent": 42, "purchases": 2}
    assert known.duplicates == 1
    answer = decide(client, "anna")
    assert answer.state.known
    assert answer.state.watermark == known.state.watermark
    assert answer.state.age_ms < 60_000
    assert all(0 < offer.propensity <= 1 for offer in answer.offers)


def test_outcomes_move_the_policy_and_the_estimate(client: Client) -> None:
    before = decide(client, "new-0")
    first = {offer.offer_id: offer.acceptance_probability for offer in before.offers}
    for n in range(30):
        answer = decide(client, f"bob-{n}")
        for offer in answer.offers:
            stage = "ACCEPTED" if offer.offer_id == "loan" else "DECLINED"
            report(client, answer.decision_id, offer.offer_id, stage)

    def learnt() -> Any:
        now = decide(client, "new-1")
        return now if now.policy_version > before.policy_version and estimate(now, "loan") > 0.5 else None

    after = wait_until(learnt, 10, "the policy that was learnt serves")
    assert estimate(after, "loan") > first.get("loan", 0.05)
    assert after.offers[0].offer_id == "loan", "worth most, and now known to be wanted"


def test_a_decision_is_explained_as_it_was_given(client: Client) -> None:
    request = decisions_pb2.DecideRequest(customer_id="carl", channel="branch", request_id="why")
    request.context["minutes"].number = 12
    answer = client.decisions.Decide(request, timeout=5)
    told = client.decisions.Explain(decisions_pb2.ExplainRequest(decision_id=answer.decision_id), timeout=5)
    assert told.request_id == "why"
    assert told.channel == "branch"
    assert told.context["minutes"] == common_pb2.Value(number=12)
    assert [(c.offer_id, c.propensity) for c in told.candidates if c.rank] == [
        (offer.offer_id, offer.propensity) for offer in answer.offers
    ]
    assert "carl" in told.summary
    again = client.decisions.Decide(request, timeout=5)
    assert again.repeated
    assert again.decision_id == answer.decision_id


def test_every_channel_sees_what_is_open_until_it_is_answered(client: Client) -> None:
    answer = decide(client, "dora", channel="web")
    offers = [offer.offer_id for offer in answer.offers]
    assert offers
    seen = decide(client, "dora", channel="branch")
    assert {(o.decision_id, o.offer_id) for o in seen.open_offers} == {(answer.decision_id, at) for at in offers}
    report(client, answer.decision_id, offers[0], "DECLINED")
    left = decide(client, "dora", channel="web").open_offers
    assert (answer.decision_id, offers[0]) not in {(offer.decision_id, offer.offer_id) for offer in left}
    known = client.customers.Get(customers_pb2.GetCustomerRequest(customer_id="dora"), timeout=5)
    stages = {(offer.decision_id, offer.offer_id): offer.stage for offer in known.offers}
    assert stages[answer.decision_id, offers[0]] == common_pb2.STAGE_DECLINED


def test_time_of_events_expires_offers(client: Client) -> None:
    def helped() -> Any:
        helped.n = getattr(helped, "n", 0) + 1  # type: ignore[attr-defined]
        answer = decide(client, f"eve-{helped.n}", channel="branch")  # type: ignore[attr-defined]
        return answer if any(offer.offer_id == "help" for offer in answer.offers) else None

    answer = wait_until(helped, 10, "help is offered to somebody")
    # Its window is a second long. A minute later by the caller's clock, though not by ours, it is no longer open.
    later_ms = int(time.time() * 1_000) + 60_000
    request = decisions_pb2.DecideRequest(customer_id=answer.customer_id, channel="branch", time_ms=later_ms)
    still = {offer.offer_id for offer in client.decisions.Decide(request, timeout=5).open_offers}
    assert still == {offer.offer_id for offer in answer.offers} - {"help"}
    with pytest.raises(grpc.RpcError) as caught:
        report(client, answer.decision_id, "help", "IGNORED", time_ms=later_ms)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    late = report(client, answer.decision_id, "help", "ACCEPTED", time_ms=later_ms)
    assert late.late, "a late yes still counts"


def test_callers_go_before_lessons(engine: EngineProcess) -> None:
    level = {name: psutil.Process(pid).nice() for name, pid in engine.pids.items()}
    assert level["learn"] > level["serve-0"] == level["ingest"] == level["store"]
    weighed = {name: session_nice(pid) for name, pid in engine.pids.items()}
    if None not in weighed.values():
        assert weighed["learn"] == level["learn"]
        assert weighed["serve-0"] == weighed["ingest"] == weighed["store"] == 0


def session_nice(pid: int) -> int | None:
    """How nice the session of a process is; None where Linux does not weigh it: no such file, or nothing in it."""
    try:
        words = Path(f"/proc/{pid}/autogroup").read_text().split()
    except OSError:
        return None
    return int(words[-1]) if words else None


def test_http_is_the_same_engine(engine: EngineProcess, client: Client) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "web", "type": "purchase", "subject": "finn"}
    published = post(engine, "/v1/events", event | {"data": {"amount": 7}}, "application/cloudevents+json")
    assert published["accepted"] == 1
    wait_until(lambda: known_of(client, "finn", events=1), 5, "the event is folded")
    question = {"customer_id": "finn", "channel": "web"}
    answers = (post(engine, "/v1/decide", question) for _ in range(20))
    answer = next(answer for answer in answers if "offers" in answer)  # exploring, it may say nothing for once
    assert answer["state"]["known"]
    offer = answer["offers"][0]["offer_id"]
    outcome = {"outcome_id": "1", "decision_id": answer["decision_id"], "offer_id": offer, "stage": "STAGE_PRESENTED"}
    assert post(engine, "/v1/report", outcome)["stage"] == "STAGE_PRESENTED"
    assert post(engine, "/v1/report", outcome)["duplicate"]
    assert post(engine, "/v1/explain", {"decision_id": answer["decision_id"]})["customer_id"] == "finn"
    assert post(engine, "/v1/customers", {"customer_id": "finn"})["events"] == "1"
    with urlopen(f"http://{engine.http}/healthz", timeout=5) as response:
        assert response.read() == b"ok"


def test_the_command_line_against_it(engine: EngineProcess) -> None:
    asked = ("--grpc", engine.grpc, "--customer", "gina", "--channel", "web", "--context", "minutes=5", "--explain")
    done = engine.run("decide", *asked, "--json")
    assert done.returncode == 0, done.stderr
    decoder = json.JSONDecoder()
    answer, end = decoder.raw_decode(done.stdout)
    told, _ = decoder.raw_decode(done.stdout[end:].lstrip())
    assert told["decision_id"] == answer["decision_id"]
    assert told["context"] == {"minutes": {"number": 5.0}}
    page = engine.run("decide", *asked)
    answer, end = decoder.raw_decode(page.stdout)
    explained = engine.run("explain", "--grpc", engine.grpc, answer["decision_id"])
    assert page.stdout[end:].lstrip() == explained.stdout
    first = engine.run("explain", "--grpc", engine.grpc, told["decision_id"])
    assert told["brief"] in first.stdout.splitlines(), "by another policy, if it has learnt since"
    what = ("--decision", answer["decision_id"], "--offer", answer["offers"][0]["offer_id"], "--stage", "accepted")
    assert json.loads(engine.run("report", "--grpc", engine.grpc, *what).stdout)["stage"] == "STAGE_ACCEPTED"
    assert json.loads(engine.run("report", "--grpc", engine.grpc, *what).stdout)["duplicate"]
    refused = engine.run("report", "--grpc", engine.grpc, *what[:-1], "declined")
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: FAILED_PRECONDITION: stage:")


def test_commands_on_the_configuration(engine: EngineProcess) -> None:
    done = engine.run("validate", str(engine.config))
    assert done.returncode == 0
    assert "3 offers" in done.stdout
    listed = engine.run("features", "--config", str(engine.config))
    assert listed.returncode == 0
    assert "spent" in listed.stdout
    assert re.search(r"record: \d+ bytes after one event of each type, \d+ after one an hour", listed.stdout)
    wrong = engine.folder / "wrong.yaml"
    wrong.write_text(CONFIG.replace("value: 90", "value: much"))
    done = engine.run("validate", str(wrong))
    assert done.returncode == 1
    assert f"{wrong}:" in done.stderr and "value" in done.stderr


def test_a_running_engine_can_be_replayed(engine: EngineProcess) -> None:
    shown = engine.replay()
    assert "equal" in shown
    at = ("--data", str(engine.data))
    again = engine.run("replay", *at, "--decisions", "500", "--json", str(engine.folder / "again.json"))
    assert again.returncode == 0, again.stderr
    made = json.loads((engine.folder / "again.json").read_text())
    assert made and all(each["equal"] for each in made)
    one = engine.run("replay", *at, "--decision", made[0]["decision_id"])
    assert one.returncode == 0 and "equal to the last bit" in one.stdout
    gone = engine.run("replay", *at, "--decision", "0-1-0")
    assert gone.returncode == 2 and "decision 0-1-0: there is none, or its record was retired" in gone.stderr
    edited = engine.folder / "edited.yaml"
    edited.write_text(CONFIG.replace("value: 90", "value: 9"))
    configs = ("--config", str(engine.config), "--policy", str(edited))
    shown = engine.run("whatif", *configs, "--log", str(engine.data)).stdout
    assert f"{len(made):,} decisions" in shown and "edited" in shown
    both = engine.run("replay", "--config", str(engine.config))
    assert both.returncode == 2
    assert "--data or --redis" in both.stderr


def publish(client: Client, customer: str, amount: int, event_id: str) -> None:
    event = events_pb2.Event(id=event_id, source="test", type="purchase", customer_id=customer)
    event.attributes["amount"].number = amount
    assert client.events.Publish(events_pb2.PublishRequest(events=[event]), timeout=5).accepted == 1


def known_of(client: Client, customer: str, events: int) -> Any:
    found = client.customers.Get(customers_pb2.GetCustomerRequest(customer_id=customer), timeout=5)
    return found if found.events == events else None


def decide(client: Client, customer: str, channel: str = "web") -> Any:
    answer = client.decisions.Decide(decisions_pb2.DecideRequest(customer_id=customer, channel=channel), timeout=5)
    assert not answer.degraded
    return answer


def report(client: Client, decision: str, offer: str, stage: str, time_ms: int = 0) -> Any:
    request = feedback_pb2.ReportRequest(
        outcome_id=f"{decision}-{offer}-{stage}",
        decision_id=decision,
        offer_id=offer,
        stage=f"STAGE_{stage}",
        time_ms=time_ms,
    )
    return client.feedback.Report(request, timeout=5)


def estimate(answer: Any, offer: str) -> float:
    return next((float(o.acceptance_probability) for o in answer.offers if o.offer_id == offer), 0.0)


def post(engine: EngineProcess, path: str, body: Any, content_type: str = "application/json") -> Any:
    request = Request(f"http://{engine.http}{path}", json.dumps(body).encode(), {"Content-Type": content_type})
    with urlopen(request, timeout=5) as response:
        return json.loads(response.read())
