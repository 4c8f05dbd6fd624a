import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.children import Restarts, end_earlier_workers, worker_spec
from engine.limits import DRAIN_MS_MAX, RESTARTS_MAX, STOP_MS_MAX
from tests.runtime.conftest import Engine, runs
from tests.waiting import wait_until

Start = Callable[..., Engine]


def test_it_starts_says_where_and_stops_servers_first(start_engine: Start) -> None:
    engine = start_engine(workers={"learn": "good", "ingest": "good", "serve-0": "good", "serve-1": "good"})
    state = engine.wait_ready().state
    assert set(state["pids"]) == {"supervisor", "store", "learn", "ingest", "serve-0", "serve-1"}
    assert state["addresses"]["serve-0"] == {"grpc": "127.0.0.1:1"}
    assert engine.process.stdout is not None
    assert engine.process.stdout.readline() == b"on_ready\n"
    engine.process.send_signal(signal.SIGTERM)
    assert engine.wait_end(STOP_MS_MAX / 1_000) == 0
    assert not any(runs(pid) for pid in state["pids"].values())
    assert engine.state == {}
    ended = engine.stderr_path.with_suffix("").read_text().split()
    assert [sorted(ended[:2]), sorted(ended[2:])] == [["serve-0", "serve-1"], ["ingest", "learn"]]


def test_a_second_start_on_the_folder_is_refused(start_engine: Start) -> None:
    first = start_engine(workers={}).wait_ready()
    second = start_engine(workers={})
    assert second.wait_end() == 2
    assert f"is in use by process {first.process.pid} since" in second.stderr
    assert first.redis().ping()


def test_warnings_of_workers_are_passed_on(start_engine: Start) -> None:
    engine = start_engine().wait_ready()
    wait_until(lambda: "serve-0: WARNING hello from serve-0" in engine.stderr, 5, "the warning is passed on")
    assert (engine.data / "logs" / "serve-0.log").read_text() == "WARNING hello from serve-0\n"


@pytest.mark.parametrize("name", ["serve-0", "learn"])
def test_a_killed_worker_is_started_again(start_engine: Start, name: str) -> None:
    engine = start_engine().wait_ready()
    before = engine.state["pids"]
    engine.kill(name)
    wait_until(lambda: engine.state["pids"].get(name, before[name]) != before[name], 5, "another process")
    after = engine.wait_ready().state["pids"]
    assert {other for other in before if before[other] != after[other]} == {name}
    log = engine.data / "logs" / f"{name}.log"
    told = f"{name} was killed (SIGKILL) and is started again; end of {log}:\n    WARNING hello from {name}\n"
    assert told in engine.stderr


def test_of_the_log_of_a_worker_that_died_only_this_life_is_shown(start_engine: Start) -> None:
    engine = start_engine().wait_ready()
    for _ in range(2):
        before = engine.kill("learn")
        wait_until(lambda before=before: engine.state["pids"].get("learn", before) != before, 5, "another process")
        engine.wait_ready()
    first, second = engine.stderr.split("learn was killed (SIGKILL)")[1:]
    assert [life.count("    WARNING hello from learn\n") for life in (first, second)] == [1, 1]


def test_a_killed_store_is_started_again_with_its_data(start_engine: Start) -> None:
    engine = start_engine().wait_ready()
    before = engine.state["pids"]
    engine.redis().set("k", "v")
    engine.kill("store")
    wait_until(lambda: engine.state["pids"].get("store", before["store"]) != before["store"], 5, "another store")
    after = engine.wait_ready().state["pids"]
    assert engine.redis().get("k") == b"v"
    assert after["serve-0"] == before["serve-0"]
    assert "the store was killed (SIGKILL) and is started again" in engine.stderr


@pytest.mark.parametrize("deep", [False, True])
def test_after_kill_9_of_the_supervisor_all_end_and_the_next_start_carries_on(
    start_engine: Start, tmp_path: Path, deep: bool
) -> None:
    data = tmp_path / ("deep" * 30 if deep else "data")
    engine = start_engine(data=data).wait_ready()
    engine.redis().set("k", "v")
    pids, socket_folder = engine.state["pids"], Path(engine.state["socket"]).parent
    engine.process.kill()
    if sys.platform == "linux":
        wait_until(lambda: not any(runs(pid) for n, pid in pids.items() if n != "supervisor"), 5, "children are gone")
    engine.wait_end()
    following = start_engine(data=data).wait_ready()
    assert following.redis().get("k") == b"v"
    assert not any(runs(pid) for pid in pids.values())
    assert socket_folder.exists() is not deep


def test_after_kill_9_of_everything_nothing_acknowledged_is_lost(start_engine: Start) -> None:
    engine = start_engine().wait_ready()
    client = engine.redis()
    acknowledged = [client.xadd("log", {"n": number}) for number in range(500)]
    pids = engine.state["pids"].values()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    engine.wait_end()
    following = start_engine().wait_ready()
    assert [entry for entry, _ in following.redis().xrange("log")] == acknowledged


