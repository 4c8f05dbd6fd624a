"""People are forgotten over gRPC: with real processes, a real store, and kills at awkward moments.

Two engines see the same people, and one of them some more, who are then forgotten. Everybody is offered everything and
answers by rule, so what the others teach is the same in both.
"""

import json
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import grpc
import pytest

from engine.catalogue import Catalogue
from engine.config import load
from engine.learner import Learner
from engine.limits import PARTITIONS
from engine.store.redis import RedisStore
from engine.store.wire import Address, Connection
from opportune.v1 import common_pb2, customers_pb2, decisions_pb2, events_pb2, feedback_pb2
from tests.engine_process import CONFIG, Client, EngineProcess
from tests.redis_cluster import run_apart
from tests.waiting import wait_until

KNOWN = CONFIG.replace("events:\n", "identities: [{kind: cookie}]\nsilence: false\nevents:\n")
KNOWN = KNOWN.replace("limit: 2\n", "limit: 3\n")
OTHERS = [f"person-{number}" for number in range(4)]
KILLED = ("learn", "ingest", "serve-0", "store")
GONE = [f"forgotten-{number}" for number in range(len(KILLED))]


@contextmanager
def running(folder: Path) -> Iterator[tuple[EngineProcess, Client]]:
    with EngineProcess(folder, config=KNOWN) as engine, engine.start().client() as client:
        yield engine, client


def live(client: Client, people: Sequence[str], turns: int = 2) -> list[str]:
    """Each buys, is offered everything and answers some of it; returns the decisions."""
    decisions = []
    for turn in range(turns):
        for person in people:
            event = events_pb2.Event(id=f"{person}-{turn}", source="t", type="purchase", customer_id=person)
            event.attributes["amount"].number = 10 + turn
            client.events.Publish(events_pb2.PublishRequest(events=[event]), timeout=5)
        for person in people:
            wait_until(lambda p=person, n=turn + 1: known(client, p).events == n, 10, "the purchase is folded")
            cookie = common_pb2.Identity(kind="cookie", value=person)
            asked = decisions_pb2.DecideRequest(customer_id=person, channel="branch", limit=3, identities=[cookie])
            answer = client.decisions.Decide(asked, timeout=5)
            assert not answer.degraded
            assert sorted(offer.offer_id for offer in answer.offers) == ["card", "help", "loan"]
            decisions.append(answer.decision_id)
            for offer, stage in (("card", "ACCEPTED"), ("help", "DECLINED" if turn else "ACCEPTED")):
                report(client, answer.decision_id, offer, stage)
            if turn:
                report(client, answer.decision_id, "card", "CANCELLED")
    return decisions


def report(client: Client, decision: str, offer: str, stage: str) -> None:
    outcome = feedback_pb2.ReportRequest(
        decision_id=decision, offer_id=offer, stage=f"STAGE_{stage}", outcome_id=f"{decision} {offer} {stage}"
    )
    client.feedback.Report(outcome, timeout=5)


def known(client: Client, customer: str) -> customers_pb2.Customer:
    found: customers_pb2.Customer = client.customers.Get(
        customers_pb2.GetCustomerRequest(customer_id=customer), timeout=5
    )
    return found


def forget(client: Client, customer: str, request_id: str = "f1") -> customers_pb2.ForgetResponse:
    """Ask until it is done."""
    for _ in range(200):
        try:
            done: customers_pb2.ForgetResponse = client.customers.Forget(
                customers_pb2.ForgetRequest(request_id=request_id, customer_id=customer), timeout=20
            )
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE, error
        else:
            if not done.learner_pending:
                return done
        time.sleep(0.1)
    raise AssertionError(f"{customer} is not forgotten")


def statistics(engine: EngineProcess) -> bytes:
    """Those of the learner's checkpoint."""

    async def read() -> bytes:
        config, version, text = load(engine.config)
        store = await RedisStore.open(engine.redis_url, PARTITIONS)
        try:
            fields = await store.load_checkpoint()
        finally:
            await store.close()
        return Learner.restore(Catalogue.compile(config, version, text), PARTITIONS, fields).statistics.to_bytes()

    return run_apart(read())


