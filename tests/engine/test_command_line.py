"""The list of commands: what `--help` says without loading them is what they say themselves."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click import Context
from click.testing import CliRunner

from engine import cli_versions
from engine.cli import SECTIONS, main
from engine.versions import Step
from tests.small_engine import CONFIG

_TEXTS = {name: text for commands in SECTIONS.values() for name, text in commands.items()}


@pytest.mark.parametrize("name", _TEXTS)
def test_a_command_is_listed_with_its_own_words(name: str) -> None:
    command = main.get_command(Context(main), name)
    assert command is not None
    assert (command.name, command.get_short_help_str(1_000)) == (name, _TEXTS[name])


def test_what_is_no_command_is_told() -> None:
    result = CliRunner().invoke(main, ["offer"])
    assert (result.exit_code, "No such command 'offer'" in result.output) == (2, True)


def test_validate_notes_words_of_rules_that_names_take(tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    path.write_bytes(CONFIG.replace(b"name: minutes", b"name: hour").replace(b"name: purchases_7d", b"name: ledger"))
    result = CliRunner().invoke(main, ["validate", str(path)])
    assert result.exit_code == 0
    assert [line for line in result.stderr.splitlines() if "declared" in line] == [
        "note: rules mean the declared 'ledger' by ledger; they do not see ledger.contacts_7d and the like",
        "note: rules mean the declared 'hour' by hour; that of the request is request.hour",
    ]


def test_validate_notes_windows_that_reach_further_back_than_they_say(tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    text = CONFIG.replace(b"window: 7d", b"window: 7d, tile: 2d").replace(b"window: 90d", b"window: 90d, tile: 1d")
    path.write_bytes(text)
    result = CliRunner().invoke(main, ["validate", str(path)])
    assert result.exit_code == 0
    assert [line for line in result.stderr.splitlines() if "window" in line] == [
        "note: 'purchases_7d': a window of 7d in tiles of 2d covers up to 8d; expected a tile that divides it"
    ]


def test_texts_of_a_configuration_are_shown_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    text = CONFIG.replace(b"meaning: money spent, owner: sales", b'meaning: "[spent] :100:", owner: "[/sales]"')
    path.write_bytes(text)
    result = CliRunner().invoke(main, ["features", "--config", str(path)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "[spent] :100:" in result.output
    assert "[/sales]" in result.output


TOLD_APART = b"""  - {name: spent_food, event: purchase, function: sum, attribute: amount, where: {category: food},
     window: 30d, default: 0}
  - {name: at_night, event: purchase, function: count, where: "hour >= 22"}
  - {name: fading, event: purchase, function: decayed, half_life: 36h}
  - {name: share_food, function: ratio, numerator: spent_food, denominator: spent_30d, default: 1000000000}
  - {name: hours, event: purchase, function: hour_share}
offers:"""


def test_features_are_listed_with_all_that_tells_them_apart(tmp_path: Path) -> None:
    path, report = tmp_path / "shop.yaml", tmp_path / "features.json"
    path.write_bytes(CONFIG.replace(b"offers:", TOLD_APART, 1))
    words = ["features", "--config", str(path), "--json", str(report)]
    narrow = CliRunner().invoke(main, words, env={"COLUMNS": "80"}, catch_exceptions=False)
    assert max(len(line.rstrip()) for line in narrow.stdout.splitlines()[:-1]) <= 110
    result = CliRunner().invoke(main, words, env={"COLUMNS": "200"}, catch_exceptions=False)
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in result.stdout.splitlines() if line.strip()}
    assert rows["at_night"] == "purchase count where hour >= 22 lifetime"
    assert rows["fading"] == "purchase decayed half-life 36h"
    assert rows["purchases_7d"] == "purchase count 7d by 14h"
    assert rows["share_food"] == "ratio spent_food / spent_30d 1000000000"
    assert rows["spent_food"] == "purchase sum amount where category = food 30d by 60h 0"
    told = json.loads(report.read_text())
    features = {feature["name"]: feature for feature in told["features"]}
    assert [features["purchases_7d"][key] for key in ("tile_ms", "tiles")] == [50_400_000, 12]
    assert [features["at_night"][key] for key in ("tile_ms", "tiles")] == [None, None]
    places = told["layouts"]["customer"]["places"]
    for name, feature in features.items():
        mine = [place for place in places if name in place["features"]]
        assert {place["group"] for place in mine} == ({feature["group"]} - {None})
        assert sorted(cell for place in mine for cell in place["cells"]) == sorted(feature["cells"])
    assert (features["share_food"]["group"], len(features["hours"]["cells"])) == (None, 24)


def test_a_terminal_without_a_letter_gets_its_number(tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    path.write_bytes(CONFIG.replace(b"owner: sales", "owner: Zoë €".encode()))
    words = [sys.executable, "-m", "engine.cli", "features", "--config", str(path)]
    shown = subprocess.run(words, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"}, check=True)
    assert rb"Zo\xeb \u20ac" in shown.stdout


def test_a_trail_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    cli_versions._show_trail([Step(1, "[/bob]", "applied", "v1", "", "v1", "see [ticket 12] :100:")])
    shown = capsys.readouterr().out
    assert "[/bob]" in shown
    assert "see [ticket 12] :100:" in shown


@pytest.mark.parametrize("command", ["replay", "exploration", "drift"])
def test_what_cannot_be_told_is_no_finding(tmp_path: Path, command: str) -> None:
    path = tmp_path / "shop.yaml"
    path.write_bytes(CONFIG)
    for folder in ("nothing", "shop.yaml"):
        words = [command, "--config", str(path), "--data", str(tmp_path / folder)]
        assert CliRunner().invoke(main, words, catch_exceptions=False).exit_code == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["customer", "--customer", "ann", "--page-size", str(2**40)], "not in the range"),
        (["customer", "--customer", "ann", "--grpc", ""], "expected HOST:PORT"),
        (["customer", "--customer", "ann", "--grpc", "\udcff"], "is not UTF-8"),
        (["leads", "take", "\udcff", "--seller", "bob"], "is not UTF-8"),
        (["replay", "--config", "c.yaml", "--data", ".", "--json", "x.json"], "--json goes with --decision"),
    ],
)
def test_wrong_words_are_told(words: list[str], told: str) -> None:
    result = CliRunner().invoke(main, words, catch_exceptions=False)
    assert (result.exit_code, told in result.output) == (2, True), result.output


@pytest.mark.parametrize("arguments", [["--help"], ["decide", "--help"], ["report", "--help"]])
def test_who_looks_for_help_or_asks_a_running_engine_does_not_wait_for_kernels(arguments: list[str]) -> None:
    look = f"""
import sys
from engine.cli import main
main({arguments!r}, standalone_mode=False)
print(sorted({{"numba", "numpy", "pydantic"}} & set(sys.modules)))
"""
    told = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert told.stdout.endswith("\n[]\n"), told.stdout
