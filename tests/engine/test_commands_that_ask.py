"""Options of the commands that ask a running engine: what no message can hold is refused before anything is sent."""

import pytest
from click.testing import CliRunner
from google.protobuf.message import Message

from engine.cli import main
from opportune.v1 import decisions_pb2

DECIDE = ["decide", "--customer", "ann", "--channel", "web"]
ODD = "\udcff"
"""As Python has the byte FF of a command line."""


@pytest.mark.parametrize("limit", ["-1", "31", "99999999999"])
def test_a_limit_is_a_number_of_offers(limit: str) -> None:
    result = CliRunner().invoke(main, [*DECIDE, "--limit", limit])
    assert result.exit_code == 2
    assert f"Invalid value for '--limit': {limit} is not in the range 0<=x<=30" in result.output


@pytest.mark.parametrize(
    ("entry", "kind", "value"),
    [
        ("n=5", "number", 5.0),
        ('n="5"', "text", "5"),
        ('n="true"', "text", "true"),
        ("n=true", "flag", True),
        ("n=borrow", "text", "borrow"),
        ('n="say \\"no\\""', "text", 'say "no"'),
        ('n="', "text", '"'),
        ('n=""', "text", ""),
    ],
)
def test_a_fact_in_quotes_is_a_text(
    entry: str, kind: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[decisions_pb2.DecideRequest] = []

    def call(address: str, stub: object, method: str, request: decisions_pb2.DecideRequest) -> Message:
        asked.append(request)
        return decisions_pb2.DecideResponse()

    monkeypatch.setattr("engine.cli_ask.call", call)
    assert CliRunner().invoke(main, [*DECIDE, "--context", entry]).exit_code == 0
    [request] = asked
    assert (request.context["n"].WhichOneof("kind"), getattr(request.context["n"], kind)) == (kind, value)


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        (["n=5", "n=6"], "Invalid value for --context: 'n' is given twice"),
        (['n="a" or "b"'], 'Invalid value for --context: "a" or "b", expected a string of JSON in double quotes'),
        (['n="\\ud800"'], "expected a string of JSON in double quotes"),
        (["n"], "Invalid value for --context: 'n', expected NAME=VALUE"),
    ],
)
def test_a_fact_that_cannot_be_meant_is_refused(facts: list[str], told: str) -> None:
    result = CliRunner().invoke(main, [*DECIDE, *(word for fact in facts for word in ("--context", fact))])
    assert (result.exit_code, told in result.output) == (2, True), result.output


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
