"""The catalogue and the policy as versioned files: validate, diff, apply, approve, rollback, versions."""

import asyncio
import getpass
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import orjson
from rich.console import Console
from rich.table import Table

from engine.catalogue import Catalogue
from engine.cli_parts import told
from engine.cli_plain import plain
from engine.cli_store import data_option, in_store, redis_option, url_of
from engine.config import load_text, version_of
from engine.errors import NotFound
from engine.featurecheck.finding import moment
from engine.features_check import windows_told
from engine.registry import lacking_told
from engine.rulenames import shadowed_told
from engine.store.redis import RedisStore
from engine.versions import Changed, History, Step, Versions, described
from engine.versions_changes import Changes, changed_decisions
from engine.versions_check import compiled, summary
from engine.versions_diff import Difference, differences
from engine.versions_sample import policy_of, sample_of

T = TypeVar("T")
_COLUMNS: Final = 140
_SAMPLED: Final = 2_000
_SAMPLED_MAX: Final = 100_000
_SHOWN_MAX: Final = 20
_COLOURS: Final = {"added": "green", "removed": "red", "changed": "yellow"}
_SIGNS: Final = {"added": "+", "removed": "-", "changed": "~"}

_file = click.argument("config_path", type=click.Path(path_type=Path, dir_okay=False))
_version = click.argument("version")
_by = click.option("--by", default=getpass.getuser, show_default="the user of this system", help="Who does it.")
_note = click.option("--note", default="", help="Why, for those who read the history.")
_sample = click.option(
    "--sample", type=click.IntRange(0, _SAMPLED_MAX), default=_SAMPLED, show_default=True,
    help="Recorded decisions to compare; 0: none.",
)  # fmt: skip
_json = click.option("--json", "as_json", is_flag=True, help="The same as JSON.")


@click.command()
@_file
def validate(config_path: Path) -> None:
    """Check a configuration; errors name file, line and what was expected, all at once. Tells what is in it.

    Exit code 0: valid. 1: not.
    """
    with told():
        catalogue = compiled(load_text(config_path), str(config_path), new=True)
    config = catalogue.config
    click.echo(
        f"{config_path}: {config.name}, version {catalogue.version}: {len(catalogue.offers)} offers, "
        f"{len(catalogue.rules)} rules, {catalogue.feature_count} features, {catalogue.transform.dimension} inputs of "
        "the model"
    )
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    for what, count, which in summary(catalogue):
        if count:
            table.add_row(what, f"{count:,}", plain(which))
    Console(width=_COLUMNS).print(table)
    names = [*(feature.name for feature in config.all_features), *(fact.name for fact in config.context)]
    for line in [*shadowed_told(names), *windows_told(config), *lacking_told(config)]:
        click.echo(f"note: {line}", err=True)


@click.command()
@click.argument("old")
@click.argument("new")
@data_option
@redis_option
@_sample
@_json
def diff(old: str, new: str, data_path: Path | None, redis_url: str | None, sample: int, as_json: bool) -> None:
    """Tell what two configurations have differently, and for whom that would have changed recorded decisions.

    OLD and NEW are files, versions, or "active". Versions, and decisions to compare, are those of --data or --redis.
    """
    with told():
        if data_path is None and redis_url is None:
            before, after = _of_file(old), _of_file(new)
            found, changes = differences(before.config, after.config), None
        else:

            async def compare(store: RedisStore) -> tuple[list[Difference], Changes | None]:
                before, after = await _of_either(store, old), await _of_either(store, new)
                return differences(before.config, after.config), await _changes(store, before, after, sample)

            found, changes = _with_store(data_path, redis_url, compare)
    if as_json:
        decisions = None if changes is None else _plain(changes)
        _dump({"differences": [asdict(one) for one in found], "decisions": decisions})
    else:
        _show_differences(found)
        if changes is not None:
            _show_changes(changes)


@click.command()
@_file
@data_option
@redis_option
@_by
@_note
@click.option("--dry-run", is_flag=True, help="Tell what would change, and for whom; change nothing.")
@_sample
def apply(
    config_path: Path, data_path: Path | None, redis_url: str | None, by: str, note: str, dry_run: bool, sample: int
) -> None:
    """Put a configuration in force, or propose it if the one in force asks for approvals (governance.approvals).

    Running servers take it up within a second, without refusing a request. Exit code 0: done. 1: refused, and nothing
    has changed.
    """
    with told():
        text = load_text(config_path)
        catalogue = compiled(text, str(config_path), new=True)

        async def put(store: RedisStore) -> tuple[Changed, list[Difference] | None, Changes | None, int]:
            versions = Versions(store, _now_ms)
            history = await versions.history()
            found: list[Difference] | None = None
            changes: Changes | None = None
            if history.active and history.active != catalogue.version:
                before = await _of_version(store, history.active)
                found = differences(before.config, catalogue.config)
                changes = await _changes(store, before, catalogue, sample) if dry_run else None
            changed = await versions.propose(text, by, note, name=str(config_path), dry_run=dry_run)
            return changed, found, changes, history.approvals

        changed, found, changes, approvals = _with_store(data_path, redis_url, put)
    if found is not None:
        _show_differences(found)
    if changes is not None:
        _show_changes(changes)
    if dry_run:
        would = {"active": "would be in force at once", "unchanged": "is in force already"}
        said = would.get(changed.state, f"would be proposed, and need {approvals} approval(s)")
        click.echo(f"dry run: nothing has changed; version {changed.version} {said}")
    else:
        _show_changed(changed, "is proposed")


