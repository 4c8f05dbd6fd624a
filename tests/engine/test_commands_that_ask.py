"""Options of the commands that ask a running engine: what no message can hold is refused before anything is sent."""

import pytest
from click.testing import CliRunner

from engine.cli import main

DECIDE = ["decide", "--customer", "ann", "--channel", "web"]
ODD = "\udcff"
"""As Python has the byte FF of a command line."""


@pytest.mark.parametrize("limit", ["-1", "31", "99999999999"])
def test_a_limit_is_a_number_of_offers(limit: str) -> None:
    result = CliRunner().invoke(main, [*DECIDE, "--limit", limit])
    assert result.exit_code == 2
    assert f"Invalid value for '--limit': {limit} is not in the range 0<=x<=30" in result.output


def test_the_answer_is_json_without_saying_so() -> None:
    result = CliRunner().invoke(main, [*DECIDE, "--json"])
    assert (result.exit_code, "--json goes with --explain" in result.output) == (2, True)


@pytest.mark.parametrize(
    "words",
    [
        ["decide", "--channel", "web", "--customer", ODD],
        [*DECIDE, "--context", f"intent={ODD}"],
        ["report", "--offer", "card", "--stage", "accepted", "--decision", ODD],
        ["customer", "--customer", ODD],
        ["forget", "--identity", f"cookie={ODD}"],
        ["identity", "link", "--customer", "ann", "--same-customer", ODD],
    ],
    ids=lambda words: words[0],
)
def test_a_text_is_utf_8(words: list[str]) -> None:
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert f"Invalid value for '{words[-2]}'" in result.output and "\\udcff' is not UTF-8" in result.output
