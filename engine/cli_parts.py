"""What the files of the command line share."""

import json
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
import grpc
from click.core import ParameterSource
from google.protobuf import json_format
from google.protobuf.message import Message

from engine.errors import OpportuneError


class _Text(click.ParamType):
    """A text that a message can hold; Python hands on arguments of any bytes."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            value.encode()
        except UnicodeEncodeError:
            self.fail(f"{value!r} is not UTF-8", param, ctx)
        return value


class _Address(_Text):
    """Where something answers."""

    name = "host:port"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        value = super().convert(value, param, ctx)
        if not value:
            self.fail("nothing, expected HOST:PORT", param, ctx)
        return value


TEXT: Final = _Text()
ADDRESS: Final = _Address()
CANNOT_TELL: Final = 2
"""Exit code of a command for which 1 is an answer."""

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The configuration, a YAML file.",
)
address_option = click.option(
    "--grpc", "address", type=ADDRESS, default="127.0.0.1:50051", show_default=True, help="Where the engine answers."
)


@contextmanager
def told(exit_code: int = 1) -> Iterator[None]:
    """Errors with a message for people, without a traceback. Where 1 is an answer, let the code be another."""
    try:
        yield
    except OpportuneError as error:
        shown = click.ClickException(str(error))
        shown.exit_code = exit_code
        raise shown from error


def given_of(context: click.Context, names: Container[str]) -> str:
    """The first of these parameters that the caller gave, as it is called on the command line; "" if none was."""
    said = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT, ParameterSource.PROMPT)
    for parameter in context.command.params:
        name = parameter.name or ""
        if name in names and context.get_parameter_source(name) in said:
            return parameter.opts[0] if parameter.opts[0].startswith("-") else parameter.opts[0].upper()
    return ""


def call(
    address: str, stub: Callable[[grpc.Channel], Any], method: str, request: Message, timeout_s: float = 5.0
) -> Any:
    """The response of one call. Raises ClickException with the status and its words."""
    with grpc.insecure_channel(address) as channel:
        try:
            return getattr(stub(channel), method)(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise click.ClickException(f"{error.code().name}: {error.details()}") from error


def show(message: Message) -> None:
    """Print a message as JSON."""
    click.echo(json.dumps(json_format.MessageToDict(message, preserving_proto_field_name=True), indent=2))
