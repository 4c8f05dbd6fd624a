"""Wrong options are told before anything is started or made."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from engine.cli import main
from tests.engine_process import CONFIG


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["serve", "--source", "tills"], "--source is a topic of Kafka: expected --kafka, too"),
        (["serve", "--kafka", "broker"], "'broker', expected HOST:PORT"),
        (["serve", "--kafka", "broker:9092,:1"], "':1', expected HOST:PORT"),
        (["serve", "--kafka", "b:1", "--prefix", "a b"], "'a b' is no name of a topic"),
        (["ingest", "--kafka", "b:1", "--redis", "redis://r", "--source", ""], "'' is no name of a topic"),
        (["ingest", "--kafka", "b:1"], "Missing option '--redis'"),
        (["ingest", "--redis", "redis://r"], "Missing option '--kafka'"),
    ],
)
def test_wrong_options_are_told(options: list[str], told: str, tmp_path: Path) -> None:
    config = tmp_path / "opportune.yaml"
    config.write_text(CONFIG)
    data = tmp_path / "data"
    done = CliRunner().invoke(main, [*options, "--config", str(config), "--data", str(data)])
    assert done.exit_code == 2
    assert told in done.output
    assert not data.exists()
