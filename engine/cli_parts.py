"""What the files of the command line share."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from engine.errors import OpportuneError

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The configuration, a YAML file.",
)


@contextmanager
def told() -> Iterator[None]:
    """Errors with a message for people, without a traceback."""
    try:
        yield
    except OpportuneError as error:
        raise click.ClickException(str(error)) from error
