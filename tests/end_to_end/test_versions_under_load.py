"""Versions are applied and gone back to while callers go on, over two real servers: nothing is refused for it."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator

import grpc
import pytest

from opportune.v1 import decisions_pb2, events_pb2, feedback_pb2, policies_pb2, policies_pb2_grpc
from tests.engine_process import CONFIG, Client, EngineProcess
from tests.waiting import wait_until

DEARER = CONFIG.replace("value: 40,", "value: 400,")
OTHER_OFFERS = CONFIG.replace("  - {id: card, value: 40,", "  - {id: gold, value: 80,").replace("[card]", "[gold]")
OTHER_FEATURES = CONFIG.replace(
    "  - {name: purchases,", "  - {name: visits, event: purchase, function: recency}\n  - {name: purchases,"
)
CALLERS = 6
OVERLOADED = (decisions_pb2.DEGRADED_REASON_STATE_STORE_UNAVAILABLE, decisions_pb2.DEGRADED_REASON_COMMIT_FAILED)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path_factory.mktemp("versions"), "--servers", "2") as engine:
        yield engine.start()
        assert engine.stop() == 0


def connected(engine: EngineProcess) -> Client:
    """A client whose connection stands: on a busy machine that may take longer than gRPC gives the first try."""
    client = engine.client()
    grpc.channel_ready_future(client.channel).result(timeout=20)
    return client


class Callers:
    """Callers that decide and report without a pause, each on a connection of its own."""

    def __init__(self, engine: EngineProcess) -> None:
        self.versions: Counter[str] = Counter()
        self.failures: list[str] = []
        self.decided: list[decisions_pb2.DecideResponse] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(engine, n)) for n in range(CALLERS)]

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call(self, engine: EngineProcess, number: int) -> None:
        with connected(engine) as client:
            count = 0
            while not self._stop.is_set():
                count += 1
                request = decisions_pb2.DecideRequest(customer_id=f"c{number}-{count % 200}", channel="web")
                try:
                    answer = client.decisions.Decide(request, timeout=5)
                    if answer.degraded in OVERLOADED:
                        continue  # the machine is too busy for the store to answer in time; it has no decision id
                    if answer.degraded:
                        self.failures.append(f"degraded {answer.degraded}")
                    if count % 5 == 0:
                        publish(client, request.customer_id, f"{number}-{count}")
                    self.versions[answer.config_version] += 1
                    self.decided.append(answer)
                    stage = "ACCEPTED" if count % 3 else "DECLINED"
                    for offer in answer.offers[:1]:
                        report(client, answer, offer.offer_id, stage, f"{number}-{count}")
                except grpc.RpcError as error:
                    self.failures.append(f"{error.code()}: {error.details()}")


def publish(client: Client, customer: str, event_id: str) -> None:
    event = events_pb2.Event(id=event_id, source="tests", type="purchase", customer_id=customer)
    event.attributes["amount"].number = 10.0
    assert not client.events.Publish(events_pb2.PublishRequest(events=[event]), timeout=5).rejected


def report(client: Client, answer: decisions_pb2.DecideResponse, offer: str, stage: str, outcome: str) -> None:
    told = feedback_pb2.ReportRequest(
        outcome_id=outcome, decision_id=answer.decision_id, offer_id=offer, stage=f"STAGE_{stage}"
    )
    client.feedback.Report(told, timeout=5)


def serving(engine: EngineProcess) -> set[str]:
    """Versions that answer, asked on connections of their own so that both servers are."""
    found = set()
    for number in range(8):
        with engine.client() as client:
            request = decisions_pb2.DecideRequest(customer_id=f"probe-{number}", channel="web")
            found.add(client.decisions.Decide(request, timeout=20, wait_for_ready=True).config_version)
    return found


def test_versions_change_under_load_without_a_refused_request(engine: EngineProcess) -> None:
    with connected(engine) as client, Callers(engine) as callers:
        stub = policies_pb2_grpc.PoliciesStub(client.channel)
        before = decisions_pb2.DecideRequest(customer_id="kept", channel="web", request_id="first")
        first = client.decisions.Decide(before, timeout=5)
        start = first.config_version
        switched = []
        for text in (DEARER, OTHER_OFFERS, OTHER_FEATURES):
            done = stub.Propose(policies_pb2.ProposeRequest(text=text.encode(), by="ann", note="more"), timeout=20)
            begun = time.monotonic()
            assert done.state == "active"
            wait_until(lambda done=done: serving(engine) == {done.version}, 10, "both servers serve it")  # type: ignore[misc]
            switched.append(time.monotonic() - begun)
        back = stub.Rollback(policies_pb2.RollbackRequest(version=start, by="bob"), timeout=20)
        assert (back.state, back.version) == ("active", start)
        wait_until(lambda: serving(engine) == {start}, 10, "both servers went back")
        time.sleep(0.5)
    assert callers.failures == []
    assert len(callers.versions) == 4, "each version has made decisions"
    # What was decided under one version can be reported on and told under another.
    with connected(engine) as client:
        # The first offer of each was reported on already.
        by_version = {answer.config_version: answer for answer in callers.decided if len(answer.offers) > 1}
        assert by_version
        for version, answer in by_version.items():
            told = client.decisions.Explain(decisions_pb2.ExplainRequest(decision_id=answer.decision_id), timeout=5)
            assert told.config_version == version
            report(client, answer, answer.offers[-1].offer_id, "ACCEPTED", f"late-{version}")
        again = client.decisions.Decide(before, timeout=5)
        assert again.repeated and [o.offer_id for o in again.offers] == [o.offer_id for o in first.offers]
    # A second is promised to the slowest of machines that do nothing else.
    assert min(switched) < 1.0, switched
    learner, told = engine.data / "logs" / "learn.log", f"version {start} is followed from here on"
    wait_until(lambda: told in learner.read_text(), 10, "the learner went back, too")


def test_learning_goes_on_with_the_version_in_force(engine: EngineProcess) -> None:
    with connected(engine) as client:
        seen = client.decisions.Decide(decisions_pb2.DecideRequest(customer_id="n", channel="web"), timeout=5)
        assert seen.policy_version > 0, "what was learnt before serves on"

        def learnt() -> bool:
            request = decisions_pb2.DecideRequest(customer_id=f"l{time.monotonic_ns()}", channel="web")
            answer = client.decisions.Decide(request, timeout=5)
            report(client, answer, answer.offers[0].offer_id, "ACCEPTED", answer.decision_id)
            return answer.policy_version > seen.policy_version + 2

        wait_until(learnt, 10, "outcomes make new policies")


def test_the_commands_know_the_history_and_what_would_change(engine: EngineProcess) -> None:
    data = ("--data", str(engine.data))
    dearer = engine.folder / "dearer.yaml"
    dearer.write_text(DEARER.replace("value: 90,", "value: 9,"))
    dry = engine.run("apply", str(dearer), *data, "--by", "ann", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    for said in ("~ offer card: value: 40 → 400", "~ offer loan: value: 90 → 9", "recorded decisions"):
        assert said in dry.stdout
    assert "nothing has changed" in dry.stdout
    broken = engine.folder / "broken.yaml"
    broken.write_text(CONFIG.replace("id: loan", "id: card").replace("value: 40,", "value: 40, lever: 1e308,"))
    refused = engine.run("apply", str(broken), *data, "--by", "ann")
    assert refused.returncode == 1
    assert "broken.yaml:" in refused.stderr and "lever" in refused.stderr
    trail = json.loads(engine.run("versions", *data, "--trail", "--json").stdout)
    steps = [(step["who"], step["what"]) for step in trail]
    assert steps == [("start", "start"), *[("ann", "apply")] * 3, ("bob", "rollback")]


def test_a_file_that_was_forgotten_on_a_disk_turns_nothing_back(engine: EngineProcess) -> None:
    [start] = serving(engine)
    engine.stop()
    engine.config.write_text(DEARER)
    engine.start()
    assert serving(engine) == {start}
    assert f"version {start} is in force: to serve with the file, apply it" in engine.last_words()
