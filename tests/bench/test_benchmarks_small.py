"""The benchmarks in their small form, so that they cannot rot. What they measure here says nothing about speed."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

FIXED_NAMES = {
    "decide": {
        "decide.throughput_vs_grpcio_empty",
        "decide.throughput_vs_transport_empty",
        "decide.p50_vs_transport_empty",
        "decide.p99_ms_half_load",
        "decide.fall_100_to_1000_offers",
        "decide.bytes_per_customer",
    },
    "freshness": {"freshness.event_p99_ms", "freshness.outcome_p99_ms"},
    "kafka": {"kafka.ingest_vs_empty_agent", "kafka.ingest_vs_empty_reading", "kafka.event_p99_ms"},
}


@pytest.mark.parametrize("name", FIXED_NAMES)
def test_a_small_run_gives_every_figure_beside_what_it_was_held_against(name: str, tmp_path: Path) -> None:
    found = _run(name, tmp_path / "out.json", {})
    rows = {row["metric"]: row for row in found["rows"]}
    if name == "kafka" and not rows and os.environ.get("CI") != "true":
        pytest.skip(f"no Kafka: {found['notes']}")
    assert FIXED_NAMES[name] <= set(rows)
    for row in rows.values():
        assert set(row) == {"metric", "value", "unit", "against", "ratio"}
        assert math.isfinite(row["value"])
        assert row["value"] > 0
        assert row["against"]
    assert found["machine"]["cores"] >= 1
    assert {"python", "opportune", "generator"} <= set(found["versions"])


def test_without_h2load_our_own_generator_is_used_and_said(tmp_path: Path) -> None:
    """PATH without h2load: the figures are marked, and a note says how to get it."""
    found = _run("freshness", tmp_path / "out.json", {"PATH": str(tmp_path)})
    assert found["versions"]["generator"] == "python (h2load not found)"
    assert any("apt install nghttp2-client" in note for note in found["notes"])


def _run(name: str, out: Path, environment: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench", name, "--small", "--json", str(out)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=110, env=os.environ | environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert name in done.stdout
    found: dict[str, Any] = json.loads(out.read_text())
    return found
