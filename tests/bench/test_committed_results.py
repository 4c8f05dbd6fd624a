"""What is committed under bench/results is whole, and docs/figures.md shows these figures and no others."""

import json
from pathlib import Path

import pytest

from bench.report import markdown_rows

ROOT = Path(__file__).resolve().parents[2]
RESULTS = sorted((ROOT / "bench" / "results").glob("*.json"))


def test_there_is_a_result_for_every_benchmark() -> None:
    assert {path.stem.partition("-")[2] for path in RESULTS} == {
        "decide", "freshness", "features", "kafka", "learning", "models", "ope",
        "policy",
    }  # fmt: skip


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_the_page_shows_the_figures_of_the_committed_file(path: Path) -> None:
    found = json.loads(path.read_text())
    assert set(found) >= {"machine", "versions", "rows"}
    page = (ROOT / "docs" / "figures.md").read_text()
    rows = markdown_rows(found)
    assert len(rows) >= 3
    for row in rows:
        assert row in page
