"""`opportune evaluate`: from its options to its exit code."""

import sys
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from engine.catalogue import Catalogue
from engine.cli_parts import told
from engine.cli_store import binary_option, check_log, in_store, url_of_log, write_report
from engine.errors import InvalidArgument
from engine.store.redis import RedisStore

_COLUMNS_MIN: Final = 110
_ABOUT_COLUMNS: Final = ("action", "propensity", "customer", "context")


@click.command()
@click.option(
    "--log",
    "log_at",
    required=True,
    metavar="LOG",
    help="Data folder of an engine, its store (redis://… or unix://…), or a file, Parquet or CSV.",
)
@click.option(
    "--policy",
    required=True,
    metavar="POLICY",
    help="A configuration, or logged, uniform, nothing, greedy or constant:OFFER.",
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration of the engine whose log it is.",
)
@click.option(
    "--reward",
    help="Column of the reward; of an engine's log reward (worth) or target (yes or no).  [default: reward]",
)
@click.option("--action", metavar="COLUMN", help="Of another file: column of what was done.")
@click.option(
    "--propensity", metavar="COLUMN", help="Of another file: column of its propensity, or a number such as 1/3."
)
@click.option("--customer", metavar="COLUMN", help="Of another file: column of the customer.")
@click.option(
    "--context", multiple=True, metavar="COLUMN", help="Of another file: what the model may use; repeat for more."
)
@click.option("--slates", is_flag=True, help="Of an engine's log: whole answers, not their first positions.")
@click.option("--from", "from_text", metavar="TIME", help="Of an engine's log: only decisions at that time or later.")
@click.option("--until", "until_text", metavar="TIME", help="Of an engine's log: only decisions before that time.")
@binary_option
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write the same there.")
def evaluate(log_at: str, policy: str, json_path: Path | None, **given: Any) -> None:
    """Estimate from a log what another policy would have earned, or say why the log cannot tell.

    Exit code 0: answered. 1: log, configuration or policy cannot be read. 2: wrong options. 3: refused.
    """
    of_file = "://" not in log_at and not Path(log_at).is_dir()
    _check(log_at, of_file, given)
    # They bring polars, which other commands need not wait for.
    from engine.evaluate.judging import judge
    from engine.evaluate.report import Report
    from engine.evaluate.slates import judge_slates
    from engine.evaluate.targets import configuration_of, target_of

    with told():
        configuration = configuration_of(policy)
        log = _of_file(Path(log_at), given) if of_file else _of_engine(log_at, configuration, given)
        target = target_of(policy, log, configuration)
        slates = given["slates"]
        found = judge_slates(log, target, configuration) if slates else judge(log, target)
        report = Report(log, target, given["reward"] or "reward", found, slates)
        if json_path is not None:
            write_report(json_path, report.to_json())
    report.print(Console(width=max(Console().width, _COLUMNS_MIN)))
    sys.exit(report.verdict)


def _check(log_at: str, of_file: bool, given: dict[str, Any]) -> None:
    """Refuse options that do not go together."""
    named = [f"--{name}" for name in _ABOUT_COLUMNS if given[name]]
    if of_file:
        wrong = [f"--{name}" for name in ("from", "until") if given[f"{name}_text"] is not None]
        wrong += ["--config"] * (given["config_path"] is not None) + ["--slates"] * given["slates"]
        if wrong:
            raise click.UsageError(f"{log_at} is a file, not an engine's log: expected no {', '.join(wrong)}")
        if named and not (given["action"] and given["reward"] and given["propensity"]):
            raise click.UsageError("expected --action, --reward and --propensity, all of them")
        return
    if named:
        raise click.UsageError(f"{log_at} is an engine's log: expected no {', '.join(named)}")
    check_log(log_at)
    if given["config_path"] is None:
        raise click.UsageError("an engine's log needs --config")
    if given["reward"] not in (None, "reward", "target"):
        raise click.UsageError(f"--reward {given['reward']}: of an engine's log expected reward or target")


def _of_file(path: Path, given: dict[str, Any]) -> Any:
    from engine.evaluate import filelog

    if given["action"]:
        context = given["context"]
        return filelog.foreign(path, given["action"], given["reward"], given["propensity"], given["customer"], context)
    if not path.is_file():
        raise InvalidArgument(f"{path}: neither a data folder, a store nor a file")
    if not filelog.is_dataset(path):
        raise InvalidArgument(
            f"{path}: not a file of `opportune dataset`: name its columns with --action, --reward and --propensity"
        )
    return filelog.of_dataset(path, given["reward"] or "reward")


def _of_engine(log_at: str, configuration: Catalogue | None, given: dict[str, Any]) -> Any:
    from engine.evaluate import enginelog
    from engine.history import decisions
    from engine.history.loading import instant_ms

    from_text, until_text = given["from_text"], given["until_text"]
    from_ms = None if from_text is None else instant_ms(from_text, "--from")
    until_ms = None if until_text is None else instant_ms(until_text, "--until")
    catalogue = Catalogue.of_file(given["config_path"])
    written = decisions.Written()

    async def run(store: RedisStore) -> enginelog.EngineLog:
        batches = decisions.decided(store, catalogue, from_ms, until_ms, written)
        reward = given["reward"] or "reward"
        return await enginelog.read(batches, written, catalogue, configuration, reward, log_at)

    return in_store(url_of_log(log_at, given["store_binary"]), run)