def test_a_worker_that_outlived_its_supervisor_is_ended_by_the_next(start_engine: Start) -> None:
    engine = start_engine(workers={"serve-0": "good", "learn": "deaf"}).wait_ready()
    deaf = engine.pid("learn")
    engine.process.kill()
    engine.wait_end()
    assert runs(deaf)
    start_engine().wait_ready()
    assert not runs(deaf)


def test_processes_that_are_not_of_the_earlier_life_are_left_alone() -> None:
    end_earlier_workers({"pids": {"learn": os.getppid(), "x": 1, "y": "2", "z": 2**30}, "born": {"learn": 1.0}})
    end_earlier_workers({"pids": None})


def test_a_worker_that_never_gets_ready_ends_the_engine_soon(start_engine: Start) -> None:
    engine = start_engine(workers={"serve-0": "good", "learn": "crash"})
    assert engine.wait_end() == 1
    assert "learn does not start: 3 times in a row, learn ended with code 1" in engine.stderr
    assert "ERROR nothing works" in engine.stderr


def test_a_crash_loop_ends_the_engine(start_engine: Start) -> None:
    engine = start_engine(workers={"serve-0": "good", "learn": "crash later"}, restarts_max=4)
    assert engine.wait_end() == 1
    assert "learn keeps failing, the engine stops: learn ended with code 3" in engine.stderr
    assert engine.state == {}


def test_a_worker_that_would_be_refused_again_ends_the_engine_at_once(start_engine: Start) -> None:
    engine = start_engine(workers={"learn": "refused"}, store=False)
    assert engine.wait_end() == 1
    assert "learn does not start:" in engine.stderr and "nobody has proposed it" in engine.stderr
    assert "3 times" not in engine.stderr


def test_a_worker_that_comes_back_with_another_version_is_started_at_once_however_often(
    start_engine: Start, tmp_path: Path
) -> None:
    engine = start_engine(workers={"ingest": "reload"}, store=False, restarts_max=2)
    journal = tmp_path / "journal0"
    wait_until(lambda: journal.exists() and journal.read_text().count("again") == 8, 20, "it comes back, as often")
    engine.process.send_signal(signal.SIGTERM)
    assert engine.wait_end() == 0


def test_a_store_that_cannot_start_ends_the_engine_with_its_log(start_engine: Start, tmp_path: Path) -> None:
    fake = tmp_path / "fake-server"
    fake.write_text("#!/bin/sh\nexit 7\n")
    fake.chmod(0o755)
    engine = start_engine(binary=str(fake))
    assert engine.wait_end() == 1
    assert f"the store of data folder {engine.data}, {fake}, ended with code 7" in engine.stderr


def test_a_missing_binary_is_said(start_engine: Start) -> None:
    engine = start_engine(binary="/no/such/server")
    assert engine.wait_end() == 2
    assert "ConfigError: store binary /no/such/server: no such program" in engine.stderr


def test_a_worker_that_does_not_drain_is_killed_within_the_bound(start_engine: Start) -> None:
    engine = start_engine(workers={"serve-0": "stubborn"}, store=False).wait_ready()
    began = time.monotonic()
    engine.process.terminate()
    assert engine.wait_end() == 1
    assert DRAIN_MS_MAX / 1_000 <= time.monotonic() - began < STOP_MS_MAX / 1_000
    assert "serve-0 did not drain in time" in engine.stderr


def test_the_second_ctrl_c_kills_at_once(start_engine: Start) -> None:
    engine = start_engine(workers={"serve-0": "stubborn", "learn": "stubborn"}).wait_ready()
    pids = engine.state["pids"]
    began = time.monotonic()
    engine.process.send_signal(signal.SIGINT)
    time.sleep(0.2)  # two signals at once would count as one
    engine.process.send_signal(signal.SIGINT)
    assert engine.wait_end() == 1
    assert time.monotonic() - began < 2
    assert not any(runs(pid) for pid in pids.values())


def test_a_stop_during_the_start_is_a_clean_stop(start_engine: Start) -> None:
    engine = start_engine()
    wait_until(lambda: "store" in engine.state.get("pids", {}), 10, "the store was started")
    engine.process.terminate()
    assert engine.wait_end() == 0


def test_restarts_always_end_within_the_window_when_every_start_fails() -> None:
    restarts, now_ms, waits = Restarts(), 0, 0
    while (wait_ms := restarts.died(now_ms)) is not None:
        now_ms, waits = now_ms + wait_ms + 1_500, waits + 1  # a start that takes long
    assert waits == RESTARTS_MAX


def test_the_spec_of_an_engine_worker() -> None:
    spec = worker_spec("serve-0", "serve", {"port": 1}, stop_order=0)
    assert spec.argv == (sys.executable, "-m", "engine.worker", "serve", "--settings", '{"port": 1}')
