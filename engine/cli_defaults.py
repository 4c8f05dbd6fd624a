"""`opportune defaults` and `opportune key`: signed lists of default offers, and the keys behind them."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from engine.cli_parts import address_option, call, show, told
from engine.signing import KeyFolder, SignatureError, key_id_of, public_key_of, verified
from opportune.v1 import decisions_pb2_grpc, defaults_pb2

_FOLDER: Final = click.Path(path_type=Path, file_okay=False, exists=True)
_data_option = click.option("--data", "data_path", type=_FOLDER, help="Data folder of an engine.")


@click.group()
def defaults() -> None:
    """Signed lists of what to offer whom nothing is known of, to keep for times without a network."""


@defaults.command()
@address_option
@click.option("--channel", required=True)
@click.option("--placement", default="")
@click.option("--language", default="")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write it there.  [default: stdout]")
def get(address: str, channel: str, placement: str, language: str, out: Path | None) -> None:
    """Get a list, ready to be kept and verified."""
    request = defaults_pb2.DefaultsRequest(channel=channel, placement=placement, language=language)
    answer = call(address, decisions_pb2_grpc.DecisionsStub, "Defaults", request)
    if out is None:
        click.echo(answer.document)
        return
    try:
        out.write_text(answer.document)
    except OSError as error:
        raise click.ClickException(f"{out} cannot be written: {error.strerror}") from error
    until = _said(answer.valid_until_ms)
    click.echo(f"version {answer.version}, {len(answer.offers)} offers, valid until {until}", err=True)


@defaults.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option(
    "--key", "key_paths", multiple=True, type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="A public key, PEM; repeat for more.",
)  # fmt: skip
@_data_option
@click.option("--grpc", "address", help="Ask this engine for its public keys.")
@click.option("--at", type=click.DateTime(["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d"]), help="When it was shown, UTC; else now.")
def verify(
    file: Path, key_paths: tuple[Path, ...], data_path: Path | None, address: str | None, at: datetime | None
) -> None:
    """Verify a list: who signed it, that nobody changed it, that it was valid. Exit code 1 if not."""
    if bool(key_paths) + (data_path is not None) + (address is not None) != 1:
        raise click.UsageError("expected --key, --data or --grpc, one of them")
    at_ms = time.time_ns() // 1_000_000 if at is None else int(at.replace(tzinfo=UTC).timestamp() * 1e3)
    with told():
        pems = _pems(key_paths, data_path, address)
        public = [public_key_of(pem, where) for where, pem in pems]
        keys = {key_id_of(one): one for one in public}
        try:
            payload = verified(file.read_bytes(), keys, at_ms)
        except SignatureError as error:
            raise SignatureError(f"{file}: {error}") from error
    click.echo(
        f"{file}: genuine: version {payload['version']} of {payload['configuration']}, configuration "
        f"{payload['config_version']}, for {'/'.join(filter(None, (payload['channel'], payload['placement'])))} in "
        f"{payload['language']}, valid from {_said(payload['issued_ms'])} to {_said(payload['valid_until_ms'])}"
    )
    for offer in payload["offers"]:
        click.echo(f"  {offer['rank']}. {offer['offer_id']}: {offer['treatment']}")


@click.group()
def key() -> None:
    """The key that signs lists of default offers."""


@key.command("show")
@_data_option
@click.option("--grpc", "address", help="Ask this engine.")
def show_keys(data_path: Path | None, address: str | None) -> None:
    """Show the public keys: the one in use first, then those of before."""
    if (data_path is None) == (address is None):
        raise click.UsageError("expected --data or --grpc, one of them")
    if address is not None:
        show(call(address, decisions_pb2_grpc.DecisionsStub, "DefaultKeys", defaults_pb2.DefaultKeysRequest()))
        return
    with told():
        found = _folder(data_path).public()
    show(
        defaults_pb2.DefaultKeysResponse(
            keys=[defaults_pb2.DefaultKey(key_id=one.key_id, pem=one.pem, current=one.current) for one in found]
        )
    )


@key.command()
@click.option(
    "--data", "data_path", required=True, type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Data folder of an engine, running or not.",
)  # fmt: skip
def rotate(data_path: Path) -> None:
    """Sign with a new key from now on. Lists signed before stay verifiable; the old private key is gone."""
    with told():
        folder = _folder(data_path)
        folder.key()
        click.echo(f"signing with key {folder.rotate()} from now on")


def _folder(data_path: Path | None) -> KeyFolder:
    assert data_path is not None
    return KeyFolder(data_path / "keys")


def _pems(key_paths: tuple[Path, ...], data_path: Path | None, address: str | None) -> list[tuple[str, bytes]]:
    if address is not None:
        answer = call(address, decisions_pb2_grpc.DecisionsStub, "DefaultKeys", defaults_pb2.DefaultKeysRequest())
        return [(f"key {one.key_id}", one.pem.encode()) for one in answer.keys]
    if data_path is not None:
        return [(f"key {one.key_id}", one.pem.encode()) for one in _folder(data_path).public()]
    return [(str(path), path.read_bytes()) for path in key_paths]


def _said(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1e3, UTC):%Y-%m-%dT%H:%M:%SZ}"
