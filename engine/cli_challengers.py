"""`opportune challengers`: how other models would do, and whether one may take over."""

import sys
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console
from rich.table import Table

from engine.cli_parts import config_option
from engine.cli_plain import plain
from engine.cli_store import data_option, redis_option
from engine.cli_told import catalogue_of, head_of
from engine.config_schema import Challenger, OursModel
from engine.tally import shortfall
from features import duration_text


@click.command()
@config_option
@data_option
@redis_option
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
@click.option("--promote", metavar="NAME", help="How this one takes over; refused unless its lower bound is above 0.")
def challengers(
    config_path: Path, data_path: Path | None, redis_url: str | None, as_json: bool, promote: str | None
) -> None:
    """Tell what each challenger would have earned beside the champion, on the champion's own decisions.

    Differences are in favour of the challenger above 0, each with its 95 % interval. Exit code of --promote: 0 if it
    may take over, 1 if not.
    """
    catalogue = catalogue_of(config_path, data_path, redis_url)
    declared = {one.name: one for one in catalogue.config.challengers}
    if promote is not None and promote not in declared:
        there = ", ".join(declared) or "none"
        raise click.BadParameter(f"{promote!r} is no challenger; there are {there}", param_hint="--promote")
    figures = head_of(data_path, redis_url).get("challengers", {})
    known = figures.get("config") == catalogue.version
    models: list[dict[str, Any]] = figures["models"] if known else []
    if as_json:
        click.echo(orjson.dumps({"known": known, "models": models}, option=orjson.OPT_INDENT_2))
    elif not declared:
        click.echo("the configuration has no challengers")
    elif not known:
        click.echo("not known yet: the learner has not published a policy with this configuration")
    else:
        _show(models)
    if promote is not None:
        sys.exit(_promote(declared[promote], {one["name"]: one for one in models}.get(promote)))


def _promote(challenger: Challenger, figures: dict[str, Any] | None) -> int:
    """Exit code: 0 if it may take over."""
    reason = "nothing is known of it yet" if figures is None else shortfall(figures)
    if challenger.mode == "apprentice":
        reason = reason or "an apprentice imitates; make it a shadow, and it learns what is worth choosing"
    if reason:
        click.echo(f"{challenger.name} is not promoted: {reason}", err=True)
        return 1
    if challenger.model.ours is None:
        click.echo(
            f"{challenger.name} is better by its lower bound, but a model of river is not served here: exploring "
            "needs beliefs with an uncertainty. The champion may find the same with other inputs or crosses",
            err=True,
        )
        return 1
    click.echo(f"{challenger.name} may take over. In the configuration:\n\nlearning:")
    click.echo("\n".join(_options(challenger.model.ours)))
    click.echo(
        "\nThen put it in force with `opportune apply`, or restart the engine: what was learnt stays, and is believed "
        "under these options."
    )
    return 0


def _options(ours: OursModel) -> list[str]:
    """Lines of the configuration, as it takes them under `learning`."""
    given = {name: getattr(ours, name) for name in sorted(ours.model_fields_set)}
    if ours.half_life is not None:
        given["half_life"] = duration_text(ours.half_life)
    # Only memory without an end is written as null; of the others it means those of `learning`.
    wanted = {name: value for name, value in given.items() if value is not None or name == "half_life"}
    return [f"  {name}: {'null' if value is None else value}" for name, value in wanted.items()]


def _show(models: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("challenger", "mode", "model"):
        table.add_column(name)
    for name in ("decisions", "skipped", "value, difference", "agrees", "Brier, gain", "log-loss, gain"):
        table.add_column(name, justify="right")
    table.add_column("may take over")
    for one in models:
        reason = shortfall(one)
        table.add_row(
            plain(one["name"]),
            one["mode"],
            one["model"],
            f"{one['decisions']:,}",
            f"{one['skipped']:,}",
            _within(one["value"], "+.4g"),
            _within(one["agreement"], ".1%"),
            _within(one["brier"], "+.4f"),
            _within(one["log_loss"], "+.4f"),
            f"no: {reason}" if reason else "yes",
        )
    Console(width=200).print(table)
    for one in models:
        if "served" in one:
            _show_served(one)


def _show_served(one: dict[str, Any]) -> None:
    served = one["served"]
    line = f"{one['name']} serves {one['serves']:.1%}: {served['decisions']:,} decisions"
    if served["mean"] is not None:
        line += f", {served['mean']:.4g} a decision, the champion meanwhile {served['champion']:.4g}"
    if served["difference"] is not None:
        line += f"; difference {_within(served['difference'], '+.4g')}"
    click.echo(line)


def _within(found: dict[str, float | None], form: str) -> str:
    if found["mean"] is None:
        return "-"
    low, high = ("?" if end is None else format(end, form) for end in (found["low"], found["high"]))
    return f"{found['mean']:{form}} ({low} to {high})"
