"""Keys that sign, and documents that can be verified without the engine.

    keys/            0700, in the data folder
      signing.pem    0600: the private key in use, Ed25519, PKCS #8
      public/        one PEM a key, in use or of before: what it signed stays verifiable after a rotation

What is signed: the bytes "opportune.defaults.v1\\n" and then the payload as canonical JSON. That is the JSON of
RFC 8785: no white space, keys in ascending order, UTF-8 without needless escapes. A payload has objects with ASCII
keys, lists, texts and integers within ±2⁵³, and nothing else, so that every JSON library can write the same bytes. The
first line keeps a signature from being taken for one of something else.

A document is {"payload": …, "key_id": …, "signature": base64}. Its own white space and order of keys do not matter.
"""

import base64
import binascii
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import orjson
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from engine.errors import DataFolderError, InvalidArgument

FORM: Final = "opportune.defaults.v1"
_INTEGER_MAX: Final = 1 << 53
_DOCUMENT_BYTES_MAX: Final = 4 * 1024 * 1024
_FIELDS: Final[Mapping[str, type]] = {
    "form": str,
    "configuration": str,
    "config_version": str,
    "channel": str,
    "placement": str,
    "language": str,
    "version": str,
    "issued_ms": int,
    "valid_until_ms": int,
    "offers": list,
}


class SignatureError(InvalidArgument):
    """A document is not what was signed, or not valid at the time. The message says which."""


def canonical(payload: Mapping[str, Any]) -> bytes:
    """The bytes of a payload that stand for it. Raises SignatureError for what such a payload cannot hold.

    >>> canonical({"b": [1, "ž"], "a": {}})
    b'{"a":{},"b":[1,"\\xc5\\xbe"]}'
    """
    _refuse_ambiguous(payload, "payload")
    try:
        return orjson.dumps(payload, option=orjson.OPT_SORT_KEYS)
    except (orjson.JSONEncodeError, RecursionError) as error:
        raise SignatureError(f"payload: {error}") from error


def _refuse_ambiguous(value: Any, place: str) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str) or not key.isascii():
                raise SignatureError(f"{place}: key {key!r}, expected ASCII")
            _refuse_ambiguous(inner, f"{place}.{key}")
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            _refuse_ambiguous(inner, f"{place}[{at}]")
    elif isinstance(value, bool) or not isinstance(value, (str, int)):
        raise SignatureError(f"{place}: {value!r}, expected a text, an integer, a list or an object")
    elif isinstance(value, int) and abs(value) > _INTEGER_MAX:
        raise SignatureError(f"{place}: {value}, expected an integer within ±2^53")


def version_of(payload: Mapping[str, Any]) -> str:
    """Version of what a payload offers: 16 hexadecimal digits; issuing it again does not change it."""
    content = {name: payload[name] for name in ("channel", "placement", "language", "offers")}
    return sha256(canonical(content)).hexdigest()[:16]