async def mentions(url: str, names: Sequence[str]) -> list[bytes]:
    """Keys and values of the store that have one of these names in them."""
    connection = Connection(Address.parse(url))
    found = []
    try:
        [keys] = await connection.pipeline([(b"KEYS", b"*")], 5.0)
        for key in keys:
            [kind] = await connection.pipeline([(b"TYPE", key)], 5.0)
            read = {
                "string": (b"GET", key),
                "hash": (b"HGETALL", key),
                "stream": (b"XRANGE", key, b"-", b"+"),
            }[kind if isinstance(kind, str) else kind.decode()]
            [value] = await connection.pipeline([read], 5.0)
            found += [key for name in names if name.encode() in key or name.encode() in flat(value)]
    finally:
        await connection.close()
    return found


def flat(value: object) -> bytes:
    return value if isinstance(value, bytes) else b" ".join(map(flat, value)) if isinstance(value, list) else b""


def test_the_model_is_that_of_an_engine_that_never_saw_them_whatever_is_killed(tmp_path: Path) -> None:
    dice = Random(7)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with running(tmp_path / "a") as (engine, client), running(tmp_path / "b") as (other, never):
        everybody = [*OTHERS, *GONE]
        dice.shuffle(everybody)
        decisions = dict(zip([*everybody, *everybody], live(client, everybody), strict=True))
        live(never, [person for person in everybody if person in OTHERS])
        for person, name in zip(GONE, KILLED, strict=True):
            answers: list[customers_pb2.ForgetResponse] = []
            asking = threading.Thread(target=lambda p=person, a=answers: a.append(forget(client, p)))
            asking.start()
            time.sleep(dice.random() / 5)
            pid = engine.signal(name, signal.SIGKILL)
            asking.join(60)
            engine.wait_ready(replaced=pid)
            [done] = answers
            assert not known(client, person).state.known
            with pytest.raises(grpc.RpcError) as refused:
                client.decisions.Explain(decisions_pb2.ExplainRequest(decision_id=decisions[person]), timeout=5)
            assert refused.value.code() == grpc.StatusCode.NOT_FOUND
            assert done.decisions_out_of_reach == 0
        assert run_apart(mentions(engine.redis_url, OTHERS[:1])) != []
        assert run_apart(mentions(engine.redis_url, GONE)) == []
        wait_until(lambda: len(statistics(other)) > 100, 20, "a checkpoint with lessons is written")
        wait_until(lambda: statistics(other) == statistics(engine), 20, "the sums are the same")
        for each in (engine, other):
            assert each.stop() == 0
            each.replay()
        client_again = engine.start().client()
        with client_again:
            assert not known(client_again, GONE[0]).state.known
            assert statistics(engine) != b""
            live(client_again, GONE[:1], turns=1)
            assert known(client_again, GONE[0]).events == 1
        assert engine.stop() == 0
        engine.replay()


def test_on_the_command_line_and_over_http(tmp_path: Path) -> None:
    with running(tmp_path) as (engine, client):
        live(client, ["anna", "bob", "carl"], turns=1)
        done = engine.run("forget", "--grpc", engine.grpc, "--customer", "anna", "--request", "r1")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {
            "customer_id": "anna", "linked_names": "1", "features": "1", "events": "2", "decisions": "1",
            "outcomes": "2", "lessons": "2",
        } | {name: json.loads(done.stdout)[name] for name in ("features", "events")}  # fmt: skip
        again = engine.run("forget", "--grpc", engine.grpc, "--customer", "anna", "--request", "r1")
        assert "customer_id" not in json.loads(again.stdout)
        assert engine.run("forget", "--grpc", engine.grpc, "--identity", "cookie=unknown").returncode == 0
        assert engine.run("forget", "--grpc", engine.grpc).returncode == 2
        told = urlopen(Request(f"http://{engine.http}/v1/customers/bob?request_id=r2", method="DELETE"), timeout=20)
        assert json.load(told)["decisions"] == "1"
        body = json.dumps({"request_id": "r3", "customer_id": "carl"}).encode()
        told = urlopen(Request(f"http://{engine.http}/v1/customers/forget", body, method="POST"), timeout=20)
        assert json.load(told)["decisions"] == "1"
        for query in ("", "?request_id=a&request_id=b", "?request_id=a&kind=b"):
            with pytest.raises(HTTPError) as refused:
                urlopen(Request(f"http://{engine.http}/v1/customers/bob{query}", method="DELETE"), timeout=20)
            assert refused.value.code == 400
        assert engine.stop() == 0
        engine.replay()
