"""The list of commands: what `--help` says without loading them is what they say themselves."""

import subprocess
import sys
from pathlib import Path

import pytest
from click import Context
from click.testing import CliRunner

from engine.cli import SECTIONS, main
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