def key_id_of(key: Ed25519PublicKey) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the 32 bytes of a public key."""
    return sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def signed(payload: Mapping[str, Any], key: Ed25519PrivateKey) -> str:
    """The document of a payload."""
    signature = key.sign(_message(payload))
    document = {
        "payload": payload,
        "key_id": key_id_of(key.public_key()),
        "signature": base64.b64encode(signature).decode(),
    }
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS).decode()


def _message(payload: Mapping[str, Any]) -> bytes:
    return FORM.encode() + b"\n" + canonical(payload)


def verified(document: bytes, keys: Mapping[str, Ed25519PublicKey], at_ms: int) -> dict[str, Any]:
    """The payload of a document, if one of `keys`, by key id, signed just this and it was valid at the time.

    Raises SignatureError otherwise.
    """
    if len(document) > _DOCUMENT_BYTES_MAX:
        raise SignatureError(f"{len(document)} bytes, at most {_DOCUMENT_BYTES_MAX} are read")
    try:
        found = orjson.loads(document)
    except orjson.JSONDecodeError as error:
        raise SignatureError(f"no JSON: {error}") from error
    if not isinstance(found, dict) or set(found) != {"payload", "key_id", "signature"}:
        raise SignatureError("expected an object with payload, key_id and signature")
    payload, key_id, signature = found["payload"], found["key_id"], found["signature"]
    if not isinstance(payload, dict) or not isinstance(key_id, str) or not isinstance(signature, str):
        raise SignatureError("expected payload to be an object, key_id and signature to be texts")
    key = keys.get(key_id)
    if key is None:
        there = ", ".join(keys) or "none"
        raise SignatureError(f"signed with key {key_id[:64]!r}; the keys to verify with are {there}")
    try:
        key.verify(base64.b64decode(signature, validate=True), _message(payload))
    except binascii.Error as error:
        raise SignatureError(f"signature: no base64: {error}") from error
    except InvalidSignature as error:
        raise SignatureError("the signature is not that of this content: one of the two was changed") from error
    for name, kind in _FIELDS.items():
        if not isinstance(payload.get(name), kind):
            raise SignatureError(f"payload.{name}: {payload.get(name)!r}, expected {kind.__name__}")
    if payload["form"] != FORM:
        raise SignatureError(f"payload.form: {payload['form']!r}, expected {FORM!r}")
    if at_ms < payload["issued_ms"]:
        raise SignatureError(f"issued at {payload['issued_ms']}, which is after {at_ms}")
    if at_ms >= payload["valid_until_ms"]:
        raise SignatureError(f"expired at {payload['valid_until_ms']}, which is not after {at_ms}")
    return payload


def public_key_of(pem: bytes, where: str) -> Ed25519PublicKey:
    """The public key of a PEM. Raises SignatureError."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureError(f"{where}: no public key in PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SignatureError(f"{where}: not an Ed25519 key")
    return key


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that verifies."""

    key_id: str
    pem: str
    current: bool
    """Whether it signs now."""


class KeyFolder:
    """The keys of one engine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._private = path / "signing.pem"
        self._public = path / "public"
        self._read: tuple[tuple[int, int], Ed25519PrivateKey] | None = None

    def ensure(self) -> None:
        """Make a key if there is none. Raises DataFolderError."""
        if not self._private.exists():
            self.rotate()

    def rotate(self) -> str:
        """Sign with a new key from now on, and return its id. What the old one signed stays verifiable.

        The public key is written first: what a key signs can be verified from its first signature on.
        """
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        key_id = key_id_of(key.public_key())
        try:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._public.mkdir(mode=0o700, exist_ok=True)
            _write(self._public / f"{key_id}.pem", _pem(key.public_key()))
            _write(self._private, private)
        except OSError as error:
            raise DataFolderError(f"{self._path}: the key cannot be written: {error.strerror or error}") from error
        return key_id

    def key(self) -> Ed25519PrivateKey:
        """The key in use, read again when it was rotated. Raises DataFolderError."""
        try:
            status = self._private.stat()
            if status.st_mode & 0o077:
                raise DataFolderError(f"{self._private} may be read by others: expected mode 0600")
            at = (status.st_ino, status.st_mtime_ns)
            if self._read is None or self._read[0] != at:
                key = load_pem_private_key(self._private.read_bytes(), None)
                if not isinstance(key, Ed25519PrivateKey):
                    raise DataFolderError(f"{self._private}: not an Ed25519 key")
                self._read = (at, key)
        except OSError as error:
            raise DataFolderError(f"{self._private} cannot be read: {error.strerror or error}") from error
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise DataFolderError(f"{self._private}: no private key in PEM") from error
        return self._read[1]

    def public(self) -> list[PublicKey]:
        """The public keys, the one in use first. Raises DataFolderError."""
        current = key_id_of(self.key().public_key())
        try:
            found = [PublicKey(at.stem, at.read_text(), at.stem == current) for at in self._public.glob("*.pem")]
        except OSError as error:
            raise DataFolderError(f"{self._public} cannot be read: {error.strerror or error}") from error
        return sorted(found, key=lambda key: (not key.current, key.key_id))


def _pem(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _write(file: Path, content: bytes) -> None:
    """Replace a file at once, for its owner alone."""
    number, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")  # mode 0600
    with os.fdopen(number, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    Path(temporary).replace(file)
