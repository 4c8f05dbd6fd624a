"""`opportune whatif`: from its options to its tables."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click
import numpy as np
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from engine.catalogue import Catalogue
from engine.cli_parts import config_option, told
from engine.cli_store import binary_option, check_log, in_store, url_of_log, write_report
from engine.errors import InvalidArgument
from engine.learner import prior_policy
from engine.policyfacts import PolicyFacts
from engine.rulenames import LEDGER
from engine.store.base import Store
from engine.whatif.period import Decisions, Left, steps_of
from engine.whatif.report import Report
from engine.whatif.scenario import Scenario
from engine.whatif.tally import Tally
from engine.whatif.walk import Walk, Walked
from models import Policy

SCENARIOS_MAX: Final = 16
_COLUMNS_MIN: Final = 130
_CONTACTS: Final = (
    "contact policies differ, so every scenario has the contacts that it makes itself, counted from the beginning of "
    "the log on; who came and when, and what came of offers that the log has, too, stay as in the log"
)

_BUDGETS: Final = (
    "budgets differ, so every scenario uses up its own, counted from the beginning of the log on; shadow prices stay "
    "as in the log"
)


@click.command()
@config_option
@click.option(
    "--policy",
    "policies",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    required=True,
    metavar="FILE",
    help=f"An edited configuration; repeat for more, {SCENARIOS_MAX - 1} at most.",
)
@click.option(
    "--log", "log_at", required=True, metavar="LOG", help="Data folder of an engine, or its store: redis://… or unix://…"
)
@click.option("--from", "from_text", metavar="TIME", help="Only decisions at that time or later.")
@click.option("--until", "until_text", metavar="TIME", help="Only decisions before that time.")
@binary_option
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write the same there.")
def whatif(
    config_path: Path,
    policies: tuple[Path, ...],
    log_at: str,
    from_text: str | None,
    until_text: str | None,
    store_binary: Path | None,
    json_path: Path | None,
) -> None:
    """Decide a period of the log again under edited configurations and show what would have changed.

    --config is the configuration that the others are compared with.
    """
    # It brings polars, which other commands need not wait for.
    from engine.history.loading import instant_ms

    if len(policies) >= SCENARIOS_MAX:
        raise click.UsageError(f"{len(policies)} configurations, expected at most {SCENARIOS_MAX - 1}")
    check_log(log_at)
    with told():
        from_ms = None if from_text is None else instant_ms(from_text, "--from")
        until_ms = None if until_text is None else instant_ms(until_text, "--until")
        catalogues = [Catalogue.of_file(path) for path in (config_path, *policies)]
        names = _names([config_path, *policies])
        report = in_store(
            url_of_log(log_at, store_binary),
            lambda store: compared(store, log_at, names, catalogues, from_ms, until_ms),
        )
        if json_path is not None:
            write_report(json_path, report.to_json())
    report.print(Console(width=max(Console().width, _COLUMNS_MIN)))


def _names(paths: Sequence[Path]) -> list[str]:
    """File names, told apart by their folders where they are the same."""
    stems = [path.stem for path in paths]
    return [stem if stems.count(stem) == 1 else str(path) for stem, path in zip(stems, paths, strict=True)]


async def compared(
    store: Store,
    title: str,
    names: Sequence[str],
    catalogues: Sequence[Catalogue],
    from_ms: int | None = None,
    until_ms: int | None = None,
) -> Report:
    """Decide the log again under each configuration. Raises InvalidArgument, StoreError."""
    head, beliefs = await store.read_policy()
    scenarios: list[Scenario] = []
    for name, catalogue in zip(names, catalogues, strict=True):
        scenarios.append(_scenario(name, catalogue, head, beliefs, [one.policy for one in scenarios]))
    walked = _differing(catalogues[0], catalogues[1:])
    while True:
        try:
            tally, told = await _decided(store, scenarios, from_ms, until_ms, walked)
        except _WalkNeeded as needed:
            walked |= needed.walked
        else:
            break
    if not tally.decisions[0]:
        raise InvalidArgument(". ".join([f"{title}: holds no decision that can be made again", *told]))
    return Report(title, tally, told)


class _WalkNeeded(Exception):
    """A configuration of the log has other limits than a scenario."""

    def __init__(self, walked: Walked) -> None:
        super().__init__(walked)
        self.walked = walked


def _differing(one: Catalogue, others: Sequence[Catalogue]) -> Walked:
    """Of what limits are not the same everywhere."""
    found = Walked()
    for other in others:
        found |= Walked.between(one, other)
    return found


async def _decided(
    store: Store, scenarios: Sequence[Scenario], from_ms: int | None, until_ms: int | None, walked: Walked
) -> tuple[Tally, list[str]]:
    """(what was counted, what is to be told) of the log. Raises StoreError, _WalkNeeded if more is to be `walked`."""
    tally, left, remarks = Tally(scenarios), Left(), _Remarks(scenarios, walked)
    walks = [Walk(scenario.catalogue, walked) for scenario in scenarios] if any(walked) else []
    for scenario, walk in zip(scenarios, walks, strict=False):
        scenario.walk = walk
    back_ms = max(walk.horizon_ms for walk in walks) if walks else None
    period = from_ms, until_ms, left, back_ms
    columns = TextColumn("deciding again"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with _nothing_swept(), Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        async for entries, steps in steps_of(store, scenarios[0].catalogue, *period, together=walked.budgets):
            for step in steps:
                if step.begins:
                    for walk in walks:
                        walk.begin()
                if len(step.asked):
                    remarks.look(step.asked)
                asked = _with_channels(step.asked, scenarios, left)
                turns = () if step.order is None else tuple(step.order.turns(asked.positions))
                if len(asked):
                    tally.add(asked, turns)
                    continue
                for walk in walks:
                    for turn in turns:
                        walk.took_place(turn.facts)
                        walk.heard(turn.heard)
            bar.advance(task, entries)
    return tally, [*left.told(), *remarks.told]


@contextmanager
def _nothing_swept() -> Iterator[None]:
    """Takes what is there out of the collector's rounds: every few thousand records it would go through all of it, the
    catalogues and the compiled code, for a third of the processor time."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _scenario(
    name: str, catalogue: Catalogue, head: bytes | None, beliefs: dict[str, bytes], others: Sequence[Policy]
) -> Scenario:
    """A configuration with the model in service: one of the `others`, if it is the same."""
    policy, facts = prior_policy(catalogue), PolicyFacts.none(len(catalogue.ladder.offers))
    if head is not None:
        told = orjson.loads(head)
        if told["transform"] != catalogue.transform.version:
            raise InvalidArgument(
                f"{name}: its inputs of the model are not those of the policy in service, so nothing is known of what "
                "it would expect; expected the same inputs, crosses and waves"
            )
        known = {offer: beliefs[offer] for offer in policy.offers if offer in beliefs}
        policy = policy.replaced(known, told["version"])
        facts = PolicyFacts.read(told, catalogue.ladder.ids)
    return Scenario(name, catalogue, next((other for other in others if _same(other, policy)), policy), facts)


