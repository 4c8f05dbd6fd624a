"""Starts, stops, second engines and other ways to run: what an operator does to an engine under traffic."""

import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.limits import STOP_MS_MAX
from opportune.v1 import customers_pb2, decisions_pb2
from tests.engine_process import EngineProcess, OwnRedis
from tests.faults.traffic import Traffic
from tests.waiting import wait_until


def test_sigterm_drains_under_load_and_the_next_life_goes_on_where_it_was(tmp_path: Path) -> None:
    with EngineProcess(tmp_path) as engine, engine.start(), Traffic(engine, seed=5) as traffic:
        traffic.wait_for_more(200)
        began_s = time.monotonic()
        assert engine.stop() == 0
        assert time.monotonic() - began_s < STOP_MS_MAX / 1e3
        # Answered, or UNAVAILABLE: nobody was left hanging and nobody got an error of the engine.
        assert set(traffic.statuses) <= {"OK", "UNAVAILABLE"}, traffic.statuses
        engine.replay()
        engine.start()
        traffic.wait_for_more()
        traffic.stop()
        traffic.check(engine)

        before = customers(engine, traffic)
        version = policy_version(engine)
        assert engine.stop() == 0
        engine.start()
        assert customers(engine, traffic) == before
        assert policy_version(engine) >= version > 0


def test_a_second_engine_on_the_same_folder_is_refused_and_the_first_does_not_notice(tmp_path: Path) -> None:
    with EngineProcess(tmp_path) as engine:
        engine.start()
        before = engine.pids
        address = ("--grpc", "127.0.0.1:0", "--http", "off")
        second = engine.run("serve", "--config", str(engine.config), "--data", str(engine.data), *address)
        assert second.returncode != 0
        assert f"in use by process {before['supervisor']}" in second.stderr
        assert "Traceback" not in second.stderr
        same_port = ("--grpc", engine.grpc, "--http", "off")
        third = engine.run("serve", "--config", str(engine.config), "--data", str(tmp_path / "other"), *same_port)
        assert third.returncode != 0
        assert f"cannot listen on {engine.grpc}" in third.stderr
        assert engine.pids == before
        engine.wait_ready()


def test_two_servers_share_the_port_and_a_killed_one_is_replaced(tmp_path: Path) -> None:
    with EngineProcess(tmp_path, "--servers", "2") as engine, Traffic(engine.start(), seed=6) as traffic:
        spread_over(engine, "serve-0", "serve-1")
        traffic.wait_for_more()
        killed = engine.signal("serve-1", signal.SIGKILL)
        traffic.wait_for_more()
        engine.wait_ready(replaced=killed)
        spread_over(engine, "serve-0", "serve-1")
        traffic.stop()
        traffic.check(engine)
        engine.replay()


@pytest.mark.parametrize("transport", ["native", "grpcio"])
def test_a_redis_of_your_own_and_either_transport(tmp_path: Path, transport: str) -> None:
    options = ("--transport", transport)
    with OwnRedis(tmp_path) as redis, EngineProcess(tmp_path, "--redis", redis.url, *options) as engine:
        engine.start()
        assert "store" not in engine.pids
        with Traffic(engine, seed=7) as traffic:
            traffic.wait_for_more(100)
            assert engine.stop() == 0
            # grpcio itself cancels calls that arrive between its GOAWAY and the caller's reading of it.
            assert set(traffic.statuses) <= {"OK", "UNAVAILABLE", *["CANCELLED"] * (transport == "grpcio")}
            engine.start()
            traffic.wait_for_more()
            traffic.stop()
            traffic.check(engine)
        engine.replay("--redis", redis.url)
        for _ in ("running", "stopped"):
            elsewhere = engine.run("replay", "--config", str(engine.config), "--data", str(engine.data))
            assert elsewhere.returncode == 2
            assert "give its URL with --redis" in elsewhere.stderr
            if engine.pids:
                engine.stop()


def customers(engine: EngineProcess, traffic: Traffic) -> list[Any]:
    """What the engine knows of some customers, as of one moment."""
    names = sorted(name for notes in traffic.notes for name in notes.spent)[:20]
    assert names
    with engine.client() as client:
        now_ms = 1 + max(answer.time_ms for notes in traffic.notes for answer in notes.decisions.values())
        asked = [customers_pb2.GetCustomerRequest(customer_id=name, time_ms=now_ms) for name in names]
        return [client.customers.Get(request, timeout=5) for request in asked]


def policy_version(engine: EngineProcess) -> int:
    with engine.client() as client:
        request = decisions_pb2.DecideRequest(customer_id="anybody", channel="web")
        version: int = client.decisions.Decide(request, timeout=5).policy_version
        return version


def spread_over(engine: EngineProcess, *names: str) -> None:
    """Open connections until each of these processes serves one."""
    port = int(engine.grpc.rpartition(":")[2])

    def served() -> bool:
        with engine.client() as client:
            client.decisions.Decide(decisions_pb2.DecideRequest(customer_id="anybody", channel="web"), timeout=5)
            found.update(name for name in names if _serves(engine.pids[name], port))
        return found == set(names)

    found: set[str] = set()
    wait_until(served, 10, f"{names} serve")


def _serves(pid: int, port: int) -> bool:
    connections = psutil.Process(pid).net_connections("tcp")
    return any(at.status == psutil.CONN_ESTABLISHED and at.laddr.port == port for at in connections)