@click.command()
@_version
@data_option
@redis_option
@_by
@_note
def approve(version: str, data_path: Path | None, redis_url: str | None, by: str, note: str) -> None:
    """Approve a proposed version, which is then in force, if it needs no other approval.

    Exit code 0: done. 1: refused, such as to its author alone, and nothing has changed.
    """
    with told():
        changed = _with_store(
            data_path, redis_url, lambda store: Versions(store, _now_ms).approve(version, by, note)
        )
    _show_changed(changed, "is approved")


@click.command()
@click.argument("version", default="")
@data_option
@redis_option
@_by
@_note
def rollback(version: str, data_path: Path | None, redis_url: str | None, by: str, note: str) -> None:
    """Go back to a version that was in force before; without VERSION to the one that this one has replaced.

    Exit code 0: done. 1: refused, and nothing has changed.
    """
    with told():
        changed = _with_store(
            data_path, redis_url, lambda store: Versions(store, _now_ms).rollback(version, by, note)
        )
    _show_changed(changed, "is in force")


@click.command()
@data_option
@redis_option
@click.option("--trail", is_flag=True, help="Who did what, when: the audit trail instead of the versions.")
@click.option("--retire", metavar="VERSION", help="Take this version out of those that can be gone back to.")
@click.option("--export", metavar="VERSION", help="Print the text of this version, or of the one that is \"active\".")
@_by
@_note
@_json
def versions(
    data_path: Path | None,
    redis_url: str | None,
    trail: bool,
    retire: str | None,
    export: str | None,
    by: str,
    note: str,
    as_json: bool,
) -> None:
    """List the versions of the configuration: when, by whom, approved by whom, why, and which is in force."""
    if sum((trail, retire is not None, export is not None)) > 1:
        raise click.UsageError("expected --trail, --retire or --export, one of them")
    with told():
        if export is not None:
            name = export

            async def text_of(store: RedisStore) -> bytes:
                found = Versions(store, _now_ms)
                return await found.text_of((await found.history()).find(name).version)

            click.echo(_with_store(data_path, redis_url, text_of), nl=False)
            return
        if retire is not None:
            gone = retire
            changed = _with_store(data_path, redis_url, lambda store: Versions(store, _now_ms).retire(gone, by, note))
            click.echo(f"version {changed.version} is retired; its text stays for the decisions that name it")
            return
        if trail:
            steps = _with_store(data_path, redis_url, lambda store: Versions(store, _now_ms).trail())
            _dump([asdict(step) for step in steps]) if as_json else _show_trail(steps)
            return
        history = _with_store(data_path, redis_url, lambda store: Versions(store, _now_ms).history())
    _dump({"active": history.active, "versions": described(history)}) if as_json else _show_history(history)


COMMANDS: Final = (validate, diff, apply, approve, rollback, versions)


# --- stores and texts -----------------------------------------------------------------------------------------------


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _with_store(
    data_path: Path | None, redis_url: str | None, work: Callable[[RedisStore], Awaitable[T]]
) -> T:
    """What `work` makes of the store that the options name. Raises UsageError, or OpportuneErrors."""
    return in_store(url_of(data_path, redis_url), work, "the store did not do it")


def _of_file(given: str) -> Catalogue:
    path = Path(given)
    if not path.is_file():
        raise click.UsageError(f"{given!r} is no file; versions need the --data or --redis of an engine")
    return compiled(load_text(path), given, new=True)


async def _of_either(store: RedisStore, given: str) -> Catalogue:
    is_file = given != "active" and await asyncio.to_thread(Path(given).is_file)
    return _of_file(given) if is_file else await _of_version(store, given)


async def _of_version(store: RedisStore, given: str) -> Catalogue:
    found = Versions(store, _now_ms)
    history = await found.history()
    if given == "active" and not history.active:
        raise NotFound("no version is in force here: no engine of this release has been started yet")
    version = history.find(given).version
    text = await found.text_of(version)
    assert version_of(text) == version
    return compiled(text, f"version {version}")


