"""The demo as a user runs it: a process of its own, a real engine, the real calls."""

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis

from engine.datafolder import read_state
from engine.demo import CALLS, INTERRUPTED
from tests.runtime.conftest import runs
from tests.waiting import wait_until

SMALL = 1_500


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start it in a folder that is not the checkout, with temporary files of its own."""
    (folder / "tmp").mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "engine.cli", "demo", *arguments],
        cwd=folder,
        env=os.environ | {"TMPDIR": str(folder / "tmp"), "PYTHONIOENCODING": "utf-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """(what the small form prints, its figures)."""
    folder = tmp_path_factory.mktemp("demo")
    process = start(folder, "--calls", str(SMALL), "--json", "figures.json")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert list((folder / "tmp").iterdir()) == [], "the engine's data goes with the demo"
    return out, json.loads((folder / "figures.json").read_bytes())


def answers(count: int) -> list[bool]:
    """Whether each customer said yes, read apart from the demo's own code."""
    with gzip.open(CALLS, "rt") as file:
        return [row["y"] == "yes" for row in csv.DictReader(file, delimiter=";")][:count]


def test_it_prints_a_row_for_every_policy_and_the_speed(small: tuple[str, dict[str, Any]]) -> None:
    out, figures = small
    for policy in figures["policies"]:
        assert policy["name"] in out
        assert f"{policy['value']:,.0f}" in out
    for word in ("p50", "p99 ", "p99.9", "events", "decisions", "outcomes", "value so far"):
        assert word in out


def test_the_values_are_exact(small: tuple[str, dict[str, Any]]) -> None:
    _, figures = small
    yes = answers(SMALL)
    policies = {policy["name"]: policy for policy in figures["policies"]}
    for policy in policies.values():
        assert policy["value"] == 10 * policy["accepted"] - policy["pitches"]
        assert policy["regret"] == 9 * sum(yes) - policy["value"]
    ours = policies["Opportune"]
    assert len(figures["pitched"]) == len(set(figures["pitched"])) == ours["pitches"] > 0
    assert ours["accepted"] == sum(yes[call] for call in figures["pitched"])
    assert ours["value_after_head"] == sum(10 * yes[call] - 1 for call in figures["pitched"] if call >= SMALL // 10)
    assert (policies["always pitch"]["pitches"], policies["always pitch"]["accepted"]) == (SMALL, sum(yes))
    assert (policies["never pitch"]["pitches"], policies["never pitch"]["value"]) == (0, 0)
    assert policies["best: exactly the yeses"]["value"] == 9 * sum(yes)


def test_every_call_was_decided_with_its_profile_and_every_pitch_answered(small: tuple[str, dict[str, Any]]) -> None:
    _, figures = small
    pitches = len(figures["pitched"])
    assert figures["handled"] == {"events": SMALL, "decisions": SMALL, "outcomes": pitches}
    assert (figures["unknown"], figures["degraded"]) == (0, 0)
    assert 0 < figures["decide_ms"]["p50"] <= figures["decide_ms"]["p99"] <= figures["decide_ms"]["p99.9"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly_when_it_is_interrupted(
    tmp_path_factory: pytest.TempPathFactory, number: signal.Signals
) -> None:
    tmp_path = tmp_path_factory.mktemp("ended")  # a short name: a socket's path has 107 bytes at most
    data = tmp_path / "data"
    process = start(tmp_path, "--data", str(data))
    wait_until(lambda: read_state(data).get("ready"), 30, "the engine is ready")
    state = read_state(data)
    store = redis.Redis.from_url(state["redis"])
    wait_until(lambda: store.dbsize() > 1_000, 30, "calls are under way")
    store.close()
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == INTERRUPTED, err
    assert "stopped after" in out
    assert "Traceback" not in out + err
    assert not any(runs(pid) for pid in state["pids"].values())
    assert read_state(data) == {}, "the engine was stopped, not killed"
    assert list((tmp_path / "tmp").iterdir()) == []


def test_ctrl_c_while_the_engine_starts(tmp_path: Path) -> None:
    data = tmp_path / "data"
    process = start(tmp_path, "--data", str(data))
    wait_until(lambda: "store" in read_state(data).get("pids", {}), 30, "the store was started")
    pids = read_state(data)["pids"]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == INTERRUPTED, err
    assert "Traceback" not in err
    assert not any(runs(pid) for pid in pids.values())
    assert read_state(data) == {}


def test_a_data_folder_that_has_learnt_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "format").touch()
    process = start(tmp_path, "--data", "data")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "data is not empty" in err
