"""The command line. `opportune --help` lists it; docs/commands.md shows each command at work.

A command is loaded when it is asked for: most of them bring the compiled kernels along, and who wants to see `--help`
or to ask a running engine need not wait seconds for those.
"""

import io
import sys
from importlib import import_module
from typing import Final

import click

SECTIONS: Final = {
    "Run it": {
        "demo": "Replay a bank's real call log through an engine of its own and show what that was worth.",
        "serve": "Run the engine: servers, ingest, learning and the private store, until Ctrl-C or SIGTERM.",
        "ingest": "Fold events from Kafka into the store, on as many machines as you like, until Ctrl-C or SIGTERM.",
    },
    "Try it by hand": {
        "decide": "Ask for the next best offer and show it.",
        "report": "Report what became of an offer.",
        "customer": "Show what the engine knows of a customer: profile, features, complaint cases, timeline.",
        "explain": "Explain a decision by the policy that made it: what spoke for each offer and against it, and its "
        "worth.",
    },
    "Change the configuration": {
        "validate": "Check a configuration; errors name file, line and what was expected, all at once.",
        "diff": "Tell what two configurations have differently, and for whom that would have changed recorded "
        "decisions.",
        "whatif": "Decide a period of the log again under edited configurations and show what would have changed.",
        "apply": "Put a configuration in force, or propose it if the one in force asks for approvals "
        "(governance.approvals).",
        "approve": "Approve a proposed version, which is then in force, if it needs no other approval.",
        "rollback": "Go back to a version that was in force before; without VERSION to the one that this one has "
        "replaced.",
        "versions": "List the versions of the configuration: when, by whom, approved by whom, why, and which is in "
        "force.",
    },
    "Look after features and history": {
        "features": "List the features: what each means, where it lies in a customer's record, what it costs.",
        "backfill": "Load history from FILES into the state of customers; a running engine may serve meanwhile.",
        "dataset": "Write training rows as Parquet: of the decisions that were logged, or with --labels of moments in "
        "history.",
        "replay": "Make all state again from the logs and compare it byte for byte, or past decisions from their "
        "records.",
    },
    "See what is learnt": {
        "evaluate": "Estimate from a log what another policy would have earned, or say why the log cannot tell.",
        "challengers": "Tell what each challenger would have earned beside the champion, on the champion's own "
        "decisions.",
        "exploration": "Tell whether the policy and each offer are still explored.",
        "drift": "Tell of which offers the acceptance was found to have changed.",
        "lift": "Tell what experiments and control groups brought, a person, with intervals.",
    },
    "Look after customers and offers": {
        "identity": "Say which identities and ids are one customer, take that back, and see how it came about.",
        "forget": "Forget a person: state, events, decisions, and what the model learnt from them.",
        "budgets": "Show the budgets in their current period: units, what is used, what is free, price and pace.",
        "leads": "Make lists of leads within the capacities of sellers, hand them out, and hear what came of them.",
        "defaults": "Signed lists of what to offer whom nothing is known of, to keep for times without a network.",
        "key": "The key that signs lists of default offers.",
    },
}
"""What each command does, in short."""
_MODULES: Final = {
    "engine.cli_ask": ("decide", "report"),
    "engine.cli_budgets": ("budgets",),
    "engine.cli_challengers": ("challengers",),
    "engine.cli_customer": ("customer",),
    "engine.cli_defaults": ("defaults", "key"),
    "engine.cli_drift": ("drift",),
    "engine.cli_exploration": ("exploration",),
    "engine.cli_features": ("features",),
    "engine.cli_forget": ("forget",),
    "engine.cli_history": ("backfill", "dataset"),
    "engine.cli_identity": ("identity",),
    "engine.cli_leads": ("leads",),
    "engine.cli_replay": ("replay",),
    "engine.cli_serve": ("ingest", "serve"),
    "engine.cli_versions": ("apply", "approve", "diff", "rollback", "validate", "versions"),
    "engine.demo": ("demo",),
    "engine.evaluate.command": ("evaluate",),
    "engine.explain.cli": ("explain",),
    "engine.lift.command": ("lift",),
    "engine.whatif.command": ("whatif",),
}
_MODULE_OF: Final = {command: module for module, commands in _MODULES.items() for command in commands}


class _Commands(click.Group):
    """Commands that are loaded when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return their names."""
        return [name for commands in SECTIONS.values() for name in commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return one of them; None if there is none of this name."""
        if cmd_name not in _MODULE_OF:
            return None
        command: click.Command = getattr(import_module(_MODULE_OF[cmd_name]), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List them without loading any."""
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(list(commands.items()))


@click.group(cls=_Commands)
@click.version_option(package_name="opportune")
def main() -> None:
    """Opportune: the next best offer for this customer now, and why."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Not every terminal has all letters: those that one lacks are shown by their numbers.
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