async def _changes(store: RedisStore, before: Catalogue, after: Catalogue, count: int) -> Changes | None:
    if not count:
        return None
    history = await Versions(store, _now_ms).history()
    active = before if history.active in ("", before.version) else await _of_version(store, "active")
    policy = await policy_of(store, active, (*before.offer_ids, *after.offer_ids))
    records, unread = await sample_of(store, count, _now_ms())
    changes = changed_decisions(before, after, records, policy)
    changes.left_out.update(unread)
    return changes


# --- what is shown --------------------------------------------------------------------------------------------------


def _dump(value: Any) -> None:
    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2))


def _plain(changes: Changes) -> dict[str, Any]:
    return asdict(changes) | {"left_out": dict(changes.left_out)}


def _show_changed(changed: Changed, done: str) -> None:
    if changed.state == "unchanged":
        click.echo(f"version {changed.version} is in force already; nothing has changed")
    elif changed.state == "proposed":
        click.echo(
            f"version {changed.version} {done} and needs {changed.missing} approval(s) by others than its author: "
            f"opportune approve {changed.version} --by NAME; {changed.before} stays in force"
        )
    else:
        place = f" in place of {changed.before}" if changed.before else ""
        click.echo(f"version {changed.version} is in force{place}")


def _show_differences(found: list[Difference]) -> None:
    if not found:
        click.echo("no differences in what is configured")
    for one in found:
        line = f"{_SIGNS[one.what]} {': '.join(one.place)}: {one.words}"
        click.echo(click.style(line, fg=_COLOURS[one.what]))


def _show_changes(changes: Changes) -> None:
    total = changes.total
    left_out = sum(changes.left_out.values())
    if not total.compared and not left_out:
        click.echo("\nno recorded decision to compare")
        return
    click.echo(
        f"\nof {total.compared:,} recorded decisions, {_share(total.other_eligible, total.compared)} would have other "
        f"offers to choose from, {_share(total.other_first, total.compared)} another first offer by expected score"
    )
    for reason, count in changes.left_out.most_common(_SHOWN_MAX):
        click.echo(f"left out {count:,}: {reason}")
    for remark in changes.remarks:
        click.echo(f"note: {remark}")
    if not total.compared:
        return
    console = Console(width=None if sys.stdout.isatty() else _COLUMNS)
    table = Table("channel", box=None, pad_edge=False)
    for name in ("decisions", "other offers", "another first"):
        table.add_column(name, justify="right")
    for channel, shift in sorted(changes.channels.items()):
        row = _share(shift.other_eligible, shift.compared), _share(shift.other_first, shift.compared)
        table.add_row(plain(channel), f"{shift.compared:,}", *row)
    console.print(table)
    moved = {name: shift for name, shift in changes.offers.items() if shift.changed}
    if not moved:
        return
    table = Table("offer", box=None, pad_edge=False)
    for name in ("eligible before", "after", "first before", "after", "more or less first"):
        table.add_column(name, justify="right")
    most = sorted(moved.items(), key=lambda item: -abs(item[1].first_after - item[1].first_before))
    for name, counts in most[:_SHOWN_MAX]:
        difference = counts.first_after - counts.first_before
        colour = "green" if difference > 0 else "red" if difference < 0 else ""
        table.add_row(
            plain(name), f"{counts.eligible_before:,}", f"{counts.eligible_after:,}", f"{counts.first_before:,}",
            f"{counts.first_after:,}", f"{difference:+,}", style=colour,
        )  # fmt: skip
    console.print(table)
    if len(moved) > _SHOWN_MAX:
        click.echo(f"and {len(moved) - _SHOWN_MAX} more offers")


def _share(count: int, of: int) -> str:
    return f"{count:,} ({count / of:.1%})" if of else f"{count:,}"


def _show_history(history: History) -> None:
    if not history.versions:
        click.echo("no versions yet: no engine of this release has been started")
        return
    table = Table("version", "name", "", "proposed", "by", "approved by", "in force since", "note", box=None)
    for row in described(history):
        active = moment(row["active_ms"]) if row["active_ms"] else ""
        cells = (
            row["version"], row["name"], row["state"], moment(row["proposed_ms"]), row["by"],
            ", ".join(row["approved_by"]), active, row["note"],
        )  # fmt: skip
        table.add_row(*map(plain, cells), style="green" if row["state"] == "active" else "")
    Console(width=None if sys.stdout.isatty() else _COLUMNS).print(table)


def _show_trail(steps: list[Step]) -> None:
    table = Table("when", "who", "what", "version", "in force before", "after", "note", box=None)
    for step in steps:
        after = step.after if step.after != step.before else "the same"
        cells = (moment(step.ms), step.who, step.what, step.version, step.before, after, step.note)
        table.add_row(*map(plain, cells))
    Console(width=None if sys.stdout.isatty() else _COLUMNS).print(table)
