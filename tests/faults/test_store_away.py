"""The store stops answering, or its disk is full: the engine says so in time, and goes on by itself afterwards."""

import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import psutil

from engine.limits import DECIDE_COMMIT_WAIT_MS_MAX, DECIDE_STATE_WAIT_MS_MAX, WRITE_WAIT_MS_MAX
from opportune.v1 import decisions_pb2, events_pb2, feedback_pb2
from tests.engine_process import Client, EngineProcess
from tests.faults.traffic import Traffic
from tests.waiting import wait_until

SLACK_S = 1.0
"""For a busy machine."""
AWAY_S = 10.0
REFUSED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)


def test_a_store_that_hangs_for_seconds_loses_nothing_and_nothing_waits_for_it(tmp_path: Path) -> None:
    with EngineProcess(tmp_path) as engine, Traffic(engine.start(), seed=3) as traffic, engine.client() as client:
        traffic.wait_for_more()
        answer = decide(client, "before")
        engine.signal("store", signal.SIGSTOP)
        began_s = time.monotonic()
        while time.monotonic() < began_s + AWAY_S:
            degraded, took_s = timed(lambda: decide(client, "meanwhile"))
            assert degraded.degraded and not degraded.decision_id
            assert [offer.offer_id for offer in degraded.offers] == ["card"], "the fallback list"
            assert took_s < (DECIDE_STATE_WAIT_MS_MAX + DECIDE_COMMIT_WAIT_MS_MAX) / 1e3 + SLACK_S
            error, took_s = timed(lambda: refusal(client.feedback.Report, report_of(answer)))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert took_s < WRITE_WAIT_MS_MAX / 1e3 + SLACK_S
            error, took_s = timed(lambda: refusal(client.events.Publish, purchase("meanwhile", 1)))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert "send it again" in str(error.details())
            assert took_s < WRITE_WAIT_MS_MAX / 1e3 + SLACK_S
        engine.signal("store", signal.SIGCONT)
        wait_until(lambda: decide(client, "after").decision_id, 5, "decisions are normal again")
        client.feedback.Report(report_of(answer), timeout=5)
        traffic.wait_for_more()
        traffic.stop()
        assert traffic.statuses["UNAVAILABLE"]
        assert not traffic.statuses["DEADLINE_EXCEEDED"]
        traffic.check(engine)
        assert engine.stop() == 0
        engine.replay()


def test_a_full_disk_is_told_and_what_was_acknowledged_stays(tmp_path: Path) -> None:
    with EngineProcess(tmp_path) as engine, Traffic(engine.start(), seed=4) as traffic, engine.client() as client:
        traffic.wait_for_more()
        answer = decide(client, "before")
        store = engine.pids["store"]
        _, hard = resource.prlimit(store, resource.RLIMIT_FSIZE)
        resource.prlimit(store, resource.RLIMIT_FSIZE, (append_only_bytes(store), hard))
        try:
            # The engine's own events fill the last bytes, and one write may still be taken: see engine.embedded.
            error = wait_until(lambda: told(client.events.Publish, purchase("full", 2)), 10, "Publish is refused")
            assert error.code() in REFUSED
            assert error.details()
            error = refusal(client.feedback.Report, report_of(answer))
            assert error.code() in REFUSED
            assert error.details()
            full = decide(client, "full")
            assert full.degraded and [offer.offer_id for offer in full.offers] == ["card"]
            time.sleep(1)
            assert engine.pids["store"] == store, "the store lives on"
        finally:
            resource.prlimit(store, resource.RLIMIT_FSIZE, (hard, hard))
        wait_until(lambda: decide(client, "after").decision_id, 10, "decisions are normal again")
        client.feedback.Report(report_of(answer), timeout=5)
        traffic.wait_for_more()
        traffic.stop()
        traffic.check(engine)
        assert engine.stop() == 0
        engine.replay()


def append_only_bytes(pid: int) -> int:
    """Size of the file that the store appends to."""
    files = [Path(file.path) for file in psutil.Process(pid).open_files() if file.path.endswith(".aof")]
    return max(file.stat().st_size for file in files)


def decide(client: Client, customer: str) -> Any:
    return client.decisions.Decide(decisions_pb2.DecideRequest(customer_id=customer, channel="web"), timeout=5)


def purchase(customer: str, amount: int) -> events_pb2.PublishRequest:
    event = events_pb2.Event(id=os.urandom(4).hex(), source="test", type="purchase", customer_id=customer)
    event.attributes["amount"].number = amount
    return events_pb2.PublishRequest(events=[event])


def report_of(answer: Any) -> feedback_pb2.ReportRequest:
    return feedback_pb2.ReportRequest(
        outcome_id="o",
        decision_id=answer.decision_id,
        offer_id=answer.offers[0].offer_id,
        stage="STAGE_PRESENTED",  # teaches nothing: what is learnt is the traffic's
    )


def told(method: Any, request: Any) -> grpc.RpcError | None:
    try:
        method(request, timeout=5)
    except grpc.RpcError as error:
        return error
    return None


def refusal(method: Any, request: Any) -> grpc.RpcError:
    error = told(method, request)
    assert error is not None, "it was taken"
    return error


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    began_s = time.monotonic()
    return call(), time.monotonic() - began_s