def _same(one: Policy, other: Policy) -> bool:
    """Whether two policies expect the same of everybody."""
    heads = [(each.offers, each.version, each.transform_version, each.dimension) for each in (one, other)]
    arrays = [(each.mean_weights, each.cov_weights, each.lessons) for each in (one, other)]
    return heads[0] == heads[1] and all(np.array_equal(*pair) for pair in zip(*arrays, strict=True))


def _with_channels(asked: Decisions, scenarios: Sequence[Scenario], left: Left) -> Decisions:
    """The decisions in channels that all scenarios have."""
    there = np.ones(len(asked), np.bool_)
    for scenario in scenarios:
        there &= scenario.bridge(asked.made_with).channels[asked.channels] >= 0
    if there.all():
        return asked
    left.out("a scenario does not have their channel", int((~there).sum()))
    return asked.only(np.flatnonzero(there))


class _Remarks:
    """What scenarios cannot know of a log, told once."""

    def __init__(self, scenarios: Sequence[Scenario], walked: Walked) -> None:
        self._scenarios = scenarios
        self._walked = walked
        self._seen: set[str] = set()
        self.told = [text for text, there in zip((_CONTACTS, _BUDGETS), walked, strict=True) if there]
        if walked.contacts:
            for scenario in scenarios:
                if any(name.startswith(LEDGER) for name in scenario.catalogue.rules.variables):
                    self.told.append(f"{scenario.name}: rules that look at the ledger see what they saw in the log")

    def look(self, asked: Decisions) -> None:
        """Look at what a configuration of the log did not have."""
        if asked.made_with.version in self._seen:
            return
        self._seen.add(asked.made_with.version)
        needed = _differing(asked.made_with, [scenario.catalogue for scenario in self._scenarios]) | self._walked
        if needed != self._walked:
            raise _WalkNeeded(needed)
        for scenario in self._scenarios:
            bridge = scenario.bridge(asked.made_with)
            used = set(scenario.catalogue.rules.variables)
            new = [name for name in bridge.unseen if name in used]
            texts = [f"{name} was not there when the log was made and has its default" for name in new]
            known = self._counted(scenario.catalogue) | self._counted(asked.made_with)
            untold = [name for name in bridge.untold if name not in known]
            lifted = [name for name in bridge.lifted if name not in known]
            texts += [f"this log does not tell what the limit {name!r} would have kept back" for name in untold]
            texts += [f"the limit {name!r} is gone: what it kept back is free" for name in lifted]
            self.told += [line for text in texts if (line := f"{scenario.name}: {text}") not in self.told]

    def _counted(self, catalogue: Catalogue) -> set[str]:
        """The limits that are counted anew: nothing about them is unknown."""
        contacts = catalogue.contacts.names if self._walked.contacts and catalogue.contacts is not None else ()
        return {*contacts, *(catalogue.budgets.names if self._walked.budgets else ())}
